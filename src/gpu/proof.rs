//! Whether a device computes in half precision as it should: found out before it is trusted with a run, and kept.

use super::tuner::Identity;
use super::verify::run_case;
use super::{Gpu, GpuError, cache_dir};
use crate::files::replace_file;
use crate::graph::Case;
use crate::kernels::{Choice, Choices, MatrixUnits, Problem, Target};
use crate::ops::REGISTRY;
use crate::ops::conv2d::{Direction, ShapeCase, Task, exact_half_case, real_case};
use crate::shape::{Element, Window};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

/// What a device gets wrong in half precision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HalfProof {
    /// What its matrix units got wrong; absent where they are right, or there are none.
    pub matrix_units: Option<String>,
    /// What kernels got wrong that store f16 and compute with f32.
    pub storage: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    identity: Identity,
    units: String,
    proof: HalfProof,
}

/// Runs the kernels of mixed precision on small cases with known results, unless the cache says what came of it on this
/// adapter, driver and version of the program. Fails where the device has no f16, or is lost.
///
/// `NIN_WGPU_HALF_FAULT=matrix_units|storage` plants a fault, for seeing what follows.
pub fn prove_half(gpu: &Gpu) -> Result<HalfProof, GpuError> {
    gpu.require_f16()?;
    let planted = std::env::var("NIN_WGPU_HALF_FAULT").unwrap_or_default();
    if !planted.is_empty() {
        let fault = |name: &str| (planted == name).then(|| "planted by NIN_WGPU_HALF_FAULT".to_string());
        return Ok(HalfProof { matrix_units: fault("matrix_units"), storage: fault("storage") });
    }
    let identity = Identity::of(gpu);
    let units = format!("{:?}", gpu.target().matrix_units);
    let path = cache_dir().map(|folder| folder.join(identity.file_name("half")));
    if let Some(kept) = path.as_deref().and_then(read).filter(|kept| kept.identity == identity && kept.units == units) {
        return Ok(kept.proof);
    }
    let proof = HalfProof { matrix_units: failure(prove_matrix_units(gpu))?, storage: failure(prove_storage(gpu))? };
    if let Some(path) = path {
        // Without a place to keep it the proof is found again the next time.
        let _ = keep(&path, &Kept { identity, units, proof: proof.clone() });
    }
    Ok(proof)
}

/// What a proof says against a device; that it is lost says nothing of its arithmetic.
fn failure(result: Result<(), Wrong>) -> Result<Option<String>, GpuError> {
    match result {
        Ok(()) => Ok(None),
        Err(Wrong::Device(error @ (GpuError::DeviceLost(_) | GpuError::OutOfMemory(_)))) => Err(error),
        Err(Wrong::Device(error)) => Ok(Some(error.to_string())),
        Err(Wrong::Result(message)) => Ok(Some(message)),
    }
}

enum Wrong {
    Device(GpuError),
    Result(String),
}

fn run(gpu: &Gpu, target: &Target, case: &Case) -> Result<(), Wrong> {
    match run_case(gpu, target, case, Element::F16).map_err(Wrong::Device)? {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(message)) => Err(Wrong::Result(format!("{} {}: {message}", case.op.name(), case.name))),
    }
}

/// Sums over many rounds of staging, and shapes that fill no tile: an accumulator carried through a loop has gone wrong on
/// devices that multiply single matrices rightly.
fn shapes() -> [ShapeCase; 2] {
    [
        ShapeCase { batch: 2, input: [64, 15, 13], outputs: 96, window: Window::square(3, 1, 1) },
        ShapeCase { batch: 3, input: [36, 9, 10], outputs: 132, window: Window::square(5, 2, 2) },
    ]
}

fn prove_matrix_units(gpu: &Gpu) -> Result<(), Wrong> {
    if gpu.target().matrix_units == MatrixUnits::None {
        return Ok(());
    }
    let target = gpu.target().for_runs(usize::MAX);
    for shape in shapes() {
        for direction in [Direction::Forward(true), Direction::BackwardInput(true), Direction::BackwardWeight] {
            for case in [exact_half_case(&shape, direction), real_case(&shape, direction)] {
                for (problem, choice) in on_matrix_units(&case, &target) {
                    let choices = Arc::new(Choices([(problem, choice)].into()));
                    run(gpu, &Target { choices, ..target.clone() }, &case)?;
                }
            }
        }
    }
    Ok(())
}

/// The choices of kernels for a convolution that there are because of matrix units.
fn on_matrix_units(case: &Case, target: &Target) -> Vec<(Problem, Choice)> {
    let inputs: Vec<_> = case.inputs.iter().map(|(fact, _)| fact).collect();
    let Ok(outputs) = case.op.outputs(&inputs) else { return Vec::new() };
    let Some(problem) = case.op.problem(&inputs, &outputs.iter().collect::<Vec<_>>()) else { return Vec::new() };
    let problem = Problem { element: Element::F16, ..problem };
    let Some(task) = Task::new(&problem) else { return Vec::new() };
    let without = task.candidates(&Target { matrix_units: MatrixUnits::None, ..target.clone() }, false);
    let all = task.candidates(target, false);
    let is_new = |choice: &Choice| without.iter().all(|other| other.variant != choice.variant);
    all.into_iter().filter(is_new).map(|choice| (problem.clone(), choice)).collect()
}

fn prove_storage(gpu: &Gpu) -> Result<(), Wrong> {
    let target = Target { matrix_units: MatrixUnits::None, ..gpu.target().clone() };
    for case in REGISTRY.iter().flat_map(|layer| (layer.half_cases)(true)) {
        run(gpu, &target, &case)?;
    }
    Ok(())
}

fn read(path: &Path) -> Option<Kept> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn keep(path: &Path, kept: &Kept) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let bytes = serde_json::to_vec(kept)?;
    replace_file(path, |file| file.write_all(&bytes))
}
