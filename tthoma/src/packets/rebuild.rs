//! Packets put together again from the rows of tables.

use super::{END, Flow, List, Message, NO_RING, Packet, Packets, Received, Sent};

/// A row of the table of transmissions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentRow {
    pub(crate) grant: bool,
    pub(crate) packet: u32,
    pub(crate) node: u16,
    pub(crate) core: u16,
    /// xmit, deferred, undeferred, nic, free.
    pub(crate) times: [i64; 5],
    pub(crate) length: u32,
    pub(crate) queue: u32,
    pub(crate) queue_address: u32,
    pub(crate) priority: u8,
    pub(crate) paced: bool,
    pub(crate) again: bool,
}

/// A row of the table of receptions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceivedRow {
    pub(crate) grant: bool,
    pub(crate) packet: u32,
    pub(crate) node: u16,
    pub(crate) gro: i64,
    pub(crate) softirq: i64,
    pub(crate) gro_core: u16,
    pub(crate) softirq_core: u16,
    pub(crate) ring: Option<u32>,
    pub(crate) priority: u8,
    pub(crate) discarded: bool,
}

/// A row of the table of packets: whether it is a grant, its number, message, offset and frame.
pub(crate) type PacketRow = (bool, u32, u32, u32, Option<u32>);

impl Packets {
    /// Packets of these rows; `None` if they contradict each other. `messages` are sorted by their number.
    pub(crate) fn rebuild(
        messages: Vec<(u32, Message)>,
        packets: &[PacketRow],
        sent: &[SentRow],
        received: &[ReceivedRow],
        lone_ring_waits: u64,
    ) -> Option<Self> {
        let count = messages.len();
        if messages.iter().enumerate().any(|(place, (number, _))| place != *number as usize) {
            return None;
        }
        let messages = messages.into_iter().map(|(_, message)| message).collect();
        let mut this = Self { messages, lone_ring_waits, ..Self::default() };
        this.data.rebuild(count, false, packets, sent, received)?;
        this.grants.rebuild(count, true, packets, sent, received)?;
        Some(this)
    }
}

impl Flow {
    fn rebuild(
        &mut self,
        messages: usize,
        grant: bool,
        packets: &[PacketRow],
        sent: &[SentRow],
        received: &[ReceivedRow],
    ) -> Option<()> {
        let count = packets.iter().filter(|p| p.0 == grant).count();
        let empty = Packet {
            message: END,
            offset: 0,
            frame: None,
            sent: List::EMPTY,
            received: List::EMPTY,
            next_nic: END,
            next_free: END,
            next_softirq: END,
        };
        self.packets = vec![empty; count];
        for (_, place, message, offset, frame) in packets.iter().filter(|p| p.0 == grant) {
            let known = (*message as usize) < messages && frame.is_none_or(|f| (f as usize) < count);
            let packet = self.packets.get_mut(*place as usize).filter(|p| known && p.message == END)?;
            (packet.message, packet.offset, packet.frame) = (*message, *offset, *frame);
        }
        self.sent.reserve(sent.len());
        for row in sent.iter().filter(|r| r.grant == grant) {
            let place = self.sent.len() as u32;
            let last = self.packets.get_mut(row.packet as usize)?.sent.push(place);
            if let Some(last) = self.sent.get_mut(last as usize) {
                last.next = place;
            }
            let [xmit, deferred, undeferred, nic, free] = row.times;
            self.sent.push(Sent {
                xmit,
                deferred,
                undeferred,
                nic,
                free,
                length: row.length,
                queue: row.queue,
                queue_address: row.queue_address,
                node: row.node,
                core: row.core,
                priority: row.priority,
                paced: row.paced,
                again: row.again,
                next: END,
            });
        }
        self.received.reserve(received.len());
        for row in received.iter().filter(|r| r.grant == grant) {
            let place = self.received.len() as u32;
            let last = self.packets.get_mut(row.packet as usize)?.received.push(place);
            if let Some(last) = self.received.get_mut(last as usize) {
                last.next = place;
            }
            self.received.push(Received {
                gro: row.gro,
                softirq: row.softirq,
                discarded: row.discarded,
                ring: row.ring.unwrap_or(NO_RING),
                node: row.node,
                priority: row.priority,
                gro_core: row.gro_core,
                softirq_core: row.softirq_core,
                next: END,
            });
        }
        self.by_message.resize_with(messages, Default::default);
        for (place, packet) in self.packets.iter().enumerate() {
            self.by_message[packet.message as usize].entries.push((packet.offset, place as u32));
        }
        for index in self.by_message.iter_mut().filter(|i| !i.entries.is_sorted()) {
            index.entries.sort_unstable();
        }
        Some(())
    }
}
