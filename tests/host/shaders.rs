//! Every expanded shader validates, translates to the languages of all drivers, and keeps to the limits that every
//! WebGPU device has.

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ShaderStage};
use nin_wgpu::kernels::{ALL, Binding, BindingKind, Kernel};
use nin_wgpu::shape::Element;
use std::collections::{BTreeMap, BTreeSet};

/// WebGPU's defaults, and the workgroup memory of the smallest devices.
const MOST_STORAGE_BUFFERS: usize = 8;
const MOST_INVOCATIONS: u32 = 256;
const MOST_WORKGROUP_BYTES: u32 = 16 << 10;
const MOST_UNIFORMS: usize = 12;

/// Of kernels for matrix units, which adapters with less are not given.
const MOST_MATRIX_BYTES: u32 = 32 << 10;

/// Whether a kernel works in the tiles of matrix units, emulated or not.
fn is_matrix_tile(kernel: &Kernel) -> bool {
    kernel.matrices || kernel.module.starts_with("conv2d_emulated")
}

/// Source of every shader by name.
pub fn modules() -> BTreeMap<&'static str, &'static str> {
    ALL.iter().map(|kernel| (kernel.module, kernel.source)).collect()
}

/// Shaders that need subgroups.
fn subgroup_modules() -> BTreeSet<&'static str> {
    ALL.iter().filter(|kernel| kernel.subgroups).map(|kernel| kernel.module).collect()
}

/// Shaders that need integers of 64 bits.
fn int64_modules() -> BTreeSet<&'static str> {
    ALL.iter().filter(|kernel| kernel.int64).map(|kernel| kernel.module).collect()
}

/// Shaders that need f16: the twins of those that store activations, and those in the tiles of matrix units.
fn f16_modules() -> BTreeSet<&'static str> {
    ALL.iter().filter(|kernel| kernel.f16).map(|kernel| kernel.module).collect()
}

/// Whether a shader is the twin in half precision of another.
fn is_twin(name: &str) -> bool {
    name.ends_with("_f16")
}

/// Shaders that multiply on matrix units, which not all languages of drivers have.
fn matrix_modules() -> BTreeSet<&'static str> {
    ALL.iter().filter(|kernel| kernel.matrices).map(|kernel| kernel.module).collect()
}

/// Parses and validates with no optional capability but subgroups, integers of 64 bits, f16 and matrix units where the table says so.
fn validated(name: &str, source: &str) -> (Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(source).unwrap_or_else(|e| panic!("{}", e.emit_to_string_with_path(source, name)));
    let mut capabilities = Capabilities::empty();
    capabilities.set(Capabilities::SUBGROUP, subgroup_modules().contains(name));
    capabilities.set(Capabilities::SHADER_INT64, int64_modules().contains(name));
    capabilities.set(Capabilities::SHADER_FLOAT16, f16_modules().contains(name));
    capabilities.set(Capabilities::COOPERATIVE_MATRIX, matrix_modules().contains(name));
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|e| panic!("{}", e.emit_to_string_with_path(source, name)));
    (module, info)
}

/// Runs a check on every entry point of every shader and lists what failed.
fn for_every_kernel(check: impl Fn(&Kernel, &Module, &ModuleInfo) -> Result<(), String>) {
    for_kernels(|_| true, check);
}

fn for_kernels(concerns: impl Fn(&Kernel) -> bool, check: impl Fn(&Kernel, &Module, &ModuleInfo) -> Result<(), String>) {
    let modules: BTreeMap<_, _> = modules().into_iter().map(|(name, source)| (name, validated(name, source))).collect();
    let failed: Vec<String> = ALL
        .iter()
        .filter(|kernel| concerns(kernel))
        .filter_map(|kernel| {
            let (module, info) = &modules[kernel.module];
            check(kernel, module, info).err().map(|message| format!("{}: {message}", kernel.name()))
        })
        .collect();
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), ALL.len(), failed.join("\n"));
}

#[test]
fn the_table_holds_every_entry_point() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let mut files: Vec<String> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "wgsl"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let in_single = |name: &&str| !is_twin(name);
    assert_eq!(files, modules().into_keys().filter(in_single).collect::<Vec<_>>());
    for (name, source) in modules() {
        let (module, _) = validated(name, source);
        let mut in_shader: Vec<&str> = module.entry_points.iter().map(|entry| entry.name.as_str()).collect();
        let mut in_table: Vec<&str> = ALL.iter().filter(|kernel| kernel.module == name).map(|kernel| kernel.entry).collect();
        in_shader.sort_unstable();
        in_table.sort_unstable();
        // A twin's entry point that would be the same as in single precision is not in the table.
        if is_twin(name) {
            in_shader.retain(|entry| in_table.contains(entry));
        }
        assert_eq!(in_shader, in_table, "{name}");
    }
}

#[test]
fn shaders_say_what_they_compute() {
    for (name, source) in modules() {
        let header = source.lines().take_while(|line| line.starts_with("//")).count();
        assert!(header >= 1, "{name}.wgsl has no header");
    }
}

#[test]
fn kernels_translate_to_spirv() {
    let options = spv::Options { lang_version: (1, 3), ..spv::Options::default() };
    for_every_kernel(|kernel, module, info| {
        let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: kernel.entry.to_string() };
        let words = spv::write_vec(module, info, &options, Some(&pipeline)).map_err(|e| e.to_string())?;
        if words.first() == Some(&0x0723_0203) { Ok(()) } else { Err("no SPIR-V".into()) }
    });
}

/// Metal has matrices of 8 x 8 since version 2.3, and no larger ones.
#[test]
fn kernels_translate_to_msl() {
    let has_its_matrices = |kernel: &Kernel| !kernel.matrices || kernel.module.contains("_simdgroup");
    for_kernels(has_its_matrices, |kernel, module, info| {
        let options = msl::Options { lang_version: if kernel.matrices { (2, 3) } else { (2, 1) }, ..msl::Options::default() };
        let entry_point = Some((ShaderStage::Compute, kernel.entry.to_string()));
        let pipeline = msl::PipelineOptions { entry_point, ..msl::PipelineOptions::default() };
        let (text, translated) = msl::write_string(module, info, &options, &pipeline).map_err(|e| e.to_string())?;
        for name in translated.entry_point_names {
            name.map_err(|e| e.to_string())?;
        }
        if text.contains("kernel void") { Ok(()) } else { Err("no kernel in the text".into()) }
    });
}

#[test]
fn kernels_translate_to_hlsl() {
    let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_0, ..hlsl::Options::default() };
    // There is no Direct3D with matrix units that wgpu offers.
    for_kernels(
        |kernel| !kernel.matrices,
        |kernel, module, info| {
            let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, kernel.entry.to_string())) };
            let mut text = String::new();
            let translated = hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None).map_err(|e| e.to_string())?;
            for name in translated.entry_point_names {
                name.map_err(|e| e.to_string())?;
            }
            if text.contains("numthreads") { Ok(()) } else { Err("no kernel in the text".into()) }
        },
    );
}

#[test]
fn kernels_keep_to_the_limits_of_every_device() {
    for kernel in ALL {
        let name = kernel.name();
        let storage = kernel.storage().count();
        assert!((1..=MOST_STORAGE_BUFFERS).contains(&storage), "{name}: {storage} storage buffers");
        assert!(kernel.bindings.len() - storage <= MOST_UNIFORMS.min(2), "{name}: params and step are all a kernel gets");
        let invocations: u32 = kernel.workgroup_size.iter().product();
        assert!((1..=MOST_INVOCATIONS).contains(&invocations), "{name}: {invocations} invocations");
        assert!(kernel.workgroup_size[2] <= 64, "{name}");
        let most = if is_matrix_tile(kernel) { MOST_MATRIX_BYTES } else { MOST_WORKGROUP_BYTES };
        assert!(kernel.workgroup_bytes <= most, "{name}: {} bytes of workgroup memory", kernel.workgroup_bytes);
    }
}

#[test]
fn convolutions_can_run_in_parts() {
    let convolutions: Vec<&Kernel> = ALL.iter().filter(|kernel| kernel.module.starts_with("conv2d")).copied().collect();
    assert!(convolutions.len() > 20, "{} convolutions", convolutions.len());
    for kernel in convolutions {
        assert!(kernel.divisible, "{} does not find its workgroup through shared/grid.wgsl", kernel.name());
    }
}

#[test]
fn only_convolutions_for_subgroups_need_them() {
    let names = ["conv2d_subgroup", "conv2d_subgroup_narrow", "conv2d_subgroup_textures"];
    let twins = |lanes: u32| names.map(|name| [format!("{name}_{lanes}"), format!("{name}_{lanes}_f16")]);
    let expected: BTreeSet<String> = [8, 16].into_iter().flat_map(twins).flatten().collect();
    assert_eq!(subgroup_modules().into_iter().map(str::to_string).collect::<BTreeSet<_>>(), expected);
}

/// Chosen on CPU devices only, and not where they lack them.
#[test]
fn only_convolutions_for_subgroups_load_pairs() {
    assert_eq!(int64_modules(), BTreeSet::from(["conv2d_subgroup_8", "conv2d_subgroup_16"]));
}

#[test]
fn kernels_ask_for_no_extension_but_f16_and_matrices() {
    for (name, source) in modules() {
        let asked: Vec<&str> =
            source.lines().map(str::trim).filter(|line| line.starts_with("enable ") || line.starts_with("requires ")).collect();
        let expected: &[&str] = match (f16_modules().contains(name), matrix_modules().contains(name)) {
            (true, true) => &["enable f16;", "enable wgpu_cooperative_matrix;"],
            (true, false) => &["enable f16;"],
            (false, true) => &["enable wgpu_cooperative_matrix;"],
            (false, false) => &[],
        };
        assert_eq!(asked, expected, "{name}");
    }
}

#[test]
fn twins_differ_from_their_kernels_in_what_they_store_only() {
    let mut twins = 0;
    for kernel in ALL {
        let Some(twin) = kernel.half else { continue };
        twins += 1;
        let name = twin.name();
        assert!(twin.f16 && !kernel.f16 && twin.half.is_none() && kernel.subgroups == twin.subgroups, "{name}");
        assert_eq!((twin.entry, twin.workgroup_size), (kernel.entry, kernel.workgroup_size), "{name}");
        // Operands are staged as they are stored where matrix units read them, else as f32.
        let is_smaller = is_matrix_tile(kernel) && twin.workgroup_bytes < kernel.workgroup_bytes;
        assert!(is_smaller || twin.workgroup_bytes == kernel.workgroup_bytes, "{name}");
        let bindings = |kernel: &Kernel| kernel.bindings.iter().map(|b| (b.index, b.name, b.kind)).collect::<Vec<_>>();
        assert_eq!(bindings(twin), bindings(kernel), "{name}");
        assert!(kernel.bindings.iter().all(|binding| binding.element == Element::F32), "{name}");
        let halves: Vec<&str> = twin.bindings.iter().filter(|b| b.element == Element::F16).map(|b| b.name).collect();
        let allowed = ["x", "x_quads", "y", "y_in", "dx", "dy", "a", "b", "weight", "source", "values"];
        assert!(!halves.is_empty() && halves.iter().all(|name| allowed.contains(name)), "{name}: {halves:?}");
        assert_eq!(twin.for_elements(&twin.storage().map(|b| b.element).collect::<Vec<_>>()).map(Kernel::name), Some(name));
    }
    assert_eq!(twins, ALL.iter().filter(|kernel| is_twin(kernel.module)).count());
    assert!(twins > 50, "{twins}");
}

#[test]
fn every_kernel_writes_and_bindings_are_apart() {
    for kernel in ALL {
        let name = kernel.name();
        let writes = |binding: &Binding| matches!(binding.kind, BindingKind::ReadWrite | BindingKind::TextureWrite);
        assert!(kernel.bindings.iter().any(writes), "{name} writes nothing");
        let mut indices: Vec<u32> = kernel.bindings.iter().map(|binding| binding.index).collect();
        assert!(indices.is_sorted(), "{name}");
        indices.dedup();
        assert_eq!(indices.len(), kernel.bindings.len(), "{name}: two bindings have one number");
    }
}

#[test]
fn no_kernel_adds_to_floats_atomically() {
    for (name, source) in modules() {
        let code: String = source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
        // A flag that is only ever set comes out the same in any order.
        let is_flag = name == "loss_scale" && code.matches("atomic").count() == 2;
        assert!(is_flag && code.contains("atomicStore(") && code.contains("atomic<u32>") || !code.contains("atomic"), "{name}");
    }
}
