//! The way of one RPC through both nodes, as steps without gaps: what ended each step, and what held the RPC until then.
//!
//! Of each message, the packet that SoftIRQ processed last is followed, as all else waits for it: its grant, its transmission
//! (the last, if it was lost before), the network, the receive ring, GRO, the queue of SoftIRQ, the thread. A step ends at
//! an event; it begins where the step before ended. So all steps add up to the time from the call to its return exactly,
//! whatever is missing: a step whose event is not in the trace is part of the next one, which says so. What happened
//! beside the way (a copy that overlaps with transmission, say) is no step.

use super::explain_ends::Ends;
use crate::model::softirq::Wait;
use crate::model::{Flight, Model, NOWHERE, Side};
use crate::packets::UNSEEN;

/// A step; times are ns on the common clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Node where it ended.
    pub(super) node: u16,
    /// Core where it ended, if the event has one.
    pub(super) core: Option<u16>,
    pub(super) start: i64,
    pub(super) end: i64,
    /// What happened.
    pub(super) what: String,
    /// The queue or work that held the RPC.
    pub(super) held_by: &'static str,
    /// It began on another node: its length depends on how well clocks agree.
    pub(super) between_nodes: bool,
}

/// The way of an RPC.
#[derive(Clone, Debug, Default)]
pub(super) struct Path {
    pub(super) steps: Vec<Step>,
    /// What should be known of it, one sentence each.
    pub(super) notes: Vec<String>,
}

/// The way so far.
struct Walk<'a> {
    model: &'a Model,
    path: Path,
    at: i64,
    node: u16,
    /// No step ends later: when the client has the response.
    end: i64,
    missing: Vec<&'static str>,
}

/// The way of the RPC of these sides; `None` if the client's call or its return is not in the trace.
pub(super) fn path(model: &Model, ends: &Ends, client: &Side) -> Option<Path> {
    let end = ends.returned(client)?;
    if client.sendmsg == UNSEEN {
        return None;
    }
    let mut walk =
        Walk { model, path: Path::default(), at: client.sendmsg, node: client.node, end, missing: Vec::new() };
    let rpcs = model.rpcs();
    let server = rpcs.other(client).filter(|s| model.comparable(client.node, s.node));
    let place = rpcs.place(client.client, client.id)?;
    let (request, response) = (rpcs.outgoing(place), rpcs.incoming(place));
    if let Some(server) = server {
        walk.message(request, client, Some(server));
        walk.to(server.node, None, server.sendmsg, "the server answers", "application (service)");
        walk.message(response, server, Some(client));
    } else {
        walk.path
            .notes
            .push("the server's trace is missing, or its clock can't be compared: its part is one step".into());
        walk.message(request, client, None);
        walk.arrival(response, client);
        walk.taken(client);
    }
    walk.finish(client, end);
    Some(walk.path)
}

impl Walk<'_> {
    /// The step that ends at `time` on `node`; nothing if that is unseen, or was over before.
    fn to(&mut self, node: u16, core: Option<u16>, time: i64, what: &'static str, held_by: &'static str) {
        if time == UNSEEN {
            self.missing.push(held_by);
            return;
        }
        let between_nodes = node != self.node;
        // A time on another node can be earlier by what the clocks are wrong.
        if time > self.end || time < self.at && !between_nodes {
            return;
        }
        let mut what = what.to_string();
        if !self.missing.is_empty() {
            what += &format!(" (with {}: not in the trace)", self.missing.join(", "));
            self.missing.clear();
        }
        match self.path.steps.last_mut() {
            // Frame after frame is one step.
            Some(last) if last.node == node && last.held_by == held_by && last.what == what => last.end = time,
            _ => self.path.steps.push(Step { node, core, start: self.at, end: time, what, held_by, between_nodes }),
        }
        (self.at, self.node) = (time, node);
    }

    /// What is not explained, up to the end.
    fn finish(&mut self, client: &Side, end: i64) {
        self.missing.clear();
        if self.at != end || self.node != client.node {
            let step = Step {
                node: client.node,
                core: None,
                start: self.at,
                end,
                what: "the client has the response (steps between are not in the trace)".into(),
                held_by: "unknown",
                between_nodes: self.node != client.node,
            };
            self.path.steps.push(step);
        }
    }

    /// A message from the call that starts it to the call that returns it.
    fn message(&mut self, message: Option<u32>, from: &Side, to: Option<&Side>) {
        let Some((message, packet)) = message.and_then(|m| self.last_packet(m).map(|p| (m, p))) else {
            self.missing.push("all packets of a message");
            return;
        };
        self.sent(message, &packet, from);
        if let Some(to) = to {
            self.arrived(&packet, to);
            self.taken(to);
        }
    }

    /// The packet that SoftIRQ processed last; else that which GRO got last, or that was sent last.
    fn last_packet(&self, message: u32) -> Option<Flight> {
        let flights = self.model.flights().data_of(message);
        let in_time = |time: i64| if time > self.end { UNSEEN } else { time };
        let key = |f: &&Flight| (in_time(f.softirq), in_time(f.gro), in_time(f.xmit));
        flights.iter().max_by_key(key).copied()
    }

    fn sent(&mut self, message: u32, packet: &Flight, from: &Side) {
        // Transmissions of the same bytes that may have arrived. Which one did is not always certain; that is no matter
        // for the sum.
        let arrival = if packet.gro == UNSEEN { self.end } else { packet.gro };
        let flights = self.model.flights().data_of(message);
        let same = |f: &&Flight| f.offset == packet.offset && f.xmit != UNSEEN && f.xmit <= arrival;
        let first = flights.iter().filter(same).min_by_key(|f| f.xmit).copied().unwrap_or(*packet);
        let last = match packet.xmit {
            UNSEEN => flights.iter().filter(same).max_by_key(|f| f.xmit).copied().unwrap_or(*packet),
            _ => *packet,
        };
        let (node, core) = (from.node, Some(last.tx_core));
        if from.copied_in != UNSEEN && from.copied_in <= first.xmit {
            self.to(node, None, from.copied_in, "the message is copied from the application", "copying");
        }
        self.granted(message, packet, first.xmit, from);
        self.to(node, core, first.xmit, "the last packet goes to IP", "earlier bytes, pacer");
        if last.xmit > first.xmit {
            self.to(node, core, last.xmit, "it was lost or late, and is sent again", "loss");
        }
        self.deferred(node, &last);
        if last.nic != UNSEEN {
            self.to(node, core, last.nic, "the NIC has it", "queues of IP and driver");
        }
    }

    fn deferred(&mut self, node: u16, packet: &Flight) {
        if packet.deferred != UNSEEN && packet.undeferred != UNSEEN {
            self.to(node, None, packet.deferred, "homa_qdisc holds the packet back", "IP layer");
            self.to(node, None, packet.undeferred, "homa_qdisc lets it go", "homa_qdisc");
        }
    }

    /// Frame by frame up to the one that leaves at `left`: the waits for grants, and between them the sending of what was
    /// allowed.
    fn granted(&mut self, message: u32, packet: &Flight, left: i64, from: &Side) {
        let (rpcs, flights) = (self.model.rpcs(), self.model.flights());
        let unscheduled = rpcs.receiver(message).and_then(|r| r.unscheduled).unwrap_or(0);
        let mut grants: Vec<Flight> = flights
            .grants_for(rpcs, message)
            .iter()
            .filter(|g| g.softirq != UNSEEN && g.softirq <= left)
            .copied()
            .collect();
        grants.sort_by_key(|g| g.softirq);
        let first = |f: &&Flight| f.head && !f.again && f.xmit != UNSEEN && f.xmit < left;
        let mut frames: Vec<(i64, u32)> =
            flights.data_of(message).iter().filter(first).map(|f| (f.xmit, f.offset)).collect();
        frames.push((left, packet.offset));
        frames.sort_unstable();
        for (xmit, offset) in frames {
            // The first grant that allows the frame.
            let grant = grants.iter().find(|g| g.offset > offset).filter(|_| offset >= unscheduled).copied();
            if let Some(grant) = grant.filter(|g| g.softirq > self.at && g.softirq <= xmit) {
                self.grant(&grant, from);
            }
            if xmit < left {
                self.to(from.node, None, xmit, "what is allowed goes to IP", "earlier bytes, pacer");
            }
        }
    }

    /// The way of a grant that the message waits for.
    fn grant(&mut self, grant: &Flight, from: &Side) {
        let comparable = grant.from != NOWHERE && self.model.comparable(grant.from, from.node);
        if comparable && grant.xmit != UNSEEN && grant.xmit >= self.at {
            self.to(grant.from, Some(grant.tx_core), grant.xmit, "the receiver grants", "no credit");
            self.to(from.node, Some(grant.gro_core), grant.gro, "the grant arrives", "network, of the grant");
        } else {
            self.to(from.node, Some(grant.gro_core), grant.gro, "the grant arrives", "no credit, grant under way");
        }
        self.to(
            from.node,
            Some(grant.softirq_core),
            grant.softirq,
            "the grant is processed",
            "SoftIRQ queue, of the grant",
        );
    }

    fn arrival(&mut self, message: Option<u32>, to: &Side) {
        match message.and_then(|m| self.last_packet(m)) {
            Some(packet) => self.arrived(&packet, to),
            None => self.missing.push("all packets of a message"),
        }
    }

    fn arrived(&mut self, packet: &Flight, to: &Side) {
        let (gro_core, softirq_core) = (Some(packet.gro_core), Some(packet.softirq_core));
        let network = "network, switches, interrupt";
        let Some(wait) = self.wait(packet, to) else {
            self.to(to.node, gro_core, packet.gro, "the last packet arrives", network);
            self.to(to.node, softirq_core, packet.softirq, "SoftIRQ processes it", "GRO, SoftIRQ queue");
            return;
        };
        let offset = self.model.clock.offset(usize::from(to.node)).unwrap_or(0);
        let common = |time: i64| if time == UNSEEN { UNSEEN } else { time + offset };
        if wait.ring != UNSEEN {
            self.to(to.node, gro_core, common(wait.ring), "the last packet is in the receive ring", network);
            self.to(to.node, gro_core, common(wait.gro), "it is found there", "receive ring");
        } else {
            self.to(to.node, gro_core, common(wait.gro), "the last packet is at GRO", network);
        }
        if let Some(phases) = wait.phases() {
            let handed_off = wait.gro + phases.hold;
            if wait.handoff != UNSEEN {
                self.to(to.node, gro_core, common(handed_off), "its batch is closed and handed off", "GRO batch");
                let free = common(handed_off + phases.queue);
                if phases.queue > 0 {
                    self.to(to.node, softirq_core, free, "its core is done with earlier packets", "SoftIRQ queue");
                }
                self.to(to.node, softirq_core, common(wait.started), "SoftIRQ begins", "wake-up of SoftIRQ");
            } else {
                self.to(to.node, softirq_core, common(handed_off), "processing begins", "collecting a batch");
            }
            self.to(
                to.node,
                softirq_core,
                common(wait.softirq),
                "the packet is processed",
                "other packets of the batch",
            );
        } else {
            self.to(to.node, softirq_core, common(wait.softirq), "SoftIRQ processes it", "GRO, SoftIRQ queue");
        }
    }

    /// The reception of a packet among the waits of its node.
    fn wait(&self, packet: &Flight, to: &Side) -> Option<Wait> {
        let offset = self.model.clock.offset(usize::from(to.node)).unwrap_or(0);
        let same = |w: &&Wait| {
            let time = |t: i64| if t == UNSEEN { UNSEEN } else { t + offset };
            (w.client, w.id, w.offset) == (to.client, to.id, packet.offset)
                && if packet.softirq == UNSEEN { time(w.gro) == packet.gro } else { time(w.softirq) == packet.softirq }
        };
        self.model.queues().get(usize::from(to.node))?.waits.iter().find(same).copied()
    }

    /// From SoftIRQ to the application.
    fn taken(&mut self, side: &Side) {
        let node = side.node;
        if side.queued != UNSEEN {
            self.to(node, None, side.queued, "the message is complete, and queued for a thread", "SoftIRQ");
            self.to(node, None, side.found, "a thread takes it", "queue of the socket");
        } else {
            self.to(node, None, side.handoff, "the message is complete, and given to a waiting thread", "SoftIRQ");
            self.to(node, None, side.found, "the thread runs", "wake-up of the thread");
        }
        if side.copied_out != UNSEEN {
            self.to(node, None, side.copied_out, "the message is copied to the application", "copying");
        }
        self.to(node, None, side.recvmsg_done, "the application has the message", "return from recvmsg");
    }
}
