//! Two hosts joined by memory: for tests and examples that need neither privileges nor a network.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Content, Device, Rx};
use crate::metrics::{DropReason, Metrics};
use crate::proto::{Config, Endpoint, Forward, Shard, Target, Transmit};
use crate::trace::Recorder;
use crate::units::{Instant, Nanos};
use crate::wire::Kind;

/// Addresses of the two hosts of a [`pair`].
pub const ADDRS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2))];

/// Packets that may lie in one direction; more are lost, as in a switch.
const QUEUE_PACKETS: usize = 4096;

#[derive(Debug)]
struct Packet {
    priority: u8,
    bytes: Vec<u8>,
}

/// Where packets for one host lie.
#[derive(Debug, Default)]
struct Inbox {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    packets: VecDeque<Packet>,
    /// Memory of packets that were taken.
    spare: Vec<Vec<u8>>,
    /// What other workers of the host have handed on.
    forwards: VecDeque<Forward>,
    woken: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of two devices that are joined by queues in memory: what one sends, the other receives, in order and at once.
#[derive(Debug)]
pub struct MemoryDevice {
    peer: IpAddr,
    inbox: Arc<Inbox>,
    /// One for each worker of the other host.
    outboxes: Box<[Arc<Inbox>]>,
    held: Vec<Packet>,
    slot: Vec<u8>,
}

impl Device for MemoryDevice {
    fn fetch(&mut self, most: usize) -> usize {
        let mut inbox = self.inbox.lock();
        while self.held.len() < most {
            let Some(packet) = inbox.packets.pop_front() else { break };
            self.held.push(packet);
        }
        self.held.len()
    }

    fn packet(&self, i: usize) -> Result<Rx<'_>, DropReason> {
        let Packet { priority, bytes } = &self.held[i];
        Ok(Rx { from: self.peer, priority: *priority, content: Content::Homa, bytes, wait: None })
    }

    fn release(&mut self) {
        let mut inbox = self.inbox.lock();
        inbox.spare.extend(self.held.drain(..).map(|packet| packet.bytes));
    }

    fn tx_slot(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.slot)
    }

    fn commit(&mut self, transmit: &Transmit, _: &mut Recorder, metrics: &mut Metrics) {
        if transmit.to != self.peer {
            metrics.peer_route_errors += 1;
            return;
        }
        let to = &self.outboxes[steered(&self.slot[..transmit.len], self.outboxes.len())];
        let mut outbox = to.lock();
        if outbox.packets.len() >= QUEUE_PACKETS {
            match transmit.kind {
                Kind::Data => metrics.data_xmit_errors += 1,
                _ => metrics.control_xmit_errors += 1,
            }
            return;
        }
        let mut bytes = outbox.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(&self.slot[..transmit.len]);
        outbox.packets.push_back(Packet { priority: transmit.priority.get(), bytes });
        drop(outbox);
        to.filled.notify_one();
    }
}

/// An endpoint on a [`MemoryDevice`], with the system's clock: like [`driver::Host`](crate::driver::Host), for tests.
#[derive(Debug)]
pub struct MemoryHost {
    core: Endpoint,
    device: MemoryDevice,
    begin: std::time::Instant,
    /// The workers of this host, this one among them; none if it is the only one.
    workers: Box<[Arc<Inbox>]>,
}

/// Two hosts with the default parameters, at [`ADDRS`].
pub fn pair() -> (MemoryHost, MemoryHost) {
    pair_with(&Config::default())
}

/// Two hosts with the parameters `config`, at [`ADDRS`].
pub fn pair_with(config: &Config) -> (MemoryHost, MemoryHost) {
    let (a, b) = devices(config.mtu);
    let begin = std::time::Instant::now();
    let host = |device| MemoryHost { core: Endpoint::new(config.clone()), device, begin, workers: Box::default() };
    (host(a), host(b))
}

/// Two hosts at [`ADDRS`], of so many workers each, at least one: like [`driver::open_group`](crate::driver::open_group),
/// for tests. The workers of a host divide the parameters `config` among them.
///
/// # Panics
///
/// If a host is to have no worker.
pub fn groups(config: &Config, workers: [usize; 2]) -> [Vec<MemoryHost>; 2] {
    let inboxes = workers.map(|count| (0..count).map(|_| Arc::default()).collect::<Box<[Arc<Inbox>]>>());
    let begin = std::time::Instant::now();
    [0, 1].map(|own| {
        let count = u32::try_from(workers[own]).expect("there is memory for each worker");
        let config = config.divided(workers[own]);
        let host = |index| {
            let shard = Shard::new(index, count).expect("it is one of them");
            let device = device(ADDRS[1 - own], &inboxes[own][index as usize], &inboxes[1 - own], config.mtu);
            let workers = if count > 1 { inboxes[own].clone() } else { Box::default() };
            MemoryHost { core: Endpoint::new(Config { shard, ..config.clone() }), device, begin, workers }
        };
        assert!(count > 0, "expected at least one worker a host, found {workers:?}");
        (0..count).map(host).collect()
    })
}

/// Two devices for packets of at most `mtu` bytes, at [`ADDRS`].
pub fn devices(mtu: usize) -> (MemoryDevice, MemoryDevice) {
    let (a, b) = (Arc::<Inbox>::default(), Arc::<Inbox>::default());
    (device(ADDRS[1], &a, &[Arc::clone(&b)], mtu), device(ADDRS[0], &b, &[Arc::clone(&a)], mtu))
}

fn device(peer: IpAddr, inbox: &Arc<Inbox>, outboxes: &[Arc<Inbox>], mtu: usize) -> MemoryDevice {
    MemoryDevice { peer, inbox: Arc::clone(inbox), outboxes: outboxes.into(), held: Vec::new(), slot: vec![0; mtu] }
}

/// Which of `count` workers gets a packet: what is for all of them goes to the first, which hands it on.
fn steered(bytes: &[u8], count: usize) -> usize {
    let shard = u32::try_from(count).ok().filter(|count| *count > 1).and_then(|count| Shard::new(0, count));
    match shard.map(|shard| shard.of_packet(bytes)) {
        Some(Target::One(index)) => index as usize,
        Some(Target::All) | None => 0,
    }
}

impl MemoryHost {
    /// Now: time since the host was made.
    pub fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// The protocol: calls, replies, events.
    pub fn core(&mut self) -> &mut Endpoint {
        &mut self.core
    }

    /// Receives, does what is due, and sends; never blocks. True if there was anything to do.
    pub fn turn(&mut self) -> bool {
        let now = self.now();
        let handed = self.take_forwards(now);
        let busy = super::turn(&mut self.core, &mut self.device, now);
        self.hand_on();
        handed || busy
    }

    /// Takes what other workers have handed on; true if there was anything.
    fn take_forwards(&mut self, now: Instant) -> bool {
        if self.workers.is_empty() {
            return false;
        }
        let forwards = std::mem::take(&mut self.device.inbox.lock().forwards);
        forwards.iter().for_each(|forward| self.core.handle_forward(now, forward));
        !forwards.is_empty()
    }

    /// Hands on what the core has for other workers.
    fn hand_on(&mut self) {
        while let Some(forward) = self.core.poll_forward() {
            for (index, inbox) in (0..).zip(&self.workers) {
                if !Arc::ptr_eq(inbox, &self.device.inbox) && forward.to.includes(index) {
                    inbox.lock().forwards.push_back(forward.clone());
                    inbox.filled.notify_one();
                }
            }
        }
    }

    /// Sends what there is to send. If that is nothing, sleeps until a packet comes, a timer of the protocol is due,
    /// `until` has come or a [`MemoryWaker`] calls.
    pub fn wait(&mut self, until: Option<Instant>) {
        let now = self.now();
        if super::transmit(&mut self.core, &mut self.device, now) {
            return;
        }
        let until = until.into_iter().chain(self.core.next_deadline()).min();
        // Without a time the thread may as well look once a second.
        let most = until.map_or(Nanos::from_secs(1), |at| at.since(now));
        let idle = |state: &mut State| state.packets.is_empty() && state.forwards.is_empty() && !state.woken;
        let inbox = self.device.inbox.lock();
        let timeout = Duration::from_nanos(most.as_nanos());
        let result = self.device.inbox.filled.wait_timeout_while(inbox, timeout, idle);
        result.unwrap_or_else(PoisonError::into_inner).0.woken = false;
    }

    /// For other threads to end a [`Self::wait`].
    pub fn waker(&self) -> MemoryWaker {
        MemoryWaker(Arc::clone(&self.device.inbox))
    }
}

/// Ends a sleeping [`MemoryHost::wait`] from another thread.
#[derive(Clone, Debug)]
pub struct MemoryWaker(Arc<Inbox>);

impl MemoryWaker {
    /// Has the current or next [`MemoryHost::wait`] return at once.
    pub fn wake(&self) {
        self.0.lock().woken = true;
        self.0.filled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, Payload};
    use std::net::SocketAddr;

    #[test]
    fn two_hosts_in_one_thread_exchange_messages() {
        let (mut client, mut server) = pair();
        server.core().bind(1).unwrap();
        let port = client.core().client_port().unwrap();
        let (now, to) = (client.now(), SocketAddr::new(ADDRS[1], 1));
        client.core().call(now, port, to, Payload::from(vec![1; 100_000]), 5).unwrap();
        loop {
            client.turn();
            server.turn();
            if let Some(Event::Request { rpc, msg, peer, .. }) = server.core().poll_event() {
                assert_eq!((peer.ip(), msg.len()), (ADDRS[0], 100_000));
                server.core().release(msg);
                let now = server.now();
                server.core().reply(now, rpc, Payload::from(vec![2; 10])).unwrap();
            }
            if let Some(Event::Response { cookie, msg, .. }) = client.core().poll_event() {
                assert_eq!((cookie, msg.len()), (5, 10));
                return client.core().release(msg);
            }
        }
    }

    #[test]
    fn each_packet_comes_to_the_worker_that_has_its_rpc() {
        let [mut clients, mut servers] = groups(&Config::default(), [2, 3]);
        servers.iter_mut().for_each(|host| host.core().bind(1).unwrap());
        let to = SocketAddr::new(ADDRS[1], 1);
        for host in &mut clients {
            let (now, port) = (host.now(), host.core().client_port().unwrap());
            for cookie in 0..30 {
                host.core().call(now, port, to, Payload::from(vec![1; 5_000]), cookie).unwrap();
            }
        }
        let (mut runs, mut ends) = ([0; 3], [0; 2]);
        while ends != [30, 30] {
            for (host, runs) in servers.iter_mut().zip(&mut runs) {
                host.turn();
                while let Some(Event::Request { rpc, msg, .. }) = host.core().poll_event() {
                    host.core().release(msg);
                    let now = host.now();
                    host.core().reply(now, rpc, Payload::from(vec![2; 10])).unwrap();
                    *runs += 1;
                }
            }
            for (host, ends) in clients.iter_mut().zip(&mut ends) {
                host.turn();
                while let Some(Event::Response { msg, .. }) = host.core().poll_event() {
                    host.core().release(msg);
                    *ends += 1;
                }
            }
        }
        assert_eq!(runs, [20; 3]);
        let forwarded = |host: &mut MemoryHost| host.core().metrics.shard_acks_forwarded;
        let acks: u64 = servers.iter_mut().map(forwarded).sum();
        assert!(acks > 0, "acknowledgements that came along with other workers' packets");
        // Nothing but what is for all is handed on.
        let strays = |host: &mut MemoryHost| {
            let metrics = &host.core().metrics;
            (metrics.shard_packets_forwarded, metrics.packets_rcvd[Kind::Cutoffs.index()])
        };
        for host in clients.iter_mut().chain(&mut servers) {
            let (forwarded, cutoffs) = strays(host);
            assert!(forwarded <= cutoffs, "{forwarded} packets handed on, {cutoffs} CUTOFFS");
        }
    }

    #[test]
    fn a_sleeping_host_is_woken_and_a_wake_is_not_forgotten() {
        let (mut host, _other) = pair();
        let waker = host.waker();
        waker.wake();
        let begin = std::time::Instant::now();
        host.wait(None);
        assert!(begin.elapsed() < Duration::from_millis(900), "the wake came before the wait");
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(10));
            waker.wake();
        });
        host.wait(None);
        thread.join().unwrap();
        assert!(begin.elapsed() < Duration::from_millis(900));
    }
}
