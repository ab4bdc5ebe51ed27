//! `cperf run basic`: what this machine can do. Round-trip times of every transport between two nodes on one link,
//! without load: from a raw packet ring, which is the floor, to blocking TCP.
//!
//! Transports take turns in rounds, so that frequency scaling and noisy neighbours hit all of them alike; each figure
//! is the median over rounds.

mod probe;
mod summary;

use std::io::Write as _;

use serde_json::json;

use crate::cli::{Format, RunArgs};
use crate::error::Stop;
use crate::journal::Journal;
use crate::manifest::{self, Manifest};
use crate::rates;
use crate::run::{make_out, status};
use crate::signals::Interrupt;
use crate::testbed::netns::{Netns, Topology};

pub(crate) use probe::Probe;

/// What is measured, in the order of a round.
pub(crate) const TRANSPORTS: [&str; 5] = ["raw-ring", "homa", "udp-spin", "tcp-spin", "tcp-block"];

/// Runs the calibration.
///
/// # Errors
/// As [`crate::run::run`].
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let mut options = args.clone();
    options.nodes = 2;
    if args.count == 0 || args.rounds == 0 || !(1..=60_000).contains(&args.length) {
        let text = "basic: --count and --rounds are at least 1, --length is 1 to 60000 bytes";
        return Err(Stop::Usage(text.to_owned()).into());
    }
    let out = make_out(&mut options, &[])?;
    let interrupt = Interrupt::install()?;
    let mut testbed = match Netns::build(2, Topology::Pair, options.mtu()) {
        Ok(testbed) => testbed,
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
        "client_core": cores[0], "server_core": cores[1],
    });
    let mut manifest = Manifest::new(std::env::args().collect(), settings, None, &testbed);
    out.write("manifest.json", &manifest.text())?;
    let mut journal = Journal::create(&out.path().join("cperf.log"))?;
    let (rounds, count, length) = (options.rounds, options.count, options.length);
    journal.say(&format!("basic: {rounds} rounds of {count} round trips of {length} bytes per transport"));
    if cores[0] == cores[1] {
        journal.say("only one core may be used: both ends share it, so no figure is that of two machines");
    }
    let mut found = Vec::new();
    let outcome = probe::rounds(&options, &mut testbed, &out, &interrupt, cores, &mut journal, &mut found);
    drop(testbed);
    let results = summary::summarize(&found);
    let ended = status(&outcome);
    let json = json!({
        "version": manifest::VERSION,
        "command": manifest.command.join(" "),
        "status": ended,
        "reason": outcome.as_ref().err().map(|err| format!("{err:#}")),
        "options": manifest.options,
        "results": results,
        "rounds": found,
        "manifest": &manifest,
    });
    let mut text = serde_json::to_vec_pretty(&json)?;
    text.push(b'\n');
    out.write("results.json", &text)?;
    manifest.close(ended.word(), &out)?;
    out.write("manifest.json", &manifest.text())?;
    let shown = match options.format {
        Format::Json => String::from_utf8_lossy(&text).into_owned(),
        Format::Table if results.is_empty() => String::new(),
        Format::Table => summary::table(&results, &options, cores),
    };
    let printed = std::io::stdout().lock().write_all(shown.as_bytes());
    outcome?;
    Ok(printed?)
}
