//! The arguments of `nin-wgpu train`, and how they override a model's defaults.

use super::error::Failure;
use super::memory_args::{BatchSize, MemoryArgs};
use super::model_args::model;
use super::tuning::TuneArgs;
use crate::models::Model;
use crate::train::config::{Augment, ConfigError, Init, Optimizer, Precision, SaveDtype, Schedule, TrainConfig, Whiten};
use crate::train::defaults::{ADAM_LR, ADAMW_DECAY};
use crate::train::fit::Follow;
use crate::train::interval::CheckpointInterval;
use crate::train::recipes;
use std::path::PathBuf;

/// Arguments of the verb. What is not given follows the model, see [`TrainConfig::defaults`].
#[derive(clap::Args, Default)]
#[command(after_help = "\
Examples:
  nin-wgpu train --model nin-small --data fashion-mnist
  nin-wgpu train --model nin-cifar --data cifar10 --epochs 30 --schedule cosine
  nin-wgpu train --recipe paper-cifar10 --data-dir ~/data
  nin-wgpu train --resume runs/nin-small-1

A flag that is not given follows the model's published recipe; config.toml in the run's folder holds what came of it.")]
pub struct Args {
    /// The model
    #[arg(long, value_name = "NAME", value_parser = model(), required_unless_present_any = ["resume", "recipe"])]
    pub model: Option<&'static Model>,
    /// All settings from a recipe: a name that `recipes` lists, or a TOML file such as the config.toml of a run
    #[arg(long, value_name = "NAME|FILE", conflicts_with = "resume")]
    pub recipe: Option<String>,
    /// The data set: mnist, fashion-mnist, cifar10, cifar100, svhn, or a folder; beside --resume, where it has moved to
    #[arg(long, value_name = "D", required_unless_present_any = ["resume", "recipe"])]
    pub data: Option<String>,
    /// Where named data sets are looked for first
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub data_dir: Option<PathBuf>,
    /// Use only the first N training images
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub limit_train: Option<usize>,
    /// Use only the first N test images
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub limit_test: Option<usize>,
    /// Share of each class to draw for testing where a folder of pictures has neither val/ nor test/ [default: 0.1]
    #[arg(long, value_name = "F", allow_negative_numbers = true, help_heading = "Data")]
    pub val_split: Option<f64>,
    /// Pictures of a folder that may be unreadable before training stops [default: 1 in 100, but at least 10]
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub max_bad: Option<usize>,
    /// Keep the training images in their order
    #[arg(long, help_heading = "Data")]
    pub no_shuffle: bool,
    /// Take training images as they are
    #[arg(long, help_heading = "Data", conflicts_with_all = ["flip", "shift"])]
    pub no_augment: bool,
    /// Mirror training images at random [default: as the model, never for digits]
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Data")]
    pub flip: Option<bool>,
    /// Move training images at random by up to N pixels
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub shift: Option<u32>,
    /// Leave a random square of N pixels a side out of each training image (cutout)
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub cutout: Option<u32>,
    /// Change the brightness of training images at random by up to this much, 1 being white
    #[arg(long, value_name = "B", allow_negative_numbers = true, help_heading = "Data")]
    pub brightness: Option<f64>,
    /// Change the contrast of training images at random by up to this share
    #[arg(long, value_name = "C", allow_negative_numbers = true, help_heading = "Data")]
    pub contrast: Option<f64>,
    /// Mean per channel, for pixels in [0, 1]
    #[arg(long, value_name = "A[,B,C]", value_delimiter = ',', allow_hyphen_values = true, help_heading = "Data")]
    pub mean: Option<Vec<f64>>,
    /// Standard deviation per channel, for pixels in [0, 1]
    #[arg(long, value_name = "A[,B,C]", value_delimiter = ',', allow_hyphen_values = true, help_heading = "Data")]
    pub std: Option<Vec<f64>>,
    /// Instead of mean and std: zca, contrast normalisation and whitening with statistics of the training images; or none
    #[arg(long, value_name = "KIND", help_heading = "Data")]
    pub whiten: Option<Whiten>,
    /// Number of classes [default: that of the data set]
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub classes: Option<usize>,
    /// Channels of the input: 1 for grey, 3 for colour [default: as the model]
    #[arg(long, value_name = "C", help_heading = "Model")]
    pub in_channels: Option<usize>,
    /// Height and width of the input in pixels
    #[arg(long, value_name = "S", help_heading = "Model")]
    pub image_size: Option<usize>,
    /// Probability of dropping an activation
    #[arg(long, value_name = "P", allow_negative_numbers = true, help_heading = "Model")]
    pub dropout: Option<f64>,
    /// Start of the weights: xavier, kaiming, normal
    #[arg(long, value_name = "KIND", help_heading = "Model")]
    pub init: Option<Init>,
    /// Start of the last convolution's biases: above 0 keeps every class alive where a ReLU comes last
    #[arg(long, value_name = "B", allow_negative_numbers = true, help_heading = "Model")]
    pub head_bias: Option<f64>,
    /// Start from these weights; where they know another number of classes, the last layers start anew
    #[arg(long, value_name = "FILE", conflicts_with = "resume", help_heading = "Model")]
    pub initial_weights: Option<PathBuf>,
    /// Layers and blocks that stay as they are, by the paths that `summary` lists
    #[arg(long, value_name = "PATH[,PATH]", value_delimiter = ',', help_heading = "Model")]
    pub freeze: Option<Vec<String>>,
    /// Passes over the training images; beside --resume, of the whole run, where its schedule does not depend on their number
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub epochs: Option<u32>,
    /// Images in a batch, or auto: as many as run in one pass within --memory-budget, or within 2 GiB without one. What is
    /// learned depends on it
    #[arg(long, value_name = "B", help_heading = "Training")]
    pub batch_size: Option<BatchSize>,
    /// Batches whose gradients make one update
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub grad_accum: Option<usize>,
    /// The update rule: sgd, adam, adamw
    #[arg(long, value_name = "RULE", help_heading = "Training")]
    pub optimizer: Option<Optimizer>,
    /// Learning rate at its peak
    #[arg(long, value_name = "LR", allow_negative_numbers = true, help_heading = "Training")]
    pub lr: Option<f64>,
    /// Momentum of sgd
    #[arg(long, value_name = "M", allow_negative_numbers = true, help_heading = "Training")]
    pub momentum: Option<f64>,
    /// Nesterov's form of momentum
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Training")]
    pub nesterov: Option<bool>,
    /// Added to the gradient as this share of every parameter
    #[arg(long, value_name = "W", allow_negative_numbers = true, help_heading = "Training")]
    pub weight_decay: Option<f64>,
    /// Scale gradients down where their norm, all together, is above this
    #[arg(long, value_name = "NORM", allow_negative_numbers = true, help_heading = "Training")]
    pub clip_norm: Option<f64>,
    /// Share of each image's target that is spread over all classes
    #[arg(long, value_name = "S", allow_negative_numbers = true, help_heading = "Training")]
    pub label_smoothing: Option<f64>,
    /// Test and save a moving average of the weights, with this decay
    #[arg(long, value_name = "DECAY", allow_negative_numbers = true, help_heading = "Training")]
    pub ema: Option<f64>,
    /// How the learning rate moves: constant, step, cosine, one-cycle, plateau
    #[arg(long, value_name = "KIND", help_heading = "Training")]
    pub schedule: Option<Schedule>,
    /// Schedule step: epochs between two reductions
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub step_epochs: Option<u32>,
    /// Schedules step and plateau: factor of each reduction
    #[arg(long, value_name = "G", allow_negative_numbers = true, help_heading = "Training")]
    pub step_gamma: Option<f64>,
    /// Schedule plateau: epochs without a lower loss that are put up with
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub patience: Option<u32>,
    /// End the run after N epochs without a better test accuracy
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub early_stop: Option<u32>,
    /// Epochs over which the learning rate first rises
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Training")]
    pub warmup_epochs: Option<f64>,
    /// Key of all randomness
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub seed: Option<u64>,
    /// Number format: f32, or mixed for activations and filters in 16 bits
    #[arg(long, value_name = "KIND", help_heading = "Training")]
    pub precision: Option<Precision>,
    #[command(flatten)]
    pub tune: TuneArgs,
    /// Folder for the run's files, new or empty [default: runs/NAME-N]
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    pub out: Option<PathBuf>,
    /// Go on with the run in this folder, exactly where it stopped
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    pub resume: Option<PathBuf>,
    /// Numbers in the weight files: f32, f16
    #[arg(long, value_name = "KIND", help_heading = "Run")]
    pub save_dtype: Option<SaveDtype>,
    /// Updates between two lines of metrics.jsonl
    #[arg(long, value_name = "N", help_heading = "Run")]
    pub log_every: Option<u32>,
    /// Save within an epoch every N updates, or after a time such as 30s, 5m or 1h; epoch: only at its end [default: 5m]
    #[arg(long, value_name = "N|TIME", help_heading = "Run")]
    pub checkpoint_every: Option<CheckpointInterval>,
    /// Keep the weights of the last N epochs, as epoch-0001.safetensors and so on [default: 0]
    #[arg(long, value_name = "N", help_heading = "Run")]
    pub keep: Option<u32>,
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// Leave out report.html at the end
    #[arg(long, help_heading = "Run")]
    pub no_report: bool,
    /// Show the run as a dashboard that fills the terminal
    #[arg(long, help_heading = "Run")]
    pub tui: bool,
}

/// What one given flag does to a configuration.
struct Change<'a> {
    flag: &'static str,
    apply: Box<dyn Fn(&mut TrainConfig) + 'a>,
}

/// Flags that may change the configuration of a run to resume.
const RESUMABLE: [&str; 3] = ["--data", "--data-dir", "--epochs"];

impl Args {
    /// The configuration of a new run: the model's defaults with what was given.
    pub fn resolve(&self) -> Result<TrainConfig, Failure> {
        let mut config = match (&self.recipe, self.model) {
            (Some(recipe), model) => recipes::load(recipe, model.map(|model| model.name))?,
            (None, Some(model)) => TrainConfig::defaults(model.name)?,
            (None, None) => return Err(Failure::Usage("train needs --model and --data, --recipe, or --resume".into())),
        };
        if self.whiten == Some(Whiten::Zca) && (self.mean.is_some() || self.std.is_some()) {
            return Err(Failure::Usage("--whiten zca takes the place of --mean and --std; leave one or the other out".into()));
        }
        let own_optimizer = config.optimizer;
        for change in self.changes() {
            (change.apply)(&mut config);
        }
        self.apply_saving(&mut config);
        if config.data.is_empty() {
            return Err(Failure::Usage("--data is missing: the recipe names no data set".into()));
        }
        self.follow(own_optimizer, &mut config)?;
        config.validate()?;
        Ok(config)
    }

    /// What may follow the pictures of a folder. Weights to start from were trained for their own preprocessing, and a recipe
    /// says which it wants.
    pub fn follows_pictures(&self) -> Follow {
        let is_new = self.initial_weights.is_none() && self.recipe.is_none();
        let has_own_schedule = self.recipe.is_some();
        Follow {
            channels: is_new && self.in_channels.is_none(),
            normalisation: is_new && self.mean.is_none() && self.std.is_none(),
            epochs: !has_own_schedule && self.epochs.is_none(),
            warmup: !has_own_schedule && self.warmup_epochs.is_none(),
            clipping: !has_own_schedule && self.clip_norm.is_none(),
            head: is_new && self.head_bias.is_none() && self.init.is_none(),
            rate: !has_own_schedule && self.lr.is_none(),
        }
    }

    /// Checks the flags given beside `--resume`: they may repeat the run's configuration, and change where its data lies, how
    /// many epochs it has and when it is saved.
    pub fn check_resumed(&self, saved: &TrainConfig) -> Result<(), Failure> {
        if let (Some(out), Some(resume)) = (&self.out, &self.resume)
            && out != resume
        {
            return Err(Failure::Usage("--out and --resume name different folders; a run goes on in its own: leave --out out".into()));
        }
        if self.tune.tune.is_some() {
            return Err(Failure::Usage("--tune and --resume: a run goes on with the kernels in its config.toml; leave --tune out".into()));
        }
        for change in self.changes().into_iter().filter(|change| !RESUMABLE.contains(&change.flag)) {
            let mut changed = saved.clone();
            (change.apply)(&mut changed);
            if changed != *saved {
                let flag = change.flag;
                return Err(Failure::Usage(format!(
                    "{flag} differs from the run to resume, which keeps its configuration; leave {flag} out"
                )));
            }
        }
        Ok(())
    }

    /// Changes the configuration of a run to resume by the flags that may.
    pub fn apply_resumable(&self, config: &mut TrainConfig) {
        for change in self.changes().into_iter().filter(|change| RESUMABLE.contains(&change.flag)) {
            (change.apply)(config);
        }
        self.apply_saving(config);
    }

    /// When and what to save does not change what is learned.
    fn apply_saving(&self, config: &mut TrainConfig) {
        config.checkpoint_every = self.checkpoint_every.unwrap_or(config.checkpoint_every);
        config.keep = self.keep.unwrap_or(config.keep);
    }

    /// The flags that were given, in an order in which they can be applied.
    fn changes(&self) -> Vec<Change<'_>> {
        let mut list: Vec<Change<'_>> = Vec::new();
        macro_rules! change {
            ($($flag:literal $given:ident => |$config:ident| $effect:expr;)+) => {$(
                if let Some($given) = &self.$given {
                    list.push(Change { flag: $flag, apply: Box::new(move |$config: &mut TrainConfig| $effect) });
                }
            )+};
        }
        change! {
            "--model" model => |c| c.model = model.name.to_string();
            "--data" data => |c| c.data.clone_from(data);
            "--data-dir" data_dir => |c| c.data_dir = Some(data_dir.clone());
            "--limit-train" limit_train => |c| c.limit_train = Some(*limit_train);
            "--limit-test" limit_test => |c| c.limit_test = Some(*limit_test);
            "--val-split" val_split => |c| c.val_split = Some(*val_split);
            "--max-bad" max_bad => |c| c.max_bad = Some(*max_bad);
            "--classes" classes => |c| c.classes = *classes;
            "--in-channels" in_channels => |c| c.set_in_channels(*in_channels);
            "--image-size" image_size => |c| c.image_size = *image_size;
            "--whiten" whiten => |c| c.set_whiten(*whiten);
            "--mean" mean => |c| { c.set_whiten(Whiten::None); c.mean.clone_from(mean) };
            "--std" std => |c| { c.set_whiten(Whiten::None); c.std.clone_from(std) };
            "--flip" flip => |c| c.augment.flip = *flip;
            "--shift" shift => |c| c.augment.shift = *shift;
            "--cutout" cutout => |c| c.augment.cutout = *cutout;
            "--brightness" brightness => |c| c.augment.brightness = *brightness;
            "--contrast" contrast => |c| c.augment.contrast = *contrast;
            "--dropout" dropout => |c| c.dropout = *dropout;
            "--init" init => |c| c.init = *init;
            "--head-bias" head_bias => |c| c.head_bias = Some(*head_bias);
            "--initial-weights" initial_weights => |c| c.initial_weights = Some(initial_weights.clone());
            "--epochs" epochs => |c| c.epochs = *epochs;
            "--batch-size" batch_size => |c| if let BatchSize::Images(images) = batch_size { c.batch_size = *images };
            "--grad-accum" grad_accum => |c| c.grad_accum = *grad_accum;
            "--optimizer" optimizer => |c| c.optimizer = *optimizer;
            "--lr" lr => |c| c.lr = *lr;
            "--momentum" momentum => |c| c.momentum = *momentum;
            "--nesterov" nesterov => |c| c.nesterov = *nesterov;
            "--clip-norm" clip_norm => |c| c.clip_norm = Some(*clip_norm);
            "--label-smoothing" label_smoothing => |c| c.label_smoothing = *label_smoothing;
            "--ema" ema => |c| c.ema = Some(*ema);
            "--freeze" freeze => |c| c.freeze.clone_from(freeze);
            "--patience" patience => |c| c.patience = *patience;
            "--early-stop" early_stop => |c| c.early_stop = Some(*early_stop);
            "--weight-decay" weight_decay => |c| c.weight_decay = *weight_decay;
            "--schedule" schedule => |c| c.schedule = *schedule;
            "--step-epochs" step_epochs => |c| c.step_epochs = *step_epochs;
            "--step-gamma" step_gamma => |c| c.step_gamma = *step_gamma;
            "--warmup-epochs" warmup_epochs => |c| c.warmup_epochs = *warmup_epochs;
            "--seed" seed => |c| c.seed = *seed;
            "--precision" precision => |c| c.precision = *precision;
            "--save-dtype" save_dtype => |c| c.save_dtype = *save_dtype;
            "--log-every" log_every => |c| c.log_every = *log_every;
        }
        if self.no_shuffle {
            list.push(Change { flag: "--no-shuffle", apply: Box::new(|c| c.shuffle = false) });
        }
        if self.no_augment {
            list.push(Change { flag: "--no-augment", apply: Box::new(|c| c.augment = Augment::NONE) });
        }
        list
    }

    /// Lets defaults follow the flags that were given, and refuses flags that belong to another choice.
    fn follow(&self, own_optimizer: Optimizer, config: &mut TrainConfig) -> Result<(), ConfigError> {
        if config.optimizer != Optimizer::Sgd {
            for (flag, is_given) in [("--momentum", self.momentum.is_some()), ("--nesterov", self.nesterov == Some(true))] {
                if is_given {
                    return Err(ConfigError {
                        flag,
                        reason: format!("belongs to --optimizer sgd; leave it out with {}", config.optimizer),
                    });
                }
            }
            (config.momentum, config.nesterov) = (0.0, false);
        }
        if config.optimizer != own_optimizer {
            config.lr = self.lr.unwrap_or(if config.optimizer == Optimizer::Sgd { config.lr } else { ADAM_LR });
            if config.optimizer == Optimizer::AdamW {
                config.weight_decay = self.weight_decay.unwrap_or(ADAMW_DECAY);
            }
        }
        // A recipe's own settings give way to what was asked for beside them.
        if config.momentum == 0.0 && self.nesterov.is_none() {
            config.nesterov = false;
        }
        if self.warmup_epochs.is_none() {
            config.warmup_epochs = config.warmup_epochs.min(f64::from(config.epochs));
        }
        // Values for three channels are for three channels.
        let is_for_three = [&self.mean, &self.std].into_iter().flatten().any(|values| values.len() == 3);
        if is_for_three && self.in_channels.is_none() {
            config.in_channels = 3;
        }
        if self.shift.is_none() {
            let most = config.image_size.saturating_sub(1).try_into().unwrap_or(u32::MAX);
            config.augment.shift = config.augment.shift.min(most);
        }
        if self.flip.is_none() && self.recipe.is_none() && shows_digits(&config.data) {
            config.augment.flip = false;
        }
        Ok(())
    }
}

/// Whether mirroring would change what the pictures of a named data set mean.
fn shows_digits(data: &str) -> bool {
    ["mnist", "svhn"].iter().any(|name| data.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Args {
        Line::try_parse_from(std::iter::once("train").chain(line.split_whitespace())).unwrap_or_else(|e| panic!("{e}")).args
    }

    fn resolve(line: &str) -> TrainConfig {
        parse(line).resolve().unwrap()
    }

    fn refusal(line: &str) -> String {
        let failure = parse(line).resolve().unwrap_err();
        assert_eq!(failure.code(), 2, "{failure}");
        failure.to_string()
    }

    #[test]
    fn without_flags_the_recipe_holds() {
        let expected = TrainConfig { data: "fashion-mnist".into(), ..TrainConfig::defaults("nin").unwrap() };
        assert_eq!(resolve("--model nin --data fashion-mnist"), expected);
    }

    #[test]
    fn every_flag_reaches_its_setting() {
        let config = resolve(
            "--model nin-imagenet --data d --data-dir e --limit-train 7 --limit-test 8 --val-split 0.25 --max-bad 3 --no-shuffle --flip=false \
             --shift 2 --cutout 8 --brightness 0.25 --contrast 0.5 \
             --classes 12 --in-channels 1 --image-size 96 --mean -0.5 --std 2 --dropout 0.25 --init normal --head-bias 2 --initial-weights w \
             --epochs 9 --batch-size 3 --grad-accum 4 --optimizer sgd --lr 0.5 --momentum 0.75 --nesterov --weight-decay 0.125 \
             --schedule cosine --step-epochs 5 --step-gamma 0.5 --warmup-epochs 2 --clip-norm 2 --label-smoothing 0.1 --ema 0.99 \
             --freeze 0,2.0 --patience 3 --early-stop 4 --seed 11 --precision mixed --save-dtype f16 --log-every 1 \
             --checkpoint-every 40 --keep 3",
        );
        let expected = TrainConfig {
            model: "nin-imagenet".into(),
            classes: 12,
            in_channels: 1,
            image_size: 96,
            data: "d".into(),
            data_dir: Some("e".into()),
            initial_weights: Some("w".into()),
            epochs: 9,
            batch_size: 3,
            grad_accum: 4,
            optimizer: Optimizer::Sgd,
            lr: 0.5,
            momentum: 0.75,
            nesterov: true,
            weight_decay: 0.125,
            schedule: Schedule::Cosine,
            step_epochs: 5,
            step_gamma: 0.5,
            warmup_epochs: 2.0,
            clip_norm: Some(2.0),
            label_smoothing: 0.1,
            ema: Some(0.99),
            freeze: vec!["0".into(), "2.0".into()],
            patience: 3,
            early_stop: Some(4),
            dropout: 0.25,
            seed: 11,
            init: Init::Normal,
            head_bias: Some(2.0),
            checkpoint_every: CheckpointInterval::Updates(40),
            keep: 3,
            precision: Precision::Mixed,
            save_dtype: SaveDtype::F16,
            limit_train: Some(7),
            limit_test: Some(8),
            val_split: Some(0.25),
            max_bad: Some(3),
            shuffle: false,
            mean: vec![-0.5],
            std: vec![2.0],
            log_every: 1,
            augment: Augment { flip: false, shift: 2, cutout: 8, brightness: 0.25, contrast: 0.5 },
            ..TrainConfig::defaults("nin-imagenet").unwrap()
        };
        assert_eq!(config, expected);
        let config = resolve("--model nin-cifar --data cifar10 --no-augment --mean 0.1,0.2,0.3 --std 1,2,3");
        assert_eq!((config.augment, config.mean, config.std), (Augment::NONE, vec![0.1, 0.2, 0.3], vec![1.0, 2.0, 3.0]));
    }

    #[test]
    fn defaults_follow_the_flags() {
        let adam = resolve("--model nin-small --data fashion-mnist --optimizer adam");
        assert_eq!((adam.lr, adam.momentum, adam.nesterov), (ADAM_LR, 0.0, false));
        assert_eq!(resolve("--model nin --data d --optimizer adam --lr 0.01").lr, 0.01);
        let adamw = resolve("--model nin-small --data d --optimizer adamw");
        assert_eq!((adamw.lr, adamw.weight_decay, adamw.momentum), (ADAM_LR, ADAMW_DECAY, 0.0));
        assert_eq!(resolve("--model nin --data d --optimizer adamw --weight-decay 0").weight_decay, 0.0);
        assert!(!resolve("--model nin-small --data d --momentum 0").nesterov);
        assert!(resolve("--model nin-small --data d --epochs 1").warmup_epochs <= 1.0);
        assert!(!resolve("--model nin-cifar --data mnist").augment.flip);
        assert!(resolve("--model nin-cifar --data mnist --flip").augment.flip);
        assert!(resolve("--model nin-cifar --data cifar10").augment.flip);
    }

    #[test]
    fn three_means_are_for_three_channels() {
        let config = resolve("--model nin-small --data d --mean 0.5,0.4,0.3 --std 0.2,0.2,0.2");
        assert_eq!((config.in_channels, config.mean.len()), (3, 3));
        assert_eq!(resolve("--model nin-small --data d --std 0.2,0.2,0.2").in_channels, 3);
        assert_eq!(resolve("--model nin-small --data d --mean 0.5").in_channels, 1);
        assert!(refusal("--model nin-small --data d --mean 0.5,0.4,0.3 --in-channels 1").starts_with("--mean"));
    }

    #[test]
    fn flags_override_a_recipe() {
        let recipe = resolve("--recipe d2l-nin");
        let expected = TrainConfig { data: "fashion-mnist".into(), ..TrainConfig::defaults("nin").unwrap() };
        assert_eq!(recipe, expected);
        let changed = resolve("--recipe d2l-nin --data elsewhere --lr 0.5 --momentum 0.9");
        assert_eq!(changed, TrainConfig { data: "elsewhere".into(), lr: 0.5, momentum: 0.9, ..recipe });
        let other = resolve("--recipe d2l-nin --model nin-one-1x1");
        assert_eq!((other.model.as_str(), other.lr), ("nin-one-1x1", 0.1));
        // A recipe for Adam keeps its own rate.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        std::fs::write(&path, "model = \"nin-small\"\noptimizer = \"adamw\"\nlr = 0.003\nmomentum = 0\nnesterov = false").unwrap();
        let mine = Args { recipe: path.to_str().map(str::to_string), data: Some("d".into()), ..Args::default() }.resolve().unwrap();
        assert_eq!((mine.optimizer, mine.lr, mine.weight_decay), (Optimizer::AdamW, 0.003, 5e-4));
    }

    #[test]
    fn whitening_and_normalisation_exclude_each_other() {
        let plain = resolve("--model nin-cifar --data cifar10");
        let whitened = resolve("--model nin-cifar --data cifar10 --whiten zca");
        assert_eq!((whitened.whiten, whitened.mean.clone(), whitened.std.clone()), (Whiten::Zca, vec![0.0], vec![1.0]));
        assert_eq!(resolve("--model nin-cifar --data cifar10 --whiten none"), plain);
        let recipe = resolve("--recipe paper-cifar10-aug");
        assert_eq!((recipe.whiten, recipe.augment.flip), (Whiten::Zca, true));
        // What normalises takes the place of a recipe's whitening.
        let own = resolve("--recipe paper-cifar10-aug --mean 0.5");
        assert_eq!((own.whiten, own.mean, own.std), (Whiten::None, vec![0.5], plain.std.clone()));
        let none = resolve("--recipe paper-cifar10-aug --whiten none");
        assert_eq!((none.whiten, none.mean, none.std), (Whiten::None, plain.mean.clone(), plain.std.clone()));
        for (line, words) in [
            ("--model nin-cifar --data d --whiten zca --std 2", "--whiten zca takes the place of --mean and --std"),
            ("--model nin-cifar --data d --whiten zca --image-size 64", "--whiten takes images of at most 4096 values, 3x64x64 are 12288"),
            ("--model nin-cifar --data d --whiten zca --contrast 0.1", "--contrast is for images that are not whitened"),
        ] {
            assert!(refusal(line).contains(words), "{line}: {}", refusal(line));
        }
        assert!(parse("--resume r").check_resumed(&whitened).is_ok());
        assert!(parse("--resume r --whiten zca").check_resumed(&whitened).is_ok());
        assert!(parse("--resume r --whiten none").check_resumed(&whitened).is_err());
        assert_ne!(whitened.hash(), plain.hash());
    }

    #[test]
    fn what_cannot_be_names_its_flag() {
        assert_eq!(refusal("--model nin --data d --lr -1"), "--lr must be above 0 and finite; it is -1");
        for (line, flag) in [
            ("--model nin --data d --optimizer adam --momentum 0.9", "--momentum"),
            ("--model nin --data d --nesterov", "--nesterov"),
            ("--model nin --data d --mean 1,2", "--mean"),
            ("--model nin --data d --epochs 2 --warmup-epochs 3", "--warmup-epochs"),
            ("--model nin --data d --classes 1", "--classes"),
            ("--model nin --data d --optimizer adamw --nesterov", "--nesterov"),
            ("--model nin --data d --clip-norm 0", "--clip-norm"),
            ("--model nin --data d --label-smoothing 1", "--label-smoothing"),
            ("--model nin --data d --ema 1", "--ema"),
            ("--model nin --data d --early-stop 0", "--early-stop"),
            ("--recipe d2l-nin --data d --lr 0", "--lr"),
            ("--recipe no-such-recipe --data d", "--recipe"),
        ] {
            assert!(refusal(line).starts_with(flag), "{line}");
        }
    }

    #[test]
    fn a_resumed_run_keeps_its_configuration() {
        let saved = resolve("--model nin --data d --lr 0.5");
        assert!(parse("--resume r").check_resumed(&saved).is_ok());
        let resumed = parse("--resume r --checkpoint-every 1h --keep 2");
        assert!(resumed.check_resumed(&saved).is_ok());
        let mut config = saved.clone();
        resumed.apply_resumable(&mut config);
        assert_eq!((config.checkpoint_every.to_string(), config.keep, config.hash()), ("1h".into(), 2, saved.hash()));
        assert!(parse("--resume r --out r --model nin --data d --lr 0.5").check_resumed(&saved).is_ok());
        let moved = parse("--resume r --data e --data-dir f --epochs 40");
        assert!(moved.check_resumed(&saved).is_ok());
        moved.apply_resumable(&mut config);
        assert_eq!((config.data.as_str(), config.data_dir, config.epochs, config.keep), ("e", Some("f".into()), 40, 2));
        for (line, flag) in [
            ("--resume r --lr 0.25", "--lr"),
            ("--resume r --model nin-cifar", "--model"),
            ("--resume r --no-shuffle", "--no-shuffle"),
            ("--resume r --out s", "--out"),
            ("--resume r --tune off", "--tune"),
        ] {
            let failure = parse(line).check_resumed(&saved).unwrap_err();
            assert!(failure.to_string().starts_with(flag), "{failure}");
            assert_eq!(failure.code(), 2);
        }
    }
}
