//! Training that outlives its device.
//!
//! Drivers reset GPUs, laptops take theirs away, and what was in the device's memory is gone. The last checkpoint is not: the
//! device is opened again, and training goes on from there.

use super::TrainError;
use super::trainer::{Attempt, Observer, TrainOutcome, TrainRequest, attempt};
use crate::gpu::{Gpu, GpuError};
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Losses in a row, without a checkpoint in between, that are tried again.
pub const RETRIES: u32 = 3;
/// Before the first retry; twice as long before each that follows. A driver that resets a GPU needs a moment.
const PAUSE: Duration = Duration::from_millis(500);

/// As [`super::trainer::train`]. Where the device is lost, `reopen` opens it again for the run in the folder it is given, and
/// training goes on from the last checkpoint: at most [`RETRIES`] times without a new one. The lost device is closed first: a
/// driver may have no memory for two. The device that came to the end comes back beside the outcome.
pub fn train<G, E>(
    gpu: G,
    mut request: TrainRequest,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
    mut reopen: impl FnMut(&Path) -> Result<G, E>,
) -> Result<(TrainOutcome, G), E>
where
    G: Deref<Target = Gpu>,
    E: From<TrainError> + std::fmt::Display,
{
    let mut gpu = Some(gpu);
    let mut losses = 0;
    let mut saved_step = None;
    loop {
        let mut run = Attempt { out: request.resume.clone(), saved_step: None, lose_device_at: request.lose_device_at.clone() };
        let reason = match gpu.take().map(|gpu| (attempt(&gpu, request.clone(), observer, stop, &mut run), gpu)) {
            Some((Err(TrainError::Gpu(GpuError::DeviceLost(reason))), _)) => reason,
            Some((other, gpu)) => return other.map(|outcome| (outcome, gpu)).map_err(E::from),
            None => "it could not be opened".into(),
        };
        let lost = || E::from(TrainError::Gpu(GpuError::DeviceLost(reason.clone())));
        // A run that never began has nothing to go on with.
        let Some(out) = run.out else { return Err(lost()) };
        let has_progressed = run.saved_step.is_some() && run.saved_step != saved_step;
        (saved_step, losses) = (run.saved_step.or(saved_step), if has_progressed { 1 } else { losses + 1 });
        if losses > RETRIES || stop.load(Ordering::Relaxed) {
            return Err(lost());
        }
        let step = saved_step.map_or_else(String::new, |step| format!(" of step {step}"));
        observer.note(&format!(
            "the device was lost ({reason}); opening it again to go on from the checkpoint{step}, attempt {losses} of {RETRIES}"
        ));
        thread::sleep(PAUSE * 2u32.pow(losses - 1));
        match reopen(&out) {
            Ok(opened) => gpu = Some(opened),
            Err(error) => observer.note(&format!("the device could not be opened again: {error}")),
        }
        request = TrainRequest {
            out: None,
            resume: Some(out),
            initial_weights: None,
            batch_size_auto: false,
            lose_device_at: run.lose_device_at,
            ..request
        };
    }
}
