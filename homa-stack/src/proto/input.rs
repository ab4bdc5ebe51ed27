//! Packets in.

use std::net::IpAddr;

use super::endpoint::Endpoint;
use super::grants::RpcKey;
use super::output::{Body, Control};
use super::peers::{PeerKey, address_tag};
use super::planted::Planted;
use super::pool::Lease;
use super::recovery::MOST_ASKS;
use super::rpc::State;
use super::rx_message::RxMessage;
use super::tx_message::TxMessage;
use crate::metrics::DropReason;
use crate::trace;
use crate::units::{Instant, Nanos, RpcId};
use crate::wire::{Ack, Cutoffs, Data, Ends, Glance, Grant, Kind, Packet, RESEND_ALL, Resend, WireError, ends};

/// How often a server may have forgotten a request before it is given up. Its other packets say that it is alive, so
/// that a server that is less patient than its network is slow would otherwise be sent the request for ever.
const MAX_RESTARTS: u32 = 20;

/// Bytes of a link's time around a Homa packet: IPv4 header, Ethernet, preamble and gap.
const AROUND_PACKET: usize = 58;

impl Endpoint {
    /// Notes in the time trace that the driver has found a packet: IP payload `bytes` from `from` at `priority`,
    /// which waited `wait` in the ring. Cheap, and without effect on the protocol.
    pub fn note_arrival(&mut self, from: IpAddr, priority: u8, wait: Option<Nanos>, bytes: &[u8]) {
        if let Some(wait) = wait {
            self.metrics.ring_wait_nanos += wait.as_nanos();
            self.metrics.ring_wait_packets += 1;
        }
        if self.trace.is_frozen() {
            return;
        }
        let Some(Glance { kind, sender_id, offset }) = Glance::at(bytes) else { return };
        let (peer, id) = (address_tag(from), RpcId::from_peer(sender_id).low());
        self.trace.record_told(match kind {
            Kind::Data => trace::Event::GroData { peer, id, offset, priority },
            Kind::Grant => trace::Event::GroGrant { peer, id, offset, priority },
            other => trace::Event::GroControl { peer, id, kind: other.code(), priority },
        });
        if let Some(wait) = wait {
            let nanos = u32::try_from(wait.as_nanos()).unwrap_or(u32::MAX);
            self.trace.record_told(trace::Event::RingWait { nanos, id, offset });
        }
    }

    /// Notes the start of a batch of packets in time trace and metrics.
    pub fn note_batch(&mut self) {
        self.metrics.softirq_calls += 1;
        self.trace.record_told(trace::Event::SoftirqStart);
    }

    /// Takes a packet: IP payload `bytes`, Ethernet padding trimmed, from `from`. Packets that are of no use are
    /// counted under one [`DropReason`] and have no other effect; those for other endpoints behind the same address
    /// are handed on ([`Self::poll_forward`]).
    pub fn handle_packet(&mut self, now: Instant, from: IpAddr, bytes: &[u8]) {
        if !self.config.shard.is_part() || self.takes(from, bytes) {
            self.handle_own(now, from, bytes);
        }
    }

    /// Takes a packet that is for this endpoint.
    pub(super) fn handle_own(&mut self, now: Instant, from: IpAddr, bytes: &[u8]) {
        let (ends, packet) = match Packet::parse_up_to(bytes, self.config.longest_message) {
            Ok(parsed) => parsed,
            Err(error) => {
                return self.metrics.dropped(match error {
                    WireError::Short { .. } => DropReason::Short,
                    WireError::UnknownType(_) => DropReason::UnknownType,
                    WireError::MessageLength(_)
                    | WireError::BeyondEnd { .. }
                    | WireError::Checksum
                    | WireError::NotAboutHoma => DropReason::Malformed,
                });
            }
        };
        self.settle();
        self.latest = self.latest.max(now);
        self.heard += (bytes.len() + AROUND_PACKET) as u64;
        let kind = packet.kind();
        self.metrics.packets_rcvd[kind.index()] += 1;
        let peer = self.peers.find(from);
        if let Some(peer) = peer {
            self.peers[peer].heard = self.ticks;
        }
        let used = match packet {
            Packet::Data(data) => self.data(now, from, peer, ends, &data),
            Packet::Freeze => {
                let (port, peer_port) = (ends.dport, ends.sport);
                let id = RpcId::from_peer(ends.sender_id).low();
                self.trace.record(trace::Event::FreezeRx { port, peer: address_tag(from), peer_port, id });
                self.trace.freeze();
                Ok(())
            }
            // All else is about RPCs with peers that we have met, but for questions about RPCs that are gone.
            Packet::Ack(ack) => self.ack(from, peer, ends, &ack),
            Packet::Cutoffs(cutoffs) => self.cutoffs(peer, &cutoffs),
            Packet::Resend(resend) => self.resend(from, ends, resend),
            Packet::NeedAck => self.need_ack(from, ends),
            Packet::Grant(grant) => self.find(peer, ends).map(|key| self.grant(key, grant)),
            Packet::Busy => self.find(peer, ends).map(|key| self.busy(key)),
            Packet::RpcUnknown => self.find(peer, ends).map(|key| self.unknown(key)),
        };
        if let Err(reason) = used {
            self.metrics.dropped(reason);
            if matches!(reason, DropReason::UnknownPort | DropReason::UnknownRpc) {
                self.refuse(now, from, ends, kind, bytes);
            }
            if reason == DropReason::UnknownRpc {
                let (id, kind) = (RpcId::from_peer(ends.sender_id).low(), kind.code());
                let (peer, port) = (address_tag(from), ends.sport);
                self.trace.record(trace::Event::DiscardUnknown { id, kind, peer, port });
            }
        }
    }

    /// The RPC that a packet from `peer` is about.
    fn find(&self, peer: Option<PeerKey>, ends: Ends) -> Result<RpcKey, DropReason> {
        let peer = peer.ok_or(DropReason::UnknownRpc)?;
        let id = RpcId::from_peer(ends.sender_id);
        // Packets of the same few messages come in turn.
        let hash = id.get() ^ u64::from(peer) << 32;
        let hint = self.recent.at(hash);
        if self.rpcs.get(hint).is_some_and(|rpc| rpc.id == id && rpc.peer == peer) {
            return Ok(hint);
        }
        let key = if id.is_client() {
            let key = *self.clients.get(&id.get()).ok_or(DropReason::UnknownRpc)?;
            // Ids alone would let any host speak for the server.
            if self.rpcs[key].peer == peer { key } else { return Err(DropReason::WrongPeer) }
        } else {
            *self.servers.get(&(peer, id.get())).ok_or(DropReason::UnknownRpc)?
        };
        self.recent.set(hash, key);
        Ok(key)
    }

    fn data(
        &mut self,
        now: Instant,
        from: IpAddr,
        known: Option<PeerKey>,
        ends: Ends,
        data: &Data<'_>,
    ) -> Result<(), DropReason> {
        if let Some(ack) = data.ack {
            self.acked_with_data(from, known, ack.client_id);
        }
        let (key, new) = match self.find(known, ends) {
            Ok(key) => (key, false),
            Err(DropReason::UnknownRpc) if !RpcId::from_peer(ends.sender_id).is_client() => {
                (self.accept(now, from, known, ends, data)?, true)
            }
            Err(reason) => return Err(reason),
        };
        let rpc = &mut self.rpcs[key];
        let (id, peer, state, is_client) = (rpc.id.low(), rpc.peer, rpc.state, rpc.is_client());
        if data.cutoff_version != self.config.cutoff_version {
            self.send_cutoffs(now, peer, ends);
        }
        match state {
            State::Outgoing if is_client => {
                self.check_length(data)?;
                self.begin_response(now, key, data);
            }
            State::Incoming => {}
            State::InService | State::Outgoing => {
                self.count_duplicate(data.retransmit);
                return Err(DropReason::Duplicate);
            }
        }
        let begins = new || state == State::Outgoing;
        let (offset, length) = (data.offset, data.message_len);
        let unscheduled = data.incoming.min(length);
        if begins {
            self.trace.record_also(trace::Event::Unscheduled { id, bytes: unscheduled });
        }
        self.trace.record_also(trace::Event::SoftirqData { id, peer: self.peers[peer].tag, offset, length });
        if begins {
            if data.bytes.len() == length as usize && unscheduled == length && self.take_whole(key, data) {
                return Ok(());
            }
            self.begin_message(now, key, data);
        }
        self.make_room(key, data)?;
        self.add_data(now, key, data)
    }

    /// Makes a server RPC for a request that was not heard of before.
    fn accept(
        &mut self,
        now: Instant,
        from: IpAddr,
        known: Option<PeerKey>,
        ends: Ends,
        data: &Data<'_>,
    ) -> Result<RpcKey, DropReason> {
        if !self.is_server_port(ends.dport) {
            return Err(DropReason::UnknownPort);
        }
        if self.unread >= self.config.max_unread {
            return Err(DropReason::Unread);
        }
        if self.serves_too_many(known) {
            return Err(DropReason::TooManyRpcs);
        }
        if !self.has_tables() {
            return Err(DropReason::TooManyRpcs);
        }
        self.check_length(data)?;
        let peer = self.admit_client(from, known)?;
        let id = RpcId::from_peer(ends.sender_id);
        if !self.tombstones.insert(now, peer, id) && !self.config.lacks(Planted::Tombstones) {
            return Err(DropReason::Executed);
        }
        self.metrics.tombstones += 1;
        self.metrics.tombstones_evicted = self.tombstones.evicted;
        self.peers[peer].heard = self.ticks;
        let key = self.insert(now, id, peer, ends.sport, ends.dport, State::Incoming);
        self.servers.insert((peer, id.get()), key);
        self.metrics.server_requests_started += 1;
        self.metrics.server_request_bytes_started += u64::from(data.message_len);
        Ok(key)
    }

    /// Turns away a message that is longer than the whole pool, which would wait for room for ever. Its RPC times
    /// out.
    fn check_length(&mut self, data: &Data<'_>) -> Result<(), DropReason> {
        if self.pool.can_hold(data.message_len as usize) {
            return Ok(());
        }
        self.metrics.dropped_data_no_bufs += data.bytes.len() as u64;
        Err(DropReason::NoBuffers)
    }

    /// Notes that a call's response has begun. The server answers only what it has whole, so nothing of the request
    /// need be sent any more.
    fn begin_response(&mut self, now: Instant, key: RpcKey, data: &Data<'_>) {
        let rpc = &mut self.rpcs[key];
        rpc.state = State::Incoming;
        let whole = rpc.tx.as_ref().filter(|tx| tx.left() == 0 && !rpc.restarted && !data.retransmit);
        if let Some(tx) = whole {
            let long = tx.is_long();
            self.peers[rpc.peer].timing.answered(&self.config, now.since(tx.sent_at), long);
        }
        self.wheel.clear(key);
        self.ready.remove(key);
        self.metrics.client_responses_started += 1;
        self.metrics.client_response_bytes_started += u64::from(data.message_len);
        self.learn_answer(key, data.incoming.min(data.message_len) as usize);
    }

    /// Delivers a message that has come in a single packet, its first, without any of what others need while they
    /// arrive. False if there is no room for it now.
    fn take_whole(&mut self, key: RpcKey, data: &Data<'_>) -> bool {
        let len = data.bytes.len();
        let Some(lease) = self.alloc(len) else { return false };
        let rpc = &mut self.rpcs[key];
        let id = rpc.id.low();
        self.trace.record_also(trace::Event::CopyOutStart { id });
        self.pool.write(&lease, 0, data.bytes);
        self.metrics.rx_copied_bytes += len as u64;
        self.trace.record(trace::Event::CopyOutDone { start: 0, end: len as u32, id });
        rpc.heard();
        if rpc.is_client() {
            self.metrics.client_response_bytes_done += len as u64;
        } else {
            self.metrics.server_request_bytes_done += len as u64;
        }
        self.metrics.resent_packets_used += u64::from(data.retransmit);
        // It needed no grants itself, but leaves room that others may have waited for.
        self.grants_due |= !self.grants.is_empty();
        self.hand_in(key, lease, len, len);
        true
    }

    fn begin_message(&mut self, now: Instant, key: RpcKey, data: &Data<'_>) {
        let mut rx = self.boxes_rx.take();
        *rx = RxMessage::new(data.message_len as usize, data.incoming as usize, now, self.spare_gaps.take());
        rx.watched = self.streams.watches(self.rpcs[key].port);
        self.rpcs[key].rx = Some(rx);
    }

    /// Room in the pool for a message of `len` bytes, unless there is none or it is kept for one that waits.
    fn alloc(&mut self, len: usize) -> Option<Lease> {
        if self.starved_long {
            return None;
        }
        let lease = self.take_pages(len);
        self.metrics.bpage_reuses = self.pool.reuses;
        lease
    }

    /// Sees to it that the message has room in the pool, and grants to come if it needs any.
    fn make_room(&mut self, key: RpcKey, data: &Data<'_>) -> Result<(), DropReason> {
        let rpc = &self.rpcs[key];
        let rx = rpc.rx.as_ref().expect("an RPC that is receiving has a message");
        if rx.len != data.message_len as usize {
            return Err(DropReason::LengthChanged);
        }
        if rx.lease.is_none() {
            let len = rx.len;
            let lease = self.alloc(len);
            self.rpcs[key].rx.as_mut().expect("it was there above").lease = lease;
        }
        let rpc = &self.rpcs[key];
        if rpc.rx.as_ref().is_some_and(|rx| rx.lease.is_none()) {
            self.metrics.dropped_data_no_bufs += data.bytes.len() as u64;
            let (id, offset, length) = (rpc.id.low(), data.offset, data.bytes.len() as u32);
            self.trace.record(trace::Event::DiscardNoBuffers { id, offset, length });
            if !self.starved.contains(&(key, rpc.id)) {
                self.metrics.buffer_alloc_failures += 1;
                self.starved.push((key, rpc.id));
            }
            return Err(DropReason::NoBuffers);
        }
        self.manage(key);
        Ok(())
    }

    /// Enters a message that has room and needs grants into the table of those.
    pub(super) fn manage(&mut self, key: RpcKey) {
        let rpc = &mut self.rpcs[key];
        let rx = rpc.rx.as_mut().expect("an RPC that is receiving has a message");
        if !rx.managed && rx.granted < rx.len {
            rx.managed = true;
            let (peer, view, at) = (rpc.peer, rx.view(), self.moment());
            self.grants.insert(at, key, peer, view);
            self.grants_due = true;
        }
    }

    /// Stores what is new of a packet; delivers the message if that makes it whole.
    fn add_data(&mut self, now: Instant, key: RpcKey, data: &Data<'_>) -> Result<(), DropReason> {
        let rpc = &mut self.rpcs[key];
        let id = rpc.id.low();
        let rx = rpc.rx.as_mut().expect("an RPC that is receiving has a message");
        let (start, end) = (data.offset as usize, data.offset as usize + data.bytes.len());
        let prefix = rx.watched.then(|| rx.prefix());
        let timing = &mut self.peers[rpc.peer].timing;
        let mut added = rx.add(now, self.heard, start, end, || timing.reorder_window(now, &self.config));
        let before = std::mem::replace(&mut rx.last, now);
        rx.last_heard = self.heard;
        if self.config.lacks(Planted::DuplicateCheck) {
            rx.received += end - start - added.fresh;
            added.fresh = end - start;
        }
        if let Some((start, end)) = added.gap {
            self.metrics.gaps_created += 1;
            rx.timed = false;
            self.trace.record(trace::Event::GapCreated { id, start: start as u32, end: end as u32 });
        }
        if !data.retransmit {
            if let Some(since) = added.since {
                timing.overtaken(now, &self.config, now.since(since));
            }
            if rx.tail_asked.take().is_some() && added.fresh > 0 {
                timing.paused(now, &self.config, now.since(before));
            }
            if let Some((_, granted_at)) = rx.probe.take_if(|(limit, _)| start >= *limit) {
                timing.granted_data(&self.config, now.since(granted_at));
            }
        }
        if added.fresh == 0 && start != end {
            if rx.asked && !data.retransmit {
                timing.asked_too_early(now, &self.config);
            }
            let (offset, length) = (data.offset, data.bytes.len() as u32);
            self.trace.record(trace::Event::RejectData { id, offset, length, retransmit: data.retransmit });
            self.count_duplicate(data.retransmit);
            return Err(DropReason::Duplicate);
        }
        let lease = rx.lease.as_ref().expect("the caller made room");
        self.trace.record_also(trace::Event::CopyOutStart { id });
        self.pool.write(lease, start, data.bytes);
        self.metrics.rx_copied_bytes += data.bytes.len() as u64;
        self.trace.record(trace::Event::CopyOutDone { start: start as u32, end: end as u32, id });
        let (complete, timed) = (rx.is_complete(), rx.timed);
        self.count_incoming(key);
        self.grants_due |= !self.grants.is_empty();
        let rpc = &mut self.rpcs[key];
        rpc.heard();
        if rpc.is_client() {
            self.metrics.client_response_bytes_done += added.fresh as u64;
        } else {
            self.metrics.server_request_bytes_done += added.fresh as u64;
        }
        self.metrics.resent_packets_used += u64::from(data.retransmit);
        if complete {
            self.deliver(key);
            return Ok(());
        }
        if !timed {
            self.watch_message(now, key);
        }
        if let Some(before) = prefix {
            self.note_progress(key, before);
        }
        Ok(())
    }

    /// Brings up to date what a message counts for in the sum of granted bytes to come.
    pub(super) fn count_incoming(&mut self, key: RpcKey) {
        let rx = self.rpcs[key].rx.as_mut().expect("an RPC that is receiving has a message");
        let incoming = rx.granted.saturating_sub(rx.received);
        self.grants.total_incoming = self.grants.total_incoming + incoming - rx.incoming;
        rx.incoming = incoming;
        if rx.managed {
            let (view, at) = (rx.view(), self.moment());
            self.grants.update(at, key, view);
        }
    }

    fn count_duplicate(&mut self, retransmit: bool) {
        if retransmit {
            self.metrics.resent_discards += 1;
        } else {
            self.metrics.packet_discards += 1;
        }
    }

    fn grant(&mut self, key: RpcKey, grant: Grant) {
        let rpc = &mut self.rpcs[key];
        rpc.heard();
        // A client that has begun to receive is past sending.
        let Some(tx) = rpc.tx.as_mut().filter(|_| rpc.state == State::Outgoing) else { return };
        let before = tx.granted;
        let increment = tx.grant(grant.offset as usize);
        let id = rpc.id.low();
        let (offset, priority) = (grant.offset, grant.priority);
        self.trace.record(trace::Event::SoftirqGrant { id, offset, priority, increment: increment as i32 });
        if increment <= 0 {
            self.metrics.stale_grants += 1;
        }
        // A stale grant's priority is stale too.
        if (offset as usize).min(tx.len) >= before {
            tx.priority = priority.min(self.config.control_priority());
        }
        self.schedule(key);
    }

    fn busy(&mut self, key: RpcKey) {
        let rpc = &mut self.rpcs[key];
        // What was asked for early says nothing about how often ticks should ask.
        rpc.busy = rpc.busy.saturating_add(u32::from(rpc.silent >= self.config.resend_ticks));
        rpc.silent = 0;
        if !rpc.is_client() {
            rpc.wanted(&self.config);
        }
        self.trace.record(trace::Event::BusyRx { id: rpc.id.low(), peer: self.peers[rpc.peer].tag });
        self.stop_expecting(key);
    }

    fn unknown(&mut self, key: RpcKey) {
        let rpc = &mut self.rpcs[key];
        let (id, peer, port) = (rpc.id.low(), self.peers[rpc.peer].tag, rpc.peer_port);
        self.trace.record(trace::Event::UnknownRx { id, peer, port });
        if !rpc.is_client() {
            self.metrics.server_rpcs_unknown += 1;
            return self.end(key);
        }
        if rpc.state != State::Outgoing {
            return;
        }
        rpc.restarts += 1;
        if rpc.restarts > MAX_RESTARTS {
            return self.give_up(key);
        }
        let tx = rpc.tx.as_mut().expect("an outgoing RPC has a message");
        tx.resend_priority = self.peers[rpc.peer].unscheduled_priority(tx.len, self.config.num_priorities);
        let listed = tx.has_resend();
        let hold_off = self.peers[rpc.peer].timing.hold_off(&self.config);
        let held = tx.ask_older_again(self.latest, 0, tx.next, hold_off);
        self.metrics.held_back_bytes += held as u64;
        if held < tx.next {
            rpc.restarted = true;
            self.trace.record(trace::Event::Restart { id, peer, port, lost: tx.next as u32 });
            self.metrics.resend_restarts += 1;
        } else if held == 0 && self.announce_again(key) {
            self.metrics.resend_restarts += 1;
        }
        if !listed && self.rpcs[key].tx.as_deref().is_some_and(TxMessage::has_resend) {
            self.resending.push_back(key);
        }
        self.watch_answer(self.latest, key);
    }

    fn resend(&mut self, from: IpAddr, ends: Ends, resend: Resend) -> Result<(), DropReason> {
        self.has_room_to_answer()?;
        let known = self.peers.find(from);
        let id = RpcId::from_peer(ends.sender_id);
        let key = match self.find(known, ends) {
            Ok(key) => key,
            Err(DropReason::UnknownRpc) => {
                // "Unknown" invites the client to begin anew: never for a request that may have run.
                let ran = known.is_some_and(|peer| self.tombstones.contains(peer, id));
                if ran {
                    return Err(DropReason::Executed);
                }
                let (tag, port) = (address_tag(from), ends.sport);
                self.trace.record(trace::Event::ResendUnknown { id: id.low(), peer: tag, port, offset: resend.offset });
                self.control.push_back(Control::to_stranger(from, back(ends), Body::Bare(Kind::RpcUnknown)));
                return Ok(());
            }
            Err(reason) => return Err(reason),
        };
        let rpc = &mut self.rpcs[key];
        let (peer, low, state) = (rpc.peer, id.low(), rpc.state);
        rpc.wanted(&self.config);
        let (offset, length) = (resend.offset, resend.length as i32);
        self.trace.record(trace::Event::ResendRx { id: low, offset, length, priority: resend.priority });
        let reply = Control::new(peer, back(ends), Body::Bare(Kind::Busy));
        let sending = rpc.state == State::Outgoing || rpc.is_client();
        let Some(tx) = rpc.tx.as_mut().filter(|_| sending) else {
            self.trace.record_also(trace::Event::BusyState { id: low, state: state.code() });
            self.control.push_back(reply);
            if state == State::Incoming && !self.config.server_timers {
                let rpc = &mut self.rpcs[key];
                rpc.silent = 0;
                // What has no room would be sent in vain: it is asked for when there is some.
                if rpc.rx.as_ref().is_none_or(|rx| rx.lease.is_some()) {
                    self.metrics.asked_resends += self.ask_for_missing(key, self.config.control_priority());
                }
            }
            return Ok(());
        };
        if resend.length != RESEND_ALL {
            tx.grant(usize::try_from(resend.end()).unwrap_or(usize::MAX));
        }
        let start = resend.offset as usize;
        if resend.length == RESEND_ALL && self.announce_again(key) {
            return Ok(());
        }
        let tx = self.rpcs[key].tx.as_mut().expect("it was there above");
        if start >= tx.next {
            let tx_end = tx.next as u32;
            self.trace.record_also(trace::Event::BusyOffset { id: low, offset, tx_end });
            self.control.push_back(reply);
        } else {
            let end = usize::try_from(resend.end()).unwrap_or(usize::MAX).min(tx.next);
            let control = self.config.control_priority();
            tx.resend_priority = resend.priority.min(control);
            // A receiver that had no room asks at a lower level, and needs even what it was just sent.
            let had_no_room = resend.priority < control;
            let timing = &self.peers[peer].timing;
            let hold_off = if had_no_room { Nanos::ZERO } else { timing.hold_off(&self.config) };
            let listed = tx.has_resend();
            let held = tx.ask_older_again(self.latest, start, end, hold_off);
            self.metrics.held_back_bytes += held as u64;
            if held == end - start {
                let tx_end = tx.next as u32;
                self.trace.record_also(trace::Event::BusyOffset { id: low, offset, tx_end });
                self.control.push_back(reply);
            } else {
                self.trace.record_also(trace::Event::Retransmit { offset, length: (end - start) as u32, id: low });
            }
            if tx.has_resend() && !listed {
                self.resending.push_back(key);
            }
        }
        self.schedule(key);
        Ok(())
    }

    fn need_ack(&mut self, from: IpAddr, ends: Ends) -> Result<(), DropReason> {
        let id = RpcId::from_peer(ends.sender_id);
        if !id.is_client() {
            return Err(DropReason::Malformed);
        }
        self.has_room_to_answer()?;
        self.trace.record(trace::Event::NeedAckRx { id: id.low() });
        let known = self.peers.find(from);
        match self.find(known, ends) {
            Ok(key) => {
                self.metrics.ignored_need_acks += 1;
                let rpc = &self.rpcs[key];
                if rpc.rx.as_ref().is_some_and(|rx| rx.lease.is_none()) {
                    // There is no room for it now, but it is wanted.
                    self.control.push_back(Control::new(rpc.peer, back(ends), Body::Bare(Kind::Busy)));
                } else {
                    self.metrics.asked_resends += self.ask_for_missing(key, self.config.control_priority());
                }
                Ok(())
            }
            Err(DropReason::UnknownRpc) => {
                let waiting = known.map_or(Ack::new(&[]), |peer| self.peers[peer].take_acks());
                let tag = address_tag(from);
                let acks = waiting.records().count() as u32;
                self.trace.record_also(trace::Event::NeedAckReply { id: id.low(), peer: tag, acks });
                self.control.push_back(Control::to_stranger(from, back(ends), Body::Ack(waiting)));
                Ok(())
            }
            Err(reason) => Err(reason),
        }
    }

    fn ack(&mut self, from: IpAddr, peer: Option<PeerKey>, ends: Ends, ack: &Ack) -> Result<(), DropReason> {
        let (id, acks) = (RpcId::from_peer(ends.sender_id).low(), ack.records().count() as u32);
        self.trace.record(trace::Event::AckRx { id, peer: address_tag(from), acks });
        self.acked(from, peer, ends.sender_id);
        for record in ack.records() {
            self.acked(from, peer, record.client_id);
        }
        peer.map(drop).ok_or(DropReason::UnknownRpc)
    }

    /// The client at `from` is done with what it calls `client_id`.
    pub(super) fn acked(&mut self, from: IpAddr, peer: Option<PeerKey>, client_id: u64) {
        if self.config.shard.is_part() && self.forward_ack(from, client_id) {
            return;
        }
        if let Some(peer) = peer {
            self.forget_acked(peer, RpcId::from_peer(client_id));
        }
    }

    /// The client `peer` is done with the RPC that we call `id`.
    pub(super) fn forget_acked(&mut self, peer: PeerKey, id: RpcId) {
        let Some(&key) = self.servers.get(&(peer, id.get())) else { return };
        // A client can be done only with a response; anything else is a forgery or a client begun anew.
        if self.rpcs[key].state == State::Outgoing {
            self.trace.record(trace::Event::Acked { id: id.low() });
            self.end(key);
        }
    }

    fn cutoffs(&mut self, peer: Option<PeerKey>, cutoffs: &Cutoffs) -> Result<(), DropReason> {
        self.peers[peer.ok_or(DropReason::UnknownRpc)?].set_cutoffs(cutoffs);
        Ok(())
    }

    /// Takes `cutoffs` for what `peer` said in a CUTOFFS packet before, so that the first message to it already uses its
    /// levels: for hosts that are known to each other, as those of a simulation.
    pub fn acquaint(&mut self, peer: IpAddr, cutoffs: &Cutoffs) {
        let peer = self.intern(peer);
        self.peers[peer].set_cutoffs(cutoffs);
    }

    fn send_cutoffs(&mut self, now: Instant, peer: PeerKey, ends: Ends) {
        let sent = &mut self.peers[peer].cutoffs_sent;
        if sent.is_none_or(|at| now.since(at) >= Nanos::from_millis(1)) {
            *sent = Some(now);
            self.control.push_back(Control::new(peer, back(ends), Body::Cutoffs));
        }
    }

    /// Asks for what was granted and has not come, first things first, or for everything if nothing came; returns how
    /// many RESENDs that takes, which the caller counts under its reason.
    pub(super) fn ask_for_missing(&mut self, key: RpcKey, priority: u8) -> u64 {
        let rpc = &self.rpcs[key];
        let (peer, id, tag) = (rpc.peer, rpc.id, self.peers[rpc.peer].tag);
        let header = ends(rpc.wire_port, rpc.peer_port, id);
        let mut asks = 0;
        let mut ask = |offset: u32, length: u32| {
            asks += 1;
            self.trace.record(trace::Event::ResendTx { id: id.low(), peer: tag, offset, length: length as i32 });
            self.control.push_back(Control::new(peer, header, Body::Resend(Resend { offset, length, priority })));
        };
        // A message that was announced may have grants before it has bytes; asking for those repeats the grants.
        match rpc.rx.as_ref().filter(|rx| rx.received > 0 || rx.granted > rx.unscheduled) {
            None => ask(0, RESEND_ALL),
            Some(rx) => rx.missing().take(MOST_ASKS).for_each(|(start, end)| ask(start as u32, (end - start) as u32)),
        }
        asks
    }
}

/// The ends of an answer to a packet.
fn back(ends: Ends) -> Ends {
    Ends { sport: ends.dport, dport: ends.sport, sender_id: RpcId::from_peer(ends.sender_id).get() }
}
