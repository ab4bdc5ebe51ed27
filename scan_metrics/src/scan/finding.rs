//! What a scan finds.

use serde::Serialize;

use super::catalogue::Class;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Odd: look at it before believing the run.
    Warn,
    /// Something is broken: the run, or a file, cannot be believed.
    Fatal,
}

impl Level {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Fatal => "fatal",
        }
    }
}

/// The nine tests of cperf.md 4.4, by their letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[expect(missing_docs, reason = "`text` says what each is")]
pub enum Test {
    Z,
    R,
    L,
    C,
    #[serde(rename = "0")]
    Zero,
    I,
    T,
    X,
    B,
}

impl Test {
    /// All.
    pub const ALL: [Self; 9] = [Self::Z, Self::R, Self::L, Self::C, Self::Zero, Self::I, Self::T, Self::X, Self::B];

    /// Letter and meaning.
    pub const fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Z => ("Z", "robust z-score of the rate against peers"),
            Self::R => ("R", "ratio to the median of peers"),
            Self::L => ("L", "growth by load against peers"),
            Self::C => ("C", "cores of a node against each other, and against the same core of other nodes"),
            Self::Zero => ("0", "counters that must be zero"),
            Self::I => ("I", "counters that must agree, files that must be there"),
            Self::T => ("T", "throughput in time"),
            Self::X => ("X", "across runs or experiments"),
            Self::B => ("B", "against a stored baseline"),
        }
    }
}

/// Something odd.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// Tests that flag it.
    pub tests: Vec<Test>,
    /// What is odd: a counter, a quotient of counters, or a fact such as `file`.
    pub metric: String,
    /// Its class.
    pub class: Class,
    /// Directory of the run.
    pub run: String,
    /// Experiment; empty if it is about the run.
    pub experiment: String,
    /// Node; none if it is about all.
    pub node: Option<u64>,
    /// Core of the node.
    pub core: Option<u64>,
    /// The value, in `unit`.
    pub value: Option<f64>,
    /// What it is compared with, in `unit`: the median of `whom`.
    pub reference: Option<f64>,
    /// Unit of both.
    pub unit: &'static str,
    /// Compared with whom.
    pub whom: String,
    /// Distance in spreads.
    pub z: Option<f64>,
    /// Value over reference.
    pub ratio: Option<f64>,
    /// Adjusted for all comparisons of the scan: expected share of false alarms among findings as strong as this.
    pub false_alarms: Option<f64>,
    /// Whether load is taken out.
    pub by_load: bool,
    /// What is odd, in words.
    pub what: String,
    /// What usually causes it.
    pub cause: String,
    /// What to look at next.
    pub next: String,
    /// Orders findings of one level; larger is stronger: minus the logarithm of the chance, or for what has none how
    /// much of the whole it is.
    pub strength: f64,
}

impl Finding {
    /// A finding that needs no probability: what is counted, missing or contradictory.
    pub fn plain(level: Level, test: Test, metric: &str, class: Class, place: &Place<'_>, what: String) -> Self {
        Self {
            level,
            tests: vec![test],
            metric: metric.to_owned(),
            class,
            run: place.run.to_owned(),
            experiment: place.experiment.to_owned(),
            node: place.node,
            core: place.core,
            value: None,
            reference: None,
            unit: "",
            whom: String::new(),
            z: None,
            ratio: None,
            false_alarms: None,
            by_load: false,
            what,
            cause: String::new(),
            next: String::new(),
            strength: 0.0,
        }
    }

    /// With its usual cause and the next step.
    pub fn because(mut self, cause: impl Into<String>, next: impl Into<String>) -> Self {
        (self.cause, self.next) = (cause.into(), next.into());
        self
    }

    /// With what it is and should be.
    pub fn against(mut self, value: f64, reference: f64, unit: &'static str, whom: impl Into<String>) -> Self {
        (self.value, self.reference, self.unit, self.whom) = (Some(value), Some(reference), unit, whom.into());
        self.ratio = (reference != 0.0).then(|| value / reference);
        self
    }

    /// With its strength.
    pub fn strong(mut self, strength: f64) -> Self {
        self.strength = strength;
        self
    }

    /// Letters of its tests.
    pub fn letters(&self) -> String {
        self.tests.iter().map(|test| test.text().0).collect()
    }

    /// `node3`, `node3 core 1`, or `all nodes`; the run's name for what sets a run apart from others.
    pub fn who(&self) -> String {
        let run = std::path::Path::new(&self.run).file_name().and_then(|name| name.to_str());
        if let (None, Some(run), [Test::X]) = (self.node, run, self.tests.as_slice()) {
            return run.to_owned();
        }
        match (self.node, self.core) {
            (Some(node), Some(core)) => format!("node{node} core {core}"),
            (Some(node), None) => format!("node{node}"),
            _ => "all nodes".to_owned(),
        }
    }
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'a> {
    /// Directory.
    pub run: &'a str,
    /// Experiment.
    pub experiment: &'a str,
    /// Node.
    pub node: Option<u64>,
    /// Core.
    pub core: Option<u64>,
}
