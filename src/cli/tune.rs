//! `nin-wgpu tune`: measures ahead of time which kernels are fastest on the adapter for a model.

use super::compute_args::PrecisionArgs;
use super::context::Context;
use super::error::{Exit, Failure};
use super::format;
use super::model_args::{AdaptArgs, count, model};
use super::table::{Align, Table};
use super::tuning::{Workload, default_budget, measure, open_cache};
use crate::errors::label;
use crate::gpu::tuner::{Finding, Posed, Tried, TuningCache};
use crate::models::{Model, Purpose};
use crate::train::config::{Precision, TrainConfig};
use crate::train::trainer::training;
use clap::ValueEnum;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Arguments of the verb.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nin-wgpu tune --model nin --batch-size 8
  nin-wgpu tune --model nin-cifar --mode infer --batch-size 16 --full

train, eval, infer and bench use what was found, unless --tune off. It holds for the adapter, its driver, this version of the
program, and the model at this batch size. A kernel is taken only after its results were found right on random data.")]
pub struct Args {
    /// The model
    #[arg(long, value_name = "NAME", value_parser = model(), default_value = "nin-small")]
    model: &'static Model,
    #[command(flatten)]
    adapt: AdaptArgs,
    /// What the model is tuned for
    #[arg(long, value_enum, default_value = "train")]
    mode: ModeName,
    #[command(flatten)]
    format: PrecisionArgs,
    /// Images in a batch [default: as the model's recipe]
    #[arg(long, value_name = "B", value_parser = count(1 << 20))]
    batch_size: Option<usize>,
    /// Try all candidates, not only the most promising
    #[arg(long)]
    full: bool,
    /// Seconds to measure, but for what was begun [default: 12, with --full 600]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    budget: Option<u32>,
    /// Measure also what was measured before
    #[arg(long)]
    again: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeName {
    /// Training, and evaluation beside it
    Train,
    /// Inference
    Infer,
}

/// The document of `--json`.
#[derive(Serialize)]
struct Report<'a> {
    adapter: &'a str,
    driver: &'a str,
    model: &'a str,
    mode: &'static str,
    batch_size: usize,
    precision: Precision,
    seconds: f64,
    cache: String,
    problems: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    layers: &'a [String],
    problem: String,
    /// Null where there was no time to measure.
    rules: Option<String>,
    rules_ms: Option<f64>,
    choice: Option<String>,
    ms: Option<f64>,
    tried: &'a [Tried],
}

impl<'a> Entry<'a> {
    fn new(posed: &'a Posed, finding: Option<&'a Finding>) -> Self {
        Entry {
            layers: &posed.layers,
            problem: posed.problem.to_string(),
            rules: finding.map(|finding| finding.rules.to_string()),
            rules_ms: finding.and_then(|finding| finding.rules_ms),
            choice: finding.map(|finding| finding.choice.to_string()),
            ms: finding.and_then(|finding| finding.ms),
            tried: finding.map_or(&[], |finding| &finding.tried),
        }
    }
}

/// Measures what is missing and prints what is known.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let workload = args.workload()?;
    let gpu = context.open_gpu()?;
    let adapter = gpu.adapter().clone();
    let posed = workload.problems(&gpu)?;
    let no_folder = || Failure::Failed("there is no folder for caches: set NIN_WGPU_CACHE_DIR, and not NIN_WGPU_NO_CACHE".into());
    let mut cache = open_cache(&gpu, context).ok_or_else(no_folder)?;
    drop(gpu);
    let started = Instant::now();
    let problems: Vec<_> = posed.iter().map(|posed| posed.problem.clone()).collect();
    if args.again {
        let file = label(cache.path());
        cache.forget(&problems).map_err(|error| Failure::Failed(format!("{file}: cannot be written: {error}")))?;
    }
    if !cache.missing(&problems, args.full).is_empty() {
        let budget = args.budget.map_or_else(|| default_budget(args.full), |seconds| Duration::from_secs(seconds.into()));
        cache = measure(context, cache, &problems, args.full, budget);
    }
    let report = Report {
        adapter: &adapter.name,
        driver: &adapter.driver,
        model: args.model.name,
        mode: if args.mode == ModeName::Train { "train" } else { "infer" },
        batch_size: workload.batch,
        precision: args.format.precision,
        seconds: started.elapsed().as_secs_f64(),
        cache: label(cache.path()),
        problems: posed.iter().map(|posed| Entry::new(posed, cache.get(&posed.problem))).collect(),
    };
    if args.json {
        context.print_json(&report)?;
    } else {
        context.print(&text(&report, &posed, &cache))?;
    }
    Ok(Exit::Done)
}

impl Args {
    fn workload(&self) -> Result<Workload<'static>, Failure> {
        let recipe = TrainConfig::defaults(self.model.name)?;
        let batch = self.batch_size.unwrap_or(recipe.batch_size);
        let purpose = match self.mode {
            ModeName::Train => Purpose::Train,
            ModeName::Infer => Purpose::Infer { runs: usize::MAX },
        };
        let options = self.adapt.apply(&self.model.defaults);
        Ok(Workload {
            model: self.model,
            options,
            purpose,
            batch,
            max_pass: batch,
            training: training(&recipe),
            precision: self.format.precision,
        })
    }
}

/// The report for people: a line for each problem, and what was refused.
fn text(report: &Report<'_>, posed: &[Posed], cache: &TuningCache) -> String {
    let mut table = Table::new(&[
        ("layers", Align::Left),
        ("operation", Align::Left),
        ("by rules", Align::Left),
        ("ms", Align::Right),
        ("fastest", Align::Left),
        ("ms", Align::Right),
        ("gain", Align::Right),
    ]);
    let milliseconds = |ms: Option<f64>| ms.map_or("-".into(), |ms| format!("{ms:.3}"));
    let mut refused = String::new();
    let (mut before, mut after) = (0.0, 0.0);
    for posed in posed {
        let Some(finding) = cache.get(&posed.problem) else {
            table.row(vec![
                posed.layers.join(" "),
                posed.problem.op.clone(),
                "not measured".into(),
                "-".into(),
                "-".into(),
                "-".into(),
                "-".into(),
            ]);
            continue;
        };
        let Finding { rules, rules_ms, choice, ms, .. } = finding;
        let gain = rules_ms.zip(*ms).map_or("-".into(), |(rules, ms)| format!("{:.2}x", rules / ms.max(1e-9)));
        let fastest = if choice == rules { "the same".into() } else { choice.to_string() };
        let row = [posed.layers.join(" "), posed.problem.op.clone(), rules.to_string(), milliseconds(*rules_ms), fastest];
        table.row(row.into_iter().chain([milliseconds(*ms), gain]).collect());
        let times = posed.layers.len() as f64;
        before += times * rules_ms.unwrap_or(0.0);
        after += times * ms.unwrap_or(0.0);
        for tried in finding.tried.iter().filter(|tried| tried.is_refused()) {
            refused.push_str(&format!("refused for {}: {}: {}\n", finding.problem, tried.candidate, tried.verdict));
        }
    }
    let mut text = table.render();
    if after > 0.0 {
        text.push_str(&format!("\nall of them: {before:.1} ms by rules, {after:.1} ms as measured\n"));
    }
    text.push_str(&refused);
    text.push_str(&format!("{} used, kept in {}\n", format::duration(report.seconds), report.cache));
    text
}
