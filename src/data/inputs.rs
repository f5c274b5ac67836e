//! The pictures that a user names: files, folders, patterns, and `-` for standard input.

use super::DataError;
use super::folder::{may_be_picture, walk_error};
use super::junk::is_junk_file;
use super::picture::{self, Picture, STDIN_NAME};
use super::splits::is_searched;
use crate::errors::path_text;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// Where a picture comes from. It is displayed as the user would name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A file, which need not exist.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

impl Input {
    /// Reads the picture.
    pub fn read(&self) -> Result<Picture, DataError> {
        match self {
            Self::File(path) => picture::open(path),
            Self::Stdin => picture::read_stdin(),
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path_text(path).fmt(formatter),
            Self::Stdin => STDIN_NAME.fmt(formatter),
        }
    }
}

/// The inputs that `arguments` name, in order; folders at any depth and patterns sorted by name.
///
/// An argument that names nothing gives an error in its place, so that the others still count: a
/// folder without pictures, a pattern that nothing matches. A file that does not exist is an input
/// and fails when read.
pub fn expand<S: AsRef<OsStr>>(arguments: &[S]) -> Vec<Result<Input, DataError>> {
    let mut inputs = Vec::new();
    for argument in arguments {
        let path = Path::new(argument);
        // Patterns are text; what is none is a path.
        let pattern = argument.as_ref().to_str().filter(|text| text.contains(['*', '?', '[']) && !path.exists());
        if argument.as_ref() == STDIN_NAME {
            inputs.push(Ok(Input::Stdin));
        } else if path.is_dir() {
            expand_folder(path, &mut inputs);
        } else if let Some(pattern) = pattern {
            expand_pattern(pattern, &mut inputs);
        } else {
            inputs.push(Ok(Input::File(path.to_path_buf())));
        }
    }
    inputs
}

fn refuse(name: &str, problem: &str) -> DataError {
    DataError::Picture { name: name.to_owned(), problem: problem.to_owned() }
}

/// Adds the files with a picture's name under a folder, those of kinds that are not read as well: their errors say what to do.
fn expand_folder(folder: &Path, inputs: &mut Vec<Result<Input, DataError>>) {
    let before = inputs.len();
    for entry in WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter().filter_entry(is_searched) {
        match entry {
            Ok(entry) => {
                let path = entry.path();
                let is_picture = picture::has_picture_name(path) || picture::foreign_kind(path).is_some();
                if entry.file_type().is_file() && is_picture && !is_junk_file(path) {
                    inputs.push(Ok(Input::File(path.to_path_buf())));
                }
            }
            Err(error) if error.depth() > 0 && !error.path().is_some_and(may_be_picture) => {}
            Err(error) => inputs.push(Err(walk_error(folder, error))),
        }
    }
    if inputs.len() == before {
        inputs.push(Err(refuse(&path_text(folder), "there are no pictures in this folder")));
    }
}

/// Adds what matches a pattern.
fn expand_pattern(pattern: &str, inputs: &mut Vec<Result<Input, DataError>>) {
    let before = inputs.len();
    match glob::glob(pattern) {
        Ok(paths) => {
            for path in paths {
                match path {
                    Ok(path) if path.is_dir() => expand_folder(&path, inputs),
                    Ok(path) => inputs.push(Ok(Input::File(path))),
                    Err(error) => inputs.push(Err(DataError::Read { path: error.path().to_path_buf(), source: error.into() })),
                }
            }
        }
        Err(error) => inputs.push(Err(refuse(pattern, &format!("not a pattern: {}", error.msg)))),
    }
    if inputs.len() == before {
        inputs.push(Err(refuse(pattern, "no file matches this pattern")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn folders_patterns_files_and_stdin() {
        let root = tempfile::tempdir().unwrap();
        for name in ["b.png", "a.JPG", "notes.txt", ".hidden.png", "deep/c.webp", "[1].png"] {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::create_dir(root.path().join("empty")).unwrap();
        let names = |argument: &str| -> Vec<String> {
            let argument = root.path().join(argument).display().to_string();
            expand(&[argument])
                .into_iter()
                .map(|input| match input.map(|input| input.to_string()) {
                    Ok(name) => {
                        let path = Path::new(&name).strip_prefix(root.path()).unwrap();
                        path.display().to_string().replace('\\', "/")
                    }
                    Err(error) => error.to_string(),
                })
                .collect()
        };
        assert_eq!(names(""), ["[1].png", "a.JPG", "b.png", "deep/c.webp"]);
        assert_eq!(names("*.png"), [".hidden.png", "[1].png", "b.png"]);
        assert_eq!(names("[1].png"), ["[1].png"]);
        assert_eq!(names("missing.png"), ["missing.png"]);
        assert_eq!(names("d*"), ["deep/c.webp"]);
        assert!(names("empty")[0].contains("no pictures in this folder"));
        assert!(names("*.tiff")[0].contains("no file matches"));
        assert!(names("[*")[0].contains("not a pattern"));
        let inputs = expand(&["-", "x.png"]);
        assert_eq!(inputs[0].as_ref().unwrap(), &Input::Stdin);
        assert_eq!(inputs.len(), 2);
    }
}
