//! One picture of whatever kind, as 8-bit grey or RGB.
//!
//! The format is told from the content, never from the name. Orientation (EXIF) is applied, alpha
//! is laid on white, 16-bit and floating-point samples become 8-bit, CMYK becomes RGB, and of an
//! animation the first picture is taken. Sizes are read and judged before any pixel is decoded.

use super::DataError;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

/// Most pixels of a picture: 100 megapixels.
const MAX_PIXELS: u64 = 100_000_000;
/// Longest side of a picture.
const MAX_SIDE: u32 = 65_535;
/// Most bytes of a picture, as a file and decoded.
const MAX_BYTES: u64 = 512 << 20;
/// What stands for standard input in messages.
pub const STDIN_NAME: &str = "-";

/// What can be read, for messages.
const FORMATS: &str = "PNG, JPEG, GIF, WebP, BMP, TIFF, PNM and ICO are read";

/// Name endings by which pictures are picked from a folder (their content decides how they are
/// read).
const EXTENSIONS: [&str; 14] = ["png", "apng", "jpg", "jpeg", "jpe", "jfif", "gif", "webp", "bmp", "tif", "tiff", "ppm", "pgm", "ico"];

/// An upright picture of 8-bit samples without alpha.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels, at least 1.
    pub width: u32,
    /// Height in pixels, at least 1.
    pub height: u32,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// Row by row, channels interleaved: `height * width * channels` bytes.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// The same picture in grey (1) or RGB (3); luma as in ITU-R BT.601.
    ///
    /// Fails for another number of channels.
    pub fn with_channels(&self, channels: usize) -> Result<Self, DataError> {
        let pixels = match (self.channels, channels) {
            (1, 1) | (3, 3) => self.pixels.clone(),
            (3, 1) => self.pixels.chunks_exact(3).map(|rgb| luma(rgb[0], rgb[1], rgb[2])).collect(),
            (1, 3) => self.pixels.iter().flat_map(|&grey| [grey; 3]).collect(),
            _ => {
                return Err(DataError::Setting(format!(
                    "pictures have 1 or 3 channels, but {channels} are wanted: \
                     this model takes prepared data only"
                )));
            }
        };
        Ok(Self { width: self.width, height: self.height, channels, pixels })
    }
}

impl Picture {
    /// Whether more than one pixel in a hundred is coloured beyond what compression makes of grey.
    pub fn shows_colour(&self) -> bool {
        const TINT: u8 = 16;
        let is_coloured = |rgb: &&[u8]| rgb.iter().max().zip(rgb.iter().min()).is_some_and(|(most, least)| most - least > TINT);
        self.channels == 3 && self.pixels.chunks_exact(3).filter(is_coloured).count() * 100 > self.pixels.len() / 3
    }
}

/// Brightness of a colour: 0.299 R + 0.587 G + 0.114 B, rounded. Equal components keep their value.
pub(super) fn luma(red: u8, green: u8, blue: u8) -> u8 {
    let sum = 299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue);
    ((sum + 500) / 1000) as u8
}

/// Whether a file's name ends as a picture's does.
pub fn has_picture_name(path: &Path) -> bool {
    path.extension().is_some_and(|ending| EXTENSIONS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// Reads a picture from a file.
pub fn open(path: &Path) -> Result<Picture, DataError> {
    let name = path.display().to_string();
    let explain = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => refuse(&name, "no such file; check the path"),
        io::ErrorKind::IsADirectory => refuse(&name, "is a folder, not a picture"),
        _ => DataError::read(path, error),
    };
    let about = std::fs::metadata(path).map_err(explain)?;
    if about.is_dir() {
        return Err(refuse(&name, "is a folder, not a picture"));
    }
    if about.len() > MAX_BYTES {
        return Err(too_many_bytes(&name));
    }
    let mut file = File::open(path).map_err(explain)?;
    let bytes = read_all(&name, &mut file)?;
    decode(&name, &bytes)
}

/// Width and height of a picture from its header, before its orientation is applied. No pixel is decoded.
pub fn size(path: &Path) -> Result<(u32, u32), DataError> {
    let name = path.display().to_string();
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(|error| DataError::read(path, error))?;
    reader.into_dimensions().map_err(|error| broken(&name, &error))
}

/// Reads a picture from standard input.
pub fn read_stdin() -> Result<Picture, DataError> {
    let bytes = read_all(STDIN_NAME, &mut io::stdin().lock())?;
    decode(STDIN_NAME, &bytes)
}

fn read_all(name: &str, reader: &mut dyn Read) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    reader.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| DataError::read(Path::new(name), error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(too_many_bytes(name));
    }
    Ok(bytes)
}

/// Reads a picture from the bytes of a file; `name` is for messages.
pub fn decode(name: &str, bytes: &[u8]) -> Result<Picture, DataError> {
    if bytes.is_empty() {
        return Err(refuse(name, "is empty (0 bytes); fetch or save it again"));
    }
    let broken = |error: image::ImageError| broken(name, &error);
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| DataError::read(Path::new(name), error))?;
    let format = reader.format().ok_or_else(|| unknown_format(name, bytes))?;
    if !format.reading_enabled() {
        return Err(unknown_format(name, bytes));
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    check_size(name, width, height, decoder.total_bytes())?;
    if format == ImageFormat::Jpeg && !jpeg_reaches_its_end(bytes) {
        return Err(cut_short(name));
    }
    // A picture without readable orientation is taken as upright.
    let orientation = decoder.orientation().ok();
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok(flatten(image))
}

/// Refuses sizes that are none, or that would take too much memory.
fn check_size(name: &str, width: u32, height: u32, bytes: u64) -> Result<(), DataError> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(refuse(name, "has no pixels; save it again"));
    }
    if pixels > MAX_PIXELS || width.max(height) > MAX_SIDE || bytes > MAX_BYTES {
        return Err(refuse(
            name,
            &format!(
                "{width} x {height} pixels is too large: pictures of up to {} megapixels, \
                 {MAX_SIDE} pixels a side and {} MiB decoded are read; make it smaller",
                MAX_PIXELS / 1_000_000,
                MAX_BYTES >> 20
            ),
        ));
    }
    Ok(())
}

/// Grey or RGB samples of 8 bits, with alpha laid on white.
fn flatten(image: DynamicImage) -> Picture {
    let (width, height) = (image.width(), image.height());
    let color = image.color();
    let (channels, pixels) = match (color.has_color(), color.has_alpha()) {
        (false, false) => (1, image.into_luma8().into_raw()),
        (false, true) => (1, on_white::<2>(image.into_luma_alpha8().into_raw())),
        (true, false) => (3, image.into_rgb8().into_raw()),
        (true, true) => (3, on_white::<4>(image.into_rgba8().into_raw())),
    };
    Picture { width, height, channels, pixels }
}

/// Lays pixels of `N` samples, the last of them alpha, on white. Works in place.
fn on_white<const N: usize>(mut pixels: Vec<u8>) -> Vec<u8> {
    let count = pixels.len() / N;
    for n in 0..count {
        let alpha = u32::from(pixels[n * N + N - 1]);
        for sample in 0..N - 1 {
            let value = u32::from(pixels[n * N + sample]);
            let mixed = (value * alpha + 255 * (255 - alpha) + 127) / 255;
            pixels[n * (N - 1) + sample] = mixed as u8;
        }
    }
    pixels.truncate(count * (N - 1));
    pixels
}

/// Whether a JPEG stream has its end marker: the decoder fills what is missing with grey.
///
/// Only what follows the first scan header counts, so that the end of a thumbnail does not.
fn jpeg_reaches_its_end(bytes: &[u8]) -> bool {
    const SCAN: u8 = 0xda;
    let mut position = 2;
    while let Some(&[0xff, marker, high, low]) = bytes.get(position..position + 4) {
        if marker == SCAN {
            break;
        }
        // Fill bytes before a marker have no length.
        position += match marker {
            0xff => 1,
            _ => 2 + usize::from(u16::from_be_bytes([high, low])),
        };
    }
    bytes.get(position..).is_some_and(|rest| rest.windows(2).rev().any(|pair| pair == [0xff, 0xd9]))
}

fn refuse(name: &str, problem: &str) -> DataError {
    DataError::Picture { name: name.to_owned(), problem: problem.to_owned() }
}

fn too_many_bytes(name: &str) -> DataError {
    let problem = format!("is larger than {} MiB; make it smaller", MAX_BYTES >> 20);
    refuse(name, &problem)
}

fn cut_short(name: &str) -> DataError {
    refuse(name, "the picture is cut short; fetch or save it again")
}

/// The message for a decoder's error.
fn broken(name: &str, error: &image::ImageError) -> DataError {
    if let image::ImageError::IoError(error) = error
        && error.kind() == io::ErrorKind::UnexpectedEof
    {
        return cut_short(name);
    }
    let reason = error.to_string().replace(['\n', '\r'], " ");
    refuse(name, &format!("cannot be decoded ({reason}); save it again as PNG or JPEG"))
}

/// The message for content of no known kind, with what it seems to be.
fn unknown_format(name: &str, bytes: &[u8]) -> DataError {
    let start = &bytes[..bytes.len().min(512)];
    let brand = bytes.get(4..12).unwrap_or_default();
    // A multi-byte character may be cut at the end of the excerpt.
    let is_text = !start.contains(&0) && std::str::from_utf8(start).map_or_else(|e| e.error_len().is_none(), |_| true);
    let seems = match brand {
        b"ftypheic" | b"ftypheix" | b"ftypmif1" | b"ftypmsf1" => "it is HEIC",
        b"ftypavif" | b"ftypavis" => "it is AVIF",
        _ if start.starts_with(b"%PDF") => "it is PDF",
        _ if is_text => "it looks like text",
        _ => "its content is unknown",
    };
    refuse(name, &format!("not a picture that can be read ({seems}); {FORMATS}: save it as PNG or JPEG"))
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
