//! Rectified linear unit.

use super::{random_reals, same_facts};
use crate::graph::{Case, Fusion, Gradient, GraphError, Lowered, Lowering, Op, Operand, Tolerance, ValueId};
use crate::kernels::{Step, relu, workgroups_for};
use crate::shape::{Fact, ShapeError};
use crate::tensor::Tensor;
use std::sync::Arc;

/// `y = max(0, x)`.
#[derive(Debug)]
pub struct Relu;

/// `dx = dy` where the layer's output is positive, else 0. Inputs: dy, y.
#[derive(Debug)]
pub struct ReluBackward;

impl Op for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        Ok(vec![inputs[0].clone()])
    }

    fn backward(&self, gradient: &mut Gradient<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
        let Some(dy) = gradient.output_gradients[0] else { return Ok(vec![None]) };
        let y = gradient.outputs[0];
        Ok(vec![Some(gradient.node(ReluBackward, &[dy, y])?)])
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let words = node.outputs[0].words();
        let params = relu::Params { words: words as u32, ..Default::default() };
        if node.in_place {
            relu::forward_in_place(params, Operand::Output(0), workgroups_for(&relu::FORWARD_IN_PLACE, words)).into()
        } else {
            relu::forward(params, Operand::Input(0), Operand::Output(0), workgroups_for(&relu::FORWARD, words)).into()
        }
    }

    fn reference(&self, inputs: &[Tensor], _step: &Step) -> Vec<Tensor> {
        vec![inputs[0].map(|x| x.max(0.0))]
    }

    fn in_place(&self) -> Option<usize> {
        Some(0)
    }

    fn fusion(&self) -> Fusion {
        Fusion::Relu
    }
}

impl Op for ReluBackward {
    fn name(&self) -> &'static str {
        "relu_backward"
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        same_facts(inputs)?;
        Ok(vec![inputs[0].clone()])
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let words = node.outputs[0].words();
        let params = relu::Params { words: words as u32, ..Default::default() };
        let (dy, y, dx) = (Operand::Input(0), Operand::Input(1), Operand::Output(0));
        if node.in_place {
            relu::backward_in_place(params, y, dx, workgroups_for(&relu::BACKWARD_IN_PLACE, words)).into()
        } else {
            relu::backward(params, y, dy, dx, workgroups_for(&relu::BACKWARD, words)).into()
        }
    }

    fn reference(&self, inputs: &[Tensor], _step: &Step) -> Vec<Tensor> {
        vec![inputs[0].zip(&inputs[1], |dy, y| if y > 0.0 { dy } else { 0.0 })]
    }

    fn in_place(&self) -> Option<usize> {
        Some(0)
    }

    fn fusion(&self) -> Fusion {
        Fusion::Mask
    }
}

pub(super) fn cases(_quick: bool) -> Vec<Case> {
    let fact = Fact::activation(2, 5, 7, 9);
    let values = |seed| (fact.clone(), random_reals(&fact.shape, seed));
    vec![
        Case {
            name: "forward".into(),
            op: Arc::new(Relu),
            inputs: vec![values(1)],
            step: Step::default(),
            tolerance: vec![Tolerance::Exact],
        },
        Case {
            name: "backward".into(),
            op: Arc::new(ReluBackward),
            inputs: vec![values(1), values(2)],
            step: Step::default(),
            tolerance: vec![Tolerance::Exact],
        },
    ]
}
