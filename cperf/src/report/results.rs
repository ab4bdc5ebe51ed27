//! The figures of one protocol, from its samples and its nodes' counters. Keys and their units are those of the JSON.

use serde::{Deserialize, Serialize};

use super::digest::{Bucket, Digest};
use super::rtts::ImportStats;
use super::slowdown::{self, Optimal};
use super::statistics::Ordered;
use crate::sim::switch::Switch;
use crate::testbed::links::PortCounts;

/// Counters of a node's clients over the measured interval, as `stats FILE` of cp-node writes them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeStats {
    /// One entry per experiment and role.
    pub experiments: Vec<Counters>,
}

/// See [`NodeStats`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// `client` or `server`.
    pub role: String,
    /// Requests handed to the transport.
    pub issued: u64,
    /// Responses received.
    pub completed: u64,
    /// RPCs that failed, time-outs included.
    pub errors: u64,
    /// RPCs that timed out.
    pub timeouts: u64,
    /// Requests without a response yet.
    pub outstanding: u64,
    /// Request bytes of completed RPCs.
    pub request_bytes: u64,
    /// Response bytes.
    pub response_bytes: u64,
    /// Times that a server looked at the network and found requests; 0 if nobody counted.
    pub looks: u64,
    /// Length of this node's interval.
    pub elapsed_s: f64,
    /// Samples that did not fit in memory.
    pub lost_samples: u64,
    /// How far the sender is behind its schedule.
    pub lag_s: f64,
    /// Messages that met a full connection (TCP).
    pub backed_up: u64,
}

/// How a protocol's part of the run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Measured as planned.
    Complete,
    /// A node or a command failed; what is here was measured before.
    Failed,
    /// Somebody stopped it; what is here was measured before.
    Interrupted,
}

impl Status {
    /// As in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Figures of one protocol. Unknown is null.
#[derive(Clone, Debug, Serialize)]
pub struct ProtocolResult {
    /// `homa`, `tcp`.
    pub protocol: String,
    /// Whether this is the whole interval.
    pub status: Status,
    /// Load asked for: message payload per node and direction, requests and responses.
    pub offered_gbps: f64,
    /// Load carried, same meaning: mean over nodes of completed requests and responses.
    pub achieved_gbps: Option<f64>,
    /// Completed RPCs, all nodes.
    pub rpcs: u64,
    /// Failed RPCs, all nodes.
    pub errors: u64,
    /// Of those, timed out.
    pub timeouts: u64,
    /// Requests without a response when the interval ended.
    pub outstanding: u64,
    /// Longest interval of any node.
    pub elapsed_s: Option<f64>,
    /// Farthest that any sender was behind its schedule at the end.
    pub lag_s: f64,
    /// TCP messages that met a full connection.
    pub backed_up: u64,
    /// Homa data packets sent again, percent of all; null for other protocols.
    pub resent_percent: Option<f64>,
    /// Requests that a server found when it looked at the network and found any: returns of the wait for readiness, turns
    /// of the stack; mean over all nodes.
    pub requests_per_look: Option<f64>,
    /// Homa messages, requests and responses, that a node sends at a time, from its application's call until all is
    /// acknowledged or answered: mean over the interval and all nodes; null for other protocols.
    pub outgoing_messages: Option<f64>,
    /// Round-trip times read from the .rtts files.
    pub samples: u64,
    /// Round-trip times that nodes could not keep.
    pub lost_samples: u64,
    /// Lines of .rtts files that could not be read.
    pub bad_lines: u64,
    /// Nodes whose files are missing.
    pub missing_nodes: Vec<usize>,
    /// Messages counted as short.
    pub short_rpcs: u64,
    /// Longest message counted as short.
    pub short_longest_bytes: Option<u32>,
    /// Short messages, from the moment of sending.
    pub short_rtt_p50_ns: Option<u64>,
    /// See above.
    pub short_rtt_p99_ns: Option<u64>,
    /// See above.
    pub short_rtt_p999_ns: Option<u64>,
    /// Short messages, from the moment when sending was due: includes waiting in the client.
    pub short_due_p50_ns: Option<u64>,
    /// See above.
    pub short_due_p99_ns: Option<u64>,
    /// See above.
    pub short_due_p999_ns: Option<u64>,
    /// Mean slowdown over all RPCs.
    pub slowdown_mean: Option<f64>,
    /// P99 of the slowdown over all RPCs.
    pub slowdown_p99: Option<f64>,
    /// Mean slowdown from the due time.
    pub due_slowdown_mean: Option<f64>,
    /// P99 slowdown from the due time.
    pub due_slowdown_p99: Option<f64>,
    /// What happened at the switch's ports from before the warm-up to the end, if the testbed counts that.
    pub ports: Vec<PortCounts>,
    /// What happened at the switches in the measured interval, of simulated nodes.
    pub switch: Option<Switch>,
    /// About a tenth of the messages a row, shortest first.
    pub by_length: Vec<LengthRow>,
}

/// Messages of neighbouring lengths.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LengthRow {
    /// Shortest message of the row.
    pub min_length_bytes: u32,
    /// Longest message of the row.
    pub max_length_bytes: u32,
    /// Messages of the run up to that length, percent.
    pub cum_percent: f64,
    /// Messages in the row.
    pub rpcs: u64,
    /// P50 of the round-trip times.
    pub rtt_p50_ns: u64,
    /// P99 of the round-trip times.
    pub rtt_p99_ns: u64,
    /// P50 of the slowdowns.
    pub slowdown_p50: f64,
    /// P99 of the slowdowns.
    pub slowdown_p99: f64,
}

/// What was read from the files of one protocol.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// From the moment of sending.
    pub service: Digest,
    /// From the due time.
    pub due: Digest,
    /// The same messages in order of arrival, for intervals.
    pub service_order: Ordered,
    /// The same from the due time.
    pub due_order: Ordered,
    /// Of the service files, all nodes.
    pub import: ImportStats,
    /// Client counters of each node; `None`: not known.
    pub stats: Vec<Option<Counters>>,
    /// Requests that the servers of all nodes answered, and looks at the network that found them.
    pub served: (u64, u64),
    /// Homa: outgoing messages of all nodes that are not over, summed over time, us; `None`: not known.
    pub outgoing_us: Option<u64>,
    /// Nodes without .rtts file.
    pub missing_nodes: Vec<usize>,
    /// Homa data packets that all nodes sent, and those of them that were sent again; `None`: not known.
    pub data_packets: Option<(u64, u64)>,
}

impl ProtocolResult {
    /// Puts the figures together. `offered_gbps` per node and direction; rows of `by_length` end with the lengths
    /// `cuts`.
    pub fn new(
        protocol: &str,
        status: Status,
        offered_gbps: f64,
        measured: &Measured,
        optimal: &Optimal,
        cuts: &[u32],
    ) -> Self {
        let known: Vec<_> = measured.stats.iter().flatten().collect();
        let sum = |field: fn(&Counters) -> u64| known.iter().map(|node| field(node)).sum::<u64>();
        let (short, short_due) = (measured.service.short(), measured.due.short());
        let at = |short: &Option<super::digest::Short>, num, den| short.as_ref().map(|s| s.percentile_ns(num, den));
        let (all, all_due) = (slowdown::summary(&measured.service, optimal), slowdown::summary(&measured.due, optimal));
        let largest = |field: fn(&Counters) -> f64| known.iter().map(|node| field(node)).reduce(f64::max);
        Self {
            protocol: protocol.to_owned(),
            status,
            offered_gbps,
            achieved_gbps: achieved_gbps(&known),
            rpcs: sum(|node| node.completed),
            errors: sum(|node| node.errors),
            timeouts: sum(|node| node.timeouts),
            outstanding: sum(|node| node.outstanding),
            elapsed_s: largest(|node| node.elapsed_s),
            lag_s: largest(|node| node.lag_s).unwrap_or(0.0),
            backed_up: sum(|node| node.backed_up),
            resent_percent: measured
                .data_packets
                .filter(|&(sent, _)| sent > 0)
                .map(|(sent, resent)| 100.0 * resent as f64 / sent as f64),
            requests_per_look: (measured.served.1 > 0).then(|| measured.served.0 as f64 / measured.served.1 as f64),
            outgoing_messages: outgoing_messages(measured.outgoing_us, &known),
            samples: measured.import.samples,
            lost_samples: sum(|node| node.lost_samples),
            bad_lines: measured.import.bad_lines,
            missing_nodes: measured.missing_nodes.clone(),
            short_rpcs: short.as_ref().map_or(0, |short| short.count() as u64),
            short_longest_bytes: short.as_ref().map(|short| short.longest),
            short_rtt_p50_ns: at(&short, 1, 2),
            short_rtt_p99_ns: at(&short, 99, 100),
            short_rtt_p999_ns: at(&short, 999, 1000),
            short_due_p50_ns: at(&short_due, 1, 2),
            short_due_p99_ns: at(&short_due, 99, 100),
            short_due_p999_ns: at(&short_due, 999, 1000),
            slowdown_mean: all.map(|all| all.mean),
            slowdown_p99: all.map(|all| all.p99),
            due_slowdown_mean: all_due.map(|all| all.mean),
            due_slowdown_p99: all_due.map(|all| all.p99),
            ports: Vec::new(),
            switch: None,
            by_length: by_length(&measured.service, optimal, cuts),
        }
    }

    /// Whether clearly less was carried than was asked for (below 95 %).
    pub fn fell_short(&self) -> bool {
        self.achieved_gbps.is_some_and(|achieved| achieved < 0.95 * self.offered_gbps)
    }
}

/// Mean over nodes of the payload that each node's clients moved, both ways. A node sends its own requests and the
/// responses to the others', so over all nodes this is also what each sends.
fn achieved_gbps(nodes: &[&Counters]) -> Option<f64> {
    let rate = |node: &&Counters| (node.request_bytes + node.response_bytes) as f64 * 8e-9 / node.elapsed_s;
    let rates: Vec<_> = nodes.iter().filter(|node| node.elapsed_s > 0.0).map(rate).collect();
    (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64)
}

/// Mean number of messages that a node sends at a time, from their sum over time.
fn outgoing_messages(sum_us: Option<u64>, nodes: &[&Counters]) -> Option<f64> {
    let interval_us = nodes.iter().map(|node| node.elapsed_s * 1e6).sum::<f64>();
    sum_us.filter(|_| interval_us > 0.0).map(|sum| sum as f64 / interval_us)
}

/// Rows for the table and the JSON.
fn by_length(digest: &Digest, optimal: &Optimal, cuts: &[u32]) -> Vec<LengthRow> {
    let rows = digest.groups(cuts).into_iter().map(|group| {
        let mut times: Vec<_> = group.samples().map(|(_, time)| time).collect();
        times.sort_unstable();
        let at = |num: usize, den: usize| times[(times.len() * num / den).min(times.len() - 1)];
        let (slowdown_p50, slowdown_p99) = slowdown::of_group(&group, optimal);
        let length = |bucket: Option<&Bucket>| bucket.map_or(0, |bucket| bucket.length);
        LengthRow {
            min_length_bytes: length(group.buckets.first()),
            max_length_bytes: length(group.buckets.last()),
            cum_percent: group.cum_fraction * 100.0,
            rpcs: times.len() as u64,
            rtt_p50_ns: at(1, 2),
            rtt_p99_ns: at(99, 100),
            slowdown_p50,
            slowdown_p99,
        }
    });
    rows.collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::digest::Collector;
    use super::super::rtts::Sample;
    use super::*;

    /// A hundred RPCs of 10, 20 … 1000 bytes that took 1, 2 … 100 µs.
    pub(in super::super) fn hundred() -> Measured {
        let mut collector = Collector::default();
        for i in 1..=100 {
            collector.add(Sample { length: i * 10, rtt_ns: u64::from(i) * 1000 });
        }
        let client = Counters {
            role: "client".into(),
            completed: 100,
            errors: 2,
            request_bytes: 125_000_000,
            response_bytes: 125_000_000,
            elapsed_s: 2.0,
            lag_s: 0.25,
            ..Counters::default()
        };
        let digest = collector.finish();
        Measured {
            due: digest.clone(),
            service: digest,
            import: ImportStats { samples: 100, ..ImportStats::default() },
            stats: vec![Some(client.clone()), Some(Counters { lag_s: 0.5, ..client }), None],
            missing_nodes: vec![2],
            data_packets: Some((400, 10)),
            served: (200, 80),
            outgoing_us: Some(6_000_000),
            ..Measured::default()
        }
    }

    #[test]
    fn figures_of_nodes_are_put_together() {
        let optimal = Optimal::fixed(1.0, f64::INFINITY);
        let measured = hundred();
        let cuts = super::super::digest::cuts(&[&measured.service], 10);
        let result = ProtocolResult::new("tcp", Status::Complete, 1.0, &measured, &optimal, &cuts);
        assert_eq!((result.rpcs, result.errors, result.samples), (200, 4, 100));
        assert_eq!(result.achieved_gbps, Some(1.0), "250 MB in 2 s on each node that is known");
        assert_eq!((result.lag_s, result.elapsed_s), (0.5, Some(2.0)));
        assert_eq!((result.resent_percent, result.requests_per_look), (Some(2.5), Some(2.5)));
        assert_eq!(result.outgoing_messages, Some(1.5), "6 message seconds, on two nodes for 2 s each");
        assert!(!result.fell_short());
        assert!(ProtocolResult { offered_gbps: 1.06, ..result.clone() }.fell_short());
        assert_eq!((result.short_rpcs, result.short_longest_bytes), (10, Some(100)));
        assert_eq!((result.short_rtt_p50_ns, result.short_rtt_p99_ns), (Some(6000), Some(10_000)));
        assert_eq!(result.slowdown_mean, Some(50.5));
        assert_eq!(result.by_length.len(), 10);
        assert_eq!(result.by_length[9].max_length_bytes, 1000);
        assert_eq!(result.by_length[9].slowdown_p50, 96.0);
    }

    #[test]
    fn nothing_measured_is_null_and_not_zero() {
        let optimal = Optimal::fixed(1.0, 1.0);
        let result = ProtocolResult::new("homa", Status::Failed, 1.0, &Measured::default(), &optimal, &[]);
        let json = serde_json::to_value(&result).unwrap();
        for key in [
            "achieved_gbps",
            "short_rtt_p50_ns",
            "slowdown_mean",
            "slowdown_p99",
            "elapsed_s",
            "resent_percent",
            "requests_per_look",
            "outgoing_messages",
        ] {
            assert!(json[key].is_null(), "{key}");
        }
        assert_eq!(json["status"], "failed");
        assert_eq!(json["by_length"].as_array().map(Vec::len), Some(0));
    }

    #[test]
    fn counters_of_cp_node_are_read_and_unknown_keys_are_ignored() {
        let text = r#"{"version":1,"experiments":[{"name":"tcp_w4","role":"client","protocol":"tcp","issued":5,
            "completed":4,"errors":1,"timeouts":1,"outstanding":0,"request_bytes":10,"response_bytes":20,
            "elapsed_s":1.5,"lost_samples":0,"lag_s":0.0,"backed_up":3,"something_new":1}]}"#;
        let stats: NodeStats = serde_json::from_str(text).unwrap();
        assert_eq!((stats.experiments[0].issued, stats.experiments[0].backed_up), (5, 3));
    }
}
