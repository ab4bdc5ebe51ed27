//! Makes a large trace of a small one: `cargo run --release -p tthoma --example repeat -- LINES COPIES DIR PATH...` writes the
//! traces of `PATH...` to `DIR`, COPIES times beside each other with nodes of their own, repeated later in time with ids kept apart
//! until all files together have at least LINES lines. A line takes some 110 bytes.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tthoma::testing::Repeat;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [lines, copies, dir, paths @ ..] = &arguments[..] else { bail!("expected LINES COPIES DIR PATH...") };
    let lines = lines.parse().with_context(|| format!("LINES: expected a number, found `{lines}`"))?;
    let copies = copies.parse().with_context(|| format!("COPIES: expected a number, found `{copies}`"))?;
    let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    let sources = tthoma::read::files(&paths)?;
    let files =
        Repeat { lines, copies }.write(&sources, Path::new(dir)).with_context(|| format!("can't write to {dir}"))?;
    println!("{} traces in {dir}", files.len());
    Ok(())
}
