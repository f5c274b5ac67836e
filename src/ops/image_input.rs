//! From the bytes of a batch to the network's input: augment, resize, normalise.

use crate::graph::{Case, Lowered, Lowering, Op, Operand, Tolerance};
use crate::kernels::{Step, image_input, workgroups_for};
use crate::rng::{philox4x32, purpose};
use crate::shape::{Fact, Layout, ShapeError};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Pixels are scaled to [0, 1], resized (bilinear, half-pixel centres, no antialias) and normalised:
/// `y = (x - mean) · inverse_std`.
///
/// Inputs: pixels of the whole batch, and the ids of its images (positions in the data set, the key of augmentation).
/// Output: the images of one micro-batch, `[micro_batch, C, H, W]`; rows from `step.images` on are zero.
#[derive(Clone, Debug)]
pub struct ImageInput {
    /// Images of a micro-batch.
    pub micro_batch: usize,
    /// Height and width of the output.
    pub size: [usize; 2],
    /// Mean of each channel, for pixels in [0, 1]; 0 leaves it as it is.
    pub mean: [f32; 4],
    /// One over the standard deviation of each channel; 1 leaves it as it is.
    pub inverse_std: [f32; 4],
    /// Random changes; `None` outside training.
    pub augment: Option<Augment>,
}

/// Random changes of training images, drawn per image and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Augment {
    /// Mirror every second image, on average.
    pub flip: bool,
    /// Largest shift in each direction, in pixels of the source; uncovered pixels are 0.
    pub shift: u32,
}

impl Op for ImageInput {
    fn name(&self) -> &'static str {
        "image_input"
    }

    fn attributes(&self) -> String {
        let [height, width] = self.size;
        let augment = match self.augment {
            Some(Augment { flip: true, shift }) => format!(", flip, shift {shift}"),
            Some(Augment { flip: false, shift }) => format!(", shift {shift}"),
            None => String::new(),
        };
        format!("to {height}x{width}{augment}")
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        let [batch, channels, height, width] = inputs[0].shape.four();
        if inputs[0].layout != Layout::Pixels || !(1..=4).contains(&channels) || height * width == 0 {
            return Err(ShapeError::Mismatch { expected: "pixels of 1 to 4 channels".into(), got: inputs[0].shape.to_string() });
        }
        if batch < self.micro_batch || inputs[1].shape.elements() != batch {
            let expected = format!("ids of one batch of at least {} images", self.micro_batch);
            return Err(ShapeError::Mismatch { expected, got: format!("{batch} images, {} ids", inputs[1].shape) });
        }
        Ok(vec![Fact::activation(self.micro_batch, channels, self.size[0], self.size[1])])
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let [_, channels, in_h, in_w] = node.inputs[0].shape.four();
        let [out_h, out_w] = self.size;
        let augment = self.augment.unwrap_or(Augment { flip: false, shift: 0 });
        let params = image_input::Params {
            images: self.micro_batch as u32,
            channels: channels as u32,
            in_h: in_h as u32,
            in_w: in_w as u32,
            out_h: out_h as u32,
            out_w: out_w as u32,
            scale_h: in_h as f32 / out_h as f32,
            scale_w: in_w as f32 / out_w as f32,
            flip: augment.flip.into(),
            shift: augment.shift,
            mean_0: self.mean[0],
            mean_1: self.mean[1],
            mean_2: self.mean[2],
            mean_3: self.mean[3],
            inverse_std_0: self.inverse_std[0],
            inverse_std_1: self.inverse_std[1],
            inverse_std_2: self.inverse_std[2],
            inverse_std_3: self.inverse_std[3],
            ..Default::default()
        };
        let workgroups = workgroups_for(&image_input::FORWARD, self.micro_batch * out_h * out_w);
        image_input::forward(params, Operand::Input(0), Operand::Input(1), Operand::Output(0), workgroups).into()
    }

    fn reference(&self, inputs: &[Tensor], step: &Step) -> Vec<Tensor> {
        let (pixels, ids) = (&inputs[0], &inputs[1]);
        let [_, channels, in_h, in_w] = pixels.shape.four();
        let [out_h, out_w] = self.size;
        let mut y = Tensor::zeros(&Fact::activation(self.micro_batch, channels, out_h, out_w).shape);
        for n in 0..(step.images as usize).min(self.micro_batch) {
            let image = step.first_image as usize + n;
            let (flip, down, right) = self.change(ids.data[image] as u32, step);
            let source = |channel: usize, row: usize, column: usize| {
                let (row, column) = (row as i64 - down, column as i64 - right);
                if row < 0 || row >= in_h as i64 || column < 0 || column >= in_w as i64 {
                    return 0.0;
                }
                let column = if flip { in_w - 1 - column as usize } else { column as usize };
                pixels.data[pixels.at([image, channel, row as usize, column])] / 255.0
            };
            for channel in 0..channels {
                for row in 0..out_h {
                    let (top, bottom, down_share) = neighbours(row, in_h, out_h);
                    for column in 0..out_w {
                        let (left, right, right_share) = neighbours(column, in_w, out_w);
                        let upper = source(channel, top, left) * (1.0 - right_share) + source(channel, top, right) * right_share;
                        let lower = source(channel, bottom, left) * (1.0 - right_share) + source(channel, bottom, right) * right_share;
                        let value = upper * (1.0 - down_share) + lower * down_share;
                        let at = y.at([n, channel, row, column]);
                        y.data[at] = (value - f64::from(self.mean[channel])) * f64::from(self.inverse_std[channel]);
                    }
                }
            }
        }
        vec![y]
    }
}

impl ImageInput {
    /// Whether an image is mirrored, and by how much it moves down and right.
    fn change(&self, id: u32, step: &Step) -> (bool, i64, i64) {
        let Some(augment) = self.augment else { return (false, 0, 0) };
        let words = philox4x32([0, id, step.epoch, purpose::AUGMENT], [step.seed_lo, step.seed_hi]);
        let draw = |word: u32| ((u64::from(word) * (2 * u64::from(augment.shift) + 1)) >> 32) as i64 - i64::from(augment.shift);
        (augment.flip && words[0] % 2 == 1, draw(words[1]), draw(words[2]))
    }
}

/// The two source coordinates around an output coordinate and the share of the second.
fn neighbours(at: usize, input: usize, output: usize) -> (usize, usize, f64) {
    let source = ((at as f64 + 0.5) * input as f64 / output as f64 - 0.5).max(0.0);
    let low = (source.floor() as usize).min(input - 1);
    (low, (low + 1).min(input - 1), source - low as f64)
}

pub(super) fn cases(_quick: bool) -> Vec<Case> {
    let plain =
        |micro_batch: usize, size: [usize; 2]| ImageInput { micro_batch, size, mean: [0.0; 4], inverse_std: [1.0; 4], augment: None };
    let normalised = |op: ImageInput| ImageInput { mean: [0.49, 0.48, 0.45, 0.5], inverse_std: [4.0, 4.1, 3.8, 2.0], ..op };
    let case = |name: &str, op: ImageInput, pixels: Fact, step: Step, tolerance| {
        let batch = pixels.shape.four()[0];
        let bytes = (0..pixels.shape.elements() as u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761) >> 24)).collect();
        let ids = (0..batch as u32).map(|n| f32::from_bits(1000 + 7 * n)).collect();
        let step = Step { epoch: 2, seed_lo: 9, seed_hi: 1, ..step };
        Case {
            name: name.into(),
            op: Arc::new(op),
            inputs: vec![(pixels, bytes), (Fact::index(&[batch]), ids)],
            step,
            tolerance: vec![tolerance],
        }
    };
    let all = |images: u32| Step { images, total_images: images, ..Default::default() };
    let second_half = Step { first_image: 2, images: 1, total_images: 3, ..Default::default() };
    // The kernel finds source coordinates in single precision.
    let resized = Tolerance::Relative { relative: 0.0, absolute: 2e-5 };
    let normalised_only = Tolerance::Relative { relative: 0.0, absolute: 2e-6 };
    let flip = Some(Augment { flip: true, shift: 0 });
    let both = Some(Augment { flip: true, shift: 4 });
    vec![
        case("same size is byte / 255", plain(1, [16, 17]), Fact::pixels(1, 1, 16, 17), all(1), Tolerance::Exact),
        case("enlarged", plain(2, [21, 16]), Fact::pixels(2, 1, 9, 7), all(2), resized),
        case("reduced, 3 channels", normalised(plain(2, [5, 4])), Fact::pixels(2, 3, 13, 11), all(2), resized),
        case("second micro-batch, one image", normalised(plain(2, [8, 8])), Fact::pixels(4, 3, 8, 8), second_half, normalised_only),
        case("4 channels, from a single pixel", plain(1, [3, 2]), Fact::pixels(1, 4, 1, 1), all(1), resized),
        case("mirrored", ImageInput { augment: flip, ..plain(6, [5, 7]) }, Fact::pixels(6, 1, 5, 7), all(6), Tolerance::Exact),
        case("mirrored and shifted", ImageInput { augment: both, ..plain(6, [9, 8]) }, Fact::pixels(6, 3, 9, 8), all(6), Tolerance::Exact),
    ]
}
