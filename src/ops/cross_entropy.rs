//! Softmax cross entropy: the loss, and the root of the backward pass.

use super::softmax::tolerance;
use super::{LossScale, logits_dims, random_reals};
use crate::graph::{Case, Fusion, Gradient, GraphError, Lowered, Lowering, Op, Operand, Tolerance, ValueId};
use crate::kernels::{Step, cross_entropy, workgroups_for};
use crate::shape::{Fact, Layout, Shape, ShapeError, channels_in_memory};
use crate::tensor::Tensor;
use std::cmp::Ordering;
use std::sync::Arc;

/// `loss = log Σ exp(x) - Σ t·x` for every image, with the target `t = onehot(label)`, or with label smoothing
/// `t = (1 - smoothing)·onehot(label) + smoothing / C`, as PyTorch's. Inputs: logits `[N, C, 1, 1]` of one micro-batch, and the
/// labels of the whole batch. Output, `[N, 4]`: (loss, rank of the label, predicted class, its probability) for each image,
/// zeros from `step.images` on. The rank is the number of classes before the label when sorted by falling logit, ties by index.
///
/// Differentiation starts here: the gradient rule needs no output gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SoftmaxCrossEntropy {
    /// Share of the target that is spread evenly over all classes, in [0, 1).
    pub smoothing: f32,
}

/// `dx = (softmax(x) - t) / step.total_images`, zeros from `step.images` on: the gradient of the mean loss
/// of the batch. Inputs: logits, labels and, where the gradient is to be multiplied by its scale, a [`LossScale`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CrossEntropyBackward {
    /// As in [`SoftmaxCrossEntropy`].
    pub smoothing: f32,
}

/// Label smoothing as an attribute; nothing without.
pub(super) fn smoothing_text(smoothing: f32) -> String {
    if smoothing == 0.0 { String::new() } else { format!("smoothing {smoothing}") }
}

fn check(inputs: &[&Fact]) -> Result<usize, ShapeError> {
    let [images, _] = logits_dims(inputs[0])?;
    let labels = inputs[1];
    if labels.layout != Layout::Index || labels.shape.elements() < images {
        return Err(ShapeError::Mismatch { expected: format!("at least {images} labels"), got: labels.shape.to_string() });
    }
    Ok(images)
}

fn params(logits: &Fact, smoothing: f32) -> cross_entropy::Params {
    let [images, classes, ..] = logits.shape.four();
    cross_entropy::Params { images: images as u32, classes: classes as u32, channels: channels_in_memory(classes) as u32, smoothing }
}

/// The valid rows: index of the image, its logits and its label.
fn rows<'a>(inputs: &'a [Tensor], step: &Step) -> impl Iterator<Item = (usize, &'a [f64], usize)> {
    let [images, classes, ..] = inputs[0].shape.four();
    let first = step.first_image as usize;
    let valid = images.min(step.images as usize);
    (0..valid).map(move |n| (n, &inputs[0].data[n * classes..(n + 1) * classes], inputs[1].data[first + n] as usize))
}

/// `log Σ exp(x)`.
fn log_sum_exp(logits: &[f64]) -> f64 {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + logits.iter().map(|x| (x - top).exp()).sum::<f64>().ln()
}

impl Op for SoftmaxCrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn attributes(&self) -> String {
        smoothing_text(self.smoothing)
    }

    fn fusion(&self) -> Fusion {
        Fusion::Loss { smoothing: self.smoothing }
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        Ok(vec![Fact::plain(&[check(inputs)?, 4])])
    }

    fn backward(&self, gradient: &mut Gradient<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
        let inputs = [gradient.inputs[0], gradient.inputs[1]];
        Ok(vec![Some(gradient.node(CrossEntropyBackward { smoothing: self.smoothing }, &inputs)?), None])
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let params = params(node.inputs[0], self.smoothing);
        let workgroups = workgroups_for(&cross_entropy::FORWARD, params.images as usize);
        cross_entropy::forward(params, Operand::Input(0), Operand::Input(1), Operand::Output(0), workgroups).into()
    }

    fn reference(&self, inputs: &[Tensor], step: &Step) -> Vec<Tensor> {
        let images = inputs[0].shape.four()[0];
        let mut output = Tensor::zeros(&Shape(vec![images, 4]));
        for (n, logits, label) in rows(inputs, step) {
            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by(|a, b| logits[*b].partial_cmp(&logits[*a]).unwrap_or(Ordering::Equal));
            let rank = order.iter().position(|k| *k == label).unwrap_or(logits.len());
            let mean = logits.iter().sum::<f64>() / logits.len() as f64;
            let smoothing = f64::from(self.smoothing);
            let log_sum = log_sum_exp(logits);
            let loss = log_sum - (1.0 - smoothing) * logits[label] - smoothing * mean;
            let row = [loss, rank as f64, order[0] as f64, (logits[order[0]] - log_sum).exp()];
            output.data[n * 4..(n + 1) * 4].copy_from_slice(&row);
        }
        vec![output]
    }
}

impl Op for CrossEntropyBackward {
    fn name(&self) -> &'static str {
        "cross_entropy_backward"
    }

    fn attributes(&self) -> String {
        smoothing_text(self.smoothing)
    }

    fn fusion(&self) -> Fusion {
        Fusion::LossBackward
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        check(inputs)?;
        Ok(vec![inputs[0].clone()])
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let params = params(node.inputs[0], self.smoothing);
        let workgroups = workgroups_for(&cross_entropy::BACKWARD, params.images as usize);
        let (logits, labels, dlogits) = (Operand::Input(0), Operand::Input(1), Operand::Output(0));
        match node.inputs.len() {
            2 => cross_entropy::backward(params, logits, labels, dlogits, workgroups).into(),
            _ => cross_entropy::backward_scaled(params, logits, labels, dlogits, Operand::Input(2), workgroups).into(),
        }
    }

    fn reference(&self, inputs: &[Tensor], step: &Step) -> Vec<Tensor> {
        let mut gradient = Tensor::zeros(&inputs[0].shape);
        let classes = inputs[0].shape.four()[1];
        let scale = inputs.get(2).map_or(1.0, |loss_scale| loss_scale.data[0]);
        for (n, logits, label) in rows(inputs, step) {
            let log_sum = log_sum_exp(logits);
            for (k, x) in logits.iter().enumerate() {
                let spread = f64::from(self.smoothing) / classes as f64;
                let target = spread + if k == label { 1.0 - f64::from(self.smoothing) } else { 0.0 };
                gradient.data[n * classes + k] = scale * ((x - log_sum).exp() - target) / f64::from(step.total_images);
            }
        }
        vec![gradient]
    }
}

/// The case of a gradient with a loss scale, which multiplies the last output and what rounding may do to it.
pub(super) fn with_loss_scale(case: &Case) -> Case {
    let state = LossScale { scale: 4096.0, ..LossScale::default() };
    let words = state.to_words().map(f32::from_bits).to_vec();
    let mut inputs = case.inputs.clone();
    inputs.push((LossScale::fact(), words));
    let mut tolerance = case.tolerance.clone();
    if let Some(Tolerance::Relative { absolute, .. }) = tolerance.last_mut() {
        *absolute *= f64::from(state.scale);
    }
    Case { name: format!("{}, scaled", case.name), op: Arc::clone(&case.op), inputs, step: case.step, tolerance }
}

pub(super) fn cases(_quick: bool) -> Vec<Case> {
    /// Logits rounded to multiples of `grain`, so that a coarse grain makes ties.
    fn logits(fact: &Fact, scale: f32, grain: f32) -> Vec<f32> {
        random_reals(&fact.shape, 1).into_iter().map(|v| (v * scale / grain).round() * grain).collect()
    }
    let whole = |images: u32| Step { images, total_images: images, ..Default::default() };
    let partial = Step { first_image: 5, images: 3, total_images: 8, ..Default::default() };
    let mut cases = Vec::new();
    let mut add = |name: &str, images: usize, classes: usize, scale: f32, grain: f32, smoothing: f32, step: Step| {
        let fact = Fact::activation(images, classes, 1, 1);
        let batch = images + step.first_image as usize;
        let labels: Vec<f32> = (0..batch).map(|n| f32::from_bits((n * 7 % classes) as u32)).collect();
        let inputs = vec![(fact.clone(), logits(&fact, scale, grain)), (Fact::index(&[batch]), labels)];
        let ops: [(&str, Arc<dyn Op>); 2] =
            [("forward", Arc::new(SoftmaxCrossEntropy { smoothing })), ("backward", Arc::new(CrossEntropyBackward { smoothing }))];
        for (direction, op) in ops {
            cases.push(Case {
                name: format!("{direction}, {name}"),
                op,
                inputs: inputs.clone(),
                step,
                tolerance: vec![tolerance(2.0 * f64::from(scale))],
            });
        }
        let scaled = cases.last().map(with_loss_scale);
        cases.extend(scaled);
    };
    add("10 classes, 67 images", 67, 10, 5.0, 1.0 / 1024.0, 0.0, whole(67));
    add("10 classes, 31 images, smoothed", 31, 10, 5.0, 1.0 / 1024.0, 0.1, whole(31));
    add("ties", 33, 10, 2.0, 1.0, 0.0, whole(33));
    add("part of a batch, part of a micro-batch", 5, 7, 3.0, 1.0 / 1024.0, 0.25, partial);
    add("2 classes", 3, 2, 1.0, 1.0 / 1024.0, 0.0, whole(3));
    add("1000 classes", 4, 1000, 10.0, 1.0 / 1024.0, 0.0, whole(4));
    add("logits of 1e4", 9, 10, 1e4, 1.0, 0.0, whole(9));
    cases
}
