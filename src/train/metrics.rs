//! `metrics.jsonl`: one JSON object a line, per logged step and per epoch; the same as `metrics.csv` and for TensorBoard.

mod csv;
mod events;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use super::error::RunError;
use crate::weights::replace_file;
use csv::CsvLog;
use events::EventLog;

/// What is written every `log_every` updates. A number that is not finite becomes `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepLine {
    /// Updates done since the start of the run, so the first is 1.
    pub step: u64,
    /// The epoch that the last of them belongs to, counted from 1.
    pub epoch: u64,
    /// Mean loss over the updates since the last line, each before its update.
    #[serde(deserialize_with = "number_or_null")]
    pub loss: f64,
    /// Learning rate of the last of them.
    #[serde(deserialize_with = "number_or_null")]
    pub lr: f64,
    /// Training images per second since the last line.
    #[serde(deserialize_with = "number_or_null")]
    pub images_per_s: f64,
}

/// What is written after each epoch. A number that is not finite becomes `null`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochLine {
    /// Counted from 1.
    pub epoch: u64,
    /// Mean loss over the epoch's training images, as they were met.
    #[serde(deserialize_with = "number_or_null")]
    pub train_loss: f64,
    /// Share of them that was recognised, in [0, 1].
    #[serde(deserialize_with = "number_or_null")]
    pub train_acc: f64,
    /// Mean loss over the test images after the epoch.
    #[serde(deserialize_with = "number_or_null")]
    pub test_loss: f64,
    /// Share of them that was recognised, in [0, 1].
    #[serde(deserialize_with = "number_or_null")]
    pub test_acc: f64,
    /// Wall time of the epoch, test included.
    #[serde(deserialize_with = "number_or_null")]
    pub seconds: f64,
    /// What loss scaling multiplies the loss's gradient by after the epoch; in mixed precision only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// Steps of the run so far that were left out because a gradient overflowed; in mixed precision only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_steps: Option<u64>,
}

impl EpochLine {
    /// Whether the weights after this epoch are better than those of an epoch with the test accuracy and test loss `best`: more
    /// of the test images recognised, or as many at a lower loss. Of epochs without a test the later one is the better.
    pub fn is_better_than(&self, best: Option<(f64, f64)>) -> bool {
        let Some((accuracy, loss)) = best.filter(|_| self.test_acc.is_finite()) else { return true };
        self.test_acc > accuracy || (self.test_acc == accuracy && self.test_loss < loss)
    }
}

/// A line of either kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MetricsLine {
    /// Of a logged step.
    Step(StepLine),
    /// Of an epoch.
    Epoch(EpochLine),
}

/// JSON has no NaN: `null` stands for it.
fn number_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// `metrics.jsonl` and its two companions in the same folder, open for appending.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    csv: CsvLog,
    events: EventLog,
    /// Lines that could not be written: they go with the next.
    pending: Vec<u8>,
}

impl MetricsLog {
    /// Opens the files for a run that starts or goes on where `steps` updates are done and `epochs`
    /// epochs of `steps_per_epoch` are complete. Lines from later, which the run is about to write
    /// again, and torn lines are dropped.
    pub fn open(path: &Path, steps: u64, epochs: u64, steps_per_epoch: u64) -> Result<Self, RunError> {
        let keep = |line: &MetricsLine| match line {
            MetricsLine::Step(line) => line.step <= steps,
            MetricsLine::Epoch(line) => line.epoch <= epochs,
        };
        if path.exists() {
            let text = std::fs::read(path).map_err(RunError::io(path, "read the metrics"))?;
            let kept: Vec<u8> = text
                .split_inclusive(|&byte| byte == b'\n')
                .filter(|line| parse(line).is_some_and(|line| keep(&line)))
                .flatten()
                .copied()
                .collect();
            if kept != text {
                replace_file(path, |writer| writer.write_all(&kept)).map_err(RunError::io(path, "shorten the metrics"))?;
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(RunError::io(path, "open the metrics"))?;
        let lines = read(path)?;
        let csv_path = path.with_extension("csv");
        let csv = CsvLog::open(&csv_path, &lines).map_err(RunError::io(&csv_path, "write the table of metrics"))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let events = EventLog::open(folder, &lines, steps, epochs, steps_per_epoch)
            .map_err(RunError::io(folder, "write the events for TensorBoard"))?;
        Ok(Self { path: path.to_path_buf(), file, csv, events, pending: Vec::new() })
    }

    /// Appends the line of a logged step. A line that cannot be written is kept, and written with the next.
    pub fn step(&mut self, line: &StepLine) -> Result<(), RunError> {
        self.append(&MetricsLine::Step(line.clone()))
    }

    /// Appends the line of an epoch.
    pub fn epoch(&mut self, line: &EpochLine) -> Result<(), RunError> {
        self.append(&MetricsLine::Epoch(line.clone()))
    }

    /// Waits until the lines are on disk; called before a checkpoint that counts on them.
    pub fn sync(&mut self) -> Result<(), RunError> {
        let written = self.flush().and_then(|()| self.file.sync_data());
        let synced = written.and_then(|()| self.csv.sync()).and_then(|()| self.events.sync());
        synced.map_err(RunError::io(&self.path, "write the metrics"))
    }

    fn append(&mut self, line: &MetricsLine) -> Result<(), RunError> {
        let mut write = || {
            serde_json::to_writer(&mut self.pending, line)?;
            self.pending.push(b'\n');
            // Each gets its line, whatever became of the others.
            let written = [self.flush(), self.csv.append(line), self.events.append(line)];
            written.into_iter().collect::<std::io::Result<()>>()
        };
        write().map_err(RunError::io(&self.path, "write the metrics"))
    }

    /// Writes in one call, so that a reader never sees half a line; what a full disk has taken of it is removed again.
    fn flush(&mut self) -> std::io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let length = self.file.metadata()?.len();
        let written = self.file.write_all(&self.pending);
        match written {
            Ok(()) => self.pending.clear(),
            Err(_) => drop(self.file.set_len(length)),
        }
        written
    }
}

/// Reads the lines of a `metrics.jsonl`, leaving out any that are torn.
pub fn read(path: &Path) -> Result<Vec<MetricsLine>, RunError> {
    let text = std::fs::read(path).map_err(RunError::io(path, "read the metrics"))?;
    Ok(text.split_inclusive(|&byte| byte == b'\n').filter_map(parse).collect())
}

/// A whole line, its end included.
fn parse(line: &[u8]) -> Option<MetricsLine> {
    serde_json::from_slice(line.strip_suffix(b"\n")?).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn step(step: u64, epoch: u64) -> StepLine {
        StepLine { step, epoch, loss: 2.25, lr: 0.1, images_per_s: 812.5 }
    }

    fn epoch(epoch: u64) -> EpochLine {
        EpochLine { epoch, train_loss: 0.5, train_acc: 0.75, test_loss: 0.625, test_acc: 0.7, seconds: 12.5, ..Default::default() }
    }

    #[test]
    fn lines_have_the_documented_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path, 0, 0, 50).unwrap();
        log.step(&step(50, 1)).unwrap();
        log.epoch(&epoch(1)).unwrap();
        log.sync().unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            concat!(
                r#"{"step":50,"epoch":1,"loss":2.25,"lr":0.1,"images_per_s":812.5}"#,
                "\n",
                r#"{"epoch":1,"train_loss":0.5,"train_acc":0.75,"test_loss":0.625,"test_acc":0.7,"seconds":12.5}"#,
                "\n"
            )
        );
        let expected = [MetricsLine::Step(step(50, 1)), MetricsLine::Epoch(epoch(1))];
        assert_eq!(read(&path).unwrap(), expected);
        // Mixed precision has two more.
        let mixed = EpochLine { loss_scale: Some(65536.0), skipped_steps: Some(2), ..epoch(2) };
        log.epoch(&mixed).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("\"seconds\":12.5,\"loss_scale\":65536.0,\"skipped_steps\":2}\n"), "{text}");
        assert_eq!(read(&path).unwrap().last(), Some(&MetricsLine::Epoch(mixed)));
    }

    #[test]
    fn of_equal_accuracies_the_lower_loss_is_better() {
        let line = EpochLine { test_acc: 1.0, test_loss: 0.11, ..epoch(1) };
        assert!(line.is_better_than(None));
        assert!(line.is_better_than(Some((1.0, 0.12))) && line.is_better_than(Some((0.9, 0.01))));
        assert!(!line.is_better_than(Some((1.0, 0.11))) && !line.is_better_than(Some((1.0, 0.00006))));
        // A loss that is not known is not beaten.
        assert!(!line.is_better_than(Some((1.0, f64::NAN))));
        assert!(EpochLine { test_acc: f64::NAN, ..line }.is_better_than(Some((1.0, 0.0))));
    }

    #[test]
    fn numbers_that_are_not_finite_stay_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut line = step(1, 1);
        line.loss = f64::NAN;
        line.images_per_s = f64::INFINITY;
        MetricsLog::open(&path, 0, 0, 1).unwrap().step(&line).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"step\":1,\"epoch\":1,\"loss\":null,\"lr\":0.1,\"images_per_s\":null}\n");
        let [MetricsLine::Step(line)] = &read(&path).unwrap()[..] else { panic!("not one step line") };
        assert!(line.loss.is_nan());
    }

    #[test]
    fn going_on_repeats_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let write = |steps: std::ops::RangeInclusive<u64>, done: u64| {
            let mut log = MetricsLog::open(&path, done, done / 4, 4).unwrap();
            for number in steps {
                log.step(&step(number, (number - 1) / 4 + 1)).unwrap();
                if number % 4 == 0 {
                    log.epoch(&epoch(number / 4)).unwrap();
                }
            }
        };
        write(1..=12, 0);
        let uninterrupted = fs::read(&path).unwrap();
        let csv = fs::read(path.with_extension("csv")).unwrap();
        assert_eq!(String::from_utf8_lossy(&csv).lines().count(), 1 + 12 + 3);
        // Killed in the middle of a line; the last checkpoint was after 6 steps.
        fs::write(&path, &uninterrupted[..uninterrupted.len() - 7]).unwrap();
        write(7..=12, 6);
        assert_eq!(fs::read(&path).unwrap(), uninterrupted);
        assert_eq!(fs::read(path.with_extension("csv")).unwrap(), csv);
        // Going on from before the first step leaves nothing of the old run.
        drop(MetricsLog::open(&path, 0, 0, 4).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_line_that_cannot_be_written_goes_with_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path, 0, 0, 4).unwrap();
        log.step(&step(1, 1)).unwrap();
        let writable = std::mem::replace(&mut log.file, File::open(&path).unwrap());
        let error = log.step(&step(2, 1)).unwrap_err();
        assert!(error.to_string().contains("metrics.jsonl"), "{error}");
        log.file = writable;
        log.epoch(&epoch(1)).unwrap();
        let expected = [MetricsLine::Step(step(1, 1)), MetricsLine::Step(step(2, 1)), MetricsLine::Epoch(epoch(1))];
        assert_eq!(read(&path).unwrap(), expected);
    }
}
