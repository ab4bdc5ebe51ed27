//! Flow over kernel TCP: one thread at each end that spins on epoll, over one connection or as many as there are
//! outstanding requests.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use rustix::event::epoll;

use super::Meter;
use crate::cli::{Flow, FlowServer};

/// Bytes read at a time.
const BUFFER: usize = 256 * 1024;
/// Events taken at a time.
const EVENTS: usize = 64;
/// Mark of the listener among events.
const LISTENER: u64 = u64::MAX;

/// A connection with what is under way on it.
struct Connection {
    stream: TcpStream,
    /// Bytes still to be written; the content does not matter.
    unsent: usize,
    /// Bytes read of the message that is arriving.
    arrived: usize,
    /// Whether epoll reports that the connection takes more.
    watched: bool,
}

impl Connection {
    fn new(stream: TcpStream, poll: &impl AsFd, mark: u64) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(poll, &stream, epoll::EventData::new_u64(mark), epoll::EventFlags::IN)?;
        Ok(Self { stream, unsent: 0, arrived: 0, watched: false })
    }

    /// Writes as much as the connection takes.
    fn write(&mut self, bytes: &[u8], poll: &impl AsFd, mark: u64) -> io::Result<()> {
        while self.unsent > 0 {
            match self.stream.write(&bytes[..self.unsent.min(bytes.len())]) {
                Ok(len) => self.unsent -= len,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        let wants = self.unsent > 0;
        if wants != self.watched {
            let flags = if wants { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
            epoll::modify(poll, &self.stream, epoll::EventData::new_u64(mark), flags)?;
            self.watched = wants;
        }
        Ok(())
    }

    /// Reads once; how many messages of `length` bytes are whole now. `None`: the other end has closed.
    fn read(&mut self, buffer: &mut [u8], length: usize) -> io::Result<Option<usize>> {
        match self.stream.read(buffer) {
            Ok(0) => Ok(None),
            Ok(len) => {
                self.arrived += len;
                let whole = self.arrived / length;
                self.arrived %= length;
                Ok(Some(whole))
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(Some(0)),
            Err(e) => Err(e),
        }
    }
}

/// Answers requests of any number of connections, for ever.
pub(super) fn serve(options: &FlowServer, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    let any = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, options.port)), (Ipv4Addr::UNSPECIFIED, options.port).into()];
    let listener = TcpListener::bind(&any[..]).with_context(|| format!("can't bind TCP port {}", options.port))?;
    listener.set_nonblocking(true)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut buffer = vec![0; BUFFER];
    let bytes = vec![0; BUFFER];
    let mut events = Vec::with_capacity(EVENTS);
    ready()?;
    loop {
        wait(&poll, &mut events)?;
        for event in &events {
            let mark = event.data.u64();
            if mark == LISTENER {
                if let Ok((stream, _)) = listener.accept() {
                    let mark = connections.len() as u64;
                    connections.push(Some(Connection::new(stream, &poll, mark)?));
                }
                continue;
            }
            let slot = &mut connections[mark as usize];
            let Some(connection) = slot else { continue };
            let answered = connection.read(&mut buffer, options.length as usize).and_then(|whole| {
                let Some(whole) = whole else { return Ok(false) };
                connection.unsent += whole * options.response as usize;
                connection.write(&bytes, &poll, mark).map(|()| true)
            });
            // Whatever ends a connection, the next one may come.
            if !matches!(answered, Ok(true)) {
                *slot = None;
            }
        }
    }
}

/// Keeps as many requests outstanding as asked for.
pub(super) fn run(options: &Flow, to: SocketAddr) -> Result<Meter> {
    let (length, response) = (options.common.length as usize, options.common.response as usize);
    let (count, each) = if options.one_connection { (1, options.outstanding) } else { (options.outstanding, 1) };
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let connect = |mark: u32| {
        let stream = TcpStream::connect(to).with_context(|| format!("can't connect to {to}"))?;
        Connection::new(stream, &poll, mark.into())
    };
    let mut connections = (0..count).map(connect).collect::<Result<Vec<_>>>()?;
    let mut buffer = vec![0; BUFFER];
    let bytes = vec![0; BUFFER];
    let mut meter = Meter::start(options.millis);
    for (mark, connection) in connections.iter_mut().enumerate() {
        connection.unsent = each as usize * length;
        connection.write(&bytes, &poll, mark as u64)?;
    }
    let mut events = Vec::with_capacity(EVENTS);
    let mut answered = 0;
    while meter.goes_on(answered)? {
        answered = 0;
        wait(&poll, &mut events)?;
        for event in &events {
            let mark = event.data.u64();
            let connection = &mut connections[mark as usize];
            let Some(whole) = connection.read(&mut buffer, response)? else { bail!("the server has closed") };
            answered += whole as u64;
            connection.unsent += whole * length;
            connection.write(&bytes, &poll, mark)?;
        }
    }
    Ok(meter)
}

/// Events that are there; none is waited for.
fn wait(poll: &impl AsFd, events: &mut Vec<epoll::Event>) -> Result<()> {
    events.clear();
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    match epoll::wait(poll, rustix::buffer::spare_capacity(events), Some(&now)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
