//! Results as text for people.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::results::{ProtocolResult, Status};

/// Everything about the protocols of one run. `slowdown` is the definition in use.
pub fn run(workload: &str, results: &[ProtocolResult], slowdown: &str) -> String {
    let mut text = String::new();
    load(&mut text, results);
    short(&mut text, results);
    if let Some(ratio) = short_p99_ratio(results) {
        let _ = writeln!(text, "  P99 from sending: homa takes {ratio:.4} of tcp's time");
    }
    let _ = writeln!(text, "\nSlowdown by message length, {workload} (slowdown {slowdown})");
    let _ = writeln!(text, "all RPCs:");
    for result in results {
        let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let (mean, p99) = (show(result.slowdown_mean), show(result.slowdown_p99));
        let (due_mean, due_p99) = (show(result.due_slowdown_mean), show(result.due_slowdown_p99));
        let _ = writeln!(
            text,
            "  {:<6} mean {mean:>8}  P99 {p99:>8}   from due time: mean {due_mean:>8}  P99 {due_p99:>8}",
            result.protocol
        );
    }
    by_length(&mut text, results);
    ports(&mut text, results);
    switches(&mut text, results);
    warnings(&mut text, results);
    text
}

/// What was asked for and what came.
fn load(text: &mut String, results: &[ProtocolResult]) {
    let _ = writeln!(text, "Load (message payload per node and direction, requests and responses)");
    let _ = writeln!(text, "  protocol  offered Gbps  achieved Gbps      %      RPCs   RPCs/s  errors  unfinished");
    for result in results {
        let elapsed = result.elapsed_s.filter(|elapsed| *elapsed > 0.0);
        let achieved = result.achieved_gbps.map_or_else(|| "-".to_owned(), |gbps| format!("{gbps:.4}"));
        let percent = result.achieved_gbps.filter(|_| result.offered_gbps > 0.0);
        let percent =
            percent.map_or_else(|| "-".to_owned(), |gbps| format!("{:.1}", 100.0 * gbps / result.offered_gbps));
        let rate = elapsed.map_or_else(|| "-".to_owned(), |elapsed| format!("{:.0}", result.rpcs as f64 / elapsed));
        let offered =
            if result.offered_gbps > 0.0 { format!("{:.4}", result.offered_gbps) } else { "unlimited".to_owned() };
        let _ = writeln!(
            text,
            "  {:<8}  {offered:>12}  {achieved:>13}  {percent:>5}  {:>8}  {rate:>7}  {:>6}  {:>10}",
            result.protocol, result.rpcs, result.errors, result.outstanding
        );
    }
    for result in results {
        let parts = [
            result.requests_per_look.map(|each| format!("{each:.2} requests each time that a server found any")),
            result.outgoing_messages.map(|mean| format!("{mean:.1} messages on their way from a node at a time")),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        if !parts.is_empty() {
            let _ = writeln!(text, "  {}: {}", result.protocol, parts.join("; "));
        }
    }
}

/// Round-trip times of the shortest messages.
fn short(text: &mut String, results: &[ProtocolResult]) {
    let _ = writeln!(text, "\nShort messages: the shortest 10 % (below 1500 bytes), round-trip time in us");
    let _ = writeln!(text, "                                      from sending                  from due time");
    let _ = writeln!(text, "  protocol   count  longest B      P50       P99     P99.9        P50       P99     P99.9");
    for result in results {
        let show = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |ns| format!("{:.1}", ns as f64 / 1000.0));
        let longest = result.short_longest_bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
        let _ = writeln!(
            text,
            "  {:<8} {:>7}  {longest:>9} {:>8}  {:>8}  {:>8}   {:>8}  {:>8}  {:>8}",
            result.protocol,
            result.short_rpcs,
            show(result.short_rtt_p50_ns),
            show(result.short_rtt_p99_ns),
            show(result.short_rtt_p999_ns),
            show(result.short_due_p50_ns),
            show(result.short_due_p99_ns),
            show(result.short_due_p999_ns),
        );
    }
}

/// P99 of short messages with Homa over that with TCP, from sending, if both were measured.
pub fn short_p99_ratio(results: &[ProtocolResult]) -> Option<f64> {
    let p99 = |name: &str| {
        let of = results.iter().find(|result| result.protocol == name && result.status == Status::Complete);
        of?.short_rtt_p99_ns.filter(|ns| *ns > 0)
    };
    Some(p99("homa")? as f64 / p99("tcp")? as f64)
}

/// Slowdowns by length, protocols side by side: their rows end with the same lengths.
fn by_length(text: &mut String, results: &[ProtocolResult]) {
    let ends: BTreeSet<u32> =
        results.iter().flat_map(|result| &result.by_length).map(|row| row.max_length_bytes).collect();
    let mut heads = format!("  {:<19}", "");
    let mut names = format!("  {:<19}", "length, bytes");
    for result in results {
        let _ = write!(heads, " | {:<33}", format!("{} slowdown", result.protocol));
        let _ = write!(names, " | {:>6} {:>7} {:>8} {:>9}", "up to", "RPCs", "P50", "P99");
    }
    let _ = writeln!(text, "{}\n{names}", heads.trim_end());
    let mut before = 0;
    for end in ends {
        let _ = write!(text, "  {:<19}", format!("{}-{end}", before + 1));
        before = end;
        for result in results {
            let _ = match result.by_length.iter().find(|row| row.max_length_bytes == end) {
                Some(row) => {
                    let (percent, rpcs) = (row.cum_percent, row.rpcs);
                    let (p50, p99) = (row.slowdown_p50, row.slowdown_p99);
                    write!(text, " | {percent:>4.0} % {rpcs:>7} {p50:>8.2} {p99:>9.2}")
                }
                None => write!(text, " | {:>6} {:>7} {:>8} {:>9}", "-", 0, "-", "-"),
            };
        }
        text.push('\n');
    }
}

/// The switch's ports, where they are counted.
fn ports(text: &mut String, results: &[ProtocolResult]) {
    if results.iter().all(|result| result.ports.is_empty()) {
        return;
    }
    let _ = writeln!(text, "\nSwitch ports (packets, warm-up included; levels from the least urgent)");
    for result in results {
        for port in &result.ports {
            let list = |counts: &[u64]| match counts {
                [] => "-".to_owned(),
                _ => counts.iter().map(u64::to_string).collect::<Vec<_>>().join(" "),
            };
            let (sent, dropped) = (list(&port.sent_packets), list(&port.dropped_packets));
            let _ = writeln!(
                text,
                "  {:<6} port {:<3} to node: sent {sent}; dropped {dropped}; from node: dropped {}, lost at random {}",
                result.protocol, port.port, port.uplink_dropped_packets, port.lost_packets
            );
        }
    }
}

/// Simulated switches: what waited in them, what they dropped and marked.
fn switches(text: &mut String, results: &[ProtocolResult]) {
    if results.iter().all(|result| result.switch.is_none()) {
        return;
    }
    let _ = writeln!(text, "\nSwitch buffers (us: on all links to hosts together, and on the link of the one port)");
    let _ = writeln!(
        text,
        "  protocol  most at once KB       us  most at a port KB       us  dropped packets  marked packets"
    );
    for (result, switch) in results.iter().filter_map(|result| Some((result, result.switch.as_ref()?))) {
        let _ = writeln!(
            text,
            "  {:<8}  {:>15.1} {:>8.1}  {:>17.1} {:>8.1}  {:>15}  {:>14}",
            result.protocol,
            switch.buffer_max_bytes as f64 / 1e3,
            switch.buffer_max_us,
            switch.port_max_bytes as f64 / 1e3,
            switch.port_max_us,
            switch.drops(),
            switch.marked_packets
        );
    }
}

/// What a reader must know before believing the figures above.
fn warnings(text: &mut String, results: &[ProtocolResult]) {
    for result in results {
        let name = &result.protocol;
        if result.status != Status::Complete {
            let _ = writeln!(text, "WARNING: {name} was stopped before its interval was over; its figures are partial");
        }
        if result.fell_short() {
            let share = result.achieved_gbps.unwrap_or(0.0) / result.offered_gbps * 100.0;
            let _ = writeln!(
                text,
                "WARNING: {name} carried only {share:.1} % of the offered load, so its times are those of an \
                 overloaded machine; use a lower --gbps"
            );
        }
        if result.errors > 0 {
            let _ =
                writeln!(text, "WARNING: {name}: {} RPCs failed, {} of them timed out", result.errors, result.timeouts);
        }
        if let Some(percent) = result.resent_percent.filter(|percent| *percent >= 1.0) {
            let why = match result.switch.as_ref().map(crate::sim::switch::Switch::drops) {
                None => {
                    "nodes that wait long for a core look like lost packets: use a lower --gbps, fewer --nodes or an idle \
                     machine"
                        .to_owned()
                }
                Some(0) => "switches dropped none, so packets were only late: behind others at switches, or in hosts that \
                            had no core for them; --gbps and --host-model decide on both"
                    .to_owned(),
                Some(drops) => format!(
                    "switches dropped {drops} packets: --loss, --switch-buffer and --gbps decide on that"
                ),
            };
            let _ = writeln!(text, "WARNING: {name}: {percent:.1} % of the data packets were sent again; {why}");
        }
        if result.lost_samples + result.bad_lines > 0 {
            let (lost, bad) = (result.lost_samples, result.bad_lines);
            let _ = writeln!(text, "WARNING: {name}: {lost} samples were lost and {bad} lines could not be read");
        }
        if (1..1000).contains(&result.short_rpcs) {
            let _ = writeln!(
                text,
                "note: {name}: with {} short messages P99.9 is the slowest of all; a longer run (--seconds) tells more",
                result.short_rpcs
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::Measured;
    use super::super::results::tests::hundred;
    use super::super::slowdown::Optimal;
    use super::*;

    fn result(status: Status, offered: f64, measured: &Measured) -> ProtocolResult {
        let cuts = super::super::digest::cuts(&[&measured.service], 10);
        ProtocolResult::new("tcp", status, offered, measured, &Optimal::fixed(1.0, f64::INFINITY), &cuts)
    }

    #[test]
    fn a_good_run_has_load_times_and_no_warning_but_few_samples() {
        let text = run("w4", &[result(Status::Complete, 1.0, &hundred())], "fixed: as a test");
        for part in ["1.0000         1.0000  100.0", "fixed: as a test", "1-100", "901-1000", "shortest 10 %"] {
            assert!(text.contains(part), "no `{part}` in:\n{text}");
        }
        assert!(text.contains("4 RPCs failed"));
        assert!(text.contains("2.5 % of the data packets were sent again"), "{text}");
        assert!(text.contains("with 10 short messages"));
        assert!(!text.contains("overloaded"));
    }

    #[test]
    fn overload_and_partial_runs_are_warned_of() {
        let text = run("w4", &[result(Status::Interrupted, 2.0, &hundred())], "x");
        assert!(text.contains("carried only 50.0 % of the offered load"), "{text}");
        assert!(text.contains("stopped before its interval was over"), "{text}");
    }

    #[test]
    fn short_messages_of_both_protocols_are_compared_if_both_are_whole() {
        let tcp = result(Status::Complete, 1.0, &hundred());
        let homa = ProtocolResult { protocol: "homa".into(), short_rtt_p99_ns: Some(1000), ..tcp.clone() };
        assert_eq!(short_p99_ratio(&[homa.clone(), tcp.clone()]), Some(0.1));
        assert_eq!(short_p99_ratio(&[homa.clone(), ProtocolResult { status: Status::Failed, ..tcp.clone() }]), None);
        assert_eq!(short_p99_ratio(&[tcp]), None);
    }

    #[test]
    fn nothing_measured_prints_dashes() {
        let text = run("w4", &[result(Status::Failed, 1.0, &Measured::default())], "x");
        assert!(text.contains(" - "), "{text}");
        assert!(!text.contains("NaN"), "{text}");
    }
}
