//! Resolves every operand to a region of a buffer: the plain data that an executor runs.

use super::plan::{Plan, operand_value};
use crate::graph::{Graph, Node, Operand, ValueId, ValueKind};
use crate::kernels::{BindingKind, Dispatch, texture_bytes, texture_copy};
use crate::ops::WORDS_OF_A_BLOCK;
use std::collections::{BTreeMap, BTreeSet};
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
    /// Places the parameters of `graph` one after the other at multiples of `alignment` bytes and of the blocks
    /// that have a [`crate::ops::Multiplier`].
    pub fn new(graph: &Graph, alignment: u64) -> Self {
        let alignment = alignment.max((WORDS_OF_A_BLOCK * 4) as u64);
        let mut bytes = 0;
        let ranges = graph
            .parameters
            .iter()
            .map(|p| {
                let start = bytes;
                let end = start + graph.fact(p.value).bytes();
                bytes = end.next_multiple_of(alignment);
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
    /// Multipliers of learning rate and weight decay.
    Multipliers,
    /// Partial sums of the gradients' squares.
    ClipPartials,
    /// What gradients are multiplied by to keep their norm, and the norm.
    ClipResult,
    /// Written by the host.
    Input(ValueId),
    /// Kept from step to step.
    State(ValueId),
    /// Read by the host.
    Output(ValueId),
    /// Shared by temporaries.
    Slot(usize),
    /// A texture, shared by nodes; its size is a whole number of rows.
    Texture(usize),
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

/// What a dispatch is for: a layer's direction, or the update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// The layer's results.
    Forward,
    /// Gradient of a layer's input, where the layer has parameters.
    BackwardInput,
    /// Gradients of a layer's parameters.
    BackwardWeight,
    /// Gradient of a layer without parameters.
    Backward,
    /// Parameters from their gradients.
    Update,
}

impl Pass {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Pass::Forward => "forward",
            Pass::BackwardInput => "backward_input",
            Pass::BackwardWeight => "backward_weight",
            Pass::Backward => "backward",
            Pass::Update => "update",
        }
    }
}

/// A dispatch and the layer it belongs to.
#[derive(Clone, Debug)]
pub struct ScheduledDispatch {
    /// Path of the layer.
    pub path: String,
    /// Name of the operation.
    pub op: &'static str,
    /// What it is for.
    pub pass: Pass,
    /// Multiply-adds of the operation, counted at its first dispatch: the others reduce or copy.
    pub macs: u64,
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
    let passes = passes(graph);
    let mut copied = Copied::default();
    for (index, (node, lowered)) in graph.nodes.iter().zip(&plan.lowered).enumerate() {
        let facts = |ids: &[ValueId]| ids.iter().map(|id| graph.fact(*id)).collect::<Vec<_>>();
        let mut macs = node.op.macs(&facts(&node.inputs), &facts(&node.outputs));
        for dispatch in &lowered.dispatches {
            let dispatch = dispatch.map(|operand| {
                let region = match operand_value(graph, index, *operand) {
                    Some(value) => value_region(graph, plan, &arena, value),
                    None => node_region(plan, index, *operand),
                };
                let size = match region.buffer {
                    BufferRole::Parameters | BufferRole::Gradients => arena.bytes,
                    BufferRole::Slot(slot) => plan.slots[slot],
                    BufferRole::Texture(_) => {
                        let bytes = region.bytes.next_multiple_of(texture_bytes(1));
                        bytes.max(buffers.get(&region.buffer).copied().unwrap_or(0))
                    }
                    _ => region.bytes,
                };
                buffers.insert(region.buffer, size);
                region
            });
            if copied.is_there_after(&dispatch) {
                continue;
            }
            let macs = std::mem::take(&mut macs);
            dispatches.push(ScheduledDispatch { path: node.path.clone(), op: node.op.name(), pass: passes[index], macs, dispatch });
        }
    }
    Schedule { dispatches, buffers, arena }
}

/// What textures hold: the region that was copied to each, by the kernel that copied it, and that nothing has written since.
#[derive(Default)]
struct Copied(BTreeMap<BufferRole, (&'static str, Region)>);

impl Copied {
    /// Whether a dispatch is a copy to a texture that has the same copy already: the two gradients of a convolution read the same
    /// gradient of its output, one after the other. Else notes what the dispatch writes.
    fn is_there_after(&mut self, dispatch: &Dispatch<Region>) -> bool {
        let kernel = dispatch.kernel;
        let copy = match dispatch.buffers[..] {
            [from, to] if kernel.module.starts_with(texture_copy::COPY.module) => Some((to.buffer, (kernel.module, from))),
            _ => None,
        };
        if copy.is_some_and(|(texture, source)| self.0.get(&texture) == Some(&source)) {
            return true;
        }
        let overlaps = |a: &Region, b: &Region| a.buffer == b.buffer && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
        for (binding, written) in kernel.storage().zip(&dispatch.buffers) {
            if matches!(binding.kind, BindingKind::ReadWrite | BindingKind::TextureWrite) {
                self.0.retain(|texture, (_, source)| *texture != written.buffer && !overlaps(source, written));
            }
        }
        self.0.extend(copy);
        false
    }
}

/// What every node is for. A node that nothing but gradients comes of belongs to the backward pass.
fn passes(graph: &Graph) -> Vec<Pass> {
    let is_kind = |id: &ValueId, wanted: fn(ValueKind) -> bool| wanted(graph.value(*id).kind);
    let is_result = |kind| matches!(kind, ValueKind::State | ValueKind::Output);
    let mut leads_to_result: Vec<bool> = graph.values().map(|(_, value)| is_result(value.kind)).collect();
    let mut passes = vec![Pass::Backward; graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        if node.outputs.iter().any(|id| leads_to_result[id.0 as usize]) {
            passes[index] = Pass::Forward;
            node.inputs.iter().for_each(|id| leads_to_result[id.0 as usize] = true);
        }
    }
    let reads_parameter = |node: &Node| node.inputs.iter().any(|id| is_kind(id, |kind| matches!(kind, ValueKind::Parameter(_))));
    let with_parameters: BTreeSet<&str> = graph.nodes.iter().filter(|node| reads_parameter(node)).map(|node| node.path.as_str()).collect();
    for (pass, node) in passes.iter_mut().zip(&graph.nodes).filter(|(pass, _)| **pass == Pass::Backward) {
        if node.outputs.iter().any(|id| is_kind(id, |kind| matches!(kind, ValueKind::Gradient(_)))) {
            *pass = Pass::BackwardWeight;
        } else if with_parameters.contains(node.path.as_str()) {
            *pass = Pass::BackwardInput;
        }
    }
    passes
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

/// Memory of one node: scratch, or a texture, which nodes share because they run one after the other.
fn node_region(plan: &Plan, node: usize, operand: Operand) -> Region {
    let lowered = &plan.lowered[node];
    let (buffer, bytes) = match operand {
        Operand::Scratch(index) => (BufferRole::Slot(plan.scratch_slot(node, index)), lowered.scratch[index]),
        Operand::Texture(index) => (BufferRole::Texture(index), lowered.textures[index]),
        Operand::Input(_) | Operand::Output(_) => unreachable!("inputs and outputs have values"),
    };
    Region { buffer, offset: 0, bytes }
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
