//! The command line: one module per verb, arguments in, results on stdout, everything else on stderr.
//!
//! A verb gets its raw arguments and the [`Context`], and returns how it ended: an [`Exit`] or a [`Failure`]. Only
//! [`main`] turns those into exit codes and messages.

mod bench;
mod bench_kernels;
mod bench_report;
mod check;
mod compute_args;
mod context;
mod dashboard;
mod data;
mod data_fetch;
mod data_info;
mod devices;
mod dump;
mod error;
mod eval;
mod format;
mod infer;
mod interrupt;
mod memory_args;
mod model_args;
mod progress;
mod proof_worker;
mod recipes;
mod report;
mod summary;
mod table;
mod train;
mod train_args;
mod trust;
mod tune;
mod tune_worker;
mod tuning;
mod weights_args;
mod worker;

use crate::gpu::GpuError;
use crate::variables;
use clap::{Parser, Subcommand};
use context::{Context, Verbosity};
use error::{Exit, Failure};
use memory_args::MemoryArgs;
use std::process::ExitCode;

/// Shown under `--help`.
const AFTER_HELP: &str = "\
Exit codes: 0 done; 1 failed; 2 usage; 3 no adapter; 4 device lost; 5 out of memory or over a device limit;
6 bad data or weights; 7 training diverged; 8 self-check failed; 130 interrupted after saving.

Environment: NIN_WGPU_DEVICE as --device; NIN_WGPU_MEMORY_BUDGET as --memory-budget; NIN_WGPU_DATA a folder with
data sets; NIN_WGPU_MIRROR as `data fetch --mirror`; NIN_WGPU_PICTURE_CACHE MiB of decoded pictures kept in memory;
NIN_WGPU_CACHE_DIR a folder for compiled kernels and what tuning finds, NIN_WGPU_NO_CACHE=1 keeps none;
WGPU_BACKEND (vulkan, metal, dx12, gl) and WGPU_ADAPTER_NAME restrict the adapters; NO_COLOR switches colours off.";

/// Network in Network on any GPU: trains and uses image classifiers through WGSL kernels.
#[derive(Parser)]
#[command(name = "nin-wgpu", version, after_help = AFTER_HELP, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb accepts.
#[derive(clap::Args)]
struct GlobalArgs {
    /// Adapter: an index from `devices`, part of its name, or a backend (vulkan, metal, dx12, gl) [default: the most
    /// powerful]
    #[arg(long, global = true, value_name = "SPEC", env = "NIN_WGPU_DEVICE", hide_env = true)]
    device: Option<String>,
    /// Say more
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    verbose: bool,
    /// Say nothing but results and errors
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// List the adapters there are
    Devices(devices::Args),
    /// Show the layers of a model, its parameters, multiply-adds and memory
    Summary(summary::Args),
    /// Train a model on a data set
    Train(Box<train_args::Args>),
    /// List the recipes for `train`, or print one
    Recipes(recipes::Args),
    /// Measure weights on a data set
    Eval(eval::Args),
    /// Make the report of a run anew
    Report(report::Args),
    /// Name what pictures show
    Infer(infer::Args),
    /// Measure how fast a model trains and infers on this adapter
    Bench(bench::Args),
    /// Print what the graph compiler makes of a model
    Dump(dump::Args),
    /// Compare the kernels of every layer on this adapter with a reference in double precision
    Check(check::Args),
    /// Measure which kernels are fastest on this adapter for a model, and keep the result
    Tune(tune::Args),
    /// Download, list and look at data sets
    #[command(subcommand)]
    Data(data::Command),
    /// Measures what `tuning` asks for on standard input
    #[command(hide = true)]
    TuneWorker,
    /// Tries what `trust` does not dare in its own process
    #[command(hide = true)]
    ProofWorker,
}

/// Runs the program with the process's arguments and returns its exit code.
pub fn main() -> ExitCode {
    install_panic_hook();
    // A panic is a fault of this program; its hook has said so in one line.
    let code = std::panic::catch_unwind(run).unwrap_or(Exit::FAILED);
    ExitCode::from(code)
}

fn run() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way as well; a closed pipe is nothing to complain about.
            let _ = error.print();
            return error.exit_code().try_into().unwrap_or(Exit::FAILED);
        }
    };
    let GlobalArgs { device, verbose, quiet } = cli.global;
    let verbosity = match (quiet, verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    };
    let context = Context::new(device, verbosity);
    if let Err(failure) = check_environment(&cli.verb, &context) {
        context.error(&failure.to_string());
        return failure.code();
    }
    match dispatch(&cli.verb, &context) {
        Ok(exit) => exit.code(),
        Err(failure) => {
            if !failure.is_closed_pipe() {
                context.error(&failure.to_string());
            }
            failure.code()
        }
    }
}

/// Refuses variables of the environment with values that mean nothing, and says which ones are none.
fn check_environment(verb: &Verb, context: &Context) -> Result<(), Failure> {
    variables::check().map_err(GpuError::from)?;
    MemoryArgs::default().budget()?;
    // Whoever started a worker has said it.
    if !matches!(verb, Verb::TuneWorker | Verb::ProofWorker) {
        for (name, nearest) in variables::unknown() {
            context.note(&format!("note: {name} is no variable of this program and does nothing; is {nearest} meant?"));
        }
    }
    Ok(())
}

fn dispatch(verb: &Verb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        Verb::Devices(args) => devices::run(args, context),
        Verb::Summary(args) => summary::run(args, context),
        Verb::Train(args) => train::run(args, context),
        Verb::Recipes(args) => recipes::run(args, context),
        Verb::Eval(args) => eval::run(args, context),
        Verb::Report(args) => report::run(args, context),
        Verb::Infer(args) => infer::run(args, context),
        Verb::Bench(args) => bench::run(args, context),
        Verb::Dump(args) => dump::run(args, context),
        Verb::Check(args) => check::run(args, context),
        Verb::Tune(args) => tune::run(args, context),
        Verb::Data(command) => data::run(command, context),
        Verb::TuneWorker => tune_worker::run(context),
        Verb::ProofWorker => proof_worker::run(context),
    }
}

/// One line instead of a backtrace.
fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let message =
            payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown");
        let place = info.location().map_or(String::new(), |place| {
            let file = std::path::Path::new(place.file()).file_name().unwrap_or_default();
            format!(" ({}:{})", file.to_string_lossy(), place.line())
        });
        let message = crate::errors::one_line(message, 1000);
        dashboard::screen::leave();
        context::stderr_line(&format!("error: internal error: {message}{place}; this is a fault of nin-wgpu, please report it"));
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_go_before_and_behind_the_verb() {
        for line in ["nin-wgpu --device 1 -q devices", "nin-wgpu devices -q --device 1"] {
            let cli = parse(line).unwrap();
            assert_eq!(cli.global.device.as_deref(), Some("1"));
            assert!(cli.global.quiet);
        }
        assert_eq!(parse("nin-wgpu -q -v devices").err().unwrap().kind(), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn usage_errors_have_exit_code_2() {
        for line in [
            "nin-wgpu",
            "nin-wgpu nonsense",
            "nin-wgpu train --model nin",
            "nin-wgpu train --model vgg --data mnist",
            "nin-wgpu train --resume a --initial-weights b",
            "nin-wgpu train --model nin --data mnist --epochs x",
            "nin-wgpu report",
            "nin-wgpu infer",
            "nin-wgpu infer a.png --topk 0",
            "nin-wgpu eval --data mnist --split validation",
            "nin-wgpu bench --model vgg",
            "nin-wgpu bench --batch-size 0",
            "nin-wgpu bench --batch-size most",
            "nin-wgpu bench --memory-budget 12Q",
            "nin-wgpu summary --model nin --memory-budget 0",
            "nin-wgpu bench --steps 0",
            "nin-wgpu bench --mode validate",
            "nin-wgpu bench --precision f64",
            "nin-wgpu summary",
            "nin-wgpu dump plan",
            "nin-wgpu tune --batch-size 0",
            "nin-wgpu tune --budget 0",
            "nin-wgpu train --model nin --data mnist --tune slowly",
            "nin-wgpu data",
            "nin-wgpu data fetch",
            "nin-wgpu data fetch imagenet",
            "nin-wgpu data info",
            "nin-wgpu data info mnist --columns 0",
        ] {
            assert_eq!(parse(line).err().map(|e| e.exit_code()), Some(2), "{line}");
        }
        assert_eq!(parse("nin-wgpu --help").err().unwrap().exit_code(), 0);
    }
}
