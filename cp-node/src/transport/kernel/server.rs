//! Server ports over the kernel's sockets: threads that wait for requests and answer them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};

use super::abi::{RecvArgs, SendArgs};
use super::{FILLER, MAX_MESSAGE, Socket, receive_until};
use crate::cli::ServerOptions;
use crate::log::Log;
use crate::message::{HEADER_LEN, Header};
use crate::transport::{ServerCounters, ServerHandle, pin_to};

/// Starts the threads of all ports.
pub(super) fn start<S: Socket + 'static>(
    options: &ServerOptions,
    sockets: Vec<Arc<S>>,
    counters: &[Arc<ServerCounters>],
    log: &Log,
) -> Result<Box<dyn ServerHandle>> {
    let closing = Arc::new(AtomicBool::new(false));
    let mut server = KernelServer { sockets: sockets.clone(), closing: Arc::clone(&closing), threads: Vec::new() };
    for (index, (socket, counters)) in sockets.into_iter().zip(counters).enumerate() {
        for thread in 0..options.port_threads {
            let port = Port { socket: Arc::clone(&socket), counters: Arc::clone(counters), log: log.clone() };
            let (closing, pin) = (Arc::clone(&closing), options.pin);
            let run = move || {
                if let Some(Err(err)) = pin.map(pin_to) {
                    port.log.line(format_args!("ERROR: {err:#}"));
                }
                port.serve(&closing);
            };
            let name = format!("S{index}.{thread}");
            // What was started before is closed when `server` is dropped.
            server.threads.push(thread::Builder::new().name(name).spawn(run).context("can't start a server thread")?);
        }
    }
    Ok(Box::new(server))
}

/// All ports of one `server` command.
struct KernelServer<S: Socket> {
    sockets: Vec<Arc<S>>,
    closing: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl<S: Socket> ServerHandle for KernelServer<S> {
    fn close(&mut self) {
        self.closing.store(true, Ordering::Release);
        self.sockets.drain(..).for_each(|socket| socket.shutdown());
        for thread in self.threads.drain(..) {
            // A panicked thread has told stderr.
            let _ = thread.join();
        }
    }
}

impl<S: Socket> Drop for KernelServer<S> {
    fn drop(&mut self) {
        self.close();
    }
}

struct Port<S> {
    socket: Arc<S>,
    counters: Arc<ServerCounters>,
    log: Log,
}

impl<S: Socket> Port<S> {
    fn serve(&self, closing: &AtomicBool) {
        receive_until(closing, &self.log, |args| {
            args.again();
            let (length, from) = self.socket.receive(args)?;
            self.answer(args, length, from);
            Ok(())
        });
    }

    /// Answers a request as its header wants it. What is none gets no answer: its client is none of this benchmark.
    fn answer(&self, args: &RecvArgs, length: usize, from: std::net::SocketAddr) {
        let header = match Header::decode_whole(&self.socket.head(args), length) {
            Ok(header) if header.len <= MAX_MESSAGE => header.response(),
            Ok(header) => {
                return self.log.line(format_args!("ERROR: a Homa request of {} bytes from {from}", header.len));
            }
            Err(error) => {
                return self
                    .log
                    .line(format_args!("ERROR: a Homa request from {from} is none of this benchmark: {error}"));
            }
        };
        let response = SendArgs { id: args.id, ..SendArgs::default() };
        let filler = &FILLER[..header.len as usize - HEADER_LEN];
        match self.socket.send(from, [&header.encode(), filler], response) {
            Ok(_) => {
                // The same as by other transports: counted when the answer is the transport's.
                self.counters.request_bytes.fetch_add(length as u64, Ordering::Relaxed);
                self.counters.response_bytes.fetch_add(header.len.into(), Ordering::Relaxed);
                // A call of the kernel gives one.
                self.counters.looks.fetch_add(1, Ordering::Relaxed);
                self.counters.requests.fetch_add(1, Ordering::Release);
            }
            Err(err) => self.log.line(format_args!("ERROR: answering a Homa request of {from} failed: {err}")),
        }
    }
}
