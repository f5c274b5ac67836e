//! The graph as text, stable from run to run.

use super::{Graph, ValueId, ValueKind};
use crate::shape::Element;
use std::fmt;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = |id: &ValueId| format!("%{}", id.0);
        for (id, value) in self.values() {
            let kind = match value.kind {
                ValueKind::Input => "input",
                ValueKind::Parameter(_) => "parameter",
                ValueKind::State => "state",
                _ => continue,
            };
            writeln!(f, "{kind:9} {:>5} {:?} {} {:?}", label(&id), value.fact.layout, value.fact.shape, value.name)?;
        }
        for node in &self.nodes {
            let inputs: Vec<String> = node.inputs.iter().map(label).collect();
            let element = |id: &ValueId| if self.fact(*id).element == Element::F16 { " f16" } else { "" };
            let outputs: Vec<String> =
                node.outputs.iter().map(|id| format!("{}: {}{}", label(id), self.fact(*id).shape, element(id))).collect();
            let attributes = node.op.attributes();
            let attributes = if attributes.is_empty() { attributes } else { format!(" [{attributes}]") };
            writeln!(f, "node      {} = {}({}){attributes}  // {}", outputs.join(", "), node.op.name(), inputs.join(", "), node.path)?;
        }
        Ok(())
    }
}
