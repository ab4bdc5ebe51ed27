//! `inventory`: what is in the traces, and what is not?

use super::{ALL, About, Analyzer, Cell, Needs, Options, Report, Table, Unit};
use crate::event::{Kind, Kinds};
use crate::model::Model;
use crate::read::FileStats;
use crate::stats::micros;

/// See [the module](self).
#[derive(Clone, Copy, Debug)]
pub struct Inventory;

impl Analyzer for Inventory {
    fn about(&self) -> &'static About {
        &About {
            name: "inventory",
            question: "What is in these traces: which events, which unknown messages, and what do analyses lack?",
            source: "timetrace.md 10.6",
            needs: Needs::Nothing,
            uses: &[],
            options: &["top"],
            requires: &[],
        }
    }

    fn reads(&self) -> Kinds {
        Kinds::NONE
    }

    fn packets(&self) -> bool {
        false
    }

    fn run(&self, model: &Model, options: &Options) -> Report {
        Report::of([files(model), events(model), shapes(model, options), bad(model), lacking(model)])
    }
}

fn files(model: &Model) -> Table {
    let mut table = Table::new("files", "Files:")
        .column("Node", Unit::None, "")
        .column("Lines", Unit::None, "")
        .column("Events", Unit::None, "lines that analyses know")
        .column("Unknown", Unit::None, "lines with messages that no analysis knows")
        .column("Comments", Unit::None, "empty lines, comments, other lines of a kernel's log")
        .column("Bad", Unit::None, "lines that are no records")
        .column("MB", Unit::None, "10^6 bytes of text")
        .decimals(1)
        .column("Span", Unit::Ms, "from the first to the last line")
        .column("Cores", Unit::None, "cores, or threads of a program, that logged events")
        .column("Dialect", Unit::None, "tt, raw (/proc/timetrace) or syslog")
        .column("Generation", Unit::None, "which kernel's words the events are in")
        .column("Path", Unit::None, "");
    for (node, trace) in model.traces.iter().enumerate() {
        let stats = &trace.stats;
        table.row([
            (&trace.node).into(),
            stats.lines.into(),
            stats.records.into(),
            stats.unrecognised.into(),
            stats.comments.into(),
            stats.bad_lines().into(),
            (stats.bytes as f64 / 1e6).into(),
            trace.span.map(|(first, last)| micros(last - first) / 1000.0).into(),
            model.cores(node).into(),
            format!("{:?}", stats.dialect).to_lowercase().into(),
            generation(stats).into(),
            stats.path.display().to_string().into(),
        ]);
    }
    table
}

/// Which kernel's words a trace is in, judged by events that only one of them has.
fn generation(stats: &FileStats) -> &'static str {
    let any = |kinds: &[Kind]| kinds.iter().any(|k| stats.count(*k) > 0);
    let old = any(&[Kind::PollSuccess, Kind::ReapSuccess]);
    let ours = any(&[Kind::RingWait]);
    let new = any(&[Kind::RpcHandoff, Kind::RpcQueued, Kind::SendmsgDone, Kind::FreeTxSkb, Kind::GrantCheckStart]);
    match (ours, old, new) {
        (true, _, _) => "homa-stack",
        (_, true, _) => "2024",
        (_, _, true) => "2026",
        _ => "unknown",
    }
}

/// Lines of each kind on each node.
fn events(model: &Model) -> Table {
    let mut table = Table::new("events", "Events of each kind:").column("Event", Unit::None, "");
    for trace in &model.traces {
        table = table.column(trace.node.clone(), Unit::None, "");
    }
    let kinds = Kind::ALL.iter().filter(|kind| model.count(**kind) > 0);
    for kind in kinds.filter(|kind| **kind != Kind::User) {
        let counts = model.traces.iter().map(|t| Cell::from(t.stats.count(*kind)));
        table.row(std::iter::once(kind.name().into()).chain(counts));
    }
    for (place, name) in model.user.names().enumerate() {
        let count = |t: &crate::read::NodeTrace| t.stats.user_events.get(place).map(|k| k.count).into();
        table.row(std::iter::once(name.into()).chain(model.traces.iter().map(count)));
    }
    table
}

/// Unknown messages by shape, over all files.
fn shapes(model: &Model, options: &Options) -> Table {
    let mut all: Vec<(u64, &str, Vec<&str>)> = Vec::new();
    for trace in &model.traces {
        for shape in &trace.stats.shapes {
            match all.iter_mut().find(|(_, text, _)| *text == shape.text) {
                Some(known) => {
                    known.0 += shape.count;
                    known.2.push(&trace.node);
                }
                None => all.push((shape.count, &shape.text, vec![&trace.node])),
            }
        }
    }
    all.sort_by(|x, y| y.0.cmp(&x.0).then_with(|| x.1.cmp(y.1)));
    let most = if options.verbose { all.len() } else { options.top };
    let more = all.len().saturating_sub(most);
    let title = match more {
        0 => "Messages that no analysis knows, numbers as N:".to_string(),
        more => format!("Messages that no analysis knows, numbers as N ({more} more shapes with --verbose):"),
    };
    let mut table = Table::new("shapes", title)
        .column("Lines", Unit::None, "")
        .column("Nodes", Unit::None, "nodes that log it")
        .column("Message", Unit::None, "");
    for (count, text, nodes) in all.into_iter().take(most) {
        table.row([count.into(), nodes.len().into(), text.into()]);
    }
    table
}

fn bad(model: &Model) -> Table {
    let mut table = Table::new("bad", "Lines that are no records:")
        .column("Node", Unit::None, "")
        .column("Lines", Unit::None, "")
        .column("First", Unit::None, "number of the first such line")
        .column("Why", Unit::None, "")
        .column("Text", Unit::None, "");
    for trace in &model.traces {
        for bad in &trace.stats.bad {
            let first = bad.first.first();
            table.row([
                (&trace.node).into(),
                bad.count.into(),
                first.map(|l| l.line).into(),
                bad.reason.text().into(),
                first.map(|l| l.text.as_str()).into(),
            ]);
        }
    }
    table
}

/// Events that analyses would use and that do not occur.
fn lacking(model: &Model) -> Table {
    let mut table = Table::new("lacking", "What analyses lack:")
        .column("Analysis", Unit::None, "")
        .column("Runs", Unit::None, "")
        .column("Missing", Unit::None, "events that it would use and that occur nowhere");
    for about in ALL.iter().map(|a| a.about()) {
        let mut missing = model.missing(about.needs.kinds());
        missing.extend(model.missing(about.uses));
        let runs = about.needs.missing(model).is_empty();
        table.row([about.name.into(), runs.into(), missing.join(", ").into()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::{Format, parse_text};
    use crate::testing::{Scenario, Steps};

    #[test]
    fn every_line_is_in_the_account() {
        let mut scenario = Scenario::new(2);
        scenario.rpc(0.0, (0, 1), 10, (3000, 100), &Steps::default());
        scenario.event(1, 50.0, 4, "purred 9 times");
        scenario.event(1, 60.0, 4, "purred 10 times");
        let parse = |(node, text): (String, String)| {
            let text = text + "garbage\n\n";
            parse_text(node.as_ref(), &node, Format::Plain, &mut text.as_bytes())
        };
        let model = Model::new(scenario.texts().into_iter().map(parse).collect(), &Options::default());
        let report = Inventory.run(&model, &Options::default());
        let files = report.table("files").unwrap();
        let cell = |key| files.get(1, key).number().unwrap() as u64;
        assert_eq!(cell("lines"), cell("events") + cell("unknown") + cell("comments") + cell("bad"));
        assert_eq!((cell("unknown"), cell("comments"), cell("bad"), cell("cores")), (2, 1, 1, 3));
        assert_eq!(files.get(1, "generation"), &"2026".into());
        let events = report.table("events").unwrap();
        assert_eq!(events.get(events.find(&["gro_data"]).unwrap(), "node2"), &3u32.into());
        let total: f64 = (0..events.rows.len()).map(|row| events.get(row, "node2").number().unwrap()).sum();
        assert_eq!(total as u64, cell("events"));
        assert_eq!(report.table("shapes").unwrap().to_csv(), "lines,nodes,message\n2,1,purred N times\n");
        assert_eq!(report.table("bad").unwrap().rows.len(), 2);
        let lacking = report.table("lacking").unwrap();
        let delay = lacking.find(&["delay", "true"]).unwrap();
        assert!(lacking.get(delay, "missing").plain().contains("ring_wait"));
    }
}
