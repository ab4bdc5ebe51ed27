//! `cperf compare A B`: whether two sets of runs differ, figure by figure, beyond what runs of one set differ among
//! themselves.

mod ranks;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use scan_metrics::scan::stats::median;
use serde::Serialize;
use serde_json::Value;

use crate::cli::Format;
use crate::cli::compare::CompareArgs;
use crate::error::Stop;

/// Error probability that all verdicts of one comparison share (Holm's method).
pub const ALPHA: f64 = 0.05;
/// Resamples of the interval.
const RESAMPLES: usize = 10_000;
/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Better {
    Less,
    More,
}
use Better::{Less, More};

/// Figures of results.json that are compared.
const FIGURES: [(&str, Better); 13] = [
    ("achieved_gbps", More),
    ("short_rtt_p50_ns", Less),
    ("short_rtt_p99_ns", Less),
    ("short_rtt_p999_ns", Less),
    ("short_due_p50_ns", Less),
    ("short_due_p99_ns", Less),
    ("short_due_p999_ns", Less),
    ("slowdown_mean", Less),
    ("slowdown_p99", Less),
    ("due_slowdown_mean", Less),
    ("due_slowdown_p99", Less),
    ("resent_percent", Less),
    ("outgoing_messages", Less),
];

/// What is said about a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every run of both has the same value.
    Same,
    /// The runs differ no more between the sets than chance has it.
    NoDifference,
    /// B is better than A.
    Better,
    /// B is worse than A.
    Worse,
    /// With so few runs no difference however large could be told from chance.
    TooFewRuns,
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::NoDifference => "no difference",
            Self::Better => "B is better",
            Self::Worse => "B is worse",
            Self::TooFewRuns => "too few runs",
        }
    }
}

/// A figure of both sets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Protocol and figure.
    pub protocol: String,
    /// As in results.json, with its unit.
    pub figure: String,
    /// Runs that have it.
    pub runs: [usize; 2],
    /// Medians over runs.
    pub medians: [f64; 2],
    /// B's median over A's, less 1; null where A's is 0.
    pub change: Option<f64>,
    /// 95 % interval of that, by bootstrap; null for fewer than 3 runs a side.
    pub interval: Option<(f64, f64)>,
    /// Probability of a difference like this by chance (Mann-Whitney, two-sided), not adjusted.
    pub p: f64,
    /// See there.
    pub verdict: Verdict,
}

/// Compares and prints.
///
/// # Errors
/// [`Stop::Usage`] if one of the directories has no runs, or they are of different workloads.
pub fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let sides = [runs(&args.a)?, runs(&args.b)?];
    let workloads: Vec<_> = sides.iter().flatten().map(|run| run["workload"].as_str().unwrap_or_default()).collect();
    if workloads.iter().any(|workload| *workload != workloads[0]) && !args.anyway {
        let text = format!("runs of {}: these are different loads (--anyway compares them)", list(&workloads));
        return Err(Stop::Usage(text).into());
    }
    let rows = compare(&sides, RESAMPLES);
    let mut stdout = std::io::stdout().lock();
    if args.format == Format::Json {
        let json = serde_json::json!({ "version": 1, "a": args.a, "b": args.b, "alpha": ALPHA, "figures": rows });
        serde_json::to_writer_pretty(&mut stdout, &json)?;
        writeln!(stdout)?;
    } else {
        write!(stdout, "{}", table(&rows))?;
    }
    Ok(stdout.flush()?)
}

fn list(words: &[&str]) -> String {
    let mut words = words.to_vec();
    words.sort_unstable();
    words.dedup();
    words.join(", ")
}

/// Results of all complete runs in a directory: that of a run, or one with directories of runs.
fn runs(dir: &Path) -> anyhow::Result<Vec<Value>> {
    let shown = dir.display();
    let mut dirs: Vec<PathBuf> = vec![dir.to_owned()];
    if !dir.join("results.json").is_file() {
        let entries = fs::read_dir(dir).map_err(|err| Stop::Usage(format!("{shown}: {err}")))?;
        dirs = entries.flatten().map(|entry| entry.path()).filter(|path| path.join("results.json").is_file()).collect();
        dirs.sort();
    }
    let mut found = Vec::new();
    for dir in &dirs {
        let path = dir.join("results.json");
        let Ok(text) = fs::read(&path) else { continue };
        let json: Value = serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
        // What a broken run measured is not what a whole one would have.
        if json["status"] == "complete" {
            found.push(json);
        }
    }
    if found.is_empty() {
        let text = format!(
            "{shown}: no complete run: name the directory of a run, or one that holds directories of runs (made with \
             `cperf run W --seed N --out {shown}/N` for several N)"
        );
        return Err(Stop::Usage(text).into());
    }
    Ok(found)
}

/// All figures that both sides have.
fn compare(sides: &[Vec<Value>; 2], resamples: usize) -> Vec<Row> {
    let mut protocols: Vec<String> = Vec::new();
    for result in sides[0].iter().filter_map(|run| run["results"].as_array()).flatten() {
        let name = result["protocol"].as_str().unwrap_or_default().to_owned();
        if !protocols.contains(&name) {
            protocols.push(name);
        }
    }
    let mut rows = Vec::new();
    for protocol in &protocols {
        for (figure, better) in FIGURES {
            let values = sides.each_ref().map(|runs| values(runs, protocol, figure));
            if values.iter().all(|values| !values.is_empty()) {
                rows.push((row(protocol, figure, &values, resamples), better));
            }
        }
    }
    judge(rows)
}

fn values(runs: &[Value], protocol: &str, figure: &str) -> Vec<f64> {
    let results = runs.iter().filter_map(|run| run["results"].as_array()).flatten();
    results.filter(|result| result["protocol"] == protocol).filter_map(|result| result[figure].as_f64()).collect()
}

fn row(protocol: &str, figure: &str, values: &[Vec<f64>; 2], resamples: usize) -> Row {
    let [a, b] = values;
    let medians = values.each_ref().map(|values| median(values));
    let change = |medians: [f64; 2]| (medians[0] != 0.0).then(|| medians[1] / medians[0] - 1.0);
    let all_equal = a.iter().chain(b).all(|value| *value == a[0]);
    Row {
        protocol: protocol.to_owned(),
        figure: figure.to_owned(),
        runs: [a.len(), b.len()],
        medians,
        change: change(medians),
        interval: (a.len() >= 3 && b.len() >= 3).then(|| ranks::change_interval(a, b, resamples, change)).flatten(),
        p: ranks::mann_whitney(a, b),
        verdict: if all_equal { Verdict::Same } else { Verdict::NoDifference },
    }
}

/// Verdicts over all figures together: by Holm's method none of the differences is by chance with probability 0.95.
fn judge(mut rows: Vec<(Row, Better)>) -> Vec<Row> {
    let mut order: Vec<usize> = (0..rows.len()).filter(|&at| rows[at].0.verdict != Verdict::Same).collect();
    order.sort_by(|&a, &b| rows[a].0.p.total_cmp(&rows[b].0.p));
    let tests = order.len();
    let mut holds = true;
    for (at, index) in order.into_iter().enumerate() {
        let (row, better) = &mut rows[index];
        let limit = ALPHA / (tests - at) as f64;
        holds &= row.p <= limit;
        row.verdict = if holds {
            let up = row.medians[1] > row.medians[0];
            if up == (*better == More) { Verdict::Better } else { Verdict::Worse }
        } else if ranks::least_p(row.runs[0], row.runs[1]) > ALPHA / tests as f64 {
            Verdict::TooFewRuns
        } else {
            Verdict::NoDifference
        };
    }
    rows.into_iter().map(|(row, _)| row).collect()
}

/// For people.
fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<8} {:<18} {:>7} {:>12} {:>12} {:>8}  {:<18} {:>8}  verdict\n",
        "protocol", "figure", "runs", "A", "B", "change", "95 % interval", "p"
    );
    for row in rows {
        let interval = row.interval.map(shown);
        text += &format!(
            "{:<8} {:<18} {:>7} {:>12.5} {:>12.5} {:>8}  {:<18} {:>8.2e}  {}\n",
            row.protocol,
            row.figure,
            format!("{}, {}", row.runs[0], row.runs[1]),
            row.medians[0],
            row.medians[1],
            row.change.map_or_else(|| "-".to_owned(), percent),
            interval.unwrap_or_else(|| "-".to_owned()),
            row.p,
            row.verdict.text()
        );
    }
    text += "\nA, B: medians over runs. Interval: of the change, by bootstrap. p: Mann-Whitney, two-sided. Verdicts: all \
             together are wrong with probability 0.05 at most (Holm).\n";
    text += &summary(rows);
    if rows.iter().any(|row| row.verdict == Verdict::TooFewRuns) {
        text += "With so few runs no difference can be told from chance: about 6 a side are the least, 10 are good.\n";
    }
    text
}

/// The figures that differ, each with its interval, worst news first.
fn summary(rows: &[Row]) -> String {
    let mut text = String::new();
    for verdict in [Verdict::Worse, Verdict::Better] {
        for row in rows.iter().filter(|row| row.verdict == verdict) {
            let (change, interval) = (row.change.map(percent), row.interval.map(shown));
            text += &format!("{}: {} {}", verdict.text(), row.protocol, row.figure);
            text += &change.map(|change| format!(", {change}")).unwrap_or_default();
            text += &interval.map(|interval| format!(" ({interval})")).unwrap_or_default();
            text += "\n";
        }
    }
    if text.is_empty() { "No figure differs beyond chance.\n".to_owned() } else { text }
}

/// A share with its sign.
fn percent(share: f64) -> String {
    format!("{:+.1} %", share * 100.0)
}

/// An interval of shares.
fn shown((low, high): (f64, f64)) -> String {
    format!("{} .. {}", percent(low), percent(high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::normal;

    /// Resamples: verdicts do not depend on the intervals.
    const FEW: usize = 400;

    /// Random numbers for planted runs.
    mod rand {
        /// Roughly normal, by the sum of twelve uniform numbers; `state` is changed.
        pub(super) fn normal(state: &mut u64) -> f64 {
            let mut sum = -6.0;
            for _ in 0..12 {
                *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                sum += (*state >> 11) as f64 / (1u64 << 53) as f64;
            }
            sum
        }
    }

    /// Runs whose figures vary by `spread`, all times longer by `slower`.
    fn planted(runs: usize, spread: f64, slower: f64, seed: u64) -> Vec<Value> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut run = || {
            let mut vary = |mean: f64| mean * (1.0 + spread * normal(&mut state));
            let mut result = serde_json::json!({ "protocol": "homa" });
            for (figure, better) in FIGURES {
                let mean = if better == More { 10.0 } else { 1000.0 * (1.0 + slower) };
                result[figure] = vary(mean).into();
            }
            serde_json::json!({ "status": "complete", "workload": "w4", "results": [result] })
        };
        (0..runs).map(|_| run()).collect()
    }

    #[test]
    fn a_set_compared_with_itself_does_not_differ() {
        for runs in [1, 3, 10] {
            let set = planted(runs, 0.02, 0.0, 5);
            let rows = compare(&[set.clone(), set], FEW);
            assert_eq!(rows.len(), FIGURES.len());
            for row in rows {
                assert!(!matches!(row.verdict, Verdict::Better | Verdict::Worse), "{row:?}");
                assert_eq!(row.change, Some(0.0));
                assert!(row.interval.is_none_or(|(low, high)| low <= 0.0 && high >= 0.0), "{row:?}");
            }
        }
    }

    #[test]
    fn five_percent_at_ten_runs_a_side_are_found_and_chance_is_not() {
        let (mut missed, mut false_alarms) = (0, 0);
        for seed in 0..100 {
            let a = planted(10, 0.02, 0.0, 2 * seed + 1);
            let slower = compare(&[a.clone(), planted(10, 0.02, 0.05, 2 * seed + 2)], FEW);
            let verdict = |figure: &str| slower.iter().find(|row| row.figure == figure).unwrap();
            let mean = verdict("slowdown_mean");
            missed += u32::from(mean.verdict != Verdict::Worse);
            let (low, high) = mean.interval.unwrap();
            assert!(low < 0.08 && high > 0.02, "{mean:?}");
            let equal = compare(&[a, planted(10, 0.02, 0.0, 1000 + seed)], FEW);
            let told = equal.iter().any(|row| matches!(row.verdict, Verdict::Better | Verdict::Worse));
            false_alarms += u32::from(told);
        }
        assert!(missed <= 5, "{missed} of 100 missed");
        // 5 are allowed on average; 12 or more come by chance once in 230.
        assert!(false_alarms < 12, "{false_alarms} of 100 false alarms");
    }

    #[test]
    fn few_runs_are_said_to_be_few() {
        let rows = compare(&[planted(2, 0.01, 0.0, 1), planted(2, 0.01, 0.5, 2)], FEW);
        assert!(rows.iter().all(|row| row.verdict == Verdict::TooFewRuns), "{rows:?}");
        assert!(table(&rows).contains("no difference can be told from chance"));
    }

    #[test]
    fn more_load_carried_is_better_and_longer_times_are_worse() {
        let mut rows = compare(&[planted(10, 0.001, 0.0, 1), planted(10, 0.001, -0.1, 2)], FEW);
        assert!(rows.iter().any(|row| row.figure == "slowdown_p99" && row.verdict == Verdict::Better));
        rows.retain(|row| row.figure == "achieved_gbps");
        assert!(!matches!(rows[0].verdict, Verdict::Worse));
    }

    /// As w3 and w4 may differ: the times are much the same, the messages on their way are not.
    #[test]
    fn runs_of_two_workloads_differ_in_their_outgoing_messages() {
        let mut w3 = planted(10, 0.02, 0.0, 3);
        for run in &mut w3 {
            let figure = &mut run["results"][0]["outgoing_messages"];
            *figure = (figure.as_f64().unwrap() * 2.0).into();
        }
        let rows = compare(&[planted(10, 0.02, 0.0, 4), w3], FEW);
        let differ: Vec<_> = rows.iter().filter(|row| row.verdict == Verdict::Worse).collect();
        assert!(matches!(&differ[..], [row] if row.figure == "outgoing_messages"), "{differ:?}");
    }

    #[test]
    fn what_differs_is_told_last_with_its_interval() {
        let a = planted(10, 0.001, 0.0, 1);
        let told = summary(&compare(&[a.clone(), planted(10, 0.001, 0.05, 2)], FEW));
        let line = told.lines().find(|line| line.starts_with("B is worse: homa slowdown_mean, +")).unwrap();
        assert!(line.contains(" % (+4.") && line.contains(" % .. +5."), "{line}");
        assert!(!told.contains("achieved_gbps"), "{told}");
        assert_eq!(summary(&compare(&[a.clone(), a], FEW)), "No figure differs beyond chance.\n");
    }

    #[test]
    fn a_directory_without_runs_is_refused() {
        let err = runs(Path::new("/no/such/directory")).unwrap_err();
        assert!(err.to_string().contains("/no/such/directory"));
    }
}
