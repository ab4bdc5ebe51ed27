//! The study of SIGCOMM 2018 ("Homa: a receiver-driven low-latency transport protocol using network priorities"), as its
//! public simulator has it: one-way messages among 144 hosts, slowdown by length.
//!
//! | | the study | here |
//! | --- | --- | --- |
//! | network | 9 racks of 16 hosts, 4 spines, 10 and 40 Gbit/s, store and forward, 250 ns in each switch, no delay of links, packets sprayed, buffers without end | the same |
//! | host | 1 us before a message's first packet is on the link, 0.5 us after the last | the same |
//! | headers | 58 bytes of IP, UDP and Homa in front of at most 1442 of data (scheduled packets: 44 and 1456) | 58 and 1442 |
//! | load | share of the host links' rate, headers, gaps and grants included | the same |
//! | grants | one for each packet, 10,000 bytes ahead; as many messages at once as there are scheduled levels | the same parameters for this package's core |
//! | levels | 8, unscheduled ones by their share of the bytes; a packet's by what is left of its message, so that the last packets of long messages go first | 8, by their share: [`fit_cutoffs`]; a packet's by the length of its message, as the kernel module has it |
//!
//! Slowdown is the time from a message's begin to its last byte at the receiver's application, relative to what an empty
//! network would take ([`ideal`]), which the study works out without Homa's own header.

mod variant;
mod waits;

use std::ops::ControlFlow;

use cp_node::rng::Rng;
use cp_node::workload::{Distribution, Point, Reduction, Workload};
use homa_stack::{Config, Nanos};
use slab::Slab;

use crate::app::{App, Cx};
use crate::engine::{Ended, Sim};
use crate::fabric::{SwitchConfig, Topology};
use crate::homa::{Homa, fit_cutoffs};
use crate::host::HostModel;
use crate::packet::HostId;
use crate::time::Time;
use crate::transport::{Call, Event};
use waits::{Arrived, LOOK, Looks, waits};

pub use variant::{Order, Variant};
pub use waits::Waits;

/// Published slowdowns and lengths: load, workload, longest length of a bin, percent of the messages, slowdown (mean, P50,
/// P99).
const PUBLISHED: &str = include_str!("../data/sigcomm18.csv");

const RACKS: u32 = 9;
const RACK: u32 = 16;
const HOSTS: u32 = RACKS * RACK;
/// Bytes of a link's time around the IP packet of each frame.
const FRAMING: u64 = 38;
/// IP and UDP header.
const IP_UDP: u64 = 28;
/// IP, UDP and Homa header of an unscheduled packet.
const HEADERS: u64 = 58;
const MTU: u64 = 1500;
/// Data bytes of a full packet.
const DATA: u64 = MTU - HEADERS;
/// What a message may send unasked.
const UNSCHEDULED: u32 = 9_328;
/// Bytes granted ahead of what has come.
const RTT_BYTES: usize = 10_000;
/// Time on the link of the shortest frame, in bytes.
const SHORTEST: u64 = 84;
/// Half of what hosts take, sender and receiver together.
const HOST: Time = Time::from_nanos(750);
const SWITCH: Time = Time::from_nanos(250);

/// The study's workloads.
pub const WORKLOADS: [&str; 5] = ["w1", "w2", "w3", "w4", "w5"];
/// The loads at which it was published for Homa.
pub const LOADS: [f64; 2] = [0.8, 0.5];

/// Messages of up to one length, and longer than those of the bin before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// The longest, in bytes.
    pub len: u32,
    /// Share of the messages, 0 to 1.
    pub fraction: f64,
    /// Slowdown: mean.
    pub mean: f64,
    /// Slowdown: median.
    pub p50: f64,
    /// Slowdown: 99th percentile.
    pub p99: f64,
}

/// The study's curve for Homa: `load` 0.5 or 0.8, `workload` w1 to w5; empty for others.
pub fn published(load: f64, workload: &str) -> Vec<Published> {
    let mut bins = Vec::new();
    for line in PUBLISHED.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let number = |i: usize| fields[i].parse::<f64>().expect("the data has numbers");
        if number(0) == load && fields[1] == workload {
            let (len, fraction) = (number(2) as u32, number(3) / 100.0);
            bins.push(Published { len, fraction, mean: number(4), p50: number(5), p99: number(6) });
        }
    }
    bins
}

/// The lengths of the study's messages. The published bins say how many messages each has, not which lengths they have,
/// so within bins the original data of the workloads decide: they begin at 8 bytes in w1 and w2, below which the bins are
/// exact; those of w5 are packets of 1430 bytes instead of 1442.
fn lengths(workload: &'static str) -> Distribution {
    let all = Reduction { min_fraction: 0.0, max_ratio: 0.0, max_len: u32::MAX };
    let data = Distribution::new(Workload::Named(workload), all);
    let data = data.points().iter().map(|point| match workload {
        "w5" => Point { len: (f64::from(point.len) / 1430.0).round() as u32 * DATA as u32, ..*point },
        _ => *point,
    });
    let data: Vec<Point> = data.collect();
    let mut below = 0.0;
    let mut points: Vec<Point> = Vec::new();
    for bin in published(0.8, workload).iter().filter(|bin| bin.len < data[0].len) {
        below += bin.fraction;
        points.push(Point { len: bin.len, fraction: below });
    }
    points.extend(data.into_iter().filter(|point| point.fraction > below));
    Distribution::from_points(points)
}

/// Bytes of link time that a message takes with all its headers, gaps and grants.
fn on_wire(len: u32) -> u64 {
    let (len, unasked) = (u64::from(len), u64::from(len.min(UNSCHEDULED)));
    let packets = |bytes: u64| bytes.div_ceil(DATA) * (HEADERS + FRAMING) + bytes;
    packets(unasked) + packets(len - unasked) + (len - unasked).div_ceil(DATA) * SHORTEST
}

/// Time of a message of `len` bytes in an empty network, by the study's formula: all its frames, without Homa's header, on
/// the first link, the first of them on the others, 250 ns in each switch and 1.5 us in hosts. (Within a rack the study's
/// simulator leaves the switch's 250 ns out.)
pub fn ideal(len: u32, same_rack: bool) -> Time {
    let most = MTU - IP_UDP;
    let (full, rest) = (u64::from(len) / most, u64::from(len) % most);
    let partial = if rest == 0 { 0 } else { (rest + IP_UDP + FRAMING).max(SHORTEST) };
    let first = if full > 0 { MTU + FRAMING } else { partial };
    let (host, across) = (|bytes: u64| Time::from_picos(bytes * 800), |bytes: u64| Time::from_picos(bytes * 200));
    let switches =
        if same_rack { host(first) } else { SWITCH + SWITCH + SWITCH + across(first) + across(first) + host(first) };
    HOST + HOST + switches + host(full * (MTU + FRAMING) + partial)
}

/// A run of the study.
#[derive(Clone, Debug)]
pub struct Study {
    /// Share of the host links' time that is used, 0 to 1.
    pub load: f64,
    /// w1 to w5.
    pub workload: &'static str,
    /// The last packets of a message, as many bytes as it may send unasked, go at the level of what is left, as in the
    /// study's simulator, which the protocol as shipped does not do: shows what of a deviation is due to that.
    pub urgent_tails: bool,
    /// All random numbers come from it.
    pub seed: u64,
    /// Time before messages count.
    pub warmup: Time,
    /// Messages that begin in this time count.
    pub measure: Time,
}

/// What came of a bin of the published curve. A bin of fewer than [`ENOUGH`] messages is taken together with those below
/// it, as the P99 of a few is the largest of them: figures, ours and published ones, are then of all these.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The bin, and what was published of it; mean, P50 and P99: the mean of what was published, by our messages.
    pub published: Published,
    /// Messages of the bin that counted.
    pub count: usize,
    /// Messages that the figures are of.
    pub pooled: usize,
    /// Slowdown: mean.
    pub mean: f64,
    /// Slowdown: median; not a number if there were none.
    pub p50: f64,
    /// Slowdown: 99th percentile.
    pub p99: f64,
    /// Slowdowns of these messages: the bin's, then those of the ones below, each in the order in which they arrived.
    pub slowdowns: Vec<f32>,
}

/// Messages that a P99 should be of.
pub const ENOUGH: usize = 500;

impl Outcome {
    /// That of the last of `bins`, with its messages' `slowdowns`; bins of less than half its length are never taken.
    fn new(bins: &[Published], slowdowns: &[Vec<f32>]) -> Self {
        let last = bins.len() - 1;
        let (mut first, mut all) = (last, slowdowns[last].clone());
        while all.len() < ENOUGH && first > 0 && u64::from(bins[first - 1].len) * 2 >= u64::from(bins[last].len) {
            first -= 1;
            all.extend_from_slice(&slowdowns[first]);
        }
        let in_order = all.clone();
        all.sort_unstable_by(f32::total_cmp);
        let at = |share: usize| all.get(all.len() * share / 100).map_or(f64::NAN, |s| f64::from(*s));
        let mean = |of: fn(&Published) -> f64| {
            let sum: f64 = (first..=last).map(|bin| of(&bins[bin]) * slowdowns[bin].len() as f64).sum();
            if all.is_empty() { of(&bins[last]) } else { sum / all.len() as f64 }
        };
        let published =
            Published { mean: mean(|bin| bin.mean), p50: mean(|bin| bin.p50), p99: mean(|bin| bin.p99), ..bins[last] };
        let sum: f64 = all.iter().map(|s| f64::from(*s)).sum();
        let (count, pooled) = (slowdowns[last].len(), all.len());
        let ours = sum / pooled as f64;
        Self { published, count, pooled, mean: ours, p50: at(50), p99: at(99), slowdowns: in_order }
    }

    /// The mean of the P99s of the messages taken `size` at a time, in the order of their arrival: not the P99 of all, but of
    /// fewer than 100 messages the mean of the largest ones. Not a number if there are fewer than `size`.
    pub fn p99_of_groups(&self, size: usize) -> f64 {
        let groups = self.slowdowns.chunks_exact(size.max(1));
        let count = groups.len() as f64;
        let p99 = |group: &[f32]| {
            let mut group = group.to_vec();
            let place = group.len() * 99 / 100;
            let (_, at, _) = group.select_nth_unstable_by(place, f32::total_cmp);
            f64::from(*at)
        };
        groups.map(p99).sum::<f64>() / count
    }
}

/// What came of a [`Study`].
#[derive(Clone, Debug)]
pub struct Outcomes {
    /// By length.
    pub bins: Vec<Outcome>,
    /// Messages that counted but had not arrived when the run ended.
    pub unfinished: usize,
    /// Packets delivered.
    pub packets: u64,
    /// Share of the time that the links to hosts were busy while messages counted.
    pub busy: f64,
    /// What the slowest messages of some lengths waited for; nothing but of [`run_attributed`].
    pub waits: Vec<Waits>,
}

/// How long at most the run goes on after the last message that counts, as a multiple of `measure`.
const DRAIN: u64 = 4;
/// How often a run can be ended until all messages that count have begun.
const STEPS: u64 = 200;

/// How many of the 8 levels are for unscheduled packets of `workload`, w1 to w5.
pub fn unscheduled_levels(workload: &'static str) -> u8 {
    7 - config(&lengths(workload)).max_sched_priority
}

/// The core's parameters, the same for all workloads but for the levels, which follow from the lengths.
fn config(lengths: &Distribution) -> Config {
    let mut config = Config {
        mtu: (DATA + 76) as usize,
        unsched_bytes: UNSCHEDULED as usize,
        window: RTT_BYTES,
        max_incoming: 8 * RTT_BYTES,
        grant_fifo_fraction: 0,
        // Nothing is lost, so nothing is asked for.
        reorder_window: Nanos::ZERO,
        early_resend: false,
        tick: Nanos::from_millis(100),
        stall_ticks: 0,
        timeout_ticks: 10_000,
        link_mbps: 10_000,
        ..Config::default()
    };
    fit_cutoffs(&mut config, lengths);
    config.max_overcommit = usize::from(config.max_sched_priority) + 1;
    config
}

/// Runs the study.
pub fn run(study: &Study) -> Outcomes {
    run_watched(study, &mut |_| ControlFlow::Continue(())).expect("nobody ends it")
}

/// Runs the study; `watch` is told now and then how much of it is done, 0 to 1, and may end it: then there is no outcome.
pub fn run_watched(study: &Study, watch: &mut dyn FnMut(f64) -> ControlFlow<()>) -> Option<Outcomes> {
    run_with(study, Variant::default(), &[], watch)
}

/// Runs the study with something different in it, and finds out what the slowest messages of the ranges of lengths `of`
/// waited for.
pub fn run_attributed(study: &Study, variant: Variant, of: &[(u32, u32)]) -> Outcomes {
    run_with(study, variant, of, &mut |_| ControlFlow::Continue(())).expect("nobody ends it")
}

fn run_with(
    study: &Study,
    variant: Variant,
    of: &[(u32, u32)],
    watch: &mut dyn FnMut(f64) -> ControlFlow<()>,
) -> Option<Outcomes> {
    let lengths = lengths(study.workload);
    let mut config = config(&lengths);
    variant.apply(&mut config);
    let mut below = 0.0;
    let wire: f64 = lengths
        .points()
        .iter()
        .map(|point| (point.fraction - std::mem::replace(&mut below, point.fraction)) * on_wire(point.len) as f64)
        .sum();
    let gap = Time::from_picos((wire * 800.0 / study.load) as u64);
    let bins = published(study.load, study.workload);
    let end = study.warmup + study.measure;
    let messages = Messages {
        gap,
        count: study.warmup..end,
        stop: end + Time::from_picos(if variant.cut { 0 } else { study.measure.as_picos() * DRAIN }),
        lens: bins.iter().map(|bin| bin.len).collect(),
        slowdowns: vec![Vec::new(); bins.len()],
        counting: 0,
        rngs: (0..HOSTS).map(|host| Rng::streams(study.seed, Some(host as u8), 1).remove(0)).collect(),
        lengths,
        begun: Slab::new(),
        turns: vec![Vec::new(); if variant.balanced { HOSTS as usize } else { 0 }],
        arrived: (!of.is_empty()).then(Vec::new),
    };
    let topology = Topology::LeafSpine {
        racks: RACKS,
        hosts_per_rack: RACK,
        spines: 4,
        host_gbps: 10.0,
        spine_gbps: 40.0,
        // What hosts take is a matter of time alone, so it is on their links.
        link_delay: HOST,
        spine_delay: Time::ZERO,
        routing: crate::fabric::Routing::Spray,
    };
    let switch = SwitchConfig { pool: u64::MAX / 2, latency: SWITCH, ..SwitchConfig::default() };
    let host = HostModel { nic_limit: Time::from_nanos(100), nic_wake: Time::ZERO, ..HostModel::default() };
    let transports = (0..HOSTS).map(|host| {
        let homa = Homa::new(HostId(host), &config, 1, 1).with_headers(HEADERS as u32).acquainted(HOSTS);
        if study.urgent_tails { homa.with_urgent_tails(UNSCHEDULED, config.cutoffs) } else { homa }
    });
    let mut sim = Sim::new(&topology, switch, host, transports.collect(), messages, study.seed);
    // In steps, so that it can be ended.
    let step = if of.is_empty() { Time::from_picos((end.as_picos() / STEPS).max(1)) } else { LOOK };
    let mut looks = Looks::default();
    let mut run = |sim: &mut Sim<Homa, Messages>, until: Time| {
        let mut at = sim.now();
        while at < until {
            if !of.is_empty() {
                looks.add(sim.transports().iter().map(Homa::counters));
            }
            at = until.min(at + step);
            let ended = sim.run_until(at);
            if watch((at.as_secs_f64() / end.as_secs_f64()).min(1.0)).is_break() {
                return None;
            }
            if ended == Ended::Stopped {
                break;
            }
        }
        Some(())
    };
    run(&mut sim, study.warmup)?;
    sim.reset_switch_stats();
    run(&mut sim, end)?;
    let stats = sim.switch_stats();
    let busy: u64 = stats[..RACKS as usize]
        .iter()
        .flat_map(|switch| &switch.ports[..RACK as usize])
        .map(|port| port.bytes + 20 * port.packets)
        .sum();
    let busy = busy as f64 * 800.0 / (f64::from(HOSTS) * study.measure.as_picos() as f64);
    let stop = sim.app().stop;
    run(&mut sim, stop)?;
    let unfinished = sim.app().counting;
    let packets = sim.delivered();
    let slowdowns = std::mem::take(&mut sim.app_mut().slowdowns);
    let outcomes = (0..bins.len()).map(|last| Outcome::new(&bins[..=last], &slowdowns[..=last]));
    let arrived = sim.app_mut().arrived.take().unwrap_or_default();
    let waits = of.iter().map(|lens| waits(&looks, &arrived, *lens)).collect();
    Some(Outcomes { bins: outcomes.collect(), unfinished, packets, busy, waits })
}

/// The application: messages one way.
#[derive(Debug)]
struct Messages {
    lengths: Distribution,
    /// Mean time between a host's messages.
    gap: Time,
    /// When a message must begin to count.
    count: std::ops::Range<Time>,
    stop: Time,
    /// Longest length of each bin.
    lens: Vec<u32>,
    slowdowns: Vec<Vec<f32>>,
    /// Messages that count and have not arrived.
    counting: usize,
    rngs: Vec<Rng>,
    begun: Slab<Begun>,
    /// If hosts send to all others in turn: whom each has left of this turn.
    turns: Vec<Vec<u32>>,
    /// Messages that have arrived, if that is to be known.
    arrived: Option<Vec<Arrived>>,
}

#[derive(Clone, Copy, Debug)]
struct Begun {
    at: Time,
    len: u32,
    to: HostId,
    same_rack: bool,
}

impl Messages {
    fn next(&mut self, cx: &mut Cx<'_>, host: HostId) {
        let gap = self.gap.as_picos() as f64 * self.rngs[host.index()].exponential();
        cx.after(Time::from_picos(gap as u64), host, 0);
    }
}

impl App for Messages {
    fn start(&mut self, cx: &mut Cx<'_>) {
        (0..HOSTS).for_each(|host| self.next(cx, HostId(host)));
    }

    fn timer(&mut self, cx: &mut Cx<'_>, host: HostId, _: u64) {
        if cx.now() > self.count.end && self.counting == 0 {
            return cx.stop();
        }
        let rng = &mut self.rngs[host.index()];
        let other = match self.turns.get_mut(host.index()) {
            None => rng.below(HOSTS as usize - 1) as u32,
            Some(left) => {
                if left.is_empty() {
                    left.extend(0..HOSTS - 1);
                }
                left.swap_remove(rng.below(left.len()))
            }
        };
        let to = HostId(other + u32::from(other >= host.0));
        let len = self.lengths.at(rng.fraction());
        let begun = Begun { at: cx.now(), len, to, same_rack: host.0 / RACK == to.0 / RACK };
        self.counting += usize::from(self.count.contains(&begun.at));
        let cookie = self.begun.insert(begun) as u64;
        cx.call(host, Call { cookie, to, client_port: 0, server_port: 0, len });
        self.next(cx, host);
    }

    fn event(&mut self, cx: &mut Cx<'_>, host: HostId, event: Event) {
        match event {
            Event::Request { request, from, call, .. } => {
                cx.discard(host, request);
                cx.forget(from, call);
            }
            Event::Response { cookie, .. } => {
                let Begun { at, len, to, same_rack } = self.begun.remove(cookie as usize);
                if self.count.contains(&at) {
                    self.counting -= 1;
                    let took = (cx.now() - at).as_picos() as f64;
                    let bin = self.lens.partition_point(|most| *most < len).min(self.lens.len() - 1);
                    let ideal = ideal(len, same_rack);
                    self.slowdowns[bin].push((took / ideal.as_picos() as f64) as f32);
                    if let Some(arrived) = &mut self.arrived {
                        arrived.push(Arrived { from: host.0, to: to.0, len, begun: at, ended: cx.now(), ideal });
                    }
                }
            }
            Event::Failed { why, .. } => panic!("no message fails here: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_network_takes_its_links_switches_and_hosts() {
        // A byte: the shortest frame, 84 bytes, on two links of 10 and two of 40 Gbit/s.
        assert_eq!(ideal(1, false), Time::from_picos(1_500_000 + 750_000 + 2 * 84 * 800 + 2 * 84 * 200));
        assert_eq!(ideal(1, true), Time::from_picos(1_500_000 + 2 * 84 * 800));
        // Two full frames and one of 100 bytes; the first frame alone is stored and forwarded.
        let (full, rest) = (1538, 166);
        let across = Time::from_picos(2_250_000 + (2 * full + rest) * 800 + full * (200 + 200 + 800));
        assert_eq!(ideal(2 * 1472 + 100, false), across);
    }

    #[test]
    fn a_message_takes_headers_and_grants_on_the_wire() {
        assert_eq!(on_wire(1), 97);
        assert_eq!(on_wire(1442), 1538);
        // Seven unscheduled packets; two more, each granted.
        assert_eq!(on_wire(9_328 + 1_443), 9_328 + 7 * 96 + 1_443 + 2 * 96 + 2 * 84);
    }

    #[test]
    fn lengths_are_those_of_the_data_where_bins_are_wide_and_of_the_bins_where_those_are_exact() {
        let mean = |workload| lengths(workload).mean();
        for (workload, published) in [("w1", 189.0), ("w2", 441.0), ("w3", 2927.7), ("w4", 127_796.6)] {
            let found = mean(workload);
            assert!((found / published - 1.0).abs() < 0.01, "{workload}: {found}");
        }
        assert_eq!(lengths("w1").points()[0].len, 1);
        assert!(lengths("w5").points().iter().all(|point| point.len % 1442 == 0));
    }

    #[test]
    fn bins_of_few_messages_are_taken_together_with_those_below() {
        let bin = |len, p99| Published { len, fraction: 0.1, mean: 2.5, p50: 2.0, p99 };
        let bins = [bin(40, 9.0), bin(60, 3.0), bin(90, 5.0)];
        let slowdowns = |counts: [usize; 3]| counts.map(|count| (0..count).map(|n| n as f32).collect::<Vec<_>>());
        let of = |counts| Outcome::new(&bins, &slowdowns(counts));
        let enough = of([9, 9, ENOUGH]);
        assert_eq!((enough.count, enough.pooled, enough.p99, enough.published.p99), (ENOUGH, ENOUGH, 495.0, 5.0));
        let few = of([ENOUGH, 300, 100]);
        assert_eq!((few.count, few.pooled, few.p50), (100, 400, 100.0), "40 bytes are less than half of 90");
        assert_eq!((few.published.p50, few.published.p99), (2.0, (3.0 * 300.0 + 5.0 * 100.0) / 400.0));
        assert_eq!((enough.mean, few.mean), (249.5, (149.5 * 300.0 + 49.5 * 100.0) / 400.0));
        // The last bin's hundred and two hundred of the one before; what is left is no group.
        assert_eq!((few.p99_of_groups(300), few.p99_of_groups(1)), (197.0, few.mean));
        assert!(few.p99_of_groups(401).is_nan());
        let none = of([0, 0, 0]);
        assert!(none.p99.is_nan() && none.published.p99 == 5.0 && none.pooled == 0);
    }

    #[test]
    fn medians_of_short_messages_are_the_published_ones() {
        let time = Time::from_micros(150);
        let out = run(&Study { load: 0.8, workload: "w2", urgent_tails: false, seed: 1, warmup: time, measure: time });
        assert!((0.6..0.9).contains(&out.busy), "{}", out.busy);
        let common: Vec<_> = out.bins.iter().filter(|bin| bin.count > 500).collect();
        assert!(common.len() > 20);
        for bin in common {
            assert!((bin.p50 / bin.published.p50 - 1.0).abs() < 0.15, "{bin:?}");
        }
    }
}
