//! The small tools on the command line: files or standard input in, standard output out.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use tthoma::tools;

use crate::cli;

/// A file, or standard input if there is none or it is `-`; decompressed if it is compressed.
fn open(file: Option<&Path>) -> anyhow::Result<Box<dyn BufRead>> {
    match file.filter(|f| *f != Path::new("-")) {
        None => Ok(Box::new(BufReader::new(io::stdin()))),
        Some(path) => {
            let input = tthoma::read::open_text(path).with_context(|| format!("{}: cannot read", path.display()))?;
            Ok(Box::new(BufReader::with_capacity(1 << 16, input)))
        }
    }
}

fn output() -> BufWriter<io::StdoutLock<'static>> {
    BufWriter::with_capacity(1 << 16, io::stdout().lock())
}

/// Finishes the output; status 1 if nothing was found.
fn done(mut out: impl Write, found: bool) -> anyhow::Result<ExitCode> {
    out.flush()?;
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

pub(crate) fn grep(args: &cli::Grep) -> anyhow::Result<ExitCode> {
    let pattern = match regex::bytes::Regex::new(&args.regex) {
        Ok(pattern) => pattern,
        Err(error) => {
            eprintln!("tthoma: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    let mut out = output();
    let options = tools::Grep { pattern, rebase: args.rebase };
    let printed = tools::grep(&options, &mut open(args.file.as_deref())?, &mut out)?;
    done(out, printed > 0)
}

pub(crate) fn merge(files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut inputs = files.iter().map(|f| open(Some(f))).collect::<anyhow::Result<Vec<_>>>()?;
    let mut out = output();
    let skipped = tools::merge(&mut inputs, &mut out)?;
    for place in &skipped {
        let file = files[*place].display();
        eprintln!(
            "tthoma: warning: {file}: left out: its first line does not tell its clock (`First event has timestamp`)"
        );
    }
    done(out, skipped.len() < files.len())
}

/// Microseconds as ns.
fn ns(us: f64) -> i64 {
    (us * 1000.0).round() as i64
}

pub(crate) fn range(start: f64, end: f64, file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut out = output();
    let printed = tools::range(ns(start), ns(end), &mut open(file)?, &mut out)?;
    done(out, printed > 0)
}

pub(crate) fn offset(old: f64, new: f64, file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut out = output();
    tools::offset(ns(new) - ns(old), &mut open(file)?, &mut out)?;
    done(out, true)
}

pub(crate) fn sum(args: &cli::Sum) -> anyhow::Result<ExitCode> {
    let mut inputs = match args.files.as_slice() {
        [] => vec![open(None)?],
        files => files.iter().map(|f| open(Some(f))).collect::<anyhow::Result<Vec<_>>>()?,
    };
    let options = tools::Sum { cores: args.cores, from: args.from.clone(), numbers: args.numbers, all: args.all };
    let (table, warnings) = tools::sum(&options, &mut inputs)?;
    for warning in warnings {
        eprintln!("tthoma: warning: {warning}");
    }
    let mut out = output();
    out.write_all(table.as_bytes())?;
    done(out, true)
}

pub(crate) fn print(file: &Path, extra: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut text = Vec::new();
    open(Some(file))?.read_to_end(&mut text).with_context(|| format!("{}: cannot read", file.display()))?;
    let mut others = match extra {
        Some(path) => {
            Some(BufWriter::new(File::create(path).with_context(|| format!("{}: cannot write", path.display()))?))
        }
        None => None,
    };
    let mut out = output();
    match tools::print(&text, &mut out, others.as_mut().map(|o| o as &mut dyn Write)) {
        Ok(printed) => {
            others.map_or(Ok(()), |mut o| o.flush())?;
            done(out, printed.records > 0)
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            eprintln!("tthoma: {}: {error}", file.display());
            Ok(ExitCode::from(2))
        }
        Err(error) => Err(error.into()),
    }
}
