//! The layers as a model writes them: methods that append to an `nn.Sequential`.

use super::{AvgPool2d, Conv2d, Dropout, GlobalAvgPool, MaxPool2d, Relu};
use crate::graph::{GraphError, ParameterRole, Scope};
use crate::shape::{Fact, ShapeError, Window};

impl Scope<'_> {
    /// A convolution with `channels` outputs and a bias.
    pub fn conv2d(&mut self, channels: usize, window: Window) -> Result<(), GraphError> {
        let [_, c, ..] = self.fact().shape.four();
        let [kh, kw] = window.kernel;
        let (fan_in, fan_out) = (c * kh * kw, channels * kh * kw);
        let weight = ("weight", Fact::filter(channels, c, kh, kw), ParameterRole::Weight, fan_in, fan_out);
        let bias = ("bias", Fact::vector(channels), ParameterRole::Bias, fan_in, fan_out);
        self.layer("Conv2d", Some(window), Conv2d { window, relu: false }, &[weight, bias])
    }

    /// `max(0, ·)`.
    pub fn relu(&mut self) -> Result<(), GraphError> {
        self.layer("ReLU", None, Relu, &[])
    }

    /// The largest value of each window.
    pub fn max_pool2d(&mut self, window: Window) -> Result<(), GraphError> {
        self.layer("MaxPool2d", Some(window), MaxPool2d { window }, &[])
    }

    /// The mean of each window, padding counted.
    pub fn avg_pool2d(&mut self, window: Window) -> Result<(), GraphError> {
        self.layer("AvgPool2d", Some(window), AvgPool2d { window }, &[])
    }

    /// Drops activations with `probability`; nothing where that is 0, as in inference.
    pub fn dropout(&mut self, probability: f32) -> Result<(), GraphError> {
        if probability > 0.0 {
            let key = self.builder().next_dropout_key();
            return self.layer("Dropout", None, Dropout { key, probability }, &[]);
        }
        let [_, c, h, w] = self.fact().shape.four();
        self.identity("Dropout", vec![c, h, w]);
        Ok(())
    }

    /// The mean of each channel, `[C, 1, 1]`.
    pub fn global_avg_pool(&mut self) -> Result<(), GraphError> {
        self.layer("AdaptiveAvgPool2d", None, GlobalAvgPool, &[])
    }

    /// `[C, 1, 1]` as `[C]`, which is the same in memory.
    pub fn flatten(&mut self) -> Result<(), GraphError> {
        match self.fact().shape.four() {
            [_, c, 1, 1] => {
                self.identity("Flatten", vec![c]);
                Ok(())
            }
            _ => {
                let error = ShapeError::Mismatch { expected: "one pixel per channel".into(), got: self.fact().shape.to_string() };
                Err(GraphError { path: "flatten".into(), op: "flatten", error })
            }
        }
    }
}
