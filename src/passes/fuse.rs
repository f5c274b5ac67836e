//! Merges ReLU into the kernel before it, the ReLU's gradient mask into the kernel that produced the gradient, and the
//! global pool with what follows it into one kernel.

use crate::graph::{Fusion, Graph, Node, ValueId, ValueKind};
use crate::ops::Head;
use std::sync::Arc;

/// Fuses element-wise nodes into their producers where the producer has a kernel for it and nobody else reads the
/// value in between, and then heads. The arithmetic is the same, so results are the same bit for bit.
pub fn fuse(graph: &mut Graph) {
    let mut index = 0;
    while index < graph.nodes.len() {
        if fuse_into_producer(graph, index) {
            graph.nodes.remove(index);
        } else {
            index += 1;
        }
    }
    while fuse_head(graph) {}
}

/// Gives the work of node `index` to the node that produced its first input; false where that cannot be.
fn fuse_into_producer(graph: &mut Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    let kind = node.op.fusion();
    if !matches!(kind, Fusion::Relu | Fusion::Mask) {
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
        _ => None,
    };
    let Some(op) = fused else { return false };
    let mask = match graph.nodes[producer].op.fusion() {
        Fusion::MaxPoolBackward => match pool_output(graph, producer, mask) {
            Some(output) => Some(output),
            None => return false,
        },
        _ => mask,
    };
    let producer = &mut graph.nodes[producer];
    producer.op = op;
    producer.outputs[0] = result;
    producer.inputs.extend(mask);
    true
}

/// The output of the max pool whose gradient is node `backward`, if `mask` is what the pool read.
fn pool_output(graph: &Graph, backward: usize, mask: Option<ValueId>) -> Option<ValueId> {
    let winners = graph.nodes[backward].inputs[1];
    let pool = graph.nodes.iter().find(|node| node.outputs.contains(&winners))?;
    (Some(pool.inputs[0]) == mask).then(|| pool.outputs[0])
}

/// Replaces a global pool and everything that reads it by one [`Head`]; false where there is none that can be.
fn fuse_head(graph: &mut Graph) -> bool {
    let is_pool = |node: &Node| node.op.fusion() == Fusion::GlobalPool;
    let found = graph.nodes.iter().enumerate().filter(|(_, node)| is_pool(node)).find_map(|(index, _)| head_of(graph, index));
    let Some((head, replaced)) = found else { return false };
    // Where the loss was: labels and the map are there by then, and nobody reads the results before.
    let place = replaced[1];
    graph.nodes[place] = head;
    let mut index = 0;
    graph.nodes.retain(|_| {
        index += 1;
        index - 1 == place || !replaced.contains(&(index - 1))
    });
    true
}

/// The head that can replace the global pool at `pool`, and the nodes it replaces: the pool, what follows it, and the
/// gradients of both.
fn head_of(graph: &Graph, pool: usize) -> Option<(Node, Vec<usize>)> {
    let readers = |value| (0..graph.nodes.len()).filter(move |i| graph.nodes[*i].inputs.contains(&value)).collect::<Vec<_>>();
    let (map, logits) = (graph.nodes[pool].inputs[0], graph.nodes[pool].outputs[0]);
    if graph.value(logits).kind != ValueKind::Temporary {
        return None;
    }
    let behind = readers(logits);
    let kinds: Vec<Fusion> = behind.iter().map(|i| graph.nodes[*i].op.fusion()).collect();
    let next = &graph.nodes[*behind.first()?];
    let mut node =
        Node { path: next.path.clone(), op: Arc::new(Head::Softmax), inputs: next.inputs.clone(), outputs: next.outputs.clone() };
    node.inputs[0] = map;
    let mut replaced = vec![pool, behind[0]];
    match kinds[..] {
        [Fusion::Softmax] => {}
        [Fusion::Loss { smoothing }] => node.op = Arc::new(Head::Loss { smoothing }),
        [Fusion::Loss { smoothing }, Fusion::LossBackward] => {
            let [pool_backward] = readers(graph.nodes[behind[1]].outputs[0])[..] else { return None };
            let Fusion::GlobalPoolBackward { masked } = graph.nodes[pool_backward].op.fusion() else { return None };
            if masked && graph.nodes[pool_backward].inputs[1] != map {
                return None;
            }
            node.op = Arc::new(Head::LossAndGradient { masked, smoothing });
            // The gradient may have a loss scale.
            node.inputs.extend_from_slice(&graph.nodes[behind[1]].inputs[2..]);
            node.outputs.push(graph.nodes[pool_backward].outputs[0]);
            replaced.extend([behind[1], pool_backward]);
        }
        _ => return None,
    }
    Some((node, replaced))
}
