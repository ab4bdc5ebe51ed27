//! Tests of putting events together to packets.

use super::*;
use crate::{hosts, testing::traces};

fn collect(nodes: &[(&str, &str)]) -> Packets {
    let mut traces = traces(nodes);
    hosts::resolve(&mut traces);
    Packets::collect(&traces)
}

const A: &str = "1 calling ip_queue_xmit: wire_bytes 218, peer 0xb, id 10, offset 0
    1.5 Finished queueing packet: rpc id 10, offset 0, len 100, qid 0
    2 sent homa data packet via afp to 0xb, id 10, offset 0, queue 0x0
    9 freeing tx skb for homa data, id 10, offset 0, qid 0, msg_length 100";
const B: &str = "5 homa_gro_receive got packet from 0xa id 11, offset 0, priority 5
    5.1 afp ring wait 700 ns for id 11, offset 0
    6 incoming data packet, id 11, peer 0xa, offset 0/100";

#[test]
fn a_packet_has_all_its_events() {
    let packets = collect(&[("a", A), ("b", B)]);
    assert_eq!(packets.data.packets.len(), 1);
    let packet = &packets.data.packets[0];
    let sent = packets.data.sent_of(packet).next().unwrap();
    assert_eq!((sent.xmit, sent.nic, sent.free, sent.length, sent.again), (1000, 2000, 9000, 100, false));
    let received = packets.data.received_of(packet).next().unwrap();
    assert_eq!((received.gro, received.softirq, received.ring()), (5000, 6000, Some(700)));
    assert_eq!(packets.messages[packet.message as usize].length, Some(100));
    assert_eq!(packets.lone_ring_waits, 0);
}

#[test]
fn repeated_events_are_kept_in_order() {
    let a = "1 calling ip_queue_xmit: wire_bytes 218, peer 0xb, id 10, offset 0
        2 sent homa data packet via afp to 0xb, id 10, offset 0, queue 0x0
        3 retransmitting offset 0, length 100, id 10
        4 calling ip_queue_xmit: wire_bytes 218, peer 0xb, id 10, offset 0
        5 sent homa data packet via afp to 0xb, id 10, offset 0, queue 0x0";
    let b = "6 homa_gro_receive got packet from 0xa id 11, offset 0, priority 5
        7 homa_gro_receive got packet from 0xa id 11, offset 0, priority 5
        8 incoming data packet, id 11, peer 0xa, offset 0/100
        9 incoming data packet, id 11, peer 0xa, offset 0/100";
    let packets = collect(&[("a", a), ("b", b)]);
    let packet = &packets.data.packets[0];
    let sent: Vec<_> = packets.data.sent_of(packet).map(|s| (s.xmit, s.nic, s.again)).collect();
    assert_eq!(sent, [(1000, 2000, false), (4000, 5000, true)]);
    let received: Vec<_> = packets.data.received_of(packet).map(|r| (r.gro, r.softirq)).collect();
    assert_eq!(received, [(6000, 8000), (7000, 9000)]);
    assert!(is_retransmitted(&packets.messages[0], 99) && !is_retransmitted(&packets.messages[0], 100));
}

#[test]
fn events_without_a_beginning_are_kept() {
    let packets = collect(&[
        ("a", "9 freeing tx skb for homa data, id 10, offset 0, qid 0, msg_length 100"),
        ("b", "6 incoming data packet, id 11, peer 0xa, offset 0/100\n7 afp ring wait 1 ns for id 11, offset 0"),
    ]);
    let data = &packets.data;
    let frees: Vec<_> = data.packets.iter().flat_map(|p| data.sent_of(p)).map(|s| (s.xmit, s.free)).collect();
    assert_eq!(frees, [(UNSEEN, 9000)]);
    let arrivals: Vec<_> = data.packets.iter().flat_map(|p| data.received_of(p)).map(|r| (r.gro, r.time())).collect();
    assert_eq!(arrivals, [(UNSEEN, 6000)]);
    assert_eq!(packets.lone_ring_waits, 1);
}

#[test]
fn a_completion_from_before_the_trace_does_not_shift_later_ones() {
    let a = "0 freeing tx skb for homa data, id 10, offset 0, qid 0, msg_length 100
        4 calling ip_queue_xmit: wire_bytes 218, peer 0xb, id 10, offset 0
        5 sent homa data packet via afp to 0xb, id 10, offset 0, queue 0x0
        9 freeing tx skb for homa data, id 10, offset 0, qid 0, msg_length 100";
    let packets = collect(&[("a", a)]);
    let sent: Vec<_> = packets.data.sent_of(&packets.data.packets[0]).map(|s| (s.xmit, s.nic, s.free)).collect();
    assert_eq!(sent, [(UNSEEN, UNSEEN, 0), (4000, 5000, 9000)]);
}

#[test]
fn segments_find_their_frame() {
    let a = "1 calling ip_queue_xmit: wire_bytes 4626, peer 0xb, id 10, offset 0
        2 Finished queueing packet: rpc id 10, offset 0, len 4272, qid 0
        3 calling ip_queue_xmit: wire_bytes 1542, peer 0xb, id 10, offset 4272";
    let b = "6 homa_gro_receive got packet from 0xa id 11, offset 0, priority 5
        6 homa_gro_receive got packet from 0xa id 11, offset 2848, priority 5
        6 homa_gro_receive got packet from 0xa id 11, offset 4272, priority 5
        6 homa_gro_receive got packet from 0xa id 11, offset 9000, priority 5";
    let packets = collect(&[("a", a), ("b", b)]);
    let mut frames: Vec<_> = packets.data.packets.iter().map(|p| (p.offset, p.frame())).collect();
    frames.sort_unstable();
    assert_eq!(frames, [(0, None), (2848, Some(0)), (4272, None), (9000, None)]);
}

#[test]
fn the_ring_wait_of_a_control_packet_is_not_that_of_the_data_before() {
    let b = format!(
        "{B}
        7 homa_gro_receive got packet from 0xa id 11, type 0x17, priority 7
        7 afp ring wait 9 ns for id 11, offset 0"
    );
    let packets = collect(&[("a", A), ("b", &b)]);
    let received = packets.data.received_of(&packets.data.packets[0]).next().unwrap();
    assert_eq!((received.ring(), packets.lone_ring_waits), (Some(700), 0));
}

#[test]
fn a_discarded_packet_does_not_take_the_softirq_of_the_next() {
    let b = "5 homa_gro_receive got packet from 0xa id 11, offset 0, priority 5
        6 Discarding packet for unknown RPC, id 11, type 16, peer 0xa:4000
        20 homa_gro_receive got packet from 0xa id 11, offset 0, priority 5
        21 incoming data packet, id 11, peer 0xa, offset 0/100";
    let packets = collect(&[("a", A), ("b", b)]);
    let received: Vec<_> =
        packets.data.received_of(&packets.data.packets[0]).map(|r| (r.gro, r.softirq, r.discarded)).collect();
    assert_eq!(received, [(5000, UNSEEN, true), (20_000, 21_000, false)]);
}
