//! One end of a connection: a sender, a receiver, and the messages in the two streams.

use super::acks::{Acks, Due, Echo};
use super::config::TcpConfig;
use super::counters::Counters;
use super::offload::Merged;
use super::queue::{SELECTIVE, Waiting};
use super::reassembly::{Arrival, Reassembly};
use super::segment::{Segment, flag};
use super::sender::{Outgoing, Sender};
use super::streams::{End, Message, Streams};
use crate::packet::{Ecn, HostId};
use crate::time::Time;

/// Bytes of a message's header; no message is shorter.
pub(crate) const HEADER: u32 = cp_node::message::HEADER_LEN as u32;

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sender: Sender,
    reassembly: Reassembly,
    acks: Acks,
    echo: Echo,
    /// Where the message that is being read began, and its header once that has come.
    reads_at: u64,
    reading: Option<Message>,
    /// The reader has something to do once so much has come in order.
    wants: u64,
    pub(crate) end: End,
    /// What the latest data have been merged into.
    pub(crate) merged: Merged,
    /// What the network hashes of addresses and ports.
    pub(crate) flow: u64,
    /// Bytes in the host's transmit queue.
    pub(crate) queued: u32,
    /// It waits until fewer of its bytes are there.
    pub(crate) throttled: bool,
    /// It is in the host's list of those that may have something to send.
    pub(crate) listed: bool,
    /// An acknowledgement goes out at the end of the turn.
    pub(crate) owes_ack: bool,
    /// When the host's earliest timer for it is.
    pub(crate) armed: Time,
}

impl Connection {
    pub(crate) fn new(host: HostId, end: End, config: &TcpConfig) -> Self {
        let echo = match config.congestion {
            super::Congestion::Dctcp => Echo::Exact,
            _ if config.ecn => Echo::Latched,
            _ => Echo::Off,
        };
        Self {
            sender: Sender::new(config),
            reassembly: Reassembly::default(),
            acks: Acks::new(config.quick_acks),
            echo,
            reads_at: 0,
            reading: None,
            wants: u64::from(HEADER),
            merged: Merged::default(),
            end,
            flow: flow(host, &end),
            queued: 0,
            throttled: false,
            listed: false,
            owes_ack: false,
            armed: Time::NEVER,
        }
    }

    /// Takes a segment's data; its acknowledgement is the sender's.
    pub(crate) fn take_data(
        &mut self,
        now: Time,
        segment: &Segment,
        ecn: Ecn,
        config: &TcpConfig,
        counters: &mut Counters,
    ) -> (Due, Segment) {
        // What an acknowledgement of the earlier segments says.
        let mut previous = Segment::default();
        let marked = ecn == Ecn::Experienced;
        if self.echo == Echo::Exact && self.acks.echo() != marked {
            previous = self.ack_fields();
        }
        let len = u32::from(segment.len);
        let arrival = self.reassembly.insert(segment.seq, len);
        counters.duplicates += u64::from(arrival == Arrival::Duplicate);
        counters.marked += u64::from(marked);
        let marks = (marked, segment.has(flag::CWR));
        let due = self.acks.data(now, (arrival, len), marks, self.echo, config.delayed_ack);
        (due, previous)
    }

    /// The next message that has come whole.
    pub(crate) fn read(&mut self, streams: &Streams) -> Option<Message> {
        let came = self.reassembly.next();
        while came >= self.wants {
            if let Some(message) = self.reading.take() {
                self.reads_at = self.wants;
                self.wants += u64::from(HEADER);
                return Some(message);
            }
            let message = streams.read(self.end.reads())?;
            self.wants = self.reads_at + u64::from(message.len.max(HEADER));
            self.reading = Some(message);
        }
        None
    }

    /// The fields of a segment that acknowledge.
    pub(crate) fn ack_fields(&self) -> Segment {
        let (sacks, blocks) = self.reassembly.blocks();
        Segment {
            ack: self.reassembly.next(),
            connection: self.end.remote,
            flags: if self.acks.echo() { flag::ECE } else { 0 } | if self.acks.duplicate() { flag::DSACK } else { 0 },
            blocks,
            sacks,
            ..Segment::default()
        }
    }

    /// A segment that waited, as it leaves.
    pub(crate) fn leaving(&self, waiting: &Waiting) -> Segment {
        let Waiting { seq, ack, len, flags, .. } = *waiting;
        if waiting.bits & SELECTIVE != 0 {
            return Segment { seq, len, flags, ..self.ack_fields() };
        }
        Segment { seq, ack, len, flags, connection: self.end.remote, ..Segment::default() }
    }

    /// The next segment with data.
    pub(crate) fn poll(&mut self, now: Time, config: &TcpConfig, counters: &mut Counters) -> Option<(Segment, bool)> {
        let Outgoing { seq, len, resent, cwr } = self.sender.poll(now, config, counters)?;
        counters.data_segments += 1;
        counters.data_bytes += u64::from(len);
        counters.resent_bytes += if resent { u64::from(len) } else { 0 };
        let mut segment = self.ack_fields();
        (segment.seq, segment.len) = (seq, len as u16);
        segment.flags |= if cwr { flag::CWR } else { 0 };
        self.owes_ack = false;
        self.acks.sent(now, true, config.delayed_ack);
        Some((segment, resent))
    }

    /// A segment without data was sent.
    pub(crate) fn ack_sent(&mut self, now: Time, config: &TcpConfig) {
        self.owes_ack = false;
        self.acks.sent(now, false, config.delayed_ack);
    }

    /// A delayed acknowledgement is due.
    pub(crate) fn must_ack(&self, now: Time) -> bool {
        self.acks.deadline().is_some_and(|at| at <= now)
    }

    /// When it wants to be looked at.
    pub(crate) fn deadline(&self) -> Time {
        let never = Time::NEVER;
        self.sender.deadline().unwrap_or(never).min(self.acks.deadline().unwrap_or(never))
    }
}

/// A hash of the addresses and ports of what this end sends.
fn flow(host: HostId, end: &End) -> u64 {
    let ports = u64::from(end.client_port) << 17 | u64::from(end.server_port) << 1 | u64::from(end.is_client);
    let mut x = (u64::from(host.0) << 32 | u64::from(end.peer.0)) ^ ports.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The mixing of splitmix64.
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> End {
        End { peer: HostId(1), remote: 9, client_port: 1, server_port: 2, is_client: true, writes: 0 }
    }

    #[test]
    fn messages_are_read_in_order_once_they_are_whole() {
        let config = TcpConfig::default();
        let (streams, mut counters) = (Streams::default(), Counters::default());
        let near = streams.open(HostId(0), HostId(1), 1, 2);
        let end = streams.end(HostId(1), streams.end(HostId(0), near).unwrap().remote).unwrap();
        let mut c = Connection::new(HostId(1), end, &config);
        for (len, cookie) in [(5, 1), (1000, 2), (12, 3)] {
            streams.write(end.reads(), Message { len, cookie });
        }
        // 12 + 1000 + 12 bytes, in segments that know nothing of messages; the first comes last.
        let mut got = Vec::new();
        for (seq, len) in [(500, 512), (1012, 12), (0, 500)] {
            let segment = Segment { seq, len, ..Segment::default() };
            c.take_data(Time::ZERO, &segment, Ecn::NotCapable, &config, &mut counters);
            got.push(std::iter::from_fn(|| c.read(&streams)).map(|m| (m.len, m.cookie)).collect::<Vec<_>>());
        }
        assert_eq!(got, [vec![], vec![], vec![(5, 1), (1000, 2), (12, 3)]]);
    }

    #[test]
    fn each_direction_and_port_pair_has_its_flow() {
        let mut flows = std::collections::BTreeSet::new();
        for host in 0..4 {
            for client_port in 0..4 {
                for is_client in [false, true] {
                    flows.insert(flow(HostId(host), &End { client_port, is_client, ..end() }));
                }
            }
        }
        assert_eq!(flows.len(), 32);
    }
}
