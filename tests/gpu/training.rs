//! Everything an update can have, in whole networks: frozen blocks, averages, and going on with all of it exactly.

use crate::network::{BATCH, SGD, Setup};
use crate::{Device, trial};
use libtest_mimic::Trial;
use nin_wgpu::gpu::{Gpu, OpenOptions};
use nin_wgpu::models::{LayerMultipliers, Purpose, Training};
use nin_wgpu::ops::{ClipNorm, Ema, Multiplier, Optimizer};
use nin_wgpu::passes::{CompileOptions, PlanOptions};
use nin_wgpu::train::engine::{DeviceParameters, ForwardEngine, ImageResult, TrainEngine};
use nin_wgpu::train::resident::DeviceInput;
use nin_wgpu::weights::NamedTensor;

const SINGLE: CompileOptions = CompileOptions { half: false, fuse: true, recompute: false, plan: PlanOptions { share: true } };

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    vec![
        trial(device, "training::frozen blocks get no gradient", frozen),
        trial(device, "training::going on with all state", |gpu| {
            going_on(gpu, SINGLE)?;
            if gpu.target().f16 { going_on(gpu, CompileOptions { half: true, ..SINGLE }) } else { Ok(()) }
        }),
        trial(device, "training::the average is what is tested", averages_are_tested),
        trial(device, "training::micro-batches are clipped together", clipped_together),
        trial(device, "training::a batch that does not fit is refused", unfit_batches_are_refused),
        trial(device, "training::the plan is what is created", |_| plan_is_created()),
    ]
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Decoupled decay, clipping, smoothing, an average, a frozen block, and the multipliers of the Caffe networks.
fn everything() -> Training {
    let multiplier = |lr, decay| Multiplier { lr, decay };
    Training {
        optimizer: Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.05, decoupled: true },
        clip_norm: Some(ClipNorm { max_norm: 0.5 }),
        ema: Some(Ema { decay: 0.7 }),
        label_smoothing: 0.1,
        frozen: vec!["0".into()],
        bias: multiplier(2.0, 0.0),
        layers: vec![LayerMultipliers { path: "5.4".into(), weight: multiplier(0.1, 1.0), bias: multiplier(0.1, 0.0) }],
    }
}

fn step(gpu: &Gpu, setup: &Setup, engine: &mut TrainEngine, number: u64) -> Result<(), String> {
    engine.step(gpu, &setup.batch(number), number, 0, 5, 0.02, false, &mut Vec::new()).map_err(text)?;
    engine.finish(gpu, &mut Vec::new()).map_err(text)
}

/// Kernels trust what the host gives them, so nothing may come to them that leads out of their buffers.
fn unfit_batches_are_refused(gpu: &Gpu) -> Result<(), String> {
    let setup = Setup::new("nin-small", 13);
    let mut engine = setup.engine_for(gpu, Training { optimizer: SGD, ..Training::default() }, BATCH, SINGLE)?;
    let whole = setup.batch(0);
    let mut other_label = whole.clone();
    other_label.labels[1] = 1_000_000;
    let mut fewer_pixels = whole.clone();
    fewer_pixels.pixels.truncate(whole.pixels.len() / 2);
    let mut more_images = whole.clone();
    more_images.count = whole.ids.len() + 1;
    let mut longer = whole.clone();
    longer.labels.extend([0; 8]);
    for (batch, words) in [
        (other_label, "label 1000000"),
        (fewer_pixels, "is not what the network takes"),
        (more_images, "is not what"),
        (longer, "is not what"),
    ] {
        match engine.step(gpu, &batch, 0, 0, 5, 0.02, false, &mut Vec::new()) {
            Err(error) if error.to_string().contains(words) => {}
            other => return Err(format!("{words}: {other:?}")),
        }
    }
    step(gpu, &setup, &mut engine, 0)
}

/// Trained layers move as they would without frozen ones below them, which stay as they are and cost nothing.
fn frozen(gpu: &Gpu) -> Result<(), String> {
    let setup = Setup::new("nin-small", 13);
    let with = |frozen: &[&str]| {
        let training = Training { optimizer: SGD, frozen: frozen.iter().map(|p| p.to_string()).collect(), ..Training::default() };
        setup.engine_for(gpu, training, BATCH, SINGLE)
    };
    let mut free = with(&[])?;
    step(gpu, &setup, &mut free, 0)?;
    let all = free.download_gradients(gpu).map_err(text)?;
    // From below, in the middle, and single layers.
    for (paths, is_saving_input_gradients) in [(&["0", "2"][..], true), (&["2"], false), (&["0.0", "2.4"], true)] {
        let mut engine = with(paths)?;
        step(gpu, &setup, &mut engine, 0)?;
        let (gradients, after) = (engine.download_gradients(gpu).map_err(text)?, engine.download(gpu).map_err(text)?);
        for (((before, after), gradient), free) in setup.parameters.iter().zip(&after).zip(&gradients).zip(&all) {
            let is_frozen = paths.iter().any(|path| before.name.starts_with(&format!("{path}.")));
            let is_zero = gradient.data.iter().all(|g| *g == 0.0);
            if is_frozen != is_zero || is_frozen != (before.data == after.data) || (!is_frozen && gradient.data != free.data) {
                return Err(format!("{paths:?}: {}: frozen {is_frozen}, gradient zero {is_zero}", before.name));
            }
        }
        let count = |engine: &TrainEngine, op: &str| engine.graph().nodes.iter().filter(|node| node.op.name() == op).count();
        let weights = count(&free, "conv2d_backward_weight") - count(&engine, "conv2d_backward_weight");
        let layers = setup.parameters.iter().filter(|p| paths.iter().any(|path| p.name.starts_with(&format!("{path}.")))).count() / 2;
        let is_saving = engine.graph().nodes.len() + layers < free.graph().nodes.len();
        if weights != layers || is_saving != is_saving_input_gradients {
            return Err(format!("{paths:?}: {weights} weight gradients fewer for {layers} layers, others {is_saving}"));
        }
    }
    match with(&["0", "2", "5"]) {
        Err(message) if message.contains("nothing to train") => Ok(()),
        Err(message) => Err(message),
        Ok(_) => Err("a network that is wholly frozen was compiled for training".into()),
    }
}

fn bits(tensors: &[NamedTensor]) -> Vec<u32> {
    tensors.iter().flat_map(|tensor| tensor.data.iter().map(|v| v.to_bits())).collect()
}

/// Parameters and state are all that a run goes on with.
fn going_on(gpu: &Gpu, switches: CompileOptions) -> Result<(), String> {
    let mut setup = Setup::new("nin-small", 13);
    let mut whole = setup.engine_for(gpu, everything(), BATCH, switches)?;
    let started = whole.download_state(gpu).map_err(text)?;
    if started.last().map(|(name, average)| (name.as_str(), bits(average))) != Some(("ema", bits(&setup.parameters))) {
        return Err("the average does not start as the parameters do".into());
    }
    (0..3).try_for_each(|number| step(gpu, &setup, &mut whole, number))?;
    let (state, scaling) = (whole.download_state(gpu).map_err(text)?, whole.download_loss_scale(gpu).map_err(text)?);
    let parameters = whole.download(gpu).map_err(text)?;
    (3..6).try_for_each(|number| step(gpu, &setup, &mut whole, number))?;

    setup.parameters = parameters;
    let mut second = setup.engine_for(gpu, everything(), BATCH, switches)?;
    second.upload_state(gpu, &state).map_err(text)?;
    scaling.into_iter().for_each(|scaling| second.upload_loss_scale(gpu, scaling));
    (3..6).try_for_each(|number| step(gpu, &setup, &mut second, number))?;
    let (one, other) = (whole.download(gpu).map_err(text)?, second.download(gpu).map_err(text)?);
    let (state, other_state) = (whole.download_state(gpu).map_err(text)?, second.download_state(gpu).map_err(text)?);
    if bits(&one) != bits(&other) || state != other_state {
        return Err("the run that went on differs".into());
    }
    let average = &state.last().ok_or("no average")?.1;
    if bits(average) == bits(&one) { Err("the average is no average".into()) } else { Ok(()) }
}

fn averages_are_tested(gpu: &Gpu) -> Result<(), String> {
    let setup = Setup::new("nin-small", 13);
    let training = Training { optimizer: SGD, ema: Some(Ema { decay: 0.9 }), ..Training::default() };
    let mut engine = setup.engine_for(gpu, training, BATCH, SINGLE)?;
    (0..4).try_for_each(|number| step(gpu, &setup, &mut engine, number))?;
    let state = engine.download_state(gpu).map_err(text)?;
    let average = &state.iter().find(|(name, _)| name == "ema").ok_or("no average")?.1;
    let rows = |engine: &mut ForwardEngine| -> Result<Vec<ImageResult>, String> {
        engine.evaluate(gpu, std::iter::once(Ok(setup.batch(9))), |_| {}).map_err(text)
    };
    let (model, options, input) = (setup.model, &setup.options, &setup.input);
    let mut beside = ForwardEngine::beside(gpu, &engine, model, options, input, Purpose::Evaluate, BATCH, DeviceInput::default(), SINGLE)
        .map_err(text)?;
    let uploaded = DeviceParameters::upload(gpu, engine.graph(), &average.iter().collect::<Vec<_>>()).map_err(text)?;
    let new = |parameters| {
        ForwardEngine::new(gpu, model, options, input, Purpose::Evaluate, BATCH, parameters, DeviceInput::default(), SINGLE).map_err(text)
    };
    let (tested, averaged, plain) = (rows(&mut beside)?, rows(&mut new(&uploaded)?)?, rows(&mut new(engine.parameters())?)?);
    if tested != averaged || tested == plain {
        return Err(format!("{tested:?}, of the average {averaged:?}, of the parameters {plain:?}"));
    }
    Ok(())
}

/// The norm of a batch in parts is that of the sum, not of the parts.
fn clipped_together(gpu: &Gpu) -> Result<(), String> {
    let setup = Setup::new("nin-small", 13);
    let clipped = |max_pass: usize, max_norm: f64| -> Result<Vec<f64>, String> {
        let training = Training { optimizer: SGD, clip_norm: Some(ClipNorm { max_norm }), ..Training::default() };
        let mut engine = setup.engine_for(gpu, training, max_pass, SINGLE)?;
        step(gpu, &setup, &mut engine, 0)?;
        let gradients = engine.download_gradients(gpu).map_err(text)?;
        Ok(gradients.iter().flat_map(|tensor| tensor.data.iter().map(|g| f64::from(*g))).collect())
    };
    let norm = |gradients: &[f64]| gradients.iter().map(|g| g * g).sum::<f64>().sqrt();
    let (free, whole, parts) = (clipped(BATCH, 1e9)?, clipped(BATCH, 0.05)?, clipped(2, 0.05)?);
    if norm(&free) < 0.1 || (norm(&whole) - 0.05).abs() > 1e-5 || (norm(&parts) - 0.05).abs() > 1e-5 {
        return Err(format!("norms {}, {} and {}", norm(&free), norm(&whole), norm(&parts)));
    }
    let apart = norm(&whole.iter().zip(&parts).map(|(a, b)| a - b).collect::<Vec<_>>());
    if apart > 1e-4 * 0.05 { Err(format!("gradients in parts differ by {apart}")) } else { Ok(()) }
}

fn plan_is_created() -> Result<(), String> {
    let gpu = Gpu::open(&OpenOptions::default()).map_err(text)?;
    let setup = Setup::new("nin-cifar", 32);
    let mut engine = setup.engine_for(&gpu, everything(), 2, SINGLE)?;
    step(&gpu, &setup, &mut engine, 0)?;
    let (planned, created) = (engine.memory(), gpu.memory().bytes);
    let off_by = (created as f64 / planned.total() as f64 - 1.0).abs();
    if off_by > 0.01 || planned.optimizer != 3 * planned.parameters {
        return Err(format!("{created} bytes were created, planned were {planned}"));
    }
    Ok(())
}
