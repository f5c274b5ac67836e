//! A compiled network on a device: its buffers, programs and the values the host exchanges with it.

pub use super::parameters::DeviceParameters;
use super::resident::{DeviceInput, ResidentImages};
use super::{TrainError, update};
use crate::data::{Batch, DataError};
use crate::gpu::{Buffers, DeviceBuffer, DispatchTime, Gpu, GpuError, Program, ReadbackRing, StepUniforms, Submitter};
use crate::graph::Graph;
use crate::kernels::{Dispatch, Step};
use crate::models::{
    CompiledNetwork, EMA_STATE, InputOptions, METRICS_RING, Memory, Model, ModelOptions, Purpose, READBACKS, Training, compile,
};
use crate::ops::{LossScale, accumulate, start_sum};
use crate::passes::{BufferRole, CompileOptions, Pass, Region, ScheduledDispatch};
use crate::weights::NamedTensor;
use std::borrow::Cow;

mod forward;
mod inspect;

pub use forward::{ForwardEngine, ImageResult};
pub use inspect::LayerOutput;

/// A network with its program; the part that training, evaluation and inference have in common.
struct Loaded {
    network: CompiledNetwork,
    program: Program,
    buffers: Buffers,
    steps: StepUniforms,
    submitter: Submitter,
    /// How many images are on the device already; `None` where batches bring their pixels.
    resident: Option<usize>,
    classes: usize,
}

impl Loaded {
    #[allow(clippy::too_many_arguments)]
    fn new(
        gpu: &Gpu,
        network: CompiledNetwork,
        parameters: &DeviceParameters,
        on_device: DeviceInput<'_>,
        lender: Option<&Buffers>,
        extra: &[(BufferRole, u64)],
        passes: usize,
        classes: usize,
    ) -> Result<Self, GpuError> {
        let schedule = &network.compiled.schedule;
        let mut shared = lender.map_or_else(Buffers::default, |buffers| buffers.lend_slots(&schedule.buffers));
        shared.insert(BufferRole::Parameters, parameters.buffer.clone());
        for (value, part) in network.pixels.iter().zip(on_device.images.map_or(&[][..], ResidentImages::parts)) {
            shared.insert(BufferRole::Input(*value), part.clone());
        }
        if let (Some(values), Some(whitening)) = (network.whitening, on_device.whitening) {
            values.iter().zip(whitening.buffers()).for_each(|(value, buffer)| shared.insert(BufferRole::Input(*value), buffer.clone()));
        }
        let mut sizes = schedule.buffers.clone();
        sizes.extend(extra.iter().copied());
        let buffers = Buffers::allocate(gpu, &sizes, &shared)?;
        let steps = StepUniforms::new(gpu, passes);
        let program = Program::new(gpu, &schedule.dispatches, &buffers, &steps)?;
        let resident = on_device.images.map(|images| images.layout().images);
        Ok(Loaded { network, program, buffers, steps, submitter: Submitter::default(), resident, classes })
    }

    /// Refuses a batch that would lead kernels outside of their buffers: they trust what the host gives them.
    fn check(&self, batch: &Batch) -> Result<(), DataError> {
        let network = &self.network;
        let room = |value| network.compiled.graph.fact(value).bytes() as usize;
        let does_not_fit = |list: &[u32], value| list.len() * 4 > room(value) || list.len() < batch.count;
        let pixels = if self.resident.is_some() { None } else { network.pixels.first() };
        let most_images = (room(network.ids) / 4).max(1);
        let pixels_do_not_fit = |value| {
            let (found, room) = (batch.pixels.len(), room(value));
            found > room || found < room / most_images * batch.count
        };
        if does_not_fit(&batch.ids, network.ids)
            || network.labels.is_some_and(|value| does_not_fit(&batch.labels, value))
            || pixels.is_some_and(|value| pixels_do_not_fit(*value))
        {
            let problem = format!("a batch of {} images with {} bytes is not what the network takes", batch.count, batch.pixels.len());
            return Err(DataError::Unfit(problem));
        }
        if network.labels.is_some()
            && let Some(place) = batch.labels.iter().take(batch.count).position(|label| *label as usize >= self.classes)
        {
            let (image, label) = (batch.ids[place], batch.labels[place]);
            return Err(DataError::Unfit(format!("image {image} has label {label}, but the network knows {} classes", self.classes)));
        }
        if let Some(images) = self.resident
            && let Some(image) = batch.ids.iter().take(batch.count).find(|image| **image as usize >= images)
        {
            return Err(DataError::Unfit(format!("image {image} was asked for, but the device holds {images}")));
        }
        Ok(())
    }

    /// Brings a batch to the device after looking at it: no other way leads data into a program.
    fn upload(&self, gpu: &Gpu, batch: &Batch) -> Result<(), DataError> {
        self.check(batch)?;
        let put = |value, bytes: &[u8]| {
            if let Some(buffer) = self.buffers.get(BufferRole::Input(value)) {
                gpu.write(buffer, 0, bytes);
            }
        };
        if self.resident.is_none() {
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
        Ok(())
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
    training: Training,
    update: Program,
    /// For batches of several passes: the first starts the sum, the others add to it.
    sum: Option<(Program, Program)>,
    pending: Vec<PendingStep>,
    next_slot: usize,
    ring: ReadbackRing<Vec<PendingStep>>,
}

impl TrainEngine {
    /// Compiles `model` for updates of `batch` images, no pass larger than `max_pass`.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        gpu: &Gpu,
        model: &Model,
        options: &ModelOptions,
        input: &InputOptions,
        training: Training,
        batch: usize,
        max_pass: usize,
        tensors: &[&NamedTensor],
        on_device: DeviceInput<'_>,
        switches: CompileOptions,
    ) -> Result<Self, TrainError> {
        if switches.half {
            gpu.require_f16()?;
        }
        let input = &located(input, on_device);
        let target = gpu.remaining_target(on_device.bytes());
        let network = compile(model, options, input, Purpose::Train, batch, max_pass, &training, &target, switches)?;
        let parameters = DeviceParameters::upload(gpu, &network.compiled.graph, tensors)?;
        let bytes = parameters.arena.bytes;
        let passes = batch.div_ceil(network.micro_batch);
        let mut extra = update::buffers(&training, bytes);
        if passes > 1 {
            extra.push((BufferRole::GradientSum, bytes));
        }
        let loaded = Loaded::new(gpu, network, &parameters, on_device, None, &extra, passes, options.classes)?;

        let program = |dispatches: Vec<(&'static str, Dispatch<Region>)>| {
            let entry = |(op, dispatch)| ScheduledDispatch { path: "all parameters".into(), op, pass: Pass::Update, macs: 0, dispatch };
            let entries: Vec<_> = dispatches.into_iter().map(entry).collect();
            Program::new(gpu, &entries, &loaded.buffers, &loaded.steps)
        };
        let gradients = if passes > 1 { BufferRole::GradientSum } else { BufferRole::Gradients };
        let scale = loaded.network.compiled.loss_scale.map(BufferRole::State);
        let update = program(update::dispatches(&training, bytes, gradients, scale))?;
        let multipliers = training.multipliers(&loaded.network.compiled.graph, &parameters.arena);
        gpu.write(loaded.buffer(BufferRole::Multipliers)?, 0, bytemuck::cast_slice(&multipliers));
        let sum = if passes > 1 {
            let (words, whole) = ((bytes / 4) as usize, |buffer| Region { buffer, offset: 0, bytes });
            let (sum, pass) = (whole(gradients), whole(BufferRole::Gradients));
            let start = program(vec![("start_sum", start_sum(words, sum, pass))])?;
            Some((start, program(vec![("accumulate", accumulate(words, sum, pass))])?))
        } else {
            None
        };
        let ring = ReadbackRing::new(gpu, (METRICS_RING * 16) as u64, READBACKS);
        let engine = TrainEngine { loaded, parameters, training, update, sum, pending: Vec::new(), next_slot: 0, ring };
        if engine.training.ema.is_some() {
            engine.parameters.write(gpu, &engine.averaged()?.buffer, engine.graph(), tensors);
        }
        engine.upload_loss_scale(gpu, LossScale::default());
        Ok(engine)
    }

    /// The buffer of loss scaling; none in single precision.
    fn loss_scale_buffer(&self) -> Option<&DeviceBuffer> {
        self.loaded.network.compiled.loss_scale.and_then(|id| self.loaded.buffers.get(BufferRole::State(id)))
    }

    /// Sets the state of loss scaling, where there is one.
    pub fn upload_loss_scale(&self, gpu: &Gpu, state: LossScale) {
        if let Some(buffer) = self.loss_scale_buffer() {
            gpu.write(buffer, 0, bytemuck::cast_slice(&state.to_words()));
        }
    }

    /// The state of loss scaling after the updates so far; none in single precision.
    pub fn download_loss_scale(&self, gpu: &Gpu) -> Result<Option<LossScale>, TrainError> {
        let Some(buffer) = self.loss_scale_buffer() else { return Ok(None) };
        let bytes = gpu.read(buffer, LossScale::fact().bytes())?;
        Ok(Some(LossScale::from_words(&bytemuck::pod_collect_to_vec::<u8, u32>(&bytes))))
    }

    /// The graph that is trained.
    pub fn graph(&self) -> &Graph {
        &self.loaded.network.compiled.graph
    }

    /// The parameters, for an evaluation engine that shares them.
    pub fn parameters(&self) -> &DeviceParameters {
        &self.parameters
    }

    /// What the network is to be used with: the average of the parameters where one is kept, else the parameters.
    pub fn averaged(&self) -> Result<DeviceParameters, TrainError> {
        let Some(index) = self.training.state_names().iter().position(|name| *name == EMA_STATE) else {
            return Ok(self.parameters.clone());
        };
        let buffer = self.loaded.buffer(BufferRole::OptimizerState(index))?.clone();
        Ok(DeviceParameters { buffer, arena: self.parameters.arena.clone() })
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
        let (bias_correction1, bias_correction2) = self.training.optimizer.bias_corrections(number as u32 + 1);
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
        self.loaded.upload(gpu, batch)?;
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

    /// Whether any kernel of an update multiplies on the device's matrix units.
    pub(super) fn uses_matrix_units(&self) -> bool {
        let sum = self.sum.iter().flat_map(|(start, add)| [start, add]);
        sum.chain([&self.loaded.program, &self.update]).any(Program::uses_matrix_units)
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

    /// The first two runs of every dispatch of an update: [`Program::first_runs`]. The parameters are updated by them.
    pub(super) fn first_runs(&self, gpu: &Gpu) -> Result<Vec<(DispatchTime, DispatchTime)>, TrainError> {
        let sum = self.sum.iter().flat_map(|(start, add)| [start, add]);
        let programs = std::iter::once(&self.loaded.program).chain(sum).chain([&self.update]);
        let runs: Result<Vec<_>, _> = programs.map(|program| program.first_runs(gpu)).collect();
        Ok(runs?.concat())
    }

    /// The state of the update, by name ([`Training::state_names`]).
    pub fn download_state(&self, gpu: &Gpu) -> Result<Vec<(String, Vec<NamedTensor>)>, TrainError> {
        let names = self.training.state_names().into_iter().enumerate();
        let read = |(index, name): (usize, &str)| {
            let buffer = self.loaded.buffer(BufferRole::OptimizerState(index))?;
            Ok((name.to_string(), self.parameters.read(gpu, buffer, self.graph())?))
        };
        names.map(read).collect()
    }

    /// Sets the state of the update; `tensors` are those of [`TrainEngine::download_state`].
    pub fn upload_state(&self, gpu: &Gpu, state: &[(String, Vec<NamedTensor>)]) -> Result<(), TrainError> {
        for (index, name) in self.training.state_names().into_iter().enumerate() {
            let Some((_, tensors)) = state.iter().find(|(kind, _)| kind == name) else { continue };
            let buffer = self.loaded.buffer(BufferRole::OptimizerState(index))?;
            self.parameters.write(gpu, buffer, self.graph(), &tensors.iter().collect::<Vec<_>>());
        }
        Ok(())
    }

    /// The gradients of the last update, after clipping; zeros of frozen parameters; in mixed precision times the loss scale before it.
    pub fn download_gradients(&self, gpu: &Gpu) -> Result<Vec<NamedTensor>, TrainError> {
        let role = if self.sum.is_some() { BufferRole::GradientSum } else { BufferRole::Gradients };
        Ok(self.parameters.read(gpu, self.loaded.buffer(role)?, self.graph())?)
    }

    /// The parameters in logical order.
    pub fn download(&self, gpu: &Gpu) -> Result<Vec<NamedTensor>, TrainError> {
        Ok(self.parameters.download(gpu, self.graph())?)
    }
}

/// The input options for what lies on the device.
fn located(input: &InputOptions, on_device: DeviceInput<'_>) -> InputOptions {
    InputOptions { resident: on_device.images.map(ResidentImages::layout), whiten: on_device.whitening.is_some(), ..input.clone() }
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
