//! Losses.

use homa_sim::Time;
use homa_sim::tcp::{Congestion, TcpConfig};

use crate::net::{Net, Path};

/// Nothing gets through: the time-outs double from the initial second on, and the first segment alone is sent.
#[test]
fn timeouts_double_while_nothing_gets_through() {
    let mut net = Net::new(2, &TcpConfig::default(), Path { loss: 1.0, ..Path::default() }, 1);
    net.call(1, 0, 1, 1000);
    let mut counts = Vec::new();
    for s in [0.9, 1.1, 2.9, 3.1, 6.9, 7.1, 14.9, 15.1] {
        net.run(Time::from_micros_f64(s * 1e6));
        counts.push(net.total().timeouts);
    }
    assert_eq!(counts, [0, 1, 1, 2, 2, 3, 3, 4]);
    assert_eq!(net.total().data_segments, 5);
}

/// With a measured round trip the first time-out comes at the minimum, 200 ms, after it.
#[test]
fn the_least_timeout_is_that_of_linux() {
    let mut net = Net::new(2, &TcpConfig::default(), Path::default(), 1);
    net.echo = true;
    net.call(1, 0, 1, 1000);
    net.run(Time::from_millis(100));
    let since = net.now;
    net.lose = Some(Box::new(move |now, packet| packet.from.0 == 1 && now < since + Time::from_millis(199)));
    net.call(1, 0, 2, 1000);
    net.run(Time::from_secs(1));
    let took = net.done[1].at - since;
    // A single segment: the probe's time is that of the time-out.
    assert!(took > Time::from_millis(200) && took < Time::from_micros(200_200), "{took}");
    assert_eq!(net.total().resent, 1);
}

/// A lost segment in the middle comes again after about one round trip more, by a fast retransmission.
#[test]
fn a_loss_in_the_middle_costs_a_round_trip() {
    let took = |lose: bool| {
        let path = Path { delay: Time::from_millis(1), ..Path::default() };
        let mut net = Net::new(2, &TcpConfig::default(), path, 1);
        let mut first = lose;
        net.lose = Some(Box::new(move |_, packet| packet.segment.seq == 1448 * 3 && std::mem::take(&mut first)));
        net.call(1, 0, 1, 1448 * 10);
        net.run(Time::from_secs(1));
        let total = net.total();
        assert_eq!((total.resent, total.recoveries, total.timeouts), (u64::from(lose), u64::from(lose), 0));
        assert_eq!(total.duplicates, 0);
        net.received[0].at.as_secs_f64()
    };
    let extra = took(true) - took(false);
    assert!((extra / 2e-3 - 1.0).abs() < 0.01, "{extra} s for a round trip of 2 ms");
}

/// The last segments of a message are lost: a probe brings them back after two round trips and two ticks; without
/// probes it takes a time-out.
#[test]
fn a_lost_tail_is_repaired_by_a_probe() {
    let took = |tail_loss_probe, lost: u64| {
        let path = Path { delay: Time::from_millis(1), ..Path::default() };
        let mut net = Net::new(2, &TcpConfig { tail_loss_probe, ..TcpConfig::default() }, path, 1);
        net.call(1, 0, 1, 1448 * 10);
        net.run(Time::from_millis(200));
        let (since, end) = (net.now, 1448 * 20);
        let mut left = lost;
        net.lose = Some(Box::new(move |_, packet| {
            let lose = packet.segment.seq >= end - 1448 * lost && left > 0;
            left -= u64::from(lose);
            lose
        }));
        net.call(1, 0, 2, 1448 * 10);
        net.run(Time::from_secs(2));
        assert_eq!((net.total().duplicates, net.dropped), (0, lost));
        (net.received[1].at - since).as_secs_f64() * 1e3
    };
    // 2 + 2 + 8 ms after the last acknowledgement, which came after 2 ms; then 1 ms to the receiver.
    let one = took(true, 2);
    assert!((12.9..17.5).contains(&one), "{one} ms");
    let without = took(false, 2);
    assert!((203.0..208.0).contains(&without), "{without} ms");
}

/// Whatever is lost, all messages come, none twice.
#[test]
fn messages_survive_heavy_loss() {
    for (seed, loss, congestion) in [
        (1, 0.3, Congestion::Cubic),
        (2, 0.1, Congestion::Dctcp),
        (3, 0.2, Congestion::Reno),
        (4, 0.02, Congestion::Cubic),
    ] {
        let mut net =
            Net::new(3, &TcpConfig { congestion, ..TcpConfig::default() }, Path { loss, ..Path::default() }, seed);
        net.echo = true;
        for i in 0..40 {
            net.call(1 + i % 2, 0, i as u64, 100 + 9_876 * (i as u32 % 10));
        }
        net.run(Time::from_secs(1000));
        let mut cookies: Vec<_> = net.done.iter().map(|d| d.cookie).collect();
        cookies.sort_unstable();
        assert_eq!(cookies, (0..40).collect::<Vec<_>>(), "loss {loss}");
        assert!(net.total().resent >= net.dropped, "loss {loss}");
    }
}
