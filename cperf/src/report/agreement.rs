//! Whether the packets in a run's time traces are those that the metrics counted in the same time.
//!
//! A node writes `NODE.tt.metrics` beside its trace: what its counters grew by between the trace's first and last
//! event. Both count each packet on its own, so any difference is an error of one of them.

use std::fmt::Write as _;

use scan_metrics::read::total;
use serde::Serialize;
use tthoma::analyze::NodeReport;

/// One kind of packet on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// What was counted.
    pub packets: &'static str,
    /// How many the trace has.
    pub trace: u64,
    /// How many the metrics have.
    pub metrics: u64,
}

/// One node's counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeAgreement {
    /// Name of the node.
    pub node: String,
    /// Its counts; empty if there are no metrics for exactly its trace's time.
    pub counts: Vec<Count>,
    /// True if there are counts and all are equal.
    pub agrees: bool,
}

/// Compares a node's trace with the metrics text of its span, if there is one.
pub fn compare(trace: &NodeReport, metrics_text: Option<&str>) -> NodeAgreement {
    let pairs = [
        ("data sent", trace.data_sent, "packets_sent_DATA"),
        ("grants sent", trace.grants_sent, "packets_sent_GRANT"),
        ("RESENDs sent", trace.resends_sent, "packets_sent_RESEND"),
        ("data received", trace.data_gro, "packets_rcvd_DATA"),
        ("grants received", trace.grants_gro, "packets_rcvd_GRANT"),
    ];
    let counted = |text: &str| {
        let one = |(packets, trace, name)| total(text, name).map(|metrics| Count { packets, trace, metrics });
        pairs.into_iter().filter_map(one).collect()
    };
    let counts: Vec<_> = metrics_text.map(counted).unwrap_or_default();
    let agrees = !counts.is_empty() && counts.iter().all(|count| count.trace == count.metrics);
    NodeAgreement { node: trace.node.clone(), counts, agrees }
}

/// The comparison as a table.
pub fn table(nodes: &[NodeAgreement]) -> String {
    let mut text = String::from("Packets in the traces, and in the metrics of the same time:\n");
    for node in nodes {
        let verdict = match (node.counts.is_empty(), node.agrees) {
            (true, _) => "no metrics of exactly this time: its trace was not begun or has overwritten events",
            (false, true) => "agree",
            (false, false) => "DIFFER",
        };
        write!(text, "{:<10}", node.node).expect("a String takes all");
        for Count { packets, trace, metrics } in &node.counts {
            if trace == metrics {
                write!(text, " {packets} {trace},").expect("a String takes all");
            } else {
                write!(text, " {packets} {trace} against {metrics},").expect("a String takes all");
            }
        }
        writeln!(text, " {verdict}").expect("a String takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A node that sent two data packets and received a grant, by its trace.
    fn report(test: &str) -> NodeReport {
        let dir = std::env::temp_dir().join(format!("cperf-agreement-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path: PathBuf = dir.join("node0.tt");
        let lines = [
            "calling ip_queue_xmit: wire_bytes 1542, peer 0xa4d0002, id 2, offset 0",
            "calling ip_queue_xmit: wire_bytes 218, peer 0xa4d0002, id 2, offset 1424",
            "homa_gro_receive got grant from 0xa4d0002 id 2, offset 5000, priority 0",
        ];
        let text: String = (0..).zip(lines).map(|(i, l)| format!("{i:9.3} us (+   1.000 us) [C00] {l}\n")).collect();
        std::fs::write(&path, text).unwrap();
        let report = tthoma::analyze::run(&["sync"], &[path], &Default::default()).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        report.nodes[0].clone()
    }

    const METRICS: &str = "core 0 x\npackets_sent_DATA 2 x\npackets_sent_GRANT 0 x\npackets_sent_RESEND 0 x\n\
                           packets_rcvd_DATA 0 x\npackets_rcvd_GRANT 1 x\n";

    #[test]
    fn equal_counts_agree_and_others_are_shown_side_by_side() {
        let good = compare(&report("equal"), Some(METRICS));
        assert!(good.agrees && good.counts.len() == 5, "{good:?}");
        let bad = compare(&report("other"), Some(&METRICS.replace("GRANT 1", "GRANT 3")));
        assert!(!bad.agrees);
        let text = table(&[good, bad]);
        assert!(text.contains("grants received 1, agree") && text.contains("received 1 against 3, DIFFER"), "{text}");
    }

    #[test]
    fn without_metrics_of_its_span_a_trace_does_not_agree() {
        let none = compare(&report("none"), None);
        assert!(!none.agrees && none.counts.is_empty());
        assert!(table(&[none]).contains("no metrics"));
    }
}
