//! Counters of a stack, written as the kernel module writes `/proc/net/homa_metrics` (cperf.md 4.1, 4.2).
//!
//! All counters only grow. Names, order and layout are the kernel's, so that its tools read the text; counters of
//! steps that a userspace stack does not have are written as 0 and say so. Counters that the kernel lacks follow at
//! the end, among them one for each [`DropReason`]: a packet that is not used is counted under exactly one reason.

use std::fmt::Write;

use crate::units::Priority;
use crate::wire::Kind;

/// Upper limits of the message size classes: 64 of 64 bytes, then 124 of 1024 bytes.
const SMALL_CLASSES: usize = 64;
const MEDIUM_CLASSES: usize = 124;
const LARGEST_CLASS: usize = 131_072;

macro_rules! counters {
    ($($(#[$group:meta])* $name:ident: $text:literal),* $(,)?) => {
        /// Counters of one stack.
        #[derive(Clone, Debug)]
        #[expect(missing_docs, reason = "each counter's meaning is its text in the table below")]
        pub struct Metrics {
            $(pub $name: u64,)*
            /// Bytes received in messages of each size class.
            pub msg_bytes: Box<[u64; SMALL_CLASSES + MEDIUM_CLASSES]>,
            /// Packets sent, by type.
            pub packets_sent: [u64; Kind::ALL.len()],
            /// Packets received, by type.
            pub packets_rcvd: [u64; Kind::ALL.len()],
            /// Bytes sent at each priority, headers included.
            pub priority_bytes: [u64; Priority::LEVELS],
            /// Packets sent at each priority.
            pub priority_packets: [u64; Priority::LEVELS],
            /// Packets not used, by reason.
            pub drops: [u64; DropReason::ALL.len()],
        }

        impl Default for Metrics {
            fn default() -> Self {
                Self {
                    $($name: 0,)*
                    msg_bytes: Box::new([0; SMALL_CLASSES + MEDIUM_CLASSES]),
                    packets_sent: [0; Kind::ALL.len()],
                    packets_rcvd: [0; Kind::ALL.len()],
                    priority_bytes: [0; Priority::LEVELS],
                    priority_packets: [0; Priority::LEVELS],
                    drops: [0; DropReason::ALL.len()],
                }
            }
        }

        impl Metrics {
            /// What the counters have grown by since `earlier`, a copy of the same counters.
            pub fn since(&self, earlier: &Self) -> Self {
                let mut grown = self.clone();
                $(grown.$name = self.$name.saturating_sub(earlier.$name);)*
                let families: [(&mut [u64], &[u64]); 6] = [
                    (&mut grown.msg_bytes[..], &earlier.msg_bytes[..]),
                    (&mut grown.packets_sent, &earlier.packets_sent),
                    (&mut grown.packets_rcvd, &earlier.packets_rcvd),
                    (&mut grown.priority_bytes, &earlier.priority_bytes),
                    (&mut grown.priority_packets, &earlier.priority_packets),
                    (&mut grown.drops, &earlier.drops),
                ];
                for (now, before) in families {
                    for (value, old) in now.iter_mut().zip(before) {
                        *value = value.saturating_sub(*old);
                    }
                }
                grown
            }

            /// All plain counters by name, in the order of the table; those that come in families are left out.
            pub fn values(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }

            fn named(&self, name: &str) -> Option<(u64, &'static str)> {
                match name {
                    $(stringify!($name) => Some((self.$name, $text)),)*
                    _ => None,
                }
            }
        }
    };
}

counters! {
    large_msg_count: "incoming messages longer than 131072 bytes",
    large_msg_bytes: "bytes in them",
    client_requests_started: "RPCs begun as client",
    client_request_bytes_started: "bytes of their requests",
    client_request_bytes_done: "request bytes sent for the first time",
    client_requests_done: "requests sent to the end",
    client_responses_started: "RPCs with a first response packet in",
    client_response_bytes_started: "bytes of those responses",
    client_response_bytes_done: "response bytes received",
    client_responses_done: "responses received to the end",
    server_requests_started: "RPCs with a first request packet in",
    server_request_bytes_started: "bytes of those requests",
    server_request_bytes_done: "request bytes received",
    server_requests_done: "requests received to the end",
    server_responses_started: "responses begun",
    server_response_bytes_started: "bytes of those responses",
    server_response_bytes_done: "response bytes sent for the first time",
    server_responses_done: "responses sent to the end",
    sent_msg_bytes: "bytes of all outgoing messages",
    requests_received: "complete incoming requests",
    responses_received: "complete incoming responses",
    gaps_created: "gaps opened by packets out of order",
    wait_none: "messages that were there when the application asked",
    wait_fast: "messages that came while the application polled",
    wait_block: "messages that came while the thread slept",
    handoffs_thread_waiting: "messages ready with nothing before them in the queue",
    poll_cycles: "time spent polling for packets",
    softirq_calls: "batches of received packets processed",
    softirq_cycles: "time spent processing them, by one batch in 64",
    blocked_cycles: "time slept waiting for packets",
    send_calls: "requests issued",
    recv_calls: "messages taken by the application",
    reply_calls: "responses issued",
    abort_calls: "RPCs aborted by the application",
    nic_backlog_cycles: "time while packets waited for the NIC",
    pacer_homa_packets: "packets sent, of those that may wait, in such times",
    pacer_homa_bytes: "bytes of them on the link",
    pacer_fifo_bytes: "bytes on the link of packets sent in the oldest message's turn",
    throttle_list_adds: "times that packets began to wait for the NIC",
    timer_cycles: "time spent in timer ticks",
    homa_cycles: "time spent in receive processing, timers and transmission",
    resent_packets: "DATA packets sent in answer to RESENDs",
    peer_allocs: "peers first heard of or spoken to",
    peer_route_errors: "packets not sent for want of a route or a neighbour's address",
    peer_dst_refreshes: "routes looked up anew",
    control_xmit_errors: "control packets that the system refused to send",
    data_xmit_errors: "DATA packets that the system refused to send",
    unknown_rpcs: "packets dropped because their RPC is unknown",
    server_cant_create_rpcs: "requests dropped because no server RPC could be made",
    unknown_packet_types: "packets dropped because of their type code",
    short_packets: "packets dropped because they were too short",
    packet_discards: "first transmissions whose data were there already",
    resent_discards: "retransmissions whose data were there already",
    resent_packets_used: "retransmissions that brought new data",
    rpc_timeouts: "RPCs given up because the peer was silent",
    server_rpc_discards: "server RPCs discarded for errors or silence",
    server_rpcs_unknown: "server RPCs discarded because the client does not know them",
    grantable_rpcs_integral: "sum over time of incoming messages in need of grants, in clock ticks",
    grant_check_calls: "looks at whether grants can be sent",
    needy_grants: "grants to messages that had waited for room",
    fifo_grant_bytes: "bytes granted by age",
    ack_overflows: "ACKs sent because five were waiting",
    ignored_need_acks: "NEED_ACKs not answered with an ACK because the response is incomplete",
    bpage_reuses: "receive pages begun anew by their owner",
    buffer_alloc_failures: "messages for which no receive buffer was free",
    dropped_data_no_bufs: "bytes dropped for want of a receive buffer",
    // Beyond the kernel's.
    requests_overdue: "requests dropped because the application did not take or answer them in time",
    requests_evicted: "requests dropped while they arrived, to make room for others",
    peers_forgotten: "peers forgotten to make room for others",
    calls_held_back: "calls that waited for the responses to others",
    gap_resends: "RESENDs for gaps, by their age",
    asks_put_off: "RESENDs put off since this host's link was never idle",
    tail_resends: "RESENDs for the end of what was granted, by its age",
    early_resends: "RESENDs for responses that took longer than usual",
    silence_resends: "RESENDs since nothing came of a message for some ticks",
    asked_resends: "RESENDs since the peer asked about an RPC of which something is missing",
    room_resends: "RESENDs for messages that had no room before",
    held_back_bytes: "bytes asked for again that had been sent just before",
    resend_restarts: "requests sent again from the start after RPC_UNKNOWN",
    announcements: "messages announced with an empty DATA packet",
    cutoff_changes: "times that other unscheduled cutoffs were chosen",
    tx_stalls: "messages given up because their receiver granted nothing",
    calls_refused: "calls and answers refused because too much was under way",
    need_ack_giveups: "responses discarded because no ACK came for all the NEED_ACKs",
    stale_grants: "GRANTs that raised no limit",
    tx_copied_bytes: "bytes of outgoing messages copied into packets; others are sent from where they lie",
    rx_copied_bytes: "bytes copied from packets to their place in a message",
    memory_integral: "memory of RPCs, messages and receive pages, summed over time, KiB x us",
    memory_most: "most bytes of such memory so far",
    memory_pressures: "times that memory began to be pressed",
    memory_reliefs: "times that it was plenty again",
    memory_pressed_micros: "time in which it was not plenty, us",
    pages_given_back: "receive pages whose memory was given back to the system",
    tx_released_bytes: "bytes of outgoing messages that are over; what sent_msg_bytes has more is queued",
    tx_held_integral: "bytes of outgoing messages that are not over, summed over time, us",
    tx_messages_integral: "outgoing messages that are not over, summed over time, us",
    tx_held_most: "most bytes of outgoing messages at once so far",
    tombstones: "requests remembered so that they run once",
    tombstones_evicted: "of those, forgotten before their time for want of room",
    ring_wait_nanos: "time packets waited in the receive ring, summed, ns",
    ring_wait_packets: "packets in that sum",
    ring_drops: "packets that the kernel dropped because the receive ring was full",
    icmp_errors: "ICMP errors about packets of ours",
    path_mtu_updates: "of them, those that lowered the largest packet to a peer",
    refusals_sent: "ICMP messages sent about packets to ports that nobody serves",
    refusals_withheld: "ICMP messages not sent, as there were too many",
    ring_held_nanos: "time that a sample of the batches of received packets was held in the ring, summed, ns",
    ring_held_batches: "batches in that sum",
    ring_most_waiting: "most packets found waiting in the receive ring so far",
    shard_packets_forwarded: "packets handed on to other workers of this host",
    shard_acks_forwarded: "acknowledgements handed on to other workers of this host",
    shard_forwards_lost: "of both, lost because too many waited",
}

/// Why a received packet was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// Shorter than its header says.
    Short,
    /// An unknown type code.
    UnknownType,
    /// Lengths or offsets that contradict each other.
    Malformed,
    /// A message length other than that of the message's first packet.
    LengthChanged,
    /// Not from the peer that the RPC is with.
    WrongPeer,
    /// About an RPC that does not exist here.
    UnknownRpc,
    /// A request to a port that nobody has bound.
    UnknownPort,
    /// A request that has been executed already.
    Executed,
    /// Data that have come already.
    Duplicate,
    /// No room in the receive pool.
    NoBuffers,
    /// No room for another server RPC.
    TooManyRpcs,
    /// A request of a host that is new while as many are known as may be.
    TooManyPeers,
    /// A request while the application has not taken as many as may wait for it.
    Unread,
    /// A question while as many answers wait to be sent as may.
    Flood,
    /// Not an IP packet that this host would take: bad header, fragment, other address.
    BadIp,
    /// Cut off by the receive ring's frame size.
    Truncated,
    /// An ICMP message that tells nothing about a Homa packet.
    OtherIcmp,
    /// An ICMP error about a packet that we can't have sent.
    ForgedIcmp,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 18] = [
        Self::Short,
        Self::UnknownType,
        Self::Malformed,
        Self::LengthChanged,
        Self::WrongPeer,
        Self::UnknownRpc,
        Self::UnknownPort,
        Self::Executed,
        Self::Duplicate,
        Self::NoBuffers,
        Self::TooManyRpcs,
        Self::TooManyPeers,
        Self::Unread,
        Self::Flood,
        Self::BadIp,
        Self::Truncated,
        Self::OtherIcmp,
        Self::ForgedIcmp,
    ];

    /// The reason as the metrics spell it, after `drop_`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::UnknownType => "unknown_type",
            Self::Malformed => "malformed",
            Self::LengthChanged => "length_changed",
            Self::WrongPeer => "wrong_peer",
            Self::UnknownRpc => "unknown_rpc",
            Self::UnknownPort => "unknown_port",
            Self::Executed => "executed",
            Self::Duplicate => "duplicate",
            Self::NoBuffers => "no_buffers",
            Self::TooManyRpcs => "too_many_rpcs",
            Self::TooManyPeers => "too_many_peers",
            Self::Unread => "unread",
            Self::Flood => "flood",
            Self::BadIp => "bad_ip",
            Self::Truncated => "truncated",
            Self::OtherIcmp => "other_icmp",
            Self::ForgedIcmp => "forged_icmp",
        }
    }
}

impl Metrics {
    /// Counts a packet that is not used.
    pub fn dropped(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
        match reason {
            DropReason::Short => self.short_packets += 1,
            DropReason::UnknownType => self.unknown_packet_types += 1,
            DropReason::UnknownRpc => self.unknown_rpcs += 1,
            DropReason::UnknownPort | DropReason::TooManyRpcs | DropReason::TooManyPeers | DropReason::Unread => {
                self.server_cant_create_rpcs += 1
            }
            _ => {}
        }
    }

    /// Packets dropped for `reason`.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Counts a complete incoming message of `length` bytes.
    pub(crate) fn received(&mut self, length: usize) {
        if length > LARGEST_CLASS {
            self.large_msg_count += 1;
            self.large_msg_bytes += length as u64;
        } else {
            self.msg_bytes[size_class(length)] += length as u64;
        }
    }

    /// The metrics as text: `time_cycles` at `ticks` of a clock of `khz` kHz, then this stack as core `core`.
    pub fn to_text(&self, ticks: u64, khz: u64, core: u16) -> String {
        let mut out = String::with_capacity(40_000);
        let mut line = |name: &str, value: u64, text: &str| {
            writeln!(out, "{name:<30} {value:20} {text}").expect("a String takes all");
        };
        line("time_cycles", ticks, "clock when the metrics were gathered");
        line("cpu_khz", khz, "rate of that clock in kHz");
        line("core", core.into(), "core that the following counters belong to");
        let mut lower = 0;
        for (class, bytes) in self.msg_bytes.iter().enumerate() {
            let upper = class_limit(class);
            line(
                &format!("msg_bytes_{upper}"),
                *bytes,
                &format!("bytes in incoming messages of {lower} to {upper} bytes"),
            );
            lower = upper + 1;
        }
        for name in LAYOUT {
            match *name {
                "packets" => {
                    for (way, counts) in [("sent", &self.packets_sent), ("rcvd", &self.packets_rcvd)] {
                        for (kind, count) in Kind::ALL.iter().zip(counts) {
                            line(
                                &format!("packets_{way}_{}", kind.name()),
                                *count,
                                &format!("{} packets {way}", kind.name()),
                            );
                        }
                    }
                }
                "priorities" => {
                    for (p, bytes) in self.priority_bytes.iter().enumerate() {
                        line(&format!("priority{p}_bytes"), *bytes, "bytes sent at this priority, headers included");
                    }
                    for (p, packets) in self.priority_packets.iter().enumerate() {
                        line(&format!("priority{p}_packets"), *packets, "packets sent at this priority");
                    }
                }
                name => match self.named(name) {
                    Some((value, text)) => line(name, value, text),
                    None => line(name, 0, "no such step in user space: always 0"),
                },
            }
        }
        for (reason, count) in DropReason::ALL.iter().zip(self.drops) {
            line(&format!("drop_{}", reason.name()), count, "packets not used for this reason");
        }
        out
    }
}

/// The size class of a message of `length` bytes, 1 to [`LARGEST_CLASS`].
fn size_class(length: usize) -> usize {
    let length = length.max(1);
    if length <= 4096 { (length - 1) / 64 } else { SMALL_CLASSES + (length - 4097) / 1024 }
}

/// The longest message of a size class.
fn class_limit(class: usize) -> usize {
    if class < SMALL_CLASSES { (class + 1) * 64 } else { 4096 + (class - SMALL_CLASSES + 1) * 1024 }
}

/// Names in the order of the kernel module's text; "packets" and "priorities" stand for their families.
#[rustfmt::skip]
const LAYOUT: &[&str] = &[
    "large_msg_count", "large_msg_bytes",
    "client_requests_started", "client_request_bytes_started", "client_request_bytes_done", "client_requests_done",
    "client_responses_started", "client_response_bytes_started", "client_response_bytes_done", "client_responses_done",
    "server_requests_started", "server_request_bytes_started", "server_request_bytes_done", "server_requests_done",
    "server_responses_started", "server_response_bytes_started", "server_response_bytes_done", "server_responses_done",
    "sent_msg_bytes", "packets", "priorities",
    "skb_allocs", "skb_alloc_cycles", "skb_frees", "skb_free_cycles", "skb_page_allocs", "skb_page_alloc_cycles",
    "requests_received", "responses_received", "gaps_created", "wait_none", "wait_fast", "wait_block",
    "handoffs_thread_waiting", "handoffs_alt_thread", "poll_cycles",
    "softirq_calls", "softirq_cycles", "bypass_softirq_cycles", "linux_softirq_cycles", "napi_cycles",
    "linux_softirqd_actions", "send_cycles", "send_calls", "recv_cycles", "recv_calls", "blocked_cycles",
    "reply_cycles", "reply_calls", "abort_cycles", "abort_calls", "so_set_buf_cycles", "so_set_buf_calls",
    "grant_lock_cycles", "timer_cycles", "timer_reap_cycles", "data_pkt_reap_cycles", "idle_time_conflicts",
    "nic_backlog_cycles", "pacer_cycles", "pacer_xmit_cycles", "pacer_homa_packets", "pacer_homa_bytes",
    "pacer_fifo_bytes", "pacer_tcp_packets", "pacer_tcp_bytes", "pacer_help_bytes", "qdisc_tcp_packets", "homa_cycles",
    "resent_packets", "peer_allocs", "peer_kmalloc_errors", "peer_route_errors", "peer_dst_refreshes",
    "control_xmit_errors", "data_xmit_errors", "unknown_rpcs", "server_cant_create_rpcs", "unknown_packet_types",
    "short_packets", "packet_discards", "resent_discards", "resent_packets_used", "rpc_timeouts",
    "server_rpc_discards", "server_rpcs_unknown",
    "client_lock_misses", "client_lock_miss_cycles", "server_lock_misses", "server_lock_miss_cycles",
    "socket_lock_misses", "socket_lock_miss_cycles", "throttle_lock_misses", "throttle_lock_miss_cycles",
    "peer_ack_lock_misses", "peer_ack_lock_miss_cycles", "grant_locks", "grant_lock_misses", "grant_lock_miss_cycles",
    "grantable_rpcs_integral", "grant_check_calls", "needy_grants", "fifo_grant_bytes",
    "disabled_reaps", "deferred_rpc_reaps", "reaper_calls", "reaper_dead_skbs", "reaper_active_skbs",
    "throttle_list_adds", "throttle_list_checks", "ack_overflows", "ignored_need_acks", "bpage_reuses",
    "buffer_alloc_failures", "linux_pkt_alloc_bytes", "dropped_data_no_bufs", "gen3_handoffs", "gen3_alt_handoffs",
    "gro_grant_bypasses", "gro_data_bypasses",
    "temp0", "temp1", "temp2", "temp3", "temp4", "temp5", "temp6", "temp7", "temp8", "temp9",
    "resend_restarts", "need_ack_giveups", "stale_grants", "tombstones", "tombstones_evicted",
    "ring_held_nanos", "ring_held_batches", "ring_most_waiting",
    "shard_packets_forwarded", "shard_acks_forwarded", "shard_forwards_lost",
    "ring_wait_nanos", "ring_wait_packets", "ring_drops", "calls_refused", "announcements", "cutoff_changes",
    "icmp_errors", "path_mtu_updates", "refusals_sent", "refusals_withheld", "tx_stalls",
    "tx_copied_bytes", "rx_copied_bytes", "tx_released_bytes", "tx_held_integral", "tx_messages_integral", "tx_held_most",
    "memory_integral", "memory_most", "memory_pressures", "memory_reliefs", "memory_pressed_micros", "pages_given_back",
    "calls_held_back", "requests_overdue", "requests_evicted", "peers_forgotten", "gap_resends", "asks_put_off", "tail_resends", "early_resends", "held_back_bytes",
    "silence_resends", "asked_resends", "room_resends",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_begin_and_end_where_their_names_say() {
        for (length, limit) in
            [(1, 64), (64, 64), (65, 128), (4096, 4096), (4097, 5120), (5120, 5120), (131_072, 131_072)]
        {
            assert_eq!(class_limit(size_class(length)), limit, "{length} bytes");
        }
        assert_eq!(size_class(LARGEST_CLASS), SMALL_CLASSES + MEDIUM_CLASSES - 1);
    }

    #[test]
    fn the_text_has_the_kernels_columns_and_each_counter_once() {
        let mut m = Metrics::default();
        m.received(100);
        m.received(200_000);
        m.dropped(DropReason::Short);
        let text = m.to_text(123, 2_600_000, 3);
        let mut names = std::collections::HashSet::new();
        for line in text.lines() {
            assert_eq!(line.as_bytes()[30], b' ', "{line}");
            assert_eq!(line.as_bytes()[51], b' ', "{line}");
            line[31..51].trim().parse::<u64>().unwrap();
            assert!(names.insert(line[..30].trim().to_owned()), "{line} stands twice");
        }
        let value = |name: &str| {
            let line = text.lines().find(|l| l.split(' ').next() == Some(name)).unwrap_or_else(|| panic!("no {name}"));
            line[31..51].trim().parse::<u64>().unwrap()
        };
        assert_eq!((value("time_cycles"), value("cpu_khz"), value("core")), (123, 2_600_000, 3));
        assert_eq!((value("msg_bytes_128"), value("large_msg_count"), value("large_msg_bytes")), (100, 1, 200_000));
        assert_eq!((value("drop_short"), value("short_packets")), (1, 1));
        // The kernel module's text of July 2026 has 353 lines for one core; ours has those and its own.
        assert_eq!(names.len(), 353 + 46 + DropReason::ALL.len());
    }

    #[test]
    fn the_growth_of_counters_is_their_difference() {
        let mut before = Metrics::default();
        before.received(100);
        before.dropped(DropReason::Short);
        let mut after = before.clone();
        after.received(100);
        after.packets_sent[Kind::Ack.index()] += 3;
        let grown = after.since(&before);
        assert_eq!(grown.msg_bytes[1], 100);
        assert_eq!((grown.packets_sent[Kind::Ack.index()], grown.short_packets), (3, 0));
    }

    #[test]
    fn every_counter_is_written() {
        let m = Metrics::default();
        let in_layout = |name: &str| LAYOUT.contains(&name);
        for name in ["softirq_calls", "stale_grants", "ring_drops", "homa_cycles"] {
            assert!(in_layout(name) && m.named(name).is_some(), "{name}");
        }
    }
}
