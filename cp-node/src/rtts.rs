//! The `.rtts` file: every sample of a run as text (cperf.md 1.8), and its twin from the due times.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::clock;
use crate::samples::{Sample, Taken};

/// What the header lines of a `.rtts` file state.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Experiment that the dump was restricted to, if any.
    pub experiment: Option<String>,
    /// `homa` or `tcp`.
    pub protocol: String,
    /// Workload as given.
    pub workload: String,
    /// Offered load in 10^9 bit/s; 0 is a closed loop.
    pub gbps: f64,
    /// Client ports.
    pub ports: usize,
    /// Server nodes.
    pub server_nodes: usize,
    /// Ports on each server node.
    pub server_ports: usize,
    /// Most requests outstanding from the node.
    pub client_max: usize,
}

/// Which of a sample's two times a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    /// From the actual send.
    Service,
    /// From the time at which the request was due.
    Due,
}

/// Writes `path` (RTTs from the actual send) and `path.due` (RTTs from the due time), line for line the same RPCs.
///
/// Both are written under temporary names first, so that a file under its own name is always whole. `/dev/null`, the
/// idiom for "forget the warm-up", writes nothing.
///
/// # Errors
/// If a file can't be written; neither of the two exists then, unless from before.
pub fn write(path: &Path, facts: &Facts, ports: &[Taken]) -> Result<()> {
    if path == Path::new("/dev/null") {
        return Ok(());
    }
    let lost = ports.iter().map(|p| p.lost).sum();
    write_samples(path, clock::wall(), facts, lost, || ports.iter().flat_map(Taken::samples))
}

/// As [`write()`], of samples from anywhere: `samples` gives them once for each file, and `at` (since 1970, UTC) is when
/// they were taken; `lost` more have found no room.
///
/// # Errors
/// As [`write()`].
pub fn write_samples<S: Iterator<Item = Sample>>(
    path: &Path,
    at: Duration,
    facts: &Facts,
    lost: u64,
    samples: impl Fn() -> S,
) -> Result<()> {
    let due = with_suffix(path, ".due");
    let temporary = [with_suffix(path, ".tmp"), with_suffix(&due, ".tmp")];
    let one = |path: &Path, time| write_temporary(path, at, facts, lost, samples(), time);
    let result = one(&temporary[0], Time::Service)
        .and_then(|()| one(&temporary[1], Time::Due))
        .and_then(|()| rename(&temporary[1], &due))
        .and_then(|()| rename(&temporary[0], path));
    if result.is_err() {
        for file in temporary {
            // It may not exist; the error that is returned says what went wrong.
            let _ = fs::remove_file(file);
        }
    }
    result
}

fn write_temporary(
    path: &Path,
    at: Duration,
    facts: &Facts,
    lost: u64,
    samples: impl Iterator<Item = Sample>,
    time: Time,
) -> Result<()> {
    let write = || {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        write_text(&mut out, at, facts, lost, samples, time)?;
        out.flush()
    };
    write()
        .with_context(|| format!("can't write round-trip times to {}; is there room and permission?", path.display()))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("can't rename {} to {}", from.display(), to.display()))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn write_text(
    out: &mut impl Write,
    at: Duration,
    facts: &Facts,
    lost: u64,
    samples: impl Iterator<Item = Sample>,
    time: Time,
) -> io::Result<()> {
    let experiment = facts.experiment.as_deref().unwrap_or("<none>");
    writeln!(out, "# Round-trip times measured by cp_node at {} for experiment {experiment}", clock::date_time(at))?;
    // "gpbs" is how readers of these files know it.
    writeln!(
        out,
        "# --protocol {}, --workload {}, --gpbs {:.1} --threads {},",
        facts.protocol, facts.workload, facts.gbps, facts.ports
    )?;
    writeln!(
        out,
        "# --server-nodes {} --server-ports {}, --client-max {}",
        facts.server_nodes, facts.server_ports, facts.client_max
    )?;
    if lost > 0 {
        writeln!(out, "# {lost} samples are missing: there was no room for them (see --max-samples)")?;
    }
    match time {
        Time::Service => writeln!(out, "# Length   RTT (usec)")?,
        Time::Due => writeln!(out, "# Length   RTT from the due time (usec)")?,
    }
    for sample in samples {
        write_sample(out, sample, time)?;
    }
    Ok(())
}

/// One line: length right-aligned in 8 columns, a space, microseconds in 12 columns with two decimals, rounded to nearest.
fn write_sample(out: &mut impl Write, sample: Sample, time: Time) -> io::Result<()> {
    let ns = if time == Time::Service { sample.service_ns } else { sample.due_ns };
    let hundredths = (ns + 5) / 10;
    writeln!(out, "{:8} {:9}.{:02}", sample.len, hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::SampleLog;

    fn facts() -> Facts {
        Facts {
            experiment: Some("homa_w4".into()),
            protocol: "homa".into(),
            workload: "w4".into(),
            gbps: 0.1,
            ports: 1,
            server_nodes: 2,
            server_ports: 1,
            client_max: 10,
        }
    }

    fn two_ports() -> [Taken; 2] {
        let port = |samples: &[Sample]| {
            let log = SampleLog::new(1);
            samples.iter().for_each(|s| log.push(*s));
            log.take()
        };
        [
            port(&[Sample { len: 1_000_000, service_ns: 39_442_370, due_ns: 40_000_000 }]),
            port(&[Sample { len: 376, service_ns: 34_074_244, due_ns: 1_234_567_890_126 }]),
        ]
    }

    fn text(facts: &Facts, ports: &[Taken], time: Time) -> String {
        let mut out = Vec::new();
        let lost = ports.iter().map(|p| p.lost).sum();
        let samples = ports.iter().flat_map(Taken::samples);
        write_text(&mut out, Duration::from_secs(1_795_362_964), facts, lost, samples, time).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The first lines are those of a file that the original wrote, byte for byte.
    #[test]
    fn the_text_is_that_of_the_original() {
        assert_eq!(
            text(&facts(), &two_ports(), Time::Service),
            "# Round-trip times measured by cp_node at 2026-11-22 15:56:04 for experiment homa_w4\n\
             # --protocol homa, --workload w4, --gpbs 0.1 --threads 1,\n\
             # --server-nodes 2 --server-ports 1, --client-max 10\n\
             # Length   RTT (usec)\n 1000000     39442.37\n     376     34074.24\n"
        );
    }

    #[test]
    fn the_twin_has_the_same_lines_with_times_from_the_due_time() {
        let all = text(&Facts { experiment: None, ..facts() }, &two_ports(), Time::Due);
        let lines: Vec<_> = all.lines().collect();
        assert!(lines[0].ends_with("for experiment <none>"));
        assert_eq!(lines[4..], [" 1000000     40000.00", "     376 1234567890.13"]);
    }

    #[test]
    fn lost_samples_are_stated() {
        let mut ports = two_ports();
        ports[0].lost = 3;
        assert!(text(&facts(), &ports, Time::Service).contains("\n# 3 samples are missing"));
    }

    #[test]
    fn both_files_appear_whole_and_a_bad_path_is_an_error() {
        let dir = std::env::temp_dir().join(format!("cp-node-rtts-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        write(&dir.join("x.rtts"), &facts(), &two_ports()).unwrap();
        let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["x.rtts", "x.rtts.due"]);
        let error = write(&dir.join("no/such/dir.rtts"), &facts(), &two_ports()).unwrap_err();
        assert!(format!("{error:#}").contains("no/such/dir.rtts"), "{error:#}");
        write(Path::new("/dev/null"), &facts(), &two_ports()).unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }
}
