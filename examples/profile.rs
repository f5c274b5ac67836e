//! Times every kernel of a training step: `cargo run --release --example profile -- nin-small 32`.

use nin_wgpu::gpu::{Gpu, OpenOptions};
use nin_wgpu::models::{InputOptions, Model};
use nin_wgpu::ops::Optimizer;
use nin_wgpu::passes::CompileOptions;
use nin_wgpu::train::config::TrainConfig;
use nin_wgpu::train::engine::TrainEngine;
use nin_wgpu::train::initial_parameters;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let name = arguments.get(1).map_or("nin-small", String::as_str);
    let batch = arguments.get(2).map_or(Ok(32), |b| b.parse())?;
    let model = Model::find(name).ok_or("no such model")?;
    let gpu = Gpu::open(&OpenOptions::default())?;
    let parameters = initial_parameters(&model.describe(&model.defaults)?, &TrainConfig::defaults(name)?);
    let tensors: Vec<_> = parameters.iter().collect();
    let sgd = Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 };
    let input = InputOptions::plain(&model.defaults);
    let engine = TrainEngine::new(&gpu, model, &model.defaults, &input, sgd, batch, batch, &tensors, CompileOptions::from_env())?;
    let times = engine.time_each(&gpu, 5)?;
    let total: f64 = times.iter().map(|(_, _, s)| s).sum();
    for (path, kernel, seconds) in &times {
        println!("{:8.2} ms {:5.1} %  {path:10} {kernel}", seconds * 1e3, seconds / total * 100.0);
    }
    println!("{:8.2} ms in all, {:.0} images/s", total * 1e3, batch as f64 / total);
    Ok(())
}
