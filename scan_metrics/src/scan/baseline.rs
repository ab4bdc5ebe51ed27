//! Test B: against what earlier runs had, kept in a file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::catalogue::{Kind, Load, cause, next};
use super::comparisons::Comparisons;
use super::finding::{Finding, Level, Place, Test};
use super::group::{Column, Group, PerSecond, Vocabulary, least_effect};
use super::peers::{shown, unit};
use super::record::Record;
use super::stats::{median, spread};

/// Ratios within are as before.
const SAME: [f64; 2] = [0.8, 1.25];

/// A stored baseline.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Baseline {
    /// Version of this format.
    pub version: u32,
    /// By experiment and counter.
    pub experiments: BTreeMap<String, BTreeMap<String, Usual>>,
}

/// What a counter usually is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usual {
    /// Median over nodes and runs of the logarithm of events by load.
    pub log: f64,
    /// Spread of the runs' medians; 0 with fewer than three.
    pub spread: f64,
    /// Runs.
    pub runs: usize,
}

/// Medians of each experiment's counters, run by run.
type Medians = BTreeMap<String, BTreeMap<String, Vec<f64>>>;

fn medians(groups: &[Group], records: &[Record], words: &Vocabulary) -> Medians {
    let mut all = Medians::new();
    for group in groups {
        let experiment = all.entry(group.experiment.clone()).or_default();
        for column in group.columns(records, words) {
            experiment.entry(words.names[column.number as usize].clone()).or_default().push(median(&column.logs));
        }
    }
    all
}

impl Baseline {
    /// Of the runs just read.
    pub fn new(groups: &[Group], records: &[Record], words: &Vocabulary) -> Self {
        let usual = |logs: Vec<f64>| {
            let log = median(&logs);
            Usual { log, spread: if logs.len() >= 3 { spread(&logs, log) } else { 0.0 }, runs: logs.len() }
        };
        let counters =
            |all: BTreeMap<String, Vec<f64>>| all.into_iter().map(|(name, logs)| (name, usual(logs))).collect();
        let experiments =
            medians(groups, records, words).into_iter().map(|(name, all)| (name, counters(all))).collect();
        Self { version: 1, experiments }
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// If it can't be read or is none.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{}: expected what --save-baseline writes", path.display()))
    }

    /// Compares each group with it.
    pub fn compare(&self, run: &str, group: &Group, records: &[Record], words: &Vocabulary, all: &mut Comparisons) {
        let Some(usual) = self.experiments.get(&group.experiment) else { return };
        let per_second = PerSecond::of(group, records, words);
        for column in group.columns(records, words) {
            let name = &words.names[column.number as usize];
            let Some(usual) = usual.get(name) else { continue };
            self.one(run, group, name, &column, *usual, least_effect(column.about, &per_second), all);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all are of one comparison")]
    fn one(
        &self,
        run: &str,
        group: &Group,
        name: &str,
        column: &Column,
        usual: Usual,
        least: f64,
        all: &mut Comparisons,
    ) {
        let distance = median(&column.logs) - usual.log;
        let (ratio, rate) = (distance.exp(), median(&column.rates));
        let before = rate / ratio;
        let enough = column.about.kind == Kind::Quotient || (rate - before).abs() > least;
        if (SAME[0]..=SAME[1]).contains(&ratio) || !enough || distance.abs() <= 3.5 * usual.spread {
            return;
        }
        let place = Place { run, experiment: &group.experiment, ..Place::default() };
        let what = format!(
            "{name} is {} where the baseline has {} (x {ratio:.2})",
            shown(rate, column.about.kind),
            shown(before, column.about.kind)
        );
        let mut finding = Finding::plain(Level::Warn, Test::B, name, column.about.class, &place, what)
            .because(cause(name, ratio > 1.0), next(name, None))
            .against(rate, before, unit(column.about.kind), format!("the baseline's {} runs", usual.runs));
        finding.by_load = column.about.per != Load::Seconds;
        finding.z = (usual.spread > 0.0).then(|| distance / usual.spread);
        all.certain(finding.strong(3.0 + 10.0 * distance.abs().min(3.0)));
    }
}
