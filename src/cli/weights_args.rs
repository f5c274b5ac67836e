//! `--weights` and what has to be said about weights that do not say it themselves.

use super::context::Context;
use super::error::Failure;
use super::format;
use super::model_args::{AdaptArgs, model};
use crate::data::framing::Polarity;
use crate::models::{Model, ModelOptions};
use crate::train::config::TrainConfig;
use crate::train::trained::{TrainedModel, ends, numbered};
use crate::weights::{Parts, Preprocess, WeightFile, embedded, load};
use std::path::PathBuf;

/// Which weights to use.
#[derive(clap::Args)]
pub struct WeightsArgs {
    /// Weights as .safetensors [default: nin-small for clothes, inside the program]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// For files that do not say it: the model
    #[arg(long, value_name = "NAME", value_parser = model())]
    model: Option<&'static Model>,
    #[command(flatten)]
    adapt: AdaptArgs,
    /// For files that do not say it: mean per channel, for pixels in [0, 1]
    #[arg(long, value_name = "A[,B,C]", value_delimiter = ',', allow_hyphen_values = true)]
    mean: Option<Vec<f32>>,
    /// For files that do not say it: standard deviation per channel, for pixels in [0, 1]
    #[arg(long, value_name = "A[,B,C]", value_delimiter = ',', allow_hyphen_values = true)]
    std: Option<Vec<f32>>,
}

impl WeightsArgs {
    /// Reads the weights. A file that says what it is needs no flags and takes none that contradict it; of another
    /// file the rest is assumed and noted on stderr.
    pub fn load(&self, context: &Context) -> Result<TrainedModel, Failure> {
        let file = match &self.weights {
            Some(path) => load(path)?,
            None => embedded::weights()?,
        };
        file.notes.iter().for_each(|text| context.note(&format!("note: {text}")));
        let ready = self.ready(file)?;
        if let Some(text) = assumption(&ready) {
            context.note(&text);
        }
        Ok(ready)
    }

    /// What the file says, and of the rest what flags and the tensors' shapes say, or else the model's own.
    fn ready(&self, file: WeightFile) -> Result<TrainedModel, Failure> {
        let Parts { model, classes, preprocess, recipe } = file.parts.clone();
        let source = &file.source;
        let model = match (model, self.model) {
            (Some(name), flag) => {
                let model = TrainedModel::model_named(&file, &name)?;
                if let Some(other) = flag.filter(|other| other.name != model.name) {
                    return Err(Failure::BadData(format!("{source}: weights of {}, not of --model {}", model.name, other.name)));
                }
                model
            }
            (None, Some(model)) => model,
            (None, None) => {
                return Err(Failure::Usage(format!("{source} does not say which model it is for; name it with --model")));
            }
        };
        let (has_classes, has_preprocess) = (classes.is_some(), preprocess.is_some());
        let flags = [
            ("--classes", self.adapt.classes.is_some() && has_classes),
            ("--in-channels", self.adapt.in_channels.is_some() && has_preprocess),
            ("--image-size", self.adapt.image_size.is_some() && has_preprocess),
            ("--mean", self.mean.is_some() && has_preprocess),
            ("--std", self.std.is_some() && has_preprocess),
        ];
        if let Some((flag, _)) = flags.iter().find(|(_, is_said)| *is_said) {
            return Err(Failure::Usage(format!("{flag} is for weights that do not say it themselves, but {source} does; leave it out")));
        }
        let (in_channels, in_file) = ends(model, &file)?;
        let base = &model.defaults;
        let classes = classes.unwrap_or_else(|| numbered(self.adapt.classes.or(in_file).unwrap_or(base.classes)));
        let preprocess = match preprocess {
            Some(preprocess) => preprocess,
            None => self.preprocess(model, in_channels)?,
        };
        let options = ModelOptions { classes: classes.len(), in_channels: preprocess.channels, image_size: preprocess.size, dropout: 0.0 };
        let whitening = TrainedModel::whitening_for(&preprocess, self.weights.as_deref())?;
        Ok(TrainedModel { file, model, options, preprocess, whitening, classes, recipe })
    }

    /// How pictures are prepared for weights that do not say it: as the flags, or else as the model has it.
    fn preprocess(&self, model: &Model, in_file: Option<usize>) -> Result<Preprocess, Failure> {
        let base = &model.defaults;
        let mut config = TrainConfig::defaults(model.name)?;
        config.set_in_channels(self.adapt.in_channels.or(in_file).unwrap_or(base.in_channels));
        let given = |flag: &Option<Vec<f32>>| flag.as_ref().map(|values| values.iter().map(|v| f64::from(*v)).collect());
        config.mean = given(&self.mean).unwrap_or(config.mean);
        config.std = given(&self.std).unwrap_or(config.std);
        config.validate()?;
        let single = |values: &[f64]| values.iter().map(|v| *v as f32).collect();
        Ok(Preprocess {
            size: self.adapt.image_size.map_or(base.image_size, |side| [side; 2]),
            channels: config.in_channels,
            mean: single(&config.mean),
            std: single(&config.std),
            polarity: Polarity::Any,
            fill: None,
            whitening: None,
        })
    }
}

/// What was assumed of weights that do not say all of it.
fn assumption(ready: &TrainedModel) -> Option<String> {
    let Parts { model, classes, preprocess, .. } = &ready.file.parts;
    let list = |values: &[f32]| values.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
    let (mut missing, mut assumed) = (Vec::new(), Vec::new());
    if model.is_none() {
        missing.push("its model");
        assumed.push(ready.model.name.to_string());
    }
    if let (None, Preprocess { size: [height, width], channels, mean, std, .. }) = (preprocess, &ready.preprocess) {
        missing.push("how pictures are prepared");
        let shape = format::shape(&[*channels, *height, *width]);
        assumed.push(format!("pictures of {shape}, mean {}, std {}", list(mean), list(std)));
    }
    if classes.is_none() {
        missing.push("its classes");
        assumed.push(format!("{} classes called by their numbers", ready.classes.len()));
    }
    let missing = match missing[..] {
        [] => return None,
        [_, _, _] => "has no metadata".into(),
        _ => format!("does not say {}", missing.join(" or ")),
    };
    Some(format!("note: {} {missing}; assumed {}", ready.file.source, assumed.join(", ")))
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
        WeightFile { source: "x.safetensors".into(), tensors, metadata: None, parts: Parts::default(), notes: Vec::new() }
    }

    fn parts(model: &str) -> Parts {
        let (mean, std) = (vec![0.5], vec![0.25]);
        let preprocess =
            Preprocess { size: [28, 30], channels: 3, mean, std, polarity: Polarity::LightOnDark, fill: None, whitening: None };
        let classes = Some(vec!["cat".into(), "dog".into()]);
        Parts { model: Some(model.into()), classes, preprocess: Some(preprocess), recipe: None }
    }

    fn file_with(parts: Parts) -> WeightFile {
        WeightFile { parts, ..file("nin-small", 3, 2) }
    }

    #[test]
    fn files_without_metadata_need_a_model_and_adapt_it() {
        let failure = args(None).ready(file("nin-small", 1, 10)).err().unwrap();
        assert_eq!(failure.code(), 2, "{failure}");
        let ready = args(Some("nin-cifar")).ready(file("nin-cifar", 1, 100)).unwrap();
        assert_eq!((ready.options.in_channels, ready.options.classes), (1, 100));
        assert_eq!(ready.classes[99], "99");
        let expected = "note: x.safetensors has no metadata; \
             assumed nin-cifar, pictures of 1x32x32, mean 0, std 1, 100 classes called by their numbers";
        assert_eq!(assumption(&ready).unwrap(), expected);
    }

    #[test]
    fn metadata_says_it_all() {
        let ready = args(None).ready(file_with(parts("nin-small"))).unwrap();
        let expected = ModelOptions { classes: 2, in_channels: 3, image_size: [28, 30], dropout: 0.0 };
        assert_eq!((assumption(&ready), ready.options, ready.classes.join(" ")), (None, expected, "cat dog".into()));
    }

    #[test]
    fn each_part_of_the_metadata_counts_by_itself() {
        let unnamed = args(None).ready(file_with(Parts { classes: None, ..parts("nin-small") })).unwrap();
        assert_eq!(
            (unnamed.preprocess.mean.clone(), unnamed.preprocess.size, unnamed.classes.join(" ")),
            (vec![0.5], [28, 30], "0 1".into())
        );
        let expected = "note: x.safetensors does not say its classes; assumed 2 classes called by their numbers";
        assert_eq!(assumption(&unnamed).unwrap(), expected);
        let bare = args(None).ready(file_with(Parts { preprocess: None, ..parts("nin-small") })).unwrap();
        assert_eq!((bare.preprocess.size, bare.options.in_channels, bare.classes.join(" ")), ([28, 28], 3, "cat dog".into()));
        assert!(assumption(&bare).unwrap().contains("does not say how pictures are prepared; assumed pictures of 3x28x28, mean"));
        let of_no_model = || file_with(Parts { model: None, ..parts("nin-small") });
        assert_eq!(args(None).ready(of_no_model()).err().unwrap().code(), 2);
        assert_eq!(args(Some("nin-small")).ready(of_no_model()).unwrap().classes.join(" "), "cat dog");
        // A flag for what is not said, and one for what is.
        let flag = WeightsArgs { mean: Some(vec![0.0]), ..args(None) };
        assert_eq!(flag.ready(file_with(Parts { preprocess: None, ..parts("nin-small") })).unwrap().preprocess.mean, [0.0]);
        assert_eq!(flag.ready(file_with(Parts { classes: None, ..parts("nin-small") })).err().unwrap().code(), 2);
    }

    #[test]
    fn contradictions_are_refused() {
        let other = args(Some("nin")).ready(file_with(parts("nin-small"))).err().unwrap();
        assert_eq!((other.code(), other.to_string().as_str()), (6, "x.safetensors: weights of nin-small, not of --model nin"));
        assert_eq!(args(None).ready(file_with(parts("vgg"))).err().unwrap().code(), 6);
        let flag = WeightsArgs { mean: Some(vec![0.0]), ..args(None) };
        assert_eq!(flag.ready(file_with(parts("nin-small"))).err().unwrap().code(), 2);
        let wrong = WeightsArgs { std: Some(vec![0.0]), ..args(Some("nin-small")) };
        assert_eq!(wrong.ready(file("nin-small", 3, 2)).err().unwrap().code(), 2);
    }
}
