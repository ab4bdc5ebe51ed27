//! The `cperf` program. It is also every node's `cp-node`: nodes run this file again with `cp-node` as first word, so
//! that one binary is all that has to be built and copied.

use std::ffi::OsString;
use std::process::ExitCode;

use cperf::cli::{Cli, Command, ExperimentsCommand, doctor::DoctorArgs, setup::SetupArgs, shell};
use cperf::{error, experiment};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    if words.by_ref().nth(1).is_some_and(|word| word == "cp-node") {
        return cp_node::main(std::iter::once(OsString::from("cp-node")).chain(words));
    }
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|err| err.exit());
    let result = match cli.command {
        Command::Run(args) => cperf::run::run(&args),
        Command::Experiments { command: Some(ExperimentsCommand::Show { name }) } => experiment::show(&name),
        Command::Experiments { .. } => experiment::list(),
        Command::Report { dir } => cperf::run::report(&dir),
        Command::Point { spec, out } => experiment::point(&spec, &out),
        Command::ScanMetrics(args) => {
            return match scan_metrics::cli::scan_metrics(&args) {
                Ok(code) => code,
                Err(err) => {
                    eprintln!("cperf: {err:#}");
                    ExitCode::from(if error::is_broken_pipe(&err) { 0 } else { 2 })
                }
            };
        }
        Command::Compare(args) => cperf::compare::run(&args),
        Command::Doctor(args) => doctor(&args),
        Command::Setup(args) => setup(&args),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
        Command::Metrics(args) => scan_metrics::cli::metrics(&args),
        Command::Diff(args) => scan_metrics::cli::diff(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) if error::is_broken_pipe(&err) => ExitCode::SUCCESS, // the reader, `head` say, has enough
        Err(err) => {
            eprintln!("cperf: {err:#}");
            error::exit_code(&err)
        }
    }
}

#[cfg(feature = "ssh")]
fn doctor(args: &DoctorArgs) -> anyhow::Result<()> {
    cperf::doctor::run(args)
}

#[cfg(feature = "ssh")]
fn setup(args: &SetupArgs) -> anyhow::Result<()> {
    cperf::setup::run(args)
}

#[cfg(not(feature = "ssh"))]
fn setup(_: &SetupArgs) -> anyhow::Result<()> {
    Err(error::without_ssh("cperf setup").into())
}

#[cfg(not(feature = "ssh"))]
fn doctor(_: &DoctorArgs) -> anyhow::Result<()> {
    Err(error::without_ssh("cperf doctor").into())
}
