//! Mixed precision: gradients of whole networks, loss scaling step by step, and what must not change a bit.

use crate::Device;
use crate::kernels::half_trial;
use crate::memory::plan_is_created;
use crate::network::{BATCH, SGD, Setup, bits, close, forward_only, gradients, resident, same_bits};
use libtest_mimic::Trial;
use nin_wgpu::gpu::{Buffers, Gpu, GpuError, OpenOptions, Program, StepUniforms, Submitter};
use nin_wgpu::kernels::{DeviceClass, Dispatch, MatrixUnits, Step};
use nin_wgpu::ops::{LossScale, Optimizer, WORDS_OF_A_BLOCK};
use nin_wgpu::passes::{BufferRole, CompileOptions, Pass, PlanOptions, Region, ScheduledDispatch};
use nin_wgpu::rng::Stream;
use std::collections::BTreeMap;

pub const MIXED: CompileOptions = CompileOptions { half: true, fuse: true, recompute: false, plan: PlanOptions { share: true } };
const ADAM: Optimizer = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 1e-3, decoupled: false };
/// A scale at which gradients of the test networks overflow.
const TOO_LARGE: f32 = (1u32 << 24) as f32;

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    let trial = |name: &str, test: fn(&Gpu) -> Result<(), String>| half_trial(device, format!("mixed::{name}"), test);
    vec![
        trial("gradients::nin-small", |gpu| gradients(gpu, "nin-small", 14, MIXED)),
        trial("gradients::nin-cifar", |gpu| gradients(gpu, "nin-cifar", 7, MIXED)),
        trial("gradients::nin-small with GPU kernels", |_| {
            let options = OpenOptions { class: Some(DeviceClass::Discrete), ..Default::default() };
            gradients(&Gpu::open(&options).map_err(|e| e.to_string())?, "nin-small", 14, MIXED)
        }),
        trial("fused equals unfused", |gpu| same_bits(gpu, MIXED, CompileOptions { fuse: false, ..MIXED })),
        trial("planned equals unplanned", |gpu| same_bits(gpu, MIXED, CompileOptions { plan: PlanOptions { share: false }, ..MIXED })),
        trial("recomputed equals stored", |gpu| same_bits(gpu, MIXED, CompileOptions { recompute: true, ..MIXED })),
        trial("resident images equal uploaded ones", |gpu| resident(gpu, MIXED)),
        trial("the plan is what is created", |_| plan_is_created(MIXED)),
        trial("gradients::nin-small with emulated matrix units", emulated_gradients),
        trial("fused equals unfused without gradients", |gpu| forward_only(gpu, MIXED)),
        trial("the same run twice", |gpu| same_bits(gpu, MIXED, MIXED)),
        trial("micro-batches", micro_batches),
        trial("an overflow is skipped, and the run recovers", |gpu| overflow(gpu, SGD)),
        trial("an overflow is skipped with adam", |gpu| overflow(gpu, ADAM)),
        trial("skipped steps count for nothing", |gpu| [SGD, ADAM].iter().try_for_each(|rule| skipped_steps(gpu, *rule))),
        trial("a run goes on from its state", going_on),
        trial("every overflow is found, and nothing else", find_overflow),
        trial("the scale moves as documented", scale_moves),
        trial("scaled updates are the plain ones", scaled_updates),
    ]
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

fn micro_batches(gpu: &Gpu) -> Result<(), String> {
    let setup = Setup::new("nin-small", 13);
    let mut whole = setup.engine(gpu, BATCH, MIXED)?;
    let mut parts = setup.engine(gpu, 2, MIXED)?;
    if (whole.micro_batch(), parts.micro_batch()) != (6, 2) {
        return Err(format!("passes of {} and {} images", whole.micro_batch(), parts.micro_batch()));
    }
    close(setup.run(gpu, &mut whole, 3)?, setup.run(gpu, &mut parts, 3)?)
}

/// From a scale that is too large: steps change nothing but the scale until it fits, and then the network learns.
fn overflow(gpu: &Gpu, rule: Optimizer) -> Result<(), String> {
    let setup = Setup::new("nin-small", 13);
    let mut engine = setup.engine_with(gpu, rule, BATCH, MIXED)?;
    engine.upload_loss_scale(gpu, LossScale { scale: TOO_LARGE * TOO_LARGE, ..LossScale::default() });
    let read = |engine: &nin_wgpu::train::engine::TrainEngine| -> Result<_, String> {
        let state: Vec<_> = engine.download_state(gpu).map_err(text)?.into_iter().flat_map(|(_, tensors)| tensors).collect();
        let scale = engine.download_loss_scale(gpu).map_err(text)?.ok_or("no loss scale")?;
        Ok((bits(&engine.download(gpu).map_err(text)?), bits(&state), scale))
    };
    let (mut before, mut skipped) = (read(&engine)?, 0);
    let start = before.0.clone();
    for number in 0..60 {
        let mut results = Vec::new();
        engine.step(gpu, &setup.batch(number), number, 0, 5, 0.02, false, &mut results).map_err(text)?;
        engine.finish(gpu, &mut results).map_err(text)?;
        if !results[0].loss_sum.is_finite() {
            return Err(format!("step {number}: a loss that is not finite: {results:?}"));
        }
        let after = read(&engine)?;
        if after.2.skipped_steps == skipped {
            // The first step that is not skipped ends the test.
            let learned = after.0 != start && after.2.scale == before.2.scale && after.2.good_steps == 1;
            return if learned && skipped > 5 { Ok(()) } else { Err(format!("step {number}, {skipped} skipped: {:?}", after.2)) };
        }
        skipped += 1;
        let halved = LossScale { scale: before.2.scale / 2.0, skipped_steps: skipped, ..before.2 };
        if after.2 != halved || (&after.0, &after.1) != (&before.0, &before.1) {
            return Err(format!("step {number}: something else moved with the scale: {:?}, expected {halved:?}", after.2));
        }
        before = after;
    }
    Err("the scale never came down to what fits".into())
}

/// Updates behind skipped steps are those of a run without them, bit for bit.
fn skipped_steps(gpu: &Gpu, rule: Optimizer) -> Result<(), String> {
    let setup = Setup::new("nin-small", 13);
    let learn = |skips: u64| -> Result<_, String> {
        let mut engine = setup.engine_with(gpu, rule, BATCH, MIXED)?;
        let scale = 1024.0;
        for skip in 0..skips {
            engine.upload_loss_scale(gpu, LossScale { scale: TOO_LARGE * TOO_LARGE, ..state(&engine, gpu)? });
            step(gpu, &setup, &mut engine, 90 + skip)?;
        }
        engine.upload_loss_scale(gpu, LossScale { scale, ..state(&engine, gpu)? });
        for number in 0..3 {
            step(gpu, &setup, &mut engine, number)?;
        }
        Ok((bits(&engine.download(gpu).map_err(text)?), state(&engine, gpu)?))
    };
    let (plain, skipped) = (learn(0)?, learn(2)?);
    if (plain.1.skipped_steps, skipped.1.skipped_steps) != (0, 2) {
        return Err(format!("{rule:?}: {:?} and {:?}", plain.1, skipped.1));
    }
    if plain.0 == skipped.0 { Ok(()) } else { Err(format!("{rule:?}: parameters differ")) }
}

fn state(engine: &nin_wgpu::train::engine::TrainEngine, gpu: &Gpu) -> Result<LossScale, String> {
    engine.download_loss_scale(gpu).map_err(text)?.ok_or_else(|| "no loss scale".into())
}

fn step(gpu: &Gpu, setup: &Setup, engine: &mut nin_wgpu::train::engine::TrainEngine, number: u64) -> Result<(), String> {
    engine.step(gpu, &setup.batch(number), number, 0, 5, 0.02, false, &mut Vec::new()).map_err(text)?;
    engine.finish(gpu, &mut Vec::new()).map_err(text)
}

/// Parameters, optimizer state and loss scaling are all that a run goes on with.
fn going_on(gpu: &Gpu) -> Result<(), String> {
    let mut setup = Setup::new("nin-small", 13);
    let mut whole = setup.engine_with(gpu, ADAM, BATCH, MIXED)?;
    (0..2).try_for_each(|number| step(gpu, &setup, &mut whole, number))?;
    let (optimizer, scaling) = (whole.download_state(gpu).map_err(text)?, state(&whole, gpu)?);
    let parameters = whole.download(gpu).map_err(text)?;
    (2..4).try_for_each(|number| step(gpu, &setup, &mut whole, number))?;

    setup.parameters = parameters;
    let mut second = setup.engine_with(gpu, ADAM, BATCH, MIXED)?;
    second.upload_state(gpu, &optimizer).map_err(text)?;
    second.upload_loss_scale(gpu, LossScale::from_words(&scaling.to_words()));
    (2..4).try_for_each(|number| step(gpu, &setup, &mut second, number))?;
    let (one, other) = (whole.download(gpu).map_err(text)?, second.download(gpu).map_err(text)?);
    if bits(&one) != bits(&other) || state(&whole, gpu)? != state(&second, gpu)? {
        return Err("the run that went on differs".into());
    }
    Ok(())
}

/// Buffers of some words each, and dispatches over them.
struct Bench<'a> {
    gpu: &'a Gpu,
    buffers: Buffers,
    steps: StepUniforms,
}

impl<'a> Bench<'a> {
    fn new(gpu: &'a Gpu, contents: &[(BufferRole, &[u32])]) -> Result<Self, GpuError> {
        let sizes: BTreeMap<BufferRole, u64> = contents.iter().map(|(role, words)| (*role, words.len() as u64 * 4)).collect();
        let bench = Bench { gpu, buffers: Buffers::allocate(gpu, &sizes, &Buffers::default())?, steps: StepUniforms::new(gpu, 1) };
        for (role, words) in contents {
            bench.write(*role, words);
        }
        Ok(bench)
    }

    fn write(&self, role: BufferRole, words: &[u32]) {
        self.gpu.write(self.buffers.get(role).expect("an allocated buffer"), 0, bytemuck::cast_slice(words));
    }

    fn read(&self, role: BufferRole, words: usize) -> Result<Vec<u32>, GpuError> {
        let bytes = self.gpu.read(self.buffers.get(role).expect("an allocated buffer"), words as u64 * 4)?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    fn run(&self, step: Step, dispatches: Vec<Dispatch<Region>>) -> Result<(), GpuError> {
        let entry = |dispatch| ScheduledDispatch { path: "test".into(), op: "test", pass: Pass::Update, macs: 0, dispatch };
        let program = Program::new(self.gpu, &dispatches.into_iter().map(entry).collect::<Vec<_>>(), &self.buffers, &self.steps)?;
        self.steps.write(self.gpu, &[step]);
        Submitter::default().submit(self.gpu, &[(&program, 0)], &self.steps, &[])
    }
}

const STATE: BufferRole = BufferRole::OptimizerState(9);

fn region(buffer: BufferRole, words: usize) -> Region {
    Region { buffer, offset: 0, bytes: words as u64 * 4 }
}

fn find_overflow(gpu: &Gpu) -> Result<(), String> {
    let words = 1500;
    let scaling = LossScale::default().to_words();
    let finite = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, -0.0, 65504.0];
    let gradients: Vec<u32> = (0..words).map(|i| finite[i % finite.len()].to_bits()).collect();
    let bench = Bench::new(gpu, &[(BufferRole::Gradients, &gradients), (STATE, &scaling)]).map_err(text)?;
    let found = |gradients: &[u32]| -> Result<bool, String> {
        bench.write(BufferRole::Gradients, gradients);
        bench.write(STATE, &scaling);
        let dispatch = LossScale::find_overflow(words, region(BufferRole::Gradients, words), region(STATE, scaling.len()));
        bench.run(Step::default(), vec![dispatch]).map_err(text)?;
        let after = bench.read(STATE, scaling.len()).map_err(text)?;
        if after[..6] != scaling[..6] {
            return Err(format!("more than the flag changed: {after:?}"));
        }
        Ok(after[6] == 1)
    };
    if found(&gradients)? {
        return Err("an overflow among finite gradients".into());
    }
    for place in [0, 1, 63, 64, 511, 512, 1000, words - 1] {
        for planted in [0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0x7f80_0001, 0xffff_ffff] {
            let mut gradients = gradients.clone();
            gradients[place] = planted;
            if !found(&gradients)? {
                return Err(format!("{planted:#x} at {place} was not found"));
            }
        }
    }
    Ok(())
}

fn scale_moves(gpu: &Gpu) -> Result<(), String> {
    let start = LossScale { scale: 8.0, ..LossScale::default() }.to_words();
    let bench = Bench::new(gpu, &[(STATE, &start)]).map_err(text)?;
    let after = |overflow: bool| -> Result<LossScale, String> {
        let mut words = bench.read(STATE, start.len()).map_err(text)?;
        words[6] = overflow.into();
        bench.write(STATE, &words);
        bench.run(Step::default(), vec![LossScale::update(&ADAM, 3, region(STATE, start.len()))]).map_err(text)?;
        let words = bench.read(STATE, start.len()).map_err(text)?;
        let state = LossScale::from_words(&words);
        if words[6] != 0 || f32::from_bits(words[1]) * state.scale != 1.0 {
            return Err(format!("{words:x?}"));
        }
        Ok(state)
    };
    let mut expected = (8.0, 0, 0);
    let mut updates = 0;
    for overflow in [false, false, false, false, true, false, false, false, true, true, true, true, true, true, false] {
        let state = after(overflow)?;
        expected = match (overflow, expected) {
            (true, (scale, _, skipped)) => ((scale / 2f32).max(1.0), 0, skipped + 1),
            (false, (scale, 2, skipped)) => (scale * 2.0, 0, skipped),
            (false, (scale, good, skipped)) => (scale, good + 1, skipped),
        };
        if (state.scale, state.good_steps, state.skipped_steps) != expected {
            return Err(format!("{state:?}, expected {expected:?}"));
        }
        updates += u32::from(!overflow);
        let (one, two) = ADAM.bias_corrections(updates);
        let near = |got: f32, want: f32| (got - want).abs() <= 1e-6 * want;
        if updates > 0 && !(near(state.bias_corrections[0], one) && near(state.bias_corrections[1], two)) {
            return Err(format!("{state:?}, expected corrections {one} and {two}"));
        }
    }
    // The largest scale stays.
    bench.write(STATE, &LossScale { scale: TOO_LARGE, good_steps: 2, ..LossScale::default() }.to_words());
    let state = after(false)?;
    if state.scale == TOO_LARGE { Ok(()) } else { Err(format!("{state:?}")) }
}

/// An update with gradients times a power of two is the plain one: SGD's bit for bit, Adam's but for its bias corrections,
/// which the device works out itself. With an overflow nothing changes.
fn scaled_updates(gpu: &Gpu) -> Result<(), String> {
    let words: usize = 777;
    let mut rng = Stream::new(3, 0, 0, 9);
    let mut numbers = |scale: f32| (0..words).map(|_| rng.uniform_in(-1.0, 1.0) * scale).collect::<Vec<f32>>();
    let (parameters, gradients, velocity) = (numbers(1.0), numbers(0.1), numbers(0.3));
    let square: Vec<f32> = velocity.iter().map(|v| v * v).collect();
    let as_words = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
    let multipliers = as_words(&[0.5, 2.0].repeat(words.div_ceil(WORDS_OF_A_BLOCK)));
    let plain_sgd = Optimizer::Sgd { momentum: 0.0, nesterov: false, weight_decay: 1e-3 };
    for rule in [plain_sgd, SGD, ADAM] {
        let count = rule.state_buffers().len();
        let (bias_correction1, bias_correction2) = rule.bias_corrections(5);
        let step = Step { learning_rate: 0.05, bias_correction1, bias_correction2, ..Default::default() };
        let run = |scale: Option<f32>, overflow: bool| -> Result<Vec<Vec<u32>>, String> {
            let (before1, before2) = rule.bias_corrections(4);
            let state = LossScale { scale: scale.unwrap_or(1.0), bias_corrections: [before1, before2], ..LossScale::default() };
            let mut scaling = state.to_words();
            scaling[6] = overflow.into();
            let gradients: Vec<u32> = as_words(&gradients.iter().map(|g| g * scale.unwrap_or(1.0)).collect::<Vec<_>>());
            let contents = [as_words(&parameters), as_words(&velocity), as_words(&square)];
            let states: Vec<BufferRole> = (0..count).map(BufferRole::OptimizerState).collect();
            let mut buffers: Vec<(BufferRole, &[u32])> =
                vec![(BufferRole::Parameters, &contents[0]), (BufferRole::Gradients, &gradients), (STATE, &scaling)];
            buffers.push((BufferRole::Multipliers, &multipliers));
            buffers.extend(states.iter().zip(&contents[1..]).map(|(role, words)| (*role, &words[..])));
            let bench = Bench::new(gpu, &buffers).map_err(text)?;
            let regions: Vec<Region> = states.iter().map(|role| region(*role, words)).collect();
            let (w, g) = (region(BufferRole::Parameters, words), region(BufferRole::Gradients, words));
            let by = region(BufferRole::Multipliers, multipliers.len());
            let dispatch = rule.dispatch(words, w, g, &regions, by, scale.map(|_| region(STATE, scaling.len())));
            bench.run(step, vec![dispatch]).map_err(text)?;
            [BufferRole::Parameters].iter().chain(&states).map(|role| bench.read(*role, words).map_err(text)).collect()
        };
        let (plain, scaled) = (run(None, false)?, run(Some(4096.0), false)?);
        let untouched = run(Some(4096.0), true)?;
        if untouched[0] != as_words(&parameters) || (count > 0 && untouched[1] != as_words(&velocity)) {
            return Err(format!("{rule:?}: an overflow changed something"));
        }
        let near = |a: &u32, b: &u32| (f32::from_bits(*a) - f32::from_bits(*b)).abs() <= 1e-6;
        let same = if rule == ADAM { plain[0].iter().zip(&scaled[0]).all(|(a, b)| near(a, b)) } else { plain == scaled };
        if !same || plain[0] == as_words(&parameters) {
            return Err(format!("{rule:?}: the scaled update is another"));
        }
    }
    Ok(())
}

/// The whole network with the kernels of matrix units, large tiles and small ones.
fn emulated_gradients(_: &Gpu) -> Result<(), String> {
    let options = OpenOptions { matrix_units: Some(MatrixUnits::Emulated), ..Default::default() };
    gradients(&Gpu::open(&options).map_err(text)?, "nin-small", 14, MIXED)
}
