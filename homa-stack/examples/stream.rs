//! How fast one host sends large requests to another, of which only a word comes back:
//! `stream server [native|hijack]` and `stream client SERVER_ADDRESS [native|hijack [LENGTH [OUTSTANDING [SECONDS]]]]`.
//!
//! `stream raw-server` and `stream raw-client SERVER_ADDRESS [LENGTH [SECONDS]]` do so with bare frames of LENGTH bytes
//! (1500) and without any protocol, one copy out of the ring: the ceiling for native framing.
//!
//! Prints the rate of request bytes, or of received frames without their Ethernet headers, in 10^9 bit/s.
//! `HOMA_INTERFACE` names the interface; `HOMA_RING` is the number of packets that the receive ring holds;
//! `HOMA_METRICS=1` has the counters printed to standard error at the end.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use homa_stack::driver::{DeviceKind, Framing, Host, HostConfig, RawPing};
use homa_stack::{Config, Event, Nanos, Payload};

const PORT: u16 = 4000;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("server") => serve(&open(args.next())?),
        Some("client") => {
            let server = args.next().ok_or("expected the server's address")?.parse()?;
            let host = open(args.next())?;
            let length = args.next().map_or(Ok(1_000_000), |n| n.parse())?;
            let outstanding = args.next().map_or(Ok(4), |n| n.parse())?;
            let seconds = args.next().map_or(Ok(2), |n| n.parse())?;
            stream(host, server, length, outstanding, Nanos::from_secs(seconds))
        }
        Some("raw-server") => receive_frames(),
        Some("raw-client") => {
            let server = args.next().ok_or("expected the server's address")?.parse()?;
            let length = args.next().map_or(Ok(1500), |n| n.parse())?;
            let seconds = args.next().map_or(Ok(2), |n| n.parse())?;
            send_frames(server, length, Duration::from_secs(seconds))
        }
        _ => Err("expected `server`, `client`, `raw-server` or `raw-client`".into()),
    }
}

fn raw() -> Result<RawPing, Failure> {
    Ok(RawPing::open(std::env::var("HOMA_INTERFACE").ok().as_deref(), DeviceKind::AfPacket)?)
}

/// Takes frames until none has come for half a second.
fn receive_frames() -> Result<(), Failure> {
    let (mut raw, mut out) = (raw()?, vec![0; 65_536]);
    let (mut bytes, mut first, mut last) = (0, None, std::time::Instant::now());
    while first.is_none() || last.elapsed() < Duration::from_millis(500) {
        while let Some((_, n)) = raw.recv(&mut out) {
            last = std::time::Instant::now();
            first.get_or_insert(last);
            bytes += n;
        }
    }
    let seconds = last.duration_since(first.unwrap_or(last)).as_secs_f64();
    println!("{:.2} Gbps of frames", bytes as f64 * 8e-9 / seconds);
    Ok(())
}

fn send_frames(server: IpAddr, length: usize, span: Duration) -> Result<(), Failure> {
    let mut raw = raw()?;
    let to = raw.mac_of(server, Duration::from_secs(1))?;
    let (payload, start) = (vec![7; length], std::time::Instant::now());
    while start.elapsed() < span {
        (0..16).try_for_each(|_| raw.send(to, &payload))?;
    }
    Ok(())
}

fn open(framing: Option<String>) -> Result<HostConfig, Failure> {
    let framing = match framing.as_deref() {
        None | Some("native") => Framing::Native,
        Some("hijack") => Framing::Hijack,
        Some(other) => return Err(format!("expected `native` or `hijack`, found `{other}`").into()),
    };
    let interface = std::env::var("HOMA_INTERFACE").ok();
    // Enough on its way for a message to go on while grants for it are under way.
    let homa = Config { max_incoming: 1_000_000, ..Config::default() };
    let mut config = HostConfig { interface, framing, homa, ..HostConfig::default() };
    if let Ok(packets) = std::env::var("HOMA_RING") {
        config.ring_packets = packets.parse()?;
    }
    Ok(config)
}

fn serve(config: &HostConfig) -> Result<(), Failure> {
    let mut host = Host::open(config.clone())?;
    host.core().bind(PORT)?;
    println!("taking requests at {}:{PORT}", host.addr());
    loop {
        host.turn()?;
        while let Some(event) = host.core().poll_event() {
            if let Event::Request { rpc, msg, .. } = event {
                host.core().release(msg);
                let now = host.now();
                host.core().reply(now, rpc, Payload::with_head(&[1; 8], Bytes::new()))?;
            }
        }
        host.wait(None)?;
    }
}

fn stream(config: HostConfig, server: IpAddr, length: usize, outstanding: usize, span: Nanos) -> Result<(), Failure> {
    let mut host = Host::open(config)?;
    host.resolve(server, Duration::from_secs(1))?;
    let port = host.core().client_port()?;
    let body = Bytes::from(vec![7; length]);
    let start = host.now();
    let (mut open, mut done) = (0, 0_u64);
    while host.now() < start + span {
        while open < outstanding {
            let now = host.now();
            host.core().call(now, port, SocketAddr::new(server, PORT), Payload::from(body.clone()), 0)?;
            open += 1;
        }
        host.turn()?;
        while let Some(event) = host.core().poll_event() {
            match event {
                Event::Response { msg, .. } => host.core().release(msg),
                Event::Failed { peer, error, .. } => return Err(format!("{peer}: {error}").into()),
                Event::Request { .. } | Event::Room(_) => unreachable!("no server port is bound, no call was refused"),
            }
            (open, done) = (open - 1, done + 1);
        }
        host.wait(None)?;
    }
    let nanos = host.now().since(start).as_nanos();
    println!("{:.2} Gbps, {done} requests of {length} bytes", (done * length as u64 * 8) as f64 / nanos as f64);
    if std::env::var_os("HOMA_METRICS").is_some() {
        eprint!("{}", host.metrics_text());
    }
    Ok(())
}
