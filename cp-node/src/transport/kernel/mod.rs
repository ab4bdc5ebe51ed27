//! Homa by the kernel's module: sockets of protocol 146, whose messages come to pages that this process has given the
//! kernel. Source: homa-protocol.md 6.1, 6.2 (the module of July 2026).
//!
//! | module | holds |
//! | --- | --- |
//! | [`abi`] | the control structures, byte for byte |
//! | `sys` | a socket and its pages: the system calls |
//! | `client`, `server` | the threads of ports, over any [`Socket`] |

mod abi;
mod client;
#[cfg(test)]
mod fake;
mod server;
mod sys;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use self::abi::{RecvArgs, SendArgs};
use self::sys::KernelSocket;
use crate::arrivals::Arrivals;
use crate::cli::{ClientOptions, Common, ServerOptions};
use crate::client::ClientPort;
use crate::errors::Missing;
use crate::log::Log;
use crate::message::HEADER_LEN;
use crate::transport::{ClientHandle, ServerCounters, ServerHandle};
use crate::workload::Distribution;

/// Longest message of Homa, bytes.
pub(crate) const MAX_MESSAGE: u32 = 1_000_000;
/// What messages have after their headers.
static FILLER: [u8; MAX_MESSAGE as usize] = [0; MAX_MESSAGE as usize];

/// How long a thread rests after an error of its socket.
const AFTER_ERROR: Duration = Duration::from_millis(10);
/// Errors of a socket in a row after which its receivers give up.
const MOST_ERRORS: u32 = 20;

/// What the kernel's sockets do, and a test's in their place.
trait Socket: Send + Sync {
    /// Sends a message in two pieces; returns the RPC's id, which is that of `args` or, of a request, a new one.
    fn send(&self, to: SocketAddr, pieces: [&[u8]; 2], args: SendArgs) -> io::Result<u64>;
    /// Gives back the pages in `args`, waits for a message, and returns its length and its sender's address.
    ///
    /// # Errors
    /// With an id in `args` an RPC has failed so; otherwise it is the socket.
    fn receive(&self, args: &mut RecvArgs) -> io::Result<(usize, SocketAddr)>;
    /// The first bytes of the message in the pages of `args`.
    fn head(&self, args: &RecvArgs) -> [u8; HEADER_LEN];
    /// Ends all waiting in `receive`, now and later, with `ESHUTDOWN`.
    fn shutdown(&self);
}

/// The loop of a receiver: the `next` message with the same `RecvArgs`, until the port is closed or its socket fails for good.
fn receive_until(closing: &AtomicBool, log: &Log, mut next: impl FnMut(&mut RecvArgs) -> io::Result<()>) {
    let (mut args, mut errors) = (RecvArgs::default(), 0);
    while !closing.load(Ordering::Acquire) && errors < MOST_ERRORS {
        match next(&mut args) {
            Ok(()) => errors = 0,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) if err.raw_os_error() == Some(libc::ESHUTDOWN) => return,
            Err(err) => {
                log.line(format_args!("ERROR: receiving from a Homa socket failed: {err}"));
                errors += 1;
                thread::sleep(AFTER_ERROR);
            }
        }
    }
}

/// Opens the client ports and starts their threads; `loads` in the order of `ports`. With `--unloaded` it measures, and
/// returns when that is done.
///
/// # Errors
/// [`Missing`] if the module is not loaded; a thread that cannot be started.
pub(crate) fn open_client(
    options: &ClientOptions,
    ports: &[Arc<ClientPort>],
    loads: Vec<Arrivals>,
    lengths: &Distribution,
    log: &Log,
) -> Result<Box<dyn ClientHandle>> {
    let open = |_: &Arc<ClientPort>| open(&options.common, None).map(Arc::new);
    let sockets = ports.iter().map(open).collect::<Result<Vec<_>>>()?;
    client::start(options, ports, sockets, loads, lengths, log)
}

/// Opens the server ports and starts their threads.
///
/// # Errors
/// As [`open_client`], or a port is in use.
pub(crate) fn open_server(
    options: &ServerOptions,
    counters: &[Arc<ServerCounters>],
    log: &Log,
) -> Result<Box<dyn ServerHandle>> {
    let first = options.common.first_port();
    let sockets =
        (0..options.ports).map(|index| open(&options.common, Some(first.saturating_add(index))).map(Arc::new));
    let sockets = sockets.collect::<Result<Vec<_>>>()?;
    server::start(options, sockets, counters, log)
}

/// A socket of the kernel's module with its pages; a server's if it has a `port`.
fn open(options: &Common, port: Option<u16>) -> Result<KernelSocket> {
    KernelSocket::open(options.ipv6, port, options.buf_bpages).map_err(|err| explain(err, options.ipv6, port))
}

/// Why there is no socket, and what to do.
fn explain(err: io::Error, ipv6: bool, port: Option<u16>) -> anyhow::Error {
    let absent = [libc::EPROTONOSUPPORT, libc::ESOCKTNOSUPPORT, libc::EPROTOTYPE];
    if err.raw_os_error().is_some_and(|code| absent.contains(&code)) {
        let family = if ipv6 { " for IPv6" } else { "" };
        return Missing(format!(
            "the kernel of this machine has no Homa{family} ({err}): load its module there (`sudo insmod homa.ko`, `lsmod | \
             grep homa` shows it), or use --protocol homa, this program's own stack, which needs none"
        ))
        .into();
    }
    let port = port.map(|port| format!(" for port {port}")).unwrap_or_default();
    let hint = match err.raw_os_error() {
        Some(libc::EADDRINUSE) => "; another server has it: stop that, or give another --first-port",
        Some(libc::EINVAL) => {
            "; servers have ports from 1 to 32767 (--first-port), and the pages of --buf-bpages must be \
                               at least 2 MB and one for each core"
        }
        _ => "",
    };
    anyhow::anyhow!("can't open a Homa socket of the kernel{port}: {err}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_of_a_socket_is_said_with_what_to_do() {
        let error = |code, port| explain(io::Error::from_raw_os_error(code), false, port);
        let absent = error(libc::EPROTONOSUPPORT, None);
        assert_eq!(crate::errors::exit_code(&absent), 3);
        assert!(absent.to_string().contains("sudo insmod homa.ko"), "{absent}");
        let used = error(libc::EADDRINUSE, Some(4000)).to_string();
        assert!(used.contains("for port 4000") && used.contains("--first-port"), "{used}");
        assert!(error(libc::EINVAL, Some(40_000)).to_string().contains("1 to 32767"));
    }

    /// Where the module is not loaded, as on most machines that build this, it is said.
    #[test]
    fn a_kernel_without_the_module_is_told_of() {
        match KernelSocket::open(false, None, 100) {
            Ok(_) => {} // the module is there
            Err(err) => {
                let text = explain(err, false, None).to_string();
                assert!(text.contains("no Homa") || text.contains("can't open a Homa socket"), "{text}");
            }
        }
    }
}
