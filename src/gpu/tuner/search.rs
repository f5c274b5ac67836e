//! Proves and times the kernels of a folder ([`super::folder`]): which design is the fastest on a device.

use super::Verdict;
use super::folder::{FolderKernel, KernelFolder, KernelLine};
use super::trial::{Contender, Trial, Values, is_lack_of_memory};
use crate::gpu::differences::program_of;
use crate::gpu::{DeviceBuffer, DeviceTensor, Gpu, GpuError, Program, StepUniforms, Submitter};
use crate::kernels::{DeviceClass, Dispatch, Kernel, Problem, whole_sums, workgroups_for};
use crate::ops::conv2d::Task;
use crate::shape::Element;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Instant;

/// What came of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Its results are right.
    Right,
    /// It leaves work out on purpose, and was timed only.
    Probe,
    /// Its results are wrong.
    Wrong,
    /// The driver, or naga, does not take it.
    #[serde(rename = "does not compile")]
    DoesNotCompile,
    /// It needs more memory than there is.
    #[serde(rename = "does not fit")]
    DoesNotFit,
    /// The device lacks what it uses.
    #[serde(rename = "not for this adapter")]
    NotForThisAdapter,
    /// The process or the device came to an end while it was tried.
    Lost,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Right => "right",
            Outcome::Probe => "probe",
            Outcome::Wrong => "wrong",
            Outcome::DoesNotCompile => "does not compile",
            Outcome::DoesNotFit => "does not fit",
            Outcome::NotForThisAdapter => "not for this adapter",
            Outcome::Lost => "lost",
        })
    }
}

/// What is known of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Its name.
    pub kernel: String,
    /// What it computes.
    pub problem: Problem,
    /// What is peculiar to it.
    pub design: String,
    /// What came of it.
    pub verdict: Outcome,
    /// Why, where that is not plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Median milliseconds of all its dispatches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<f64>,
    /// Those of each dispatch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dispatch_ms: Vec<f64>,
    /// 10^9 floating-point operations a second, two for each multiply-add of the problem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gflops: Option<f64>,
}

impl Found {
    /// A kernel that was not timed.
    pub fn refused(line: &KernelLine, verdict: Outcome, why: impl Into<Option<String>>) -> Self {
        let KernelLine { kernel, problem, design, .. } = line.clone();
        Found { kernel, problem, design, verdict, why: why.into(), ms: None, dispatch_ms: Vec::new(), gflops: None }
    }
}

/// What happens in a search, as it happens.
pub enum Event<'a> {
    /// All kernels are being compiled at once.
    Compiling,
    /// A kernel is going to run, or to be compiled by itself.
    Trying(&'a str),
    /// What came of one.
    Found(Box<Found>),
}

/// How to search.
#[derive(Clone, Copy, Debug)]
pub struct SearchOptions {
    /// Runs over which a time is the median.
    pub runs: usize,
    /// When no other kernel is begun.
    pub deadline: Option<Instant>,
    /// Compile each kernel by itself, when it is its turn: after a driver came to an end while compiling all of them.
    pub one_by_one: bool,
}

impl SearchOptions {
    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// What a search came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Searched {
    /// Seconds until all kernels were compiled.
    pub compile_seconds: f64,
    /// Kernels that the time was over for.
    pub left: usize,
}

/// Tries the kernels that are not among `known`, problem by problem. Fails where the device does, or where `event` does.
pub fn search<E: From<GpuError>>(
    gpu: &Gpu,
    folder: &KernelFolder,
    known: &BTreeSet<String>,
    options: &SearchOptions,
    event: &mut dyn FnMut(Event<'_>) -> Result<(), E>,
) -> Result<Searched, E> {
    let mut searched = Searched::default();
    let mut fit: Vec<&FolderKernel> = Vec::new();
    for kernel in folder.kernels.iter().filter(|kernel| !known.contains(&kernel.line.kernel)) {
        let refused = match (kernel.unfit(gpu.target(), &gpu.adapter().limits), &kernel.lowered) {
            (Some(why), _) => Found::refused(&kernel.line, Outcome::NotForThisAdapter, why),
            (None, Err(why)) => Found::refused(&kernel.line, Outcome::DoesNotCompile, why.clone()),
            (None, Ok(_)) => {
                fit.push(kernel);
                continue;
            }
        };
        event(Event::Found(Box::new(refused)))?;
    }
    if !options.one_by_one && !fit.is_empty() {
        event(Event::Compiling)?;
        let kernels: Vec<&'static Kernel> =
            fit.iter().flat_map(|kernel| &kernel.lowered).flat_map(|lowered| &lowered.dispatches).map(|dispatch| dispatch.kernel).collect();
        let started = Instant::now();
        // Those that fail are told when it is their turn.
        let _ = gpu.compile_each(&kernels);
        searched.compile_seconds = started.elapsed().as_secs_f64();
    }
    for problem in folder.problems() {
        let of_problem: Vec<&FolderKernel> = fit.iter().copied().filter(|kernel| kernel.line.problem == problem).collect();
        if options.is_over() {
            searched.left += of_problem.len();
        } else if !of_problem.is_empty() {
            searched.left += try_problem(gpu, &problem, &of_problem, options, event)?;
        }
    }
    Ok(searched)
}

/// Tries the kernels of a problem; how many the time was over for.
fn try_problem<E: From<GpuError>>(
    gpu: &Gpu,
    problem: &Problem,
    kernels: &[&FolderKernel],
    options: &SearchOptions,
    event: &mut dyn FnMut(Event<'_>) -> Result<(), E>,
) -> Result<usize, E> {
    // The folder was checked: there is a task for every problem.
    let Some(task) = Task::new(problem) else { return Ok(0) };
    let mut trial = match Trial::new(gpu, &task) {
        Ok(trial) => trial,
        Err(error) if is_lack_of_memory(&error) => {
            for kernel in kernels {
                event(Event::Found(Box::new(Found::refused(&kernel.line, Outcome::DoesNotFit, error.to_string()))))?;
            }
            return Ok(0);
        }
        Err(error) => return Err(error.into()),
    };
    let sums = WholeSums::new(gpu, &trial.outputs()?, channels(problem))?;
    let mut radius = None;
    let macs = task.op.macs(&task.inputs.iter().collect::<Vec<_>>(), &task.outputs.iter().collect::<Vec<_>>());
    for (index, kernel) in kernels.iter().enumerate() {
        if options.is_over() {
            return Ok(kernels.len() - index);
        }
        let FolderKernel { line, lowered: Ok(lowered) } = kernel else { continue };
        event(Event::Trying(&line.kernel))?;
        if radius != Some(line.radius) {
            trial.fill_within(Values::Whole, line.radius)?;
            radius = Some(line.radius);
        }
        let contender = match trial.prepare(lowered, u64::MAX)? {
            Ok(contender) => contender,
            Err(Verdict::DoesNotFit(why)) => {
                event(Event::Found(Box::new(Found::refused(line, Outcome::DoesNotFit, why))))?;
                continue;
            }
            Err(verdict) => {
                event(Event::Found(Box::new(Found::refused(line, Outcome::DoesNotCompile, verdict.to_string()))))?;
                continue;
            }
        };
        trial.run(&contender)?;
        let wrong = if line.expected.is_empty() { None } else { sums.difference(gpu, &line.expected)? };
        let found = match wrong {
            Some(why) => Found::refused(line, Outcome::Wrong, why),
            None => timed(&trial, &contender, line, macs, options.runs)?,
        };
        event(Event::Found(Box::new(found)))?;
    }
    Ok(0)
}

fn timed(trial: &Trial<'_>, contender: &Contender, line: &KernelLine, macs: u64, runs: usize) -> Result<Found, GpuError> {
    let dispatch_ms: Vec<f64> = trial.dispatch_seconds(contender, runs)?.iter().map(|seconds| seconds * 1e3).collect();
    let ms: f64 = dispatch_ms.iter().sum();
    let is_probe = line.expected.is_empty();
    let gflops = (!is_probe).then(|| 2.0 * macs as f64 / ms.max(1e-9) * 1e-6);
    let verdict = if is_probe { Outcome::Probe } else { Outcome::Right };
    Ok(Found { ms: Some(ms), dispatch_ms, gflops, ..Found::refused(line, verdict, None) })
}

/// Channels in memory of a problem's outputs.
fn channels(problem: &Problem) -> usize {
    if problem.op.starts_with("conv2d_backward_input") { problem.input[0] } else { problem.outputs }
}

/// Forms the weighted sums of a problem's outputs on the device (`shaders/whole_sums.wgsl`).
struct WholeSums {
    program: Program,
    steps: StepUniforms,
    outputs: Vec<Sums>,
}

/// The sums of one output: a pair of words for each invocation.
struct Sums {
    buffer: DeviceBuffer,
    bytes: u64,
    elements: usize,
}

impl WholeSums {
    fn new(gpu: &Gpu, tensors: &[DeviceTensor], channels: usize) -> Result<Self, GpuError> {
        let most = match gpu.target().class {
            DeviceClass::Cpu => 1 << 10,
            DeviceClass::Integrated | DeviceClass::Discrete => 1 << 16,
        };
        let (mut outputs, mut dispatches) = (Vec::new(), Vec::new());
        for tensor in tensors {
            let DeviceTensor { buffer, element, elements } = tensor.clone();
            let invocations = elements.min(most);
            let bytes = invocations as u64 * 8;
            let sums = gpu.allocate("sums", bytes)?;
            let params = whole_sums::Params {
                elements: elements as u32,
                channels: channels as u32,
                invocations: invocations as u32,
                ..Default::default()
            };
            let values = (buffer, tensor.bytes());
            let groups = workgroups_for(&whole_sums::WHOLE_SUMS, invocations);
            let dispatch = whole_sums::whole_sums(params, values, (sums.clone(), bytes), groups);
            let kernel = dispatch.kernel.for_elements(&[element, Element::F32]);
            let kernel = kernel.ok_or_else(|| GpuError::Refused(format!("no sums of {}", element.name())))?;
            dispatches.push(Dispatch { kernel, ..dispatch });
            outputs.push(Sums { buffer: sums, bytes, elements });
        }
        let steps = StepUniforms::new(gpu, 1);
        Ok(WholeSums { program: program_of(gpu, &dispatches, &steps)?, steps, outputs })
    }

    /// What is wrong with what the outputs hold, if anything.
    fn difference(&self, gpu: &Gpu, expected: &[u32]) -> Result<Option<String>, GpuError> {
        Submitter::default().submit(gpu, &[(&self.program, 0)], &self.steps, &[])?;
        for (index, (output, expected)) in self.outputs.iter().zip(expected).enumerate() {
            let words: Vec<u32> = bytemuck::pod_collect_to_vec(&gpu.read(&output.buffer, output.bytes)?);
            let total = |offset: usize| words.iter().skip(offset).step_by(2).fold(0u32, |sum, word| sum.wrapping_add(*word));
            let (sum, others) = (total(0), total(1));
            if others > 0 {
                return Ok(Some(format!("output {index}: {others} of {} elements are no whole numbers", output.elements)));
            }
            if sum != *expected {
                return Ok(Some(format!("output {index}: the weighted sum of its elements is {sum}, expected {expected}")));
            }
        }
        Ok(None)
    }
}
