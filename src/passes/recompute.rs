//! Computes cheap values again where they are needed late, instead of keeping them.

use crate::graph::{Graph, Node, ValueId, ValueKind};

/// Nodes between two readers of a value from which on it is computed again.
const FAR: usize = 4;

/// Gives readers that come long after a value was made a copy of their own, made right before them, where the operation
/// [`is_cheap`](crate::graph::Op::is_cheap) and all its inputs are still there by then. The operation's results do not depend on
/// when it runs, so nothing changes but memory and time.
pub fn recompute(graph: &mut Graph) {
    let mut index = 0;
    while index < graph.nodes.len() {
        if let Some(late) = late_reader(graph, index) {
            let Node { path, op, inputs, outputs } = graph.nodes[index].clone();
            let (old, value) = (outputs[0], graph.value(outputs[0]).clone());
            let again = graph.add_value(format!("{} again", value.name), value.fact, ValueKind::Temporary);
            for reader in &mut graph.nodes[late..] {
                reader.inputs.iter_mut().filter(|input| **input == old).for_each(|input| *input = again);
            }
            graph.nodes.insert(late, Node { path, op, inputs, outputs: vec![again] });
        }
        index += 1;
    }
}

/// The first reader of node `index` that comes long after the one before it, if the node can run again right before it.
fn late_reader(graph: &Graph, index: usize) -> Option<usize> {
    let node = &graph.nodes[index];
    let [value] = node.outputs[..] else { return None };
    if !node.op.is_cheap() || graph.value(value).kind != ValueKind::Temporary {
        return None;
    }
    let readers_of = |value| (index + 1..graph.nodes.len()).filter(move |reader| graph.nodes[*reader].inputs.contains(&value));
    let readers: Vec<usize> = readers_of(value).collect();
    let late = readers.windows(2).find(|pair| pair[1] - pair[0] >= FAR).map(|pair| pair[1])?;
    let is_there = |input: &ValueId| match graph.value(*input).kind {
        ValueKind::Input | ValueKind::Parameter(_) => true,
        _ => readers_of(*input).any(|reader| reader >= late),
    };
    node.inputs.iter().all(is_there).then_some(late)
}
