//! Using a trained model: probabilities of pictures, accuracy on a data set.

use super::TrainError;
use super::config::Precision;
use super::engine::{DeviceParameters, ForwardEngine, ImageResult};
use super::resident::DeviceInput;
use super::settings::expected_tensors;
use super::trained::TrainedModel;
use super::whitening::DeviceWhitening;
use crate::data::{Batch, DataError, Loader, Order, Source};
use crate::gpu::Gpu;
use crate::models::{BuildError, InputOptions, Purpose};
use std::sync::Arc;

/// Refuses weights whose names or shapes are not the model's.
pub fn check(trained: &TrainedModel) -> Result<(), TrainError> {
    let graph = trained.model.describe(&trained.options).map_err(BuildError::from)?;
    trained.file.match_parameters(&expected_tensors(&graph))?;
    Ok(())
}

/// Uploads weights after checking their names and shapes against the model.
fn upload(gpu: &Gpu, trained: &TrainedModel) -> Result<DeviceParameters, TrainError> {
    let graph = trained.model.describe(&trained.options).map_err(BuildError::from)?;
    let tensors = trained.file.match_parameters(&expected_tensors(&graph))?;
    Ok(DeviceParameters::upload(gpu, &graph, &tensors)?)
}

/// Brings what images are whitened with to the device.
fn upload_whitening(gpu: &Gpu, trained: &TrainedModel) -> Result<Option<DeviceWhitening>, TrainError> {
    trained.whitening.as_ref().map(|whitening| DeviceWhitening::upload(gpu, whitening)).transpose()
}

fn input_options(trained: &TrainedModel, source: [usize; 3]) -> InputOptions {
    let (mean, std) = trained.preprocess.mean_std();
    InputOptions { source, mean, std, augment: None, whiten: trained.whitening.is_some(), resident: None }
}

/// Names what pictures show.
pub struct Predictor {
    engine: ForwardEngine,
    image_bytes: usize,
}

impl Predictor {
    /// Compiles a model for at most `batch` pictures at a time, `pictures` in all as far as is known, and uploads its weights.
    pub fn new(gpu: &Gpu, trained: &TrainedModel, batch: usize, pictures: usize, precision: Precision) -> Result<Self, TrainError> {
        let TrainedModel { model, options, .. } = trained;
        let parameters = upload(gpu, trained)?;
        let [height, width] = options.image_size;
        let input = input_options(trained, [options.in_channels, height, width]);
        let batch = batch.max(1);
        let purpose = Purpose::Infer { runs: pictures.div_ceil(batch).max(1) };
        let switches = precision.compile_options();
        let whitening = upload_whitening(gpu, trained)?;
        let on_device = DeviceInput { images: None, whitening: whitening.as_ref() };
        let engine = ForwardEngine::new(gpu, model, options, &input, purpose, batch, &parameters, on_device, switches)?;
        Ok(Predictor { engine, image_bytes: options.in_channels * height * width })
    }

    /// Pictures of one run over the device.
    pub fn batch(&self) -> usize {
        self.engine.batch()
    }

    /// Probabilities per class of each picture; a picture is height x width x channels bytes of the model's size.
    pub fn predict(&mut self, gpu: &Gpu, images: &[Vec<u8>]) -> Result<Vec<Vec<f32>>, TrainError> {
        if let Some(image) = images.iter().find(|image| image.len() != self.image_bytes) {
            let (found, wanted) = (image.len(), self.image_bytes);
            return Err(DataError::Unfit(format!("a picture of {found} bytes for a network that takes {wanted}")).into());
        }
        let mut probabilities = Vec::new();
        for chunk in images.chunks(self.engine.batch()) {
            let mut pixels = chunk.concat();
            pixels.resize(self.engine.batch() * self.image_bytes, 0);
            let ids = vec![0; self.engine.batch()];
            probabilities.extend(self.engine.infer(gpu, &Batch { pixels, labels: Vec::new(), ids, count: chunk.len() })?);
        }
        Ok(probabilities)
    }
}

/// How good a model is on a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Images.
    pub images: usize,
    /// Mean cross entropy.
    pub loss: f64,
    /// Share of images whose label came first.
    pub top1: f64,
    /// Share of images whose label was among the first five.
    pub top5: f64,
    /// Images by label (row) and prediction (column).
    pub confusion: Vec<Vec<u64>>,
}

/// What a model says of one image of a data set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Its number in the data set.
    pub image: u32,
    /// The class that the data set gives.
    pub label: u32,
    /// The model's answer.
    pub result: ImageResult,
}

impl Prediction {
    /// Images with their labels, and results in the same order.
    pub fn zip(images: &[(u32, u32)], results: &[ImageResult]) -> Vec<Self> {
        images.iter().zip(results).map(|((image, label), result)| Prediction { image: *image, label: *label, result: *result }).collect()
    }
}

impl Evaluation {
    /// Sums up the predictions of a model with `classes` classes.
    pub fn of(predictions: &[Prediction], classes: usize) -> Self {
        let images = predictions.len();
        let share = |most: usize| predictions.iter().filter(|p| p.result.rank < most).count() as f64 / images.max(1) as f64;
        let mut confusion = vec![vec![0; classes]; classes];
        for Prediction { label, result, .. } in predictions {
            confusion[*label as usize][result.predicted] += 1;
        }
        Evaluation {
            images,
            loss: predictions.iter().map(|p| f64::from(p.result.loss)).sum::<f64>() / images.max(1) as f64,
            top1: share(1),
            top5: share(5),
            confusion,
        }
    }
}

/// Runs a model over `source`, in its order; `progress` gets the number of images queued so far.
pub fn predictions(
    gpu: &Gpu,
    trained: &TrainedModel,
    source: Arc<dyn Source>,
    batch: usize,
    precision: Precision,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Prediction>, TrainError> {
    let TrainedModel { model, options, .. } = trained;
    let parameters = upload(gpu, trained)?;
    let input = input_options(trained, source.shape());
    let switches = precision.compile_options();
    let whitening = upload_whitening(gpu, trained)?;
    let on_device = DeviceInput { images: None, whitening: whitening.as_ref() };
    let batch = batch.clamp(1, source.len().max(1));
    let mut engine = ForwardEngine::new(gpu, model, options, &input, Purpose::Evaluate, batch, &parameters, on_device, switches)?;
    let mut images = Vec::new();
    let loader = Loader::new(Arc::clone(&source), engine.batch(), Order::Sequential, 0, 0)?;
    let results = engine.evaluate(gpu, loader, |batch| {
        images.extend(batch.ids.iter().copied().zip(batch.labels.iter().copied()).take(batch.count));
        progress(images.len());
    })?;
    Ok(Prediction::zip(&images, &results))
}
