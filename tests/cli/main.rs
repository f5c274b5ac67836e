//! Drives the program as its users do. Tests that need a device are reported as ignored without one, never as passed.

mod bench;
mod bench_kernels;
mod data;
#[cfg(unix)]
mod documents;
mod faults;
mod infer;
#[cfg(unix)]
mod interrupt;
#[path = "../loopback.rs"]
mod loopback;
#[cfg(unix)]
mod lasting;
mod memory;
mod mixed;
mod pictures;
#[cfg(unix)]
mod places;
mod recipes;
mod report;
mod small_sets;
mod startup;
mod support;
mod torch;
mod train;
mod tune;
mod usage;
mod weights;
mod whiten;

use libtest_mimic::{Arguments, Trial};

/// Whether a test needs a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    /// Linux: its Vulkan loader's variables, `/dev/full`, a shell's limits.
    Linux,
    Device,
    /// A device on Linux whose driver lives with a limit on the size of files: SwiftShader keeps device memory in files.
    FileLimit,
    /// A device with f16.
    Half,
    /// A device with matrix units of its own, or the wish for them: `NIN_WGPU_MATRIX_UNITS=small-subgroups`.
    MatrixUnits,
    /// A device, and PyTorch behind `NIN_WGPU_PYTHON`.
    Torch,
}

/// A test: its name, what it needs, and itself; it panics where something is wrong.
pub type Test = (&'static str, Needs, fn());

fn main() {
    // SAFETY: no other thread runs yet.
    unsafe { nin_wgpu::gpu::prepare_environment() };
    let arguments = Arguments::from_args();
    let adapters = nin_wgpu::gpu::adapters();
    let has_device = !adapters.is_empty();
    let has_half = adapters.first().is_some_and(|adapter| adapter.features.iter().any(|feature| feature == "SHADER_F16"));
    let is_swiftshader = adapters.first().is_some_and(|adapter| adapter.name.contains("SwiftShader"));
    if !has_device {
        eprintln!("no adapter: tests that need one are reported as ignored");
    }
    let suites: &[(&str, &[Test])] = &[
        ("bench_kernels", bench_kernels::TESTS),
        ("usage", usage::TESTS),
        ("infer", infer::TESTS),
        ("weights", weights::TESTS),
        ("train", train::TESTS),
        ("report", report::TESTS),
        ("small_sets", small_sets::TESTS),
        ("data", data::TESTS),
        ("pictures", pictures::TESTS),
        ("recipes", recipes::TESTS),
        ("startup", startup::TESTS),
        ("bench", bench::TESTS),
        ("mixed", mixed::TESTS),
        ("tune", tune::TESTS),
        ("memory", memory::TESTS),
        #[cfg(unix)]
        ("interrupt", interrupt::TESTS),
        #[cfg(unix)]
        ("lasting", lasting::TESTS),
        #[cfg(unix)]
        ("places", places::TESTS),
        ("whiten", whiten::TESTS),
        ("faults", faults::TESTS),
        ("torch", torch::TESTS),
        #[cfg(unix)]
        ("documents", documents::TESTS),
    ];
    let mut trials = Vec::new();
    for (suite, tests) in suites {
        for (name, needs, test) in *tests {
            let can_run = match needs {
                Needs::Nothing => true,
                Needs::Linux => cfg!(target_os = "linux"),
                Needs::Device => has_device,
                Needs::FileLimit => cfg!(target_os = "linux") && has_device && !is_swiftshader,
                Needs::Half => has_half,
                Needs::MatrixUnits => has_device && (support::are_matrix_units_asked_for() || support::has_matrix_units()),
                Needs::Torch => has_device && torch::python().is_some(),
            };
            let run = *test;
            let trial = Trial::test(format!("{suite}::{name}"), move || {
                run();
                Ok(())
            });
            trials.push(trial.with_ignored_flag(!can_run));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    support::clean_up();
    conclusion.exit();
}
