//! Weights in memory, their way to a file, and their comparison with a model.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::error::{WeightsError, tensor_name};
use super::metadata::{Metadata, Parts};
use crate::errors::label;
use crate::files::replace_file;
use crate::half::{f32_to_f16, round_to_f16};
use crate::shape::Element;

/// The header's key that is no tensor.
const METADATA: &str = "__metadata__";

/// A tensor under its name in PyTorch's `state_dict()`.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// For example `0.2.weight`.
    pub name: String,
    /// Row-major extents, outermost first: `[out, in, height, width]` for a convolution's weight.
    pub shape: Vec<usize>,
    /// As many elements as the extents' product.
    pub data: Vec<f32>,
}

/// A weight file in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightFile {
    /// The file's path, or what stands for it in messages.
    pub source: String,
    /// The tensors in the order of the file.
    pub tensors: Vec<NamedTensor>,
    /// What the file says about itself, where it says all of it, as this program does.
    pub metadata: Option<Metadata>,
    /// What it says, part by part.
    pub parts: Parts,
    /// What was changed in reading it, for the user.
    pub notes: Vec<String>,
}

impl WeightFile {
    /// The tensors in the order of `expected` (name and shape), when the file holds exactly those.
    ///
    /// The error shows the first tensor that is missing, superfluous or of another shape, with
    /// both shapes, and counts the others.
    pub fn match_parameters(&self, expected: &[(String, Vec<usize>)]) -> Result<Vec<&NamedTensor>, WeightsError> {
        let mut present: HashMap<&str, &NamedTensor> = self.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let mut matched = Vec::with_capacity(expected.len());
        let mut faults = Vec::new();
        for (name, shape) in expected {
            match present.remove(name.as_str()) {
                Some(tensor) if tensor.shape == *shape => matched.push(tensor),
                Some(tensor) => {
                    faults.push(format!("tensor {} has shape {:?}, the model needs {shape:?}", tensor_name(name), tensor.shape))
                }
                None => faults.push(format!("tensor {} of shape {shape:?} is missing", tensor_name(name))),
            }
        }
        // In the file's order, so that the message does not vary.
        for tensor in self.tensors.iter().filter(|tensor| present.contains_key(tensor.name.as_str())) {
            faults.push(format!("tensor {} of shape {:?} is not in the model", tensor_name(&tensor.name), tensor.shape));
        }
        let mut faults = faults.into_iter();
        match faults.next() {
            None => Ok(matched),
            Some(first) => Err(WeightsError::Mismatch {
                file: self.source.clone(),
                first,
                others: match faults.len() {
                    0 => String::new(),
                    1 => " (and 1 other tensor differs)".into(),
                    count => format!(" (and {count} other tensors differ)"),
                },
            }),
        }
    }
}

/// Writes `tensors` and `metadata` to `path` as safetensors, whole or not at all. The bytes depend
/// on nothing but the arguments. Tensors with NaN or infinity are refused, so that a good file is
/// never replaced by a useless one.
pub fn save(path: &Path, tensors: &[NamedTensor], metadata: Option<&Metadata>) -> Result<(), WeightsError> {
    save_as(path, tensors, metadata, Element::F32)
}

/// [`save`] with numbers of the given type. What half precision cannot hold is refused, too.
pub fn save_as(path: &Path, tensors: &[NamedTensor], metadata: Option<&Metadata>, element: Element) -> Result<(), WeightsError> {
    let file = label(path);
    let named = tensors.iter().map(|tensor| (tensor.name.clone(), tensor));
    let encoder = Encoder::new(&file, named, metadata, element)?;
    replace_file(path, |writer| encoder.write_to(writer)).map_err(|reason| WeightsError::Write { file, reason })
}

/// Tensors that were found fit to be written, with the header that announces them.
pub struct Encoder<'a> {
    header: Vec<u8>,
    tensors: Vec<&'a NamedTensor>,
    element: Element,
}

/// What the header says about one tensor.
#[derive(Serialize)]
struct Entry<'a> {
    dtype: &'static str,
    shape: &'a [usize],
    data_offsets: [usize; 2],
}

impl<'a> Encoder<'a> {
    /// Checks `tensors`, each with the name it gets in the file, to be written as `element`; `file`
    /// stands for the file in messages.
    ///
    /// The header is made here rather than by the `safetensors` crate, which takes the metadata as
    /// a `HashMap` and so orders it anew in every run.
    pub fn new(
        file: &str,
        tensors: impl IntoIterator<Item = (String, &'a NamedTensor)>,
        metadata: Option<&Metadata>,
        element: Element,
    ) -> Result<Self, WeightsError> {
        let mut map = serde_json::Map::new();
        if let Some(metadata) = metadata {
            let entries = metadata.to_entries().map_err(|reason| WeightsError::Metadata { file: file.to_string(), reason })?;
            let entries = entries.into_iter().map(|(key, value)| (key.to_string(), value.into()));
            map.insert(METADATA.into(), entries.collect::<serde_json::Map<_, _>>().into());
        }
        let mut kept = Vec::new();
        let mut names = HashSet::from([METADATA.to_string()]);
        let mut offset = 0;
        for (name, tensor) in tensors {
            let end = offset + tensor.data.len() * element.bytes();
            let entry =
                if names.insert(name.clone()) { entry(tensor, [offset, end], element) } else { Err("its name is already taken".into()) };
            let entry = entry.map_err(|reason| WeightsError::Unwritable { file: file.to_string(), tensor: tensor_name(&name), reason })?;
            map.insert(name, entry);
            kept.push(tensor);
            offset = end;
        }
        let mut header = serde_json::Value::Object(map).to_string().into_bytes();
        // The tensors begin at a multiple of 8 bytes, as the format asks.
        header.resize(header.len().next_multiple_of(8), b' ');
        Ok(Self { header, tensors: kept, element })
    }

    /// Writes the whole file.
    pub fn write_to(&self, writer: &mut dyn Write) -> io::Result<()> {
        writer.write_all(&(self.header.len() as u64).to_le_bytes())?;
        writer.write_all(&self.header)?;
        let mut bytes = Vec::new();
        for tensor in &self.tensors {
            for chunk in tensor.data.chunks(16 * 1024) {
                bytes.clear();
                match self.element {
                    Element::F32 => bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes())),
                    Element::F16 => bytes.extend(chunk.iter().flat_map(|value| f32_to_f16(*value).to_le_bytes())),
                }
                writer.write_all(&bytes)?;
            }
        }
        Ok(())
    }
}

fn entry(tensor: &NamedTensor, data_offsets: [usize; 2], element: Element) -> Result<serde_json::Value, String> {
    let (count, shape) = (tensor.data.len(), &tensor.shape);
    if shape.iter().product::<usize>() != count {
        return Err(format!("{count} elements do not fill shape {shape:?}"));
    }
    if let Some((index, value)) = non_finite(&tensor.data) {
        return Err(format!("it holds {value} at element {index}"));
    }
    let dtype = match element {
        Element::F32 => "F32",
        Element::F16 => "F16",
    };
    if let Some((index, value)) = tensor.data.iter().enumerate().find(|(_, v)| element == Element::F16 && round_to_f16(**v).is_infinite()) {
        return Err(format!("it holds {value} at element {index}, too much for f16: use --save-dtype f32"));
    }
    serde_json::to_value(Entry { dtype, shape, data_offsets }).map_err(|error| error.to_string())
}

/// Index and value of the first NaN or infinity, found by bit pattern.
pub(super) fn non_finite(data: &[f32]) -> Option<(usize, f32)> {
    const EXPONENT: u32 = 0x7f80_0000;
    let index = data.iter().position(|value| value.to_bits() & EXPONENT == EXPONENT)?;
    Some((index, data[index]))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use safetensors::SafeTensors;

    use super::super::load;
    use super::super::metadata::tests::example;
    use super::*;
    use crate::errors::ErrorKind;

    fn tensor(name: &str, shape: &[usize]) -> NamedTensor {
        let count = shape.iter().product::<usize>();
        let data = (0..count).map(|i| i as f32 - 1.5).collect();
        NamedTensor { name: name.into(), shape: shape.to_vec(), data }
    }

    fn example_tensors() -> Vec<NamedTensor> {
        vec![tensor("0.0.weight", &[2, 1, 3, 3]), tensor("0.0.bias", &[2]), tensor("scalar", &[])]
    }

    fn expected(tensors: &[NamedTensor]) -> Vec<(String, Vec<usize>)> {
        tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
    }

    #[test]
    fn half_precision_is_rounded_half_as_large_and_refuses_what_it_cannot_hold() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let mut tensors = example_tensors();
        tensors[1].data = vec![0.1, -65504.0];
        save_as(&path, &tensors, Some(&example()), Element::F16).unwrap();
        let half = load(&path).unwrap();
        assert_eq!(half.tensors[0], tensors[0]);
        assert_eq!(half.tensors[1].data, [0.099975586, -65504.0]);
        let bytes = fs::read(&path).unwrap();
        let view = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(view.tensor("0.0.weight").unwrap().data().len(), 2 * 18);
        tensors[1].data[1] = 65520.0;
        let error = save_as(&path, &tensors, None, Element::F16).unwrap_err();
        assert!(error.to_string().contains("0.0.bias") && error.to_string().contains("--save-dtype f32"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn what_is_saved_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        save(&path, &example_tensors(), Some(&example())).unwrap();
        let file = load(&path).unwrap();
        assert_eq!(file.tensors, example_tensors());
        assert_eq!(file.metadata, Some(example()));
    }

    #[test]
    fn the_bytes_are_fixed_and_readable_by_the_safetensors_crate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let tensors = [tensor("b", &[2]), tensor("a", &[1])];
        save(&path, &tensors, Some(&example())).unwrap();
        let bytes = fs::read(&path).unwrap();
        let header = concat!(
            r#"{"__metadata__":{"model":"nin-small","classes":"[\"T-shirt/top\",\"Hose \\\"weit\\\"\"]","#,
            r#""preprocess":"{\"size\":[28,28],\"channels\":1,\"mean\":[0.286],\"std\":[0.353],\"polarity\":\"light-on-dark\"}","#,
            r#""recipe":"fashion-small"},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"#,
            r#""a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#,
        );
        let length = header.len().next_multiple_of(8);
        assert_eq!(&bytes[..8], (length as u64).to_le_bytes());
        assert_eq!(std::str::from_utf8(&bytes[8..8 + length]).unwrap().trim_end(), header);
        assert_eq!(bytes.len(), 8 + length + 12);

        let read = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.tensor("b").unwrap().shape(), [2]);
        assert_eq!(read.tensor("a").unwrap().data(), (-1.5f32).to_le_bytes());
    }

    #[test]
    fn faulty_tensors_leave_the_old_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        save(&path, &example_tensors(), None).unwrap();
        let before = fs::read(&path).unwrap();

        let mut infinite = tensor("w", &[3]);
        infinite.data[2] = f32::NEG_INFINITY;
        let mut short = tensor("w", &[3]);
        short.data.pop();
        for (tensors, words) in [
            (vec![infinite], "-inf at element 2"),
            (vec![short], "do not fill"),
            (vec![tensor("w", &[1]), tensor("w", &[1])], "already taken"),
        ] {
            let error = save(&path, &tensors, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Failed);
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(fs::read(&path).unwrap(), before);
        }
    }

    #[test]
    fn an_unwritable_folder_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent").join("a.safetensors");
        let error = save(&path, &example_tensors(), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert!(error.to_string().contains("a.safetensors"), "{error}");
    }

    #[test]
    fn matching_gives_the_models_order() {
        let mut order = expected(&example_tensors());
        order.reverse();
        let file =
            WeightFile { source: "f".into(), tensors: example_tensors(), metadata: None, parts: Parts::default(), notes: Vec::new() };
        let names: Vec<&str> = file.match_parameters(&order).unwrap().iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["scalar", "0.0.bias", "0.0.weight"]);
    }

    #[test]
    fn a_mismatch_shows_both_shapes_and_counts_the_rest() {
        let file =
            WeightFile { source: "f".into(), tensors: example_tensors(), metadata: None, parts: Parts::default(), notes: Vec::new() };
        let message = |expected: &[(String, Vec<usize>)]| file.match_parameters(expected).unwrap_err().to_string();

        let mut wanted = expected(&example_tensors());
        wanted[0].1 = vec![5, 1, 3, 3];
        wanted[1].1 = vec![5];
        assert_eq!(
            message(&wanted),
            "f: tensor '0.0.weight' has shape [2, 1, 3, 3], the model needs [5, 1, 3, 3] \
             (and 1 other tensor differs); these are weights of another model or class count: \
             pass the right --model, or --classes N"
        );
        wanted = expected(&example_tensors());
        wanted.push(("9.weight".into(), vec![1]));
        assert!(message(&wanted).starts_with("f: tensor '9.weight' of shape [1] is missing;"));
        wanted.truncate(1);
        assert!(message(&wanted).starts_with("f: tensor '0.0.bias' of shape [2] is not in the model (and 1 other tensor differs)"));
    }
}
