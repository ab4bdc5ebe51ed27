//! Several endpoints behind one address: which of them a packet, and each RPC, belongs to.
//!
//! An RPC belongs to one endpoint of its client's host and to one of its server's, for all its life: on either to that
//! of its id's residue class. A client's endpoint gives its calls ids of its own class. On the server's host a repeated
//! request meets the memory of the first; successive ids of a client that is not split go to successive endpoints; and
//! two hosts that are split alike talk from each endpoint to one of the other's, so that the acknowledgements that
//! packets carry along are for the endpoint that gets them.
//!
//! The driver has the kernel steer packets by the same rule (`driver::group`). A packet that comes to another
//! endpoint all the same, while the workers start or an interface comes up, is handed on: see [`Forward`].

use std::net::IpAddr;

use super::endpoint::Endpoint;
use super::planted::Planted;
use crate::units::{Instant, RpcId};
use crate::wire::icmp::IcmpError;
use crate::wire::{Cutoffs, Kind, Packet};

/// Where the type of a packet lies, and the low half of the id.
const KIND_AT: usize = 11;
const LOW_ID_AT: usize = 24;

/// What endpoints hand on waits in a queue this long; more is lost, as packets are.
const MOST_WAITING: usize = 1024;

/// Which of the endpoints behind one address this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: u32,
}

/// The endpoints that a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One, by its index.
    One(u32),
    /// All: it is about the peer or the host, not about an RPC.
    All,
}

/// Something that came to one endpoint and is for others behind the same address: give it to
/// [`Endpoint::handle_forward`] of each that `to` names, apart from the one that it came from.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Whom it is for.
    pub to: Target,
    /// What it is.
    pub news: News,
}

/// What is handed on.
#[derive(Clone, Debug)]
pub enum News {
    /// The client is done with an RPC.
    Acked {
        /// The client.
        client: IpAddr,
        /// The RPC as the client calls it.
        client_id: u64,
    },
    /// An ICMP error about a packet of ours: for one, to be looked at; for all, found to be true.
    Icmp(IcmpError),
    /// Time traces end.
    Freeze,
    /// A packet.
    Packet {
        /// Source address.
        from: IpAddr,
        /// IP payload.
        bytes: Box<[u8]>,
    },
    /// The unscheduled priorities that the first endpoint has chosen for all: a host tells its peers one table.
    Cutoffs {
        /// The table, as peers are told.
        cutoffs: Cutoffs,
        /// Highest level for scheduled packets.
        max_sched_priority: u8,
    },
}

impl Default for Shard {
    fn default() -> Self {
        Self { index: 0, count: 1 }
    }
}

impl Shard {
    /// Endpoint `index` of `count`; nothing if there is no such.
    pub const fn new(index: u32, count: u32) -> Option<Self> {
        if index < count { Some(Self { index, count }) } else { None }
    }

    /// Which one it is, from 0 on.
    pub const fn index(self) -> u32 {
        self.index
    }

    /// How many there are.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// True if there are others.
    pub(crate) const fn is_part(self) -> bool {
        self.count > 1
    }

    /// The first id from `id` on that this endpoint may give to a call; both are even.
    pub(crate) fn next_id(self, id: u64) -> u64 {
        let mut id = id;
        while self.is_part() && self.of_rpc(id) != self.index {
            id = id.wrapping_add(2);
        }
        id
    }

    /// The endpoint that an RPC belongs to, on either side.
    #[inline]
    pub(crate) const fn of_rpc(self, id: u64) -> u32 {
        (id as u32 >> 1) % self.count
    }

    /// Whom a packet is for, by its IP payload. One that is cut off is for the first.
    pub fn of_packet(self, bytes: &[u8]) -> Target {
        const EVERYONES: [u8; 2] = [Kind::Cutoffs.code(), Kind::Freeze.code()];
        if bytes.get(KIND_AT).is_some_and(|kind| EVERYONES.contains(kind)) {
            return Target::All;
        }
        let low = bytes.get(LOW_ID_AT..).and_then(<[u8]>::first_chunk);
        low.map_or(Target::One(0), |low| Target::One(self.of_rpc(u32::from_be_bytes(*low).into())))
    }
}

impl Target {
    /// True if the endpoint `index` is meant.
    pub fn includes(self, index: u32) -> bool {
        match self {
            Self::One(one) => one == index,
            Self::All => true,
        }
    }
}

impl Endpoint {
    /// The next thing to hand on to other endpoints behind the same address, if any.
    #[inline]
    pub fn poll_forward(&mut self) -> Option<Forward> {
        self.forwards.pop_front()
    }

    /// Takes what another endpoint behind the same address handed on.
    pub fn handle_forward(&mut self, now: Instant, forward: &Forward) {
        match (&forward.news, forward.to) {
            (News::Acked { client, client_id }, _) => {
                self.latest = self.latest.max(now);
                if let Some(peer) = self.peers.find(*client) {
                    self.forget_acked(peer, RpcId::from_peer(*client_id));
                }
            }
            (News::Freeze, _) => self.trace.freeze(),
            (News::Icmp(error), Target::One(_)) => self.icmp_error(now, *error),
            (News::Icmp(error), Target::All) => self.icmp_error_elsewhere(now, *error),
            (News::Cutoffs { cutoffs, max_sched_priority }, _) => {
                self.config.set_cutoffs(*cutoffs, *max_sched_priority);
            }
            (News::Packet { from, bytes }, Target::One(_)) => self.handle_own(now, *from, bytes),
            // Counted where it came.
            (News::Packet { from, bytes }, Target::All) => match Packet::parse(bytes) {
                Ok((_, Packet::Cutoffs(cutoffs))) => {
                    if let Some(peer) = self.peers.find(*from) {
                        self.peers[peer].set_cutoffs(&cutoffs);
                    }
                }
                Ok((_, Packet::Freeze)) => self.trace.freeze(),
                _ => {}
            },
        }
    }

    /// Has the time traces of the others end.
    pub fn freeze_others(&mut self) {
        if self.config.shard.is_part() {
            self.hand_on(Forward { to: Target::All, news: News::Freeze });
        }
    }

    /// True if a packet is for this endpoint; hands it on if it is for others.
    pub(super) fn takes(&mut self, from: IpAddr, bytes: &[u8]) -> bool {
        if self.config.lacks(Planted::Steering) {
            return true;
        }
        let shard = self.config.shard;
        let to = shard.of_packet(bytes);
        if to != Target::One(shard.index) {
            self.metrics.shard_packets_forwarded += 1;
            self.hand_on(Forward { to, news: News::Packet { from, bytes: bytes.into() } });
        }
        to.includes(shard.index)
    }

    /// Hands on the acknowledgement of an RPC that is another endpoint's; false if it is this one's.
    pub(super) fn forward_ack(&mut self, client: IpAddr, client_id: u64) -> bool {
        let shard = self.config.shard;
        let owner = shard.of_rpc(client_id);
        if owner == shard.index {
            return false;
        }
        self.metrics.shard_acks_forwarded += 1;
        self.hand_on(Forward { to: Target::One(owner), news: News::Acked { client, client_id } });
        true
    }

    /// Hands on an error about another endpoint's packet; false if it is about one of this.
    pub(super) fn forward_icmp(&mut self, error: IcmpError) -> bool {
        let shard = self.config.shard;
        let owner = shard.of_rpc(error.ends.sender_id);
        if owner != shard.index {
            self.metrics.shard_packets_forwarded += 1;
            self.hand_on(Forward { to: Target::One(owner), news: News::Icmp(error) });
        }
        owner != shard.index
    }

    /// Tells the others of an error that was found to be true: they may have RPCs with the same peer.
    pub(super) fn spread_icmp(&mut self, error: IcmpError) {
        if self.config.shard.is_part() {
            self.hand_on(Forward { to: Target::All, news: News::Icmp(error) });
        }
    }

    pub(super) fn hand_on(&mut self, forward: Forward) {
        if self.forwards.len() < MOST_WAITING {
            self.forwards.push_back(forward);
        } else {
            self.metrics.shard_forwards_lost += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Ack, AckRecord, ends};
    use std::net::Ipv4Addr;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    fn packet(sender_id: u64) -> [u8; 80] {
        let mut bytes = [0; 80];
        Ack::new(&[]).write(ends(1, 2, RpcId::local(sender_id)), &mut bytes);
        bytes
    }

    #[test]
    fn an_index_beyond_the_count_is_no_shard() {
        assert!(Shard::new(0, 0).is_none() && Shard::new(2, 2).is_none());
        assert_eq!(Shard::new(1, 2).map(|s| (s.index(), s.count())), Some((1, 2)));
    }

    #[test]
    fn what_a_server_sends_comes_to_the_endpoint_that_chose_the_id() {
        for count in 1..=7 {
            for index in 0..count {
                let shard = Shard::new(index, count).unwrap();
                let mut id = 0xffff_ffff_0000_0000_u64 - 20;
                for _ in 0..100 {
                    id = shard.next_id(id);
                    assert_eq!(shard.of_packet(&packet(id | 1)), Target::One(index), "{id} of {count}");
                    id = id.wrapping_add(2);
                }
            }
        }
    }

    #[test]
    fn successive_requests_of_a_client_go_to_each_endpoint_in_turn() {
        let shard = Shard::new(0, 3).unwrap();
        let targets: Vec<_> = (0..6).map(|n| shard.of_packet(&packet(102 + 2 * n))).collect();
        assert_eq!(targets, [0, 1, 2, 0, 1, 2].map(Target::One));
    }

    #[test]
    fn what_is_about_the_peer_is_for_all_and_scraps_are_for_the_first() {
        let shard = Shard::new(1, 2).unwrap();
        for kind in [Kind::Cutoffs, Kind::Freeze] {
            let mut bytes = packet(8);
            bytes[KIND_AT] = kind.code();
            assert_eq!(shard.of_packet(&bytes), Target::All);
        }
        for len in 0..28 {
            assert_eq!(shard.of_packet(&packet(8)[..len]), Target::One(0), "{len} bytes");
        }
    }

    #[test]
    fn acks_of_foreign_rpcs_are_handed_on_and_no_others() {
        let shard = Shard::new(0, 2).unwrap();
        let config = crate::Config { shard, ..crate::Config::default() };
        let mut core = Endpoint::new(config);
        let own = 12;
        let records = [own + 2, own + 4, own + 6].map(|client_id| AckRecord { client_id, server_port: 1 });
        let mut bytes = [0; 80];
        Ack::new(&records).write(ends(1, 2, RpcId::local(own)), &mut bytes);
        core.handle_packet(Instant::default(), A, &bytes);
        let handed: Vec<_> = std::iter::from_fn(|| core.poll_forward()).collect();
        let ids: Vec<_> = handed
            .iter()
            .map(|f| match (f.to, &f.news) {
                (Target::One(1), News::Acked { client: A, client_id }) => *client_id,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(ids, [own + 2, own + 6]);
        assert_eq!(core.metrics.shard_acks_forwarded, 2);
    }

    #[test]
    fn what_can_not_be_handed_on_is_lost_and_counted() {
        let mut core = Endpoint::new(crate::Config { shard: Shard::new(0, 2).unwrap(), ..crate::Config::default() });
        for _ in 0..MOST_WAITING + 3 {
            core.handle_packet(Instant::default(), A, &packet(3));
        }
        assert_eq!(core.forwards.len(), MOST_WAITING);
        assert_eq!(
            (core.metrics.shard_packets_forwarded, core.metrics.shard_forwards_lost),
            (MOST_WAITING as u64 + 3, 3)
        );
    }
}
