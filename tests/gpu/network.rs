//! Whole networks on the device: gradients against the f64 reference, and what must not change a single bit.

use crate::{Device, trial};
use libtest_mimic::Trial;
use nin_wgpu::data::{Batch, InMemory, Order, Source};
use nin_wgpu::gpu::{Gpu, OpenOptions};
use nin_wgpu::graph::{ValueKind, interpret};
use nin_wgpu::kernels::{DeviceClass, Step};
use nin_wgpu::models::{InputOptions, Model, ModelOptions, Purpose, Training, network};
use nin_wgpu::ops::{Augment, LossScale, Optimizer};
use nin_wgpu::passes::{CompileOptions, PlanOptions, precision};
use nin_wgpu::rng::Stream;
use nin_wgpu::tensor::Tensor;
use nin_wgpu::train::config::TrainConfig;
use nin_wgpu::train::engine::{DeviceParameters, ForwardEngine, StepResult, TrainEngine};
use nin_wgpu::train::initial_parameters;
use nin_wgpu::train::resident::{DeviceInput, ResidentImages, Room, epoch_batches};
use nin_wgpu::weights::NamedTensor;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub const BATCH: usize = 6;
pub const SGD: Optimizer = Optimizer::Sgd { momentum: 0.9, nesterov: true, weight_decay: 1e-3 };

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    vec![
        trial(device, "network::gradients::nin-small", |gpu| gradients(gpu, "nin-small", 14, CompileOptions::default())),
        trial(device, "network::gradients::nin-cifar", |gpu| gradients(gpu, "nin-cifar", 7, CompileOptions::default())),
        trial(device, "network::gradients::nin-small with GPU kernels", |_| {
            let options = OpenOptions { class: Some(DeviceClass::Discrete), ..Default::default() };
            gradients(&Gpu::open(&options).map_err(|e| e.to_string())?, "nin-small", 14, CompileOptions::default())
        }),
        trial(device, "network::fused equals unfused", |gpu| {
            same_bits(gpu, CompileOptions::default(), CompileOptions { fuse: false, ..Default::default() })
        }),
        trial(device, "network::fused equals unfused without gradients", |gpu| forward_only(gpu, CompileOptions::default())),
        trial(device, "network::planned equals unplanned", |gpu| {
            same_bits(gpu, CompileOptions::default(), CompileOptions { plan: PlanOptions { share: false }, ..Default::default() })
        }),
        trial(device, "network::recomputed equals stored", |gpu| {
            same_bits(gpu, CompileOptions::default(), CompileOptions { recompute: true, ..Default::default() })
        }),
        trial(device, "network::the same run twice", |gpu| same_bits(gpu, CompileOptions::default(), CompileOptions::default())),
        trial(device, "network::resident images equal uploaded ones", |gpu| resident(gpu, CompileOptions::default())),
        trial(device, "network::in short submissions", short_submissions),
        trial(device, "network::measured, then in long submissions", measured_submissions),
        trial(device, "network::micro-batches", micro_batches),
        trial(device, "network::a partial batch", partial_batch),
    ]
}

/// A small instance of a model with everything switched on.
pub struct Setup {
    pub model: &'static Model,
    pub options: ModelOptions,
    pub input: InputOptions,
    pub parameters: Vec<NamedTensor>,
}

impl Setup {
    pub fn new(name: &str, side: usize) -> Self {
        let model = Model::find(name).expect("a known model");
        let options = ModelOptions { image_size: [side; 2], dropout: 0.25, ..model.defaults.clone() };
        let input = InputOptions {
            source: [options.in_channels, side - 2, side + 1],
            mean: vec![0.4],
            std: vec![0.3],
            augment: Some(Augment { flip: true, shift: 2, ..Augment::NONE }),
            whiten: false,
            resident: None,
        };
        let mut config = TrainConfig::defaults(name).expect("defaults of a known model");
        config.head_bias = Some(1.0);
        let parameters = initial_parameters(&model.describe(&options).expect("a valid size"), &config);
        Setup { model, options, input, parameters }
    }

    pub fn engine(&self, gpu: &Gpu, max_pass: usize, switches: CompileOptions) -> Result<TrainEngine, String> {
        self.engine_with(gpu, SGD, max_pass, switches)
    }

    pub fn engine_with(&self, gpu: &Gpu, rule: Optimizer, max_pass: usize, switches: CompileOptions) -> Result<TrainEngine, String> {
        self.engine_for(gpu, Training { optimizer: rule, ..Training::default() }, max_pass, switches)
    }

    pub fn engine_for(&self, gpu: &Gpu, training: Training, max_pass: usize, switches: CompileOptions) -> Result<TrainEngine, String> {
        let tensors: Vec<_> = self.parameters.iter().collect();
        TrainEngine::new(gpu, self.model, &self.options, &self.input, training, BATCH, max_pass, &tensors, DeviceInput::default(), switches)
            .map_err(|e| e.to_string())
    }

    pub fn batch(&self, seed: u64) -> Batch {
        let mut rng = Stream::new(seed, 0, 0, 9);
        let bytes = BATCH * self.input.source.iter().product::<usize>();
        Batch {
            pixels: (0..bytes).map(|_| rng.below(256) as u8).collect(),
            labels: (0..BATCH).map(|_| rng.below(10)).collect(),
            ids: (0..BATCH as u32).map(|i| i * 7 + seed as u32).collect(),
            count: BATCH,
        }
    }

    /// Trains for `steps` updates; the results of the updates and the parameters.
    pub fn run(&self, gpu: &Gpu, engine: &mut TrainEngine, steps: u64) -> Result<(Vec<StepResult>, Vec<NamedTensor>), String> {
        let mut results = Vec::new();
        for number in 0..steps {
            let read_back = number % 2 == 1;
            engine.step(gpu, &self.batch(number), number, 0, 5, 0.02, read_back, &mut results).map_err(|e| e.to_string())?;
        }
        engine.finish(gpu, &mut results).map_err(|e| e.to_string())?;
        Ok((results, engine.download(gpu).map_err(|e| e.to_string())?))
    }
}

/// Loss and gradients of one step against the same graph in double precision, which rounds what is stored in half precision.
/// There, kernels that round otherwise than the reference by a hair change what follows by a whole unit.
pub fn gradients(gpu: &Gpu, name: &str, side: usize, switches: CompileOptions) -> Result<(), String> {
    let (loss_error, error_share, directional_error) = if switches.half { (1e-3, 1e-2, 1e-2) } else { (1e-5, 1e-4, 1e-3) };
    let setup = Setup::new(name, side);
    let batch = setup.batch(3);
    let mut engine = setup.engine(gpu, BATCH, switches)?;
    let mut results = Vec::new();
    engine.step(gpu, &batch, 0, 0, 5, 0.0, false, &mut results).map_err(|e| e.to_string())?;
    engine.finish(gpu, &mut results).map_err(|e| e.to_string())?;
    let got = engine.download_gradients(gpu).map_err(|e| e.to_string())?;

    let training = Training::default();
    let network = network(setup.model, &setup.options, &setup.input, Purpose::Train, BATCH, BATCH, &training);
    let mut network = network.map_err(|e| e.to_string())?;
    let mut inputs = BTreeMap::new();
    if let Some(id) = if switches.half { precision(&mut network.graph) } else { None } {
        let fact = network.graph.fact(id);
        let words = LossScale::default().to_words().map(f32::from_bits);
        inputs.insert(id, Tensor::from_f32(&fact.shape, &words));
    }
    let graph = &network.graph;
    let shape = |id| graph.fact(id).shape.clone();
    // Pixels lie as height, width, channel; logical order is channel, height, width.
    let [n, c, h, w] = shape(network.pixels[0]).four();
    let pixel = |i: usize| {
        let (x, y, channel, image) = (i % w, i / w % h, i / w / h % c, i / w / h / c);
        f64::from(batch.pixels[((image * h + y) * w + x) * c + channel])
    };
    inputs.insert(network.pixels[0], Tensor { shape: shape(network.pixels[0]), data: (0..n * c * h * w).map(pixel).collect() });
    let integers = |values: &[u32]| values.iter().map(|v| f64::from(*v)).collect();
    inputs.insert(network.ids, Tensor { shape: shape(network.ids), data: integers(&batch.ids) });
    if let Some(labels) = network.labels {
        inputs.insert(labels, Tensor { shape: shape(labels), data: integers(&batch.labels) });
    }
    for (parameter, tensor) in graph.parameters.iter().zip(&setup.parameters) {
        inputs.insert(parameter.value, Tensor::from_f32(&shape(parameter.value), &tensor.data));
    }
    let count = BATCH as u32;
    let [seed_lo, seed_hi] = nin_wgpu::rng::key(5);
    let step = Step { images: count, total_images: count, seed_lo, seed_hi, ..Default::default() };
    let values = interpret(graph, inputs, &step);

    let metrics = &values[&network.result].data;
    let loss = results[0].loss_sum;
    if (loss - metrics[0]).abs() > loss_error * metrics[0] {
        return Err(format!("loss {loss}, reference {}", metrics[0]));
    }
    let mut rng = Stream::new(77, 0, 0, 9);
    let (mut directional, mut expected_directional) = (0.0, 0.0);
    for (id, value) in graph.values() {
        let ValueKind::Gradient(index) = value.kind else { continue };
        let (mut error, mut norm) = (0.0, 0.0);
        for (got, want) in got[index].data.iter().zip(&values[&id].data) {
            error += (f64::from(*got) - want).powi(2);
            norm += want.powi(2);
            let direction = f64::from(rng.uniform_in(-1.0, 1.0));
            directional += f64::from(*got) * direction;
            expected_directional += want * direction;
        }
        if error.sqrt() > error_share * norm.sqrt() {
            return Err(format!("gradient of {}: off by {:e} of {:e}", got[index].name, error.sqrt(), norm.sqrt()));
        }
    }
    if (directional - expected_directional).abs() > directional_error * expected_directional.abs() {
        return Err(format!("directional derivative {directional}, reference {expected_directional}"));
    }
    Ok(())
}

pub fn same_bits(gpu: &Gpu, one: CompileOptions, other: CompileOptions) -> Result<(), String> {
    let setup = Setup::new("nin-small", 13);
    let (losses, parameters) = setup.run(gpu, &mut setup.engine(gpu, BATCH, one)?, 4)?;
    let (other_losses, other_parameters) = setup.run(gpu, &mut setup.engine(gpu, BATCH, other)?, 4)?;
    if losses != other_losses {
        return Err(format!("losses differ: {losses:?} and {other_losses:?}"));
    }
    if parameters == setup.parameters {
        return Err("nothing was learned".into());
    }
    if bits(&parameters) != bits(&other_parameters) { Err("parameters differ".into()) } else { Ok(()) }
}

pub fn bits(tensors: &[NamedTensor]) -> Vec<u32> {
    tensors.iter().flat_map(|t| t.data.iter().map(|v| v.to_bits())).collect()
}

/// Images that the device holds, in one part and in several, against the same ones uploaded for every step.
pub fn resident(gpu: &Gpu, switches: CompileOptions) -> Result<(), String> {
    let setup = Setup::new("nin-small", 13);
    let image_bytes: usize = setup.input.source.iter().product();
    let count = 3 * BATCH - 2;
    let mut rng = Stream::new(8, 0, 0, 9);
    let pixels = (0..count * image_bytes).map(|_| rng.below(256) as u8).collect();
    let labels = (0..count).map(|_| rng.below(10)).collect();
    let source: Arc<dyn Source> = Arc::new(InMemory::new(setup.input.source, 10, pixels, labels).map_err(|e| e.to_string())?);
    let whole = Room { bytes: 1 << 20, part_bytes: 1 << 20 };
    let parts = |most: usize| Room { part_bytes: (most * image_bytes).next_multiple_of(4) as u64, ..whole };
    let tensors: Vec<_> = setup.parameters.iter().collect();
    let run = |room: Option<(Room, usize)>, max_pass: usize| -> Result<_, String> {
        let images = match room {
            None => None,
            Some((room, expected)) => {
                let images = ResidentImages::upload(gpu, &*source, room).map_err(|e| e.to_string())?;
                let images = images.ok_or("the images did not fit")?;
                if images.parts().len() != expected {
                    return Err(format!("{} parts instead of {expected}", images.parts().len()));
                }
                Some(images)
            }
        };
        let (training, images) = (Training { optimizer: SGD, ..Training::default() }, images.as_ref());
        let on_device = DeviceInput { images, whitening: None };
        let engine =
            TrainEngine::new(gpu, setup.model, &setup.options, &setup.input, training, BATCH, max_pass, &tensors, on_device, switches);
        let mut engine = engine.map_err(|e| e.to_string())?;
        let mut results = Vec::new();
        let mut number = 0;
        for epoch in 0..2 {
            let batches = epoch_batches(images, &source, BATCH, Order::Shuffled { seed: 5 }, epoch, 0);
            for batch in batches.map_err(|e| e.to_string())? {
                let batch = batch.map_err(|e| e.to_string())?;
                engine.step(gpu, &batch, number, epoch, 5, 0.02, false, &mut results).map_err(|e| e.to_string())?;
                number += 1;
            }
        }
        engine.finish(gpu, &mut results).map_err(|e| e.to_string())?;
        if number != 6 || results.len() != 6 {
            return Err(format!("{number} steps, {} results", results.len()));
        }
        let bits = bits(&engine.download(gpu).map_err(|e| e.to_string())?);
        Ok((results, bits))
    };
    for max_pass in [BATCH, 2] {
        let streamed = run(None, max_pass)?;
        for room in [(whole, 1), (parts(11), 2), (parts(4), 4)] {
            if run(Some(room), max_pass)? != streamed {
                return Err(format!("passes of {max_pass}: images in {} parts give other numbers", room.1));
            }
        }
    }
    Ok(())
}

/// Work cut into as many submissions as can be, against one submission a step.
fn short_submissions(gpu: &Gpu) -> Result<(), String> {
    let options = |limit| OpenOptions { longest_submission: Some(limit), ..OpenOptions::default() };
    let short = Gpu::open(&options(Duration::from_nanos(100))).map_err(|e| e.to_string())?;
    let long = Gpu::open(&options(Duration::from_secs(3600))).map_err(|e| e.to_string())?;
    for (name, side, max_pass) in [("nin-small", 13, 2), ("nin-cifar", 9, BATCH)] {
        let setup = Setup::new(name, side);
        let run = |gpu: &Gpu| -> Result<_, String> {
            let mut engine = setup.engine(gpu, max_pass, CompileOptions::default())?;
            let before = gpu.submissions();
            let result = setup.run(gpu, &mut engine, 4)?;
            Ok((result, gpu.submissions() - before))
        };
        let (expected, submissions) = run(&long)?;
        if submissions != 4 {
            return Err(format!("{name}: {submissions} submissions for 4 steps"));
        }
        let (cut, many) = run(&short)?;
        if many < 1000 {
            return Err(format!("{name}: only {many} short submissions"));
        }
        if cut != expected {
            return Err(format!("{name}: other numbers in {many} short submissions"));
        }
    }
    gpu.check().map_err(|e| e.to_string())
}

/// Work that a slow GPU might take long for is measured in two steps; what turns out to be fast is not cut any more.
fn measured_submissions(_: &Gpu) -> Result<(), String> {
    let options = OpenOptions { longest_submission: Some(Duration::from_millis(200)), ..OpenOptions::default() };
    let gpu = Gpu::open(&options).map_err(|e| e.to_string())?;
    let setup = Setup::new("nin-cifar", 9);
    let mut engine = setup.engine(&gpu, BATCH, CompileOptions::default())?;
    let mut steps = Vec::new();
    for number in 0..4 {
        let before = gpu.submissions();
        engine.step(&gpu, &setup.batch(number), number, 0, 5, 0.02, false, &mut Vec::new()).map_err(|e| e.to_string())?;
        steps.push(gpu.submissions() - before);
    }
    engine.finish(&gpu, &mut Vec::new()).map_err(|e| e.to_string())?;
    let [first, second, rest @ ..] = &steps[..] else { unreachable!("four steps were made") };
    // A busy machine may take longer than the limit.
    let is_long = |count: &u64| count * 4 < *first;
    if *first > 20 && first == second && rest.iter().all(is_long) { Ok(()) } else { Err(format!("{steps:?} submissions")) }
}

/// Evaluation and inference, whose heads are other ones than training's.
pub fn forward_only(gpu: &Gpu, switches: CompileOptions) -> Result<(), String> {
    let setup = Setup::new("nin-cifar", 9);
    let graph = setup.model.describe(&setup.options).map_err(|e| e.to_string())?;
    let parameters = DeviceParameters::upload(gpu, &graph, &setup.parameters.iter().collect::<Vec<_>>()).map_err(|e| e.to_string())?;
    let run = |purpose, fuse| -> Result<Vec<u32>, String> {
        let switches = CompileOptions { fuse, ..switches };
        let mut engine = ForwardEngine::new(
            gpu,
            setup.model,
            &setup.options,
            &setup.input,
            purpose,
            BATCH,
            &parameters,
            DeviceInput::default(),
            switches,
        )
        .map_err(|e| e.to_string())?;
        let batch = setup.batch(2);
        let values: Vec<f32> = match purpose {
            Purpose::Infer { .. } => engine.infer(gpu, &batch).map_err(|e| e.to_string())?.concat(),
            _ => {
                let rows = engine.evaluate(gpu, std::iter::once(Ok(batch)), |_| {}).map_err(|e| e.to_string())?;
                rows.iter().flat_map(|row| [row.loss, row.rank as f32, row.predicted as f32, row.confidence]).collect()
            }
        };
        Ok(values.into_iter().map(f32::to_bits).collect())
    };
    for purpose in [Purpose::Infer { runs: 1 }, Purpose::Evaluate] {
        let (fused, unfused) = (run(purpose, true)?, run(purpose, false)?);
        if fused.is_empty() || fused != unfused {
            return Err(format!("{purpose:?}: {fused:x?} and {unfused:x?}"));
        }
    }
    Ok(())
}

/// A batch in three passes gives what one pass gives, but for the order of sums; dropout and augmentation agree.
fn micro_batches(gpu: &Gpu) -> Result<(), String> {
    let setup = Setup::new("nin-small", 13);
    let mut whole = setup.engine(gpu, BATCH, CompileOptions::default())?;
    let mut parts = setup.engine(gpu, 2, CompileOptions::default())?;
    if (whole.micro_batch(), parts.micro_batch()) != (6, 2) {
        return Err(format!("passes of {} and {} images", whole.micro_batch(), parts.micro_batch()));
    }
    close(setup.run(gpu, &mut whole, 3)?, setup.run(gpu, &mut parts, 3)?)
}

/// The images of a batch that is not full count as a batch of their own.
fn partial_batch(gpu: &Gpu) -> Result<(), String> {
    let setup = Setup::new("nin-small", 13);
    let run = |garbage: u8| -> Result<_, String> {
        let mut engine = setup.engine(gpu, BATCH, CompileOptions::default())?;
        let mut batch = setup.batch(1);
        batch.count = 4;
        let per_image = batch.pixels.len() / BATCH;
        batch.pixels[4 * per_image..].fill(garbage);
        batch.labels[4..].fill(0);
        let mut results = Vec::new();
        engine.step(gpu, &batch, 0, 0, 5, 0.02, false, &mut results).map_err(|e| e.to_string())?;
        engine.finish(gpu, &mut results).map_err(|e| e.to_string())?;
        if results[0].images != 4 {
            return Err(format!("{} images were counted", results[0].images));
        }
        Ok((results, engine.download(gpu).map_err(|e| e.to_string())?))
    };
    if run(0)? == run(255)? { Ok(()) } else { Err("what lies behind the last image has an influence".into()) }
}

pub fn close(a: (Vec<StepResult>, Vec<NamedTensor>), b: (Vec<StepResult>, Vec<NamedTensor>)) -> Result<(), String> {
    for (a, b) in a.0.iter().zip(&b.0) {
        if (a.loss_sum - b.loss_sum).abs() > 1e-4 * a.loss_sum || (a.images, a.step) != (b.images, b.step) {
            return Err(format!("{a:?} and {b:?}"));
        }
    }
    for (a, b) in a.1.iter().zip(&b.1) {
        let error: f32 = a.data.iter().zip(&b.data).map(|(a, b)| (a - b).powi(2)).sum();
        let norm: f32 = a.data.iter().map(|a| a * a).sum();
        if error.sqrt() > 1e-4 * norm.sqrt() {
            return Err(format!("{}: off by {:e} of {:e}", a.name, error.sqrt(), norm.sqrt()));
        }
    }
    Ok(())
}
