//! `nin-wgpu report`: makes the report of a run anew.

use super::context::Context;
use super::error::{Exit, Failure};
use super::progress::Counter;
use crate::errors::label;
use crate::gpu::Gpu;
use crate::train::predict::Prediction;
use crate::train::run_dir::RunDir;
use crate::train::{TrainError, report};
use std::path::PathBuf;

/// Arguments of the verb.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of a run, finished or not; its data set must still be there
    #[arg(value_name = "DIR")]
    run: PathBuf,
}

/// Measures the run's best weights on its test images, writes `report.html` and prints its path.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let dir = RunDir::open(&args.run)?;
    let config = dir.read_config()?;
    let mut gpu = context.open_gpu_within(config.memory_budget)?;
    gpu.use_choices(config.kernels);
    let path = make(&dir, None, &gpu, context)?;
    context.print(&format!("{}\n", label(&path)))?;
    Ok(Exit::Done)
}

/// Writes the report of a run; what its best weights say of the test images is measured where it is not known.
pub fn make(dir: &RunDir, known: Option<Vec<Prediction>>, gpu: &Gpu, context: &Context) -> Result<PathBuf, TrainError> {
    let predictions = match known {
        Some(predictions) => predictions,
        None => {
            let mut counter = None;
            report::measure(gpu, dir, &mut |done, images| counter.get_or_insert_with(|| Counter::new(context, images)).set(done))?
        }
    };
    report::write(dir, &predictions)
}
