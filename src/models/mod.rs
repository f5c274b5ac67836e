//! The models: plain functions that fill an `nn.Sequential`, and the graphs for training and inference around them.

mod memory;
mod network;
mod nin;
mod training;

pub use memory::{DEFAULT_AUTO_BYTES, Memory, MemoryOfModel, READBACKS, compiled, largest_batch, memory};
pub use network::{
    BuildError, CompiledNetwork, InputOptions, InputPart, METRICS_RING, Network, Purpose, Resident, compile, input_part, network,
};
pub use training::{EMA_STATE, LayerMultipliers, Training, unknown_path};

use crate::graph::{Builder, Graph, GraphError, Scope, ValueId};
use crate::shape::Fact;

/// What a model is adapted to.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelOptions {
    /// Number of classes.
    pub classes: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Height and width of the input.
    pub image_size: [usize; 2],
    /// Probability of dropping an activation while training; 0 for inference.
    pub dropout: f32,
}

/// A named model.
pub struct Model {
    /// Name on the command line and in weight files.
    pub name: &'static str,
    /// One line for help texts.
    pub about: &'static str,
    /// Its published form; `dropout` is the training default.
    pub defaults: ModelOptions,
    build: fn(&mut Scope<'_>, &ModelOptions) -> Result<(), GraphError>,
}

/// Every model there is.
pub static MODELS: &[Model] = &[
    Model {
        name: "nin",
        about: "Network in Network as in d2l.ai: 1x224x224, blocks of 96, 256, 384 channels",
        defaults: ModelOptions { classes: 10, in_channels: 1, image_size: [224, 224], dropout: 0.5 },
        build: nin::nin,
    },
    Model {
        name: "nin-one-1x1",
        about: "nin with one 1x1 convolution a block instead of two: an ablation",
        defaults: ModelOptions { classes: 10, in_channels: 1, image_size: [224, 224], dropout: 0.5 },
        build: nin::nin_one_1x1,
    },
    Model {
        name: "nin-cifar",
        about: "the paper's CIFAR network: 3x32x32, blocks of 192 channels",
        defaults: ModelOptions { classes: 10, in_channels: 3, image_size: [32, 32], dropout: 0.5 },
        build: nin::nin_cifar,
    },
    Model {
        name: "nin-imagenet",
        about: "the Caffe model zoo's ImageNet network: 3x224x224, 1000 classes",
        defaults: ModelOptions { classes: 1000, in_channels: 3, image_size: [224, 224], dropout: 0.5 },
        build: nin::nin_imagenet,
    },
    Model {
        name: "nin-small",
        about: "small and accurate for CPUs and demos: 1x28x28",
        defaults: ModelOptions { classes: 10, in_channels: 1, image_size: [28, 28], dropout: 0.0 },
        build: nin::nin_small,
    },
];

impl Model {
    /// The model of that name.
    pub fn find(name: &str) -> Option<&'static Model> {
        MODELS.iter().find(|m| m.name == name)
    }

    /// Appends the model to `builder`, reading `images`, and returns the logits `[N, classes, 1, 1]`.
    pub fn build(&self, builder: &mut Builder, images: ValueId, options: &ModelOptions) -> Result<ValueId, GraphError> {
        let mut scope = builder.sequential(images);
        (self.build)(&mut scope, options)?;
        Ok(scope.value())
    }

    /// The model alone, for one image, as in inference; for names and shapes of parameters, and for summaries.
    pub fn describe(&self, options: &ModelOptions) -> Result<Graph, GraphError> {
        let mut builder = Builder::new();
        let [h, w] = options.image_size;
        let images = builder.input("images", Fact::activation(1, options.in_channels, h, w));
        self.build(&mut builder, images, &ModelOptions { dropout: 0.0, ..options.clone() })?;
        Ok(builder.graph)
    }
}
