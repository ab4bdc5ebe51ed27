//! ICMP: what the network says of our packets, and what we say of packets to ports that nobody serves.
//!
//! An ICMP message can come from anybody. One is believed only if it quotes a packet, down to the RPC id, that we may
//! well have sent: an RPC that is alive, with that peer, between those ports, and in a state to send such a packet.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::endpoint::Endpoint;
use super::event::RpcError;
use super::grants::RpcKey;
use super::peers::PeerKey;
use super::rpc::{Rpc, State};
use crate::metrics::DropReason;
use crate::trace;
use crate::units::{Instant, Nanos, RpcId};
use crate::wire::icmp::{Cause, IcmpError, MAX_QUOTE};
use crate::wire::{Ends, Kind, WireError};

/// Refusals a second, in the long run.
const REFUSAL_INTERVAL: Nanos = Nanos::from_millis(1);
/// Time's worth of refusals that may go out at once.
const REFUSAL_BURST: Nanos = Nanos::from_millis(50);

/// Most that wait to be sent.
pub(super) const MOST_REFUSALS: usize = 64;

/// How long a smaller path MTU is believed in, as in the kernel.
const PATH_MTU_TIME: Nanos = Nanos::from_secs(600);

/// Smallest path MTUs that are believed: links of less are not in use, but such messages serve to slow others down.
const MIN_MTU_V4: usize = 576;
const MIN_MTU_V6: usize = 1280;

/// The kernel's numbers of errors, for traces.
const ENOTCONN: i32 = 107;
const EHOSTUNREACH: i32 = 113;
const EPROTONOSUPPORT: i32 = 93;

/// A packet that is to be answered with an ICMP "port unreachable".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Who sent it.
    pub to: IpAddr,
    /// Its length: Homa header and data.
    pub len: usize,
    quote: [u8; MAX_QUOTE],
    quoted: u8,
}

impl Refusal {
    /// Its first bytes.
    pub fn quote(&self) -> &[u8] {
        &self.quote[..usize::from(self.quoted)]
    }
}

/// Refusals that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    waiting: VecDeque<Refusal>,
    /// When the allowance will be whole again.
    restored: Instant,
}

impl Refusals {
    /// Notes `packet` for a refusal, unless too many were sent lately; true if so.
    fn push(&mut self, now: Instant, to: IpAddr, packet: &[u8]) -> bool {
        let restored = self.restored.max(now) + REFUSAL_INTERVAL;
        if restored.since(now) > REFUSAL_BURST || self.waiting.len() == MOST_REFUSALS {
            return false;
        }
        self.restored = restored;
        let quoted = packet.len().min(MAX_QUOTE);
        let mut quote = [0; MAX_QUOTE];
        quote[..quoted].copy_from_slice(&packet[..quoted]);
        self.waiting.push_back(Refusal { to, len: packet.len(), quote, quoted: quoted as u8 });
        true
    }

    #[cfg(feature = "check")]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl Endpoint {
    /// The next packet to answer with an ICMP "port unreachable", if any. The caller writes the message with
    /// [`write_port_unreachable`](crate::wire::icmp::write_port_unreachable), since the endpoint does not know its own
    /// addresses.
    pub fn poll_refusal(&mut self) -> Option<Refusal> {
        let refusal = self.refusals.waiting.pop_front()?;
        self.metrics.refusals_sent += 1;
        Some(refusal)
    }

    /// Refuses a packet that is for no port of ours and asks for something; answers and acks are let go.
    pub(super) fn refuse(&mut self, now: Instant, from: IpAddr, ends: Ends, kind: Kind, packet: &[u8]) {
        let asks = matches!(kind, Kind::Data | Kind::Grant);
        if asks && !self.has_port(ends.dport) && !self.refusals.push(now, from, packet) {
            self.metrics.refusals_withheld += 1;
        }
    }

    /// Takes an ICMP message: `bytes` that came from `from` to our address `to`. Errors about packets that we can't
    /// have sent are counted and have no effect.
    pub fn handle_icmp(&mut self, now: Instant, from: IpAddr, to: IpAddr, bytes: &[u8]) {
        self.latest = self.latest.max(now);
        match IcmpError::parse(from, to, bytes) {
            Ok(error) if self.forward_icmp(error) => {}
            Ok(error) => self.icmp_error(now, error),
            Err(WireError::NotAboutHoma) => self.metrics.dropped(DropReason::OtherIcmp),
            Err(WireError::Short { .. }) => self.metrics.dropped(DropReason::Short),
            Err(_) => self.metrics.dropped(DropReason::Malformed),
        }
    }

    /// Takes an error about a packet of one of our RPCs, if it is one.
    pub(super) fn icmp_error(&mut self, now: Instant, error: IcmpError) {
        self.settle();
        match self.believe(now, error) {
            Ok(()) => {
                self.metrics.icmp_errors += 1;
                self.spread_icmp(error);
            }
            Err(reason) => self.metrics.dropped(reason),
        }
    }

    /// Takes what another endpoint behind the same address has found to be true.
    pub(super) fn icmp_error_elsewhere(&mut self, now: Instant, error: IcmpError) {
        let Some(peer) = self.peers.find(error.to) else { return };
        match error.cause {
            Cause::TooBig { mtu } => drop(self.lower_path_mtu(now, peer, mtu)),
            cause => self.end_unreachable(peer, error.ends.dport, cause),
        }
    }

    fn believe(&mut self, now: Instant, error: IcmpError) -> Result<(), DropReason> {
        let IcmpError { cause, to, ends, kind, sequence } = error;
        let peer = self.peers.find(to).ok_or(DropReason::ForgedIcmp)?;
        let id = RpcId::local(ends.sender_id);
        let key =
            if id.is_client() { self.clients.get(&id.get()) } else { self.servers.get(&(peer, id.get())) }.copied();
        let key = key.ok_or(DropReason::ForgedIcmp)?;
        let rpc = &self.rpcs[key];
        let ours = rpc.peer == peer && (rpc.wire_port, rpc.peer_port) == (ends.sport, ends.dport);
        if !ours || !may_have_sent(rpc, kind, sequence as usize) {
            return Err(DropReason::ForgedIcmp);
        }
        match cause {
            Cause::TooBig { mtu } => return self.too_big(now, key, kind, sequence as usize, mtu),
            cause => self.end_unreachable(peer, ends.dport, cause),
        }
        Ok(())
    }

    /// Ends what a peer, or its port `port`, can't be reached for.
    fn end_unreachable(&mut self, peer: PeerKey, port: u16, cause: Cause) {
        match cause {
            Cause::PortUnreachable => self.end_all(peer, Some(port), RpcError::PortUnreachable, ENOTCONN),
            Cause::ProtocolUnreachable => self.end_all(peer, None, RpcError::ProtocolUnreachable, EPROTONOSUPPORT),
            Cause::HostUnreachable => self.end_all(peer, None, RpcError::PeerUnreachable, EHOSTUNREACH),
            Cause::TooBig { .. } => {}
        }
    }

    /// Ends all RPCs with a peer, or with one of its ports.
    fn end_all(&mut self, peer: PeerKey, port: Option<u16>, error: RpcError, number: i32) {
        let theirs = |rpc: &Rpc| rpc.peer == peer && port.is_none_or(|port| rpc.peer_port == port);
        let keys: Vec<_> = self.rpcs.iter().filter(|(_, rpc)| theirs(rpc)).map(|(key, _)| key).collect();
        let tag = self.peers[peer].tag;
        for key in keys {
            let (id, state) = (self.rpcs[key].id, self.rpcs[key].state);
            if id.is_client() {
                self.trace.record(trace::Event::AbortClient { peer: tag, id: id.low(), error: number });
                self.fail(key, error);
            } else {
                self.metrics.server_rpc_discards += 1;
                self.end(key);
                if state == State::Incoming {
                    // It never ran: its client may send it again.
                    self.tombstones.remove(peer, id);
                }
            }
        }
    }

    /// A packet of an RPC did not fit its way: from now on they are smaller, and this one is sent again so.
    fn too_big(&mut self, now: Instant, key: RpcKey, kind: Kind, offset: usize, mtu: u32) -> Result<(), DropReason> {
        let peer = self.rpcs[key].peer;
        // Only DATA can be too big.
        if kind != Kind::Data {
            return Err(DropReason::ForgedIcmp);
        }
        self.lower_path_mtu(now, peer, mtu)?;
        let rpc = &mut self.rpcs[key];
        if rpc.state == State::Outgoing
            && let Some(tx) = &mut rpc.tx
        {
            let end = offset + tx.first_segment();
            let listed = tx.has_resend();
            tx.resend_priority = self.config.control_priority();
            if tx.ask_again(offset, end) && !listed {
                self.resending.push_back(key);
            }
        }
        Ok(())
    }
}

impl Endpoint {
    /// Has packets to `peer` fit `mtu`, which must be less than what we send.
    fn lower_path_mtu(&mut self, now: Instant, peer: PeerKey, mtu: u32) -> Result<(), DropReason> {
        let least = if self.peers[peer].addr.is_ipv4() { MIN_MTU_V4 } else { MIN_MTU_V6 };
        let known = self.peers[peer].mtu(now).unwrap_or(usize::MAX).min(self.config.mtu);
        let mtu = (mtu as usize).max(least);
        if mtu > known || mtu >= self.config.mtu {
            return Err(DropReason::ForgedIcmp);
        }
        if mtu < known {
            self.metrics.path_mtu_updates += 1;
            self.peers[peer].path_mtu = Some((mtu, now + PATH_MTU_TIME));
            self.cut_smaller(now, peer);
        }
        Ok(())
    }

    /// The interface takes other packets from now on: at most `mtu` bytes with their IP header. Messages under way go
    /// on in smaller ones if need be.
    pub fn set_mtu(&mut self, now: Instant, mtu: usize) {
        self.config.mtu = mtu;
        for peer in self.peers.keys() {
            self.cut_smaller(now, peer);
        }
    }

    /// Has the messages to `peer` that are under way go on in packets of the size that it now takes.
    pub(super) fn cut_smaller(&mut self, now: Instant, peer: PeerKey) {
        let (segment, batch) = self.segments(now, peer);
        for (_, rpc) in self.rpcs.iter_mut().filter(|(_, rpc)| rpc.peer == peer) {
            if let Some(tx) = &mut rpc.tx {
                tx.cut_smaller(segment, batch);
            }
        }
    }
}

/// True if an RPC in this state can have sent a packet of type `kind`, with data at `offset`.
fn may_have_sent(rpc: &Rpc, kind: Kind, offset: usize) -> bool {
    let sent = rpc.tx.as_ref().map_or(0, |tx| tx.next);
    let (client, receives) = (rpc.is_client(), rpc.rx.is_some());
    match kind {
        // At 0 perhaps an announcement, without data.
        Kind::Data => offset < sent || offset == 0 && rpc.tx.is_some(),
        Kind::Grant => receives,
        Kind::Resend => client || receives,
        Kind::NeedAck => !client && rpc.tx.is_some(),
        Kind::Busy | Kind::Cutoffs => true,
        Kind::Ack | Kind::RpcUnknown | Kind::Freeze => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn refusals_come_in_bursts_of_fifty_and_then_one_a_millisecond() {
        let mut refusals = Refusals::default();
        let mut push = |at: Nanos| refusals.push(Instant::default() + at, Ipv4Addr::LOCALHOST.into(), &[1; 100]);
        assert_eq!((0..100).filter(|_| push(Nanos::ZERO)).count(), 50);
        assert_eq!((0..100).filter(|_| push(Nanos::from_millis(10))).count(), 10);
        assert_eq!((0..100).filter(|_| push(Nanos::from_secs(10))).count(), 4, "no more than 64 wait");
        let refusal = refusals.waiting.pop_front().unwrap();
        assert_eq!((refusal.len, refusal.quote()), (100, &[1; MAX_QUOTE][..]));
    }
}
