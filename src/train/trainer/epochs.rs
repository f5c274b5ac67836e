//! The loop over epochs and updates.

use super::{Observer, Run, StepReport};
use crate::data::{Batch, Order};
use crate::gpu::Gpu;
use crate::train::TrainError;
use crate::train::checkpoint::RunningSums;
use crate::train::divergence::{Divergence, SETTLED_UPDATES, Symptom, has_learned, is_explosion, is_same_answer};
use crate::train::engine::StepResult;
use crate::train::metrics::{EpochLine, StepLine};
use crate::train::plot;
use crate::train::predict::Prediction;
use crate::train::resident::epoch_batches;
use crate::train::schedule::learning_rate;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What a test came to.
struct Tested {
    /// Mean over the test images, not a number without any.
    loss: f64,
    /// Share recognised, not a number without any.
    accuracy: f64,
    /// Whatever an image shows, the answer is the same.
    is_same: bool,
    /// Share of the images that have the commonest label, not a number without any.
    commonest: f64,
    /// What the network says of each image.
    predictions: Vec<Prediction>,
}

impl Run {
    /// Trains until the epochs are done, or `stop` is set: true then, with everything saved.
    pub(super) fn train(&mut self, gpu: &Gpu, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<bool, TrainError> {
        while !self.is_over() {
            if self.train_epoch(gpu, observer, stop)? || self.finish_epoch(gpu, observer, stop)? {
                self.metrics.sync()?;
                self.save(gpu)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether no epoch is left to train.
    fn is_over(&self) -> bool {
        self.epoch >= u64::from(self.config.epochs) || self.progress.stops_early(&self.config)
    }

    pub(super) fn order(&self) -> Order {
        if self.config.shuffle { Order::Shuffled { seed: self.config.seed } } else { Order::Sequential }
    }

    /// Queues update `number` of the run, counted from 0.
    pub(super) fn queue(
        &mut self,
        gpu: &Gpu,
        batch: &Batch,
        number: u64,
        epoch: u64,
        read_back: bool,
        results: &mut Vec<StepResult>,
    ) -> Result<(), TrainError> {
        let rate = learning_rate(&self.config, &self.progress, number, self.steps_per_epoch() as u64) as f32;
        self.engine.step(gpu, batch, number, epoch as u32, self.config.seed, rate, read_back, results)
    }

    /// Trains to the end of the epoch; true where `stop` came first. Every queued update has been counted then.
    fn train_epoch(&mut self, gpu: &Gpu, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<bool, TrainError> {
        let mut batches = self.training_batches(self.epoch, self.step_in_epoch as usize)?;
        let started = Instant::now();
        let seconds_before = self.sums.epoch_seconds;
        let mut interrupted = false;
        let mut results = Vec::new();
        self.line_started = Instant::now();
        self.line_images = 0;
        for number in self.step.. {
            interrupted = stop.load(Ordering::Relaxed);
            if interrupted {
                break;
            }
            let asked = Instant::now();
            let Some(batch) = batches.next() else { break };
            self.data_wait += asked.elapsed();
            self.report_unreadable(observer);
            if let Some(index) = self.lose_device_at.iter().position(|step| *step == number) {
                self.lose_device_at.remove(index);
                gpu.lose();
            }
            let read_back = (number + 1).is_multiple_of(u64::from(self.config.log_every));
            self.queue(gpu, &batch?, number, self.epoch, read_back, &mut results)?;
            self.take(&mut results, observer)?;
            if self.collapse.wants_proof() {
                self.require_gradients(gpu, &mut results, observer)?;
            }
            if self.saver.is_due(number + 1) && !self.collapse.is_suspicious() {
                self.save_within_epoch(gpu, started.elapsed(), observer)?;
            }
        }
        self.engine.finish(gpu, &mut results)?;
        self.take(&mut results, observer)?;
        self.sums.epoch_seconds = seconds_before + started.elapsed().as_secs_f64();
        Ok(interrupted)
    }

    /// Counts the updates that have come back and reports at every `log_every`-th.
    pub(super) fn take(&mut self, results: &mut Vec<StepResult>, observer: &mut dyn Observer) -> Result<(), TrainError> {
        for result in results.drain(..) {
            let loss = result.loss_sum / result.images.max(1) as f64;
            if !loss.is_finite() {
                return Err(Divergence::new(result.step + 1, Symptom::Loss(loss)).into());
            }
            self.collapse.observe(loss);
            self.step = result.step + 1;
            self.step_in_epoch += 1;
            self.sums.epoch_loss += result.loss_sum;
            self.sums.epoch_correct += result.correct;
            self.sums.epoch_images += result.images;
            self.sums.line_loss += loss;
            self.sums.line_steps += 1;
            self.line_images += result.images;
            if self.step.is_multiple_of(u64::from(self.config.log_every)) {
                self.report(result.learning_rate.into(), observer);
            }
        }
        Ok(())
    }

    fn report(&mut self, lr: f64, observer: &mut dyn Observer) {
        let loss = self.sums.line_loss / self.sums.line_steps.max(1) as f64;
        let images_per_s = self.line_images as f64 / self.line_started.elapsed().as_secs_f64().max(1e-9);
        let written = self.metrics.step(&StepLine { step: self.step, epoch: self.epoch + 1, loss, lr, images_per_s });
        self.tolerate(written, observer);
        observer.step(&StepReport {
            epoch: self.epoch + 1,
            step_in_epoch: self.step_in_epoch,
            step: self.step,
            loss,
            accuracy: self.sums.epoch_correct as f64 / self.sums.epoch_images.max(1) as f64,
            lr,
            images_per_s,
        });
        self.sums.line_loss = 0.0;
        self.sums.line_steps = 0;
        self.line_images = 0;
        self.line_started = Instant::now();
    }

    /// Tests, reports and saves; true where `stop` came first, and the epoch is not complete yet.
    fn finish_epoch(&mut self, gpu: &Gpu, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<bool, TrainError> {
        let started = Instant::now();
        let Some(tested) = self.test(gpu, observer, stop)? else { return Ok(true) };
        let Tested { loss: test_loss, accuracy: test_acc, is_same, commonest, predictions } = tested;
        if is_same && self.step >= SETTLED_UPDATES {
            return Err(Divergence::new(self.step, Symptom::SameAnswer).into());
        }
        let train_loss = self.sums.epoch_loss / self.sums.epoch_images.max(1) as f64;
        // A run that has nothing to go back to may still come round.
        for loss in [train_loss, test_loss] {
            if is_explosion(loss, self.config.classes) && self.can_go_back()? {
                return Err(Divergence::new(self.step, Symptom::Exploded(loss)).into());
            }
        }
        let is_dead = is_same || (self.collapse.is_suspicious() && !self.has_gradients(gpu)?);
        let scaling = self.engine.download_loss_scale(gpu)?;
        let images = self.sums.epoch_images.max(1) as f64;
        let line = EpochLine {
            epoch: self.epoch + 1,
            train_loss,
            train_acc: self.sums.epoch_correct as f64 / images,
            test_loss,
            test_acc,
            seconds: self.sums.epoch_seconds + started.elapsed().as_secs_f64(),
            loss_scale: scaling.map(|state| state.scale.into()),
            skipped_steps: scaling.map(|state| state.skipped_steps.into()),
        };
        // Without test images the accuracy is not a number: the last epoch counts as the best.
        let is_best = line.is_better_than(self.best_accuracy.map(|accuracy| (accuracy, self.best_loss.unwrap_or(f64::NAN))));
        if is_best && test_acc.is_finite() {
            (self.best_accuracy, self.best_loss) = (Some(test_acc), Some(test_loss));
            self.best_predictions = Some(predictions);
        }
        // Without test images only the losses tell which epoch is worth going back to.
        let is_lowest = test_acc.is_finite() || self.best_loss.is_none_or(|lowest| train_loss < lowest);
        if test_acc.is_nan() && is_lowest {
            self.best_loss = Some(train_loss);
        }
        let falls = self.progress.finish_epoch(&self.config, if test_loss.is_nan() { line.train_loss } else { test_loss }, is_best);
        self.epoch += 1;
        self.step_in_epoch = 0;
        let RunningSums { line_loss, line_steps, .. } = self.sums;
        self.sums = RunningSums { line_loss, line_steps, ..RunningSums::default() };

        let written = self.metrics.epoch(&line).and_then(|()| self.metrics.sync());
        self.tolerate(written, observer);
        let drawn = plot::write(&self.dir.metrics(), &self.dir.curves(), self.steps_per_epoch() as u64);
        self.tolerate(drawn, observer);
        self.keep_epoch(gpu, is_best)?;
        if is_best && is_lowest && !is_dead && has_learned(test_acc, commonest, train_loss, self.config.classes) {
            self.keep_to_go_back(gpu)?;
        }
        if self.is_over() {
            self.metrics.sync()?;
            self.save(gpu)?;
        } else if !is_dead {
            self.save_or_go_on(gpu, observer)?;
        }
        let scaling = scaling.map_or(String::new(), |s| format!(", loss scale {}, {} steps skipped so far", s.scale, s.skipped_steps));
        let memory = gpu.memory();
        let allocated = gpu.allocated_bytes().map_or_else(String::new, |bytes| format!(", {bytes} bytes allocated by wgpu"));
        let lines = [
            format!(
                "epoch {}: train loss {:.4}, train accuracy {:.4}, test loss {:.4}, test accuracy {:.4}, {:.1} s, {:.3} s of waiting for images{scaling}",
                line.epoch,
                line.train_loss,
                line.train_acc,
                line.test_loss,
                line.test_acc,
                line.seconds,
                std::mem::take(&mut self.data_wait).as_secs_f64()
            ),
            format!("device memory: {} buffers of {} bytes{allocated}", memory.buffers, memory.bytes),
        ];
        for text in lines {
            let logged = self.log.line(&text);
            self.tolerate(logged, observer);
        }
        observer.epoch(&line, is_best);
        self.say_progress(falls, observer);
        self.last = Some(line);
        Ok(false)
    }

    fn say_progress(&mut self, falls: bool, observer: &mut dyn Observer) {
        let mut said = Vec::new();
        if falls {
            said.push(format!("the loss has not fallen for {} epochs: the learning rate does", self.config.patience + 1));
        }
        if self.progress.stops_early(&self.config) {
            let epochs = self.progress.epochs_since_best;
            said.push(format!("stopped early: no better test accuracy for {epochs} epoch{}", if epochs == 1 { "" } else { "s" }));
        }
        for text in said {
            observer.note(&text);
            let logged = self.log.line(&text);
            self.tolerate(logged, observer);
        }
    }

    /// Runs the test images; `None` where `stop` came first.
    fn test(&mut self, gpu: &Gpu, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Option<Tested>, TrainError> {
        let Some(evaluator) = &mut self.evaluator else {
            return Ok(Some(Tested { loss: f64::NAN, accuracy: f64::NAN, is_same: false, commonest: f64::NAN, predictions: Vec::new() }));
        };
        let batches = epoch_batches(self.resident_test.as_ref(), &self.dataset.test, evaluator.batch(), Order::Sequential, 0, 0)?;
        let mut images = Vec::new();
        let batches = batches.take_while(|_| !stop.load(Ordering::Relaxed));
        let results = evaluator.evaluate(gpu, batches, |batch| {
            images.extend(batch.ids.iter().copied().zip(batch.labels.iter().copied()).take(batch.count));
        });
        self.report_unreadable(observer);
        let results = results?;
        // Images that cannot be read have no results.
        if stop.load(Ordering::Relaxed) && results.len() < self.dataset.test.len() {
            return Ok(None);
        }
        let predictions = Prediction::zip(&images, &results);
        let count = results.len().max(1) as f64;
        let loss = results.iter().map(|r| f64::from(r.loss)).sum::<f64>() / count;
        if !loss.is_finite() {
            return Err(Divergence::new(self.step, Symptom::TestLoss(loss)).into());
        }
        let answers = predictions.iter().map(|prediction| (prediction.label, prediction.result.loss, prediction.result.predicted));
        let accuracy = results.iter().filter(|r| r.rank == 0).count() as f64 / count;
        let mut of_label = vec![0usize; self.config.classes];
        predictions.iter().for_each(|prediction| of_label[prediction.label as usize] += 1);
        let commonest = of_label.into_iter().max().unwrap_or(0) as f64 / count;
        Ok(Some(Tested { loss, accuracy, is_same: is_same_answer(answers), commonest, predictions }))
    }
}
