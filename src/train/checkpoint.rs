//! What a run needs to go on exactly where it was: `state/`.
//!
//! `step-N.safetensors` holds parameters and optimizer state, `manifest.json` everything else and
//! the tensors' SHA-256. The manifest is written last and replaced as a whole, and the tensors it
//! names are removed only after the next manifest is in place. So whatever moment the machine
//! stops at, one manifest with its tensors is there.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::TrainConfig;
use super::error::RunError;
use super::progress::Progress;
use crate::data::difference;
use crate::digest::{HashingWriter, file_sha256, hex};
use crate::errors::{label, one_line};
use crate::ops::LossScale;
use crate::shape::Element;
use crate::weights::{self, Encoder, NamedTensor, PARTIAL, replace_file};

const MANIFEST: &str = "manifest.json";
/// Raised when the meaning of a field changes.
const FORMAT: u32 = 1;
/// Far above what a manifest needs.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// A run at one moment, between two updates.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Updates done since the start.
    pub step: u64,
    /// Epochs that are complete, their test included.
    pub epoch: u64,
    /// Updates done in the epoch that is not complete.
    pub step_in_epoch: u64,
    /// The network's parameters.
    pub parameters: Vec<NamedTensor>,
    /// Per kind of optimizer state (`momentum`, ...) its tensors. A kind's name has no `/`.
    pub optimizer: Vec<(String, Vec<NamedTensor>)>,
    /// Loss scaling of mixed precision.
    pub loss_scale: Option<LossScale>,
    /// Best test accuracy so far, that of `best.safetensors`.
    pub best_accuracy: Option<f64>,
    /// Test loss of `best.safetensors`, where it is known; in a run without test images the lowest mean training loss of an epoch.
    pub best_loss: Option<f64>,
    /// What the epochs so far mean for the learning rate and for stopping early.
    pub progress: Progress,
    /// Sums that the next lines of the metrics are made of.
    pub sums: RunningSums,
    /// Key of all randomness.
    pub seed: u64,
    /// [`super::config::TrainConfig::hash`].
    pub config_hash: String,
    /// Hash of the training data, whatever the reader defines.
    pub data_fingerprint: String,
    /// SHA-256 of the whitening, where the run has one.
    pub whitening: Option<String>,
}

/// What was added up since the last epoch and since the last step line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RunningSums {
    /// Losses of the epoch's images so far.
    pub epoch_loss: f64,
    /// How many of them were recognised.
    pub epoch_correct: u64,
    /// How many they are.
    pub epoch_images: u64,
    /// Seconds spent on the epoch so far.
    pub epoch_seconds: f64,
    /// Losses of the updates since the last step line.
    pub line_loss: f64,
    /// How many updates these are.
    pub line_steps: u64,
}

impl Checkpoint {
    /// A run before its first update.
    pub fn first(
        config: &TrainConfig,
        data_fingerprint: &str,
        parameters: Vec<NamedTensor>,
        optimizer: Vec<(String, Vec<NamedTensor>)>,
        loss_scale: Option<LossScale>,
    ) -> Self {
        Checkpoint {
            step: 0,
            epoch: 0,
            step_in_epoch: 0,
            parameters,
            optimizer,
            loss_scale,
            best_accuracy: None,
            best_loss: None,
            progress: Progress::default(),
            sums: RunningSums::default(),
            seed: config.seed,
            config_hash: config.hash(),
            data_fingerprint: data_fingerprint.to_string(),
            whitening: None,
        }
    }

    /// Writes the checkpoint to the folder `state`, which is made where it is absent. After an
    /// error the earlier checkpoint is still the valid one.
    pub fn save(&self, state: &Path) -> Result<(), RunError> {
        fs::create_dir_all(state).map_err(RunError::io(state, "make the folder"))?;
        let file = self.tensors_name(state);
        let path = state.join(&file);

        let encoder = Encoder::new(&label(&path), self.named_tensors(), None, Element::F32)?;
        let mut written = None;
        replace_file(&path, |writer| {
            let mut writer = HashingWriter::new(writer);
            encoder.write_to(&mut writer)?;
            written = Some(writer.finish());
            Ok(())
        })
        .map_err(RunError::io(&path, "write the checkpoint"))?;
        let (sha256, bytes) = written.unwrap_or_default();

        let sealed = Sealed::new(self.manifest(Tensors { file: file.clone(), bytes, sha256 }));
        let path = state.join(MANIFEST);
        sealed
            .and_then(|sealed| {
                let text = serde_json::to_string_pretty(&sealed)? + "\n";
                replace_file(&path, |writer| writer.write_all(text.as_bytes()))
            })
            .inspect_err(|_| drop(fs::remove_file(state.join(&file))))
            .map_err(RunError::io(&path, "write the checkpoint"))?;
        remove_others(state, &file);
        Ok(())
    }

    /// Reads the checkpoint in the folder `state`, whole or not at all.
    pub fn load(state: &Path) -> Result<Self, RunError> {
        let manifest = Sealed::read(state)?;
        let path = state.join(&manifest.tensors.file);
        let damaged = |reason: String| RunError::Damaged { path: label(&path), reason };
        let bytes = match fs::metadata(&path) {
            Ok(info) => info.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("the file is missing".into()));
            }
            Err(error) => return Err(RunError::io(&path, "read the checkpoint")(error)),
        };
        if bytes != manifest.tensors.bytes {
            let expected = manifest.tensors.bytes;
            return Err(damaged(format!("it has {bytes} bytes instead of {expected}")));
        }
        let sha256 = file_sha256(&path).map_err(RunError::io(&path, "read the checkpoint"))?;
        if sha256 != manifest.tensors.sha256 {
            return Err(damaged("its SHA-256 is not the manifest's".into()));
        }
        let file = weights::load(&path)?;
        let (parameters, optimizer) = sort_tensors(file.tensors).map_err(damaged)?;
        Ok(manifest.checkpoint(parameters, optimizer))
    }

    /// Refuses to go on with another configuration or other data than the run began with. `state`
    /// is the folder that the checkpoint was read from.
    pub fn require_same_run(&self, state: &Path, config_hash: &str, data_fingerprint: &str) -> Result<(), RunError> {
        let different = |what| Err(RunError::Different { path: label(state), what });
        if self.config_hash != config_hash {
            return different("configuration (model, optimizer, schedule, batch or seed)");
        }
        difference(&self.data_fingerprint, data_fingerprint).map_or(Ok(()), different)
    }

    /// Refuses tensors that are not those of the model: `parameters` are its names and shapes, and the optimizer keeps tensors
    /// of the same names and shapes under each of `kinds`.
    pub fn require_tensors(&self, state: &Path, parameters: &[(String, Vec<usize>)], kinds: &[&str]) -> Result<(), RunError> {
        let damaged = |reason: String| RunError::Damaged { path: label(state), reason };
        let is_expected = |tensors: &[NamedTensor]| {
            let same = |(tensor, (name, shape)): (&NamedTensor, &(String, Vec<usize>))| tensor.name == *name && tensor.shape == *shape;
            tensors.len() == parameters.len() && tensors.iter().zip(parameters).all(same)
        };
        if !is_expected(&self.parameters) {
            return Err(damaged("its parameters are not those of the model".into()));
        }
        let found: Vec<&str> = self.optimizer.iter().map(|(kind, _)| kind.as_str()).collect();
        if found != kinds || !self.optimizer.iter().all(|(_, tensors)| is_expected(tensors)) {
            return Err(damaged("its optimizer state is not that of the configuration".into()));
        }
        Ok(())
    }

    /// `step-N.safetensors`, or a second name where the manifest in place uses the first.
    fn tensors_name(&self, state: &Path) -> String {
        let name = format!("step-{}.safetensors", self.step);
        match Sealed::read(state) {
            Ok(manifest) if manifest.tensors.file == name => {
                format!("step-{}b.safetensors", self.step)
            }
            _ => name,
        }
    }

    fn named_tensors(&self) -> impl Iterator<Item = (String, &NamedTensor)> {
        let parameters = self.parameters.iter();
        let parameters = parameters.map(|tensor| (format!("parameter/{}", tensor.name), tensor));
        let optimizer = self.optimizer.iter().flat_map(|(kind, tensors)| {
            let tensors = tensors.iter();
            tensors.map(move |tensor| (format!("optimizer/{kind}/{}", tensor.name), tensor))
        });
        parameters.chain(optimizer)
    }

    fn manifest(&self, tensors: Tensors) -> Manifest {
        Manifest {
            format: FORMAT,
            step: self.step,
            epoch: self.epoch,
            step_in_epoch: self.step_in_epoch,
            loss_scale: self.loss_scale.map(SavedLossScale::from),
            best_accuracy: self.best_accuracy.map(Exact),
            best_loss: self.best_loss.map(Exact),
            progress: SavedProgress::from(self.progress),
            epoch_loss: Exact(self.sums.epoch_loss),
            epoch_correct: self.sums.epoch_correct,
            epoch_images: self.sums.epoch_images,
            epoch_seconds: Exact(self.sums.epoch_seconds),
            line_loss: Exact(self.sums.line_loss),
            line_steps: self.sums.line_steps,
            seed: self.seed,
            config_hash: self.config_hash.clone(),
            data_fingerprint: self.data_fingerprint.clone(),
            whitening: self.whitening.clone(),
            tensors,
        }
    }
}

type Groups = (Vec<NamedTensor>, Vec<(String, Vec<NamedTensor>)>);

/// Undoes `named_tensors`: the file keeps the order of the tensors, and so of the kinds.
fn sort_tensors(tensors: Vec<NamedTensor>) -> Result<Groups, String> {
    let mut parameters = Vec::new();
    let mut optimizer: Vec<(String, Vec<NamedTensor>)> = Vec::new();
    for mut tensor in tensors {
        let full = std::mem::take(&mut tensor.name);
        if let Some(name) = full.strip_prefix("parameter/") {
            tensor.name = name.to_string();
            parameters.push(tensor);
            continue;
        }
        let Some((kind, name)) = full.strip_prefix("optimizer/").and_then(|rest| rest.split_once('/')) else {
            return Err(format!("unknown tensor '{}'", one_line(&full, 80)));
        };
        tensor.name = name.to_string();
        match optimizer.last_mut() {
            Some((last, tensors)) if last == kind => tensors.push(tensor),
            _ => optimizer.push((kind.to_string(), vec![tensor])),
        }
    }
    Ok((parameters, optimizer))
}

/// Removes what earlier checkpoints and killed processes left. Failing to is no reason to stop:
/// the next checkpoint tries again.
fn remove_others(state: &Path, keep: &str) {
    let Ok(entries) = fs::read_dir(state) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let ours = name.starts_with("step-") && name.ends_with(".safetensors") && name != keep;
        let partial = name.starts_with(".step-") && name.ends_with(PARTIAL);
        if ours || partial {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A checkpoint without its tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    step: u64,
    epoch: u64,
    step_in_epoch: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss_scale: Option<SavedLossScale>,
    best_accuracy: Option<Exact>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    best_loss: Option<Exact>,
    #[serde(default)]
    progress: SavedProgress,
    epoch_loss: Exact,
    epoch_correct: u64,
    epoch_images: u64,
    epoch_seconds: Exact,
    line_loss: Exact,
    line_steps: u64,
    seed: u64,
    config_hash: String,
    data_fingerprint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    whitening: Option<String>,
    tensors: Tensors,
}

/// Loss scaling, whose floats are f32.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedLossScale {
    scale: Exact,
    good_steps: u32,
    skipped_steps: u32,
    bias_corrections: [Exact; 2],
}

impl From<LossScale> for SavedLossScale {
    fn from(state: LossScale) -> Self {
        let LossScale { scale, good_steps, skipped_steps, bias_corrections } = state;
        let bias_corrections = bias_corrections.map(|value| Exact(value.into()));
        SavedLossScale { scale: Exact(scale.into()), good_steps, skipped_steps, bias_corrections }
    }
}

impl From<SavedLossScale> for LossScale {
    fn from(saved: SavedLossScale) -> Self {
        let SavedLossScale { scale, good_steps, skipped_steps, bias_corrections } = saved;
        LossScale { scale: scale.0 as f32, good_steps, skipped_steps, bias_corrections: bias_corrections.map(|value| value.0 as f32) }
    }
}

/// What the epochs so far mean for the next ones.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedProgress {
    best_loss: Option<Exact>,
    bad_epochs: u32,
    reductions: u32,
    epochs_since_best: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    setbacks: u32,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl From<Progress> for SavedProgress {
    fn from(progress: Progress) -> Self {
        let Progress { best_loss, bad_epochs, reductions, epochs_since_best, setbacks } = progress;
        SavedProgress { best_loss: best_loss.map(Exact), bad_epochs, reductions, epochs_since_best, setbacks }
    }
}

impl From<SavedProgress> for Progress {
    fn from(saved: SavedProgress) -> Self {
        let SavedProgress { best_loss, bad_epochs, reductions, epochs_since_best, setbacks } = saved;
        Progress { best_loss: best_loss.map(|exact| exact.0), bad_epochs, reductions, epochs_since_best, setbacks }
    }
}

/// The file with the tensors, and how to know that it is whole.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tensors {
    /// Its name in the same folder.
    file: String,
    bytes: u64,
    sha256: String,
}

impl Manifest {
    fn checkpoint(self, parameters: Vec<NamedTensor>, optimizer: Vec<(String, Vec<NamedTensor>)>) -> Checkpoint {
        Checkpoint {
            step: self.step,
            epoch: self.epoch,
            step_in_epoch: self.step_in_epoch,
            parameters,
            optimizer,
            loss_scale: self.loss_scale.map(LossScale::from),
            best_accuracy: self.best_accuracy.map(|exact| exact.0),
            best_loss: self.best_loss.map(|exact| exact.0),
            progress: self.progress.into(),
            sums: RunningSums {
                epoch_loss: self.epoch_loss.0,
                epoch_correct: self.epoch_correct,
                epoch_images: self.epoch_images,
                epoch_seconds: self.epoch_seconds.0,
                line_loss: self.line_loss.0,
                line_steps: self.line_steps,
            },
            seed: self.seed,
            config_hash: self.config_hash,
            data_fingerprint: self.data_fingerprint,
            whitening: self.whitening,
        }
    }

    /// SHA-256 over the compact JSON, so over every value and no layout.
    fn sha256(&self) -> io::Result<String> {
        Ok(hex(&Sha256::digest(serde_json::to_vec(self)?)))
    }
}

/// `manifest.json`: the manifest with a hash over itself, as a flipped digit is valid JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    manifest: Manifest,
    sha256: String,
}

impl Sealed {
    fn new(manifest: Manifest) -> io::Result<Self> {
        let sha256 = manifest.sha256()?;
        Ok(Self { manifest, sha256 })
    }

    fn read(state: &Path) -> Result<Manifest, RunError> {
        let path = state.join(MANIFEST);
        let damaged = |reason: &str| RunError::Damaged { path: label(&path), reason: one_line(reason, 200) };
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RunError::NoCheckpoint { path: label(state) });
            }
            Err(error) => return Err(RunError::io(&path, "read the checkpoint")(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_MANIFEST_BYTES).read_to_end(&mut bytes).map_err(RunError::io(&path, "read the checkpoint"))?;
        let sealed: Self = serde_json::from_slice(&bytes).map_err(|error| damaged(&error.to_string()))?;
        let manifest = sealed.manifest;
        if manifest.sha256().ok() != Some(sealed.sha256) {
            return Err(damaged("its SHA-256 does not fit its content"));
        }
        if manifest.format != FORMAT {
            return Err(damaged("it is of another version of this program"));
        }
        let name = &manifest.tensors.file;
        if !name.starts_with("step-") || name.contains(['/', '\\']) {
            return Err(damaged("it names a file outside its folder"));
        }
        Ok(manifest)
    }
}

/// A float that comes back bit for bit: as the shortest decimal text that Rust reads to the same
/// value, where JSON parsers may be off by one in the last place.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
struct Exact(f64);

impl From<Exact> for String {
    fn from(Exact(value): Exact) -> Self {
        format!("{value:?}")
    }
}

impl TryFrom<String> for Exact {
    type Error = std::num::ParseFloatError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests;
