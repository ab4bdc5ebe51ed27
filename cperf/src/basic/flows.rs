//! From the rounds of all flows, and of the round trips that are compared with others, to one row each.

use std::fmt::Write as _;

use serde::Serialize;

use super::cases::{Case, Section};
use super::probe::Found;

/// Figure of one case: the median over rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct FlowRow {
    #[serde(flatten)]
    case: Case,
    /// `request_gbps`, `messages_per_s` or `rtt_p50_ns`.
    unit: &'static str,
    rounds: usize,
    median: f64,
    /// Smallest and largest of a round.
    range: [f64; 2],
    /// Over raw frames, the same otherwise; null if there is no such case.
    ratio_to_raw: Option<f64>,
    /// Over kernel TCP, the same otherwise.
    ratio_to_tcp: Option<f64>,
    /// Over IPv4, the same otherwise.
    ratio_to_ipv4: Option<f64>,
}

/// One row for each case outside the latency section that has a round.
pub(super) fn summarize(found: &[Found]) -> Vec<FlowRow> {
    let mut cases: Vec<Case> = Vec::new();
    for one in found.iter().filter(|one| one.case.section != Section::Latency) {
        if !cases.contains(&one.case) {
            cases.push(one.case);
        }
    }
    let row = |case: Case| {
        let values = values(found, &case);
        let median = *values.get(values.len() / 2)?;
        let over = |other: Case| {
            let values = self::values(found, &other);
            (other != case).then(|| values.get(values.len() / 2).map(|other| median / other)).flatten()
        };
        Some(FlowRow {
            case,
            unit: unit(&case),
            rounds: values.len(),
            median,
            range: [*values.first()?, *values.last()?],
            ratio_to_raw: over(Case { transport: "raw-ring", ..case }),
            ratio_to_tcp: over(Case { transport: "tcp-spin", ..case }),
            ratio_to_ipv4: over(Case { ipv6: false, ..case }),
        })
    };
    cases.into_iter().filter_map(row).collect()
}

/// The figure of each round of a case, sorted.
fn values(found: &[Found], case: &Case) -> Vec<f64> {
    let of = found.iter().filter(|one| one.case == *case);
    let mut values: Vec<_> = of.filter_map(|one| one.figure()).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// What the figure of a case is.
fn unit(case: &Case) -> &'static str {
    match case.flow {
        None => "rtt_p50_ns",
        Some(flow) if flow.length > flow.response => "request_gbps",
        Some(_) => "messages_per_s",
    }
}

/// For people.
pub(super) fn table(rows: &[FlowRow]) -> String {
    let mut text = String::new();
    for (section, heading) in [
        (Section::Throughput, "One stream of 1 MB requests, 12-byte answers, Gbps of payload"),
        (Section::Rate, "RPCs per second, as long as each other; TCP with a connection for each outstanding one"),
        (Section::Ipv6, "IPv6 against IPv4: P50 of round trips in us, Gbps of payload, RPCs per second"),
    ] {
        let of: Vec<_> = rows.iter().filter(|row| row.case.section == section).collect();
        if of.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n{heading}");
        let _ =
            writeln!(text, "  transport  IP   MTU  length  outstanding      median   x raw   x TCP  x IPv4   rounds");
        for row in of {
            let scale = if row.unit == "rtt_p50_ns" { 1e-3 } else { 1.0 };
            let digits = if row.unit == "messages_per_s" { 0 } else { 2 };
            let show = |value: f64| format!("{:.digits$}", value * scale);
            let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            let (length, outstanding) = row
                .case
                .flow
                .map_or_else(|| ("short".to_owned(), 1), |flow| (flow.length.to_string(), flow.outstanding));
            let _ = writeln!(
                text,
                "  {:<10} {:>2} {:>5} {:>7} {:>12} {:>11} {:>7} {:>7} {:>7}   {}-{}",
                row.case.transport,
                if row.case.ipv6 { 6 } else { 4 },
                row.case.mtu,
                length,
                outstanding,
                show(row.median),
                ratio(row.ratio_to_raw),
                ratio(row.ratio_to_tcp),
                ratio(row.ratio_to_ipv4),
                show(row.range[0]),
                show(row.range[1]),
            );
        }
    }
    if !text.is_empty() {
        text += METHOD;
    }
    text
}

/// What is behind the figures.
pub(super) const METHOD: &str = "\
raw: full frames through the packet rings, no protocol, one copy out at the receiver. All ends spin, one thread each.
homa: by AF_PACKET; homa-xdp: by AF_XDP; homa-gso: by AF_PACKET in packets like TCP's (hijack), in super-frames that cross
the link whole, as TCP's do with TSO.
Copies of a byte: raw frames 2 by the sender (into the frame, into the kernel's packet) and 2 by the receiver (into the
ring, out of it); Homa the same (out of the ring into the message's pages, where it is read); TCP 1 and 1, with TSO.
";

#[cfg(test)]
mod tests {
    use super::super::cases::{Flow, cases};
    use super::super::probe::FlowProbe;
    use super::*;

    fn found(case: Case, value: f64) -> Found {
        let flow = FlowProbe { messages: 1, elapsed_s: 1.0, messages_per_s: value, request_gbps: value, errors: 0 };
        Found { case, rtt: None, flow: Some(flow) }
    }

    #[test]
    fn ratios_are_of_medians_of_the_same_case_with_another_transport() {
        let all = cases(&[Section::Throughput], 9000, 100);
        let mut rounds = Vec::new();
        for (case, value) in all.iter().zip([8.0, 4.0, 5.0, 12.0, 16.0, 20.0, 15.0, 18.0, 25.0, 30.0]) {
            rounds.extend([found(*case, value), found(*case, value * 100.0), found(*case, value / 100.0)]);
        }
        let rows = summarize(&rounds);
        assert_eq!(rows.len(), 10);
        assert_eq!((rows[1].median, rows[1].rounds, rows[1].range), (4.0, 3, [0.04, 400.0]));
        assert_eq!((rows[1].ratio_to_raw, rows[1].ratio_to_tcp), (Some(0.5), Some(0.25)));
        assert_eq!((rows[6].ratio_to_raw, rows[6].ratio_to_ipv4), (Some(0.75), None));
        assert_eq!(rows[0].ratio_to_raw, None, "not over itself");
        let text = table(&rows);
        assert!(text.contains("homa        4  1500 1000000"), "{text}");
    }

    #[test]
    fn ipv6_is_over_ipv4() {
        let flow = Some(Flow { length: 100, response: 100, outstanding: 64 });
        let v4 = Case { section: Section::Ipv6, transport: "homa", mtu: 9000, ipv6: false, flow };
        let rows = summarize(&[found(v4, 200.0), found(Case { ipv6: true, ..v4 }, 100.0)]);
        assert_eq!((rows[1].ratio_to_ipv4, rows[1].unit), (Some(0.5), "messages_per_s"));
    }
}
