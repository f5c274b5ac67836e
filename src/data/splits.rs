//! Which folders of a data set hold its splits, and which its classes.
//!
//! A split is a folder named as one (`train`, `val`, `seg_test`, `Testing`, `training_set`, `val2017`, ...) with a folder of
//! pictures for each class in it. A folder of such a name that holds the pictures itself is a class like any other. Where there
//! is no split, all folders with pictures are classes.

use super::class_name::{fault, folded, listed, normal, quoted};
use super::junk::{is_junk_file, is_junk_folder};
use super::{DataError, Split, picture};
use crate::errors::path_text;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use walkdir::{DirEntry, WalkDir};

/// Names of splits, each list in the order of preference.
const TRAIN_NAMES: [&str; 2] = ["train", "training"];
const TEST_NAMES: [&str; 10] = ["val", "valid", "validation", "dev", "eval", "evaluation", "test", "testing", "holdout", "heldout"];
/// What may stand beside such a name: `training_set`, `test-images`.
const FILLERS: [&str; 6] = ["set", "data", "dataset", "images", "imgs", "split"];

/// The folder of one class within a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassFolder {
    /// The class's name in its normal form.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
}

/// The folder of a split.
#[derive(Clone, Debug)]
pub struct SplitFolder {
    /// Its path.
    pub path: PathBuf,
    /// Its class folders, sorted by name.
    pub classes: Vec<ClassFolder>,
}

/// What a data set's folder holds.
#[derive(Debug)]
pub struct Layout {
    /// What there is to train on.
    pub train: Option<SplitFolder>,
    /// What there is to test on.
    pub test: Option<SplitFolder>,
    /// Names of all classes, sorted.
    pub classes: Vec<String>,
    /// Links beside the class folders that lead nowhere.
    pub dangling: Vec<PathBuf>,
    /// What is not used, a line each.
    pub notes: Vec<String>,
}

/// Whether there is a folder with pictures in this one, at any depth.
pub fn holds_picture_folders(path: &Path) -> bool {
    look(path).is_ok_and(|level| level.folders.iter().any(|folder| holds_pictures(&folder.path)))
}

/// Tells splits and classes apart.
pub fn layout(path: &Path) -> Result<Layout, DataError> {
    let top = look(path)?;
    let roots = split_roots(path, &top)?;
    let mut notes = Vec::new();
    let (train_root, test_root) = match roots {
        Some(roots) => {
            note_unused(path, &top, &roots, &mut notes);
            (roots.train, roots.test)
        }
        None => {
            refuse_no_classes(path, &top)?;
            (Some(path.to_path_buf()), None)
        }
    };
    let mut dangling = top.dangling;
    let mut folders = |root: &Option<PathBuf>| -> Result<Option<Vec<ClassFolder>>, DataError> {
        let Some(root) = root else { return Ok(None) };
        let level = look(root)?;
        note_loose(root, &level, &mut notes);
        if root != path {
            dangling.extend(level.dangling.iter().cloned());
        }
        class_folders(&level).map(Some)
    };
    let (mut train, mut test) = (folders(&train_root)?, folders(&test_root)?);
    let classes = keep_classes(&mut train, &mut test, &mut notes);
    if let (Some((first, known)), Some((second, found))) = (train_root.as_ref().zip(train.as_ref()), test_root.as_ref().zip(test.as_ref()))
    {
        compare_classes(first, known, second, found)?;
    }
    for pair in classes.windows(2).filter(|pair| folded(&pair[0]) == folded(&pair[1])) {
        notes.push(format!("{}: the classes {} and {} look alike", path_text(path), quoted(&pair[0]), quoted(&pair[1])));
    }
    let split =
        |root: Option<PathBuf>, classes: Option<Vec<ClassFolder>>| root.zip(classes).map(|(path, classes)| SplitFolder { path, classes });
    Ok(Layout { train: split(train_root, train), test: split(test_root, test), classes, dangling, notes })
}

/// What lies directly in a folder, without what is hidden or junk.
struct Level {
    /// Folders, sorted by name.
    folders: Vec<Folder>,
    /// Names of pictures.
    pictures: Vec<OsString>,
    dangling: Vec<PathBuf>,
}

#[derive(Clone)]
struct Folder {
    name: OsString,
    path: PathBuf,
}

fn look(path: &Path) -> Result<Level, DataError> {
    let mut level = Level { folders: Vec::new(), pictures: Vec::new(), dangling: Vec::new() };
    for entry in fs::read_dir(path).map_err(|error| DataError::read(path, error))? {
        let entry = entry.map_err(|error| DataError::read(path, error))?;
        let (name, path) = (entry.file_name(), entry.path());
        match fs::metadata(&path) {
            Ok(about) if about.is_dir() => {
                if !is_junk_folder(&name) {
                    level.folders.push(Folder { name, path });
                }
            }
            Ok(_) if picture::has_picture_name(&path) && !is_junk_file(&path) => level.pictures.push(name),
            Ok(_) => {}
            Err(_) if is_junk_folder(&name) || is_junk_file(&path) => {}
            Err(_) => level.dangling.push(path),
        }
    }
    level.folders.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    level.dangling.sort_unstable();
    Ok(level)
}

/// Whether an entry of a walk may belong to the user's pictures: what lies above the walk's begin does not matter.
pub fn is_searched(entry: &DirEntry) -> bool {
    entry.depth() == 0 || !(entry.file_type().is_dir() && is_junk_folder(entry.file_name()))
}

/// Whether there is a picture in a folder at any depth, be it one of a kind that is not read.
fn holds_pictures(path: &Path) -> bool {
    let walk = WalkDir::new(path).follow_links(true).into_iter().filter_entry(is_searched);
    walk.flatten().any(|entry| {
        let path = entry.path();
        entry.file_type().is_file() && !is_junk_file(path) && (picture::has_picture_name(path) || picture::foreign_kind(path).is_some())
    })
}

/// Which split a folder's name means, and how exactly: the lower the better.
fn role(name: &OsStr) -> Option<(Split, usize)> {
    let name = name.to_str()?.to_lowercase();
    let name = name.trim().trim_end_matches(|c: char| c.is_ascii_digit());
    let words: Vec<&str> = name.split(['_', '-', ' ', '.']).filter(|word| !word.is_empty()).collect();
    let rank = |word: &str| {
        let train = TRAIN_NAMES.iter().position(|known| *known == word).map(|rank| (Split::Train, rank));
        train.or_else(|| TEST_NAMES.iter().position(|known| *known == word).map(|rank| (Split::Test, rank)))
    };
    // What is called by such a name alone comes before what only ends in it.
    const LESS: usize = 100;
    let last = words.iter().rposition(|word| !FILLERS.contains(word))?;
    let (split, order) = rank(words[last])?;
    Some((split, if words.len() == 1 { order } else { order + LESS }))
}

/// The folders of the splits.
struct Roots {
    train: Option<PathBuf>,
    test: Option<PathBuf>,
    /// The folders on top that they are or lie in.
    used: Vec<OsString>,
}

/// The splits among the folders of a data set; `None` where no folder is one.
fn split_roots(path: &Path, top: &Level) -> Result<Option<Roots>, DataError> {
    let mut found: Vec<(Split, usize, &Folder, PathBuf)> = Vec::new();
    for folder in &top.folders {
        if let Some((split, rank)) = role(&folder.name)
            && let Some(root) = split_root(folder)?
        {
            found.push((split, rank, folder, root));
        }
    }
    let mut roots = Roots { train: None, test: None, used: Vec::new() };
    for wanted in [Split::Train, Split::Test] {
        let mut candidates: Vec<_> = found.iter().filter(|(split, ..)| *split == wanted).collect();
        candidates.sort_by_key(|(_, rank, ..)| *rank);
        if let [(_, first, one, _), (_, second, other, _), ..] = &candidates[..]
            && first == second
        {
            let names = [one.name.to_string_lossy(), other.name.to_string_lossy()];
            let problem = format!(
                "both {} and {} look like the {} split; rename the one that is not",
                quoted(&names[0]),
                quoted(&names[1]),
                wanted.name()
            );
            return Err(DataError::malformed(path, problem));
        }
        if let Some((_, _, folder, root)) = candidates.first() {
            roots.used.push(folder.name.clone());
            let slot = if wanted == Split::Train { &mut roots.train } else { &mut roots.test };
            *slot = Some(root.clone());
        }
    }
    Ok((!roots.used.is_empty()).then_some(roots))
}

/// The folder in which a split's classes lie: the split's own, or one of the same name or meaning in it, as archives have it
/// that were unpacked into a folder of their name. `None` where it holds no class folders.
fn split_root(folder: &Folder) -> Result<Option<PathBuf>, DataError> {
    let level = look(&folder.path)?;
    let with_pictures: Vec<&Folder> = level.folders.iter().filter(|folder| holds_pictures(&folder.path)).collect();
    match &with_pictures[..] {
        [] => {
            // Class folders of which all are empty.
            let is_bare = level.pictures.is_empty() && !level.folders.is_empty();
            Ok(is_bare.then(|| folder.path.clone()))
        }
        [only] if level.pictures.is_empty() => {
            let is_same = folded(&only.name.to_string_lossy()) == folded(&folder.name.to_string_lossy());
            let means_same = role(&only.name).zip(role(&folder.name)).is_some_and(|(one, other)| one.0 == other.0);
            if (is_same || means_same) && look(&only.path)?.folders.iter().any(|inner| holds_pictures(&inner.path)) {
                return Ok(Some(only.path.clone()));
            }
            Ok(Some(folder.path.clone()))
        }
        [_] => Ok(None),
        _ => Ok(Some(folder.path.clone())),
    }
}

/// Says which folders and pictures on top are not used beside the splits.
fn note_unused(path: &Path, top: &Level, roots: &Roots, notes: &mut Vec<String>) {
    let is_unused = |folder: &&Folder| !roots.used.contains(&folder.name) && holds_pictures(&folder.path);
    let unused: Vec<_> = top.folders.iter().filter(is_unused).collect();
    let used: Vec<String> = roots.used.iter().map(|name| format!("{}/", name.to_string_lossy())).collect();
    if let Some(test) = roots.used.iter().find(|name| role(name).is_some_and(|(split, _)| split == Split::Test)) {
        for folder in unused.iter().filter(|folder| role(&folder.name).is_some_and(|(split, _)| split == Split::Test)) {
            let (name, test) = (folder.name.to_string_lossy(), test.to_string_lossy());
            let why = if split_root(folder).ok().flatten().is_some() { "is left aside" } else { "holds no class folders and is not used" };
            notes.push(format!("{}: {test}/ is used as the test split, {name}/ {why}", path_text(path)));
        }
    }
    let others: Vec<_> = unused
        .iter()
        .filter(|folder| roots.test.is_none() || role(&folder.name).is_none_or(|(split, _)| split != Split::Test))
        .map(|folder| folder.name.to_string_lossy())
        .collect();
    if !others.is_empty() {
        let used = used.join(" and ");
        notes.push(format!("{}: not used beside {used}: the folders {}", path_text(path), listed(&others)));
    }
    note_loose(path, top, notes);
}

/// Says how many pictures lie beside the folders.
fn note_loose(path: &Path, level: &Level, notes: &mut Vec<String>) {
    let Some(first) = level.pictures.iter().min() else { return };
    let (count, first) = (level.pictures.len(), quoted(&first.to_string_lossy()));
    let what = if count == 1 { "1 picture beside the folders is" } else { &format!("{count} pictures beside the folders are") };
    notes.push(format!("{}: {what} not used, such as {first}", path_text(path)));
}

/// Refuses a folder without splits whose folders cannot be classes.
fn refuse_no_classes(path: &Path, top: &Level) -> Result<(), DataError> {
    let with_pictures: Vec<&Folder> = top.folders.iter().filter(|folder| holds_pictures(&folder.path)).collect();
    let Some(first) = with_pictures.first() else {
        return Err(DataError::malformed(path, "holds no class folders; put the pictures of each class into a folder named as the class"));
    };
    if with_pictures.iter().all(|folder| role(&folder.name).is_some()) {
        let problem = "holds no class folders; put the pictures of each class into a folder named as the class";
        return Err(DataError::malformed(&first.path, problem));
    }
    if with_pictures.len() < 2 {
        return Ok(());
    }
    // Folders that all hold the same folders, and no pictures beside them, are no classes.
    let mut common: Option<Vec<OsString>> = None;
    for folder in &with_pictures {
        let level = look(&folder.path)?;
        if !level.pictures.is_empty() {
            return Ok(());
        }
        let inner: Vec<OsString> = level.folders.into_iter().map(|folder| folder.name).collect();
        let both = common.map_or(inner.clone(), |common| common.into_iter().filter(|name| inner.contains(name)).collect());
        if both.len() < 2 {
            return Ok(());
        }
        common = Some(both);
    }
    let common: Vec<_> = common.unwrap_or_default().into_iter().map(|name| name.to_string_lossy().into_owned()).collect();
    let names: Vec<_> = with_pictures.iter().map(|folder| folder.name.to_string_lossy()).collect();
    Err(DataError::malformed(
        path,
        format!(
            "the folders {} all hold the same folders ({}): if these are the classes, call the folders train and val or test, or name one \
             of them with --data {}",
            listed(&names),
            listed(&common),
            path_text(&first.path)
        ),
    ))
}

/// The folders of a split as classes, sorted by name.
fn class_folders(level: &Level) -> Result<Vec<ClassFolder>, DataError> {
    let mut classes: Vec<ClassFolder> = Vec::new();
    for Folder { name, path } in &level.folders {
        let Some(name) = name.to_str() else {
            return Err(DataError::malformed(path, "the class folder's name is not UTF-8; rename it"));
        };
        let name = normal(name);
        if let Some(fault) = fault(&name) {
            return Err(DataError::malformed(path, format!("the class folder's name {fault} ({}); rename it", quoted(&name))));
        }
        classes.push(ClassFolder { name, path: path.clone() });
    }
    classes.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    if let Some([class, ..]) = classes.windows(2).find(|pair| pair[0].name == pair[1].name) {
        let name = quoted(&class.name);
        let problem = format!("two class folders have the name {name}, written in two forms of Unicode; put their pictures into one");
        return Err(DataError::malformed(&class.path, problem));
    }
    Ok(classes)
}

/// Leaves out folders that hold no picture in either split, with a note. The names that are left.
fn keep_classes(train: &mut Option<Vec<ClassFolder>>, test: &mut Option<Vec<ClassFolder>>, notes: &mut Vec<String>) -> Vec<String> {
    let mut holds: BTreeMap<String, (bool, PathBuf)> = BTreeMap::new();
    for class in [&*train, &*test].into_iter().flatten().flatten() {
        let entry = holds.entry(class.name.clone()).or_insert_with(|| (false, class.path.clone()));
        entry.0 = entry.0 || holds_pictures(&class.path);
    }
    let empty = holds.values().filter(|(holds, _)| !holds);
    notes.extend(empty.map(|(_, path)| format!("{}: holds no pictures, so it is no class", path_text(path))));
    for classes in [train, test].into_iter().flatten() {
        classes.retain(|class| holds[&class.name].0);
    }
    holds.into_iter().filter(|(_, (holds, _))| *holds).map(|(name, _)| name).collect()
}

/// Fails where two splits have different classes.
fn compare_classes(first: &Path, known: &[ClassFolder], second: &Path, found: &[ClassFolder]) -> Result<(), DataError> {
    let missing = |of: &[ClassFolder], among: &[ClassFolder]| {
        let among: BTreeSet<&str> = among.iter().map(|class| class.name.as_str()).collect();
        of.iter().find(|class| !among.contains(class.name.as_str())).map(|class| class.name.clone())
    };
    let (name, there, absent, others) = if let Some(name) = missing(known, found) {
        (name, first, second, found)
    } else if let Some(name) = missing(found, known) {
        (name, second, first, known)
    } else {
        return Ok(());
    };
    let alike = others.iter().find(|class| folded(&class.name) == folded(&name));
    let alike = alike.map_or(String::new(), |class| format!(", but {}", quoted(&class.name)));
    Err(DataError::malformed(
        absent,
        format!(
            "has no class folder {}{alike}, which {} has ({} and {} classes); both must have the same",
            quoted(&name),
            path_text(there),
            found.len(),
            known.len()
        ),
    ))
}

#[cfg(test)]
#[path = "splits_tests.rs"]
mod tests;
