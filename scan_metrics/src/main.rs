//! The `scan_metrics` program.

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::Parser;
use scan_metrics::cli::{Cli, run};

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(err) if is_broken_pipe(&err) => ExitCode::SUCCESS, // the reader, `head` say, has enough
        Err(err) => {
            eprintln!("scan_metrics: {err:#}");
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(err: &anyhow::Error) -> bool {
    err.chain()
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|err| err.kind() == ErrorKind::BrokenPipe))
}
