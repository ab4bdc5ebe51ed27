//! Options of `cperf doctor`.

use std::path::PathBuf;

use clap::Args;

use super::Format;

/// Text below the options.
pub(super) const HELP: &str = "\
Examples:
  cperf doctor --cluster lab.toml
  cperf doctor --cluster lab.toml --packet-bytes 9000    does every path carry jumbo packets?

Looked at are, on every machine: login, clock, interface, address, link, privileges, governor and idle states, irqbalance, \
clock source, disk, memory, limits, processes of other runs; between all: MTU, kernel, processor, link speed, and whether \
each reaches each other with short and with the longest packets; of every core, how long sending takes.

Exit codes: 0 a run will work (what is odd is told); 2 wrong usage or cluster file; 3 something is in the way of a run.";

/// Options of `cperf doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// The machines and how to reach them; docs/ssh.md has an example
    #[arg(long, value_name = "FILE.toml")]
    pub cluster: PathBuf,
    /// Length of the long packets that paths are tried with, bytes [default: the interface's MTU]
    #[arg(long, value_name = "BYTES")]
    pub packet_bytes: Option<usize>,
    /// Packets that each core sends to see how long it takes
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sends: u32,
    /// Findings on standard output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}
