//! The node as a child of the agent: its pipes as frames, its end as news, and it never outlives the agent.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::Out;
use super::wire::{Kind, News};

/// How long a killed node may take to be gone: a process that waits for a disk can't be killed at once.
const GONE: Duration = Duration::from_secs(5);

/// A running node.
pub(super) struct Child {
    stdin: ChildStdin,
    pidfd: rustix::fd::OwnedFd,
    /// Told when it is gone.
    gone: Receiver<()>,
    /// Its process id.
    pub(super) pid: u32,
}

impl Child {
    /// Starts this program again with `args` in `dir`; what it writes, and its end, go to `out`.
    ///
    /// # Errors
    /// As starting a process; a core that this process may not use.
    pub(super) fn start(args: Vec<String>, dir: &str, core: Option<usize>, out: &Out) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.args(args).args(["--end-with", &std::process::id().to_string()]).current_dir(dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (tell, told) = mpsc::channel();
        let (gone, is_gone) = mpsc::channel();
        let out = out.clone();
        // The kernel ends a child when the *thread* that made it ends, and a child has the cores of that thread.
        thread::Builder::new().name("node".into()).spawn(move || {
            let mut child = match core.map_or(Ok(()), keep_on).and_then(|()| command.spawn()) {
                Ok(child) => child,
                Err(err) => return drop(tell.send(Err(err))),
            };
            let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
            let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { unreachable!("all three are piped") };
            let pid = child.id();
            let readers = [forward(stdout, Kind::Stdio, &out), forward(stderr, Kind::Stderr, &out)];
            if tell.send(Ok((stdin, pid))).is_err() {
                return;
            }
            let how = child.wait().map_or_else(|err| format!("unknown end ({err})"), describe);
            // Its last words come before its end; a grandchild that holds the pipes must not hold that up.
            let deadline = std::time::Instant::now() + Duration::from_secs(1);
            while readers.iter().flatten().any(|r| !r.is_finished()) && std::time::Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            out.news(0, &News::Ended { how });
            let _ = gone.send(());
        })?;
        let started = told.recv().map_err(|_| io::Error::other("the thread that starts the node has ended"))?;
        let (stdin, pid) = started?;
        let id = Pid::from_raw(pid.cast_signed()).expect("a child has a process id");
        let pidfd = pidfd_open(id, PidfdFlags::empty())?;
        Ok(Self { stdin, pidfd, gone: is_gone, pid })
    }

    /// To its standard input; whether it takes it. (If not it has ended, which is told.)
    pub(super) fn input(&mut self, bytes: &[u8]) {
        let _ = self.stdin.write_all(bytes).and_then(|()| self.stdin.flush());
    }

    /// Kills it and waits until it is gone; false if it isn't in time.
    pub(super) fn kill(self) -> bool {
        // Fails only if it has ended.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        // Disconnected: the thread has ended, which it does after the child only.
        !matches!(self.gone.recv_timeout(GONE), Err(mpsc::RecvTimeoutError::Timeout))
    }
}

/// The calling thread, and what it starts, stays on this core.
fn keep_on(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    if core >= CpuSet::MAX_CPU {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no core {core}")));
    }
    set.set(core);
    sched_setaffinity(None, &set).map_err(|err| io::Error::other(format!("keeping the node on core {core}: {err}")))
}

/// Passes on what comes until it ends.
fn forward(mut from: impl Read + Send + 'static, kind: Kind, out: &Out) -> Option<thread::JoinHandle<()>> {
    let out = out.clone();
    let reader = move || {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(len) => out.bytes(kind, 0, &buffer[..len]),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    };
    thread::Builder::new().name("output".into()).spawn(reader).ok()
}

/// An exit status in words.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(9)) => "signal 9 (SIGKILL: killed, perhaps for lack of memory)".to_owned(),
        (None, Some(11)) => "signal 11 (SIGSEGV)".to_owned(),
        (None, Some(6)) => "signal 6 (SIGABRT)".to_owned(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown end".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_words() {
        assert_eq!(describe(ExitStatus::from_raw(3 << 8)), "exit status 3");
        assert!(describe(ExitStatus::from_raw(9)).contains("SIGKILL"));
        assert_eq!(describe(ExitStatus::from_raw(15)), "signal 15");
    }

    #[test]
    fn a_core_that_there_is_not_is_an_error() {
        let result = thread::spawn(|| keep_on(CpuSet::MAX_CPU)).join().unwrap();
        assert!(result.unwrap_err().to_string().contains("no core"));
    }
}
