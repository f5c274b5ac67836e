//! The intermediate representation: values, the nodes that compute them, and the modules a model is made of.
//!
//! A graph is append-only and its node order is a valid execution order. Forward and backward nodes live side by
//! side; nothing here knows about devices.

mod builder;
mod dump;
mod interpret;
mod op;

pub use builder::{Builder, Module, Scope};
pub use interpret::interpret;
pub use op::{Case, Fusion, Gradient, Lowered, Lowering, Op, Operand, Tolerance};

use crate::shape::{Element, Fact, ShapeError};
use std::sync::Arc;

/// A tensor of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// A layer could not be added to a graph.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("layer {path} ({op}): {error}")]
pub struct GraphError {
    /// Path of the layer, as in PyTorch (`0.2`).
    pub path: String,
    /// Name of the operation.
    pub op: &'static str,
    /// What does not fit.
    pub error: ShapeError,
}

/// Where a value comes from and how long it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueKind {
    /// Written by the host before a step.
    Input,
    /// The parameter with this index in [`Graph::parameters`].
    Parameter(usize),
    /// The gradient of the parameter with this index.
    Gradient(usize),
    /// Kept from step to step and readable by the host (metrics).
    State,
    /// Readable by the host after a step.
    Output,
    /// Needed within one step only; its memory is shared.
    Temporary,
}

/// A tensor: what it is called, its shape and layout, and its life.
#[derive(Clone, Debug)]
pub struct Value {
    /// For dumps and labels.
    pub name: String,
    /// Shape and layout.
    pub fact: Fact,
    /// Lifetime.
    pub kind: ValueKind,
}

/// One application of an operation.
#[derive(Clone, Debug)]
pub struct Node {
    /// Path of the layer it belongs to, with a suffix for backward nodes.
    pub path: String,
    /// What it computes.
    pub op: Arc<dyn Op>,
    /// What it reads.
    pub inputs: Vec<ValueId>,
    /// What it writes.
    pub outputs: Vec<ValueId>,
}

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterRole {
    /// A convolution's filter.
    Weight,
    /// A convolution's bias.
    Bias,
}

/// A trained tensor.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Name in weight files (`0.0.weight`).
    pub name: String,
    /// Its value in the graph.
    pub value: ValueId,
    /// Filter or bias.
    pub role: ParameterRole,
    /// Inputs that feed one output of the layer.
    pub fan_in: usize,
    /// Outputs that one input of the layer feeds.
    pub fan_out: usize,
    /// Stays as it is: no gradient is computed for it.
    pub frozen: bool,
}

/// Values and nodes; see the module's text.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    values: Vec<Value>,
    /// In execution order.
    pub nodes: Vec<Node>,
    /// Trained tensors, in the order of the weight file.
    pub parameters: Vec<Parameter>,
    /// Leaf modules and blocks of the model, in order.
    pub modules: Vec<Module>,
}

impl Graph {
    /// The value behind an id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    /// The fact of a value.
    pub fn fact(&self, id: ValueId) -> &Fact {
        &self.value(id).fact
    }

    /// All values, in order of their ids.
    pub fn values(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        self.values.iter().enumerate().map(|(i, v)| (ValueId(i as u32), v))
    }

    /// A new value that no node computes yet.
    pub fn add_value(&mut self, name: impl Into<String>, fact: Fact, kind: ValueKind) -> ValueId {
        self.values.push(Value { name: name.into(), fact, kind });
        ValueId(self.values.len() as u32 - 1)
    }

    /// Changes the life of a value (an output kept for the host, a gradient placed in its arena).
    pub fn set_kind(&mut self, id: ValueId, kind: ValueKind) {
        self.values[id.0 as usize].kind = kind;
    }

    /// Changes how the numbers of a value are stored.
    pub fn set_element(&mut self, id: ValueId, element: Element) {
        self.values[id.0 as usize].fact.element = element;
    }

    /// Appends a node; its outputs are new temporaries.
    pub fn add_node(&mut self, path: &str, op: Arc<dyn Op>, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
        let facts: Vec<&Fact> = inputs.iter().map(|id| self.fact(*id)).collect();
        let outputs = op.outputs(&facts).map_err(|error| GraphError { path: path.to_string(), op: op.name(), error })?;
        let outputs: Vec<ValueId> = outputs
            .into_iter()
            .enumerate()
            .map(|(i, fact)| {
                let suffix = if i == 0 { String::new() } else { format!("#{i}") };
                self.add_value(format!("{path}/{}{suffix}", op.name()), fact, ValueKind::Temporary)
            })
            .collect();
        self.nodes.push(Node { path: path.to_string(), op, inputs: inputs.to_vec(), outputs: outputs.clone() });
        Ok(outputs)
    }

    /// Appends a node with one output.
    pub fn add_single(&mut self, path: &str, op: Arc<dyn Op>, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
        Ok(self.add_node(path, op, inputs)?[0])
    }

    /// How many node inputs refer to each value.
    pub fn reader_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.values.len()];
        for id in self.nodes.iter().flat_map(|n| &n.inputs) {
            counts[id.0 as usize] += 1;
        }
        counts
    }

    /// Number of trained scalars, without padding.
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(|p| self.fact(p.value).shape.elements()).sum()
    }
}
