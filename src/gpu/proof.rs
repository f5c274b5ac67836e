//! Whether a device computes in half precision as it should: found out before it is trusted with a run, and kept.

use super::tuner::Identity;
use super::verify::{compile_cases, run_case};
use super::{Gpu, GpuError, cache_dir};
use crate::files::replace_file;
use crate::graph::Case;
use crate::kernels::{Choice, Choices, MatrixUnits, Problem, Target};
use crate::ops::REGISTRY;
use crate::ops::conv2d::{Direction, ShapeCase, Task, exact_half_case, real_case};
use crate::shape::{Element, Window};
use crate::variables;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
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
/// It runs matrix units in this process, which a driver that crashes in them takes along; the program tries them in
/// another one first, with the parts of this function.
pub fn prove_half(gpu: &Gpu) -> Result<HalfProof, GpuError> {
    if let Some(proof) = known_half(gpu)? {
        return Ok(proof);
    }
    let proof = HalfProof { matrix_units: prove_matrix_units(gpu, &mut || ())?, storage: prove_storage(gpu)? };
    keep_half(gpu, &proof);
    Ok(proof)
}

/// A fault that `NIN_WGPU_HALF_FAULT` plants, for seeing what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfFault {
    /// `matrix_units`: they compute wrongly.
    MatrixUnits,
    /// `storage`: kernels that store f16 compute wrongly.
    Storage,
    /// `matrix_units_crash`: the process in which they are tried ends.
    MatrixUnitsCrash,
    /// `matrix_units_hang`: the process in which they are tried does not end.
    MatrixUnitsHang,
}

impl HalfFault {
    /// The one that the environment asks for.
    pub fn planted() -> Result<Option<Self>, GpuError> {
        Ok(variables::HALF_FAULT.checked()?.map(|value| match value.as_str() {
            "storage" => Self::Storage,
            "matrix_units_crash" => Self::MatrixUnitsCrash,
            "matrix_units_hang" => Self::MatrixUnitsHang,
            _ => Self::MatrixUnits,
        }))
    }
}

/// What is known of a device without running anything on it: from the cache, or a planted fault. Fails where the device
/// has no f16.
pub fn known_half(gpu: &Gpu) -> Result<Option<HalfProof>, GpuError> {
    gpu.require_f16()?;
    let planted = || Some("planted by NIN_WGPU_HALF_FAULT".to_string());
    match HalfFault::planted()? {
        Some(HalfFault::MatrixUnits) => return Ok(Some(HalfProof { matrix_units: planted(), storage: None })),
        Some(HalfFault::Storage) => return Ok(Some(HalfProof { matrix_units: None, storage: planted() })),
        Some(HalfFault::MatrixUnitsCrash | HalfFault::MatrixUnitsHang) => return Ok(None),
        None => {}
    }
    let (identity, units) = (Identity::of(gpu), units_of(gpu));
    let kept = place(&identity).as_deref().and_then(read);
    Ok(kept.filter(|kept| kept.identity == identity && kept.units == units).map(|kept| kept.proof))
}

/// Keeps a proof for [`known_half`], unless a fault is planted. Without a place to keep it the proof is found again the
/// next time.
pub fn keep_half(gpu: &Gpu, proof: &HalfProof) {
    let identity = Identity::of(gpu);
    if let (Ok(None), Some(path)) = (HalfFault::planted(), place(&identity)) {
        let _ = keep(&path, &Kept { identity, units: units_of(gpu), proof: proof.clone() });
    }
}

fn units_of(gpu: &Gpu) -> String {
    format!("{:?}", gpu.target().matrix_units)
}

fn place(identity: &Identity) -> Option<PathBuf> {
    Some(cache_dir()?.join(identity.file_name("half")))
}

/// Runs the kernels for matrix units: what they get wrong, if anything. `step` is called after each of a few dozen parts of
/// that. Fails where the device is lost.
pub fn prove_matrix_units(gpu: &Gpu, step: &mut dyn FnMut()) -> Result<Option<String>, GpuError> {
    failure(try_matrix_units(gpu, step))
}

/// Runs the kernels that store f16 and compute with f32: what they get wrong, if anything. Fails where the device is lost.
pub fn prove_storage(gpu: &Gpu) -> Result<Option<String>, GpuError> {
    failure(try_storage(gpu))
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

fn try_matrix_units(gpu: &Gpu, step: &mut dyn FnMut()) -> Result<(), Wrong> {
    if gpu.target().matrix_units == MatrixUnits::None {
        return Ok(());
    }
    let target = gpu.target().for_runs(usize::MAX);
    let mut trials = Vec::new();
    for shape in shapes() {
        for direction in [Direction::Forward(true), Direction::BackwardInput(true), Direction::BackwardWeight] {
            for case in [exact_half_case(&shape, direction), real_case(&shape, direction)] {
                let chosen = |(problem, choice)| Target { choices: Arc::new(Choices([(problem, choice)].into())), ..target.clone() };
                let targets: Vec<Target> = on_matrix_units(&case, &target).into_iter().map(chosen).collect();
                trials.push((case, targets));
            }
        }
    }
    compile_cases(gpu, trials.iter().flat_map(|(case, targets)| targets.iter().map(move |target| (target, case, Element::F16))));
    step();
    for (case, targets) in &trials {
        for target in targets {
            run(gpu, target, case)?;
            step();
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

fn try_storage(gpu: &Gpu) -> Result<(), Wrong> {
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
