//! What announcements do to a workload: grants come while a message still waits behind others at its sender.

use std::ops::ControlFlow;

use cp_node::workload::Workload;
use homa_sim::cluster::{ClusterRun, ClusterSpec, Protocol, StopRule, run};
use homa_sim::fabric::Topology;
use homa_sim::load::Roles;
use homa_sim::{HostModel, Time};
use homa_stack::Config;
use homa_stack::proto::Announce;

fn measure(announce: Announce, spec: ClusterSpec) -> ClusterRun {
    let config = Config { announce, auto_cutoffs: true, ..Config::default() };
    let spec = ClusterSpec { protocol: Protocol::Homa(Box::new(config)), host: HostModel::xl170(), ..spec };
    run(&spec, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// Gbit/s of messages of 50,000 bytes from one host to another, so many at a time.
fn rate(announce: Announce, at_a_time: u32) -> f64 {
    let spec = ClusterSpec {
        topology: Topology::rack(2),
        workload: Workload::Fixed(50_000),
        gbps: 0.0,
        client_ports: 1,
        client_max: at_a_time,
        one_way: true,
        roles: Some(Roles { clients: 1, servers: 1 }),
        warmup: Time::from_millis(1),
        stop: StopRule::After(Time::from_millis(10)),
        ..ClusterSpec::rack(2)
    };
    let run = measure(announce, spec);
    run.nodes.iter().map(|node| node.received.1).sum::<u64>() as f64 * 8e-9 / run.measured.as_secs_f64()
}

/// A message that is wholly scheduled costs a round trip if it is alone; among others its grants come meanwhile.
#[test]
fn the_round_trip_of_a_wholly_scheduled_message_disappears_behind_others() {
    let rates = [1, 2, 4, 8].map(|at_a_time| [Announce::Never, Announce::Scheduled].map(|how| rate(how, at_a_time)));
    println!("Gbit/s of 1, 2, 4 and 8 messages at a time, partly unscheduled and wholly scheduled: {rates:.2?}");
    let share = rates.map(|[partly, wholly]| wholly / partly);
    assert!(share[0] < 0.85, "alone: {share:?}");
    assert!(share[2] > 0.98 && share[3] > 0.99, "among others: {share:?}");
}

/// Most bytes in the switch, P99 of the shortest tenth of the messages in ns, Gbit/s carried: sums over seeds.
fn w4(announce: Announce) -> [f64; 3] {
    let mut sums = [0.0; 3];
    for seed in 1..=3 {
        let spec = ClusterSpec {
            seed,
            warmup: Time::from_millis(5),
            stop: StopRule::After(Time::from_millis(30)),
            ..ClusterSpec::rack(20)
        };
        let run = measure(announce, spec);
        let mut took: Vec<_> =
            run.nodes.iter().flat_map(|node| &node.samples).map(|sample| (sample.len, sample.service_ns)).collect();
        took.sort_unstable();
        let mut short: Vec<_> = took[..took.len() / 10].iter().map(|(_, ns)| *ns).collect();
        short.sort_unstable();
        sums[0] += run.switches[0].high_water_bytes as f64;
        sums[1] += short[short.len() * 99 / 100] as f64;
        sums[2] += run.in_gbps;
    }
    sums
}

/// Long messages wait at their senders, not in the switch, and short ones have the same times.
#[test]
fn announcements_leave_less_in_the_switch_and_cost_short_messages_nothing() {
    let [never, early, wholly] = [Announce::Never, Announce::Early, Announce::Scheduled].map(w4);
    println!("bytes in the switch, short P99 ns, Gbit/s, three seeds: {never:.0?}, {early:.0?}, {wholly:.0?}");
    for announced in [early, wholly] {
        let share: Vec<_> = announced.iter().zip(never).map(|(with, without)| with / without).collect();
        assert!(share[0] < 1.0 && share[1] < 1.1 && share[2] > 0.98, "{share:?}");
    }
}
