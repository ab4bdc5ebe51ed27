//! RPCs with both sides and their packets, and the list of RPCs that several analyses print (timetrace.md 5.46).

use super::samples::us;
use super::table::{Cell, Table, Unit};
use crate::model::flights::{seen, since};
use crate::model::{Flight, Model, Side};
use crate::packets::UNSEEN;

/// An RPC of a client.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) client: &'a Side,
    /// The server's side, if its node has a trace on a clock that can be compared.
    pub(super) server: Option<&'a Side>,
    /// Packets of the request, in the order of their first event.
    pub(super) request: &'a [Flight],
    /// Packets of the response.
    pub(super) response: &'a [Flight],
}

/// The earliest of times, [`UNSEEN`] if there are none.
pub(super) fn earliest(times: impl Iterator<Item = i64>) -> i64 {
    times.filter(|t| *t != UNSEEN).min().unwrap_or(UNSEEN)
}

/// The latest of times, [`UNSEEN`] if there are none.
pub(super) fn latest(times: impl Iterator<Item = i64>) -> i64 {
    times.max().unwrap_or(UNSEEN)
}

impl<'a> Call<'a> {
    /// All RPCs of which the client's side is in a trace.
    pub(super) fn all(model: &'a Model) -> Vec<Self> {
        let (rpcs, flights) = (model.rpcs(), model.flights());
        let packets = |message: Option<u32>| message.map_or(&[][..], |m| flights.data_of(m));
        let sides = rpcs.sides.iter().enumerate().filter(|(_, side)| side.is_client());
        sides
            .map(|(place, client)| Self {
                client,
                server: rpcs.other(client).filter(|server| model.comparable(client.node, server.node)),
                request: packets(rpcs.outgoing(place)),
                response: packets(rpcs.incoming(place)),
            })
            .collect()
    }

    /// From the client's call to its end, ns.
    pub(super) fn rtt(&self) -> Option<i64> {
        since(self.client.sendmsg, self.client.recvmsg_done)
    }

    /// `NODE ID` of the client.
    pub(super) fn server_name(&self, model: &Model) -> Cell {
        match (self.server, self.client.peer) {
            (Some(server), _) => model.name(server.node).into(),
            (None, Some(peer)) => match model.hosts.by_address.get(&peer) {
                Some(host) => model.name(*host).into(),
                None => format!("0x{peer:x}").into(),
            },
            _ => Cell::None,
        }
    }

    /// Fields of the list of RPCs.
    pub(super) fn row(&self, model: &Model) -> Vec<Cell> {
        let client = self.client;
        // The first request frame, and the packet of the response that SoftIRQ had first.
        let rq = self.request.iter().filter(|f| f.head && !f.again).min_by_key(|f| f.xmit);
        let rsp = self.response.iter().filter(|f| f.softirq != UNSEEN).min_by_key(|f| f.softirq);
        let of = |f: Option<&Flight>, get: fn(&Flight) -> i64| f.map_or(UNSEEN, get);
        let (rq_nic, rq_gro, rq_soft) = (of(rq, |f| f.nic), of(rq, |f| f.gro), of(rq, |f| f.softirq));
        let (rsp_nic, rsp_gro, rsp_soft) = (of(rsp, |f| f.nic), of(rsp, |f| f.gro), of(rsp, |f| f.softirq));
        let server = |get: fn(&Side) -> i64| self.server.map_or(UNSEEN, get);
        let (taken, answered) = (server(|s| s.recvmsg_done), server(|s| s.sendmsg));
        vec![
            us(seen(client.sendmsg)),
            model.name(client.node).into(),
            self.server_name(model),
            client.id.into(),
            client.out_length.into(),
            us(since(client.sendmsg, rq_nic)),
            us(since(rq_nic, rq_gro)),
            us(since(rq_gro, rq_soft)),
            us(since(rq_soft, taken)),
            us(since(taken, answered)),
            us(since(answered, rsp_nic)),
            us(since(rsp_nic, rsp_gro)),
            us(since(rsp_gro, rsp_soft)),
            us(since(rsp_soft, client.recvmsg_done)),
            us(seen(client.recvmsg_done)),
            us(self.rtt()),
        ]
    }

    /// An empty list of RPCs.
    pub(super) fn table(title: impl Into<String>) -> Table {
        let mut table = Table::new("rpcs", title)
            .column("Start", Unit::Us, "the client's call")
            .decimals(3)
            .column("Client", Unit::None, "")
            .column("Server", Unit::None, "")
            .column("Id", Unit::None, "on the client")
            .column("Length", Unit::Bytes, "request");
        for (title, meaning) in [
            ("RqNic", "from the call until the NIC has the first frame of the request"),
            ("RqGRO", "from the NIC to the server's GRO, of that packet"),
            ("RqSoft", "from GRO to SoftIRQ"),
            ("RqRecv", "from SoftIRQ until the server's application has the request"),
            ("Srvc", "until it answers"),
            ("RspNic", "until the NIC has the packet of the response that the client's SoftIRQ sees first"),
            ("RspGRO", "from the NIC to GRO"),
            ("RspSoft", "from GRO to SoftIRQ"),
            ("RspRecv", "from SoftIRQ until the client's application has the response"),
        ] {
            table = table.column(title, Unit::Us, meaning);
        }
        table.column("End", Unit::Us, "").decimals(3).column("Rtt", Unit::Us, "from call to end")
    }
}
