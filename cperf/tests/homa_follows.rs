//! Neighbours, routes, addresses and links that change under a running RPC, on real packets.
//!
//! Node 2 stands between: it forwards what nodes 0 and 1 send by way of it.

mod veth;

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cperf::sys;
use cperf::testbed::Testbed;
use cperf::testbed::netns::Netns;
use homa_stack::driver::{Host, HostConfig, OpenError, ResolveError, drop_privileges};
use homa_stack::{Config, Event, Nanos, Payload};
use veth::{bytes_of, message, on};

const PORT: u16 = 4000;

fn main() -> ExitCode {
    veth::run(
        3,
        &[
            ("a_peer_whose_mac_address_changes_is_followed", mac_changes),
            ("a_route_that_changes_is_followed", route_changes),
            ("an_address_that_goes_and_comes_back_is_followed", address_goes),
            ("a_link_that_goes_down_and_up_is_followed", link_goes),
            ("packets_fit_an_mtu_that_shrinks", mtu_shrinks),
            ("an_address_of_the_host_itself_is_named_as_such", same_host),
            ("a_host_works_without_the_privileges_it_was_opened_with", without_privileges),
        ],
    )
}

/// Runs `ip` with `words` on this thread's node.
fn ip(words: &str) -> Result<(), String> {
    let status = Command::new("ip").args(words.split_whitespace()).status();
    let status = status.map_err(|e| format!("starting ip (package iproute2): {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("ip {words}: {status}")) }
}

fn config() -> HostConfig {
    // A kernel takes up to a second or so to learn a new MAC address.
    HostConfig { homa: Config { timeout_ticks: 8_000, ..Config::default() }, ..HostConfig::default() }
}

/// Makes `change` while node 0 calls node 1, which takes its time with each call; checks that calls begun before and
/// after it are answered. Returns what a host counted as refreshed routes.
fn during_a_call(
    net: &Netns,
    len: usize,
    change: impl FnOnce() -> Result<(), String> + Send,
) -> Result<[u64; 2], String> {
    during_a_call_of(net, len, change, || Ok(()))
}

/// The same, by hosts that do `prepare` once they are open.
fn during_a_call_of(
    net: &Netns,
    len: usize,
    change: impl FnOnce() -> Result<(), String> + Send,
    prepare: fn() -> Result<(), String>,
) -> Result<[u64; 2], String> {
    let (stop, begun) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (stop, begun) = (&stop, &begun);
        let server = scope.spawn(move || {
            sys::enter(net.namespace(1)).map_err(|e| e.to_string())?;
            let host = Host::open(config()).map_err(|e| e.to_string())?;
            prepare()?;
            serve(host, stop, begun)
        });
        let client = scope.spawn(move || {
            sys::enter(net.namespace(0)).map_err(|e| e.to_string())?;
            let host = Host::open(config()).map_err(|e| e.to_string())?;
            // `change` needs privileges.
            let result = call(host, net.address(1), len, begun, change, prepare);
            stop.store(true, Ordering::Release);
            result
        });
        let client = client.join().map_err(|_| "the client panicked".to_owned())?;
        let server = server.join().map_err(|_| "the server panicked".to_owned())?;
        Ok([client?, server?])
    })
}

/// Calls `peer`, and has `change` made once the call runs there; then calls once more.
fn call(
    mut host: Host,
    peer: IpAddr,
    len: usize,
    begun: &AtomicBool,
    change: impl FnOnce() -> Result<(), String> + Send,
    prepare: fn() -> Result<(), String>,
) -> Result<u64, String> {
    let port = host.core().client_port().map_err(|e| e.to_string())?;
    let deadline = Instant::now() + Duration::from_secs(20);
    let changed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let changed = &changed;
        let changing = scope.spawn(move || {
            while !begun.load(Ordering::Acquire) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            let result = change();
            changed.store(true, Ordering::Release);
            result
        });
        prepare()?;
        host.resolve(peer, Duration::from_secs(2)).map_err(|e| e.to_string())?;
        // The first calls straddle the change, the last comes after it.
        for round in 0..3 {
            for cookie in [round * 2 + 1, round * 2 + 2] {
                let (now, to) = (host.now(), SocketAddr::new(peer, PORT));
                host.core()
                    .call(now, port, to, Payload::from(message(cookie, len)), cookie)
                    .map_err(|e| e.to_string())?;
            }
            let mut open = 2;
            while open > 0 || !changed.load(Ordering::Acquire) {
                host.turn().map_err(|e| e.to_string())?;
                while let Some(event) = host.core().poll_event() {
                    match event {
                        Event::Response { cookie, msg, .. } => {
                            open -= 1;
                            if bytes_of(&mut host, msg) != message(cookie, len) {
                                return Err(format!("response {cookie} is damaged"));
                            }
                        }
                        other => return Err(format!("round {round}: {other:?}")),
                    }
                }
                if Instant::now() > deadline {
                    return Err(format!("round {round}: {open} calls unanswered after 20 s"));
                }
                let soon = host.now() + Nanos::from_millis(1);
                host.wait(Some(soon)).map_err(|e| e.to_string())?;
            }
        }
        changing.join().map_err(|_| "the change panicked".to_owned())??;
        Ok(refreshes(&mut host))
    })
}

/// Answers each call with its own bytes, 300 ms after it came.
fn serve(mut host: Host, stop: &AtomicBool, begun: &AtomicBool) -> Result<u64, String> {
    host.core().bind(PORT).map_err(|e| e.to_string())?;
    let mut waiting = Vec::new();
    while !stop.load(Ordering::Acquire) {
        host.turn().map_err(|e| e.to_string())?;
        while let Some(event) = host.core().poll_event() {
            if let Event::Request { rpc, msg, .. } = event {
                begun.store(true, Ordering::Release);
                let bytes = bytes_of(&mut host, msg);
                waiting.push((Instant::now() + Duration::from_millis(300), rpc, bytes));
            }
        }
        if waiting.first().is_some_and(|(due, ..)| *due <= Instant::now()) {
            let (_, rpc, bytes) = waiting.remove(0);
            let now = host.now();
            host.core().reply(now, rpc, Payload::from(bytes)).map_err(|e| e.to_string())?;
        }
        let soon = host.now() + Nanos::from_millis(1);
        host.wait(Some(soon)).map_err(|e| e.to_string())?;
    }
    Ok(refreshes(&mut host))
}

fn refreshes(host: &mut Host) -> u64 {
    let text = host.metrics_text();
    let line = text.lines().find(|line| line.starts_with("peer_dst_refreshes"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

fn expect_refreshes(counts: [u64; 2]) -> Result<(), String> {
    println!("    refreshes at client and server: {counts:?}");
    // Not one for each packet, nor none.
    if counts[0] + counts[1] > 0 && counts.iter().all(|n| *n < 2_000) {
        Ok(())
    } else {
        Err(format!("routes were refreshed {counts:?} times"))
    }
}

fn mac_changes(net: &Netns) -> Result<(), String> {
    let interface = net.interface(1).to_owned();
    // So that the neighbours' entries, too young to be overridden, do not stretch the test.
    for node in 0..2 {
        on(net, node, || {
            let setting = format!("/proc/sys/net/ipv4/neigh/{}/locktime", net.interface(node));
            std::fs::write(&setting, "0").map_err(|e| format!("{setting}: {e}"))
        })?;
    }
    let counts = during_a_call(net, 200_000, || {
        on(net, 1, || ip(&format!("link set dev {interface} address 02:00:00:00:77:01")))
    })?;
    expect_refreshes(counts)
}

/// Packets that node 2 has forwarded.
fn forwarded(net: &Netns) -> Result<u64, String> {
    on(net, 2, || {
        let text = std::fs::read_to_string("/proc/thread-self/net/snmp").map_err(|e| e.to_string())?;
        let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let at = names.split_whitespace().position(|name| name == "ForwDatagrams");
        let value = at.and_then(|at| values.split_whitespace().nth(at)?.parse().ok());
        value.ok_or_else(|| "no ForwDatagrams".to_owned())
    })
}

fn route_changes(net: &Netns) -> Result<(), String> {
    on(net, 2, || {
        for name in ["ip_forward", "conf/all/send_redirects", "conf/all/rp_filter"] {
            let value = if name == "ip_forward" { "1" } else { "0" };
            std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).map_err(|e| format!("{name}: {e}"))?;
        }
        let setting = format!("/proc/sys/net/ipv4/conf/{}/send_redirects", net.interface(2));
        std::fs::write(&setting, "0").map_err(|e| format!("{setting}: {e}"))
    })?;
    let (peer, gateway) = (net.address(1), net.address(2));
    let before = forwarded(net)?;
    let counts = during_a_call(net, 200_000, || on(net, 0, || ip(&format!("route add {peer}/32 via {gateway}"))))?;
    let way = forwarded(net)? - before;
    on(net, 0, || ip(&format!("route del {peer}/32")))?;
    if way < 100 {
        return Err(format!("{way} packets went by the gateway"));
    }
    let before = forwarded(net)?;
    during_a_call(net, 200_000, || Ok(()))?;
    match forwarded(net)? - before {
        0 => expect_refreshes(counts),
        way => Err(format!("{way} packets went by the gateway after the route was gone")),
    }
}

fn address_goes(net: &Netns) -> Result<(), String> {
    let (interface, addr) = (net.interface(0).to_owned(), net.address(0));
    let counts = during_a_call(net, 50_000, || {
        on(net, 0, || {
            ip(&format!("addr del {addr}/24 dev {interface}"))?;
            std::thread::sleep(Duration::from_millis(500));
            ip(&format!("addr add {addr}/24 dev {interface}"))
        })
    })?;
    expect_refreshes(counts)
}

fn link_goes(net: &Netns) -> Result<(), String> {
    let interface = net.interface(0).to_owned();
    let counts = during_a_call(net, 50_000, || {
        on(net, 0, || {
            ip(&format!("link set dev {interface} down"))?;
            std::thread::sleep(Duration::from_millis(500));
            ip(&format!("link set dev {interface} up"))
        })
    })?;
    expect_refreshes(counts)
}

fn mtu_shrinks(net: &Netns) -> Result<(), String> {
    // A host takes no longer packets than it sends.
    let set = |mtu: u32| {
        (0..2).try_for_each(|node| on(net, node, || ip(&format!("link set dev {} mtu {mtu}", net.interface(node)))))
    };
    let result = during_a_call(net, 200_000, || set(1000));
    set(1500)?;
    result.map(drop)
}

fn same_host(net: &Netns) -> Result<(), String> {
    on(net, 0, || {
        let mut host = Host::open(config()).map_err(|e| e.to_string())?;
        let own = host.addr();
        match host.resolve(own, Duration::ZERO) {
            Err(error @ ResolveError::SameHost { .. }) if error.to_string().contains(&own.to_string()) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
}

/// Neighbours are forgotten meanwhile, so that the hosts must have them looked for.
fn without_privileges(net: &Netns) -> Result<(), String> {
    let change = || {
        (0..2).try_for_each(|node| {
            on(net, node, || ip(&format!("neigh flush dev {}", net.interface(node))))?;
            on(net, node, || ip(&format!("neigh flush all nud permanent dev {}", net.interface(node))))
        })
    };
    let counts = during_a_call_of(net, 200_000, change, || {
        // A sign that it is what is given up that is missing afterwards.
        Host::open(config()).map_err(|e| e.to_string())?;
        drop_privileges().map_err(|e| format!("giving up privileges: {e}"))?;
        match Host::open(config()) {
            Err(OpenError::Capability { .. }) => {}
            other => return Err(format!("a host opened without privileges: {other:?}")),
        }
        let status = std::fs::read_to_string("/proc/thread-self/status").map_err(|e| e.to_string())?;
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            if !status.lines().any(|line| line.starts_with(set) && line.ends_with("\t0000000000000000")) {
                return Err(format!("{set} is not empty: {status}"));
            }
        }
        let program = Command::new("cat").arg("/proc/self/status").output().map_err(|e| e.to_string())?;
        let status = String::from_utf8_lossy(&program.stdout);
        if status.contains("CapEff:\t0000000000000000") { Ok(()) } else { Err(format!("a program has: {status}")) }
    })?;
    expect_refreshes(counts)
}
