//! One measurement: a server process on one node, a client process on the other, one line of JSON from the client.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::TRANSPORTS;
use crate::cli::RunArgs;
use crate::error::Stop;
use crate::journal::Journal;
use crate::outdir::OutDir;
use crate::signals::Interrupt;
use crate::testbed::{ProcessHandle, Testbed};

/// Port of the probe's server.
const PORT: u16 = 4100;
/// Time for a server to be ready.
const READY: Duration = Duration::from_secs(10);
/// Time for a client, plus a millisecond a round trip.
const CLIENT: Duration = Duration::from_secs(20);

/// What a client printed: round-trip times of one transport in one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Probe {
    /// One of [`TRANSPORTS`].
    pub(crate) transport: String,
    /// Round trips.
    pub(crate) count: u64,
    /// Median.
    pub(crate) rtt_p50_ns: f64,
    /// See above.
    pub(crate) rtt_p99_ns: f64,
    /// See above.
    pub(crate) rtt_p999_ns: f64,
    /// Fastest.
    pub(crate) rtt_min_ns: f64,
    /// Round trips that failed.
    pub(crate) errors: u64,
}

/// All rounds; what was measured is in `found` even if a later measurement fails.
pub(super) fn rounds(
    options: &RunArgs,
    testbed: &mut dyn Testbed,
    out: &OutDir,
    interrupt: &Interrupt,
    cores: [usize; 2],
    journal: &mut Journal,
    found: &mut Vec<Probe>,
) -> anyhow::Result<()> {
    for round in 1..=options.rounds {
        for turn in 0..TRANSPORTS.len() {
            // Each round starts with another transport: a machine that warms up favours none.
            let transport = TRANSPORTS[(turn + round as usize - 1) % TRANSPORTS.len()];
            let probe = one(options, testbed, out.path(), interrupt, cores, transport);
            let probe = probe.with_context(|| format!("{transport}, round {round}"))?;
            journal.note(&format!(
                "round {round}: {transport} P50 {:.0} ns, P99 {:.0} ns",
                probe.rtt_p50_ns, probe.rtt_p99_ns
            ));
            found.push(probe);
        }
    }
    Ok(())
}

/// One transport, once.
fn one(
    options: &RunArgs,
    testbed: &mut dyn Testbed,
    dir: &Path,
    interrupt: &Interrupt,
    cores: [usize; 2],
    transport: &str,
) -> anyhow::Result<Probe> {
    let address = testbed.address(1);
    let count = if transport == "tcp-block" { (options.count / 4).max(1) } else { options.count };
    let words = |text: String| text.split(' ').map(OsString::from).collect::<Vec<_>>();
    let interface = testbed.interface(1).to_owned();
    let server = words(format!("probe server --transport {transport} --port {PORT} --interface {interface}"));
    let mut server = Running::start(testbed, 1, &server, dir, cores[1])?;
    let ready = server.line(READY, interrupt)?;
    if ready.trim() != "ready" {
        bail!("the server said `{}` instead of `ready`", ready.trim());
    }
    let interface = testbed.interface(0).to_owned();
    let (length, warmup) = (options.length, (count / 10).min(1000));
    let client = words(format!(
        "probe client --transport {transport} --peer {address} --port {PORT} --count {count} --length {length} \
         --warmup {warmup} --interface {interface}"
    ));
    let mut client = Running::start(testbed, 0, &client, dir, cores[0])?;
    let line = client.line(CLIENT + Duration::from_millis(count.into()), interrupt)?;
    let probe: Probe = serde_json::from_str(&line).with_context(|| format!("the client said `{}`", line.trim()))?;
    if probe.errors > 0 {
        bail!("{} of {count} round trips failed", probe.errors);
    }
    Ok(probe)
}

/// A process whose lines are read; killed when forgotten.
struct Running {
    process: Box<dyn ProcessHandle>,
    /// Kept open: a server ends when its standard input does.
    _stdin: Box<dyn std::io::Write + Send>,
    lines: Receiver<String>,
    stderr: std::path::PathBuf,
}

impl Running {
    fn start(
        testbed: &mut dyn Testbed,
        node: usize,
        args: &[OsString],
        dir: &Path,
        core: usize,
    ) -> anyhow::Result<Self> {
        let name = format!("node{node}.stderr");
        let started = testbed.start(node, args, dir, &name, Some(core))?;
        let (send, lines) = mpsc::channel();
        let mut stdout = BufReader::new(started.stdout);
        std::thread::spawn(move || {
            let mut line = String::new();
            // A line is short; the limit is for a process gone mad.
            while matches!(stdout.by_ref().take(64 * 1024).read_line(&mut line), Ok(len) if len > 0) {
                if send.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { process: started.handle, _stdin: started.stdin, lines, stderr: dir.join(name) })
    }

    /// The next line that the process writes.
    fn line(&mut self, limit: Duration, interrupt: &Interrupt) -> anyhow::Result<String> {
        let start = Instant::now();
        loop {
            if interrupt.is_set() {
                return Err(Stop::Interrupted.into());
            }
            match self.lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) if start.elapsed() < limit => {}
                Err(RecvTimeoutError::Timeout) => bail!("no answer within {:.0} s", limit.as_secs_f64()),
                Err(RecvTimeoutError::Disconnected) => bail!("{}", self.last_words()),
            }
        }
    }

    /// How the process ended, and the end of what it wrote to standard error.
    fn last_words(&mut self) -> String {
        let start = Instant::now();
        let how = loop {
            match self.process.ended() {
                Some(how) => break how,
                None if start.elapsed() > Duration::from_secs(1) => break "it closed its output".to_owned(),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let text = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing on standard error");
        format!("the process ended: {how}: {last}")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.process.kill();
        if self.stderr.metadata().is_ok_and(|about| about.len() == 0) {
            let _ = std::fs::remove_file(&self.stderr);
        }
    }
}
