//! Binary heaps that know where each entry stands, by its number.
//!
//! An entry enters, changes its key and leaves without hashing, in the time of a few comparisons; one that enters an
//! empty heap and leaves it again, as short messages do in the queue of those that can send, takes some stores.
//! Equal keys are in the order of their numbers, so that what comes first never depends on what was there before.

#[cfg(feature = "check")]
use super::check::hold;

const ABSENT: u32 = u32::MAX;

/// Where entries stand, by their number; heaps that share no entry can share it.
#[derive(Debug, Default)]
pub(crate) struct Places(Vec<u32>);

impl Places {
    fn of(&self, id: usize) -> Option<usize> {
        self.0.get(id).filter(|place| **place != ABSENT).map(|place| *place as usize)
    }
}

/// A heap whose first entry has the least key.
#[derive(Debug)]
pub(crate) struct Heap<K>(Vec<(K, usize)>);

impl<K> Default for Heap<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Copy + Ord> Heap<K> {
    /// Enters `id`, or changes its key.
    #[inline]
    pub(crate) fn set(&mut self, places: &mut Places, id: usize, key: K) {
        if places.0.len() <= id {
            places.0.resize(id + 1, ABSENT);
        }
        let place = match places.0[id] {
            ABSENT => {
                self.0.push((key, id));
                self.0.len() - 1
            }
            place => {
                self.0[place as usize].0 = key;
                place as usize
            }
        };
        self.settle(places, place);
    }

    /// Takes `id`, which is here or nowhere, out; false if it was not here.
    #[inline]
    pub(crate) fn remove(&mut self, places: &mut Places, id: usize) -> bool {
        let Some(place) = places.of(id) else { return false };
        places.0[id] = ABSENT;
        let last = self.0.pop().expect("what has a place is in the heap");
        if place < self.0.len() {
            self.0[place] = last;
            self.settle(places, place);
        }
        true
    }

    /// The least key, and whose it is.
    #[inline]
    pub(crate) fn first(&self) -> Option<(K, usize)> {
        self.0.first().copied()
    }

    /// The key of `id`, which is here or nowhere.
    pub(crate) fn key(&self, places: &Places, id: usize) -> Option<K> {
        places.of(id).map(|place| self.0[place].0)
    }

    /// Moves what stands at `place` up or down, as its key demands.
    fn settle(&mut self, places: &mut Places, mut place: usize) {
        let entry = self.0[place];
        while place > 0 && entry < self.0[(place - 1) / 2] {
            let above = (place - 1) / 2;
            self.put(places, place, self.0[above]);
            place = above;
        }
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let Some(mut least) = self.0.get(left).copied() else { break };
            let mut beneath = left;
            if let Some(&other) = self.0.get(right).filter(|other| **other < least) {
                (least, beneath) = (other, right);
            }
            if entry < least {
                break;
            }
            self.put(places, place, least);
            place = beneath;
        }
        self.put(places, place, entry);
    }

    fn put(&mut self, places: &mut Places, place: usize, entry: (K, usize)) {
        self.0[place] = entry;
        places.0[entry.1] = place as u32;
    }

    /// Checks the order, and that all are where they are said to be.
    #[cfg(feature = "check")]
    pub(crate) fn check(&self, places: &Places) -> Result<(), String> {
        for (place, &(key, id)) in self.0.iter().enumerate() {
            hold!(self.0[place.saturating_sub(1) / 2] <= (key, id), "entry {id} stands beneath a greater one");
            let known = places.of(id);
            hold!(known == Some(place), "entry {id} stands at {place}, known at {known:?}");
        }
        Ok(())
    }
}

/// A heap with places of its own.
#[derive(Debug)]
pub(crate) struct Queue<K> {
    heap: Heap<K>,
    places: Places,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self { heap: Heap::default(), places: Places::default() }
    }
}

impl<K: Copy + Ord> Queue<K> {
    /// Makes room for `more` entries of as many numbers; false if there is no memory.
    pub(crate) fn try_reserve(&mut self, more: usize) -> bool {
        self.heap.0.try_reserve(more).is_ok() && self.places.0.try_reserve(more).is_ok()
    }

    /// Enters `id`, or changes its key.
    #[inline]
    pub(crate) fn set(&mut self, id: usize, key: K) {
        self.heap.set(&mut self.places, id, key);
    }

    /// Takes `id` out; false if it was not in.
    #[inline]
    pub(crate) fn remove(&mut self, id: usize) -> bool {
        self.heap.remove(&mut self.places, id)
    }

    /// The least key, and whose it is.
    #[inline]
    pub(crate) fn first(&self) -> Option<(K, usize)> {
        self.heap.first()
    }

    /// The key of `id`, if it is in.
    #[inline]
    pub(crate) fn key(&self, id: usize) -> Option<K> {
        self.heap.key(&self.places, id)
    }

    /// All, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, usize)> + '_ {
        self.heap.0.iter().copied()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.heap.0.len()
    }

    /// True if there is none.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.heap.0.is_empty()
    }

    /// Checks order and places.
    #[cfg(feature = "check")]
    pub(crate) fn check(&self) -> Result<(), String> {
        self.heap.check(&self.places)?;
        let places = self.places.0.iter().filter(|place| **place != ABSENT).count();
        hold!(places == self.len(), "{places} entries have a place, {} are there", self.len());
        Ok(())
    }
}

/// Whose turn it is to send, by SRPT: fewest bytes left first, the older RPC at a tie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    /// Bytes never sent.
    pub(crate) left: usize,
    /// Which RPC is older.
    pub(crate) serial: u64,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a map: whatever enters, changes its key and leaves, the first is the first.
        #[test]
        fn keys_equal_those_of_a_map(steps in proptest::collection::vec((0_usize..30, 0_u8..9), 1..300)) {
            let (mut queue, mut model) = (Queue::default(), BTreeMap::new());
            for (id, key) in steps {
                if key == 0 {
                    prop_assert_eq!(queue.remove(id), model.remove(&id).is_some());
                } else {
                    queue.set(id, key);
                    model.insert(id, key);
                }
                queue.check().unwrap();
                let first = model.iter().map(|(id, key)| (*key, *id)).min();
                prop_assert_eq!((queue.first(), queue.len()), (first, model.len()));
                prop_assert!((0..30).all(|id| queue.key(id) == model.get(&id).copied()));
            }
        }
    }
}
