//! Every analysis runs, in every form of output, on whole traffic and on what is left of it when nodes, halves or events are
//! missing.

use tthoma::analyze::{ALL, Analyzer, Options, Pkt, Run};
use tthoma::model::Model;
use tthoma::testing::{Scenario, Steps};

/// Three nodes; RPCs of one packet and of many, with grants; equal ids of two clients.
fn scenario() -> Scenario {
    let mut scenario = Scenario::new(3);
    let steps = Steps { unscheduled: 10_000, ..Steps::default() };
    for i in 0..40u32 {
        let at = f64::from(i) * 150.0;
        scenario.rpc(at, (0, 1), 1000 + 2 * i, (if i % 4 == 0 { 60_000 } else { 100 }, 1000), &steps);
        scenario.rpc(at + 40.0, (2, 1), 1000 + 2 * i, (700, if i % 5 == 0 { 40_000 } else { 100 }), &steps);
    }
    scenario
}

/// Options that let every analysis run.
fn everything() -> Options {
    Options {
        node: Some("node2".into()),
        core: Some(3),
        pid: Some(77),
        time: Some(700.0),
        pkt: Some(Pkt { id: 1000, offset: 5600 }),
        rpc: Some("node1:1000".into()),
        min: Some(0),
        max: Some(100_000),
        events: Some("unused".into()),
        data: Some("unused".into()),
        plot: Some("unused".into()),
        verbose: true,
        ..Options::default()
    }
}

fn run(scenario: &Scenario) -> Run {
    let options = everything();
    let model: Model = scenario.model(&options);
    let all: Vec<&'static dyn Analyzer> = ALL.to_vec();
    let run = Run::new(&model, &[], &all, &options);
    assert!(!run.to_text().is_empty() && !run.to_csv().is_empty());
    assert!(serde_json::to_string(&run).is_ok());
    for (about, table) in run.tables() {
        for row in &table.rows {
            assert_eq!(row.cells.len(), table.columns.len(), "{}/{}", about.name, table.name);
        }
        let mut keys: Vec<&str> = table.columns.iter().map(|c| c.key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), table.columns.len(), "{}/{}: columns have names of their own", about.name, table.name);
    }
    run
}

#[test]
fn every_analysis_of_the_events_that_are_there_runs_and_the_others_say_why_not() {
    let run = run(&scenario());
    let not_run: Vec<&str> = run.findings.iter().filter(|f| f.report.is_none()).map(|f| f.about.name).collect();
    // State dumps, locks, freed receive buffers, TCP and stopped queues: the traffic logs none of these.
    assert_eq!(not_run, ["bpages", "grantlock", "longterm", "rxbufs", "tcpdelay", "tcp_rpcs", "txqstop"]);
    for finding in run.findings.iter().filter(|f| f.report.is_none()) {
        assert!(
            finding.not_run.as_ref().is_some_and(|why| why.contains("the traces have no ")),
            "{:?}",
            finding.not_run
        );
    }
    for name in ["activity", "grants", "loss", "net", "nicbacklog", "ooo", "rpc", "rpcs", "rtt", "timeline", "txpkts"] {
        assert!(run.report(name).is_some_and(|r| r.has_results()), "{name}: {:?}", run.report(name));
    }
}

#[test]
fn nothing_fails_when_nodes_halves_or_events_are_missing() {
    let whole = scenario();
    for node in 0..3 {
        let mut without = whole.clone();
        without.remove(node, |_| true);
        // A node without events would be an empty file.
        without.event(node, 5.0, 0, "timetrace frozen");
        run(&without);
    }
    for word in
        ["homa_gro", "incoming data", "calling ip", "sent homa", "freeing", "sendmsg", "recvmsg", "grant", "found rpc"]
    {
        let mut without = whole.clone();
        let gone: usize = (0..3).map(|node| without.remove(node, |text| text.contains(word))).sum();
        assert!(gone > 0, "{word}");
        run(&without);
    }
    let mut nothing = Scenario::new(1);
    nothing.event(0, 1.0, 0, "homa_softirq starting");
    let run = run(&nothing);
    for finding in run.findings.iter().filter(|f| f.report.is_none()) {
        assert!(finding.not_run.as_ref().is_some_and(|why| why.contains("no ")), "{}", finding.about.name);
    }
}

/// No series is longer than a trace with that few events deserves, and why its steps are longer is said.
#[test]
fn clocks_that_jump_fill_no_memory() {
    let mut scenario = scenario();
    scenario.event(1, 8e12, 0, "timetrace frozen");
    let run = run(&scenario);
    let mut series = 0;
    for (about, table) in run.tables().into_iter().filter(|(_, t)| t.series) {
        assert!(table.rows.len() < 20_000, "{}/{}: {} rows", about.name, table.name, table.rows.len());
        series += 1;
    }
    assert!(series > 20, "{series}");
    let said = run.warnings().into_iter().filter(|w| w.contains("its time series have steps of")).count();
    assert_eq!(said, 1, "{:?}", run.warnings());
}
