//! What `nin-wgpu bench` prints.

use super::format;
use super::table::{Align, Table};
use crate::gpu::{Gpu, Roofline};
use crate::passes::Pass;
use crate::train::bench::{LayerTime, Measurement, Mode, Spread};
use crate::train::config::TrainConfig;
use crate::train::plot::SweepPoint;
use serde::Serialize;

/// The document of `--json`.
#[derive(Serialize)]
pub struct Report<'a> {
    adapter: &'a str,
    driver: &'a str,
    model: &'a str,
    mode: &'static str,
    batch_size: usize,
    precision: &'static str,
    images_per_s: f64,
    ms_per_step: Milliseconds,
    gflops: f64,
    first_step_s: f64,
    peak_gpu_bytes: u64,
    layers: Vec<Layer<'a>>,
    matrix_units: bool,
    compile_s: f64,
    host_ms_per_step: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<&'a str>,
    /// Only where it was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    robust_access: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roofline: Option<Best>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sweep: Option<Vec<Size>>,
}

#[derive(Serialize)]
struct Best {
    gflops: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    matrix_gflops: Option<f64>,
    cached_gb_per_s: f64,
    gb_per_s: f64,
}

#[derive(Serialize)]
struct Size {
    batch_size: usize,
    images_per_s: f64,
    ms_per_step: Milliseconds,
}

#[derive(Serialize)]
struct Milliseconds {
    median: f64,
    p10: f64,
    p90: f64,
}

impl From<Spread> for Milliseconds {
    fn from(spread: Spread) -> Self {
        Milliseconds { median: spread.median * 1e3, p10: spread.p10 * 1e3, p90: spread.p90 * 1e3 }
    }
}

impl From<&SweepPoint> for Size {
    fn from(point: &SweepPoint) -> Self {
        let [p10, median, p90] = point.milliseconds;
        Size { batch_size: point.batch, images_per_s: point.images_per_s, ms_per_step: Milliseconds { median, p10, p90 } }
    }
}

#[derive(Serialize)]
struct Layer<'a> {
    name: &'a str,
    pass: &'static str,
    ms: f64,
    gflops: f64,
    kernel: String,
}

impl<'a> From<&'a LayerTime> for Layer<'a> {
    fn from(layer: &'a LayerTime) -> Self {
        let LayerTime { name, pass, kernels, seconds, flops, .. } = layer;
        Layer { name, pass: pass.name(), ms: seconds * 1e3, gflops: gflops(*flops, *seconds), kernel: kernels.join(JOINT) }
    }
}

/// Between the kernels of a layer that run one after the other.
const JOINT: &str = " + ";

fn gflops(flops: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { flops / seconds * 1e-9 } else { 0.0 }
}

impl<'a> Report<'a> {
    /// Layers count where the device's own clock timed them. `fallback` says why mixed precision did not run as it was asked for.
    pub fn new(
        gpu: &'a Gpu,
        config: &'a TrainConfig,
        mode: Mode,
        measured: &'a Measurement,
        fallback: Option<&'a str>,
        roofline: Option<Roofline>,
        sweep: Option<&[SweepPoint]>,
    ) -> Self {
        let layers = measured.layers.iter().filter(|_| gpu.has_timestamps());
        Report {
            adapter: &gpu.adapter().name,
            driver: &gpu.adapter().driver,
            model: &config.model,
            mode: if mode == Mode::Train { "train" } else { "infer" },
            batch_size: measured.batch,
            precision: config.precision.name(),
            images_per_s: measured.images_per_s(),
            ms_per_step: measured.step.into(),
            gflops: measured.flops_per_s() * 1e-9,
            first_step_s: measured.first_step_seconds,
            peak_gpu_bytes: measured.bytes,
            layers: layers.map(Layer::from).collect(),
            matrix_units: measured.matrix_units,
            compile_s: measured.compile_seconds(),
            host_ms_per_step: measured.host_seconds * 1e3,
            fallback,
            robust_access: (!gpu.is_robust()).then_some(false),
            roofline: roofline.map(|best| Best {
                gflops: best.flops_per_s * 1e-9,
                matrix_gflops: best.matrix_flops_per_s.and_then(Result::ok).map(|rate| rate * 1e-9),
                cached_gb_per_s: best.cached_bytes_per_s * 1e-9,
                gb_per_s: best.bytes_per_s * 1e-9,
            }),
            sweep: sweep.map(|points| points.iter().map(Size::from).collect()),
        }
    }
}

/// The report for people, in lines of at most `width` characters where it can be.
pub fn text(report: &Report<'_>, measured: &Measurement, width: Option<usize>) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<13} {value}\n"));
    let parts = if measured.micro_batch < measured.batch { format!(" in parts of {}", measured.micro_batch) } else { String::new() };
    let units = if report.matrix_units { " on matrix units" } else { "" };
    line("model", format!("{}, {}, {}{units}, {} images a step{parts}", report.model, report.mode, report.precision, report.batch_size));
    if let Some(why) = report.fallback {
        line("fallback", why.to_string());
    }
    if report.robust_access == Some(false) {
        line("robust access", "left out for buffers".into());
    }
    line("adapter", format!("{} ({})", report.adapter, report.driver));
    line("speed", format!("{:.1} images/s, {:.1} GFLOP/s", report.images_per_s, report.gflops));
    let Milliseconds { median, p10, p90 } = report.ms_per_step;
    line("step", format!("{median:.2} ms, the median of {}; 10 % under {p10:.2} ms, 10 % over {p90:.2} ms", measured.steps));
    let share = measured.host_seconds / measured.step.median.max(1e-9);
    line("host", format!("{:.3} ms a step, {}", report.host_ms_per_step, format::percent(share)));
    let (first, build) = (report.first_step_s, measured.build_seconds);
    line("first step", format!("{first:.2} s from the opened device, {build:.2} s of it building the engine"));
    let (made, ran) = (measured.pipeline_seconds, measured.first_run_seconds);
    line("compiling", format!("{:.2} s: {made:.2} s making pipelines, {ran:.2} s more in the first step than in others", report.compile_s));
    line("device memory", format::bytes(report.peak_gpu_bytes));
    if let Some(Best { gflops, matrix_gflops, cached_gb_per_s, gb_per_s }) = report.roofline {
        let units = matrix_gflops.map_or(String::new(), |rate| format!(", {rate:.1} GFLOP/s on matrix units"));
        let bytes = format!("{cached_gb_per_s:.1} GB/s from caches, {gb_per_s:.1} GB/s from buffer to buffer");
        line("roofline", format!("{gflops:.1} GFLOP/s in registers{units}, {bytes}"));
    }
    if !measured.layers.is_empty() {
        text.push('\n');
        text.push_str(&layers(&measured.layers, report.roofline.as_ref(), width));
    }
    if let Some(sizes) = &report.sweep {
        text.push('\n');
        text.push_str(&sweep(sizes));
    }
    text
}

/// Names of a layer's kernels, short: an entry point that is called as the pass goes without saying.
fn short(kernels: &[String], pass: Pass) -> String {
    let names = kernels.iter().map(|name| name.strip_suffix(pass.name()).and_then(|rest| rest.strip_suffix("::")).unwrap_or(name));
    names.collect::<Vec<_>>().join(JOINT)
}

fn layers(layers: &[LayerTime], best: Option<&Best>, width: Option<usize>) -> String {
    let mut headings = vec![
        ("layer", Align::Left),
        ("type", Align::Left),
        ("pass", Align::Left),
        ("ms", Align::Right),
        ("share", Align::Right),
        ("GFLOP/s", Align::Right),
    ];
    headings.extend(best.map(|_| ("of peak", Align::Right)));
    headings.push(("kernels", Align::Left));
    let mut table = Table::new(&headings);
    let total: f64 = layers.iter().map(|layer| layer.seconds).sum();
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    // What a layer could reach at best depends on what multiplies in it; several layers together have no such rate.
    let peak_of = |layer: &LayerTime| best.map(|best| best.matrix_gflops.filter(|_| layer.matrix_units).unwrap_or(best.gflops));
    let mut row = |[name, kind, pass, kernels]: [&str; 4], seconds: f64, flops: f64, peak: Option<f64>| {
        let rate = gflops(flops, seconds);
        let computed = |text: String| if flops > 0.0 { text } else { String::new() };
        let mut cells = vec![name.into(), kind.into(), pass.into(), format!("{:.3}", seconds * 1e3), percent(seconds / total.max(1e-12))];
        cells.push(computed(format!("{rate:.1}")));
        let share = peak.map_or(String::new(), |peak| computed(percent(rate / peak.max(1e-9))));
        cells.extend(best.map(|_| share));
        cells.push(kernels.into());
        table.row(cells);
    };
    for layer in layers {
        let names = [&layer.name, layer.kind, layer.pass.name(), &short(&layer.kernels, layer.pass)];
        row(names, layer.seconds, layer.flops, peak_of(layer));
    }
    let peak = best.filter(|_| layers.iter().all(|layer| !layer.matrix_units)).map(|best| best.gflops);
    row(["all", "", "", ""], total, layers.iter().map(|layer| layer.flops).sum(), peak);
    table.render_within(width)
}

fn sweep(sizes: &[Size]) -> String {
    let mut table = Table::new(&[
        ("batch size", Align::Right),
        ("images/s", Align::Right),
        ("ms per step", Align::Right),
        ("10 % under", Align::Right),
        ("10 % over", Align::Right),
    ]);
    for Size { batch_size, images_per_s, ms_per_step: Milliseconds { median, p10, p90 } } in sizes {
        let milliseconds = [median, p10, p90].map(|ms| format!("{ms:.2}"));
        let cells = [batch_size.to_string(), format!("{images_per_s:.1}")].into_iter().chain(milliseconds);
        table.row(cells.collect());
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::Pass;

    fn measured() -> Measurement {
        let layer = |name: &str, kind, pass, kernels: &[&str], seconds, flops| {
            let kernels: Vec<String> = kernels.iter().map(|name| (*name).to_string()).collect();
            let matrix_units = kernels.iter().any(|name| name.contains("matrix"));
            LayerTime { name: name.into(), kind, pass, kernels, matrix_units, seconds, flops }
        };
        Measurement {
            batch: 8,
            micro_batch: 4,
            step: Spread { median: 0.5, p10: 0.25, p90: 1.0 },
            steps: 7,
            host_seconds: 0.005,
            build_seconds: 1.0,
            first_step_seconds: 2.0,
            pipeline_seconds: 0.25,
            first_run_seconds: 0.5,
            matrix_units: true,
            flops: 4e9,
            bytes: 1 << 20,
            layers: vec![
                layer("0.0", "Conv2d", Pass::Forward, &["conv2d_matrix_64x64_f16::forward"], 0.375, 3e9),
                layer("0.0", "Conv2d", Pass::BackwardWeight, &["conv2d_tiled::backward_weight", "conv2d_reduce::sum"], 0.1, 1e9),
                layer("all parameters", "", Pass::Update, &["sgd::update"], 0.025, 0.0),
            ],
        }
    }

    fn report<'a>(measured: &'a Measurement, has_layers: bool, best: Option<Best>, sizes: Option<Vec<Size>>) -> Report<'a> {
        Report {
            adapter: "llvmpipe",
            driver: "Mesa",
            model: "nin",
            mode: "train",
            batch_size: measured.batch,
            precision: "f32",
            images_per_s: measured.images_per_s(),
            ms_per_step: measured.step.into(),
            gflops: measured.flops_per_s() * 1e-9,
            first_step_s: measured.first_step_seconds,
            peak_gpu_bytes: measured.bytes,
            layers: measured.layers.iter().filter(|_| has_layers).map(Layer::from).collect(),
            matrix_units: measured.matrix_units,
            compile_s: measured.compile_seconds(),
            host_ms_per_step: measured.host_seconds * 1e3,
            fallback: sizes.as_ref().map(|_| "it is so"),
            robust_access: sizes.as_ref().map(|_| false),
            roofline: best,
            sweep: sizes,
        }
    }

    #[test]
    fn json_has_the_documented_keys_in_order() {
        let measured = measured();
        let json = serde_json::to_string(&report(&measured, true, None, None)).unwrap();
        let expected = concat!(
            r#"{"adapter":"llvmpipe","driver":"Mesa","model":"nin","mode":"train","batch_size":8,"precision":"f32","images_per_s":16.0,"#,
            r#""ms_per_step":{"median":500.0,"p10":250.0,"p90":1000.0},"gflops":8.0,"first_step_s":2.0,"peak_gpu_bytes":1048576,"#,
            r#""layers":[{"name":"0.0","pass":"forward","ms":375.0,"gflops":8.0,"kernel":"conv2d_matrix_64x64_f16::forward"},"#,
            r#"{"name":"0.0","pass":"backward_weight","ms":100.0,"gflops":10.0,"#,
            r#""kernel":"conv2d_tiled::backward_weight + conv2d_reduce::sum"},"#,
            r#"{"name":"all parameters","pass":"update","ms":25.0,"gflops":0.0,"kernel":"sgd::update"}],"#,
            r#""matrix_units":true,"compile_s":0.75,"host_ms_per_step":5.0}"#
        );
        assert_eq!(json, expected);
        let point = SweepPoint { batch: 2, images_per_s: 4.0, milliseconds: [400.0, 500.0, 600.0] };
        let extended = report(&measured, false, Some(best(None)), Some(vec![Size::from(&point)]));
        let json = serde_json::to_string(&extended).unwrap();
        assert!(json.contains(r#""layers":[],"#), "{json}");
        let end = concat!(
            r#""host_ms_per_step":5.0,"fallback":"it is so","robust_access":false,"roofline":{"gflops":16.0,"cached_gb_per_s":8.0,"gb_per_s":4.0},"#,
            r#""sweep":[{"batch_size":2,"images_per_s":4.0,"ms_per_step":{"median":500.0,"p10":400.0,"p90":600.0}}]}"#
        );
        assert!(json.ends_with(end), "{json}");
    }

    fn best(matrix_gflops: Option<f64>) -> Best {
        Best { gflops: 16.0, matrix_gflops, cached_gb_per_s: 8.0, gb_per_s: 4.0 }
    }

    #[test]
    fn text_shows_shares_of_the_step_and_of_the_peak() {
        let measured = measured();
        let plain = text(&report(&measured, true, None, None), &measured, None);
        assert!(plain.contains("8 images a step in parts of 4") && !plain.contains("of peak"), "{plain}");
        assert!(plain.contains("5.000 ms a step, 1.00 %"), "{plain}");
        let with_peak = text(&report(&measured, true, Some(best(None)), None), &measured, None);
        let row = with_peak.lines().find(|line| line.contains("forward")).unwrap();
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(cells, ["0.0", "Conv2d", "forward", "375.000", "75.0", "%", "8.0", "50.0", "%", "conv2d_matrix_64x64_f16"]);
        let update = with_peak.lines().find(|line| line.contains("update")).unwrap();
        assert!(update.contains("5.0 %") && update.ends_with("  sgd"), "{update}");

        // Where units multiply, the peak is theirs.
        let with_units = text(&report(&measured, true, Some(best(Some(32.0))), None), &measured, None);
        assert!(with_units.contains("16.0 GFLOP/s in registers, 32.0 GFLOP/s on matrix units"), "{with_units}");
        let share = |what: &str| with_units.lines().find(|line| line.contains(what)).unwrap().to_string();
        assert!(share(" forward ").contains("8.0   25.0 %") && share("backward_weight ").contains("10.0   62.5 %"), "{with_units}");
    }

    #[test]
    fn text_names_kernels_and_keeps_within_the_terminal() {
        let measured = measured();
        let wide = text(&report(&measured, true, None, None), &measured, None);
        assert!(wide.contains("f32 on matrix units") && wide.contains("0.75 s: 0.25 s making pipelines, 0.50 s more"), "{wide}");
        let row = wide.lines().find(|line| line.contains("backward_weight")).unwrap();
        assert!(row.ends_with("10.0  conv2d_tiled + conv2d_reduce::sum"), "{wide}");
        let narrow = text(&report(&measured, true, None, None), &measured, Some(80));
        let table = narrow.split("\n\n").nth(1).unwrap();
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        assert!(table.contains("10.0\n    conv2d_tiled + conv2d_reduce::sum\n"), "{narrow}");
        let fallen = text(&report(&measured, true, None, Some(Vec::new())), &measured, None);
        assert!(fallen.contains("fallback      it is so\n"), "{fallen}");
    }
}
