//! `cperf run basic`: what this machine can do, between two nodes on one link. Round-trip times of every transport
//! without load, from a raw packet ring, which is the floor, to blocking TCP; throughput of one stream, and rate of short
//! RPCs, between raw frames, which are the ceiling, and TCP; IPv6 against IPv4.
//!
//! All cases take turns in rounds, so that frequency scaling and noisy neighbours hit all of them alike; each figure
//! is the median over rounds.

mod cases;
mod flows;
mod links;
mod probe;
mod summary;

use std::io::Write as _;

use serde_json::json;

use crate::cli::{Format, RunArgs, TestbedKind};
use crate::error::Stop;
use crate::journal::Journal;
use crate::manifest::{self, Manifest};
use crate::rates;
use crate::run::{make_out, status};
use crate::signals::Interrupt;

pub use cases::Section;
use links::Links;

/// Runs the calibration.
///
/// # Errors
/// As [`crate::run::run`].
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<()> {
    if args.has("testbed") && args.testbed != TestbedKind::Netns {
        let text = "basic measures this machine: leave out --testbed, or say --testbed netns";
        return Err(Stop::Usage(text.to_owned()).into());
    }
    let mut options = args.clone();
    options.testbed = TestbedKind::Netns;
    options.nodes = 2;
    if args.count == 0 || args.rounds == 0 || !(12..=1400).contains(&args.length) {
        let text = "basic: --count and --rounds are at least 1, --length is 12 to 1400 bytes";
        return Err(Stop::Usage(text.to_owned()).into());
    }
    if args.sections.is_empty() {
        return Err(Stop::Usage("--sections: name at least one".to_owned()).into());
    }
    if args.link_gbps.is_some() || args.loss > 0.0 {
        return Err(Stop::Usage("basic measures links as they are: leave out --link-gbps and --loss".to_owned()).into());
    }
    let mut sections = args.sections.clone();
    sections.dedup();
    let mut cases = cases::cases(&sections, options.mtu(), options.length);
    let ipv6 = cases.iter().any(|case| case.ipv6);
    let out = make_out(&mut options, &[])?;
    let interrupt = Interrupt::install()?;
    let mut links = match Links::build(cases.iter().map(|case| case.mtu), ipv6) {
        Ok(links) => links,
        Err(err) => {
            out.abandon();
            return Err(err);
        }
    };
    interrupt.watch();
    let cores = if rates::cores() >= 2 { [0, 1] } else { [0, 0] };
    let settings = json!({
        "workload": "basic", "testbed": options.testbed, "count": options.count, "rounds": options.rounds,
        "length": options.length, "mtu": options.mtu(), "out": options.out, "format": options.format,
        "client_core": cores[0], "server_core": cores[1], "sections": sections,
    });
    let testbed = links.with_mtu(cases[0].mtu);
    let mut manifest = Manifest::new(std::env::args().collect(), settings, None, testbed);
    out.write("manifest.json", &manifest.text())?;
    let mut journal = Journal::create(&out.path().join("cperf.log"))?;
    let (rounds, count, length) = (options.rounds, options.count, options.length);
    let text = format!("basic: {rounds} rounds of {} cases; {count} round trips of {length} bytes", cases.len());
    journal.say(&text);
    if cores[0] == cores[1] {
        journal.say("only one core may be used: both ends share it, so no figure is that of two machines");
    }
    let mut found = Vec::new();
    let setting = probe::Setting { options: &options, out: &out, interrupt: &interrupt, cores };
    let without_xdp = probe::without_xdp(&setting, &mut links, cases[0].mtu)?;
    if let Some(why) = &without_xdp {
        journal.say(&format!("basic: no AF_XDP here: {why}"));
        cases.retain(|case| case.transport != cases::XDP);
    }
    let outcome = probe::rounds(&setting, &cases, &mut links, &mut journal, &mut found);
    drop(links);
    let latency = found.iter().filter(|one| one.case.section == Section::Latency);
    let latency: Vec<_> = latency.filter_map(|one| one.rtt.clone()).collect();
    let (results, flows) = (summary::summarize(&latency), flows::summarize(&found));
    let ended = status(&outcome);
    let json = json!({
        "version": manifest::VERSION,
        "command": std::env::args().collect::<Vec<_>>().join(" "),
        "status": ended,
        "reason": outcome.as_ref().err().map(|err| format!("{err:#}")),
        "options": manifest.options,
        "results": results,
        "flows": flows,
        "method": flows::METHOD,
        "without_xdp": without_xdp,
        "rounds": found,
        "manifest": &manifest,
    });
    let mut text = serde_json::to_vec_pretty(&json)?;
    text.push(b'\n');
    out.write("results.json", &text)?;
    manifest.close(ended.word(), &out)?;
    out.write("manifest.json", &manifest.text())?;
    let mut table = flows::table(&flows);
    if !results.is_empty() {
        table = summary::table(&results, &options, cores) + &table;
    }
    if let Some(why) = &without_xdp {
        table += &format!("homa-xdp, Homa by AF_XDP, could not be had here: {why}\n");
    }
    let shown = match options.format {
        Format::Json => String::from_utf8_lossy(&text).into_owned(),
        Format::Table => table,
    };
    let printed = std::io::stdout().lock().write_all(shown.as_bytes());
    outcome?;
    Ok(printed?)
}
