//! Messages, rates and acknowledgements where nothing is lost.

use homa_sim::Time;
use homa_sim::tcp::{Congestion, TcpConfig};

use crate::net::{Net, Path};

/// A link is used to the last bit: 1448 of each 1538 bytes are data.
#[test]
fn a_long_message_gets_the_whole_link() {
    for congestion in [Congestion::Reno, Congestion::Cubic, Congestion::Dctcp] {
        let mut net = Net::new(2, &TcpConfig { congestion, ..TcpConfig::default() }, Path::default(), 1);
        net.call(1, 0, 1, 50_000_000);
        net.run(Time::from_secs(1));
        let took = net.received[0].at.as_secs_f64();
        let ideal = 50e6 * 8.0 / 10e9 * 1538.0 / 1448.0;
        assert!((1.0..1.005).contains(&(took / ideal)), "{congestion:?}: {took} s instead of {ideal}");
        let total = net.total();
        assert_eq!((total.resent, total.timeouts, total.probes, total.duplicates), (0, 0, 0, 0), "{congestion:?}");
        assert_eq!(total.data_bytes, 50_000_000);
        assert_eq!(total.data_segments, 50_000_000u64.div_ceil(1448));
    }
}

/// Sixteen quick ones, then every second segment, and the last.
#[test]
fn every_second_segment_is_acknowledged() {
    let mut net = Net::new(2, &TcpConfig::default(), Path::default(), 1);
    net.call(1, 0, 1, 1448 * 10_000);
    net.run(Time::from_secs(1));
    assert_eq!(net.total().pure_acks, 16 + (10_000 - 16) / 2);
    // An odd segment waits for 40 ms.
    let mut net = Net::new(2, &TcpConfig::default(), Path::default(), 1);
    net.call(1, 0, 1, 1448 * 1001);
    let before = net.received.len();
    net.run(Time::from_millis(30));
    assert_eq!((before, net.received.len()), (0, 1));
    let early = net.total().pure_acks;
    net.run(Time::from_millis(50));
    assert_eq!((early, net.total().pure_acks), (16 + 492, 16 + 493));
    assert_eq!(net.total().resent, 0);
}

/// Ten segments at once, twenty after the first round trip, forty after the second.
#[test]
fn slow_start_begins_with_ten_segments_and_doubles() {
    let path = Path { delay: Time::from_millis(10), ..Path::default() };
    let mut net = Net::new(2, &TcpConfig { hystart: false, quick_acks: 1000, ..TcpConfig::default() }, path, 1);
    net.call(1, 0, 1, 10_000_000);
    let mut windows = Vec::new();
    for round in 0..4u64 {
        net.run(Time::from_millis(20 * round + 10));
        windows.push(net.total().data_segments);
    }
    assert_eq!(windows, [10, 30, 70, 150]);
}

/// A short message waits behind a long one of its connection, but not behind one of another.
#[test]
fn messages_of_a_connection_come_in_order() {
    let mut net = Net::new(3, &TcpConfig::default(), Path::default(), 1);
    net.echo = true;
    net.call(1, 0, 1, 1_000_000);
    net.call(1, 0, 2, 100);
    net.call(2, 1, 3, 100);
    net.run(Time::from_millis(10));
    let order: Vec<_> = net.done.iter().map(|d| (d.cookie, d.len)).collect();
    assert_eq!(order, [(3, 100), (1, 1_000_000), (2, 100)]);
    let echo = net.done[2].at - net.done[1].at;
    assert!(echo < Time::from_micros(1), "the last two came back one after the other: {echo}");
}

/// Marks that come and go between single segments are each told at once, and the segment that tells is acknowledged
/// too: the sender never waits for the timer of a delayed acknowledgement.
#[test]
fn changes_of_marks_leave_no_segment_without_acknowledgement() {
    let mut net = Net::new(2, &TcpConfig { quick_acks: 0, ..TcpConfig::dctcp() }, Path::default(), 1);
    net.mark = Some(Box::new(|_, packet| packet.segment.seq / 1448 % 8 < 6));
    net.call(1, 0, 1, 1448 * 2000);
    net.run(Time::from_secs(1));
    let took = net.received[0].at;
    // Two segments a round trip of some 22 us, at worst.
    assert!(took < Time::from_millis(30), "{took}");
    assert!(net.total().marked > 500);
}

/// A window that shrinks for a mark while the application is silent is there again when it speaks (RFC 9937).
#[test]
fn a_mark_at_the_end_of_a_message_does_not_cost_the_next_one_its_window() {
    let mut net = Net::new(2, &TcpConfig { quick_acks: 0, ..TcpConfig::dctcp() }, Path::default(), 1);
    net.call(1, 0, 1, 1448 * 1000);
    net.run(Time::from_millis(10));
    net.mark = Some(Box::new(|_, packet| packet.segment.seq / 1448 >= 1050));
    net.call(1, 0, 2, 1448 * 101);
    // Until the last, delayed acknowledgement has come.
    net.run(Time::from_millis(60));
    assert!(net.total().reductions_by_mark > 0);
    net.mark = None;
    net.call(1, 0, 3, 1448 * 20);
    let before = net.now;
    net.run(Time::from_millis(200));
    let took = net.received[2].at - before;
    // All at once: 10 us of delay and 1.23 us a segment.
    assert!(took < Time::from_micros(36), "{took}");
}

/// The same calls give the same packets at the same times.
#[test]
fn a_run_repeats() {
    let run = |seed| {
        let path = Path { loss: 0.01, buffer: 100_000, ..Path::default() };
        let mut net = Net::new(4, &TcpConfig::default(), path, seed);
        net.echo = true;
        for i in 0..60 {
            net.call(1 + i % 3, 0, i as u64, 1000 + 37_123 * (i as u32 % 7));
        }
        net.run(Time::from_secs(2));
        assert_eq!(net.done.len(), 60);
        (net.done.clone(), net.total())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
