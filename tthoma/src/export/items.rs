//! Events and tracks of an export, in memory.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::wire::{Track, Type};
use crate::analyze::explain::Ends;
use crate::event::Kind;
use crate::model::softirq::{Ending, NO_CORE, Wait};
use crate::model::{Carries, Flight, Model, NOWHERE, Side};
use crate::packets::UNSEEN;

/// What is chosen; times are ns on the common clock.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) from: i64,
    pub(super) to: i64,
    /// Empty for all.
    pub(super) nodes: Vec<u16>,
    /// Client and even id.
    pub(super) rpc: Option<(u16, u32)>,
}

/// An event; [`super::wire::TrackEvent`] with its data.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) at: i64,
    pub(super) track: u64,
    pub(super) kind: Type,
    pub(super) name: &'static str,
    pub(super) value: i64,
    pub(super) args: [(&'static str, i64); 3],
    pub(super) args_used: u8,
    pub(super) flows: Vec<u64>,
    pub(super) last_flow: Option<u64>,
}

/// A line of a core or node, in the order of display.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Line {
    Nic,
    Backlog(u16),
    BacklogBytes(u16),
    App(u16),
    Sends(u16),
    Gro(u16),
    Softirq(u16),
    Kernel(u16),
    Threads(u16),
    Called(u32),
    Served(u32),
}

/// All that is exported.
#[derive(Debug, Default)]
pub(super) struct Items {
    pub(super) events: Vec<Event>,
    lines: BTreeMap<(u16, Line), u64>,
    names: Vec<String>,
}

const NO_ARG: (&str, i64) = ("", 0);

impl Window {
    fn node(&self, node: u16) -> bool {
        node != NOWHERE && (self.nodes.is_empty() || self.nodes.contains(&node))
    }

    fn rpc(&self, client: u16, id: u32) -> bool {
        self.rpc.is_none_or(|rpc| rpc == (client, id & !1))
    }

    fn has(&self, at: i64) -> bool {
        at != UNSEEN && (self.from..=self.to).contains(&at)
    }
}

/// First and last known time of an RPC, from the client's side.
pub(super) fn rpc_span(model: &Model, client: &Side) -> (i64, i64) {
    let rpcs = model.rpcs();
    let place = rpcs.place(client.client, client.id);
    let messages = place.into_iter().flat_map(|p| [rpcs.outgoing(p), rpcs.incoming(p)]).flatten();
    let flights = messages.flat_map(|m| model.flights().data_of(m));
    let times =
        flights.flat_map(|f| [f.xmit, f.gro, f.softirq]).chain([client.sendmsg, client.recvmsg_done, client.found]);
    let seen = times.filter(|t| *t != UNSEEN);
    seen.fold((i64::MAX / 2, i64::MIN / 2), |(first, last), t| (first.min(t), last.max(t)))
}

impl Items {
    pub(super) fn collect(model: &Model, window: &Window) -> Self {
        let mut items = Self { names: model.hosts.nodes.clone(), ..Self::default() };
        for node in (0..model.traces.len() as u16).filter(|n| window.node(*n)) {
            items.softirq(model, window, node);
            items.backlog(model, window, node);
            items.work(model, window, node);
            items.nic(model, window, node);
        }
        items.packets(model, window);
        items.rpcs(model, window);
        items
    }

    /// Time of the first and the last event.
    pub(super) fn span(&self) -> Option<(i64, i64)> {
        let times = || self.events.iter().map(|e| e.at);
        times().min().zip(times().max())
    }

    /// Number, name and place of each track, parents first.
    pub(super) fn tracks(&self) -> impl Iterator<Item = (u64, String, Track)> {
        let parent = |node: u16| u64::from(node) + 1;
        let mut nodes: Vec<u16> = self.lines.keys().map(|(node, _)| *node).collect();
        nodes.dedup();
        let name = |node: u16| self.names.get(usize::from(node)).cloned().unwrap_or_default();
        let nodes = nodes.into_iter().map(move |n| (parent(n), name(n), Track::Node(u32::from(n) + 1)));
        let lines = self.lines.iter().enumerate().map(move |(rank, ((node, line), uuid))| {
            let (parent, rank) = (parent(*node), rank as u32);
            let core = |core: u16| if core == NO_CORE { "?".to_string() } else { core.to_string() };
            let slices = Track::Slices(parent, rank);
            let (name, track) = match *line {
                Line::Nic => ("bytes in NIC".into(), Track::Counter(parent, rank, true)),
                Line::Backlog(c) => (format!("core {} backlog", core(c)), Track::Counter(parent, rank, false)),
                Line::BacklogBytes(c) => {
                    (format!("core {} backlog bytes", core(c)), Track::Counter(parent, rank, true))
                }
                Line::App(c) => (format!("core {c} app"), slices),
                Line::Sends(c) => (format!("core {c} sends"), slices),
                Line::Gro(c) => (format!("core {c} gro"), slices),
                Line::Softirq(c) => (format!("core {c} softirq"), slices),
                Line::Kernel(c) => (format!("core {c} kernel"), slices),
                Line::Threads(c) => (format!("core {c} threads"), slices),
                Line::Called(_) => ("RPCs called".into(), Track::Shared(parent)),
                Line::Served(_) => ("RPCs served".into(), Track::Shared(parent)),
            };
            (*uuid, name, track)
        });
        nodes.chain(lines)
    }

    fn track(&mut self, node: u16, line: Line) -> u64 {
        // Numbers of nodes are below.
        let next = (1 << 16) + 1 + self.lines.len() as u64;
        *self.lines.entry((node, line)).or_insert(next)
    }

    fn push(
        &mut self,
        at: i64,
        track: u64,
        kind: Type,
        name: &'static str,
        args: &[(&'static str, i64)],
    ) -> &mut Event {
        let mut all = [NO_ARG; 3];
        all.iter_mut().zip(args).for_each(|(place, arg)| *place = *arg);
        self.events.push(Event {
            at,
            track,
            kind,
            name,
            value: 0,
            args: all,
            args_used: args.len().min(3) as u8,
            flows: Vec::new(),
            last_flow: None,
        });
        self.events.last_mut().expect("was just pushed")
    }

    /// A slice, as far as it is in the window.
    fn slice(
        &mut self,
        window: &Window,
        (node, line): (u16, Line),
        (from, to): (i64, i64),
        name: &'static str,
        args: &[(&'static str, i64)],
    ) -> Option<&mut Event> {
        let (from, to) = (from.max(window.from), to.min(window.to));
        if to < from {
            return None;
        }
        let track = self.track(node, line);
        let place = self.events.len();
        self.push(from, track, Type::Begin, name, args);
        self.push(to, track, Type::End, "", &[]);
        self.events.get_mut(place)
    }

    /// Invocations and batches.
    fn softirq(&mut self, model: &Model, window: &Window, node: u16) {
        let queues = &model.queues()[usize::from(node)];
        let offset = model.clock.offset(usize::from(node)).unwrap_or(0);
        let kernel = !queues.kernel_runs.is_empty();
        for i in queues.invocations.iter().filter(|_| !kernel) {
            self.slice(window, (node, Line::Softirq(i.core)), (i.start + offset, i.end + offset), "softirq", &[]);
        }
        for run in queues.kernel_runs.iter().filter(|r| r.end != UNSEEN) {
            let name = if run.vector == 3 { "NET_RX" } else { "NET_TX" };
            let waited = if run.raised == UNSEEN { 0 } else { run.start - run.raised };
            let times = (run.start + offset, run.end + offset);
            self.slice(window, (node, Line::Kernel(run.core)), times, name, &[("raised_ns_before", waited)]);
        }
        let mut first: FxHashMap<u32, i64> = FxHashMap::default();
        for wait in &queues.waits {
            first.entry(wait.batch).and_modify(|t| *t = (*t).min(wait.gro)).or_insert(wait.gro);
        }
        // One batch at a time is held by a core: where traces say otherwise, slices must not overlap all the same.
        let mut busy: FxHashMap<u16, i64> = FxHashMap::default();
        for (place, batch) in queues.batches.iter().enumerate() {
            let begin = first.get(&(place as u32)).copied().unwrap_or(batch.handoff);
            let before = busy.insert(batch.gro_core, batch.handoff).unwrap_or(i64::MIN);
            let times = (begin.max(before) + offset, batch.handoff + offset);
            let args = [("packets", i64::from(batch.packets)), ("to_core", i64::from(batch.core))];
            self.slice(window, (node, Line::Gro(batch.gro_core)), times, "batch", &args);
        }
    }

    /// Packets that wait for SoftIRQ.
    fn backlog(&mut self, model: &Model, window: &Window, node: u16) {
        let queues = &model.queues()[usize::from(node)];
        let Some((_, last)) = model.traces[usize::from(node)].span else { return };
        let offset = model.clock.offset(usize::from(node)).unwrap_or(0);
        let mut steps: FxHashMap<u16, Vec<(i64, i64, i64)>> = FxHashMap::default();
        let queued = |w: &&Wait| w.gro != UNSEEN && !matches!(w.ending, Ending::Bypassed | Ending::Unknown);
        for wait in queues.waits.iter().filter(queued) {
            let (from, to) = (if wait.ring == UNSEEN { wait.gro } else { wait.ring }, wait.over(last));
            let steps = steps.entry(wait.core).or_default();
            steps.push((from + offset, 1, i64::from(wait.bytes)));
            if wait.ending != Ending::Open {
                steps.push((to.max(from) + offset, -1, -i64::from(wait.bytes)));
            }
        }
        let mut steps: Vec<_> = steps.into_iter().collect();
        steps.sort_unstable_by_key(|(core, _)| *core);
        for (core, steps) in steps {
            let packets = self.track(node, Line::Backlog(core));
            let bytes = self.track(node, Line::BacklogBytes(core));
            self.counter(window, packets, steps.iter().map(|(at, n, _)| (*at, *n)).collect());
            self.counter(window, bytes, steps.into_iter().map(|(at, _, n)| (at, n)).collect());
        }
    }

    /// A counter that changes at these times by so much; its values in the window, and what it is at its begin.
    fn counter(&mut self, window: &Window, track: u64, mut steps: Vec<(i64, i64)>) {
        steps.sort_unstable();
        let (mut value, mut begun) = (0, false);
        let mut steps = steps.into_iter().peekable();
        while let Some((at, change)) = steps.next() {
            if at >= window.from && !begun && at <= window.to {
                begun = true;
                if value != 0 {
                    self.push(window.from, track, Type::Counter, "", &[]).value = value;
                }
            }
            value += change;
            // Of several changes at one time, the last value is the counter's.
            if window.has(at) && steps.peek().is_none_or(|(next, _)| *next != at) {
                self.push(at, track, Type::Counter, "", &[]).value = value;
            }
        }
    }

    /// What applications and threads do.
    fn work(&mut self, model: &Model, window: &Window, node: u16) {
        let offset = model.clock.offset(usize::from(node)).unwrap_or(0);
        let mut begun: FxHashMap<(u16, &'static str), (i64, u32)> = FxHashMap::default();
        let mut threads: FxHashMap<u16, (i64, u32)> = FxHashMap::default();
        for record in &model.traces[usize::from(node)].records {
            let (at, core) = (record.time + offset, record.core);
            let step = match record.kind {
                Kind::SendmsgRequest | Kind::SendmsgResponse => ("sendmsg", true),
                Kind::SendmsgDone => ("sendmsg", false),
                Kind::CopyInStart => ("copy in", true),
                Kind::CopyInDone => ("copy in", false),
                Kind::CopyOutStart => ("copy out", true),
                Kind::CopyOutDone => ("copy out", false),
                Kind::TaskSwitch => {
                    if let Some((since, pid)) = threads.insert(core, (at, record.b))
                        && pid != 0
                    {
                        let args = [("pid", i64::from(pid))];
                        self.slice(window, (node, Line::Threads(core)), (since, at), "thread", &args);
                    }
                    continue;
                }
                _ => continue,
            };
            if step.1 {
                begun.insert((core, step.0), (at, record.id));
            } else if let Some((since, id)) = begun.remove(&(core, step.0)) {
                let inside = begun.iter().filter(|((c, _), _)| *c == core).map(|(_, (t, _))| *t).max();
                // A slice that ends after one which began in it would break the nesting.
                if inside.is_none_or(|t| t <= since) {
                    self.slice(window, (node, Line::App(core)), (since, at), step.0, &[("id", i64::from(id))]);
                }
            }
        }
    }

    /// Bytes that the NIC has.
    fn nic(&mut self, model: &Model, window: &Window, node: u16) {
        let in_nic = |f: &&Flight| f.from == node && f.head && f.nic != UNSEEN && f.free != UNSEEN && f.free >= f.nic;
        let steps: Vec<(i64, i64)> = (model.flights().all().filter(in_nic))
            .flat_map(|f| [(f.nic, i64::from(f.frame)), (f.free, -i64::from(f.frame))])
            .collect();
        if !steps.is_empty() {
            let track = self.track(node, Line::Nic);
            self.counter(window, track, steps);
        }
    }

    /// Moments of packets, and flows between them.
    fn packets(&mut self, model: &Model, window: &Window) {
        // Place of the transmission's event by frame: message, time.
        let mut frames: FxHashMap<(u8, u32, u32, i64), usize> = FxHashMap::default();
        let flights: Vec<&Flight> = model.flights().all().filter(|f| chosen(model, window, f)).collect();
        for f in flights.iter().filter(|f| f.head && window.node(f.from) && window.has(f.xmit)) {
            let track = self.track(f.from, Line::Sends(f.tx_core));
            frames.insert(frame(f), self.events.len());
            let bytes = if f.frame > 0 { f.frame } else { f.length };
            let args = [("id", i64::from(f.id)), ("offset", i64::from(f.offset)), ("bytes", i64::from(bytes))];
            self.push(f.xmit, track, Type::Instant, name(f.carries), &args);
        }
        for (place, f) in flights.iter().enumerate() {
            let flow = place as u64 + 1;
            let sent = frames.get(&frame(f)).copied();
            if let Some(event) = sent.and_then(|place| self.events.get_mut(place)) {
                event.flows.push(flow);
            }
            if !window.node(f.to) {
                continue;
            }
            let args = [("id", i64::from(f.id)), ("offset", i64::from(f.offset)), ("priority", i64::from(f.priority))];
            let gro = window.has(f.gro);
            let softirq = window.has(f.softirq);
            if gro {
                let track = self.track(f.to, Line::Gro(f.gro_core));
                self.push(f.gro, track, Type::Instant, name(f.carries), &args).flows.push(flow);
            }
            if softirq {
                let track = self.track(f.to, Line::Softirq(f.softirq_core));
                self.push(f.softirq, track, Type::Instant, name(f.carries), &args).last_flow = Some(flow);
            }
        }
    }

    /// Slices of RPCs.
    fn rpcs(&mut self, model: &Model, window: &Window) {
        let rpcs = model.rpcs();
        let ends = Ends::of(model);
        for (place, side) in rpcs.sides.iter().enumerate() {
            if !window.node(side.node) || !window.rpc(side.client, side.id) {
                continue;
            }
            let args = [
                ("id", i64::from(side.id)),
                ("out_bytes", i64::from(side.out_length.unwrap_or(0))),
                ("in_bytes", i64::from(side.in_length.unwrap_or(0))),
            ];
            let number = place as u32;
            let (line, times) = if side.is_client() {
                (Line::Called(number), (side.sendmsg, ends.returned(side)))
            } else {
                let came = rpcs.incoming(place).map_or(&[][..], |m| model.flights().data_of(m));
                let first = came.iter().map(|f| f.gro).filter(|t| *t != UNSEEN).min().unwrap_or(UNSEEN);
                (Line::Served(number), (first, Some(side.sendmsg).filter(|t| *t != UNSEEN)))
            };
            let (from, Some(to)) = times else { continue };
            if from == UNSEEN || to < from || to < window.from || from > window.to {
                continue;
            }
            let flow = 1 << 63 | u64::from(side.client) << 32 | u64::from(side.id & !1);
            if let Some(begin) = self.slice(window, (side.node, line), (from, to), "RPC", &args) {
                begin.flows.push(flow);
            }
        }
    }
}

/// What packets that left in one frame have in common.
fn frame(flight: &Flight) -> (u8, u32, u32, i64) {
    // The id of a TCP packet is its sequence number.
    (flight.carries as u8, flight.message, flight.id, flight.xmit)
}

fn name(carries: Carries) -> &'static str {
    match carries {
        Carries::Data => "data",
        Carries::Grant => "grant",
        Carries::Tcp => "tcp",
    }
}

/// True if the packet is of the RPC that was chosen.
fn chosen(model: &Model, window: &Window, flight: &Flight) -> bool {
    let Some(wanted) = window.rpc else { return true };
    let message = model.packets.messages.get(flight.message as usize);
    message.is_some_and(|m| (m.client, m.id & !1) == wanted)
}
