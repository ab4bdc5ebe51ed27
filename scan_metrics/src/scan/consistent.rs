//! Test I: what must agree. Packets sent with packets received, started with done, clocks and intervals with each
//! other, files with nodes.

use super::catalogue::Class;
use super::comparisons::Comparisons;
use super::facts::Facts;
use super::finding::{Finding, Level, Place, Test};
use super::group::Vocabulary;
use super::record::Record;
use super::stats::median;
use super::zero::percent;

/// Intervals of nodes may differ by this share.
const INTERVALS: f64 = 0.02;
/// Packets under way when the interval begins or ends: so long are they, at most, from counter to counter, seconds.
const UNDER_WAY: f64 = 0.0005;
/// Nodes are told one after another to note their counters: so much later the last one may be, seconds, where they
/// are not simulated.
const TELLING: f64 = 0.002;
/// Packet types.
const TYPES: [&str; 9] = ["DATA", "GRANT", "RESEND", "RPC_UNKNOWN", "BUSY", "CUTOFFS", "NEED_ACK", "ACK", "UNKNOWN"];

/// All records of an experiment, whatever their role.
pub(super) fn compare(
    run: &str,
    experiment: &str,
    records: &[&Record],
    facts: &Facts,
    words: &Vocabulary,
    all: &mut Comparisons,
) {
    let place = Place { run, experiment, ..Place::default() };
    let whole = files(&place, records, facts, all);
    each(&place, records, facts, words, all);
    if whole && records.len() >= 2 {
        packets(&place, records, facts, words, all);
        rpcs(&place, records, words, all);
    }
}

/// Nodes that should have a file and have none; true if there is one of each.
fn files(place: &Place<'_>, records: &[&Record], facts: &Facts, all: &mut Comparisons) -> bool {
    let have: Vec<u64> = records.iter().map(|record| record.node).collect();
    let most = have.iter().copied().max().unwrap_or(0);
    let (expected, source): (Vec<u64>, _) = if facts.nodes.is_empty() {
        // Without a manifest only gaps in the numbers tell.
        ((have.iter().copied().min().unwrap_or(0).min(1)..=most).collect(), "the numbers of the others")
    } else {
        (facts.nodes.clone(), "the run's manifest")
    };
    // A directory of a few picked files is no run with gaps.
    if facts.nodes.is_empty() && have.len() * 2 < expected.len() {
        return false;
    }
    let missing: Vec<_> = expected.iter().copied().filter(|node| !have.contains(node)).collect();
    for &node in &missing {
        let what = format!("{}-{node}.metrics is missing, by {source}", place.experiment);
        let place = Place { node: Some(node), ..*place };
        let finding = Finding::plain(Level::Fatal, Test::I, "file", Class::Files, &place, what).because(
            "the node failed before it wrote its counters, or its files were not collected",
            format!("node{node}.log, node{node}.stderr and cperf.log of the run; then collect again"),
        );
        all.certain(finding.strong(300.0));
    }
    for &node in have.iter().filter(|node| !facts.nodes.is_empty() && !expected.contains(node)) {
        let what = format!("{}-{node}.metrics belongs to no node of the run, by {source}", place.experiment);
        let place = Place { node: Some(node), ..*place };
        let finding = Finding::plain(Level::Fatal, Test::I, "file", Class::Files, &place, what)
            .because("a file of an earlier run in the same directory", "remove it, or scan a fresh directory");
        all.certain(finding.strong(250.0));
    }
    missing.is_empty()
}

/// What each record must fulfil alone.
fn each(place: &Place<'_>, records: &[&Record], facts: &Facts, words: &Vocabulary, all: &mut Comparisons) {
    let middle =
        |value: &dyn Fn(&Record) -> f64| median(&records.iter().map(|record| value(record)).collect::<Vec<_>>());
    let (seconds, khz) = (middle(&|record| record.seconds), middle(&|record| record.khz));
    let fatal = |record: &Record, metric: &str, what: String, cause: &str, next: &str, all: &mut Comparisons| {
        let place = Place { node: Some(record.node), ..*place };
        let finding = Finding::plain(Level::Fatal, Test::I, metric, Class::Files, &place, what).because(cause, next);
        all.certain(finding.strong(220.0));
    };
    for record in records {
        if let [first, rest @ ..] = record.shrunk.as_slice() {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            let what = format!("{first}{more} decreased during the interval");
            fatal(
                record,
                "decrease",
                what,
                "the module was loaded again, or the node was started again, while measuring",
                "repeat the run",
                all,
            );
        }
        if (record.khz / khz - 1.0).abs() > 0.001 && !record.sparse {
            let what = format!(
                "its clock runs at {:.0} kHz, those of other nodes at {khz:.0}: times are not comparable",
                record.khz
            );
            fatal(
                record,
                "cpu_khz",
                what,
                "another processor, or a clock that was calibrated badly",
                "lscpu and dmesg | grep -i tsc on each node",
                all,
            );
        }
        if (record.seconds / seconds - 1.0).abs() > INTERVALS {
            let what = format!(
                "its interval is {:.3} s, those of other nodes {seconds:.3} s: counts are not comparable",
                record.seconds
            );
            fatal(
                record,
                "interval",
                what,
                "it was told late, or did not answer in time",
                "the times in node logs and cperf.log",
                all,
            );
        }
        for part in ["request", "response"] {
            for side in ["client", "server"] {
                for (started, done) in [
                    (format!("{side}_{part}s_started"), format!("{side}_{part}s_done")),
                    (format!("{side}_{part}_bytes_started"), format!("{side}_{part}_bytes_done")),
                ] {
                    let end = |name: &str| words.number(name).and_then(|number| record.end(number));
                    let (Some(begun), Some(ended)) = (end(&started), end(&done)) else { continue };
                    if ended > begun {
                        let what = format!("{done} is {ended:.0}, more than {started}, {begun:.0}");
                        fatal(
                            record,
                            &done,
                            what,
                            "a damaged file, or an error in counting",
                            "compare the raw files with scan_metrics diff",
                            all,
                        );
                    }
                }
            }
        }
    }
    let planned =
        facts.seconds.filter(|&planned| (seconds / planned - 1.0).abs() > INTERVALS && (seconds - planned).abs() > 0.5);
    if let Some(planned) = planned.filter(|_| !records.is_empty() && !records[0].sparse) {
        let what = format!("the interval is {seconds:.2} s where {planned:.2} s were planned");
        let finding = Finding::plain(Level::Warn, Test::I, "interval", Class::Files, place, what)
            .because("the run was interrupted, or nodes answered slowly", "cperf.log of the run");
        all.certain(finding.strong(40.0));
    }
}

/// Packets of each type, sent against received, over all nodes.
fn packets(place: &Place<'_>, records: &[&Record], facts: &Facts, words: &Vocabulary, all: &mut Comparisons) {
    let sum = |name: &str| records.iter().map(|record| words.of(record, name)).sum::<f64>();
    let seconds: Vec<_> = records.iter().map(|record| record.seconds).collect();
    let middle = median(&seconds);
    let most = seconds.iter().map(|seconds| (seconds - middle).abs()).fold(0.0, f64::max);
    let slack = most + UNDER_WAY + if facts.simulated { 0.0 } else { TELLING };
    for kind in TYPES {
        let (sent, received) = (sum(&format!("packets_sent_{kind}")), sum(&format!("packets_rcvd_{kind}")));
        let difference = sent - received;
        // Control packets come in bursts: what is under way varies more than its mean.
        let bursts = if kind == "DATA" { 0.0 } else { 4.0 * sent.max(received).sqrt() };
        let allowed = sent.max(received) / middle * slack + bursts + 10.0;
        if difference.abs() <= allowed {
            continue;
        }
        let share = difference.abs() / sent.max(received);
        let (level, what, cause) = if difference > 0.0 {
            let asked = facts.loss > 0.0;
            let what = format!(
                "{difference:.0} of {sent:.0} {kind} packets sent did not arrive ({}); {allowed:.0} may be under way",
                percent(share)
            );
            let cause = "packets are lost on the way: full queues of a switch, a bad link, a full ring; or a receiver does not count them";
            (if asked { Level::Info } else { Level::Warn }, what, cause)
        } else {
            let what = format!(
                "{received:.0} {kind} packets arrived, {:.0} more than the {sent:.0} sent ({}); {allowed:.0} may be under way",
                -difference,
                percent(share)
            );
            (Level::Warn, what, "packets of another run or host, duplicated on the way, or intervals that do not match")
        };
        let finding = Finding::plain(level, Test::I, &format!("packets_{kind}"), Class::Loss, place, what)
            .because(cause, "tthoma analyze loss traces/*.tt; drops in the .switch file, ethtool -S, tc -s qdisc")
            .against(received, sent, "packets", "what all nodes sent");
        all.certain(finding.strong(60.0 + 100.0 * share));
    }
    for record in records {
        let (asked, resent) = (words.of(record, "packets_rcvd_RESEND"), words.of(record, "resent_packets"));
        if resent > 10.0 && asked == 0.0 {
            let what = format!("it sent {resent:.0} packets again, and no RESEND reached it");
            let place = Place { node: Some(record.node), ..*place };
            let finding = Finding::plain(Level::Fatal, Test::I, "resent_packets", Class::Retransmission, &place, what)
                .because("a damaged file, or an error in counting", "scan_metrics metrics FILE");
            all.certain(finding.strong(210.0));
        }
    }
}

/// RPCs of clients against those of servers.
fn rpcs(place: &Place<'_>, records: &[&Record], words: &Vocabulary, all: &mut Comparisons) {
    let sum = |name: &str| records.iter().map(|record| words.of(record, name)).sum::<f64>();
    let (clients, servers) = (sum("responses_received"), sum("requests_received"));
    // Those under way at both ends, and some that servers never see the end of.
    let allowed = 0.05 * clients.max(servers) + 50.0 * records.len() as f64;
    if (clients - servers).abs() > allowed {
        let what = format!("clients had {clients:.0} responses, servers {servers:.0} requests");
        let finding = Finding::plain(Level::Fatal, Test::I, "rpcs", Class::Traffic, place, what)
            .because(
                "a client or server is missing from the files, or RPCs were given up",
                "rpc_timeouts; cperf.log of the run",
            )
            .against(clients, servers, "RPCs", "requests at servers");
        all.certain(finding.strong(200.0));
    }
}
