//! How fast a model trains and infers on a device.
//!
//! A step is what [`super::trainer`] and [`super::predict`] run for a batch: upload, one submit, results through the
//! ring. Steps are queued as there, with two waiting behind the one that runs, so that the device does not idle; a
//! step's time is the time from the end of the step before it to its own end, as the host sees them.

use super::TrainError;
use super::config::TrainConfig;
use super::engine::{DeviceParameters, ForwardEngine, TrainEngine};
use super::init::initial_parameters;
use super::resident::DeviceInput;
use super::settings::{input_options, model_options, training};
use crate::data::Batch;
use crate::gpu::{DispatchTime, Gpu, Submitter};
use crate::graph::Graph;
use crate::kernels::Kernel;
use crate::models::{BuildError, InputOptions, Model, Purpose, largest_batch};
use crate::passes::Pass;
use crate::rng::{Stream, purpose};
use crate::weights::NamedTensor;
use std::time::{Duration, Instant};

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One update: forward, backward, optimizer.
    Train,
    /// Probabilities of a batch.
    Infer,
}

/// How many steps to measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Steps {
    /// This many, at least 1.
    Count(usize),
    /// As many as this takes, from 5 to 1000.
    Lasting(Duration),
}

impl Steps {
    fn are_done(self, steps: usize, elapsed: Duration) -> bool {
        match self {
            Steps::Count(count) => steps >= count.max(1),
            Steps::Lasting(duration) => steps >= 1000 || (steps >= 5 && elapsed >= duration),
        }
    }
}

/// What to measure.
#[derive(Clone)]
pub struct BenchRequest<'a> {
    /// The model.
    pub model: &'static Model,
    /// Its recipe: what it is adapted to, optimizer, dropout, augmentation and scale of the input, batch size.
    pub config: &'a TrainConfig,
    /// What a step does.
    pub mode: Mode,
    /// Steps measured, after those that warm up.
    pub steps: Steps,
    /// Runs over which the time of each kernel is the median; 0 leaves the layers out.
    pub layer_repeats: usize,
}

/// Order statistics of some durations, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half of them are shorter.
    pub median: f64,
    /// One in ten is shorter.
    pub p10: f64,
    /// Nine in ten are shorter.
    pub p90: f64,
}

impl Spread {
    /// Of at least one value; zeros otherwise.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Spread { median: percentile(&sorted, 0.5), p10: percentile(&sorted, 0.1), p90: percentile(&sorted, 0.9) }
    }
}

/// The value that a share of the sorted values lies below, on the straight line between neighbours, as NumPy's default.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share * sorted.len().saturating_sub(1) as f64;
    let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
    let (low, high) = (at(place.floor() as usize), at(place.ceil() as usize));
    low + (high - low) * place.fract()
}

/// The time of one direction of one layer in a step.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerTime {
    /// Path of the layer.
    pub name: String,
    /// Its PyTorch type; empty for what is no layer of the model.
    pub kind: &'static str,
    /// The direction.
    pub pass: Pass,
    /// Names of the kernels that ran (`conv2d_tiled::forward`), each once, in the order in which they first ran.
    pub kernels: Vec<String>,
    /// Whether one of them multiplies on the device's matrix units.
    pub matrix_units: bool,
    /// Seconds, all kernels of the direction together.
    pub seconds: f64,
    /// Floating-point operations: two for each multiply-add.
    pub flops: f64,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// Images of a step.
    pub batch: usize,
    /// Images of one pass over the device; smaller than the batch where that does not fit.
    pub micro_batch: usize,
    /// Seconds of a step.
    pub step: Spread,
    /// Steps measured.
    pub steps: usize,
    /// Seconds that the host's thread works for a step, the mean: preparing, encoding and submitting, without waiting
    /// for the device. CPU time on Linux; elsewhere all time but that of calls that wait.
    pub host_seconds: f64,
    /// Seconds to build the engine, pipelines included.
    pub build_seconds: f64,
    /// Seconds to build the engine and to finish the first step.
    pub first_step_seconds: f64,
    /// Seconds to make the pipelines, with what the device's cache of pipelines held already: [`Gpu::compiled`].
    pub pipeline_seconds: f64,
    /// Seconds that the first step took beyond a median one. Drivers that compile a kernel when it first runs, as llvmpipe
    /// does, do it there; the first use of memory is in it as well.
    pub first_run_seconds: f64,
    /// Whether a kernel of the steps multiplies on the device's matrix units; emulated ones are none.
    pub matrix_units: bool,
    /// Floating-point operations of a step: two for each multiply-add of its images.
    pub flops: f64,
    /// Bytes of the buffers that were created to run the steps.
    pub bytes: u64,
    /// By layer and direction in the order in which they run, where asked for.
    pub layers: Vec<LayerTime>,
}

impl Measurement {
    /// Images per second in the median step.
    pub fn images_per_s(&self) -> f64 {
        self.batch as f64 / self.step.median.max(1e-9)
    }

    /// Seconds for compiling: making pipelines, and whatever drivers leave for a kernel's first run.
    pub fn compile_seconds(&self) -> f64 {
        self.pipeline_seconds + self.first_run_seconds
    }

    /// Floating-point operations per second in the median step.
    pub fn flops_per_s(&self) -> f64 {
        self.flops / self.step.median.max(1e-9)
    }
}

/// Most images of a batch.
const MOST_IMAGES: usize = 1 << 20;

/// Steps that warm up: at least one, no more than this many or this long.
const WARM_UP_STEPS: usize = 20;
const WARM_UP: Duration = Duration::from_millis(500);

/// Measures steps of `config.batch_size` images. The clock of the first step starts with the call.
pub fn bench(gpu: &Gpu, request: &BenchRequest<'_>) -> Result<Measurement, TrainError> {
    let opened = Instant::now();
    let (bytes_before, compiled_before) = (gpu.memory().bytes, gpu.compiled());
    let mut engine = Engine::new(gpu, request)?;
    let building = opened.elapsed();
    // Made here and not before, so that a batch over the device's limits fails before the host makes room for it.
    let inputs = Inputs::random(request.config, engine.images_of_call());
    let started = Instant::now();
    engine.step(gpu, &inputs, 0)?;
    engine.submitter().drain(gpu)?;
    let first_run = started.elapsed();
    let compiled = gpu.compiled() - compiled_before;

    let mut number = 1;
    engine.submitter().watch();
    let started = Instant::now();
    while number == 1 || (number <= WARM_UP_STEPS && started.elapsed() < WARM_UP) {
        engine.step(gpu, &inputs, number)?;
        number += 1;
    }
    let warm_up_steps = number - 1;
    let (started, clock) = (Instant::now(), HostClock::start(gpu));
    while !request.steps.are_done(number - 1 - warm_up_steps, started.elapsed()) {
        engine.step(gpu, &inputs, number)?;
        number += 1;
    }
    let host = clock.elapsed(gpu);
    let ends = engine.submitter().drain(gpu)?;
    let ends: Vec<Instant> = ends.into_iter().skip(inputs.parts.len() - 1).step_by(inputs.parts.len()).collect();
    let seconds = between(&ends[warm_up_steps - 1..]);
    engine.finish(gpu)?;

    let bytes = gpu.memory().bytes - bytes_before;
    let layers = if request.layer_repeats > 0 { engine.layers(gpu, request.layer_repeats)? } else { Vec::new() };
    let step = Spread::of(&seconds);
    Ok(Measurement {
        batch: request.config.batch_size,
        micro_batch: engine.micro_batch(),
        step,
        steps: seconds.len(),
        host_seconds: host.as_secs_f64() / seconds.len().max(1) as f64,
        build_seconds: building.as_secs_f64(),
        first_step_seconds: (building + first_run).as_secs_f64(),
        pipeline_seconds: compiled.as_secs_f64(),
        first_run_seconds: (first_run.as_secs_f64() - step.median).max(0.0),
        matrix_units: engine.uses_matrix_units(),
        flops: engine.flops(engine.macs()),
        bytes,
        layers,
    })
}

/// What the first run of a kernel costs beyond its second.
#[derive(Clone, Copy, Debug)]
pub struct FirstRun {
    /// The kernel.
    pub kernel: &'static Kernel,
    /// Seconds of its first run less those of the second: what the driver compiles there.
    pub compile_seconds: f64,
    /// Seconds of the second run.
    pub seconds: f64,
}

/// The kernels of a step, each run by itself, those first that cost most in their first run. A kernel's first run tells what
/// compiling costs only where the driver had not compiled it before, here or in its caches.
pub fn first_runs(gpu: &Gpu, request: &BenchRequest<'_>) -> Result<Vec<FirstRun>, TrainError> {
    let engine = Engine::new(gpu, request)?;
    let times = match &engine.runs {
        Runs::Train(engine) => engine.first_runs(gpu)?,
        Runs::Infer(engine) => engine.first_runs(gpu)?,
    };
    let mut runs: Vec<FirstRun> = Vec::new();
    for (first, second) in times {
        if runs.iter().all(|run| run.kernel.name() != first.kernel.name()) {
            runs.push(FirstRun { kernel: first.kernel, compile_seconds: first.seconds - second.seconds, seconds: second.seconds });
        }
    }
    runs.sort_by(|a, b| b.compile_seconds.total_cmp(&a.compile_seconds));
    Ok(runs)
}

/// The largest batch that runs in one pass on the device.
pub fn largest_batch_of(gpu: &Gpu, model: &Model, config: &TrainConfig, mode: Mode) -> Result<usize, TrainError> {
    let input = input_options(config, [config.in_channels, config.image_size, config.image_size]);
    let purpose = match mode {
        Mode::Train => Purpose::Train,
        Mode::Infer => Purpose::Infer { runs: usize::MAX },
    };
    let (options, target, switches) = (model_options(config), gpu.remaining_target(0), config.precision.compile_options());
    Ok(largest_batch(model, &options, &input, purpose, MOST_IMAGES, 1, &training(config), &target, switches)?)
}

/// Seconds from each moment to the next. Ends that the host saw at one look, because it was late, share the time.
fn between(ends: &[Instant]) -> Vec<f64> {
    let mut seconds: Vec<f64> = ends.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    let at_once = 0.01 * seconds.iter().sum::<f64>() / seconds.len().max(1) as f64;
    let mut first = 0;
    for index in 1..=seconds.len() {
        if index == seconds.len() || seconds[index] > at_once {
            let share = seconds[first..index].iter().sum::<f64>() / (index - first) as f64;
            seconds[first..index].fill(share);
            first = index;
        }
    }
    seconds
}

/// Measures how long this thread works.
struct HostClock {
    started: Instant,
    waited: Duration,
    cpu: Option<Duration>,
}

impl HostClock {
    fn start(gpu: &Gpu) -> Self {
        HostClock { cpu: thread_cpu_time(), waited: gpu.waited(), started: Instant::now() }
    }

    /// Drivers may wait for the device within a submit, so CPU time is the better figure where there is one.
    fn elapsed(&self, gpu: &Gpu) -> Duration {
        let wall = self.started.elapsed().saturating_sub(gpu.waited().saturating_sub(self.waited));
        match (self.cpu, thread_cpu_time()) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => wall,
        }
    }
}

/// CPU time of this thread, where the system tells it: Linux.
fn thread_cpu_time() -> Option<Duration> {
    // The kernel brings the figure up to date where a thread gives way.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Random pictures and labels: a few batches in turn, each in the parts that the engine takes at once.
struct Inputs {
    parts: Vec<[Batch; 2]>,
}

impl Inputs {
    fn random(config: &TrainConfig, part: usize) -> Self {
        let mut stream = Stream::new(config.seed, 0, 0, purpose::SYNTHETIC);
        let image_bytes = config.in_channels * config.image_size * config.image_size;
        let mut batch = |count: usize| {
            let words = (part * image_bytes).div_ceil(4);
            let mut pixels: Vec<u8> = (0..words).flat_map(|_| stream.next_u32().to_le_bytes()).collect();
            pixels.truncate(part * image_bytes);
            let labels = (0..part).map(|_| stream.below(config.classes as u32)).collect();
            let ids = (0..part).map(|_| stream.below(1 << 20)).collect();
            Batch { pixels, labels, ids, count }
        };
        let counts = (0..config.batch_size).step_by(part).map(|first| part.min(config.batch_size - first));
        Inputs { parts: counts.map(|count| [batch(count), batch(count)]).collect() }
    }
}

/// What runs the steps.
struct Engine<'a> {
    config: &'a TrainConfig,
    /// The model alone.
    graph: Graph,
    runs: Runs,
}

enum Runs {
    Train(Box<TrainEngine>),
    Infer(Box<ForwardEngine>),
}

impl<'a> Engine<'a> {
    fn new(gpu: &Gpu, request: &BenchRequest<'a>) -> Result<Self, TrainError> {
        let BenchRequest { model, config, .. } = *request;
        let options = model_options(config);
        let input = input_options(config, [config.in_channels, config.image_size, config.image_size]);
        let graph = model.describe(&options).map_err(BuildError::from)?;
        let parameters = initial_parameters(&graph, config);
        let tensors: Vec<&NamedTensor> = parameters.iter().collect();
        let batch = config.batch_size;
        let switches = config.precision.compile_options();
        let runs = match request.mode {
            Mode::Train => {
                let engine = TrainEngine::new(
                    gpu,
                    model,
                    &options,
                    &input,
                    training(config),
                    batch,
                    batch,
                    &tensors,
                    DeviceInput::default(),
                    switches,
                )?;
                Runs::Train(Box::new(engine))
            }
            Mode::Infer => {
                let parameters = DeviceParameters::upload(gpu, &graph, &tensors)?;
                let input = InputOptions { augment: None, ..input };
                let purpose = Purpose::Infer { runs: usize::MAX };
                Runs::Infer(Box::new(ForwardEngine::new(
                    gpu,
                    model,
                    &options,
                    &input,
                    purpose,
                    batch,
                    &parameters,
                    DeviceInput::default(),
                    switches,
                )?))
            }
        };
        Ok(Engine { config, graph, runs })
    }

    /// Queues a step.
    fn step(&mut self, gpu: &Gpu, inputs: &Inputs, number: usize) -> Result<(), TrainError> {
        let config = self.config;
        for batches in &inputs.parts {
            let batch = &batches[number % batches.len()];
            match &mut self.runs {
                Runs::Train(engine) => {
                    let read_back = (number + 1).is_multiple_of(config.log_every as usize);
                    engine.step(gpu, batch, number as u64, 0, config.seed, config.lr as f32, read_back, &mut Vec::new())?;
                }
                Runs::Infer(engine) => engine.run(gpu, batch, &mut Vec::new())?,
            }
        }
        Ok(())
    }

    fn submitter(&mut self) -> &mut Submitter {
        match &mut self.runs {
            Runs::Train(engine) => engine.submitter(),
            Runs::Infer(engine) => engine.submitter(),
        }
    }

    /// Fetches what is still on the device.
    fn finish(&mut self, gpu: &Gpu) -> Result<(), TrainError> {
        match &mut self.runs {
            Runs::Train(engine) => engine.finish(gpu, &mut Vec::new()),
            Runs::Infer(engine) => engine.finish(gpu, &mut Vec::new()),
        }
    }

    /// Images of one pass over the device.
    fn micro_batch(&self) -> usize {
        match &self.runs {
            Runs::Train(engine) => engine.micro_batch(),
            Runs::Infer(engine) => engine.batch(),
        }
    }

    /// Images that a call takes: in training the whole batch, whose parts are the engine's affair.
    fn images_of_call(&self) -> usize {
        match &self.runs {
            Runs::Train(_) => self.config.batch_size,
            Runs::Infer(engine) => engine.batch(),
        }
    }

    /// Passes over the device in a step.
    fn passes(&self) -> usize {
        self.config.batch_size.div_ceil(self.micro_batch())
    }

    /// Floating-point operations of a step, two for each multiply-add, that `macs` in each pass make: those of rows
    /// without an image do not count.
    fn flops(&self, macs: u64) -> f64 {
        2.0 * macs as f64 * self.config.batch_size as f64 / self.micro_batch() as f64
    }

    /// Multiply-adds of a pass.
    fn macs(&self) -> u64 {
        match &self.runs {
            Runs::Train(engine) => engine.macs(),
            Runs::Infer(engine) => engine.macs(),
        }
    }

    /// Whether any kernel of a step multiplies on the device's matrix units.
    fn uses_matrix_units(&self) -> bool {
        match &self.runs {
            Runs::Train(engine) => engine.uses_matrix_units(),
            Runs::Infer(engine) => engine.uses_matrix_units(),
        }
    }

    /// Times by layer and direction in a step.
    fn layers(&self, gpu: &Gpu, repeats: usize) -> Result<Vec<LayerTime>, TrainError> {
        let times = match &self.runs {
            Runs::Train(engine) => engine.times(gpu, repeats)?,
            Runs::Infer(engine) => engine.times(gpu, self.passes(), repeats)?,
        };
        let mut layers: Vec<LayerTime> = Vec::new();
        for DispatchTime { path, pass, kernel, macs, seconds } in times {
            let index = layers.iter().position(|layer| layer.name == path && layer.pass == pass).unwrap_or_else(|| {
                let kind = self.graph.modules.iter().find(|module| module.path == path).map_or("", |module| module.kind);
                layers.push(LayerTime { name: path, kind, pass, kernels: Vec::new(), matrix_units: false, seconds: 0.0, flops: 0.0 });
                layers.len() - 1
            });
            let layer = &mut layers[index];
            layer.seconds += seconds;
            layer.flops += self.flops(macs);
            layer.matrix_units |= kernel.matrices;
            if !layer.kernels.contains(&kernel.name()) {
                layer.kernels.push(kernel.name());
            }
        }
        Ok(layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_numpy() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0, 10.0]);
        assert_eq!((spread.median, spread.p10), (3.0, 1.4));
        assert!((spread.p90 - 7.6).abs() < 1e-12);
        assert_eq!(Spread::of(&[2.0, 1.0]).median, 1.5);
        let single = Spread::of(&[7.0]);
        assert_eq!((single.p10, single.median, single.p90), (7.0, 7.0, 7.0));
        assert_eq!(Spread::of(&[]), Spread { median: 0.0, p10: 0.0, p90: 0.0 });
    }

    #[test]
    fn ends_seen_at_one_look_share_the_time() {
        let start = Instant::now();
        let seconds = |millis: &[u64]| between(&millis.iter().map(|ms| start + Duration::from_millis(*ms)).collect::<Vec<_>>());
        let milliseconds = |millis: &[u64]| seconds(millis).iter().map(|s| (s * 1e3).round() as u64).collect::<Vec<_>>();
        assert_eq!(milliseconds(&[0, 100, 210, 300]), [100, 110, 90]);
        assert_eq!(milliseconds(&[0, 100, 300, 300, 400, 700, 700, 700]), [100, 100, 100, 100, 100, 100, 100]);
        assert_eq!(milliseconds(&[5]), Vec::<u64>::new());
        assert_eq!(milliseconds(&[0, 0, 100]), [0, 100]);
    }

    #[test]
    fn steps_last_as_long_as_asked() {
        let second = Duration::from_secs(1);
        assert!(!Steps::Count(3).are_done(2, second * 100) && Steps::Count(3).are_done(3, Duration::ZERO));
        let lasting = Steps::Lasting(second);
        assert!(!lasting.are_done(4, second * 100) && lasting.are_done(5, second));
        assert!(!lasting.are_done(999, Duration::ZERO) && lasting.are_done(1000, Duration::ZERO));
    }

    #[test]
    fn inputs_are_random_and_fill_the_batch() {
        let config = TrainConfig { batch_size: 5, ..TrainConfig::defaults("nin-small").unwrap() };
        let inputs = Inputs::random(&config, 2);
        assert_eq!(inputs.parts.iter().map(|batches| batches[0].count).collect::<Vec<_>>(), [2, 2, 1]);
        for batch in inputs.parts.iter().flatten() {
            assert_eq!((batch.pixels.len(), batch.labels.len(), batch.ids.len()), (2 * 28 * 28, 2, 2));
            let mean = batch.pixels.iter().map(|p| f64::from(*p)).sum::<f64>() / batch.pixels.len() as f64;
            assert!((mean - 127.5).abs() < 10.0, "{mean}");
            assert!(batch.labels.iter().all(|label| *label < 10));
        }
        assert_ne!(inputs.parts[0][0].pixels, inputs.parts[0][1].pixels);
    }
}
