//! Builds a model as PyTorch's nested `nn.Sequential` would, so that paths and parameter names agree.

use super::{Graph, GraphError, Op, Parameter, ParameterRole, ValueId, ValueKind};
use crate::shape::{Fact, Window};
use std::sync::Arc;

/// A leaf module or a block of a model, for summaries.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// PyTorch path (`0.2`).
    pub path: String,
    /// PyTorch type (`Conv2d`), or `Sequential` for a block.
    pub kind: &'static str,
    /// Output shape without the batch dimension.
    pub output: Vec<usize>,
    /// Trained scalars.
    pub parameters: usize,
    /// Multiply-adds for one image.
    pub macs: u64,
    /// Window of convolutions and pools.
    pub window: Option<Window>,
}

/// A graph under construction.
#[derive(Debug, Default)]
pub struct Builder {
    /// What has been built so far.
    pub graph: Graph,
    dropouts: u32,
}

impl Builder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// A tensor that the host writes.
    pub fn input(&mut self, name: &str, fact: Fact) -> ValueId {
        self.graph.add_value(name, fact, ValueKind::Input)
    }

    /// Appends a node with one output.
    pub fn node(&mut self, path: &str, op: impl Op + 'static, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
        self.graph.add_single(path, Arc::new(op), inputs)
    }

    /// Starts the outermost `nn.Sequential` at `value`.
    pub fn sequential(&mut self, value: ValueId) -> Scope<'_> {
        Scope { builder: self, prefix: String::new(), next: 0, value }
    }

    /// A number for the next dropout layer, the key of its random numbers.
    pub fn next_dropout_key(&mut self) -> u32 {
        self.dropouts += 1;
        self.dropouts
    }
}

/// An `nn.Sequential` that is being filled: layers are numbered from 0 and chained.
pub struct Scope<'a> {
    builder: &'a mut Builder,
    prefix: String,
    next: usize,
    value: ValueId,
}

impl Scope<'_> {
    /// The output of the last layer.
    pub fn value(&self) -> ValueId {
        self.value
    }

    /// The fact of the last layer's output.
    pub fn fact(&self) -> &Fact {
        self.builder.graph.fact(self.value)
    }

    /// The builder, for layers that need more than the last value.
    pub fn builder(&mut self) -> &mut Builder {
        self.builder
    }

    fn next_path(&mut self) -> String {
        let path = format!("{}{}", self.prefix, self.next);
        self.next += 1;
        path
    }

    /// Fills a nested `nn.Sequential`.
    pub fn block(&mut self, fill: impl FnOnce(&mut Scope<'_>) -> Result<(), GraphError>) -> Result<(), GraphError> {
        let path = self.next_path();
        let first = self.builder.graph.modules.len();
        let mut inner = Scope { builder: self.builder, prefix: format!("{path}."), next: 0, value: self.value };
        fill(&mut inner)?;
        self.value = inner.value;
        let modules = &mut self.builder.graph.modules;
        let summary = Module {
            path,
            kind: "Sequential",
            output: modules.last().map(|m| m.output.clone()).unwrap_or_default(),
            parameters: modules[first..].iter().map(|m| m.parameters).sum(),
            macs: modules[first..].iter().map(|m| m.macs).sum(),
            window: None,
        };
        modules.push(summary);
        Ok(())
    }

    /// Appends a layer: `op` reads the last value and then `parameters`, given as (suffix, fact, role, fan-in, fan-out).
    pub fn layer(
        &mut self,
        kind: &'static str,
        window: Option<Window>,
        op: impl Op + 'static,
        parameters: &[(&str, Fact, ParameterRole, usize, usize)],
    ) -> Result<(), GraphError> {
        let path = self.next_path();
        let graph = &mut self.builder.graph;
        let mut inputs = vec![self.value];
        let mut count = 0;
        for (suffix, fact, role, fan_in, fan_out) in parameters {
            let name = format!("{path}.{suffix}");
            let value = graph.add_value(name.clone(), fact.clone(), ValueKind::Parameter(graph.parameters.len()));
            graph.parameters.push(Parameter { name, value, role: *role, fan_in: *fan_in, fan_out: *fan_out, frozen: false });
            count += fact.shape.elements();
            inputs.push(value);
        }
        self.value = graph.add_node(&path, Arc::new(op), &inputs)?[0];
        let node = &graph.nodes[graph.nodes.len() - 1];
        let facts: Vec<&Fact> = node.inputs.iter().map(|id| graph.fact(*id)).collect();
        let [n, c, h, w] = graph.fact(self.value).shape.four();
        let macs = node.op.macs(&facts, &[graph.fact(self.value)]) / n as u64;
        graph.modules.push(Module { path, kind, output: vec![c, h, w], parameters: count, macs, window });
        Ok(())
    }

    /// Records a layer that computes nothing (`Dropout` in inference, `Flatten` of single pixels).
    pub fn identity(&mut self, kind: &'static str, output: Vec<usize>) {
        let path = self.next_path();
        self.builder.graph.modules.push(Module { path, kind, output, parameters: 0, macs: 0, window: None });
    }
}
