//! A trained model as its weight file describes it.

use super::format;
use crate::data::{DataError, Dataset, Split};
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

impl TrainedModel {
    /// Weights with the metadata that came with them, from the file at `path`: the whitening that they need lies beside it. Fails
    /// for a model that this program does not have, and without that whitening.
    pub fn described(file: WeightFile, metadata: Metadata, path: Option<&Path>) -> Result<Self, WeightsError> {
        let Metadata { model: name, classes, preprocess, recipe } = metadata;
        let Some(model) = Model::find(&name) else {
            let known: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
            return Err(WeightsError::UnknownModel { file: file.source, model: name, known: known.join(", ") });
        };
        let options = ModelOptions { classes: classes.len(), in_channels: preprocess.channels, image_size: preprocess.size, dropout: 0.0 };
        let whitening = match (&preprocess.whitening, path) {
            (None, _) => None,
            (Some(note), Some(path)) => Some(Whitening::beside(path, note, preprocess.shape())?),
            (Some(note), None) => return Err(WeightsError::no_whitening(&note.file)),
        };
        Ok(TrainedModel { file, model, options, preprocess, whitening, classes, recipe })
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
