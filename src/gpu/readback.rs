//! Reading results without stopping the device: staging buffers that are mapped while later steps run.

use super::memory::Claim;
use super::{DeviceBuffer, Gpu, GpuError};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const IDLE: u8 = 0;
const REQUESTED: u8 = 1;
const READY: u8 = 2;
const FAILED: u8 = 3;

/// A staging buffer for one copy at a time.
pub struct Readback {
    staging: wgpu::Buffer,
    bytes: u64,
    state: Arc<AtomicU8>,
    _claim: Claim,
}

impl Readback {
    fn new(gpu: &Gpu, bytes: u64) -> Self {
        let staging = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("readback"),
            size: bytes,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Readback { staging, bytes, state: Arc::new(AtomicU8::new(IDLE)), _claim: gpu.claim(bytes) }
    }

    pub(super) fn record(&self, encoder: &mut wgpu::CommandEncoder, from: &DeviceBuffer) {
        encoder.copy_buffer_to_buffer(&from.0, 0, &self.staging, 0, self.bytes);
    }

    pub(super) fn request(&self) {
        self.state.store(REQUESTED, Ordering::Release);
        let state = Arc::clone(&self.state);
        self.staging.map_async(wgpu::MapMode::Read, .., move |result| {
            state.store(if result.is_ok() { READY } else { FAILED }, Ordering::Release);
        });
    }

    fn take(&self, gpu: &Gpu) -> Result<Vec<u8>, GpuError> {
        let view = self.staging.get_mapped_range(..).map_err(|e| gpu.refused("reading back", e))?;
        let bytes = view.to_vec();
        drop(view);
        self.staging.unmap();
        self.state.store(IDLE, Ordering::Release);
        Ok(bytes)
    }
}

/// Staging buffers used in turn; results come out in the order in which they were asked for.
pub struct ReadbackRing<T> {
    idle: Vec<Readback>,
    pending: VecDeque<(Readback, T)>,
}

impl<T> ReadbackRing<T> {
    /// `depth` staging buffers of `bytes` bytes.
    pub fn new(gpu: &Gpu, bytes: u64, depth: usize) -> Self {
        ReadbackRing { idle: (0..depth).map(|_| Readback::new(gpu, bytes)).collect(), pending: VecDeque::new() }
    }

    /// A staging buffer to copy into; waits for the oldest copy when all are in use, and hands that one's bytes to
    /// `done`.
    pub fn acquire(&mut self, gpu: &Gpu, done: &mut impl FnMut(T, Vec<u8>)) -> Result<Readback, GpuError> {
        if self.idle.is_empty() {
            gpu.wait()?;
            self.poll(gpu, done)?;
        }
        self.idle.pop().ok_or_else(|| GpuError::Refused("no staging buffer came back".into()))
    }

    /// Remembers a submitted copy under a tag.
    pub fn submitted(&mut self, readback: Readback, tag: T) {
        self.pending.push_back((readback, tag));
    }

    /// Hands over what is ready, oldest first, without waiting.
    pub fn poll(&mut self, gpu: &Gpu, done: &mut impl FnMut(T, Vec<u8>)) -> Result<(), GpuError> {
        gpu.device.poll(wgpu::PollType::Poll).map_err(|e| GpuError::DeviceLost(e.to_string()))?;
        while let Some((front, _)) = self.pending.front() {
            match front.state.load(Ordering::Acquire) {
                READY => {}
                FAILED => return Err(gpu.refused("reading back", "the buffer could not be mapped")),
                _ => break,
            }
            if let Some((readback, tag)) = self.pending.pop_front() {
                let bytes = readback.take(gpu)?;
                self.idle.push(readback);
                done(tag, bytes);
            }
        }
        gpu.check()
    }

    /// Waits for everything that is under way.
    pub fn finish(&mut self, gpu: &Gpu, done: &mut impl FnMut(T, Vec<u8>)) -> Result<(), GpuError> {
        gpu.wait()?;
        self.poll(gpu, done)
    }
}
