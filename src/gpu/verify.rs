//! Proves kernels on the adapter at hand: every case of the registry is run and compared with its f64 reference.

use super::{Buffers, Gpu, GpuError, Program, StepUniforms, Submitter};
use crate::graph::{Case, Lowered, Lowering, Operand, Tolerance, ValueId};
use crate::half::round_to_f16;
use crate::kernels::{Kernel, Target};
use crate::ops::{Layer, REGISTRY};
use crate::passes::{BufferRole, Pass, Region, ScheduledDispatch};
use crate::shape::{Element, Fact, Layout, ShapeError};
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// What outputs and scratch memory hold before a kernel runs: a NaN in single and in half precision, so that whatever it fails to write is seen.
pub(super) const UNWRITTEN: u32 = 0x7fc0_7fc1;

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
    /// How many of them ran kernels that share workgroup memory.
    pub failed_in_workgroup_memory: usize,
    /// The largest error, as a share of what is allowed.
    pub worst: f64,
}

/// Runs every case of the registry with every kernel that this adapter may be given, in both precisions where it has f16.
pub fn self_check(gpu: &Gpu, quick: bool, progress: &mut dyn FnMut(&str)) -> Result<Vec<Verdict>, GpuError> {
    check_layers(gpu, REGISTRY, quick, progress)
}

/// As [`self_check`], for the cases of some layers. All their kernels are compiled first, in parallel; one that does not
/// compile fails the cases that need it.
pub fn check_layers(gpu: &Gpu, layers: &[Layer], quick: bool, progress: &mut dyn FnMut(&str)) -> Result<Vec<Verdict>, GpuError> {
    let targets = gpu.target().with_every_choice();
    let precisions: &[Element] = if gpu.target().f16 { &[Element::F32, Element::F16] } else { &[Element::F32] };
    let of_layer = |layer: &Layer| -> Vec<(Element, Case)> {
        let cases = |element: &Element| (if *element == Element::F16 { layer.half_cases } else { layer.cases })(quick);
        precisions.iter().flat_map(|element| cases(element).into_iter().map(|case| (*element, case))).collect()
    };
    let cases: Vec<(&Layer, Vec<(Element, Case)>)> = layers.iter().map(|layer| (layer, of_layer(layer))).collect();
    let used = |layer: &Layer| if layer.name == "conv2d" { &targets[..] } else { &targets[..1] };
    let of_case = |layer: &Layer, element, case| used(layer).iter().map(move |target| (target, case, element));
    let runs = cases.iter().flat_map(|(layer, cases)| cases.iter().flat_map(move |(element, case)| of_case(layer, *element, case)));
    progress("compiling");
    let broken = compile_cases(gpu, runs);
    gpu.check()?;

    let mut verdicts = Vec::new();
    for (layer, cases) in &cases {
        progress(layer.name);
        let mut by_direction: BTreeMap<String, Verdict> = BTreeMap::new();
        for (element, case) in cases {
            for target in used(layer) {
                let kernels = kernels_of(target, case, *element);
                let result = match kernels.iter().find_map(|kernel| broken.get(&kernel.name())) {
                    Some(message) => Some(Err(message.clone())),
                    None => run_case(gpu, target, case, *element)?,
                };
                let Some(result) = result else { continue };
                let direction = direction(layer.name, case.op.name(), *element);
                let verdict = by_direction.entry(direction.clone()).or_insert_with(|| Verdict {
                    layer: layer.name.to_string(),
                    direction,
                    cases: 0,
                    failed: Vec::new(),
                    failed_in_workgroup_memory: 0,
                    worst: 0.0,
                });
                verdict.cases += 1;
                match result {
                    Ok(worst) => verdict.worst = verdict.worst.max(worst),
                    Err(message) => {
                        verdict.failed.push(format!("{}: {message}", case.name));
                        verdict.failed_in_workgroup_memory += usize::from(kernels.iter().any(|kernel| kernel.workgroup_bytes > 0));
                    }
                }
            }
        }
        verdicts.extend(by_direction.into_values());
    }
    Ok(verdicts)
}

/// Compiles the kernels of cases, all in parallel, so that running them finds them made: why by name of those that do not
/// compile.
pub(super) fn compile_cases<'a>(gpu: &Gpu, runs: impl Iterator<Item = (&'a Target, &'a Case, Element)>) -> BTreeMap<String, String> {
    let kernels: BTreeMap<String, &'static Kernel> =
        runs.flat_map(|(target, case, element)| kernels_of(target, case, element)).map(|kernel| (kernel.name(), kernel)).collect();
    let made = gpu.compile_each(&kernels.values().copied().collect::<Vec<_>>());
    kernels.into_keys().zip(made).filter_map(|(name, made)| Some((name, made.err()?.to_string()))).collect()
}

/// The kernels that [`run_case`] runs; none where it runs nothing, or says what is wrong with the case.
fn kernels_of(target: &Target, case: &Case, element: Element) -> Vec<&'static Kernel> {
    let Ok(Some(facts)) = facts_of(target, case, element) else { return Vec::new() };
    let lowered =
        forms(case, facts.1.len()).into_iter().filter_map(|(in_place, is_read)| lowered(target, case, &facts, in_place, &is_read).ok());
    lowered.flat_map(|lowered| lowered.dispatches).map(|dispatch| dispatch.kernel).collect()
}

/// The forms in which a case is run: whether in place, and which of its outputs are wanted.
fn forms(case: &Case, outputs: usize) -> Vec<(bool, Vec<bool>)> {
    let mut forms = vec![(false, vec![true; outputs])];
    if case.op.in_place().is_some() {
        forms.push((true, vec![true; outputs]));
    }
    if outputs > 1 {
        let mut only_first = vec![false; outputs];
        only_first[0] = true;
        forms.push((false, only_first));
    }
    forms
}

/// The dispatches of a case in one of its forms.
fn lowered(target: &Target, case: &Case, (inputs, outputs): &Facts, in_place: bool, is_read: &[bool]) -> Result<Lowered, GpuError> {
    let (inputs, outputs): (Vec<&Fact>, Vec<&Fact>) = (inputs.iter().collect(), outputs.iter().collect());
    let lowering = Lowering { target, inputs: inputs.clone(), outputs: outputs.clone(), is_read: is_read.to_vec(), in_place };
    let lowered = case.op.lower(&lowering).for_facts(&inputs, &outputs);
    lowered.map_err(|kernel| GpuError::Refused(format!("{}: no kernel like {} for its operands", case.name, kernel.name())))
}

/// What operation `name` of a layer is called in reports (`backward_input f16`).
fn direction(layer: &str, name: &str, element: Element) -> String {
    let direction = name.strip_prefix(layer).map_or(name, |rest| rest.trim_start_matches('_'));
    let direction = if direction.is_empty() { "forward" } else { direction };
    if element == Element::F16 { format!("{direction} f16") } else { direction.to_string() }
}

/// The facts of a case's operands: those of its inputs, then of its outputs.
type Facts = (Vec<Fact>, Vec<Fact>);

/// The facts with activations and filters stored as `element`: whatever the kernels' half-precision twins take so. `None`
/// where they are none in half precision, or what is wrong with the inputs.
fn facts_of(target: &Target, case: &Case, element: Element) -> Result<Option<Facts>, ShapeError> {
    let mut inputs: Vec<Fact> = case.inputs.iter().map(|(fact, _)| fact.clone()).collect();
    let mut outputs = case.op.outputs(&inputs.iter().collect::<Vec<_>>())?;
    if element == Element::F32 {
        return Ok(Some((inputs, outputs)));
    }
    let is_read = vec![true; outputs.len()];
    let lowering = Lowering { target, inputs: inputs.iter().collect(), outputs: outputs.iter().collect(), is_read, in_place: false };
    let mut any = false;
    for dispatch in case.op.lower(&lowering).dispatches {
        let Some(twin) = dispatch.kernel.half else { continue };
        for (binding, operand) in twin.storage().zip(&dispatch.buffers).filter(|(binding, _)| binding.element == Element::F16) {
            match operand {
                Operand::Input(index) => inputs[*index].element = binding.element,
                Operand::Output(index) => outputs[*index].element = binding.element,
                Operand::Scratch(_) | Operand::Texture(_) => {}
            }
            any = true;
        }
    }
    Ok(any.then_some((inputs, outputs)))
}

/// Runs a case with the kernels for `target`, in every form its operation has (in place, without optional outputs), with
/// activations and filters stored as `element`. `None` where the operation has none, so nothing to run in half precision.
///
/// The inner result is the largest error as a share of the tolerance, or what is wrong. In half precision the reference
/// sees inputs that are already rounded to it.
pub fn run_case(gpu: &Gpu, target: &Target, case: &Case, element: Element) -> Result<Option<Result<f64, String>>, GpuError> {
    let facts = match facts_of(target, case, element) {
        Ok(Some(facts)) => facts,
        Ok(None) => return Ok(None),
        Err(error) => return Ok(Some(Err(error.to_string()))),
    };
    let (inputs, outputs) = &facts;
    let tensors: Vec<Tensor> = inputs.iter().zip(&case.inputs).map(|(fact, (_, values))| to_tensor(fact, &stored(fact, values))).collect();
    let expected = case.op.reference(&tensors, &case.step);
    let absolute: Vec<Tensor> = tensors.iter().map(|t| t.map(f64::abs)).collect();
    let needs_scale = case.tolerance.iter().any(|t| matches!(t, Tolerance::Sum { .. }));
    let scales = if needs_scale { case.op.reference(&absolute, &case.step) } else { expected.clone() };

    let mut worst: f64 = 0.0;
    for (in_place, is_read) in forms(case, outputs.len()) {
        let memories = execute(gpu, target, case, &facts, in_place, &is_read)?;
        for (index, memory) in memories.iter().enumerate().filter(|(index, _)| is_read[*index]) {
            match compare(&outputs[index], memory, &expected[index], &scales[index], case.tolerance[index]) {
                Ok(share) => worst = worst.max(share),
                Err(message) => return Ok(Some(Err(format!("output {index}{}: {message}", if in_place { ", in place" } else { "" })))),
            }
        }
    }
    Ok(Some(Ok(worst)))
}

/// Runs the kernels of a case for `target` in f32 and returns its outputs in logical order, elements of an integer layout
/// as bit patterns: for comparing with values that somebody else computed.
pub fn run_outputs(gpu: &Gpu, target: &Target, case: &Case) -> Result<Vec<Vec<f32>>, GpuError> {
    let facts = facts_of(target, case, Element::F32).map_err(|error| GpuError::Refused(error.to_string()))?;
    let facts = facts.ok_or_else(|| GpuError::Refused(format!("{} has no kernels", case.name)))?;
    let memories = execute(gpu, target, case, &facts, false, &vec![true; facts.1.len()])?;
    Ok(facts.1.iter().zip(&memories).map(|(fact, memory)| fact.unpack(memory)).collect())
}

/// Values as a tensor of this fact holds them.
fn stored(fact: &Fact, values: &[f32]) -> Vec<f32> {
    match fact.element {
        Element::F32 => values.to_vec(),
        Element::F16 => values.iter().map(|value| round_to_f16(*value)).collect(),
    }
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
    fact.encode(&fact.pack(values))
}

/// Runs the kernels of a case once and returns the elements of each output in memory order.
fn execute(gpu: &Gpu, target: &Target, case: &Case, facts: &Facts, in_place: bool, is_read: &[bool]) -> Result<Vec<Vec<f32>>, GpuError> {
    let lowered = lowered(target, case, facts, in_place, is_read)?;
    let (inputs, outputs) = facts;
    let input_role = |index: usize| BufferRole::Input(ValueId(index as u32));
    let output_role = |index: usize| BufferRole::Output(ValueId(index as u32));

    let mut sizes = BTreeMap::new();
    sizes.extend(inputs.iter().enumerate().map(|(i, fact)| (input_role(i), fact.bytes())));
    sizes.extend(outputs.iter().enumerate().map(|(i, fact)| (output_role(i), fact.bytes())));
    sizes.extend(lowered.scratch.iter().enumerate().map(|(i, bytes)| (BufferRole::Slot(i), *bytes)));
    sizes.extend(lowered.textures.iter().enumerate().map(|(i, bytes)| (BufferRole::Texture(i), *bytes)));
    let buffers = Buffers::allocate(gpu, &sizes, &Buffers::default())?;
    for (role, bytes) in &sizes {
        let start = match role {
            BufferRole::Input(ValueId(i)) => to_memory(&inputs[*i as usize], &case.inputs[*i as usize].1),
            BufferRole::Output(ValueId(0)) if in_place => {
                let input = case.op.in_place().unwrap_or(0);
                to_memory(&inputs[input], &case.inputs[input].1)
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
        memories.push(fact.decode(&bytes));
    }
    Ok(memories)
}

/// What rounding to half precision may change: a unit of 2^-11, of 2^-25 where numbers are subnormal.
pub(super) fn storing(value: f64) -> f64 {
    (value.abs() * 2f64.powi(-11)).max(2f64.powi(-25))
}

/// Whether half precision holds a number exactly.
pub(super) fn is_held(value: f64) -> bool {
    f64::from(round_to_f16(value as f32)) == value
}

/// The largest error as a share of the tolerance, or the first element that is off. Storing in half precision may add half a
/// unit in its last place, none to exact results that it holds.
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
        let is_held = tolerance == Tolerance::Exact && is_held(*want);
        let allowed = if fact.element == Element::F16 && !is_held { allowed + storing(*want) } else { allowed };
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
