//! `nin-wgpu check`: compares the kernels of every layer on this adapter with the reference in double precision. The kernels that
//! update parameters belong to no layer; `tests/gpu/optimizers.rs` has them.

use super::context::{Context, Paint};
use super::error::{Exit, Failure};
use super::table::{Align, Table};
use super::trust::{Tried, try_matrix_units};
use crate::gpu::AdapterDescription;
use crate::gpu::verify::{Verdict, self_check};
use crate::kernels::{MatrixUnits, Target};
use serde::Serialize;

/// Arguments of the verb.
#[derive(clap::Args)]
pub struct Args {
    /// Fewer cases
    #[arg(long)]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    adapter: &'a str,
    driver: &'a str,
    passed: bool,
    verdicts: Vec<Entry<'a>>,
    cores: Option<u32>,
}

#[derive(Serialize)]
struct Entry<'a> {
    layer: &'a str,
    direction: &'a str,
    cases: usize,
    verdict: &'static str,
    worst: f64,
    failed: &'a [String],
}

impl<'a> From<&'a Verdict> for Entry<'a> {
    fn from(verdict: &'a Verdict) -> Self {
        Entry {
            layer: &verdict.layer,
            direction: &verdict.direction,
            cases: verdict.cases,
            verdict: if verdict.failed.is_empty() { "pass" } else { "fail" },
            worst: verdict.worst,
            failed: &verdict.failed,
        }
    }
}

/// Runs the self-check and prints a verdict per layer and direction.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let mut gpu = context.open_gpu()?;
    let units = units(gpu.target());
    let mut verdicts = Vec::new();
    if gpu.target().matrix_units != MatrixUnits::None {
        let tried = try_matrix_units(&mut gpu, context)?;
        if tried.is_dangerous {
            gpu.forbid_matrix_units();
        }
        verdicts.push(verdict_on(tried));
    }
    verdicts.extend(self_check(&gpu, args.quick, &mut |line| context.detail(line))?);
    let passed = verdicts.iter().all(|verdict| verdict.failed.is_empty());
    if args.json {
        context.print_json(&report(gpu.adapter(), passed, &verdicts))?;
    } else {
        context.print(&text(gpu.adapter(), units, &verdicts, context.paint()))?;
    }
    Ok(if passed { Exit::Done } else { Exit::CheckFailed })
}

/// The row of the trial in a process of its own.
fn verdict_on(tried: Tried) -> Verdict {
    Verdict {
        failed_in_workgroup_memory: usize::from(tried.wrong.is_some() && !tried.is_dangerous),
        layer: "matrix units".into(),
        direction: String::new(),
        cases: 1,
        failed: tried.wrong.into_iter().collect(),
        worst: 0.0,
    }
}

fn report<'a>(adapter: &'a AdapterDescription, passed: bool, verdicts: &'a [Verdict]) -> Report<'a> {
    let verdicts = verdicts.iter().map(Entry::from).collect();
    Report { adapter: &adapter.name, driver: &adapter.driver, passed, verdicts, cores: adapter.cores }
}

/// What there is for mixed precision.
fn units(target: &Target) -> &'static str {
    match (target.f16, target.matrix_units) {
        (false, _) => "No half precision: kernels in f32 only.",
        (true, MatrixUnits::None) => "Half precision without matrix units.",
        (true, MatrixUnits::Sixteen) => "Half precision with matrix units for 16 x 16.",
        (true, MatrixUnits::Eight) => "Half precision with matrix units for 8 x 8.",
        (true, MatrixUnits::Emulated) => "Half precision with emulated matrix units.",
    }
}

/// Where kernels that share workgroup memory fail, and no others.
const HINT: &str = "\
Only kernels that share workgroup memory fail. Does NIN_WGPU_MATRIX_UNITS=off make them pass? Shaders for matrix units declare
Vulkan's memory model without marking what they share, and a strict driver may order that wrongly: see
docs/upstream/naga-memory-model.md. Where others fail as well, look at the driver's barriers first.
";

fn text(adapter: &AdapterDescription, units: &str, verdicts: &[Verdict], paint: Paint) -> String {
    let mut table = Table::new(&[
        ("layer", Align::Left),
        ("direction", Align::Left),
        ("cases", Align::Right),
        ("worst error", Align::Right),
        ("verdict", Align::Left),
    ]);
    let mut failures = String::new();
    for verdict in verdicts {
        table.row(vec![
            verdict.layer.clone(),
            verdict.direction.clone(),
            verdict.cases.to_string(),
            format!("{:.0} %", verdict.worst * 100.0),
            if verdict.failed.is_empty() { paint.green("pass") } else { paint.red("FAIL") },
        ]);
        for line in &verdict.failed {
            let what = format!("{} {}", verdict.layer, verdict.direction);
            failures.push_str(&format!("{} {}: {line}\n", paint.red("FAIL"), what.trim_end()));
        }
    }
    let cases: usize = verdicts.iter().map(|verdict| verdict.cases).sum();
    let failed: usize = verdicts.iter().map(|verdict| verdict.failed.len()).sum();
    let in_workgroup_memory: usize = verdicts.iter().map(|verdict| verdict.failed_in_workgroup_memory).sum();
    if failed > 0 && in_workgroup_memory == failed && cases > failed {
        failures.push_str(HINT);
    }
    let end = match failed {
        0 => format!("{} all {cases} cases agree with the reference", paint.green("pass:")),
        _ => format!("{} {failed} of {cases} cases differ from the reference", paint.red("FAIL:")),
    };
    let cores = adapter.cores.map_or("an unknown number of cores".into(), |cores| format!("{cores} cores"));
    format!(
        "{} ({}, {}, {cores})\n{units}\nThe worst error is in per cent of what rounding may cause.\n\n{}\n{failures}{end}\n",
        adapter.name,
        adapter.backend,
        adapter.driver,
        table.render()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter() -> AdapterDescription {
        AdapterDescription {
            index: 0,
            name: "llvmpipe".into(),
            backend: "vulkan",
            kind: "cpu",
            driver: "Mesa".into(),
            ids: [0x10005, 0],
            limits: Vec::new(),
            features: Vec::new(),
            cores: Some(2),
        }
    }

    fn verdict(failed: &[&str]) -> Verdict {
        let failed = failed.iter().map(|line| (*line).to_string()).collect();
        Verdict { layer: "conv2d".into(), direction: "forward".into(), cases: 3, failed, failed_in_workgroup_memory: 0, worst: 0.25 }
    }

    #[test]
    fn failures_are_named() {
        let json = serde_json::to_string(&report(&adapter(), false, &[verdict(&["5x5: off by 2"])])).unwrap();
        assert_eq!(
            json,
            r#"{"adapter":"llvmpipe","driver":"Mesa","passed":false,"verdicts":[{"layer":"conv2d","direction":"forward","cases":3,"verdict":"fail","worst":0.25,"failed":["5x5: off by 2"]}],"cores":2}"#
        );
        let text = text(&adapter(), "Half precision without matrix units.", &[verdict(&[]), verdict(&["5x5: off by 2"])], Paint::NONE);
        assert!(text.contains("5x5: off by 2") && text.contains("1 of 6 cases") && !text.contains(HINT), "{text}");
    }

    #[test]
    fn failures_in_workgroup_memory_alone_get_a_hint() {
        let shared = Verdict { failed_in_workgroup_memory: 1, ..verdict(&["5x5: off by 2"]) };
        let text = |verdicts: &[Verdict]| text(&adapter(), "", verdicts, Paint::NONE);
        assert!(text(&[verdict(&[]), shared.clone()]).contains(HINT));
        assert!(!text(&[verdict(&["1x1: off by 1"]), shared]).contains(HINT));
    }

    #[test]
    fn matrix_units_that_crash_are_a_row() {
        let crashed = Tried { wrong: Some("the driver ended the process (signal 11)".into()), is_dangerous: true, is_lasting: true };
        let text = text(&adapter(), "", &[verdict_on(crashed), verdict(&[])], Paint::NONE);
        assert!(text.contains("\nFAIL matrix units: the driver ended the process (signal 11)\n") && !text.contains(HINT), "{text}");
    }
}
