//! The two ways of running: one command, or a prompt.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cli::Command;
use crate::errors::exit_code;
use crate::exporter;
use crate::log::Log;
use crate::node::Node;

const PROMPT: &[u8] = b"% ";

/// Runs one command and then, if it left clients or servers, logs statistics until the process is killed.
pub(crate) fn one_shot(command: Command, prometheus: Option<SocketAddr>) -> ExitCode {
    let result = start(prometheus).and_then(|(node, _)| {
        let text = lock(&node).run(command)?;
        io::stdout().write_all(text.as_bytes())?;
        Ok(node)
    });
    match result {
        Ok(node) if lock(&node).is_busy() => loop {
            thread::park();
        },
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cp-node: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// Prompts for commands and runs them until standard input ends or one is `exit`, or the parent process `end_with` ends.
pub(crate) fn interactive(prometheus: Option<SocketAddr>, end_with: Option<u32>) -> ExitCode {
    let started = end_with.map_or(Ok(()), end_with_parent).and_then(|()| start(prometheus));
    match started.and_then(|(node, log)| prompt(&node, &log)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cp-node: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// A node and its log, with a thread that logs statistics each second, and one for Prometheus if it has an address.
fn start(prometheus: Option<SocketAddr>) -> Result<(Arc<Mutex<Node>>, Log)> {
    raise_descriptor_limit();
    sleep_exactly();
    let log = Log::stdout();
    log_panics(log.clone());
    let node = Arc::new(Mutex::new(Node::new(log.clone())));
    let shared = Arc::clone(&node);
    let tick = move || {
        // Statistics take no privileges; those who need some keep theirs.
        let _ = homa_stack::driver::drop_privileges();
        loop {
            thread::sleep(Duration::from_secs(1));
            lock(&shared).log_second();
        }
    };
    thread::Builder::new().name("stats".into()).spawn(tick).context("can't start the statistics thread")?;
    if let Some(address) = prometheus {
        let address = exporter::start(address, Arc::clone(&node))?;
        log.line(format_args!("Metrics at http://{address}/metrics"));
    }
    Ok((node, log))
}

/// Has the kernel kill this process when its parent, which has the id `parent`, ends.
fn end_with_parent(parent: u32) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("can't ask to be ended with the parent process")?;
    // It may have ended before.
    let now = rustix::process::getppid().map(|id| id.as_raw_nonzero().get().cast_unsigned());
    anyhow::ensure!(now == Some(parent), "the parent process {parent} has ended");
    Ok(())
}

fn prompt(node: &Mutex<Node>, log: &Log) -> Result<()> {
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        // If nobody reads the prompt there will be no more input either.
        let mut out = io::stdout().lock();
        let _ = out.write_all(PROMPT).and_then(|()| out.flush());
        drop(out);
        line.clear();
        if input.read_until(b'\n', &mut line).context("can't read standard input")? == 0 {
            return end(log, "EOF on stdin");
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        if log.is_file() {
            log.line(format_args!("Command: {text}"));
        }
        let reply = match Command::parse_line(text) {
            None => continue,
            Some(Ok(Command::Exit)) => return end(log, "exit command"),
            Some(Ok(command)) => lock(node).run(command).unwrap_or_else(|error| format!("{error:#}\n")),
            Some(Err(error)) => error.to_string(),
        };
        let mut out = io::stdout().lock();
        let _ = out.write_all(reply.as_bytes()).and_then(|()| out.flush());
    }
}

fn end(log: &Log, why: &str) -> Result<()> {
    if log.is_file() {
        log.line(format_args!("cp_node exiting ({why})"));
    }
    Ok(())
}

/// Lets the process have as many sockets as the system allows. (Rust programs ignore SIGPIPE already.)
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // A refusal matters only to runs with more than a thousand connections; they say so when they fail.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Has sleeps end when they are due: by default the kernel lets each end up to 50 us late to save wake-ups, which would
/// show up in every RTT from the due time. Threads started from now on inherit it.
fn sleep_exactly() {
    // A refusal costs those 50 us and is no reason not to run.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// A thread that panics is told in the log, where the orchestrator looks for `FATAL:`.
fn log_panics(log: Log) {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        log.line(format_args!("FATAL: {}", info.to_string().replace('\n', " ")));
        default(info);
    }));
}

fn lock(node: &Mutex<Node>) -> MutexGuard<'_, Node> {
    // After a panic in a command the node is still there to be stopped.
    node.lock().unwrap_or_else(PoisonError::into_inner)
}
