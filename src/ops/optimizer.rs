//! Parameter updates: one dispatch over the buffer of all parameters, which is why they are not nodes of the graph.
//!
//! Parameters, gradients and optimizer state lie alike in their buffers; gaps hold zeros and stay zero.

use crate::kernels::{Dispatch, Step, adam, add, sgd, workgroups_for};

/// PyTorch's `SGD` (without dampening), `Adam` and `AdamW`, their definitions to the letter. The learning rate and Adam's bias
/// corrections come with the step ([`Step::learning_rate`], [`Optimizer::bias_corrections`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimizer {
    /// `g' = g + weight_decay·w; v = momentum·v + g'; w -= lr·v`, with `nesterov` `w -= lr·(g' + momentum·v)`.
    Sgd {
        /// Share of the velocity that is kept; 0 needs no state.
        momentum: f64,
        /// Look ahead along the velocity.
        nesterov: bool,
        /// L2 penalty on every parameter.
        weight_decay: f64,
    },
    /// `m` and `v` are running means of `g'` and `g'²`; `w -= lr/(1-β1ᵗ) · m / (√v/√(1-β2ᵗ) + epsilon)`.
    Adam {
        /// Decay of the mean of gradients.
        beta1: f64,
        /// Decay of the mean of squared gradients.
        beta2: f64,
        /// Keeps the divisor above zero.
        epsilon: f64,
        /// Decay of every parameter.
        weight_decay: f64,
        /// Takes the decay from the parameter, `w -= lr·weight_decay·w`, instead of adding it to the gradient: AdamW
        /// (Loshchilov and Hutter 2017, arXiv 1711.05101).
        decoupled: bool,
    },
}

/// Words of a parameter buffer that have one [`Multiplier`]: every parameter starts at a multiple of so many.
pub const WORDS_OF_A_BLOCK: usize = 64;

/// What the learning rate and the weight decay are multiplied by for one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Multiplier {
    /// Of the learning rate; 0 leaves the parameter as it is.
    pub lr: f32,
    /// Of the weight decay.
    pub decay: f32,
}

impl Default for Multiplier {
    fn default() -> Self {
        Multiplier { lr: 1.0, decay: 1.0 }
    }
}

impl Multiplier {
    /// Bytes of the multipliers for a buffer of `words` scalars.
    pub fn bytes(words: usize) -> u64 {
        (words.div_ceil(WORDS_OF_A_BLOCK) * 8) as u64
    }

    /// The two words of device memory.
    pub fn to_words(self) -> [f32; 2] {
        [self.lr, self.decay]
    }
}

impl Optimizer {
    /// Names of the buffers kept from step to step, each as large as the parameters and zero at first.
    pub fn state_buffers(&self) -> &'static [&'static str] {
        match self {
            Optimizer::Sgd { momentum: 0.0, .. } => &[],
            Optimizer::Sgd { .. } => &["momentum"],
            Optimizer::Adam { .. } => &["exp_avg", "exp_avg_sq"],
        }
    }

    /// `(1 - β1ᵗ, 1 - β2ᵗ)` at optimizer step `t`, counted from 1; ones where the rule has none.
    pub fn bias_corrections(&self, t: u32) -> (f32, f32) {
        match *self {
            Optimizer::Sgd { .. } => (1.0, 1.0),
            Optimizer::Adam { beta1, beta2, .. } => ((1.0 - beta1.powf(f64::from(t))) as f32, (1.0 - beta2.powf(f64::from(t))) as f32),
        }
    }

    /// The update of `words` scalars. `state` holds one buffer for each of [`Optimizer::state_buffers`], in that order;
    /// fewer are a programming error and panic. `multipliers` holds a [`Multiplier`] for each block of scalars. With the
    /// `loss_scale` of a [`LossScale`](super::LossScale) gradients are multiplied by it: nothing changes where that has noted an
    /// overflow, and Adam's bias corrections are those in it, not the step's.
    pub fn dispatch<B: Clone>(
        &self,
        words: usize,
        parameters: B,
        gradients: B,
        state: &[B],
        multipliers: B,
        loss_scale: Option<B>,
    ) -> Dispatch<B> {
        assert_eq!(state.len(), self.state_buffers().len(), "state buffers of {self:?}");
        match *self {
            Optimizer::Sgd { momentum, nesterov, weight_decay } => {
                let params = sgd::Params {
                    words: words as u32,
                    momentum: momentum as f32,
                    nesterov: nesterov.into(),
                    weight_decay: weight_decay as f32,
                };
                let workgroups = workgroups_for(&sgd::UPDATE, words);
                match (state, loss_scale) {
                    ([], None) => sgd::update(params, parameters, gradients, multipliers, workgroups),
                    ([], Some(scale)) => sgd::update_scaled(params, parameters, gradients, scale, multipliers, workgroups),
                    ([velocity, ..], None) => {
                        sgd::update_with_momentum(params, parameters, gradients, velocity.clone(), multipliers, workgroups)
                    }
                    ([velocity, ..], Some(scale)) => {
                        sgd::update_with_momentum_scaled(params, parameters, gradients, velocity.clone(), scale, multipliers, workgroups)
                    }
                }
            }
            Optimizer::Adam { beta1, beta2, epsilon, weight_decay, decoupled } => {
                let params = adam::Params {
                    words: words as u32,
                    one_minus_beta1: (1.0 - beta1) as f32,
                    beta2: beta2 as f32,
                    one_minus_beta2: (1.0 - beta2) as f32,
                    epsilon: epsilon as f32,
                    weight_decay: weight_decay as f32,
                    decoupled: decoupled.into(),
                    ..Default::default()
                };
                let workgroups = workgroups_for(&adam::UPDATE, words);
                let (mean, square) = (state[0].clone(), state[1].clone());
                match loss_scale {
                    None => adam::update(params, parameters, gradients, mean, square, multipliers, workgroups),
                    Some(scale) => adam::update_scaled(params, parameters, gradients, mean, square, scale, multipliers, workgroups),
                }
            }
        }
    }

    /// The update in double precision of scalars with one multiplier. `state` is laid out as for [`Optimizer::dispatch`].
    pub fn reference_step(&self, step: &Step, multiplier: Multiplier, parameters: &mut [f64], gradients: &[f64], state: &mut [Vec<f64>]) {
        let rate = f64::from(step.learning_rate) * f64::from(multiplier.lr);
        let decay = f64::from(multiplier.decay);
        for (i, (w, gradient)) in parameters.iter_mut().zip(gradients).enumerate() {
            match *self {
                Optimizer::Sgd { momentum, nesterov, weight_decay } => {
                    let g = gradient + weight_decay * decay * *w;
                    let velocity = momentum * state.first().map_or(0.0, |v| v[i]) + g;
                    if let Some(kept) = state.first_mut() {
                        kept[i] = velocity;
                    }
                    *w -= rate * if nesterov { g + momentum * velocity } else { velocity };
                }
                Optimizer::Adam { beta1, beta2, epsilon, weight_decay, decoupled } => {
                    let g = if decoupled { *gradient } else { gradient + weight_decay * decay * *w };
                    if decoupled {
                        *w *= 1.0 - rate * weight_decay * decay;
                    }
                    let mean = beta1 * state[0][i] + (1.0 - beta1) * g;
                    let square = beta2 * state[1][i] + (1.0 - beta2) * g * g;
                    (state[0][i], state[1][i]) = (mean, square);
                    let (correction1, correction2) = (f64::from(step.bias_correction1), f64::from(step.bias_correction2));
                    let denominator = (square / correction2).sqrt() + epsilon;
                    if mean != 0.0 {
                        *w -= rate / correction1 * mean / denominator;
                    }
                }
            }
        }
    }
}

/// `sum = gradients` over `words` scalars: the first micro-batch.
pub fn start_sum<B>(words: usize, sum: B, gradients: B) -> Dispatch<B> {
    let params = add::Params { words: words as u32, ..Default::default() };
    add::copy(params, gradients, sum, workgroups_for(&add::COPY, words))
}

/// `sum += gradients` over `words` scalars: the gradients of several micro-batches add up to those of the batch.
pub fn accumulate<B>(words: usize, sum: B, gradients: B) -> Dispatch<B> {
    let params = add::Params { words: words as u32, ..Default::default() };
    add::forward_in_place(params, gradients, sum, workgroups_for(&add::FORWARD_IN_PLACE, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(optimizer: &Optimizer, t: u32) -> Step {
        let (bias_correction1, bias_correction2) = optimizer.bias_corrections(t);
        Step { learning_rate: 0.5, bias_correction1, bias_correction2, ..Default::default() }
    }

    #[test]
    fn references_follow_the_definitions() {
        let sgd = Optimizer::Sgd { momentum: 0.5, nesterov: false, weight_decay: 0.25 };
        let (mut w, mut state) = ([4.0], [vec![0.0]]);
        sgd.reference_step(&step(&sgd, 1), Multiplier::default(), &mut w, &[1.0], &mut state);
        assert_eq!((w[0], state[0][0]), (3.0, 2.0));
        sgd.reference_step(&step(&sgd, 2), Multiplier::default(), &mut w, &[0.25], &mut state);
        assert_eq!((w[0], state[0][0]), (2.0, 2.0));

        let nesterov = Optimizer::Sgd { momentum: 0.5, nesterov: true, weight_decay: 0.0 };
        let (mut w, mut state) = ([4.0], [vec![0.0]]);
        nesterov.reference_step(&step(&nesterov, 1), Multiplier::default(), &mut w, &[2.0], &mut state);
        assert_eq!((w[0], state[0][0]), (2.5, 2.0));

        // Adam's first step is the learning rate against the gradient's sign.
        let adam = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 0.0, weight_decay: 0.0, decoupled: false };
        let (mut w, mut state) = ([4.0, 4.0, 0.0], [vec![0.0; 3], vec![0.0; 3]]);
        adam.reference_step(&step(&adam, 1), Multiplier::default(), &mut w, &[3.0, -0.01, 0.0], &mut state);
        assert!((w[0] - 3.5).abs() < 1e-6 && (w[1] - 4.5).abs() < 1e-6 && w[2] == 0.0, "{w:?}");

        // AdamW: the decay does not pass through the means; multipliers act on both parts.
        let adamw = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 0.0, weight_decay: 0.5, decoupled: true };
        let (mut w, mut state) = ([4.0], [vec![0.0], vec![0.0]]);
        adamw.reference_step(&step(&adamw, 1), Multiplier { lr: 0.5, decay: 2.0 }, &mut w, &[3.0], &mut state);
        assert!((w[0] - (4.0 * (1.0 - 0.25) - 0.25)).abs() < 1e-6, "{w:?}");
    }

    #[test]
    fn state_follows_the_rule() {
        let plain = Optimizer::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.1 };
        assert!(plain.state_buffers().is_empty());
        assert_eq!(plain.dispatch(65, "w", "g", &[], "by", None).buffers, ["w", "g", "by"]);
        assert_eq!(plain.dispatch(65, "w", "g", &[], "by", None).workgroups, 2);
        let adam = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, decoupled: false };
        assert_eq!(adam.dispatch(64, "w", "g", &["m", "v"], "by", None).buffers, ["w", "g", "m", "v", "by"]);
        assert_eq!((Multiplier::bytes(64), Multiplier::bytes(65)), (8, 16));
        assert_eq!(accumulate(1, "sum", "g").buffers, ["g", "sum"]);
    }
}
