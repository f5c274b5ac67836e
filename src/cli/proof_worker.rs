//! The process that tries matrix units ([`super::worker`]), started by [`super::trust`] and no affair of users.

use super::context::Context;
use super::error::{Exit, Failure};
use super::worker;
use crate::gpu::{HalfFault, prove_matrix_units};
use serde::{Deserialize, Serialize};
use std::io;
use std::time::Duration;

/// Name of the hidden verb.
pub const VERB: &str = "proof-worker";

/// How to try them.
#[derive(Serialize, Deserialize)]
pub struct Job {
    /// Seconds for opening the device, for compiling, and for each kernel.
    pub limit_s: f64,
}

/// What this process says, as JSON in a line.
#[derive(Serialize, Deserialize)]
pub enum Said {
    /// The time begins anew.
    GoesOn,
    /// What matrix units get wrong, if anything.
    Wrong(Option<String>),
}

/// Runs the kernels for matrix units, or does what is planted.
pub fn run(context: &Context) -> Result<Exit, Failure> {
    let unusable = |why: String| Failure::Usage(format!("{VERB}: {why}"));
    let job: Job = serde_json::from_reader(io::stdin().lock()).map_err(|error| unusable(error.to_string()))?;
    let limit = Duration::try_from_secs_f64(job.limit_s).map_err(|error| unusable(error.to_string()))?;
    // Nothing in it fails to be text.
    let say = |said: &Said| worker::say(&serde_json::to_string(said).unwrap_or_default());
    let watchdog = worker::watchdog();
    watchdog.arm(limit);
    let gpu = context.open_gpu()?;
    match HalfFault::planted()? {
        Some(HalfFault::MatrixUnitsCrash) => std::process::abort(),
        Some(HalfFault::MatrixUnitsHang) => std::thread::sleep(Duration::MAX),
        Some(HalfFault::MatrixUnits | HalfFault::Storage) | None => {}
    }
    let mut go_on = || {
        watchdog.arm(limit);
        say(&Said::GoesOn);
    };
    go_on();
    let wrong = prove_matrix_units(&gpu, &mut go_on)?;
    watchdog.disarm();
    say(&Said::Wrong(wrong));
    Ok(Exit::Done)
}
