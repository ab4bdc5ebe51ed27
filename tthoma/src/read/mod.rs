//! Reads traces: files in parallel, every line accounted for, nothing but unusable arguments is an error.

mod classify;
mod line;
mod scan;
mod source;
mod stats;
mod text;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

pub use line::BadLine;
pub use source::{Format, ReadError, node_name};
pub use stats::{Backwards, BadLines, FileStats, KindCount, Located, Shape};
pub use text::NodeTrace;

use source::Source;

/// Reads the traces that `paths` name: files, or directories whose `*.tt`, `*.tt.gz` and `*.tt.zst` files are read.
///
/// Nodes come out in the order that all reports use: by the first number in their names if all have one, else by
/// name. Damaged files are read as far as they can be; [`NodeTrace::stats`] tells what is missing.
///
/// # Errors
///
/// If a path can't be opened, if two files are the same node's, or if there is not one record in all of them.
pub fn read(paths: &[PathBuf]) -> Result<Vec<NodeTrace>, ReadError> {
    let sources = source::find(paths)?;
    let threads = thread::available_parallelism().map_or(1, usize::from).min(sources.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((place, source)) = {
            let place = next.fetch_add(1, Ordering::Relaxed);
            sources.get(place).map(|source| (place, source))
        } {
            done.push((place, one(source)));
        }
        done
    };
    let mut done: Vec<(usize, Result<NodeTrace, ReadError>)> = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        done.extend(others.into_iter().flat_map(|t| t.join().expect("reading does not panic")));
        done
    });
    done.sort_by_key(|(place, _)| *place);
    let traces: Vec<NodeTrace> = done.into_iter().map(|(_, trace)| trace).collect::<Result<_, _>>()?;
    if traces.iter().all(|t| t.span.is_none()) {
        let problems = traces.iter().flat_map(|t| t.stats.problems()).map(|p| format!("\n  {p}")).collect();
        return Err(ReadError::NoRecords { problems });
    }
    Ok(traces)
}

/// Reads a trace from `input` as if it lay in `path`.
pub(crate) fn parse_text(
    path: &std::path::Path,
    node: &str,
    format: Format,
    input: &mut dyn std::io::Read,
) -> NodeTrace {
    text::read(path, node, format, None, input)
}

fn one(source: &Source) -> Result<NodeTrace, ReadError> {
    let failed = |error| ReadError::Open { path: source.path.clone(), source: error };
    let (mut input, format, length) = source::open(&source.path).map_err(failed)?;
    let mut trace = text::read(&source.path, &source.node, format, length, &mut input);
    let name = source.path.to_string_lossy();
    if format == Format::Plain && (name.ends_with(".gz") || name.ends_with(".zst")) {
        trace.stats.notes.push("is not compressed, whatever its name says; it was read as text".into());
    }
    Ok(trace)
}
