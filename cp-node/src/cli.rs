//! Commands and options: one definition for the command line and for the lines of interactive mode.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::samples::DEFAULT_MAX_SAMPLES;
use crate::workload::{MIN_MTU, Workload};

const AFTER_HELP: &str = "\
Without a command, cp-node is interactive: it writes the prompt `% `, reads a command from standard input, and so on; \
the next prompt says that the command is done, text before it is an error message.
With a command it runs that one, and then logs statistics each second until it is killed.

Exit codes: 0 done, 1 the command failed, 2 wrong usage, 3 a privilege or network interface is missing.";

/// Generates RPC load over Homa or TCP, answers it, and measures it: one node of a benchmark.
#[derive(Debug, Parser)]
#[command(name = "cp-node", version, after_help = AFTER_HELP, subcommand_required = false, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What to do; without it, commands are read from standard input.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// A line of interactive mode: the same commands without a program name.
#[derive(Debug, Parser)]
#[command(name = "", no_binary_name = true, disable_help_subcommand = true, args_override_self = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

impl Command {
    /// Parses a line of interactive mode: words separated by blanks or tabs, without quoting; `None` if there are none.
    pub(crate) fn parse_line(line: &str) -> Option<Result<Self, clap::Error>> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if words.is_empty() {
            return None;
        }
        Some(Line::try_parse_from(words).map(|l| l.command))
    }
}

/// What a node can be told to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start client ports: they send requests and measure round trips
    Client(Box<ClientOptions>),
    /// Open server ports: they answer requests
    Server(Box<ServerOptions>),
    /// Write all round-trip times since the last dump to FILE and, from the due times, to FILE.due; forget them
    #[command(name = "dump_times")]
    DumpTimes {
        /// File to write; /dev/null only forgets
        file: PathBuf,
        /// Only the clients of this experiment
        experiment: Option<String>,
    },
    /// Stop parts of this node
    Stop {
        /// What to stop
        #[arg(required = true)]
        what: Vec<Stop>,
    },
    /// Control the log, or write a message to it
    Log {
        /// File to log to from now on, truncated; - is stdout
        #[arg(long, value_name = "F")]
        file: Option<String>,
        /// Lines to write
        #[arg(long)]
        level: Option<Level>,
        /// Message
        #[arg(trailing_var_arg = true)]
        text: Vec<String>,
    },
    /// Control the time trace of this node's Homa stack
    Tt {
        /// What to do with it
        #[command(subcommand)]
        action: Trace,
    },
    /// Set debug values: a response below 1500 bytes whose RTT is between 0 and 1 (units of 1024 ns) freezes the trace
    Debug {
        /// Up to 5 integers
        #[arg(num_args = 0..=5, allow_negative_numbers = true)]
        values: Vec<i64>,
    },
    /// Print a workload's name, mean length in bytes and wire overhead ratio
    Info {
        /// Workload name or message length
        workload: Workload,
        /// Largest packet in bytes
        #[arg(value_parser = clap::value_parser!(u32).range(i64::from(MIN_MTU)..))]
        mtu: u32,
    },
    /// State the addresses of nodes; a node without one is looked up as `nodeNUMBER`
    Hosts {
        /// Pairs NUMBER=ADDRESS
        #[arg(required = true, value_name = "NUMBER=ADDRESS")]
        pairs: Vec<NodeAddr>,
    },
    /// Write this node's Homa metrics to FILE
    Metrics {
        /// File to write
        file: PathBuf,
    },
    /// Write cumulative counters of each experiment to FILE as JSON
    Stats {
        /// File to write, or `reset` to count from now
        file: PathBuf,
    },
    /// Measure round trips between two nodes without load: the floor of this machine
    Probe {
        /// Which end
        #[command(subcommand)]
        end: ProbeEnd,
    },
    /// End the process
    Exit,
}

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
    /// Receiving threads per port (TCP); Homa ports share the node's one protocol thread
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
    /// Restrict the server threads to this core
    #[arg(long, value_name = "C")]
    pub(crate) pin: Option<u16>,
    /// Threads per port (TCP); Homa ports share the node's one protocol thread
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
    /// Lowest server port [default: 4000 for homa, 5000 for tcp]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) first_port: Option<u16>,
    /// Use IPv6
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Transport: homa, or any other word for kernel TCP
    #[arg(long, default_value = "homa", value_name = "P")]
    pub(crate) protocol: String,
    /// Network interface for Homa [default: the only one that is up]
    #[arg(long, value_name = "IF")]
    pub(crate) interface: Option<String>,
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
        if self.protocol == "homa" { Protocol::Homa } else { Protocol::Tcp }
    }

    pub(crate) fn first_port(&self) -> u16 {
        self.first_port.unwrap_or(match self.protocol() {
            Protocol::Homa => 4000,
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
    Homa,
    Tcp,
}

/// What `stop` stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stop {
    /// Sending, then wait up to 2 s for responses, then close the client ports
    Clients,
    /// Sending only
    Senders,
    /// All server ports
    Servers,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    Normal,
    Verbose,
}

/// How TCP threads wait for data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TcpWait {
    /// Asleep in epoll
    Epoll,
    /// Spinning on non-blocking reads while there is traffic
    Spin,
}

/// What `tt` does.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Trace {
    /// Stop recording
    #[command(aliases = ["freezeboth", "kfreeze"])]
    Freeze,
    /// Record again
    Unfreeze,
    /// Freeze, write the trace to FILE, unfreeze
    Print {
        /// File to write
        file: PathBuf,
    },
}

/// The two ends of a latency probe.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ProbeEnd {
    /// Print `ready`, then echo until standard input ends
    Server(ProbeServer),
    /// Measure round trips one at a time and print one line of JSON
    Client(ProbeClient),
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

fn positive() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

fn load(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(gbps) if gbps.is_finite() && gbps >= 0.0 => Ok(gbps),
        _ => Err("expected a load in Gbps, 0 or more".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn client(line: &str) -> ClientOptions {
        match Command::parse_line(line) {
            Some(Ok(Command::Client(options))) => *options,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
        Line::command().debug_assert();
    }

    #[test]
    fn client_defaults_are_those_of_the_original() {
        let o = client("client");
        assert_eq!((o.client_max, o.first_server, o.gbps, o.id), (1, 1, 0.0, -1));
        assert_eq!((o.ports, o.port_receivers, o.server_nodes, o.server_ports), (1, 1, 1, 1));
        assert_eq!((o.common.first_port(), o.common.buf_bpages), (4000, 1000));
        assert_eq!((o.common.protocol(), o.workload), (Protocol::Homa, Workload::Fixed(100)));
        assert_eq!((o.unloaded, o.one_way, o.experiment()), (0, false, "homa_100".to_owned()));
        let tcp = client("client --protocol dctcp --workload w2");
        assert_eq!((tcp.common.protocol(), tcp.common.first_port()), (Protocol::Tcp, 5000));
        assert_eq!(tcp.experiment(), "dctcp_w2");
    }

    /// Lines that a cluster benchmark sent, with its trailing blanks.
    #[test]
    fn lines_of_the_original_orchestrator_parse() {
        let o = client(
            "client --ports 1 --port-receivers 1 --server-ports 1 --workload w2 --servers 0,1 \
             --gbps 0.003\t --client-max 10 --protocol homa --id 0 --exp homa_w2 ",
        );
        assert_eq!(o.server_numbers(), [1], "the own number is left out");
        assert_eq!((o.gbps, o.port_max(), o.node()), (0.003, 10, Some(0)));
        for line in [
            "server --ports 1 --port-threads 1 --protocol tcp --exp tcp_w2 ",
            "log --file node.log --level normal",
            "log Starting measurements for homa_w2 experiment",
            "dump_times /dev/null homa_w2",
            "stop senders clients servers",
            "tt freezeboth",
            "tt kfreeze",
            "tt print FILE",
            "debug 1 -2 3",
            "exit",
            "hosts 0=10.77.0.1 1=fd00::2",
        ] {
            assert!(matches!(Command::parse_line(line), Some(Ok(_))), "{line}");
        }
    }

    #[test]
    fn numbers_of_servers_follow_from_the_options() {
        assert_eq!(client("client --first-server 3 --server-nodes 3 --id 4").server_numbers(), [3, 5]);
        assert_eq!(client("client --servers 2,0 --first-server 7").server_numbers(), [2, 0]);
        assert_eq!(client("client --client-max 10 --ports 3").port_max(), 3);
        assert_eq!(client("client --client-max 1 --ports 3").port_max(), 1);
    }

    #[test]
    fn log_keeps_words_after_the_first_as_text() {
        let Some(Ok(Command::Log { file, text, .. })) = Command::parse_line("log --file a.log hello --file b") else {
            panic!("not a log command");
        };
        assert_eq!((file.as_deref(), text.join(" ").as_str()), (Some("a.log"), "hello --file b"));
    }

    #[test]
    fn wrong_lines_are_errors_and_empty_ones_nothing() {
        assert!(Command::parse_line(" \t ").is_none());
        for line in [
            "frobnicate",
            "client --frob 1",
            "client --workload w9",
            "client --gbps nan",
            "client --gbps -1",
            "client --ports 0",
            "server --first-port 0",
            "hosts 1:10.0.0.1",
            "stop everything",
            "stop",
            "info w1 60",
        ] {
            assert!(matches!(Command::parse_line(line), Some(Err(_))), "{line}");
        }
    }
}
