//! Whole clusters: TCP and DCTCP beside Homa, under the load of the published measurements.

use std::ops::ControlFlow;

use homa_sim::Time;
use homa_sim::cluster::{ClusterRun, ClusterSpec, Protocol, StopRule, run};
use homa_sim::tcp::TcpConfig;

/// Ten nodes with w4 at 80 % of 25 Gbit/s; TCP with as many ports as the published measurements gave it.
fn cluster(protocol: Option<Protocol>) -> ClusterRun {
    let mut spec = ClusterSpec {
        mtu: 3000,
        warmup: Time::from_millis(5),
        stop: StopRule::After(Time::from_millis(30)),
        ..ClusterSpec::rack(10)
    };
    if let Some(protocol) = protocol {
        let dctcp = matches!(protocol, Protocol::Dctcp(_));
        spec.switch.ecn_threshold = dctcp.then_some(78_000);
        (spec.protocol, spec.client_ports, spec.server_ports) = (protocol, 4, 8);
    }
    run(&spec, &mut |_| ControlFlow::Continue(())).expect("the specification is right")
}

/// Percentile of the round trips of the shortest tenth of the messages, in us.
fn short(run: &ClusterRun, fraction: f64) -> f64 {
    let mut all: Vec<_> = run.nodes.iter().flat_map(|n| &n.samples).map(|s| (s.len, s.service_ns)).collect();
    all.sort_unstable();
    let mut short: Vec<_> = all[..all.len() / 10].iter().map(|(_, ns)| *ns).collect();
    short.sort_unstable();
    short[((short.len() - 1) as f64 * fraction) as usize] as f64 / 1e3
}

fn counter(run: &ClusterRun, name: &str) -> u64 {
    let named = |n: &[(&'static str, u64)]| n.iter().find(|(key, _)| *key == name).expect("it is counted").1;
    run.nodes.iter().map(|n| named(&n.counters)).sum()
}

/// The order of the published figures (experiments 1 and 2): short messages and buffers.
#[test]
fn tcp_dctcp_and_homa_compare_as_published() {
    let homa = cluster(None);
    let tcp = cluster(Some(Protocol::Tcp(TcpConfig::default())));
    let dctcp = cluster(Some(Protocol::Dctcp(TcpConfig::default())));
    let medians = [&homa, &dctcp, &tcp].map(|run| short(run, 0.5));
    assert!(medians[0] * 3.0 < medians[1] && medians[1] * 1.5 < medians[2], "medians of short messages: {medians:?}");
    let tails = [&homa, &dctcp, &tcp].map(|run| short(run, 0.99));
    assert!(tails[1..].iter().all(|tail| *tail > 7.0 * tails[0]), "P99 of short messages: {tails:?}");
    let pools = [&dctcp, &tcp, &homa].map(|run| run.switches[0].high_water_bytes);
    assert!(pools[1] > 2 * pools[0] && pools[1] > pools[2], "most bytes in the switch: {pools:?}");
    for run in [&tcp, &dctcp] {
        assert!(run.in_gbps > 16.0, "{} Gbit/s", run.in_gbps);
        assert_eq!(run.nodes.iter().map(|n| n.failed).sum::<u64>(), 0);
        assert_eq!(run.switches[0].drops.iter().sum::<u64>(), 0);
        // Without losses almost nothing is sent again: a probe of the tail, now and then.
        assert_eq!((counter(run, "tcp_timeouts"), counter(run, "tcp_recoveries")), (0, 0));
        assert!(counter(run, "tcp_resent_segments") * 1000 < counter(run, "tcp_data_segments"));
    }
    assert_eq!(counter(&tcp, "tcp_marked_segments"), 0);
    assert!(counter(&dctcp, "tcp_reductions_by_mark") > 1000);
}

/// A small switch: cubic fills it, loses packets, and carries the load all the same.
#[test]
fn tcp_carries_the_load_through_a_small_switch() {
    let mut spec = ClusterSpec {
        protocol: Protocol::Tcp(TcpConfig::default()),
        mtu: 3000,
        gbps: 6.0,
        warmup: Time::from_millis(5),
        stop: StopRule::After(Time::from_millis(60)),
        ..ClusterSpec::rack(6)
    };
    spec.switch.pool = 150_000;
    let one = run(&spec, &mut |_| ControlFlow::Continue(())).expect("the specification is right");
    let drops: u64 = one.switches[0].drops.iter().sum();
    assert!(drops > 100 && one.switches[0].high_water_bytes <= 150_000);
    assert!(counter(&one, "tcp_recoveries") > 50);
    assert!((11.0..13.0).contains(&one.in_gbps), "{} Gbit/s of 12", one.in_gbps);
    let two = run(&spec, &mut |_| ControlFlow::Continue(())).expect("the specification is right");
    assert!(one.nodes.iter().zip(&two.nodes).all(|(a, b)| a.samples == b.samples && a.counters == b.counters));
    assert_eq!(one.switches, two.switches);
}
