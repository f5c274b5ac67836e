//! Trained networks.

use crate::data::framing::prepare;
use crate::data::picture::{self, Picture};
use crate::data::{Dataset, Split};
use crate::gpu::Gpu;
use crate::train::TrainError;
use crate::train::config::Precision;
use crate::train::predict::{Evaluation, Predictor, predictions};
use crate::train::trained::TrainedModel;
use crate::weights::{self, Preprocess, WeightFile, WeightsError, embedded};
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
    /// Reads a weight file that this program has written. Fails for files of other programs, which do not say what they are.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, WeightsError> {
        let path = path.as_ref();
        Self::described(weights::load(path)?, Some(path))
    }

    /// The weights inside the program: `nin-small` for the ten kinds of clothes of Fashion-MNIST.
    pub fn embedded() -> Result<Self, WeightsError> {
        Self::described(embedded::weights()?, None)
    }

    fn described(mut file: WeightFile, path: Option<&Path>) -> Result<Self, WeightsError> {
        let Some(metadata) = file.metadata.take() else { return Err(WeightsError::Undescribed { file: file.source }) };
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

    /// Puts the network on a device, to name pictures.
    pub fn classifier<'a>(&'a self, gpu: &'a Gpu) -> Result<Classifier<'a>, TrainError> {
        // As for a program that goes on using it: kernels for long runs.
        let pictures = usize::MAX;
        let predictor = Predictor::new(gpu, &self.trained, BATCH, pictures, Precision::F32)?;
        Ok(Classifier { gpu, model: self, predictor })
    }

    /// Loss, accuracy and confusion on a split of a data set, which is brought to the network's size on the device. Classes are
    /// matched by name where both sides have names; names that the network does not know are refused.
    pub fn evaluate(&self, gpu: &Gpu, dataset: &Dataset, split: Split) -> Result<Evaluation, TrainError> {
        let source = self.trained.fit(dataset, split)?.source;
        let predictions = predictions(gpu, &self.trained, source, BATCH, Precision::F32, &mut |_| {})?;
        Ok(Evaluation::of(&predictions, self.trained.options.classes))
    }
}

/// A network on a device.
pub struct Classifier<'a> {
    gpu: &'a Gpu,
    model: &'a Model,
    predictor: Predictor,
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
    pub fn classify(&mut self, pictures: &[Picture]) -> Result<Vec<Answer>, TrainError> {
        let target = self.model.trained.preprocess.target();
        let images = pictures.iter().map(|picture| prepare(picture, &target)).collect::<Result<Vec<_>, _>>()?;
        Ok(self.predictor.predict(self.gpu, &images)?.into_iter().map(|probabilities| self.answer(probabilities)).collect())
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
        file.metadata = None;
        assert!(matches!(Model::described(file, None), Err(WeightsError::Undescribed { .. })));
        let mut file = embedded::weights().unwrap();
        file.metadata.as_mut().unwrap().model = "vgg".into();
        assert!(matches!(Model::described(file, None), Err(WeightsError::UnknownModel { .. })));
    }
}
