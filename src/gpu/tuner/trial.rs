//! A problem on the device: random inputs, programs that compute it, and the comparison of what they leave behind.
//!
//! Tensors stay on the device: inputs, and what marks memory as unwritten, are spread there from a period; results are
//! compared there with a copy of what the rules' kernel left. The host sees counts and the elements it samples.

use super::Verdict;
use crate::gpu::differences::Overwrite;
use crate::gpu::verify::{UNWRITTEN, is_held, storing};
use crate::gpu::{Buffers, Comparison, DeviceTensor, Difference, Gpu, GpuError, Program, StepUniforms, Submitter, difference_on_host};
use crate::graph::{Lowered, Operand, ValueId};
use crate::half::round_to_f16;
use crate::kernels::Step;
use crate::ops::conv2d::Task;
use crate::passes::{BufferRole, Pass, Region, ScheduledDispatch};
use crate::rng::{Stream, purpose};
use crate::shape::{Element, Fact};
use rayon::prelude::*;
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
    kept: Kept,
}

/// What a run left in the outputs, for comparing others with it.
enum Kept {
    Nothing,
    OnDevice {
        copies: Vec<DeviceTensor>,
        comparison: Comparison,
    },
    /// The bytes of each output, where the device has no room for a copy.
    OnHost(Vec<Vec<u8>>),
}

/// A candidate ready to run.
pub(super) struct Contender {
    program: Program,
    /// Marks outputs and scratch memory as unwritten.
    overwrite: Overwrite,
}

impl<'a> Trial<'a> {
    /// Allocates inputs and outputs; inputs are whole numbers at first.
    pub fn new(gpu: &'a Gpu, task: &'a Task) -> Result<Self, GpuError> {
        let inputs = task.inputs.iter().enumerate().map(|(index, fact)| (input(index), fact.bytes()));
        let outputs = task.outputs.iter().enumerate().map(|(index, fact)| (output(index), fact.bytes()));
        let shared = scoped(gpu, || Buffers::allocate(gpu, &inputs.chain(outputs).collect(), &Buffers::default()))??;
        let steps = StepUniforms::new(gpu, 1);
        steps.write(gpu, &[Step::default()]);
        let mut trial = Trial { gpu, task, values: Values::Whole, periods: Vec::new(), shared, steps, kept: Kept::Nothing };
        trial.fill(Values::Whole)?;
        Ok(trial)
    }

    /// Gives the inputs new values.
    pub fn fill(&mut self, values: Values) -> Result<(), GpuError> {
        self.fill_within(values, self.task.whole_radius())
    }

    /// As [`Trial::fill`], with whole numbers from `-radius` to `radius`.
    pub fn fill_within(&mut self, values: Values, radius: u32) -> Result<(), GpuError> {
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
            self.tensor(input(index), fact)?.repeat(self.gpu, &period)?;
            self.periods.push(period);
        }
        Ok(())
    }

    fn tensor(&self, role: BufferRole, fact: &Fact) -> Result<DeviceTensor, GpuError> {
        let buffer = self.shared.get(role).cloned().ok_or_else(|| GpuError::Refused(format!("{role:?} has no memory")))?;
        Ok(DeviceTensor { buffer, element: fact.element, elements: fact.words() })
    }

    /// Where its outputs lie.
    pub fn outputs(&self) -> Result<Vec<DeviceTensor>, GpuError> {
        self.task.outputs.iter().enumerate().map(|(index, fact)| self.tensor(output(index), fact)).collect()
    }

    /// Compiles a candidate and allocates its scratch memory, of which it may have `most_scratch` bytes in all. The
    /// inner result says why it cannot run.
    pub fn prepare(&mut self, lowered: &Lowered, most_scratch: u64) -> Result<Result<Contender, Verdict>, GpuError> {
        let wanted = lowered.scratch.iter().chain(&lowered.textures).fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        if wanted > most_scratch {
            return Ok(Err(Verdict::DoesNotFit(format!("{wanted} bytes of scratch memory, over {most_scratch}"))));
        }
        let mut made = self.make(lowered);
        // Without the copy it may fit.
        if matches!(made, Err(GpuError::OutOfMemory(_) | GpuError::OverBudget { .. })) && self.keep_on_host()? {
            made = self.make(lowered);
        }
        match made {
            Ok(contender) => Ok(Ok(contender)),
            Err(error) if is_lack_of_memory(&error) => Ok(Err(Verdict::DoesNotFit(error.to_string()))),
            Err(error @ GpuError::Refused(_)) if self.gpu.check().is_ok() => Ok(Err(Verdict::DoesNotCompile(error.to_string()))),
            Err(error) => Err(error),
        }
    }

    fn make(&self, lowered: &Lowered) -> Result<Contender, GpuError> {
        let scratch = || lowered.scratch.iter().enumerate().map(|(i, bytes)| (BufferRole::Slot(i), *bytes));
        let textures = lowered.textures.iter().enumerate().map(|(i, bytes)| (BufferRole::Texture(i), *bytes));
        let sizes: BTreeMap<BufferRole, u64> = scratch().chain(textures).collect();
        scoped(self.gpu, || {
            let buffers = Buffers::allocate(self.gpu, &sizes, &self.shared)?;
            let outputs = self.task.outputs.iter().enumerate().map(|(index, fact)| (output(index), fact.bytes()));
            let written = outputs.chain(scratch()).filter_map(|(role, bytes)| Some((buffers.get(role)?.clone(), bytes)));
            let overwrite = Overwrite::new(self.gpu, UNWRITTEN, written, &self.steps)?;
            let program = Program::new(self.gpu, &self.dispatches(lowered), &buffers, &self.steps)?;
            Ok(Contender { program, overwrite })
        })?
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

    /// Makes what earlier candidates left unreadable, then runs the candidate once.
    pub fn run(&self, contender: &Contender) -> Result<(), GpuError> {
        let programs = [(contender.overwrite.program(), 0), (&contender.program, 0)];
        Submitter::default().submit(self.gpu, &programs, &self.steps, &[])?;
        self.gpu.wait()
    }

    /// Keeps what the last run left in the outputs, for [`Trial::difference`].
    pub fn keep(&mut self) -> Result<(), GpuError> {
        let outputs = self.outputs()?;
        if matches!(self.kept, Kept::Nothing) {
            self.kept = match self.room_for_copies(&outputs) {
                Err(error) if is_lack_of_memory(&error) => Kept::OnHost(Vec::new()),
                made => made?,
            };
        }
        match &mut self.kept {
            Kept::OnDevice { copies, .. } => {
                outputs.iter().zip(copies).for_each(|(output, copy)| self.gpu.copy(&output.buffer, &copy.buffer, output.bytes()));
            }
            kept => *kept = Kept::OnHost(read(self.gpu, &outputs)?),
        }
        Ok(())
    }

    fn room_for_copies(&self, outputs: &[DeviceTensor]) -> Result<Kept, GpuError> {
        scoped(self.gpu, || {
            let copy = |tensor: &DeviceTensor| {
                let buffer = self.gpu.allocate("what is expected", tensor.bytes())?;
                Ok(DeviceTensor { buffer, ..tensor.clone() })
            };
            let copies = outputs.iter().map(copy).collect::<Result<Vec<_>, GpuError>>()?;
            let pairs: Vec<_> = copies.iter().cloned().zip(outputs.iter().cloned()).collect();
            Ok(Kept::OnDevice { copies, comparison: Comparison::new(self.gpu, &pairs)? })
        })?
    }

    /// Moves what was kept to the host, where it takes none of the device's memory; whether there was anything to move.
    fn keep_on_host(&mut self) -> Result<bool, GpuError> {
        let Kept::OnDevice { copies, .. } = &self.kept else { return Ok(false) };
        self.kept = Kept::OnHost(read(self.gpu, copies)?);
        self.gpu.wait()?;
        Ok(true)
    }

    /// The first element in which the outputs differ from what was kept; what is not a number differs from everything.
    pub fn difference(&self) -> Result<Option<String>, GpuError> {
        let outputs = self.outputs()?;
        let differences = match &self.kept {
            Kept::Nothing => return Err(GpuError::Refused("nothing was kept to compare with".into())),
            Kept::OnDevice { comparison, .. } => comparison.run(self.gpu)?,
            Kept::OnHost(kept) => {
                let compare = |(output, kept): (&DeviceTensor, &Vec<u8>)| {
                    let got = self.gpu.read(&output.buffer, output.bytes())?;
                    Ok(difference_on_host(output.element, output.elements, kept, &got))
                };
                outputs.iter().zip(kept).map(compare).collect::<Result<Vec<_>, GpuError>>()?
            }
        };
        let first = differences.iter().enumerate().find_map(|(index, difference)| Some((index, (*difference)?)));
        let Some((index, Difference { count, first })) = first else { return Ok(None) };
        let got = self.element(&outputs[index], first)?;
        let expected = match &self.kept {
            Kept::OnDevice { copies, .. } => self.element(&copies[index], first)?,
            Kept::OnHost(kept) => self.task.outputs[index].decode(&kept[index])[first],
            Kept::Nothing => f32::NAN,
        };
        let elements = outputs[index].elements;
        Ok(Some(format!(
            "element {first} of output {index}: got {got:e}, the rules' kernel gave {expected:e}; {count} of {elements} elements differ"
        )))
    }

    fn element(&self, tensor: &DeviceTensor, at: usize) -> Result<f32, GpuError> {
        Ok(self.gpu.read_elements(tensor, &[at])?.first().copied().unwrap_or(f32::NAN))
    }

    /// Seconds of each dispatch, the medians of several runs.
    pub fn dispatch_seconds(&self, contender: &Contender, runs: usize) -> Result<Vec<f64>, GpuError> {
        Ok(contender.program.times(self.gpu, runs)?.iter().map(|time| time.seconds).collect())
    }

    /// Seconds that one run takes.
    pub fn seconds(&self, contender: &Contender) -> Result<f64, GpuError> {
        Ok(contender.program.times(self.gpu, 1)?.iter().map(|time| time.seconds).sum())
    }

    /// Compares the outputs with sums in double precision at elements drawn at random, the first and the last; the inner
    /// error is the first that is off. Whole numbers must be equal, reals within the rounding of a sum.
    pub fn compare_with_reference(&self) -> Result<Result<(), String>, GpuError> {
        for (index, tensor) in self.outputs()?.iter().enumerate() {
            let checked = (CHECKED_PRODUCTS / self.task.sum_length.max(1)).clamp(8, 128);
            let mut stream = Stream::new(index as u64, 2, 0, purpose::SYNTHETIC);
            let drawn = (0..checked).map(|_| stream.below(tensor.elements as u32) as usize);
            let places: Vec<usize> = [0, tensor.elements - 1].into_iter().chain(drawn).collect();
            let got = self.gpu.read_elements(tensor, &places)?;
            let wrong = places.par_iter().zip(got).map(|(at, got)| self.compare_element(index, *at, got)).collect::<Vec<_>>();
            if let Some(wrong) = wrong.into_iter().find(Result::is_err) {
                return Ok(wrong);
            }
        }
        Ok(Ok(()))
    }

    fn compare_element(&self, output: usize, at: usize, got: f32) -> Result<(), String> {
        let value = |input: usize, at: usize| f64::from(self.periods[input][at % PERIOD]);
        let [expected, magnitudes] = self.task.element(output, at, value);
        let allowed = match self.values {
            Values::Whole => 0.0,
            Values::Real => 8.0 * 2f64.powi(-24) * magnitudes,
        };
        let stored = self.task.outputs[output].element;
        let is_rounded = stored == Element::F16 && !(self.values == Values::Whole && is_held(expected));
        let allowed = if is_rounded { allowed + storing(expected) } else { allowed };
        let got = f64::from(got);
        // Numbers that cannot be compared are NaN, and fail.
        if (got - expected).abs() <= allowed {
            return Ok(());
        }
        Err(format!("element {at} of output {output}: got {got:e}, expected {expected:e}, allowed error {allowed:e}"))
    }
}

/// The bytes of tensors.
fn read(gpu: &Gpu, tensors: &[DeviceTensor]) -> Result<Vec<Vec<u8>>, GpuError> {
    tensors.iter().map(|tensor| gpu.read(&tensor.buffer, tensor.bytes())).collect()
}

pub(super) fn is_lack_of_memory(error: &GpuError) -> bool {
    matches!(error, GpuError::OutOfMemory(_) | GpuError::OverLimit { .. } | GpuError::OverBudget { .. })
}

fn input(index: usize) -> BufferRole {
    BufferRole::Input(ValueId(index as u32))
}

fn output(index: usize) -> BufferRole {
    BufferRole::Output(ValueId(index as u32))
}

/// Does something with this thread's errors caught, so that what a candidate does wrong is not the device's fault.
fn scoped<T>(gpu: &Gpu, make: impl FnOnce() -> T) -> Result<T, GpuError> {
    let scopes = [wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory];
    let scopes = scopes.map(|filter| gpu.device.push_error_scope(filter));
    let made = make();
    // The last that was opened is closed first.
    let errors: Vec<wgpu::Error> = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).collect();
    // What was not allocated cannot be used either: the lack of memory comes first.
    let first = errors.iter().find(|error| matches!(error, wgpu::Error::OutOfMemory { .. })).or(errors.last());
    match first {
        None => Ok(made),
        Some(wgpu::Error::OutOfMemory { .. }) => Err(GpuError::OutOfMemory("trying a kernel".into())),
        Some(error) => Err(GpuError::Refused(error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))),
    }
}
