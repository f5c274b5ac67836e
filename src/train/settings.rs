//! What a configuration means to the models, the device and the update.

use super::config::{self, ConfigError, TrainConfig, Whiten};
use crate::data::Dataset;
use crate::graph::Graph;
use crate::models::{InputOptions, LayerMultipliers, ModelOptions, Training, unknown_path};
use crate::ops::{Augment, ClipNorm, Ema, Multiplier, Optimizer};

/// What the model is adapted to.
pub fn model_options(config: &TrainConfig) -> ModelOptions {
    ModelOptions {
        classes: config.classes,
        in_channels: config.in_channels,
        image_size: [config.image_size; 2],
        dropout: config.dropout as f32,
    }
}

pub(super) fn input_options(config: &TrainConfig, source: [usize; 3]) -> InputOptions {
    let config::Augment { flip, shift, cutout, brightness, contrast } = config.augment;
    let augment = Augment { flip, shift, cutout, brightness: brightness as f32, contrast: contrast as f32 };
    InputOptions {
        source,
        resident: None,
        whiten: config.whiten == Whiten::Zca,
        mean: config.mean.iter().map(|v| *v as f32).collect(),
        std: config.std.iter().map(|v| *v as f32).collect(),
        augment: (augment != Augment::NONE).then_some(augment),
    }
}

/// How a configuration trains.
pub fn training(config: &TrainConfig) -> Training {
    let multiplier = |lr: f64, decay: f64| Multiplier { lr: lr as f32, decay: decay as f32 };
    let layer = |rates: &config::LayerRates| LayerMultipliers {
        path: rates.path.clone(),
        weight: multiplier(rates.lr, rates.decay),
        bias: multiplier(rates.bias_lr.unwrap_or(rates.lr * config.bias_lr), rates.bias_decay.unwrap_or(rates.decay * config.bias_decay)),
    };
    let weight_decay = config.weight_decay;
    let adam = |decoupled| Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay, decoupled };
    Training {
        optimizer: match config.optimizer {
            config::Optimizer::Sgd => Optimizer::Sgd { momentum: config.momentum, nesterov: config.nesterov, weight_decay },
            config::Optimizer::Adam => adam(false),
            config::Optimizer::AdamW => adam(true),
        },
        clip_norm: config.clip_norm.map(|max_norm| ClipNorm { max_norm }),
        ema: config.ema.map(|decay| Ema { decay }),
        label_smoothing: config.label_smoothing as f32,
        frozen: config.freeze.clone(),
        bias: multiplier(config.bias_lr, config.bias_decay),
        layers: config.layers.iter().map(layer).collect(),
    }
}

/// Names and shapes of a model's tensors, in the order of its weight file.
pub(super) fn expected_tensors(graph: &crate::graph::Graph) -> Vec<(String, Vec<usize>)> {
    graph.parameters.iter().map(|p| (p.name.clone(), graph.fact(p.value).shape.0.clone())).collect()
}

/// Refuses paths that name no layer of the model, a run that trains nothing, and stopping early without a test.
pub(super) fn check_training(config: &TrainConfig, graph: &Graph, dataset: &Dataset) -> Result<(), ConfigError> {
    let freeze = config.freeze.iter().map(|path| ("--freeze", path));
    let layers = config.layers.iter().map(|layer| ("layers", &layer.path));
    for (flag, path) in freeze.chain(layers) {
        if unknown_path(std::iter::once(path.as_str()), graph).is_some() {
            let reason = format!("names '{path}', which holds no layer of {}; `summary` lists their paths", config.model);
            return Err(ConfigError { flag, reason });
        }
    }
    let training = training(config);
    if graph.parameters.iter().all(|parameter| training.is_frozen(&parameter.name)) {
        return Err(ConfigError { flag: "--freeze", reason: "names every layer; nothing is left to train".into() });
    }
    if config.early_stop.is_some() && dataset.test.is_empty() {
        let reason = format!("needs test images, of which {} has none", dataset.name);
        return Err(ConfigError { flag: "--early-stop", reason });
    }
    Ok(())
}
