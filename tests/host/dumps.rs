//! Golden texts of the graph compiler, and what must hold of every plan and schedule.
//!
//! `UPDATE_GOLDENS=1 cargo test --release --test host` writes the texts anew; the difference belongs into review.

use nin_wgpu::graph::{Value, ValueKind};
use nin_wgpu::kernels::{BindingKind, DeviceClass, Target};
use nin_wgpu::models::{BuildError, CompiledNetwork, InputOptions, MODELS, Model, Purpose, Training, compile, compiled};
use nin_wgpu::passes::{BufferRole, CompileOptions, Compiled, PlanOptions, Region};
use nin_wgpu::shape::{Element, Layout};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;

const GOLDEN_MODELS: [&str; 3] = ["nin", "nin-cifar", "nin-small"];
const GOLDEN_BATCH: usize = 2;
const CLASSES: [DeviceClass; 2] = [DeviceClass::Discrete, DeviceClass::Cpu];

fn model(name: &str) -> &'static Model {
    Model::find(name).unwrap()
}

fn compile_for(name: &str, batch: usize, class: DeviceClass, train: bool) -> Compiled {
    compile_as(name, batch, class, train, false)
}

/// With `half` in mixed precision.
fn compile_as(name: &str, batch: usize, class: DeviceClass, train: bool, half: bool) -> Compiled {
    let purpose = if train { Purpose::Train } else { Purpose::Infer { runs: 1 } };
    let switches = CompileOptions { half, ..CompileOptions::default() };
    network_for(name, batch, &Target::baseline(class), purpose, switches).unwrap().compiled
}

fn network_for(
    name: &str,
    batch: usize,
    target: &Target,
    purpose: Purpose,
    switches: CompileOptions,
) -> Result<CompiledNetwork, BuildError> {
    let model = model(name);
    compiled(model, &model.defaults, batch, &Training::default(), target, purpose, switches)
}

/// Every model, purpose and device class at a few batch sizes, with what to call it.
fn variety() -> Vec<(String, Compiled)> {
    let mut all = Vec::new();
    for model in MODELS {
        for class in CLASSES {
            for train in [true, false] {
                for (batch, half) in [(1, false), (5, false), (1, true), (5, true)] {
                    let name = format!("{} {class:?} train={train} batch {batch} half={half}", model.name);
                    all.push((name, compile_as(model.name, batch, class, train, half)));
                }
            }
        }
    }
    all
}

#[test]
fn dumps_are_the_golden_ones() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/dumps");
    let update = std::env::var_os("UPDATE_GOLDENS").is_some_and(|value| value == "1");
    let mut expected = BTreeMap::new();
    for name in GOLDEN_MODELS {
        for train in [true, false] {
            let Compiled { graph, plan, schedule, .. } = compile_for(name, GOLDEN_BATCH, DeviceClass::Discrete, train);
            let purpose = if train { "train" } else { "infer" };
            for (what, text) in [("graph", graph.to_string()), ("plan", plan.to_string()), ("schedule", schedule.to_string())] {
                expected.insert(format!("{name}-{purpose}-{what}.txt"), text);
            }
        }
    }
    let schedule = compile_for("nin-small", GOLDEN_BATCH, DeviceClass::Cpu, true).schedule;
    expected.insert("nin-small-train-schedule-cpu.txt".into(), schedule.to_string());
    let mixed = compile_as("nin-small", GOLDEN_BATCH, DeviceClass::Discrete, true, true);
    expected.insert("nin-small-mixed-train-graph.txt".into(), mixed.graph.to_string());
    expected.insert("nin-small-mixed-train-schedule.txt".into(), mixed.schedule.to_string());

    if update {
        fs::create_dir_all(&folder).unwrap();
    }
    let mut wrong = Vec::new();
    for (file, text) in &expected {
        let path = folder.join(file);
        if update {
            fs::write(&path, text).unwrap();
            continue;
        }
        let golden = fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
        if golden != *text {
            wrong.push(format!("{file}: {}", first_difference(&golden, text)));
        }
    }
    let there: Vec<String> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    wrong.extend(there.into_iter().filter(|file| !expected.contains_key(file)).map(|file| format!("{file}: belongs to no test")));
    assert!(wrong.is_empty(), "if this is meant, run with UPDATE_GOLDENS=1 and review:\n{}", wrong.join("\n"));
}

fn first_difference(golden: &str, text: &str) -> String {
    let mut golden = golden.lines();
    for (number, line) in text.lines().enumerate() {
        let other = golden.next();
        if other != Some(line) {
            return format!("line {} is\n    {line}\nbut was\n    {}", number + 1, other.unwrap_or("(nothing)"));
        }
    }
    format!("lines are missing from\n    {}", golden.next().unwrap_or("(the end)"))
}

#[test]
fn dumps_are_stable_from_run_to_run() {
    for train in [true, false] {
        let texts = || {
            let Compiled { graph, plan, schedule, .. } = compile_for("nin-cifar", 3, DeviceClass::Cpu, train);
            format!("{graph}{plan}{schedule}")
        };
        assert_eq!(texts(), texts());
    }
}

#[test]
fn tenants_of_a_slot_never_live_at_once() {
    for (name, Compiled { plan, .. }) in variety() {
        for (index, tenant) in plan.tenants.iter().enumerate() {
            assert!(tenant.from <= tenant.to, "{name}: {tenant:?}");
            assert!(tenant.bytes <= plan.slots[tenant.slot], "{name}: {tenant:?} does not fit its slot");
            for other in plan.tenants[index + 1..].iter().filter(|other| other.slot == tenant.slot) {
                assert!(other.from > tenant.to || tenant.from > other.to, "{name}: {tenant:?} and {other:?}");
            }
        }
        for (slot, bytes) in plan.slots.iter().enumerate() {
            let largest = plan.tenants.iter().filter(|tenant| tenant.slot == slot).map(|tenant| tenant.bytes).max();
            assert_eq!(largest, Some(*bytes), "{name}: slot {slot} is larger than what lives in it");
        }
    }
}

#[test]
fn plans_come_close_to_the_lower_bound() {
    for (name, Compiled { plan, .. }) in variety() {
        let (bytes, least) = (plan.bytes(), plan.peak_alive());
        assert!(least > 0 && least <= bytes, "{name}: {bytes} bytes, {least} alive at once");
        assert!(bytes as f64 <= 1.5 * least as f64, "{name}: {bytes} bytes, {least} alive at once");
    }
}

#[test]
fn mixed_precision_stores_activations_in_half_the_bytes() {
    for name in GOLDEN_MODELS {
        for class in CLASSES {
            let [single, mixed] = [false, true].map(|half| compile_as(name, 16, class, true, half));
            let share = mixed.plan.bytes() as f64 / single.plan.bytes() as f64;
            assert!((0.45..0.75).contains(&share), "{name} {class:?}: {share}");
            assert!(single.loss_scale.is_none() && mixed.loss_scale.is_some());
            let half = |compiled: &Compiled| {
                let is_half = |value: &Value| value.fact.element == Element::F16;
                compiled.graph.values().filter(|(_, value)| is_half(value)).map(|(_, value)| value.clone()).collect::<Vec<_>>()
            };
            assert!(half(&single).is_empty());
            let stored = half(&mixed);
            assert!(stored.iter().all(|value| matches!(value.fact.layout, Layout::Activation | Layout::Filter)), "{name}");
            assert!(stored.iter().all(|value| value.kind == ValueKind::Temporary), "{name}: what is kept or trained stays in f32");
            // Filters are converted once, however many nodes read them.
            let casts = mixed.graph.nodes.iter().filter(|node| node.op.name() == "cast").count();
            let filters = mixed.graph.parameters.iter().filter(|p| mixed.graph.fact(p.value).layout == Layout::Filter).count();
            assert_eq!((casts, casts), (filters, stored.iter().filter(|value| value.fact.layout == Layout::Filter).count()), "{name}");
        }
    }
}

#[test]
fn sharing_saves_memory_and_changes_no_kernel_order() {
    for name in GOLDEN_MODELS {
        let model = model(name);
        let target = Target::baseline(DeviceClass::Discrete);
        let build = |share| {
            let switches = CompileOptions { plan: PlanOptions { share }, ..Default::default() };
            let input = InputOptions::plain(&model.defaults);
            compile(model, &model.defaults, &input, Purpose::Train, 4, 4, &Training::default(), &target, switches).unwrap().compiled
        };
        let (shared, apart) = (build(true), build(false));
        assert!(shared.plan.bytes() < apart.plan.bytes(), "{name}");
        assert_eq!(apart.plan.slots.len(), apart.plan.tenants.len(), "{name}");
        let order = |compiled: &Compiled| compiled.graph.nodes.iter().map(|node| node.path.clone()).collect::<Vec<_>>();
        assert_eq!(order(&shared), order(&apart), "{name}");
    }
}

#[test]
fn dispatches_follow_the_rules_of_buffers() {
    for (name, Compiled { schedule, .. }) in variety() {
        for entry in &schedule.dispatches {
            let kernel = entry.dispatch.kernel;
            let place = format!("{name}: {} of {}", kernel.name(), entry.path);
            assert!(entry.dispatch.workgroups > 0, "{place} has no workgroups");
            assert_eq!(kernel.storage().count(), entry.dispatch.buffers.len(), "{place}");
            let mut access: BTreeMap<BufferRole, Vec<(BindingKind, Range<u64>)>> = BTreeMap::new();
            for (binding, region) in kernel.storage().zip(&entry.dispatch.buffers) {
                let Region { buffer, offset, bytes } = *region;
                assert!(bytes > 0 && offset + bytes <= schedule.buffers[&buffer], "{place}: {} leaves its buffer", binding.name);
                assert_eq!(offset % 256, 0, "{place}: {}", binding.name);
                access.entry(buffer).or_default().push((binding.kind, offset..offset + bytes));
            }
            // wgpu tracks whole buffers: within a dispatch one may be read, or written at places that are apart.
            for (buffer, uses) in access {
                let writes: Vec<&Range<u64>> =
                    uses.iter().filter(|(kind, _)| *kind == BindingKind::ReadWrite).map(|(_, range)| range).collect();
                assert!(writes.is_empty() || writes.len() == uses.len(), "{place}: {buffer:?} is bound for reading and for writing");
                for (index, range) in writes.iter().enumerate() {
                    let meets = |other: &&Range<u64>| range.start < other.end && other.start < range.end;
                    assert!(!writes[index + 1..].iter().any(meets), "{place}: {buffer:?} is written by two bindings");
                }
            }
        }
    }
}

#[test]
fn everything_read_has_been_written() {
    for (name, Compiled { graph, .. }) in variety() {
        let mut written: Vec<bool> = graph
            .values()
            .map(|(_, value)| matches!(value.kind, ValueKind::Input | ValueKind::Parameter(_)) || value.name == "loss scale")
            .collect();
        for node in &graph.nodes {
            for input in &node.inputs {
                assert!(written[input.0 as usize], "{name}: {} reads {} too early", node.path, graph.value(*input).name);
            }
            for output in &node.outputs {
                assert!(!written[output.0 as usize], "{name}: {} is written twice", graph.value(*output).name);
                written[output.0 as usize] = true;
            }
        }
    }
}

#[test]
fn large_batches_become_micro_batches() {
    for class in CLASSES {
        let target = Target::baseline(class);
        let at = |batch| network_for("nin", batch, &target, Purpose::Train, CompileOptions::default()).unwrap();
        // 128 x 96 x 54 x 54 f32 are 143 MB: over the 128 MiB of a binding.
        let network = at(128);
        assert_eq!(network.micro_batch, 64, "{class:?}");
        assert!(network.compiled.schedule.buffers.values().all(|bytes| *bytes <= target.max_buffer_bytes));
        for entry in &network.compiled.schedule.dispatches {
            for region in &entry.dispatch.buffers {
                assert!(region.bytes <= target.max_binding_bytes, "{class:?} {}", entry.path);
            }
        }
        assert_eq!(at(32).micro_batch, 32, "{class:?}");
    }
}

#[test]
fn the_first_convolution_gets_no_input_gradient() {
    for name in GOLDEN_MODELS {
        let graph = compile_for(name, 1, DeviceClass::Discrete, true).graph;
        let images = graph.nodes.iter().find(|node| node.path == "input").map(|node| node.outputs[0]).unwrap();
        let shape = &graph.fact(images).shape;
        let readers = graph.nodes.iter().filter(|node| node.inputs.contains(&images)).count();
        // The convolution itself and its weight gradient.
        assert_eq!(readers, 2, "{name}: {shape}");
    }
}
