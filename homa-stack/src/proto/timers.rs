//! Time: ticks, retransmission requests, give-ups. Source: homa-protocol.md 2.4, 2.9.

use super::endpoint::Endpoint;
use super::event::RpcError;
use super::grants::{Decision, RpcKey};
use super::output::{Body, Control};
use super::rpc::{Rpc, State};
use super::tx_message::TxMessage;
use crate::trace;
use crate::units::{Instant, Nanos};
use crate::wire::{Kind, ends};

/// Most that repeated BUSYs stretch the interval between RESENDs.
const MAX_BUSY_FACTOR: u32 = 8;

/// How much more patient a server is that does not ask for what is missing of requests.
const QUIET_FACTOR: u32 = 4;

/// Tick while there is nothing but memories of requests.
pub(super) const IDLE_TICK: Nanos = Nanos::from_secs(1);

/// What a tick asks of an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Resend,
    NeedAck,
    /// The application has not taken the request, or not answered it, in time.
    Overdue,
    GiveUp,
}

/// The earlier of two times, either of which may not be set.
#[inline]
fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

impl Endpoint {
    /// When [`Self::handle_timeout`] should be called next, if ever.
    #[inline]
    pub fn next_deadline(&self) -> Option<Instant> {
        let nic = self.pacing.as_ref().and_then(|pacing| pacing.wake);
        earlier(earlier(self.next_tick, self.next_fifo), earlier(self.wheel.next(), nic))
    }

    /// Does what is due at `now`; without effect if that is nothing. A caller that comes late loses ticks: silence
    /// while this host did not listen is not held against the peer.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.settle();
        self.latest = self.latest.max(now);
        if let Some(pacing) = &mut self.pacing {
            // What waited goes with the next packets.
            pacing.wake = pacing.wake.filter(|at| *at > now);
        }
        self.recover(now);
        if self.next_fifo.is_some_and(|at| at <= now) {
            self.next_fifo = None;
            self.grant_by_age(now);
        }
        if self.next_tick.is_some_and(|at| at <= now) {
            self.tick(now);
            let idle = self.rpcs.is_empty();
            self.next_tick = match (idle, self.tombstones.is_empty()) {
                (false, _) => Some(now + self.config.tick),
                (true, false) => Some(now + IDLE_TICK),
                (true, true) if self.minds_memory() => Some(now + IDLE_TICK),
                (true, true) => None,
            };
        }
    }

    fn tick(&mut self, now: Instant) {
        self.ticks += 1;
        self.count_grantable(now);
        self.tombstones.expire(now);
        self.review_cutoffs(now);
        let mut due = std::mem::take(&mut self.due);
        for (key, rpc) in &mut self.rpcs {
            let stalled = rpc.tx.as_deref_mut().filter(|_| rpc.state == State::Outgoing).map_or(0, TxMessage::tick);
            if stalled > 0 && stalled == self.config.stall_ticks {
                self.metrics.tx_stalls += 1;
                due.push((key, Due::GiveUp));
                continue;
            }
            let silence = self.ticks.saturating_sub(self.peers[rpc.peer].heard);
            match self.config.on_tick(rpc, silence) {
                Due::Nothing => {}
                what => due.push((key, what)),
            }
        }
        for (key, what) in due.drain(..) {
            match what {
                Due::Nothing => {}
                Due::Resend => {
                    self.stop_expecting(key);
                    self.metrics.silence_resends += self.ask_for_missing(key, self.config.control_priority());
                }
                Due::NeedAck => self.send_need_ack(key),
                Due::Overdue => self.drop_request(key),
                Due::GiveUp => self.give_up(key),
            }
        }
        self.due = due;
        // Pages come free without the application's doing too: when a message that was arriving is given up.
        self.pool.take_back();
        self.review_memory();
        if !self.starved.is_empty() {
            self.feed_starved();
            if !self.starved.is_empty() {
                self.evict_inactive();
            }
        }
    }

    fn send_need_ack(&mut self, key: RpcKey) {
        let rpc = &mut self.rpcs[key];
        if rpc.done > 0 {
            rpc.next_need_ack += rpc.next_need_ack.min(self.config.need_ack_max_ticks.max(1));
        }
        let (id, port, ticks) = (rpc.id, rpc.peer_port, rpc.done);
        let header = ends(rpc.wire_port, port, id);
        let peer = rpc.peer;
        self.trace.record(trace::Event::NeedAckTx { id: id.low(), peer: self.peers[peer].tag, port, ticks });
        self.control.push_back(Control::new(peer, header, Body::Bare(Kind::NeedAck)));
    }

    pub(super) fn give_up(&mut self, key: RpcKey) {
        let rpc = &self.rpcs[key];
        let (id, peer, state) = (rpc.id, rpc.peer, rpc.state);
        let tag = self.peers[peer].tag;
        self.trace.record(trace::Event::TimedOut { id: id.low(), peer: tag, state: state.code() });
        if id.is_client() {
            self.metrics.rpc_timeouts += 1;
            return self.fail(key, RpcError::TimedOut);
        }
        self.metrics.server_rpc_discards += 1;
        if state == State::Outgoing {
            self.metrics.need_ack_giveups += 1;
        } else {
            self.metrics.rpc_timeouts += 1;
        }
        self.end(key);
        if state == State::Incoming {
            // It never ran: its client may send it again.
            self.tombstones.remove(peer, id);
        }
    }

    fn grant_by_age(&mut self, now: Instant) {
        if self.grants.has_policy() {
            // The next packets out are its grants.
            self.grants_due = true;
            return;
        }
        self.grants.fill(&self.config, Self::view(&self.rpcs));
        if let Some((rpc, offset)) = self.grants.oldest(&self.config, Self::view(&self.rpcs)) {
            let priority = self.config.second_priority();
            let granted = self.apply_grant(now, Decision { rpc, offset, priority, was_needy: false });
            self.metrics.fifo_grant_bytes += granted as u64;
            if let Some(rx) = self.rpcs[rpc].rx.as_mut() {
                rx.by_age = rx.granted;
                let view = rx.view();
                #[cfg(feature = "check")]
                {
                    rx.unasked += granted;
                }
                let at = self.moment();
                self.grants.update(at, rpc, view);
            }
        }
        self.arm_fifo(now);
    }
}

impl super::config::Config {
    /// Counts a tick for `rpc`, whose peer was last heard `silence` ticks ago.
    fn on_tick(&self, rpc: &mut Rpc, silence: u64) -> Due {
        if rpc.state == State::Outgoing && !rpc.is_client() {
            return self.on_response_tick(rpc, silence);
        }
        if rpc.state == State::InService && !rpc.is_client() {
            return self.on_service_tick(rpc);
        }
        let waits_for_us = match (rpc.state, &rpc.rx, &rpc.tx) {
            (State::Incoming, Some(rx), _) => rx.lease.is_none() || rx.all_granted_came(),
            (State::Outgoing, _, Some(tx)) => tx.can_send(),
            _ => false,
        };
        if waits_for_us {
            rpc.silent = 0;
            return Due::Nothing;
        }
        rpc.silent += 1;
        let asks = rpc.is_client() || self.server_timers;
        // A server that does not ask hears as seldom as its client asks.
        let patience = if asks { self.timeout_ticks } else { self.timeout_ticks.saturating_mul(QUIET_FACTOR) };
        if rpc.silent >= patience {
            return Due::GiveUp;
        }
        // However rare, a RESEND must come well before the peer is given up.
        let most = (self.timeout_ticks / 2 / self.resend_ticks.max(1)).clamp(1, MAX_BUSY_FACTOR);
        let factor = (1 << rpc.busy.min(MAX_BUSY_FACTOR.ilog2())).min(most);
        let late = rpc.silent.checked_sub(self.resend_ticks * factor);
        match late {
            _ if !asks => Due::Nothing,
            Some(late) if late % (self.resend_interval.max(1) * factor) == 0 => Due::Resend,
            _ => Due::Nothing,
        }
    }

    /// A request that the application has, or could have taken.
    fn on_service_tick(&self, rpc: &mut Rpc) -> Due {
        rpc.silent = 0;
        rpc.done = rpc.done.saturating_add(1);
        let over = |most: u32| most > 0 && rpc.done >= most;
        if over(self.service_ticks) || rpc.unread && over(self.unread_ticks) { Due::Overdue } else { Due::Nothing }
    }

    /// A server that has sent its response waits for the ACK.
    fn on_response_tick(&self, rpc: &mut Rpc, silence: u64) -> Due {
        let patience = u64::from(self.timeout_ticks);
        let sent = rpc.tx.as_ref().is_some_and(|tx| tx.left() == 0);
        if !sent {
            // Waits for grants, which a client that is gone will never send. How long it was silent before the
            // response began tells nothing.
            rpc.silent += 1;
            if silence.min(rpc.silent.into()) >= patience {
                return Due::GiveUp;
            }
            // Nor will a client that has given up the call, however much it has to say about others: asked for its
            // ACK it sends one. One that waits asks for what it lacks.
            let waits = rpc.tx.as_ref().is_some_and(|tx| !tx.can_send());
            let interval = self.resend_ticks.max(1);
            let due = rpc.silent.is_multiple_of(interval) && (rpc.silent / interval).is_power_of_two();
            return if waits && due { Due::NeedAck } else { Due::Nothing };
        }
        rpc.silent = 0;
        rpc.done += 1;
        if u64::from(rpc.done) > 10 * patience || u64::from(rpc.done) >= patience && silence >= patience {
            Due::GiveUp
        } else if rpc.done >= rpc.next_need_ack {
            Due::NeedAck
        } else {
            Due::Nothing
        }
    }
}
