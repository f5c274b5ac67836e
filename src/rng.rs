//! Counter-based random numbers: Philox4x32-10.
//!
//! A Philox block is a pure function of a 128-bit counter and a 64-bit key, so any number of any
//! stream can be computed on its own, in any order, on the host and in a shader alike
//! (`shaders/shared/rng.wgsl` is the same function). The key is the run's seed; the counter is
//! `(element / 4, node, step, purpose)`, which is why nothing random is ever stored: a dropout mask
//! or a shuffle is computed again from its coordinates, and a resumed run sees the same numbers.
//!
//! Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011,
//! and the known-answer vectors of the authors' Random123 library.

use std::f64::consts::TAU;

/// Last word of a counter: what the numbers are for. Two uses never share a stream.
pub mod purpose {
    /// Order of the images in an epoch; the `step` word holds the epoch.
    pub const SHUFFLE: u32 = 1;
    /// Initial values of the parameters; the `node` word holds the parameter's index.
    pub const INIT: u32 = 2;
    /// Dropout masks, drawn in shaders.
    pub const DROPOUT: u32 = 3;
    /// Augmentation of training images; the `node` word holds the image's index in its data set.
    pub const AUGMENT: u32 = 4;
    /// Data made up for tests, self-checks and benchmarks.
    pub const SYNTHETIC: u32 = 5;
}

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: u32 = 10;

/// The four random words of one counter under one key (Philox4x32 with ten rounds).
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        let product0 = u64::from(MULTIPLIERS[0]) * u64::from(c0);
        let product1 = u64::from(MULTIPLIERS[1]) * u64::from(c2);
        (c0, c1, c2, c3) = ((product1 >> 32) as u32 ^ c1 ^ k0, product1 as u32, (product0 >> 32) as u32 ^ c3 ^ k1, product0 as u32);
        k0 = k0.wrapping_add(KEY_STEPS[0]);
        k1 = k1.wrapping_add(KEY_STEPS[1]);
    }
    [c0, c1, c2, c3]
}

/// A seed as a Philox key: low word first, as the shaders have it in `step.seed_lo, step.seed_hi`.
pub fn key(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

/// A random word as a number in [0, 1): its top 24 bits, so that the result is exact in f32.
pub fn uniform01(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// A sequence of random numbers at one place (`node`, `step`, `purpose`) of a seed's space.
///
/// Its n-th word is word `n % 4` of the block with counter `(n / 4, node, step, purpose)`.
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    /// Counter of the block that follows `block`.
    counter: [u32; 4],
    block: [u32; 4],
    /// Words of `block` already handed out.
    used: usize,
    /// Second value of the last Box-Muller pair.
    spare_normal: Option<f64>,
}

impl Stream {
    /// The stream of `seed` at `(node, step, purpose)`, from its first word on.
    pub fn new(seed: u64, node: u32, step: u32, purpose: u32) -> Self {
        Self { key: key(seed), counter: [0, node, step, purpose], block: [0; 4], used: 4, spare_normal: None }
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox4x32(self.counter, self.key);
            // 2^34 words a stream: no use here comes near the end of it.
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        let word = self.block[self.used];
        self.used += 1;
        word
    }

    /// The next number, uniform in [0, 1), a multiple of 2^-24.
    pub fn uniform(&mut self) -> f32 {
        uniform01(self.next_u32())
    }

    /// The next number, uniform in [low, high) but for rounding.
    pub fn uniform_in(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// The next number of the standard normal distribution (Box and Muller, 1958, in f64).
    pub fn normal(&mut self) -> f32 {
        if let Some(value) = self.spare_normal.take() {
            return value as f32;
        }
        // In (0, 1]: the logarithm below stays finite.
        let radius_bits = u64::from(self.next_u32()) << 21 | u64::from(self.next_u32()) >> 11;
        let radius_uniform = (radius_bits + 1) as f64 / (1u64 << 53) as f64;
        let angle = TAU * f64::from(self.next_u32()) / 4_294_967_296.0;
        let radius = (-2.0 * radius_uniform.ln()).sqrt();
        self.spare_normal = Some(radius * angle.sin());
        (radius * angle.cos()) as f32
    }

    /// The next whole number, uniform in `0..bound` without bias; 0 where `bound` is 0.
    ///
    /// Source: Lemire, "Fast Random Integer Generation in an Interval", TOMACS 2019.
    pub fn below(&mut self, bound: u32) -> u32 {
        let mut product = u64::from(self.next_u32()) * u64::from(bound);
        if (product as u32) < bound {
            let reject_below = bound.wrapping_neg() % bound;
            while (product as u32) < reject_below {
                product = u64::from(self.next_u32()) * u64::from(bound);
            }
        }
        (product >> 32) as u32
    }
}

/// A random order of `0..len`, the same for the same `(len, seed, epoch)` everywhere
/// (Fisher and Yates's shuffle over [`Stream`] `(seed, 0, epoch, SHUFFLE)`).
pub fn permutation(len: u32, seed: u64, epoch: u32) -> Vec<u32> {
    let mut stream = Stream::new(seed, 0, epoch, purpose::SHUFFLE);
    let mut order: Vec<u32> = (0..len).collect();
    for last in (1..len).rev() {
        let other = stream.below(last + 1);
        order.swap(last as usize, other as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of Random123's `kat_vectors`, lines `philox4x32 10`.
    #[test]
    fn philox_gives_the_known_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox4x32([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(
            philox4x32([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn a_stream_reads_its_blocks_in_order() {
        let mut stream = Stream::new(0x1122_3344_5566_7788, 7, 8, 9);
        let words: Vec<u32> = (0..8).map(|_| stream.next_u32()).collect();
        let key = [0x5566_7788, 0x1122_3344];
        assert_eq!(words[..4], philox4x32([0, 7, 8, 9], key));
        assert_eq!(words[4..], philox4x32([1, 7, 8, 9], key));
    }

    #[test]
    fn uniform_stays_below_one() {
        assert_eq!(uniform01(0), 0.0);
        assert_eq!(uniform01(u32::MAX), 1.0 - 1.0 / 16_777_216.0);
        assert_eq!(uniform01(0x8000_0000), 0.5);
        let mut stream = Stream::new(1, 0, 0, purpose::SYNTHETIC);
        let mean = (0..10_000).map(|_| f64::from(stream.uniform())).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.01, "mean {mean}");
    }

    #[test]
    fn normal_has_mean_zero_and_variance_one() {
        let mut stream = Stream::new(2, 0, 0, purpose::SYNTHETIC);
        let values: Vec<f64> = (0..20_000).map(|_| f64::from(stream.normal())).collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
        let fourth = values.iter().map(|v| (v - mean).powi(4)).sum::<f64>() / count;
        assert!(mean.abs() < 0.03, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.05, "variance {variance}");
        assert!((fourth - 3.0).abs() < 0.3, "fourth moment {fourth}");
    }

    #[test]
    fn below_is_even_and_in_range() {
        let mut stream = Stream::new(3, 0, 0, purpose::SYNTHETIC);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[stream.below(7) as usize] += 1;
        }
        assert!(counts.iter().all(|&n| (9_600..10_400).contains(&n)), "{counts:?}");
        assert_eq!(stream.below(1), 0);
        assert_eq!(stream.below(0), 0);
        // A bound just above 2^31 rejects nearly half of all words: bias would show in the mean.
        let bound = (1u32 << 31) + 1;
        let mean = (0..20_000).map(|_| f64::from(stream.below(bound))).sum::<f64>() / 20_000.0;
        assert!((mean / f64::from(bound) - 0.5).abs() < 0.01);
    }

    #[test]
    fn a_permutation_holds_every_index_once_and_depends_on_seed_and_epoch() {
        let order = permutation(1000, 42, 3);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..1000));
        assert_eq!(order, permutation(1000, 42, 3));
        assert_ne!(order, permutation(1000, 42, 4));
        assert_ne!(order, permutation(1000, 43, 3));
        assert_ne!(order, sorted);
        assert!(permutation(0, 1, 1).is_empty());
        assert_eq!(permutation(1, 1, 1), [0]);
    }
}
