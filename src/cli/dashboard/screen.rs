//! The terminal while the dashboard fills it, and how it is given back: at the end, on a panic, and before the process exits.

use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

static IS_FILLED: AtomicBool = AtomicBool::new(false);

/// Whether the dashboard fills the terminal: nothing else may be written to it then.
pub fn is_filled() -> bool {
    IS_FILLED.load(Ordering::SeqCst)
}

/// Takes the terminal.
pub fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    IS_FILLED.store(true, Ordering::SeqCst);
    execute!(io::stderr(), EnterAlternateScreen, Hide).inspect_err(|_| leave())
}

/// Gives the terminal back as it was; nothing where it was not taken, or was given back already.
pub fn leave() {
    if IS_FILLED.swap(false, Ordering::SeqCst) {
        // A terminal that is gone needs no restoring.
        let _ = execute!(io::stderr(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}
