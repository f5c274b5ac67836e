//! `nin-wgpu data fetch`: downloads data sets by name.

use super::context::Context;
use super::error::{Exit, Failure};
use super::format;
use crate::data::catalog::{KnownSet, SETS};
use crate::data::fetch::{FetchEvent, FetchOptions, fetch};
use crate::data::{data_folders, find, inventory};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Least time between two plain lines about one file.
const INTERVAL: Duration = Duration::from_secs(10);

/// Arguments of the verb.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nin-wgpu data fetch fashion-mnist
  nin-wgpu data fetch cifar10 cifar100 --data-dir data

A download that was interrupted goes on where it stopped. Every file is checked against a SHA-256 known to this program,
so a mirror need not be trusted; own mirrors have the files as MIRROR/NAME/FILE, for example MIRROR/mnist/train-images-idx3-ubyte.gz.")]
pub struct Args {
    /// Names: mnist, fashion-mnist, cifar10, cifar100, svhn
    #[arg(value_name = "NAME", required = true, value_parser = known_set)]
    names: Vec<&'static KnownSet>,
    /// Folder in which the set's folder is made [default: NIN_WGPU_DATA, else the user's data folder]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Base address to download from instead of the known mirrors; may be given several times
    #[arg(long, value_name = "URL", env = "NIN_WGPU_MIRROR", hide_env = true)]
    mirror: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn known_set(name: &str) -> Result<&'static KnownSet, String> {
    KnownSet::find(name).ok_or_else(|| format!("the known names are {}", SETS.map(|set| set.name).join(", ")))
}

#[derive(Serialize)]
struct Fetched {
    name: &'static str,
    path: String,
    /// Whether anything had to be downloaded.
    downloaded: bool,
}

/// Downloads what is not there yet, and prints where each set is.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let folder = match data_folders(args.data_dir.as_deref()).into_iter().next() {
        Some(folder) => folder,
        None => return Err(Failure::Usage("there is no folder for data: name one with --data-dir".into())),
    };
    let options = FetchOptions { mirrors: args.mirror.iter().filter(|url| !url.is_empty()).cloned().collect(), ..Default::default() };
    let mut done = Vec::new();
    for set in &args.names {
        let present = match present(set, args)? {
            Some(path) => {
                context.note(&format!("{} is there already", set.name));
                Some(path)
            }
            None => None,
        };
        let downloaded = present.is_none();
        let path = match present {
            Some(path) => path,
            None => {
                let mut display = Display::new(context);
                fetch(set, &folder, &options, &mut |event| display.show(event))?
            }
        };
        if !args.json {
            context.print(&format!("{}  {}\n", set.name, path.display()))?;
        }
        done.push(Fetched { name: set.name, path: path.display().to_string(), downloaded });
    }
    if args.json {
        context.print_json(&done)?;
    }
    Ok(Exit::Done)
}

/// Where the set lies whole already: in the folder that was named, or anywhere where none was.
fn present(set: &'static KnownSet, args: &Args) -> Result<Option<PathBuf>, Failure> {
    let Some(path) = find(set, args.data_dir.as_deref()) else { return Ok(None) };
    let is_here = args.data_dir.as_ref().is_none_or(|folder| path.starts_with(folder));
    Ok((is_here && inventory::faults(set, &path)?.is_empty()).then_some(path))
}

/// Shows how a download goes: a bar on a terminal, plain lines otherwise.
struct Display<'a> {
    context: &'a Context,
    bar: Option<ProgressBar>,
    name: String,
    total: u64,
    last_line: Instant,
}

impl<'a> Display<'a> {
    fn new(context: &'a Context) -> Self {
        Display { context, bar: None, name: String::new(), total: 0, last_line: Instant::now() }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => self.context.note(text),
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn show(&mut self, event: FetchEvent) {
        match event {
            FetchEvent::File { name, url, present, total } => {
                self.clear();
                let behind = if present > 0 { format!(", going on after {}", format::bytes(present)) } else { String::new() };
                self.line(&format!("{name}: {} from {url}{behind}", format::bytes(total)));
                if self.context.draws_bars() {
                    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
                    bar.set_style(style());
                    bar.set_position(present);
                    bar.reset_eta();
                    self.bar = Some(bar);
                }
                (self.name, self.total, self.last_line) = (name, total, Instant::now());
            }
            FetchEvent::Bytes(present) => match &self.bar {
                Some(bar) => bar.set_position(present),
                None if self.last_line.elapsed() >= INTERVAL => {
                    self.last_line = Instant::now();
                    self.line(&format!("{}: {} of {}", self.name, format::bytes(present), format::bytes(self.total)));
                }
                None => {}
            },
            FetchEvent::Trouble(text) => self.line(&format!("note: {text}")),
            FetchEvent::Unpacking(name) => {
                self.clear();
                self.line(&format!("unpacking {name}"));
            }
        }
    }
}

impl Drop for Display<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

fn style() -> ProgressStyle {
    // The template is a constant; a wrong one would merely be drawn plainly.
    ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
