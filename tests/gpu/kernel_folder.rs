//! Kernels as data: every design of `benches/kernels` for tiny shapes, proven on whole numbers.

use crate::{Device, trial};
use libtest_mimic::Trial;
use nin_wgpu::gpu::tuner::folder::{FolderKernel, KernelFolder};
use nin_wgpu::gpu::tuner::search::{Event, Found, Outcome, SearchOptions, search};
use nin_wgpu::gpu::{Gpu, GpuError};
use nin_wgpu::shape::Element;
use std::collections::BTreeSet;

#[path = "../../benches/kernels/expected.rs"]
mod expected;
#[path = "../../benches/kernels/matrix.rs"]
mod matrix;

/// Kernels of the tiny matrix at the least; a search that finds nothing proves nothing.
const KERNELS_AT_LEAST: usize = 600;

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    // SwiftShader cannot compile large tiles, and takes minutes for the others.
    let is_small = device.is_some_and(|gpu| gpu.target().little_work == u64::MAX);
    let device = device.filter(|_| !is_small);
    let half = device.filter(|gpu| gpu.target().f16);
    vec![
        Trial::test("kernel folder::every design is accepted", || every_design_is_accepted().map_err(Into::into)),
        trial(device, "kernel folder::f32", |gpu| proven(gpu, |kernel| kernel.line.problem.element == Element::F32)),
        trial(half, "kernel folder::f16, emulated units with small patches", |gpu| proven(gpu, has_small_patches)),
        // About ten minutes on two cores, most of it in llvmpipe's compiler: `scripts/test-drivers.sh` runs it.
        trial(half, "kernel folder::f16, all emulated units", |gpu| proven(gpu, |kernel| kernel.line.problem.element == Element::F16))
            .with_ignored_flag(true),
        trial(device, "kernel folder::what is wrong is found", what_is_wrong_is_found),
    ]
}

fn tiny() -> Result<KernelFolder, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    matrix::write(folder.path(), true, 132)?;
    let folder = KernelFolder::open(folder.path()).map_err(|error| error.to_string())?;
    if folder.kernels.len() < KERNELS_AT_LEAST {
        return Err(format!("{} kernels, expected {KERNELS_AT_LEAST}", folder.kernels.len()));
    }
    Ok(folder)
}

fn every_design_is_accepted() -> Result<(), String> {
    for kernel in tiny()?.kernels {
        kernel.lowered.map_err(|why| format!("{}: {why}", kernel.line.kernel))?;
    }
    // Those for GPUs, too: the same templates at other sizes.
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let lines = matrix::write(folder.path(), false, 132)?;
    if lines >= KERNELS_AT_LEAST { Ok(()) } else { Err(format!("{lines} kernels for GPUs")) }
}

/// Designs in which a subgroup has few matrices: those compile in seconds. The program's own kernels, too.
fn has_small_patches(kernel: &FolderKernel) -> bool {
    let is_small = ["64x64x32 by 32x32", "128x128x32 by 32x32"].iter().any(|name| kernel.line.design.contains(name));
    let is_own = kernel.line.design.starts_with("product ");
    kernel.line.problem.element == Element::F16 && (is_own || (is_small && kernel.line.design.contains("emulated")))
}

fn measured(gpu: &Gpu, folder: &KernelFolder) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    let options = SearchOptions { runs: 1, deadline: None, one_by_one: false };
    let mut note = |event: Event<'_>| {
        if let Event::Found(one) = event {
            found.push(*one);
        }
        Ok::<(), GpuError>(())
    };
    search(gpu, folder, &BTreeSet::new(), &options, &mut note).map_err(|error| error.to_string())?;
    Ok(found)
}

fn proven(gpu: &Gpu, concerns: impl Fn(&FolderKernel) -> bool) -> Result<(), String> {
    let mut folder = tiny()?;
    folder.kernels.retain(concerns);
    let kernels = folder.kernels.len();
    let found = measured(gpu, &folder)?;
    let is_fine = |one: &&Found| matches!(one.verdict, Outcome::Right | Outcome::Probe | Outcome::NotForThisAdapter);
    let bad: Vec<String> = found
        .iter()
        .filter(|one| !is_fine(one))
        .map(|one| format!("{}: {}: {}", one.kernel, one.verdict, one.why.as_deref().unwrap_or_default()))
        .collect();
    let right = found.iter().filter(|one| one.verdict == Outcome::Right).count();
    match () {
        () if !bad.is_empty() => Err(bad.join("\n")),
        () if found.len() != kernels => Err(format!("{} of {kernels} kernels were tried", found.len())),
        () if right * 4 < kernels => Err(format!("only {right} of {kernels} kernels ran and were right")),
        () => Ok(()),
    }
}

/// Place of the vertical padding in `Conv2dParams`.
const PAD_H: usize = 11;

/// A row of padding less, or another sum than there is.
fn what_is_wrong_is_found(gpu: &Gpu) -> Result<(), String> {
    let mut folder = tiny()?;
    folder
        .kernels
        .retain(|kernel| kernel.line.design.starts_with("gemm 64x64x16, buffers 2") && kernel.line.problem.element == Element::F32);
    for kernel in &mut folder.kernels {
        let Ok(lowered) = &mut kernel.lowered else { return Err(format!("{} does not compile", kernel.line.kernel)) };
        if kernel.line.problem.padding == [0, 0] {
            kernel.line.expected[0] ^= 1;
        } else {
            let params: &mut [u32] = bytemuck::cast_slice_mut(&mut lowered.dispatches[0].params);
            params[PAD_H] -= 1;
        }
    }
    let found = measured(gpu, &folder)?;
    match found.iter().find(|one| one.verdict != Outcome::Wrong) {
        Some(missed) => Err(format!("{} is {}, though it was broken", missed.kernel, missed.verdict)),
        None if found.len() < 6 => Err(format!("only {} kernels were broken", found.len())),
        None => Ok(()),
    }
}
