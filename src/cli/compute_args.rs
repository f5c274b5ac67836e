//! How verbs that run a network compute: number format, choice of kernels, memory.

use super::memory_args::MemoryArgs;
use super::tuning::TuneArgs;
use crate::train::config::Precision;

/// The number format of verbs that have no other to follow.
#[derive(clap::Args, Clone, Copy)]
pub struct PrecisionArgs {
    /// Number format: f32, or mixed for activations and filters in 16 bits
    #[arg(long, value_name = "KIND", default_value = "f32")]
    pub precision: Precision,
}

/// What `bench`, `eval` and `infer` share.
#[derive(clap::Args)]
pub struct ComputeArgs {
    #[command(flatten)]
    format: PrecisionArgs,
    #[command(flatten)]
    pub tune: TuneArgs,
    #[command(flatten)]
    pub memory: MemoryArgs,
}

impl ComputeArgs {
    /// The number format.
    pub fn precision(&self) -> Precision {
        self.format.precision
    }
}
