//! A problem on the device: random inputs, programs that compute it, and the comparison of what they leave behind.

use super::Verdict;
use crate::gpu::verify::{UNWRITTEN, is_held, storing};
use crate::gpu::{Buffers, Gpu, GpuError, Program, StepUniforms, Submitter};
use crate::graph::{Lowered, Operand, ValueId};
use crate::half::round_to_f16;
use crate::kernels::Step;
use crate::ops::conv2d::Task;
use crate::passes::{BufferRole, Pass, Region, ScheduledDispatch};
use crate::rng::{Stream, purpose};
use crate::shape::Element;
use std::collections::BTreeMap;

/// Random values are drawn this many at a time and repeated: a prime, so that no stride of a tensor meets its own copy.
const PERIOD: usize = 65_521;

/// Products that the host multiplies in double precision to check one output.
const CHECKED_PRODUCTS: usize = 1 << 22;

/// Random inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// Whole numbers whose sums are exact in every order.
    Whole,
    /// In [-1, 1).
    Real,
}

/// The whole numbers from `-radius` to `radius` that input `index` holds where kernels are proven: element `i` of its memory is
/// number `i` modulo their count.
pub fn whole_period(index: usize, radius: u32) -> Vec<f32> {
    let mut stream = Stream::new(index as u64, Values::Whole as u32, 0, purpose::SYNTHETIC);
    (0..PERIOD).map(|_| stream.below(2 * radius + 1) as f32 - radius as f32).collect()
}

/// A problem with its inputs and outputs on the device.
pub(super) struct Trial<'a> {
    gpu: &'a Gpu,
    task: &'a Task,
    values: Values,
    /// One period of each input.
    periods: Vec<Vec<f32>>,
    shared: Buffers,
    steps: StepUniforms,
}

/// A candidate ready to run.
pub(super) struct Contender {
    program: Program,
    buffers: Buffers,
    scratch: Vec<u64>,
}

impl<'a> Trial<'a> {
    /// Allocates inputs and outputs; inputs are whole numbers at first.
    pub fn new(gpu: &'a Gpu, task: &'a Task) -> Result<Self, GpuError> {
        let inputs = task.inputs.iter().enumerate().map(|(index, fact)| (input(index), fact.bytes()));
        let outputs = task.outputs.iter().enumerate().map(|(index, fact)| (output(index), fact.bytes()));
        let shared = scoped(gpu, || Buffers::allocate(gpu, &inputs.chain(outputs).collect(), &Buffers::default()))??;
        let steps = StepUniforms::new(gpu, 1);
        steps.write(gpu, &[Step::default()]);
        let mut trial = Trial { gpu, task, values: Values::Whole, periods: Vec::new(), shared, steps };
        trial.fill(Values::Whole);
        Ok(trial)
    }

    /// Gives the inputs new values.
    pub fn fill(&mut self, values: Values) {
        self.fill_within(values, self.task.whole_radius());
    }

    /// As [`Trial::fill`], with whole numbers from `-radius` to `radius`.
    pub fn fill_within(&mut self, values: Values, radius: u32) {
        self.values = values;
        self.periods.clear();
        for (index, fact) in self.task.inputs.iter().enumerate() {
            let mut period = match values {
                Values::Whole => whole_period(index, radius),
                Values::Real => {
                    let mut stream = Stream::new(index as u64, values as u32, 0, purpose::SYNTHETIC);
                    (0..PERIOD).map(|_| stream.uniform() * 2.0 - 1.0).collect()
                }
            };
            if fact.element == Element::F16 {
                period.iter_mut().for_each(|value| *value = round_to_f16(*value));
            }
            let mut bytes = fact.element.encode(&period).repeat(fact.words().div_ceil(PERIOD));
            bytes.resize(fact.bytes() as usize, 0);
            self.write(&self.shared, input(index), &bytes);
            self.periods.push(period);
        }
    }

    /// Compiles a candidate and allocates its scratch memory, of which it may have `most_scratch` bytes in all. The
    /// inner result says why it cannot run.
    pub fn prepare(&self, lowered: &Lowered, most_scratch: u64) -> Result<Result<Contender, Verdict>, GpuError> {
        let wanted = lowered.scratch.iter().chain(&lowered.textures).fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        if wanted > most_scratch {
            return Ok(Err(Verdict::DoesNotFit(format!("{wanted} bytes of scratch memory, over {most_scratch}"))));
        }
        let scratch = lowered.scratch.iter().enumerate().map(|(i, bytes)| (BufferRole::Slot(i), *bytes));
        let textures = lowered.textures.iter().enumerate().map(|(i, bytes)| (BufferRole::Texture(i), *bytes));
        let sizes: BTreeMap<BufferRole, u64> = scratch.chain(textures).collect();
        let made = scoped(self.gpu, || {
            let buffers = Buffers::allocate(self.gpu, &sizes, &self.shared)?;
            let program = Program::new(self.gpu, &self.dispatches(lowered), &buffers, &self.steps)?;
            Ok(Contender { program, buffers, scratch: lowered.scratch.clone() })
        });
        match made.and_then(|made| made) {
            Ok(contender) => Ok(Ok(contender)),
            Err(error @ (GpuError::OutOfMemory(_) | GpuError::OverLimit { .. } | GpuError::OverBudget { .. })) => {
                Ok(Err(Verdict::DoesNotFit(error.to_string())))
            }
            Err(error @ GpuError::Refused(_)) if self.gpu.check().is_ok() => Ok(Err(Verdict::DoesNotCompile(error.to_string()))),
            Err(error) => Err(error),
        }
    }

    fn dispatches(&self, lowered: &Lowered) -> Vec<ScheduledDispatch> {
        let region = |operand: &Operand| {
            let (buffer, bytes) = match *operand {
                Operand::Input(i) => (input(i), self.task.inputs[i].bytes()),
                Operand::Output(i) => (output(i), self.task.outputs[i].bytes()),
                Operand::Scratch(i) => (BufferRole::Slot(i), lowered.scratch[i]),
                Operand::Texture(i) => (BufferRole::Texture(i), lowered.textures[i]),
            };
            Region { buffer, offset: 0, bytes }
        };
        let name = self.task.op.name();
        let entry = |dispatch| ScheduledDispatch { path: "tuning".into(), op: name, pass: Pass::Forward, macs: 0, dispatch };
        lowered.dispatches.iter().map(|dispatch| entry(dispatch.map(region))).collect()
    }

    /// Makes what earlier candidates left unreadable, and runs the candidate once.
    pub fn execute(&self, contender: &Contender) -> Result<(), GpuError> {
        let scratch = contender.scratch.iter().enumerate().map(|(index, bytes)| (BufferRole::Slot(index), *bytes));
        let outputs = self.task.outputs.iter().enumerate().map(|(index, fact)| (output(index), fact.bytes()));
        for (role, bytes) in outputs.chain(scratch) {
            self.write(&contender.buffers, role, &UNWRITTEN.to_le_bytes().repeat(bytes as usize / 4));
        }
        Submitter::default().submit(self.gpu, &[(&contender.program, 0)], &self.steps, &[])?;
        self.gpu.wait()
    }

    /// As [`Trial::execute`]; returns the memory of every output.
    pub fn run(&self, contender: &Contender) -> Result<Vec<Vec<f32>>, GpuError> {
        self.execute(contender)?;
        let memory = |(index, fact): (usize, &crate::shape::Fact)| match self.shared.get(output(index)) {
            Some(buffer) => Ok(fact.decode(&self.gpu.read(buffer, fact.bytes())?)),
            None => Err(GpuError::Refused("an output has no memory".into())),
        };
        self.task.outputs.iter().enumerate().map(memory).collect()
    }

    /// The buffers of inputs and outputs.
    pub fn buffers(&self) -> &Buffers {
        &self.shared
    }

    /// Seconds of each dispatch, the medians of several runs.
    pub fn dispatch_seconds(&self, contender: &Contender, runs: usize) -> Result<Vec<f64>, GpuError> {
        Ok(contender.program.times(self.gpu, runs)?.iter().map(|time| time.seconds).collect())
    }

    /// Seconds that one run takes.
    pub fn seconds(&self, contender: &Contender) -> Result<f64, GpuError> {
        Ok(contender.program.times(self.gpu, 1)?.iter().map(|time| time.seconds).sum())
    }

    /// Compares outputs with sums in double precision at elements drawn at random, the first and the last; the error is
    /// the first that is off. Whole numbers must be equal, reals within the rounding of a sum.
    pub fn compare_with_reference(&self, outputs: &[Vec<f32>]) -> Result<(), String> {
        for (index, (memory, fact)) in outputs.iter().zip(&self.task.outputs).enumerate() {
            let checked = (CHECKED_PRODUCTS / self.task.sum_length.max(1)).clamp(8, 128);
            let mut stream = Stream::new(index as u64, 2, 0, purpose::SYNTHETIC);
            let drawn = (0..checked).map(|_| stream.below(memory.len() as u32) as usize);
            for at in [0, memory.len() - 1].into_iter().chain(drawn) {
                let value = |input: usize, at: usize| f64::from(self.periods[input][at % PERIOD]);
                let [expected, magnitudes] = self.task.element(index, at, value);
                let allowed = match self.values {
                    Values::Whole => 0.0,
                    Values::Real => 8.0 * 2f64.powi(-24) * magnitudes,
                };
                let is_rounded = fact.element == Element::F16 && !(self.values == Values::Whole && is_held(expected));
                let allowed = if is_rounded { allowed + storing(expected) } else { allowed };
                let got = f64::from(memory[at]);
                // Numbers that cannot be compared are NaN, and fail.
                if !((got - expected).abs() <= allowed) {
                    return Err(format!("element {at} of output {index}: got {got:e}, expected {expected:e}, allowed error {allowed:e}"));
                }
            }
        }
        Ok(())
    }

    fn write(&self, buffers: &Buffers, role: BufferRole, bytes: &[u8]) {
        if let Some(buffer) = buffers.get(role) {
            self.gpu.write(buffer, 0, bytes);
        }
    }
}

/// The first element in which two candidates' outputs differ; what is not a number differs from everything.
pub(super) fn first_difference(expected: &[Vec<f32>], got: &[Vec<f32>]) -> Option<String> {
    for (output, (expected, got)) in expected.iter().zip(got).enumerate() {
        if let Some(at) = expected.iter().zip(got).position(|(expected, got)| expected != got) {
            return Some(format!("element {at} of output {output}: got {:e}, the rules' kernel gave {:e}", got[at], expected[at]));
        }
    }
    None
}

fn input(index: usize) -> BufferRole {
    BufferRole::Input(ValueId(index as u32))
}

pub(super) fn output(index: usize) -> BufferRole {
    BufferRole::Output(ValueId(index as u32))
}

/// Does something with this thread's errors caught, so that what a candidate does wrong is not the device's fault.
fn scoped<T>(gpu: &Gpu, make: impl FnOnce() -> T) -> Result<T, GpuError> {
    let scopes = [wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory];
    let scopes = scopes.map(|filter| gpu.device.push_error_scope(filter));
    let made = make();
    // The last that was opened is closed first.
    let errors = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).last();
    match errors {
        None => Ok(made),
        Some(wgpu::Error::OutOfMemory { .. }) => Err(GpuError::OutOfMemory("trying a kernel".into())),
        Some(error) => Err(GpuError::Refused(error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))),
    }
}
