//! Device memory: one wgpu buffer per role of a schedule.

use super::{Gpu, GpuError};
use crate::passes::BufferRole;
use std::collections::BTreeMap;

/// A buffer on the device. Clones refer to the same memory.
#[derive(Clone, Debug)]
pub struct DeviceBuffer(pub(super) wgpu::Buffer);

/// The buffers of a schedule, some of them shared with other schedules.
#[derive(Clone, Debug, Default)]
pub struct Buffers {
    by_role: BTreeMap<BufferRole, DeviceBuffer>,
}

impl Gpu {
    /// Allocates a zero-filled buffer that kernels and copies can use.
    pub fn allocate(&self, label: &str, bytes: u64) -> Result<DeviceBuffer, GpuError> {
        let limit = self.target().max_buffer_bytes;
        if bytes > limit {
            return Err(GpuError::OverLimit { what: label.to_string(), bytes, limit });
        }
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes.next_multiple_of(4).max(4),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.check()?;
        Ok(DeviceBuffer(buffer))
    }
}

impl Buffers {
    /// Buffers of the given sizes; roles already in `shared` are taken from there.
    pub fn allocate(gpu: &Gpu, sizes: &BTreeMap<BufferRole, u64>, shared: &Buffers) -> Result<Self, GpuError> {
        let mut by_role = shared.by_role.clone();
        for (role, bytes) in sizes {
            if !by_role.contains_key(role) {
                by_role.insert(*role, gpu.allocate(&format!("{role:?}"), *bytes)?);
            }
        }
        Ok(Buffers { by_role })
    }

    /// Adds a buffer under a role.
    pub fn insert(&mut self, role: BufferRole, buffer: DeviceBuffer) {
        self.by_role.insert(role, buffer);
    }

    /// The buffer of a role.
    pub fn get(&self, role: BufferRole) -> Option<&DeviceBuffer> {
        self.by_role.get(&role)
    }
}
