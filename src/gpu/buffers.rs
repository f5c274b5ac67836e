//! Device memory: one wgpu buffer or texture per role of a schedule.

use super::memory::Claim;
use super::{Gpu, GpuError};
use crate::kernels::{TEXTURE_WIDTH, texture_bytes};
use crate::passes::BufferRole;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A buffer on the device. Clones refer to the same memory.
#[derive(Clone, Debug)]
pub struct DeviceBuffer(pub(super) wgpu::Buffer, #[allow(dead_code, reason = "counts until it is dropped")] Arc<Claim>);

impl DeviceBuffer {
    /// Counts a buffer that has been created.
    pub(super) fn new(gpu: &Gpu, buffer: wgpu::Buffer) -> Self {
        let claim = gpu.claim(buffer.size());
        DeviceBuffer(buffer, Arc::new(claim))
    }
}

/// Of every texture: four words a texel, as in buffers.
pub(super) const TEXTURE_FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba32Float;

/// The buffers of a schedule, some of them shared with other schedules.
#[derive(Clone, Debug, Default)]
pub struct Buffers {
    by_role: BTreeMap<BufferRole, DeviceBuffer>,
    textures: BTreeMap<BufferRole, DeviceTexture>,
}

/// Bytes that are on their way to the device at once when a buffer is filled.
const PIECE_BYTES: usize = 16 << 20;
/// A texture on the device. Clones refer to the same memory.
#[derive(Clone, Debug)]
struct DeviceTexture {
    view: wgpu::TextureView,
    bytes: u64,
    _claim: Arc<Claim>,
}

/// Most rows of a texture that are cleared at once.
const ROWS_CLEARED: u64 = 32;

impl Gpu {
    /// Allocates a zero-filled buffer that kernels and copies can use.
    pub fn allocate(&self, label: &str, bytes: u64) -> Result<DeviceBuffer, GpuError> {
        let limit = self.target().max_buffer_bytes;
        if bytes > limit {
            return Err(GpuError::OverLimit { what: label.to_string(), bytes, limit });
        }
        let size = bytes.next_multiple_of(4).max(4);
        let claim = self.claim_within_budget(label, size)?;
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.check()?;
        Ok(DeviceBuffer(buffer, Arc::new(claim)))
    }

    fn allocate_texture(&self, label: &str, bytes: u64) -> Result<DeviceTexture, GpuError> {
        let limit = self.target().max_texture_bytes;
        if bytes > limit {
            return Err(GpuError::OverLimit { what: label.to_string(), bytes, limit });
        }
        let rows = bytes.div_ceil(texture_bytes(1)).max(1);
        let claim = self.claim_within_budget(label, texture_bytes(rows))?;
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
        let zeros_bytes = texture_bytes(rows.min(ROWS_CLEARED));
        let _zeros_claim = self.claim(zeros_bytes);
        let zeros = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: zeros_bytes,
            usage: wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let layout = wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(texture_bytes(1) as u32), rows_per_image: None };
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for row in (0..rows).step_by(ROWS_CLEARED as usize) {
            let origin = wgpu::Origin3d { x: 0, y: row as u32, z: 0 };
            let part = wgpu::Extent3d { height: (rows - row).min(ROWS_CLEARED) as u32, ..size };
            let to = wgpu::TexelCopyTextureInfo { origin, ..texture.as_image_copy() };
            encoder.copy_buffer_to_texture(wgpu::TexelCopyBufferInfo { buffer: &zeros, layout }, to, part);
        }
        self.queue.submit([encoder.finish()]);
        self.check()?;
        let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
        Ok(DeviceTexture { view, bytes: texture_bytes(rows), _claim: Arc::new(claim) })
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
                if !textures.contains_key(role) {
                    textures.insert(*role, gpu.allocate_texture(&format!("{role:?}"), *bytes)?);
                }
            } else if !by_role.contains_key(role) {
                by_role.insert(*role, gpu.allocate(&format!("{role:?}"), *bytes)?);
            }
        }
        Ok(Buffers { by_role, textures })
    }

    /// The texture of a role.
    pub(super) fn texture(&self, role: BufferRole) -> Option<&wgpu::TextureView> {
        self.textures.get(&role).map(|texture| &texture.view)
    }

    /// Memory of these buffers for the slots and textures among `sizes`: each slot takes the smallest here that is large enough
    /// and still free. For programs that never run at the same time.
    pub fn lend_slots(&self, sizes: &BTreeMap<BufferRole, u64>) -> Buffers {
        let is_slot = |role: &BufferRole| matches!(role, BufferRole::Slot(_));
        let mut free: Vec<&DeviceBuffer> = self.by_role.iter().filter(|(role, _)| is_slot(role)).map(|(_, buffer)| buffer).collect();
        free.sort_by_key(|buffer| buffer.0.size());
        let mut wanted: Vec<(&BufferRole, &u64)> = sizes.iter().filter(|(role, _)| is_slot(role)).collect();
        wanted.sort_by_key(|(role, bytes)| (std::cmp::Reverse(**bytes), **role));
        let is_enough = |role: &BufferRole, texture: &DeviceTexture| sizes.get(role).is_some_and(|bytes| *bytes <= texture.bytes);
        let textures = self.textures.iter().filter(|(role, texture)| is_enough(role, texture));
        let mut lent = Buffers { textures: textures.map(|(role, texture)| (*role, texture.clone())).collect(), ..Default::default() };
        for (role, bytes) in wanted {
            if let Some(index) = free.iter().position(|buffer| buffer.0.size() >= *bytes) {
                lent.insert(*role, free.remove(index).clone());
            }
        }
        lent
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
