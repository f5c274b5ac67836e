//! A training run from its configuration to its weights.

use super::checkpoint::{Checkpoint, RunningSums};
use super::config::{self, ConfigError, TrainConfig};
use super::engine::{ForwardEngine, StepResult, TrainEngine};
use super::fine_tune::starting_parameters;
use super::init::initial_parameters;
use super::metrics::{EpochLine, MetricsLog, StepLine};
use super::plot;
use super::progress::Progress;
use super::resident::{ResidentImages, Room, epoch_batches};
use super::run_dir::{RunDir, RunLog};
use super::schedule::learning_rate;
use super::settings::{check_training, input_options};
pub use super::settings::{model_options, training};
use super::{RunError, TrainError};
use crate::data::framing::Polarity;
use crate::data::{self, Dataset, Order, batches_per_epoch};
use crate::gpu::{Gpu, tuner};
use crate::kernels::Problem;
use crate::models::{EMA_STATE, InputOptions, Model, Purpose, largest_batch};

use crate::weights::{self, Metadata, NamedTensor, Preprocess, label};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What to train.
#[derive(Clone, Debug)]
pub struct TrainRequest {
    /// The settings; with `resume` those of the run's folder are used instead.
    pub config: TrainConfig,
    /// Folder of a new run; without it `runs/MODEL-N`.
    pub out: Option<PathBuf>,
    /// Folder of a run to go on with.
    pub resume: Option<PathBuf>,
    /// Weights to start from.
    pub initial_weights: Option<PathBuf>,
    /// The command as typed, kept beside the configuration.
    pub command: String,
    /// A new run takes the largest batch that runs in one pass instead of the configured one.
    pub batch_size_auto: bool,
}

/// Facts of a run, known before its first step.
#[derive(Clone, Debug, PartialEq)]
pub struct RunInfo {
    /// The run's folder.
    pub out: PathBuf,
    /// Name of the adapter.
    pub adapter: String,
    /// Training images.
    pub train_images: usize,
    /// Test images.
    pub test_images: usize,
    /// Updates of an epoch.
    pub steps_per_epoch: usize,
    /// Epochs in all.
    pub epochs: usize,
    /// Updates done before, when a run goes on.
    pub first_step: u64,
    /// Trained scalars.
    pub parameters: usize,
    /// Images of an update.
    pub batch_size: usize,
    /// Images of one pass over the device; smaller than the batch where that does not fit.
    pub micro_batch: usize,
    /// Device memory of training and testing in bytes.
    pub memory_bytes: u64,
    /// Bytes of images that stay on the device; 0 where every step uploads its own.
    pub resident_bytes: u64,
}

/// Progress, every `log_every` updates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// From 1.
    pub epoch: u64,
    /// Updates of this epoch so far.
    pub step_in_epoch: u64,
    /// Updates of the run so far.
    pub step: u64,
    /// Mean loss since the last report.
    pub loss: f64,
    /// Share recognised in this epoch so far.
    pub accuracy: f64,
    /// Learning rate.
    pub lr: f64,
    /// Training images per second since the last report.
    pub images_per_s: f64,
}

/// Who wants to know how a run goes.
pub trait Observer {
    /// Before the first step.
    fn started(&mut self, run: &RunInfo);
    /// Every `log_every` updates.
    fn step(&mut self, report: &StepReport);
    /// After each epoch and its test.
    fn epoch(&mut self, line: &EpochLine, is_best: bool);
    /// Something worth a line.
    fn note(&mut self, text: &str);
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOutcome {
    /// The run's folder.
    pub out: PathBuf,
    /// The last epoch that was completed.
    pub last: Option<EpochLine>,
    /// Best test accuracy.
    pub best_accuracy: Option<f64>,
    /// Stopped on request, after saving.
    pub interrupted: bool,
    /// Wall time.
    pub seconds: f64,
}

/// Trains as `request` says until the epochs are done or `stop` is set.
pub fn train(gpu: &Gpu, request: TrainRequest, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<TrainOutcome, TrainError> {
    let started = Instant::now();
    let mut run = Run::prepare(gpu, request, observer)?;
    observer.started(&run.info(gpu));
    let mut interrupted = false;
    while run.epoch < u64::from(run.config.epochs) && !interrupted && !run.progress.stops_early(&run.config) {
        interrupted = run.train_epoch(gpu, observer, stop)?;
        if interrupted {
            run.save(gpu)?;
        } else {
            run.finish_epoch(gpu, observer)?;
        }
    }
    Ok(TrainOutcome {
        out: run.dir.path().to_path_buf(),
        last: run.last,
        best_accuracy: run.best_accuracy,
        interrupted,
        seconds: started.elapsed().as_secs_f64(),
    })
}

struct Run {
    config: TrainConfig,
    dir: RunDir,
    log: RunLog,
    metrics: MetricsLog,
    dataset: Dataset,
    fingerprint: String,
    metadata: Metadata,
    engine: TrainEngine,
    evaluator: Option<ForwardEngine>,
    resident_train: Option<ResidentImages>,
    resident_test: Option<ResidentImages>,
    /// Complete epochs.
    epoch: u64,
    /// Updates of the current epoch whose results have come back.
    step_in_epoch: u64,
    /// Updates of the run whose results have come back.
    step: u64,
    sums: RunningSums,
    best_accuracy: Option<f64>,
    progress: Progress,
    last: Option<EpochLine>,
    line_images: u64,
    line_started: Instant,
    /// How long this epoch's updates have waited for their images to be read.
    data_wait: Duration,
}

impl Run {
    fn prepare(gpu: &Gpu, request: TrainRequest, observer: &mut dyn Observer) -> Result<Self, TrainError> {
        let (mut config, resumed) = match &request.resume {
            Some(path) => {
                let dir = RunDir::open(path)?;
                (dir.read_config()?, Some(dir))
            }
            None => (request.config, None),
        };
        config.validate()?;
        let model = Model::find(&config.model)
            .ok_or_else(|| ConfigError { flag: "--model", reason: format!("names no model: {}", config.model) })?;
        let dataset = open_data(&config)?;
        dataset.notes.iter().for_each(|note| observer.note(note));
        if resumed.is_none() {
            fit_classes(&mut config, model, &dataset, observer)?;
        }
        check_channels(&config, &dataset)?;
        if request.batch_size_auto && resumed.is_none() {
            config.batch_size = fit_batch_size(gpu, &config, model, &dataset, observer)?;
        }
        let budget = gpu.target().memory_budget;
        let other_budget = resumed.is_some() && config.memory_budget != budget;
        if other_budget {
            observer.note("the memory budget is another than before: gradients may be summed in other parts, and round otherwise");
        }
        config.memory_budget = budget;
        let fingerprint = data::fingerprint(dataset.train.as_ref())?;

        let options = model_options(&config);
        let input = input_options(&config, dataset.shape());
        let checkpoint = match &resumed {
            Some(dir) => {
                let checkpoint = Checkpoint::load(&dir.state())?;
                checkpoint.require_same_run(&dir.state(), &config.hash(), &fingerprint)?;
                Some(checkpoint)
            }
            None => None,
        };
        let description = model.describe(&options).map_err(crate::models::BuildError::from)?;
        check_training(&config, &description, &dataset)?;
        let parameters: Vec<NamedTensor> = match (&checkpoint, &request.initial_weights) {
            (Some(checkpoint), _) => checkpoint.parameters.clone(),
            (None, Some(path)) => starting_parameters(path, model, &description, &config, &mut |text| observer.note(text))?,
            (None, None) => initial_parameters(&description, &config),
        };
        let mut room = Room::of(gpu);
        let resident_train = ResidentImages::upload(gpu, dataset.train.as_ref(), room)?;
        room.bytes = room.bytes.saturating_sub(resident_train.as_ref().map_or(0, ResidentImages::bytes));
        let resident_test = ResidentImages::upload(gpu, dataset.test.as_ref(), room)?;

        let tensors: Vec<&NamedTensor> = parameters.iter().collect();
        let engine = TrainEngine::new(
            gpu,
            model,
            &options,
            &input,
            training(&config),
            config.images_per_update(),
            config.batch_size,
            &tensors,
            resident_train.as_ref(),
            config.precision.compile_options(),
        )?;
        let evaluator = if dataset.test.is_empty() {
            None
        } else {
            let input = InputOptions { augment: None, ..input };
            let batch = engine.micro_batch().min(dataset.test.len());
            let switches = config.precision.compile_options();
            let resident = resident_test.as_ref();
            Some(ForwardEngine::beside(gpu, &engine, model, &options, &input, Purpose::Evaluate, batch, resident, switches)?)
        };

        let graphs = std::iter::once(engine.graph()).chain(evaluator.as_ref().map(ForwardEngine::graph));
        let problems: Vec<Problem> = graphs.flat_map(tuner::problems).map(|posed| posed.problem).collect();
        let kernels = gpu.target().choices.only(&problems);
        match &resumed {
            None => config.kernels = kernels,
            // With another budget a pass may have other convolutions, which were not measured.
            Some(_) if other_budget || config.kernels == kernels => {}
            Some(dir) => return Err(RunError::Different { path: label(dir.path()), what: "choice of kernels" }.into()),
        }

        let dir = match (resumed, &request.out) {
            (Some(dir), _) => dir,
            (None, Some(path)) => RunDir::create(path)?,
            (None, None) => RunDir::create_numbered("runs".as_ref(), &config.model)?,
        };
        if checkpoint.is_none() {
            dir.write_config(&config, &request.command)?;
        } else if let Some(checkpoint) = &checkpoint {
            engine.upload_state(gpu, &checkpoint.optimizer)?;
            if let Some(state) = checkpoint.loss_scale {
                engine.upload_loss_scale(gpu, state);
            }
        }
        let metadata = metadata(&config, &dataset);
        let (epoch, step, step_in_epoch) = checkpoint.as_ref().map_or((0, 0, 0), |c| (c.epoch, c.step, c.step_in_epoch));
        let mut log = dir.open_log()?;
        log.line(&format!("{} on {} ({})", request.command, gpu.adapter().name, gpu.adapter().driver))?;
        for (split, images) in [("training", &resident_train), ("test", &resident_test)] {
            let place = images.as_ref().map_or("uploaded step by step".into(), |images| format!("on the device, {} bytes", images.bytes()));
            log.line(&format!("{split} images: {place}"))?;
        }
        Ok(Run {
            metrics: MetricsLog::open(&dir.metrics(), step, epoch)?,
            sums: checkpoint.as_ref().map_or_else(RunningSums::default, |c| c.sums),
            best_accuracy: checkpoint.as_ref().and_then(|c| c.best_accuracy),
            progress: checkpoint.as_ref().map_or_else(Progress::default, |c| c.progress),
            last: None,
            line_images: 0,
            line_started: Instant::now(),
            data_wait: Duration::ZERO,
            config,
            dir,
            log,
            dataset,
            fingerprint,
            metadata,
            engine,
            evaluator,
            resident_train,
            resident_test,
            epoch,
            step_in_epoch,
            step,
        })
    }

    fn steps_per_epoch(&self) -> usize {
        batches_per_epoch(self.dataset.train.len(), self.config.images_per_update())
    }

    fn info(&self, gpu: &Gpu) -> RunInfo {
        RunInfo {
            out: self.dir.path().to_path_buf(),
            adapter: gpu.adapter().name.clone(),
            train_images: self.dataset.train.len(),
            test_images: self.dataset.test.len(),
            steps_per_epoch: self.steps_per_epoch(),
            epochs: self.config.epochs as usize,
            first_step: self.step,
            parameters: self.engine.graph().parameter_count(),
            batch_size: self.config.images_per_update(),
            micro_batch: self.engine.micro_batch(),
            memory_bytes: gpu.memory().bytes,
            resident_bytes: [&self.resident_train, &self.resident_test].into_iter().flatten().map(ResidentImages::bytes).sum(),
        }
    }

    /// Trains to the end of the epoch; true where `stop` came first. Every queued update has been counted then.
    fn train_epoch(&mut self, gpu: &Gpu, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<bool, TrainError> {
        let order = if self.config.shuffle { Order::Shuffled { seed: self.config.seed } } else { Order::Sequential };
        let first = self.step_in_epoch as usize;
        let size = self.config.images_per_update();
        let mut batches = epoch_batches(self.resident_train.as_ref(), &self.dataset.train, size, order, self.epoch as u32, first)?;
        let started = Instant::now();
        let seconds_before = self.sums.epoch_seconds;
        let mut interrupted = false;
        let mut results = Vec::new();
        self.line_started = Instant::now();
        self.line_images = 0;
        for number in self.step.. {
            let asked = Instant::now();
            let Some(batch) = batches.next() else { break };
            self.data_wait += asked.elapsed();
            let rate = learning_rate(&self.config, &self.progress, number, self.steps_per_epoch() as u64) as f32;
            let read_back = (number + 1).is_multiple_of(u64::from(self.config.log_every));
            self.engine.step(gpu, &batch?, number, self.epoch as u32, self.config.seed, rate, read_back, &mut results)?;
            self.take(&mut results, observer)?;
            if stop.load(Ordering::Relaxed) {
                interrupted = true;
                break;
            }
        }
        self.engine.finish(gpu, &mut results)?;
        self.take(&mut results, observer)?;
        self.sums.epoch_seconds = seconds_before + started.elapsed().as_secs_f64();
        Ok(interrupted && (self.step_in_epoch as usize) < self.steps_per_epoch())
    }

    /// Counts the updates that have come back and reports at every `log_every`-th.
    fn take(&mut self, results: &mut Vec<StepResult>, observer: &mut dyn Observer) -> Result<(), TrainError> {
        for result in results.drain(..) {
            let loss = result.loss_sum / result.images.max(1) as f64;
            if !loss.is_finite() {
                let advice = match self.config.precision {
                    config::Precision::F32 => "or --warmup-epochs 1",
                    config::Precision::Mixed => "--warmup-epochs 1, or --precision f32",
                };
                return Err(TrainError::Diverged { step: result.step + 1, loss, advice });
            }
            self.step = result.step + 1;
            self.step_in_epoch += 1;
            self.sums.epoch_loss += result.loss_sum;
            self.sums.epoch_correct += result.correct;
            self.sums.epoch_images += result.images;
            self.sums.line_loss += loss;
            self.sums.line_steps += 1;
            self.line_images += result.images;
            if self.step.is_multiple_of(u64::from(self.config.log_every)) {
                self.report(result.learning_rate.into(), observer)?;
            }
        }
        Ok(())
    }

    fn report(&mut self, lr: f64, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let loss = self.sums.line_loss / self.sums.line_steps.max(1) as f64;
        let images_per_s = self.line_images as f64 / self.line_started.elapsed().as_secs_f64().max(1e-9);
        self.metrics.step(&StepLine { step: self.step, epoch: self.epoch + 1, loss, lr, images_per_s })?;
        observer.step(&StepReport {
            epoch: self.epoch + 1,
            step_in_epoch: self.step_in_epoch,
            step: self.step,
            loss,
            accuracy: self.sums.epoch_correct as f64 / self.sums.epoch_images.max(1) as f64,
            lr,
            images_per_s,
        });
        self.sums.line_loss = 0.0;
        self.sums.line_steps = 0;
        self.line_images = 0;
        self.line_started = Instant::now();
        Ok(())
    }

    fn finish_epoch(&mut self, gpu: &Gpu, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let started = Instant::now();
        let (test_loss, test_acc) = self.test(gpu)?;
        let scaling = self.engine.download_loss_scale(gpu)?;
        let images = self.sums.epoch_images.max(1) as f64;
        let line = EpochLine {
            epoch: self.epoch + 1,
            train_loss: self.sums.epoch_loss / images,
            train_acc: self.sums.epoch_correct as f64 / images,
            test_loss,
            test_acc,
            seconds: self.sums.epoch_seconds + started.elapsed().as_secs_f64(),
            loss_scale: scaling.map(|state| state.scale.into()),
            skipped_steps: scaling.map(|state| state.skipped_steps.into()),
        };
        // Without test images the accuracy is not a number: the last epoch counts as the best.
        let is_best = test_acc.is_nan() || self.best_accuracy.is_none_or(|best| test_acc > best);
        if is_best && test_acc.is_finite() {
            self.best_accuracy = Some(test_acc);
        }
        let falls = self.progress.finish_epoch(&self.config, if test_loss.is_nan() { line.train_loss } else { test_loss }, is_best);
        self.epoch += 1;
        self.step_in_epoch = 0;
        let RunningSums { line_loss, line_steps, .. } = self.sums;
        self.sums = RunningSums { line_loss, line_steps, ..RunningSums::default() };

        self.metrics.epoch(&line)?;
        self.metrics.sync()?;
        plot::write(&self.dir.metrics(), &self.dir.curves(), self.steps_per_epoch() as u64)?;
        let parameters = self.save(gpu)?;
        if is_best {
            self.save_weights(&self.dir.best_weights(), &parameters)?;
        }
        let scaling = scaling.map_or(String::new(), |s| format!(", loss scale {}, {} steps skipped so far", s.scale, s.skipped_steps));
        self.log.line(&format!(
            "epoch {}: train loss {:.4}, train accuracy {:.4}, test loss {:.4}, test accuracy {:.4}, {:.1} s, {:.3} s of waiting for \
             images{scaling}",
            line.epoch,
            line.train_loss,
            line.train_acc,
            line.test_loss,
            line.test_acc,
            line.seconds,
            std::mem::take(&mut self.data_wait).as_secs_f64()
        ))?;
        observer.epoch(&line, is_best);
        if falls {
            observer.note(&format!("the loss has not fallen for {} epochs: the learning rate does", self.config.patience + 1));
        }
        if self.progress.stops_early(&self.config) {
            let epochs = self.progress.epochs_since_best;
            observer.note(&format!("stopped early: no better test accuracy for {epochs} epoch{}", if epochs == 1 { "" } else { "s" }));
        }
        self.last = Some(line);
        Ok(())
    }

    /// Mean loss and accuracy on the test images; not a number without any.
    fn test(&mut self, gpu: &Gpu) -> Result<(f64, f64), TrainError> {
        let Some(evaluator) = &mut self.evaluator else { return Ok((f64::NAN, f64::NAN)) };
        let batches = epoch_batches(self.resident_test.as_ref(), &self.dataset.test, evaluator.batch(), Order::Sequential, 0, 0)?;
        let results = evaluator.evaluate(gpu, batches, |_| {})?;
        let images = results.len().max(1) as f64;
        let loss = results.iter().map(|r| f64::from(r.loss)).sum::<f64>() / images;
        Ok((loss, results.iter().filter(|r| r.rank == 0).count() as f64 / images))
    }

    fn save_weights(&self, path: &Path, parameters: &[NamedTensor]) -> Result<(), TrainError> {
        Ok(weights::save_as(path, parameters, Some(&self.metadata), self.config.save_dtype.element())?)
    }

    /// Writes the checkpoint and `last.safetensors`, and returns what that holds: the parameters, or their average.
    fn save(&self, gpu: &Gpu) -> Result<Vec<NamedTensor>, TrainError> {
        let parameters = self.engine.download(gpu)?;
        let checkpoint = Checkpoint {
            step: self.step,
            epoch: self.epoch,
            step_in_epoch: self.step_in_epoch,
            parameters,
            optimizer: self.engine.download_state(gpu)?,
            loss_scale: self.engine.download_loss_scale(gpu)?,
            best_accuracy: self.best_accuracy.filter(|a| a.is_finite()),
            progress: self.progress,
            sums: self.sums,
            seed: self.config.seed,
            config_hash: self.config.hash(),
            data_fingerprint: self.fingerprint.clone(),
        };
        checkpoint.save(&self.dir.state())?;
        let average = checkpoint.optimizer.into_iter().find(|(kind, _)| kind == EMA_STATE);
        let weights = average.map_or(checkpoint.parameters, |(_, average)| average);
        self.save_weights(&self.dir.last_weights(), &weights)?;
        Ok(weights)
    }
}

fn open_data(config: &TrainConfig) -> Result<Dataset, TrainError> {
    let side = config.image_size;
    let options = data::OpenOptions {
        data_dir: config.data_dir.clone(),
        target: Some((side, side, config.in_channels)),
        limit_train: config.limit_train,
        limit_test: config.limit_test,
    };
    let dataset = data::open(&config.data, &options)?;
    if dataset.train.is_empty() {
        let reason = format!("{} holds no training images", dataset.path.display());
        return Err(ConfigError { flag: "--data", reason }.into());
    }
    Ok(dataset)
}

/// A model left at its default number of classes takes that of the data; fewer than the data has is an error.
fn fit_classes(config: &mut TrainConfig, model: &Model, dataset: &Dataset, observer: &mut dyn Observer) -> Result<(), TrainError> {
    let found = dataset.classes.len();
    if config.classes != found && config.classes == model.defaults.classes {
        observer.note(&format!("{} has {found} classes; the model gets as many", dataset.name));
        config.classes = found;
    }
    if config.classes < found {
        let reason = format!("is {}, but {} has {found} classes", config.classes, dataset.name);
        return Err(ConfigError { flag: "--classes", reason }.into());
    }
    Ok(())
}

/// The largest batch that runs in one pass on the device, no larger than the data set.
fn fit_batch_size(
    gpu: &Gpu,
    config: &TrainConfig,
    model: &Model,
    dataset: &Dataset,
    observer: &mut dyn Observer,
) -> Result<usize, TrainError> {
    let input = input_options(config, dataset.shape());
    let training = training(config);
    let (most, target) = (dataset.train.len(), gpu.remaining_target(0));
    let options = model_options(config);
    let switches = config.precision.compile_options();
    let batch = largest_batch(model, &options, &input, Purpose::Train, most, config.grad_accum, &training, &target, switches)?;
    observer
        .note(&format!("--batch-size auto: {batch} images; what is learned depends on it, so repeat this run with --batch-size {batch}"));
    Ok(batch)
}

fn check_channels(config: &TrainConfig, dataset: &Dataset) -> Result<(), TrainError> {
    let [channels, height, width] = dataset.shape();
    if channels == config.in_channels {
        return Ok(());
    }
    let reason = format!(
        "is {expected}, but images of {name} are {channels}x{height}x{width}: layer 0.0 (conv2d) expects {expected}x{side}x{side}; \
         pass --in-channels {channels}",
        expected = config.in_channels,
        name = dataset.name,
        side = config.image_size
    );
    Err(ConfigError { flag: "--in-channels", reason }.into())
}

fn metadata(config: &TrainConfig, dataset: &Dataset) -> Metadata {
    let mut classes = dataset.classes.clone();
    classes.extend((classes.len()..config.classes).map(|i| i.to_string()));
    // Data sets of bright shapes on black; anything else is taken as it comes.
    let is_on_black = dataset.shape()[0] == 1 && (dataset.name.contains("mnist") || dataset.name.contains("fashion"));
    Metadata {
        model: config.model.clone(),
        classes,
        preprocess: Preprocess {
            size: [config.image_size; 2],
            channels: config.in_channels,
            mean: config.mean.iter().map(|v| *v as f32).collect(),
            std: config.std.iter().map(|v| *v as f32).collect(),
            polarity: if is_on_black { Polarity::LightOnDark } else { Polarity::Any },
        },
        recipe: config.to_toml().ok(),
    }
}
