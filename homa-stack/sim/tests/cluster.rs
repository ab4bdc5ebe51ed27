//! Whole clusters: they repeat, carry their load, and what they leave behind is complete.

use std::ops::ControlFlow;

use cp_node::workload::Workload;
use homa_sim::cluster::{ClusterRun, ClusterSpec, Protocol, SpecError, StopRule, TraceSpec, run, unloaded};
use homa_sim::fabric::Topology;
use homa_sim::load::Roles;
use homa_sim::{HostModel, Time};

fn done(spec: &ClusterSpec) -> ClusterRun {
    run(spec, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn short(nodes: u32) -> ClusterSpec {
    ClusterSpec {
        warmup: Time::from_millis(2),
        stop: StopRule::After(Time::from_millis(8)),
        ..ClusterSpec::rack(nodes)
    }
}

fn digest(run: &ClusterRun) -> String {
    format!("{run:?}")
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_another() {
    let spec = ClusterSpec { host: HostModel::xl170(), ..short(6) };
    let first = digest(&done(&spec));
    assert!(first == digest(&done(&spec)));
    assert!(first != digest(&done(&ClusterSpec { seed: 2, ..spec })));
}

#[test]
fn the_load_is_carried_and_every_call_has_its_end() {
    for (host, one_way) in [(HostModel::default(), false), (HostModel::default(), true), (HostModel::xl170(), false)] {
        let spec = ClusterSpec { workload: Workload::Named("w3"), gbps: 5.0, host, one_way, ..short(8) };
        let run = done(&spec);
        let offered = if one_way { 5.0 } else { 10.0 };
        // Lengths vary a lot, and in 8 ms there are some 15,000 messages.
        assert!((run.out_gbps / offered - 1.0).abs() < 0.15, "{} of {offered} Gbit/s", run.out_gbps);
        assert!((run.in_gbps / run.out_gbps - 1.0).abs() < 0.05, "{} of {}", run.in_gbps, run.out_gbps);
        let ends: usize = run.nodes.iter().map(|node| node.samples.len()).sum();
        assert!(ends > 14_000, "{ends}");
        for node in &run.nodes {
            assert!(node.failed == 0 && node.outstanding < 60, "{} outstanding", node.outstanding);
            assert!(node.samples.iter().all(|sample| sample.due_ns >= sample.service_ns));
        }
        assert_eq!(run.switches[0].drops.iter().sum::<u64>(), 0);
    }
}

#[test]
fn the_last_nodes_are_clients_and_the_first_servers() {
    for (clients, servers) in [(1, 3), (3, 1), (2, 2), (4, 1)] {
        let roles = Some(Roles { clients, servers });
        let run = done(&ClusterSpec { roles, workload: Workload::Fixed(1000), gbps: 0.5, ..short(4) });
        for (index, node) in run.nodes.iter().enumerate() {
            // A server that is the only one has nobody to ask.
            let asks = index as u32 >= 4 - clients && !(servers == 1 && index == 0);
            let answers = (index as u32) < servers;
            assert_eq!(!node.samples.is_empty(), asks, "node {index} of {clients}, {servers}");
            // Requests, and responses to its own.
            assert_eq!(node.received.0 > node.samples.len() as u64 + 10, answers, "node {index}");
        }
    }
}

#[test]
fn two_protocols_at_once_carry_both_their_loads_and_slow_each_other() {
    let homa = ClusterSpec { workload: Workload::Named("w3"), gbps: 3.0, ..short(4) };
    for tcp in [Protocol::Tcp(Default::default()), Protocol::Dctcp(Default::default())] {
        let tcp = ClusterSpec { protocol: tcp, gbps: 5.0, ..homa.clone() };
        let both = || homa_sim::both::run(&homa, &tcp, &mut |_| ControlFlow::Continue(())).unwrap();
        let [of_homa, of_tcp] = both();
        assert_eq!(digest(&of_homa), digest(&both()[0]), "the same again");
        for (run, offered) in [(&of_homa, 6.0), (&of_tcp, 10.0)] {
            assert!((run.in_gbps / offered - 1.0).abs() < 0.2, "{} of {offered} Gbit/s", run.in_gbps);
            assert!(run.nodes.iter().all(|node| node.failed == 0 && node.outstanding < 60));
        }
        let mean = |run: &ClusterRun| {
            let times: Vec<_> =
                run.nodes.iter().flat_map(|node| &node.samples).map(|sample| sample.service_ns).collect();
            times.iter().sum::<u64>() as f64 / times.len() as f64
        };
        // As many messages alone take less time.
        let alone = mean(&done(&tcp));
        assert!(mean(&of_tcp) > 1.05 * alone, "{} with Homa, {alone} alone", mean(&of_tcp));
    }
}

#[test]
fn without_load_a_message_takes_what_its_packets_do() {
    let spec = short(4);
    // As in `Sim`'s example, without CUTOFFS.
    let wire = |data: u64| data + 56 + 20 + 18 + 20;
    assert_eq!(unloaded(&spec, &[100], 3).unwrap(), [(100, Time::from_picos(4 * (wire(100) * 320 + 250_000)))]);
    let one_way = ClusterSpec { one_way: true, topology: Topology::sigcomm18(), ..spec };
    // One packet after the other on the first link; the last one's way through the others. 1424 bytes fit a packet.
    let (full, last) = (wire(1424), wire(10_000 - 7 * 1424));
    let expected = 7 * full * 800 + last * (800 + 200 + 200 + 800) + 4 * 250_000;
    let found = unloaded(&one_way, &[10_000], 1).unwrap()[0].1;
    // A shorter last packet catches up with those before it: it can't come before them.
    let before = 7 * full * 800 + full * (200 + 200 + 800) + last * 800 + 4 * 250_000;
    assert!(found == Time::from_picos(expected) || found == Time::from_picos(before), "{found}");
}

#[test]
fn traces_and_metrics_are_those_of_the_window() {
    let trace = Some(TraceSpec { window: Time::from_micros(500), events: 1 << 14 });
    let spec = ClusterSpec { trace, host: HostModel::xl170(), ..short(4) };
    let run = done(&spec);
    for node in &run.nodes {
        let text = String::from_utf8(node.trace.clone().unwrap()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.len() > 1000, "{} lines", lines.len());
        let times: Vec<f64> =
            lines.iter().map(|line| line.trim_start().split(' ').next().unwrap().parse().unwrap()).collect();
        assert!(times.is_sorted() && times[times.len() - 1] > 400.0 && times[times.len() - 1] < 520.0);
        let on =
            |core: &str, what: &str| lines.iter().filter(|line| line.contains(core) && line.contains(what)).count();
        let gro = |core| on(core, "homa_gro_receive got packet");
        assert!(["[C01]", "[C02]", "[C03]", "[C04]"].map(gro).iter().sum::<usize>() > 100, "of the receiving cores");
        assert_eq!(on("[C00]", "homa_gro_receive"), 0);
        assert!(on("[C00]", "homa_softirq starting") > 10 && on("[C00]", "incoming data packet") > 10);
        let [before, after] = node.metrics.as_ref().unwrap();
        assert!(before.contains("packets_sent_DATA") && after != before, "{before}");
    }
}

#[test]
fn a_run_ends_when_nothing_changes_any_more_or_when_it_is_told() {
    let every = Time::from_millis(2);
    let rule = |within| StopRule::Converged { every, within, most: Time::from_millis(40) };
    let spec = ClusterSpec { workload: Workload::Named("w2"), gbps: 0.5, stop: rule(0.2), ..short(4) };
    let early = done(&spec);
    assert!(early.converged && early.measured < Time::from_millis(40), "{}", early.measured);
    assert!(early.measured >= Time::from_millis(8), "four looks");
    let never = done(&ClusterSpec { stop: rule(0.0), ..spec.clone() });
    assert!(!never.converged && never.measured == Time::from_millis(40));
    let mut calls = 0;
    let ended = run(&spec, &mut |_| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(ended, Err(SpecError::Ended(at)) if at == Time::from_millis(3)));
}

#[test]
fn nonsense_is_refused() {
    for (spec, part) in [
        (ClusterSpec { client_ports: 0, ..short(4) }, "client_ports is 0"),
        (ClusterSpec { gbps: f64::NAN, ..short(4) }, "gbps is NaN"),
        (ClusterSpec { roles: Some(Roles { clients: 0, servers: 4 }), ..short(4) }, "roles is 0 clients"),
        (ClusterSpec { mtu: 60, ..short(4) }, "mtu is 60"),
        (short(1), "1 nodes"),
    ] {
        let error = run(&spec, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn all_protocols_carry_the_same_load() {
    for protocol in [short(4).protocol, Protocol::Tcp(Default::default()), Protocol::Dctcp(Default::default())] {
        let run = done(&ClusterSpec { protocol, gbps: 5.0, ..short(4) });
        assert!((run.in_gbps / 10.0 - 1.0).abs() < 0.35, "{}", run.in_gbps);
    }
}
