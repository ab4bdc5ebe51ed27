//! Work that nobody waits for, done after what somebody does: the ends of RPCs that are over.
//!
//! Between a packet's arrival and that of its answer at the link lies only what the answer needs, if the caller says that
//! it will call [`Endpoint::settle`] when it has sent what there is to send. Until then RPCs that are over stay in all
//! tables, but nothing is decided by those: each packet, timer and cancellation settles first, and what has no room asks
//! again after settling.

use std::net::IpAddr;

use super::endpoint::Endpoint;
use super::grants::RpcKey;
use super::peers::PeerKey;

/// How much may wait; more is done at once.
const MOST: usize = 32;

/// Something to be done.
#[derive(Clone, Copy, Debug)]
enum Late {
    /// A call of ours is over: its response is delivered.
    Over(RpcKey),
    /// The client at the address has its response to what it calls by the id.
    Acked(IpAddr, u64),
}

/// What waits to be done.
#[derive(Debug, Default)]
pub(crate) struct LateWork {
    /// False if nothing may wait.
    allowed: bool,
    list: Vec<Late>,
}

impl LateWork {
    /// Calls that are over and still in the tables.
    pub(super) fn calls(&self) -> usize {
        self.list.iter().filter(|late| matches!(late, Late::Over(_))).count()
    }

    /// How much waits.
    #[cfg(feature = "check")]
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// False if it has to be done at once.
    #[inline]
    fn takes(&mut self, late: Late) -> bool {
        let room = self.allowed && self.list.len() < MOST;
        if room {
            self.list.push(late);
        }
        room
    }
}

impl Endpoint {
    /// Has the ends of RPCs wait for [`Self::settle`], which the caller calls whenever it has sent what there is to send.
    /// Without effect on an endpoint whose memory is limited: who is to be relieved of what is decided by what is held.
    pub fn put_off(&mut self) {
        self.late = LateWork { allowed: !self.memory.has_limit(), list: Vec::with_capacity(MOST) };
    }

    /// Does what was put off; true if there is news of it.
    #[inline]
    pub fn settle(&mut self) -> bool {
        if self.late.is_empty() {
            return false;
        }
        let events = self.events.len();
        self.settle_all();
        self.events.len() > events
    }

    fn settle_all(&mut self) {
        let mut list = std::mem::take(&mut self.late.list);
        for late in list.drain(..) {
            match late {
                Late::Over(key) => self.end(key),
                Late::Acked(from, id) => self.acked(from, self.peers.find(from), id),
            }
        }
        self.late.list = list;
    }

    /// Ends a call whose response is delivered, now or later. Not later if some of its request was to be sent again.
    pub(super) fn end_answered(&mut self, key: RpcKey) {
        let sends = self.rpcs[key].tx.as_ref().is_some_and(|tx| tx.has_resend());
        if sends || !self.late.takes(Late::Over(key)) {
            self.end(key);
        }
    }

    /// Takes note of an acknowledgement that came with a packet, now or later. One that may be for another endpoint behind
    /// this address is handed on with the turn.
    pub(super) fn acked_with_data(&mut self, from: IpAddr, peer: Option<PeerKey>, id: u64) {
        if self.config.shard.is_part() || !self.late.takes(Late::Acked(from, id)) {
            self.acked(from, peer, id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::super::{Config, Endpoint, Event, Payload, RpcError, SendError};
    use crate::units::{Instant, RpcId};

    const PORT: u16 = 99;
    const CLIENT: std::net::IpAddr = std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const SERVER: std::net::IpAddr = std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    struct Pair {
        now: Instant,
        client: Endpoint,
        server: Endpoint,
        port: u16,
    }

    impl Pair {
        fn new(config: Config) -> Self {
            let mut client = Endpoint::new(config);
            let mut server = Endpoint::new(Config::default());
            client.put_off();
            server.put_off();
            server.bind(PORT).unwrap();
            let port = client.client_port().unwrap();
            Self { now: Instant::default(), client, server, port }
        }

        fn call(&mut self) -> Result<RpcId, SendError> {
            self.client.call(self.now, self.port, SocketAddr::new(SERVER, PORT), Payload::from(vec![1; 100]), 0)
        }

        /// Has all requests answered and the answers arrive.
        fn exchange(&mut self) {
            let (mut packet, now) = ([0; 1500], self.now);
            while let Some(sent) = self.client.poll_transmit(now, &mut packet) {
                self.server.handle_packet(now, CLIENT, &packet[..sent.len]);
            }
            while let Some(event) = self.server.poll_event() {
                let Event::Request { rpc, msg, .. } = event else { continue };
                self.server.release(msg);
                self.server.reply(now, rpc, Payload::from(vec![2; 100])).unwrap();
            }
            while let Some(sent) = self.server.poll_transmit(now, &mut packet) {
                self.client.handle_packet(now, SERVER, &packet[..sent.len]);
            }
        }

        fn take_response(&mut self) {
            let Some(Event::Response { msg, .. }) = self.client.poll_event() else { panic!("no response") };
            self.client.release(msg);
        }
    }

    #[test]
    fn calls_and_their_answers_end_when_all_is_sent() {
        let mut pair = Pair::new(Config::default());
        pair.call().unwrap();
        pair.exchange();
        pair.take_response();
        assert_eq!((pair.client.rpcs.len(), pair.client.active_rpcs()), (1, 0));
        assert!(!pair.client.is_quiet(), "something is left to do");
        assert!(!pair.client.settle(), "nobody has waited for room");
        assert!(pair.client.rpcs.is_empty());
        // The next request brings the acknowledgement.
        pair.call().unwrap();
        pair.exchange();
        assert_eq!(pair.server.rpcs.len(), 2);
        pair.server.settle();
        assert_eq!(pair.server.rpcs.len(), 1);
    }

    #[test]
    fn a_call_that_is_over_cannot_be_cancelled() {
        let mut pair = Pair::new(Config::default());
        let id = pair.call().unwrap();
        pair.exchange();
        assert!(!pair.client.cancel(id, RpcError::Aborted));
        pair.take_response();
        assert!(pair.client.poll_event().is_none(), "one call ends one way");
    }

    #[test]
    fn a_call_gets_the_room_of_those_that_are_over() {
        let mut pair = Pair::new(Config { max_outstanding: 1, ..Config::default() });
        pair.call().unwrap();
        pair.call().unwrap_err();
        pair.exchange();
        pair.take_response();
        assert_eq!(pair.client.rpcs.len(), 1);
        pair.call().unwrap();
        assert_eq!(pair.client.rpcs.len(), 1);
    }

    #[test]
    fn without_being_told_nothing_waits() {
        let mut pair = Pair::new(Config::default());
        pair.client = Endpoint::new(Config::default());
        pair.port = pair.client.client_port().unwrap();
        pair.call().unwrap();
        pair.exchange();
        pair.take_response();
        assert!(pair.client.rpcs.is_empty());
    }

    #[test]
    fn more_than_may_wait_ends_at_once() {
        let mut pair = Pair::new(Config::default());
        (0..2 * super::MOST).for_each(|_| _ = pair.call().unwrap());
        pair.exchange();
        (0..2 * super::MOST).for_each(|_| pair.take_response());
        assert!((1..=super::MOST).contains(&pair.client.rpcs.len()));
        pair.client.settle();
        assert!(pair.client.rpcs.is_empty());
    }
}
