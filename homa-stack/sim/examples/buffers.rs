//! Where bytes wait in a switch when it has memory for all of them, and what made them: a rack under load with the
//! parameters of the published buffer study, looked at every 10 us.
//!
//! ```text
//! cargo run --release -p homa-sim --example buffers -- protocol=dctcp ms=300 nodes=20 [NAME=VALUE ...]
//! ```
//!
//! Names and defaults are in [`Wanted`]. Printed: high-water mark; percentiles over time of what waits at all ports and at
//! one; the moment of the mark, with the ports that had most and how many connections sent to each.

use std::sync::Arc;

use cp_node::workload::{Distribution, Reduction, Workload};
use homa_sim::fabric::{SwitchConfig, Topology};
use homa_sim::homa::{Homa, fit_cutoffs};
use homa_sim::host::{Delay, Noise};
use homa_sim::load::{Load, LoadSpec, Roles};
use homa_sim::tcp::{Tcp, TcpConfig};
use homa_sim::{HostId, HostModel, Sim, Time, Transport};
use homa_stack::Config;

/// What is simulated.
#[derive(Clone, Debug)]
struct Wanted {
    protocol: String,
    workload: &'static str,
    /// Payload of a node in each direction.
    gbps: f64,
    nodes: u32,
    warmup: u64,
    ms: u64,
    seed: u64,
    mtu: u32,
    client_max: u32,
    client_ports: u16,
    server_ports: u16,
    threshold: u64,
    /// xl170 or ideal.
    host: String,
    /// Of the host's model, in us and ns; below 0: as it has them.
    interrupt_us: f64,
    packet_ns: i64,
    cores: i64,
    /// Gaps of this length in which a host stands still, and how often: more than the model has; 0: none.
    stall_us: f64,
    stall_every_ms: f64,
    /// Of TCP, in segments, bytes and bytes.
    window: u32,
    offload: u32,
    merge: u32,
    gain: f64,
    defer: bool,
}

impl Wanted {
    fn parse(args: &[String]) -> Result<Self, String> {
        let mut w = Self {
            protocol: "dctcp".into(),
            workload: "w5",
            gbps: 20.0,
            nodes: 20,
            warmup: 30,
            ms: 100,
            seed: 1,
            mtu: 3000,
            client_max: 400,
            client_ports: 4,
            server_ports: 8,
            threshold: 78_000,
            host: "xl170".into(),
            interrupt_us: -1.0,
            packet_ns: -1,
            cores: -1,
            stall_us: 0.0,
            stall_every_ms: 100.0,
            window: TcpConfig::default().initial_window,
            offload: TcpConfig::default().offload,
            merge: TcpConfig::default().merge,
            gain: TcpConfig::default().dctcp_gain,
            defer: true,
        };
        for arg in args {
            let (name, value) = arg.split_once('=').ok_or(format!("`{arg}`: expected NAME=VALUE"))?;
            fn of<V: std::str::FromStr>(arg: &str, value: &str) -> Result<V, String> {
                value.parse().map_err(|_| format!("`{arg}`: not a value for it"))
            }
            match name {
                "protocol" => w.protocol = value.into(),
                "workload" => {
                    let known = ["w1", "w2", "w3", "w4", "w5"].into_iter().find(|name| *name == value);
                    w.workload = known.ok_or(format!("`{arg}`: expected w1 to w5"))?;
                }
                "gbps" => w.gbps = of(arg, value)?,
                "nodes" => w.nodes = of(arg, value)?,
                "warmup" => w.warmup = of(arg, value)?,
                "ms" => w.ms = of(arg, value)?,
                "seed" => w.seed = of(arg, value)?,
                "mtu" => w.mtu = of(arg, value)?,
                "client_max" => w.client_max = of(arg, value)?,
                "client_ports" => w.client_ports = of(arg, value)?,
                "server_ports" => w.server_ports = of(arg, value)?,
                "threshold" => w.threshold = of(arg, value)?,
                "host" => w.host = value.into(),
                "interrupt_us" => w.interrupt_us = of(arg, value)?,
                "packet_ns" => w.packet_ns = of(arg, value)?,
                "cores" => w.cores = of(arg, value)?,
                "stall_us" => w.stall_us = of(arg, value)?,
                "stall_every_ms" => w.stall_every_ms = of(arg, value)?,
                "window" => w.window = of(arg, value)?,
                "offload" => w.offload = of(arg, value)?,
                "merge" => w.merge = of(arg, value)?,
                "gain" => w.gain = of(arg, value)?,
                "defer" => w.defer = of(arg, value)?,
                _ => return Err(format!("`{arg}`: no such name")),
            }
        }
        Ok(w)
    }

    fn tcp(&self) -> TcpConfig {
        TcpConfig {
            mtu: self.mtu,
            initial_window: self.window,
            offload: self.offload,
            merge: self.merge,
            dctcp_gain: self.gain,
            defer: self.defer,
            ..if self.protocol == "dctcp" { TcpConfig::dctcp() } else { TcpConfig::default() }
        }
    }

    fn hosts(&self) -> HostModel {
        let mut host = if self.host == "ideal" { HostModel::default() } else { HostModel::xl170() };
        if self.interrupt_us >= 0.0 {
            host.interrupt_delay = Delay::fixed(Time::from_micros_f64(self.interrupt_us));
        }
        if let Ok(ns) = u64::try_from(self.packet_ns) {
            host.per_packet = Time::from_nanos(ns);
        }
        if let Ok(cores) = u32::try_from(self.cores) {
            host.receive_cores = cores;
        }
        if self.stall_us > 0.0 {
            let every = Time::from_micros_f64(self.stall_every_ms * 1e3);
            host.noise.push(Noise { every, lasts: Time::from_micros_f64(self.stall_us) });
        }
        host
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let wanted = Wanted::parse(&args).unwrap_or_else(|err| {
        eprintln!("buffers: {err}");
        std::process::exit(2)
    });
    match wanted.protocol.as_str() {
        "homa" => {
            let lengths = lengths(&wanted);
            let mut config = Config {
                mtu: wanted.mtu as usize,
                unsched_bytes: 60_000,
                window: 60_000,
                max_incoming: 480_000,
                link_mbps: 25_000,
                ..Config::default()
            };
            fit_cutoffs(&mut config, &lengths);
            let make =
                |host| Homa::new(host, &config, wanted.client_ports, wanted.server_ports).acquainted(wanted.nodes);
            profile(&wanted, make, |_| Vec::new());
        }
        "tcp" | "dctcp" => profile(&wanted, Tcp::maker(&wanted.tcp()), |tcp: &Tcp| tcp.under_way().collect()),
        other => {
            eprintln!("buffers: protocol {other}: expected homa, tcp or dctcp");
            std::process::exit(2)
        }
    }
}

fn lengths(wanted: &Wanted) -> Distribution {
    Distribution::new(Workload::Named(wanted.workload), Reduction::default())
}

/// What waits at a moment.
#[derive(Default)]
struct Moment {
    at: Time,
    sum: u64,
    ports: Vec<u64>,
    /// Connections with data under way to each host, and their bytes.
    flows: Vec<(u32, u64)>,
}

/// Runs the load and prints what waited. `flows`: a transport's connections with segments under way.
fn profile<T: Transport>(wanted: &Wanted, make: impl Fn(HostId) -> T, flows: impl Fn(&T) -> Vec<(HostId, u32)>) {
    let load = Load::new(LoadSpec {
        nodes: wanted.nodes,
        roles: Roles::all(wanted.nodes),
        lengths: Arc::new(lengths(wanted)),
        gbps: wanted.gbps / 2.0,
        client_ports: wanted.client_ports,
        server_ports: wanted.server_ports,
        client_max: wanted.client_max,
        one_way: false,
        seed: wanted.seed,
    });
    let topology = Topology::SingleTor {
        hosts: wanted.nodes,
        host_gbps: 25.0,
        link_delay: Topology::rack(wanted.nodes).link_delay(),
    };
    let switch = SwitchConfig {
        ecn_threshold: (wanted.protocol == "dctcp").then_some(wanted.threshold),
        ..SwitchConfig::default()
    };
    let transports = (0..wanted.nodes).map(|host| make(HostId(host))).collect();
    let mut sim = Sim::new(&topology, switch, wanted.hosts(), transports, load, wanted.seed);
    sim.run_until(Time::from_millis(wanted.warmup));
    sim.app_mut().measure();
    sim.reset_switch_stats();
    let (begin, end) = (sim.now(), Time::from_millis(wanted.warmup + wanted.ms));
    let mss = u64::from(wanted.mtu - 52);
    let (mut sums, mut ports, mut counts, mut most) = (Vec::new(), Vec::new(), Vec::new(), Moment::default());
    let mut at = begin;
    while at < end {
        at += Time::from_micros(10);
        sim.run_until(at);
        let now: Vec<u64> = sim.waiting().collect();
        let sum: u64 = now.iter().sum();
        sums.push(sum);
        ports.extend_from_slice(&now);
        let looks = sums.len() % 10 == 0;
        if sum > most.sum || looks {
            let mut to = vec![(0, 0); wanted.nodes as usize];
            for (host, segments) in sim.transports().iter().flat_map(&flows) {
                to[host.index()].0 += 1;
                to[host.index()].1 += u64::from(segments) * mss;
            }
            if looks {
                counts.extend(to.iter().map(|(count, _)| u64::from(*count)));
            }
            if sum > most.sum {
                most = Moment { at, sum, ports: now, flows: to };
            }
        }
    }
    print(wanted, &mut [sums, ports, counts], &most);
    let stats = &sim.switch_stats()[0];
    let mut short: Vec<u64> =
        sim.app().nodes().iter().flat_map(|n| &n.samples).filter(|s| s.len < 1500).map(|s| s.service_ns).collect();
    short.sort_unstable();
    let rtt = |share: usize| short.get(short.len() * share / 100).map_or(f64::NAN, |ns| *ns as f64 / 1e3);
    let received: u64 = sim.app().nodes().iter().map(|node| node.received.1).sum();
    let gbps = received as f64 * 8e3 / ((end - begin).as_picos() as f64 * f64::from(wanted.nodes));
    println!(
        "high water {:.2} MB at {:.2} ms, one port {:.0} KB; {gbps:.1} Gbps in; {} marks, {} drops; short RTT P50 {:.1} us, P99 {:.1} us; {} packets",
        stats.high_water_bytes as f64 / 1e6,
        stats.high_water_at.as_micros_f64() / 1e3,
        stats.ports.iter().map(|port| port.high_water_bytes).max().unwrap_or(0) as f64 / 1e3,
        stats.marks,
        stats.drops.iter().sum::<u64>(),
        rtt(50),
        rtt(99),
        sim.delivered(),
    );
}

fn print(wanted: &Wanted, over_time: &mut [Vec<u64>; 3], most: &Moment) {
    println!("{wanted:?}");
    println!("                                P50     P90     P99   P99.9     most");
    let rows = [("all ports, KB", 1e3), ("one port, KB", 1e3), ("connections sending to a host", 1.0)];
    for ((name, unit), values) in rows.into_iter().zip(over_time) {
        values.sort_unstable();
        let at = |share: f64| values.get((values.len() as f64 * share) as usize).or(values.last());
        let at = |share: f64| at(share).map_or(f64::NAN, |value| *value as f64 / unit);
        let [a, b, c, d, e] = [0.5, 0.9, 0.99, 0.999, 1.0].map(at);
        println!("{name:30} {a:6.0}  {b:6.0}  {c:6.0}  {d:6.0}  {e:7.0}");
    }
    let mut ports: Vec<usize> = (0..most.ports.len()).collect();
    ports.sort_by_key(|port| std::cmp::Reverse(most.ports[*port]));
    println!(
        "at {:.2} ms, {:.2} MB; ports with most (KB waiting, connections, KB under way):",
        most.at.as_micros_f64() / 1e3,
        most.sum as f64 / 1e6
    );
    for port in ports.into_iter().take(8) {
        let (count, bytes) = most.flows.get(port).copied().unwrap_or_default();
        print!("  {port}: {:.0}, {count}, {:.0};", most.ports[port] as f64 / 1e3, bytes as f64 / 1e3);
    }
    println!();
}
