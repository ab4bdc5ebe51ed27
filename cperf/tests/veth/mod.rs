//! Tests on real packets between network namespaces: a `main` for them, and hosts as threads.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::process::ExitCode;

use cperf::sys;
use cperf::testbed::netns::{Netns, Topology};
use homa_stack::driver::Host;

pub type Check = fn(&Netns) -> Result<(), String>;

/// Runs the checks whose names contain the first argument, on `nodes` hosts with a bridge between them.
///
/// A user namespace, for those who are not root, must be entered while the process has one thread: such tests have a
/// `main` of their own.
pub fn run(nodes: usize, checks: &[(&str, Check)]) -> ExitCode {
    // Options of the usual harness are accepted and ignored.
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let net = match Netns::build(nodes, Topology::Bridge, 1500) {
        Ok(net) => net,
        Err(error) => {
            eprintln!("cannot build {nodes} hosts: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let chosen: Vec<_> = checks.iter().filter(|(name, _)| name.contains(&filter)).collect();
    println!("\nrunning {} tests", chosen.len());
    let mut failed = 0;
    for (name, check) in &chosen {
        match check(&net) {
            Ok(()) => println!("test {name} ... ok"),
            Err(why) => {
                failed += 1;
                println!("test {name} ... FAILED\n    {why}");
            }
        }
    }
    let (verdict, passed) = (if failed == 0 { "ok" } else { "FAILED" }, chosen.len() - failed);
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs `host` in a thread on node `node`.
pub fn on<T: Send>(net: &Netns, node: usize, host: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            sys::enter(net.namespace(node)).map_err(|e| format!("entering node {node}: {e}"))?;
            host()
        });
        thread.join().map_err(|_| format!("node {node} panicked"))?
    })
}

/// A message that names its call and can be checked.
pub fn message(call: u64, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|i| (i as u64 * 131 + call * 17 + (i as u64 >> 9)) as u8).collect();
    let n = len.min(8);
    bytes[..n].copy_from_slice(&call.to_le_bytes()[..n]);
    bytes
}

/// The call that a message of at least 8 bytes names.
pub fn call_of(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// The bytes of a message, which is given back.
pub fn bytes_of(host: &mut Host, msg: homa_stack::Message) -> Vec<u8> {
    let bytes = host.core().pieces(&msg).collect::<Vec<_>>().concat();
    host.core().release(msg);
    bytes
}
