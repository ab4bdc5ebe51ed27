//! What a batch saves a message: `cargo bench -p homa-stack --bench batch`.
//!
//! 40-byte RPCs in bursts between two hosts that are joined by memory and run by one thread, which spins; the
//! application's thread has the other core of a machine of two. "calls": it starts a burst, by one `submit` each or one
//! `submit_all`, and takes the ends, by `next` or by `take`. "requests": the other host has a burst of calls under way;
//! the application takes the requests, by `recv` or by `recv_batch`, and answers each. "hosts that sleep" have a thread
//! each and a server's thread, so that most things handed over need a system call to wake somebody; both sides do all
//! one by one, or all in batches. A burst ends before the next begins.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use homa_stack::api::{Batch, Engine, Handle, Runner, RunnerConfig, Server, Wake};
use homa_stack::device::memory::{self, MemoryHost};
use homa_stack::{Endpoint, Event, Payload};

const ROUNDS: usize = 9;
const MESSAGES: usize = 10_000;
const PORT: u16 = 7;
const BODY: [u8; 40] = [7; 40];

/// What the host without handles does.
enum Other {
    /// Answers requests.
    Serves,
    /// Keeps bursts of so many calls under way, from its port.
    Calls { burst: usize, port: u16 },
}

/// A host that handles use, and another, in one thread that spins.
struct Both {
    mine: MemoryHost,
    theirs: MemoryHost,
    other: Other,
    woken: Arc<AtomicBool>,
}

impl Both {
    /// Does what the other host's application does; true if it has something to send.
    fn other(&mut self) -> bool {
        let (now, core) = (self.theirs.now(), self.theirs.core());
        let mut sends = false;
        while let Some(event) = core.poll_event() {
            match event {
                Event::Request { rpc, msg, .. } => {
                    core.release(msg);
                    core.reply(now, rpc, Payload::from(&BODY)).expect("the length is right");
                    sends = true;
                }
                Event::Response { msg, .. } => core.release(msg),
                other => panic!("{other:?}"),
            }
        }
        if let Other::Calls { burst, port } = self.other
            && core.active_rpcs() == 0
        {
            let to = SocketAddr::new(memory::ADDRS[0], PORT);
            for _ in 0..burst {
                core.call(now, port, to, Payload::from(&BODY), 0).expect("a valid call");
            }
            sends = true;
        }
        sends
    }
}

impl Engine for Both {
    fn now(&self) -> homa_stack::Instant {
        self.mine.now()
    }

    fn core(&mut self) -> &mut Endpoint {
        self.mine.core()
    }

    fn turn(&mut self) -> io::Result<()> {
        self.mine.turn();
        self.theirs.turn();
        if self.other() {
            self.theirs.turn();
            self.mine.turn();
        }
        Ok(())
    }

    fn wait(&mut self, _: Option<homa_stack::Instant>) -> io::Result<()> {
        let end = Instant::now() + Duration::from_micros(20);
        while !self.woken.swap(false, Ordering::SeqCst) && self.mine.core().active_rpcs() == 0 && Instant::now() < end {
            std::hint::spin_loop();
        }
        self.mine.turn();
        Ok(())
    }

    fn waker(&self) -> Wake {
        let woken = Arc::clone(&self.woken);
        Box::new(move || woken.store(true, Ordering::SeqCst))
    }
}

/// A handle of a host whose companion does as `calls` has it: bursts of so many calls, or none.
fn start(calls: Option<usize>) -> Handle {
    let (mine, mut theirs) = memory::pair();
    theirs.core().bind(PORT).expect("a free port");
    let port = theirs.core().client_port().expect("a free port");
    let other = calls.map_or(Other::Serves, |burst| Other::Calls { burst, port });
    let engine = Both { mine, theirs, other, woken: Arc::default() };
    Runner::spawn(engine, RunnerConfig { poll: Duration::from_millis(1), ..RunnerConfig::default() }).expect("a thread")
}

/// Nanoseconds a call: to start it, and in all.
fn calls(batch: &mut Batch, burst: usize, batched: bool) -> [f64; 2] {
    let to = SocketAddr::new(memory::ADDRS[1], PORT);
    let mut ends = Vec::with_capacity(burst);
    let (begin, mut starting) = (Instant::now(), Duration::ZERO);
    for _ in 0..MESSAGES / burst {
        let start = Instant::now();
        if batched {
            batch.submit_all((0..burst as u64).map(|i| (to, Payload::from(&BODY), i))).expect("room");
        } else {
            for i in 0..burst as u64 {
                batch.submit(to, &BODY, i).expect("room");
            }
        }
        starting += start.elapsed();
        while let Some(end) = batch.next() {
            ends.push(end);
            if batched {
                batch.take(&mut ends, usize::MAX);
            }
            ends.drain(..).for_each(|end| drop(end.result.expect("a response")));
        }
    }
    [starting, begin.elapsed()].map(|time| time.as_nanos() as f64 / (MESSAGES / burst * burst) as f64)
}

/// Nanoseconds a request.
fn requests(server: &Server, burst: usize, batched: bool) -> f64 {
    let mut taken = Vec::with_capacity(burst);
    let begin = Instant::now();
    let mut served = 0;
    while served < MESSAGES {
        taken.push(server.recv().expect("the host runs"));
        if batched {
            server.recv_batch(&mut taken, burst);
        }
        served += taken.len();
        taken.drain(..).for_each(|request| request.reply.send(&BODY).expect("the host runs"));
    }
    begin.elapsed().as_nanos() as f64 / served as f64
}

/// Two hosts with a thread each, which sleep when there is nothing to do, and the second one's server.
fn sleeping(batched: bool) -> (Handle, Handle, thread::JoinHandle<()>) {
    let (a, b) = memory::pair();
    let config = RunnerConfig { poll: Duration::ZERO, ..RunnerConfig::default() };
    let here = Runner::spawn(a, config.clone()).expect("a thread");
    let there = Runner::spawn(b, config).expect("a thread");
    let server = there.bind(PORT).expect("a free port");
    let serving = thread::spawn(move || {
        let mut taken = Vec::new();
        while let Ok(request) = server.recv() {
            taken.push(request);
            if batched {
                server.recv_batch(&mut taken, usize::MAX);
            }
            // The host may stop meanwhile.
            taken.drain(..).for_each(|request| drop(request.reply.send(&BODY)));
        }
    });
    (here, there, serving)
}

fn main() {
    println!("{ROUNDS} rounds of {MESSAGES} RPCs, ns each             one by one: P50 min   in batches: P50 min");
    for burst in [1, 4, 16, 64] {
        let here = start(None);
        let mut batch = here.client().expect("a port").batch(burst);
        let what = ["to start", "in all"].map(|part| format!("calls, {burst} at a time, {part}"));
        compare(&what, |batched| calls(&mut batch, burst, batched));
    }
    for burst in [1, 4, 16, 64] {
        let there = start(Some(burst));
        let server = there.bind(PORT).expect("a free port");
        compare(&[format!("requests, {burst} at a time")], |batched| [requests(&server, burst, batched)]);
    }
    for burst in [1, 4, 16, 64] {
        let pairs = [false, true].map(sleeping);
        let mut batches = [0, 1].map(|i| pairs[i].0.client().expect("a port").batch(burst));
        let what = ["to start", "in all"].map(|part| format!("hosts that sleep, {burst} at a time, {part}"));
        compare(&what, |batched| calls(&mut batches[usize::from(batched)], burst, batched));
        drop(batches);
        for (_, there, serving) in pairs {
            there.shutdown().expect("memory does not fail");
            serving.join().expect("it does not panic");
        }
    }
}

/// Takes turns, so that what else happens on the machine hits both alike.
fn compare<const N: usize>(what: &[String; N], mut run: impl FnMut(bool) -> [f64; N]) {
    let mut samples = [Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        for (batched, samples) in [false, true].into_iter().zip(&mut samples) {
            let sample = run(batched);
            // The first is for warming up.
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    for (i, what) in what.iter().enumerate() {
        let [one, many] = samples.each_ref().map(|samples| {
            let mut part: Vec<_> = samples.iter().map(|sample| sample[i]).collect();
            part.sort_by(f64::total_cmp);
            (part[part.len() / 2], part[0])
        });
        println!("{what:44} {:11.0} {:6.0} {:11.0} {:6.0}", one.0, one.1, many.0, many.1);
    }
}
