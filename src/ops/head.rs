//! The end of a network in one kernel: global pool, then softmax, or loss and gradient.

use super::cross_entropy::{smoothing_text, with_loss_scale};
use super::pool::masked;
use super::softmax::tolerance;
use super::{CrossEntropyBackward, GlobalAvgPool, GlobalAvgPoolBackward, Softmax, SoftmaxCrossEntropy, random_integers, random_reals};
use crate::graph::{Case, Lowered, Lowering, Op, Operand, Tolerance};
use crate::kernels::{Step, head};
use crate::shape::{Fact, ShapeError, channels_in_memory};
use crate::tensor::Tensor;
use std::sync::Arc;

/// [`GlobalAvgPool`] and what follows it, with the same results bit for bit. Only fusion makes this operation.
///
/// Inputs: the map `[N, C, H, W]` of one micro-batch, the labels of the whole batch but for `Softmax`, and where the
/// gradient is to be multiplied by its scale a [`LossScale`](super::LossScale).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Head {
    /// Output: probabilities `[N, C, 1, 1]`, as [`Softmax`].
    Softmax,
    /// Output: rows `[N, 4]`, as [`SoftmaxCrossEntropy`].
    Loss {
        /// As there.
        smoothing: f32,
    },
    /// Outputs: rows, and the gradient of the map, as [`CrossEntropyBackward`] and [`GlobalAvgPoolBackward`].
    LossAndGradient {
        /// The gradient is 0 where the map is not positive.
        masked: bool,
        /// As in [`SoftmaxCrossEntropy`].
        smoothing: f32,
    },
}

impl Head {
    /// The pool's output.
    fn logits(map: &Fact) -> Result<Fact, ShapeError> {
        let outputs = GlobalAvgPool.outputs(&[map])?;
        Ok(outputs.into_iter().next().unwrap_or_else(|| map.clone()))
    }

    /// Label smoothing; 0 where there is no loss.
    fn smoothing(&self) -> f32 {
        match *self {
            Head::Softmax => 0.0,
            Head::Loss { smoothing } | Head::LossAndGradient { smoothing, .. } => smoothing,
        }
    }

    /// Whether the gradient is masked by the map.
    fn is_masked(&self) -> bool {
        matches!(self, Head::LossAndGradient { masked: true, .. })
    }
}

impl Op for Head {
    fn name(&self) -> &'static str {
        match self {
            Head::Softmax => "head_softmax",
            Head::Loss { .. } => "head_loss",
            Head::LossAndGradient { .. } => "head_loss_and_gradient",
        }
    }

    fn attributes(&self) -> String {
        let masked = if self.is_masked() { "masked" } else { "" };
        [masked, &smoothing_text(self.smoothing())].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        let logits = Self::logits(inputs[0])?;
        if *self == Head::Softmax {
            return Softmax.outputs(&[&logits]);
        }
        let mut outputs = SoftmaxCrossEntropy::default().outputs(&[&logits, inputs[1]])?;
        if let Head::LossAndGradient { .. } = self {
            outputs.push(inputs[0].clone());
        }
        Ok(outputs)
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let [images, classes, height, width] = node.inputs[0].shape.four();
        let channels = channels_in_memory(classes);
        let params = head::Params {
            images: images as u32,
            classes: classes as u32,
            channels: channels as u32,
            height: height as u32,
            width: width as u32,
            masked: u32::from(self.is_masked()),
            smoothing: self.smoothing(),
            ..Default::default()
        };
        let (map, labels, logits, result) = (Operand::Input(0), Operand::Input(1), Operand::Scratch(0), Operand::Output(0));
        let workgroups = images as u64;
        let dispatch = match self {
            Head::Softmax => head::softmax(params, logits, map, result, workgroups),
            Head::Loss { .. } => head::loss(params, logits, labels, result, map, workgroups),
            Head::LossAndGradient { .. } => {
                let gradient = Operand::Output(1);
                match node.inputs.len() {
                    2 => head::loss_and_gradient(params, logits, labels, result, map, gradient, workgroups),
                    _ => head::loss_and_gradient_scaled(params, logits, labels, result, map, gradient, Operand::Input(2), workgroups),
                }
            }
        };
        Lowered { dispatches: vec![dispatch], scratch: vec![(images * channels * 4) as u64], ..Default::default() }
    }

    fn reference(&self, inputs: &[Tensor], step: &Step) -> Vec<Tensor> {
        let [.., height, width] = inputs[0].shape.four();
        let mut logits = GlobalAvgPool.reference(&inputs[..1], step);
        if *self == Head::Softmax {
            return Softmax.reference(&logits, step);
        }
        logits.extend_from_slice(&inputs[1..]);
        let mut outputs = SoftmaxCrossEntropy { smoothing: self.smoothing() }.reference(&logits, step);
        if let Head::LossAndGradient { smoothing, .. } = *self {
            let dlogits = CrossEntropyBackward { smoothing }.reference(&logits, step);
            let pool = GlobalAvgPoolBackward { size: [height, width], masked: false };
            let dx = pool.reference(&dlogits, step);
            outputs.extend(dx.into_iter().map(|dx| masked(dx, inputs.first().filter(|_| self.is_masked()))));
        }
        outputs
    }
}

pub(super) fn cases(_quick: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, [n, c, h, w]: [usize; 4], scale: f32, images: u32| {
        let map = Fact::activation(n, c, h, w);
        // Multiples of 1/64, of which sums are exact: ranks do not depend on rounding.
        let values: Vec<f32> = random_reals(&map.shape, 1).into_iter().map(|v| (v * scale * 64.0).round() / 64.0).collect();
        let labels = Fact::index(&[n + 2]);
        let classes: Vec<f32> =
            random_integers(&labels.shape, 2, 500).iter().map(|v| f32::from_bits((v + 500.0) as u32 % c as u32)).collect();
        let step = Step { first_image: 2, images, total_images: n as u32 + 2, ..Default::default() };
        let smoothing = if images < n as u32 || h == 1 { 0.125 } else { 0.0 };
        let gradient = |masked| Head::LossAndGradient { masked, smoothing };
        for op in [Head::Softmax, Head::Loss { smoothing }, gradient(false), gradient(true)] {
            let mut inputs = vec![(map.clone(), values.clone())];
            if op != Head::Softmax {
                inputs.push((labels.clone(), classes.clone()));
            }
            let near = Tolerance::Relative { relative: 1e-5, absolute: 1e-7 };
            let outputs = if let Head::LossAndGradient { .. } = op { 2 } else { 1 };
            let tolerance = [tolerance(2.0 * f64::from(scale)), near][..outputs].to_vec();
            let case = Case { name: format!("{} {name}", op.name()), op: Arc::new(op), inputs, step, tolerance };
            if outputs == 2 {
                cases.push(with_loss_scale(&case));
            }
            cases.push(case);
        }
    };
    add("10 classes, 5x5", [7, 10, 5, 5], 20.0, 7);
    add("part of a micro-batch", [5, 7, 4, 2], 10.0, 3);
    add("2 classes, 1x1", [3, 2, 1, 1], 1.0, 3);
    add("1000 classes, 2x3", [4, 1000, 2, 3], 30.0, 4);
    add("65 classes, 8x8, equal logits", [2, 65, 8, 8], 0.0, 2);
    cases
}
