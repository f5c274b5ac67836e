//! `nin-wgpu data`: data sets to download, to list and to look at.

use super::context::Context;
use super::error::{Exit, Failure};
use super::format;
use super::table::{Align, Table};
use super::{data_fetch, data_info};
use crate::data::inventory::{Entry, inventory};
use serde::Serialize;
use std::path::PathBuf;

/// What to do.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Download a data set by its name
    Fetch(data_fetch::Args),
    /// List the data sets that have a name, and where they are
    List(ListArgs),
    /// Count and measure the images of a data set, and draw a sheet of them
    Info(data_info::Args),
}

/// Arguments of `data list`.
#[derive(clap::Args)]
pub struct ListArgs {
    /// Where named data sets are looked for first
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Does it.
pub fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Fetch(args) => data_fetch::run(args, context),
        Command::List(args) => list(args, context),
        Command::Info(args) => data_info::run(args, context),
    }
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    about: &'a str,
    /// `whole`, `incomplete` or `missing`.
    state: &'a str,
    path: Option<String>,
    faults: &'a [String],
    download_bytes: u64,
}

fn list(args: &ListArgs, context: &Context) -> Result<Exit, Failure> {
    let entries = inventory(args.data_dir.as_deref())?;
    let lines: Vec<Line> = entries
        .iter()
        .map(|entry| Line {
            name: entry.set.name,
            about: entry.set.about,
            state: state(entry),
            path: entry.path.as_ref().map(|path| path.display().to_string()),
            faults: &entry.faults,
            download_bytes: entry.set.remote_bytes(),
        })
        .collect();
    if args.json {
        context.print_json(&lines)?;
    } else {
        context.print(&text(&lines))?;
    }
    Ok(Exit::Done)
}

fn state(entry: &Entry) -> &'static str {
    match &entry.path {
        None => "missing",
        Some(_) if entry.is_whole() => "whole",
        Some(_) => "incomplete",
    }
}

fn text(lines: &[Line]) -> String {
    let headings = [("name", Align::Left), ("pictures", Align::Left), ("state", Align::Left), ("where", Align::Left)];
    let mut table = Table::new(&headings);
    for line in lines {
        let place = match (&line.path, line.faults.first()) {
            (None, _) => format!("nin-wgpu data fetch {} ({})", line.name, format::bytes(line.download_bytes)),
            (Some(path), None) => path.clone(),
            (Some(path), Some(fault)) => format!("{path} ({fault}{})", if line.faults.len() > 1 { ", ..." } else { "" }),
        };
        table.row(vec![line.name.into(), line.about.into(), line.state.into(), place]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_says_what_to_do() {
        let faults = ["a.bin is missing".to_string(), "b.bin is missing".to_string()];
        let line = |state, path: Option<&str>, faults| Line {
            name: "tiny",
            about: "dots",
            state,
            path: path.map(str::to_owned),
            faults,
            download_bytes: 2 << 20,
        };
        let lines = [line("missing", None, &[][..]), line("whole", Some("d/tiny"), &[]), line("incomplete", Some("d/tiny"), &faults)];
        let expected = "name  pictures  state       where\n\
                        tiny  dots      missing     nin-wgpu data fetch tiny (2.0 MiB)\n\
                        tiny  dots      whole       d/tiny\n\
                        tiny  dots      incomplete  d/tiny (a.bin is missing, ...)\n";
        assert_eq!(text(&lines), expected);
    }
}
