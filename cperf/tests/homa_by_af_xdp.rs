//! The Homa stack by AF_XDP on real packets: two network namespaces, joined by one pair of interfaces.
//!
//! Has a `main` of its own, as `homa_on_veth` and for the same reason. Without the privileges that XDP programs need
//! (CAP_BPF and CAP_NET_ADMIN outside of any user namespace) the tests are left out, and the output says so.

mod veth;

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cperf::sys;
use cperf::testbed::Testbed;
use cperf::testbed::netns::{Netns, Topology};
use homa_stack::driver::{DeviceKind, Host, HostConfig, OpenError, XdpConfig, XdpMode};
use homa_stack::{Event, Nanos, Payload};
use veth::{Check, on, v4, v6};

const PORT: u16 = 4000;
const LENGTHS: [usize; 9] = [1, 100, 1424, 1425, 8900, 40_000, 40_001, 65_536, 1_000_000];
const CAP_NET_ADMIN: u32 = 12;
const CAP_BPF: u32 = 39;

const AF_PACKET: Use = (DeviceKind::AfPacket, XdpMode::Auto);
const AUTO: Use = (DeviceKind::AfXdp, XdpMode::Auto);
const NATIVE: Use = (DeviceKind::AfXdp, XdpMode::Native);

/// The device that a host runs by.
type Use = (DeviceKind, XdpMode);

const CHECKS: [(&str, u32, Check); 11] = [
    ("messages_of_all_lengths_cross", 1500, |net| lengths_cross(net, [AUTO, AUTO], &v4(net))),
    ("messages_of_all_lengths_cross_in_native_mode", 1500, |net| lengths_cross(net, [NATIVE, NATIVE], &v4(net))),
    ("messages_of_all_lengths_cross_to_af_packet", 1500, |net| lengths_cross(net, [AUTO, AF_PACKET], &v4(net))),
    ("messages_of_all_lengths_cross_from_af_packet", 1500, |net| lengths_cross(net, [AF_PACKET, AUTO], &v4(net))),
    ("messages_of_all_lengths_cross_over_ipv6", 1500, |net| lengths_cross(net, [AUTO, NATIVE], &v6(net)?)),
    ("packets_of_several_buffers_cross", 9000, |net| lengths_cross(net, [AUTO, AUTO], &v4(net))),
    ("packets_of_several_buffers_cross_in_native_mode", 9000, |net| lengths_cross(net, [NATIVE, NATIVE], &v4(net))),
    ("other_packets_go_on_to_the_kernel", 1500, other_packets_pass),
    ("traces_name_the_device_and_the_wait_in_its_ring", 1500, traces_name_the_device),
    ("the_program_leaves_with_a_host_that_is_closed_or_killed", 1500, program_leaves),
    ("a_missing_capability_is_named", 1500, missing_capability),
];

fn main() -> ExitCode {
    if !may_load_programs() {
        println!("\nrunning 0 tests: XDP programs need CAP_BPF and CAP_NET_ADMIN outside of any user namespace\n");
        return ExitCode::SUCCESS;
    }
    let run = |(_, mtu, check): &(&str, u32, Check)| {
        let net = Netns::build(2, Topology::Pair, *mtu).map_err(|e| format!("cannot build two hosts: {e:#}"))?;
        check(&net)
    };
    veth::run_each(&CHECKS, |(name, ..)| name, run)
}

/// True if this process has what XDP programs need; a kernel that then refuses them makes the tests fail.
fn may_load_programs() -> bool {
    let has = |n: u32| sys::effective_capabilities().is_some_and(|all| all >> n & 1 == 1);
    // The first user namespace maps all ids to themselves.
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    has(CAP_BPF) && has(CAP_NET_ADMIN) && map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn open((device, mode): Use) -> Result<Host, String> {
    let xdp = XdpConfig { mode, stamps: true, ..XdpConfig::default() };
    Host::open(HostConfig { device, xdp, ..HostConfig::default() }).map_err(|e| e.to_string())
}

/// Node 0 calls node 1 with each length, all at once, and gets each request back.
fn lengths_cross(net: &Netns, uses: [Use; 2], addrs: &[IpAddr; 2]) -> Result<(), String> {
    let (is_served, is_done) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let result = on(net, 1, || serve(open(uses[1])?, &is_served, &is_done));
            is_served.store(true, Ordering::Release);
            result
        });
        while !is_served.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let called = on(net, 0, || call(open(uses[0])?, addrs[1]).map(drop));
        is_done.store(true, Ordering::Release);
        server.join().map_err(|_| "the server panicked".to_owned())??;
        called
    })
}

/// Answers every request with its own bytes until `is_done`.
fn serve(mut host: Host, is_served: &AtomicBool, is_done: &AtomicBool) -> Result<(), String> {
    host.core().bind(PORT).map_err(|e| e.to_string())?;
    is_served.store(true, Ordering::Release);
    while !is_done.load(Ordering::Acquire) {
        host.turn().map_err(|e| e.to_string())?;
        while let Some(event) = host.core().poll_event() {
            if let Event::Request { rpc, msg, .. } = event {
                let bytes = bytes_of(&mut host, msg);
                let now = host.now();
                host.core().reply(now, rpc, Payload::from(bytes)).map_err(|e| e.to_string())?;
            }
        }
        let soon = host.now() + Nanos::from_millis(1);
        host.wait(Some(soon)).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Calls `peer` with each length and returns when all are answered.
fn call(mut host: Host, peer: IpAddr) -> Result<Host, String> {
    host.resolve(peer, Duration::from_secs(2)).map_err(|e| e.to_string())?;
    let port = host.core().client_port().map_err(|e| e.to_string())?;
    for (i, len) in LENGTHS.into_iter().enumerate() {
        let (now, to) = (host.now(), SocketAddr::new(peer, PORT));
        host.core().call(now, port, to, Payload::from(message(i, len)), i as u64).map_err(|e| e.to_string())?;
    }
    let mut open_calls = LENGTHS.len();
    let deadline = Instant::now() + Duration::from_secs(30);
    while open_calls > 0 {
        host.turn().map_err(|e| e.to_string())?;
        while let Some(event) = host.core().poll_event() {
            match event {
                Event::Response { cookie, msg, .. } => {
                    let (i, bytes) = (cookie as usize, bytes_of(&mut host, msg));
                    if bytes != message(i, LENGTHS[i]) {
                        return Err(format!("response {i} of {} bytes is damaged", bytes.len()));
                    }
                    open_calls -= 1;
                }
                Event::Failed { cookie, peer, error, .. } => return Err(format!("call {cookie} to {peer}: {error}")),
                _ => {}
            }
        }
        if Instant::now() > deadline {
            let metrics = host.metrics_text();
            return Err(format!("{open_calls} calls unanswered after 30 s by {}; metrics\n{metrics}", host.device()));
        }
        let soon = host.now() + Nanos::from_millis(1);
        host.wait(Some(soon)).map_err(|e| e.to_string())?;
    }
    Ok(host)
}

fn message(call: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 131 + call * 17 + (i >> 9)) as u8).collect()
}

fn bytes_of(host: &mut Host, msg: homa_stack::Message) -> Vec<u8> {
    let bytes = host.core().pieces(&msg).collect::<Vec<_>>().concat();
    host.core().release(msg);
    bytes
}

/// While both hosts run by AF_XDP their kernels still exchange UDP, and ARP before it.
fn other_packets_pass(net: &Netns) -> Result<(), String> {
    for mode in [XdpMode::Generic, XdpMode::Native] {
        on(net, 1, || {
            let _host = open((DeviceKind::AfXdp, mode))?;
            let server = UdpSocket::bind((net.address(1), 9000)).map_err(|e| e.to_string())?;
            server.set_read_timeout(Some(Duration::from_secs(3))).map_err(|e| e.to_string())?;
            on(net, 0, || {
                let _host = open((DeviceKind::AfXdp, mode))?;
                let client = UdpSocket::bind((net.address(0), 0)).map_err(|e| e.to_string())?;
                client.send_to(b"not Homa", (net.address(1), 9000)).map(drop).map_err(|e| e.to_string())
            })?;
            let mut buffer = [0; 16];
            let len = server.recv(&mut buffer).map_err(|e| format!("no datagram came with {mode:?} programs: {e}"))?;
            if &buffer[..len] == b"not Homa" { Ok(()) } else { Err("another datagram came".to_owned()) }
        })?;
    }
    Ok(())
}

fn traces_name_the_device(net: &Netns) -> Result<(), String> {
    let (is_served, is_done) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let server = scope.spawn(|| on(net, 1, || serve(open(AUTO)?, &is_served, &is_done)));
        while !is_served.load(Ordering::Acquire) && !server.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let text = on(net, 0, || {
            let mut out = Vec::new();
            call(open(AUTO)?, net.address(1))?.write_trace(&mut out).map_err(|e| e.to_string())?;
            String::from_utf8(out).map_err(|e| e.to_string())
        });
        is_done.store(true, Ordering::Release);
        server.join().map_err(|_| "the server panicked".to_owned())??;
        let text = text?;
        let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
        let (sent, waits, got) = (count("via afx to"), count("afx ring wait"), count("homa_gro_receive got"));
        // Every packet received has its wait.
        if sent > 500 && waits > 500 && waits == got && count("afp") == 0 {
            Ok(())
        } else {
            Err(format!("{sent} packets sent, {waits} waits of {got} packets"))
        }
    })
}

/// A second program is refused as long as the first is attached.
fn program_leaves(net: &Netns) -> Result<(), String> {
    on(net, 0, || {
        let host = open(AUTO)?;
        match open(AUTO) {
            Err(text) if text.contains("another program") && text.contains("XDP") => {}
            Err(text) => return Err(format!("the error does not name the other program: {text}")),
            Ok(_) => return Err("two programs at once".to_owned()),
        }
        drop(host);
        drop(open(AUTO).map_err(|e| format!("after a host was closed: {e}"))?);

        let mut command = Command::new(env!("CARGO_BIN_EXE_cperf"));
        command.args(["cp-node", "probe", "server", "--transport", "homa", "--device", "af-xdp"]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|e| format!("starting cperf cp-node: {e}"))?;
        let mut ready = String::new();
        let read = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut ready));
        let held = open(AUTO).err();
        child.kill().and_then(|()| child.wait()).map_err(|e| format!("killing the server: {e}"))?;
        if !matches!(read, Some(Ok(n)) if n > 0) || held.is_none() {
            return Err(format!("the server did not hold the interface: it said {ready:?}"));
        }
        open(AUTO).map(drop).map_err(|e| format!("after the server was killed: {e}"))
    })
}

fn missing_capability(net: &Netns) -> Result<(), String> {
    on(net, 0, || {
        // A sign that only capabilities are missing afterwards.
        open(AUTO)?;
        sys::drop_capabilities().map_err(|e| format!("giving up capabilities: {e}"))?;
        match Host::open(HostConfig { device: DeviceKind::AfXdp, ..HostConfig::default() }) {
            Err(error @ OpenError::Xdp { .. }) => {
                let text = error.to_string();
                let missing =
                    ["CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_RAW", "AF_PACKET"].into_iter().find(|w| !text.contains(w));
                missing.map_or(Ok(()), |word| Err(format!("no {word} in: {text}")))
            }
            other => Err(format!("expected an error of AF_XDP, found {other:?}")),
        }
    })
}
