//! Flow without a protocol: full frames through the packet rings that the Homa driver uses, copied out at the receiver.
//! The ceiling. Every [`STEP`] frames the receiver says how many have come, and no more than [`WINDOW`] are under way,
//! so that none is lost.

use anyhow::{Context, Result, bail};
use homa_stack::driver::RawPing;

use super::super::{RESOLVE_LIMIT, missing, unreachable_peer};
use super::Meter;
use crate::cli::{Flow, FlowServer};

/// Frames that a ring holds: as that of the Homa driver.
const RING: usize = 2048;
/// Most frames under way.
const WINDOW: u64 = 512;
/// Frames after which the receiver tells.
const STEP: u64 = 32;
/// Frames sent between two looks for what the receiver tells.
const BURST: u64 = 16;

/// Copies frames out, for ever.
pub(super) fn serve(options: &FlowServer, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut ring = open(options)?;
    let frame = options.frame as usize;
    // A message's worth: what is copied out is not always in the cache.
    let mut message = vec![0; (options.length as usize).max(frame)];
    let (mut at, mut come) = (0, 0_u64);
    ready()?;
    loop {
        if at + frame > message.len() {
            at = 0;
        }
        let Some((from, len)) = ring.recv(&mut message[at..at + frame]) else {
            std::hint::spin_loop();
            continue;
        };
        // The first frame of a flow says so.
        if message[at..at + len].starts_with(b"begin") {
            come = 0;
        }
        at += len;
        come += 1;
        if come.is_multiple_of(STEP) {
            let _ = ring.send(from, &come.to_le_bytes());
            ring.flush();
        }
    }
}

/// Sends as the receiver takes it. A message is as many frames as it fills.
pub(super) fn run(options: &Flow) -> Result<Meter> {
    let mut ring = open(&options.common)?;
    let to = ring.mac_of(options.peer, RESOLVE_LIMIT).with_context(|| unreachable_peer(options.peer))?;
    let mut frame = vec![0; options.common.frame as usize];
    frame[..5].copy_from_slice(b"begin");
    let per_message = u64::from(options.common.length.div_ceil(options.common.frame));
    let mut meter = Meter::start(options.millis);
    let (mut sent, mut come, mut told) = (0, 0, 0);
    while meter.goes_on(come / per_message - told / per_message)? {
        told = come;
        for _ in 0..BURST.min(WINDOW - (sent - come)) {
            if ring.send(to, &frame).is_err() {
                bail!("sending a frame failed");
            }
            frame[..5].fill(0);
            sent += 1;
        }
        ring.flush();
        let mut count = [0; 8];
        while let Some((_, len)) = ring.recv(&mut count) {
            if len == count.len() {
                come = u64::from_le_bytes(count).min(sent);
            }
        }
    }
    Ok(meter)
}

fn open(options: &FlowServer) -> Result<RawPing> {
    RawPing::open_with_ring(options.interface.as_deref(), options.device, RING).map_err(missing)
}
