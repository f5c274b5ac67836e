//! Training runs.

use crate::data::Dataset;
use crate::gpu::{Gpu, GpuError, HalfProof, prove_half};
use crate::train::TrainError;
use crate::train::config::{ConfigError, Precision, TrainConfig};
use crate::train::fit::Follow;
use crate::train::recipes;
use crate::train::run_dir::RunDir;
use crate::train::trainer::{Observer, TrainOutcome, TrainRequest, train};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// A run that is to be trained.
///
/// Its folder is what the program's own runs leave: `nin-wgpu train --resume`, `report`, `infer` and [`Trainer::resume`] take
/// it. The same settings, data and device give the same weights, bit for bit.
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `train`"]
pub struct Trainer {
    request: TrainRequest,
}

impl Trainer {
    /// A run of an architecture (`nin`, `nin-cifar`, `nin-small`, ...) with its usual settings, on what `--data` takes: the name
    /// of a data set, or a folder. A folder's pictures decide about channels and normalisation, and few of them about
    /// warm-up and clipping; the number of epochs stays.
    pub fn new(model: &str, data: impl Into<String>) -> Result<Self, ConfigError> {
        let mut config = TrainConfig::defaults(model)?;
        config.data = data.into();
        Ok(Trainer { request: Self::request(config, Follow { epochs: false, ..Follow::EVERYTHING }) })
    }

    /// As [`Trainer::new`] on images of your own. They are not read again: [`Trainer::resume`] needs
    /// [`Trainer::with_dataset`], too.
    pub fn on(model: &str, dataset: Dataset) -> Result<Self, ConfigError> {
        let mut config = TrainConfig::defaults(model)?;
        config.set_in_channels(dataset.shape()[0]);
        let trainer = Trainer { request: Self::request(config, Follow::NOTHING) };
        Ok(trainer.with_dataset(dataset))
    }

    /// A run as a recipe wants it: the name of one that `nin-wgpu recipes` lists, or a TOML file.
    pub fn recipe(recipe: &str) -> Result<Self, TrainError> {
        Ok(Trainer { request: Self::request(recipes::load(recipe, None)?, Follow::NOTHING) })
    }

    /// Goes on with the run in a folder, exactly where it stopped.
    pub fn resume(folder: impl Into<PathBuf>) -> Result<Self, TrainError> {
        let folder = folder.into();
        let config = RunDir::open(&folder)?.read_config()?;
        Ok(Trainer { request: TrainRequest { resume: Some(folder), ..Self::request(config, Follow::NOTHING) } })
    }

    fn request(config: TrainConfig, follow: Follow) -> TrainRequest {
        TrainRequest {
            config,
            out: None,
            resume: None,
            initial_weights: None,
            command: "nin_wgpu::Trainer".into(),
            batch_size_auto: false,
            lose_device_at: Vec::new(),
            follow,
            dataset: None,
        }
    }

    /// Changes settings; `train` says which ones cannot be. A run that goes on keeps the settings in its folder.
    pub fn with(mut self, change: impl FnOnce(&mut TrainConfig)) -> Self {
        let before = self.request.config.clone();
        let (config, follow) = (&mut self.request.config, &mut self.request.follow);
        change(config);
        // What is set is meant.
        follow.warmup &= config.warmup_epochs == before.warmup_epochs;
        follow.clipping &= config.clip_norm == before.clip_norm;
        follow.head &= config.head_bias == before.head_bias && config.init == before.init;
        follow.rate &= config.lr == before.lr;
        self
    }

    /// Takes these images instead of what the settings name.
    pub fn with_dataset(mut self, dataset: Dataset) -> Self {
        self.request.config.data.clone_from(&dataset.name);
        self.request.dataset = Some(dataset);
        self
    }

    /// Where the run's files go: a folder that is new or empty. Without it `runs/NAME-N`.
    pub fn out(mut self, folder: impl Into<PathBuf>) -> Self {
        self.request.out = Some(folder.into());
        self
    }

    /// Starts from weights. Where they know another number of classes, the last layers start anew.
    pub fn initial_weights(mut self, file: impl Into<PathBuf>) -> Self {
        self.request.initial_weights = Some(file.into());
        self.request.follow = Follow::NOTHING;
        self
    }

    /// Trains to the end; `observer` hears how it goes, `&mut ()` does not mind.
    ///
    /// In mixed precision the device proves its kernels first; matrix units that compute wrongly are left out. A run that goes
    /// on uses the kernels that were chosen for it. Fails with [`GpuError::DeviceLost`] where the device is lost: open it again and [`Trainer::resume`].
    pub fn train(self, gpu: &mut Gpu, observer: &mut dyn Observer) -> Result<TrainOutcome, TrainError> {
        self.train_until(gpu, observer, &AtomicBool::new(false))
    }

    /// As [`Trainer::train`], until `stop` is set: the step under way is finished, and everything is saved.
    pub fn train_until(self, gpu: &mut Gpu, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<TrainOutcome, TrainError> {
        let config = &self.request.config;
        if config.precision == Precision::Mixed {
            let HalfProof { matrix_units, storage } = prove_half(gpu)?;
            if let Some(reason) = storage {
                return Err(GpuError::WrongHalf { adapter: gpu.adapter().name.clone(), reason }.into());
            }
            if matrix_units.is_some() {
                gpu.forbid_matrix_units();
            }
        }
        if self.request.resume.is_some() {
            gpu.use_choices(config.kernels.clone());
        }
        train(gpu, self.request, observer, stop)
    }
}
