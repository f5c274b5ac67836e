//! `curves.svg`: loss and accuracy of a run as a picture, written anew after each epoch.
//!
//! Colours are of middle brightness and there is no background, so that it reads on white and on black.

use super::error::RunError;
use super::metrics::{self, EpochLine, MetricsLine};
use crate::weights::replace_file;
use std::fmt::Write as _;
use std::path::Path;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 408.0;
/// Plot area of a panel; the second one lies `PITCH` to the right of the first.
const AREA: [f64; 4] = [64.0, 44.0, 384.0, 276.0];
const PITCH: f64 = 492.0;
/// Points of the finest line; more of them are averaged.
const MOST_POINTS: usize = 600;

const TRAIN: &str = "#e07b1a";
const TEST: &str = "#3f87dd";
const STEPS: &str = "#9a8f86";

/// Draws the lines of `metrics` into `target`, which is replaced whole.
pub fn write(metrics: &Path, target: &Path, steps_per_epoch: u64) -> Result<(), RunError> {
    let text = svg(&metrics::read(metrics)?, steps_per_epoch);
    replace_file(target, |writer| writer.write_all(text.as_bytes())).map_err(RunError::io(target, "write the curves"))
}

/// The picture: loss per logged step and per epoch on the left, accuracy per epoch on the right.
pub fn svg(lines: &[MetricsLine], steps_per_epoch: u64) -> String {
    let epochs = |value: fn(&EpochLine) -> f64| {
        finite(lines.iter().filter_map(|line| match line {
            MetricsLine::Epoch(line) => Some((line.epoch as f64, value(line))),
            MetricsLine::Step(_) => None,
        }))
    };
    let steps = finite(lines.iter().filter_map(|line| match line {
        MetricsLine::Step(line) => Some((line.step as f64 / steps_per_epoch.max(1) as f64, line.loss)),
        MetricsLine::Epoch(_) => None,
    }));
    let loss = [
        Series { name: "training, by step", color: STEPS, stroke: 1.0, points: averaged(&steps), text: |_| String::new() },
        Series { name: "training", color: TRAIN, stroke: 2.0, points: epochs(|line| line.train_loss), text: |v| format!("{v:.3}") },
        Series { name: "test", color: TEST, stroke: 2.0, points: epochs(|line| line.test_loss), text: |v| format!("{v:.3}") },
    ];
    let percent = |v: f64| format!("{v:.2} %");
    let accuracy = [
        Series { name: "training", color: TRAIN, stroke: 2.0, points: epochs(|line| line.train_acc * 100.0), text: percent },
        Series { name: "test", color: TEST, stroke: 2.0, points: epochs(|line| line.test_acc * 100.0), text: percent },
    ];
    let end = loss.iter().chain(&accuracy).flat_map(|s| &s.points).fold(1.0, |end: f64, point| end.max(point.0));
    let values = |series: &[Series]| series.iter().flat_map(|s| &s.points).map(|p| p.1).collect::<Vec<_>>();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" \
         font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"13\" fill=\"#7a828c\">\n\
         <title>Loss and accuracy while training</title>\n"
    );
    Panel { title: "loss", left: AREA[0], end, axis: Axis::logarithmic(&values(&loss)) }.draw(&mut out, &loss);
    Panel { title: "accuracy in per cent", left: AREA[0] + PITCH, end, axis: Axis::percent(&values(&accuracy)) }.draw(&mut out, &accuracy);
    out.push_str("</svg>\n");
    out
}

/// A line with its entry in the legend.
struct Series {
    name: &'static str,
    color: &'static str,
    stroke: f64,
    points: Vec<(f64, f64)>,
    /// The last value, for the legend.
    text: fn(f64) -> String,
}

/// The vertical axis: its ends are the first and the last tick.
struct Axis {
    ticks: Vec<f64>,
    is_logarithmic: bool,
}

impl Axis {
    /// Ticks at 1, 2 and 5 times powers of ten around `values`; at powers of ten alone where those are many.
    fn logarithmic(values: &[f64]) -> Self {
        let low = values.iter().copied().reduce(f64::min).unwrap_or(1.0).clamp(1e-6, 1e6);
        let high = values.iter().copied().fold(low, f64::max).min(1e7);
        let is_wide = high > low * 1e3;
        let multiples: &[f64] = if is_wide { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let all: Vec<f64> = (-7..=8).flat_map(|power| multiples.iter().map(move |m| m * 10f64.powi(power))).collect();
        let first = all.partition_point(|tick| *tick <= low).saturating_sub(1);
        let last = all.partition_point(|tick| *tick < high).max(first + 1);
        Axis { ticks: all[first..=last].to_vec(), is_logarithmic: true }
    }

    /// From a round number below `values` to 100 or a round number above them.
    fn percent(values: &[f64]) -> Self {
        let low = values.iter().copied().fold(100.0, f64::min);
        let high = values.iter().copied().fold(low, f64::max);
        let step = step_of((high - low).max(2.0), 6.0);
        let first = ((low / step).floor() * step).min(100.0 - step);
        let count = ((high.min(100.0) - first) / step).ceil().max(1.0) as usize;
        Axis { ticks: (0..=count).map(|i| first + step * i as f64).collect(), is_logarithmic: false }
    }

    /// Where a value lies between the first tick (0) and the last (1).
    fn place(&self, value: f64) -> f64 {
        let scale = |v: f64| if self.is_logarithmic { v.max(1e-9).ln() } else { v };
        let (low, high) = (scale(self.ticks[0]), scale(self.ticks[self.ticks.len() - 1]));
        ((scale(value) - low) / (high - low)).clamp(0.0, 1.0)
    }
}

/// One plot.
struct Panel {
    title: &'static str,
    left: f64,
    /// Last epoch of the horizontal axis, which begins at 0.
    end: f64,
    axis: Axis,
}

impl Panel {
    fn draw(&self, out: &mut String, series: &[Series]) {
        let [_, top, width, height] = AREA;
        let (left, right, bottom) = (self.left, self.left + width, top + height);
        let x = |epoch: f64| left + epoch / self.end * width;
        let y = |value: f64| bottom - self.axis.place(value) * height;
        let _ = writeln!(out, "<text x=\"{left}\" y=\"{:.0}\" font-size=\"15\" font-weight=\"600\">{}</text>", top - 18.0, self.title);
        for tick in &self.axis.ticks {
            let at = y(*tick);
            let _ = writeln!(out, "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#7a828c\" stroke-opacity=\"0.3\"/>");
            let _ = writeln!(out, "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", left - 8.0, at + 4.5, number(*tick));
        }
        let step = step_of(self.end, 10.0).max(1.0);
        for i in 0..=(self.end / step) as usize {
            let (tick, at) = (step * i as f64, x(step * i as f64));
            let _ = writeln!(out, "<path d=\"M{at:.1} {bottom}v5\" stroke=\"#7a828c\"/>");
            let _ = writeln!(out, "<text x=\"{at:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>", bottom + 20.0, number(tick));
        }
        let _ = writeln!(out, "<path d=\"M{left} {bottom}H{right}\" stroke=\"#7a828c\"/>");
        let _ = writeln!(out, "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">epoch</text>", (left + right) / 2.0, bottom + 42.0);

        let shown: Vec<&Series> = series.iter().filter(|s| !s.points.is_empty()).collect();
        for line in &shown {
            let points: Vec<String> = line.points.iter().map(|(e, v)| format!("{:.1},{:.1}", x(*e), y(*v))).collect();
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"/>",
                points.join(" "),
                line.color,
                line.stroke
            );
            // Dots mark the epochs, and make a first epoch visible at all.
            for (epoch, value) in line.points.iter().filter(|_| line.stroke > 1.0 && self.end <= 40.0) {
                let _ = writeln!(out, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{}\"/>", x(*epoch), y(*value), line.color);
            }
        }
        // Below the plot, where no line can cross it.
        let (mut at, line_height) = (left, bottom + 68.0);
        for line in &shown {
            let last = line.points.last().map_or(String::new(), |point| (line.text)(point.1));
            let text = format!("{} {last}", line.name);
            let _ = writeln!(
                out,
                "<path d=\"M{at:.0} {:.1}h20\" stroke=\"{}\" stroke-width=\"{}\"/>",
                line_height - 4.5,
                line.color,
                line.stroke
            );
            let _ = writeln!(out, "<text x=\"{:.0}\" y=\"{line_height}\">{}</text>", at + 27.0, text.trim_end());
            at += 46.0 + 7.0 * text.len() as f64;
        }
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that divides `range` into at most `most` parts.
fn step_of(range: f64, most: f64) -> f64 {
    let power = 10f64.powf((range / most).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| range / step <= most + 1e-9).unwrap_or(10.0 * power)
}

/// Without the noise of binary fractions.
fn number(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
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
    use super::super::metrics::StepLine;
    use super::*;

    fn step(step: u64, loss: f64) -> MetricsLine {
        MetricsLine::Step(StepLine { step, epoch: 1, loss, lr: 0.1, images_per_s: 100.0 })
    }

    fn epoch(epoch: u64, test_loss: f64, test_acc: f64) -> MetricsLine {
        MetricsLine::Epoch(EpochLine { epoch, train_loss: 0.5, train_acc: 0.81, test_loss, test_acc, seconds: 1.0 })
    }

    /// Tags are closed and no coordinate is missing or infinite.
    fn check(svg: &str) {
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        for line in svg.lines().filter(|line| line.starts_with("<path") || line.starts_with("<poly") || line.starts_with("<circle")) {
            assert!(line.ends_with("/>"), "{line}");
        }
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
    fn axes_enclose_their_values_at_round_numbers() {
        assert_eq!(Axis::logarithmic(&[2.3, 0.17]).ticks, [0.1, 0.2, 0.5, 1.0, 2.0, 5.0]);
        assert_eq!(Axis::percent(&[72.0, 93.1]).ticks, [70.0, 75.0, 80.0, 85.0, 90.0, 95.0]);
        assert_eq!(Axis::percent(&[100.0]).ticks, [99.5, 100.0]);
        assert_eq!([step_of(9.0, 10.0), step_of(15.0, 10.0), step_of(100.0, 10.0)], [1.0, 2.0, 10.0]);
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
