//! Filling buffers and comparing them on the device, so that a few words cross the bus where tensors have hundreds of
//! megabytes.

use super::{Buffers, DeviceBuffer, Gpu, GpuError, Program, StepUniforms, Submitter};
use crate::kernels::{Dispatch, differences, repeat, workgroups_for};
use crate::passes::{BufferRole, Pass, Region, ScheduledDispatch};
use crate::shape::Element;

/// Most invocations that compare one pair of tensors: enough to keep large devices loading.
const MOST_LANES: usize = 1 << 16;

/// A buffer as an operand: all of it, or its first bytes.
type Bound = (DeviceBuffer, u64);

/// Dispatches that belong to no graph, made ready.
pub(super) fn program_of(gpu: &Gpu, dispatches: &[Dispatch<Bound>], steps: &StepUniforms) -> Result<Program, GpuError> {
    let mut buffers = Buffers::default();
    let mut count = 0;
    let mut bind = |(buffer, bytes): &Bound| {
        let role = BufferRole::Slot(count);
        count += 1;
        buffers.insert(role, buffer.clone());
        Region { buffer: role, offset: 0, bytes: *bytes }
    };
    let scheduled = dispatches.iter().map(|dispatch| ScheduledDispatch {
        path: dispatch.kernel.module.to_string(),
        op: dispatch.kernel.entry,
        pass: Pass::Forward,
        macs: 0,
        dispatch: dispatch.map(&mut bind),
    });
    let scheduled: Vec<ScheduledDispatch> = scheduled.collect();
    Program::new(gpu, &scheduled, &buffers, steps)
}

/// A buffer of a few words beside the memory budget, like those through which the host reads and writes.
fn small_buffer(gpu: &Gpu, label: &str, bytes: u64) -> DeviceBuffer {
    let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: bytes.max(4),
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    DeviceBuffer::new(gpu, buffer)
}

/// A tensor on the device as it lies in memory.
#[derive(Clone, Debug)]
pub struct DeviceTensor {
    /// Where it is, from the first byte on.
    pub buffer: DeviceBuffer,
    /// How its elements are stored.
    pub element: Element,
    /// Elements in memory.
    pub elements: usize,
}

impl DeviceTensor {
    /// Bytes in memory: whole words.
    pub fn bytes(&self) -> u64 {
        ((self.elements * self.element.bytes()) as u64).next_multiple_of(4)
    }

    fn bound(&self) -> Bound {
        (self.buffer.clone(), self.bytes())
    }

    /// Invocations for one word each.
    fn words(&self) -> usize {
        self.bytes() as usize / 4
    }

    /// Fills it with `values` over and over; rounded where elements are f16.
    pub fn repeat(&self, gpu: &Gpu, values: &[f32]) -> Result<(), GpuError> {
        let words: Vec<u32> = match self.element {
            Element::F32 => values.iter().map(|value| value.to_bits()).collect(),
            Element::F16 => self.element.encode(values).chunks_exact(2).map(|pair| u32::from(pair[0]) | u32::from(pair[1]) << 8).collect(),
        };
        let period = small_buffer(gpu, "period", words.len() as u64 * 4);
        gpu.write(&period, 0, bytemuck::cast_slice(&words));
        let params = repeat::Params { elements: self.elements as u32, length: words.len() as u32, ..Default::default() };
        let period = (period, words.len() as u64 * 4);
        let dispatch = match self.element {
            Element::F32 => repeat::words(params, period, self.bound(), workgroups_for(&repeat::WORDS, self.words())),
            Element::F16 => repeat::halves(params, period, self.bound(), workgroups_for(&repeat::HALVES, self.words())),
        };
        let steps = StepUniforms::new(gpu, 1);
        Submitter::default().submit(gpu, &[(&program_of(gpu, &[dispatch], &steps)?, 0)], &steps, &[])
    }
}

/// Writes one word all over buffers.
pub(super) struct Overwrite {
    program: Program,
}

impl Overwrite {
    /// Of the first bytes of each buffer, a multiple of four.
    pub fn new(gpu: &Gpu, word: u32, buffers: impl IntoIterator<Item = Bound>, steps: &StepUniforms) -> Result<Self, GpuError> {
        let period = small_buffer(gpu, "word", 4);
        gpu.write(&period, 0, &word.to_le_bytes());
        let fill = |(buffer, bytes): Bound| {
            let words = bytes / 4;
            let params = repeat::Params { elements: words as u32, length: 1, ..Default::default() };
            repeat::one(params, (period.clone(), 4), (buffer, bytes), workgroups_for(&repeat::ONE, words as usize))
        };
        let dispatches: Vec<_> = buffers.into_iter().map(fill).collect();
        Ok(Overwrite { program: program_of(gpu, &dispatches, steps)? })
    }

    /// What does it, to be submitted before what is to write the buffers.
    pub fn program(&self) -> &Program {
        &self.program
    }
}

/// In how many elements two tensors differ, and where first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Elements that differ.
    pub count: u32,
    /// The first of them, by its place in memory.
    pub first: usize,
}

/// Compares pairs of tensors on the device, element by element: NaN differs from everything, also from itself, and the two
/// zeros are equal.
pub struct Comparison {
    program: Program,
    steps: StepUniforms,
    result: DeviceBuffer,
    pairs: usize,
}

impl Comparison {
    /// Of the expected tensors with those got, pair by pair: alike in elements, and in memory of their own.
    pub fn new(gpu: &Gpu, pairs: &[(DeviceTensor, DeviceTensor)]) -> Result<Self, GpuError> {
        let steps = StepUniforms::new(gpu, 1);
        let lanes_of = |tensor: &DeviceTensor| tensor.words().clamp(1, MOST_LANES);
        let most_lanes = pairs.iter().map(|(expected, _)| lanes_of(expected)).max().unwrap_or(1);
        let partials = small_buffer(gpu, "differences of lanes", most_lanes as u64 * 8);
        let result = small_buffer(gpu, "differences", pairs.len() as u64 * 8);
        let mut dispatches = Vec::new();
        for (tensor, (expected, got)) in pairs.iter().enumerate() {
            assert_eq!((expected.element, expected.elements), (got.element, got.elements), "only like tensors can be compared");
            let lanes = lanes_of(expected);
            let params = differences::Params {
                elements: expected.elements as u32,
                lanes: lanes as u32,
                tensor: tensor as u32,
                ..Default::default()
            };
            let partials = (partials.clone(), lanes as u64 * 8);
            let groups = workgroups_for(&differences::WORDS, lanes);
            dispatches.push(match expected.element {
                Element::F32 => differences::words(params, expected.bound(), got.bound(), partials.clone(), groups),
                Element::F16 => differences::halves(params, expected.bound(), got.bound(), partials.clone(), groups),
            });
            dispatches.push(differences::summarise(params, partials, (result.clone(), pairs.len() as u64 * 8), 1));
        }
        Ok(Comparison { program: program_of(gpu, &dispatches, &steps)?, steps, result, pairs: pairs.len() })
    }

    /// Compares what the tensors hold after all work that was submitted; `None` for pairs that are equal.
    pub fn run(&self, gpu: &Gpu) -> Result<Vec<Option<Difference>>, GpuError> {
        Submitter::default().submit(gpu, &[(&self.program, 0)], &self.steps, &[])?;
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&gpu.read(&self.result, self.pairs as u64 * 8)?);
        let difference = |pair: &[u32]| (pair[0] > 0).then_some(Difference { count: pair[0], first: pair[1] as usize });
        Ok(words.chunks_exact(2).map(difference).collect())
    }
}

/// The rule of [`Comparison`] on the host, for tensors that were read back: as bytes, which may end in padding.
pub fn difference_on_host(element: Element, elements: usize, expected: &[u8], got: &[u8]) -> Option<Difference> {
    let differs = |a: u32, b: u32, magnitude: u32, infinity: u32| {
        let is_nan = a & magnitude > infinity || b & magnitude > infinity;
        is_nan || (a != b && (a | b) & magnitude != 0)
    };
    let size = element.bytes();
    let bits = |bytes: &[u8]| bytes.iter().rev().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
    let is_different = |(a, b): (&[u8], &[u8])| match element {
        Element::F32 => differs(bits(a), bits(b), 0x7fff_ffff, 0x7f80_0000),
        Element::F16 => differs(bits(a), bits(b), 0x7fff, 0x7c00),
    };
    let pairs = expected.chunks_exact(size).zip(got.chunks_exact(size)).take(elements);
    let mut different = pairs.enumerate().filter(|(_, pair)| is_different(*pair)).map(|(at, _)| at);
    let first = different.next()?;
    Some(Difference { count: 1 + different.count() as u32, first })
}

impl Gpu {
    /// Single elements of a tensor, in one submission: a handful, each through a copy of its own.
    pub fn read_elements(&self, tensor: &DeviceTensor, places: &[usize]) -> Result<Vec<f32>, GpuError> {
        let staging = small_buffer(self, "elements", places.len() as u64 * 4);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let width = tensor.element.bytes();
        for (index, place) in places.iter().enumerate() {
            let word = (place * width / 4 * 4) as u64;
            encoder.copy_buffer_to_buffer(&tensor.buffer.0, word, &staging.0, index as u64 * 4, 4);
        }
        self.queue.submit([encoder.finish()]);
        let bytes = self.read(&staging, places.len() as u64 * 4)?;
        let element = |(place, word): (&usize, &[u8])| match tensor.element {
            Element::F32 => f32::from_le_bytes([word[0], word[1], word[2], word[3]]),
            Element::F16 => {
                let at = place % 2 * 2;
                crate::half::f16_to_f32(u16::from_le_bytes([word[at], word[at + 1]]))
            }
        };
        Ok(places.iter().zip(bytes.chunks_exact(4)).map(element).collect())
    }

    /// Copies the first bytes of a buffer into another; a multiple of four.
    pub fn copy(&self, from: &DeviceBuffer, to: &DeviceBuffer, bytes: u64) {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&from.0, 0, &to.0, 0, bytes);
        self.queue.submit([encoder.finish()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_finds_what_differs() {
        let words = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let compare = |a: &[f32], b: &[f32]| difference_on_host(Element::F32, a.len(), &words(a), &words(b));
        let tiny = f32::from_bits(1);
        assert_eq!(compare(&[0.0, -0.0, 1.0, f32::INFINITY, tiny], &[-0.0, 0.0, 1.0, f32::INFINITY, tiny]), None);
        assert_eq!(compare(&[1.0, f32::NAN, 3.0], &[1.0, f32::NAN, 4.0]), Some(Difference { count: 2, first: 1 }));
        assert_eq!(compare(&[0.0, 2.0], &[tiny, -2.0]), Some(Difference { count: 2, first: 0 }));
        let halves = |values: &[u16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let compare = |a: &[u16], b: &[u16], elements| difference_on_host(Element::F16, elements, &halves(a), &halves(b));
        assert_eq!(compare(&[0, 0x8000, 0x3c00], &[0x8000, 0, 0x3c00], 3), None);
        assert_eq!(compare(&[0x7e00, 0x7c00], &[0x7e00, 0x7c00], 2), Some(Difference { count: 1, first: 0 }));
        // What lies behind the last element is not compared.
        assert_eq!(compare(&[1, 2, 3, 4], &[1, 2, 3, 5], 3), None);
    }
}
