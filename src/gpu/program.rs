//! A schedule made ready for a device, and its execution: one compute pass and one submit, unless that takes so long
//! that a watchdog might fire ([`super::pacing`]).

use super::memory::Claim;
use super::pacing::{Cuts, Extent, Pace, Part};
use super::pipelines::Pipeline;
use super::{Buffers, DeviceBuffer, Gpu, GpuError};
use crate::kernels::{BindingKind, Kernel, Step};
use crate::passes::{Pass, ScheduledDispatch};
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Most workgroups in one dimension that every adapter allows.
const MAX_WORKGROUPS: u64 = 65_535;

/// The per-step values of every micro-batch of a step, in one uniform buffer.
pub struct StepUniforms {
    buffer: wgpu::Buffer,
    stride: u64,
    count: usize,
    _claim: Claim,
}

impl StepUniforms {
    /// Room for `count` micro-batches.
    pub fn new(gpu: &Gpu, count: usize) -> Self {
        let stride = (size_of::<Step>() as u64).next_multiple_of(gpu.uniform_alignment());
        let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("step"),
            size: stride * count as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        StepUniforms { buffer, stride, count, _claim: gpu.claim(stride * count as u64) }
    }

    /// Micro-batches of a step.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Sets the values for the next submit.
    pub fn write(&self, gpu: &Gpu, steps: &[Step]) {
        assert!(steps.len() <= self.count, "{} micro-batches, room for {}", steps.len(), self.count);
        let mut bytes = vec![0; steps.len() * self.stride as usize];
        for (step, chunk) in steps.iter().zip(bytes.chunks_mut(self.stride as usize)) {
            chunk[..size_of::<Step>()].copy_from_slice(bytemuck::bytes_of(step));
        }
        gpu.queue.write_buffer(&self.buffer, 0, &bytes);
    }
}

/// Dispatches with their pipelines and bind groups.
pub struct Program {
    pub(super) dispatches: Vec<Prepared>,
    pub(super) pace: Pace,
    /// Of the buffer of constants, which the bind groups keep.
    _claim: Claim,
}

/// A dispatch ready to be encoded, and what it belongs to.
pub(super) struct Prepared {
    pub path: String,
    pub pass: Pass,
    pub kernel: &'static Kernel,
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    has_step: bool,
    pub extent: Extent,
}

impl Program {
    /// Compiles the kernels, uploads their constants and makes the bind groups.
    pub fn new(gpu: &Gpu, dispatches: &[ScheduledDispatch], buffers: &Buffers, steps: &StepUniforms) -> Result<Self, GpuError> {
        let kernels: Vec<_> = dispatches.iter().map(|d| d.dispatch.kernel).collect();
        let pipelines = gpu.compile(&kernels)?;

        let alignment = gpu.uniform_alignment() as usize;
        let mut constants = Vec::new();
        let mut offsets = Vec::new();
        for entry in dispatches {
            offsets.push(constants.len() as u64);
            constants.extend_from_slice(&entry.dispatch.params);
            constants.resize(constants.len().next_multiple_of(alignment), 0);
        }
        let size = constants.len().max(16) as u64;
        let params = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        gpu.queue.write_buffer(&params, 0, &constants);

        let mut prepared = Vec::new();
        for ((entry, pipeline), offset) in dispatches.iter().zip(pipelines).zip(offsets) {
            let bind_group = bind_group(gpu, entry, &pipeline, buffers, (&params, offset), steps)?;
            prepared.push(Prepared {
                path: entry.path.clone(),
                pass: entry.pass,
                kernel: entry.dispatch.kernel,
                pipeline,
                bind_group,
                has_step: entry.dispatch.kernel.bindings.iter().any(|b| b.kind == BindingKind::Step),
                extent: Extent {
                    workgroups: fold(entry.dispatch.workgroups),
                    macs: entry.macs,
                    divisible: entry.dispatch.kernel.divisible,
                },
            });
        }
        let pace = Pace::new(gpu, prepared.iter().map(|dispatch| dispatch.extent).collect());
        gpu.check()?;
        Ok(Program { dispatches: prepared, pace, _claim: gpu.claim(size) })
    }

    /// Whether any of its kernels multiplies on the device's matrix units.
    pub fn uses_matrix_units(&self) -> bool {
        self.dispatches.iter().any(|dispatch| dispatch.kernel.matrices)
    }
}

impl Prepared {
    /// Runs the whole dispatch.
    pub(super) fn encode(&self, gpu: &Gpu, pass: &mut wgpu::ComputePass<'_>, step_offset: u32) {
        pass.set_bind_group(1, &gpu.grid.whole, &[0]);
        self.encode_part(pass, step_offset, self.extent.workgroups);
    }

    /// Runs the part that bind group 1 says.
    fn encode_part(&self, pass: &mut wgpu::ComputePass<'_>, step_offset: u32, workgroups: [u32; 3]) {
        pass.set_pipeline(&self.pipeline.pipeline);
        let offsets: &[u32] = if self.has_step { &[step_offset] } else { &[] };
        pass.set_bind_group(0, &self.bind_group, offsets);
        let [x, y, z] = workgroups;
        pass.dispatch_workgroups(x, y, z);
    }
}

fn bind_group(
    gpu: &Gpu,
    entry: &ScheduledDispatch,
    pipeline: &Pipeline,
    buffers: &Buffers,
    (params, params_offset): (&wgpu::Buffer, u64),
    steps: &StepUniforms,
) -> Result<wgpu::BindGroup, GpuError> {
    let label = format!("{} {}", entry.path, entry.dispatch.kernel.name());
    let mut regions = entry.dispatch.buffers.iter();
    let mut entries = Vec::new();
    for binding in entry.dispatch.kernel.bindings {
        let (buffer, offset, bytes) = match binding.kind {
            BindingKind::Params => (params, params_offset, entry.dispatch.params.len() as u64),
            BindingKind::Step => (&steps.buffer, 0, size_of::<Step>() as u64),
            BindingKind::Texture | BindingKind::TextureWrite => {
                let Some(view) = regions.next().and_then(|region| buffers.texture(region.buffer)) else {
                    return Err(GpuError::Refused(format!("{label}: no texture for {}", binding.name)));
                };
                entries.push(wgpu::BindGroupEntry { binding: binding.index, resource: wgpu::BindingResource::TextureView(view) });
                continue;
            }
            BindingKind::Read | BindingKind::ReadWrite => {
                let found = regions.next().and_then(|region| Some((&buffers.get(region.buffer)?.0, region)));
                let Some((buffer, region)) = found else {
                    return Err(GpuError::Refused(format!("{label}: no buffer for {}", binding.name)));
                };
                (buffer, region.offset, region.bytes)
            }
        };
        let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: NonZeroU64::new(bytes) });
        entries.push(wgpu::BindGroupEntry { binding: binding.index, resource });
    }
    Ok(gpu.device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some(&label), layout: &pipeline.layout, entries: &entries }))
}

/// Folds a linear count of workgroups into two dimensions; kernels undo it (`shaders/shared/grid.wgsl`).
fn fold(workgroups: u64) -> [u32; 3] {
    let rows = workgroups.div_ceil(MAX_WORKGROUPS).max(1);
    [workgroups.div_ceil(rows).max(1) as u32, rows as u32, 1]
}

/// Commands of the next submission.
struct Recording {
    encoder: wgpu::CommandEncoder,
    pass: Option<wgpu::ComputePass<'static>>,
    /// Bind group 1 and its offset, as the pass has them.
    grid: Option<(wgpu::BindGroup, u32)>,
}

impl Recording {
    fn new(gpu: &Gpu) -> Self {
        Recording { encoder: gpu.device.create_command_encoder(&Default::default()), pass: None, grid: None }
    }

    fn add(&mut self, gpu: &Gpu, prepared: &Prepared, cuts: &Cuts, part: &Part, step_offset: u32) {
        let encoder = &mut self.encoder;
        let pass = self.pass.get_or_insert_with(|| encoder.begin_compute_pass(&Default::default()).forget_lifetime());
        let group = cuts.group.as_ref().unwrap_or(&gpu.grid.whole);
        if self.grid.as_ref().is_none_or(|(set, offset)| (set, *offset) != (group, part.offset)) {
            pass.set_bind_group(1, group, &[part.offset]);
            self.grid = Some((group.clone(), part.offset));
        }
        prepared.encode_part(pass, step_offset, part.workgroups);
    }

    /// Closes the pass, so that copies can follow.
    fn end_pass(&mut self) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        self.grid = None;
        &mut self.encoder
    }

    fn submit(mut self, gpu: &Gpu) -> wgpu::SubmissionIndex {
        self.end_pass();
        gpu.submit(self.encoder.finish())
    }
}

/// Encodes the programs; what would make a submission too long is submitted, the rest is returned.
fn record(gpu: &Gpu, programs: &[(&Program, usize)], stride: u64) -> Recording {
    let longest = gpu.longest_submission().unwrap_or(f64::INFINITY);
    let mut recording = Recording::new(gpu);
    let mut recorded = 0.0;
    for (program, micro_batch) in programs {
        let cuts = program.pace.cuts();
        for ((prepared, parts), seconds) in program.dispatches.iter().zip(&cuts.parts).zip(&cuts.seconds) {
            let seconds = seconds / parts.len() as f64;
            for part in parts {
                if recorded > 0.0 && recorded + seconds > longest {
                    std::mem::replace(&mut recording, Recording::new(gpu)).submit(gpu);
                    recorded = 0.0;
                }
                recording.add(gpu, prepared, &cuts, part, (*micro_batch as u64 * stride) as u32);
                recorded += seconds;
            }
        }
    }
    recording
}

/// Runs every part of the programs in a submission of its own and takes the time of each dispatch.
fn measure(gpu: &Gpu, programs: &[(&Program, usize)], stride: u64) -> Result<Recording, GpuError> {
    gpu.wait()?;
    for (program, micro_batch) in programs {
        let cuts = program.pace.cuts();
        let mut seconds = Vec::new();
        for (prepared, parts) in program.dispatches.iter().zip(&cuts.parts) {
            let started = Instant::now();
            for part in parts {
                let mut recording = Recording::new(gpu);
                recording.add(gpu, prepared, &cuts, part, (*micro_batch as u64 * stride) as u32);
                let submitted = recording.submit(gpu);
                gpu.wait_for(Some(submitted))?;
            }
            seconds.push(started.elapsed().as_secs_f64());
        }
        program.pace.learn(gpu, &seconds);
    }
    Ok(Recording::new(gpu))
}

/// Submissions that may be under way at once; the host waits for the oldest beyond that, which bounds the memory
/// that uploads take and keeps failures close to their cause.
const IN_FLIGHT: usize = 2;

/// A queue of submissions with a bound on how many are under way.
#[derive(Default)]
pub struct Submitter {
    pending: VecDeque<wgpu::SubmissionIndex>,
    /// When submissions were done, where somebody wants to know.
    completions: Option<Arc<Mutex<Vec<Instant>>>>,
}

impl Submitter {
    /// Encodes all programs in one pass, then the copies, and submits once; in several submissions where one would take
    /// longer than a watchdog may wait.
    pub fn submit(
        &mut self,
        gpu: &Gpu,
        programs: &[(&Program, usize)],
        steps: &StepUniforms,
        copies: &[(&DeviceBuffer, &super::Readback)],
    ) -> Result<(), GpuError> {
        let stride = steps.stride;
        let mut recording = if programs.iter().any(|(program, _)| program.pace.wants_measuring()) {
            measure(gpu, programs, stride)?
        } else {
            record(gpu, programs, stride)
        };
        let encoder = recording.end_pass();
        for (from, to) in copies {
            to.record(encoder, from);
        }
        self.pending.push_back(recording.submit(gpu));
        for (_, to) in copies {
            to.request();
        }
        if let Some(completions) = &self.completions {
            let completions = Arc::clone(completions);
            gpu.queue.on_submitted_work_done(move || {
                if let Ok(mut moments) = completions.lock() {
                    moments.push(Instant::now());
                }
            });
            // Some drivers let a submit wait for the one before it, whose end is known now.
            gpu.device.poll(wgpu::PollType::Poll).map_err(|e| GpuError::DeviceLost(e.to_string()))?;
        }
        if self.pending.len() > IN_FLIGHT {
            let oldest = self.pending.pop_front();
            gpu.wait_for(oldest)?;
        }
        gpu.check()
    }

    /// Notes from now on when each submission is done; see [`Submitter::drain`].
    pub fn watch(&mut self) {
        self.completions = Some(Arc::default());
    }

    /// Waits for every submission, one after the other, and returns when each was done since [`Submitter::watch`].
    pub fn drain(&mut self, gpu: &Gpu) -> Result<Vec<Instant>, GpuError> {
        while let Some(oldest) = self.pending.pop_front() {
            gpu.wait_for(Some(oldest))?;
        }
        let completions = self.completions.take();
        Ok(completions.and_then(|moments| moments.lock().ok().map(|moments| moments.clone())).unwrap_or_default())
    }
}
