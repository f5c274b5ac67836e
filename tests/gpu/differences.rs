//! Filling and comparing tensors on the device, against the same rules on the host.

use crate::{Device, trial};
use libtest_mimic::Trial;
use nin_wgpu::gpu::{Comparison, DeviceTensor, Difference, Gpu, difference_on_host};
use nin_wgpu::rng::{Stream, purpose};
use nin_wgpu::shape::Element;

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    vec![
        trial(device, "differences::single_elements_are_found_wherever_they_are", single_elements_are_found),
        trial(device, "differences::the_device_finds_what_the_host_finds", the_device_finds_what_the_host_finds),
        trial(device, "differences::tensors_are_filled_with_a_period", tensors_are_filled_with_a_period),
    ]
}

/// More elements than lanes that compare them, and fewer; odd, so that a last word holds one f16.
const SIZES: [usize; 6] = [1, 2, 129, 4097, 65_537, 1_000_003];
const ELEMENTS: [Element; 2] = [Element::F32, Element::F16];

fn said<T>(result: Result<T, nin_wgpu::gpu::GpuError>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// A tensor whose elements have such bits.
fn tensor(gpu: &Gpu, element: Element, bits: &[u32]) -> Result<(DeviceTensor, Vec<u8>), String> {
    let width = element.bytes();
    let mut bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes().into_iter().take(width)).collect();
    // What fills the last word is no element: it differs from tensor to tensor.
    let filler = bits[0].wrapping_mul(7).to_le_bytes()[0];
    bytes.resize(bytes.len().next_multiple_of(4), filler);
    let buffer = said(gpu.allocate("tensor", bytes.len() as u64))?;
    gpu.write(&buffer, 0, &bytes);
    Ok((DeviceTensor { buffer, element, elements: bits.len() }, bytes))
}

fn compare(gpu: &Gpu, expected: &DeviceTensor, got: &DeviceTensor) -> Result<Option<Difference>, String> {
    let comparison = said(Comparison::new(gpu, &[(expected.clone(), got.clone())]))?;
    Ok(said(comparison.run(gpu))?[0])
}

fn single_elements_are_found(gpu: &Gpu) -> Result<(), String> {
    let one = |element| if element == Element::F32 { 0x3f80_0000 } else { 0x3c00 };
    for (element, size) in ELEMENTS.iter().flat_map(|element| SIZES.map(|size| (*element, size))) {
        let bits = vec![one(element); size];
        let (expected, _) = tensor(gpu, element, &bits)?;
        let (same, _) = tensor(gpu, element, &bits)?;
        if let Some(found) = compare(gpu, &expected, &same)? {
            return Err(format!("{size} equal elements of {}: {found:?}", element.name()));
        }
        for at in [0, size / 2, size - 1] {
            let mut changed = bits.clone();
            // The last bit of the fraction.
            changed[at] ^= 1;
            let (got, _) = tensor(gpu, element, &changed)?;
            let found = compare(gpu, &expected, &got)?;
            if found != Some(Difference { count: 1, first: at }) {
                return Err(format!("element {at} of {size} in {}: {found:?}", element.name()));
            }
            let [before, after] = [said(gpu.read_elements(&expected, &[0, at]))?, said(gpu.read_elements(&got, &[0, at]))?];
            if before != [1.0, 1.0] || after[1] == 1.0 {
                return Err(format!("element {at} of {size} in {} reads as {before:?}, {after:?}", element.name()));
            }
        }
    }
    Ok(())
}

/// Every kind of number against every other, and some elements of random tensors changed.
fn the_device_finds_what_the_host_finds(gpu: &Gpu) -> Result<(), String> {
    for element in ELEMENTS {
        let (sign, infinity): (u32, u32) = if element == Element::F16 { (0x8000, 0x7c00) } else { (0x8000_0000, 0x7f80_0000) };
        let kinds = [0, 1, infinity / 2, infinity - 1, infinity, infinity + 1, sign - 1].map(|bits| [bits, bits | sign]);
        let kinds = kinds.as_flattened();
        for (a, b) in kinds.iter().flat_map(|a| kinds.iter().map(move |b| (*a, *b))) {
            // The pair stands between equal elements.
            agree(gpu, element, &[infinity / 2, a, infinity / 2], &[infinity / 2, b, infinity / 2])?;
        }
        for (seed, size) in SIZES.into_iter().enumerate() {
            let mut stream = Stream::new(seed as u64, 0, 0, purpose::SYNTHETIC);
            let expected: Vec<u32> = (0..size).map(|_| stream.below(infinity)).collect();
            let mut got = expected.clone();
            for _ in 0..1 + size / 1000 {
                got[stream.below(size as u32) as usize] = kinds[stream.below(kinds.len() as u32) as usize];
            }
            agree(gpu, element, &expected, &got)?;
        }
    }
    Ok(())
}

fn agree(gpu: &Gpu, element: Element, expected: &[u32], got: &[u32]) -> Result<(), String> {
    let ((expected, on_host), (got, got_on_host)) = (tensor(gpu, element, expected)?, tensor(gpu, element, got)?);
    let found = compare(gpu, &expected, &got)?;
    let wanted = difference_on_host(element, expected.elements, &on_host, &got_on_host);
    if found == wanted { Ok(()) } else { Err(format!("{}: the device found {found:?}, the host {wanted:?}", element.name())) }
}

fn tensors_are_filled_with_a_period(gpu: &Gpu) -> Result<(), String> {
    for (element, elements) in ELEMENTS.iter().flat_map(|element| SIZES.map(|size| (*element, size))) {
        for length in [1, 2, 3, 251] {
            let period: Vec<f32> = (0..length).map(|i| 0.5 + i as f32).collect();
            let bytes = ((elements * element.bytes()) as u64).next_multiple_of(4);
            let tensor = DeviceTensor { buffer: said(gpu.allocate("filled", bytes))?, element, elements };
            said(tensor.repeat(gpu, &period))?;
            let mut wanted = element.encode(&period).repeat(elements.div_ceil(length));
            wanted.truncate(elements * element.bytes());
            wanted.resize(bytes as usize, 0);
            if said(gpu.read(&tensor.buffer, bytes))? != wanted {
                return Err(format!("{elements} elements of {} with a period of {length}", element.name()));
            }
        }
    }
    Ok(())
}
