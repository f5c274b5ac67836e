//! What can go wrong with data, as one-line messages: what, where, what to do.

use crate::errors::path_text;
use std::io;
use std::path::{Path, PathBuf};

/// An error of reading data sets or pictures.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system refused to open or read a file.
    #[error("cannot read {}: {source}; check the path and its permissions", path_text(path))]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file of a data set is not what it should be.
    #[error("{}: {problem}", path_text(path))]
    Malformed {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// A picture cannot be used.
    #[error("{name}: {problem}")]
    Picture {
        /// Path of the picture, or what stands for it (`-` for standard input).
        name: String,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// `--data` is neither a known name nor a folder.
    #[error("no data set or folder {spec:?}: the known names are {known}; anything else must be a folder that exists")]
    UnknownDataSet {
        /// What was asked for.
        spec: String,
        /// The known names, listed.
        known: String,
    },
    /// A known data set is in none of the places where it is looked for.
    #[error(
        "the data set {name} is not there: looked in {looked_in}; download it with: nin-wgpu data fetch {name}. Or put {wanted} into one of them, or name their folder with --data-dir or NIN_WGPU_DATA"
    )]
    NotFound {
        /// Name of the data set.
        name: String,
        /// The folders looked in, listed.
        looked_in: String,
        /// The files wanted.
        wanted: String,
    },
    /// More pictures than allowed cannot be read.
    #[error(
        "{count} pictures cannot be read, and at most {limit} may be, such as {example}; mend or remove them, or allow more with --max-bad"
    )]
    TooManyUnreadable {
        /// How many were found.
        count: usize,
        /// How many there may be.
        limit: usize,
        /// The last one, and why.
        example: String,
    },
    /// A batch that does not fit the network that is to take it.
    #[error("{0}; look at the data set with data info")]
    Unfit(String),
    /// A caller's setting that cannot work.
    #[error("{0}")]
    Setting(String),
    /// The background reader ended without a result: a fault of the program.
    #[error("the background reader stopped without saying why; this is a fault of the program, please report it")]
    LoaderStopped,
}

impl DataError {
    /// A [`DataError::Malformed`] at `path`.
    pub(crate) fn malformed(path: &Path, problem: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_path_buf(), problem: problem.into() }
    }

    /// A [`DataError::Read`] at `path`.
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_path_buf(), source }
    }
}
