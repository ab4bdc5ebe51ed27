//! Memory that RPCs and their messages occupy, and a budget for it that endpoints can share.
//!
//! What counts is what is taken from the system, not what is carried: pages of the receive pool with all their bytes
//! whether a message fills them or not, and for each RPC its place in the tables besides the bytes that it sends. A
//! budget has three marks, as TCP's has in the kernel:
//!
//! | memory is | while | outgoing messages hold at most | receive pool |
//! | --- | --- | --- | --- |
//! | plenty | below `low`, or not yet above `pressure` | `tx_budget` | all pages |
//! | pressed | above `pressure`, until below `low` | `tx_pressed` | a quarter of the pages; unused ones give their memory back |
//! | full | at `most` | `tx_least` | the pages of one message of any length |
//!
//! Each endpoint keeps enough for one message in and one out, so that RPCs end, slowly, however full it is. The budget
//! can be exceeded by that much for each endpoint.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[cfg(feature = "check")]
use super::check::hold;
use super::config::Config;
use super::endpoint::Endpoint;
use super::pool::{Lease, PAGE_LEN};
use super::timers::IDLE_TICK;
use crate::units::{Instant, Nanos};
use crate::wire::MAX_MESSAGE_LEN;

/// Bytes that an RPC takes in the tables, and what an outgoing message takes besides its bytes, as the bench `memory`
/// prints them.
const RPC_FOOTPRINT: usize = 144;
const MESSAGE_FOOTPRINT: usize = 256;

/// What a call holds besides the bytes of its message.
pub(crate) const FOOTPRINT: usize = RPC_FOOTPRINT + MESSAGE_FOOTPRINT;

/// Endpoints take memory from the budget in steps of this, so that they seldom touch what they share.
const STEP: usize = 256 << 10;

/// Pages for one message of any length.
const LEAST_PAGES: usize = MAX_MESSAGE_LEN.div_ceil(PAGE_LEN);

/// Where memory becomes scarce, in bytes, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Below this it is plenty again.
    pub low: usize,
    /// Above this it is pressed.
    pub pressure: usize,
    /// From this on it is full.
    pub most: usize,
}

/// Marks that are not in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} are not in order: expected 0 < `low` <= `pressure` <= `most`")]
pub struct BadMarks(pub Marks);

/// How much memory is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// Enough.
    #[default]
    Plenty,
    /// Less than one would like.
    Pressed,
    /// None.
    Full,
}

/// A budget of memory for endpoints: clones are the same budget. The default is without limit.
///
/// ```
/// use homa_stack::proto::{Marks, Memory, MemoryBudget};
/// use homa_stack::{Config, Endpoint};
///
/// let budget = MemoryBudget::new(Marks { low: 60 << 20, pressure: 80 << 20, most: 100 << 20 }).unwrap();
/// let config = Config { memory: budget.clone(), ..Config::default() };
/// let workers = [Endpoint::new(config.clone()), Endpoint::new(config)];
/// assert_eq!(budget.taken(), 0); // until messages come or go
/// assert!(workers.iter().all(|worker| worker.memory() == Memory::Plenty));
/// ```
#[derive(Clone, Default)]
pub struct MemoryBudget(Option<Arc<Shared>>);

struct Shared {
    marks: Marks,
    /// Bytes that endpoints have taken.
    taken: AtomicUsize,
    /// True from above `pressure` until below `low`.
    pressed: AtomicBool,
}

impl MemoryBudget {
    /// A budget with these marks.
    ///
    /// # Errors
    ///
    /// If they are not in order.
    pub fn new(marks: Marks) -> Result<Self, BadMarks> {
        let Marks { low, pressure, most } = marks;
        if low == 0 || low > pressure || pressure > most {
            return Err(BadMarks(marks));
        }
        Ok(Self(Some(Arc::new(Shared { marks, taken: AtomicUsize::new(0), pressed: AtomicBool::new(false) }))))
    }

    /// Bytes that endpoints have taken; 0 if there is no limit.
    pub fn taken(&self) -> usize {
        self.0.as_ref().map_or(0, |shared| shared.taken.load(Ordering::Relaxed))
    }

    fn state(&self) -> Memory {
        self.0.as_ref().map_or(Memory::Plenty, |shared| shared.state())
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(shared) => write!(f, "MemoryBudget({} of {:?})", self.taken(), shared.marks),
            None => write!(f, "MemoryBudget(no limit)"),
        }
    }
}

impl Shared {
    /// Several endpoints may look and change at once: whoever looks next puts right what they got wrong.
    fn state(&self) -> Memory {
        let (taken, Marks { low, pressure, most }) = (self.taken.load(Ordering::Relaxed), self.marks);
        if taken > pressure || taken >= most {
            self.pressed.store(true, Ordering::Relaxed);
        } else if taken < low && self.pressed.load(Ordering::Relaxed) {
            self.pressed.store(false, Ordering::Relaxed);
        }
        match self.pressed.load(Ordering::Relaxed) {
            _ if taken >= most => Memory::Full,
            true => Memory::Pressed,
            false => Memory::Plenty,
        }
    }
}

/// What an endpoint has of the budget. Given back when it goes.
#[derive(Debug, Default)]
pub(super) struct Occupied {
    budget: MemoryBudget,
    /// Bytes taken from the budget: never fewer than are in use, if there is a limit.
    reserved: usize,
    /// How much was left when this endpoint looked last.
    state: Memory,
    /// Bytes in use, and outgoing messages with their bytes, since `counted`.
    used: usize,
    messages: usize,
    message_bytes: usize,
    counted: Instant,
}

impl Occupied {
    pub(super) fn new(budget: MemoryBudget) -> Self {
        Self { budget, ..Self::default() }
    }

    /// An outgoing message of `len` bytes begins.
    pub(super) fn begin(&mut self, len: usize) {
        self.messages += 1;
        self.message_bytes += len;
    }

    /// It is over.
    pub(super) fn end(&mut self, len: usize) {
        self.messages -= 1;
        self.message_bytes -= len;
    }

    pub(super) fn has_limit(&self) -> bool {
        self.budget.0.is_some()
    }

    /// Takes from the budget, or gives back, so that `used` bytes are reserved and little more.
    fn reserve(&mut self, used: usize) {
        let Some(shared) = &self.budget.0 else { return };
        let right = used.next_multiple_of(STEP);
        if right > self.reserved {
            shared.taken.fetch_add(right - self.reserved, Ordering::Relaxed);
            self.reserved = right;
        } else if self.reserved - right > STEP || used == 0 {
            shared.taken.fetch_sub(self.reserved - right, Ordering::Relaxed);
            self.reserved = right;
        }
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.reserve(0);
    }
}

impl Config {
    /// Most bytes that outgoing messages may hold as memory is now.
    pub(super) fn tx_limit(&self, memory: Memory) -> usize {
        match memory {
            Memory::Plenty => self.tx_budget,
            Memory::Pressed => self.tx_pressed.min(self.tx_budget),
            Memory::Full => self.tx_least.min(self.tx_budget),
        }
    }

    /// Most pages of the receive pool that may have memory.
    fn page_limit(&self, memory: Memory) -> usize {
        match memory {
            Memory::Plenty => usize::MAX,
            Memory::Pressed => (self.pool_pages / 4).max(LEAST_PAGES),
            Memory::Full => LEAST_PAGES,
        }
    }
}

impl Endpoint {
    /// How much memory was left when this endpoint last looked: when an RPC began or ended, and each tick.
    pub fn memory(&self) -> Memory {
        self.memory.state
    }

    /// Bytes of memory that RPCs and messages of this endpoint occupy.
    pub fn occupied(&self) -> usize {
        let tables = self.rpcs.len() * RPC_FOOTPRINT + self.memory.messages * MESSAGE_FOOTPRINT;
        self.pool.resident() * PAGE_LEN + tables + self.memory.message_bytes
    }

    /// Room in the pool for a message of `len` bytes, if there is any now.
    pub(super) fn take_pages(&mut self, len: usize) -> Option<Lease> {
        let before = self.pool.resident();
        let mut lease = self.pool.alloc(len);
        if lease.is_none() && self.pool.take_back() {
            lease = self.pool.alloc(len);
        }
        if self.pool.resident() != before {
            self.account();
        }
        lease
    }

    /// Brings up to date what is occupied, in the budget and in the metrics. To be called whenever that has changed.
    #[inline]
    pub(super) fn account(&mut self) {
        self.count_memory();
        self.memory.used = self.occupied();
        self.metrics.memory_most = self.metrics.memory_most.max(self.memory.used as u64);
        self.metrics.tx_held_most = self.metrics.tx_held_most.max(self.memory.message_bytes as u64);
        if self.memory.has_limit() {
            self.memory.reserve(self.memory.used);
            self.look_at_memory();
        }
    }

    /// Sums up what was occupied for how long, in whole microseconds.
    fn count_memory(&mut self) {
        let memory = &mut self.memory;
        let micros = self.latest.since(memory.counted).as_nanos() / 1000;
        if micros == 0 {
            return;
        }
        self.metrics.memory_integral += (memory.used >> 10) as u64 * micros;
        self.metrics.tx_held_integral += memory.message_bytes as u64 * micros;
        self.metrics.tx_messages_integral += memory.messages as u64 * micros;
        if memory.state != Memory::Plenty {
            self.metrics.memory_pressed_micros += micros;
        }
        memory.counted = memory.counted + Nanos::from_micros(micros);
    }

    /// Acts on how much memory is left.
    #[cold]
    fn look_at_memory(&mut self) {
        let before = self.memory.state;
        let state = self.memory.budget.state();
        if before != state {
            self.memory.state = state;
            self.metrics.memory_pressures += u64::from(before == Memory::Plenty);
            self.metrics.memory_reliefs += u64::from(state == Memory::Plenty);
            self.pool.set_limit(self.config.page_limit(state));
        }
    }

    /// What ticks do: memory may have come free elsewhere, and what is not in use is given back while it is scarce.
    pub(super) fn review_memory(&mut self) {
        self.account();
        let idle = self.rpcs.is_empty() && self.memory.has_limit();
        if idle || self.memory.state != Memory::Plenty {
            self.metrics.pages_given_back += self.pool.trim() as u64;
            self.account();
        }
        self.tell_of_room();
    }

    /// Gives pages that the application has left to messages that wait, or later back to the system.
    #[inline]
    pub(super) fn pages_came_free(&mut self) {
        if !self.starved.is_empty() {
            self.feed_starved();
        }
        if self.next_tick.is_none() && self.minds_memory() {
            self.next_tick = Some(self.latest + IDLE_TICK);
        }
    }

    /// True if an endpoint without RPCs has memory that others could use, or would not hear that there is more.
    pub(super) fn minds_memory(&self) -> bool {
        self.memory.has_limit() && (self.pool.has_spare() || self.memory.state != Memory::Plenty)
    }

    /// Checks the sums against the RPCs and the pool.
    #[cfg(feature = "check")]
    pub(super) fn check_memory(&self) -> Result<(), String> {
        let sent = self.rpcs.iter().filter_map(|(_, rpc)| rpc.tx.as_ref());
        let right = sent.fold((0, 0), |(count, bytes), tx| (count + 1, bytes + tx.len));
        let counted = (self.memory.messages, self.memory.message_bytes);
        hold!(right == counted, "outgoing messages and their bytes: {right:?}, counted: {counted:?}");
        let (used, reserved) = (self.memory.used, self.memory.reserved);
        if self.memory.has_limit() {
            hold!(used <= reserved && reserved - used <= 2 * STEP, "{used} bytes in use, {reserved} reserved");
        }
        // Pages that are freed change nothing; those that are taken and RPCs that begin or end are counted at once.
        hold!(used == self.occupied(), "{} bytes are occupied, counted {used}", self.occupied());
        self.pool.check_memory()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(low: usize, pressure: usize, most: usize) -> MemoryBudget {
        MemoryBudget::new(Marks { low, pressure, most }).unwrap()
    }

    #[test]
    fn marks_must_be_in_order() {
        for (low, pressure, most) in [(0, 1, 2), (2, 1, 3), (1, 3, 2)] {
            let marks = Marks { low, pressure, most };
            let error = MemoryBudget::new(marks).unwrap_err();
            assert_eq!(error, BadMarks(marks));
            assert!(error.to_string().contains("`low` <= `pressure`"), "{error}");
        }
    }

    #[test]
    fn pressure_begins_above_its_mark_and_ends_below_the_low_one() {
        let budget = budget(4 * STEP, 6 * STEP, 8 * STEP);
        let mut all = Occupied::new(budget.clone());
        let mut states = Vec::new();
        for used in [1, 4, 6, 7, 6, 4, 5, 8, 9, 7, 4, 2, 5, 0] {
            all.reserve(used * STEP);
            states.push(budget.state());
        }
        use Memory::{Full, Plenty, Pressed};
        let right = [
            Plenty, Plenty, Plenty, Pressed, Pressed, Pressed, Pressed, Full, Full, Pressed, Pressed, Plenty, Plenty,
            Plenty,
        ];
        assert_eq!(states, right);
    }

    #[test]
    fn endpoints_share_a_budget_and_leave_nothing_taken() {
        let budget = budget(STEP, 2 * STEP, 3 * STEP);
        let (mut a, mut b) = (Occupied::new(budget.clone()), Occupied::new(budget.clone()));
        a.reserve(1);
        b.reserve(STEP + 1);
        assert_eq!((budget.taken(), budget.state()), (3 * STEP, Memory::Full));
        b.reserve(1);
        assert_eq!(budget.taken(), 3 * STEP, "a step is kept, so that few calls touch what is shared");
        drop(b);
        assert_eq!(budget.taken(), STEP);
        drop(a);
        assert_eq!(budget.taken(), 0);
        assert_eq!(MemoryBudget::default().state(), Memory::Plenty);
    }

    #[test]
    fn each_state_has_its_size_of_what_may_be_sent_and_received() {
        let config = Config { pool_pages: 1000, ..Config::default() };
        let sizes = [Memory::Plenty, Memory::Pressed, Memory::Full].map(|m| (config.tx_limit(m), config.page_limit(m)));
        assert_eq!(sizes, [(100_000_000, usize::MAX), (10_000_000, 250), (1_000_000, 16)]);
        let small = Config { tx_budget: 3_000, pool_pages: 20, ..config };
        let sizes = [Memory::Pressed, Memory::Full].map(|m| (small.tx_limit(m), small.page_limit(m)));
        assert_eq!(sizes, [(3_000, 16), (3_000, 16)], "a message of any length has room");
    }
}
