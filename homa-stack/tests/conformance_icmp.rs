//! ICMP in both directions and versions: errors about packets of ours are believed, made-up ones are not, and packets
//! to ports that nobody serves are refused (homa-protocol.md 1.10, 2.8, 11 #12).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use homa_stack::metrics::DropReason;
use homa_stack::wire::icmp::{MAX_REFUSAL, write_port_unreachable};
use homa_stack::wire::{DATA_HEADER_LEN, Kind, Packet};
use homa_stack::{Config, Endpoint, Event, Instant, Nanos, Payload, RpcError};

const PORT: u16 = 99;
const OTHER_PORT: u16 = 100;

/// Client, server and a third host, by IP version.
fn versions() -> [[IpAddr; 3]; 2] {
    let v6 = |n| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n));
    [[1, 2, 3].map(|n| Ipv4Addr::new(10, 0, 0, n).into()), [1, 2, 3].map(v6)]
}

/// One's-complement sum over what ICMP's checksum covers.
fn sum(bytes: &[u8], from: IpAddr, to: IpAddr) -> u16 {
    let mut all = bytes.to_vec();
    if all.len() % 2 == 1 {
        all.push(0);
    }
    if let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) {
        all.extend(from.octets().into_iter().chain(to.octets()));
        all.extend([0, 58]);
        all.extend((bytes.len() as u16).to_be_bytes());
    }
    let total: u32 = all.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    let folded = (total & 0xffff) + (total >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

/// What router or host `by` says to `us` about `packet`, which went to `to`: type, code and the header's last word.
fn icmp(by: IpAddr, us: IpAddr, to: IpAddr, packet: &[u8], code: [u8; 2], word: u32) -> Vec<u8> {
    let mut out = vec![0; MAX_REFUSAL];
    let len = write_port_unreachable(to, us, packet, packet.len(), &mut out);
    out.truncate(len);
    out[..2].copy_from_slice(&code);
    out[2..4].fill(0);
    out[4..8].copy_from_slice(&word.to_be_bytes());
    let checksum = !sum(&out, by, us);
    out[2..4].copy_from_slice(&checksum.to_be_bytes());
    out
}

/// Codes of an IP version: port, protocol, host unreachable, too big.
fn codes(us: IpAddr) -> [[u8; 2]; 4] {
    if us.is_ipv4() { [[3, 3], [3, 2], [3, 1], [3, 4]] } else { [[1, 4], [4, 1], [1, 3], [2, 0]] }
}

/// A client that has called port 99, port 100 of the server and port 99 of the third host, in this order (cookies 1 to
/// 3), and the packets that it sent.
fn client(hosts: [IpAddr; 3], config: Config, len: usize) -> (Endpoint, Vec<Vec<u8>>) {
    let mut core = Endpoint::new(config);
    let port = core.client_port().unwrap();
    let now = Instant::from_nanos(1);
    let mut packets = Vec::new();
    for (host, to, cookie) in [(1, PORT, 1), (1, OTHER_PORT, 2), (2, PORT, 3)] {
        core.call(now, port, SocketAddr::new(hosts[host], to), Payload::from(vec![7; len]), cookie).unwrap();
        packets.extend(sent(&mut core, now));
    }
    (core, packets)
}

fn sent(core: &mut Endpoint, now: Instant) -> Vec<Vec<u8>> {
    let mut out = vec![0; 9_000];
    std::iter::from_fn(|| core.poll_transmit(now, &mut out).map(|sent| out[..sent.len].to_vec())).collect()
}

/// Cookies, peers and errors of the calls that have failed.
fn failures(core: &mut Endpoint) -> Vec<(u64, SocketAddr, RpcError)> {
    let failed = std::iter::from_fn(|| core.poll_event()).map(|event| match event {
        Event::Failed { cookie, peer, error, .. } => (cookie, peer, error),
        other => panic!("{other:?}"),
    });
    let mut all: Vec<_> = failed.collect();
    all.sort_by_key(|failure| failure.0);
    all
}

#[test]
fn unreachables_end_the_rpcs_that_they_are_about() {
    for hosts in versions() {
        let [us, server, _] = hosts;
        let [port, protocol, host, _] = codes(us);
        for (code, error, cookies) in [
            (port, RpcError::PortUnreachable, &[1_u64][..]),
            (protocol, RpcError::ProtocolUnreachable, &[1, 2]),
            (host, RpcError::PeerUnreachable, &[1, 2]),
        ] {
            let (mut core, packets) = client(hosts, Config::default(), 100);
            core.handle_icmp(Instant::from_nanos(2), server, us, &icmp(server, us, server, &packets[0], code, 0));
            let expected: Vec<_> = cookies
                .iter()
                .map(|cookie| (*cookie, SocketAddr::new(server, [PORT, OTHER_PORT][*cookie as usize - 1]), error))
                .collect();
            assert_eq!(failures(&mut core), expected, "{code:?}");
            assert_eq!((core.metrics.icmp_errors, core.active_rpcs()), (1, 3 - cookies.len()), "{code:?}");
            core.check_invariants(std::iter::empty()).unwrap();
        }
    }
}

#[test]
fn made_up_errors_are_counted_and_change_nothing() {
    for hosts in versions() {
        let [us, server, third] = hosts;
        for code in codes(us) {
            let (mut core, packets) = client(hosts, Config::default(), 100);
            let forged = |change: &dyn Fn(&mut Vec<u8>), to| {
                let mut packet = packets[0].clone();
                change(&mut packet);
                icmp(server, us, to, &packet, code, 1400)
            };
            let attempts = [
                ("another id", forged(&|p| p[27] ^= 4, server)),
                ("a server's id", forged(&|p| p[27] ^= 1, server)),
                ("another port of ours", forged(&|p| p[1] ^= 1, server)),
                ("another port of the peer's", forged(&|p| p[3] ^= 7, server)),
                ("the peer of another RPC", forged(&|_| (), third)),
                ("data that were not sent", forged(&|p| p[6] = 1, server)),
                ("a packet that clients don't send", forged(&|p| p[11] = Kind::NeedAck.code(), server)),
                ("an answer that was not due", forged(&|p| p[11] = Kind::Grant.code(), server)),
            ];
            for (n, (what, bytes)) in attempts.iter().enumerate() {
                core.handle_icmp(Instant::from_nanos(2), server, us, bytes);
                assert_eq!(core.metrics.drops(DropReason::ForgedIcmp), n as u64 + 1, "{what}, {code:?}");
            }
            let stranger = icmp(server, us, us, &packets[0], code, 1400);
            core.handle_icmp(Instant::from_nanos(2), server, us, &stranger);
            let mut damaged = icmp(server, us, server, &packets[0], code, 1400);
            damaged[40] ^= 1;
            core.handle_icmp(Instant::from_nanos(2), server, us, &damaged);
            assert_eq!(core.metrics.drops(DropReason::Malformed), 1);
            assert_eq!((failures(&mut core), core.active_rpcs(), core.metrics.icmp_errors), (vec![], 3, 0));
            assert!(sent(&mut core, Instant::from_nanos(3)).is_empty());
        }
    }
}

#[test]
fn an_error_about_an_rpc_that_is_over_is_made_up() {
    for hosts in versions() {
        let [us, server, _] = hosts;
        let (mut core, packets) = client(hosts, Config::default(), 100);
        let refusal = icmp(server, us, server, &packets[0], codes(us)[0], 0);
        for _ in 0..2 {
            core.handle_icmp(Instant::from_nanos(2), server, us, &refusal);
        }
        assert_eq!(failures(&mut core).len(), 1);
        assert_eq!(core.metrics.drops(DropReason::ForgedIcmp), 1);
    }
}

/// As a refusal is made and sent by a device.
fn refusals(core: &mut Endpoint, us: IpAddr) -> Vec<(IpAddr, Vec<u8>)> {
    let all = std::iter::from_fn(|| core.poll_refusal()).map(|refusal| {
        let mut out = vec![0; MAX_REFUSAL];
        let len = write_port_unreachable(us, refusal.to, refusal.quote(), refusal.len, &mut out);
        (refusal.to, out[..len].to_vec())
    });
    all.collect()
}

#[test]
fn a_request_to_a_port_that_nobody_serves_is_refused() {
    for hosts in versions() {
        let [us, server_addr, _] = hosts;
        let (mut client, packets) = client(hosts, Config::default(), 100);
        let mut server = Endpoint::new(Config::default());
        server.bind(OTHER_PORT).unwrap();
        let now = Instant::from_nanos(2);
        server.handle_packet(now, us, &packets[0]);
        server.handle_packet(now, us, &packets[1]);
        let refused = refusals(&mut server, server_addr);
        let [(to, bytes)] = &refused[..] else { panic!("{refused:?}") };
        assert_eq!(*to, us);
        client.handle_icmp(now, server_addr, us, bytes);
        let failed = (1, SocketAddr::new(server_addr, PORT), RpcError::PortUnreachable);
        assert_eq!(failures(&mut client), [failed]);
        assert_eq!(server.metrics.refusals_sent, 1);
        // Many at once are not all answered.
        (0..1_000).for_each(|_| server.handle_packet(now, us, &packets[0]));
        assert!(refusals(&mut server, server_addr).len() < 60);
        assert!(server.metrics.refusals_withheld > 900);
    }
}

/// A server that answers a client whose port is gone is told so, and keeps nothing for it.
#[test]
fn a_response_to_a_port_that_was_closed_is_refused_and_its_server_forgets_it() {
    for [us, server_addr, _] in versions() {
        let (mut client, mut server) = (Endpoint::new(Config::default()), Endpoint::new(Config::default()));
        server.bind(PORT).unwrap();
        let port = client.client_port().unwrap();
        let now = Instant::from_nanos(1);
        for _ in 0..40 {
            client.call(now, port, SocketAddr::new(server_addr, PORT), Payload::from(vec![7; 100]), 0).unwrap();
        }
        for packet in sent(&mut client, now) {
            server.handle_packet(now, us, &packet);
        }
        client.unbind(port);
        while let Some(Event::Request { rpc, msg, .. }) = server.poll_event() {
            server.release(msg);
            server.reply(now, rpc, Payload::from(vec![8; 100])).unwrap();
        }
        for packet in sent(&mut server, now) {
            client.handle_packet(now, server_addr, &packet);
        }
        let refused = refusals(&mut client, us);
        assert!(!refused.is_empty());
        server.handle_icmp(now, us, server_addr, &refused[0].1);
        assert_eq!(server.active_rpcs(), 0, "one is enough: they all were for that port");
        server.check_invariants(std::iter::empty()).unwrap();
    }
}

/// Data bytes of the largest packet.
fn largest(packets: &[Vec<u8>]) -> usize {
    let data = packets.iter().filter_map(|bytes| match Packet::parse(bytes).unwrap().1 {
        Packet::Data(data) => Some(data.bytes.len()),
        _ => None,
    });
    data.max().unwrap_or(0)
}

/// All that was sent too large comes in smaller packets, at once for the packet that the network named.
#[test]
fn packets_become_smaller_when_the_path_does() {
    for hosts in versions() {
        let [us, server_addr, third] = hosts;
        let header = if us.is_ipv4() { 20 } else { 40 } + DATA_HEADER_LEN;
        let config = Config { mtu: 9_000, ..Config::default() };
        let (mut core, packets) = client(hosts, config.clone(), 30_000);
        assert_eq!(largest(&packets), 9_000 - header);
        let mut server = Endpoint::new(config);
        server.bind(PORT).unwrap();
        let (mut now, router, code) = (Instant::from_nanos(2), third, codes(us)[3]);
        // The first call's packets; all but the last, which is short, are too large for the path.
        core.handle_icmp(now, router, us, &icmp(router, us, server_addr, &packets[0], code, 1_400));
        assert_eq!((core.metrics.path_mtu_updates, core.metrics.icmp_errors), (1, 1));
        let again = sent(&mut core, now);
        assert_eq!(again.len(), (9_000 - header).div_ceil(1_400 - header), "the first packet, in smaller ones");
        assert!(largest(&again) <= 1_400 - header);
        for packet in again.iter().chain(&packets[3..4]) {
            server.handle_packet(now, us, packet);
        }
        // What else was lost comes in time, as for any loss.
        for _ in 0..100 {
            now = now + Nanos::from_micros(500);
            for (core, other, from) in [(&mut core, &mut server, us)] {
                core.handle_timeout(now);
                other.handle_timeout(now);
                for packet in sent(core, now) {
                    assert!(largest(std::slice::from_ref(&packet)) <= 1_400 - header);
                    other.handle_packet(now, from, &packet);
                }
                for packet in sent(other, now) {
                    core.handle_packet(now, server_addr, &packet);
                }
            }
        }
        let Some(Event::Request { rpc, msg, .. }) = server.poll_event() else { panic!("the request did not come") };
        assert_eq!(server.pieces(&msg).collect::<Vec<_>>().concat(), [7; 30_000]);
        server.release(msg);
        server.discard(rpc);
        core.check_invariants(std::iter::empty()).unwrap();
    }
}

#[test]
fn a_smaller_path_is_believed_for_ten_minutes_and_within_bounds() {
    for hosts in versions() {
        let [us, server, third] = hosts;
        let header = if us.is_ipv4() { 20 } else { 40 } + DATA_HEADER_LEN;
        let least = if us.is_ipv4() { 576 } else { 1_280 };
        for (told, mtu) in [(1_400, 1_400), (68, least), (0, least)] {
            let (mut core, packets) = client(hosts, Config::default(), 10_000);
            let mut now = Instant::from_nanos(2);
            core.handle_icmp(now, third, us, &icmp(third, us, server, &packets[0], codes(us)[3], told));
            // Larger than what is known: nothing new.
            core.handle_icmp(now, third, us, &icmp(third, us, server, &packets[1], codes(us)[3], 1_450));
            assert_eq!(core.metrics.drops(DropReason::ForgedIcmp), 1, "{told}");
            core.unbind(32_768);
            let port = core.client_port().unwrap();
            let call = |core: &mut Endpoint, now, to| {
                core.call(now, port, SocketAddr::new(to, PORT), Payload::from(vec![7; 10_000]), 4).unwrap();
                largest(&sent(core, now)) + header
            };
            assert_eq!(call(&mut core, now, server), mtu, "told {told}");
            assert_eq!(call(&mut core, now, third), 1_500, "another peer");
            now = now + Nanos::from_secs(601);
            assert_eq!(call(&mut core, now, server), 1_500);
        }
    }
}
