//! What a run remembers of its epochs to decide how to go on: a plateau's reductions, and stopping early.

use super::config::{Schedule, TrainConfig};

/// Least share by which a loss must be below the best one to count as better: that of PyTorch's `ReduceLROnPlateau`.
const THRESHOLD: f64 = 1e-4;

/// Kept with the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Progress {
    /// The lowest loss so far; schedule `plateau` only.
    pub best_loss: Option<f64>,
    /// Epochs since then or since the last reduction.
    pub bad_epochs: u32,
    /// How often the learning rate has been reduced by `step_gamma`.
    pub reductions: u32,
    /// Epochs since the best test accuracy.
    pub epochs_since_best: u32,
    /// How often the run has gone back to an earlier checkpoint: each time the learning rate becomes [`SETBACK_FACTOR`] of what
    /// it was.
    pub setbacks: u32,
}

/// What the learning rate is multiplied by each time that a run goes back to an earlier checkpoint.
pub const SETBACK_FACTOR: f64 = 0.25;
/// How often a run goes back before it gives up.
pub const MOST_SETBACKS: u32 = 3;

impl Progress {
    /// Notes the end of an epoch: its loss on the test images, or on the training images where there are no others, and whether
    /// it has the best accuracy so far. True where the learning rate falls.
    pub fn finish_epoch(&mut self, config: &TrainConfig, loss: f64, is_best: bool) -> bool {
        self.epochs_since_best = if is_best { 0 } else { self.epochs_since_best + 1 };
        if config.schedule != Schedule::Plateau {
            return false;
        }
        if self.best_loss.is_none_or(|best| loss < best * (1.0 - THRESHOLD)) {
            (self.best_loss, self.bad_epochs) = (Some(loss), 0);
            return false;
        }
        self.bad_epochs += 1;
        let falls = self.bad_epochs > config.patience;
        if falls {
            (self.bad_epochs, self.reductions) = (0, self.reductions + 1);
        }
        falls
    }

    /// Whether the run ends before its last epoch.
    pub fn stops_early(&self, config: &TrainConfig) -> bool {
        config.early_stop.is_some_and(|epochs| self.epochs_since_best >= epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_without_a_better_accuracy_end_the_run() {
        let mut config = TrainConfig::defaults("nin").unwrap();
        config.early_stop = Some(2);
        let mut progress = Progress::default();
        for (is_best, stops) in [(true, false), (false, false), (true, false), (false, false), (false, true)] {
            assert!(!progress.finish_epoch(&config, 1.0, is_best));
            assert_eq!(progress.stops_early(&config), stops);
        }
        config.early_stop = None;
        assert!(!progress.stops_early(&config));
    }
}
