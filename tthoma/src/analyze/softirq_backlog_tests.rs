use super::super::softirq_delay::tests::backlog_before_the_trace;
use super::*;
use crate::testing::{Scenario, Steps};

fn run(scenario: &Scenario, options: &Options) -> Report {
    SoftirqBacklog.run(&scenario.model(options), options)
}

fn row<'a>(report: &'a Report, table: &str, start: &[&str]) -> impl Fn(&str) -> &'a Cell + use<'a> {
    let table = report.table(table).unwrap();
    let row = table.find(start).unwrap_or_else(|| panic!("no row {start:?} in {}", table.to_text()));
    move |key| table.get(row, key)
}

#[test]
fn a_backlog_of_a_hundred_packets_is_found_with_its_age() {
    let options = Options { data: Some("unused".into()), ..Options::default() };
    let report = run(&backlog_before_the_trace(), &options);
    let core = row(&report, "cores", &["node1", "3"]);
    assert_eq!(core("max_pk"), &100.into());
    assert_eq!(core("p50_pk"), &100.into());
    assert_eq!(core("max_age_us"), &1000.0.into());
    assert_eq!((core("left_open"), core("open"), core("dropped")), (&100.into(), &0.into(), &0.into()));
    let episodes = report.table("episodes").unwrap();
    assert_eq!(episodes.rows.len(), 1, "{}", episodes.to_text());
    assert_eq!(episodes.get(0, "gro_cores"), &"2:100%".into());
    let series = report.tables.iter().find(|t| t.series).unwrap();
    // In the middle: 5000 us after the begin, that is 100 steps.
    assert_eq!((series.get(100, "pk3"), series.get(100, "tot_pk")), (&100.into(), &100.into()));
}

#[test]
fn mean_length_times_window_is_the_sum_of_waits() {
    let mut scenario = Scenario::new(2);
    let steps = Steps { unscheduled: 11_200, ..Steps::default() };
    for i in 0..40 {
        scenario.rpc(f64::from(i) * 30.0, (0, 1), 100 + 2 * i, (30_000, 2_000), &steps);
    }
    let model = scenario.model(&Options::default());
    let report = SoftirqBacklog.run(&model, &Options::default());
    for (node, name) in model.hosts.nodes.iter().enumerate() {
        let (first, last) = model.traces[node].span.unwrap();
        let waits: i64 = model.queues()[node].waits.iter().map(|w| w.softirq - w.gro).sum();
        let mean = row(&report, "cores", &[name, "3"])("avg_pk").number().unwrap();
        let error = mean * (last - first) as f64 - waits as f64;
        assert!(waits > 0 && error.abs() < 1.0, "{name}: {mean} packets in {} ns, {waits} ns of waits", last - first);
    }
}

#[test]
fn each_kind_of_episode_has_its_cause() {
    let mut scenario = Scenario::new(1);
    let peer = Scenario::address(1);
    let mut id = 11;
    // Ten packets at `at`, handed off to core 3, processed one each 50 us from `at + delay` on.
    let mut burst = |at: f64, delay: f64| {
        let first = id;
        for _ in 0..10 {
            scenario.event(0, at, 2, format!("homa_gro_receive got packet from {peer} id {id}, offset 0, priority 5"));
            id += 2;
        }
        scenario.event(0, at, 2, format!("homa_gro_gen3 chose core 3 for id {first}, offset 0, delta 1"));
        scenario.event(0, at + delay, 3, "homa_softirq starting");
        for i in 0..10 {
            let (at, id) = (at + delay + f64::from(i) * 50.0, first + 2 * i);
            scenario.event(0, at, 3, format!("incoming data packet, id {id}, peer {peer}, offset 0/100"));
        }
    };
    burst(0.0, 1.0);
    burst(10_000.0, 1500.0);
    scenario.event(0, 20_000.0, 3, "homa_softirq starting");
    let report = run(&scenario, &Options::default());
    let table = report.table("episodes").unwrap();
    let causes: Vec<_> = (0..table.rows.len()).map(|i| (table.get(i, "max_pk"), table.get(i, "cause"))).collect();
    assert_eq!(causes, [(&10.into(), &"preempted".into()), (&8.into(), &"overload".into())], "{}", table.to_text());
    // Without a limit of age, the number of packets makes an episode.
    let by_length = Options { backlog_age: 1e9, backlog_pkts: Some(10), ..Options::default() };
    let table = run(&scenario, &by_length);
    let table = table.table("episodes").unwrap();
    assert_eq!(table.get(0, "start_us"), &10_000.0.into());
    assert_eq!(table.get(1, "dur_us"), &251.0.into(), "until fewer than 5 wait: {}", table.to_text());
}

#[test]
fn a_ring_is_part_of_the_queue_if_asked() {
    let mut scenario = Scenario::new(1);
    scenario.event(0, 0.0, 0, "homa_softirq starting");
    scenario.event(0, 9.0, 0, "homa_gro_receive got packet from 0xb id 11, offset 0, priority 1");
    scenario.event(0, 9.0, 0, "afp ring wait 7000 ns for id 11, offset 0");
    scenario.event(0, 9.5, 0, "homa_softirq starting");
    scenario.event(0, 10.0, 0, "incoming data packet, id 11, peer 0xb, offset 0/100");
    let age = |from| {
        let report = run(&scenario, &Options { from, ..Options::default() });
        let age = row(&report, "cores", &["node1"])("max_age_us").number().unwrap_or(0.0);
        (age, report.notes.len())
    };
    assert_eq!(age(From::Gro), (1.0, 1));
    assert_eq!(age(From::Ring), (8.0, 0));
    assert!(
        run(&scenario, &Options { from: From::Handoff, ..Options::default() }).table("cores").unwrap().rows.is_empty()
    );
}

#[test]
fn nothing_to_say_is_no_crash() {
    let mut scenario = Scenario::new(1);
    scenario.event(0, 1.0, 2, "homa_gro_receive got packet from 0xb id 11, offset 0, priority 5");
    let report = run(&scenario, &Options::default());
    assert_eq!(row(&report, "cores", &["node1", "?"])("open"), &1.into());
    assert_eq!(row(&report, "cores", &["node1", "?"])("avg_pk"), &Cell::None, "no time passes in this trace");
}
