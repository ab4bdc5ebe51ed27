//! From the rounds of all transports to one row each.

use std::fmt::Write as _;

use serde::Serialize;

use super::cases::TRANSPORTS;
use super::probe::Probe;
use crate::cli::RunArgs;

/// Figures of one transport: medians over rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    transport: &'static str,
    rounds: usize,
    rtt_p50_ns: u64,
    rtt_p99_ns: u64,
    rtt_p999_ns: u64,
    rtt_min_ns: u64,
    /// P50 over that of `raw-ring`; null if that is missing.
    ratio_to_floor: Option<f64>,
    /// P50 over that of `tcp-spin`; null if that is missing.
    ratio_to_tcp_spin: Option<f64>,
    /// Smallest and largest P50 of a round: how far to trust the median.
    rtt_p50_range_ns: [u64; 2],
}

/// One row for each transport that has a round.
pub(super) fn summarize(found: &[Probe]) -> Vec<Row> {
    let p50 = |transport: &str| median(found, transport, |probe| probe.rtt_p50_ns);
    let (floor, tcp) = (p50("raw-ring"), p50("tcp-spin"));
    let row = |transport: &'static str| {
        let middle = |field: fn(&Probe) -> f64| median(found, transport, field);
        let of: Vec<_> = found.iter().filter(|probe| probe.transport == transport).collect();
        let mid = p50(transport)?;
        let ends = of.iter().map(|probe| probe.rtt_p50_ns);
        Some(Row {
            transport,
            rounds: of.len(),
            rtt_p50_ns: mid.round() as u64,
            rtt_p99_ns: middle(|probe| probe.rtt_p99_ns)?.round() as u64,
            rtt_p999_ns: middle(|probe| probe.rtt_p999_ns)?.round() as u64,
            rtt_min_ns: middle(|probe| probe.rtt_min_ns)?.round() as u64,
            ratio_to_floor: floor.map(|floor| mid / floor),
            ratio_to_tcp_spin: tcp.map(|tcp| mid / tcp),
            rtt_p50_range_ns: [ends.clone().fold(f64::INFINITY, f64::min) as u64, ends.fold(0.0, f64::max) as u64],
        })
    };
    TRANSPORTS.into_iter().filter_map(row).collect()
}

/// Median over the rounds of a transport; of an even number the upper one.
fn median(found: &[Probe], transport: &str, field: impl Fn(&Probe) -> f64) -> Option<f64> {
    let mut values: Vec<_> = found.iter().filter(|probe| probe.transport == transport).map(field).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// For people.
pub(super) fn table(rows: &[Row], options: &RunArgs, cores: [usize; 2]) -> String {
    let (length, rounds) = (options.length, options.rounds);
    let mut text = format!(
        "Round-trip times of {length} bytes without load, us; client on core {}, server on core {}; medians of {rounds} rounds\n",
        cores[0], cores[1]
    );
    text += "  transport       P50      P99    P99.9      min    x floor  x TCP spin   P50 of rounds\n";
    for row in rows {
        let usecs = |ns: u64| ns as f64 / 1000.0;
        let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let _ = writeln!(
            text,
            "  {:<10} {:>8.2} {:>8.2} {:>8.2} {:>8.2}   {:>8}    {:>8}   {:.2}-{:.2}",
            row.transport,
            usecs(row.rtt_p50_ns),
            usecs(row.rtt_p99_ns),
            usecs(row.rtt_p999_ns),
            usecs(row.rtt_min_ns),
            ratio(row.ratio_to_floor),
            ratio(row.ratio_to_tcp_spin),
            usecs(row.rtt_p50_range_ns[0]),
            usecs(row.rtt_p50_range_ns[1]),
        );
    }
    text += "floor: raw-ring, a packet ring without any protocol. homa: by AF_PACKET; homa-xdp: by AF_XDP. *-spin: both ends poll.\n\
         tcp-block: both ends sleep.\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(transport: &str, rtt_p50_ns: f64) -> Probe {
        Probe {
            transport: transport.to_owned(),
            count: 10,
            rtt_p50_ns,
            rtt_p99_ns: rtt_p50_ns * 2.0,
            rtt_p999_ns: rtt_p50_ns * 3.0,
            rtt_min_ns: rtt_p50_ns / 2.0,
            errors: 0,
        }
    }

    #[test]
    fn figures_are_medians_over_rounds_and_ratios_are_of_medians() {
        let found = [
            probe("raw-ring", 10_000.0),
            probe("raw-ring", 90_000.0),
            probe("raw-ring", 12_000.0),
            probe("homa", 18_000.0),
            probe("tcp-spin", 24_000.0),
        ];
        let rows = summarize(&found);
        assert_eq!(rows.iter().map(|row| row.transport).collect::<Vec<_>>(), ["raw-ring", "homa", "tcp-spin"]);
        assert_eq!((rows[0].rtt_p50_ns, rows[0].rounds), (12_000, 3));
        assert_eq!(rows[0].rtt_p50_range_ns, [10_000, 90_000]);
        assert_eq!((rows[1].ratio_to_floor, rows[1].ratio_to_tcp_spin), (Some(1.5), Some(0.75)));
        assert_eq!(rows[1].rtt_p99_ns, 36_000);
    }

    #[test]
    fn a_missing_reference_gives_no_ratio() {
        let rows = summarize(&[probe("homa", 1000.0)]);
        assert_eq!((rows[0].ratio_to_floor, rows[0].ratio_to_tcp_spin), (None, None));
        assert!(summarize(&[]).is_empty());
    }
}
