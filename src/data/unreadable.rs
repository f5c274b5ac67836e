//! Pictures that cannot be read: counted and named instead of ending a run, up to a limit.

use super::DataError;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A picture that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadablePicture {
    /// Its file.
    pub path: PathBuf,
    /// Why, in one line that names the file.
    pub reason: String,
}

/// The unreadable pictures of a data set, as they are found.
#[derive(Debug)]
pub struct Unreadable {
    limit: usize,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    pictures: Vec<UnreadablePicture>,
    /// How many of them were reported.
    reported: usize,
}

impl Unreadable {
    /// An empty list that may grow to `limit`.
    pub fn new(limit: usize) -> Self {
        Self { limit, found: Mutex::default() }
    }

    /// As [`Unreadable::new`], with what was found when the pictures were listed. Fails where that is more than the limit.
    pub(super) fn starting(limit: usize, found: &[(PathBuf, DataError)]) -> Result<Self, DataError> {
        let list = Self::new(limit);
        found.iter().try_for_each(|(path, error)| list.add(path, error))?;
        Ok(list)
    }

    /// How many unreadable pictures a data set of `pictures` may have where nothing else was said: one in a hundred,
    /// but ten in small sets.
    pub fn default_limit(pictures: usize) -> usize {
        (pictures / 100).max(10)
    }

    /// Adds a picture. Fails where that makes more than the limit.
    pub(super) fn add(&self, path: &Path, error: &DataError) -> Result<(), DataError> {
        let mut found = self.found();
        let reason = error.to_string();
        found.pictures.push(UnreadablePicture { path: path.to_path_buf(), reason: reason.clone() });
        if found.pictures.len() <= self.limit {
            return Ok(());
        }
        Err(DataError::TooManyUnreadable { count: found.pictures.len(), limit: self.limit, example: reason })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.found().pictures.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those that were found since this was asked last.
    pub fn take_new(&self) -> Vec<UnreadablePicture> {
        let mut found = self.found();
        let new = found.pictures[found.reported..].to_vec();
        found.reported = found.pictures.len();
        new
    }

    /// The list is whole after every change, so a thread that panicked elsewhere leaves it usable.
    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_counted_and_reported_once() {
        let list = Unreadable::new(2);
        let add = |name: &str| list.add(Path::new(name), &DataError::Picture { name: name.into(), problem: "is empty".into() });
        add("a").unwrap();
        assert_eq!(list.take_new(), [UnreadablePicture { path: "a".into(), reason: "a: is empty".into() }]);
        add("b").unwrap();
        let error = add("c").unwrap_err().to_string();
        assert!(error.contains("3 pictures") && error.contains("c: is empty") && error.contains("--max-bad"), "{error}");
        assert_eq!((list.take_new().len(), list.take_new().len(), list.len()), (2, 0, 3));
        assert_eq!([0, 999, 2000].map(Unreadable::default_limit), [10, 10, 20]);
    }
}
