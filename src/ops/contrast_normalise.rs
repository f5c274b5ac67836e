//! Global contrast normalisation of whole images, the first half of whitening.

use crate::graph::{Case, Lowered, Lowering, Op, Operand, Tolerance};
use crate::kernels::{Step, contrast_normalise};
use crate::ops::random_reals;
use crate::shape::{Fact, Layout, ShapeError};
use crate::tensor::Tensor;
use std::sync::Arc;

/// The scale of Goodfellow et al. 2013 (arXiv 1302.4389), as pylearn2's `make_cifar10_gcn_whitened.py` has it: about the
/// square root of the 3,072 values of an image, which so get a variance of about 1.
pub const CONTRAST_SCALE: f64 = 55.0;

/// The least norm that an image with contrast has: less is rounding. One value of thousands that is one grey level off gives
/// 4e-3, sums in f32 leave 1e-5. (pylearn2's `min_divisor` serves for sums that cancel exactly.)
const LEAST_NORM: f64 = 1e-3;

/// `y = (x - mean) · scale / |x - mean|` over all values of an image; zeros for one that has no contrast. pylearn2's
/// `global_contrast_normalize` with its defaults.
///
/// Input: images `[N, C, H, W]` of pixels in [0, 1], at most 4 channels. Output: a vector for each, `[N, H · W · C, 1, 1]`, its
/// values in the order of memory: row, column, channel.
#[derive(Clone, Debug)]
pub struct ContrastNormalise {
    /// The norm of every image that has contrast.
    pub scale: f32,
}

impl Op for ContrastNormalise {
    fn name(&self) -> &'static str {
        "contrast_normalise"
    }

    fn attributes(&self) -> String {
        format!("scale {}", self.scale)
    }

    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError> {
        let [n, c, h, w] = inputs[0].shape.four();
        if inputs[0].layout != Layout::Activation || !(1..=4).contains(&c) || h * w == 0 {
            return Err(ShapeError::Mismatch { expected: "images of 1 to 4 channels".into(), got: inputs[0].shape.to_string() });
        }
        Ok(vec![Fact::activation(n, c * h * w, 1, 1)])
    }

    fn needs_single_precision(&self) -> bool {
        true
    }

    fn lower(&self, node: &Lowering<'_>) -> Lowered {
        let [images, values, ..] = node.outputs[0].shape.four();
        let params = contrast_normalise::Params {
            images: images as u32,
            values: values as u32,
            values_in_memory: (node.outputs[0].words() / images.max(1)) as u32,
            scale: self.scale,
            least_norm: LEAST_NORM as f32,
            ..Default::default()
        };
        contrast_normalise::forward(params, Operand::Input(0), Operand::Output(0), images as u64).into()
    }

    fn reference(&self, inputs: &[Tensor], _step: &Step) -> Vec<Tensor> {
        let [n, c, h, w] = inputs[0].shape.four();
        let mut y = Tensor::zeros(&Fact::activation(n, c * h * w, 1, 1).shape);
        for (image, y) in y.data.chunks_exact_mut(c * h * w).enumerate() {
            for (i, y) in y.iter_mut().enumerate() {
                *y = inputs[0].data[inputs[0].at([image, i % c, i / c / w, i / c % w])];
            }
            contrast_normalise(y, f64::from(self.scale));
        }
        vec![y]
    }
}

/// Normalises the contrast of one image, in double precision.
pub fn contrast_normalise(image: &mut [f64], scale: f64) {
    let mean = image.iter().sum::<f64>() / image.len() as f64;
    image.iter_mut().for_each(|value| *value -= mean);
    let norm = image.iter().map(|value| value * value).sum::<f64>().sqrt();
    let factor = if norm >= LEAST_NORM { scale / norm } else { 0.0 };
    image.iter_mut().for_each(|value| *value *= factor);
}

pub(super) fn cases(_quick: bool) -> Vec<Case> {
    let case = |name: &str, fact: Fact, values: &dyn Fn(usize, f32) -> f32| Case {
        name: name.into(),
        op: Arc::new(ContrastNormalise { scale: CONTRAST_SCALE as f32 }),
        inputs: vec![(fact.clone(), random_reals(&fact.shape, 5).into_iter().enumerate().map(|(i, v)| values(i, v)).collect())],
        step: Step::default(),
        tolerance: vec![Tolerance::Relative { relative: 2e-5, absolute: 2e-5 }],
    };
    let random = |_, value: f32| 0.5 + 0.5 * value;
    vec![
        case("3x32x32", Fact::activation(3, 3, 32, 32), &random),
        case("1x5x3, more words than values", Fact::activation(2, 1, 5, 3), &random),
        case("4 channels, fewer values than lanes", Fact::activation(5, 4, 2, 3), &random),
        case("hardly any contrast", Fact::activation(2, 3, 9, 7), &|i, _| if i % 100 == 3 { 0.5 + 1.0 / 255.0 } else { 0.5 }),
        case("one colour", Fact::activation(2, 3, 32, 32), &|_, _| 0.7),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_with_contrast_has_mean_0_and_the_same_norm() {
        let mut image = vec![0.25, 0.5, 1.0, 0.0];
        contrast_normalise(&mut image, CONTRAST_SCALE);
        assert!(image.iter().sum::<f64>().abs() < 1e-12);
        assert!((image.iter().map(|v| v * v).sum::<f64>().sqrt() - CONTRAST_SCALE).abs() < 1e-9);
        // A change of brightness and contrast does not show.
        let mut changed = vec![0.325, 0.45, 0.7, 0.2];
        contrast_normalise(&mut changed, CONTRAST_SCALE);
        assert!(image.iter().zip(&changed).all(|(a, b)| (a - b).abs() < 1e-9));
        let mut flat = vec![0.7; 5];
        contrast_normalise(&mut flat, CONTRAST_SCALE);
        assert_eq!(flat, [0.0; 5]);
    }
}
