//! TCP server ports: threads that share an event set and answer every request with its own header.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result};

use super::outbox::Outbox;
use super::socket::{self, EventSet, Ready, Signal};
use super::{READ_SIZE, SPIN_IDLE, SPIN_YIELD, is_private};
use crate::cli::{ServerOptions, TcpWait};
use crate::log::Log;
use crate::message::MessageReader;
use crate::transport::{ServerCounters, ServerHandle, pin_to};

const LISTENER: u64 = 0;
const STOP: u64 = 1;
const FIRST_CONNECTION: u64 = 2;

/// Opens the ports that `options` ask for, one thread set each; counters in the order of the ports.
///
/// # Errors
/// If a port is taken, or `--pin` or `--tcp-cc` is impossible; no port is open then.
pub(crate) fn open_server(
    options: &ServerOptions,
    counters: &[Arc<ServerCounters>],
    log: &Log,
) -> Result<Box<dyn ServerHandle>> {
    let mut server = TcpServer { ports: Vec::new() };
    for (index, counters) in counters.iter().enumerate() {
        let number = u32::from(options.common.first_port()) + index as u32;
        let number =
            u16::try_from(number).context("the last server port is above 65535; lower --first-port or --ports")?;
        let port = Port::open(number, options, Arc::clone(counters), log.clone())?;
        let mut running = Running { port: Arc::new(port), threads: Vec::new() };
        let started = (0..options.port_threads).try_for_each(|thread| running.spawn(thread, options));
        // Also a port that is only half started is closed when `server` is dropped.
        server.ports.push(running);
        started?;
        log.line(format_args!("Successfully bound to TCP port {number}"));
    }
    Ok(Box::new(server))
}

/// All ports of one `server` command.
struct TcpServer {
    ports: Vec<Running>,
}

struct Running {
    port: Arc<Port>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    fn spawn(&mut self, thread: u16, options: &ServerOptions) -> Result<()> {
        let port = Arc::clone(&self.port);
        let wait = options.common.tcp_wait;
        let pin = options.pin;
        let (started, pinned) = std::sync::mpsc::sync_channel(1);
        let run = move || {
            let result = pin.map_or(Ok(()), pin_to);
            let ok = result.is_ok();
            // The receiver waits for exactly this message.
            let _ = started.send(result);
            if ok {
                port.run(wait);
            }
        };
        let name = format!("S{}.{thread}", self.port.number);
        self.threads.push(thread::Builder::new().name(name).spawn(run).context("can't start a server thread")?);
        pinned.recv().context("a server thread ended at once")?
    }
}

impl ServerHandle for TcpServer {
    fn close(&mut self) {
        for running in &self.ports {
            running.port.stopping.store(true, Ordering::Release);
            running.port.stop.set();
        }
        for running in &mut self.ports {
            for thread in running.threads.drain(..) {
                // A panicked thread has told stderr.
                let _ = thread.join();
            }
            for conn in running.port.connections().drain() {
                // Connections that are already gone need no end.
                let _ = conn.1.stream.shutdown(Shutdown::Both);
            }
        }
        self.ports.clear();
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the threads of a port share.
struct Port {
    number: u16,
    listener: TcpListener,
    events: EventSet,
    stop: Signal,
    stopping: AtomicBool,
    connections: Mutex<HashMap<u64, Arc<Conn>>>,
    next_token: AtomicU64,
    counters: Arc<ServerCounters>,
    log: Log,
}

struct Conn {
    stream: TcpStream,
    peer: SocketAddr,
    state: Mutex<ConnState>,
}

#[derive(Default)]
struct ConnState {
    reader: MessageReader,
    outbox: Outbox,
}

/// One thread's look at its connections.
struct Look {
    buffer: Vec<u8>,
    /// No request was found since it began.
    fresh: bool,
}

/// How a connection came to its end.
enum End {
    Peer,
    Error(String),
}

impl Port {
    fn open(number: u16, options: &ServerOptions, counters: Arc<ServerCounters>, log: Log) -> Result<Self> {
        let listener = socket::listen(number, options.common.ipv6, options.common.tcp_cc.as_deref())?;
        let events = EventSet::new()?;
        let stop = Signal::new()?;
        events.add(&listener, LISTENER, false)?;
        events.add(&stop, STOP, false)?;
        Ok(Self {
            number,
            listener,
            events,
            stop,
            stopping: AtomicBool::new(false),
            connections: Mutex::default(),
            next_token: AtomicU64::new(FIRST_CONNECTION),
            counters,
            log,
        })
    }

    /// The loop of one thread, until the port is closed.
    fn run(&self, wait: TcpWait) {
        let mut look = Look { buffer: vec![0; READ_SIZE], fresh: true };
        let mut ready = Vec::new();
        while !self.stopping.load(Ordering::Acquire) {
            if let Err(error) = self.events.wait(&mut ready) {
                self.log.line(format_args!("ERROR: TCP port {}: waiting failed: {error}", self.number));
                return;
            }
            look.fresh = true;
            for event in ready.drain(..) {
                self.handle(event, &mut look);
            }
            if wait == TcpWait::Spin {
                self.spin(&mut look);
            }
        }
    }

    fn handle(&self, event: Ready, look: &mut Look) {
        match event.token {
            LISTENER => self.accept(),
            STOP => {}
            token => {
                let conn = self.connections().get(&token).cloned();
                if let Some(conn) = conn {
                    let state = conn.state.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Err(end) = self.serve(&conn, state, event.ends, look) {
                        self.drop_connection(token, &conn, end);
                    }
                }
            }
        }
    }

    /// Reads all connections in turn, without sleeping, until none had anything for [`SPIN_IDLE`].
    fn spin(&self, look: &mut Look) {
        let mut idle_since = Instant::now();
        let mut empty = 0;
        while !self.stopping.load(Ordering::Acquire) && idle_since.elapsed() < SPIN_IDLE {
            self.accept();
            let connections: Vec<_> = self.connections().iter().map(|(t, c)| (*t, Arc::clone(c))).collect();
            // The list is taken anew now and then only: taking it costs more than a read.
            for _ in 0..SPIN_YIELD {
                let mut any = false;
                look.fresh = true;
                for (token, conn) in &connections {
                    match self.try_serve(conn, look) {
                        Ok(worked) => any |= worked,
                        Err(end) => {
                            self.drop_connection(*token, conn, end);
                            return;
                        }
                    }
                }
                empty = if any { 0 } else { empty + 1 };
                if any {
                    idle_since = Instant::now();
                }
            }
            if empty >= SPIN_YIELD {
                thread::yield_now();
            }
        }
    }

    /// As [`Port::serve`], but leaves a connection alone that another thread has in hand.
    fn try_serve(&self, conn: &Conn, look: &mut Look) -> Result<bool, End> {
        match conn.state.try_lock() {
            Ok(state) => self.serve(conn, state, false, look),
            Err(TryLockError::Poisoned(state)) => self.serve(conn, state.into_inner(), false, look),
            Err(TryLockError::WouldBlock) => Ok(false),
        }
    }

    /// Reads what there is, and the end of the stream if it `ends`, and answers each whole request; true if there was
    /// anything.
    fn serve(
        &self,
        conn: &Conn,
        mut state: MutexGuard<'_, ConnState>,
        ends: bool,
        look: &mut Look,
    ) -> Result<bool, End> {
        let Look { buffer, fresh } = look;
        let mut any = false;
        loop {
            let got = match (&conn.stream).read(buffer) {
                Ok(0) => return Err(End::Peer),
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Err(End::Peer),
                Err(e) => return Err(End::Error(e.to_string())),
            };
            any = true;
            let ConnState { reader, outbox } = &mut *state;
            let fed = reader.feed(&buffer[..got], |request| {
                let response = request.response();
                self.counters.request_bytes.fetch_add(request.len.into(), Ordering::Relaxed);
                self.counters.response_bytes.fetch_add(response.len.into(), Ordering::Relaxed);
                self.counters.looks.fetch_add(std::mem::take(fresh).into(), Ordering::Relaxed);
                self.counters.requests.fetch_add(1, Ordering::Relaxed);
                outbox.push(response);
            });
            fed.map_err(|e| End::Error(e.to_string()))?;
            // A short read has emptied the socket; later data is a new event.
            if got < buffer.len() && !ends {
                break;
            }
            flush(conn, &mut state.outbox)?;
        }
        flush(conn, &mut state.outbox)?;
        Ok(any)
    }

    fn accept(&self) {
        loop {
            let (stream, peer) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    self.log.line(format_args!("ERROR: TCP port {}: can't accept: {e}", self.number));
                    return;
                }
            };
            if !is_private(peer.ip()) {
                self.log
                    .line(format_args!("Refused connection on TCP port {} from public address {peer}", self.number));
                continue;
            }
            if let Err(error) = self.admit(stream, peer) {
                self.log.line(format_args!("ERROR: TCP port {}: connection from {peer}: {error}", self.number));
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        let conn = Arc::new(Conn { stream, peer, state: Mutex::default() });
        self.log.line(format_args!("tcp_server on port {} accepted connection from {peer}", self.number));
        // Known before its first event.
        self.connections().insert(token, Arc::clone(&conn));
        self.events.add(&conn.stream, token, true).inspect_err(|_| {
            self.connections().remove(&token);
        })
    }

    fn drop_connection(&self, token: u64, conn: &Conn, end: End) {
        if self.connections().remove(&token).is_none() {
            return;
        }
        self.events.remove(&conn.stream);
        let (port, peer) = (self.number, conn.peer);
        match end {
            End::Peer => {
                self.log.line(format_args!(
                    "Closing client connection: TCP connection on port {port} closed by peer {peer}"
                ));
            }
            End::Error(why) => {
                self.log.line(format_args!("ERROR: closing TCP connection on port {port} from {peer}: {why}"));
            }
        }
        // Told before the peer sees it. A connection that the peer has reset is already shut down.
        let _ = conn.stream.shutdown(Shutdown::Both);
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<Conn>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn flush(conn: &Conn, outbox: &mut Outbox) -> Result<(), End> {
    if outbox.is_empty() {
        return Ok(());
    }
    match outbox.flush(&conn.stream) {
        Ok(_) => Ok(()),
        Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Err(End::Peer),
        Err(e) => Err(End::Error(e.to_string())),
    }
}
