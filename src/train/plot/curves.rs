//! `curves.svg`: loss and accuracy of a run as a picture, written anew after each epoch.

use super::super::error::RunError;
use super::super::metrics::{self, EpochLine, MetricsLine, StepLine};
use super::{Across, Axis, BLUE, GREY, ORANGE, Panel, Series, picture, step_of};
use crate::weights::replace_file;
use std::path::Path;

/// Points of the finest line; more of them are averaged.
const MOST_POINTS: usize = 600;

/// Draws the lines of `metrics` into `target`, which is replaced whole.
pub fn write(metrics: &Path, target: &Path, steps_per_epoch: u64) -> Result<(), RunError> {
    let text = svg(&metrics::read(metrics)?, steps_per_epoch);
    replace_file(target, |writer| writer.write_all(text.as_bytes())).map_err(RunError::io(target, "write the curves"))
}

/// The picture: loss per logged step and per epoch on the left, accuracy per epoch on the right.
pub fn svg(lines: &[MetricsLine], steps_per_epoch: u64) -> String {
    let curves = Curves::new(lines, steps_per_epoch);
    picture("Loss and accuracy while training", &[curves.loss_panel(), curves.accuracy_panel()])
}

/// Loss, accuracy, learning rate and speed as a picture each, those that there are values of.
pub fn figures(lines: &[MetricsLine], steps_per_epoch: u64) -> Vec<String> {
    let curves = Curves::new(lines, steps_per_epoch);
    let panels = [curves.loss_panel(), curves.accuracy_panel(), curves.rate_panel(), curves.speed_panel()];
    let has_points = |panel: &&Panel| panel.series.iter().any(|series| !series.points.is_empty());
    panels.iter().filter(has_points).map(|panel| picture(panel.title, std::slice::from_ref(panel))).collect()
}

/// The series of a run, over epochs.
struct Curves {
    loss: [Series; 3],
    accuracy: [Series; 2],
    rate: [Series; 1],
    speed: [Series; 1],
    /// The last epoch.
    end: f64,
}

impl Curves {
    fn new(lines: &[MetricsLine], steps_per_epoch: u64) -> Self {
        let epochs = |value: fn(&EpochLine) -> f64| {
            finite(lines.iter().filter_map(|line| match line {
                MetricsLine::Epoch(line) => Some((line.epoch as f64, value(line))),
                MetricsLine::Step(_) => None,
            }))
        };
        let steps = |value: fn(&StepLine) -> f64| {
            averaged(&finite(lines.iter().filter_map(|line| match line {
                MetricsLine::Step(line) => Some((line.step as f64 / steps_per_epoch.max(1) as f64, value(line))),
                MetricsLine::Epoch(_) => None,
            })))
        };
        let percent = |v: f64| format!("{v:.2} %");
        let loss = [
            Series { name: "training, by step", color: GREY, stroke: 1.0, points: steps(|line| line.loss), text: |_| String::new() },
            Series { name: "training", color: ORANGE, stroke: 2.0, points: epochs(|line| line.train_loss), text: |v| format!("{v:.3}") },
            Series { name: "test", color: BLUE, stroke: 2.0, points: epochs(|line| line.test_loss), text: |v| format!("{v:.3}") },
        ];
        let accuracy = [
            Series { name: "training", color: ORANGE, stroke: 2.0, points: epochs(|line| line.train_acc * 100.0), text: percent },
            Series { name: "test", color: BLUE, stroke: 2.0, points: epochs(|line| line.test_acc * 100.0), text: percent },
        ];
        let rate = [Series { name: "at the end", color: BLUE, stroke: 1.0, points: steps(|line| line.lr), text: |v| format!("{v:.2e}") }];
        let speed =
            [Series { name: "at the end", color: BLUE, stroke: 1.0, points: steps(|line| line.images_per_s), text: |v| format!("{v:.0}") }];
        let end = loss.iter().chain(&accuracy).flat_map(|s| &s.points).fold(1.0, |end: f64, point| end.max(point.0));
        Curves { loss, accuracy, rate, speed, end }
    }

    fn panel<'a>(&self, title: &'static str, axis: Axis, series: &'a [Series]) -> Panel<'a> {
        Panel { title, across: epochs_to(self.end), axis, series }
    }

    fn loss_panel(&self) -> Panel<'_> {
        self.panel("loss", Axis::logarithmic(&values(&self.loss)), &self.loss)
    }

    fn accuracy_panel(&self) -> Panel<'_> {
        self.panel("accuracy in per cent", Axis::percent(&values(&self.accuracy)), &self.accuracy)
    }

    fn rate_panel(&self) -> Panel<'_> {
        self.panel("learning rate", Axis::from_zero(&values(&self.rate)), &self.rate)
    }

    fn speed_panel(&self) -> Panel<'_> {
        self.panel("training images per second", Axis::from_zero(&values(&self.speed)), &self.speed)
    }
}

fn values(series: &[Series]) -> Vec<f64> {
    series.iter().flat_map(|s| &s.points).map(|p| p.1).collect()
}

/// Epochs from 0 to `end`, whole ones marked.
fn epochs_to(end: f64) -> Across {
    let step = step_of(end, 10.0).max(1.0);
    let ticks = (0..=(end / step) as usize).map(|i| step * i as f64).collect();
    Across { label: "epoch", ends: [0.0, end], ticks, is_logarithmic: false, has_dots: end <= 40.0 }
}

fn finite(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    points.filter(|point| point.1.is_finite()).collect()
}

/// At most [`MOST_POINTS`] means of neighbours.
fn averaged(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |chunk: &[(f64, f64)]| {
        let count = chunk.len() as f64;
        (chunk.iter().map(|p| p.0).sum::<f64>() / count, chunk.iter().map(|p| p.1).sum::<f64>() / count)
    };
    points.chunks(points.len().div_ceil(MOST_POINTS).max(1)).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::super::AREA;
    use super::super::tests::check;
    use super::*;

    fn step(step: u64, loss: f64) -> MetricsLine {
        MetricsLine::Step(StepLine { step, epoch: 1, loss, lr: 0.1, images_per_s: 100.0 })
    }

    fn epoch(epoch: u64, test_loss: f64, test_acc: f64) -> MetricsLine {
        MetricsLine::Epoch(EpochLine { epoch, train_loss: 0.5, train_acc: 0.81, test_loss, test_acc, seconds: 1.0, ..Default::default() })
    }

    #[test]
    fn every_series_is_drawn_and_named() {
        let lines = [step(50, 2.0), step(100, 1.0), epoch(1, 0.75, 0.7), step(150, 0.5), epoch(2, 0.25, 0.925)];
        let svg = svg(&lines, 100);
        check(&svg);
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (5, 8));
        for text in
            [">loss<", ">accuracy in per cent<", ">epoch<", ">training, by step<", ">training 0.500<", ">test 0.250<", ">test 92.50 %<"]
        {
            assert!(svg.contains(text), "{text}\n{svg}");
        }
        // Epoch 1 of 2 lies half-way, and so does step 100 of 200.
        let middle = AREA[0] + AREA[2] / 2.0;
        assert!(svg.contains(&format!("cx=\"{middle:.1}\"")) && svg.contains(&format!(" {middle:.1},")), "{svg}");
    }

    #[test]
    fn runs_without_test_images_or_steps_have_a_picture() {
        let svg_of = |lines: &[MetricsLine]| {
            let text = svg(lines, 0);
            check(&text);
            text
        };
        assert!(!svg_of(&[epoch(1, f64::NAN, f64::NAN)]).contains(">test "));
        assert!(svg_of(&[]).contains(">loss<"));
        svg_of(&[step(1, 0.0), epoch(1, 0.0, 1.0)]);
        svg_of(&[step(1, 1e12), step(2, f64::NAN), epoch(1, 1e-12, 0.0)]);
    }

    #[test]
    fn figures_are_those_with_values() {
        let all = figures(&[step(50, 2.0), step(100, 1.0), epoch(1, 0.75, 0.7)], 100);
        assert_eq!(all.len(), 4);
        all.iter().for_each(|figure| check(figure));
        assert!(all[2].contains(">at the end 1.00e-1<") && all[3].contains(">at the end 100<"), "{all:?}");
        assert!(all[1].contains("<title>test at epoch 1: 70.00 %</title>"), "{}", all[1]);
        // Too few steps for a line.
        assert_eq!(figures(&[epoch(1, f64::NAN, f64::NAN)], 3).len(), 2);
    }

    #[test]
    fn the_picture_in_docs_is_that_of_the_recorded_run() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let lines = metrics::read(&root.join("assets/nin-small-fashion/metrics.jsonl")).unwrap();
        let path = root.join("docs/nin-small-training.svg");
        if std::env::var_os("UPDATE_GOLDENS").is_some_and(|value| value == "1") {
            std::fs::write(&path, svg(&lines, 1875)).unwrap();
        }
        let picture = std::fs::read_to_string(path).unwrap();
        assert_eq!(svg(&lines, 1875), picture.replace("\r\n", "\n"));
    }

    #[test]
    fn long_runs_are_averaged() {
        let points: Vec<(f64, f64)> = (0..6000).map(|i| (f64::from(i), f64::from(i % 10))).collect();
        let means = averaged(&points);
        assert_eq!((means.len(), means[0]), (600, (4.5, 4.5)));
    }

    #[test]
    fn the_file_is_written_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (metrics, target) = (folder.path().join("metrics.jsonl"), folder.path().join("curves.svg"));
        std::fs::write(&metrics, "{\"epoch\":1,\"train_loss\":1.0,\"train_acc\":0.5,\"test_loss\":1.0,\"test_acc\":0.5,\"seconds\":1.0}\n")
            .unwrap();
        write(&metrics, &target, 10).unwrap();
        check(&std::fs::read_to_string(&target).unwrap());
        assert!(write(&metrics, &folder.path().join("missing/curves.svg"), 10).is_err());
    }
}
