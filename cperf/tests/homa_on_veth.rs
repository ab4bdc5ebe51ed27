//! The Homa stack on real packets: two network namespaces with a bridge between them, and `nft` to drop frames there
//! (a receiving host's own netfilter hooks come after the stack's socket, a sending host's are bypassed).
//!
//! Has a `main` of its own: a user namespace, for those who are not root, must be entered while the process has one
//! thread, and threads then play the hosts.

mod veth;

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cperf::sys;
use cperf::testbed::Testbed;
use cperf::testbed::netns::Netns;
use homa_stack::api::{Runner, RunnerConfig};
use homa_stack::driver::{Framing, Host, HostConfig, OpenError};
use homa_stack::metrics::DropReason;
use homa_stack::{Event, Payload, RpcError};
use veth::{Check, bytes_of, message, on, v4, v6};

const PORT: u16 = 4000;
const LENGTHS: [usize; 7] = [1, 1424, 1425, 40_000, 40_001, 65_536, 1_000_000];

use Framing::{Hijack, Native};

const CHECKS: [(&str, Check); 14] = [
    ("messages_of_all_lengths_cross_both_ways", |net| lengths_cross(net, 0, &v4(net), [Native; 2])),
    ("messages_of_all_lengths_cross_with_one_frame_in_a_hundred_lost", |net| {
        lengths_cross(net, 1, &v4(net), [Native; 2])
    }),
    ("messages_of_all_lengths_cross_with_one_frame_in_ten_lost", |net| lengths_cross(net, 10, &v4(net), [Native; 2])),
    ("messages_of_all_lengths_cross_over_ipv6", |net| lengths_cross(net, 0, &v6(net)?, [Native; 2])),
    ("messages_of_all_lengths_cross_hijacked", |net| lengths_cross(net, 0, &v4(net), [Hijack; 2])),
    ("messages_of_all_lengths_cross_hijacked_with_one_frame_in_ten_lost", |net| {
        lengths_cross(net, 10, &v4(net), [Hijack; 2])
    }),
    ("messages_of_all_lengths_cross_hijacked_over_ipv6", |net| lengths_cross(net, 0, &v6(net)?, [Hijack; 2])),
    ("messages_of_all_lengths_cross_hijacked_one_way_and_native_the_other", |net| {
        lengths_cross(net, 0, &v4(net), [Hijack, Native])
    }),
    ("genuine_tcp_works_beside_hijacked_homa_and_neither_resets_the_other", tcp_beside_homa),
    ("a_port_that_nobody_serves_is_refused_at_once", |net| refused(net, v4(net)).and(refused(net, v6(net)?))),
    ("the_kernel_of_a_host_that_runs_the_stack_sends_no_icmp_unreachable", no_icmp_leaves),
    ("threads_call_and_serve_through_handles_and_read_early", handles_over),
    ("a_missing_interface_is_named_and_so_are_those_that_exist", missing_interface),
    ("a_missing_capability_is_named", missing_capability),
];

fn main() -> ExitCode {
    veth::run(2, &CHECKS)
}

/// Drops `percent` of the Homa frames that both hosts send, at the bridge's ports, until [`pass_all`].
fn drop_frames(percent: u32) -> Result<(), String> {
    let port = |n: u32| {
        format!(
            "add chain netdev lossy port{n} {{ type filter hook ingress device port{n} priority 0; }}\n\
             add rule netdev lossy port{n} ip protocol {{ 6, 146 }} numgen random mod 100 < {percent} counter drop\n"
        )
    };
    nft(&format!("add table netdev lossy\n{}{}", port(0), port(1)))
}

fn pass_all() -> Result<(), String> {
    nft("delete table netdev lossy\n")
}

fn nft(rules: &str) -> Result<(), String> {
    let said = |what: &str, e: std::io::Error| format!("{what} nft (package nftables): {e}");
    let mut child =
        Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().map_err(|e| said("starting", e))?;
    let mut input = child.stdin.take().ok_or("nft has no standard input")?;
    input.write_all(rules.as_bytes()).map_err(|e| said("writing to", e))?;
    drop(input);
    let status = child.wait().map_err(|e| said("waiting for", e))?;
    if status.success() { Ok(()) } else { Err(format!("nft refused `{rules}`: {status}")) }
}

fn open() -> Result<Host, String> {
    open_framed(Native)
}

fn open_framed(framing: Framing) -> Result<Host, String> {
    Host::open(HostConfig { framing, ..HostConfig::default() }).map_err(|e| e.to_string())
}

/// Both hosts are client and server of each other, with each length several times.
fn lengths_cross(net: &Netns, percent: u32, addrs: &[IpAddr; 2], framing: [Framing; 2]) -> Result<(), String> {
    if percent > 0 {
        drop_frames(percent)?;
    }
    let finished = [AtomicBool::new(false), AtomicBool::new(false)];
    let results = std::thread::scope(|scope| {
        let finished = &finished;
        let threads = [0, 1].map(|node| {
            scope.spawn(move || {
                sys::enter(net.namespace(node)).map_err(|e| format!("entering node {node}: {e}"))?;
                both_ways(addrs[1 - node], node, framing[node], percent, finished)
            })
        });
        threads.map(|thread| thread.join().unwrap_or_else(|_| Err("a host panicked".to_owned())))
    });
    if percent > 0 {
        pass_all()?;
    }
    let executed = [results[0].clone()?, results[1].clone()?];
    let calls = (LENGTHS.len() * ROUNDS) as u64;
    for (node, runs) in executed.iter().enumerate() {
        if runs.len() as u64 != calls || runs.values().any(|times| *times != 1) {
            let odd: Vec<_> = runs.iter().filter(|(_, times)| **times != 1).collect();
            return Err(format!("node {node} ran {} of {calls} calls; not once: {odd:?}", runs.len()));
        }
    }
    Ok(())
}

const ROUNDS: usize = 4;

/// Calls the other host with each length and answers its calls; returns how often each call ran here.
fn both_ways(
    peer: IpAddr,
    node: usize,
    framing: Framing,
    percent: u32,
    finished: &[AtomicBool; 2],
) -> Result<HashMap<(usize, u64), u32>, String> {
    let mut host = open_framed(framing)?;
    host.core().bind(PORT).map_err(|e| e.to_string())?;
    host.resolve(peer, Duration::from_secs(2)).map_err(|e| e.to_string())?;
    let port = host.core().client_port().map_err(|e| e.to_string())?;
    let mut open_calls = HashMap::new();
    for call in 0..(LENGTHS.len() * ROUNDS) as u64 {
        let len = LENGTHS[call as usize % LENGTHS.len()];
        let (now, to) = (host.now(), SocketAddr::new(peer, PORT));
        host.core().call(now, port, to, Payload::from(message(call, len)), call).map_err(|e| e.to_string())?;
        open_calls.insert(call, len);
    }
    let mut runs = HashMap::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    // A host that is done goes on answering until the other is done too.
    while !(open_calls.is_empty() && finished[1 - node].load(Ordering::Acquire)) {
        host.turn().map_err(|e| e.to_string())?;
        while let Some(event) = host.core().poll_event() {
            match event {
                Event::Request { rpc, msg, .. } => {
                    let bytes = bytes_of(&mut host, msg);
                    // Calls of one byte share it; their lengths tell them from the others.
                    let call = bytes.iter().take(8).rev().fold(0, |n, b| n << 8 | u64::from(*b));
                    if bytes != message(call, bytes.len()) {
                        return Err(format!("node {node}: request {call} of {} bytes is damaged", bytes.len()));
                    }
                    *runs.entry((bytes.len(), call)).or_default() += 1;
                    let now = host.now();
                    host.core().reply(now, rpc, Payload::from(bytes)).map_err(|e| e.to_string())?;
                }
                Event::Response { cookie, msg, .. } => {
                    let bytes = bytes_of(&mut host, msg);
                    match open_calls.remove(&cookie) {
                        Some(len) if bytes == message(cookie, len) => {}
                        Some(len) => return Err(format!("node {node}: response {cookie} of {len} bytes is damaged")),
                        None => return Err(format!("node {node}: call {cookie} was answered twice")),
                    }
                }
                Event::Failed { cookie, peer, error, .. } => {
                    return Err(format!("node {node}: call {cookie} to {peer}: {error}"));
                }
                Event::Room(limit) => return Err(format!("node {node}: room for {limit:?}, but no call was refused")),
            }
        }
        if open_calls.is_empty() {
            finished[node].store(true, Ordering::Release);
        }
        if Instant::now() > deadline {
            return Err(format!("node {node}: {} calls unanswered after 60 s", open_calls.len()));
        }
        let soon = host.now() + homa_stack::Nanos::from_millis(1);
        host.wait(Some(soon)).map_err(|e| e.to_string())?;
    }
    let metrics = &host.core().metrics;
    if percent > 0 && metrics.resent_packets == 0 {
        return Err(format!("node {node}: {percent} % of the frames were to be lost, but none was sent again"));
    }
    let broken = [DropReason::Malformed, DropReason::BadIp, DropReason::Truncated];
    if broken.iter().any(|reason| metrics.drops(*reason) > 0) {
        return Err(format!("node {node}: malformed packets: {:?}", metrics.drops));
    }
    Ok(runs)
}

/// Messages cross hijacked while a TCP connection between the same hosts carries bytes both ways.
fn tcp_beside_homa(net: &Netns) -> Result<(), String> {
    let addrs = v4(net);
    let resets = |node| on(net, node, || counter("Tcp:", "OutRsts"));
    let before = [resets(0)?, resets(1)?];
    let over = AtomicBool::new(false);
    let carried = std::thread::scope(|scope| {
        let over = &over;
        let listener = on(net, 1, || TcpListener::bind((addrs[1], PORT)).map_err(|e| format!("listening: {e}")))?;
        let echo = scope.spawn(move || -> std::io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut reader = stream.try_clone()?;
            std::io::copy(&mut reader, &mut stream).map(drop)
        });
        let client = scope.spawn(move || {
            sys::enter(net.namespace(0)).map_err(|e| format!("entering node 0: {e}"))?;
            let mut stream = TcpStream::connect((addrs[1], PORT)).map_err(|e| format!("connecting: {e}"))?;
            stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(|e| e.to_string())?;
            let (mut carried, mut back) = (0_u64, vec![0; 30_000]);
            while !over.load(Ordering::Acquire) || carried < 1_000_000 {
                let sent = message(carried, back.len());
                stream.write_all(&sent).map_err(|e| format!("writing after {carried} bytes: {e}"))?;
                stream.read_exact(&mut back).map_err(|e| format!("reading after {carried} bytes: {e}"))?;
                if back != sent {
                    return Err(format!("TCP brought back other bytes after {carried}"));
                }
                carried += back.len() as u64;
            }
            Ok(carried)
        });
        let crossed = lengths_cross(net, 0, &addrs, [Hijack; 2]);
        over.store(true, Ordering::Release);
        let carried = client.join().map_err(|_| "the TCP client panicked")?;
        echo.join().map_err(|_| "the TCP server panicked")?.map_err(|e| format!("TCP server: {e}"))?;
        crossed.and(carried)
    })?;
    let after = [resets(0)?, resets(1)?];
    match after == before {
        true => Ok(()),
        false => Err(format!("resets sent by the kernels grew from {before:?} to {after:?}, {carried} bytes by TCP")),
    }
}

/// A call to a port that nobody serves fails with the reason, long before the server would be given up; one to a port
/// that is served goes on.
fn refused(net: &Netns, addrs: [IpAddr; 2]) -> Result<(), String> {
    for framing in [Native, Hijack] {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                on(net, 1, || {
                    let mut host = open_framed(framing)?;
                    while !over.load(Ordering::Acquire) {
                        host.turn().map_err(|e| e.to_string())?;
                        let soon = host.now() + homa_stack::Nanos::from_millis(1);
                        host.wait(Some(soon)).map_err(|e| e.to_string())?;
                    }
                    Ok(host.core().metrics.refusals_sent)
                })
            });
            let failed = on(net, 0, || call_refused(addrs[1], framing));
            over.store(true, Ordering::Release);
            let sent = server.join().map_err(|_| "the server panicked")??;
            failed?;
            if sent == 0 { Err("the call failed without a refusal".to_owned()) } else { Ok(()) }
        })?;
    }
    Ok(())
}

fn call_refused(server: IpAddr, framing: Framing) -> Result<(), String> {
    let mut host = open_framed(framing)?;
    host.resolve(server, Duration::from_secs(2)).map_err(|e| e.to_string())?;
    let port = host.core().client_port().map_err(|e| e.to_string())?;
    let (now, to) = (host.now(), SocketAddr::new(server, PORT));
    // The server may not have opened yet: the kernel there then has no answer, and the call times out.
    for _ in 0..50 {
        host.core().call(now, port, to, Payload::from(vec![7; 100]), 7).map_err(|e| e.to_string())?;
        let error = loop {
            host.turn().map_err(|e| e.to_string())?;
            match host.core().poll_event() {
                Some(Event::Failed { cookie: 7, peer, error, .. }) if peer == to => break error,
                Some(other) => return Err(format!("expected a failure of the call to {to}, found {other:?}")),
                None => host.wait(None).map_err(|e| e.to_string())?,
            }
        };
        match error {
            RpcError::PortUnreachable => return Ok(()),
            RpcError::TimedOut | RpcError::ProtocolUnreachable => {}
            other => return Err(format!("the call to {to} failed otherwise: {other}")),
        }
    }
    Err(format!("calls to {to} are not refused"))
}

/// A batch of calls to a server of two threads, and requests that are read while they arrive; each host run by a thread
/// of its own.
fn handles_over(net: &Netns) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let start = |node| on(net, node, || Runner::spawn(open()?, RunnerConfig::default()).map_err(|e| text(&e)));
    let (here, there) = (start(0)?, start(1)?);
    let to = |port| SocketAddr::new(net.address(1), port);
    let (server, early) = (there.bind(PORT).map_err(|e| text(&e))?, there.bind_early(PORT + 1).map_err(|e| text(&e))?);
    let serving: Vec<_> = (0..2)
        .map(|_| {
            let server = server.clone();
            std::thread::spawn(move || {
                while let Ok(request) = server.recv() {
                    let _ = request.reply.send(request.body);
                }
            })
        })
        .collect();
    let reading = std::thread::spawn(move || -> Result<Vec<u8>, String> {
        let mut incoming = early.recv().map_err(|e| e.to_string())?;
        let mut bytes = Vec::new();
        incoming.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        incoming.finish().map_err(|e| e.to_string())?.reply.send("read").map_err(|e| e.to_string())?;
        Ok(bytes)
    });

    let client = here.client().map_err(|e| text(&e))?;
    let mut batch = client.batch(8);
    let call = |i: usize| (to(PORT), Payload::from(message(i as u64, LENGTHS[i % LENGTHS.len()])), i as u64);
    let mut calls = (0..LENGTHS.len() * ROUNDS).map(call);
    batch.submit_all(calls.by_ref()).map_err(|e| text(&e))?;
    let mut done = HashSet::new();
    while let Some(end) = batch.next() {
        let body = end.result.map_err(|e| text(&e))?;
        if body != message(end.cookie, LENGTHS[end.cookie as usize % LENGTHS.len()]) || !done.insert(end.cookie) {
            return Err(format!("response {} is damaged or came twice", end.cookie));
        }
        batch.submit_all(calls.by_ref()).map_err(|e| text(&e))?;
    }
    let answer = client.call(to(PORT + 1), message(5, 1_000_000)).map_err(|e| text(&e))?;
    let read = reading.join().map_err(|_| "the reader panicked")??;
    if answer != "read" || read != message(5, 1_000_000) || done.len() != LENGTHS.len() * ROUNDS {
        return Err(format!("{} calls were answered, {} bytes were read early", done.len(), read.len()));
    }
    there.shutdown().map_err(|e| text(&e))?;
    serving.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a server panicked".to_owned()))
}

/// First without the stack, to see that the kernel would answer; then with it.
fn no_icmp_leaves(net: &Netns) -> Result<(), String> {
    let without = unreachables(net, false)?;
    let with = unreachables(net, true)?;
    if without == 0 {
        return Err("the kernel answered no packet of protocol 146 even without the stack: nothing was tested".into());
    }
    if with > 0 {
        return Err(format!("{with} ICMP packets left the host that runs the stack"));
    }
    Ok(())
}

/// Sends packets of protocol 146 to node 1, which runs the stack or not; returns how many ICMP packets node 1 sent.
fn unreachables(net: &Netns, with_stack: bool) -> Result<u64, String> {
    on(net, 1, || {
        let mut host = if with_stack { Some(open()?) } else { None };
        let before = icmp_sent()?;
        on(net, 0, || {
            let mut client = open()?;
            client.resolve(net.address(1), Duration::from_secs(2)).map_err(|e| e.to_string())?;
            let port = client.core().client_port().map_err(|e| e.to_string())?;
            for _ in 0..20 {
                // Nobody serves the port: it is for the stack, not the kernel, to say so.
                let (now, to) = (client.now(), SocketAddr::new(net.address(1), PORT));
                client.core().call(now, port, to, Payload::from(vec![7; 100]), 0).map_err(|e| e.to_string())?;
                client.turn().map_err(|e| e.to_string())?;
                // The kernel limits ICMP errors to some a second and host.
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        })?;
        if let Some(host) = &mut host {
            host.turn().map_err(|e| e.to_string())?;
            let arrived = host.core().metrics.drops(DropReason::UnknownPort);
            if arrived == 0 {
                return Err("no packet arrived: nothing was tested".to_owned());
            }
        }
        Ok(icmp_sent()? - before)
    })
}

/// ICMP errors that the kernel of this thread's node has sent.
fn icmp_sent() -> Result<u64, String> {
    counter("Icmp:", "OutDestUnreachs")
}

/// A counter of the kernel of this thread's node.
fn counter(group: &str, name: &str) -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").map_err(|e| format!("/proc/net/snmp: {e}"))?;
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let column = names.split_whitespace().position(|column| column == name);
    let value = column.and_then(|at| values.split_whitespace().nth(at));
    value.and_then(|v| v.parse().ok()).ok_or_else(|| format!("no {group} {name} in /proc/net/snmp"))
}

fn missing_interface(net: &Netns) -> Result<(), String> {
    on(net, 0, || {
        let config = HostConfig { interface: Some("eth7".to_owned()), ..HostConfig::default() };
        match Host::open(config) {
            Err(error @ OpenError::NoSuchInterface { .. }) => {
                let text = error.to_string();
                let named: HashSet<&str> = ["eth7", "veth0", "lo"].into_iter().filter(|n| text.contains(n)).collect();
                if named.len() == 3 { Ok(()) } else { Err(format!("only {named:?} named in: {text}")) }
            }
            other => Err(format!("expected NoSuchInterface, found {other:?}")),
        }
    })
}

/// A thread that gives up its capabilities in the namespace is told which one it lacks.
fn missing_capability(net: &Netns) -> Result<(), String> {
    on(net, 0, || {
        // A sign that only the capability is missing afterwards.
        open()?;
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(|e| e.to_string())?;
        sys::drop_capabilities().map_err(|e| format!("giving up capabilities: {e}"))?;
        match open() {
            Ok(_) => Err("opened without any capability".to_owned()),
            Err(text) if text.contains("CAP_NET_RAW") && text.contains("raw socket") => Ok(()),
            Err(text) => Err(format!("neither CAP_NET_RAW nor the socket in: {text}")),
        }
    })
}
