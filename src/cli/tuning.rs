//! `--tune`: which measured choices of kernels a verb uses, and measuring those that are missing.
//!
//! Measuring runs in a process of its own ([`super::tune_worker`]): a driver that hangs or crashes in a candidate takes
//! that process with it, and a new one goes on without the candidate.

use super::context::{Context, OpenedGpu};
use super::error::Failure;
use super::tune_worker::{Job, VERB};
use super::worker;
use crate::errors::{label, one_line};
use crate::gpu::tuner::{Identity, Posed, TuneOptions, TuningCache, problems};
use crate::gpu::{Gpu, cache_dir};
use crate::kernels::Problem;
use crate::models::{InputOptions, Model, ModelOptions, Purpose, Training, compile};
use crate::train::config::Precision;
use clap::ValueEnum;
use std::time::{Duration, Instant};

/// The flag.
#[derive(clap::Args, Clone, Copy, Default)]
pub struct TuneArgs {
    /// How kernels are chosen: by rules alone (off), or by measuring the convolutions that were not measured before on
    /// this adapter, the most promising candidates in at most 20 seconds (quick) or all in about 10 minutes (full)
    /// [default: training on a GPU measures quickly what it does not know; else as measured before, or by rules]
    #[arg(long, value_enum, value_name = "off|quick|full", hide_possible_values = true)]
    pub tune: Option<Level>,
    /// Without the flag nothing is measured, even in training on a GPU: the workload is not settled yet.
    #[arg(skip)]
    pub is_unsettled: bool,
}

/// How much to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Nothing, and what was measured before is not used
    Off,
    /// The most promising candidates
    Quick,
    /// All candidates
    Full,
}

/// What a verb is going to run.
pub struct Workload<'a> {
    /// The model.
    pub model: &'a Model,
    /// What it is adapted to.
    pub options: ModelOptions,
    /// What for.
    pub purpose: Purpose,
    /// Images of a batch.
    pub batch: usize,
    /// Most images of a pass.
    pub max_pass: usize,
    /// How it is trained, where it is.
    pub training: Training,
    /// Number format.
    pub precision: Precision,
}

impl Workload<'_> {
    /// The convolutions of a pass, on the device. Fails where the device does not compute in the number format.
    pub fn problems(&self, gpu: &Gpu) -> Result<Vec<Posed>, Failure> {
        if self.precision == Precision::Mixed {
            gpu.require_f16()?;
        }
        let Workload { model, options, purpose, batch, max_pass, training, precision } = self;
        let (input, target) = (InputOptions::plain(options), gpu.remaining_target(0));
        let switches = precision.compile_options();
        let network = compile(model, options, &input, *purpose, *batch, *max_pass, training, &target, switches)?;
        Ok(problems(&network.compiled.graph))
    }
}

impl TuneArgs {
    /// Opens the device for buffers of at most `memory_budget` bytes together, with the choices that hold for it, after
    /// measuring what is asked for and not known yet. `workload` is called once, with the device as the rules choose kernels
    /// for it.
    pub fn open_gpu<'a, 'w>(
        &self,
        context: &'a Context,
        memory_budget: Option<u64>,
        timestamps: bool,
        workload: impl FnOnce(&Gpu) -> Result<Workload<'w>, Failure>,
    ) -> Result<OpenedGpu<'a>, Failure> {
        let mut gpu = if timestamps { context.open_gpu_to_measure(memory_budget)? } else { context.open_gpu_within(memory_budget)? };
        let workload = workload(&gpu)?;
        if self.tune == Some(Level::Off) {
            return Ok(gpu);
        }
        let Some(mut cache) = open_cache(&gpu, context) else {
            if self.tune.is_some() {
                context.note(
                    "note: there is no folder for caches: set NIN_WGPU_CACHE_DIR, and not NIN_WGPU_NO_CACHE; going on without tuning",
                );
            }
            return Ok(gpu);
        };
        let level = self.tune.or_else(|| automatic(gpu.adapter().kind, workload.purpose).filter(|_| !self.is_unsettled));
        if let Some(level @ (Level::Quick | Level::Full)) = level {
            let posed: Vec<Problem> = workload.problems(&gpu)?.into_iter().map(|posed| posed.problem).collect();
            let full = level == Level::Full;
            if !cache.missing(&posed, full).is_empty() {
                // A candidate that makes the driver reset the device must not take this one with it.
                drop(gpu);
                cache = measure(context, cache, &posed, full, default_budget(full));
                gpu = context.reopen_gpu(memory_budget, timestamps)?;
            }
        }
        let choices = cache.choices();
        if !choices.is_empty() {
            let count = choices.0.len();
            context.detail(&format!("{count} convolutions have kernels chosen by measuring, from {}", label(cache.path())));
        }
        gpu.use_choices(choices);
        Ok(gpu)
    }
}

/// What is measured where no flag says: a first training on a GPU is worth its seconds, and the choice is kept, so that the
/// same command gives the same bytes. On a CPU device rules choose: there the gain is a few per cent.
fn automatic(adapter_kind: &str, purpose: Purpose) -> Option<Level> {
    (adapter_kind != "cpu" && purpose == Purpose::Train).then_some(Level::Quick)
}

/// How long measuring takes at most, but for what was begun.
pub fn default_budget(full: bool) -> Duration {
    if full { TuneOptions::full().budget } else { TuneOptions::quick().budget }
}

/// The cache for a device; `None` where there is no folder for it. A file that cannot be used is a detail.
pub fn open_cache(gpu: &Gpu, context: &Context) -> Option<TuningCache> {
    let (cache, note) = TuningCache::open(&cache_dir()?, Identity::of(gpu));
    if let Some(note) = note {
        context.detail(&format!("note: {}", one_line(&note, 1000)));
    }
    Some(cache)
}

/// Processes that are started at most: each but the last ended within a candidate.
const MOST_WORKERS: usize = 12;
/// With less left than this no process is started.
const LEAST_LEFT: Duration = Duration::from_millis(500);

/// Measures the problems that are missing, and returns the cache with what was found. Whatever goes wrong is a note: the
/// verb goes on with what is known.
pub fn measure(context: &Context, cache: TuningCache, problems: &[Problem], full: bool, budget: Duration) -> TuningCache {
    let _lock = match cache.lock() {
        Ok(Some(lock)) => lock,
        Ok(None) => {
            context.note("note: another process is tuning for this adapter; going on with what is known");
            return cache;
        }
        Err(error) => {
            context.note(&format!("note: {}: cannot be written: {error}; going on without tuning", label(cache.path())));
            return cache;
        }
    };
    let started = Instant::now();
    let missing = cache.missing(problems, full).len();
    context.note(&format!("measuring kernels for {missing} convolutions, for {} s at most", bound(full, budget).as_secs()));
    let mut cache = cache;
    for _ in 0..MOST_WORKERS {
        let left = budget.saturating_sub(started.elapsed());
        let missing = cache.missing(problems, full);
        if left < LEAST_LEFT || missing.is_empty() {
            break;
        }
        let job = Job { problems: missing, full, budget_s: left.as_secs_f64() };
        let ended = worker::run(context, VERB, &job, None, &mut |line| context.detail(line));
        cache = cache.reopen();
        match ended {
            Ok(()) => break,
            Err(why) if cache.has_open_trial() => context.detail(&format!("a candidate did not return and is left out: {why}")),
            Err(why) => {
                context.note(&format!("note: tuning came to an end: {why}; going on with what is known"));
                break;
            }
        }
    }
    let known = missing - cache.missing(problems, full).len();
    let better = problems.iter().filter_map(|problem| cache.get(problem)).filter(|finding| finding.choice != finding.rules).count();
    let rest = if known < missing { ", the others stay for the next time" } else { "" };
    let seconds = started.elapsed().as_secs_f64();
    context
        .note(&format!("{known} of {missing} convolutions measured in {seconds:.1} s{rest}; {better} have faster kernels than by rules"));
    cache
}

/// The budget and what a last candidate may take beyond it.
fn bound(full: bool, budget: Duration) -> Duration {
    let options = if full { TuneOptions::full() } else { TuneOptions::quick() };
    budget + options.compile_limit + 3 * options.run_limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_training_on_a_gpu_measures() {
        for kind in ["discrete", "integrated", "virtual", "other"] {
            assert_eq!(automatic(kind, Purpose::Train), Some(Level::Quick), "{kind}");
            assert_eq!(automatic(kind, Purpose::Infer { runs: 1000 }), None, "{kind}");
        }
        assert_eq!(automatic("cpu", Purpose::Train), None);
    }
}
