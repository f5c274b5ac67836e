//! Every kernel against its f64 reference: the cases of the registry, with the kernels of every device class.

use crate::{Device, trial};
use libtest_mimic::Trial;
use nin_wgpu::gpu::Gpu;
use nin_wgpu::gpu::verify::{check_layers, run_case};
use nin_wgpu::graph::{Case, Lowered, Lowering, Op, Operand, Tolerance};
use nin_wgpu::kernels::{Binding, BindingKind, DeviceClass, Dispatch, Kernel, MatrixUnits, Problem, Step, Target};
use nin_wgpu::ops::conv2d::Task;
use nin_wgpu::ops::{Layer, REGISTRY};
use nin_wgpu::shape::{Element, Fact, ShapeError};
use nin_wgpu::tensor::Tensor;
use std::sync::Arc;

pub const CLASSES: [(DeviceClass, &str); 3] =
    [(DeviceClass::Cpu, "cpu"), (DeviceClass::Integrated, "integrated"), (DeviceClass::Discrete, "discrete")];

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for layer in REGISTRY {
        for (class, label) in CLASSES {
            let name = format!("registry::{}::{label}", layer.name);
            trials.push(trial(device, name, move |gpu| run_all(gpu, class, (layer.cases)(false))));
        }
    }
    trials.push(trial(device, "self-check::a kernel that does not compile fails its cases alone", broken_kernel));
    trials.push(half_trial(device, "registry in f16::conv2d::emulated matrix units", |gpu| {
        run_on_emulated_units(
            gpu,
            REGISTRY.iter().filter(|layer| layer.name == "conv2d").flat_map(|layer| (layer.half_cases)(false)).collect(),
        )
    }));
    for layer in REGISTRY.iter().filter(|layer| has_half_kernels(layer)) {
        for (class, label) in CLASSES {
            let name = format!("registry in f16::{}::{label}", layer.name);
            trials.push(half_trial(device, name, move |gpu| run_all_as(gpu, class, (layer.half_cases)(false), Element::F16)));
        }
    }
    trials
}

/// Whether a layer has anything to store in half precision.
fn has_half_kernels(layer: &Layer) -> bool {
    !["softmax", "cross_entropy", "metrics", "contrast_normalise"].contains(&layer.name)
}

/// A test of a device with f16; ignored where there is none, as on SwiftShader.
pub fn half_trial(
    device: Option<&Device>,
    name: impl Into<String>,
    test: impl FnOnce(&Gpu) -> Result<(), String> + Send + 'static,
) -> Trial {
    let able = device.filter(|gpu| gpu.target().f16);
    trial(able, name, test)
}

/// Runs cases with every kernel of a class that the device may be given, whatever the size of the case; the error lists
/// those that failed.
pub fn run_all(gpu: &Gpu, class: DeviceClass, cases: Vec<Case>) -> Result<(), String> {
    run_all_as(gpu, class, cases, Element::F32)
}

/// [`run_all`] with activations and filters stored as `element`.
pub fn run_all_as(gpu: &Gpu, class: DeviceClass, cases: Vec<Case>, element: Element) -> Result<(), String> {
    run_with(gpu, &Target { class, ..gpu.target().clone() }.with_every_choice(), cases, element)
}

/// Runs convolutions in half precision as on devices with matrix units, in ordinary arithmetic: large tiles and small ones.
pub fn run_on_emulated_units(gpu: &Gpu, cases: Vec<Case>) -> Result<(), String> {
    let target = Target { class: DeviceClass::Discrete, matrix_units: MatrixUnits::Emulated, ..gpu.target().clone() };
    run_with(gpu, &each_tile(target), cases, Element::F16)
}

/// Runs convolutions in half precision on the matrix units that the device has; channels must be whole quads. Fails where a
/// case would be computed by other kernels.
pub fn run_on_real_units(gpu: &Gpu, cases: Vec<Case>) -> Result<(), String> {
    let targets = each_tile(Target { class: DeviceClass::Discrete, ..gpu.target().clone() });
    for (case, target) in cases.iter().flat_map(|case| targets.iter().map(move |target| (case, target))) {
        if !multiplies_on_units(case, target) {
            return Err(format!("{} {}: no kernel for matrix units", case.op.name(), case.name));
        }
    }
    run_with(gpu, &targets, cases, Element::F16)
}

/// Targets that together choose every tile for matrix units: units for 8 x 8 have one, the others large tiles and small ones.
fn each_tile(target: Target) -> Vec<Target> {
    let large = Target { filling_workgroups: 1, ..target.clone() };
    let small = Target { filling_workgroups: 1 << 20, ..target };
    if large.matrix_units == MatrixUnits::Eight { vec![large] } else { vec![large, small] }
}

/// The convolution of a case in half precision.
pub fn half_problem(case: &Case) -> Option<Problem> {
    let inputs: Vec<_> = case.inputs.iter().map(|(fact, _)| fact).collect();
    let outputs = case.op.outputs(&inputs).ok()?;
    let problem = case.op.problem(&inputs, &outputs.iter().collect::<Vec<_>>())?;
    Some(Problem { element: Element::F16, ..problem })
}

/// Whether the first kernel that a convolution in half precision is lowered to is one for matrix units.
fn multiplies_on_units(case: &Case, target: &Target) -> bool {
    let Some(task) = half_problem(case).as_ref().and_then(Task::new) else { return false };
    let (inputs, outputs) = (task.inputs.iter().collect(), task.outputs.iter().collect());
    let lowering = Lowering { target, inputs, outputs, is_read: vec![true; task.outputs.len()], in_place: false };
    task.op.lower(&lowering).dispatches.first().is_some_and(|dispatch| dispatch.kernel.matrices)
}

fn run_with(gpu: &Gpu, targets: &[Target], cases: Vec<Case>, element: Element) -> Result<(), String> {
    let mut count = 0;
    let mut failed = Vec::new();
    for case in cases {
        let has_variants = case.op.name().starts_with("conv2d");
        for target in targets.iter().take(if has_variants { usize::MAX } else { 1 }) {
            match run_case(gpu, target, &case, element) {
                Ok(None) => continue,
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(message))) => failed.push(format!("{} {}: {message}", case.op.name(), case.name)),
                Err(error) => return Err(format!("{} {}: {error}", case.op.name(), case.name)),
            }
            count += 1;
        }
    }
    if count == 0 {
        return Err("no case was run".into());
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("{} of {count} failed:\n{}", failed.len(), failed[..failed.len().min(10)].join("\n")))
    }
}

/// Reads what its shader does not have.
static BROKEN: Kernel = Kernel {
    module: "broken",
    entry: "main",
    source: "@group(0) @binding(1) var<storage, read_write> y: array<f32>; @compute @workgroup_size(1) fn main() { y[0] = nowhere; }",
    workgroup_size: [1, 1, 1],
    workgroup_bytes: 0,
    divisible: false,
    subgroups: false,
    int64: false,
    f16: false,
    matrices: false,
    half: None,
    bindings: &[Binding { index: 1, name: "y", kind: BindingKind::ReadWrite, element: Element::F32 }],
};

/// Copies its input with a kernel that no driver takes.
#[derive(Debug)]
struct Broken;

impl Op for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        Ok(vec![inputs[0].clone()])
    }

    fn lower(&self, _: &Lowering<'_>) -> Lowered {
        Dispatch { kernel: &BROKEN, params: Vec::new(), buffers: vec![Operand::Output(0)], workgroups: 1 }.into()
    }

    fn reference(&self, inputs: &[Tensor], _: &Step) -> Vec<Tensor> {
        inputs.to_vec()
    }
}

fn broken_kernel(gpu: &Gpu) -> Result<(), String> {
    let of_relu = |quick: bool| REGISTRY.iter().filter(|layer| layer.name == "relu").flat_map(|layer| (layer.cases)(quick)).collect();
    let broken = |quick: bool| -> Vec<Case> {
        let relu = REGISTRY.iter().find(|layer| layer.name == "relu").map(|layer| (layer.cases)(quick)).unwrap_or_default();
        let case = |case: Case| Case { op: Arc::new(Broken), inputs: case.inputs[..1].to_vec(), tolerance: vec![Tolerance::Exact], ..case };
        relu.into_iter().take(2).map(case).collect()
    };
    let nothing = |_: bool| Vec::new();
    let layers =
        [Layer { name: "broken", cases: broken, half_cases: nothing }, Layer { name: "relu", cases: of_relu, half_cases: nothing }];
    let verdicts = check_layers(gpu, &layers, true, &mut |_| ()).map_err(|error| error.to_string())?;
    let [broken, relu @ ..] = &verdicts[..] else { return Err("no verdicts".into()) };
    let names_it = |line: &String| line.contains("broken") && line.contains("nowhere");
    if (broken.layer.as_str(), broken.cases, broken.failed.len()) != ("broken", 2, 2) || !broken.failed.iter().all(names_it) {
        return Err(format!("{broken:?}"));
    }
    if relu.is_empty() || relu.iter().any(|verdict| verdict.cases == 0 || !verdict.failed.is_empty()) {
        return Err(format!("{relu:?}"));
    }
    Ok(())
}
