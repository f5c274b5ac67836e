//! A training run from its configuration to its weights.

use super::checkpoint::{Checkpoint, RunningSums};
use super::config::{self, ConfigError, TrainConfig};
use super::engine::{ForwardEngine, StepResult, TrainEngine};
use super::fit::{self, Follow};
use super::init::initial_parameters;
use super::metrics::{EpochLine, MetricsLog, StepLine};
use super::plot;
use super::resident::{ResidentImages, Room, epoch_batches};
use super::run_dir::{RunDir, RunLog};
use super::schedule::learning_rate;
use super::{RunError, TrainError};
use crate::data::framing::Polarity;
use crate::data::{self, Dataset, Order, batches_per_epoch};
use crate::gpu::{Gpu, tuner};
use crate::kernels::Problem;
use crate::models::{InputOptions, Model, ModelOptions, Purpose, largest_batch};
use crate::ops::{Augment, Optimizer};
use crate::passes::CompileOptions;
use crate::weights::{self, Metadata, NamedTensor, Preprocess, label};
use std::path::PathBuf;
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
    /// What of a new run's configuration follows the pictures of a folder.
    pub follow: Follow,
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
    while run.epoch < u64::from(run.config.epochs) && !interrupted {
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
    last: Option<EpochLine>,
    line_images: u64,
    line_started: Instant,
    /// How long this epoch's updates have waited for their images to be read.
    data_wait: Duration,
    /// Pictures reported as unreadable.
    unreadable: usize,
}

/// Unreadable pictures that are named outside of the log.
const UNREADABLE_NAMED: usize = 5;

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
        let follow = if resumed.is_none() { request.follow } else { Follow::NOTHING };
        let dataset = fit::open_data(&config, follow)?;
        dataset.notes.iter().for_each(|note| observer.note(note));
        if resumed.is_none() {
            fit::fit_classes(&mut config, model, &dataset, observer)?;
            fit::fit_pictures(&mut config, follow, &dataset, observer)?;
        }
        fit::check_channels(&config, &dataset)?;
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
        let parameters: Vec<NamedTensor> = match (&checkpoint, &request.initial_weights) {
            (Some(checkpoint), _) => checkpoint.parameters.clone(),
            (None, Some(path)) => {
                let file = weights::load(path)?;
                file.match_parameters(&expected_tensors(&description))?.into_iter().cloned().collect()
            }
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
            optimizer(&config),
            config.images_per_update(),
            config.batch_size,
            &tensors,
            resident_train.as_ref(),
            CompileOptions::from_env(),
        )?;
        let evaluator = if dataset.test.is_empty() {
            None
        } else {
            let input = InputOptions { augment: None, ..input };
            let batch = engine.micro_batch().min(dataset.test.len());
            let switches = CompileOptions::from_env();
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
            last: None,
            line_images: 0,
            line_started: Instant::now(),
            data_wait: Duration::ZERO,
            unreadable: 0,
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
            self.report_unreadable(observer)?;
            let rate = learning_rate(&self.config, number, self.steps_per_epoch() as u64) as f32;
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

    /// Writes pictures that turned out to be unreadable to the log, and the first of them to the observer.
    fn report_unreadable(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let Some(unreadable) = &self.dataset.unreadable else { return Ok(()) };
        for picture in unreadable.take_new() {
            self.unreadable += 1;
            self.log.line(&format!("left aside: {}", picture.reason))?;
            match self.unreadable {
                ..=UNREADABLE_NAMED => observer.note(&format!("left aside: {}", picture.reason)),
                count if count == UNREADABLE_NAMED + 1 => observer.note("further pictures that cannot be read are listed in train.log"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Counts the updates that have come back and reports at every `log_every`-th.
    fn take(&mut self, results: &mut Vec<StepResult>, observer: &mut dyn Observer) -> Result<(), TrainError> {
        for result in results.drain(..) {
            let loss = result.loss_sum / result.images.max(1) as f64;
            if !loss.is_finite() {
                return Err(TrainError::Diverged { step: result.step + 1, loss });
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
        let (test_loss, test_acc) = self.test(gpu, observer)?;
        let images = self.sums.epoch_images.max(1) as f64;
        let line = EpochLine {
            epoch: self.epoch + 1,
            train_loss: self.sums.epoch_loss / images,
            train_acc: self.sums.epoch_correct as f64 / images,
            test_loss,
            test_acc,
            seconds: self.sums.epoch_seconds + started.elapsed().as_secs_f64(),
        };
        // Without test images the accuracy is not a number: the last epoch counts as the best.
        let is_best = test_acc.is_nan() || self.best_accuracy.is_none_or(|best| test_acc > best);
        if is_best && test_acc.is_finite() {
            self.best_accuracy = Some(test_acc);
        }
        self.epoch += 1;
        self.step_in_epoch = 0;
        let RunningSums { line_loss, line_steps, .. } = self.sums;
        self.sums = RunningSums { line_loss, line_steps, ..RunningSums::default() };

        self.metrics.epoch(&line)?;
        self.metrics.sync()?;
        plot::write(&self.dir.metrics(), &self.dir.curves(), self.steps_per_epoch() as u64)?;
        let parameters = self.save(gpu)?;
        if is_best {
            weights::save(&self.dir.best_weights(), &parameters, Some(&self.metadata))?;
        }
        self.log.line(&format!(
            "epoch {}: train loss {:.4}, train accuracy {:.4}, test loss {:.4}, test accuracy {:.4}, {:.1} s, {:.3} s of waiting for images",
            line.epoch,
            line.train_loss,
            line.train_acc,
            line.test_loss,
            line.test_acc,
            line.seconds,
            std::mem::take(&mut self.data_wait).as_secs_f64()
        ))?;
        observer.epoch(&line, is_best);
        self.last = Some(line);
        Ok(())
    }

    /// Mean loss and accuracy on the test images; not a number without any.
    fn test(&mut self, gpu: &Gpu, observer: &mut dyn Observer) -> Result<(f64, f64), TrainError> {
        let Some(evaluator) = &mut self.evaluator else { return Ok((f64::NAN, f64::NAN)) };
        let batches = epoch_batches(self.resident_test.as_ref(), &self.dataset.test, evaluator.batch(), Order::Sequential, 0, 0)?;
        let results = evaluator.evaluate(gpu, batches, |_| {});
        self.report_unreadable(observer)?;
        let results = results?;
        let images = results.len().max(1) as f64;
        let loss = results.iter().map(|r| f64::from(r.loss)).sum::<f64>() / images;
        Ok((loss, results.iter().filter(|r| r.rank == 0).count() as f64 / images))
    }

    /// Writes the checkpoint and `last.safetensors`, and returns the parameters.
    fn save(&self, gpu: &Gpu) -> Result<Vec<NamedTensor>, TrainError> {
        let parameters = self.engine.download(gpu)?;
        let checkpoint = Checkpoint {
            step: self.step,
            epoch: self.epoch,
            step_in_epoch: self.step_in_epoch,
            parameters,
            optimizer: self.engine.download_state(gpu)?,
            best_accuracy: self.best_accuracy.filter(|a| a.is_finite()),
            sums: self.sums,
            seed: self.config.seed,
            config_hash: self.config.hash(),
            data_fingerprint: self.fingerprint.clone(),
        };
        checkpoint.save(&self.dir.state())?;
        weights::save(&self.dir.last_weights(), &checkpoint.parameters, Some(&self.metadata))?;
        Ok(checkpoint.parameters)
    }
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
    let state_buffers = optimizer(config).state_buffers().len();
    let (most, target) = (dataset.train.len(), gpu.remaining_target(0));
    let options = model_options(config);
    let batch = largest_batch(model, &options, &input, Purpose::Train, most, config.grad_accum, state_buffers, &target)?;
    observer
        .note(&format!("--batch-size auto: {batch} images; what is learned depends on it, so repeat this run with --batch-size {batch}"));
    Ok(batch)
}

/// What the model is adapted to.
pub fn model_options(config: &TrainConfig) -> ModelOptions {
    ModelOptions {
        classes: config.classes,
        in_channels: config.in_channels,
        image_size: [config.image_size; 2],
        dropout: config.dropout as f32,
    }
}

pub(super) fn input_options(config: &TrainConfig, source: [usize; 3]) -> InputOptions {
    let config::Augment { flip, shift } = config.augment;
    InputOptions {
        source,
        resident: None,
        mean: config.mean.iter().map(|v| *v as f32).collect(),
        std: config.std.iter().map(|v| *v as f32).collect(),
        augment: (flip || shift > 0).then_some(Augment { flip, shift }),
    }
}

/// The update rule of a configuration.
pub fn optimizer(config: &TrainConfig) -> Optimizer {
    let weight_decay = config.weight_decay;
    match config.optimizer {
        config::Optimizer::Sgd => Optimizer::Sgd { momentum: config.momentum, nesterov: config.nesterov, weight_decay },
        config::Optimizer::Adam => Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay },
    }
}

/// Names and shapes of a model's tensors, in the order of its weight file.
pub(super) fn expected_tensors(graph: &crate::graph::Graph) -> Vec<(String, Vec<usize>)> {
    graph.parameters.iter().map(|p| (p.name.clone(), graph.fact(p.value).shape.0.clone())).collect()
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
