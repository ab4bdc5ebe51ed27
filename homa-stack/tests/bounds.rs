//! What others can make an endpoint keep is bounded, and so is what its application leaves undone.

mod net;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use homa_stack::metrics::DropReason;
use homa_stack::wire::{Data, Ends, Kind, OffsetForm, RESEND_ALL, Resend, write_bare};
use homa_stack::{Config, Endpoint, Event, Instant, Nanos, Payload, RpcError};
use net::{Net, PORT, addr};

/// A whole request of `len` bytes, as its client `id` sends it.
fn request(id: u64, len: usize) -> Vec<u8> {
    let mut packet = vec![0; 60 + len];
    let data = Data {
        message_len: len as u32,
        incoming: len as u32,
        ack: None,
        cutoff_version: 1,
        retransmit: false,
        offset: 0,
        form: OffsetForm::Both,
        bytes: &[],
    };
    let header = data.write_header(Ends { sport: 40_000, dport: PORT, sender_id: id }, &mut packet);
    packet.truncate(header + len);
    packet
}

fn server(config: Config) -> Endpoint {
    let mut server = Endpoint::new(config);
    server.bind(PORT).unwrap();
    server
}

fn spoofed(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0b00_0000 + n).into()
}

fn at(millis: u64) -> Instant {
    Instant::from_nanos(1_000_000 * (1 + millis))
}

/// Lets time go on tick by tick; the network loses all that is sent.
fn run(host: &mut Endpoint, from: u64, to: u64) {
    let mut packet = [0; 1500];
    for millis in from..to {
        while host.poll_transmit(at(millis), &mut packet).is_some() {}
        while host.next_deadline().is_some_and(|due| due <= at(millis)) {
            host.handle_timeout(at(millis));
        }
        host.check_invariants([].into_iter()).unwrap();
    }
}

#[test]
fn spoofed_addresses_fill_no_table() {
    let mut host = server(Config { max_peers: 1_000, ..Config::default() });
    let mut packet = [0; 100];
    let ends = Ends { sport: 1, dport: PORT, sender_id: 8 };
    for n in 0..20_000 {
        let len = Resend { offset: 0, length: RESEND_ALL, priority: 7 }.write(ends, &mut packet);
        host.handle_packet(at(0), spoofed(n), &packet[..len]);
        let len = write_bare(Kind::NeedAck, Ends { sender_id: 9, ..ends }, &mut packet);
        host.handle_packet(at(0), spoofed(n), &packet[..len]);
    }
    let sizes = host.sizes();
    assert_eq!((sizes.peers, sizes.control), (0, host.config().max_control), "who only asks is not remembered");
    assert_eq!(host.metrics.drops(DropReason::Flood), 40_000 - 4_096);
    run(&mut host, 0, 1);
    for n in 0..20_000 {
        host.handle_packet(at(1), spoofed(n), &request(8, 100));
    }
    assert_eq!((host.sizes().peers, host.sizes().rpcs), (1_000, 1_000));
    assert_eq!(host.metrics.drops(DropReason::TooManyPeers), 19_000);
    // They are gone, and after the time that requests are remembered others find room; who is known, always does.
    while let Some(event) = host.poll_event() {
        let Event::Request { rpc, msg, .. } = event else { panic!("{event:?}") };
        host.release(msg);
        host.discard(rpc);
    }
    host.handle_packet(at(2_000), spoofed(5), &request(16, 100));
    assert_eq!(host.sizes().rpcs, 1);
    run(&mut host, 2_000, 2_100);
    host.handle_packet(at(5_500), spoofed(30_000), &request(8, 100));
    assert_eq!((host.sizes().rpcs, host.sizes().peers), (2, 1_000));
    assert_eq!(host.metrics.peers_forgotten, 1);
    host.handle_packet(at(5_500), spoofed(5), &request(16, 100));
    assert_eq!(host.sizes().rpcs, 2, "it has an RPC and was not forgotten");
}

#[test]
fn a_peer_that_was_forgotten_leaves_its_successor_no_memory_of_requests() {
    let mut host = server(Config { max_peers: 1, ..Config::default() });
    host.handle_packet(at(0), spoofed(1), &request(8, 100));
    let Some(Event::Request { rpc, msg, .. }) = host.poll_event() else { panic!("no request") };
    host.release(msg);
    host.discard(rpc);
    host.handle_packet(at(6_000), spoofed(2), &request(8, 100));
    assert!(matches!(host.poll_event(), Some(Event::Request { .. })), "the same id, but of another client");
}

#[test]
fn requests_that_are_never_answered_are_bounded_and_given_up() {
    let mut host = server(Config { max_server_rpcs: 20_000, service_ticks: 500, ..Config::default() });
    let mut tokens = Vec::new();
    for n in 0..100_000 {
        host.handle_packet(at(0), spoofed(n % 100), &request(8 + 2 * u64::from(n), 100));
        while let Some(Event::Request { rpc, msg, .. }) = host.poll_event() {
            host.release(msg);
            tokens.push(rpc);
        }
    }
    assert_eq!(host.sizes().rpcs, 20_000);
    assert_eq!(host.metrics.drops(DropReason::TooManyRpcs), 80_000);
    let mut packet = [0; 1500];
    while host.poll_transmit(at(0), &mut packet).is_some() {}
    (0..490).for_each(|millis| host.handle_timeout(at(millis)));
    assert_eq!(host.sizes().rpcs, 20_000);
    (490..520).for_each(|millis| host.handle_timeout(at(millis)));
    assert_eq!((host.sizes().rpcs, host.metrics.requests_overdue), (0, 20_000));
    let late = tokens.pop().unwrap();
    host.reply(at(520), late, Payload::from(vec![1])).unwrap();
    assert!(host.poll_transmit(at(520), &mut packet).is_none(), "an answer too late goes nowhere");
    host.handle_packet(at(520), spoofed(0), &request(8, 100));
    assert_eq!(host.sizes().rpcs, 0, "and the request does not run again");
    assert_eq!(host.metrics.drops(DropReason::Executed), 1);
}

#[test]
fn one_peer_can_have_a_share_of_the_requests_only() {
    let mut host = server(Config { max_peer_rpcs: 10, ..Config::default() });
    for n in 0..100 {
        host.handle_packet(at(0), spoofed(1), &request(8 + 2 * n, 100));
    }
    host.handle_packet(at(0), spoofed(2), &request(8, 100));
    assert_eq!((host.sizes().rpcs, host.metrics.drops(DropReason::TooManyRpcs)), (11, 90));
}

/// The pool is the limit of what is kept, and after some time not even that.
#[test]
fn an_application_that_never_reads_costs_the_pool_at_most() {
    let config = Config { pool_pages: 8, max_unread: 50, unread_ticks: 100, ..Config::default() };
    let mut host = server(config);
    for n in 0..1_000 {
        host.handle_packet(at(0), spoofed(n % 10), &request(8 + 2 * u64::from(n), 1_000));
    }
    assert_eq!((host.sizes().rpcs, host.sizes().events), (50, 50));
    assert_eq!(host.metrics.drops(DropReason::Unread), 950);
    run(&mut host, 0, 99);
    assert_eq!(host.sizes().events, 50);
    run(&mut host, 99, 120);
    assert_eq!((host.sizes().events, host.metrics.requests_overdue), (0, 50));
    assert!(host.is_quiet(), "their pages are free again");
    host.handle_packet(at(120), spoofed(1), &request(1 << 20, 1_000));
    assert!(matches!(host.poll_event(), Some(Event::Request { .. })), "others are heard");
}

/// Clients of a server whose application has stopped hear of it by a time-out.
#[test]
fn clients_of_an_application_that_never_reads_time_out() {
    let server = Config { service_ticks: 50, ..Config::default() };
    let mut net = Net::with(vec![Config::default(), server]);
    net.service = Nanos::from_secs(1);
    let id = net.call(0, 1, 3_000);
    net.run_for(Nanos::from_secs(3));
    assert_eq!(net.failed.get(&id), Some(&RpcError::TimedOut));
    assert_eq!(net.runs[&id], 1);
    net.assert_settled("an overdue request");
}

/// Short messages keep coming while a long one waits for room: it gets room by its age, and only by that.
#[test]
fn a_long_message_that_waits_for_room_is_not_starved_by_short_ones() {
    for (age_ms, completes) in [(10, true), (1_000_000, false)] {
        let server = Config { pool_pages: 4, starve_age: Nanos::from_millis(age_ms), ..Config::default() };
        let mut configs = vec![Config::default(); 8];
        configs.push(server);
        let mut net = Net::with(configs);
        net.response_len = Some(8);
        net.hold_messages = true;
        (0..7).for_each(|client| _ = net.call(client, 8, 60_000));
        net.run_for(Nanos::from_micros(300));
        let long = net.call(7, 8, 250_000);
        for _ in 0..120 {
            net.run_for(Nanos::from_millis(1));
            net.release_held();
            // More than there is room for.
            (0..7).for_each(|client| _ = net.call(client, 8, 60_000));
        }
        assert_eq!(net.done.contains_key(&long), completes, "age {age_ms} ms");
        for _ in 0..3_000 {
            net.run_for(Nanos::from_millis(2));
            net.release_held();
        }
        assert!(net.done.contains_key(&long) && net.failed.is_empty(), "all complete in the end: {:?}", net.failed);
        net.assert_settled("ageing");
    }
}

/// The client's application keeps all its messages for far longer than the server is patient.
#[test]
fn a_response_that_waits_for_room_is_kept_by_its_server() {
    let client = Config { pool_pages: 2, ..Config::default() };
    let mut net = Net::with(vec![client, Config::default()]);
    net.response_len = Some(100_000);
    net.hold_messages = true;
    let first = net.call(0, 1, 100);
    net.run_for(Nanos::from_millis(5));
    assert!(net.done.contains_key(&first));
    let second = net.call(0, 1, 100);
    net.run_for(Nanos::from_secs(5));
    assert!(!net.done.contains_key(&second) && net.failed.is_empty(), "{:?}", net.failed);
    let data = net.count(Kind::Data);
    net.run_for(Nanos::from_secs(5));
    assert!(net.count(Kind::Data) == data, "nothing is sent to a client without room");
    net.release_held();
    net.hold_messages = false;
    net.run_for(Nanos::from_secs(1));
    assert!(net.done.contains_key(&second), "{:?}", net.failed);
    net.assert_settled("a response without room");
}

/// A client is gone in the middle of its request, which has all the room: it goes to one that is alive, long before
/// the first is given up.
#[test]
fn the_room_of_a_request_that_does_not_arrive_goes_to_others() {
    let server = Config { pool_pages: 2, timeout_ticks: 10_000, ..Config::default() };
    let mut net = Net::with(vec![Config::default(), Config::default(), server]);
    net.call(0, 2, 100_000);
    net.run_for(Nanos::from_micros(15));
    net.alive[0] = false;
    let id = net.call(1, 2, 100_000);
    net.run_for(Nanos::from_millis(60));
    assert!(net.done.contains_key(&id), "{:?}", net.failed);
    assert_eq!(net.hosts[2].metrics.requests_evicted, 1);
    assert_eq!(net.runs.len(), 1);
}

/// It was not gone but cut off for a while: its request never ran, so that it may be sent again.
#[test]
fn a_request_whose_room_went_to_others_is_sent_again_and_runs_once() {
    let server = Config { pool_pages: 2, ..Config::default() };
    let mut net = Net::with(vec![Config::default(), Config::default(), server]);
    net.response_len = Some(8);
    let cut = net.call(0, 2, 100_000);
    net.run_for(Nanos::from_micros(15));
    net.alive[0] = false;
    net.call(1, 2, 100_000);
    net.run_for(Nanos::from_millis(60));
    assert_eq!(net.hosts[2].metrics.requests_evicted, 1);
    net.alive[0] = true;
    net.run_for(Nanos::from_secs(1));
    assert!(net.done.contains_key(&cut), "{:?}", net.failed);
    net.assert_settled("evicted");
}

/// Whatever the call had come to, its failure names the server.
#[test]
fn a_failure_names_the_peer_whatever_the_call_had_come_to() {
    let config = Config::default;
    let call = |host: &mut Endpoint, len: usize| {
        let port = host.client_port().unwrap();
        let id = host.call(at(0), port, SocketAddr::new(addr(1), PORT), Payload::from(vec![0; len]), 7).unwrap();
        (id, port)
    };
    let expect = |host: &mut Endpoint, id, why| match host.poll_event() {
        Some(Event::Failed { id: of, cookie: 7, peer, error, .. }) => {
            assert_eq!((of, peer, error), (id, SocketAddr::new(addr(1), PORT), why));
        }
        other => panic!("{other:?}"),
    };
    for (len, begins) in [(100, false), (100, true), (500_000, false)] {
        let mut host = Endpoint::new(config());
        let (id, port) = call(&mut host, len);
        run(&mut host, 0, 2);
        if begins {
            // The first packet of a response, and no more.
            let mut packet = request(id.get() ^ 1, 1_000);
            packet[..4].copy_from_slice(&[(PORT >> 8) as u8, PORT as u8, (port >> 8) as u8, port as u8]);
            packet[28..32].copy_from_slice(&9_000_u32.to_be_bytes());
            host.handle_packet(at(2), addr(1), &packet);
        }
        run(&mut host, 2, 300);
        expect(&mut host, id, RpcError::TimedOut);
    }
    let mut host = Endpoint::new(config());
    let (id, _) = call(&mut host, 100);
    assert!(host.cancel(id, RpcError::Aborted));
    expect(&mut host, id, RpcError::Aborted);
}
