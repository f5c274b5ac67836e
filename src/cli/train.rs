//! `nin-wgpu train`: trains a model, or goes on with a run.

use super::context::{Context, OpenedGpu};
use super::dashboard::Dashboard;
use super::error::{Exit, Failure};
use super::format;
use super::interrupt;
use super::memory_args::BatchSize;
use super::progress::Progress;
use super::report;
use super::train_args::Args;
use super::trust::trusted;
use super::tuning::{Level, TuneArgs, Workload};
use crate::errors::{label, one_line};
use crate::gpu::GpuError;
use crate::models::{Model, Purpose};
use crate::train::TrainError;
use crate::train::recovery;
use crate::train::run_dir::RunDir;
use crate::train::trainer::{TrainOutcome, TrainRequest, model_options, training};
use crate::variables;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Trains to the end, or until Ctrl-C, and says where the weights are.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    if args.tui {
        Dashboard::check(context)?;
    }
    let mut request = request(args)?;
    let mut gpu = open_gpu(args, &request, context)?;
    request.config.precision = trusted(&mut gpu, request.config.precision, request.resume.is_some(), context)?.precision;
    let stop = interrupt::watch(context.is_quiet())?;
    let reopen = |folder: &Path| {
        let config = RunDir::open(folder)?.read_config()?;
        let mut gpu = context.reopen_gpu(config.memory_budget, false)?;
        trusted(&mut gpu, config.precision, true, context)?;
        gpu.use_choices(config.kernels);
        Ok::<_, Failure>(gpu)
    };
    let trained = if args.tui {
        let title = format!("{} on {}", request.config.model, request.config.data);
        let mut dashboard = Dashboard::start(context, title, Arc::clone(&stop))?;
        let trained = recovery::train(gpu, request, &mut dashboard, &stop, reopen);
        dashboard.finish();
        trained
    } else {
        let mut progress = Progress::new(context);
        let trained = recovery::train(gpu, request, &mut progress, &stop, reopen);
        progress.finish();
        trained
    };
    let (mut outcome, gpu) = trained?;
    if outcome.interrupted {
        let folder = format::shell_word(&label(&outcome.out));
        context.note(&format!("interrupted; everything is saved. Go on with: nin-wgpu train --resume {folder}"));
        return Ok(Exit::Interrupted);
    }
    let report = if args.no_report { None } else { report_on(&mut outcome, &gpu, context) };
    context.print(&closing(&outcome, report.as_deref()))?;
    Ok(Exit::Done)
}

/// Writes the report of a run that has trained. The run is whole without one, so a failure is only said.
fn report_on(outcome: &mut TrainOutcome, gpu: &OpenedGpu<'_>, context: &Context) -> Option<PathBuf> {
    outcome.last.as_ref()?;
    let known = outcome.best_predictions.take();
    let dir = RunDir::open(&outcome.out).map_err(TrainError::from);
    match dir.and_then(|dir| report::make(&dir, known, gpu, context)) {
        Ok(path) => Some(path),
        Err(error) => {
            context.note(&format!("warning: the run is saved, but has no report: {}", one_line(&error.to_string(), 1000)));
            None
        }
    }
}

/// The device with its choice of kernels: that of the run to resume, or that of the flags.
fn open_gpu<'a>(args: &Args, request: &TrainRequest, context: &'a Context) -> Result<OpenedGpu<'a>, Failure> {
    let config = &request.config;
    let budget = config.memory_budget;
    if request.resume.is_some() {
        let mut gpu = context.open_gpu_within(budget)?;
        gpu.use_choices(config.kernels.clone());
        return Ok(gpu);
    }
    let Some(model) = Model::find(&config.model) else { return context.open_gpu_within(budget) };
    let tune = TuneArgs { is_unsettled: request.batch_size_auto, ..args.tune };
    tune.open_gpu(context, budget, false, |_| {
        let (batch, max_pass) = (config.images_per_update(), config.batch_size);
        Ok(Workload {
            model,
            options: model_options(config),
            purpose: Purpose::Train,
            batch,
            max_pass,
            training: training(config),
            precision: config.precision,
        })
    })
}

fn request(args: &Args) -> Result<TrainRequest, Failure> {
    let budget = args.memory.budget()?;
    let mut config = match &args.resume {
        Some(folder) => {
            let saved = RunDir::open(folder)?.read_config()?;
            args.check_resumed(&saved)?;
            let mut config = saved;
            args.apply_resumable(&mut config);
            config
        }
        None => args.resolve()?,
    };
    config.memory_budget = budget.or(config.memory_budget);
    let batch_size_auto = args.batch_size == Some(BatchSize::Auto) && args.resume.is_none();
    if batch_size_auto && matches!(args.tune.tune, Some(Level::Quick | Level::Full)) {
        return Err(Failure::Usage(
            "--batch-size auto and --tune: what is measured holds for one batch size; give a number, or leave --tune out".into(),
        ));
    }
    let initial_weights = config.initial_weights.clone().filter(|_| args.resume.is_none());
    Ok(TrainRequest {
        config,
        out: args.out.clone().filter(|_| args.resume.is_none()),
        resume: args.resume.clone(),
        initial_weights,
        command: command(),
        batch_size_auto,
        lose_device_at: lose_device_at()?,
        follow: args.follows_pictures(),
        dataset: None,
    })
}

/// The updates that `NIN_WGPU_LOSE_DEVICE_AT` lists.
fn lose_device_at() -> Result<Vec<u64>, GpuError> {
    let value = variables::LOSE_DEVICE_AT.checked()?.unwrap_or_default();
    Ok(value.split(',').filter_map(|number| number.trim().parse().ok()).collect())
}

/// The command as typed, for the run's folder.
fn command() -> String {
    let words = std::env::args_os().skip(1).map(|word| format::shell_word(&word.to_string_lossy()));
    std::iter::once("nin-wgpu".to_string()).chain(words).collect::<Vec<_>>().join(" ")
}

/// What a finished run came to, and how to use it.
fn closing(outcome: &TrainOutcome, report: Option<&Path>) -> String {
    // A finished run that is resumed trains no epoch.
    let is_measured = outcome.best_accuracy.is_some();
    let mut lines = Vec::new();
    if let Some(line) = &outcome.last {
        lines.push(("train accuracy", format::percent(line.train_acc)));
        if is_measured {
            let best = outcome.best_accuracy.map_or(String::new(), |best| format!(" (best {})", format::percent(best)));
            lines.push(("test accuracy", format!("{}{best}", format::percent(line.test_acc))));
        }
    } else if let Some(best) = outcome.best_accuracy {
        lines.push(("test accuracy", format!("best {}", format::percent(best))));
    }
    let weights = outcome.out.join(if is_measured { "best.safetensors" } else { "last.safetensors" });
    lines.push(("time", format::duration(outcome.seconds)));
    lines.push(("folder", label(&outcome.out)));
    lines.extend(report.map(|path| ("report", label(path))));
    lines.push(("use it with", format!("nin-wgpu infer --weights {} IMAGE...", format::shell_word(&label(&weights)))));
    lines.iter().map(|(name, value)| format!("{name:<15} {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::metrics::EpochLine;

    fn outcome(test_acc: f64) -> TrainOutcome {
        let last = EpochLine { epoch: 2, train_loss: 0.5, train_acc: 0.75, test_loss: 0.5, test_acc, seconds: 3.0, ..Default::default() };
        TrainOutcome {
            out: "runs/nin-1".into(),
            last: Some(last),
            best_accuracy: test_acc.is_finite().then_some(0.9),
            interrupted: false,
            seconds: 6.0,
            best_predictions: None,
        }
    }

    #[test]
    fn closing_says_what_came_of_it_and_how_to_use_it() {
        let text = closing(&outcome(0.8831), Some(Path::new("runs/nin-1/report.html")));
        assert!(text.contains("test accuracy   88.31 % (best 90.00 %)\n"), "{text}");
        assert!(text.contains("best.safetensors IMAGE...\n"), "{text}");
        assert!(text.contains("report          runs/nin-1/report.html\n"), "{text}");
        let unmeasured = closing(&outcome(f64::NAN), None);
        assert!(!unmeasured.contains("test accuracy") && unmeasured.contains("last.safetensors"), "{unmeasured}");
        let resumed = closing(&TrainOutcome { last: None, ..outcome(0.8831) }, None);
        assert!(resumed.contains("test accuracy   best 90.00 %\n") && resumed.contains("best.safetensors IMAGE...\n"), "{resumed}");
    }

    #[test]
    fn a_folder_without_a_run_is_a_usage_error() {
        let folder = tempfile::tempdir().unwrap();
        let args = Args { resume: Some(folder.path().to_path_buf()), ..Args::default() };
        assert_eq!(request(&args).err().map(|failure| failure.code()), Some(2));
    }
}
