//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
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

const ANALYZE_HELP: &str = "\
Examples:
  tthoma analyze delay out/w4/traces
  tthoma analyze all out/w4/traces --format json > all.json
  tthoma analyze rpcs,grants node0.tt node1.tt --data columns --plot pictures";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Analyse traces; `tthoma list` says what there is
    #[command(arg_required_else_help = true, after_help = ANALYZE_HELP)]
    Analyze(Box<Analyze>),
    /// Walk through one RPC, or the slowest: where each microsecond went, on both nodes, and which queue held it
    #[command(after_help = "Examples: tthoma explain slow out/w4/traces --top 3; tthoma explain 1001 out/w4/traces")]
    Explain(Explain),
    /// Write traces in the form of a viewer
    #[command(subcommand)]
    Export(crate::export_command::Export),
    /// Record what this machine's kernel does with packets, as a trace on the clock of cp-node's
    Record(crate::record_command::RecordArgs),
    /// Write traces as Parquet tables, for this program, polars, DuckDB, pandas or Spark
    #[command(after_help = "Example: tthoma convert out/w4/traces --output tables --run w4")]
    #[cfg(feature = "tables")]
    Convert(Box<Convert>),
    /// Write everything about traces as one HTML file: clocks, every analysis, plots, the slowest RPCs step by step
    #[command(after_help = "Example: tthoma report out/w4/traces --output w4.html")]
    Report(Box<Report>),
    /// List the analyses, the question that each answers, the events it needs and its options
    #[command(after_help = "Example: tthoma list --events")]
    List {
        /// List the events that traces can hold instead
        #[arg(long, conflicts_with = "tables")]
        events: bool,
        /// List the tables of `tthoma convert` and their columns instead
        #[arg(long)]
        tables: bool,
    },
    /// Say what is in traces: events of each kind, unknown messages by shape, which analyses lack what
    #[command(after_help = "Example: tthoma inventory out/w4/traces")]
    Inventory(Box<Traces>),
    /// Print the records that match a regular expression, and those of freezes, with the times between them
    #[command(after_help = "Example: tthoma grep 'id 1001,' node0.tt --rebase")]
    Grep(Grep),
    /// Merge traces of one machine's clock, such as the kernel's and a program's, by their first lines
    #[command(after_help = "Example: tthoma merge kernel.tt node0.tt > both.tt")]
    Merge {
        /// The traces
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Print the records of a range of time
    #[command(after_help = "Example: tthoma range 1000 1500 node0.tt")]
    Range {
        /// First time, in us
        #[arg(allow_negative_numbers = true)]
        start: f64,
        /// Last time, in us
        #[arg(allow_negative_numbers = true)]
        end: f64,
        /// The trace; without it, or with `-`, standard input
        file: Option<PathBuf>,
    },
    /// Shift all times by NEW - OLD
    #[command(after_help = "Example: tthoma offset 1000 0 node0.tt")]
    Offset {
        /// A time, in us
        #[arg(allow_negative_numbers = true)]
        old: f64,
        /// What it is to become, in us
        #[arg(allow_negative_numbers = true)]
        new: f64,
        /// The trace; without it, or with `-`, standard input
        file: Option<PathBuf>,
    },
    /// Print how long before each kind of event the one before it was; with --from, how long after a start it comes
    #[command(after_help = "Example: tthoma sum node0.tt --from 'got packet'")]
    Sum(Sum),
    /// Print a raw trace, or one in a kernel's log, as .tt
    #[command(after_help = "Example: tthoma print dmesg.txt > node0.tt")]
    Print {
        /// The raw trace
        #[arg(default_value = "/proc/timetrace")]
        file: PathBuf,
        /// Write lines of the log that are not of the trace to this file
        #[arg(long, value_name = "FILE")]
        extra: Option<PathBuf>,
    },
    /// Print completions for a shell
    #[command(after_help = "Example: tthoma completions bash > ~/.local/share/bash-completion/completions/tthoma")]
    Completions {
        /// Whose completions
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write manual pages
    #[command(after_help = "Example: tthoma man ~/.local/share/man/man1; man tthoma-analyze")]
    Man {
        /// Directory for the pages, one a command; it is made if it is missing
        dir: PathBuf,
    },
}

/// `tthoma convert`.
#[cfg(feature = "tables")]
#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// Traces: .tt files, also .gz and .zst, or directories of them; a node is named after its file
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    /// Folder for the tables; without it they go to the cache, where analyses of the same traces find them
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,

    /// Name of the run in the tables; without it, the name of the folder of the first trace
    #[arg(long, value_name = "NAME")]
    pub(crate) run: Option<String>,

    /// Step of the table of intervals, in us
    #[arg(long, value_name = "US", default_value_t = 50.0)]
    pub(crate) interval: f64,

    /// Events of your own, by regular expressions in a TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,

    /// Use the times in the traces as they are
    #[arg(long)]
    pub(crate) no_sync: bool,

    /// Memory that it may take, about; larger runs are converted in parts, without the table of intervals, and need half
    /// their size on disk meanwhile
    #[arg(long, value_name = "MB", default_value_t = 1000)]
    pub(crate) memory: u64,
}

/// `tthoma report`.
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Traces: .tt files, also .gz and .zst, or directories of them; a node is named after its file
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    /// File for the report
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    pub(crate) output: PathBuf,

    #[command(flatten)]
    pub(crate) options: Options,
}

/// What analyses look at and how: all of `tthoma inventory`.
#[derive(Debug, Args)]
pub(crate) struct Traces {
    /// Traces: .tt files, also .gz and .zst, or directories of them; a node is named after its file
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    /// Form of the results on standard output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,

    #[command(flatten)]
    pub(crate) options: Options,
}

/// `tthoma grep`.
#[derive(Debug, Args)]
pub(crate) struct Grep {
    /// The first record printed has time 0
    #[arg(long)]
    pub(crate) rebase: bool,
    /// Matched anywhere in a record from its core's bracket on
    pub(crate) regex: String,
    /// The trace; without it, or with `-`, standard input
    pub(crate) file: Option<PathBuf>,
}

/// `tthoma sum`.
#[derive(Debug, Args)]
pub(crate) struct Sum {
    /// With --from: distributions of the time since the start instead of that since the event before
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Times between events of one core
    #[arg(short, long)]
    pub(crate) cores: bool,
    /// Events that contain this text begin a sequence
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) from: Option<String>,
    /// Leave numbers in the names of events
    #[arg(short, long)]
    pub(crate) numbers: bool,
    /// The traces; without any, or with `-`, standard input
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Analyze {
    /// Analyses, separated by commas; `all` for every one whose options are given
    #[arg(value_name = "NAME,...")]
    pub(crate) names: String,

    #[command(flatten)]
    pub(crate) traces: Traces,
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
    /// A file for each table, in the folder of --data
    #[cfg(feature = "tables")]
    Parquet,
}

#[cfg(test)]
#[path = "../../cperf/tests/help/walk.rs"]
mod walk;

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_command_says_units_defaults_and_an_example() {
        Cli::command().debug_assert();
        let lacks = walk::lacks(Cli::command());
        assert!(lacks.is_empty(), "{}", lacks.join("\n"));
    }

    #[test]
    fn names_that_are_nearly_right_bring_up_the_right_ones() {
        let missed = walk::without_suggestion(Cli::command());
        assert!(missed.is_empty(), "{}", missed.join("\n"));
    }
}
