//! One side of a recorded exchange, replayed with its timing to an endpoint that acts as the other side.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use homa_stack::wire::{Kind, Packet};
use homa_stack::{Config, Endpoint, Event, Instant, Nanos, Payload};

use super::recorded::{Recorded, message};

/// First port that is assigned automatically, to kernel clients as to ours.
const FIRST_CLIENT_PORT: u16 = 32_768;

/// What came of a replay.
pub struct Replayed {
    pub endpoint: Endpoint,
    /// Complete messages that the endpoint's application got, by the id on our side.
    pub received: BTreeMap<u64, Vec<u8>>,
    /// What the endpoint sent.
    pub sent: Vec<Vec<u8>>,
    now: Instant,
    /// The recorded side's address.
    peer: IpAddr,
    /// Responses to give, by the id on the server.
    responses: BTreeMap<u64, Vec<u8>>,
}

/// Replays the client's packets of `packets` to a server, which answers as the recorded server did. `lost`: origins of
/// packets that did not reach the recorded server.
pub fn to_server(packets: &[Recorded], client: IpAddr, lost: &[&str]) -> Replayed {
    let (from_client, from_server): (Vec<_>, Vec<_>) = packets.iter().partition(|p| p.from == client);
    let mut replayed = Replayed::new(Config::default(), client);
    replayed.endpoint.bind(from_client[0].packet().0.dport).unwrap();
    let ids = from_server.iter().filter_map(|p| first_of_message(p));
    replayed.responses =
        ids.filter_map(|id| Some((id, message(from_server.iter().map(|p| &p.bytes[..]), id)?))).collect();
    for packet in from_client.iter().filter(|p| !lost.contains(&&p.origin[..])) {
        replayed.advance(START + packet.at);
        replayed.endpoint.handle_packet(replayed.now, packet.from, &packet.bytes);
        replayed.drain();
    }
    replayed
}

/// Replays the server's packets of `packets` to a client, which calls when the recorded client did, with the same ids.
pub fn to_client(packets: &[Recorded], client: IpAddr) -> Replayed {
    let from_client: Vec<_> = packets.iter().filter(|p| p.from == client).collect();
    let server = from_client[0].to;
    let ends = from_client[0].packet().0;
    let first_id = ends.sender_id;
    let mut replayed = Replayed::new(Config { first_id, ..Config::default() }, server);
    while replayed.endpoint.client_port().unwrap() != ends.sport {
        assert!(ends.sport >= FIRST_CLIENT_PORT);
    }
    for packet in packets {
        replayed.advance(START + packet.at);
        if packet.from == server {
            replayed.endpoint.handle_packet(replayed.now, packet.from, &packet.bytes);
        } else if let Some(id) = first_of_message(packet) {
            let request = message(from_client.iter().map(|p| &p.bytes[..]), id).expect("the capture has all of it");
            let to = SocketAddr::new(server, ends.dport);
            let ours = replayed.endpoint.call(replayed.now, ends.sport, to, Payload::from(request), id).unwrap();
            assert_eq!(ours.get(), id, "{}: ids follow one another", packet.origin);
        }
        replayed.drain();
    }
    replayed
}

const START: Instant = Instant::from_nanos(1_000_000);

/// The sender's id, if the packet is the first of a message, not sent again.
fn first_of_message(packet: &Recorded) -> Option<u64> {
    match packet.packet() {
        (ends, Packet::Data(data)) if data.offset == 0 && !data.retransmit => Some(ends.sender_id),
        _ => None,
    }
}

impl Replayed {
    fn new(config: Config, peer: IpAddr) -> Self {
        Self {
            endpoint: Endpoint::new(config),
            received: BTreeMap::new(),
            sent: Vec::new(),
            now: START,
            peer,
            responses: BTreeMap::new(),
        }
    }

    /// Runs the timers that are due before `until`.
    fn advance(&mut self, until: Instant) {
        while let Some(at) = self.endpoint.next_deadline().filter(|at| *at < until) {
            self.now = self.now.max(at);
            self.endpoint.handle_timeout(self.now);
            self.drain();
        }
        self.now = until;
    }

    /// Goes on without further packets.
    pub fn run_for(&mut self, span: Nanos) {
        self.advance(self.now + span);
    }

    fn drain(&mut self) {
        while let Some(event) = self.endpoint.poll_event() {
            self.event(event);
        }
        let mut out = [0; 1500];
        while let Some(sent) = self.endpoint.poll_transmit(self.now, &mut out) {
            assert_eq!(sent.to, self.peer);
            self.sent.push(out[..sent.len].to_vec());
        }
    }

    fn event(&mut self, event: Event) {
        let (id, msg, rpc) = match event {
            Event::Request { rpc, msg, peer, .. } => {
                assert_eq!(peer.ip(), self.peer);
                (rpc.id().get(), msg, Some(rpc))
            }
            Event::Response { id, cookie, msg, .. } => {
                assert_eq!(id.get(), cookie);
                (cookie, msg, None)
            }
            Event::Failed { id, error, .. } => panic!("call {} failed: {error}", id.get()),
            Event::Room(limit) => panic!("room for {limit:?}, but no call was refused"),
        };
        let bytes = self.endpoint.pieces(&msg).collect::<Vec<_>>().concat();
        self.endpoint.release(msg);
        assert!(self.received.insert(id, bytes).is_none(), "message of RPC {id} came twice");
        if let Some(rpc) = rpc {
            match self.responses.remove(&id) {
                Some(response) => self.endpoint.reply(self.now, rpc, Payload::from(response)).unwrap(),
                // The capture ends before.
                None => self.endpoint.discard(rpc),
            }
        }
    }

    /// The message of our RPC `id` that the endpoint sent, if it sent all of it.
    pub fn sent_message(&self, id: u64) -> Option<Vec<u8>> {
        message(self.sent.iter().map(|packet| &packet[..]), id)
    }

    /// Types of the packets sent, in order.
    pub fn sent_kinds(&self) -> Vec<Kind> {
        self.sent.iter().map(|bytes| Packet::parse(bytes).expect("what we send can be read").1.kind()).collect()
    }
}
