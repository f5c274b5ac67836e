//! Compiled pipelines, kept on disk from one run to the next where the driver can hand them out (Vulkan).
//!
//! Drivers are not asked to judge a damaged file: it has a header of its own with the adapter, the driver's and this
//! program's version and a checksum, and whatever does not match to the byte is left aside.

use super::cache_dir::cache_dir;
use crate::files::replace_file;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// First bytes of a file; the last two are the version of its layout.
const MAGIC: [u8; 16] = *b"nin-wgpu pipes01";
/// Files above this are no cache of ours: a pipeline takes some kilobytes.
const MOST_BYTES: u64 = 256 << 20;
/// Bytes of a SHA-256 sum.
const SUM_BYTES: usize = 32;

/// A driver's cache and the file it came from and goes to.
pub(super) struct PipelineCache {
    cache: wgpu::PipelineCache,
    path: PathBuf,
    key: String,
    /// Sum of the file that was loaded.
    loaded: Option<[u8; SUM_BYTES]>,
}

impl PipelineCache {
    /// The cache of an adapter, with what the file of an earlier run holds, and a line on where it came from. Nothing
    /// without a cache folder or on backends without pipeline caches.
    pub fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo) -> Option<(Self, String)> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = cache_dir()?.join(wgpu::util::pipeline_cache_key(info)?).with_extension("bin");
        let key = key(info);
        let name = path.display();
        let (found, note) = match read(&path) {
            Ok(None) => (None, format!("pipeline cache: none yet; {name} will hold it")),
            Err(error) => (None, format!("pipeline cache: {name} cannot be read ({error}); starting without")),
            Ok(Some(bytes)) => match decode(&bytes, &key) {
                Ok(payload) => {
                    let note = format!("pipeline cache: {} bytes from {name}", payload.len());
                    (Some((payload.to_vec(), Sha256::digest(&bytes).into())), note)
                }
                Err(reason) => (None, format!("pipeline cache: {name} is left aside, {reason}")),
            },
        };
        let (payload, loaded) = found.unzip();
        let descriptor = wgpu::PipelineCacheDescriptor { label: Some("pipelines"), data: payload.as_deref(), fallback: true };
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        // SAFETY: the bytes are what `get_data` returned for the same adapter, driver and version of this program, which
        // the key and the checksum in the file's header establish.
        let cache = unsafe { device.create_pipeline_cache(&descriptor) };
        match pollster::block_on(scope.pop()) {
            None => Some((PipelineCache { cache, path, key, loaded }, note)),
            Some(_) => None,
        }
    }

    /// What pipelines are made with.
    pub fn driver_cache(&self) -> &wgpu::PipelineCache {
        &self.cache
    }

    /// Writes what the driver holds now where the file does not hold it already; a line on what was done, if anything.
    pub fn save(&self) -> Option<String> {
        let bytes = encode(&self.key, &self.cache.get_data()?);
        if self.loaded == Some(Sha256::digest(&bytes).into()) {
            return None;
        }
        let name = self.path.display();
        Some(match write(&self.path, &bytes) {
            Ok(()) => format!("pipeline cache: {} bytes written to {name}", bytes.len()),
            Err(error) => format!("pipeline cache: {name} cannot be written ({error}); kernels are compiled again next time"),
        })
    }
}

/// What a file must have been written for.
fn key(info: &wgpu::AdapterInfo) -> String {
    let wgpu::AdapterInfo { name, vendor, device, driver, driver_info, .. } = info;
    format!("{name}\n{vendor:x}:{device:x}\n{driver}\n{driver_info}\nnin-wgpu {}", env!("CARGO_PKG_VERSION"))
}

/// The bytes of a file: magic, sum of all that follows, length of the key, key, payload.
fn encode(key: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = (key.len() as u64).to_le_bytes().to_vec();
    body.extend(key.as_bytes());
    body.extend(payload);
    let sum: [u8; SUM_BYTES] = Sha256::digest(&body).into();
    [&MAGIC[..], &sum, &body].concat()
}

/// The payload of a file, or why it is of no use.
fn decode<'a>(bytes: &'a [u8], key: &str) -> Result<&'a [u8], &'static str> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or("it is not a pipeline cache of this version")?;
    let (sum, body) = rest.split_at_checked(SUM_BYTES).ok_or("it is cut short")?;
    if Sha256::digest(body)[..] != *sum {
        return Err("its checksum is wrong");
    }
    let (length, rest) = body.split_first_chunk().ok_or("it is cut short")?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| "it is damaged")?;
    let (found, payload) = rest.split_at_checked(length).ok_or("it is damaged")?;
    if found != key.as_bytes() {
        return Err("it is of another driver, adapter or version of this program");
    }
    Ok(payload)
}

/// The bytes of a file; `None` where there is none.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("it is larger than {MOST_BYTES} bytes")));
    }
    Ok(Some(bytes))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    replace_file(path, |writer| writer.write_all(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/down/cache.bin");
        assert_eq!(read(&path).unwrap(), None);
        let bytes = encode("key", b"payload");
        write(&path, &bytes).unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some(&bytes[..]));
        assert_eq!(decode(&bytes, "key"), Ok(&b"payload"[..]));
        assert_eq!(decode(&encode("", b""), ""), Ok(&b""[..]));
    }

    #[test]
    fn damage_anywhere_is_seen() {
        let bytes = encode("key", b"payload");
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length], "key").is_err(), "{length} bytes");
            for flipped in [1, 0x80] {
                let mut damaged = bytes.clone();
                damaged[length] ^= flipped;
                assert!(decode(&damaged, "key").is_err(), "byte {length}");
            }
        }
        assert!(decode(&[&bytes[..], b"x"].concat(), "key").is_err());
    }

    #[test]
    fn another_key_is_not_taken() {
        let bytes = encode("driver 1", b"payload");
        assert!(decode(&bytes, "driver 2").is_err_and(|reason| reason.contains("another driver")));
        assert!(decode(&bytes, "driver").is_err() && decode(&bytes, "driver 1p").is_err());
    }
}
