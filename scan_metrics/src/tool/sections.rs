//! Derived figures: cores in all, polling, locks, receiving, pacer, grants, the rest. Canaries have a file of their own.

mod canaries;

use std::fmt::Write as _;

use super::changes::miss_ns;
use super::grown::{Grown, ratio};
use super::scaled;

/// All sections, each after a blank line; those about what did not happen are left out.
pub(super) fn print(grown: &Grown) -> String {
    let all = [utilization, locks, receiving, pacer, grants, miscellaneous, canaries::print];
    all.into_iter()
        .map(|section| section(grown))
        .filter(|text| !text.is_empty())
        .map(|text| format!("\n{text}"))
        .collect()
}

/// Heading with a rule under it.
fn heading(text: &str) -> String {
    format!("{text}\n{}\n", "-".repeat(text.len()))
}

fn add(out: &mut String, line: std::fmt::Arguments<'_>) {
    out.write_fmt(line).and_then(|()| out.write_char('\n')).expect("a String takes all");
}

/// Cores used by each part, with its cost a call, a packet or a buffer.
fn utilization(grown: &Grown) -> String {
    if grown.ticks().is_none() {
        return String::new();
    }
    let mut out = heading("Overall Core Utilization:");
    let per = |ticks: f64, units: f64| grown.us(ratio(ticks, units).unwrap_or(0.0)).unwrap_or(0.0);
    let mut row = |label: &str, cores: f64, cost: Option<(f64, &str)>| {
        let cost = cost.map(|(us, unit)| format!("{us:10.2} us/{unit}")).unwrap_or_default();
        add(&mut out, format_args!("{label:<29}{cores:5.2}{cost}"));
    };
    let ticks = |name: &str| grown.or_zero(name);
    let per_call = |name: &str| (per(ticks(&format!("{name}_cycles")), ticks(&format!("{name}_calls"))), "syscall");
    row("send syscall", grown.cores_of("send_cycles"), Some(per_call("send")));
    let receiving = (ticks("recv_cycles") - ticks("poll_cycles")).max(0.0);
    row("recv syscall (-poll)", grown.receiving_cores(), Some((per(receiving, ticks("recv_calls")), "syscall")));
    row("reply syscall", grown.cores_of("reply_cycles"), Some(per_call("reply")));
    let packets = grown.packets_received();
    for (label, name) in [
        ("NAPI", "napi_cycles"),
        ("  Bypass homa_softirq", "bypass_softirq_cycles"),
        ("Linux SoftIRQ", "linux_softirq_cycles"),
        ("  Normal homa_softirq", "softirq_cycles"),
    ] {
        row(label, grown.cores_of(name), (packets > 0.0).then(|| (per(ticks(name), packets), "packet")));
    }
    row("Pacer", grown.cores_of("pacer_cycles"), None);
    row("Timer handler", grown.cores_of("timer_cycles"), None);
    add(&mut out, format_args!("{}", "-".repeat(34)));
    add(&mut out, format_args!("{:<29}{:5.2}", "Total Core Utilization", grown.total_cores()));
    add(&mut out, format_args!(""));
    let mut row = |label: &str, name: &str, count: &str, unit: &str| {
        if grown.get(count).is_some() {
            let us = per(ticks(name), ticks(count));
            add(&mut out, format_args!("{label:<29}{:5.2}{us:10.2} us/{unit}", grown.cores_of(name)));
        }
    };
    row("Polling in recv", "poll_cycles", "recv_calls", "syscall");
    row("Skb allocation", "skb_alloc_cycles", "skb_allocs", "skb");
    row("Skb freeing", "skb_free_cycles", "skb_frees", "skb");
    out
}

/// Contended locks.
fn locks(grown: &Grown) -> String {
    let Some(seconds) = grown.seconds() else { return String::new() };
    let mut out = heading("Lock Misses:");
    add(&mut out, format_args!("{:12}Misses/sec.  ns/Miss   %CPU", ""));
    for lock in ["client", "server", "socket", "grant", "grantable", "throttle", "peer_ack"] {
        let Some(misses) = grown.get(&format!("{lock}_lock_misses")) else { continue };
        let (ns, share) = (miss_ns(grown, lock).unwrap_or(0.0), grown.cores_of(&format!("{lock}_lock_miss_cycles")));
        add(&mut out, format_args!("{lock:<10}{:9.1}{ns:12.1}{:8.1}", misses / seconds, 100.0 * share));
    }
    out
}

/// How messages met the threads that wanted them.
fn receiving(grown: &Grown) -> String {
    let messages = grown.messages();
    if messages == 0.0 {
        return String::new();
    }
    let mut out = heading("Receiving Messages:");
    let mut row = |label: &str, part: f64, of: f64| {
        add(&mut out, format_args!("{label:<30}{:5.1}%", 100.0 * ratio(part, of).unwrap_or(0.0)));
    };
    let get = |name: &str| grown.or_zero(name);
    let [none, fast, block] = if grown.is_v24() {
        let (fast, slow) = (get("fast_wakeups"), get("slow_wakeups"));
        [(messages - fast - slow).max(0.0), fast, slow]
    } else {
        [get("wait_none"), get("wait_fast"), get("wait_block")]
    };
    row("Available immediately:", none, messages);
    row("Arrived while polling:", fast, messages);
    row("Blocked at least once:", block, messages);
    row("Alternate GRO handoffs:", get("gen3_alt_handoffs"), get("gen3_handoffs"));
    row("Alternate thread handoffs:", get("handoffs_alt_thread"), get("handoffs_thread_waiting"));
    row("GRO bypass for data packets:", get("gro_data_bypasses"), get("packets_rcvd_DATA"));
    row("GRO bypass for grant packets:", get("gro_grant_bypasses"), get("packets_rcvd_GRANT"));
    out
}

/// Packets that waited for the NIC; nothing if none did, or in the older layout, which counts otherwise.
fn pacer(grown: &Grown) -> String {
    let (homa, tcp) = (grown.or_zero("pacer_homa_packets"), grown.or_zero("pacer_tcp_packets"));
    let (Some(seconds), Some(ticks)) = (grown.seconds(), grown.ticks()) else { return String::new() };
    if homa + tcp == 0.0 || grown.is_v24() {
        return String::new();
    }
    let mut out = heading("Pacer:");
    let get = |name: &str| grown.or_zero(name);
    let share = |part: f64, of: f64| 100.0 * ratio(part, of).unwrap_or(0.0);
    let mut row = |label: &str, value: f64, rest: String| add(&mut out, format_args!("{label:<25}{value:6.3} {rest}"));
    let of_all =
        |part: f64, all: f64, kind: &str| format!("M/sec ({:.1} % of all {kind} packets sent)", share(part, all));
    row("Homa packets:", homa / seconds * 1e-6, of_all(homa, grown.packets_sent(), "Homa"));
    row("TCP packets:", tcp / seconds * 1e-6, of_all(tcp, get("qdisc_tcp_packets"), "TCP"));
    let bytes = get("pacer_homa_bytes") + get("pacer_tcp_bytes");
    row("Throughput:", 8e-9 * bytes / seconds, "Gbps (with headers)".to_owned());
    row("Sent by helpers:", share(get("pacer_help_bytes"), bytes), "% of these bytes".to_owned());
    let backlog = get("nic_backlog_cycles");
    if let Some(active) = ratio(8e-9 * bytes, backlog / ticks * seconds) {
        row("Active throughput:", active, "Gbps (while packets waited)".to_owned());
    }
    row("Backlogged:", share(backlog, ticks), "% of time".to_owned());
    row("Duty cycle:", share(get("pacer_cycles"), backlog), "% of the backlogged time".to_owned());
    let sending = get("pacer_xmit_cycles");
    let each = grown.us(ratio(sending, homa + tcp).unwrap_or(0.0)).unwrap_or(0.0);
    row("Transmitting:", share(sending, ticks), format!("% of time ({each:.2} usec/packet)"));
    out
}

/// Grants, of the newer layout.
fn grants(grown: &Grown) -> String {
    let (Some(seconds), sent) = (grown.seconds(), grown.or_zero("packets_sent_GRANT")) else { return String::new() };
    if grown.is_v24() || sent == 0.0 || grown.get("grant_check_calls").is_none() {
        return String::new();
    }
    let mut out = heading("Grants:");
    let get = |name: &str| grown.or_zero(name);
    let share = |part: f64, of: f64| 100.0 * ratio(part, of).unwrap_or(0.0);
    let mut row = |label: &str, count: f64, of: f64, what: &str| {
        let part = if what.is_empty() { String::new() } else { format!(" ({:.1} % of {what})", share(count, of)) };
        add(&mut out, format_args!("{label:<25}{}/s{part}", scaled(count / seconds)));
    };
    let locks = get("grant_locks");
    row("Grant packets sent:", sent, 0.0, "");
    row("Needy grants sent:", get("needy_grants"), sent, "all grants");
    row("Grant lock acquisitions:", locks, get("grant_check_calls"), "homa_grant_check_rpc calls");
    row("Grant lock misses:", get("grant_lock_misses"), locks, "acquisitions");
    let held = get("grant_lock_cycles");
    let each = grown.us(ratio(held, locks).unwrap_or(0.0)).unwrap_or(0.0);
    let share = 100.0 * grown.cores_of("grant_lock_cycles");
    add(&mut out, format_args!("{:<25}{share:5.1}%    ({each:.2} usec/acquisition)", "Time holding grant lock:"));
    out
}

/// Packets, and what a core does.
fn miscellaneous(grown: &Grown) -> String {
    let mut out = heading("Miscellaneous:");
    let Some(seconds) = grown.seconds() else { return String::new() };
    let (received, sent) = (grown.packets_received(), grown.packets_sent());
    let bytes = grown.received_bytes();
    if received > 0.0 {
        add(&mut out, format_args!("{:<22}{:8.0}", "Bytes/packet rcvd:", bytes / received));
        add(&mut out, format_args!("{:<22}{:8.3} M/sec", "Packets received:", received / seconds * 1e-6));
        add(&mut out, format_args!("{:<22}{:8.3} M/sec", "Packets sent:", sent / seconds * 1e-6));
    }
    let cores = grown.total_cores();
    if let Some(efficiency) = ratio((received + sent) / seconds, cores).filter(|_| received + sent > 0.0) {
        let unit = "M packets/sec/core (sent & received combined)";
        add(&mut out, format_args!("{:<22}{:8.3} {unit}", "Core efficiency:", efficiency * 1e-6));
        let goodput = 8e-9 * (bytes + grown.or_zero("sent_msg_bytes")) / (cores * seconds);
        add(&mut out, format_args!("{:<22}{goodput:8.2} Gbps/core (goodput)", ""));
    }
    if grown.is_v24() {
        let bytes = 8e-9 * grown.or_zero("pacer_bytes");
        let during = |name: &str| ratio(bytes, grown.cores_of(name) * seconds);
        if let Some(gbps) = during("pacer_cycles").filter(|&gbps| gbps > 0.0) {
            add(&mut out, format_args!("{:<22}{gbps:8.2} Gbps (pacer output when pacer running)", "Pacer throughput:"));
        }
        if let Some(gbps) = during("throttled_cycles").filter(|&gbps| gbps > 0.0) {
            add(&mut out, format_args!("{:<22}{gbps:8.2} Gbps (pacer output when throttled)", ""));
        }
    }
    for (label, name, count, unit) in [
        ("Skb alloc time:", "skb_alloc_cycles", "skb_allocs", "skb"),
        ("Skb page alloc time:", "skb_page_alloc_cycles", "skb_page_allocs", "page"),
    ] {
        if let Some(us) = ratio(grown.or_zero(name), grown.or_zero(count)).and_then(|ticks| grown.us(ticks)) {
            add(&mut out, format_args!("{label:<22}{us:8.2} usec/{unit}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Snapshot;

    /// 2 s at 1 GHz: a nanosecond a tick.
    fn grown(counters: &str) -> Grown {
        let clock = "time_cycles 2000000000 c\ncpu_khz 1000000 r\ncore 0 c\n";
        Grown::of_interval(Snapshot::parse(&format!("{clock}{}", counters.replace(';', "\n"))))
    }

    fn has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|have| have == *line), "no line `{line}` in\n{text}");
        }
    }

    #[test]
    fn costs_are_time_by_calls_packets_and_buffers() {
        let text = utilization(&grown(
            "send_cycles 400000000;send_calls 1000;recv_cycles 300000000;poll_cycles 100000000;recv_calls 2000;\
             packets_rcvd_DATA 10000;softirq_cycles 50000000;timer_cycles 20000000;skb_allocs 100;skb_alloc_cycles 50000",
        ));
        has(
            &text,
            &[
                "send syscall                  0.20    400.00 us/syscall",
                "recv syscall (-poll)          0.10    100.00 us/syscall",
                "reply syscall                 0.00      0.00 us/syscall",
                "NAPI                          0.00      0.00 us/packet",
                "  Normal homa_softirq         0.03      5.00 us/packet",
                "Timer handler                 0.01",
                "Total Core Utilization        0.34",
                "Polling in recv               0.05     50.00 us/syscall",
                "Skb allocation                0.00      0.50 us/skb",
            ],
        );
        assert!(!text.contains("Skb freeing"), "what the file lacks is left out");
        has(&utilization(&grown("a 1")), &["NAPI                          0.00"]);
    }

    #[test]
    fn misses_of_locks_have_a_rate_a_length_and_a_share() {
        let text = locks(&grown("client_lock_misses 10;client_lock_miss_cycles 20000000;grantable_lock_misses 4"));
        has(&text, &["client          5.0   2000000.0     1.0", "grantable       2.0         0.0     0.0"]);
        assert!(!text.contains("socket"));
    }

    #[test]
    fn messages_are_split_by_how_they_met_their_threads() {
        let text = receiving(&grown(
            "requests_received 30;responses_received 10;wait_none 10;wait_fast 2;wait_block 28;gen3_handoffs 4;\
             gen3_alt_handoffs 1;packets_rcvd_DATA 50;gro_data_bypasses 20",
        ));
        has(
            &text,
            &[
                "Available immediately:         25.0%",
                "Arrived while polling:          5.0%",
                "Blocked at least once:         70.0%",
                "Alternate GRO handoffs:        25.0%",
                "Alternate thread handoffs:      0.0%",
                "GRO bypass for data packets:   40.0%",
            ],
        );
        assert_eq!(receiving(&grown("wait_none 5")), "");
        let old =
            "rdtsc_cycles 2 c\ncpu_khz 1 r\ncore 0 c\nrequests_received 40 x\nfast_wakeups 10 x\nslow_wakeups 20 x\n";
        let old = Grown::of_interval(Snapshot::parse(old));
        has(&receiving(&old), &["Available immediately:         25.0%", "Blocked at least once:         50.0%"]);
    }

    #[test]
    fn the_pacers_and_the_grants_figures_are_quotients_of_counters() {
        // 4e6 of 10e6 packets in 2 s; 1e10 bytes = 40 Gbps, 80 in the backlogged half of the time.
        let text = pacer(&grown(
            "packets_sent_DATA 10000000;pacer_homa_packets 4000000;pacer_homa_bytes 10000000000;\
             pacer_help_bytes 1000000000;nic_backlog_cycles 1000000000;pacer_cycles 500000000;pacer_xmit_cycles 400000000",
        ));
        has(
            &text,
            &[
                "Homa packets:             2.000 M/sec (40.0 % of all Homa packets sent)",
                "Throughput:              40.000 Gbps (with headers)",
                "Sent by helpers:         10.000 % of these bytes",
                "Active throughput:       80.000 Gbps (while packets waited)",
                "Backlogged:              50.000 % of time",
                "Duty cycle:              50.000 % of the backlogged time",
                "Transmitting:            20.000 % of time (0.10 usec/packet)",
            ],
        );
        assert_eq!(pacer(&grown("pacer_homa_packets 0")), "");
        let text = grants(&grown(
            "packets_sent_GRANT 4000;needy_grants 1000;grant_locks 500;grant_check_calls 10000;grant_lock_misses 5;\
             grant_lock_cycles 1000000",
        ));
        has(
            &text,
            &[
                "Grant packets sent:        2.0 K/s",
                "Needy grants sent:       500.0  /s (25.0 % of all grants)",
                "Grant lock acquisitions: 250.0  /s (5.0 % of homa_grant_check_rpc calls)",
                "Grant lock misses:         2.5  /s (1.0 % of acquisitions)",
                "Time holding grant lock:   0.1%    (2.00 usec/acquisition)",
            ],
        );
    }

    #[test]
    fn efficiency_is_packets_and_bytes_by_core() {
        // 0.5 cores for 2 s; 3000 packets; 1000 bytes in, 249000 out: 2 Mbit in one core-second.
        let text = miscellaneous(&grown(
            "packets_rcvd_DATA 1000;packets_sent_DATA 2000;send_cycles 1000000000;msg_bytes_64 1000;sent_msg_bytes 249000",
        ));
        has(
            &text,
            &[
                "Bytes/packet rcvd:           1",
                "Packets received:        0.001 M/sec",
                "Core efficiency:         0.003 M packets/sec/core (sent & received combined)",
                "                          0.00 Gbps/core (goodput)",
            ],
        );
        let old = "rdtsc_cycles 2000000000 c\ncpu_khz 1000000 r\ncore 0 c\npacer_bytes 1000000000 x\npacer_cycles 1000000000 x\n\
                   throttled_cycles 500000000 x\n";
        let text = miscellaneous(&Grown::of_interval(Snapshot::parse(old)));
        has(
            &text,
            &[
                "Pacer throughput:         8.00 Gbps (pacer output when pacer running)",
                "                         16.00 Gbps (pacer output when throttled)",
            ],
        );
    }
}
