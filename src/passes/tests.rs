//! Gradient rules against finite differences, in double precision on the host.

use super::schedule::{Region, ScheduledDispatch};
use super::{CompileOptions, Pass, autodiff, compile};
use crate::graph::{Builder, Graph, ParameterRole, ValueId, ValueKind, interpret};
use crate::kernels::{BindingKind, DeviceClass, Step, Target, texture_copy};
use crate::models::{InputOptions, Model, ModelOptions, Purpose, Training, network};
use crate::ops::{Add, SoftmaxCrossEntropy};
use crate::rng::Stream;
use crate::shape::{Fact, Window};
use crate::tensor::Tensor;
use std::collections::BTreeMap;

const BATCH: usize = 2;

fn step() -> Step {
    Step { images: BATCH as u32, total_images: BATCH as u32, seed_lo: 7, step: 3, ..Default::default() }
}

/// Values for every input and parameter: small reals, labels from `labels`.
fn values(graph: &Graph, labels: ValueId) -> BTreeMap<ValueId, Tensor> {
    let mut rng = Stream::new(11, 0, 0, 9);
    let mut values = BTreeMap::new();
    for (id, value) in graph.values() {
        let mut fill = |f: &mut dyn FnMut(&mut Stream) -> f64| Tensor {
            shape: value.fact.shape.clone(),
            data: (0..value.fact.shape.elements()).map(|_| f(&mut rng)).collect(),
        };
        match value.kind {
            ValueKind::Input if id == labels => values.insert(id, fill(&mut |rng| f64::from(rng.below(3)))),
            ValueKind::Input if value.fact.layout.is_integer() => values.insert(id, fill(&mut |rng| f64::from(rng.below(256)))),
            ValueKind::Input => values.insert(id, fill(&mut |rng| f64::from(rng.uniform_in(-1.0, 1.0)))),
            ValueKind::Parameter(index) => {
                let parameter = &graph.parameters[index];
                let (scale, shift) = match parameter.role {
                    ParameterRole::Weight => ((6.0 / parameter.fan_in as f64).sqrt(), 0.0),
                    ParameterRole::Bias => (0.2, 0.2),
                };
                values.insert(id, fill(&mut |rng| f64::from(rng.uniform_in(-1.0, 1.0)) * scale + shift))
            }
            _ => None,
        };
    }
    values
}

/// Compares the directional derivative along a random direction with the central difference of the mean loss.
fn check_directional_derivative(graph: &Graph, rows: ValueId, labels: ValueId) {
    let start = values(graph, labels);
    let mut rng = Stream::new(12, 0, 0, 9);
    let direction: Vec<Tensor> = graph.parameters.iter().map(|p| start[&p.value].map(|_| f64::from(rng.uniform_in(-1.0, 1.0)))).collect();
    let loss_at = |epsilon: f64| {
        let mut moved = start.clone();
        for (parameter, direction) in graph.parameters.iter().zip(&direction) {
            moved.insert(parameter.value, start[&parameter.value].zip(direction, |w, d| w + epsilon * d));
        }
        interpret(graph, moved, &step())[&rows].data.chunks(4).map(|row| row[0]).sum::<f64>() / BATCH as f64
    };
    let difference = (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6;

    let all = interpret(graph, start.clone(), &step());
    let mut derivative = 0.0;
    for (id, value) in graph.values() {
        if let ValueKind::Gradient(index) = value.kind {
            derivative += all[&id].data.iter().zip(&direction[index].data).map(|(g, d)| g * d).sum::<f64>();
        }
    }
    assert!(difference.abs() > 1e-3, "the direction hardly changes the loss: {difference}");
    assert!((derivative - difference).abs() < 1e-5 * difference.abs(), "derivative {derivative}, difference {difference}");
}

#[test]
fn gradients_of_a_model_agree_with_finite_differences() {
    let options = ModelOptions { classes: 3, in_channels: 1, image_size: [12; 2], dropout: 0.3 };
    let model = Model::find("nin-small").unwrap();
    let network = network(model, &options, &InputOptions::plain(&options), Purpose::Train, BATCH, BATCH, &Training::default()).unwrap();
    check_directional_derivative(&network.graph, loss_rows(&network.graph), network.labels.unwrap());
}

fn loss_rows(graph: &Graph) -> ValueId {
    graph.nodes.iter().find(|n| n.op.name() == "cross_entropy").unwrap().outputs[0]
}

/// Two branches that meet in a sum, strides, padding, both pools with rounding up: what no model has all of.
fn branching() -> (Graph, ValueId, ValueId) {
    let mut builder = Builder::new();
    let images = builder.input("images", Fact::activation(BATCH, 3, 9, 8));
    let labels = builder.input("labels", Fact::index(&[BATCH]));
    let mut s = builder.sequential(images);
    s.conv2d(5, Window { kernel: [3, 2], stride: [2, 1], padding: [1, 1], ceil_mode: false }).unwrap();
    s.relu().unwrap();
    s.dropout(0.4).unwrap();
    let trunk = s.value();
    s.conv2d(6, Window::square(3, 1, 1)).unwrap();
    // New layers go here: no ReLU takes their negative inputs or the gradients of them.
    s.avg_pool2d(Window { padding: [1, 1], ..Window::square(3, 2, 1).ceil() }).unwrap();
    let left = s.value();
    let mut s = builder.sequential(trunk);
    s.conv2d(6, Window::square(1, 1, 0)).unwrap();
    s.relu().unwrap();
    s.max_pool2d(Window { padding: [1, 1], ..Window::square(3, 2, 1).ceil() }).unwrap();
    let right = s.value();
    let sum = builder.node("sum", Add, &[left, right]).unwrap();
    let mut s = builder.sequential(sum);
    s.conv2d(3, Window::square(2, 1, 0)).unwrap();
    s.global_avg_pool().unwrap();
    let logits = s.value();
    let rows = builder.node("loss", SoftmaxCrossEntropy::default(), &[logits, labels]).unwrap();
    let mut graph = builder.graph;
    autodiff(&mut graph, rows).unwrap();
    (graph, rows, labels)
}

#[test]
fn gradients_of_branches_agree_with_finite_differences() {
    let (graph, rows, labels) = branching();
    check_directional_derivative(&graph, rows, labels);
}

#[test]
fn the_first_convolution_gets_no_input_gradient() {
    let (graph, ..) = branching();
    let count = |name| graph.nodes.iter().filter(|n| n.op.name() == name).count();
    assert_eq!(count("conv2d_backward_weight"), 4);
    assert_eq!(count("conv2d_backward_input"), 3);
}

#[test]
fn every_dispatch_knows_its_direction() {
    let model = Model::find("nin-cifar").unwrap();
    let input = InputOptions::plain(&model.defaults);
    let graph = network(model, &model.defaults, &input, Purpose::Train, BATCH, BATCH, &Training::default()).unwrap().graph;
    let compiled = compile(graph, &Target::baseline(DeviceClass::Discrete), CompileOptions::default()).unwrap();
    // What takes two dispatches counts once.
    let passes_of = |path: &str| -> Vec<&str> {
        let mut passes: Vec<_> = compiled.schedule.dispatches.iter().filter(|e| e.path == path).map(|e| e.pass.name()).collect();
        passes.dedup();
        passes
    };
    assert_eq!(passes_of("input"), ["forward"]);
    assert_eq!(passes_of("0.0"), ["forward", "backward_weight"]);
    assert_eq!(passes_of("0.2"), ["forward", "backward_weight", "backward_input"]);
    // A pool, and a dropout, whose gradient is the same operation.
    assert_eq!(passes_of("1"), ["forward", "backward"]);
    assert_eq!(passes_of("2"), ["forward", "backward"]);
    // The head computes its gradient, too.
    assert_eq!((passes_of("loss"), passes_of("metrics")), (vec!["forward"], vec!["forward"]));

    let macs = |pass| -> u64 { compiled.schedule.dispatches.iter().filter(|entry| entry.pass == pass).map(|entry| entry.macs).sum() };
    let modules = &model.describe(&model.defaults).unwrap().modules;
    let of = |path: Option<&str>| -> u64 {
        let leaves = modules.iter().filter(|module| module.kind != "Sequential" && path.is_none_or(|path| module.path == path));
        leaves.map(|module| module.macs).sum::<u64>() * BATCH as u64
    };
    assert_eq!((macs(Pass::Forward), macs(Pass::BackwardWeight)), (of(None), of(None)));
    assert_eq!(macs(Pass::BackwardInput), of(None) - of(Some("0.0")));
    assert_eq!((macs(Pass::Backward), macs(Pass::Update)), (0, 0));
}

/// Every kernel finds in its textures what its node would have copied there, and no copy is made twice.
#[test]
fn textures_hold_what_their_readers_want() {
    let model = Model::find("nin-cifar").unwrap();
    let input = InputOptions::plain(&model.defaults);
    let graph = network(model, &model.defaults, &input, Purpose::Train, BATCH, BATCH, &Training::default()).unwrap().graph;
    let target = Target { little_work: 0, subgroup: Some(8), texture_reuse: 0, ..Target::baseline(DeviceClass::Cpu) };
    let compiled = compile(graph, &target, CompileOptions::default()).unwrap();
    let copy = &texture_copy::COPY;
    // By texture: what was copied there, and how many dispatches had written to the buffers by then.
    let mut held = BTreeMap::new();
    let mut writes: Vec<Region> = Vec::new();
    let mut copies = BTreeMap::<(&str, &str), usize>::new();
    for ScheduledDispatch { path, pass, dispatch, .. } in &compiled.schedule.dispatches {
        if dispatch.kernel.name() == copy.name() {
            held.insert(dispatch.buffers[1].buffer, (dispatch.buffers[0], writes.len()));
            *copies.entry((path, pass.name())).or_default() += 1;
            continue;
        }
        for (binding, region) in dispatch.kernel.storage().zip(&dispatch.buffers) {
            match binding.kind {
                BindingKind::Texture => {
                    let (source, since) = held[&region.buffer];
                    assert_eq!(source.bytes, region.bytes, "{path}: {}", binding.name);
                    let is_stale = |written: &Region| {
                        written.buffer == source.buffer
                            && written.offset < source.offset + source.bytes
                            && source.offset < written.offset + written.bytes
                    };
                    assert!(!writes[since..].iter().any(is_stale), "{path}: {} was written after it had been copied", binding.name);
                }
                BindingKind::ReadWrite => writes.push(*region),
                _ => {}
            }
        }
    }
    assert_eq!(copies[&("3.0", "forward")], 2);
    assert_eq!(copies[&("3.0", "backward_weight")] + copies[&("3.0", "backward_input")], 3, "{copies:?}");
}

#[test]
fn values_alive_at_once_never_share_a_slot() {
    let (graph, ..) = branching();
    let compiled = compile(graph, &Target::baseline(DeviceClass::Discrete), CompileOptions::default()).unwrap();
    let tenants = &compiled.plan.tenants;
    assert!(compiled.plan.slots.len() < tenants.len(), "nothing is shared");
    for (i, a) in tenants.iter().enumerate() {
        for b in &tenants[i + 1..] {
            assert!(a.slot != b.slot || a.to < b.from || b.to < a.from, "{a:?} and {b:?}");
            assert!(compiled.plan.slots[a.slot] >= a.bytes);
        }
    }
}
