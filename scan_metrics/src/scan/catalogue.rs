//! What is known about each counter: its class, what it grows with, the least difference that is of interest, what
//! usually moves it and where to look next. By name, so that counters of any version have an entry.

use serde::Serialize;

/// Classes; a node with two findings in different ones is a suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Class {
    Cpu,
    Locks,
    Retransmission,
    Loss,
    Buffers,
    Grants,
    Pacer,
    Priorities,
    Traffic,
    Files,
}

impl Class {
    /// As in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Locks => "locks",
            Self::Retransmission => "retransmission",
            Self::Loss => "loss",
            Self::Buffers => "buffers",
            Self::Grants => "grants",
            Self::Pacer => "pacer",
            Self::Priorities => "priorities",
            Self::Traffic => "traffic",
            Self::Files => "files",
        }
    }
}

/// What a counter grows with: nodes are compared by growth per unit of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// Time: counters of the load itself.
    Seconds,
    /// RPCs completed, as client and as server.
    Rpcs,
    /// Packets, sent and received.
    Packets,
    /// Bytes of messages, sent and received.
    Bytes,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Things.
    Count,
    /// Bytes: they come packet by packet.
    Bytes,
    /// Clock ticks: time on a core.
    Ticks,
    /// A quotient of others.
    Quotient,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// Class.
    pub class: Class,
    /// What it grows with.
    pub per: Load,
    /// What is counted.
    pub kind: Kind,
}

/// `None` for what is not compared: labels, size classes (their sum is), the tests' own counters, maxima, what says the
/// same as another counter (each comparison makes chance more likely), and what depends on the past more than on the
/// present.
pub fn about(name: &str) -> Option<About> {
    let new = |class, per, kind| Some(About { class, per, kind });
    if name.starts_with("msg_bytes_")
        || name.starts_with("temp")
        || name.ends_with("_most")
        || name.ends_with("_integral")
        || name.ends_with("_nanos")
        || name.starts_with("ring_most")
    {
        return None;
    }
    if name.ends_with("_started") || (name.starts_with("priority") && name.ends_with("_bytes")) {
        return None;
    }
    match name {
        // abort_* of the kernel module show the values of reply_*.
        "cpu_khz" | "core" | "time_cycles" | "rdtsc_cycles" | "abort_cycles" | "abort_calls" | "homa_cycles" => {
            return None;
        }
        "send_calls" | "recv_calls" | "reply_calls" | "handoffs_thread_waiting" | "skb_frees" | "large_msg_count" => {
            return None;
        }
        "peer_allocs" | "peer_new_entries" | "peer_hash_links" | "tombstones" | "pages_given_back" => return None,
        "cutoff_changes" | "so_set_buf_calls" | "so_set_buf_cycles" | "peer_dst_refreshes" => return None,
        "bytes_per_data_packet" | "packets_per_batch" => return new(Class::Traffic, Load::Seconds, Kind::Quotient),
        "ring_wait_us" => return new(Class::Buffers, Load::Seconds, Kind::Quotient),
        "us_per_packet" => return new(Class::Cpu, Load::Seconds, Kind::Quotient),
        _ => {}
    }
    if let Some(rest) = name.strip_suffix("_cycles") {
        if rest.ends_with("_lock_miss") || rest.ends_with("grant_lock") || rest == "grantable_lock" {
            return new(Class::Locks, Load::Packets, Kind::Ticks);
        }
        let class = if rest.starts_with("pacer") || rest.starts_with("nic_") || rest == "throttled" {
            Class::Pacer
        } else {
            Class::Cpu
        };
        let per = match rest {
            "send" | "recv" | "reply" => Load::Rpcs,
            // Waiting fills what work leaves.
            "poll" | "blocked" | "timer" => Load::Seconds,
            _ => Load::Packets,
        };
        return new(class, per, Kind::Ticks);
    }
    if name.ends_with("_lock_misses") || name == "grant_locks" {
        return new(Class::Locks, Load::Packets, Kind::Count);
    }
    let bytes = name.contains("bytes");
    let kind = if bytes { Kind::Bytes } else { Kind::Count };
    let per = if bytes { Load::Bytes } else { Load::Packets };
    let any = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    if any(&[
        "resen",
        "RESEND",
        "BUSY",
        "asks_put_off",
        "held_back_bytes",
        "packet_discards",
        "drop_duplicate",
        "drop_executed",
    ]) {
        return new(Class::Retransmission, per, kind);
    }
    if name.starts_with("drop")
        || any(&[
            "errors",
            "unknown",
            "UNKNOWN",
            "short_packets",
            "cant_create",
            "timeouts",
            "rpc_discards",
            "ring_drops",
            "lost",
        ])
        || any(&["gaps_created", "overdue", "evicted", "giveups", "stalls", "icmp", "refus"])
    {
        return new(Class::Loss, per, kind);
    }
    if name.starts_with("priority") {
        return new(Class::Priorities, per, kind);
    }
    if any(&["GRANT", "grant"]) {
        return new(Class::Grants, Load::Bytes, kind);
    }
    if any(&["pacer", "throttle", "qdisc"]) {
        return new(Class::Pacer, per, kind);
    }
    if any(&[
        "skb",
        "bpage",
        "buffer",
        "memory",
        "reap",
        "tx_held",
        "tx_messages",
        "tx_released",
        "copied",
        "alloc",
        "ring_",
    ]) {
        return new(Class::Buffers, per, kind);
    }
    if any(&["wait_", "wakeups", "handoffs", "_queued", "softirq", "bypasses"]) {
        return new(
            Class::Cpu,
            if name.starts_with("softirq") || any(&["bypasses", "gen3"]) { Load::Packets } else { Load::Rpcs },
            kind,
        );
    }
    if any(&["_ACK", "ack_overflows", "need_acks", "CUTOFFS", "FREEZE"]) {
        return new(Class::Traffic, Load::Rpcs, kind);
    }
    new(Class::Traffic, Load::Seconds, kind)
}

/// What usually moves a counter.
pub fn cause(name: &str, up: bool) -> &'static str {
    let any = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    match about(name).map(|about| about.class) {
        _ if name == "bytes_per_data_packet" => {
            "another MTU or other segmentation than its peers, or other lengths of messages"
        }
        _ if name == "packets_per_batch" => {
            "interrupt coalescing or GRO set otherwise, or a core too slow to keep up (larger batches)"
        }
        _ if name == "us_per_packet" => {
            "a slow core: frequency, power management, another process, noisy hypervisor, debugging options"
        }
        _ if any(&["softirq_cycles", "napi_cycles"]) => {
            "one core takes more interrupts than its fellows (RSS or IRQ affinity), is slow, or shares its time with another process"
        }
        Some(Class::Cpu) if any(&["poll", "blocked", "wait_", "wakeups"]) => {
            "threads wait otherwise: fewer messages, or other polling options"
        }
        Some(Class::Cpu) => {
            "a slow or shared core, power management, another kernel or build; per unit of load it should be equal on like machines"
        }
        Some(Class::Locks) => {
            "more threads on one lock than elsewhere: ports or threads set otherwise, or one hot core"
        }
        Some(Class::Retransmission) if any(&["packets_sent_RESEND", "gap_", "tail_", "early_"]) => {
            "packets toward this node are lost or late: its link, its port at the switch, or its receiving core"
        }
        Some(Class::Retransmission) if any(&["discards", "duplicate", "executed"]) => {
            "senders repeat what had arrived: this node, or the path to it, delays packets"
        }
        Some(Class::Retransmission) if up => {
            "packets of this node are lost or late: its link or NIC, its port at the switch, or an overloaded receiver"
        }
        Some(Class::Retransmission) => {
            "fewer repetitions than its peers: less load, or losses that only its peers have"
        }
        Some(Class::Loss) => "packets that could not be used: overload, a restarted peer, or a broken path",
        Some(Class::Buffers) if any(&["ring_wait"]) => {
            "the receiving core looks into its ring late: it is busy, or not scheduled"
        }
        Some(Class::Buffers) => "more is held than elsewhere: a slow application or receiver, or other limits",
        Some(Class::Grants) => "other long messages than its peers, or other grant parameters",
        Some(Class::Pacer) => {
            "its NIC's queue is longer: a slower link, another link_mbps, or other traffic on the NIC"
        }
        Some(Class::Priorities) => "other cut-offs (homa_prio), or messages of other lengths",
        Some(Class::Traffic) if up => "it is given more load than its peers, or answers for another",
        Some(Class::Traffic) => "it is given less load than its peers, started late, stalled, or cannot keep up",
        Some(Class::Files) | None => "",
    }
}

/// What to look at next: a command where one helps. `node` names the traces.
pub fn next(name: &str, node: Option<u64>) -> String {
    let traces = "traces/*.tt";
    let this = node.map_or_else(|| traces.to_owned(), |node| format!("traces/node{node}.tt"));
    let any = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    match about(name).map(|about| about.class) {
        _ if name == "bytes_per_data_packet" => "ip link show on each node; options.mtu in manifest.json".to_owned(),
        _ if any(&["ring_"]) => format!("tthoma analyze delay {traces}"),
        Some(Class::Cpu) => format!("tthoma analyze cores {this}"),
        Some(Class::Retransmission) if any(&["discards", "duplicate", "executed"]) => {
            format!("tthoma analyze loss {traces}")
        }
        Some(Class::Retransmission | Class::Loss) => format!("tthoma analyze loss {traces}"),
        Some(Class::Locks) => format!("tthoma analyze cores {this}"),
        Some(Class::Grants | Class::Priorities) => format!("tthoma analyze grants {traces}"),
        Some(Class::Buffers | Class::Pacer) => format!("tthoma analyze delay {traces}"),
        Some(Class::Traffic) => format!("its log (node{}.log), then tthoma analyze rpc {traces}", node.unwrap_or(0)),
        Some(Class::Files) | None => String::new(),
    }
}

/// Counters that must be zero: (name, whether any at all is fatal). Source: cperf.md 4.4, test 0.
pub const ZERO: [(&str, bool); 25] = [
    ("data_xmit_errors", true),
    ("control_xmit_errors", true),
    ("peer_kmalloc_errors", true),
    ("peer_route_errors", true),
    ("unknown_packet_types", true),
    ("short_packets", true),
    ("server_cant_create_rpcs", true),
    ("rpc_timeouts", false),
    ("peer_timeouts", false),
    ("server_rpc_discards", false),
    ("server_rpcs_unknown", false),
    ("buffer_alloc_failures", false),
    ("dropped_data_no_bufs", false),
    ("forced_reaps", false),
    ("linux_pkt_alloc_bytes", false),
    ("ring_drops", false),
    ("tx_stalls", false),
    ("need_ack_giveups", false),
    ("requests_overdue", false),
    ("requests_evicted", false),
    ("shard_forwards_lost", false),
    ("resent_packets", false),
    ("resent_discards", false),
    ("packet_discards", false),
    ("unknown_rpcs", false),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_counter_has_its_class_and_load() {
        for (name, class, per, kind) in [
            ("softirq_cycles", Class::Cpu, Load::Packets, Kind::Ticks),
            ("send_cycles", Class::Cpu, Load::Rpcs, Kind::Ticks),
            ("client_lock_miss_cycles", Class::Locks, Load::Packets, Kind::Ticks),
            ("resent_packets", Class::Retransmission, Load::Packets, Kind::Count),
            ("packets_sent_RESEND", Class::Retransmission, Load::Packets, Kind::Count),
            ("drop_flood", Class::Loss, Load::Packets, Kind::Count),
            ("dropped_data_no_bufs", Class::Loss, Load::Packets, Kind::Count),
            ("buffer_alloc_failures", Class::Buffers, Load::Packets, Kind::Count),
            ("packets_sent_GRANT", Class::Grants, Load::Bytes, Kind::Count),
            ("priority3_packets", Class::Priorities, Load::Packets, Kind::Count),
            ("packets_sent_DATA", Class::Traffic, Load::Seconds, Kind::Count),
            ("sent_msg_bytes", Class::Traffic, Load::Seconds, Kind::Bytes),
            ("pacer_homa_bytes", Class::Pacer, Load::Bytes, Kind::Bytes),
        ] {
            assert_eq!(about(name), Some(About { class, per, kind }), "{name}");
        }
        for name in ["core", "cpu_khz", "msg_bytes_64", "temp3", "abort_cycles", "tx_held_most"] {
            assert_eq!(about(name), None, "{name}");
        }
    }

    #[test]
    fn every_class_has_a_cause_and_a_next_step() {
        for name in [
            "softirq_cycles",
            "grant_locks",
            "resent_packets",
            "ring_drops",
            "skb_allocs",
            "packets_sent_GRANT",
            "pacer_cycles",
            "priority0_packets",
            "sent_msg_bytes",
        ] {
            assert!(!cause(name, true).is_empty() && !next(name, Some(3)).is_empty(), "{name}");
        }
        assert!(next("resent_packets", Some(3)).contains("tthoma analyze loss"));
    }
}
