//! What the dashboard knows of a run.

use crate::train::metrics::{EpochLine, MetricsLine, StepLine};
use crate::train::trainer::{RunInfo, StepReport};

/// Points of a curve; more are averaged in pairs.
const MOST_POINTS: usize = 4096;
/// Notes that are kept.
const MOST_NOTES: usize = 100;

/// Points over epochs.
pub type Curve = Vec<(f64, f64)>;

/// What the dashboard shows.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Model and data set.
    pub title: String,
    /// Facts of the run; none before its first step.
    pub run: Option<RunInfo>,
    /// The latest report.
    pub latest: Option<StepReport>,
    /// Loss by logged step.
    pub step_loss: Curve,
    /// Loss by epoch: training, test.
    pub loss: [Curve; 2],
    /// Accuracy by epoch, in per cent: training, test.
    pub accuracy: [Curve; 2],
    /// The best test accuracy and its epoch.
    pub best: Option<(f64, u64)>,
    /// The test loss of that epoch.
    best_loss: f64,
    /// What was worth a line, the latest last.
    pub notes: Vec<String>,
    /// Asked to stop.
    pub is_stopping: bool,
}

impl State {
    /// A run of which nothing but its name is known.
    pub fn new(title: String) -> Self {
        State { title, ..Default::default() }
    }

    /// Facts of the run, and its metrics from before.
    pub fn start(&mut self, run: &RunInfo, history: &[MetricsLine]) {
        self.run = Some(run.clone());
        for line in history {
            match line {
                MetricsLine::Step(StepLine { step, loss, .. }) => self.add_step(*step, *loss),
                MetricsLine::Epoch(line) => self.epoch(line),
            }
        }
    }

    /// The latest updates.
    pub fn step(&mut self, report: &StepReport) {
        self.add_step(report.step, report.loss);
        self.latest = Some(*report);
    }

    fn add_step(&mut self, step: u64, loss: f64) {
        let at = step as f64 / self.steps_per_epoch();
        push(&mut self.step_loss, (at, loss));
    }

    /// A finished epoch.
    pub fn epoch(&mut self, line: &EpochLine) {
        let at = line.epoch as f64;
        for (curve, value) in self.loss.iter_mut().zip([line.train_loss, line.test_loss]) {
            push(curve, (at, value));
        }
        for (curve, value) in self.accuracy.iter_mut().zip([line.train_acc, line.test_acc]) {
            push(curve, (at, value * 100.0));
        }
        if line.test_acc.is_finite() && line.is_better_than(self.best.map(|(best, _)| (best, self.best_loss))) {
            (self.best, self.best_loss) = (Some((line.test_acc, line.epoch)), line.test_loss);
        }
    }

    /// The run goes on from a checkpoint after `step` updates and `epoch` whole epochs: what came later comes anew.
    pub fn went_back(&mut self, step: u64, epoch: u64) {
        let done = step as f64 / self.steps_per_epoch();
        self.step_loss.retain(|(at, _)| *at <= done);
        self.loss.iter_mut().chain(&mut self.accuracy).for_each(|curve| curve.retain(|(at, _)| *at <= epoch as f64));
        if self.best.is_some_and(|(_, best)| best > epoch) {
            self.best = None;
        }
    }

    /// Something worth a line.
    pub fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
        if self.notes.len() > MOST_NOTES {
            self.notes.remove(0);
        }
    }

    /// Updates of the run so far, and in all.
    pub fn steps(&self) -> (u64, u64) {
        let Some(run) = &self.run else { return (0, 0) };
        let done = self.latest.map_or(run.first_step, |latest| latest.step);
        (done, (run.steps_per_epoch * run.epochs) as u64)
    }

    /// Share of the run that is done.
    pub fn progress(&self) -> f64 {
        let (done, all) = self.steps();
        (done as f64 / all.max(1) as f64).clamp(0.0, 1.0)
    }

    /// Seconds to the end, at the pace of the `elapsed` seconds since this session's first step.
    pub fn seconds_left(&self, elapsed: f64) -> Option<f64> {
        let (done, all) = self.steps();
        let here = done.checked_sub(self.run.as_ref()?.first_step).filter(|here| *here > 0)?;
        Some(elapsed / here as f64 * all.saturating_sub(done) as f64)
    }

    /// Epochs so far, with fractions.
    pub fn epochs_done(&self) -> f64 {
        self.steps().0 as f64 / self.steps_per_epoch()
    }

    fn steps_per_epoch(&self) -> f64 {
        self.run.as_ref().map_or(1, |run| run.steps_per_epoch).max(1) as f64
    }
}

fn push(curve: &mut Curve, point: (f64, f64)) {
    if !point.1.is_finite() {
        return;
    }
    curve.push(point);
    if curve.len() > MOST_POINTS {
        let mean = |pair: &[(f64, f64)]| {
            let count = pair.len() as f64;
            (pair.iter().map(|p| p.0).sum::<f64>() / count, pair.iter().map(|p| p.1).sum::<f64>() / count)
        };
        *curve = curve.chunks(2).map(mean).collect();
    }
}
