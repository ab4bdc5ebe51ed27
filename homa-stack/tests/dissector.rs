//! The Wireshark dissector `scripts/homa.lua`, run by tshark over packets that this crate wrote.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;

use homa_stack::wire::{
    Ack, AckRecord, Cutoffs, Data, Ends, Grant, IPPROTO_HOMA, Kind, OffsetForm, RESEND_ALL, Resend, fill_checksum,
    write_bare,
};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const TO_SERVER: Ends = Ends { sport: 32768, dport: 99, sender_id: 1234 };
const TO_CLIENT: Ends = Ends { sport: 99, dport: 32768, sender_id: 1235 };
const TCP: u8 = 6;
const ICMP: u8 = 1;

/// A capture file, frame by frame.
struct Pcap {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Pcap {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("dissector-{name}.pcap"));
        let mut bytes = Vec::new();
        // Magic number, version 2.4, time zone and accuracy, longest frame, link type Ethernet.
        for word in [0xa1b2_c3d4_u32, 0x0002_0004, 0, 0, 65_535, 1] {
            bytes.extend(word.to_be_bytes());
        }
        Self { path, bytes }
    }

    /// Adds a frame of which the first `captured` bytes were kept.
    fn frame_cut(&mut self, frame: &[u8], captured: usize) {
        let kept = &frame[..captured];
        for word in [0, 0, kept.len() as u32, frame.len() as u32] {
            self.bytes.extend(word.to_be_bytes());
        }
        self.bytes.extend(kept);
    }

    fn frame(&mut self, frame: &[u8]) {
        self.frame_cut(frame, frame.len());
    }

    /// What tshark prints about the capture when run with `args`.
    fn tshark(&self, with_script: bool, args: &[&str]) -> String {
        std::fs::write(&self.path, &self.bytes).unwrap();
        let mut tshark = tshark();
        if with_script {
            tshark.arg("-X").arg(format!("lua_script:{}", script().display()));
        }
        let out = tshark.arg("-r").arg(&self.path).args(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success() && !stderr.contains("homa.lua"), "tshark {args:?}: {stderr}");
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(!text.contains("Lua Error"), "{text}");
        text
    }

    /// All fields of the dissector that each frame has, as `name=value`, several values of one separated by commas.
    /// The prefix `homa.` is left out.
    fn fields(&self) -> Vec<String> {
        let names = field_names();
        let mut args = vec!["-T", "fields", "-E", "separator=|"];
        for name in &names {
            args.extend(["-e", name]);
        }
        let present = |line: &str| {
            // Wireshark 4.0 prints 0 and 1 for these.
            let line = line.replace("False", "0").replace("True", "1");
            let fields = names.iter().zip(line.split('|')).filter(|(_, value)| !value.is_empty());
            fields.map(|(name, value)| format!("{}={value}", &name[5..])).collect::<Vec<_>>().join(" ")
        };
        self.tshark(true, &args).lines().map(present).collect()
    }

    /// One column or field of all frames.
    fn column(&self, name: &str) -> Vec<String> {
        self.tshark(true, &["-T", "fields", "-e", name]).lines().map(str::to_owned).collect()
    }
}

fn script() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/homa.lua")
}

/// tshark without the user's settings and plugins.
fn tshark() -> Command {
    let found = Command::new("tshark").arg("--version").output();
    assert!(found.is_ok(), "tshark is missing: install the package tshark, or run `scripts/test` as root");
    let mut tshark = Command::new("tshark");
    tshark.env("WIRESHARK_CONFIG_DIR", env!("CARGO_TARGET_TMPDIR"));
    tshark
}

/// Names of the dissector's fields in the order of the script, as tshark lists them. The data and the parts that only
/// group others are left out.
fn field_names() -> Vec<String> {
    // `-G` must come first.
    let out = tshark().args(["-G", "fields", "-X"]).arg(format!("lua_script:{}", script().display())).output();
    let listed = String::from_utf8(out.unwrap().stdout).unwrap();
    let rows = listed.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let ours = rows.filter(|row| row[0] == "F" && row[2].starts_with("homa.") && row[3] != "FT_NONE");
    let mut names: Vec<String> = ours.map(|row| row[2].to_owned()).filter(|name| name != "homa.data").collect();
    names.sort();
    names
}

/// An Ethernet frame around an IP packet.
fn frame(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x08, 0x00]);
            frame.extend(ipv4(from, to, protocol, payload));
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((payload.len() as u16).to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
            frame.extend(payload);
        }
        _ => panic!("addresses of two kinds"),
    }
    frame
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

fn data() -> Data<'static> {
    Data {
        message_len: 5000,
        incoming: 4000,
        ack: None,
        cutoff_version: 0,
        retransmit: false,
        offset: 1424,
        form: OffsetForm::Both,
        bytes: b"sixteen bytes...",
    }
}

/// Bytes of `data` from the client, with the checksum.
fn written(data: &Data<'_>) -> Vec<u8> {
    let mut out = [0; 200];
    let n = data.write_header(TO_SERVER, &mut out);
    out[n..n + data.bytes.len()].copy_from_slice(data.bytes);
    checked(&mut out[..n + data.bytes.len()], TO_SERVER)
}

fn checked(packet: &mut [u8], ends: Ends) -> Vec<u8> {
    let (from, to) = addresses(ends);
    fill_checksum(packet, from, to);
    packet.to_vec()
}

fn addresses(ends: Ends) -> (IpAddr, IpAddr) {
    if ends == TO_SERVER { (CLIENT, SERVER) } else { (SERVER, CLIENT) }
}

/// A packet of each type, with its ends: DATA in all forms, the others with all their fields set.
fn all_types() -> Vec<(Vec<u8>, Ends)> {
    let record = |client_id| AckRecord { client_id, server_port: 99 };
    let mut packets = vec![
        (written(&data()), TO_SERVER),
        (written(&Data { form: OffsetForm::SequenceOnly, ack: Some(record(1230)), ..data() }), TO_SERVER),
        (written(&Data { form: OffsetForm::SegmentOnly { sequence: 7 }, retransmit: true, ..data() }), TO_SERVER),
        (written(&Data { cutoff_version: 9, bytes: b"", ..data() }), TO_SERVER),
    ];
    let mut add = |ends: Ends, write: &dyn Fn(&mut [u8]) -> usize| {
        let mut out = [0; 80];
        let n = write(&mut out);
        packets.push((checked(&mut out[..n], ends), ends));
    };
    add(TO_CLIENT, &|out| Grant { offset: 200_000, priority: 3 }.write(TO_CLIENT, out));
    add(TO_SERVER, &|out| Resend { offset: 1424, length: 2848, priority: 7 }.write(TO_SERVER, out));
    add(TO_SERVER, &|out| Resend { offset: 0, length: RESEND_ALL, priority: 6 }.write(TO_SERVER, out));
    add(TO_CLIENT, &|out| write_bare(Kind::RpcUnknown, TO_CLIENT, out));
    add(TO_CLIENT, &|out| write_bare(Kind::Busy, TO_CLIENT, out));
    let table = [0, 1, 2, 3, 1_000_000, 15_000, 2_800, 200];
    add(TO_CLIENT, &|out| Cutoffs { table, version: 258 }.write(TO_CLIENT, out));
    add(TO_SERVER, &|out| write_bare(Kind::Freeze, Ends { dport: 0, sender_id: 0, ..TO_SERVER }, out));
    add(TO_CLIENT, &|out| write_bare(Kind::NeedAck, TO_CLIENT, out));
    add(TO_SERVER, &|out| Ack::new(&[record(1230), record(1 << 40)]).write(TO_SERVER, out));
    packets
}

/// The capture of `packets` as they are, or hijacked.
fn capture(name: &str, packets: &[(Vec<u8>, Ends)], protocol: u8) -> Pcap {
    let mut pcap = Pcap::new(name);
    for (packet, ends) in packets {
        let (from, to) = addresses(*ends);
        pcap.frame(&frame(from, to, protocol, packet));
    }
    pcap
}

/// What every packet has.
const EVERYWHERE: [&str; 7] =
    ["checksum.status=1", "flags=0x06", "hijacked=0", "reserved=0", "unused=0x000000", "urgent=0xb97d", "window=0"];

fn without_constants(line: &str) -> String {
    let (constant, rest): (Vec<_>, Vec<_>) = line.split(' ').partition(|field| EVERYWHERE.contains(field));
    assert_eq!(constant, EVERYWHERE, "{line}");
    rest.join(" ")
}

#[test]
fn all_fields_of_all_types_are_shown() {
    let packets = all_types();
    let fields = capture("native", &packets, IPPROTO_HOMA).fields();
    // Fields in order of their names; those of `EVERYWHERE` are left out.
    let expected = [
        "ack.id=0 ack.port=0 checksum=0x66fd cutoff_version=0 data_length=16 doff=14 dport=99 from_client=1 \
         id=1234 incoming=4000 message_length=5000 offset=1424 pad=0x000000 port=32768,99 retransmit=0 \
         rpc=1234 seg_offset=1424 sequence=1424 sport=32768 type=0x10",
        "ack.id=1230 ack.port=99 checksum=0x675c cutoff_version=0 data_length=16 doff=14 dport=99 \
         from_client=1 id=1234 incoming=4000 message_length=5000 offset=1424 pad=0x000000 port=32768,99 \
         retransmit=0 rpc=1234 seg_offset=-1 sequence=1424 sport=32768 type=0x10",
        "ack.id=0 ack.port=0 checksum=0x6b86 cutoff_version=0 data_length=16 doff=14 dport=99 from_client=1 \
         id=1234 incoming=4000 message_length=5000 offset=1424 pad=0x000000 port=32768,99 retransmit=1 \
         rpc=1234 seg_offset=1424 sequence=7 sport=32768 type=0x10",
        "ack.id=0 ack.port=0 checksum=0x9ea3 cutoff_version=9 data_length=0 doff=14 dport=99 from_client=1 \
         id=1234 incoming=4000 message_length=5000 offset=1424 pad=0x000000 port=32768,99 retransmit=0 \
         rpc=1234 seg_offset=1424 sequence=1424 sport=32768 type=0x10",
        "checksum=0x4cc7 doff=5 dport=32768 from_client=0 grant.offset=200000 grant.priority=3 id=1235 \
         port=99,32768 rpc=1234 sequence=0 sport=99 type=0x11",
        "checksum=0x4556 doff=5 dport=99 from_client=1 id=1234 port=32768,99 resend.length=2848 \
         resend.offset=1424 resend.priority=7 rpc=1234 sequence=0 sport=32768 type=0x12",
        "checksum=0x5706 doff=5 dport=99 from_client=1 id=1234 port=32768,99 resend.length=-1 \
         resend.offset=0 resend.priority=6 rpc=1234 sequence=0 sport=32768 type=0x12",
        "checksum=0x5d0d doff=5 dport=32768 from_client=0 id=1235 port=99,32768 rpc=1234 sequence=0 \
         sport=99 type=0x13",
        "checksum=0x5d0c doff=5 dport=32768 from_client=0 id=1235 port=99,32768 rpc=1234 sequence=0 \
         sport=99 type=0x14",
        "checksum=0xd341 cutoffs.level0=0 cutoffs.level1=1 cutoffs.level2=2 cutoffs.level3=3 \
         cutoffs.level4=1000000 cutoffs.level5=15000 cutoffs.level6=2800 cutoffs.level7=200 \
         cutoffs.version=258 doff=5 dport=32768 from_client=0 id=1235 port=99,32768 rpc=1234 sequence=0 \
         sport=99 type=0x15",
        "checksum=0x6240 doff=5 dport=0 id=0 port=32768,0 rpc=0 sequence=0 sport=32768 type=0x16",
        "checksum=0x5d09 doff=5 dport=32768 from_client=0 id=1235 port=99,32768 rpc=1234 sequence=0 \
         sport=99 type=0x17",
        "ack.count=2 ack.id=1230,1099511627776 ack.port=99,99 \
         ack.unused=000000000000000000000000000000000000000000000000000000000000 checksum=0x563f doff=5 \
         dport=99 from_client=1 id=1234 port=32768,99 rpc=1234 sequence=0 sport=32768 type=0x18",
    ];
    for (found, expected) in fields.iter().zip(expected) {
        assert_eq!(without_constants(found), expected);
    }
    assert_eq!(fields.len(), expected.len());
    let shown: BTreeSet<_> = fields.iter().flat_map(|line| line.split(' ')).map(|f| f.split('=').next()).collect();
    let all = field_names();
    let unseen: Vec<_> = all.iter().filter(|name| !shown.contains(&Some(&name[5..]))).collect();
    assert_eq!(unseen, ["homa.trailer"], "fields that no packet of the test has");

    let hijacked = capture("hijacked", &packets, TCP).fields();
    let native: Vec<_> = hijacked.iter().map(|line| line.replace(" hijacked=1 ", " hijacked=0 ")).collect();
    assert_ne!(hijacked, native);
    assert_eq!(native, fields, "the same bytes in the guise of TCP");
}

#[test]
fn the_info_column_sums_up_each_packet() {
    for (name, protocol) in [("info-native", IPPROTO_HOMA), ("info-hijacked", TCP)] {
        let pcap = capture(name, &all_types(), protocol);
        let expected = [
            "DATA id 1234 1424+16/5000",
            "DATA id 1234 1424+16/5000 ack 1230",
            "DATA id 1234 1424+16/5000 retransmitted",
            "DATA id 1234 1424+0/5000",
            "GRANT id 1235 up to 200000 priority 3",
            "RESEND id 1234 1424+2848 priority 7",
            "RESEND id 1234 0+all priority 6",
            "RPC_UNKNOWN id 1235",
            "BUSY id 1235",
            "CUTOFFS id 1235 version 258",
            "FREEZE id 0",
            "NEED_ACK id 1235",
            "ACK id 1234 ack 1230 ack 1099511627776",
        ];
        assert_eq!(pcap.column("_ws.col.Info"), expected, "{name}");
        assert_eq!(pcap.column("_ws.col.Protocol"), ["Homa"; 13], "{name}");
        assert!(pcap.column("_ws.expert.message").iter().all(String::is_empty), "{name}");
    }
}

#[test]
fn packets_that_no_receiver_may_use_are_marked() {
    let packet = |at: usize, bytes: &[u8]| {
        let mut packet = written(&data());
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        checked(&mut packet, TO_SERVER)
    };
    let ack = |count: u8, id: u8| {
        let mut out = [0; 80];
        Ack::new(&[AckRecord { client_id: 2, server_port: 99 }]).write(TO_SERVER, &mut out);
        (out[29], out[37]) = (count, id);
        checked(&mut out, TO_SERVER)
    };
    let mut wrong_sum = written(&data());
    wrong_sum[16] ^= 1;
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (packet(11, &[0x0f]), "Unknown packet type 0x0f: expected 0x10 to 0x18"),
        (packet(11, &[0x19]), "Unknown packet type 0x19: expected 0x10 to 0x18"),
        (checked(&mut written(&data())[..55], TO_SERVER), "DATA header cut short: 55 of 56 bytes"),
        (checked(&mut all_types()[4].0[..32], TO_CLIENT), "GRANT header cut short: 32 of 33 bytes"),
        (checked(&mut all_types()[5].0[..36], TO_SERVER), "RESEND header cut short: 36 of 37 bytes"),
        (checked(&mut all_types()[7].0[..27], TO_CLIENT), "RPC_UNKNOWN header cut short: 27 of 28 bytes"),
        (checked(&mut all_types()[9].0[..61], TO_CLIENT), "CUTOFFS header cut short: 61 of 62 bytes"),
        (checked(&mut all_types()[12].0[..79], TO_SERVER), "ACK header cut short: 79 of 80 bytes"),
        (vec![0x80, 0, 0], "Homa header cut short: 3 of 28 bytes"),
        (packet(28, &[0; 4]), "Message length 0: expected 1 to 1000000"),
        (packet(28, &1_000_001_u32.to_be_bytes()), "Message length 1000001: expected 1 to 1000000"),
        (packet(28, &1439_u32.to_be_bytes()), "Data 1424 to 1440 of a message of 1439 bytes"),
        (packet(52, &5000_u32.to_be_bytes()), "Data 5000 to 5016 of a message of 5000 bytes"),
        (packet(52, &0xffff_fffe_u32.to_be_bytes()), "Data 4294967294 to 4294967310 of a message of 5000 bytes"),
        (packet(20, &[0; 8]), "RPC id 0"),
        (ack(6, 2), "More acknowledgements than fit"),
        (ack(1, 3), "Acknowledgement of an id that no client has"),
        (wrong_sum, "Bad checksum, which no receiver of native packets looks at"),
    ];
    let mut pcap = Pcap::new("bad");
    for (packet, _) in &cases {
        // The first byte tells the ends: ports 99 and 32768.
        let (from, to) = addresses(if packet[0] == 0 { TO_CLIENT } else { TO_SERVER });
        pcap.frame(&frame(from, to, IPPROTO_HOMA, packet));
    }
    let expected: Vec<_> = cases.iter().map(|(_, message)| *message).collect();
    assert_eq!(pcap.column("_ws.expert.message"), expected);
    // The first fourteen are malformed; receivers cope with the others.
    let malformed: Vec<_> = pcap.column("_ws.malformed").iter().map(|m| !m.is_empty()).collect();
    assert_eq!(malformed, (0..cases.len()).map(|i| i < 14).collect::<Vec<_>>());
}

#[test]
fn genuine_tcp_is_shown_as_without_the_dissector() {
    let segment = |flags: u8, urgent: u16, data: &[u8]| {
        let mut segment = vec![0x80, 0, 0, 99, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xfa, 0xf0, 0, 0];
        segment.extend(urgent.to_be_bytes());
        segment.extend(data);
        checked(&mut segment, TO_SERVER)
    };
    let mut pcap = Pcap::new("tcp");
    for segment in [
        segment(0x02, 0, b""),
        segment(0x02, 0xb97d, b""),
        segment(0x06, 0, b"SYN and RST but not the urgent pointer"),
        segment(0x26, 0xb97d, b"the urgent flag too"),
        segment(0x10, 0, b"data"),
        segment(0x10, 0, b"")[..10].to_vec(),
    ] {
        pcap.frame(&frame(CLIENT, SERVER, TCP, &segment));
    }
    let whole = frame(CLIENT, SERVER, TCP, &segment(0x10, 0, b"and a capture cut short"));
    pcap.frame_cut(&whole, 14 + 20 + 15);
    // The list of protocols names what decided that it is TCP.
    let shown = |with_script: bool| pcap.tshark(with_script, &["-V"]).replace(":homa_or_tcp:tcp", ":tcp");
    let plain = shown(false);
    assert!(plain.matches("Transmission Control Protocol").count() >= 5 && !plain.contains("Homa"), "{plain}");
    assert_eq!(shown(true), plain);
    let summary = |with_script: bool| pcap.tshark(with_script, &[]);
    assert_eq!(summary(true), summary(false));
}

/// Status 0: bad, 1: good, 2: not looked at, 3: left to the network device.
#[test]
fn the_checksum_is_that_of_tcp_over_both_versions_of_ip() {
    let from: IpAddr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into();
    let to: IpAddr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).into();
    let mut pcap = Pcap::new("checksums");
    let mut packet = written(&Data { bytes: b"odd length", ..data() });
    pcap.frame(&frame(CLIENT, SERVER, IPPROTO_HOMA, &packet));
    pcap.frame(&frame(from, to, IPPROTO_HOMA, &packet));
    fill_checksum(&mut packet, from, to);
    pcap.frame(&frame(from, to, IPPROTO_HOMA, &packet));
    pcap.frame(&frame(from, to, TCP, &packet));
    // The pseudo-header alone: 0a00 + 0001 + 0a00 + 0002 + 6 + 56 + 10.
    packet[16..18].copy_from_slice(&0x144b_u16.to_be_bytes());
    let whole = frame(CLIENT, SERVER, IPPROTO_HOMA, &packet);
    pcap.frame(&whole);
    pcap.frame_cut(&whole, whole.len() - 1);
    assert_eq!(pcap.column("homa.checksum.status"), ["1", "0", "1", "1", "3", "2"]);
}

#[test]
fn padding_is_no_data_and_a_capture_cut_short_no_fault() {
    let mut pcap = Pcap::new("lengths");
    let mut padded = frame(CLIENT, SERVER, IPPROTO_HOMA, &written(&data()));
    padded.extend([0xee; 30]);
    pcap.frame(&padded);
    // Twenty of the header's bytes, no RPC id.
    pcap.frame_cut(&padded, 14 + 20 + 20);
    pcap.frame_cut(&padded, 14 + 20 + 58);
    let mut grant = all_types().swap_remove(4).0;
    grant.extend([0xee; 2]);
    pcap.frame(&frame(SERVER, CLIENT, IPPROTO_HOMA, &grant));
    // ICMP "port unreachable" quotes the IP header and eight or more bytes.
    let (IpAddr::V4(client), IpAddr::V4(server)) = (CLIENT, SERVER) else { unreachable!() };
    let quote = ipv4(client, server, IPPROTO_HOMA, &written(&data()));
    let mut icmp = vec![3, 3, 0, 0, 0, 0, 0, 0];
    icmp.extend(&quote[..28]);
    pcap.frame(&frame(SERVER, CLIENT, ICMP, &icmp));
    assert_eq!(pcap.column("homa.data_length"), ["16", "", "16", "", ""]);
    assert_eq!(pcap.column("homa.data").iter().map(String::len).collect::<Vec<_>>(), [32, 0, 4, 0, 0]);
    assert_eq!(pcap.column("homa.trailer"), ["", "", "", "eeee", ""]);
    assert_eq!(pcap.column("homa.dport"), ["99", "99", "99", "32768", "99"]);
    let notes = pcap.column("_ws.expert.message");
    assert!(notes.iter().all(|n| !n.contains("short") && !n.contains("Lua")), "{notes:?}");
    let info = pcap.column("_ws.col.Info");
    assert_eq!(info[..3], ["DATA id 1234 1424+16/5000", "DATA", "DATA id 1234 1424+16/5000"]);
}

/// Both directions of an RPC have the same `homa.rpc`.
#[test]
fn a_filter_by_rpc_finds_both_directions() {
    let pcap = capture("rpc", &all_types(), IPPROTO_HOMA);
    let found = pcap.tshark(true, &["-Y", "homa.rpc == 1234 && homa.port == 99", "-T", "fields", "-e", "homa.id"]);
    let ids: Vec<_> = found.lines().collect();
    assert_eq!(ids.iter().filter(|id| **id == "1234").count(), 7);
    assert_eq!(ids.iter().filter(|id| **id == "1235").count(), 5);
    assert_eq!(ids.len(), 12, "all but FREEZE");
}
