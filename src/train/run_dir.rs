//! The folder of a run: where its files lie, how it is made, found again and described.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as IoErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::config::TrainConfig;
use super::error::RunError;
use super::run_lock::{LOCK, RunLock};
use crate::errors::{label, one_line};
use crate::weights::{WHITENING_FILE, replace_file};

const CONFIG: &str = "config.toml";
const EPOCH_PREFIX: &str = "epoch-";
const WEIGHTS_SUFFIX: &str = ".safetensors";
const CONFIG_PARTIAL: &str = ".config.toml.partial";

/// A run's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes `parent/NAME-N` with the number after the highest that is there. Several processes
    /// may do so at once: each gets a folder of its own.
    pub fn create_numbered(parent: &Path, name: &str) -> Result<Self, RunError> {
        fs::create_dir_all(parent).map_err(RunError::io(parent, "make the folder"))?;
        let mut number = highest(parent, name)?.saturating_add(1);
        loop {
            let path = parent.join(format!("{name}-{number}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == IoErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(RunError::io(&path, "make the folder")(error)),
            }
        }
    }

    /// Makes the folder `path`, or takes it when it is there and empty.
    pub fn create(path: &Path) -> Result<Self, RunError> {
        if path.exists() && !path.is_dir() {
            return Err(RunError::Occupied { path: label(path) });
        }
        fs::create_dir_all(path).map_err(RunError::io(path, "make the folder"))?;
        let mut entries = fs::read_dir(path).map_err(RunError::io(path, "read the folder"))?;
        // A run that was killed before it had a configuration may have left its lock and half of one.
        let is_leftover = |name: &std::ffi::OsStr| matches!(name.to_str(), Some(CONFIG_PARTIAL | LOCK));
        if entries.any(|entry| !entry.is_ok_and(|entry| is_leftover(&entry.file_name()))) {
            return Err(RunError::Occupied { path: label(path) });
        }
        Ok(Self { path: path.to_path_buf() })
    }

    /// Finds the folder of an earlier run.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        if !path.join(CONFIG).is_file() {
            return Err(RunError::NotARun { path: label(path), missing: CONFIG });
        }
        Ok(Self { path: path.to_path_buf() })
    }

    /// Keeps other processes from training in the folder for as long as the lock lives; the system takes it back from a process
    /// that ends, however it ends. Fails where another holds it. `None` where the file system has no locks.
    pub fn lock(&self) -> Result<Option<RunLock>, RunError> {
        RunLock::take(&self.path)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// Losses and accuracies, a JSON object a line.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// The same as a picture.
    pub fn curves(&self) -> PathBuf {
        self.path.join("curves.svg")
    }

    /// Everything worth seeing of a finished run, see [`super::report`].
    pub fn report(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// When the run was started, and on which machine; see [`super::sessions`].
    pub fn sessions(&self) -> PathBuf {
        self.path.join("sessions.jsonl")
    }

    /// Weights after the last update that was saved.
    pub fn last_weights(&self) -> PathBuf {
        self.path.join("last.safetensors")
    }

    /// Weights after the epoch with the best test accuracy.
    pub fn best_weights(&self) -> PathBuf {
        self.path.join("best.safetensors")
    }

    /// The whitening that all of these weights need, where the run has one.
    pub fn whitening(&self) -> PathBuf {
        self.path.join(WHITENING_FILE)
    }

    /// Weights after epoch `epoch`, counted from 1, that `--keep` asks for.
    pub fn epoch_weights(&self, epoch: u64) -> PathBuf {
        self.path.join(format!("{EPOCH_PREFIX}{epoch:04}{WEIGHTS_SUFFIX}"))
    }

    /// Removes the weights of epochs after which `keep` others have been complete at `epoch`. Failing to is no reason to stop.
    pub fn remove_old_epochs(&self, epoch: u64, keep: u32) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(EPOCH_PREFIX)?.strip_suffix(WEIGHTS_SUFFIX)?.parse::<u64>().ok());
            if number.is_some_and(|number| number.saturating_add(keep.into()) <= epoch) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Whether the run has left a trace of its first step: a checkpoint is written before.
    pub fn has_begun(&self) -> bool {
        self.metrics().exists()
    }

    /// What going on needs, see [`super::checkpoint`].
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// The checkpoint that a run goes back to when it learns nothing any more.
    pub fn best_state(&self) -> PathBuf {
        self.state().join("best")
    }

    /// What happened, in words.
    pub fn log(&self) -> PathBuf {
        self.path.join("train.log")
    }

    /// Writes `config.toml`; `command` is kept in it as a comment.
    pub fn write_config(&self, config: &TrainConfig, command: &str) -> Result<(), RunError> {
        let command = one_line(command, 2000);
        self.write_text(&format!("# The resolved configuration of this run, started as:\n# {command}\n\n"), config)
    }

    /// Writes `config.toml` anew for a run that goes on; its comments stay.
    pub fn update_config(&self, config: &TrainConfig) -> Result<(), RunError> {
        let path = self.config();
        let text = fs::read_to_string(&path).map_err(RunError::io(&path, "read the configuration"))?;
        let comments: String = text.split_inclusive('\n').take_while(|line| line.starts_with('#') || line.trim().is_empty()).collect();
        self.write_text(&comments, config)
    }

    fn write_text(&self, comments: &str, config: &TrainConfig) -> Result<(), RunError> {
        let path = self.config();
        let text = config.to_toml().map_err(|error| RunError::Config { path: label(&path), reason: one_line(&error.to_string(), 200) })?;
        let text = format!("{comments}{text}");
        replace_file(&path, |writer| writer.write_all(text.as_bytes())).map_err(RunError::io(&path, "write the configuration"))
    }

    /// Reads `config.toml` and checks its values.
    pub fn read_config(&self) -> Result<TrainConfig, RunError> {
        let path = self.config();
        let wrong = |reason: String| RunError::Config { path: label(&path), reason: one_line(&reason, 200) };
        let bytes = fs::read(&path).map_err(RunError::io(&path, "read the configuration"))?;
        let text = String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
        // The parser's own message draws the line in question over several lines.
        let config = TrainConfig::from_toml(&text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(start).filter(|&byte| byte == b'\n').count() + 1;
            wrong(format!("line {line}: {}", error.message()))
        })?;
        config.validate().map_err(|error| wrong(error.to_string()))?;
        Ok(config)
    }

    /// Opens `train.log` for appending.
    pub fn open_log(&self) -> Result<RunLog, RunError> {
        let path = self.log();
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(RunError::io(&path, "open the log"))?;
        Ok(RunLog { path, file })
    }
}

/// The highest N among the entries `NAME-N`, or 0.
fn highest(parent: &Path, name: &str) -> Result<u64, RunError> {
    let entries = fs::read_dir(parent).map_err(RunError::io(parent, "read the folder"))?;
    let numbers = entries.flatten().filter_map(|entry| {
        let entry = entry.file_name();
        let number = entry.to_str()?.strip_prefix(name)?.strip_prefix('-')?;
        // Beyond this somebody else's naming is at work, such as a date.
        number.parse().ok().filter(|&number: &u64| number < 1_000_000)
    });
    Ok(numbers.max().unwrap_or(0))
}

/// `train.log`: a line per event, with its time.
#[derive(Debug)]
pub struct RunLog {
    path: PathBuf,
    file: File,
}

impl RunLog {
    /// Appends `text` with the time in UTC before it; line breaks are escaped.
    pub fn line(&mut self, text: &str) -> Result<(), RunError> {
        let line = format!("{} {}\n", now_utc(), one_line(text, 4000));
        self.file.write_all(line.as_bytes()).map_err(RunError::io(&self.path, "write the log"))
    }
}

/// The time in UTC, as `2025-11-22T06:51:09Z`.
pub(super) fn now_utc() -> String {
    utc(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A time since 1970 as `2025-11-22T06:51:09Z`.
fn utc(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, in eras of 400 (146,097 days), put the leap day last: see
    // Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day_of_month:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::ErrorKind;

    #[test]
    fn numbers_go_on_after_the_highest() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("deep").join("runs");
        let next = |name: &str| {
            let run = RunDir::create_numbered(&runs, name).unwrap();
            run.path().file_name().unwrap().to_str().unwrap().to_string()
        };
        assert_eq!(next("nin"), "nin-1");
        assert_eq!(next("nin-small"), "nin-small-1");
        assert_eq!(next("nin"), "nin-2");
        fs::create_dir(runs.join("nin-7")).unwrap();
        fs::create_dir(runs.join("nin-20251122120000")).unwrap();
        assert_eq!(next("nin"), "nin-8");
    }

    #[test]
    fn many_at_once_get_a_folder_each() {
        let folder = tempfile::tempdir().unwrap();
        let paths = std::sync::Mutex::new(std::collections::HashSet::new());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let run = RunDir::create_numbered(folder.path(), "nin").unwrap();
                        assert!(paths.lock().unwrap().insert(run.path));
                    }
                });
            }
        });
        assert_eq!(paths.into_inner().unwrap().len(), 40);
    }

    #[test]
    fn files_are_never_mixed_with_those_of_another_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        RunDir::create(&path).unwrap();
        let run = RunDir::create(&path).unwrap();
        let absent = RunDir::open(&path).unwrap_err();
        assert_eq!(absent.kind(), ErrorKind::Usage);
        assert!(absent.to_string().contains("no config.toml in it"), "{absent}");

        run.write_config(&TrainConfig::defaults("nin").unwrap(), "train").unwrap();
        let error = RunDir::create(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("pass --resume"), "{error}");
        assert_eq!(RunDir::open(&path).unwrap(), run);
        assert_eq!(RunDir::create(&run.config()).unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn the_lock_of_a_killed_process_is_no_run() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        fs::write(folder.path().join(LOCK), "1234\n").unwrap();
        assert_eq!(RunDir::create(folder.path()).unwrap(), run);
        assert!(run.lock().unwrap().is_some());
    }

    #[test]
    fn a_configuration_that_goes_on_keeps_its_comments() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        let mut config = TrainConfig::defaults("nin").unwrap();
        run.write_config(&config, "nin-wgpu train").unwrap();
        let before = fs::read_to_string(run.config()).unwrap();
        config.epochs = 99;
        run.update_config(&config).unwrap();
        assert_eq!(run.read_config().unwrap(), config);
        assert_eq!(fs::read_to_string(run.config()).unwrap(), before.replace("epochs = 10\n", "epochs = 99\n"));
    }

    #[test]
    fn half_a_configuration_is_no_run() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".config.toml.partial"), "mod").unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        run.write_config(&TrainConfig::defaults("nin").unwrap(), "train").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(!run.has_begun());
    }

    #[test]
    fn the_weights_of_the_last_epochs_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        let left = |epoch: u64, keep: u32| {
            run.remove_old_epochs(epoch, keep);
            let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        };
        for name in ["epoch-x.safetensors", "epoch-0001.txt", "best.safetensors"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        for epoch in [1, 2, 9, 10, 12345] {
            fs::write(run.epoch_weights(epoch), "").unwrap();
        }
        let others = ["best.safetensors", "epoch-0001.txt"];
        let kept = ["epoch-0009.safetensors", "epoch-0010.safetensors", "epoch-12345.safetensors", "epoch-x.safetensors"];
        assert_eq!(left(10, 2), [&others[..], &kept].concat());
        assert_eq!(left(20_000, 0), [&others[..], &kept[3..]].concat());
    }

    #[test]
    fn the_configuration_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        let config = TrainConfig::defaults("nin-cifar").unwrap();
        run.write_config(&config, "nin-wgpu train\n--data x").unwrap();
        assert_eq!(run.read_config().unwrap(), config);
        let text = fs::read_to_string(run.config()).unwrap();
        assert!(text.contains("# nin-wgpu train\\n--data x\n"), "{text}");

        for (from, to, words) in
            [("lr = 0.05", "lr = -1.0", "--lr must be"), ("lr = 0.05", "lr = x", "line 13"), ("lr = 0.05", "", "missing field `lr`")]
        {
            fs::write(run.config(), text.replace(from, to)).unwrap();
            let error = run.read_config().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadData);
            let message = error.to_string();
            assert!(message.contains(words) && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn the_log_grows_by_lines_with_their_time() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        run.open_log().unwrap().line("first").unwrap();
        run.open_log().unwrap().line("second\nthird").unwrap();
        let text = fs::read_to_string(run.log()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].ends_with("Z first") && lines[1].ends_with("Z second\\nthird"), "{text}");
    }

    #[test]
    fn dates_follow_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(Duration::from_secs(seconds)), text);
        }
    }
}
