//! Folders of pictures: `train/` and `val/` or `test/`, each with a folder per class.
//!
//! Classes are the folders' names, sorted, as PyTorch's `ImageFolder` has them; pictures are what
//! lies at any depth under them with a picture's name, sorted by path. Pictures may have any size:
//! each is stretched to the one size of the source (bilinear, antialiased when shrinking).

use super::framing::{Polarity, Target, prepare};
use super::picture;
use super::{DataError, Dataset, OpenOptions, Source};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use walkdir::WalkDir;

/// Folders that may hold the test split, the first that is there counts.
const TEST_FOLDERS: [&str; 2] = ["val", "test"];

/// A split of pictures in files, decoded when read.
pub struct Pictures {
    /// Path and label of each.
    files: Vec<(PathBuf, u32)>,
    classes: usize,
    target: Target,
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
        let (path, label) = self.files.get(index).ok_or_else(|| super::no_such_image(index, self.len()))?;
        super::check_buffer(pixels, self.shape())?;
        pixels.copy_from_slice(&prepare(&picture::open(path)?, &self.target)?);
        Ok(*label)
    }
}

/// Whether a folder holds splits as folders.
pub(super) fn looks_like_one(path: &Path) -> bool {
    path.join("train").is_dir() || test_folder(path).is_some()
}

fn test_folder(path: &Path) -> Option<PathBuf> {
    TEST_FOLDERS.iter().map(|name| path.join(name)).find(|path| path.is_dir())
}

/// Opens a folder of splits.
///
/// Both splits must have the same classes. A limit takes pictures evenly spread over the split, so
/// that every class keeps its share.
pub(super) fn open(name: &str, path: &Path, options: &OpenOptions) -> Result<Dataset, DataError> {
    let train = Some(path.join("train")).filter(|path| path.is_dir());
    let test = test_folder(path);
    let mut notes = Vec::new();
    let mut classes: Option<(PathBuf, Vec<String>)> = None;
    for split in [&train, &test].into_iter().flatten() {
        let found = class_names(split)?;
        match &classes {
            None => classes = Some((split.clone(), found)),
            Some((first, known)) => compare_classes(first, known, split, &found)?,
        }
    }
    let classes = classes.map(|(_, names)| names).unwrap_or_default();
    let mut list = |split: &Option<PathBuf>, what: &str, limit| match split {
        Some(folder) => pictures(folder, &classes, limit, &mut notes),
        None => {
            notes.push(format!("{}: there is no {what} split here", path.display()));
            Ok(Vec::new())
        }
    };
    let train_files = list(&train, "training", options.limit_train)?;
    let test_files = list(&test, "test", options.limit_test)?;
    if path.join("val").is_dir() && path.join("test").is_dir() {
        notes.push(format!("{}: val/ is used as the test split, test/ is left aside", path.display()));
    }
    let target = target(options, train_files.first().or(test_files.first()))?;
    let source = |files| -> Arc<dyn Source> { Arc::new(Pictures { files, classes: classes.len(), target }) };
    Ok(Dataset { name: name.to_owned(), path: path.to_path_buf(), train: source(train_files), test: source(test_files), classes, notes })
}

/// The size and channels of the source: as asked, else the first picture's size in RGB.
fn target(options: &OpenOptions, first: Option<&(PathBuf, u32)>) -> Result<Target, DataError> {
    let (height, width, channels) = match (options.target, first) {
        (Some(target), _) => target,
        (None, Some((path, _))) => {
            let picture = picture::open(path)?;
            (picture.height as usize, picture.width as usize, 3)
        }
        (None, None) => (1, 1, 3),
    };
    if !matches!(channels, 1 | 3) || height == 0 || width == 0 {
        return Err(DataError::Setting(format!(
            "pictures have 1 or 3 channels and a size, but {channels}x{height}x{width} (C, H, W) is \
             wanted: this model cannot learn from a folder of pictures"
        )));
    }
    Ok(Target { height, width, channels, polarity: Polarity::Any })
}

/// Names of the class folders in a split, sorted.
fn class_names(split: &Path) -> Result<Vec<String>, DataError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(split).map_err(|e| DataError::read(split, e))? {
        let entry = entry.map_err(|e| DataError::read(split, e))?;
        if !entry.path().is_dir() {
            continue;
        }
        let name = entry.file_name().into_string().map_err(|name| {
            let path = split.join(name);
            DataError::malformed(&path, "the class folder's name is not UTF-8; rename it")
        })?;
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Err(DataError::malformed(split, "holds no class folders; put the pictures of each class into a folder named as the class"));
    }
    names.sort_unstable();
    Ok(names)
}

/// Fails where two splits have different classes.
fn compare_classes(first: &Path, known: &[String], second: &Path, found: &[String]) -> Result<(), DataError> {
    let missing = |of: &[String], among: &[String]| of.iter().find(|name| !among.contains(name)).cloned();
    let (name, there, absent) = if let Some(name) = missing(known, found) {
        (name, first, second)
    } else if let Some(name) = missing(found, known) {
        (name, second, first)
    } else {
        return Ok(());
    };
    Err(DataError::malformed(
        absent,
        format!(
            "has no class folder {name:?}, which {} has ({} and {} classes); both must have the same",
            there.display(),
            found.len(),
            known.len()
        ),
    ))
}

/// Path and label of the pictures of a split, at most `limit`. Notes empty classes and other files.
fn pictures(split: &Path, classes: &[String], limit: Option<usize>, notes: &mut Vec<String>) -> Result<Vec<(PathBuf, u32)>, DataError> {
    if limit == Some(0) {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    let mut aside = 0;
    for (label, class) in classes.iter().enumerate() {
        let folder = split.join(class);
        let before = files.len();
        for entry in WalkDir::new(&folder).follow_links(true).sort_by_file_name() {
            let entry = entry.map_err(|error| walk_error(&folder, error))?;
            if !entry.file_type().is_file() || is_hidden(entry.path()) {
                continue;
            }
            if picture::has_picture_name(entry.path()) {
                files.push((entry.into_path(), label as u32));
            } else {
                aside += 1;
            }
        }
        if files.len() == before {
            notes.push(format!("{}: no pictures of this class", folder.display()));
        }
    }
    if aside > 0 {
        notes.push(format!("{}: {aside} files without a picture's name are left aside", split.display()));
    }
    let count = limit.map_or(files.len(), |limit| limit.min(files.len()));
    Ok((0..count).map(|n| files[n * files.len() / count].clone()).collect())
}

/// Whether a file's name starts with a dot.
pub(super) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// The error of walking through a folder, with the path where it happened.
pub(super) fn walk_error(folder: &Path, error: walkdir::Error) -> DataError {
    let path = error.path().unwrap_or(folder).to_path_buf();
    if error.loop_ancestor().is_some() {
        return DataError::malformed(&path, "links back to a folder above it; remove the link");
    }
    DataError::Read { path, source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Loader;
    use crate::data::Order;
    use image::{Rgb, RgbImage};

    fn save(root: &Path, name: &str, width: u32, height: u32, color: [u8; 3]) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_pixel(width, height, Rgb(color)).save(path).unwrap();
    }

    fn sample() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        save(root.path(), "train/cat/b.png", 8, 6, [10, 20, 30]);
        save(root.path(), "train/cat/a/deep.png", 4, 4, [1, 2, 3]);
        save(root.path(), "train/dog/x.bmp", 40, 30, [200, 100, 0]);
        save(root.path(), "val/dog/y.png", 5, 5, [9, 9, 9]);
        fs::create_dir_all(root.path().join("val/cat")).unwrap();
        fs::write(root.path().join("train/dog/notes.txt"), "not a picture").unwrap();
        fs::write(root.path().join("train/dog/.hidden.png"), "not a picture").unwrap();
        root
    }

    fn options() -> OpenOptions {
        OpenOptions { target: Some((6, 8, 3)), ..OpenOptions::default() }
    }

    #[test]
    fn pictures_of_mixed_sizes_come_in_one_size_and_sorted() {
        let root = sample();
        let set = crate::data::open(root.path().to_str().unwrap(), &options()).unwrap();
        assert_eq!(set.classes, ["cat", "dog"]);
        assert_eq!((set.train.len(), set.test.len(), set.shape()), (3, 1, [3, 6, 8]));
        let mut pixels = vec![0; 6 * 8 * 3];
        for (index, label, color) in [(0, 0, [1, 2, 3]), (1, 0, [10, 20, 30]), (2, 1, [200, 100, 0])] {
            assert_eq!(set.train.read(index, &mut pixels).unwrap(), label);
            assert!(pixels.chunks(3).all(|pixel| pixel == color), "{index}");
        }
        assert!(set.notes.iter().any(|note| note.contains("1 files without")));
        assert!(set.notes.iter().any(|note| note.contains("no pictures of this class")));
        let batches: Vec<_> = Loader::new(set.train.clone(), 2, Order::Sequential, 0, 0).unwrap().collect();
        assert_eq!(batches.len(), 2);
        // Without a target: the first picture's size.
        let set = open("x", root.path(), &OpenOptions::default()).unwrap();
        assert_eq!(set.shape(), [3, 4, 4]);
        let grey = OpenOptions { target: Some((2, 2, 1)), ..OpenOptions::default() };
        let set = open("x", root.path(), &grey).unwrap();
        let mut pixels = [0; 4];
        set.train.read(2, &mut pixels).unwrap();
        assert_eq!(pixels, [119; 4]);
    }

    #[test]
    fn limits_keep_every_class() {
        let root = tempfile::tempdir().unwrap();
        for class in ["a", "b"] {
            for n in 0..4 {
                save(root.path(), &format!("train/{class}/{n}.png"), 2, 2, [n; 3]);
            }
        }
        let limited = OpenOptions { limit_train: Some(2), ..options() };
        let set = open("x", root.path(), &limited).unwrap();
        let mut pixels = vec![0; 6 * 8 * 3];
        let labels: Vec<u32> = (0..2).map(|n| set.train.read(n, &mut pixels).unwrap()).collect();
        assert_eq!(labels, [0, 1]);
        assert!(set.test.is_empty());
        assert!(set.notes[0].contains("no test split"));
    }

    #[test]
    fn faults_are_named() {
        let root = sample();
        let problem = |path: &Path| {
            let error = crate::data::open(path.to_str().unwrap(), &options()).err();
            error.expect("refused").to_string()
        };
        fs::create_dir_all(root.path().join("val/bird")).unwrap();
        assert!(problem(root.path()).contains("has no class folder \"bird\""));
        fs::remove_dir_all(root.path().join("val/bird")).unwrap();
        fs::write(root.path().join("train/cat/broken.png"), "text").unwrap();
        let set = open("x", root.path(), &options()).unwrap();
        let error = set.train.read(2, &mut [0; 6 * 8 * 3]).unwrap_err().to_string();
        assert!(error.contains("broken.png") && error.contains("looks like text"), "{error}");
        let flat = tempfile::tempdir().unwrap();
        save(flat.path(), "train/a.png", 2, 2, [0; 3]);
        assert!(problem(flat.path()).contains("holds no class folders"));
        let four = OpenOptions { target: Some((2, 2, 4)), ..options() };
        assert!(open("x", root.path(), &four).is_err());
    }
}
