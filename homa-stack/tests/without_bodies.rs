//! Endpoints that count the bytes of messages instead of keeping them, and so take longer ones.

use std::net::{IpAddr, SocketAddr};

use homa_stack::{Config, Endpoint, Event, Instant, Nanos, Payload, SendError};

const ADDRS: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2))];

/// Sends a request of `len` bytes to a host with `server`'s parameters; returns what that host got of it: the length that
/// the message says it has, and its bytes.
fn received(client: Config, server: Config, len: usize) -> Result<Option<(usize, usize)>, SendError> {
    let mut hosts = [Endpoint::new(client), Endpoint::new(server)];
    hosts[1].bind(1).unwrap();
    let port = hosts[0].client_port().unwrap();
    let mut now = Instant::from_nanos(1_000);
    hosts[0].call(now, port, SocketAddr::new(ADDRS[1], 1), Payload::from(vec![7; len]), 0)?;
    let mut packet = [0; 1500];
    for _ in 0..200 {
        for from in [0, 1] {
            while let Some(sent) = hosts[from].poll_transmit(now, &mut packet) {
                hosts[1 - from].handle_packet(now, ADDRS[from], &packet[..sent.len]);
            }
        }
        if let Some(Event::Request { rpc, msg, .. }) = hosts[1].poll_event() {
            let bytes = hosts[1].pieces(&msg).map(<[u8]>::len).sum();
            let len = msg.len();
            hosts[1].release(msg);
            hosts[1].discard(rpc);
            hosts[1].check_invariants(std::iter::empty()).unwrap();
            return Ok(Some((len, bytes)));
        }
        now = now + Nanos::from_micros(100);
        hosts.iter_mut().for_each(|host| host.handle_timeout(now));
    }
    Ok(None)
}

#[test]
fn messages_longer_than_the_protocols_limit_arrive_where_no_bodies_are_kept() {
    let sink = Config { keep_bodies: false, longest_message: 30_000_000, pool_pages: 1, ..Config::default() };
    for len in [1, 1_400, 100_000, 1_000_000, 28_840_000] {
        assert_eq!(received(sink.clone(), sink.clone(), len), Ok(Some((len, 0))), "{len} bytes");
    }
}

#[test]
fn the_limit_stays_where_bodies_are_kept_and_at_receivers_that_have_it() {
    let sink = Config { keep_bodies: false, longest_message: 30_000_000, ..Config::default() };
    let keeper = Config { longest_message: 30_000_000, ..Config::default() };
    assert_eq!(received(keeper.clone(), keeper.clone(), 1_000_000), Ok(Some((1_000_000, 1_000_000))));
    let too_long = SendError::TooLong { len: 1_000_001, max: 1_000_000 };
    assert_eq!(received(keeper.clone(), sink.clone(), 1_000_001), Err(too_long), "what is longer is not sent");
    assert_eq!(received(sink, keeper, 1_000_001), Ok(None), "nor taken");
}
