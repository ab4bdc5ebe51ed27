//! What carries packets for an endpoint, and the loop that joins the two.

pub mod memory;

use std::net::IpAddr;

use crate::metrics::{DropReason, Metrics};
use crate::proto::{Endpoint, Refusal, Transmit};
use crate::trace::Recorder;
use crate::units::{Instant, Nanos};

/// Most packets taken in one go; also what a packet may wait for behind others.
pub const BATCH: usize = 16;

/// Most packets sent before received ones are looked for again.
const TX_BURST: usize = 16;

/// How much later than due timers may be served while received packets wait.
const BACKLOG_PATIENCE: Nanos = Nanos::from_millis(10);

/// What a received packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A Homa packet, whichever way it came.
    Homa,
    /// An ICMP message, of the version that goes with the address.
    Icmp {
        /// The address of ours that it came to.
        to: IpAddr,
    },
}

/// A received packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rx<'a> {
    /// Source address.
    pub from: IpAddr,
    /// Network priority it came with.
    pub priority: u8,
    /// What `bytes` are.
    pub content: Content,
    /// IP payload: Homa header and data, or ICMP message, padding trimmed.
    pub bytes: &'a [u8],
    /// How long it had waited when it was fetched, where that is known.
    pub wait: Option<Nanos>,
}

/// A network interface, real or simulated.
pub trait Device {
    /// Takes over up to `most` received packets; returns how many are held until [`Self::release`].
    fn fetch(&mut self, most: usize) -> usize;

    /// When all of the `held` packets, at least one, had come: the time `now` that the device was told, or a later one if
    /// some came since, which the device then tells the trace.
    #[inline]
    fn arrived_by(&mut self, held: usize, now: Instant, trace: &mut Recorder) -> Instant {
        let _ = (held, trace);
        now
    }

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

    /// Sends what was written to the slot, at once or with the next [`Self::flush`], and notes so. A packet that can't
    /// be sent is counted and lost.
    fn commit(&mut self, transmit: &Transmit, trace: &mut Recorder, metrics: &mut Metrics);

    /// Has everything sent that was committed: called at the end of each burst, and when there is nothing to send.
    fn flush(&mut self, _: &mut Recorder) {}

    /// Most data bytes of a packet that are copied to the slot; those of larger packets are handed to
    /// [`Self::commit_gathered`] where they lie.
    fn most_copied(&self) -> usize {
        usize::MAX
    }

    /// As [`Self::commit`], for a packet whose slot has the header alone and whose data are the two `parts`.
    fn commit_gathered(&mut self, transmit: &Transmit, parts: [&[u8]; 2], trace: &mut Recorder, metrics: &mut Metrics) {
        let _ = (transmit, parts, trace, metrics);
        unreachable!("a device that gathers says how");
    }

    /// Tells a peer by ICMP that nobody serves the port of a packet of its.
    fn refuse(&mut self, refusal: &Refusal, metrics: &mut Metrics) {
        let _ = (refusal, metrics);
    }
}

/// One turn of the event loop: packets in, timers, packets out. Driver and simulator both call exactly this.
/// Returns true if there was anything to do.
pub fn turn<D: Device>(core: &mut Endpoint, dev: &mut D, now: Instant) -> bool {
    let held = dev.fetch(BATCH);
    let now = if held > 0 { dev.arrived_by(held, now, &mut core.trace) } else { now };
    if held > 0 {
        for rx in (0..held).filter_map(|i| dev.packet(i).ok()) {
            if rx.content == Content::Homa {
                core.note_arrival(rx.from, rx.priority, rx.wait, rx.bytes);
            }
        }
        core.note_batch();
        for i in 0..held {
            match dev.packet(i) {
                Ok(Rx { from, content: Content::Homa, bytes, .. }) => core.handle_packet(now, from, bytes),
                Ok(Rx { from, content: Content::Icmp { to }, bytes, .. }) => core.handle_icmp(now, from, to, bytes),
                Err(reason) => core.metrics.dropped(reason),
            }
        }
        dev.release();
    }
    // While more packets wait, silence is ours, not the peers': a tick now would ask for what has come already.
    let patience = if held < BATCH { Nanos::ZERO } else { BACKLOG_PATIENCE };
    let timeout = core.next_deadline().is_some_and(|at| at + patience <= now);
    if timeout {
        core.handle_timeout(now);
    }
    while let Some(refusal) = core.poll_refusal() {
        dev.refuse(&refusal, &mut core.metrics);
    }
    let sent = transmit(core, dev, now);
    held > 0 || timeout || sent
}

/// Sends what there is to send, up to a burst; true if that was anything.
pub fn transmit<D: Device>(core: &mut Endpoint, dev: &mut D, now: Instant) -> bool {
    let most = dev.most_copied();
    let mut sent = 0;
    while sent < TX_BURST {
        let Some(transmit) = dev.tx_slot().and_then(|slot| core.poll_gather(now, slot, most)) else { break };
        if transmit.gathered == 0 {
            dev.commit(&transmit, &mut core.trace, &mut core.metrics);
        } else {
            let (parts, trace, metrics) = core.gathered(&transmit);
            dev.commit_gathered(&transmit, parts, trace, metrics);
        }
        sent += 1;
    }
    dev.flush(&mut core.trace);
    sent > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Config, Payload};
    use crate::wire::Kind;
    use std::net::{Ipv4Addr, SocketAddr};

    /// A device with packets of no use to receive, and a list of what was sent.
    #[derive(Default)]
    struct Backlog {
        waiting: usize,
        held: usize,
        sent: Vec<Kind>,
        slot: Vec<u8>,
    }

    impl Device for Backlog {
        fn fetch(&mut self, most: usize) -> usize {
            self.held = self.waiting.min(most);
            self.held
        }

        fn packet(&self, _: usize) -> Result<Rx<'_>, DropReason> {
            Ok(Rx {
                from: Ipv4Addr::LOCALHOST.into(),
                priority: 0,
                content: Content::Homa,
                bytes: &[0; 10],
                wait: None,
            })
        }

        fn release(&mut self) {
            self.waiting -= self.held;
        }

        fn tx_slot(&mut self) -> Option<&mut [u8]> {
            self.slot.resize(1500, 0);
            Some(&mut self.slot)
        }

        fn commit(&mut self, transmit: &Transmit, _: &mut Recorder, _: &mut Metrics) {
            self.sent.push(transmit.kind);
        }
    }

    /// A thread that lost its core between reading the clock and looking for packets.
    #[test]
    fn what_came_after_the_clock_was_read_is_not_received_before() {
        struct Late(Backlog);
        impl Device for Late {
            fn fetch(&mut self, most: usize) -> usize {
                self.0.fetch(most)
            }

            fn arrived_by(&mut self, held: usize, now: Instant, trace: &mut Recorder) -> Instant {
                assert_eq!(held, 3);
                trace.set_now(now.as_nanos() + 500);
                now + Nanos::from_nanos(500)
            }

            fn packet(&self, i: usize) -> Result<Rx<'_>, DropReason> {
                self.0.packet(i)
            }

            fn release(&mut self) {
                self.0.release();
            }

            fn tx_slot(&mut self) -> Option<&mut [u8]> {
                self.0.tx_slot()
            }

            fn commit(&mut self, transmit: &Transmit, trace: &mut Recorder, metrics: &mut Metrics) {
                self.0.commit(transmit, trace, metrics);
            }
        }
        let mut core = Endpoint::new(Config::default());
        core.trace = Recorder::new(16, crate::trace::Clock::Manual, 0);
        core.trace.set_now(1000);
        let mut dev = Late(Backlog { waiting: 3, ..Backlog::default() });
        assert!(turn(&mut core, &mut dev, Instant::from_nanos(1000)));
        let starts: Vec<u64> =
            core.trace.records().filter(|r| r.event == crate::trace::Event::SoftirqStart).map(|r| r.ticks).collect();
        assert_eq!(starts, [1500]);
        assert!(!turn(&mut core, &mut dev, Instant::from_nanos(2000)), "nobody is asked when nothing is held");
    }

    /// A client whose server is silent, after six turns a tick apart with `waiting` packets before each.
    fn after_six_ticks(waiting: usize) -> (Backlog, Endpoint) {
        let (mut core, mut dev) = (Endpoint::new(Config::default()), Backlog::default());
        let port = core.client_port().unwrap();
        let server = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 2), 99));
        core.call(Instant::default(), port, server, Payload::from(vec![1; 100]), 0).unwrap();
        for tick in 0..=6 {
            dev.waiting = waiting;
            turn(&mut core, &mut dev, Instant::from_nanos(tick * 1_000_100));
        }
        (dev, core)
    }

    #[test]
    fn nothing_is_asked_for_again_while_received_packets_wait() {
        assert_eq!(after_six_ticks(0).0.sent, [Kind::Data, Kind::Resend]);
        assert_eq!(after_six_ticks(BATCH - 1).0.sent, [Kind::Data, Kind::Resend]);
        assert_eq!(after_six_ticks(BATCH).0.sent, [Kind::Data]);
    }

    #[test]
    fn a_backlog_without_end_does_not_stop_time() {
        let (mut dev, mut core) = after_six_ticks(BATCH);
        for ms in 7..150 {
            dev.waiting = BATCH;
            turn(&mut core, &mut dev, Instant::from_nanos(ms * 1_000_100));
        }
        assert!(dev.sent.contains(&Kind::Resend), "{:?}", dev.sent);
        assert_eq!(core.metrics.drops(DropReason::Short), 150 * BATCH as u64, "each is counted");
    }

    #[test]
    fn a_burst_ends_so_that_received_packets_are_looked_at() {
        let (mut core, mut dev) = (Endpoint::new(Config::default()), Backlog::default());
        let port = core.client_port().unwrap();
        let server = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 2), 99));
        core.call(Instant::default(), port, server, Payload::from(vec![1; 40_000]), 0).unwrap();
        assert!(turn(&mut core, &mut dev, Instant::default()));
        assert_eq!(dev.sent.len(), TX_BURST);
    }
}
