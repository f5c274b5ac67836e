//! Runs a graph on the host in double precision, node by node with the references of its operations.

use super::{Graph, ValueId};
use crate::kernels::Step;
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// Every value of `graph`, given its inputs and parameters.
///
/// # Panics
/// Where a node reads a value that neither `inputs` nor an earlier node provides.
pub fn interpret(graph: &Graph, inputs: BTreeMap<ValueId, Tensor>, step: &Step) -> BTreeMap<ValueId, Tensor> {
    let mut values = inputs;
    for node in &graph.nodes {
        let read = |id: &ValueId| match values.get(id) {
            Some(tensor) => tensor.clone(),
            None => panic!("{} reads {}, which has no value", node.path, graph.value(*id).name),
        };
        let inputs: Vec<Tensor> = node.inputs.iter().map(read).collect();
        let outputs = node.op.reference(&inputs, step);
        values.extend(node.outputs.iter().copied().zip(outputs));
    }
    values
}
