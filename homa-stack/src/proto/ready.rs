//! Messages that can send, in the order of SRPT: fewest bytes left first, the older at a tie.
//!
//! A binary heap that knows where each RPC stands in it, by the RPC's key: no hashing, and no more than two stores
//! for a message that enters an empty queue and leaves it again, as short ones do.

#[cfg(feature = "check")]
use super::check::hold;
use super::grants::RpcKey;

const ABSENT: u32 = u32::MAX;

/// A message's place in the order. Serial numbers differ, so that no two are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    /// Bytes never sent.
    pub(crate) left: usize,
    /// Which RPC is older.
    pub(crate) serial: u64,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    heap: Vec<(Turn, RpcKey)>,
    /// Where each RPC stands in the heap, or `ABSENT`.
    places: Vec<u32>,
}

impl Ready {
    /// Enters a message, or changes its turn.
    #[inline]
    pub(crate) fn set(&mut self, rpc: RpcKey, turn: Turn) {
        if self.places.len() <= rpc {
            self.places.resize(rpc + 1, ABSENT);
        }
        let place = match self.places[rpc] {
            ABSENT => {
                self.heap.push((turn, rpc));
                self.heap.len() - 1
            }
            place => {
                self.heap[place as usize].0 = turn;
                place as usize
            }
        };
        let place = self.rise(place);
        self.sink(place);
    }

    /// Takes a message out, if it is in.
    #[inline]
    pub(crate) fn remove(&mut self, rpc: RpcKey) {
        let Some(place) = self.place(rpc) else { return };
        self.places[rpc] = ABSENT;
        let last = self.heap.pop().expect("what has a place is in the heap");
        if place < self.heap.len() {
            self.heap[place] = last;
            let place = self.rise(place);
            self.sink(place);
        }
    }

    /// The message whose turn it is.
    #[inline]
    pub(crate) fn first(&self) -> Option<RpcKey> {
        self.heap.first().map(|(_, rpc)| *rpc)
    }

    /// The turn of a message, if it is in.
    pub(crate) fn turn(&self, rpc: RpcKey) -> Option<Turn> {
        self.place(rpc).map(|place| self.heap[place].0)
    }

    /// The message of the oldest RPC, with its serial number. Looks at all.
    pub(crate) fn oldest(&self) -> Option<(RpcKey, u64)> {
        self.heap.iter().map(|(turn, rpc)| (*rpc, turn.serial)).min_by_key(|(_, serial)| *serial)
    }

    /// Messages in the queue.
    #[cfg(feature = "check")]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// True if no message can send.
    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Checks order and places.
    #[cfg(feature = "check")]
    pub(crate) fn check(&self) -> Result<(), String> {
        for (place, &(turn, rpc)) in self.heap.iter().enumerate() {
            let above = self.heap[place.saturating_sub(1) / 2].0;
            hold!(above <= turn, "{turn:?} stands beneath {above:?}");
            let known = self.place(rpc);
            hold!(known == Some(place), "{rpc} stands at {place}, known at {known:?}");
        }
        let places = self.places.iter().filter(|place| **place != ABSENT).count();
        hold!(places == self.heap.len(), "{places} messages have a place, {} stand in the heap", self.heap.len());
        Ok(())
    }

    fn place(&self, rpc: RpcKey) -> Option<usize> {
        self.places.get(rpc).filter(|place| **place != ABSENT).map(|place| *place as usize)
    }

    /// Brings what stands at `place` up as far as its turn demands; returns where it stands then.
    fn rise(&mut self, mut place: usize) -> usize {
        let entry = self.heap[place];
        while place > 0 && entry.0 < self.heap[(place - 1) / 2].0 {
            let above = (place - 1) / 2;
            self.put(place, self.heap[above]);
            place = above;
        }
        self.put(place, entry);
        place
    }

    /// Likewise down.
    fn sink(&mut self, mut place: usize) {
        let entry = self.heap[place];
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let Some(mut least) = self.heap.get(left).copied() else { break };
            let mut beneath = left;
            if let Some(&other) = self.heap.get(right).filter(|other| other.0 < least.0) {
                (least, beneath) = (other, right);
            }
            if entry.0 < least.0 {
                break;
            }
            self.put(place, least);
            place = beneath;
        }
        self.put(place, entry);
    }

    fn put(&mut self, place: usize, entry: (Turn, RpcKey)) {
        self.heap[place] = entry;
        self.places[entry.1] = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a map: whatever enters, changes its turn and leaves, the first is the first.
        #[test]
        fn turns_equal_those_of_a_map(steps in proptest::collection::vec((0_usize..30, 0_usize..9), 1..300)) {
            let (mut ready, mut model) = (Ready::default(), BTreeMap::new());
            for (rpc, left) in steps {
                if left == 0 {
                    ready.remove(rpc);
                    model.remove(&rpc);
                } else {
                    let turn = Turn { left, serial: 100 - rpc as u64 };
                    ready.set(rpc, turn);
                    model.insert(rpc, turn);
                }
                ready.check().unwrap();
                let first = model.iter().min_by_key(|(_, turn)| **turn).map(|(rpc, _)| *rpc);
                prop_assert_eq!(ready.first(), first);
                let oldest = model.iter().min_by_key(|(_, turn)| turn.serial).map(|(rpc, turn)| (*rpc, turn.serial));
                prop_assert_eq!((ready.oldest(), ready.len()), (oldest, model.len()));
                prop_assert!((0..30).all(|rpc| ready.turn(rpc) == model.get(&rpc).copied()));
            }
        }
    }
}
