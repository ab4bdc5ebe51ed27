//! The application's interface to hosts of several workers, joined by memory: no privileges, real threads.

use std::io::Read;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use homa_stack::api::{Group, RunnerConfig, Stopped, WakePolicy};
use homa_stack::device::memory;
use homa_stack::{Config, Payload, RpcError};

const PORT: u16 = 7;

fn to() -> SocketAddr {
    (memory::ADDRS[1], PORT).into()
}

/// Two hosts of so many workers. Nothing ends because somebody was slow.
fn groups(workers: [usize; 2], config: &RunnerConfig) -> [Group; 2] {
    let homa = Config { timeout_ticks: 20_000, resend_ticks: 50, ..Config::default() };
    memory::groups(&homa, workers).map(|hosts| Group::spawn(hosts, config).unwrap())
}

fn sleepy() -> RunnerConfig {
    RunnerConfig { poll: Duration::ZERO, ..RunnerConfig::default() }
}

/// Waits until `done`; panics with `what` after 20 s.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn is_quiet(group: &Group) -> bool {
    group.workers().iter().all(|worker| worker.with(|core| core.is_quiet()).unwrap())
}

fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + seed * 7 + (i >> 8)) as u8).collect()
}

#[test]
fn all_workers_carry_calls_and_each_reply_finds_its_way() {
    for (workers, policy) in [([2, 3], WakePolicy::Wake), ([3, 1], WakePolicy::HandOff), ([1, 2], WakePolicy::Wake)] {
        let [here, there] = groups(workers, &sleepy());
        let server = there.bind_with(PORT, policy).unwrap();
        assert_eq!(server.port(), PORT);
        let servers: Vec<_> = (0..2)
            .map(|_| server.clone())
            .map(|server| {
                thread::spawn(move || {
                    while let Ok(request) = server.recv() {
                        let _ = request.reply.send(request.body);
                    }
                })
            })
            .collect();
        let client = here.client().unwrap();
        let lengths = [1, 1400, 10_000, 65_536, 150_000];
        thread::scope(|scope| {
            for caller in 0..3 {
                let client = &client;
                scope.spawn(move || {
                    for i in 0..60 {
                        let message = bytes(caller * 1000 + i, lengths[(i + caller) % lengths.len()]);
                        let answer = match i % 3 {
                            0 => client.call(to(), &message[..]),
                            1 => pollster::block_on(client.start(to(), &message[..]).unwrap()),
                            _ => client.start(to(), message.clone()).unwrap().wait(),
                        };
                        assert!(answer.unwrap() == message, "{workers:?}, caller {caller}, call {i}");
                    }
                });
            }
        });
        let received: Vec<u64> =
            there.workers().iter().map(|worker| worker.with(|core| core.metrics.requests_received).unwrap()).collect();
        assert_eq!(received.iter().sum::<u64>(), 180);
        // Threads that call one at a time, to the worker with fewer calls: no share is exact.
        assert!(received.iter().all(|n| *n > 5), "{workers:?}: {received:?}");
        eventually("state or pages stay", || is_quiet(&here) && is_quiet(&there));
        assert_eq!((here.stats().calls, there.stats().replies_dropped), (0, 0));
        there.shutdown().unwrap();
        servers.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(server.recv().unwrap_err(), Stopped);
    }
}

#[test]
fn calls_are_spread_evenly_and_refused_when_all_workers_are_full() {
    let [here, there] = groups([3, 2], &RunnerConfig { max_calls: 5, ..sleepy() });
    let server = there.bind(PORT).unwrap();
    let client = here.client().unwrap();
    let calls: Vec<_> = (0..15).map(|i| client.start(to(), bytes(i, 3000)).unwrap()).collect();
    let under_way: Vec<_> = here.workers().iter().map(|worker| worker.stats().calls).collect();
    assert_eq!(under_way, [5, 5, 5]);
    assert!(client.start(to(), "more").unwrap_err().is_full());
    assert_eq!(here.stats().calls_full, 1);

    // One worker's calls end: the next ones are its own.
    let mut requests: Vec<_> = (0..15).map(|_| server.recv().unwrap()).collect();
    requests.drain(..).for_each(|request| request.reply.send(request.body).unwrap());
    let mut calls = calls.into_iter().enumerate();
    let kept = calls.next_back();
    calls.for_each(|(i, call)| assert!(call.wait().unwrap() == bytes(i, 3000)));
    drop(kept);
    eventually("calls that have ended stay", || here.stats().calls == 0);
    drop((client, server));
    eventually("state stays", || is_quiet(&here) && is_quiet(&there));
}

#[test]
fn a_batch_over_workers_gives_each_end_once_cancels_the_right_call_and_leaves_nothing() {
    let [here, there] = groups([2, 2], &sleepy());
    let server = there.bind(PORT).unwrap();
    let mut batch = here.client().unwrap().batch(10);
    let payload = |i: u64| Payload::from(&i.to_le_bytes());
    assert_eq!(batch.submit_all((0..8).map(|i| (to(), payload(i), i))).unwrap(), 8);
    let cancelled = [batch.submit(to(), payload(8), 8).unwrap(), batch.submit(to(), payload(9), 9).unwrap()];
    let mut requests: Vec<_> = (0..10).map(|_| server.recv().unwrap()).collect();
    cancelled.into_iter().for_each(|id| batch.cancel(id));
    for _ in 0..2 {
        let end = batch.next().unwrap();
        assert!(end.cookie >= 8 && end.result.unwrap_err().to_string().contains(&RpcError::Aborted.to_string()));
    }
    // Two workers' requests come in any order.
    for request in requests.extract_if(.., |request| (0..6).any(|i: u64| request.body == i.to_le_bytes())) {
        request.reply.send(request.body).unwrap();
    }
    for _ in 0..6 {
        let end = batch.next().unwrap();
        assert_eq!(end.result.unwrap(), end.cookie.to_le_bytes());
    }
    // The others are given up on both workers.
    assert_eq!(batch.open(), 2);
    drop(batch);
    eventually("dropped calls stay", || here.stats().calls == 0);
    drop((requests, server));
    eventually("state stays", || is_quiet(&here) && is_quiet(&there));
}

#[test]
fn requests_that_nobody_takes_are_given_up_by_the_workers_that_have_them() {
    let [here, there] = groups([1, 3], &sleepy());
    let server = there.bind(PORT).unwrap();
    let client = here.client().unwrap();
    let calls: Vec<_> = (0..12).map(|i| client.start(to(), bytes(i, 2000)).unwrap()).collect();
    let received = || {
        let received = |worker: &homa_stack::api::Handle| worker.with(|core| core.metrics.requests_received).unwrap();
        there.workers().iter().map(received).sum::<u64>()
    };
    eventually("not all requests came", || received() == 12);
    let taken = server.recv().unwrap();
    drop(server);
    eventually("requests stay", || there.stats().requests_unserved == 11);
    let each: Vec<_> = there.workers().iter().map(|worker| worker.stats().requests_unserved).collect();
    assert!(each.iter().all(|n| (3..=4).contains(n)), "{each:?}");
    // The one that was taken can still be answered.
    taken.reply.send(taken.body).unwrap();
    eventually("no answer", || calls.iter().any(|call| call.is_done()));
    drop((calls, client));
    eventually("state stays", || is_quiet(&here) && is_quiet(&there));
}

#[test]
fn a_port_that_is_taken_at_one_worker_is_taken_at_none() {
    let [group, _other] = groups([3, 1], &sleepy());
    let one = group.workers()[1].bind(PORT).unwrap();
    assert!(group.bind(PORT).is_err());
    // Those before and after it are free, and it still has its own.
    assert!(group.workers()[0].bind(PORT).is_ok() && group.workers()[2].bind(PORT).is_ok());
    assert!(group.workers()[1].bind(PORT).is_err());
    drop(one);
    assert!(group.bind(PORT).is_ok());
}

#[test]
fn requests_to_any_worker_are_read_while_they_arrive() {
    let [here, there] = groups([1, 2], &sleepy());
    let server = there.bind_early(PORT).unwrap();
    let client = here.client().unwrap();
    let calls: Vec<_> = (0..4).map(|i| client.start(to(), bytes(i, 400_000)).unwrap()).collect();
    for _ in 0..4 {
        let mut incoming = server.recv().unwrap();
        let mut all = vec![0; 300_000];
        incoming.read_exact(&mut all).unwrap();
        let request = incoming.finish().unwrap();
        assert!(request.body.copy_to(0, &mut all) == 300_000);
        request.reply.send(request.body).unwrap();
    }
    for (i, call) in calls.into_iter().enumerate() {
        assert!(call.wait().unwrap() == bytes(i, 400_000));
    }
    drop((server, client));
    eventually("state stays", || is_quiet(&here) && is_quiet(&there));
}
