//! Repair of losses faster than by ticks, and what it must not cost, in virtual time.

mod net;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use homa_stack::wire::{Kind, Packet};
use homa_stack::{Config, Nanos};
use net::{Links, Net, Rng};

/// One gap in five packets costs its message a reorder window and a round trip, not a tick's time-out, both ways.
#[test]
fn a_lost_packet_costs_a_reorder_window() {
    for (window, least, most) in [(200, 200, 330), (0, 1_900, 7_500)] {
        for from in 0..2 {
            let config = Config { reorder_window: Nanos::from_micros(window), ..Config::default() };
            let mut net = Net::new(2, &config);
            let lost = Cell::new(false);
            net.fate = Box::new(move |sent| match sent.packet {
                Packet::Data(data) if sent.from == from && data.offset == 1424 && !lost.replace(true) => vec![],
                _ => vec![Nanos::ZERO],
            });
            let id = net.call(0, 1, 7_000);
            net.run_for(Nanos::from_millis(50));
            let took = net.took(id).as_nanos() / 1000;
            assert!((least..most).contains(&took), "{took} us, window {window} us, loss from {from}");
            assert_eq!(net.hosts[from].metrics.resent_packets, 1, "exactly what is missing");
            net.assert_settled("a gap");
        }
    }
}

/// The end of what was granted shows no gap. Nor does a response that was lost whole.
#[test]
fn what_no_later_packet_shows_as_lost_is_asked_for_by_what_the_peer_usually_takes() {
    // Of a message of 1,000,000 bytes: the end of the unscheduled bytes, of grants, of all. Of 100: the whole.
    for (len, offsets) in [(1_000_000, [39_872, 599_000, 999_000]), (100, [0, 0, 0])] {
        for offset in offsets {
            for from in 0..2 {
                let mut net = Net::new(2, &Config::default());
                (0..100).for_each(|_| {
                    net.call(0, 1, 60_000);
                    net.run_for(Nanos::from_millis(1));
                });
                let lossless = net.call(0, 1, len);
                net.run_for(Nanos::from_millis(20));
                let from_offset = Rc::new(Cell::new(true));
                let armed = from_offset.clone();
                // From this offset on everything is lost until the receiver asks.
                net.fate = Box::new(move |sent| match sent.packet {
                    Packet::Data(data) if sent.from == from && data.offset >= offset && !data.retransmit => {
                        if armed.get() { vec![] } else { vec![Nanos::ZERO] }
                    }
                    Packet::Resend(_) => {
                        armed.set(false);
                        vec![Nanos::ZERO]
                    }
                    _ => vec![Nanos::ZERO],
                });
                let id = net.call(0, 1, len);
                net.run_for(Nanos::from_millis(100));
                let cost = net.took(id).as_nanos().saturating_sub(net.took(lossless).as_nanos()) / 1000;
                assert!(cost < 1_000, "loss from byte {offset} on from {from} cost {cost} us");
                assert!(!from_offset.get(), "nothing was asked for: nothing was lost");
                net.assert_settled("the end of a message");
            }
        }
    }
}

/// Short messages under 1 % random loss, without reordering: hardly any waits for a tick.
#[test]
fn loss_of_one_percent_costs_short_messages_a_window_each() {
    let mut net = Net::new(3, &Config::default());
    let mut rng = Rng::new(7);
    net.fate = Box::new(move |_| if rng.chance(0.01) { vec![] } else { vec![Nanos::ZERO] });
    let mut lens = Rng::new(8);
    let ids: Vec<_> = (0..20_000)
        .map(|_| {
            let id = net.call(0, 1 + lens.below(2) as usize, 8 + lens.below(9_000) as usize);
            net.run_for(Nanos::from_micros(50));
            id
        })
        .collect();
    net.run_for(Nanos::from_secs(5));
    let mut took: Vec<_> = ids.iter().map(|id| net.took(*id).as_nanos() / 1000).collect();
    took.sort_unstable();
    let (p50, p99, p999) = (took[10_000], took[19_800], took[19_980]);
    let slow = took.iter().filter(|us| **us >= 5_000).count();
    println!("P50 {p50} us, P99 {p99} us, P99.9 {p999} us, {slow} of 20,000 waited for a tick");
    assert!(p99 < 300, "P99 is {p99} us: one window of 200 us and two round trips of 20 us");
    assert!(slow < 20, "{slow} of 20,000 waited for a tick");
    net.assert_settled("loss");
}

/// Every packet is late by up to 500 us, none is lost.
#[test]
fn reordering_makes_hardly_any_packet_be_sent_again() {
    let mut net = Net::new(3, &Config::default());
    let mut rng = Rng::new(9);
    net.fate = Box::new(move |_| vec![Nanos::from_nanos(rng.below(500_000))]);
    let mut lens = Rng::new(10);
    for _ in 0..2_000 {
        let most = if lens.chance(0.1) { 200_000 } else { 6_000 };
        net.call(0, 1 + lens.below(2) as usize, 8 + lens.below(most) as usize);
        net.run_for(Nanos::from_micros(200));
    }
    net.run_for(Nanos::from_secs(5));
    assert_eq!(net.done.len(), 2_000);
    let resent: u64 = net.hosts.iter().map(|host| host.metrics.resent_packets).sum();
    let data = net.count(Kind::Data) as u64;
    let asked: u64 = net.hosts.iter().map(|host| host.metrics.gap_resends).sum();
    println!("{resent} of {data} packets were sent again, {asked} gaps asked for");
    assert!(resent * 200 < data, "{resent} of {data} packets were sent again, more than 0.5 %");
    assert!(asked > 0, "the window has begun too small for this");
    net.assert_settled("reordering");
}

/// N001 on the receiving side: queues of a loaded link are no losses.
#[test]
fn queues_without_loss_make_hardly_any_byte_be_sent_again() {
    let mut net = Net::new(5, &Config { link_mbps: 10_000, ..Config::default() });
    let links = Rc::new(RefCell::new(Links::new(5, 10.0, usize::MAX)));
    let shared = links.clone();
    net.fate = Box::new(move |sent| shared.borrow_mut().pass(sent).into_iter().collect());
    let mut rng = Rng::new(11);
    net.response_len = Some(10);
    let mut bytes = 0;
    // 80 % of one host's link: mostly short messages, most bytes in long ones.
    for _ in 0..3_000 {
        let len = match rng.below(20) {
            0 => 100_000 + rng.below(900_000),
            1..5 => 3_000 + rng.below(60_000),
            _ => 8 + rng.below(3_000),
        } as usize;
        bytes += len;
        net.call(1 + rng.below(4) as usize, 0, len);
        let gap = rng.below(2 * 36_000 * 8 / 8) + 8;
        net.run_for(Nanos::from_nanos(gap));
    }
    net.run_for(Nanos::from_secs(5));
    assert_eq!(net.done.len(), 3_000);
    let resent: u64 = net.hosts.iter().map(|host| host.metrics.resent_packets).sum();
    let longest = links.borrow().longest;
    println!("{resent} packets of {bytes} bytes sent again; longest queue {longest} bytes");
    assert!(longest > 200_000, "there were queues: {longest} bytes");
    assert!(resent as usize * 1424 * 1000 < bytes, "{resent} packets were sent again of {bytes} bytes");
    net.assert_settled("queues");
}

/// A server that falls silent is not asked more than it has earned; ticks do the rest.
#[test]
fn a_peer_that_falls_silent_is_asked_early_a_bounded_number_of_times() {
    let mut net = Net::new(2, &Config::default());
    for _ in 0..2_000 {
        net.call(0, 1, 100);
        net.run_for(Nanos::from_micros(50));
    }
    assert_eq!((net.done.len(), net.hosts[0].metrics.early_resends), (2_000, 0));
    net.alive[1] = false;
    (0..1_000).for_each(|_| _ = net.call(0, 1, 100));
    net.run_for(Nanos::from_micros(4_500));
    assert_eq!(net.hosts[0].metrics.early_resends, 32);
    assert_eq!(net.count(Kind::Resend), 32, "before the first tick that asks");
    net.run_for(Nanos::from_secs(1));
    assert_eq!(net.failed.len(), 1_000);
    assert_eq!(net.hosts[0].metrics.early_resends, 32);
    net.alive[1] = true;
    net.run_for(Nanos::from_secs(10));
    assert!(net.hosts[0].is_quiet());
}

/// A server whose answers take as long as the first RESEND: the two cross, and nothing is sent twice.
#[test]
fn an_answer_that_crosses_a_resend_is_not_sent_again() {
    for (hold_off, duplicates) in [(200, false), (0, true)] {
        let mut resent = 0;
        for service_us in (4_500..=5_500).step_by(10) {
            let config = Config { resend_hold_off: Nanos::from_micros(hold_off), ..Config::default() };
            let mut net = Net::new(2, &config);
            net.service = Nanos::from_micros(service_us);
            let id = net.call(0, 1, 8_000);
            net.run_for(Nanos::from_millis(100));
            assert!(net.done.contains_key(&id));
            resent += net.hosts.iter().map(|host| host.metrics.resent_packets).sum::<u64>();
            net.assert_settled("crossing");
        }
        assert_eq!(resent > 0, duplicates, "{resent} packets sent again, hold-off {hold_off} us");
    }
}

/// What was sent again is not sent a third time because a second RESEND was under way.
#[test]
fn two_resends_for_the_same_bytes_bring_them_once() {
    let mut net = Net::new(2, &Config::default());
    net.fate = Box::new(|sent| match sent.packet {
        Packet::Data(data) if data.offset == 1424 && !data.retransmit => vec![],
        Packet::Resend(_) => vec![Nanos::ZERO, Nanos::from_micros(2), Nanos::from_micros(6)],
        _ => vec![Nanos::ZERO],
    });
    net.response_len = Some(10);
    net.call(0, 1, 7_000);
    net.run_for(Nanos::from_millis(50));
    assert_eq!(net.hosts[0].metrics.resent_packets, 1);
    assert_eq!(net.hosts[0].metrics.held_back_bytes, 2 * 1424);
    net.assert_settled("copies of a RESEND");
}

/// Servers without timers for requests: the client's RESEND starts theirs.
#[test]
fn a_server_without_timers_asks_when_its_client_does() {
    for (server_timers, resends) in [(false, true), (true, true)] {
        let server = Config { server_timers, ..Config::default() };
        let mut net = Net::with(vec![Config::default(), server]);
        net.response_len = Some(10);
        let lost = Cell::new(false);
        net.fate = Box::new(move |sent| match sent.packet {
            Packet::Data(data) if sent.from == 0 && data.offset == 1424 && !lost.replace(true) => vec![],
            _ => vec![Nanos::ZERO],
        });
        let id = net.call(0, 1, 7_000);
        net.run_for(Nanos::from_micros(100));
        assert_eq!(net.hosts[1].sizes().watched, usize::from(server_timers));
        net.run_for(Nanos::from_millis(4));
        assert_eq!(net.done.contains_key(&id), server_timers, "by its own timer, before the client asks");
        net.run_for(Nanos::from_millis(10));
        assert!(net.done.contains_key(&id) && resends);
        let from_server = net.log.iter().filter(|l| l.0 == Kind::Resend && l.1 == 1).count();
        assert_eq!(from_server, 1, "for the gap");
        net.run_for(Nanos::from_secs(1));
        net.assert_settled("servers without timers");
    }
}

/// A server without timers whose pool is full: what it has no room for would be sent to be dropped.
#[test]
fn a_server_without_timers_does_not_ask_for_what_it_has_no_room_for() {
    let server = Config { server_timers: false, pool_pages: 2, ..Config::default() };
    let mut net = Net::with(vec![Config::default(), server]);
    net.response_len = Some(10);
    net.hold_messages = true;
    let first = net.call(0, 1, 100_000);
    net.run_for(Nanos::from_millis(1));
    assert!(net.done.contains_key(&first), "its request is kept by the application");
    let second = net.call(0, 1, 100_000);
    net.run_for(Nanos::from_millis(300));
    let from_client = net.log.iter().filter(|l| l.0 == Kind::Resend && l.1 == 0).count();
    assert!(from_client > 5 && net.count(Kind::Busy) >= from_client, "the client asks, and hears that all is well");
    assert_eq!(net.log.iter().filter(|l| l.0 == Kind::Resend && l.1 == 1).count(), 0);
    assert_eq!(net.hosts[0].metrics.resent_packets, 0);
    net.release_held();
    net.run_for(Nanos::from_millis(20));
    assert!(net.done.contains_key(&second), "it is asked for when there is room");
    net.hold_messages = false;
    net.release_held();
    net.run_for(Nanos::from_secs(1));
    net.assert_settled("servers without timers and room");
}
