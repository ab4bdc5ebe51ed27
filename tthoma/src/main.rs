//! `tthoma`: analyses time traces of the Homa transport.

mod cli;
#[cfg(feature = "tables")]
mod convert_command;
mod export_command;
mod record_command;
mod report_command;
mod sys;
mod tool_commands;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use tthoma::analyze;
use tthoma::event::Kind;

use cli::{Cli, Command, Format, Traces};

#[global_allocator]
static ALLOCATOR: sys::HugePages = sys::HugePages;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        // The reader, `head` say, has enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tthoma: {error:#}");
            ExitCode::from(if error.is::<tthoma::read::ReadError>() { 2 } else { 1 })
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Export(command) => export_command::run(&command),
        Command::Record(args) => record_command::run(&args),
        Command::Explain(command) => {
            let options = analyze::Options { rpc: Some(command.rpc), top: command.top, ..Default::default() };
            analyse("explain", &Traces { paths: command.paths, format: command.format, options })
        }
        Command::List { tables: true, .. } => list_tables(),
        Command::List { events: true, .. } => list_events(),
        Command::List { .. } => list(),
        #[cfg(feature = "tables")]
        Command::Convert(args) => convert_command::convert(&args),
        Command::Analyze(command) => analyse(&command.names, &command.traces),
        Command::Report(args) => report_command::run(&args),
        Command::Inventory(traces) => analyse("inventory", &traces),
        Command::Grep(args) => tool_commands::grep(&args),
        Command::Merge { files } => tool_commands::merge(&files),
        Command::Range { start, end, file } => tool_commands::range(start, end, file.as_deref()),
        Command::Offset { old, new, file } => tool_commands::offset(old, new, file.as_deref()),
        Command::Sum(args) => tool_commands::sum(&args),
        Command::Print { file, extra } => tool_commands::print(&file, extra.as_deref()),
        Command::Completions { shell } => completions(shell),
        Command::Man { dir } => man(&dir),
    }
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tthoma", &mut text);
    io::stdout().lock().write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn man(dir: &Path) -> anyhow::Result<ExitCode> {
    let write = || {
        std::fs::create_dir_all(dir)?;
        let mut command = Cli::command();
        command.build();
        clap_mangen::generate_to(command, dir)
    };
    write().with_context(|| format!("writing man pages to {}", dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn analyse(names: &str, command: &Traces) -> anyhow::Result<ExitCode> {
    let names: Vec<&str> = names.split(',').collect();
    let unknown = |name: &&&str| **name != "all" && analyze::find(name).is_none();
    if let Some(name) = names.iter().find(unknown) {
        let hint = analyze::nearest(name).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        eprintln!("tthoma: no analysis named `{name}`{hint} (`tthoma list` says what there is)");
        return Ok(ExitCode::from(2));
    }
    let run = analyze::run(&names, &command.paths, &command.options)?;
    for warning in run.warnings() {
        eprintln!("tthoma: warning: {warning}");
    }
    if let Some(dir) = &command.options.data {
        run.write_data(dir).with_context(|| format!("cannot write data files to {}", dir.display()))?;
    }
    if let Some(dir) = &command.options.plot {
        run.write_plots(dir).with_context(|| format!("cannot write plots to {}", dir.display()))?;
    }
    match command.format {
        #[cfg(feature = "tables")]
        Format::Parquet => {
            let Some(dir) = &command.options.data else {
                eprintln!("tthoma: --format parquet writes a file for each table: give --data DIR");
                return Ok(ExitCode::from(2));
            };
            let files = tthoma::tables::results::write(&run, dir).map_err(tthoma::read::ReadError::from)?;
            print(&files.iter().map(|f| format!("{}\n", f.display())).collect::<String>())?;
        }
        Format::Table => print(&run.to_text())?,
        Format::Json => print(&json(&run)?)?,
        Format::Csv => print(&run.to_csv())?,
    }
    if run.has_results() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("tthoma: {}: no results: these traces lack what it needs (see `tthoma list`)", names.join(","));
    Ok(ExitCode::from(1))
}

fn json(report: &impl serde::Serialize) -> anyhow::Result<String> {
    let mut text = serde_json::to_string_pretty(report).context("cannot write the report as JSON")?;
    text.push('\n');
    Ok(text)
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

fn list() -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    for about in analyze::ALL.iter().map(|a| a.about()) {
        let names = |kinds: &[Kind]| kinds.iter().map(|k| k.name()).collect::<Vec<_>>().join(", ");
        let option = |name: &&str| {
            let need = if about.requires.contains(name) { " (needed)" } else { "" };
            format!("--{}{need}", name.replace('_', "-"))
        };
        let needs = match about.needs {
            analyze::Needs::Any(_) => "    needs any of: ",
            _ => "    needs: ",
        };
        text += &format!("{}\n    {}\n", about.name, about.question);
        text += &wrapped(needs, &names(about.needs.kinds()));
        text += &wrapped("    uses: ", &names(about.uses));
        text += &wrapped("    options: ", &about.options.iter().map(option).collect::<Vec<_>>().join(", "));
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Each table with its columns.
fn list_tables() -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    for table in tthoma::tables::TABLES {
        text += &format!("{}: {}\n", table.name, table.row);
        for column in table.columns {
            text += &format!("    {:<18} {:<5} {}\n", column.name, format!("{:?}", column.r#type), column.meaning);
        }
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Each kind of event with the texts that stand for it.
fn list_events() -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    for kind in Kind::ALL {
        text += &format!("{}\n", kind.name());
        for (_, template) in tthoma::vocabulary::TEMPLATES.iter().filter(|(k, _)| k == kind) {
            text += &format!("    {template}\n");
        }
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// `words` after `start`, in lines of at most 100 characters; nothing if there are no words.
fn wrapped(start: &str, words: &str) -> String {
    let mut out = String::new();
    if words.is_empty() {
        return out;
    }
    let mut line = start.to_string();
    for word in words.split_inclusive(", ") {
        if line.len() + word.trim_end().len() > 100 {
            out += line.trim_end();
            out.push('\n');
            line = " ".repeat(start.len());
        }
        line += word;
    }
    out + line.trim_end() + "\n"
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = |e: &(dyn std::error::Error + 'static)| e.downcast_ref::<io::Error>().map(io::Error::kind);
    error.chain().any(|e| kind(e) == Some(io::ErrorKind::BrokenPipe))
}
