use super::*;
use crate::testing::Scenario;

/// Events of packet `i` from the time `first` on: GRO at `at` and hand-off at once on core 2, processed on core 3 `wake` us
/// later.
fn packet(scenario: &mut Scenario, first: f64, at: f64, i: u32, wake: f64) {
    let id = 11 + 2 * i;
    let peer = Scenario::address(1);
    let events = [
        (at, 2, format!("homa_gro_receive got packet from {peer} id {id}, offset 0, priority 5")),
        (at, 2, format!("homa_gro_gen3 chose core 3 for id {id}, offset 0, delta 1")),
        (at + wake, 3, "homa_softirq starting".into()),
        (at + wake, 3, format!("incoming data packet, id {id}, peer {peer}, offset 0/100")),
    ];
    for (at, core, message) in events.into_iter().filter(|(at, ..)| *at >= first) {
        scenario.event(0, at, core, message);
    }
}

/// One batch each 10 us with a constant wake-up of 1000 us, the backlog being there before the trace begins: the first
/// 100 batches have no hand-off in it.
pub(crate) fn backlog_before_the_trace() -> Scenario {
    let mut scenario = Scenario::new(1);
    for i in 0..1100 {
        packet(&mut scenario, 995.0, f64::from(i) * 10.0, i, 1000.0);
    }
    scenario
}

fn run(scenario: &Scenario) -> Report {
    let options = Options { verbose: true, ..Options::default() };
    SoftirqDelay.run(&scenario.model(&options), &options)
}

fn row<'a>(report: &'a Report, table: &str, start: &[&str]) -> impl Fn(&str) -> &'a Cell + use<'a> {
    let table = report.table(table).unwrap();
    let row = table.find(start).unwrap_or_else(|| panic!("no row {start:?} in {}", table.to_text()));
    move |key| table.get(row, key)
}

#[test]
fn a_backlog_before_the_trace_does_not_hide_the_delay() {
    let report = run(&backlog_before_the_trace());
    let handoff = row(&report, "handoffs", &["node1", "other"]);
    assert_eq!(handoff("count"), &1000.into(), "batches from 1000 us on");
    for key in ["min_us", "p50_us", "p99_us", "p99_9_us", "max_us", "avg_us"] {
        assert_eq!(handoff(key), &1000.0.into(), "{key}");
    }
    // The original pairs each invocation with a batch that is 100 batches too young.
    assert_eq!(row(&report, "handoffs", &["node1", "legacy"])("p50_us"), &10.0.into());
    let phase = |name: &'static str| row(&report, "phases", &["node1", "short", name]);
    assert_eq!(phase("Queue")("p50_us"), &990.0.into(), "until the invocation before ended");
    assert_eq!(phase("Wake")("p50_us"), &10.0.into());
    assert_eq!(phase("Total")("p50_us"), &1000.0.into());
    assert_eq!(row(&report, "left_out", &["node1"])("left_open"), &100.into());
}

#[test]
fn packets_that_bypass_the_handoff_steal_nothing() {
    let mut scenario = Scenario::new(1);
    for i in 0..1000 {
        let at = f64::from(i) * 100.0;
        packet(&mut scenario, 0.0, at, 2 * i, 20.0);
        if i % 2 == 0 {
            // 5 us after the hand-off the target core's own GRO processes a packet at once.
            let (id, peer) = (13 + 4 * i, Scenario::address(1));
            scenario.event(
                0,
                at + 4.9,
                3,
                format!("homa_gro_receive got packet from {peer} id {id}, offset 0, priority 5"),
            );
            scenario.event(0, at + 5.0, 3, "homa_softirq starting");
            scenario.event(0, at + 5.1, 3, format!("incoming data packet, id {id}, peer {peer}, offset 0/100"));
        }
    }
    let report = run(&scenario);
    let handoff = row(&report, "handoffs", &["node1", "other"]);
    for key in ["min_us", "p10_us", "p50_us", "max_us", "avg_us"] {
        assert_eq!(handoff(key), &20.0.into(), "{key}");
    }
    assert_eq!(row(&report, "handoffs", &["node1", "legacy"])("min_us"), &5.0.into());
    assert_eq!(row(&report, "phases", &["node1", "short", "Bypass"])("count"), &500.into());
    assert_eq!(row(&report, "phases", &["node1", "short", "Total"])("count"), &1000.into());
}

#[test]
fn the_phases_of_each_packet_add_up_to_its_total() {
    let mut scenario = Scenario::new(2);
    for i in 0..50 {
        let steps = crate::testing::Steps { unscheduled: 11_200, ..Default::default() };
        scenario.rpc(f64::from(i) * 40.0, (0, 1), 100 + 2 * i, (20_000, 300), &steps);
    }
    let model = scenario.model(&Options::default());
    let mut seen = 0;
    for wait in model.queues().iter().flat_map(|q| &q.waits) {
        let Some(p) = wait.phases() else { continue };
        assert_eq!(p.hold + p.queue + p.wake + p.process, wait.softirq - wait.gro, "{wait:?}");
        assert!(p.hold >= 0 && p.queue >= 0 && p.wake >= 0 && p.process >= 0, "{wait:?}");
        seen += 1;
    }
    // 15 packets of a request, one of a response, grants of three frames.
    assert_eq!(seen, 50 * (15 + 1 + 2));
}

#[test]
fn what_is_empty_is_said_and_not_zero() {
    let mut scenario = Scenario::new(1);
    scenario.event(0, 1.0, 2, "homa_gro_receive got packet from 0xb id 11, offset 0, priority 5");
    let report = run(&scenario);
    assert_eq!(row(&report, "left_out", &["node1"])("open"), &1.into());
    assert!(report.table("phases").unwrap().rows.is_empty(), "nothing is known of its message");
}
