//! Grants that end where packets end.
//!
//! A sender sends a packet whole once its first byte is granted, so that a limit within a packet is exceeded by the rest
//! of it. No header says how long a sender's packets are; it shows in those that come. The first packet boundary after
//! the start is the unscheduled limit; from there on packets are of equal length (homa-protocol.md 1.4).

use super::endpoint::Endpoint;
use super::grants::RpcKey;
use super::rx_message::RxMessage;

impl Endpoint {
    /// The limit to grant instead of `offset`: the end of the sender's last packet below it. It stays as it is if that
    /// would grant nothing, at the end of a message, for a sender of which nothing is known, and if what is left out
    /// would be worth a grant of its own, as when packets are as long as windows.
    pub(super) fn whole_frames(&self, key: RpcKey, offset: usize) -> usize {
        let rpc = &self.rpcs[key];
        let rx = rpc.rx.as_ref().expect("only incoming messages are granted to");
        let frame = rx.frame.max(self.peers[rpc.peer].frame);
        let window = self.config.grant_window(self.grants.active_len());
        if frame == 0 || frame > window / 8 || offset >= rx.len {
            return offset;
        }
        let whole = offset - offset.saturating_sub(rx.unscheduled) % frame;
        if whole > rx.granted { whole } else { offset }
    }

    /// Keeps what a whole message showed of its sender's packets for those that begin with less than a full one.
    pub(super) fn learn_frame(&mut self, key: RpcKey, rx: &RxMessage) {
        if rx.len > rx.frame {
            self.peers[self.rpcs[key].peer].frame = rx.frame;
        }
    }
}
