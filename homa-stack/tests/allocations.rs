//! The steady-state path allocates nothing: neither packets, timers and events nor the application's calls.
//!
//! One test in a binary of its own: the allocator counts for the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use homa_stack::{Config, Endpoint, Event, Instant, Nanos, Payload};

/// The system's allocator, counting what it gives out.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator can't be told otherwise")]
// SAFETY: all calls go to the system's allocator as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, new_size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const PORT: u16 = 99;
/// RPCs at a time.
const WINDOW: usize = 8;
/// Virtual time between two rounds of packets.
const ROUND: Nanos = Nanos::from_micros(10);

struct Pair {
    client: Endpoint,
    server: Endpoint,
    port: u16,
    now: Instant,
    body: Bytes,
    /// Each `n`th packet is lost, if not 0.
    lose: usize,
    packets: usize,
    answered: usize,
}

fn addr(host: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, host).into()
}

impl Pair {
    fn new() -> Self {
        // Short enough to come round while the test warms up.
        let config = Config { tombstone_time: Nanos::from_millis(5), ..Config::default() };
        let (mut client, mut server) = (Endpoint::new(config.clone()), Endpoint::new(config));
        server.bind(PORT).unwrap();
        let port = client.client_port().unwrap();
        let body = Bytes::from(vec![7; 1_000_000]);
        let now = Instant::from_nanos(1);
        Self { client, server, port, now, body, lose: 0, packets: 0, answered: 0 }
    }

    /// Echo RPCs of `len` bytes, several at a time.
    fn echo(&mut self, rpcs: usize, len: usize) {
        let (mut called, end) = (0, self.answered + rpcs);
        while self.answered < end {
            while called < rpcs && called < self.answered + rpcs - end + WINDOW.min(rpcs) {
                let head = [called as u8; 12];
                let payload = Payload::with_head(&head, self.body.slice(..len - head.len()));
                let to = SocketAddr::new(addr(2), PORT);
                self.client.call(self.now, self.port, to, payload, called as u64).unwrap();
                called += 1;
            }
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.now = self.now + ROUND;
        for host in [&mut self.client, &mut self.server] {
            if host.next_deadline().is_some_and(|at| at <= self.now) {
                host.handle_timeout(self.now);
            }
        }
        let (now, lose, packets) = (self.now, self.lose, &mut self.packets);
        let mut exchange = |from: &mut Endpoint, to: &mut Endpoint, source: IpAddr| {
            let mut packet = [0; 1500];
            while let Some(sent) = from.poll_transmit(now, &mut packet) {
                *packets += 1;
                if lose == 0 || *packets % lose > 0 {
                    to.handle_packet(now, source, &packet[..sent.len]);
                }
            }
        };
        exchange(&mut self.client, &mut self.server, addr(1));
        while let Some(event) = self.server.poll_event() {
            let Event::Request { rpc, msg, .. } = event else { panic!("a server hears requests only") };
            let mut head = [0; 12];
            self.server.copy_out(&msg, 0, &mut head);
            let payload = Payload::with_head(&head, self.body.slice(..msg.len() - head.len()));
            self.server.release(msg);
            self.server.reply(now, rpc, payload).unwrap();
        }
        exchange(&mut self.server, &mut self.client, addr(2));
        while let Some(event) = self.client.poll_event() {
            let Event::Response { msg, .. } = event else { panic!("{event:?}") };
            self.client.release(msg);
            self.answered += 1;
        }
    }
}

#[test]
fn the_steady_state_allocates_nothing() {
    for (lose, what) in [(0, "without loss"), (97, "with each 97th packet lost")] {
        let mut pair = Pair::new();
        let mut run = |lose, short, long| {
            pair.lose = lose;
            pair.echo(short, 100);
            pair.echo(long, 500_000);
        };
        // Tables grow, pages are made, memories of requests come of age; of losses there are more than later, so that
        // as many lists of ranges have been in use.
        (0..16).for_each(|i| run(if i < 6 { lose } else { lose / 3 }, 10_000, 60));
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        run(lose, 10_000, 20);
        let allocated = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(allocated, 0, "{what}, in 10,000 RPCs of 100 bytes and 20 of 500,000");
    }
}
