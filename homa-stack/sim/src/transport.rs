//! What a transport is to the simulator: implement [`Transport`] and any experiment runs over it.
//!
//! An instance is one host's. The simulator tells it of calls and replies, and gives it turns: packets in, timers,
//! packets out, all through a [`Port`]. A turn comes when packets are there, when [`Transport::next_deadline`] has
//! come, after calls and replies, and when the NIC has room again after a turn that found none.
//!
//! A whole transport, stop-and-wait: each message is one packet, sent again until its answer is there.
//!
//! ```
//! use std::collections::BTreeMap;
//! use homa_sim::{frame_bytes, Call, Ecn, Event, HostId, Packet, Port, Request, Time, Transport};
//!
//! /// What goes over the network.
//! #[derive(Clone)]
//! enum Segment {
//!     Request { cookie: u64, port: u16, len: u32 },
//!     Response { cookie: u64, len: u32 },
//! }
//!
//! #[derive(Default)]
//! struct StopAndWait {
//!     /// Calls without an answer, and when to send them again.
//!     calls: BTreeMap<u64, (Call, Time)>,
//!     /// Who waits for an answer.
//!     clients: Vec<(HostId, u64)>,
//!     /// What is to be sent.
//!     ready: Vec<(HostId, Segment)>,
//!     events: Vec<Event>,
//! }
//!
//! impl Transport for StopAndWait {
//!     type Segment = Segment;
//!
//!     fn call(&mut self, now: Time, call: Call) {
//!         self.calls.insert(call.cookie, (call, now));
//!     }
//!
//!     fn reply(&mut self, _: Time, request: Request, len: u32) {
//!         let (client, cookie) = self.clients[request.key() as usize];
//!         self.ready.push((client, Segment::Response { cookie, len }));
//!     }
//!
//!     fn discard(&mut self, _: Time, _: Request) {}
//!
//!     fn forget(&mut self, _: Time, call: u64) {
//!         self.calls.remove(&call);
//!         self.events.push(Event::Response { cookie: call, len: 0 });
//!     }
//!
//!     fn turn(&mut self, now: Time, port: &mut Port<Segment>) {
//!         while let Some(packet) = port.receive() {
//!             match packet.segment {
//!                 Segment::Request { cookie, port, len } => {
//!                     let request = Request::new(self.clients.len() as u64);
//!                     self.clients.push((packet.from, cookie));
//!                     let (from, call) = (packet.from, cookie);
//!                     self.events.push(Event::Request { request, from, call, server_port: port, len });
//!                 }
//!                 Segment::Response { cookie, len } => {
//!                     if self.calls.remove(&cookie).is_some() {
//!                         self.events.push(Event::Response { cookie, len });
//!                     }
//!                 }
//!             }
//!         }
//!         for (call, due) in self.calls.values_mut().filter(|(_, due)| *due <= now) {
//!             let Call { cookie, to, server_port: port, len, .. } = *call;
//!             self.ready.push((to, Segment::Request { cookie, port, len }));
//!             *due = now + Time::from_millis(1);
//!         }
//!         while port.room() {
//!             let Some((to, segment)) = self.ready.pop() else { break };
//!             let (Segment::Request { len, .. } | Segment::Response { len, .. }) = segment;
//!             port.send(Packet {
//!                 from: port.host(),
//!                 to,
//!                 frame: frame_bytes(len + 20),
//!                 priority: 0,
//!                 ecn: Ecn::NotCapable,
//!                 flow: 0,
//!                 arrived: Time::ZERO,
//!                 segment,
//!             });
//!         }
//!     }
//!
//!     fn next_deadline(&self) -> Option<Time> {
//!         self.calls.values().map(|(_, due)| *due).min()
//!     }
//!
//!     fn poll_event(&mut self) -> Option<Event> {
//!         self.events.pop()
//!     }
//! }
//!
//! // Two hosts, carried by hand.
//! let (mut client, mut server) = (StopAndWait::default(), StopAndWait::default());
//! let (mut near, mut far) = (Port::new(HostId(0)), Port::new(HostId(1)));
//! client.call(Time::ZERO, Call { cookie: 7, to: HostId(1), client_port: 0, server_port: 3, len: 100 });
//! client.turn(Time::ZERO, &mut near);
//! near.sent().for_each(|packet| far.deliver(packet));
//! server.turn(Time::ZERO, &mut far);
//! let Some(Event::Request { request, server_port: 3, len: 100, .. }) = server.poll_event() else { panic!() };
//! server.reply(Time::ZERO, request, 50);
//! server.turn(Time::ZERO, &mut far);
//! far.sent().for_each(|packet| near.deliver(packet));
//! client.turn(Time::ZERO, &mut near);
//! assert!(matches!(client.poll_event(), Some(Event::Response { cookie: 7, len: 50 })));
//! ```

use crate::packet::HostId;
use crate::port::Port;
use crate::time::Time;

/// A request to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Comes back with the response; unique among the calls of the host that have not ended.
    pub cookie: u64,
    /// The server's host.
    pub to: HostId,
    /// Index of the client's port on its host.
    pub client_port: u16,
    /// Index of the server's port on its host.
    pub server_port: u16,
    /// Length of the message in bytes, at least 1.
    pub len: u32,
}

/// Names a request that awaits its answer on a server; used up by the answer.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a request is answered or discarded"]
pub struct Request(u64);

impl Request {
    /// The transport's name `key` for it.
    pub const fn new(key: u64) -> Self {
        Self(key)
    }

    /// The name.
    pub const fn key(&self) -> u64 {
        self.0
    }
}

/// What a transport tells the application.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole request is there.
    Request {
        /// To answer with.
        request: Request,
        /// The client's host.
        from: HostId,
        /// What the client's transport calls the call, for [`Transport::forget`]: its cookie, or another name.
        call: u64,
        /// Index of the port it came to.
        server_port: u16,
        /// Its length in bytes.
        len: u32,
    },
    /// A whole response is there: the call has ended.
    Response {
        /// That of the call.
        cookie: u64,
        /// Its length in bytes.
        len: u32,
    },
    /// The call has ended without a response.
    Failed {
        /// That of the call.
        cookie: u64,
        /// Why.
        why: &'static str,
    },
}

/// A host's transport. See the module for a whole one.
pub trait Transport {
    /// What its packets carry. Packets are moved by value: keep it to some 100 bytes.
    type Segment;

    /// Begins a call. A call that can't be made ends with [`Event::Failed`].
    fn call(&mut self, now: Time, call: Call);

    /// Answers a request with `len` bytes.
    fn reply(&mut self, now: Time, request: Request, len: u32);

    /// One-way messages: the server has what it needs, nothing is sent.
    fn discard(&mut self, now: Time, request: Request);

    /// One-way messages: the client knows that its message was delivered. The call ends without a packet and with
    /// [`Event::Response`] of length 0. `call` is what [`Event::Request`] has under this name on the server.
    fn forget(&mut self, now: Time, call: u64);

    /// Takes all packets of [`Port::receive`], runs due timers, and sends while there is [`Port::room`].
    fn turn(&mut self, now: Time, port: &mut Port<Self::Segment>);

    /// When it wants a turn even if nothing comes. May be earlier than needed.
    fn next_deadline(&self) -> Option<Time>;

    /// The next news.
    fn poll_event(&mut self) -> Option<Event>;

    /// Counters by name, always the same names in the same order; they only grow.
    fn metrics(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// The metrics as a real node's file has them, if it has one; `host` is the host's name for itself.
    fn metrics_text(&self, now: Time) -> Option<String> {
        let _ = now;
        None
    }

    /// Begins a time trace of at most `events` events; later ones push out the first.
    fn begin_trace(&mut self, now: Time, events: usize) {
        let _ = (now, events);
    }

    /// The metrics text of the time since [`Self::begin_trace`], if the transport has one and the trace has all that
    /// happened since.
    fn trace_metrics(&self, now: Time) -> Option<String> {
        let _ = now;
        None
    }

    /// Ends the time trace and returns it as `.tt` text, if the transport makes one.
    fn end_trace(&mut self, now: Time) -> Option<Vec<u8>> {
        let _ = now;
        None
    }
}
