//! How much of a switch's memory each protocol takes when it has all: w5 on 20 nodes, with the parameters of the
//! published buffer study.
//!
//! ```text
//! cargo run --release -p homa-sim --example buffers -- [milliseconds [ideal|xl170 [protocol]]]
//! ```

use std::ops::ControlFlow;

use cp_node::workload::Workload;
use homa_sim::cluster::{ClusterSpec, Protocol, StopRule, run};
use homa_sim::fabric::SwitchConfig;
use homa_sim::tcp::TcpConfig;
use homa_sim::{HostModel, Time};
use homa_stack::Config;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |index: usize, default: &str| args.get(index).cloned().unwrap_or_else(|| default.into());
    let millis: u64 = arg(0, "100").parse()?;
    let host = if arg(1, "xl170") == "ideal" { HostModel::default() } else { HostModel::xl170() };
    let only = arg(2, "");
    let tcp = TcpConfig::default();
    let homa = Config {
        unsched_bytes: 60_000,
        window: 60_000,
        max_incoming: 480_000,
        max_overcommit: 8,
        auto_cutoffs: true,
        ..Config::default()
    };
    let protocols = [
        ("homa", Protocol::Homa(Box::new(homa))),
        ("dctcp", Protocol::Dctcp(tcp.clone())),
        ("tcp", Protocol::Tcp(tcp)),
    ];
    for (name, protocol) in protocols {
        if !only.is_empty() && only != name {
            continue;
        }
        let dctcp = matches!(protocol, Protocol::Dctcp(_));
        let spec = ClusterSpec {
            protocol,
            workload: Workload::Named("w5"),
            gbps: 10.0,
            client_max: 400,
            warmup: Time::from_millis(30),
            stop: StopRule::After(Time::from_millis(millis)),
            mtu: 3000,
            switch: SwitchConfig { ecn_threshold: dctcp.then_some(78_000), ..SwitchConfig::default() },
            host: host.clone(),
            ..ClusterSpec::rack(20)
        };
        let begun = std::time::Instant::now();
        let run = run(&spec, &mut |_| ControlFlow::Continue(()))?;
        let switch = &run.switches[0];
        let ports = switch.ports.iter().map(|port| port.high_water_bytes);
        let mut short: Vec<u64> =
            run.nodes.iter().flat_map(|n| &n.samples).filter(|s| s.len < 1500).map(|s| s.service_ns).collect();
        short.sort_unstable();
        let at = |share: f64| short.get((short.len() as f64 * share) as usize).map_or(0.0, |ns| *ns as f64 / 1e3);
        println!(
            "{name:5} pool {:6.2} MB, a port {:4} KB at most, {} drops, {:.2} Gbit/s in, short messages P50 {:.1} us, P99 {:.1} us; {} packets in {:.1} s",
            switch.high_water_bytes as f64 / 1e6,
            ports.max().unwrap_or(0) / 1000,
            switch.drops.iter().sum::<u64>(),
            run.in_gbps,
            at(0.5),
            at(0.99),
            run.packets,
            begun.elapsed().as_secs_f64(),
        );
        for name in ["data_segments", "pure_acks", "marked_segments", "reductions_by_mark", "recoveries", "timeouts"] {
            let counters = run.nodes.iter().flat_map(|node| &node.counters);
            let sum: u64 = counters.filter(|(found, _)| *found == format!("tcp_{name}")).map(|(_, count)| count).sum();
            print!(" {name} {sum}");
        }
        println!();
    }
    Ok(())
}
