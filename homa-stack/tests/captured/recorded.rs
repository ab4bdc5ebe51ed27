//! Packets recorded from the kernel module, read from the text files beside this one.

use std::net::{IpAddr, Ipv4Addr};

use homa_stack::Nanos;
use homa_stack::wire::{Data, Ends, Packet, write_bare};

/// A packet of a capture.
pub struct Recorded {
    /// Which, to find it again: capture and frame number.
    pub origin: String,
    /// Since the first packet of its file.
    pub at: Nanos,
    pub from: IpAddr,
    pub to: IpAddr,
    /// IP precedence.
    pub priority: u8,
    /// The Homa header and data.
    pub bytes: Vec<u8>,
}

impl Recorded {
    /// The packet in `ip`, an IPv4 packet.
    pub fn new(origin: String, at: Nanos, ip: &[u8]) -> Self {
        assert_eq!((ip[0], ip[9]), (0x45, 146), "{origin}: not a Homa packet over IPv4 without options");
        assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), ip.len(), "{origin}: cut off");
        let addr = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]).into();
        Self { origin, at, from: addr(12), to: addr(16), priority: ip[1] >> 5, bytes: ip[20..].to_vec() }
    }

    pub fn packet(&self) -> (Ends, Packet<'_>) {
        Packet::parse(&self.bytes).unwrap_or_else(|error| panic!("{}: {error}", self.origin))
    }
}

/// The packets of a text file. Each begins with a line `packet CAPTURE frame N at T us`, hex digits follow.
pub fn read(text: &str) -> Vec<Recorded> {
    let mut entries: Vec<(Vec<&str>, String)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("packet ") {
            Some(head) => entries.push((head.split(' ').collect(), String::new())),
            None => entries.last_mut().map_or((), |entry| entry.1.push_str(line)),
        }
    }
    let packet = |(head, digits): (Vec<&str>, String)| {
        let [capture, "frame", frame, "at", at, "us"] = head[..] else { panic!("not the start of a packet: {head:?}") };
        let byte = |i| u8::from_str_radix(&digits[i..i + 2], 16).expect("hex digits");
        let ip: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
        Recorded::new(format!("{capture} frame {frame}"), Nanos::from_micros(at.parse().expect("a number")), &ip)
    };
    entries.into_iter().map(packet).collect()
}

/// Writes `packet` as the crate does, its checksum still zero.
pub fn encode(ends: Ends, packet: &Packet<'_>) -> Vec<u8> {
    let mut out = vec![0; 2000];
    let n = match packet {
        Packet::Data(data) => {
            let n = data.write_header(ends, &mut out);
            out[n..n + data.bytes.len()].copy_from_slice(data.bytes);
            n + data.bytes.len()
        }
        Packet::Grant(grant) => grant.write(ends, &mut out),
        Packet::Resend(resend) => resend.write(ends, &mut out),
        Packet::Cutoffs(cutoffs) => cutoffs.write(ends, &mut out),
        Packet::Ack(ack) => ack.write(ends, &mut out),
        bare => write_bare(bare.kind(), ends, &mut out),
    };
    out.truncate(n);
    out
}

/// The message that RPC `sender_id`'s DATA among `packets` make up, if they do.
pub fn message<'a>(packets: impl IntoIterator<Item = &'a [u8]>, sender_id: u64) -> Option<Vec<u8>> {
    let mut bytes: Vec<Option<u8>> = Vec::new();
    for packet in packets {
        let Ok((ends, Packet::Data(Data { message_len, offset, bytes: data, .. }))) = Packet::parse(packet) else {
            continue;
        };
        if ends.sender_id == sender_id {
            bytes.resize(message_len as usize, None);
            let start = offset as usize;
            for (slot, byte) in bytes[start..start + data.len()].iter_mut().zip(data) {
                assert!(slot.is_none_or(|before| before == *byte), "RPC {sender_id}: byte sent again differs");
                *slot = Some(*byte);
            }
        }
    }
    if bytes.is_empty() { None } else { bytes.into_iter().collect() }
}
