//! What a split is known by: its fingerprint, and the mean and deviation of its pixels.

use super::{DataError, Source};
use crate::digest::hex;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// Images hashed at each end of a split.
const IMAGES_HASHED: usize = 16;

/// What a split of files, each with one image, is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHashes {
    /// SHA-256 over the files' paths within the data set, their sizes and labels.
    pub listing: [u8; 32],
    /// SHA-256 over what is in them.
    pub contents: [u8; 32],
}

/// A hash by which a resumed run tells that it has the same data: 64 hexadecimal digits, or twice as many with a `-` between
/// for pictures in files.
///
/// SHA-256 over shape, number of classes, number of images, and the images with their labels: all of them where they lie in
/// memory, the first and last sixteen of a split that decodes its images when they are read. For pictures in files
/// [`FileHashes::listing`] takes the images' place, and [`FileHashes::contents`] follows after the `-`.
pub fn fingerprint(source: &dyn Source) -> Result<String, DataError> {
    let [channels, height, width] = source.shape();
    let len = source.len();
    let mut hash = Sha256::new();
    for number in [channels, height, width, source.classes(), len] {
        hash.update((number as u64).to_le_bytes());
    }
    if let Some(FileHashes { listing, contents }) = source.file_hashes()? {
        hash.update(listing);
        return Ok(format!("{}-{}", hex(&hash.finalize()), hex(&contents)));
    }
    if let Some(stored) = source.stored() {
        hash.update(stored.pixels);
        stored.labels.iter().for_each(|label| hash.update(label.to_le_bytes()));
        return Ok(hex(&hash.finalize()));
    }
    let mut pixels = vec![0; channels * height * width];
    let first = 0..len.min(IMAGES_HASHED);
    let last = len.saturating_sub(IMAGES_HASHED).max(first.end)..len;
    for index in first.chain(last) {
        let label = source.read(index, &mut pixels)?;
        hash.update(label.to_le_bytes());
        hash.update(&pixels);
    }
    Ok(hex(&hash.finalize()))
}

/// What two fingerprints of a split tell apart, in words; `None` where it is the same data. One without contents, as older
/// checkpoints have it, is compared by the rest.
pub fn difference(one: &str, other: &str) -> Option<&'static str> {
    let parts = |text| str::split_once(text, '-').map_or((text, None), |(listing, contents)| (listing, Some(contents)));
    match (parts(one), parts(other)) {
        ((one, _), (other, _)) if one != other => Some("data set"),
        ((_, Some(one)), (_, Some(other))) if one != other => Some("content of its pictures (their names and sizes are the same)"),
        _ => None,
    }
}

/// Mean and standard deviation of each channel, for pixels scaled to [0, 1].
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelStats {
    /// Mean by channel.
    pub mean: Vec<f32>,
    /// Standard deviation by channel (of the population: divided by the count).
    pub std: Vec<f32>,
}

/// Measures up to `max_images` images, spread evenly over the split. Exact sums: the order of the
/// images does not matter.
///
/// Fails where there are no images.
pub fn channel_stats(source: &dyn Source, max_images: usize) -> Result<ChannelStats, DataError> {
    let [channels, height, width] = source.shape();
    let count = source.len().min(max_images);
    let nothing = || DataError::Setting("no images to take mean and deviation from: give --mean and --std".into());
    if count == 0 || channels * height * width == 0 {
        return Err(nothing());
    }
    let none = || (0u64, vec![(0u64, 0u64); channels]);
    let measure = |mut sums: (u64, Vec<(u64, u64)>), n: usize| {
        let mut pixels = vec![0; channels * height * width];
        if source.try_read(n * source.len() / count, &mut pixels)?.is_some() {
            sums.0 += 1;
            for pixel in pixels.chunks_exact(channels) {
                for (&value, (sum, squares)) in pixel.iter().zip(&mut sums.1) {
                    *sum += u64::from(value);
                    *squares += u64::from(value) * u64::from(value);
                }
            }
        }
        Ok::<_, DataError>(sums)
    };
    let join = |one: (u64, Vec<(u64, u64)>), other: (u64, Vec<(u64, u64)>)| {
        Ok((one.0 + other.0, one.1.iter().zip(other.1).map(|(a, b)| (a.0 + b.0, a.1 + b.1)).collect()))
    };
    let (images, sums) = (0..count).into_par_iter().try_fold(none, measure).try_reduce(none, join)?;
    if images == 0 {
        return Err(nothing());
    }
    let values = images as f64 * (height * width) as f64;
    let (mean, std) = sums
        .into_iter()
        .map(|(sum, squares)| {
            let mean = sum as f64 / values;
            let variance = (squares as f64 / values - mean * mean).max(0.0);
            ((mean / 255.0) as f32, (variance.sqrt() / 255.0) as f32)
        })
        .unzip();
    Ok(ChannelStats { mean, std })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::InMemory;

    fn split(pixels: Vec<u8>) -> InMemory {
        let labels = vec![0; pixels.len() / 2];
        InMemory::new([2, 1, 1], 2, pixels, labels).unwrap()
    }

    /// The same split, decoded when it is read.
    struct Decoded(InMemory);

    impl Source for Decoded {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn shape(&self) -> [usize; 3] {
            self.0.shape()
        }
        fn classes(&self) -> usize {
            self.0.classes()
        }
        fn read(&self, index: usize, pixels: &mut [u8]) -> Result<u32, DataError> {
            self.0.read(index, pixels)
        }
    }

    #[test]
    fn the_fingerprint_sees_every_image_in_memory() {
        let print = |pixels: Vec<u8>, labels: Vec<u32>| fingerprint(&InMemory::new([1, 1, 1], 2, pixels, labels).unwrap()).unwrap();
        let base = print(vec![1; 100], vec![0; 100]);
        assert_eq!(base, print(vec![1; 100], vec![0; 100]));
        let mut other = vec![1; 100];
        other[50] = 2;
        assert_ne!(base, print(other, vec![0; 100]));
        let mut other = vec![0; 100];
        other[50] = 1;
        assert_ne!(base, print(vec![1; 100], other));
    }

    #[test]
    fn fingerprints_with_and_without_contents_are_compared_by_what_both_have() {
        assert_eq!(difference("a", "a"), None);
        assert_eq!(difference("a-1", "a-1"), None);
        assert_eq!(difference("a", "a-1"), None);
        assert_eq!(difference("a", "b-1"), Some("data set"));
        assert_eq!(difference("a-1", "b-1"), Some("data set"));
        assert!(difference("a-1", "a-2").is_some_and(|what| what.starts_with("content")));
    }

    #[test]
    fn the_fingerprint_sees_ends_and_length() {
        let print = |pixels: Vec<u8>| fingerprint(&Decoded(split(pixels))).unwrap();
        let base = vec![1; 200];
        assert_eq!(print(base.clone()).len(), 64);
        assert_eq!(print(base.clone()), print(base.clone()));
        for changed in [0, 31, 168, 199] {
            let mut other = base.clone();
            other[changed] = 2;
            assert_ne!(print(other), print(base.clone()), "{changed}");
        }
        assert_ne!(print(vec![1; 198]), print(base));
        assert_ne!(print(vec![]), print(vec![0, 0]));
    }

    #[test]
    fn mean_and_deviation_by_channel() {
        let stats = channel_stats(&split(vec![0, 51, 255, 51]), 100).unwrap();
        assert_eq!(stats.mean, [0.5, 0.2]);
        assert_eq!(stats.std, [0.5, 0.0]);
        assert!(channel_stats(&split(vec![]), 100).is_err());
    }
}
