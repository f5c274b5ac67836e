//! What lies in folders of pictures without belonging to them: what is hidden, and what systems and programs leave behind.

use std::ffi::OsStr;
use std::path::Path;

/// Folders, in lower case, that are neither searched nor classes.
const FOLDERS: [&str; 13] = [
    "__macosx",
    "@eadir",
    "@recycle",
    "@recently-snapshot",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "lost+found",
    "network trash folder",
    "temporary items",
    "__pycache__",
];
/// Files, in lower case, that are not even counted as left aside.
const FILES: [&str; 5] = ["thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "picasa.ini"];

/// Whether a name begins with a dot.
pub fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Whether a folder of this name is none of the user's.
pub fn is_junk_folder(name: &OsStr) -> bool {
    is_hidden(name) || is_among(name, &FOLDERS)
}

/// Whether a file of this path is none of the user's.
pub fn is_junk_file(path: &Path) -> bool {
    path.file_name().is_none_or(|name| is_hidden(name) || is_among(name, &FILES))
}

fn is_among(name: &OsStr, known: &[&str]) -> bool {
    name.to_str().is_some_and(|name| known.contains(&name.to_lowercase().as_str()))
}
