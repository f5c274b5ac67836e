//! A trained model as its weight file describes it.

use super::format;
use crate::data::class_name::{folded, listed, normal, quoted};
use crate::data::{DataError, Dataset, Relabelled, Source, Split};
use crate::graph::GraphError;
use crate::models::{MODELS, Model, ModelOptions};
use crate::weights::{Metadata, Preprocess, WeightFile, WeightsError, Whitening};
use std::path::Path;
use std::sync::Arc;

/// Weights and everything needed to use them.
pub struct TrainedModel {
    /// The tensors.
    pub file: WeightFile,
    /// The model they are for.
    pub model: &'static Model,
    /// What the model is adapted to; no dropout.
    pub options: ModelOptions,
    /// How pictures become its input.
    pub preprocess: Preprocess,
    /// What they are whitened with, where the weights ask for that.
    pub whitening: Option<Whitening>,
    /// Name of each class.
    pub classes: Vec<String>,
    /// Where the weights come from, as far as the file says it.
    pub recipe: Option<String>,
}

/// Channels that the file's first filter reads, and classes that its last bias has, where it has those tensors.
pub fn ends(model: &Model, file: &WeightFile) -> Result<(Option<usize>, Option<usize>), GraphError> {
    let graph = model.describe(&model.defaults)?;
    let extent = |name: Option<&str>, axis: usize| {
        let tensor = file.tensors.iter().find(|tensor| Some(tensor.name.as_str()) == name)?;
        tensor.shape.get(axis).copied().filter(|extent| *extent > 0)
    };
    let first = graph.parameters.first().map(|parameter| parameter.name.as_str());
    let last = graph.parameters.last().map(|parameter| parameter.name.as_str());
    Ok((extent(first, 1), extent(last, 0)))
}

/// Names of classes that have none: their numbers.
pub fn numbered(classes: usize) -> Vec<String> {
    (0..classes).map(|index| index.to_string()).collect()
}

impl TrainedModel {
    /// Weights with the metadata that came with them, from the file at `path`: the whitening that they need lies beside it. Fails
    /// for a model that this program does not have, and without that whitening.
    pub fn described(file: WeightFile, metadata: Metadata, path: Option<&Path>) -> Result<Self, WeightsError> {
        let Metadata { model, classes, preprocess, recipe } = metadata;
        let model = Self::model_named(&file, &model)?;
        let options = ModelOptions { classes: classes.len(), in_channels: preprocess.channels, image_size: preprocess.size, dropout: 0.0 };
        let whitening = Self::whitening_for(&preprocess, path)?;
        Ok(TrainedModel { file, model, options, preprocess, whitening, classes, recipe })
    }

    /// The model that a file names.
    pub fn model_named(file: &WeightFile, name: &str) -> Result<&'static Model, WeightsError> {
        Model::find(name).ok_or_else(|| {
            let known: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
            WeightsError::UnknownModel { file: file.source.clone(), model: name.into(), known: known.join(", ") }
        })
    }

    /// The whitening that a preprocessing asks for, from beside the weights at `path`.
    pub fn whitening_for(preprocess: &Preprocess, path: Option<&Path>) -> Result<Option<Whitening>, WeightsError> {
        match (&preprocess.whitening, path) {
            (None, _) => Ok(None),
            (Some(note), Some(path)) => Whitening::beside(path, note, preprocess.shape()).map(Some),
            (Some(note), None) => Err(WeightsError::no_whitening(&note.file)),
        }
    }

    /// A split of a data set as the model knows its classes.
    ///
    /// Classes are matched by name where the model knows all of the data set's names. Where it does not, they are compared by
    /// position if either side only numbers its classes; else the data set is refused. So is a split without images, and one
    /// whose images or classes are more than the model takes.
    pub fn fit(&self, dataset: &Dataset, split: Split) -> Result<FittedSplit, DataError> {
        let source = Arc::clone(dataset.split(split));
        let refused = |problem: String| Err(DataError::malformed(&dataset.path, problem));
        if source.is_empty() {
            return refused(format!("there are no {} images; try the other --split", split.name()));
        }
        let [channels, height, width] = source.shape();
        let wanted = self.preprocess.channels;
        if channels != wanted {
            let [model_height, model_width] = self.preprocess.size;
            return refused(format!(
                "the images are {}, but layer 0.0 of {} takes {}: {wanted} channels, not {channels}",
                format::shape(&[channels, height, width]),
                self.file.source,
                format::shape(&[wanted, model_height, model_width]),
            ));
        }
        let file = &self.file.source;
        let known: Vec<String> = self.classes.iter().map(|name| normal(name)).collect();
        let number = |name: &String| known.iter().position(|known| *known == normal(name)).map(|number| number as u32);
        let numbers: Option<Vec<u32>> = dataset.classes.iter().map(number).collect();
        if let Some(numbers) = numbers {
            let is_same = numbers.iter().enumerate().all(|(index, number)| index == *number as usize);
            let source: Arc<dyn Source> = if is_same { source } else { Arc::new(Relabelled::new(source, numbers, self.options.classes)?) };
            return Ok(FittedSplit { source, classes: self.classes.clone(), note: None });
        }
        if !are_numbers(&dataset.classes) && !are_numbers(&self.classes) {
            let unknown: Vec<&String> = dataset.classes.iter().filter(|name| number(name).is_none()).collect();
            let alike = |name: &&String| self.classes.iter().find(|known| folded(known) == folded(name));
            let alike = unknown.iter().find_map(alike).map_or(String::new(), |known| format!("; it knows {}", quoted(known)));
            return refused(format!(
                "{file} does not know the class{} {}{alike} ({} and {} classes); rename the folders as the weights call the classes, or leave \
                 them out",
                if unknown.len() == 1 { "" } else { "es" },
                listed(&unknown),
                dataset.classes.len(),
                self.classes.len(),
            ));
        }
        let (found, most) = (source.classes().max(dataset.classes.len()), self.options.classes);
        if found > most {
            return refused(format!("the data set has {found} classes, but {file} knows {most}"));
        }
        let mut classes = if are_numbers(&dataset.classes) { self.classes.clone() } else { dataset.classes.clone() };
        classes.extend((classes.len()..most).map(|index| index.to_string()));
        let note = "only the data set or the weights have names for the classes; they are compared by position";
        Ok(FittedSplit { source, classes, note: Some(note) })
    }
}

/// A split whose labels are a model's classes.
pub struct FittedSplit {
    /// The images.
    pub source: Arc<dyn Source>,
    /// Names of the model's classes.
    pub classes: Vec<String>,
    /// What the user should know.
    pub note: Option<&'static str>,
}

impl std::fmt::Debug for FittedSplit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FittedSplit").field("classes", &self.classes).field("note", &self.note).finish_non_exhaustive()
    }
}

/// Whether classes have no names but their numbers.
fn are_numbers(classes: &[String]) -> bool {
    classes.iter().enumerate().all(|(index, name)| *name == index.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::InMemory;
    use crate::weights::embedded;

    /// The embedded weights with other names for the first classes.
    fn trained(names: &[&str]) -> TrainedModel {
        let mut file = embedded::weights().unwrap();
        let metadata = file.metadata.take().unwrap();
        let mut trained = TrainedModel::described(file, metadata, None).unwrap();
        trained.classes = names.iter().map(|name| name.to_string()).chain((names.len()..10).map(|index| index.to_string())).collect();
        trained
    }

    /// One image of each class, the label as its pixels.
    fn dataset(names: &[&str]) -> Dataset {
        let classes: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let pixels = (0..names.len() as u8).flat_map(|label| [label; 784]).collect();
        let images = InMemory::new([1, 28, 28], names.len(), pixels, (0..names.len() as u32).collect()).unwrap();
        Dataset::of("own", classes, InMemory::empty([1, 28, 28], names.len()), images).unwrap()
    }

    fn labels(fitted: &FittedSplit) -> Vec<u32> {
        (0..fitted.source.len()).map(|index| fitted.source.label(index).unwrap()).collect()
    }

    #[test]
    fn classes_are_matched_by_name() {
        let trained = trained(&["apple", "bear", "caf\u{e9}"]);
        let fit = |names: &[&str]| trained.fit(&dataset(names), Split::Test).unwrap();
        let subset = fit(&["apple", "cafe\u{301}"]);
        assert_eq!((labels(&subset), subset.source.classes(), subset.note), (vec![0, 2], 10, None));
        assert_eq!(subset.classes[..3], ["apple", "bear", "caf\u{e9}"]);
        assert_eq!(labels(&fit(&["bear"])), [1]);
        // Folders named by numbers are names as well where the weights know them.
        assert_eq!(labels(&fit(&["3", "9"])), [3, 9]);
    }

    #[test]
    fn names_that_the_weights_do_not_know_are_refused() {
        let trained = trained(&["apple", "bear", "cat"]);
        let refusal = |names: &[&str]| trained.fit(&dataset(names), Split::Test).unwrap_err().to_string();
        let message = refusal(&["apple", "dog"]);
        assert!(message.contains("does not know the class \"dog\"") && message.contains("leave them out"), "{message}");
        assert!(refusal(&["Bear", "cat"]).contains("\"Bear\"; it knows \"bear\""));
        assert!(trained.fit(&dataset(&["apple"]), Split::Train).unwrap_err().to_string().contains("there are no train images"));
    }

    #[test]
    fn without_names_the_position_counts() {
        let by_position = trained(&["apple", "bear"]).fit(&dataset(&["0", "1", "2"]), Split::Test).unwrap();
        assert_eq!((labels(&by_position), by_position.classes[1].as_str()), (vec![0, 1, 2], "bear"));
        assert!(by_position.note.is_some());
        let numbered = trained(&[]).fit(&dataset(&["ant", "bee"]), Split::Test).unwrap();
        assert_eq!((labels(&numbered), &numbered.classes[1..3]), (vec![0, 1], &["bee".to_string(), "2".into()][..]));
        let eleven: Vec<String> = (0..11).map(|index| format!("n{index}")).collect();
        let eleven: Vec<&str> = eleven.iter().map(String::as_str).collect();
        let message = trained(&[]).fit(&dataset(&eleven), Split::Test).unwrap_err().to_string();
        assert!(message.contains("11 classes") && message.contains("knows 10"), "{message}");
    }
}
