//! One measurement: a server process on one node, a client process on the other, one line of JSON from the client.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::cases::{Case, HIJACK, XDP};
use super::links::Links;
use crate::cli::RunArgs;
use crate::error::Stop;
use crate::journal::Journal;
use crate::outdir::OutDir;
use crate::signals::Interrupt;
use crate::testbed::{ProcessHandle, Testbed};

/// Port of the probe's server.
const PORT: u16 = 4100;
/// Options of a probe of Homa by AF_XDP.
const BY_XDP: &str = " --device af-xdp";
/// Time for a server to be ready.
const READY: Duration = Duration::from_secs(10);
/// Length of a flow, ms, after a tenth of it to warm up.
const FLOW_MILLIS: u32 = 300;
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

/// What a flow's client printed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FlowProbe {
    /// Messages answered.
    pub(crate) messages: u64,
    /// Time that took.
    pub(crate) elapsed_s: f64,
    /// Their rate.
    pub(crate) messages_per_s: f64,
    /// Request bytes.
    pub(crate) request_gbps: f64,
    /// Messages that failed.
    pub(crate) errors: u64,
}

/// One case in one round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Found {
    #[serde(flatten)]
    pub(crate) case: Case,
    /// Round trips.
    pub(crate) rtt: Option<Probe>,
    /// Or a flow.
    pub(crate) flow: Option<FlowProbe>,
}

impl Found {
    /// The figure that is compared.
    pub(crate) fn figure(&self) -> Option<f64> {
        match (&self.rtt, &self.flow, self.case.flow) {
            (Some(rtt), ..) => Some(rtt.rtt_p50_ns),
            (None, Some(found), Some(flow)) if flow.length > flow.response => Some(found.request_gbps),
            (None, Some(found), _) => Some(found.messages_per_s),
            (None, None, _) => None,
        }
    }
}

/// What all cases have in common.
pub(super) struct Setting<'a> {
    pub(super) options: &'a RunArgs,
    pub(super) out: &'a OutDir,
    pub(super) interrupt: &'a Interrupt,
    /// Cores of client and server.
    pub(super) cores: [usize; 2],
}

/// All rounds; what was measured is in `found` even if a later measurement fails.
pub(super) fn rounds(
    setting: &Setting<'_>,
    cases: &[Case],
    links: &mut Links,
    journal: &mut Journal,
    found: &mut Vec<Found>,
) -> anyhow::Result<()> {
    for round in 1..=setting.options.rounds {
        for turn in 0..cases.len() {
            // Each round starts with another case: a machine that warms up favours none.
            let case = cases[(turn + round as usize - 1) % cases.len()];
            let one = one(setting, links, case).with_context(|| format!("{case:?}, round {round}"))?;
            journal.note(&format!("round {round}: {case:?} {:.2}", one.figure().unwrap_or(f64::NAN)));
            found.push(one);
        }
    }
    Ok(())
}

/// One case, once.
fn one(setting: &Setting<'_>, links: &mut Links, case: Case) -> anyhow::Result<Found> {
    let Setting { options, interrupt, cores, .. } = *setting;
    let dir = setting.out.path();
    let testbed = links.with_mtu(case.mtu);
    let address = if case.ipv6 { testbed.address(1) } else { testbed.address_v4(1) };
    let interface = testbed.interface(1).to_owned();
    let (transport, device, hijack) = match case.transport {
        HIJACK => ("homa", "", " --hijack"),
        XDP => ("homa", BY_XDP, ""),
        other => (other, "", ""),
    };
    let common = format!("--transport {transport} --port {PORT} --interface {interface}{device}");
    let count = if transport == "tcp-block" { (options.count / 4).max(1) } else { options.count };
    let (server, client, limit) = match case.flow {
        None => {
            let (length, warmup) = (options.length, (count / 10).min(1000));
            let client =
                format!("probe client {common} --peer {address} --count {count} --length {length} --warmup {warmup}");
            (format!("probe server {common}"), client, Duration::from_millis(count.into()))
        }
        Some(flow) => {
            let common =
                format!("{common}{hijack} --length {} --response {} --frame {}", flow.length, flow.response, case.mtu);
            let single = if flow.length > flow.response { " --one-connection" } else { "" };
            let client = format!(
                "probe flow {common} --peer {address} --outstanding {} --millis {FLOW_MILLIS}{single}",
                flow.outstanding
            );
            (format!("probe flow-server {common}"), client, Duration::from_millis(FLOW_MILLIS.into()))
        }
    };
    let _server = serve(setting, testbed, &server)?;
    let mut client = Running::start(testbed, 0, &words(&client), dir, cores[0])?;
    let line = client.line(CLIENT + limit, interrupt)?;
    let said = || format!("the client said `{}`", line.trim());
    let (mut rtt, mut flow) = (None, None);
    let errors = if case.flow.is_none() {
        let found = serde_json::from_str::<Probe>(&line).with_context(said)?;
        // The client knows of the transport, not of the device.
        rtt.insert(Probe { transport: case.transport.to_owned(), ..found }).errors
    } else {
        flow.insert(serde_json::from_str::<FlowProbe>(&line).with_context(said)?).errors
    };
    if errors > 0 {
        bail!("{errors} messages failed");
    }
    Ok(Found { case, rtt, flow })
}

/// Why Homa cannot go by AF_XDP on this link; nothing if it can.
///
/// # Errors
/// [`Stop::Interrupted`].
pub(super) fn without_xdp(setting: &Setting<'_>, links: &mut Links, mtu: u32) -> anyhow::Result<Option<String>> {
    let testbed = links.with_mtu(mtu);
    let interface = testbed.interface(1).to_owned();
    let server = format!("probe server --transport homa --port {PORT} --interface {interface}{BY_XDP}");
    match serve(setting, testbed, &server) {
        Ok(_) => Ok(None),
        Err(_) if setting.interrupt.is_set() => Err(Stop::Interrupted.into()),
        Err(err) => {
            // What it said is in the reason.
            let _ = std::fs::remove_file(setting.out.path().join("node1.stderr"));
            Ok(Some(format!("{err:#}")))
        }
    }
}

/// A server that is ready.
fn serve(setting: &Setting<'_>, testbed: &mut dyn Testbed, command: &str) -> anyhow::Result<Running> {
    let mut server = Running::start(testbed, 1, &words(command), setting.out.path(), setting.cores[1])?;
    let ready = server.line(READY, setting.interrupt)?;
    if ready.trim() != "ready" {
        bail!("the server said `{}` instead of `ready`", ready.trim());
    }
    Ok(server)
}

fn words(text: &str) -> Vec<OsString> {
    text.split(' ').map(OsString::from).collect()
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
