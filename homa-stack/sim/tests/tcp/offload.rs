//! Bursts: acknowledgements of what a host hands over at once, and what senders make of them.

use homa_sim::tcp::{Segment, Tcp, TcpConfig};
use homa_sim::{Call, Ecn, HostId, Packet, Port, Time, Transport};

/// A message of full segments, as many as the window has room for: the packets, and the hosts.
fn sent(segments: u32, config: &TcpConfig) -> (Vec<Packet<Segment>>, Vec<Tcp>, Port<Segment>) {
    let mut hosts = Tcp::hosts(2, config);
    let mut port = Port::new(HostId(0));
    let len = config.mss() * segments;
    hosts[0].call(Time::ZERO, Call { cookie: 1, to: HostId(1), client_port: 0, server_port: 0, len });
    hosts[0].turn(Time::ZERO, &mut port);
    let packets = port.sent().collect();
    (packets, hosts, port)
}

/// Acknowledgements of 100 full segments that come `batch` at a time.
fn acks(batch: usize, config: &TcpConfig, marked: impl Fn(usize) -> bool) -> usize {
    let config = TcpConfig { initial_window: 200, quick_acks: 0, ..config.clone() };
    let (mut packets, mut hosts, _) = sent(100, &config);
    assert_eq!(packets.len(), 100);
    let mut port = Port::new(HostId(1));
    let mut count = 0;
    packets.iter_mut().enumerate().filter(|(n, _)| marked(*n)).for_each(|(_, p)| p.ecn = Ecn::Experienced);
    for batch in packets.chunks(batch) {
        batch.iter().for_each(|packet| port.deliver(packet.clone()));
        hosts[1].turn(Time::from_micros(9), &mut port);
        count += port.sent().count();
    }
    count
}

#[test]
fn segments_that_come_at_once_are_acknowledged_64_kb_at_a_time() {
    let (tcp, dctcp) = (TcpConfig::default(), TcpConfig::dctcp());
    let none = |_: usize| false;
    assert_eq!(acks(1, &tcp, none), 50, "every second");
    assert_eq!(acks(10, &tcp, none), 10);
    // 65,483 bytes hold 45 segments of 1448 bytes.
    assert_eq!(acks(100, &tcp, none), 3);
    assert_eq!(acks(100, &TcpConfig { merge: 10 * 1448, ..tcp.clone() }, none), 10);
    assert_eq!(acks(100, &TcpConfig { merge: 0, ..tcp }, none), 50);
    // Marks end what is merged: 45, 5, 45 and 5 segments.
    assert_eq!(acks(100, &dctcp, |n| n >= 50), 4);
    assert_eq!(acks(100, &dctcp, |n| n % 10 == 5), 21, "with each change");
}

/// Lengths of the bursts of a sender whose receiver has room for 30 segments, once segments are acknowledged one by one,
/// 10 us apart.
fn bursts(config: &TcpConfig) -> Vec<usize> {
    let receive_window = 30 * config.mss();
    let config = TcpConfig { initial_window: 100, hystart: false, receive_window, ..config.clone() };
    let (packets, mut hosts, mut port) = sent(1000, &config);
    assert!((28..=30).contains(&packets.len()));
    let end = |p: &Packet<Segment>| p.segment.seq + u64::from(p.segment.len);
    let mut under_way: std::collections::VecDeque<_> = packets.iter().map(end).collect();
    let mut bursts = Vec::new();
    for n in 0..500 {
        let now = Time::from_micros(290 + 10 * n);
        let Some(ack) = under_way.pop_front() else { break };
        let mut packet = packets[0].clone();
        (packet.from, packet.to) = (HostId(1), HostId(0));
        (packet.segment.seq, packet.segment.len, packet.segment.ack) = (0, 0, ack);
        port.deliver(packet);
        hosts[0].turn(now, &mut port);
        let before = under_way.len();
        under_way.extend(port.sent().map(|p| end(&p)));
        bursts.push(under_way.len() - before);
    }
    bursts.retain(|burst| *burst > 0);
    // The first round trips are of other lengths.
    bursts.split_off(8)
}

#[test]
fn a_sender_waits_for_a_third_of_the_window() {
    let config = TcpConfig::default();
    assert_eq!(bursts(&config)[..40], [10; 40]);
    assert_eq!(bursts(&TcpConfig { defer: false, ..config.clone() })[..490], [1; 490]);
    assert_eq!(bursts(&TcpConfig { offload: 0, ..config.clone() })[..490], [1; 490]);
    // An offloaded segment is less than a third of the window.
    assert_eq!(bursts(&TcpConfig { offload: 4 * 1448, ..config })[..100], [4; 100]);
}
