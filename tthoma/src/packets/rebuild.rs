//! Packets put together again from the columns of tables.

use std::thread;

use super::{END, Flow, Held, Index, Message, NO_RING, Packet, Packets, Received, Sent, UNKNOWN_QUEUE, UNSEEN};

/// A column, empty if all of it is null.
#[derive(Debug)]
pub(crate) struct Column<T> {
    values: Vec<T>,
    null: T,
}

impl<T: Copy> Column<T> {
    /// Values, or none at all; what is null among them is `null` already.
    pub(crate) fn new(values: Vec<T>, null: T) -> Self {
        Self { values, null }
    }

    #[inline]
    fn get(&self, row: usize) -> T {
        self.values.get(row).copied().unwrap_or(self.null)
    }
}

/// A node's rows in the table of transmissions.
#[derive(Debug)]
pub(crate) struct SentRows {
    pub(crate) node: u16,
    pub(crate) grant: Vec<bool>,
    pub(crate) packet: Vec<u32>,
    pub(crate) core: Vec<u16>,
    /// xmit, deferred, undeferred, nic, free.
    pub(crate) times: [Column<i64>; 5],
    pub(crate) length: Vec<u32>,
    pub(crate) queue: Column<u32>,
    pub(crate) queue_address: Column<u32>,
    pub(crate) priority: Column<u8>,
    pub(crate) paced: Column<bool>,
    pub(crate) again: Vec<bool>,
}

/// A node's rows in the table of receptions.
#[derive(Debug)]
pub(crate) struct ReceivedRows {
    pub(crate) node: u16,
    pub(crate) grant: Vec<bool>,
    pub(crate) packet: Vec<u32>,
    pub(crate) gro: Column<i64>,
    pub(crate) softirq: Column<i64>,
    pub(crate) gro_core: Vec<u16>,
    pub(crate) softirq_core: Vec<u16>,
    /// [`u32::MAX`] is null.
    pub(crate) ring: Column<u32>,
    pub(crate) priority: Column<u8>,
    pub(crate) discarded: Vec<bool>,
}

/// A host's rows in the table of packets.
#[derive(Debug)]
pub(crate) struct PacketRows {
    pub(crate) grant: Vec<bool>,
    pub(crate) packet: Vec<u32>,
    pub(crate) message: Vec<u32>,
    pub(crate) offset: Vec<u32>,
    /// [`u32::MAX`] is null.
    pub(crate) frame: Column<u32>,
}

impl Packets {
    /// Packets of these rows; `None` if they contradict each other. `messages` are sorted by their number. Columns without
    /// nulls must all have the same length.
    pub(crate) fn rebuild(
        messages: Vec<(u32, Message)>,
        packets: &[PacketRows],
        sent: &[SentRows],
        received: &[ReceivedRows],
        lone_ring_waits: u64,
    ) -> Option<Self> {
        let count = messages.len();
        if messages.iter().enumerate().any(|(place, (number, _))| place != *number as usize) {
            return None;
        }
        let messages = messages.into_iter().map(|(_, message)| message).collect();
        let mut this = Self { messages, lone_ring_waits, ..Self::default() };
        let Self { data, grants, .. } = &mut this;
        let (data, grants) = thread::scope(|scope| {
            let grants = scope.spawn(|| grants.rebuild(count, true, packets, sent, received));
            let data = data.rebuild(count, false, packets, sent, received);
            (data, grants.join().expect("packets are put together without panic"))
        });
        data.and(grants)?;
        Some(this)
    }
}

/// Rows of grants, or of data.
fn rows_of(all: &[bool], grant: bool) -> impl Iterator<Item = usize> {
    all.iter().enumerate().filter(move |(_, is)| **is == grant).map(|(row, _)| row)
}

impl Flow {
    fn rebuild(
        &mut self,
        messages: usize,
        grant: bool,
        packets: &[PacketRows],
        sent: &[SentRows],
        received: &[ReceivedRows],
    ) -> Option<()> {
        let mine = |all: &[bool]| all.iter().filter(|g| **g == grant).count();
        let count = packets.iter().map(|rows| mine(&rows.grant)).sum();
        self.packets = vec![Packet::new(END, 0); count];
        for rows in packets {
            for row in rows_of(&rows.grant, grant) {
                let (message, frame) = (rows.message[row], rows.frame.get(row));
                let known = (message as usize) < messages && (frame == END || (frame as usize) < count);
                let packet = self.packets.get_mut(rows.packet[row] as usize).filter(|p| known && p.message == END)?;
                (packet.message, packet.offset, packet.frame) = (message, rows.offset[row], frame);
            }
        }
        self.sent.reserve_exact(sent.iter().map(|rows| mine(&rows.grant)).sum());
        for rows in sent {
            rows_of(&rows.grant, grant).try_for_each(|row| self.sent_row(rows, row))?;
        }
        self.received.reserve_exact(received.iter().map(|rows| mine(&rows.grant)).sum());
        for rows in received {
            rows_of(&rows.grant, grant).try_for_each(|row| self.received_row(rows, row))?;
        }
        Some(())
    }

    #[inline]
    fn sent_row(&mut self, rows: &SentRows, row: usize) -> Option<()> {
        let place = self.sent.len() as u32;
        let last = self.packets.get_mut(rows.packet[row] as usize)?.sent.push(place);
        if let Some(last) = self.sent.get_mut(last as usize) {
            last.next = place;
        }
        let [xmit, deferred, undeferred, nic, free] = [0, 1, 2, 3, 4].map(|time: usize| rows.times[time].get(row));
        let mut sent = Sent {
            xmit,
            nic,
            free,
            length: rows.length[row],
            queue_address: rows.queue_address.get(row),
            held: END,
            next: END,
            queue: UNKNOWN_QUEUE,
            node: rows.node,
            core: rows.core[row],
            priority: rows.priority.get(row),
            again: rows.again[row],
        };
        let queue = rows.queue.get(row);
        sent.set_queue((queue != super::NO_QUEUE).then_some(queue));
        self.sent.push(sent);
        let paced = rows.paced.get(row);
        if paced || deferred != UNSEEN || undeferred != UNSEEN {
            *self.hold(place) = Held { deferred, undeferred, paced };
        }
        Some(())
    }

    #[inline]
    fn received_row(&mut self, rows: &ReceivedRows, row: usize) -> Option<()> {
        let place = self.received.len() as u32;
        let last = self.packets.get_mut(rows.packet[row] as usize)?.received.push(place);
        if let Some(last) = self.received.get_mut(last as usize) {
            last.next = place;
        }
        self.received.push(Received {
            gro: rows.gro.get(row),
            softirq: rows.softirq.get(row),
            discarded: rows.discarded[row],
            ring: match rows.ring.get(row) {
                u32::MAX => NO_RING,
                ring => ring,
            },
            node: rows.node,
            priority: rows.priority.get(row),
            gro_core: rows.gro_core[row],
            softirq_core: rows.softirq_core[row],
            next: END,
        });
        Some(())
    }

    /// Packets of each message.
    pub(super) fn index(&self) -> Vec<Index> {
        let mut all: Vec<Index> = Vec::new();
        for (place, packet) in self.packets.iter().enumerate() {
            let message = packet.message as usize;
            if all.len() <= message {
                all.resize_with(message + 1, Index::default);
            }
            all[message].entries.push((packet.offset, place as u32));
        }
        all.iter_mut().filter(|i| !i.entries.is_sorted()).for_each(|index| index.entries.sort_unstable());
        all
    }
}
