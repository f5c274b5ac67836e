//! Random changes of training images: what is drawn, and the operation that changes values which are no pixels any more.

use crate::graph::{Case, Lowered, Lowering, Op, Operand, Tolerance};
use crate::kernels::{Step, augment, workgroups_for};
use crate::ops::random_reals;
use crate::rng::{philox4x32, purpose, uniform01};
use crate::shape::{Fact, Layout, ShapeError};
use crate::tensor::Tensor;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Random changes of training images, drawn per image and epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augment {
    /// Mirror every second image, on average.
    pub flip: bool,
    /// Largest shift in each direction, in pixels of the source; uncovered pixels are 0.
    pub shift: u32,
    /// Side of a square in pixels of the source that becomes 0 after normalisation, with its centre anywhere in the image
    /// (DeVries and Taylor 2017, arXiv 1708.04552); 0 cuts nothing.
    pub cutout: u32,
    /// Most that is added to values in [0, 1], of either sign; what leaves [0, 1] is clamped.
    pub brightness: f32,
    /// Most by which distances to the middle grey are stretched or shrunk, as a share of them.
    pub contrast: f32,
}

impl Augment {
    /// Images as they are.
    pub const NONE: Self = Self { flip: false, shift: 0, cutout: 0, brightness: 0.0, contrast: 0.0 };

    /// What happens to the image with this id, of this height and width, in the epoch and under the seed of `step`.
    pub(super) fn change(&self, id: u32, step: &Step, [height, width]: [usize; 2]) -> Change {
        let Augment { flip, shift, cutout, brightness, contrast } = *self;
        let words = |block| philox4x32([block, id, step.epoch, purpose::AUGMENT], [step.seed_lo, step.seed_hi]);
        let below = |word: u32, end: u64| ((u64::from(word) * end) >> 32) as i64;
        let moved = |word| below(word, 2 * u64::from(shift) + 1) - i64::from(shift);
        let signed = |word| 2.0 * f64::from(uniform01(word)) - 1.0;
        let (first, second) = (words(0), words(1));
        let cut = |word, side: usize| {
            let start = below(word, side as u64) - i64::from(cutout / 2);
            start..start + i64::from(cutout)
        };
        Change {
            flip: flip && first[0] % 2 == 1,
            down: moved(first[1]),
            right: moved(first[2]),
            cut: [cut(second[0], height), cut(second[1], width)],
            factor: 1.0 + f64::from(contrast) * signed(second[2]),
            summand: f64::from(brightness) * signed(second[3]),
        }
    }
}

/// As graphs are dumped: what there is, each with a comma before it.
impl fmt::Display for Augment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Augment { flip, shift, cutout, brightness, contrast } = *self;
        if flip {
            f.write_str(", flip")?;
        }
        if shift > 0 {
            write!(f, ", shift {shift}")?;
        }
        if cutout > 0 {
            write!(f, ", cutout {cutout}")?;
        }
        if brightness > 0.0 {
            write!(f, ", brightness {brightness}")?;
        }
        if contrast > 0.0 {
            write!(f, ", contrast {contrast}")?;
        }
        Ok(())
    }
}

/// What happens to one image.
pub(super) struct Change {
    pub flip: bool,
    pub down: i64,
    pub right: i64,
    /// Rows and columns of the source whose pixels become 0.
    pub cut: [Range<i64>; 2],
    pub factor: f64,
    pub summand: f64,
}

impl Change {
    /// Where the pixel at a row and column comes from; `None` where the shift uncovered it.
    pub fn source(&self, [row, column]: [usize; 2], [height, width]: [usize; 2]) -> Option<[usize; 2]> {
        let (row, column) = (row as i64 - self.down, column as i64 - self.right);
        if row < 0 || row >= height as i64 || column < 0 || column >= width as i64 {
            return None;
        }
        let column = if self.flip { width - 1 - column as usize } else { column as usize };
        Some([row as usize, column])
    }

    /// Whether a pixel becomes 0.
    pub fn cuts(&self, row: usize, column: usize) -> bool {
        self.cut[0].contains(&(row as i64)) && self.cut[1].contains(&(column as i64))
    }
}

/// The image of a vector `[N, H · W · C, 1, 1]`, its values in the order of memory, with the changes of training that do not
/// need pixels: mirrored, moved and cut as [`ImageInput`](super::ImageInput) does it with the same settings. Whitened images
/// go through it.
///
/// Inputs: the vectors of a micro-batch, and the ids of the images of the whole batch. Output: `[N, C, H, W]`; rows from
/// `step.images` on are zero.
#[derive(Clone, Debug)]
pub struct AugmentVector {
    /// Channels of the image, at most 4.
    pub channels: usize,
    /// Height and width of the image.
    pub size: [usize; 2],
    /// Random changes, without brightness and contrast; [`Augment::NONE`] outside training.
    pub augment: Augment,
}

impl Op for AugmentVector {
    fn name(&self) -> &'static str {
        "augment"
    }

    fn attributes(&self) -> String {
        let [height, width] = self.size;
        format!("to {}x{height}x{width}{}", self.channels, self.augment)
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        let [n, values, h, w] = inputs[0].shape.four();
        let [height, width] = self.size;
        let is_image = [values, h, w] == [self.channels * height * width, 1, 1] && (1..=4).contains(&self.channels);
        if !is_image || inputs[1].layout != Layout::Index || inputs[1].shape.elements() < n {
            let expected = format!("vectors of {}x{height}x{width} values, and an id for each", self.channels);
            return Err(ShapeError::Mismatch { expected, got: format!("{} and {} ids", inputs[0].shape, inputs[1].shape) });
        }
        if self.augment.brightness > 0.0 || self.augment.contrast > 0.0 {
            return Err(ShapeError::Invalid("brightness and contrast are for pixels, these are none any more".into()));
        }
        Ok(vec![Fact::activation(n, self.channels, height, width)])
    }

    fn needs_single_precision(&self) -> bool {
        true
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let [images, channels, height, width] = node.outputs[0].shape.four();
        let params = augment::Params {
            images: images as u32,
            channels: channels as u32,
            in_h: height as u32,
            in_w: width as u32,
            stride: (node.inputs[0].words() / images.max(1)) as u32,
            flip: self.augment.flip.into(),
            shift: self.augment.shift,
            cutout: self.augment.cutout,
        };
        let workgroups = workgroups_for(&augment::FORWARD, images * height * width);
        augment::forward(params, Operand::Input(0), Operand::Input(1), Operand::Output(0), workgroups).into()
    }

    fn reference(&self, inputs: &[Tensor], step: &Step) -> Vec<Tensor> {
        let [images, values, ..] = inputs[0].shape.four();
        let [height, width] = self.size;
        let mut y = Tensor::zeros(&Fact::activation(images, self.channels, height, width).shape);
        for n in 0..(step.images as usize).min(images) {
            let id = inputs[1].data[step.first_image as usize + n] as u32;
            let change = self.augment.change(id, step, self.size);
            for place in 0..height * width {
                let at = [place / width, place % width];
                let Some([row, column]) = change.source(at, self.size).filter(|_| !change.cuts(at[0], at[1])) else { continue };
                for channel in 0..self.channels {
                    let target = y.at([n, channel, at[0], at[1]]);
                    y.data[target] = inputs[0].data[n * values + (row * width + column) * self.channels + channel];
                }
            }
        }
        vec![y]
    }
}

pub(super) fn cases(_quick: bool) -> Vec<Case> {
    let case = |name: &str, [images, batch]: [usize; 2], [channels, height, width]: [usize; 3], augment: Augment, step: Step| {
        let x = Fact::activation(images, channels * height * width, 1, 1);
        let ids = (0..batch as u32).map(|n| f32::from_bits(1000 + 7 * n)).collect();
        Case {
            name: name.into(),
            op: Arc::new(AugmentVector { channels, size: [height, width], augment }),
            inputs: vec![(x.clone(), random_reals(&x.shape, 3)), (Fact::index(&[batch]), ids)],
            step: Step { epoch: 2, seed_lo: 9, seed_hi: 1, ..step },
            tolerance: vec![Tolerance::Exact],
        }
    };
    let all = |images: u32| Step { images, total_images: images, ..Default::default() };
    let second_half = Step { first_image: 3, images: 2, total_images: 5, ..Default::default() };
    let changes = Augment { flip: true, shift: 3, cutout: 4, ..Augment::NONE };
    vec![
        case("as it is", [2, 2], [3, 5, 4], Augment::NONE, all(2)),
        case("mirrored, moved and cut", [9, 9], [3, 8, 9], changes, all(9)),
        case("mirrored, an odd number of values", [6, 6], [1, 5, 7], Augment { flip: true, ..Augment::NONE }, all(6)),
        case("second micro-batch, two images", [3, 6], [3, 8, 8], changes, second_half),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::ImageInput;

    const IMAGES: u32 = 20_000;
    const SIZE: [usize; 2] = [12, 10];

    fn changes(epoch: u32, seed_lo: u32) -> Vec<Change> {
        let augment = Augment { flip: true, shift: 3, cutout: 4, brightness: 0.25, contrast: 0.5 };
        let step = Step { epoch, seed_lo, ..Default::default() };
        (0..IMAGES).map(|id| augment.change(id, &step, SIZE)).collect()
    }

    /// Fails where one of the numbers from `first` on is drawn more or less often than six standard deviations allow.
    fn uniform(what: &str, drawn: impl Iterator<Item = i64>, first: i64, count: usize) {
        let mut counts = vec![0u32; count];
        drawn.for_each(|number| counts[usize::try_from(number - first).unwrap()] += 1);
        let expected = f64::from(IMAGES) / count as f64;
        let allowed = 6.0 * expected.sqrt();
        assert!(counts.iter().all(|drawn| (f64::from(*drawn) - expected).abs() < allowed), "{what}: {counts:?}");
    }

    fn even(what: &str, drawn: impl Iterator<Item = f64>, middle: f64, reach: f64) {
        uniform(what, drawn.map(|value| ((value - middle + reach) / (2.0 * reach) * 16.0).floor() as i64), 0, 16);
    }

    #[test]
    fn changes_are_drawn_evenly() {
        let changes = changes(3, 7);
        uniform("flip", changes.iter().map(|change| change.flip.into()), 0, 2);
        uniform("down", changes.iter().map(|change| change.down), -3, 7);
        uniform("right", changes.iter().map(|change| change.right), -3, 7);
        uniform("rows that are cut", changes.iter().map(|change| change.cut[0].start), -2, SIZE[0]);
        uniform("columns that are cut", changes.iter().map(|change| change.cut[1].start), -2, SIZE[1]);
        even("contrast", changes.iter().map(|change| change.factor), 1.0, 0.5);
        even("brightness", changes.iter().map(|change| change.summand), 0.0, 0.25);
        // None follows from another.
        let agree = changes.iter().filter(|change| change.flip == (change.summand > 0.0)).count() as f64;
        assert!((agree / f64::from(IMAGES) - 0.5).abs() < 0.03, "{agree}");
    }

    #[test]
    fn changes_depend_on_seed_epoch_and_image_alone() {
        let drawn =
            |epoch, seed| changes(epoch, seed).into_iter().map(|change| (change.down, change.summand.to_bits())).collect::<Vec<_>>();
        let same = |a: &[_], b: &[_]| a.iter().zip(b).filter(|(a, b)| a == b).count();
        let first = drawn(1, 7);
        assert_eq!(first, drawn(1, 7));
        for other in [drawn(2, 7), drawn(1, 8)] {
            assert!(same(&first, &other) < 20);
        }
    }

    /// Whitened images are changed as pixels would be.
    #[test]
    fn vectors_change_as_pixels_do() {
        let ([height, width], images) = (SIZE, 40);
        let augment = Augment { flip: true, shift: 3, cutout: 4, ..Augment::NONE };
        let pixels = Fact::pixels(images, 3, height, width);
        let bytes = (0..pixels.shape.elements()).map(|i| (i * 37 % 251) as f64).collect();
        let pixels = Tensor { shape: pixels.shape, data: bytes };
        let ids = Tensor { shape: Fact::index(&[images]).shape, data: (0..images).map(|n| (5 * n) as f64).collect() };
        let step = Step { epoch: 4, seed_lo: 8, images: images as u32, ..Default::default() };
        let plain = ImageInput { micro_batch: images, size: SIZE, mean: [0.0; 4], inverse_std: [1.0; 4], augment: None, gather: false };
        let changed = ImageInput { augment: Some(augment), ..plain.clone() };
        let whole = &plain.reference(&[pixels.clone(), ids.clone()], &step)[0];
        let mut vectors = Tensor::zeros(&Fact::activation(images, 3 * height * width, 1, 1).shape);
        for (i, value) in vectors.data.iter_mut().enumerate() {
            *value = whole.data[whole.at([i / (3 * height * width), i % 3, i / 3 / width % height, i / 3 % width])];
        }
        let op = AugmentVector { channels: 3, size: SIZE, augment };
        assert_eq!(op.reference(&[vectors, ids.clone()], &step), changed.reference(&[pixels, ids], &step));
    }
}
