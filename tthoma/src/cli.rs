//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    #[command(subcommand, arg_required_else_help = true)]
    Analyze(Analyze),
    /// List the analyses, the question that each answers and the events it needs
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Analyze {
    /// Where do packets and hand-offs between cores and threads spend time?
    Delay(Common),
    /// How far apart are the nodes' clocks, and how wrong can times between nodes be?
    Sync(Common),
    /// Any other word, for a better message than clap's
    #[command(external_subcommand)]
    Unknown(Vec<OsString>),
}

/// Options of all analyses.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Traces: .tt files, also .gz and .zst, or directories of them; a node is named after its file
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    /// Form of the results on standard output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,

    /// More detail: slowest packets, messages that no analysis knows
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Use the times in the traces as they are, without synchronising the nodes' clocks
    #[arg(long)]
    pub(crate) no_sync: bool,

    /// Do not list negative delays; they stay in the tables
    #[arg(long)]
    pub(crate) negative_ok: bool,
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
