//! Canaries: counters that are mostly 0 in a healthy run, printed only when they are not.

use super::super::changes::{average_grantable, line, rate};
use super::super::grown::{Grown, ratio};
use super::heading;

/// Counters that point at trouble.
pub(crate) const COUNTERS: [&str; 18] = [
    "resent_packets",
    "resent_packets_used",
    "packet_discards",
    "resent_discards",
    "unknown_rpcs",
    "peer_kmalloc_errors",
    "peer_route_errors",
    "control_xmit_errors",
    "data_xmit_errors",
    "server_cant_create_rpcs",
    "short_packets",
    "rpc_timeouts",
    "peer_timeouts",
    "forced_reaps",
    "server_rpc_discards",
    "server_rpcs_unknown",
    "buffer_alloc_failures",
    "dropped_data_no_bufs",
];

/// Times that should be short.
const TIMES: [&str; 4] = ["timer_reap_cycles", "data_pkt_reap_cycles", "grant_lock_cycles", "pacer_lost_cycles"];

pub(super) fn print(grown: &Grown) -> String {
    let mut out = heading("Canaries (possible problem indicators):");
    let names = grown.cores.names();
    let text = |name: &str| names.iter().find(|(n, _)| *n == name).map_or("", |(_, text)| text);
    for name in COUNTERS.into_iter().chain(["linux_pkt_alloc_bytes", "unknown_packet_types"]) {
        if let Some(delta) = grown.get(name).filter(|&delta| delta > 0.0) {
            line(&mut out, name, &format!("{delta:.0}"), &rate(grown, delta), text(name));
        }
    }
    // Reasons of this stack.
    for (name, text) in names.iter().filter(|(name, _)| name.starts_with("drop_")) {
        if let Some(delta) = grown.get(name).filter(|&delta| delta > 0.0) {
            line(&mut out, name, &format!("{delta:.0}"), &rate(grown, delta), text);
        }
    }
    for name in TIMES {
        if let Some((delta, ticks)) = grown.get(name).filter(|&delta| delta > 0.0).zip(grown.ticks()) {
            line(&mut out, name, &format!("{delta:.0}"), &format!("({:.1}%)", 100.0 * delta / ticks), text(name));
        }
    }
    for messages in ["requests", "responses"] {
        let queued = format!("{messages}_queued");
        let share =
            grown.get(&queued).and_then(|delta| ratio(100.0 * delta, grown.or_zero(&format!("{messages}_received"))));
        if let Some(share) = share.filter(|&share| share > 0.0) {
            line(
                &mut out,
                &queued,
                &format!("{:.0}", grown.or_zero(&queued)),
                &format!("({share:.1}%)"),
                text(&queued),
            );
        }
    }
    let mut average = |name: &str, value: Option<f64>, least: f64, text: &str| {
        if let Some(value) = value.filter(|&value| value > least) {
            line(&mut out, name, &format!("{value:.1}"), "", text);
        }
    };
    let of = |part: &str, whole: &str| ratio(grown.or_zero(part), grown.or_zero(whole));
    let checks = of("throttle_list_checks", "throttle_list_adds");
    average("checks_per_throttle_insert", checks, 0.0, "List elements checked per throttled RPC insert");
    let acks = of("packets_sent_ACK", "responses_received").map(|acks| 1000.0 * acks);
    average("acks_per_krpc", acks, 0.0, "ACK packets sent per 1000 client RPCs");
    average("avg_grantable_rpcs", average_grantable(grown), 1.0, "Average number of grantable incoming RPCs");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Snapshot;

    #[test]
    fn only_what_happened_is_shown() {
        let text = "time_cycles 2000 c\ncpu_khz 1 r\ncore 0 c\nresent_packets 10 again\nshort_packets 0 short\n\
                    timer_reap_cycles 100 reaping\nresponses_received 4 x\npackets_sent_ACK 1 x\ndrop_flood 2 too many\n\
                    throttle_list_adds 2 x\nthrottle_list_checks 5 x\ngrantable_rpcs_integral 5000 x\n";
        let got = print(&Grown::of_interval(Snapshot::parse(text)));
        let lines: Vec<_> = got.lines().skip(2).collect();
        let want = [
            "resent_packets                              10 (  5.0  /s)  again",
            "drop_flood                                   2 (  1.0  /s)  too many",
            "timer_reap_cycles                          100 (5.0%)       reaping",
            "checks_per_throttle_insert                 2.5              List elements checked per throttled RPC insert",
            "acks_per_krpc                            250.0              ACK packets sent per 1000 client RPCs",
            "avg_grantable_rpcs                         2.5              Average number of grantable incoming RPCs",
        ];
        assert_eq!(lines, want);
    }
}
