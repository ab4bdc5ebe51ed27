//! The kernel's own counters of SoftIRQs and packets, against which a recording is checked.
//!
//! They are read once at the start and once at the end of a recording, and the clock before and after each reading. What
//! the counters gained must lie between the numbers of events in the shortest and in the longest time that the two
//! readings leave.

use std::fs;

use super::clock::TraceClock;
use super::events::{NET_RX, NET_TX};

/// Counters of one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CoreCounters {
    /// NET_RX run (`/proc/softirqs`).
    pub net_rx: u64,
    /// NET_TX run (`/proc/softirqs`).
    pub net_tx: u64,
    /// Packets received (`/proc/net/softnet_stat`, column 1).
    pub processed: u64,
    /// Packets dropped as the backlog was full (column 2).
    pub dropped: u64,
    /// NET_RX ended with work left (column 3).
    pub squeezed: u64,
}

/// All cores' counters, and when they were read.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// By core; `None` where the kernel says nothing of it.
    cores: Vec<Option<CoreCounters>>,
    before: u64,
    after: u64,
}

impl Reading {
    /// Reads the counters now.
    pub(crate) fn now(clock: TraceClock) -> Self {
        let before = clock.ticks();
        let softirqs = fs::read_to_string("/proc/softirqs").unwrap_or_default();
        let softnet = fs::read_to_string("/proc/net/softnet_stat").unwrap_or_default();
        let after = clock.ticks();
        Self { cores: parse(&softirqs, &softnet), before, after }
    }

    /// What a core's counters gained from `start` until now.
    fn since(&self, start: &Self, core: u16) -> Option<CoreCounters> {
        let of = |reading: &Self| reading.cores.get(usize::from(core)).copied().flatten();
        let (start, end) = (of(start)?, of(self)?);
        // Counters of 32 bits may wrap.
        let gained = |from: u64, to: u64| if to >= from { to - from } else { to.wrapping_sub(from) & 0xffff_ffff };
        Some(CoreCounters {
            net_rx: gained(start.net_rx, end.net_rx),
            net_tx: gained(start.net_tx, end.net_tx),
            processed: gained(start.processed, end.processed),
            dropped: gained(start.dropped, end.dropped),
            squeezed: gained(start.squeezed, end.squeezed),
        })
    }
}

/// Counters by core, from `/proc/softirqs` and `/proc/net/softnet_stat`.
fn parse(softirqs: &str, softnet: &str) -> Vec<Option<CoreCounters>> {
    let mut cores: Vec<Option<CoreCounters>> = Vec::new();
    let mut lines = softirqs.lines();
    let heads: Vec<usize> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|w| w.strip_prefix("CPU")?.parse().ok())
        .collect();
    for line in lines {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        if !matches!(name, "NET_RX:" | "NET_TX:") {
            continue;
        }
        for (core, count) in heads.iter().zip(words.filter_map(|w| w.parse().ok())) {
            let counters = core_of(&mut cores, *core);
            *(if name == "NET_RX:" { &mut counters.net_rx } else { &mut counters.net_tx }) = count;
        }
    }
    for (line_number, line) in softnet.lines().enumerate() {
        let columns: Vec<u64> = line.split_whitespace().filter_map(|w| u64::from_str_radix(w, 16).ok()).collect();
        // Column 13 is the core, since Linux 5.10; before, cores are in order.
        let core = columns.get(12).map_or(line_number, |c| *c as usize);
        if let [processed, dropped, squeezed, ..] = columns[..]
            && core <= usize::from(u16::MAX)
        {
            let counters = core_of(&mut cores, core);
            (counters.processed, counters.dropped, counters.squeezed) = (processed, dropped, squeezed);
        }
    }
    cores
}

fn core_of(cores: &mut Vec<Option<CoreCounters>>, core: usize) -> &mut CoreCounters {
    if core >= cores.len() {
        cores.resize(core + 1, None);
    }
    cores[core].get_or_insert_default()
}

/// Events of a core that the kernel counts, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// A SoftIRQ of this vector began.
    Begin(u32),
    /// A packet was received.
    Received,
}

/// A core's events in the shortest and the longest time between the readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Bounds {
    /// Surely between the readings.
    pub least: u64,
    /// Perhaps between them.
    pub most: u64,
}

impl Bounds {
    fn add(&mut self, at: u64, start: &Reading, end: &Reading) {
        self.least += u64::from(at > start.after && at < end.before);
        self.most += u64::from(at >= start.before && at <= end.after);
    }

    /// True if a counter that gained `count` agrees. Counting and tracing of one event are some nanoseconds apart, and a
    /// reading may fall between them.
    pub fn agrees(self, count: u64) -> bool {
        (self.least.saturating_sub(1)..=self.most + 1).contains(&count)
    }
}

/// A core's events beside the kernel's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CoreCheck {
    /// The core.
    pub core: u16,
    /// What the kernel counted.
    pub counted: CoreCounters,
    /// NET_RX begun.
    pub net_rx: Bounds,
    /// NET_TX begun.
    pub net_tx: Bounds,
    /// Packets received.
    pub processed: Bounds,
}

/// Compares events with counters, core by core.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    start: Reading,
    end: Reading,
    cores: Vec<CoreCheck>,
}

impl Check {
    pub(crate) fn new(start: Reading, end: Reading, cores: &[u16]) -> Self {
        let of =
            |core: &u16| Some(CoreCheck { core: *core, counted: end.since(&start, *core)?, ..CoreCheck::default() });
        let cores = cores.iter().filter_map(of).collect();
        Self { start, end, cores }
    }

    /// Takes an event of `core` at the time `at`.
    pub(crate) fn add(&mut self, core: u16, at: u64, event: Counted) {
        let Some(check) = self.cores.iter_mut().find(|c| c.core == core) else { return };
        let bounds = match event {
            Counted::Begin(NET_RX) => &mut check.net_rx,
            Counted::Begin(NET_TX) => &mut check.net_tx,
            Counted::Begin(_) => return,
            Counted::Received => &mut check.processed,
        };
        bounds.add(at, &self.start, &self.end);
    }

    pub(crate) fn finish(self) -> Vec<CoreCheck> {
        self.cores
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOFTIRQS: &str = "                    CPU0       CPU2       \n          HI:          0          1\n      \
        NET_TX:         11         12\n      NET_RX:       2100        700\n";
    const SOFTNET: &str = "000000ff 00000001 00000002 0 0 0 0 0 0 0 0 0 00000000 00000000 00000000\n\
        00000010 00000000 00000000 0 0 0 0 0 0 0 0 0 00000002 00000000 00000000\n";

    fn reading(cores: Vec<Option<CoreCounters>>, before: u64, after: u64) -> Reading {
        Reading { cores, before, after }
    }

    #[test]
    fn counters_are_read_for_each_core_that_runs() {
        let cores = parse(SOFTIRQS, SOFTNET);
        let zero = CoreCounters { net_rx: 2100, net_tx: 11, processed: 255, dropped: 1, squeezed: 2 };
        let two = CoreCounters { net_rx: 700, net_tx: 12, processed: 16, dropped: 0, squeezed: 0 };
        assert_eq!(cores, [Some(zero), None, Some(two)]);
        assert_eq!(parse("", "zz\n"), []);
    }

    #[test]
    fn counters_agree_within_the_time_of_their_readings() {
        let start = CoreCounters { net_rx: 10, processed: 0xffff_fffe, ..Default::default() };
        let end = CoreCounters { net_rx: 13, processed: 1, ..Default::default() };
        let (start, end) = (reading(vec![Some(start)], 100, 110), reading(vec![Some(end)], 200, 210));
        let mut check = Check::new(start, end, &[0, 1]);
        // Before, while the first is read, between, while the second is read, after.
        for at in [99, 105, 150, 160, 205, 211] {
            check.add(0, at, Counted::Begin(NET_RX));
            check.add(0, at, Counted::Received);
            check.add(0, at, Counted::Begin(1));
            check.add(9, at, Counted::Received);
        }
        let cores = check.finish();
        let bounds = Bounds { least: 2, most: 4 };
        assert_eq!(cores.len(), 1, "nothing is known of core 1");
        assert_eq!((cores[0].net_rx, cores[0].processed, cores[0].net_tx), (bounds, bounds, Bounds::default()));
        assert_eq!((cores[0].counted.net_rx, cores[0].counted.processed), (3, 3), "a counter of 32 bits wraps");
        assert_eq!([0, 1, 5, 6].map(|n| bounds.agrees(n)), [false, true, true, false]);
    }
}
