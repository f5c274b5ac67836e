//! Stops a run that learns nothing any more, and finds the layer where that begins.

use super::{Run, input_options, model_options};
use crate::data::Batch;
use crate::gpu::Gpu;
use crate::models::{InputOptions, Model};
use crate::train::TrainError;
use crate::train::checkpoint::Checkpoint;
use crate::train::divergence::{Divergence, Origin, Symptom};
use crate::train::engine::{LayerOutput, StepResult};
use crate::train::resident::{DeviceInput, epoch_batches};
use crate::train::trainer::Observer;
use crate::weights::NamedTensor;
use std::sync::atomic::{AtomicBool, Ordering};

/// Images that are looked at together.
const IMAGES_AT_ONCE: usize = 8;
/// Images that tell whether a layer puts out the same for all.
const SAMPLE: usize = 32;
/// Repeating more updates than this is announced.
const QUIET_UPDATES: u64 = 100;

impl Run {
    /// Fails where no gradient is left; asked when the losses give reason to.
    pub(super) fn require_gradients(
        &mut self,
        gpu: &Gpu,
        results: &mut Vec<StepResult>,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        self.engine.finish(gpu, results)?;
        self.take(results, observer)?;
        if self.has_gradients(gpu)? { Ok(()) } else { Err(Divergence::new(self.step, Symptom::DeadLogits).into()) }
    }

    /// Whether any gradient of the last update is not zero; no update may be under way.
    pub(super) fn has_gradients(&mut self, gpu: &Gpu) -> Result<bool, TrainError> {
        let gradients = self.engine.download_gradients(gpu)?;
        let is_alive = gradients.iter().any(|tensor| tensor.data.iter().any(|value| *value != 0.0));
        if is_alive {
            self.collapse.clear();
        }
        Ok(is_alive)
    }

    /// The error with the layer in it where the run diverged; others as they are.
    pub(super) fn diagnose(&mut self, gpu: &Gpu, error: TrainError, observer: &mut dyn Observer, stop: &AtomicBool) -> TrainError {
        let TrainError::Diverged(mut divergence) = error else { return error };
        divergence.kept = self.saver.saved_step;
        divergence.advise(&self.config, self.progress.setbacks);
        if divergence.origin.is_none() {
            match self.origin(gpu, &divergence, observer, stop) {
                Ok(origin) => divergence.origin = origin,
                Err(error) => observer.note(&format!("the layer could not be found: {error}")),
            }
        }
        let error = TrainError::Diverged(divergence);
        let logged = self.log.line(&error.to_string());
        self.tolerate(logged, observer);
        error
    }

    fn origin(
        &mut self,
        gpu: &Gpu,
        divergence: &Divergence,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Option<Origin>, TrainError> {
        match divergence.symptom {
            Symptom::DeadLogits | Symptom::SameAnswer => {
                let source = if self.dataset.test.is_empty() { &self.dataset.train } else { &self.dataset.test };
                let count = source.len().min(SAMPLE);
                let ids: Vec<u32> = (0..count).map(|n| (n * source.len() / count) as u32).collect();
                let is_test = !self.dataset.test.is_empty();
                let outputs = self.layer_outputs(gpu, is_test, &ids, count)?;
                let first = outputs.into_iter().flatten().find(|output| output.is_same);
                Ok(first.map(|output| Origin { place: output.layer, fault: "layer that puts out the same for every image" }))
            }
            Symptom::TestLoss(_) => {
                let ids: Vec<u32> = (0..self.dataset.test.len() as u32).collect();
                self.first_not_finite(gpu, true, &ids)
            }
            Symptom::Loss(_) => self.origin_of_loss(gpu, divergence.step - 1, observer, stop),
            Symptom::Parameters | Symptom::Exploded(_) => Ok(None),
        }
    }

    /// Updates that followed have spread it everywhere: goes back to the checkpoint and repeats what came before update
    /// `number`, counted from 0.
    fn origin_of_loss(
        &mut self,
        gpu: &Gpu,
        number: u64,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Option<Origin>, TrainError> {
        let mut results = Vec::new();
        self.engine.finish(gpu, &mut results)?;
        let checkpoint = Checkpoint::load(&self.dir.state())?;
        let updates = number.saturating_sub(checkpoint.step);
        if updates > QUIET_UPDATES {
            observer.note(&format!("diverged; repeating {updates} updates to find the layer, unless Ctrl-C leaves that out"));
        }
        self.upload(gpu, &checkpoint)?;
        let (mut step, mut epoch, mut first) = (checkpoint.step, checkpoint.epoch, checkpoint.step_in_epoch as usize);
        while step <= number {
            let mut batches = self.training_batches(epoch, first)?;
            for batch in &mut batches {
                let batch = batch?;
                if stop.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                if step == number {
                    return self.origin_at(gpu, &batch, step, epoch);
                }
                self.queue(gpu, &batch, step, epoch, false, &mut results)?;
                step += 1;
            }
            (epoch, first) = (epoch + 1, 0);
        }
        Ok(None)
    }

    /// The parameters before update `step` are on the device: are they at fault, a layer's output for its images, or the
    /// gradients that it makes?
    fn origin_at(&mut self, gpu: &Gpu, batch: &Batch, step: u64, epoch: u64) -> Result<Option<Origin>, TrainError> {
        if let Some(place) = not_finite(&self.engine.download(gpu)?) {
            return Ok(Some(Origin { place, fault: "parameter that is not finite" }));
        }
        if let Some(origin) = self.first_not_finite(gpu, false, &batch.ids[..batch.count])? {
            return Ok(Some(origin));
        }
        let mut results = Vec::new();
        self.queue(gpu, batch, step, epoch, true, &mut results)?;
        self.engine.finish(gpu, &mut results)?;
        let place = not_finite(&self.engine.download_gradients(gpu)?);
        Ok(place.map(|place| Origin { place, fault: "parameter whose gradient is not finite" }))
    }

    fn first_not_finite(&mut self, gpu: &Gpu, is_test: bool, ids: &[u32]) -> Result<Option<Origin>, TrainError> {
        for outputs in self.layer_outputs(gpu, is_test, ids, IMAGES_AT_ONCE)? {
            if let Some(output) = outputs.into_iter().find(|output| !output.is_finite) {
                return Ok(Some(Origin { place: output.layer, fault: "layer whose output is not finite" }));
            }
        }
        Ok(None)
    }

    /// What the layers put out for pictures of a split, `at_once` at a time, until something is not finite.
    fn layer_outputs(&mut self, gpu: &Gpu, is_test: bool, ids: &[u32], at_once: usize) -> Result<Vec<Vec<LayerOutput>>, TrainError> {
        let Some(model) = Model::find(&self.config.model) else { return Ok(Vec::new()) };
        let source = if is_test { &self.dataset.test } else { &self.dataset.train };
        let images = if is_test { &self.resident_test } else { &self.resident_train }.as_ref();
        let on_device = DeviceInput { images, whitening: self.whitening.as_ref() };
        let input = InputOptions { augment: None, ..input_options(&self.config, self.dataset.shape()) };
        let half = self.config.precision.compile_options().half;
        let mut inspector = self.engine.inspector(gpu, model, &model_options(&self.config), &input, at_once, on_device, half)?;
        let at_once = inspector.batch();
        let image_bytes: usize = source.shape().iter().product();
        let mut outputs = Vec::new();
        for ids in ids.chunks(at_once) {
            let mut batch =
                Batch { pixels: vec![0; at_once * image_bytes], labels: vec![0; at_once], ids: vec![0; at_once], count: ids.len() };
            for (index, id) in ids.iter().enumerate() {
                batch.ids[index] = *id;
                batch.labels[index] = source.read(*id as usize, &mut batch.pixels[index * image_bytes..][..image_bytes])?;
            }
            let layers = inspector.layer_outputs(gpu, &batch)?;
            let is_found = layers.iter().any(|output| !output.is_finite);
            outputs.push(layers);
            if is_found {
                break;
            }
        }
        Ok(outputs)
    }

    /// The batches of an epoch from its update `first` on.
    pub(super) fn training_batches(
        &self,
        epoch: u64,
        first: usize,
    ) -> Result<Box<dyn Iterator<Item = Result<Batch, crate::data::DataError>>>, TrainError> {
        let size = self.config.images_per_update();
        Ok(epoch_batches(self.resident_train.as_ref(), &self.dataset.train, size, self.order(), epoch as u32, first)?)
    }
}

/// The first tensor, in the order given, with an element that is not finite.
pub(super) fn not_finite(tensors: &[NamedTensor]) -> Option<String> {
    tensors.iter().find(|tensor| !tensor.data.iter().all(|value| value.is_finite())).map(|tensor| tensor.name.clone())
}
