//! The house rules of `src/`: imports run one way, only `src/gpu/` names wgpu, and no file grows past reading.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms in the order in which they may import each other: a later one uses earlier ones.
const ROOMS: [&str; 19] = [
    "errors",
    "variables",
    "digest",
    "files",
    "half",
    "shape",
    "tensor",
    "rng",
    "kernels",
    "graph",
    "ops",
    "passes",
    "gpu",
    "models",
    "data",
    "weights",
    "train",
    "api",
    "cli",
];
/// Most lines of a file.
const MOST_LINES: usize = 600;

/// A path into the crate, and the line it stands on.
#[derive(Debug, PartialEq)]
struct Import {
    line: usize,
    room: String,
}

#[test]
fn the_rooms_are_those_of_lib_rs() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let modules: Vec<&str> = lib.lines().filter_map(|line| line.trim().strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(modules, ROOMS, "lib.rs lists other rooms, or in another order, than this test");
    let top: BTreeSet<String> = fs::read_dir(root().join("src"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let expected: BTreeSet<String> = ROOMS.iter().chain(&["lib", "main"]).map(|name| (*name).to_string()).collect();
    assert_eq!(top, expected, "src/ holds something that is not a room");
}

#[test]
fn imports_run_one_way() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    // A file of nothing but unit tests may take its examples from later rooms.
    let is_tests = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
    for path in files(&["src"], "rs").into_iter().filter(|path| !is_tests(path)) {
        let Some(own) = room_of(&path) else { continue };
        let depth = module_depth(&path);
        for import in imports(&fs::read_to_string(&path).unwrap(), depth) {
            let Some(other) = rank(&import.room) else { continue };
            seen += 1;
            if other > own {
                wrong.push(format!("{}:{}: {} must not use {}", path.display(), import.line, ROOMS[own], import.room));
            }
        }
    }
    assert!(seen > 100, "only {seen} imports were found: does this test still read the sources rightly?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_gpu_room_names_wgpu() {
    let mut wrong = Vec::new();
    let mut inside = 0;
    for path in files(&["src"], "rs") {
        let in_gpu = room_of(&path).is_some_and(|room| ROOMS[room] == "gpu");
        for (number, line) in code(&fs::read_to_string(&path).unwrap()).iter().enumerate() {
            match (names_crate(line, "wgpu"), in_gpu) {
                (true, true) => inside += 1,
                (true, false) => wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim())),
                _ => {}
            }
        }
    }
    assert!(inside > 10, "src/gpu itself names wgpu only {inside} times: does this test still read the sources rightly?");
    assert!(wrong.is_empty(), "only src/gpu may name wgpu:\n{}", wrong.join("\n"));
}

#[test]
fn no_file_is_too_long() {
    let mut all = files(&["src", "build", "tests", "examples"], "rs");
    all.extend(files(&["shaders"], "wgsl"));
    assert!(all.len() > 80, "only {} files", all.len());
    let long: Vec<String> = all
        .iter()
        .map(|path| (path, fs::read_to_string(path).unwrap().lines().count()))
        .filter(|(_, lines)| *lines > MOST_LINES)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "over {MOST_LINES} lines:\n{}", long.join("\n"));
}

#[test]
fn the_scanner_sees_every_form_of_import() {
    let rooms = |text: &str, depth| imports(text, depth).into_iter().map(|import| import.room).collect::<Vec<_>>();
    assert_eq!(rooms("use crate::gpu::Gpu;\nlet x = crate :: data::open();", 1), ["gpu", "data"]);
    assert_eq!(rooms("use crate::{\n    data::{self, Order},\n    weights as w, cli,\n};", 1), ["data", "weights", "cli"]);
    assert_eq!(rooms("use super::super::train::x;\nuse super::gpu::y;", 2), ["train"]);
    assert_eq!(rooms("use super::cli::x; $crate::shape::Window", 1), ["cli", "shape"]);
    assert_eq!(rooms("// see crate::cli\n/// [`crate::cli`]\nlet u = \"crate::cli\"; use nin_wgpu::train;", 1), ["train"]);
    assert_eq!(rooms("use crate::cli; // why", 1), ["cli"]);
    assert!(names_crate("use wgpu::Device;", "wgpu") && names_crate("&wgpu::Limits", "wgpu") && names_crate("use wgpu;", "wgpu"));
    assert!(names_crate("use {std::fs, wgpu};", "wgpu") && names_crate("use wgpu as w;", "wgpu"));
    assert!(!names_crate("use nin_wgpu::cli;", "wgpu") && !names_crate("let wgpu_limits = 1;", "wgpu"));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files with an ending under folders of the project, sorted, as paths from its root.
fn files(folders: &[&str], ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).filter(|path| path.is_dir()).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn rank(room: &str) -> Option<usize> {
    ROOMS.iter().position(|name| *name == room)
}

/// The room a file belongs to; `lib.rs` and `main.rs` stand above all of them.
fn room_of(path: &Path) -> Option<usize> {
    let inside = path.strip_prefix(root().join("src")).ok()?;
    let first = Path::new(inside.components().next()?.as_os_str());
    rank(&first.file_stem()?.to_string_lossy())
}

/// How many `super::` lead from a file's module to the crate.
fn module_depth(path: &Path) -> usize {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let names = inside.components().count();
    if inside.file_name().is_some_and(|name| name == "mod.rs") { names - 1 } else { names }
}

/// The lines of a source without comments and the contents of plain string literals.
fn code(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| {
            let mut out = String::new();
            let mut in_string = false;
            let mut chars = line.chars().peekable();
            while let Some(c) = chars.next() {
                match c {
                    '\\' if in_string => drop(chars.next()),
                    '"' => in_string = !in_string,
                    '/' if !in_string && chars.peek() == Some(&'/') => break,
                    _ if !in_string => out.push(c),
                    _ => {}
                }
            }
            out
        })
        .collect()
}

/// Paths that start at the crate: `crate::x`, `crate::{x, y}`, `nin_wgpu::x`, and `super::` up to the crate.
fn imports(text: &str, depth: usize) -> Vec<Import> {
    let text = code(text).join("\n");
    let tokens = tokens(&text);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let (_, word) = tokens[at];
        let is_path_inside = at > 0 && tokens[at - 1].1 == "::";
        let mut next = at + 1;
        let reaches_crate = match word {
            "crate" | "nin_wgpu" => true,
            "super" if !is_path_inside => {
                let mut supers = 1;
                while tokens.get(next).map(|t| t.1) == Some("::") && tokens.get(next + 1).map(|t| t.1) == Some("super") {
                    supers += 1;
                    next += 2;
                }
                // Within `mod tests` one more leads there; a file's own modules are not called like rooms.
                supers >= depth
            }
            _ => false,
        };
        at += 1;
        if !reaches_crate || tokens.get(next).map(|t| t.1) != Some("::") {
            continue;
        }
        next += 1;
        let line_of = |offset: usize| text[..offset].matches('\n').count() + 1;
        if tokens.get(next).map(|t| t.1) != Some("{") {
            if let Some((offset, room)) = tokens.get(next) {
                found.push(Import { line: line_of(*offset), room: (*room).to_string() });
            }
            continue;
        }
        // Names directly within the braces.
        let mut braces = 0;
        for (index, (offset, token)) in tokens.iter().enumerate().skip(next) {
            match *token {
                "{" => braces += 1,
                "}" => braces -= 1,
                name if braces == 1 && ["{", ","].contains(&tokens[index - 1].1) => {
                    found.push(Import { line: line_of(*offset), room: name.to_string() });
                }
                _ => {}
            }
            if braces == 0 {
                break;
            }
        }
    }
    found
}

/// Words, `::` and single symbols, with their places.
fn tokens(text: &str) -> Vec<(usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let length = if is_word(first) {
            text[at..].find(|c| !is_word(c)).unwrap_or(text.len() - at)
        } else if text[at..].starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        if !first.is_whitespace() {
            out.push((at, &text[at..at + length]));
        }
        at += length;
    }
    out
}

/// Whether a line of code uses a crate of that name: in a path, or in a `use` by itself.
fn names_crate(line: &str, name: &str) -> bool {
    let tokens = tokens(line);
    let is_use = tokens.iter().any(|(_, token)| *token == "use" || *token == "extern");
    tokens.iter().enumerate().any(|(index, (_, token))| {
        let is_head = index == 0 || tokens[index - 1].1 != "::";
        *token == name && is_head && (is_use || tokens.get(index + 1).is_some_and(|(_, next)| *next == "::"))
    })
}
