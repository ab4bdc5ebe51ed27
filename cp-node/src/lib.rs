//! One node of a transport benchmark: generates RPC load over Homa or TCP, answers it, and measures it.
//!
//! A process is client and server at once. It is told what to do by one command on its command line, or interactively by
//! lines on standard input ([`main`]).
//!
//! ```text
//! line -> cli -> node -> arrivals, workload   when, where to and how long: the same from the same seed
//!                  |     transport::{homa,tcp}   send, receive, answer
//!                  |        -> client         slots and counters of a port -> samples
//!                  +-> stats, totals          lines each second, JSON
//!                  +-> exporter               metrics over HTTP, if asked for
//!                  +-> rtts                   .rtts files
//! agent: this program again as a child, for an orchestrator over SSH
//! ```
//!
//! Every RPC has two times: the *service* RTT from the actual send, and the RTT from when it was due. Their difference
//! is the time that it waited in the client because too much was outstanding, or because the machine was late; load
//! generators that record the first only hide overload (coordinated omission).

pub mod agent;
mod app;
pub mod arrivals;
mod cli;
mod client;
mod clock;
mod errors;
mod exporter;
mod latency;
mod log;
pub mod message;
mod node;
pub mod parameters;
mod probe;
pub mod rng;
pub mod rtts;
pub mod samples;
mod stats;
mod totals;
mod transport;
pub mod workload;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};

/// Runs the program with its command line, program name first.
///
/// Exit code: 0 done, 1 the command failed, 2 wrong usage, 3 a privilege or interface is missing.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match cli::Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done if help can't be printed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match cli.command {
        None => app::interactive(cli.prometheus, cli.end_with),
        Some(cli::Top::Node(cli::Command::Agent { clock_offset_s })) => agent::run(clock_offset_s),
        Some(cli::Top::Node(cli::Command::Probe { end })) => probe::run(end),
        Some(cli::Top::Node(command)) => app::one_shot(command, cli.prometheus),
        Some(cli::Top::Completions(args)) => ended(scan_metrics::cli::shell::completions(args.shell, command())),
        Some(cli::Top::Man(args)) => ended(scan_metrics::cli::shell::man(&args.dir, command())),
    }
}

/// The definition of the command line: what there is, and the help of each.
pub fn command() -> clap::Command {
    cli::Cli::command()
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cp-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}
