//! Probe over this project's Homa: one thread at each end that spins through the stack.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use homa_stack::driver::{Host, HostConfig};
use homa_stack::{Event, Message, Payload};

use super::sockets::spin;
use super::{RESOLVE_LIMIT, RoundTrip, missing, unreachable_peer};

/// Echoes requests, spinning, for ever.
pub(super) fn serve(interface: Option<&str>, port: u16, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut host = open(interface)?;
    host.core().bind(port).with_context(|| format!("can't open Homa port {port}"))?;
    ready()?;
    loop {
        host.turn()?;
        while let Some(event) = host.core().poll_event() {
            if let Event::Request { rpc, msg, .. } = event {
                let body = take(&mut host, msg);
                let now = host.now();
                // A response that can't be sent shows as an error at the client.
                let _ = host.core().reply(now, rpc, Payload::from(body));
            }
        }
    }
}

/// The client's end.
pub(super) struct Client {
    host: Host,
    port: u16,
    to: SocketAddr,
}

impl Client {
    pub(super) fn open(interface: Option<&str>, to: SocketAddr) -> Result<Self> {
        let mut host = open(interface)?;
        host.resolve(to.ip(), RESOLVE_LIMIT).with_context(|| unreachable_peer(to.ip()))?;
        let port = host.core().client_port();
        Ok(Self { host, port, to })
    }
}

impl RoundTrip for Client {
    fn round_trip(&mut self, request: &[u8]) -> Result<bool> {
        let now = self.host.now();
        let payload = Payload::from(request.to_vec());
        let call = self.host.core().call(now, self.port, self.to, payload, 0)?;
        let mut failed = false;
        let host = &mut self.host;
        let answered = spin(|| {
            host.turn()?;
            while let Some(event) = host.core().poll_event() {
                match event {
                    Event::Response { id, msg, .. } => {
                        let body = take(host, msg);
                        if id == call && body != request {
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
                    Event::Failed { .. } => {}
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

fn open(interface: Option<&str>) -> Result<Host> {
    // Without a trace, as the other transports have none either.
    let config = HostConfig { interface: interface.map(str::to_owned), trace_entries: 0, ..HostConfig::default() };
    Host::open(config).map_err(missing)
}

/// The bytes of a message, whose pages are given back.
fn take(host: &mut Host, msg: Message) -> Vec<u8> {
    let mut body = vec![0; msg.len()];
    host.core().copy_out(&msg, 0, &mut body);
    host.core().release(msg);
    body
}
