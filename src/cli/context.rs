//! What every verb shares: the chosen device, how much to say, and where.

use super::error::Failure;
use crate::gpu::{Gpu, GpuError, OpenOptions, probe};
use crate::kernels::{DeviceClass, Target};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::ops::{Deref, DerefMut};

/// How much goes to stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    /// Notes and progress.
    Normal,
    /// Details as well.
    Verbose,
}

/// Colours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint {
    is_on: bool,
}

impl Paint {
    /// No colours.
    #[cfg(test)]
    pub const NONE: Self = Paint { is_on: false };

    /// On for a terminal, unless `NO_COLOR` is set or the terminal is dumb.
    fn for_stream(is_terminal: bool) -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Paint { is_on: is_terminal && !is_dumb && !is_set("NO_COLOR") }
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.is_on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// For failures.
    pub fn red(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    /// For success.
    pub fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// For what matters most.
    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }
}

/// The chosen device, how much to say, and where.
pub struct Context {
    device: Option<String>,
    verbosity: Verbosity,
    stdout_paint: Paint,
    stderr_paint: Paint,
}

impl Context {
    /// For the device that `--device` names. An empty name, as of an empty environment variable, is none.
    pub fn new(device: Option<String>, verbosity: Verbosity) -> Self {
        Context {
            device: device.filter(|name| !name.trim().is_empty()),
            verbosity,
            stdout_paint: Paint::for_stream(io::stdout().is_terminal()),
            stderr_paint: Paint::for_stream(io::stderr().is_terminal()),
        }
    }

    /// Colours for results.
    pub fn paint(&self) -> Paint {
        self.stdout_paint
    }

    /// Whether a progress bar may be drawn on stderr.
    pub fn draws_bars(&self) -> bool {
        self.verbosity > Verbosity::Quiet && io::stderr().is_terminal()
    }

    /// Whether stderr may have colours.
    pub fn has_colour(&self) -> bool {
        self.stderr_paint.is_on
    }

    /// Characters of a line of the terminal that results are printed on; nothing where they go elsewhere.
    pub fn width(&self) -> Option<usize> {
        let is_terminal = io::stdout().is_terminal();
        is_terminal
            .then(ratatui::crossterm::terminal::size)
            .and_then(Result::ok)
            .map(|(columns, _)| columns.into())
            .filter(|width| *width > 0)
    }

    /// Whether the terminal only appends text.
    pub fn is_dumb_terminal(&self) -> bool {
        std::env::var_os("TERM").is_some_and(|term| term == "dumb")
    }

    /// Whether notes are wanted.
    pub fn is_quiet(&self) -> bool {
        self.verbosity == Verbosity::Quiet
    }

    /// Whether details are wanted.
    pub fn is_verbose(&self) -> bool {
        self.verbosity == Verbosity::Verbose
    }

    /// A line on stderr, unless `-q`: one, whatever names of files are in it.
    pub fn note(&self, text: &str) {
        if !self.is_quiet() {
            stderr_line(&crate::errors::one_line(text, 4000));
        }
    }

    /// A line on stderr with `-v`.
    pub fn detail(&self, text: &str) {
        if self.is_verbose() {
            stderr_line(text);
        }
    }

    /// An error as one line on stderr, whatever the message holds.
    pub fn error(&self, message: &str) {
        let message = crate::errors::one_line(message, 4000);
        stderr_line(&format!("{} {message}", self.stderr_paint.red("error:")));
    }

    /// Opens the chosen adapter and says so where it is slow.
    pub fn open_gpu(&self) -> Result<OpenedGpu<'_>, Failure> {
        self.open_gpu_within(None)
    }

    /// As [`Context::open_gpu`], for buffers of at most `memory_budget` bytes together.
    pub fn open_gpu_within(&self, memory_budget: Option<u64>) -> Result<OpenedGpu<'_>, Failure> {
        self.open_gpu_as(OpenOptions { memory_budget, ..Default::default() })
    }

    /// Opens the chosen adapter once more: what there is to say about it was said.
    pub fn reopen_gpu(&self, memory_budget: Option<u64>, timestamps: bool) -> Result<OpenedGpu<'_>, Failure> {
        let options = OpenOptions { device: self.device.clone(), timestamps, memory_budget, ..Default::default() };
        Ok(OpenedGpu { gpu: Gpu::open(&options)?, options, context: self })
    }

    /// What `--device` names.
    pub fn device(&self) -> Option<&str> {
        self.device.as_deref()
    }

    /// As [`Context::open_gpu_within`], with timestamps where the adapter has them.
    pub fn open_gpu_to_measure(&self, memory_budget: Option<u64>) -> Result<OpenedGpu<'_>, Failure> {
        self.open_gpu_as(OpenOptions { timestamps: true, memory_budget, ..Default::default() })
    }

    /// What memory and kernels would be planned by on the chosen adapter, and its name; without any adapter one with WebGPU's
    /// baseline limits is taken, which has no name.
    pub fn planning_target(&self) -> Result<(Target, Option<String>), Failure> {
        match probe(self.device.as_deref()) {
            Ok((adapter, target)) => Ok((target, Some(adapter.name))),
            Err(GpuError::NoAdapter | GpuError::NoBackend { .. }) => Ok((Target::baseline(DeviceClass::Discrete), None)),
            Err(error) => Err(error.into()),
        }
    }

    fn open_gpu_as(&self, options: OpenOptions) -> Result<OpenedGpu<'_>, Failure> {
        let options = OpenOptions { device: self.device.clone(), ..options };
        let gpu = Gpu::open(&options)?;
        let adapter = gpu.adapter();
        if adapter.kind == "cpu" && self.device.is_none() {
            self.note(&format!("note: there is no GPU adapter; using the CPU through {} ({})", adapter.name, adapter.backend));
        } else {
            self.detail(&format!("adapter {}: {} ({}, {})", adapter.index, adapter.name, adapter.backend, adapter.driver));
        }
        gpu.details().iter().for_each(|line| self.detail(line));
        Ok(OpenedGpu { gpu, options, context: self })
    }

    /// Prints one JSON document on stdout.
    pub fn print_json(&self, document: &impl Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_vec(document).map_err(io::Error::from)?;
        text.push(b'\n');
        self.print_bytes(&text)
    }

    /// Prints text on stdout.
    pub fn print(&self, text: &str) -> Result<(), Failure> {
        self.print_bytes(text.as_bytes())
    }

    fn print_bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()?;
        Ok(())
    }
}

/// An adapter opened for a verb. At the verb's end, compiled pipelines are kept for the next run.
pub struct OpenedGpu<'a> {
    gpu: Gpu,
    options: OpenOptions,
    context: &'a Context,
}

impl OpenedGpu<'_> {
    /// Opens the adapter anew, with the same choices of kernels. What was made with the device is of no more use.
    pub fn reopen(&mut self) -> Result<(), Failure> {
        let choices = self.gpu.target().choices.as_ref().clone();
        self.gpu = Gpu::open(&self.options)?;
        self.gpu.use_choices(choices);
        Ok(())
    }
}

impl Deref for OpenedGpu<'_> {
    type Target = Gpu;

    fn deref(&self) -> &Gpu {
        &self.gpu
    }
}

impl DerefMut for OpenedGpu<'_> {
    fn deref_mut(&mut self) -> &mut Gpu {
        &mut self.gpu
    }
}

impl Drop for OpenedGpu<'_> {
    fn drop(&mut self) {
        if let Some(line) = self.gpu.save_pipelines() {
            self.context.detail(&line);
        }
    }
}

/// A line on stderr. There is nowhere to report that stderr is closed, so that is no failure.
pub fn stderr_line(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_stay_away_from_files() {
        let paint = Paint::for_stream(false);
        assert_eq!(paint.red("x") + &paint.green("y") + &paint.bold("z"), "xyz");
        assert_eq!(Paint { is_on: true }.bold("z"), "\x1b[1mz\x1b[0m");
    }

    #[test]
    fn an_empty_device_is_none() {
        assert_eq!(Context::new(Some(" ".into()), Verbosity::Normal).device, None);
    }
}
