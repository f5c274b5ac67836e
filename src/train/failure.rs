//! Why a run could not start or go on.

use super::{RunError, config::ConfigError};
use crate::data::DataError;
use crate::gpu::GpuError;
use crate::models::BuildError;
use crate::weights::WeightsError;

/// Everything that can stop training, evaluation or inference.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The adapter, its driver or its memory.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The data set.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A weight file.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The run's folder or its checkpoint.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A setting that cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model does not fit its input or the device.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The loss is no longer a number.
    #[error("training diverged: the loss at step {step} is {loss}; the last checkpoint is kept. Use a smaller --lr, {advice}")]
    Diverged {
        /// Update at which it was seen, counted from 1.
        step: u64,
        /// What the loss was.
        loss: f64,
        /// What else may help.
        advice: &'static str,
    },
}
