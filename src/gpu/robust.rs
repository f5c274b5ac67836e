//! Vulkan devices without robust buffer access, for measuring what it costs.
//!
//! wgpu-hal asks every Vulkan device that can for `robustBufferAccess`, and for `robustBufferAccess2` where there is
//! VK_EXT_robustness2: drivers then keep accesses outside a binding from doing harm, on some hardware with instructions of their own
//! around every load and store. `create_shader_module_trusted` does not touch that: it is a property of the device.
//! wgpu has no switch for it; but wgpu-hal tells which extensions and features it would open a device with, and takes one
//! that somebody else has created from them.

use super::GpuError;
use crate::variables;

/// Whether devices are opened as wgpu opens them: `NIN_WGPU_ROBUST_ACCESS=off` leaves robust buffer access out.
pub(super) fn is_wanted() -> Result<bool, GpuError> {
    Ok(variables::ROBUST_ACCESS.checked()?.as_deref() != Some("off"))
}

/// Why there is none without on this adapter.
fn refused(why: impl std::fmt::Display) -> GpuError {
    GpuError::Refused(format!("{}=off: {why}", variables::ROBUST_ACCESS.name))
}

/// Opens a device as `adapter.request_device` does, without robust buffer access. Fails on other backends than Vulkan.
#[cfg(any(target_os = "linux", target_os = "android", windows))]
pub(super) fn open_without(
    adapter: &wgpu::Adapter,
    descriptor: &wgpu::DeviceDescriptor<'_>,
) -> Result<(wgpu::Device, wgpu::Queue), GpuError> {
    use ash::vk;
    use wgpu::hal::api::Vulkan;

    let wgpu::DeviceDescriptor { required_features, required_limits, memory_hints, .. } = descriptor;
    // SAFETY: nothing is done with the adapter but what its own functions are for.
    let hal = unsafe { adapter.as_hal::<Vulkan>() };
    let hal = hal.ok_or_else(|| refused("only Vulkan has robust buffer access that can be left out"))?;
    let extensions = hal.required_device_extensions(*required_features);
    let mut features = hal.physical_device_features(&extensions, *required_features);
    let core = features.get_core().robust_buffer_access(false);
    // As wgpu-hal opens devices: one queue of the first family.
    let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
    let names: Vec<_> = extensions.iter().map(|name| name.as_ptr()).collect();
    let info = vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(&names);
    let info = features.add_to_device_create(info).enabled_features(&core);
    let mut next = info.p_next.cast_mut().cast::<vk::BaseOutStructure<'_>>();
    // SAFETY: the chain holds structures of `features`, which is borrowed exclusively for as long as `info` lives; each
    // begins as BaseOutStructure does, and its type tells what it is.
    unsafe {
        while let Some(structure) = next.as_mut() {
            let following = structure.p_next;
            if structure.s_type == vk::StructureType::PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT {
                (*next.cast::<vk::PhysicalDeviceRobustness2FeaturesEXT<'_>>()).robust_buffer_access2 = vk::FALSE;
            }
            next = following;
        }
    }
    // SAFETY: `info` asks for what wgpu-hal itself would ask for, but for robust buffer access. What wgpu-hal builds on that
    // is that shaders need no bounds checks of their own; this crate's shaders stay inside their bindings (`pipelines`).
    unsafe {
        let raw = hal.shared_instance().raw_instance().create_device(hal.raw_physical_device(), &info, None).map_err(refused)?;
        let opened = hal.device_from_raw(raw, None, &extensions, *required_features, required_limits, memory_hints, 0, 0);
        adapter.create_device_from_hal(opened.map_err(refused)?, descriptor).map_err(refused)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
pub(super) fn open_without(_: &wgpu::Adapter, _: &wgpu::DeviceDescriptor<'_>) -> Result<(wgpu::Device, wgpu::Queue), GpuError> {
    Err(refused("only Vulkan has robust buffer access that can be left out"))
}
