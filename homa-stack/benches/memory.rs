//! Memory that RPCs hold which do nothing: `cargo bench -p homa-stack --bench memory`.
//!
//! A million requests of 100 bytes that the application has taken and not answered, then as many calls that wait for
//! their responses; bytes as asked of the allocator, tables included, and those of them that were touched, as the system
//! counts resident memory: tables grow by doubling, and room for news and packets of each RPC is asked for with it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use homa_stack::{Config, Endpoint, Event, Instant, Payload};

/// The system's allocator, counting bytes that are in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator can't be told otherwise")]
// SAFETY: all calls go to the system's allocator as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const RPCS: usize = 1_000_000;

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is always there");
    1024 * line.trim_end_matches("kB").trim().parse::<u64>().expect("a number")
}

fn main() {
    let before = IN_USE.load(Ordering::Relaxed);
    let now = Instant::from_nanos(1);
    let mut client = Endpoint::new(Config { tx_budget: usize::MAX, tx_peer_share: 1000, ..Config::default() });
    let empty = IN_USE.load(Ordering::Relaxed) - before;
    let mut server = Endpoint::new(Config { max_server_rpcs: RPCS, ..Config::default() });
    server.bind(99).expect("a free port");
    let port = client.client_port().expect("a free port");
    let to = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 2).into(), 99);
    let from = IpAddr::from(Ipv4Addr::new(10, 0, 0, 1));
    let mut tokens = Vec::with_capacity(RPCS);
    let (mut at_client, mut at_server) = (0, 0);
    let mut packet = [0; 1500];
    let untouched = resident();
    for i in 0..RPCS {
        let start = IN_USE.load(Ordering::Relaxed);
        client
            .call(now, port, to, Payload::with_head(&[i as u8; 40], bytes::Bytes::from_static(&[0; 60])), 0)
            .expect("a good call");
        let sent = client.poll_transmit(now, &mut packet).expect("a request");
        let middle = IN_USE.load(Ordering::Relaxed);
        server.handle_packet(now, from, &packet[..sent.len]);
        let Some(Event::Request { rpc, msg, .. }) = server.poll_event() else { panic!("no request") };
        server.release(msg);
        while server.poll_transmit(now, &mut packet).is_some() {}
        tokens.push(rpc);
        at_client += middle as i64 - start as i64;
        at_server += IN_USE.load(Ordering::Relaxed) as i64 - middle as i64;
    }
    assert_eq!((client.active_rpcs(), server.active_rpcs()), (RPCS, RPCS), "all are there");
    let touched = resident() - untouched - (RPCS * size_of::<homa_stack::ServerRpc>()) as u64;
    println!("bytes of memory");
    println!("an endpoint without RPCs                        {empty:8}");
    println!("each of {RPCS} requests in service              {:8.0}", at_server as f64 / RPCS as f64);
    println!("each of {RPCS} calls of 100 bytes               {:8.0}", at_client as f64 / RPCS as f64);
    println!("each of both, resident                          {:8.0}", touched as f64 / RPCS as f64);
}
