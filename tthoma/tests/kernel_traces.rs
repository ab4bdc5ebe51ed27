//! The sample traces of the kernel module: figures that a separate program computed from the same files, and counts that
//! `grep -c` gives.

use std::path::PathBuf;

use tthoma::analyze::{self, Options, Run};

fn samples(folder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../traces").join(folder)
}

fn report(folder: &str) -> Run {
    let run = analyze::run(&["delay"], &[samples(folder)], &Options::default()).expect("the samples are readable");
    assert_eq!(run.warnings(), [""; 0]);
    assert_eq!(run.import.bad_lines, 0);
    run
}

/// Count, then min, P10, P50, P90, P99, max and mean in ns, of the row that begins with `names`.
fn figures(run: &Run, table: &str, names: &[&str]) -> (u64, [i64; 7]) {
    let table = run.report("delay").unwrap().table(table).unwrap();
    let row = table.find(names).unwrap_or_else(|| panic!("no row {names:?}"));
    let ns = |key| table.get(row, key).number().map_or(0, |us: f64| (us * 1000.0).round() as i64);
    let count = table.get(row, "count").number().unwrap_or(0.0) as u64;
    (count, ["min_us", "p10_us", "p50_us", "p90_us", "p99_us", "max_us", "avg_us"].map(ns))
}

fn phase(run: &Run, group: &str, phase: &str) -> (u64, [i64; 7]) {
    let group = match group {
        "short" => "Data packets from messages <= 1000 bytes",
        "long" => "Data packets from messages > 1000 bytes",
        other => other,
    };
    figures(run, "phases", &[group, phase])
}

/// Why the row that begins with `names` is empty.
fn note(run: &Run, table: &str, names: &[&str]) -> String {
    let table = run.report("delay").unwrap().table(table).unwrap();
    table.rows[table.find(names).unwrap()].note.clone().unwrap()
}

#[test]
fn small_rpcs_have_the_delays_that_a_separate_program_found() {
    let report = report("kernel_100");
    assert_eq!(phase(&report, "short", "SoftIRQ"), (76, [80, 160, 381, 691, 1172, 1172, 408]));
    assert_eq!(phase(&report, "short", "Total"), (76, [11282, 12623, 19314, 28528, 60696, 60696, 20005]));
    assert_eq!(phase(&report, "long", "Total").0, 0);
    assert_eq!(note(&report, "phases", &["Grants", "Total"]), "the traces have no send_grant, softirq_grant");
    let handoffs = |name: &str| figures(&report, "handoffs", &[name]).0;
    assert_eq!((handoffs("SoftIRQ to sleeping app"), handoffs("SoftIRQ to polling app")), (76, 0));
    assert_eq!(note(&report, "handoffs", &["GRO to SoftIRQ"]), "the traces have no gro_handoff");
    assert!(report.report("delay").unwrap().table("negatives").is_none());
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
    assert_eq!(phase(&report, "long", "SoftIRQ"), (706, [241, 290, 491, 2844, 27091, 29474, 1811]));
    assert_eq!(phase(&report, "long", "Total"), (706, [4086, 5228, 24607, 88843, 264_316, 322_483, 41392]));
    assert_eq!(phase(&report, "Grants", "SoftIRQ"), (151, [60, 2063, 5218, 13650, 1_169_725, 1_170_385, 71637]));
    assert_eq!(phase(&report, "Grants", "Total").0, 151);
    // Each of the 81 + 86 batches is found in SoftIRQ.
    assert_eq!(figures(&report, "handoffs", &["GRO to SoftIRQ"]).0, 167);
    let excluded = report.report("delay").unwrap().table("excluded");
    assert!(excluded.is_none_or(|t| t.rows.iter().all(|r| !r.cells[1].plain().contains("batches"))));
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
        let report = analyze::run(&["sync"], &[samples(folder)], &Options::default()).unwrap();
        let node = &report.clock.nodes[1];
        assert_eq!((node.min_us, node.max_us, node.offset_us), (Some(min), Some(max), Some(offset)), "{folder}");
        assert!(report.clock.pairs.iter().all(|p| p.min_delay_us > Some(0.0)));
    }
}
