//! The kernels for matrix units on a driver's real ones: ignored where the device has none that they may use, as on most CPUs.
//! `scripts/test-drivers.sh` runs these on a driver for CPUs that has them, with `NIN_WGPU_MATRIX_UNITS=small-subgroups`; where
//! that is asked for and the units are not there, they fail.

use crate::conv_shapes::{HALF_STRIDE, SHAPES_PER_TRIAL, half_cases, shapes};
use crate::kernels::{half_problem, run_on_real_units};
use crate::mixed::MIXED;
use crate::network::gradients;
use crate::{Device, trial};
use libtest_mimic::Trial;
use nin_wgpu::gpu::Gpu;
use nin_wgpu::graph::Case;
use nin_wgpu::kernels::MatrixUnits;
use nin_wgpu::ops::REGISTRY;
use nin_wgpu::ops::conv2d::ShapeCase;

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    let is_asked_for = std::env::var("NIN_WGPU_MATRIX_UNITS").is_ok_and(|units| units == "small-subgroups");
    let able = device.filter(|gpu| is_asked_for || are_real(gpu).is_ok());
    let trial = |name: &str, test: fn(&Gpu) -> Result<(), String>| {
        trial(able, format!("matrix_units::{name}"), move |gpu| are_real(gpu).and_then(|()| test(gpu)))
    };
    let mut trials = vec![
        trial("quick::they are the driver's", |_| Ok(())),
        trial("quick::registry::conv2d", |gpu| registry(gpu, true)),
        trial("registry::conv2d", |gpu| registry(gpu, false)),
        trial("quick::gradients::nin-small", |gpu| gradients(gpu, "nin-small", 14, MIXED)),
        trial("gradients::nin-cifar", |gpu| gradients(gpu, "nin-cifar", 7, MIXED)),
    ];
    let shapes: Vec<_> = shapes().unwrap_or_default().into_iter().filter(|(_, shape)| has_quads(shape)).collect();
    let some: Vec<_> = shapes.iter().step_by(HALF_STRIDE).cloned().collect();
    let groups = shapes.chunks(SHAPES_PER_TRIAL).enumerate().map(|(number, group)| {
        let first = number * SHAPES_PER_TRIAL;
        (format!("conv_shapes::{first:03}..{:03}", first + group.len()), group.to_vec())
    });
    for (name, group) in std::iter::once((format!("quick::conv_shapes::every_{HALF_STRIDE}th"), some)).chain(groups) {
        trials.push(crate::trial(able, format!("matrix_units::{name}"), move |gpu| {
            are_real(gpu)?;
            run_on_real_units(gpu, group.iter().flat_map(half_cases).collect())
        }));
    }
    trials
}

/// Whether what the kernels get are units of the driver, not their emulation.
fn are_real(gpu: &Gpu) -> Result<(), String> {
    let units = gpu.target().matrix_units;
    let is_offered = gpu.adapter().features.iter().any(|feature| feature == "EXPERIMENTAL_COOPERATIVE_MATRIX");
    match units {
        MatrixUnits::Sixteen | MatrixUnits::Eight if is_offered => Ok(()),
        _ => Err(format!("{} ({}): matrix units: {units:?}", gpu.adapter().name, gpu.adapter().driver)),
    }
}

/// Whether kernels for matrix units take its channels: four lie together in memory unless there are fewer.
fn has_quads(shape: &ShapeCase) -> bool {
    shape.input[0] >= 4 && shape.outputs >= 4
}

fn registry(gpu: &Gpu, quick: bool) -> Result<(), String> {
    let cases = REGISTRY.iter().filter(|layer| layer.name == "conv2d").flat_map(|layer| (layer.half_cases)(quick));
    let has_quads = |case: &Case| half_problem(case).is_some_and(|problem| problem.input[0] >= 4 && problem.outputs >= 4);
    run_on_real_units(gpu, cases.filter(has_quads).collect())
}
