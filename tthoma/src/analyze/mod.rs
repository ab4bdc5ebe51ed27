//! The analyses: each answers one question about a [`Model`].
//!
//! # How to add one
//!
//! 1. A file `analyze/NAME.rs` with a unit struct that implements [`Analyzer`]: [`Analyzer::about`] says its name, its
//!    question, the events that it needs and the options that it looks at; [`Analyzer::run`] makes [`Table`]s of a model.
//!    [`delay`] and [`sync`] are examples.
//! 2. A line in [`ALL`]. The command line, `tthoma list`, `analyze all`, JSON, CSV and data files need nothing more.
//! 3. Tests on a trace with known answers: [`testing`](crate::testing) makes one.
//!
//! What an analysis must not do: print zeros where events are missing. If it can say nothing at all, [`About::needs`]
//! sees to it; a row without samples has a [`note`](Row::note) that says which events it would take
//! ([`Model::missing`] names them); a field that is unknown is [`Cell::None`].
//!
//! Times in a model are of each node's own clock; [`Clock::between`](crate::clock::Clock::between) makes a time between
//! two nodes of them, and [`Model::common`] a moment for people. How wrong they can be is in every output
//! ([`Run::clock`]).

pub mod activity;
mod attempts;
mod calls;
pub mod copy;
pub mod core;
pub mod cores;
mod credit;
pub mod delay;
mod delay_negatives;
mod delay_tables;
pub mod dump;
pub mod dup_exec;
pub mod explain;
mod explain_ends;
mod explain_path;
pub mod filter;
pub mod gaps;
mod grant_order;
pub mod grantlock;
pub mod grants;
pub mod handoffs;
pub mod incoming;
mod interval_values;
mod intervals;
pub mod inventory;
pub mod latency;
mod live;
pub mod loss;
pub mod lost;
pub mod msgrange;
pub mod net;
pub mod nicbacklog;
pub mod nicpkts;
pub mod nicqueues;
pub mod nictx;
pub mod ooo;
mod options;
mod owned;
pub mod p99short;
pub mod packet;
mod packet_list;
pub mod pairs;
pub mod pass;
mod pictures;
pub mod pid;
pub mod plot;
pub mod qbytes;
pub mod qdelay;
mod report;
pub mod rpc;
pub mod rpcs;
pub mod rtt;
mod run;
pub mod rx;
pub mod rxbufs;
mod samples;
pub mod snapshot;
pub mod sockqs;
pub mod softirq_backlog;
pub mod softirq_delay;
mod softirq_sweep;
mod steps;
mod sweep;
pub mod sync;
pub mod sync_quality;
mod table;
mod table_text;
pub mod tcp;
pub mod tcp_rpcs;
#[cfg(test)]
pub(crate) mod testing;
pub mod timeline;
pub mod txintervals;
pub mod txpkts;
pub mod txqstop;
pub mod user;

use std::path::PathBuf;

use strsim::osa_distance as edits;

use crate::event::{Kind, Kinds};
use crate::model::{Model, Wanted};
use crate::read::ReadError;

pub use crate::stats::Distribution;
pub(crate) use interval_values::{Intervals, interval_values};
pub use options::{From, Options, Pkt, PktTypes, Range};
pub use plot::{Mark, Plot};
pub use report::{ClockReport, ImportReport, NodeReport, PairReport};
pub use run::{Finding, Report, Run};
pub use table::{Cell, Column, Row, Table, Unit};

/// An analysis.
pub trait Analyzer: Sync {
    /// What it is.
    fn about(&self) -> &'static About;

    /// Which events it reads of [`NodeTrace::records`](crate::read::NodeTrace::records); all if it reads
    /// [`Model::queues`]. Packets, journeys, hand-offs, RPCs, flights and counts are there without. What no analysis reads is
    /// not loaded from tables.
    fn reads(&self) -> Kinds {
        Kinds::ALL
    }

    /// False if it looks at no packets, journeys, hand-offs, RPCs or flights, but at counts, hosts and clocks only: of tables, none of
    /// them is loaded then.
    fn packets(&self) -> bool {
        true
    }

    /// Its answer. Called only if the model has what [`About::needs`], and the options what [`About::requires`].
    fn run(&self, model: &Model, options: &Options) -> Report;
}

/// What an analysis is, for `tthoma list` and for those who run it.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Its name on the command line.
    pub name: &'static str,
    /// The question that it answers.
    pub question: &'static str,
    /// Where its definition is: a section of timetrace.md.
    pub source: &'static str,
    /// Events without which it has nothing to say.
    pub needs: Needs,
    /// Events that add to it.
    pub uses: &'static [Kind],
    /// Fields of [`Options`] that it looks at, beside [`Options::COMMON`].
    pub options: &'static [&'static str],
    /// Fields of [`Options`] that must be given; of `options`.
    pub requires: &'static [&'static str],
}

impl About {
    /// All events that it names.
    pub const fn kinds(&self) -> Kinds {
        Kinds::of(self.needs.kinds()).and(Kinds::of(self.uses))
    }
}

/// Events without which an analysis has nothing to say.
#[derive(Clone, Copy, Debug)]
pub enum Needs {
    /// None.
    Nothing,
    /// Each of them.
    All(&'static [Kind]),
    /// Any of them.
    Any(&'static [Kind]),
}

impl Needs {
    /// The events.
    pub const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Nothing => &[],
            Self::All(kinds) | Self::Any(kinds) => kinds,
        }
    }

    /// Names of those that are missing in a model and without which the analysis can't run; empty if it can.
    pub fn missing(self, model: &Model) -> Vec<&'static str> {
        let missing = model.missing(self.kinds());
        match self {
            Self::Any(kinds) if missing.len() < kinds.len() => Vec::new(),
            _ => missing,
        }
    }
}

/// All analyses, in the order of `tthoma list`.
pub const ALL: &[&dyn Analyzer] = &[
    &activity::Activity,
    &dump::BPages,
    &copy::Copy,
    &core::Core,
    &gaps::CoreGaps,
    &cores::Cores,
    &delay::Delay,
    &dup_exec::DupExec,
    &explain::Explain,
    &filter::Filter,
    &grantlock::GrantLock,
    &grants::Grants,
    &handoffs::Handoffs,
    &incoming::Incoming,
    &dump::LongTerm,
    &loss::Loss,
    &inventory::Inventory,
    &lost::Lost,
    &latency::MinLatency,
    &msgrange::MsgRange,
    &net::Net,
    &nicbacklog::NicBacklog,
    &nicbacklog::NicBacklog2,
    &nicpkts::NicPkts,
    &nicqueues::NicQueues,
    &nicpkts::NicSnapshot,
    &nictx::NicTx,
    &ooo::Ooo,
    &p99short::P99Short,
    &packet::Packet,
    &pairs::Pairs,
    &pass::Pass,
    &pid::Pid,
    &qbytes::QBytes,
    &qdelay::QDelay,
    &rpc::Rpc,
    &rpcs::Rpcs,
    &rtt::Rtt,
    &rx::Rx,
    &rxbufs::RxBufs,
    &snapshot::RxSnapshot,
    &gaps::Smis,
    &sockqs::SockQs,
    &softirq_backlog::SoftirqBacklog,
    &softirq_delay::SoftirqDelay,
    &sync::Sync,
    &tcp::TcpDelay,
    &tcp_rpcs::TcpRpcs,
    &sync_quality::SyncQuality,
    &timeline::Timeline,
    &txintervals::TxIntervals,
    &txpkts::TxPkts,
    &txqstop::TxQStop,
    &snapshot::TxSnapshot,
    &user::User,
];

/// The analysis of that name.
pub fn find(name: &str) -> Option<&'static dyn Analyzer> {
    ALL.iter().copied().find(|a| a.about().name == name)
}

/// Reads the traces that `paths` name and runs the analyses `names` on them; `all` stands for every one whose required
/// options are given. A path may be a folder of tables instead; and tables that `tthoma convert` made of the same traces
/// before are used, unless [`Options::no_cache`].
///
/// # Errors
///
/// As [`crate::read::read`]; or if tables can't be read.
///
/// # Panics
///
/// If there is no analysis of one of the names.
pub fn run(names: &[&str], paths: &[PathBuf], options: &Options) -> Result<Run, ReadError> {
    let chosen = chosen(names, options);
    let wanted = Wanted {
        events: chosen.iter().fold(Kinds::NONE, |all, a| all.and(a.reads())),
        packets: chosen.iter().any(|a| a.packets()),
    };
    let model = Model::open(paths, options, wanted)?;
    Ok(Run::new(&model, paths, &chosen, options))
}

/// The analyses of these names.
fn chosen(names: &[&str], options: &Options) -> Vec<&'static dyn Analyzer> {
    let given = options.given();
    let ready = |a: &&&'static dyn Analyzer| a.about().requires.iter().all(|r| given.iter().any(|g| g == r));
    let mut all: Vec<&'static dyn Analyzer> = Vec::new();
    for name in names {
        if *name == "all" {
            all.extend(ALL.iter().filter(ready).copied());
        } else {
            all.push(find(name).unwrap_or_else(|| panic!("no analysis named `{name}`")));
        }
    }
    all
}

/// The name of an analysis that `name` is most probably meant for: at most a third of its letters wrong.
pub fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    let best = ALL.iter().map(|a| a.about().name).min_by_key(|known| edits(&name, known))?;
    (edits(&name, best) <= best.len().div_ceil(3)).then_some(best)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_mistyped_name_suggests_the_nearest() {
        for (typed, meant) in
            [("dealy", Some("delay")), ("DELAYX", Some("delay")), ("snyc", Some("sync")), ("xxxxxxxx", None)]
        {
            assert_eq!(nearest(typed), meant, "{typed}");
        }
        assert_eq!(edits("", "abc"), 3);
    }

    #[test]
    fn every_analysis_is_described_and_has_a_name_of_its_own() {
        let mut names: Vec<&str> = ALL.iter().map(|a| a.about().name).collect();
        for about in ALL.iter().map(|a| a.about()) {
            assert!(about.question.ends_with('?'), "{}", about.name);
            assert!(about.options.iter().all(|o| Options::exists(o)), "{}: {:?}", about.name, about.options);
            assert!(about.requires.iter().all(|o| about.options.contains(o)), "{}", about.name);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }

    /// All Rust text below a folder.
    fn sources(dir: &Path, out: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                *out += &std::fs::read_to_string(path).unwrap();
            }
        }
    }

    #[test]
    fn the_page_of_tests_has_every_analysis_and_no_test_that_is_not_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let page = std::fs::read_to_string(root.join("../docs/tthoma-analyzers.md")).unwrap();
        let mut code = String::new();
        ["src", "tests"].iter().for_each(|folder| sources(&root.join(folder), &mut code));
        for about in ALL.iter().map(|a| a.about()) {
            let head = format!("| `{}` | {} | `", about.name, about.question);
            assert!(page.contains(&head), "docs/tthoma-analyzers.md lacks {head}");
        }
        let is_test = |name: &&str| name.matches('_').count() > 2 && !name.contains(['.', '/', ':']);
        let named: Vec<&str> = page.split('`').skip(1).step_by(2).filter(is_test).collect();
        assert!(named.len() > ALL.len());
        for name in named {
            assert!(code.contains(&format!("fn {name}(")), "no test {name}");
        }
    }
}
