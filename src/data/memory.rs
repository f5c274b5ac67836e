//! A split held in memory, and a part of a split.

use super::{DataError, Source, Stored};
use std::sync::Arc;

/// A split whose images lie in memory, all of one shape.
pub struct InMemory {
    shape: [usize; 3],
    classes: usize,
    /// Image after image, each HWC.
    pixels: Vec<u8>,
    /// One an image, each below `classes`.
    labels: Vec<u32>,
}

impl InMemory {
    /// A split of `labels.len()` images of `shape` (C, H, W), their bytes in `pixels` image after
    /// image, each HWC.
    ///
    /// Fails where `pixels` has another size, or a label is not below `classes`.
    pub fn new(shape: [usize; 3], classes: usize, pixels: Vec<u8>, labels: Vec<u32>) -> Result<Self, DataError> {
        let wanted = shape.iter().product::<usize>() * labels.len();
        if pixels.len() != wanted {
            return Err(DataError::Setting(format!(
                "{} images of {shape:?} (C, H, W) take {wanted} bytes, not {}",
                labels.len(),
                pixels.len()
            )));
        }
        if let Some(index) = labels.iter().position(|&label| label as usize >= classes) {
            return Err(DataError::Setting(format!("image {index} has label {}, but there are {classes} classes", labels[index])));
        }
        Ok(Self { shape, classes, pixels, labels })
    }

    /// A split without images.
    pub fn empty(shape: [usize; 3], classes: usize) -> Self {
        Self { shape, classes, pixels: Vec::new(), labels: Vec::new() }
    }
}

impl Source for InMemory {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<u32, DataError> {
        let size: usize = self.shape.iter().product();
        let label = *self.labels.get(index).ok_or_else(|| super::no_such_image(index, self.len()))?;
        super::check_buffer(pixels, self.shape)?;
        pixels.copy_from_slice(&self.pixels[index * size..][..size]);
        Ok(label)
    }

    fn stored(&self) -> Option<Stored<'_>> {
        Some(Stored { pixels: &self.pixels, labels: &self.labels })
    }
}

/// The first images of another source.
pub struct FirstImages {
    source: Arc<dyn Source>,
    count: usize,
}

impl FirstImages {
    /// The first `count` images of `source`, or all where it has fewer.
    pub fn new(source: Arc<dyn Source>, count: usize) -> Self {
        let count = count.min(source.len());
        Self { source, count }
    }
}

impl Source for FirstImages {
    fn len(&self) -> usize {
        self.count
    }

    fn shape(&self) -> [usize; 3] {
        self.source.shape()
    }

    fn classes(&self) -> usize {
        self.source.classes()
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<u32, DataError> {
        if index >= self.count {
            return Err(super::no_such_image(index, self.count));
        }
        self.source.read(index, pixels)
    }

    fn stored(&self) -> Option<Stored<'_>> {
        let Stored { pixels, labels } = self.source.stored()?;
        let size: usize = self.shape().iter().product();
        Some(Stored { pixels: &pixels[..self.count * size], labels: &labels[..self.count] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_come_back_and_limits_hold() {
        let source = InMemory::new([1, 1, 2], 3, vec![1, 2, 3, 4], vec![2, 0]).unwrap();
        let mut pixels = [0; 2];
        assert_eq!(source.read(1, &mut pixels).unwrap(), 0);
        assert_eq!(pixels, [3, 4]);
        assert!(source.read(2, &mut pixels).is_err());
        assert!(source.read(0, &mut [0; 3]).is_err());
        let first = FirstImages::new(Arc::new(source), 1);
        assert_eq!(first.len(), 1);
        assert_eq!(first.stored(), Some(Stored { pixels: &[1, 2], labels: &[2] }));
        assert_eq!(first.read(0, &mut pixels).unwrap(), 2);
        assert!(first.read(1, &mut pixels).is_err());
    }

    #[test]
    fn wrong_sizes_and_labels_are_refused() {
        assert!(InMemory::new([1, 1, 2], 3, vec![1, 2, 3], vec![2, 0]).is_err());
        assert!(InMemory::new([1, 1, 1], 3, vec![1, 2], vec![2, 3]).is_err());
        assert!(InMemory::empty([1, 2, 2], 10).is_empty());
    }
}
