//! `nin-wgpu bench --kernels DIR`: proves and times kernels that are data, so that a search for better ones needs no other program.

use super::context::Context;
use super::error::{Exit, Failure};
use super::table::{Align, Table};
use crate::errors::label;
use crate::gpu::tuner::folder::{FolderError, KernelFolder};
use crate::gpu::tuner::search::{Event, Found, Outcome, SearchOptions, Searched, search};
use crate::gpu::{AdapterDescription, Gpu};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What belongs to `--kernels`.
#[derive(clap::Args)]
pub struct KernelArgs {
    /// Instead of a model, prove on whole numbers and time every kernel of a folder: kernels.jsonl and the WGSL files that it
    /// names (benches/kernels has a generator). They run without bounds checks: only folders that you trust
    #[arg(long, value_name = "DIR", conflicts_with_all = ["model", "mode", "batch_size", "steps", "precision", "roofline", "sweep", "tune"])]
    pub kernels: Option<PathBuf>,
    /// Append what becomes of each kernel to a file, a line of JSON each, and go on where the file ends
    #[arg(long, value_name = "FILE.jsonl", requires = "kernels")]
    results: Option<PathBuf>,
    /// Begin with no other kernel of --kernels after so many seconds
    #[arg(long, value_name = "SECONDS", requires = "kernels", value_parser = clap::value_parser!(u32).range(1..))]
    budget_s: Option<u32>,
}

/// Runs over which a kernel's time is the median.
const RUNS: usize = 5;

#[derive(Serialize)]
struct Report<'a> {
    adapter: &'a str,
    driver: &'a str,
    compile_s: f64,
    /// Kernels that the time was over for.
    left: usize,
    kernels: &'a [Found],
}

/// A line of the results.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Found(Box<Found>),
    /// Begins each call.
    Begun {
        adapter: String,
        driver: String,
        program: String,
    },
    /// All kernels are being compiled.
    Compiling {
        compiling: bool,
    },
    /// A kernel is being tried.
    Trying {
        trying: String,
    },
}

/// Proves and times what the results do not have yet, and prints all of them.
pub fn run(folder: &Path, args: &KernelArgs, json: bool, context: &Context) -> Result<Exit, Failure> {
    let deadline = args.budget_s.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
    let kernels = KernelFolder::open(folder)?;
    let gpu = context.open_gpu_to_measure(None)?;
    let mut results = Results::open(args.results.as_deref(), &gpu, &kernels)?;
    let known: BTreeSet<String> = results.found.iter().map(|found| found.kernel.clone()).collect();
    let options = SearchOptions { runs: RUNS, deadline, one_by_one: results.died_compiling };
    let left = kernels.kernels.iter().filter(|kernel| !known.contains(&kernel.line.kernel)).count();
    context.note(&format!("proving and timing {left} kernels on {}", gpu.adapter().name));
    let searched = search(&gpu, &kernels, &known, &options, &mut |event| {
        if let Event::Found(found) = &event
            && found.verdict == Outcome::Wrong
        {
            context.note(&format!("{}: wrong: {}", found.kernel, found.why.as_deref().unwrap_or_default()));
        }
        results.note(event)
    })?;
    if json {
        let Searched { compile_seconds, left } = searched;
        let AdapterDescription { name, driver, .. } = gpu.adapter();
        context.print_json(&Report { adapter: name, driver, compile_s: compile_seconds, left, kernels: &results.found })?;
    } else {
        context.print(&text(&results.found, searched))?;
    }
    let is_wrong = results.found.iter().any(|found| found.verdict == Outcome::Wrong);
    Ok(if is_wrong { Exit::CheckFailed } else { Exit::Done })
}

/// What is known, and where it is kept.
struct Results {
    found: Vec<Found>,
    file: Option<(PathBuf, File)>,
    /// The process came to an end while all kernels were compiled.
    died_compiling: bool,
}

impl Results {
    /// Reads what earlier calls left behind: what they died in is lost.
    fn open(path: Option<&Path>, gpu: &Gpu, folder: &KernelFolder) -> Result<Self, Failure> {
        let mut results = Results { found: Vec::new(), file: None, died_compiling: false };
        let Some(path) = path else { return Ok(results) };
        let failed = |error: io::Error| Failure::Failed(format!("--results {}: {error}", label(path)));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(error)),
        };
        let (name, driver) = (gpu.adapter().name.clone(), gpu.adapter().driver.clone());
        let mut trying = None;
        // A line that a killed process left half written says nothing.
        for line in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
            results.died_compiling = false;
            match line {
                Line::Begun { adapter, .. } if adapter != name => {
                    return Err(Failure::Failed(format!(
                        "--results {} has figures of {adapter}, this is {name}: name another file",
                        label(path)
                    )));
                }
                Line::Begun { .. } => {}
                Line::Compiling { .. } => results.died_compiling = true,
                Line::Trying { trying: kernel } => trying = Some(kernel),
                Line::Found(found) => {
                    trying = trying.filter(|kernel| *kernel != found.kernel);
                    results.found.push(*found);
                }
            }
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n").map_err(failed)?;
        }
        results.file = Some((path.to_path_buf(), file));
        results.append(&Line::Begun { adapter: name, driver, program: env!("CARGO_PKG_VERSION").into() })?;
        let lost = folder.kernels.iter().find(|kernel| Some(&kernel.line.kernel) == trying.as_ref());
        if let Some(kernel) = lost {
            results.note(Event::Found(Box::new(Found::refused(&kernel.line, Outcome::Lost, None))))?;
        }
        Ok(results)
    }

    fn note(&mut self, event: Event<'_>) -> Result<(), Failure> {
        match event {
            Event::Compiling => self.append(&Line::Compiling { compiling: true }),
            Event::Trying(kernel) => self.append(&Line::Trying { trying: kernel.into() }),
            Event::Found(found) => {
                self.append(&Line::Found(found.clone()))?;
                self.found.push(*found);
                Ok(())
            }
        }
    }

    /// One write a line, so that a line is there or not whenever the process ends.
    fn append(&mut self, line: &Line) -> Result<(), Failure> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let mut bytes = serde_json::to_vec(line).map_err(io::Error::from)?;
        bytes.push(b'\n');
        file.write_all(&bytes).map_err(|error| Failure::Failed(format!("--results {}: {error}", label(path))))
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        Failure::BadData(format!("--kernels: {error}"))
    }
}

/// A table for each problem, the fastest first.
fn text(found: &[Found], searched: Searched) -> String {
    let mut problems: Vec<&crate::kernels::Problem> = Vec::new();
    for one in found {
        if !problems.contains(&&one.problem) {
            problems.push(&one.problem);
        }
    }
    let mut text = String::new();
    for problem in problems {
        let mut rows: Vec<&Found> = found.iter().filter(|one| one.problem == *problem).collect();
        rows.sort_by(|a, b| a.ms.unwrap_or(f64::INFINITY).total_cmp(&b.ms.unwrap_or(f64::INFINITY)));
        let mut table = Table::new(&[("design", Align::Left), ("ms", Align::Right), ("GFLOP/s", Align::Right), ("verdict", Align::Left)]);
        for one in rows {
            let number = |value: Option<f64>, digits: usize| value.map_or(String::new(), |value| format!("{value:.digits$}"));
            let verdict = match &one.why {
                Some(why) => format!("{}: {why}", one.verdict),
                None => one.verdict.to_string(),
            };
            table.row(vec![one.design.clone(), number(one.ms, 4), number(one.gflops, 0), verdict]);
        }
        text.push_str(&format!("{problem}\n\n{}\n", table.render()));
    }
    let count = |outcome: Outcome| found.iter().filter(|one| one.verdict == outcome).count();
    let wrong = count(Outcome::Wrong);
    let right = count(Outcome::Right);
    text.push_str(&format!("{right} of {} kernels are right, {wrong} wrong; compiled in {:.1} s", found.len(), searched.compile_seconds));
    if searched.left > 0 {
        text.push_str(&format!("; no time for {}", searched.left));
    }
    text.push('\n');
    text
}
