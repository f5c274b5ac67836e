//! Lowers nodes to kernels and lets temporaries share memory.
//!
//! A temporary lives from the node that writes it to its last reader. Values that never live at the same time share
//! a slot; a slot is a whole buffer, because wgpu tracks usage per buffer ([`super::place`] chooses who shares).

use super::place;
use crate::graph::{Graph, Lowered, Lowering, Operand, ValueId, ValueKind};
use crate::kernels::Target;
use std::collections::BTreeMap;

/// Switches for diagnosis; results do not depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// Share memory between values and work in place.
    pub share: bool,
}

impl Default for PlanOptions {
    fn default() -> Self {
        PlanOptions { share: true }
    }
}

/// A tensor does not fit the device.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// One tensor is larger than a binding may be.
    #[error(
        "{name} ({shape}) takes {bytes} bytes, over this adapter's limit of {limit} bytes for one tensor; use a smaller batch or image"
    )]
    #[allow(missing_docs)]
    TooLarge { name: String, shape: String, bytes: u64, limit: u64 },
}

/// A value or a node's scratch memory, with its life in node indices, both ends included.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// What it is, for the timeline.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Index of the node that writes it first.
    pub from: usize,
    /// Index of the node that reads it last.
    pub to: usize,
    /// The slot it was given.
    pub slot: usize,
}

/// Where every temporary lives, and the kernels of every node.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The kernels of each node of the graph.
    pub lowered: Vec<Lowered>,
    /// Temporaries and scratch memory.
    pub tenants: Vec<Tenant>,
    /// Bytes of each slot.
    pub slots: Vec<u64>,
    /// Layer and operation of each node, for the timeline.
    pub nodes: Vec<String>,
    values: BTreeMap<ValueId, usize>,
    scratch: BTreeMap<(usize, usize), usize>,
}

impl Plan {
    /// The slot of a temporary; `None` for a value with memory of its own or without any.
    pub fn slot_of(&self, value: ValueId) -> Option<usize> {
        self.values.get(&value).map(|tenant| self.tenants[*tenant].slot)
    }

    /// The slot of a node's scratch buffer.
    pub fn scratch_slot(&self, node: usize, index: usize) -> usize {
        self.tenants[self.scratch[&(node, index)]].slot
    }

    /// Bytes of all slots: what temporaries cost.
    pub fn bytes(&self) -> u64 {
        self.slots.iter().sum()
    }

    /// The lower bound: the most bytes alive at one node.
    pub fn peak_alive(&self) -> u64 {
        self.alive().into_iter().max().unwrap_or(0)
    }
}

/// Lowers every node of `graph` for `target` and places its temporaries.
pub fn plan(graph: &Graph, target: &Target, options: PlanOptions) -> Result<Plan, PlanError> {
    let lives = lives(graph);
    for (id, value) in graph.values() {
        let used = lives[id.0 as usize].is_some();
        if used && value.fact.bytes() > target.max_binding_bytes.min(target.max_buffer_bytes) {
            return Err(PlanError::TooLarge {
                name: value.name.clone(),
                shape: value.fact.shape.to_string(),
                bytes: value.fact.bytes(),
                limit: target.max_binding_bytes.min(target.max_buffer_bytes),
            });
        }
    }

    let mut plan = Plan {
        lowered: Vec::new(),
        tenants: Vec::new(),
        slots: Vec::new(),
        nodes: graph.nodes.iter().map(|node| format!("{} {}", node.path, node.op.name())).collect(),
        values: BTreeMap::new(),
        scratch: BTreeMap::new(),
    };
    for (index, node) in graph.nodes.iter().enumerate() {
        let inherited = node.op.in_place().filter(|_| options.share).and_then(|input| {
            let input = node.inputs[input];
            let tenant = *plan.values.get(&input)?;
            let read_once = node.inputs.iter().filter(|id| **id == input).count() == 1;
            let is_last = lives[input.0 as usize].is_some_and(|(_, to)| to == index);
            let output = node.outputs[0];
            let is_temporary = graph.value(output).kind == ValueKind::Temporary;
            let same_size = graph.fact(output).bytes() == graph.fact(input).bytes();
            (read_once && is_last && is_temporary && same_size).then_some(tenant)
        });
        let is_read = |id: &ValueId| match graph.value(*id).kind {
            ValueKind::Temporary => lives[id.0 as usize].is_some_and(|(from, to)| to > from),
            _ => true,
        };
        for (position, output) in node.outputs.iter().enumerate() {
            let value = graph.value(*output);
            let Some((from, to)) = lives[output.0 as usize].filter(|_| value.kind == ValueKind::Temporary && is_read(output)) else {
                continue;
            };
            let tenant = match inherited.filter(|_| position == 0) {
                Some(tenant) => {
                    plan.tenants[tenant].to = to;
                    tenant
                }
                None => plan.add(value.name.clone(), value.fact.bytes(), from, to),
            };
            plan.values.insert(*output, tenant);
        }
        let lowered = node.op.lower(&Lowering {
            target,
            inputs: node.inputs.iter().map(|id| graph.fact(*id)).collect(),
            outputs: node.outputs.iter().map(|id| graph.fact(*id)).collect(),
            is_read: node.outputs.iter().map(is_read).collect(),
            in_place: inherited.is_some(),
        });
        for (position, bytes) in lowered.scratch.iter().enumerate() {
            let tenant = plan.add(format!("{}/{} scratch", node.path, node.op.name()), *bytes, index, index);
            plan.scratch.insert((index, position), tenant);
        }
        plan.lowered.push(lowered);
    }
    plan.slots = if options.share { place(&mut plan.tenants) } else { apart(&mut plan.tenants) };
    Ok(plan)
}

/// First writer and last reader of every value, as node indices.
fn lives(graph: &Graph) -> Vec<Option<(usize, usize)>> {
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; graph.values().count()];
    for (index, node) in graph.nodes.iter().enumerate() {
        for id in node.outputs.iter().chain(&node.inputs) {
            let life = lives[id.0 as usize].get_or_insert((index, index));
            life.1 = index;
        }
    }
    lives
}

impl Plan {
    fn add(&mut self, name: String, bytes: u64, from: usize, to: usize) -> usize {
        self.tenants.push(Tenant { name, bytes, from, to, slot: 0 });
        self.tenants.len() - 1
    }
}

/// A slot for every tenant.
fn apart(tenants: &mut [Tenant]) -> Vec<u64> {
    tenants.iter_mut().enumerate().for_each(|(index, tenant)| tenant.slot = index);
    tenants.iter().map(|tenant| tenant.bytes).collect()
}

/// Whether an operand of node `node` is the memory that output 0 took over.
pub(super) fn operand_value(graph: &Graph, node: usize, operand: Operand) -> Option<ValueId> {
    match operand {
        Operand::Input(index) => Some(graph.nodes[node].inputs[index]),
        Operand::Output(index) => Some(graph.nodes[node].outputs[index]),
        Operand::Scratch(_) | Operand::Texture(_) => None,
    }
}
