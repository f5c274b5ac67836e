//! The background of a picture of one thing: its colour, its noise, and its uneven light.

use super::picture::{Picture, luma};
use rayon::prelude::*;

/// Least difference from the background, of 255, that counts as the object.
const LEAST_DIFFERENCE: u8 = 16;
/// Highest value that the threshold takes where the corners are noisy.
const MOST_DIFFERENCE: u8 = 64;
/// A background this close to black or white is meant to be it.
const NEAR_END: u8 = 64;
/// Most that the light may differ from the corners', in either direction.
const MOST_UNEVEN: f64 = 40.0;
/// Rounds of the fit of the light; it settles within a few.
const FIT_ROUNDS: usize = 8;

/// What the corners of a picture look like: four squares, each a fourteenth of the shorter side.
#[derive(Clone, Debug)]
pub(super) struct Background {
    /// Median of the corners' pixels by channel.
    pub color: Vec<u8>,
    /// Nine tenths of the corners' pixels differ by no more than this from `color`.
    spread: u8,
}

impl Background {
    /// The background of a picture.
    pub fn of(picture: &Picture) -> Self {
        let corners: Vec<&[u8]> = edge_pixels(picture).filter(|edge| edge.is_corner).map(|edge| edge.pixel).collect();
        let color: Vec<u8> =
            (0..picture.channels).map(|channel| quantile(corners.iter().map(|pixel| pixel[channel]).collect(), 0.5)).collect();
        let differences = corners.iter().map(|pixel| {
            let by_channel = pixel.iter().zip(&color).map(|(a, b)| a.abs_diff(*b));
            by_channel.max().unwrap_or(0)
        });
        let spread = quantile(differences.collect(), 0.9);
        Self { color, spread }
    }

    /// Whether it is closer to white than to black.
    pub fn is_light(&self) -> bool {
        let brightness = match self.color[..] {
            [red, green, blue] => luma(red, green, blue),
            [grey, ..] => grey,
            [] => 0,
        };
        brightness >= 128
    }

    /// Whether a pixel differs enough to belong to the object.
    pub fn stands_out(&self, pixel: &[u8]) -> bool {
        let threshold = self.spread.saturating_mul(3);
        let threshold = threshold.clamp(LEAST_DIFFERENCE, MOST_DIFFERENCE);
        let mut values = pixel.iter().zip(&self.color);
        values.any(|(&value, &background)| value.abs_diff(background) > threshold)
    }

    /// Whether it is nearly black or white, and the same in all corners.
    pub fn is_plain(&self) -> bool {
        const NEAR: u8 = 32;
        let end = if self.is_light() { 255 } else { 0 };
        self.spread <= NEAR && self.color.iter().all(|value| value.abs_diff(end) <= NEAR)
    }

    /// Whether it is nearly, but not exactly, black or white throughout.
    pub fn needs_levelling(&self) -> bool {
        let end = if self.is_light() { 255 } else { 0 };
        let is_clean = self.spread == 0 && self.color.iter().all(|&value| value == end);
        !is_clean && self.color.iter().all(|value| value.abs_diff(end) < NEAR_END)
    }
}

/// The light on a picture's background, as a smooth surface: by channel the factors of
/// 1, u, v and u² + v², with u and v from -1 to 1 across the picture.
pub(super) struct Light {
    factors: Vec<[f64; 4]>,
    /// Value by channel that the surface stays near.
    color: Vec<u8>,
    is_light: bool,
}

impl Light {
    /// Fits the light to a picture's border, a fourteenth of the shorter side wide: least absolute
    /// deviations, by least squares with repeated weighting, so that an object that reaches into
    /// less than half of the border does not count.
    pub fn of(picture: &Picture, background: &Background) -> Self {
        let fit = |channel: usize| {
            let color = f64::from(background.color[channel]);
            let samples: Vec<([f64; 4], f64)> = edge_pixels(picture)
                .map(|edge| (edge.terms, f64::from(edge.pixel[channel])))
                .filter(|(_, value)| (value - color).abs() <= MOST_UNEVEN)
                .collect();
            let mut factors = [color, 0.0, 0.0, 0.0];
            for _ in 0..FIT_ROUNDS {
                factors = weighted_fit(&samples, &factors).unwrap_or(factors);
            }
            factors
        };
        Self { factors: (0..picture.channels).map(fit).collect(), color: background.color.clone(), is_light: background.is_light() }
    }

    /// Makes the background of a picture of the same scene black or white throughout: the levels of
    /// each pixel are stretched from the light there to the other end.
    pub fn level(&self, picture: &mut Picture) {
        let (width, height) = (picture.width as usize, picture.height as usize);
        let channels = picture.channels;
        let rows = picture.pixels.par_chunks_exact_mut(width * channels);
        rows.enumerate().for_each(|(y, row)| {
            for (x, pixel) in row.chunks_exact_mut(channels).enumerate() {
                let terms = terms(x, y, width, height);
                for (channel, value) in pixel.iter_mut().enumerate() {
                    *value = self.levelled(channel, &terms, *value);
                }
            }
        });
    }

    fn levelled(&self, channel: usize, terms: &[f64; 4], value: u8) -> u8 {
        let flip = |value: f64| if self.is_light { 255.0 - value } else { value };
        let color = f64::from(self.color[channel]);
        let light = dot(&self.factors[channel], terms);
        let light = light.clamp(color - MOST_UNEVEN, color + MOST_UNEVEN);
        let low = flip(light).max(0.0);
        let level = (flip(f64::from(value)) - low).max(0.0) * 255.0 / (255.0 - low);
        flip(level).round() as u8
    }
}

/// A pixel of a picture's border.
struct EdgePixel<'a> {
    pixel: &'a [u8],
    is_corner: bool,
    terms: [f64; 4],
}

/// The pixels of the border, a fourteenth of the shorter side wide.
fn edge_pixels(picture: &Picture) -> impl Iterator<Item = EdgePixel<'_>> {
    let (width, height) = (picture.width as usize, picture.height as usize);
    let side = ((width.min(height) + 7) / 14).max(1);
    let is_edge = move |n: usize, len: usize| n < side || n + side >= len;
    let pixels = picture.pixels.chunks_exact(picture.channels).enumerate();
    pixels.filter_map(move |(n, pixel)| {
        let (x, y) = (n % width, n / width);
        let (at_side, at_end) = (is_edge(x, width), is_edge(y, height));
        (at_side || at_end).then(|| EdgePixel { pixel, is_corner: at_side && at_end, terms: terms(x, y, width, height) })
    })
}

/// The surface's terms at a pixel: 1, u, v, u² + v².
fn terms(x: usize, y: usize, width: usize, height: usize) -> [f64; 4] {
    let u = (2 * x + 1) as f64 / width as f64 - 1.0;
    let v = (2 * y + 1) as f64 / height as f64 - 1.0;
    [1.0, u, v, u * u + v * v]
}

fn dot(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Least squares with each sample weighted by the inverse of its deviation from the last fit;
/// `None` where the samples do not determine the factors.
fn weighted_fit(samples: &[([f64; 4], f64)], last: &[f64; 4]) -> Option<[f64; 4]> {
    // Normal equations, the right-hand side as a fifth column.
    let mut rows = [[0.0; 5]; 4];
    for (terms, value) in samples {
        let weight = 1.0 / (value - dot(last, terms)).abs().max(1.0);
        for (row, left) in rows.iter_mut().zip(terms) {
            for (cell, right) in row.iter_mut().zip(terms.iter().chain([value])) {
                *cell += weight * left * right;
            }
        }
    }
    solve(rows)
}

/// Solves four equations by Gauss-Jordan elimination with row pivots.
fn solve(mut rows: [[f64; 5]; 4]) -> Option<[f64; 4]> {
    for column in 0..4 {
        let pivot = (column..4).max_by(|&a, &b| {
            let (a, b) = (rows[a][column].abs(), rows[b][column].abs());
            a.total_cmp(&b)
        })?;
        rows.swap(column, pivot);
        let lead = rows[column];
        if lead[column].abs() < 1e-9 {
            return None;
        }
        for (n, row) in rows.iter_mut().enumerate() {
            let factor = row[column] / lead[column];
            if n != column {
                for (cell, lead) in row.iter_mut().zip(lead) {
                    *cell -= factor * lead;
                }
            }
        }
    }
    Some(std::array::from_fn(|n| rows[n][4] / rows[n][n]))
}

/// The value below which the given share of the values lies; 0 where there are none.
fn quantile(mut values: Vec<u8>, share: f64) -> u8 {
    values.sort_unstable();
    let index = (values.len() as f64 * share) as usize;
    values.get(index).or(values.last()).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: u32, height: u32, at: impl Fn(u32, u32) -> u8) -> Picture {
        let pixels = (0..width * height).map(|n| at(n % width, n / width));
        Picture { width, height, channels: 1, pixels: pixels.collect() }
    }

    #[test]
    fn corners_decide_whatever_the_middle_holds() {
        let cross = grey(28, 28, |x, y| {
            let middle = 3..25;
            if middle.contains(&x) || middle.contains(&y) { 200 } else { 5 }
        });
        let background = Background::of(&cross);
        assert_eq!((background.color[0], background.spread), (5, 0));
        assert!(!background.is_light() && background.needs_levelling());
        assert!(background.stands_out(&[22]) && !background.stands_out(&[21]));
        assert!(!Background::of(&grey(9, 9, |_, _| 255)).needs_levelling());
        assert!(!Background::of(&grey(9, 9, |_, _| 120)).needs_levelling());
    }

    #[test]
    fn uneven_light_is_levelled_under_an_object() {
        // Brighter to the right by 20, towards the middle by 15; the object cuts the lower border.
        let light = |x: u32, y: u32| {
            let terms = terms(x as usize, y as usize, 120, 100);
            dot(&[245.0, 10.0, 0.0, -7.5], &terms)
        };
        let is_object = |x: u32, y: u32| (40..80).contains(&x) && y >= 30;
        let mut picture = grey(120, 100, |x, y| {
            let light = light(x, y).round() as u8;
            if is_object(x, y) { light / 2 } else { light }
        });
        let background = Background::of(&picture);
        Light::of(&picture, &background).level(&mut picture);
        for (n, &value) in picture.pixels.iter().enumerate() {
            let (x, y) = (n as u32 % 120, n as u32 / 120);
            let expected = if is_object(x, y) { 118..=135 } else { 252..=255 };
            assert!(expected.contains(&value), "{x}, {y}: {value}");
        }
    }

    #[test]
    fn what_determines_no_surface_is_left_as_it_is() {
        for (width, height) in [(1, 1), (1, 40), (2, 2)] {
            let mut picture = grey(width, height, |_, _| 250);
            let background = Background::of(&picture);
            Light::of(&picture, &background).level(&mut picture);
            assert!(picture.pixels.iter().all(|&value| value >= 254));
        }
    }
}
