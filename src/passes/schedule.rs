//! Resolves every operand to a region of a buffer: the plain data that an executor runs.

use super::plan::{Plan, operand_value};
use crate::graph::{Graph, Operand, ValueId, ValueKind};
use crate::kernels::Dispatch;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// Where all parameters lie in one buffer; gradients and optimizer state use the same ranges in theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arena {
    /// Byte range of each parameter.
    pub ranges: Vec<Range<u64>>,
    /// Size of the buffer in bytes.
    pub bytes: u64,
}

impl Arena {
    /// Places the parameters of `graph` one after the other at multiples of `alignment` bytes.
    pub fn new(graph: &Graph, alignment: u64) -> Self {
        let mut bytes = 0;
        let ranges = graph
            .parameters
            .iter()
            .map(|p| {
                let start = bytes;
                let end = start + graph.fact(p.value).bytes();
                bytes = end.next_multiple_of(alignment.max(16));
                start..end
            })
            .collect();
        Arena { ranges, bytes }
    }
}

/// A buffer of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BufferRole {
    /// All parameters.
    Parameters,
    /// All gradients.
    Gradients,
    /// Gradients summed over micro-batches.
    GradientSum,
    /// Optimizer state with this index.
    OptimizerState(usize),
    /// Written by the host.
    Input(ValueId),
    /// Kept from step to step.
    State(ValueId),
    /// Read by the host.
    Output(ValueId),
    /// Shared by temporaries.
    Slot(usize),
}

/// Part of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// Which buffer.
    pub buffer: BufferRole,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A dispatch and the layer it belongs to.
#[derive(Clone, Debug)]
pub struct ScheduledDispatch {
    /// Path of the layer.
    pub path: String,
    /// Name of the operation.
    pub op: &'static str,
    /// Kernel, constants and regions.
    pub dispatch: Dispatch<Region>,
}

/// Everything a device needs to run a graph once.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// In order.
    pub dispatches: Vec<ScheduledDispatch>,
    /// Sizes of the buffers in bytes.
    pub buffers: BTreeMap<BufferRole, u64>,
    /// Ranges within the parameter and gradient buffers.
    pub arena: Arena,
}

impl Schedule {
    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        self.buffers.values().sum()
    }
}

/// Resolves the operands of a planned graph.
pub fn schedule(graph: &Graph, plan: &Plan, alignment: u64) -> Schedule {
    let arena = Arena::new(graph, alignment);
    let mut buffers = BTreeMap::new();
    let mut dispatches = Vec::new();
    for (index, (node, lowered)) in graph.nodes.iter().zip(&plan.lowered).enumerate() {
        for dispatch in &lowered.dispatches {
            let dispatch = dispatch.map(|operand| {
                let region = match operand_value(graph, index, *operand) {
                    Some(value) => value_region(graph, plan, &arena, value),
                    None => scratch_region(plan, index, *operand),
                };
                let size = match region.buffer {
                    BufferRole::Parameters | BufferRole::Gradients => arena.bytes,
                    BufferRole::Slot(slot) => plan.slots[slot],
                    _ => region.bytes,
                };
                buffers.insert(region.buffer, size);
                region
            });
            dispatches.push(ScheduledDispatch { path: node.path.clone(), op: node.op.name(), dispatch });
        }
    }
    Schedule { dispatches, buffers, arena }
}

fn value_region(graph: &Graph, plan: &Plan, arena: &Arena, id: ValueId) -> Region {
    let value = graph.value(id);
    let bytes = value.fact.bytes();
    let whole = |buffer| Region { buffer, offset: 0, bytes };
    match value.kind {
        ValueKind::Input => whole(BufferRole::Input(id)),
        ValueKind::State => whole(BufferRole::State(id)),
        ValueKind::Output => whole(BufferRole::Output(id)),
        ValueKind::Parameter(index) => Region { buffer: BufferRole::Parameters, offset: arena.ranges[index].start, bytes },
        ValueKind::Gradient(index) => Region { buffer: BufferRole::Gradients, offset: arena.ranges[index].start, bytes },
        ValueKind::Temporary => match plan.slot_of(id) {
            Some(slot) => whole(BufferRole::Slot(slot)),
            None => unreachable!("{} is used by a kernel but was not planned", value.name),
        },
    }
}

fn scratch_region(plan: &Plan, node: usize, operand: Operand) -> Region {
    let Operand::Scratch(index) = operand else { unreachable!("only scratch operands have no value") };
    Region { buffer: BufferRole::Slot(plan.scratch_slot(node, index)), offset: 0, bytes: plan.lowered[node].scratch[index] }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (role, bytes) in &self.buffers {
            writeln!(f, "buffer   {role:?} {bytes} bytes")?;
        }
        for entry in &self.dispatches {
            let operands: Vec<String> = entry
                .dispatch
                .kernel
                .storage()
                .zip(&entry.dispatch.buffers)
                .map(|(binding, region)| match region.offset {
                    0 => format!("{}={:?}", binding.name, region.buffer),
                    offset => format!("{}={:?}+{offset}", binding.name, region.buffer),
                })
                .collect();
            writeln!(
                f,
                "dispatch {} x{} ({})  // {} {}",
                entry.dispatch.kernel.name(),
                entry.dispatch.workgroups,
                operands.join(", "),
                entry.path,
                entry.op
            )?;
        }
        Ok(())
    }
}
