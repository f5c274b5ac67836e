//! Why a run could not start or go on.

use super::{Divergence, RunError, config::ConfigError};
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
    /// Nothing is learned any more.
    #[error(transparent)]
    Diverged(Box<Divergence>),
}

impl From<Divergence> for TrainError {
    fn from(divergence: Divergence) -> Self {
        TrainError::Diverged(Box::new(divergence))
    }
}
