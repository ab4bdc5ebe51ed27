//! What the protocol costs an RPC, without any network: `cargo bench -p homa-stack --bench rpc`.
//!
//! A client and a server endpoint exchange packets through memory, by the same loop that the driver runs. The time
//! is that of both sides together, with and without a time trace; what the kernel takes for a packet comes on top.

mod link;

use std::net::{IpAddr, SocketAddr};
use std::time::Instant as Clock;

use homa_stack::trace::{self, Recorder};
use homa_stack::{Config, Endpoint, Event, Instant, Payload, device};
use link::{CLIENT, End, SERVER};

const ROUNDS: usize = 11;
const RPCS: usize = 200_000;
const PORT: u16 = 99;

struct Host {
    core: Endpoint,
    end: End,
}

impl Host {
    fn new(peer: IpAddr, traced: bool) -> Self {
        let mut core = Endpoint::new(Config::default());
        if traced {
            core.set_trace(Recorder::new(1 << 16, trace::Clock::Counter(homa_stack::driver::counter()), 0));
        }
        Self { core, end: End::new(peer, false) }
    }
}

fn main() {
    println!("{ROUNDS} rounds of {RPCS} RPCs, both sides together, ns an RPC    P50     min     max");
    for outstanding in [1, 16] {
        let (mut off, mut on) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            off.push(run(outstanding, false));
            on.push(run(outstanding, true));
        }
        print(&format!("100 bytes, {outstanding} outstanding, no trace"), off);
        print(&format!("100 bytes, {outstanding} outstanding, traced"), on);
    }
}

/// Nanoseconds an RPC.
fn run(outstanding: usize, traced: bool) -> f64 {
    let (mut client, mut server) = (Host::new(SERVER, traced), Host::new(CLIENT, traced));
    server.core.bind(PORT).expect("the port is free");
    let port = client.core.client_port().expect("ports are free");
    let body = Payload::from(vec![7; 100]);
    let start = Clock::now();
    let mut now = Instant::default();
    let (mut begun, mut done) = (0, 0);
    while done < RPCS {
        now = Instant::from_nanos(start.elapsed().as_nanos() as u64).max(now);
        while begun < RPCS && begun - done < outstanding {
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
        device::turn(&mut server.core, &mut server.end, now);
        while let Some(event) = server.core.poll_event() {
            let Event::Request { rpc, msg, .. } = event else { panic!("{event:?}") };
            server.core.release(msg);
            server.core.reply(now, rpc, body.clone()).expect("a valid reply");
        }
        device::transmit(&mut server.core, &mut server.end, now);
        std::mem::swap(&mut server.end.outbox, &mut client.end.inbox);
    }
    start.elapsed().as_nanos() as f64 / RPCS as f64
}

fn print(what: &str, mut samples: Vec<f64>) {
    samples.sort_by(f64::total_cmp);
    let last = samples.len() - 1;
    println!("{what:60} {:7.1} {:7.1} {:7.1}", samples[last / 2], samples[0], samples[last]);
}
