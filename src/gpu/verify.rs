//! Proves kernels on the adapter at hand: every case of the registry is run and compared with its f64 reference.

use super::{Buffers, Gpu, GpuError, Program, StepUniforms, Submitter};
use crate::graph::{Case, Lowering, Operand, Tolerance, ValueId};
use crate::kernels::Target;
use crate::ops::REGISTRY;
use crate::passes::{BufferRole, Pass, Region, ScheduledDispatch};
use crate::shape::{Fact, Layout};
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// What outputs and scratch memory hold before a kernel runs: a NaN, so that whatever it fails to write is seen.
const UNWRITTEN: u32 = 0x7fc0_dead;

/// The verdict on one operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The layer, as in the registry (`conv2d`).
    pub layer: String,
    /// The operation within the layer (`forward`, `backward_input`, ...).
    pub direction: String,
    /// Cases run.
    pub cases: usize,
    /// One line for each case that failed.
    pub failed: Vec<String>,
    /// The largest error, as a share of what is allowed.
    pub worst: f64,
}

/// Runs every case of the registry with every kernel that this adapter may be given.
pub fn self_check(gpu: &Gpu, quick: bool, progress: &mut dyn FnMut(&str)) -> Result<Vec<Verdict>, GpuError> {
    let targets = gpu.target().with_every_choice();
    let mut verdicts = Vec::new();
    for layer in REGISTRY {
        progress(layer.name);
        let mut by_direction: BTreeMap<String, Verdict> = BTreeMap::new();
        for case in (layer.cases)(quick) {
            let name = case.op.name();
            let direction = name.strip_prefix(layer.name).map_or(name, |rest| rest.trim_start_matches('_'));
            let direction = if direction.is_empty() { "forward" } else { direction };
            let verdict = by_direction.entry(direction.to_string()).or_insert_with(|| Verdict {
                layer: layer.name.to_string(),
                direction: direction.to_string(),
                cases: 0,
                failed: Vec::new(),
                worst: 0.0,
            });
            for target in targets.iter().take(if layer.name == "conv2d" { usize::MAX } else { 1 }) {
                verdict.cases += 1;
                match run_case(gpu, target, &case)? {
                    Ok(worst) => verdict.worst = verdict.worst.max(worst),
                    Err(message) => verdict.failed.push(format!("{}: {message}", case.name)),
                }
            }
        }
        verdicts.extend(by_direction.into_values());
    }
    Ok(verdicts)
}

/// Runs a case with the kernels for `target`, in every form its operation has (in place, without optional outputs).
///
/// The inner result is the largest error as a share of the tolerance, or what is wrong.
pub fn run_case(gpu: &Gpu, target: &Target, case: &Case) -> Result<Result<f64, String>, GpuError> {
    let facts: Vec<&Fact> = case.inputs.iter().map(|(fact, _)| fact).collect();
    let outputs = match case.op.outputs(&facts) {
        Ok(outputs) => outputs,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let tensors: Vec<Tensor> = case.inputs.iter().map(|(fact, values)| to_tensor(fact, values)).collect();
    let expected = case.op.reference(&tensors, &case.step);
    let absolute: Vec<Tensor> = tensors.iter().map(|t| t.map(f64::abs)).collect();
    let needs_scale = case.tolerance.iter().any(|t| matches!(t, Tolerance::Sum { .. }));
    let scales = if needs_scale { case.op.reference(&absolute, &case.step) } else { expected.clone() };

    let mut forms = vec![(false, vec![true; outputs.len()])];
    if case.op.in_place().is_some() {
        forms.push((true, vec![true; outputs.len()]));
    }
    if outputs.len() > 1 {
        let mut only_first = vec![false; outputs.len()];
        only_first[0] = true;
        forms.push((false, only_first));
    }
    let mut worst: f64 = 0.0;
    for (in_place, is_read) in forms {
        let memories = execute(gpu, target, case, &outputs, in_place, &is_read)?;
        for (index, memory) in memories.iter().enumerate().filter(|(index, _)| is_read[*index]) {
            match compare(&outputs[index], memory, &expected[index], &scales[index], case.tolerance[index]) {
                Ok(share) => worst = worst.max(share),
                Err(message) => return Ok(Err(format!("output {index}{}: {message}", if in_place { ", in place" } else { "" }))),
            }
        }
    }
    Ok(Ok(worst))
}

/// Runs the kernels of a case for `target` and returns its outputs in logical order, elements of an integer layout as
/// bit patterns: for comparing with values that somebody else computed.
pub fn run_outputs(gpu: &Gpu, target: &Target, case: &Case) -> Result<Vec<Vec<f32>>, GpuError> {
    let facts: Vec<&Fact> = case.inputs.iter().map(|(fact, _)| fact).collect();
    let outputs = case.op.outputs(&facts).map_err(|error| GpuError::Refused(error.to_string()))?;
    let memories = execute(gpu, target, case, &outputs, false, &vec![true; outputs.len()])?;
    Ok(outputs.iter().zip(&memories).map(|(fact, memory)| fact.unpack(memory)).collect())
}

/// Logical values as doubles; integer layouts carry bit patterns.
fn to_tensor(fact: &Fact, values: &[f32]) -> Tensor {
    let data = values.iter().map(|v| if is_integer(fact) { f64::from(v.to_bits()) } else { f64::from(*v) });
    Tensor { shape: fact.shape.clone(), data: data.collect() }
}

fn is_integer(fact: &Fact) -> bool {
    matches!(fact.layout, Layout::Index | Layout::Pixels)
}

/// Logical values as the bytes of device memory.
fn to_memory(fact: &Fact, values: &[f32]) -> Vec<u8> {
    if fact.layout == Layout::Pixels {
        return fact.pack_pixels(&values.iter().map(|v| v.to_bits() as u8).collect::<Vec<_>>());
    }
    bytemuck::cast_slice(&fact.pack(values)).to_vec()
}

/// Runs the kernels of a case once and returns the memory of each output.
fn execute(gpu: &Gpu, target: &Target, case: &Case, outputs: &[Fact], in_place: bool, is_read: &[bool]) -> Result<Vec<Vec<f32>>, GpuError> {
    let lowered = case.op.lower(&Lowering {
        target,
        inputs: case.inputs.iter().map(|(fact, _)| fact).collect(),
        outputs: outputs.iter().collect(),
        is_read: is_read.to_vec(),
        in_place,
    });
    let input_role = |index: usize| BufferRole::Input(ValueId(index as u32));
    let output_role = |index: usize| BufferRole::Output(ValueId(index as u32));

    let mut sizes = BTreeMap::new();
    sizes.extend(case.inputs.iter().enumerate().map(|(i, (fact, _))| (input_role(i), fact.bytes())));
    sizes.extend(outputs.iter().enumerate().map(|(i, fact)| (output_role(i), fact.bytes())));
    sizes.extend(lowered.scratch.iter().enumerate().map(|(i, bytes)| (BufferRole::Slot(i), *bytes)));
    sizes.extend(lowered.textures.iter().enumerate().map(|(i, bytes)| (BufferRole::Texture(i), *bytes)));
    let buffers = Buffers::allocate(gpu, &sizes, &Buffers::default())?;
    for (role, bytes) in &sizes {
        let start = match role {
            BufferRole::Input(ValueId(i)) => to_memory(&case.inputs[*i as usize].0, &case.inputs[*i as usize].1),
            BufferRole::Output(ValueId(0)) if in_place => {
                let (fact, values) = &case.inputs[case.op.in_place().unwrap_or(0)];
                to_memory(fact, values)
            }
            BufferRole::Output(_) if case.op.keeps_state() => vec![0; *bytes as usize],
            _ => UNWRITTEN.to_le_bytes().repeat(*bytes as usize / 4),
        };
        if let Some(buffer) = buffers.get(*role) {
            gpu.write(buffer, 0, &start);
        }
    }
    let dispatches: Vec<ScheduledDispatch> = lowered
        .dispatches
        .iter()
        .map(|dispatch| {
            let dispatch = dispatch.map(|operand| {
                let buffer = match operand {
                    Operand::Input(i) => input_role(*i),
                    Operand::Output(i) => output_role(*i),
                    Operand::Scratch(i) => BufferRole::Slot(*i),
                    Operand::Texture(i) => BufferRole::Texture(*i),
                };
                Region { buffer, offset: 0, bytes: sizes[&buffer] }
            });
            ScheduledDispatch { path: case.name.clone(), op: case.op.name(), pass: Pass::Forward, macs: 0, dispatch }
        })
        .collect();
    let steps = StepUniforms::new(gpu, 1);
    steps.write(gpu, &[case.step]);
    let program = Program::new(gpu, &dispatches, &buffers, &steps)?;
    Submitter::default().submit(gpu, &[(&program, 0)], &steps, &[])?;

    let mut memories = Vec::new();
    for (index, fact) in outputs.iter().enumerate() {
        let Some(buffer) = buffers.get(output_role(index)) else { continue };
        let bytes = gpu.read(buffer, fact.bytes())?;
        memories.push(bytemuck::pod_collect_to_vec(&bytes));
    }
    Ok(memories)
}

/// The largest error as a share of the tolerance, or the first element that is off.
fn compare(fact: &Fact, memory: &[f32], expected: &Tensor, scale: &Tensor, tolerance: Tolerance) -> Result<f64, String> {
    let got = to_tensor(fact, &fact.unpack(memory));
    let mut worst: f64 = 0.0;
    for (index, ((got, want), scale)) in got.data.iter().zip(&expected.data).zip(&scale.data).enumerate() {
        let allowed = match tolerance {
            _ if is_integer(fact) => 0.0,
            Tolerance::Exact => 0.0,
            Tolerance::Sum { factor } => factor * 2f64.powi(-24) * scale.abs(),
            Tolerance::Relative { relative, absolute } => relative * want.abs() + absolute,
        };
        let is_rounded = tolerance == Tolerance::Exact && !is_integer(fact);
        let want = if is_rounded { f64::from(*want as f32) } else { *want };
        let error = (got - want).abs();
        // Numbers that cannot be compared are NaN, and fail.
        if error.partial_cmp(&allowed).is_none_or(|order| order.is_gt()) {
            return Err(format!("element {index} of {}: got {got:e}, expected {want:e}, allowed error {allowed:e}", fact.shape));
        }
        if error > 0.0 {
            worst = worst.max(error / allowed);
        }
    }
    if fact.layout != Layout::Index && !fact.padding_is_zero(memory) {
        return Err(format!("padding lanes of {} are not zero", fact.shape));
    }
    Ok(worst)
}
