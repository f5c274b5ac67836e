//! The whitening that a model was trained with: a file of its own beside the weights, which stay a PyTorch `state_dict()`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::WeightsError;
use super::file::{Encoder, NamedTensor};
use super::parse::from_bytes;
use crate::digest::hex;
use crate::errors::label;
use crate::files::replace_file;
use crate::shape::Element;

/// Name of the file in the folder of the weights.
pub const WHITENING_FILE: &str = "whitening.safetensors";
/// Most values of an image that is whitened: the matrix has the square of that.
pub const MOST_WHITENED_VALUES: usize = 4096;
/// What the metadata may name and the program then reads has a limit.
const MOST_BYTES: u64 = (MOST_WHITENED_VALUES * (MOST_WHITENED_VALUES + 2) * 4) as u64;

/// What a weight file says of the whitening that its model needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhiteningNote {
    /// Name of the file, in the same folder.
    pub file: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Norm of every image after global contrast normalisation.
    pub contrast_scale: f32,
    /// What was added to the variances before their inverse root was taken.
    pub filter_bias: f32,
}

/// Mean and matrix: `y = matrix · (x - mean)` for contrast-normalised images x, flattened as PyTorch does it (channel, row,
/// column).
#[derive(Clone, Debug, PartialEq)]
pub struct Whitening {
    /// Channels, height, width of the images.
    pub shape: [usize; 3],
    /// As many values as an image has.
    pub mean: Vec<f32>,
    /// The square of that, row by row; symmetric.
    pub matrix: Vec<f32>,
    /// Bytes of the file.
    encoded: Vec<u8>,
    /// Its SHA-256.
    sha256: String,
}

impl Whitening {
    /// A whitening that has been computed. Fails where it holds something that is no number.
    pub fn new(shape: [usize; 3], mean: Vec<f32>, matrix: Vec<f32>) -> Result<Self, WeightsError> {
        let values = mean.len();
        let mean = NamedTensor { name: "mean".into(), shape: shape.to_vec(), data: mean };
        let matrix = NamedTensor { name: "matrix".into(), shape: vec![values; 2], data: matrix };
        let named = [&mean, &matrix].map(|tensor| (tensor.name.clone(), tensor));
        let mut encoded = Vec::new();
        Encoder::new(WHITENING_FILE, named, None, Element::F32)?
            .write_to(&mut encoded)
            .map_err(|reason| WeightsError::Write { file: WHITENING_FILE.into(), reason })?;
        let sha256 = hex(&Sha256::digest(&encoded));
        Ok(Whitening { shape, mean: mean.data, matrix: matrix.data, encoded, sha256 })
    }

    /// SHA-256 of the file, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Writes the file, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), WeightsError> {
        replace_file(path, |writer| writer.write_all(&self.encoded)).map_err(|reason| WeightsError::Write { file: label(path), reason })
    }

    /// Reads the file for images of `shape` and compares its hash with `sha256`, which `wanted_by` asks for.
    pub fn load(path: &Path, shape: [usize; 3], sha256: &str, wanted_by: &str) -> Result<Self, WeightsError> {
        let wrong = |reason: &str| WeightsError::Whitening { file: label(path), wanted_by: wanted_by.into(), reason: reason.into() };
        let info = match path.metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(wrong("is missing")),
            other => other.map_err(|error| WeightsError::read(&label(path), error))?,
        };
        if !info.is_file() || info.len() > MOST_BYTES {
            return Err(wrong("is another file"));
        }
        let encoded = std::fs::read(path).map_err(|error| WeightsError::read(&label(path), error))?;
        let found = hex(&Sha256::digest(&encoded));
        if found != sha256 {
            return Err(wrong("is another one or damaged (its SHA-256 differs)"));
        }
        let file = from_bytes(&encoded, &label(path))?;
        let values = shape.iter().product();
        let expected = [("mean".to_string(), shape.to_vec()), ("matrix".to_string(), vec![values; 2])];
        let tensors = file.match_parameters(&expected)?;
        let [mean, matrix] = [&tensors[0].data, &tensors[1].data].map(Clone::clone);
        Ok(Whitening { shape, mean, matrix, encoded, sha256: found })
    }

    /// The whitening that a weight file at `path` needs, from the same folder.
    pub fn beside(path: &Path, note: &WhiteningNote, shape: [usize; 3]) -> Result<Self, WeightsError> {
        Self::load(&note.path(path), shape, &note.sha256, &label(path))
    }
}

impl WhiteningNote {
    /// Where the file is for weights at `weights`.
    fn path(&self, weights: &Path) -> PathBuf {
        weights.with_file_name(&self.file)
    }

    /// What is wrong with a note from a file, which may hold anything.
    pub(super) fn validate(&self) -> Result<(), String> {
        let is_name = Path::new(&self.file).file_name().is_some_and(|name| name == self.file.as_str());
        if !is_name || self.file.chars().any(char::is_control) {
            return Err("names a whitening file that is not in the same folder".into());
        }
        if self.sha256.len() != 64 || !self.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("has a whitening whose sha256 is none".into());
        }
        for (name, value) in [("contrast_scale", self.contrast_scale), ("filter_bias", self.filter_bias)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(format!("has a whitening with a {name} that is not above 0"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::ErrorKind;

    #[test]
    fn what_is_saved_comes_back_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (weights, path) = (folder.path().join("best.safetensors"), folder.path().join(WHITENING_FILE));
        let whitening = Whitening::new([1, 1, 2], vec![0.5, 1.0], vec![1.0, 2.0, 2.0, 4.0]).unwrap();
        let note = WhiteningNote { file: WHITENING_FILE.into(), sha256: whitening.sha256().into(), contrast_scale: 55.0, filter_bias: 0.1 };
        let missing = Whitening::beside(&weights, &note, [1, 1, 2]).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::BadData);
        assert!(missing.to_string().contains("whitening.safetensors: is missing"), "{missing}");
        whitening.save(&path).unwrap();
        assert_eq!(Whitening::beside(&weights, &note, [1, 1, 2]).unwrap(), whitening);
        assert_eq!(Whitening::beside(&weights, &note, [2, 1, 1]).unwrap_err().kind(), ErrorKind::BadData);
        Whitening::new([1, 1, 2], vec![0.5, 1.0], vec![1.0, 2.0, 2.0, 5.0]).unwrap().save(&path).unwrap();
        let other = Whitening::beside(&weights, &note, [1, 1, 2]).unwrap_err();
        assert!(other.kind() == ErrorKind::BadData && other.to_string().contains("SHA-256"), "{other}");
        assert!(Whitening::new([1, 1, 1], vec![f32::NAN], vec![1.0]).is_err());
    }

    #[test]
    fn notes_stay_in_their_folder() {
        let note = |file: &str| WhiteningNote { file: file.into(), sha256: "0".repeat(64), contrast_scale: 55.0, filter_bias: 0.1 };
        assert_eq!(note("whitening.safetensors").validate(), Ok(()));
        for file in ["../x", "/etc/x", "", "a/b", ".."] {
            assert!(note(file).validate().is_err(), "{file}");
        }
        assert!(WhiteningNote { sha256: "x".into(), ..note("a") }.validate().is_err());
        assert!(WhiteningNote { filter_bias: f32::NAN, ..note("a") }.validate().is_err());
    }
}
