//! The graphs around a model: input kernel in front, loss or probabilities behind, compiled for a device.

use super::{Memory, Model, ModelOptions, Training};
use crate::graph::{Builder, Graph, GraphError, ValueId, ValueKind};
use crate::kernels::Target;
use crate::ops::{Augment, AugmentVector, CONTRAST_SCALE, ContrastNormalise, ImageInput, Metrics, Softmax, SoftmaxCrossEntropy, Whiten};
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
    /// All buffers together do not fit the memory budget, even for a single image at a time.
    #[error(
        "{needed} bytes of device memory are needed even for one image at a time, over the {budget} that the memory budget leaves; \
         raise --memory-budget, or use a smaller --batch-size or --image-size"
    )]
    #[allow(missing_docs)]
    OverBudget { needed: u64, budget: u64 },
}

impl BuildError {
    /// Whether fewer images at a time may fit.
    pub fn is_too_large(&self) -> bool {
        matches!(self, BuildError::OverBudget { .. } | BuildError::Plan(PlanError::TooLarge { .. }))
    }
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
    /// Instead of mean and std: contrast normalisation, and whitening by a matrix on the device.
    pub whiten: bool,
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
        InputOptions { source: [options.in_channels, h, w], mean: vec![0.0], std: vec![1.0], augment: None, whiten: false, resident: None }
    }
}

/// What a graph is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Gradients of every parameter, and metrics.
    Train,
    /// A row of results per image: loss, rank of the label, prediction, its probability.
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
    /// Matrix and offset of whitening, where images are whitened.
    pub whitening: Option<[ValueId; 2]>,
    /// Class per image of the batch; absent for inference.
    pub labels: Option<ValueId>,
    /// Index in the data set per image of the batch.
    pub ids: ValueId,
    /// What comes back: the metrics ring, the rows or the probabilities.
    pub result: ValueId,
}

/// The part of a graph between stored pictures and a model.
pub struct InputPart {
    /// As in [`Network`].
    pub pixels: Vec<ValueId>,
    /// As in [`Network`].
    pub ids: ValueId,
    /// As in [`Network`].
    pub whitening: Option<[ValueId; 2]>,
    /// What the model sees, `[micro_batch, C, H, W]`.
    pub images: ValueId,
}

/// Builds what brings pictures to a height and width, normalises or whitens them and changes them as `input` says.
pub fn input_part(
    builder: &mut Builder,
    size: [usize; 2],
    input: &InputOptions,
    batch: usize,
    micro_batch: usize,
) -> Result<InputPart, GraphError> {
    let [channels, height, width] = input.source;
    let pixels: Vec<ValueId> = match input.resident {
        None => vec![builder.input("pixels", Fact::pixels(batch, channels, height, width))],
        Some(resident) => {
            let parts = resident.parts().enumerate();
            parts.map(|(part, images)| builder.input(&format!("images.{part}"), Fact::pixels(images, channels, height, width))).collect()
        }
    };
    let ids = builder.input("ids", Fact::new(Shape(vec![batch]), Layout::Index));
    let image_input = ImageInput {
        micro_batch,
        size,
        mean: spread(&input.mean),
        inverse_std: spread(&input.std).map(|s| 1.0 / s),
        augment: input.augment.filter(|_| !input.whiten),
        gather: input.resident.is_some(),
    };
    let mut images = builder.node("input", image_input, &[&pixels[..], &[ids]].concat())?;
    let mut whitening = None;
    if input.whiten {
        let values = channels * size[0] * size[1];
        let matrix = builder.input("whitening.matrix", Fact::filter(values, values, 1, 1));
        let offset = builder.input("whitening.offset", Fact::vector(values));
        images = builder.node("input", ContrastNormalise { scale: CONTRAST_SCALE as f32 }, &[images])?;
        images = builder.node("input", Whiten, &[images, matrix, offset])?;
        let augment = AugmentVector { channels, size, augment: input.augment.unwrap_or(Augment::NONE) };
        images = builder.node("input", augment, &[images, ids])?;
        whitening = Some([matrix, offset]);
    }
    Ok(InputPart { pixels, ids, whitening, images })
}

/// Builds the graph of `model` for micro-batches of `micro_batch` images out of batches of `batch`, trained as `training` says
/// where that is its purpose.
pub fn network(
    model: &Model,
    options: &ModelOptions,
    input: &InputOptions,
    purpose: Purpose,
    batch: usize,
    micro_batch: usize,
    training: &Training,
) -> Result<Network, BuildError> {
    let mut builder = Builder::new();
    let augment = input.augment.filter(|_| purpose == Purpose::Train);
    let input = InputOptions { augment, ..input.clone() };
    let InputPart { pixels, ids, whitening, images } = input_part(&mut builder, options.image_size, &input, batch, micro_batch)?;
    let dropout = if purpose == Purpose::Train { options.dropout } else { 0.0 };
    let logits = model.build(&mut builder, images, &ModelOptions { dropout, ..options.clone() })?;
    if matches!(purpose, Purpose::Infer { .. }) {
        let result = builder.node("head", Softmax, &[logits])?;
        builder.graph.set_kind(result, ValueKind::Output);
        return Ok(Network { graph: builder.graph, pixels, whitening, labels: None, ids, result });
    }
    let labels = builder.input("labels", Fact::new(Shape(vec![batch]), Layout::Index));
    let smoothing = if purpose == Purpose::Train { training.label_smoothing } else { 0.0 };
    let rows = builder.node("loss", SoftmaxCrossEntropy { smoothing }, &[logits, labels])?;
    let mut network = Network { graph: builder.graph, pixels, whitening, labels: Some(labels), ids, result: rows };
    if purpose == Purpose::Evaluate {
        network.graph.set_kind(rows, ValueKind::Output);
    } else {
        let metrics = network.graph.add_single("metrics", Arc::new(Metrics { ring: METRICS_RING }), &[rows])?;
        for parameter in &mut network.graph.parameters {
            parameter.frozen = training.is_frozen(&parameter.name);
        }
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
    pub whitening: Option<[ValueId; 2]>,
    /// As in [`Network`].
    pub labels: Option<ValueId>,
    /// As in [`Network`].
    pub ids: ValueId,
    /// As in [`Network`].
    pub result: ValueId,
    /// Images of one pass over the schedule.
    pub micro_batch: usize,
    /// What a program that runs it takes on the device.
    pub memory: Memory,
}

/// Compiles `model` for batches of `batch` images: with the fewest equal micro-batches of at most `max_pass` images whose
/// tensors and buffers fit `target` and its memory budget.
#[allow(clippy::too_many_arguments)]
pub fn compile(
    model: &Model,
    options: &ModelOptions,
    input: &InputOptions,
    purpose: Purpose,
    batch: usize,
    max_pass: usize,
    training: &Training,
    target: &Target,
    switches: CompileOptions,
) -> Result<CompiledNetwork, BuildError> {
    let attempt = |passes: usize| compile_passes(model, options, input, purpose, batch, batch.div_ceil(passes), training, target, switches);
    let mut too_few = batch.div_ceil(max_pass);
    match attempt(too_few) {
        Err(error) if error.is_too_large() && too_few < batch => {}
        other => return other,
    }
    // Where not even one image fits, or not the pictures of the whole batch, no part will.
    let mut enough = batch;
    let mut network = attempt(enough)?;
    while enough - too_few > 1 {
        let passes = too_few.midpoint(enough);
        match attempt(passes) {
            Ok(fitting) => (enough, network) = (passes, fitting),
            Err(error) if error.is_too_large() => too_few = passes,
            Err(error) => return Err(error),
        }
    }
    Ok(network)
}

/// Compiles `model` for passes of `micro_batch` images. What is cheap is computed again instead of kept where the memory budget
/// would not do otherwise.
#[allow(clippy::too_many_arguments)]
pub(super) fn compile_passes(
    model: &Model,
    options: &ModelOptions,
    input: &InputOptions,
    purpose: Purpose,
    batch: usize,
    micro_batch: usize,
    training: &Training,
    target: &Target,
    switches: CompileOptions,
) -> Result<CompiledNetwork, BuildError> {
    let target = &target.for_runs(purpose.runs());
    let compile_with = |switches| {
        let Network { graph, pixels, whitening, labels, ids, result } =
            network(model, options, input, purpose, batch, micro_batch, training)?;
        let compiled = passes::compile(graph, target, switches)?;
        let memory = Memory::of(&compiled, result, batch.div_ceil(micro_batch), training, target);
        memory.check(target)?;
        Ok(CompiledNetwork { compiled, pixels, whitening, labels, ids, result, micro_batch, memory })
    };
    compile_with(switches).or_else(|error| match error {
        BuildError::OverBudget { .. } => compile_with(CompileOptions { recompute: true, ..switches }),
        other => Err(other),
    })
}

/// One value per channel from one for all; channels that are not there count as 1.
fn spread(values: &[f32]) -> [f32; 4] {
    std::array::from_fn(|c| if values.len() == 1 { values[0] } else { values.get(c).copied().unwrap_or(1.0) })
}
