//! Whitening (ZCA) after global contrast normalisation: its statistics, where a run takes them from, and their way to a device.
//!
//! As Lin, Chen and Yan (arXiv 1312.4400) after Goodfellow et al., "Maxout Networks" (arXiv 1302.4389), whose preprocessing is
//! pylearn2's `make_cifar10_gcn_whitened.py`: contrast normalisation with scale 55, then `ZCA` with a filter bias of 0.1.

mod symmetric;

use std::path::Path;
use std::time::Instant;

use rayon::prelude::*;

use super::checkpoint::Checkpoint;
use super::config::{TrainConfig, Whiten};
use super::run_dir::RunDir;
use super::trainer::Observer;
use super::{RunError, TrainError};
use crate::data::{DataError, Source};
use crate::errors::label;
use crate::gpu::{DeviceBuffer, Gpu};
use crate::graph::Op;
use crate::kernels::Step;
use crate::ops::{CONTRAST_SCALE, ImageInput, contrast_normalise};
use crate::shape::{Fact, channels_in_memory};
use crate::tensor::Tensor;
use crate::weights::{self, WHITENING_FILE, Whitening, WhiteningNote};

/// What is added to each variance before its inverse root is taken: directions in which images hardly differ are not blown up.
const FILTER_BIAS: f64 = 0.1;
/// Images whose products are added at once.
const IMAGES_AT_ONCE: usize = 512;

/// What weight files say of a whitening.
pub(super) fn note(whitening: &Whitening) -> WhiteningNote {
    WhiteningNote {
        file: WHITENING_FILE.into(),
        sha256: whitening.sha256().into(),
        contrast_scale: CONTRAST_SCALE as f32,
        filter_bias: FILTER_BIAS as f32,
    }
}

/// The whitening of a run: the one it began with where it goes on, that of the weights it starts from, or a new one from its
/// training images. `None` where it has none.
pub(super) fn of_run(
    config: &TrainConfig,
    source: &dyn Source,
    resumed: Option<(&RunDir, &Checkpoint)>,
    initial_weights: Option<&Path>,
    observer: &mut dyn Observer,
) -> Result<Option<Whitening>, TrainError> {
    let shape = [config.in_channels, config.image_size, config.image_size];
    let is_wanted = config.whiten == Whiten::Zca;
    if let Some((dir, checkpoint)) = resumed {
        return Ok(match &checkpoint.whitening {
            Some(sha256) if is_wanted => Some(Whitening::load(&dir.whitening(), shape, sha256, &label(dir.path()))?),
            None if !is_wanted => None,
            _ => return Err(RunError::Different { path: label(dir.path()), what: "whitening" }.into()),
        });
    }
    let theirs = match initial_weights {
        Some(path) => weights::load(path)?.parts.preprocess.map(|preprocess| (path, preprocess)),
        None => None,
    };
    let theirs = theirs.and_then(|(path, preprocess)| Some((path, preprocess.shape(), preprocess.whitening?)));
    match theirs {
        Some((path, their_shape, their_note)) if is_wanted && their_shape == shape => {
            observer.note(&format!("images are whitened as for {}", label(path)));
            return Ok(Some(Whitening::beside(path, &their_note, shape)?));
        }
        Some((path, ..)) if is_wanted => {
            observer.note(&format!("the whitening of {} is for another size of image; this run computes its own", label(path)));
        }
        Some((path, ..)) => {
            observer.note(&format!("{} was trained on whitened images; add --whiten zca to go on with them", label(path)));
        }
        None => {}
    }
    if !is_wanted {
        return Ok(None);
    }
    let [channels, height, width] = shape;
    observer.note(&format!("computing the whitening of {} images of {channels}x{height}x{width}", source.len()));
    let started = Instant::now();
    let whitening = measure(source, [height, width])?;
    observer.note(&format!("the whitening took {:.1} s; it is kept as {WHITENING_FILE}", started.elapsed().as_secs_f64()));
    Ok(Some(whitening))
}

/// The whitening of the images of `source` at a height and width: `(C + 0.1)^-½` of their covariance `C` after contrast
/// normalisation, in double precision. Equal to `U · diag(1 / √(λ + 0.1)) · Uᵀ` of its eigenvalues and eigenvectors.
pub fn measure(source: &dyn Source, size: [usize; 2]) -> Result<Whitening, TrainError> {
    let [channels, ..] = source.shape();
    let values = channels * size[0] * size[1];
    let mut covariance = vec![0.0; values * values];
    let mut sum = vec![0.0; values];
    let mut count = 0;
    for first in (0..source.len()).step_by(IMAGES_AT_ONCE) {
        let numbers = first..source.len().min(first + IMAGES_AT_ONCE);
        let images: Vec<Option<Vec<f64>>> = numbers.into_par_iter().map(|index| read(source, index, size)).collect::<Result<_, _>>()?;
        let images: Vec<f64> = images.into_iter().flatten().flatten().collect();
        for image in images.chunks_exact(values) {
            image.iter().zip(&mut sum).for_each(|(value, sum)| *sum += value);
            count += 1;
        }
        symmetric::add_products(&mut covariance, values, &images);
    }
    let images = f64::from(u32::try_from(count.max(1)).unwrap_or(u32::MAX));
    let mean: Vec<f64> = sum.iter().map(|sum| sum / images).collect();
    for (row, products) in covariance.chunks_exact_mut(values).enumerate() {
        for (column, value) in products.iter_mut().enumerate() {
            *value = *value / images - mean[row] * mean[column];
        }
        products[row] += FILTER_BIAS;
    }
    symmetric::mirror(&mut covariance, values);
    let matrix = symmetric::inverse_square_root(covariance, values, FILTER_BIAS).ok_or(RunError::Whitening)?;

    let mean = mean.iter().map(|mean| *mean as f32).collect();
    let matrix = matrix.iter().map(|value| *value as f32).collect();
    Ok(Whitening::new([channels, size[0], size[1]], mean, matrix)?)
}

/// An image in PyTorch's order, brought to `size` and contrast-normalised as the device does it; `None` where it cannot be read.
fn read(source: &dyn Source, index: usize, size: [usize; 2]) -> Result<Option<Vec<f64>>, DataError> {
    let [channels, height, width] = source.shape();
    let mut pixels = vec![0; channels * height * width];
    if source.try_read(index, &mut pixels)?.is_none() {
        return Ok(None);
    }
    let mut image = vec![0.0; pixels.len()];
    for (place, pixel) in pixels.chunks_exact(channels).enumerate() {
        for (channel, value) in pixel.iter().enumerate() {
            image[channel * height * width + place] = f64::from(*value);
        }
    }
    let mut image = if [height, width] == size {
        image.iter().map(|value| value / 255.0).collect()
    } else {
        let input = ImageInput { micro_batch: 1, size, mean: [0.0; 4], inverse_std: [1.0; 4], augment: None, gather: false };
        let pixels = Tensor { shape: Fact::pixels(1, channels, height, width).shape, data: image };
        let ids = Tensor::zeros(&Fact::index(&[1]).shape);
        input.reference(&[pixels, ids], &Step { images: 1, ..Default::default() }).swap_remove(0).data
    };
    contrast_normalise(&mut image, CONTRAST_SCALE);
    Ok(Some(image))
}

/// A whitening on a device, for any number of networks.
#[derive(Clone)]
pub struct DeviceWhitening {
    matrix: DeviceBuffer,
    offset: DeviceBuffer,
    bytes: u64,
}

impl DeviceWhitening {
    /// Uploads the matrix, and what it makes of minus the mean, both in the order in which images lie in memory.
    pub fn upload(gpu: &Gpu, whitening: &Whitening) -> Result<Self, TrainError> {
        let [channels, height, width] = whitening.shape;
        let (values, pixels) = (channels * height * width, height * width);
        let stride = channels_in_memory(values);
        // From PyTorch's order to that of memory: row, column, channel.
        let place = |at: usize| at % pixels * channels + at / pixels;
        let mut matrix = vec![0f32; stride * stride];
        let mut offset = vec![0f32; stride];
        for (output, row) in whitening.matrix.chunks_exact(values).enumerate() {
            for (input, factor) in row.iter().enumerate() {
                matrix[place(input) * stride + place(output)] = *factor;
            }
            let product: f64 = row.iter().zip(&whitening.mean).map(|(factor, mean)| f64::from(*factor) * f64::from(*mean)).sum();
            offset[place(output)] = -product as f32;
        }
        let put = |name: &str, words: &[f32]| {
            let buffer = gpu.allocate(name, words.len() as u64 * 4)?;
            gpu.fill(&buffer, bytemuck::cast_slice(words))?;
            Ok::<_, TrainError>(buffer)
        };
        let bytes = (matrix.len() + offset.len()) as u64 * 4;
        Ok(DeviceWhitening { matrix: put("whitening.matrix", &matrix)?, offset: put("whitening.offset", &offset)?, bytes })
    }

    /// Matrix and offset, as the graph has them.
    pub fn buffers(&self) -> [&DeviceBuffer; 2] {
        [&self.matrix, &self.offset]
    }

    /// Bytes of both.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::InMemory;

    #[derive(serde::Deserialize)]
    struct Golden {
        shape: [usize; 3],
        images: Vec<Vec<u8>>,
        mean: Vec<f64>,
        matrix: Vec<Vec<f64>>,
        whitened: Vec<Vec<f64>>,
        variances: Vec<f64>,
    }

    fn golden() -> (Golden, InMemory) {
        let golden: Golden = serde_json::from_str(include_str!("../../tests/goldens/whitening.json")).unwrap();
        let source = InMemory::new(golden.shape, 2, golden.images.concat(), vec![0; golden.images.len()]).unwrap();
        (golden, source)
    }

    /// What the whitening makes of image `index`.
    fn whitened(whitening: &Whitening, source: &InMemory, index: usize) -> Vec<f64> {
        let image = read(source, index, [whitening.shape[1], whitening.shape[2]]).unwrap().unwrap();
        let product =
            |row: &[f32]| row.iter().zip(image.iter().zip(&whitening.mean)).map(|(w, (x, m))| f64::from(*w) * (x - f64::from(*m))).sum();
        whitening.matrix.chunks_exact(image.len()).map(product).collect()
    }

    fn close(what: &str, found: impl Iterator<Item = f64>, expected: &[f64], error: f64) {
        let found: Vec<f64> = found.collect();
        assert_eq!(found.len(), expected.len());
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < error, "{what}: off by {worst}");
    }

    #[test]
    fn statistics_are_those_of_numpy() {
        let (golden, source) = golden();
        let whitening = measure(&source, [3, 2]).unwrap();
        assert_eq!(whitening.shape, golden.shape);
        close("mean", whitening.mean.iter().copied().map(f64::from), &golden.mean, 1e-5);
        close("matrix", whitening.matrix.iter().copied().map(f64::from), &golden.matrix.concat(), 1e-6);
        for (index, expected) in golden.whitened.iter().enumerate() {
            close("image", whitened(&whitening, &source, index).into_iter(), expected, 1e-4);
        }
        assert_eq!(measure(&source, [3, 2]).unwrap().sha256(), whitening.sha256());
    }

    /// Eigenvalues of a symmetric matrix in ascending order, by Jacobi's rotations.
    fn eigenvalues(mut matrix: Vec<Vec<f64>>) -> Vec<f64> {
        let size = matrix.len();
        for _ in 0..20 {
            for (p, q) in (0..size).flat_map(|p| (p + 1..size).map(move |q| (p, q))) {
                let angle = 0.5 * (2.0 * matrix[p][q]).atan2(matrix[q][q] - matrix[p][p]);
                let (sine, cosine) = angle.sin_cos();
                for row in &mut matrix {
                    (row[p], row[q]) = (cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]);
                }
                let (upper, lower) = matrix.split_at_mut(q);
                for (above, below) in upper[p].iter_mut().zip(&mut lower[0]) {
                    (*above, *below) = (cosine * *above - sine * *below, sine * *above + cosine * *below);
                }
            }
        }
        let mut diagonal: Vec<f64> = (0..size).map(|at| matrix[at][at]).collect();
        diagonal.sort_by(f64::total_cmp);
        diagonal
    }

    /// Every direction has a variance of λ / (λ + 0.1), which is nearly 1 where images differ.
    #[test]
    fn whitened_images_have_a_covariance_near_identity() {
        let (golden, source) = golden();
        let whitening = measure(&source, [3, 2]).unwrap();
        let (images, values) = (golden.images.len(), golden.mean.len());
        let all: Vec<Vec<f64>> = (0..images).map(|index| whitened(&whitening, &source, index)).collect();
        let product = |i: usize, j: usize| all.iter().map(|image| image[i] * image[j]).sum::<f64>() / images as f64;
        let found = eigenvalues((0..values).map(|i| (0..values).map(|j| product(i, j)).collect()).collect());
        let expected: Vec<f64> = golden.variances.iter().map(|variance| variance / (variance + FILTER_BIAS)).collect();
        close("variances", found.into_iter(), &expected, 1e-5);
        assert!(expected.iter().filter(|variance| **variance > 0.95).count() > values / 2, "{expected:?}");
    }

    #[test]
    fn images_of_another_size_are_resized_first() {
        let (_, source) = golden();
        let whitening = measure(&source, [2, 2]).unwrap();
        assert_eq!((whitening.shape, whitening.mean.len(), whitening.matrix.len()), ([3, 2, 2], 12, 144));
        assert!(whitening.matrix.iter().all(|value| value.is_finite()));
    }
}
