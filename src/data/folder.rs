//! Folders of pictures: a folder per class, within the folders of splits, or without splits.
//!
//! Classes are the folders' names, sorted, as PyTorch's `ImageFolder` has them; pictures are what
//! lies at any depth under them with a picture's name, sorted by path. Pictures may have any size:
//! each is stretched to the one size of the source (bilinear, antialiased when shrinking), or framed where the set's own
//! pictures show a thing on a plain background ([`super::appearance`]).
//!
//! Where there is no test split one can be drawn from the training pictures: of each class the same
//! share, by a hash of seed, class and file name, so that neither order nor place of the folder matters.

use super::appearance::Appearance;
use super::framing::{Polarity, Target};
use super::junk::is_junk_file;
use super::pictures::{CacheRoom, Gaps, PictureFile, Pictures, show_colour};
use super::splits::{self, Layout, SplitFolder, is_searched};
use super::unreadable::Unreadable;
use super::{DataError, Dataset, OpenOptions, Source, picture};
use crate::errors::path_text;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use walkdir::WalkDir;

/// Pictures looked at to tell whether a set shows colour.
const COLOUR_SAMPLE: usize = 32;
/// Most bytes of decoded pictures kept in memory, unless `NIN_WGPU_PICTURE_CACHE` says otherwise.
const CACHE_BYTES: usize = 1 << 30;

/// The only class folder of a data set, where it holds folders with pictures itself: the classes lie one folder deeper.
pub fn nested_folder(dataset: &Dataset) -> Option<PathBuf> {
    let [only] = &dataset.classes[..] else { return None };
    Some(dataset.path.join(only)).filter(|path| splits::holds_picture_folders(path))
}

/// Whether a folder holds folders with pictures.
pub(super) fn looks_like_one(path: &Path) -> bool {
    splits::holds_picture_folders(path)
}

/// Opens a folder of pictures.
///
/// Both splits must have the same classes. A limit takes pictures evenly spread over the split, so
/// that every class keeps its share.
pub(super) fn open(name: &str, path: &Path, options: &OpenOptions) -> Result<Dataset, DataError> {
    let Layout { train, test, classes, dangling, mut notes } = splits::layout(path)?;
    let mut unreadable: Vec<(PathBuf, DataError)> = dangling.iter().map(|link| (link.clone(), dead_link(link))).collect();
    // What a limit of 0 leaves out is not even listed, unless a split is drawn from it.
    let share = options.val_split.filter(|share| test.is_none() && *share > 0.0);
    let mut list = |split: &Option<SplitFolder>, limit: Option<usize>| match split {
        Some(split) if share.is_some() || limit != Some(0) => pictures(split, &classes, &mut notes, &mut unreadable),
        _ => Ok(Vec::new()),
    };
    let mut train_files = list(&train, options.limit_train)?;
    let mut test_files = list(&test, options.limit_test)?;
    if let Some(share) = share {
        (train_files, test_files) = draw(train_files, path, share, options.seed);
        notes.push(format!(
            "{}: no val/ or test/ here, so {} of {} pictures were drawn for testing (--val-split {share}, --seed {})",
            path_text(path),
            test_files.len(),
            train_files.len() + test_files.len(),
            options.seed
        ));
    }
    let missing = [(train.is_some(), "training"), (test.is_some() || share.is_some(), "test")];
    notes.extend(missing.iter().filter(|(there, _)| !there).map(|(_, what)| format!("{}: there is no {what} split here", path_text(path))));
    let (train_files, test_files) = (spread(train_files, options.limit_train), spread(test_files, options.limit_test));
    let sampled = if train_files.is_empty() { &test_files } else { &train_files };
    let [channels, height, width] = shape(options, sampled)?;
    let appearance = match options.appearance {
        Some(appearance) => appearance,
        None if channels == 1 => Appearance::of_files(sampled),
        None => Appearance::ANY,
    };
    let what = match appearance.polarity {
        Polarity::LightOnDark => "light things on black",
        Polarity::DarkOnLight => "dark things on white",
        Polarity::Any => "",
    };
    if options.appearance.is_none() && !what.is_empty() {
        let share = appearance.fill * 100.0;
        notes.push(format!("{}: the pictures show {what} that take {share:.0} % of the frame; others are made alike", path_text(path)));
    }
    let Appearance { polarity, fill } = appearance;
    let target = Target { height, width, channels, polarity, fill };
    let limit = options.max_bad.unwrap_or_else(|| Unreadable::default_limit(train_files.len() + test_files.len()));
    let unreadable = Arc::new(Unreadable::starting(limit, &unreadable)?);
    let room = CacheRoom::new(cache_bytes()?);
    let source = |files, gaps| -> Arc<dyn Source> {
        Arc::new(Pictures::new(files, classes.len(), target, path.to_path_buf(), gaps, Arc::clone(&room), Arc::clone(&unreadable)))
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

/// The pictures of a split, class after class. Notes empty classes and other files.
fn pictures(
    split: &SplitFolder,
    classes: &[String],
    notes: &mut Vec<String>,
    unreadable: &mut Vec<(PathBuf, DataError)>,
) -> Result<Vec<PictureFile>, DataError> {
    let label = |name: &String| classes.binary_search(name).unwrap_or_default() as u32;
    let listed: Vec<Listed> =
        split.classes.par_iter().map(|class| class_pictures(&class.path, label(&class.name))).collect::<Result<_, _>>()?;
    let mut foreign: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for (class, listed) in split.classes.iter().zip(&listed) {
        if listed.files.is_empty() {
            notes.push(format!("{}: no pictures of this class", path_text(&class.path)));
        }
        for (name, (count, convert)) in &listed.foreign {
            foreign.entry(name).or_insert((0, convert)).0 += count;
        }
    }
    for (name, (count, convert)) in foreign {
        let what = if count == 1 { format!("1 {name} picture is") } else { format!("{count} {name} pictures are") };
        notes.push(format!("{}: {what} left aside; convert them to PNG or JPEG, for example with: {convert}", path_text(&split.path)));
    }
    let aside: usize = listed.iter().map(|listed| listed.aside).sum();
    if aside > 0 {
        notes.push(format!("{}: {aside} files without a picture's name are left aside", path_text(&split.path)));
    }
    let mut files = Vec::new();
    for listed in listed {
        files.extend(listed.files);
        unreadable.extend(listed.unreadable);
    }
    Ok(files)
}

/// What lies in a class's folder.
#[derive(Default)]
struct Listed {
    files: Vec<PictureFile>,
    /// Links and folders that cannot be followed.
    unreadable: Vec<(PathBuf, DataError)>,
    /// Pictures of kinds that are not read: how many, and what converts them.
    foreign: BTreeMap<&'static str, (usize, &'static str)>,
    /// Other files.
    aside: usize,
}

fn class_pictures(folder: &Path, label: u32) -> Result<Listed, DataError> {
    let mut listed = Listed::default();
    for entry in WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter().filter_entry(is_searched) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if error.depth() == 0 => return Err(walk_error(folder, error)),
            Err(error) => {
                let path = error.path().unwrap_or(folder).to_path_buf();
                if may_be_picture(&path) {
                    listed.unreadable.push((path, walk_error(folder, error)));
                }
                continue;
            }
        };
        if !entry.file_type().is_file() || is_junk_file(entry.path()) {
            continue;
        }
        if picture::has_picture_name(entry.path()) {
            listed.files.push(PictureFile { path: entry.into_path(), label });
        } else if let Some(kind) = picture::foreign_kind(entry.path()) {
            listed.foreign.entry(kind.name).or_insert((0, kind.convert)).0 += 1;
        } else {
            listed.aside += 1;
        }
    }
    Ok(listed)
}

/// Whether what cannot be followed may be a picture or a folder of them.
pub(super) fn may_be_picture(path: &Path) -> bool {
    !is_junk_file(path) && (picture::has_picture_name(path) || path.extension().is_none() || path.is_dir())
}

fn dead_link(path: &Path) -> DataError {
    DataError::Picture { name: path_text(path), problem: picture::missing(path) }
}

/// The error of walking through a folder, with the path where it happened.
pub(super) fn walk_error(folder: &Path, error: walkdir::Error) -> DataError {
    let path = error.path().unwrap_or(folder).to_path_buf();
    if error.loop_ancestor().is_some() {
        return DataError::malformed(&path, "links back to a folder above it; remove the link");
    }
    if error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return dead_link(&path);
    }
    DataError::Read { path, source: error.into() }
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
