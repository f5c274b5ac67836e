//! Dropout with masks that are drawn again instead of stored.

use super::random_reals;
use crate::graph::{Case, Gradient, GraphError, Lowered, Lowering, Op, Operand, Tolerance, ValueId};
use crate::kernels::{Step, dropout, workgroups_for};
use crate::rng::{philox4x32, purpose, uniform01};
use crate::shape::{Fact, ShapeError, channels_in_memory};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Inverted dropout: `y = x · m / (1 - p)`, where `m` is 0 with probability `p`, else 1.
///
/// The mask is a function of the run's seed, the step, `key` and the element's place in the batch. It is therefore
/// the same for the gradient, which is this operation applied to `dy`, and the same however a batch is split.
#[derive(Clone, Debug)]
pub struct Dropout {
    /// Number of the layer within the model: no two layers share a mask.
    pub key: u32,
    /// Probability of dropping an element, in [0, 1].
    pub probability: f32,
}

impl Dropout {
    fn scale(&self) -> f32 {
        if self.probability < 1.0 { 1.0 / (1.0 - self.probability) } else { 0.0 }
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn attributes(&self) -> String {
        format!("p {} key {}", self.probability, self.key)
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        if !(0.0..=1.0).contains(&self.probability) {
            return Err(ShapeError::Invalid(format!("the dropout probability must lie in 0..=1, got {}", self.probability)));
        }
        Ok(vec![inputs[0].clone()])
    }

    fn backward(&self, gradient: &mut Gradient<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
        let Some(dy) = gradient.output_gradients[0] else { return Ok(vec![None]) };
        Ok(vec![Some(gradient.node(self.clone(), &[dy])?)])
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let words = node.outputs[0].words();
        let images = node.outputs[0].shape.four()[0];
        let params = dropout::Params {
            words: words as u32,
            words_per_image: (words / images) as u32,
            key: self.key,
            probability: self.probability,
            scale: self.scale(),
            ..Default::default()
        };
        // A micro-batch may start inside a block of four elements and then touches one block more.
        let blocks = words.div_ceil(4) + 1;
        if node.in_place {
            dropout::forward_in_place(params, Operand::Output(0), workgroups_for(&dropout::FORWARD_IN_PLACE, blocks)).into()
        } else {
            dropout::forward(params, Operand::Input(0), Operand::Output(0), workgroups_for(&dropout::FORWARD, blocks)).into()
        }
    }

    fn reference(&self, inputs: &[Tensor], step: &Step) -> Vec<Tensor> {
        let x = &inputs[0];
        let [images, channels, height, width] = x.shape.four();
        let mut y = Tensor::zeros(&x.shape);
        for n in 0..images {
            for c in 0..channels {
                for h in 0..height {
                    for w in 0..width {
                        let pixel = ((step.first_image as usize + n) * height + h) * width + w;
                        let element = pixel * channels_in_memory(channels) + c;
                        let counter = [(element / 4) as u32, self.key, step.step, purpose::DROPOUT];
                        let words = philox4x32(counter, [step.seed_lo, step.seed_hi]);
                        if uniform01(words[element % 4]) >= self.probability {
                            let at = x.at([n, c, h, w]);
                            y.data[at] = x.data[at] / (1.0 - f64::from(self.probability));
                        }
                    }
                }
            }
        }
        vec![y]
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn in_place(&self) -> Option<usize> {
        Some(0)
    }
}

pub(super) fn cases(_quick: bool) -> Vec<Case> {
    let case = |name: &str, fact: Fact, probability: f32, first_image: u32, tolerance| {
        let images = fact.shape.four()[0] as u32;
        Case {
            name: name.into(),
            inputs: vec![(fact.clone(), random_reals(&fact.shape, 1))],
            op: Arc::new(Dropout { key: 3, probability }),
            step: Step { step: 7, seed_lo: 11, seed_hi: 5, first_image, images, total_images: images + first_image, ..Default::default() },
            tolerance: vec![tolerance],
        }
    };
    let rounded = Tolerance::Relative { relative: 2.5e-7, absolute: 0.0 };
    vec![
        case("p 0.5, padded channels", Fact::activation(3, 5, 7, 9), 0.5, 0, Tolerance::Exact),
        case("p 0.5, second micro-batch", Fact::activation(3, 8, 3, 3), 0.5, 3, Tolerance::Exact),
        case("p 0.3, a micro-batch that starts inside a block", Fact::activation(3, 3, 3, 3), 0.3, 1, rounded),
        case("p 0 keeps all", Fact::activation(2, 1, 5, 3), 0.0, 0, Tolerance::Exact),
        case("p 1 drops all", Fact::activation(2, 6, 2, 3), 1.0, 0, Tolerance::Exact),
    ]
}
