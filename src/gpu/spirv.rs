//! SPIR-V of a WGSL entry point for Vulkan, as wgpu 30 would make it (naga, with the options of wgpu-hal's `vulkan/adapter.rs` and
//! `vulkan/device.rs`), but without the layouts that naga gives to types in workgroup memory: Vulkan forbids them
//! (VUID-StandaloneSpirv-None-10684), and drivers that mind refuse the module (`docs/upstream/naga-layout-decorations.md`).
//!
//! Nothing here needs a device: the tests give the words to `spirv-val`, and `benches/registers` to a driver.

use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ResourceBinding, ShaderStage};
use spv::Capability;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What a device has that changes the SPIR-V made for it.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// Version of SPIR-V, major and minor: see [`version_for`].
    pub version: (u8, u8),
    /// wgpu's `SHADER_F16`.
    pub f16: bool,
    /// wgpu's `SUBGROUP`.
    pub subgroups: bool,
    /// wgpu's `SHADER_INT64`.
    pub int64: bool,
    /// wgpu's `EXPERIMENTAL_COOPERATIVE_MATRIX`: every module is then declared in Vulkan's memory model.
    pub matrices: bool,
    /// `VkPhysicalDeviceRobustness2FeaturesEXT::robustBufferAccess2`.
    pub robust_buffers: bool,
    /// `robustImageAccess2`, else `VkPhysicalDeviceImageRobustnessFeatures::robustImageAccess`.
    pub robust_images: bool,
}

/// How a module is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checks {
    /// `create_shader_module`.
    All,
    /// `create_shader_module_trusted` with `ShaderRuntimeChecks::unchecked()`.
    None,
}

/// The newest SPIR-V that a version of Vulkan, as Vulkan writes it, promises to take.
pub fn version_for(vulkan: u32) -> (u8, u8) {
    match (vulkan >> 22 & 0x7f, vulkan >> 12 & 0x3ff) {
        (..=1, 0) | (0, _) => (1, 0),
        (1, 1) => (1, 3),
        (1, 2) => (1, 5),
        _ => (1, 6),
    }
}

/// Parses and validates a shader; the error shows the place in the source.
pub fn parse(name: &str, source: &str) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|error| error.emit_to_string_with_path(source, name))?;
    let capabilities = Capabilities::SUBGROUP
        | Capabilities::SHADER_INT64
        | Capabilities::SHADER_FLOAT16
        | Capabilities::SHADER_FLOAT16_IN_FLOAT32
        | Capabilities::COOPERATIVE_MATRIX;
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|error| error.emit_to_string_with_path(source, name))?;
    Ok((module, info))
}

/// The resources that an entry point uses, and the number that each gets in its descriptor set: wgpu counts them through.
pub fn numbered(module: &Module, info: &ModuleInfo, entry: &str) -> Result<BTreeMap<ResourceBinding, u32>, String> {
    let index = module.entry_points.iter().position(|point| point.name == entry).ok_or_else(|| format!("no entry point {entry}"))?;
    let used = info.get_entry_point(index);
    let resources = module.global_variables.iter().filter(|(handle, _)| !used[*handle].is_empty());
    let places: BTreeSet<ResourceBinding> = resources.filter_map(|(_, variable)| variable.binding).collect();
    let before = |place: &ResourceBinding| places.range(..*place).filter(|other| other.group == place.group).count() as u32;
    Ok(places.iter().map(|place| (*place, before(place))).collect())
}

/// The words of a module that holds the one compute entry point, with bindings as [`numbered`] and workgroup memory not cleared. Layouts stand where naga puts them: see [`without_needless_layouts`].
pub fn words(module: &Module, info: &ModuleInfo, entry: &str, device: &Device, checks: Checks) -> Result<Vec<u32>, String> {
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.to_string() };
    let options = options(numbered(module, info, entry)?, device, checks);
    spv::write_vec(module, info, &options, Some(&pipeline)).map_err(|error| error.to_string())
}

fn options(bindings: BTreeMap<ResourceBinding, u32>, device: &Device, checks: Checks) -> spv::Options<'static> {
    let checked = checks == Checks::All;
    let restrict_unless = |safe: bool| if safe || !checked { BoundsCheckPolicy::Unchecked } else { BoundsCheckPolicy::Restrict };
    spv::Options {
        lang_version: device.version,
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        fake_missing_bindings: false,
        binding_map: bindings
            .into_iter()
            .map(|(at, binding)| (at, spv::BindingInfo { descriptor_set: at.group, binding, binding_array_size: None }))
            .collect(),
        capabilities: Some(capabilities(device).into_iter().collect()),
        bounds_check_policies: BoundsCheckPolicies {
            index: restrict_unless(false),
            buffer: restrict_unless(device.robust_buffers),
            image_load: restrict_unless(device.robust_images),
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: checked,
        ray_query_initialization_tracking: checked,
        trace_ray_argument_validation: true,
        use_storage_input_output_16: false,
        debug_info: None,
        task_dispatch_limits: None,
        mesh_shader_primitive_indices_clamp: checked,
        emit_int_div_checks: checked,
    }
}

fn capabilities(device: &Device) -> Vec<Capability> {
    let mut all = vec![
        Capability::Shader,
        Capability::Matrix,
        Capability::Sampled1D,
        Capability::Image1D,
        Capability::ImageQuery,
        Capability::DerivativeControl,
        Capability::StorageImageExtendedFormats,
    ];
    if device.subgroups {
        all.extend([
            Capability::GroupNonUniform,
            Capability::GroupNonUniformVote,
            Capability::GroupNonUniformArithmetic,
            Capability::GroupNonUniformBallot,
            Capability::GroupNonUniformShuffle,
            Capability::GroupNonUniformShuffleRelative,
            Capability::GroupNonUniformQuad,
        ]);
    }
    if device.int64 {
        all.push(Capability::Int64);
    }
    if device.f16 {
        all.push(Capability::Float16);
    }
    if device.matrices {
        all.extend([Capability::CooperativeMatrixKHR, Capability::VulkanMemoryModel]);
    }
    all
}

// Numbers of the SPIR-V specification.
const HEADER_WORDS: usize = 5;
const OP_TYPE_ARRAY: u32 = 28;
const OP_TYPE_RUNTIME_ARRAY: u32 = 29;
const OP_TYPE_STRUCT: u32 = 30;
const OP_TYPE_POINTER: u32 = 32;
const OP_DECORATE: u32 = 71;
const OP_MEMBER_DECORATE: u32 = 72;
/// `Uniform`, `PushConstant`, `StorageBuffer`, `PhysicalStorageBuffer`: what lies there has a layout.
const WITH_LAYOUT: [u32; 4] = [2, 9, 12, 5349];
/// `RowMajor`, `ColMajor`, `ArrayStride`, `MatrixStride`, `Offset`.
const LAYOUT_DECORATIONS: [u32; 5] = [4, 5, 6, 7, 35];

/// The module without the layouts of types that no buffer holds. A type that lies both in a buffer and elsewhere keeps its own.
pub fn without_needless_layouts(words: &[u32]) -> Vec<u32> {
    let mut parts: HashMap<u32, &[u32]> = HashMap::new();
    let mut in_buffers: Vec<u32> = Vec::new();
    for instruction in instructions(words) {
        match (instruction[0] & 0xffff, &instruction[1..]) {
            (OP_TYPE_ARRAY | OP_TYPE_RUNTIME_ARRAY, [id, element, ..]) => {
                parts.insert(*id, std::slice::from_ref(element));
            }
            (OP_TYPE_STRUCT, [id, members @ ..]) => {
                parts.insert(*id, members);
            }
            (OP_TYPE_POINTER, [_, class, pointee]) if WITH_LAYOUT.contains(class) => in_buffers.push(*pointee),
            _ => {}
        }
    }
    let mut with_layout = HashSet::new();
    while let Some(id) = in_buffers.pop() {
        if with_layout.insert(id) {
            in_buffers.extend(parts.get(&id).copied().unwrap_or_default());
        }
    }
    let is_needless = |instruction: &[u32]| match (instruction[0] & 0xffff, &instruction[1..]) {
        (OP_DECORATE, [id, decoration, ..]) | (OP_MEMBER_DECORATE, [id, _, decoration, ..]) => {
            LAYOUT_DECORATIONS.contains(decoration) && !with_layout.contains(id)
        }
        _ => false,
    };
    let kept = instructions(words).filter(|instruction| !is_needless(instruction)).flatten();
    words.iter().take(HEADER_WORDS).chain(kept).copied().collect()
}

/// The instructions of a module, each with the word that says its length and opcode.
fn instructions(words: &[u32]) -> impl Iterator<Item = &[u32]> {
    let mut rest = words.get(HEADER_WORDS..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = (rest.first()? >> 16) as usize;
        let (instruction, after) = rest.split_at_checked(length.max(1))?;
        rest = after;
        Some(instruction)
    })
}
