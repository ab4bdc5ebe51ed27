//! Reads traces: files and parts of large files in parallel, every line accounted for; nothing but unusable arguments is an
//! error.

mod chunks;
mod classify;
pub(crate) mod dialect;
mod line;
#[cfg(feature = "tables")]
mod pieces;
mod scan;
mod source;
mod stats;
mod text;
pub mod user;

use std::borrow::Cow;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

pub use dialect::{Counter, Dialect};
pub use line::BadLine;
pub use source::{Format, ReadError, node_name};
pub use stats::{Backwards, BadLines, FileStats, KindCount, Located, Shape};
pub use text::{FIRST_THREAD, NodeTrace};
pub use user::{By, Delay, UserEvents, UserEventsError};

#[cfg(feature = "tables")]
pub(crate) use pieces::in_pieces;

use chunks::Lines;
use dialect::Head;
use source::{Input, Source};
use text::{About, Chunk};

/// The files that `paths` name, in the order of nodes.
///
/// # Errors
///
/// If a directory can't be read, or two files are the same node's.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ReadError> {
    Ok(source::find(paths)?.into_iter().map(|source| source.path).collect())
}

/// Reads the traces that `paths` name: files, or directories whose `*.tt`, `*.tt.gz` and `*.tt.zst` files are read.
///
/// Nodes come out in the order that all reports use: by the first number in their names if all have one, else by
/// name. Damaged files are read as far as they can be; [`NodeTrace::stats`] tells what is missing.
///
/// # Errors
///
/// If a path can't be opened, if two files are the same node's, or if there is not one record in all of them.
pub fn read(paths: &[PathBuf]) -> Result<Vec<NodeTrace>, ReadError> {
    read_with(paths, &Arc::new(UserEvents::default()))
}

/// As [`read`], with events that the user defined.
///
/// # Errors
///
/// As [`read`].
pub fn read_with(paths: &[PathBuf], user: &Arc<UserEvents>) -> Result<Vec<NodeTrace>, ReadError> {
    let sources = source::find(paths)?;
    let traces = in_parallel(&sources, user)?;
    if traces.iter().all(|t| t.span.is_none()) {
        let problems = traces.iter().flat_map(|t| t.stats.problems()).map(|p| format!("\n  {p}")).collect();
        return Err(ReadError::NoRecords { problems });
    }
    Ok(traces)
}

/// Bytes at the begin of a file that tell its dialect.
const HEAD: usize = 64 * 1024;
/// No file is cut into chunks smaller than this: each costs a copy of its records.
const LEAST_CHUNK: u64 = 4 << 20;

/// What a job makes of its part.
type Part = Result<(Head, Format, Chunk), ReadError>;

/// A part of a file that one thread reads.
struct Job {
    source: usize,
    start: u64,
    end: u64,
}

/// Reads all files by as many threads as there are cores.
fn in_parallel(sources: &[Source], user: &Arc<UserEvents>) -> Result<Vec<NodeTrace>, ReadError> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let length = |source: &Source| match source::open(&source.path) {
        Ok(Input::File(_, length)) => Ok(length),
        Ok(Input::Stream(..)) => Ok(0),
        Err(error) => Err(failed(source)(error)),
    };
    // Pipes can be opened only once: their length is asked by their name.
    let plain = |source: &Source| std::fs::metadata(&source.path).is_ok_and(|m| m.is_file());
    let lengths: Vec<u64> =
        sources.iter().map(|s| if plain(s) { length(s) } else { Ok(0) }).collect::<Result<_, _>>()?;
    let jobs = jobs(&lengths, threads as u64);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((place, job)) = {
            let place = next.fetch_add(1, Ordering::Relaxed);
            jobs.get(place).map(|job| (place, job))
        } {
            done.push((place, one(&sources[job.source], job, user)));
        }
        done
    };
    let mut done: Vec<(usize, Part)> = thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(jobs.len())).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        done.extend(others.into_iter().flat_map(|t| t.join().expect("reading does not panic")));
        done
    });
    done.sort_by_key(|(place, _)| *place);
    let mut parts: Vec<(Head, Format, Vec<Chunk>)> = sources.iter().map(|_| Default::default()).collect();
    for (place, result) in done {
        let (head, format, chunk) = result?;
        let part = &mut parts[jobs[place].source];
        (part.0, part.1) = (head, format);
        part.2.push(chunk);
    }
    let finish = |(source, (head, format, chunks)): (&Source, (Head, Format, Vec<Chunk>))| {
        finish(&about(source, format, head, user), chunks)
    };
    // Joining chunks copies records: files side by side.
    let pairs: Vec<_> = sources.iter().zip(parts).collect();
    if pairs.iter().all(|(_, (_, _, chunks))| chunks.len() < 2) {
        return Ok(pairs.into_iter().map(finish).collect());
    }
    Ok(thread::scope(|scope| {
        let all: Vec<_> = pairs.into_iter().map(|pair| scope.spawn(|| finish(pair))).collect();
        all.into_iter().map(|t| t.join().expect("joining does not panic")).collect()
    }))
}

/// Files of these lengths (0: can't be cut) as jobs for `threads` threads, in the order of files.
fn jobs(lengths: &[u64], threads: u64) -> Vec<Job> {
    let total: u64 = lengths.iter().sum();
    // A file that is a little more than a thread's share is not worth the copy.
    let share = (total / threads + total / threads / 4).max(LEAST_CHUNK);
    let cut = |(source, length): (usize, u64)| {
        let chunks = length.div_ceil(share).max(1);
        (0..chunks).map(move |i| Job { source, start: length * i / chunks, end: length * (i + 1) / chunks })
    };
    lengths.iter().copied().enumerate().flat_map(cut).collect()
}

fn about<'a>(source: &'a Source, format: Format, head: Head, user: &Arc<UserEvents>) -> About<'a> {
    About { path: &source.path, node: &source.node, format, head, user: user.clone() }
}

/// Puts the chunks of a file together.
fn finish(about: &About<'_>, chunks: Vec<Chunk>) -> NodeTrace {
    let mut trace = text::finish(about, chunks);
    let name = about.path.to_string_lossy();
    if about.format == Format::Plain && (name.ends_with(".gz") || name.ends_with(".zst")) {
        trace.stats.notes.push("is not compressed, whatever its name says; it was read as text".into());
    }
    trace
}

fn failed(source: &Source) -> impl Fn(std::io::Error) -> ReadError {
    let path = source.path.clone();
    move |error| ReadError::Open { path: path.clone(), source: error }
}

/// Reads one job's lines.
fn one(source: &Source, job: &Job, user: &Arc<UserEvents>) -> Part {
    let failed = failed(source);
    match source::open(&source.path).map_err(&failed)? {
        Input::File(file, length) => {
            let mut text = vec![0; HEAD.min(length as usize)];
            let read = file.read_at(&mut text, 0).map_err(&failed)?;
            let mut head = Head::of(&text[..read]);
            if head.dialect == Dialect::Syslog || head == Head::default() && !looks_like_tt(&text[..read]) {
                // A kernel's log may say a lot before the trace.
                head = Head::of(&std::fs::read(&source.path).map_err(&failed)?);
            }
            let mut lines = Lines::new(&file, job.start, job.end.min(length)).map_err(&failed)?;
            let about = about(source, Format::Plain, head, user);
            Ok((head, Format::Plain, text::chunk(&about, Some(job.end - job.start), &mut lines)))
        }
        Input::Stream(mut input, format) => {
            let mut text = Vec::new();
            // What is wrong with it is said when it is read.
            let error = input.by_ref().take(HEAD as u64).read_to_end(&mut text).err();
            let head = Head::of(&text);
            let about = about(source, format, head, user);
            let mut all = text.as_slice().chain(Broken(error)).chain(input);
            Ok((head, format, text::chunk(&about, None, &mut all)))
        }
    }
}

fn looks_like_tt(text: &[u8]) -> bool {
    memchr::memmem::find(text, b" us (+").is_some()
}

/// Delivers an error that was met before, once.
struct Broken(Option<std::io::Error>);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// Reads a trace from `input` as if it lay in `path`.
pub(crate) fn parse_text(path: &Path, node: &str, format: Format, text: &mut dyn Read) -> NodeTrace {
    parse_text_with(path, node, format, text, &Arc::default())
}

/// As [`parse_text`], with events that the user defined.
pub(crate) fn parse_text_with(
    path: &Path,
    node: &str,
    format: Format,
    input: &mut dyn Read,
    user: &Arc<UserEvents>,
) -> NodeTrace {
    let mut text = Vec::new();
    // Tests read from memory, which does not fail.
    let _ = input.read_to_end(&mut text);
    let about = About { path, node, format, head: Head::of(&text), user: user.clone() };
    text::read(&about, Some(text.len() as u64), &mut text.as_slice())
}

/// The text of a trace, decompressed if it is compressed.
///
/// # Errors
///
/// If the file can't be opened.
pub fn open_text(path: &Path) -> std::io::Result<Box<dyn Read>> {
    Ok(match source::open(path)? {
        Input::File(mut file, _) => {
            std::io::Seek::rewind(&mut file)?;
            Box::new(file)
        }
        Input::Stream(input, _) => input,
    })
}

/// Time in ns at the begin of a `.tt` line, and the rest from ` us ` on.
pub(crate) fn line_time(line: &[u8]) -> Option<(i64, &[u8])> {
    line::time(line)
}

/// Name of an event of a record, the user's own included.
pub fn event_name<'a>(record: &crate::event::Record, user: &'a UserEvents) -> Cow<'a, str> {
    match record.kind {
        crate::event::Kind::User => user.names().nth(record.c as usize).unwrap_or("user").into(),
        kind => kind.name().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_cut_where_threads_would_be_idle() {
        let cut = |lengths: &[u64], threads| {
            let jobs = jobs(lengths, threads);
            jobs.iter().map(|j| (j.source, j.start >> 20, j.end >> 20)).collect::<Vec<_>>()
        };
        assert_eq!(cut(&[40 << 20, 42 << 20], 2), [(0, 0, 40), (1, 0, 42)]);
        assert_eq!(cut(&[80 << 20], 2), [(0, 0, 40), (0, 40, 80)]);
        assert_eq!(cut(&[2 << 20, 0], 8), [(0, 0, 2), (1, 0, 0)]);
        assert_eq!(cut(&[100 << 20, 4 << 20], 2).len(), 3);
    }
}
