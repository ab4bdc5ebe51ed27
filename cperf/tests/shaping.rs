//! Shaped links on real packets: rate, buffers, strict priorities and loss, seen in the counters of the switch's ports
//! and in the order of arrival.
//!
//! Has a `main` of its own: a user namespace, for those who are not root, must be entered while the process has one
//! thread, and threads then play the hosts.

mod veth;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cperf::testbed::Testbed;
use cperf::testbed::links::{Links, PortCounts, Shape};
use cperf::testbed::netns::{Layout, Netns, Topology};
use homa_stack::driver::{DeviceKind, Host, HostConfig, RawPing};
use homa_stack::{Event, Payload};
use veth::on;

type Check = fn() -> Result<(), String>;

const CHECKS: [(&str, Check); 6] = [
    ("a_link_never_carries_more_than_its_rate_even_past_the_senders_queues", rate_holds),
    ("a_port_keeps_what_its_buffer_holds_and_counts_the_rest", buffer_holds),
    ("urgent_packets_pass_a_full_port_over_ipv4", || strict(false)),
    ("urgent_packets_pass_a_full_port_over_ipv6", || strict(true)),
    ("homa_uses_the_levels_and_tcp_the_last", protocols_and_levels),
    ("packets_are_lost_at_random_and_counted", loss_is_counted),
];

fn main() -> ExitCode {
    veth::run_each(&CHECKS, |(name, _)| name, |(_, check)| check())
}

/// Nodes on one switch.
fn build(nodes: usize, ipv6: bool, links: Links) -> Result<Netns, String> {
    let layout = Layout { ipv6, links, ..Layout::new(nodes, Topology::Bridge, 1500) };
    Netns::build_as(layout).map_err(|e| format!("cannot build {nodes} hosts: {e:#}"))
}

fn shaped(link_gbps: f64, switch_buffer_bytes: u32, priorities: u8) -> Links {
    Links { shape: Some(Shape { link_gbps, switch_buffer_bytes, priorities }), loss: 0.0 }
}

fn ports(net: &mut Netns) -> Result<Vec<PortCounts>, String> {
    net.ports().map_err(|e| format!("{e:#}"))
}

/// Waits until nothing moves any more; the counters then.
fn settled(net: &mut Netns) -> Result<Vec<PortCounts>, String> {
    let mut before = ports(net)?;
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let now = ports(net)?;
        if now == before {
            return Ok(now);
        }
        before = now;
    }
}

fn told<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}

/// Sends `count` full frames past the queues of the sending host, once all of `together` know their peer's address.
fn burst(net: &Netns, from: usize, to: usize, count: u32, together: &Barrier) -> Result<(), String> {
    let peer = net.address(to);
    on(net, from, || {
        let opened = RawPing::open(None, DeviceKind::AfPacket).map_err(told("opening a ring")).and_then(|mut raw| {
            let mac = raw.mac_of(peer, Duration::from_secs(3)).map_err(told("resolving"))?;
            Ok((raw, mac))
        });
        together.wait();
        let (mut raw, mac) = opened?;
        (0..count).try_for_each(|_| raw.send(mac, &[0; 1500]).map_err(told("sending")))
    })
}

/// Bytes on the wire of `port`, preamble, checksum and gap included.
fn wire_bytes(port: &PortCounts) -> u64 {
    port.sent_bytes + 24 * port.sent_packets.iter().sum::<u64>()
}

/// A second's worth of frames at once, and no more than the rate times the time comes out. How much less than that is
/// a matter of the machine, but a link with a full queue before it is not idle for half of the time.
fn rate_holds() -> Result<(), String> {
    let mut net = build(2, false, shaped(0.02, 1_000_000, 8))?;
    let start = Instant::now();
    burst(&net, 0, 1, 900, &Barrier::new(1))?;
    std::thread::sleep(Duration::from_millis(300));
    let at_least = start.elapsed();
    let counts = ports(&mut net)?;
    let at_most = start.elapsed();
    let (carried, rate, frame) = (wire_bytes(&counts[1]), 2_500_000.0, 1538.0);
    let (most, least) = (rate * at_most.as_secs_f64() + 4.0 * frame, rate * at_least.as_secs_f64() * 0.5);
    if carried as f64 > most || (carried as f64) < least {
        return Err(format!("{carried} bytes in {at_most:?}, not {least:.0} to {most:.0}"));
    }
    let counts = settled(&mut net)?;
    let passed = counts[1].sent_packets.iter().sum::<u64>() + counts[0].uplink_dropped_packets;
    // Two more of each side: the exchange of hardware addresses.
    if !(900..=904).contains(&passed) {
        return Err(format!("900 frames were sent, {passed} are accounted for: {counts:?}"));
    }
    Ok(())
}

/// Two hosts send to a third, each as fast as a link is: half of it is too much, and of this half the buffer's worth
/// arrives. Each sends for half a second: that one starts late by some 70 ms still leaves 30 frames of tolerance.
fn buffer_holds() -> Result<(), String> {
    for frames in [20, 100] {
        let mut net = build(3, false, shaped(0.005, frames * 1514, 8))?;
        let together = Barrier::new(2);
        std::thread::scope(|scope| {
            let (net, together) = (&net, &together);
            let threads = [0, 1].map(|node| scope.spawn(move || burst(net, node, 2, 200, together)));
            threads.into_iter().try_for_each(|thread| thread.join().expect("it returns errors"))
        })?;
        let counts = settled(&mut net)?;
        let (sent, dropped) =
            (counts[2].sent_packets.iter().sum::<u64>(), counts[2].dropped_packets.iter().sum::<u64>());
        let want = u64::from(200 - frames);
        if dropped.abs_diff(want) > 30 || !(400..=410).contains(&(sent + dropped)) {
            return Err(format!("buffer of {frames} frames: {dropped} of 400 dropped, not some {want}: {counts:?}"));
        }
    }
    Ok(())
}

const FLOOD: u16 = 7000;
const URGENT: u16 = 7001;
/// Frames that the port's buffer holds.
const HELD: u32 = 100;

/// Two hosts flood a third; a fourth sends a packet now and then. With strict levels it meets hardly any of the frames
/// that wait; with one level it comes after all of them.
fn strict(ipv6: bool) -> Result<(), String> {
    for (priorities, ahead) in [(8, 0..=15), (1, 60..=u64::MAX)] {
        let mut net = build(4, ipv6, shaped(0.05, HELD * 1514, priorities))?;
        let median = frames_ahead(&net)?;
        let counts = ports(&mut net)?;
        let dropped = counts[2].dropped_packets.iter().sum::<u64>();
        if dropped == 0 {
            return Err(format!("the port was never full: {counts:?}"));
        }
        if !ahead.contains(&median) {
            return Err(format!("{priorities} levels: {median} frames passed before a packet, not {ahead:?}"));
        }
        let urgent = counts[2].sent_packets.last().copied().unwrap_or(0);
        if priorities == 8 && (urgent < 40 || counts[2].dropped_packets[7] > 0) {
            return Err(format!("40 urgent packets were sent: {counts:?}"));
        }
    }
    Ok(())
}

/// Median over 40 urgent packets of how many of the flood's frames arrived after one was sent and before it came.
fn frames_ahead(net: &Netns) -> Result<u64, String> {
    let (come, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let to = net.address(2);
    let (come, done, together) = (&come, &done, &Barrier::new(3));
    std::thread::scope(|scope| {
        let floods = [0, 1].map(|node| scope.spawn(move || on(net, node, || flood(to, done, together))));
        let count = scope.spawn(move || on(net, 2, || count(to, come, done)));
        let echo = scope.spawn(move || on(net, 2, || notice(to, come, done)));
        let sent = on(net, 3, || probe(to, come, done, together));
        done.store(true, Ordering::Release);
        for thread in floods.into_iter().chain([count]) {
            thread.join().map_err(|_| "a host panicked")??;
        }
        let (sent, arrived) = (sent?, echo.join().map_err(|_| "the receiver panicked")??);
        let mut ahead: Vec<_> = arrived.iter().map(|&(number, at)| at.saturating_sub(sent[number as usize])).collect();
        if ahead.len() < 30 {
            return Err(format!("{} of {} packets came", ahead.len(), sent.len()));
        }
        ahead.sort_unstable();
        Ok(ahead[ahead.len() / 2])
    })
}

fn udp(to: IpAddr, port: u16) -> Result<UdpSocket, String> {
    let any: IpAddr = if to.is_ipv6() { [0; 16].into() } else { [0; 4].into() };
    let socket = UdpSocket::bind((any, port)).map_err(told("binding a UDP port"))?;
    socket.set_read_timeout(Some(Duration::from_millis(100))).map_err(told("setting a time-out"))?;
    Ok(socket)
}

/// Waits until all of `together` know the hardware address of `to`: a question about it that is lost is asked again after a
/// second, when all is over.
fn meet(to: IpAddr, together: &Barrier) -> Result<(), String> {
    let opened = RawPing::open(None, DeviceKind::AfPacket).map_err(told("opening a ring"));
    let known = opened.and_then(|mut raw| raw.mac_of(to, Duration::from_secs(3)).map_err(told("resolving")));
    together.wait();
    known.map(drop)
}

/// Sends full frames without pause.
fn flood(to: IpAddr, done: &AtomicBool, together: &Barrier) -> Result<(), String> {
    let socket = udp(to, 0);
    meet(to, together)?;
    let socket = socket?;
    while !done.load(Ordering::Acquire) {
        // A full queue of the host is what a flood meets.
        if socket.send_to(&[0; 1400], (to, FLOOD)).is_err() {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    Ok(())
}

fn count(to: IpAddr, come: &AtomicU64, done: &AtomicBool) -> Result<(), String> {
    let socket = udp(to, FLOOD)?;
    let mut buffer = [0; 2048];
    while !done.load(Ordering::Acquire) {
        if socket.recv(&mut buffer).is_ok() {
            come.fetch_add(1, Ordering::AcqRel);
        }
    }
    Ok(())
}

/// Sends numbered packets of the highest precedence; how many of the flood had come before each.
fn probe(to: IpAddr, come: &AtomicU64, done: &AtomicBool, together: &Barrier) -> Result<Vec<u64>, String> {
    let socket = udp(to, 0);
    meet(to, together)?;
    let socket = socket?;
    if to.is_ipv6() {
        rustix::net::sockopt::set_ipv6_tclass(&socket, 7 << 5).map_err(told("setting the traffic class"))?;
    } else {
        rustix::net::sockopt::set_ip_tos(&socket, 7 << 5).map_err(told("setting the type of service"))?;
    }
    // Until the port is full.
    let start = Instant::now();
    while come.load(Ordering::Acquire) < u64::from(3 * HELD) {
        if start.elapsed() > Duration::from_secs(20) || done.load(Ordering::Acquire) {
            return Err("the flood does not arrive".to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut sent = Vec::new();
    for number in 0..40u64 {
        sent.push(come.load(Ordering::Acquire));
        socket.send_to(&number.to_le_bytes(), (to, URGENT)).map_err(told("sending a packet"))?;
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    Ok(sent)
}

/// Receives what [`probe`] sends: number, and how many of the flood had come.
fn notice(to: IpAddr, come: &AtomicU64, done: &AtomicBool) -> Result<Vec<(u64, u64)>, String> {
    let socket = udp(to, URGENT)?;
    let (mut found, mut number) = (Vec::new(), [0; 8]);
    while !done.load(Ordering::Acquire) {
        if socket.recv(&mut number).is_ok() {
            found.push((u64::from_le_bytes(number), come.load(Ordering::Acquire)));
        }
    }
    Ok(found)
}

/// Requests and responses of 100 bytes are Homa's most urgent; TCP does not ask for any level.
fn protocols_and_levels() -> Result<(), String> {
    for ipv6 in [false, true] {
        let mut net = build(2, ipv6, shaped(0.2, 100_000, 8))?;
        let peer = net.address(1);
        let before = ports(&mut net)?;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (net, done) = (&net, &done);
            let server = scope.spawn(move || on(net, 1, || answer(net.address(0), done)));
            let called = on(net, 0, || call(peer, 50));
            done.store(true, Ordering::Release);
            server.join().map_err(|_| "the server panicked")??;
            called
        })?;
        let homa = settled(&mut net)?;
        let at = |now: &[PortCounts], then: &[PortCounts], level: usize| now[1].since(&then[1]).sent_packets[level];
        // Until CUTOFFS have come, which is when the first requests are under way, unscheduled packets have level 6.
        let (highest, second) = (at(&homa, &before, 7), at(&homa, &before, 6));
        if highest < 45 || highest + second < 50 {
            return Err(format!("IPv6 {ipv6}: 50 requests of the highest levels, but {homa:?}"));
        }
        tcp_bytes(&net, peer, 1_000_000)?;
        let tcp = settled(&mut net)?;
        // 1 MB in frames of at most 1448 bytes of payload: each crosses by itself.
        if at(&tcp, &homa, 0) < 690 {
            return Err(format!("IPv6 {ipv6}: TCP's frames are not at the lowest level, one by one: {tcp:?}"));
        }
    }
    Ok(())
}

const PORT: u16 = 4000;

fn answer(peer: IpAddr, done: &AtomicBool) -> Result<(), String> {
    let mut host = Host::open(HostConfig::default()).map_err(told("opening a host"))?;
    // Else the first CUTOFFS go nowhere, and the next ones only a millisecond later.
    host.resolve(peer, Duration::from_secs(3)).map_err(told("resolving"))?;
    host.core().bind(PORT).map_err(told("binding"))?;
    while !done.load(Ordering::Acquire) {
        host.turn().map_err(told("turning"))?;
        while let Some(event) = host.core().poll_event() {
            if let Event::Request { rpc, msg, .. } = event {
                host.core().release(msg);
                let now = host.now();
                host.core().reply(now, rpc, Payload::from(vec![2; 100])).map_err(told("replying"))?;
            }
        }
    }
    Ok(())
}

/// Calls one after another; each is tried again until the server is there.
fn call(peer: IpAddr, count: u32) -> Result<(), String> {
    let mut host = Host::open(HostConfig::default()).map_err(told("opening a host"))?;
    host.resolve(peer, Duration::from_secs(3)).map_err(told("resolving"))?;
    let port = host.core().client_port().map_err(told("no port to call from"))?;
    let deadline = Instant::now() + Duration::from_secs(30);
    for _ in 0..count {
        let now = host.now();
        let to = SocketAddr::new(peer, PORT);
        host.core().call(now, port, to, Payload::from(vec![1; 100]), 0).map_err(told("calling"))?;
        let mut answered = false;
        while !answered {
            host.turn().map_err(told("turning"))?;
            while let Some(event) = host.core().poll_event() {
                match event {
                    Event::Response { msg, .. } => {
                        host.core().release(msg);
                        answered = true;
                    }
                    other => return Err(format!("not a response: {other:?}")),
                }
            }
            if Instant::now() > deadline {
                return Err("no response".to_owned());
            }
        }
    }
    Ok(())
}

/// Sends `len` bytes by TCP from node 0 to node 1.
fn tcp_bytes(net: &Netns, peer: IpAddr, len: usize) -> Result<(), String> {
    let listener = on(net, 1, || TcpListener::bind((peer, 5000)).map_err(told("listening")))?;
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || -> Result<usize, String> {
            let (mut stream, _) = listener.accept().map_err(told("accepting"))?;
            stream.read_to_end(&mut Vec::new()).map_err(told("reading"))
        });
        on(net, 0, || {
            let mut stream = TcpStream::connect((peer, 5000)).map_err(told("connecting"))?;
            stream.write_all(&vec![3; len]).map_err(told("writing"))
        })?;
        let got = reader.join().map_err(|_| "the reader panicked")??;
        if got == len { Ok(()) } else { Err(format!("{got} of {len} bytes came")) }
    })
}

/// A tenth of 20,000 datagrams: 2000, with a standard deviation of 42.
fn loss_is_counted() -> Result<(), String> {
    for ipv6 in [false, true] {
        let mut net = build(2, ipv6, Links { shape: None, loss: 0.1 })?;
        let to = net.address(1);
        on(&net, 0, || {
            let socket = udp(to, 0)?;
            for _ in 0..20_000 {
                socket.send_to(&[0; 100], (to, FLOOD)).map_err(told("sending"))?;
            }
            Ok(())
        })?;
        let lost = settled(&mut net)?[0].lost_packets;
        if !(1700..=2300).contains(&lost) {
            return Err(format!("IPv6 {ipv6}: {lost} of 20,000 packets were lost, not some 2000"));
        }
    }
    Ok(())
}
