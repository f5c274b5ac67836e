//! What the adapter reaches at most, as WGSL kernels see it: arithmetic without loads, and loads without arithmetic.

use super::{Buffers, Gpu, GpuError, Program, StepUniforms, Submitter};
use crate::graph::ValueId;
use crate::kernels::{DeviceClass, Dispatch, MatrixUnits, RooflineMatrixParams, roofline as kernels};
use crate::kernels::{roofline_emulated, roofline_matrix, roofline_simdgroup};
use crate::passes::{BufferRole, Pass, Region, ScheduledDispatch};
use std::time::{Duration, Instant};

/// The best rates of several kernels each.
#[derive(Clone, Debug, PartialEq)]
pub struct Roofline {
    /// Floating-point operations per second, two for each multiply-add, all in registers.
    pub flops_per_s: f64,
    /// Bytes read per second from an array that every cache holds, four words at a time.
    pub cached_bytes_per_s: f64,
    /// Bytes read and written per second while copying arrays larger than caches.
    pub bytes_per_s: f64,
    /// Floating-point operations per second of the matrix units, products of f16 summed in f32, all in registers; or what
    /// they got wrong. Absent where there are none.
    pub matrix_flops_per_s: Option<Result<f64, String>>,
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
        let rounds_per_s = bench
            .best_rate(MOST_ROUNDS, |rounds| vec![kernel(kernels::Params { rounds: rounds as u32, ..params }, sums, workgroups)])?
            .per_s;
        flops_per_s = flops_per_s.max(rounds_per_s * per_round);
    }

    let whole = |buffer| Region { buffer, offset: 0, bytes };
    bench.run(&bench.program(vec![kernels::fill(params, whole(SOURCE), (bytes / 16).div_ceil(64))])?)?;
    let loads = bench.best_rate(MOST_ROUNDS, |rounds| {
        vec![kernels::load(kernels::Params { rounds: rounds as u32, ..params }, sums, whole(SOURCE), workgroups)]
    })?;
    let cached_bytes_per_s = loads.per_s * (LOADED * invocations) as f64;
    let mut bytes_per_s: f64 = 0.0;
    for (kernel, quads_each) in [(kernels::copy_1 as Copy, 1), (kernels::copy_4, 4)] {
        let workgroups = (bytes / 16 / quads_each).div_ceil(64);
        let copies = bench
            .best_rate(MOST_COPIES, |copies| (0..copies).map(|_| kernel(params, whole(SOURCE), whole(COPIED), workgroups)).collect())?;
        bytes_per_s = bytes_per_s.max(copies.per_s * 2.0 * bytes as f64);
    }
    let matrix_flops_per_s = match gpu.target().matrix_units {
        MatrixUnits::None | MatrixUnits::Emulated => None,
        units @ (MatrixUnits::Sixteen | MatrixUnits::Eight) => matrix_roofline(gpu, units, workgroups)?,
    };
    Ok(Roofline { flops_per_s, cached_bytes_per_s, bytes_per_s, matrix_flops_per_s })
}

/// Invocations of a workgroup that multiplies matrices (`shaders/shared/roofline_matrix.wgsl`), and of a subgroup.
const MATRIX_THREADS: u64 = 128;
const MATRIX_SUBGROUP: u64 = 32;
/// Rows and columns of a matrix.
const SIZE: usize = 16;
/// Left and right matrices of a subgroup.
const LEFT: usize = 2;
const RIGHT: usize = 4;
/// Products of each pair of matrices in a round.
const MATRIX_LINKS: u64 = 8;
/// Whole numbers stay exact in f32 for this many rounds.
const MOST_MATRIX_ROUNDS: u64 = 1 << 10;

/// What matrix units reach, in floating-point operations per second, in `workgroups` workgroups: products of f16 summed in f32, all
/// in registers. Every sum is known, and where any is off the inner result says so instead of giving a figure. `None` where
/// `units` are none. The units are those of the device, or emulated ones, which prove the kernel.
pub fn matrix_roofline(gpu: &Gpu, units: MatrixUnits, workgroups: u64) -> Result<Option<Result<f64, String>>, GpuError> {
    let kernel = match units {
        MatrixUnits::None => return Ok(None),
        MatrixUnits::Sixteen => roofline_matrix::multiply_add_matrices,
        MatrixUnits::Eight => roofline_simdgroup::multiply_add_matrices,
        MatrixUnits::Emulated => roofline_emulated::multiply_add_matrices,
    };
    let invocations = workgroups * MATRIX_THREADS;
    let sizes = [(SUMS, invocations * 4)].into();
    let bench = Bench { gpu, buffers: Buffers::allocate(gpu, &sizes, &Buffers::default())?, steps: StepUniforms::new(gpu, 1) };
    let sums = Region { buffer: SUMS, offset: 0, bytes: invocations * 4 };
    let params = |rounds: u64| RooflineMatrixParams { rounds: rounds as u32, ..Default::default() };
    let best = bench.best_rate(MOST_MATRIX_ROUNDS, |rounds| vec![kernel(params(rounds), sums, workgroups)])?;

    let Some(buffer) = bench.buffers.get(SUMS) else { return Ok(None) };
    let got: Vec<f32> = bytemuck::pod_collect_to_vec(&gpu.read(buffer, invocations * 4)?);
    let expected = matrix_sums(best.units);
    let wanted = expected.iter().cycle();
    if let Some((index, (got, want))) = got.iter().zip(wanted).enumerate().find(|(_, (got, want))| got != want) {
        return Ok(Some(Err(format!("sum {index} of {invocations} is {got} after {} rounds, and should be {want}", best.units))));
    }
    let products = workgroups * MATRIX_THREADS / MATRIX_SUBGROUP * MATRIX_LINKS * (LEFT * RIGHT) as u64;
    Ok(Some(Ok(best.per_s * (2 * SIZE.pow(3)) as f64 * products as f64)))
}

/// What the invocations of a subgroup write after some rounds.
fn matrix_sums(rounds: u64) -> Vec<f32> {
    let operand = |number: usize| ((number as u32).wrapping_mul(2_654_435_761) >> 24) % 7;
    let operand = |number: usize| i64::from(operand(number)) - 3;
    let left = |matrix: usize, row: usize, step: usize| operand((matrix * SIZE + row) * SIZE + step);
    let right = |step: usize, column: usize| operand(LEFT * SIZE * SIZE + step * RIGHT * SIZE + column);
    let sum = |row: usize, half: usize| {
        let columns = (0..RIGHT).flat_map(|matrix| (0..SIZE / 2).map(move |column| matrix * SIZE + half * SIZE / 2 + column));
        // Both left matrices take every place in turn, and all places are summed.
        let of_column =
            |column: usize| (0..SIZE).map(|step| (0..LEFT).map(|i| left(i, row, step)).sum::<i64>() * right(step, column)).sum::<i64>();
        columns.map(of_column).sum::<i64>() * (MATRIX_LINKS * rounds) as i64
    };
    (0..SIZE).flat_map(|row| [sum(row, 0) as f32, sum(row, 1) as f32]).collect()
}

/// The fastest of several runs.
struct Best {
    /// Units of work in each.
    units: u64,
    /// Units per second.
    per_s: f64,
}

struct Bench<'a> {
    gpu: &'a Gpu,
    buffers: Buffers,
    steps: StepUniforms,
}

impl Bench<'_> {
    /// The fastest of several runs; `work` makes the dispatches of a number of units, at most `most`. It ran last.
    fn best_rate(&self, most: u64, work: impl Fn(u64) -> Vec<Dispatch<Region>>) -> Result<Best, GpuError> {
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
                return Ok(Best { units, per_s: units as f64 / seconds.max(1e-9) });
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a subgroup computes, step by step: every number on the way is whole and below 2^24.
    #[test]
    fn sums_of_matrix_products_are_exact_and_known() {
        let operand = |number: u32| f64::from((number.wrapping_mul(2_654_435_761) >> 24) % 7) - 3.0;
        for rounds in [1, 2, 5, MOST_MATRIX_ROUNDS] {
            let mut results = vec![[[[0.0; 16]; 16]; 4]; 2];
            // Sums of magnitudes bound whatever order the device adds in.
            let mut largest: f64 = 0.0;
            for round in 0..rounds as usize {
                for (i, of_left) in results.iter_mut().enumerate() {
                    for (j, result) in of_left.iter_mut().enumerate() {
                        for (row, sums) in result.iter_mut().enumerate() {
                            for (column, sum) in sums.iter_mut().enumerate() {
                                let first = ((i + round) % 2 * 16 + row) as u32 * 16;
                                let product = |step: u32| operand(first + step) * operand(512 + step * 64 + (j * 16 + column) as u32);
                                *sum += 8.0 * (0..16).map(product).sum::<f64>();
                                largest = largest.max(sum.abs());
                            }
                        }
                    }
                }
            }
            let mut expected = Vec::new();
            for (row, half) in (0..32).map(|lane| (lane / 2, lane % 2)) {
                let numbers = || results.iter().flatten().flat_map(move |result| &result[row][8 * half..8 * half + 8]);
                largest = largest.max(numbers().map(|sum| sum.abs()).sum());
                expected.push(numbers().sum::<f64>() as f32);
            }
            assert!(largest < f64::from(1 << 24), "{rounds} rounds: {largest}");
            assert_eq!(matrix_sums(rounds), expected, "{rounds} rounds");
        }
        assert!(matrix_sums(1).iter().filter(|sum| **sum == 0.0).count() < 4, "{:?}", matrix_sums(1));
    }
}
