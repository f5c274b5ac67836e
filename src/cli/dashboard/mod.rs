//! `train --tui`: a run as a dashboard that fills the terminal.
//!
//! A thread of its own draws and listens to keys, so that it answers while a step takes its time. Where it ends early, because
//! the terminal went away or could not be drawn on, the run goes on with plain progress.

pub mod screen;
mod state;
mod view;

use super::context::Context;
use super::error::{Exit, Failure};
use super::progress::Progress;
use crate::train::metrics::{self, EpochLine};
use crate::train::run_dir::RunDir;
use crate::train::trainer::{Observer, RunInfo, StepReport};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use state::State;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use view::Theme;

/// Time between two drawings without a key.
const TICK: Duration = Duration::from_millis(150);

/// Shows how training goes.
pub struct Dashboard<'a> {
    context: &'a Context,
    shared: Arc<Shared>,
    drawer: Option<JoinHandle<io::Result<()>>>,
    /// Takes over where the terminal is lost.
    plain: Option<Progress<'a>>,
}

/// What the run tells its drawer.
struct Shared {
    state: Mutex<State>,
    first_step: Mutex<Option<Instant>>,
    is_over: AtomicBool,
    /// Raised by the first Ctrl-C.
    stop: Arc<AtomicBool>,
}

impl Shared {
    /// A drawer that panicked has left whole data behind.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first_step(&self) -> MutexGuard<'_, Option<Instant>> {
        self.first_step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Dashboard<'a> {
    /// Fails where there is no terminal to fill.
    pub fn check(context: &Context) -> Result<(), Failure> {
        let reason = match context.draws_bars() {
            true if context.is_dumb_terminal() => "this terminal (TERM=dumb) cannot place text",
            true => return Ok(()),
            false if context.is_quiet() => "--quiet wants none",
            false => "standard error is not one",
        };
        Err(Failure::Usage(format!("--tui needs a terminal, but {reason}; leave --tui out for plain lines of progress")))
    }

    /// Takes the terminal and shows a run called `title`. Keys raise `stop` as Ctrl-C does.
    pub fn start(context: &'a Context, title: String, stop: Arc<AtomicBool>) -> Result<Self, Failure> {
        Self::check(context)?;
        let unusable = |error| Failure::Usage(format!("--tui: this terminal cannot be drawn on: {error}; leave --tui out"));
        screen::enter().map_err(unusable)?;
        let shared =
            Arc::new(Shared { state: Mutex::new(State::new(title)), first_step: Mutex::default(), is_over: AtomicBool::new(false), stop });
        let (seen, theme) = (Arc::clone(&shared), Theme::new(context.has_colour()));
        let drawer = thread::Builder::new().name("nin-wgpu dashboard".into()).spawn(move || {
            let result = draw_until_over(&seen, theme);
            screen::leave();
            result
        });
        let drawer = drawer.inspect_err(|_| screen::leave()).map_err(unusable)?;
        Ok(Dashboard { context, shared, drawer: Some(drawer), plain: None })
    }

    /// Gives the terminal back and repeats the notes, which went with the dashboard.
    pub fn finish(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.join();
        for note in std::mem::take(&mut self.shared.state().notes) {
            self.context.note(&format!("note: {note}"));
        }
        if let Some(plain) = &mut self.plain {
            plain.finish();
        }
    }

    fn join(&mut self) {
        let Some(drawer) = self.drawer.take() else { return };
        let ended = drawer.join();
        screen::leave();
        if let Ok(Err(error)) = ended {
            self.context.note(&format!("warning: the dashboard ended: {error}; training goes on"));
        }
    }

    /// Plain progress, once the dashboard is lost.
    fn plain(&mut self) -> Option<&mut Progress<'a>> {
        if self.drawer.as_ref().is_some_and(JoinHandle::is_finished) {
            self.join();
            let mut plain = Progress::new(self.context);
            if let Some(run) = &self.shared.state().run {
                plain.started(run);
            }
            self.plain = Some(plain);
        }
        self.plain.as_mut()
    }
}

impl Observer for Dashboard<'_> {
    fn started(&mut self, run: &RunInfo) {
        // Lines that cannot be read are missed in the curves only.
        let history = RunDir::open(&run.out).and_then(|dir| metrics::read(&dir.metrics())).unwrap_or_default();
        self.shared.state().start(run, &history);
        *self.shared.first_step() = Some(Instant::now());
        if let Some(plain) = self.plain() {
            plain.started(run);
        }
    }

    fn step(&mut self, report: &StepReport) {
        self.shared.state().step(report);
        if let Some(plain) = self.plain() {
            plain.step(report);
        }
    }

    fn epoch(&mut self, line: &EpochLine, is_best: bool) {
        self.shared.state().epoch(line);
        if let Some(plain) = self.plain() {
            plain.epoch(line, is_best);
        }
    }

    fn went_back(&mut self, step: u64, epoch: u64) {
        self.shared.state().went_back(step, epoch);
        if let Some(plain) = self.plain() {
            plain.went_back(step, epoch);
        }
    }

    fn note(&mut self, text: &str) {
        match self.plain() {
            Some(plain) => plain.note(text),
            None => self.shared.state().note(text),
        }
    }
}

impl Drop for Dashboard<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

fn draw_until_over(shared: &Shared, theme: Theme) -> io::Result<()> {
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stderr()))?;
    // A panic elsewhere gives the terminal back first.
    while screen::is_filled() && !shared.is_over.load(Ordering::SeqCst) {
        let elapsed = shared.first_step().map_or(0.0, |start| start.elapsed().as_secs_f64());
        let state = {
            let mut state = shared.state();
            state.is_stopping = shared.stop.load(Ordering::Relaxed);
            state.clone()
        };
        terminal.draw(|frame| view::draw(frame, &state, elapsed, theme))?;
        if event::poll(TICK)?
            && let Event::Key(key) = event::read()?
            && is_stop(&key)
            && shared.stop.swap(true, Ordering::Relaxed)
        {
            screen::leave();
            std::process::exit(Exit::Interrupted.code().into());
        }
    }
    Ok(())
}

/// A raw terminal hands Ctrl-C over as a key.
fn is_stop(key: &KeyEvent) -> bool {
    let is_letter = |letter| matches!(key.code, KeyCode::Char(c) if c.eq_ignore_ascii_case(&letter));
    key.kind == KeyEventKind::Press && (is_letter('q') || is_letter('c') && key.modifiers.contains(KeyModifiers::CONTROL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_and_control_c_stop() {
        let key = |code, modifiers| is_stop(&KeyEvent::new(code, modifiers));
        assert!(key(KeyCode::Char('q'), KeyModifiers::NONE) && key(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(key(KeyCode::Char('Q'), KeyModifiers::SHIFT));
        assert!(!key(KeyCode::Char('c'), KeyModifiers::NONE) && !key(KeyCode::Esc, KeyModifiers::NONE));
        let released = KeyEvent { kind: KeyEventKind::Release, ..KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE) };
        assert!(!is_stop(&released));
    }
}
