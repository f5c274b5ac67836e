//! The memory plan: who shares a slot, what fits a budget, and how large a batch fits.

use nin_wgpu::kernels::{DeviceClass, Target};
use nin_wgpu::models::{
    BuildError, CompiledNetwork, DEFAULT_AUTO_BYTES, InputOptions, Model, Purpose, Training, compile, compiled, largest_batch,
};
use nin_wgpu::ops::{Multiplier, Optimizer};
use nin_wgpu::passes::{BufferRole, CompileOptions, Tenant, place};
use nin_wgpu::rng::Stream;

const CLASSES: [DeviceClass; 2] = [DeviceClass::Discrete, DeviceClass::Cpu];

fn model(name: &str) -> &'static Model {
    Model::find(name).unwrap()
}

fn target(class: DeviceClass, memory_budget: Option<u64>) -> Target {
    Target { memory_budget, ..Target::baseline(class) }
}

/// A target with room for any tensor.
fn roomy(class: DeviceClass) -> Target {
    Target { max_binding_bytes: 2 << 30, max_buffer_bytes: 2 << 30, ..Target::baseline(class) }
}

/// One buffer of state.
fn training() -> Training {
    Training { optimizer: Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 }, ..Training::default() }
}

fn network(name: &str, batch: usize, target: &Target, purpose: Purpose) -> Result<CompiledNetwork, BuildError> {
    let model = model(name);
    compiled(model, &model.defaults, batch, &training(), target, purpose, CompileOptions::default())
}

fn mixed(name: &str, batch: usize, target: &Target, purpose: Purpose) -> Result<CompiledNetwork, BuildError> {
    let model = model(name);
    compiled(model, &model.defaults, batch, &training(), target, purpose, CompileOptions { half: true, ..Default::default() })
}

fn train(name: &str, batch: usize, target: &Target) -> Result<CompiledNetwork, BuildError> {
    network(name, batch, target, Purpose::Train)
}

fn most_alive(tenants: &[Tenant]) -> u64 {
    let nodes = tenants.iter().map(|t| t.to + 1).max().unwrap_or(0);
    (0..nodes).map(|node| tenants.iter().filter(|t| t.from <= node && node <= t.to).map(|t| t.bytes).sum()).max().unwrap_or(0)
}

/// Lives of every kind: long ones and short ones, many of one size, and like those of a network, nested in each other.
fn random_tenants(rng: &mut Stream) -> Vec<Tenant> {
    let (count, nodes) = (rng.below(40), 1 + rng.below(60) as usize);
    let is_nested = rng.below(2) == 0;
    let tenant = |index: u32| {
        let mut life = [rng.below(nodes as u32) as usize, rng.below(nodes as u32) as usize];
        if is_nested {
            life = [index as usize % nodes, nodes - 1 - index as usize % nodes];
        }
        life.sort_unstable();
        let bytes = if rng.below(3) == 0 { 64 } else { 4 * (1 + u64::from(rng.below(1000))) };
        Tenant { name: index.to_string(), bytes, from: life[0], to: life[1], slot: usize::MAX }
    };
    (0..count).map(tenant).collect()
}

#[test]
fn random_lives_never_share_memory_at_once() {
    let mut rng = Stream::new(3, 0, 0, 9);
    let (mut bytes, mut least, mut apart) = (0, 0, 0);
    for trial in 0..2000 {
        let mut tenants = random_tenants(&mut rng);
        let slots = place(&mut tenants);
        for (index, tenant) in tenants.iter().enumerate() {
            assert!(tenant.bytes <= slots[tenant.slot], "trial {trial}: {tenant:?} does not fit its slot");
            for other in tenants[index + 1..].iter().filter(|other| other.slot == tenant.slot) {
                assert!(other.from > tenant.to || tenant.from > other.to, "trial {trial}: {tenant:?} and {other:?}");
            }
        }
        for (slot, bytes) in slots.iter().enumerate() {
            let largest = tenants.iter().filter(|tenant| tenant.slot == slot).map(|tenant| tenant.bytes).max();
            assert_eq!(largest, Some(*bytes), "trial {trial}: slot {slot} is larger than what lives in it");
        }
        assert!(slots.is_sorted_by(|a, b| a >= b), "trial {trial}");
        let (total, bound) = (slots.iter().sum::<u64>(), most_alive(&tenants));
        assert!(total >= bound, "trial {trial}: {total} bytes hold {bound} alive at once");
        let again: Vec<usize> = tenants.iter().map(|tenant| tenant.slot).collect();
        place(&mut tenants);
        assert_eq!(again, tenants.iter().map(|tenant| tenant.slot).collect::<Vec<_>>(), "trial {trial}");
        (bytes, least) = (bytes + total, least + bound);
        apart += tenants.iter().map(|tenant| tenant.bytes).sum::<u64>();
    }
    assert!(bytes < apart * 9 / 10 && bytes as f64 <= 1.05 * least as f64, "{bytes} bytes, {least} alive at once, {apart} without sharing");
}

#[test]
fn the_published_figures_hold() {
    for class in CLASSES {
        let bytes = |name, batch, purpose| network(name, batch, &roomy(class), purpose).unwrap();
        let nin = bytes("nin", 128, Purpose::Train);
        assert_eq!(nin.micro_batch, 128);
        assert!(nin.memory.total() <= 850_000_000, "{class:?}: nin trains at batch 128 in {}", nin.memory);
        let half = mixed("nin", 128, &roomy(class), Purpose::Train).unwrap();
        assert_eq!(half.micro_batch, 128);
        assert!(half.memory.total() <= 500_000_000, "{class:?}: nin trains in mixed precision at batch 128 in {}", half.memory);
        let one = bytes("nin", 1, Purpose::Infer { runs: 1 });
        assert!(one.memory.total() <= 16_000_000, "{class:?}: nin infers in {}", one.memory);
        let cifar = bytes("nin-cifar", 128, Purpose::Train);
        assert!(cifar.memory.total() <= 380_000_000, "{class:?}: nin-cifar trains at batch 128 in {}", cifar.memory);
    }
}

#[test]
fn memory_is_the_sum_of_its_buffers() {
    for class in CLASSES {
        for (batch, passes) in [(4, 1), (128, 2)] {
            let CompiledNetwork { compiled, memory, micro_batch, .. } = train("nin", batch, &target(class, None)).unwrap();
            assert_eq!(batch.div_ceil(micro_batch), passes);
            let schedule = &compiled.schedule;
            assert_eq!(memory.temporaries, compiled.plan.bytes());
            assert_eq!((memory.parameters, memory.optimizer), (schedule.arena.bytes, schedule.arena.bytes));
            assert_eq!(memory.gradients, schedule.arena.bytes * passes as u64);
            let buffers: u64 = schedule.buffers.values().sum();
            let staging = memory.results * 3 / 4;
            let beside = schedule.arena.bytes * passes as u64 + staging + memory.constants;
            assert_eq!(memory.total(), buffers + beside);
            let multipliers = Multiplier::bytes(schedule.arena.bytes as usize / 4);
            assert!(memory.constants > multipliers && memory.constants < multipliers + (64 << 10), "{memory}");
            let inputs = schedule.buffers.iter().filter(|(role, _)| matches!(role, BufferRole::Input(_)));
            assert_eq!(memory.input, inputs.map(|(_, bytes)| *bytes).sum::<u64>());
        }
    }
}

#[test]
fn a_budget_is_kept_with_the_fewest_parts() {
    for class in CLASSES {
        for budget in [80_000_000u64, 100_000_000, 250_000_000, 512_000_000] {
            let target = target(class, Some(budget));
            let network = train("nin", 128, &target).unwrap();
            assert!(network.memory.total() <= budget, "{class:?} {budget}: {}", network.memory);
            let passes = 128usize.div_ceil(network.micro_batch);
            // One part fewer would not do.
            let model = model("nin");
            let input = InputOptions::plain(&model.defaults);
            let larger = 128usize.div_ceil(passes - 1);
            let free = Target { memory_budget: None, ..target.clone() };
            let compile_in = |switches| compile(model, &model.defaults, &input, Purpose::Train, 128, larger, &training(), &free, switches);
            match compile_in(CompileOptions { recompute: true, ..Default::default() }) {
                Ok(other) if other.micro_batch == larger => {
                    assert!(other.memory.total() + (4 << 20) > budget, "{class:?} {budget}: {larger} images fit, too");
                }
                _ => assert!(network.micro_batch == 64, "{class:?} {budget}: {larger} images are over the limits"),
            }
        }
    }
}

#[test]
fn a_budget_that_one_image_exceeds_is_refused() {
    let error = train("nin", 128, &target(DeviceClass::Discrete, Some(20_000_000))).err().unwrap();
    assert!(matches!(error, BuildError::OverBudget { budget: 20_000_000, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("--memory-budget") && text.contains("20000000") && !text.contains('\n'), "{text}");
}

#[test]
fn recomputing_saves_memory_and_happens_only_where_the_budget_asks() {
    let free = train("nin", 64, &target(DeviceClass::Discrete, None)).unwrap();
    let count = |network: &CompiledNetwork| network.compiled.graph.nodes.iter().filter(|node| node.op.name() == "image_input").count();
    assert_eq!(count(&free), 1);
    let budget = free.memory.total() - 1_000_000;
    let tight = train("nin", 64, &target(DeviceClass::Discrete, Some(budget))).unwrap();
    assert_eq!((tight.micro_batch, count(&tight)), (64, 2));
    assert!(tight.memory.total() <= budget && tight.memory.temporaries < free.memory.temporaries);
}

#[test]
fn the_largest_batch_fits_and_the_next_does_not() {
    let sizes: Vec<usize> = [1, 2, 4].into_iter().chain((1..200).map(|n| 8 * n)).collect();
    for (name, budget) in [("nin", Some(50_000_000)), ("nin", Some(300_000_000)), ("nin", None), ("nin-small", Some(30_000_000))] {
        let model = model(name);
        let target = target(DeviceClass::Cpu, budget);
        let input = InputOptions::plain(&model.defaults);
        let switches = CompileOptions::default();
        let largest =
            |most| largest_batch(model, &model.defaults, &input, Purpose::Train, most, 1, &training(), &target, switches).unwrap();
        let small = largest(7);
        let batch = largest(1 << 20);
        let place = sizes.iter().position(|size| *size == batch).unwrap_or_else(|| panic!("{name}: {batch}"));
        assert_eq!(train(name, batch, &target).unwrap().micro_batch, batch, "{name} {budget:?}");
        let next = sizes[place + 1];
        let planned_with = budget.unwrap_or(DEFAULT_AUTO_BYTES.min(target.max_buffer_bytes));
        let target = Target { memory_budget: Some(planned_with), ..target };
        assert!(train(name, next, &target).unwrap().micro_batch < next, "{name} {budget:?}: {next} fits, too");
        assert_eq!(small, 4.min(batch), "{name} {budget:?}");
    }
    let nin = model("nin");
    let refused = largest_batch(
        nin,
        &nin.defaults,
        &InputOptions::plain(&nin.defaults),
        Purpose::Train,
        8,
        1,
        &training(),
        &target(DeviceClass::Cpu, Some(1_000_000)),
        CompileOptions::default(),
    );
    assert!(matches!(refused, Err(BuildError::OverBudget { .. })));
}
