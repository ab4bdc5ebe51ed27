//! A whole file as values: for `metrics` and `diff`, where descriptions and the order of the file matter.

use rustc_hash::FxHashMap;

use super::line::{BadLine, Line, Problems, walk};
use super::{is_clock, is_label};

/// Whose layout it is, by the name of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// `rdtsc_cycles`: the kernel module of 2024.
    V24,
    /// `time_cycles`: the kernel module since, and this stack.
    V26,
}

/// A counter of one core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: u64,
    /// What it means.
    pub text: String,
}

/// All counters of one core, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Core {
    /// Its number.
    pub number: u64,
    /// Its counters.
    pub counters: Vec<Counter>,
    index: FxHashMap<String, usize>,
}

impl Core {
    /// Core `number` without counters.
    fn new(number: u64) -> Self {
        Self { number, counters: Vec::new(), index: FxHashMap::default() }
    }

    /// False if there is one of this name already.
    fn add(&mut self, line: Line<'_>) -> bool {
        let at = self.counters.len();
        if *self.index.entry(line.name.to_owned()).or_insert(at) != at {
            return false;
        }
        self.counters.push(Counter { name: line.name.to_owned(), value: line.value, text: line.text.to_owned() });
        true
    }

    /// The value of `name`; `None` if this core does not have it.
    pub fn value(&self, name: &str) -> Option<u64> {
        self.index.get(name).map(|&at| self.counters[at].value)
    }
}

/// A raw metrics text.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Whose layout.
    pub clock: Clock,
    /// The clock's reading, ticks; `None` if the file does not have it.
    pub ticks: Option<u64>,
    /// Rate of that clock, kHz.
    pub khz: Option<u64>,
    /// Description of the clock's line.
    pub clock_text: String,
    /// Cores in the order of the file.
    pub cores: Vec<Core>,
    /// Lines that are no counters.
    pub problems: Problems,
}

impl Snapshot {
    /// Reads all lines; what is none is in `problems`. A text without any counter gives no cores.
    pub fn parse(text: &str) -> Self {
        let mut bad = Problems::default();
        let mut all = Self {
            clock: Clock::V26,
            ticks: None,
            khz: None,
            clock_text: String::new(),
            cores: Vec::new(),
            problems: Problems::default(),
        };
        let mut late = Problems::default();
        walk(text, &mut bad, |core, line| all.take(core, line, &mut late));
        bad.merge(late);
        Self { problems: bad, ..all }
    }

    fn take(&mut self, core: Option<u64>, line: Line<'_>, problems: &mut Problems) {
        match (line.name, core) {
            ("cpu_khz", _) => self.khz = Some(line.value),
            (name, _) if is_clock(name) => {
                self.clock = if name == "rdtsc_cycles" { Clock::V24 } else { Clock::V26 };
                self.ticks = Some(line.value);
                self.clock_text = line.text.to_owned();
            }
            ("core", _) => {
                if self.cores.iter().all(|core| core.number != line.value) {
                    self.cores.push(Core::new(line.value));
                } else {
                    problems.add(BadLine::Twice, 0, &format!("core {}", line.value));
                }
            }
            (name, None) => problems.add(BadLine::NoCore, 0, name),
            (name, Some(number)) => {
                let core = self.cores.iter_mut().rev().find(|core| core.number == number);
                if !core.expect("its line has come").add(line) {
                    problems.add(BadLine::Twice, 0, name);
                }
            }
        }
    }

    /// A core by its number.
    pub fn core(&self, number: u64) -> Option<&Core> {
        self.cores.iter().find(|core| core.number == number)
    }

    /// Sum of a counter over all cores; `None` if no core has it.
    pub fn total(&self, name: &str) -> Option<u64> {
        self.cores.iter().filter_map(|core| core.value(name)).reduce(u64::saturating_add)
    }

    /// What grew since `earlier`, core by core. A counter that `earlier` lacks counts from zero. One that shrank, or the
    /// clock, means that its owner was restarted: it counts from zero too, and is listed as (core, name) in the second
    /// value (the clock without a core). Cores that only `earlier` has are left out.
    pub fn since(&self, earlier: &Self) -> (Self, Vec<(Option<u64>, String)>) {
        let mut shrunk = Vec::new();
        let mut grown = self.clone();
        if let (Some(now), Some(then)) = (&mut grown.ticks, earlier.ticks) {
            *now = now.checked_sub(then).unwrap_or_else(|| {
                shrunk.push((None, "time_cycles".to_owned()));
                *now
            });
        }
        for core in &mut grown.cores {
            let Some(before) = earlier.core(core.number) else { continue };
            for counter in core.counters.iter_mut().filter(|counter| !is_label(&counter.name)) {
                let base = before.value(&counter.name).unwrap_or(0);
                counter.value = counter.value.checked_sub(base).unwrap_or_else(|| {
                    shrunk.push((Some(core.number), counter.name.clone()));
                    counter.value
                });
            }
        }
        (grown, shrunk)
    }

    /// Each counter's name with its description, in the order of the file, once for all cores. Descriptions are those
    /// of the first core: the kernel module gives wrong lower bounds of size classes for all others.
    pub fn names(&self) -> Vec<(&str, &str)> {
        let mut seen = rustc_hash::FxHashSet::default();
        let all = self.cores.iter().flat_map(|core| &core.counters);
        all.filter(|counter| seen.insert(counter.name.as_str()))
            .map(|counter| (counter.name.as_str(), counter.text.as_str()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V24: &str = "rdtsc_cycles 100 clock\ncpu_khz 1000 rate\ncore 0 c\na 1 first\ncore 5 c\na 2 wrong\nb 3 x\n";

    #[test]
    fn any_number_of_cores_is_read_in_either_layout() {
        let all = Snapshot::parse(V24);
        assert_eq!((all.clock, all.ticks, all.khz), (Clock::V24, Some(100), Some(1000)));
        assert_eq!(all.cores.iter().map(|core| core.number).collect::<Vec<_>>(), [0, 5]);
        assert_eq!((all.total("a"), all.total("b"), all.total("c")), (Some(3), Some(3), None));
        assert_eq!(all.names(), [("a", "first"), ("b", "x")]);
        let many: String = (0..300).map(|core| format!("core {core} c\na {core} x\n")).collect();
        assert_eq!(Snapshot::parse(&many).total("a"), Some(299 * 300 / 2));
        assert_eq!(Snapshot::parse(&V24.replace("rdtsc", "time")).clock, Clock::V26);
    }

    #[test]
    fn growth_is_by_core_and_what_shrank_is_told() {
        let later = "rdtsc_cycles 150 clock\ncpu_khz 1000 rate\ncore 0 c\na 4 first\ncore 5 c\na 1 x\nb 3 x\nc 7 new\n";
        let (grown, shrunk) = Snapshot::parse(later).since(&Snapshot::parse(V24));
        assert_eq!((grown.ticks, grown.core(0).unwrap().value("a")), (Some(50), Some(3)));
        let five = grown.core(5).unwrap();
        assert_eq!((five.value("a"), five.value("b"), five.value("c")), (Some(1), Some(0), Some(7)));
        assert_eq!(shrunk, [(Some(5), "a".to_owned())]);
    }

    #[test]
    fn what_stands_twice_or_before_all_cores_is_counted_and_not_added() {
        let all = Snapshot::parse("early 1 x\ncore 0 c\na 1 x\na 2 x\ncore 0 again\nbad\n");
        let count = |reason| all.problems.count(reason);
        assert_eq!((count(BadLine::NoCore), count(BadLine::Twice), count(BadLine::NoValue)), (1, 2, 1));
        assert_eq!((all.total("a"), all.total("early")), (Some(1), None));
    }
}
