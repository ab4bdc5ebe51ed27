//! Probes between two idle nodes, to calibrate a machine: round trips one at a time, and flows of messages ([`flow`]).
//!
//! All transports are measured by the same loop; what differs is how a request gets to the server and back.

mod flow;
mod homa;
mod ring;
mod sockets;

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use homa_stack::driver::OpenError;
use serde::Serialize;

use crate::cli::{ProbeClient, ProbeEnd, ProbeServer, ProbeTransport};
use crate::errors::{Missing, exit_code};

/// Longest wait for one response.
const RESPONSE_LIMIT: Duration = Duration::from_secs(1);
/// Longest wait for the server's hardware address.
const RESOLVE_LIMIT: Duration = Duration::from_secs(3);
/// Failed round trips after which the measurement is given up.
const MAX_ERRORS: u32 = 20;
/// Rounds of a spinning loop between two looks at the clock.
const SPIN_CHECK: u32 = 1000;

/// The client's end of a transport.
trait RoundTrip {
    /// Sends a request of `request` bytes and waits for its response; false if none came in [`RESPONSE_LIMIT`].
    ///
    /// # Errors
    /// If the transport can't go on.
    fn round_trip(&mut self, request: &[u8]) -> Result<bool>;
}

/// What the client prints, as one line of JSON.
#[derive(Debug, PartialEq, Serialize)]
struct Summary {
    transport: &'static str,
    count: usize,
    length: u32,
    rtt_min_ns: u64,
    rtt_p50_ns: u64,
    rtt_p99_ns: u64,
    rtt_p999_ns: u64,
    errors: u32,
}

/// Runs one end of a probe.
pub(crate) fn run(end: ProbeEnd) -> ExitCode {
    let result = match end {
        ProbeEnd::Server(options) => serve(&options),
        ProbeEnd::Client(options) => measure(&options),
        ProbeEnd::FlowServer(options) => end_with_stdin().and_then(|()| flow::serve(&options)),
        ProbeEnd::Flow(options) => flow::measure(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cp-node: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn serve(options: &ProbeServer) -> Result<()> {
    let interface = options.interface.as_deref();
    end_with_stdin()?;
    match options.transport {
        ProbeTransport::RawRing => ring::serve(interface, options.device, ready),
        ProbeTransport::Homa => homa::serve(interface, options.device, options.port, ready),
        ProbeTransport::UdpSpin => sockets::serve_udp(options.port, ready),
        ProbeTransport::TcpSpin => sockets::serve_tcp(options.port, true, ready),
        ProbeTransport::TcpBlock => sockets::serve_tcp(options.port, false, ready),
    }
}

/// Ends the process when standard input ends: a server, spinning or asleep, must not outlive whoever started it.
fn end_with_stdin() -> Result<()> {
    let wait = || {
        // An error is an end too.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(0);
    };
    std::thread::Builder::new().name("stdin".into()).spawn(wait).context("can't start a thread")?;
    Ok(())
}

/// Tells that requests may come.
fn ready() -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(b"ready\n").and_then(|()| out.flush()).context("can't write to standard output")
}

fn measure(options: &ProbeClient) -> Result<()> {
    let interface = options.interface.as_deref();
    let to = SocketAddr::new(options.peer, options.port);
    let mut transport: Box<dyn RoundTrip> = match options.transport {
        ProbeTransport::RawRing => Box::new(ring::Client::open(interface, options.device, options.peer)?),
        ProbeTransport::Homa => Box::new(homa::Client::open(interface, options.device, to)?),
        ProbeTransport::UdpSpin => Box::new(sockets::Udp::open(to)?),
        ProbeTransport::TcpSpin => Box::new(sockets::Tcp::open(to, true)?),
        ProbeTransport::TcpBlock => Box::new(sockets::Tcp::open(to, false)?),
    };
    let summary = round_trips(transport.as_mut(), options)?;
    let mut line = serde_json::to_string(&summary)?;
    line.push('\n');
    io::stdout().write_all(line.as_bytes()).context("can't write to standard output")
}

fn round_trips(transport: &mut dyn RoundTrip, options: &ProbeClient) -> Result<Summary> {
    let limit = Instant::now() + Duration::from_secs(options.limit.into());
    let mut request = vec![0x63; options.length as usize];
    let mut times = Vec::with_capacity(options.count as usize);
    let mut errors = 0;
    let total = u64::from(options.warmup) + u64::from(options.count);
    for number in 0..total {
        // Tells a late response to an earlier request from the one that is waited for.
        request[..8].copy_from_slice(&number.to_le_bytes());
        let start = Instant::now();
        let answered = transport.round_trip(&request)?;
        let end = Instant::now();
        if !answered {
            errors += 1;
            if errors == MAX_ERRORS {
                bail!(
                    "{MAX_ERRORS} requests were not answered: is a probe server with the same --transport running at {}?",
                    options.peer
                );
            }
        } else if number >= options.warmup.into() {
            times.push((end - start).as_nanos() as u64);
        }
        if end > limit {
            break;
        }
    }
    if times.is_empty() {
        bail!("no round trip was measured within {} s; raise --limit or lower --warmup", options.limit);
    }
    Ok(summarise(times, options.transport.name(), options.length, errors))
}

/// Percentiles at index ⌊n·q⌋ of the sorted times; `times` is not empty.
fn summarise(mut times: Vec<u64>, transport: &'static str, length: u32, errors: u32) -> Summary {
    times.sort_unstable();
    let at = |per_mille: usize| times[times.len() * per_mille / 1000];
    Summary {
        transport,
        count: times.len(),
        length,
        rtt_min_ns: times[0],
        rtt_p50_ns: at(500),
        rtt_p99_ns: at(990),
        rtt_p999_ns: at(999),
        errors,
    }
}

/// An interface or privilege is missing: exit code 3.
fn missing(error: OpenError) -> anyhow::Error {
    Missing(error.to_string()).into()
}

fn unreachable_peer(peer: IpAddr) -> String {
    format!("can't find the hardware address of {peer}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use homa_stack::driver::DeviceKind;

    fn options(transport: ProbeTransport, count: u32) -> ProbeClient {
        let peer = IpAddr::from([127, 0, 0, 1]);
        ProbeClient {
            transport,
            peer,
            port: 0,
            interface: None,
            device: DeviceKind::AfPacket,
            count,
            warmup: 5,
            length: 100,
            limit: 30,
        }
    }

    #[test]
    fn percentiles_are_at_the_rounded_down_index() {
        let summary = summarise((0..1000).rev().collect(), "udp-spin", 100, 2);
        assert_eq!(
            (summary.rtt_min_ns, summary.rtt_p50_ns, summary.rtt_p99_ns, summary.rtt_p999_ns),
            (0, 500, 990, 999)
        );
        assert_eq!((summary.count, summary.errors), (1000, 2));
        assert_eq!(summarise(vec![7], "homa", 12, 0).rtt_p999_ns, 7);
    }

    struct Deaf;

    impl RoundTrip for Deaf {
        fn round_trip(&mut self, _: &[u8]) -> Result<bool> {
            Ok(false)
        }
    }

    #[test]
    fn a_silent_server_is_an_error() {
        let error = round_trips(&mut Deaf, &options(ProbeTransport::Homa, 50)).unwrap_err();
        assert!(error.to_string().contains("--transport"), "{error}");
    }
}
