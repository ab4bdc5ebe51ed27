//! Everything that is known of a run, as analyses see it: nodes, events, hosts, packets, clocks, and what is derived of
//! them.
//!
//! | table | what it is | a row |
//! | --- | --- | --- |
//! | [`Model::traces`] | nodes and their events | [`Record`](crate::event::Record), in the order of the file |
//! | [`Model::packets`] | messages, packets, transmissions and receptions of data and grants | [`Message`](crate::packets::Message), [`Packet`](crate::packets::Packet), [`Sent`](crate::packets::Sent), [`Received`](crate::packets::Received) |
//! | [`Model::data`], [`Model::grants`] | which transmission arrived as which reception, and how long each phase took | [`Journey`] |
//! | [`Model::queues`] | waits for SoftIRQ, batches, invocations | [`softirq::Wait`], [`softirq::Batch`], [`softirq::Invocation`] |
//! | [`Model::handoffs`] | from core to core and from SoftIRQ to threads | [`Handoff`] |
//! | [`Model::rpcs`] | RPCs, each side by itself | [`Side`] |
//! | [`Model::flights`] | data, grants and TCP packets on the common clock | [`Flight`] |
//!
//! Tables that not all analyses need are made when they are first asked for, once. Times are nanoseconds on the clock of
//! the node where the event was logged; [`Model::clock`] knows the offsets and how wrong they can be.

pub mod flights;
mod handoffs;
mod journeys;
mod pairing;
mod rpcs;
pub mod softirq;
mod tcp;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::analyze::Options;
use crate::clock::Clock;
use crate::event::{Kind, Kinds};
use crate::hosts::{self, Hosts};
use crate::packets::Packets;
use crate::read::{self, FileStats, NodeTrace, ReadError, UserEvents};
use crate::stats::micros;
use crate::tables::{cache, load, store};

pub use flights::{Carries, Flight, Flights};
#[cfg(feature = "tables")]
pub(crate) use handoffs::Following;
pub use handoffs::{Handoff, Handoffs};
pub use journeys::{Excluded, Group, Journey, Journeys, Matched, NOWHERE, Phase, SHORT_BYTES};
pub use rpcs::{Rpcs, Side};

/// A run: all nodes' traces with everything that is common to analyses.
#[derive(Debug)]
pub struct Model {
    /// Nodes with traces, in the order of all reports; the index is the node in other tables.
    pub traces: Vec<NodeTrace>,
    /// Names and addresses of nodes, and of hosts without traces.
    pub hosts: Hosts,
    /// Messages and packets.
    pub packets: Packets,
    /// Offsets of the nodes' clocks, and how wrong they can be.
    pub clock: Clock,
    /// Events that the user defined.
    pub user: Arc<UserEvents>,
    journeys: OnceLock<Journeys>,
    handoffs: OnceLock<Handoffs>,
    rpcs: OnceLock<Rpcs>,
    /// Sides of RPCs that were collected before.
    sides: Vec<Side>,
    flights: OnceLock<Flights>,
    queues: OnceLock<Vec<softirq::Queues>>,
    /// What was counted elsewhere, node by node.
    counts: Option<Vec<Counts>>,
}

/// What tables tell of a node without its events and packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Cores, or threads of a program, that logged events.
    pub cores: u64,
    /// Frames of data that had been sent before.
    pub sent_again: u64,
}

/// What of a run's tables is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Events of these kinds.
    pub events: Kinds,
    /// Packets, hand-offs and RPCs.
    pub packets: bool,
}

impl Model {
    /// Reads the traces that `paths` name.
    ///
    /// # Errors
    ///
    /// As [`read::read`].
    pub fn read(paths: &[PathBuf], options: &Options) -> Result<Self, ReadError> {
        let user = match &options.events {
            Some(path) => Arc::new(UserEvents::read(path).map_err(ReadError::from)?),
            None => Arc::default(),
        };
        let traces = read::read_with(paths, &user)?;
        Ok(Self { user, ..Self::new(traces, options) })
    }

    /// A model of tables, if `paths` name a folder of them or they were made of the same traces before; else of the text.
    /// Of tables, counts are loaded and what is `wanted`.
    ///
    /// # Errors
    ///
    /// As [`read::read`], or if tables can't be read.
    pub fn open(paths: &[PathBuf], options: &Options, wanted: Wanted) -> Result<Self, ReadError> {
        if let [dir] = paths
            && let [manifest, others @ ..] = store::manifests(dir).as_slice()
        {
            if !others.is_empty() {
                return Err(ReadError::Runs { path: dir.clone() });
            }
            return Ok(load::load(dir, &store::manifest_of(manifest)?, options, wanted)?);
        }
        let is_manifest = |p: &PathBuf| p.extension().is_some_and(|e| e == "json");
        if let [path] = paths
            && is_manifest(path)
        {
            let dir = path.parent().unwrap_or(std::path::Path::new("."));
            return Ok(load::load(dir, &store::manifest_of(path)?, options, wanted)?);
        }
        if !options.no_cache
            && let Some((dir, manifest)) = cache::find(paths, options.events.as_deref())?
        {
            return Ok(load::load(&dir, &manifest, options, wanted)?);
        }
        Self::read(paths, options)
    }

    /// A model of these traces.
    pub fn new(mut traces: Vec<NodeTrace>, options: &Options) -> Self {
        let hosts = hosts::resolve(&mut traces);
        let packets = Packets::collect(&traces);
        let clock = Clock::estimate(traces.len(), &packets);
        let clock = clock.used(options, traces.iter().map(|trace| &trace.stats.counter));
        Self {
            traces,
            hosts,
            packets,
            clock,
            user: Arc::default(),
            journeys: OnceLock::new(),
            handoffs: OnceLock::new(),
            rpcs: OnceLock::new(),
            sides: Vec::new(),
            flights: OnceLock::new(),
            queues: OnceLock::new(),
            counts: None,
        }
    }

    /// A model of what was put together before.
    pub(crate) fn of_parts(
        traces: Vec<NodeTrace>,
        hosts: Hosts,
        packets: Packets,
        clock: Clock,
        handoffs: Handoffs,
        user: Arc<UserEvents>,
    ) -> Self {
        Self {
            traces,
            hosts,
            packets,
            clock,
            user,
            journeys: OnceLock::new(),
            handoffs: OnceLock::from(handoffs),
            rpcs: OnceLock::new(),
            sides: Vec::new(),
            flights: OnceLock::new(),
            queues: OnceLock::new(),
            counts: None,
        }
    }

    /// Sides of RPCs that were collected elsewhere.
    pub(crate) fn set_sides(&mut self, sides: Vec<Side>) {
        self.sides = sides;
    }

    /// What was counted elsewhere.
    pub(crate) fn set_counts(&mut self, counts: Vec<Counts>) {
        self.counts = Some(counts);
    }

    /// Hand-offs that were counted elsewhere.
    #[cfg(feature = "tables")]
    pub(crate) fn set_handoffs(&mut self, handoffs: Handoffs) {
        self.handoffs = OnceLock::from(handoffs);
    }

    /// Cores of a node, or threads of a program, that logged events.
    pub fn cores(&self, node: usize) -> u64 {
        match &self.counts {
            Some(counts) => counts[node].cores,
            None => {
                let mut cores = Cores::default();
                self.traces[node].records.iter().for_each(|record| cores.add(record.core));
                cores.count()
            }
        }
    }

    /// Frames of data that had been sent before, as far as the traces tell, on each node.
    pub fn sent_again(&self) -> Vec<u64> {
        match &self.counts {
            Some(counts) => counts.iter().map(|counts| counts.sent_again).collect(),
            None => self.packets.sent_again(self.traces.len()),
        }
    }

    /// Which transmission of each packet arrived as which reception.
    pub fn journeys(&self) -> &Journeys {
        self.journeys.get_or_init(|| {
            let unused = Excluded {
                ambiguous_records: self.hosts.ambiguous_records,
                unresolved_records: self.hosts.unresolved_records,
                lone_ring_waits: self.packets.lone_ring_waits,
                ..Excluded::default()
            };
            Journeys::collect(&self.packets, &self.clock, unused)
        })
    }

    /// Hand-offs between cores and to threads.
    pub fn handoffs(&self) -> &Handoffs {
        self.handoffs.get_or_init(|| Handoffs::collect(&self.traces))
    }

    /// RPCs, a row for each side.
    pub fn rpcs(&self) -> &Rpcs {
        self.rpcs.get_or_init(|| match self.sides.is_empty() {
            true => Rpcs::collect(self),
            false => Rpcs::of_sides(self.sides.clone(), self),
        })
    }

    /// Packets on the common clock.
    pub fn flights(&self) -> &Flights {
        self.flights.get_or_init(|| Flights::collect(self))
    }

    /// First and last time of a node's trace, ns on the common clock; `None` if it has no line.
    pub fn span(&self, node: u16) -> Option<(i64, i64)> {
        let offset = self.clock.offset(usize::from(node)).unwrap_or(0);
        self.traces.get(usize::from(node))?.span.map(|(first, last)| (first + offset, last + offset))
    }

    /// Nodes with their first and last times, in order.
    pub fn spans(&self) -> impl Iterator<Item = (u16, i64, i64)> {
        (0..self.traces.len() as u16).filter_map(|node| self.span(node).map(|(first, last)| (node, first, last)))
    }

    /// True if times of these two nodes can be compared.
    pub fn comparable(&self, one: u16, other: u16) -> bool {
        let placed = |node: u16| self.clock.offset(usize::from(node)).is_some();
        one == other || placed(one) && placed(other)
    }

    /// Name of a node.
    pub fn name(&self, node: u16) -> String {
        self.hosts.name(node)
    }

    /// How packets waited for SoftIRQ, node by node.
    pub fn queues(&self) -> &[softirq::Queues] {
        self.queues.get_or_init(|| self.traces.iter().map(softirq::Queues::collect).collect())
    }

    /// Accounts of all files.
    pub fn stats(&self) -> impl Iterator<Item = &FileStats> {
        self.traces.iter().map(|t| &t.stats)
    }

    /// Lines of `kind` in all traces.
    pub fn count(&self, kind: Kind) -> u64 {
        self.stats().map(|s| s.count(kind)).sum()
    }

    /// Names of those of `kinds` that occur nowhere.
    pub fn missing(&self, kinds: &[Kind]) -> Vec<&'static str> {
        kinds.iter().filter(|k| self.count(**k) == 0).map(|k| k.name()).collect()
    }

    /// Index of the node of that name.
    pub fn node(&self, name: &str) -> Option<u16> {
        self.hosts.nodes.iter().position(|n| n == name).map(|i| i as u16)
    }

    /// A node's time, in ns, as microseconds on the common clock; its own if the node can't be placed.
    pub fn common(&self, node: u16, time: i64) -> f64 {
        micros(time + self.clock.offset(usize::from(node)).unwrap_or(0))
    }
}

/// Cores, each counted once.
#[derive(Debug)]
pub(crate) struct Cores(Vec<bool>);

impl Default for Cores {
    fn default() -> Self {
        Self(vec![false; 1 << 16])
    }
}

impl Cores {
    #[inline]
    pub(crate) fn add(&mut self, core: u16) {
        self.0[usize::from(core)] = true;
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.iter().filter(|seen| **seen).count() as u64
    }
}
