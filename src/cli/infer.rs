//! `nin-wgpu infer`: names what pictures show.
//!
//! Pictures are decoded, answered and forgotten a batch at a time, so memory does not grow with their number. One
//! that cannot be read gets its error; the others still answer.

use super::compute_args::ComputeArgs;
use super::context::{Context, OpenedGpu, Paint};
use super::error::{Exit, Failure};
use super::format::{display_width, pad};
use super::model_args::count;
use super::progress::Counter;
use super::trust::trusted;
use super::tuning::{TuneArgs, Workload};
use super::weights_args::WeightsArgs;
use crate::data::DataError;
use crate::data::framing::prepare;
use crate::data::inputs::{Input, expand};
use crate::errors::one_line;
use crate::errors::path_text;
use crate::models::{Purpose, Training};
use crate::train::config::Precision;
use crate::train::predict::Predictor;
use crate::train::trained::TrainedModel;
use rayon::prelude::*;
use serde::Serialize;
use std::ffi::OsString;
use std::path::Path;

/// Arguments of the verb.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nin-wgpu infer shirt.jpg
  nin-wgpu infer photos/ 'more/*.png' --topk 1
  nin-wgpu infer --weights runs/nin-1/best.safetensors --json - < shirt.jpg")]
pub struct Args {
    /// Pictures: files, folders, patterns, or - for standard input
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<OsString>,
    #[command(flatten)]
    weights: WeightsArgs,
    /// Most likely classes to name [default: 3, with --json 5]
    #[arg(long, value_name = "K", value_parser = count(1_000_000))]
    topk: Option<usize>,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// How many classes to name.
    fn topk(&self) -> usize {
        self.topk.unwrap_or(if self.json { 5 } else { 3 })
    }
}

/// Most pictures that are held and run at once.
const BATCH: usize = 32;
/// Most pictures that are decoded at once: a large one takes hundreds of megabytes.
const DECODERS: usize = 4;
/// Widest name that still lines up with the others, in columns of a terminal.
const NAME_WIDTH: usize = 60;
/// Characters of a name that are shown in a line of text.
const LONGEST_NAME: usize = 400;

/// The answer to one picture.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Answer {
    Named { image: String, predictions: Vec<Prediction> },
    Failed { image: String, error: String },
}

#[derive(Debug, PartialEq, Serialize)]
struct Prediction {
    index: usize,
    class: String,
    probability: f32,
}

/// A picture that was asked for: its name, and where it is or why it is nowhere.
struct Asked {
    name: String,
    input: Result<Input, DataError>,
}

/// Answers every picture, in the order in which they were named.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let asked = ask(&args.images);
    if asked.is_empty() {
        return Err(Failure::Usage(format!("{}: there are no pictures here", args.images.iter().map(shown).collect::<Vec<_>>().join(" "))));
    }
    let memory_budget = args.compute.memory.budget()?;
    let weights = args.weights.load(context)?;
    let topk = args.topk();
    let widest = |names: &mut dyn Iterator<Item = usize>| names.max().unwrap_or(0).min(NAME_WIDTH);
    let class_width = widest(&mut weights.classes.iter().map(|class| display_width(class)));
    let width = widest(&mut asked.iter().map(|asked| display_width(&one_line(&asked.name, LONGEST_NAME))));
    let decoders = decoders(asked.len())?;
    // Results go straight to a terminal; a bar would be in their way.
    let counter = (args.json && asked.len() > BATCH).then(|| Counter::new(context, asked.len()));

    let mut device = Device {
        context,
        tune: args.compute.tune,
        weights: &weights,
        pictures: asked.len(),
        precision: args.compute.precision(),
        memory_budget,
        opened: None,
    };
    let mut answers = Vec::new();
    let mut has_failed = false;
    let mut done = 0;
    for chunk in asked.chunks(BATCH) {
        let pictures = decoders.install(|| chunk.par_iter().map(|asked| read(asked, &weights)).collect::<Vec<_>>());
        for answer in answer(chunk, pictures, topk, &mut device)? {
            if let Answer::Failed { error, .. } = &answer {
                has_failed = true;
                if !args.json {
                    context.error(error);
                }
            }
            if args.json {
                answers.push(answer);
            } else {
                context.print(&text(&answer, width, class_width, context.paint()))?;
            }
        }
        done += chunk.len();
        if let Some(counter) = &counter {
            counter.set(done);
        }
    }
    drop(counter);
    if args.json {
        context.print_json(&answers)?;
    }
    Ok(if has_failed { Exit::BadInputs } else { Exit::Done })
}

/// The pictures that the arguments name; an argument that names none keeps its place and its name.
fn ask(arguments: &[OsString]) -> Vec<Asked> {
    let mut asked = Vec::new();
    for argument in arguments {
        for input in expand(std::slice::from_ref(argument)) {
            let name = input.as_ref().map_or_else(|_| shown(argument), ToString::to_string);
            asked.push(Asked { name, input });
        }
    }
    asked
}

fn shown(argument: &OsString) -> String {
    path_text(Path::new(argument))
}

fn decoders(pictures: usize) -> Result<rayon::ThreadPool, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    rayon::ThreadPoolBuilder::new()
        .num_threads(cores.min(DECODERS).min(pictures).max(1))
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start the threads that read pictures: {error}")))
}

/// Decodes a picture and brings it to the model's size; the error is a message that names it.
fn read(asked: &Asked, weights: &TrainedModel) -> Result<Vec<u8>, String> {
    let input = asked.input.as_ref().map_err(ToString::to_string)?;
    let pixels = input.read().and_then(|picture| prepare(&picture, &weights.preprocess.target()));
    pixels.map_err(|error| match error {
        // These name the picture already.
        DataError::Read { .. } | DataError::Picture { .. } | DataError::Malformed { .. } => error.to_string(),
        _ => format!("{}: {error}", asked.name),
    })
}

/// What answers: a device that is opened for the first picture that can be read.
struct Device<'a> {
    context: &'a Context,
    tune: TuneArgs,
    weights: &'a TrainedModel,
    /// Pictures that were asked for.
    pictures: usize,
    precision: Precision,
    memory_budget: Option<u64>,
    opened: Option<(OpenedGpu<'a>, Predictor)>,
}

impl Device<'_> {
    fn predict(&mut self, pictures: &[Vec<u8>]) -> Result<Vec<Vec<f32>>, Failure> {
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        let (gpu, predictor) = match &mut self.opened {
            Some(opened) => opened,
            None => {
                let TrainedModel { model, options, .. } = self.weights;
                let batch = BATCH.min(self.pictures);
                let purpose = Purpose::Infer { runs: self.pictures.div_ceil(batch) };
                let mut gpu = self.tune.open_gpu(self.context, self.memory_budget, false, |_| {
                    Ok(Workload {
                        model,
                        options: options.clone(),
                        purpose,
                        batch,
                        max_pass: batch,
                        training: Training::default(),
                        precision: self.precision,
                    })
                })?;
                let precision = trusted(&mut gpu, self.precision, false, self.context)?.precision;
                let predictor = Predictor::new(&gpu, self.weights, batch, self.pictures, precision)?;
                self.opened.insert((gpu, predictor))
            }
        };
        Ok(predictor.predict(gpu, pictures)?)
    }
}

/// Runs the pictures that could be read.
fn answer(asked: &[Asked], pictures: Vec<Result<Vec<u8>, String>>, topk: usize, device: &mut Device<'_>) -> Result<Vec<Answer>, Failure> {
    let readable: Vec<Vec<u8>> = pictures.iter().filter_map(|picture| picture.as_ref().ok().cloned()).collect();
    let mut probabilities = device.predict(&readable)?.into_iter();
    let answers = asked.iter().zip(pictures).map(|(asked, picture)| {
        let image = asked.name.clone();
        match picture {
            Err(error) => Answer::Failed { image, error: one_line(&error, 1000) },
            Ok(_) => {
                let predictions = best(&probabilities.next().unwrap_or_default(), &device.weights.classes, topk);
                Answer::Named { image, predictions }
            }
        }
    });
    Ok(answers.collect())
}

/// The `topk` most probable classes, the most probable first; of equals the one with the lower index.
fn best(probabilities: &[f32], classes: &[String], topk: usize) -> Vec<Prediction> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]).then(a.cmp(b)));
    order
        .into_iter()
        .take(topk)
        .map(|index| Prediction {
            index,
            class: classes.get(index).cloned().unwrap_or_else(|| index.to_string()),
            probability: probabilities[index],
        })
        .collect()
}

/// A line per class; the picture's name stands on the first. Errors go elsewhere.
fn text(answer: &Answer, width: usize, class_width: usize, paint: Paint) -> String {
    let Answer::Named { image, predictions } = answer else { return String::new() };
    let mut text = String::new();
    for (place, prediction) in predictions.iter().enumerate() {
        let name = if place == 0 { one_line(image, LONGEST_NAME) } else { String::new() };
        let Prediction { class, probability, .. } = prediction;
        let line = format!("{}  {:>5.1} %", pad(&one_line(class, LONGEST_NAME), class_width), probability * 100.0);
        let line = if place == 0 { paint.bold(&line) } else { line };
        text.push_str(&format!("{}  {line}\n", pad(&name, width)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes() -> Vec<String> {
        ["coat", "bag", "sandal"].map(String::from).to_vec()
    }

    #[test]
    fn the_most_probable_come_first() {
        let found = best(&[0.25, 0.5, 0.25], &classes(), 2);
        assert_eq!(found.iter().map(|p| p.index).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(best(&[0.25, 0.5, 0.25], &classes(), 9).len(), 3);
    }

    #[test]
    fn json_has_the_documented_keys_in_order() {
        let answers = [
            Answer::Named { image: "a.png".into(), predictions: best(&[0.25, 0.5, 0.25], &classes(), 1) },
            Answer::Failed { image: "b.png".into(), error: "b.png: no such file".into() },
        ];
        assert_eq!(
            serde_json::to_string(&answers).unwrap(),
            r#"[{"image":"a.png","predictions":[{"index":1,"class":"bag","probability":0.5}]},{"image":"b.png","error":"b.png: no such file"}]"#
        );
    }

    #[test]
    fn text_lines_up() {
        let answer = Answer::Named { image: "a.png".into(), predictions: best(&[0.0625, 0.875, 0.0625], &classes(), 2) };
        assert_eq!(text(&answer, 7, 6, Paint::NONE), "a.png    bag      87.5 %\n         coat      6.2 %\n");
    }

    #[test]
    fn wide_characters_line_up() {
        let answer = Answer::Named { image: "猫.png".into(), predictions: best(&[1.0, 0.0], &["猫".into(), "dog".into()], 2) };
        assert_eq!(text(&answer, 7, 4, Paint::NONE), "猫.png   猫    100.0 %\n         dog     0.0 %\n");
    }

    #[test]
    fn an_argument_without_pictures_keeps_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().display().to_string();
        let asked = ask(&[empty.clone().into(), "missing.png".into(), "-".into()]);
        let names: Vec<&str> = asked.iter().map(|asked| asked.name.as_str()).collect();
        assert_eq!(names, [empty.as_str(), "missing.png", "-"]);
        assert!(asked[0].input.is_err() && asked[1].input.is_ok());
    }
}
