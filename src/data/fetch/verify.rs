//! Whether a downloaded file is the one that was wanted.

use super::super::catalog::{Holds, RemoteFile};
use super::FetchError;
use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// What a file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The wanted file, or another packing of the wanted content.
    Right,
    /// Something else, and why.
    Wrong(String),
}

/// Compares size and SHA-256 of `path` with what `file` should be. Fails only where the disk does.
pub(super) fn verify(file: &RemoteFile, path: &Path) -> Result<Verdict, FetchError> {
    let open = || File::open(path).map_err(FetchError::io(path, "read the file"));
    let (bytes, found) = digest(&mut open()?, u64::MAX).map_err(FetchError::io(path, "read the file"))?;
    if found == file.sha256 {
        return Ok(Verdict::Right);
    }
    let Holds::Gzip(content) = file.holds else {
        return Ok(Verdict::Wrong(format!("{bytes} bytes with SHA-256 {found}, wanted are {} with {}", file.bytes, file.sha256)));
    };
    // One byte more than there may be tells a longer file without unpacking all of it.
    let mut unpacked = MultiGzDecoder::new(BufReader::new(open()?));
    Ok(match digest(&mut unpacked, content.bytes + 1) {
        Ok((bytes, found)) if bytes == content.bytes && found == content.sha256 => Verdict::Right,
        Ok((bytes, found)) => {
            Verdict::Wrong(format!("unpacked {bytes} bytes with SHA-256 {found}, wanted are {} with {}", content.bytes, content.sha256))
        }
        Err(error) => Verdict::Wrong(format!("{bytes} bytes that do not unpack ({error})")),
    })
}

/// Number and SHA-256 of the first `limit` bytes.
fn digest(reader: &mut dyn Read, limit: u64) -> io::Result<(u64, String)> {
    let mut reader = reader.take(limit);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hash.update(&buffer[..count]);
                bytes += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((bytes, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}
