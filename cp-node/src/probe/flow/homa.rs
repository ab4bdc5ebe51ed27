//! Flow over this project's Homa: one thread at each end that spins through the stack.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use homa_stack::driver::Framing;
use homa_stack::{Event, Payload};

use super::super::homa::open;
use super::super::{RESOLVE_LIMIT, unreachable_peer};
use super::Meter;
use crate::cli::{Flow, FlowServer};

/// Every message begins with these, and goes on with zeros.
const HEAD: [u8; 12] = *b"cp-node flow";

/// Answers each request, spinning, for ever.
pub(super) fn serve(options: &FlowServer, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut host = open(options.interface.as_deref(), options.device, framing(options))?;
    host.core().bind(options.port).with_context(|| format!("can't open Homa port {}", options.port))?;
    let body = body(options.response);
    ready()?;
    loop {
        host.turn()?;
        while let Some(event) = host.core().poll_event() {
            if let Event::Request { rpc, msg, .. } = event {
                let whole = msg.len() == options.length as usize;
                host.core().release(msg);
                if whole {
                    let now = host.now();
                    // A response that can't be sent shows as an error at the client.
                    let _ = host.core().reply(now, rpc, Payload::with_head(&HEAD, body.clone()));
                } else {
                    host.core().discard(rpc);
                }
            }
        }
    }
}

/// Keeps as many requests outstanding as asked for.
pub(super) fn run(options: &Flow, to: SocketAddr) -> Result<Meter> {
    let FlowServer { interface, device, length, response, .. } = &options.common;
    let mut host = open(interface.as_deref(), *device, framing(&options.common))?;
    host.resolve(to.ip(), RESOLVE_LIMIT).with_context(|| unreachable_peer(to.ip()))?;
    let port = host.core().client_port().context("no port to call from")?;
    let body = body(*length);
    let mut meter = Meter::start(options.millis);
    let mut outstanding = 0;
    let mut answered = 0;
    while meter.goes_on(answered)? {
        answered = 0;
        while outstanding < options.outstanding {
            let now = host.now();
            host.core().call(now, port, to, Payload::with_head(&HEAD, body.clone()), 0)?;
            outstanding += 1;
        }
        host.turn()?;
        while let Some(event) = host.core().poll_event() {
            match event {
                Event::Response { msg, .. } => {
                    let len = msg.len();
                    host.core().release(msg);
                    if len != *response as usize {
                        bail!("a response of {len} bytes instead of {response}: the server has other options");
                    }
                    (outstanding, answered) = (outstanding - 1, answered + 1);
                }
                Event::Failed { error, .. } => bail!("a request failed: {error}"),
                Event::Request { rpc, msg, .. } => {
                    host.core().release(msg);
                    host.core().discard(rpc);
                }
                _ => {}
            }
        }
    }
    Ok(meter)
}

fn framing(options: &FlowServer) -> Framing {
    if options.hijack { Framing::Hijack } else { Framing::default() }
}

/// What follows the head of a message of `len` bytes.
fn body(len: u32) -> Bytes {
    Bytes::from(vec![0; len as usize - HEAD.len()])
}
