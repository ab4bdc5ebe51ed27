//! What the protocol costs a packet of a long message, without any network: `cargo bench -p homa-stack --bench bulk`.
//!
//! A client sends requests of 1 MB to a server through memory, by the same loop that the driver runs; the times of the
//! two sides are taken apart, a clock reading every 16 packets. "copied": the sender copies the data into its packets,
//! as to a device without gather; "gathered": it writes headers alone, and what the packets hold besides is whatever
//! their slots hold. The receiver copies the data into its pool either way.

mod link;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant as Clock};

use homa_stack::{Config, Endpoint, Event, Instant, Payload, device};
use link::{CLIENT, End, SERVER};

const ROUNDS: usize = 9;
const MESSAGES: usize = 300;
const LEN: usize = 1_000_000;
const PORT: u16 = 99;

struct Host {
    core: Endpoint,
    end: End,
    busy: Duration,
}

impl Host {
    fn new(peer: IpAddr, gathers: bool) -> Self {
        Self { core: Endpoint::new(Config::default()), end: End::new(peer, gathers), busy: Duration::ZERO }
    }
}

fn main() {
    println!("{ROUNDS} rounds of {MESSAGES} messages of 1 MB, ns a data packet: sender, receiver, both");
    println!("{:40} {:>8} {:>8} {:>8} {:>8} {:>8}", "", "sender", "receiver", "both P50", "min", "max");
    for (outstanding, gathers) in [(1, false), (1, true), (8, false), (8, true)] {
        let mut samples: Vec<_> = (0..ROUNDS).map(|_| run(outstanding, gathers)).collect();
        samples.sort_by(|a, b| (a.0 + a.1).total_cmp(&(b.0 + b.1)));
        let (sender, receiver) = samples[ROUNDS / 2];
        let sum = |i: usize| samples[i].0 + samples[i].1;
        let what = format!("{outstanding} outstanding, {}", if gathers { "gathered" } else { "copied" });
        let (mid, min, max) = (sum(ROUNDS / 2), sum(0), sum(ROUNDS - 1));
        println!("{what:40} {sender:8.1} {receiver:8.1} {mid:8.1} {min:8.1} {max:8.1}");
    }
}

/// Nanoseconds a data packet, at the sender and at the receiver.
fn run(outstanding: usize, gathers: bool) -> (f64, f64) {
    let (mut client, mut server) = (Host::new(SERVER, gathers), Host::new(CLIENT, false));
    server.core.bind(PORT).expect("the port is free");
    let port = client.core.client_port().expect("ports are free");
    let (body, answer) = (Payload::from(vec![7; LEN]), Payload::from(vec![7; 1]));
    let start = Clock::now();
    let (mut begun, mut done) = (0, 0);
    let mut at = start;
    while done < MESSAGES {
        let now = Instant::from_nanos((at - start).as_nanos() as u64);
        while begun < MESSAGES && begun - done < outstanding {
            client.core.call(now, port, SocketAddr::new(SERVER, PORT), body.clone(), 0).expect("a valid call");
            begun += 1;
        }
        device::turn(&mut client.core, &mut client.end, now);
        while let Some(event) = client.core.poll_event() {
            let Event::Response { msg, .. } = event else { panic!("{event:?}") };
            client.core.release(msg);
            done += 1;
        }
        std::mem::swap(&mut client.end.outbox, &mut server.end.inbox);
        let middle = Clock::now();
        device::turn(&mut server.core, &mut server.end, now);
        while let Some(event) = server.core.poll_event() {
            let Event::Request { rpc, msg, .. } = event else { panic!("{event:?}") };
            server.core.release(msg);
            server.core.reply(now, rpc, answer.clone()).expect("a valid reply");
        }
        std::mem::swap(&mut server.end.outbox, &mut client.end.inbox);
        let end = Clock::now();
        client.busy += middle - at;
        server.busy += end - middle;
        at = end;
    }
    let packets = client.end.data_packets as f64;
    assert!(client.core.metrics.resent_packets + server.core.metrics.resent_packets == 0, "nothing is lost");
    (client.busy.as_nanos() as f64 / packets, server.busy.as_nanos() as f64 / packets)
}
