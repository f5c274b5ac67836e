//! `nin-wgpu bench`: how fast a model trains and infers on the adapter.

use super::bench_kernels::{self, KernelArgs};
use super::bench_report::{Report, text};
use super::compute_args::ComputeArgs;
use super::context::Context;
use super::error::{Exit, Failure};
use super::memory_args::BatchSize;
use super::model_args::{AdaptArgs, count, model};
use super::table::{Align, Table};
use super::trust::{Trusted, leave_out_wrong_units, trusted};
use super::tuning::Workload;
use crate::errors::label;
use crate::gpu::{Gpu, roofline};
use crate::models::{Model, Purpose};
use crate::train::bench::{BenchRequest, FirstRun, Mode, Spread, Steps, bench, first_runs, largest_batch_of};
use crate::train::config::TrainConfig;
use crate::train::plot::{SweepPoint, write_sweep};
use crate::train::trainer::{model_options, training};
use clap::ValueEnum;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Arguments of the verb.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nin-wgpu bench
  nin-wgpu bench --model nin-cifar --mode infer --batch-size 16 --roofline
  nin-wgpu bench --model nin --sweep sweep.svg --batch-sizes 1,8,64

Pictures and labels are random; optimizer, dropout and augmentation are those of the model's recipe. A step's time is the
time from the end of the step before it to its own end, while two more wait behind it.")]
pub struct Args {
    /// The model
    #[arg(long, value_name = "NAME", value_parser = model(), default_value = "nin-small")]
    model: &'static Model,
    #[command(flatten)]
    adapt: AdaptArgs,
    /// What a step does
    #[arg(long, value_enum, default_value = "train")]
    mode: ModeName,
    /// Images in a batch, or auto: as many as run in one pass within --memory-budget, or within 2 GiB without one [default: as
    /// the model's recipe]
    #[arg(long, value_name = "B")]
    batch_size: Option<BatchSize>,
    /// Steps to measure, after those that warm up [default: as many as take 5 seconds, from 5 to 1000]
    #[arg(long, value_name = "N", value_parser = count(1_000_000))]
    steps: Option<usize>,
    /// Measure also what the adapter reaches at best: multiply-adds in registers, copies between buffers
    #[arg(long)]
    roofline: bool,
    /// Measure also at several batch sizes, and draw images/s and the time of a step over them
    #[arg(long, value_name = "FILE.svg")]
    sweep: Option<PathBuf>,
    /// The batch sizes of --sweep
    #[arg(long, value_name = "B,...", value_delimiter = ',', value_parser = count(1 << 20), requires = "sweep",
          default_value = "1,2,4,8,16,32,64,128")]
    batch_sizes: Vec<usize>,
    /// Run every kernel of a step by itself and print what its first run costs beyond its second: what the driver compiles
    /// there. Caches of the driver hide it (Mesa: MESA_SHADER_CACHE_DISABLE=true, before 23.0 MESA_GLSL_CACHE_DISABLE=true)
    #[arg(long, hide = true, conflicts_with_all = ["json", "sweep", "roofline"])]
    compile_times: bool,
    #[command(flatten)]
    kernels: KernelArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a step does, as on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeName {
    /// One update: forward, backward, optimizer
    Train,
    /// Probabilities of a batch
    Infer,
}

/// How long the steps last where their number is not given, and those of each size of a sweep.
const LASTING: Duration = Duration::from_secs(5);
const LASTING_EACH: Duration = Duration::from_secs(2);
/// Runs over which the time of each kernel is the median.
const LAYER_REPEATS: usize = 5;

/// Measures and prints.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    if let Some(folder) = &args.kernels.kernels {
        return bench_kernels::run(folder, &args.kernels, args.json, context);
    }
    let mut config = args.config()?;
    let budget = args.compute.memory.budget()?;
    if let Some(path) = &args.sweep {
        check_folder(path)?;
    }
    let mode = args.mode.into();
    let mut gpu = args.compute.tune.open_gpu(context, budget, true, |gpu| {
        if args.batch_size == Some(BatchSize::Auto) {
            config.batch_size = largest_batch_of(gpu, args.model, &config, mode)?;
        }
        Ok(args.workload(&config))
    })?;
    let Trusted { precision, fallback } = trusted(&mut gpu, config.precision, false, context)?;
    config.precision = precision;
    if !gpu.has_timestamps() {
        let layers = if args.json { "layers stays empty" } else { "kernels are timed one by one from outside, waiting included" };
        context.note(&format!("note: this adapter has no timestamps: {layers}"));
    }
    let steps = |lasting| args.steps.map_or(Steps::Lasting(lasting), Steps::Count);
    let layer_repeats = if gpu.has_timestamps() || !args.json { LAYER_REPEATS } else { 0 };
    let name = &gpu.adapter().name;
    context.note(&format!("measuring {} of {}, batch size {}, on {name}", args.mode.what(), config.model, config.batch_size));
    let request = BenchRequest { model: args.model, config: &config, mode, steps: steps(LASTING), layer_repeats };
    if args.compile_times {
        context.print(&compile_times(&first_runs(&gpu, &request)?))?;
        return Ok(Exit::Done);
    }
    let measured = bench(&gpu, &request)?;
    let sweep = match &args.sweep {
        Some(path) => {
            let request = BenchRequest { steps: steps(LASTING_EACH), layer_repeats: 0, ..request };
            let points = sweep(&gpu, &request, &args.batch_sizes, context)?;
            write_sweep(path, &points)?;
            context.note(&format!("picture written to {}", label(path)));
            Some(points)
        }
        None => None,
    };
    let roofline = if args.roofline {
        leave_out_wrong_units(&mut gpu, context)?;
        context.note(&format!("measuring the best rates of {}", gpu.adapter().name));
        let best = roofline(&gpu)?;
        if let Some(Err(why)) = &best.matrix_flops_per_s {
            context.note(&format!("warning: no figure for the matrix units, whose products are wrong: {why}"));
        }
        Some(best)
    } else {
        None
    };
    let report = Report::new(&gpu, &config, mode, &measured, fallback.as_deref(), roofline, sweep.as_deref());
    if args.json {
        context.print_json(&report)?;
    } else {
        context.print(&text(&report, &measured, context.width()))?;
    }
    Ok(Exit::Done)
}

fn compile_times(runs: &[FirstRun]) -> String {
    let mut table = Table::new(&[("kernel", Align::Left), ("compile ms", Align::Right), ("run ms", Align::Right)]);
    let milliseconds = |seconds: f64| format!("{:.1}", 1e3 * seconds);
    for run in runs {
        table.row(vec![run.kernel.name(), milliseconds(run.compile_seconds), milliseconds(run.seconds)]);
    }
    let total = |of: fn(&FirstRun) -> f64| milliseconds(runs.iter().map(of).sum());
    table.row(vec![format!("{} kernels", runs.len()), total(|run| run.compile_seconds), total(|run| run.seconds)]);
    table.render()
}

/// Measures at each batch size, the smallest first; those that do not fit the device are left out.
fn sweep(gpu: &Gpu, request: &BenchRequest<'_>, sizes: &[usize], context: &Context) -> Result<Vec<SweepPoint>, Failure> {
    let sizes: BTreeSet<usize> = sizes.iter().copied().collect();
    let mut points = Vec::new();
    let mut too_large = None;
    for batch in sizes {
        let config = TrainConfig { batch_size: batch, ..request.config.clone() };
        match bench(gpu, &BenchRequest { config: &config, ..request.clone() }).map_err(Failure::from) {
            Ok(measured) => {
                let images_per_s = measured.images_per_s();
                let Spread { median, p10, p90 } = measured.step;
                context.note(&format!("batch size {batch}: {images_per_s:.1} images/s"));
                points.push(SweepPoint { batch, images_per_s, milliseconds: [p10, median, p90].map(|s| s * 1e3) });
            }
            Err(failure) if failure.is_too_large() => {
                context.note(&format!("batch size {batch} is left out: {failure}"));
                too_large = Some(failure);
            }
            Err(failure) => return Err(failure),
        }
    }
    match too_large {
        Some(failure) if points.is_empty() => Err(failure),
        _ => Ok(points),
    }
}

/// Fails before minutes of measuring where the picture could not be written.
fn check_folder(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() || !folder.is_dir() {
        return Err(Failure::Failed(format!("--sweep {}: not a file in a folder that exists", label(path))));
    }
    Ok(())
}

impl ModeName {
    fn what(self) -> &'static str {
        match self {
            ModeName::Train => "training",
            ModeName::Infer => "inference",
        }
    }
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Train => Mode::Train,
            ModeName::Infer => Mode::Infer,
        }
    }
}

impl Args {
    /// The model's recipe with what was asked for.
    fn config(&self) -> Result<TrainConfig, Failure> {
        let mut config = TrainConfig::defaults(self.model.name)?;
        let options = self.adapt.apply(&self.model.defaults);
        config.classes = options.classes;
        config.set_in_channels(options.in_channels);
        config.image_size = options.image_size[0];
        config.augment.shift = config.augment.shift.min(config.image_size as u32 - 1);
        if let Some(BatchSize::Images(images)) = self.batch_size {
            config.batch_size = images;
        }
        config.precision = self.compute.precision();
        config.validate()?;
        Ok(config)
    }

    fn workload(&self, config: &TrainConfig) -> Workload<'static> {
        let purpose = match self.mode {
            ModeName::Train => Purpose::Train,
            ModeName::Infer => Purpose::Infer { runs: usize::MAX },
        };
        let batch = config.batch_size;
        Workload {
            model: self.model,
            options: model_options(config),
            purpose,
            batch,
            max_pass: batch,
            training: training(config),
            precision: self.compute.precision(),
        }
    }
}
