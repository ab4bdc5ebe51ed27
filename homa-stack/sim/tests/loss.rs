//! What random loss costs short messages under load.

use std::ops::ControlFlow;

use homa_sim::cluster::{ClusterSpec, StopRule, run};
use homa_sim::fabric::SwitchConfig;
use homa_sim::{HostModel, Time};

/// Bytes of the shortest tenth of w4.
const SHORT: u32 = 315;

/// P50 and P99 of round trips of short messages, ns.
fn short_messages(loss: f64) -> (u64, u64) {
    let rack = ClusterSpec::rack(10);
    let spec = ClusterSpec {
        switch: SwitchConfig { loss, ..rack.switch },
        warmup: Time::from_millis(5),
        stop: StopRule::After(Time::from_millis(50)),
        host: HostModel::xl170(),
        ..rack
    };
    let run = run(&spec, &mut |_| ControlFlow::Continue(())).unwrap();
    let samples = run.nodes.iter().flat_map(|node| node.samples.iter());
    let mut took: Vec<u64> = samples.filter(|s| s.len <= SHORT).map(|s| s.service_ns).collect();
    took.sort_unstable();
    assert!(took.len() > 800, "{} short messages", took.len());
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

#[test]
fn loss_of_one_percent_costs_short_messages_of_w4_no_more_than_a_reorder_window() {
    let (clean, lossy) = (short_messages(0.0), short_messages(0.01));
    println!("P50 and P99, ns: {clean:?} without loss, {lossy:?} with 1 %");
    let window = homa_stack::Config::default().reorder_window.as_nanos();
    assert!(lossy.1 <= 2 * clean.1 + window, "{} ns instead of {}", lossy.1, clean.1);
}
