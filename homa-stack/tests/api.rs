//! The application's interface, between two hosts that are joined by memory: no privileges, real threads.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use homa_stack::api::{
    BindError, CallError, Engine, Handle, Runner, RunnerConfig, Server, Stopped, Wake as WakeEngine, WakePolicy,
};
use homa_stack::device::memory::{self, MemoryHost};
use homa_stack::{Body, Config, Endpoint, Event, Payload, RpcError, SendError};

const PORT: u16 = 7;

fn to() -> SocketAddr {
    (memory::ADDRS[1], PORT).into()
}

/// For tests that look at what happens without a peer's help: nothing ends because somebody was slow.
fn patient() -> Config {
    Config { timeout_ticks: 20_000, resend_ticks: 50, ..Config::default() }
}

fn start(config: RunnerConfig, homa: &Config) -> (Handle, Handle) {
    let (a, b) = memory::pair_with(homa);
    (Runner::spawn(a, config.clone()).unwrap(), Runner::spawn(b, config).unwrap())
}

fn pair() -> (Handle, Handle) {
    start(RunnerConfig { poll: Duration::ZERO, ..RunnerConfig::default() }, &patient())
}

/// Answers each request with its own bytes until the server's host stops.
fn echo(server: &Server) {
    while let Ok(request) = server.recv() {
        let _ = request.reply.send(request.body);
    }
}

/// Waits until `done`; panics with `what` after 20 s.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn rpcs(handle: &Handle) -> usize {
    handle.with(|core| core.active_rpcs()).unwrap()
}

/// True once `handle`'s endpoint holds neither RPCs nor pages.
fn is_quiet(handle: &Handle) -> bool {
    handle.with(|core| core.is_quiet()).unwrap()
}

fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + seed * 7 + (i >> 8)) as u8).collect()
}

/// Counts how often it was woken.
#[derive(Default)]
struct CountWakes(AtomicUsize);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn many_threads_call_many_threads_and_nothing_is_lost_mixed_up_or_left() {
    for policy in [WakePolicy::Wake, WakePolicy::HandOff] {
        let (here, there) = pair();
        let server = there.bind_with(PORT, policy).unwrap();
        let servers: Vec<_> = (0..3).map(|_| server.clone()).map(|own| thread::spawn(move || echo(&own))).collect();
        let client = here.client().unwrap();
        let lengths = [1, 48, 49, 1400, 10_000, 65_536, 70_000, 200_000];
        thread::scope(|scope| {
            for caller in 0..4 {
                let (own, shared) = (here.client().unwrap(), &client);
                scope.spawn(move || {
                    for i in 0..100 {
                        let client = if i % 2 == 0 { &own } else { shared };
                        let message = bytes(caller * 1000 + i, lengths[(i + caller) % lengths.len()]);
                        let answer = match i % 3 {
                            0 => client.call(to(), &message[..]),
                            1 => pollster::block_on(client.start(to(), &message[..]).unwrap()),
                            _ => client.start(to(), message.clone()).unwrap().wait(),
                        };
                        assert!(answer.unwrap() == message, "{policy:?}, caller {caller}, call {i}");
                    }
                });
            }
        });
        eventually("state or pages stay", || is_quiet(&here) && is_quiet(&there));
        assert_eq!(here.stats().calls, 0);
        there.shutdown().unwrap();
        servers.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn a_batch_gives_each_end_once_in_any_order_and_refuses_more_than_it_holds() {
    let (here, there) = pair();
    let server = there.bind(PORT).unwrap();
    let mut batch = here.client().unwrap().batch(8);
    let calls = (0..20_u64).map(|i| (to(), Payload::from(&i.to_le_bytes()), i));
    let mut calls = calls.peekable();
    assert_eq!(batch.submit_all(calls.by_ref()).unwrap(), 8);
    assert_eq!((batch.open(), calls.peek().map(|call| call.2)), (8, Some(8)), "what did not fit is still there");
    let error = batch.submit(to(), "more", 99).unwrap_err();
    assert!(error.is_full() && error.to_string().contains("capacity of the batch"), "{error}");
    assert!(batch.try_next().is_none() && batch.next_timeout(Duration::from_millis(1)).is_none());

    // Answered from the last to the first.
    let mut requests = vec![server.recv().unwrap()];
    eventually("8 requests are there or taken", || {
        server.recv_batch(&mut requests, 3);
        requests.len() == 8
    });
    for request in requests.drain(..).rev() {
        request.reply.send(request.body).unwrap();
    }
    let mut ends = Vec::new();
    while ends.len() < 8 {
        ends.extend(batch.next());
        batch.take(&mut ends, 3);
    }
    let cookies: Vec<_> = ends.iter().map(|end| end.cookie).collect();
    assert_eq!(BTreeSet::from_iter(&cookies).len(), 8);
    for end in ends {
        assert_eq!(end.peer, to());
        assert_eq!(end.result.unwrap(), end.cookie.to_le_bytes());
    }
    assert!(batch.next().is_none(), "nothing is under way");
}

#[test]
fn a_cancelled_call_of_a_batch_ends_as_aborted_and_a_dropped_batch_leaves_nothing() {
    let (here, there) = pair();
    let server = there.bind(PORT).unwrap();
    let mut batch = here.client().unwrap().batch(8);
    let first = batch.submit(to(), "one", 1).unwrap();
    batch.submit(to(), "two", 2).unwrap();
    batch.cancel(first);
    let end = batch.next().unwrap();
    assert_eq!((end.cookie, end.result.unwrap_err()), (1, CallError::Failed { peer: to(), error: RpcError::Aborted }));
    drop(batch);
    eventually("calls stay", || rpcs(&here) == 0 && here.stats().calls == 0);
    assert_eq!(here.stats().calls_cancelled, 2);
    drop(server);
}

#[test]
fn a_dropped_future_aborts_its_rpc_before_while_and_after_the_response_comes() {
    let (here, there) = pair();
    let server = there.bind(PORT).unwrap();
    let client = here.client().unwrap();
    let mut context = Context::from_waker(Waker::noop());
    for polls in 0..2 {
        let mut call = Box::pin(client.start(to(), "x").unwrap());
        for _ in 0..polls {
            assert!(call.as_mut().poll(&mut context).is_pending());
        }
        let request = server.recv().unwrap();
        drop(call);
        eventually("the RPC stays", || rpcs(&here) == 0);
        // Its answer goes nowhere.
        request.reply.send("late").unwrap();
    }
    assert_eq!(here.stats().calls_cancelled, 2);
    let call = client.start(to(), "y").unwrap();
    server.recv().unwrap().reply.send(bytes(1, 100_000)).unwrap();
    eventually("no response", || call.is_done());
    drop(call);
    eventually("its pages stay", || is_quiet(&here));
    assert_eq!(here.stats().calls, 0);
    // Slots that were used again belong to the new calls alone.
    let calls: Vec<_> = (0..10_u8).map(|i| client.start(to(), &[i]).unwrap()).collect();
    (0..10).for_each(|_| {
        let request = server.recv().unwrap();
        request.reply.send(request.body).unwrap();
    });
    for (i, call) in calls.into_iter().enumerate() {
        assert_eq!(call.wait().unwrap(), [i as u8]);
    }
}

/// At each point where it can be dropped: before it was polled, while it waits, and when it was woken or handed a
/// request but has not run since.
#[test]
fn a_cancelled_receive_loses_neither_the_request_nor_the_turn() {
    for policy in [WakePolicy::Wake, WakePolicy::HandOff] {
        let (here, there) = pair();
        let server = there.bind_with(PORT, policy).unwrap();
        let client = here.client().unwrap();
        let mut calls = Vec::new();
        for waiting in [false, true] {
            let (wakes, other_wakes) = (Arc::new(CountWakes::default()), Arc::new(CountWakes::default()));
            let (waker, other_waker) = (wakes.clone().into(), other_wakes.clone().into());
            let mut context = Context::from_waker(&waker);
            drop(server.recv_async());
            {
                let mut quit = pin!(server.recv_async());
                assert!(quit.as_mut().poll(&mut context).is_pending());
            }
            // The one that began to wait last gets the request, and goes without it.
            let mut other = pin!(server.recv_async());
            if waiting {
                assert!(other.as_mut().poll(&mut Context::from_waker(&other_waker)).is_pending());
            }
            let mut last = Box::pin(server.recv_async());
            assert!(last.as_mut().poll(&mut context).is_pending());
            calls.push(client.start(to(), "x").unwrap());
            eventually("not woken", || wakes.0.load(Ordering::SeqCst) == 1);
            assert_eq!(other_wakes.0.load(Ordering::SeqCst), 0, "one request wakes one");
            if policy == WakePolicy::HandOff {
                assert!(server.try_recv().is_none(), "it is handed over");
            }
            drop(last);
            if waiting {
                assert_eq!(other_wakes.0.load(Ordering::SeqCst), 1, "{policy:?}: the next is told");
            }
            let Poll::Ready(request) = other.as_mut().poll(&mut context) else { panic!("{policy:?}: lost") };
            request.unwrap().reply.send("y").unwrap();
        }
        calls.into_iter().for_each(|call| drop(call.wait().unwrap()));
    }
}

#[test]
fn a_receive_that_times_out_as_the_request_comes_loses_nothing() {
    for policy in [WakePolicy::Wake, WakePolicy::HandOff] {
        let (here, there) = pair();
        let server = there.bind_with(PORT, policy).unwrap();
        let total = 400;
        let served = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while served.load(Ordering::SeqCst) < total {
                        if let Some(request) = server.recv_timeout(Duration::from_micros(30)).unwrap() {
                            served.fetch_add(1, Ordering::SeqCst);
                            request.reply.send(request.body).unwrap();
                        }
                    }
                });
            }
            let mut batch = here.client().unwrap().batch(4);
            let mut calls = (0..total as u64).map(|i| (to(), Payload::from(&[1]), i));
            batch.submit_all(calls.by_ref()).unwrap();
            let mut ended = BTreeSet::new();
            while let Some(end) = batch.next() {
                assert_eq!(end.result.unwrap(), [1]);
                assert!(ended.insert(end.cookie));
                batch.submit_all(calls.by_ref()).unwrap();
            }
            assert_eq!(ended.len(), total);
        });
    }
}

#[test]
fn a_reply_that_is_dropped_gives_the_request_up_and_is_counted() {
    let (here, there) = pair();
    let server = there.bind(PORT).unwrap();
    let call = here.client().unwrap().start(to(), "x").unwrap();
    drop(server.recv().unwrap());
    eventually("the server remembers the RPC", || rpcs(&there) == 0);
    assert_eq!(there.stats().replies_dropped, 1);
    assert!(!call.is_done());
}

#[test]
fn replies_that_can_not_be_sent_say_why_and_give_the_request_up() {
    let (here, there) = pair();
    let server = there.bind(PORT).unwrap();
    let client = here.client().unwrap();
    let _calls = [client.start(to(), "x").unwrap(), client.start(to(), "y").unwrap()];
    let error = server.recv().unwrap().reply.send("").unwrap_err();
    assert!(error.to_string().contains("10.0.0.1:") && error.to_string().contains("empty"), "{error}");
    assert!(server.recv().unwrap().reply.send(vec![0; 1_000_001]).is_err());
    assert_eq!(there.stats().replies_dropped, 2);
    let error = client.call(to(), "").unwrap_err();
    assert_eq!(error, CallError::NotSent { peer: to(), error: SendError::Empty });
}

#[test]
fn a_call_to_a_slow_server_ends_at_its_deadline_and_one_to_nobody_by_silence() {
    let (here, there) = start(RunnerConfig::default(), &Config::default());
    let server = there.bind(PORT).unwrap();
    let client = here.client().unwrap();
    let timeout = Duration::from_millis(300);
    let (slow, patient) = (client.start_timeout(to(), "x", Some(timeout)).unwrap(), client.start(to(), "y").unwrap());
    let error = slow.wait().unwrap_err();
    assert_eq!(error, CallError::Deadline { peer: to(), timeout });
    assert!(!patient.is_done(), "its time is not over, and the server is alive");
    assert_eq!((here.stats().calls_late, rpcs(&here)), (1, 1));
    drop(server);
    let nobody = SocketAddr::from(([10, 0, 0, 9], 1));
    let error = client.call(nobody, "x").unwrap_err();
    assert_eq!(error, CallError::Failed { peer: nobody, error: RpcError::TimedOut });
    assert!(error.to_string().contains("10.0.0.9:1"), "errors name the peer: {error}");
}

#[test]
fn calls_beyond_the_limit_are_refused_until_others_end() {
    let (here, there) = start(RunnerConfig { max_calls: 2, ..RunnerConfig::default() }, &patient());
    let server = there.bind(PORT).unwrap();
    let client = here.client().unwrap();
    let calls = [client.start(to(), "x").unwrap(), client.start(to(), "y").unwrap()];
    let error = client.start(to(), "z").unwrap_err();
    assert!(error.is_full() && error.to_string().contains("max_calls"), "{error}");
    assert_eq!(here.stats().calls_full, 1);
    for call in calls {
        server.recv().unwrap().reply.send("ok").unwrap();
        call.wait().unwrap();
    }
    drop(client.start(to(), "z").unwrap());
}

#[test]
fn calls_without_room_among_what_is_sent_wait_for_it_and_can_be_given_up_meanwhile() {
    let (here, there) = start(RunnerConfig::default(), &Config { tx_budget: 100_000, ..patient() });
    let server = there.bind(PORT).unwrap();
    let client = here.client().unwrap();
    let mut calls: Vec<_> = (0..9).map(|i| client.start(to(), bytes(i, 60_000)).unwrap()).collect();
    let late = client.start_timeout(to(), bytes(9, 60_000), Some(Duration::from_millis(20))).unwrap();
    eventually("a call waits", || here.with(|core| core.active_rpcs()).unwrap() == 1 && here.stats().calls == 10);
    assert!(matches!(late.wait().unwrap_err(), CallError::Deadline { .. }));
    drop(calls.remove(4));
    for _ in 0..8 {
        let request = server.recv().unwrap();
        request.reply.send(request.body).unwrap();
    }
    for (i, call) in [0, 1, 2, 3, 5, 6, 7, 8].into_iter().zip(calls) {
        assert!(call.wait().unwrap() == bytes(i, 60_000));
    }
    assert_eq!((here.stats().calls, here.stats().calls_late, here.stats().calls_cancelled), (0, 1, 1));
    assert_eq!(there.with(|core| core.metrics.requests_received).unwrap(), 8);
}

#[test]
fn bodies_that_are_kept_hold_senders_back_and_dropping_them_lets_them_go_on() {
    let (here, there) = start(RunnerConfig::default(), &Config { pool_pages: 4, ..patient() });
    let server = there.bind(PORT).unwrap();
    let client = here.client().unwrap();
    let calls: Vec<_> = (0..6).map(|i| client.start(to(), bytes(i, 131_072)).unwrap()).collect();
    let mut kept: Vec<_> = (0..2).map(|_| server.recv().unwrap()).collect();
    assert!(server.recv_timeout(Duration::from_millis(30)).unwrap().is_none(), "the pool has room for two");
    for _ in 2..6 {
        let request = kept.remove(0);
        assert_eq!(request.body.len(), 131_072);
        drop(request.body);
        request.reply.send("got it").unwrap();
        kept.push(server.recv().unwrap());
    }
    kept.drain(..).for_each(|request| request.reply.send("got it").unwrap());
    calls.into_iter().for_each(|call| assert_eq!(call.wait().unwrap(), "got it"));
}

#[test]
fn shutdown_fails_calls_ends_receives_and_sends_what_was_accepted() {
    let (here, there) = pair();
    let server = there.bind(PORT).unwrap();
    let client = here.client().unwrap();
    let (answered, not) = (client.start(to(), "x").unwrap(), client.start(to(), "y").unwrap());
    server.recv().unwrap().reply.send(bytes(3, 300_000)).unwrap();
    there.shutdown().unwrap();
    assert!(answered.wait().unwrap() == bytes(3, 300_000), "an accepted reply is sent, though it needs grants");
    let receiver = thread::spawn(move || {
        loop {
            if let Err(stopped) = server.recv() {
                return stopped;
            }
        }
    });
    assert_eq!(receiver.join().unwrap(), Stopped);
    let waiting = thread::spawn(move || not.wait());
    here.shutdown().unwrap();
    assert_eq!(waiting.join().unwrap().unwrap_err(), Stopped.into());
    assert_eq!(client.call(to(), "z").unwrap_err(), Stopped.into());
    assert!(here.client().is_err() && here.with(|_| ()).is_err());
}

#[test]
fn the_thread_ends_when_all_handles_are_gone() {
    let ended = Arc::new(Mutex::new(()));
    struct Watched(MemoryHost, #[expect(dead_code, reason = "dropped with the rest")] Arc<Mutex<()>>);
    impl Engine for Watched {
        fn now(&self) -> homa_stack::Instant {
            self.0.now()
        }
        fn core(&mut self) -> &mut Endpoint {
            self.0.core()
        }
        fn turn(&mut self) -> io::Result<()> {
            Engine::turn(&mut self.0)
        }
        fn wait(&mut self, until: Option<homa_stack::Instant>) -> io::Result<()> {
            Engine::wait(&mut self.0, until)
        }
        fn waker(&self) -> WakeEngine {
            Engine::waker(&self.0)
        }
    }
    let handle = Runner::spawn(Watched(memory::pair().0, ended.clone()), RunnerConfig::default()).unwrap();
    let (client, server) = (handle.client().unwrap(), handle.bind(PORT).unwrap());
    drop(handle);
    assert_eq!(Arc::strong_count(&ended), 2, "the client still needs it");
    drop((client, server));
    eventually("the thread stays", || Arc::strong_count(&ended) == 1);
}

#[test]
fn nobody_waits_for_a_thread_that_failed_or_panicked() {
    struct Broken(MemoryHost, bool);
    impl Engine for Broken {
        fn now(&self) -> homa_stack::Instant {
            self.0.now()
        }
        fn core(&mut self) -> &mut Endpoint {
            self.0.core()
        }
        fn turn(&mut self) -> io::Result<()> {
            if self.0.core().active_rpcs() > 0 {
                assert!(!self.1, "on purpose");
                return Err(io::Error::other("the cable is gone"));
            }
            Engine::turn(&mut self.0)
        }
        fn wait(&mut self, until: Option<homa_stack::Instant>) -> io::Result<()> {
            Engine::wait(&mut self.0, until)
        }
        fn waker(&self) -> WakeEngine {
            Engine::waker(&self.0)
        }
    }
    for panics in [false, true] {
        let handle = Runner::spawn(Broken(memory::pair().0, panics), RunnerConfig::default()).unwrap();
        let server = handle.bind(PORT).unwrap();
        let receiver = thread::spawn(move || server.recv().map(drop));
        let call = handle.client().unwrap().start(to(), "x").unwrap();
        assert_eq!(call.wait().unwrap_err(), Stopped.into());
        assert_eq!(receiver.join().unwrap(), Err(Stopped));
        let error = handle.shutdown().unwrap_err().to_string();
        assert!(error.contains(if panics { "panicked" } else { "cable" }), "{error}");
    }
}

#[test]
fn a_port_is_taken_until_its_server_is_gone_whose_last_replies_still_arrive() {
    let (here, there) = pair();
    let client = here.client().unwrap();
    let server = there.bind(PORT).unwrap();
    let again = server.clone();
    assert_eq!(there.bind(PORT).unwrap_err(), BindError::Port(SendError::PortInUse(PORT)));
    assert_eq!(there.bind(0).unwrap_err(), BindError::Port(SendError::BadPort(0)));
    drop(server);
    let (call, untaken) = (client.start(to(), "x").unwrap(), client.start(to(), "y").unwrap());
    let request = again.recv().unwrap();
    eventually("two RPCs", || there.with(|core| core.metrics.requests_received).unwrap() == 2);
    drop(again);
    request.reply.send("answered").unwrap();
    assert_eq!(call.wait().unwrap(), "answered");
    eventually("an untaken request stays", || rpcs(&there) == 0);
    assert!(!untaken.is_done());
    let server = there.bind(PORT).unwrap();
    let call = client.start(to(), "z").unwrap();
    server.recv().unwrap().reply.send("ok").unwrap();
    assert_eq!(call.wait().unwrap(), "ok");
}

/// A body outlives everything: batch, client, handle and thread.
#[test]
fn a_body_outlives_the_thread_that_received_it() {
    let (here, there) = pair();
    let server = there.bind(PORT).unwrap();
    let call = here.client().unwrap().start(to(), bytes(1, 100_000)).unwrap();
    let body: Body = server.recv().unwrap().body;
    drop((call, server));
    here.shutdown().unwrap();
    there.shutdown().unwrap();
    assert!(body == bytes(1, 100_000));
}

/// A client that a test drives by hand, and a server in a thread of its own.
fn by_hand(homa: &Config, len: usize) -> (MemoryHost, Handle, Vec<u8>) {
    let (mut client, there) = memory::pair_with(homa);
    let there = Runner::spawn(there, RunnerConfig::default()).unwrap();
    let port = client.core().client_port().unwrap();
    let (now, message) = (client.now(), bytes(1, len));
    client.core().call(now, port, to(), Payload::from(message.clone()), 0).unwrap();
    (client, there, message)
}

#[test]
fn a_request_is_read_while_it_arrives_and_answered_when_it_is_whole() {
    for read_all in [false, true] {
        let (mut client, there, message) = by_hand(&patient(), 700_000);
        let server = there.bind_early(PORT).unwrap();
        client.turn(); // the first packets, no more
        let mut incoming = server.recv().unwrap();
        assert_eq!((incoming.len(), incoming.peer().ip(), incoming.port()), (700_000, memory::ADDRS[0], PORT));
        let mut header = [0; 10_000];
        incoming.read_exact(&mut header).unwrap();
        assert!(header == message[..10_000]);
        let driving = thread::spawn(move || {
            loop {
                client.turn();
                match client.core().poll_event() {
                    Some(Event::Response { msg, .. }) => {
                        let len = msg.len();
                        client.core().release(msg);
                        return len;
                    }
                    Some(other) => panic!("{other:?}"),
                    None => client.wait(None),
                }
            }
        });
        if read_all {
            let mut rest = Vec::new();
            let mut piece = [0; 3001];
            loop {
                match incoming.read(&mut piece).unwrap() {
                    0 => break,
                    n => rest.extend_from_slice(&piece[..n]),
                }
            }
            assert!(rest == message[10_000..]);
        }
        let request = incoming.finish().unwrap();
        assert!(request.body == message, "the body has all of it, whatever was read");
        drop(request.body);
        request.reply.send("thanks").unwrap();
        assert_eq!(driving.join().unwrap(), 6);
    }
}

#[test]
fn a_request_that_is_cut_off_gives_what_came_and_then_an_error() {
    let (mut client, there, message) = by_hand(&Config::default(), 700_000);
    let server = there.bind_early(PORT).unwrap();
    client.turn();
    let mut incoming = server.recv().unwrap();
    drop(client);
    let mut read = Vec::new();
    let error = incoming.read_to_end(&mut read).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(!read.is_empty() && read == message[..read.len()]);
    assert_eq!(incoming.finish().unwrap_err(), homa_stack::api::Cut);
    eventually("state or pages stay", || is_quiet(&there));
}

#[test]
fn early_requests_that_nobody_wants_leave_nothing() {
    let (here, there) = pair();
    let server = there.bind_early(PORT).unwrap();
    let client = here.client().unwrap();
    let calls: Vec<_> = (0..20).map(|i| client.start(to(), bytes(i, 1 + i * 20_000)).unwrap()).collect();
    for i in 0..10 {
        let mut incoming = server.recv().unwrap();
        match i % 3 {
            0 => drop(incoming),
            1 => incoming.read_exact(&mut [0]).unwrap(),
            _ => drop(incoming.finish().unwrap()),
        }
    }
    eventually("all have come", || there.with(|core| core.metrics.requests_received).unwrap() == 20);
    drop(server);
    eventually("state or pages stay", || is_quiet(&there));
    drop(calls);
}

#[cfg(feature = "driver")]
mod readiness {
    use super::*;
    use std::os::fd::{AsFd, BorrowedFd};

    fn is_readable(fd: BorrowedFd<'_>) -> bool {
        let mut polled = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut polled, Some(&rustix::event::Timespec::default())).unwrap() == 1
    }

    #[test]
    fn descriptors_stay_readable_until_all_is_taken() {
        let (here, there) = pair();
        let server = there.bind(PORT).unwrap();
        let mut batch = here.client().unwrap().batch(8);
        assert!(!is_readable(batch.readiness().unwrap()));
        batch.submit_all((0..3).map(|i| (to(), Payload::from("x"), i))).unwrap();
        eventually("three requests", || there.with(|core| core.metrics.requests_received).unwrap() == 3);
        // Asked for late: what has come already counts.
        let fd = server.readiness().unwrap();
        for _ in 0..3 {
            assert!(is_readable(fd) && is_readable(fd));
            server.try_recv().unwrap().reply.send("y").unwrap();
        }
        assert!(!is_readable(fd));
        eventually("three ends", || here.stats().calls == 0 && is_readable(batch.readiness().unwrap()));
        for _ in 0..3 {
            assert!(is_readable(batch.readiness().unwrap().as_fd()));
            batch.try_next().unwrap().result.unwrap();
        }
        assert!(!is_readable(batch.readiness().unwrap()));
    }
}
