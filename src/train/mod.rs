//! Training runs.
//!
//! The configuration, the learning rate and the files of a run's folder know no device; `engine` puts a compiled
//! network on one, `trainer` runs it over epochs, `predict` uses what came out and `bench` measures how fast it all is.

pub mod bench;
pub mod checkpoint;
pub mod config;
pub mod defaults;
mod digest;
mod divergence;
pub mod engine;
mod error;
mod failure;
pub mod format;
pub mod fit;
mod init;
pub mod interval;
pub mod metrics;
pub mod plot;
pub mod predict;
pub mod recovery;
pub mod resident;
pub mod report;
pub mod run_dir;
pub mod schedule;
pub mod sessions;
pub mod trainer;

pub use divergence::{Divergence, Origin, Symptom};
pub use error::RunError;
pub use failure::TrainError;
pub use init::initial_parameters;
