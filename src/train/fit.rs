//! Fitting a run's settings and its data set to each other.

use super::TrainError;
use super::config::{ConfigError, TrainConfig};
use super::trainer::Observer;
use crate::data::class_name::{fault, quoted};
use crate::data::folder::nested_folder;
use crate::data::{self, ChannelStats, DataError, Dataset};
use crate::files::path_text;
use crate::models::Model;

/// Share of each class that is drawn for testing where a folder of pictures has no test split and nothing else was said.
pub const VAL_SPLIT: f64 = 0.1;
/// Pictures from which mean and standard deviation are taken: few, because they are decoded before the first step.
const MEASURED_PICTURES: usize = 256;
/// Smallest standard deviation that is divided by: pictures of one colour have none.
const LEAST_STD: f64 = 0.01;

/// What of a configuration follows the pictures of a folder: what no flag has fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follow {
    /// A network for grey pictures gets three channels where the pictures show colour.
    pub channels: bool,
    /// A network that normalises its input does so by the pictures' own mean and standard deviation.
    pub normalisation: bool,
}

impl Follow {
    /// The configuration stays as it is.
    pub const NOTHING: Self = Follow { channels: false, normalisation: false };
}

/// Opens the data set of a run.
pub(super) fn open_data(config: &TrainConfig, follow: Follow) -> Result<Dataset, TrainError> {
    let side = config.image_size;
    let options = data::OpenOptions {
        data_dir: config.data_dir.clone(),
        target: Some((side, side, config.in_channels)),
        limit_train: config.limit_train,
        limit_test: config.limit_test,
        val_split: Some(config.val_split.unwrap_or(VAL_SPLIT)),
        seed: config.seed,
        max_bad: config.max_bad,
        follow_colour: follow.channels,
        appearance: None,
    };
    let dataset = require_images(data::open(&config.data, &options)?)?;
    if config.val_split.is_some_and(|share| share > 0.0) && dataset.val_split.is_none() {
        let reason = format!("is for folders of pictures without val/ or test/, but {} has a test split of its own", dataset.name);
        return Err(ConfigError { flag: "--val-split", reason }.into());
    }
    Ok(dataset)
}

/// Refuses a data set without training images.
pub(super) fn require_images(dataset: Dataset) -> Result<Dataset, ConfigError> {
    if dataset.train.is_empty() {
        let reason = format!("{} holds no training images", dataset.path.display());
        return Err(ConfigError { flag: "--data", reason });
    }
    Ok(dataset)
}

/// A model left at its default number of classes takes that of the data; fewer than the data has is an error.
pub(super) fn fit_classes(
    config: &mut TrainConfig,
    model: &Model,
    dataset: &Dataset,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let found = dataset.classes.len();
    if let Some((name, fault)) = dataset.classes.iter().find_map(|name| Some((name, fault(name)?))) {
        let problem = format!("the name of a class {fault} ({}); call it otherwise", quoted(name));
        return Err(DataError::malformed(&dataset.path, problem).into());
    }
    if let [only] = &dataset.classes[..] {
        let advice = match nested_folder(dataset) {
            Some(path) => format!("it holds folders itself: if those are the classes, pass --data {}", path_text(&path)),
            None => "a network needs two or more to choose from".into(),
        };
        return Err(DataError::malformed(&dataset.path, format!("has one class only, {}; {advice}", quoted(only))).into());
    }
    if config.classes != found && config.classes == model.defaults.classes {
        observer.note(&format!("{} has {found} classes; the model gets as many", dataset.name));
        config.classes = found;
    }
    if config.classes < found {
        let reason = format!("is {}, but {} has {found} classes", config.classes, dataset.name);
        return Err(ConfigError { flag: "--classes", reason }.into());
    }
    Ok(())
}

/// Channels and normalisation of a model for the pictures of a folder.
pub(super) fn fit_pictures(
    config: &mut TrainConfig,
    follow: Follow,
    dataset: &Dataset,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    if dataset.unreadable.is_none() {
        return Ok(());
    }
    let [channels, ..] = dataset.shape();
    if follow.channels && channels != config.in_channels {
        observer.note(&format!("the pictures show colour; the model gets {channels} channels (--in-channels 1 for grey)"));
        config.set_in_channels(channels);
    }
    let is_normalised = config.mean.iter().any(|mean| *mean != 0.0) || config.std.iter().any(|std| *std != 1.0);
    if follow.normalisation && is_normalised {
        let ChannelStats { mean, std } = data::channel_stats(dataset.train.as_ref(), MEASURED_PICTURES)?;
        let rounded = |value: &f32| (f64::from(*value) * 1e4).round() / 1e4;
        config.mean = mean.iter().map(rounded).collect();
        config.std = std.iter().map(|value| rounded(value).max(LEAST_STD)).collect();
        let list = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
        observer.note(&format!("pixels are normalised by the pictures' own --mean {} --std {}", list(&config.mean), list(&config.std)));
    }
    Ok(())
}

pub(super) fn check_channels(config: &TrainConfig, dataset: &Dataset) -> Result<(), TrainError> {
    let [channels, height, width] = dataset.shape();
    if channels == config.in_channels {
        return Ok(());
    }
    let reason = format!(
        "is {expected}, but images of {name} are {channels}x{height}x{width}: layer 0.0 (conv2d) expects {expected}x{side}x{side}; \
         pass --in-channels {channels}",
        expected = config.in_channels,
        name = dataset.name,
        side = config.image_size
    );
    Err(ConfigError { flag: "--in-channels", reason }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::InMemory;

    #[test]
    fn classes_that_cannot_be_learned_are_refused() {
        let refusal = |names: &[&str]| {
            let images = || InMemory::empty([1, 28, 28], names.len());
            let classes = names.iter().map(|name| name.to_string()).collect();
            let dataset = Dataset::of("own", classes, images(), images()).unwrap();
            let mut config = TrainConfig::defaults("nin-small").unwrap();
            let model = Model::find("nin-small").unwrap();
            fit_classes(&mut config, model, &dataset, &mut ()).map(|()| config.classes).map_err(|error| error.to_string())
        };
        assert_eq!(refusal(&["ant", "bee"]), Ok(2));
        let one = refusal(&["ant"]).unwrap_err();
        assert!(one.contains("one class only, \"ant\"") && one.contains("two or more"), "{one}");
        let unprintable = refusal(&["ant", "be\te"]).unwrap_err();
        assert!(unprintable.contains("cannot be printed (\"be\\te\")"), "{unprintable}");
    }
}
