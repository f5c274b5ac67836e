//! The parameters of a network in device memory.

use crate::gpu::{DeviceBuffer, Gpu, GpuError};
use crate::graph::Graph;
use crate::passes::Arena;
use crate::weights::NamedTensor;

/// The parameters of a model on a device, shared by the networks that train, evaluate and infer with them.
#[derive(Clone)]
pub struct DeviceParameters {
    pub(super) buffer: DeviceBuffer,
    pub(super) arena: Arena,
}

impl DeviceParameters {
    /// Uploads `tensors`, one for each parameter of `graph` in its order.
    pub fn upload(gpu: &Gpu, graph: &Graph, tensors: &[&NamedTensor]) -> Result<Self, GpuError> {
        let arena = Arena::new(graph, gpu.target().offset_alignment);
        let buffer = gpu.allocate("parameters", arena.bytes)?;
        let parameters = DeviceParameters { buffer, arena };
        parameters.write(gpu, &parameters.buffer, graph, tensors);
        Ok(parameters)
    }

    /// Writes tensors into a buffer laid out as the parameters are.
    pub(super) fn write(&self, gpu: &Gpu, buffer: &DeviceBuffer, graph: &Graph, tensors: &[&NamedTensor]) {
        for ((parameter, range), tensor) in graph.parameters.iter().zip(&self.arena.ranges).zip(tensors) {
            let memory = graph.fact(parameter.value).pack(&tensor.data);
            gpu.write(buffer, range.start, bytemuck::cast_slice(&memory));
        }
    }

    /// Reads a buffer laid out as the parameters are.
    pub(super) fn read(&self, gpu: &Gpu, buffer: &DeviceBuffer, graph: &Graph) -> Result<Vec<NamedTensor>, GpuError> {
        let bytes = gpu.read(buffer, self.arena.bytes)?;
        let tensors = graph.parameters.iter().zip(&self.arena.ranges).map(|(parameter, range)| {
            let memory: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes[range.start as usize..range.end as usize]);
            let fact = graph.fact(parameter.value);
            NamedTensor { name: parameter.name.clone(), shape: fact.shape.0.clone(), data: fact.unpack(&memory) }
        });
        Ok(tensors.collect())
    }

    /// The parameters in logical order.
    pub fn download(&self, gpu: &Gpu, graph: &Graph) -> Result<Vec<NamedTensor>, GpuError> {
        self.read(gpu, &self.buffer, graph)
    }
}
