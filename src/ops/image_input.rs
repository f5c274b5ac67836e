//! From the bytes of a batch to the network's input: augment, resize, normalise.

use super::Augment;
use crate::graph::{Case, Lowered, Lowering, Op, Operand, Tolerance};
use crate::kernels::{Step, image_input, image_input_parts, workgroups_for};
use crate::shape::{Fact, Layout, ShapeError};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Pixels are scaled to [0, 1], resized (bilinear, half-pixel centres, no antialias) and normalised:
/// `y = (x - mean) · inverse_std`.
///
/// Inputs: pixels of the whole batch, and the ids of its images (positions in the data set, the key of augmentation).
/// With `gather`, the pixels are those of the whole data set instead, in up to [`MOST_PARTS`] parts of equally many images
/// (the last one may have fewer), and the ids choose from them.
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
    /// The pixels are those of a data set.
    pub gather: bool,
}

/// Most parts of a data set that one kernel gathers from: with two more arrays, what every device can bind.
pub const MOST_PARTS: usize = 4;

impl Op for ImageInput {
    fn name(&self) -> &'static str {
        "image_input"
    }

    fn attributes(&self) -> String {
        let [height, width] = self.size;
        let augment = self.augment.map_or(String::new(), |augment| augment.to_string());
        let gather = if self.gather { ", gather" } else { "" };
        format!("to {height}x{width}{augment}{gather}")
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        let (ids, parts) = split(inputs);
        let [images, channels, height, width] = parts[0].shape.four();
        if parts[0].layout != Layout::Pixels || !(1..=4).contains(&channels) || height * width == 0 {
            return Err(ShapeError::Mismatch { expected: "pixels of 1 to 4 channels".into(), got: parts[0].shape.to_string() });
        }
        let batch = ids.shape.elements();
        if batch < self.micro_batch || (!self.gather && (images != batch || parts.len() > 1)) {
            let expected = format!("ids of one batch of at least {} images", self.micro_batch);
            return Err(ShapeError::Mismatch { expected, got: format!("{images} images, {} ids", ids.shape) });
        }
        let (last, full) = (parts[parts.len() - 1], &parts[..parts.len() - 1]);
        let is_like_first = |part: &Fact| part.layout == Layout::Pixels && part.shape.four()[1..] == parts[0].shape.four()[1..];
        let is_full = full.iter().all(|part| part.shape == parts[0].shape);
        if parts.len() > MOST_PARTS || !is_full || !is_like_first(last) || last.shape.four()[0] > images {
            let got = parts.iter().map(|part| part.shape.to_string()).collect::<Vec<_>>().join(", ");
            return Err(ShapeError::Mismatch { expected: format!("up to {MOST_PARTS} parts of equally many images"), got });
        }
        Ok(vec![Fact::activation(self.micro_batch, channels, self.size[0], self.size[1])])
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let parts = node.inputs.len() - 1;
        let [images, channels, in_h, in_w] = node.inputs[0].shape.four();
        let [out_h, out_w] = self.size;
        let augment = self.augment.unwrap_or(Augment::NONE);
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
            gather: self.gather.into(),
            images_per_part: images as u32,
            cutout: augment.cutout,
            brightness: augment.brightness,
            contrast: augment.contrast,
            ..Default::default()
        };
        let workgroups = workgroups_for(&image_input::FORWARD, self.micro_batch * out_h * out_w);
        let (ids, y) = (Operand::Input(parts), Operand::Output(0));
        if parts == 1 {
            return image_input::forward(params, ids, y, Operand::Input(0), workgroups).into();
        }
        let params = bytemuck::cast::<_, image_input_parts::Params>(params);
        // Bindings without a part of their own are never read.
        let [a, b, c, d] = std::array::from_fn(|part| Operand::Input(part.min(parts - 1)));
        image_input_parts::forward(params, ids, y, a, b, c, d, workgroups).into()
    }

    fn reference(&self, inputs: &[Tensor], step: &Step) -> Vec<Tensor> {
        let (ids, parts) = split(inputs);
        let [images, channels, in_h, in_w] = parts[0].shape.four();
        let [out_h, out_w] = self.size;
        let mut y = Tensor::zeros(&Fact::activation(self.micro_batch, channels, out_h, out_w).shape);
        for n in 0..(step.images as usize).min(self.micro_batch) {
            let image = step.first_image as usize + n;
            let id = ids.data[image] as u32;
            let change = self.augment.unwrap_or(Augment::NONE).change(id, step, [in_h, in_w]);
            let stored = if self.gather { id as usize } else { image };
            let (pixels, stored) = (&parts[stored / images], stored % images);
            let source = |channel: usize, row: usize, column: usize| {
                let Some([row, column]) = change.source([row, column], [in_h, in_w]) else { return 0.0 };
                pixels.data[pixels.at([stored, channel, row, column])] / 255.0
            };
            for channel in 0..channels {
                for row in 0..out_h {
                    let (top, bottom, down_share) = neighbours(row, in_h, out_h);
                    for column in 0..out_w {
                        let (left, right, right_share) = neighbours(column, in_w, out_w);
                        let upper = source(channel, top, left) * (1.0 - right_share) + source(channel, top, right) * right_share;
                        let lower = source(channel, bottom, left) * (1.0 - right_share) + source(channel, bottom, right) * right_share;
                        let mut value = upper * (1.0 - down_share) + lower * down_share;
                        if (change.factor, change.summand) != (1.0, 0.0) {
                            value = ((value - 0.5) * change.factor + 0.5 + change.summand).clamp(0.0, 1.0);
                        }
                        if change.cuts(top, left) {
                            continue;
                        }
                        let at = y.at([n, channel, row, column]);
                        y.data[at] = (value - f64::from(self.mean[channel])) * f64::from(self.inverse_std[channel]);
                    }
                }
            }
        }
        vec![y]
    }
}

/// The ids, and what the pixels are in.
fn split<T>(inputs: &[T]) -> (&T, &[T]) {
    (&inputs[inputs.len() - 1], &inputs[..inputs.len() - 1])
}

/// The two source coordinates around an output coordinate and the share of the second.
fn neighbours(at: usize, input: usize, output: usize) -> (usize, usize, f64) {
    let source = ((at as f64 + 0.5) * input as f64 / output as f64 - 0.5).max(0.0);
    let low = (source.floor() as usize).min(input - 1);
    (low, (low + 1).min(input - 1), source - low as f64)
}

pub(super) fn cases(_quick: bool) -> Vec<Case> {
    let plain = |micro_batch: usize, size: [usize; 2]| ImageInput {
        micro_batch,
        size,
        mean: [0.0; 4],
        inverse_std: [1.0; 4],
        augment: None,
        gather: false,
    };
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
    // Of a data set in parts with so many images each, those with these ids.
    let gathered = |name: &str, op: ImageInput, parts: &[usize], ids: &[u32]| {
        let bytes = |part: usize, count: usize| {
            let byte = move |i: u32| f32::from_bits((i + 7 * part as u32).wrapping_mul(2_654_435_761) >> 24);
            (0..count as u32).map(byte).collect::<Vec<_>>()
        };
        let facts = parts.iter().map(|images| Fact::pixels(*images, 3, 5, 3)).enumerate();
        let mut inputs: Vec<_> = facts.map(|(part, fact)| (fact.clone(), bytes(part, fact.shape.elements()))).collect();
        inputs.push((Fact::index(&[ids.len()]), ids.iter().map(|id| f32::from_bits(*id)).collect()));
        let step =
            Step { epoch: 2, seed_lo: 9, seed_hi: 1, images: ids.len() as u32, total_images: ids.len() as u32, ..Default::default() };
        let op = Arc::new(ImageInput { gather: true, ..op });
        Case { name: name.into(), op, inputs, step, tolerance: vec![Tolerance::Exact] }
    };
    let all = |images: u32| Step { images, total_images: images, ..Default::default() };
    let second_half = Step { first_image: 2, images: 1, total_images: 3, ..Default::default() };
    // The kernel finds source coordinates in single precision.
    let resized = Tolerance::Relative { relative: 0.0, absolute: 2e-5 };
    let normalised_only = Tolerance::Relative { relative: 0.0, absolute: 2e-6 };
    let flip = Some(Augment { flip: true, ..Augment::NONE });
    let both = Some(Augment { flip: true, shift: 4, ..Augment::NONE });
    let cutout = Some(Augment { cutout: 5, ..Augment::NONE });
    let light = Some(Augment { brightness: 0.4, contrast: 0.5, ..Augment::NONE });
    let all_of_it = Some(Augment { flip: true, shift: 3, cutout: 4, brightness: 0.25, contrast: 0.25 });
    vec![
        case("same size is byte / 255", plain(1, [16, 17]), Fact::pixels(1, 1, 16, 17), all(1), Tolerance::Exact),
        case("enlarged", plain(2, [21, 16]), Fact::pixels(2, 1, 9, 7), all(2), resized),
        case("reduced, 3 channels", normalised(plain(2, [5, 4])), Fact::pixels(2, 3, 13, 11), all(2), resized),
        case("second micro-batch, one image", normalised(plain(2, [8, 8])), Fact::pixels(4, 3, 8, 8), second_half, normalised_only),
        case("4 channels, from a single pixel", plain(1, [3, 2]), Fact::pixels(1, 4, 1, 1), all(1), resized),
        case("mirrored", ImageInput { augment: flip, ..plain(6, [5, 7]) }, Fact::pixels(6, 1, 5, 7), all(6), Tolerance::Exact),
        gathered("from a data set", plain(3, [5, 3]), &[7], &[6, 0, 3]),
        gathered("from a data set in two parts", plain(4, [5, 3]), &[4, 1], &[3, 4, 0, 3]),
        gathered(
            "from a data set in four parts, mirrored",
            ImageInput { augment: flip, ..plain(5, [5, 3]) },
            &[4, 4, 4, 3],
            &[14, 7, 8, 0, 12],
        ),
        case("a square cut out", ImageInput { augment: cutout, ..plain(6, [9, 8]) }, Fact::pixels(6, 3, 9, 8), all(6), Tolerance::Exact),
        case(
            "brightness and contrast",
            normalised(ImageInput { augment: light, ..plain(6, [7, 7]) }),
            Fact::pixels(6, 3, 7, 7),
            all(6),
            normalised_only,
        ),
        case(
            "every change, reduced",
            normalised(ImageInput { augment: all_of_it, ..plain(6, [7, 6]) }),
            Fact::pixels(6, 3, 11, 13),
            all(6),
            resized,
        ),
        case("mirrored and shifted", ImageInput { augment: both, ..plain(6, [9, 8]) }, Fact::pixels(6, 3, 9, 8), all(6), Tolerance::Exact),
    ]
}
