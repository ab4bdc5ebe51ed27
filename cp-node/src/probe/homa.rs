//! Probe over this project's Homa: one thread at each end that spins through the stack.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use homa_stack::driver::{DeviceKind, Framing, Host, HostConfig, RING_PACKETS};
use homa_stack::{Event, Message, Nanos, Payload};

use super::sockets::spin;
use super::{RESOLVE_LIMIT, RoundTrip, missing, unreachable_peer};

/// Echoes requests, spinning, for ever.
pub(super) fn serve(
    interface: Option<&str>,
    device: DeviceKind,
    port: u16,
    ready: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut host = open_for_one(interface, device)?;
    host.core().bind(port).with_context(|| format!("can't open Homa port {port}"))?;
    ready()?;
    loop {
        host.turn()?;
        while let Some(event) = host.core().poll_event() {
            if let Event::Request { rpc, msg, .. } = event {
                let len = msg.len();
                let head = take_head(&mut host, msg);
                let now = host.now();
                // A response that can't be sent shows as an error at the client.
                let _ = host.core().reply(now, rpc, echo_of(&head, len));
            }
        }
        host.wait(None)?;
    }
}

/// The client's end.
pub(super) struct Client {
    host: Host,
    port: u16,
    to: SocketAddr,
}

impl Client {
    pub(super) fn open(interface: Option<&str>, device: DeviceKind, to: SocketAddr) -> Result<Self> {
        let mut host = open_for_one(interface, device)?;
        host.resolve(to.ip(), RESOLVE_LIMIT).with_context(|| unreachable_peer(to.ip()))?;
        let port = host.core().client_port().context("no port to call from")?;
        Ok(Self { host, port, to })
    }
}

impl RoundTrip for Client {
    fn round_trip(&mut self, request: &[u8]) -> Result<bool> {
        let now = self.host.now();
        let payload = echo_of(request, request.len());
        let call = self.host.core().call(now, self.port, self.to, payload, 0)?;
        let mut failed = false;
        let host = &mut self.host;
        let answered = spin(|| {
            // Until a packet comes, or it is time to ask for one.
            host.wait(None)?;
            host.turn()?;
            while let Some(event) = host.core().poll_event() {
                match event {
                    Event::Response { id, msg, .. } => {
                        let len = msg.len();
                        let head = take_head(host, msg);
                        if id == call && (len != request.len() || !request.starts_with(&head)) {
                            bail!("the response is not an echo of the request");
                        }
                        if id == call {
                            return Ok(true);
                        }
                    }
                    Event::Failed { id, .. } if id == call => {
                        failed = true;
                        return Ok(true);
                    }
                    // The outcome of an earlier call, or a request to nobody.
                    Event::Failed { .. } | Event::Room(_) => {}
                    Event::Request { rpc, msg, .. } => {
                        host.core().release(msg);
                        host.core().discard(rpc);
                    }
                }
            }
            Ok(false)
        })?;
        if !answered {
            self.host.core().abort(call);
        }
        Ok(answered && !failed)
    }
}

pub(super) fn open(interface: Option<&str>, device: DeviceKind, framing: Framing) -> Result<Host> {
    Host::open(config(interface, device, framing)).map_err(missing)
}

fn config(interface: Option<&str>, device: DeviceKind, framing: Framing) -> HostConfig {
    // Without a trace, as the other transports have none either.
    let interface = interface.map(str::to_owned);
    HostConfig { interface, device, framing, trace_entries: 0, ..HostConfig::default() }
}

/// A host for one message at a time: it spins, and its ring is as small as that of the floor, since no bursts come.
fn open_for_one(interface: Option<&str>, device: DeviceKind) -> Result<Host> {
    let poll = Nanos::from_secs(3600);
    let config = HostConfig { poll, ring_packets: RING_PACKETS, ..config(interface, device, Framing::default()) };
    Host::open(config).map_err(missing)
}

/// Bytes of a message that the client checks; the others are [`FILLER`], so that nothing is allocated.
const HEAD: usize = 12;
static FILLER: [u8; 2048] = [0x63; 2048];

/// The first bytes of a message, whose pages are given back.
fn take_head(host: &mut Host, msg: Message) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    host.core().copy_out(&msg, 0, &mut head);
    host.core().release(msg);
    head
}

/// A message of `len` bytes (at least [`HEAD`]; the filler bounds it) that begins as `request`.
fn echo_of(request: &[u8], len: usize) -> Payload {
    let body = len.clamp(HEAD, HEAD + FILLER.len()) - HEAD;
    Payload::with_head(&request[..HEAD], Bytes::from_static(&FILLER[..body]))
}
