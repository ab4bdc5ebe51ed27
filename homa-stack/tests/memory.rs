//! Memory: what RPCs and messages occupy is bounded however much is asked for, is shared among endpoints, comes back,
//! and may be refused by the system.
//!
//! One test at a time: the allocator counts for the whole process.

mod net;

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use homa_stack::metrics::DropReason;
use homa_stack::proto::{Marks, Memory, MemoryBudget, PAGE_LEN};
use homa_stack::{Config, Endpoint, Event, Instant, Limit, Nanos, Payload, SendError, ServerRpc};
use net::{Net, addr};

/// The system's allocator, which counts bytes in use and refuses large requests beyond a limit.
struct Limited;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
/// Requests smaller than this are never refused.
const LARGE: usize = 4096;

/// The thread that asked for the latest page.
static PAGES_OF: Mutex<Option<std::thread::ThreadId>> = Mutex::new(None);

impl Limited {
    fn may_have(more: usize) -> bool {
        more < LARGE || IN_USE.load(Ordering::Relaxed) + more <= LIMIT.load(Ordering::Relaxed)
    }
}

#[expect(unsafe_code, reason = "an allocator can't be told otherwise")]
// SAFETY: all calls go to the system's allocator as they came, or are refused, as any allocator may.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !Self::may_have(layout.size()) {
            return std::ptr::null_mut();
        }
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        if layout.size() == PAGE_LEN
            && let Ok(mut thread) = PAGES_OF.try_lock()
        {
            *thread = Some(std::thread::current().id());
        }
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
static LIMITED: Limited = Limited;

/// Held by each test, as all share the allocator.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn in_use() -> usize {
    IN_USE.load(Ordering::Relaxed)
}

fn budget(low: usize, pressure: usize, most: usize) -> MemoryBudget {
    MemoryBudget::new(Marks { low, pressure, most }).unwrap()
}

/// Calls of 100,000 bytes until one is refused; how many there were, and what had no room.
fn fill(net: &mut Net, from: usize, to: usize) -> (usize, Limit) {
    for calls in 0.. {
        match net.try_call(from, to, 100_000) {
            Ok(_) => {}
            Err(SendError::WouldBlock(limit)) => return (calls, limit),
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("something is full in the end")
}

/// Hosts 0 and 1 share a budget and call host 2, which is silent: what they send stays with them.
#[test]
fn endpoints_with_a_budget_send_as_memory_allows_and_go_on_when_there_is_more() {
    let _alone = alone();
    let memory = budget(2_000_000, 4_000_000, 8_000_000);
    let sender = Config { memory: memory.clone(), tx_pressed: 6_000_000, tx_peer_share: 1000, ..Config::default() };
    let mut net = Net::with(vec![sender.clone(), sender, Config::default()]);
    net.alive[2] = false;
    assert_eq!((0..20).filter(|_| net.try_call(0, 2, 100_000).is_ok()).count(), 20);
    assert_eq!(net.hosts[0].memory(), Memory::Plenty, "2,000,000 bytes");
    assert_eq!(fill(&mut net, 0, 2), (59 - 20, Limit::Memory), "pressed: 59 and their tables fit 6,000,000 bytes");
    assert_eq!(net.hosts[0].memory(), Memory::Pressed);
    assert!(memory.taken() >= net.hosts[0].occupied() && memory.taken() < 8_000_000);
    // The other has as much, until there is none left; then no more than one message would take.
    let (calls, limit) = fill(&mut net, 1, 2);
    assert!((18..=24).contains(&calls), "{calls} calls of the other before memory is full");
    assert_eq!((limit, net.hosts[1].memory()), (Limit::Memory, Memory::Full));
    assert!(net.room.is_empty());
    // The calls time out.
    net.run_for(Nanos::from_secs(2));
    let mut told = net.room.clone();
    told.sort_by_key(|(host, _)| *host);
    assert_eq!(told, [(0, Limit::Memory), (1, Limit::Memory)]);
    assert_eq!((net.hosts[0].memory(), memory.taken()), (Memory::Plenty, 0));
    for host in &net.hosts[..2] {
        assert_eq!((host.metrics.memory_pressures, host.metrics.memory_reliefs), (1, 1));
        assert!(host.metrics.memory_pressed_micros > 50_000, "{}", host.metrics.memory_pressed_micros);
    }
    net.assert_settled("a budget");
}

/// However little there is, each endpoint has room for a message in and one out.
#[test]
fn all_rpcs_end_with_a_budget_that_is_always_full() {
    let _alone = alone();
    let memory = budget(1, 1, 1);
    let host = Config { memory: memory.clone(), ..Config::default() };
    let mut net = Net::new(4, &host);
    for call in 0..60 {
        let (from, len) = (call % 4, [100, 70_000, 1_000_000][call % 3]);
        while net.try_call(from, (from + 1) % 4, len).is_err() {
            net.run_for(Nanos::from_millis(1));
        }
    }
    net.run_for(Nanos::from_secs(20));
    assert_eq!((net.done.len(), net.failed.len()), (60, 0));
    assert!(net.hosts.iter().all(|host| host.memory() != Memory::Plenty || host.occupied() == 0));
    assert!(net.hosts.iter().all(|host| host.metrics.memory_most < 4_000_000));
    net.assert_settled("no memory to speak of");
}

/// What an RPC takes in tables counts: a million calls of a byte are not a million bytes.
#[test]
fn short_messages_count_with_what_they_occupy() {
    let _alone = alone();
    let mut client = Endpoint::new(Config { tx_budget: 50_000_000, tx_peer_share: 1000, ..Config::default() });
    let (port, now) = (client.client_port().unwrap(), Instant::from_nanos(1));
    let before = in_use();
    let to = SocketAddr::new(addr(1), net::PORT);
    let calls = (0..1_000_000).take_while(|_| client.call(now, port, to, Payload::from(&[1]), 0).is_ok()).count();
    assert!((120_000..130_000).contains(&calls), "{calls} calls");
    let (taken, counted) = (in_use() - before, client.occupied());
    // Tables double, so that up to half of them is room for more.
    assert!((counted / 2..2 * counted).contains(&taken), "{taken} bytes taken, {counted} counted");
}

#[test]
fn bytes_queued_for_sending_show_in_the_metrics() {
    let _alone = alone();
    let mut net = Net::new(2, &Config::default());
    net.response_len = Some(1);
    net.alive[1] = false;
    (0..5).for_each(|_| _ = net.call(0, 1, 20_000));
    let queued = |net: &Net| {
        let m = &net.hosts[0].metrics;
        m.sent_msg_bytes - m.tx_released_bytes
    };
    assert_eq!(queued(&net), 100_000);
    net.run_for(Nanos::from_millis(10));
    net.alive[1] = true;
    net.run_for(Nanos::from_millis(100));
    assert_eq!((net.done.len(), queued(&net)), (5, 0));
    let m = &net.hosts[0].metrics;
    assert_eq!(m.tx_held_most, 100_000);
    // All five for 10 ms and until the silence was noticed: at least 100,000 bytes times 10,000 us.
    assert!((1_000_000_000..3_000_000_000).contains(&m.tx_held_integral), "{}", m.tx_held_integral);
    assert!((50_000..150_000).contains(&m.tx_messages_integral), "{}", m.tx_messages_integral);
    net.assert_settled("metrics");
}

/// A server that answers ten requests a millisecond and is asked for a hundred, of up to 300,000 bytes in all.
#[test]
fn memory_is_flat_under_ten_times_the_load_that_can_be_carried() {
    let _alone = alone();
    let limits = Config {
        pool_pages: 100,
        max_unread: 50,
        max_server_rpcs: 200,
        tx_budget: 5_000_000,
        tombstone_time: Nanos::from_millis(200),
        ..Config::default()
    };
    let before = in_use();
    let (mut client, mut server) = (Endpoint::new(limits.clone()), Endpoint::new(limits));
    server.bind(net::PORT).unwrap();
    let port = client.client_port().unwrap();
    let to = SocketAddr::new(addr(1), net::PORT);
    let body = bytes::Bytes::from(vec![1; 300_000]);
    let (mut now, mut packet, mut waiting) = (Instant::from_nanos(1), [0; 1500], Vec::<ServerRpc>::new());
    let (mut offered, mut answered, mut most, mut first) = (0_u64, 0_u64, 0, 0);
    for millis in 0..3_000 {
        for step in 0..10 {
            now = now + Nanos::from_micros(100);
            for _ in 0..10 {
                offered += 1;
                let len = [100, 1_000, 3_000, 300_000][(offered % 97) as usize % 4 * usize::from(offered % 31 == 0)];
                _ = client.call(now, port, to, Payload::from(body.slice(..len)), 0);
            }
            client.handle_timeout(now);
            server.handle_timeout(now);
            while let Some(sent) = client.poll_transmit(now, &mut packet) {
                server.handle_packet(now, addr(0), &packet[..sent.len]);
            }
            while waiting.len() < 20
                && let Some(event) = server.poll_event()
            {
                let Event::Request { rpc, msg, .. } = event else { panic!("{event:?}") };
                server.release(msg);
                waiting.push(rpc);
            }
            if step % 10 == 0 {
                for rpc in waiting.drain(..waiting.len().min(10)) {
                    server.reply(now, rpc, Payload::from(body.slice(..1_000))).unwrap();
                }
            }
            while let Some(sent) = server.poll_transmit(now, &mut packet) {
                client.handle_packet(now, addr(1), &packet[..sent.len]);
            }
            while let Some(event) = client.poll_event() {
                if let Event::Response { msg, .. } = event {
                    client.release(msg);
                    answered += 1;
                }
            }
        }
        most = most.max(in_use() - before);
        if millis == 1_000 {
            first = most;
        }
    }
    assert!(offered > 9 * answered && answered > 20_000, "{answered} of {offered} answered");
    assert!(most <= first + first / 4, "{first} bytes at most in the first second, {most} in all three");
    let bound = 2 * (100 * PAGE_LEN + 2 * 5_000_000);
    assert!(most < bound, "{most} bytes, the limits allow {bound}");
    println!("{answered} of {offered} answered; {most} bytes at most");
}

/// Pages and tables that the system refuses cost packets, which come again, and not the process.
#[test]
fn a_host_without_memory_hears_nothing_new_and_goes_on_when_there_is_some() {
    let _alone = alone();
    for len in [100, 30_000, 500_000] {
        let mut net = Net::new(
            3,
            &Config { timeout_ticks: 1_000, tx_budget: 200_000_000, tx_peer_share: 1000, ..Config::default() },
        );
        net.response_len = Some(1);
        (0..200).for_each(|call| _ = net.call(call % 2, 2, len));
        // All that is there to be sent, and not a byte of memory for it.
        let mut packets = Vec::new();
        let mut packet = [0; 1500];
        for client in 0..2 {
            while let Some(sent) = net.hosts[client].poll_transmit(net.now, &mut packet) {
                packets.push((client, packet[..sent.len].to_vec()));
            }
        }
        let server = &mut net.hosts[2];
        LIMIT.store(in_use(), Ordering::Relaxed);
        for (client, bytes) in &packets {
            server.handle_packet(net.now, addr(*client), bytes);
        }
        LIMIT.store(usize::MAX, Ordering::Relaxed);
        let refused = server.metrics.drops(DropReason::TooManyRpcs) + server.metrics.drops(DropReason::NoBuffers);
        assert_eq!(refused, packets.len() as u64, "there is no page for any");
        server.check_invariants(std::iter::empty()).unwrap();
        net.run_for(Nanos::from_secs(3));
        assert_eq!((net.done.len(), net.failed.len()), (200, 0), "{len} bytes");
        net.run_for(Nanos::from_secs(7));
        net.assert_settled("no memory");
    }
}

/// Where a system has several memory nodes, a page is on that of the thread which runs the endpoint: it is taken from
/// the system, and written first, by that thread.
#[test]
fn pages_are_made_by_the_thread_that_runs_the_endpoint() {
    let _alone = alone();
    let mut net = Net::new(2, &Config::default());
    *PAGES_OF.lock().unwrap() = None;
    net.call(0, 1, 200_000);
    assert_eq!(*PAGES_OF.lock().unwrap(), None, "none before there are messages");
    // The network is not `Send`; its endpoints are.
    let (now, mut hosts) = (net.now, std::mem::take(&mut net.hosts));
    let worker = std::thread::spawn(move || {
        let mut packet = [0; 1500];
        while let Some(sent) = hosts[0].poll_transmit(now, &mut packet) {
            let (_, rest) = hosts.split_at_mut(1);
            rest[0].handle_packet(now, addr(0), &packet[..sent.len]);
        }
        std::thread::current().id()
    });
    let worker = worker.join().unwrap();
    assert_eq!(*PAGES_OF.lock().unwrap(), Some(worker));
}
