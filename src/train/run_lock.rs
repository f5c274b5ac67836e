//! The right to train in a run's folder: one process at a time, shown by a file that is there as long as it is held.

use super::error::RunError;
use crate::errors::label;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Name of the file. A process that is killed leaves it behind without a lock, until the next run in the folder ends.
pub(super) const LOCK: &str = ".lock";

/// The right to train in a run's folder, see [`super::run_dir::RunDir::lock`]; given back when it is dropped.
#[derive(Debug)]
pub struct RunLock {
    path: PathBuf,
    file: File,
}

/// What came of asking for a file's lock.
enum Asked {
    Got(File),
    /// Another process has it.
    Held,
    /// The file system has no locks.
    Unsupported,
}

impl RunLock {
    /// Takes the right to train in `folder`; `None` where its file system has no locks.
    pub(super) fn take(folder: &Path) -> Result<Option<Self>, RunError> {
        let path = folder.join(LOCK);
        match system::ask(&path).map_err(RunError::io(&path, "lock the folder"))? {
            Asked::Got(mut file) => {
                let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
                let lock = Self { path, file };
                written.map_err(RunError::io(&lock.path, "write the lock"))?;
                Ok(Some(lock))
            }
            Asked::Held => {
                let holder = holder(&path).map_or_else(String::new, |number| format!(" (number {number})"));
                Err(RunError::Locked { path: label(folder), holder })
            }
            Asked::Unsupported => Ok(None),
        }
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        system::remove(&self.path, &self.file);
    }
}

/// The number of the process that holds the lock, where it has written it.
fn holder(path: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(path).ok()?.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(not(windows))]
mod system {
    use super::*;
    use std::fs::TryLockError;
    use std::os::unix::fs::MetadataExt;

    pub fn ask(path: &Path) -> io::Result<Asked> {
        loop {
            let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            match file.try_lock() {
                Ok(()) if is_at(&file, path) => return Ok(Asked::Got(file)),
                // Who held it has removed it between opening and locking: a lock on a file without a name keeps nobody out.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Asked::Held),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    let _ = fs::remove_file(path);
                    return Ok(Asked::Unsupported);
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Removes the file while it is locked, so that nobody's lock but this one is lost.
    pub fn remove(path: &Path, file: &File) {
        if is_at(file, path) {
            let _ = fs::remove_file(path);
        }
    }

    fn is_at(file: &File, path: &Path) -> bool {
        let place = |about: fs::Metadata| (about.dev(), about.ino());
        file.metadata().map(place).ok().is_some_and(|at| fs::metadata(path).map(place).is_ok_and(|other| other == at))
    }
}

#[cfg(windows)]
mod system {
    use super::*;
    use std::os::windows::fs::OpenOptionsExt;

    // From winnt.h, winbase.h and winerror.h.
    const FILE_SHARE_READ: u32 = 1;
    const FILE_FLAG_DELETE_ON_CLOSE: u32 = 0x0400_0000;
    const ERROR_SHARING_VIOLATION: i32 = 32;

    /// An open file that others may only read is a lock, and the system removes it with its last handle, however the process
    /// ends.
    pub fn ask(path: &Path) -> io::Result<Asked> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(false).share_mode(FILE_SHARE_READ).custom_flags(FILE_FLAG_DELETE_ON_CLOSE);
        match options.open(path) {
            Ok(file) => Ok(Asked::Got(file)),
            Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION) => Ok(Asked::Held),
            Err(error) => Err(error),
        }
    }

    pub fn remove(_path: &Path, _file: &File) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::ErrorKind;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn one_at_a_time_and_no_file_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let take = || RunLock::take(folder.path());
        let lock = take().unwrap().expect("temporary files can be locked");
        let error = take().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        let words = format!("another process (number {}) trains in this folder", std::process::id());
        assert!(error.to_string().contains(&words), "{error}");
        assert!(folder.path().join(LOCK).exists(), "whoever is refused leaves the lock alone");
        drop(lock);
        assert!(!folder.path().join(LOCK).exists());
        assert!(take().unwrap().is_some());
    }

    #[test]
    fn what_a_killed_process_leaves_keeps_nobody_out() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LOCK), "4000000000000\n").unwrap();
        let lock = RunLock::take(folder.path()).unwrap().unwrap();
        assert_eq!(holder(&folder.path().join(LOCK)), Some(std::process::id()));
        drop(lock);
        assert!(!folder.path().join(LOCK).exists());
    }

    #[cfg(unix)]
    #[test]
    fn the_file_of_another_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let lock = RunLock::take(folder.path()).unwrap().unwrap();
        fs::remove_file(folder.path().join(LOCK)).unwrap();
        let other = RunLock::take(folder.path()).unwrap().unwrap();
        drop(lock);
        assert!(matches!(RunLock::take(folder.path()), Err(RunError::Locked { .. })));
        drop(other);
        assert!(!folder.path().join(LOCK).exists());
    }

    /// Taking and giving back as fast as possible meets each moment in which a file was opened and not yet locked.
    #[test]
    fn two_never_hold_it_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (holders, taken) = (AtomicU32::new(0), AtomicU32::new(0));
        let worker = || {
            while taken.load(Ordering::SeqCst) < 600 {
                match RunLock::take(folder.path()) {
                    Ok(lock) => {
                        let others = holders.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                        holders.fetch_sub(1, Ordering::SeqCst);
                        assert!(lock.is_some() && others == 0);
                        taken.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(error) => assert!(matches!(error, RunError::Locked { .. }), "{error}"),
                }
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(worker))));
        assert!(!folder.path().join(LOCK).exists());
    }
}
