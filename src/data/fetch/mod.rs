//! Downloading named data sets: resumed, verified, unpacked, and moved into place when whole.
//!
//! Everything happens in `.NAME.partial` beside the place where the set will be, so that a set is
//! there whole or not at all; what was loaded before an interruption is used by the next attempt.
//! Mirrors are not trusted: a file counts only with the SHA-256 of the [`catalog`](super::catalog).

mod client;
mod error;
mod unpack;
mod verify;

pub use error::FetchError;

use super::catalog::{Holds, KnownSet, RemoteFile};
use client::{Client, Transfer};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;
use verify::Verdict;

/// How to download.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// Base addresses to use instead of the catalogue's mirrors: a file is at `BASE/SET/FILE`.
    pub mirrors: Vec<String>,
    /// Attempts at each mirror that bring nothing new before the next mirror has its turn.
    pub attempts: u32,
    /// Pause before the second attempt; it doubles with each further one.
    pub pause: Duration,
    /// How long a connection may bring nothing.
    pub patience: Duration,
}

impl Default for FetchOptions {
    fn default() -> Self {
        FetchOptions { mirrors: Vec::new(), attempts: 4, pause: Duration::from_secs(1), patience: Duration::from_secs(30) }
    }
}

/// What happens during a download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchEvent {
    /// A file is asked for.
    File {
        /// Its name.
        name: String,
        /// The address.
        url: String,
        /// Bytes that are there already.
        present: u64,
        /// Bytes in all, as far as is known.
        total: u64,
    },
    /// Bytes of the current file that are there.
    Bytes(u64),
    /// Something went wrong that will be tried again or elsewhere.
    Trouble(String),
    /// Files are taken out of an archive.
    Unpacking(String),
}

/// Downloads `set` into the folder `NAME` of `data_folder` and returns that folder.
///
/// Fails where no mirror delivers, nothing that was delivered is right, or the disk refuses; what
/// arrived stays for the next attempt, and the set's folder is untouched.
pub fn fetch(
    set: &KnownSet,
    data_folder: &Path,
    options: &FetchOptions,
    observer: &mut dyn FnMut(FetchEvent),
) -> Result<PathBuf, FetchError> {
    let staging = data_folder.join(format!(".{}.partial", set.name));
    fs::create_dir_all(&staging).map_err(FetchError::io(&staging, "make the folder"))?;
    let lock = lock(&staging, set.name)?;

    let client = Client::new(options.patience);
    for file in set.remote {
        download(&client, set.name, file, &staging, options, observer)?;
    }
    let whole = staging.join("whole");
    assemble(set, &staging, &whole, observer)?;
    let target = data_folder.join(set.name);
    place(&whole, &target)?;
    drop(lock);
    // The set is in place: what cannot be removed is only litter.
    let _ = fs::remove_dir_all(&staging);
    Ok(target)
}

/// Keeps a second process out of the staging folder until the result is dropped.
fn lock(staging: &Path, set: &str) -> Result<File, FetchError> {
    let path = staging.join("lock");
    let file = File::create(&path).map_err(FetchError::io(&path, "make the file"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(FetchError::Busy { set: set.to_owned() }),
        Err(TryLockError::Error(error)) => Err(FetchError::io(&path, "lock the file")(error)),
    }
}

/// Brings a verified `file` into `staging`, from wherever it can be had.
fn download(
    client: &Client,
    set: &str,
    file: &RemoteFile,
    staging: &Path,
    options: &FetchOptions,
    observer: &mut dyn FnMut(FetchEvent),
) -> Result<(), FetchError> {
    let done = staging.join(file.name);
    if done.is_file() {
        if verify::verify(file, &done)? == Verdict::Right {
            return Ok(());
        }
        remove(&done)?;
    }
    let part = staging.join(format!("{}.part", file.name));
    let mut reasons = Vec::new();
    let mut is_wrong = false;
    for url in addresses(set, file, &options.mirrors) {
        // A file that was begun with another mirror's bytes gets a second chance from its first byte.
        for _ in 0..2 {
            let is_resumed = length(&part) > 0;
            let transfer = client.transfer(&url, file, &part, options, observer)?;
            let reason = match transfer {
                Transfer::Whole => match verify::verify(file, &part)? {
                    Verdict::Right => return fs::rename(&part, &done).map_err(FetchError::io(&done, "rename the file")),
                    Verdict::Wrong(reason) => {
                        remove(&part)?;
                        if is_resumed {
                            observer(FetchEvent::Trouble(format!("{url}: {reason}; starting again from the first byte")));
                            continue;
                        }
                        is_wrong = true;
                        reason
                    }
                },
                Transfer::Failed(reason) => reason,
            };
            observer(FetchEvent::Trouble(format!("{url}: {reason}")));
            reasons.push(format!("{url}: {reason}"));
            break;
        }
    }
    let reasons = reasons.join("; ");
    let name = file.name.to_owned();
    Err(if is_wrong { FetchError::Checksum { name, reasons } } else { FetchError::Unreachable { name, reasons } })
}

/// Where a file can be had, in the order of trying.
fn addresses(set: &str, file: &RemoteFile, mirrors: &[String]) -> Vec<String> {
    if mirrors.is_empty() {
        return file.mirrors.iter().map(|base| format!("{base}/{}", file.name)).collect();
    }
    mirrors.iter().map(|base| format!("{}/{set}/{}", base.trim_end_matches('/'), file.name)).collect()
}

/// Fills the folder `whole` with the set's files from the verified downloads.
fn assemble(set: &KnownSet, staging: &Path, whole: &Path, observer: &mut dyn FnMut(FetchEvent)) -> Result<(), FetchError> {
    if whole.exists() {
        fs::remove_dir_all(whole).map_err(FetchError::io(whole, "remove the folder"))?;
    }
    fs::create_dir(whole).map_err(FetchError::io(whole, "make the folder"))?;
    for file in set.remote {
        let source = staging.join(file.name);
        match file.holds {
            Holds::Archive(members) => {
                observer(FetchEvent::Unpacking(file.name.to_owned()));
                unpack::unpack(&source, members, whole)?;
            }
            Holds::Itself | Holds::Gzip(_) => {
                let target = whole.join(file.name);
                fs::hard_link(&source, &target)
                    .or_else(|_| fs::copy(&source, &target).map(drop))
                    .map_err(FetchError::io(&target, "copy the file"))?;
            }
        }
    }
    Ok(())
}

/// Moves the finished folder to its place; files of a folder that is there already are replaced one by one.
fn place(whole: &Path, target: &Path) -> Result<(), FetchError> {
    if !target.exists() {
        return fs::rename(whole, target).map_err(FetchError::io(target, "rename the folder"));
    }
    for entry in fs::read_dir(whole).map_err(FetchError::io(whole, "read the folder"))? {
        let entry = entry.map_err(FetchError::io(whole, "read the folder"))?;
        let to = target.join(entry.file_name());
        fs::rename(entry.path(), &to).map_err(FetchError::io(&to, "replace the file"))?;
    }
    Ok(())
}

/// Bytes of a file; none where there is no file.
fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len())
}

fn remove(path: &Path) -> Result<(), FetchError> {
    fs::remove_file(path).map_err(FetchError::io(path, "remove the file"))
}
