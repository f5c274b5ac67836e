//! Tests that need a device. Without one they are reported as ignored, never as passed.

mod api;
mod conv_shapes;
mod differences;
mod golden_ops;
mod kernel_folder;
mod kernels;
mod matrix_units;
mod memory;
mod mixed;
mod network;
mod onnx;
mod optimizers;
mod pools;
mod resume;
mod roofline;
mod sheets;
mod training;
mod tuner;

use libtest_mimic::{Arguments, Trial};
use nin_wgpu::gpu::{Gpu, GpuError, OpenOptions, prepare_environment};
use std::sync::Arc;

/// A device shared by the tests; they run one after the other, because the device is one.
pub type Device = Arc<Gpu>;

fn main() {
    // SAFETY: no other thread runs yet.
    unsafe { prepare_environment() };
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let device = match Gpu::open(&OpenOptions::default()) {
        Ok(gpu) => Some(Arc::new(gpu)),
        Err(GpuError::NoAdapter) => None,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    };
    match &device {
        Some(gpu) => eprintln!("device: {} ({})", gpu.adapter().name, gpu.adapter().driver),
        None => eprintln!("no adapter: every test is reported as ignored"),
    }
    let mut trials = Vec::new();
    trials.extend(api::trials(device.as_ref()));
    trials.extend(kernels::trials(device.as_ref()));
    trials.extend(network::trials(device.as_ref()));
    trials.extend(matrix_units::trials(device.as_ref()));
    trials.extend(mixed::trials(device.as_ref()));
    trials.extend(memory::trials(device.as_ref()));
    trials.extend(conv_shapes::trials(device.as_ref()));
    trials.extend(pools::trials(device.as_ref()));
    trials.extend(golden_ops::trials(device.as_ref()));
    trials.extend(optimizers::trials(device.as_ref()));
    trials.extend(onnx::trials(device.as_ref()));
    trials.extend(resume::trials(device.as_ref()));
    trials.extend(roofline::trials(device.as_ref()));
    trials.extend(sheets::trials(device.as_ref()));
    trials.extend(training::trials(device.as_ref()));
    trials.extend(differences::trials(device.as_ref()));
    trials.extend(tuner::trials(device.as_ref()));
    trials.extend(kernel_folder::trials(device.as_ref()));
    libtest_mimic::run(&arguments, trials).exit();
}

/// A test of the device; ignored where there is none.
pub fn trial(device: Option<&Device>, name: impl Into<String>, test: impl FnOnce(&Gpu) -> Result<(), String> + Send + 'static) -> Trial {
    match device.cloned() {
        Some(gpu) => Trial::test(name, move || test(&gpu).map_err(Into::into)),
        None => Trial::test(name, || Ok(())).with_ignored_flag(true),
    }
}
