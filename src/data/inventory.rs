//! Which of the named data sets are on this machine, and whether they are whole.

use super::catalog::{KnownSet, SETS, SetFile};
use super::{DataError, files, locate};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A named set and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The set.
    pub set: &'static KnownSet,
    /// Its folder; `None` where it is not found.
    pub path: Option<PathBuf>,
    /// What is wrong with it: files that are missing or of another size. Empty for a whole set.
    pub faults: Vec<String>,
}

impl Entry {
    /// Whether every file is there with its size. Content is verified when it is downloaded, not here.
    pub fn is_whole(&self) -> bool {
        self.path.is_some() && self.faults.is_empty()
    }
}

/// Looks for every named set as [`super::open`] does.
pub fn inventory(data_dir: Option<&Path>) -> Result<Vec<Entry>, DataError> {
    SETS.iter()
        .map(|set| {
            let path = locate::find(set, data_dir);
            let faults = path.as_deref().map_or(Ok(Vec::new()), |path| faults(set, path))?;
            Ok(Entry { set, path, faults })
        })
        .collect()
}

/// The files of `set` that are missing from `folder` or have another size, in words.
pub fn faults(set: &KnownSet, folder: &Path) -> Result<Vec<String>, DataError> {
    let mut faults = Vec::new();
    for SetFile { name, bytes } in set.files() {
        let Some(path) = files::find(folder, &[name, &name.replace("-idx", ".idx")]) else {
            faults.push(format!("{name} is missing"));
            continue;
        };
        // gzip keeps the size modulo 2^32.
        let (found, bytes) = match unpacked_size(&path)? {
            Size::Plain(found) => (found, bytes),
            Size::Packed(found) => (found.into(), bytes & u64::from(u32::MAX)),
        };
        if found != bytes {
            faults.push(format!("{name} has {found} bytes instead of {bytes}"));
        }
    }
    Ok(faults)
}

enum Size {
    Plain(u64),
    /// From the last four bytes of a gzip file.
    Packed(u32),
}

fn unpacked_size(path: &Path) -> Result<Size, DataError> {
    let read = || -> std::io::Result<Size> {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let mut start = [0; 2];
        if bytes < 18 || file.read_exact(&mut start).is_err() || start != files::GZIP_MAGIC {
            return Ok(Size::Plain(bytes));
        }
        let mut end = [0; 4];
        file.seek(SeekFrom::End(-4))?;
        file.read_exact(&mut end)?;
        Ok(Size::Packed(u32::from_le_bytes(end)))
    };
    read().map_err(|error| DataError::read(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::idx::tests::{gzip, label_file};
    use std::fs;

    #[test]
    fn sizes_tell_whole_files_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let mnist = KnownSet::find("mnist").unwrap();
        assert_eq!(faults(mnist, folder.path()).unwrap().len(), 4);
        fs::write(folder.path().join("t10k-labels.idx1-ubyte.gz"), gzip(&label_file(&[1; 10_000]))).unwrap();
        fs::write(folder.path().join("train-labels-idx1-ubyte"), label_file(&[1; 100])).unwrap();
        assert_eq!(
            faults(mnist, folder.path()).unwrap(),
            [
                "train-images-idx3-ubyte is missing",
                "train-labels-idx1-ubyte has 108 bytes instead of 60008",
                "t10k-images-idx3-ubyte is missing"
            ]
        );
        let found = inventory(Some(folder.path())).unwrap();
        assert_eq!(found.iter().map(|entry| entry.set.name).collect::<Vec<_>>(), ["mnist", "fashion-mnist", "cifar10", "cifar100", "svhn"]);
        assert!(found.iter().all(|entry| entry.path.as_deref() != Some(folder.path()) || !entry.is_whole()));
    }
}
