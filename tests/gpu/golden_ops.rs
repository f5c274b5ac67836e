//! Single operations as PyTorch computes them (`tests/goldens/ops.json`), against the kernels on the device and, so that
//! the oracle of all other tests is itself checked, against the f64 references.

use crate::kernels::CLASSES;
use crate::{Device, trial};
use libtest_mimic::Trial;
use nin_wgpu::gpu::Gpu;
use nin_wgpu::gpu::verify::{run_case, run_outputs};
use nin_wgpu::graph::{Case, Op, Tolerance};
use nin_wgpu::kernels::{Step, Target};
use nin_wgpu::ops::{
    AvgPool2d, AvgPool2dBackward, CrossEntropyBackward, ImageInput, MaxPool2d, MaxPool2dBackward, Softmax, SoftmaxCrossEntropy,
};
use nin_wgpu::shape::{Element, Fact, Shape, Window};
use nin_wgpu::tensor::Tensor;
use serde::Deserialize;
use std::sync::Arc;

#[derive(Deserialize)]
pub struct Goldens {
    pools: Vec<Pool>,
    cross_entropy: Vec<CrossEntropy>,
    interpolate: Vec<Interpolate>,
    pub sgd: Vec<Sgd>,
    pub adam: Vec<Adam>,
    pub updates: Vec<Update>,
}

#[derive(Deserialize)]
struct Pool {
    op: String,
    ties: bool,
    shape: [usize; 4],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    ceil: bool,
    x: Vec<f32>,
    output_shape: [usize; 4],
    y: Vec<f32>,
    grad_y: Vec<f32>,
    grad_x: Vec<f32>,
}

#[derive(Deserialize)]
struct CrossEntropy {
    shape: [usize; 2],
    logits: Vec<f32>,
    labels: Vec<u32>,
    #[serde(default)]
    label_smoothing: f32,
    loss: f64,
    grad: Vec<f32>,
    probabilities: Vec<f32>,
}

#[derive(Deserialize)]
struct Interpolate {
    from: [usize; 2],
    to: [usize; 2],
    x: Vec<u32>,
    window: [usize; 4],
    y: Vec<f32>,
}

#[derive(Deserialize)]
pub struct Sgd {
    pub lr: f64,
    pub momentum: f64,
    pub weight_decay: f64,
    pub nesterov: bool,
    pub lr_steps: Option<Vec<f64>>,
    #[serde(flatten)]
    pub run: Run,
}

#[derive(Deserialize)]
pub struct Adam {
    pub lr: f64,
    pub betas: [f64; 2],
    pub eps: f64,
    pub weight_decay: f64,
    #[serde(default)]
    pub decoupled: bool,
    #[serde(flatten)]
    pub run: Run,
}

/// A run with parameter groups, clipping and an average; values are those of each group.
#[derive(Deserialize)]
pub struct Update {
    pub name: String,
    pub rule: String,
    pub lr: f64,
    #[serde(default)]
    pub momentum: f64,
    #[serde(default)]
    pub nesterov: bool,
    pub weight_decay: f64,
    pub clip_norm: Option<f64>,
    pub ema: Option<f64>,
    /// Multipliers of learning rate and weight decay.
    pub groups: Vec<[f32; 2]>,
    pub w: Vec<Vec<f32>>,
    pub grads: Vec<Vec<Vec<f32>>>,
    pub after: Vec<Vec<Vec<f32>>>,
    pub average: Vec<Vec<Vec<f32>>>,
}

/// A run of an optimizer: the start, and for each step the gradient and the parameters behind it.
#[derive(Deserialize)]
pub struct Run {
    pub w: Vec<f32>,
    pub grads: Vec<Vec<f32>>,
    pub after: Vec<Vec<f32>>,
}

pub fn goldens() -> Result<Goldens, String> {
    serde_json::from_str(include_str!("../goldens/ops.json")).map_err(|e| format!("ops.json: {e}"))
}

type Check = fn(&Gpu, &Target) -> Result<(), String>;

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (class, label) in CLASSES {
        let tests: [(&str, Check); 3] = [("pools", pools), ("cross_entropy", cross_entropy), ("interpolate", interpolate)];
        for (name, test) in tests {
            trials.push(trial(device, format!("golden_ops::{name}::{label}"), move |gpu| {
                test(gpu, &Target { class, ..gpu.target().clone() })
            }));
        }
    }
    trials
}

/// How close a value must come to PyTorch's.
#[derive(Clone, Copy)]
enum Allowed {
    Exact,
    /// Share of the magnitude, and a floor.
    Near(f64, f64),
}

fn compare(what: &str, got: impl IntoIterator<Item = f64>, want: &[f32], allowed: Allowed) -> Result<(), String> {
    let got: Vec<f64> = got.into_iter().collect();
    if got.len() != want.len() || got.is_empty() {
        return Err(format!("{what}: {} values, PyTorch has {}", got.len(), want.len()));
    }
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        let want = f64::from(*want);
        let allowed = match allowed {
            Allowed::Exact => 0.0,
            Allowed::Near(relative, absolute) => relative * want.abs() + absolute,
        };
        // Written so that a NaN fails.
        if !((got - want).abs() <= allowed) {
            return Err(format!("{what}, element {index}: {got:e}, PyTorch {want:e}, allowed error {allowed:e}"));
        }
    }
    Ok(())
}

/// Runs an operation on the device; the reference on the same inputs is returned beside the kernel's outputs.
fn run(
    gpu: &Gpu,
    target: &Target,
    name: &str,
    op: impl Op + 'static,
    inputs: Vec<(Fact, Vec<f32>)>,
    step: Step,
    tolerance: Vec<Tolerance>,
) -> Result<Both, String> {
    let tensors = inputs.iter().map(|(fact, values)| {
        let data = values.iter().map(|v| if fact.layout.is_integer() { f64::from(v.to_bits()) } else { f64::from(*v) });
        Tensor { shape: fact.shape.clone(), data: data.collect() }
    });
    let reference = op.reference(&tensors.collect::<Vec<_>>(), &step);
    let case = Case { name: name.into(), op: Arc::new(op), inputs, step, tolerance };
    let device = run_outputs(gpu, target, &case).map_err(|e| e.to_string())?;
    // Every form of the operation, padding lanes included.
    let verdict = run_case(gpu, target, &case, Element::F32).map_err(|e| e.to_string())?;
    verdict.unwrap_or_else(|| Err("it has no kernels".into())).map_err(|e| format!("{name}: {e}"))?;
    Ok(Both { device, reference })
}

struct Both {
    device: Vec<Vec<f32>>,
    reference: Vec<Tensor>,
}

impl Both {
    /// Both against PyTorch.
    fn compare(&self, what: &str, output: usize, want: &[f32], allowed: Allowed) -> Result<(), String> {
        compare(&format!("{what} on the device"), self.device[output].iter().map(|v| f64::from(*v)), want, allowed)?;
        let reference = self.reference[output].data.iter();
        // The reference sums in double precision; what must be exact is exact once rounded.
        let reference = reference.map(|v| if matches!(allowed, Allowed::Exact) { f64::from(*v as f32) } else { *v });
        compare(&format!("{what} in the reference"), reference, want, allowed)
    }
}

fn bits(values: impl IntoIterator<Item = u32>) -> Vec<f32> {
    values.into_iter().map(f32::from_bits).collect()
}

fn pools(gpu: &Gpu, target: &Target) -> Result<(), String> {
    let pools = goldens()?.pools;
    if pools.len() < 40 || !pools.iter().any(|p| p.ties) {
        return Err(format!("{} pools", pools.len()));
    }
    for pool in pools {
        let window = Window { kernel: pool.kernel, stride: pool.stride, padding: pool.padding, ceil_mode: pool.ceil };
        let name = format!("{} pool {window} of {}{}", pool.op, Shape(pool.shape.to_vec()), if pool.ties { " with ties" } else { "" });
        let activation = |[n, c, h, w]: [usize; 4]| Fact::activation(n, c, h, w);
        let (x, dy) = (activation(pool.shape), activation(pool.output_shape));
        let step = Step::default();
        if pool.op == "max" {
            let forward = run(gpu, target, &name, MaxPool2d { window }, vec![(x.clone(), pool.x)], step, vec![Tolerance::Exact; 2])?;
            forward.compare(&name, 0, &pool.y, Allowed::Exact)?;
            // The winners that the device found lead the gradient to where PyTorch leads it. Sums of several gradients
            // may differ in their order.
            let winner = Fact::index(&forward.reference[1].shape.0);
            let backward = MaxPool2dBackward { window, input: x, masked: false };
            let inputs = vec![(dy, pool.grad_y), (winner, forward.device[1].clone())];
            let backward = run(gpu, target, &name, backward, inputs, step, vec![Tolerance::Sum { factor: 8.0 }])?;
            backward.compare(&format!("gradient of {name}"), 0, &pool.grad_x, Allowed::Near(1e-6, 1e-6))?;
        } else {
            let tolerance = || vec![Tolerance::Sum { factor: 8.0 }];
            let forward = run(gpu, target, &name, AvgPool2d { window }, vec![(x.clone(), pool.x)], step, tolerance())?;
            forward.compare(&name, 0, &pool.y, Allowed::Near(1e-6, 1e-6))?;
            let backward = AvgPool2dBackward { window, input: x, masked: false };
            let backward = run(gpu, target, &name, backward, vec![(dy, pool.grad_y)], step, tolerance())?;
            backward.compare(&format!("gradient of {name}"), 0, &pool.grad_x, Allowed::Near(1e-6, 1e-6))?;
        }
    }
    Ok(())
}

fn cross_entropy(gpu: &Gpu, target: &Target) -> Result<(), String> {
    let goldens = goldens()?.cross_entropy;
    if goldens.len() < 10 || !goldens.iter().any(|g| g.logits.contains(&-1e4)) || !goldens.iter().any(|g| g.label_smoothing > 0.0) {
        return Err(format!("{} cases", goldens.len()));
    }
    for golden in goldens {
        let [images, classes] = golden.shape;
        let smoothing = golden.label_smoothing;
        let range = golden.logits.chunks(classes).map(|row| {
            let (low, top) = row.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, top), v| (low.min(*v), top.max(*v)));
            f64::from(top - low)
        });
        let relative = (16.0 + 4.0 * range.fold(0.0, f64::max)) * 2f64.powi(-23);
        let (tolerance, allowed) = (Tolerance::Relative { relative, absolute: 1e-6 }, Allowed::Near(relative, 1e-6));
        let name = format!("cross entropy of {images} images, {classes} classes, label {}, smoothing {smoothing}", golden.labels[0]);
        let step = Step { images: images as u32, total_images: images as u32, ..Default::default() };
        let logits = (Fact::activation(images, classes, 1, 1), golden.logits.clone());
        let inputs = vec![logits.clone(), (Fact::index(&[images]), bits(golden.labels.iter().copied()))];

        let rows = run(gpu, target, &name, SoftmaxCrossEntropy { smoothing }, inputs.clone(), step, vec![tolerance])?;
        let mean = |losses: &mut dyn Iterator<Item = f64>| losses.sum::<f64>() / images as f64;
        let losses = [
            mean(&mut rows.device[0].iter().step_by(4).map(|v| f64::from(*v))),
            mean(&mut rows.reference[0].data.iter().step_by(4).copied()),
        ];
        compare(&name, losses, &[golden.loss as f32; 2], allowed)?;
        for ((row, logits), label) in rows.device[0].chunks(4).zip(golden.logits.chunks(classes)).zip(&golden.labels) {
            // Ties go to the first: the prediction, and the rank of the label.
            let label = *label as usize;
            let first_largest = (1..classes).fold(0, |best, k| if logits[k] > logits[best] { k } else { best });
            let before = logits.iter().enumerate().filter(|(k, v)| **v > logits[label] || (**v == logits[label] && *k < label)).count();
            // Its probability is in the comparison with the reference.
            if row[1..3] != [before as f32, first_largest as f32] {
                return Err(format!("{name}: got {row:?}, expected rank {before}, prediction {first_largest}"));
            }
        }

        let gradient = run(gpu, target, &name, CrossEntropyBackward { smoothing }, inputs, step, vec![tolerance])?;
        gradient.compare(&format!("gradient of {name}"), 0, &golden.grad, allowed)?;
        for (n, row) in gradient.device[0].chunks(classes).enumerate() {
            let sum: f64 = row.iter().map(|v| f64::from(*v)).sum();
            if !(sum.abs() <= 1e-6) {
                return Err(format!("gradient of {name}: row {n} sums to {sum:e}"));
            }
        }

        let probabilities = run(gpu, target, &name, Softmax, vec![logits], step, vec![tolerance])?;
        probabilities.compare(&format!("softmax for {name}"), 0, &golden.probabilities, allowed)?;
    }
    Ok(())
}

/// Both sides find source coordinates in single precision: at 28 to 224 pixels that is worth 1e-5 of the range.
const RESIZED: f64 = 2e-5;

fn interpolate(gpu: &Gpu, target: &Target) -> Result<(), String> {
    let goldens = goldens()?.interpolate;
    if goldens.len() < 9 {
        return Err(format!("{} cases", goldens.len()));
    }
    for golden in goldens {
        let [[in_h, in_w], size] = [golden.from, golden.to];
        let name = format!("{in_h}x{in_w} to {}x{}", size[0], size[1]);
        let op = ImageInput { micro_batch: 1, size, mean: [0.0; 4], inverse_std: [1.0; 4], augment: None, gather: false };
        let step = Step { images: 1, total_images: 1, ..Default::default() };
        let inputs = vec![(Fact::pixels(1, 1, in_h, in_w), bits(golden.x)), (Fact::index(&[1]), bits([0]))];
        let tolerance = vec![Tolerance::Relative { relative: 0.0, absolute: RESIZED }];
        let both = run(gpu, target, &name, op, inputs, step, tolerance)?;

        let [top, left, height, width] = golden.window;
        let crop = |at: &dyn Fn(usize) -> f64| -> Vec<f64> {
            (top..top + height)
                .flat_map(|row| (left..left + width).map(move |column| row * size[1] + column))
                .map(|i| at(i) * 255.0)
                .collect()
        };
        let allowed = Allowed::Near(0.0, 255.0 * RESIZED);
        compare(&format!("{name} on the device"), crop(&|i| f64::from(both.device[0][i])), &golden.y, allowed)?;
        compare(&format!("{name} in the reference"), crop(&|i| both.reference[0].data[i]), &golden.y, allowed)?;
    }
    Ok(())
}
