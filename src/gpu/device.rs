//! An opened device: limits, memory budget, fault reporting and plain transfers.

use super::adapter;
use super::buffers::DeviceBuffer;
use super::memory::Meter;
use super::pacing::{self, Grid};
use super::pipeline_cache::PipelineCache;
use super::pipelines::Pipelines;
use super::{AdapterDescription, GpuError, robust, spirv};
use crate::kernels::{Choices, DeviceClass, MatrixUnits, Target};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Most bytes of the staging buffer through which [`Gpu::read`] reads.
pub const STAGING_BYTES: u64 = 4 << 20;

/// How to open a device.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// An index, a backend or part of a name, as `--device` takes it.
    pub device: Option<String>,
    /// Use the kernels for this class instead of those that suit the adapter; `NIN_WGPU_KERNELS=cpu|integrated|discrete` does the same.
    pub class: Option<DeviceClass>,
    /// [`MatrixUnits::None`] or [`MatrixUnits::Emulated`] instead of what the adapter has, in half precision.
    pub matrix_units: Option<MatrixUnits>,
    /// Ask for timestamps where the adapter has them: for measuring only.
    pub timestamps: bool,
    /// How long a submission may take before it is cut, instead of what suits the adapter; `NIN_WGPU_SUBMIT_MS` does the
    /// same, in milliseconds.
    pub longest_submission: Option<Duration>,
    /// Most bytes that the program's buffers may take together.
    pub memory_budget: Option<u64>,
}

/// An adapter opened for work. Cheap to share by reference; all methods take `&self`.
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) pipelines: Pipelines,
    pub(super) pipeline_cache: Option<PipelineCache>,
    pub(super) grid: Grid,
    /// What SPIR-V to write, where the device takes it as it is.
    pub(super) spirv: Option<spirv::Device>,
    adapter: AdapterDescription,
    target: Target,
    uniform_alignment: u64,
    has_timestamps: bool,
    is_robust: bool,
    /// Seconds that a submission should not exceed, where anything watches.
    longest_submission: Option<f64>,
    /// What is worth knowing about how the device was opened.
    details: Vec<String>,
    /// Nanoseconds that calls have waited for the device.
    waited: AtomicU64,
    /// Nanoseconds that calls have compiled kernels.
    pub(super) compiled: AtomicU64,
    /// Submissions of programs.
    submissions: AtomicU64,
    faults: Arc<Mutex<Option<GpuError>>>,
    pub(super) meter: Arc<Meter>,
}

impl Gpu {
    /// Opens an adapter with its own limits, or with WebGPU's defaults and no features where
    /// `NIN_WGPU_DEFAULT_LIMITS=1`.
    pub fn open(options: &OpenOptions) -> Result<Self, GpuError> {
        let longest_submission = match options.longest_submission {
            Some(limit) => Some(Some(limit.as_secs_f64())),
            None => pacing::longest_submission_from_env()?,
        };
        let (index, chosen) = adapter::choose(options.device.as_deref())?;
        let mut wanted = adapter::FEATURES | wgpu::Features::PIPELINE_CACHE | wgpu::Features::PASSTHROUGH_SHADERS;
        wanted.set(wgpu::Features::TIMESTAMP_QUERY, options.timestamps);
        let (limits, features) = adapter::limits_and_features(&chosen, wanted);
        let description = adapter::describe(index, &chosen);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("nin-wgpu"),
            required_limits: limits.clone(),
            required_features: features,
            experimental_features: adapter::experimental(features),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let is_robust = robust::is_wanted()?;
        let (device, queue) = if is_robust {
            let opened = pollster::block_on(chosen.request_device(&descriptor));
            opened.map_err(|e| GpuError::Refused(format!("{} could not be opened: {e}", description.name)))?
        } else {
            robust::open_without(&chosen, &descriptor)?
        };

        let faults = Arc::new(Mutex::new(None));
        let on_error = Arc::clone(&faults);
        device.on_uncaptured_error(Arc::new(move |error| {
            let fault = match error {
                wgpu::Error::OutOfMemory { .. } => GpuError::OutOfMemory("allocating a buffer".into()),
                wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
                    GpuError::Refused(one_line(&description))
                }
            };
            record(&on_error, fault);
        }));
        let on_lost = Arc::clone(&faults);
        device.set_device_lost_callback(move |reason, message| {
            let message = one_line(&message);
            record_loss(&on_lost, if message.is_empty() { format!("{reason:?}").to_lowercase() } else { message });
        });
        let mut target = Target { memory_budget: options.memory_budget, ..adapter::target(&chosen, &limits, features, options.class) };
        if let Some(units @ (MatrixUnits::None | MatrixUnits::Emulated)) = options.matrix_units
            && target.f16
        {
            target.matrix_units = units;
        }
        let info = chosen.get_info();
        let (pipeline_cache, cache_note) = PipelineCache::open(&device, &info).unzip();
        let alignment = limits.min_uniform_buffer_offset_alignment;
        Ok(Gpu {
            pipelines: Pipelines::default(),
            pipeline_cache,
            grid: Grid::new(&device, &queue, alignment),
            spirv: adapter::spirv_device(&chosen, features),
            longest_submission: longest_submission.unwrap_or_else(|| pacing::longest_submission(info.device_type)),
            details: cache_note.into_iter().collect(),
            target,
            is_robust,
            meter: Arc::default(),
            has_timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            waited: AtomicU64::new(0),
            compiled: AtomicU64::new(0),
            submissions: AtomicU64::new(0),
            uniform_alignment: alignment.into(),
            adapter: description,
            device,
            queue,
            faults,
        })
    }

    /// The adapter behind the device.
    pub fn adapter(&self) -> &AdapterDescription {
        &self.adapter
    }

    /// The facts that kernels are chosen by.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Fails where the device, as it was opened, does not compute in half precision.
    pub fn require_f16(&self) -> Result<(), GpuError> {
        if self.target.f16 {
            return Ok(());
        }
        Err(GpuError::MissingFeature { adapter: self.adapter.name.clone(), feature: "SHADER_F16" })
    }

    /// From now on no kernel is for matrix units.
    pub fn forbid_matrix_units(&mut self) {
        self.target.matrix_units = MatrixUnits::None;
    }

    /// From now on convolutions are lowered as `choices` say, where they apply.
    pub fn use_choices(&mut self, choices: Choices) {
        self.target.choices = Arc::new(choices);
    }

    /// As [`Gpu::target`], with what is left of the memory budget beside the buffers there are but for `reused` bytes of them.
    pub fn remaining_target(&self, reused: u64) -> Target {
        let in_use = self.memory().bytes.saturating_sub(reused);
        let memory_budget = self.target.memory_budget.map(|budget| budget.saturating_sub(in_use));
        Target { memory_budget, ..self.target.clone() }
    }

    /// Whether kernels can be timed by the device's own clock; see [`OpenOptions::timestamps`].
    pub fn has_timestamps(&self) -> bool {
        self.has_timestamps
    }

    /// Whether the device was opened as wgpu opens it: on Vulkan with robust buffer access, which
    /// `NIN_WGPU_ROBUST_ACCESS=off` leaves out.
    pub fn is_robust(&self) -> bool {
        self.is_robust
    }

    /// What is worth knowing about how the device was opened, a line each.
    pub fn details(&self) -> &[String] {
        &self.details
    }

    /// Keeps compiled pipelines for the next run where the driver can hand them out; a line on what was done, if
    /// anything. That it could not be done is no failure.
    pub fn save_pipelines(&self) -> Option<String> {
        self.pipeline_cache.as_ref().filter(|_| self.has_pipelines())?.save()
    }

    /// Seconds that a submission should not exceed; `None` where no watchdog looks on.
    pub(super) fn longest_submission(&self) -> Option<f64> {
        self.longest_submission
    }

    /// How long calls have waited for the device since it was opened.
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }

    /// How long calls have made pipelines since the device was opened, by the clock on the wall: reading and translating
    /// shaders, and the driver's compiler unless it waits for a kernel's first run. Kernels that are compiled in parallel
    /// count once.
    pub fn compiled(&self) -> Duration {
        Duration::from_nanos(self.compiled.load(Ordering::Relaxed))
    }

    /// How often programs have been submitted: once a step, unless that takes long ([`OpenOptions::longest_submission`]).
    pub fn submissions(&self) -> u64 {
        self.submissions.load(Ordering::Relaxed)
    }

    /// Submits work of a program.
    pub(super) fn submit(&self, commands: wgpu::CommandBuffer) -> wgpu::SubmissionIndex {
        self.submissions.fetch_add(1, Ordering::Relaxed);
        self.queue.submit([commands])
    }

    /// Alignment of offsets into uniform buffers, in bytes.
    pub(super) fn uniform_alignment(&self) -> u64 {
        self.uniform_alignment
    }

    /// The first fault since the device was opened, if any: that the device is lost before all that follows from it.
    pub fn check(&self) -> Result<(), GpuError> {
        match self.fault() {
            None => Ok(()),
            Some(refused @ GpuError::Refused(_)) => Err(self.behind(refused)),
            Some(fault) => Err(fault),
        }
    }

    /// What is behind a refusal: calls on a device that is being lost are refused a moment before anybody is told that it is.
    fn behind(&self, refused: GpuError) -> GpuError {
        for _ in 0..10 {
            if let Some(lost @ GpuError::DeviceLost(_)) = self.fault() {
                return lost;
            }
            std::thread::sleep(Duration::from_millis(10));
            // The news come while the device is asked for its state; what that state is does not matter here.
            let _ = self.device.poll(wgpu::PollType::Poll);
        }
        self.fault().unwrap_or(refused)
    }

    fn fault(&self) -> Option<GpuError> {
        match self.faults.lock() {
            Ok(fault) => fault.clone(),
            Err(_) => Some(GpuError::Refused("an earlier failure left the device in an unknown state".into())),
        }
    }

    /// Gives the device up: from now on it behaves as one that was lost. For seeing what follows.
    pub fn lose(&self) {
        self.device.destroy();
    }

    /// Writes bytes to a buffer, in order with submitted work.
    pub fn write(&self, buffer: &DeviceBuffer, offset: u64, bytes: &[u8]) {
        self.queue.write_buffer(&buffer.0, offset, bytes);
    }

    /// Waits for all submitted work and returns the first `bytes` bytes of a buffer, which come through a staging buffer of
    /// at most [`STAGING_BYTES`].
    pub fn read(&self, buffer: &DeviceBuffer, bytes: u64) -> Result<Vec<u8>, GpuError> {
        let size = bytes.next_multiple_of(4).clamp(4, STAGING_BYTES);
        let _claim = self.claim(size);
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("readback"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut read = Vec::with_capacity(bytes as usize);
        while (read.len() as u64) < bytes {
            let (from, part) = (read.len() as u64, size.min(bytes - read.len() as u64));
            let mut encoder = self.device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(&buffer.0, from, &staging, 0, part.next_multiple_of(4));
            self.queue.submit([encoder.finish()]);
            staging.map_async(wgpu::MapMode::Read, .., |_| {});
            self.wait()?;
            let view = staging.get_mapped_range(..).map_err(|e| self.refused("reading back", e))?;
            read.extend_from_slice(&view[..part as usize]);
            drop(view);
            staging.unmap();
        }
        Ok(read)
    }

    /// Waits until all submitted work is done.
    pub fn wait(&self) -> Result<(), GpuError> {
        self.wait_for(None)
    }

    pub(super) fn wait_for(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<(), GpuError> {
        let started = Instant::now();
        let polled = self.device.poll(wgpu::PollType::Wait { submission_index, timeout: None });
        self.waited.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        polled.map_err(|e| GpuError::DeviceLost(e.to_string()))?;
        self.check()
    }

    /// Why the device refused a call: the fault that is known, or `error`.
    pub(super) fn refused(&self, what: &str, error: impl std::fmt::Display) -> GpuError {
        self.behind(GpuError::Refused(format!("{what}: {error}")))
    }
}

/// A lost device is behind whatever else goes wrong.
fn record_loss(faults: &Mutex<Option<GpuError>>, reason: String) {
    if let Ok(mut fault) = faults.lock()
        && !matches!(*fault, Some(GpuError::DeviceLost(_)))
    {
        *fault = Some(GpuError::DeviceLost(reason));
    }
}

fn record(faults: &Mutex<Option<GpuError>>, fault: GpuError) {
    if let Ok(mut first) = faults.lock() {
        first.get_or_insert(fault);
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
