//! Element-wise sum of two tensors.

use super::{random_reals, same_facts};
use crate::graph::{Case, Gradient, GraphError, Lowered, Lowering, Op, Operand, Tolerance, ValueId};
use crate::kernels::{Step, add, workgroups_for};
use crate::shape::{Fact, ShapeError};
use crate::tensor::Tensor;
use std::sync::Arc;

/// `y = a + b` for tensors of one shape: the fan-in of gradients, and the residual connection.
#[derive(Debug)]
pub struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        same_facts(inputs)?;
        Ok(vec![inputs[0].clone()])
    }

    fn backward(&self, gradient: &mut Gradient<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
        Ok(vec![gradient.output_gradients[0]; 2])
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let words = node.outputs[0].words();
        let params = add::Params { words: words as u32, ..Default::default() };
        let (a, b, y) = (Operand::Input(0), Operand::Input(1), Operand::Output(0));
        if node.in_place {
            add::forward_in_place(params, b, y, workgroups_for(&add::FORWARD_IN_PLACE, words)).into()
        } else {
            add::forward(params, a, b, y, workgroups_for(&add::FORWARD, words)).into()
        }
    }

    fn reference(&self, inputs: &[Tensor], _step: &Step) -> Vec<Tensor> {
        vec![inputs[0].zip(&inputs[1], |a, b| a + b)]
    }

    fn in_place(&self) -> Option<usize> {
        Some(0)
    }
}

pub(super) fn cases(_quick: bool) -> Vec<Case> {
    let fact = Fact::activation(3, 5, 7, 9);
    let values = |seed| (fact.clone(), random_reals(&fact.shape, seed));
    vec![Case {
        name: "3x5x7x9".into(),
        op: Arc::new(Add),
        inputs: vec![values(1), values(2)],
        step: Step::default(),
        tolerance: vec![Tolerance::Exact],
    }]
}
