//! The first section: each counter that grew, in the order of the file, with the figures that belong beside some.

use std::fmt::Write as _;

use super::grown::{Grown, ratio};
use super::scaled;
use crate::read::Clock;

/// One line: name, value, rate or share, description.
pub(super) fn line(out: &mut String, name: &str, value: &str, third: &str, text: &str) {
    writeln!(out, "{name:<30} {value:>15} {third:<13}{text}").expect("a String takes all");
}

/// Counter lines; empty but for the clock if nothing changed.
pub(super) fn print(grown: &Grown) -> String {
    let mut out = String::new();
    let clock = if grown.cores.clock == Clock::V24 { "rdtsc_cycles" } else { "time_cycles" };
    if let Some(ticks) = grown.cores.ticks {
        let seconds = grown.seconds().map(|s| format!("({s:.1} s)")).unwrap_or_default();
        line(&mut out, clock, &ticks.to_string(), &seconds, &grown.cores.clock_text);
    }
    for (name, text) in grown.cores.names() {
        let delta = grown.or_zero(name);
        if delta != 0.0 {
            let text = class_text(name).unwrap_or_else(|| text.to_owned());
            line(&mut out, name, &format!("{delta:.0}"), &third(grown, name, delta), &text);
        }
        beside(&mut out, grown, name);
    }
    if let Some(benefit) = ratio(grown.packets_received(), grown.or_zero("softirq_calls")) {
        line(&mut out, "gro_benefit", &format!("{benefit:.2}"), "", "Homa packets per homa_softirq call");
    }
    if let Some(average) = average_grantable(grown) {
        let text = "Average number of grantable incoming RPCs";
        line(&mut out, "avg_grantable_rpcs", &format!("{average:.2}"), "", text);
    }
    for (core, name) in &grown.shrunk {
        let core = core.map(|core| format!(" of core {core}")).unwrap_or_default();
        writeln!(out, "{name}{core} shrank: the node was started anew; its growth is since then")
            .expect("a String takes all");
    }
    out
}

/// Incoming messages that could be granted to, on average.
pub(super) fn average_grantable(grown: &Grown) -> Option<f64> {
    Some(grown.get("grantable_rpcs_integral")? / grown.ticks()?)
}

/// Third column: share of time, of received messages, or the rate.
fn third(grown: &Grown, name: &str, delta: f64) -> String {
    let percent = |of: f64| ratio(100.0 * delta, of).map(|p| format!("({p:.1}%)")).unwrap_or_default();
    if name.ends_with("_cycles") {
        return grown.ticks().map(percent).unwrap_or_default();
    }
    if let Some(messages) = name.strip_suffix("_queued").filter(|_| grown.is_v24()) {
        return percent(grown.or_zero(&format!("{messages}_received")));
    }
    rate(grown, delta)
}

/// `(RATE/s)`, or nothing without a clock.
pub(super) fn rate(grown: &Grown, delta: f64) -> String {
    grown.seconds().map(|seconds| format!("({}/s)", scaled(delta / seconds))).unwrap_or_default()
}

/// Lines that follow a counter.
fn beside(out: &mut String, grown: &Grown, name: &str) {
    match name {
        "reaper_dead_skbs" => {
            if let Some(average) = ratio(grown.or_zero(name), grown.or_zero("reaper_calls")).filter(|&a| a > 0.0) {
                line(out, "avg_dead_skbs", &format!("{average:.1}"), "", "Avg. hsk->dead_skbs in reaper");
            }
        }
        "large_msg_bytes" => {
            let all = grown.received_bytes();
            if all > 0.0 {
                let text = "Total bytes in all incoming messages";
                line(out, "received_msg_bytes", &format!("{all:.0}"), &rate(grown, all), text);
            }
        }
        _ => {
            let Some(lock) = name.strip_suffix("_lock_miss_cycles") else { return };
            if let Some(ns) = miss_ns(grown, lock).filter(|&ns| ns > 0.0) {
                let text = format!("Avg. wait time per {lock} lock miss (ns)");
                line(out, &format!("{lock}_lock_miss_delay"), &format!("{ns:.1}"), "", &text);
            }
        }
    }
}

/// Nanoseconds waited for a contended lock, on average.
pub(super) fn miss_ns(grown: &Grown, lock: &str) -> Option<f64> {
    let misses = grown.or_zero(&format!("{lock}_lock_misses"));
    Some(grown.us(ratio(grown.or_zero(&format!("{lock}_lock_miss_cycles")), misses)?)? * 1000.0)
}

/// Description of a size class, from its name.
fn class_text(name: &str) -> Option<String> {
    let upper: u32 = name.strip_prefix("msg_bytes_")?.parse().ok()?;
    let lower = match upper {
        0..=64 => 0,
        65..=4096 => upper - 63,
        _ => upper - 1023,
    };
    Some(format!("Bytes in incoming messages containing {lower}-{upper} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Snapshot;

    fn lines(text: &str) -> Vec<String> {
        print(&Grown::of_interval(Snapshot::parse(text))).lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_columns_are_the_originals_and_the_figures_those_computed_by_hand() {
        // 2 s; 3000 bytes in messages, 1500 a second; 1 of 2 s; 6 / 4 dead; 0.5 us = 1000 ticks / 4 misses at 2 GHz -> 125 ns.
        let got = lines(
            "time_cycles 4000000000 now\ncpu_khz 2000000 r\ncore 0 c\nmsg_bytes_5120 1000 wrong\nlarge_msg_bytes 2000 big\n\
             packets_rcvd_ACK 9 acks\nsend_cycles 2000000000 sending\nsoftirq_calls 4 calls\nclient_lock_misses 4 misses\n\
             client_lock_miss_cycles 1000 waited\ngrantable_rpcs_integral 1000000000 sum\nreaper_calls 4 calls\n\
             reaper_dead_skbs 6 dead\nresent_packets 0 none\n",
        );
        let want = [
            "time_cycles                         4000000000 (2.0 s)      now",
            "msg_bytes_5120                            1000 (500.0  /s)  Bytes in incoming messages containing 4097-5120 bytes",
            "large_msg_bytes                           2000 (  1.0 K/s)  big",
            "received_msg_bytes                        3000 (  1.5 K/s)  Total bytes in all incoming messages",
            "packets_rcvd_ACK                             9 (  4.5  /s)  acks",
            "send_cycles                         2000000000 (50.0%)      sending",
            "softirq_calls                                4 (  2.0  /s)  calls",
            "client_lock_misses                           4 (  2.0  /s)  misses",
            "client_lock_miss_cycles                   1000 (0.0%)       waited",
            "client_lock_miss_delay                   125.0              Avg. wait time per client lock miss (ns)",
            "grantable_rpcs_integral             1000000000 (500.0 M/s)  sum",
            "reaper_calls                                 4 (  2.0  /s)  calls",
            "reaper_dead_skbs                             6 (  3.0  /s)  dead",
            "avg_dead_skbs                              1.5              Avg. hsk->dead_skbs in reaper",
            "gro_benefit                               2.25              Homa packets per homa_softirq call",
            "avg_grantable_rpcs                        0.25              Average number of grantable incoming RPCs",
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn without_a_clock_there_are_no_rates_and_of_the_older_layout_queued_messages_are_a_share() {
        assert_eq!(lines("core 0 c\na 5 text\n"), ["a                                            5              text"]);
        let old = "rdtsc_cycles 10 c\ncpu_khz 1000 r\ncore 0 c\nrequests_received 8 r\nrequests_queued 2 q\n";
        assert!(lines(old)[2].contains("2 (25.0%)"), "{:?}", lines(old));
    }

    #[test]
    fn descriptions_of_size_classes_come_from_their_names() {
        for (name, range) in [
            ("msg_bytes_64", "0-64"),
            ("msg_bytes_128", "65-128"),
            ("msg_bytes_4096", "4033-4096"),
            ("msg_bytes_131072", "130049-131072"),
        ] {
            assert!(class_text(name).unwrap().contains(&format!(" {range} ")), "{name}");
        }
        assert_eq!(class_text("sent_msg_bytes"), None);
    }
}
