//! Exponential moving average of the parameters, on the device: one dispatch behind the update.

use crate::kernels::{Dispatch, ema, workgroups_for};

/// `average = d·average + (1 - d)·parameters` behind every update, with `d = min(decay, (1 + t) / (10 + t))` behind update
/// number `t`, counted from 1: as TensorFlow's `ExponentialMovingAverage` with `num_updates`. The average starts as the
/// parameters do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ema {
    /// Share of the average that stays, in [0, 1).
    pub decay: f64,
}

impl Ema {
    /// The decay behind update number `t`, counted from 1.
    pub fn decay_at(&self, t: u32) -> f64 {
        let t = f64::from(t);
        self.decay.min((1.0 + t) / (10.0 + t))
    }

    /// The average of `words` scalars.
    pub fn dispatch<B>(&self, words: usize, parameters: B, average: B) -> Dispatch<B> {
        let params = ema::Params { words: words as u32, decay: self.decay as f32, ..Default::default() };
        ema::update(params, parameters, average, workgroups_for(&ema::UPDATE, words))
    }

    /// The average in double precision, behind update number `t`.
    pub fn reference(&self, t: u32, parameters: &[f64], average: &mut [f64]) {
        let decay = self.decay_at(t);
        for (average, parameter) in average.iter_mut().zip(parameters) {
            *average = decay * *average + (1.0 - decay) * parameter;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_forgotten_soon() {
        let ema = Ema { decay: 0.999 };
        assert_eq!(ema.decay_at(1), 2.0 / 11.0);
        assert_eq!(ema.decay_at(1_000_000), 0.999);
        let mut average = [0.0];
        (1..=100).for_each(|t| ema.reference(t, &[1.0], &mut average));
        assert!(average[0] > 0.99, "{average:?}");
    }
}
