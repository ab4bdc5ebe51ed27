//! Tests on traces whose delays are known.

use super::super::Run;
use super::*;
use crate::testing::traces;

/// What was found, and the run with its tables.
struct Found {
    delays: Delays,
    run: Run,
}

impl std::ops::Deref for Found {
    type Target = Delays;

    fn deref(&self) -> &Delays {
        &self.delays
    }
}

fn found(model: &Model, options: &Options) -> Found {
    Found { delays: Delays::find(model, options), run: Run::new(model, &[], &[&Delay], options) }
}

fn report_of(nodes: &[(&str, &str)], options: Options) -> Found {
    found(&Model::new(traces(nodes), &options), &options)
}

fn report(nodes: &[(&str, &str)]) -> Found {
    report_of(nodes, Options { verbose: true, ..Options::default() })
}

/// (count, min, p50, max) of a row.
fn figures(row: &Row) -> (u64, f64, f64, f64) {
    row.distribution.map_or((row.count, 0.0, 0.0, 0.0), |d| (row.count, d.min_us, d.p50_us, d.max_us))
}

fn phase(report: &Found, group: &str, phase: &str) -> (u64, f64, f64, f64) {
    figures(report.groups.get(group).unwrap().get(phase).unwrap())
}

/// An exchange of `n` RPCs of 100 bytes, one every 100 us: node `a` calls `b`, whose clock is `ahead`. Each packet spends
/// 1 us in Xmit, 5 in Net (of it 0.5 in the ring) and 2 in SoftIRQ, and is free 7 us after the NIC had it.
fn exchange(n: u32, ahead: f64) -> [String; 2] {
    let mut nodes = [String::new(), String::new()];
    let way = |out: &mut [String; 2], from: usize, at: f64, id: u32| {
        let to = 1 - from;
        let clock = [0.0, ahead];
        let (sent, received) = (at + clock[from], at + clock[to]);
        let (peer, here) = (["0xb", "0xa"][from], ["0xb", "0xa"][to]);
        let start = if from == 0 {
            format!("homa_sendmsg request, target {peer}:4000, id {id}, length 100")
        } else {
            format!("homa_sendmsg response, id {id}, port 4000, pid 7, length 100")
        };
        out[from] += &format!(
            "{sent:.3} {start}
             {sent:.3} calling ip_queue_xmit: wire_bytes 218, peer {peer}, id {id}, offset 0
             {:.3} sent homa data packet via afp to {peer}, id {id}, offset 0, queue 0x0\n",
            sent + 1.0
        );
        out[to] += &format!(
            "{:.3} homa_gro_receive got packet from {here} id {1}, offset 0, priority 5
             {0:.3} afp ring wait 500 ns for id {1}, offset 0
             {2:.3} incoming data packet, id {1}, peer {here}, offset 0/100\n",
            received + 6.0,
            id ^ 1,
            received + 8.0,
        );
        out[from] +=
            &format!("{:.3} freeing tx skb for homa data, id {id}, offset 0, qid 0, msg_length 100\n", sent + 8.0);
    };
    for i in 0..n {
        let at = f64::from(i) * 100.0;
        way(&mut nodes, 0, at, 1000 + 2 * i);
        way(&mut nodes, 1, at + 20.0, 1001 + 2 * i);
    }
    nodes
}

#[test]
fn known_delays_are_found_whatever_the_clocks() {
    for ahead in [0.0, 5000.0, -12.5, 30_104_500.0] {
        let [a, b] = exchange(200, ahead);
        let report = report(&[("node1", &a), ("node2", &b)]);
        for (name, us) in [("xmit", 1.0), ("net", 5.0), ("ring", 0.5), ("softirq", 2.0), ("free", 7.0), ("total", 8.0)]
        {
            assert_eq!(phase(&report, "short", name), (400, us, us, us), "{name} {ahead}");
        }
        assert!(report.negatives.is_empty());
        assert_eq!(report.excluded, Excluded::default());
        // The way to the ring takes 5.5 us both ways, and its time may be wrong by 1: the error is half the sum of both.
        assert_eq!(report.run.clock.nodes[1].error_us, Some(6.5));
        assert_eq!(report.run.clock.nodes[1].offset_us, Some(-ahead));
        let node = &report.run.nodes[0];
        assert_eq!((node.data_sent, node.packets_gro, node.packets_softirq), (200, 200, 200));
        assert_eq!(report.breakdown.get("short").unwrap().phases.get("net").unwrap().p50_us, 5.0);
        assert_eq!(report.slowest.iter().filter(|s| s.phase == Some("total") && s.group == "short").count(), 20);
    }
}

#[test]
fn phases_without_their_events_say_which_are_missing() {
    let [a, b] = exchange(3, 0.0);
    let without = |text: &str| {
        let keep = |l: &&str| !l.contains("via afp") && !l.contains("freeing") && !l.contains("ring wait");
        text.lines().filter(keep).collect::<Vec<_>>().join("\n")
    };
    let report = report(&[("node1", &without(&a)), ("node2", &without(&b))]);
    let short = report.groups.get("short").unwrap();
    assert_eq!(short.get("xmit").unwrap().missing_events, ["nic_data"]);
    assert_eq!(short.get("free").unwrap().missing_events, ["nic_data", "free_tx_skb"]);
    assert!(short.get("ring").is_none(), "no row for what only some stacks log");
    assert_eq!(short.get("total").unwrap().count, 6);
    let table = report.run.to_text();
    assert!(table.contains("  the traces have no nic_data\n"), "{table}");
    assert!(table.contains("  the traces have no rpc_handoff, wait_found_rpc\n"));
    let json = serde_json::to_value(&report.run).unwrap();
    let rows = &json["analyses"]["delay"]["tables"]["phases"]["rows"];
    let wanted = serde_json::json!({
        "group": "Data packets from messages <= 1000 bytes", "phase": "Xmit", "count": null, "min_us": null, "p10_us": null,
        "p50_us": null, "p90_us": null, "p99_us": null, "max_us": null, "avg_us": null,
        "note": "the traces have no nic_data",
    });
    assert_eq!(rows[0], wanted);
    assert_eq!((rows[4]["phase"].as_str(), rows[4]["p50_us"].as_f64()), (Some("Total"), Some(8.0)));
    assert_eq!((json["version"].as_i64(), json["nodes"][1]["data_gro"].as_i64()), (Some(2), Some(3)));
}

#[test]
fn negative_delays_are_kept_and_reported_once() {
    // The way to node2 takes 1 us for most packets, and the NIC event of one comes late.
    let [a, b] = exchange(10, 0.0);
    let a = a.replacen(
        "1.000 sent homa data packet via afp to 0xb, id 1000",
        "7.500 sent homa data packet via afp to 0xb, id 1000",
        1,
    );
    let report = report(&[("node1", &a), ("node2", &b)]);
    assert_eq!(phase(&report, "short", "net"), (20, -1.5, 5.0, 5.0));
    let net = &report.negatives[0];
    assert_eq!(
        (net.phase, net.from.as_str(), net.to.as_str(), net.count, net.min_us),
        ("net", "node1", "node2", 1, -1.5)
    );
    assert!(net.within_error && net.clock_error_us == Some(6.5));
    assert_eq!(report.negatives.len(), 1);
    assert!(report.run.warnings().is_empty() && report.run.to_text().contains("within the clocks' error"));
}

#[test]
fn times_used_as_they_are_have_the_error_of_their_offset() {
    let [a, b] = exchange(10, -100.0);
    let report = report_of(&[("node1", &a), ("node2", &b)], Options { no_sync: true, ..Options::default() });
    // Without synchronisation the error of the times is the offset and what the delays leave open.
    assert_eq!(report.run.clock.nodes[1].error_us, Some(106.5));
    let total = report.negatives.iter().find(|n| n.phase == "total").unwrap();
    assert_eq!((total.count, total.min_us, total.within_error), (10, -92.0, true));
    assert!(report.run.warnings().is_empty());
}

#[test]
fn negative_delays_that_no_clock_explains_are_a_warning() {
    let [a, b] = exchange(10, 0.0);
    let a = a.replacen(
        "1.000 sent homa data packet via afp to 0xb, id 1000",
        "19.000 sent homa data packet via afp to 0xb, id 1000",
        1,
    );
    // In the order of times, as a trace is.
    let (nic, rest): (Vec<&str>, Vec<&str>) = a.lines().partition(|l| l.trim().starts_with("19.000"));
    let rest: Vec<&str> = rest.into_iter().filter(|l| !l.contains("freeing tx skb for homa data, id 1000,")).collect();
    let at = rest.iter().position(|l| l.contains("homa_gro_receive")).unwrap();
    let a = [&rest[..at], &nic, &rest[at..]].concat().join("\n");
    let nodes = [("node1", a.as_str()), ("node2", b.as_str())];
    let report = report(&nodes);
    let net = report.negatives.iter().find(|n| n.phase == "net").unwrap();
    assert_eq!((net.min_us, net.within_error), (-13.0, false));
    assert!(
        report
            .run
            .warnings()
            .iter()
            .any(|w| w.starts_with("1 negative net delays from node1 to node2, down to -13.000 us"))
    );
    let quiet = report_of(&nodes, Options { negative_ok: true, ..Options::default() });
    assert!(quiet.run.warnings().is_empty() && !quiet.run.to_text().contains("Negative"));
    assert_eq!(phase(&quiet, "short", "net").1, -13.0, "but they stay in the tables");
}

#[test]
fn equal_ids_of_two_clients_are_two_packets() {
    // Clients 1 and 2 both send id 10 to server 3, and each an id of its own.
    let client = |at: u32, own: u32| {
        format!(
            "{at} calling ip_queue_xmit: wire_bytes 218, peer 0x3, id 10, offset 0
             {} calling ip_queue_xmit: wire_bytes 218, peer 0x3, id {own}, offset 0
             500 homa_gro_receive got packet from 0x3 id {own}, offset 0, priority 1
             501 incoming data packet, id {own}, peer 0x3, offset 0/100",
            at + 100
        )
    };
    let receive = |at: u32, peer: &str, id: u32| {
        format!(
            "{at} homa_gro_receive got packet from {peer} id {id}, offset 0, priority 1
             {} incoming data packet, id {id}, peer {peer}, offset 0/100\n",
            at + 1
        )
    };
    let server = receive(20, "0x1", 11)
        + &receive(40, "0x2", 11)
        + &receive(115, "0x1", 21)
        + &receive(125, "0x2", 31)
        + "480 calling ip_queue_xmit: wire_bytes 218, peer 0x1, id 21, offset 0
           485 calling ip_queue_xmit: wire_bytes 218, peer 0x2, id 31, offset 0";
    let report = report_of(
        &[("node1", &client(10, 20)), ("node2", &client(11, 30)), ("node3", &server)],
        Options { no_sync: true, ..Options::default() },
    );
    // 10 -> 21, 11 -> 41, 110 -> 116, 111 -> 126, 480 -> 501, 485 -> 501
    assert_eq!(phase(&report, "short", "total"), (6, 6.0, 16.0, 30.0));
    assert_eq!(phase(&report, "short", "softirq").0, 6);
    assert_eq!(report.excluded, Excluded::default());
}

#[test]
fn retransmissions_are_paired_only_if_certain() {
    let [a, b] = exchange(10, 0.0);
    // Packet 2000: lost, sent again, arrives once, long after: either might be it.
    let a = a + "2000 calling ip_queue_xmit: wire_bytes 218, peer 0xb, id 2000, offset 0
        3000 retransmitting offset 0, length 100, id 2000
        3001 calling ip_queue_xmit: wire_bytes 218, peer 0xb, id 2000, offset 0
        4000 calling ip_queue_xmit: wire_bytes 218, peer 0xb, id 2002, offset 0
        5000 retransmitting offset 0, length 100, id 2002
        5001 calling ip_queue_xmit: wire_bytes 218, peer 0xb, id 2002, offset 0";
    // Packet 2002: arrives before it is sent again, so it is the first.
    let b = b + "3011 homa_gro_receive got packet from 0xa id 2001, offset 0, priority 5
        3012 incoming data packet, id 2001, peer 0xa, offset 0/100
        4500 homa_gro_receive got packet from 0xa id 2003, offset 0, priority 5
        4501 incoming data packet, id 2003, peer 0xa, offset 0/100";
    let report = report(&[("node1", &a), ("node2", &b)]);
    assert_eq!(phase(&report, "short", "total"), (21, 8.0, 8.0, 501.0));
    assert_eq!(phase(&report, "short", "softirq").0, 22);
    assert_eq!(report.excluded, Excluded { ambiguous_retransmissions: 1, ..Excluded::default() });
    assert_eq!((report.run.nodes[0].data_sent, report.run.nodes[0].data_sent_again), (14, 2));
}

#[test]
fn segments_of_a_frame_have_its_times() {
    let [mut a, mut b] = exchange(2, 0.0);
    a += "1000 calling ip_queue_xmit: wire_bytes 3084, peer 0xb, id 2000, offset 0
        1001 Finished queueing packet: rpc id 2000, offset 0, len 2848, qid 0
        1002 sent homa data packet via ice to 0xb, id 2000, offset 0, queue 0x5";
    b += "1012 homa_gro_receive got packet from 0xa id 2001, offset 0, priority 5
        1014 homa_gro_receive got packet from 0xa id 2001, offset 1424, priority 5
        1015 incoming data packet, id 2001, peer 0xa, offset 0/2848
        1016 incoming data packet, id 2001, peer 0xa, offset 1424/2848";
    let report = report(&[("node1", &a), ("node2", &b)]);
    assert_eq!(phase(&report, "long", "xmit"), (1, 2.0, 2.0, 2.0));
    assert_eq!(phase(&report, "long", "net"), (2, 10.0, 12.0, 12.0));
    assert_eq!(phase(&report, "long", "total"), (2, 15.0, 16.0, 16.0));
}

#[test]
fn grants_and_qdisc_have_rows() {
    let [mut a, mut b] = exchange(2, 0.0);
    b += "1000 sending grant for id 1001, offset 5000, priority 2, increment 5000
        1001 sent homa grant via afp to 0xa, id 1001, offset 5000, queue 0x0
        1003 sending grant for id 1001, offset 5000, priority 2, increment 0
        1004 sent homa grant via afp to 0xa, id 1001, offset 5000, queue 0x0
        1009 freeing tx skb for homa grant, id 1001, offset 5000, qid 0";
    a += "1010 homa_gro_receive got grant from 0xb id 1000, offset 5000, priority 7
        1012 processing grant for id 1000, offset 5000, priority 2, increment 5000
        1014 homa_gro_receive got grant from 0xb id 1000, offset 5000, priority 7
        1015 processing grant for id 1000, offset 5000, priority 2, increment 0
        2000 calling ip_queue_xmit: wire_bytes 218, peer 0xb, id 3000, offset 0
        2000 homa_qdisc_enqueue deferring homa data packet for id 3000, offset 0 on qid 4
        2040 homa_qdisc_pacer queuing homa data packet for id 3000, offset 0
        2041 sent homa data packet via afp to 0xb, id 3000, offset 0, queue 0x0";
    let report = report(&[("node1", &a), ("node2", &b)]);
    assert_eq!(phase(&report, "grants", "xmit"), (2, 1.0, 1.0, 1.0));
    assert_eq!(phase(&report, "grants", "net"), (2, 9.0, 10.0, 10.0));
    assert_eq!(phase(&report, "grants", "softirq"), (2, 1.0, 2.0, 2.0));
    assert_eq!(phase(&report, "grants", "total"), (2, 12.0, 12.0, 12.0));
    assert_eq!(phase(&report, "grants", "free"), (1, 8.0, 8.0, 8.0));
    assert_eq!(figures(report.qdisc.get("deferred").unwrap()), (1, 40.0, 40.0, 40.0));
    assert_eq!(figures(report.qdisc.get("pacer_to_nic").unwrap()), (1, 1.0, 1.0, 1.0));
}

#[test]
fn a_node_without_a_common_clock_is_named_and_left_out() {
    let [a, b] = exchange(5, 0.0);
    // node3 only receives: nothing bounds its clock from the other side.
    let a = a + "900 calling ip_queue_xmit: wire_bytes 218, peer 0xc, id 5000, offset 0";
    let c = "10 homa_gro_receive got packet from 0xa id 5001, offset 0, priority 5
        11 incoming data packet, id 5001, peer 0xa, offset 0/100";
    let report = report(&[("node1", &a), ("node2", &b), ("node3", c)]);
    assert_eq!(report.run.clock.unplaced, ["node3"]);
    assert_eq!(report.excluded, Excluded { unsynchronised: 1, ..Excluded::default() });
    assert_eq!((phase(&report, "short", "softirq").0, phase(&report, "short", "total").0), (11, 10));
    assert!(report.run.warnings()[0].contains("no clock offset for node3"), "{:?}", report.run.warnings());
}

#[test]
fn the_edges_of_a_trace_are_counted() {
    let [a, b] = exchange(5, 0.0);
    let b = format!(
        "0 incoming data packet, id 901, peer 0xa, offset 0/100\n{b}999 homa_gro_receive got packet from 0xa id 2001, offset 0, priority 5"
    );
    let report = report(&[("node1", &a), ("node2", &b)]);
    let expected =
        Excluded { softirq_without_gro: 1, gro_without_softirq: 1, unknown_length: 1, ..Excluded::default() };
    // The length of message 2000 is unknown, and so it is in no group, where its edge would be counted.
    assert_eq!(report.excluded, Excluded { gro_without_softirq: 0, ..expected });
    assert_eq!(report.run.nodes[1].packets_gro, 6);
}

#[test]
fn one_node_alone_has_its_local_delays() {
    let [_, b] = exchange(5, 0.0);
    let report = report(&[("node2", &b)]);
    assert_eq!(phase(&report, "short", "softirq"), (5, 2.0, 2.0, 2.0));
    assert_eq!(phase(&report, "short", "xmit"), (5, 1.0, 1.0, 1.0));
    assert_eq!(phase(&report, "short", "total").0, 0);
    assert!(report.run.has_results() && report.run.warnings().is_empty(), "{:?}", report.run.warnings());
}

#[test]
fn csv_has_a_line_for_each_row() {
    let [a, b] = exchange(5, 0.0);
    let csv = report(&[("node1", &a), ("node2", &b)]).run.to_csv();
    let short = "\nData packets from messages <= 1000 bytes,Net,10,5.000,5.000,5.000,5.000,5.000,5.000,5.000\n";
    assert!(csv.contains(short), "{csv}");
    assert!(
        csv.contains("\nData packets from messages > 1000 bytes,Net,0,,,,,,,\n") && csv.contains("# delay/handoffs\n")
    );
}

/// Any events with any numbers in any order, on three nodes: a line is (template, time, core, numbers).
fn any_lines() -> impl proptest::strategy::Strategy<Value = Vec<(usize, i32, u8, [u8; 3])>> {
    let templates = 0..crate::vocabulary::TEMPLATES.len();
    proptest::collection::vec((templates, -50..1000, 0..3u8, proptest::array::uniform3(0..6u8)), 0..200)
}

fn any_trace(lines: &[(usize, i32, u8, [u8; 3])]) -> String {
    let line = |(template, time, core, numbers): &(usize, i32, u8, [u8; 3])| {
        let mut text = crate::vocabulary::TEMPLATES[*template].1.replace("{?}", "").replace("{,}", "");
        for (name, value) in
            [("{id}", numbers[0]), ("{peer}", numbers[1]), ("{offset}", numbers[2]), ("{a}", numbers[2])]
        {
            text = text.replace(name, &value.to_string());
        }
        for (name, value) in [("{word}", "gen2"), ("{b:via}", "handoff"), ("{..}", "x, "), ("{b}", "-1")] {
            text = text.replace(name, value);
        }
        format!("{time}.125 us (+   1.000 us) [C{core:02}] {text}\n")
    };
    lines.iter().map(line).collect()
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 200, ..Default::default() })]

    #[test]
    fn no_events_make_it_panic(nodes in proptest::array::uniform3(any_lines()), no_sync: bool) {
        let options = Options { verbose: true, no_sync, ..Options::default() };
        let parse = |(i, lines): (usize, &Vec<_>)| {
            let text = any_trace(lines);
            let name = format!("node{i}");
            crate::read::parse_text(name.as_ref(), &name, crate::read::Format::Plain, &mut text.as_bytes())
        };
        let model = Model::new(nodes.iter().enumerate().map(parse).collect(), &options);
        let report = found(&model, &options);
        proptest::prop_assert!(!report.run.to_text().is_empty());
        proptest::prop_assert!(!report.run.has_results() || !report.run.to_csv().is_empty());
        // Each reception is in a group or counted, once.
        let softirq: u64 = report.run.nodes.iter().map(|n| n.packets_softirq).sum();
        proptest::prop_assert!(report.groups.0.iter().map(|(_, g)| g.get("softirq").unwrap().count).sum::<u64>() <= softirq);
    }

    #[test]
    fn no_change_of_good_traces_makes_it_panic(
        changes in proptest::collection::vec((0..2usize, 0..4000usize, 32..127u8), 1..30),
    ) {
        let mut nodes = exchange(10, 3.0).map(|short| crate::testing::tt(&short).into_bytes());
        for (node, at, byte) in changes {
            let len = nodes[node].len();
            nodes[node][at % len] = byte;
        }
        let parse = |(i, text): (usize, &Vec<u8>)| {
            let name = format!("node{i}");
            crate::read::parse_text(name.as_ref(), &name, crate::read::Format::Plain, &mut &text[..])
        };
        let model = Model::new(nodes.iter().enumerate().map(parse).collect(), &Options::default());
        proptest::prop_assert!(!found(&model, &Options::default()).run.to_text().is_empty());
    }
}
