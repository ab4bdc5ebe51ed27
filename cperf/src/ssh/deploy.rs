//! This program on the nodes: a file named by its content's hash, so that it is copied once, and never a half of it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use cp_node::agent::wire::{self, News, Order};
use sha2::{Digest as _, Sha256};
use ssh2::{Channel, Session};

use super::agent::{Agent, hex};
use super::cluster::Machine;
use super::connect::{self, Connection};
use super::pump::{Ending, Pump};
use super::quote;
use crate::error::Stop;

/// Longest start-up message of a login shell, bytes.
const BABBLE: usize = 64 * 1024;
/// How long reading the copied program may take the node.
const HASHING: Duration = Duration::from_secs(60);
/// Copies standard input: $1 directory, $2 name, $3 size. Whole or not at all.
const COPY: &str = r#"set -e
umask 077
mkdir -p "$1/bin"
[ -O "$1" ] || { echo "$1 belongs to somebody else: name another directory in the cluster file" >&2; exit 1; }
t="$1/bin/.$2.$$"
trap 'rm -f "$t"' EXIT
cat > "$t"
[ "$(wc -c < "$t")" -eq "$3" ] || { echo "only $(wc -c < "$t") of $3 bytes have come: is the disk full?" >&2; exit 1; }
chmod 700 "$t"
mv -f "$t" "$1/bin/$2""#;

/// The program that is to run on the nodes: this one.
#[derive(Clone, Debug)]
pub(super) struct Program {
    path: PathBuf,
    size_bytes: u64,
    sha256: String,
}

impl Program {
    /// Reads this program's own file.
    ///
    /// # Errors
    /// It can't be read.
    pub(super) fn own() -> anyhow::Result<Self> {
        let path = std::env::current_exe().context("finding this program's own file")?;
        let mut file = File::open(&path).with_context(|| format!("reading {}", path.display()))?;
        let (mut hash, mut buffer, mut size_bytes) = (Sha256::new(), vec![0; 1 << 18], 0);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                len => {
                    hash.update(&buffer[..len]);
                    size_bytes += len as u64;
                }
            }
        }
        Ok(Self { path, size_bytes, sha256: hex(&hash.finalize()) })
    }

    /// Its name on the nodes.
    fn name(&self) -> String {
        format!("cperf-{}", &self.sha256[..16])
    }

    /// Its path on a node.
    fn path_on(&self, machine: &Machine) -> String {
        format!("{}/bin/{}", machine.directory, self.name())
    }
}

/// Connects to a node and starts the agent there, after copying the program if it is not there.
///
/// # Errors
/// [`Stop::Missing`], naming the host and what to do.
pub(super) fn agent(machine: &Machine, program: &Program, jump: Option<&Pump>) -> anyhow::Result<Agent> {
    let Connection { session, socket } = connect::open(&machine.access, jump)?;
    let host = &machine.access.host;
    let mut copied = false;
    let channel = loop {
        match greet(&session, machine, program) {
            Ok(channel) => break channel,
            Err(_) if !copied && !is_there(&session, &program.path_on(machine))? => {
                copy(&session, machine, program).with_context(|| format!("{host}: copying this program there"))?;
                copied = true;
            }
            Err(why) => return Err(Stop::Missing(format!("{host}: its agent does not start: {why:#}")).into()),
        }
    };
    let ending = Arc::new(Mutex::new(Ending::default()));
    let (pump, stream) = Pump::start(session, socket, Some((channel, Arc::clone(&ending))))?;
    let stream = stream.context("a pump with a channel has a socket for it")?;
    let agent = Agent::new(stream, pump, ending)?;
    if copied {
        verify(&agent, program).with_context(|| format!("{host}: the program that was copied there"))?;
    }
    Ok(agent)
}

/// Starts the agent and awaits its greeting.
fn greet(session: &Session, machine: &Machine, program: &Program) -> anyhow::Result<Channel> {
    let mut words = machine.prefix.clone();
    words.extend([program.path_on(machine), "cp-node".to_owned(), "agent".to_owned()]);
    if machine.clock_offset_s != 0.0 {
        words.push(format!("--clock-offset-s={}", machine.clock_offset_s));
    }
    let mut channel = session.channel_session()?;
    channel.exec(&quote::line(&words))?;
    match wire::await_greeting(&mut channel, BABBLE) {
        Ok(()) => Ok(channel),
        Err(err) => {
            let (errors, status) = finish(&mut channel);
            bail!("{err}; it says `{errors}`, exit status {status}")
        }
    }
}

/// Whether there is an executable file.
fn is_there(session: &Session, path: &str) -> anyhow::Result<bool> {
    let mut channel = session.channel_session()?;
    channel.exec(&quote::line(["test", "-x", path]))?;
    Ok(finish(&mut channel).1 == 0)
}

/// Copies the program.
fn copy(session: &Session, machine: &Machine, program: &Program) -> anyhow::Result<()> {
    let size = program.size_bytes.to_string();
    let mut channel = session.channel_session()?;
    channel.exec(&quote::line(["sh", "-c", COPY, "sh", &machine.directory, &program.name(), &size]))?;
    let mut file = File::open(&program.path)?;
    let mut buffer = vec![0; 1 << 18];
    let sent = loop {
        match file.read(&mut buffer)? {
            0 => break Ok(()),
            // It may have ended with a message that says more than the broken stream does.
            len => match channel.write_all(&buffer[..len]) {
                Ok(()) => {}
                Err(err) => break Err(err),
            },
        }
    };
    let sent = sent.and_then(|()| channel.send_eof().map_err(io::Error::from));
    match finish(&mut channel) {
        (_, 0) => Ok(sent?),
        (errors, status) => bail!("{errors} (exit status {status})"),
    }
}

/// What a command says on standard error, and its exit status.
fn finish(channel: &mut Channel) -> (String, i32) {
    let mut errors = Vec::new();
    let _ = channel.send_eof();
    let _ = channel.stderr().take(4096).read_to_end(&mut errors);
    let _ = channel.wait_eof().and_then(|()| channel.close()).and_then(|()| channel.wait_close());
    (String::from_utf8_lossy(&errors).trim().to_owned(), channel.exit_status().unwrap_or(-1))
}

/// The agent is the program that was copied: what it reads in its own file is what is in ours.
fn verify(agent: &Agent, program: &Program) -> anyhow::Result<()> {
    let News::Sent { sha256, .. } = agent.ask(&Order::Hash { path: String::new() }, HASHING)? else {
        bail!("an answer to something else has come");
    };
    if sha256 != program.sha256 {
        bail!("has SHA-256 {sha256}, not {}: remove it there, and try again", program.sha256);
    }
    Ok(())
}
