//! Files of a data set: found by name with or without `.gz`, unpacked by content.

use super::DataError;
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Largest data file read into memory, unpacked: an archive or header that lies stops here.
pub(super) const MAX_BYTES: u64 = 16 << 30;

pub(super) const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The first of `names` that is a file in `folder`, plain before `.gz`.
pub(super) fn find(folder: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().flat_map(|name| [folder.join(name), folder.join(format!("{name}.gz"))]).find(|path| path.is_file())
}

/// Opens a file for reading, unpacking it where its content is gzip, whatever its name says.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read>, DataError> {
    let file = File::open(path).map_err(|e| DataError::read(path, e))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let start = reader.fill_buf().map_err(|e| DataError::read(path, e))?;
    Ok(if start.starts_with(&GZIP_MAGIC) { Box::new(MultiGzDecoder::new(reader)) } else { Box::new(reader) })
}

/// Reads what is left of `reader`, but no more than `limit` bytes.
pub(super) fn read_up_to(reader: &mut dyn Read, limit: u64, path: &Path) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    reader.take(limit).read_to_end(&mut bytes).map_err(|error| match error.kind() {
        // What flate2 reports for a file cut short or altered.
        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData => {
            DataError::malformed(path, format!("the gzip data is damaged or cut short ({error}); fetch the file again"))
        }
        _ => DataError::read(path, error),
    })?;
    Ok(bytes)
}

/// The non-empty lines of a text file, trimmed: lists of class names. At most 1 MiB is read.
pub(super) fn lines(path: &Path) -> Result<Vec<String>, DataError> {
    let bytes = read_up_to(&mut *open(path)?, 1 << 20, path)?;
    Ok(String::from_utf8_lossy(&bytes).lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}
