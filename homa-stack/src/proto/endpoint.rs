//! The endpoint: its tables, and what the application calls. Packets in: `input`; out: `output`; time: `timers`.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use rustc_hash::FxHashMap;
use slab::Slab;

use super::boxes::Boxes;
use super::config::Config;
use super::cutoffs::Lengths;
use super::event::{Event, Message, RpcError, SendError, ServerRpc};
use super::grants::{Grants, RpcKey, View};
use super::heap::{Queue, Turn};
use super::icmp::Refusals;
use super::incast::Incast;
use super::late::LateWork;
use super::memory::Occupied;
use super::output::Control;
use super::pacer::Pacing;
use super::payload::Payload;
use super::peers::{PeerKey, Peers};
use super::pool::{Body, Lease, MOST_PAGES, Pool};
use super::ports::{FIRST_CLIENT_PORT, Ports};
use super::private::Private;
use super::ranges::{Gap, Spare};
use super::recent::Recent;
use super::room::Room;
use super::rpc::{Rpc, State};
use super::rx_message::RxMessage;
use super::shard::Forward;
use super::streams::Streams;
use super::timers::Due;
use super::tombstones::Tombstones;
use super::tx_message::TxMessage;
use super::wheel::Wheel;
use crate::metrics::Metrics;
use crate::trace::{self, Recorder, Via};
use crate::units::{Instant, RpcId};
use crate::wire::{AckRecord, DATA_HEADER_LEN, MAX_MESSAGE_LEN, ends};

/// A Homa endpoint without any input or output of its own: one address, many ports.
///
/// Tell it of packets ([`handle_packet`](Self::handle_packet)), of time ([`handle_timeout`](Self::handle_timeout)) and
/// of calls ([`call`](Self::call), [`reply`](Self::reply)); ask it for packets to send
/// ([`poll_transmit`](Self::poll_transmit)), for news ([`poll_event`](Self::poll_event)) and when it wants to be told
/// of time next ([`next_deadline`](Self::next_deadline)).
///
/// ```
/// use homa_stack::{Config, Endpoint, Event, Instant, Payload};
/// use std::net::SocketAddr;
///
/// let (client_addr, server_addr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
/// let (mut client, mut server) = (Endpoint::new(Config::default()), Endpoint::new(Config::default()));
/// let now = Instant::from_nanos(0);
/// server.bind(99).unwrap();
/// let port = client.client_port().unwrap();
/// let id = client.call(now, port, SocketAddr::new(server_addr, 99), Payload::from(b"ping".to_vec()), 7).unwrap();
///
/// // The network: a packet from each to the other until there are none.
/// let mut packet = [0; 1500];
/// let mut exchange = |from: &mut Endpoint, to: &mut Endpoint, addr| {
///     while let Some(sent) = from.poll_transmit(now, &mut packet) {
///         to.handle_packet(now, addr, &packet[..sent.len]);
///     }
/// };
/// exchange(&mut client, &mut server, client_addr);
/// let Some(Event::Request { rpc, msg, .. }) = server.poll_event() else { panic!("no request") };
/// assert_eq!(server.pieces(&msg).collect::<Vec<_>>().concat(), b"ping");
/// server.release(msg);
/// server.reply(now, rpc, Payload::from(b"pong!".to_vec())).unwrap();
/// exchange(&mut server, &mut client, server_addr);
/// let Some(Event::Response { id: of, cookie: 7, msg, .. }) = client.poll_event() else { panic!("no response") };
/// assert_eq!((of, msg.len()), (id, 5));
/// client.release(msg);
/// ```
#[derive(Debug)]
pub struct Endpoint {
    /// Counters.
    pub metrics: Metrics,
    /// Time trace.
    pub trace: Recorder,
    pub(super) config: Config,
    pub(super) rpcs: Slab<Rpc>,
    pub(super) clients: FxHashMap<u64, RpcKey>,
    pub(super) servers: FxHashMap<(PeerKey, u64), RpcKey>,
    /// RPCs that packets were about of late.
    pub(super) recent: Recent,
    pub(super) peers: Peers,
    pub(super) tombstones: Tombstones,
    pub(super) grants: Grants,
    /// True if packets have come since grants were last considered.
    pub(super) grants_due: bool,
    /// Lengths of the messages that come, if cutoffs are to follow them.
    pub(super) lengths: Option<Lengths>,
    pub(super) pool: Pool,
    /// RPCs that wait for room in the pool.
    /// What limits the responses that may come at once.
    pub(super) incast: Incast,
    pub(super) starved: Vec<(RpcKey, RpcId)>,
    /// True while one of them has waited for so long that no other gets room before it.
    pub(super) starved_long: bool,
    /// Requests that the application has not taken.
    pub(super) unread: usize,
    /// Messages with new data that may be sent.
    pub(super) ready: Queue<Turn>,
    /// Messages with data to send again, each once.
    pub(super) resending: VecDeque<RpcKey>,
    pub(super) control: VecDeque<Control>,
    /// Nothing if packets are not paced.
    pub(super) pacing: Option<Pacing>,
    pub(super) refusals: Refusals,
    pub(super) events: VecDeque<Event>,
    /// Calls whose end is not for all, by id.
    pub(super) private: FxHashMap<u64, Private>,
    /// What is for other endpoints behind this address.
    pub(super) forwards: VecDeque<Forward>,
    /// Messages that are read while they arrive.
    pub(super) streams: Streams,
    pub(super) ports: Ports,
    /// Bytes of outgoing messages, and who waits for there to be fewer.
    pub(super) room: Room,
    /// Memory that RPCs and messages occupy.
    pub(super) memory: Occupied,
    next_id: u64,
    next_serial: u64,
    /// Events handed out since the queue was last empty: how the next one was come by.
    drained: u32,
    slept: bool,
    pub(super) ticks: u64,
    pub(super) next_tick: Option<Instant>,
    pub(super) next_fifo: Option<Instant>,
    /// Fine timers, for losses.
    pub(super) wheel: Wheel,
    pub(super) grants_counted: Instant,
    /// Bytes of packets that have come, with what is around them on a link.
    pub(super) heard: u64,
    /// Latest time that we were told.
    pub(super) latest: Instant,
    /// Memory of ranges to send again, of gaps and of messages, kept to spare allocations, as is the last.
    pub(super) spare: Spare<(usize, usize)>,
    pub(super) spare_gaps: Spare<Gap>,
    pub(super) boxes_tx: Boxes<TxMessage>,
    pub(super) boxes_rx: Boxes<RxMessage>,
    /// Ends of RPCs that are put off.
    pub(super) late: LateWork,
    /// What a tick found to do.
    pub(super) due: Vec<(RpcKey, Due)>,
}

impl Endpoint {
    /// An endpoint without ports or peers. Its time trace is off: see [`Self::set_trace`].
    pub fn new(mut config: Config) -> Self {
        config.normalise_cutoffs();
        config.pool_pages = config.pool_pages.min(MOST_PAGES);
        if config.keep_bodies {
            config.longest_message = config.longest_message.min(MAX_MESSAGE_LEN);
        }
        Self {
            metrics: Metrics::default(),
            trace: Recorder::new(0, trace::Clock::Manual, 0),
            rpcs: Slab::new(),
            clients: FxHashMap::default(),
            servers: FxHashMap::default(),
            recent: Recent::default(),
            peers: Peers::default(),
            tombstones: Tombstones::new(config.tombstone_time, config.tombstone_chunks),
            grants: Grants::new(&config),
            grants_due: false,
            lengths: Lengths::new(&config),
            pool: if config.keep_bodies {
                Pool::new(config.pool_pages)
            } else {
                Pool::without_bodies(config.pool_pages)
            },
            incast: Incast::default(),
            starved: Vec::new(),
            starved_long: false,
            unread: 0,
            ready: Queue::default(),
            resending: VecDeque::new(),
            control: VecDeque::new(),
            pacing: Pacing::new(&config),
            refusals: Refusals::default(),
            events: VecDeque::new(),
            private: FxHashMap::default(),
            forwards: VecDeque::new(),
            streams: Streams::default(),
            ports: Ports::new(config.first_port),
            room: Room::default(),
            next_id: config.shard.next_id((config.first_id & !1).max(2)),
            next_serial: 0,
            memory: Occupied::new(config.memory.clone()),
            drained: 0,
            slept: false,
            ticks: 0,
            next_tick: None,
            next_fifo: None,
            wheel: Wheel::default(),
            grants_counted: Instant::default(),
            heard: 0,
            latest: Instant::default(),
            spare: Spare::default(),
            spare_gaps: Spare::default(),
            boxes_tx: Boxes::default(),
            boxes_rx: Boxes::default(),
            late: LateWork::default(),
            due: Vec::new(),
            config,
        }
    }

    /// Records events with `trace` from now on.
    pub fn set_trace(&mut self, trace: Recorder) {
        self.trace = trace;
    }

    /// Parameters in force; cutoffs may have changed since the endpoint was made.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Makes `port` a server port: requests to it become events.
    ///
    /// # Errors
    ///
    /// If it is not in 1 to 32767 or bound already.
    pub fn bind(&mut self, port: u16) -> Result<(), SendError> {
        self.ports.bind(port)
    }

    /// Gives up a port: its RPCs end, and no events about them follow but those that wait to be taken already. Ends of
    /// private calls are dropped. Peers that go on sending are told by ICMP.
    pub fn unbind(&mut self, port: u16) {
        self.settle();
        self.ports.close(port);
        self.forget_refused(port);
        self.forget_private_of(port);
        let keys: Vec<_> = self.rpcs.iter().filter(|(_, rpc)| rpc.port == port).map(|(key, _)| key).collect();
        for key in keys {
            self.end(key);
        }
    }

    /// Accepts no more requests to `port`. Those that have begun go on as if it were bound.
    pub fn stop_serving(&mut self, port: u16) {
        self.ports.close(port);
    }

    /// A new port to call from.
    ///
    /// # Errors
    ///
    /// If all 32768 such ports are in use.
    pub fn client_port(&mut self) -> Result<u16, SendError> {
        self.ports.assign()
    }

    /// Sends a request from our port `from` to `to`. A [`Event::Response`] or [`Event::Failed`] with the same id and
    /// `cookie` follows.
    ///
    /// # Errors
    ///
    /// If the message is empty or longer than 1,000,000 bytes, or `from` is no port of ours. If too much is under way
    /// ([`SendError::WouldBlock`]): [`Event::Room`] follows when the call may be tried again.
    pub fn call(
        &mut self,
        now: Instant,
        from: u16,
        to: SocketAddr,
        payload: Payload,
        cookie: u64,
    ) -> Result<RpcId, SendError> {
        check_length_up_to(&payload, self.config.longest_message)?;
        if self.ports.calls(from).is_none() {
            return Err(SendError::NotBound(from));
        }
        let peer = self.intern(to.ip());
        self.admit(from, peer, payload.len())?;
        let id = RpcId::local(self.next_id);
        self.next_id = self.config.shard.next_id(self.next_id.wrapping_add(2).max(2));
        let (len, tag) = (payload.len(), self.peers[peer].tag);
        self.trace.record(trace::Event::SendmsgRequest {
            peer: tag,
            port: to.port(),
            id: id.low(),
            length: len as u32,
        });
        let tx = self.outgoing(now, payload, peer, id);
        self.metrics.client_requests_started += 1;
        self.metrics.client_request_bytes_started += len as u64;
        self.metrics.send_calls += 1;
        let key = self.insert(now, id, peer, to.port(), from, State::Outgoing);
        self.rpcs[key].cookie = cookie;
        self.rpcs[key].tx = Some(tx);
        self.clients.insert(id.get(), key);
        self.ports.begin(from);
        self.limit_incast(key);
        if !self.rpcs[key].held_back {
            self.schedule(key);
            self.announce_new(key);
        }
        self.trace.record_also(trace::Event::SendmsgDone { id: id.low() });
        Ok(id)
    }

    /// Answers a request. An answer to an RPC that has ended meanwhile (the client gave up) goes nowhere, without
    /// an error.
    ///
    /// An answer is never refused for want of room, since whoever has it could do nothing but wait with it. While
    /// responses hold [`Config::tx_budget`] no request is taken, so that they hold at most that and 1,000,000 bytes for
    /// each of [`Config::max_server_rpcs`]. [`Self::try_reply`] keeps them below the budget.
    ///
    /// # Errors
    ///
    /// If the message is empty or longer than 1,000,000 bytes; the request is then given up.
    pub fn reply(&mut self, now: Instant, rpc: ServerRpc, payload: Payload) -> Result<(), SendError> {
        let Some(key) = self.in_service(&rpc) else { return Ok(()) };
        if let Err(error) = check_length_up_to(&payload, self.config.longest_message) {
            self.end(key);
            return Err(error);
        }
        let (id, peer, port, len) = (rpc.id, self.rpcs[key].peer, self.rpcs[key].port, payload.len());
        let pid = self.config.pid;
        self.trace.record(trace::Event::SendmsgResponse { id: id.low(), port, pid, length: len as u32 });
        let tx = self.outgoing(now, payload, peer, id);
        self.metrics.server_responses_started += 1;
        self.metrics.server_response_bytes_started += len as u64;
        self.metrics.reply_calls += 1;
        self.rpcs[key].state = State::Outgoing;
        self.rpcs[key].tx = Some(tx);
        self.rpcs[key].silent = 0;
        self.rpcs[key].done = 0;
        self.account();
        self.schedule(key);
        self.announce_new(key);
        self.arm(now);
        self.trace.record_also(trace::Event::SendmsgDone { id: id.low() });
        Ok(())
    }

    /// Gives up a request without an answer; its client will time out.
    pub fn discard(&mut self, rpc: ServerRpc) {
        if let Some(key) = self.in_service(&rpc) {
            self.end(key);
        }
    }

    /// The next news, if any.
    pub fn poll_event(&mut self) -> Option<Event> {
        let Some(event) = self.events.pop_front() else {
            self.drained = 0;
            self.take_back();
            return None;
        };
        Some(self.hand_over(event))
    }

    /// Notes that the application takes `event`.
    pub(super) fn hand_over(&mut self, event: Event) -> Event {
        let (id, port, len) = match &event {
            Event::Request { rpc, port, msg, .. } => {
                if let Some(found) = self.rpcs.get_mut(rpc.key).filter(|found| found.id == rpc.id) {
                    self.unread -= usize::from(std::mem::take(&mut found.unread));
                }
                (rpc.id, *port, msg.len)
            }
            Event::Response { id, port, msg, peer, .. } => {
                self.acknowledge(*id, *peer);
                (*id, *port, msg.len)
            }
            Event::Failed { .. } | Event::Room(_) => return event,
        };
        let via = if self.drained == 0 { Via::Handoff } else { Via::ReadyRpcs };
        let blocked = self.slept && via == Via::Handoff;
        self.drained += 1;
        match (blocked, via) {
            (true, _) => self.metrics.wait_block += 1,
            (false, Via::Handoff) => self.metrics.wait_fast += 1,
            (false, Via::ReadyRpcs) => self.metrics.wait_none += 1,
        }
        self.metrics.recv_calls += 1;
        self.trace.record(trace::Event::WaitFound { id: id.low(), pid: self.config.pid, port, via, blocked });
        self.trace.record_also(trace::Event::RecvmsgDone { status: len as u32, id: id.low() });
        event
    }

    /// Tells whether the thread slept before the packets that are handled next; for traces and metrics.
    pub fn set_slept(&mut self, slept: bool) {
        self.slept = slept;
    }

    /// Gives the pages of a message back, perhaps to messages that wait for room.
    pub fn release(&mut self, msg: Message) {
        self.pool.free(&msg.lease);
        self.pages_came_free();
    }

    /// Makes `msg` a value of its own, which any thread can read and which returns its pages when it is dropped:
    /// there is no [`Self::release`] of it. Copies what does not fill a page, so less than 64 KiB.
    pub fn detach(&mut self, msg: Message) -> Body {
        self.pool.lend(msg.lease, msg.len)
    }

    /// The bytes of `msg` in order, piece by piece.
    pub fn pieces<'a>(&'a self, msg: &'a Message) -> impl Iterator<Item = &'a [u8]> {
        self.pool.pieces(&msg.lease, msg.len)
    }

    /// Copies bytes of `msg` from `offset` on into `out`; returns how many there were to copy.
    pub fn copy_out(&self, msg: &Message, offset: usize, out: &mut [u8]) -> usize {
        self.pool.copy(&msg.lease, msg.len, offset, out)
    }

    /// RPCs in the table, as client and as server.
    pub fn active_rpcs(&self) -> usize {
        self.rpcs.len() - self.late.calls()
    }

    /// True if messages are on their way to peers, or not known to have come there.
    pub fn is_sending(&self) -> bool {
        !self.control.is_empty() || self.rpcs.iter().any(|(_, rpc)| rpc.state == State::Outgoing)
    }

    /// True if nothing is left of any RPC: no state, no granted bytes, no pages in use, nothing to send.
    pub fn is_quiet(&self) -> bool {
        self.rpcs.is_empty()
            && self.grants.is_empty()
            && self.grants.total_incoming == 0
            && self.pool.free_pages() == self.config.pool_pages
            && self.control.is_empty()
            && self.ready.is_empty()
            && self.events.is_empty()
            && self.private.is_empty()
            && self.forwards.is_empty()
            && self.late.is_empty()
    }

    // ---- shared by input, output and timers ----

    /// Takes the pages of bodies that were dropped since the last look.
    #[inline]
    pub(super) fn take_back(&mut self) {
        if self.pool.take_back() {
            self.pages_came_free();
        }
    }

    pub(super) fn is_server_port(&self, port: u16) -> bool {
        self.ports.serves(port)
    }

    /// True if packets to `port` are for us. Calls that are over may have come from any client port, if ports vary.
    pub(super) fn has_port(&self, port: u16) -> bool {
        self.ports.calls(port).is_some() || self.config.vary_ports && port >= FIRST_CLIENT_PORT
    }

    /// The port that packets of RPC `id` come from, whose port is `port`.
    fn wire_port(&self, id: RpcId, port: u16) -> u16 {
        if self.config.vary_ports && id.is_client() { FIRST_CLIENT_PORT | scattered(id) } else { port }
    }

    /// The peer at `addr`; there is room for it, if need be beyond the limit: the application itself has named it.
    pub(super) fn intern(&mut self, addr: IpAddr) -> PeerKey {
        if self.peers.find(addr).is_none() {
            self.make_room_for_peer();
        }
        let (peer, new) = self.peers.intern(addr);
        self.metrics.peer_allocs += u64::from(new);
        peer
    }

    pub(super) fn insert(
        &mut self,
        now: Instant,
        id: RpcId,
        peer: PeerKey,
        peer_port: u16,
        port: u16,
        state: State,
    ) -> RpcKey {
        self.latest = self.latest.max(now);
        self.arm(now);
        self.next_serial += 1;
        let known = &mut self.peers[peer];
        known.rpcs += 1;
        known.served += usize::from(!id.is_client());
        known.used = now;
        let key = self.rpcs.insert(Rpc {
            id,
            peer,
            peer_port,
            port,
            cookie: 0,
            state,
            tx: None,
            rx: None,
            silent: 0,
            busy: 0,
            held_back: false,
            expected: 0,
            unread: false,
            early: 0,
            restarted: false,
            wire_port: self.wire_port(id, port),
            done: 0,
            next_need_ack: self.config.request_ack_ticks.max(1),
            restarts: 0,
            serial: self.next_serial,
        });
        self.account();
        key
    }

    /// Removes an RPC and all that hangs on it.
    pub(super) fn end(&mut self, key: RpcKey) {
        let rpc = self.rpcs.remove(key);
        self.streams.cut(key, &rpc);
        self.wheel.clear(key);
        let known = &mut self.peers[rpc.peer];
        known.rpcs -= 1;
        known.used = self.latest;
        self.unread -= usize::from(rpc.unread);
        if rpc.is_client() {
            self.clients.remove(&rpc.id.get());
            self.ports.end(rpc.port);
        } else {
            self.peers[rpc.peer].served -= 1;
            self.servers.remove(&(rpc.peer, rpc.id.get()));
            // The RPC may have lived long: late copies of its packets are to be feared from now on.
            self.tombstones.insert(self.latest, rpc.peer, rpc.id);
        }
        if let Some(mut tx) = rpc.tx {
            self.ready.remove(key);
            if tx.has_resend() {
                self.resending.retain(|listed| *listed != key);
            }
            self.give_room(rpc.peer, rpc.id.is_client(), tx.len);
            self.spare.put(tx.take_ranges());
            self.boxes_tx.put(tx);
        }
        if let Some(rx) = rpc.rx
            && let Some(lease) = self.stop_receiving(key, rpc.id, rx)
        {
            self.pool.free(&lease);
        }
        self.trace.record_also(trace::Event::RpcEnd { id: rpc.id.low(), port: rpc.port });
        self.no_longer_expected(rpc.expected);
        self.account();
        self.tell_of_room();
    }

    /// Ends a call and tells the application why.
    pub(super) fn fail(&mut self, key: RpcKey, error: RpcError) {
        let rpc = &self.rpcs[key];
        let (id, cookie, port) = (rpc.id, rpc.cookie, rpc.port);
        let peer = SocketAddr::new(self.peers[rpc.peer].addr, rpc.peer_port);
        self.tell(id, Event::Failed { id, cookie, port, peer, error });
        self.end(key);
    }

    /// Hands a complete message to the application.
    pub(super) fn deliver(&mut self, key: RpcKey) {
        let rpc = &mut self.rpcs[key];
        let id = rpc.id;
        let rx = rpc.rx.take().expect("a complete message was being received");
        let (len, unscheduled) = (rx.len, rx.unscheduled);
        self.learn_frame(key, &rx);
        let lease = self.stop_receiving(key, id, rx).expect("a complete message has its bytes");
        self.hand_in(key, lease, len, unscheduled);
    }

    /// Hands a message of `len` bytes to the application, of which `unscheduled` came unasked.
    pub(super) fn hand_in(&mut self, key: RpcKey, lease: Lease, len: usize, unscheduled: usize) {
        let rpc = &mut self.rpcs[key];
        let (id, port, cookie) = (rpc.id, rpc.port, rpc.cookie);
        let known = &mut self.peers[rpc.peer];
        known.timing.delivered();
        let peer = SocketAddr::new(known.addr, rpc.peer_port);
        if let Some(lengths) = &mut self.lengths {
            lengths.add(len, unscheduled);
        }
        let msg = Message { lease, len };
        self.metrics.received(len);
        if self.events.is_empty() {
            self.metrics.handoffs_thread_waiting += 1;
            self.trace.record_also(trace::Event::Handoff { id: id.low(), port });
        } else {
            self.trace.record_also(trace::Event::HandoffQueued { id: id.low(), port });
        }
        if id.is_client() {
            self.metrics.responses_received += 1;
            self.metrics.client_responses_done += 1;
            self.tell(id, Event::Response { id, cookie, port, peer, msg });
            self.end_answered(key);
        } else {
            self.metrics.requests_received += 1;
            self.metrics.server_requests_done += 1;
            let rpc = &mut self.rpcs[key];
            rpc.state = State::InService;
            rpc.unread = true;
            self.unread += 1;
            self.events.push_back(Event::Request { rpc: ServerRpc { key, id }, port, peer, msg });
        }
    }

    /// Takes an incoming message, which is no longer its RPC's, out of all tables; returns its room in the pool.
    fn stop_receiving(&mut self, key: RpcKey, id: RpcId, mut rx: Box<RxMessage>) -> Option<Lease> {
        self.forget_starved(key, id);
        self.grants.total_incoming -= rx.incoming;
        if rx.timed {
            self.wheel.clear(key);
        }
        if rx.managed {
            let at = self.moment();
            self.grants.remove(at, key);
            self.grants_due = true;
        }
        // Even if it needed no grants itself, others have waited for the room that it leaves.
        self.grants_due |= !self.grants.is_empty();
        let lease = rx.lease.take();
        self.spare_gaps.put(rx.take_gaps());
        self.boxes_rx.put(rx);
        lease
    }

    /// Puts a message where [`Self::poll_transmit`] finds it, or takes it away, as it has something to send or not.
    pub(super) fn schedule(&mut self, key: RpcKey) {
        let rpc = &self.rpcs[key];
        match &rpc.tx {
            Some(tx) if tx.can_send() && !rpc.held_back => {
                self.ready.set(key, Turn { left: tx.left(), serial: rpc.serial });
                if let Some(pacing) = &mut self.pacing {
                    pacing.consider(key, rpc.serial);
                }
            }
            _ => _ = self.ready.remove(key),
        }
    }

    /// What the grant policy needs to know of an RPC's incoming message.
    pub(super) fn view(rpcs: &Slab<Rpc>) -> impl Fn(RpcKey) -> View + '_ {
        |key| rpcs[key].rx.as_ref().expect("messages leave the grant table before they go").view()
    }

    /// Sees to it that time goes on while there are RPCs; the idle tick may be a long way off.
    pub(super) fn arm(&mut self, now: Instant) {
        let soon = now + self.config.tick;
        self.next_tick = Some(self.next_tick.map_or(soon, |at| at.min(soon)));
    }

    fn outgoing(&mut self, now: Instant, payload: Payload, peer: PeerKey, id: RpcId) -> Box<TxMessage> {
        let (segment, batch) = self.segments(now, peer);
        let unscheduled = self.config.announce.unscheduled(payload.len(), self.config.unsched_bytes);
        let mut tx = self.boxes_tx.take();
        tx.begin(payload, unscheduled, segment, batch, self.spare.take());
        self.metrics.sent_msg_bytes += tx.len as u64;
        self.take_room(peer, id.is_client(), tx.len);
        let (id, length) = (id.low(), tx.len as u32);
        self.trace.record_also(trace::Event::CopyInStart { id, length, unscheduled: tx.unscheduled as u32 });
        self.trace.record_also(trace::Event::CopyInDone { id, length });
        tx
    }

    /// Data bytes in a full packet to `peer`, and how many such packets the device may be given as one.
    pub(super) fn segments(&self, now: Instant, peer: PeerKey) -> (usize, usize) {
        let peer = &self.peers[peer];
        let headers = peer.addr_header() + DATA_HEADER_LEN;
        let mtu = peer.mtu(now).unwrap_or(usize::MAX).min(self.config.mtu);
        let segment = mtu.saturating_sub(headers).max(1);
        let batch =
            if self.config.gso_bytes > mtu { self.config.gso_bytes.saturating_sub(headers) / segment } else { 1 };
        (segment, batch.max(1))
    }

    fn in_service(&self, rpc: &ServerRpc) -> Option<RpcKey> {
        let is_it = |found: &Rpc| found.id == rpc.id && found.state == State::InService;
        self.rpcs.get(rpc.key).is_some_and(is_it).then_some(rpc.key)
    }

    /// The application has the response: its server may forget the RPC.
    fn acknowledge(&mut self, id: RpcId, server: SocketAddr) {
        let peer = self.intern(server.ip());
        let record = AckRecord { client_id: id.get(), server_port: server.port() };
        if let Some(waiting) = self.peers[peer].push_ack(record) {
            self.metrics.ack_overflows += 1;
            // The port is free: the server looks at the id and its own port only.
            self.control.push_back(Control::ack(peer, ends(0, server.port(), id), waiting));
        }
    }
}

/// A number far from those of the ids next to `id`.
fn scattered(id: RpcId) -> u16 {
    (id.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u16
}

/// The error for a message that can't be sent because of its length.
pub(crate) fn check_length(payload: &Payload) -> Result<(), SendError> {
    check_length_up_to(payload, MAX_MESSAGE_LEN)
}

fn check_length_up_to(payload: &Payload, max: usize) -> Result<(), SendError> {
    match payload.len() {
        0 => Err(SendError::Empty),
        len if len > max => Err(SendError::TooLong { len, max }),
        _ => Ok(()),
    }
}
