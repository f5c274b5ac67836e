//! Reverse-mode differentiation: one rule per operation, one walk over the nodes.

use crate::graph::{Gradient, Graph, GraphError, ValueId, ValueKind};
use crate::ops::Add;
use std::sync::Arc;

/// A graph cannot be differentiated.
#[derive(Debug, thiserror::Error)]
pub enum AutodiffError {
    /// A gradient rule built a node that does not fit.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Every parameter is frozen.
    #[error("every layer is frozen; there is nothing to train")]
    AllFrozen,
    /// A parameter does not influence the loss.
    #[error("parameter {0} does not reach the loss; it could never be trained")]
    Unreached(String),
}

/// Appends the nodes that compute the gradient of `loss` with respect to every parameter that is not frozen, and marks those values as
/// [`ValueKind::Gradient`]. `loss` is an output of the node that starts the walk: its own rule needs no gradient.
///
/// Only paths that lead to a trained parameter are walked, so the first convolution gets no input gradient. Where a value
/// has several readers their contributions are added by explicit nodes, in reverse order of the readers.
pub fn autodiff(graph: &mut Graph, loss: ValueId) -> Result<(), AutodiffError> {
    let mut leads = vec![false; graph.values().count()];
    if !graph.parameters.is_empty() && graph.parameters.iter().all(|parameter| parameter.frozen) {
        return Err(AutodiffError::AllFrozen);
    }
    for parameter in graph.parameters.iter().filter(|parameter| !parameter.frozen) {
        leads[parameter.value.0 as usize] = true;
    }
    for node in &graph.nodes {
        if node.inputs.iter().any(|id| leads[id.0 as usize]) {
            node.outputs.iter().for_each(|id| leads[id.0 as usize] = true);
        }
    }

    let mut gradients: Vec<Option<ValueId>> = vec![None; leads.len()];
    for index in (0..graph.nodes.len()).rev() {
        let node = graph.nodes[index].clone();
        let is_root = node.outputs.contains(&loss);
        let output_gradients: Vec<Option<ValueId>> = node.outputs.iter().map(|id| gradients[id.0 as usize]).collect();
        let wanted: Vec<bool> = node.inputs.iter().map(|id| leads[id.0 as usize]).collect();
        let reaches_loss = is_root || output_gradients.iter().any(Option::is_some);
        if !reaches_loss || !wanted.contains(&true) {
            continue;
        }
        let contributions = node.op.backward(&mut Gradient {
            graph,
            path: &node.path,
            inputs: &node.inputs,
            outputs: &node.outputs,
            output_gradients: &output_gradients,
            wanted: &wanted,
        })?;
        for (input, contribution) in node.inputs.iter().zip(contributions) {
            let slot = &mut gradients[input.0 as usize];
            *slot = match (*slot, contribution) {
                (Some(sum), Some(new)) => Some(graph.add_single(&node.path, Arc::new(Add), &[sum, new])?),
                (old, new) => new.or(old),
            };
        }
    }

    for index in 0..graph.parameters.len() {
        let parameter = &graph.parameters[index];
        if parameter.frozen {
            continue;
        }
        let gradient = gradients[parameter.value.0 as usize].ok_or_else(|| AutodiffError::Unreached(parameter.name.clone()))?;
        graph.set_kind(gradient, ValueKind::Gradient(index));
    }
    Ok(())
}
