//! From records to packets, one record at a time.

use rustc_hash::FxHashMap;

use super::{Message, Packets, is_retransmitted};
use crate::event::{AMBIGUOUS, Have, Kind, Record};

/// Homa, IP and Ethernet headers, checksum, preamble and gap that the kernel counts to a frame's bytes on the wire:
/// 60 + 20 + 18 + 20 bytes.
const WIRE_OVERHEAD: u32 = 118;

/// Type of data packets.
const DATA: u32 = 0x10;

/// Packet that a core's GRO saw last.
#[derive(Clone, Copy)]
struct LastGro {
    id: u32,
    offset: u32,
    /// Reception of data (false) or of a grant (true); none for control packets.
    reception: Option<(bool, u32)>,
}

/// Takes the records of one node after the other.
#[derive(Default)]
pub(super) struct Builder {
    pub(super) packets: Packets,
    by_id: FxHashMap<u64, u32>,
    /// Messages looked up last, one for requests and one for responses.
    recent: [Option<(u64, u32)>; 2],
    last_gro: FxHashMap<u16, LastGro>,
    /// What the pacer is about to send: core, client, id and offset.
    paced: Option<(u16, u16, u32, u32)>,
}

impl Builder {
    /// Forgets what belongs to the node before.
    pub(super) fn next_node(&mut self) {
        self.last_gro.clear();
        self.paced = None;
    }

    /// Message that `client` and the sender's `id` name.
    #[inline]
    fn message(&mut self, client: u16, id: u32) -> u32 {
        let key = u64::from(client) << 32 | u64::from(id);
        let recent = &mut self.recent[(id & 1) as usize];
        match recent {
            Some((known, place)) if *known == key => *place,
            _ => {
                let messages = &mut self.packets.messages;
                let place = *self.by_id.entry(key).or_insert_with(|| {
                    messages.push(Message { client, id, length: None, started: false, retransmitted: Vec::new() });
                    (messages.len() - 1) as u32
                });
                *recent = Some((key, place));
                place
            }
        }
    }

    fn length(&mut self, message: u32, length: u32) {
        if length > 0 {
            self.packets.messages[message as usize].length.get_or_insert(length);
        }
    }

    /// Takes a record of `node`.
    #[inline]
    pub(super) fn add(&mut self, node: u16, record: &Record) {
        if record.client == AMBIGUOUS {
            return;
        }
        let Record { time, id, offset, core, client, .. } = *record;
        match record.kind {
            Kind::SendmsgRequest | Kind::SendmsgResponse => {
                let message = self.message(client, id);
                self.length(message, record.a);
                self.packets.messages[message as usize].started = true;
            }
            Kind::Retransmit => {
                let message = self.message(client, id);
                self.packets.messages[message as usize].retransmitted.push((offset, offset.saturating_add(record.a)));
            }
            Kind::IpXmit => {
                let message = self.message(client, id);
                let again = is_retransmitted(&self.packets.messages[message as usize], offset);
                let place = self.packets.data.send(message, offset, node, core);
                if self.paced == Some((core, client, id, offset)) {
                    self.packets.data.hold(place).paced = true;
                }
                let sent = &mut self.packets.data.sent[place as usize];
                sent.xmit = time;
                sent.again |= again;
                sent.length = if record.have.has(Have::A) { record.a.saturating_sub(WIRE_OVERHEAD) } else { 0 };
            }
            Kind::SendData => {
                let message = self.message(client, id);
                // Kernels of 2024 sometimes say 0.
                if record.a > 0 {
                    let place = self.packets.data.last_sent(message, offset, node, core);
                    let sent = &mut self.packets.data.sent[place as usize];
                    sent.length = record.a;
                    if record.have.has(Have::B) {
                        sent.set_queue(Some(record.b));
                    }
                }
            }
            Kind::PacerXmit => self.paced = Some((core, client, id, offset)),
            Kind::QdiscDefer | Kind::QdiscXmit => {
                let message = self.message(client, id);
                let place = self.packets.data.last_sent(message, offset, node, core);
                let held = self.packets.data.hold(place);
                *(if record.kind == Kind::QdiscDefer { &mut held.deferred } else { &mut held.undeferred }) = time;
            }
            Kind::NicData => {
                let message = self.message(client, id);
                let sent = self.packets.data.nic_takes(message, offset, node, core);
                sent.nic = time;
                sent.queue_address = record.a;
            }
            Kind::FreeTxSkb => {
                let message = self.message(client, id);
                let sent = self.packets.data.nic_returns(message, offset, node, core);
                sent.free = time;
                if record.have.has(Have::A) {
                    sent.set_queue(Some(record.a));
                }
                self.length(message, record.b);
            }
            Kind::SendGrant => {
                let message = self.message(client, id);
                let place = self.packets.grants.send(message, offset, node, core);
                let sent = &mut self.packets.grants.sent[place as usize];
                sent.xmit = time;
                sent.priority = record.a as u8;
                sent.length = (record.b as i32).max(0) as u32;
                // A grant that grants nothing is a repetition even if the first is not in the trace.
                sent.again |= record.have.has(Have::B) && record.b as i32 <= 0;
            }
            Kind::NicGrant => {
                let message = self.message(client, id);
                self.packets.grants.nic_takes(message, offset, node, core).nic = time;
            }
            Kind::FreeGrant => {
                let message = self.message(client, id);
                let sent = self.packets.grants.nic_returns(message, offset, node, core);
                sent.free = time;
                if record.have.has(Have::A) {
                    sent.set_queue(Some(record.a));
                }
            }
            Kind::GroData | Kind::GroGrant => {
                let message = self.message(client, id ^ 1);
                let grant = record.kind == Kind::GroGrant;
                let flow = if grant { &mut self.packets.grants } else { &mut self.packets.data };
                let place = flow.gro(message, node, record);
                self.last_gro.insert(core, LastGro { id, offset, reception: Some((grant, place)) });
            }
            Kind::GroControl => drop(self.last_gro.insert(core, LastGro { id, offset: 0, reception: None })),
            Kind::RingWait => match self.last_gro.get(&core) {
                Some(LastGro { id: last, offset: at, reception }) if (*last, *at) == (id, offset) => {
                    if let Some((grant, place)) = *reception {
                        let flow = if grant { &mut self.packets.grants } else { &mut self.packets.data };
                        flow.received[place as usize].ring = record.a;
                    }
                }
                _ => self.packets.lone_ring_waits += 1,
            },
            Kind::SoftirqData => {
                let message = self.message(client, id ^ 1);
                self.packets.data.softirq(message, node, record);
                self.length(message, record.a);
            }
            Kind::DiscardUnknown if record.a == DATA => {
                let message = self.message(client, id ^ 1);
                self.packets.data.discard(message);
            }
            Kind::SoftirqGrant => {
                let message = self.message(client, id ^ 1);
                self.packets.grants.softirq(message, node, record);
            }
            _ => {}
        }
    }
}
