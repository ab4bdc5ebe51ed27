//! Probes over kernel UDP and TCP: spinning on non-blocking sockets, or blocking.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{RESPONSE_LIMIT, RoundTrip, SPIN_CHECK};

/// Longest datagram or piece of a stream.
const BUFFER: usize = 2048;
/// Pause between two looks for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(1);

/// Echoes datagrams, spinning, for ever.
pub(super) fn serve_udp(port: u16, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    let socket =
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| format!("can't bind UDP port {port}"))?;
    socket.set_nonblocking(true)?;
    ready()?;
    let mut buffer = [0; BUFFER];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((len, from)) => {
                // A response that can't be sent shows as an error at the client.
                let _ = socket.send_to(&buffer[..len], from);
            }
            Err(e) if is_transient(&e) => std::hint::spin_loop(),
            Err(e) => return Err(e).context("receiving UDP failed"),
        }
    }
}

/// Echoes the bytes of one connection after the other, for ever.
pub(super) fn serve_tcp(port: u16, spin: bool, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    let listener =
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| format!("can't bind TCP port {port}"))?;
    listener.set_nonblocking(spin)?;
    ready()?;
    loop {
        match listener.accept() {
            // Whatever ends a connection, the next one may come.
            Ok((stream, _)) => drop(echo(stream, spin)),
            Err(e) if is_transient(&e) => thread::sleep(ACCEPT_PAUSE),
            Err(e) => return Err(e).context("accepting TCP connections failed"),
        }
    }
}

fn echo(mut stream: TcpStream, spin: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(spin)?;
    let mut buffer = [0; BUFFER];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            // Far less than a socket buffer is under way at a time, so this never blocks for long.
            Ok(len) => stream.write_all(&buffer[..len])?,
            Err(e) if is_transient(&e) => std::hint::spin_loop(),
            Err(e) => return Err(e),
        }
    }
}

/// UDP, spinning.
pub(super) struct Udp(UdpSocket);

impl Udp {
    pub(super) fn open(to: SocketAddr) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("can't make a UDP socket")?;
        socket.connect(to).with_context(|| format!("no route to {to}"))?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }
}

impl RoundTrip for Udp {
    fn round_trip(&mut self, request: &[u8]) -> Result<bool> {
        self.0.send(request).context("sending UDP failed")?;
        let mut buffer = [0; BUFFER];
        spin(|| match self.0.recv(&mut buffer) {
            // An earlier response that came late is passed over.
            Ok(len) => Ok(buffer[..len] == *request),
            Err(e) if is_transient(&e) => Ok(false),
            Err(e) => Err(e).context("receiving UDP failed; is the server running?"),
        })
    }
}

/// TCP, spinning or blocking.
pub(super) struct Tcp {
    stream: TcpStream,
    spin: bool,
}

impl Tcp {
    pub(super) fn open(to: SocketAddr, spin: bool) -> Result<Self> {
        let stream =
            TcpStream::connect_timeout(&to, RESPONSE_LIMIT).with_context(|| format!("can't connect to {to}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(spin)?;
        stream.set_read_timeout(Some(RESPONSE_LIMIT))?;
        Ok(Self { stream, spin })
    }
}

impl RoundTrip for Tcp {
    fn round_trip(&mut self, request: &[u8]) -> Result<bool> {
        self.stream.write_all(request).context("sending TCP failed")?;
        let mut buffer = [0; BUFFER];
        let mut have = 0;
        let mut read = || match self.stream.read(&mut buffer[have..request.len()]) {
            Ok(0) => bail!("the server has closed the connection"),
            Ok(len) => {
                have += len;
                Ok(have == request.len())
            }
            Err(e) if is_transient(&e) => Ok(false),
            Err(e) => Err(e).context("receiving TCP failed"),
        };
        if self.spin {
            if !spin(read)? {
                // A stream with half a response in it is of no use any more.
                bail!("no response within {} s", RESPONSE_LIMIT.as_secs());
            }
            return Ok(true);
        }
        let limit = Instant::now() + RESPONSE_LIMIT;
        while !read()? {
            if Instant::now() > limit {
                bail!("no response within {} s", RESPONSE_LIMIT.as_secs());
            }
        }
        Ok(true)
    }
}

/// Calls `done` until it says so; false if it did not within [`RESPONSE_LIMIT`].
pub(super) fn spin(mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
    let limit = Instant::now() + RESPONSE_LIMIT;
    loop {
        for _ in 0..SPIN_CHECK {
            if done()? {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        if Instant::now() > limit {
            return Ok(false);
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::TimedOut)
}
