//! What may change between the sessions of a run, and where its files are found again.

use crate::data::catalog::KnownSet;
use crate::errors::label;
use crate::train::RunError;
use crate::train::config::{Schedule, TrainConfig};
use crate::train::run_dir::RunDir;
use std::path::{Path, PathBuf};

/// The configuration that a run goes on with: its own, with when to save, how many epochs, and where the data lies as wanted.
pub(super) fn configuration(dir: &RunDir, wanted: TrainConfig) -> Result<TrainConfig, RunError> {
    let saved = dir.read_config()?;
    let TrainConfig { checkpoint_every, keep, epochs, data, data_dir, .. } = wanted;
    let config = TrainConfig { checkpoint_every, keep, epochs, data, data_dir, ..saved.clone() };
    if epochs != saved.epochs && matches!(saved.schedule, Schedule::Cosine | Schedule::OneCycle) {
        return Err(refused(
            dir,
            epochs,
            format!(
                "the learning rate of this run falls by the schedule {schedule} to its end after {} epochs, so that with another \
                 number every update would have been another; start a run from its weights: \
                 --recipe {config} --initial-weights {last} --epochs N, with a smaller --lr",
                saved.epochs,
                schedule = saved.schedule,
                config = label(&dir.config()),
                last = label(&dir.last_weights()),
            ),
        ));
    }
    Ok(config)
}

/// Refuses fewer epochs than a run has trained.
pub(super) fn require_epochs(dir: &RunDir, config: &TrainConfig, trained: u64) -> Result<(), RunError> {
    if u64::from(config.epochs) >= trained {
        return Ok(());
    }
    Err(refused(dir, config.epochs, format!("this run has trained {trained} epochs; give at least as many")))
}

fn refused(dir: &RunDir, wanted: u32, reason: String) -> RunError {
    RunError::Epochs { path: label(dir.path()), wanted, reason }
}

/// Makes paths whole, so that they lead to the same files from every folder. The data set was found: a name is one of a known set.
pub(super) fn keep_places(config: &mut TrainConfig) -> Result<(), RunError> {
    let absolute = |path: &Path| std::path::absolute(path).map_err(RunError::io(path, "find the current folder"));
    if KnownSet::find(&config.data).is_none() {
        config.data = absolute(Path::new(&config.data))?.to_string_lossy().into_owned();
    }
    let whole = |path: &mut Option<PathBuf>| {
        if let Some(path) = path {
            *path = absolute(path)?;
        }
        Ok(())
    };
    whole(&mut config.data_dir)?;
    whole(&mut config.initial_weights)
}

/// Keeps what a session has changed for those that follow.
pub(super) fn update_places(dir: &RunDir, config: &TrainConfig) -> Result<(), RunError> {
    let saved = dir.read_config()?;
    let changed = TrainConfig { epochs: config.epochs, data: config.data.clone(), data_dir: config.data_dir.clone(), ..saved.clone() };
    if changed == saved { Ok(()) } else { dir.update_config(&changed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::ErrorKind;

    fn run(folder: &Path, schedule: Schedule) -> (RunDir, TrainConfig) {
        let run = RunDir::create(folder).unwrap();
        let config = TrainConfig { schedule, data: "pictures".into(), epochs: 3, ..TrainConfig::defaults("nin").unwrap() };
        run.write_config(&config, "nin-wgpu train").unwrap();
        (run, config)
    }

    #[test]
    fn epochs_may_grow_where_the_schedule_does_not_know_its_end() {
        for (schedule, may) in [
            (Schedule::Constant, true),
            (Schedule::Step, true),
            (Schedule::Plateau, true),
            (Schedule::Cosine, false),
            (Schedule::OneCycle, false),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let (run, config) = run(folder.path(), schedule);
            assert_eq!(configuration(&run, config.clone()).unwrap(), config);
            let longer = TrainConfig { epochs: 4, lr: 9.0, ..config.clone() };
            match configuration(&run, longer) {
                Ok(found) => assert!(may && found == TrainConfig { epochs: 4, ..config }, "{schedule}"),
                Err(error) => {
                    let message = error.to_string();
                    assert!(!may && error.kind() == ErrorKind::Usage, "{message}");
                    assert!(message.contains("--epochs 4: ") && message.contains("--initial-weights"), "{message}");
                }
            }
        }
    }

    #[test]
    fn epochs_that_are_trained_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (run, config) = run(folder.path(), Schedule::Constant);
        assert!(require_epochs(&run, &config, 3).is_ok());
        let message = require_epochs(&run, &config, 4).unwrap_err().to_string();
        assert!(message.contains("--epochs 3: this run has trained 4 epochs"), "{message}");
    }

    #[test]
    fn places_are_kept_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (run, mut config) = run(folder.path(), Schedule::Constant);
        config.data_dir = Some("data".into());
        config.initial_weights = Some("w.safetensors".into());
        keep_places(&mut config).unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(config.data, here.join("pictures").to_str().unwrap());
        assert_eq!((config.data_dir.clone(), config.initial_weights.clone()), (Some(here.join("data")), Some(here.join("w.safetensors"))));
        update_places(&run, &config).unwrap();
        let saved = run.read_config().unwrap();
        assert_eq!((saved.data, saved.data_dir), (config.data, config.data_dir));
        let mut named = TrainConfig { data: "mnist".into(), ..TrainConfig::defaults("nin").unwrap() };
        keep_places(&mut named).unwrap();
        assert_eq!(named.data, "mnist");
    }
}
