//! When a run saves itself, in what order, and what happens where it cannot.

use super::diagnosis::not_finite;
use super::{Observer, Run};
use crate::gpu::Gpu;
use crate::models::EMA_STATE;
use crate::ops::LossScale;
use crate::train::checkpoint::{Checkpoint, RunningSums};
use crate::train::divergence::{Divergence, Origin, Symptom};
use crate::train::interval::CheckpointInterval;
use crate::train::{RunError, TrainError};
use crate::weights::{self, NamedTensor, WeightsError};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Unreadable pictures that are named outside of the log.
const UNREADABLE_NAMED: usize = 5;

/// What a run knows about its checkpoints.
pub(super) struct Saver {
    interval: CheckpointInterval,
    last_attempt: Instant,
    /// Updates of the checkpoint in `state/`.
    pub saved_step: u64,
    /// Weights of epochs that are not on disk yet.
    unsaved: Vec<(PathBuf, Vec<NamedTensor>)>,
    /// The checkpoint to go back to, where that is not on disk yet.
    pub unsaved_best: Option<Checkpoint>,
    /// What has been said about files that cannot be written.
    said: BTreeSet<String>,
}

impl Saver {
    pub fn new(interval: CheckpointInterval, saved_step: u64) -> Self {
        Saver { interval, last_attempt: Instant::now(), saved_step, unsaved: Vec::new(), unsaved_best: None, said: BTreeSet::new() }
    }

    /// Whether a checkpoint is due after `updates` updates of the run.
    pub fn is_due(&self, updates: u64) -> bool {
        self.interval.is_due(updates, self.last_attempt.elapsed())
    }
}

/// Whether the error is one of the file system, and may be gone the next time.
fn is_of_storage(error: &TrainError) -> bool {
    matches!(
        error,
        TrainError::Run(RunError::Io { .. } | RunError::Weights(WeightsError::Write { .. }))
            | TrainError::Weights(WeightsError::Write { .. })
    )
}

impl Run {
    /// Saves between two updates of an epoch, or behind one that is not the last. Where the files cannot be written, says so,
    /// and training goes on: the earlier checkpoint is whole, and the next interval tries again.
    pub(super) fn save_or_go_on(&mut self, gpu: &Gpu, observer: &mut dyn Observer) -> Result<(), TrainError> {
        match self.save(gpu) {
            Err(error) if is_of_storage(&error) => {
                let text = format!(
                    "step {} is not saved: {error}; training goes on and will try again, the checkpoint of step {} is kept",
                    self.step, self.saver.saved_step
                );
                observer.note(&text);
                let logged = self.log.line(&text);
                self.tolerate(logged, observer);
                Ok(())
            }
            other => other,
        }
    }

    /// Keeps the parameters of a complete epoch for the next [`Run::save`]: as the best, or because `--keep` asks for it.
    pub(super) fn keep_epoch(&mut self, gpu: &Gpu, is_best: bool) -> Result<(), TrainError> {
        let mut paths = Vec::new();
        if is_best {
            paths.push(self.dir.best_weights());
        }
        if self.config.keep > 0 {
            paths.push(self.dir.epoch_weights(self.epoch));
        }
        if paths.is_empty() {
            return Ok(());
        }
        let parameters = self.engine.averaged()?.download(gpu, self.engine.graph())?;
        for path in paths {
            self.saver.unsaved.retain(|(other, _)| *other != path);
            self.saver.unsaved.push((path, parameters.clone()));
        }
        // One place for the best.
        let most = self.config.keep as usize + 1;
        let surplus = self.saver.unsaved.len().saturating_sub(most);
        let best = self.dir.best_weights();
        let oldest = self.saver.unsaved.iter().position(|(path, _)| *path != best);
        if let (1.., Some(oldest)) = (surplus, oldest) {
            self.saver.unsaved.remove(oldest);
        }
        Ok(())
    }

    /// Keeps the state after a complete epoch, to go back to, for the next [`Run::save`].
    pub(super) fn keep_to_go_back(&mut self, gpu: &Gpu) -> Result<(), TrainError> {
        let (parameters, optimizer) = (self.engine.download(gpu)?, self.engine.download_state(gpu)?);
        let loss_scale = self.engine.download_loss_scale(gpu)?;
        let is_finite = not_finite(&parameters).is_none() && optimizer.iter().all(|(_, tensors)| not_finite(tensors).is_none());
        // What is not finite ends the run when it is saved.
        if is_finite {
            self.saver.unsaved_best = Some(self.checkpoint(parameters, optimizer, loss_scale));
        }
        Ok(())
    }

    /// Forgets weights that wait to be written and come from later than the checkpoint that the run goes back to.
    pub(super) fn forget_unsaved(&mut self) {
        let best = self.dir.best_weights();
        self.saver.unsaved.retain(|(path, _)| *path == best);
    }

    /// Writes weights, then the checkpoint. Weights come first, so that a run that goes on from the checkpoint, wherever it
    /// was killed, never has files that are older than the checkpoint.
    pub(super) fn save(&mut self, gpu: &Gpu) -> Result<(), TrainError> {
        self.saver.last_attempt = Instant::now();
        if let Some(best) = &self.saver.unsaved_best {
            best.save(&self.dir.best_state())?;
            self.saver.unsaved_best = None;
        }
        let parameters = self.engine.download(gpu)?;
        let optimizer = self.engine.download_state(gpu)?;
        let loss_scale = self.engine.download_loss_scale(gpu)?;
        let element = self.config.save_dtype.element();
        let bad = not_finite(&parameters).map(|name| (name, "parameter that is not finite"));
        let bad = bad.or_else(|| {
            let name = optimizer.iter().find_map(|(_, tensors)| not_finite(tensors))?;
            Some((name, "parameter whose optimizer state is not finite"))
        });
        if let Some((place, fault)) = bad {
            let divergence = Divergence { origin: Some(Origin { place, fault }), ..Divergence::new(self.step, Symptom::Parameters) };
            return Err(divergence.into());
        }
        while let Some((path, tensors)) = self.saver.unsaved.first() {
            weights::save_as(path, tensors, Some(&self.metadata), element)?;
            self.saver.unsaved.remove(0);
        }
        self.dir.remove_old_epochs(self.epoch, self.config.keep);
        let average = optimizer.iter().find(|(kind, _)| kind == EMA_STATE).map(|(_, average)| average);
        weights::save_as(&self.dir.last_weights(), average.unwrap_or(&parameters), Some(&self.metadata), element)?;
        self.checkpoint(parameters, optimizer, loss_scale).save(&self.dir.state())?;
        self.saver.saved_step = self.step;
        Ok(())
    }

    fn checkpoint(
        &self,
        parameters: Vec<NamedTensor>,
        optimizer: Vec<(String, Vec<NamedTensor>)>,
        loss_scale: Option<LossScale>,
    ) -> Checkpoint {
        Checkpoint {
            step: self.step,
            epoch: self.epoch,
            step_in_epoch: self.step_in_epoch,
            parameters,
            optimizer,
            loss_scale,
            best_accuracy: self.best_accuracy.filter(|accuracy| accuracy.is_finite()),
            best_loss: self.best_loss.filter(|loss| loss.is_finite()),
            progress: self.progress,
            sums: self.sums,
            seed: self.config.seed,
            config_hash: self.config.hash(),
            data_fingerprint: self.fingerprint.clone(),
            whitening: self.metadata.preprocess.whitening.as_ref().map(|note| note.sha256.clone()),
        }
    }

    /// Writes pictures that turned out to be unreadable to the log, and the first of them to the observer.
    pub(super) fn report_unreadable(&mut self, observer: &mut dyn Observer) {
        let found = self.dataset.unreadable.as_ref().map_or_else(Vec::new, |unreadable| unreadable.take_new());
        for picture in found {
            self.unreadable += 1;
            let text = format!("left aside: {}", picture.reason);
            let logged = self.log.line(&text);
            self.tolerate(logged, observer);
            match self.unreadable {
                ..=UNREADABLE_NAMED => observer.note(&text),
                count if count == UNREADABLE_NAMED + 1 => observer.note("further pictures that cannot be read are listed in train.log"),
                _ => {}
            }
        }
    }

    /// Files that only tell about a run must not end it: says once what is wrong with them.
    pub(super) fn tolerate(&mut self, result: Result<(), RunError>, observer: &mut dyn Observer) {
        if let Err(error) = result {
            let text = error.to_string();
            if !self.saver.said.contains(&text) {
                observer.note(&format!("{text}; training goes on"));
                self.saver.said.insert(text);
            }
        }
    }

    /// Waits for every update that is under way, and saves.
    pub(super) fn save_within_epoch(&mut self, gpu: &Gpu, seconds: Duration, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let mut results = Vec::new();
        self.engine.finish(gpu, &mut results)?;
        self.take(&mut results, observer)?;
        let before = self.sums;
        self.sums = RunningSums { epoch_seconds: before.epoch_seconds + seconds.as_secs_f64(), ..before };
        let flushed = self.metrics.sync();
        self.tolerate(flushed, observer);
        let saved = self.save_or_go_on(gpu, observer);
        self.sums = before;
        saved
    }
}
