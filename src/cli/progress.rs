//! Progress on stderr: a bar on a terminal, plain lines otherwise, nothing with `-q`.

use super::context::Context;
use super::format;
use crate::train::metrics::EpochLine;
use crate::train::trainer::{Observer, RunInfo, StepReport};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

/// Least time between two plain lines of progress.
const INTERVAL: Duration = Duration::from_secs(10);

/// Shows how training goes.
pub struct Progress<'a> {
    context: &'a Context,
    bar: Option<ProgressBar>,
    epochs: u64,
    steps_per_epoch: usize,
    last_line: Instant,
}

impl<'a> Progress<'a> {
    /// Nothing is shown before the run starts.
    pub fn new(context: &'a Context) -> Self {
        Progress { context, bar: None, epochs: 0, steps_per_epoch: 0, last_line: Instant::now() }
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// A line on stderr that leaves the bar where it is.
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => self.context.note(text),
        }
    }
}

impl Observer for Progress<'_> {
    fn started(&mut self, run: &RunInfo) {
        (self.epochs, self.steps_per_epoch) = (run.epochs as u64, run.steps_per_epoch);
        for line in introduction(run) {
            self.line(&line);
        }
        if self.context.is_verbose() {
            self.line(&residence(run.resident_bytes));
        }
        if self.context.draws_bars() {
            let steps = run.steps_per_epoch * run.epochs;
            let bar = bar(steps, "{prefix} {wide_bar} {percent}%  {msg}  {eta} left");
            bar.set_position(run.first_step);
            bar.reset_eta();
            self.bar = Some(bar);
        }
        self.last_line = Instant::now();
    }

    fn step(&mut self, report: &StepReport) {
        let figures =
            format!("{:.0} images/s  loss {:.4}  accuracy {}", report.images_per_s, report.loss, format::percent(report.accuracy));
        if let Some(bar) = &self.bar {
            bar.set_position(report.step);
            bar.set_prefix(format!("epoch {}/{}", report.epoch, self.epochs));
            bar.set_message(figures);
        } else if self.context.is_verbose() || self.last_line.elapsed() >= INTERVAL {
            self.last_line = Instant::now();
            self.context.note(&format!(
                "epoch {}/{}  step {}/{}  {figures}  lr {:.3e}",
                report.epoch, self.epochs, report.step_in_epoch, self.steps_per_epoch, report.lr
            ));
        }
    }

    fn epoch(&mut self, line: &EpochLine, is_best: bool) {
        self.line(&epoch_line(line, self.epochs, is_best));
        self.last_line = Instant::now();
    }

    fn note(&mut self, text: &str) {
        self.line(&format!("note: {}", crate::errors::one_line(text, 4000)));
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

fn introduction(run: &RunInfo) -> Vec<String> {
    let mut lines = vec![
        format!("training on {}, files go to {}", run.adapter, run.out.display()),
        format!(
            "{} training and {} test images, {} parameters, {} of device memory",
            format::thousands(run.train_images as u64),
            format::thousands(run.test_images as u64),
            format::thousands(run.parameters as u64),
            format::bytes(run.memory_bytes)
        ),
    ];
    let parts = if run.micro_batch < run.batch_size { format!(" in parts of {}", run.micro_batch) } else { String::new() };
    lines.push(format!("{} epochs of {} steps, {} images each{parts}", run.epochs, run.steps_per_epoch, run.batch_size));
    if run.first_step > 0 {
        lines.push(format!("going on after step {}", run.first_step));
    }
    lines
}

/// Where the images are.
fn residence(bytes: u64) -> String {
    match bytes {
        0 => "images are uploaded step by step".into(),
        _ => format!("{} of images stay on the device", format::bytes(bytes)),
    }
}

fn epoch_line(line: &EpochLine, epochs: u64, is_best: bool) -> String {
    let width = epochs.to_string().len();
    let test = if line.test_acc.is_finite() {
        format!("  test loss {:.4} accuracy {:>7}", line.test_loss, format::percent(line.test_acc))
    } else {
        String::new()
    };
    let scaling = match (line.loss_scale, line.skipped_steps) {
        (Some(scale), Some(skipped)) => format!("  loss scale {scale}, {skipped} steps skipped"),
        _ => String::new(),
    };
    format!(
        "epoch {:>width$}/{epochs}  train loss {:.4} accuracy {:>7}{test}  {}{scaling}{}",
        line.epoch,
        line.train_loss,
        format::percent(line.train_acc),
        format::duration(line.seconds),
        if is_best { "  best" } else { "" }
    )
}

/// A bar of `length` steps on stderr.
fn bar(length: usize, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length as u64), ProgressDrawTarget::stderr());
    // The templates are constants of this file; a wrong one would merely be drawn plainly.
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Counts images: a bar on a terminal, nothing otherwise.
pub struct Counter {
    bar: Option<ProgressBar>,
}

impl Counter {
    /// A counter to `length`.
    pub fn new(context: &Context, length: usize) -> Self {
        let bar = context.draws_bars().then(|| bar(length, "{pos}/{len} images {wide_bar} {per_sec}  {eta} left"));
        Counter { bar }
    }

    /// Shows that `done` images are done.
    pub fn set(&self, done: usize) {
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_one_line() {
        let mut line =
            EpochLine { epoch: 3, train_loss: 0.5, train_acc: 0.85, test_loss: 0.25, test_acc: 0.875, seconds: 12.0, ..Default::default() };
        assert_eq!(
            epoch_line(&line, 12, true),
            "epoch  3/12  train loss 0.5000 accuracy 85.00 %  test loss 0.2500 accuracy 87.50 %  12.0 s  best"
        );
        (line.loss_scale, line.skipped_steps) = (Some(32768.0), Some(1));
        let mixed = epoch_line(&line, 12, true);
        assert!(mixed.ends_with("87.50 %  12.0 s  loss scale 32768, 1 steps skipped  best"), "{mixed}");
        (line.loss_scale, line.skipped_steps) = (None, None);
        (line.test_loss, line.test_acc) = (f64::NAN, f64::NAN);
        assert_eq!(epoch_line(&line, 3, false), "epoch 3/3  train loss 0.5000 accuracy 85.00 %  12.0 s");
    }

    #[test]
    fn introduction_names_parts_and_resumption_where_there_are_any() {
        let mut run = RunInfo {
            out: "runs/nin-1".into(),
            adapter: "llvmpipe".into(),
            train_images: 60_000,
            test_images: 10_000,
            steps_per_epoch: 469,
            epochs: 10,
            first_step: 0,
            parameters: 1_992_166,
            micro_batch: 128,
            batch_size: 128,
            memory_bytes: 1 << 30,
            resident_bytes: 0,
        };
        assert_eq!(introduction(&run).last().unwrap(), "10 epochs of 469 steps, 128 images each");
        (run.micro_batch, run.first_step) = (32, 7);
        let text = introduction(&run).join("\n");
        assert!(text.contains("128 images each in parts of 32") && text.ends_with("going on after step 7"), "{text}");
    }

    #[test]
    fn templates_are_valid() {
        for template in ["{prefix} {wide_bar} {percent}%  {msg}  {eta} left", "{pos}/{len} images {wide_bar} {per_sec}  {eta} left"] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
