//! Probabilities from logits, the head of inference.

use super::{logits_dims, random_reals};
use crate::graph::{Case, Fusion, Lowered, Lowering, Op, Operand, Tolerance};
use crate::kernels::{Step, softmax, workgroups_for};
use crate::shape::{Fact, ShapeError, channels_in_memory};
use crate::tensor::Tensor;
use std::sync::Arc;

/// `y = exp(x) / Σ exp(x)` over the classes of `[N, C, 1, 1]` logits. Training uses
/// [`SoftmaxCrossEntropy`](super::SoftmaxCrossEntropy) instead, so there is no gradient rule.
#[derive(Debug)]
pub struct Softmax;

impl Op for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn fusion(&self) -> Fusion {
        Fusion::Softmax
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        logits_dims(inputs[0])?;
        Ok(vec![inputs[0].clone()])
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let [images, classes, ..] = node.inputs[0].shape.four();
        let params = softmax::Params {
            images: images as u32,
            classes: classes as u32,
            channels: channels_in_memory(classes) as u32,
            ..Default::default()
        };
        softmax::forward(params, Operand::Input(0), Operand::Output(0), workgroups_for(&softmax::FORWARD, images)).into()
    }

    fn reference(&self, inputs: &[Tensor], _step: &Step) -> Vec<Tensor> {
        let mut y = inputs[0].clone();
        let classes = y.shape.four()[1];
        for row in y.data.chunks_mut(classes) {
            let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            row.iter_mut().for_each(|v| *v = (*v - top).exp());
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|v| *v /= sum);
        }
        vec![y]
    }
}

/// Tolerance of softmax and cross entropy for logits that span `range`.
pub(super) fn tolerance(range: f64) -> Tolerance {
    Tolerance::Relative { relative: (16.0 + 4.0 * range) * 2f64.powi(-23), absolute: 1e-6 }
}

pub(super) fn cases(_quick: bool) -> Vec<Case> {
    let case = |name: &str, images: usize, classes: usize, scale: f32| {
        let fact = Fact::activation(images, classes, 1, 1);
        let values = random_reals(&fact.shape, 1).into_iter().map(|v| v * scale).collect();
        Case {
            name: name.into(),
            op: Arc::new(Softmax),
            inputs: vec![(fact, values)],
            step: Step::default(),
            tolerance: vec![tolerance(2.0 * f64::from(scale))],
        }
    };
    vec![
        case("10 classes, 67 images", 67, 10, 5.0),
        case("1 class", 3, 1, 1.0),
        case("3 classes", 2, 3, 1.0),
        case("1000 classes", 5, 1000, 10.0),
        case("logits of 1e4", 3, 10, 1e4),
    ]
}
