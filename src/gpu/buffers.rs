//! Device memory: one wgpu buffer or texture per role of a schedule.

use super::{Gpu, GpuError};
use crate::kernels::{TEXTURE_WIDTH, texture_bytes};
use crate::passes::BufferRole;
use std::collections::BTreeMap;

/// A buffer on the device. Clones refer to the same memory.
#[derive(Clone, Debug)]
pub struct DeviceBuffer(pub(super) wgpu::Buffer);

/// Of every texture: four words a texel, as in buffers.
pub(super) const TEXTURE_FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba32Float;

/// The buffers of a schedule, some of them shared with other schedules.
#[derive(Clone, Debug, Default)]
pub struct Buffers {
    by_role: BTreeMap<BufferRole, DeviceBuffer>,
    textures: BTreeMap<BufferRole, wgpu::TextureView>,
}

/// Bytes that are on their way to the device at once when a buffer is filled.
const PIECE_BYTES: usize = 16 << 20;

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

    fn allocate_texture(&self, label: &str, bytes: u64) -> Result<wgpu::TextureView, GpuError> {
        let limit = self.target().max_texture_bytes;
        if bytes > limit {
            return Err(GpuError::OverLimit { what: label.to_string(), bytes, limit });
        }
        let rows = bytes.div_ceil(texture_bytes(1)).max(1);
        let size = wgpu::Extent3d { width: TEXTURE_WIDTH as u32, height: rows as u32, depth_or_array_layers: 1 };
        let texture = self.device.create_texture(&wgpu::TextureDescriptor {
            label: Some(label),
            size,
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: TEXTURE_FORMAT,
            usage: wgpu::TextureUsages::TEXTURE_BINDING | wgpu::TextureUsages::STORAGE_BINDING | wgpu::TextureUsages::COPY_DST,
            view_formats: &[],
        });
        // Left to itself, wgpu clears a texture in a render pass, and from then on llvmpipe's timestamps miss compute passes.
        let zeros = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: texture_bytes(rows),
            usage: wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let layout = wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(texture_bytes(1) as u32), rows_per_image: None };
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_texture(wgpu::TexelCopyBufferInfo { buffer: &zeros, layout }, texture.as_image_copy(), size);
        self.queue.submit([encoder.finish()]);
        self.check()?;
        Ok(texture.create_view(&wgpu::TextureViewDescriptor::default()))
    }

    /// As [`Gpu::allocate`]; `None` where the device has no room for it, which is no fault then.
    pub fn allocate_if_room(&self, label: &str, bytes: u64) -> Result<Option<DeviceBuffer>, GpuError> {
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.allocate(label, bytes)?;
        Ok(pollster::block_on(scope.pop()).is_none().then_some(buffer))
    }

    /// Writes all of a buffer and waits for it, a piece at a time, so that the host needs no copy of the whole.
    pub fn fill(&self, buffer: &DeviceBuffer, bytes: &[u8]) -> Result<(), GpuError> {
        for (index, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            let mut piece = std::borrow::Cow::from(piece);
            if !piece.len().is_multiple_of(4) {
                let whole_words = piece.len().next_multiple_of(4);
                piece.to_mut().resize(whole_words, 0);
            }
            self.write(buffer, (index * PIECE_BYTES) as u64, &piece);
            let submitted = self.queue.submit([]);
            self.wait_for(Some(submitted))?;
        }
        self.check()
    }
}

impl Buffers {
    /// Buffers of the given sizes; roles already in `shared` are taken from there.
    pub fn allocate(gpu: &Gpu, sizes: &BTreeMap<BufferRole, u64>, shared: &Buffers) -> Result<Self, GpuError> {
        let mut by_role = shared.by_role.clone();
        let mut textures = shared.textures.clone();
        for (role, bytes) in sizes {
            if let BufferRole::Texture(_) = role {
                textures.insert(*role, gpu.allocate_texture(&format!("{role:?}"), *bytes)?);
            } else if !by_role.contains_key(role) {
                by_role.insert(*role, gpu.allocate(&format!("{role:?}"), *bytes)?);
            }
        }
        Ok(Buffers { by_role, textures })
    }

    /// The texture of a role.
    pub(super) fn texture(&self, role: BufferRole) -> Option<&wgpu::TextureView> {
        self.textures.get(&role)
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
