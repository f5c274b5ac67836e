//! Looks at what every layer puts out, for runs that have gone wrong.

use super::{DeviceInput, ForwardEngine, TrainEngine, TrainError};
use crate::data::Batch;
use crate::gpu::{Gpu, GpuError};
use crate::graph::ValueKind;
use crate::models::{InputOptions, Model, ModelOptions, Purpose};
use crate::passes::{BufferRole, CompileOptions, PlanOptions};
use crate::weights::NamedTensor;

/// What a layer puts out for a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerOutput {
    /// Its path and operation.
    pub layer: String,
    /// Every element is a finite number.
    pub is_finite: bool,
    /// All images have the same output, bit for bit.
    pub is_same: bool,
}

impl TrainEngine {
    /// An engine for [`ForwardEngine::layer_outputs`] in memory of its own, for batches of at most `batch` images, in mixed
    /// precision where `half` says so.
    #[allow(clippy::too_many_arguments)]
    pub fn inspector(
        &self,
        gpu: &Gpu,
        model: &Model,
        options: &ModelOptions,
        input: &InputOptions,
        batch: usize,
        on_device: DeviceInput<'_>,
        half: bool,
    ) -> Result<ForwardEngine, TrainError> {
        let switches = CompileOptions { half, fuse: false, recompute: false, plan: PlanOptions { share: false } };
        ForwardEngine::new(gpu, model, options, input, Purpose::Evaluate, batch, &self.parameters, on_device, switches)
    }

    /// Sets the parameters, in the order of the graph.
    pub fn upload(&self, gpu: &Gpu, tensors: &[NamedTensor]) {
        let tensors: Vec<&NamedTensor> = tensors.iter().collect();
        self.parameters.write(gpu, &self.parameters.buffer, self.graph(), &tensors);
    }
}

impl ForwardEngine {
    /// What every layer puts out for the images of `batch`, in forward order. Only an engine without fusion and with memory
    /// for every value has them all: see [`TrainEngine::inspector`].
    pub fn layer_outputs(&mut self, gpu: &Gpu, batch: &Batch) -> Result<Vec<LayerOutput>, TrainError> {
        let mut received = Vec::new();
        self.run(gpu, batch, &mut received)?;
        self.finish(gpu, &mut received)?;
        let network = &self.loaded.network;
        let graph = &network.compiled.graph;
        let mut outputs = Vec::new();
        for node in &graph.nodes {
            let value = node.outputs[0];
            let slot = network.compiled.plan.slot_of(value).filter(|_| graph.value(value).kind == ValueKind::Temporary);
            let (Some(slot), fact) = (slot, graph.fact(value)) else { continue };
            let Some(buffer) = self.loaded.buffers.get(BufferRole::Slot(slot)) else {
                return Err(GpuError::Refused(format!("the schedule has no memory for {}", node.path)).into());
            };
            let memory: Vec<u32> = fact.decode(&gpu.read(buffer, fact.bytes())?).into_iter().map(f32::to_bits).collect();
            let words = (memory.len() / self.batch.max(1)).max(1);
            let mut images = memory.chunks_exact(words).take(batch.count);
            let Some(first) = images.next() else { continue };
            let is_finite = |image: &[u32]| image.iter().all(|bits| f32::from_bits(*bits).is_finite());
            let mut output =
                LayerOutput { layer: format!("{} ({})", node.path, node.op.name()), is_finite: is_finite(first), is_same: batch.count > 1 };
            for image in images {
                output.is_finite &= is_finite(image);
                output.is_same &= image == first;
            }
            outputs.push(output);
        }
        Ok(outputs)
    }
}
