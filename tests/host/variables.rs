//! Every variable of the environment that the program reads is in its table and in the documents, and no other is named there.

use nin_wgpu::variables::{ALL, is_known};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PREFIX: &str = "NIN_WGPU_";

/// Names of the program's variables in a text.
fn names(text: &str) -> BTreeSet<String> {
    let of_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let starts = text.match_indices(PREFIX).map(|(at, _)| &text[at..]);
    starts.map(|rest| rest[..rest.find(|c| !of_name(c)).unwrap_or(rest.len())].to_string()).filter(|name| name != PREFIX).collect()
}

/// The files below `folder` with one of these endings.
fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(&entry, endings));
        } else if entry.extension().is_some_and(|ending| endings.iter().any(|known| ending == *known)) {
            found.push(entry);
        }
    }
    found
}

fn unknown(files: &[PathBuf]) -> Vec<String> {
    let found = |path: &PathBuf| {
        let names = names(&fs::read_to_string(path).unwrap());
        names.into_iter().filter(|name| !is_known(name)).map(|name| format!("{}: {name}", path.display())).collect::<Vec<_>>()
    };
    files.iter().flat_map(found).collect()
}

#[test]
fn sources_name_no_other_variable() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = files(&root.join("src"), &["rs"]);
    assert!(sources.len() > 100, "{} files", sources.len());
    // Here misspelt names are made up.
    sources.retain(|path| !path.ends_with("src/variables.rs"));
    assert_eq!(unknown(&sources), Vec::<String>::new(), "not in src/variables.rs");
}

#[test]
fn the_documents_name_every_variable_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = files(&root.join("docs"), &["md"]);
    documents.extend(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name)).into_iter().filter(|path| path.exists()));
    assert_eq!(unknown(&documents), Vec::<String>::new(), "no such variable");
    let text: String = documents.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let missing: Vec<&str> = ALL.iter().map(|variable| variable.name).filter(|name| !text.contains(name)).collect();
    assert!(missing.is_empty(), "no document names {missing:?}");
}
