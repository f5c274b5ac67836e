//! Reading safetensors: 8 bytes of header length (little-endian), a JSON header, then the tensors'
//! bytes. Nothing in a file is believed before it is checked, and memory stays within the tensors'
//! own size.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::Metadata as Header;

use super::error::{WeightsError, tensor_name};
use super::file::{NamedTensor, WeightFile, non_finite};
use super::metadata::Parts;
use crate::errors::{label, one_line};
use crate::half::{bf16_to_f32, f16_to_f32};

/// Largest file that is read: no model here comes near it.
const MAX_FILE_BYTES: u64 = 4 << 30;
/// Largest header that is read: a network of 1,000 tensors needs a tenth of a mebibyte.
const MAX_HEADER_BYTES: u64 = 16 << 20;
/// The header's length comes first, as a `u64`.
const LENGTH_BYTES: u64 = 8;

/// Reads a weight file.
pub fn load(path: &Path) -> Result<WeightFile, WeightsError> {
    let name = label(path);
    // Asked before opening: opening a pipe would wait for a writer.
    let info = path.metadata().map_err(|error| WeightsError::read(&name, error))?;
    if !info.is_file() {
        return Err(WeightsError::NotAFile { file: name });
    }
    let file = File::open(path).map_err(|error| WeightsError::read(&name, error))?;
    parse(BufReader::new(file), info.len(), &name)
}

/// Reads weights from memory; `label` stands for the file's name in messages.
pub fn from_bytes(bytes: &[u8], label: &str) -> Result<WeightFile, WeightsError> {
    parse(bytes, bytes.len() as u64, label)
}

fn parse(mut reader: impl Read, size: u64, label: &str) -> Result<WeightFile, WeightsError> {
    let file = || label.to_string();
    if size > MAX_FILE_BYTES {
        return Err(WeightsError::TooLarge { file: file(), bytes: size, limit: MAX_FILE_BYTES });
    }
    let (header, header_bytes) = read_header(&mut reader, size, label)?;

    // At most MAX_FILE_BYTES and MAX_HEADER_BYTES were let through, so only the announced length
    // of the tensors can be absurd.
    let expected = (header.data_len() as u64).saturating_add(LENGTH_BYTES + header_bytes);
    if expected > size {
        return Err(WeightsError::Truncated { file: file(), expected, found: size });
    }
    if expected < size {
        return Err(WeightsError::TrailingBytes { file: file(), extra: size - expected });
    }

    let parts = match header.metadata() {
        Some(entries) => Parts::from_entries(entries).map_err(|reason| WeightsError::Metadata { file: file(), reason })?,
        None => Parts::default(),
    };
    let mut tensors = Vec::new();
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else {
            continue;
        };
        let Some(widen) = reader_of(info.dtype) else {
            let dtype = info.dtype.to_string();
            return Err(WeightsError::Dtype { file: file(), tensor: tensor_name(&name), dtype });
        };
        let mut bytes = vec![0; info.data_offsets.1 - info.data_offsets.0];
        reader.read_exact(&mut bytes).map_err(|error| WeightsError::read(label, error))?;
        let data = widen(&bytes);
        if let Some((index, value)) = non_finite(&data) {
            let tensor = tensor_name(&name);
            return Err(WeightsError::NonFinite { file: file(), tensor, index, value });
        }
        tensors.push(NamedTensor { name, shape: info.shape.clone(), data });
    }
    let notes = unwrap_names(&mut tensors).map(|wrappers| format!("{label}: took {wrappers} off the tensors' names"));
    Ok(WeightFile { source: file(), tensors, metadata: parts.whole(), parts, notes: notes.into_iter().collect() })
}

/// What PyTorch puts into the names of modules that are wrapped: by `torch.compile`, and by `DataParallel` and its like.
const WRAPPERS: [&str; 2] = ["_orig_mod", "module"];

/// Takes wrappers out of the tensors' paths, unless two would then have one name; tells which were there.
fn unwrap_names(tensors: &mut [NamedTensor]) -> Option<String> {
    let is_wrapper = |part: &&str| WRAPPERS.contains(part);
    let bare: Vec<String> =
        tensors.iter().map(|tensor| tensor.name.split('.').filter(|part| !is_wrapper(part)).collect::<Vec<_>>().join(".")).collect();
    let distinct: HashSet<&str> = bare.iter().map(String::as_str).collect();
    if distinct.len() < bare.len() || distinct.contains("") {
        return None;
    }
    let found = WRAPPERS.into_iter().filter(|wrapper| tensors.iter().any(|tensor| tensor.name.split('.').any(|part| part == *wrapper)));
    let found: Vec<String> = found.map(|wrapper| format!("'{wrapper}.'")).collect();
    for (tensor, name) in tensors.iter_mut().zip(bare) {
        tensor.name = name;
    }
    (!found.is_empty()).then(|| found.join(" and "))
}

/// Reads the header of a file of `size` bytes; also returns its length. The crate checks that the
/// tensors follow each other without gap or overlap and that shape, type and length agree.
fn read_header(reader: &mut impl Read, size: u64, label: &str) -> Result<(Header, u64), WeightsError> {
    let file = || label.to_string();
    let mut length = [0; LENGTH_BYTES as usize];
    if size < LENGTH_BYTES {
        let reason = if size == 0 { "it is empty".into() } else { format!("it has {size} bytes") };
        return Err(not_safetensors(label, &length, reason));
    }
    reader.read_exact(&mut length).map_err(|error| WeightsError::read(label, error))?;
    let bytes = u64::from_le_bytes(length);
    if bytes > MAX_HEADER_BYTES {
        return Err(not_safetensors(label, &length, "its first 8 bytes announce no sensible header".into()));
    }
    if bytes > size - LENGTH_BYTES {
        let expected = LENGTH_BYTES + bytes;
        return Err(WeightsError::Truncated { file: file(), expected, found: size });
    }
    let mut json = vec![0; bytes as usize];
    reader.read_exact(&mut json).map_err(|error| WeightsError::read(label, error))?;
    if json.first() != Some(&b'{') {
        return Err(not_safetensors(label, &length, "no JSON header".into()));
    }
    let header =
        serde_json::from_slice(&json).map_err(|error| WeightsError::Header { file: file(), reason: one_line(&error.to_string(), 160) })?;
    Ok((header, bytes))
}

fn not_safetensors(label: &str, start: &[u8; 8], reason: String) -> WeightsError {
    // PyTorch's own files are zip archives, or pickles in older versions.
    let advice = if start.starts_with(b"PK") || start.starts_with(b"\x80\x02") {
        "this looks like torch.save: write it with safetensors.torch.save_file instead"
    } else {
        "give a .safetensors file"
    };
    WeightsError::NotSafetensors { file: label.to_string(), reason, advice }
}

/// Turns little-endian bytes into numbers.
type Widen = fn(&[u8]) -> Vec<f32>;

/// How a type's bytes become `f32` without loss; `None` for types that are not read.
fn reader_of(dtype: Dtype) -> Option<Widen> {
    match dtype {
        Dtype::F32 => Some(|bytes| {
            let (values, _) = bytes.as_chunks();
            values.iter().map(|&value| f32::from_le_bytes(value)).collect()
        }),
        Dtype::F16 => Some(|bytes| halves(bytes).map(f16_to_f32).collect()),
        Dtype::BF16 => Some(|bytes| halves(bytes).map(bf16_to_f32).collect()),
        _ => None,
    }
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = u16> {
    let (values, _) = bytes.as_chunks();
    values.iter().map(|&value| u16::from_le_bytes(value))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use safetensors::SafeTensors;
    use safetensors::tensor::{TensorView, serialize};

    use super::*;
    use crate::errors::ErrorKind;

    /// A file with the given header and tensor bytes.
    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn example() -> Vec<u8> {
        let data: Vec<u8> = (0..12).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let weight = TensorView::new(Dtype::F32, vec![2, 1, 2, 2], &data[..32]).unwrap();
        let bias = TensorView::new(Dtype::F32, vec![4], &data[32..]).unwrap();
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        serialize([("0.weight", weight), ("0.bias", bias)], Some(metadata)).unwrap()
    }

    fn message(bytes: &[u8]) -> String {
        let error = from_bytes(bytes, "w.safetensors").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadData);
        let message = error.to_string();
        assert!(message.starts_with("w.safetensors: ") && !message.contains('\n'), "{message}");
        message
    }

    #[test]
    fn reads_what_the_safetensors_crate_writes() {
        let read = from_bytes(&example(), "x").unwrap();
        assert_eq!(read.metadata, None);
        let weight = read.tensors.iter().find(|tensor| tensor.name == "0.weight").unwrap();
        assert_eq!(weight.shape, [2, 1, 2, 2]);
        assert_eq!(weight.data, (0..8).map(|i| i as f32).collect::<Vec<_>>());
        assert_eq!(read.tensors.len(), 2);
    }

    #[test]
    fn wrappers_are_taken_off_the_names() {
        let names = |list: &[&str]| {
            let entries: Vec<String> = list
                .iter()
                .enumerate()
                .map(|(at, name)| format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}}"#, 4 * at, 4 * at + 4))
                .collect();
            let bytes = file(&format!("{{{}}}", entries.join(",")), &vec![0; 4 * list.len()]);
            let read = from_bytes(&bytes, "w").unwrap();
            (read.tensors.into_iter().map(|tensor| tensor.name).collect::<Vec<_>>(), read.notes)
        };
        for (list, wrappers) in [
            (["_orig_mod.0.weight", "_orig_mod.0.bias"], "'_orig_mod.'"),
            (["module.0.weight", "module.0.bias"], "'module.'"),
            (["module._orig_mod.0.weight", "_orig_mod.module.0.bias"], "'_orig_mod.' and 'module.'"),
            (["0.module.weight", "0.bias"], "'module.'"),
        ] {
            let (names, notes) = names(&list);
            assert_eq!(notes, [format!("w: took {wrappers} off the tensors' names")]);
            assert_eq!(names, ["0.weight", "0.bias"]);
        }
        for list in [["0.weight", "0.bias"], ["module.0.weight", "0.weight"], ["module", "0.weight"], ["modules.0.weight", "0.bias"]] {
            assert_eq!(names(&list), (list.map(String::from).to_vec(), Vec::new()));
        }
    }

    #[test]
    fn reads_half_precision() {
        for (dtype, data) in [("F16", [0x00, 0x3e, 0x00, 0xc0]), ("BF16", [0xc0, 0x3f, 0x00, 0xc0])] {
            let header = format!(r#"{{"a":{{"dtype":"{dtype}","shape":[2],"data_offsets":[0,4]}}}}"#);
            assert_eq!(from_bytes(&file(&header, &data), "x").unwrap().tensors[0].data, [1.5, -2.0]);
        }
    }

    #[test]
    fn lying_headers_are_refused() {
        let a =
            |dtype: &str, shape: &str, offsets: &str| format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#);
        let twice = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        // Eight tensors of 2^61 - 1 bytes: their end plus the header is beyond 64 bits.
        let piece = (1u64 << 61) - 1;
        let huge: Vec<String> = (0..8)
            .map(|i| {
                let (start, end) = (i * piece, (i + 1) * piece);
                format!(r#""{i}":{{"dtype":"U8","shape":[{piece}],"data_offsets":[{start},{end}]}}"#)
            })
            .collect();
        for (header, data, words) in [
            (a("F32", "[2]", "[0,8]"), 4, "cut short"),
            (a("F32", "[2]", "[0,8]"), 12, "4 bytes follow"),
            (a("F32", "[2]", "[0,4]"), 4, "the header is wrong"),
            (a("F32", "[1]", "[4,8]"), 8, "offset for tensor `a`"),
            (a("F32", "[1]", "[4,0]"), 4, "the header is wrong"),
            (a("F32", "[-1]", "[0,4]"), 4, "the header is wrong"),
            (a("F32", "[4294967296,4294967296]", "[0,0]"), 0, "the header is wrong"),
            (a("F32", "[99999999999]", "[0,399999999996]"), 4, "cut short"),
            (a("F99", "[1]", "[0,4]"), 4, "unknown variant `F99`"),
            (a("I64", "[1]", "[0,8]"), 8, "'a' has type I64"),
            (twice.to_string(), 4, "offset for tensor"),
            (format!("{{{}}}", huge.join(",")), 0, "cut short"),
            ("{".to_string(), 0, "the header is wrong"),
            ("[]".to_string(), 0, "no JSON header"),
            (String::new(), 0, "no JSON header"),
        ] {
            let message = message(&file(&header, &vec![0; data]));
            assert!(message.contains(words), "{header}: {message}");
        }
    }

    #[test]
    fn other_files_are_refused() {
        assert!(message(b"").contains("it is empty"));
        assert!(message(b"abc").contains("it has 3 bytes"));
        assert!(message(b"<!DOCTYPE html><title>404</title>").contains("not a safetensors file"));
        assert!(message(b"PK\x03\x04\x00\x00\x08\x08 archive/data.pkl").contains("torch.save"));
    }

    #[test]
    fn names_cannot_break_the_line() {
        let header = r#"{"a\n\u001b[2J":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}"#;
        assert!(message(&file(header, &[0; 4])).contains(r"'a\n\u{1b}[2J'"));
    }

    #[test]
    fn non_finite_values_name_their_tensor() {
        let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        for (bits, words) in [(0x7fc0_0001u32, "NaN"), (0xff80_0000, "-inf")] {
            let mut data = vec![0; 4];
            data.extend(bits.to_le_bytes());
            let message = message(&file(header, &data));
            assert!(message.contains(&format!("'a' holds {words} at element 1")), "{message}");
        }
    }

    #[test]
    fn paths_that_are_no_weight_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = load(&folder.path().join("absent.safetensors")).unwrap_err();
        assert!(missing.to_string().ends_with("no such file; check the path"), "{missing}");
        let error = load(folder.path()).unwrap_err();
        assert!(matches!(error, WeightsError::NotAFile { .. }), "{error}");

        let sparse = folder.path().join("sparse");
        File::create(&sparse).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        let error = load(&sparse).unwrap_err();
        assert!(matches!(error, WeightsError::TooLarge { .. }), "{error}");
    }

    /// Every shortened file and every flipped bit is refused in one line or read whole; whatever
    /// is read, the safetensors crate reads too.
    #[test]
    fn damage_never_panics() {
        let whole = example();
        let header_end = whole.len() - 48;
        for length in 0..whole.len() {
            message(&whole[..length]);
        }
        let (mut refused, mut read) = (0, 0);
        for bit in 0..header_end * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match from_bytes(&bytes, "w.safetensors") {
                Ok(_) => {
                    SafeTensors::deserialize(&bytes).unwrap();
                    read += 1;
                }
                Err(_) => {
                    message(&bytes);
                    refused += 1;
                }
            }
        }
        assert!(refused > read, "{refused} refused, {read} read");
    }
}
