//! Which kernels' SPIR-V declares Vulkan's memory model: what `docs/upstream/naga-memory-model.md` says of it.

use naga::ShaderStage;
use naga::back::spv;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use nin_wgpu::kernels::{ALL, Kernel};
use std::collections::BTreeSet;

/// Numbers of SPIR-V.
const OP_MEMORY_MODEL: u32 = 14;
const OP_LOAD: u32 = 61;
const OP_STORE: u32 = 62;
const OP_COOPERATIVE_LOAD: u32 = 4457;
const OP_COOPERATIVE_STORE: u32 = 4458;
const VULKAN: u32 = 3;

fn spirv(kernel: &Kernel) -> Vec<u32> {
    let module = naga::front::wgsl::parse_str(kernel.source).unwrap();
    let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).unwrap();
    let options = spv::Options { lang_version: (1, 6), ..spv::Options::default() };
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: kernel.entry.to_string() };
    spv::write_vec(&module, &info, &options, Some(&pipeline)).unwrap()
}

/// Operation and words of every instruction.
fn instructions(words: &[u32]) -> Vec<(u32, &[u32])> {
    let mut rest = &words[5..];
    let mut found = Vec::new();
    while let Some(first) = rest.first() {
        let (instruction, following) = rest.split_at((first >> 16) as usize);
        found.push((first & 0xffff, instruction));
        rest = following;
    }
    found
}

#[test]
fn only_kernels_for_matrix_units_declare_vulkans_memory_model() {
    let mut declaring = BTreeSet::new();
    for kernel in ALL.iter().filter(|kernel| kernel.workgroup_bytes > 0) {
        let words = spirv(kernel);
        let instructions = instructions(&words);
        let model = instructions.iter().find(|(op, _)| *op == OP_MEMORY_MODEL).map(|(_, words)| words[2]);
        assert_eq!(model == Some(VULKAN), kernel.matrices, "{}", kernel.name());
        if model != Some(VULKAN) {
            continue;
        }
        declaring.insert(kernel.module.trim_end_matches("_f16"));
        // Without memory operands every access is private. Should this fail, naga marks them, and the document is out of date.
        let words_of = |op| instructions.iter().filter(move |(other, _)| *other == op).map(|(_, words)| words.len());
        assert!(words_of(OP_LOAD).all(|count| count == 4) && words_of(OP_STORE).all(|count| count == 3), "{}", kernel.name());
        assert!(words_of(OP_COOPERATIVE_LOAD).count() > 0 && words_of(OP_COOPERATIVE_STORE).count() > 0, "{}", kernel.name());
        assert!(words_of(OP_COOPERATIVE_LOAD).all(|count| count == 6), "{}", kernel.name());
        assert!(words_of(OP_COOPERATIVE_STORE).all(|count| count == 5), "{}", kernel.name());
    }
    let expected = [
        "conv2d_matrix_128x128",
        "conv2d_matrix_128x96",
        "conv2d_matrix_64x64",
        "conv2d_simdgroup_64x64",
        "roofline_matrix",
        "roofline_simdgroup",
    ];
    assert_eq!(declaring, BTreeSet::from(expected));
}
