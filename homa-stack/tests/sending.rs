//! The sending side in virtual time: limits of what is under way, ports, and what ends with them.

mod net;

use homa_stack::proto::Announce;
use homa_stack::wire::Kind;
use homa_stack::{Config, Limit, Nanos, RpcError, SendError};
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
    let mut net = Net::new(3, &Config { tx_budget: 1_000_000, tx_peer_share: 300, ..config() });
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
    let mut net = Net::new(3, &Config { tx_budget: 1_000_000, tx_peer_share: 1000, ..config() });
    net.service = Nanos::from_millis(10);
    net.response_len = Some(10);
    net.call(0, 1, 900_000);
    net.run_for(Nanos::from_millis(5));
    assert_eq!(fill(&mut net, 0, 2, 10_000), (10, Limit::Endpoint));
    assert_eq!(net.hosts[0].metrics.calls_refused, 1);
    // The 900,000 bytes are answered some 10 ms after they came: only then is there room.
    net.run_for(Nanos::from_millis(4));
    assert!(net.room.is_empty() && net.try_call(0, 2, 10_000).is_err());
    net.run_for(Nanos::from_millis(20));
    assert_eq!(net.room, [(0, Limit::Endpoint)]);
    assert_eq!(net.done.len(), 11);
    net.assert_settled("budget");
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
    let to = std::net::SocketAddr::new(addr(1), net::PORT);
    let other = net.hosts[0].call(net.now, second, to, homa_stack::Payload::from(vec![0; 8]), 1000).unwrap();
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
    let to = std::net::SocketAddr::new(addr(1), net::PORT);
    for call in 0..30 {
        net.response_len = Some(8);
        let payload = homa_stack::Payload::from(net::message(1000 + call, 100));
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
