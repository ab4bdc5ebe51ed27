//! Commands and options: one definition for the command line and for the lines of interactive mode.

mod options;
mod probe;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use scan_metrics::cli::shell::{CompletionsArgs, ManArgs};

pub(crate) use self::options::{ClientOptions, Common, NodeAddr, Protocol, ServerOptions, TcpWait};
pub(crate) use self::probe::{Flow, FlowServer, ProbeClient, ProbeEnd, ProbeServer, ProbeTransport};
use crate::workload::{MIN_MTU, Workload};

const AFTER_HELP: &str = "\
Without a command, cp-node is interactive: it writes the prompt `% `, reads a command from standard input, and so on; \
the next prompt says that the command is done, text before it is an error message.
With a command it runs that one, and then logs statistics each second until it is killed.

Exit codes: 0 done, 1 the command failed, 2 wrong usage, 3 a privilege or network interface is missing.";

const CLIENT_HELP: &str = "\
Examples:
  client --protocol tcp --hosts 1=10.77.0.2 --workload w2 --gbps 0.5 --client-max 200
  client --id 0 --servers 0,1,2 --server-ports 3 --ports 3 --workload w4 --gbps 5 --client-max 200 --exp homa_w4
  client --protocol homa --hosts 1=10.77.0.2 --workload w4 --unloaded 500";

const SERVER_HELP: &str = "\
Examples:
  server --protocol tcp --ports 8 --exp tcp_w2
  server --ports 3 --interface ens1f1 --homa link_mbps=25000";

/// Generates RPC load over Homa or TCP, answers it, and measures it: one node of a benchmark.
#[derive(Debug, Parser)]
#[command(name = "cp-node", version, after_help = AFTER_HELP, subcommand_required = false, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What to do; without it, commands are read from standard input.
    #[command(subcommand)]
    pub(crate) command: Option<Top>,
    /// Answer Prometheus at PORT of 127.0.0.1, or at ADDRESS:PORT: Homa metrics at /metrics, and at /homa_metrics as the
    /// kernel module writes them
    #[arg(long, value_name = "[ADDRESS:]PORT", value_parser = crate::exporter::address)]
    pub(crate) prometheus: Option<SocketAddr>,
    /// End when the process with this id, the parent, ends.
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) end_with: Option<u32>,
}

/// Commands of the command line: those of a node, and what shells and readers of manuals get from their definition.
#[derive(Debug, Subcommand)]
pub(crate) enum Top {
    #[command(flatten)]
    Node(Command),
    /// Print completions for a shell
    #[command(after_help = "Example: cp-node completions bash > ~/.local/share/bash-completion/completions/cp-node")]
    Completions(CompletionsArgs),
    /// Write manual pages
    #[command(after_help = "Example: cp-node man ~/.local/share/man/man1; man cp-node-client")]
    Man(ManArgs),
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
    #[command(after_help = CLIENT_HELP)]
    Client(Box<ClientOptions>),
    /// Open server ports: they answer requests
    #[command(after_help = SERVER_HELP)]
    Server(Box<ServerOptions>),
    /// Write all round-trip times since the last dump to FILE and, from the due times, to FILE.due; forget them
    #[command(name = "dump_times", after_help = "Examples: dump_times rtts homa_w4; dump_times /dev/null")]
    DumpTimes {
        /// File to write; /dev/null only forgets
        file: PathBuf,
        /// Only the clients of this experiment
        experiment: Option<String>,
    },
    /// Stop parts of this node
    #[command(after_help = "Example: stop senders clients")]
    Stop {
        /// What to stop
        #[arg(required = true)]
        what: Vec<Stop>,
    },
    /// Control the log, or write a message to it
    #[command(after_help = "Examples: log --file node.log --level normal; log Starting measurements")]
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
    #[command(after_help = "Example: debug 50 200, for round trips between 51 and 205 us")]
    Debug {
        /// Up to 5 integers
        #[arg(num_args = 0..=5, allow_negative_numbers = true)]
        values: Vec<i64>,
    },
    /// Print a workload's name, mean length in bytes and wire overhead ratio
    #[command(after_help = "Example: info w4 1500")]
    Info {
        /// Workload name or message length
        workload: Workload,
        /// Largest packet in bytes
        #[arg(value_parser = clap::value_parser!(u32).range(i64::from(MIN_MTU)..))]
        mtu: u32,
    },
    /// State the addresses of nodes; a node without one is looked up as `nodeNUMBER`
    #[command(after_help = "Example: hosts 0=10.77.0.1 1=10.77.0.2")]
    Hosts {
        /// Pairs NUMBER=ADDRESS
        #[arg(required = true, value_name = "NUMBER=ADDRESS")]
        pairs: Vec<NodeAddr>,
    },
    /// Write this node's Homa metrics to FILE
    #[command(after_help = "Example: metrics before.metrics")]
    Metrics {
        /// File to write
        file: PathBuf,
    },
    /// Write cumulative counters of each experiment to FILE as JSON
    #[command(after_help = "Example: stats counters.json")]
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
    /// Run a node for an orchestrator, which talks in frames over standard input and output (cperf --testbed ssh)
    #[command(after_help = "Example: ssh node3 /tmp/cp-node agent, with a program at the other end")]
    Agent {
        /// Add this to every reading of the clock that is reported, to see what a clock that is off does
        #[arg(long, default_value_t = 0.0, value_name = "S", allow_negative_numbers = true)]
        clock_offset_s: f64,
    },
    /// Keep the cores of this machine from sleeping deeper than what ends within US, until this process ends
    #[command(name = "cpu_latency", after_help = "Example: cpu_latency 0")]
    CpuLatency {
        /// Microseconds; 0 keeps them awake
        us: u32,
    },
    /// End the process
    #[command(after_help = "Example: exit")]
    Exit,
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

/// What `tt` does.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Trace {
    /// Stop recording
    #[command(after_help = "Example: tt freeze")]
    #[command(aliases = ["freezeboth", "kfreeze"])]
    Freeze,
    /// Forget the trace and record again
    #[command(after_help = "Example: tt unfreeze --until-full")]
    Unfreeze {
        /// Keep the first events from now on, as many as there is room for, instead of the last ones
        #[arg(long)]
        until_full: bool,
    },
    /// Freeze, write the trace to FILE, unfreeze; to FILE.metrics go the Homa metrics of the time that it covers, if
    /// it was begun by `unfreeze` and has overwritten no event
    #[command(after_help = "Example: tt print node0.tt")]
    Print {
        /// File to write
        file: PathBuf,
    },
}

fn positive() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
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
