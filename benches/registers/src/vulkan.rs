//! A Vulkan device that only compiles, opened with what wgpu enables that changes the code.

use crate::kernels::Binding;
use crate::spirv;
use crate::statistics::Executable;
use ash::{khr, vk};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::time::Instant;

/// Why no device was opened.
pub enum Refusal {
    NoDriver(String),
    NoSuchDevice(String),
}

/// An open device. Nothing of it is freed: the process ends with it.
pub struct Driver {
    _entry: ash::Entry,
    device: ash::Device,
    statistics: Option<khr::pipeline_executable_properties::Device>,
    spirv: spirv::Device,
    description: String,
}

/// A pipeline that compiled.
pub struct Compiled {
    pub seconds: f64,
    pub executables: Vec<Executable>,
}

impl Driver {
    /// Opens device number `wanted` as Vulkan lists them, else the first GPU, else the first device.
    pub fn open(wanted: Option<usize>) -> Result<Driver, Refusal> {
        let no_driver = |what: &str, error: &dyn std::fmt::Display| Refusal::NoDriver(format!("{what}: {error}"));
        // SAFETY: all calls below follow Vulkan's rules for their arguments, which live until the call returns; objects are
        // used with the instance and the device that made them, and never freed.
        unsafe {
            let entry = ash::Entry::load().map_err(|error| no_driver("no Vulkan loader (libvulkan.so.1)", &error))?;
            let application = vk::ApplicationInfo::default().application_name(c"registers").api_version(vk::API_VERSION_1_3);
            let instance = entry.create_instance(&vk::InstanceCreateInfo::default().application_info(&application), None);
            let instance = instance.map_err(|error| no_driver("Vulkan does not start", &error))?;
            let devices = instance.enumerate_physical_devices().map_err(|error| no_driver("Vulkan lists no devices", &error))?;
            let properties: Vec<_> = devices.iter().map(|device| instance.get_physical_device_properties(*device)).collect();
            let name = |index: usize| properties[index].device_name_as_c_str().unwrap_or(c"?").to_string_lossy().into_owned();
            let is_gpu = |p: &vk::PhysicalDeviceProperties| p.device_type != vk::PhysicalDeviceType::CPU;
            let index = match wanted {
                Some(index) if index < devices.len() => index,
                Some(index) => {
                    let names: Vec<_> = (0..devices.len()).map(|i| format!("{i} {}", name(i))).collect();
                    return Err(Refusal::NoSuchDevice(format!("--device {index}: Vulkan has {}", names.join(", "))));
                }
                None if devices.is_empty() => return Err(Refusal::NoDriver("no Vulkan driver has a device here".into())),
                None => properties.iter().position(is_gpu).unwrap_or(0),
            };
            let (physical, api) = (devices[index], properties[index].api_version);
            if api < vk::API_VERSION_1_2 {
                return Err(Refusal::NoDriver(format!("{} has less than Vulkan 1.2", name(index))));
            }
            let (device, statistics, spirv) = open_device(&instance, physical, api).map_err(|error| no_driver(&name(index), &error))?;
            let mut driver = vk::PhysicalDeviceDriverProperties::default();
            instance.get_physical_device_properties2(physical, &mut vk::PhysicalDeviceProperties2::default().push_next(&mut driver));
            let text = |chars: Result<&CStr, _>| chars.unwrap_or_default().to_string_lossy().into_owned();
            let driver = [text(driver.driver_name_as_c_str()), text(driver.driver_info_as_c_str())].join(" ");
            Ok(Driver { _entry: entry, device, statistics, spirv, description: format!("{} ({driver})", name(index)) })
        }
    }

    /// Name of the device and of its driver.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Whether the driver tells statistics of pipelines.
    pub fn tells(&self) -> bool {
        self.statistics.is_some()
    }

    /// What decides over the SPIR-V for it.
    pub fn spirv(&self) -> &spirv::Device {
        &self.spirv
    }

    /// Compiles an entry point.
    pub fn compile(&self, words: &[u32], entry: &str, bindings: &[Binding]) -> Result<Compiled, String> {
        let name = CString::new(entry).map_err(|error| error.to_string())?;
        // SAFETY: as in `open`; the module declares the bindings that the layout is made of.
        unsafe {
            let module = self.device.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(words), None);
            let module = module.map_err(|error| format!("vkCreateShaderModule: {error}"))?;
            let layout = self.layout(bindings).map_err(|error| format!("making the pipeline's layout: {error}"))?;
            let varying =
                if self.spirv.subgroups { vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE } else { Default::default() };
            let stage =
                vk::PipelineShaderStageCreateInfo::default().flags(varying).stage(vk::ShaderStageFlags::COMPUTE).module(module).name(&name);
            let capture = if self.tells() { vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR } else { Default::default() };
            let create = vk::ComputePipelineCreateInfo::default().flags(capture).stage(stage).layout(layout);
            let started = Instant::now();
            let pipelines = self.device.create_compute_pipelines(vk::PipelineCache::null(), &[create], None);
            let seconds = started.elapsed().as_secs_f64();
            let pipeline = pipelines.map_err(|(_, error)| format!("vkCreateComputePipelines: {error}"))?[0];
            let executables = self.executables(pipeline).map_err(|error| format!("reading statistics: {error}"))?;
            self.device.destroy_pipeline(pipeline, None);
            self.device.destroy_shader_module(module, None);
            Ok(Compiled { seconds, executables })
        }
    }

    unsafe fn layout(&self, bindings: &[Binding]) -> Result<vk::PipelineLayout, vk::Result> {
        let mut groups: BTreeMap<u32, Vec<vk::DescriptorSetLayoutBinding>> = BTreeMap::new();
        for (group, binding, kind) in bindings {
            let one = vk::DescriptorSetLayoutBinding::default().binding(*binding).descriptor_type(*kind).descriptor_count(1);
            groups.entry(*group).or_default().push(one.stage_flags(vk::ShaderStageFlags::COMPUTE));
        }
        let last = groups.keys().last().map_or(0, |last| last + 1);
        let sets = (0..last).map(|group| {
            let bindings = groups.get(&group).map_or(&[][..], Vec::as_slice);
            // SAFETY: as in `open`.
            unsafe { self.device.create_descriptor_set_layout(&vk::DescriptorSetLayoutCreateInfo::default().bindings(bindings), None) }
        });
        let sets: Vec<_> = sets.collect::<Result<_, _>>()?;
        // SAFETY: as in `open`.
        unsafe { self.device.create_pipeline_layout(&vk::PipelineLayoutCreateInfo::default().set_layouts(&sets), None) }
    }

    unsafe fn executables(&self, pipeline: vk::Pipeline) -> Result<Vec<Executable>, vk::Result> {
        let Some(statistics) = &self.statistics else { return Ok(Vec::new()) };
        // SAFETY: as in `open`; the pipeline was made to capture statistics.
        let of_pipeline = unsafe { statistics.get_pipeline_executable_properties(&vk::PipelineInfoKHR::default().pipeline(pipeline))? };
        let described = (0..).zip(&of_pipeline).map(|(index, properties)| {
            let info = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline).executable_index(index);
            // SAFETY: as above.
            let all = unsafe { statistics.get_pipeline_executable_statistics(&info)? };
            let values = all.iter().map(|one| (text(&one.name), value(one))).collect();
            Ok((text(&properties.name), values))
        });
        described.collect()
    }
}

type Opened = (ash::Device, Option<khr::pipeline_executable_properties::Device>, spirv::Device);

/// Enables what changes the code: robust access, half precision, subgroups and matrix units as wgpu would.
unsafe fn open_device(instance: &ash::Instance, physical: vk::PhysicalDevice, api: u32) -> Result<Opened, vk::Result> {
    // SAFETY: as in `Driver::open`, of all calls in this function.
    let extensions = unsafe { instance.enumerate_device_extension_properties(physical)? };
    let has = |name: &CStr| extensions.iter().any(|one| one.extension_name_as_c_str() == Ok(name));
    let mut names: Vec<&CStr> = Vec::new();
    let mut use_if = |name: &'static CStr, wanted: bool| {
        let used = wanted && has(name);
        if used {
            names.push(name);
        }
        used
    };
    let has_statistics = use_if(khr::pipeline_executable_properties::NAME, true);
    let has_matrices = use_if(khr::cooperative_matrix::NAME, true);
    let has_robustness = use_if(ash::ext::robustness2::NAME, true);
    let has_1_3 = api >= vk::API_VERSION_1_3;

    let mut v11 = vk::PhysicalDeviceVulkan11Features::default();
    let mut v12 = vk::PhysicalDeviceVulkan12Features::default();
    let mut v13 = vk::PhysicalDeviceVulkan13Features::default();
    let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default();
    let mut matrices = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default();
    let mut executables = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default();
    let mut offered = vk::PhysicalDeviceFeatures2::default().push_next(&mut v11).push_next(&mut v12);
    if has_1_3 {
        offered = offered.push_next(&mut v13);
    }
    if has_robustness {
        offered = offered.push_next(&mut robustness);
    }
    if has_matrices {
        offered = offered.push_next(&mut matrices);
    }
    if has_statistics {
        offered = offered.push_next(&mut executables);
    }
    unsafe { instance.get_physical_device_features2(physical, &mut offered) };
    let core = offered.features;

    let has_f16 = v12.shader_float16 == vk::TRUE && v11.storage_buffer16_bit_access == vk::TRUE;
    let with_matrices = has_f16 && matrices.cooperative_matrix == vk::TRUE && v12.vulkan_memory_model == vk::TRUE;
    let with_statistics = executables.pipeline_executable_info == vk::TRUE;
    let mut subgroups = vk::PhysicalDeviceSubgroupProperties::default();
    unsafe { instance.get_physical_device_properties2(physical, &mut vk::PhysicalDeviceProperties2::default().push_next(&mut subgroups)) };
    let with_subgroups = subgroups.supported_stages.contains(vk::ShaderStageFlags::COMPUTE)
        && subgroups.supported_operations.contains(vk::SubgroupFeatureFlags::BASIC | vk::SubgroupFeatureFlags::SHUFFLE)
        && v13.subgroup_size_control == vk::TRUE;

    // What was offered above is asked for, so far as code may depend on it.
    let mut v11 = vk::PhysicalDeviceVulkan11Features::default()
        .storage_buffer16_bit_access(v11.storage_buffer16_bit_access == vk::TRUE)
        .uniform_and_storage_buffer16_bit_access(v11.uniform_and_storage_buffer16_bit_access == vk::TRUE);
    let mut v12 = vk::PhysicalDeviceVulkan12Features::default()
        .shader_float16(has_f16)
        .vulkan_memory_model(v12.vulkan_memory_model == vk::TRUE)
        .vulkan_memory_model_device_scope(v12.vulkan_memory_model_device_scope == vk::TRUE);
    let mut v13 = vk::PhysicalDeviceVulkan13Features::default()
        .subgroup_size_control(v13.subgroup_size_control == vk::TRUE)
        .robust_image_access(v13.robust_image_access == vk::TRUE);
    let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default()
        .robust_buffer_access2(robustness.robust_buffer_access2 == vk::TRUE)
        .robust_image_access2(robustness.robust_image_access2 == vk::TRUE);
    let mut matrices = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default().cooperative_matrix(with_matrices);
    let mut executables = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(with_statistics);
    let core = vk::PhysicalDeviceFeatures::default()
        .robust_buffer_access(core.robust_buffer_access == vk::TRUE)
        .shader_storage_image_write_without_format(core.shader_storage_image_write_without_format == vk::TRUE);

    let priorities = [1.0];
    let queue = vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&priorities);
    let names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let mut create = vk::DeviceCreateInfo::default()
        .queue_create_infos(std::slice::from_ref(&queue))
        .enabled_extension_names(&names)
        .enabled_features(&core)
        .push_next(&mut v11)
        .push_next(&mut v12);
    if has_1_3 {
        create = create.push_next(&mut v13);
    }
    if has_robustness {
        create = create.push_next(&mut robustness);
    }
    if has_matrices {
        create = create.push_next(&mut matrices);
    }
    if has_statistics {
        create = create.push_next(&mut executables);
    }
    let device = unsafe { instance.create_device(physical, &create, None)? };
    let statistics = with_statistics.then(|| khr::pipeline_executable_properties::Device::new(instance, &device));
    let spirv = spirv::Device {
        version: spirv::version_for(api),
        f16: has_f16,
        subgroups: with_subgroups,
        matrices: with_matrices,
        robust_buffers: false,
        robust_images: false,
    };
    Ok((device, statistics, spirv))
}

/// Text in a field of fixed length.
fn text(field: &[c_char]) -> String {
    let bytes: Vec<u8> = field.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn value(statistic: &vk::PipelineExecutableStatisticKHR) -> Value {
    let value = statistic.value;
    // SAFETY: the format says which member of the union the driver wrote.
    unsafe {
        match statistic.format {
            vk::PipelineExecutableStatisticFormatKHR::BOOL32 => json!(value.b32 != 0),
            vk::PipelineExecutableStatisticFormatKHR::INT64 => json!(value.i64),
            vk::PipelineExecutableStatisticFormatKHR::UINT64 => json!(value.u64),
            _ => json!(value.f64),
        }
    }
}
