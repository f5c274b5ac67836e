//! What can go wrong with a run's folder and its files.

use std::io;
use std::path::Path;

use crate::errors::{ErrorKind, label};
use crate::weights::WeightsError;

/// Why a run folder, its configuration, metrics or checkpoint could not be used. Each message is
/// one line that names the path and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The folder for a new run is not empty.
    #[error("{path}: already holds files; pass --resume {path} to go on with that run, or another --out")]
    Occupied {
        /// The folder or file.
        path: String,
    },

    /// Another process trains in the folder.
    #[error("{path}: another process{holder} trains in this folder; wait for its end or stop it, or pass another --out")]
    Locked {
        /// The folder.
        path: String,
        /// The process, in words, where it is known.
        holder: String,
    },

    /// A run cannot be made longer.
    #[error("{path}: --epochs {wanted}: {reason}")]
    Epochs {
        /// The run's folder.
        path: String,
        /// Epochs that were asked for.
        wanted: u32,
        /// Why not, and what to do.
        reason: String,
    },

    /// The folder to resume holds no run.
    #[error("{path}: not the folder of a run (no {missing} in it); give the --out folder of an earlier train")]
    NotARun {
        /// The folder or file.
        path: String,
        /// The file that is looked for.
        missing: &'static str,
    },

    /// The run never came to save its state.
    #[error("{path}: there is no checkpoint (manifest.json) to go on from; start again with another --out")]
    NoCheckpoint {
        /// The folder or file.
        path: String,
    },

    /// A recipe cannot be used.
    #[error("--recipe {recipe}: {reason}")]
    Recipe {
        /// Its name or file.
        recipe: String,
        /// What is wrong.
        reason: String,
    },

    /// `config.toml` cannot be read or written.
    #[error("{path}: not a valid configuration: {reason}; correct it or start a new run")]
    Config {
        /// The folder or file.
        path: String,
        /// What is wrong.
        reason: String,
    },

    /// A file of the checkpoint is not what was written.
    #[error("{path}: the checkpoint is damaged: {reason}; start again, from last.safetensors with --initial-weights if that is whole")]
    Damaged {
        /// The folder or file.
        path: String,
        /// What is wrong.
        reason: String,
    },

    /// The run to resume was another.
    #[error("{path}: this run began with another {what}; resume it with the same one, or start a new run")]
    Different {
        /// The folder or file.
        path: String,
        /// What differs.
        what: &'static str,
    },

    /// Weights in the run's folder that the run did not write.
    #[error("{path}: has no metadata, so it is not what the run wrote; put the run's own file back")]
    Undescribed {
        /// The weight file.
        path: String,
    },

    /// The statistics of whitening hold values that are no finite numbers.
    #[error("--whiten: the images' covariance is not finite; look at the images with `data info --sheet`")]
    Whitening,

    /// The operating system refused.
    #[error("{path}: cannot {action}: {reason}; check free space and permissions")]
    Io {
        /// The folder or file.
        path: String,
        /// What was tried.
        action: &'static str,
        /// What is wrong.
        reason: io::Error,
    },

    /// The checkpoint's tensors cannot be read or written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

impl RunError {
    /// Which exit code the error leads to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Occupied { .. } | Self::Locked { .. } | Self::Epochs { .. } | Self::NotARun { .. } | Self::Recipe { .. } => {
                ErrorKind::Usage
            }
            Self::NoCheckpoint { .. } | Self::Config { .. } | Self::Damaged { .. } | Self::Different { .. } | Self::Undescribed { .. } => {
                ErrorKind::BadData
            }
            Self::Io { .. } | Self::Whitening => ErrorKind::Failed,
            Self::Weights(error) => error.kind(),
        }
    }

    /// For `map_err`: what was tried with `path` when the system refused.
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = label(path);
        move |reason| Self::Io { path, action, reason }
    }
}
