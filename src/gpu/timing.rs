//! How long each dispatch of a program takes.

use super::program::Prepared;
use super::{Gpu, GpuError, Program};
use crate::kernels::Kernel;
use crate::passes::Pass;
use std::time::Instant;

/// The time of one run of a dispatch, and what it belongs to.
#[derive(Clone, Debug)]
pub struct DispatchTime {
    /// Path of the layer.
    pub path: String,
    /// What it is for.
    pub pass: Pass,
    /// What ran.
    pub kernel: &'static Kernel,
    /// Multiply-adds, as in [`crate::passes::ScheduledDispatch::macs`].
    pub macs: u64,
    /// Seconds.
    pub seconds: f64,
}

/// Dispatches of one submission with two timestamps each: WebGPU's query sets hold 4096.
const MOST_TIMED: usize = 2048;

impl Program {
    /// Runs the program `repeats` times with whatever the buffers hold, and gives each dispatch its median time: by the
    /// device's clock, a pass for each dispatch, where the device has timestamps ([`Gpu::has_timestamps`]); else by the
    /// host's, a submission for each, which adds the cost of submitting and waiting.
    pub fn times(&self, gpu: &Gpu, repeats: usize) -> Result<Vec<DispatchTime>, GpuError> {
        let mut runs = Vec::new();
        for _ in 0..repeats.max(1) {
            runs.push(if gpu.has_timestamps() { self.device_seconds(gpu)? } else { self.host_seconds(gpu)? });
        }
        let times = self.dispatches.iter().enumerate().map(|(index, prepared)| {
            let mut seconds: Vec<f64> = runs.iter().map(|run| run[index]).collect();
            seconds.sort_by(f64::total_cmp);
            DispatchTime {
                path: prepared.path.clone(),
                pass: prepared.pass,
                kernel: prepared.kernel,
                macs: prepared.extent.macs,
                seconds: seconds[seconds.len() / 2],
            }
        });
        Ok(times.collect())
    }

    /// Runs every dispatch by itself, twice in a row, with whatever the buffers hold: the seconds of its first run and of its
    /// second, by the host's clock. Drivers that compile a kernel when it first runs do it within the first.
    pub fn first_runs(&self, gpu: &Gpu) -> Result<Vec<(DispatchTime, DispatchTime)>, GpuError> {
        let time = |prepared: &Prepared| -> Result<DispatchTime, GpuError> {
            Ok(DispatchTime {
                path: prepared.path.clone(),
                pass: prepared.pass,
                kernel: prepared.kernel,
                macs: prepared.extent.macs,
                seconds: self.host_second(gpu, prepared)?,
            })
        };
        self.dispatches.iter().map(|prepared| Ok((time(prepared)?, time(prepared)?))).collect()
    }

    fn device_seconds(&self, gpu: &Gpu) -> Result<Vec<f64>, GpuError> {
        let period = f64::from(gpu.queue.get_timestamp_period()) * 1e-9;
        let mut seconds = Vec::new();
        for timed in self.timed_groups(gpu) {
            let count = 2 * timed.len() as u32;
            let bytes = u64::from(count) * 8;
            let query_set =
                gpu.device.create_query_set(&wgpu::QuerySetDescriptor { label: Some("timestamps"), ty: wgpu::QueryType::Timestamp, count });
            let resolved = gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size: bytes,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            for (prepared, first) in timed.iter().zip((0..count).step_by(2)) {
                let timestamp_writes = wgpu::ComputePassTimestampWrites {
                    query_set: &query_set,
                    beginning_of_pass_write_index: Some(first),
                    end_of_pass_write_index: Some(first + 1),
                };
                let descriptor = wgpu::ComputePassDescriptor { label: Some(&prepared.path), timestamp_writes: Some(timestamp_writes) };
                prepared.encode(gpu, &mut encoder.begin_compute_pass(&descriptor), 0);
            }
            encoder.resolve_query_set(&query_set, 0..count, &resolved, 0);
            gpu.queue.submit([encoder.finish()]);
            let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&gpu.read(&super::DeviceBuffer::new(gpu, resolved), bytes)?);
            seconds.extend(ticks.chunks_exact(2).map(|pair| pair[1].saturating_sub(pair[0]) as f64 * period));
        }
        Ok(seconds)
    }

    /// Neighbours that one submission may hold.
    fn timed_groups(&self, gpu: &Gpu) -> Vec<&[Prepared]> {
        let longest = gpu.longest_submission().unwrap_or(f64::INFINITY);
        let cuts = self.pace.cuts();
        let mut groups = Vec::new();
        let (mut first, mut seconds) = (0, 0.0);
        for (index, next) in cuts.seconds.iter().enumerate() {
            if index > first && (index - first == MOST_TIMED || seconds + next > longest) {
                groups.push(&self.dispatches[first..index]);
                (first, seconds) = (index, 0.0);
            }
            seconds += next;
        }
        groups.push(&self.dispatches[first..]);
        groups
    }

    fn host_seconds(&self, gpu: &Gpu) -> Result<Vec<f64>, GpuError> {
        self.dispatches.iter().map(|prepared| self.host_second(gpu, prepared)).collect()
    }

    fn host_second(&self, gpu: &Gpu, prepared: &Prepared) -> Result<f64, GpuError> {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        prepared.encode(gpu, &mut encoder.begin_compute_pass(&Default::default()), 0);
        let started = Instant::now();
        gpu.queue.submit([encoder.finish()]);
        gpu.wait()?;
        Ok(started.elapsed().as_secs_f64())
    }
}
