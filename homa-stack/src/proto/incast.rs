//! Incast: many servers that answer one client at once overflow the queue at its link.
//!
//! Responses begin with bytes that nobody grants, so that a client can hold them back only by not asking: a request
//! goes out while what the responses under way may send unasked stays below `incast_bytes`, and waits here otherwise,
//! first come, first served. There is no place in a request to tell its server to send less. What a response is
//! counted for is learned of each peer, to begin with `unsched_bytes`; one whose server works on it for long (BUSY, or
//! no answer by the first tick that asks) is not part of an incast and no longer counted, so that slow servers do not
//! hold up the rest.

use std::collections::VecDeque;

#[cfg(feature = "check")]
use super::check::hold;
use super::endpoint::Endpoint;
use super::grants::RpcKey;
use super::rpc::State;
use crate::units::RpcId;

/// Requests that wait, and bytes of responses that may come unasked.
#[derive(Debug, Default)]
pub(crate) struct Incast {
    expected: usize,
    waiting: VecDeque<(RpcKey, RpcId)>,
}

impl Endpoint {
    /// Counts a new request, or has it wait.
    pub(super) fn limit_incast(&mut self, key: RpcKey) {
        if self.config.incast_bytes == 0 {
            return;
        }
        if !self.incast.waiting.is_empty() || !self.expect_answer(key) {
            self.metrics.calls_held_back += 1;
            self.rpcs[key].held_back = true;
            self.incast.waiting.push_back((key, self.rpcs[key].id));
        }
    }

    /// A response has begun: `bytes` of it come unasked.
    pub(super) fn learn_answer(&mut self, key: RpcKey, bytes: usize) {
        if self.config.incast_bytes == 0 {
            return;
        }
        let rpc = &mut self.rpcs[key];
        let known = &mut self.peers[rpc.peer].answer_bytes;
        // The most of late: too little would cost losses, too much some time.
        *known = Some(known.map_or(bytes, |most| bytes.max(most - most / 8)));
        if rpc.expected > 0 {
            self.incast.expected = self.incast.expected - rpc.expected + bytes;
            rpc.expected = bytes;
            self.release_held_back();
        }
    }

    /// The response to an RPC has come, or will not come soon.
    pub(super) fn stop_expecting(&mut self, key: RpcKey) {
        let expected = std::mem::take(&mut self.rpcs[key].expected);
        self.no_longer_expected(expected);
    }

    /// As many bytes are no longer expected.
    pub(super) fn no_longer_expected(&mut self, bytes: usize) {
        if bytes > 0 {
            self.incast.expected -= bytes;
            self.release_held_back();
        }
    }

    fn release_held_back(&mut self) {
        while let Some(&(key, id)) = self.incast.waiting.front() {
            let alive = self.rpcs.get(key).filter(|rpc| rpc.id == id);
            let waits = alive.is_some_and(|rpc| rpc.state == State::Outgoing);
            if waits && !self.expect_answer(key) {
                return;
            }
            self.incast.waiting.pop_front();
            if let Some(rpc) = self.rpcs.get_mut(key).filter(|rpc| rpc.id == id) {
                rpc.held_back = false;
            }
            if waits {
                self.schedule(key);
                self.announce_new(key);
            }
        }
    }

    /// Counts the response to a request if there is room for it.
    fn expect_answer(&mut self, key: RpcKey) -> bool {
        let rpc = &mut self.rpcs[key];
        let bytes = self.peers[rpc.peer].answer_bytes.unwrap_or(self.config.unsched_bytes).max(1);
        let room = self.incast.expected == 0 || self.incast.expected + bytes <= self.config.incast_bytes;
        if room {
            rpc.expected = bytes;
            self.incast.expected += bytes;
        }
        room
    }

    /// Checks the sum, and that whoever is held back waits.
    #[cfg(feature = "check")]
    pub(super) fn check_incast(&self) -> Result<(), String> {
        let expected: usize = self.rpcs.iter().map(|(_, rpc)| rpc.expected).sum();
        hold!(self.incast.expected == expected, "{expected} bytes expected, counted {}", self.incast.expected);
        for (key, rpc) in self.rpcs.iter().filter(|(_, rpc)| rpc.held_back) {
            hold!(self.incast.waiting.contains(&(key, rpc.id)), "{:?} is held back and does not wait", rpc.id);
        }
        hold!(expected > 0 || self.incast.waiting.is_empty(), "requests wait although nothing is expected");
        Ok(())
    }
}
