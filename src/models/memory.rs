//! How much device memory a network takes, and how large a batch fits.

use super::network::{BuildError, CompiledNetwork, InputOptions, Purpose, compile, compile_passes};
use super::{Model, ModelOptions, Training};
use crate::gpu::STAGING_BYTES;
use crate::graph::ValueId;
use crate::kernels::{Step, Target};
use crate::ops::{ClipNorm, Multiplier};
use crate::passes::{BufferRole, CompileOptions, Compiled};
use std::fmt;

/// Copies of results to the host that may be under way at once; each has a staging buffer.
pub const READBACKS: usize = 3;

/// Most bytes that [`largest_batch`] plans with where there is no memory budget, or the device's largest buffer if that is
/// less: adapters do not say how much memory they have.
pub const DEFAULT_AUTO_BYTES: u64 = 2 << 30;

/// Device memory of a program by what it is for, in bytes: the sum of the buffers it creates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Parameters.
    pub parameters: u64,
    /// Gradients of one pass and, for batches of several passes, their sum.
    pub gradients: u64,
    /// What the optimizer keeps from step to step.
    pub optimizer: u64,
    /// Pictures, labels and ids of a whole batch.
    pub input: u64,
    /// Activations, their gradients and scratch memory: the slots of the memory plan, and textures.
    pub temporaries: u64,
    /// Results and the staging buffers through which they come back.
    pub results: u64,
    /// Constants of the kernels and values of the step.
    pub constants: u64,
}

impl Memory {
    /// Of a program that runs `compiled` in `passes` passes for a batch and reads `result` back.
    pub(super) fn of(compiled: &Compiled, result: ValueId, passes: usize, training: &Training, target: &Target) -> Self {
        let schedule = &compiled.schedule;
        let arena = schedule.arena.bytes;
        let aligned = |bytes: usize| (bytes as u64).next_multiple_of(target.offset_alignment);
        let has_gradients = schedule.buffers.contains_key(&BufferRole::Gradients);
        let kernels: u64 = schedule.dispatches.iter().map(|entry| aligned(entry.dispatch.params.len())).sum();
        let mut memory = Memory {
            optimizer: if has_gradients { arena * training.state_names().len() as u64 } else { 0 },
            results: READBACKS as u64 * compiled.graph.fact(result).bytes(),
            constants: kernels + passes as u64 * aligned(size_of::<Step>()),
            ..Memory::default()
        };
        for (role, bytes) in &schedule.buffers {
            let total = match role {
                BufferRole::Parameters => &mut memory.parameters,
                BufferRole::Gradients | BufferRole::GradientSum => &mut memory.gradients,
                BufferRole::OptimizerState(_) => &mut memory.optimizer,
                BufferRole::Input(_) => &mut memory.input,
                BufferRole::State(_) | BufferRole::Output(_) => &mut memory.results,
                BufferRole::Multipliers | BufferRole::ClipPartials | BufferRole::ClipResult => &mut memory.constants,
                BufferRole::Slot(_) | BufferRole::Texture(_) => &mut memory.temporaries,
            };
            *total += bytes;
        }
        if has_gradients {
            // What starts the sum of several passes, and what adds to it.
            let summing = if passes > 1 { 2 } else { 0 };
            // Loss scaling has a dispatch before the update and one behind it.
            let scaling = if compiled.loss_scale.is_some() { 2 } else { 0 };
            let words = (arena / 4) as usize;
            memory.constants += (training.dispatches() as u64 + summing + scaling) * aligned(1) + Multiplier::bytes(words);
            memory.constants += training.clip_norm.map_or(0, |_| ClipNorm::partial_bytes(words) + ClipNorm::RESULT_BYTES);
            memory.gradients += if passes > 1 { arena } else { 0 };
        }
        memory
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        let Memory { parameters, gradients, optimizer, input, temporaries, results, constants } = self;
        parameters + gradients + optimizer + input + temporaries + results + constants
    }

    /// Fails where it does not fit the memory budget of `target`, with room to read the parameters.
    pub(super) fn check(&self, target: &Target) -> Result<(), BuildError> {
        let needed = self.total() + self.parameters.min(STAGING_BYTES);
        match target.memory_budget {
            Some(budget) if needed > budget => Err(BuildError::OverBudget { needed, budget }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Memory { parameters, gradients, optimizer, input, temporaries, results, constants } = self;
        let parts = [
            ("parameters", parameters),
            ("gradients", gradients),
            ("optimizer", optimizer),
            ("input", input),
            ("temporaries", temporaries),
            ("results", results),
            ("constants", constants),
        ];
        writeln!(f, "device memory: {} bytes", self.total())?;
        for (name, bytes) in parts.into_iter().filter(|(_, bytes)| **bytes > 0) {
            writeln!(f, "    {name:<12} {bytes:>12}")?;
        }
        Ok(())
    }
}

/// Training and inference of a model at one batch size.
pub struct MemoryOfModel {
    /// A training step.
    pub train: CompiledNetwork,
    /// Inference.
    pub infer: CompiledNetwork,
}

/// `model` in single precision at batch `batch`, trained as `training` says.
pub fn memory(
    model: &Model,
    options: &ModelOptions,
    batch: usize,
    training: &Training,
    target: &Target,
) -> Result<MemoryOfModel, BuildError> {
    let switches = CompileOptions::from_env();
    Ok(MemoryOfModel {
        train: compiled(model, options, batch, training, target, Purpose::Train, switches)?,
        infer: compiled(model, options, batch, training, target, Purpose::Infer { runs: usize::MAX }, switches)?,
    })
}

/// `model` on pictures of its own size, for looking at: what a batch of `batch` images comes to on `target`.
pub fn compiled(
    model: &Model,
    options: &ModelOptions,
    batch: usize,
    training: &Training,
    target: &Target,
    purpose: Purpose,
    switches: CompileOptions,
) -> Result<CompiledNetwork, BuildError> {
    let compile_for = |batch| {
        let input = InputOptions::plain(options);
        compile(model, options, &input, purpose, batch, batch, training, target, switches)
    };
    let network = compile_for(batch)?;
    // Other than training, they take as many images at a time as fit.
    if purpose == Purpose::Train || network.micro_batch == batch { Ok(network) } else { compile_for(network.micro_batch) }
}

/// The largest batch, a power of two or a multiple of 8, of at most `most` images that runs in one pass within the limits of
/// `target` and its memory budget, or within [`DEFAULT_AUTO_BYTES`] without one. An update takes `batches` of it.
#[allow(clippy::too_many_arguments)]
pub fn largest_batch(
    model: &Model,
    options: &ModelOptions,
    input: &InputOptions,
    purpose: Purpose,
    most: usize,
    batches: usize,
    training: &Training,
    target: &Target,
    switches: CompileOptions,
) -> Result<usize, BuildError> {
    let budget = target.memory_budget.unwrap_or(DEFAULT_AUTO_BYTES.min(target.max_buffer_bytes));
    let target = Target { memory_budget: Some(budget), ..target.clone() };
    let fits = |images: usize| match compile_passes(model, options, input, purpose, images * batches, images, training, &target, switches) {
        Err(error) if error.is_too_large() && images > 1 => Ok(false),
        other => other.map(|_| true),
    };
    // 1, 2, 4, 8, 16, 24, ...
    let size = |number: usize| if number < 3 { 1 << number } else { 8 * (number - 2) };
    let mut fitting = 0;
    fits(size(fitting))?;
    let mut too_large = (0..).find(|number| size(*number) > most.max(1)).unwrap_or(1);
    let mut step = 1;
    while fitting + 1 < too_large {
        // Doubles until something does not fit: plans of huge batches say nothing that smaller ones do not.
        let number = if fitting + step < too_large { fitting + step } else { fitting.midpoint(too_large) };
        if fits(size(number))? {
            (fitting, step) = (number, step * 2);
        } else {
            (too_large, step) = (number, usize::MAX / 2);
        }
    }
    Ok(size(fitting))
}
