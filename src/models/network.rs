//! The graphs around a model: input kernel in front, loss or probabilities behind, compiled for a device.

use super::{Model, ModelOptions};
use crate::graph::{Builder, Graph, GraphError, ValueId, ValueKind};
use crate::kernels::Target;
use crate::ops::{Augment, ImageInput, Metrics, Softmax, SoftmaxCrossEntropy};
use crate::passes::{self, AutodiffError, CompileOptions, Compiled, PlanError};
use crate::shape::{Fact, Layout, Shape};
use std::sync::Arc;

/// Micro-batches whose metrics the device keeps before the host has to have read them.
pub const METRICS_RING: usize = 1024;

/// A model could not be turned into something to run.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A layer does not fit its input.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The model cannot be trained.
    #[error(transparent)]
    Autodiff(#[from] AutodiffError),
    /// A tensor does not fit the device, even for a single image.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// How stored pictures become the model's input.
#[derive(Clone, Debug, PartialEq)]
pub struct InputOptions {
    /// Channels, height and width of the stored pictures.
    pub source: [usize; 3],
    /// Mean per channel, for pixels in [0, 1].
    pub mean: Vec<f32>,
    /// Standard deviation per channel, for pixels in [0, 1].
    pub std: Vec<f32>,
    /// Random changes while training.
    pub augment: Option<Augment>,
    /// Where the pictures lie, if not in each batch.
    pub resident: Option<Resident>,
}

/// A data set whose pictures lie in device memory, in parts that a binding can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// Pictures in all.
    pub images: usize,
    /// Pictures of a part; the last part may have fewer.
    pub images_per_part: usize,
}

impl Resident {
    /// Pictures of each part.
    pub fn parts(&self) -> impl Iterator<Item = usize> {
        let Resident { images, images_per_part } = *self;
        (0..images).step_by(images_per_part.max(1)).map(move |first| images_per_part.min(images - first))
    }
}

impl InputOptions {
    /// Pictures of the model's own size, unchanged but for the scale to [0, 1].
    pub fn plain(options: &ModelOptions) -> Self {
        let [h, w] = options.image_size;
        InputOptions { source: [options.in_channels, h, w], mean: vec![0.0], std: vec![1.0], augment: None, resident: None }
    }
}

/// What a graph is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Gradients of every parameter, and metrics.
    Train,
    /// A row of results per image: loss, rank of the label, prediction.
    Evaluate,
    /// Probabilities per image, by a program that is expected to run this often.
    Infer {
        /// At least 1.
        runs: usize,
    },
}

impl Purpose {
    /// Runs to expect of the program: training and evaluation go over a data set.
    fn runs(self) -> usize {
        match self {
            Purpose::Train | Purpose::Evaluate => usize::MAX,
            Purpose::Infer { runs } => runs,
        }
    }
}

/// A graph and the values the host reads and writes.
pub struct Network {
    /// The graph, differentiated where it is for training.
    pub graph: Graph,
    /// Stored pictures as bytes: the whole batch, or the parts of the data set.
    pub pixels: Vec<ValueId>,
    /// Class per image of the batch; absent for inference.
    pub labels: Option<ValueId>,
    /// Index in the data set per image of the batch.
    pub ids: ValueId,
    /// What comes back: the metrics ring, the rows or the probabilities.
    pub result: ValueId,
}

/// Builds the graph of `model` for micro-batches of `micro_batch` images out of batches of `batch`.
pub fn network(
    model: &Model,
    options: &ModelOptions,
    input: &InputOptions,
    purpose: Purpose,
    batch: usize,
    micro_batch: usize,
) -> Result<Network, BuildError> {
    let mut builder = Builder::new();
    let [channels, height, width] = input.source;
    let pixels: Vec<ValueId> = match input.resident {
        None => vec![builder.input("pixels", Fact::pixels(batch, channels, height, width))],
        Some(resident) => {
            let parts = resident.parts().enumerate();
            parts.map(|(part, images)| builder.input(&format!("images.{part}"), Fact::pixels(images, channels, height, width))).collect()
        }
    };
    let ids = builder.input("ids", Fact { shape: Shape(vec![batch]), layout: Layout::Index });
    let image_input = ImageInput {
        micro_batch,
        size: options.image_size,
        mean: spread(&input.mean),
        inverse_std: spread(&input.std).map(|s| 1.0 / s),
        augment: input.augment.filter(|_| purpose == Purpose::Train),
        gather: input.resident.is_some(),
    };
    let images = builder.node("input", image_input, &[&pixels[..], &[ids]].concat())?;
    let dropout = if purpose == Purpose::Train { options.dropout } else { 0.0 };
    let logits = model.build(&mut builder, images, &ModelOptions { dropout, ..options.clone() })?;
    if matches!(purpose, Purpose::Infer { .. }) {
        let result = builder.node("head", Softmax, &[logits])?;
        builder.graph.set_kind(result, ValueKind::Output);
        return Ok(Network { graph: builder.graph, pixels, labels: None, ids, result });
    }
    let labels = builder.input("labels", Fact { shape: Shape(vec![batch]), layout: Layout::Index });
    let rows = builder.node("loss", SoftmaxCrossEntropy, &[logits, labels])?;
    let mut network = Network { graph: builder.graph, pixels, labels: Some(labels), ids, result: rows };
    if purpose == Purpose::Evaluate {
        network.graph.set_kind(rows, ValueKind::Output);
    } else {
        let metrics = network.graph.add_single("metrics", Arc::new(Metrics { ring: METRICS_RING }), &[rows])?;
        passes::autodiff(&mut network.graph, rows)?;
        network.graph.set_kind(metrics, ValueKind::State);
        network.result = metrics;
    }
    Ok(network)
}

/// A network compiled for a device, with the micro-batch that fits it.
pub struct CompiledNetwork {
    /// Graph, plan and schedule.
    pub compiled: Compiled,
    /// Values the host reads and writes; its graph is in `compiled`.
    pub pixels: Vec<ValueId>,
    /// As in [`Network`].
    pub labels: Option<ValueId>,
    /// As in [`Network`].
    pub ids: ValueId,
    /// As in [`Network`].
    pub result: ValueId,
    /// Images of one pass over the schedule.
    pub micro_batch: usize,
}

/// Compiles `model` for batches of `batch` images: with the fewest equal micro-batches of at most `max_pass` images
/// whose tensors fit `target`.
#[allow(clippy::too_many_arguments)]
pub fn compile(
    model: &Model,
    options: &ModelOptions,
    input: &InputOptions,
    purpose: Purpose,
    batch: usize,
    max_pass: usize,
    target: &Target,
    switches: CompileOptions,
) -> Result<CompiledNetwork, BuildError> {
    let target = &target.for_runs(purpose.runs());
    let attempt = |micro_batch| {
        let Network { graph, pixels, labels, ids, result } = network(model, options, input, purpose, batch, micro_batch)?;
        let compiled = passes::compile(graph, target, switches)?;
        Ok(CompiledNetwork { compiled, pixels, labels, ids, result, micro_batch })
    };
    let is_too_large = |error: &BuildError| matches!(error, BuildError::Plan(PlanError::TooLarge { .. }));
    let mut micro_batch = batch.div_ceil(batch.div_ceil(max_pass));
    let mut one_fits = false;
    loop {
        match attempt(micro_batch) {
            Err(error) if is_too_large(&error) && micro_batch > 1 => {}
            other => return other,
        }
        // Where not even one image fits, or not the pictures of the whole batch, no part will.
        if !one_fits {
            attempt(1)?;
            one_fits = true;
        }
        micro_batch = batch.div_ceil(batch.div_ceil(micro_batch - 1));
    }
}

/// Device memory that a model needs, from the memory plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Training with one state buffer (SGD with momentum): parameters, gradients, momentum, activations, input.
    pub train_bytes: u64,
    /// Inference: parameters, activations, input.
    pub infer_bytes: u64,
}

/// Memory of `model` at batch `batch`.
pub fn memory(model: &Model, options: &ModelOptions, batch: usize, target: &Target) -> Result<Memory, BuildError> {
    let input = InputOptions::plain(options);
    let switches = CompileOptions::from_env();
    let train = compile(model, options, &input, Purpose::Train, batch, batch, target, switches)?;
    let infer = compile(model, options, &input, Purpose::Infer { runs: 1 }, batch, batch, target, switches)?;
    let schedule = &train.compiled.schedule;
    let accumulated = if train.micro_batch < batch { schedule.arena.bytes } else { 0 };
    Ok(Memory { train_bytes: schedule.bytes() + schedule.arena.bytes + accumulated, infer_bytes: infer.compiled.schedule.bytes() })
}

/// The graph, plan and schedule of `model`, for `nin-wgpu dump`.
pub fn compiled(model: &Model, options: &ModelOptions, batch: usize, target: &Target, train: bool) -> Result<Compiled, BuildError> {
    let purpose = if train { Purpose::Train } else { Purpose::Infer { runs: 1 } };
    Ok(compile(model, options, &InputOptions::plain(options), purpose, batch, batch, target, CompileOptions::from_env())?.compiled)
}

/// One value per channel from one for all; channels that are not there count as 1.
fn spread(values: &[f32]) -> [f32; 4] {
    std::array::from_fn(|c| if values.len() == 1 { values[0] } else { values.get(c).copied().unwrap_or(1.0) })
}
