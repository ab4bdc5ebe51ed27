//! One node's counters over one interval, as numbers: small enough for tens of thousands of files at once.

use std::sync::Mutex;

use rustc_hash::FxHashMap;

use super::catalogue::{Load, about};
use super::files::{Source, Where};
use crate::read::{BadLine, FileError, Printed, Problems, is_clock, load, walk};

/// Names of counters by number, shared by all threads.
#[derive(Debug, Default)]
pub struct Names {
    inner: Mutex<(FxHashMap<String, u32>, Vec<String>)>,
}

impl Names {
    /// The number of `name`, a new one if it has none.
    pub fn number(&self, name: &str) -> u32 {
        let (numbers, names) = &mut *self.inner.lock().expect("no thread panics with it");
        if let Some(&number) = numbers.get(name) {
            return number;
        }
        let number = names.len() as u32;
        numbers.insert(name.to_owned(), number);
        names.push(name.to_owned());
        number
    }

    /// All names, by number.
    pub fn list(&self) -> Vec<String> {
        self.inner.lock().expect("no thread panics with it").1.clone()
    }
}

/// What a thread uses again from file to file.
#[derive(Debug)]
pub struct Reader<'a> {
    names: &'a Names,
    /// Numbers of the names met; `None` for those that are not kept.
    known: FxHashMap<String, Option<u32>>,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// Counters of a core.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CoreRecord {
    /// Its number.
    pub core: u64,
    /// Growth by the counter's number.
    pub values: Vec<(u32, f64)>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Index of the run.
    pub run: usize,
    /// Experiment.
    pub experiment: String,
    /// Node.
    pub node: u64,
    /// Length of the interval, seconds.
    pub seconds: f64,
    /// Rate of the clock, kHz.
    pub khz: f64,
    /// Length of the interval, clock ticks.
    pub ticks: f64,
    /// Growth over all cores, by the counter's number.
    pub values: Vec<(u32, f64)>,
    /// The same by core, where there are several.
    pub cores: Vec<CoreRecord>,
    /// Values at the end, of the counters that are compared with others at the same time.
    pub at_end: Vec<(u32, f64)>,
    /// Counters that shrank.
    pub shrunk: Vec<String>,
    /// The file leaves out what did not grow.
    pub sparse: bool,
    /// Lines that are no counters.
    pub bad_lines: [u64; BadLine::ALL.len()],
}

impl Record {
    /// Growth of a counter; `None` if the file does not have it.
    pub fn get(&self, number: u32) -> Option<f64> {
        let at = self.values.binary_search_by_key(&number, |(number, _)| *number).ok();
        at.map(|at| self.values[at].1).or(self.sparse.then_some(0.0))
    }

    /// Value at the end of the interval.
    pub fn end(&self, number: u32) -> Option<f64> {
        self.at_end.iter().find(|(other, _)| *other == number).map(|(_, value)| *value)
    }

    /// Load by numbers of counters, see [`Loads`].
    pub fn load(&self, per: Load, loads: &Loads) -> f64 {
        let sum = |numbers: &[u32]| numbers.iter().filter_map(|&number| self.get(number)).sum();
        match per {
            Load::Seconds => self.seconds,
            Load::Rpcs => sum(&loads.rpcs),
            Load::Packets => sum(&loads.packets),
            Load::Bytes => sum(&loads.bytes),
        }
    }
}

/// Numbers of the counters that make a load.
#[derive(Clone, Debug, Default)]
pub struct Loads {
    rpcs: Vec<u32>,
    packets: Vec<u32>,
    bytes: Vec<u32>,
}

impl Loads {
    /// By name.
    pub fn new(names: &[String]) -> Self {
        let which = |wanted: &dyn Fn(&str) -> bool| {
            (0..).zip(names).filter(|(_, name)| wanted(name)).map(|(number, _)| number).collect::<Vec<u32>>()
        };
        Self {
            rpcs: which(&|name| matches!(name, "requests_received" | "responses_received")),
            packets: which(&|name| name.starts_with("packets_sent_") || name.starts_with("packets_rcvd_")),
            bytes: which(&|name| matches!(name, "sent_msg_bytes" | RECEIVED)),
        }
    }
}

/// Bytes of incoming messages of all size classes together.
pub const RECEIVED: &str = "received_msg_bytes";

/// Counters whose values at one moment must agree.
pub const AT_END: [&str; 16] = [
    "client_requests_started",
    "client_requests_done",
    "client_request_bytes_started",
    "client_request_bytes_done",
    "client_responses_started",
    "client_responses_done",
    "client_response_bytes_started",
    "client_response_bytes_done",
    "server_requests_started",
    "server_requests_done",
    "server_request_bytes_started",
    "server_request_bytes_done",
    "server_responses_started",
    "server_responses_done",
    "server_response_bytes_started",
    "server_response_bytes_done",
];

/// Whether a counter is kept core by core.
fn by_core(name: &str) -> bool {
    name.ends_with("_cycles")
        || name.ends_with("_lock_misses")
        || matches!(name, "softirq_calls" | "packets_rcvd_DATA" | "packets_sent_DATA")
}

impl<'a> Reader<'a> {
    /// A reader that adds to `names`.
    pub fn new(names: &'a Names) -> Self {
        Self { names, known: FxHashMap::default(), before: Vec::new(), after: Vec::new() }
    }

    /// Reads a node's file or files.
    ///
    /// # Errors
    ///
    /// If one can't be used; the error says why.
    pub fn read(&mut self, source: &Source) -> Result<Record, FileError> {
        let (mut first, mut second) = (std::mem::take(&mut self.before), std::mem::take(&mut self.after));
        let result = match &source.files {
            Where::Pair(before, after) => load(before, &mut first)
                .and_then(|before| Ok((before, load(after, &mut second)?)))
                .and_then(|(before, text)| self.raw(Some(before), text, after)),
            Where::Grown(path) => load(path, &mut first).and_then(|text| match Printed::parse(text) {
                Some(printed) => Ok(self.printed(&printed)),
                None => self.raw(None, text, path),
            }),
            Where::Half(path, missing) => Err(FileError::Half { path: path.clone(), missing }),
        };
        (self.before, self.after) = (first, second);
        let mut record = result?;
        (record.run, record.experiment, record.node) = (source.run, source.experiment.clone(), source.node);
        Ok(record)
    }

    fn number(&mut self, name: &str) -> Option<u32> {
        if let Some(&number) = self.known.get(name) {
            return number;
        }
        let kept = about(name).is_some() || name == "ring_wait_nanos" || AT_END.contains(&name);
        let number = kept.then(|| self.names.number(name));
        self.known.insert(name.to_owned(), number);
        number
    }

    fn raw(&mut self, before: Option<&str>, after: &str, path: &std::path::Path) -> Result<Record, FileError> {
        let (mut record, mut problems) = (Record::default(), Problems::default());
        // Earlier values in the order of their file, which is that of the later one.
        let mut earlier: Vec<(Option<u64>, &str, u64)> = Vec::new();
        if let Some(before) = before {
            walk(before, &mut problems, |core, line| earlier.push((core, line.name, line.value)));
        }
        let mut at = 0;
        let mut base = |core: Option<u64>, name: &str| -> u64 {
            let is = |(c, n, _): &(Option<u64>, &str, u64)| *c == core && *n == name;
            let found = match earlier.get(at) {
                Some(entry) if is(entry) => Some(at),
                _ => earlier.iter().position(is),
            };
            found.map_or(0, |found| {
                at = found + 1;
                earlier[found].2
            })
        };
        let (mut ticks, mut khz, mut received) = (None, 0u64, 0.0);
        // Core, counters seen of it, values.
        let mut cores: Vec<(u64, usize, CoreRecord)> = Vec::new();
        let mut sums: FxHashMap<u32, f64> = FxHashMap::default();
        let mut ends: FxHashMap<u32, f64> = FxHashMap::default();
        let mut twice = 0;
        walk(after, &mut problems, |core, line| {
            if line.name == "cpu_khz" {
                khz = line.value;
                return;
            }
            if line.name == "core" {
                twice += u64::from(cores.iter().any(|(number, ..)| *number == line.value));
                cores.push((line.value, 0, CoreRecord { core: line.value, values: Vec::new() }));
                return;
            }
            let then = base(core, line.name);
            let grown = line.value.checked_sub(then).unwrap_or_else(|| {
                record.shrunk.push(line.name.to_owned());
                line.value
            }) as f64;
            if is_clock(line.name) {
                ticks = Some(grown);
                return;
            }
            let Some((_, seen, here)) = cores.last_mut() else { return };
            *seen += 1;
            if line.name.starts_with("msg_bytes_") || line.name == "large_msg_bytes" {
                received += grown;
            }
            let Some(number) = self.number(line.name) else { return };
            *sums.entry(number).or_insert(0.0) += grown;
            if before.is_some() && AT_END.contains(&line.name) {
                *ends.entry(number).or_insert(0.0) += line.value as f64;
            }
            if grown != 0.0 && by_core(line.name) {
                here.values.push((number, grown));
            }
        });
        let owned = || path.to_owned();
        let Some((first, full, _)) = cores.first().filter(|(_, full, _)| *full > 0) else {
            return Err(FileError::Empty { path: owned() });
        };
        if let Some((core, has, _)) = cores.iter().find(|(_, has, _)| has < full) {
            return Err(FileError::CutOff { path: owned(), core: *core, has: *has, first: *first, full: *full });
        }
        let Some(ticks) = ticks.filter(|&ticks| khz > 0 && ticks > 0.0) else {
            return Err(FileError::NoClock { path: owned() });
        };
        if received > 0.0 {
            sums.insert(self.names.number(RECEIVED), received);
        }
        (record.ticks, record.khz, record.seconds) = (ticks, khz as f64, ticks / khz as f64 / 1000.0);
        record.values = sums.into_iter().collect();
        record.at_end = ends.into_iter().collect();
        if cores.len() > 1 {
            record.cores = cores.into_iter().map(|(.., core)| core).collect();
        }
        for reason in BadLine::ALL {
            record.bad_lines[reason as usize] = problems.count(reason);
        }
        record.bad_lines[BadLine::Twice as usize] += twice;
        record.values.sort_unstable_by_key(|(number, _)| *number);
        record.shrunk.dedup();
        Ok(record)
    }

    fn printed(&mut self, printed: &Printed) -> Record {
        let mut record = Record { sparse: true, ..Record::default() };
        (record.ticks, record.seconds) = (printed.ticks as f64, printed.seconds.max(0.05));
        record.khz = printed.khz();
        let mut received = 0.0;
        for (name, value) in &printed.counters {
            if name.starts_with("msg_bytes_") || name == "large_msg_bytes" {
                received += *value as f64;
            }
            if let Some(number) = self.number(name) {
                record.values.push((number, *value as f64));
            }
        }
        record.values.push((self.names.number(RECEIVED), received));
        record.values.sort_unstable_by_key(|(number, _)| *number);
        record.values.dedup_by_key(|(number, _)| *number);
        let rows = [
            ("napi", "napi_cycles"),
            ("softirq", "linux_softirq_cycles"),
            ("send", "send_cycles"),
            ("recv", "recv_cycles"),
            ("reply", "reply_cycles"),
            ("timer", "timer_cycles"),
        ];
        let count = printed.cores.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
        if count > 1 {
            record.cores = (0..count).map(|core| CoreRecord { core: core as u64, values: Vec::new() }).collect();
            for (row, name) in rows {
                let number = self.names.number(name);
                let shares = printed.cores.iter().find(|(label, _)| label == row).map_or(&[][..], |(_, values)| values);
                for (core, share) in record.cores.iter_mut().zip(shares).filter(|(_, share)| **share > 0.0) {
                    core.values.push((number, share * record.ticks));
                }
            }
        }
        record
    }
}
