//! A split of pictures in files: decoded when they are read first, and kept where there is room.

use super::appearance::Appearance;
use super::framing::{Target, prepare};
use super::unreadable::Unreadable;
use super::{DataError, FileHashes, Source, picture};
use crate::digest::file_sha256;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Up to how many bytes of a split's files are read for its fingerprint: what an operating system keeps in memory, so that the
/// first epoch does not wait for them again.
const HASHED_BYTES: u64 = 1 << 30;

impl AsRef<Path> for PictureFile {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// A file and its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PictureFile {
    pub path: PathBuf,
    pub label: u32,
}

/// Bytes that may still be taken for decoded pictures, shared by the splits of a data set.
#[derive(Debug)]
pub(super) struct CacheRoom(AtomicUsize);

impl CacheRoom {
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(bytes)))
    }

    /// Takes `bytes`, or nothing where they are not there.
    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

/// What is known of a picture that was read.
enum Slot {
    Kept(Box<[u8]>),
    Unreadable,
}

/// What a split does with a picture that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gaps {
    /// The next readable picture of the list stands in: batches stay as large as they are. Which one depends on the files
    /// alone, so runs repeat and resume exactly.
    StandIn,
    /// It is left out: nothing is measured twice.
    LeaveOut,
}

/// A split of pictures in files.
pub(super) struct Pictures {
    files: Vec<PictureFile>,
    slots: Vec<OnceLock<Slot>>,
    classes: usize,
    target: Target,
    /// The folder that the files' paths are compared without.
    root: PathBuf,
    gaps: Gaps,
    room: Arc<CacheRoom>,
    unreadable: Arc<Unreadable>,
}

impl Pictures {
    /// A split of `files`, whose labels are below `classes`, made as `target` says; it has 1 or 3 channels.
    pub fn new(
        files: Vec<PictureFile>,
        classes: usize,
        target: Target,
        root: PathBuf,
        gaps: Gaps,
        room: Arc<CacheRoom>,
        unreadable: Arc<Unreadable>,
    ) -> Self {
        let slots = files.iter().map(|_| OnceLock::new()).collect();
        Self { files, slots, classes, target, root, gaps, room, unreadable }
    }

    /// Writes picture `index`; `false` where it cannot be read.
    fn load(&self, index: usize, pixels: &mut [u8]) -> Result<bool, DataError> {
        match self.slots[index].get() {
            Some(Slot::Kept(kept)) => {
                pixels.copy_from_slice(kept);
                return Ok(true);
            }
            Some(Slot::Unreadable) => return Ok(false),
            None => {}
        }
        let path = &self.files[index].path;
        match picture::open(path).and_then(|picture| prepare(&picture, &self.target)) {
            Ok(prepared) => {
                pixels.copy_from_slice(&prepared);
                if self.room.take(prepared.len()) {
                    // Another thread may have been quicker; its pixels are the same.
                    let _ = self.slots[index].set(Slot::Kept(prepared.into_boxed_slice()));
                }
                Ok(true)
            }
            // A caller's setting is no fault of the picture.
            Err(error @ DataError::Setting(_)) => Err(error),
            Err(error) => {
                if self.slots[index].set(Slot::Unreadable).is_ok() {
                    self.unreadable.add(path, &error)?;
                }
                Ok(false)
            }
        }
    }
}

impl Source for Pictures {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn shape(&self) -> [usize; 3] {
        [self.target.channels, self.target.height, self.target.width]
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<u32, DataError> {
        let file = self.files.get(index).ok_or_else(|| super::no_such_image(index, self.len()))?;
        super::check_buffer(pixels, self.shape())?;
        pixels.copy_from_slice(&prepare(&picture::open(&file.path)?, &self.target)?);
        Ok(file.label)
    }

    fn try_read(&self, index: usize, pixels: &mut [u8]) -> Result<Option<u32>, DataError> {
        let len = self.len();
        if index >= len {
            return Err(super::no_such_image(index, len));
        }
        super::check_buffer(pixels, self.shape())?;
        let candidates = if self.gaps == Gaps::StandIn { len } else { 1 };
        for candidate in (index..index + candidates).map(|at| at % len) {
            if self.load(candidate, pixels)? {
                return Ok(Some(self.files[candidate].label));
            }
        }
        match self.gaps {
            Gaps::LeaveOut => Ok(None),
            Gaps::StandIn => Err(DataError::malformed(&self.root, "not one of the pictures can be read")),
        }
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.files.get(index).map(|file| file.label)
    }

    fn file(&self, index: usize) -> Option<&Path> {
        self.files.get(index).map(|file| file.path.as_path())
    }

    fn appearance(&self) -> Option<Appearance> {
        Some(Appearance { polarity: self.target.polarity, fill: self.target.fill })
    }

    fn file_hashes(&self) -> Result<Option<FileHashes>, DataError> {
        let sizes: Vec<u64> = self
            .files
            .par_iter()
            .map(|file| std::fs::metadata(&file.path).map(|about| about.len()).map_err(|error| DataError::read(&file.path, error)))
            .collect::<Result<_, _>>()?;
        let mut listing = Sha256::new();
        for (file, size) in self.files.iter().zip(&sizes) {
            let path = file.path.strip_prefix(&self.root).unwrap_or(&file.path);
            for part in path.components() {
                listing.update(part.as_os_str().as_encoded_bytes());
                listing.update([0]);
            }
            listing.update(size.to_le_bytes());
            listing.update(file.label.to_le_bytes());
        }
        Ok(Some(FileHashes { listing: listing.finalize().into(), contents: contents_hash(&self.files, sizes.iter().sum(), HASHED_BYTES) }))
    }
}

/// A hash over what is in `files`, which are `bytes` long together: in every n-th of them, for the n that makes it about
/// `most` bytes or fewer. A file that cannot be read counts as empty.
fn contents_hash(files: &[PictureFile], bytes: u64, most: u64) -> [u8; 32] {
    let stride = usize::try_from(bytes.div_ceil(most)).unwrap_or(usize::MAX).max(1);
    let hashes: Vec<String> = files.par_iter().step_by(stride).map(|file| file_sha256(&file.path).unwrap_or_default()).collect();
    let mut hash = Sha256::new();
    hashes.iter().for_each(|file| hash.update(format!("{file}\n")));
    hash.finalize().into()
}

/// Whether the pictures of a list show colour, judged by up to `sample` of them spread over it.
pub(super) fn show_colour(files: &[PictureFile], sample: usize) -> bool {
    let count = files.len().min(sample);
    (0..count).into_par_iter().any(|n| picture::open(&files[n * files.len() / count].path).is_ok_and(|picture| picture.shows_colour()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::framing::Polarity;
    use crate::data::{Loader, Order, fingerprint};
    use image::{Rgb, RgbImage};
    use std::fs;

    /// Five pictures of grey levels 10 to 50, the third of them broken.
    fn sample(folder: &Path) -> Vec<PictureFile> {
        (1..=5u8)
            .map(|n| {
                let path = folder.join(format!("{n}.png"));
                match n {
                    3 => fs::write(&path, "no picture").unwrap(),
                    _ => RgbImage::from_pixel(2, 2, Rgb([n * 10; 3])).save(&path).unwrap(),
                }
                PictureFile { path, label: u32::from(n) }
            })
            .collect()
    }

    fn split(folder: &Path, gaps: Gaps, room: usize, limit: usize) -> Pictures {
        let unreadable = Arc::new(Unreadable::new(limit));
        let target = Target { height: 2, width: 2, channels: 1, polarity: Polarity::Any, fill: 1.0 };
        Pictures::new(sample(folder), 6, target, folder.to_path_buf(), gaps, CacheRoom::new(room), unreadable)
    }

    #[test]
    fn another_picture_stands_in_or_the_gap_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut pixels = [0; 4];
        let training = split(folder.path(), Gaps::StandIn, 0, 1);
        assert_eq!(training.try_read(2, &mut pixels).unwrap(), Some(4));
        assert_eq!(pixels, [40; 4]);
        assert_eq!(training.try_read(2, &mut pixels).unwrap(), Some(4));
        assert_eq!(training.unreadable.len(), 1, "counted once, however often it is asked for");
        let test = Arc::new(split(folder.path(), Gaps::LeaveOut, 0, 1));
        assert_eq!(test.try_read(2, &mut pixels).unwrap(), None);
        let batches: Vec<_> = Loader::new(test, 4, Order::Sequential, 0, 0).unwrap().map(Result::unwrap).collect();
        assert_eq!((batches[0].count, &batches[0].labels[..3], &batches[0].ids[..3]), (3, &[1, 2, 4][..], &[0, 1, 3][..]));
        assert_eq!(batches[0].pixels[8..], [40, 40, 40, 40, 0, 0, 0, 0]);
        assert_eq!((batches[1].count, batches[1].labels[0]), (1, 5));
        let strict = split(folder.path(), Gaps::StandIn, 0, 0);
        assert!(matches!(strict.try_read(2, &mut pixels), Err(DataError::TooManyUnreadable { .. })));
    }

    #[test]
    fn pictures_are_kept_as_long_as_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let split = split(folder.path(), Gaps::StandIn, 9, 1);
        let mut pixels = [0; 4];
        for index in [0, 1, 3] {
            split.try_read(index, &mut pixels).unwrap();
        }
        sample(folder.path()).iter().for_each(|file| fs::write(&file.path, "gone").unwrap());
        let labels: Vec<Option<u32>> = [0, 1].iter().map(|&index| split.try_read(index, &mut pixels).unwrap()).collect();
        assert_eq!((labels, pixels), (vec![Some(1), Some(2)], [20; 4]));
        // The third did not fit, is read again and found broken; the first stands in for all behind it.
        assert_eq!(split.room.0.load(Ordering::Relaxed), 1);
        assert!(split.try_read(3, &mut pixels).is_ok_and(|label| label == Some(5)) || split.unreadable.len() > 1);
    }

    #[test]
    fn the_fingerprint_is_that_of_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let print = |path: &Path| fingerprint(&split(path, Gaps::StandIn, 0, 9)).unwrap();
        let first = print(folder.path());
        assert_eq!(first, print(folder.path()));
        // The same files elsewhere are the same data.
        let moved = tempfile::tempdir().unwrap();
        assert_eq!(first, print(moved.path()));
        let unlike = |change: &dyn Fn(&mut Pictures)| {
            let mut other = split(folder.path(), Gaps::StandIn, 0, 9);
            change(&mut other);
            fingerprint(&other).unwrap()
        };
        assert_ne!(first, unlike(&|other| other.files[0].label = 0));
        assert_ne!(first, unlike(&|other| other.target.height = 3));
        assert_ne!(first, unlike(&|other| drop(other.files.pop())));
        let path = folder.path().join("3.png");
        assert_ne!(first, unlike(&|_| fs::write(&path, "another size of no picture").unwrap()));
        // Another content under the name of one, and as long.
        let changed = unlike(&|_| fs::write(&path, "no PICTURE").unwrap());
        assert_eq!(first.split_once('-').unwrap().0, changed.split_once('-').unwrap().0);
        assert_ne!(first, changed);
    }

    #[test]
    fn of_many_bytes_a_share_spread_over_the_files_is_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |number: u32| folder.path().join(number.to_string());
        (0..12).for_each(|number| fs::write(path(number), [number as u8; 10]).unwrap());
        let files: Vec<PictureFile> = (0..12).map(|number| PictureFile { path: path(number), label: 0 }).collect();
        let first = contents_hash(&files, 120, 30);
        assert_ne!(first, contents_hash(&files, 120, 120));
        // Every fourth.
        for (number, is_seen) in [(0, true), (1, false), (3, false), (8, true), (11, false)] {
            fs::write(path(number), [99; 10]).unwrap();
            assert_eq!(contents_hash(&files, 120, 30) != first, is_seen, "{number}");
            fs::write(path(number), [number as u8; 10]).unwrap();
        }
        fs::remove_file(path(4)).unwrap();
        assert_ne!(first, contents_hash(&files, 120, 30));
        assert_eq!(contents_hash(&[], 0, 30), contents_hash(&[], 0, 30));
    }
}
