//! Compiles WGSL kernels with a Vulkan driver, as the product would, and prints a JSON line for each with what the driver says of
//! registers, spills and code size. See README.md beside it.

mod kernels;
// The product makes and strips SPIR-V by the same text; its choice of run-time checks is not needed here.
#[allow(dead_code)]
#[path = "../../../src/gpu/spirv.rs"]
mod spirv;
mod statistics;
mod vulkan;

use kernels::Kernel;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const USAGE: &str = "usage: registers DIR [--device N] [--isolate] [--keep-layouts]
       registers --shader FILE.wgsl ENTRY [--device N] [--isolate] [--keep-layouts]";

const SOME_FAILED: u8 = 1;
const BAD_USAGE: u8 = 2;
const NO_DRIVER: u8 = 3;

/// What was asked for.
#[derive(Default)]
struct Arguments {
    folder: Option<PathBuf>,
    shader: Option<(PathBuf, String)>,
    /// What a line calls the kernel of `shader`, if not by its file.
    name: Option<String>,
    device: Option<usize>,
    isolate: bool,
    keep_layouts: bool,
}

fn main() -> ExitCode {
    let failed = |code: u8, message: String| {
        eprintln!("registers: {message}");
        ExitCode::from(code)
    };
    let arguments = match read_arguments(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => return failed(BAD_USAGE, format!("{message}\n{USAGE}")),
    };
    let listed = match (&arguments.folder, &arguments.shader) {
        (Some(folder), None) => kernels::of_folder(folder),
        (None, Some((file, entry))) => kernels::of_file(file, entry, arguments.name.as_deref()).map(|kernel| vec![kernel]),
        _ => return failed(BAD_USAGE, format!("name a folder, or one kernel with --shader\n{USAGE}")),
    };
    let listed = match listed {
        Ok(listed) => listed,
        Err(message) => return failed(BAD_USAGE, message),
    };
    let driver = match vulkan::Driver::open(arguments.device) {
        Ok(driver) => driver,
        Err(vulkan::Refusal::NoDriver(message)) => return failed(NO_DRIVER, message),
        Err(vulkan::Refusal::NoSuchDevice(message)) => return failed(BAD_USAGE, message),
    };
    eprintln!("registers: {}, {} kernels", driver.description(), listed.len());
    if !driver.tells() {
        eprintln!("registers: this driver lacks VK_KHR_pipeline_executable_properties: only seconds of compiling are printed");
    }
    if run(&listed, &driver, &arguments) { ExitCode::SUCCESS } else { ExitCode::from(SOME_FAILED) }
}

fn read_arguments(mut given: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut read = Arguments::default();
    while let Some(argument) = given.next() {
        let mut value = |what: &str| given.next().ok_or(format!("{argument} needs {what}"));
        match argument.as_str() {
            "--device" => {
                let number = value("a number")?;
                read.device = Some(number.parse().map_err(|_| format!("--device: '{number}' is no number"))?);
            }
            "--shader" => read.shader = Some((value("a file")?.into(), value("an entry point")?)),
            "--name" => read.name = Some(value("a name")?),
            "--isolate" => read.isolate = true,
            "--keep-layouts" => read.keep_layouts = true,
            _ if argument.starts_with('-') || read.folder.is_some() => return Err(format!("unknown argument '{argument}'")),
            _ => read.folder = Some(argument.into()),
        }
    }
    Ok(read)
}

/// Compiles all kernels on all cores and prints their lines as they come; whether all compiled.
fn run(listed: &[Kernel], driver: &vulkan::Driver, arguments: &Arguments) -> bool {
    let (next, all_compiled, output) = (AtomicUsize::new(0), AtomicBool::new(true), Mutex::new(std::io::stdout()));
    let work = || {
        while let Some(kernel) = listed.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = if arguments.isolate { in_child(kernel, arguments) } else { compiled(kernel, driver, arguments.keep_layouts) };
            let line = result.unwrap_or_else(|error| json!({ "kernel": kernel.name, "entry": kernel.entry, "error": error }));
            if line.get("error").is_some() {
                all_compiled.store(false, Ordering::Relaxed);
            }
            let mut output = output.lock().unwrap_or_else(|broken| broken.into_inner());
            // Whoever reads may stop reading.
            let _ = writeln!(output, "{line}").and_then(|()| output.flush());
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    all_compiled.into_inner()
}

/// The line of a kernel that this process compiles.
fn compiled(kernel: &Kernel, driver: &vulkan::Driver, keep_layouts: bool) -> Result<Value, String> {
    let source = std::fs::read_to_string(&kernel.file).map_err(|error| format!("{}: {error}", kernel.file.display()))?;
    let (module, info) = spirv::parse(&kernel.file.display().to_string(), &source)?;
    let mut words = spirv::words(&module, &info, &kernel.entry, driver.spirv(), spirv::Checks::None)?;
    if !keep_layouts {
        words = spirv::without_needless_layouts(&words);
    }
    let compiled = driver.compile(&words, &kernel.entry, &kernels::bindings(&module, &info, &kernel.entry)?)?;
    let mut line = json!({ "kernel": kernel.name, "entry": kernel.entry, "compile_s": compiled.seconds });
    statistics::add(&mut line, &compiled.executables);
    Ok(line)
}

/// The line of a kernel that a process of its own compiles, so that a driver that crashes takes no other kernel along.
fn in_child(kernel: &Kernel, arguments: &Arguments) -> Result<Value, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program cannot be found: {error}"))?;
    let mut command = Command::new(program);
    command.arg("--shader").arg::<&Path>(&kernel.file).args([&kernel.entry, "--name", &kernel.name]);
    if let Some(device) = arguments.device {
        command.args(["--device", &device.to_string()]);
    }
    if arguments.keep_layouts {
        command.arg("--keep-layouts");
    }
    let output = command.output().map_err(|error| format!("starting a process: {error}"))?;
    let line = output.stdout.split(|byte| *byte == b'\n').next().unwrap_or_default();
    serde_json::from_slice(line).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("the process ended with {}: {}", output.status, said.lines().last().unwrap_or_default())
    })
}
