//! `nin-wgpu summary`: the layers of a model, its parameters, multiply-adds and memory.

use super::context::Context;
use super::error::{Exit, Failure};
use super::format;
use super::memory_args::MemoryArgs;
use super::model_args::{ModelArgs, count};
use super::table::{Align, Table};
use crate::graph::{Graph, Module};
use crate::kernels::Target;
use crate::models::{CompiledNetwork, MemoryOfModel, memory};
use crate::train::config::TrainConfig;
use crate::train::trainer::training;
use serde::Serialize;

/// Arguments of the verb.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Images in a batch, for the memory figures
    #[arg(long, value_name = "B", default_value = "1", value_parser = count(1 << 20))]
    batch_size: usize,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Summary<'a> {
    model: &'a str,
    input: [usize; 3],
    layers: Vec<Layer<'a>>,
    params: usize,
    macs: u64,
    memory: MemoryBytes,
}

#[derive(Serialize)]
struct Layer<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    output: &'a [usize],
    params: usize,
    macs: u64,
    #[serde(flatten)]
    window: Option<WindowKeys>,
}

#[derive(Serialize)]
struct WindowKeys {
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    ceil_mode: Option<bool>,
}

#[derive(Clone, Copy, Serialize)]
struct MemoryBytes {
    train_bytes: u64,
    infer_bytes: u64,
}

/// PyTorch's type of a block.
const BLOCK: &str = "Sequential";

/// Prints the summary. Memory is what `bench` takes on the chosen adapter with the model's recipe; without any adapter, what one
/// with WebGPU's baseline limits would take.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let model = args.model.model;
    let options = args.model.options();
    let graph = model.describe(&options)?;
    let memory_budget = args.memory.budget()?;
    let (target, adapter) = context.planning_target()?;
    let target = Target { memory_budget, ..target };
    let training = training(&TrainConfig::defaults(model.name)?);
    let memory = memory(model, &options, args.batch_size, &training, &target)?;
    let [height, width] = options.image_size;
    let bytes = MemoryBytes { train_bytes: memory.train.memory.total(), infer_bytes: memory.infer.memory.total() };
    let summary = summarise(model.name, [options.in_channels, height, width], &graph, bytes);
    if args.json {
        context.print_json(&summary)?;
    } else {
        context.print(&text(&summary, &graph.modules, &conditions(args.batch_size, &memory, adapter.as_deref())))?;
    }
    Ok(Exit::Done)
}

/// What the memory figures hold for.
fn conditions(batch: usize, memory: &MemoryOfModel, adapter: Option<&str>) -> String {
    let parts = |network: &CompiledNetwork| if network.micro_batch < batch { Some(network.micro_batch) } else { None };
    let parts = match (parts(&memory.train), parts(&memory.infer)) {
        (None, None) => String::new(),
        (Some(train), None) => format!(" (training in parts of {train})"),
        (None, Some(infer)) => format!(" (inference in parts of {infer})"),
        (Some(train), Some(infer)) => format!(" (in parts of {train} and {infer})"),
    };
    format!("at batch {batch}{parts} on {}", adapter.unwrap_or("an adapter with WebGPU's baseline limits"))
}

fn summarise<'a>(model: &'a str, input: [usize; 3], graph: &'a Graph, memory: MemoryBytes) -> Summary<'a> {
    let layers: Vec<Layer<'a>> = graph.modules.iter().filter(|module| module.kind != BLOCK).map(layer).collect();
    Summary { model, input, params: graph.parameter_count(), macs: layers.iter().map(|layer| layer.macs).sum(), layers, memory }
}

fn layer(module: &Module) -> Layer<'_> {
    let is_pool = module.kind.contains("Pool");
    Layer {
        name: &module.path,
        kind: module.kind,
        output: &module.output,
        params: module.parameters,
        macs: module.macs,
        window: module.window.map(|window| WindowKeys {
            kernel: window.kernel,
            stride: window.stride,
            padding: window.padding,
            ceil_mode: is_pool.then_some(window.ceil_mode),
        }),
    }
}

/// Blocks stand above the layers they are made of, as a reader expects; the graph lists them behind.
fn text(summary: &Summary<'_>, modules: &[Module], conditions: &str) -> String {
    let mut table = Table::new(&[
        ("layer", Align::Left),
        ("type", Align::Left),
        ("output", Align::Right),
        ("parameters", Align::Right),
        ("multiply-adds", Align::Right),
        ("window", Align::Left),
    ]);
    let mut row = |module: &Module| {
        let depth = module.path.matches('.').count();
        table.row(vec![
            format!("{}{}", "  ".repeat(depth), module.path),
            module.kind.to_string(),
            format::shape(&module.output),
            if module.parameters > 0 { format::thousands(module.parameters as u64) } else { String::new() },
            if module.macs > 0 { format::thousands(module.macs) } else { String::new() },
            module.window.map_or(String::new(), |window| window.to_string()),
        ]);
    };
    for (index, module) in modules.iter().enumerate() {
        let Some(block) = enclosing_block(modules, index) else {
            if module.kind != BLOCK {
                row(module);
            }
            continue;
        };
        if index == 0 || enclosing_block(modules, index - 1).is_none_or(|other| other.path != block.path) {
            row(block);
        }
        row(module);
    }
    let MemoryBytes { train_bytes, infer_bytes } = summary.memory;
    format!(
        "{} on {}\n\n{}\n{:<14} {}\n{:<14} {} for one image\n{:<14} {} for training, {} for inference, {conditions}\n",
        summary.model,
        format::shape(&summary.input),
        table.render(),
        "parameters",
        format::thousands(summary.params as u64),
        "multiply-adds",
        format::thousands(summary.macs),
        "memory",
        format::bytes(train_bytes),
        format::bytes(infer_bytes),
    )
}

/// The block that the layer at `index` belongs to; blocks do not nest.
fn enclosing_block(modules: &[Module], index: usize) -> Option<&Module> {
    let (parent, _) = modules[index].path.rsplit_once('.')?;
    modules[index..].iter().find(|module| module.kind == BLOCK && module.path == parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Model;

    const MEMORY: MemoryBytes = MemoryBytes { train_bytes: 3 << 20, infer_bytes: 1 << 20 };

    fn nin() -> Graph {
        let model = Model::find("nin").unwrap();
        model.describe(&model.defaults).unwrap()
    }

    #[test]
    fn text_shows_the_shapes_of_d2l_in_order() {
        let graph = nin();
        let text = text(&summarise("nin", [1, 224, 224], &graph, MEMORY), &graph.modules, "at batch 1");
        let outputs: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
            .filter_map(|line| line.split_whitespace().nth(2))
            .collect();
        let expected = ["96x54x54", "96x26x26", "256x26x26", "256x12x12", "384x12x12", "384x5x5", "384x5x5", "10x5x5", "10x1x1", "10"];
        assert_eq!(outputs, expected, "{text}");
        assert!(text.contains("1,992,166"), "{text}");
    }

    #[test]
    fn json_has_the_documented_keys_in_order() {
        let graph = nin();
        let json = serde_json::to_string(&summarise("nin", [1, 224, 224], &graph, MEMORY)).unwrap();
        let conv = r#"{"model":"nin","input":[1,224,224],"layers":[{"name":"0.0","type":"Conv2d","output":[96,54,54],"params":11712,"macs":33872256,"kernel":[11,11],"stride":[4,4],"padding":[0,0]},{"name":"0.1","type":"ReLU","output":[96,54,54],"params":0,"macs":0},"#;
        assert!(json.starts_with(conv), "{json}");
        let pool = r#"{"name":"1","type":"MaxPool2d","output":[96,26,26],"params":0,"macs":0,"kernel":[3,3],"stride":[2,2],"padding":[0,0],"ceil_mode":false}"#;
        assert!(json.contains(pool), "{json}");
        assert!(!json.contains(BLOCK));
        let end = r#""memory":{"train_bytes":3145728,"infer_bytes":1048576}}"#;
        assert!(json.contains(r#""params":1992166,"macs":"#) && json.ends_with(end), "{json}");
    }
}
