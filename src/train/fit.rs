//! Fitting a run's settings and its data set to each other.

use super::TrainError;
use super::config::{ConfigError, Optimizer, Schedule, TrainConfig};
use super::divergence::{CLIP_NORM, HEAD_BIAS};
use super::trainer::Observer;
use crate::data::class_name::{fault, quoted};
use crate::data::folder::nested_folder;
use crate::data::{self, ChannelStats, DataError, Dataset, batches_per_epoch};
use crate::errors::path_text;
use crate::models::Model;

/// Share of each class that is drawn for testing where a folder of pictures has no test split and nothing else was said.
pub const VAL_SPLIT: f64 = 0.1;
/// Pictures from which mean and standard deviation are taken: few, because they are decoded before the first step.
const MEASURED_PICTURES: usize = 256;
/// Smallest standard deviation that is divided by: pictures of one colour have none.
const LEAST_STD: f64 = 0.01;
/// A run of fewer updates on a folder of pictures starts more carefully than the model's recipe, which was made for large data
/// sets, has it.
const FEW_UPDATES: usize = 5000;
/// Updates that a short run should have before its learning rate has fallen to 0.
const LEAST_UPDATES: usize = 200;
/// Updates that its warm-up should have.
const WARMUP_UPDATES: f64 = 100.0;
/// Most of a run that its warm-up is prolonged to.
const WARMUP_SHARE: f64 = 0.25;

/// What of a configuration follows the pictures of a folder: what no flag has fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follow {
    /// A network for grey pictures gets three channels where the pictures show colour.
    pub channels: bool,
    /// A network that normalises its input does so by the pictures' own mean and standard deviation.
    pub normalisation: bool,
    /// A run of few updates gets more epochs.
    pub epochs: bool,
    /// A run of few updates gets a longer warm-up.
    pub warmup: bool,
    /// A run of few updates clips its gradients.
    pub clipping: bool,
    /// A run of few updates starts the biases of the last layer so that no class is dead.
    pub head: bool,
    /// A run that learns nothing with its learning rate starts again with a smaller one.
    pub rate: bool,
}

impl Follow {
    /// The configuration stays as it is.
    pub const NOTHING: Self = Follow::all(false);
    /// Everything follows the pictures.
    pub const EVERYTHING: Self = Follow::all(true);

    const fn all(follow: bool) -> Self {
        Follow { channels: follow, normalisation: follow, epochs: follow, warmup: follow, clipping: follow, head: follow, rate: follow }
    }
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

/// A batch is no larger than the data set: the rest of its device memory and arithmetic would serve no image.
pub(super) fn fit_batch(config: &mut TrainConfig, images: usize, observer: &mut dyn Observer) {
    let (batch, accum) = (config.batch_size.min(images).max(1), config.grad_accum);
    if batch < config.batch_size {
        observer.note(&format!("a batch of {} is larger than the {images} training images: it becomes {batch}", config.batch_size));
        config.batch_size = batch;
    }
    config.grad_accum = accum.min(images.div_ceil(batch)).max(1);
    if config.grad_accum < accum {
        observer.note(&format!(
            "{accum} batches of {batch} are more than the {images} training images: --grad-accum becomes {}",
            config.grad_accum
        ));
    }
}

/// Epochs, warm-up, clipping and the last biases of a run that has few updates on a folder of pictures. Its first updates,
/// at a rate that momentum multiplies by ten, otherwise throw the network out of the range where its last ReLU lets gradients
/// through.
pub(super) fn fit_few_updates(config: &mut TrainConfig, follow: Follow, images: usize, observer: &mut dyn Observer) {
    let has_momentum = config.optimizer != Optimizer::Sgd || config.momentum > 0.0;
    let per_epoch = batches_per_epoch(images, config.images_per_update()).max(1);
    let updates = |epochs: u32| per_epoch.saturating_mul(epochs as usize);
    if !has_momentum || updates(config.epochs) >= FEW_UPDATES {
        return;
    }
    let mut changes = Vec::new();
    let least = LEAST_UPDATES.div_ceil(per_epoch) as u32;
    // A schedule with epochs of its own would end elsewhere.
    if follow.epochs && config.schedule == Schedule::Cosine && config.epochs < least {
        config.epochs = least;
        changes.push(format!("--epochs {least}"));
    }
    let all = updates(config.epochs) as f64;
    let warmup = WARMUP_UPDATES.min((all * WARMUP_SHARE).floor()) / per_epoch as f64;
    let warmup = (warmup * 100.0).ceil() / 100.0;
    if follow.warmup && config.warmup_epochs < warmup && warmup <= f64::from(config.epochs) {
        config.warmup_epochs = warmup;
        changes.push(format!("--warmup-epochs {warmup}"));
    }
    if follow.clipping && config.clip_norm.is_none() {
        config.clip_norm = Some(CLIP_NORM);
        changes.push(format!("--clip-norm {CLIP_NORM}"));
    }
    if follow.head && config.head_bias.is_none() {
        config.head_bias = Some(HEAD_BIAS);
        changes.push(format!("--head-bias {HEAD_BIAS}"));
    }
    if !changes.is_empty() {
        observer.note(&format!("{images} training pictures make few updates: the run gets {}", changes.join(" ")));
    }
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
    use crate::train::metrics::EpochLine;
    use crate::train::progress::Progress;
    use crate::train::schedule::learning_rate;
    use crate::train::trainer::{RunInfo, StepReport};

    #[derive(Default)]
    struct Notes(Vec<String>);

    impl Observer for Notes {
        fn started(&mut self, _: &RunInfo) {}
        fn step(&mut self, _: &StepReport) {}
        fn epoch(&mut self, _: &EpochLine, _: bool) {}
        fn note(&mut self, text: &str) {
            self.0.push(text.into());
        }
    }

    fn fitted(model: &str, follow: Follow, images: usize) -> (TrainConfig, Vec<String>) {
        let (mut config, mut notes) = (TrainConfig::defaults(model).unwrap(), Notes::default());
        fit_few_updates(&mut config, follow, images, &mut notes);
        config.validate().unwrap();
        (config, notes.0)
    }

    #[test]
    fn few_pictures_make_a_longer_and_more_careful_run() {
        // 6 updates an epoch.
        let (config, notes) = fitted("nin-small", Follow::EVERYTHING, 162);
        assert_eq!((config.epochs, config.warmup_epochs, config.clip_norm, config.head_bias), (34, 8.5, Some(1.0), Some(5.0)));
        let said = "162 training pictures make few updates: the run gets --epochs 34 --warmup-epochs 8.5 --clip-norm 1";
        assert_eq!(notes, [said]);
        // The rate rises for a quarter of the run, not for three updates.
        let rates: Vec<f64> = (0..51).map(|step| learning_rate(&config, &Progress::default(), step, 6)).collect();
        assert!(rates.windows(2).all(|pair| pair[0] < pair[1]) && rates[2] < 0.0025 && rates[50] == 0.04, "{rates:?}");
        for images in [1, 2, 30, 54, 162, 900, 1601, 7000] {
            let (config, _) = fitted("nin-small", Follow::EVERYTHING, images);
            let per_epoch = images.div_ceil(config.batch_size);
            let (all, warmup) = (per_epoch * config.epochs as usize, config.warmup_epochs * per_epoch as f64);
            assert!(all >= LEAST_UPDATES && warmup >= WARMUP_UPDATES.min((all as f64 * WARMUP_SHARE).floor()), "{images}: {config:?}");
        }
    }

    #[test]
    fn what_was_given_and_what_is_large_stays() {
        let own = |model: &str| TrainConfig::defaults(model).unwrap();
        assert_eq!(fitted("nin-small", Follow::NOTHING, 162), (own("nin-small"), vec![]));
        // Plain SGD is d2l's recipe to the letter.
        assert_eq!(fitted("nin", Follow::EVERYTHING, 162), (own("nin"), vec![]));
        assert_eq!(fitted("nin-small", Follow::EVERYTHING, 60_000), (own("nin-small"), vec![]));
        let (config, _) = fitted("nin-small", Follow { epochs: false, clipping: false, ..Follow::EVERYTHING }, 162);
        assert_eq!((config.epochs, config.warmup_epochs, config.clip_norm), (20, 5.0, None));
        // Steps come at epochs of the recipe; its last layer may start dead.
        let (config, notes) = fitted("nin-cifar", Follow::EVERYTHING, 162);
        assert_eq!((config.epochs, config.warmup_epochs, config.head_bias), (100, 25.0, Some(5.0)));
        assert_eq!(notes.len(), 1);
    }

    #[test]
    fn a_batch_is_no_larger_than_the_data() {
        let fitted = |batch_size, grad_accum, images| {
            let (mut config, mut notes) = (TrainConfig::defaults("nin-small").unwrap(), Notes::default());
            (config.batch_size, config.grad_accum) = (batch_size, grad_accum);
            fit_batch(&mut config, images, &mut notes);
            (config.batch_size, config.grad_accum, notes.0.len())
        };
        assert_eq!(fitted(1000, 1, 162), (162, 1, 1));
        assert_eq!(fitted(32, 1, 162), (32, 1, 0));
        assert_eq!(fitted(162, 1, 162), (162, 1, 0));
        assert_eq!(fitted(100, 8, 162), (100, 2, 1));
        assert_eq!(fitted(1000, 8, 162), (162, 1, 2));
    }

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
