//! Test X: across runs and experiments. A table of nodes by columns (a column is an experiment of a run) for each
//! counter; by median polish its logarithms become effects of columns, effects of nodes and what is left.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::catalogue::{About, Class, Kind, Load, cause, next};
use super::comparisons::Comparisons;
use super::control::{LEAST_Z, Peers};
use super::facts::Facts;
use super::finding::{Finding, Level, Place, Test};
use super::group::{Group, PerSecond, Vocabulary, least_effect, scales};
use super::peers::unit;
use super::record::Record;
use super::stats::{median, spread};

/// Columns that a comparison needs.
const COLUMNS: usize = 3;
/// Nodes that are compared with each other.
const NODES: usize = 5;
/// Differences of runs, and of nodes over all runs, that are of interest.
const LEAST: f64 = 0.1;

/// Runs of one experiment that should be alike.
struct Repeats<'a> {
    groups: Vec<&'a Group>,
}

/// Compares runs of the same experiment and role.
pub(super) fn compare(
    runs: &[PathBuf],
    groups: &[Group],
    records: &[Record],
    facts: &[Facts],
    words: &Vocabulary,
    all: &mut Comparisons,
) {
    let mut kinds: BTreeMap<(&str, super::group::Role), Vec<&Group>> = BTreeMap::new();
    for group in groups {
        kinds.entry((&group.experiment, group.role)).or_default().push(group);
    }
    for (_, groups) in kinds {
        for repeats in alike(runs, groups, facts, all) {
            polish(runs, &repeats, records, words, all);
        }
    }
}

/// Sorts runs by their options. Where most share one set of options the others are told of and stay among them; else
/// each set is for itself, as in an experiment that varies something.
fn alike<'a>(runs: &[PathBuf], groups: Vec<&'a Group>, facts: &[Facts], all: &mut Comparisons) -> Vec<Repeats<'a>> {
    let mut sets: BTreeMap<Vec<(&String, &String)>, Vec<&Group>> = BTreeMap::new();
    for group in &groups {
        sets.entry(facts[group.run].options.iter().collect()).or_default().push(group);
    }
    let (usual, members) = sets.iter().max_by_key(|(_, members)| members.len()).expect("there is a group");
    if sets.len() > 1 && (members.len() < COLUMNS || 3 * members.len() < 2 * groups.len()) {
        return sets.into_values().map(|groups| Repeats { groups }).collect();
    }
    for (set, others) in sets.iter().filter(|(set, _)| *set != usual) {
        let differ: Vec<String> = usual
            .iter()
            .filter(|(name, value)| set.iter().any(|(other, is)| other == name && is != value))
            .map(|(name, value)| {
                let is = set.iter().find(|(other, _)| other == name).expect("it is there").1;
                format!("{name} is {is}, {value} in the other {} runs", members.len())
            })
            .collect();
        for group in others.iter().filter(|_| !differ.is_empty()) {
            let run = runs[group.run].display().to_string();
            let place = Place { run: &run, experiment: &group.experiment, ..Place::default() };
            let finding = Finding::plain(Level::Warn, Test::X, "options", Class::Files, &place, differ.join("; "))
                .because("this run was started with other options", "options in the manifest.json of both");
            all.certain(finding.strong(320.0));
        }
    }
    vec![Repeats { groups }]
}

/// A counter's value at a node in a column.
#[derive(Clone, Copy)]
struct Cell {
    log: f64,
    events: f64,
    rate: f64,
}

fn cell(record: &Record, number: u32, about: About, words: &Vocabulary) -> Option<Cell> {
    let (rate, events) = scales(record, about, record.get(number)?);
    let load = if about.kind == Kind::Quotient { 1.0 } else { record.load(about.per, &words.loads) };
    (load > 0.0).then(|| Cell { log: ((events + 0.5) / load).ln(), events, rate })
}

fn polish(runs: &[PathBuf], repeats: &Repeats<'_>, records: &[Record], words: &Vocabulary, all: &mut Comparisons) {
    let columns = &repeats.groups;
    if columns.len() < COLUMNS {
        return;
    }
    let per_second = PerSecond::of(columns[0], records, words);
    // Nodes that every column has.
    let mut nodes: Vec<u64> = columns[0].members.iter().map(|&member| records[member].node).collect();
    nodes.retain(|node| columns.iter().all(|group| group.members.iter().any(|&member| records[member].node == *node)));
    for (number, about) in (0u32..).zip(&words.about) {
        let Some(about) = about else { continue };
        let table: Option<Vec<Vec<Cell>>> = columns
            .iter()
            .map(|group| group.members.iter().map(|&member| cell(&records[member], number, *about, words)).collect())
            .collect();
        let Some(table) = table.filter(|table| table.iter().flatten().any(|cell| cell.events > 0.0)) else { continue };
        let test = Tested { number, about: *about, runs, columns, words, least: least_effect(*about, &per_second) };
        let effects = test.columns(&table, all);
        if nodes.len() >= NODES {
            test.nodes(&nodes, &table, &effects, records, all);
        }
    }
}

/// What is said of a run or a node.
struct Odd {
    what: String,
    z: f64,
    ratio: f64,
    rate: f64,
    usual: f64,
    whom: String,
}

/// One counter over all columns.
struct Tested<'a> {
    number: u32,
    about: About,
    runs: &'a [PathBuf],
    columns: &'a [&'a Group],
    words: &'a Vocabulary,
    least: f64,
}

impl Tested<'_> {
    fn enough(&self, ratio: f64, rate: f64, usual: f64) -> bool {
        let absolute = match self.about.kind {
            Kind::Quotient => true,
            _ => (rate - usual).abs() > self.least,
        };
        (ratio - 1.0).abs() > LEAST && absolute
    }

    fn finding(&self, place: &Place<'_>, odd: Odd) -> Finding {
        let name = &self.words.names[self.number as usize];
        let mut finding = Finding::plain(Level::Warn, Test::X, name, self.about.class, place, odd.what)
            .because(cause(name, odd.ratio > 1.0), next(name, place.node))
            .against(odd.rate, odd.usual, unit(self.about.kind), odd.whom);
        (finding.z, finding.ratio) = (Some(odd.z), Some(odd.ratio));
        finding.by_load = self.about.per != Load::Seconds;
        finding
    }

    /// Effects of columns, which are their medians; odd runs.
    fn columns(&self, table: &[Vec<Cell>], all: &mut Comparisons) -> Vec<f64> {
        let effects: Vec<f64> =
            table.iter().map(|cells| median(&cells.iter().map(|cell| cell.log).collect::<Vec<_>>())).collect();
        let rates: Vec<f64> =
            table.iter().map(|cells| median(&cells.iter().map(|cell| cell.rate).collect::<Vec<_>>())).collect();
        let name = &self.words.names[self.number as usize];
        for (at, group) in self.columns.iter().enumerate() {
            let others = |values: &[f64]| {
                values.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, v)| *v).collect::<Vec<_>>()
            };
            let events: f64 = table[at].iter().map(|cell| cell.events).sum();
            let judged = Peers::of(&others(&effects)).judge(effects[at], events, None);
            let index = all.count(judged.p);
            let ratio = (effects[at] - judged.median).exp();
            // For the load of this run.
            let usual = rates[at] / ratio;
            if judged.z.abs() <= LEAST_Z || !self.enough(ratio, rates[at], usual) {
                continue;
            }
            let run = self.runs[group.run].display().to_string();
            let place = Place { run: &run, experiment: &group.experiment, ..Place::default() };
            let shown = |value| super::peers::shown(value, self.about.kind);
            let whom = format!("{} other runs of this experiment", self.columns.len() - 1);
            let what =
                format!("in this run {name} is {} where {} are usual (x {ratio:.2})", shown(rates[at]), shown(usual));
            all.suspect(index, self.finding(&place, Odd { what, z: judged.z, ratio, rate: rates[at], usual, whom }));
        }
        let middle = median(&effects);
        let scatter = spread(&effects, middle);
        if name == super::record::RECEIVED && scatter > LEAST {
            let place = Place { experiment: &self.columns[0].experiment, ..Place::default() };
            let what =
                format!("{name} scatters by {:.0} % over {} runs: not repeatable", 100.0 * scatter, effects.len());
            let finding = Finding::plain(Level::Info, Test::X, name, Class::Traffic, &place, what).because(
                "runs too short for the lengths of the workload, or a machine that is not left alone",
                "longer runs, or more seeds",
            );
            all.certain(finding);
        }
        effects
    }

    /// Effects of nodes: odd in all runs alike. What is odd once is found by the comparison with peers.
    fn nodes(&self, nodes: &[u64], table: &[Vec<Cell>], effects: &[f64], records: &[Record], all: &mut Comparisons) {
        let of = |node: u64| -> Vec<(Cell, f64)> {
            let in_column = |(column, group): (usize, &&Group)| {
                let at =
                    group.members.iter().position(|&member| records[member].node == node).expect("every column has it");
                (table[column][at], table[column][at].log - effects[column])
            };
            self.columns.iter().enumerate().map(in_column).collect()
        };
        let rows: Vec<Vec<(Cell, f64)>> = nodes.iter().map(|&node| of(node)).collect();
        let effect: Vec<f64> =
            rows.iter().map(|row| median(&row.iter().map(|(_, left)| *left).collect::<Vec<_>>())).collect();
        let rates: Vec<f64> =
            rows.iter().map(|row| median(&row.iter().map(|(cell, _)| cell.rate).collect::<Vec<_>>())).collect();
        for (at, &node) in nodes.iter().enumerate() {
            let others = |values: &[f64]| {
                values.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, v)| *v).collect::<Vec<_>>()
            };
            let events: f64 = rows[at].iter().map(|(cell, _)| cell.events).sum();
            let judged = Peers::of(&others(&effect)).judge(effect[at], events, None);
            let index = all.count(judged.p);
            let ratio = (effect[at] - judged.median).exp();
            let usual = rates[at] / ratio;
            if judged.z.abs() <= LEAST_Z || !self.enough(ratio, rates[at], usual) {
                continue;
            }
            let place = Place { experiment: &self.columns[0].experiment, node: Some(node), ..Place::default() };
            let name = &self.words.names[self.number as usize];
            let what =
                format!("odd in most of {} runs: {name} is x {ratio:.2} that of other nodes", self.columns.len());
            let whom = format!("the other {} nodes, over all runs", nodes.len() - 1);
            all.suspect(index, self.finding(&place, Odd { what, z: judged.z, ratio, rate: rates[at], usual, whom }));
        }
    }
}
