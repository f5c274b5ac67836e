//! Convolutions over the shapes of `tests/goldens/conv_shapes.txt`: every direction, whole numbers bit for bit and
//! reals within the rounding of a sum. Also dispatches and tensors that are too large for simple code.

use crate::kernels::{CLASSES, half_trial, run_all, run_all_as, run_on_emulated_units};
use crate::{Device, trial};
use libtest_mimic::Trial;
use nin_wgpu::gpu::Gpu;
use nin_wgpu::gpu::verify::run_outputs;
use nin_wgpu::graph::{Case, Graph, Lowering, Op, Tolerance, ValueKind};
use nin_wgpu::kernels::{DeviceClass, Step, Target};
use nin_wgpu::ops::conv2d::{Direction, ShapeCase, exact_case, exact_half_case, real_case};
use nin_wgpu::ops::{Add, Relu, ReluBackward};
use nin_wgpu::passes::{CompileOptions, PlanError, compile};
use nin_wgpu::shape::{Element, Fact, Window};
use std::sync::Arc;

const SHAPES: &str = include_str!("../goldens/conv_shapes.txt");
const SHAPES_AT_LEAST: usize = 400;
pub const SHAPES_PER_TRIAL: usize = 40;
/// Of the shapes, one in so many is run in half precision, too.
pub const HALF_STRIDE: usize = 9;

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    let shapes = match shapes() {
        Ok(shapes) => shapes,
        Err(error) => return vec![Trial::test("conv_shapes::list", move || Err(error.into()))],
    };
    let count = shapes.len();
    let mut trials = vec![
        Trial::test("conv_shapes::list", move || {
            (count >= SHAPES_AT_LEAST).then_some(()).ok_or_else(|| format!("{count} shapes, expected {SHAPES_AT_LEAST}").into())
        }),
        trial(device, "conv_shapes::many_splits", many_splits),
        half_trial(device, "conv_shapes in f16::many_splits", many_splits_in_half),
        trial(device, "large::over_65535_workgroups", |gpu| run_all(gpu, gpu.target().class, large_cases())),
        Trial::test("large::baseline_limit", || refuses_large_tensors(&Target::baseline(DeviceClass::Cpu)).map_err(Into::into)),
        trial(device, "large::adapter_limit", |gpu| refuses_large_tensors(gpu.target())),
    ];
    // SwiftShader takes several times as long as llvmpipe. Each stride of the list meets every family of shapes.
    let stride = if device.is_some_and(|gpu| gpu.adapter().name.contains("SwiftShader")) { 8 } else { 1 };
    let thinned = if stride > 1 { format!("::every_{stride}th") } else { String::new() };
    for (class, label) in CLASSES {
        for (number, group) in shapes.chunks(SHAPES_PER_TRIAL).enumerate() {
            let first = number * SHAPES_PER_TRIAL;
            let name = format!("conv_shapes::{first:03}..{:03}::{label}{thinned}", first + group.len());
            let group: Vec<_> = group.iter().step_by(stride).cloned().collect();
            trials.push(trial(device, name, move |gpu| run_all(gpu, class, group.iter().flat_map(cases).collect::<Vec<_>>())));
        }
        // The arithmetic is that of f32: a part of the list finds what is wrong in loading and storing.
        let some: Vec<_> = shapes.iter().step_by(HALF_STRIDE).cloned().collect();
        trials.push(half_trial(device, format!("conv_shapes in f16::every_{HALF_STRIDE}th::{label}"), move |gpu| {
            run_all_as(gpu, class, some.iter().flat_map(half_cases).collect::<Vec<_>>(), Element::F16)
        }));
    }
    let some: Vec<_> = shapes.iter().step_by(HALF_STRIDE).cloned().collect();
    trials.push(half_trial(device, format!("conv_shapes in f16::every_{HALF_STRIDE}th::emulated matrix units"), move |gpu| {
        run_on_emulated_units(gpu, some.iter().flat_map(half_cases).collect())
    }));
    trials
}

/// Shapes whose reductions GPUs split so often that several lanes add up the parts of a result: of forward and the input
/// gradient, of the weight gradient, of the weight gradient of a first layer. Their results are no whole number of workgroups.
fn shapes_of_many_splits() -> [ShapeCase; 3] {
    let shape = |batch, input, outputs| ShapeCase { batch, input, outputs, window: Window::square(3, 1, 1) };
    [shape(1, [260, 5, 5], 260), shape(2, [8, 33, 35], 12), shape(3, [1, 29, 31], 20)]
}

fn many_splits(gpu: &Gpu) -> Result<(), String> {
    let mut spread = Vec::new();
    for class in [DeviceClass::Integrated, DeviceClass::Discrete] {
        let target = Target { class, filling_workgroups: class.filling_workgroups(), ..gpu.target().clone() };
        for case in shapes_of_many_splits().iter().flat_map(|shape| cases(&(class_name(class).into(), *shape)).collect::<Vec<_>>()) {
            spread.extend(spread_kernel(&target, &case));
            let bits = || -> Result<Vec<Vec<u32>>, String> {
                let outputs = run_outputs(gpu, &target, &case).map_err(|error| error.to_string())?;
                Ok(outputs.iter().map(|output| output.iter().map(|value| value.to_bits()).collect()).collect())
            };
            if bits()? != bits()? {
                return Err(format!("{}: other bits the second time", case.name));
            }
        }
        run_all(gpu, class, shapes_of_many_splits().iter().flat_map(|shape| cases(&("".into(), *shape)).collect::<Vec<_>>()).collect())?;
    }
    spread.sort_unstable();
    spread.dedup();
    let all = ["reduce_forward_spread", "reduce_input_spread", "reduce_partials_spread"];
    if spread == all { Ok(()) } else { Err(format!("of the kernels for many splits, only {spread:?} ran")) }
}

fn many_splits_in_half(gpu: &Gpu) -> Result<(), String> {
    let cases = shapes_of_many_splits().iter().flat_map(|shape| half_cases(&("".into(), *shape)).collect::<Vec<_>>()).collect();
    run_all_as(gpu, DeviceClass::Discrete, cases, Element::F16)
}

fn class_name(class: DeviceClass) -> &'static str {
    CLASSES.iter().find(|(other, _)| *other == class).map_or("", |(_, name)| name)
}

/// The kernel that adds up parts in several lanes, where a case has one.
fn spread_kernel(target: &Target, case: &Case) -> Option<&'static str> {
    let inputs: Vec<&Fact> = case.inputs.iter().map(|(fact, _)| fact).collect();
    let outputs = case.op.outputs(&inputs).ok()?;
    let is_read = vec![true; outputs.len()];
    let lowered = case.op.lower(&Lowering { target, inputs, outputs: outputs.iter().collect(), is_read, in_place: false });
    lowered.dispatches.iter().map(|dispatch| dispatch.kernel.entry).find(|entry| entry.ends_with("_spread"))
}

/// The cases of a shape, named after it.
fn cases((name, shape): &(String, ShapeCase)) -> impl Iterator<Item = Case> {
    let with_name = move |case: Case| Case { name: format!("{name}: {}", case.name), ..case };
    Direction::ALL.into_iter().flat_map(move |direction| [exact_case(shape, direction), real_case(shape, direction)].map(with_name))
}

pub fn half_cases((name, shape): &(String, ShapeCase)) -> impl Iterator<Item = Case> {
    let with_name = move |case: Case| Case { name: format!("{name}: {}", case.name), ..case };
    Direction::ALL.into_iter().flat_map(move |direction| [exact_half_case(shape, direction), real_case(shape, direction)].map(with_name))
}

/// The list: parses `ic ih iw oc kh kw sh sw ph pw batch name`.
pub fn shapes() -> Result<Vec<(String, ShapeCase)>, String> {
    let mut shapes = Vec::new();
    for line in SHAPES.lines().filter(|line| !line.starts_with('#')) {
        let (numbers, name) = line.rsplit_once(' ').ok_or_else(|| format!("{line}: no name"))?;
        let numbers: Result<Vec<usize>, _> = numbers.split(' ').map(str::parse).collect();
        let Ok(&[c, h, w, outputs, kh, kw, sh, sw, ph, pw, batch]) = numbers.as_deref() else { return Err(format!("{line}: not a shape")) };
        let window = Window { kernel: [kh, kw], stride: [sh, sw], padding: [ph, pw], ceil_mode: false };
        shapes.push((name.to_string(), ShapeCase { batch, input: [c, h, w], outputs, window }));
    }
    Ok(shapes)
}

/// Element-wise operations on more elements than 65,535 workgroups of 64 cover, so that dispatches fold over y.
fn large_cases() -> Vec<Case> {
    let fact = Fact::activation(1, 4, 1031, 1033);
    assert!(fact.words() > 65_535 * 64);
    // Small whole numbers of both signs, different for each operand and at each place nearby.
    let values =
        |seed: usize| (fact.clone(), (0..fact.words()).map(|i| ((i * 7 + i / 1031 + seed) % 201) as f32 - 100.0).collect::<Vec<f32>>());
    let case = |op: Arc<dyn Op>, inputs| Case {
        name: fact.shape.to_string(),
        op,
        inputs,
        step: Step::default(),
        tolerance: vec![Tolerance::Exact],
    };
    vec![
        case(Arc::new(Relu), vec![values(1)]),
        case(Arc::new(ReluBackward), vec![values(1), values(50)]),
        case(Arc::new(Add), vec![values(1), values(50)]),
    ]
}

/// A tensor that fills a binding is planned; one that is larger is refused before anything is allocated.
fn refuses_large_tensors(target: &Target) -> Result<(), String> {
    let limit = target.max_binding_bytes.min(target.max_buffer_bytes);
    let compile_relu = |pixels: u64| {
        let mut graph = Graph::default();
        let x = graph.add_value("x", Fact::activation(1, 4, 1, pixels as usize), ValueKind::Input);
        let y = graph.add_single("0", Arc::new(Relu), &[x]).map_err(|e| e.to_string())?;
        graph.set_kind(y, ValueKind::Output);
        Ok::<_, String>(compile(graph, target, CompileOptions::default()))
    };
    let pixels = limit / 16;
    if let Err(error) = compile_relu(pixels)? {
        return Err(format!("{} bytes refused: {error}", pixels * 16));
    }
    match compile_relu(pixels + 1)? {
        Err(PlanError::TooLarge { bytes, limit: reported, .. }) if bytes == (pixels + 1) * 16 && reported == limit => Ok(()),
        Err(error) => Err(format!("wrong numbers in: {error}")),
        Ok(_) => Err(format!("{} bytes accepted over a limit of {limit}", (pixels + 1) * 16)),
    }
}
