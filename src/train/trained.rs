//! A trained model as its weight file describes it.

use super::format;
use crate::data::{DataError, Dataset, Split};
use crate::graph::GraphError;
use crate::models::{MODELS, Model, ModelOptions};
use crate::weights::{Metadata, Preprocess, WeightFile, WeightsError, Whitening};
use std::path::Path;

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

    /// Refuses a split without images, or whose images or classes are more than the model takes.
    pub fn check_fit(&self, dataset: &Dataset, split: Split) -> Result<(), DataError> {
        let source = dataset.split(split);
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
        if source.classes() > self.options.classes {
            let (found, known) = (source.classes(), self.options.classes);
            return refused(format!("the data set has {found} classes, but {} knows {known}", self.file.source));
        }
        Ok(())
    }
}
