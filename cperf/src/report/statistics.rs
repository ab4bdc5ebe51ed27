//! Summary statistics of one protocol's messages with 95 % intervals: round-trip times and slowdowns, from sending and from
//! the due time, over all messages and in classes of lengths.
//!
//! Classes are those of the "P99 average": messages by length in classes of equally many; a length that two classes share
//! is dealt out in order of arrival. Source: cperf.md 6, requirement N051.
//!
//! Messages of one time meet the same queues, whichever node sent them, and those of one node share its lengths and its links:
//! they are not independent, and resampling them one by one would give intervals that are far too narrow. What is resampled
//! is therefore both: slices of the measured time and, apart from these, nodes; a message counts as often as its slice was
//! drawn times as often as its node was (the pigeonhole bootstrap: A. B. Owen, 2007). In runs of 40 ms of W4 on 8 simulated
//! nodes, slices alone gave a quarter to a half of the standard deviation that runs with other seeds have, nodes alone a
//! half, both together two thirds: what lasts as long as a run can't be seen within it.

mod classes;
pub mod tables;

use serde::Serialize;

use super::bootstrap;
use super::rtts::Sample;
use super::slowdown::Optimal;
use classes::{CELLS, Class, WHOLE};

/// Slices of the measured time.
pub const SLICES: usize = 8;
/// Groups of nodes, at most: with more, every sixteenth are one.
pub const GROUPS: usize = 16;
/// Resamples.
pub const RESAMPLES: usize = 1000;
/// Classes of lengths whose statistics are given.
pub const CLASSES: usize = 10;
/// Counts of classes of which the P99 average is given.
pub const AVERAGES: [usize; 2] = [CLASSES, 100];

/// Messages in order of arrival, each with its node and slice of the measured time.
#[derive(Clone, Debug, Default)]
pub struct Ordered {
    messages: Vec<Message>,
    groups: usize,
}

/// A message: length in bytes, time in ns, group of nodes and slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    rtt_ns: u64,
    length: u32,
    cell: u8,
}

impl Ordered {
    /// Adds the messages of the next node's file, in which `ports` ports stand one after the other, each in order of time.
    ///
    /// The file has no times. All ports send at one rate, so a message's place among those of its port says when it was,
    /// and each port has about as many as another: a message near the end of a slice may count for the next.
    pub fn add(&mut self, file: &[Sample], ports: usize) {
        let ports = ports.max(1);
        let group = self.groups % GROUPS * SLICES;
        self.groups += 1;
        let cell = |at: usize| (group + (at * ports % file.len()) * SLICES / file.len()) as u8;
        let messages = file.iter().enumerate();
        self.messages.extend(messages.map(|(at, one)| Message {
            rtt_ns: one.rtt_ns,
            length: one.length,
            cell: cell(at),
        }));
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

/// What a statistic is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "`due`: from the due time")]
pub enum Measure {
    RttUs,
    Slowdown,
    DueRttUs,
    DueSlowdown,
}

impl Measure {
    /// As in columns.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RttUs => "rtt_us",
            Self::Slowdown => "slowdown",
            Self::DueRttUs => "due_rtt_us",
            Self::DueSlowdown => "due_slowdown",
        }
    }
}

/// A figure, and the ends of its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The figure; null without messages.
    pub value: Option<f64>,
    /// 95 % interval; null where fewer than ten messages lie beyond the figure (five in the worst 1 %), and of the largest:
    /// of what was hardly ever seen, resampling knows nothing.
    pub interval: Option<(f64, f64)>,
}

/// Names of a [`Row`]'s estimates, in order. Percentiles: index ⌊n·q⌋ in sorted order.
pub const FIGURES: [&str; 7] = ["mean", "p50", "p90", "p99", "p999", "worst_1_percent_mean", "max"];

/// Statistics of a class of messages.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What of them.
    pub measure: Measure,
    /// Class, from 1 with the shortest; null: all messages.
    pub class: Option<usize>,
    /// Shortest message.
    pub min_length_bytes: u32,
    /// Longest message.
    pub max_length_bytes: u32,
    /// Messages.
    pub rpcs: usize,
    /// See [`FIGURES`].
    pub figures: [Estimate; 7],
}

/// The mean over classes of the mean of the worst 1 % of each: a tail that no length dominates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Average {
    /// Of slowdowns, from sending or from the due time.
    pub measure: Measure,
    /// How many classes.
    pub classes: usize,
    /// The figure.
    #[serde(flatten)]
    pub estimate: Estimate,
}

/// All statistics of one protocol.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Statistics {
    /// As in all outputs.
    pub protocol: String,
    /// All messages first, then classes; measure by measure.
    pub rows: Vec<Row>,
    /// P99 averages.
    pub p99_averages: Vec<Average>,
}

/// How intervals were made, for outputs.
pub fn method() -> String {
    format!(
        "95 % intervals by bootstrap: {RESAMPLES} resamples of nodes and, apart from these, of {SLICES} slices of the measured time, \
         since messages of one node or time are not independent. What lasts as long as the run is not in them: short runs with \
         other seeds differ more (--seeds). None where fewer than ten messages lie beyond a percentile, or five in a class's worst \
         1 %, and none of the largest."
    )
}

impl Statistics {
    /// From the messages of all nodes, from sending and from the due time; the latter may be empty.
    pub fn new(protocol: &str, service: &Ordered, due: &Ordered, optimal: &Optimal) -> Self {
        let mut all = Self { protocol: protocol.to_owned(), rows: Vec::new(), p99_averages: Vec::new() };
        // Where nothing waited in the client, both are the same.
        let same = service.messages == due.messages;
        for (messages, rtt, slowdown) in
            [(service, Measure::RttUs, Measure::Slowdown), (due, Measure::DueRttUs, Measure::DueSlowdown)]
        {
            if same && rtt == Measure::DueRttUs {
                all.repeat();
            } else if !messages.is_empty() {
                all.add(rtt, messages, |message| (message.rtt_ns as f64 / 1e3) as f32);
                all.add(slowdown, messages, |message| (message.rtt_ns as f64 / optimal.ns(message.length)) as f32);
            }
        }
        all
    }

    /// What holds from sending holds from the due time.
    fn repeat(&mut self) {
        let of_due = |measure| if measure == Measure::RttUs { Measure::DueRttUs } else { Measure::DueSlowdown };
        let rows = self.rows.iter().map(|row| Row { measure: of_due(row.measure), ..row.clone() });
        self.rows.extend(rows.collect::<Vec<_>>());
        let averages = self.p99_averages.iter().map(|one| Average { measure: of_due(one.measure), ..one.clone() });
        self.p99_averages.extend(averages.collect::<Vec<_>>());
    }

    fn add(&mut self, measure: Measure, messages: &Ordered, value: impl Fn(&Message) -> f32) {
        let mut sorted: Vec<_> =
            messages.messages.iter().map(|message| (message.length, value(message), message.cell)).collect();
        sorted.sort_by_key(|(length, ..)| *length); // stable: of one length, in order of arrival
        let slowdown = matches!(measure, Measure::Slowdown | Measure::DueSlowdown);
        let sets: Vec<Vec<Class>> = AVERAGES
            .iter()
            .filter(|classes| slowdown || **classes == CLASSES)
            .map(|&classes| classes::cut(&sorted, classes))
            .collect();
        let whole = Class::new(&sorted);
        let drawn = Drawn::new(&whole, &sets, messages.groups.min(GROUPS));
        let row = |class: Option<usize>, of: &Class, found: [Vec<f64>; WHOLE]| Row {
            measure,
            class,
            min_length_bytes: of.lengths.0,
            max_length_bytes: of.lengths.1,
            rpcs: of.count(),
            figures: of.estimates(found),
        };
        self.rows.push(row(None, &whole, drawn.whole));
        let classes = sets[0].iter().zip(drawn.classes).enumerate();
        self.rows.extend(classes.map(|(at, (class, found))| row(Some(at + 1), class, found)));
        if slowdown {
            let averages = sets.iter().zip(drawn.averages).zip(AVERAGES);
            self.p99_averages.extend(averages.map(|((set, found), classes)| {
                let enough = set.iter().map(Class::worst_count).sum::<usize>() >= classes::LEAST_WORST * set.len();
                let value = set.iter().map(Class::worst).sum::<f64>() / set.len() as f64;
                let interval = enough.then(|| bootstrap::interval(found, RESAMPLES)).flatten();
                Average { measure, classes, estimate: Estimate { value: Some(value), interval } }
            }));
        }
    }
}

/// Values of all figures in each resample.
struct Drawn {
    whole: [Vec<f64>; WHOLE],
    classes: Vec<[Vec<f64>; WHOLE]>,
    averages: Vec<Vec<f64>>,
}

impl Drawn {
    /// One draw serves all figures: the P99 average is of classes that have seen the same.
    fn new(whole: &Class, sets: &[Vec<Class>], groups: usize) -> Self {
        let empty = || std::array::from_fn(|_| Vec::with_capacity(RESAMPLES));
        let mut all = Self {
            whole: empty(),
            classes: sets[0].iter().map(|_| empty()).collect(),
            averages: vec![Vec::with_capacity(RESAMPLES); sets.len()],
        };
        let (mut rng, mut slices, mut nodes) = (bootstrap::numbers(), [0; SLICES], vec![0; groups]);
        let mut times = [0; CELLS];
        for _ in 0..RESAMPLES {
            bootstrap::draw(&mut rng, &mut slices);
            // A single node says nothing about others.
            if groups > 1 {
                bootstrap::draw(&mut rng, &mut nodes)
            } else {
                nodes.fill(1)
            }
            for (cell, times) in times.iter_mut().enumerate() {
                *times = slices[cell % SLICES] * nodes.get(cell / SLICES).unwrap_or(&0);
            }
            whole.resample(&times, &mut all.whole);
            for (class, found) in sets[0].iter().zip(&mut all.classes) {
                class.resample(&times, found);
            }
            for (set, found) in sets.iter().zip(&mut all.averages) {
                let worst: Vec<_> = set.iter().filter_map(|class| class.worst_of(&times)).collect();
                if !worst.is_empty() {
                    found.push(worst.iter().sum::<f64>() / worst.len() as f64);
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests;
