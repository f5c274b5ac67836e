//! Compute pipelines, made once per kernel and device.

use super::{Gpu, GpuError};
use crate::kernels::{BindingKind, Kernel};
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// A compiled kernel.
pub(super) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// The pipelines of a device, by kernel name.
#[derive(Default)]
pub(super) struct Pipelines {
    made: Mutex<HashMap<String, Arc<Pipeline>>>,
    modules: Mutex<HashMap<&'static str, wgpu::ShaderModule>>,
}

impl Gpu {
    /// Compiles kernels in parallel; those already compiled cost nothing.
    pub(super) fn compile(&self, kernels: &[&'static Kernel]) -> Result<Vec<Arc<Pipeline>>, GpuError> {
        let pipelines = kernels.par_iter().map(|kernel| self.pipeline(kernel)).collect::<Result<Vec<_>, _>>()?;
        self.check()?;
        Ok(pipelines)
    }

    fn pipeline(&self, kernel: &'static Kernel) -> Result<Arc<Pipeline>, GpuError> {
        let poisoned = |_| GpuError::Refused(format!("compiling {} failed before", kernel.name()));
        let name = kernel.name();
        if let Some(made) = self.pipelines.made.lock().map_err(poisoned)?.get(&name) {
            return Ok(Arc::clone(made));
        }
        let module = self
            .pipelines
            .modules
            .lock()
            .map_err(|_| GpuError::Refused(format!("compiling {name} failed before")))?
            .entry(kernel.module)
            .or_insert_with(|| self.shader_module(kernel))
            .clone();
        let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(&name),
            entries: &kernel.bindings.iter().map(|b| layout_entry(b.index, b.kind)).collect::<Vec<_>>(),
        });
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(kernel.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Kernels write workgroup memory before they read it.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        let pipeline = Arc::new(Pipeline { pipeline, layout });
        let mut made = self.pipelines.made.lock().map_err(|_| GpuError::Refused(format!("compiling {name} failed before")))?;
        Ok(Arc::clone(made.entry(name).or_insert(pipeline)))
    }

    fn shader_module(&self, kernel: &Kernel) -> wgpu::ShaderModule {
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(kernel.module), source: wgpu::ShaderSource::Wgsl(kernel.source.into()) };
        if std::env::var_os("NIN_WGPU_SHADER_CHECKS").is_some_and(|v| v == "1") {
            self.device.create_shader_module(descriptor)
        } else {
            // SAFETY: the shaders are this crate's own; their loops end and their indices stay inside the bound
            // regions, which the test suite establishes with NIN_WGPU_SHADER_CHECKS=1 and exact comparison.
            unsafe { self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
        }
    }
}

fn layout_entry(binding: u32, kind: BindingKind) -> wgpu::BindGroupLayoutEntry {
    let ty = match kind {
        BindingKind::Params | BindingKind::Step => wgpu::BufferBindingType::Uniform,
        BindingKind::Read => wgpu::BufferBindingType::Storage { read_only: true },
        BindingKind::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
    };
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: kind == BindingKind::Step, min_binding_size: None },
        count: None,
    }
}
