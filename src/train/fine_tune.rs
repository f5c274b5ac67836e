//! Starting a run from weights: all of them, or all but the head where the weights know another number of classes.

use super::TrainError;
use super::config::TrainConfig;
use super::init::initial_parameters;
use super::settings::{expected_tensors, model_options};
use crate::graph::Graph;
use crate::models::{BuildError, Model, ModelOptions};
use crate::weights::{self, NamedTensor, WeightFile};
use std::path::Path;

/// The parameters of `description` from the weights at `path`. Layers whose shape depends on the number of classes start anew
/// where that is another, which `note` is told.
pub(super) fn starting_parameters(
    path: &Path,
    model: &Model,
    description: &Graph,
    config: &TrainConfig,
    note: &mut dyn FnMut(&str),
) -> Result<Vec<NamedTensor>, TrainError> {
    let file = weights::load(path)?;
    file.notes.iter().for_each(|text| note(text));
    let wanted = expected_tensors(description);
    let Some(classes) = other_classes(&file, &wanted) else {
        return Ok(file.match_parameters(&wanted)?.into_iter().cloned().collect());
    };
    let theirs = model.describe(&ModelOptions { classes, ..model_options(config) }).map_err(BuildError::from)?;
    let known = file.match_parameters(&expected_tensors(&theirs))?;
    let mut head: Vec<String> = Vec::new();
    let mut parameters = initial_parameters(description, config);
    for (parameter, known) in parameters.iter_mut().zip(known) {
        if parameter.shape == known.shape {
            parameter.data.clone_from(&known.data);
            continue;
        }
        let layer = parameter.name.rsplit_once('.').map_or(parameter.name.as_str(), |(layer, _)| layer);
        if head.last().is_none_or(|last| last != layer) {
            head.push(layer.to_string());
        }
    }
    note(&format!(
        "{} knows {classes} classes, this run has {}: the head (layer{} {}) starts anew, everything else from the weights",
        file.source,
        config.classes,
        if head.len() == 1 { "" } else { "s" },
        head.join(", ")
    ));
    Ok(parameters)
}

/// The number of classes of a file whose last bias has another length than the model's.
fn other_classes(file: &WeightFile, wanted: &[(String, Vec<usize>)]) -> Option<usize> {
    let (name, shape) = wanted.last()?;
    let found = file.tensors.iter().find(|tensor| tensor.name == *name)?;
    match (&found.shape[..], &shape[..]) {
        ([theirs], [ours]) if theirs != ours && *theirs > 0 => Some(*theirs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::save;

    /// Tensors of the file and of the run, and what was said.
    type Started = (Vec<NamedTensor>, Vec<NamedTensor>, Vec<String>);

    fn start(classes: usize, file_of: &str, file_classes: usize) -> Result<Started, TrainError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let describe = |model: &Model, config: &TrainConfig| model.describe(&model_options(config)).unwrap();
        let mut other = TrainConfig::defaults(file_of).unwrap();
        (other.classes, other.seed) = (file_classes, 7);
        let saved = initial_parameters(&describe(Model::find(file_of).unwrap(), &other), &other);
        save(&path, &saved, None).unwrap();
        let mut config = TrainConfig::defaults("nin-small").unwrap();
        config.classes = classes;
        let model = Model::find("nin-small").unwrap();
        let mut notes = Vec::new();
        let parameters = starting_parameters(&path, model, &describe(model, &config), &config, &mut |text| notes.push(text.into()))?;
        Ok((saved, parameters, notes))
    }

    #[test]
    fn the_head_starts_anew_for_other_classes() {
        let (saved, parameters, notes) = start(3, "nin-small", 10).unwrap();
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains("knows 10 classes, this run has 3: the head (layer 5.4) starts anew"), "{}", notes[0]);
        for (saved, parameter) in saved.iter().zip(&parameters) {
            assert_eq!(parameter.name, saved.name);
            assert_eq!(parameter.data == saved.data, !saved.name.starts_with("5.4."), "{}", saved.name);
        }
        assert_eq!(parameters.last().unwrap().shape, [3]);
    }

    #[test]
    fn other_differences_stay_errors() {
        let (saved, parameters, notes) = start(10, "nin-small", 10).unwrap();
        assert!(notes.is_empty() && saved == parameters);
        assert!(matches!(start(3, "nin-cifar", 10), Err(TrainError::Weights(_))));
    }
}
