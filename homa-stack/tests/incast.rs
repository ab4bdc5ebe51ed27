//! A hundred servers that answer one client at once, through a link with a queue of limited length.

mod net;

use std::cell::RefCell;
use std::rc::Rc;

use homa_stack::{Config, Nanos};
use net::{Links, Net};

const SERVERS: usize = 100;
/// What the queue in front of the client's link holds.
const BUFFER: usize = 200_000;

/// Requests to all servers at once for `len` bytes each; packets dropped, the longest queue and the time it took.
fn incast(config: &Config, len: usize, rounds: usize) -> (usize, usize, Nanos, Net) {
    let mut net = Net::new(SERVERS + 1, config);
    let links = Rc::new(RefCell::new(Links::new(SERVERS + 1, 10.0, BUFFER)));
    let shared = links.clone();
    net.fate = Box::new(move |sent| shared.borrow_mut().pass(sent).into_iter().collect());
    net.response_len = Some(len);
    let begin = net.now;
    for _ in 0..rounds {
        (1..=SERVERS).for_each(|server| _ = net.call(0, server, 100));
    }
    net.run_for(Nanos::from_secs(2));
    assert_eq!(net.done.len(), rounds * SERVERS);
    let last = net.done_at.values().max().unwrap().since(begin);
    let links = links.borrow();
    (links.dropped, links.longest, last, net)
}

#[test]
fn an_incast_of_a_hundred_to_one_loses_nothing_and_keeps_the_link_busy() {
    for (len, rounds) in [(40_000, 1), (10_000, 4), (1_000, 10)] {
        let (dropped, ..) = incast(&Config::default(), len, rounds);
        assert_eq!(dropped > 0, len * SERVERS * rounds > 4 * BUFFER, "{dropped} packets are lost without a limit");
        let limited = Config { incast_bytes: 150_000, ..Config::default() };
        let (dropped, longest, took, mut net) = incast(&limited, len, rounds);
        assert_eq!(dropped, 0, "{len} bytes");
        // 8 bits a byte at 10 Gbit/s; headers and a first look at each server come on top.
        let least = (len * SERVERS * rounds) as u64 * 8 / 10;
        println!("{len} bytes, {rounds} rounds: queue {longest} bytes, {took:?} of at least {least} ns");
        assert!(longest <= BUFFER && took.as_nanos() < least * 3 / 2 + 500_000, "{took:?} of at least {least} ns");
        assert_eq!(net.hosts.iter().map(|host| host.metrics.resent_packets).sum::<u64>(), 0);
        net.assert_settled("incast");
    }
}

/// They are out of the count, or others would wait for them.
#[test]
fn slow_servers_do_not_hold_up_other_requests() {
    let mut net = Net::new(3, &Config { incast_bytes: 50_000, ..Config::default() });
    net.service = Nanos::from_millis(80);
    (0..3).for_each(|_| _ = net.call(0, 1, 100));
    net.run_for(Nanos::from_millis(30));
    net.service = Nanos::ZERO;
    let quick = net.call(0, 2, 100);
    net.run_for(Nanos::from_millis(1));
    assert!(net.done.contains_key(&quick), "the first three are still served");
    net.run_for(Nanos::from_secs(1));
    assert_eq!(net.done.len(), 4);
    net.assert_settled("slow servers");
}
