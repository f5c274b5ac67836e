//! Lists adapters and chooses one.

use super::{GpuError, cores, environment, llvmpipe, spirv};
use crate::kernels::{DeviceClass, LITTLE_WORK, MatrixUnits, Target, texture_bytes};
use crate::variables;
use wgpu::{Adapter, Backend, DeviceType};

/// An adapter as `nin-wgpu devices` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterDescription {
    /// Position in the list; the number that `--device` takes.
    pub index: usize,
    /// The driver's name for it.
    pub name: String,
    /// `vulkan`, `metal`, `dx12` or `gl`.
    pub backend: &'static str,
    /// `discrete`, `integrated`, `virtual`, `cpu` or `other`.
    pub kind: &'static str,
    /// Driver name and version.
    pub driver: String,
    /// The vendor's and the device's number, as the bus or the driver gives them.
    pub ids: [u32; 2],
    /// Names and values of the limits that matter here.
    pub limits: Vec<(&'static str, u64)>,
    /// Names of the optional features it offers.
    pub features: Vec<String>,
    /// Streaming multiprocessors, compute units or threads that workgroups are spread over, where the driver tells.
    pub cores: Option<u32>,
}

/// All adapters, the most powerful first. `WGPU_BACKEND` restricts the backends.
pub fn adapters() -> Vec<AdapterDescription> {
    enumerate().iter().enumerate().map(|(index, adapter)| describe(index, adapter)).collect()
}

pub(super) fn enumerate() -> Vec<Adapter> {
    // GL is asked only where nothing better answers: its drivers offer the same devices with tighter limits, and
    // asking them costs start-up time.
    let native = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let chosen = variables::BACKEND.value().map(|names| wgpu::Backends::from_comma_list(&names));
    let mut found = enumerate_backends(chosen.unwrap_or(native));
    if found.is_empty() && chosen.is_none() {
        found = enumerate_backends(wgpu::Backends::GL);
    }
    found.retain(|a| a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    found.sort_by_key(|a| rank(a.get_info().device_type));
    found
}

fn enumerate_backends(backends: wgpu::Backends) -> Vec<Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.flags = wgpu::InstanceFlags::empty().with_env();
    descriptor.backends = backends;
    environment::make_driver_cache();
    let instance = wgpu::Instance::new(descriptor);
    pollster::block_on(instance.enumerate_adapters(backends))
}

/// Adapter `spec`: an index, a backend, or part of a name; without one `WGPU_ADAPTER_NAME`, else the most powerful.
pub(super) fn choose(spec: Option<&str>) -> Result<(usize, Adapter), GpuError> {
    variables::check()?;
    let found = enumerate();
    if found.is_empty() {
        return Err(no_adapter());
    }
    let Some(spec) = spec.map(str::to_string).or_else(|| variables::ADAPTER_NAME.value()) else {
        return found.into_iter().enumerate().next().ok_or(GpuError::NoAdapter);
    };
    let wanted = spec.to_lowercase();
    let matches = |index: usize, adapter: &Adapter| match wanted.parse::<usize>() {
        Ok(number) => number == index,
        Err(_) => {
            let info = adapter.get_info();
            backend_name(info.backend) == wanted || info.name.to_lowercase().contains(&wanted)
        }
    };
    let available: Vec<String> = found.iter().map(|a| a.get_info().name).collect();
    found
        .into_iter()
        .enumerate()
        .find(|(index, adapter)| matches(*index, adapter))
        .ok_or_else(|| GpuError::NoMatch { spec, available: available.join(", ") })
}

/// Why there is no adapter at all.
pub fn no_adapter() -> GpuError {
    let available = wgpu::Instance::enabled_backend_features();
    match variables::BACKEND.value() {
        Some(value) if !wgpu::Backends::from_comma_list(&value).intersects(available) => {
            let known = [Backend::Vulkan, Backend::Metal, Backend::Dx12, Backend::Gl];
            let names: Vec<&str> = known.into_iter().filter(|b| available.contains((*b).into())).map(backend_name).collect();
            GpuError::NoBackend { value, available: names.join(", ") }
        }
        _ => GpuError::NoAdapter,
    }
}

pub(super) fn describe(index: usize, adapter: &Adapter) -> AdapterDescription {
    let info = adapter.get_info();
    let limits = adapter.limits();
    AdapterDescription {
        index,
        name: info.name.clone(),
        backend: backend_name(info.backend),
        kind: kind_name(info.device_type),
        driver: [info.driver.as_str(), info.driver_info.as_str()].join(" ").trim().to_string(),
        ids: [info.vendor, info.device],
        limits: vec![
            ("max_buffer_size", limits.max_buffer_size),
            ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size),
            ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage.into()),
            ("max_compute_workgroup_storage_size", limits.max_compute_workgroup_storage_size.into()),
            ("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup.into()),
            ("max_compute_workgroups_per_dimension", limits.max_compute_workgroups_per_dimension.into()),
            ("min_storage_buffer_offset_alignment", limits.min_storage_buffer_offset_alignment.into()),
        ],
        features: adapter.features().iter_names().map(|(name, _)| name.to_string()).collect(),
        cores: cores::count(adapter),
    }
}

/// Features that kernels can use.
pub(super) const FEATURES: wgpu::Features = wgpu::Features::SUBGROUP.union(wgpu::Features::SHADER_INT64).union(wgpu::Features::SHADER_F16);

/// Workgroup memory in bytes that the kernels for matrix units take.
const MATRIX_WORKGROUP_BYTES: u32 = 32 << 10;

/// Invocations that share a matrix in the kernels for matrix units.
const MATRIX_SUBGROUP: u32 = 32;

/// The matrix units that kernels may use, and whether they take f32: those kernels count on subgroups of 32 invocations, which
/// Apple's GPUs have though Metal does not say so.
///
/// `NIN_WGPU_MATRIX_UNITS=off` leaves them alone, `emulated` runs their kernels in ordinary arithmetic. `small-subgroups` also
/// takes units of smaller subgroups, of which several then compute the same matrix: right and slow, for proving kernels on a
/// driver for CPUs. Larger subgroups would have to multiply different matrices at once.
fn matrix_units(adapter: &Adapter, limits: &wgpu::Limits, has_f16: bool) -> (MatrixUnits, bool) {
    if !has_f16 || limits.max_compute_workgroup_storage_size < MATRIX_WORKGROUP_BYTES {
        return (MatrixUnits::None, false);
    }
    let switch = variables::MATRIX_UNITS.value().unwrap_or_default();
    match switch.as_str() {
        "off" => return (MatrixUnits::None, false),
        "emulated" => return (MatrixUnits::Emulated, false),
        _ => {}
    }
    if !adapter.features().contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        return (MatrixUnits::None, false);
    }
    let info = adapter.get_info();
    let lanes = if info.backend == Backend::Metal { [MATRIX_SUBGROUP; 2] } else { [info.subgroup_min_size, info.subgroup_max_size] };
    units_of(&adapter.cooperative_matrix_properties(), lanes, switch == "small-subgroups")
}

/// The largest matrices that kernels can multiply, of those that a driver lists for subgroups of `lanes[0]` to `lanes[1]`
/// invocations: in f16 with sums in f32. And whether it lists them in f32, too.
fn units_of(listed: &[wgpu::CooperativeMatrixProperties], lanes: [u32; 2], with_small_subgroups: bool) -> (MatrixUnits, bool) {
    use wgpu::CooperativeScalarType::{F16, F32};
    let multiplies = |size: u32, operands| {
        listed.iter().any(|p| [p.m_size, p.n_size, p.k_size] == [size; 3] && p.ab_type == operands && p.cr_type == F32)
    };
    let [smallest, largest] = lanes;
    let share_a_matrix = smallest == largest
        && (largest == MATRIX_SUBGROUP || with_small_subgroups && largest != 0 && MATRIX_SUBGROUP.is_multiple_of(largest));
    match () {
        () if share_a_matrix && multiplies(16, F16) => (MatrixUnits::Sixteen, multiplies(16, F32)),
        () if share_a_matrix && multiplies(8, F16) => (MatrixUnits::Eight, multiplies(8, F32)),
        () => (MatrixUnits::None, false),
    }
}

/// What a device of the adapter is opened with: all it can do and those features of `wanted` that it has, or WebGPU's defaults
/// and no features where `NIN_WGPU_DEFAULT_LIMITS=1`.
pub(super) fn limits_and_features(adapter: &Adapter, wanted: wgpu::Features) -> (wgpu::Limits, wgpu::Features) {
    if variables::DEFAULT_LIMITS.is_on() {
        return (wgpu::Limits::default(), wgpu::Features::empty());
    }
    let limits = adapter.limits();
    let mut features = adapter.features() & wanted;
    let (units, _) = matrix_units(adapter, &limits, features.contains(wgpu::Features::SHADER_F16));
    features.set(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, matches!(units, MatrixUnits::Sixteen | MatrixUnits::Eight));
    (limits, features)
}

/// What decides over the SPIR-V of a device opened with these features, where it takes SPIR-V: on Vulkan, unless
/// `NIN_WGPU_SPIRV=wgpu` leaves making it to wgpu.
pub(super) fn spirv_device(adapter: &Adapter, features: wgpu::Features) -> Option<spirv::Device> {
    if !features.contains(wgpu::Features::PASSTHROUGH_SHADERS) || variables::SPIRV.value().as_deref() == Some("wgpu") {
        return None;
    }
    Some(spirv::Device {
        version: spirv::version_for(vulkan_version(adapter)?),
        f16: features.contains(wgpu::Features::SHADER_F16),
        subgroups: features.contains(wgpu::Features::SUBGROUP),
        int64: features.contains(wgpu::Features::SHADER_INT64),
        matrices: features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
        robust_buffers: false,
        robust_images: false,
    })
}

/// The version of Vulkan that an adapter of that backend has, as Vulkan writes it.
#[cfg(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn vulkan_version(adapter: &Adapter) -> Option<u32> {
    // SAFETY: of the adapter behind it only a number is read.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    Some(adapter.physical_device_capabilities().properties().api_version)
}

#[cfg(not(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn vulkan_version(_: &Adapter) -> Option<u32> {
    None
}

/// Leave for experimental features, where any is asked for.
pub(super) fn experimental(features: wgpu::Features) -> wgpu::ExperimentalFeatures {
    if !features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        return wgpu::ExperimentalFeatures::disabled();
    }
    // SAFETY: what wgpu does not check of cooperative matrices is that whole subgroups take part and that loads and stores
    // stay inside their arrays. The kernels call them in uniform control flow, at places fixed by their tiles, which the
    // emulation of the same text proves; `prove_half` runs them before they are trusted.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

/// The adapter that [`super::Gpu::open`] would open, and the facts that kernels and memory would be planned by, without opening
/// it. `device` is an index, a backend or part of a name.
pub fn probe(device: Option<&str>) -> Result<(AdapterDescription, Target), GpuError> {
    let (index, adapter) = choose(device)?;
    let (limits, features) = limits_and_features(&adapter, FEATURES);
    Ok((describe(index, &adapter), target(&adapter, &limits, features, None)))
}

/// The facts that kernels are chosen by, on a device opened with these limits and features.
pub(super) fn target(adapter: &Adapter, limits: &wgpu::Limits, features: wgpu::Features, class: Option<DeviceClass>) -> Target {
    let class = match (class, variables::KERNELS.value().as_deref(), adapter.get_info().device_type) {
        (Some(class), ..) => class,
        (None, Some("cpu"), _) => DeviceClass::Cpu,
        (None, Some("integrated"), _) => DeviceClass::Integrated,
        (None, Some("discrete"), _) => DeviceClass::Discrete,
        (_, _, DeviceType::Cpu) => DeviceClass::Cpu,
        (_, _, DeviceType::DiscreteGpu | DeviceType::VirtualGpu) => DeviceClass::Discrete,
        (_, _, DeviceType::IntegratedGpu | DeviceType::Other) => DeviceClass::Integrated,
    };
    let info = adapter.get_info();
    let (matrix_units, matrix_units_take_f32) = matrix_units(adapter, limits, features.contains(wgpu::Features::SHADER_F16));
    let has_subgroups = features.contains(wgpu::Features::SUBGROUP) && info.subgroup_min_size == info.subgroup_max_size;
    Target {
        class,
        // Known driver failure: SwiftShader's compiler takes over 12 GB for kernels with 256 sums in registers.
        little_work: if info.name.contains("SwiftShader") { u64::MAX } else { LITTLE_WORK },
        compiles_slowly: llvmpipe::compiles_slowly(&info.driver_info),
        subgroup: has_subgroups.then_some(info.subgroup_min_size),
        int64: features.contains(wgpu::Features::SHADER_INT64),
        f16: features.contains(wgpu::Features::SHADER_F16),
        matrix_units,
        matrix_units_take_f32,
        filling_workgroups: class.filling_workgroups(),
        // A CPU's threads decide nothing: the same command gives the same bytes on every machine.
        cores: cores::count(adapter).filter(|_| info.device_type != DeviceType::Cpu),
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        texture_reuse: llvmpipe::texture_reuse(&info.driver_info),
        max_texture_bytes: texture_bytes(limits.max_texture_dimension_2d.into()),
        memory_budget: None,
        offset_alignment: limits.min_storage_buffer_offset_alignment.max(limits.min_uniform_buffer_offset_alignment).into(),
        choices: Default::default(),
    }
}

fn rank(kind: DeviceType) -> u8 {
    match kind {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    }
}

fn kind_name(kind: DeviceType) -> &'static str {
    match kind {
        DeviceType::DiscreteGpu => "discrete",
        DeviceType::IntegratedGpu => "integrated",
        DeviceType::VirtualGpu => "virtual",
        DeviceType::Cpu => "cpu",
        DeviceType::Other => "other",
    }
}

fn backend_name(backend: Backend) -> &'static str {
    match backend {
        Backend::Vulkan => "vulkan",
        Backend::Metal => "metal",
        Backend::Dx12 => "dx12",
        Backend::Gl => "gl",
        Backend::BrowserWebGpu => "webgpu",
        Backend::Noop => "noop",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgpu::CooperativeScalarType::{self, F16, F32};

    fn listed(size: u32, operands: CooperativeScalarType, sums: CooperativeScalarType) -> wgpu::CooperativeMatrixProperties {
        wgpu::CooperativeMatrixProperties {
            m_size: size,
            n_size: size,
            k_size: size,
            ab_type: operands,
            cr_type: sums,
            saturating_accumulation: false,
        }
    }

    /// Mesa's llvmpipe: matrices of 8 x 8 in f16 only.
    #[test]
    fn units_take_f32_only_where_the_driver_lists_it() {
        let half = [listed(8, F16, F16), listed(8, F16, F32)];
        assert_eq!(units_of(&half, [32, 32], false), (MatrixUnits::Eight, false));
        let both = [listed(8, F32, F32), listed(8, F16, F16), listed(8, F16, F32)];
        assert_eq!(units_of(&both, [32, 32], false), (MatrixUnits::Eight, true));
        // f32 of another size serves no kernel.
        let elsewhere = [listed(16, F32, F32), listed(8, F16, F32)];
        assert_eq!(units_of(&elsewhere, [32, 32], false), (MatrixUnits::Eight, false));
        let large = [listed(8, F32, F32), listed(8, F16, F32), listed(16, F16, F16), listed(16, F16, F32)];
        assert_eq!(units_of(&large, [32, 32], false), (MatrixUnits::Sixteen, false));
    }

    #[test]
    fn units_that_kernels_cannot_use_are_none() {
        let none = (MatrixUnits::None, false);
        assert_eq!(units_of(&[], [32, 32], false), none);
        assert_eq!(units_of(&[listed(8, F16, F16), listed(8, F32, F32)], [32, 32], false), none);
        let narrow = wgpu::CooperativeMatrixProperties { n_size: 8, ..listed(16, F16, F32) };
        assert_eq!(units_of(&[narrow], [32, 32], false), none);
    }

    #[test]
    fn other_subgroups_than_those_of_32_have_to_be_asked_for_and_divide_them() {
        let half = [listed(8, F16, F32)];
        for (lanes, with_small) in [([8, 8], true), ([16, 16], true), ([8, 8], false), ([64, 64], true), ([8, 32], true), ([0, 0], true)] {
            let expected = if with_small && [[8, 8], [16, 16]].contains(&lanes) { MatrixUnits::Eight } else { MatrixUnits::None };
            assert_eq!(units_of(&half, lanes, with_small), (expected, false), "{lanes:?} {with_small}");
        }
    }
}
