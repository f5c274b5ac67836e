//! Ctrl-C: the first asks to stop and save, the second stops at once.

use super::context::stderr_line;
use super::dashboard::screen;
use super::error::{Exit, Failure};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that the first Ctrl-C (or termination signal) raises. `is_quiet` leaves out the message on stderr.
pub fn watch(is_quiet: bool) -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::Relaxed) {
            screen::leave();
            std::process::exit(Exit::Interrupted.code().into());
        }
        if !is_quiet && !screen::is_filled() {
            stderr_line("\nstopping after this step and saving; press Ctrl-C again to stop at once");
        }
    })
    .map_err(|error| Failure::Failed(format!("cannot listen for Ctrl-C: {error}")))?;
    Ok(flag)
}
