//! From what the user wrote after `--data` to a data set: known names, folders of original files,
//! folders of pictures.

use super::cifar::{self, Variant};
use super::{DataError, Dataset, InMemory, Source, files, folder, idx};
use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The names that [`open`] knows.
pub const KNOWN_NAMES: [&str; 4] = ["mnist", "fashion-mnist", "cifar10", "cifar100"];

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
}

/// Opens the data set that `spec` names: one of [`KNOWN_NAMES`], or a folder.
///
/// A folder holds either the original files of MNIST, Fashion-MNIST, CIFAR-10 or CIFAR-100 (or
/// files of the same layout), or `train/` and `val/` or `test/` with a folder of pictures per
/// class.
pub fn open(spec: &str, options: &OpenOptions) -> Result<Dataset, DataError> {
    if let Some(set) = Known::from_name(spec) {
        return set.open(options);
    }
    let path = Path::new(spec);
    if !path.exists() {
        return Err(DataError::UnknownDataSet { spec: spec.to_owned(), known: KNOWN_NAMES.join(", ") });
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
    if folder::looks_like_one(path) {
        return folder::open(&name, path, options);
    }
    Err(DataError::malformed(
        path,
        "no data set here: wanted are train/ and val/ or test/ with a folder of pictures per class, \
         or the original files of MNIST or Fashion-MNIST (train-images-idx3-ubyte ...), \
         CIFAR-10 (data_batch_1.bin ...) or CIFAR-100 (train.bin, test.bin)",
    ))
}

/// A data set that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Mnist,
    FashionMnist,
    Cifar(Variant),
}

impl Known {
    /// Reads a name, whatever its case and dashes.
    fn from_name(name: &str) -> Option<Self> {
        let letters: String = name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect();
        match letters.as_str() {
            "mnist" => Some(Self::Mnist),
            "fashionmnist" => Some(Self::FashionMnist),
            "cifar10" => Some(Self::Cifar(Variant::Cifar10)),
            "cifar100" => Some(Self::Cifar(Variant::Cifar100)),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
            Self::Cifar(variant) => variant.name(),
        }
    }

    /// Folders within a data folder in which this set may lie; the last is the folder itself.
    fn subfolders(self) -> &'static [&'static str] {
        match self {
            Self::Mnist => &["mnist", "MNIST/raw", ""],
            Self::FashionMnist => &["fashion-mnist", "FashionMNIST/raw", ""],
            Self::Cifar(Variant::Cifar10) => &["cifar10", "cifar10/cifar-10-batches-bin", "cifar-10-batches-bin", ""],
            Self::Cifar(Variant::Cifar100) => &["cifar100", "cifar100/cifar-100-binary", "cifar-100-binary", ""],
        }
    }

    /// What to put into one of the places, for the message.
    fn wanted(self) -> &'static str {
        match self {
            Self::Mnist | Self::FashionMnist => {
                "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and \
                 t10k-labels-idx1-ubyte (plain or .gz)"
            }
            Self::Cifar(Variant::Cifar10) => "data_batch_1.bin to data_batch_5.bin and test_batch.bin (the binary version)",
            Self::Cifar(Variant::Cifar100) => "train.bin and test.bin (the binary version)",
        }
    }

    fn is_in(self, path: &Path) -> bool {
        match self {
            // Both sets use the same file names.
            Self::Mnist => IdxFiles::find(path).any() && !says_fashion(path),
            Self::FashionMnist => IdxFiles::find(path).any(),
            Self::Cifar(variant) => holds_cifar(variant, path),
        }
    }

    /// Looks for the set in every place and opens the first find.
    fn open(self, options: &OpenOptions) -> Result<Dataset, DataError> {
        let mut places = data_folders(options.data_dir.as_deref());
        let mut candidates: Vec<PathBuf> =
            places.iter().flat_map(|place| self.subfolders().iter().map(move |sub| place.join(sub))).collect();
        if self == Self::FashionMnist {
            let packaged = PathBuf::from("/usr/share/datasets/fashion-mnist");
            candidates.push(packaged.clone());
            places.push(packaged);
        }
        let Some(path) = candidates.iter().find(|path| self.is_in(path)) else {
            let listed: Vec<String> =
                places.iter().map(|place| format!("{} (or {} in it)", place.display(), self.subfolders()[0])).collect();
            return Err(DataError::NotFound {
                name: self.name().to_owned(),
                looked_in: listed.join(", "),
                wanted: self.wanted().to_owned(),
            });
        };
        match self {
            Self::Cifar(variant) => open_cifar(variant, self.name(), path, options),
            Self::Mnist | Self::FashionMnist => {
                let fashion = self == Self::FashionMnist;
                open_idx(self.name(), path, &IdxFiles::find(path), fashion, options)
            }
        }
    }
}

/// The folders that may hold data sets: the option's, `NIN_WGPU_DATA`, the user's data folder.
fn data_folders(option: Option<&Path>) -> Vec<PathBuf> {
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
    Dataset { name: name.to_owned(), path: path.to_path_buf(), train: or_empty(train), test: or_empty(test), classes, notes }
}

/// Class names of Fashion-MNIST, by label.
pub const FASHION_CLASSES: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

#[cfg(test)]
#[path = "locate_tests.rs"]
mod tests;
