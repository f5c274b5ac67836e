//! Resampling of 8-bit pictures on the host: linear with half-pixel centres, antialiased when
//! shrinking.

use super::picture::Picture;
use rayon::prelude::*;

/// Bytes of a picture below which one thread is quicker than sharing the work.
const LEAST_PARALLEL: usize = 1 << 20;

/// A rectangle in a picture's pixel coordinates; it may reach beyond the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub left: i64,
    pub top: i64,
    pub width: u32,
    pub height: u32,
}

impl Window {
    /// All of a picture.
    pub fn whole(picture: &Picture) -> Self {
        Self { left: 0, top: 0, width: picture.width, height: picture.height }
    }
}

/// How a picture is made smaller. Enlarging is bilinear with both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shrink {
    /// A triangle twice as wide as an output pixel: PyTorch's bilinear with `antialias=True`.
    Triangle,
    /// The mean of what an output pixel covers: sharper, and exact for pictures enlarged by a
    /// whole factor.
    Area,
}

/// Weights of the source pixels in one output pixel along one axis. Together with `outside` they
/// sum to 1.
struct Taps {
    /// First source pixel.
    start: usize,
    weights: Vec<f32>,
    /// Weight of what lies in the window but not in the picture.
    outside: f32,
}

/// The pixels in `window`, brought to `width` x `height`, HWC. What the window holds beyond the
/// picture has the colour `fill`, one value a channel.
pub(super) fn resize(picture: &Picture, window: Window, (height, width): (usize, usize), fill: &[u8], shrink: Shrink) -> Vec<u8> {
    let channels = picture.channels;
    let row_bytes = picture.width as usize * channels;
    let columns = taps(window.left, window.width, width, picture.width as usize, shrink);
    let rows = taps(window.top, window.height, height, picture.height as usize, shrink);
    let mut output = vec![0; height * width * channels];
    if output.is_empty() {
        return output;
    }
    let least_rows = if picture.pixels.len() < LEAST_PARALLEL { height } else { 1 };
    // Each output row: first the source rows it covers as one row, then along that row.
    output.par_chunks_exact_mut(width * channels).zip(rows.par_iter()).with_min_len(least_rows).for_each(|(output, row_taps)| {
        let mut row = vec![0f32; row_bytes];
        for pixel in row.chunks_exact_mut(channels) {
            for (value, &fill) in pixel.iter_mut().zip(fill) {
                *value = row_taps.outside * f32::from(fill);
            }
        }
        for (n, &weight) in row_taps.weights.iter().enumerate() {
            let source = &picture.pixels[(row_taps.start + n) * row_bytes..][..row_bytes];
            for (value, &pixel) in row.iter_mut().zip(source) {
                *value += weight * f32::from(pixel);
            }
        }
        for (output, taps) in output.chunks_exact_mut(channels).zip(&columns) {
            for (channel, output) in output.iter_mut().enumerate() {
                let inside: f32 = taps
                    .weights
                    .iter()
                    .zip(row[taps.start * channels..].chunks_exact(channels))
                    .map(|(&weight, pixel)| weight * pixel[channel])
                    .sum();
                let value = inside + taps.outside * f32::from(fill[channel]);
                // Saturates: rounding may leave [0, 255] by a hair.
                *output = value.round() as u8;
            }
        }
    });
    output
}

/// Taps of each of `outputs` pixels over a window of `size` source pixels from `origin` on, in an
/// axis of `len` source pixels.
fn taps(origin: i64, size: u32, outputs: usize, len: usize, shrink: Shrink) -> Vec<Taps> {
    let scale = f64::from(size) / outputs as f64;
    let weight = |center: f64, index: i64| -> f64 {
        // Position of the source pixel's centre from the output pixel's.
        let distance = (index as f64 + 0.5 - center).abs();
        if scale > 1.0 && shrink == Shrink::Area {
            // Overlap of the source pixel with the output pixel.
            (scale / 2.0 + 0.5 - distance).clamp(0.0, 1.0)
        } else {
            (1.0 - distance / scale.max(1.0)).max(0.0)
        }
    };
    (0..outputs)
        .map(|output| {
            let center = (output as f64 + 0.5) * scale;
            let reach = scale.max(1.0);
            let first = ((center - reach).floor() as i64).max(0);
            let last = ((center + reach).ceil() as i64).min(i64::from(size));
            let total: f64 = (first..last).map(|index| weight(center, index)).sum();
            // The part of the window's pixels first..last that lies in the picture.
            let inside_first = first.max(-origin).min(last);
            let inside_last = last.min(len as i64 - origin).max(inside_first);
            let weights: Vec<f32> = (inside_first..inside_last).map(|index| (weight(center, index) / total) as f32).collect();
            let outside = (first..inside_first).chain(inside_last..last).map(|index| weight(center, index) / total).sum::<f64>() as f32;
            Taps { start: if weights.is_empty() { 0 } else { (inside_first + origin) as usize }, weights, outside }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: u32, height: u32, pixels: Vec<u8>) -> Picture {
        Picture { width, height, channels: 1, pixels }
    }

    fn whole(picture: &Picture, size: (usize, usize), shrink: Shrink) -> Vec<u8> {
        resize(picture, Window::whole(picture), size, &[0; 3], shrink)
    }

    #[test]
    fn the_same_size_changes_nothing() {
        let picture = grey(5, 3, (0..15).map(|n| n * 17).collect());
        for shrink in [Shrink::Triangle, Shrink::Area] {
            assert_eq!(whole(&picture, (3, 5), shrink), picture.pixels);
        }
    }

    /// PyTorch: `interpolate([0, 100, 200, 40], size=8 | 2, mode='bilinear', antialias=True)`.
    #[test]
    fn linear_as_pytorch_has_it() {
        let picture = grey(4, 1, vec![0, 100, 200, 40]);
        assert_eq!(whole(&picture, (1, 8), Shrink::Triangle), [0, 25, 75, 125, 175, 160, 80, 40]);
        // Weights 1/4, 3/4, 3/4, 1/4 around each pair; at the ends what is left, renormalised.
        assert_eq!(whole(&picture, (1, 2), Shrink::Triangle), [71, 117]);
        assert_eq!(whole(&picture, (1, 2), Shrink::Area), [50, 120]);
    }

    #[test]
    fn area_undoes_enlarging_by_a_whole_factor() {
        let picture = grey(3, 2, vec![1, 2, 3, 40, 50, 60]);
        let large: Vec<u8> = (0..12 * 8).map(|n| picture.pixels[n / 12 / 4 * 3 + n % 12 / 4]).collect();
        assert_eq!(whole(&grey(12, 8, large), (2, 3), Shrink::Area), picture.pixels);
    }

    #[test]
    fn beyond_the_picture_is_the_fill_colour() {
        let picture = Picture { width: 1, height: 1, channels: 3, pixels: vec![10, 20, 30] };
        let window = Window { left: -1, top: -1, width: 3, height: 3 };
        let output = resize(&picture, window, (3, 3), &[1, 2, 3], Shrink::Triangle);
        let mut expected = [1, 2, 3].repeat(9);
        expected[12..15].copy_from_slice(&[10, 20, 30]);
        assert_eq!(output, expected);
        // One output pixel: a ninth of it is the picture.
        let output = resize(&picture, window, (1, 1), &[1, 2, 3], Shrink::Area);
        assert_eq!(output, [2, 4, 6]);
        // A window that misses the picture altogether.
        let aside = Window { left: 5, ..window };
        let output = resize(&picture, aside, (2, 2), &[1, 2, 3], Shrink::Triangle);
        assert_eq!(output, [1, 2, 3].repeat(4));
    }

    #[test]
    fn extreme_shapes_stay_constant() {
        let line = grey(60_000, 1, vec![255; 60_000]);
        for shrink in [Shrink::Triangle, Shrink::Area] {
            assert_eq!(whole(&line, (28, 28), shrink), [255; 784]);
        }
    }
}
