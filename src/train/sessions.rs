//! `sessions.jsonl`: one JSON object a line for each time that a run was started or went on, with the machine it ran on.

use super::error::RunError;
use super::run_dir::now_utc;
use crate::gpu::AdapterDescription;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// One start of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Session {
    /// UTC, as `2025-11-22T06:51:09Z`.
    pub started: String,
    /// The command as typed.
    pub command: String,
    /// Updates that were done before.
    pub first_step: u64,
    /// Name of the adapter.
    pub adapter: String,
    /// Its kind: `discrete`, `integrated`, `cpu`, ...
    pub kind: String,
    /// The interface it is reached through: `vulkan`, `metal`, ...
    pub backend: String,
    /// Name and version of the driver.
    pub driver: String,
    /// Operating system and processor architecture.
    pub system: String,
    /// Version of this program.
    pub version: String,
}

impl Session {
    /// One that starts now.
    pub fn starting(command: &str, first_step: u64, adapter: &AdapterDescription) -> Self {
        Session {
            started: now_utc(),
            command: command.to_owned(),
            first_step,
            adapter: adapter.name.clone(),
            kind: adapter.kind.to_owned(),
            backend: adapter.backend.to_owned(),
            driver: adapter.driver.clone(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Appends the line of this session.
    pub fn append(&self, path: &Path) -> Result<(), RunError> {
        let write = || {
            let mut line = serde_json::to_vec(self)?;
            line.push(b'\n');
            OpenOptions::new().create(true).append(true).open(path)?.write_all(&line)
        };
        write().map_err(RunError::io(path, "write the list of sessions"))
    }
}

/// Reads the sessions of a run, leaving out lines that are torn; none where there is no such file.
pub fn read(path: &Path) -> Result<Vec<Session>, RunError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(RunError::io(path, "read the list of sessions")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_add_up_and_torn_lines_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.jsonl");
        assert_eq!(read(&path).unwrap(), []);
        let first = Session { command: "nin-wgpu train\n--lr 0.1".into(), ..Default::default() };
        let second = Session { first_step: 7, ..first.clone() };
        first.append(&path).unwrap();
        second.append(&path).unwrap();
        assert_eq!(read(&path).unwrap(), [first.clone(), second]);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 3]).unwrap();
        assert_eq!(read(&path).unwrap(), [first]);
        assert!(read(folder.path()).is_err());
    }
}
