//! Whom grants by age reach and how often, where grants end, grants out of order, many losses at once, source ports,
//! rates, copies, and wrong arguments.

mod net;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use homa_stack::wire::{Cutoffs, Ends, Grant, Kind, Packet};
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

#[test]
fn the_first_message_to_an_acquainted_peer_has_its_level() {
    let (mut client, _, port) = pair(config(), config());
    let level = |client: &mut Endpoint| {
        client.call(Instant::default(), port, server(), Payload::from(vec![1; 100]), 0).unwrap();
        client.poll_transmit(Instant::default(), &mut [0; 1500]).unwrap().priority.get()
    };
    assert_eq!(level(&mut client), 6, "what strangers get");
    client.acquaint(addr(1), &Cutoffs { table: [u32::MAX, 0, 0, 1_000_000, 99, 0, 0, 0], version: 2 });
    assert_eq!(level(&mut client), 3);
}

/// When the oldest message, which is the longest, was granted to while 400 shorter ones took the only slot.
fn grants_to_the_oldest(policy: Config) -> Vec<Instant> {
    let receiver = Config { max_overcommit: 1, unsched_bytes: 10_000, ..policy };
    let sender = Config { unsched_bytes: 10_000, ..config() };
    let mut net = Net::with(vec![sender.clone(), sender, receiver]);
    let grants = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&grants);
    net.fate = Box::new(move |sent| {
        if let (0, Packet::Grant(grant)) = (sent.to, sent.packet) {
            seen.borrow_mut().push((sent.at, grant.priority));
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
    let late = grants.take().into_iter().filter(|(at, _)| *at > soon);
    late.inspect(|(_, level)| assert_eq!(*level, 6, "the highest level but one")).map(|(at, _)| at).collect()
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

/// A host that does not answer has one grant by age and no more until it has used that up.
#[test]
fn a_silent_sender_has_one_grant_by_age_and_the_next_oldest_has_those_that_follow() {
    let receiver = Config { max_overcommit: 1, window: 10_000, unsched_bytes: 10_000, ..config() };
    let sender = Config { unsched_bytes: 10_000, ..config() };
    let mut net = Net::with(vec![sender.clone(), sender.clone(), sender, receiver]);
    let by_age = Rc::new(RefCell::new([0; 3]));
    let (seen, level) = (Rc::clone(&by_age), config().num_priorities - 2);
    net.fate = Box::new(move |sent| {
        if let Packet::Grant(grant) = sent.packet
            && grant.priority == level
        {
            seen.borrow_mut()[sent.to] += 1;
        }
        vec![Nanos::ZERO]
    });
    // The shortest has the only slot for a while.
    net.call(0, 3, 900_000);
    net.run_for(Nanos::from_micros(5));
    net.call(1, 3, 800_000);
    net.run_for(Nanos::from_micros(5));
    net.call(2, 3, 700_000);
    net.run_for(Nanos::from_micros(100));
    net.alive[0] = false;
    net.run_for(Nanos::from_millis(3));
    let [silent, next, _] = *by_age.borrow();
    assert!(silent == 1 && next >= 3, "{silent} grants by age to the silent host, {next} to the next oldest");
}

/// The first limit a sender sets itself, the last is the end; all others are ends of its packets, whatever its MTU.
#[test]
fn grants_end_where_packets_of_the_sender_end() {
    for (mtu, window, fits) in [(1500, 0, true), (1200, 0, true), (9000, 0, true), (9000, 50_000, false)] {
        let mut net = Net::with(vec![Config { mtu, ..config() }, Config { window, ..config() }]);
        let (limits, packets) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new())));
        let (granted, sent_ends) = (Rc::clone(&limits), Rc::clone(&packets));
        net.fate = Box::new(move |sent| {
            match sent.packet {
                Packet::Grant(grant) if sent.to == 0 => granted.borrow_mut().push(grant.offset as usize),
                Packet::Data(data) if sent.from == 0 => {
                    sent_ends.borrow_mut().push(data.offset as usize + data.bytes.len());
                }
                _ => {}
            }
            vec![Nanos::ZERO]
        });
        net.response_len = Some(1);
        net.call(0, 1, 500_000);
        net.run_for(Nanos::from_millis(50));
        net.assert_settled("frames");
        let (limits, packets) = (limits.take(), packets.take());
        let within = limits.iter().filter(|limit| !packets.contains(limit)).count();
        assert!(limits.len() >= 3, "{limits:?}");
        // Packets that are more than an eighth of a window leave grants as they are.
        assert!(if fits { within == 0 } else { within > 0 }, "MTU {mtu}: {within} limits within packets: {limits:?}");
    }
}

/// Each call from a port of its own, to servers and by networks that know nothing of it.
#[test]
fn calls_come_from_many_ports_if_they_may_and_are_answered_all_the_same() {
    for vary_ports in [false, true] {
        let mut net = Net::with(vec![Config { vary_ports, ..config() }, config()]);
        let ports = Rc::new(RefCell::new(std::collections::BTreeMap::<u64, Vec<u16>>::new()));
        let (seen, mut rng) = (Rc::clone(&ports), Rng::new(2));
        net.fate = Box::new(move |sent| {
            if sent.from == 0 && sent.kind == Kind::Data {
                seen.borrow_mut().entry(sent.ends.sender_id).or_default().push(sent.ends.sport);
            }
            if rng.chance(0.05) { vec![] } else { vec![Nanos::ZERO] }
        });
        (0..200).for_each(|_| _ = net.call(0, 1, 20_000));
        net.run_for(Nanos::from_secs(20));
        assert_eq!(net.done.len(), 200);
        net.assert_settled("many ports");
        let of_calls: Vec<_> = ports.take().into_values().collect();
        assert!(of_calls.iter().all(|all| all.iter().all(|port| *port == all[0])), "a call keeps its port");
        let different: std::collections::BTreeSet<_> = of_calls.iter().map(|all| all[0]).collect();
        assert!(if vary_ports { different.len() > 190 } else { different.len() == 1 }, "{} ports", different.len());
        assert!(different.iter().all(|port| *port >= 32_768));
    }
}

/// When each packet of a long message goes, and how long the link takes for it.
fn departures(link_mbps: u64, max_link_usage: u32) -> Vec<Instant> {
    let (mut client, mut host, port) =
        pair(Config { pacing: true, link_mbps, max_link_usage, unsched_bytes: 300_000, ..config() }, config());
    let (mut now, mut packet, mut sent) = (Instant::from_nanos(1_000_000), [0; 1500], Vec::new());
    client.call(now, port, server(), Payload::from(vec![1; 300_000]), 0).unwrap();
    while host.poll_event().is_none() {
        while let Some(transmit) = client.poll_transmit(now, &mut packet) {
            host.handle_packet(now, addr(0), &packet[..transmit.len]);
            sent.push(now);
        }
        now = client.next_deadline().expect("packets wait for the link, or the response is waited for");
        client.handle_timeout(now);
    }
    sent
}

/// Another way to leave part of a link to others: say that it is slower than it is.
#[test]
fn a_link_used_by_40_percent_is_one_of_40_percent_of_the_rate() {
    let (share, slower) = (departures(25_000, 40), departures(10_000, 100));
    assert_eq!(share, slower);
    let took = share[share.len() - 1].since(share[0]).as_nanos() as f64;
    let all_of_it = departures(25_000, 100);
    let least = all_of_it[all_of_it.len() - 1].since(all_of_it[0]).as_nanos() as f64;
    assert!((2.4..2.6).contains(&(took / least)), "{took} ns, with all of the link {least} ns");
}

/// Into the packet, and from the packet to its place; not even into the packet by devices that send it from where it
/// lies.
#[test]
fn each_byte_is_copied_once_on_either_side_at_most() {
    const LEN: usize = 500_000;
    for most in [usize::MAX, 200] {
        let (mut client, mut host, port) = pair(Config { unsched_bytes: LEN, ..config() }, config());
        let now = Instant::from_nanos(1_000_000);
        client.call(now, port, server(), Payload::from(net::message(1, LEN)), 0).unwrap();
        let mut packet = [0; 1500];
        while let Some(sent) = client.poll_gather(now, &mut packet, most) {
            let [head, body] = client.gathered(&sent).0;
            let at = sent.len - sent.gathered;
            let whole = [&packet[..at], head, body].concat();
            host.handle_packet(now, addr(0), &whole);
        }
        let Some(Event::Request { msg, .. }) = host.poll_event() else { panic!("a request has come") };
        assert!(host.pieces(&msg).flatten().eq(&net::message(1, LEN)));
        let into_packets = if most == usize::MAX { LEN as u64 } else { client.metrics.tx_copied_bytes };
        assert!(into_packets <= LEN as u64 && (most == usize::MAX || into_packets < 200), "{into_packets} bytes");
        assert_eq!((client.metrics.tx_copied_bytes, host.metrics.rx_copied_bytes), (into_packets, LEN as u64));
        host.release(msg);
    }
}

#[test]
fn ids_and_client_ports_begin_where_the_host_says() {
    let of = |first_id, first_port| {
        let (mut client, _, port) = pair(Config { first_id, first_port, ..config() }, config());
        let now = Instant::from_nanos(1_000_000);
        (port, client.call(now, port, server(), Payload::from(vec![1]), 0).unwrap().get())
    };
    assert_eq!([of(2, 32_768), of(1_000_001, 41_234)], [(32_768, 2), (41_234, 1_000_000)]);
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
