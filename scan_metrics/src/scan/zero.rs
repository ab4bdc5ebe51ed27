//! Test 0: counters that must be zero.

use super::catalogue::{ZERO, about, cause, next};
use super::comparisons::Comparisons;
use super::finding::{Finding, Level, Place, Test};
use super::group::Vocabulary;
use super::record::Record;

/// Share of a node's packets from which on errors are worth a warning.
const ERRORS: f64 = 1e-5;
/// The same for retries and what they leave, and for losses that were asked for. A loaded Homa run without any loss has
/// some: a receiver asks for what the sender's order of sending has put off. In 100 simulated runs
/// at 80 % load the most was 0.04 %.
const RETRIES: f64 = 0.001;

/// All nodes of an experiment.
pub(super) fn compare(run: &str, experiment: &str, records: &[&Record], words: &Vocabulary, all: &mut Comparisons) {
    for (name, fatal) in ZERO {
        let Some((number, about)) = words.number(name).zip(about(name)) else { continue };
        let retries = matches!(name, "resent_packets" | "resent_discards" | "packet_discards" | "unknown_rpcs");
        let limit = if retries { RETRIES } else { ERRORS };
        let mut counted: Vec<Counted<'_>> = Vec::new();
        for record in records {
            let Some(count) = record.get(number).filter(|&count| count > 0.0) else { continue };
            let packets = record.load(super::catalogue::Load::Packets, &words.loads).max(1.0);
            counted.push(Counted { record, count, share: count / packets });
        }
        counted.sort_by(|a, b| b.share.total_cmp(&a.share));
        let large = counted.iter().filter(|counted| fatal || counted.share > limit).count();
        let level = if fatal { Level::Fatal } else { Level::Warn };
        let finding = |level, node, what, value| {
            let place = Place { run, experiment, node, core: None };
            Finding::plain(level, Test::Zero, name, about.class, &place, what)
                .because(zero_cause(name), next(name, node))
                .against(value, 0.0, "", "what it should be")
        };
        // Each by name as long as they are exceptions.
        let (named, rest) = counted.split_at(if large <= NAMED { large } else { 0 });
        for Counted { record, count, share } in named {
            let rate = count / record.seconds;
            let what =
                format!("{name} is {count:.0} ({rate:.1}/s, {} of its packets), and should be 0", percent(*share));
            let strength = if fatal { 200.0 } else { 30.0 + 30.0 * share.min(1.0) };
            all.certain(finding(level, Some(record.node), what, *count).strong(strength));
        }
        if let Some(worst) = rest.first() {
            let (nodes, sum) = (rest.len(), rest.iter().map(|counted| counted.count).sum::<f64>());
            let what = format!(
                "{name} is not 0 at {nodes} {}, {sum:.0} in all; most at node{}: {:.0}, {} of its packets",
                if nodes == 1 { "node" } else { "nodes" },
                worst.record.node,
                worst.count,
                percent(worst.share)
            );
            let level = if large > NAMED { level } else { Level::Info };
            all.certain(finding(level, None, what, sum).strong(worst.share * 100.0));
        }
    }
}

/// Nodes that are named one by one.
const NAMED: usize = 2;

/// A node's count.
struct Counted<'a> {
    record: &'a Record,
    count: f64,
    share: f64,
}

/// A share with as many digits as it needs.
pub(super) fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    match percent {
        p if p >= 1.0 => format!("{p:.1} %"),
        p if p >= 0.01 => format!("{p:.3} %"),
        p => format!("{p:.1e} %"),
    }
}

fn zero_cause(name: &str) -> &'static str {
    match name {
        "data_xmit_errors" | "control_xmit_errors" => {
            "the system refused to send: no route, no memory, a firewall, or the interface went down"
        }
        "peer_kmalloc_errors" => "the machine is out of memory",
        "peer_route_errors" => "no route, or nobody answers for the peer's address",
        "unknown_packet_types" => "a peer with another version of the protocol",
        "short_packets" => "a peer with another version of the protocol, or packets cut off on the way",
        "server_cant_create_rpcs" => {
            "requests to a port that nobody serves, or more requests than may wait: the server is down or too slow"
        }
        "rpc_timeouts" | "peer_timeouts" => "a peer was silent: it stopped, or its packets are lost",
        "buffer_alloc_failures" | "dropped_data_no_bufs" => {
            "the receive pool is too small for what comes at once, or the application does not take messages"
        }
        "ring_drops" => "the receiving thread was not scheduled for so long that its ring filled up",
        "linux_pkt_alloc_bytes" => "the NIC driver's page cache is too small: packets are held too long",
        _ => cause(name, true),
    }
}
