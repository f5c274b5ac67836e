//! Weight files: safetensors with PyTorch's names and layouts (convolutions OIHW), read into and
//! written from plain `f32` vectors.
//!
//! [`load`] and [`from_bytes`] read, [`save`] writes, [`WeightFile::match_parameters`] compares a
//! file with a model. Nothing here knows a model or a device.

pub mod embedded;
mod error;
mod file;
mod metadata;
mod parse;
mod whitening;

pub(crate) use crate::files::PARTIAL;
pub use crate::files::replace_file;
pub use error::WeightsError;
pub use file::{Encoder, NamedTensor, WeightFile, save, save_as};
pub(crate) use metadata::{MAX_CHANNELS, MAX_SIDE};
pub use metadata::{Metadata, MetadataError, Parts, Preprocess};
pub use parse::{from_bytes, load};
pub use whitening::{MOST_WHITENED_VALUES, WHITENING_FILE, Whitening, WhiteningNote};
