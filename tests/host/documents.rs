//! What the documents say of files, flags, variables and codes is so. What their commands print is tested in `tests/cli/documents.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders that documents lie in, besides the root: they are searched to any depth.
const FOLDERS: [&str; 4] = ["docs", "benches", "assets", "tests"];
/// What holds documents of others, or what was built.
const SKIPPED: [&str; 5] = ["target", ".venv", "node_modules", "gpu-carry", "runs"];
/// Most bytes of the page that everybody reads first.
const README_BYTES: usize = 8 << 10;
/// Most bytes of the pictures that only documents show.
const PICTURE_BYTES: u64 = 150 << 10;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every document, as paths from the root.
fn documents() -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = FOLDERS.iter().map(|folder| root().join(folder)).collect();
    let mut take = |path: PathBuf| {
        if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/"));
        }
    };
    fs::read_dir(root()).unwrap().for_each(|entry| take(entry.unwrap().path()));
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            match path.is_dir() {
                true if !SKIPPED.iter().any(|skipped| name.starts_with(skipped)) => open.push(path),
                true => {}
                false => take(path),
            }
        }
    }
    found.sort();
    assert!(found.len() > 10 && found.iter().any(|path| path == "README.md"), "{found:?}");
    found
}

/// A fenced block of code.
struct Block {
    language: String,
    lines: Vec<String>,
}

/// Prose (without fenced blocks), and those blocks.
fn parts(text: &str) -> (Vec<String>, Vec<Block>) {
    let (mut prose, mut blocks) = (Vec::new(), Vec::new());
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), open.take()) {
            (Some(language), None) => open = Some(Block { language: language.trim().into(), lines: Vec::new() }),
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some(mut block)) => {
                block.lines.push(line.to_string());
                open = Some(block);
            }
            (None, None) => prose.push(line.to_string()),
        }
    }
    assert!(open.is_none(), "a fenced block does not end");
    (prose, blocks)
}

/// Targets of links and pictures: `](target)` and `src="target"`.
fn targets(prose: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose {
        for (opening, closing) in [("](", ')'), ("src=\"", '"'), ("href=\"", '"')] {
            let mut rest = without_code(line);
            while let Some(at) = rest.find(opening) {
                rest = rest[at + opening.len()..].to_string();
                let end = rest.find(closing).unwrap_or_else(|| panic!("a link does not end: {line}"));
                found.push(rest[..end].to_string());
            }
        }
    }
    found
}

/// A line with what stands between backticks left out.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("")
}

/// What stands between backticks in a line.
fn code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The anchors of a document, as GitHub makes them of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let (prose, _) = parts(text);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let headings = prose.iter().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = heading.to_lowercase().replace(' ', "-");
            let slug: String = kept.chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_').collect();
            let count = seen.entry(slug.clone()).or_default();
            *count += 1;
            if *count == 1 { slug } else { format!("{slug}-{}", *count - 1) }
        })
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for document in documents() {
        let own = text(&document);
        let folder = Path::new(&document).parent().unwrap();
        for target in targets(&parts(&own).0) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            seen += 1;
            let (path, anchor) = target.split_once('#').map_or((target.as_str(), None), |(path, anchor)| (path, Some(anchor)));
            let place = root().join(folder).join(path);
            if !path.is_empty() && !place.exists() {
                wrong.push(format!("{document}: {target}: no such file"));
                continue;
            }
            let Some(anchor) = anchor else { continue };
            let other = if path.is_empty() { own.clone() } else { fs::read_to_string(&place).unwrap_or_default() };
            if !anchors(&other).contains(anchor) {
                wrong.push(format!("{document}: {target}: no such heading"));
            }
        }
    }
    assert!(seen > 30, "only {seen} links were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Paths in backticks that lie under folders of the project are there. Patterns, and places for names, are no paths.
#[test]
fn files_that_are_named_are_there() {
    const TOPS: [&str; 9] = ["src/", "tests/", "shaders/", "scripts/", "docs/", "benches/", "assets/", "build/", "examples/"];
    let mut wrong = Vec::new();
    let mut seen = 0;
    for document in main_documents() {
        let (prose, _) = parts(&text(document));
        for name in prose.iter().flat_map(|line| code(line)) {
            let is_exact = !name.contains(['*', '{', ' ', '<']) && !["...", "foo", "NAME", "VERB"].iter().any(|place| name.contains(place));
            if !is_exact || !TOPS.iter().any(|top| name.starts_with(top)) {
                continue;
            }
            seen += 1;
            if !root().join(name).exists() {
                wrong.push(format!("{document}: {name}"));
            }
        }
    }
    assert!(seen > 40, "only {seen} paths were found");
    assert!(wrong.is_empty(), "no such file:\n{}", wrong.join("\n"));
}

/// The documents of the program, without those of its measurements.
fn main_documents() -> [&'static str; 7] {
    ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/guide.md", "docs/weights.md", "docs/reference.md", "docs/ARCHITECTURE.md"]
}

#[test]
fn the_readme_is_short() {
    let bytes = text("README.md").len();
    assert!(bytes <= README_BYTES, "README.md has {bytes} bytes, more than {README_BYTES}");
    let folder = fs::read_dir(root().join("docs/images")).unwrap();
    let sum: u64 = folder.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(sum <= PICTURE_BYTES, "docs/images has {sum} bytes, more than {PICTURE_BYTES}");
}

fn program(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_nin-wgpu")).args(arguments).env("COLUMNS", "100").output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Verbs, and `data fetch` and so on, with the flags of each.
fn flags_by_verb() -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(words) = open.pop() {
        let arguments: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
        let help = program(&arguments);
        let mut is_list = false;
        for line in help.lines() {
            match line {
                "Commands:" => is_list = true,
                "" => is_list = false,
                _ if is_list && line.starts_with("  ") && !line.starts_with("   ") => {
                    let verb = line.split_whitespace().next().unwrap();
                    if verb != "help" {
                        open.push(words.iter().cloned().chain([verb.to_string()]).collect());
                    }
                }
                _ => {}
            }
        }
        let flags = help.lines().filter(|line| line.trim_start().starts_with('-')).flat_map(flags_in).collect();
        all.insert(words.join(" "), flags);
    }
    assert!(all.len() > 14 && all["train"].len() > 40, "{all:?}");
    all
}

/// `--flag` wherever it stands in a text.
fn flags_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    let is_flag = |word: &&str| word.len() > 2 && word.starts_with("--") && word.as_bytes()[2].is_ascii_lowercase();
    words.filter(is_flag).map(str::to_string).collect()
}

/// The commands of a text that call the program: what stands behind its name.
fn calls(line: &str) -> Vec<&str> {
    let before_comment = line.split(" #").next().unwrap_or_default();
    before_comment
        .split("nin-wgpu ")
        .skip(1)
        .map(|call| call.split(['|', '>', ';', '&']).next().unwrap_or_default())
        .filter(|call| call.starts_with(|c: char| c.is_ascii_lowercase() || c == '-'))
        .collect()
}

#[test]
fn flags_exist() {
    let known = flags_by_verb();
    let every: BTreeSet<&String> = known.values().flatten().collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for document in main_documents() {
        let (prose, blocks) = parts(&text(document));
        let in_blocks = blocks.iter().filter(|block| ["sh", "console"].contains(&block.language.as_str())).flat_map(|block| &block.lines);
        for call in in_blocks.flat_map(|line| calls(line)).chain(prose.iter().flat_map(|line| code(line)).flat_map(calls)) {
            let mut words = call.split_whitespace().filter(|word| !word.starts_with('-'));
            let first = words.next().unwrap_or_default();
            // The alternatives of a verb's table and places for names are no verbs.
            let verb = match words.next().map(|second| format!("{first} {second}")) {
                Some(two) if known.contains_key(&two) => two,
                _ => first.to_string(),
            };
            let Some(flags) = known.get(&verb) else {
                if !first.is_empty() && first.chars().all(|c| c.is_ascii_lowercase()) {
                    wrong.push(format!("{document}: nin-wgpu {call}: no such verb"));
                }
                continue;
            };
            seen += 1;
            let of_parts = known.iter().filter(|(name, _)| name.starts_with(&format!("{verb} "))).flat_map(|(_, flags)| flags);
            let flags: BTreeSet<&String> = flags.iter().chain(of_parts).collect();
            wrong.extend(
                flags_in(call)
                    .iter()
                    .filter(|flag| !flags.contains(flag))
                    .map(|flag| format!("{document}: nin-wgpu {call}: {verb} has no {flag}")),
            );
        }
        // Flags by themselves, and such as `train --resume`; those of other programs stand behind their names.
        let is_ours = |name: &&str| {
            let first = name.split_whitespace().next().unwrap_or_default();
            first.starts_with("--") || known.contains_key(first)
        };
        for name in prose.iter().flat_map(|line| code(line)).filter(is_ours) {
            let verb = name.split_whitespace().next().unwrap_or_default();
            for flag in flags_in(name) {
                seen += 1;
                let is_known = known.get(verb).map_or(every.contains(&flag), |flags| flags.contains(&flag))
                    || known.iter().any(|(other, flags)| other.starts_with(&format!("{verb} ")) && flags.contains(&flag));
                if !is_known {
                    wrong.push(format!("{document}: `{name}`: no flag {flag}"));
                }
            }
        }
    }
    assert!(seen > 80, "only {seen} flags and calls were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reference_lists_every_verb_and_exit_code() {
    let reference = text("docs/reference.md");
    let rows: Vec<&str> = reference.lines().filter(|line| line.starts_with('|')).collect();
    for verb in flags_by_verb().keys().filter(|verb| !verb.is_empty()) {
        let first = verb.split(' ').next().unwrap();
        let is_named = |row: &&&str| row.starts_with(&format!("| `{first} ")) || row.starts_with(&format!("| `{first}`"));
        let row = rows.iter().find(is_named).unwrap_or_else(|| panic!("docs/reference.md does not list {verb}"));
        assert!(verb.split(' ').all(|word| row.contains(word)), "{verb}: {row}");
    }
    let help = program(&["--help"]);
    let at = help.find("Exit codes: ").unwrap() + "Exit codes: ".len();
    let paragraph = help[at..].split("\n\n").next().unwrap().replace('\n', " ");
    let codes: Vec<&str> = paragraph.split(';').filter_map(|code| code.split_whitespace().next()).collect();
    assert_eq!(codes, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "130"]);
    let listed: Vec<&str> = rows.iter().filter_map(|row| row.split(['|', ' ']).nth(2)).filter(|cell| cell.parse::<u32>().is_ok()).collect();
    assert_eq!(listed, codes);
}

/// Names that begin with `NIN_WGPU_` in a text.
fn variables(text: &str) -> BTreeSet<String> {
    const PREFIX: &str = "NIN_WGPU_";
    let names = text.match_indices(PREFIX).map(|(at, _)| {
        let rest = &text[at..];
        let end = rest.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')).unwrap_or(rest.len());
        rest[..end].to_string()
    });
    names.filter(|name| name.len() > PREFIX.len()).collect()
}

/// What only tests and scripts read; CONTRIBUTING.md has those that people set.
const OF_TESTS: [&str; 7] = ["KILLS", "PYTHON", "SHEETS", "SPIRV_VAL", "TEST_PROGRAM", "TESTS", "UNUSED"];

#[test]
fn the_reference_lists_the_variables_that_the_code_reads() {
    let mut read = BTreeSet::new();
    let mut open = vec![root().join("src")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                None if path.is_dir() => open.push(path),
                // Tests at the end of a file make up names.
                Some(ending) if ending == "rs" => {
                    read.extend(variables(fs::read_to_string(path).unwrap().split("\nmod tests {").next().unwrap()))
                }
                _ => {}
            }
        }
    }
    read.retain(|name| !OF_TESTS.iter().any(|other| name.strip_prefix("NIN_WGPU_") == Some(other)));
    let reference = text("docs/reference.md");
    let first_cell = |line: &str| line.strip_prefix("| `NIN_WGPU_").map(|_| line.split('|').nth(1).unwrap_or_default().to_string());
    let listed: BTreeSet<String> = reference.lines().filter_map(first_cell).flat_map(|cell| variables(&cell)).collect();
    assert_eq!(listed, read, "docs/reference.md lists (left) other variables than src/ names (right)");
    // The tests have some of their own, which only contributors need.
    let known: BTreeSet<String> = read.union(&variables(&text("CONTRIBUTING.md"))).cloned().collect();
    for document in main_documents() {
        let unknown: Vec<String> = variables(&text(document)).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "{document} names {unknown:?}");
    }
}

#[test]
fn the_guide_names_every_model() {
    let guide = text("docs/guide.md");
    for model in nin_wgpu::models::MODELS {
        assert!(guide.contains(&format!("| `{}` |", model.name)), "docs/guide.md does not list {}", model.name);
    }
}

/// The package holds what it is built of and little else: no tests, no data for them.
#[test]
fn the_package_is_whole_and_small() {
    const MOST_BYTES: u64 = 4 << 20;
    let output =
        Command::new(env!("CARGO")).args(["package", "--list", "--allow-dirty", "--offline"]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).unwrap().replace('\\', "/");
    let listed: BTreeSet<&str> = listed.lines().collect();
    let mut open: Vec<PathBuf> =
        ["src", "shaders", "build", "assets/recipes", "assets/nin-small-fashion.safetensors"].map(Into::into).into();
    let mut bytes = 0;
    while let Some(path) = open.pop() {
        if root().join(&path).is_dir() {
            open.extend(fs::read_dir(root().join(&path)).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
            continue;
        }
        let name = path.to_string_lossy().replace('\\', "/");
        assert!(listed.contains(name.as_str()), "the package lacks {name}");
    }
    for name in &listed {
        assert!(
            !["tests/", "benches/", "scripts/", "."].iter().any(|top| name.starts_with(top) && *name != ".cargo_vcs_info.json"),
            "{name}"
        );
        bytes += fs::metadata(root().join(name)).map_or(0, |about| about.len());
    }
    assert!(bytes > 1 << 20 && bytes < MOST_BYTES, "the package has {bytes} bytes");
}

#[test]
fn the_scanner_reads_markdown() {
    let (prose, blocks) = parts(
        "a [b](c.md#d) `[x](y)` ![e](f.png)\n```console\n$ nin-wgpu infer x --topk 1 # why --not\n[no](link)\n```\n## The `a` & b, c\n## The `a` & b, c\n",
    );
    assert_eq!(targets(&prose), ["c.md#d", "f.png"]);
    assert_eq!((blocks.len(), blocks[0].language.as_str(), blocks[0].lines.len()), (1, "console", 2));
    assert_eq!(calls(&blocks[0].lines[0]), ["infer x --topk 1"]);
    assert_eq!(anchors("# The `a` & b, c\n# The `a` & b, c").into_iter().collect::<Vec<_>>(), ["the-a--b-c", "the-a--b-c-1"]);
    assert_eq!(flags_in("`--flip=false`, --a-b|--c and ---d --E -f").into_iter().collect::<Vec<_>>(), ["--a-b", "--c", "--flip"]);
    assert_eq!(variables("NIN_WGPU_A=1 `NIN_WGPU_B_2`, NIN_WGPU_* XNIN_WGPU_").len(), 2);
}
