//! Clipping of gradients by their global norm, on the device: three dispatches before the update.

use crate::kernels::{Dispatch, clip_norm, workgroups_for};

/// Gradients that a workgroup of `clip_norm::squares` adds up: threads times the gradients of each.
const WORDS_OF_A_GROUP: usize = 64 * 32;

/// Keeps the norm of all gradients together at or below a limit, as PyTorch's `clip_grad_norm_`:
/// `g *= min(1, max_norm / (|g| + 1e-6))`. Sums have a fixed order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipNorm {
    /// The limit.
    pub max_norm: f64,
}

impl ClipNorm {
    /// Dispatches of the clipping.
    pub const DISPATCHES: usize = 3;
    /// Bytes of the result: the factor and the norm.
    pub const RESULT_BYTES: u64 = 8;

    /// Bytes of the partial sums over `words` gradients.
    pub fn partial_bytes(words: usize) -> u64 {
        (words.div_ceil(WORDS_OF_A_GROUP) * 4) as u64
    }

    /// The dispatches for `words` gradients, in order, each with a name. `partials` has [`ClipNorm::partial_bytes`], `result`
    /// [`ClipNorm::RESULT_BYTES`]. With `loss_scale` the gradients are multiplied by its scale, and the norm without it counts.
    pub fn dispatches<B: Clone>(
        &self,
        words: usize,
        gradients: B,
        partials: B,
        result: B,
        loss_scale: Option<B>,
    ) -> [(&'static str, Dispatch<B>); Self::DISPATCHES] {
        let groups = words.div_ceil(WORDS_OF_A_GROUP);
        let params = clip_norm::Params { words: words as u32, groups: groups as u32, max_norm: self.max_norm as f32, ..Default::default() };
        let factor = match loss_scale {
            None => clip_norm::factor(params, partials.clone(), result.clone(), 1),
            Some(scale) => clip_norm::factor_scaled(params, partials.clone(), result.clone(), scale, 1),
        };
        [
            ("gradient_squares", clip_norm::squares(params, gradients.clone(), partials, groups as u64)),
            ("clip_factor", factor),
            ("clip", clip_norm::apply(params, result, gradients, workgroups_for(&clip_norm::APPLY, words))),
        ]
    }

    /// The gradients after clipping, in double precision; returns their norm before.
    pub fn reference(&self, gradients: &mut [f64]) -> f64 {
        let norm = gradients.iter().map(|g| g * g).sum::<f64>().sqrt();
        let factor = (self.max_norm / (norm + 1e-6)).min(1.0);
        gradients.iter_mut().for_each(|g| *g *= factor);
        norm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_keeps_the_direction() {
        let clip = ClipNorm { max_norm: 1.0 };
        let mut gradients = [3.0, -4.0];
        assert_eq!(clip.reference(&mut gradients), 5.0);
        assert!((gradients[0] - 0.6).abs() < 1e-6 && (gradients[1] + 0.8).abs() < 1e-6, "{gradients:?}");
        let mut short = [0.3, -0.4];
        clip.reference(&mut short);
        assert_eq!(short, [0.3, -0.4]);
    }

    #[test]
    fn every_gradient_is_in_a_group() {
        for words in [1, 2047, 2048, 2049, 1 << 20] {
            let [squares, factor, apply] = ClipNorm { max_norm: 1.0 }.dispatches(words, "g", "p", "r", None);
            assert_eq!(squares.1.workgroups, words.div_ceil(WORDS_OF_A_GROUP) as u64);
            assert_eq!(ClipNorm::partial_bytes(words), squares.1.workgroups * 4);
            assert_eq!((factor.1.workgroups, apply.1.workgroups), (1, words.div_ceil(64) as u64));
        }
    }
}
