//! Packets recorded from the Linux kernel module: they can be read and written, and what one kernel host sent in an
//! exchange leads an endpoint that stands in for the other to the same end.
#![allow(unreachable_pub, reason = "modules of a test")]

#[path = "captured/recorded.rs"]
mod recorded;
#[path = "captured/replay.rs"]
mod replay;

use std::net::{IpAddr, Ipv4Addr};

use homa_stack::Nanos;
use homa_stack::wire::{Ack, AckRecord, Cutoffs, Data, Ends, Grant, Kind, OffsetForm, Packet, RESEND_ALL, Resend};
use homa_stack::wire::{checksum, fill_checksum, verify_checksum};
use recorded::{Recorded, encode, message, read};

const NODE0: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));

/// The ends of a packet from a server, whose port was always 4000.
const fn down(client_port: u16, sender_id: u64) -> Ends {
    Ends { sport: 4000, dport: client_port, sender_id }
}

/// The ends of a packet from a client.
const fn up(client_port: u16, sender_id: u64) -> Ends {
    Ends { sport: client_port, dport: 4000, sender_id }
}

/// A whole message of 100 bytes in one packet, as most are.
fn small() -> Data<'static> {
    Data {
        message_len: 100,
        incoming: 100,
        ack: None,
        cutoff_version: 1,
        retransmit: false,
        offset: 0,
        form: OffsetForm::SequenceOnly,
        bytes: &[],
    }
}

/// A packet from within a message of 500,000 bytes.
fn large(offset: u32) -> Data<'static> {
    Data { message_len: 500_000, incoming: 40_000, offset, ..small() }
}

/// What the packets of `packets.txt` mean, in their order: IP precedence, ends, packet without its data, and length of
/// the data. Found with tshark.
fn meanings() -> Vec<(u8, Ends, Packet<'static>, usize)> {
    let data = |data: Data<'static>| Packet::Data(data);
    let ack = |client_id| AckRecord { client_id, server_port: 4000 };
    let cutoffs = Cutoffs { table: [0, 0, 0, 0, 1_000_000, 15_000, 2_800, 200], version: 1 };
    let resent = Data { retransmit: true, form: OffsetForm::Both, ..small() };
    let resent_large = Data { retransmit: true, form: OffsetForm::Both, incoming: 300_592, ..large(297_744) };
    vec![
        (7, up(32769, 24228), data(small()), 100),
        (7, down(32769, 24229), data(small()), 100),
        (7, up(32769, 24230), data(Data { ack: Some(ack(24228)), ..small() }), 100),
        (7, down(32769, 24239), Packet::NeedAck, 0),
        (7, up(32769, 24238), Packet::Ack(Ack::new(&[ack(24238)])), 0),
        (7, up(32774, 59508), Packet::Resend(Resend { offset: 0, length: RESEND_ALL, priority: 7 }), 0),
        (7, down(32774, 59509), Packet::RpcUnknown, 0),
        (7, up(32774, 59508), data(resent), 100),
        (4, up(32770, 37312), data(large(39_872)), 128),
        (7, down(32770, 37313), Packet::Grant(Grant { offset: 228_480, priority: 0 }), 0),
        (7, down(32770, 37313), Packet::Grant(Grant { offset: 278_480, priority: 6 }), 0),
        (6, up(32770, 37312), data(large(499_952)), 48),
        (7, down(32770, 37313), Packet::Resend(Resend { offset: 195_216, length: 84_016, priority: 7 }), 0),
        (0, down(32770, 37313), data(large(499_952)), 48),
        (7, up(32770, 37324), Packet::Resend(Resend { offset: 297_744, length: 2_848, priority: 7 }), 0),
        (7, down(32770, 37325), data(resent_large), 1424),
        (7, up(32770, 37324), Packet::Ack(Ack::new(&[])), 0),
        (7, down(33059, 3_590_727_817), Packet::Cutoffs(cutoffs), 0),
        (6, down(33059, 3_590_727_817), data(Data { cutoff_version: 0, ..small() }), 100),
    ]
}

fn packets() -> Vec<Recorded> {
    read(include_str!("captured/packets.txt"))
}

#[test]
fn recorded_packets_mean_what_tshark_says() {
    let (recorded, meanings) = (packets(), meanings());
    assert_eq!(recorded.len(), meanings.len());
    for (packet, (priority, ends, mut meaning, data_len)) in recorded.iter().zip(meanings) {
        if let Packet::Data(data) = &mut meaning {
            data.bytes = &packet.bytes[56..];
            assert_eq!(data.bytes.len(), data_len, "{}", packet.origin);
        }
        assert_eq!(packet.packet(), (ends, meaning), "{}", packet.origin);
        assert_eq!(packet.priority, priority, "{}", packet.origin);
    }
}

#[test]
fn recorded_packets_are_written_byte_for_byte() {
    for recorded in packets() {
        let (ends, packet) = recorded.packet();
        let mut out = encode(ends, &packet);
        // The kernel leaves the checksum to the device: the field holds the sum of the pseudo-header alone, the
        // complement of the checksum of as many zeros.
        let left_to_device = !checksum(&vec![0; out.len()], recorded.from, recorded.to);
        out[16..18].copy_from_slice(&left_to_device.to_be_bytes());
        assert_eq!(out, recorded.bytes, "{}", recorded.origin);
        fill_checksum(&mut out, recorded.from, recorded.to);
        assert!(verify_checksum(&out, recorded.from, recorded.to), "{}", recorded.origin);
    }
}

#[test]
fn the_recorded_packets_are_of_seven_types() {
    let kinds: Vec<_> = packets().iter().map(|p| p.packet().1.kind()).collect();
    let missing: Vec<_> = Kind::ALL.into_iter().filter(|kind| !kinds.contains(kind)).collect();
    assert_eq!(missing, [Kind::Busy, Kind::Freeze], "the captures have none of these");
}

/// The two messages of the RPC that the client calls `id`.
fn messages(packets: &[Recorded], id: u64) -> (Vec<u8>, Vec<u8>) {
    let bytes = |id| message(packets.iter().map(|p| &p.bytes[..]), id).expect("the exchange is whole");
    (bytes(id), bytes(id | 1))
}

/// One request acknowledges the RPC before it, then the server asks for an ACK.
#[test]
fn a_recorded_exchange_completes_with_our_server_and_with_our_client() {
    let packets = read(include_str!("captured/small100.txt"));
    let ids = [24_236, 24_238];

    let mut server = replay::to_server(&packets, NODE0, &[]);
    for id in ids {
        let (request, response) = messages(&packets, id);
        assert_eq!(server.received[&(id | 1)], request);
        assert_eq!(server.sent_message(id | 1), Some(response));
    }
    assert_eq!(server.received.len(), 2);
    assert!(server.endpoint.is_quiet(), "acknowledged by the second request and by the ACK");
    assert_eq!(server.sent_kinds(), [Kind::Data, Kind::Data, Kind::NeedAck]);
    server.run_for(Nanos::from_secs(1));
    assert_eq!(server.sent.len(), 3, "nothing more to say");

    let client = replay::to_client(&packets, NODE0);
    for id in ids {
        let (request, response) = messages(&packets, id);
        assert_eq!(client.received[&id], response);
        assert_eq!(client.sent_message(id), Some(request));
    }
    assert_eq!(client.received.len(), 2);
    assert!(client.endpoint.is_quiet());
    assert_eq!(client.sent_kinds(), [Kind::Data, Kind::Data, Kind::Ack]);
    let Ok((_, Packet::Data(second))) = Packet::parse(&client.sent[1]) else { panic!("not DATA") };
    assert_eq!(second.ack, Some(AckRecord { client_id: 24_236, server_port: 4000 }));
    let Ok((ends, Packet::Ack(ack))) = Packet::parse(&client.sent[2]) else { panic!("not an ACK") };
    assert_eq!((ends, ack), (up(32769, 24_238), Ack::new(&[AckRecord { client_id: 24_238, server_port: 4000 }])));
}

/// The request is lost; RESEND, RPC_UNKNOWN, the request again.
#[test]
fn a_recorded_loss_is_made_good_with_our_server_and_with_our_client() {
    let packets = read(include_str!("captured/lossy100.txt"));
    let id = 59_508;
    let (request, response) = messages(&packets, id);

    let server = replay::to_server(&packets, NODE0, &["lossy_100-tap0 frame 43"]);
    assert_eq!(server.received.get(&(id | 1)), Some(&request));
    assert_eq!(server.sent_message(id | 1), Some(response.clone()));
    assert!(server.endpoint.is_quiet());
    assert_eq!(server.sent_kinds(), [Kind::RpcUnknown, Kind::Data, Kind::NeedAck]);

    let client = replay::to_client(&packets, NODE0);
    assert_eq!(client.received.get(&id), Some(&response));
    assert_eq!(client.sent_message(id), Some(request));
    assert!(client.endpoint.is_quiet());
    // RPC_UNKNOWN comes 4.5 ms after the request, before our RESEND at 5 ms.
    assert_eq!(client.sent_kinds(), [Kind::Data, Kind::Data, Kind::Ack]);
    let resent = |i: usize| matches!(Packet::parse(&client.sent[i]), Ok((_, Packet::Data(d))) if d.retransmit);
    assert_eq!([resent(0), resent(1)], [false, true]);
}

/// Without the recorded retransmission the server runs nothing, and our client asks by itself.
#[test]
fn the_replay_needs_the_packets_that_made_the_loss_good() {
    let packets = read(include_str!("captured/lossy100.txt"));
    let lost = ["lossy_100-tap0 frame 43", "lossy_100-tap0 frame 46"];
    let server = replay::to_server(&packets, NODE0, &lost);
    assert!(server.received.is_empty());
    assert_eq!(server.sent_kinds(), [Kind::RpcUnknown]);

    let mut client = replay::to_client(&packets[..1], NODE0);
    client.run_for(Nanos::from_millis(6));
    assert!(client.received.is_empty());
    assert_eq!(client.sent_kinds(), [Kind::Data, Kind::Resend]);
}
