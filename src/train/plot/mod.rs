//! Pictures: the curves of a run, and how fast a model is by batch size.
//!
//! Colours are of middle brightness and there is no background, so that they read on white and on black.

mod curves;
mod sweep;

pub use curves::{figures, svg, write};
pub use sweep::{SweepPoint, sweep_svg, write_sweep};

use std::fmt::Write as _;

/// Of one panel, and what each further one adds.
const WIDTH: f64 = 468.0;
const PITCH: f64 = 492.0;
const HEIGHT: f64 = 408.0;
/// Plot area of the first panel.
const AREA: [f64; 4] = [64.0, 44.0, 384.0, 276.0];

const ORANGE: &str = "#e07b1a";
const BLUE: &str = "#3f87dd";
const GREY: &str = "#9a8f86";

/// A line with its entry in the legend.
struct Series {
    /// Empty for none.
    name: &'static str,
    color: &'static str,
    stroke: f64,
    points: Vec<(f64, f64)>,
    /// A value in words: the last one in the legend, each at its dot.
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

    /// From 0 to a round number above `values`.
    fn from_zero(values: &[f64]) -> Self {
        let high = values.iter().copied().fold(0.0, f64::max).clamp(1e-6, 1e12);
        let step = step_of(high, 6.0);
        let count = (high / step).ceil().max(1.0) as usize;
        Axis { ticks: (0..=count).map(|i| step * i as f64).collect(), is_logarithmic: false }
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

/// The horizontal axis.
struct Across {
    label: &'static str,
    ends: [f64; 2],
    ticks: Vec<f64>,
    is_logarithmic: bool,
    /// Dots mark the points of the thicker lines, and make a single one visible at all.
    has_dots: bool,
}

impl Across {
    /// Where a value lies between the ends.
    fn place(&self, value: f64) -> f64 {
        let scale = |v: f64| if self.is_logarithmic { v.max(1e-9).ln() } else { v };
        let [low, high] = self.ends.map(scale);
        if high > low { (scale(value) - low) / (high - low) } else { 0.5 }
    }
}

/// One plot.
struct Panel<'a> {
    title: &'static str,
    across: Across,
    axis: Axis,
    series: &'a [Series],
}

/// Plots beside each other.
fn picture(title: &str, panels: &[Panel<'_>]) -> String {
    let width = WIDTH + PITCH * panels.len().saturating_sub(1) as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" height=\"{HEIGHT}\" role=\"img\" \
         font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"13\" fill=\"#7a828c\">\n\
         <title>{title}</title>\n"
    );
    for (number, panel) in panels.iter().enumerate() {
        panel.draw(&mut out, AREA[0] + PITCH * number as f64);
    }
    out.push_str("</svg>\n");
    out
}

impl Panel<'_> {
    fn draw(&self, out: &mut String, left: f64) {
        let [_, top, width, height] = AREA;
        let (right, bottom) = (left + width, top + height);
        let x = |value: f64| left + self.across.place(value) * width;
        let y = |value: f64| bottom - self.axis.place(value) * height;
        let _ = writeln!(out, "<text x=\"{left}\" y=\"{:.0}\" font-size=\"15\" font-weight=\"600\">{}</text>", top - 18.0, self.title);
        for tick in &self.axis.ticks {
            let at = y(*tick);
            let _ = writeln!(out, "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#7a828c\" stroke-opacity=\"0.3\"/>");
            let _ = writeln!(out, "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", left - 8.0, at + 4.5, number(*tick));
        }
        for &tick in &self.across.ticks {
            let at = x(tick);
            let _ = writeln!(out, "<path d=\"M{at:.1} {bottom}v5\" stroke=\"#7a828c\"/>");
            let _ = writeln!(out, "<text x=\"{at:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>", bottom + 20.0, number(tick));
        }
        let _ = writeln!(out, "<path d=\"M{left} {bottom}H{right}\" stroke=\"#7a828c\"/>");
        let (middle, label) = ((left + right) / 2.0, self.across.label);
        let _ = writeln!(out, "<text x=\"{middle:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{label}</text>", bottom + 42.0);

        let shown: Vec<&Series> = self.series.iter().filter(|s| !s.points.is_empty()).collect();
        for line in &shown {
            let points: Vec<String> = line.points.iter().map(|(e, v)| format!("{:.1},{:.1}", x(*e), y(*v))).collect();
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"/>",
                points.join(" "),
                line.color,
                line.stroke
            );
            for (across, value) in line.points.iter().filter(|_| line.stroke > 1.0 && self.across.has_dots) {
                // The transparent rim makes the dot easier to point at.
                let _ = writeln!(
                    out,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{}\" stroke=\"#000\" stroke-opacity=\"0\" stroke-width=\"12\">\
                     <title>{} at {} {}: {}</title></circle>",
                    x(*across),
                    y(*value),
                    line.color,
                    line.name,
                    self.across.label,
                    number(*across),
                    (line.text)(*value)
                );
            }
        }
        // Below the plot, where no line can cross it.
        let (mut at, line_height) = (left, bottom + 68.0);
        for line in shown.iter().filter(|line| !line.name.is_empty()) {
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
            at += 42.0 + 6.4 * text.len() as f64;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Tags are closed and no coordinate is missing or infinite.
    pub fn check(svg: &str) {
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        for line in svg.lines().filter(|line| line.starts_with("<path") || line.starts_with("<poly")) {
            assert!(line.ends_with("/>"), "{line}");
        }
        assert!(svg.lines().filter(|line| line.starts_with("<circle")).all(|line| line.ends_with("</title></circle>")), "{svg}");
    }

    #[test]
    fn axes_enclose_their_values_at_round_numbers() {
        assert_eq!(Axis::logarithmic(&[2.3, 0.17]).ticks, [0.1, 0.2, 0.5, 1.0, 2.0, 5.0]);
        assert_eq!(Axis::percent(&[72.0, 93.1]).ticks, [70.0, 75.0, 80.0, 85.0, 90.0, 95.0]);
        assert_eq!(Axis::percent(&[100.0]).ticks, [99.5, 100.0]);
        assert_eq!(Axis::from_zero(&[231.0, 40.0]).ticks, [0.0, 50.0, 100.0, 150.0, 200.0, 250.0]);
        assert_eq!(Axis::from_zero(&[]).ticks.len(), 6);
        assert_eq!([step_of(9.0, 10.0), step_of(15.0, 10.0), step_of(100.0, 10.0)], [1.0, 2.0, 10.0]);
    }

    #[test]
    fn a_single_place_is_in_the_middle() {
        let across = |ends| Across { label: "x", ends, ticks: Vec::new(), is_logarithmic: true, has_dots: true };
        assert_eq!(across([8.0, 8.0]).place(8.0), 0.5);
        assert!((across([1.0, 16.0]).place(4.0) - 0.5).abs() < 1e-12);
    }
}
