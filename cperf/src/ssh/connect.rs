//! From a host's name to a session: connected, the host's key known, logged in.

use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use ssh2::{MethodType, Session};

use super::cluster::Access;
use super::hostkeys::{self, Known};
use super::{auth, pump::Pump};
use crate::error::Stop;

/// How often a handshake is tried: an sshd drops some of many connections that come at once (MaxStartups).
const TRIES: u32 = 4;
/// Wait before the second try; each later one is twice as long.
const PAUSE: Duration = Duration::from_millis(250);

/// A session and its socket.
pub(super) struct Connection {
    pub(super) session: Session,
    pub(super) socket: OwnedFd,
}

/// Connects to a host, directly or through another one's session.
///
/// # Errors
/// [`Stop::Missing`], naming the host and what to do: it can't be reached, its key is unknown, it does not let us in.
pub(super) fn open(access: &Access, jump: Option<&Pump>) -> anyhow::Result<Connection> {
    let mut unknown = None;
    for (at, kinds) in hostkeys::preferences(access).iter().enumerate() {
        let connection = match handshake(access, jump, kinds) {
            Ok(connection) => connection,
            // The host has no key of this kind alone.
            Err(_) if at > 0 => continue,
            Err(err) => return Err(err),
        };
        match hostkeys::check(&connection.session, access)? {
            Known::Yes => {
                auth::log_in(&connection.session, access)?;
                return Ok(connection);
            }
            known @ Known::Other(_) => return Err(hostkeys::refused(access, &known).into()),
            known @ Known::No(_) => drop(unknown.get_or_insert(known)),
        }
    }
    let unknown = unknown.unwrap_or(Known::No(String::new()));
    Err(hostkeys::refused(access, &unknown).into())
}

/// Connects and agrees on keys, again if the sshd is too busy.
fn handshake(access: &Access, jump: Option<&Pump>, kinds: &str) -> anyhow::Result<Connection> {
    let mut pause = PAUSE;
    let mut attempt = 1;
    loop {
        let mut session = Session::new().context("libssh2 gives no session")?;
        session.method_pref(MethodType::HostKey, kinds)?;
        session.set_timeout(u32::try_from(access.timeout.as_millis()).unwrap_or(u32::MAX));
        let socket = connect(access, jump, &mut session)?;
        match session.handshake() {
            Ok(()) => return Ok(Connection { session, socket }),
            Err(_) if attempt < TRIES => {
                std::thread::sleep(pause);
                pause *= 2;
                attempt += 1;
            }
            Err(err) => {
                let text = format!("{}: no SSH handshake with port {}: {err}", access.host, access.port);
                return Err(Stop::Missing(text).into());
            }
        }
    }
}

/// A stream to the host's sshd for `session`; the same socket again is returned, to wait for.
fn connect(access: &Access, jump: Option<&Pump>, session: &mut Session) -> anyhow::Result<OwnedFd> {
    let Access { host, port, timeout, .. } = access;
    if let Some(jump) = jump {
        let stream = jump
            .dial(host, *port, *timeout)
            .map_err(|why| Stop::Missing(format!("{host}: the jump host does not reach its port {port}: {why}")))?;
        let socket = stream.try_clone()?.into();
        session.set_tcp_stream(stream);
        return Ok(socket);
    }
    let stream = dial(host, *port, *timeout)
        .map_err(|err| Stop::Missing(format!("{host}: its port {port} cannot be reached: {err:#}")))?;
    // Frames are small and wait for answers.
    stream.set_nodelay(true)?;
    let socket = stream.try_clone()?.into();
    session.set_tcp_stream(stream);
    Ok(socket)
}

fn dial(host: &str, port: u16, limit: Duration) -> anyhow::Result<TcpStream> {
    let addresses = (host, port).to_socket_addrs().context("looking up its address")?;
    let mut last = anyhow!("it has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, limit) {
            Ok(stream) => return Ok(stream),
            Err(err) => last = anyhow!("{address}: {err}"),
        }
    }
    Err(last)
}
