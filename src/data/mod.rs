//! Data sets and pictures: readers, order, prefetch. Nothing here knows the GPU.
//!
//! [`open`] turns what the user named into a [`Dataset`] of two [`Source`]s; a [`Loader`] makes
//! [`Batch`]es of a source in the background; [`picture`] reads a single picture and [`framing`]
//! makes it look like the pictures that a model was trained on.

mod background;
pub(crate) mod class_name;
mod error;
mod files;
mod fingerprint;
mod junk;
mod loader;
mod locate;
mod mat;
mod memory;
mod pictures;
mod relabel;
mod resize;
mod splits;
mod unreadable;

pub mod appearance;
pub mod catalog;
pub mod cifar;
pub mod fetch;
pub mod folder;
pub mod framing;
pub mod idx;
pub mod inputs;
pub mod inventory;
pub mod picture;
pub mod survey;
pub mod svhn;

pub use error::DataError;
pub use fingerprint::{ChannelStats, FileHashes, channel_stats, difference, fingerprint};
pub use loader::{Batch, IndexLoader, Loader, Order, batches_per_epoch};
pub use locate::{FASHION_CLASSES, OpenOptions, data_folders, find, known_names, open};
pub use memory::{FirstImages, InMemory};
pub use relabel::Relabelled;
pub use unreadable::{Unreadable, UnreadablePicture};

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One split of a data set: labelled images of one shape, readable in any order and from any
/// thread.
pub trait Source: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there are no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape of every image: (channels, height, width).
    fn shape(&self) -> [usize; 3];

    /// Number of classes; every label is below it.
    fn classes(&self) -> usize;

    /// Writes image `index` into `pixels` (height x width x channels bytes, channels interleaved)
    /// and returns its label.
    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<u32, DataError>;

    /// As [`Source::read`] for splits that may hold pictures that cannot be read: `None` for one of those, or another
    /// image in its place. How many there may be is the split's affair.
    fn try_read(&self, index: usize, pixels: &mut [u8]) -> Result<Option<u32>, DataError> {
        self.read(index, pixels).map(Some)
    }

    /// Label of image `index` where it is known without reading the image.
    fn label(&self, index: usize) -> Option<u32> {
        self.stored()?.labels.get(index).copied()
    }

    /// The file that holds image `index` and nothing else, where there is one.
    fn file(&self, _index: usize) -> Option<&Path> {
        None
    }

    /// How its images are made to look, where they are prepared when they are read.
    fn appearance(&self) -> Option<appearance::Appearance> {
        None
    }

    /// What the split is known by where each of its images has a file of its own.
    fn file_hashes(&self) -> Result<Option<FileHashes>, DataError> {
        Ok(None)
    }

    /// All images, where they lie in memory; `None` where they are decoded when they are read.
    fn stored(&self) -> Option<Stored<'_>> {
        None
    }
}

/// A split that lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// Image after image, each HWC.
    pub pixels: &'a [u8],
    /// Label of each image.
    pub labels: &'a [u32],
}

/// Which part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// What a model learns from.
    Train,
    /// What it is measured on.
    Test,
}

impl Split {
    /// `train` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

/// A data set with its two splits, either of which may be empty.
#[derive(Clone)]
pub struct Dataset {
    /// Its known name, or its folder's.
    pub name: String,
    /// Where it was found.
    pub path: PathBuf,
    /// Names of the classes, by label.
    pub classes: Vec<String>,
    /// What a model learns from.
    pub train: Arc<dyn Source>,
    /// What it is measured on.
    pub test: Arc<dyn Source>,
    /// What the user should know, a line each: an empty split, files left aside.
    pub notes: Vec<String>,
    /// Pictures that could not be read so far, for sets of pictures in files; `None` for others.
    pub unreadable: Option<Arc<Unreadable>>,
    /// The share of each class that was drawn for testing; `None` where the set has a test split of its own, or none.
    pub val_split: Option<f64>,
}

impl std::fmt::Debug for Dataset {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Dataset")
            .field("name", &self.name)
            .field("path", &self.path)
            .field("classes", &self.classes)
            .field("train", &self.train.len())
            .field("test", &self.test.len())
            .finish_non_exhaustive()
    }
}

impl Dataset {
    /// A named set, or a folder with a folder of pictures for each class; [`open`] has the details.
    pub fn open(data: &str, options: &OpenOptions) -> Result<Self, DataError> {
        open(data, options)
    }

    /// Images of your own: their classes by label, and two splits of images of one shape. [`InMemory`] makes a split of bytes;
    /// an empty test split leaves measuring out.
    pub fn of(
        name: impl Into<String>,
        classes: Vec<String>,
        train: impl Source + 'static,
        test: impl Source + 'static,
    ) -> Result<Self, DataError> {
        let (train, test): (Arc<dyn Source>, Arc<dyn Source>) = (Arc::new(train), Arc::new(test));
        if train.shape() != test.shape() || train.classes().max(test.classes()) > classes.len() {
            let (shapes, labels) = ([train.shape(), test.shape()], [train.classes(), test.classes()]);
            return Err(DataError::Setting(format!(
                "the splits have shapes {shapes:?} and {labels:?} classes, which must be one shape and at most the {} that have names",
                classes.len()
            )));
        }
        let name = name.into();
        let path = PathBuf::from(&name);
        Ok(Dataset { name, path, classes, train, test, notes: Vec::new(), unreadable: None, val_split: None })
    }

    /// One of the splits.
    pub fn split(&self, split: Split) -> &Arc<dyn Source> {
        match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
        }
    }

    /// Shape of the images, (channels, height, width): the same in both splits.
    pub fn shape(&self) -> [usize; 3] {
        self.train.shape()
    }
}

/// The error of an index past the end of a split.
fn no_such_image(index: usize, len: usize) -> DataError {
    DataError::Setting(format!("image {index} was asked of a split of {len} images"))
}

/// Checks that a buffer holds exactly one image of `shape`.
fn check_buffer(pixels: &[u8], shape: [usize; 3]) -> Result<(), DataError> {
    let wanted: usize = shape.iter().product();
    if pixels.len() == wanted {
        return Ok(());
    }
    Err(DataError::Setting(format!("a buffer of {} bytes for an image of {shape:?} (C, H, W), which takes {wanted}", pixels.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_images_need_one_shape_and_a_name_for_every_class() {
        let images = |shape: [usize; 3], classes| InMemory::new(shape, classes, vec![0; shape.iter().product()], vec![0]).unwrap();
        let names = || vec!["a".to_string(), "b".to_string()];
        let dataset = Dataset::of("own", names(), images([1, 2, 3], 2), InMemory::empty([1, 2, 3], 2)).unwrap();
        assert_eq!((dataset.shape(), dataset.train.len(), dataset.test.len()), ([1, 2, 3], 1, 0));
        assert!(Dataset::of("own", names(), images([1, 2, 3], 2), images([1, 3, 2], 2)).is_err());
        assert!(Dataset::of("own", names(), images([1, 2, 3], 3), images([1, 2, 3], 2)).is_err());
    }
}
