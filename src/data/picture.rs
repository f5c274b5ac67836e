//! One picture of whatever kind, as 8-bit grey or RGB.
//!
//! The format is told from the content; only TGA, which has no signature, is told from the name as well. Orientation (EXIF,
//! XMP) is applied, alpha is laid on white, 16-bit and floating-point samples become 8-bit, CMYK becomes RGB, and of an
//! animation the first picture is taken. Sizes are read and judged before any pixel is decoded, and pictures of more than 100
//! megapixels are halved, one at a time. A decoder that panics costs its picture only.

mod contained;
mod foreign;
mod icon;
mod jpeg;
mod orientation;
mod tiff;

use super::DataError;
use crate::errors::path_text;
use contained::contained;
pub use foreign::by_name as foreign_kind;
use image::codecs::tga::TgaDecoder;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most pixels of a picture: 200 megapixels.
const MAX_PIXELS: u64 = 200_000_000;
/// Pictures with more pixels are halved.
const KEPT_PIXELS: u64 = 100_000_000;
/// Longest side of a picture.
const MAX_SIDE: u32 = 65_535;
/// Most bytes of a picture, as a file and decoded.
const MAX_BYTES: u64 = 640 << 20;
/// Pictures that take more bytes decoded are decoded one at a time.
const MANY_BYTES: u64 = 256 << 20;
/// Bytes of a file in which its picture's size is looked for first.
const HEADER_BYTES: u64 = 256 << 10;
/// What stands for standard input in messages.
pub const STDIN_NAME: &str = "-";

/// What can be read, for messages.
const FORMATS: &str = "PNG, JPEG, GIF, WebP, BMP, TIFF, PNM, TGA and ICO are read";

/// Name endings by which pictures are picked from a folder (their content decides how they are
/// read).
const EXTENSIONS: [&str; 24] = [
    "png", "apng", "jpg", "jpeg", "jpe", "jfif", "jfi", "jif", "pjpeg", "pjp", "gif", "webp", "bmp", "dib", "tif", "tiff", "ppm", "pgm",
    "pbm", "pnm", "pam", "tga", "ico", "cur",
];

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
    let name = path_text(path);
    let explain = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => refuse(&name, &missing(path)),
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

/// What is wrong with a path that leads nowhere.
pub(super) fn missing(path: &Path) -> String {
    match std::fs::read_link(path) {
        Ok(target) => format!("is a link to {}, which is not there; mend or remove it", path_text(&target)),
        Err(_) => "no such file; check the path".into(),
    }
}

/// Width and height of a picture from its header, before its orientation is applied. No pixel is decoded.
pub fn size(path: &Path) -> Result<(u32, u32), DataError> {
    let name = path_text(path);
    let mut file = File::open(path).map_err(|error| DataError::read(path, error))?;
    let mut bytes = read_all(&name, &mut file.by_ref().take(HEADER_BYTES))?;
    match size_of(&name, &bytes) {
        // A TIFF's directory may lie at its end, and an embedded preview before a JPEG's size.
        Err(_) if bytes.len() as u64 == HEADER_BYTES => {
            bytes.extend(read_all(&name, &mut file)?);
            size_of(&name, &bytes)
        }
        found => found,
    }
}

/// From memory, as pictures are decoded: the decoders are compiled once for each kind of reader.
fn size_of(name: &str, bytes: &[u8]) -> Result<(u32, u32), DataError> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| DataError::read(Path::new(name), error))?;
    if reader.format() == Some(ImageFormat::Tiff) {
        return within(name, || tiff::size(bytes).map_err(|error| broken_tiff(name, error)));
    }
    within(name, || reader.into_dimensions().map_err(|error| broken(name, &error)))
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

/// Reads a picture from the bytes of a file; `name` is for messages, and for pictures that cannot be told by their content.
pub fn decode(name: &str, bytes: &[u8]) -> Result<Picture, DataError> {
    if bytes.is_empty() {
        return Err(refuse(name, "is empty (0 bytes); fetch or save it again"));
    }
    within(name, || decode_any(name, bytes))
}

/// What a decoder comes to, its panics included.
fn within<T>(name: &str, work: impl FnOnce() -> Result<T, DataError>) -> Result<T, DataError> {
    contained(work).unwrap_or_else(|panic| {
        let reason = crate::errors::one_line(&panic, 100);
        Err(refuse(name, &format!("cannot be decoded (its decoder gave up: {reason}); save it again as PNG or JPEG")))
    })
}

fn decode_any(name: &str, bytes: &[u8]) -> Result<Picture, DataError> {
    let format = match image::guess_format(bytes) {
        Ok(format) if format.reading_enabled() => format,
        _ if icon::is_cursor(bytes) => ImageFormat::Ico,
        // The larger offsets of BigTIFF come with another signature.
        _ if bytes.starts_with(b"II+\0") || bytes.starts_with(b"MM\0+") => ImageFormat::Tiff,
        Err(_) if is_tga(name, bytes) => ImageFormat::Tga,
        _ => return Err(unknown_format(name, bytes)),
    };
    match format {
        ImageFormat::Png => decode_known(name, &with_png_end(bytes), format),
        ImageFormat::Tiff => match tiff::special_kind(bytes) {
            Some(kind) => decode_tiff(name, bytes, &kind),
            None => decode_known(name, bytes, format),
        },
        ImageFormat::Ico => match icon::largest(bytes) {
            Some(icon::Entry::Png(png)) => decode_known(name, &with_png_end(&png), ImageFormat::Png),
            Some(icon::Entry::Icon(icon)) => decode_known(name, &icon, format).or_else(|error| match icon::bitmap(&icon) {
                Some(bitmap) => decode_known(name, &bitmap, ImageFormat::Bmp),
                None => Err(error),
            }),
            None => Err(cut_short(name)),
        },
        _ => decode_known(name, bytes, format),
    }
}

fn decode_known(name: &str, bytes: &[u8], format: ImageFormat) -> Result<Picture, DataError> {
    let broken = |error: ImageError| broken(name, &error);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_BYTES);
    if format == ImageFormat::Tga {
        let mut decoder = TgaDecoder::new(Cursor::new(bytes)).map_err(broken)?;
        decoder.set_limits(limits).map_err(broken)?;
        return finish(name, decoder, format);
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(broken)?;
    if format == ImageFormat::Jpeg {
        let (width, height) = decoder.dimensions();
        check_size(name, width, height, decoder.total_bytes())?;
        let is_whole = match jpeg::scans(bytes) {
            jpeg::Scans::Whole => true,
            jpeg::Scans::Short => false,
            jpeg::Scans::Unknown => jpeg_reaches_its_end(bytes),
        };
        if !is_whole {
            return Err(cut_short(name));
        }
    }
    finish(name, decoder, format)
}

/// Decodes, turns the picture upright and lays it on white.
fn finish(name: &str, mut decoder: impl ImageDecoder, format: ImageFormat) -> Result<Picture, DataError> {
    let (width, height) = decoder.dimensions();
    let bytes = decoder.total_bytes();
    check_size(name, width, height, bytes)?;
    // A picture without readable orientation is taken as upright.
    let orientation = orientation::of(&mut decoder);
    let _turn = turn(bytes);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| broken(name, &error))?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok(halved(flatten(image, format)))
}

fn decode_tiff(name: &str, bytes: &[u8], kind: &tiff::Kind) -> Result<Picture, DataError> {
    let broken = |error| broken_tiff(name, error);
    let (width, height) = tiff::size(bytes).map_err(broken)?;
    let estimate = u64::from(width) * u64::from(height) * 4;
    check_size(name, width, height, estimate)?;
    let _turn = turn(estimate);
    let tiff::Samples { width, height, channels, pixels } = tiff::decode(bytes, kind, MAX_BYTES as usize).map_err(broken)?;
    let picture = Picture { width, height, channels, pixels };
    Ok(halved(match tiff::orientation(bytes) {
        Some(orientation) => turned(name, picture, orientation)?,
        None => picture,
    }))
}

/// A picture turned upright.
fn turned(name: &str, picture: Picture, orientation: image::metadata::Orientation) -> Result<Picture, DataError> {
    let Picture { width, height, channels, pixels } = picture;
    let image = match channels {
        1 => image::GrayImage::from_raw(width, height, pixels).map(DynamicImage::from),
        _ => image::RgbImage::from_raw(width, height, pixels).map(DynamicImage::from),
    };
    let mut image = image.ok_or_else(|| cut_short(name))?;
    image.apply_orientation(orientation);
    Ok(flatten(image, ImageFormat::Tiff))
}

/// The right to decode a picture of so many bytes, which large ones have one after another.
fn turn(bytes: u64) -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    (bytes > MANY_BYTES).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A picture with too many pixels to be kept, at half its width and height: the mean of each four pixels.
fn halved(picture: Picture) -> Picture {
    let Picture { width, height, channels, mut pixels } = picture;
    if u64::from(width) * u64::from(height) <= KEPT_PIXELS || width < 2 || height < 2 {
        return Picture { width, height, channels, pixels };
    }
    let (half_width, half_height, row) = (width as usize / 2, height as usize / 2, width as usize * channels);
    for y in 0..half_height {
        for x in 0..half_width * channels {
            let from = 2 * y * row + x / channels * 2 * channels + x % channels;
            let sum: u16 = [from, from + channels, from + row, from + row + channels].iter().map(|at| u16::from(pixels[*at])).sum();
            // What is written was read before: it lies before every pixel that is still to come.
            pixels[y * half_width * channels + x] = ((sum + 2) / 4) as u8;
        }
    }
    pixels.truncate(half_width * half_height * channels);
    pixels.shrink_to_fit();
    Picture { width: half_width as u32, height: half_height as u32, channels, pixels }
}

/// A PNG with an end: decoders want it, though nothing is in it.
fn with_png_end(bytes: &[u8]) -> Cow<'_, [u8]> {
    const END: &[u8] = b"\0\0\0\0IEND\xaeB`\x82";
    let mut at = 8;
    while let Some(&[a, b, c, d, ref kind @ ..]) = bytes.get(at..at + 8) {
        if kind == b"IEND" {
            if bytes[at..].starts_with(END) {
                return bytes.into();
            }
            break;
        }
        at = at.saturating_add(12).saturating_add(u32::from_be_bytes([a, b, c, d]) as usize);
    }
    // Within a chunk the picture is cut short.
    if at > bytes.len() { bytes.into() } else { [&bytes[..at], END].concat().into() }
}

/// Whether content without a signature is TGA: by its footer, or by its name and a header that makes sense.
fn is_tga(name: &str, bytes: &[u8]) -> bool {
    if bytes.ends_with(b"TRUEVISION-XFILE.\0") {
        return true;
    }
    let is_named = name.rsplit_once('.').is_some_and(|(_, ending)| ["tga", "vda", "icb", "vst"].contains(&&*ending.to_lowercase()));
    is_named
        && bytes.len() > 18
        && bytes[1] <= 1
        && matches!(bytes[2], 1..=3 | 9..=11)
        && matches!(bytes[16], 8 | 15 | 16 | 24 | 32)
        && bytes[12..16] != [0; 4]
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
///
/// A bitmap that would be transparent throughout has no alpha: its writer left those bits unused.
fn flatten(image: DynamicImage, format: ImageFormat) -> Picture {
    let (width, height) = (image.width(), image.height());
    let color = image.color();
    let (channels, pixels) = match (color.has_color(), color.has_alpha()) {
        (false, false) => (1, image.into_luma8().into_raw()),
        (false, true) => (1, on_white(image.into_luma_alpha8().into_raw(), 1, false)),
        (true, false) => (3, image.into_rgb8().into_raw()),
        (true, true) => {
            let mut pixels = image.into_rgba8().into_raw();
            let is_bitmap = matches!(format, ImageFormat::Bmp | ImageFormat::Ico | ImageFormat::Tga);
            if is_bitmap && pixels.chunks_exact(4).all(|pixel| pixel[3] == 0) {
                pixels.chunks_exact_mut(4).for_each(|pixel| pixel[3] = 255);
            }
            (3, on_white(pixels, 3, false))
        }
    };
    Picture { width, height, channels, pixels }
}

/// Lays pixels of so many channels, with alpha behind them, on white. Works in place.
fn on_white(mut pixels: Vec<u8>, channels: usize, is_premultiplied: bool) -> Vec<u8> {
    let count = pixels.len() / (channels + 1);
    for n in 0..count {
        let alpha = u32::from(pixels[n * (channels + 1) + channels]);
        for sample in 0..channels {
            let value = u32::from(pixels[n * (channels + 1) + sample]);
            let share = if is_premultiplied { value * 255 } else { value * alpha };
            let mixed = (share + 255 * (255 - alpha) + 127) / 255;
            pixels[n * channels + sample] = mixed.min(255) as u8;
        }
    }
    pixels.truncate(count * channels);
    pixels
}

/// Whether a JPEG stream whose scans are not followed has its end marker.
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

fn broken_tiff(name: &str, error: ::tiff::TiffError) -> DataError {
    match error {
        ::tiff::TiffError::IoError(error) => broken(name, &ImageError::IoError(error)),
        error => {
            refuse(name, &format!("cannot be decoded ({}); save it again as PNG or JPEG", error.to_string().replace(['\n', '\r'], " ")))
        }
    }
}

/// The message for content of no known kind, with what it seems to be.
fn unknown_format(name: &str, bytes: &[u8]) -> DataError {
    let (seems, convert) = foreign::describe(bytes);
    let seems = if seems.starts_with("it") { seems.to_owned() } else { format!("it is {seems}") };
    let advice =
        convert.map_or("save it as PNG or JPEG".into(), |command| format!("convert it to PNG or JPEG, for example with: {command}"));
    refuse(name, &format!("not a picture that can be read ({seems}); {FORMATS}: {advice}"))
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;

#[cfg(test)]
mod format_tests;
