//! The sending side in virtual time: limits of what is under way, ports, and what ends with them.

mod net;

use std::net::SocketAddr;

use homa_stack::proto::{Announce, Calls, NotPrivate, ReplyError};
use homa_stack::wire::{Kind, Packet};
use homa_stack::{Config, Endpoint, Event, Instant, Limit, Nanos, Payload, RpcError, RpcId, SendError};
use net::{Net, addr};

fn config() -> Config {
    Config::default()
}

/// Calls until one is refused; returns how many were not, and what was lacking.
fn fill(net: &mut Net, from: usize, to: usize, len: usize) -> (usize, Limit) {
    for n in 0.. {
        match net.try_call(from, to, len) {
            Ok(_) => {}
            Err(SendError::WouldBlock(limit)) => return (n, limit),
            Err(other) => panic!("{other}"),
        }
    }
    unreachable!("calls are refused some time")
}

/// Host 1 is silent: what is sent to it stays. Host 2 is served as if nothing were.
#[test]
fn a_peer_that_grants_nothing_holds_its_share_and_the_others_go_on() {
    let mut net = Net::new(3, &Config { tx_budget: 1_010_000, tx_peer_share: 300, ..config() });
    net.alive[1] = false;
    assert_eq!(fill(&mut net, 0, 1, 100_000), (3, Limit::Peer(addr(1))));
    for _ in 0..20 {
        let id = net.call(0, 2, 200_000);
        net.run_for(Nanos::from_millis(2));
        assert!(net.done.contains_key(&id));
    }
    assert!(net.room.is_empty(), "the silent peer's share is still full");
    net.run_for(Nanos::from_millis(110));
    assert!(net.failed.values().all(|error| *error == RpcError::TimedOut) && net.failed.len() == 3);
    assert_eq!(net.room, [(0, Limit::Peer(addr(1)))], "told once");
    net.assert_settled("a silent peer");
}

#[test]
fn calls_beyond_the_budget_are_refused_until_a_quarter_of_it_is_free() {
    // 400 bytes for each of the eleven besides its own.
    let mut net = Net::new(3, &Config { tx_budget: 1_004_400, tx_peer_share: 1000, ..config() });
    net.service = Nanos::from_millis(10);
    net.response_len = Some(10);
    (0..10).for_each(|_| _ = net.call(0, 2, 10_000));
    net.run_for(Nanos::from_millis(5));
    net.call(0, 1, 900_000);
    assert_eq!(net.try_call(0, 2, 10_000), Err(SendError::WouldBlock(Limit::Endpoint)));
    assert_eq!(net.hosts[0].metrics.calls_refused, 1);
    net.run_for(Nanos::from_millis(7));
    assert_eq!((net.done.len(), net.room.len()), (10, 0), "100,000 bytes are free, but not 250,000");
    net.run_for(Nanos::from_millis(20));
    assert_eq!(net.room, [(0, Limit::Endpoint)]);
    assert_eq!(net.done.len(), 11);
    net.assert_settled("budget");
}

/// Answers to 20 requests that the application has: without a limit they are as many as it has requests, with one they
/// wait for each other.
#[test]
fn answers_hold_the_budget_and_a_message_for_each_request_or_just_the_budget() {
    const LEN: usize = 100_000;
    for patient in [false, true] {
        let limits = Config { tx_budget: 250_000, max_server_rpcs: 20, tx_peer_share: 1000, ..config() };
        let (mut client, mut server) = (Endpoint::new(config()), Endpoint::new(limits));
        server.bind(net::PORT).unwrap();
        let port = client.client_port().unwrap();
        let (mut now, to) = (Instant::from_nanos(1_000_000), SocketAddr::new(addr(1), net::PORT));
        (0..30).for_each(|_| _ = client.call(now, port, to, Payload::from(&[1]), 0).unwrap());
        let (mut packet, mut waiting, mut answered, mut told) = ([0; 1500], Vec::new(), 0, 0);
        for _ in 0..200_000 {
            while let Some(sent) = client.poll_transmit(now, &mut packet) {
                server.handle_packet(now, addr(0), &packet[..sent.len]);
            }
            while let Some(event) = server.poll_event() {
                match event {
                    Event::Request { rpc, msg, .. } => {
                        server.release(msg);
                        waiting.push(rpc);
                    }
                    Event::Room(limit) => {
                        assert_eq!(limit, Limit::Responses);
                        told += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
            while let Some(rpc) = waiting.pop() {
                let payload = Payload::from(vec![1; LEN]);
                if !patient {
                    server.reply(now, rpc, payload).unwrap();
                } else if let Err(error) = server.try_reply(now, rpc, payload) {
                    let ReplyError::WouldBlock(rpc, _) = error else { panic!("{error}") };
                    waiting.push(rpc);
                    break;
                }
            }
            while let Some(sent) = server.poll_transmit(now, &mut packet) {
                client.handle_packet(now, addr(1), &packet[..sent.len]);
            }
            while let Some(event) = client.poll_event() {
                let Event::Response { msg, .. } = event else { panic!("{event:?}") };
                client.release(msg);
                answered += 1;
            }
            if answered == 30 {
                break;
            }
            now = now + Nanos::from_micros(20);
            client.handle_timeout(now);
            server.handle_timeout(now);
        }
        let most = server.metrics.tx_held_most as usize;
        assert_eq!((answered, most), if patient { (30, 2 * LEN) } else { (30, 20 * LEN) });
        assert_eq!(told > 0, patient);
    }
}

/// Room for a short message is told of only when there is enough for the one that was refused.
#[test]
fn whoever_is_refused_is_told_when_the_message_has_room() {
    let mut net = Net::new(3, &Config { tx_budget: 1_000_000, tx_peer_share: 1000, ..config() });
    net.response_len = Some(10);
    net.service = Nanos::from_millis(3);
    net.call(0, 1, 500_000);
    net.alive[2] = false;
    net.call(0, 2, 100_000);
    assert_eq!(net.try_call(0, 1, 950_000), Err(SendError::WouldBlock(Limit::Endpoint)));
    net.run_for(Nanos::from_millis(20));
    assert_eq!((net.done.len(), net.room.len()), (1, 0), "900,000 are free, 950,000 are wanted");
    net.run_for(Nanos::from_millis(100));
    assert_eq!(net.room.len(), 1);
    net.call(0, 1, 950_000);
    net.run_for(Nanos::from_millis(100));
    net.assert_settled("need");
}

#[test]
fn a_message_longer_than_the_budget_goes_alone() {
    let mut net = Net::new(2, &Config { tx_budget: 1000, ..config() });
    let id = net.call(0, 1, 100_000);
    assert!(net.try_call(0, 1, 1).is_err());
    net.run_for(Nanos::from_millis(20));
    assert!(net.done.contains_key(&id));
    net.assert_settled("alone");
}

#[test]
fn a_port_has_no_more_calls_under_way_than_it_may() {
    let mut net = Net::new(2, &Config { max_outstanding: 8, ..config() });
    net.service = Nanos::from_micros(100);
    assert_eq!(fill(&mut net, 0, 1, 100), (8, Limit::Port(32_768)));
    let second = net.hosts[0].client_port().unwrap();
    let to = SocketAddr::new(addr(1), net::PORT);
    let other = net.hosts[0].call(net.now, second, to, Payload::from(vec![0; 8]), 1000).unwrap();
    net.hosts[0].abort(other);
    assert!(net.room.is_empty(), "another port's calls make no room");
    net.run_for(Nanos::from_millis(20));
    assert_eq!((net.done.len(), net.room.as_slice()), (8, &[(0, Limit::Port(32_768))][..]));
    net.assert_settled("max_outstanding");
}

/// A server that can't get rid of its responses to one client hears no more of its requests, but those of others.
#[test]
fn requests_of_a_client_that_takes_no_responses_are_not_heard() {
    let server = Config { tx_budget: 1_000_000, tx_peer_share: 300, ..config() };
    let mut net = Net::with(vec![config(), config(), server]);
    net.response_len = Some(200_000);
    // Nothing of the server's reaches host 0.
    net.fate = Box::new(|sent| if (sent.from, sent.to) == (2, 0) { vec![] } else { vec![Nanos::ZERO] });
    for _ in 0..10 {
        net.call(0, 2, 100);
        net.run_for(Nanos::from_micros(100));
    }
    assert_eq!(net.runs.len(), 2, "200,000 bytes are below the limit of 300,000, 400,000 are not");
    let other = net.call(1, 2, 100);
    net.run_for(Nanos::from_millis(2));
    assert!(net.done.contains_key(&other));
    net.run_for(Nanos::from_secs(20));
    net.assert_settled("no responses taken");
}

/// Ports are given up while their RPCs are in all states; nothing is left, and no news come.
#[test]
fn a_port_given_up_leaves_nothing_of_its_rpcs_in_any_state() {
    for micros in (0..400).step_by(5) {
        for (host, client) in [(0, true), (1, false)] {
            let mut net = Net::new(2, &Config { timeout_ticks: 20, ..config() });
            net.service = Nanos::from_micros(40);
            for len in [100, 5_000, 60_000, 150_000] {
                net.call(0, 1, len);
            }
            net.run_for(Nanos::from_micros(micros));
            let port = if client { 32_768 } else { net::PORT };
            net.hosts[host].unbind(port);
            let (done, failed) = (net.done.len(), net.failed.len());
            assert_eq!(net.hosts[host].active_rpcs(), 0, "host {host} after {micros} us");
            net.run_for(Nanos::from_millis(500));
            if client {
                assert_eq!((net.done.len(), net.failed.len()), (done, failed), "after {micros} us");
            }
            net.assert_settled(&format!("port {port} given up after {micros} us"));
        }
    }
}

/// The server, which waits for grants, would otherwise keep its response for as long as the client talks to it at all.
#[test]
fn a_response_to_a_call_that_was_given_up_is_forgotten_although_the_client_is_alive() {
    let mut net = Net::new(2, &config());
    net.response_len = Some(500_000);
    net.call(0, 1, 100);
    net.run_for(Nanos::from_micros(25));
    net.hosts[0].unbind(32_768);
    let port = net.hosts[0].client_port().unwrap();
    let to = SocketAddr::new(addr(1), net::PORT);
    for call in 0..30 {
        net.response_len = Some(8);
        let payload = Payload::from(net::message(1000 + call, 100));
        net.hosts[0].call(net.now, port, to, payload, 1000 + call).unwrap();
        net.run_for(Nanos::from_millis(1));
    }
    assert_eq!(net.done.len(), 30);
    assert!(net.hosts[1].active_rpcs() <= 5, "{} RPCs", net.hosts[1].active_rpcs());
    assert!(net.hosts[1].metrics.sent_msg_bytes >= 500_000 && net.hosts[1].metrics.server_responses_done < 31);
    net.run_for(Nanos::from_millis(50));
    net.assert_settled("given up");
}

/// Longest pause between data packets of a sender with two messages, the second called while the first is on its way;
/// and how many announcements there were.
fn pause_between_messages(announce: Announce) -> (Nanos, u64) {
    // A link of 8 Gbps, a byte a nanosecond: the 20 us of a round trip are twice what is unscheduled.
    let paced = Config { announce, unsched_bytes: 10_000, pacing: true, link_mbps: 8_000, ..config() };
    let mut net = Net::new(2, &paced);
    net.response_len = Some(10);
    net.call(0, 1, 100_000);
    net.run_for(Nanos::from_micros(50));
    net.call(0, 1, 100_000);
    net.run_for(Nanos::from_millis(2));
    assert_eq!(net.done.len(), 2);
    let sent: Vec<_> = net.log.iter().filter(|l| (l.0, l.1) == (Kind::Data, 0)).map(|l| l.2).collect();
    // From the time on that the first message flows.
    let flowing = sent.windows(2).filter(|w| w[0] > sent[0] + Nanos::from_micros(40));
    (flowing.map(|w| w[1].since(w[0])).max().unwrap(), net.hosts[0].metrics.announcements)
}

#[test]
fn an_announced_message_follows_the_one_before_it_without_a_gap() {
    let (gap, announcements) = pause_between_messages(Announce::Never);
    assert!(gap > Nanos::from_micros(8) && announcements == 0, "{gap:?}: the round trip less what is unscheduled");
    let (gap, announcements) = pause_between_messages(Announce::Early);
    assert!(gap < Nanos::from_micros(2), "{gap:?}: about the time of a packet");
    assert_eq!(announcements, 1, "the first goes at once and needs none");
    let (gap, announcements) = pause_between_messages(Announce::Scheduled);
    assert!(gap < Nanos::from_micros(2), "{gap:?}");
    assert_eq!(announcements, 2);
}

/// The receiver hears and answers, but its grants, and requests for what it granted, do not come.
#[test]
fn a_message_whose_receiver_grants_nothing_is_given_up_after_a_time() {
    let run = |stall_ticks: u32| {
        let mut net = Net::new(2, &Config { stall_ticks, ..config() });
        net.fate = Box::new(|sent| match (sent.from, sent.kind) {
            (1, Kind::Grant | Kind::Resend) => vec![],
            _ => vec![Nanos::ZERO],
        });
        let id = net.call(0, 1, 100_000);
        net.run_for(Nanos::from_millis(190));
        assert!(net.failed.is_empty(), "BUSY packets say that the server is alive");
        net.run_for(Nanos::from_millis(20));
        (net, id)
    };
    let (mut net, id) = run(200);
    assert_eq!(net.failed.get(&id), Some(&RpcError::TimedOut));
    assert_eq!(net.hosts[0].metrics.tx_stalls, 1);
    net.run_for(Nanos::from_secs(20));
    net.assert_settled("stalled");
    let (mut net, id) = run(0);
    assert!(net.failed.is_empty(), "0 turns it off");
    net.fate = Box::new(|_| vec![Nanos::ZERO]);
    net.run_for(Nanos::from_secs(1));
    assert!(net.done.contains_key(&id));
}

/// A call from host 0 to host 1, private or not.
fn call(net: &mut Net, port: u16, private: bool, cookie: u64) -> RpcId {
    let (to, payload) = (SocketAddr::new(addr(1), net::PORT), Payload::from(net::message(cookie, 5_000)));
    let (now, host) = (net.now, &mut net.hosts[0]);
    match private {
        true => host.call_private(now, port, to, payload, cookie),
        false => host.call(now, port, to, payload, cookie),
    }
    .unwrap()
}

#[test]
fn a_private_call_is_heard_of_by_whoever_asks_for_it_once() {
    let mut net = Net::new(2, &config());
    let private = call(&mut net, 32_768, true, 7);
    let shared = call(&mut net, 32_768, false, 8);
    assert!(net.hosts[0].poll_private(private).unwrap().is_none(), "under way");
    net.run_for(Nanos::from_millis(5));
    assert!(net.done.contains_key(&8) && !net.done.contains_key(&7), "all hear of the other only");
    assert!(!net.hosts[0].is_quiet());
    assert_eq!(net.hosts[0].poll_private(shared).unwrap_err(), NotPrivate(shared));
    let Ok(Some(Event::Response { id, cookie: 7, msg, .. })) = net.hosts[0].poll_private(private) else {
        panic!("no response")
    };
    assert_eq!((id, msg.len()), (private, 5_000));
    net.hosts[0].release(msg);
    assert!(net.hosts[0].poll_private(private).is_err(), "taken");
    net.run_for(Nanos::from_millis(100));
    net.assert_settled("private");
}

#[test]
fn a_private_call_that_nobody_asks_for_any_more_leaves_nothing() {
    for after_micros in [0, 15, 5_000] {
        let mut net = Net::new(2, &config());
        let (first, second) = (call(&mut net, 32_768, true, 1), call(&mut net, 32_768, true, 2));
        net.run_for(Nanos::from_micros(after_micros));
        net.hosts[0].abort(first);
        assert!(net.hosts[0].poll_private(first).is_err());
        net.hosts[0].unbind(32_768);
        assert!(net.hosts[0].poll_private(second).is_err());
        net.run_for(Nanos::from_secs(1));
        net.assert_settled("given up");
    }
}

#[test]
fn a_private_call_that_fails_tells_so_to_whoever_asks() {
    let mut net = Net::new(2, &config());
    let id = call(&mut net, 32_768, true, 3);
    assert!(net.hosts[0].cancel(id, RpcError::PeerUnreachable));
    let event = net.hosts[0].poll_private(id).unwrap();
    assert!(matches!(event, Some(Event::Failed { cookie: 3, error: RpcError::PeerUnreachable, .. })), "{event:?}");
    assert!(net.hosts[0].poll_event().is_none());
}

#[test]
fn calls_are_given_up_one_by_one_or_all_of_a_peer_a_server_or_a_port() {
    let mut net = Net::new(3, &config());
    let other = net.hosts[0].client_port().unwrap();
    let mut ids = Vec::new();
    for (cookie, (port, to, server)) in
        [(32_768, 1, 99), (32_768, 2, 99), (other, 1, 98), (other, 2, 99), (32_768, 2, 98)].into_iter().enumerate()
    {
        let (to, payload) = (SocketAddr::new(addr(to), server), Payload::from(vec![0; 100]));
        ids.push(net.hosts[0].call(net.now, port, to, payload, cookie as u64).unwrap());
    }
    let mut check = |calls: Option<Calls>, expected: &[u64]| {
        let host = &mut net.hosts[0];
        let n = match calls {
            Some(calls) => host.cancel_all(calls, RpcError::Aborted),
            None => usize::from(host.cancel(ids[0], RpcError::Aborted)),
        };
        assert_eq!(n, expected.len(), "{calls:?}");
        let told: Vec<_> = std::iter::from_fn(|| host.poll_event())
            .map(|event| match event {
                Event::Failed { cookie, error: RpcError::Aborted, .. } => cookie,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, expected, "{calls:?}");
    };
    check(None, &[0]);
    check(None, &[]);
    check(Some(Calls::Peer(addr(1))), &[2]);
    check(Some(Calls::Server(SocketAddr::new(addr(2), 98))), &[4]);
    check(Some(Calls::Port(32_768)), &[1]);
    check(Some(Calls::Port(9)), &[]);
    check(Some(Calls::Peer(addr(2))), &[3]);
    assert_eq!(net.hosts[0].active_rpcs(), 0);
}

/// A request and a response of equal length that wait for the same link: whichever RPC is older goes first, and
/// neither kind is preferred.
#[test]
fn requests_and_responses_of_equal_length_take_turns_by_age() {
    let mut core = Endpoint::new(config());
    core.bind(net::PORT).unwrap();
    let port = core.client_port().unwrap();
    let now = Instant::from_nanos(1);
    let mut peer = Endpoint::new(config());
    let peer_port = peer.client_port().unwrap();
    let payload = || Payload::from(vec![1; 3_000]);
    let mut out = [0; 1500];
    let mut ids = Vec::new();
    for round in 0..10 {
        let to = SocketAddr::new(addr(1), net::PORT);
        let request = peer.call(now, peer_port, to, Payload::from(vec![1; 10]), 0).unwrap();
        let sent = peer.poll_transmit(now, &mut out).unwrap();
        core.handle_packet(now, addr(0), &out[..sent.len]);
        let Some(Event::Request { rpc, msg, .. }) = core.poll_event() else { panic!("no request") };
        core.release(msg);
        // Now the one, now the other is called for first; the RPC is older than its response.
        let call = |core: &mut Endpoint| core.call(now, port, to, payload(), round).unwrap().get();
        ids.push(request.get() ^ 1);
        ids.push(call(&mut core));
        core.reply(now, rpc, payload()).unwrap();
    }
    let mut order: Vec<u64> = Vec::new();
    while let Some(sent) = core.poll_transmit(now, &mut out) {
        if sent.kind == Kind::Data && order.last() != Some(&sent.id.get()) {
            order.push(sent.id.get());
        }
    }
    assert_eq!(order, ids, "each whole, by age");
}

/// The server hears enough of the request to answer, but never all before it forgets it.
#[test]
fn a_request_that_its_server_forgets_over_and_over_is_given_up() {
    let server = Config { timeout_ticks: 3, ..config() };
    let mut net = Net::with(vec![config(), server]);
    // Of each transmission only the first packet arrives.
    net.fate = Box::new(|sent| match sent.packet {
        Packet::Data(data) if sent.from == 0 && data.offset > 0 => vec![],
        _ => vec![Nanos::ZERO],
    });
    let id = net.call(0, 1, 100_000);
    net.run_for(Nanos::from_secs(2));
    assert_eq!(net.failed.get(&id), Some(&RpcError::TimedOut), "{:?}", net.packets);
    assert!(net.hosts[0].metrics.resend_restarts >= 10, "it was tried: {:?}", net.packets);
    net.run_for(Nanos::from_secs(20));
    net.assert_settled("forgotten");
}
