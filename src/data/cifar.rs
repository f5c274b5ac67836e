//! CIFAR-10 and CIFAR-100 in their binary version.
//!
//! A file is a row of records: the label (CIFAR-100: coarse label, fine label; the fine one is
//! used) and then 3x32x32 bytes, the red, green and blue plane. The number of records is free, so
//! parts of the sets are read as well.
//!
//! Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, and the
//! layout given on the data sets' page.

use super::{DataError, InMemory, files};
use std::path::{Path, PathBuf};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const IMAGE: usize = 3 * PLANE;

/// Shape of every image: (C, H, W).
pub const SHAPE: [usize; 3] = [3, SIDE, SIDE];

/// Which of the two sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Ten classes, one label byte.
    Cifar10,
    /// A hundred fine classes; a coarse label byte before the fine one.
    Cifar100,
}

impl Variant {
    /// Number of classes.
    pub fn classes(self) -> usize {
        match self {
            Self::Cifar10 => 10,
            Self::Cifar100 => 100,
        }
    }

    fn label_bytes(self) -> usize {
        match self {
            Self::Cifar10 => 1,
            Self::Cifar100 => 2,
        }
    }

    /// The set's name for `--data`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cifar10 => "cifar10",
            Self::Cifar100 => "cifar100",
        }
    }

    /// Files of the training split that are in `folder`, in order.
    pub fn train_files(self, folder: &Path) -> Vec<PathBuf> {
        match self {
            Self::Cifar10 => (1..=5).filter_map(|n| files::find(folder, &[&format!("data_batch_{n}.bin")])).collect(),
            Self::Cifar100 => files::find(folder, &["train.bin"]).into_iter().collect(),
        }
    }

    /// Files of the test split that are in `folder`: `test_batch.bin`, and where CIFAR-10 has no
    /// such file, every `test_batch*.bin` by name.
    pub fn test_files(self, folder: &Path) -> Vec<PathBuf> {
        let whole = match self {
            Self::Cifar10 => "test_batch.bin",
            Self::Cifar100 => "test.bin",
        };
        if let Some(path) = files::find(folder, &[whole]) {
            return vec![path];
        }
        if self == Self::Cifar100 {
            return Vec::new();
        }
        let mut parts: Vec<PathBuf> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let name = name.strip_suffix(".gz").unwrap_or(&name);
                name.starts_with("test_batch") && name.ends_with(".bin") && path.is_file()
            })
            .collect();
        parts.sort();
        parts
    }

    /// Names of the classes: from the set's own list in `folder`, else the well-known ones.
    pub fn class_names(self, folder: &Path) -> Result<Vec<String>, DataError> {
        let (list, known): (_, &[&str]) = match self {
            Self::Cifar10 => ("batches.meta.txt", &CIFAR10_CLASSES),
            Self::Cifar100 => ("fine_label_names.txt", &CIFAR100_CLASSES),
        };
        let path = folder.join(list);
        if !path.is_file() {
            return Ok(known.iter().map(|&name| name.to_owned()).collect());
        }
        let names = files::lines(&path)?;
        if names.len() != self.classes() {
            return Err(DataError::malformed(
                &path,
                format!(
                    "{} class names, but {} has {} classes; fetch the file again or remove it",
                    names.len(),
                    self.name(),
                    self.classes()
                ),
            ));
        }
        Ok(names)
    }
}

/// Reads the first `limit` images of a split from its files, in order.
pub fn read_split(variant: Variant, paths: &[PathBuf], limit: Option<usize>) -> Result<InMemory, DataError> {
    let limit = limit.unwrap_or(usize::MAX);
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for path in paths {
        if labels.len() >= limit {
            break;
        }
        read_file(variant, path, limit, &mut pixels, &mut labels)?;
    }
    pixels.shrink_to_fit();
    InMemory::new(SHAPE, variant.classes(), pixels, labels)
}

/// Appends a file's images, HWC, and labels, until there are `limit`.
fn read_file(variant: Variant, path: &Path, limit: usize, pixels: &mut Vec<u8>, labels: &mut Vec<u32>) -> Result<(), DataError> {
    let record = variant.label_bytes() + IMAGE;
    let bytes = files::read_up_to(&mut *files::open(path)?, files::MAX_BYTES, path)?;
    if bytes.is_empty() || bytes.len() % record != 0 {
        return Err(DataError::malformed(
            path,
            format!(
                "{} bytes are no whole number of {} records of {record} bytes; the file is cut \
                 short or is not the binary version of the set, fetch it again",
                bytes.len(),
                variant.name()
            ),
        ));
    }
    let wanted = (bytes.len() / record).min(limit - labels.len());
    pixels.reserve(wanted * IMAGE);
    labels.reserve(wanted);
    for (index, record) in bytes.chunks_exact(record).take(wanted).enumerate() {
        let (label, planes) = record.split_at(variant.label_bytes());
        let label = u32::from(label[label.len() - 1]);
        if label as usize >= variant.classes() {
            return Err(DataError::malformed(
                path,
                format!(
                    "image {index} has label {label}, but {} has {} classes; the file is damaged \
                     or is another set's, fetch it again",
                    variant.name(),
                    variant.classes()
                ),
            ));
        }
        labels.push(label);
        let start = pixels.len();
        pixels.resize(start + IMAGE, 0);
        for (n, pixel) in pixels[start..].chunks_exact_mut(3).enumerate() {
            pixel.copy_from_slice(&[planes[n], planes[PLANE + n], planes[2 * PLANE + n]]);
        }
    }
    Ok(())
}

/// Class names of CIFAR-10, by label.
pub const CIFAR10_CLASSES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Fine class names of CIFAR-100, by label.
#[rustfmt::skip]
pub const CIFAR100_CLASSES: [&str; 100] = [
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup",
    "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house",
    "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man",
    "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid",
    "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy",
    "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal",
    "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar",
    "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
];

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::data::Source;
    use std::fs;

    /// A record whose planes count up from `base`, `base + 1` and `base + 2` by pixel.
    pub(in crate::data) fn record(labels: &[u8], base: u8) -> Vec<u8> {
        let mut bytes = labels.to_vec();
        for plane in 0..3u8 {
            bytes.extend((0..PLANE).map(|i| (i as u8).wrapping_add(base).wrapping_add(plane)));
        }
        bytes
    }

    #[test]
    fn planes_become_interleaved_pixels_and_files_follow_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("a"), folder.path().join("b")];
        fs::write(&paths[0], [record(&[3], 10), record(&[9], 20)].concat()).unwrap();
        fs::write(&paths[1], super::super::idx::tests::gzip(&record(&[0], 30))).unwrap();
        let split = read_split(Variant::Cifar10, &paths, None).unwrap();
        assert_eq!((split.len(), split.shape(), split.classes()), (3, [3, 32, 32], 10));
        let mut pixels = vec![0; IMAGE];
        assert_eq!(split.read(1, &mut pixels).unwrap(), 9);
        assert_eq!(pixels[..6], [20, 21, 22, 21, 22, 23]);
        assert_eq!(split.read(2, &mut pixels).unwrap(), 0);
        assert_eq!(pixels[..3], [30, 31, 32]);
        assert_eq!(read_split(Variant::Cifar10, &paths, Some(1)).unwrap().len(), 1);
        assert_eq!(read_split(Variant::Cifar10, &paths, Some(0)).unwrap().len(), 0);
    }

    #[test]
    fn cifar100_has_the_fine_label() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.bin");
        fs::write(&path, record(&[19, 99], 0)).unwrap();
        let split = read_split(Variant::Cifar100, &[path], None).unwrap();
        assert_eq!(split.read(0, &mut vec![0; IMAGE]).unwrap(), 99);
    }

    #[test]
    fn damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data_batch_1.bin");
        let problem = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let error = read_split(Variant::Cifar10, std::slice::from_ref(&path), None).err().unwrap();
            error.to_string()
        };
        assert!(problem(&record(&[3], 0)[1..]).contains("no whole number"));
        assert!(problem(&[]).contains("no whole number"));
        assert!(problem(&record(&[10], 0)).contains("image 0 has label 10"));
    }

    #[test]
    fn class_names_come_from_the_folder_or_are_well_known() {
        let folder = tempfile::tempdir().unwrap();
        let names = Variant::Cifar10.class_names(folder.path()).unwrap();
        assert_eq!((names[0].as_str(), names.len()), ("airplane", 10));
        let known = Variant::Cifar100.class_names(folder.path()).unwrap();
        assert!(known.is_sorted());
        let list = folder.path().join("batches.meta.txt");
        fs::write(&list, "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n").unwrap();
        assert_eq!(Variant::Cifar10.class_names(folder.path()).unwrap()[9], "j");
        fs::write(&list, "a\nb\n").unwrap();
        assert!(Variant::Cifar10.class_names(folder.path()).is_err());
    }
}
