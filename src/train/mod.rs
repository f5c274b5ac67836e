//! Training runs.
//!
//! The configuration, the learning rate and the files of a run's folder know no device; `engine` puts a compiled
//! network on one, `trainer` runs it over epochs, `predict` uses what came out and `bench` measures how fast it all is.

pub mod bench;
pub mod checkpoint;
pub mod config;
pub mod defaults;
mod divergence;
pub mod engine;
mod error;
mod failure;
mod fine_tune;
pub mod fit;
pub mod format;
mod init;
pub mod interval;
pub mod metrics;
mod parameters;
pub mod plot;
pub mod predict;
pub mod progress;
pub mod recipes;
pub mod recovery;
pub mod resident;
pub mod report;
pub mod run_dir;
mod run_lock;
pub mod schedule;
pub mod sessions;
mod settings;
pub mod trained;
pub mod trainer;
pub mod update;
pub mod whitening;

pub use divergence::{Divergence, Origin, Symptom};
pub use error::RunError;
pub use failure::TrainError;
pub use init::initial_parameters;
