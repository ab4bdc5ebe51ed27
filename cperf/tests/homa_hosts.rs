//! What hosts need to run, which address they have, and what they make of sends that fail and of servers that are
//! killed, on real packets.

mod veth;

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cperf::sys;
use cperf::testbed::Testbed;
use cperf::testbed::netns::Netns;
use homa_stack::driver::{Host, HostConfig, OpenError, Sockets};
use homa_stack::{Config, Event, Nanos, Payload, RpcError};
use veth::{bytes_of, message, on};

const PORT: u16 = 4000;

fn main() -> ExitCode {
    veth::run(
        2,
        &[
            ("a_host_needs_cap_net_raw_and_no_more", net_raw_alone),
            ("a_host_without_privileges_works_with_sockets_opened_by_another", sockets_of_another),
            ("calls_to_a_server_that_is_killed_end_with_an_error", server_is_killed),
            ("a_host_keeps_to_the_address_that_it_was_told", address_is_kept),
            ("sends_that_the_system_refuses_are_counted_and_made_up_for", sends_are_refused),
            ("packets_to_an_address_that_has_changed_are_kept_from_the_kernel", new_address),
        ],
    )
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// Runs `ip` with `words` on `node`.
fn ip(net: &Netns, node: usize, words: &str) -> Result<(), String> {
    on(net, node, || {
        let status = Command::new("ip").args(words.split_whitespace()).status();
        let status = status.map_err(|e| format!("starting ip (package iproute2): {e}"))?;
        if status.success() { Ok(()) } else { Err(format!("ip {words}: {status}")) }
    })
}

/// Does `client` on node 0 while a host that `open` makes on node 1 answers each request with its own bytes.
fn with_server<T: Send>(
    net: &Netns,
    open: impl FnOnce() -> Result<Host, String> + Send,
    client: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, String> {
    let (ready, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (ready, stop) = (&ready, &stop);
        let server = scope.spawn(move || {
            let result = on(net, 1, || {
                let mut host = open()?;
                host.core().bind(PORT).map_err(text)?;
                ready.store(true, Ordering::Release);
                while !stop.load(Ordering::Acquire) {
                    host.turn().map_err(text)?;
                    while let Some(event) = host.core().poll_event() {
                        let Event::Request { rpc, msg, .. } = event else { return Err(format!("{event:?}")) };
                        let (now, bytes) = (host.now(), bytes_of(&mut host, msg));
                        host.core().reply(now, rpc, Payload::from(bytes)).map_err(text)?;
                    }
                    let soon = host.now() + Nanos::from_millis(1);
                    host.wait(Some(soon)).map_err(text)?;
                }
                Ok(())
            });
            ready.store(true, Ordering::Release);
            result
        });
        while !ready.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let result = if server.is_finished() { Err("the server did not start".to_owned()) } else { on(net, 0, client) };
        stop.store(true, Ordering::Release);
        server.join().map_err(|_| "the server panicked".to_owned())??;
        result
    })
}

/// Calls `peer` with `len` bytes and looks at the answer.
fn echo(host: &mut Host, peer: IpAddr, cookie: u64, len: usize) -> Result<(), String> {
    if cookie <= 1 {
        host.resolve(peer, Duration::from_secs(2)).map_err(text)?;
    }
    let port = host.core().client_port().map_err(text)?;
    let now = host.now();
    let payload = Payload::from(message(cookie, len));
    host.core().call(now, port, SocketAddr::new(peer, PORT), payload, cookie).map_err(text)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        host.turn().map_err(text)?;
        if let Some(event) = host.core().poll_event() {
            let Event::Response { msg, .. } = event else { return Err(format!("{event:?}")) };
            host.core().unbind(port);
            let right = bytes_of(host, msg) == message(cookie, len);
            return if right { Ok(()) } else { Err(format!("answer {cookie} is damaged")) };
        }
        let soon = host.now() + Nanos::from_millis(1);
        host.wait(Some(soon)).map_err(text)?;
    }
    Err("no answer in 10 s".to_owned())
}

fn open() -> Result<Host, String> {
    Host::open(HostConfig::default()).map_err(text)
}

const CAP_NET_RAW: u64 = 1 << 13;

fn net_raw_alone(net: &Netns) -> Result<(), String> {
    let poor = || {
        sys::keep_capabilities(CAP_NET_RAW).map_err(text)?;
        match sys::effective_capabilities() {
            Some(CAP_NET_RAW) => open(),
            other => Err(format!("capabilities left: {other:?}")),
        }
    };
    let server = net.address(1);
    with_server(net, poor, || {
        let mut host = poor()?;
        [100, 50_000, 1_000_000].iter().try_for_each(|len| echo(&mut host, server, 1, *len))
    })
}

fn sockets_of_another(net: &Netns) -> Result<(), String> {
    let by_descriptors = || {
        let fds = Sockets::open().map_err(text)?.into_fds();
        sys::drop_capabilities().map_err(text)?;
        match Host::open(HostConfig::default()) {
            Err(OpenError::Capability { .. }) => {}
            other => return Err(format!("a host opened without privileges: {other:?}")),
        }
        let sockets = Sockets::from_fds(fds).map_err(text)?;
        Host::open_with(HostConfig::default(), sockets).map_err(text)
    };
    let server = net.address(1);
    with_server(net, by_descriptors, || {
        let mut host = by_descriptors()?;
        [100, 50_000, 1_000_000].iter().try_for_each(|len| echo(&mut host, server, 1, *len))
    })
}

/// Its process is killed while requests and responses are on their way; the kernel, which knows nothing of Homa, takes
/// over.
fn server_is_killed(net: &Netns) -> Result<(), String> {
    let mut child = on(net, 1, || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cperf"));
        command.args(["cp-node", "probe", "server", "--transport", "homa", "--port", "4000"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(|e| format!("starting cperf: {e}"))
    })?;
    let server = net.address(1);
    let result = on(net, 0, || {
        let mut host = open()?;
        let began = Instant::now();
        // It answers with the first bytes of the request and others of its own.
        while echo(&mut host, server, 1, 100).is_err_and(|error| !error.contains("damaged")) {
            if began.elapsed() > Duration::from_secs(20) {
                return Err("the server did not start".to_owned());
            }
        }
        let port = host.core().client_port().map_err(text)?;
        for cookie in 0..8 {
            let now = host.now();
            let payload = Payload::from(message(cookie, 1_000_000));
            host.core().call(now, port, SocketAddr::new(server, PORT), payload, cookie).map_err(text)?;
        }
        while host.core().metrics.client_request_bytes_done < 1_000_000 {
            host.turn().map_err(text)?;
        }
        child.kill().and_then(|()| child.wait().map(drop)).map_err(text)?;
        let (killed, mut errors) = (Instant::now(), Vec::new());
        let mut ended = 0;
        while ended < 8 {
            host.turn().map_err(text)?;
            while let Some(event) = host.core().poll_event() {
                ended += 1;
                match event {
                    Event::Response { msg, .. } => host.core().release(msg),
                    Event::Failed { error, peer, .. } if peer == SocketAddr::new(server, PORT) => errors.push(error),
                    other => return Err(format!("{other:?}")),
                }
            }
            if killed.elapsed() > Duration::from_secs(5) {
                return Err(format!("{ended} of 8 calls have ended 5 s later"));
            }
            let soon = host.now() + Nanos::from_millis(1);
            host.wait(Some(soon)).map_err(text)?;
        }
        println!("    {:?} later: {errors:?}", killed.elapsed());
        use RpcError::{PortUnreachable, ProtocolUnreachable, TimedOut};
        let right = |error: &RpcError| matches!(error, PortUnreachable | ProtocolUnreachable | TimedOut);
        if !errors.is_empty() && errors.iter().all(right) { Ok(()) } else { Err(format!("{errors:?}")) }
    });
    _ = child.kill();
    _ = child.wait();
    result
}

/// Each node has two addresses on one interface.
fn address_is_kept(net: &Netns) -> Result<(), String> {
    let second = |node: usize| match net.address(node) {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() + 100).into()),
        IpAddr::V6(_) => unreachable!("the nodes have addresses of IPv4"),
    };
    for node in 0..2 {
        ip(net, node, &format!("addr add {}/24 dev {}", second(node), net.interface(node)))?;
    }
    let told = |address| HostConfig { address: Some(address), ..HostConfig::default() };
    let result = with_server(
        net,
        || Host::open(told(second(1))).map_err(text),
        || {
            let mut host = Host::open(told(second(0))).map_err(text)?;
            if host.addr() != second(0) {
                return Err(format!("the host is {}", host.addr()));
            }
            echo(&mut host, second(1), 1, 100_000)?;
            // The kernel prefers another source now; the host does not.
            ip(net, 0, &format!("route replace {} dev {} src {}", second(1), net.interface(0), net.address(0)))?;
            for cookie in 2..50 {
                echo(&mut host, second(1), cookie, 20_000)?;
            }
            let other = net.address(1);
            let elsewhere = Host::open(told(other)).map_err(text);
            match elsewhere {
                Err(error) if error.contains(&other.to_string()) && error.contains(&second(0).to_string()) => Ok(()),
                other => Err(format!("with the address of another host: {other:?}")),
            }
        },
    );
    for node in 0..2 {
        ip(net, node, &format!("addr del {}/24 dev {}", second(node), net.interface(node)))?;
    }
    result
}

/// The link goes down under a host that sends all the time: what the system then refuses before the host knows is
/// counted, and comes later.
fn sends_are_refused(net: &Netns) -> Result<(), String> {
    let patient = || {
        let homa = Config { timeout_ticks: 8_000, ..Config::default() };
        Host::open(HostConfig { homa, ..HostConfig::default() }).map_err(text)
    };
    let server = net.address(1);
    with_server(net, patient, || {
        let mut host = patient()?;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stop = &stop;
            let switch = scope.spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    for way in ["down", "up"] {
                        ip(net, 0, &format!("link set dev {} {way}", net.interface(0)))?;
                        std::thread::sleep(Duration::from_millis(30));
                    }
                }
                Ok::<_, String>(())
            });
            let began = Instant::now();
            let mut result = Ok(());
            for cookie in 1.. {
                let errors = host.core().metrics.data_xmit_errors + host.core().metrics.control_xmit_errors;
                if result.is_err() || errors > 0 || began.elapsed() > Duration::from_secs(20) {
                    println!("    {errors} sends refused in {cookie} calls");
                    break;
                }
                result = echo(&mut host, server, cookie, 1_000_000);
            }
            stop.store(true, Ordering::Release);
            switch.join().map_err(|_| "the switch panicked".to_owned())??;
            result?;
            let metrics = &host.core().metrics;
            if metrics.data_xmit_errors + metrics.control_xmit_errors == 0 {
                return Err("nothing was refused in 20 s".to_owned());
            }
            // On the same slots.
            echo(&mut host, server, 0, 1_000_000)
        })
    })
}

/// IP packets that the kernel's own code has received on this thread's node.
fn received_by_kernel() -> Result<u64, String> {
    let snmp = std::fs::read_to_string("/proc/thread-self/net/snmp").map_err(text)?;
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Ip: ")).map(str::split_whitespace);
    let (names, mut values) = lines.next().zip(lines.next()).ok_or("no line `Ip:`")?;
    let at = names.into_iter().position(|name| name == "InReceives").ok_or("no `InReceives`")?;
    values.nth(at).and_then(|n| n.parse().ok()).ok_or_else(|| "no number".to_owned())
}

fn new_address(net: &Netns) -> Result<(), String> {
    let IpAddr::V4(old) = net.address(0) else { return Err("no address of IPv4".to_owned()) };
    let new = IpAddr::V4((old.to_bits() + 50).into());
    let server = net.address(1);
    let result = with_server(net, open, || {
        let mut host = open()?;
        if !host.device().contains("kept from the kernel") {
            println!("    not shown: programs on interfaces need more privileges");
            return Ok(());
        }
        let kernels_share = |host: &mut Host| {
            echo(host, server, 1, 100)?;
            let before = received_by_kernel()?;
            (2..102).try_for_each(|cookie| echo(host, server, cookie, 100))?;
            received_by_kernel().map(|after| after - before)
        };
        let at_first = kernels_share(&mut host)?;
        ip(net, 0, &format!("addr add {new}/24 dev {}", net.interface(0)))?;
        ip(net, 0, &format!("addr del {old}/24 dev {}", net.interface(0)))?;
        // The kernel takes the second address away with the first of its subnet, unless told otherwise.
        _ = ip(net, 0, &format!("addr add {new}/24 dev {}", net.interface(0)));
        let began = Instant::now();
        while host.addr() != new && began.elapsed() < Duration::from_secs(5) {
            host.turn().map_err(text)?;
            std::thread::sleep(Duration::from_millis(2));
        }
        let then = kernels_share(&mut host)?;
        println!("    of 100 answers and more, the kernel looked at {at_first}, then at {then}");
        if host.addr() == new && at_first < 50 && then < 50 { Ok(()) } else { Err(format!("now {}", host.addr())) }
    });
    _ = ip(net, 0, &format!("addr del {new}/24 dev {}", net.interface(0)));
    _ = ip(net, 0, &format!("addr add {old}/24 dev {}", net.interface(0)));
    result
}
