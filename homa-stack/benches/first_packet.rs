//! When a long message's first packet is ready to be sent: `cargo bench -p homa-stack --bench first_packet`.
//!
//! Calls of 500 KB, from the call on until the first packet is written, and until a burst of 16 is. "shared": the
//! message is given to the stack, which takes its bytes as packets are made; "copied at once": it is the application's
//! to write to again, so that all of it is copied first. "written": packets with their data; "gathered": headers alone,
//! as for devices that take the data from where they lie.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant as Clock;

use homa_stack::wire::Kind;
use homa_stack::{Config, Endpoint, Instant, Payload};

const ROUNDS: usize = 2000;
const LEN: usize = 500_000;
const BURST: usize = 16;

fn main() {
    println!("{ROUNDS} calls of 500 KB, us from the call on:      first packet          {BURST} packets");
    println!("{:44} {:>8} {:>8} {:>10} {:>8}", "", "P50", "P99", "P50", "P99");
    for (copied, gathers) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut first, mut burst): (Vec<_>, Vec<_>) = run(copied, gathers).into_iter().unzip();
        first.sort_unstable();
        burst.sort_unstable();
        let at = |of: &[u64], percent: usize| of[of.len() * percent / 100] as f64 / 1e3;
        let how = if copied { "copied at once" } else { "shared" };
        let what = format!("{how}, {}", if gathers { "gathered" } else { "written" });
        let [a, b, c, d] = [at(&first, 50), at(&first, 99), at(&burst, 50), at(&burst, 99)];
        println!("{what:44} {a:8.2} {b:8.2} {c:10.2} {d:8.2}");
    }
}

/// Nanoseconds until the first packet, and until a burst of them.
fn run(copied: bool, gathers: bool) -> Vec<(u64, u64)> {
    let server = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 99);
    let mut core = Endpoint::new(Config { unsched_bytes: 60_000, ..Config::default() });
    let port = core.client_port().expect("ports are free");
    let mut own = vec![7_u8; LEN];
    let shared = Payload::from(own.clone());
    let mut packets = vec![[0; 1500]; BURST];
    let begin = Clock::now();
    let round = |i: usize| {
        // The application has just made the message.
        own.fill(i as u8);
        let start = Clock::now();
        let now = Instant::from_nanos((start - begin).as_nanos() as u64);
        let message = if copied { Payload::from(&own[..]) } else { shared.clone() };
        let id = core.call(now, port, server, message, 0).expect("a valid call");
        let mut first = 0;
        for (i, packet) in packets.iter_mut().enumerate() {
            let sent = if gathers { core.poll_gather(now, packet, 0) } else { core.poll_transmit(now, packet) };
            assert!(sent.is_some_and(|sent| sent.kind == Kind::Data), "it may send {i} packets");
            if i == 0 {
                first = start.elapsed().as_nanos() as u64;
            }
        }
        let all = start.elapsed().as_nanos() as u64;
        core.abort(id);
        while core.poll_transmit(now, &mut packets[0]).is_some() {}
        (first, all)
    };
    (0..ROUNDS).map(round).collect()
}
