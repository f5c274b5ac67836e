//! Trains a small network on images that the program draws itself, stops it half way, goes on, and uses the result.
//!
//!     cargo run --release --example train [FOLDER]
//!
//! FOLDER takes the run's files, a new one in the folder for temporary files without it. Half a minute on two CPU cores.

use nin_wgpu::data::{InMemory, Split};
use nin_wgpu::gpu::{Gpu, OpenOptions};
use nin_wgpu::train::metrics::EpochLine;
use nin_wgpu::train::trainer::{Observer, RunInfo, StepReport};
use nin_wgpu::{Dataset, Model, Trainer};
use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Height and width of an image.
const SIDE: i32 = 28;
const CLASSES: [&str; 3] = ["disc", "square", "cross"];

fn main() -> Result<(), Box<dyn Error>> {
    let own = tempfile_folder();
    let folder = std::env::args_os().nth(1).map_or(own, PathBuf::from);
    let shapes = || Dataset::of("shapes", CLASSES.map(String::from).to_vec(), draw(0..1536)?, draw(1536..1792)?);

    let mut gpu = Gpu::open(&OpenOptions::default())?;
    println!("on {}", gpu.adapter().name);

    // Ctrl-C would set the flag in a program of yours.
    let stop = AtomicBool::new(false);
    let mut printer = Printer { stop_at: 40, stop: &stop };
    let settings = Trainer::on("nin-small", shapes()?)?.with(|config| {
        (config.classes, config.epochs, config.batch_size, config.log_every) = (CLASSES.len(), 3, 32, 20);
    });
    let halted = settings.out(&folder).train_until(&mut gpu, &mut printer, &stop)?;
    println!("stopped: {}; going on in the middle of the epoch", halted.interrupted);
    let outcome = Trainer::resume(&folder)?.with_dataset(shapes()?).train(&mut gpu, &mut Printer { stop_at: u64::MAX, stop: &stop })?;

    let model = Model::load(outcome.out.join("best.safetensors"))?;
    let evaluation = model.evaluate(&gpu, &shapes()?, Split::Test)?;
    println!("{} of {} test images named rightly", (evaluation.top1 * evaluation.images as f64).round(), evaluation.images);
    if evaluation.top1 < 0.9 {
        return Err("a network that tells discs from squares was expected".into());
    }
    println!("{} classifies: nin-wgpu infer --weights {}", model.name(), outcome.out.join("best.safetensors").display());
    Ok(())
}

fn tempfile_folder() -> PathBuf {
    std::env::temp_dir().join(format!("nin-wgpu-shapes-{}", std::process::id()))
}

/// Images of the given numbers: a shape of any size at any place, light on dark.
fn draw(numbers: std::ops::Range<u32>) -> Result<InMemory, nin_wgpu::data::DataError> {
    let mut pixels = Vec::new();
    let mut labels = Vec::new();
    for number in numbers {
        // Multiplicative hashing is random enough for places and sizes.
        let random = |salt: u32, below: u32| (number.wrapping_mul(4).wrapping_add(salt).wrapping_mul(2_654_435_761) >> 16) % below;
        let (radius, label) = (5 + random(0, 5) as i32, number % 3);
        let place = |salt| radius + random(salt, (SIDE - 2 * radius) as u32) as i32;
        let (x, y) = (place(1), place(2));
        for (row, column) in (0..SIDE).flat_map(|row| (0..SIDE).map(move |column| (row, column))) {
            let (down, across) = ((row - y).abs(), (column - x).abs());
            let is_inside = match label {
                0 => down * down + across * across <= radius * radius,
                1 => down.max(across) <= radius * 4 / 5,
                _ => down.min(across) <= radius / 4 && down.max(across) <= radius,
            };
            pixels.push(if is_inside { 255 } else { 0 });
        }
        labels.push(label);
    }
    InMemory::new([1, SIDE as usize, SIDE as usize], CLASSES.len(), pixels, labels)
}

/// Prints what happens, and stops the run after an update.
struct Printer<'a> {
    stop_at: u64,
    stop: &'a AtomicBool,
}

impl Observer for Printer<'_> {
    fn started(&mut self, run: &RunInfo) {
        println!("{} images, {} parameters, {} updates an epoch", run.train_images, run.parameters, run.steps_per_epoch);
    }

    fn step(&mut self, report: &StepReport) {
        println!("step {:4}  loss {:.4}  {:.0} images/s", report.step, report.loss, report.images_per_s);
        self.stop.store(report.step >= self.stop_at, Ordering::Relaxed);
    }

    fn epoch(&mut self, line: &EpochLine, _: bool) {
        println!("epoch {}  test accuracy {:.1} %", line.epoch, line.test_acc * 100.0);
    }

    fn note(&mut self, text: &str) {
        println!("note: {text}");
    }
}
