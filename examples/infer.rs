//! Names what pictures show, with the weights inside the program or those of a file.
//!
//!     cargo run --release --example infer -- assets/samples/*.png
//!     cargo run --release --example infer -- --weights runs/nin-small-1/best.safetensors shirt.jpg

use nin_wgpu::Model;
use nin_wgpu::gpu::{Gpu, OpenOptions};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut pictures: Vec<String> = std::env::args().skip(1).collect();
    let model = match pictures.iter().position(|argument| argument == "--weights") {
        Some(place) if place + 1 < pictures.len() => {
            let file = pictures.remove(place + 1);
            pictures.remove(place);
            Model::load(file)?
        }
        _ => Model::embedded()?,
    };
    if pictures.is_empty() {
        return Err("name at least one picture".into());
    }
    let gpu = Gpu::open(&OpenOptions::default())?;
    let answers = model.classifier(&gpu)?.classify_files(&pictures)?;
    for (picture, answer) in pictures.iter().zip(answers) {
        println!("{picture}: {} ({:.1} %)", answer.class, answer.probability * 100.0);
    }
    Ok(())
}
