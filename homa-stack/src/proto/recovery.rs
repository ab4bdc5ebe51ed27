//! Repair of losses within a fraction of a tick: by the age of gaps, by what grants and answers usually take.
//!
//! A gap proves that a packet is lost or late; it is asked for once it is older than packets of that peer were late of
//! late. Where nothing shows a loss - the end of what was granted, a response of one packet - silence is measured
//! against what the peer usually takes; such asking is bounded by what the peer has delivered, so that a network that
//! has come to a halt is not asked the more. Ticks go on beneath all this and find what it misses.

use super::endpoint::Endpoint;
use super::grants::RpcKey;
use super::output::{Body, Control};
use super::rpc::State;
use crate::trace;
use crate::units::{Instant, Nanos};
use crate::wire::{Resend, ends};

/// Most gaps of a message that are asked for at a time: the rest follow when these have come, or soon.
pub(super) const MOST_ASKS: usize = 16;

/// Most early RESENDs for a response.
const MOST_EARLY: u8 = 3;

impl Endpoint {
    /// Does what fine timers ask for.
    pub(super) fn recover(&mut self, now: Instant) {
        while let Some(key) = self.wheel.take_due(now) {
            match self.rpcs[key].state {
                State::Outgoing => self.ask_early(now, key),
                State::Incoming => self.ask_for_lost(now, key),
                State::InService => {}
            }
        }
    }

    /// A message has begun, or a gap has opened in it, or it was granted more: sets its timer.
    pub(super) fn watch_message(&mut self, now: Instant, key: RpcKey) {
        let rpc = &mut self.rpcs[key];
        let asks = rpc.is_client() || self.config.server_timers;
        let Some(rx) = rpc.rx.as_mut().filter(|_| asks && self.config.reorder_window > Nanos::ZERO) else { return };
        let mut next = rx.gaps.iter().map(|gap| gap.due).min();
        if rx.recv_end < rx.granted {
            let wait = self.peers[rpc.peer].timing.tail_wait(now, &self.config, rx.recv_end >= rx.unscheduled);
            let due = rx.last + wait;
            next = Some(next.map_or(due, |at| at.min(due)));
        }
        rx.timed = next.is_some();
        if let Some(at) = next {
            self.wheel.set(now, key, at);
        }
    }

    /// The last packet of a request is on its way: sets the time at which its server is asked for the response.
    pub(super) fn watch_answer(&mut self, now: Instant, key: RpcKey) {
        let rpc = &mut self.rpcs[key];
        if !self.config.early_resend || self.config.reorder_window == Nanos::ZERO || rpc.early >= MOST_EARLY {
            return;
        }
        let long = rpc.tx.as_ref().is_some_and(|tx| tx.is_long());
        if let Some(wait) = self.peers[rpc.peer].timing.answer_wait(now, &self.config, rpc.early, long) {
            self.wheel.set(now, key, now + wait);
        }
    }

    /// Asks for the first packet of a response: the rest, if there is one, is then asked for by its message's timer.
    fn ask_early(&mut self, now: Instant, key: RpcKey) {
        let rpc = &mut self.rpcs[key];
        let peer = &mut self.peers[rpc.peer];
        let Some(tx) = rpc.tx.as_ref().filter(|tx| tx.left() == 0 && !tx.has_resend()) else { return };
        if !peer.timing.take_credit() {
            return;
        }
        rpc.early += 1;
        self.metrics.early_resends += 1;
        let (offset, length) = (0, tx.segment() as u32);
        let (id, tag) = (rpc.id.low(), peer.tag);
        self.trace.record(trace::Event::ResendTx { id, peer: tag, offset, length: length as i32 });
        let resend = Resend { offset, length, priority: self.config.control_priority() };
        let ends = ends(rpc.wire_port, rpc.peer_port, rpc.id);
        self.control.push_back(Control::new(rpc.peer, ends, Body::Resend(resend)));
        self.watch_answer(now, key);
    }

    /// Asks for gaps that are old enough, and for the rest of what was granted if that is late.
    fn ask_for_lost(&mut self, now: Instant, key: RpcKey) {
        let rpc = &mut self.rpcs[key];
        let rx = rpc.rx.as_mut().expect("an RPC that is receiving has a message");
        rx.timed = false;
        if rx.lease.is_none() {
            return;
        }
        let peer = &mut self.peers[rpc.peer];
        let (id, tag, priority) = (rpc.id.low(), peer.tag, self.config.control_priority());
        let ends = ends(rpc.wire_port, rpc.peer_port, rpc.id);
        let mut ask = |offset: u32, end: u32| {
            let length = end - offset;
            self.trace.record(trace::Event::ResendTx { id, peer: tag, offset, length: length as i32 });
            let resend = Resend { offset, length, priority };
            self.control.push_back(Control::new(rpc.peer, ends, Body::Resend(resend)));
        };
        let (heard, link_mbps) = (self.heard, self.config.link_mbps);
        // What is sent at a low level waits at the switch while more urgent packets take this host's link: as long as
        // that was never idle nothing shows that a packet is lost. Ticks go on.
        let behind_others = |since: Instant, before: u64| is_busy(heard - before, now.since(since), link_mbps);
        let mut next: Option<Instant> = None;
        let mut asks = 0;
        for gap in &mut rx.gaps {
            if gap.due <= now && gap.tries == 0 && behind_others(gap.since, gap.heard) {
                self.metrics.asks_put_off += 1;
                gap.due = now + peer.timing.reorder_window(now, &self.config);
            } else if gap.due <= now && asks < MOST_ASKS {
                asks += 1;
                ask(gap.start, gap.end);
                gap.tries = gap.tries.saturating_add(1);
                gap.due = now + peer.timing.retry_wait(now, &self.config, gap.tries);
            }
            next = Some(next.map_or(gap.due, |at| at.min(gap.due)));
        }
        rx.asked |= asks > 0;
        self.metrics.gap_resends += asks as u64;
        if rx.recv_end < rx.granted {
            let silent = rx.tail_asked.filter(|at| *at >= rx.last);
            rx.tail_tries = silent.map_or(0, |_| rx.tail_tries);
            let mut due = match silent {
                Some(at) => at + peer.timing.retry_wait(now, &self.config, rx.tail_tries),
                None => rx.last + peer.timing.tail_wait(now, &self.config, rx.recv_end >= rx.unscheduled),
            };
            if due <= now && rx.tail_tries == 0 && behind_others(rx.last, rx.last_heard) {
                self.metrics.asks_put_off += 1;
                due = now + peer.timing.reorder_window(now, &self.config);
            } else if due <= now {
                if peer.timing.take_credit() {
                    self.metrics.tail_resends += 1;
                    ask(rx.recv_end as u32, rx.granted as u32);
                }
                rx.tail_asked = Some(now);
                rx.tail_tries = rx.tail_tries.saturating_add(1);
                due = now + peer.timing.retry_wait(now, &self.config, rx.tail_tries);
            }
            next = Some(next.map_or(due, |at| at.min(due)));
        }
        if let Some(at) = next {
            rx.timed = true;
            self.wheel.set(now, key, at);
        }
    }
}

/// True if `bytes` in `time` leave a link of `link_mbps` Mbit/s no more than a tenth of it: so much is due to packets that
/// a host takes in batches.
fn is_busy(bytes: u64, time: Nanos, link_mbps: u64) -> bool {
    u128::from(bytes) * 8_000 * 10 >= u128::from(time.as_nanos()) * u128::from(link_mbps) * 9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_busy_from_nine_tenths_of_its_rate_on() {
        // 25 Gbit/s: 3125 bytes a microsecond.
        let time = Nanos::from_micros(200);
        assert!(is_busy(200 * 3125, time, 25_000) && is_busy(180 * 3125, time, 25_000));
        assert!(!is_busy(179 * 3125, time, 25_000) && !is_busy(0, time, 25_000));
    }
}
