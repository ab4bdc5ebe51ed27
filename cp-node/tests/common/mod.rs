//! Driving the program from outside.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part of this module")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// The program under test.
pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cp-node"))
}

/// A node in interactive mode; killed when dropped.
pub struct Node {
    child: Child,
    stdin: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
}

impl Node {
    /// Starts a node and waits for its first prompt.
    pub fn start() -> Self {
        let mut command = program();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        let mut node = Self { child, stdin, output };
        assert_eq!(node.until_prompt(), "");
        node
    }

    /// Runs a command; returns what was printed before the next prompt.
    pub fn run(&mut self, line: &str) -> String {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
        self.until_prompt()
    }

    /// Runs a command that must succeed: it prints nothing.
    pub fn ok(&mut self, line: &str) {
        assert_eq!(self.run(line), "", "{line}");
    }

    /// Ends the node with `exit`; returns its exit code.
    pub fn exit(mut self) -> i32 {
        writeln!(self.stdin.as_mut().unwrap(), "exit").unwrap();
        self.child.wait().unwrap().code().unwrap()
    }

    /// Closes the node's standard input; returns its exit code.
    pub fn end_of_input(mut self) -> i32 {
        self.stdin = None;
        self.child.wait().unwrap().code().unwrap()
    }

    /// Kills the node.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn until_prompt(&mut self) -> String {
        let mut all = Vec::new();
        while !(all == b"% " || all.ends_with(b"\n% ")) {
            let more = self.output.recv_timeout(Duration::from_secs(30));
            all.extend(more.unwrap_or_else(|e| panic!("no prompt ({e}) after {:?}", String::from_utf8_lossy(&all))));
        }
        all.truncate(all.len() - 2);
        String::from_utf8(all).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `done` gives a value; fails the test after 30 s.
pub fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1500 {
        if let Some(value) = done() {
            return value;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{what} has not come true in 30 s");
}

/// A directory that is removed at the end.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("cp-node-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    pub fn show(&self, file: &str) -> String {
        self.path(file).display().to_string()
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The first of `count` consecutive TCP ports that are free now.
pub fn free_ports(count: u16) -> u16 {
    for _ in 0..100 {
        let first = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let last = first.saturating_add(count - 1);
        if last < u16::MAX && (first..=last).all(|p| TcpListener::bind(("0.0.0.0", p)).is_ok()) {
            return first;
        }
    }
    panic!("no {count} consecutive free ports");
}
