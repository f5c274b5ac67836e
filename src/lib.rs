//! Network in Network on any GPU: WGSL kernels, a graph compiler, training and inference through wgpu.
//!
//! Modules are listed in the order in which they may import each other: a later one uses earlier ones, never the
//! reverse, and only [`gpu`] names wgpu.
//!
//! Programs that train or use networks need [`Trainer`], [`Model`] and [`Dataset`] only, see [`api`].
#![warn(missing_docs)]

pub mod errors;
pub mod variables;
pub mod digest;
pub mod files;
pub mod half;
pub mod shape;
pub mod tensor;
pub mod rng;
pub mod kernels;
pub mod graph;
pub mod ops;
pub mod passes;
pub mod gpu;
pub mod models;
pub mod data;
pub mod weights;
pub mod train;
pub mod api;
pub mod cli;

pub use api::{Classifier, Dataset, Model, Trainer};
