//! How much memory the program's buffers take on the device: each is counted from its creation to its end.

use super::{Gpu, GpuError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the bytes of an opened device's buffers.
#[derive(Debug, Default)]
pub(super) struct Meter {
    in_use: AtomicU64,
    peak: AtomicU64,
    buffers: AtomicU64,
}

/// The bytes of one buffer, counted as long as this lives.
#[derive(Debug)]
pub(super) struct Claim {
    meter: Arc<Meter>,
    bytes: u64,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.meter.in_use.fetch_sub(self.bytes, Ordering::Relaxed);
        self.meter.buffers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of the program's buffers on a device, without what the driver and wgpu keep for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryInUse {
    /// Of those there are now.
    pub bytes: u64,
    /// The most at any time since the device was opened.
    pub peak_bytes: u64,
    /// How many buffers and textures there are now.
    pub buffers: u64,
}

impl Gpu {
    /// What the program's buffers take.
    pub fn memory(&self) -> MemoryInUse {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MemoryInUse { bytes: load(&self.meter.in_use), peak_bytes: load(&self.meter.peak), buffers: load(&self.meter.buffers) }
    }

    /// Bytes that wgpu's allocator has handed out, its own buffers for uploads included; `None` where the backend cannot tell.
    pub fn allocated_bytes(&self) -> Option<u64> {
        self.device.generate_allocator_report().map(|report| report.total_allocated_bytes)
    }

    /// Counts a buffer of `bytes` bytes that is about to be created.
    pub(super) fn claim(&self, bytes: u64) -> Claim {
        let in_use = self.meter.in_use.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.meter.peak.fetch_max(in_use, Ordering::Relaxed);
        self.meter.buffers.fetch_add(1, Ordering::Relaxed);
        Claim { meter: Arc::clone(&self.meter), bytes }
    }

    /// As [`Gpu::claim`]; fails where the memory budget does not allow it.
    pub(super) fn claim_within_budget(&self, what: &str, bytes: u64) -> Result<Claim, GpuError> {
        let in_use = self.memory().bytes;
        match self.target().memory_budget {
            Some(budget) if in_use + bytes > budget => Err(GpuError::OverBudget { what: what.to_string(), bytes, in_use, budget }),
            _ => Ok(self.claim(bytes)),
        }
    }
}
