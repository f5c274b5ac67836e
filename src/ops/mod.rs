//! The layers: one file each, with shape rule, gradient rule, lowering to kernels, f64 reference and test cases.
//!
//! Adding a layer: its shader in `shaders/`, its file here, and one line in [`REGISTRY`]. From the registry follow the comparison of
//! its kernels with the reference and the self-check, from the shader file validation and translation to every backend. Its gradient
//! rule is compared with finite differences where a graph in `src/passes/tests.rs` has the layer. CONTRIBUTING.md has every step.

mod add;
mod augment;
mod avg_pool2d;
mod cast;
mod clip_norm;
mod contrast_normalise;
pub mod conv2d;
mod cross_entropy;
mod dropout;
mod ema;
mod global_avg_pool;
mod head;
mod image_input;
mod layers;
mod loss_scale;
mod max_pool2d;
mod metrics;
mod optimizer;
mod pool;
mod relu;
mod softmax;
mod whiten;

pub use add::Add;
pub use augment::{Augment, AugmentVector};
pub use avg_pool2d::{AvgPool2d, AvgPool2dBackward, avg_pool2d_cases};
pub use cast::Cast;
pub use clip_norm::ClipNorm;
pub use contrast_normalise::{CONTRAST_SCALE, ContrastNormalise, contrast_normalise};
pub use conv2d::{Conv2d, Conv2dBackwardInput, Conv2dBackwardWeight};
pub use cross_entropy::{CrossEntropyBackward, SoftmaxCrossEntropy};
pub use dropout::Dropout;
pub use ema::Ema;
pub use global_avg_pool::{GlobalAvgPool, GlobalAvgPoolBackward};
pub use head::Head;
pub use image_input::{ImageInput, MOST_PARTS};
pub use loss_scale::{GROWTH_INTERVAL, LossScale};
pub use max_pool2d::{MaxPool2d, MaxPool2dBackward, max_pool2d_cases};
pub use metrics::Metrics;
pub use optimizer::{Multiplier, Optimizer, WORDS_OF_A_BLOCK, accumulate, start_sum};
pub use relu::{Relu, ReluBackward};
pub use softmax::Softmax;
pub use whiten::Whiten;

use crate::graph::Case;
use crate::rng::{Stream, purpose};
use crate::shape::{Fact, Layout, Shape, ShapeError};

/// An entry of the registry.
pub struct Layer {
    /// Name as in [`crate::graph::Op::name`].
    pub name: &'static str,
    /// Test cases; with `quick` only a few, for the self-check's short form.
    pub cases: fn(quick: bool) -> Vec<Case>,
    /// The cases for kernels in half precision, whose exact ones have results that it holds.
    pub half_cases: fn(quick: bool) -> Vec<Case>,
}

impl Layer {
    /// A layer whose cases suit both precisions.
    const fn new(name: &'static str, cases: fn(bool) -> Vec<Case>) -> Self {
        Layer { name, cases, half_cases: cases }
    }
}

/// Every layer there is.
pub static REGISTRY: &[Layer] = &[
    Layer::new("add", add::cases),
    Layer { half_cases: conv2d::half_cases, ..Layer::new("conv2d", conv2d::cases) },
    Layer::new("relu", relu::cases),
    Layer::new("max_pool2d", max_pool2d::cases),
    Layer::new("avg_pool2d", avg_pool2d::cases),
    Layer::new("global_avg_pool", global_avg_pool::cases),
    Layer::new("dropout", dropout::cases),
    Layer::new("image_input", image_input::cases),
    Layer::new("contrast_normalise", contrast_normalise::cases),
    Layer::new("whiten", whiten::cases),
    Layer::new("augment", augment::cases),
    Layer::new("softmax", softmax::cases),
    Layer::new("cross_entropy", cross_entropy::cases),
    Layer::new("head", head::cases),
    Layer::new("metrics", metrics::cases),
    Layer::new("cast", cast::cases),
];

/// Fails unless all inputs have one shape and layout.
fn same_facts(inputs: &[&Fact]) -> Result<(), ShapeError> {
    for other in &inputs[1..] {
        if *other != inputs[0] {
            return Err(ShapeError::Mismatch { expected: inputs[0].shape.to_string(), got: other.shape.to_string() });
        }
    }
    Ok(())
}

/// Images and classes of logits `[N, C, 1, 1]`.
fn logits_dims(logits: &Fact) -> Result<[usize; 2], ShapeError> {
    match logits.shape.four() {
        [images, classes, 1, 1] if logits.layout == Layout::Activation && classes > 0 => Ok([images, classes]),
        _ => Err(ShapeError::Mismatch { expected: "logits of one pixel".into(), got: logits.shape.to_string() }),
    }
}

/// Test data: reals in [-1, 1), different for every `seed`.
fn random_reals(shape: &Shape, seed: u32) -> Vec<f32> {
    let mut rng = Stream::new(u64::from(seed), 0, 0, purpose::SYNTHETIC);
    (0..shape.elements()).map(|_| rng.uniform() * 2.0 - 1.0).collect()
}

/// Test data: whole numbers in [-radius, radius], so that sums are exact in any order.
fn random_integers(shape: &Shape, seed: u32, radius: u32) -> Vec<f32> {
    let mut rng = Stream::new(u64::from(seed), 1, 0, purpose::SYNTHETIC);
    (0..shape.elements()).map(|_| rng.below(2 * radius + 1) as f32 - radius as f32).collect()
}
