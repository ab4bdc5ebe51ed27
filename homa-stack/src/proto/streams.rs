//! Messages that are read while they arrive, on ports that ask for it.
//!
//! What has come without a gap from the first byte on can be copied before the message is whole. News of it have a
//! queue of their own, so that ports which do not ask, and packets to them, pay one look at a flag.

use std::collections::VecDeque;
use std::net::SocketAddr;

use rustc_hash::FxHashSet;

#[cfg(feature = "check")]
use super::check::hold;
use super::endpoint::Endpoint;
use super::event::ServerRpc;
use super::grants::RpcKey;
use super::pool::Lease;
use super::rpc::Rpc;
use super::rx_message::RxMessage;
use crate::units::RpcId;

/// Names a message that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Arriving {
    key: RpcKey,
    id: RpcId,
}

impl Arriving {
    /// The RPC's id on this host.
    pub fn id(&self) -> RpcId {
        self.id
    }
}

impl ServerRpc {
    /// What names the request while it arrives.
    pub fn arriving(&self) -> Arriving {
        Arriving { key: self.key, id: self.id }
    }
}

/// What happened to a message that is read while it arrives. When it is whole, an [`Event`](super::Event) says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More has come. Told once until [`Endpoint::poll_progress`] has said so, however much it becomes.
    More {
        /// To read it with [`Endpoint::copy_arrived`].
        message: Arriving,
        /// As given to `call`, for a response.
        cookie: u64,
        /// Our port.
        port: u16,
        /// The sender.
        peer: SocketAddr,
        /// Length of the whole message, bytes.
        len: usize,
        /// Bytes that can be read, from the first on.
        ready: usize,
    },
    /// The rest will not come: its sender is gone or gave up, or the RPC was ended here.
    Cut(Arriving),
}

/// Which ports ask, and what they were not told yet.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    ports: FxHashSet<u16>,
    news: VecDeque<News>,
}

#[derive(Debug)]
enum News {
    More(Arriving),
    Cut(Arriving),
}

impl Streams {
    /// True if messages to `port` are read while they arrive.
    pub(super) fn watches(&self, port: u16) -> bool {
        !self.ports.is_empty() && self.ports.contains(&port)
    }

    /// `rpc`, under `key`, ends before its message is whole.
    pub(super) fn cut(&mut self, key: RpcKey, rpc: &Rpc) {
        if rpc.rx.as_ref().is_some_and(|rx| rx.watched) {
            self.news.push_back(News::Cut(Arriving { key, id: rpc.id }));
        }
    }
}

impl Endpoint {
    /// Has messages to `port`, a server's or a client's, announced while they arrive, or no longer. Applies to
    /// messages that begin from now on. Whoever asks must take the news with [`Self::poll_progress`].
    pub fn read_early(&mut self, port: u16, early: bool) {
        if early {
            self.streams.ports.insert(port);
        } else {
            self.streams.ports.remove(&port);
        }
    }

    /// The next news of messages that are read while they arrive.
    pub fn poll_progress(&mut self) -> Option<Progress> {
        loop {
            let message = match self.streams.news.pop_front()? {
                News::Cut(message) => return Some(Progress::Cut(message)),
                News::More(message) => message,
            };
            let Some(rpc) = self.rpcs.get_mut(message.key).filter(|rpc| rpc.id == message.id) else { continue };
            // Without a message it is whole, which an event tells.
            let Some(rx) = rpc.rx.as_mut() else { continue };
            rx.noted = false;
            let (len, ready) = (rx.len, rx.prefix());
            let peer = SocketAddr::new(self.peers[rpc.peer].addr, rpc.peer_port);
            return Some(Progress::More { message, cookie: rpc.cookie, port: rpc.port, peer, len, ready });
        }
    }

    /// Bytes of a message that arrives which can be copied, from the first on; none once it is whole.
    pub fn arrived(&self, message: Arriving) -> usize {
        self.rx_of(message).map_or(0, |(rx, _)| rx.prefix())
    }

    /// Copies bytes of a message that arrives, from `offset` on, into `out`; returns how many there were to copy.
    /// None once it is whole: then it is the event's.
    pub fn copy_arrived(&self, message: Arriving, offset: usize, out: &mut [u8]) -> usize {
        let Some((rx, lease)) = self.rx_of(message) else { return 0 };
        let n = rx.prefix().saturating_sub(offset).min(out.len());
        self.pool.copy(lease, rx.len, offset, &mut out[..n])
    }

    fn rx_of(&self, message: Arriving) -> Option<(&RxMessage, &Lease)> {
        let rx = self.rpcs.get(message.key).filter(|rpc| rpc.id == message.id)?.rx.as_ref()?;
        Some((rx, rx.lease.as_ref()?))
    }

    /// Notes that an incoming message may have grown at its front.
    #[cold]
    pub(super) fn note_progress(&mut self, key: RpcKey, before: usize) {
        let rpc = &mut self.rpcs[key];
        let Some(rx) = rpc.rx.as_mut() else { return };
        if !rx.noted && rx.prefix() > before {
            rx.noted = true;
            self.streams.news.push_back(News::More(Arriving { key, id: rpc.id }));
        }
    }

    /// Checks that each message with news is in the queue, once.
    #[cfg(feature = "check")]
    pub(super) fn check_streams(&self) -> Result<(), String> {
        for (key, rpc) in &self.rpcs {
            let Some(rx) = &rpc.rx else { continue };
            let own = Arriving { key, id: rpc.id };
            let listed = self.streams.news.iter().filter(|news| matches!(news, News::More(of) if *of == own)).count();
            hold!(listed == usize::from(rx.noted), "{:?}: {listed} news, noted: {}", rpc.id, rx.noted);
            hold!(rx.watched || !rx.noted, "{:?}: news that nobody asked for", rpc.id);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Config, Event, Payload};
    use crate::units::Instant;
    use std::net::{IpAddr, Ipv4Addr};

    const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    /// A server whose port 1 reads early, and the packets of a request of `len` bytes to it, unscheduled.
    fn arriving(len: usize) -> (Endpoint, Vec<Vec<u8>>, Vec<u8>) {
        let config = Config { unsched_bytes: len, ..Config::default() };
        let (mut client, mut server) = (Endpoint::new(config.clone()), Endpoint::new(config));
        server.bind(1).unwrap();
        server.read_early(1, true);
        let bytes: Vec<u8> = (0..len).map(|i| (i * 31 + (i >> 8)) as u8).collect();
        let port = client.client_port().unwrap();
        let now = Instant::default();
        client.call(now, port, SocketAddr::new(SERVER, 1), Payload::from(bytes.clone()), 0).unwrap();
        let mut packet = [0; 1500];
        let packets = std::iter::from_fn(|| {
            let sent = client.poll_transmit(now, &mut packet)?;
            Some(packet[..sent.len].to_vec())
        });
        let packets = packets.collect();
        (server, packets, bytes)
    }

    fn ready(server: &mut Endpoint) -> Option<(Arriving, usize)> {
        match server.poll_progress()? {
            Progress::More { message, len: 100_000, ready, .. } => Some((message, ready)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_front_of_a_message_is_read_as_it_grows_and_gaps_hide_what_is_behind_them() {
        let (mut server, packets, bytes) = arriving(100_000);
        let segment = 1500 - 20 - crate::wire::DATA_HEADER_LEN;
        let give = |server: &mut Endpoint, i: usize| {
            server.handle_packet(Instant::default(), CLIENT, &packets[i]);
            server.check_invariants(std::iter::empty()).unwrap();
        };
        give(&mut server, 1);
        assert_eq!(server.poll_progress(), None, "the first packet is missing");
        give(&mut server, 0);
        let (message, n) = ready(&mut server).unwrap();
        assert_eq!((n, server.poll_progress()), (2 * segment, None));
        (2..packets.len() - 1).filter(|i| *i != 60).for_each(|i| give(&mut server, i));
        assert_eq!(ready(&mut server), Some((message, 60 * segment)), "told once");
        let mut out = vec![0; 100_000];
        assert_eq!(server.copy_arrived(message, 10, &mut out), 60 * segment - 10);
        assert!(out[..60 * segment - 10] == bytes[10..60 * segment]);
        assert_eq!(server.copy_arrived(message, 60 * segment, &mut out), 0);
        give(&mut server, 60);
        give(&mut server, packets.len() - 1);
        assert_eq!(server.poll_progress(), None, "it is whole: the event's");
        assert_eq!(server.copy_arrived(message, 0, &mut out), 0);
        let Some(Event::Request { rpc, msg, .. }) = server.poll_event() else { panic!("no event") };
        assert_eq!((rpc.arriving(), msg.len()), (message, 100_000));
        server.release(msg);
        server.discard(rpc);
        assert_eq!(server.poll_progress(), None, "a message that was whole is not cut");
    }

    #[test]
    fn a_message_whose_rest_never_comes_is_cut() {
        let (mut server, packets, _) = arriving(100_000);
        server.handle_packet(Instant::default(), CLIENT, &packets[0]);
        let (message, _) = ready(&mut server).unwrap();
        for ms in 0..1000 {
            server.handle_timeout(Instant::from_nanos(ms * 1_000_000));
        }
        assert_eq!(server.poll_progress(), Some(Progress::Cut(message)));
        assert_eq!(server.copy_arrived(message, 0, &mut [0; 10]), 0);
    }

    #[test]
    fn ports_that_do_not_ask_hear_nothing() {
        let (mut server, packets, _) = arriving(100_000);
        server.read_early(1, false);
        server.handle_packet(Instant::default(), CLIENT, &packets[0]);
        server.unbind(1);
        assert_eq!(server.poll_progress(), None);
    }
}
