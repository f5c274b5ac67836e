//! What can be wrong with a weight file.

use std::io;
use std::path::Path;

use super::metadata::MetadataError;
pub(crate) use crate::files::one_line;
use crate::files::path_text;

/// What an error means to the caller, and so which exit code it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The command asks for something that cannot be: exit code 2.
    Usage,
    /// Data, weights or a checkpoint cannot be used: exit code 6.
    BadData,
    /// Anything else, such as a full disk: exit code 1.
    Failed,
}

/// Why weights could not be read, written or matched with a model. Each message is one line that
/// names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The path leads to nothing.
    #[error("{file}: no such file; check the path")]
    Missing {
        /// Path of the file, or what stands for it.
        file: String,
    },

    /// A folder, pipe or device.
    #[error("{file}: not a regular file; give a .safetensors file")]
    NotAFile {
        /// Path of the file, or what stands for it.
        file: String,
    },

    /// The operating system refused to read.
    #[error("{file}: cannot be read: {reason}; check its permissions and the disk")]
    Read {
        /// Path of the file, or what stands for it.
        file: String,
        /// What is wrong.
        reason: io::Error,
    },

    /// More bytes than are ever read.
    #[error("{file}: {bytes} bytes are too many for weights (at most {limit}); is it another file?")]
    TooLarge {
        /// Path of the file, or what stands for it.
        file: String,
        /// Size of the file.
        bytes: u64,
        /// Largest size that is read.
        limit: u64,
    },

    /// A file of another kind.
    #[error("{file}: not a safetensors file ({reason}); {advice}")]
    NotSafetensors {
        /// Path of the file, or what stands for it.
        file: String,
        /// What is wrong.
        reason: String,
        /// What to do.
        advice: &'static str,
    },

    /// The end of the file is missing.
    #[error("{file}: cut short: {expected} bytes are announced, {found} are there; copy or download it again")]
    Truncated {
        /// Path of the file, or what stands for it.
        file: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },

    /// The file is longer than its header says.
    #[error("{file}: {extra} bytes follow the last tensor; copy, download or export it again")]
    TrailingBytes {
        /// Path of the file, or what stands for it.
        file: String,
        /// Bytes too many.
        extra: u64,
    },

    /// The header is no JSON, or lies about shapes, types or places.
    #[error("{file}: the header is wrong: {reason}; copy, download or export it again")]
    Header {
        /// Path of the file, or what stands for it.
        file: String,
        /// What is wrong.
        reason: String,
    },

    /// A tensor of a type that is not read.
    #[error("{file}: tensor {tensor} has type {dtype}; F32, F16 and BF16 can be read: convert it and save it again")]
    Dtype {
        /// Path of the file, or what stands for it.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// The tensor's type.
        dtype: String,
    },

    /// A tensor with NaN or infinity.
    #[error("{file}: tensor {tensor} holds {value} at element {index}: training diverged or the file is damaged; use earlier weights")]
    NonFinite {
        /// Path of the file, or what stands for it.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Row-major index of the first such element.
        index: usize,
        /// Its value.
        value: f32,
    },

    /// Metadata of this program that makes no sense.
    #[error("{file}: metadata {reason}; export it again, or remove its metadata and pass --model")]
    Metadata {
        /// Path of the file, or what stands for it.
        file: String,
        /// What is wrong.
        reason: MetadataError,
    },

    /// Weights of a model that is not known here.
    #[error("{file}: weights of the model '{model}', which is not known here; the models are {known}")]
    UnknownModel {
        /// Path of the file, or what stands for it.
        file: String,
        /// The model's name.
        model: String,
        /// The names that are known.
        known: String,
    },

    /// Weights of another program.
    #[error("{file}: does not say which model it is for and how pictures are prepared; save it with metadata")]
    Undescribed {
        /// Path of the file, or what stands for it.
        file: String,
    },

    /// The whitening that weights were trained with is not beside them.
    #[error("{file}: {reason}; {wanted_by} was trained with it: copy it from the folder of that run")]
    Whitening {
        /// Path of the whitening.
        file: String,
        /// The weights, or the run.
        wanted_by: String,
        /// What is wrong.
        reason: String,
    },

    /// The tensors are not those of the model.
    #[error("{file}: {first}{others}; these are weights of another model or class count: pass the right --model, or --classes N")]
    Mismatch {
        /// Path of the file, or what stands for it.
        file: String,
        /// The first difference, with both shapes.
        first: String,
        /// How many other tensors differ, in words; empty where none does.
        others: String,
    },

    /// A tensor that cannot be saved, such as one with NaN.
    #[error("{file}: tensor {tensor} cannot be saved: {reason}; nothing was written")]
    Unwritable {
        /// Path of the file, or what stands for it.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },

    /// The operating system refused to write.
    #[error("{file}: cannot be written: {reason}; check free space and permissions (an earlier file of that name is untouched)")]
    Write {
        /// Path of the file, or what stands for it.
        file: String,
        /// What is wrong.
        reason: io::Error,
    },
}

impl WeightsError {
    /// Which exit code the error leads to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unwritable { .. } | Self::Write { .. } => ErrorKind::Failed,
            _ => ErrorKind::BadData,
        }
    }

    /// Weights are to be used without the whitening that they name as `file`.
    pub(crate) fn no_whitening(file: &str) -> Self {
        Self::Whitening { file: one_line(file, 400), wanted_by: "the network".into(), reason: "was not read".into() }
    }

    pub(super) fn read(file: &str, reason: io::Error) -> Self {
        let file = file.to_string();
        match reason.kind() {
            io::ErrorKind::NotFound => Self::Missing { file },
            _ => Self::Read { file, reason },
        }
    }
}

/// A path as messages show it: one line, whatever it is made of.
pub(crate) fn label(path: &Path) -> String {
    one_line(&path_text(path), 400)
}

/// A tensor's name as messages show it: names come from files and may be anything.
pub(super) fn tensor_name(name: &str) -> String {
    format!("'{}'", one_line(name, 80))
}
