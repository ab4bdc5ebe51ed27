//! The sample traces of the kernel module: figures that a separate program computed from the same files, and counts that
//! `grep -c` gives.

use std::path::PathBuf;

use tthoma::analyze::Options;
use tthoma::analyze::delay::{Report, Row, delay};
use tthoma::analyze::sync::sync;

fn samples(folder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../traces").join(folder)
}

fn report(folder: &str) -> Report {
    let report = delay(&[samples(folder)], &Options::default()).expect("the samples are readable");
    assert_eq!(report.warnings(), [""; 0]);
    assert_eq!(report.import.bad_lines, 0);
    report
}

/// Count, then min, P10, P50, P90, P99, max and mean in ns.
fn figures(row: &Row) -> (u64, [i64; 7]) {
    let Some(d) = row.distribution else { return (row.count, [0; 7]) };
    let ns = |us: f64| (us * 1000.0).round() as i64;
    (row.count, [d.min_us, d.p10_us, d.p50_us, d.p90_us, d.p99_us, d.max_us, d.avg_us].map(ns))
}

fn phase(report: &Report, group: &str, phase: &str) -> (u64, [i64; 7]) {
    figures(report.groups.get(group).unwrap().get(phase).unwrap())
}

#[test]
fn small_rpcs_have_the_delays_that_a_separate_program_found() {
    let report = report("kernel_100");
    assert_eq!(phase(&report, "short", "softirq"), (76, [80, 160, 381, 691, 1172, 1172, 408]));
    assert_eq!(phase(&report, "short", "total"), (76, [11282, 12623, 19314, 28528, 60696, 60696, 20005]));
    assert_eq!(phase(&report, "long", "total").0, 0);
    assert_eq!(
        report.groups.get("grants").unwrap().get("total").unwrap().missing_events,
        ["send_grant", "softirq_grant"]
    );
    let handoffs = |name: &str| report.handoffs.get(name).unwrap().count;
    assert_eq!((handoffs("softirq_to_sleeping"), handoffs("softirq_to_polling")), (76, 0));
    assert_eq!(report.handoffs.get("gro_to_softirq").unwrap().missing_events, ["gro_handoff"]);
    assert!(report.negatives.is_empty());
    // One request at the end of node0's trace is answered after it.
    let counts = |i: usize| {
        let n = &report.nodes[i];
        (n.data_sent, n.data_gro, n.grants_gro, n.control_gro, n.data_softirq)
    };
    assert_eq!((counts(0), counts(1)), ((39, 38, 0, 0, 38), (38, 38, 0, 0, 38)));
}

#[test]
fn a_large_rpc_has_the_delays_that_a_separate_program_found() {
    let report = report("kernel_500k");
    assert_eq!(phase(&report, "long", "softirq"), (706, [241, 290, 491, 2844, 27091, 29474, 1811]));
    assert_eq!(phase(&report, "long", "total"), (706, [4086, 5228, 24607, 88843, 264_316, 322_483, 41392]));
    assert_eq!(phase(&report, "grants", "softirq"), (151, [60, 2063, 5218, 13650, 1_169_725, 1_170_385, 71637]));
    assert_eq!(phase(&report, "grants", "total").0, 151);
    // Each of the 81 + 86 batches is found in SoftIRQ.
    let batches = report.handoffs.get("gro_to_softirq").unwrap();
    assert_eq!((batches.count, report.handoffs_excluded.batches_open), (167, 0));
    let counts = |i: usize| {
        let n = &report.nodes[i];
        (n.data_sent, n.data_gro, n.grants_sent, n.grants_gro, n.packets_softirq)
    };
    assert_eq!((counts(0), counts(1)), ((354, 353, 77, 74, 427), (353, 353, 74, 77, 430)));
}

#[test]
fn clocks_are_found_as_a_separate_program_found_them() {
    for (folder, min, max, offset) in
        [("kernel_100", 7268.733, 7291.137, 7279.935), ("kernel_500k", -1748.543, -1740.891, -1744.717)]
    {
        let report = sync(&[samples(folder)], &Options::default()).unwrap();
        let node = &report.clock.nodes[1];
        assert_eq!((node.min_us, node.max_us, node.offset_us), (Some(min), Some(max), Some(offset)), "{folder}");
        assert!(report.clock.pairs.iter().all(|p| p.min_delay_us > Some(0.0)));
    }
}
