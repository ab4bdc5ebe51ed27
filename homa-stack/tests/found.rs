//! Faults of the protocol core that the fault simulation found, each as small as it gets.

mod net;

use std::net::SocketAddr;

use homa_stack::policy::InformedConfig;
use homa_stack::wire::{Ends, Kind, RESEND_ALL, Resend};
use homa_stack::{Config, Endpoint, Instant, Nanos, Payload, RpcError};
use net::Net;

/// The tombstone was as old as the request's first packet, so that it was gone when the RPC had lived for its time.
#[test]
fn a_request_is_remembered_from_the_end_of_its_rpc() {
    let config = Config { tombstone_time: Nanos::from_millis(500), ..Config::default() };
    let mut net = Net::new(2, &config);
    net.service = Nanos::from_secs(3);
    net.fate =
        Box::new(
            move |sent| {
                if sent.serial == 0 { vec![Nanos::ZERO, Nanos::from_millis(3_200)] } else { vec![Nanos::ZERO] }
            },
        );
    let id = net.call(0, 1, 100);
    net.run_for(Nanos::from_secs(10));
    assert!(net.done.contains_key(&id));
    net.assert_settled("a copy of the request came 200 ms after the response");
}

/// Such a message waited for room that could never be, without a timer: neither end forgot it.
#[test]
fn a_message_longer_than_the_pool_ends_in_a_time_out() {
    let small = Config { pool_pages: 2, ..Config::default() };
    for (configs, len, response) in
        [([Config::default(), small.clone()], 200_000, 10), ([small, Config::default()], 10, 200_000)]
    {
        let mut net = Net::with(configs.to_vec());
        net.response_len = Some(response);
        let id = net.call(0, 1, len);
        net.run_for(Nanos::from_secs(10));
        assert_eq!(net.failed.get(&id), Some(&RpcError::TimedOut), "request {len}, response {response}");
        net.assert_settled("longer than the pool");
    }
}

/// Only what the application released was given to messages that waited for room.
#[test]
fn room_that_an_abandoned_message_leaves_goes_to_those_that_wait() {
    let server = Config { pool_pages: 2, ..Config::default() };
    let mut net = Net::with(vec![Config::default(), Config::default(), server]);
    net.call(0, 2, 100_000);
    net.run_for(Nanos::from_micros(15));
    net.alive[0] = false;
    let id = net.call(1, 2, 100_000);
    net.run_for(Nanos::from_secs(5));
    assert!(net.done.contains_key(&id), "{:?}", net.failed);
    net.assert_settled("abandoned message");
}

/// The interval between RESENDs, stretched by BUSYs, came to be longer than the time-out.
#[test]
fn a_slow_server_is_not_given_up_with_a_short_time_out() {
    for timeout_ticks in [12, 28, 50] {
        let mut net = Net::new(2, &Config { timeout_ticks, ..Config::default() });
        net.service = Nanos::from_millis(500);
        let id = net.call(0, 1, 100);
        net.run_for(Nanos::from_secs(2));
        assert!(net.done.contains_key(&id), "{:?} with {timeout_ticks} ticks", net.failed);
        net.assert_settled("slow server");
    }
}

/// The room under `max_incoming` that a message left was seen only if it had needed grants itself.
#[test]
fn room_for_grants_that_an_abandoned_message_leaves_is_used() {
    let server = Config { max_incoming: 20_000, grant_fifo_fraction: 0, ..Config::default() };
    let mut net = Net::with(vec![Config::default(), Config { unsched_bytes: 1, ..Config::default() }, server]);
    net.response_len = Some(10);
    // All of it is unscheduled, but only its first packet arrives.
    net.fate = Box::new(|sent| if sent.from == 0 && sent.serial > 0 { vec![] } else { vec![Nanos::ZERO] });
    net.call(0, 2, 40_000);
    net.run_for(Nanos::from_micros(15));
    net.alive[0] = false;
    let id = net.call(1, 2, 100_000);
    net.run_for(Nanos::from_secs(5));
    assert!(net.done.contains_key(&id), "{:?}", net.failed);
    net.assert_settled("abandoned unscheduled message");
}

/// The window, a share of `max_incoming`, came to be nothing, or was more than there could ever be room for.
#[test]
fn grants_come_however_small_max_incoming_is() {
    for (max_incoming, window) in [(1, 0), (1, 20_000), (1_000, 20_000)] {
        let config = Config { max_incoming, window, unsched_bytes: 1, grant_fifo_fraction: 0, ..Config::default() };
        let mut net = Net::new(2, &config);
        let id = net.call(0, 1, 20_000);
        net.run_for(Nanos::from_secs(5));
        assert!(net.done.contains_key(&id), "{:?}", net.failed);
        net.assert_settled("small max_incoming");
    }
}

/// A tick right after the response began gave it up when the client had not been heard for long before.
#[test]
fn a_response_waits_for_grants_however_long_the_client_was_silent_before() {
    let config = Config { timeout_ticks: 400, unsched_bytes: 1, ..Config::default() };
    let server = Config { unsched_bytes: 1, ..Config::default() };
    // One of these falls just before a tick.
    for micros in (150_000..151_000).step_by(100) {
        let mut net = Net::with(vec![config.clone(), server.clone()]);
        net.service = Nanos::from_micros(micros);
        net.response_len = Some(50_000);
        // The server hears nothing while it works.
        net.fate = Box::new(|sent| if sent.kind == Kind::Resend { vec![] } else { vec![Nanos::from_micros(100)] });
        let id = net.call(0, 1, 8);
        net.run_for(Nanos::from_secs(5));
        assert!(net.done.contains_key(&id), "{:?}, service of {micros} us", net.failed);
        net.assert_settled("silent client");
    }
}

/// Each RESEND that was answered made the list of messages to send again longer.
#[test]
fn a_message_is_listed_once_however_often_it_is_asked_for() {
    let now = Instant::from_nanos(1);
    let mut host = Endpoint::new(Config { resend_hold_off: Nanos::ZERO, ..Config::default() });
    let port = host.client_port().unwrap();
    let id = host.call(now, port, SocketAddr::new(net::addr(1), 99), Payload::from(vec![0; 5_000]), 0).unwrap();
    let mut packet = [0; 1500];
    while host.poll_transmit(now, &mut packet).is_some() {}
    let ends = Ends { sport: 99, dport: port, sender_id: id.get() ^ 1 };
    let resend = Resend { offset: 0, length: RESEND_ALL, priority: 7 };
    let len = resend.write(ends, &mut packet);
    (0..1000).for_each(|_| host.handle_packet(now, net::addr(1), &packet[..len]));
    assert_eq!(host.sizes().resending, 1);
    let again = std::iter::from_fn(|| host.poll_transmit(now, &mut packet)).count();
    assert_eq!((again, host.sizes().resending), (4, 0));
}

/// Each step of a policy was a packet, hundreds of which waited in a row for the same message.
#[test]
fn grants_in_steps_smaller_than_packets_are_joined() {
    let policy = InformedConfig { step: 100, least: 100, ..InformedConfig::for_round_trip(100_000) }.policy();
    let server = Config { grant_policy: Some(policy), ..Config::default() };
    let mut net = Net::with(vec![Config::default(), server]);
    net.response_len = Some(10);
    let id = net.call(0, 1, 500_000);
    net.run_for(Nanos::from_secs(1));
    assert!(net.done.contains_key(&id));
    let data = net.count(Kind::Data);
    assert!(net.count(Kind::Grant) <= data, "{} grants for {data} packets", net.count(Kind::Grant));
    net.assert_settled("small steps");
}
