//! Fine timers of RPCs: a wheel of slots, at most one timer an RPC.
//!
//! Ticks of a millisecond are right for peers that are gone; what is repaired in a fraction of that needs timers of its
//! own. Most of them are set and taken back without ever being due, so both take a few stores: no hashing, no order,
//! and no allocation once as many RPCs were met.

#[cfg(feature = "check")]
use super::check::hold;
use super::grants::RpcKey;
use crate::units::Instant;

/// Slots; as many as there are bits in [`Wheel::occupied`].
const SLOTS: u64 = 128;

/// Nanoseconds of a slot, as a power of two: timers are up to 33 us late, and never early unless they are further off
/// than the wheel is long (4.2 ms).
const SLOT_BITS: u32 = 15;

const NIL: u32 = u32::MAX;
const UNSET: u8 = u8::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    prev: u32,
    next: u32,
    /// Where the timer stands, or `UNSET`.
    slot: u8,
}

/// Timers by RPC. A timer that is due may have been set for a later time: who takes it looks again, and sets it anew.
#[derive(Debug)]
pub(crate) struct Wheel {
    heads: [u32; SLOTS as usize],
    /// Slots with timers in them.
    occupied: u128,
    /// No timer stands in a slot before this one; counted from the clock's origin.
    cursor: u64,
    links: Vec<Link>,
    len: usize,
}

impl Default for Wheel {
    fn default() -> Self {
        Self { heads: [NIL; SLOTS as usize], occupied: 0, cursor: 0, links: Vec::new(), len: 0 }
    }
}

impl Wheel {
    /// Sets the timer of `rpc` to `at`, or to a time before it if that is too far off.
    pub(crate) fn set(&mut self, now: Instant, rpc: RpcKey, at: Instant) {
        self.clear(rpc);
        let present = now.as_nanos() >> SLOT_BITS;
        // As far ahead as timers allow, so that the whole wheel is there for this one.
        self.cursor = self.first().map_or(present, |slot| slot.min(present).max(self.cursor));
        let wanted = at.as_nanos().div_ceil(1 << SLOT_BITS).max(present + 1);
        let slot = (wanted.clamp(self.cursor, self.cursor + SLOTS - 1) % SLOTS) as u8;
        if self.links.len() <= rpc {
            self.links.resize(rpc + 1, Link { prev: NIL, next: NIL, slot: UNSET });
        }
        let next = self.heads[usize::from(slot)];
        self.links[rpc] = Link { prev: NIL, next, slot };
        if next != NIL {
            self.links[next as usize].prev = rpc as u32;
        }
        self.heads[usize::from(slot)] = rpc as u32;
        self.occupied |= 1 << slot;
        self.len += 1;
    }

    /// Makes room for the timers of `more` RPCs; false if there is no memory.
    pub(crate) fn try_reserve(&mut self, more: usize) -> bool {
        self.links.try_reserve(more).is_ok()
    }

    /// Takes the timer of `rpc` back, if it is set.
    pub(crate) fn clear(&mut self, rpc: RpcKey) {
        let Some(&Link { prev, next, slot }) = self.links.get(rpc).filter(|link| link.slot != UNSET) else { return };
        self.links[rpc].slot = UNSET;
        if prev == NIL {
            self.heads[usize::from(slot)] = next;
        } else {
            self.links[prev as usize].next = next;
        }
        if next != NIL {
            self.links[next as usize].prev = prev;
        }
        if self.heads[usize::from(slot)] == NIL {
            self.occupied &= !(1 << slot);
        }
        self.len -= 1;
    }

    /// True if the timer of `rpc` is set.
    #[cfg(feature = "check")]
    pub(crate) fn is_set(&self, rpc: RpcKey) -> bool {
        self.links.get(rpc).is_some_and(|link| link.slot != UNSET)
    }

    /// When the first timer is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.first().map(|slot| Instant::from_nanos(slot << SLOT_BITS))
    }

    /// Takes a timer that is due. Those set meanwhile are due later than `now`.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<RpcKey> {
        let slot = self.first().filter(|slot| *slot <= now.as_nanos() >> SLOT_BITS)?;
        self.cursor = slot;
        let rpc = self.heads[(slot % SLOTS) as usize] as RpcKey;
        self.clear(rpc);
        Some(rpc)
    }

    /// Timers set.
    #[cfg(feature = "check")]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Checks the lists against the count.
    #[cfg(feature = "check")]
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut found = 0;
        for (slot, &head) in self.heads.iter().enumerate() {
            hold!((self.occupied >> slot & 1 == 1) == (head != NIL), "slot {slot} begins with {head}");
            let (mut at, mut prev) = (head, NIL);
            while at != NIL {
                let link = self.links[at as usize];
                hold!(usize::from(link.slot) == slot && link.prev == prev, "timer {at} in slot {slot}: {link:?}");
                (prev, at) = (at, link.next);
                found += 1;
            }
        }
        hold!(found == self.len, "{found} timers, counted {}", self.len);
        Ok(())
    }

    /// The first slot with a timer, counted from the clock's origin.
    fn first(&self) -> Option<u64> {
        let ahead = self.occupied.rotate_right((self.cursor % SLOTS) as u32);
        (ahead != 0).then(|| self.cursor + u64::from(ahead.trailing_zeros()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::units::Nanos;
    use proptest::prelude::*;

    const SLOT: Nanos = Nanos::from_nanos(1 << SLOT_BITS);

    #[test]
    fn a_timer_beyond_the_wheel_is_due_before_its_time_and_others_are_not() {
        let (mut wheel, now) = (Wheel::default(), Instant::from_nanos(77_777_777));
        wheel.set(now, 0, now + Nanos::from_secs(1));
        wheel.set(now, 3, now + Nanos::from_micros(500));
        let first = wheel.next().unwrap();
        assert!(first >= now + Nanos::from_micros(500) && first < now + Nanos::from_micros(540));
        assert_eq!(wheel.take_due(now + Nanos::from_micros(499)), None);
        assert_eq!(wheel.take_due(first), Some(3));
        assert_eq!(wheel.take_due(first), None);
        assert!(wheel.next().unwrap() < now + Nanos::from_millis(5), "the wheel is 4.2 ms long");
    }

    #[test]
    fn a_timer_set_for_the_past_is_due_in_the_next_slot() {
        let (mut wheel, now) = (Wheel::default(), Instant::from_nanos(1 << 30));
        wheel.set(now, 0, Instant::default());
        assert_eq!(wheel.take_due(now), None, "or a timer that sets itself anew would never end");
        assert_eq!(wheel.take_due(now + SLOT), Some(0));
        assert_eq!(wheel.next(), None);
    }

    proptest! {
        /// Against a map: what is due comes out once, at its time or up to a slot later.
        #[test]
        fn timers_equal_those_of_a_map(steps in proptest::collection::vec((0_usize..20, 0_u64..6_000_000, 0_u64..200_000), 1..200)) {
            let (mut wheel, mut model) = (Wheel::default(), BTreeMap::new());
            let mut now = Instant::from_nanos(123_456);
            for (rpc, span, step) in steps {
                if span < 1_000_000 {
                    wheel.clear(rpc);
                    model.remove(&rpc);
                } else {
                    wheel.set(now, rpc, now + Nanos::from_nanos(span));
                    model.insert(rpc, (now + Nanos::from_nanos(span), now + Nanos::from_nanos(3_900_000)));
                }
                wheel.check().unwrap();
                prop_assert_eq!(wheel.len(), model.len());
                now = now + Nanos::from_nanos(step);
                while let Some(due) = wheel.take_due(now) {
                    let (at, far) = model.remove(&due).expect("it is due once");
                    prop_assert!(at <= now || far <= now, "{at:?} at {now:?}");
                }
                prop_assert!(model.values().all(|(at, _)| now < *at + SLOT), "{model:?} at {now:?}");
                prop_assert!((0..20).all(|rpc| wheel.is_set(rpc) == model.contains_key(&rpc)));
            }
        }
    }
}
