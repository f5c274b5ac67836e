//! Updates against ONNX's operators Momentum and Adam (`tests/goldens/onnx.json`): its node tests, and runs of 12 updates.

use crate::optimizers::{Arena, step_values, ulp};
use crate::{Device, trial};
use libtest_mimic::Trial;
use nin_wgpu::gpu::Gpu;
use nin_wgpu::kernels::Step;
use nin_wgpu::ops::{Multiplier, Optimizer};
use nin_wgpu::passes::BufferRole;
use serde::Deserialize;

/// Allowed error in units in the last place of the larger of the value and what it started from, for every update so far.
const ULPS: f64 = 8.0;

#[derive(Deserialize)]
struct Golden {
    name: String,
    op: String,
    norm_coefficient: f64,
    alpha: f64,
    beta: f64,
    #[serde(default)]
    mode: String,
    #[serde(default)]
    epsilon: f64,
    rate: f64,
    t: u32,
    x: Vec<f32>,
    v: Vec<f32>,
    h: Vec<f32>,
    grads: Vec<Vec<f32>>,
    after: Vec<Vec<f32>>,
    after_v: Vec<Vec<f32>>,
}

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    let goldens: Vec<Golden> = serde_json::from_str(include_str!("../goldens/onnx.json")).expect("goldens are whole");
    assert_eq!(goldens.len(), 8);
    goldens.into_iter().map(|golden| trial(device, format!("onnx::{}", golden.name), move |gpu| follow(gpu, &golden))).collect()
}

/// ONNX's `norm_coefficient` is weight decay; its `alpha` and `beta` are momentum and one minus dampening, or Adam's two.
fn rule(golden: &Golden) -> Optimizer {
    let weight_decay = golden.norm_coefficient;
    match golden.op.as_str() {
        "Momentum" => Optimizer::Sgd { momentum: golden.alpha, nesterov: golden.mode == "nesterov", weight_decay },
        "Adam" => Optimizer::Adam { beta1: golden.alpha, beta2: golden.beta, epsilon: golden.epsilon, weight_decay, decoupled: false },
        other => panic!("{other} is no optimizer"),
    }
}

fn follow(gpu: &Gpu, golden: &Golden) -> Result<(), String> {
    let text = |error: nin_wgpu::gpu::GpuError| error.to_string();
    let optimizer = rule(golden);
    let mut arena = Arena::new(gpu, &optimizer, &golden.x, &[Multiplier::default()]).map_err(text)?;
    for (index, state) in [&golden.v, &golden.h].into_iter().enumerate().filter(|(_, state)| !state.is_empty()) {
        arena.write(BufferRole::OptimizerState(index), state);
    }
    for (update, (gradients, (after, after_v))) in golden.grads.iter().zip(golden.after.iter().zip(&golden.after_v)).enumerate() {
        let step = match golden.t + update as u32 {
            0 => Step { learning_rate: golden.rate as f32, bias_correction1: 1.0, bias_correction2: 1.0, ..Default::default() },
            t => step_values(&optimizer, t, golden.rate),
        };
        let found = arena.step(step, gradients).map_err(text)?;
        let state = arena.states().map_err(text)?;
        let tolerance = ULPS * (update + 1) as f64;
        for (what, found, wanted, start) in [("parameter", &found, after, &golden.x), ("moment", &state[0], after_v, &golden.v)] {
            for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
                let scale = wanted.abs().max(start[i].abs()).max(gradients[i].abs());
                let off = f64::from(found - wanted).abs() / ulp(f64::from(scale));
                if !(off <= tolerance) {
                    return Err(format!("update {update}, {what} {i}: {found:e}, ONNX {wanted:e}, off by {off:.1} ulp"));
                }
            }
        }
    }
    Ok(())
}
