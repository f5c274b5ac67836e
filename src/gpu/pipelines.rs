//! Compute pipelines, made once per kernel and device.

use super::buffers::TEXTURE_FORMAT;
use super::{Gpu, GpuError, spirv};
use crate::kernels::{BindingKind, Kernel};
use crate::variables;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A compiled kernel.
pub(super) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// A shader that was read once for all its kernels.
#[derive(Clone)]
enum Shader {
    /// By wgpu.
    Module(wgpu::ShaderModule),
    /// To be written as SPIR-V for each kernel.
    Parsed(Arc<(naga::Module, naga::valid::ModuleInfo)>),
}

/// The shaders and pipelines of a device.
#[derive(Default)]
pub(super) struct Pipelines {
    shaders: Mutex<HashMap<&'static str, Shader>>,
    made: Mutex<HashMap<String, Arc<Pipeline>>>,
}

impl Gpu {
    /// Compiles kernels, the different ones in parallel; those already compiled cost nothing. Where several fail, the
    /// error is that of the first by name.
    pub(super) fn compile(&self, kernels: &[&'static Kernel]) -> Result<Vec<Arc<Pipeline>>, GpuError> {
        let mut results: Vec<_> = kernels.iter().map(|kernel| kernel.name()).zip(self.compile_each(kernels)).collect();
        let failed = results.iter().enumerate().filter(|(_, (_, result))| result.is_err()).min_by_key(|(_, (name, _))| name);
        if let Some((first, _)) = failed {
            results.swap(0, first);
            results.truncate(1);
        } else {
            self.check()?;
        }
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// As [`Gpu::compile`], with a result for each kernel: one that fails does not stop the others. What the device has to say
    /// of itself ([`Gpu::check`]) is left to the caller.
    pub(super) fn compile_each(&self, kernels: &[&'static Kernel]) -> Vec<Result<Arc<Pipeline>, GpuError>> {
        let started = Instant::now();
        let missing: BTreeMap<String, &'static Kernel> = {
            let made = lock(&self.pipelines.made);
            kernels.iter().map(|kernel| (kernel.name(), *kernel)).filter(|(name, _)| !made.contains_key(name)).collect()
        };
        let shaders: BTreeMap<&'static str, &'static Kernel> = {
            let made = lock(&self.pipelines.shaders);
            missing.values().map(|kernel| (kernel.module, *kernel)).filter(|(module, _)| !made.contains_key(module)).collect()
        };
        let shaders: BTreeMap<&'static str, Result<Shader, GpuError>> =
            shaders.into_par_iter().map(|(name, kernel)| (name, self.shader(kernel))).collect();
        for (name, shader) in &shaders {
            if let Ok(shader) = shader {
                lock(&self.pipelines.shaders).insert(name, shader.clone());
            }
        }
        let pipelines = missing.into_par_iter().map(|(name, kernel)| {
            let made = match shaders.get(kernel.module) {
                Some(Err(error)) => Err(error.clone()),
                _ => self.pipeline(&name, kernel).map(Arc::new),
            };
            (name, made)
        });
        let pipelines: BTreeMap<String, Result<Arc<Pipeline>, GpuError>> = pipelines.collect();
        self.compiled.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        let mut made = lock(&self.pipelines.made);
        for (name, pipeline) in &pipelines {
            if let Ok(pipeline) = pipeline {
                made.insert(name.clone(), Arc::clone(pipeline));
            }
        }
        let result = |name: String| match (made.get(&name), pipelines.get(&name)) {
            (Some(pipeline), _) => Ok(Arc::clone(pipeline)),
            (None, Some(Err(error))) => Err(error.clone()),
            (None, _) => Err(failed(&name, "it is not there")),
        };
        kernels.iter().map(|kernel| result(kernel.name())).collect()
    }

    /// Whether anything was compiled.
    pub(super) fn has_pipelines(&self) -> bool {
        !lock(&self.pipelines.made).is_empty()
    }

    fn pipeline(&self, name: &str, kernel: &'static Kernel) -> Result<Pipeline, GpuError> {
        let shader = lock(&self.pipelines.shaders).get(kernel.module).cloned();
        let module = self.module_of(name, kernel, shader.ok_or_else(|| failed(name, "its shader is not there"))?)?;
        self.caught(name, || {
            let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(name),
                entries: &kernel.bindings.iter().map(|b| layout_entry(b.index, b.kind)).collect::<Vec<_>>(),
            });
            let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(name),
                bind_group_layouts: &[Some(&layout), Some(&self.grid.layout)],
                immediate_size: 0,
            });
            let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(name),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(kernel.entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Kernels write workgroup memory before they read it.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: self.pipeline_cache.as_ref().map(|cache| cache.driver_cache()),
            });
            Pipeline { pipeline, layout }
        })
    }

    /// Reads the shader of a kernel.
    fn shader(&self, kernel: &Kernel) -> Result<Shader, GpuError> {
        let with_checks = variables::SHADER_CHECKS.is_on();
        if self.spirv.is_some() && !with_checks {
            let parsed = spirv::parse(kernel.module, kernel.source).map_err(|why| failed(kernel.module, &why))?;
            return Ok(Shader::Parsed(Arc::new(parsed)));
        }
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(kernel.module), source: wgpu::ShaderSource::Wgsl(kernel.source.into()) };
        let module = self.caught(kernel.module, || {
            if with_checks {
                self.device.create_shader_module(descriptor)
            } else {
                // SAFETY: the shaders are this crate's own; their loops end and their indices stay inside the bound
                // regions, which the test suite establishes with NIN_WGPU_SHADER_CHECKS=1 and exact comparison.
                unsafe { self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
            }
        })?;
        Ok(Shader::Module(module))
    }

    /// The module that holds a kernel.
    fn module_of(&self, name: &str, kernel: &Kernel, shader: Shader) -> Result<wgpu::ShaderModule, GpuError> {
        let (parsed, device) = match (shader, &self.spirv) {
            (Shader::Module(module), _) => return Ok(module),
            (Shader::Parsed(parsed), Some(device)) => (parsed, device),
            (Shader::Parsed(_), None) => return Err(failed(name, "the device takes no SPIR-V")),
        };
        let (module, info) = &*parsed;
        let words = spirv::words(module, info, kernel.entry, device, spirv::Checks::None).map_err(|why| failed(name, &why))?;
        let words = spirv::without_needless_layouts(&words);
        let [x, y, z] = kernel.workgroup_size;
        let entry_points = [wgpu::PassthroughShaderEntryPoint { name: kernel.entry.into(), workgroup_size: (x, y, z) }];
        self.caught(name, || {
            let descriptor = wgpu::ShaderModuleDescriptorPassthrough {
                label: Some(name),
                entry_points: entry_points.as_slice().into(),
                spirv: Some(words.into()),
                ..Default::default()
            };
            // SAFETY: naga wrote it of a shader that it found valid, for the capabilities that the device was opened with; it
            // is given the bindings of the kernel table, which were reflected from the same source. As for the checks that it
            // lacks, see `shader`.
            unsafe { self.device.create_shader_module_passthrough(descriptor) }
        })
    }

    /// Makes something with this thread's errors caught: faults that nobody catches are recorded in whatever order
    /// threads have them.
    fn caught<T>(&self, name: &str, make: impl FnOnce() -> T) -> Result<T, GpuError> {
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let made = make();
        let internal = pollster::block_on(internal.pop());
        let validation = pollster::block_on(validation.pop());
        match validation.or(internal) {
            None => Ok(made),
            Some(error) => Err(failed(name, &error.to_string())),
        }
    }
}

fn failed(name: &str, why: &str) -> GpuError {
    let why: Vec<&str> = why.split_whitespace().collect();
    GpuError::Refused(format!("compiling {name}: {}", why.join(" ")))
}

/// What a thread that panicked left in these maps is whole: they only ever get finished entries.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn layout_entry(binding: u32, kind: BindingKind) -> wgpu::BindGroupLayoutEntry {
    let buffer = |ty| wgpu::BindingType::Buffer { ty, has_dynamic_offset: kind == BindingKind::Step, min_binding_size: None };
    let ty = match kind {
        BindingKind::Params | BindingKind::Step => buffer(wgpu::BufferBindingType::Uniform),
        BindingKind::Read => buffer(wgpu::BufferBindingType::Storage { read_only: true }),
        BindingKind::ReadWrite => buffer(wgpu::BufferBindingType::Storage { read_only: false }),
        BindingKind::Texture => wgpu::BindingType::Texture {
            sample_type: wgpu::TextureSampleType::Float { filterable: false },
            view_dimension: wgpu::TextureViewDimension::D2,
            multisampled: false,
        },
        BindingKind::TextureWrite => wgpu::BindingType::StorageTexture {
            access: wgpu::StorageTextureAccess::WriteOnly,
            format: TEXTURE_FORMAT,
            view_dimension: wgpu::TextureViewDimension::D2,
        },
    };
    wgpu::BindGroupLayoutEntry { binding, visibility: wgpu::ShaderStages::COMPUTE, ty, count: None }
}
