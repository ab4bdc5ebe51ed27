//! Announcements: an empty DATA packet tells a receiver of a message before its first byte.
//!
//! A receiver grants to messages that it knows. One that has to wait behind others at its sender, or of which nothing
//! is unscheduled, is not known until it is announced. Receivers of the kernel module take an empty DATA packet at
//! offset 0 like any other first packet (homa-protocol.md 1.4), so that nothing new is on the wire.

use super::endpoint::Endpoint;
use super::grants::RpcKey;
use super::output::{Body, Control, Transmit};
use super::rpc::State;
use super::tx_message::TxMessage;
use crate::units::RpcId;
use crate::wire::{Data, Kind, OffsetForm, ends};

/// Which messages are announced. Those without unscheduled bytes always are: nobody would grant to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Announce {
    /// No others.
    #[default]
    Never,
    /// All that need grants, unless their first packet goes at once: grants come while they wait behind others.
    Early,
    /// All longer than `unsched_bytes`, and nothing of them is unscheduled: a message is wholly scheduled or not at
    /// all.
    Scheduled,
}

impl Announce {
    /// Bytes of a message of `len` that go without grants.
    pub(crate) fn unscheduled(self, len: usize, unsched_bytes: usize) -> usize {
        if self == Self::Scheduled && len > unsched_bytes { 0 } else { unsched_bytes }
    }
}

impl Endpoint {
    /// Announces a new message, if it is one of those.
    pub(super) fn announce_new(&mut self, key: RpcKey) {
        let early = self.config.announce == Announce::Early;
        let needs = |tx: &TxMessage| tx.unscheduled == 0 || early && tx.unscheduled < tx.len;
        if self.rpcs[key].tx.as_deref().is_some_and(needs) {
            self.announce(key);
        }
    }

    /// Announces a message again of which nothing could be sent yet, since its receiver does not seem to know it.
    /// False if that is not so.
    pub(super) fn announce_again(&mut self, key: RpcKey) -> bool {
        let unsent = self.rpcs[key].tx.as_ref().is_some_and(|tx| tx.next == 0 && !tx.can_send());
        if unsent {
            self.announce(key);
        }
        unsent
    }

    fn announce(&mut self, key: RpcKey) {
        let rpc = &self.rpcs[key];
        let header = ends(rpc.wire_port, rpc.peer_port, rpc.id);
        self.control.push_back(Control::new(rpc.peer, header, Body::Announce(key)));
    }

    /// Writes the announcement of the message of RPC `id`, if there is still reason to. `open`: data may be sent now.
    pub(super) fn write_announcement(
        &mut self,
        key: RpcKey,
        id: RpcId,
        open: bool,
        out: &mut [u8],
    ) -> Option<Transmit> {
        let rpc = self.rpcs.get(key).filter(|rpc| rpc.id == id && rpc.state == State::Outgoing)?;
        let tx = rpc.tx.as_ref().filter(|tx| tx.next == 0)?;
        let is_next = open && self.resending.is_empty() && self.ready.first().is_some_and(|(_, first)| first == key);
        if is_next {
            return None;
        }
        let peer = &mut self.peers[rpc.peer];
        let data = Data {
            message_len: tx.len as u32,
            incoming: tx.unscheduled as u32,
            ack: peer.pop_ack(),
            cutoff_version: peer.cutoff_version,
            retransmit: false,
            offset: 0,
            form: OffsetForm::Both,
            bytes: &[],
        };
        let len = data.write_header(ends(rpc.wire_port, rpc.peer_port, id), out);
        let (to, peer_tag, message_len) = (peer.addr, peer.tag, tx.len as u32);
        self.metrics.announcements += 1;
        // Short and awaited, like a control packet.
        let level = self.config.control_priority();
        self.count_sent(Kind::Data, level, len);
        let priority = self.config.mapped(level);
        let (gathered, segment, kind, offset) = (0, 0, Kind::Data, 0);
        Some(Transmit { to, priority, len, gathered, segment, kind, id, offset, message_len, peer_tag, key })
    }
}
