//! A split whose labels count in another list of classes.

use super::appearance::Appearance;
use super::{DataError, FileHashes, Source};
use std::path::Path;
use std::sync::Arc;

/// A split seen through a list that says for each of its classes which one it is elsewhere.
pub struct Relabelled {
    source: Arc<dyn Source>,
    labels: Vec<u32>,
    classes: usize,
}

impl Relabelled {
    /// `source` with class `n` called `labels[n]` of `classes`. Fails where that leaves classes without a number, or with one
    /// that is not below `classes`.
    pub fn new(source: Arc<dyn Source>, labels: Vec<u32>, classes: usize) -> Result<Self, DataError> {
        if labels.len() < source.classes() || labels.iter().any(|label| *label as usize >= classes) {
            return Err(DataError::Setting(format!(
                "{} numbers below {classes} are wanted for {} classes: {labels:?}",
                source.classes(),
                labels.len()
            )));
        }
        Ok(Relabelled { source, labels, classes })
    }

    fn relabel(&self, label: u32) -> Result<u32, DataError> {
        let known = self.labels.get(label as usize).copied();
        known.ok_or_else(|| DataError::Setting(format!("label {label} of a split of {} classes", self.labels.len())))
    }
}

impl Source for Relabelled {
    fn len(&self) -> usize {
        self.source.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.source.shape()
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<u32, DataError> {
        self.relabel(self.source.read(index, pixels)?)
    }

    fn try_read(&self, index: usize, pixels: &mut [u8]) -> Result<Option<u32>, DataError> {
        self.source.try_read(index, pixels)?.map(|label| self.relabel(label)).transpose()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.get(self.source.label(index)? as usize).copied()
    }

    fn appearance(&self) -> Option<Appearance> {
        self.source.appearance()
    }

    fn file(&self, index: usize) -> Option<&Path> {
        self.source.file(index)
    }

    fn file_hashes(&self) -> Result<Option<FileHashes>, DataError> {
        self.source.file_hashes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::InMemory;

    #[test]
    fn labels_are_those_of_the_other_list() {
        let source: Arc<dyn Source> = Arc::new(InMemory::new([1, 1, 1], 2, vec![7, 8], vec![1, 0]).unwrap());
        let other = Relabelled::new(Arc::clone(&source), vec![4, 2], 5).unwrap();
        let mut pixel = [0];
        assert_eq!((other.read(0, &mut pixel).unwrap(), pixel, other.try_read(1, &mut pixel).unwrap()), (2, [7], Some(4)));
        assert_eq!((other.classes(), other.label(1), other.len(), other.shape()), (5, Some(4), 2, [1, 1, 1]));
        assert!(Relabelled::new(Arc::clone(&source), vec![4], 5).is_err());
        assert!(Relabelled::new(source, vec![4, 5], 5).is_err());
    }
}
