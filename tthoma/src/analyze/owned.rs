//! Frames that a NIC owns: the ground of `nicbacklog`, `nicbacklog2`, `nicpkts`, `nicsnapshot` and `nictx`.

use super::samples::ns;
use crate::model::{Carries, Model};
use crate::packets::UNSEEN;

/// A frame with data that was given to a NIC. Times are ns on the common clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owned {
    /// Given to the NIC; the trace's begin, if that was before.
    pub(super) from: i64,
    /// Given back; the trace's end, if that is after.
    pub(super) to: i64,
    /// Both ends were seen.
    pub(super) nic: bool,
    pub(super) free: bool,
    pub(super) queue: u32,
    /// Bytes of the message; with headers.
    pub(super) bytes: f64,
    pub(super) wire: f64,
    pub(super) tcp: bool,
}

/// Frames of each node, by the time when the NIC got them.
pub(super) fn collect(model: &Model) -> Vec<Vec<Owned>> {
    let mut nodes: Vec<Vec<Owned>> = vec![Vec::new(); model.traces.len()];
    // If no packet shows how frames are cut, they are not.
    let mtu = Some(model.flights().mtu).filter(|mtu| *mtu > 0).unwrap_or(u32::MAX);
    for f in model.flights().data.iter().chain(&model.flights().tcp).filter(|f| f.head) {
        let (nic, free) = (f.nic != UNSEEN, f.free != UNSEEN);
        let (Some(list), Some(span)) = (nodes.get_mut(usize::from(f.from)), model.span(f.from)) else { continue };
        if (nic || free) && f.frame > 0 {
            let bytes = f64::from(f.frame);
            let tcp = f.carries == Carries::Tcp;
            let header = if tcp { 40.0 } else { 80.0 };
            let packets = if tcp { f.frame.div_ceil(1448) } else { f.frame.div_ceil(mtu) };
            list.push(Owned {
                from: if nic { f.nic } else { span.0 },
                to: if free { f.free } else { span.1 },
                nic,
                free,
                queue: f.queue,
                bytes,
                wire: bytes + header * f64::from(packets),
                tcp,
            });
        }
    }
    nodes.iter_mut().for_each(|list| list.sort_by_key(|o| o.from));
    nodes
}

/// Sums over a window of a fixed length that ends at given, ascending times.
pub(super) struct Window {
    /// (time, packets, bytes), ascending.
    events: Vec<(i64, f64)>,
    length: i64,
    first: usize,
    next: usize,
    bytes: f64,
}

impl Window {
    pub(super) fn new(mut events: Vec<(i64, f64)>, us: f64) -> Self {
        events.sort_by_key(|(at, _)| *at);
        Self { events, length: ns(us), first: 0, next: 0, bytes: 0.0 }
    }

    /// Packets and bytes in the window that ends at `time`.
    pub(super) fn at(&mut self, time: i64) -> (usize, f64) {
        while let Some((_, bytes)) = self.events.get(self.next).filter(|(at, _)| *at <= time) {
            self.bytes += bytes;
            self.next += 1;
        }
        while self.first < self.next && self.events[self.first].0 <= time - self.length {
            self.bytes -= self.events[self.first].1;
            self.first += 1;
        }
        let packets = self.next - self.first;
        (packets, if packets == 0 { 0.0 } else { self.bytes })
    }

    /// The most packets, and the most bytes, in a window that ends at an event.
    pub(super) fn most(mut self) -> (usize, f64) {
        let mut out = (0, 0.0f64);
        for i in 0..self.events.len() {
            let (packets, bytes) = self.at(self.events[i].0);
            out = (out.0.max(packets), out.1.max(bytes));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_hold_what_is_at_most_their_length_ago() {
        let events = vec![(0, 10.0), (30_000, 20.0), (60_000, 40.0), (61_000, 5.0)];
        let mut window = Window::new(events.clone(), 50.0);
        assert_eq!(
            [0, 49_999, 50_000, 80_000, 200_000].map(|t| window.at(t)),
            [(1, 10.0), (2, 30.0), (1, 20.0), (2, 45.0), (0, 0.0)]
        );
        assert_eq!(Window::new(events, 50.0).most(), (3, 65.0));
    }
}
