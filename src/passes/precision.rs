//! Mixed precision: which values are stored in half precision.
//!
//! Activations and their gradients are, and the copies of filters that convolutions read. Parameters, their gradients and
//! what leads from a map to the loss stay in f32, as does what an operation [needs](crate::graph::Op::needs_single_precision) so, and kernels compute in f32 whatever they load and store.

use crate::graph::{Fusion, Graph, Node, ValueId, ValueKind};
use crate::ops::{Cast, LossScale};
use crate::shape::{Element, Layout};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Stores activations in half precision, gives every filter that is read a copy in half precision, made once in each run
/// from the parameter, and multiplies the loss's gradient by the scale in the state that comes back; none without a gradient.
pub fn precision(graph: &mut Graph) -> Option<ValueId> {
    let mut single = around_the_loss(graph);
    single.extend(graph.nodes.iter().filter(|node| node.op.needs_single_precision()).flat_map(|node| node.inputs.iter().copied()));
    let activations: Vec<ValueId> = graph
        .values()
        .filter(|(id, value)| value.kind == ValueKind::Temporary && value.fact.layout == Layout::Activation && !single.contains(id))
        .map(|(id, _)| id)
        .collect();
    for id in activations {
        graph.set_element(id, Element::F16);
    }
    copy_filters(graph);
    scale_loss(graph)
}

/// Values that softmax and losses read and write.
fn around_the_loss(graph: &Graph) -> BTreeSet<ValueId> {
    let is_loss = |node: &&Node| matches!(node.op.fusion(), Fusion::Softmax | Fusion::Loss { .. } | Fusion::LossBackward);
    graph.nodes.iter().filter(is_loss).flat_map(|node| node.inputs.iter().chain(&node.outputs).copied()).collect()
}

/// Replaces filters by copies, each made where the parameter was first read.
fn copy_filters(graph: &mut Graph) {
    let mut copies: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    let nodes = std::mem::take(&mut graph.nodes);
    for mut node in nodes {
        for input in &mut node.inputs {
            let value = graph.value(*input);
            if !matches!(value.kind, ValueKind::Parameter(_)) || value.fact.layout != Layout::Filter {
                continue;
            }
            let (name, fact) = (format!("{}/f16", value.name), value.fact.clone().with_element(Element::F16));
            let parameter = *input;
            *input = *copies.entry(parameter).or_insert_with(|| {
                let copy = graph.add_value(name, fact, ValueKind::Temporary);
                graph.nodes.push(Node { path: node.path.clone(), op: Arc::new(Cast), inputs: vec![parameter], outputs: vec![copy] });
                copy
            });
        }
        graph.nodes.push(node);
    }
}

/// Gives the loss's gradient its scale.
fn scale_loss(graph: &mut Graph) -> Option<ValueId> {
    let is_gradient = |node: &Node| node.op.fusion() == Fusion::LossBackward;
    if !graph.nodes.iter().any(is_gradient) {
        return None;
    }
    let scale = graph.add_value("loss scale", LossScale::fact(), ValueKind::State);
    graph.nodes.iter_mut().filter(|node| is_gradient(node)).for_each(|node| node.inputs.push(scale));
    Some(scale)
}
