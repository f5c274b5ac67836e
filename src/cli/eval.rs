//! `nin-wgpu eval`: loss, accuracy and confusions of weights on a data set.

use super::compute_args::ComputeArgs;
use super::context::Context;
use super::error::{Exit, Failure};
use super::format;
use super::model_args::count;
use super::progress::Counter;
use super::table::{Align, Table};
use super::trust::trusted;
use super::tuning::Workload;
use super::weights_args::WeightsArgs;
use crate::data::{self, Dataset, OpenOptions, Split};
use crate::models::{Purpose, Training};
use crate::train::config::TrainConfig;
use crate::train::fit::VAL_SPLIT;
use crate::train::predict::{Evaluation, predictions};
use crate::train::trained::{FittedSplit, TrainedModel};
use clap::ValueEnum;
use serde::Serialize;
use std::ffi::OsString;
use std::path::PathBuf;

/// Arguments of the verb.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    weights: WeightsArgs,
    /// The data set: mnist, fashion-mnist, cifar10, cifar100, svhn, or a folder
    #[arg(long, value_name = "D")]
    data: OsString,
    /// Where named data sets are looked for first
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Which images
    #[arg(long, value_enum, default_value = "test")]
    split: SplitName,
    /// Share of each class that counts as the test split of a folder of pictures without one; drawn as in training
    /// [default: as the weights were trained, else 0.1]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    val_split: Option<f64>,
    /// Pictures of a folder that may be unreadable [default: 1 in 100, but at least 10]
    #[arg(long, value_name = "N")]
    max_bad: Option<usize>,
    /// Use only the first N images
    #[arg(long, value_name = "N", value_parser = count(u64::from(u32::MAX)))]
    limit: Option<usize>,
    /// Images in a batch
    #[arg(long, value_name = "B", default_value = "128", value_parser = count(1 << 16))]
    batch_size: usize,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum SplitName {
    Train,
    Test,
}

impl From<SplitName> for Split {
    fn from(name: SplitName) -> Self {
        match name {
            SplitName::Train => Split::Train,
            SplitName::Test => Split::Test,
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    images: usize,
    loss: f64,
    top1: f64,
    top5: f64,
    confusion: &'a [Vec<u64>],
}

/// Measures the weights and prints the result.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let budget = args.compute.memory.budget()?;
    let ready = args.weights.load(context)?;
    let split = Split::from(args.split);
    let dataset = open(args, split, &ready)?;
    for note in &dataset.notes {
        context.note(&format!("note: {note}"));
    }
    let FittedSplit { source, classes, note } = ready.fit(&dataset, split)?;
    note.iter().for_each(|note| context.note(&format!("note: {note}")));

    let batch = args.batch_size.min(source.len());
    let TrainedModel { model, options, .. } = &ready;
    let mut gpu = args.compute.tune.open_gpu(context, budget, false, |_| {
        Ok(Workload {
            model,
            options: options.clone(),
            purpose: Purpose::Evaluate,
            batch,
            max_pass: batch,
            training: Training::default(),
            precision: args.compute.precision(),
        })
    })?;
    let precision = trusted(&mut gpu, args.compute.precision(), false, context)?.precision;
    let counter = Counter::new(context, source.len());
    let predictions = predictions(&gpu, &ready, source, batch, precision, &mut |done| counter.set(done))?;
    let evaluation = Evaluation::of(&predictions, options.classes);
    drop(counter);
    if let Some(unreadable) = &dataset.unreadable {
        unreadable.take_new().iter().for_each(|picture| context.note(&format!("note: left aside: {}", picture.reason)));
    }
    if args.json {
        let Evaluation { images, loss, top1, top5, ref confusion } = evaluation;
        context.print_json(&Report { images, loss, top1, top5, confusion })?;
    } else {
        context.print(&text(&evaluation, &classes))?;
    }
    Ok(Exit::Done)
}

/// Opens the data set with only the wanted split read.
fn open(args: &Args, split: Split, ready: &TrainedModel) -> Result<Dataset, Failure> {
    let [height, width] = ready.preprocess.size;
    let recipe = ready.recipe.as_deref().and_then(|text| TrainConfig::from_toml(text).ok());
    let (trained_split, seed) = recipe.map_or((None, 0), |config| (config.val_split, config.seed));
    let val_split = args.val_split.or(trained_split).unwrap_or(VAL_SPLIT);
    if !(0.0..1.0).contains(&val_split) {
        return Err(Failure::Usage(format!("--val-split must be at least 0 and below 1; it is {val_split}")));
    }
    let limit = |of: Split| if of == split { args.limit } else { Some(0) };
    let options = OpenOptions {
        data_dir: args.data_dir.clone(),
        target: Some((height, width, ready.preprocess.channels)),
        limit_train: limit(Split::Train),
        limit_test: limit(Split::Test),
        val_split: Some(val_split),
        seed,
        max_bad: args.max_bad,
        follow_colour: false,
        appearance: Some(ready.preprocess.appearance()),
    };
    Ok(data::open(&args.data, &options)?)
}

/// Most classes for which every class gets a line.
const CLASSES_SHOWN: usize = 100;

fn text(evaluation: &Evaluation, classes: &[String]) -> String {
    let mut text = format!(
        "images  {}\nloss    {:.4}\ntop 1   {}\ntop 5   {}\n",
        format::thousands(evaluation.images as u64),
        evaluation.loss,
        format::percent(evaluation.top1),
        format::percent(evaluation.top5)
    );
    if evaluation.confusion.len() > CLASSES_SHOWN {
        return text;
    }
    let mut table = Table::new(&[
        ("class", Align::Left),
        ("images", Align::Right),
        ("recognised", Align::Right),
        ("most often taken for", Align::Left),
    ]);
    let name = |index: usize| classes.get(index).cloned().unwrap_or_else(|| index.to_string());
    for (label, row) in evaluation.confusion.iter().enumerate() {
        let images: u64 = row.iter().sum();
        if images == 0 {
            continue;
        }
        let (other, count) = mistake(row, label);
        table.row(vec![
            name(label),
            format::thousands(images),
            format::percent(row[label] as f64 / images as f64),
            if count > 0 { format!("{} ({})", name(other), format::percent(count as f64 / images as f64)) } else { "-".into() },
        ]);
    }
    text.push('\n');
    text.push_str(&table.render());
    text
}

/// The class that images of class `label` are most often taken for by mistake, and how often.
fn mistake(row: &[u64], label: usize) -> (usize, u64) {
    let mut most = (label, 0);
    for (index, count) in row.iter().enumerate() {
        if index != label && *count > most.1 {
            most = (index, *count);
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation() -> Evaluation {
        Evaluation { images: 4, loss: 0.5, top1: 0.75, top5: 1.0, confusion: vec![vec![2, 1], vec![0, 1]] }
    }

    #[test]
    fn json_has_the_documented_keys_in_order() {
        let Evaluation { images, loss, top1, top5, ref confusion } = evaluation();
        assert_eq!(
            serde_json::to_string(&Report { images, loss, top1, top5, confusion }).unwrap(),
            r#"{"images":4,"loss":0.5,"top1":0.75,"top5":1.0,"confusion":[[2,1],[0,1]]}"#
        );
    }

    #[test]
    fn text_names_the_commonest_mistake() {
        let text = text(&evaluation(), &["coat".into(), "bag".into()]);
        assert!(text.contains("bag (33.33 %)") && text.contains("top 1   75.00 %"), "{text}");
    }
}
