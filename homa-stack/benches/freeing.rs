//! What freeing a long message costs a short RPC beside it: `cargo bench -p homa-stack --bench freeing`.
//!
//! A client and a server endpoint exchange packets through memory, both in one thread. After each RPC with a response of
//! 1 MB one of 100 bytes is timed, from its call to its response. Freeing is moved into that time step by step: the
//! pages of the response, which the client has just read; and the response at the server, which the short request's
//! acknowledgement frees, its bytes shared with the application (so that a count goes down) or the last reference to
//! them (so that the allocator gets 1 MB back).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant as Clock;

use homa_stack::{Config, Endpoint, Event, Instant, Message, Payload};

const ROUNDS: usize = 9;
const RPCS: usize = 200;
const LEN: usize = 1_000_000;
const PORT: u16 = 99;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// What happens while a short RPC is timed.
#[derive(Clone, Copy, PartialEq)]
enum Freed {
    /// Nothing: the response was released and acknowledged before.
    Nothing,
    /// The client's pages.
    Pages,
    /// And the server's state of the response.
    Response,
    /// And the response's bytes.
    Bytes,
}

struct Pair {
    client: Endpoint,
    server: Endpoint,
    port: u16,
    begin: Clock,
    packet: [u8; 1500],
}

impl Pair {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.begin.elapsed().as_nanos() as u64)
    }

    /// An RPC with a request of 100 bytes; returns the response.
    fn rpc(&mut self, request: &Payload, answer: Payload) -> Message {
        let now = self.now();
        let mut answer = Some(answer);
        self.client.call(now, self.port, SocketAddr::new(SERVER, PORT), request.clone(), 0).expect("a valid call");
        loop {
            let now = self.now();
            while let Some(sent) = self.client.poll_transmit(now, &mut self.packet) {
                self.server.handle_packet(now, CLIENT, &self.packet[..sent.len]);
            }
            while let Some(event) = self.server.poll_event() {
                let Event::Request { rpc, msg, .. } = event else { panic!("{event:?}") };
                self.server.release(msg);
                self.server.reply(now, rpc, answer.take().expect("one request")).expect("a valid reply");
            }
            while let Some(sent) = self.server.poll_transmit(now, &mut self.packet) {
                self.client.handle_packet(now, SERVER, &self.packet[..sent.len]);
            }
            if let Some(event) = self.client.poll_event() {
                let Event::Response { msg, .. } = event else { panic!("{event:?}") };
                return msg;
            }
        }
    }
}

fn main() {
    println!("{ROUNDS} rounds of {RPCS} RPCs of 100 bytes, us, both sides       P50      P90      P99");
    let cases = [
        ("nothing is freed meanwhile", Freed::Nothing),
        ("the client's pages of 1 MB", Freed::Pages),
        ("and the server's response, bytes shared", Freed::Response),
        ("and the response's bytes, 1 MB", Freed::Bytes),
    ];
    let mut times = cases.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for ((_, freed), times) in cases.iter().zip(&mut times) {
            times.extend(run(*freed));
        }
    }
    for ((what, _), times) in cases.iter().zip(&mut times) {
        times.sort_unstable();
        let at = |percent: usize| times[times.len() * percent / 100] as f64 / 1e3;
        println!("{what:48} {:8.2} {:8.2} {:8.2}", at(50), at(90), at(99));
    }
}

/// Times of short RPCs, ns.
fn run(freed: Freed) -> Vec<u64> {
    let (mut client, mut server) = (Endpoint::new(Config::default()), Endpoint::new(Config::default()));
    server.bind(PORT).expect("the port is free");
    let port = client.client_port().expect("ports are free");
    let mut pair = Pair { client, server, port, begin: Clock::now(), packet: [0; 1500] };
    let (short, long) = (Payload::from(vec![7; 100]), Payload::from(vec![7; LEN]));
    let mut one = || {
        let answer = if freed == Freed::Bytes { Payload::from(vec![7; LEN]) } else { long.clone() };
        let mut held = Some(pair.rpc(&short, answer));
        if freed == Freed::Nothing {
            pair.client.release(held.take().expect("just received"));
        }
        if matches!(freed, Freed::Nothing | Freed::Pages) {
            // Its request acknowledges the long response.
            let msg = pair.rpc(&short, short.clone());
            pair.client.release(msg);
            assert_eq!(pair.server.active_rpcs(), 1, "the short one");
        }
        let before = pair.server.active_rpcs();
        let start = Clock::now();
        if let Some(msg) = held {
            pair.client.release(msg);
        }
        let msg = pair.rpc(&short, short.clone());
        let time = start.elapsed().as_nanos() as u64;
        pair.client.release(msg);
        assert_eq!((before, pair.server.active_rpcs()), (1, 1), "the one before was acknowledged");
        time
    };
    (0..RPCS).map(|_| one()).collect()
}
