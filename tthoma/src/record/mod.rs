//! Records what the kernel does with packets, as a `.tt` trace on the clock of `homa-stack`'s: SoftIRQs, NAPI polls, packets
//! received and sent, threads woken and switched. Nothing but the kernel's own tracing is needed.
//!
//! | step | module |
//! | --- | --- |
//! | an instance of tracing with rings of its own, always removed again | `tracefs` |
//! | which events, filtered how, where their fields are | `events`, [`format`] |
//! | pages of the rings to entries | `pages` |
//! | the clock, and how wrong its rate can be | `clock` |
//! | entries of all cores to `.tt` lines | `text` |
//! | the kernel's own counters, to check the result | `counters` |
//!
//! # The lines
//!
//! | message | when |
//! | --- | --- |
//! | `kernel softirq V raised` | SoftIRQ V (2 NET_TX, 3 NET_RX) is wanted on this core |
//! | `kernel softirq V begins`, `kernel softirq V ends` | it runs |
//! | `kernel backlog gets skb N, length L, device D` | packet N is about to be queued for a core's backlog |
//! | `kernel gro gets skb N, length L, device D` | a driver passes packet N to GRO |
//! | `kernel gro done with skb N, result R` | what became of it: 0, 1 part of another packet; 2 held; 3 passed on; 4 taken |
//! | `kernel receives skb N, length L, device D` | the stack receives packet N, on the core where it is processed |
//! | `kernel napi N polled, work W, budget B, device D` | a poll took W packets; backlogs have device `(no_device)` |
//! | `kernel sends length L, queue Q, device D` | a packet is given to a device |
//! | `kernel wakes pid P for core C, priority R, name T` | thread P is made ready |
//! | `finish_task_switch, old pid P, new pid Q, old state S, …` | core goes from thread P to Q; as patched kernels log it |
//! | `Entering IRQ I, name T` | a device's interrupt |
//! | `kernel trace lost N events before this` | the ring of this core overflowed since its event before |
//!
//! Packets and NAPI structures are numbered from 1 in each recording. A packet that was received without having been
//! queued gets a number of its own.

pub mod clock;
pub mod counters;
pub mod events;
mod format;
#[cfg(any(test, feature = "fuzz"))]
mod fuzz;
mod pages;
mod sys;
mod text;
mod tracefs;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use clock::{Rate, TraceClock};
use counters::{Check, CoreCheck, Counted, Reading};
use events::{Decoder, Group, SOURCES, Seen, filter};
use format::{FormatError, PageFormat};
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use fuzz::{format as fuzz_format, pages as fuzz_pages};
use pages::Item;
use text::CorePages;
use tracefs::{Instance, Ring, TraceError, Tracefs};

/// How often rings are emptied: a core that receives a million packets a second fills 3 MB in this time.
const TURN: Duration = Duration::from_millis(20);

/// What to record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Options {
    /// Kinds of events.
    pub events: Vec<Group>,
    /// Cores; empty for all.
    pub cores: Vec<u16>,
    /// Interfaces; empty for all. Names are those inside of all network namespaces.
    pub interfaces: Vec<String>,
    /// Names of threads whose wake-ups and switches are recorded, with `*` for any letters; empty for all.
    pub threads: Vec<String>,
    /// Size of each core's ring in the kernel.
    pub ring_kb: u32,
    /// Most that is kept in memory until it is written; recording ends when it is reached.
    pub memory_mb: u32,
    /// An instance of tracing that root prepared.
    pub instance: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            events: vec![Group::Softirq, Group::Napi, Group::Rx, Group::Sched],
            cores: Vec::new(),
            interfaces: Vec::new(),
            threads: vec!["ksoftirqd/*".into(), "cp-node*".into()],
            ring_kb: 8192,
            memory_mb: 512,
            instance: None,
        }
    }
}

/// Why there is no recording.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The kernel's tracing can't be used.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The kernel describes an event in a way that is not understood.
    #[error("{event}: {source}: this kernel's tracing is of a kind not known here; leave the event out with --events")]
    Format {
        /// The event.
        event: String,
        /// What was wrong.
        source: FormatError,
    },
    /// An argument that the kernel's filters can't hold.
    #[error("`{0}` is not a name of an interface or thread: expected up to 15 letters without spaces and quotes")]
    Name(String),
    /// A core that does not exist.
    #[error("there is no core {core}: this machine has {cores}")]
    Core {
        /// What was asked for.
        core: u16,
        /// What there is.
        cores: String,
    },
    /// None of the events that were asked for exist.
    #[error("this kernel has none of the events asked for")]
    NoEvents,
    /// The trace can't be written.
    #[error("{path}: cannot write: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It was told to.
    Done,
    /// Its memory was full.
    MemoryFull,
}

/// What was recorded.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Version of this form.
    pub version: u32,
    /// `record`.
    pub command: &'static str,
    /// Options in effect.
    pub options: Options,
    /// Why it ended.
    pub end: End,
    /// Lines written, the first line left out.
    pub events: u64,
    /// From the first to the last event.
    pub span_ms: f64,
    /// The clock.
    pub clock: TraceClock,
    /// Its rate; times of one event here and in a trace of `homa-stack` are readings of one counter, only as microseconds
    /// they differ by this, from the first event on.
    pub rate: Rate,
    /// Events that were overwritten before they could be read.
    pub lost: u64,
    /// Events that this kernel does not have.
    pub missing_events: Vec<&'static str>,
    /// Entries of events that nobody asked for.
    pub unknown_entries: u64,
    /// Instances that killed recordings had left, and that were removed.
    pub stale_removed: Vec<String>,
    /// Comparison with the kernel's counters.
    pub cores: Vec<CoreCheck>,
}

/// A recording that runs.
#[derive(Debug)]
pub struct Recording<'a> {
    options: &'a Options,
    // Rings are closed before the instance is removed, which the kernel refuses otherwise.
    rings: Vec<Ring>,
    instance: Instance<'a>,
    clock: TraceClock,
    page: PageFormat,
    decoder: Decoder,
    missing: Vec<&'static str>,
    stale: Vec<String>,
    kept: Vec<CorePages>,
    kept_bytes: usize,
    started: clock::Pair,
    counters: Reading,
}

/// The kernel's tracing, found or mounted for this process.
#[derive(Debug)]
pub struct Kernel(Tracefs);

impl Kernel {
    /// Finds the kernel's tracing.
    ///
    /// # Errors
    ///
    /// If it is not mounted, and can't be.
    pub fn open() -> Result<Self, RecordError> {
        Ok(Self(Tracefs::find()?))
    }

    /// Removes what killed recordings have left; returns the names of the instances.
    pub fn clean(&self) -> Vec<String> {
        self.0.remove_stale()
    }

    /// Begins to record.
    ///
    /// # Errors
    ///
    /// If privileges are missing, or the kernel lacks what was asked for.
    pub fn start<'a>(&'a self, options: &'a Options) -> Result<Recording<'a>, RecordError> {
        options.check()?;
        let stale = self.0.remove_stale();
        let instance = self.0.instance(options.instance.as_deref())?;
        let cores = chosen(&instance.cores()?, &options.cores)?;
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let clock = TraceClock::choose(&instance.get("trace_clock")?, &cpuinfo);
        let page = page_format(&self.0, &instance)?;
        instance.set("trace_clock", clock.name())?;
        instance.set("buffer_size_kb", &options.ring_kb.to_string())?;
        instance.set("options/overwrite", "1")?;
        // Names of threads are in the entries themselves; the kernel need not collect them.
        let _ = instance.set("options/record-cmd", "0");
        instance.set("tracing_cpumask", &mask(&cores))?;
        let (decoder, missing) = enable(&instance, options)?;
        let rings = cores.iter().map(|core| instance.ring(*core, page.page_bytes)).collect::<Result<Vec<_>, _>>()?;
        let kept = cores.iter().map(|core| CorePages { core: *core, pages: Vec::new() }).collect();
        let started = clock.pair();
        instance.set("tracing_on", "1")?;
        let counters = Reading::now(clock);
        let kept_bytes = 0;
        Ok(Recording {
            options,
            rings,
            instance,
            clock,
            page,
            decoder,
            missing,
            stale,
            kept,
            kept_bytes,
            started,
            counters,
        })
    }
}

impl Options {
    fn check(&self) -> Result<(), RecordError> {
        let bad = |name: &&String| {
            name.is_empty() || name.len() > 15 || name.contains(|c: char| c.is_whitespace() || "\"'`\\".contains(c))
        };
        match self.interfaces.iter().chain(&self.threads).find(bad) {
            Some(name) => Err(RecordError::Name(name.clone())),
            None => Ok(()),
        }
    }
}

/// The cores to record, of those that there are.
fn chosen(there: &[u16], asked: &[u16]) -> Result<Vec<u16>, RecordError> {
    if let Some(core) = asked.iter().find(|c| !there.contains(c)) {
        let cores = there.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        return Err(RecordError::Core { core: *core, cores });
    }
    Ok(there.iter().copied().filter(|c| asked.is_empty() || asked.contains(c)).collect())
}

/// Cores as the kernel writes a set of them: 32 bits a word, the last cores first.
fn mask(cores: &[u16]) -> String {
    let words = cores.iter().max().map_or(1, |most| usize::from(*most) / 32 + 1);
    let mut bits = vec![0u32; words];
    cores.iter().for_each(|c| bits[usize::from(*c) / 32] |= 1 << (c % 32));
    bits.iter().rev().map(|word| format!("{word:08x}")).collect::<Vec<_>>().join(",")
}

fn page_format(tracefs: &Tracefs, instance: &Instance<'_>) -> Result<PageFormat, RecordError> {
    let path = tracefs.root().join("events/header_page");
    // A prepared instance may be all that we can read: then the form that 64-bit kernels have.
    let Ok(text) = tracefs::read_whole(&path).or_else(|_| instance.get("events/header_page")) else {
        return Ok(PageFormat { commit_bytes: 8, commit: 8, data: 16, page_bytes: 4096 });
    };
    PageFormat::parse(&text).map_err(|source| RecordError::Format { event: "header_page".into(), source })
}

/// Enables the events that were asked for; returns how to read them, and those that this kernel does not have.
fn enable(instance: &Instance<'_>, options: &Options) -> Result<(Decoder, Vec<&'static str>), RecordError> {
    let (mut decoder, mut missing, mut enabled) = (Decoder::default(), Vec::new(), Vec::new());
    for source in SOURCES.iter().filter(|s| options.events.contains(&s.group)) {
        let dir = Path::new("events").join(source.path);
        let file = |name: &str| dir.join(name).display().to_string();
        if !instance.has(&file("format")) {
            missing.push(source.path);
            continue;
        }
        let format = instance.get(&file("format"))?;
        decoder.add(source, &format).map_err(|e| RecordError::Format { event: source.path.into(), source: e })?;
        let filter = filter(source, &options.interfaces, &options.threads);
        instance.set(&file("filter"), filter.as_deref().unwrap_or("0"))?;
        enabled.push(file("enable"));
    }
    if enabled.is_empty() {
        return Err(RecordError::NoEvents);
    }
    enabled.iter().try_for_each(|file| instance.set(file, "1"))?;
    Ok((decoder, missing))
}

impl Recording<'_> {
    /// Records until `done` says so or memory is full.
    ///
    /// # Errors
    ///
    /// If a ring can't be read.
    pub fn run(&mut self, mut done: impl FnMut() -> bool) -> Result<End, RecordError> {
        loop {
            let start = Instant::now();
            if done() {
                return Ok(End::Done);
            }
            self.drain()?;
            if self.kept_bytes >= self.options.memory_mb as usize * 1_000_000 {
                return Ok(End::MemoryFull);
            }
            std::thread::sleep(TURN.saturating_sub(start.elapsed()));
        }
    }

    /// Takes what is in the rings.
    fn drain(&mut self) -> Result<(), RecordError> {
        for (ring, kept) in self.rings.iter_mut().zip(&mut self.kept) {
            debug_assert_eq!(ring.core, kept.core);
            while let Some(page) = ring.take()? {
                self.kept_bytes += page.len();
                kept.pages.push(used(page, self.page).into());
            }
        }
        Ok(())
    }

    /// Stops recording, removes everything from the kernel and writes the trace to `path`, or to standard output if that
    /// is `-`.
    ///
    /// # Errors
    ///
    /// If a ring can't be read or the trace not be written.
    pub fn finish(mut self, end: End, path: &Path) -> Result<Summary, RecordError> {
        let counters = Reading::now(self.clock);
        self.instance.set("tracing_on", "0")?;
        let rate = Rate::between(self.clock, self.started, self.clock.pair());
        self.drain()?;
        let lost = self.kept.iter().map(|k| self.instance.lost(k.core)).sum::<Result<u64, TraceError>>()?;
        let Self { options, rings, instance, clock, page, decoder, missing, stale, kept, counters: start, .. } = self;
        drop(rings);
        drop(instance);
        let written = write(path, &kept, text::Reading { decoder: &decoder, page, ticks_per_ns: rate.ticks_per_ns })
            .map_err(|source| RecordError::Write { path: path.to_path_buf(), source })?;
        let cores: Vec<u16> = kept.iter().map(|k| k.core).collect();
        let mut check = Check::new(start, counters, &cores);
        let Ok(()) = text::in_order(&kept, page, |at, core, item| {
            let seen = if let Item::Entry(_, entry) = item { decoder.decode(entry) } else { None };
            match seen {
                Some(Seen::Begin(vector)) => check.add(core, at, Counted::Begin(vector)),
                Some(Seen::Receive(..)) => check.add(core, at, Counted::Received),
                _ => {}
            }
            Ok::<(), std::convert::Infallible>(())
        });
        let ticks = written.span.map_or(0, |(first, last)| last - first);
        Ok(Summary {
            version: 1,
            command: "record",
            options: options.clone(),
            end,
            events: written.events,
            span_ms: ticks as f64 / rate.ticks_per_ns / 1e6,
            clock,
            rate,
            lost,
            missing_events: missing,
            unknown_entries: written.unknown,
            stale_removed: stale,
            cores: check.finish(),
        })
    }
}

/// The part of a page that holds something.
fn used(page: &[u8], format: PageFormat) -> &[u8] {
    let commit =
        page.get(format.commit..format.commit + 4).and_then(|b| b.first_chunk()).map(|b| u32::from_le_bytes(*b));
    let length = commit.map_or(0, |c| (c & 0x3fff_ffff) as usize);
    // The number of lost events follows the data.
    let end = format.data.saturating_add(length).saturating_add(format.commit_bytes);
    &page[..end.min(page.len())]
}

/// Writes the trace; a file appears whole or not at all.
fn write(path: &Path, kept: &[CorePages], reading: text::Reading<'_>) -> io::Result<text::Written> {
    if path == Path::new("-") {
        let mut out = BufWriter::new(io::stdout().lock());
        let written = text::write(kept, reading, &mut out)?;
        out.flush()?;
        return Ok(written);
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}.part", std::process::id()));
    let aside = PathBuf::from(aside);
    let file = || {
        let mut out = BufWriter::new(File::create(&aside)?);
        let written = text::write(kept, reading, &mut out)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?;
        fs::rename(&aside, path)?;
        Ok(written)
    };
    file().inspect_err(|_| drop(fs::remove_file(&aside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_a_mask_as_the_kernel_writes_it() {
        assert_eq!(mask(&[0, 1, 5]), "00000023");
        assert_eq!(mask(&[33]), "00000002,00000000");
        assert_eq!(mask(&[]), "00000000");
        assert_eq!(chosen(&[0, 1, 2], &[]).unwrap(), [0, 1, 2]);
        assert_eq!(chosen(&[0, 1, 2], &[2, 0]).unwrap(), [0, 2]);
        assert_eq!(chosen(&[0, 1], &[5]).unwrap_err().to_string(), "there is no core 5: this machine has 0, 1");
    }

    #[test]
    fn names_that_a_filter_can_not_hold_are_refused() {
        for name in ["", "eth0\" || len > 0", "sixteen-letters-", "a b"] {
            let options = Options { interfaces: vec![name.into()], ..Options::default() };
            assert!(options.check().is_err(), "{name}");
        }
        Options::default().check().unwrap();
    }

    #[test]
    fn pages_are_kept_as_far_as_they_are_used() {
        let mut page = pages::tests::page(1, 0, b"12345678", &[]);
        page.resize(4096, 0);
        assert_eq!(used(&page, pages::tests::FORMAT).len(), 16 + 8 + 8);
        assert_eq!(used(&page[..20], pages::tests::FORMAT).len(), 20);
        assert_eq!(used(&[], pages::tests::FORMAT).len(), 0);
    }
}
