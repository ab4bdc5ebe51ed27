//! Nodes that can be compared: of one run, one experiment and one role, under equal load.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::catalogue::{About, Kind, Load, about};
use super::control::{Clusters, NORMAL, class_spread};
use super::record::{Loads, Record};
use super::stats::{median, spread};

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Role {
    Client,
    Server,
    Both,
    Idle,
}

impl Role {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "clients",
            Self::Server => "servers",
            Self::Both => "nodes that are client and server",
            Self::Idle => "nodes without RPCs",
        }
    }
}

/// Numbers of counters that are looked up often, and all names.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// Names by number.
    pub names: Vec<String>,
    /// What each is; `None` for those that are not compared.
    pub about: Vec<Option<About>>,
    /// Loads.
    pub loads: Loads,
    numbers: FxHashMap<String, u32>,
}

impl Vocabulary {
    /// Of these names.
    pub fn new(names: Vec<String>) -> Self {
        let about = names.iter().map(|name| about(name)).collect();
        let numbers = names.iter().cloned().zip(0..).collect();
        Self { about, loads: Loads::new(&names), names, numbers }
    }

    /// The number of a name.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// Growth of `name` at a node, 0 if it has no such counter.
    pub fn of(&self, record: &Record, name: &str) -> f64 {
        self.number(name).and_then(|number| record.get(number)).unwrap_or(0.0)
    }

    /// What a node does, by its counters.
    pub fn role(&self, record: &Record) -> Role {
        match (self.of(record, "responses_received") > 0.0, self.of(record, "requests_received") > 0.0) {
            (true, true) => Role::Both,
            (true, false) => Role::Client,
            (false, true) => Role::Server,
            (false, false) => Role::Idle,
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Group {
    /// Index of the run.
    pub run: usize,
    /// Experiment.
    pub experiment: String,
    /// Role of all.
    pub role: Role,
    /// Indexes of the records, by node.
    pub members: Vec<usize>,
}

/// Groups of all records.
pub fn groups(records: &[Record], words: &Vocabulary) -> Vec<Group> {
    let mut all: BTreeMap<(usize, &str, Role), Vec<usize>> = BTreeMap::new();
    for (index, record) in records.iter().enumerate() {
        all.entry((record.run, &record.experiment, words.role(record))).or_default().push(index);
    }
    let group = |((run, experiment, role), members)| Group { run, experiment: String::from(experiment), role, members };
    all.into_iter().map(group).collect()
}

/// One counter at all members of a group.
#[derive(Clone, Debug)]
pub struct Column {
    /// The counter's number.
    pub number: u32,
    /// What it is.
    pub about: About,
    /// Growth a second; cores' worth for times.
    pub rates: Vec<f64>,
    /// Events, of which logarithms are comparable: bytes are counted as packets, times in ten-thousandths.
    pub events: Vec<f64>,
    /// Load that it grows with.
    pub loads: Vec<f64>,
    /// Logarithm of events by load.
    pub logs: Vec<f64>,
    /// Robust spread of these.
    pub spread: f64,
}

/// Bytes that come as one event.
const PACKET: f64 = 1500.0;

/// A record's value of a counter on the scales that are compared: (rate, events).
pub fn scales(record: &Record, about: About, value: f64) -> (f64, f64) {
    match about.kind {
        Kind::Ticks => (value / record.ticks, value / record.ticks * 1e4),
        Kind::Bytes => (value / record.seconds, value / PACKET),
        Kind::Count => (value / record.seconds, value),
        Kind::Quotient => (value, value * 1e6),
    }
}

impl Group {
    /// Columns of all counters that at least one member has grown; those with a member without load are left out.
    pub fn columns(&self, records: &[Record], words: &Vocabulary) -> Vec<Column> {
        let column = |number: u32| {
            let about = words.about[number as usize]?;
            let members = || self.members.iter().map(|&member| &records[member]);
            let values: Option<Vec<f64>> = members().map(|record| record.get(number)).collect();
            let values = values.filter(|values| values.iter().any(|&value| value > 0.0))?;
            let scaled = || members().zip(&values).map(|(record, &value)| scales(record, about, value));
            let (rates, events): (Vec<_>, Vec<_>) = scaled().unzip();
            let loads: Vec<_> = match about.kind {
                Kind::Quotient => vec![1.0; events.len()],
                _ => members().map(|record| record.load(about.per, &words.loads)).collect(),
            };
            if loads.iter().any(|&load| load <= 0.0) {
                return None;
            }
            let logs: Vec<_> = events.iter().zip(&loads).map(|(events, load)| ((events + 0.5) / load).ln()).collect();
            let spread = spread(&logs, median(&logs));
            Some(Column { number, about, rates, events, loads, logs, spread })
        };
        (0..words.names.len() as u32).filter_map(column).collect()
    }
}

/// The usual spread of each class among columns that are not rare.
pub fn class_spreads(columns: &[Column]) -> BTreeMap<&'static str, f64> {
    let mut all: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for column in columns.iter().filter(|column| median(&column.events) >= 20.0) {
        all.entry(column.about.class.name()).or_default().push(column.spread);
    }
    all.into_iter().filter_map(|(class, spreads)| Some((class, class_spread(&spreads)?))).collect()
}

/// How events of retransmission and loss come, by class, from columns that are not rare.
pub fn clusters(columns: &[Column]) -> BTreeMap<&'static str, Clusters> {
    use super::catalogue::Class;
    let mut all: BTreeMap<&'static str, Vec<(f64, f64)>> = BTreeMap::new();
    let (mut nodes, events) = (0, |column: &Column| median(&column.events));
    let by_chance = |column: &&Column| {
        let class = matches!(column.about.class, Class::Retransmission | Class::Loss);
        class && column.about.kind == Kind::Count && events(column) >= NORMAL
    };
    for column in columns.iter().filter(by_chance) {
        nodes = column.events.len();
        all.entry(column.about.class.name()).or_default().push((column.spread, events(column)));
    }
    all.into_iter().filter_map(|(class, counters)| Some((class, Clusters::of(&counters, nodes)?))).collect()
}

/// The least difference that is of interest, as a rate: half a core; 5 a second and 3 in 10,000 packets for
/// retransmissions, losses and control; 2 % of all bytes or packets. Source: cperf.md 4.4, test Z, and for the shares
/// of packets the false alarms of 100 clean simulated runs.
pub fn least_effect(about: About, per_second: &PerSecond) -> f64 {
    use super::catalogue::Class;
    match (about.kind, about.class) {
        (Kind::Ticks, _) => LEAST_CORES,
        (Kind::Quotient, _) => 0.0,
        (Kind::Bytes, Class::Retransmission | Class::Loss) => (LEAST_RETRIES * per_second.bytes).max(5.0 * PACKET),
        (_, Class::Retransmission | Class::Loss) => (LEAST_RETRIES * per_second.packets).max(5.0),
        (Kind::Bytes, _) => 0.02 * per_second.bytes,
        (Kind::Count, _) if about.per == Load::Rpcs => (0.02 * per_second.rpcs).max(5.0),
        (Kind::Count, _) => (0.02 * per_second.packets).max(5.0),
    }
}

/// Share of the packets.
const LEAST_RETRIES: f64 = 3e-4;

/// Cores' worth of time that is of interest, of a node.
pub const LEAST_CORES: f64 = 0.5;

/// Loads of a group, medians over its nodes, a second.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PerSecond {
    pub rpcs: f64,
    pub packets: f64,
    pub bytes: f64,
}

impl PerSecond {
    /// Of a group.
    pub fn of(group: &Group, records: &[Record], words: &Vocabulary) -> Self {
        let middle = |per: Load| {
            let all = group.members.iter().map(|&member| &records[member]);
            median(&all.map(|record| record.load(per, &words.loads) / record.seconds).collect::<Vec<_>>())
        };
        Self { rpcs: middle(Load::Rpcs), packets: middle(Load::Packets), bytes: middle(Load::Bytes) }
    }
}
