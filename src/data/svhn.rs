//! SVHN's cropped digits: `train_32x32.mat` and `test_32x32.mat`.
//!
//! Variable `X` holds the images as height x width x channel x image, the first running fastest; `y` holds the labels,
//! with 10 for the digit zero, which is class 0 here.
//!
//! Source: Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning", 2011, and the data
//! set's page, "Format 2: Cropped Digits".

use super::{DataError, InMemory, files, mat};
use std::path::{Path, PathBuf};

const SIDE: usize = 32;
const CHANNELS: usize = 3;
const IMAGE: usize = SIDE * SIDE * CHANNELS;
const CLASSES: usize = 10;

/// Shape of every image: (C, H, W).
pub const SHAPE: [usize; 3] = [CHANNELS, SIDE, SIDE];

/// The file of the training split in `folder`, where it is there.
pub fn train_file(folder: &Path) -> Option<PathBuf> {
    files::find(folder, &["train_32x32.mat"])
}

/// The file of the test split in `folder`, where it is there.
pub fn test_file(folder: &Path) -> Option<PathBuf> {
    files::find(folder, &["test_32x32.mat"])
}

/// Names of the classes: the digits.
pub fn class_names() -> Vec<String> {
    (0..CLASSES).map(|digit| digit.to_string()).collect()
}

/// Reads the first `limit` images of a file.
pub fn read_split(path: &Path, limit: Option<usize>) -> Result<InMemory, DataError> {
    let limit = limit.unwrap_or(usize::MAX);
    let arrays = mat::read(path, &|name, _| match name {
        "X" => Some(limit.saturating_mul(IMAGE)),
        "y" => Some(limit),
        _ => None,
    })?;
    let find = |name: &str| {
        let found = arrays.iter().find(|array| array.name == name);
        found.ok_or_else(|| DataError::malformed(path, format!("there is no variable {name} in it; fetch the file again")))
    };
    let (images, labels) = (find("X")?, find("y")?);
    let count = match images.dims[..] {
        [SIDE, SIDE, CHANNELS, count] => count,
        // MATLAB drops a last dimension of one.
        [SIDE, SIDE, CHANNELS] => 1,
        _ => return Err(DataError::malformed(path, format!("X has dimensions {:?} instead of [32, 32, 3, N]", images.dims))),
    };
    let label_count: usize = labels.dims.iter().product();
    if label_count != count {
        return Err(DataError::malformed(path, format!("{label_count} labels for {count} images; fetch the file again")));
    }
    let labels: Result<Vec<u32>, DataError> = labels.values.iter().enumerate().map(|(image, label)| class(path, image, *label)).collect();
    let mut pixels = vec![0; images.values.len()];
    for (source, target) in images.values.chunks_exact(IMAGE).zip(pixels.chunks_exact_mut(IMAGE)) {
        for (place, value) in target.iter_mut().enumerate() {
            let (row, column, channel) = (place / CHANNELS / SIDE, place / CHANNELS % SIDE, place % CHANNELS);
            *value = source[(channel * SIDE + column) * SIDE + row];
        }
    }
    InMemory::new(SHAPE, CLASSES, pixels, labels?)
}

fn class(path: &Path, image: usize, label: u8) -> Result<u32, DataError> {
    match label {
        10 => Ok(0),
        0..=9 => Ok(label.into()),
        _ => Err(DataError::malformed(path, format!("image {image} has label {label}; 1 to 10 are wanted, fetch the file again"))),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::data::Source;
    use crate::data::mat::tests::{compressed, file, variable};

    /// A file of images whose pixel is `100 * channel + 10 * image + row`, but 7 in column 5.
    pub(in crate::data) fn sample(labels: &[u8]) -> Vec<u8> {
        let mut values = Vec::new();
        for image in 0..labels.len() {
            for channel in 0..CHANNELS {
                for column in 0..SIDE {
                    values.extend((0..SIDE).map(|row| if column == 5 { 7 } else { (100 * channel + 10 * image + row) as u8 }));
                }
            }
        }
        let count = labels.len() as u32;
        file(&[compressed(&variable("X", 9, &[32, 32, 3, count], 2, &values)), compressed(&variable("y", 9, &[count, 1], 2, labels))])
    }

    fn read(bytes: &[u8], limit: Option<usize>) -> Result<InMemory, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train_32x32.mat");
        std::fs::write(&path, bytes).unwrap();
        read_split(&path, limit).map_err(|error| error.to_string())
    }

    #[test]
    fn images_are_turned_and_ten_is_zero() {
        let split = read(&sample(&[1, 10, 9]), None).unwrap();
        assert_eq!((split.len(), split.shape()), (3, SHAPE));
        let mut pixels = vec![0; IMAGE];
        let labels: Vec<u32> = (0..3).map(|image| split.read(image, &mut pixels).unwrap()).collect();
        assert_eq!(labels, [1, 0, 9]);
        split.read(1, &mut pixels).unwrap();
        let at = |row: usize, column: usize| &pixels[(row * SIDE + column) * 3..][..3];
        assert_eq!((at(0, 0), at(3, 31), at(31, 5)), (&[10, 110, 210][..], &[13, 113, 213][..], &[7, 7, 7][..]));
        assert_eq!(read(&sample(&[1, 10, 9]), Some(2)).unwrap().len(), 2);
    }

    #[test]
    fn files_that_do_not_fit_are_refused() {
        assert!(read(&sample(&[1, 11]), None).err().unwrap().contains("label 11"));
        let images = variable("X", 9, &[32, 32, 3], 2, &[0; IMAGE]);
        let labels = variable("y", 9, &[2, 1], 2, &[1, 2]);
        assert!(read(&file(std::slice::from_ref(&images)), None).err().unwrap().contains("no variable y"));
        assert!(read(&file(&[images.clone(), labels]), None).err().unwrap().contains("2 labels for 1 images"));
        assert!(read(&file(&[images, variable("y", 9, &[1, 1], 2, &[4])]), None).is_ok());
        let grey = variable("X", 9, &[32, 32, 1], 2, &[0; 1024]);
        assert!(read(&file(&[grey, variable("y", 9, &[1, 1], 2, &[4])]), None).err().unwrap().contains("instead of [32, 32, 3, N]"));
    }
}
