//! Traffic with known delays, as traces of any number of nodes.
//!
//! Node `i` is `node<i+1>` with address [`Scenario::address`]; its packets are received by GRO on core 1, processed by SoftIRQ on
//! core 2, and its applications run on core 3. Clocks are used as they are. All times in us.

use crate::analyze::Options;
use crate::model::Model;
use crate::testing::Scenario;

/// Bytes of a packet.
pub(crate) const MTU: u32 = 1400;

/// A run in the making: as [`Scenario`], with packets whose phases are chosen one by one.
pub(crate) struct Traffic {
    scenario: Scenario,
}

/// Delays of each packet, us.
#[derive(Clone, Copy)]
pub(crate) struct Delays {
    /// From IP to the NIC.
    pub(crate) nic: f64,
    /// From the NIC to GRO.
    pub(crate) net: f64,
    /// From GRO to SoftIRQ.
    pub(crate) softirq: f64,
    /// From the NIC back to the driver.
    pub(crate) free: f64,
    /// Between packets of a message.
    pub(crate) gap: f64,
}

impl Delays {
    pub(crate) const USUAL: Self = Self { nic: 0.5, net: 5.0, softirq: 2.0, free: 7.0, gap: 1.0 };
}

impl Traffic {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { scenario: Scenario::new(nodes) }
    }

    /// An event on a node.
    pub(crate) fn event(&mut self, node: usize, core: u16, time: f64, text: impl Into<String>) -> &mut Self {
        self.scenario.event(node, time, core, text);
        self
    }

    /// Takes events of a node away.
    pub(crate) fn remove(&mut self, node: usize, gone: impl Fn(&str) -> bool) -> &mut Self {
        assert!(self.scenario.remove(node, gone) > 0, "there were such events");
        self
    }

    pub(crate) fn address(node: usize) -> String {
        Scenario::address(node)
    }

    /// A packet of a message: `id` is that of its sender. Returns when it reaches SoftIRQ.
    pub(crate) fn packet(
        &mut self,
        (from, to): (usize, usize),
        id: u32,
        range: (u32, u32, u32),
        at: f64,
        d: Delays,
    ) -> f64 {
        let (offset, length, total) = range;
        let (src, dst) = (Self::address(from), Self::address(to));
        let wire = length + 118;
        let (nic, gro) = (at + d.nic, at + d.nic + d.net);
        self.event(
            from,
            3,
            at,
            format!("calling ip_queue_xmit: wire_bytes {wire}, peer {dst}, id {id}, offset {offset}"),
        );
        self.event(
            from,
            3,
            at + 0.01,
            format!("Finished queueing packet: rpc id {id}, offset {offset}, len {length}, qid 4"),
        );
        self.event(
            from,
            3,
            nic,
            format!("sent homa data packet via mlx to {dst}, id {id}, offset {offset}, queue 0xff04"),
        );
        let freed = format!("freeing tx skb for homa data, id {id}, offset {offset}, qid 4, msg_length {total}");
        self.event(from, 1, nic + d.free, freed);
        let id = id ^ 1;
        self.event(to, 1, gro, format!("homa_gro_receive got packet from {src} id {id}, offset {offset}, priority 5"));
        let data = format!("incoming data packet, id {id}, peer {src}, offset {offset}/{total}");
        self.event(to, 2, gro + d.softirq, data);
        gro + d.softirq
    }

    /// A message's packets from `at` on, one each `d.gap`. Returns when SoftIRQ has the last.
    pub(crate) fn message(&mut self, ends: (usize, usize), id: u32, total: u32, at: f64, d: Delays) -> f64 {
        let mut last = at;
        for (i, offset) in (0..total).step_by(MTU as usize).enumerate() {
            let length = MTU.min(total - offset);
            last = self.packet(ends, id, (offset, length, total), at + d.gap * i as f64, d);
        }
        last
    }

    /// A whole RPC: sendmsg at `at`, first packet 1 us later; hand-off 0.5 us after the last SoftIRQ, found after 3 us
    /// more, done after another 1; the server answers after 6. Returns its end on the client.
    pub(crate) fn rpc(
        &mut self,
        (client, server): (usize, usize),
        id: u32,
        lengths: (u32, u32),
        at: f64,
        d: Delays,
    ) -> f64 {
        let target = Self::address(server);
        let (request, response) = lengths;
        self.event(client, 3, at, format!("homa_sendmsg request, target {target}:4000, id {id}, length {request}"));
        let come = self.message((client, server), id, request, at + 1.0, d);
        let done = self.deliver(server, id ^ 1, 4000, come);
        let start = done + 6.0;
        let text = format!("homa_sendmsg response, id {}, port 4000, pid 20, length {response}", id ^ 1);
        self.event(server, 3, start, text);
        let come = self.message((server, client), id ^ 1, response, start + 1.0, d);
        self.deliver(client, id, 32768, come)
    }

    /// Hand-off, wake-up and end of recvmsg.
    pub(crate) fn deliver(&mut self, node: usize, id: u32, port: u32, come: f64) -> f64 {
        self.event(node, 2, come + 0.5, format!("homa_rpc_handoff handing off id {id} for port {port}"));
        let found = format!("homa_wait_shared found rpc id {id}, pid 20, port {port} via handoff, blocked 1");
        self.event(node, 3, come + 3.5, found);
        self.event(node, 3, come + 4.5, format!("homa_recvmsg returning status 0, id {id}"));
        come + 4.5
    }

    /// A grant for `id` (as on the granting node): decided at `at`, then as [`Traffic::packet`].
    pub(crate) fn grant(
        &mut self,
        (from, to): (usize, usize),
        id: u32,
        limit: u32,
        increment: i32,
        at: f64,
        d: Delays,
    ) {
        let (src, dst) = (Self::address(from), Self::address(to));
        let (nic, gro) = (at + d.nic, at + d.nic + d.net);
        let sent = format!("sending grant for id {id}, offset {limit}, priority 3, increment {increment}");
        self.event(from, 2, at, sent);
        self.event(from, 2, nic, format!("sent homa grant via mlx to {dst}, id {id}, offset {limit}, queue 0xff04"));
        let id = id ^ 1;
        self.event(to, 1, gro, format!("homa_gro_receive got grant from {src} id {id}, offset {limit}, priority 7"));
        let text = format!("processing grant for id {id}, offset {limit}, priority 3, increment {increment}");
        self.event(to, 2, gro + d.softirq, text);
    }

    /// The model of all of it, clocks as they are.
    pub(crate) fn model(&self) -> Model {
        self.scenario.model(&Options { no_sync: true, ..Options::default() })
    }
}
