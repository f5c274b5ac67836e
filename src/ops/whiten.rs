//! The product of whitening: every value of an image from all of them.

use super::Conv2d;
use crate::graph::{Case, Lowered, Lowering, Op, Tolerance};
use crate::kernels::{Problem, Step};
use crate::ops::random_integers;
use crate::shape::{Fact, ShapeError, Window};
use crate::tensor::Tensor;
use std::sync::Arc;

/// `y = matrix · x + offset` for vectors `[N, D, 1, 1]`: a convolution of single pixels, by the kernels of [`Conv2d`], whose
/// factors stay in f32 in mixed precision and are no parameters.
///
/// Inputs: x, matrix (a filter `[D, D, 1, 1]`), offset `[D]`: for whitening, minus the matrix times the mean.
#[derive(Clone, Debug)]
pub struct Whiten;

impl Whiten {
    fn product() -> Conv2d {
        Conv2d { window: Window::square(1, 1, 0), relu: false }
    }
}

impl Op for Whiten {
    fn name(&self) -> &'static str {
        "whiten"
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        let [_, values, h, w] = inputs[0].shape.four();
        if [h, w] != [1, 1] || *inputs[1] != Fact::filter(values, values, 1, 1) || *inputs[2] != Fact::vector(values) {
            let got = format!("{}, {} and {}", inputs[0].shape, inputs[1].shape, inputs[2].shape);
            return Err(ShapeError::Mismatch { expected: "vectors, a square matrix and an offset".into(), got });
        }
        Self::product().outputs(inputs)
    }

    fn needs_single_precision(&self) -> bool {
        true
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        Self::product().lower(node)
    }

    fn reference(&self, inputs: &[Tensor], step: &Step) -> Vec<Tensor> {
        Self::product().reference(inputs, step)
    }

    fn problem(&self, inputs: &[&Fact], outputs: &[&Fact]) -> Option<Problem> {
        Self::product().problem(inputs, outputs)
    }

    fn macs(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        Self::product().macs(inputs, outputs)
    }
}

pub(super) fn cases(quick: bool) -> Vec<Case> {
    let case = |images: usize, values: usize| {
        let facts = [Fact::activation(images, values, 1, 1), Fact::filter(values, values, 1, 1), Fact::vector(values)];
        Case {
            name: format!("{images} images of {values} values"),
            op: Arc::new(Whiten),
            inputs: facts.into_iter().zip(1..).map(|(fact, seed)| (fact.clone(), random_integers(&fact.shape, seed, 3))).collect(),
            step: Step::default(),
            tolerance: vec![Tolerance::Exact],
        }
    };
    let mut cases = vec![case(3, 48), case(2, 75)];
    if !quick {
        cases.push(case(17, 768));
    }
    cases
}
