//! Goes back to an earlier checkpoint where a run that had learned learns nothing any more.

use super::{Observer, Run};
use crate::gpu::Gpu;
use crate::train::checkpoint::Checkpoint;
use crate::train::divergence::{CollapseWatch, Divergence};
use crate::train::metrics::MetricsLog;
use crate::train::progress::{MOST_SETBACKS, Progress};
use crate::train::settings::{expected_tensors, training};
use crate::train::{RunError, TrainError};
use std::time::Instant;

impl Run {
    /// The checkpoint to go back to; `None` where there is none, or the run has gone back often enough.
    fn earlier(&self) -> Result<Option<Checkpoint>, TrainError> {
        if self.progress.setbacks >= MOST_SETBACKS {
            return Ok(None);
        }
        if let Some(checkpoint) = &self.saver.unsaved_best {
            return Ok(Some(checkpoint.clone()));
        }
        let folder = self.dir.best_state();
        let checkpoint = match Checkpoint::load(&folder) {
            Err(RunError::NoCheckpoint { .. }) => return Ok(None),
            loaded => loaded?,
        };
        checkpoint.require_same_run(&folder, &self.config.hash(), &self.fingerprint)?;
        checkpoint.require_tensors(&folder, &expected_tensors(self.engine.graph()), &training(&self.config).state_names())?;
        // A run that was killed may have left one of an epoch that it has not come to again.
        Ok(Some(checkpoint).filter(|checkpoint| checkpoint.step < self.step))
    }

    /// Whether there is a checkpoint to go back to.
    pub(super) fn can_go_back(&self) -> Result<bool, TrainError> {
        Ok(self.earlier()?.is_some())
    }

    /// Goes on from the checkpoint of the best epoch so far with a smaller learning rate, and saves that: whoever resumes the
    /// run does the same. False where there is no way back.
    pub(super) fn go_back(&mut self, gpu: &Gpu, why: &Divergence, observer: &mut dyn Observer) -> Result<bool, TrainError> {
        let Some(checkpoint) = self.earlier()? else { return Ok(false) };
        // What is still under way belongs to the updates that are given up.
        self.engine.finish(gpu, &mut Vec::new())?;
        self.upload(gpu, &checkpoint)?;
        let Checkpoint { step, epoch, step_in_epoch, sums, best_accuracy, best_loss, .. } = checkpoint;
        (self.step, self.epoch, self.step_in_epoch, self.sums) = (step, epoch, step_in_epoch, sums);
        (self.best_accuracy, self.best_loss) = (best_accuracy, best_loss);
        self.progress = Progress { setbacks: self.progress.setbacks + 1, ..checkpoint.progress };
        (self.line_images, self.line_started) = (0, Instant::now());
        self.collapse = CollapseWatch::new(self.config.classes);
        self.forget_unsaved();
        self.metrics = MetricsLog::open(&self.dir.metrics(), step, epoch, self.steps_per_epoch() as u64)?;
        let from = if step == 0 { "the beginning".into() } else { format!("the checkpoint of step {step}, the end of epoch {epoch}") };
        let text = format!(
            "{}; going on from {from}, with a quarter of the learning rate, attempt {} of {MOST_SETBACKS}",
            why.seen(),
            self.progress.setbacks
        );
        let logged = self.log.line(&text);
        self.tolerate(logged, observer);
        observer.went_back(step, epoch);
        observer.note(&text);
        self.save_or_go_on(gpu, observer)?;
        Ok(true)
    }

    /// Brings parameters and the state of the update to the device; no update may be under way.
    pub(super) fn upload(&mut self, gpu: &Gpu, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        self.engine.upload(gpu, &checkpoint.parameters);
        self.engine.upload_state(gpu, &checkpoint.optimizer)?;
        if let Some(state) = checkpoint.loss_scale {
            self.engine.upload_loss_scale(gpu, state);
        }
        Ok(())
    }
}
