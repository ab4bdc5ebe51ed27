//! Each transmission of a packet and what became of it: the ground of `loss`. Source: timetrace.md 10.4.

use rustc_hash::FxHashMap;

use super::Options;
use super::samples::ns;
use crate::model::flights::{first_seen, since};
use crate::model::{Carries, Model, NOWHERE};
use crate::packets::{Packet, Received, Sent, UNSEEN};

/// What became of a transmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Received in time.
    Ok,
    /// Received late.
    Late,
    /// Never received, though the receiver's trace would show it.
    Lost,
    /// On its way when the receiver's trace ends.
    InFlight,
    /// The receiver's trace does not cover it.
    Unobservable,
}

/// A transmission of a packet. Times are ns on the common clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) at: i64,
    pub(super) free: i64,
    pub(super) fate: Fate,
    /// Its reception at GRO.
    pub(super) received: Option<i64>,
    /// SoftIRQ threw it away, or never had it.
    pub(super) dropped: bool,
    pub(super) again: bool,
}

/// A packet with its transmissions, in time order.
#[derive(Clone, Debug)]
pub(super) struct Tried {
    pub(super) id: u32,
    pub(super) offset: u32,
    pub(super) bytes: u32,
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) attempts: Vec<Attempt>,
    /// Receptions beyond the first, and those of them that no transmission explains.
    pub(super) duplicates: u32,
    pub(super) network_duplicates: u32,
}

/// How long packets take between two nodes, ns.
#[derive(Clone, Copy)]
struct PairTimes {
    least: i64,
    late: i64,
}

/// All data packets that were sent within a trace.
pub(super) fn collect(model: &Model, options: &Options) -> Vec<Tried> {
    let times = pair_times(model, options);
    let mut processed: FxHashMap<(u16, u16), i64> = FxHashMap::default();
    for f in model.flights().data.iter().filter(|f| f.gro != UNSEEN && f.softirq != UNSEEN) {
        let latest = processed.entry((f.to, f.gro_core)).or_insert(f.gro);
        *latest = (*latest).max(f.gro);
    }
    let work = Work { model, times, processed };
    let mut out = Vec::new();
    for message in 0..model.packets.messages.len() as u32 {
        work.message(message, &mut out);
    }
    out
}

fn pair_times(model: &Model, options: &Options) -> FxHashMap<(u16, u16), PairTimes> {
    let mut delays: FxHashMap<(u16, u16), Vec<i64>> = FxHashMap::default();
    for f in model.flights().all().filter(|f| f.carries == Carries::Data && !f.again) {
        delays.entry((f.from, f.to)).or_default().extend(since(f.nic_or_xmit(), f.gro));
    }
    let one = |(pair, mut delays): ((u16, u16), Vec<i64>)| {
        delays.sort_unstable();
        let least = delays.first().copied().unwrap_or(0);
        // The 99.9th percentile.
        let high = delays.get(999 * delays.len() / 1000).or(delays.last()).copied().unwrap_or(0);
        let late = options.late_loss.map_or((10 * high).max(200_000), ns);
        (pair, PairTimes { least, late })
    };
    delays.into_iter().map(one).collect()
}

struct Work<'a> {
    model: &'a Model,
    times: FxHashMap<(u16, u16), PairTimes>,
    /// When GRO got the last packet of each (node, core) that SoftIRQ had.
    processed: FxHashMap<(u16, u16), i64>,
}

impl Work<'_> {
    fn message(&self, message: u32, out: &mut Vec<Tried>) {
        let flow = &self.model.packets.data;
        let flights = self.model.flights();
        let Some(any) = flights.data_of(message).iter().find(|f| f.from != NOWHERE && f.to != NOWHERE) else { return };
        let (from, to) = (any.from, any.to);
        let entries: Vec<(u32, u32)> = flow.of_message(message).collect();
        let length = |place: u32| flow.sent_of(&flow.packets[place as usize]).map(|s| s.length).max().unwrap_or(0);
        let mut frame: Option<(u32, u32, bool)> = None;
        for (i, (offset, place)) in entries.iter().enumerate() {
            let packet = &flow.packets[*place as usize];
            let mut sent: Vec<&Sent> = flow.sent_of(packet).collect();
            if let Some(head) = packet.frame().map(|f| &flow.packets[f as usize]) {
                sent.extend(flow.sent_of(head).filter(|s| s.length > offset - head.offset));
            }
            if packet.sent_count() > 0 {
                let cut = entries[i + 1..]
                    .iter()
                    .take(1)
                    .any(|(_, next)| flow.packets[*next as usize].frame() == Some(*place));
                frame = Some((*place, offset.saturating_add(length(*place)), cut));
            }
            let received: Vec<&Received> = flow.received_of(packet).collect();
            let next = entries.get(i + 1).map_or(u32::MAX, |e| e.0);
            // A frame was cut into packets: those that nobody saw were lost.
            let mut missing = Vec::new();
            if let Some((head, end, true)) = frame.filter(|_| flights.mtu > 0) {
                let mut at = offset.saturating_add(flights.mtu);
                while at < end.min(next) && missing.len() < 128 {
                    missing.push((at, head));
                    at = at.saturating_add(flights.mtu);
                }
            }
            let id = self.model.packets.messages[message as usize].id;
            let bytes = flights.data_of(message).iter().find(|f| f.offset == *offset).map_or(0, |f| f.length);
            self.packet(Tried::new(id, *offset, bytes, from, to), &sent, &received, out);
            for (at, head) in missing {
                let head: &Packet = &flow.packets[head as usize];
                let sent: Vec<&Sent> = flow.sent_of(head).filter(|s| s.length > at - head.offset).collect();
                self.packet(Tried::new(id, at, flights.mtu, from, to), &sent, &[], out);
            }
        }
    }

    fn packet(&self, mut tried: Tried, sent: &[&Sent], received: &[&Received], out: &mut Vec<Tried>) {
        let model = self.model;
        if sent.is_empty() || !model.comparable(tried.from, tried.to) {
            return;
        }
        let offset = |node: u16| model.clock.offset(usize::from(node)).unwrap_or(0);
        let place = |node: u16, time: i64| if time == UNSEEN { UNSEEN } else { time + offset(node) };
        let error = model.clock.error(tried.from, tried.to).unwrap_or(0);
        let times = self.times.get(&(tried.from, tried.to)).copied().unwrap_or(PairTimes { least: 0, late: 200_000 });
        for s in sent {
            let at = place(s.node, first_seen(&[s.nic, s.xmit]));
            if at != UNSEEN {
                let (free, again) = (place(s.node, s.free), s.again);
                tried.attempts.push(Attempt { at, free, fate: Fate::Lost, received: None, dropped: false, again });
            }
        }
        tried.attempts.sort_by_key(|a| a.at);
        let mut arrivals: Vec<(i64, &Received)> =
            received.iter().map(|r| (place(r.node, first_seen(&[r.gro, r.softirq])), *r)).collect();
        arrivals.sort_by_key(|a| a.0);
        tried.duplicates = (arrivals.len() as u32).saturating_sub(1);
        for (at, reception) in arrivals {
            let fits =
                |a: &&mut Attempt| a.received.is_none() && a.at <= at + error && at - a.at >= times.least - error;
            match tried.attempts.iter_mut().rev().find(fits) {
                Some(attempt) => {
                    attempt.received = Some(at);
                    attempt.dropped = reception.discarded || self.vanished(reception, at);
                }
                None => tried.network_duplicates += u32::from(tried.attempts.iter().any(|a| a.received.is_some())),
            }
        }
        let span = model.span(tried.to);
        for a in &mut tried.attempts {
            a.fate = match (a.received, span) {
                (Some(at), _) if at - a.at <= times.late => Fate::Ok,
                (Some(_), _) => Fate::Late,
                (None, Some((first, _))) if a.at < first => Fate::Unobservable,
                (None, Some((_, last))) if a.at + times.late > last => Fate::InFlight,
                (None, Some(_)) => Fate::Lost,
                (None, None) => Fate::Unobservable,
            };
        }
        if !tried.attempts.is_empty() {
            out.push(tried);
        }
    }

    /// True if SoftIRQ never had the packet, but did have one that came later to the same core, 100 us before the end.
    fn vanished(&self, reception: &Received, at: i64) -> bool {
        let end = self.model.span(reception.node).map_or(0, |(_, last)| last);
        let later = self.processed.get(&(reception.node, reception.gro_core)).is_some_and(|latest| *latest > at);
        reception.softirq == UNSEEN && later && at + 100_000 < end
    }
}

impl Tried {
    fn new(id: u32, offset: u32, bytes: u32, from: u16, to: u16) -> Self {
        Self { id, offset, bytes, from, to, attempts: Vec::new(), duplicates: 0, network_duplicates: 0 }
    }
}
