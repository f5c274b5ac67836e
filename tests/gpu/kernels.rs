//! Every kernel against its f64 reference: the cases of the registry, with the kernels of every device class.

use crate::{Device, trial};
use libtest_mimic::Trial;
use nin_wgpu::gpu::Gpu;
use nin_wgpu::gpu::verify::run_case;
use nin_wgpu::graph::Case;
use nin_wgpu::kernels::{DeviceClass, Target};
use nin_wgpu::ops::REGISTRY;

pub const CLASSES: [(DeviceClass, &str); 3] =
    [(DeviceClass::Cpu, "cpu"), (DeviceClass::Integrated, "integrated"), (DeviceClass::Discrete, "discrete")];

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for layer in REGISTRY {
        for (class, label) in CLASSES {
            let name = format!("registry::{}::{label}", layer.name);
            trials.push(trial(device, name, move |gpu| run_all(gpu, class, (layer.cases)(false))));
        }
    }
    trials
}

/// Runs cases with every kernel of a class that the device may be given, whatever the size of the case; the error lists
/// those that failed.
pub fn run_all(gpu: &Gpu, class: DeviceClass, cases: Vec<Case>) -> Result<(), String> {
    let targets = Target { class, ..gpu.target().clone() }.with_every_choice();
    let mut count = 0;
    let mut failed = Vec::new();
    for case in cases {
        let has_variants = case.op.name().starts_with("conv2d");
        for target in targets.iter().take(if has_variants { usize::MAX } else { 1 }) {
            count += 1;
            match run_case(gpu, target, &case) {
                Ok(Ok(_)) => {}
                Ok(Err(message)) => failed.push(format!("{} {}: {message}", case.op.name(), case.name)),
                Err(error) => return Err(format!("{} {}: {error}", case.op.name(), case.name)),
            }
        }
    }
    if count == 0 {
        return Err("no case was run".into());
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("{} of {count} failed:\n{}", failed.len(), failed[..failed.len().min(10)].join("\n")))
    }
}
