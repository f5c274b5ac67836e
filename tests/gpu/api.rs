//! The library's classifier: what a picture alone costs, and what it answers.

use crate::{Device, trial};
use libtest_mimic::Trial;
use nin_wgpu::Model;
use nin_wgpu::data::picture::Picture;
use nin_wgpu::gpu::Gpu;

/// Most by which a probability may differ with the number of pictures: a few roundings of f32.
const ROUNDING: f32 = 1e-5;

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    vec![trial(device, "api::a_picture_alone_costs_a_run_of_one", a_picture_alone_costs_a_run_of_one)]
}

fn picture(seed: usize) -> Picture {
    let light = |at: usize| if (at / 28 + seed) % 9 < 4 { 200 + (at % 28) as u8 } else { 0 };
    Picture { width: 28, height: 28, channels: 1, pixels: (0..28 * 28).map(light).collect() }
}

fn a_picture_alone_costs_a_run_of_one(gpu: &Gpu) -> Result<(), String> {
    let text = |error: nin_wgpu::train::TrainError| error.to_string();
    let model = Model::embedded().map_err(|error| error.to_string())?;
    let pictures: Vec<Picture> = (0..3).map(picture).collect();
    let mut classifier = model.classifier(gpu).map_err(text)?;
    let before = gpu.memory().bytes;
    let mut alone = Vec::new();
    for picture in &pictures {
        alone.extend(classifier.classify(std::slice::from_ref(picture)).map_err(text)?);
    }
    let single = gpu.memory().bytes - before;
    let together = classifier.classify(&pictures).map_err(text)?;
    let many = gpu.memory().bytes - before - single;
    // Both hold the weights; what lies between the layers is 32 times as much.
    if many < 3 * single {
        return Err(format!("one picture takes {single} bytes, a batch {many}"));
    }
    for (alone, together) in alone.iter().zip(&together) {
        let pairs = alone.probabilities.iter().zip(&together.probabilities);
        let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if alone.index != together.index || !(difference <= ROUNDING) {
            return Err(format!("{alone:?} alone, {together:?} among others"));
        }
    }
    if classifier.classify(&[]).map_err(text)?.is_empty() { Ok(()) } else { Err("answers without pictures".into()) }
}
