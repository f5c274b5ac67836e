//! The resolved configuration of a training run: what `config.toml` holds.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::interval::CheckpointInterval;
use crate::digest::hex;
use crate::errors::ErrorKind;
use crate::kernels::Choices;
use crate::weights::{MAX_CHANNELS, MAX_SIDE, MOST_WHITENED_VALUES};

mod choices;

pub use choices::{Init, Optimizer, Precision, SaveDtype, Schedule, Whiten};

/// Multipliers of learning rate and weight decay for a layer, or for every layer of a block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerRates {
    /// PyTorch path (`6.4`, or `6` for the block).
    #[serde(rename = "match")]
    pub path: String,
    /// Of the learning rate.
    #[serde(default = "one")]
    pub lr: f64,
    /// Of the weight decay.
    #[serde(default = "one")]
    pub decay: f64,
    /// Of the learning rate for biases; without it `lr` times the run's `bias_lr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias_lr: Option<f64>,
    /// Of the weight decay for biases; without it `decay` times the run's `bias_decay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias_decay: Option<f64>,
}

/// Random changes to training pictures, drawn anew for each picture and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Mirror left and right with probability one half.
    pub flip: bool,
    /// Move by up to this many pixels in each direction; what enters is black.
    pub shift: u32,
    /// Leave out a square of this many pixels a side, with its centre anywhere in the picture: it becomes the mean.
    #[serde(default)]
    pub cutout: u32,
    /// Add up to this much to pixels in [0, 1], or take it away.
    #[serde(default)]
    pub brightness: f64,
    /// Stretch or shrink the distance to the middle grey by up to this share.
    #[serde(default)]
    pub contrast: f64,
}

impl Augment {
    /// Pictures as they are.
    pub const NONE: Self = Self { flip: false, shift: 0, cutout: 0, brightness: 0.0, contrast: 0.0 };
}

/// Everything that determines a training run, apart from the device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Name of the model: one of [`super::defaults::MODELS`].
    pub model: String,
    /// Number of classes, and so of logits.
    pub classes: usize,
    /// Channels of the network's input: 1 grey, 3 RGB.
    pub in_channels: usize,
    /// Height and width of the network's input in pixels.
    pub image_size: usize,
    /// The data set: a name such as `fashion-mnist`, or a folder.
    pub data: String,
    /// Where named data sets are looked for first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Weights to start from instead of random ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_weights: Option<PathBuf>,
    /// Passes over the training images.
    pub epochs: u32,
    /// Images in a batch.
    pub batch_size: usize,
    /// Batches whose gradients make one update, as if it were one batch of
    /// `batch_size * grad_accum` images.
    pub grad_accum: usize,
    /// The update rule.
    pub optimizer: Optimizer,
    /// Learning rate at its peak.
    pub lr: f64,
    /// Momentum of SGD, in [0, 1).
    pub momentum: f64,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// Added to the gradient as `weight_decay * weight`, for weights and biases alike.
    pub weight_decay: f64,
    /// How the learning rate moves over the run.
    pub schedule: Schedule,
    /// Schedule `step`: epochs between two reductions.
    pub step_epochs: u32,
    /// Schedules `step` and `plateau`: factor of each reduction, in (0, 1].
    pub step_gamma: f64,
    /// Schedule `plateau`: epochs without a lower loss that are put up with.
    #[serde(default = "patience", skip_serializing_if = "is_default_patience")]
    pub patience: u32,
    /// The run ends after so many epochs without a better test accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<u32>,
    /// Epochs over which the learning rate first rises from 0 in a straight line.
    pub warmup_epochs: f64,
    /// Probability of dropping an activation, in [0, 1).
    pub dropout: f64,
    /// Key of all randomness: initial weights, order, augmentation, dropout.
    pub seed: u64,
    /// What the weights start from.
    pub init: Init,
    /// What the biases of the last convolution start from, instead of what `init` gives them. Behind a last ReLU a
    /// class whose logit is negative everywhere gets no gradient; a positive start keeps every class alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_bias: Option<f64>,
    /// The number format.
    pub precision: Precision,
    /// How `last.safetensors` and `best.safetensors` hold the weights.
    #[serde(default = "single", skip_serializing_if = "is_single")]
    pub save_dtype: SaveDtype,
    /// Use only the first so many training images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_train: Option<usize>,
    /// Use only the first so many test images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_test: Option<usize>,
    /// Draw the training images in a new order each epoch.
    pub shuffle: bool,
    /// Mean per channel for pixels in [0, 1]; one value serves all channels.
    pub mean: Vec<f64>,
    /// Standard deviation per channel for pixels in [0, 1]; one value serves all channels.
    pub std: Vec<f64>,
    /// What takes the place of mean and standard deviation.
    #[serde(default, skip_serializing_if = "Whiten::is_none")]
    pub whiten: Whiten,
    /// Updates between two lines of `metrics.jsonl`.
    pub log_every: u32,
    /// When the run saves itself within an epoch.
    #[serde(default)]
    pub checkpoint_every: CheckpointInterval,
    /// The weights of so many epochs, the latest, are kept beside the last and the best.
    #[serde(default)]
    pub keep: u32,
    /// Most bytes of device memory; where a batch takes more it is cut into parts, whose sums round otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_budget: Option<u64>,
    /// Share of each class that is drawn for testing where a folder of pictures has no test split; without it
    /// [`super::fit::VAL_SPLIT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_split: Option<f64>,
    /// Pictures of a folder that may be unreadable; without it one in a hundred, but at least ten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bad: Option<usize>,
    /// Most that the norm of all gradients together may be; larger ones are scaled down to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Share of each image's target that is spread evenly over all classes, in [0, 1).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub label_smoothing: f64,
    /// Decay of an exponential moving average of the weights, in [0, 1), that is tested and saved instead of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// Layers and blocks, by PyTorch path, that stay as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<String>,
    /// Multiplier of the learning rate for biases.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub bias_lr: f64,
    /// Multiplier of the weight decay for biases.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub bias_decay: f64,
    /// Random changes to training pictures.
    pub augment: Augment,
    /// Multipliers for single layers and blocks; of several that hold a layer the last one counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerRates>,
    /// Kernels of convolutions that were chosen by measuring, not by rules: they decide how sums are rounded.
    #[serde(default, skip_serializing_if = "Choices::is_empty")]
    pub kernels: Choices,
}

/// A flag with a value that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag} {reason}")]
pub struct ConfigError {
    /// The flag as typed on the command line.
    pub flag: &'static str,
    /// What is wrong, with the value and what is allowed.
    pub reason: String,
}

impl ConfigError {
    /// Which exit code the error leads to.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Usage
    }
}

impl TrainConfig {
    /// Sets the input's channels. A mean and std of another channel count become their average.
    pub fn set_in_channels(&mut self, channels: usize) {
        self.in_channels = channels;
        for values in [&mut self.mean, &mut self.std] {
            if values.len() > 1 && values.len() != channels {
                *values = vec![values.iter().sum::<f64>() / values.len() as f64];
            }
        }
    }

    /// Turns whitening on, or off again: then the model's own mean and std hold.
    pub fn set_whiten(&mut self, whiten: Whiten) {
        if whiten == self.whiten {
            return;
        }
        self.whiten = whiten;
        let (mean, std) = match (whiten, Self::defaults(&self.model)) {
            (Whiten::None, Ok(defaults)) => (defaults.mean, defaults.std),
            _ => (vec![0.0], vec![1.0]),
        };
        (self.mean, self.std) = (mean, std);
        self.set_in_channels(self.in_channels);
    }

    /// Images in one update.
    pub fn images_per_update(&self) -> usize {
        self.batch_size.saturating_mul(self.grad_accum)
    }

    /// Finds nonsense; the error names the flag, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        Self::defaults(&self.model)?;
        within("--classes", self.classes, 2, 1_000_000)?;
        within("--in-channels", self.in_channels, 1, MAX_CHANNELS)?;
        within("--image-size", self.image_size, 1, MAX_SIDE)?;
        within("--batch-size", self.batch_size, 1, 1 << 20)?;
        within("--grad-accum", self.grad_accum, 1, 1 << 20)?;
        at_least_1("--epochs", self.epochs)?;
        at_least_1("--log-every", self.log_every)?;
        at_least_1("--step-epochs", self.step_epochs)?;
        at_least_1("--limit-train", self.limit_train.unwrap_or(1))?;
        at_least_1("--limit-test", self.limit_test.unwrap_or(1))?;
        // TOML has no larger integers.
        within("--seed", self.seed, 0, i64::MAX as u64)?;

        if let Some(share) = self.val_split {
            expect((0.0..1.0).contains(&share), "--val-split", share, "at least 0 and below 1")?;
        }
        let finite = |value: f64| (value as f32).is_finite();
        let in_unit = |value: f64| (0.0..1.0).contains(&value);
        let epochs = f64::from(self.epochs);
        expect(self.lr as f32 > 0.0 && finite(self.lr), "--lr", self.lr, "above 0 and finite")?;
        let head_bias = self.head_bias.unwrap_or_default();
        expect(finite(head_bias), "--head-bias", head_bias, "finite")?;
        expect(in_unit(self.momentum), "--momentum", self.momentum, "at least 0 and below 1")?;
        expect(in_unit(self.dropout), "--dropout", self.dropout, "at least 0 and below 1")?;
        expect(self.weight_decay >= 0.0 && finite(self.weight_decay), "--weight-decay", self.weight_decay, "at least 0 and finite")?;
        expect(self.step_gamma > 0.0 && self.step_gamma <= 1.0, "--step-gamma", self.step_gamma, "above 0 and at most 1")?;
        expect(
            self.warmup_epochs >= 0.0 && self.warmup_epochs <= epochs,
            "--warmup-epochs",
            self.warmup_epochs,
            &format!("from 0 to --epochs {epochs}"),
        )?;
        if self.nesterov && self.optimizer == Optimizer::Sgd && self.momentum == 0.0 {
            return Err(ConfigError { flag: "--nesterov", reason: "needs a momentum: add --momentum 0.9, or leave it out".into() });
        }
        self.validate_update(finite)?;
        self.validate_input(finite)
    }

    fn validate_update(&self, finite: impl Fn(f64) -> bool) -> Result<(), ConfigError> {
        let in_unit = |value: f64| (0.0..1.0).contains(&value);
        at_least_1("--early-stop", self.early_stop.unwrap_or(1))?;
        if let Some(norm) = self.clip_norm {
            expect(norm as f32 > 0.0 && finite(norm), "--clip-norm", norm, "above 0 and finite")?;
        }
        expect(in_unit(self.label_smoothing), "--label-smoothing", self.label_smoothing, "at least 0 and below 1")?;
        let ema = self.ema.unwrap_or(0.0);
        expect(in_unit(ema), "--ema", ema, "at least 0 and below 1")?;
        let of_layers =
            self.layers.iter().flat_map(|layer| [layer.lr, layer.decay].into_iter().chain(layer.bias_lr).chain(layer.bias_decay));
        for (flag, value) in
            [("bias_lr", self.bias_lr), ("bias_decay", self.bias_decay)].into_iter().chain(of_layers.map(|v| ("layers", v)))
        {
            expect(value >= 0.0 && finite(value), flag, value, "at least 0 and finite")?;
        }
        Ok(())
    }

    fn validate_input(&self, finite: impl Fn(f64) -> bool) -> Result<(), ConfigError> {
        for (flag, values) in [("--mean", &self.mean), ("--std", &self.std)] {
            if values.len() != 1 && values.len() != self.in_channels {
                let (count, channels) = (values.len(), self.in_channels);
                let reason = format!("needs 1 value or one per channel ({channels}), it has {count}");
                return Err(ConfigError { flag, reason });
            }
        }
        for &mean in &self.mean {
            expect(finite(mean), "--mean", mean, "finite")?;
        }
        for &std in &self.std {
            expect(std as f32 > 0.0 && finite(std), "--std", std, "above 0 and finite")?;
        }
        if self.whiten != Whiten::None {
            self.validate_whitening()?;
        }
        let Augment { shift, cutout, brightness, contrast, .. } = self.augment;
        expect((0.0..=1.0).contains(&brightness), "--brightness", brightness, "0 to 1")?;
        expect((0.0..=1.0).contains(&contrast), "--contrast", contrast, "0 to 1")?;
        within("--cutout", cutout as usize, 0, self.image_size)?;
        within("--shift", shift as usize, 0, self.image_size.saturating_sub(1))
    }

    fn validate_whitening(&self) -> Result<(), ConfigError> {
        let refuse = |reason: String| Err(ConfigError { flag: "--whiten", reason });
        let (side, channels) = (self.image_size, self.in_channels);
        let values = channels.saturating_mul(side * side);
        if values > MOST_WHITENED_VALUES {
            return refuse(format!(
                "takes images of at most {MOST_WHITENED_VALUES} values, {channels}x{side}x{side} are {values}; pass a smaller --image-size"
            ));
        }
        if self.mean != [0.0] || self.std != [1.0] {
            return refuse("takes the place of --mean and --std: leave them out (in a recipe: mean = [0.0], std = [1.0])".into());
        }
        for (flag, value) in [("--brightness", self.augment.brightness), ("--contrast", self.augment.contrast)] {
            if value > 0.0 {
                return Err(ConfigError {
                    flag,
                    reason: "is for images that are not whitened; leave it out, or pass --whiten none".into(),
                });
            }
        }
        Ok(())
    }

    /// The configuration as TOML. Fails only for a path that is not Unicode.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// Reads what [`Self::to_toml`] wrote. The caller validates.
    pub fn from_toml(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// SHA-256, in hexadecimal, over what shapes the weights' way. A run may go on with a data set
    /// that moved, another interval of logging or saving, another memory budget, fewer test images and, unless the
    /// schedule depends on it, more epochs.
    pub fn hash(&self) -> String {
        let mut fixed = self.clone();
        fixed.data.clear();
        fixed.data_dir = None;
        fixed.initial_weights = None;
        fixed.limit_test = None;
        fixed.log_every = 1;
        fixed.save_dtype = SaveDtype::F32;
        (fixed.checkpoint_every, fixed.keep) = (CheckpointInterval::DEFAULT, 0);
        fixed.memory_budget = None;
        fixed.max_bad = None;
        fixed.early_stop = None;
        if !matches!(fixed.schedule, Schedule::Cosine | Schedule::OneCycle) {
            fixed.epochs = 1;
        }
        // Debug output prints every field and floats without loss.
        hex(&Sha256::digest(format!("{fixed:?}")))
    }
}

fn single() -> SaveDtype {
    SaveDtype::F32
}

fn is_single(dtype: &SaveDtype) -> bool {
    *dtype == SaveDtype::F32
}

/// [`TrainConfig::patience`] where nothing else is asked for.
pub const PATIENCE: u32 = 5;

fn patience() -> u32 {
    PATIENCE
}

fn is_default_patience(epochs: &u32) -> bool {
    *epochs == PATIENCE
}

fn one() -> f64 {
    1.0
}

fn is_one(value: &f64) -> bool {
    *value == 1.0
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

fn expect(holds: bool, flag: &'static str, value: f64, range: &str) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError { flag, reason: format!("must be {range}; it is {value}") })
}

fn at_least_1<T: PartialOrd + From<u8> + fmt::Display>(flag: &'static str, value: T) -> Result<(), ConfigError> {
    if value >= T::from(1) {
        return Ok(());
    }
    Err(ConfigError { flag, reason: format!("must be at least 1; it is {value}") })
}

fn within<T: PartialOrd + fmt::Display>(flag: &'static str, value: T, least: T, most: T) -> Result<(), ConfigError> {
    if value >= least && value <= most {
        return Ok(());
    }
    Err(ConfigError { flag, reason: format!("must be {least} to {most}; it is {value}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_with_a_wrong_key_is_refused() {
        let text = TrainConfig::defaults("nin").unwrap().to_toml().unwrap();
        let error = TrainConfig::from_toml(&text.replace("lr =", "learning_rate =")).unwrap_err();
        assert!(error.to_string().contains("learning_rate"), "{error}");
        // People write whole numbers where fractions are meant.
        let config = TrainConfig::from_toml(&text.replace("warmup_epochs = 0.0", "warmup_epochs = 2"));
        assert_eq!(config.unwrap().warmup_epochs, 2.0);
    }

    #[test]
    fn nonsense_names_its_flag() {
        type Change = fn(&mut TrainConfig);
        let cases: [(&str, Change); 29] = [
            ("--model", |c| c.model = "vgg".into()),
            ("--classes", |c| c.classes = 0),
            ("--in-channels", |c| c.in_channels = 0),
            ("--image-size", |c| c.image_size = 1 << 40),
            ("--epochs", |c| c.epochs = 0),
            ("--batch-size", |c| c.batch_size = 0),
            ("--grad-accum", |c| c.grad_accum = 0),
            ("--log-every", |c| c.log_every = 0),
            ("--step-epochs", |c| c.step_epochs = 0),
            ("--step-gamma", |c| c.step_gamma = f64::NAN),
            ("--limit-train", |c| c.limit_train = Some(0)),
            ("--limit-test", |c| c.limit_test = Some(0)),
            ("--seed", |c| c.seed = u64::MAX),
            ("--lr", |c| c.lr = 0.0),
            ("--lr", |c| c.lr = -1.0),
            ("--lr", |c| c.lr = f64::NAN),
            ("--lr", |c| c.lr = 1e60),
            ("--momentum", |c| c.momentum = 1.0),
            ("--momentum", |c| c.momentum = f64::NAN),
            ("--dropout", |c| c.dropout = 1.0),
            ("--head-bias", |c| c.head_bias = Some(f64::INFINITY)),
            ("--val-split", |c| c.val_split = Some(1.0)),
            ("--weight-decay", |c| c.weight_decay = -1e-4),
            ("--warmup-epochs", |c| c.warmup_epochs = 11.0),
            ("--nesterov", |c| c.nesterov = true),
            ("--mean", |c| c.mean = vec![0.1, 0.2]),
            ("--std", |c| c.std = vec![0.0]),
            ("--std", |c| c.std.clear()),
            ("--shift", |c| c.augment.shift = 224),
        ];
        for (flag, change) in cases {
            let mut config = TrainConfig::defaults("nin").unwrap();
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert_eq!(error.flag, flag, "{error}");
            assert!(!error.to_string().contains('\n'));
        }
        let mut config = TrainConfig::defaults("nin").unwrap();
        config.lr = -1.0;
        let message = config.validate().unwrap_err().to_string();
        assert_eq!(message, "--lr must be above 0 and finite; it is -1");
    }

    #[test]
    fn names_are_those_of_the_flags() {
        assert_eq!("adam".parse(), Ok(Optimizer::Adam));
        assert_eq!(Schedule::Cosine.to_string(), "cosine");
        let error = "he".parse::<Init>().unwrap_err();
        assert_eq!(error, "must be one of: xavier, kaiming, normal");
        for &precision in Precision::ALL {
            assert_eq!(precision.name().parse(), Ok(precision));
        }
    }

    #[test]
    fn the_hash_follows_what_shapes_the_weights() {
        let config = TrainConfig::defaults("nin").unwrap();
        let hash_after = |change: fn(&mut TrainConfig)| {
            let mut config = config.clone();
            change(&mut config);
            config.hash()
        };
        assert_eq!(config.hash().len(), 64);
        assert_eq!(config.hash(), hash_after(|c| c.data = "elsewhere".into()));
        assert_eq!(config.hash(), hash_after(|c| c.log_every = 1));
        assert_eq!(config.hash(), hash_after(|c| (c.checkpoint_every, c.keep) = (CheckpointInterval::Epoch, 3)));
        assert_eq!(config.hash(), hash_after(|c| c.epochs = 20));
        assert_eq!(config.hash(), hash_after(|c| c.save_dtype = SaveDtype::F16));
        assert_ne!(config.hash(), hash_after(|c| c.precision = Precision::Mixed));
        assert_eq!(config.hash(), hash_after(|c| c.memory_budget = Some(1 << 30)));
        assert_ne!(config.hash(), hash_after(|c| c.seed = 1));
        assert_ne!(config.hash(), hash_after(|c| c.batch_size = 64));
        assert_ne!(config.hash(), hash_after(|c| c.schedule = Schedule::Cosine));
        let cosine = |epochs| {
            let mut config = config.clone();
            (config.schedule, config.epochs) = (Schedule::Cosine, epochs);
            config.hash()
        };
        assert_ne!(cosine(10), cosine(20));
    }
}
