//! `nin-wgpu dump`: what the graph compiler makes of a model, as text that is stable from run to run.

use super::compute_args::PrecisionArgs;
use super::context::Context;
use super::error::{Exit, Failure};
use super::memory_args::MemoryArgs;
use super::model_args::{ModelArgs, count};
use crate::errors::label;
use crate::kernels::{self, DeviceClass, Target};
use crate::models::{CompiledNetwork, Purpose, compiled};
use crate::train::config::TrainConfig;
use crate::train::trainer::training;
use clap::{Subcommand, ValueEnum};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Arguments of the verb.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Values and nodes, after autodiff and fusion
    Graph(ModelDump),
    /// Which temporaries share memory, and when they live
    Plan(ModelDump),
    /// Buffers and kernels in the order in which they run
    Schedule(ModelDump),
    /// Write every shader as the driver sees it to DIR
    #[command(hide = true)]
    Shaders {
        /// Folder for the files
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(clap::Args)]
struct ModelDump {
    #[command(flatten)]
    model: ModelArgs,
    /// With gradients, as in training
    #[arg(long)]
    train: bool,
    /// Images in a batch
    #[arg(long, value_name = "B", default_value = "1", value_parser = count(1 << 20))]
    batch_size: usize,
    #[command(flatten)]
    memory: MemoryArgs,
    /// The kind of device to choose kernels for
    #[arg(long, value_enum, default_value = "gpu")]
    class: Class,
    #[command(flatten)]
    format: PrecisionArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Class {
    Gpu,
    Cpu,
}

/// Prints the text. No adapter is needed: kernels are chosen for one with WebGPU's baseline limits.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let text = match &args.what {
        What::Graph(dump) => dump.compile()?.compiled.graph.to_string(),
        What::Plan(dump) => dump.plan()?,
        What::Schedule(dump) => dump.compile()?.compiled.schedule.to_string(),
        What::Shaders { out } => {
            let written = write_shaders(out)?;
            context.note(&format!("{written} shaders written to {}", label(out)));
            return Ok(Exit::Done);
        }
    };
    context.print(&text)?;
    Ok(Exit::Done)
}

impl ModelDump {
    fn compile(&self) -> Result<CompiledNetwork, Failure> {
        let class = match self.class {
            Class::Gpu => DeviceClass::Discrete,
            Class::Cpu => DeviceClass::Cpu,
        };
        let options = self.model.options();
        let target = Target { memory_budget: self.memory.budget()?, ..Target::baseline(class) };
        let purpose = if self.train { Purpose::Train } else { Purpose::Infer { runs: 1 } };
        let training = training(&TrainConfig::defaults(self.model.model.name)?);
        Ok(compiled(self.model.model, &options, self.batch_size, &training, &target, purpose, self.format.precision.compile_options())?)
    }

    /// All memory, then the timeline of what is shared.
    fn plan(&self) -> Result<String, Failure> {
        let CompiledNetwork { compiled, micro_batch, memory, .. } = self.compile()?;
        let passes = self.batch_size.div_ceil(micro_batch);
        let plural = if passes == 1 { "" } else { "es" };
        Ok(format!("batch {} in {passes} pass{plural} of {micro_batch}\n{memory}{}", self.batch_size, compiled.plan))
    }
}

/// Writes `module.wgsl` for every shader and returns their number.
fn write_shaders(folder: &Path) -> Result<usize, Failure> {
    let failed = |path: &Path, error: std::io::Error| Failure::Failed(format!("{}: cannot be written: {error}", label(path)));
    fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    let modules: BTreeMap<&str, &str> = kernels::ALL.iter().map(|kernel| (kernel.module, kernel.source)).collect();
    for (module, source) in &modules {
        let path = folder.join(format!("{module}.wgsl"));
        fs::write(&path, source).map_err(|error| failed(&path, error))?;
    }
    Ok(modules.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shader_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let written = write_shaders(&folder.path().join("new")).unwrap();
        let files = fs::read_dir(folder.path().join("new")).unwrap().count();
        assert!(written > 0 && written == files);
    }
}
