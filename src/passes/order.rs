//! Drops nodes whose results nobody needs. The order of appending is kept: it is valid, and gradient rules append
//! in the order that frees memory earliest.

use crate::graph::{Graph, ValueKind};

/// Keeps the nodes that lead to a gradient, a state or an output.
pub fn order(graph: &mut Graph) {
    let mut needed: Vec<bool> =
        graph.values().map(|(_, v)| matches!(v.kind, ValueKind::Gradient(_) | ValueKind::State | ValueKind::Output)).collect();
    let mut kept = Vec::new();
    for node in graph.nodes.drain(..).rev() {
        if node.outputs.iter().any(|id| needed[id.0 as usize]) {
            node.inputs.iter().for_each(|id| needed[id.0 as usize] = true);
            kept.push(node);
        }
    }
    kept.reverse();
    graph.nodes = kept;
}
