//! `--weights` and what has to be said about weights that do not say it themselves.

use super::context::Context;
use super::error::Failure;
use super::format;
use super::model_args::{AdaptArgs, model};
use crate::data::framing::Polarity;
use crate::models::{Model, ModelOptions};
use crate::train::config::TrainConfig;
use crate::train::trained::TrainedModel;
use crate::weights::{Metadata, Preprocess, WeightFile, embedded, load};
use std::path::PathBuf;

/// Which weights to use.
#[derive(clap::Args)]
pub struct WeightsArgs {
    /// Weights as .safetensors [default: nin-small for clothes, inside the program]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// For files without metadata: the model
    #[arg(long, value_name = "NAME", value_parser = model())]
    model: Option<&'static Model>,
    #[command(flatten)]
    adapt: AdaptArgs,
    /// For files without metadata: mean per channel, for pixels in [0, 1]
    #[arg(long, value_name = "A[,B,C]", value_delimiter = ',', allow_hyphen_values = true)]
    mean: Option<Vec<f32>>,
    /// For files without metadata: standard deviation per channel, for pixels in [0, 1]
    #[arg(long, value_name = "A[,B,C]", value_delimiter = ',', allow_hyphen_values = true)]
    std: Option<Vec<f32>>,
}

impl WeightsArgs {
    /// Reads the weights. A file that says what it is needs no flags and takes none that contradict it; of another
    /// file the rest is assumed and noted on stderr.
    pub fn load(&self, context: &Context) -> Result<TrainedModel, Failure> {
        let mut file = match &self.weights {
            Some(path) => load(path)?,
            None => embedded::weights()?,
        };
        match file.metadata.take() {
            Some(metadata) => self.described(file, metadata),
            None => {
                let ready = self.assumed(file)?;
                context.note(&assumption(&ready));
                Ok(ready)
            }
        }
    }

    fn described(&self, file: WeightFile, metadata: Metadata) -> Result<TrainedModel, Failure> {
        let ready = TrainedModel::described(file, metadata, self.weights.as_deref())?;
        let (source, model) = (&ready.file.source, ready.model);
        if let Some(other) = self.model.filter(|other| other.name != model.name) {
            return Err(Failure::BadData(format!("{source}: weights of {}, not of --model {}", model.name, other.name)));
        }
        let flags = [
            ("--classes", self.adapt.classes.is_some()),
            ("--in-channels", self.adapt.in_channels.is_some()),
            ("--image-size", self.adapt.image_size.is_some()),
            ("--mean", self.mean.is_some()),
            ("--std", self.std.is_some()),
        ];
        if let Some((flag, _)) = flags.iter().find(|(_, is_given)| *is_given) {
            return Err(Failure::Usage(format!("{flag} is for weights without metadata, but {source} says it itself; leave it out")));
        }
        Ok(ready)
    }

    fn assumed(&self, file: WeightFile) -> Result<TrainedModel, Failure> {
        let Some(model) = self.model else {
            return Err(Failure::Usage(format!("{} does not say which model it is for; name it with --model", file.source)));
        };
        let base = &model.defaults;
        let adapted = |flag: Option<usize>, in_file: Option<usize>, default: usize| flag.or(in_file).unwrap_or(default);
        let (in_channels, classes) = ends(model, &file)?;
        let options = ModelOptions {
            classes: adapted(self.adapt.classes, classes, base.classes),
            in_channels: adapted(self.adapt.in_channels, in_channels, base.in_channels),
            image_size: self.adapt.image_size.map_or(base.image_size, |side| [side; 2]),
            dropout: 0.0,
        };
        let mut config = TrainConfig::defaults(model.name)?;
        config.set_in_channels(options.in_channels);
        let given = |flag: &Option<Vec<f32>>| flag.as_ref().map(|values| values.iter().map(|v| f64::from(*v)).collect());
        config.mean = given(&self.mean).unwrap_or(config.mean);
        config.std = given(&self.std).unwrap_or(config.std);
        config.validate()?;
        let single = |values: &[f64]| values.iter().map(|v| *v as f32).collect();
        let preprocess = Preprocess {
            size: options.image_size,
            channels: options.in_channels,
            mean: single(&config.mean),
            std: single(&config.std),
            polarity: Polarity::Any,
            fill: None,
            whitening: None,
        };
        let classes = (0..options.classes).map(|index| index.to_string()).collect();
        Ok(TrainedModel { file, model, options, preprocess, whitening: None, classes, recipe: None })
    }
}

/// Channels that the file's first filter reads, and classes that its last bias has, where it has those tensors.
fn ends(model: &Model, file: &WeightFile) -> Result<(Option<usize>, Option<usize>), Failure> {
    let graph = model.describe(&model.defaults)?;
    let extent = |name: Option<&str>, axis: usize| {
        let tensor = file.tensors.iter().find(|tensor| Some(tensor.name.as_str()) == name)?;
        tensor.shape.get(axis).copied().filter(|extent| *extent > 0)
    };
    let first = graph.parameters.first().map(|parameter| parameter.name.as_str());
    let last = graph.parameters.last().map(|parameter| parameter.name.as_str());
    Ok((extent(first, 1), extent(last, 0)))
}

fn assumption(ready: &TrainedModel) -> String {
    let list = |values: &[f32]| values.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
    let [height, width] = ready.preprocess.size;
    format!(
        "note: {} has no metadata; assumed {} on {}, mean {}, std {}, {} classes called by their numbers",
        ready.file.source,
        ready.model.name,
        format::shape(&[ready.preprocess.channels, height, width]),
        list(&ready.preprocess.mean),
        list(&ready.preprocess.std),
        ready.classes.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::NamedTensor;

    fn args(model: Option<&str>) -> WeightsArgs {
        WeightsArgs { weights: None, model: model.and_then(Model::find), adapt: AdaptArgs::default(), mean: None, std: None }
    }

    /// Weights as `model` has them with `channels` in and `classes` out.
    fn file(model: &str, channels: usize, classes: usize) -> WeightFile {
        let model = Model::find(model).unwrap();
        let options = ModelOptions { classes, in_channels: channels, ..model.defaults.clone() };
        let graph = model.describe(&options).unwrap();
        let tensors = graph
            .parameters
            .iter()
            .map(|parameter| {
                let shape = graph.fact(parameter.value).shape.0.clone();
                NamedTensor { name: parameter.name.clone(), data: vec![0.0; shape.iter().product()], shape }
            })
            .collect();
        WeightFile { source: "x.safetensors".into(), tensors, metadata: None }
    }

    fn metadata(model: &str) -> Metadata {
        let (mean, std) = (vec![0.5], vec![0.25]);
        let preprocess =
            Preprocess { size: [28, 30], channels: 3, mean, std, polarity: Polarity::LightOnDark, fill: None, whitening: None };
        Metadata { model: model.into(), classes: vec!["cat".into(), "dog".into()], preprocess, recipe: None }
    }

    #[test]
    fn files_without_metadata_need_a_model_and_adapt_it() {
        let failure = args(None).assumed(file("nin-small", 1, 10)).err().unwrap();
        assert_eq!(failure.code(), 2, "{failure}");
        let ready = args(Some("nin-cifar")).assumed(file("nin-cifar", 1, 100)).unwrap();
        assert_eq!((ready.options.in_channels, ready.options.classes), (1, 100));
        assert_eq!(ready.classes[99], "99");
        assert!(assumption(&ready).contains("nin-cifar on 1x32x32, mean 0, std 1, 100 classes"), "{}", assumption(&ready));
    }

    #[test]
    fn metadata_says_it_all() {
        let ready = args(None).described(file("nin-small", 3, 2), metadata("nin-small")).unwrap();
        let expected = ModelOptions { classes: 2, in_channels: 3, image_size: [28, 30], dropout: 0.0 };
        assert_eq!((ready.options, ready.classes.join(" ")), (expected, "cat dog".into()));
    }

    #[test]
    fn contradictions_are_refused() {
        let weights = || file("nin-small", 3, 2);
        let other = args(Some("nin")).described(weights(), metadata("nin-small")).err().unwrap();
        assert_eq!((other.code(), other.to_string().as_str()), (6, "x.safetensors: weights of nin-small, not of --model nin"));
        assert_eq!(args(None).described(weights(), metadata("vgg")).err().unwrap().code(), 6);
        let flag = WeightsArgs { mean: Some(vec![0.0]), ..args(None) };
        assert_eq!(flag.described(weights(), metadata("nin-small")).err().unwrap().code(), 2);
        let wrong = WeightsArgs { std: Some(vec![0.0]), ..args(Some("nin-small")) };
        assert_eq!(wrong.assumed(weights()).err().unwrap().code(), 2);
    }
}
