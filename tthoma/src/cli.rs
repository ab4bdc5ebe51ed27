//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tthoma::analyze::Options;

/// Analyses time traces of the Homa transport: where packets and threads spend their time.
///
/// Exit status: 0 done; 1 the analysis has no results; 2 wrong usage or unreadable traces.
#[derive(Debug, Parser)]
#[command(name = "tthoma", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Analyse traces; `tthoma list` says what there is
    #[command(arg_required_else_help = true)]
    Analyze(Box<Analyze>),
    /// Walk through one RPC, or the slowest: where each microsecond went, on both nodes, and which queue held it
    Explain(Explain),
    /// Write traces in the form of a viewer
    #[command(subcommand)]
    Export(crate::export_command::Export),
    /// Record what this machine's kernel does with packets, as a trace on the clock of cp-node's
    Record(crate::record_command::RecordArgs),
    /// List the analyses, the question that each answers, the events it needs and its options
    List,
}

#[derive(Debug, Args)]
pub(crate) struct Analyze {
    /// Analyses, separated by commas; `all` for every one whose options are given
    #[arg(value_name = "NAME,...")]
    pub(crate) names: String,

    /// Traces: .tt files, also .gz and .zst, or directories of them; a node is named after its file
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    /// Form of the results on standard output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,

    #[command(flatten)]
    pub(crate) options: Options,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Id of the RPC on either side, CLIENT:ID, or `slow`
    #[arg(value_name = "RPC|slow")]
    pub(crate) rpc: String,

    /// Traces: .tt files, also .gz and .zst, or directories of them; a node is named after its file
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    /// How many of the slowest
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) top: usize,

    /// Form of the results on standard output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables for people
    Table,
    /// One JSON object with all options
    Json,
    /// A line for each row of the tables
    Csv,
}
