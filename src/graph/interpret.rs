//! Runs a graph on the host in double precision, node by node with the references of its operations.

use super::{Graph, ValueId};
use crate::half::round_to_f16;
use crate::kernels::Step;
use crate::shape::Element;
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// Every value of `graph`, given its inputs and parameters. What is stored in half precision is rounded to it.
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
        let stored = node.outputs.iter().zip(outputs).map(|(id, output)| match graph.fact(*id).element {
            Element::F32 => (*id, output),
            Element::F16 => (*id, output.map(|v| f64::from(round_to_f16(v as f32)))),
        });
        values.extend(stored);
    }
    values
}
