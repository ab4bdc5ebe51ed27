//! Tests on real packets between network namespaces: a `main` for them, and hosts as threads.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::net::{IpAddr, Ipv6Addr};
use std::process::ExitCode;

use cperf::netlink::Netlink;
use cperf::sys;
use cperf::testbed::Testbed;
use cperf::testbed::netns::{Netns, Topology};
use homa_stack::driver::Host;

pub type Check = fn(&Netns) -> Result<(), String>;

/// Runs the checks whose names contain the first argument, on `nodes` hosts with a bridge between them.
///
/// A user namespace, for those who are not root, must be entered while the process has one thread: such tests have a
/// `main` of their own.
pub fn run(nodes: usize, checks: &[(&str, Check)]) -> ExitCode {
    match Netns::build(nodes, Topology::Bridge, 1500) {
        Ok(net) => run_each(checks, |(name, _)| name, |(_, check)| check(&net)),
        Err(error) => {
            eprintln!("cannot build {nodes} hosts: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does `run` with each of `checks` whose name contains the first argument, and says what came of it as the usual
/// harness does, whose options are accepted and ignored.
pub fn run_each<C>(checks: &[C], name: fn(&C) -> &str, run: impl Fn(&C) -> Result<(), String>) -> ExitCode {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let chosen: Vec<_> = checks.iter().filter(|check| name(check).contains(&filter)).collect();
    println!("\nrunning {} tests", chosen.len());
    let mut failed = 0;
    for check in &chosen {
        match run(check) {
            Ok(()) => println!("test {} ... ok", name(check)),
            Err(why) => {
                failed += 1;
                println!("test {} ... FAILED\n    {why}", name(check));
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

/// The hosts' addresses of IPv4.
pub fn v4(net: &Netns) -> [IpAddr; 2] {
    [0, 1].map(|node| net.address(node))
}

/// Gives the hosts addresses of IPv6, beside those of IPv4.
pub fn v6(net: &Netns) -> Result<[IpAddr; 2], String> {
    let addrs = [1, 2].map(|n| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n)));
    for (node, addr) in addrs.into_iter().enumerate() {
        on(net, node, || {
            let interface = net.interface(node);
            // Nobody else can have the addresses: no seconds of looking for others before the first packet.
            for name in ["accept_dad", "disable_ipv6"] {
                let setting = format!("/proc/sys/net/ipv6/conf/{interface}/{name}");
                std::fs::write(&setting, "0").map_err(|e| format!("{setting}: {e}"))?;
            }
            let mut netlink = Netlink::open().map_err(|e| e.to_string())?;
            let index = netlink.index(interface).map_err(|e| e.to_string())?;
            match netlink.add_address(index, addr, 64) {
                // By a check before.
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
                result => result.map_err(|e| format!("adding {addr}: {e}")),
            }
        })?;
    }
    Ok(addrs)
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
