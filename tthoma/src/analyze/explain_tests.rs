use super::*;
use crate::testing::{Scenario, Steps};

fn run(scenario: &Scenario, rpc: &str, top: usize) -> Report {
    let options = Options { rpc: Some(rpc.into()), top, ..Options::default() };
    Explain.run(&scenario.model(&options), &options)
}

/// Sum of all steps and of those that `held_by` names.
fn sums(table: &Table, held_by: &str) -> (f64, f64) {
    let mut sums = (0.0, 0.0);
    for row in 0..table.rows.len() - 1 {
        let took = table.get(row, "took_us").number().unwrap();
        sums.0 += took;
        sums.1 += if table.get(row, "held_by").plain() == held_by { took } else { 0.0 };
    }
    (sums.0, sums.1)
}

/// Fifty RPCs between synchronised nodes, each as fast as the other.
fn scenario(lengths: (u32, u32)) -> (Scenario, f64) {
    let mut scenario = Scenario::new(2);
    let mut took = 0.0;
    for i in 0..50 {
        let at = f64::from(i) * 1000.0;
        took = scenario.rpc(at, (0, 1), 100 + 2 * i, lengths, &Steps { unscheduled: 11_200, ..Steps::default() }) - at;
    }
    (scenario, took)
}

#[test]
fn the_steps_add_up_to_the_time_of_the_call() {
    for lengths in [(100, 100), (20_000, 100), (100, 60_000), (60_000, 60_000)] {
        let (scenario, took) = scenario(lengths);
        let report = run(&scenario, "node1:120", 1);
        let [table, _] = &report.tables[..] else { panic!("{:?}", report.warnings) };
        let (sum, service) = sums(table, "application (service)");
        assert!((sum - took).abs() < 0.0015, "{lengths:?}: {sum}, not {took}\n{}", table.to_text());
        assert!((service - 3.0).abs() < 0.0015, "{}", table.to_text());
        let total = table.rows.len() - 1;
        assert!((table.get(total, "took_us").number().unwrap() - took).abs() < 0.0015);
        assert_eq!(sums(table, "unknown").1, 0.0, "everything is explained: {}", table.to_text());
        let network = sums(table, "network, switches, interrupt").1;
        assert!((network - 10.0).abs() < 2.0, "two times 5 us and what segments add: {}", table.to_text());
    }
}

#[test]
fn a_wait_for_a_grant_is_seen_with_the_way_of_the_grant() {
    let (scenario, _) = scenario((60_000, 100));
    let report = run(&scenario, "121", 1);
    let table = &report.tables[0];
    let (_, grant) = sums(table, "network, of the grant");
    // From the decision to grant to the NIC, and from there to GRO.
    let rounds = (grant / 5.5).round();
    assert!(rounds >= 1.0 && (grant - 5.5 * rounds).abs() < 0.01, "{}", table.to_text());
    let first =
        (0..table.rows.len()).find(|r| table.get(*r, "held_by").plain() == "SoftIRQ queue, of the grant").unwrap();
    assert_eq!(table.get(first, "took_us"), &2.75.into(), "hold, wake, process: {}", table.to_text());
    let held = &report.tables[1];
    let row = held.rows.iter().position(|r| r.cells[2].plain() == "network, of the grant").unwrap();
    assert!((held.get(row, "took_us").number().unwrap() - grant).abs() < 0.01, "{}", held.to_text());
}

#[test]
fn the_slowest_is_found_with_the_queue_that_held_it() {
    let mut scenario = Scenario::new(2);
    for i in 0..60 {
        let steps = if i == 37 { Steps { wake: 300.0, ..Steps::default() } } else { Steps::default() };
        scenario.rpc(f64::from(i) * 1000.0, (0, 1), 100 + 2 * i, (100, 100), &steps);
        // Long ones are not slow by being long.
        scenario.rpc(f64::from(i) * 1000.0 + 800.0, (0, 1), 1000 + 2 * i, (500_000, 100), &Steps::default());
    }
    let report = run(&scenario, "slow", 1);
    assert_eq!(report.tables.len(), 2);
    let table = &report.tables[0];
    assert_eq!(table.name, "rpc_node1_174");
    assert!((sums(table, "wake-up of SoftIRQ").1 - 600.0).abs() < 0.01, "{}", table.to_text());
    assert!(
        report.notes[0].contains("300.000 us on node") && report.notes[0].ends_with("wake-up of SoftIRQ"),
        "{:?}",
        report.notes
    );
    assert_eq!(run(&scenario, "slow", 3).tables.len(), 6);
}

#[test]
fn what_a_trace_cuts_off_is_not_the_slowest() {
    let (mut scenario, _) = scenario((100, 60_000));
    // The first parts of a response that comes in full after the trace's end, much later than others did.
    scenario.rpc(60_000.0, (0, 1), 500, (100, 60_000), &Steps { wake: 900.0, ..Steps::default() });
    scenario.event(0, 62_000.0, 1, "copied out bytes 0-28480 for id 500");
    assert_eq!(run(&scenario, "slow", 1).tables[0].name, "rpc_node1_500");
    scenario.remove(0, |m| m.contains("id 500") && (m.contains("recvmsg returning") || m.contains("homa_rpc_end")));
    let report = run(&scenario, "slow", 1);
    assert_ne!(report.tables[0].name, "rpc_node1_500");
    assert!(report.notes.iter().any(|n| n.starts_with("1 RPC is not compared")), "{:?}", report.notes);
    let warning = run(&scenario, "500", 1).warnings.concat();
    assert_eq!(warning, "explain: of node1:500 the call or its return is not in the trace");
}

#[test]
fn a_packet_that_was_sent_again_says_so() {
    let mut scenario = Scenario::new(2);
    for i in 0..10 {
        scenario.rpc(f64::from(i) * 1000.0, (0, 1), 100 + 2 * i, (100, 100), &Steps::default());
    }
    // RPC 200: the first transmission is lost, the second one arrives.
    let (server, client) = (Scenario::address(1), Scenario::address(0));
    let at = 20_000.0;
    scenario.event(0, at, 1, format!("homa_sendmsg request, target {server}:4000, id 200, length 100"));
    for (at, again) in [(at + 1.0, false), (at + 500.0, true)] {
        if again {
            scenario.event(0, at, 1, "retransmitting offset 0, length 100, id 200");
        }
        scenario.event(0, at, 1, format!("calling ip_queue_xmit: wire_bytes 218, peer {server}, id 200, offset 0"));
    }
    scenario.event(1, at + 505.0, 2, format!("homa_gro_receive got packet from {client} id 201, offset 0, priority 5"));
    scenario.event(1, at + 506.0, 3, format!("incoming data packet, id 201, peer {client}, offset 0/100"));
    scenario.event(1, at + 508.0, 1, "homa_recvmsg returning status 0, id 201");
    scenario.message(at + 510.0, (1, 0), 201, 100, &Steps::default());
    let report = run(&scenario, "200", 1);
    let table = &report.tables[0];
    let (sum, lost) = sums(table, "loss");
    let total = table.get(table.rows.len() - 1, "took_us").number().unwrap();
    assert!((lost - 499.0).abs() < 0.01 && (sum - total).abs() < 0.0015, "{}", table.to_text());
}

#[test]
fn what_is_missing_makes_steps_longer_and_the_sum_stays() {
    let (mut scenario, took) = scenario((20_000, 100));
    for node in [0, 1] {
        scenario.remove(node, |m| {
            m.contains("homa_softirq starting") || m.contains("via ice") || m.contains("handing off")
        });
    }
    let report = run(&scenario, "120", 1);
    let table = &report.tables[0];
    assert!((sums(table, "").0 - took).abs() < 0.0015, "{}", table.to_text());
    assert!(table.to_text().contains("not in the trace"), "{}", table.to_text());
    // Without the server's trace, its part is one step.
    let mut alone = Scenario::new(1);
    let server = Scenario::address(1);
    alone.event(0, 0.0, 1, format!("homa_sendmsg request, target {server}:4000, id 120, length 100"));
    alone.event(0, 1.0, 1, format!("calling ip_queue_xmit: wire_bytes 218, peer {server}, id 120, offset 0"));
    alone.event(0, 30.0, 2, format!("homa_gro_receive got packet from {server} id 120, offset 0, priority 5"));
    alone.event(0, 31.0, 3, format!("incoming data packet, id 120, peer {server}, offset 0/100"));
    alone.event(0, 32.0, 1, "homa_recvmsg returning status 0, id 120");
    let report = run(&alone, "120", 1);
    assert!(report.notes.iter().any(|n| n.contains("the server's trace is missing")), "{:?}", report.notes);
    assert!((sums(&report.tables[0], "").0 - 32.0).abs() < 0.0015, "{}", report.tables[0].to_text());
}

#[test]
fn unknown_rpcs_are_named_and_so_is_what_to_do() {
    let (scenario, _) = scenario((100, 100));
    let warning = |rpc: &str| run(&scenario, rpc, 1).warnings.concat();
    assert_eq!(warning("9998"), "explain: no client's trace has RPC 9998");
    assert_eq!(warning("node9:100"), "explain: no node `node9`: the traces have node1, node2");
    assert_eq!(warning("fast"), "explain: `fast` is no RPC: expected its id, CLIENT:ID, or `slow`");
    let mut both = Scenario::new(2);
    both.rpc(0.0, (0, 1), 100, (100, 100), &Steps::default());
    both.rpc(500.0, (1, 0), 100, (100, 100), &Steps::default());
    both.rpc(900.0, (1, 0), 102, (100, 100), &Steps::default());
    let warning = run(&both, "100", 1).warnings.concat();
    assert_eq!(warning, "explain: several clients used id 100: name one, as node1:100 or node2:100");
}
