//! Every expanded shader validates, translates to the languages of all drivers, and keeps to the limits that every
//! WebGPU device has.

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ShaderStage};
use nin_wgpu::kernels::{ALL, Binding, BindingKind, Kernel};
use std::collections::{BTreeMap, BTreeSet};

/// WebGPU's defaults, and the workgroup memory of the smallest devices.
const MOST_STORAGE_BUFFERS: usize = 8;
const MOST_INVOCATIONS: u32 = 256;
const MOST_WORKGROUP_BYTES: u32 = 16 << 10;
const MOST_UNIFORMS: usize = 12;

/// Source of every shader by name.
pub fn modules() -> BTreeMap<&'static str, &'static str> {
    ALL.iter().map(|kernel| (kernel.module, kernel.source)).collect()
}

/// Shaders that need subgroups; all others need nothing that a WebGPU device may lack.
fn subgroup_modules() -> BTreeSet<&'static str> {
    ALL.iter().filter(|kernel| kernel.subgroups).map(|kernel| kernel.module).collect()
}

/// Parses and validates with no optional capability (f16, 64-bit numbers, ...) but subgroups where the table says so.
fn validated(name: &str, source: &str) -> (Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(source).unwrap_or_else(|e| panic!("{}", e.emit_to_string_with_path(source, name)));
    let capabilities = if subgroup_modules().contains(name) { Capabilities::SUBGROUP } else { Capabilities::empty() };
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|e| panic!("{}", e.emit_to_string_with_path(source, name)));
    (module, info)
}

/// Runs a check on every entry point of every shader and lists what failed.
fn for_every_kernel(check: impl Fn(&Kernel, &Module, &ModuleInfo) -> Result<(), String>) {
    let modules: BTreeMap<_, _> = modules().into_iter().map(|(name, source)| (name, validated(name, source))).collect();
    let failed: Vec<String> = ALL
        .iter()
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
    assert_eq!(files, modules().into_keys().collect::<Vec<_>>());
    for (name, source) in modules() {
        let (module, _) = validated(name, source);
        let mut in_shader: Vec<&str> = module.entry_points.iter().map(|entry| entry.name.as_str()).collect();
        let mut in_table: Vec<&str> = ALL.iter().filter(|kernel| kernel.module == name).map(|kernel| kernel.entry).collect();
        in_shader.sort_unstable();
        in_table.sort_unstable();
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

#[test]
fn kernels_translate_to_msl() {
    let options = msl::Options { lang_version: (2, 1), ..msl::Options::default() };
    for_every_kernel(|kernel, module, info| {
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
    for_every_kernel(|kernel, module, info| {
        let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, kernel.entry.to_string())) };
        let mut text = String::new();
        let translated = hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None).map_err(|e| e.to_string())?;
        for name in translated.entry_point_names {
            name.map_err(|e| e.to_string())?;
        }
        if text.contains("numthreads") { Ok(()) } else { Err("no kernel in the text".into()) }
    });
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
        assert!(kernel.workgroup_bytes <= MOST_WORKGROUP_BYTES, "{name}: {} bytes of workgroup memory", kernel.workgroup_bytes);
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
    assert_eq!(
        subgroup_modules(),
        BTreeSet::from([
            "conv2d_subgroup_16",
            "conv2d_subgroup_8",
            "conv2d_subgroup_narrow_16",
            "conv2d_subgroup_narrow_8",
            "conv2d_subgroup_textures_16",
            "conv2d_subgroup_textures_8",
        ])
    );
}

#[test]
fn kernels_ask_for_no_extension() {
    for (name, source) in modules() {
        for line in source.lines() {
            let line = line.trim();
            assert!(!line.starts_with("enable ") && !line.starts_with("requires "), "{name}: {line}");
        }
    }
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
        assert!(!code.contains("atomic"), "{name}: results would depend on the order of execution");
    }
}
