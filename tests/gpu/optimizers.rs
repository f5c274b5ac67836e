//! The optimizers on the device: single steps within a few units in the last place, and PyTorch's trajectories.

use crate::golden_ops::{Run, Update, goldens};
use crate::{Device, trial};
use libtest_mimic::Trial;
use nin_wgpu::gpu::{Buffers, Gpu, GpuError, Program, StepUniforms, Submitter};
use nin_wgpu::kernels::Step;
use nin_wgpu::models::Training;
use nin_wgpu::ops::{ClipNorm, Ema, LossScale, Multiplier, Optimizer, WORDS_OF_A_BLOCK, accumulate, start_sum};
use nin_wgpu::passes::{BufferRole, Pass, Region, ScheduledDispatch};
use nin_wgpu::rng::{Stream, purpose};
use nin_wgpu::train::update;
use std::collections::BTreeMap;

/// Allowed error of a step, in units in the last place of the largest term.
const ULPS: f64 = 4.0;
/// The same for Adam, whose direction alone is rounded a dozen times.
const ADAM_ULPS: f64 = 8.0;
/// The same on GPUs: WGSL grants a division 2.5 units and a square root 4.5, and Adam has three and two.
const ADAM_ULPS_ON_GPUS: f64 = 16.0;
const STEPS: u32 = 12;

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    vec![
        trial(device, "optimizers::sgd_follows_pytorch", sgd_follows_pytorch),
        trial(device, "optimizers::adam_follows_pytorch", adam_follows_pytorch),
        trial(device, "optimizers::single_steps", |gpu| rules().iter().try_for_each(|rule| single_steps(gpu, rule, 1_000))),
        trial(device, "optimizers::over_65535_workgroups", |gpu| {
            [rules()[1], rules()[6]].iter().try_for_each(|rule| one_large_step(gpu, rule, 65_535 * 64 + 77))
        }),
        trial(device, "optimizers::micro_batches_add_up", micro_batches_add_up),
        trial(device, "optimizers::updates_follow_pytorch", updates_follow_pytorch),
        trial(device, "optimizers::norms_of_many_gradients", |gpu| {
            [1, 64, 2_047, 2_049, 300_001].iter().try_for_each(|words| clipping(gpu, *words))
        }),
    ]
}

fn rules() -> [Optimizer; 8] {
    let sgd = |momentum, nesterov, weight_decay| Optimizer::Sgd { momentum, nesterov, weight_decay };
    let adam = |beta1, beta2, epsilon, weight_decay| Optimizer::Adam { beta1, beta2, epsilon, weight_decay, decoupled: false };
    let adamw = |beta1, beta2, epsilon, weight_decay| Optimizer::Adam { beta1, beta2, epsilon, weight_decay, decoupled: true };
    [
        sgd(0.0, false, 5e-4),
        sgd(0.9, false, 5e-4),
        sgd(0.9, true, 1e-2),
        sgd(0.5, true, 0.0),
        adam(0.9, 0.999, 1e-8, 0.0),
        adam(0.5, 0.9, 1e-4, 1e-2),
        adamw(0.9, 0.999, 1e-8, 1e-2),
        adamw(0.5, 0.9, 1e-4, 0.1),
    ]
}

/// Parameters, gradients and state on the device, and the program of a step.
pub struct Arena<'a> {
    gpu: &'a Gpu,
    words: usize,
    buffers: Buffers,
    steps: StepUniforms,
    program: Program,
    submitter: Submitter,
    states: usize,
}

impl<'a> Arena<'a> {
    pub fn new(gpu: &'a Gpu, optimizer: &Optimizer, parameters: &[f32], multipliers: &[Multiplier]) -> Result<Self, GpuError> {
        let words = parameters.len();
        let states = optimizer.state_buffers().len();
        let region = |buffer| Region { buffer, offset: 0, bytes: words as u64 * 4 };
        let by = Region { buffer: BufferRole::Multipliers, offset: 0, bytes: Multiplier::bytes(words) };
        let state: Vec<Region> = (0..states).map(|i| region(BufferRole::OptimizerState(i))).collect();
        let dispatch = optimizer.dispatch(words, region(BufferRole::Parameters), region(BufferRole::Gradients), &state, by, None);
        let dispatches = [ScheduledDispatch { path: "optimizer".into(), op: "update", pass: Pass::Update, macs: 0, dispatch }];
        let roles = [BufferRole::Parameters, BufferRole::Gradients].into_iter().chain((0..states).map(BufferRole::OptimizerState));
        let mut sizes: BTreeMap<BufferRole, u64> = roles.map(|role| (role, words as u64 * 4)).collect();
        sizes.insert(by.buffer, by.bytes);
        let buffers = Buffers::allocate(gpu, &sizes, &Buffers::default())?;
        let steps = StepUniforms::new(gpu, 1);
        let program = Program::new(gpu, &dispatches, &buffers, &steps)?;
        let arena = Arena { gpu, words, buffers, steps, program, submitter: Submitter::default(), states };
        arena.write(BufferRole::Parameters, parameters);
        arena.write(BufferRole::Multipliers, &multipliers.iter().flat_map(|m| m.to_words()).collect::<Vec<_>>());
        Ok(arena)
    }

    pub fn write(&self, role: BufferRole, values: &[f32]) {
        write(self.gpu, &self.buffers, role, values);
    }

    fn read(&self, role: BufferRole) -> Result<Vec<f32>, GpuError> {
        read(self.gpu, &self.buffers, role, self.words)
    }

    pub fn states(&self) -> Result<Vec<Vec<f32>>, GpuError> {
        (0..self.states).map(|i| self.read(BufferRole::OptimizerState(i))).collect()
    }

    pub fn step(&mut self, step: Step, gradients: &[f32]) -> Result<Vec<f32>, GpuError> {
        self.write(BufferRole::Gradients, gradients);
        self.steps.write(self.gpu, &[step]);
        self.submitter.submit(self.gpu, &[(&self.program, 0)], &self.steps, &[])?;
        self.read(BufferRole::Parameters)
    }
}

fn write(gpu: &Gpu, buffers: &Buffers, role: BufferRole, values: &[f32]) {
    let buffer = buffers.get(role).unwrap_or_else(|| panic!("{role:?} was allocated"));
    gpu.write(buffer, 0, bytemuck::cast_slice(values));
}

fn read(gpu: &Gpu, buffers: &Buffers, role: BufferRole, words: usize) -> Result<Vec<f32>, GpuError> {
    let buffer = buffers.get(role).unwrap_or_else(|| panic!("{role:?} was allocated"));
    Ok(bytemuck::pod_collect_to_vec(&gpu.read(buffer, words as u64 * 4)?))
}

/// Multipliers that differ from block to block, ones first.
fn multipliers(words: usize) -> Vec<Multiplier> {
    let of_block = |block: usize| Multiplier { lr: [1.0, 2.0, 0.1][block % 3], decay: [1.0, 0.0, 0.5, 3.0][block % 4] };
    (0..words.div_ceil(WORDS_OF_A_BLOCK)).map(of_block).collect()
}

pub fn step_values(optimizer: &Optimizer, t: u32, rate: f64) -> Step {
    let (bias_correction1, bias_correction2) = optimizer.bias_corrections(t);
    Step { learning_rate: rate as f32, bias_correction1, bias_correction2, ..Default::default() }
}

/// Distance from 1 unit to the next in the last place of `x`, in single precision.
pub fn ulp(x: f64) -> f64 {
    2f64.powi((x.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor() as i32) - 23)
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// How far the parameter moves and the scale of each state: sums of the absolute terms.
///
/// The scale of a step is not `max(|w|, |lr·v|)` with the new `v`: where `momentum·v` and the gradient nearly cancel,
/// the rounding of either stays while their sum is small, and PyTorch's own f32 step is then further off than 4 units of
/// that. So the terms count, not their sum.
fn scales(optimizer: &Optimizer, step: &Step, by: Multiplier, w: f64, g: f64, state: &[f64]) -> (f64, Vec<f64>) {
    let rate = f64::from(step.learning_rate) * f64::from(by.lr);
    let w = w * f64::from(by.decay);
    match *optimizer {
        Optimizer::Sgd { momentum, nesterov, weight_decay } => {
            let gradient = g.abs() + weight_decay * w.abs();
            let velocity = momentum * state.first().map_or(0.0, |v| v.abs()) + gradient;
            let direction = if nesterov { gradient + momentum * velocity } else { velocity };
            (rate * direction, vec![velocity; state.len()])
        }
        Optimizer::Adam { beta1, beta2, epsilon, weight_decay, decoupled } => {
            let weight_decay = if decoupled { 0.0 } else { weight_decay };
            let gradient = g.abs() + weight_decay * w.abs();
            let mean = beta1 * state[0].abs() + (1.0 - beta1) * gradient;
            let square = beta2 * state[1] + (1.0 - beta2) * gradient * gradient;
            let exact = g + weight_decay * w;
            let denominator = ((beta2 * state[1] + (1.0 - beta2) * exact * exact) / f64::from(step.bias_correction2)).sqrt() + epsilon;
            (rate / f64::from(step.bias_correction1) * mean / denominator, vec![mean, square])
        }
    }
}

/// One step from what the device held before; `Err` names the first element that is off.
fn check_step(
    gpu: &Gpu,
    optimizer: &Optimizer,
    step: &Step,
    before: (&[f32], &[Vec<f32>]),
    gradients: &[f32],
    after: (&[f32], &[Vec<f32>]),
) -> Result<(), String> {
    let allowed = match optimizer {
        Optimizer::Sgd { .. } => ULPS,
        Optimizer::Adam { .. } if gpu.adapter().kind == "cpu" => ADAM_ULPS,
        Optimizer::Adam { .. } => ADAM_ULPS_ON_GPUS,
    };
    let (mut w, mut state) = (wide(before.0), before.1.iter().map(|s| wide(s)).collect::<Vec<_>>());
    let by = multipliers(w.len());
    for (block, by) in by.iter().enumerate() {
        let range = block * WORDS_OF_A_BLOCK..((block + 1) * WORDS_OF_A_BLOCK).min(w.len());
        let mut part: Vec<Vec<f64>> = state.iter().map(|s| s[range.clone()].to_vec()).collect();
        optimizer.reference_step(step, *by, &mut w[range.clone()], &wide(&gradients[range.clone()]), &mut part);
        state.iter_mut().zip(part).for_each(|(state, part)| state[range.clone()].copy_from_slice(&part));
    }
    for i in 0..w.len() {
        let old: Vec<f64> = before.1.iter().map(|s| f64::from(s[i])).collect();
        let old_w = f64::from(before.0[i]);
        let (distance, state_scales) = scales(optimizer, step, by[i / WORDS_OF_A_BLOCK], old_w, f64::from(gradients[i]), &old);
        let parameter = (after.0[i], w[i], distance.max(old_w.abs()).max(w[i].abs()));
        let states = after.1.iter().zip(&state).zip(state_scales).map(|((got, want), scale)| (got[i], want[i], scale));
        for (which, (got, want, scale)) in [parameter].into_iter().chain(states).enumerate() {
            let ulps = (f64::from(got) - want).abs() / ulp(scale);
            // Written so that a NaN fails.
            if !(ulps <= allowed) {
                let which = which.checked_sub(1).map_or("parameter", |state| optimizer.state_buffers()[state]);
                return Err(format!("{optimizer:?}: {which} {i}: got {got:e}, expected {want:e}, off by {ulps:.1} ulp of {scale:e}"));
            }
        }
    }
    Ok(())
}

/// Numbers in [-1, 1) of very different sizes, every eighth of them zero as in the gaps of an arena.
fn numbers(words: usize, seed: u32) -> Vec<f32> {
    let mut rng = Stream::new(u64::from(seed), 2, 0, purpose::SYNTHETIC);
    (0..words)
        .map(|i| match i % 8 {
            7 => 0.0,
            scale => rng.uniform_in(-1.0, 1.0) * 10f32.powi(-(scale as i32)),
        })
        .collect()
}

fn single_steps(gpu: &Gpu, optimizer: &Optimizer, words: usize) -> Result<(), String> {
    let mut w = numbers(words, 1);
    // Gradients are not in proportion to their parameters.
    let shuffled = |seed| {
        let mut gradients = numbers(words, seed);
        gradients.chunks_exact_mut(8).for_each(|chunk| chunk[..7].rotate_left(seed as usize % 7));
        gradients
    };
    let mut arena = Arena::new(gpu, optimizer, &w, &multipliers(words)).map_err(|e| e.to_string())?;
    for t in 1..=STEPS {
        let step = step_values(optimizer, t, [0.1, 0.01, 1.0][t as usize % 3]);
        let gradients = shuffled(10 + t);
        let state = arena.states().map_err(|e| e.to_string())?;
        let after = arena.step(step, &gradients).map_err(|e| e.to_string())?;
        let state_after = arena.states().map_err(|e| e.to_string())?;
        check_step(gpu, optimizer, &step, (&w, &state), &gradients, (&after, &state_after)).map_err(|e| format!("step {t}: {e}"))?;
        if after.iter().zip(&w).filter(|(a, b)| a != b).count() < words / 2 {
            return Err(format!("{optimizer:?}: step {t} changed little"));
        }
        if let Some(gap) = (7..words).step_by(8).find(|i| after[*i] != 0.0) {
            return Err(format!("{optimizer:?}: gap at {gap} became {}", after[gap]));
        }
        w = after;
    }
    Ok(())
}

fn one_large_step(gpu: &Gpu, optimizer: &Optimizer, words: usize) -> Result<(), String> {
    let (w, gradients) = (numbers(words, 3), numbers(words, 4));
    let mut arena = Arena::new(gpu, optimizer, &w, &multipliers(words)).map_err(|e| e.to_string())?;
    let step = step_values(optimizer, 1, 0.1);
    let state = vec![vec![0.0; words]; optimizer.state_buffers().len()];
    let after = arena.step(step, &gradients).map_err(|e| e.to_string())?;
    let state_after = arena.states().map_err(|e| e.to_string())?;
    check_step(gpu, optimizer, &step, (&w, &state), &gradients, (&after, &state_after))
}

/// PyTorch's parameters after each step, within [`ULPS`] of the parameter for every step so far.
fn follow(gpu: &Gpu, optimizer: &Optimizer, run: &Run, rate: impl Fn(usize) -> f64) -> Result<(), String> {
    if run.grads.is_empty() || run.grads.len() != run.after.len() {
        return Err(format!("{optimizer:?}: {} gradients", run.grads.len()));
    }
    // The run's tensor twice, with a gap as between the parameters of an arena.
    let spread = |values: &[f32]| {
        let mut arena = vec![0.0; 64 + values.len()];
        arena[..values.len()].copy_from_slice(values);
        arena[64..].copy_from_slice(values);
        arena
    };
    let count = run.w.len();
    let mut arena = Arena::new(gpu, optimizer, &spread(&run.w), &[Multiplier::default(); 2]).map_err(|e| e.to_string())?;
    for (index, (gradients, want)) in run.grads.iter().zip(&run.after).enumerate() {
        let step = step_values(optimizer, index as u32 + 1, rate(index));
        let got = arena.step(step, &spread(gradients)).map_err(|e| e.to_string())?;
        if got[count..64].iter().any(|v| *v != 0.0) || got[..count] != got[64..] {
            return Err(format!("{optimizer:?}, step {index}: {got:?} is not twice the same with a gap of zeros"));
        }
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let (got, want) = (f64::from(*got), f64::from(*want));
            let ulps = (got - want).abs() / ulp(want.abs().max(f64::from(run.w[i].abs())));
            if !(ulps <= ULPS * (index + 1) as f64) {
                return Err(format!("{optimizer:?}, step {index}, parameter {i}: {got:e}, PyTorch {want:e}, off by {ulps:.1} ulp"));
            }
        }
    }
    Ok(())
}

fn sgd_follows_pytorch(gpu: &Gpu) -> Result<(), String> {
    let runs = goldens()?.sgd;
    if runs.len() < 6 || !runs.iter().any(|r| r.nesterov) || !runs.iter().any(|r| r.lr_steps.is_some()) {
        return Err(format!("{} runs", runs.len()));
    }
    for golden in runs {
        let optimizer = Optimizer::Sgd { momentum: golden.momentum, nesterov: golden.nesterov, weight_decay: golden.weight_decay };
        follow(gpu, &optimizer, &golden.run, |step| golden.lr_steps.as_ref().map_or(golden.lr, |rates| rates[step]))?;
    }
    Ok(())
}

fn adam_follows_pytorch(gpu: &Gpu) -> Result<(), String> {
    let runs = goldens()?.adam;
    if runs.len() < 5 || !runs.iter().any(|r| r.decoupled) {
        return Err(format!("{} runs", runs.len()));
    }
    for golden in runs {
        let [beta1, beta2] = golden.betas;
        let optimizer =
            Optimizer::Adam { beta1, beta2, epsilon: golden.eps, weight_decay: golden.weight_decay, decoupled: golden.decoupled };
        follow(gpu, &optimizer, &golden.run, |_| golden.lr)?;
    }
    Ok(())
}

/// The buffers and the program of a whole update, as a training engine has them.
struct Whole<'a> {
    gpu: &'a Gpu,
    buffers: Buffers,
    steps: StepUniforms,
    program: Program,
    submitter: Submitter,
    words: usize,
}

const SCALE: BufferRole = BufferRole::Slot(0);

impl<'a> Whole<'a> {
    /// With parameters, and with multipliers for each block; in mixed precision gradients have a scale.
    fn new(gpu: &'a Gpu, training: &Training, w: &[f32], by: &[Multiplier], is_mixed: bool) -> Result<Self, GpuError> {
        let words = w.len();
        let bytes = words as u64 * 4;
        let mut sizes: BTreeMap<BufferRole, u64> = update::buffers(training, bytes).into_iter().collect();
        sizes.extend([(BufferRole::Parameters, bytes), (BufferRole::Gradients, bytes), (SCALE, LossScale::fact().bytes())]);
        let entry = |(op, dispatch)| ScheduledDispatch { path: "update".into(), op, pass: Pass::Update, macs: 0, dispatch };
        let dispatches = update::dispatches(training, bytes, BufferRole::Gradients, is_mixed.then_some(SCALE));
        let dispatches: Vec<_> = dispatches.into_iter().map(entry).collect();
        let buffers = Buffers::allocate(gpu, &sizes, &Buffers::default())?;
        let steps = StepUniforms::new(gpu, 1);
        let program = Program::new(gpu, &dispatches, &buffers, &steps)?;
        let whole = Whole { gpu, buffers, steps, program, submitter: Submitter::default(), words };
        whole.write(BufferRole::Parameters, w);
        whole.write(BufferRole::Multipliers, &by.iter().flat_map(|m| m.to_words()).collect::<Vec<_>>());
        if let Some(average) = training.state_names().iter().position(|name| *name == "ema") {
            whole.write(BufferRole::OptimizerState(average), w);
        }
        Ok(whole)
    }

    fn write(&self, role: BufferRole, values: &[f32]) {
        write(self.gpu, &self.buffers, role, values);
    }

    fn read(&self, role: BufferRole) -> Result<Vec<f32>, GpuError> {
        read(self.gpu, &self.buffers, role, self.words)
    }

    fn step(&mut self, step: Step, gradients: &[f32]) -> Result<(), GpuError> {
        self.write(BufferRole::Gradients, gradients);
        self.steps.write(self.gpu, &[step]);
        self.submitter.submit(self.gpu, &[(&self.program, 0)], &self.steps, &[])
    }
}

/// Parameter groups, clipping and averages as PyTorch has them, in one run; the same again with a loss scale.
fn updates_follow_pytorch(gpu: &Gpu) -> Result<(), String> {
    let runs = goldens()?.updates;
    let clips = runs.iter().filter(|run| run.clip_norm.is_some()).count();
    if runs.len() < 4 || clips == 0 || clips == runs.len() || !runs.iter().any(|run| run.ema.is_some()) {
        return Err(format!("{} runs", runs.len()));
    }
    for golden in &runs {
        follow_update(gpu, golden, None).map_err(|e| format!("{}: {e}", golden.name))?;
        follow_update(gpu, golden, Some(1024.0)).map_err(|e| format!("{}, scaled: {e}", golden.name))?;
    }
    Ok(())
}

fn follow_update(gpu: &Gpu, golden: &Update, scale: Option<f32>) -> Result<(), String> {
    let Update { momentum, nesterov, weight_decay, .. } = *golden;
    let adam = |decoupled| Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay, decoupled };
    let optimizer = match golden.rule.as_str() {
        "sgd" => Optimizer::Sgd { momentum, nesterov, weight_decay },
        "adam" => adam(false),
        "adamw" => adam(true),
        other => return Err(format!("no rule {other}")),
    };
    let clip_norm = golden.clip_norm.map(|max_norm| ClipNorm { max_norm });
    let training = Training { optimizer, clip_norm, ema: golden.ema.map(|decay| Ema { decay }), ..Training::default() };
    // Every group in a block of its own.
    let spread = |groups: &[Vec<f32>], scale: f32| {
        let mut words = vec![0.0; groups.len() * WORDS_OF_A_BLOCK];
        for (block, group) in words.chunks_mut(WORDS_OF_A_BLOCK).zip(groups) {
            block.iter_mut().zip(group).for_each(|(word, value)| *word = value * scale);
        }
        words
    };
    let by: Vec<Multiplier> = golden.groups.iter().map(|[lr, decay]| Multiplier { lr: *lr, decay: *decay }).collect();
    let start = spread(&golden.w, 1.0);
    let mut whole = Whole::new(gpu, &training, &start, &by, scale.is_some()).map_err(|e| e.to_string())?;
    if let Some(scale) = scale {
        let words = LossScale { scale, ..LossScale::default() }.to_words();
        whole.write(SCALE, &words.map(f32::from_bits));
    }
    let average = training.state_names().iter().position(|name| *name == "ema").map(BufferRole::OptimizerState);
    for (index, gradients) in golden.grads.iter().enumerate() {
        let step = Step { step: index as u32, ..step_values(&optimizer, index as u32 + 1, golden.lr) };
        whole.step(step, &spread(gradients, scale.unwrap_or(1.0))).map_err(|e| e.to_string())?;
        let parameters = (BufferRole::Parameters, &golden.after[index]);
        for (role, want) in [parameters].into_iter().chain(average.map(|role| (role, &golden.average[index]))) {
            let (got, want) = (whole.read(role).map_err(|e| e.to_string())?, spread(want, 1.0));
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                let scale = want.abs().max(start[i].abs());
                let ulps = (f64::from(*got) - f64::from(*want)).abs() / ulp(scale.into());
                if !(ulps <= 2.0 * ULPS * (index + 1) as f64) {
                    return Err(format!("step {index}, {role:?} {i}: {got:e}, PyTorch {want:e}, off by {ulps:.1} ulp"));
                }
            }
        }
    }
    Ok(())
}

/// The norm and the clipped gradients against double precision, with and without a scale, and the same bits twice.
fn clipping(gpu: &Gpu, words: usize) -> Result<(), String> {
    let (w, gradients) = (numbers(words, 5), numbers(words, 6));
    let mut want = wide(&gradients);
    let clip = ClipNorm { max_norm: 0.01 };
    let norm = clip.reference(&mut want);
    let optimizer = Optimizer::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };
    let training = Training { optimizer, clip_norm: Some(clip), ..Training::default() };
    let mut runs = Vec::new();
    for scale in [1.0, 4096.0, 4096.0f32] {
        let mut whole = Whole::new(gpu, &training, &w, &multipliers(words), scale > 1.0).map_err(|e| e.to_string())?;
        whole.write(SCALE, &LossScale { scale, ..LossScale::default() }.to_words().map(f32::from_bits));
        let scaled: Vec<f32> = gradients.iter().map(|g| g * scale).collect();
        whole.step(step_values(&optimizer, 1, 0.1), &scaled).map_err(|e| e.to_string())?;
        let result = read(gpu, &whole.buffers, BufferRole::ClipResult, 2).map_err(|e| e.to_string())?;
        if (f64::from(result[1]) - norm).abs() > 1e-6 * norm {
            return Err(format!("{words} gradients, scale {scale}: the norm is {}, not {norm}", result[1]));
        }
        let got = whole.read(BufferRole::Gradients).map_err(|e| e.to_string())?;
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            if (f64::from(*got / scale) - want).abs() > 2e-6 * want.abs() {
                return Err(format!("{words} gradients, scale {scale}: gradient {i} is {got:e}, not {want:e}"));
            }
        }
        runs.push((got, whole.read(BufferRole::Parameters).map_err(|e| e.to_string())?));
    }
    if runs[1] != runs[2] { Err(format!("{words} gradients: two runs differ")) } else { Ok(()) }
}

/// The gradients of several micro-batches: the first starts the sum, whatever it held; the others add to it.
fn micro_batches_add_up(gpu: &Gpu) -> Result<(), String> {
    let words = 1_000;
    let region = |buffer| Region { buffer, offset: 0, bytes: words as u64 * 4 };
    let (sum, gradients) = (region(BufferRole::GradientSum), region(BufferRole::Gradients));
    let sizes = BTreeMap::from([(BufferRole::GradientSum, sum.bytes), (BufferRole::Gradients, sum.bytes)]);
    let run = || {
        let buffers = Buffers::allocate(gpu, &sizes, &Buffers::default())?;
        let steps = StepUniforms::new(gpu, 1);
        steps.write(gpu, &[Step::default()]);
        let program = |dispatch| {
            Program::new(
                gpu,
                &[ScheduledDispatch { path: "sum".into(), op: "sum", pass: Pass::Update, macs: 0, dispatch }],
                &buffers,
                &steps,
            )
        };
        let (start, add) = (program(start_sum(words, sum, gradients))?, program(accumulate(words, sum, gradients))?);
        let mut submitter = Submitter::default();
        write(gpu, &buffers, BufferRole::GradientSum, &vec![f32::NAN; words]);
        for (program, seed) in [(&start, 1), (&add, 2), (&add, 3)] {
            write(gpu, &buffers, BufferRole::Gradients, &numbers(words, seed));
            submitter.submit(gpu, &[(program, 0)], &steps, &[])?;
        }
        read(gpu, &buffers, BufferRole::GradientSum, words)
    };
    let got = run().map_err(|e: GpuError| e.to_string())?;
    let [a, b, c] = [1, 2, 3].map(|seed| numbers(words, seed));
    match (0..words).find(|i| got[*i] != a[*i] + b[*i] + c[*i]) {
        Some(i) => Err(format!("sum {i} is {:e}, expected {:e}", got[i], a[i] + b[i] + c[i])),
        None => Ok(()),
    }
}
