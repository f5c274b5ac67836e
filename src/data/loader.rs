//! Batches in the background: a thread reads ahead into a bounded queue, the images of a batch are
//! decoded in parallel.

use super::{DataError, Source};
use crate::rng;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock};
use std::thread::{self, JoinHandle};

/// Batches that may wait in the queue.
const QUEUE: usize = 4;
/// Threads that read images, for each core: most of a cold file's time is waiting for the disk.
const READERS_PER_CORE: usize = 4;
/// Most of them.
const MOST_READERS: usize = 32;

/// The threads that read images; `None`, and the ones of everything else, where the system gives no more.
static READERS: LazyLock<Option<ThreadPool>> = LazyLock::new(|| {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let name = |index| format!("nin-wgpu reader {index}");
    ThreadPoolBuilder::new().num_threads((cores * READERS_PER_CORE).min(MOST_READERS)).thread_name(name).build().ok()
});

/// The order in which images are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As the data set has them.
    Sequential,
    /// Another order in every epoch, given by the seed alone: [`rng::permutation`].
    Shuffled {
        /// The run's seed.
        seed: u64,
    },
}

impl Order {
    /// The images of an epoch in the order in which they are delivered.
    fn indices(self, len: u32, epoch: u32) -> Vec<u32> {
        match self {
            Order::Sequential => (0..len).collect(),
            Order::Shuffled { seed } => rng::permutation(len, seed, epoch),
        }
    }
}

/// The number of images as indices count them.
fn numbered(len: usize) -> Result<u32, DataError> {
    u32::try_from(len).map_err(|_| DataError::Setting(format!("{len} images in one split: at most {} can be numbered", u32::MAX)))
}

/// Some images with their labels. Buffers have the full batch's size; rows from `count` on are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Image after image, each HWC; empty where the device holds the data set ([`IndexLoader`]).
    pub pixels: Vec<u8>,
    /// Label of each image.
    pub labels: Vec<u32>,
    /// Index of each image in its split: the key of its augmentation.
    pub ids: Vec<u32>,
    /// Number of images, at most the batch size; less in an epoch's last batch, and where images of a split that leaves
    /// them out cannot be read: then it may be 0.
    pub count: usize,
}

/// Number of batches in an epoch of `len` images, the last perhaps partial.
pub fn batches_per_epoch(len: usize, batch_size: usize) -> usize {
    len.div_ceil(batch_size.max(1))
}

/// The batches of one epoch, from a chosen step on: an iterator that a background thread feeds.
///
/// The first error ends it. Dropping it stops the thread and waits for it.
pub struct Loader {
    /// `None` once everything is delivered or the loader is dropped.
    queue: Option<Receiver<Result<Batch, DataError>>>,
    worker: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// Batches still to come.
    left: usize,
}

impl Loader {
    /// Starts reading `epoch` of `source` in batches of `batch_size`, from batch `first_step` on.
    ///
    /// Fails where `batch_size` is 0, the split has more than 2³² images, or the system gives no
    /// thread. A `first_step` past the end gives no batches.
    pub fn new(source: Arc<dyn Source>, batch_size: usize, order: Order, epoch: u32, first_step: usize) -> Result<Self, DataError> {
        if batch_size == 0 {
            return Err(DataError::Setting("a batch of 0 images: the batch size must be at least 1".into()));
        }
        let len = numbered(source.len())?;
        let left = batches_per_epoch(source.len(), batch_size).saturating_sub(first_step);
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = sync_channel(QUEUE);
        let worker = if left == 0 {
            None
        } else {
            let stop = stop.clone();
            let work = move || {
                deliver(&*source, &order.indices(len, epoch), batch_size, first_step, &sender, &stop);
            };
            let thread = thread::Builder::new().name("nin-wgpu data".into()).spawn(work);
            Some(thread.map_err(|error| DataError::Setting(format!("cannot start the background reader: {error}")))?)
        };
        Ok(Self { queue: Some(receiver), worker, stop, left })
    }

    /// Stops the thread and waits until it is gone.
    fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.left = 0;
        // A sender that waits for room wakes up when the receiver is gone.
        self.queue = None;
        if let Some(worker) = self.worker.take() {
            // A panic of the thread was reported through `LoaderStopped`.
            let _ = worker.join();
        }
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let item = match self.queue.as_ref()?.recv() {
            Ok(item) => item,
            Err(_) => Err(DataError::LoaderStopped),
        };
        self.left -= 1;
        if item.is_err() {
            self.finish();
        }
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // An error ends the sequence early.
        (self.left.min(1), Some(self.left))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The batches of one epoch as a [`Loader`] delivers them, but without pixels: for a data set that the device holds.
pub struct IndexLoader {
    labels: Arc<[u32]>,
    indices: Vec<u32>,
    batch_size: usize,
    /// Images delivered or left out.
    done: usize,
}

impl IndexLoader {
    /// The batches of `epoch` of images with these labels, from batch `first_step` on. Fails as [`Loader::new`] does.
    pub fn new(labels: Arc<[u32]>, batch_size: usize, order: Order, epoch: u32, first_step: usize) -> Result<Self, DataError> {
        if batch_size == 0 {
            return Err(DataError::Setting("a batch of 0 images: the batch size must be at least 1".into()));
        }
        let indices = order.indices(numbered(labels.len())?, epoch);
        Ok(IndexLoader { done: first_step.saturating_mul(batch_size).min(indices.len()), labels, indices, batch_size })
    }
}

impl Iterator for IndexLoader {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let left = &self.indices[self.done..];
        let chosen = &left[..left.len().min(self.batch_size)];
        if chosen.is_empty() {
            return None;
        }
        let mut batch = Batch { pixels: Vec::new(), labels: vec![0; self.batch_size], ids: vec![0; self.batch_size], count: chosen.len() };
        batch.ids[..chosen.len()].copy_from_slice(chosen);
        batch.labels.iter_mut().zip(chosen).for_each(|(label, id)| *label = self.labels[*id as usize]);
        self.done += chosen.len();
        Some(Ok(batch))
    }
}

/// Reads batch after batch into the queue, until the end, an error or a stop.
fn deliver(
    source: &dyn Source,
    indices: &[u32],
    batch_size: usize,
    first_step: usize,
    queue: &SyncSender<Result<Batch, DataError>>,
    stop: &AtomicBool,
) {
    for ids in indices.chunks(batch_size).skip(first_step) {
        let read = || read_batch(source, ids, batch_size, stop);
        let batch = READERS.as_ref().map_or_else(read, |readers| readers.install(read));
        let failed = batch.is_err();
        if stop.load(Ordering::Relaxed) || queue.send(batch).is_err() || failed {
            return;
        }
    }
}

/// Reads the images `ids` into a batch with room for `batch_size`. Those that cannot be read are left out.
fn read_batch(source: &dyn Source, ids: &[u32], batch_size: usize, stop: &AtomicBool) -> Result<Batch, DataError> {
    let image_bytes: usize = source.shape().iter().product();
    let mut batch =
        Batch { pixels: vec![0; batch_size * image_bytes], labels: vec![0; batch_size], ids: vec![0; batch_size], count: ids.len() };
    batch.ids[..ids.len()].copy_from_slice(ids);
    let labels: Vec<Option<u32>> = batch
        .pixels
        .par_chunks_exact_mut(image_bytes.max(1))
        .zip(ids.par_iter())
        .map(|(pixels, &id)| if stop.load(Ordering::Relaxed) { Ok(Some(0)) } else { source.try_read(id as usize, pixels) })
        .collect::<Result<_, _>>()?;
    let mut filled = 0;
    for (row, label) in labels.into_iter().enumerate() {
        let Some(label) = label else { continue };
        if filled < row {
            batch.pixels.copy_within(row * image_bytes..(row + 1) * image_bytes, filled * image_bytes);
            batch.ids[filled] = batch.ids[row];
        }
        batch.labels[filled] = label;
        filled += 1;
    }
    batch.count = filled;
    batch.ids[filled..].fill(0);
    batch.pixels[filled * image_bytes..].fill(0);
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::InMemory;
    use std::sync::atomic::AtomicUsize;

    /// Image n has two pixels (n, 255 - n) and label n % 3.
    fn numbers(count: u8) -> Arc<dyn Source> {
        let pixels = (0..count).flat_map(|n| [n, 255 - n]).collect();
        let labels = (0..count).map(|n| u32::from(n % 3)).collect();
        Arc::new(InMemory::new([1, 1, 2], 3, pixels, labels).unwrap())
    }

    fn all(loader: Loader) -> Vec<Batch> {
        loader.map(|batch| batch.unwrap()).collect()
    }

    #[test]
    fn sequential_batches_with_a_partial_last_one() {
        let batches = all(Loader::new(numbers(7), 3, Order::Sequential, 0, 0).unwrap());
        assert_eq!(batches_per_epoch(7, 3), 3);
        assert_eq!(batches.len(), 3);
        assert_eq!(batches[1].ids, [3, 4, 5]);
        assert_eq!(batches[1].labels, [0, 1, 2]);
        assert_eq!(batches[1].pixels, [3, 252, 4, 251, 5, 250]);
        assert_eq!(batches[2].count, 1);
        assert_eq!(batches[2].ids, [6, 0, 0]);
        assert_eq!(batches[2].labels, [0, 0, 0]);
        assert_eq!(batches[2].pixels, [6, 249, 0, 0, 0, 0]);
    }

    #[test]
    fn shuffled_epochs_hold_every_image_once_and_can_start_anywhere() {
        let order = Order::Shuffled { seed: 5 };
        let whole = all(Loader::new(numbers(100), 8, order, 2, 0).unwrap());
        let ids: Vec<u32> = whole.iter().flat_map(|b| &b.ids[..b.count]).copied().collect();
        assert_eq!(ids, rng::permutation(100, 5, 2));
        let rest = all(Loader::new(numbers(100), 8, order, 2, 9).unwrap());
        assert_eq!(rest, whole[9..]);
        assert!(all(Loader::new(numbers(100), 8, order, 2, 13).unwrap()).is_empty());
        assert!(all(Loader::new(numbers(0), 8, order, 0, 0).unwrap()).is_empty());
        assert!(Loader::new(numbers(1), 0, order, 0, 0).is_err());
    }

    #[test]
    fn without_pixels_batches_are_the_same() {
        let labels: Arc<[u32]> = (0..100).map(|n| n % 3).collect();
        for order in [Order::Sequential, Order::Shuffled { seed: 5 }] {
            for (size, epoch, first) in [(8, 2, 0), (8, 2, 9), (100, 0, 0), (7, 1, 15), (8, 0, 13)] {
                let loaded = all(Loader::new(numbers(100), size, order, epoch, first).unwrap());
                let expected: Vec<Batch> = loaded.into_iter().map(|batch| Batch { pixels: Vec::new(), ..batch }).collect();
                let indexed = IndexLoader::new(labels.clone(), size, order, epoch, first).unwrap();
                assert_eq!(indexed.map(Result::unwrap).collect::<Vec<_>>(), expected);
            }
        }
        assert!(IndexLoader::new(labels, 0, Order::Sequential, 0, 0).is_err());
    }

    /// Fails or panics at one image, and counts reads.
    struct Faulty {
        bad: usize,
        panics: bool,
        reads: AtomicUsize,
    }

    impl Source for Faulty {
        fn len(&self) -> usize {
            100_000
        }
        fn shape(&self) -> [usize; 3] {
            [1, 1, 1]
        }
        fn classes(&self) -> usize {
            1
        }
        fn read(&self, index: usize, _: &mut [u8]) -> Result<u32, DataError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            assert!(!self.panics || index != self.bad, "a panic made by this test");
            if index == self.bad {
                return Err(DataError::Setting("bad image".into()));
            }
            Ok(0)
        }
    }

    fn faulty(bad: usize, panics: bool) -> Arc<Faulty> {
        Arc::new(Faulty { bad, panics, reads: AtomicUsize::new(0) })
    }

    #[test]
    fn an_error_travels_through_and_ends_the_epoch() {
        let mut loader = Loader::new(faulty(25, false), 10, Order::Sequential, 0, 0).unwrap();
        assert!(loader.next().unwrap().is_ok());
        assert!(loader.next().unwrap().is_ok());
        let error = loader.next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "bad image");
        assert!(loader.next().is_none());
    }

    #[test]
    fn a_panic_of_a_reader_is_an_error() {
        let mut loader = Loader::new(faulty(0, true), 10, Order::Sequential, 0, 0).unwrap();
        assert!(matches!(loader.next(), Some(Err(DataError::LoaderStopped))));
        assert!(loader.next().is_none());
    }

    #[test]
    fn the_queue_is_bounded_and_a_drop_ends_the_thread() {
        let source = faulty(usize::MAX, false);
        let mut loader = Loader::new(source.clone(), 10, Order::Sequential, 0, 0).unwrap();
        assert!(loader.next().is_some());
        drop(loader);
        // Delivered, in the queue, and at most two under way.
        assert!(source.reads.load(Ordering::Relaxed) <= 10 * (QUEUE + 4));
        assert_eq!(Arc::strong_count(&source), 1);
    }
}
