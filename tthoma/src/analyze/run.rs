//! One command: traces read once, any number of analyses of them, and what all of them have in common.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::options::Options;
use super::pictures;
use super::plot::Plot;
use super::steps::Steps;
use super::table::Table;
use super::{About, Analyzer, ClockReport, ImportReport, NodeReport};
use crate::model::Model;

/// What an analysis found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Results.
    pub tables: Vec<Table>,
    /// What to know about them, one sentence each, printed below.
    pub notes: Vec<String>,
    /// Plots, made if `--plot` is given.
    pub plots: Vec<Plot>,
    /// What must be known before believing them, one sentence each, on standard error.
    pub warnings: Vec<String>,
}

impl Report {
    /// A report of these tables.
    pub fn of(tables: impl IntoIterator<Item = Table>) -> Self {
        Self { tables: tables.into_iter().collect(), ..Self::default() }
    }

    /// The table of that name.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|t| t.name == name)
    }

    /// True if any table has a row without a note that says why it is empty.
    pub fn has_results(&self) -> bool {
        let row = |r: &super::table::Row| r.note.is_none() && !r.cells.is_empty();
        self.tables.iter().any(|t| t.rows.iter().any(row))
    }
}

/// One analysis in a [`Run`].
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which analysis it was.
    pub about: &'static About,
    /// What it found; `None` if it could not run.
    pub report: Option<Report>,
    /// Why it could not run: events or options that are missing, one sentence.
    pub not_run: Option<String>,
}

/// Results of a command, with everything that is said once: files, nodes, clocks.
#[derive(Clone, Debug)]
pub struct Run {
    /// Files and directories given.
    pub paths: Vec<PathBuf>,
    /// Options in effect.
    pub options: Options,
    /// Nodes.
    pub nodes: Vec<NodeReport>,
    /// Clocks: how wrong times between nodes can be.
    pub clock: ClockReport,
    /// What reading found.
    pub import: ImportReport,
    /// The analyses in the order they were asked for.
    pub findings: Vec<Finding>,
}

impl Run {
    /// Version of the JSON form.
    pub const VERSION: u32 = 2;

    /// Runs `analyzers` on a model.
    pub fn new(model: &Model, paths: &[PathBuf], analyzers: &[&'static dyn Analyzer], options: &Options) -> Self {
        let one = |analyzer: &&'static dyn Analyzer| {
            let about = analyzer.about();
            let not_run = obstacle(about, model, options);
            let report = not_run.is_none().then(|| analyzer.run(model, options));
            Finding { about, report, not_run }
        };
        let mut findings: Vec<Finding> = analyzers.iter().map(one).collect();
        let in_steps = |f: &&mut Finding| f.report.is_some() && f.about.options.contains(&"interval");
        if let Some(report) = findings.iter_mut().find(in_steps).and_then(|f| f.report.as_mut()) {
            report.warnings.extend(Steps::longer(model, options.interval));
        }
        if options.plot.is_some() {
            pictures::add(&mut findings, model);
        }
        Self {
            paths: paths.to_vec(),
            options: options.clone(),
            nodes: NodeReport::all(model),
            clock: ClockReport::new(model),
            import: ImportReport::new(model),
            findings,
        }
    }

    /// The report of the analysis of that name, if it ran.
    pub fn report(&self, name: &str) -> Option<&Report> {
        self.findings.iter().find(|f| f.about.name == name)?.report.as_ref()
    }

    /// True if any analysis has results.
    pub fn has_results(&self) -> bool {
        self.findings.iter().filter_map(|f| f.report.as_ref()).any(Report::has_results)
    }

    /// What is wrong with the files and clocks, one sentence each.
    pub fn warnings_of_traces(&self) -> Vec<String> {
        self.import.problems.iter().cloned().chain(self.clock.problems()).collect()
    }

    /// What a reader must know before believing the figures, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut all = self.warnings_of_traces();
        for finding in &self.findings {
            all.extend(finding.not_run.iter().cloned());
            all.extend(finding.report.iter().flat_map(|r| r.warnings.iter().cloned()));
        }
        let used = |name: &String| {
            Options::COMMON.contains(&name.as_str())
                || self.findings.iter().any(|f| f.about.options.contains(&name.as_str()))
        };
        for name in self.options.given().into_iter().filter(|name| !used(name)) {
            all.push(format!("--{} means nothing to these analyses (see `tthoma list`)", name.replace('_', "-")));
        }
        all
    }

    /// Tables for people.
    pub fn to_text(&self) -> String {
        let mut out = format!("{}\n{}", self.import.line(), self.clock.table());
        for finding in &self.findings {
            if self.findings.len() > 1 {
                let rule = "-".repeat(80);
                let _ = write!(out, "\n{rule}\n{}: {}\n{rule}\n", finding.about.name, finding.about.question);
            }
            if let Some(why) = &finding.not_run {
                let _ = write!(out, "\n{why}\n");
            }
            let Some(report) = &finding.report else { continue };
            for table in report.tables.iter().filter(|t| !t.series) {
                let _ = write!(out, "\n{}", table.to_text());
            }
            if !report.notes.is_empty() {
                let _ = write!(out, "\n{}\n", report.notes.join("\n"));
            }
        }
        if self.options.verbose {
            let _ = write!(out, "\n{}", self.import.shapes());
        }
        out
    }

    /// All tables, each after a line `# ANALYSIS/TABLE`.
    pub fn to_csv(&self) -> String {
        let tables = self.tables();
        let many = tables.len() > 1;
        let mut out = String::new();
        for (about, table) in tables {
            if many {
                let _ = writeln!(out, "# {}/{}", about.name, table.name);
            }
            out += &table.to_csv();
        }
        out
    }

    /// All tables with their analyses.
    pub fn tables(&self) -> Vec<(&'static About, &Table)> {
        let mut all = Vec::new();
        for finding in &self.findings {
            all.extend(finding.report.iter().flat_map(|r| &r.tables).map(|t| (finding.about, t)));
        }
        all
    }

    /// Writes the plots of all analyses to `dir`, which is created if need be.
    ///
    /// # Errors
    ///
    /// If a file can't be written.
    pub fn write_plots(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        self.findings
            .iter()
            .filter_map(|f| f.report.as_ref())
            .flat_map(|r| &r.plots)
            .try_for_each(|plot| plot.draw(dir))
    }

    /// Writes the data files of all analyses to `dir`, which is created if need be.
    ///
    /// # Errors
    ///
    /// If a file can't be written.
    pub fn write_data(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        for (about, table) in self.tables().into_iter().filter(|(_, t)| t.series) {
            let command = format!("tthoma analyze {}", about.name);
            fs::write(dir.join(format!("{}.dat", table.name)), table.to_dat(&command))?;
        }
        Ok(())
    }
}

/// Why an analysis can't run on this model, if it can't.
fn obstacle(about: &About, model: &Model, options: &Options) -> Option<String> {
    let given = options.given();
    let lacks: Vec<String> = (about.requires.iter())
        .filter(|name| !given.iter().any(|g| g == **name))
        .map(|name| format!("--{}", name.replace('_', "-")))
        .collect();
    if !lacks.is_empty() {
        return Some(format!("{} needs {}", about.name, lacks.join(" and ")));
    }
    let missing = about.needs.missing(model);
    (!missing.is_empty()).then(|| format!("{}: the traces have no {}", about.name, missing.join(", ")))
}

/// `version`, `command`, `paths`, `options`, `nodes`, `clock`, `import`, and `analyses`: by name `question`, `tables` by
/// name, `notes` and `warnings`, or `not_run`.
impl Serialize for Run {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Findings<'a>(&'a [Finding]);
        impl Serialize for Findings<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|f| (f.about.name, f)))
            }
        }
        let mut out = serializer.serialize_map(None)?;
        out.serialize_entry("version", &Self::VERSION)?;
        out.serialize_entry("command", "analyze")?;
        out.serialize_entry("paths", &self.paths)?;
        out.serialize_entry("options", &self.options)?;
        out.serialize_entry("nodes", &self.nodes)?;
        out.serialize_entry("clock", &self.clock)?;
        out.serialize_entry("import", &self.import)?;
        out.serialize_entry("analyses", &Findings(&self.findings))?;
        out.end()
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_map(None)?;
        out.serialize_entry("question", self.about.question)?;
        if let Some(why) = &self.not_run {
            out.serialize_entry("not_run", why)?;
        }
        if let Some(report) = &self.report {
            out.serialize_entry("tables", &Tables(&report.tables))?;
            out.serialize_entry("notes", &report.notes)?;
            out.serialize_entry("warnings", &report.warnings)?;
        }
        out.end()
    }
}

/// Tables by name.
struct Tables<'a>(&'a [Table]);

impl Serialize for Tables<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|t| (&t.name, t)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Needs, Unit};
    use super::*;
    use crate::event::Kind;
    use crate::testing::traces;

    struct Counting;

    impl Analyzer for Counting {
        fn about(&self) -> &'static About {
            &About {
                name: "counting",
                question: "How many?",
                source: "",
                needs: Needs::All(&[Kind::SoftirqStart, Kind::Timer]),
                uses: &[],
                options: &["node"],
                requires: &["node"],
            }
        }

        fn run(&self, model: &Model, options: &Options) -> Report {
            let mut table = Table::series("counting", "n1", "Counts").column("Lines", Unit::None, "");
            table.row([model.count(Kind::Timer).into()]);
            let notes = vec![format!("of {}", options.node.as_deref().unwrap_or("all"))];
            Report { notes, ..Report::of([table]) }
        }
    }

    fn run(text: &str, options: Options) -> Run {
        let model = Model::new(traces(&[("n1", text)]), &options);
        Run::new(&model, &[], &[&Counting], &options)
    }

    const BOTH: &str = "1 homa_softirq starting\n2 homa_timer found total_incoming 0";

    #[test]
    fn missing_events_and_options_are_said_instead_of_zeros() {
        let node = Options { node: Some("n1".into()), ..Options::default() };
        let one = run("1 homa_softirq starting", node.clone());
        assert_eq!(one.findings[0].not_run.as_deref(), Some("counting: the traces have no timer"));
        assert!(one.report("counting").is_none() && !one.has_results());
        assert!(one.to_text().ends_with("\ncounting: the traces have no timer\n"));
        assert_eq!(run(BOTH, Options::default()).warnings(), ["counting needs --node"]);
        let good = run(BOTH, node);
        assert_eq!((good.has_results(), good.warnings()), (true, vec![]));
        assert!(good.to_text().ends_with("\nof n1\n"));
        let json = serde_json::to_value(&good).unwrap();
        assert_eq!(json["analyses"]["counting"]["tables"]["counting_n1"]["rows"][0]["lines"], 1);
    }

    #[test]
    fn options_that_nobody_uses_are_a_warning() {
        let options = Options { node: Some("n1".into()), tx_qid: Some(3), verbose: true, ..Options::default() };
        assert_eq!(run(BOTH, options).warnings(), ["--tx-qid means nothing to these analyses (see `tthoma list`)"]);
    }

    #[test]
    fn series_go_to_data_files() {
        let dir = std::env::temp_dir().join(format!("tthoma-data-{}", std::process::id()));
        let good = run(BOTH, Options { node: Some("n1".into()), ..Options::default() });
        good.write_data(&dir).unwrap();
        let text = fs::read_to_string(dir.join("counting_n1.dat")).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert!(text.starts_with("# Node: n1\n# Generated by tthoma analyze counting.\n"), "{text}");
        assert_eq!(good.to_csv(), "lines\n1\n");
    }
}
