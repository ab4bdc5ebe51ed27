//! From entries of the ring buffers of all cores to the lines of a `.tt` file, in the order of time.
//!
//! Packets and NAPI structures are named by numbers that count from 1, not by their addresses in the kernel, which are a
//! secret of the machine and are used again and again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::io::{self, Write};

use rustc_hash::FxHashMap;

use super::events::{Decoder, Seen};
use super::format::PageFormat;
use super::pages::{Entries, Item};

/// What was recorded on a core: pages in the order of time.
#[derive(Clone, Debug, Default)]
pub(crate) struct CorePages {
    pub(crate) core: u16,
    pub(crate) pages: Vec<Box<[u8]>>,
}

/// What is needed to read pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) decoder: &'a Decoder,
    pub(crate) page: PageFormat,
    /// Ticks of the clock a nanosecond.
    pub(crate) ticks_per_ns: f64,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Events in the file.
    pub(crate) events: u64,
    /// Entries that are no event that was asked for.
    pub(crate) unknown: u64,
    /// Times of the first and the last event, in ticks.
    pub(crate) span: Option<(u64, u64)>,
}

/// Entries of a core, one after the other.
struct Core<'a> {
    core: u16,
    pages: std::slice::Iter<'a, Box<[u8]>>,
    entries: Entries<'a>,
    format: PageFormat,
}

impl<'a> Core<'a> {
    fn next(&mut self) -> Option<Item<'a>> {
        loop {
            if let Some(item) = self.entries.next() {
                return Some(item);
            }
            self.entries = Entries::new(self.pages.next()?, self.format);
        }
    }
}

fn time(item: Item<'_>) -> u64 {
    match item {
        Item::Entry(time, _) | Item::Lost(time, _) => time,
    }
}

/// Calls `take` with all entries in the order of time: time, core, entry or what was lost.
pub(crate) fn in_order<'a, E>(
    cores: &'a [CorePages],
    format: PageFormat,
    mut take: impl FnMut(u64, u16, Item<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut all: Vec<(Core<'a>, Option<Item<'a>>)> = Vec::new();
    let mut heap = BinaryHeap::new();
    for (place, core) in cores.iter().enumerate() {
        let mut pages = core.pages.iter();
        let entries = pages.next().map_or_else(|| Entries::new(&[], format), |p| Entries::new(p, format));
        let mut core = Core { core: core.core, pages, entries, format };
        let first = core.next();
        if let Some(item) = first {
            heap.push(Reverse((time(item), place)));
        }
        all.push((core, first));
    }
    while let Some(Reverse((at, place))) = heap.pop() {
        let (core, waiting) = &mut all[place];
        let Some(item) = std::mem::replace(waiting, core.next()) else { continue };
        if let Some(next) = waiting {
            heap.push(Reverse((time(*next), place)));
        }
        take(at, core.core, item)?;
    }
    Ok(())
}

/// Writes the events of all cores as `.tt` text.
///
/// # Errors
///
/// Those of `out`.
pub(crate) fn write(cores: &[CorePages], reading: Reading<'_>, out: &mut dyn Write) -> io::Result<Written> {
    let mut written = Written::default();
    let mut names = Names::default();
    let mut previous = 0.0;
    in_order(cores, reading.page, |at, core, item| -> io::Result<()> {
        let seen = match item {
            Item::Entry(_, entry) => match reading.decoder.decode(entry) {
                Some(seen) => Line::Seen(seen, names.number(core, seen)),
                None => {
                    written.unknown += 1;
                    return Ok(());
                }
            },
            Item::Lost(_, count) => Line::Lost(count),
        };
        let first = match &mut written.span {
            Some((first, last)) => {
                *last = at.max(*last);
                *first
            }
            none => {
                *none = Some((at, at));
                let rate = reading.ticks_per_ns;
                writeln!(
                    out,
                    "{:9.3} us (+{:8.3} us) [C{:02}] First event has timestamp {at} (cpu_ghz {rate:.15})",
                    0.0, 0.0, 0
                )?;
                at
            }
        };
        written.events += 1;
        let micros = at.saturating_sub(first) as f64 / (1000.0 * reading.ticks_per_ns);
        writeln!(out, "{micros:9.3} us (+{:8.3} us) [C{core:02}] {seen}", micros - previous)?;
        previous = micros;
        Ok(())
    })?;
    Ok(written)
}

/// Numbers of packets and NAPI structures.
#[derive(Default)]
struct Names {
    packets: FxHashMap<u64, u32>,
    polled: FxHashMap<u64, u32>,
    made: u32,
    /// Packet that each core's GRO has.
    gro: FxHashMap<u16, (u64, u32)>,
}

impl Names {
    /// Number of the packet or NAPI structure that the event is about; 0 if there is none.
    fn number(&mut self, core: u16, seen: Seen<'_>) -> u32 {
        match seen {
            Seen::Poll(address, ..) => {
                let next = self.polled.len() as u32 + 1;
                *self.polled.entry(address).or_insert(next)
            }
            Seen::Backlog(address, ..) => self.new_packet(address),
            Seen::Gro(address, ..) => {
                let number = self.new_packet(address);
                self.gro.insert(core, (address, number));
                number
            }
            Seen::GroDone(result) => {
                let Some((address, number)) = self.gro.remove(&core) else { return 0 };
                // Part of another packet now, or gone.
                if matches!(result, 0 | 1 | 4) && self.packets.get(&address) == Some(&number) {
                    self.packets.remove(&address);
                }
                number
            }
            // From a device without queue, or received a second time, by a bridge's port and then by the bridge.
            Seen::Receive(address, ..) => self.packets.remove(&address).unwrap_or_else(|| self.next()),
            _ => 0,
        }
    }

    fn next(&mut self) -> u32 {
        self.made = self.made.wrapping_add(1).max(1);
        self.made
    }

    fn new_packet(&mut self, address: u64) -> u32 {
        let number = self.next();
        self.packets.insert(address, number);
        number
    }
}

/// The message of a line.
enum Line<'a> {
    Seen(Seen<'a>, u32),
    Lost(Option<u64>),
}

/// A name in a message: other than letters, digits and common signs are shown as `?`, so that a name can't break a line.
struct Name<'a>(&'a [u8]);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |b: &u8| if b.is_ascii_graphic() { char::from(*b) } else { '?' };
        self.0.iter().try_for_each(|b| write!(f, "{}", plain(b)))
    }
}

impl fmt::Display for Line<'_> {
    #[rustfmt::skip]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Line::Lost(Some(count)) => write!(f, "kernel trace lost {count} events before this"),
            Line::Lost(None) => write!(f, "kernel trace lost events before this"),
            Line::Seen(seen, number) => match seen {
                Seen::Raise(vector) => write!(f, "kernel softirq {vector} raised"),
                Seen::Begin(vector) => write!(f, "kernel softirq {vector} begins"),
                Seen::End(vector) => write!(f, "kernel softirq {vector} ends"),
                Seen::Poll(_, work, budget, device) => write!(f, "kernel napi {number} polled, work {work}, budget {budget}, device {}", Name(device)),
                Seen::Backlog(_, length, device) => write!(f, "kernel backlog gets skb {number}, length {length}, device {}", Name(device)),
                Seen::Gro(_, length, device) => write!(f, "kernel gro gets skb {number}, length {length}, device {}", Name(device)),
                Seen::GroDone(result) => write!(f, "kernel gro done with skb {number}, result {result}"),
                Seen::Receive(_, length, device) => write!(f, "kernel receives skb {number}, length {length}, device {}", Name(device)),
                Seen::Xmit(queue, length, device) => write!(f, "kernel sends length {length}, queue {queue}, device {}", Name(device)),
                Seen::Wake(pid, core, priority, name) => write!(f, "kernel wakes pid {pid} for core {core}, priority {priority}, name {}", Name(name)),
                Seen::Switch(old, new, state, old_name, new_name) => write!(f, "finish_task_switch, old pid {old}, new pid {new}, old state {state}, old name {}, new name {}", Name(old_name), Name(new_name)),
                Seen::Irq(irq, name) => write!(f, "Entering IRQ {irq}, name {}", Name(name)),
            },
        }
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
