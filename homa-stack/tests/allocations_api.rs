//! In the steady state calls and replies between threads allocate nothing, on either side.
//!
//! One test in a binary of its own: the allocator counts for the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bytes::Bytes;
use homa_stack::api::{Batch, Runner, RunnerConfig};
use homa_stack::device::memory;
use homa_stack::{Config, Nanos, Payload};

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

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Calls under way at most.
const WINDOW: usize = 8;

/// `count` calls with `len` bytes, some at a time.
fn echo(batch: &mut Batch, to: SocketAddr, count: usize, body: &Bytes, len: usize) {
    let mut calls = (0..count as u64).map(|i| (to, Payload::with_head(&i.to_le_bytes(), body.slice(..len - 8)), i));
    batch.submit_all(calls.by_ref()).unwrap();
    while let Some(end) = batch.next() {
        assert_eq!(end.result.unwrap().len(), len);
        batch.submit_all(calls.by_ref()).unwrap();
    }
}

#[test]
fn the_steady_state_of_calls_between_threads_allocates_nothing() {
    // Memories of requests short enough to come of age while the test warms up, and a peer that is never given up.
    let homa = Config { tombstone_time: Nanos::from_millis(5), timeout_ticks: 20_000, ..Config::default() };
    let (a, b) = memory::pair_with(&homa);
    let (here, there) =
        (Runner::spawn(a, RunnerConfig::default()).unwrap(), Runner::spawn(b, RunnerConfig::default()).unwrap());
    let (client, server) = (here.client().unwrap(), there.bind(7).unwrap());
    let to = (memory::ADDRS[1], 7).into();
    let shared = Bytes::from(vec![7; 1_000_000]);
    let body = shared.clone();
    let serving = thread::spawn(move || {
        while let Ok(request) = server.recv() {
            let mut head = [0; 8];
            request.body.copy_to(0, &mut head);
            let payload = Payload::with_head(&head, body.slice(..request.body.len() - 8));
            // Before the reply is handed over, so that how many bodies there are does not depend on who is faster.
            drop(request.body);
            request.reply.send(payload).unwrap();
        }
    });
    let mut batch = client.batch(WINDOW);
    let mut run = |rounds: usize| {
        for _ in 0..rounds {
            echo(&mut batch, to, 1000, &shared, 100);
            echo(&mut batch, to, 20, &shared, 300_000);
            for _ in 0..100 {
                assert_eq!(client.call(to, &[1; 40]).unwrap().len(), 40);
            }
        }
    };
    run(8);
    let mut least = usize::MAX;
    // How far queues grow depends on which thread gets a core when; they stop to grow, but nobody can say when.
    for _ in 0..20 {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        run(1);
        least = least.min(ALLOCATIONS.load(Ordering::Relaxed) - before);
    }
    assert_eq!(least, 0, "in 1100 short and 20 long RPCs, in the best of 20 runs");
    there.shutdown().unwrap();
    serving.join().unwrap();
}
