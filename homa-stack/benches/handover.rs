//! What handing over between the protocol's thread and others costs: `cargo bench -p homa-stack --bench handover`.
//!
//! 100-byte RPCs between two hosts that are joined by memory, in turns. First each way of waiting for the response, one
//! call at a time: one thread runs both hosts, with an inline server, so that it and the caller have a core each on a
//! machine of two. Then each policy of waking one of several threads that serve a port, eight calls at a time: two
//! protocol threads, the servers and the caller share what cores there are.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use homa_stack::api::{Batch, Client, Engine, Handle, Runner, RunnerConfig, Wake, WakePolicy};
use homa_stack::device::memory::{self, MemoryHost};
use homa_stack::{Endpoint, Event, Payload};
use rustix::event::{PollFd, PollFlags};

const CALLS: usize = 5000;
const ROUNDS: usize = 7;
const SERVERS: usize = 4;
const WINDOW: usize = 8;

/// Two hosts, of which the second serves port 7 by `servers` threads.
struct Pair {
    client: Client,
    there: Handle,
    serving: Vec<thread::JoinHandle<()>>,
}

impl Pair {
    fn new(poll: Duration, policy: WakePolicy, servers: usize) -> Self {
        let (a, b) = memory::pair();
        let config = RunnerConfig { poll, ..RunnerConfig::default() };
        let here = Runner::spawn(a, config.clone()).expect("a thread");
        let there = Runner::spawn(b, config).expect("a thread");
        let server = there.bind_with(7, policy).expect("a free port");
        let serve = |_| {
            let server = server.clone();
            thread::spawn(move || {
                while let Ok(request) = server.recv() {
                    drop(request.reply.send(request.body));
                }
            })
        };
        Self { client: here.client().expect("a port"), there, serving: (0..servers).map(serve).collect() }
    }

    fn stop(self) {
        self.there.shutdown().expect("memory does not fail");
        self.serving.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
    }
}

/// A client's host and a server that answers inline, in one thread, which spins for as long as calls come.
struct Both {
    client: MemoryHost,
    server: MemoryHost,
    woken: Arc<AtomicBool>,
}

impl Engine for Both {
    fn now(&self) -> homa_stack::Instant {
        self.client.now()
    }

    fn core(&mut self) -> &mut Endpoint {
        self.client.core()
    }

    fn turn(&mut self) -> io::Result<()> {
        self.client.turn();
        self.server.turn();
        let mut answered = false;
        while let Some(event) = self.server.core().poll_event() {
            let Event::Request { rpc, msg, .. } = event else { continue };
            self.server.core().release(msg);
            let now = self.server.now();
            self.server.core().reply(now, rpc, Payload::from(&[7; 40])).expect("the length is right");
            answered = true;
        }
        if answered {
            self.server.turn();
            self.client.turn();
        }
        Ok(())
    }

    fn wait(&mut self, until: Option<homa_stack::Instant>) -> io::Result<()> {
        // Sends what there is; then the packets are there at once, and there is no wait.
        if self.client.core().active_rpcs() > 0 {
            self.client.wait(Some(self.client.now()));
            return Ok(());
        }
        let end = Instant::now() + Duration::from_micros(500);
        while !self.woken.swap(false, Ordering::SeqCst) {
            if Instant::now() > end {
                self.client.wait(until);
                return Ok(());
            }
            std::hint::spin_loop();
        }
        Ok(())
    }

    fn waker(&self) -> Wake {
        let (woken, waker) = (Arc::clone(&self.woken), MemoryHost::waker(&self.client));
        Box::new(move || {
            woken.store(true, Ordering::SeqCst);
            waker.wake();
        })
    }
}

/// A client whose protocol's thread answers for the server too.
fn both(poll: Duration) -> Client {
    let (client, mut server) = memory::pair();
    server.core().bind(7).expect("a free port");
    let engine = Both { client, server, woken: Arc::default() };
    let config = RunnerConfig { poll, ..RunnerConfig::default() };
    Runner::spawn(engine, config).expect("a thread").client().expect("a port")
}

fn to() -> SocketAddr {
    (memory::ADDRS[1], 7).into()
}

type Wait = fn(&mut Batch);

/// The next end is there, and left there.
fn by_memory(batch: &mut Batch) {
    while batch.try_next().is_none() {
        std::hint::spin_loop();
    }
}

fn by_next(batch: &mut Batch) {
    batch.next().expect("a call is under way");
}

fn by_eventfd(batch: &mut Batch) {
    loop {
        let fd = batch.readiness().expect("a descriptor");
        let mut polled = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
        rustix::event::poll(&mut polled, None).expect("poll");
        if batch.try_next().is_some() {
            return;
        }
    }
}

/// Times of `CALLS` calls, `window` at a time, in ns; and how long all took.
fn run(client: &Client, window: usize, wait: Wait) -> (Vec<u64>, Duration) {
    let mut batch = client.batch(window);
    let body = [7; 100];
    let begin = Instant::now();
    let mut times = Vec::with_capacity(CALLS);
    if window == 1 {
        for _ in 0..CALLS {
            let start = Instant::now();
            batch.submit(to(), &body, 0).expect("room");
            wait(&mut batch);
            times.push(start.elapsed().as_nanos() as u64);
        }
    } else {
        let stamp = |begin: Instant| begin.elapsed().as_nanos() as u64;
        let mut left = CALLS;
        loop {
            while left > 0 && batch.open() < window {
                left -= 1;
                batch.submit(to(), Payload::from(&body), stamp(begin)).expect("room");
            }
            let Some(end) = batch.next() else { break };
            times.push(stamp(begin) - end.cookie);
        }
    }
    (times, begin.elapsed())
}

fn print(what: &str, times: &mut [u64], took: Duration) {
    times.sort_unstable();
    let at = |permille: usize| times[times.len() * permille / 1000] as f64 / 1e3;
    let rate = times.len() as f64 / took.as_secs_f64();
    println!("{what:34} P50 {:7.1} us  P99 {:7.1} us  {rate:8.0}/s", at(500), at(990));
}

fn main() {
    let spin = Duration::from_micros(50);
    let ways: [(&str, Duration, Wait); 4] = [
        ("look into memory", spin, by_memory),
        ("next, spinning 50 us", spin, by_next),
        ("next, sleeping at once", Duration::ZERO, by_next),
        ("eventfd and poll", Duration::ZERO, by_eventfd),
    ];
    println!("one call at a time, both hosts in one thread:");
    compare(&ways.map(|(name, poll, wait)| (name, both(poll), 1, wait)));
    println!("{WINDOW} calls at a time, {SERVERS} serving threads:");
    let policies = [
        ("wake, sleeping at once", Duration::ZERO, WakePolicy::Wake),
        ("hand off, sleeping at once", Duration::ZERO, WakePolicy::HandOff),
        ("wake, spinning 50 us", spin, WakePolicy::Wake),
        ("hand off, spinning 50 us", spin, WakePolicy::HandOff),
    ];
    let pairs = policies.map(|(name, poll, policy)| (name, Pair::new(poll, policy, SERVERS)));
    compare(&pairs.each_ref().map(|(name, pair)| (*name, pair.client.clone(), WINDOW, by_next as Wait)));
    for (_, pair) in pairs {
        pair.stop();
    }
}

/// Runs each in turn, so that what else happens on the machine hits all alike.
fn compare(all: &[(&str, Client, usize, Wait)]) {
    let mut sums = vec![(Vec::new(), Duration::ZERO); all.len()];
    for round in 0..ROUNDS {
        for ((_, client, window, wait), (times, took)) in all.iter().zip(&mut sums) {
            let (new, took_now) = run(client, *window, *wait);
            // The first is for warming up.
            if round > 0 {
                times.extend(new);
                *took += took_now;
            }
        }
    }
    for ((name, ..), (times, took)) in all.iter().zip(&mut sums) {
        print(name, times, *took);
    }
}
