//! Round-trip times of one client port, kept in chunks that grow with the run.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Samples in a chunk, 64 KiB of memory: small, as a thread that measures latency allocates and clears it.
const CHUNK: usize = 1 << 12;
/// Samples that one `client` command keeps by default, all its ports together: 1 GiB of memory.
pub const DEFAULT_MAX_SAMPLES: usize = 64 << 20;
/// Longest time that a sample holds, about 78 hours in ns; longer ones are recorded as this.
const MAX_NS: u64 = (1 << 48) - 1;

/// One completed RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Length of the response in bytes.
    pub len: u32,
    /// From the actual send of the request to the whole response, in ns.
    pub service_ns: u64,
    /// From the time at which the request was due to the whole response, in ns; at least `service_ns`.
    pub due_ns: u64,
}

/// A sample in 16 bytes of atomics, so that readers never hold up the writer.
#[derive(Default)]
struct Cell {
    len: AtomicU32,
    service_low: AtomicU32,
    due_low: AtomicU32,
    /// Bits 32 to 47 of the service time, then those of the time from the due time.
    highs: AtomicU32,
}

impl Cell {
    fn store(&self, sample: Sample) {
        let (service, due) = (sample.service_ns.min(MAX_NS), sample.due_ns.min(MAX_NS));
        self.len.store(sample.len, Ordering::Relaxed);
        self.service_low.store(service as u32, Ordering::Relaxed);
        self.due_low.store(due as u32, Ordering::Relaxed);
        self.highs.store((service >> 32) as u32 | ((due >> 32) as u32) << 16, Ordering::Relaxed);
    }

    fn load(&self) -> Sample {
        let highs = u64::from(self.highs.load(Ordering::Relaxed));
        Sample {
            len: self.len.load(Ordering::Relaxed),
            service_ns: (highs & 0xffff) << 32 | u64::from(self.service_low.load(Ordering::Relaxed)),
            due_ns: (highs >> 16) << 32 | u64::from(self.due_low.load(Ordering::Relaxed)),
        }
    }
}

/// Up to [`CHUNK`] samples; the first `len` are valid.
struct Chunk {
    len: AtomicUsize,
    cells: Box<[Cell]>,
}

impl Chunk {
    fn new() -> Arc<Self> {
        Arc::new(Self { len: AtomicUsize::new(0), cells: (0..CHUNK).map(|_| Cell::default()).collect() })
    }

    fn samples(&self) -> impl DoubleEndedIterator<Item = Sample> + '_ {
        // Acquire: pairs with the release in `push`, so that the cells below `len` are written.
        self.cells[..self.len.load(Ordering::Acquire)].iter().map(Cell::load)
    }
}

/// The samples of one client port, oldest first; nothing is dropped silently.
///
/// Beyond its capacity, samples are counted as lost instead of kept.
pub struct SampleLog {
    chunks: Mutex<Vec<Arc<Chunk>>>,
    capacity: usize,
    /// Since the last take.
    lost: AtomicU64,
    lost_ever: AtomicU64,
}

/// Samples taken out of a [`SampleLog`].
pub struct Taken {
    chunks: Vec<Arc<Chunk>>,
    /// Samples that found no room since the previous take.
    pub lost: u64,
}

impl SampleLog {
    /// An empty log for about `capacity` samples, rounded up to whole chunks of 4,096; the first chunk is allocated now.
    pub fn new(capacity: usize) -> Self {
        Self {
            chunks: Mutex::new(vec![Chunk::new()]),
            capacity: capacity.max(1),
            lost: AtomicU64::new(0),
            lost_ever: AtomicU64::new(0),
        }
    }

    /// Appends a sample, or counts it as lost if the log is full.
    pub fn push(&self, sample: Sample) {
        let mut chunks = self.lock();
        let full = chunks.last().is_none_or(|c| c.len.load(Ordering::Relaxed) == CHUNK);
        if full {
            if chunks.len() * CHUNK >= self.capacity {
                self.lost.fetch_add(1, Ordering::Relaxed);
                self.lost_ever.fetch_add(1, Ordering::Relaxed);
                return;
            }
            chunks.push(Chunk::new());
        }
        let chunk = chunks.last().expect("a chunk was added if there was none");
        let index = chunk.len.load(Ordering::Relaxed);
        chunk.cells[index].store(sample);
        chunk.len.store(index + 1, Ordering::Release);
    }

    /// Removes all samples and resets the count of lost ones.
    pub fn take(&self) -> Taken {
        let fresh = vec![Chunk::new()];
        let chunks = std::mem::replace(&mut *self.lock(), fresh);
        Taken { chunks, lost: self.lost.swap(0, Ordering::Relaxed) }
    }

    /// Puts samples back, before those that came since; for a dump that could not be written.
    pub fn restore(&self, taken: Taken) {
        self.lost.fetch_add(taken.lost, Ordering::Relaxed);
        self.lock().splice(0..0, taken.chunks);
    }

    /// Service times in ns of up to `max` of the most recent samples, appended to `out` in any order.
    pub fn recent(&self, max: usize, out: &mut Vec<u64>) {
        // Only the handles are copied under the lock.
        let chunks: Vec<_> = self.lock().iter().rev().take(max / CHUNK + 2).cloned().collect();
        let newest_first = chunks.iter().flat_map(|c| c.samples().rev());
        out.extend(newest_first.take(max).map(|s| s.service_ns));
    }

    /// Samples that found no room, ever.
    pub fn lost(&self) -> u64 {
        self.lost_ever.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Chunk>>> {
        // A panic elsewhere leaves the list whole: it changes in single steps.
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// The samples, oldest first.
    pub fn samples(&self) -> impl Iterator<Item = Sample> + '_ {
        self.chunks.iter().flat_map(|c| c.samples())
    }

    /// Their number.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|c| c.len.load(Ordering::Acquire)).sum()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(n: u64) -> Sample {
        Sample { len: n as u32, service_ns: n * 10, due_ns: n * 10 + 5 }
    }

    #[test]
    fn samples_come_back_in_order_across_chunks() {
        let log = SampleLog::new(usize::MAX);
        let n = CHUNK as u64 * 2 + 100;
        (0..n).for_each(|i| log.push(sample(i)));
        let mut recent = Vec::new();
        log.recent(CHUNK + 200, &mut recent);
        recent.sort_unstable();
        assert_eq!(recent.len(), CHUNK + 200);
        assert_eq!((recent[0], *recent.last().unwrap()), ((n - CHUNK as u64 - 200) * 10, (n - 1) * 10));
        let taken = log.take();
        assert_eq!(taken.len() as u64, n);
        assert!(taken.samples().eq((0..n).map(sample)));
        assert!(log.take().is_empty(), "taken samples are gone");
    }

    #[test]
    fn samples_beyond_the_capacity_are_counted() {
        let log = SampleLog::new(1);
        (0..CHUNK as u64 + 7).for_each(|i| log.push(sample(i)));
        assert_eq!(log.lost(), 7);
        let taken = log.take();
        assert_eq!((taken.len(), taken.lost, log.lost()), (CHUNK, 7, 7));
        assert_eq!(log.take().lost, 0, "told once");
        log.push(sample(1));
        assert_eq!(log.take().len(), 1, "there is room again");
    }

    #[test]
    fn restored_samples_come_first() {
        let log = SampleLog::new(usize::MAX);
        log.push(sample(1));
        let taken = log.take();
        log.push(sample(2));
        log.restore(taken);
        log.push(sample(3));
        assert!(log.take().samples().eq((1..=3).map(sample)));
    }

    #[test]
    fn long_times_are_kept_and_longer_ones_saturate() {
        let log = SampleLog::new(1);
        let hours = Sample { len: u32::MAX, service_ns: 7_200_000_000_123, due_ns: 7_300_000_000_456 };
        log.push(hours);
        log.push(Sample { service_ns: u64::MAX, due_ns: u64::MAX, ..hours });
        let got: Vec<_> = log.take().samples().collect();
        assert_eq!(got[0], hours);
        assert_eq!((got[1].service_ns, got[1].due_ns), (MAX_NS, MAX_NS));
    }
}
