//! The process that measures kernels ([`super::worker`]), started by [`super::tuning`] and no affair of users.
//!
//! What is found goes to the cache; a line on standard output tells of each finding.

use super::context::Context;
use super::error::{Exit, Failure};
use super::worker::{self, say};
use crate::gpu::cache_dir;
use crate::gpu::tuner::{Finding, Identity, TuneOptions, TuningCache, faults, tune};
use crate::graph::Lowered;
use crate::kernels::Problem;
use crate::variables;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Name of the hidden verb.
pub const VERB: &str = "tune-worker";

/// What to measure.
#[derive(Serialize, Deserialize)]
pub struct Job {
    /// In this order.
    pub problems: Vec<Problem>,
    /// Try all candidates.
    pub full: bool,
    /// Seconds.
    pub budget_s: f64,
}

/// Time for opening the device.
const OPENING: Duration = Duration::from_secs(30);

/// Measures and keeps what is found.
pub fn run(context: &Context) -> Result<Exit, Failure> {
    let watchdog = worker::watchdog();
    watchdog.arm(OPENING);
    let wrong = |why: String| Failure::Usage(format!("{VERB}: {why}"));
    let job: Job = serde_json::from_reader(io::stdin().lock()).map_err(|error| wrong(error.to_string()))?;
    let budget = Duration::try_from_secs_f64(job.budget_s).map_err(|error| wrong(error.to_string()))?;
    let folder = cache_dir().ok_or_else(|| wrong("there is no folder for caches".into()))?;
    let gpu = context.open_gpu_to_measure(None)?;
    let (mut cache, _) = TuningCache::open(&folder, Identity::of(&gpu));
    forgive_interrupts(&folder, Identity::of(&gpu))?;
    watchdog.disarm();

    let plant = |rules: &Lowered| faults::planted(rules, faults::Stall::MINUTES);
    let plants_faults = variables::TUNE_FAULTS.is_on();
    let options = TuneOptions {
        budget,
        watchdog: Some(&watchdog),
        plant: plants_faults.then_some(&plant),
        ..if job.full { TuneOptions::full() } else { TuneOptions::quick() }
    };
    tune(&gpu, &job.problems, &mut cache, &options, &mut |finding| say(&line(finding)))
        .map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(Exit::Done)
}

/// What the user stops is no fault of the candidate that is being tried.
fn forgive_interrupts(folder: &Path, identity: Identity) -> Result<(), Failure> {
    let (cache, _) = TuningCache::open(folder, identity);
    ctrlc::set_handler(move || {
        cache.cancel_trial();
        std::process::exit(i32::from(Exit::Interrupted.code()));
    })
    .map_err(|error| Failure::Failed(format!("interrupts cannot be watched: {error}")))
}

fn line(finding: &Finding) -> String {
    let Finding { problem, choice, rules, rules_ms, ms, .. } = finding;
    match (rules_ms, ms) {
        (Some(rules_ms), Some(ms)) if choice != rules => format!("{problem}: {choice}, {ms:.2} ms instead of {rules_ms:.2} ms"),
        (Some(rules_ms), _) => format!("{problem}: {rules} as by rules, {rules_ms:.2} ms"),
        (None, _) => format!("{problem}: {rules} as by rules, not measured"),
    }
}
