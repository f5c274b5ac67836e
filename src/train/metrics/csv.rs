//! `metrics.csv`: the lines of `metrics.jsonl` as a table for spreadsheets and data frames.

use super::{EpochLine, MetricsLine, StepLine};
use crate::files::replace_file;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Rows of steps leave the last five cells empty, rows of epochs the first one and `loss` to `images_per_s`.
const HEADER: &str = "step,epoch,loss,lr,images_per_s,train_loss,train_acc,test_loss,test_acc,seconds\n";

/// `metrics.csv`, open for appending.
#[derive(Debug)]
pub struct CsvLog {
    file: File,
}

impl CsvLog {
    /// Writes the table of `lines` to `path` and opens it to go on.
    pub fn open(path: &Path, lines: &[MetricsLine]) -> io::Result<Self> {
        let table: String = std::iter::once(HEADER.to_string()).chain(lines.iter().map(row)).collect();
        replace_file(path, |writer| writer.write_all(table.as_bytes()))?;
        Ok(Self { file: OpenOptions::new().append(true).open(path)? })
    }

    /// Appends a row.
    pub fn append(&mut self, line: &MetricsLine) -> io::Result<()> {
        self.file.write_all(row(line).as_bytes())
    }

    /// Waits until the rows are on disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn row(line: &MetricsLine) -> String {
    match line {
        MetricsLine::Step(StepLine { step, epoch, loss, lr, images_per_s }) => {
            format!("{step},{epoch},{},{},{},,,,,\n", cell(*loss), cell(*lr), cell(*images_per_s))
        }
        MetricsLine::Epoch(EpochLine { epoch, train_loss, train_acc, test_loss, test_acc, seconds, .. }) => {
            let cells = [train_loss, train_acc, test_loss, test_acc, seconds].map(|value| cell(*value));
            format!(",{epoch},,,,{}\n", cells.join(","))
        }
    }
}

/// Empty for what is not a number.
fn cell(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_the_cells_of_the_header() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        let step = MetricsLine::Step(StepLine { step: 50, epoch: 1, loss: 2.25, lr: 1e-7, images_per_s: f64::INFINITY });
        let epoch = EpochLine { epoch: 1, train_loss: 0.5, train_acc: 0.75, test_loss: f64::NAN, test_acc: f64::NAN, seconds: 12.5 };
        let mut log = CsvLog::open(&path, &[step.clone()]).unwrap();
        log.append(&MetricsLine::Epoch(epoch)).unwrap();
        log.sync().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{HEADER}50,1,2.25,0.0000001,,,,,,\n,1,,,,0.5,0.75,,,12.5\n"));
        assert!(text.lines().all(|line| line.matches(',').count() == HEADER.matches(',').count()));
        // Opening again leaves what it is given.
        drop(CsvLog::open(&path, &[step]).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }
}
