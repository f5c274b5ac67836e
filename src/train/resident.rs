//! A split of a data set that stays in device memory, from which steps take images by their numbers.

use super::TrainError;
use super::whitening::DeviceWhitening;
use crate::data::{Batch, DataError, IndexLoader, Loader, Order, Source};
use crate::gpu::{DeviceBuffer, Gpu};
use crate::models::Resident;
use crate::ops::MOST_PARTS;
use crate::variables;
use std::sync::Arc;

/// Most bytes of images that a run keeps on a device, which does not say how much memory it has.
const MOST_BYTES: u64 = 1 << 30;
/// Kernels count bytes of a part in 32 bits.
const MOST_PART_BYTES: u64 = 1 << 31;

/// How much of a data set may lie on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes of a part: the largest binding.
    pub part_bytes: u64,
}

impl Room {
    /// What the device's limits and this program's habits leave; none where `NIN_WGPU_NO_RESIDENT_DATA=1`.
    pub fn of(gpu: &Gpu) -> Self {
        let is_off = variables::NO_RESIDENT_DATA.is_on();
        let part_bytes = gpu.target().max_binding_bytes.min(gpu.target().max_buffer_bytes).min(MOST_PART_BYTES);
        // Under a memory budget the network comes first.
        let bytes = gpu.target().memory_budget.map_or(MOST_BYTES, |budget| MOST_BYTES.min(budget / 4));
        Room { bytes: if is_off { 0 } else { bytes }, part_bytes }
    }

    /// How `images` of `image_bytes` each are cut into parts; `None` where they do not fit.
    pub fn place(self, images: usize, image_bytes: usize) -> Option<Resident> {
        let bytes = (images as u64).checked_mul(image_bytes as u64)?;
        if bytes == 0 || bytes > self.bytes {
            return None;
        }
        // Buffers are whole words, so a part that is not is rounded up.
        let fitting = (self.part_bytes / 4 * 4 / image_bytes as u64).min(images as u64) as usize;
        let resident = Resident { images, images_per_part: fitting };
        (fitting > 0 && resident.parts().count() <= MOST_PARTS).then_some(resident)
    }
}

/// Images in device memory and their labels.
pub struct ResidentImages {
    layout: Resident,
    parts: Vec<DeviceBuffer>,
    labels: Arc<[u32]>,
    bytes: u64,
}

impl ResidentImages {
    /// Uploads a split. `None` where its images are decoded when they are read, or there is no room for them.
    pub fn upload(gpu: &Gpu, source: &dyn Source, room: Room) -> Result<Option<Self>, TrainError> {
        let image_bytes: usize = source.shape().iter().product();
        let Some(stored) = source.stored() else { return Ok(None) };
        let Some(layout) = room.place(stored.labels.len(), image_bytes) else { return Ok(None) };
        let mut parts = Vec::new();
        for (number, pixels) in stored.pixels.chunks(layout.images_per_part * image_bytes).enumerate() {
            let Some(buffer) = gpu.allocate_if_room(&format!("images.{number}"), pixels.len() as u64)? else { return Ok(None) };
            gpu.fill(&buffer, pixels)?;
            parts.push(buffer);
        }
        Ok(Some(ResidentImages { layout, parts, labels: stored.labels.into(), bytes: stored.pixels.len() as u64 }))
    }

    /// How many images there are, in parts of how many.
    pub fn layout(&self) -> Resident {
        self.layout
    }

    /// The memory of each part.
    pub fn parts(&self) -> &[DeviceBuffer] {
        &self.parts
    }

    /// Bytes of all images.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What of a network's input lies on the device, for all batches.
#[derive(Clone, Copy, Default)]
pub struct DeviceInput<'a> {
    /// The images: batches need no pixels then, their ids choose from these.
    pub images: Option<&'a ResidentImages>,
    /// What images are whitened with.
    pub whitening: Option<&'a DeviceWhitening>,
}

impl DeviceInput<'_> {
    /// Bytes of all of it.
    pub fn bytes(&self) -> u64 {
        self.images.map_or(0, ResidentImages::bytes) + self.whitening.map_or(0, DeviceWhitening::bytes)
    }
}

/// The batches of one epoch: without pixels where the device holds them, else read ahead in the background.
pub fn epoch_batches(
    resident: Option<&ResidentImages>,
    source: &Arc<dyn Source>,
    batch_size: usize,
    order: Order,
    epoch: u32,
    first_step: usize,
) -> Result<Box<dyn Iterator<Item = Result<Batch, DataError>>>, DataError> {
    Ok(match resident {
        Some(images) => Box::new(IndexLoader::new(Arc::clone(&images.labels), batch_size, order, epoch, first_step)?),
        None => Box::new(Loader::new(Arc::clone(source), batch_size, order, epoch, first_step)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fit_bindings_and_hold_every_image() {
        let room = Room { bytes: 1000, part_bytes: 103 };
        let parts = |images, image_bytes| room.place(images, image_bytes).map(|layout| layout.parts().collect::<Vec<_>>());
        assert_eq!(parts(10, 10), Some(vec![10]));
        assert_eq!(parts(11, 10), Some(vec![10, 1]));
        assert_eq!(parts(40, 10), Some(vec![10, 10, 10, 10]));
        assert_eq!(parts(41, 10), None);
        assert_eq!(parts(4, 100), Some(vec![1, 1, 1, 1]));
        assert_eq!(parts(1, 101), None);
        assert_eq!(parts(0, 10), None);
        assert_eq!(Room { bytes: 99, ..room }.place(10, 10), None);
        assert_eq!(Room { bytes: 0, ..room }.place(1, 1), None);
    }
}
