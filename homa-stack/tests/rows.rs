//! Whom grants by age reach and how often, grants out of order, many losses at once, and wrong arguments.

mod net;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use homa_stack::wire::{Ends, Grant, Kind, Packet};
use homa_stack::{Config, Endpoint, Event, Instant, Limit, Nanos, Payload, SendError};
use net::{Net, Rng, addr};

fn config() -> Config {
    Config::default()
}

/// A client with a port, and its server.
fn pair(client: Config, server: Config) -> (Endpoint, Endpoint, u16) {
    let (mut client, mut server) = (Endpoint::new(client), Endpoint::new(server));
    server.bind(net::PORT).unwrap();
    let port = client.client_port().unwrap();
    (client, server, port)
}

fn server() -> SocketAddr {
    SocketAddr::new(addr(1), net::PORT)
}

/// All that `from`, which is `host`, has to send now; returns how much that was.
fn deliver(now: Instant, from: &mut Endpoint, host: usize, to: &mut Endpoint) -> usize {
    let mut packet = [0; 1500];
    let mut sent = 0;
    while let Some(transmit) = from.poll_transmit(now, &mut packet) {
        to.handle_packet(now, addr(host), &packet[..transmit.len]);
        sent += 1;
    }
    sent
}

/// When the oldest message, which is the longest, was granted to while 400 shorter ones took the only slot.
fn grants_to_the_oldest(policy: Config) -> Vec<Instant> {
    let receiver = Config { max_overcommit: 1, unsched_bytes: 10_000, ..policy };
    let sender = Config { unsched_bytes: 10_000, ..config() };
    let mut net = Net::with(vec![sender.clone(), sender, receiver]);
    let grants = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&grants);
    net.fate = Box::new(move |sent| {
        if (sent.to, sent.kind) == (0, Kind::Grant) {
            seen.borrow_mut().push(sent.at);
        }
        vec![Nanos::ZERO]
    });
    net.call(0, 2, 1_000_000);
    net.run_for(Nanos::from_micros(1));
    (0..400).for_each(|_| _ = net.call(1, 2, 100_000));
    let soon = net.now + Nanos::from_micros(100);
    net.run_for(Nanos::from_micros(1_700));
    assert!(net.done.len() < 390, "the slot is never free, {} are done", net.done.len());
    // It was alone for a moment.
    grants.take().into_iter().filter(|at| *at > soon).collect()
}

#[test]
fn grants_by_age_reach_messages_that_have_no_slot() {
    let grants = grants_to_the_oldest(config());
    assert!((4..=5).contains(&grants.len()), "one each 320 us: {grants:?}");
    assert_eq!(grants_to_the_oldest(Config { grant_fifo_fraction: 0, ..config() }), []);
}

#[test]
fn grants_by_age_come_as_often_by_an_interval_as_by_the_share_that_makes_it() {
    let interval = Config { fifo_grant_interval: Nanos::from_micros(320), link_mbps: 1_000, ..config() };
    let grants = grants_to_the_oldest(interval.clone());
    assert_eq!(grants, grants_to_the_oldest(config()));
    let twice = grants_to_the_oldest(Config { fifo_grant_interval: Nanos::from_micros(160), ..interval });
    assert!(twice.len() >= 2 * grants.len() - 1, "{twice:?}");
}

#[test]
fn grants_out_of_order_set_neither_limit_nor_priority() {
    let (mut client, mut host, port) = pair(config(), config());
    let now = Instant::from_nanos(1_000_000);
    let id = client.call(now, port, server(), Payload::from(vec![1; 100_000]), 0).unwrap();
    deliver(now, &mut client, 0, &mut host);
    let mut packet = [0; 1500];
    for (offset, priority, level, stale) in
        [(60_000, 3, 3, 0), (50_000, 1, 3, 1), (70_000, 2, 2, 1), (60_000, 3, 2, 2), (70_000, 0, 0, 3)]
    {
        let ends = Ends { sport: net::PORT, dport: port, sender_id: id.get() ^ 1 };
        let len = Grant { offset, priority }.write(ends, &mut packet);
        client.handle_packet(now, addr(1), &packet[..len]);
        let sent = client.poll_transmit(now, &mut packet).expect("more is granted than one packet holds");
        assert_eq!(sent.priority.get(), level, "after a grant up to {offset} at level {priority}");
        assert_eq!(client.metrics.stale_grants, stale);
    }
    let mut last = 0;
    while let Some(sent) = client.poll_transmit(now, &mut packet) {
        let Ok((_, Packet::Data(data))) = Packet::parse(&packet[..sent.len]) else { continue };
        last = data.offset;
    }
    assert!((68_000..70_000).contains(&last), "the last packet begins at {last}, granted were 70,000");
}

/// All at once, not one after another: within three intervals of RESENDs from the last loss on.
#[test]
fn losses_of_a_thousand_rpcs_to_one_server_are_repaired_at_once() {
    for (window, early) in [(Nanos::from_micros(200), true), (Nanos::ZERO, false)] {
        let settings = Config { reorder_window: window, early_resend: early, ..config() };
        let mut net = Net::new(2, &settings);
        let (mut rng, last) = (Rng::new(18), Rc::new(Cell::new((Instant::default(), 0))));
        let lost = Rc::clone(&last);
        let faulty = net.now + Nanos::from_millis(3);
        net.fate = Box::new(move |sent| {
            if sent.at >= faulty || !rng.chance(0.05) {
                return vec![Nanos::ZERO];
            }
            lost.set((sent.at, lost.get().1 + 1));
            vec![]
        });
        (0..1_000).for_each(|_| _ = net.call(0, 1, 5_000));
        net.run_for(Nanos::from_millis(200));
        let (at, losses) = last.get();
        assert!(losses > 200 && net.done.len() == 1_000, "{losses} packets lost, {} calls done", net.done.len());
        let end = net.done_at.values().max().unwrap().since(at);
        assert!(end < Nanos::from_millis(15), "the last call ended {end:?} after the last loss");
        net.assert_settled("a thousand");
    }
}

#[test]
fn arguments_that_can_not_be_are_refused_at_once_and_leave_nothing() {
    let (mut client, mut host, port) = pair(Config { max_outstanding: 1, ..config() }, config());
    let now = Instant::from_nanos(1_000_000);
    let call = |client: &mut Endpoint, from, len: usize| {
        client.call(now, from, server(), Payload::from(vec![1; len]), 0).map(|_| ())
    };
    assert_eq!(call(&mut client, port, 0), Err(SendError::Empty));
    assert_eq!(call(&mut client, port, 1_000_001), Err(SendError::TooLong { len: 1_000_001, max: 1_000_000 }));
    assert_eq!(call(&mut client, port + 1, 1), Err(SendError::NotBound(port + 1)));
    assert_eq!(host.bind(net::PORT), Err(SendError::PortInUse(net::PORT)));
    assert_eq!(host.bind(40_000), Err(SendError::BadPort(40_000)));
    assert!(client.is_quiet() && client.poll_event().is_none());
    assert_eq!(call(&mut client, port, 1), Ok(()));
    assert_eq!(call(&mut client, port, 1), Err(SendError::WouldBlock(Limit::Port(port))));
    deliver(now, &mut client, 0, &mut host);
    let Some(Event::Request { rpc, msg, .. }) = host.poll_event() else { panic!("a request has come") };
    host.release(msg);
    assert_eq!(host.reply(now, rpc, Payload::from(vec![])), Err(SendError::Empty));
    assert_eq!((host.active_rpcs(), host.poll_event().is_none()), (0, true), "the request is given up");
}
