//! `nin-wgpu data info`: what is in a data set.

use super::context::Context;
use super::error::{Exit, Failure};
use super::format;
use super::model_args::count;
use super::table::{Align, Table};
use crate::data::appearance::Appearance;
use crate::data::survey::{Survey, contact_sheet, survey};
use crate::data::{self, Dataset, OpenOptions, UnreadablePicture};
use crate::errors::path_text;
use crate::files::replace_file;
use serde::Serialize;
use std::ffi::OsString;
use std::path::PathBuf;

/// Side in pixels to which pictures of folders are brought for the sheet.
const SIDE: usize = 64;
/// Unreadable pictures that are named on stderr.
const NAMED: usize = 5;

/// Arguments of the verb.
#[derive(clap::Args)]
pub struct Args {
    /// The data set: mnist, fashion-mnist, cifar10, cifar100, svhn, or a folder
    #[arg(value_name = "NAME|DIR")]
    data: OsString,
    /// Where named data sets are looked for first
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Write samples as a PNG: a row for each class, in the order that is printed
    #[arg(long, value_name = "FILE.png")]
    sheet: Option<PathBuf>,
    /// Samples in a row of the sheet
    #[arg(long, value_name = "N", default_value = "10", value_parser = count(100))]
    columns: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    path: String,
    train: usize,
    test: usize,
    /// (C, H, W) of every image; of pictures in files, whose sizes may differ, only the channels.
    shape: [Option<usize>; 3],
    sizes: Option<SizeReport>,
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    /// Images from which mean and std were taken.
    measured: usize,
    classes: Vec<ClassReport<'a>>,
    unreadable: Vec<UnreadableReport>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct SizeReport {
    width: [u32; 2],
    height: [u32; 2],
}

#[derive(Serialize)]
struct ClassReport<'a> {
    index: usize,
    name: &'a str,
    train: u64,
    test: u64,
}

#[derive(Serialize)]
struct UnreadableReport {
    file: String,
    reason: String,
}

/// Measures the set and prints the result.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let options = OpenOptions {
        data_dir: args.data_dir.clone(),
        target: Some((SIDE, SIDE, 1)),
        follow_colour: true,
        // The sheet and the figures are those of the pictures as they are.
        appearance: Some(Appearance::ANY),
        // What cannot be read is listed here, however much it is.
        max_bad: Some(usize::MAX),
        ..OpenOptions::default()
    };
    let dataset = data::open(&args.data, &options)?;
    let survey = survey(&dataset)?;
    if let Some(path) = &args.sheet {
        let png = contact_sheet(&dataset, args.columns)?;
        replace_file(path, |writer| writer.write_all(&png))
            .map_err(|error| Failure::Failed(format!("{}: cannot write the sheet: {error}", path.display())))?;
    }
    let unreadable = dataset.unreadable.as_ref().map_or(Vec::new(), |list| list.take_new());
    dataset.notes.iter().for_each(|note| context.note(&format!("note: {note}")));
    for UnreadablePicture { reason, .. } in unreadable.iter().take(NAMED) {
        context.note(&format!("note: {reason}"));
    }
    let report = report(&dataset, &survey, unreadable);
    if args.json {
        context.print_json(&report)?;
    } else {
        context.print(&text(&report))?;
    }
    Ok(Exit::Done)
}

fn report<'a>(dataset: &'a Dataset, survey: &Survey, unreadable: Vec<UnreadablePicture>) -> Report<'a> {
    let [channels, height, width] = dataset.shape();
    let size = |side| survey.sizes.is_none().then_some(side);
    let classes = dataset.classes.iter().zip(&survey.counts).enumerate();
    Report {
        name: &dataset.name,
        path: path_text(&dataset.path),
        train: dataset.train.len(),
        test: dataset.test.len(),
        shape: [Some(channels), size(height), size(width)],
        sizes: survey.sizes.map(|sizes| SizeReport { width: sizes.width.into(), height: sizes.height.into() }),
        mean: survey.stats.as_ref().map(|stats| stats.mean.clone()),
        std: survey.stats.as_ref().map(|stats| stats.std.clone()),
        measured: survey.measured,
        classes: classes.map(|(index, (name, &(train, test)))| ClassReport { index, name, train, test }).collect(),
        unreadable: unreadable
            .into_iter()
            .map(|picture| UnreadableReport { file: path_text(&picture.path), reason: picture.reason })
            .collect(),
        notes: &dataset.notes,
    }
}

fn text(report: &Report) -> String {
    let figures = |values: &[f32]| values.iter().map(|value| format!("{value:.4}")).collect::<Vec<_>>().join(" ");
    let images = |count: usize| format::thousands(count as u64);
    let mut lines = vec![
        ("data set", format!("{} in {}", report.name, report.path)),
        ("images", format!("{} for training, {} for testing", images(report.train), images(report.test))),
    ];
    let colour = if report.shape[0] == Some(3) { "colour" } else { "grey" };
    match &report.sizes {
        Some(SizeReport { width: [left, right], height: [top, bottom] }) => {
            lines.push(("pictures", format!("{colour}, {left} to {right} pixels wide, {top} to {bottom} high")));
        }
        None => {
            let dims: Vec<usize> = report.shape.iter().flatten().copied().collect();
            lines.push(("pictures", format!("{colour}, {} (channels, height, width)", format::shape(&dims))));
        }
    }
    if let (Some(mean), Some(std)) = (&report.mean, &report.std) {
        lines.push(("mean", figures(mean)));
        lines.push(("std", format!("{} (for pixels in [0, 1], from {} images)", figures(std), images(report.measured))));
    }
    if !report.unreadable.is_empty() {
        lines.push(("unreadable", format!("{} of the pictures that were read", images(report.unreadable.len()))));
    }
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<11} {value}\n")).collect();
    let headings = [("index", Align::Right), ("class", Align::Left), ("training", Align::Right), ("testing", Align::Right)];
    let mut table = Table::new(&headings);
    for class in &report.classes {
        table.row(vec![class.index.to_string(), class.name.into(), format::thousands(class.train), format::thousands(class.test)]);
    }
    text.push('\n');
    text.push_str(&table.render());
    text
}
