//! Images per second and the time of a step over batch sizes.

use super::super::error::RunError;
use super::{Across, Axis, BLUE, GREY, ORANGE, Panel, Series, picture};
use crate::weights::replace_file;
use std::path::Path;

/// What was measured at one batch size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SweepPoint {
    /// Images of a step.
    pub batch: usize,
    /// Images per second.
    pub images_per_s: f64,
    /// Milliseconds of a step: one in ten is shorter, half are, nine in ten are.
    pub milliseconds: [f64; 3],
}

/// Draws `points` into `target`, which is replaced whole.
pub fn write_sweep(target: &Path, points: &[SweepPoint]) -> Result<(), RunError> {
    let text = sweep_svg(points);
    replace_file(target, |writer| writer.write_all(text.as_bytes())).map_err(RunError::io(target, "write the picture"))
}

/// The picture: images per second on the left, milliseconds of a step on the right, in order of the batch size.
pub fn sweep_svg(points: &[SweepPoint]) -> String {
    let line = |name, color, stroke, value: &dyn Fn(&SweepPoint) -> f64, text: fn(f64) -> String| {
        let points = points.iter().map(|point| (point.batch as f64, value(point))).collect();
        Series { name, color, stroke, points, text }
    };
    let speed = [line("images/s", BLUE, 2.0, &|point| point.images_per_s, |v| format!("{v:.1}"))];
    let time = [
        line("10 % under, 10 % over", GREY, 1.0, &|point| point.milliseconds[0], |_| String::new()),
        line("", GREY, 1.0, &|point| point.milliseconds[2], |_| String::new()),
        line("median", ORANGE, 2.0, &|point| point.milliseconds[1], |v| format!("{v:.1} ms")),
    ];
    let values = |series: &[Series]| series.iter().flat_map(|s| &s.points).map(|p| p.1).collect::<Vec<_>>();
    let across = || {
        let ticks: Vec<f64> = points.iter().map(|point| point.batch as f64).collect();
        let end = |at: Option<&f64>| at.copied().unwrap_or(1.0);
        Across { label: "batch size", ends: [end(ticks.first()), end(ticks.last())], ticks, is_logarithmic: true, has_dots: true }
    };
    picture(
        "Speed by batch size",
        &[
            Panel { title: "images per second", across: across(), axis: Axis::from_zero(&values(&speed)), series: &speed },
            Panel { title: "milliseconds of a step", across: across(), axis: Axis::logarithmic(&values(&time)), series: &time },
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::super::AREA;
    use super::super::tests::check;
    use super::*;

    fn point(batch: usize, ms: f64) -> SweepPoint {
        SweepPoint { batch, images_per_s: batch as f64 / ms * 1e3, milliseconds: [ms * 0.9, ms, ms * 1.2] }
    }

    #[test]
    fn every_size_is_a_dot_and_a_tick() {
        let svg = sweep_svg(&[point(1, 10.0), point(4, 20.0), point(16, 64.0)]);
        check(&svg);
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (4, 6));
        for text in [">images per second<", ">milliseconds of a step<", ">batch size<", ">images/s 250.0<", ">median 64.0 ms<"] {
            assert!(svg.contains(text), "{text}\n{svg}");
        }
        // Batch size 4 lies half-way from 1 to 16.
        assert!(svg.contains(&format!("cx=\"{:.1}\"", AREA[0] + AREA[2] / 2.0)), "{svg}");
    }

    #[test]
    fn one_size_or_none_has_a_picture() {
        check(&sweep_svg(&[]));
        check(&sweep_svg(&[point(8, 3.0)]));
    }
}
