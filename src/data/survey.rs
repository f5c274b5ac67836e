//! What a data set looks like: images by class, sizes, mean and deviation, and a sheet of samples.

use super::fingerprint::{ChannelStats, channel_stats};
use super::picture;
use super::{DataError, Dataset, Source};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage};
use rayon::prelude::*;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Images from which mean and deviation are taken where each has to be decoded.
const DECODED_SAMPLE: usize = 10_000;
/// Most rows of a sheet.
const MOST_ROWS: usize = 200;
/// Pixels between the samples of a sheet.
const GAP: u32 = 2;
/// Least side of a sample on a sheet, in pixels: smaller images are enlarged by a whole factor.
const LEAST_SIDE: usize = 56;

/// What [`survey`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Survey {
    /// Images of each class, by label: for training and for testing.
    pub counts: Vec<(u64, u64)>,
    /// Smallest and largest width and height of the pictures in their files; `None` where all images have one size.
    pub sizes: Option<Sizes>,
    /// Mean and deviation by channel of the training images (of the test images where there are no others); `None` without
    /// any image.
    pub stats: Option<ChannelStats>,
    /// From how many images those were taken.
    pub measured: usize,
}

/// Smallest and largest sides, each by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Least and most pixels across.
    pub width: (u32, u32),
    /// Least and most pixels down.
    pub height: (u32, u32),
}

/// Counts and measures a data set. Pictures that cannot be read are found on the way where their header tells, or where
/// they are among those that are measured.
pub fn survey(dataset: &Dataset) -> Result<Survey, DataError> {
    let mut counts = vec![(0, 0); dataset.classes.len()];
    for label in labels(dataset.train.as_ref())? {
        counts[label as usize].0 += 1;
    }
    for label in labels(dataset.test.as_ref())? {
        counts[label as usize].1 += 1;
    }
    let source = if dataset.train.is_empty() { &dataset.test } else { &dataset.train };
    let most = if source.stored().is_some() { usize::MAX } else { DECODED_SAMPLE };
    let stats = if source.is_empty() { None } else { Some(channel_stats(source.as_ref(), most)?) };
    Ok(Survey { counts, sizes: sizes(dataset), stats, measured: source.len().min(most) })
}

/// The label of every image.
fn labels(source: &dyn Source) -> Result<Vec<u32>, DataError> {
    (0..source.len())
        .map(|index| {
            source.label(index).ok_or_else(|| DataError::Setting("this data set does not know its labels without reading it".into()))
        })
        .collect()
}

/// Sides of the pictures whose headers can be read.
fn sizes(dataset: &Dataset) -> Option<Sizes> {
    let files = |source: &Arc<dyn Source>| -> Vec<PathBuf> {
        (0..source.len()).filter_map(|index| source.file(index).map(Path::to_path_buf)).collect()
    };
    let files = [files(&dataset.train), files(&dataset.test)].concat();
    let join = |one: Sizes, other: Sizes| {
        let both = |a: (u32, u32), b: (u32, u32)| (a.0.min(b.0), a.1.max(b.1));
        Sizes { width: both(one.width, other.width), height: both(one.height, other.height) }
    };
    let of = |path: &PathBuf| picture::size(path).ok().map(|(width, height)| Sizes { width: (width, width), height: (height, height) });
    files.par_iter().filter_map(of).reduce_with(join)
}

/// A picture of samples as PNG: a row for each class in the order of their labels, `columns` images in each, spread over
/// the class. Classes beyond the 200th are left out.
pub fn contact_sheet(dataset: &Dataset, columns: usize) -> Result<Vec<u8>, DataError> {
    let source = if dataset.train.is_empty() { dataset.test.as_ref() } else { dataset.train.as_ref() };
    let [channels, height, width] = source.shape();
    let rows = dataset.classes.len().min(MOST_ROWS);
    let mut members = vec![Vec::new(); rows];
    for (index, label) in labels(source)?.into_iter().enumerate() {
        if let Some(row) = members.get_mut(label as usize) {
            row.push(index);
        }
    }
    let zoom = LEAST_SIDE.div_ceil(height.min(width).max(1)).max(1);
    let (cell_width, cell_height) = ((width * zoom) as u32 + GAP, (height * zoom) as u32 + GAP);
    let mut sheet = RgbImage::from_pixel(columns as u32 * cell_width + GAP, rows as u32 * cell_height + GAP, Rgb([255; 3]));
    let mut pixels = vec![0; channels * height * width];
    for (row, members) in members.iter().enumerate() {
        let count = members.len().min(columns);
        for column in 0..count {
            if source.try_read(members[column * members.len() / count], &mut pixels)?.is_none() {
                continue;
            }
            let (left, top) = (column as u32 * cell_width + GAP, row as u32 * cell_height + GAP);
            for (place, pixel) in pixels.chunks_exact(channels).enumerate() {
                let colour = if channels == 3 { Rgb([pixel[0], pixel[1], pixel[2]]) } else { Rgb([pixel[0]; 3]) };
                let (x, y) = ((place % width * zoom) as u32, (place / width * zoom) as u32);
                for step in 0..(zoom * zoom) as u32 {
                    sheet.put_pixel(left + x + step % zoom as u32, top + y + step / zoom as u32, colour);
                }
            }
        }
    }
    let mut bytes = Cursor::new(Vec::new());
    PngEncoder::new(&mut bytes)
        .write_image(sheet.as_raw(), sheet.width(), sheet.height(), ExtendedColorType::Rgb8)
        .map_err(|error| DataError::Setting(format!("the sheet cannot be made a PNG ({error}); use fewer columns")))?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::InMemory;

    fn dataset() -> Dataset {
        let train = InMemory::new([1, 2, 2], 3, [[0; 4], [100; 4], [200; 4]].concat(), vec![2, 0, 2]).unwrap();
        let test = InMemory::new([1, 2, 2], 3, vec![9; 4], vec![1]).unwrap();
        Dataset {
            name: "x".into(),
            path: "x".into(),
            classes: ["a", "b", "c"].map(str::to_owned).to_vec(),
            train: Arc::new(train),
            test: Arc::new(test),
            notes: Vec::new(),
            unreadable: None,
            val_split: None,
        }
    }

    #[test]
    fn classes_are_counted_and_pixels_measured() {
        let survey = survey(&dataset()).unwrap();
        assert_eq!(survey.counts, [(1, 0), (0, 1), (2, 0)]);
        assert_eq!((survey.measured, survey.sizes), (3, None));
        assert!((survey.stats.unwrap().mean[0] - 100.0 / 255.0).abs() < 1e-6);
    }

    #[test]
    fn a_sheet_has_a_row_for_each_class() {
        let png = contact_sheet(&dataset(), 4).unwrap();
        let sheet = image::load_from_memory(&png).unwrap().into_rgb8();
        // 2 pixels enlarged 28 times, and a gap of 2.
        assert_eq!(sheet.dimensions(), (4 * 58 + 2, 3 * 58 + 2));
        let at = |row: u32, column: u32| sheet.get_pixel(column * 58 + 30, row * 58 + 30).0[0];
        assert_eq!([at(0, 0), at(0, 1), at(1, 0), at(2, 0), at(2, 1), at(2, 2)], [100, 255, 255, 0, 200, 255]);
    }
}
