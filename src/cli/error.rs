//! How a verb ends, and the exit code of every error of the crate.

use crate::data::DataError;
use crate::data::fetch::FetchError;
use crate::errors::ErrorKind;
use crate::gpu::GpuError;
use crate::graph::GraphError;
use crate::models::BuildError;
use crate::passes::{AutodiffError, PlanError};
use crate::train::config::ConfigError;
use crate::train::{RunError, TrainError};
use crate::weights::WeightsError;
use std::io;

/// How a verb ended that did what it could and has said what there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Done,
    /// Some inputs could not be used; the others were.
    BadInputs,
    /// The self-check found a wrong kernel.
    CheckFailed,
    /// Stopped by the user after saving.
    Interrupted,
}

impl Exit {
    /// The exit code of failures without one of their own.
    pub const FAILED: u8 = 1;

    /// The documented exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::BadInputs => 6,
            Exit::CheckFailed => 8,
            Exit::Interrupted => 130,
        }
    }
}

/// Why a verb could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Arguments that cannot be, beyond what the parser sees.
    #[error("{0}")]
    Usage(String),
    /// Files that do not fit each other.
    #[error("{0}")]
    BadData(String),
    /// Anything without an exit code of its own.
    #[error("{0}")]
    Failed(String),
    /// The device computes wrongly.
    #[error("{0}")]
    SelfCheck(String),
    /// The adapter, its driver or its memory.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// Data sets and pictures.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Downloads.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Weight files.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Run folders.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Settings of a run.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Models that do not fit their input.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Models that cannot be compiled.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Training, evaluation and prediction.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Results could not be printed.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// Whether the reader of stdout has gone away, which is its right.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Whether something does not fit the device.
    pub fn is_too_large(&self) -> bool {
        let is_feature = matches!(
            self,
            Failure::Gpu(GpuError::MissingFeature { .. }) | Failure::Train(TrainError::Gpu(GpuError::MissingFeature { .. }))
        );
        self.code() == OUT_OF_MEMORY && !is_feature
    }

    /// The documented exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => USAGE,
            Failure::BadData(_) => BAD_DATA,
            Failure::Failed(_) => Exit::FAILED,
            Failure::SelfCheck(_) => Exit::CheckFailed.code(),
            Failure::Gpu(error) => of_gpu(error),
            Failure::Data(error) => of_data(error),
            Failure::Fetch(error) => of_fetch(error),
            Failure::Weights(error) => of_kind(error.kind()),
            Failure::Run(error) => of_kind(error.kind()),
            Failure::Config(error) => of_kind(error.kind()),
            Failure::Graph(error) => of_graph(error),
            Failure::Build(error) => of_build(error),
            Failure::Train(error) => of_train(error),
            Failure::Output(_) if self.is_closed_pipe() => Exit::Done.code(),
            Failure::Output(_) => Exit::FAILED,
        }
    }
}

const USAGE: u8 = 2;
const NO_ADAPTER: u8 = 3;
const DEVICE_LOST: u8 = 4;
const OUT_OF_MEMORY: u8 = 5;
const BAD_DATA: u8 = 6;
const DIVERGED: u8 = 7;

fn of_kind(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Usage => USAGE,
        ErrorKind::BadData => BAD_DATA,
        ErrorKind::Failed => Exit::FAILED,
    }
}

fn of_gpu(error: &GpuError) -> u8 {
    match error {
        GpuError::NoAdapter | GpuError::NoBackend { .. } | GpuError::NoMatch { .. } => NO_ADAPTER,
        GpuError::Setting(_) => USAGE,
        GpuError::DeviceLost(_) => DEVICE_LOST,
        GpuError::OutOfMemory(_) | GpuError::OverLimit { .. } | GpuError::OverBudget { .. } | GpuError::MissingFeature { .. } => {
            OUT_OF_MEMORY
        }
        GpuError::WrongHalf { .. } => Exit::CheckFailed.code(),
        GpuError::Refused(_) => Exit::FAILED,
    }
}

fn of_data(error: &DataError) -> u8 {
    match error {
        DataError::Setting(_) => USAGE,
        DataError::LoaderStopped => Exit::FAILED,
        _ => BAD_DATA,
    }
}

fn of_fetch(error: &FetchError) -> u8 {
    match error {
        FetchError::Checksum { .. } | FetchError::Archive { .. } => BAD_DATA,
        FetchError::Unreachable { .. } | FetchError::Busy { .. } | FetchError::Io { .. } => Exit::FAILED,
    }
}

/// A layer that does not fit comes from the image size or the channels that were asked for.
fn of_graph(_: &GraphError) -> u8 {
    USAGE
}

fn of_build(error: &BuildError) -> u8 {
    match error {
        BuildError::Graph(error) | BuildError::Autodiff(AutodiffError::Graph(error)) => of_graph(error),
        BuildError::Autodiff(AutodiffError::AllFrozen) => USAGE,
        BuildError::Autodiff(AutodiffError::Unreached(_)) => Exit::FAILED,
        BuildError::Plan(PlanError::TooLarge { .. } | PlanError::NoKernel { .. }) | BuildError::OverBudget { .. } => OUT_OF_MEMORY,
    }
}

fn of_train(error: &TrainError) -> u8 {
    match error {
        TrainError::Gpu(error) => of_gpu(error),
        TrainError::Data(error) => of_data(error),
        TrainError::Weights(error) => of_kind(error.kind()),
        TrainError::Run(error) => of_kind(error.kind()),
        TrainError::Config(error) => of_kind(error.kind()),
        TrainError::Build(error) => of_build(error),
        TrainError::Diverged(_) => DIVERGED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{Divergence, Symptom};

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let no_match = GpuError::NoMatch { spec: "x".into(), available: "y".into() };
        let over = GpuError::OverLimit { what: "x".into(), bytes: 2, limit: 1 };
        let plan = PlanError::TooLarge { name: "x".into(), shape: "1".into(), bytes: 2, limit: 1 };
        let config = ConfigError { flag: "--lr", reason: "is wrong".into() };
        let cases: Vec<(Failure, u8)> = vec![
            (Failure::Failed("x".into()), 1),
            (GpuError::Refused("x".into()).into(), 1),
            (Failure::Usage("x".into()), 2),
            (config.into(), 2),
            (GpuError::NoAdapter.into(), 3),
            (no_match.into(), 3),
            (GpuError::DeviceLost("x".into()).into(), 4),
            (TrainError::Gpu(GpuError::DeviceLost("x".into())).into(), 4),
            (GpuError::OutOfMemory("x".into()).into(), 5),
            (over.into(), 5),
            (GpuError::MissingFeature { adapter: "x".into(), feature: "y" }.into(), 5),
            (BuildError::Plan(plan).into(), 5),
            (BuildError::OverBudget { needed: 2, budget: 1 }.into(), 5),
            (GpuError::OverBudget { what: "x".into(), bytes: 2, in_use: 0, budget: 1 }.into(), 5),
            (TrainError::from(Divergence::new(3, Symptom::DeadLogits)).into(), 7),
            (Failure::BadData("x".into()), 6),
            (WeightsError::Missing { file: "x".into() }.into(), 6),
            (DataError::UnknownDataSet { spec: "x".into(), known: "y".into() }.into(), 6),
            (DataError::TooManyUnreadable { count: 2, limit: 1, example: "x".into() }.into(), 6),
            (FetchError::Unreachable { name: "x".into(), reasons: "y".into() }.into(), 1),
            (FetchError::Checksum { name: "x".into(), reasons: "y".into() }.into(), 6),
            (FetchError::Archive { name: "x".into(), problem: "y".into() }.into(), 6),
            (io::Error::from(io::ErrorKind::StorageFull).into(), 1),
            (io::Error::from(io::ErrorKind::BrokenPipe).into(), 0),
        ];
        for (failure, code) in cases {
            assert_eq!(failure.code(), code, "{failure}");
        }
        let exits = [Exit::Done, Exit::BadInputs, Exit::CheckFailed, Exit::Interrupted];
        assert_eq!(exits.map(Exit::code), [0, 6, 8, 130]);
    }
}
