//! MATLAB files of level 5 (`.mat` as saved by MATLAB 5 to 7.2), as far as data sets need them: real numeric arrays
//! of small whole numbers, packed or not, read as bytes in one pass.
//!
//! A file is a header of 128 bytes and then elements, each a tag (type, size) and its data; a matrix is an element of
//! elements: flags, dimensions, name, values. Any of them may be a zlib stream of one element.
//!
//! Source: MathWorks, "MAT-File Format", chapter 1.

use super::{DataError, files};
use flate2::read::ZlibDecoder;
use std::io::{self, Read};
use std::path::Path;

const COMPRESSED: u32 = 15;
const MATRIX: u32 = 14;
const DOUBLE: u32 = 9;
const UINT8: u32 = 2;
/// Classes of numeric arrays: double to 64-bit unsigned integers.
const NUMERIC_CLASSES: std::ops::RangeInclusive<u32> = 6..=15;
/// The flag of an array that has an imaginary part as well.
const COMPLEX: u32 = 1 << 11;
/// Largest part of a matrix beside its values: flags, dimensions or name.
const MOST_DESCRIPTION: u64 = 4096;

/// A numeric array whose values are whole numbers from 0 to 255.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Array {
    /// The variable's name.
    pub name: String,
    /// Its dimensions; the first runs fastest.
    pub dims: Vec<usize>,
    /// The values; fewer than the dimensions say where a limit was given.
    pub values: Vec<u8>,
}

/// The header of an element.
struct Tag {
    kind: u32,
    bytes: u64,
    /// Data of small elements, which lies in the tag itself.
    inline: Option<[u8; 4]>,
}

/// Reads the arrays of a file of which `wanted` wants values, given name and dimensions: the first so many. What it gives
/// `None` for is passed over, as are variables of other kinds.
pub(super) fn read(path: &Path, wanted: &dyn Fn(&str, &[usize]) -> Option<usize>) -> Result<Vec<Array>, DataError> {
    let mut reader = files::open(path)?;
    let mut header = [0; 128];
    let problem = |text: &str| DataError::malformed(path, text);
    reader.read_exact(&mut header).map_err(|error| damaged(path, &error))?;
    match &header[124..] {
        [0, 1, b'I', b'M'] => {}
        [1, 0, b'M', b'I'] => return Err(problem("a MATLAB file written on a big-endian machine, which is not read; save it again")),
        _ if header.starts_with(b"\x89HDF") || header.starts_with(b"MATLAB 7.3") => {
            return Err(problem("a MATLAB 7.3 file, which is not read; save it with -v7"));
        }
        _ => return Err(problem("not a MATLAB 5 file; fetch it again")),
    }
    let mut arrays = Vec::new();
    loop {
        let mut start = [0; 8];
        match fill(&mut reader, &mut start).map_err(|error| damaged(path, &error))? {
            0 => return Ok(arrays),
            8 => {}
            _ => return Err(damaged(path, &io::ErrorKind::UnexpectedEof.into())),
        }
        let tag = parse_tag(start);
        // Compressed elements alone have no padding behind them.
        let length = match (tag.kind, tag.inline) {
            (_, Some(_)) => 0,
            (COMPRESSED, None) => tag.bytes,
            (_, None) => tag.bytes.next_multiple_of(8),
        };
        let mut element = reader.by_ref().take(length);
        let array = match tag.kind {
            COMPRESSED => {
                let mut unpacked = ZlibDecoder::new(&mut element);
                let inner = read_tag(&mut unpacked).map_err(|error| damaged(path, &error))?;
                if inner.kind == MATRIX { matrix(&mut unpacked.take(inner.bytes), path, wanted)? } else { None }
            }
            MATRIX => matrix(&mut element, path, wanted)?,
            _ => None,
        };
        arrays.extend(array);
        let rest = element.limit();
        let skipped = io::copy(&mut element, &mut io::sink()).map_err(|error| damaged(path, &error))?;
        if skipped < rest {
            return Err(damaged(path, &io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Reads a matrix up to the values that are wanted.
fn matrix(reader: &mut dyn Read, path: &Path, wanted: &dyn Fn(&str, &[usize]) -> Option<usize>) -> Result<Option<Array>, DataError> {
    let broken = |error: io::Error| damaged(path, &error);
    let words = |bytes: Vec<u8>| -> Vec<u32> { bytes.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect() };
    let flags = words(description(reader).map_err(broken)?);
    let class = flags.first().map(|word| (word & 0xff, word & COMPLEX));
    let dims: Vec<usize> = words(description(reader).map_err(broken)?).into_iter().map(|word| word as usize).collect();
    let name = String::from_utf8_lossy(&description(reader).map_err(broken)?).into_owned();
    match class {
        Some((class, 0)) if NUMERIC_CLASSES.contains(&class) => {}
        _ => return Ok(None),
    }
    let Some(most) = wanted(&name, &dims) else { return Ok(None) };
    let tag = read_tag(reader).map_err(broken)?;
    let size: u64 = match tag.kind {
        1 | UINT8 => 1,
        3 | 4 => 2,
        5..=7 => 4,
        DOUBLE | 12 | 13 => 8,
        kind => return Err(DataError::malformed(path, format!("variable {name} is stored as type {kind}, which is not read"))),
    };
    let count = dims.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim as u64));
    if count.and_then(|count| count.checked_mul(size)) != Some(tag.bytes) || tag.bytes > files::MAX_BYTES {
        return Err(DataError::malformed(
            path,
            format!("variable {name} has {} bytes of values for dimensions {dims:?}; the file is damaged, fetch it again", tag.bytes),
        ));
    }
    let bytes = tag.bytes.min((most as u64).saturating_mul(size));
    let raw = match tag.inline {
        Some(data) => data[..bytes as usize].to_vec(),
        None => exactly(reader, bytes).map_err(broken)?,
    };
    let values = to_bytes(raw, tag.kind)
        .ok_or_else(|| DataError::malformed(path, format!("variable {name} holds other values than whole numbers from 0 to 255")))?;
    Ok(Some(Array { name, dims, values }))
}

/// The values of a storage type as bytes; `None` where one is none.
fn to_bytes(raw: Vec<u8>, kind: u32) -> Option<Vec<u8>> {
    let unsigned = |size: usize| -> Option<Vec<u8>> {
        raw.chunks_exact(size).map(|value| value[1..].iter().all(|byte| *byte == 0).then_some(value[0])).collect()
    };
    match kind {
        UINT8 => Some(raw),
        // Negative numbers have the high bit.
        1 => raw.iter().all(|byte| *byte < 128).then_some(raw),
        3 | 4 => unsigned(2),
        5 | 6 => unsigned(4),
        7 => raw.chunks_exact(4).map(|v| whole(f64::from(f32::from_le_bytes([v[0], v[1], v[2], v[3]])))).collect(),
        DOUBLE => raw.chunks_exact(8).map(|v| whole(f64::from_le_bytes([v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]]))).collect(),
        _ => unsigned(8),
    }
}

fn whole(value: f64) -> Option<u8> {
    ((0.0..=255.0).contains(&value) && value.fract() == 0.0).then_some(value as u8)
}

/// The data of an element of a matrix that describes it, without its padding.
fn description(reader: &mut dyn Read) -> io::Result<Vec<u8>> {
    let tag = read_tag(reader)?;
    if let Some(data) = tag.inline {
        return Ok(data[..tag.bytes as usize].to_vec());
    }
    if tag.bytes > MOST_DESCRIPTION {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a description of {} bytes", tag.bytes)));
    }
    let mut data = exactly(reader, tag.bytes.next_multiple_of(8))?;
    data.truncate(tag.bytes as usize);
    Ok(data)
}

fn read_tag(reader: &mut dyn Read) -> io::Result<Tag> {
    let mut start = [0; 8];
    reader.read_exact(&mut start)?;
    Ok(parse_tag(start))
}

fn parse_tag(start: [u8; 8]) -> Tag {
    let [a, b, c, d, rest @ ..] = start;
    let small = u16::from_le_bytes([c, d]);
    match small {
        0 => Tag { kind: u32::from_le_bytes([a, b, c, d]), bytes: u32::from_le_bytes(rest).into(), inline: None },
        // More than four bytes cannot lie in a tag.
        _ => Tag { kind: u16::from_le_bytes([a, b]).into(), bytes: u64::from(small.min(4)), inline: Some(rest) },
    }
}

/// Reads exactly `bytes` bytes; memory grows with what is there, not with what was announced.
fn exactly(reader: &mut dyn Read, bytes: u64) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    reader.take(bytes).read_to_end(&mut data)?;
    if (data.len() as u64) < bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(data)
}

/// Reads until the buffer is full or the file ends, and says how much.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn damaged(path: &Path, error: &io::Error) -> DataError {
    DataError::malformed(path, format!("the file is damaged or cut short ({error}); fetch it again"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use flate2::{Compression, write::ZlibEncoder};
    use std::io::Write;

    /// An element with its padding.
    fn element(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    /// A matrix element; names of up to four letters are written into their tag, as MATLAB does.
    pub(in crate::data) fn variable(name: &str, class: u32, dims: &[u32], kind: u32, data: &[u8]) -> Vec<u8> {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let mut inner = element(6, &words(&[class, 0]));
        inner.extend(element(5, &words(dims)));
        if name.len() <= 4 {
            inner.extend((1 | (name.len() as u32) << 16).to_le_bytes());
            inner.extend(name.bytes().chain(std::iter::repeat(0)).take(4));
        } else {
            inner.extend(element(1, name.as_bytes()));
        }
        inner.extend(element(kind, data));
        element(MATRIX, &inner)
    }

    pub(in crate::data) fn compressed(inner: &[u8]) -> Vec<u8> {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(inner).unwrap();
        let data = zlib.finish().unwrap();
        [COMPRESSED.to_le_bytes().to_vec(), (data.len() as u32).to_le_bytes().to_vec(), data].concat()
    }

    pub(in crate::data) fn file(variables: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = b"MATLAB 5.0 MAT-file".to_vec();
        bytes.resize(124, b' ');
        bytes.extend([0, 1, b'I', b'M']);
        bytes.extend(variables.concat());
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Vec<Array>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.mat");
        std::fs::write(&path, bytes).unwrap();
        read(&path, &|_, _| Some(usize::MAX)).map_err(|error| error.to_string())
    }

    #[test]
    fn arrays_of_every_storage_come_out_as_bytes() {
        let doubles: Vec<u8> = [1.0f64, 10.0, 255.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let bytes = file(&[
            compressed(&variable("X", 9, &[2, 3], UINT8, &[1, 2, 3, 4, 5, 200])),
            element(UINT8, b"no matrix"),
            variable("labels", 6, &[3, 1], DOUBLE, &doubles),
            variable("text", 4, &[1, 1], 4, &[65, 0]),
            compressed(&variable("y", 6, &[2, 1], 4, &[7, 0, 9, 0])),
        ]);
        let arrays = parse(&bytes).unwrap();
        let found: Vec<(&str, &[usize], &[u8])> =
            arrays.iter().map(|array| (array.name.as_str(), &array.dims[..], &array.values[..])).collect();
        assert_eq!(found, [("X", &[2, 3][..], &[1, 2, 3, 4, 5, 200][..]), ("labels", &[3, 1], &[1, 10, 255]), ("y", &[2, 1], &[7, 9])]);
    }

    #[test]
    fn only_what_is_wanted_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.mat");
        let big = variable("X", 9, &[100, 1], UINT8, &[5; 100]);
        std::fs::write(&path, file(&[big.clone(), compressed(&big), variable("y", 9, &[1, 1], UINT8, &[3])])).unwrap();
        let arrays = read(&path, &|name, _| Some(if name == "X" { 10 } else { 1 })).unwrap();
        assert_eq!(arrays.iter().map(|array| array.values.len()).collect::<Vec<_>>(), [10, 10, 1]);
        assert!(read(&path, &|_, _| None).unwrap().is_empty());
    }

    #[test]
    fn damage_is_named() {
        let good = file(&[compressed(&variable("X", 9, &[100, 1], UINT8, &[5; 100])), variable("y", 9, &[9, 1], UINT8, &[3; 9])]);
        for end in [0, 60, 130, 140, 150, good.len() - 12, good.len() - 20] {
            let text = parse(&good[..end]).unwrap_err();
            assert!(text.contains("damaged"), "{end}: {text}");
        }
        for position in 128..good.len() {
            let mut bytes = good.clone();
            bytes[position] ^= 0x41;
            // Any answer will do but a panic or memory without end.
            let _ = parse(&bytes);
        }
        assert!(parse(&file(&[variable("y", 9, &[4, 4], UINT8, &[1])])).unwrap_err().contains("1 bytes of values for dimensions [4, 4]"));
        assert!(parse(&file(&[variable("y", 6, &[1, 1], 4, &[0, 1])])).unwrap_err().contains("whole numbers"));
        assert!(parse(&file(&[variable("y", 6, &[1, 1], DOUBLE, &0.5f64.to_le_bytes())])).unwrap_err().contains("whole numbers"));
        assert!(parse(&[b' '; 200]).unwrap_err().contains("not a MATLAB 5 file"));
        let mut new = b"MATLAB 7.3 MAT-file".to_vec();
        new.resize(600, 0);
        assert!(parse(&new).unwrap_err().contains("-v7"));
        let lie = [14u32.to_le_bytes(), u32::MAX.to_le_bytes()].concat();
        assert!(parse(&file(&[lie])).unwrap_err().contains("damaged"));
    }
}
