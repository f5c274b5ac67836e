//! Merges ReLU into the kernel before it, and the ReLU's gradient mask into the kernel that produced the gradient.

use crate::graph::{Fusion, Graph};

/// Fuses element-wise nodes into their producers where the producer has a kernel for it and nobody else reads the
/// value in between. The arithmetic is the same, so results are the same bit for bit.
pub fn fuse(graph: &mut Graph) {
    let mut index = 0;
    while index < graph.nodes.len() {
        if fuse_into_producer(graph, index) {
            graph.nodes.remove(index);
        } else {
            index += 1;
        }
    }
}

/// Gives the work of node `index` to the node that produced its first input; false where that cannot be.
fn fuse_into_producer(graph: &mut Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    let kind = node.op.fusion();
    if kind == Fusion::None {
        return false;
    }
    let value = node.inputs[0];
    let result = node.outputs[0];
    let mask = node.inputs.get(1).copied();
    if graph.reader_counts()[value.0 as usize] != 1 {
        return false;
    }
    let Some(producer) = graph.nodes[..index].iter().position(|n| n.outputs[0] == value) else {
        return false;
    };
    let fused = match kind {
        Fusion::Relu => graph.nodes[producer].op.with_relu(),
        Fusion::Mask => graph.nodes[producer].op.with_mask(),
        Fusion::None => None,
    };
    let Some(op) = fused else { return false };
    let producer = &mut graph.nodes[producer];
    producer.op = op;
    producer.outputs[0] = result;
    producer.inputs.extend(mask);
    true
}
