//! One client port: what its sender, its receivers and the statistics share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::message::{ConnectionId, Header};
use crate::samples::{Sample, SampleLog};

/// Most slots of a port: a message id has 16 bits.
pub(crate) const MAX_SLOTS: usize = 1 << 16;

/// Counters of a client port; they only grow, except `lag_ns`.
#[derive(Debug, Default)]
pub(crate) struct ClientCounters {
    /// Requests handed to the transport.
    pub(crate) issued: AtomicU64,
    /// RPCs with a whole response.
    pub(crate) completed: AtomicU64,
    /// RPCs that failed, timed-out ones included.
    pub(crate) errors: AtomicU64,
    /// RPCs that the transport gave up.
    pub(crate) timeouts: AtomicU64,
    /// Request bytes of completed RPCs.
    pub(crate) request_bytes: AtomicU64,
    /// Response bytes of completed RPCs.
    pub(crate) response_bytes: AtomicU64,
    /// TCP: requests issued while more than 100,000 request bytes to that server port were unanswered.
    pub(crate) backed_up: AtomicU64,
    /// How late the most recent request was sent, in ns.
    pub(crate) lag_ns: AtomicU64,
}

/// A server port that requests go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Number of the node.
    pub(crate) node: u8,
    /// Index of the port on that node.
    pub(crate) index: u8,
    /// Where it listens.
    pub(crate) addr: std::net::SocketAddr,
}

/// The shared state of a client port. `take_slot`, `start` and `complete` (or `fail`) make the life of an RPC.
pub(crate) struct ClientPort {
    /// Index of the port on this node.
    pub(crate) index: u8,
    /// Number of this node, 0 if it has none.
    pub(crate) node: u8,
    /// Responses shall be short.
    pub(crate) one_way: bool,
    pub(crate) targets: Vec<Target>,
    pub(crate) counters: ClientCounters,
    pub(crate) samples: SampleLog,
    /// New requests may be sent.
    pub(crate) sending: AtomicBool,
    slots: Box<[Slot]>,
    /// Slots not in use; as many as requests may still be outstanding.
    free: Mutex<Vec<u16>>,
}

/// Bookkeeping of one outstanding RPC.
#[derive(Default)]
struct Slot {
    /// When the request was sent, in ns plus 1; 0 is a free slot. Whoever swaps it to 0 ends the RPC.
    start: AtomicU64,
    /// When the request was due, in ns.
    due: AtomicU64,
    /// Length of the request in bytes.
    len: AtomicU64,
    /// Index of the target.
    target: AtomicU64,
}

/// What is known of an RPC that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) target: usize,
    pub(crate) request_len: u32,
    pub(crate) service_ns: u64,
}

impl ClientPort {
    /// A port that may have `max_outstanding` RPCs (at most [`MAX_SLOTS`]) and keeps `max_samples` samples.
    pub(crate) fn new(index: u8, node: u8, targets: Vec<Target>, max_outstanding: usize, max_samples: usize) -> Self {
        let count = max_outstanding.clamp(1, MAX_SLOTS);
        Self {
            index,
            node,
            one_way: false,
            targets,
            counters: ClientCounters::default(),
            samples: SampleLog::new(max_samples),
            sending: AtomicBool::new(true),
            slots: (0..count).map(|_| Slot::default()).collect(),
            free: Mutex::new((0..count).rev().map(|i| i as u16).collect()),
        }
    }

    /// Takes a free slot; `None` if as many RPCs are outstanding as may be.
    pub(crate) fn take_slot(&self) -> Option<u16> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// True if [`ClientPort::take_slot`] would give one.
    pub(crate) fn has_slot(&self) -> bool {
        !self.free.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Notes that a request is sent now, in the slot taken for it, and gives its header. Counts it as issued.
    pub(crate) fn start(&self, slot: u16, target: usize, len: u32, due_ns: Option<u64>, now_ns: u64) -> Header {
        let due = due_ns.unwrap_or(now_ns).min(now_ns);
        let cell = &self.slots[usize::from(slot)];
        cell.due.store(due, Ordering::Relaxed);
        cell.len.store(len.into(), Ordering::Relaxed);
        cell.target.store(target as u64, Ordering::Relaxed);
        self.counters.lag_ns.store(now_ns - due, Ordering::Relaxed);
        self.counters.issued.fetch_add(1, Ordering::Relaxed);
        // Release: whoever sees the slot in use sees the fields above.
        cell.start.store(now_ns + 1, Ordering::Release);
        let to = &self.targets[target];
        Header {
            len,
            connection: ConnectionId {
                client_port: self.index,
                client_node: self.node,
                server_port: to.index,
                server_node: to.node,
            },
            slot,
            freeze: false,
            short_response: self.one_way,
            is_response: false,
        }
    }

    /// Notes that the response in `header` is whole: counts and samples the RPC and frees its slot.
    ///
    /// `None`, with no effect, if no RPC is outstanding in that slot.
    pub(crate) fn complete(&self, header: &Header, now_ns: u64) -> Option<Ended> {
        let (ended, due_ns) = self.end(header.slot, now_ns)?;
        self.counters.request_bytes.fetch_add(ended.request_len.into(), Ordering::Relaxed);
        self.counters.response_bytes.fetch_add(header.len.into(), Ordering::Relaxed);
        self.samples.push(Sample { len: header.len, service_ns: ended.service_ns, due_ns });
        // After the sample: who sees n completed RPCs finds n samples.
        self.counters.completed.fetch_add(1, Ordering::Release);
        self.give_back(header.slot);
        Some(ended)
    }

    /// Notes that the RPC in `slot` will have no response: counts it and frees its slot, so that the window keeps its size.
    pub(crate) fn fail(&self, slot: u16, timed_out: bool, now_ns: u64) -> Option<Ended> {
        let (ended, _) = self.end(slot, now_ns)?;
        self.counters.errors.fetch_add(1, Ordering::Relaxed);
        if timed_out {
            self.counters.timeouts.fetch_add(1, Ordering::Relaxed);
        }
        self.give_back(slot);
        Some(ended)
    }

    /// Fails every outstanding RPC to `target`; returns how many there were.
    pub(crate) fn fail_target(&self, target: usize, now_ns: u64) -> usize {
        let to_target = |slot: &u16| {
            let cell = &self.slots[usize::from(*slot)];
            cell.start.load(Ordering::Acquire) != 0 && cell.target.load(Ordering::Relaxed) == target as u64
        };
        (0..self.slots.len()).map(|i| i as u16).filter(to_target).filter_map(|s| self.fail(s, false, now_ns)).count()
    }

    /// Outstanding RPCs of each target.
    pub(crate) fn outstanding_by_target(&self) -> Vec<usize> {
        let mut counts = vec![0; self.targets.len()];
        for cell in &self.slots {
            if cell.start.load(Ordering::Acquire) != 0 {
                counts[cell.target.load(Ordering::Relaxed) as usize] += 1;
            }
        }
        counts
    }

    /// RPCs issued that have not ended.
    pub(crate) fn outstanding(&self) -> u64 {
        let ended = self.counters.completed.load(Ordering::Acquire) + self.counters.errors.load(Ordering::Acquire);
        // An RPC may end between the two readings.
        self.counters.issued.load(Ordering::Relaxed).saturating_sub(ended)
    }

    /// Ends the RPC in `slot`; returns it and its time from the due time in ns.
    fn end(&self, slot: u16, now_ns: u64) -> Option<(Ended, u64)> {
        let cell = self.slots.get(usize::from(slot))?;
        // A free slot stays untouched. The swap decides if two threads end the same RPC.
        let start = cell.start.load(Ordering::Acquire).checked_sub(1)?;
        let due = cell.due.load(Ordering::Relaxed);
        let target = cell.target.load(Ordering::Relaxed) as usize;
        let request_len = cell.len.load(Ordering::Relaxed) as u32;
        cell.start.compare_exchange(start + 1, 0, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        Some((Ended { target, request_len, service_ns: now_ns.saturating_sub(start) }, now_ns.saturating_sub(due)))
    }

    fn give_back(&self, slot: u16) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(max: usize) -> ClientPort {
        let target = |node| Target { node, index: 0, addr: "10.0.0.1:4000".parse().unwrap() };
        ClientPort::new(2, 7, vec![target(1), target(3)], max, 1)
    }

    #[test]
    fn a_completed_rpc_gives_a_sample_with_both_times() {
        let port = port(2);
        let slot = port.take_slot().unwrap();
        let header = port.start(slot, 1, 5000, Some(1_000), 4_000);
        assert_eq!((header.connection.client_port, header.connection.client_node), (2, 7));
        assert_eq!((header.connection.server_node, header.len), (3, 5000));
        assert_eq!((port.outstanding(), port.outstanding_by_target()), (1, vec![0, 1]));
        let ended = port.complete(&header.response(), 10_000).unwrap();
        assert_eq!(ended, Ended { target: 1, request_len: 5000, service_ns: 6_000 });
        let samples: Vec<_> = port.samples.take().samples().collect();
        assert_eq!(samples, [Sample { len: 5000, service_ns: 6_000, due_ns: 9_000 }]);
        assert_eq!((port.outstanding(), port.counters.lag_ns.load(Ordering::Relaxed)), (0, 3_000));
    }

    #[test]
    fn a_closed_loop_is_due_when_sent() {
        let port = port(1);
        let header = port.start(port.take_slot().unwrap(), 0, 100, None, 500);
        port.complete(&header.response(), 700).unwrap();
        let sample = port.samples.take().samples().next().unwrap();
        assert_eq!((sample.service_ns, sample.due_ns), (200, 200));
    }

    /// A failed RPC must not shrink the window, and is counted once.
    #[test]
    fn failures_free_their_slots() {
        let port = port(3);
        let slots: Vec<_> = (0..3).map(|_| port.take_slot().unwrap()).collect();
        assert!(port.take_slot().is_none() && !port.has_slot());
        for (slot, target) in slots.iter().zip([0, 1, 0]) {
            port.start(*slot, target, 100, None, 1);
        }
        assert!(port.fail(slots[1], true, 5).is_some());
        assert!(port.fail(slots[1], true, 5).is_none(), "only once");
        assert_eq!(port.fail_target(0, 6), 2);
        assert_eq!(port.outstanding(), 0);
        assert_eq!(port.counters.errors.load(Ordering::Relaxed), 3);
        assert_eq!(port.counters.timeouts.load(Ordering::Relaxed), 1);
        assert_eq!((0..3).filter(|_| port.take_slot().is_some()).count(), 3);
    }

    #[test]
    fn responses_to_nothing_are_ignored() {
        let port = port(1);
        let header = port.start(port.take_slot().unwrap(), 0, 100, None, 1);
        assert!(port.complete(&Header { slot: 9, ..header }, 2).is_none());
        assert!(port.complete(&header, 2).is_some());
        assert!(port.complete(&header, 3).is_none(), "a duplicate");
        assert_eq!(port.counters.completed.load(Ordering::Relaxed), 1);
    }
}
