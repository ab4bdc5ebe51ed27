//! Several hosts on one interface and address, one a worker thread, that share nothing while packets flow.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::host::Waker;
use super::steering;
use super::{DeviceKind, Host, HostConfig, OpenError};
use crate::proto::{Endpoint, Forward, News, Shard, Target};
use crate::units::Instant;

/// What may wait for a worker; more is lost, as packets are.
const INBOX: usize = 1024;

/// Opens `count` hosts that share one interface, its addresses and its packets, each for a thread of its own.
///
/// The kernel gives each packet to the worker that has the RPC. What is about several RPCs or the peer is handed on
/// between workers: acknowledgements that came with another RPC's packet, CUTOFFS, FREEZE. A client calls from any
/// worker; a server binds its port on each, and requests come to all of them in turn. Workers divide the parameters
/// that limit a host ([`Config::divided`](crate::Config::divided)) and are the successive cores of a time trace, from
/// [`HostConfig::trace_core`] on.
///
/// # Errors
///
/// Those of [`Host::open`]; [`OpenError::Workers`] for none or too many, [`OpenError::WorkersByXdp`] for several by
/// AF_XDP.
pub fn open_group(config: &HostConfig, count: usize) -> Result<Vec<Host>, OpenError> {
    let shards = |index| Shard::new(index, u32::try_from(count).ok()?);
    if count == 0 || count > MOST_WORKERS {
        return Err(OpenError::Workers { count, most: MOST_WORKERS });
    }
    if count > 1 && config.device != DeviceKind::AfPacket {
        return Err(OpenError::WorkersByXdp);
    }
    let system = |what: &'static str| move |source: io::Error| OpenError::System { what, source };
    let mut config = config.clone();
    config.homa = config.homa.divided(count);
    if config.seed.is_none() {
        config.seed = Some(super::sys::random_u64().map_err(system("a random number"))?);
    }
    let mut hosts = Vec::with_capacity(count);
    for shard in (0..).map_while(shards) {
        let mut config = config.clone();
        config.homa.shard = shard;
        config.trace_core += shard.index() as u16;
        hosts.push(Host::open(config)?);
    }
    if count > 1 {
        let sockets: Vec<_> = hosts.iter().filter_map(Host::packet_socket).collect();
        steering::join(&sockets).map_err(system("a fan-out of packets to workers (Linux 5.10)"))?;
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..count).map(|_| sync_channel(INBOX)).unzip();
        let ways: Vec<_> = senders.into_iter().zip(hosts.iter().map(Host::waker)).collect();
        for (index, (host, inbox)) in hosts.iter_mut().zip(inboxes).enumerate() {
            host.set_links(Links { index: index as u32, ways: ways.clone(), inbox });
        }
    }
    Ok(hosts)
}

/// Workers of a host at most: the kernel's limit for sockets that share packets.
pub const MOST_WORKERS: usize = 256;

/// A worker's ways to the others.
#[derive(Debug)]
pub(super) struct Links {
    index: u32,
    /// To each worker, itself too.
    ways: Vec<(SyncSender<Forward>, Waker)>,
    inbox: Receiver<Forward>,
}

impl Links {
    /// Takes what others have handed on; true if there was anything.
    #[inline]
    pub(super) fn receive(&self, now: Instant, core: &mut Endpoint) -> bool {
        let mut any = false;
        for forward in self.inbox.try_iter() {
            core.handle_forward(now, &forward);
            any = true;
        }
        any
    }

    /// Hands on what the core has for others.
    #[inline]
    pub(super) fn send(&self, core: &mut Endpoint) {
        while let Some(forward) = core.poll_forward() {
            self.hand_on(forward, core);
        }
    }

    fn hand_on(&self, forward: Forward, core: &mut Endpoint) {
        match forward.to {
            Target::One(index) => self.give(index, forward, core),
            Target::All => {
                for index in (0..self.ways.len() as u32).filter(|i| *i != self.index) {
                    self.give(index, forward.clone(), core);
                }
            }
        }
    }

    fn give(&self, index: u32, forward: Forward, core: &mut Endpoint) {
        let Some((sender, waker)) = self.ways.get(index as usize) else { return };
        // An RPC that waits for its acknowledgement has timers: its worker does not sleep long.
        let wake = !matches!(forward.news, News::Acked { .. });
        match sender.try_send(forward) {
            Ok(()) if wake => waker.wake(),
            Ok(()) => {}
            Err(_) => core.metrics.shard_forwards_lost += 1,
        }
    }
}
