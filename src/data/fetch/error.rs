//! Why a data set could not be downloaded.

use std::io;
use std::path::Path;

/// An error of downloading. Each message is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No mirror delivered the file.
    #[error("cannot download {name}: {reasons}; try again later (what arrived is kept), or name another mirror with --mirror")]
    Unreachable {
        /// The file.
        name: String,
        /// What each mirror said.
        reasons: String,
    },
    /// Something was delivered, but it is not the file.
    #[error("{name} is not what it should be, and was thrown away: {reasons}; try again later, or name another mirror with --mirror")]
    Checksum {
        /// The file.
        name: String,
        /// What each mirror delivered.
        reasons: String,
    },
    /// An archive holds something else than expected.
    #[error("{name}: {problem}; nothing was put in place. Please report it")]
    Archive {
        /// The archive.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Another process downloads the same set.
    #[error("{set} is being downloaded by another process; wait until it is done")]
    Busy {
        /// The set.
        set: String,
    },
    /// The operating system refused.
    #[error("{path}: cannot {action}: {source}; check free space and permissions, or name another folder with --data-dir")]
    Io {
        /// The file or folder.
        path: String,
        /// What was tried.
        action: &'static str,
        /// What is wrong.
        source: io::Error,
    },
}

impl FetchError {
    /// For `map_err`: what was tried with `path` when the system refused.
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { path, action, source }
    }
}
