//! The host's queue in front of the network card: connections take turns, those that just began first.
//!
//! This is fq_codel (RFC 8290) with a queue for each connection, its two lists and deficits, but without CoDel's drops
//! and marks. The quantum is the length of a segment of offloading, since those leave such a queue as a whole.

use std::collections::VecDeque;

/// No block.
const NONE: u32 = u32::MAX;
/// Segments in a block.
const BLOCK: u32 = 8;

/// Segments of one connection: a list of blocks.
#[derive(Clone, Copy, Debug)]
struct Flow {
    first: u32,
    last: u32,
    /// Segments that have left the first block, and that are in the last.
    taken: u32,
    filled: u32,
    /// Bytes that it may send before the others have their turn.
    credit: i64,
    /// It is in one of the lists.
    listed: bool,
}

/// A segment that waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) seq: u64,
    pub(crate) ack: u64,
    /// Bytes of its frame.
    pub(crate) frame: u32,
    pub(crate) len: u16,
    pub(crate) flags: u8,
    /// [`SELECTIVE`] and [`CAPABLE`].
    pub(crate) bits: u8,
}

/// It has blocks of selective acknowledgements: those there are when it leaves.
pub(crate) const SELECTIVE: u8 = 1;
/// It may be marked.
pub(crate) const CAPABLE: u8 = 2;

const _: () = assert!(size_of::<Waiting>() == 24);

/// Segments that follow each other, and the block behind them, or the next free one.
#[derive(Clone, Copy, Debug)]
struct Block {
    segments: [Waiting; BLOCK as usize],
    next: u32,
}

/// Segments that wait for the card.
#[derive(Debug)]
pub(crate) struct TransmitQueue {
    blocks: Vec<Block>,
    free: u32,
    flows: Vec<Flow>,
    /// Flows that were empty, then those that have had their first turn.
    new: VecDeque<u32>,
    old: VecDeque<u32>,
    quantum: i64,
    /// All packets are in one flow, with the owners beside.
    owners: Option<VecDeque<u32>>,
    len: usize,
}

impl TransmitQueue {
    /// A queue whose flows send `quantum` bytes in turn, or, unless `fair`, in the order of arrival.
    pub(crate) fn new(quantum: u32, fair: bool) -> Self {
        Self {
            blocks: Vec::new(),
            free: NONE,
            flows: Vec::new(),
            new: VecDeque::new(),
            old: VecDeque::new(),
            quantum: i64::from(quantum.max(1)),
            owners: (!fair).then(VecDeque::new),
            len: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a segment of a connection.
    pub(crate) fn push(&mut self, connection: u32, waiting: Waiting) {
        let flow = match &mut self.owners {
            Some(owners) => {
                owners.push_back(connection);
                0
            }
            None => connection,
        };
        if self.flows.len() <= flow as usize {
            let empty = Flow { first: NONE, last: NONE, taken: 0, filled: 0, credit: 0, listed: false };
            self.flows.resize(flow as usize + 1, empty);
        }
        let Flow { first, last, filled, .. } = self.flows[flow as usize];
        let last = if first == NONE || filled == BLOCK { self.extend(flow, first, last) } else { last };
        let f = &mut self.flows[flow as usize];
        self.blocks[last as usize].segments[f.filled as usize] = waiting;
        f.filled += 1;
        self.len += 1;
        if !f.listed {
            (f.listed, f.credit) = (true, self.quantum);
            self.new.push_back(flow);
        }
    }

    /// Takes the segment whose turn it is, and says whose it is.
    pub(crate) fn pop(&mut self) -> Option<(u32, Waiting)> {
        loop {
            let from_new = !self.new.is_empty();
            let list = if from_new { &mut self.new } else { &mut self.old };
            let flow = *list.front()?;
            let f = &mut self.flows[flow as usize];
            if f.credit <= 0 {
                f.credit += self.quantum;
                list.pop_front();
                self.old.push_back(flow);
                continue;
            }
            if f.first == NONE {
                list.pop_front();
                if from_new && !self.old.is_empty() {
                    // A flow that comes and goes does not overtake the others each time.
                    self.old.push_back(flow);
                } else {
                    f.listed = false;
                }
                continue;
            }
            let index = f.first;
            let block = &mut self.blocks[index as usize];
            let waiting = block.segments[f.taken as usize];
            f.taken += 1;
            if f.taken == BLOCK || (index == f.last && f.taken == f.filled) {
                f.taken = 0;
                f.first = std::mem::replace(&mut block.next, self.free);
                self.free = index;
            }
            f.credit -= i64::from(waiting.frame);
            self.len -= 1;
            let owner = self.owners.as_mut().map_or(flow, |owners| owners.pop_front().expect("one for each packet"));
            return Some((owner, waiting));
        }
    }

    /// Adds an empty block to a flow.
    fn extend(&mut self, flow: u32, first: u32, last: u32) -> u32 {
        let index = self.free;
        let index = if index == NONE {
            self.blocks.push(Block { segments: [Waiting::default(); BLOCK as usize], next: NONE });
            self.blocks.len() as u32 - 1
        } else {
            self.free = std::mem::replace(&mut self.blocks[index as usize].next, NONE);
            index
        };
        let f = &mut self.flows[flow as usize];
        if first == NONE {
            f.first = index;
        } else {
            self.blocks[last as usize].next = index;
        }
        (f.last, f.filled) = (index, 0);
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(frame: u32, seq: u64) -> Waiting {
        Waiting { seq, ack: 0, frame, len: 0, flags: 0, bits: 0 }
    }

    fn order(queue: &mut TransmitQueue) -> Vec<(u32, u64)> {
        std::iter::from_fn(|| queue.pop()).map(|(owner, waiting)| (owner, waiting.seq)).collect()
    }

    #[test]
    fn flows_take_turns_of_a_quantum_and_keep_their_order() {
        let mut queue = TransmitQueue::new(2000, true);
        for n in 0..4 {
            queue.push(5, segment(1000, n));
        }
        for n in 0..4 {
            queue.push(2, segment(1000, 10 + n));
        }
        let order = order(&mut queue);
        assert_eq!(order, [(5, 0), (5, 1), (2, 10), (2, 11), (5, 2), (5, 3), (2, 12), (2, 13)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_flow_that_begins_goes_first() {
        let mut queue = TransmitQueue::new(2000, true);
        for n in 0..6 {
            queue.push(1, segment(1000, n));
        }
        assert_eq!([queue.pop().unwrap().1.seq, queue.pop().unwrap().1.seq], [0, 1]);
        queue.push(2, segment(70, 10));
        assert_eq!(order(&mut queue), [(2, 10), (1, 2), (1, 3), (1, 4), (1, 5)]);
    }

    #[test]
    fn without_fairness_the_first_come_is_the_first_served() {
        let mut queue = TransmitQueue::new(1000, false);
        for n in 0..6 {
            queue.push(n % 3, segment(1500, u64::from(n)));
        }
        assert_eq!(order(&mut queue), [(0, 0), (1, 1), (2, 2), (0, 3), (1, 4), (2, 5)]);
    }

    #[test]
    fn each_flow_keeps_its_order_whatever_comes_between() {
        let mut rng = cp_node::rng::Rng::streams(1, None, 1).remove(0);
        let mut queue = TransmitQueue::new(3000, true);
        let (mut pushed, mut popped) = ([0u64; 5], [0u64; 5]);
        for round in 0..20_000 {
            let flow = rng.below(5);
            if rng.below(200) < 99 + 2 * usize::from(round % 2000 < 1000) {
                queue.push(flow as u32, segment(100 + rng.below(1400) as u32, pushed[flow]));
                pushed[flow] += 1;
            } else if let Some((flow, waiting)) = queue.pop() {
                assert_eq!(waiting.seq, popped[flow as usize]);
                popped[flow as usize] += 1;
            } else {
                assert_eq!(pushed, popped);
            }
        }
        for (flow, waiting) in std::iter::from_fn(|| queue.pop()) {
            assert_eq!(waiting.seq, popped[flow as usize]);
            popped[flow as usize] += 1;
        }
        assert_eq!((pushed, queue.is_empty()), (popped, true));
        let used: u64 = pushed.iter().sum();
        assert!((queue.blocks.len() as u64) < used / 20, "blocks are used again: {}", queue.blocks.len());
    }
}
