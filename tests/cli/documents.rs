//! The commands of the documents run, and print what the documents say.
//!
//! Every `console` block runs: lines that begin with `$ ` are commands, the others what they print on both outputs. The blocks of a
//! document share a folder, so that later ones use what earlier ones made. In it are `assets` of the project, and `my-pictures` and
//! `new-pictures`, drawn here. Two signs say what may differ from machine to machine:
//!
//! - `...` stands for any text within a line, and on a line of its own for any lines;
//! - `<!-- figures vary -->` before a block lets every number in it be another one, and a time one of minutes or hours.
//!
//! Commands that need a network, a whole data set or a long time stand in `sh` blocks and do not run; that their verbs and flags exist
//! is tested in `tests/host/documents.rs`.

use crate::Needs::{Device, Nothing};
use crate::Test;
use crate::support::{cache_folder, program_path, project};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

pub const TESTS: &[Test] = &[
    ("readme", Device, || run_document("README.md")),
    ("guide", Device, || run_document("docs/guide.md")),
    ("reference", Device, || run_document("docs/reference.md")),
    ("contributing", Device, || run_document("CONTRIBUTING.md")),
    ("no_other_document_has_commands_to_run", Nothing, no_other_document_has_commands_to_run),
    ("lines_are_compared", Nothing, lines_are_compared),
];

/// What stands before a block whose numbers may be others.
const FIGURES_VARY: &str = "<!-- figures vary -->";
/// Stands for any text or lines.
const ANYTHING: &str = "...";

/// A command, and the lines that it should print.
struct Call {
    line: usize,
    command: String,
    expected: Vec<String>,
    figures_vary: bool,
}

/// The calls of a document's `console` blocks.
fn calls(text: &str) -> Vec<Call> {
    let mut found: Vec<Call> = Vec::new();
    let mut is_open = false;
    let mut figures_vary = false;
    for (index, line) in text.lines().enumerate() {
        match line {
            FIGURES_VARY => figures_vary = true,
            "```console" => is_open = true,
            _ if line.starts_with("```") => (is_open, figures_vary) = (false, false),
            _ if !is_open => {}
            _ => match line.strip_prefix("$ ") {
                Some(command) => {
                    found.push(Call { line: index + 1, command: command.to_string(), expected: Vec::new(), figures_vary });
                }
                None => found.last_mut().expect("a console block begins with a command").expected.push(line.to_string()),
            },
        }
    }
    found
}

fn run_document(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let calls = calls(&fs::read_to_string(project(name)).unwrap());
    assert!(!calls.is_empty(), "{name} has no command to run");
    for Call { line, command, expected, figures_vary } in calls {
        let path = format!("{}:{}", folder.path().join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let output = Command::new("sh")
            .args(["-c", &format!("{{ {command}\n}} 2>&1")])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .env("PATH", path)
            .env("XDG_DATA_HOME", folder.path().join("data"))
            .env("NIN_WGPU_CACHE_DIR", cache_folder())
            .env_remove("NIN_WGPU_DATA")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{name}:{line}: {command}\nends with {}:\n{printed}", output.status);
        // Which adapter there is, is the machine's affair.
        let lines: Vec<&str> = printed.lines().filter(|line| !line.starts_with("note: there is no GPU adapter")).collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        assert!(
            matches(&expected, &lines, figures_vary),
            "{name}:{line}: {command}\nprints\n{}\nand should print\n{}",
            lines.join("\n"),
            expected.join("\n")
        );
    }
}

/// The program under its name, the project's assets, and pictures of two kinds of fruit.
fn prepare(folder: &Path) {
    fs::create_dir(folder.join("bin")).unwrap();
    symlink(program_path(), folder.join("bin/nin-wgpu")).unwrap();
    symlink(project("assets"), folder.join("assets")).unwrap();
    for (class, colour) in [("apples", [200, 40, 30]), ("pears", [120, 180, 60])] {
        fs::create_dir_all(folder.join("my-pictures").join(class)).unwrap();
        (0..40).for_each(|number| fruit(&folder.join(format!("my-pictures/{class}/{number:02}.png")), colour, number));
    }
    fs::create_dir(folder.join("new-pictures")).unwrap();
    fruit(&folder.join("new-pictures/a.png"), [200, 40, 30], 90);
    fruit(&folder.join("new-pictures/b.png"), [120, 180, 60], 91);
}

/// A disc of about that colour on white, of a size and at a place that depend on the number.
fn fruit(path: &Path, colour: [u8; 3], number: u32) {
    let (width, height) = (60 + number % 7, 50 + number % 5);
    let (x, y, radius) = (width / 2 + number % 9 - 4, height / 2 + number % 7 - 3, 12 + number % 8);
    let pixel = |column: u32, row: u32| {
        if column.abs_diff(x).pow(2) + row.abs_diff(y).pow(2) > radius.pow(2) {
            return image::Rgb([255; 3]);
        }
        let shade = (column * 7 + row * 13 + number * 31) % 25;
        image::Rgb(colour.map(|value| value.saturating_add(shade as u8)))
    };
    image::RgbImage::from_fn(width, height, pixel).save(path).unwrap();
}

/// Whether the lines are those expected.
fn matches(expected: &[&str], lines: &[&str], figures_vary: bool) -> bool {
    match (expected.split_first(), lines.split_first()) {
        (None, None) => true,
        (Some((&ANYTHING, rest)), _) => (0..=lines.len()).any(|skipped| matches(rest, &lines[skipped..], figures_vary)),
        (Some((first, expected)), Some((line, lines))) => line_matches(first, line, figures_vary) && matches(expected, lines, figures_vary),
        _ => false,
    }
}

/// Whether a line is the one expected, however wide its gaps are.
fn line_matches(expected: &str, line: &str, figures_vary: bool) -> bool {
    let plain = |text: &str| {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if figures_vary { without_figures(&text).replace("0 h 0 min", "0 s").replace("0 min 0 s", "0 s") } else { text }
    };
    let line = plain(line);
    let parts: Vec<String> = expected.split(ANYTHING).map(plain).collect();
    let [first, middle @ .., last] = &parts[..] else { return line == parts[0] };
    let mut rest = match line.strip_prefix(first.as_str()) {
        Some(rest) => rest,
        None => return false,
    };
    for part in middle {
        match rest.find(part.as_str()) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last.as_str())
}

/// Numbers, with the points and commas inside them, as `0`.
fn without_figures(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if !c.is_ascii_digit() {
            out.push(c);
            continue;
        }
        out.push('0');
        while let Some(next) = chars.peek().copied() {
            let is_inside = |c: char| (c == '.' || c == ',') && text_continues(&chars);
            if !next.is_ascii_digit() && !is_inside(next) {
                break;
            }
            chars.next();
        }
    }
    out
}

/// Whether a digit follows the next character.
fn text_continues(chars: &std::iter::Peekable<std::str::Chars<'_>>) -> bool {
    chars.clone().nth(1).is_some_and(|c| c.is_ascii_digit())
}

fn no_other_document_has_commands_to_run() {
    for name in ["CHANGELOG.md", "docs/weights.md", "docs/ARCHITECTURE.md", "benches/README.md"] {
        assert!(calls(&fs::read_to_string(project(name)).unwrap()).is_empty(), "{name}: its console blocks would not run");
    }
}

fn lines_are_compared() {
    let is = |expected: &str, lines: &str, vary| matches(&expected.lines().collect::<Vec<_>>(), &lines.lines().collect::<Vec<_>>(), vary);
    assert!(is("a  b\nc", "a b\nc", false) && !is("a b", "a b\nc", false) && !is("a b\nc", "a b", false) && !is("a", "b", true));
    assert!(is("a\n...\nd", "a\nb\nc\nd", false) && is("...\nd", "d", false) && !is("...\nd", "c", false) && is("", "", false));
    assert!(is("on ..., here", "on llvmpipe (x), here", false) && !is("on ..., here", "on llvmpipe, there", false));
    assert!(is("took 1.5 s, 1,000 images", "took 12 s, 3 images", true) && !is("took 1.5 s", "took 12 s", false));
    assert!(
        is("took 1.5 s", "took 1 min 05 s", true) && is("took 1.5 s", "took 1 h 05 min", true) && !is("took 1 s", "took 1 min 05 s", false)
    );
    assert!(!is("took 1.5 s", "took 1.5 ms", true) && is("x 1, y", "x 22, y", true) && !is("x 1, y", "x 1 y", true));
    let calls = calls("<!-- figures vary -->\n```console\n$ a\nb\n$ c\n```\n```sh\n$ d\n```\n```console\n$ e\n```\n");
    let read: Vec<_> = calls.iter().map(|call| (call.line, call.command.as_str(), call.expected.len(), call.figures_vary)).collect();
    assert_eq!(read, [(3, "a", 1, true), (5, "c", 0, true), (11, "e", 0, false)]);
}
