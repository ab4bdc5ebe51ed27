//! `sync`: how far apart are the nodes' clocks, and how sure is that?

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use super::{Analysis, ClockReport, ImportReport, Input, NodeReport, Options};
use crate::event::Kind;
use crate::read::ReadError;

pub(crate) const ANALYSIS: Analysis = Analysis {
    name: "sync",
    question: "How far apart are the nodes' clocks, and how wrong can times between nodes be?",
    needs: &[Kind::IpXmit, Kind::GroData],
    uses: &[Kind::SendGrant, Kind::GroGrant, Kind::Retransmit],
};

/// What `sync` found. Nothing is written to the traces; every analysis synchronises clocks for itself.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this form.
    pub version: u32,
    /// `sync`.
    pub command: &'static str,
    /// Files and directories given.
    pub paths: Vec<PathBuf>,
    /// Options in effect.
    pub options: Options,
    /// Nodes.
    pub nodes: Vec<NodeReport>,
    /// Clocks.
    pub clock: ClockReport,
    /// Events without which clocks can't be synchronised, and that do not occur.
    pub missing_events: Vec<&'static str>,
    /// What reading found.
    pub import: ImportReport,
}

/// Synchronises the traces that `paths` name.
///
/// # Errors
///
/// As [`crate::read::read`].
pub fn sync(paths: &[PathBuf], options: &Options) -> Result<Report, ReadError> {
    let input = Input::read(paths, &Options { no_sync: false, ..options.clone() })?;
    Ok(Report {
        version: 1,
        command: "sync",
        paths: paths.to_vec(),
        options: options.clone(),
        nodes: NodeReport::all(&input),
        clock: ClockReport::new(&input),
        missing_events: input.missing(ANALYSIS.needs),
        import: ImportReport::new(&input),
    })
}

impl Report {
    /// True if at least two nodes have a common clock.
    pub fn has_results(&self) -> bool {
        self.clock.nodes.iter().filter(|n| n.offset_us.is_some()).count() > 1
    }

    /// What a reader must know before believing the figures, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut all = self.import.problems.clone();
        all.extend(self.clock.problems());
        if !self.missing_events.is_empty() {
            all.push(format!("clocks can't be synchronised without events {}", self.missing_events.join(", ")));
        }
        all
    }

    /// Tables for people.
    pub fn to_table(&self) -> String {
        let mut out = format!("{}\n\n", self.import.line());
        let _ = writeln!(
            out,
            "{:<16} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "Node", "Span ms", "DataSent", "DataGRO", "GrantSent", "GrantGRO"
        );
        for n in &self.nodes {
            let _ = writeln!(
                out,
                "{:<16} {:>9.1} {:>9} {:>9} {:>9} {:>9}",
                n.node, n.span_ms, n.data_sent, n.data_gro, n.grants_sent, n.grants_gro
            );
        }
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_string(), |v| format!("{v:.3}"));
        let _ = writeln!(
            out,
            "\nOffset: to be added to the node's times (reference {}); it lies surely",
            self.clock.reference
        );
        let _ = writeln!(out, "between Min and Max, as no packet arrives before it is sent (us):");
        let _ = writeln!(
            out,
            "{:<16} {:>14} {:>14} {:>10} {:>14} {:>10}",
            "Node", "Min", "Max", "Range", "Offset", "Error"
        );
        for n in &self.clock.nodes {
            let range = n.max_us.zip(n.min_us).map(|(max, min)| max - min);
            let _ = writeln!(
                out,
                "{:<16} {:>14} {:>14} {:>10} {:>14} {:>10}",
                n.node,
                number(n.min_us),
                number(n.max_us),
                number(range),
                number(n.offset_us),
                number(n.error_us)
            );
        }
        let _ = writeln!(
            out,
            "\nMinDelay: smallest one-way delay with these offsets; Error: how wrong times between the two"
        );
        let _ = writeln!(out, "nodes can be (us):");
        let _ = writeln!(out, "{:<16} {:<16} {:>9} {:>10} {:>10}", "From", "To", "Packets", "MinDelay", "Error");
        for p in &self.clock.pairs {
            let (min, error) = (number(p.min_delay_us), number(p.clock_error_us));
            let _ = writeln!(out, "{:<16} {:<16} {:>9} {:>10} {:>10}", p.from, p.to, p.packets, min, error);
        }
        if self.options.verbose {
            let _ = write!(out, "\n{}", self.import.shapes());
        }
        out
    }

    /// A line for each node, with a heading.
    pub fn to_csv(&self) -> String {
        let mut out = String::from("node,offset_us,min_us,max_us,error_us\n");
        let number = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.3}"));
        for n in &self.clock.nodes {
            let numbers = [n.offset_us, n.min_us, n.max_us, n.error_us].map(number);
            let _ = writeln!(out, "{},{}", crate::out::csv_field(&n.node), numbers.join(","));
        }
        out
    }
}
