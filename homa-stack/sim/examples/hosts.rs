//! What hosts add to short messages under high load: the clusters of ATC 2021 (xl170, MTU 3000) with hosts that take more
//! or less time for messages.
//!
//! ```text
//! cargo run --release -p homa-sim --example hosts -- [workloads=w2,w3,w4,w5] [hosts=delays,threads,sockets] [nodes=20]
//!     [ms=20] [warmup=10] [seeds=1,2,3] [cores=4] [flow_ns=1600] [receive_us=3] [answer_us=3] [rounds=10] [deferral_us=4000]
//! ```
//!
//! | hosts | |
//! | --- | --- |
//! | `delays` | [`HostModel::xl170`]: delays and receiving cores; applications take no time |
//! | `threads` | in addition, messages take time of one thread a port (three with Homa), and flows of receiving cores |
//! | `sockets` | in addition, cores that do not get done leave the rest to a thread that waits for its turn |
//!
//! One set of parameters for all workloads. Printed: P50 and P99 of the round trips of the shortest messages (as many lengths
//! as make a tenth), in us, with 95 % intervals over seeds; the order of the three protocols by P99, and how DCTCP's compares
//! with TCP's under the same load.

use std::ops::ControlFlow;

use cp_node::workload::Workload;
use homa_sim::cluster::{ClusterSpec, Protocol, StopRule, run};
use homa_sim::fabric::SwitchConfig;
use homa_sim::host::Delay;
use homa_sim::tcp::TcpConfig;
use homa_sim::{HostModel, Time};
use homa_stack::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is simulated.
struct Wanted {
    workloads: Vec<&'static str>,
    hosts: Vec<String>,
    nodes: u32,
    ms: f64,
    warmup: f64,
    seeds: Vec<u64>,
    cores: u32,
    flow_ns: u64,
    receive_us: f64,
    answer_us: f64,
    rounds: u32,
    deferral_us: f64,
}

impl Wanted {
    fn parse(args: &[String]) -> Result<Self, String> {
        let mut w = Self {
            workloads: vec!["w2", "w3", "w4", "w5"],
            hosts: vec!["delays".into(), "threads".into(), "sockets".into()],
            nodes: 20,
            ms: 20.0,
            warmup: 10.0,
            seeds: vec![1, 2, 3],
            cores: 4,
            flow_ns: 1_600,
            receive_us: 3.0,
            answer_us: 3.0,
            rounds: 10,
            deferral_us: 4_000.0,
        };
        for arg in args {
            let (name, value) = arg.split_once('=').ok_or(format!("`{arg}`: expected NAME=VALUE"))?;
            fn of<V: std::str::FromStr>(arg: &str, value: &str) -> Result<V, String> {
                value.parse().map_err(|_| format!("`{arg}`: not a value for it"))
            }
            match name {
                "workloads" => {
                    let known = |text| ["w1", "w2", "w3", "w4", "w5"].into_iter().find(|name| *name == text);
                    let all: Option<Vec<_>> = value.split(',').map(known).collect();
                    w.workloads = all.ok_or(format!("`{arg}`: expected w1 to w5"))?;
                }
                "hosts" => w.hosts = value.split(',').map(String::from).collect(),
                "nodes" => w.nodes = of(arg, value)?,
                "ms" => w.ms = of(arg, value)?,
                "warmup" => w.warmup = of(arg, value)?,
                "seeds" => w.seeds = value.split(',').map(|seed| of(arg, seed)).collect::<Result<_, _>>()?,
                "cores" => w.cores = of(arg, value)?,
                "flow_ns" => w.flow_ns = of(arg, value)?,
                "receive_us" => w.receive_us = of(arg, value)?,
                "answer_us" => w.answer_us = of(arg, value)?,
                "rounds" => w.rounds = of(arg, value)?,
                "deferral_us" => w.deferral_us = of(arg, value)?,
                _ => return Err(format!("`{arg}`: no such name")),
            }
        }
        Ok(w)
    }

    /// The hosts of a protocol.
    fn model(&self, hosts: &str, homa: bool) -> Result<HostModel, String> {
        let mut model = match (hosts, homa) {
            ("delays", _) => return Ok(HostModel { receive_cores: self.cores, ..HostModel::xl170() }),
            ("threads" | "sockets", true) => HostModel::xl170_homa(),
            ("threads" | "sockets", false) => HostModel::xl170_sockets(),
            _ => return Err(format!("hosts={hosts}: expected delays, threads or sockets")),
        };
        model.receive_cores = self.cores;
        if !homa {
            model.per_flow = Time::from_nanos(self.flow_ns);
            let times = (Time::from_micros_f64(self.receive_us), Time::from_micros_f64(self.answer_us));
            if let Some(threads) = &mut model.threads {
                (threads.receive, threads.answer) = times;
            }
            model.rounds = if hosts == "sockets" { self.rounds } else { 0 };
            let most = Time::from_micros_f64(self.deferral_us);
            model.deferral = Delay { points: vec![(0.0, Time::ZERO), (1.0, most)] };
        }
        Ok(model)
    }
}

/// P50 and P99 of the shortest messages in us, and what was carried, in Gbit/s.
fn short(spec: &ClusterSpec) -> Result<[f64; 3], String> {
    let out = run(spec, &mut |_| ControlFlow::Continue(())).map_err(|error| error.to_string())?;
    let mut samples: Vec<(u32, u64)> =
        out.nodes.iter().flat_map(|node| &node.samples).map(|sample| (sample.len, sample.service_ns)).collect();
    samples.sort_unstable();
    let limit = samples.get(samples.len() / 10).map_or(0, |sample| sample.0);
    let mut short: Vec<u64> = samples.iter().filter(|s| s.0 <= limit).map(|s| s.1).collect();
    short.sort_unstable();
    let at = |share: usize| short.get(short.len() * share / 100).map_or(f64::NAN, |ns| *ns as f64 / 1e3);
    Ok([at(50), at(99), out.in_gbps])
}

/// Mean and half of the 95 % interval.
fn interval(values: &[f64]) -> (f64, f64) {
    // Student's t for 1, 2, ... degrees of freedom.
    const T: [f64; 9] = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26];
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    if values.len() < 2 {
        return (mean, f64::NAN);
    }
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let t = T.get(values.len() - 2).copied().unwrap_or(2.0);
    (mean, t * (variance / count).sqrt())
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Err(error) = Wanted::parse(&args).and_then(|wanted| measure(&wanted)) {
        eprintln!("hosts: {error}");
        std::process::exit(2);
    }
}

fn measure(w: &Wanted) -> Result<(), String> {
    let homa = Config {
        auto_cutoffs: true,
        unsched_bytes: 60_000,
        window: 60_000,
        max_incoming: 480_000,
        ..Config::default()
    };
    println!("hosts    workload  protocol  short_p50_us      short_p99_us          in_gbps");
    for hosts in &w.hosts {
        for workload in &w.workloads {
            let gbps = match *workload {
                "w1" | "w2" => 3.2,
                "w3" => 14.0,
                _ => 20.0,
            };
            let (mut order, mut by_seed) = (Vec::new(), Vec::new());
            for name in ["homa", "dctcp", "tcp"] {
                let (protocol, client_ports, server_ports) = match name {
                    "homa" => (Protocol::Homa(Box::new(homa.clone())), 3, 3),
                    "dctcp" => (Protocol::Dctcp(TcpConfig::dctcp()), 4, 8),
                    _ => (Protocol::Tcp(TcpConfig::default()), 4, 8),
                };
                let mut found = [Vec::new(), Vec::new(), Vec::new()];
                for seed in &w.seeds {
                    let spec = ClusterSpec {
                        protocol: protocol.clone(),
                        workload: Workload::Named(workload),
                        // Requests; the responses are as many bytes.
                        gbps: gbps / 2.0,
                        client_ports,
                        server_ports,
                        client_max: 200,
                        mtu: 3000,
                        seed: *seed,
                        warmup: Time::from_micros_f64(w.warmup * 1e3),
                        stop: StopRule::After(Time::from_micros_f64(w.ms * 1e3)),
                        host: w.model(hosts, name == "homa")?,
                        switch: SwitchConfig {
                            ecn_threshold: (name == "dctcp").then_some(78_000),
                            ..SwitchConfig::default()
                        },
                        ..ClusterSpec::rack(w.nodes)
                    };
                    for (values, value) in found.iter_mut().zip(short(&spec)?) {
                        values.push(value);
                    }
                }
                by_seed.push(found[1].clone());
                let [p50, p99, in_gbps] = found.map(|values| interval(&values));
                println!(
                    "{hosts:8} {workload:9} {name:8} {:9.1} ± {:5.1} {:11.1} ± {:7.1} {:9.2}",
                    p50.0, p50.1, p99.0, p99.1, in_gbps.0
                );
                order.push((p99.0, name));
            }
            order.sort_by(|a, b| a.0.total_cmp(&b.0));
            let names: Vec<&str> = order.iter().map(|(_, name)| *name).collect();
            let ratios: Vec<f64> = by_seed[1].iter().zip(&by_seed[2]).map(|(dctcp, tcp)| dctcp / tcp).collect();
            let ratio = interval(&ratios);
            println!(
                "{hosts:8} {workload:9} order: {}; dctcp / tcp, seed by seed: {:.2} ± {:.2} {ratios:.2?}",
                names.join(" < "),
                ratio.0,
                ratio.1
            );
        }
    }
    Ok(())
}
