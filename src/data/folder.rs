//! Folders of pictures: a folder per class, within `train/` and `val/` or `test/`, or without splits.
//!
//! Classes are the folders' names, sorted, as PyTorch's `ImageFolder` has them; pictures are what
//! lies at any depth under them with a picture's name, sorted by path. Pictures may have any size:
//! each is stretched to the one size of the source (bilinear, antialiased when shrinking).
//!
//! Where there is no test split one can be drawn from the training pictures: of each class the same
//! share, by a hash of seed, class and file name, so that neither order nor place of the folder matters.

use super::pictures::{CacheRoom, Gaps, PictureFile, Pictures, show_colour};
use super::unreadable::Unreadable;
use super::{DataError, Dataset, OpenOptions, Source, picture};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use walkdir::WalkDir;

/// Folders that may hold the test split, the first that is there counts.
const TEST_FOLDERS: [&str; 2] = ["val", "test"];
/// Pictures looked at to tell whether a set shows colour.
const COLOUR_SAMPLE: usize = 32;
/// Most bytes of decoded pictures kept in memory, unless `NIN_WGPU_PICTURE_CACHE` says otherwise.
const CACHE_BYTES: usize = 1 << 30;

/// Whether a folder holds splits as folders, or folders with pictures.
pub(super) fn looks_like_one(path: &Path) -> bool {
    path.join("train").is_dir() || test_folder(path).is_some() || holds_class_folders(path)
}

fn test_folder(path: &Path) -> Option<PathBuf> {
    TEST_FOLDERS.iter().map(|name| path.join(name)).find(|path| path.is_dir())
}

/// Whether there is a picture in some folder of this one.
fn holds_class_folders(path: &Path) -> bool {
    let walk = WalkDir::new(path).min_depth(2).follow_links(true).into_iter();
    let mut entries = walk.filter_entry(|entry| !is_hidden(entry.path())).flatten();
    entries.any(|entry| entry.file_type().is_file() && picture::has_picture_name(entry.path()))
}

/// Opens a folder of pictures.
///
/// Both splits must have the same classes. A limit takes pictures evenly spread over the split, so
/// that every class keeps its share.
pub(super) fn open(name: &str, path: &Path, options: &OpenOptions) -> Result<Dataset, DataError> {
    let test = test_folder(path);
    let is_flat = test.is_none() && !path.join("train").is_dir();
    let train = if is_flat { Some(path.to_path_buf()) } else { Some(path.join("train")).filter(|path| path.is_dir()) };
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
    // What a limit of 0 leaves out is not even listed, unless a split is drawn from it.
    let share = options.val_split.filter(|share| test.is_none() && *share > 0.0);
    let list = |split: &Option<PathBuf>, limit: Option<usize>, notes: &mut Vec<String>| match split {
        Some(folder) if share.is_some() || limit != Some(0) => pictures(folder, &classes, notes),
        _ => Ok(Vec::new()),
    };
    let mut train_files = list(&train, options.limit_train, &mut notes)?;
    let mut test_files = list(&test, options.limit_test, &mut notes)?;
    if let Some(share) = share {
        (train_files, test_files) = draw(train_files, path, share, options.seed);
        notes.push(format!(
            "{}: no val/ or test/ here, so {} of {} pictures were drawn for testing (--val-split {share}, --seed {})",
            path.display(),
            test_files.len(),
            train_files.len() + test_files.len(),
            options.seed
        ));
    }
    let missing = [(train.is_some(), "training"), (test.is_some() || share.is_some(), "test")];
    notes.extend(missing.iter().filter(|(there, _)| !there).map(|(_, what)| format!("{}: there is no {what} split here", path.display())));
    if path.join("val").is_dir() && path.join("test").is_dir() {
        notes.push(format!("{}: val/ is used as the test split, test/ is left aside", path.display()));
    }
    let (train_files, test_files) = (spread(train_files, options.limit_train), spread(test_files, options.limit_test));
    let shape = shape(options, if train_files.is_empty() { &test_files } else { &train_files })?;
    let limit = options.max_bad.unwrap_or_else(|| Unreadable::default_limit(train_files.len() + test_files.len()));
    let unreadable = Arc::new(Unreadable::new(limit));
    let room = CacheRoom::new(cache_bytes()?);
    let source = |files, gaps| -> Arc<dyn Source> {
        Arc::new(Pictures::new(files, classes.len(), shape, path.to_path_buf(), gaps, Arc::clone(&room), Arc::clone(&unreadable)))
    };
    Ok(Dataset {
        name: name.to_owned(),
        path: path.to_path_buf(),
        train: source(train_files, Gaps::StandIn),
        test: source(test_files, Gaps::LeaveOut),
        classes,
        notes,
        unreadable: Some(unreadable),
        val_split: share,
    })
}

/// Bytes of decoded pictures that are kept.
fn cache_bytes() -> Result<usize, DataError> {
    match std::env::var("NIN_WGPU_PICTURE_CACHE") {
        Err(_) => Ok(CACHE_BYTES),
        Ok(text) => text
            .trim()
            .parse::<usize>()
            .map(|mebibytes| mebibytes.saturating_mul(1 << 20))
            .map_err(|_| DataError::Setting(format!("NIN_WGPU_PICTURE_CACHE is {text:?}; it takes a number of MiB, 0 keeps nothing"))),
    }
}

/// The shape (C, H, W) of the source: as asked, else the first readable picture's size in RGB.
fn shape(options: &OpenOptions, files: &[PictureFile]) -> Result<[usize; 3], DataError> {
    let (height, width, channels) = match options.target {
        Some((height, width, 1)) if options.follow_colour && show_colour(files, COLOUR_SAMPLE) => (height, width, 3),
        Some(target) => target,
        None => match files.iter().find_map(|file| picture::open(&file.path).ok()) {
            Some(picture) => (picture.height as usize, picture.width as usize, 3),
            None => (1, 1, 3),
        },
    };
    if !matches!(channels, 1 | 3) || height == 0 || width == 0 {
        return Err(DataError::Setting(format!(
            "pictures have 1 or 3 channels and a size, but {channels}x{height}x{width} (C, H, W) is \
             wanted: this model cannot learn from a folder of pictures"
        )));
    }
    Ok([channels, height, width])
}

/// Draws a share of each class; what is left, and what was drawn, both in the list's order. A class of two pictures or
/// more gives at least one and keeps at least one.
fn draw(files: Vec<PictureFile>, root: &Path, share: f64, seed: u64) -> (Vec<PictureFile>, Vec<PictureFile>) {
    let key = |file: &PictureFile| -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        for part in file.path.strip_prefix(root).unwrap_or(&file.path).components() {
            hash.update(part.as_os_str().as_encoded_bytes());
            hash.update([0]);
        }
        hash.finalize().into()
    };
    let (mut kept, mut drawn) = (Vec::new(), Vec::new());
    for class in files.chunk_by(|one, other| one.label == other.label) {
        let wanted = (class.len() as f64 * share).round() as usize;
        let count = if class.len() < 2 { 0 } else { wanted.clamp(1, class.len() - 1) };
        let mut keys: Vec<([u8; 32], usize)> = class.iter().map(key).zip(0..).collect();
        keys.sort_unstable();
        let mut is_drawn = vec![false; class.len()];
        keys[..count].iter().for_each(|(_, index)| is_drawn[*index] = true);
        for (file, is_drawn) in class.iter().zip(is_drawn) {
            if is_drawn { &mut drawn } else { &mut kept }.push(file.clone());
        }
    }
    (kept, drawn)
}

/// At most `limit` files, evenly spread over the list.
fn spread(files: Vec<PictureFile>, limit: Option<usize>) -> Vec<PictureFile> {
    match limit {
        Some(limit) if limit < files.len() => (0..limit).map(|n| files[n * files.len() / limit].clone()).collect(),
        _ => files,
    }
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

/// The pictures of a split, class after class. Notes empty classes and other files.
fn pictures(split: &Path, classes: &[String], notes: &mut Vec<String>) -> Result<Vec<PictureFile>, DataError> {
    let listed: Vec<(Vec<PictureFile>, usize)> =
        classes.par_iter().enumerate().map(|(label, class)| class_pictures(&split.join(class), label as u32)).collect::<Result<_, _>>()?;
    let aside: usize = listed.iter().map(|(_, aside)| aside).sum();
    for (class, (files, _)) in classes.iter().zip(&listed) {
        if files.is_empty() {
            notes.push(format!("{}: no pictures of this class", split.join(class).display()));
        }
    }
    if aside > 0 {
        notes.push(format!("{}: {aside} files without a picture's name are left aside", split.display()));
    }
    Ok(listed.into_iter().flat_map(|(files, _)| files).collect())
}

/// The pictures of a class, and the number of other files among them.
fn class_pictures(folder: &Path, label: u32) -> Result<(Vec<PictureFile>, usize), DataError> {
    let mut files = Vec::new();
    let mut aside = 0;
    for entry in WalkDir::new(folder).follow_links(true).sort_by_file_name() {
        let entry = entry.map_err(|error| walk_error(folder, error))?;
        if !entry.file_type().is_file() || is_hidden(entry.path()) {
            continue;
        }
        if picture::has_picture_name(entry.path()) {
            files.push(PictureFile { path: entry.into_path(), label });
        } else {
            aside += 1;
        }
    }
    Ok((files, aside))
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
#[path = "folder_tests.rs"]
mod tests;
