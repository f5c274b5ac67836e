//! Dynamic loss scaling: what keeps gradients inside the range of half precision.
//!
//! Its state is one small buffer that stays on the device: the loss's gradient is multiplied by the scale in it
//! ([`CrossEntropyBackward`](super::CrossEntropyBackward), [`Head`](super::Head)), and around the update
//! ([`Optimizer::dispatch`](super::Optimizer::dispatch)) two dispatches look for an overflow and move the scale.

use super::Optimizer;
use crate::kernels::{Dispatch, loss_scale, workgroups_for};
use crate::shape::Fact;

/// Updates without an overflow after which the scale doubles, as in PyTorch's `GradScaler`.
pub const GROWTH_INTERVAL: u32 = 2000;
/// The scale stays at or below this.
const LARGEST_SCALE: f32 = (1u32 << 24) as f32;
/// What a run starts with, as in PyTorch's `GradScaler`.
const FIRST_SCALE: f32 = (1u32 << 16) as f32;
/// Words of the state: those of `LossScale` in `shaders/shared/loss_scale.wgsl`.
const WORDS: usize = 7;
/// Gradients that an invocation of `find_overflow` looks at.
const WORDS_EACH: usize = 8;

/// The state of loss scaling between two steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    /// What the loss's gradient is multiplied by: a power of two.
    pub scale: f32,
    /// Updates since the scale last changed.
    pub good_steps: u32,
    /// Steps of the run that were left out because a gradient overflowed.
    pub skipped_steps: u32,
    /// Adam's bias corrections of the last update; 0 for other rules.
    pub bias_corrections: [f32; 2],
}

impl Default for LossScale {
    /// The start of a run.
    fn default() -> Self {
        LossScale { scale: FIRST_SCALE, good_steps: 0, skipped_steps: 0, bias_corrections: [0.0; 2] }
    }
}

impl LossScale {
    /// The state as a value of a graph. References see the scale in its first element, and no other.
    pub fn fact() -> Fact {
        Fact::plain(&[WORDS])
    }

    /// The words of device memory.
    pub fn to_words(self) -> [u32; WORDS] {
        let [one, two] = self.bias_corrections.map(f32::to_bits);
        [self.scale.to_bits(), (1.0 / self.scale).to_bits(), self.good_steps, self.skipped_steps, one, two, 0]
    }

    /// The words of device memory, read back; missing ones count as 0.
    pub fn from_words(words: &[u32]) -> Self {
        let word = |index: usize| words.get(index).copied().unwrap_or_default();
        LossScale {
            scale: f32::from_bits(word(0)),
            good_steps: word(2),
            skipped_steps: word(3),
            bias_corrections: [4, 5].map(|index| f32::from_bits(word(index))),
        }
    }

    /// Notes in `state` whether one of `words` gradients is not finite; runs before the optimizer.
    pub fn find_overflow<B>(words: usize, gradients: B, state: B) -> Dispatch<B> {
        let params = loss_scale::Params { words: words as u32, ..Default::default() };
        loss_scale::find_overflow(params, gradients, state, workgroups_for(&loss_scale::FIND_OVERFLOW, words.div_ceil(WORDS_EACH)))
    }

    /// Counts the step and moves the scale; runs after the optimizer.
    pub fn update<B>(optimizer: &Optimizer, growth_interval: u32, state: B) -> Dispatch<B> {
        let (one_minus_beta1, one_minus_beta2) = match *optimizer {
            Optimizer::Sgd { .. } => (0.0, 0.0),
            Optimizer::Adam { beta1, beta2, .. } => ((1.0 - beta1) as f32, (1.0 - beta2) as f32),
        };
        let params =
            loss_scale::Params { growth_interval, largest_scale: LARGEST_SCALE, one_minus_beta1, one_minus_beta2, ..Default::default() };
        loss_scale::update(params, state, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_state_are_inverse() {
        let state = LossScale { scale: 1024.0, good_steps: 7, skipped_steps: 3, bias_corrections: [0.1, 0.001] };
        assert_eq!(LossScale::from_words(&state.to_words()), state);
        assert_eq!(f32::from_bits(state.to_words()[1]), 1.0 / 1024.0);
        assert_eq!(LossScale::fact().words(), LossScale::default().to_words().len());
    }

    #[test]
    fn every_gradient_is_looked_at() {
        for words in [1, 511, 512, 513, 1 << 20] {
            let dispatch = LossScale::find_overflow(words, "gradients", "state");
            let seen = dispatch.workgroups * 64 * WORDS_EACH as u64;
            assert!(seen >= words as u64 && seen < words as u64 + 512, "{words}");
        }
    }
}
