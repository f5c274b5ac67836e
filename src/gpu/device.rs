//! An opened device: limits, memory budget, fault reporting and plain transfers.

use super::adapter;
use super::buffers::DeviceBuffer;
use super::pipelines::Pipelines;
use super::{AdapterDescription, GpuError};
use crate::kernels::{Choices, DeviceClass, Target};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How to open a device.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// An index, a backend or part of a name, as `--device` takes it.
    pub device: Option<String>,
    /// Use the kernels for this class instead of those that suit the adapter; `NIN_WGPU_KERNELS=cpu|integrated|discrete` does the same.
    pub class: Option<DeviceClass>,
    /// Ask for timestamps where the adapter has them: for measuring only.
    pub timestamps: bool,
}

/// An adapter opened for work. Cheap to share by reference; all methods take `&self`.
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) pipelines: Pipelines,
    adapter: AdapterDescription,
    target: Target,
    uniform_alignment: u64,
    has_timestamps: bool,
    /// Nanoseconds that calls have waited for the device.
    waited: AtomicU64,
    faults: Arc<Mutex<Option<GpuError>>>,
}

impl Gpu {
    /// Opens an adapter with its own limits, or with WebGPU's defaults and no features where
    /// `NIN_WGPU_DEFAULT_LIMITS=1`.
    pub fn open(options: &OpenOptions) -> Result<Self, GpuError> {
        let (index, chosen) = adapter::choose(options.device.as_deref())?;
        let mut wanted = wgpu::Features::SUBGROUP;
        wanted.set(wgpu::Features::TIMESTAMP_QUERY, options.timestamps);
        let (limits, features) = if std::env::var_os("NIN_WGPU_DEFAULT_LIMITS").is_some_and(|v| v == "1") {
            (wgpu::Limits::default(), wgpu::Features::empty())
        } else {
            (chosen.limits(), chosen.features() & wanted)
        };
        let description = adapter::describe(index, &chosen);
        let (device, queue) = pollster::block_on(chosen.request_device(&wgpu::DeviceDescriptor {
            label: Some("nin-wgpu"),
            required_limits: limits.clone(),
            required_features: features,
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        }))
        .map_err(|e| GpuError::Refused(format!("{} could not be opened: {e}", description.name)))?;

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
            if reason != wgpu::DeviceLostReason::Destroyed {
                record(&on_lost, GpuError::DeviceLost(one_line(&message)));
            }
        });
        Ok(Gpu {
            pipelines: Pipelines::default(),
            target: adapter::target(&chosen, &limits, features, options.class),
            has_timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            waited: AtomicU64::new(0),
            uniform_alignment: limits.min_uniform_buffer_offset_alignment.into(),
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

    /// From now on convolutions are lowered as `choices` say, where they apply.
    pub fn use_choices(&mut self, choices: Choices) {
        self.target.choices = Arc::new(choices);
    }

    /// Whether kernels can be timed by the device's own clock; see [`OpenOptions::timestamps`].
    pub fn has_timestamps(&self) -> bool {
        self.has_timestamps
    }

    /// How long calls have waited for the device since it was opened.
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }

    /// Alignment of offsets into uniform buffers, in bytes.
    pub(super) fn uniform_alignment(&self) -> u64 {
        self.uniform_alignment
    }

    /// The first fault since the device was opened, if any.
    pub fn check(&self) -> Result<(), GpuError> {
        match self.faults.lock().map(|fault| fault.clone()) {
            Ok(None) => Ok(()),
            Ok(Some(fault)) => Err(fault),
            Err(_) => Err(GpuError::Refused("an earlier failure left the device in an unknown state".into())),
        }
    }

    /// Writes bytes to a buffer, in order with submitted work.
    pub fn write(&self, buffer: &DeviceBuffer, offset: u64, bytes: &[u8]) {
        self.queue.write_buffer(&buffer.0, offset, bytes);
    }

    /// Waits for all submitted work and returns the first `bytes` bytes of a buffer.
    pub fn read(&self, buffer: &DeviceBuffer, bytes: u64) -> Result<Vec<u8>, GpuError> {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("readback"),
            size: bytes.next_multiple_of(4),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&buffer.0, 0, &staging, 0, bytes.next_multiple_of(4));
        self.queue.submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        self.wait()?;
        let view = staging.get_mapped_range(..).map_err(|e| GpuError::Refused(format!("reading back: {e}")))?;
        Ok(view[..bytes as usize].to_vec())
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
}

fn record(faults: &Mutex<Option<GpuError>>, fault: GpuError) {
    if let Ok(mut first) = faults.lock() {
        first.get_or_insert(fault);
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
