//! Files that are replaced whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Ending of the temporary file that [`replace_file`] writes beside its target.
pub(crate) const PARTIAL: &str = ".partial";

/// Writes `path` so that at any moment, even after a power cut, it holds either its old content or
/// the whole new one: `write` fills `.NAME.partial` in the same folder, which is then synced and
/// renamed over `path`.
///
/// The temporary name is fixed, so a process killed half-way leaves one file that the next call
/// overwrites. After an error `path` is untouched and the temporary file is gone.
pub fn replace_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let partial = partial_path(path)?;
    let result = fill(&partial, write).and_then(|()| fs::rename(&partial, path));
    match result {
        Ok(()) => sync_folder(path),
        // The first error is the one worth reporting.
        Err(_) => drop(fs::remove_file(&partial)),
    }
    result
}

fn partial_path(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(PARTIAL);
    Ok(path.with_file_name(partial))
}

fn fill(partial: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut writer = BufWriter::new(File::create(partial)?);
    write(&mut writer)?;
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Makes the rename itself durable. Some file systems cannot sync a folder; the new file is in
/// place by then, so that is no error.
fn sync_folder(path: &Path) {
    if cfg!(unix) {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_the_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(folder.path().join(".a.partial"), "left by a killed process").unwrap();
        for text in ["a longer first text", "second"] {
            replace_file(&path, |writer| writer.write_all(text.as_bytes())).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "old").unwrap();
        let full = |writer: &mut dyn Write| {
            writer.write_all(b"new, but")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        };
        let error = replace_file(&path, full).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["a"]);
    }
}
