//! From what the user wrote after `--data` to a data set: known names, folders of original files,
//! folders of pictures.

use super::appearance::Appearance;
use super::catalog::{KnownSet, SETS};
use super::cifar::{self, Variant};
use super::{DataError, Dataset, InMemory, Source, files, folder, idx, svhn};
use crate::errors::path_text;
use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where Debian's package `dataset-fashion-mnist` puts its files.
const PACKAGED_FASHION: &str = "/usr/share/datasets/fashion-mnist";

/// The names that [`open`] knows, listed.
pub fn known_names() -> String {
    SETS.map(|set| set.name).join(", ")
}

/// How to open a data set.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// A folder in which named sets are looked for first.
    pub data_dir: Option<PathBuf>,
    /// Shape (height, width, channels) to which pictures of image folders are brought; without it
    /// they take the size of the first picture and three channels. Original files keep theirs.
    pub target: Option<(usize, usize, usize)>,
    /// Keep only so many training images; 0 reads none at all.
    pub limit_train: Option<usize>,
    /// Keep only so many test images; 0 reads none at all.
    pub limit_test: Option<usize>,
    /// Share of each class, in [0, 1), to draw for testing where a folder of pictures has no test split.
    pub val_split: Option<f64>,
    /// Key of that draw.
    pub seed: u64,
    /// Pictures of a folder that may be unreadable; without it [`super::Unreadable::default_limit`].
    pub max_bad: Option<usize>,
    /// Where `target` has one channel but the pictures of a folder show colour, keep three.
    pub follow_colour: bool,
    /// How pictures of a folder are made to look; without it the pictures decide.
    pub appearance: Option<Appearance>,
}

/// Opens the data set that `spec` names: one of [`SETS`], or a folder.
///
/// A folder holds either the original files of a set that has a name (or files of the same layout),
/// or a folder of pictures per class, within `train/` and `val/` or `test/` or without splits.
pub fn open(spec: impl AsRef<OsStr>, options: &OpenOptions) -> Result<Dataset, DataError> {
    let spec = spec.as_ref();
    if let Some(set) = spec.to_str().and_then(KnownSet::find) {
        return open_known(set, options);
    }
    let path = Path::new(spec);
    if !path.exists() {
        return Err(DataError::UnknownDataSet { spec: path_text(path), known: known_names() });
    }
    if !path.is_dir() {
        return Err(DataError::malformed(path, "is a file; --data takes the folder that holds a data set"));
    }
    open_folder(path, options)
}

/// Opens a folder by what lies in it.
fn open_folder(path: &Path, options: &OpenOptions) -> Result<Dataset, DataError> {
    let name = path
        .canonicalize()
        .ok()
        .and_then(|full| full.file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "data".to_owned());
    let files = IdxFiles::find(path);
    if files.any() {
        let fashion = says_fashion(path);
        return open_idx(&name, path, &files, fashion, options);
    }
    for variant in [Variant::Cifar10, Variant::Cifar100] {
        if holds_cifar(variant, path) {
            return open_cifar(variant, &name, path, options);
        }
    }
    if holds_svhn(path) {
        return open_svhn(&name, path, options);
    }
    if folder::looks_like_one(path) {
        return folder::open(&name, path, options);
    }
    Err(DataError::malformed(
        path,
        "no data set here: wanted is a folder of pictures per class, here or within train/ and val/ or test/, \
         or the original files of MNIST or Fashion-MNIST (train-images-idx3-ubyte ...), \
         CIFAR-10 (data_batch_1.bin ...), CIFAR-100 (train.bin, test.bin) or SVHN (train_32x32.mat, test_32x32.mat)",
    ))
}

/// What tells the sets apart when their files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Idx { is_fashion: bool },
    Cifar(Variant),
    Svhn,
}

impl Layout {
    fn of(set: &KnownSet) -> Self {
        match set.name {
            "cifar10" => Self::Cifar(Variant::Cifar10),
            "cifar100" => Self::Cifar(Variant::Cifar100),
            "svhn" => Self::Svhn,
            name => Self::Idx { is_fashion: name == "fashion-mnist" },
        }
    }

    /// Folders within a data folder in which this set may lie; the last is the folder itself.
    fn subfolders(self) -> &'static [&'static str] {
        match self {
            Self::Idx { is_fashion: false } => &["mnist", "MNIST/raw", ""],
            Self::Idx { is_fashion: true } => &["fashion-mnist", "FashionMNIST/raw", ""],
            Self::Cifar(Variant::Cifar10) => &["cifar10", "cifar10/cifar-10-batches-bin", "cifar-10-batches-bin", ""],
            Self::Cifar(Variant::Cifar100) => &["cifar100", "cifar100/cifar-100-binary", "cifar-100-binary", ""],
            Self::Svhn => &["svhn", "SVHN", ""],
        }
    }

    /// What to put into one of the places, for the message.
    fn wanted(self) -> &'static str {
        match self {
            Self::Idx { .. } => {
                "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and \
                 t10k-labels-idx1-ubyte (plain or .gz)"
            }
            Self::Cifar(Variant::Cifar10) => "data_batch_1.bin to data_batch_5.bin and test_batch.bin (the binary version)",
            Self::Cifar(Variant::Cifar100) => "train.bin and test.bin (the binary version)",
            Self::Svhn => "train_32x32.mat and test_32x32.mat",
        }
    }

    fn is_in(self, path: &Path) -> bool {
        match self {
            // Both sets use the same file names.
            Self::Idx { is_fashion: false } => IdxFiles::find(path).any() && (path.ends_with("mnist") || !says_fashion(path)),
            Self::Idx { is_fashion: true } => IdxFiles::find(path).any(),
            Self::Cifar(variant) => holds_cifar(variant, path),
            Self::Svhn => holds_svhn(path),
        }
    }

    /// The folders in which the set may lie and, for messages, the places that hold them.
    fn candidates(self, data_dir: Option<&Path>) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let mut places = data_folders(data_dir);
        let mut candidates: Vec<PathBuf> =
            places.iter().flat_map(|place| self.subfolders().iter().map(move |sub| place.join(sub))).collect();
        if self == (Self::Idx { is_fashion: true }) {
            candidates.push(PACKAGED_FASHION.into());
            places.push(PACKAGED_FASHION.into());
        }
        (candidates, places)
    }
}

/// The folder in which a set lies, in whole or in part: the first of those in which it is looked for.
pub fn find(set: &KnownSet, data_dir: Option<&Path>) -> Option<PathBuf> {
    let layout = Layout::of(set);
    layout.candidates(data_dir).0.into_iter().find(|path| layout.is_in(path))
}

/// Looks for a set in every place and opens the first find.
fn open_known(set: &KnownSet, options: &OpenOptions) -> Result<Dataset, DataError> {
    let layout = Layout::of(set);
    let (candidates, places) = layout.candidates(options.data_dir.as_deref());
    let Some(path) = candidates.iter().find(|path| layout.is_in(path)) else {
        let listed: Vec<String> = places.iter().map(|place| format!("{} (or {} in it)", place.display(), layout.subfolders()[0])).collect();
        return Err(DataError::NotFound { name: set.name.to_owned(), looked_in: listed.join(", "), wanted: layout.wanted().to_owned() });
    };
    match layout {
        Layout::Cifar(variant) => open_cifar(variant, set.name, path, options),
        Layout::Idx { is_fashion } => open_idx(set.name, path, &IdxFiles::find(path), is_fashion, options),
        Layout::Svhn => open_svhn(set.name, path, options),
    }
}

/// The folders that may hold data sets: the option's, `NIN_WGPU_DATA`, the user's data folder.
pub fn data_folders(option: Option<&Path>) -> Vec<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || variable("HOME");
    let user = if cfg!(windows) {
        variable("APPDATA")
    } else if cfg!(target_os = "macos") {
        home().map(|home| home.join("Library/Application Support"))
    } else {
        variable("XDG_DATA_HOME").or_else(|| home().map(|home| home.join(".local/share")))
    };
    option.map(Path::to_path_buf).into_iter().chain(variable("NIN_WGPU_DATA")).chain(user.map(|folder| folder.join("nin-wgpu"))).collect()
}

/// Whether a folder's path names Fashion-MNIST, whose files are named as MNIST's.
fn says_fashion(path: &Path) -> bool {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    full.to_string_lossy().to_lowercase().contains("fashion")
}

/// The four files of an MNIST-like set, as far as they are there.
struct IdxFiles {
    train_images: Option<PathBuf>,
    train_labels: Option<PathBuf>,
    test_images: Option<PathBuf>,
    test_labels: Option<PathBuf>,
}

impl IdxFiles {
    fn find(folder: &Path) -> Self {
        let file = |stem: &str, kind: &str| files::find(folder, &[&format!("{stem}-{kind}"), &format!("{stem}.{kind}")]);
        Self {
            train_images: file("train-images", "idx3-ubyte"),
            train_labels: file("train-labels", "idx1-ubyte"),
            test_images: file("t10k-images", "idx3-ubyte"),
            test_labels: file("t10k-labels", "idx1-ubyte"),
        }
    }

    fn any(&self) -> bool {
        self.train_images.is_some() || self.test_images.is_some()
    }
}

/// Opens a set of IDX files.
fn open_idx(name: &str, path: &Path, found: &IdxFiles, fashion: bool, options: &OpenOptions) -> Result<Dataset, DataError> {
    let classes = idx_classes(path, fashion)?;
    let split = |images: &Option<PathBuf>, labels: &Option<PathBuf>, stem: &str, limit| {
        if limit == Some(0) {
            return Ok(None);
        }
        match (images, labels) {
            (None, _) => Ok(None),
            (Some(images), Some(labels)) => idx::read_split(images, labels, classes.len(), limit).map(Some),
            (Some(images), None) => {
                Err(DataError::malformed(images, format!("its labels are missing; put {stem}-labels-idx1-ubyte beside it")))
            }
        }
    };
    let train = split(&found.train_images, &found.train_labels, "train", options.limit_train)?;
    let test = split(&found.test_images, &found.test_labels, "t10k", options.limit_test)?;
    if let (Some(train), Some(test)) = (&train, &test)
        && train.shape() != test.shape()
    {
        return Err(DataError::malformed(
            path,
            format!("training images are {:?} and test images {:?} (C, H, W); both must have one size", train.shape(), test.shape()),
        ));
    }
    let notes = missing_notes(path, found.train_images.is_some(), found.test_images.is_some());
    Ok(from_memory(name, path, classes, [1, 28, 28], train, test, notes))
}

/// Class names of a set of IDX files: from `classes.txt` beside them, Fashion-MNIST's, or digits.
fn idx_classes(path: &Path, fashion: bool) -> Result<Vec<String>, DataError> {
    let list = path.join("classes.txt");
    if list.is_file() {
        let names = files::lines(&list)?;
        if names.is_empty() || names.len() > 256 {
            return Err(DataError::malformed(&list, format!("{} class names; 1 to 256 are wanted, one a line", names.len())));
        }
        return Ok(names);
    }
    Ok(if fashion {
        FASHION_CLASSES.iter().map(|&name| name.to_owned()).collect()
    } else {
        (0..10).map(|digit| digit.to_string()).collect()
    })
}

fn holds_cifar(variant: Variant, path: &Path) -> bool {
    !variant.train_files(path).is_empty() || !variant.test_files(path).is_empty()
}

/// Opens CIFAR-10 or CIFAR-100 from whatever of its files is there.
fn open_cifar(variant: Variant, name: &str, path: &Path, options: &OpenOptions) -> Result<Dataset, DataError> {
    let (train, test) = (variant.train_files(path), variant.test_files(path));
    let mut notes = missing_notes(path, !train.is_empty(), !test.is_empty());
    if variant == Variant::Cifar10 && (1..5).contains(&train.len()) {
        notes.push(format!("{}: {} of the 5 training files are here", path.display(), train.len()));
    }
    let classes = variant.class_names(path)?;
    let train = cifar::read_split(variant, &train, options.limit_train)?;
    let test = cifar::read_split(variant, &test, options.limit_test)?;
    Ok(from_memory(name, path, classes, cifar::SHAPE, Some(train), Some(test), notes))
}

fn holds_svhn(path: &Path) -> bool {
    svhn::train_file(path).is_some() || svhn::test_file(path).is_some()
}

/// Opens SVHN from whichever of its files are there.
fn open_svhn(name: &str, path: &Path, options: &OpenOptions) -> Result<Dataset, DataError> {
    let (train, test) = (svhn::train_file(path), svhn::test_file(path));
    let notes = missing_notes(path, train.is_some(), test.is_some());
    let split = |file: Option<PathBuf>, limit| match file {
        Some(file) if limit != Some(0) => svhn::read_split(&file, limit).map(Some),
        _ => Ok(None),
    };
    let (train, test) = (split(train, options.limit_train)?, split(test, options.limit_test)?);
    Ok(from_memory(name, path, svhn::class_names(), svhn::SHAPE, train, test, notes))
}

/// Notes on splits of which there are no files.
fn missing_notes(path: &Path, has_train: bool, has_test: bool) -> Vec<String> {
    [(has_train, "training"), (has_test, "test")]
        .into_iter()
        .filter(|(there, _)| !there)
        .map(|(_, split)| format!("{}: there is no {split} split here", path.display()))
        .collect()
}

/// A data set of splits in memory; a missing one becomes empty, with the other's shape.
fn from_memory(
    name: &str,
    path: &Path,
    classes: Vec<String>,
    usual_shape: [usize; 3],
    train: Option<InMemory>,
    test: Option<InMemory>,
    notes: Vec<String>,
) -> Dataset {
    let shape = train.as_ref().or(test.as_ref()).map_or(usual_shape, Source::shape);
    let or_empty =
        |split: Option<InMemory>| -> Arc<dyn Source> { Arc::new(split.unwrap_or_else(|| InMemory::empty(shape, classes.len()))) };
    Dataset {
        name: name.to_owned(),
        path: path.to_path_buf(),
        train: or_empty(train),
        test: or_empty(test),
        classes,
        notes,
        unreadable: None,
        val_split: None,
    }
}

/// Class names of Fashion-MNIST, by label.
pub const FASHION_CLASSES: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

#[cfg(test)]
#[path = "locate_tests.rs"]
mod tests;
