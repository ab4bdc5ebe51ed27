//! Packets out.

use std::net::IpAddr;
use std::ops::Range;

use super::endpoint::Endpoint;
use super::grants::{Decision, RpcKey};
use super::heap::Turn;
use super::peers::{PeerKey, address_tag};
use super::rpc::State;
use crate::metrics::Metrics;
use crate::trace;
use crate::units::{Instant, Priority, RpcId};
use crate::wire::{Ack, Cutoffs, DATA_HEADER_LEN, Data, Ends, Grant, Kind, OffsetForm, Resend, ends, write_bare};

/// Bytes that Ethernet adds to a packet: header, checksum, preamble and gap.
pub(super) const ETHERNET_OVERHEAD: usize = 42;

/// A packet that was written and is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: IpAddr,
    /// Network priority, mapped.
    pub priority: Priority,
    /// Bytes of the packet: Homa header and data, checksum still zero.
    pub len: usize,
    /// Of these, the data bytes at the end that were not written: see [`Endpoint::poll_gather`].
    pub gathered: usize,
    /// DATA that the device is to cut into packets: data bytes in each but the last; else 0.
    pub segment: usize,
    /// Type.
    pub kind: Kind,
    /// The RPC it is about, as we know it.
    pub id: RpcId,
    /// DATA: offset of the data; GRANT: new limit; else 0.
    pub offset: u32,
    /// DATA: length of the message; else 0.
    pub message_len: u32,
    /// The peer as time traces show it.
    pub peer_tag: u32,
    /// DATA: where the message is.
    pub(super) key: RpcKey,
}

/// A control packet that waits to be sent.
#[derive(Debug)]
pub(crate) struct Control {
    to: To,
    ends: Ends,
    body: Body,
}

/// Whom a control packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Peer(PeerKey),
    /// One that is not remembered: whoever asks about an RPC that is gone.
    Stranger(IpAddr),
}

#[derive(Debug)]
pub(crate) enum Body {
    Bare(Kind),
    Grant {
        grant: Grant,
        increment: i32,
    },
    Resend(Resend),
    Cutoffs,
    Ack(Ack),
    /// That there is a message, which an empty DATA packet tells.
    Announce(RpcKey),
}

impl Control {
    pub(crate) fn new(peer: PeerKey, ends: Ends, body: Body) -> Self {
        Self { to: To::Peer(peer), ends, body }
    }

    pub(crate) fn to_stranger(addr: IpAddr, ends: Ends, body: Body) -> Self {
        Self { to: To::Stranger(addr.to_canonical()), ends, body }
    }

    /// True if it is for `peer`.
    pub(crate) fn is_for(&self, peer: PeerKey) -> bool {
        self.to == To::Peer(peer)
    }

    /// True if it is a RESEND.
    #[cfg(feature = "check")]
    pub(crate) fn is_resend(&self) -> bool {
        matches!(self.body, Body::Resend(_))
    }

    pub(crate) fn ack(peer: PeerKey, ends: Ends, ack: Ack) -> Self {
        Self::new(peer, ends, Body::Ack(ack))
    }
}

impl Endpoint {
    /// Writes the next packet to send, if any, to the start of `out`, which must hold a full packet (the MTU, or
    /// [`Config::gso_bytes`](super::Config::gso_bytes)).
    /// Control packets go first, then what was asked for again, then new data by SRPT. If packets are paced, those
    /// with data may have to wait: [`Self::next_deadline`] says until when.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        self.poll_gather(now, out, usize::MAX)
    }

    /// As [`Self::poll_transmit`], but of DATA with more than `most` bytes, or that the device is to cut, only the header
    /// is written: the bytes are those of [`Self::gathered`]. With `usize::MAX` all are written.
    pub fn poll_gather(&mut self, now: Instant, out: &mut [u8], most: usize) -> Option<Transmit> {
        let sent = self.next_packet(now, out, most);
        self.charge(now, sent.as_ref());
        sent
    }

    fn next_packet(&mut self, now: Instant, out: &mut [u8], most: usize) -> Option<Transmit> {
        self.latest = self.latest.max(now);
        let open = self.nic_has_room(now);
        if self.grants_due {
            self.send_grants(now);
        }
        while let Some(control) = self.control.pop_front() {
            let Body::Announce(key) = control.body else { return Some(self.write_control(control, out)) };
            let announcement = self.write_announcement(key, RpcId::local(control.ends.sender_id), open, out);
            if announcement.is_some() {
                return announcement;
            }
        }
        while let Some(&key) = self.resending.front() {
            if !open {
                self.wait_for_nic(now);
                break;
            }
            let packet = self.rpcs.get_mut(key).and_then(|rpc| rpc.tx.as_mut()).and_then(|tx| tx.take_resend());
            let more = self.rpcs.get(key).and_then(|rpc| rpc.tx.as_ref()).is_some_and(|tx| tx.has_resend());
            if !more {
                self.resending.pop_front();
            }
            if let Some((start, end)) = packet {
                return Some(self.write_data(key, start..end, true, out, most));
            }
        }
        let key = self.pick(now, open)?;
        let rpc = &mut self.rpcs[key];
        let tx = rpc.tx.as_mut().expect("only outgoing messages are scheduled");
        let (start, end) = tx.take_new().expect("only messages that can send are scheduled");
        let (left, stays, granted) = (tx.left(), tx.can_send(), tx.granted as u32);
        tx.sent_at = now;
        let (is_client, id, serial) = (rpc.is_client(), rpc.id.low(), rpc.serial);
        if stays {
            self.ready.set(key, Turn { left, serial });
        } else {
            self.ready.remove(key);
        }
        let bytes = (end - start) as u64;
        let (done_bytes, done) = if is_client {
            (&mut self.metrics.client_request_bytes_done, &mut self.metrics.client_requests_done)
        } else {
            (&mut self.metrics.server_response_bytes_done, &mut self.metrics.server_responses_done)
        };
        *done_bytes += bytes;
        *done += u64::from(left == 0);
        if left == 0 && is_client {
            self.watch_answer(now, key);
        }
        let transmit = self.write_data(key, start..end, false, out, most);
        if !stays && left > 0 {
            self.trace.record_also(trace::Event::XmitStopped { id, offset: end as u32, granted });
        }
        Some(transmit)
    }

    /// The data bytes that [`Self::poll_gather`] left out of the packet that it returned last, in two parts; with
    /// what a device needs to note that the packet was sent.
    pub fn gathered(&mut self, transmit: &Transmit) -> ([&[u8]; 2], &mut trace::Recorder, &mut Metrics) {
        let tx = self.rpcs.get(transmit.key).and_then(|rpc| rpc.tx.as_ref());
        let start = transmit.offset as usize;
        let parts = tx.map_or([&[][..]; 2], |tx| tx.payload.parts(start, start + transmit.gathered));
        (parts, &mut self.trace, &mut self.metrics)
    }

    /// Writes a DATA packet with `bytes` of the message, or what the device cuts into several; of more than `most` data
    /// bytes only the header.
    fn write_data(&mut self, key: RpcKey, bytes: Range<usize>, again: bool, out: &mut [u8], most: usize) -> Transmit {
        let Range { start, end } = bytes;
        let now = self.latest;
        let rpc = &mut self.rpcs[key];
        let peer = &mut self.peers[rpc.peer];
        let tx = rpc.tx.as_mut().expect("the caller took a packet of it");
        tx.log.note(now, start, end, self.config.resend_hold_off);
        let level = match (again, start < tx.unscheduled) {
            (true, _) => tx.resend_priority,
            (false, true) => peer.unscheduled_priority(tx.len, self.config.num_priorities),
            (false, false) => tx.priority,
        };
        let (id, offset) = (rpc.id, start as u32);
        // A division takes longer than all the rest.
        let packets = if end - start > tx.segment() { (end - start).div_ceil(tx.segment()) } else { 1 };
        let segment = if packets > 1 { tx.segment() } else { 0 };
        let overhead = DATA_HEADER_LEN + peer.addr_header() + ETHERNET_OVERHEAD;
        let wire_bytes = (end - start + packets * overhead) as u32;
        self.trace.record(trace::Event::IpXmit { wire_bytes, peer: peer.tag, id: id.low(), offset });
        let data = Data {
            message_len: tx.len as u32,
            incoming: if again { end } else { tx.unscheduled } as u32,
            ack: peer.pop_ack(),
            cutoff_version: peer.cutoff_version,
            retransmit: again,
            offset,
            // Those who cut segments know how to count the sequence number on.
            form: if segment > 0 { OffsetForm::SequenceOnly } else { OffsetForm::Both },
            bytes: &[],
        };
        let header = data.write_header(ends(rpc.wire_port, rpc.peer_port, id), out);
        let len = header + end - start;
        // What is to be cut does not fit the slot of a device that takes data where they lie.
        let apart = end - start > most || segment > 0 && most < usize::MAX;
        let gathered = if apart { end - start } else { 0 };
        if gathered == 0 {
            tx.payload.copy_to(start, &mut out[header..len]);
            self.metrics.tx_copied_bytes += (end - start) as u64;
        }
        let (message_len, to, peer_tag) = (tx.len as u32, peer.addr, peer.tag);
        self.metrics.resent_packets += u64::from(again);
        self.trace.record_also(trace::Event::DataQueued {
            id: id.low(),
            offset,
            length: (end - start) as u32,
            queue: 0,
        });
        self.count_sent(Kind::Data, level, len);
        let priority = self.config.mapped(level);
        Transmit { to, priority, len, gathered, segment, kind: Kind::Data, id, offset, message_len, peer_tag, key }
    }

    fn write_control(&mut self, control: Control, out: &mut [u8]) -> Transmit {
        let Control { to, ends, body } = control;
        let (to, peer_tag) = match to {
            To::Peer(peer) => (self.peers[peer].addr, self.peers[peer].tag),
            To::Stranger(addr) => (addr, address_tag(addr)),
        };
        let id = RpcId::local(ends.sender_id);
        let mut offset = 0;
        let (kind, len) = match body {
            Body::Bare(kind) => (kind, write_bare(kind, ends, out)),
            Body::Grant { grant, increment } => {
                offset = grant.offset;
                let priority = grant.priority;
                self.trace.record(trace::Event::SendGrant { id: id.low(), offset, priority, increment });
                (Kind::Grant, grant.write(ends, out))
            }
            Body::Resend(resend) => (Kind::Resend, resend.write(ends, out)),
            Body::Ack(ack) => (Kind::Ack, ack.write(ends, out)),
            Body::Announce(_) => unreachable!("announcements are DATA packets"),
            Body::Cutoffs => {
                let cutoffs = Cutoffs { table: self.config.cutoffs, version: self.config.cutoff_version };
                (Kind::Cutoffs, cutoffs.write(ends, out))
            }
        };
        let level = self.config.control_priority();
        self.count_sent(kind, level, len);
        let priority = self.config.mapped(level);
        Transmit { to, priority, len, gathered: 0, segment: 0, kind, id, offset, message_len: 0, peer_tag, key: 0 }
    }

    pub(super) fn count_sent(&mut self, kind: Kind, level: u8, len: usize) {
        self.metrics.packets_sent[kind.index()] += 1;
        self.metrics.priority_bytes[usize::from(level)] += len as u64;
        self.metrics.priority_packets[usize::from(level)] += 1;
    }

    /// Turns room for grants into GRANT packets.
    fn send_grants(&mut self, now: Instant) {
        self.grants_due = false;
        self.count_grantable(now);
        if self.grants.has_policy() {
            return self.grant_by_policy(now);
        }
        self.grants.fill(&self.config, Self::view(&self.rpcs));
        self.metrics.grant_check_calls += 1;
        while let Some(decision) = self.grants.decide(&self.config) {
            self.metrics.needy_grants += u64::from(decision.was_needy);
            self.apply_grant(now, decision);
        }
        self.arm_fifo(now);
    }

    /// Sees to it that grants by age come while messages need grants, and only then.
    pub(super) fn arm_fifo(&mut self, now: Instant) {
        if self.grants.is_empty() {
            self.next_fifo = None;
        } else if self.next_fifo.is_none() {
            self.next_fifo = self.config.fifo_interval().map(|span| now + span);
        }
    }

    /// Sends a grant, to where a packet ends if that is possible; returns by how many bytes it raises the limit.
    pub(super) fn apply_grant(&mut self, now: Instant, mut decision: Decision) -> usize {
        decision.offset = self.whole_frames(decision.rpc, decision.offset);
        let rpc = &mut self.rpcs[decision.rpc];
        debug_assert!(rpc.state == State::Incoming, "only incoming messages are granted to");
        let rx = rpc.rx.as_mut().expect("only incoming messages are granted to");
        let increment = (decision.offset - rx.granted) as i32;
        rx.probe.get_or_insert((rx.granted, now));
        if rx.all_granted_came() {
            rx.last = now;
        }
        let timed = rx.timed;
        rx.granted = decision.offset;
        let grant = Grant { offset: decision.offset as u32, priority: decision.priority };
        let header = ends(rpc.wire_port, rpc.peer_port, rpc.id);
        let to = rpc.peer;
        match self.control.back_mut() {
            // One that has not left yet is raised: policies may grant in steps much smaller than packets.
            Some(Control { to: To::Peer(peer), ends, body: Body::Grant { grant: last, increment: sum } })
                if *peer == to && *ends == header =>
            {
                (*last, *sum) = (grant, *sum + increment);
            }
            _ => self.control.push_back(Control::new(to, header, Body::Grant { grant, increment })),
        }
        self.count_incoming(decision.rpc);
        if !timed {
            self.watch_message(now, decision.rpc);
        }
        increment as usize
    }

    /// Adds up messages in need of grants over time.
    pub(super) fn count_grantable(&mut self, now: Instant) {
        let span = now.since(self.grants_counted).as_nanos();
        self.metrics.grantable_rpcs_integral += span * self.grants.len() as u64;
        self.grants_counted = now;
    }
}
