//! What the adapter reaches at most, as WGSL kernels see it: arithmetic without loads, and loads without arithmetic.

use super::{Buffers, Gpu, GpuError, Program, StepUniforms, Submitter};
use crate::graph::ValueId;
use crate::kernels::{DeviceClass, Dispatch, roofline as kernels};
use crate::passes::{BufferRole, Pass, Region, ScheduledDispatch};
use std::time::{Duration, Instant};

/// The best rates of several kernels each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roofline {
    /// Floating-point operations per second, two for each multiply-add, all in registers.
    pub flops_per_s: f64,
    /// Bytes read per second from an array that every cache holds, four words at a time.
    pub cached_bytes_per_s: f64,
    /// Bytes read and written per second while copying arrays larger than caches.
    pub bytes_per_s: f64,
}

const SUMS: BufferRole = BufferRole::Output(ValueId(0));
const SOURCE: BufferRole = BufferRole::Input(ValueId(1));
const COPIED: BufferRole = BufferRole::Output(ValueId(1));

/// A run lasts about this long: long beside submitting it, short beside a driver's watchdog.
const LASTING: Duration = Duration::from_millis(20);
/// Runs of which the fastest counts.
const RUNS: usize = 5;
/// Multiply-adds of a chain in a round.
const LINKS: u64 = 32;
/// llvmpipe ends every loop after 65,535 rounds.
const MOST_ROUNDS: u64 = 1 << 15;
/// Bytes that an invocation of `load` reads in a round.
const LOADED: u64 = 8 * 16;
/// Most copies in a run.
const MOST_COPIES: u64 = 256;

type MultiplyAdd = fn(kernels::Params, Region, u64) -> Dispatch<Region>;
type Copy = fn(kernels::Params, Region, Region, u64) -> Dispatch<Region>;

/// Measures for a second or two.
pub fn roofline(gpu: &Gpu) -> Result<Roofline, GpuError> {
    // Workgroups that fill the device several times over, and arrays of several times its caches.
    let (workgroups, wanted_bytes) = match gpu.target().class {
        DeviceClass::Cpu => (256, 64 << 20),
        DeviceClass::Integrated | DeviceClass::Discrete => (16_384, 256 << 20),
    };
    let bytes = gpu.target().max_binding_bytes.min(gpu.target().max_buffer_bytes).min(wanted_bytes) / 64 * 64;
    let invocations: u64 = workgroups * 64;
    let sizes = [(SUMS, invocations * 4), (SOURCE, bytes), (COPIED, bytes)].into();
    let bench = Bench { gpu, buffers: Buffers::allocate(gpu, &sizes, &Buffers::default())?, steps: StepUniforms::new(gpu, 1) };
    let params = kernels::Params { rounds: 0, quads: (bytes / 16) as u32, factor: 0.75, summand: 0.5 };

    let variants: [(MultiplyAdd, u64); 6] = [
        (kernels::multiply_add_fused_4, 4),
        (kernels::multiply_add_fused_8, 8),
        (kernels::multiply_add_fused_12, 12),
        (kernels::multiply_add_fused_16, 16),
        (kernels::multiply_add_plain_8, 8),
        (kernels::multiply_add_vectors_8, 8),
    ];
    let sums = Region { buffer: SUMS, offset: 0, bytes: invocations * 4 };
    let mut flops_per_s: f64 = 0.0;
    for (kernel, chains) in variants {
        let per_round = (2 * LINKS * chains * invocations) as f64;
        let rounds_per_s =
            bench.best_rate(MOST_ROUNDS, |rounds| vec![kernel(kernels::Params { rounds: rounds as u32, ..params }, sums, workgroups)])?;
        flops_per_s = flops_per_s.max(rounds_per_s * per_round);
    }

    let whole = |buffer| Region { buffer, offset: 0, bytes };
    bench.run(&bench.program(vec![kernels::fill(params, whole(SOURCE), (bytes / 16).div_ceil(64))])?)?;
    let loads_per_s = bench.best_rate(MOST_ROUNDS, |rounds| {
        vec![kernels::load(kernels::Params { rounds: rounds as u32, ..params }, sums, whole(SOURCE), workgroups)]
    })?;
    let cached_bytes_per_s = loads_per_s * (LOADED * invocations) as f64;
    let mut bytes_per_s: f64 = 0.0;
    for (kernel, quads_each) in [(kernels::copy_1 as Copy, 1), (kernels::copy_4, 4)] {
        let workgroups = (bytes / 16 / quads_each).div_ceil(64);
        let copies_per_s = bench
            .best_rate(MOST_COPIES, |copies| (0..copies).map(|_| kernel(params, whole(SOURCE), whole(COPIED), workgroups)).collect())?;
        bytes_per_s = bytes_per_s.max(copies_per_s * 2.0 * bytes as f64);
    }
    Ok(Roofline { flops_per_s, cached_bytes_per_s, bytes_per_s })
}

struct Bench<'a> {
    gpu: &'a Gpu,
    buffers: Buffers,
    steps: StepUniforms,
}

impl Bench<'_> {
    /// Units of work per second in the fastest run; `work` makes the dispatches of a number of units, at most `most`.
    fn best_rate(&self, most: u64, work: impl Fn(u64) -> Vec<Dispatch<Region>>) -> Result<f64, GpuError> {
        // The driver may compile at the first run.
        self.run(&self.program(work(1))?)?;
        let mut units = 1;
        loop {
            let program = self.program(work(units))?;
            let mut seconds = self.run(&program)?;
            let growth = (LASTING.as_secs_f64() / seconds.max(1e-9)).min(8.0);
            if growth <= 1.25 || units == most {
                for _ in 1..RUNS {
                    seconds = seconds.min(self.run(&program)?);
                }
                return Ok(units as f64 / seconds.max(1e-9));
            }
            units = ((units as f64 * growth).ceil() as u64).min(most);
        }
    }

    fn program(&self, dispatches: Vec<Dispatch<Region>>) -> Result<Program, GpuError> {
        let scheduled = |dispatch| ScheduledDispatch { path: "roofline".into(), op: "roofline", pass: Pass::Forward, macs: 0, dispatch };
        let dispatches: Vec<ScheduledDispatch> = dispatches.into_iter().map(scheduled).collect();
        Program::new(self.gpu, &dispatches, &self.buffers, &self.steps)
    }

    /// Seconds from submitting to the end.
    fn run(&self, program: &Program) -> Result<f64, GpuError> {
        self.gpu.wait()?;
        let started = Instant::now();
        Submitter::default().submit(self.gpu, &[(program, 0)], &self.steps, &[])?;
        self.gpu.wait()?;
        Ok(started.elapsed().as_secs_f64())
    }
}
