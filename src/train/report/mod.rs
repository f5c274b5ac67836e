//! `report.html`: what there is to see of a run, as one page without links to anything outside.
//!
//! [`Facts::gather`] reads the run's folder and its data set, [`Facts::page`] makes the page of it, [`write`] does both.

mod analysis;
mod classes;
mod html;
mod page;
mod picture;

use super::TrainError;
use super::config::TrainConfig;
use super::error::RunError;
use super::fit::{Follow, open_data};
use super::metrics::{self, EpochLine, MetricsLine};
use super::predict::{Evaluation, Prediction, predictions};
use super::run_dir::RunDir;
use super::sessions::{self, Session};
use super::trained::TrainedModel;
use crate::data::{Source, Split, batches_per_epoch};
use crate::files::replace_file;
use crate::gpu::Gpu;
use crate::weights::{self, WeightFile, WeightsError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most mistakes that are shown as pictures.
const MISTAKES: usize = 24;
/// Most filters that are shown.
const FILTERS: usize = 256;

/// What a page is made of.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The resolved configuration.
    pub config: TrainConfig,
    /// The same as it stands in `config.toml`.
    pub config_text: String,
    /// Name of the data set.
    pub data: String,
    /// When and where the run was started and went on.
    pub sessions: Vec<Session>,
    /// Losses and accuracies.
    pub lines: Vec<MetricsLine>,
    /// Updates of an epoch.
    pub steps_per_epoch: u64,
    /// Training and test images.
    pub images: [usize; 2],
    /// Trained scalars.
    pub parameters: usize,
    /// Name of each class.
    pub classes: Vec<String>,
    /// File name of the weights that were measured.
    pub weights: String,
    /// What they came to on the test images; none without any.
    pub evaluation: Option<Evaluation>,
    /// The wrong answers that the model was surest of, the surest first.
    pub mistakes: Vec<Mistake>,
    /// The first layer's filters as pictures in `data:` addresses.
    pub filters: Vec<String>,
    /// Their shape: channels, height, width.
    pub filter_shape: [usize; 3],
}

/// A wrong answer, with the picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistake {
    /// Number of the test image, from 0.
    pub image: usize,
    /// The answer.
    pub prediction: Prediction,
    /// The picture in a `data:` address.
    pub picture: String,
}

/// Writes `report.html` for what `predictions` say of the test images, and returns its path. None of them for a run without test
/// images.
pub fn write(dir: &RunDir, predictions: &[Prediction]) -> Result<PathBuf, TrainError> {
    let page = Facts::gather(dir, predictions)?.page();
    let path = dir.report();
    replace_file(&path, |writer| writer.write_all(page.as_bytes())).map_err(RunError::io(&path, "write the report"))?;
    Ok(path)
}

/// Runs a run's best weights over its test images, as [`write`] takes them; `progress` gets how many of how many are done.
pub fn measure(gpu: &Gpu, dir: &RunDir, progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<Prediction>, TrainError> {
    let config = dir.read_config()?;
    let dataset = open_data(&config, Follow::NOTHING)?;
    let (_, path, mut file) = best_weights(dir)?;
    let Some(metadata) = file.metadata.take() else { return Err(undescribed(&file).into()) };
    let trained = TrainedModel::described(file, metadata, Some(&path))?;
    let images = dataset.test.len();
    if images == 0 {
        return Ok(Vec::new());
    }
    let test = trained.fit(&dataset, Split::Test)?.source;
    predictions(gpu, &trained, test, config.batch_size, config.precision, &mut |done| progress(done, images))
}

/// The weights that a run is judged by: the name of their file, its path, and what is in it.
fn best_weights(dir: &RunDir) -> Result<(String, PathBuf, WeightFile), WeightsError> {
    let best = dir.best_weights();
    let path = if best.is_file() { best } else { dir.last_weights() };
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let file = weights::load(&path)?;
    Ok((name, path, file))
}

fn undescribed(file: &WeightFile) -> RunError {
    RunError::Undescribed { path: file.source.clone() }
}

impl Facts {
    /// Reads everything but the predictions from the run's folder, and the pictures from its data set.
    pub fn gather(dir: &RunDir, predictions: &[Prediction]) -> Result<Self, TrainError> {
        let config = dir.read_config()?;
        let dataset = open_data(&config, Follow::NOTHING)?;
        let (weights, _, file) = best_weights(dir)?;
        let classes = file.metadata.as_ref().ok_or_else(|| undescribed(&file))?.classes.clone();
        let (filters, filter_shape) = filters(&file);
        let lines = metrics::read(&dir.metrics())?;
        Ok(Facts {
            config_text: read_text(&dir.config())?,
            data: dataset.name.clone(),
            sessions: sessions::read(&dir.sessions())?,
            lines,
            steps_per_epoch: batches_per_epoch(dataset.train.len(), config.images_per_update()) as u64,
            images: [dataset.train.len(), dataset.test.len()],
            parameters: file.tensors.iter().map(|tensor| tensor.data.len()).sum(),
            weights,
            evaluation: (!predictions.is_empty()).then(|| Evaluation::of(predictions, classes.len())),
            mistakes: mistakes(&dataset.test, predictions)?,
            classes,
            filters,
            filter_shape,
            config,
        })
    }

    /// The page.
    pub fn page(&self) -> String {
        page::page(self)
    }

    /// The lines of epochs.
    fn epochs(&self) -> impl Iterator<Item = &EpochLine> {
        self.lines.iter().filter_map(|line| match line {
            MetricsLine::Epoch(line) => Some(line),
            MetricsLine::Step(_) => None,
        })
    }

    /// The epoch whose weights were kept as the best.
    fn best_epoch(&self) -> Option<&EpochLine> {
        self.epochs().filter(|line| line.test_acc.is_finite()).fold(None, |best: Option<&EpochLine>, line| match best {
            Some(best) if !line.is_better_than(Some((best.test_acc, best.test_loss))) => Some(best),
            _ => Some(line),
        })
    }

    /// Name of a class.
    fn class(&self, index: usize) -> String {
        self.classes.get(index).cloned().unwrap_or_else(|| index.to_string())
    }
}

fn read_text(path: &Path) -> Result<String, RunError> {
    std::fs::read_to_string(path).map_err(RunError::io(path, "read the configuration"))
}

fn mistakes(test: &Arc<dyn Source>, predictions: &[Prediction]) -> Result<Vec<Mistake>, TrainError> {
    let shape = test.shape();
    let mut pixels = vec![0; shape.iter().product()];
    let mut found = Vec::new();
    for index in analysis::surest_mistakes(predictions, MISTAKES) {
        let prediction = predictions[index];
        let image = prediction.image as usize;
        test.read(image, &mut pixels)?;
        found.push(Mistake { image, prediction, picture: picture::thumbnail(&pixels, shape) });
    }
    Ok(found)
}

/// The filters of the first convolution, `[out, in, height, width]`, and the shape of one.
fn filters(file: &WeightFile) -> (Vec<String>, [usize; 3]) {
    let Some((tensor, [channels, height, width])) = file.tensors.iter().find_map(|tensor| match tensor.shape[..] {
        [_, channels, height, width] => Some((tensor, [channels, height, width])),
        _ => None,
    }) else {
        return (Vec::new(), [0; 3]);
    };
    let shape = [channels, height, width];
    let size = shape.iter().product::<usize>().max(1);
    (tensor.data.chunks_exact(size).take(FILTERS).map(|weights| picture::filter(weights, shape)).collect(), shape)
}
