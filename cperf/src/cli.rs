//! Command line.

pub mod compare;
pub mod doctor;
mod given;
mod kinds;
pub mod setup;
pub mod shell;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::basic::Section;
use crate::rates;
use crate::report::slowdown::Definition;
use crate::sim::spec::{HostKind, TopologyKind};
use crate::testbed::links::{Links, Shape};
pub use kinds::{Device, EngineKind, Format, OnFailure, Protocol, TcpWait, TestbedKind};

/// Benchmarks of the Homa and TCP transports over many nodes.
#[derive(Debug, Parser)]
#[command(name = "cperf", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 a run failed (what was measured is kept); 2 wrong usage or input; 3 a node, an interface or a \
privilege is missing; 4 done, but points that failed were left out; 130 interrupted (what was measured is kept).
Results go to standard output, everything else to standard error.";

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a benchmark or an experiment: make nodes, load them, measure, report
    #[command(after_help = RUN_HELP)]
    Run(Box<RunArgs>),
    /// List the experiments that come with cperf, or print one to copy and change
    #[command(after_help = EXPERIMENTS_HELP)]
    Experiments {
        /// What to do [default: list]
        #[command(subcommand)]
        command: Option<ExperimentsCommand>,
    },
    /// Make the tables, plots and reports of a run or an experiment again, from the files in its directory
    #[command(after_help = REPORT_HELP)]
    Report {
        /// Directory of a run or an experiment
        dir: PathBuf,
    },
    /// Compare runs with others, figure by figure: better, worse, or no more different than chance has it
    #[command(after_help = compare::HELP)]
    Compare(compare::CompareArgs),
    /// Check machines reached by SSH before a run, and say what to do about what is found
    #[command(after_help = doctor::HELP)]
    Doctor(doctor::DoctorArgs),
    /// Set machines reached by SSH, and their switch, up for benchmarks, and back
    #[command(after_help = setup::HELP)]
    Setup(setup::SetupArgs),
    /// Print completions for a shell
    #[command(after_help = shell::COMPLETIONS_HELP)]
    Completions(shell::CompletionsArgs),
    /// Write manual pages
    #[command(after_help = shell::MAN_HELP)]
    Man(shell::ManArgs),
    /// Measure one point of an experiment; what a scheduler's jobs call
    #[command(after_help = POINT_HELP)]
    Point {
        /// What to measure: spec.json of a point's directory
        spec: PathBuf,
        /// Directory for what comes of it; measurements that it has already are not made again
        out: PathBuf,
    },
    /// Find what is odd in the metrics of a run or of many: nodes, cores, runs
    ScanMetrics(Box<scan_metrics::cli::ScanArgs>),
    /// What changed on a node, from its metrics: counters, rates, where the time went
    Metrics(scan_metrics::cli::MetricsArgs),
    /// Counters that differ between two metrics files
    #[command(name = "diff-metrics")]
    Diff(scan_metrics::cli::DiffArgs),
}

/// What to do with the bundled experiments.
#[derive(Debug, Subcommand)]
pub enum ExperimentsCommand {
    /// Name and purpose of each
    #[command(after_help = "Example: cperf experiments list")]
    List,
    /// Print one's file
    #[command(after_help = EXPERIMENTS_HELP)]
    Show {
        /// Its name
        name: String,
    },
}

const EXPERIMENTS_HELP: &str = "\
Example: cperf experiments show overcommit > mine.toml, change it, cperf run mine.toml";

const REPORT_HELP: &str = "\
Examples:
  cperf report out/w4-20260101-120000         a run: report.html, one page that needs no other file, and reports/
  cperf report out/overcommit                 an experiment";

const POINT_HELP: &str = "\
Example: cperf point out/overcommit/points/0123456789abcdef/spec.json out/overcommit/points/0123456789abcdef";

const RUN_HELP: &str = "\
Examples:
  cperf run w4 --nodes 40                     Homa, TCP and DCTCP on 40 simulated nodes with links of 25 Gbps
  cperf run w4 --nodes 160 --host-model ideal --topology leaf-spine
  cperf run w4 --seeds 1,2,3,4,5              five times, with confidence intervals
  cperf run overcommit                        an experiment; `cperf experiments` lists them
  cperf run mine.toml --dry-run               what an experiment of yours would measure
  cperf run nodes --engine slurm              its points as jobs of a Slurm cluster
  cperf run w4 --testbed ssh --cluster lab.toml   machines reached by SSH: docs/ssh.md
  cperf run w4 --testbed netns --nodes 4      real packets between four network namespaces of this machine
  cperf run 100 --testbed netns --nodes 2 --gbps 0.01
  cperf run w4 --testbed netns --link-gbps 0.2 --load 0.8 --loss 0.01
  cperf run basic                             what this machine can do, without load

Workloads: w1 (Facebook key-value store), w2 (Google search), w3 (Google, all RPCs), w4 (Facebook Hadoop), \
w5 (web search), starve (100 KB to 1 MB), or a message length in bytes. Responses are as long as their requests.

Load: the rule for --gbps is printed with it under --help; offered and achieved load are in every result.

Files, in --out: report.html (open it in a browser), manifest.json, results.json, cperf.log, <protocol>_<workload>-<k>.rtts (from sending) and .rtts.due (from \
the due time), .stats, .metrics, time traces (.tt), reports/ (plots as SVG and PNG, column files). On sim all but \
about.json (times, machine, command) and cperf.log are the same bytes for the same seed. Experiments: points/, results.csv, \
results.parquet, by_length.csv, summary.csv, columns.csv, report.md, report.html.

Exit codes: 0 done; 1 a run failed (what was measured is kept); 2 wrong usage or input; 3 a node, an interface or a \
privilege is missing; 4 done, but points that failed were left out; 130 interrupted (what was measured is kept; a second Ctrl-C ends at once).";

/// Options of `cperf run`.
#[derive(Clone, Debug, Args, serde::Serialize, serde::Deserialize)]
pub struct RunArgs {
    /// w1, w2, w3, w4, w5, starve, a message length in bytes; basic (round trips, throughput and rate of this machine
    /// without load); an experiment's name (`cperf experiments`), or its file, FILE.toml
    pub workload: String,
    /// Where the nodes are: sim are simulated, in virtual time; netns are network namespaces of this machine, without
    /// root; ssh are machines of a --cluster
    #[arg(long, value_enum, default_value_t = TestbedKind::Sim)]
    pub testbed: TestbedKind,
    /// ssh: the machines and how to reach them; docs/ssh.md has an example
    #[arg(long, value_name = "FILE.toml")]
    #[serde(default)]
    pub cluster: Option<PathBuf>,
    /// Number of nodes, 2 to 256; each is client and server [default: 10; 4 on netns; all of the cluster on ssh]
    #[arg(short, long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub nodes: usize,
    /// How many of the nodes are clients: the last of them; 0: all
    #[arg(long, default_value_t = 0, value_name = "N")]
    #[serde(default)]
    pub client_nodes: usize,
    /// How many of the nodes are servers: the first of them; 0: all
    #[arg(long, default_value_t = 0, value_name = "N")]
    #[serde(default)]
    pub server_nodes: usize,
    /// Protocols to compare under the same load; netns has homa and tcp [default: homa,tcp,dctcp; homa,tcp on netns]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    pub protocols: Vec<Protocol>,
    /// All protocols at the same time, each with the load of --gbps, instead of one after the other
    #[arg(long)]
    #[serde(default)]
    pub together: bool,
    /// Load; the texts for `--help` are below.
    #[arg(short = 'b', long, value_name = "GBPS", help = GBPS_HELP, long_help = gbps_help())]
    pub gbps: Option<f64>,
    /// Length of the measured interval of each protocol, seconds, of virtual time on sim [default: 0.1; 5 on netns]
    #[arg(short, long, default_value_t = 0.0, hide_default_value = true, value_name = "S")]
    pub seconds: f64,
    /// Time under load before measuring starts, seconds, of virtual time on sim [default: 0.02; 1 on netns]
    #[arg(long, default_value_t = -1.0, hide_default_value = true, value_name = "S")]
    pub warmup: f64,
    /// Seed of message lengths, destinations and sending times; the same seed makes the same load
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Directory for all files; must be empty or not exist [default: out/WORKLOAD-TIME]
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Results on standard output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Most requests outstanding from a node at once
    #[arg(long, default_value_t = 200, value_name = "N")]
    pub client_max: u32,
    /// MTU of all links, bytes [default: 3000; on netns 9000, 1500 with --link-gbps]. On one machine the nodes' cores are
    /// scarce, not the links, and a packet costs a core much the same whatever its length; with 1500 a stack without
    /// segmentation offload spends six times the packets on a long message that TCP, with it, does not
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// Rate of each node's link to the switch and back, 10^9 bit/s with all framing, for every protocol alike [default: 25;
    /// on netns as fast as the machine]. Homa's parameters are scaled to it
    #[arg(long, value_name = "GBPS")]
    pub link_gbps: Option<f64>,
    /// Buffer of the switch, bytes. sim: of each switch, shared by its ports [default: 13200000]. netns, with --link-gbps:
    /// of each port toward its node, for each of its levels [default: 200000]
    #[arg(long, value_name = "BYTES")]
    pub switch_buffer: Option<u64>,
    /// Strict levels of a switch port, 1 to 8; 1 is off; on netns by IP precedence, with --link-gbps
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub priorities: u8,
    /// Instead of --gbps: load as a share of the link's rate, headers and framing included (those of Homa at this MTU; all
    /// protocols get the same messages); on netns with --link-gbps
    #[arg(long, value_name = "SHARE", conflicts_with = "gbps")]
    pub load: Option<f64>,
    /// sim: switches mark packets of DCTCP whose queue has this many bytes or more
    #[arg(long, default_value_t = crate::sim::spec::DEFAULT_THRESHOLD, value_name = "BYTES")]
    pub dctcp_threshold: u64,
    /// sim: what hosts add to the network
    #[arg(long, value_enum, default_value_t = HostKind::Xl170)]
    pub host_model: HostKind,
    /// sim: how hosts and switches are joined; leaf-spine has racks of up to 16 hosts and 4 spine switches, with links
    /// between them of 4 times --link-gbps
    #[arg(long, value_enum, default_value_t = TopologyKind::Tor)]
    pub topology: TopologyKind,
    /// sim: simulations at once [default: as many as cores]. Results do not depend on it
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// sim: measure with each of these seeds, and give confidence intervals: 1,2,3 or 1-5
    #[arg(long, value_name = "LIST", conflicts_with = "seed")]
    pub seeds: Option<String>,
    /// Experiments: print what would be measured, and what is measured already
    #[arg(long)]
    pub dry_run: bool,
    /// Experiments: what measures the points
    #[arg(long, value_enum, default_value_t = EngineKind::Local)]
    pub engine: EngineKind,
    /// Experiments, engine slurm: arguments of sbatch, as one string
    #[arg(long, default_value = "", value_name = "ARGS", allow_hyphen_values = true)]
    pub slurm_args: String,
    /// Experiments, engine slurm: most tasks of the job array; more points share tasks
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub slurm_tasks: usize,
    /// Experiments: set a parameter, instead of what the file says, NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// On netns and ssh: how often a point of an experiment, or a protocol of a run, that failed (a node died, hung, lost its
    /// link or filled its disk) is measured again [default: 1; 0 for a run]
    #[arg(long, value_name = "N")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<u32>,
    /// On netns and ssh: what is done about one that failed more often than that [default: leave-out; stop for a run]
    #[arg(long, value_enum)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// On netns and ssh: how long nodes that cannot be used any more are waited for before a point is left out, seconds
    /// [default: 300]
    #[arg(long, value_name = "S")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_nodes: Option<f64>,
    /// Share of the IP packets that the switch loses at random, 0 to below 1
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub loss: f64,
    /// Nodes talk over IPv6
    #[arg(long)]
    pub ipv6: bool,
    /// Parameters of Homa on the nodes, over the defaults and over what --link-gbps scales
    #[arg(long, value_delimiter = ',', value_name = "NAME=VALUE")]
    pub homa: Vec<String>,
    /// What carries Homa's packets on the nodes. af-xdp needs CAP_BPF and CAP_NET_ADMIN outside of user namespaces, thus
    /// root for netns; basic measures both anyway, where it may
    #[arg(long, value_enum, default_value_t = Device::AfPacket)]
    pub device: Device,
    /// Homa's packets in the guise of TCP's (af-packet only); on links as fast as the machine, up to 64 KB at a time
    #[arg(long)]
    pub hijack: bool,
    /// Threads with a Homa stack of their own on each node, behind its one address (af-packet only). Each client port
    /// belongs to one of them: fewer --client-ports leave some without work
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub homa_workers: u16,
    /// What a round-trip time is divided by
    #[arg(long, value_enum, default_value_t = Definition::Atc21)]
    pub slowdown: Definition,
    /// Round-trip time of an empty message, us, for --slowdown fixed
    #[arg(long, default_value_t = 15.0, value_name = "US")]
    pub base_usecs: f64,
    /// Link speed, Mbit/s, for --slowdown fixed and alt [default: 25000; on sim that of the links]
    #[arg(long, default_value_t = 25_000.0, hide_default_value = true, value_name = "MBPS")]
    pub link_mbps: f64,
    /// Samples per message length in the unloaded run that --slowdown atc21 and alt need
    #[arg(long, default_value_t = 15, value_name = "N")]
    pub unloaded_samples: u32,
    /// Homa client ports per node [default: 3; 1 on netns]
    #[arg(long, default_value_t = 1, hide_default_value = true, value_name = "N")]
    pub client_ports: u16,
    /// Homa server ports per node [default: 3; 1 on netns]
    #[arg(long, default_value_t = 1, hide_default_value = true, value_name = "N")]
    pub server_ports: u16,
    /// TCP client ports (on netns sending threads) per node [default: 4; 1 on netns]
    #[arg(long, default_value_t = 1, hide_default_value = true, value_name = "N")]
    pub tcp_client_ports: u16,
    /// TCP server ports per node [default: 8; 1 on netns]
    #[arg(long, default_value_t = 1, hide_default_value = true, value_name = "N")]
    pub tcp_server_ports: u16,
    /// Receiving threads per client port of TCP and homa-kernel
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub tcp_port_receivers: u16,
    /// Threads per server port of TCP and homa-kernel
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub tcp_port_threads: u16,
    /// How TCP threads wait: asleep in epoll, or spinning
    #[arg(long, value_enum, default_value_t = TcpWait::Epoll)]
    pub tcp_wait: TcpWait,
    /// TCP congestion control of all connections, whatever the machine's own setting
    #[arg(long, default_value = "cubic", value_name = "NAME")]
    pub tcp_cc: String,
    /// Longest time that a node spins for the next event before it sleeps, us [default: 50 if there are more cores than
    /// nodes, else 5: a node that spins on a core that another one needs delays it]
    #[arg(long, value_name = "US")]
    pub poll_usecs: Option<u32>,
    /// Keep cores from sleeping deeper than what ends within so long, us, by /dev/cpu_dma_latency while the run lasts; 0
    /// keeps them awake. Takes root on the machine [default: as deep as they like]
    #[arg(long, value_name = "US")]
    #[serde(default)]
    pub cpu_latency_us: Option<u32>,
    /// basic: round trips per transport and round (a quarter of it for tcp-block)
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    pub count: u32,
    /// basic: rounds; transports take turns, results are medians over rounds
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub rounds: u32,
    /// basic: what is measured
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "latency,throughput,rate,ipv6",
        value_name = "LIST"
    )]
    pub sections: Vec<Section>,
    /// basic: message length, bytes
    #[arg(long, default_value_t = 100, value_name = "BYTES")]
    pub length: u32,
    /// Options that stood on the command line, as they are named there without dashes.
    #[arg(skip)]
    #[serde(skip)]
    pub given: Vec<String>,
}

impl RunArgs {
    /// MTU in effect.
    pub fn mtu(&self) -> u32 {
        self.mtu.unwrap_or(if self.link_gbps.is_some() { 1500 } else { 9000 })
    }

    /// Links in effect.
    pub fn links(&self) -> Links {
        let priorities = self.priorities;
        let switch_buffer_bytes = self.switch_buffer.map_or(NETNS_BUFFER, |bytes| bytes.try_into().unwrap_or(u32::MAX));
        let shape = self.link_gbps.map(|link_gbps| Shape { link_gbps, switch_buffer_bytes, priorities });
        Links { shape, loss: self.loss }
    }
}

/// Buffer of a port on netns, bytes.
const NETNS_BUFFER: u32 = 200_000;

const GBPS_HELP: &str = "Load: message payload per node and direction, 10^9 bit/s, requests and responses together; 0 is \
                         as much as --client-max allows [default: by workload, on netns also by machine, see --help]";

/// The long form also has the rules, and their figures on this machine.
fn gbps_help() -> String {
    let share = |name: &str, mean| format!("{name} {}", rates::default_gbps(rates::cores(), 4, mean));
    let here = [share("w1", 192.8), share("w3", 2_567.7), share("w4", 61_008.1)].join(", ");
    let cores = rates::cores();
    let sim = crate::sim::check::RULE;
    format!(
        "{GBPS_HELP}. Rule on sim: {sim}. Rule on netns: {}. On this machine ({cores} cores), 4 nodes: {here}.",
        rates::RULE
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_states_units_defaults_and_exit_codes() {
        let mut run = Cli::command().find_subcommand("run").expect("it is there").clone();
        let help = run.render_long_help().to_string();
        for part in
            ["seconds", "bytes", "10^9 bit/s", "[default: 10", "[default: 200]", "Exit codes: 0", "130", "Rule on"]
        {
            assert!(help.contains(part), "no `{part}` in:\n{help}");
        }
    }
}
