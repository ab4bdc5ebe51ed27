//! `user`: the events that `--events` defines, and the delays between events that it asks for.

use rustc_hash::FxHashMap;

use super::samples::Samples;
use super::table::{Table, Unit};
use super::{About, Analyzer, Needs, Options, Report};
use crate::event::{Kind, Record};
use crate::model::Model;
use crate::read::{By, Delay};

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct User;

impl Analyzer for User {
    fn about(&self) -> &'static About {
        &About {
            name: "user",
            question: "How often did the events of --events happen, and how long took the delays that it defines?",
            source: "this project",
            needs: Needs::Any(Kind::ALL),
            uses: &[Kind::User],
            options: &["events", "node"],
            requires: &["events"],
        }
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        let wanted = |name: &String| options.node.as_ref().is_none_or(|node| node == name);
        let mut events = Table::new("events", "Events that are defined:")
            .column("Event", Unit::None, "")
            .column("Node", Unit::None, "")
            .column("Count", Unit::None, "");
        for name in model.user.names() {
            for trace in model.traces.iter().filter(|t| wanted(&t.node)) {
                let count = trace.records.iter().filter(|r| model.user.is(r, name)).count();
                events.row([name.into(), (&trace.node).into(), count.into()]);
            }
        }
        let mut delays = Table::new("delays", "From an event to the next of the other kind (us):")
            .column("Delay", Unit::None, "")
            .column("Node", Unit::None, "")
            .distribution()
            .column("Open", Unit::None, "begun and not ended: before another began, or at the end of the trace")
            .column("NoBegin", Unit::None, "ended without having begun");
        for delay in &model.user.delays {
            for trace in model.traces.iter().filter(|t| wanted(&t.node)) {
                let found = Found::in_trace(&trace.records, delay, model);
                let cells = [delay.name.as_str().into(), (&trace.node).into()];
                let row = delays.row(
                    cells.into_iter().chain(found.samples.cells()).chain([found.open.into(), found.no_begin.into()]),
                );
                if found.samples.is_empty() {
                    row.note(format!("no {} after a {}", delay.to, delay.from));
                }
            }
        }
        let mut report = Report::of([events]);
        if !model.user.delays.is_empty() {
            report.tables.push(delays);
        }
        report
    }
}

/// What was found of a delay on one node.
struct Found {
    samples: Samples,
    open: u64,
    no_begin: u64,
}

impl Found {
    fn in_trace(records: &[Record], delay: &Delay, model: &Model) -> Self {
        let mut began: FxHashMap<(u32, u32), i64> = FxHashMap::default();
        let (mut samples, mut open, mut no_begin) = (Vec::new(), 0, 0);
        for record in records {
            // An event may end one and begin the next.
            if model.user.is(record, &delay.to) {
                match key(record, delay.by).and_then(|key| began.remove(&key)) {
                    Some(from) => samples.push(record.time - from),
                    None => no_begin += u64::from(key(record, delay.by).is_some()),
                }
            }
            if let Some(key) = key(record, delay.by).filter(|_| model.user.is(record, &delay.from)) {
                open += u64::from(began.insert(key, record.time).is_some());
            }
        }
        Self { samples: samples.into_iter().collect(), open: open + began.len() as u64, no_begin }
    }
}

/// What both events of a delay have in common; `None` if the event does not say.
fn key(record: &Record, by: By) -> Option<(u32, u32)> {
    match by {
        By::Core => Some((record.core.into(), 0)),
        // The two sides of an RPC are on one node only if it talks to itself.
        By::Id => record.rpc().map(|id| (id, 0)),
        By::Packet => record.rpc().map(|id| (id, record.offset)),
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::testing::traces;

    const EVENTS: &str = "
        [[event]]
        name = 'miss'
        pattern = 'cache missed for id (?<id>\\d+)'
        [[event]]
        name = 'fill'
        pattern = 'line filled'
        [[delay]]
        name = 'miss to end'
        from = 'miss'
        to = 'rpc_end'
        [[delay]]
        name = 'fill to fill'
        from = 'fill'
        to = 'fill'
        by = 'core'
        ";

    const TRACE: &str = "\
        1.000 us (+   0.000 us) [C00] line filled\n\
        2.000 us (+   0.000 us) [C00] cache missed for id 10\n\
        3.000 us (+   0.000 us) [C00] cache missed for id 12\n\
        5.000 us (+   0.000 us) [C00] line filled\n\
        7.000 us (+   0.000 us) [C01] homa_rpc_end invoked for id 10, port 1\n\
        8.000 us (+   0.000 us) [C01] homa_rpc_end invoked for id 14, port 1\n\
        9.500 us (+   0.000 us) [C00] line filled\n";

    #[test]
    fn delays_between_defined_events_are_those_of_the_trace() {
        let dir = std::env::temp_dir().join(format!("tthoma-user-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (events, trace) = (dir.join("events.toml"), dir.join("n1.tt"));
        std::fs::write(&events, EVENTS).unwrap();
        std::fs::write(&trace, TRACE).unwrap();
        let options = Options { events: Some(events), ..Options::default() };
        let model = Model::read(&[trace], &options).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let report = User.run(&model, &options);
        let events = report.table("events").unwrap();
        let count = |name: &str| events.get(events.find(&[name, "n1"]).unwrap(), "count").number();
        assert_eq!((count("miss"), count("fill")), (Some(2.0), Some(3.0)));
        let delays = report.table("delays").unwrap();
        let row = |name: &str| {
            let row = delays.find(&[name, "n1"]).unwrap();
            ["count", "min_us", "max_us", "open", "no_begin"].map(|key| delays.get(row, key).number().unwrap())
        };
        assert_eq!(row("miss to end"), [1.0, 5.0, 5.0, 1.0, 1.0]);
        assert_eq!(row("fill to fill"), [2.0, 4.0, 4.5, 1.0, 1.0]);
        let none = Model::new(traces(&[("n1", "1 homa_softirq starting")]), &Options::default());
        assert!(User.run(&none, &Options::default()).table("delays").is_none());
    }
}
