//! Planted candidates that must never win and never stop a run: for tests, and for seeing it on an adapter at hand with
//! `NIN_WGPU_TUNE_FAULTS=1`.

use super::Candidate;
use crate::gpu::Gpu;
use crate::graph::{Lowered, Operand};
use crate::kernels::{Dispatch, Kernel, roofline};

/// A kernel that no compiler takes.
static UNCOMPILABLE: Kernel = Kernel {
    module: "planted_uncompilable",
    entry: "main",
    source: "this is not WGSL",
    workgroup_size: [1, 1, 1],
    workgroup_bytes: 0,
    divisible: false,
    subgroups: false,
    int64: false,
    f16: false,
    matrices: false,
    half: None,
    bindings: &[],
};

/// How long the stalling candidate takes. GPUs run all workgroups at once and every round; llvmpipe runs a workgroup a
/// core, and ends every loop after 65,535 rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    rounds: u32,
    workgroups: u32,
}

impl Stall {
    /// A few seconds of a GPU, a second or more of a CPU.
    pub fn seconds(gpu: &Gpu) -> Stall {
        // SwiftShader, too, runs a workgroup a core, and all rounds.
        let rounds = if gpu.adapter().kind == "cpu" { 65_535 } else { 20_000_000 };
        Stall { rounds, workgroups: 256 }
    }

    /// Minutes.
    pub const MINUTES: Stall = Stall { rounds: u32::MAX, workgroups: 1 << 14 };
}

/// What is planted beside the candidate of the rules, whose kernels are `rules`: one that does nothing, and so is the
/// fastest; two that leave part of the result out; one that wants more memory than there is; one that no compiler takes;
/// and one that keeps the device busy.
pub fn planted(rules: &Lowered, stall: Stall) -> Vec<Candidate> {
    let plant = |name: &str, lowered| Candidate { name: format!("planted: {name}"), choice: None, lowered };
    let with_workgroups = |change: fn(u64) -> u64| {
        let mut lowered = rules.clone();
        lowered.dispatches.iter_mut().for_each(|dispatch| dispatch.workgroups = change(dispatch.workgroups));
        lowered
    };
    let mut hungry = rules.clone();
    hungry.scratch.push(1 << 50);
    let stalling = roofline::multiply_add_fused_4(
        roofline::Params { rounds: stall.rounds, quads: 1, factor: 0.5, summand: 1.0 },
        Operand::Scratch(0),
        stall.workgroups.into(),
    );
    let uncompilable = Dispatch { kernel: &UNCOMPILABLE, params: Vec::new(), buffers: Vec::new(), workgroups: 1 };
    let mut candidates = vec![plant("does nothing", Lowered::default())];
    // Kernels fold a count of none to one.
    if rules.dispatches.iter().any(|dispatch| dispatch.workgroups > 1) {
        candidates.push(plant("does half", with_workgroups(|count| count.div_ceil(2))));
        candidates.push(plant("leaves out the last workgroup", with_workgroups(|count| (count - 1).max(1))));
    }
    candidates.push(plant("wants all memory", hungry));
    candidates.push(plant("does not compile", uncompilable.into()));
    candidates.push(plant(
        "stalls",
        Lowered { dispatches: vec![stalling], scratch: vec![u64::from(stall.workgroups) * 256], ..Default::default() },
    ));
    candidates
}
