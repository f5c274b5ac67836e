//! A network that only looks: evaluation with labels, inference without.

use super::{DeviceParameters, Loaded, TrainEngine, located, per_step};
use crate::data::{Batch, DataError};
use crate::gpu::{Buffers, DispatchTime, Gpu, GpuError, ReadbackRing, Submitter};
use crate::graph::Graph;
use crate::kernels::{Step, Target};
use crate::models::{CompiledNetwork, InputOptions, Memory, Model, ModelOptions, Purpose, READBACKS, Training, compile};
use crate::passes::{BufferRole, CompileOptions};
use crate::train::TrainError;
use crate::train::resident::DeviceInput;

/// What evaluation says of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageResult {
    /// Cross entropy.
    pub loss: f32,
    /// Classes placed before the label; 0 is a hit.
    pub rank: usize,
    /// The class with the largest logit.
    pub predicted: usize,
    /// Its probability; negative where the logits are not numbers.
    pub confidence: f32,
}

/// A network that is only run forward.
pub struct ForwardEngine {
    pub(super) loaded: Loaded,
    purpose: Purpose,
    pub(super) batch: usize,
    classes: usize,
    ring: ReadbackRing<usize>,
}

impl ForwardEngine {
    /// Compiles `model` for batches of at most `batch` images; `purpose` is evaluation or inference.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        gpu: &Gpu,
        model: &Model,
        options: &ModelOptions,
        input: &InputOptions,
        purpose: Purpose,
        batch: usize,
        parameters: &DeviceParameters,
        on_device: DeviceInput<'_>,
        switches: CompileOptions,
    ) -> Result<Self, TrainError> {
        if switches.half {
            gpu.require_f16()?;
        }
        let input = &located(input, on_device);
        let compile_for = |batch| {
            let target = gpu.remaining_target(parameters.arena.bytes + on_device.bytes());
            compile(model, options, input, purpose, batch, batch, &Training::default(), &target, switches)
        };
        let mut network = compile_for(batch)?;
        if network.micro_batch < batch {
            network = compile_for(network.micro_batch)?;
        }
        Self::load(gpu, network, parameters, on_device, None, options.classes, purpose)
    }

    /// As [`ForwardEngine::new`], with the parameters of `trained`, averaged where it does so, and in the memory of its
    /// temporaries: the two must not run at once. Takes fewer images at a time where the memory budget leaves too little.
    #[allow(clippy::too_many_arguments)]
    pub fn beside(
        gpu: &Gpu,
        trained: &TrainEngine,
        model: &Model,
        options: &ModelOptions,
        input: &InputOptions,
        purpose: Purpose,
        mut batch: usize,
        on_device: DeviceInput<'_>,
        switches: CompileOptions,
    ) -> Result<Self, TrainError> {
        let input = &located(input, on_device);
        let target = Target { memory_budget: None, ..gpu.target().clone() };
        let parameters = trained.averaged()?;
        loop {
            let network = compile(model, options, input, purpose, batch, batch, &Training::default(), &target, switches)?;
            if network.micro_batch < batch {
                batch = network.micro_batch;
                continue;
            }
            let lender = Some(&trained.loaded.buffers);
            match Self::load(gpu, network, &parameters, on_device, lender, options.classes, purpose) {
                Err(TrainError::Gpu(GpuError::OverBudget { .. })) if batch > 1 => batch = batch.div_ceil(2),
                other => return other,
            }
        }
    }

    fn load(
        gpu: &Gpu,
        network: CompiledNetwork,
        parameters: &DeviceParameters,
        on_device: DeviceInput<'_>,
        lender: Option<&Buffers>,
        classes: usize,
        purpose: Purpose,
    ) -> Result<Self, TrainError> {
        let batch = network.micro_batch;
        let bytes = network.compiled.graph.fact(network.result).bytes();
        let loaded = Loaded::new(gpu, network, parameters, on_device, lender, &[], 1, classes)?;
        Ok(ForwardEngine { loaded, purpose, batch, classes, ring: ReadbackRing::new(gpu, bytes, READBACKS) })
    }

    /// The graph that is run.
    pub fn graph(&self) -> &Graph {
        &self.loaded.network.compiled.graph
    }

    /// Images of one run.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// What it takes on the device, from the memory plan, parameters included.
    pub fn memory(&self) -> Memory {
        self.loaded.network.memory
    }

    /// Multiply-adds of a pass.
    pub(in crate::train) fn macs(&self) -> u64 {
        self.loaded.macs()
    }

    /// Whether any kernel of a run multiplies on the device's matrix units.
    pub(in crate::train) fn uses_matrix_units(&self) -> bool {
        self.loaded.program.uses_matrix_units()
    }

    /// The queue of runs, for whoever times it.
    pub(in crate::train) fn submitter(&mut self) -> &mut Submitter {
        &mut self.loaded.submitter
    }

    /// The time that every dispatch takes in `runs` runs, the median of `repeats` measurements with the last run's images.
    pub(in crate::train) fn times(&self, gpu: &Gpu, runs: usize, repeats: usize) -> Result<Vec<DispatchTime>, TrainError> {
        Ok(self.loaded.program.times(gpu, repeats)?.into_iter().map(|time| per_step(time, runs)).collect())
    }

    /// The first two runs of every dispatch: [`Program::first_runs`].
    pub(in crate::train) fn first_runs(&self, gpu: &Gpu) -> Result<Vec<(DispatchTime, DispatchTime)>, TrainError> {
        Ok(self.loaded.program.first_runs(gpu)?)
    }

    /// Queues a batch; `received` gets (images, memory of the result) of batches that have come back, in order.
    pub(in crate::train) fn run(&mut self, gpu: &Gpu, batch: &Batch, received: &mut Vec<(usize, Vec<f32>)>) -> Result<(), TrainError> {
        let mut receive = |count: usize, bytes: Vec<u8>| received.push((count, bytemuck::pod_collect_to_vec(&bytes)));
        self.loaded.upload(gpu, batch)?;
        let count = batch.count as u32;
        self.loaded.steps.write(gpu, &[Step { images: count, total_images: count, ..Default::default() }]);
        let readback = self.ring.acquire(gpu, &mut receive)?;
        let role = BufferRole::Output(self.loaded.network.result);
        let source = self.loaded.buffers.get(role).ok_or_else(|| GpuError::Refused("the schedule has no result".into()))?;
        self.loaded.submitter.submit(gpu, &[(&self.loaded.program, 0)], &self.loaded.steps, &[(source, &readback)])?;
        self.ring.submitted(readback, batch.count);
        Ok(self.ring.poll(gpu, &mut receive)?)
    }

    pub(in crate::train) fn finish(&mut self, gpu: &Gpu, received: &mut Vec<(usize, Vec<f32>)>) -> Result<(), TrainError> {
        let mut receive = |count: usize, bytes: Vec<u8>| received.push((count, bytemuck::pod_collect_to_vec(&bytes)));
        Ok(self.ring.finish(gpu, &mut receive)?)
    }

    /// Results of every image of `batches`, in order.
    pub fn evaluate(
        &mut self,
        gpu: &Gpu,
        batches: impl Iterator<Item = Result<Batch, DataError>>,
        mut each: impl FnMut(&Batch),
    ) -> Result<Vec<ImageResult>, TrainError> {
        debug_assert_eq!(self.purpose, Purpose::Evaluate);
        let mut received = Vec::new();
        for batch in batches {
            let batch = batch?;
            // None of its pictures could be read.
            if batch.count > 0 {
                self.run(gpu, &batch, &mut received)?;
            }
            each(&batch);
        }
        self.finish(gpu, &mut received)?;
        let rows = received.iter().flat_map(|(count, memory)| memory.chunks_exact(4).take(*count));
        Ok(rows.map(|row| ImageResult { loss: row[0], rank: row[1] as usize, predicted: row[2] as usize, confidence: row[3] }).collect())
    }

    /// Probabilities of every image of `batch`.
    pub fn infer(&mut self, gpu: &Gpu, batch: &Batch) -> Result<Vec<Vec<f32>>, TrainError> {
        debug_assert!(matches!(self.purpose, Purpose::Infer { .. }));
        let mut received = Vec::new();
        self.run(gpu, batch, &mut received)?;
        self.finish(gpu, &mut received)?;
        let network = &self.loaded.network;
        let fact = network.compiled.graph.fact(network.result);
        let mut probabilities = Vec::new();
        for (count, memory) in &received {
            let logical = fact.unpack(memory);
            probabilities.extend(logical.chunks_exact(self.classes).take(*count).map(<[f32]>::to_vec));
        }
        Ok(probabilities)
    }
}
