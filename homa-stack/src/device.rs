//! What carries packets for an endpoint, and the loop that joins the two.

use std::net::IpAddr;

use crate::metrics::{DropReason, Metrics};
use crate::proto::{Endpoint, Transmit};
use crate::trace::Recorder;
use crate::units::{Instant, Nanos};

/// Most packets taken in one go; also what a packet may wait for behind others.
pub const BATCH: usize = 16;

/// Most packets sent before received ones are looked for again.
const TX_BURST: usize = 16;

/// A received packet.
#[derive(Clone, Copy, Debug)]
pub struct Rx<'a> {
    /// Source address.
    pub from: IpAddr,
    /// Network priority it came with.
    pub priority: u8,
    /// IP payload: Homa header and data, padding trimmed.
    pub bytes: &'a [u8],
    /// How long it had waited when it was fetched, where that is known.
    pub wait: Option<Nanos>,
}

/// A network interface, real or simulated.
pub trait Device {
    /// Takes over up to `most` received packets; returns how many are held until [`Self::release`].
    fn fetch(&mut self, most: usize) -> usize;

    /// The `i`th packet held.
    ///
    /// # Errors
    ///
    /// The reason if it is none for us.
    fn packet(&self, i: usize) -> Result<Rx<'_>, DropReason>;

    /// Gives all packets held back.
    fn release(&mut self);

    /// Room for a packet, if one can be sent now.
    fn tx_slot(&mut self) -> Option<&mut [u8]>;

    /// Sends what was written to the slot, and notes so. A packet that can't be sent is counted and lost.
    fn commit(&mut self, transmit: &Transmit, trace: &mut Recorder, metrics: &mut Metrics);
}

/// One turn of the event loop: packets in, timers, packets out. Driver and simulator both call exactly this.
/// Returns true if there was anything to do.
pub fn turn<D: Device>(core: &mut Endpoint, dev: &mut D, now: Instant) -> bool {
    let held = dev.fetch(BATCH);
    if held > 0 {
        for rx in (0..held).filter_map(|i| dev.packet(i).ok()) {
            core.note_arrival(rx.from, rx.priority, rx.wait, rx.bytes);
        }
        core.note_batch();
        for i in 0..held {
            match dev.packet(i) {
                Ok(rx) => core.handle_packet(now, rx.from, rx.bytes),
                Err(reason) => core.metrics.dropped(reason),
            }
        }
        dev.release();
    }
    let timeout = core.next_deadline().is_some_and(|at| at <= now);
    if timeout {
        core.handle_timeout(now);
    }
    let sent = transmit(core, dev, now);
    held > 0 || timeout || sent
}

/// Sends what there is to send, up to a burst; true if that was anything.
pub fn transmit<D: Device>(core: &mut Endpoint, dev: &mut D, now: Instant) -> bool {
    for sent in 0..TX_BURST {
        let Some(transmit) = dev.tx_slot().and_then(|slot| core.poll_transmit(now, slot)) else { return sent > 0 };
        dev.commit(&transmit, &mut core.trace, &mut core.metrics);
    }
    true
}
