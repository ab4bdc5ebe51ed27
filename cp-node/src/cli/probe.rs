//! Options of `probe`.

use std::net::IpAddr;

use clap::{Args, Subcommand, ValueEnum};
use homa_stack::driver::DeviceKind;

use super::positive;

/// The two ends of a latency probe.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ProbeEnd {
    /// Print `ready`, then echo until standard input ends
    #[command(after_help = "Example: cp-node probe server --transport homa")]
    Server(ProbeServer),
    /// Measure round trips one at a time and print one line of JSON
    #[command(after_help = "Example: cp-node probe client --transport homa --peer 10.77.0.1 --count 20000")]
    Client(ProbeClient),
    /// Print `ready`, then answer flows of messages until standard input ends
    #[command(after_help = "Example: cp-node probe flow-server --transport homa --length 1000000")]
    FlowServer(FlowServer),
    /// Send messages with several outstanding, and print bytes and messages a second as one line of JSON
    #[command(
        after_help = "Example: cp-node probe flow --transport homa --peer 10.77.0.1 --outstanding 8 --millis 2000"
    )]
    Flow(Flow),
}

/// Options of `probe flow-server`.
#[derive(Clone, Debug, Args)]
pub(crate) struct FlowServer {
    /// How packets travel: raw-ring, homa or tcp-spin
    #[arg(long)]
    pub(crate) transport: ProbeTransport,
    /// Port to listen on (not for raw-ring)
    #[arg(long, default_value_t = 4500)]
    pub(crate) port: u16,
    /// Network interface for homa and raw-ring [default: the only one that is up]
    #[arg(long, value_name = "IF")]
    pub(crate) interface: Option<String>,
    /// What carries Homa's packets: af-packet or af-xdp
    #[arg(long, default_value_t, value_name = "HOW")]
    pub(crate) device: DeviceKind,
    /// Send Homa's packets as TCP's, in super-frames that the interface or the kernel cuts (GSO)
    #[arg(long)]
    pub(crate) hijack: bool,
    /// Length of requests in bytes
    #[arg(long, default_value_t = 1_000_000, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(12..=1_000_000))]
    pub(crate) length: u32,
    /// Length of responses in bytes
    #[arg(long, default_value_t = 12, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(12..=1_000_000))]
    pub(crate) response: u32,
    /// Payload of a raw frame in bytes
    #[arg(long, default_value_t = 1500, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(64..=65_000))]
    pub(crate) frame: u32,
}

/// Options of `probe flow`: those of its server, and
#[derive(Clone, Debug, Args)]
pub(crate) struct Flow {
    #[command(flatten)]
    pub(crate) common: FlowServer,
    /// Address of the server
    #[arg(long)]
    pub(crate) peer: IpAddr,
    /// Requests outstanding at once; TCP has a connection for each, or one for all with --one-connection
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) outstanding: u32,
    /// TCP sends all requests by one connection
    #[arg(long)]
    pub(crate) one_connection: bool,
    /// Time to measure in ms, after a tenth of it to warm up
    #[arg(long, default_value_t = 500, value_name = "MS", value_parser = positive())]
    pub(crate) millis: u32,
}

/// Options of `probe server`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ProbeServer {
    /// How packets travel
    #[arg(long)]
    pub(crate) transport: ProbeTransport,
    /// Port to listen on (not for raw-ring)
    #[arg(long, default_value_t = 4500)]
    pub(crate) port: u16,
    /// Network interface for homa and raw-ring [default: the only one that is up]
    #[arg(long, value_name = "IF")]
    pub(crate) interface: Option<String>,
    /// What carries packets of homa and raw-ring: af-packet or af-xdp
    #[arg(long, default_value_t, value_name = "HOW")]
    pub(crate) device: DeviceKind,
}

/// Options of `probe client`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ProbeClient {
    /// How packets travel
    #[arg(long)]
    pub(crate) transport: ProbeTransport,
    /// Address of the server
    #[arg(long)]
    pub(crate) peer: IpAddr,
    /// Port of the server (not for raw-ring)
    #[arg(long, default_value_t = 4500)]
    pub(crate) port: u16,
    /// Network interface for homa and raw-ring [default: the only one that is up]
    #[arg(long, value_name = "IF")]
    pub(crate) interface: Option<String>,
    /// What carries packets of homa and raw-ring: af-packet or af-xdp
    #[arg(long, default_value_t, value_name = "HOW")]
    pub(crate) device: DeviceKind,
    /// Round trips to measure
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = positive())]
    pub(crate) count: u32,
    /// Round trips before that
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub(crate) warmup: u32,
    /// Length of request and response in bytes
    #[arg(long, default_value_t = 100, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(12..=1400))]
    pub(crate) length: u32,
    /// Time limit of the whole measurement in s
    #[arg(long, default_value_t = 30, value_name = "S", value_parser = positive())]
    pub(crate) limit: u32,
}

/// How the packets of a probe travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProbeTransport {
    /// Packet rings of raw sockets, no protocol: the floor
    RawRing,
    /// This project's Homa
    Homa,
    /// Kernel UDP, spinning
    UdpSpin,
    /// Kernel TCP, spinning
    TcpSpin,
    /// Kernel TCP, blocking
    TcpBlock,
}

impl ProbeTransport {
    /// Name as on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RawRing => "raw-ring",
            Self::Homa => "homa",
            Self::UdpSpin => "udp-spin",
            Self::TcpSpin => "tcp-spin",
            Self::TcpBlock => "tcp-block",
        }
    }
}
