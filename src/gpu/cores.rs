//! How many cores a device has, over which it spreads workgroups.

use wgpu::{Adapter, DeviceType};

/// NVIDIA's streaming multiprocessors, AMD's compute units, a CPU's threads; `None` where the driver does not tell.
pub(super) fn count(adapter: &Adapter) -> Option<u32> {
    if adapter.get_info().device_type == DeviceType::Cpu {
        return std::thread::available_parallelism().ok().and_then(|threads| u32::try_from(threads.get()).ok());
    }
    of_vulkan(adapter).filter(|cores| *cores > 0)
}

#[cfg(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn of_vulkan(adapter: &Adapter) -> Option<u32> {
    use ash::{amd, nv, vk};
    // SAFETY: the adapter is only asked for its properties, while the guard lives.
    let vulkan = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let capabilities = vulkan.physical_device_capabilities();
    let oldest = vulkan.shared_instance().instance_api_version().min(capabilities.properties().api_version);
    if oldest < vk::API_VERSION_1_1 {
        return None;
    }
    let names = [nv::shader_sm_builtins::NAME, amd::shader_core_properties::NAME, amd::shader_core_properties2::NAME];
    let [has_multiprocessors, has_units, has_active_units] = names.map(|name| capabilities.supports_extension(name));
    let mut multiprocessors = vk::PhysicalDeviceShaderSMBuiltinsPropertiesNV::default();
    let mut units = vk::PhysicalDeviceShaderCorePropertiesAMD::default();
    let mut active_units = vk::PhysicalDeviceShaderCoreProperties2AMD::default();
    let mut properties = vk::PhysicalDeviceProperties2::default();
    if has_multiprocessors {
        properties = properties.push_next(&mut multiprocessors);
    }
    if has_units {
        properties = properties.push_next(&mut units);
    }
    if has_active_units {
        properties = properties.push_next(&mut active_units);
    }
    // SAFETY: the handle is the adapter's own, of an instance and a device of Vulkan 1.1 or later, and every structure in the
    // chain belongs to an extension that the device has.
    unsafe { vulkan.shared_instance().raw_instance().get_physical_device_properties2(vulkan.raw_physical_device(), &mut properties) };
    let possible_units = units.shader_engine_count * units.shader_arrays_per_engine_count * units.compute_units_per_shader_array;
    [multiprocessors.shader_sm_count, active_units.active_compute_unit_count, possible_units].into_iter().find(|count| *count > 0)
}

#[cfg(not(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn of_vulkan(_: &Adapter) -> Option<u32> {
    None
}
