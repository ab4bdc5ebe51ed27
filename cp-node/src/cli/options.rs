//! Options of `client` and `server`.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use homa_stack::driver::DeviceKind;

use super::positive;
use crate::parameters::Parameter;
use crate::samples::DEFAULT_MAX_SAMPLES;
use crate::workload::Workload;

/// Options of `client`; each command starts from the defaults.
#[derive(Clone, Debug, Args)]
#[command(args_override_self = true)]
pub(crate) struct ClientOptions {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Most requests outstanding from this node at once, shared evenly by the ports
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = positive())]
    pub(crate) client_max: u32,
    /// Lowest number of the server nodes, when --servers is absent
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) first_server: u8,
    /// Load in 10^9 bit/s of request bytes leaving this node; 0 is a closed loop, as fast as --client-max allows
    #[arg(long, default_value_t = 0.0, value_name = "X", value_parser = load)]
    pub(crate) gbps: f64,
    /// Number of this node (-1: none); servers with the same number are left out
    #[arg(long, default_value_t = -1, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i16).range(-1..=255))]
    pub(crate) id: i16,
    /// Send the first 20 bytes of a request as a piece of their own (here pieces never cost a copy: no effect)
    #[arg(long)]
    pub(crate) iovec: bool,
    /// Let TCP messages be longer than 1,000,000 bytes
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Ask for responses of at most 100 bytes
    #[arg(long)]
    pub(crate) one_way: bool,
    /// Client ports
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) ports: u16,
    /// Receiving threads per port (TCP and homa-kernel); Homa ports share the node's --homa-workers
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=256))]
    pub(crate) port_receivers: u16,
    /// Server nodes, numbered from --first-server
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) server_nodes: u16,
    /// Ports to use on each server node
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) server_ports: u16,
    /// Numbers of the server nodes; overrides --first-server and --server-nodes
    #[arg(long, value_delimiter = ',', value_name = "A,B,C")]
    pub(crate) servers: Vec<u8>,
    /// Instead of load: N round trips of each length of the workload, one at a time (Homa only)
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) unloaded: u32,
    /// Lengths of requests: w1 to w5, starve, or a fixed length in bytes
    #[arg(long, default_value = "100", value_name = "W")]
    pub(crate) workload: Workload,
    /// Seed of the load; the same seed and --id repeat it [default: from the operating system, and logged]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Samples kept until the next dump, 16 bytes each; more are counted as lost
    #[arg(long, default_value_t = DEFAULT_MAX_SAMPLES, value_name = "N")]
    pub(crate) max_samples: usize,
    /// Addresses of nodes, as with the `hosts` command
    #[arg(long, value_delimiter = ',', value_name = "NUMBER=ADDRESS")]
    pub(crate) hosts: Vec<NodeAddr>,
}

/// Options of `server`; each command starts from the defaults.
#[derive(Clone, Debug, Args)]
#[command(args_override_self = true)]
pub(crate) struct ServerOptions {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Accepted for old scripts; replies are always sent from where they lie
    #[arg(long)]
    pub(crate) iovec: bool,
    /// Restrict the server threads to this core; Homa's workers to this and the next ones [default: any core]
    #[arg(long, value_name = "C")]
    pub(crate) pin: Option<u16>,
    /// Threads per port (TCP and homa-kernel); Homa ports share the node's --homa-workers
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) port_threads: u16,
    /// Ports to open
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) ports: u16,
}

/// Options that clients and servers share.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Receive-buffer pages of 64 KiB for each Homa port
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = positive())]
    pub(crate) buf_bpages: u32,
    /// Experiment that this belongs to [default: PROTOCOL_WORKLOAD]
    #[arg(long, value_name = "NAME")]
    pub(crate) exp: Option<String>,
    /// Lowest server port [default: 4000 for homa and homa-kernel, 5000 for tcp]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) first_port: Option<u16>,
    /// Use IPv6
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Transport: homa, homa-kernel (the module of the kernel), or any other word for kernel TCP
    #[arg(long, default_value = "homa", value_name = "P")]
    pub(crate) protocol: String,
    /// Network interface for Homa [default: the only one that is up]
    #[arg(long, value_name = "IF")]
    pub(crate) interface: Option<String>,
    /// Threads that run Homa's protocol and share its ports; the first command that starts Homa decides [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) homa_workers: Option<u16>,
    /// Keep the privileges that Homa's sockets are opened with; without this they are given up
    #[arg(long)]
    pub(crate) keep_privileges: bool,
    /// Parameters of Homa; the first command that starts Homa decides
    #[arg(long, value_delimiter = ',', value_name = "NAME=VALUE")]
    pub(crate) homa: Vec<Parameter>,
    /// What carries Homa's packets: af-packet, or af-xdp, which needs CAP_BPF and CAP_NET_ADMIN too [default: af-packet]
    #[arg(long, value_name = "HOW")]
    pub(crate) device: Option<DeviceKind>,
    /// Send Homa packets in the guise of TCP, up to 64 KB at a time; packets that come are taken in either form
    #[arg(long)]
    pub(crate) hijack: bool,
    /// How TCP threads wait for data: asleep in epoll, or spinning on non-blocking reads
    #[arg(long, default_value = "epoll", value_name = "HOW")]
    pub(crate) tcp_wait: TcpWait,
    /// TCP congestion control, dctcp for example [default: the kernel's]
    #[arg(long, value_name = "NAME")]
    pub(crate) tcp_cc: Option<String>,
    /// Longest time to spin for the next event before sleeping, in us
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(crate) poll_usecs: u32,
}

impl Common {
    pub(crate) fn protocol(&self) -> Protocol {
        match self.protocol.as_str() {
            "homa" => Protocol::Homa,
            "homa-kernel" => Protocol::HomaKernel,
            _ => Protocol::Tcp,
        }
    }

    pub(crate) fn first_port(&self) -> u16 {
        self.first_port.unwrap_or(match self.protocol() {
            Protocol::Homa | Protocol::HomaKernel => 4000,
            Protocol::Tcp => 5000,
        })
    }

    pub(crate) fn poll(&self) -> Duration {
        Duration::from_micros(self.poll_usecs.into())
    }
}

impl ClientOptions {
    /// Numbers of the server nodes, without this node's own.
    pub(crate) fn server_numbers(&self) -> Vec<u8> {
        let first = u16::from(self.first_server);
        let counted = (first..first + self.server_nodes).filter_map(|n| u8::try_from(n).ok());
        let all: Vec<u8> = if self.servers.is_empty() { counted.collect() } else { self.servers.clone() };
        all.into_iter().filter(|n| i16::from(*n) != self.id).collect()
    }

    /// This node's number, if it has one.
    pub(crate) fn node(&self) -> Option<u8> {
        u8::try_from(self.id).ok()
    }

    /// Most requests outstanding from each port.
    pub(crate) fn port_max(&self) -> usize {
        (self.client_max as usize / usize::from(self.ports)).max(1)
    }

    pub(crate) fn experiment(&self) -> String {
        self.common.exp.clone().unwrap_or_else(|| format!("{}_{}", self.common.protocol, self.workload))
    }
}

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// This program's stack.
    Homa,
    /// The kernel's module.
    HomaKernel,
    Tcp,
}

/// How TCP threads wait for data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TcpWait {
    /// Asleep in epoll
    Epoll,
    /// Spinning on non-blocking reads while there is traffic
    Spin,
}

/// `NUMBER=ADDRESS`: where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeAddr {
    pub(crate) node: u8,
    pub(crate) addr: IpAddr,
}

impl FromStr for NodeAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = text.split_once('=').and_then(|(n, a)| Some((n.parse().ok()?, a.parse().ok()?)));
        let (node, addr) = pair.ok_or_else(|| format!("expected NUMBER=ADDRESS, like 0=10.77.0.1, found `{text}`"))?;
        Ok(Self { node, addr })
    }
}

fn load(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(gbps) if gbps.is_finite() && gbps >= 0.0 => Ok(gbps),
        _ => Err("expected a load in Gbps, 0 or more".into()),
    }
}
