//! `tthoma`: analyses time traces of the Homa transport.

mod cli;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use tthoma::analyze::{self, Options};

use cli::{Analyze, Cli, Command, Common, Format};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        // The reader, `head` say, has enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tthoma: {error:#}");
            ExitCode::from(if error.is::<tthoma::read::ReadError>() { 2 } else { 1 })
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::List => list(),
        Command::Analyze(Analyze::Delay(common)) => {
            let report = analyze::delay::delay(&common.paths, &options(&common))?;
            let text = match common.format {
                Format::Table => report.to_table(),
                Format::Json => json(&report)?,
                Format::Csv => report.to_csv(),
            };
            finish("delay", &text, &report.warnings(), report.has_results())
        }
        Command::Analyze(Analyze::Sync(common)) => {
            let report = analyze::sync::sync(&common.paths, &options(&common))?;
            let text = match common.format {
                Format::Table => report.to_table(),
                Format::Json => json(&report)?,
                Format::Csv => report.to_csv(),
            };
            finish("sync", &text, &report.warnings(), report.has_results())
        }
        Command::Analyze(Analyze::Unknown(words)) => Ok(unknown(&words)),
    }
}

fn options(common: &Common) -> Options {
    Options { verbose: common.verbose, no_sync: common.no_sync, negative_ok: common.negative_ok }
}

fn json(report: &impl serde::Serialize) -> anyhow::Result<String> {
    let mut text = serde_json::to_string_pretty(report).context("cannot write the report as JSON")?;
    text.push('\n');
    Ok(text)
}

/// Prints warnings and results.
fn finish(name: &str, text: &str, warnings: &[String], has_results: bool) -> anyhow::Result<ExitCode> {
    for warning in warnings {
        eprintln!("tthoma: warning: {warning}");
    }
    print(text)?;
    if has_results {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("tthoma: {name}: no results: these traces lack what it needs (see `tthoma list`)");
    Ok(ExitCode::from(1))
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

fn list() -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    for analysis in analyze::ALL {
        let names = |kinds: &[tthoma::event::Kind]| kinds.iter().map(|k| k.name()).collect::<Vec<_>>().join(", ");
        text += &format!("{}\n    {}\n", analysis.name, analysis.question);
        text += &wrapped("    needs: ", &names(analysis.needs));
        text += &wrapped("    uses: ", &names(analysis.uses));
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// `words` after `start`, in lines of at most 100 characters.
fn wrapped(start: &str, words: &str) -> String {
    let mut out = String::new();
    let mut line = start.to_string();
    for word in words.split_inclusive(", ") {
        if line.len() + word.trim_end().len() > 100 {
            out += line.trim_end();
            out.push('\n');
            line = " ".repeat(start.len());
        }
        line += word;
    }
    out + line.trim_end() + "\n"
}

fn unknown(words: &[OsString]) -> ExitCode {
    let name = words.first().map(|w| w.to_string_lossy().into_owned()).unwrap_or_default();
    let hint = analyze::nearest(&name).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    eprintln!("tthoma: no analysis named `{name}`{hint} (`tthoma list` says what there is)");
    ExitCode::from(2)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = |e: &(dyn std::error::Error + 'static)| e.downcast_ref::<io::Error>().map(io::Error::kind);
    error.chain().any(|e| kind(e) == Some(io::ErrorKind::BrokenPipe))
}
