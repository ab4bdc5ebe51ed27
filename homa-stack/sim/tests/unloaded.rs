//! Round-trip times without load: what the links need, and nothing else.

use std::ops::ControlFlow;

use cp_node::workload::{Reduction, Workload};
use homa_sim::cluster::{ClusterSpec, Protocol, StopRule, run};
use homa_sim::fabric::{SwitchConfig, Topology};
use homa_sim::host::HostModel;
use homa_sim::time::Time;

/// Times in us of RPCs of `len` bytes, one every ten milliseconds or so.
fn alone(len: u32) -> Vec<f64> {
    let spec = ClusterSpec {
        topology: Topology::rack(2),
        protocol: Protocol::Homa(Box::default()),
        workload: Workload::Fixed(len),
        reduction: Reduction::default(),
        gbps: f64::from(len) * 8e-9 / 0.01,
        client_ports: 1,
        server_ports: 1,
        client_max: 1,
        roles: None,
        one_way: false,
        seed: 3,
        warmup: Time::ZERO,
        stop: StopRule::After(Time::from_millis(100)),
        mtu: 3000,
        switch: SwitchConfig::default(),
        host: HostModel::default(),
        trace: None,
    };
    let run = run(&spec, &mut |_| ControlFlow::Continue(())).unwrap();
    let samples = run.nodes.iter().flat_map(|node| &node.samples);
    samples.map(|sample| sample.service_ns as f64 / 1e3).collect()
}

/// A NIC that has no room again and again makes a long message no slower than its link.
#[test]
fn messages_of_all_lengths_take_as_long_as_their_links_need() {
    for len in [100, 1_000, 10_000, 40_000, 100_000, 500_000, 1_000_000] {
        let mut times = alone(len);
        assert!(times.len() > 5, "{len} bytes: {times:?}");
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        // Headers and framing are 4 %; two links of 25 Gbps and 250 ns in each direction, and grants.
        let links = 2.0 * f64::from(len) * 8e-3 / 25.0;
        assert!((links..links * 1.1 + 12.0).contains(&median), "{len} bytes: {median} us, the links need {links}");
    }
}
