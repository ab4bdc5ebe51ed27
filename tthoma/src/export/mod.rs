//! Exports traces to viewers.
//!
//! [`perfetto`] writes Perfetto's own format, which <https://ui.perfetto.dev> and its trace processor read:
//!
//! | track | what is on it |
//! | --- | --- |
//! | a process for each node | all of the following |
//! | `core N softirq` | invocations; a moment for each packet that is processed |
//! | `core N gro` | batches, from the first packet to the hand-off; a moment for each packet |
//! | `core N app` | `sendmsg`, copies |
//! | `core N sends` | a moment for each frame and grant that is passed to IP |
//! | `core N kernel` | a stock kernel's NET_RX and NET_TX |
//! | `core N threads` | threads, by their ids |
//! | `core N backlog`, `core N backlog bytes` | packets that wait for SoftIRQ (counters) |
//! | `bytes in NIC` | given to the NIC and not given back (counter) |
//! | `RPCs called`, `RPCs served` | a slice for each RPC, from the call to its return, or from the first packet to the answer |
//!
//! Flows lead from each frame's or grant's transmission over GRO to SoftIRQ on the other node, and from each RPC's slice on
//! the client to that on the server. Times are those of the common clock, moved so that none is below 0.

mod items;
mod wire;

use std::collections::BTreeMap;
use std::io::{self, Write};

use rustc_hash::FxHashMap;

use crate::model::Model;
use crate::stats::micros;

use items::{Items, Window};
use wire::{TraceWriter, Track, TrackEvent, Type};

/// What to export.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Options {
    /// Only from this time on, us on the common clock.
    pub from: Option<f64>,
    /// Only up to this time.
    pub to: Option<f64>,
    /// Only these nodes; empty for all.
    pub nodes: Vec<String>,
    /// Only the packets of this RPC (id or `CLIENT:ID`), and what the cores did meanwhile.
    pub rpc: Option<String>,
    /// Most megabytes (10^6 bytes) that are written.
    pub max_mb: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { from: None, to: None, nodes: Vec::new(), rpc: None, max_mb: DEFAULT_MB }
    }
}

/// What a browser opens in some seconds.
pub const DEFAULT_MB: f64 = 100.0;
/// Time that is shown before and after an RPC that was chosen, ns.
const AROUND: i64 = 20_000;

/// Why nothing is exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no such node.
    #[error("no node `{node}`: the traces have {there}")]
    Node {
        /// What was asked for.
        node: String,
        /// What there is.
        there: String,
    },
    /// There is no such RPC.
    #[error("{0}")]
    Rpc(String),
    /// The range of time holds no event.
    #[error("no events between {from:.3} and {to:.3} us: the traces are from {first:.3} to {last:.3}")]
    Empty {
        /// Begin of the range.
        from: f64,
        /// End of the range.
        to: f64,
        /// First event of the traces.
        first: f64,
        /// Last event of the traces.
        last: f64,
    },
    /// The result can't be written.
    #[error("cannot write the export: {0}")]
    Write(#[from] io::Error),
}

/// What was exported.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Summary {
    /// Events written.
    pub events: u64,
    /// Events left out, as they did not fit.
    pub cut: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Tracks.
    pub tracks: u64,
    /// Range of time that was written, us on the common clock.
    pub from_us: f64,
    /// Its end; that of the events which fit.
    pub to_us: f64,
    /// Time on the common clock that is 0 in the export.
    pub zero_us: f64,
}

/// Writes `model` in Perfetto's format.
///
/// # Errors
///
/// If the options choose nothing, or nothing can be written.
pub fn perfetto(model: &Model, options: &Options, out: &mut dyn Write) -> Result<Summary, ExportError> {
    let window = window(model, options)?;
    let mut items = Items::collect(model, &window);
    let Some((first, last)) = items.span() else {
        let all = model.spans().fold((i64::MAX, i64::MIN), |all, (_, first, last)| (all.0.min(first), all.1.max(last)));
        let range = [window.from, window.to].map(|t| micros(t.clamp(all.0.min(all.1), all.1.max(all.0))));
        let [from, to] = range;
        return Err(ExportError::Empty { from, to, first: micros(all.0), last: micros(all.1) });
    };
    let zero = first.min(0);
    items.events.sort_by_key(|e| e.at);
    let mut writer = TraceWriter::new(out);
    let mut tracks: FxHashMap<u64, (String, Track)> =
        items.tracks().map(|(uuid, name, track)| (uuid, (name, track))).collect();
    let most = (options.max_mb * 1e6) as u64;
    let mut summary = Summary {
        events: 0,
        cut: 0,
        bytes: 0,
        tracks: 0,
        from_us: micros(first),
        to_us: micros(last),
        zero_us: micros(zero),
    };
    let mut open: BTreeMap<u64, u32> = BTreeMap::new();
    let mut at = 0;
    for event in &items.events {
        if writer.bytes >= most {
            summary.cut = items.events.len() as u64 - summary.events;
            break;
        }
        summary.tracks += describe(&mut writer, &mut tracks, event.track)?;
        at = (event.at - zero) as u64;
        writer.event(&TrackEvent {
            at,
            track: event.track,
            kind: event.kind,
            name: event.name,
            value: event.value,
            args: &event.args[..usize::from(event.args_used)],
            flows: &event.flows,
            last_flow: event.last_flow,
        })?;
        let depth = open.entry(event.track).or_default();
        match event.kind {
            Type::Begin => *depth += 1,
            Type::End => *depth -= 1,
            Type::Instant | Type::Counter => {}
        }
        summary.events += 1;
        summary.to_us = micros(event.at);
    }
    // Where the export is cut, so are the slices.
    for track in open.into_iter().flat_map(|(track, depth)| std::iter::repeat_n(track, depth as usize)) {
        let (args, flows) = (&[], &[]);
        writer.event(&TrackEvent { at, track, kind: Type::End, name: "", value: 0, args, flows, last_flow: None })?;
    }
    summary.bytes = writer.bytes;
    Ok(summary)
}

/// Describes a track before its first event, and the track that it is below; returns how many it described.
fn describe(
    writer: &mut TraceWriter<'_>,
    tracks: &mut FxHashMap<u64, (String, Track)>,
    uuid: u64,
) -> Result<u64, ExportError> {
    let Some((name, track)) = tracks.remove(&uuid) else { return Ok(0) };
    let above = match track {
        Track::Node(_) => 0,
        Track::Slices(parent, _) | Track::Shared(parent) | Track::Counter(parent, ..) => {
            describe(writer, tracks, parent)?
        }
    };
    writer.track(uuid, &name, &track)?;
    Ok(above + 1)
}

fn window(model: &Model, options: &Options) -> Result<Window, ExportError> {
    let mut nodes = Vec::new();
    for name in &options.nodes {
        let unknown = || ExportError::Node { node: name.clone(), there: model.hosts.nodes.join(", ") };
        nodes.push(model.node(name).ok_or_else(unknown)?);
    }
    let ns = |us: f64| (us * 1000.0).round() as i64;
    let (mut from, mut to) = (options.from.map_or(i64::MIN / 2, ns), options.to.map_or(i64::MAX / 2, ns));
    let rpc = match &options.rpc {
        None => None,
        Some(wanted) => {
            let side = crate::analyze::explain::find(model, wanted).map_err(ExportError::Rpc)?;
            let (first, last) = items::rpc_span(model, side);
            (from, to) = (from.max(first - AROUND), to.min(last + AROUND));
            Some((side.client, side.id))
        }
    };
    Ok(Window { from, to, nodes, rpc })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
