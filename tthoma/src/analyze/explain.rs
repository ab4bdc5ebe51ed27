//! `explain`: where did each microsecond of one RPC go, in order, on both nodes, and which queue held it?
//!
//! The way of the RPC is described in `path`. `--rpc slow` chooses by slowness: the time from call to return, divided by
//! the median of RPCs whose messages have as many bytes together (to the power of two), so that a long message is not slow
//! by being long. Lengths with fewer than five RPCs are compared with those of all lengths, in proportion to bytes no more.
//! RPCs that a trace's begin or end cuts off are not among them: `ends` says which these are.

use rustc_hash::FxHashMap;

pub(crate) use super::explain_ends::Ends;
use super::explain_path::{Path, path};
use super::{About, Analyzer, Needs, Options, Report, Table, Unit};
use crate::event::Kind;
use crate::model::{Model, Side};
use crate::stats::micros;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Explain;

/// Chooses the slowest.
const SLOW: &str = "slow";
/// RPCs that a median is taken of, at least.
const ENOUGH: usize = 5;

impl Analyzer for Explain {
    fn about(&self) -> &'static About {
        &About {
            name: "explain",
            question: "Where did each microsecond of one RPC go, on both nodes, and which queue held it?",
            source: "timetrace.md 10.6 (`rpc ID`)",
            needs: Needs::All(&[Kind::SendmsgRequest]),
            uses: &[
                Kind::RecvmsgDone,
                Kind::WaitFoundRpc,
                Kind::IpXmit,
                Kind::NicData,
                Kind::GroData,
                Kind::RingWait,
                Kind::GroHandoff,
                Kind::SoftirqStart,
                Kind::SoftirqData,
                Kind::SendGrant,
                Kind::GroGrant,
                Kind::SoftirqGrant,
                Kind::RpcHandoff,
                Kind::RpcQueued,
                Kind::CopyInDone,
                Kind::CopyOutDone,
                Kind::QdiscDefer,
                Kind::QdiscXmit,
            ],
            options: &["rpc", "top"],
            requires: &["rpc"],
        }
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let mut report = Report::default();
        let wanted = options.rpc.as_deref().unwrap_or(SLOW);
        let ends = Ends::of(model);
        let chosen = match choose(model, &ends, wanted, options.top) {
            Ok((chosen, cut)) => {
                if cut > 0 {
                    let rpcs = if cut == 1 { "RPC is" } else { "RPCs are" };
                    report.notes.push(format!("{cut} {rpcs} not compared: a trace begins or ends in the middle"));
                }
                chosen
            }
            Err(why) => {
                report.warnings.push(format!("explain: {why}"));
                return report;
            }
        };
        for Chosen { side, slowness } in chosen {
            match path(model, &ends, side) {
                Some(path) => add(&mut report, model, side, slowness, &path),
                None => report
                    .warnings
                    .push(format!("explain: of {} the call or its return is not in the trace", name(model, side))),
            }
        }
        report
    }
}

/// An RPC to be explained.
struct Chosen<'a> {
    side: &'a Side,
    /// How many times slower than others of its length.
    slowness: Option<f64>,
}

/// The client's sides of the RPCs that are wanted: `slow`, an id on either side, or `CLIENT:ID`; and how many could not be
/// chosen because they are cut off.
fn choose<'a>(model: &'a Model, ends: &Ends, wanted: &str, top: usize) -> Result<(Vec<Chosen<'a>>, usize), String> {
    if wanted == SLOW {
        let (mut ranked, cut) = ranked(model, ends);
        ranked.truncate(top.max(1));
        return if ranked.is_empty() {
            Err("no RPC is whole in the traces, from its call to its return".into())
        } else {
            Ok((ranked, cut))
        };
    }
    find(model, wanted).map(|side| (vec![Chosen { side, slowness: None }], 0))
}

/// The client's side of the RPC that `wanted` names: its id on either side, or `CLIENT:ID`.
///
/// # Errors
///
/// If there is none, or several clients used the id.
pub fn find<'a>(model: &'a Model, wanted: &str) -> Result<&'a Side, String> {
    let (client, id) = wanted.rsplit_once(':').map_or((None, wanted), |(client, id)| (Some(client), id));
    let id: u32 = id.parse().map_err(|_| format!("`{wanted}` is no RPC: expected its id, CLIENT:ID, or `slow`"))?;
    let client = match client {
        Some(name) => Some(
            model
                .hosts
                .incarnation_of(name)
                .ok_or_else(|| format!("no node `{name}`: the traces have {}", model.hosts.nodes.join(", ")))?,
        ),
        None => None,
    };
    let fits = |s: &&Side| s.is_client() && s.id == id & !1 && client.is_none_or(|c| c == s.client);
    let mut found = model.rpcs().sides.iter().filter(fits);
    match (found.next(), found.next()) {
        (Some(side), None) => Ok(side),
        (None, _) => Err(format!("no client's trace has RPC {}", id & !1)),
        (Some(one), Some(other)) => Err(format!(
            "several clients used id {0}: name one, as {1}:{0} or {2}:{0}",
            id & !1,
            model.hosts.name(one.client),
            model.hosts.name(other.client)
        )),
    }
}

/// All whole RPCs, slowest first, and the number of those that are cut off.
fn ranked<'a>(model: &'a Model, ends: &Ends) -> (Vec<Chosen<'a>>, usize) {
    let bytes = |side: &Side| u64::from(side.out_length.unwrap_or(0)) + u64::from(side.in_length.unwrap_or(0));
    let class = |side: &Side| 64 - bytes(side).leading_zeros();
    let time = |side: &Side| ends.returned(side).map_or(0, |end| end - side.sendmsg);
    let (sides, cut): (Vec<&Side>, Vec<&Side>) =
        model.rpcs().sides.iter().filter(|side| side.is_client()).partition(|side| ends.whole(model, side));
    let mut classes: FxHashMap<u32, Vec<i64>> = FxHashMap::default();
    for side in &sides {
        classes.entry(class(side)).or_default().push(time(side));
    }
    let median = |mut times: Vec<i64>| {
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(0).max(1)
    };
    let all = median(sides.iter().map(|s| time(s)).collect());
    let medians: FxHashMap<u32, i64> = classes
        .into_iter()
        .map(|(class, times)| (class, if times.len() < ENOUGH { all } else { median(times) }))
        .collect();
    let slowness = |side: &Side| time(side) as f64 / medians[&class(side)] as f64;
    let mut ranked: Vec<Chosen<'_>> =
        sides.into_iter().map(|side| Chosen { side, slowness: Some(slowness(side)) }).collect();
    ranked.sort_by(|a, b| b.slowness.partial_cmp(&a.slowness).unwrap_or(std::cmp::Ordering::Equal));
    (ranked, cut.len())
}

fn name(model: &Model, side: &Side) -> String {
    format!("{}:{}", model.hosts.name(side.client), side.id)
}

fn add(report: &mut Report, model: &Model, side: &Side, slowness: Option<f64>, path: &Path) {
    let total: i64 = path.steps.iter().map(|s| s.end - s.start).sum();
    let bytes = |length: Option<u32>| length.map_or("?".to_string(), |l| l.to_string());
    let mut title = format!(
        "RPC {} from {} us on, request {} bytes, response {} bytes, {:.3} us",
        name(model, side),
        micros(side.sendmsg),
        bytes(side.out_length),
        bytes(side.in_length),
        micros(total)
    );
    if let Some(slowness) = slowness {
        title += &format!(", {slowness:.1} times the median of its length");
    }
    let mut table = Table::new(format!("rpc_{}_{}", model.hosts.name(side.client), side.id), title + ":")
        .column("At", Unit::Us, "end of the step, since the call")
        .decimals(3)
        .column("Took", Unit::Us, "")
        .decimals(3)
        .column("Share", Unit::Percent, "")
        .column("Node", Unit::None, "")
        .column("Core", Unit::None, "")
        .column("Step", Unit::None, "what ended it")
        .column("Held by", Unit::None, "");
    let mut error = 0;
    for step in &path.steps {
        let took = step.end - step.start;
        table.row([
            micros(step.end - side.sendmsg).into(),
            micros(took).into(),
            (total > 0).then(|| 100.0 * took as f64 / total as f64).into(),
            model.name(step.node).into(),
            step.core.into(),
            (&step.what).into(),
            step.held_by.into(),
        ]);
        if step.between_nodes {
            let other = path.steps.iter().map(|s| s.node).find(|n| *n != step.node).unwrap_or(step.node);
            error = error.max(model.clock.error(step.node, other).unwrap_or(0));
        }
    }
    table.row(["sum".into(), micros(total).into(), (total > 0).then_some(100.0).into()]);
    let mut held: FxHashMap<&'static str, i64> = FxHashMap::default();
    path.steps.iter().for_each(|s| *held.entry(s.held_by).or_default() += s.end - s.start);
    let mut held: Vec<_> = held.into_iter().collect();
    held.sort_by_key(|(what, took)| (std::cmp::Reverse(*took), *what));
    let mut sums =
        Table::new(format!("{}_held", table.name), format!("What held RPC {}, all steps together:", name(model, side)))
            .column("Took", Unit::Us, "")
            .decimals(3)
            .column("Share", Unit::Percent, "")
            .column("Held by", Unit::None, "");
    for (what, took) in held {
        sums.row([micros(took).into(), (total > 0).then(|| 100.0 * took as f64 / total as f64).into(), what.into()]);
    }
    let label = name(model, side);
    if let Some(longest) = path.steps.iter().max_by_key(|s| s.end - s.start) {
        let (took, held) = (micros(longest.end - longest.start), longest.held_by);
        report.notes.push(format!("{label}: the longest step, {took:.3} us on {}: {held}", model.name(longest.node)));
    }
    if error > 0 {
        let us = micros(error);
        report
            .notes
            .push(format!("{label}: steps from one node to the other can be wrong by {us:.3} us; their sum is exact"));
    }
    report.notes.extend(path.notes.iter().map(|note| format!("{label}: {note}")));
    report.tables.push(table);
    report.tables.push(sums);
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
