//! A compiled network on a device: its buffers, programs and the values the host exchanges with it.

use super::TrainError;
use super::resident::ResidentImages;
use crate::data::{Batch, DataError};
use crate::gpu::{Buffers, DeviceBuffer, DispatchTime, Gpu, GpuError, Program, ReadbackRing, StepUniforms, Submitter};
use crate::graph::Graph;
use crate::kernels::{Step, Target};
use crate::models::{CompiledNetwork, InputOptions, METRICS_RING, Memory, Model, ModelOptions, Purpose, READBACKS, compile};
use crate::ops::{Optimizer, accumulate, start_sum};
use crate::passes::{Arena, BufferRole, CompileOptions, Pass, Region, ScheduledDispatch};
use crate::weights::NamedTensor;
use std::borrow::Cow;

/// The parameters of a model on a device, shared by the networks that train, evaluate and infer with them.
#[derive(Clone)]
pub struct DeviceParameters {
    buffer: DeviceBuffer,
    arena: Arena,
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
    fn write(&self, gpu: &Gpu, buffer: &DeviceBuffer, graph: &Graph, tensors: &[&NamedTensor]) {
        for ((parameter, range), tensor) in graph.parameters.iter().zip(&self.arena.ranges).zip(tensors) {
            let memory = graph.fact(parameter.value).pack(&tensor.data);
            gpu.write(buffer, range.start, bytemuck::cast_slice(&memory));
        }
    }

    /// Reads a buffer laid out as the parameters are.
    fn read(&self, gpu: &Gpu, buffer: &DeviceBuffer, graph: &Graph) -> Result<Vec<NamedTensor>, GpuError> {
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

/// A network with its program; the part that training, evaluation and inference have in common.
struct Loaded {
    network: CompiledNetwork,
    program: Program,
    buffers: Buffers,
    steps: StepUniforms,
    submitter: Submitter,
    /// The pixels are on the device already.
    is_resident: bool,
}

impl Loaded {
    fn new(
        gpu: &Gpu,
        network: CompiledNetwork,
        parameters: &DeviceParameters,
        resident: Option<&ResidentImages>,
        lender: Option<&Buffers>,
        extra: &[(BufferRole, u64)],
        passes: usize,
    ) -> Result<Self, GpuError> {
        let schedule = &network.compiled.schedule;
        let mut shared = lender.map_or_else(Buffers::default, |buffers| buffers.lend_slots(&schedule.buffers));
        shared.insert(BufferRole::Parameters, parameters.buffer.clone());
        for (value, part) in network.pixels.iter().zip(resident.map_or(&[][..], ResidentImages::parts)) {
            shared.insert(BufferRole::Input(*value), part.clone());
        }
        let mut sizes = schedule.buffers.clone();
        sizes.extend(extra.iter().copied());
        let buffers = Buffers::allocate(gpu, &sizes, &shared)?;
        let steps = StepUniforms::new(gpu, passes);
        let program = Program::new(gpu, &schedule.dispatches, &buffers, &steps)?;
        Ok(Loaded { network, program, buffers, steps, submitter: Submitter::default(), is_resident: resident.is_some() })
    }

    fn upload(&self, gpu: &Gpu, batch: &Batch) {
        let put = |value, bytes: &[u8]| {
            if let Some(buffer) = self.buffers.get(BufferRole::Input(value)) {
                gpu.write(buffer, 0, bytes);
            }
        };
        if !self.is_resident {
            let mut pixels = Cow::from(&batch.pixels);
            let bytes = pixels.len().next_multiple_of(4);
            if bytes > pixels.len() {
                pixels.to_mut().resize(bytes, 0);
            }
            self.network.pixels.iter().for_each(|value| put(*value, &pixels));
        }
        put(self.network.ids, bytemuck::cast_slice(&batch.ids));
        if let Some(labels) = self.network.labels {
            put(labels, bytemuck::cast_slice(&batch.labels));
        }
    }

    /// Multiply-adds of one pass.
    fn macs(&self) -> u64 {
        self.network.compiled.schedule.dispatches.iter().map(|entry| entry.macs).sum()
    }

    fn buffer(&self, role: BufferRole) -> Result<&DeviceBuffer, GpuError> {
        self.buffers.get(role).ok_or_else(|| GpuError::Refused(format!("the schedule has no buffer {role:?}")))
    }
}

/// What one update reports, once it has come back from the device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepResult {
    /// The update's number, from 0.
    pub step: u64,
    /// Sum of the images' losses.
    pub loss_sum: f64,
    /// Images recognised.
    pub correct: u64,
    /// Images.
    pub images: u64,
    /// Learning rate.
    pub learning_rate: f32,
}

/// An update whose metrics are still on the device.
struct PendingStep {
    step: u64,
    slots: Vec<usize>,
    learning_rate: f32,
}

/// A network that learns.
pub struct TrainEngine {
    loaded: Loaded,
    parameters: DeviceParameters,
    optimizer: Optimizer,
    update: Program,
    /// For batches of several passes: the first starts the sum, the others add to it.
    sum: Option<(Program, Program)>,
    pending: Vec<PendingStep>,
    next_slot: usize,
    ring: ReadbackRing<Vec<PendingStep>>,
}

impl TrainEngine {
    /// Compiles `model` for updates of `batch` images, no pass larger than `max_pass`. With `resident`, batches need no
    /// pixels: their ids choose from these images.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        gpu: &Gpu,
        model: &Model,
        options: &ModelOptions,
        input: &InputOptions,
        optimizer: Optimizer,
        batch: usize,
        max_pass: usize,
        tensors: &[&NamedTensor],
        resident: Option<&ResidentImages>,
        switches: CompileOptions,
    ) -> Result<Self, TrainError> {
        let input = &located(input, resident);
        let state_buffers = optimizer.state_buffers().len();
        let target = gpu.remaining_target(resident.map_or(0, ResidentImages::bytes));
        let network = compile(model, options, input, Purpose::Train, batch, max_pass, state_buffers, &target, switches)?;
        let parameters = DeviceParameters::upload(gpu, &network.compiled.graph, tensors)?;
        let bytes = parameters.arena.bytes;
        let passes = batch.div_ceil(network.micro_batch);
        let mut extra: Vec<_> = (0..state_buffers).map(|i| (BufferRole::OptimizerState(i), bytes)).collect();
        if passes > 1 {
            extra.push((BufferRole::GradientSum, bytes));
        }
        let loaded = Loaded::new(gpu, network, &parameters, resident, None, &extra, passes)?;

        let whole = |buffer| Region { buffer, offset: 0, bytes };
        let words = (bytes / 4) as usize;
        let single = |op, dispatch| {
            let entry = ScheduledDispatch { path: "all parameters".into(), op, pass: Pass::Update, macs: 0, dispatch };
            Program::new(gpu, &[entry], &loaded.buffers, &loaded.steps)
        };
        let gradients = whole(if passes > 1 { BufferRole::GradientSum } else { BufferRole::Gradients });
        let state: Vec<Region> = (0..state_buffers).map(|i| whole(BufferRole::OptimizerState(i))).collect();
        let update = single("update", optimizer.dispatch(words, whole(BufferRole::Parameters), gradients, &state))?;
        let sum = if passes > 1 {
            let start = single("start_sum", start_sum(words, gradients, whole(BufferRole::Gradients)))?;
            Some((start, single("accumulate", accumulate(words, gradients, whole(BufferRole::Gradients)))?))
        } else {
            None
        };
        let ring = ReadbackRing::new(gpu, (METRICS_RING * 16) as u64, READBACKS);
        Ok(TrainEngine { loaded, parameters, optimizer, update, sum, pending: Vec::new(), next_slot: 0, ring })
    }

    /// The graph that is trained.
    pub fn graph(&self) -> &Graph {
        &self.loaded.network.compiled.graph
    }

    /// The parameters, for an evaluation engine that shares them.
    pub fn parameters(&self) -> &DeviceParameters {
        &self.parameters
    }

    /// Images of one pass.
    pub fn micro_batch(&self) -> usize {
        self.loaded.network.micro_batch
    }

    /// What it takes on the device, from the memory plan.
    pub fn memory(&self) -> Memory {
        self.loaded.network.memory
    }

    /// Queues one update with the images of `batch`; nothing comes back yet.
    ///
    /// `number` counts updates from 0; `results` gets the steps whose metrics happened to arrive.
    #[allow(clippy::too_many_arguments)]
    pub fn step(
        &mut self,
        gpu: &Gpu,
        batch: &Batch,
        number: u64,
        epoch: u32,
        seed: u64,
        learning_rate: f32,
        read_back: bool,
        results: &mut Vec<StepResult>,
    ) -> Result<(), TrainError> {
        let [seed_lo, seed_hi] = crate::rng::key(seed);
        let (bias_correction1, bias_correction2) = self.optimizer.bias_corrections(number as u32 + 1);
        let micro_batch = self.micro_batch();
        let mut steps = Vec::new();
        for first in (0..batch.count).step_by(micro_batch) {
            steps.push(Step {
                step: number as u32,
                epoch,
                seed_lo,
                seed_hi,
                first_image: first as u32,
                images: (batch.count - first).min(micro_batch) as u32,
                total_images: batch.count as u32,
                metrics_slot: ((self.next_slot + steps.len()) % METRICS_RING) as u32,
                learning_rate,
                bias_correction1,
                bias_correction2,
                ..Default::default()
            });
        }
        self.loaded.upload(gpu, batch);
        self.loaded.steps.write(gpu, &steps);
        let mut programs = Vec::new();
        for pass in 0..steps.len() {
            programs.push((&self.loaded.program, pass));
            if let Some((start, add)) = &self.sum {
                programs.push((if pass == 0 { start } else { add }, pass));
            }
        }
        programs.push((&self.update, 0));

        self.pending.push(PendingStep {
            step: number,
            slots: (0..steps.len()).map(|i| (self.next_slot + i) % METRICS_RING).collect(),
            learning_rate,
        });
        self.next_slot = (self.next_slot + steps.len()) % METRICS_RING;

        // The ring must be read before it wraps around onto steps that nobody has seen.
        let unread: usize = self.pending.iter().map(|p| p.slots.len()).sum();
        let metrics = self.loaded.network.result;
        let mut receive = |steps: Vec<PendingStep>, bytes: Vec<u8>| decode(&steps, &bytes, results);
        if read_back || unread + steps.len() > METRICS_RING / 2 {
            let readback = self.ring.acquire(gpu, &mut receive)?;
            let source = self.loaded.buffers.get(BufferRole::State(metrics));
            let source = source.ok_or_else(|| GpuError::Refused("the schedule has no metrics".into()))?;
            self.loaded.submitter.submit(gpu, &programs, &self.loaded.steps, &[(source, &readback)])?;
            self.ring.submitted(readback, std::mem::take(&mut self.pending));
        } else {
            self.loaded.submitter.submit(gpu, &programs, &self.loaded.steps, &[])?;
        }
        Ok(self.ring.poll(gpu, &mut receive)?)
    }

    /// Waits for the device and hands over the metrics of every step so far.
    pub fn finish(&mut self, gpu: &Gpu, results: &mut Vec<StepResult>) -> Result<(), TrainError> {
        self.ring.finish(gpu, &mut |steps: Vec<PendingStep>, bytes: Vec<u8>| decode(&steps, &bytes, results))?;
        let metrics = self.loaded.buffer(BufferRole::State(self.loaded.network.result))?;
        let bytes = gpu.read(metrics, (METRICS_RING * 16) as u64)?;
        decode(&std::mem::take(&mut self.pending), &bytes, results);
        Ok(())
    }

    /// Multiply-adds of a pass.
    pub(super) fn macs(&self) -> u64 {
        self.loaded.macs()
    }

    /// The queue of updates, for whoever times it.
    pub(super) fn submitter(&mut self) -> &mut Submitter {
        &mut self.loaded.submitter
    }

    /// The time that every dispatch takes in an update, the median of `repeats` runs with the last update's values.
    /// The parameters are updated by it.
    pub(super) fn times(&self, gpu: &Gpu, repeats: usize) -> Result<Vec<DispatchTime>, TrainError> {
        let passes = self.loaded.steps.count();
        let mut programs = vec![(&self.loaded.program, passes)];
        if let Some((start, add)) = &self.sum {
            programs.extend([(start, 1), (add, passes - 1)]);
        }
        programs.push((&self.update, 1));
        let mut times = Vec::new();
        for (program, runs) in programs {
            times.extend(program.times(gpu, repeats)?.into_iter().map(|time| per_step(time, runs)));
        }
        Ok(times)
    }

    /// The optimizer's state, by name.
    pub fn download_state(&self, gpu: &Gpu) -> Result<Vec<(String, Vec<NamedTensor>)>, TrainError> {
        let names = self.optimizer.state_buffers().iter().enumerate();
        let read = |(index, name): (usize, &&str)| {
            let buffer = self.loaded.buffer(BufferRole::OptimizerState(index))?;
            Ok((name.to_string(), self.parameters.read(gpu, buffer, self.graph())?))
        };
        names.map(read).collect()
    }

    /// Sets the optimizer's state; `tensors` are those of [`TrainEngine::download_state`].
    pub fn upload_state(&self, gpu: &Gpu, state: &[(String, Vec<NamedTensor>)]) -> Result<(), TrainError> {
        for (index, name) in self.optimizer.state_buffers().iter().enumerate() {
            let Some((_, tensors)) = state.iter().find(|(kind, _)| kind == name) else { continue };
            let buffer = self.loaded.buffer(BufferRole::OptimizerState(index))?;
            self.parameters.write(gpu, buffer, self.graph(), &tensors.iter().collect::<Vec<_>>());
        }
        Ok(())
    }

    /// The gradients of the last update.
    pub fn download_gradients(&self, gpu: &Gpu) -> Result<Vec<NamedTensor>, TrainError> {
        let role = if self.sum.is_some() { BufferRole::GradientSum } else { BufferRole::Gradients };
        Ok(self.parameters.read(gpu, self.loaded.buffer(role)?, self.graph())?)
    }

    /// The parameters in logical order.
    pub fn download(&self, gpu: &Gpu) -> Result<Vec<NamedTensor>, TrainError> {
        Ok(self.parameters.download(gpu, self.graph())?)
    }
}

/// The input options for images that lie there.
fn located(input: &InputOptions, resident: Option<&ResidentImages>) -> InputOptions {
    InputOptions { resident: resident.map(ResidentImages::layout), ..input.clone() }
}

/// The time of a dispatch that runs `runs` times in a step.
fn per_step(time: DispatchTime, runs: usize) -> DispatchTime {
    DispatchTime { seconds: time.seconds * runs as f64, ..time }
}

/// Entries of the metrics ring to results per step.
fn decode(steps: &[PendingStep], bytes: &[u8], results: &mut Vec<StepResult>) {
    let ring: Vec<[f32; 4]> = bytemuck::pod_collect_to_vec(bytes);
    for pending in steps {
        let mut result = StepResult { step: pending.step, learning_rate: pending.learning_rate, ..Default::default() };
        for slot in &pending.slots {
            let [loss, correct, _, images] = ring[*slot];
            result.loss_sum += f64::from(loss);
            result.correct += correct as u64;
            result.images += images as u64;
        }
        results.push(result);
    }
}

/// What evaluation says of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageResult {
    /// Cross entropy.
    pub loss: f32,
    /// Classes placed before the label; 0 is a hit.
    pub rank: usize,
    /// The class with the largest logit.
    pub predicted: usize,
}

/// A network that is only run forward.
pub struct ForwardEngine {
    loaded: Loaded,
    purpose: Purpose,
    batch: usize,
    classes: usize,
    ring: ReadbackRing<usize>,
}

impl ForwardEngine {
    /// Compiles `model` for batches of at most `batch` images; `purpose` is evaluation or inference, `resident` as in
    /// [`TrainEngine::new`].
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        gpu: &Gpu,
        model: &Model,
        options: &ModelOptions,
        input: &InputOptions,
        purpose: Purpose,
        batch: usize,
        parameters: &DeviceParameters,
        resident: Option<&ResidentImages>,
        switches: CompileOptions,
    ) -> Result<Self, TrainError> {
        let input = &located(input, resident);
        let compile_for = |batch| {
            let target = gpu.remaining_target(parameters.arena.bytes + resident.map_or(0, ResidentImages::bytes));
            compile(model, options, input, purpose, batch, batch, 0, &target, switches)
        };
        let mut network = compile_for(batch)?;
        if network.micro_batch < batch {
            network = compile_for(network.micro_batch)?;
        }
        Self::load(gpu, network, parameters, resident, None, options.classes, purpose)
    }

    /// As [`ForwardEngine::new`], with the parameters of `trained` and in the memory of its temporaries: the two must not run at
    /// once. Takes fewer images at a time where the memory budget leaves too little.
    #[allow(clippy::too_many_arguments)]
    pub fn beside(
        gpu: &Gpu,
        trained: &TrainEngine,
        model: &Model,
        options: &ModelOptions,
        input: &InputOptions,
        purpose: Purpose,
        mut batch: usize,
        resident: Option<&ResidentImages>,
        switches: CompileOptions,
    ) -> Result<Self, TrainError> {
        let input = &located(input, resident);
        let target = Target { memory_budget: None, ..gpu.target().clone() };
        loop {
            let network = compile(model, options, input, purpose, batch, batch, 0, &target, switches)?;
            if network.micro_batch < batch {
                batch = network.micro_batch;
                continue;
            }
            let lender = Some(&trained.loaded.buffers);
            match Self::load(gpu, network, &trained.parameters, resident, lender, options.classes, purpose) {
                Err(TrainError::Gpu(GpuError::OverBudget { .. })) if batch > 1 => batch = batch.div_ceil(2),
                other => return other,
            }
        }
    }

    fn load(
        gpu: &Gpu,
        network: CompiledNetwork,
        parameters: &DeviceParameters,
        resident: Option<&ResidentImages>,
        lender: Option<&Buffers>,
        classes: usize,
        purpose: Purpose,
    ) -> Result<Self, TrainError> {
        let batch = network.micro_batch;
        let bytes = network.compiled.graph.fact(network.result).bytes();
        let loaded = Loaded::new(gpu, network, parameters, resident, lender, &[], 1)?;
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
    pub(super) fn macs(&self) -> u64 {
        self.loaded.macs()
    }

    /// The queue of runs, for whoever times it.
    pub(super) fn submitter(&mut self) -> &mut Submitter {
        &mut self.loaded.submitter
    }

    /// The time that every dispatch takes in `runs` runs, the median of `repeats` measurements with the last run's images.
    pub(super) fn times(&self, gpu: &Gpu, runs: usize, repeats: usize) -> Result<Vec<DispatchTime>, TrainError> {
        Ok(self.loaded.program.times(gpu, repeats)?.into_iter().map(|time| per_step(time, runs)).collect())
    }

    /// Queues a batch; `received` gets (images, memory of the result) of batches that have come back, in order.
    pub(super) fn run(&mut self, gpu: &Gpu, batch: &Batch, received: &mut Vec<(usize, Vec<f32>)>) -> Result<(), TrainError> {
        let mut receive = |count: usize, bytes: Vec<u8>| received.push((count, bytemuck::pod_collect_to_vec(&bytes)));
        self.loaded.upload(gpu, batch);
        let count = batch.count as u32;
        self.loaded.steps.write(gpu, &[Step { images: count, total_images: count, ..Default::default() }]);
        let readback = self.ring.acquire(gpu, &mut receive)?;
        let role = BufferRole::Output(self.loaded.network.result);
        let source = self.loaded.buffers.get(role).ok_or_else(|| GpuError::Refused("the schedule has no result".into()))?;
        self.loaded.submitter.submit(gpu, &[(&self.loaded.program, 0)], &self.loaded.steps, &[(source, &readback)])?;
        self.ring.submitted(readback, batch.count);
        Ok(self.ring.poll(gpu, &mut receive)?)
    }

    pub(super) fn finish(&mut self, gpu: &Gpu, received: &mut Vec<(usize, Vec<f32>)>) -> Result<(), TrainError> {
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
            if batch.count > 0 {
                self.run(gpu, &batch, &mut received)?;
            }
            each(&batch);
        }
        self.finish(gpu, &mut received)?;
        let rows = received.iter().flat_map(|(count, memory)| memory.chunks_exact(4).take(*count));
        Ok(rows.map(|row| ImageResult { loss: row[0], rank: row[1] as usize, predicted: row[2] as usize }).collect())
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
