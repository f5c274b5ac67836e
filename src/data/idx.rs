//! IDX files, plain or gzip: the format of MNIST and Fashion-MNIST.
//!
//! A header of big-endian words (magic, then one size a dimension) and then the bytes. Images have
//! magic 0x00000803 and sizes (count, rows, columns); labels 0x00000801 and (count).
//!
//! Source: LeCun, Cortes, Burges, "The MNIST database", section "File formats".

use super::{DataError, InMemory, files};
use std::io::Read;
use std::path::Path;

const IMAGES_MAGIC: u32 = 0x0000_0803;
const LABELS_MAGIC: u32 = 0x0000_0801;

/// Largest side of an image accepted from a header.
const MAX_SIDE: u32 = 8192;

/// Grey images of one size.
pub struct Images {
    /// How many.
    pub count: usize,
    /// Height of each, in pixels.
    pub rows: usize,
    /// Width of each, in pixels.
    pub columns: usize,
    /// Image after image, row by row.
    pub pixels: Vec<u8>,
}

/// Reads a file of images; its size must be what its header says.
pub fn read_images(path: &Path) -> Result<Images, DataError> {
    let mut reader = files::open(path)?;
    let [count, rows, columns] = read_header(&mut *reader, path, IMAGES_MAGIC, "images")?;
    if rows == 0 || columns == 0 || rows > MAX_SIDE || columns > MAX_SIDE {
        return Err(DataError::malformed(
            path,
            format!(
                "the header says images of {columns}x{rows} pixels, outside 1 to {MAX_SIDE}; \
                 the file is damaged, fetch it again"
            ),
        ));
    }
    let bytes = u64::from(count) * u64::from(rows) * u64::from(columns);
    let pixels = read_body(&mut *reader, path, bytes, &format!("{count} images of {columns}x{rows}"))?;
    Ok(Images { count: count as usize, rows: rows as usize, columns: columns as usize, pixels })
}

/// Reads a file of labels; its size must be what its header says and every label below `classes`.
pub fn read_labels(path: &Path, classes: usize) -> Result<Vec<u32>, DataError> {
    let mut reader = files::open(path)?;
    let [count] = read_header(&mut *reader, path, LABELS_MAGIC, "labels")?;
    let bytes = read_body(&mut *reader, path, count.into(), &format!("{count} labels"))?;
    if let Some(index) = bytes.iter().position(|&label| label as usize >= classes) {
        return Err(DataError::malformed(
            path,
            format!(
                "image {index} has label {}, but there are {classes} classes (0 to {}); fetch the \
                 file again, or list the names of all classes, one a line, in classes.txt beside it",
                bytes[index],
                classes.saturating_sub(1)
            ),
        ));
    }
    Ok(bytes.into_iter().map(u32::from).collect())
}

/// A split from a file of images and one of labels, which must have the same number of each. Only
/// the first `limit` images are kept.
pub fn read_split(images: &Path, labels: &Path, classes: usize, limit: Option<usize>) -> Result<InMemory, DataError> {
    let Images { count, rows, columns, mut pixels } = read_images(images)?;
    let mut values = read_labels(labels, classes)?;
    if values.len() != count {
        return Err(DataError::malformed(
            labels,
            format!("{} labels for the {count} images of {}; the two files must belong together", values.len(), images.display()),
        ));
    }
    let kept = limit.map_or(count, |limit| limit.min(count));
    values.truncate(kept);
    pixels.truncate(kept * rows * columns);
    pixels.shrink_to_fit();
    InMemory::new([1, rows, columns], classes, pixels, values)
}

/// Reads the magic word and `N` sizes.
fn read_header<const N: usize>(reader: &mut dyn Read, path: &Path, magic: u32, what: &str) -> Result<[u32; N], DataError> {
    let header = files::read_up_to(reader, 4 * (N as u64 + 1), path)?;
    let words: Vec<u32> = header.chunks_exact(4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]])).collect();
    match words.first() {
        Some(&found) if found != magic => {
            return Err(DataError::malformed(
                path,
                format!(
                    "not an IDX file of {what}: it starts with {found:#010x}, not {magic:#010x}; \
                     check that the right file has this name"
                ),
            ));
        }
        _ => {}
    }
    words
        .get(1..=N)
        .and_then(|sizes| sizes.try_into().ok())
        .ok_or_else(|| DataError::malformed(path, format!("too short for an IDX header ({} bytes); fetch the file again", header.len())))
}

/// Reads exactly the bytes that the header announced.
fn read_body(reader: &mut dyn Read, path: &Path, bytes: u64, announced: &str) -> Result<Vec<u8>, DataError> {
    if bytes > files::MAX_BYTES {
        return Err(DataError::malformed(
            path,
            format!(
                "the header says {announced}, {bytes} bytes, more than the {} GiB that are read; \
                 the file is damaged or needs splitting",
                files::MAX_BYTES >> 30
            ),
        ));
    }
    let body = files::read_up_to(reader, bytes + 1, path)?;
    let found = body.len() as u64;
    if found != bytes {
        let found = if found > bytes { format!("more than {bytes}") } else { format!("only {found}") };
        return Err(DataError::malformed(
            path,
            format!(
                "the header says {announced}, {bytes} bytes, but {found} follow; \
                 the file is cut short or damaged, fetch it again"
            ),
        ));
    }
    Ok(body)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::data::Source;
    use flate2::{Compression, write::GzEncoder};
    use std::fs;
    use std::io::Write;

    /// Bytes of an IDX file of images whose n-th image is filled with `n`.
    pub(in crate::data) fn image_file(count: u32, rows: u32, columns: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [IMAGES_MAGIC, count, rows, columns] {
            bytes.extend(word.to_be_bytes());
        }
        for image in 0..count {
            bytes.extend(std::iter::repeat_n(image as u8, (rows * columns) as usize));
        }
        bytes
    }

    /// Bytes of an IDX file of labels.
    pub(in crate::data) fn label_file(labels: &[u8]) -> Vec<u8> {
        let mut bytes = LABELS_MAGIC.to_be_bytes().to_vec();
        bytes.extend((labels.len() as u32).to_be_bytes());
        bytes.extend(labels);
        bytes
    }

    pub(in crate::data) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn split(images: &[u8], labels: &[u8]) -> Result<InMemory, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let (image_path, label_path) = (folder.path().join("images"), folder.path().join("labels"));
        fs::write(&image_path, images).unwrap();
        fs::write(&label_path, labels).unwrap();
        read_split(&image_path, &label_path, 10, None)
    }

    fn problem(images: &[u8], labels: &[u8]) -> String {
        let message = split(images, labels).err().expect("refused").to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    }

    #[test]
    fn plain_and_gzip_files_read_alike() {
        let (images, labels) = (image_file(3, 2, 4), label_file(&[7, 0, 9]));
        for (images, labels) in [(images.clone(), labels.clone()), (gzip(&images), gzip(&labels))] {
            let split = split(&images, &labels).unwrap();
            assert_eq!((split.len(), split.shape()), (3, [1, 2, 4]));
            let mut pixels = [0; 8];
            assert_eq!(split.read(2, &mut pixels).unwrap(), 9);
            assert_eq!(pixels, [2; 8]);
        }
    }

    #[test]
    fn damage_is_named() {
        let (images, labels) = (image_file(3, 2, 4), label_file(&[7, 0, 9]));
        assert!(problem(&images[..30], &labels).contains("only 14 follow"));
        assert!(problem(&[&images[..], &[0]].concat(), &labels).contains("more than 24 follow"));
        assert!(problem(&images[..9], &labels).contains("too short"));
        assert!(problem(&[], &labels).contains("too short"));
        assert!(problem(&labels, &labels).contains("not an IDX file of images"));
        assert!(problem(&images, &images).contains("not an IDX file of labels"));
        assert!(problem(&images, &label_file(&[7, 0])).contains("2 labels for the 3 images"));
        assert!(problem(&images, &label_file(&[7, 0, 10])).contains("image 2 has label 10"));
        let packed = gzip(&image_file(3, 28, 28));
        assert!(problem(&packed[..packed.len() - 12], &labels).contains("gzip data is damaged"));
        // A header that lies costs neither memory nor time.
        let mut huge = image_file(0, 28, 28);
        huge[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(problem(&huge, &labels).contains("more than the 16 GiB"));
        assert!(problem(&image_file(0, 0, 28), &labels).contains("outside 1 to 8192"));
    }
}
