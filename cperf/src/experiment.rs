//! Experiments: many measurements of simulated clusters, described by files that can be copied and changed.
//!
//! | module | holds |
//! | --- | --- |
//! | [`mod@file`], [`bundled`] | the files' format, and those that come with the program |
//! | [`plan`], [`overrides`] | points: all combinations, with all seeds; what the command line sets |
//! | [`search`], [`outcome`], [`figures`], [`statistics`] | what is done at a point, and the figures of each measurement |
//! | [`study`], [`deciles`], [`study_report`] | the study of SIGCOMM 2018: its points, tables and report |
//! | [`attempts`], [`account`] | points on nodes that can fail: tried again or left out, and what is told of it |
//! | [`mod@point`], [`engine`], [`slurm`] | measuring points, here or on a scheduler's machines; results are kept |
//! | [`columns`], [`tables`] | tidy tables: CSV and Parquet |
//! | [`published`], [`chart`], [`document`] | published figures, plots, and the report that shows both |
//!
//! A directory of an experiment has `plan.json` (everything that is measured), `points/ID/` with `spec.json` and
//! `result.json`, and tables and reports, which are made from these anew each time.

pub mod account;
pub mod aspects;
pub mod attempts;
pub mod bundled;
pub mod chart;
pub mod columns;
pub mod deciles;
pub mod document;
pub mod engine;
pub mod figures;
pub mod file;
pub mod lengths;
pub mod outcome;
pub mod overrides;
pub mod parquet;
pub mod plan;
pub mod point;
pub mod published;
pub mod real;
pub mod search;
pub mod slurm;
pub mod statistics;
pub mod study;
pub mod study_report;
pub mod tables;
pub mod testbeds;

use std::fs;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::{EngineKind, RunArgs, TestbedKind};
use crate::error::{Stop, nearest};
use crate::policy::Policy;
use crate::rates::{self, Workload};
use crate::run::LIMITS;
use crate::signals::Interrupt;
use account::Account;
use file::File;
use plan::{Plan, PointSpec};

/// Version of the simulator: a hash of the sources that results depend on.
pub const SIMULATOR: &str = env!("CPERF_SIMULATOR");

/// Text of an experiment, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// For messages.
    pub name: String,
    /// TOML.
    pub text: String,
}

/// The experiment that the command line names; `None` if it names a workload that is to be run once.
///
/// # Errors
/// [`Stop::Usage`] if it names neither, or a file that cannot be read.
pub fn named(args: &RunArgs) -> Result<Option<Source>, Stop> {
    let name = args.workload.as_str();
    let bundled = bundled::find(name).map(|text| Source { name: name.to_owned(), text });
    let several = ["seeds", "engine", "dry-run", "set"].iter().any(|option| args.has(option));
    let source = if Path::new(name).extension().is_some_and(|extension| extension == "toml") || name.contains('/') {
        let text = fs::read_to_string(name)
            .map_err(|err| Stop::Usage(format!("{name}: {err}; name a file that can be read")))?;
        Some(Source { name: name.to_owned(), text })
    } else if let Ok(workload) = Workload::parse(name) {
        // A workload's experiment has no other reason than several measurements.
        let text = || {
            bundled
                .clone()
                .unwrap_or_else(|| Source { text: bundled::of_length(&workload.name), name: name.to_owned() })
        };
        several.then(text)
    } else if bundled.is_some() {
        bundled
    } else {
        let workloads = ["w1", "w2", "w3", "w4", "w5", "starve", "basic"];
        if let Some((_, why)) = aspects::ABSENT.iter().find(|(known, _)| *known == name) {
            return Err(Stop::Usage(format!("{name}: there is nothing like it here: {why}")));
        }
        let known: Vec<_> = bundled::names().collect();
        let near = nearest(name, known.iter().map(String::as_str).chain(workloads));
        let text = format!(
            "unknown workload or experiment `{name}`; did you mean `{near}`? There are w1, w2, w3, w4, w5, starve, a message \
             length in bytes, basic, FILE.toml, and the experiments that `cperf experiments` lists"
        );
        return Err(Stop::Usage(text));
    };
    if source.is_some() && args.testbed != TestbedKind::Sim && args.engine == EngineKind::Slurm {
        let text = format!("{name}: a scheduler's jobs simulate nodes: leave out --testbed or --engine");
        return Err(Stop::Usage(text));
    }
    if source.is_some() && args.testbed == TestbedKind::Ssh && args.cluster.is_none() {
        return Err(Stop::Usage("--testbed ssh: --cluster FILE.toml is needed; docs/ssh.md has an example".to_owned()));
    }
    Ok(source)
}

/// Whether `cperf run basic` means the experiment: it does with what only experiments have, and on other nodes than this
/// machine.
pub fn is_basic(args: &RunArgs) -> bool {
    let elsewhere = args.has("testbed") && args.testbed != TestbedKind::Netns;
    args.workload == "basic"
        && (elsewhere || ["seeds", "engine", "dry-run", "set"].iter().any(|option| args.has(option)))
}

/// Measures what is missing of an experiment, and makes its reports.
///
/// # Errors
/// [`Stop`] for wrong usage and interruptions; others mean that points failed.
pub fn run(args: &RunArgs, source: &Source) -> anyhow::Result<()> {
    let plan = planned(args, source)?;
    let policy = Policy::of(args, true)?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from("out").join(&plan.file.name));
    let missing = engine::missing(&plan, &out);
    if args.dry_run {
        let real = (args.testbed != TestbedKind::Sim).then_some(&policy);
        return print(&describe(&plan, &missing, &out, real));
    }
    if args.threads == Some(0) || args.slurm_tasks == 0 {
        return Err(Stop::Usage("--threads and --slurm-tasks: at least 1 is needed".to_owned()).into());
    }
    fs::create_dir_all(&out).map_err(|err| Stop::Usage(format!("--out {}: {err}", out.display())))?;
    if !is_one(&out) && fs::read_dir(&out)?.next().is_some() {
        let text =
            format!("--out {}: there are files in it that are no experiment's; name another directory", out.display());
        return Err(Stop::Usage(text).into());
    }
    let interrupt = Interrupt::install()?;
    interrupt.watch();
    write(&out.join("experiment.toml"), source.text.as_bytes())?;
    write(&out.join("plan.json"), &serde_json::to_vec_pretty(&plan)?)?;
    engine::prepare(&missing, &out)?;
    let (all, have) = (plan.points.len(), plan.points.len() - missing.len());
    eprintln!("cperf: {}: {all} points, {have} measured already; files in {}", plan.file.name, out.display());
    let measured = match args.engine {
        // Nodes that are real have the machine, or the machines, to themselves.
        EngineKind::Local if args.testbed != TestbedKind::Sim => {
            let mut account = Account::begin(&plan, &out, policy);
            account.write(&out)?;
            let baselines = point::Baselines::default();
            let mut watch = |_| if interrupt.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            let cluster = args.cluster.as_deref();
            attempts::measure(&missing, &out, &mut account, &interrupt, |point, dir| {
                point::measure(&point.spec, dir, cluster, &baselines, &mut watch)
            })
        }
        EngineKind::Local => engine::local(&missing, &out, args.threads.unwrap_or_else(rates::cores), &interrupt),
        EngineKind::Slurm => slurm::measure(&missing, &out, &args.slurm_args, args.slurm_tasks, &interrupt),
    };
    // What there is, is reported, however it ended.
    let reported = report(&out);
    measured.and(reported)
}

/// The plan with everything that the command line sets.
fn planned(args: &RunArgs, source: &Source) -> anyhow::Result<Plan> {
    let usage = |text: String| Stop::Usage(format!("{}: {text}", source.name));
    let mut file = File::parse(&source.text).map_err(usage)?;
    if let Some(seeds) = &args.seeds {
        file.seeds = seeds_of(seeds)?;
    }
    if args.has("slowdown") {
        file.slowdown = args.slowdown;
    }
    let mut set = overrides::of(args)?;
    if let Some(at) = set.iter().position(|(name, _)| name == "seed") {
        file.seeds = vec![args.seed];
        set.remove(at);
    }
    if args.has("protocols") {
        let values: Vec<_> = args.protocols.iter().map(|protocol| protocol.name().into()).collect();
        protocols(&mut file, values).map_err(usage)?;
    }
    Ok(Plan::on(args.testbed, file, &set).map_err(usage)?)
}

/// Measures these protocols instead of those of the file; of cases that have one, those that have one of these.
fn protocols(file: &mut File, values: Vec<serde_json::Value>) -> Result<(), String> {
    let has_one = |vary: &file::Vary| vary.cases.iter().any(|case| case.contains_key("protocol"));
    if let Some(vary) = file.vary.iter_mut().find(|vary| has_one(vary)) {
        vary.cases.retain(|case| case.get("protocol").is_none_or(|protocol| values.contains(protocol)));
        let none = vary.cases.is_empty();
        return if none { Err("--protocols: none of its cases is about these".to_owned()) } else { Ok(()) };
    }
    let vary = file::Vary { parameter: Some("protocol".to_owned()), values, cases: Vec::new() };
    match file.vary.iter_mut().find(|vary| vary.parameter.as_deref() == Some("protocol")) {
        Some(existing) => *existing = vary,
        None => file.vary.insert(0, vary),
    }
    file.fixed.remove("protocol");
    file.netns.remove("protocol");
    Ok(())
}

/// `1,2,5` or `1-5`, or both.
fn seeds_of(text: &str) -> Result<Vec<u64>, Stop> {
    let wrong =
        || Stop::Usage(format!("--seeds {text}: expected numbers and ranges of up to 10,000, like 1,2,3 or 1-5"));
    let mut seeds = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        if last < first || last - first >= 10_000 {
            return Err(wrong());
        }
        seeds.extend(first..=last);
    }
    seeds.sort_unstable();
    seeds.dedup();
    Ok(seeds)
}

/// What would be measured; on nodes that can fail, how long what may take, and by which policy.
fn describe(plan: &Plan, missing: &[&plan::Point], out: &Path, policy: Option<&Policy>) -> String {
    let mut text = format!("{}: {}\n", plan.file.name, plan.file.title);
    for group in plan.groups() {
        let open = group.iter().filter(|point| missing.iter().any(|other| other.id == point.id)).count();
        let seeds: Vec<_> = group.iter().map(|point| point.spec.sim.seed.to_string()).collect();
        let (what, seeds) = (plan::describe(&group[0].varied), seeds.join(","));
        text += &format!("  {what}; seeds {seeds}: {open} of {} to measure\n", group.len());
    }
    let (all, open) = (plan.points.len(), missing.len());
    if let Some(policy) = policy {
        let limits = LIMITS.map(|(phase, limit)| format!("{phase} {} s", limit.as_secs()));
        let limits = limits.join(", ");
        text +=
            &format!("Longest answer of a node, by phase: {limits}; besides, warm-up and measuring take their time.\n");
        text += &format!("Policy: {}.\n", policy.text());
    }
    text + &format!("{all} points, {open} to measure; files in {}\n", out.display())
}

/// Whether `dir` is an experiment's.
pub fn is_one(dir: &Path) -> bool {
    dir.join("plan.json").is_file()
}

/// Makes tables and reports of the experiment in `dir`.
///
/// # Errors
/// Files cannot be read or written.
pub fn report(dir: &Path) -> anyhow::Result<()> {
    let text =
        fs::read(dir.join("plan.json")).with_context(|| format!("reading {}", dir.join("plan.json").display()))?;
    let plan: Plan = serde_json::from_slice(&text).context("reading plan.json")?;
    let load = |point: &plan::Point| point::load(&engine::dir(dir, &point.id), &point.id);
    let measured: Vec<tables::Measured<'_>> = plan.points.iter().map(|point| (point, load(point))).collect();
    let (tables, mut document) = if plan.file.measure == file::Measure::Sigcomm18 {
        (deciles::tables(&plan, &measured), study_report::report(&plan, &measured)?)
    } else {
        let all = vec![
            ("results", tables::results(&plan, &measured)),
            ("by_length", tables::by_length(&plan, &measured)),
            ("summary", tables::summary(&plan, &measured)),
            ("columns", tables::meanings(&plan)),
        ];
        (all, document::report(&plan, &measured)?)
    };
    let mut account = Account::load(dir);
    if let Some(account) = &account {
        document.insert(account.parts());
    }
    for (name, table) in tables {
        write(&dir.join(name).with_extension("csv"), table.csv().as_bytes())?;
        if !["summary", "columns"].contains(&name) {
            write(&dir.join(name).with_extension("parquet"), &parquet::file(&table))?;
        }
    }
    for (name, text) in lengths::data_files(&measured) {
        write(&dir.join("reports").join(name), text.as_bytes())?;
    }
    for (name, svg) in document.plots() {
        write(&dir.join("plots").join(name), svg.as_bytes())?;
    }
    let text = document.markdown();
    write(&dir.join("report.md"), text.as_bytes())?;
    write(&dir.join("report.html"), document.html().as_bytes())?;
    if let Some(account) = &mut account {
        account.close(dir)?;
    }
    print(&format!("{text}\nreport.md, report.html and tables (*.csv, *.parquet) are in {}\n", dir.display()))
}

/// Prints the list of bundled experiments.
///
/// # Errors
/// Standard output cannot be written.
pub fn list() -> anyhow::Result<()> {
    let mut text = String::from("Experiments (`cperf experiments show NAME` prints one, `cperf run NAME` runs it):\n");
    for name in bundled::names() {
        let file = File::parse(&bundled::find(&name).expect("its name is from the list")).map_err(Stop::Usage)?;
        let points = Plan::on(file.testbeds[0], file.clone(), &[]).map_err(Stop::Usage)?.points.len();
        let testbeds: Vec<_> = file.testbeds.iter().map(|testbed| testbed.name()).collect();
        text += &format!("  {name:<22} {points:>4} points  {:<14} {}\n", testbeds.join(","), file.title);
    }
    text += "What scripts of the kernel module's cperf vary and this stack has not:\n";
    for (name, why) in aspects::ABSENT {
        text += &format!("  {name:<25} {why}\n");
    }
    print(&text)
}

/// Prints the file of a bundled experiment.
///
/// # Errors
/// [`Stop::Usage`] with the nearest name.
pub fn show(name: &str) -> anyhow::Result<()> {
    match bundled::find(name) {
        Some(text) => print(&text),
        None => {
            let known: Vec<_> = bundled::names().collect();
            let near = nearest(name, known.iter().map(String::as_str));
            let text = format!("unknown experiment `{name}`; did you mean `{near}`? `cperf experiments` lists all");
            Err(Stop::Usage(text).into())
        }
    }
}

/// Measures the point of the file `spec`, and leaves its result in the directory `out`.
///
/// # Errors
/// [`Stop::Usage`] for a file that is no point's or of another version.
pub fn point(spec: &Path, out: &Path) -> anyhow::Result<()> {
    let text = fs::read(spec).map_err(|err| Stop::Usage(format!("{}: {err}", spec.display())))?;
    let spec: PointSpec = serde_json::from_slice(&text)
        .map_err(|err| Stop::Usage(format!("{}: {err}; it is no spec.json of this version", spec.display())))?;
    let interrupt = Interrupt::install()?;
    interrupt.watch();
    let mut watch =
        |_| if interrupt.is_set() { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) };
    point::measure(&spec, out, None, &point::Baselines::default(), &mut watch)
}

/// Writes a file, and the directories that it is in, that others see whole or not at all.
fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let part = path.with_extension(format!("part{}", std::process::id()));
    let write = || {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&part, content)?;
        fs::rename(&part, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_lists_and_ranges() {
        assert_eq!(seeds_of("3,1-3,7").unwrap(), [1, 2, 3, 7]);
        for wrong in ["", "x", "3-1", "1,,2", "0-99999999"] {
            assert!(seeds_of(wrong).unwrap_err().to_string().contains("like 1,2,3 or 1-5"), "{wrong}");
        }
    }
}
