//! A training run from its configuration to its weights.

use super::checkpoint::{Checkpoint, RunningSums};
use super::config::{ConfigError, TrainConfig};
use super::divergence::CollapseWatch;
use super::engine::{ForwardEngine, TrainEngine};
use super::fine_tune::starting_parameters;
use super::fit::{self, Follow};
use super::init::initial_parameters;
use super::interval::CheckpointInterval;
use super::metrics::{EpochLine, MetricsLog};
use super::predict::Prediction;
use super::progress::Progress;
use super::resident::{DeviceInput, ResidentImages, Room};
use super::run_dir::{RunDir, RunLog};
use super::run_lock::RunLock;
use super::sessions::Session;
use super::settings::{check_training, expected_tensors, input_options};
pub use super::settings::{model_options, training};
use super::whitening::{self, DeviceWhitening};
use super::{RunError, TrainError};
use crate::data::appearance::Appearance;
use crate::data::{self, DataError, Dataset, batches_per_epoch};
use crate::gpu::{Gpu, tuner};
use crate::kernels::Problem;
use crate::models::{InputOptions, Model, Purpose, largest_batch};

use crate::errors::label;
use crate::weights::{Metadata, NamedTensor, Preprocess, Whitening};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

mod diagnosis;
mod epochs;
mod going_back;
mod resume;
mod saving;

use saving::Saver;

/// What to train.
#[derive(Clone, Debug)]
pub struct TrainRequest {
    /// The settings; with `resume` those of the run's folder are used instead, but for when and what to save.
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
    /// The device is given up before these updates, counted from 0, one time for each: to see how a run goes on.
    pub lose_device_at: Vec<u64>,
    /// What of a new run's configuration follows the pictures of a folder.
    pub follow: Follow,
    /// Images to train on instead of those that the configuration names.
    pub dataset: Option<Dataset>,
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
    /// The run goes on from an earlier checkpoint, after `step` updates and `epoch` whole epochs; what came later comes anew.
    fn went_back(&mut self, _step: u64, _epoch: u64) {}
}

/// Who does not.
impl Observer for () {
    fn started(&mut self, _: &RunInfo) {}
    fn step(&mut self, _: &StepReport) {}
    fn epoch(&mut self, _: &EpochLine, _: bool) {}
    fn note(&mut self, _: &str) {}
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
    /// What `best.safetensors` says of the test images, where this session wrote it.
    pub best_predictions: Option<Vec<Prediction>>,
}

/// Trains as `request` says until the epochs are done or `stop` is set.
pub fn train(gpu: &Gpu, request: TrainRequest, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<TrainOutcome, TrainError> {
    attempt(gpu, request, observer, stop, &mut Attempt::default())
}

/// What is left of a run that has ended with an error.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    /// Its folder, if it has one.
    pub out: Option<PathBuf>,
    /// Updates of its last checkpoint.
    pub saved_step: Option<u64>,
    /// What is left of [`TrainRequest::lose_device_at`].
    pub lose_device_at: Vec<u64>,
}

/// As [`train`]; what is known of the run is in `known` when it fails.
pub(super) fn attempt(
    gpu: &Gpu,
    request: TrainRequest,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
    known: &mut Attempt,
) -> Result<TrainOutcome, TrainError> {
    let started = Instant::now();
    let mut run = Run::prepare(gpu, request, observer)?;
    (known.out, known.saved_step) = (Some(run.dir.path().to_path_buf()), Some(run.saver.saved_step));
    observer.started(&run.info(gpu));
    let ended = loop {
        match run.train(gpu, observer, stop) {
            Err(TrainError::Diverged(divergence)) => match run.go_back(gpu, &divergence, observer) {
                Ok(true) => {}
                Ok(false) => break Err(TrainError::Diverged(divergence)),
                Err(error) => break Err(error),
            },
            other => break other,
        }
    };
    (known.saved_step, known.lose_device_at) = (Some(run.saver.saved_step), std::mem::take(&mut run.lose_device_at));
    let interrupted = ended.map_err(|error| run.diagnose(gpu, error, observer, stop))?;
    Ok(TrainOutcome {
        out: run.dir.path().to_path_buf(),
        last: run.last,
        best_accuracy: run.best_accuracy,
        interrupted,
        seconds: started.elapsed().as_secs_f64(),
        best_predictions: run.best_predictions,
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
    whitening: Option<DeviceWhitening>,
    /// Complete epochs.
    epoch: u64,
    /// Updates of the current epoch whose results have come back.
    step_in_epoch: u64,
    /// Updates of the run whose results have come back.
    step: u64,
    sums: RunningSums,
    best_accuracy: Option<f64>,
    best_loss: Option<f64>,
    progress: Progress,
    last: Option<EpochLine>,
    best_predictions: Option<Vec<Prediction>>,
    line_images: u64,
    line_started: Instant,
    /// How long this epoch's updates have waited for their images to be read.
    data_wait: Duration,
    saver: Saver,
    collapse: CollapseWatch,
    lose_device_at: Vec<u64>,
    /// Pictures reported as unreadable.
    unreadable: usize,
    /// No other process writes to the folder while this lives. Dropped last: the others may still have files open.
    _lock: Option<RunLock>,
}

impl Run {
    fn prepare(gpu: &Gpu, request: TrainRequest, observer: &mut dyn Observer) -> Result<Self, TrainError> {
        let (mut config, resumed) = match &request.resume {
            Some(path) => {
                let dir = RunDir::open(path)?;
                let lock = lock(&dir, observer)?;
                (resume::configuration(&dir, request.config)?, Some((dir, lock)))
            }
            None => (request.config, None),
        };
        config.validate()?;
        let (resumed, lock_of_resumed) = resumed.unzip();
        let model = Model::find(&config.model)
            .ok_or_else(|| ConfigError { flag: "--model", reason: format!("names no model: {}", config.model) })?;
        let follow = if resumed.is_none() { request.follow } else { Follow::NOTHING };
        let dataset = match request.dataset {
            Some(dataset) => fit::require_images(dataset)?,
            None => {
                let dataset = fit::open_data(&config, follow)?;
                resume::keep_places(&mut config)?;
                dataset
            }
        };
        dataset.notes.iter().for_each(|note| observer.note(note));
        if resumed.is_none() {
            fit::fit_classes(&mut config, model, &dataset, observer)?;
            fit::fit_pictures(&mut config, follow, &dataset, observer)?;
        }
        fit::check_channels(&config, &dataset)?;
        // The pictures may have changed the number of channels.
        config.validate()?;
        if request.batch_size_auto && resumed.is_none() {
            config.batch_size = fit_batch_size(gpu, &config, model, &dataset, observer)?;
        }
        let may_start_again = resumed.is_none() && follow.rate && dataset.unreadable.is_some();
        if resumed.is_none() {
            fit::fit_batch(&mut config, dataset.train.len(), observer);
            if dataset.unreadable.is_some() {
                fit::fit_few_updates(&mut config, follow, dataset.train.len(), observer);
            }
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
                let loaded = Checkpoint::load(&dir.state());
                // Killed before its first step: it begins now.
                let is_new = matches!(loaded, Err(RunError::NoCheckpoint { .. })) && !dir.has_begun();
                let checkpoint = if is_new { None } else { Some(loaded?) };
                if let Some(checkpoint) = &checkpoint {
                    checkpoint.require_same_run(&dir.state(), &config.hash(), &fingerprint)?;
                    resume::require_epochs(dir, &config, checkpoint.epoch)?;
                }
                checkpoint
            }
            None => None,
        };
        let description = model.describe(&options).map_err(crate::models::BuildError::from)?;
        if let (Some(checkpoint), Some(dir)) = (&checkpoint, &resumed) {
            checkpoint.require_tensors(&dir.state(), &expected_tensors(&description), &training(&config).state_names())?;
        }
        check_training(&config, &description, &dataset)?;
        let initial_weights = request.initial_weights.as_ref().or(config.initial_weights.as_ref());
        let parameters: Vec<NamedTensor> = match (&checkpoint, initial_weights) {
            (Some(checkpoint), _) => checkpoint.parameters.clone(),
            (None, Some(path)) => starting_parameters(path, model, &description, &config, &mut |text| observer.note(text))?,
            (None, None) => initial_parameters(&description, &config),
        };
        let resumed_from = resumed.as_ref().zip(checkpoint.as_ref());
        let whitening = whitening::of_run(&config, dataset.train.as_ref(), resumed_from, initial_weights.map(PathBuf::as_path), observer)?;
        let device_whitening = whitening.as_ref().map(|whitening| DeviceWhitening::upload(gpu, whitening)).transpose()?;
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
            DeviceInput { images: resident_train.as_ref(), whitening: device_whitening.as_ref() },
            config.precision.compile_options(),
        )?;
        let evaluator = if dataset.test.is_empty() {
            None
        } else {
            let input = InputOptions { augment: None, ..input };
            let batch = engine.micro_batch().min(dataset.test.len());
            let switches = config.precision.compile_options();
            let on_device = DeviceInput { images: resident_test.as_ref(), whitening: device_whitening.as_ref() };
            Some(ForwardEngine::beside(gpu, &engine, model, &options, &input, Purpose::Evaluate, batch, on_device, switches)?)
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

        let (dir, lock) = match (resumed.zip(lock_of_resumed), &request.out) {
            (Some((dir, lock)), _) => {
                resume::update_places(&dir, &config)?;
                (dir, lock)
            }
            (None, out) => {
                let dir = match out {
                    Some(path) => RunDir::create(path)?,
                    None => RunDir::create_numbered("runs".as_ref(), &config.model)?,
                };
                let lock = lock(&dir, observer)?;
                // Another process may have begun a run there in the meantime, and ended it.
                if dir.config().exists() {
                    return Err(RunError::Occupied { path: label(dir.path()) }.into());
                }
                dir.write_config(&config, &request.command)?;
                (dir, lock)
            }
        };
        if let Some(whitening) = whitening.as_ref().filter(|_| checkpoint.is_none()) {
            whitening.save(&dir.whitening())?;
        }
        match &checkpoint {
            Some(checkpoint) => {
                engine.upload_state(gpu, &checkpoint.optimizer)?;
                if let Some(state) = checkpoint.loss_scale {
                    engine.upload_loss_scale(gpu, state);
                }
            }
            None => {
                let (state, scale) = (engine.download_state(gpu)?, engine.download_loss_scale(gpu)?);
                let first = Checkpoint::first(&config, &fingerprint, parameters, state, scale);
                let first = Checkpoint { whitening: whitening.as_ref().map(|whitening| whitening.sha256().into()), ..first };
                if may_start_again {
                    first.save(&dir.best_state())?;
                }
                first.save(&dir.state())?;
            }
        }
        let metadata = metadata(&config, &dataset, whitening.as_ref())?;
        let (epoch, step, step_in_epoch) = checkpoint.as_ref().map_or((0, 0, 0), |c| (c.epoch, c.step, c.step_in_epoch));
        Session::starting(&request.command, step, gpu.adapter()).append(&dir.sessions())?;
        let steps_per_epoch = batches_per_epoch(dataset.train.len(), config.images_per_update()) as u64;
        let mut log = dir.open_log()?;
        log.line(&format!("{} on {} ({})", request.command, gpu.adapter().name, gpu.adapter().driver))?;
        for (split, images) in [("training", &resident_train), ("test", &resident_test)] {
            let place = images.as_ref().map_or("uploaded step by step".into(), |images| format!("on the device, {} bytes", images.bytes()));
            log.line(&format!("{split} images: {place}"))?;
        }
        Ok(Run {
            metrics: MetricsLog::open(&dir.metrics(), step, epoch, steps_per_epoch)?,
            sums: checkpoint.as_ref().map_or_else(RunningSums::default, |c| c.sums),
            best_accuracy: checkpoint.as_ref().and_then(|c| c.best_accuracy),
            best_loss: checkpoint.as_ref().and_then(|c| c.best_loss),
            progress: checkpoint.as_ref().map_or_else(Progress::default, |c| c.progress),
            last: None,
            best_predictions: None,
            line_images: 0,
            line_started: Instant::now(),
            data_wait: Duration::ZERO,
            saver: Saver::new(config.checkpoint_every, step),
            collapse: CollapseWatch::new(config.classes),
            lose_device_at: request.lose_device_at,
            unreadable: 0,
            config,
            _lock: lock,
            dir,
            log,
            dataset,
            fingerprint,
            metadata,
            engine,
            evaluator,
            resident_train,
            resident_test,
            whitening: device_whitening,
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
}

/// Takes the right to train in a folder.
fn lock(dir: &RunDir, observer: &mut dyn Observer) -> Result<Option<RunLock>, RunError> {
    let lock = dir.lock()?;
    if lock.is_none() {
        observer.note(&format!("{}: this file system has no locks; start no second process on this run", label(dir.path())));
    }
    Ok(lock)
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

fn metadata(config: &TrainConfig, dataset: &Dataset, whitening: Option<&Whitening>) -> Result<Metadata, DataError> {
    let mut classes = dataset.classes.clone();
    classes.extend((classes.len()..config.classes).map(|i| i.to_string()));
    let Appearance { polarity, fill } = Appearance::of(dataset.train.as_ref())?;
    Ok(Metadata {
        model: config.model.clone(),
        classes,
        preprocess: Preprocess {
            size: [config.image_size; 2],
            channels: config.in_channels,
            mean: config.mean.iter().map(|v| *v as f32).collect(),
            std: config.std.iter().map(|v| *v as f32).collect(),
            polarity,
            fill: Some(fill).filter(|fill| *fill < 1.0),
            whitening: whitening.map(whitening::note),
        },
        recipe: recipe(config, dataset).to_toml().ok(),
    })
}

/// What a run learns by: without how often it saves itself, and without where its files lie on this machine.
fn recipe(config: &TrainConfig, dataset: &Dataset) -> TrainConfig {
    TrainConfig {
        checkpoint_every: CheckpointInterval::DEFAULT,
        keep: 0,
        data: dataset.name.clone(),
        data_dir: None,
        initial_weights: config.initial_weights.as_ref().and_then(|path| path.file_name()).map(PathBuf::from),
        ..config.clone()
    }
}
