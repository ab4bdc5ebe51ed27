//! Which node, core or run is odd, among any number of metrics files.
//!
//! | module | part |
//! | --- | --- |
//! | `files`, `record`, `facts` | which files there are, their counters as numbers, what else a run tells |
//! | `catalogue` | what each counter is, what it grows with, what usually moves it |
//! | `group` | nodes that may be compared, counters by load |
//! | `peers`, `cores`, `zero`, `consistent`, `time`, `runs`, `baseline` | the nine tests |
//! | `control`, `comparisons`, `stats` | chances, and which differences to believe |
//! | `finding`, `heat` | what is reported |
//!
//! To add a test: a function that counts each comparison it makes in [`comparisons::Comparisons`] and says what is odd if
//! that is believed, and a letter in [`finding::Test`]. Source: cperf.md 4.4.

pub mod baseline;
pub mod catalogue;
pub mod comparisons;
pub mod control;
pub mod facts;
pub mod files;
pub mod finding;
pub mod group;
pub mod heat;
pub mod record;
pub mod stats;

mod consistent;
mod cores;
mod derived;
mod peers;
mod runs;
mod time;
mod zero;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use serde::Serialize;

use baseline::Baseline;
use comparisons::Comparisons;
use facts::Facts;
use files::Source;
use finding::{Finding, Level, Place, Test};
use group::{Vocabulary, groups};
use heat::Heat;
use record::{Names, Reader, Record};

use crate::read::{BadLine, FileError};

/// What is scanned.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Directories and files.
    pub roots: Vec<PathBuf>,
    /// Only this experiment.
    pub experiment: Option<String>,
    /// What earlier runs had.
    pub baseline: Option<PathBuf>,
    /// Threads that read; 0: as many as cores.
    pub threads: usize,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Scan {
    /// Runs.
    pub runs: Vec<PathBuf>,
    /// Nodes' counters that were compared.
    pub nodes: usize,
    /// Comparisons with a chance, over which false alarms are controlled.
    pub comparisons: usize,
    /// What is odd, worst first.
    pub findings: Vec<Finding>,
    /// Nodes that two tests of different classes flag, or one fatal finding: run, node, how many findings.
    pub suspects: Vec<(String, u64, usize)>,
    /// Files not used, by reason, with the first of each.
    pub unused: BTreeMap<&'static str, (usize, String)>,
    /// Lines that are no counters, by reason.
    pub bad_lines: BTreeMap<&'static str, u64>,
    /// Tests that had nothing to look at, and why.
    pub not_run: Vec<(Test, &'static str)>,
    /// Pictures of groups.
    pub heat: Vec<Heat>,
    /// What the runs have, for later ones.
    #[serde(skip)]
    pub usual: Baseline,
}

/// Pictures that are kept.
const PICTURES: usize = 40;

/// Reads everything and looks for what is odd.
///
/// # Errors
///
/// If a directory can't be read, or holds no metrics file that can.
pub fn scan(options: &Options) -> anyhow::Result<Scan> {
    let found = files::find(&options.roots)?;
    let wanted = |source: &&Source| options.experiment.as_ref().is_none_or(|name| *name == source.experiment);
    let sources: Vec<Source> = found.sources.iter().filter(wanted).cloned().collect();
    let names = Names::default();
    let (mut records, failed) = read(&sources, &names, options.threads);
    if records.is_empty() {
        let roots: Vec<_> = options.roots.iter().map(|root| root.display().to_string()).collect();
        let first =
            failed.first().map(|(_, err)| format!("; the first of {}: {err}", failed.len())).unwrap_or_default();
        anyhow::bail!(
            "{}: no metrics file that can be used; expected files EXPERIMENT-NODE.metrics, as cperf run leaves them{first}",
            roots.join(", ")
        );
    }
    derived::add(&mut records, &names);
    let words = Vocabulary::new(names.list());
    let facts: Vec<Facts> = found.runs.iter().map(|run| Facts::read(run)).collect();
    let groups = groups(&records, &words);
    let baseline = options.baseline.as_deref().map(Baseline::read).transpose().context("the baseline")?;
    let name = |run: usize| found.runs[run].display().to_string();

    let mut all = Comparisons::default();
    let mut heat = Vec::new();
    for group in &groups {
        let run = name(group.run);
        heat.extend(peers::compare(&run, group, &records, &words, &mut all));
        cores::compare(&run, group, &records, &words, &mut all);
        if let Some(baseline) = &baseline {
            baseline.compare(&run, group, &records, &words, &mut all);
        }
    }
    let mut experiments: BTreeMap<(usize, &str), Vec<&Record>> = BTreeMap::new();
    for record in &records {
        experiments.entry((record.run, &record.experiment)).or_default().push(record);
    }
    for ((run, experiment), members) in &experiments {
        zero::compare(&name(*run), experiment, members, &words, &mut all);
        consistent::compare(&name(*run), experiment, members, &facts[*run], &words, &mut all);
    }
    for (run, facts) in facts.iter().enumerate() {
        time::compare(&name(run), facts, &mut all);
    }
    runs::compare(&found.runs, &groups, &records, &facts, &words, &mut all);
    for (source, err) in &failed {
        all.certain(unusable(&name(source.run), source, err));
    }

    let comparisons = all.len();
    let findings = merge(all.findings());
    let mut unused: BTreeMap<&'static str, (usize, String)> = BTreeMap::new();
    let broken = failed.iter().map(|(_, err)| (err.reason(), err.to_string()));
    let passed = found.passed_over.iter().map(|(path, reason)| (*reason, path.display().to_string()));
    for (reason, first) in broken.chain(passed) {
        unused.entry(reason).or_insert((0, first)).0 += 1;
    }
    let bad = |reason: BadLine| records.iter().map(|record| record.bad_lines[reason as usize]).sum::<u64>();
    heat.sort_by(|a: &Heat, b| {
        b.columns.first().map_or(0.0, |c| c.most()).total_cmp(&a.columns.first().map_or(0.0, |c| c.most()))
    });
    heat.truncate(PICTURES);
    Ok(Scan {
        nodes: records.len(),
        comparisons,
        suspects: suspects(&findings),
        findings,
        unused,
        bad_lines: BadLine::ALL
            .into_iter()
            .map(|reason| (reason.text(), bad(reason)))
            .filter(|(_, count)| *count > 0)
            .collect(),
        not_run: not_run(&records, &groups, &facts, baseline.is_some(), experiments.len()),
        heat,
        usual: Baseline::new(&groups, &records, &words),
        runs: found.runs,
    })
}

/// Reads all files in threads.
fn read(sources: &[Source], names: &Names, threads: usize) -> (Vec<Record>, Vec<(Source, FileError)>) {
    let threads = if threads > 0 { threads } else { std::thread::available_parallelism().map_or(1, usize::from) };
    let next = AtomicUsize::new(0);
    let work = || {
        let mut reader = Reader::new(names);
        let mut mine = Vec::new();
        while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
            mine.push(reader.read(source).map_err(|err| (source.clone(), err)));
        }
        mine
    };
    let all: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.min(sources.len()).max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("reading does not panic")).collect()
    });
    let (mut records, mut failed) = (Vec::new(), Vec::new());
    for result in all {
        match result {
            Ok(record) => records.push(record),
            Err(err) => failed.push(err),
        }
    }
    records.sort_by(|a, b| (a.run, &a.experiment, a.node).cmp(&(b.run, &b.experiment, b.node)));
    failed.sort_by(|a, b| (a.0.run, &a.0.experiment, a.0.node).cmp(&(b.0.run, &b.0.experiment, b.0.node)));
    (records, failed)
}

/// A file that can't be used is a finding: its node's figures are missing.
fn unusable(run: &str, source: &Source, err: &FileError) -> Finding {
    let place = Place { run, experiment: &source.experiment, node: Some(source.node), core: None };
    Finding::plain(Level::Fatal, Test::I, "file", catalogue::Class::Files, &place, err.to_string())
        .because("the node failed while it wrote, or the file was damaged on its way", "collect the file again")
        .strong(310.0)
}

/// One finding a place and counter: what several tests say of it is said once. A node whose file is unusable is not
/// missing besides.
fn merge(findings: Vec<Finding>) -> Vec<Finding> {
    let mut merged: Vec<Finding> = Vec::with_capacity(findings.len());
    let mut seen = BTreeMap::new();
    for finding in findings {
        let key = (
            finding.run.clone(),
            finding.experiment.clone(),
            finding.node,
            finding.core,
            finding.metric.clone(),
            finding.level,
        );
        match seen.get(&key) {
            Some(&at) => {
                let first: &mut Finding = &mut merged[at];
                let mut tests = first.tests.clone();
                tests.extend(finding.tests.iter().filter(|test| !first.tests.contains(test)));
                tests.sort();
                // A comparison says more than a count alone.
                if first.z.is_none() && finding.z.is_some() {
                    let strength = first.strength;
                    *first = finding;
                    first.strength = strength;
                }
                first.tests = tests;
            }
            None => {
                seen.insert(key, merged.len());
                merged.push(finding);
            }
        }
    }
    merged
}

/// Nodes that two different tests flag in different classes, or with a fatal finding.
fn suspects(findings: &[Finding]) -> Vec<(String, u64, usize)> {
    let mut nodes: BTreeMap<(&str, u64), Vec<&Finding>> = BTreeMap::new();
    for finding in findings.iter().filter(|finding| finding.level > Level::Info) {
        if let Some(node) = finding.node {
            nodes.entry((&finding.run, node)).or_default().push(finding);
        }
    }
    let suspect = |all: &Vec<&Finding>| {
        let tests: BTreeSet<_> = all.iter().flat_map(|finding| &finding.tests).collect();
        let classes: BTreeSet<_> = all.iter().map(|finding| finding.class).collect();
        all.iter().any(|finding| finding.level == Level::Fatal) || (tests.len() >= 2 && classes.len() >= 2)
    };
    nodes
        .into_iter()
        .filter(|(_, all)| suspect(all))
        .map(|((run, node), all)| (run.to_owned(), node, all.len()))
        .collect()
}

/// Tests that could not look at anything.
fn not_run(
    records: &[Record],
    groups: &[group::Group],
    facts: &[Facts],
    baseline: bool,
    experiments: usize,
) -> Vec<(Test, &'static str)> {
    let most = groups.iter().map(|group| group.members.len()).max().unwrap_or(0);
    let mut columns: BTreeMap<&str, usize> = BTreeMap::new();
    for group in groups {
        *columns.entry(&group.experiment).or_default() += 1;
    }
    let mut all = Vec::new();
    let mut add = |run: bool, test, why| all.extend((!run).then_some((test, why)));
    add(most >= 5, Test::Z, "it needs five nodes of one role");
    add(most >= 3, Test::R, "it needs three nodes of one role");
    add(most >= 3, Test::L, "it needs three nodes of one role");
    add(records.iter().any(|record| !record.cores.is_empty()), Test::C, "no file has several cores");
    add(facts.iter().any(|facts| !facts.series.is_empty()), Test::T, "no node's log has throughput second by second");
    add(experiments >= 3 && columns.values().any(|&runs| runs >= 3), Test::X, "it needs three runs of one experiment");
    add(baseline, Test::B, "no --baseline was given");
    all
}

/// Writes what the runs have, for `--baseline` of later ones.
///
/// # Errors
///
/// If it can't be written.
pub fn save_baseline(scan: &Scan, path: &Path) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(&scan.usual)? + "\n";
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
