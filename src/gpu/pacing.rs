//! Keeps submissions short, so that no driver's watchdog takes the device for hung.
//!
//! Windows, macOS and several Linux drivers reset a GPU that does not finish a piece of work within seconds, and a
//! desktop stutters long before. Work that takes longer than a limit is cut into several submissions, and a dispatch
//! that does so alone into ranges of workgroups, which `shaders/shared/grid.wgsl` undoes: every kernel computes the
//! same either way, so that results do not depend on what was measured. How long dispatches take is measured in a
//! program's first runs, one submission each; before, it is guessed from their multiply-adds for a slow GPU, and
//! programs that are nothing even to a slow GPU are never measured.

use super::{Gpu, GpuError};
use crate::variables;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Seconds that a submission should not exceed on a GPU.
const LONGEST: f64 = 0.1;
/// Multiply-adds per second of a slow GPU.
const SLOW: f64 = 10e9;
/// Runs of a program that are measured; the fastest of each dispatch counts, because the first may compile.
const MEASURED_RUNS: usize = 2;
/// Programs that take this share of the limit by the guess are measured: a step may run several.
const NOT_MEASURED: f64 = 0.125;
/// Most parts of a dispatch.
const MOST_PARTS: u32 = 256;

/// Seconds that a submission to such a device should not exceed. No watchdog looks on CPUs.
pub(super) fn longest_submission(kind: wgpu::DeviceType) -> Option<f64> {
    (kind != wgpu::DeviceType::Cpu).then_some(LONGEST)
}

/// What `NIN_WGPU_SUBMIT_MS` says, if it is there: a limit in milliseconds for any device, or 0 for none.
pub(super) fn longest_submission_from_env() -> Result<Option<Option<f64>>, GpuError> {
    let limit = variables::SUBMIT_MS.checked()?.and_then(|value| value.parse::<f64>().ok());
    Ok(limit.map(|limit| (limit > 0.0).then_some(limit / 1e3)))
}

/// Bind group 1 of every kernel: where a part of a dispatch begins.
pub(super) struct Grid {
    pub layout: wgpu::BindGroupLayout,
    /// For dispatches that run whole.
    pub whole: wgpu::BindGroup,
    stride: u32,
}

/// Bytes of the uniform in `shaders/shared/grid.wgsl`.
const UNIFORM_BYTES: u64 = 16;

impl Grid {
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue, alignment: u32) -> Self {
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some("grid"),
            entries: &[wgpu::BindGroupLayoutEntry {
                binding: 0,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer { ty: wgpu::BufferBindingType::Uniform, has_dynamic_offset: true, min_binding_size: None },
                count: None,
            }],
        });
        let stride = (UNIFORM_BYTES as u32).next_multiple_of(alignment);
        let whole = group(device, queue, &layout, stride, &[0]);
        Grid { layout, whole, stride }
    }
}

/// A bind group that says at offset `n * stride` that a part begins at workgroup `firsts[n]`.
fn group(device: &wgpu::Device, queue: &wgpu::Queue, layout: &wgpu::BindGroupLayout, stride: u32, firsts: &[u32]) -> wgpu::BindGroup {
    let mut bytes = vec![0; firsts.len() * stride as usize];
    for (first, entry) in firsts.iter().zip(bytes.chunks_mut(stride as usize)) {
        entry[..4].copy_from_slice(&first.to_le_bytes());
    }
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("grid"),
        size: bytes.len() as u64,
        usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    queue.write_buffer(&buffer, 0, &bytes);
    let size = std::num::NonZeroU64::new(UNIFORM_BYTES);
    let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: &buffer, offset: 0, size });
    device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("grid"),
        layout,
        entries: &[wgpu::BindGroupEntry { binding: 0, resource }],
    })
}

/// What pacing knows of a dispatch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Workgroups in each dimension.
    pub workgroups: [u32; 3],
    /// Multiply-adds.
    pub macs: u64,
    /// Whether it may run in parts.
    pub divisible: bool,
}

/// A range of a dispatch's workgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Number of its first workgroup.
    pub first: u32,
    /// Workgroups in each dimension.
    pub workgroups: [u32; 3],
    /// Offset into the bind group of the program's [`Cuts`].
    pub offset: u32,
}

/// How the dispatches of a program are cut.
pub(super) struct Cuts {
    /// Seconds of each dispatch as far as is known.
    pub seconds: Vec<f64>,
    /// Parts of each dispatch, at least one.
    pub parts: Vec<Vec<Part>>,
    /// Bind group 1 for the parts; [`Grid::whole`] where every dispatch runs whole.
    pub group: Option<wgpu::BindGroup>,
}

impl Cuts {
    fn new(gpu: &Gpu, extents: &[Extent], seconds: Vec<f64>) -> Self {
        let longest = gpu.longest_submission().unwrap_or(f64::INFINITY);
        let mut firsts = vec![0];
        let mut parts = Vec::new();
        for (extent, seconds) in extents.iter().zip(&seconds) {
            let mut cut = cut(extent, (seconds / longest).ceil());
            for part in cut.iter_mut().filter(|part| part.first > 0) {
                part.offset = firsts.len() as u32 * gpu.grid.stride;
                firsts.push(part.first);
            }
            parts.push(cut);
        }
        let group = (firsts.len() > 1).then(|| group(&gpu.device, &gpu.queue, &gpu.grid.layout, gpu.grid.stride, &firsts));
        Cuts { seconds, parts, group }
    }
}

/// Cuts a dispatch into about so many parts of whole rows, or of a row where there is but one.
fn cut(extent: &Extent, wanted: f64) -> Vec<Part> {
    let [columns, rows, layers] = extent.workgroups;
    let (units, unit) = if rows == 1 { (columns, 1) } else { (rows, columns) };
    let may_cut = extent.divisible && layers == 1;
    let count = if may_cut { (wanted.clamp(1.0, f64::from(MOST_PARTS)) as u32).min(units).max(1) } else { 1 };
    let start = |part: u32| (u64::from(units) * u64::from(part) / u64::from(count)) as u32;
    let parts = (0..count).map(|part| {
        let length = start(part + 1) - start(part);
        let workgroups = if rows == 1 { [length, 1, layers] } else { [columns, length, layers] };
        Part { first: start(part) * unit, workgroups, offset: 0 }
    });
    parts.collect()
}

/// How a program is cut, and how far its dispatches have been measured.
pub(super) struct Pace {
    extents: Vec<Extent>,
    state: Mutex<(Arc<Cuts>, usize)>,
}

impl Pace {
    /// For dispatches that nobody has run yet.
    pub fn new(gpu: &Gpu, extents: Vec<Extent>) -> Self {
        let guessed: Vec<f64> = extents.iter().map(|extent| extent.macs as f64 / SLOW).collect();
        let longest = gpu.longest_submission().unwrap_or(f64::INFINITY);
        let measured = if guessed.iter().sum::<f64>() > NOT_MEASURED * longest { 0 } else { MEASURED_RUNS };
        let cuts = Arc::new(Cuts::new(gpu, &extents, guessed));
        Pace { extents, state: Mutex::new((cuts, measured)) }
    }

    /// How to cut the next run.
    pub fn cuts(&self) -> Arc<Cuts> {
        Arc::clone(&self.lock().0)
    }

    /// Whether the next run should be measured, a submission for each part.
    pub fn wants_measuring(&self) -> bool {
        self.lock().1 < MEASURED_RUNS
    }

    /// Takes the seconds of each dispatch in a run that was measured.
    pub fn learn(&self, gpu: &Gpu, seconds: &[f64]) {
        let mut state = self.lock();
        if state.1 >= MEASURED_RUNS {
            return;
        }
        let known = state.0.seconds.iter().map(|known| if state.1 == 0 { f64::INFINITY } else { *known });
        let fastest = known.zip(seconds).map(|(known, seconds)| known.min(*seconds)).collect();
        *state = (Arc::new(Cuts::new(gpu, &self.extents, fastest)), state.1 + 1);
    }

    /// What a thread that panicked left is whole: it is replaced at once.
    fn lock(&self) -> MutexGuard<'_, (Arc<Cuts>, usize)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every workgroup of a dispatch, in the numbers that its parts give them.
    fn numbers(parts: &[Part]) -> Vec<u32> {
        let of = |part: &Part| {
            let [columns, rows, layers] = part.workgroups;
            part.first..part.first + columns * rows * layers
        };
        parts.iter().flat_map(of).collect()
    }

    #[test]
    fn parts_hold_every_workgroup_once() {
        for workgroups in [[1, 1, 1], [7, 1, 1], [65_535, 1, 1], [40_000, 2, 1], [9_999, 300, 1]] {
            for wanted in [0.0, 1.0, 2.0, 3.5, 64.0, 1e9, f64::INFINITY] {
                let parts = cut(&Extent { workgroups, macs: 0, divisible: true }, wanted);
                let total: u32 = workgroups.iter().product();
                assert!(numbers(&parts).into_iter().eq(0..total), "{workgroups:?} in {wanted}");
                let units = if workgroups[1] == 1 { workgroups[0] } else { workgroups[1] };
                assert_eq!(parts.len() as f64, wanted.floor().clamp(1.0, f64::from(units.min(MOST_PARTS))));
            }
        }
    }

    #[test]
    fn what_cannot_be_cut_runs_whole() {
        assert_eq!(cut(&Extent { workgroups: [9, 1, 1], macs: 0, divisible: false }, 4.0).len(), 1);
        assert_eq!(cut(&Extent { workgroups: [9, 2, 3], macs: 0, divisible: true }, 4.0).len(), 1);
    }

    #[test]
    fn only_cpus_have_no_watchdog() {
        assert_eq!(longest_submission(wgpu::DeviceType::Cpu), None);
        for kind in [wgpu::DeviceType::DiscreteGpu, wgpu::DeviceType::IntegratedGpu, wgpu::DeviceType::Other] {
            assert_eq!(longest_submission(kind), Some(LONGEST));
        }
    }
}
