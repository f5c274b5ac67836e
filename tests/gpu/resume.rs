//! Runs that stop in the middle of an epoch, or lose their device at any moment.

use crate::{Device, trial};
use libtest_mimic::Trial;
use nin_wgpu::gpu::{Gpu, GpuError, OpenOptions};
use nin_wgpu::rng::Stream;
use nin_wgpu::train::TrainError;
use nin_wgpu::train::config::{Augment, Optimizer, Schedule, TrainConfig};
use nin_wgpu::train::interval::CheckpointInterval;
use nin_wgpu::train::metrics::{self, EpochLine, MetricsLine};
use nin_wgpu::train::trainer::{Observer, RunInfo, StepReport, TrainOutcome, TrainRequest, train};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    let mut trials: Vec<Trial> = SETTINGS
        .iter()
        .map(|(name, change)| {
            let change = *change;
            trial(device, format!("resume::in the middle of an epoch, {name}"), move |gpu| stops(gpu, change))
        })
        .collect();
    trials.push(trial(device, "resume::across an explosion that the run goes back from", goes_back));
    trials.push(trial(device, "resume::a device lost at any moment is an error", |_| losses()));
    trials
}

type Change = fn(&mut TrainConfig);

/// What must not make a difference; each is stopped at [`STOPS`] updates.
const SETTINGS: &[(&str, Change)] = &[
    ("sgd", |_| {}),
    ("in order", |config| (config.shuffle, config.dropout) = (false, 0.3)),
    ("gradients accumulated", |config| (config.batch_size, config.grad_accum) = (3, 3)),
    ("adam", |config| {
        (config.optimizer, config.momentum, config.nesterov, config.lr) = (Optimizer::Adam, 0.0, false, 1e-3);
    }),
    ("adam, gradients accumulated, in order", |config| {
        (config.optimizer, config.momentum, config.nesterov, config.lr) = (Optimizer::Adam, 0.0, false, 1e-3);
        (config.batch_size, config.grad_accum, config.shuffle) = (4, 2, false);
    }),
    ("augmented, momentum without Nesterov, steps", |config| {
        config.augment = Augment { flip: true, shift: 2, cutout: 4, brightness: 0.1, contrast: 0.1 };
        (config.schedule, config.step_epochs, config.warmup_epochs) = (Schedule::Step, 1, 0.0);
        (config.nesterov, config.dropout, config.seed) = (false, 0.5, 11);
    }),
    ("clipped, averaged and smoothed on a plateau", |config| {
        (config.clip_norm, config.ema, config.label_smoothing) = (Some(0.5), Some(0.9), 0.1);
        (config.schedule, config.step_gamma, config.patience, config.early_stop) = (Schedule::Plateau, 0.5, 0, Some(9));
    }),
    ("adamw in one cycle, the first block frozen", |config| {
        (config.optimizer, config.momentum, config.nesterov, config.lr) = (Optimizer::AdamW, 0.0, false, 1e-3);
        (config.schedule, config.bias_lr, config.bias_decay) = (Schedule::OneCycle, 2.0, 0.0);
        config.freeze = vec!["0".into()];
    }),
];

/// Updates after which a run is stopped: in both epochs, and where one ends.
const STOPS: [u64; 5] = [1, 2, 4, 5, 7];

fn config(change: Change) -> TrainConfig {
    let mut config = TrainConfig::defaults("nin-small").expect("a known model");
    config.data = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/fashion-mnist-mini").to_string_lossy().into_owned();
    (config.limit_train, config.limit_test) = (Some(30), Some(12));
    (config.epochs, config.batch_size, config.log_every) = (2, 8, 1);
    change(&mut config);
    config
}

fn request(config: TrainConfig, out: &Path, is_new: bool) -> TrainRequest {
    TrainRequest {
        config,
        out: is_new.then(|| out.to_path_buf()),
        resume: (!is_new).then(|| out.to_path_buf()),
        initial_weights: None,
        command: "test".into(),
        batch_size_auto: false,
        lose_device_at: Vec::new(),
        follow: nin_wgpu::train::fit::Follow::NOTHING,
        dataset: None,
    }
}

/// Good weights, and a rate that rises until nothing can hold.
fn explosive() -> TrainConfig {
    let mut config = config(|config| {
        (config.limit_train, config.limit_test, config.batch_size) = (Some(96), Some(64), 16);
        (config.epochs, config.warmup_epochs, config.lr) = (8, 8.0, 1.0);
    });
    config.initial_weights = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/nin-small-fashion.safetensors"));
    config
}

/// Raises a flag some updates behind the first return to an earlier checkpoint.
struct StopBehindReturn<'a> {
    updates: u64,
    returned_to: Option<u64>,
    stop: &'a AtomicBool,
}

impl Observer for StopBehindReturn<'_> {
    fn started(&mut self, _: &RunInfo) {}
    fn step(&mut self, report: &StepReport) {
        if self.returned_to.is_some_and(|step| report.step >= step + self.updates) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
    fn epoch(&mut self, _: &EpochLine, _: bool) {}
    fn note(&mut self, _: &str) {}
    fn went_back(&mut self, step: u64, _: u64) {
        self.returned_to.get_or_insert(step);
    }
}

/// A run that is stopped before it explodes and again behind its return is the run that nobody stops.
fn goes_back(gpu: &Gpu) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let text = |error: TrainError| error.to_string();
    let (plain, stopped) = (folder.path().join("plain"), folder.path().join("stopped"));
    let stop = AtomicBool::new(false);
    let mut observer = StopBehindReturn { updates: 1 << 40, returned_to: None, stop: &stop };
    train(gpu, request(explosive(), &plain, true), &mut observer, &stop).map_err(text)?;
    if observer.returned_to.is_none() {
        return Err("the run never went back".into());
    }
    let mut outcome = run(gpu, request(explosive(), &stopped, true), 4).map_err(text)?;
    let first = outcome.interrupted;
    for updates in [0, 3] {
        let mut observer = StopBehindReturn { updates, returned_to: None, stop: &stop };
        outcome = train(gpu, request(explosive(), &stopped, false), &mut observer, &stop).map_err(text)?;
        stop.store(false, Ordering::Relaxed);
        if updates == 0 && !(first && outcome.interrupted) {
            return Err("the run was not stopped before and behind its return".into());
        }
    }
    if outcome.interrupted {
        run(gpu, request(explosive(), &stopped, false), u64::MAX).map_err(text)?;
    }
    for file in ["last.safetensors", "best.safetensors"] {
        let read = |run: &Path| fs::read(run.join(file)).map_err(|e| format!("{file}: {e}"));
        if read(&stopped)? != read(&plain)? {
            return Err(format!("{file} differs"));
        }
    }
    // All but the times.
    let lines = |run: &Path| -> Result<Vec<MetricsLine>, String> {
        let mut lines = metrics::read(&run.join("metrics.jsonl")).map_err(|error| error.to_string())?;
        for line in &mut lines {
            match line {
                MetricsLine::Step(line) => line.images_per_s = 0.0,
                MetricsLine::Epoch(line) => line.seconds = 0.0,
            }
        }
        Ok(lines)
    };
    if lines(&stopped)? == lines(&plain)? { Ok(()) } else { Err("metrics.jsonl differs".into()) }
}

/// Raises a flag after an update.
struct StopAfter<'a> {
    updates: u64,
    stop: &'a AtomicBool,
}

impl Observer for StopAfter<'_> {
    fn started(&mut self, _: &RunInfo) {}
    fn step(&mut self, report: &StepReport) {
        if report.step >= self.updates {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
    fn epoch(&mut self, _: &EpochLine, _: bool) {}
    fn note(&mut self, _: &str) {}
}

fn run(gpu: &Gpu, request: TrainRequest, updates: u64) -> Result<TrainOutcome, TrainError> {
    let stop = AtomicBool::new(false);
    train(gpu, request, &mut StopAfter { updates, stop: &stop }, &stop)
}

fn stops(gpu: &Gpu, change: Change) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let text = |error: TrainError| error.to_string();
    let plain = folder.path().join("plain");
    run(gpu, request(config(change), &plain, true), u64::MAX).map_err(text)?;
    let read = |run: &Path, file: &str| fs::read(run.join(file)).map_err(|e| format!("{file}: {e}"));
    for updates in STOPS {
        let out = folder.path().join(format!("stopped-{updates}"));
        let mut outcome = run(gpu, request(config(change), &out, true), updates).map_err(text)?;
        if !outcome.interrupted {
            return Err(format!("not interrupted after {updates} updates"));
        }
        // Once more, now with checkpoints in between.
        let mut again = config(change);
        again.checkpoint_every = CheckpointInterval::Updates(2);
        outcome = run(gpu, request(again, &out, false), updates + 2).map_err(text)?;
        if outcome.interrupted {
            outcome = run(gpu, request(config(change), &out, false), u64::MAX).map_err(text)?;
        }
        if outcome.interrupted {
            return Err("interrupted by nobody".into());
        }
        for file in ["last.safetensors", "best.safetensors"] {
            if read(&out, file)? != read(&plain, file)? {
                return Err(format!("stopped after {updates} updates: {file} differs"));
            }
        }
    }
    Ok(())
}

/// Whatever was under way, the run ends with the error of a lost device, without a panic, and its checkpoint is whole.
fn losses() -> Result<(), String> {
    let mut rng = Stream::new(3, 0, 0, 0);
    let mut lost = 0;
    for attempt in 0..8 {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let out = folder.path().join("run");
        let gpu = Gpu::open(&OpenOptions::default()).map_err(|e| e.to_string())?;
        let pause = Duration::from_millis(rng.below(900).into());
        let mut config = config(|_| {});
        config.checkpoint_every = CheckpointInterval::Updates(1);
        let ended = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(pause);
                gpu.lose();
            });
            run(&gpu, request(config.clone(), &out, true), u64::MAX)
        });
        match ended {
            Ok(_) => continue,
            Err(TrainError::Gpu(GpuError::DeviceLost(_))) => lost += 1,
            Err(error) => return Err(format!("attempt {attempt}, lost after {pause:?}: {error}")),
        }
        drop(gpu);
        if out.join("metrics.jsonl").exists() {
            let gpu = Gpu::open(&OpenOptions::default()).map_err(|e| e.to_string())?;
            run(&gpu, request(config, &out, false), u64::MAX).map_err(|error| format!("going on: {error}"))?;
        }
    }
    if lost == 0 { Err("no device was lost before its run was over".into()) } else { Ok(()) }
}
