//! Trained networks.

use crate::data::framing::prepare;
use crate::data::picture::{self, Picture};
use crate::data::{Dataset, Split};
use crate::gpu::Gpu;
use crate::train::TrainError;
use crate::train::config::Precision;
use crate::train::predict::{Evaluation, Predictor, check, predictions};
use crate::train::trained::{TrainedModel, ends, numbered};
use crate::weights::{self, Metadata, Parts, Preprocess, WeightFile, WeightsError, embedded};
use std::path::Path;

/// Most pictures of one run over the device.
const BATCH: usize = 32;

/// A trained network: weights with their classes and their way of preparing pictures. It may be used on any device.
pub struct Model {
    trained: TrainedModel,
}

/// What a picture shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Number of the most probable class.
    pub index: usize,
    /// Its name.
    pub class: String,
    /// Its probability.
    pub probability: f32,
    /// The probability of every class.
    pub probabilities: Vec<f32>,
}

impl Model {
    /// Reads a weight file that says which model it is for and how pictures are prepared, as this program writes it. Classes
    /// without names are called by their numbers.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, WeightsError> {
        let path = path.as_ref();
        Self::described(weights::load(path)?, Some(path))
    }

    /// The weights inside the program: `nin-small` for the ten kinds of clothes of Fashion-MNIST.
    pub fn embedded() -> Result<Self, WeightsError> {
        Self::described(embedded::weights()?, None)
    }

    fn described(mut file: WeightFile, path: Option<&Path>) -> Result<Self, WeightsError> {
        let metadata = match file.metadata.take() {
            Some(metadata) => metadata,
            None => completed(&file)?,
        };
        Ok(Model { trained: TrainedModel::described(file, metadata, path)? })
    }

    /// Name of the architecture, such as `nin-small`.
    pub fn name(&self) -> &'static str {
        self.trained.model.name
    }

    /// Names of the classes, by number.
    pub fn classes(&self) -> &[String] {
        &self.trained.classes
    }

    /// How pictures become the network's input.
    pub fn preprocess(&self) -> &Preprocess {
        &self.trained.preprocess
    }

    /// Puts the network on a device, to name pictures. What it is compiled for, one picture or many, follows from the first
    /// that are asked for.
    pub fn classifier<'a>(&'a self, gpu: &'a Gpu) -> Result<Classifier<'a>, TrainError> {
        check(&self.trained)?;
        Ok(Classifier { gpu, model: self, single: None, many: None })
    }

    /// Loss, accuracy and confusion on a split of a data set, which is brought to the network's size on the device. Classes are
    /// matched by name where both sides have names; names that the network does not know are refused.
    pub fn evaluate(&self, gpu: &Gpu, dataset: &Dataset, split: Split) -> Result<Evaluation, TrainError> {
        let source = self.trained.fit(dataset, split)?.source;
        let predictions = predictions(gpu, &self.trained, source, BATCH, Precision::F32, &mut |_| {})?;
        Ok(Evaluation::of(&predictions, self.trained.options.classes))
    }
}

/// The metadata of a file that leaves out the names of its classes: they are called by their numbers.
fn completed(file: &WeightFile) -> Result<Metadata, WeightsError> {
    let undescribed = || WeightsError::Undescribed { file: file.source.clone() };
    let Parts { model: Some(name), classes: None, preprocess: Some(preprocess), recipe } = file.parts.clone() else {
        return Err(undescribed());
    };
    let model = TrainedModel::model_named(file, &name)?;
    let (_, classes) = ends(model, file).map_err(|_| undescribed())?;
    Ok(Metadata { model: name, classes: numbered(classes.ok_or_else(undescribed)?), preprocess, recipe })
}

/// A network on a device.
pub struct Classifier<'a> {
    gpu: &'a Gpu,
    model: &'a Model,
    /// For one picture at a time.
    single: Option<Predictor>,
    /// For [`BATCH`] at a time.
    many: Option<Predictor>,
}

impl Classifier<'_> {
    /// Names what picture files show, in their order. Fails at the first one that cannot be read.
    pub fn classify_files<P: AsRef<Path>>(&mut self, files: &[P]) -> Result<Vec<Answer>, TrainError> {
        let mut answers = Vec::with_capacity(files.len());
        for files in files.chunks(BATCH) {
            let pictures = files.iter().map(|file| picture::open(file.as_ref())).collect::<Result<Vec<_>, _>>()?;
            answers.extend(self.classify(&pictures)?);
        }
        Ok(answers)
    }

    /// Names what pictures of any size show, in their order: they are framed and scaled as `nin-wgpu infer` does it.
    ///
    /// A picture alone costs a run of one. Among others its probabilities may differ in their last digits: kernels are chosen by
    /// how much there is to do, and with them the order in which sums are added.
    pub fn classify(&mut self, pictures: &[Picture]) -> Result<Vec<Answer>, TrainError> {
        let target = self.model.trained.preprocess.target();
        let images = pictures.iter().map(|picture| prepare(picture, &target)).collect::<Result<Vec<_>, _>>()?;
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let gpu = self.gpu;
        let probabilities = self.predictor(images.len())?.predict(gpu, &images)?;
        Ok(probabilities.into_iter().map(|probabilities| self.answer(probabilities)).collect())
    }

    /// The network compiled for so many pictures.
    fn predictor(&mut self, pictures: usize) -> Result<&mut Predictor, TrainError> {
        let (place, batch) = if pictures == 1 { (&mut self.single, 1) } else { (&mut self.many, BATCH) };
        match place {
            Some(predictor) => Ok(predictor),
            // As for a program that goes on using it: kernels for long runs.
            None => Ok(place.insert(Predictor::new(self.gpu, &self.model.trained, batch, usize::MAX, Precision::F32)?)),
        }
    }

    fn answer(&self, probabilities: Vec<f32>) -> Answer {
        // Of equals the first.
        let best = probabilities.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1));
        let (index, probability) = best.map_or((0, 0.0), |(index, probability)| (index, *probability));
        Answer { index, class: self.model.classes().get(index).cloned().unwrap_or_default(), probability, probabilities }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_does_not_say_what_it_is_is_refused() {
        assert_eq!(Model::embedded().unwrap().classes().len(), 10);
        let mut file = embedded::weights().unwrap();
        (file.metadata, file.parts.classes) = (None, None);
        assert_eq!(Model::described(file.clone(), None).unwrap().classes()[9], "9");
        file.parts.preprocess = None;
        assert!(matches!(Model::described(file, None), Err(WeightsError::Undescribed { .. })));
        let mut file = embedded::weights().unwrap();
        file.metadata.as_mut().unwrap().model = "vgg".into();
        assert!(matches!(Model::described(file, None), Err(WeightsError::UnknownModel { .. })));
    }
}
