//! What each model is trained with where no flag says otherwise, with its source.

use super::config::{Augment, ConfigError, Init, Optimizer, PATIENCE, Precision, SaveDtype, Schedule, TrainConfig, Whiten};
use super::interval::CheckpointInterval;
use crate::kernels::Choices;

/// Models that [`TrainConfig::defaults`] knows.
pub const MODELS: [&str; 5] = ["nin", "nin-one-1x1", "nin-cifar", "nin-imagenet", "nin-small"];

/// Learning rate for `--optimizer adam` and `adamw` where none is given: PyTorch's default.
pub const ADAM_LR: f64 = 1e-3;
/// Weight decay for `--optimizer adamw` where none is given: PyTorch's default.
pub const ADAMW_DECAY: f64 = 1e-2;

impl TrainConfig {
    /// The defaults of a model; `data` is left empty.
    pub fn defaults(model: &str) -> Result<Self, ConfigError> {
        let base = d2l(model);
        match model {
            "nin" | "nin-one-1x1" => Ok(base),
            "nin-cifar" => Ok(paper_cifar(base)),
            "nin-imagenet" => Ok(caffe_imagenet(base)),
            "nin-small" => Ok(small(base)),
            _ => Err(ConfigError { flag: "--model", reason: format!("must be one of: {}; it is '{model}'", MODELS.join(", ")) }),
        }
    }
}

/// Dive into Deep Learning, section 8.3: plain SGD at 0.1, no normalisation, no augmentation.
fn d2l(model: &str) -> TrainConfig {
    TrainConfig {
        model: model.to_string(),
        classes: 10,
        in_channels: 1,
        image_size: 224,
        data: String::new(),
        data_dir: None,
        initial_weights: None,
        epochs: 10,
        batch_size: 128,
        grad_accum: 1,
        optimizer: Optimizer::Sgd,
        lr: 0.1,
        momentum: 0.0,
        nesterov: false,
        weight_decay: 0.0,
        schedule: Schedule::Constant,
        step_epochs: 30,
        step_gamma: 0.1,
        patience: PATIENCE,
        early_stop: None,
        warmup_epochs: 0.0,
        dropout: 0.5,
        seed: 0,
        init: Init::Xavier,
        head_bias: None,
        precision: Precision::F32,
        save_dtype: SaveDtype::F32,
        limit_train: None,
        limit_test: None,
        shuffle: true,
        mean: vec![0.0],
        std: vec![1.0],
        whiten: Whiten::None,
        log_every: 50,
        checkpoint_every: CheckpointInterval::DEFAULT,
        keep: 0,
        memory_budget: None,
        val_split: None,
        max_bad: None,
        clip_norm: None,
        label_smoothing: 0.0,
        ema: None,
        freeze: Vec::new(),
        bias_lr: 1.0,
        bias_decay: 1.0,
        augment: Augment::NONE,
        layers: Vec::new(),
        kernels: Choices::default(),
    }
}

/// Lin, Chen and Yan, "Network In Network", and its Caffe solver: batch 128, momentum 0.9, weight
/// decay 1e-4, dropout 0.5, the rate divided by ten twice, flips and shifts of 4 pixels. The rate
/// is half of Caffe's 0.1: Kaiming weights start larger than Caffe's.
fn paper_cifar(base: TrainConfig) -> TrainConfig {
    TrainConfig {
        in_channels: 3,
        image_size: 32,
        epochs: 100,
        lr: 0.05,
        momentum: 0.9,
        weight_decay: 1e-4,
        schedule: Schedule::Step,
        step_epochs: 40,
        init: Init::Kaiming,
        augment: Augment { flip: true, shift: 4, ..Augment::NONE },
        ..base
    }
}

/// The Caffe model zoo's NiN for ImageNet: batch 64, rate 0.01 divided by ten at 4/9 and 8/9 of
/// the run, momentum 0.9, weight decay 5e-4. Mean and std are those of torchvision.
fn caffe_imagenet(base: TrainConfig) -> TrainConfig {
    TrainConfig {
        classes: 1000,
        in_channels: 3,
        image_size: 224,
        epochs: 90,
        batch_size: 64,
        lr: 0.01,
        momentum: 0.9,
        weight_decay: 5e-4,
        schedule: Schedule::Step,
        step_epochs: 40,
        init: Init::Kaiming,
        mean: vec![0.485, 0.456, 0.406],
        std: vec![0.229, 0.224, 0.225],
        augment: Augment { flip: true, shift: 0, ..Augment::NONE },
        ..base
    }
}

/// The recipe of the embedded weights, for Fashion-MNIST on a CPU.
fn small(base: TrainConfig) -> TrainConfig {
    TrainConfig {
        image_size: 28,
        epochs: 20,
        batch_size: 32,
        lr: 0.04,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 5e-4,
        schedule: Schedule::Cosine,
        warmup_epochs: 0.5,
        dropout: 0.0,
        init: Init::Kaiming,
        head_bias: Some(5.0),
        mean: vec![0.2860],
        std: vec![0.3530],
        augment: Augment { flip: true, shift: 0, ..Augment::NONE },
        ..base
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::ErrorKind;

    #[test]
    fn defaults_are_valid_and_survive_toml() {
        for model in MODELS {
            let mut config = TrainConfig::defaults(model).unwrap();
            config.validate().unwrap();
            config.data = "a \"folder\"".into();
            config.limit_train = Some(100);
            config.data_dir = Some("data".into());
            let text = config.to_toml().unwrap();
            assert_eq!(TrainConfig::from_toml(&text).unwrap(), config, "{text}");
        }
        let error = TrainConfig::defaults("alexnet").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().starts_with("--model must be one of: nin, nin-one-1x1, nin-cifar,"));
    }

    #[test]
    fn nin_is_the_d2l_recipe() {
        let text = TrainConfig::defaults("nin").unwrap().to_toml().unwrap();
        let expected = r#"model = "nin"
classes = 10
in_channels = 1
image_size = 224
data = ""
epochs = 10
batch_size = 128
grad_accum = 1
optimizer = "sgd"
lr = 0.1
momentum = 0.0
nesterov = false
weight_decay = 0.0
schedule = "constant"
step_epochs = 30
step_gamma = 0.1
warmup_epochs = 0.0
dropout = 0.5
seed = 0
init = "xavier"
precision = "f32"
shuffle = true
mean = [0.0]
std = [1.0]
log_every = 50
checkpoint_every = "5m"
keep = 0

[augment]
flip = false
shift = 0
cutout = 0
brightness = 0.0
contrast = 0.0
"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn other_channel_counts_average_the_normalisation() {
        let mut config = TrainConfig::defaults("nin-imagenet").unwrap();
        config.set_in_channels(1);
        assert!((config.mean[0] - 0.449).abs() < 1e-12 && config.mean.len() == 1);
        config.validate().unwrap();
    }
}
