//! A tensor in another element type.

use super::random_reals;
use crate::graph::{Case, Gradient, GraphError, Lowered, Lowering, Op, Operand, Tolerance, ValueId};
use crate::kernels::{Step, cast, workgroups_for};
use crate::shape::{Fact, ShapeError};
use crate::tensor::Tensor;
use std::sync::Arc;

/// `y = x`, stored as the fact of y says. [`crate::passes::precision`] makes half-precision copies of filters with it.
#[derive(Debug)]
pub struct Cast;

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        Ok(vec![inputs[0].clone()])
    }

    fn backward(&self, gradient: &mut Gradient<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
        Ok(vec![gradient.output_gradients[0]])
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let words = node.outputs[0].words();
        let params = cast::Params { words: words as u32, ..Default::default() };
        cast::forward(params, Operand::Input(0), Operand::Output(0), workgroups_for(&cast::FORWARD, words)).into()
    }

    fn reference(&self, inputs: &[Tensor], _step: &Step) -> Vec<Tensor> {
        vec![inputs[0].clone()]
    }
}

pub(super) fn cases(_quick: bool) -> Vec<Case> {
    let case = |fact: Fact| Case {
        name: fact.shape.to_string(),
        op: Arc::new(Cast),
        inputs: vec![(fact.clone(), random_reals(&fact.shape, 1))],
        step: Step::default(),
        tolerance: vec![Tolerance::Exact],
    };
    vec![case(Fact::filter(5, 7, 3, 3)), case(Fact::filter(3, 1, 1, 5))]
}
