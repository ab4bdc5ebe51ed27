//! RPCs: what each side saw of each, from the application's call to the end.
//!
//! A row is one side: the client's has the even id, the server's the odd one. Times are on the common clock (the node's
//! own, if it can't be placed). Source: timetrace.md 4.2.

use rustc_hash::FxHashMap;

use super::Model;
use crate::event::{AMBIGUOUS, Have, Kind, Record};
use crate::packets::UNSEEN;

/// No row.
const NONE: u32 = u32::MAX;

/// One side of an RPC. Times are ns, [`UNSEEN`] if there is none.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// Client, as an index of hosts.
    pub client: u16,
    /// Id on this side.
    pub id: u32,
    /// Node of this side.
    pub node: u16,
    /// Address of the other side, low 32 bits.
    pub peer: Option<u32>,
    /// Port of this side.
    pub port: Option<u32>,
    /// The application starts the outgoing message.
    pub sendmsg: i64,
    /// The outgoing message is copied from the application.
    pub copied_in: i64,
    /// Last hand-off to a waiting thread; unseen if it was queued after that.
    pub handoff: i64,
    /// Last time that it was queued; unseen if it was handed off after that.
    pub queued: i64,
    /// Last time that a thread got it.
    pub found: i64,
    /// First time that copying to the application began.
    pub copy_out: i64,
    /// Last time that bytes were copied to the application.
    pub copied_out: i64,
    /// The application has the incoming message.
    pub recvmsg_done: i64,
    /// End of the RPC.
    pub end: i64,
    /// Bytes of the outgoing message.
    pub out_length: Option<u32>,
    /// Bytes of the incoming message.
    pub in_length: Option<u32>,
    /// Unscheduled bytes of the incoming message.
    pub unscheduled: Option<u32>,
    /// Core whose GRO had the latest data packet.
    pub gro_core: Option<u16>,
    /// State dump: bytes of the incoming message that have not come.
    pub remaining: Option<u32>,
    /// State dump: bytes of the incoming message that were granted.
    pub granted: Option<u32>,
    /// State dump: bytes of the outgoing message that were sent.
    pub dumped_sent: Option<u32>,
    /// Number of distinct offsets that were sent again.
    pub retransmits: u32,
}

impl Side {
    fn new(record: &Record, node: u16) -> Self {
        Self::unseen(record.client, record.id, node)
    }

    /// A side of which nothing is known yet.
    pub(crate) fn unseen(client: u16, id: u32, node: u16) -> Self {
        Self {
            client,
            id,
            node,
            peer: None,
            port: None,
            sendmsg: UNSEEN,
            copied_in: UNSEEN,
            handoff: UNSEEN,
            queued: UNSEEN,
            found: UNSEEN,
            copy_out: UNSEEN,
            copied_out: UNSEEN,
            recvmsg_done: UNSEEN,
            end: UNSEEN,
            out_length: None,
            in_length: None,
            unscheduled: None,
            gro_core: None,
            remaining: None,
            granted: None,
            dumped_sent: None,
            retransmits: 0,
        }
    }

    /// True if it is the client's side.
    pub fn is_client(&self) -> bool {
        self.id.is_multiple_of(2)
    }

    /// Adds to all times that were seen.
    pub(crate) fn shift(&mut self, by: i64) {
        let Self { sendmsg, copied_in, handoff, queued, found, copy_out, copied_out, recvmsg_done, end, .. } = self;
        let times = [sendmsg, copied_in, handoff, queued, found, copy_out, copied_out, recvmsg_done, end];
        times.into_iter().filter(|time| **time != UNSEEN).for_each(|time| *time += by);
    }

    fn add(&mut self, record: &Record, time: i64) {
        let port = |field: Have, value: u32| record.have.has(field).then_some(value);
        let known = |value: u32| (value > 0).then_some(value);
        self.peer = self.peer.or(record.peer());
        match record.kind {
            Kind::SendmsgRequest => (self.sendmsg, self.out_length) = (time, known(record.a)),
            Kind::SendmsgResponse => {
                (self.sendmsg, self.out_length) = (time, known(record.a));
                self.port = self.port.or(port(Have::B, record.b));
            }
            Kind::CopyInDone => self.copied_in = time,
            Kind::GroData => self.gro_core = Some(record.core),
            Kind::SoftirqData => self.in_length = self.in_length.or(known(record.a)),
            Kind::Unsched => self.unscheduled = Some(record.a),
            Kind::RpcHandoff => {
                (self.handoff, self.queued) = (time, UNSEEN);
                self.port = self.port.or(port(Have::A, record.a));
            }
            Kind::RpcQueued => {
                (self.handoff, self.queued) = (UNSEEN, time);
                self.port = self.port.or(port(Have::A, record.a));
            }
            Kind::WaitFoundRpc => self.found = time,
            Kind::CopyOutStart if self.copy_out == UNSEEN => self.copy_out = time,
            Kind::CopyOutDone => self.copied_out = time,
            Kind::RecvmsgDone => self.recvmsg_done = time,
            Kind::RpcEnd => {
                self.end = time;
                self.port = self.port.or(port(Have::A, record.a));
            }
            Kind::RpcIncoming => self.in_length = self.in_length.or(known(record.b)),
            Kind::RpcIncoming2 => self.granted = Some(record.b),
            Kind::RpcIncoming3 => {
                self.remaining = Some(record.b);
                self.in_length = self.in_length.or(known(record.a));
            }
            Kind::RpcOutgoing => {
                self.dumped_sent = Some(record.a);
                self.out_length = self.out_length.or(known(record.b));
            }
            _ => {}
        }
    }
}

/// All sides of all RPCs.
#[derive(Debug, Default)]
pub struct Rpcs {
    /// In the order of their first event on each node, nodes in order.
    pub sides: Vec<Side>,
    /// The most unscheduled bytes that any message has; 0 if none is logged.
    pub most_unscheduled: u32,
    by_key: FxHashMap<u64, u32>,
    /// For each message, the side that sends it and the side that receives it.
    ends: Vec<(u32, u32)>,
    /// For each side, the message that it sends and the message that it receives.
    messages: Vec<(u32, u32)>,
}

fn key(client: u16, id: u32) -> u64 {
    u64::from(client) << 32 | u64::from(id)
}

impl Rpcs {
    /// Of sides that were collected before, in order.
    pub(crate) fn of_sides(sides: Vec<Side>, model: &Model) -> Self {
        let by_key = sides.iter().enumerate().map(|(place, side)| (key(side.client, side.id), place as u32)).collect();
        let mut this = Self { sides, by_key, ..Self::default() };
        this.join(model);
        this
    }

    pub(crate) fn collect(model: &Model) -> Self {
        let mut this = Self::default();
        for (node, trace) in model.traces.iter().enumerate() {
            let offset = model.clock.offset(node).unwrap_or(0);
            let mut recent = [(u64::MAX, NONE); 2];
            for record in &trace.records {
                if record.rpc().is_none() || record.client == AMBIGUOUS {
                    continue;
                }
                let key = key(record.client, record.id);
                let recent = &mut recent[(record.id & 1) as usize];
                if recent.0 != key {
                    let next = this.sides.len() as u32;
                    let place = *this.by_key.entry(key).or_insert(next);
                    if place == next {
                        this.sides.push(Side::new(record, node as u16));
                    }
                    *recent = (key, place);
                }
                this.sides[recent.1 as usize].add(record, record.time + offset);
            }
        }
        this.join(model);
        this
    }

    /// Joins sides with messages and with each other, and fills in what one of them knows of the other.
    fn join(&mut self, model: &Model) {
        self.most_unscheduled = self.sides.iter().filter_map(|s| s.unscheduled).max().unwrap_or(0);
        self.messages = vec![(NONE, NONE); self.sides.len()];
        for (place, message) in model.packets.messages.iter().enumerate() {
            let find = |id: u32| self.by_key.get(&key(message.client, id)).copied().unwrap_or(NONE);
            let (from, to) = (find(message.id), find(message.id ^ 1));
            if let Some(side) = self.sides.get_mut(from as usize) {
                self.messages[from as usize].0 = place as u32;
                side.out_length = side.out_length.or(message.length);
                let mut offsets: Vec<u32> = message.retransmitted.iter().map(|r| r.0).collect();
                offsets.sort_unstable();
                offsets.dedup();
                side.retransmits = offsets.len() as u32;
            }
            if let Some(side) = self.sides.get_mut(to as usize) {
                self.messages[to as usize].1 = place as u32;
                side.in_length = side.in_length.or(message.length);
            }
            self.ends.push((from, to));
        }
        for place in 0..self.sides.len() {
            if let Some(other) = self.other(&self.sides[place]).copied() {
                let side = &mut self.sides[place];
                side.in_length = side.in_length.or(other.out_length);
                side.out_length = side.out_length.or(other.in_length);
            }
        }
    }

    /// The side of that client and id.
    pub fn side(&self, client: u16, id: u32) -> Option<&Side> {
        self.place(client, id).map(|place| &self.sides[place])
    }

    /// Place in [`Rpcs::sides`] of the side of that client and id.
    pub fn place(&self, client: u16, id: u32) -> Option<usize> {
        self.by_key.get(&key(client, id)).map(|p| *p as usize)
    }

    /// The other side of the same RPC.
    pub fn other(&self, side: &Side) -> Option<&Side> {
        self.side(side.client, side.id ^ 1)
    }

    /// The side that sends a message.
    pub fn sender(&self, message: u32) -> Option<&Side> {
        self.sides.get(self.ends.get(message as usize)?.0 as usize)
    }

    /// The side that receives a message.
    pub fn receiver(&self, message: u32) -> Option<&Side> {
        self.sides.get(self.ends.get(message as usize)?.1 as usize)
    }

    /// The message of the same RPC that goes the other way.
    pub fn opposite(&self, message: u32) -> Option<u32> {
        let (from, to) = *self.ends.get(message as usize)?;
        let known = |list: &(u32, u32), first: bool| Some(if first { list.0 } else { list.1 }).filter(|m| *m != NONE);
        let incoming = self.messages.get(from as usize).and_then(|m| known(m, false));
        incoming.or_else(|| self.messages.get(to as usize).and_then(|m| known(m, true)))
    }

    /// The message that a side (by its place) sends.
    pub fn outgoing(&self, place: usize) -> Option<u32> {
        Some(self.messages[place].0).filter(|m| *m != NONE)
    }

    /// The message that a side (by its place) receives.
    pub fn incoming(&self, place: usize) -> Option<u32> {
        Some(self.messages[place].1).filter(|m| *m != NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Options;
    use crate::testing::traces;

    #[test]
    fn both_sides_of_an_rpc_are_joined() {
        let client = "1 homa_sendmsg request, target 0xb:4000, id 10, length 100\n\
                      2 calling ip_queue_xmit: wire_bytes 218, peer 0xb, id 10, offset 0\n\
                      9 homa_recvmsg returning status 0, id 10";
        let server = "3 homa_gro_receive got packet from 0xa id 11, offset 0, priority 6\n\
                      4 homa_rpc_handoff handing off id 11 for port 4000\n\
                      5 homa_rpc_handoff queued id 11 for port 4000\n\
                      6 homa_sendmsg response, id 11, port 4000, pid 3, length 70";
        let options = Options { no_sync: true, ..Options::default() };
        let model = Model::new(traces(&[("node1", client), ("node2", server)]), &options);
        let rpcs = model.rpcs();
        let (ours, theirs) = (rpcs.side(0, 10).unwrap(), rpcs.side(0, 11).unwrap());
        assert_eq!((ours.node, theirs.node, rpcs.sides.len()), (0, 1, 2));
        assert_eq!((ours.sendmsg, ours.recvmsg_done, theirs.sendmsg), (1000, 9000, 6000));
        assert_eq!((theirs.handoff, theirs.queued, theirs.port), (UNSEEN, 5000, Some(4000)), "the later one counts");
        assert_eq!((ours.in_length, theirs.in_length), (Some(70), Some(100)), "one side knows the other's length");
        let request = rpcs.outgoing(rpcs.place(0, 10).unwrap()).unwrap();
        assert_eq!(rpcs.incoming(rpcs.place(0, 11).unwrap()), Some(request));
        assert_eq!(rpcs.sender(request).map(|s| s.id), Some(10));
        assert_eq!(rpcs.receiver(request).map(|s| s.id), Some(11));
    }
}
