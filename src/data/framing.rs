//! Making a picture look like those a model was trained on.
//!
//! A model for light things on black, such as one trained on Fashion-MNIST, sees nothing sensible
//! in a photo of dark trousers somewhere on a white page. So for a model that declares its
//! polarity, [`prepare`] does by steps what the makers of the data set did with their photos:
//!
//! 1. **Channels**: grey (luma of BT.601) or RGB, as the model takes them.
//! 2. **Polarity**: the background is the median of four squares in the corners, each a fourteenth
//!    of the shorter side. Where it is light and the model wants it dark, or the reverse, the
//!    picture is inverted. (The corners tell the 70,000 pictures of Fashion-MNIST without a
//!    mistake; a ring along the border is fooled by shirts that fill the frame.)
//! 3. A picture of exactly the model's size is a data set's picture: it is done, and unless it had
//!    to be inverted every bit is as it was.
//! 4. **Light**: a background that is nearly black or white, within 64 of 255, is made so
//!    throughout. The light on it is fitted along the border as a smooth surface, and the levels of
//!    every pixel are stretched from there.
//! 5. **The object**: the smallest box around all that differs from the background by more than
//!    16 of 255, or three times what nine tenths of the corners' pixels stay within. It is looked
//!    for on a copy of at most 256 pixels a side, where noise is averaged away, and there a row or
//!    column needs two such pixels; then its edges are taken from the picture itself.
//! 6. **Frame**: the box's longer side, relative to the model's size, takes the share of the frame that
//!    it takes in the pictures the model has learned from: all of it in Fashion-MNIST, 0.71 in MNIST.
//!    The box is centred, with the background around it. A picture of the model's proportions that is
//!    no larger than the model's size, or in which the object takes that share already, within 88 %,
//!    is taken whole.
//! 7. **Size**: the mean over the area of each pixel when shrinking, bilinear when enlarging.
//!    (Measured on 800 test pictures of Fashion-MNIST enlarged to 400x400 by cubic interpolation
//!    and brought back: root mean square error 8.6 with the area's mean, 13.5 with a triangle.)
//!
//! For a model of polarity `any` the picture is only converted and resized, as for training on
//! image folders.

use super::DataError;
use super::background::{Background, Light};
use super::picture::Picture;
use super::resize::{Shrink, Window, resize};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Longest side of the copy on which the object is looked for.
const SKETCH_SIDE: u32 = 256;
/// Sketches from this side on need two differing pixels in a row or column of the object.
const NOISE_SIDE: u32 = 64;
/// Share of the frame that the object fills in pictures that are framed already.
const FRAMED: f64 = 0.88;

/// Whether a model's pictures show light things on dark or dark things on light.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Polarity {
    /// Black background, as MNIST and Fashion-MNIST.
    LightOnDark,
    /// White background, as scanned pages.
    DarkOnLight,
    /// Natural pictures.
    Any,
}

/// What a model takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// How the model's pictures look.
    pub polarity: Polarity,
    /// Share of the frame that the longer side of what they show takes, in (0, 1].
    pub fill: f32,
}

/// The picture as a model takes it: `height * width * channels` bytes, channels interleaved. The
/// module's text says how.
///
/// Fails where the model takes neither 1 nor 3 channels, or has no size.
pub fn prepare(picture: &Picture, target: &Target) -> Result<Vec<u8>, DataError> {
    let size = (target.height, target.width);
    if target.height == 0 || target.width == 0 {
        return Err(DataError::Setting(format!("a model of {}x{} pixels takes no pictures", target.height, target.width)));
    }
    let is_exact = (picture.height as usize, picture.width as usize) == size;
    if target.polarity == Polarity::Any && !is_exact && picture.channels == target.channels {
        return Ok(resize(picture, Window::whole(picture), size, &[0; 3], Shrink::Triangle));
    }
    let mut picture = picture.with_channels(target.channels)?;
    if target.polarity == Polarity::Any {
        if is_exact {
            return Ok(picture.pixels);
        }
        return Ok(resize(&picture, Window::whole(&picture), size, &[0; 3], Shrink::Triangle));
    }
    let mut sketch = sketch(&picture);
    let wants_light = target.polarity == Polarity::DarkOnLight;
    if Background::of(&sketch).is_light() != wants_light {
        invert(&mut picture);
        invert(&mut sketch);
    }
    if is_exact {
        return Ok(picture.pixels);
    }
    let mut background = Background::of(&sketch);
    if background.needs_levelling() {
        let light = Light::of(&sketch, &background);
        light.level(&mut picture);
        light.level(&mut sketch);
        background = Background::of(&sketch);
    }
    let window = frame(&picture, &sketch, &background, size, f64::from(target.fill));
    Ok(resize(&picture, window, size, &background.color, Shrink::Area))
}

/// Swaps light and dark.
fn invert(picture: &mut Picture) {
    picture.pixels.iter_mut().for_each(|value| *value = 255 - *value);
}

/// A small copy of a picture; the picture itself where it is small.
pub(super) fn sketch(picture: &Picture) -> Picture {
    let longest = picture.width.max(picture.height);
    if longest <= SKETCH_SIDE {
        return picture.clone();
    }
    let shrunk = |side: u32| {
        let side = u64::from(side) * u64::from(SKETCH_SIDE) / u64::from(longest);
        side.max(1) as u32
    };
    let (width, height) = (shrunk(picture.width), shrunk(picture.height));
    let size = (height as usize, width as usize);
    Picture { width, height, channels: picture.channels, pixels: resize(picture, Window::whole(picture), size, &[0; 3], Shrink::Area) }
}

/// Share of a sketch's frame that what it shows takes along its longer side; `None` where it shows nothing.
pub(super) fn box_share(sketch: &Picture, background: &Background) -> Option<f64> {
    let (rows, columns) = object(sketch, background)?;
    let share = |range: Range<u32>, whole: u32| f64::from(range.end - range.start) / f64::from(whole);
    Some(share(rows, sketch.height).max(share(columns, sketch.width)))
}

/// The part of a picture that goes to the model.
fn frame(picture: &Picture, sketch: &Picture, background: &Background, (target_height, target_width): (usize, usize), fill: f64) -> Window {
    let (width, height) = (f64::from(picture.width), f64::from(picture.height));
    let (target_height, target_width) = (target_height as f64, target_width as f64);
    // The object's extent in the picture; all of it where nothing stands out.
    let (rows, columns) = match object(sketch, background) {
        Some(coarse) => refine(picture, sketch, background, coarse),
        None => (0..picture.height, 0..picture.width),
    };
    let (top, bottom) = (f64::from(rows.start), f64::from(rows.end));
    let (left, right) = (f64::from(columns.start), f64::from(columns.end));

    let same_proportions = width * target_height == height * target_width;
    let is_small = width <= target_width && height <= target_height;
    let filled = ((bottom - top) / height).max((right - left) / width);
    if same_proportions && (is_small || (FRAMED * fill..=fill / FRAMED).contains(&filled)) {
        return Window::whole(picture);
    }
    // Source pixels for one of the model's.
    let scale = ((bottom - top) / target_height).max((right - left) / target_width) / fill;
    let frame_width = (scale * target_width).round().max(1.0);
    let frame_height = (scale * target_height).round().max(1.0);
    Window {
        left: ((left + right - frame_width) / 2.0).round() as i64,
        top: ((top + bottom - frame_height) / 2.0).round() as i64,
        width: frame_width as u32,
        height: frame_height as u32,
    }
}

/// Rows and columns of the sketch that differ from the background; `None` where nothing does.
fn object(sketch: &Picture, background: &Background) -> Option<(Range<u32>, Range<u32>)> {
    let (width, height) = (sketch.width as usize, sketch.height as usize);
    let (mut by_row, mut by_column) = (vec![0u32; height], vec![0u32; width]);
    for (n, pixel) in sketch.pixels.chunks_exact(sketch.channels).enumerate() {
        if background.stands_out(pixel) {
            by_row[n / width] += 1;
            by_column[n % width] += 1;
        }
    }
    let needed = 1 + u32::from(sketch.width.min(sketch.height) >= NOISE_SIDE);
    let extent = |counts: &[u32]| {
        let first = counts.iter().position(|&count| count >= needed)?;
        let last = counts.iter().rposition(|&count| count >= needed)?;
        Some(first as u32..last as u32 + 1)
    };
    Some((extent(&by_row)?, extent(&by_column)?))
}

/// The sketch's rows and columns in the picture, each edge moved to where the picture itself begins
/// to differ, within one pixel of the sketch to either side.
fn refine(
    picture: &Picture,
    sketch: &Picture,
    background: &Background,
    (rows, columns): (Range<u32>, Range<u32>),
) -> (Range<u32>, Range<u32>) {
    let stands_out = |x: u32, y: u32| {
        let start = (y as usize * picture.width as usize + x as usize) * picture.channels;
        background.stands_out(&picture.pixels[start..start + picture.channels])
    };
    let whole_rows = scaled(&rows, sketch.height, picture.height);
    let whole_columns = scaled(&columns, sketch.width, picture.width);
    // About the picture's pixels along one of the sketch's; a speck has fewer in a line.
    let step = picture.height.div_ceil(sketch.height).max(picture.width.div_ceil(sketch.width));
    let needed = step as usize;
    let row_has_object = |y: u32| {
        let found = whole_columns.clone().filter(|&x| stands_out(x, y));
        found.take(needed).count() == needed
    };
    let column_has_object = |x: u32| {
        let found = whole_rows.clone().filter(|&y| stands_out(x, y));
        found.take(needed).count() == needed
    };
    (tighten(&whole_rows, step + 1, picture.height, row_has_object), tighten(&whole_columns, step + 1, picture.width, column_has_object))
}

/// A range of the sketch's lines, of which there are `from`, as lines of the picture, of which there
/// are `to`.
fn scaled(range: &Range<u32>, from: u32, to: u32) -> Range<u32> {
    let scale = |line: u32| f64::from(line) * f64::from(to) / f64::from(from);
    let start = scale(range.start).floor() as u32;
    let end = scale(range.end).ceil() as u32;
    start.min(to - 1)..end.clamp(1, to)
}

/// Moves each end of `range` by at most `step` lines, to the outermost line that has the object.
fn tighten(range: &Range<u32>, step: u32, len: u32, has_object: impl Fn(u32) -> bool) -> Range<u32> {
    let mut starts = range.start.saturating_sub(step)..(range.start + step).min(len);
    let ends = range.end.saturating_sub(step)..(range.end + step).min(len);
    let start = starts.find(|&line| has_object(line)).unwrap_or(range.start);
    let end = ends.rev().find(|&line| has_object(line)).map_or(range.end, |line| line + 1);
    if start < end { start..end } else { range.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GARMENT: Target = Target { height: 28, width: 28, channels: 1, polarity: Polarity::LightOnDark, fill: 1.0 };

    fn grey(width: u32, height: u32, at: impl Fn(u32, u32) -> u8) -> Picture {
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| at(x, y)).collect();
        Picture { width, height, channels: 1, pixels }
    }

    fn inverted(picture: &Picture) -> Picture {
        let mut picture = picture.clone();
        picture.pixels.iter_mut().for_each(|value| *value = 255 - *value);
        picture
    }

    /// A shirt that fills the frame: bright up to the border, dark corners, full of detail.
    fn shirt() -> Picture {
        grey(28, 28, |x, y| if (4..24).contains(&x) || (5..12).contains(&y) { (100 + (x * 37 + y * 91) % 150) as u8 } else { 0 })
    }

    #[test]
    fn data_set_pictures_are_not_touched_and_inverted_ones_come_back() {
        let picture = shirt();
        assert_eq!(prepare(&picture, &GARMENT).unwrap(), picture.pixels);
        assert_eq!(prepare(&inverted(&picture), &GARMENT).unwrap(), picture.pixels);
        let page = Target { polarity: Polarity::DarkOnLight, ..GARMENT };
        let dark = inverted(&picture);
        assert_eq!(prepare(&picture, &page).unwrap(), dark.pixels);
        assert_eq!(prepare(&dark, &page).unwrap(), dark.pixels);
        // Saved as RGB, it is the same picture.
        let rgb = picture.with_channels(3).unwrap();
        assert_eq!(prepare(&rgb, &GARMENT).unwrap(), picture.pixels);
    }

    #[test]
    fn an_enlarged_photo_with_margins_becomes_the_data_set_picture() {
        let picture = shirt();
        // Dark on a page of 253, each pixel 10 x 10, off centre on a sheet of 700 x 500.
        let photo = grey(700, 500, |x, y| match (x.checked_sub(310), y.checked_sub(90)) {
            (Some(x), Some(y)) if x < 280 && y < 280 => 253 - picture.pixels[(y / 10 * 28 + x / 10) as usize].min(253),
            _ => 253,
        });
        let prepared = prepare(&photo, &GARMENT).unwrap();
        for (n, (&a, &b)) in prepared.iter().zip(&picture.pixels).enumerate() {
            assert!(a.abs_diff(b) <= 6, "pixel {n}: {a} for {b}");
        }
    }

    #[test]
    fn a_tall_object_is_centred_and_fills_the_height() {
        let photo = grey(400, 600, |x, y| if (30..130).contains(&x) && (200..400).contains(&y) { 55 } else { 255 });
        let prepared = prepare(&photo, &GARMENT).unwrap();
        for (n, &value) in prepared.iter().enumerate() {
            let (x, y) = (n % 28, n / 28);
            let expected = if (7..21).contains(&x) { 200 } else { 0 };
            // The sketch finds edges to within a pixel or two of the photo.
            let at_edge = [0, 6, 7, 20, 21, 27].contains(&x) || [0, 27].contains(&y);
            assert!(at_edge || value == expected, "{x}, {y}: {value}");
        }
        assert!(prepared[..28].iter().any(|&value| value > 100), "the top is filled");
        assert!(prepared[27 * 28..].iter().any(|&value| value > 100), "the bottom is filled");
    }

    #[test]
    fn an_object_takes_the_share_that_the_model_knows() {
        let photo = grey(600, 400, |x, y| if (100..300).contains(&x) && (50..250).contains(&y) { 30 } else { 255 });
        let prepared = prepare(&photo, &Target { fill: 0.5, ..GARMENT }).unwrap();
        for (n, &value) in prepared.iter().enumerate() {
            let is_inside = |at: usize| (8..20).contains(&at);
            let is_outside = |at: usize| !(6..22).contains(&at);
            let (x, y) = (n % 28, n / 28);
            assert!(!(is_inside(x) && is_inside(y)) || value == 225, "{x}, {y}: {value}");
            assert!(!(is_outside(x) || is_outside(y)) || value == 0, "{x}, {y}: {value}");
        }
        // What takes it already is taken whole.
        let framed = grey(280, 280, |x, y| if (60..200).contains(&x) && (80..220).contains(&y) { 200 } else { 0 });
        let whole = resize(&framed, Window::whole(&framed), (28, 28), &[0], Shrink::Area);
        assert_eq!(prepare(&framed, &Target { fill: 0.5, ..GARMENT }).unwrap(), whole);
    }

    #[test]
    fn specks_and_noise_are_not_the_object() {
        let noise = |x: u32, y: u32| ((x * 7919 + y * 104_729) % 7) as u8;
        let object = |x: u32, y: u32| (300..700).contains(&x) && (400..800).contains(&y);
        let clean = grey(1000, 1200, |x, y| if object(x, y) { 40 } else { 248 });
        let noisy = grey(1000, 1200, |x, y| match (x, y) {
            (100..102, 50..52) => 90,
            _ if object(x, y) => 40 + noise(x, y),
            _ => 245 + noise(x, y),
        });
        let (clean, noisy) = (prepare(&clean, &GARMENT).unwrap(), prepare(&noisy, &GARMENT).unwrap());
        for (n, (&a, &b)) in clean.iter().zip(&noisy).enumerate() {
            assert!(a.abs_diff(b) <= 8, "pixel {n}: {a} and {b}");
        }
    }

    #[test]
    fn uneven_light_is_not_the_object() {
        let photo = grey(300, 300, |x, y| {
            if (100..200).contains(&x) && (100..200).contains(&y) {
                30
            } else {
                // Brighter in the middle by 40.
                (250 - x.abs_diff(150).max(y.abs_diff(150)) * 40 / 150) as u8
            }
        });
        let prepared = prepare(&photo, &GARMENT).unwrap();
        assert!(prepared.iter().all(|&value| value > 200));
    }

    #[test]
    fn small_and_already_framed_pictures_are_taken_whole() {
        let picture = grey(14, 14, |x, _| if (4..9).contains(&x) { 200 } else { 0 });
        let whole = resize(&picture, Window::whole(&picture), (28, 28), &[0], Shrink::Area);
        assert_eq!(prepare(&picture, &GARMENT).unwrap(), whole);
        let framed = grey(280, 280, |x, y| if (10..260).contains(&y) && (100..200).contains(&x) { 200 } else { 0 });
        let prepared = prepare(&framed, &GARMENT).unwrap();
        assert_eq!(prepared[28 + 15], 200);
        assert_eq!(prepared[15], 0);
    }

    #[test]
    fn blank_and_extreme_pictures_give_something() {
        for (width, height) in [(1, 1), (1, 3000), (3000, 1), (50, 50)] {
            for value in [0, 128, 255] {
                let picture = grey(width, height, |_, _| value);
                assert_eq!(prepare(&picture, &GARMENT).unwrap().len(), 784);
            }
        }
        let colour = Target { channels: 3, polarity: Polarity::Any, ..GARMENT };
        let stripe = grey(3000, 2, |x, _| (x / 12) as u8);
        let prepared = prepare(&stripe, &colour).unwrap();
        assert_eq!(prepared.len(), 784 * 3);
        assert!(prepared[..84].is_sorted());
        let four = Target { channels: 4, ..GARMENT };
        assert!(prepare(&stripe, &four).is_err());
    }

    #[test]
    fn polarity_has_the_names_of_the_metadata() {
        for (polarity, name) in
            [(Polarity::LightOnDark, "\"light-on-dark\""), (Polarity::DarkOnLight, "\"dark-on-light\""), (Polarity::Any, "\"any\"")]
        {
            assert_eq!(serde_json::to_string(&polarity).unwrap(), name);
        }
    }
}
