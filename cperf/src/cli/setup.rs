//! Options of `cperf setup`.

use std::path::PathBuf;

use clap::Args;

/// Text below the options.
pub(super) const HELP: &str = "\
Examples:
  cperf setup --cluster lab.toml --dry-run            the commands, machine by machine; nothing is changed
  cperf setup --cluster lab.toml --mtu 9000 --interrupts
  cperf setup --cluster lab.toml --only-given --sysctl net.core.rmem_max=33554432
  cperf setup --cluster lab.toml --switch-ports --ecn-threshold 78 --switch-buffer 13.2
  cperf setup --cluster lab.toml --restore            everything as it was before

On every machine, unless --only-given: larger socket buffers, packets spread over cores by flow (RPS and RFS), interrupts \
without delay, cores at full speed, and, where the kernel's Homa module is loaded, its parameters for link_gbps of the \
cluster file. What a setting was is written to DIRECTORY/setup-ADDRESS.json on the machine before it is changed, and --restore puts \
it back from there, also after a set-up that failed or was ended. The switch ([switch] in the cluster file) is reset to what \
its ports have by default.

Exit codes: 0 done; 1 something could not be set (the rest was; it is told); 2 wrong usage or cluster file; 3 a machine or \
the switch cannot be reached.";

/// Options of `cperf setup`.
#[derive(Clone, Debug, Args)]
pub struct SetupArgs {
    /// The machines and how to reach them; docs/ssh.md has an example
    #[arg(long, value_name = "FILE.toml")]
    pub cluster: PathBuf,
    /// Print the commands, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Put back what was changed
    #[arg(long, conflicts_with_all = ["mtu", "qdisc", "sysctl", "interrupts", "only_given"])]
    pub restore: bool,
    /// Only what is given here, nothing by default
    #[arg(long)]
    pub only_given: bool,
    /// MTU of the data plane's interfaces, bytes [default: as it is]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(68..=65_535))]
    pub mtu: Option<u32>,
    /// Queueing discipline of the data plane's interfaces: mq, fq_codel, pfifo_fast
    #[arg(long, value_name = "KIND")]
    pub qdisc: Option<String>,
    /// Kernel parameter, NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE")]
    pub sysctl: Vec<String>,
    /// Each interrupt of the data plane's interface on a core of its own
    #[arg(long)]
    pub interrupts: bool,
    /// Switch: trust priorities, serve them strictly, carry long packets, mark packets
    #[arg(long)]
    pub switch_ports: bool,
    /// Switch: memory for packets of all ports together, 10^6 bytes [default: as it is]
    #[arg(long, value_name = "MB")]
    pub switch_buffer: Option<f64>,
    /// Switch: packets are marked from this queue length on, 10^3 bytes [default: as it is; 70 with --switch-ports]
    #[arg(long, value_name = "KB")]
    pub ecn_threshold: Option<u32>,
}
