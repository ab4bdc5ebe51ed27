//! `cperf run`: one benchmark from options to results, and whatever happens, nothing left behind but its files.

mod again;
mod collect;
mod conclude;
mod homa;
mod machines;
mod nodefiles;
mod options;
mod phase;
mod rounds;
mod simulate;

use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::basic;
use crate::cli::{Protocol, RunArgs, TestbedKind};
use crate::error::Stop;
use crate::experiment;
use crate::journal::Journal;
use crate::manifest::Manifest;
use crate::outdir::{self, OutDir};
use crate::policy::Policy;
use crate::rates;
use crate::report::results::Status;
use crate::signals::Interrupt;
use crate::sys;
use crate::testbed::Testbed;
use crate::testbed::netns::{Layout, Netns, Topology};

pub(crate) use phase::{LIMITS, Part};
use rounds::Rounds;
pub(crate) use simulate::{side_by_side, stop};

/// Directories inside that of a run.
const SUBDIRECTORIES: [&str; 2] = ["reports", "traces"];
/// How long nodes may take to exit before they are killed.
const EXIT_LIMIT: Duration = Duration::from_secs(5);

/// Runs what the options say, prints the results, and leaves all files in the directory of the run.
///
/// # Errors
/// [`Stop`] for the exit codes 2, 3 and 130; others mean that the run failed. What was measured before is kept.
pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    if args.workload == "basic" && !experiment::is_basic(args) {
        args.refuse_others(false)?;
        return basic::run(args);
    }
    if let Some(source) = experiment::named(args)? {
        args.refuse_others(true)?;
        return experiment::run(args, &source);
    }
    args.refuse_others(false)?;
    match args.testbed {
        TestbedKind::Sim => simulate::run(args),
        TestbedKind::Netns => on_namespaces(args),
        TestbedKind::Ssh => machines::run(args),
    }
}

/// Whether a run on namespaces could begin with these options.
///
/// # Errors
/// [`Stop::Usage`], naming the option and what it takes.
pub fn check(args: &RunArgs) -> Result<(), Stop> {
    options::effective(args).map(drop)
}

/// Makes the reports of a run or an experiment again, from the files in its directory.
///
/// # Errors
/// The directory is not one of a run or an experiment, or files cannot be read or written.
pub fn report(dir: &Path) -> anyhow::Result<()> {
    if experiment::is_one(dir) { experiment::report(dir) } else { again::report(dir) }
}

/// A run on namespaces of this machine.
fn on_namespaces(args: &RunArgs) -> anyhow::Result<()> {
    let mut options = options::effective(args)?;
    let policy = Policy::of(args, false)?;
    let out = make_out(&mut options, &SUBDIRECTORIES)?;
    let interrupt = Interrupt::install()?;
    // Nothing was started yet: a testbed that cannot be built leaves no trace.
    let (ipv6, links) = (options.ipv6, options.links());
    let layout = Layout { ipv6, links, ..Layout::new(options.nodes, Topology::Bridge, options.mtu()) };
    let mut testbed = match Netns::build_as(layout) {
        Ok(testbed) => testbed,
        Err(err) => {
            out.abandon();
            return Err(err);
        }
    };
    interrupt.watch();
    let (mut manifest, mut journal) = begin(&options, &testbed, &out)?;
    if args.gbps.is_none() {
        journal.say(&format!("load by rule: {} (--gbps sets it)", rates::RULE));
    }
    let (parts, outcome) = perform(&options, policy, &mut testbed, interrupt, &mut manifest, &mut journal, &out);
    match testbed.ports() {
        Ok(ports) if ports.is_empty() => {}
        Ok(ports) => manifest.testbed["ports"] = serde_json::to_value(ports)?,
        Err(err) => journal.say(&format!("{err:#}")),
    }
    drop(testbed);
    conclude::conclude(&options, &mut manifest, &out, &mut journal, &parts, outcome)
}

/// All steps on a testbed, and whatever happens, its nodes' files in the directory of the run afterwards. Returns what
/// was measured, and how it ended.
fn perform(
    options: &RunArgs,
    policy: Policy,
    testbed: &mut dyn Testbed,
    interrupt: Interrupt,
    manifest: &mut Manifest,
    journal: &mut Journal,
    out: &OutDir,
) -> (Vec<Part>, anyhow::Result<()>) {
    let known = testbed.remarks();
    let mut rounds = Rounds::new(options, policy, testbed, interrupt, journal, out);
    let outcome = rounds.all();
    rounds.end();
    let Rounds { parts, mut remarks, account, .. } = rounds;
    (manifest.policy, manifest.rounds) = (Some(policy), account);
    let missing = testbed.collect(out.path());
    remarks.extend(testbed.remarks().into_iter().filter(|remark| !known.contains(remark)));
    // What ended the run is told as such.
    let reason = outcome.as_ref().err().map(|err| format!("{err:#}")).unwrap_or_default();
    let told = |what: &str| reason.contains(what.strip_prefix("it died: ").unwrap_or(what));
    remarks.retain(|remark| remark.split_once(": ").is_none_or(|(_, what)| !told(what)));
    remarks.iter().for_each(|remark| journal.say(remark));
    manifest.remarks = known.into_iter().chain(remarks).collect();
    let mut odd: Vec<String> = missing.iter().map(|(node, err)| format!("node {node}: {err:#}")).collect();
    // What could not be collected is still there, and stays.
    let kept: Vec<_> = missing.iter().map(|(node, _)| *node).collect();
    odd.extend(testbed.remove(&kept).iter().map(|(node, err)| format!("node {node}: {err:#}")));
    odd.iter().for_each(|text| journal.say(text));
    let outcome = outcome.and_then(|()| match missing.first() {
        None => Ok(()),
        Some((node, _)) => Err(anyhow::anyhow!("files of node {node} are missing: {}", odd.join("; "))),
    });
    (parts, outcome)
}

/// Makes the directory of a run, and notes it in the options.
pub(crate) fn make_out(options: &mut RunArgs, subdirectories: &[&str]) -> Result<OutDir, Stop> {
    let stamp = sys::local_time(SystemTime::now()).stamp();
    let path = options.out.take().unwrap_or_else(|| outdir::default_path(&options.workload, &stamp));
    let out = OutDir::create(&path, subdirectories)?;
    options.out = Some(path);
    Ok(out)
}

/// The first entries of the manifest and of the journal of a run whose nodes are there.
fn begin(options: &RunArgs, testbed: &dyn Testbed, out: &OutDir) -> anyhow::Result<(Manifest, Journal)> {
    let settings = serde_json::to_value(options)?;
    let manifest = Manifest::new(std::env::args().collect(), settings, Some(options.seed), testbed);
    out.write("manifest.json", &manifest.text())?;
    let mut journal = Journal::create(&out.path().join("cperf.log"))?;
    journal.say(&announce(options));
    Ok((manifest, journal))
}

/// How a run ended, from what ended it.
pub(crate) fn status(outcome: &anyhow::Result<()>) -> Status {
    match outcome {
        Ok(()) => Status::Complete,
        Err(err) if matches!(err.downcast_ref::<Stop>(), Some(Stop::Interrupted)) => Status::Interrupted,
        Err(_) => Status::Failed,
    }
}

/// What is about to happen, in one line.
fn announce(options: &RunArgs) -> String {
    let name = |protocol: &Protocol| match protocol {
        Protocol::Tcp => format!("tcp ({})", options.tcp_cc),
        other => other.name().to_owned(),
    };
    let protocols: Vec<_> = options.protocols.iter().map(name).collect();
    let load = options.gbps.filter(|gbps| *gbps > 0.0).map_or_else(
        || "as much load as --client-max allows".to_owned(),
        |gbps| format!("{gbps} Gbps per node and direction"),
    );
    let out = options.out.as_deref().unwrap_or_else(|| std::path::Path::new("."));
    let mut links = options
        .link_gbps
        .map(|gbps| {
            let (buffer, levels) = (options.switch_buffer.unwrap_or_default(), options.priorities);
            format!("; links of {gbps} Gbps, {buffer} bytes and {levels} levels a port; {}", options.homa.join(" "))
        })
        .unwrap_or_default();
    if options.loss > 0.0 {
        links += &format!("; {} % of the packets are lost", options.loss * 100.0);
    }
    format!(
        "{} on {} nodes, {}: {load}, {} s each, MTU {}{links}; files in {}",
        options.workload,
        options.nodes,
        protocols.join(" then "),
        options.seconds,
        options.mtu(),
        out.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_a_run_is_its_status() {
        assert_eq!(status(&Ok(())), Status::Complete);
        assert_eq!(status(&Err(Stop::Interrupted.into())), Status::Interrupted);
        assert_eq!(status(&Err(anyhow::anyhow!("a node died"))), Status::Failed);
    }
}
