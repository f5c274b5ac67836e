//! Kinds of TIFF that the `image` crate does not read, or reads otherwise than they are meant: palettes, YCbCr, grey with
//! alpha, premultiplied alpha, floating-point and wide or few-bit samples.

use super::on_white;
use image::metadata::Orientation;
use std::io::Cursor;
use tiff::TiffError;
use tiff::decoder::{Decoder, DecodingResult, Limits};

const BITS_PER_SAMPLE: u16 = 258;
const PHOTOMETRIC: u16 = 262;
const ORIENTATION: u16 = 274;
const SAMPLES_PER_PIXEL: u16 = 277;
const COLOUR_MAP: u16 = 320;
const EXTRA_SAMPLES: u16 = 338;
const SAMPLE_FORMAT: u16 = 339;

const WHITE_IS_ZERO: u64 = 0;
const BLACK_IS_ZERO: u64 = 1;
const RGB: u64 = 2;
const PALETTE: u64 = 3;
const YCBCR: u64 = 6;
const SIGNED: u64 = 2;
const FLOAT: u64 = 3;
const ASSOCIATED: u64 = 1;
const UNASSOCIATED: u64 = 2;

/// Samples of 8 bits, upright or not, without alpha.
pub struct Samples {
    pub width: u32,
    pub height: u32,
    /// 1 or 3.
    pub channels: usize,
    pub pixels: Vec<u8>,
}

/// What the first picture of a file is made of.
pub struct Kind {
    photometric: u64,
    samples: u64,
    has_alpha: bool,
    is_associated: bool,
    /// By index red, green and blue.
    palette: Vec<[u8; 3]>,
    /// Where the file says how colours are to be understood.
    photometric_at: usize,
    is_little: bool,
}

/// The kind of a file's first picture where it is one for [`decode`]; `None` for all that the `image` crate reads well, and for
/// damaged files.
pub fn special_kind(bytes: &[u8]) -> Option<Kind> {
    let directory = Directory::read(bytes)?;
    let first = |tag: u16, default: u64| directory.find(tag).map_or(Some(default), |field| directory.value(&field, 0));
    let photometric_field = directory.find(PHOTOMETRIC)?;
    let photometric = directory.value(&photometric_field, 0)?;
    let (bits, samples, format) = (first(BITS_PER_SAMPLE, 1)?, first(SAMPLES_PER_PIXEL, 1)?, first(SAMPLE_FORMAT, 1)?);
    let extra = directory.find(EXTRA_SAMPLES).and_then(|field| directory.value(&field, 0));
    let is_grey = matches!(photometric, WHITE_IS_ZERO | BLACK_IS_ZERO);
    let is_associated = extra == Some(ASSOCIATED);
    let is_special = match photometric {
        PALETTE | YCBCR => true,
        WHITE_IS_ZERO | BLACK_IS_ZERO => samples > 1 || matches!(bits, 2 | 4 | 32 | 64) || matches!(format, SIGNED | FLOAT),
        RGB => is_associated || bits > 16 || matches!(format, SIGNED | FLOAT),
        _ => false,
    };
    if !is_special {
        return None;
    }
    let mut palette = Vec::new();
    if photometric == PALETTE {
        let map = directory.find(COLOUR_MAP)?;
        let size = (map.count / 3).min(1 << 16);
        let values: Vec<u64> = (0..3 * size).map(|index| directory.value(&map, index)).collect::<Option<_>>()?;
        // Some writers forget that the values have 16 bits.
        let shift = if values.iter().any(|value| *value > 255) { 8 } else { 0 };
        let at = |index: u64| (values[index as usize] >> shift) as u8;
        palette = (0..size).map(|index| [at(index), at(size + index), at(2 * size + index)]).collect();
    }
    Some(Kind {
        photometric,
        samples,
        has_alpha: samples == if is_grey { 2 } else { 4 } && (is_associated || extra == Some(UNASSOCIATED)),
        is_associated,
        palette,
        photometric_at: photometric_field.value_at,
        is_little: directory.is_little,
    })
}

/// The orientation that a file's first picture has.
pub fn orientation(bytes: &[u8]) -> Option<Orientation> {
    let directory = Directory::read(bytes)?;
    let value = directory.value(&directory.find(ORIENTATION)?, 0)?;
    u8::try_from(value).ok().and_then(Orientation::from_exif)
}

/// Width and height of a file's first picture.
pub fn size(bytes: &[u8]) -> Result<(u32, u32), TiffError> {
    Decoder::new(Cursor::new(bytes))?.dimensions()
}

/// Decodes the first picture within a bound on memory.
pub fn decode(bytes: &[u8], kind: &Kind, most_bytes: usize) -> Result<Samples, TiffError> {
    // The decoder hands out the samples as they are where they have no other meaning for it.
    let plain = match kind.photometric {
        YCBCR => RGB,
        RGB => RGB,
        _ => BLACK_IS_ZERO,
    };
    let mut bytes = bytes.to_vec();
    let word = if kind.is_little { (plain as u16).to_le_bytes() } else { (plain as u16).to_be_bytes() };
    bytes[kind.photometric_at..kind.photometric_at + 2].copy_from_slice(&word);
    let mut limits = Limits::default();
    (limits.decoding_buffer_size, limits.intermediate_buffer_size) = (most_bytes, most_bytes);
    let mut decoder = Decoder::new(Cursor::new(&bytes))?.with_limits(limits);
    let (width, height) = decoder.dimensions()?;
    let depth = decoder.colortype()?.bit_depth();
    let mut result = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut result)?;
    let count = width as usize * height as usize;
    let is_index = kind.photometric == PALETTE;
    let samples = to_bytes(&result, usize::from(depth), width as usize * kind.samples as usize, is_index);
    // What a decoder leaves out of the samples is at the end of each pixel.
    let stored = (samples.len() / count.max(1)).max(1);
    let sample = |pixel: usize, channel: usize| {
        let at = if layout.planes > 1 { channel * count + pixel } else { pixel * stored + channel };
        samples.get(at).copied().unwrap_or(0)
    };
    let (channels, pixels) = match kind.photometric {
        PALETTE => {
            let colour = |pixel: usize| kind.palette.get(usize::from(sample(pixel, 0))).copied().unwrap_or([0; 3]);
            (3, (0..count).flat_map(colour).collect())
        }
        YCBCR => (3, (0..count).flat_map(|pixel| rgb([sample(pixel, 0), sample(pixel, 1), sample(pixel, 2)])).collect()),
        _ => {
            let channels = if kind.photometric == RGB { 3 } else { 1 };
            let flip = if kind.photometric == WHITE_IS_ZERO { 255 } else { 0 };
            let taken = channels + usize::from(kind.has_alpha);
            let values = |pixel: usize| (0..taken).map(move |channel| (pixel, channel));
            let pixels: Vec<u8> = (0..count)
                .flat_map(values)
                .map(|(pixel, channel)| if channel < channels { sample(pixel, channel) ^ flip } else { sample(pixel, channel) })
                .collect();
            let pixels = if kind.has_alpha { on_white(pixels, channels, kind.is_associated) } else { pixels };
            (channels, pixels)
        }
    };
    Ok(Samples { width, height, channels, pixels })
}

/// Red, green and blue of a colour as JPEG has it (BT.601, full range).
fn rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
    // Conversions saturate.
    [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb].map(|value| value.round() as u8)
}

/// Samples as bytes. Of 16 bits the upper ones are kept. Floating-point numbers are taken as 0 to 1, or as 0 to 255 where one of
/// them is larger than 1; wider whole numbers as 8, 16 or 32 bits by the largest of them; what is below 0 becomes 0.
fn to_bytes(result: &DecodingResult, depth: usize, row: usize, is_index: bool) -> Vec<u8> {
    let floats = |values: &mut dyn Iterator<Item = f64>| -> Vec<u8> {
        let values: Vec<f32> = values.map(|value| value as f32).collect();
        let most = values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f32::max);
        let scale = if most <= 1.0 { 255.0 } else { 1.0 };
        values.iter().map(|value| (value * scale).round() as u8).collect()
    };
    let whole = |values: &mut dyn Iterator<Item = i128>| -> Vec<u8> {
        let values: Vec<i64> = values.map(|value| value.clamp(0, i64::MAX.into()) as i64).collect();
        let most = values.iter().copied().max().unwrap_or(0);
        let shift = [(0xff, 0), (0xffff, 8), (0xffff_ffff, 24)].iter().find(|(end, _)| most <= *end).map_or(55, |(_, shift)| *shift);
        values.iter().map(|value| (value >> shift) as u8).collect()
    };
    match result {
        DecodingResult::U8(values) if depth < 8 => unpacked(values, depth, row, is_index),
        DecodingResult::U8(values) => values.clone(),
        DecodingResult::U16(values) => values.iter().map(|value| if is_index { *value as u8 } else { (value >> 8) as u8 }).collect(),
        DecodingResult::U32(values) => whole(&mut values.iter().map(|value| i128::from(*value))),
        DecodingResult::U64(values) => whole(&mut values.iter().map(|value| i128::from(*value))),
        DecodingResult::I8(values) => whole(&mut values.iter().map(|value| i128::from(*value))),
        DecodingResult::I16(values) => whole(&mut values.iter().map(|value| i128::from(*value))),
        DecodingResult::I32(values) => whole(&mut values.iter().map(|value| i128::from(*value))),
        DecodingResult::I64(values) => whole(&mut values.iter().map(|value| i128::from(*value))),
        DecodingResult::F16(values) => floats(&mut values.iter().map(|value| f64::from(value.to_f32()))),
        DecodingResult::F32(values) => floats(&mut values.iter().map(|value| f64::from(*value))),
        DecodingResult::F64(values) => floats(&mut values.iter().copied()),
    }
}

/// Samples of less than 8 bits, of which `row` are in a row that begins with a byte of its own.
fn unpacked(bytes: &[u8], depth: usize, row: usize, is_index: bool) -> Vec<u8> {
    let most = (1u16 << depth) - 1;
    let scale = |value: u8| if is_index { value } else { (u16::from(value) * 255 / most) as u8 };
    let rows = bytes.chunks((row * depth).div_ceil(8).max(1));
    rows.flat_map(|bytes| {
        (0..row).map(move |index| {
            let bit = index * depth;
            let byte = bytes.get(bit / 8).copied().unwrap_or(0);
            scale((byte >> (8 - depth - bit % 8)) & most as u8)
        })
    })
    .collect()
}

/// The first directory of a file.
struct Directory<'a> {
    bytes: &'a [u8],
    is_little: bool,
    fields: Vec<Field>,
}

#[derive(Clone, Copy)]
struct Field {
    tag: u16,
    /// Bytes of a value.
    size: usize,
    count: u64,
    /// Where the values are.
    value_at: usize,
}

impl<'a> Directory<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (is_little, is_big) = match bytes.get(..4)? {
            b"II*\0" => (true, false),
            b"MM\0*" => (false, false),
            b"II+\0" => (true, true),
            b"MM\0+" => (false, true),
            _ => return None,
        };
        let mut directory = Directory { bytes, is_little, fields: Vec::new() };
        let word = if is_big { 8 } else { 4 };
        let at = usize::try_from(directory.number(word, word)?).ok()?;
        let (head, entry) = if is_big { (8, 20) } else { (2, 12) };
        let count = usize::try_from(directory.number(at, head)?).ok()?.min(4096);
        for index in 0..count {
            let at = at.checked_add(head + index * entry)?;
            let (tag, kind) = (directory.number(at, 2)? as u16, directory.number(at + 2, 2)?);
            let size = match kind {
                1 | 2 | 6 | 7 => 1,
                3 | 8 => 2,
                4 | 9 | 11 | 13 => 4,
                5 | 10 | 12 | 16 | 17 | 18 => 8,
                _ => continue,
            };
            let count = directory.number(at + 4, word)?;
            let value_at = at + 4 + word;
            let is_inline = count.checked_mul(size as u64).is_some_and(|bytes| bytes <= word as u64);
            let value_at = if is_inline { value_at } else { usize::try_from(directory.number(value_at, word)?).ok()? };
            directory.fields.push(Field { tag, size, count, value_at });
        }
        Some(directory)
    }

    fn find(&self, tag: u16) -> Option<Field> {
        self.fields.iter().find(|field| field.tag == tag && field.count > 0).copied()
    }

    /// A whole number among a field's values.
    fn value(&self, field: &Field, index: u64) -> Option<u64> {
        let offset = usize::try_from(index).ok()?.checked_mul(field.size)?;
        self.number(field.value_at.checked_add(offset)?, field.size)
    }

    fn number(&self, at: usize, size: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(size)?)?;
        let digit = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(if self.is_little { bytes.iter().rev().fold(0, digit) } else { bytes.iter().fold(0, digit) })
    }
}
