//! Parameters of the protocol.

use super::announce::Announce;
use super::memory::MemoryBudget;
use super::policy::Policy;
use super::pool::PAGE_LEN;
use super::ports::FIRST_CLIENT_PORT;
use super::shard::Shard;
use crate::units::{Nanos, Priority};
use crate::wire::MAX_MESSAGE_LEN;

/// Parameters of an endpoint. Defaults are the kernel module's of July 2026 (homa-protocol.md 7).
#[derive(Clone, Debug)]
pub struct Config {
    /// First bytes of a message that go out without grants.
    pub unsched_bytes: usize,
    /// Which messages are announced before their first byte is sent.
    pub announce: Announce,
    /// Most bytes granted and not yet received, over all messages; at least 1.
    pub max_incoming: usize,
    /// Most messages granted to at once, 1 to 8: the degree of overcommitment.
    pub max_overcommit: usize,
    /// Bytes granted ahead of what one message has received; 0: `max_incoming` / (messages granted to + 1).
    pub window: usize,
    /// Who decides about grants in place of SRPT with overcommitment and grants by age, to which the other parameters of
    /// grants but `max_incoming` belong; by default nobody.
    pub grant_policy: Option<Policy>,
    /// Bytes given to the oldest message at a time, whatever its length.
    pub fifo_grant_increment: usize,
    /// Share of the link for such grants, in 1/1000; 0 turns them off.
    pub grant_fifo_fraction: u32,
    /// Time between such grants; 0: what the amount, the share and `link_mbps` make it.
    pub fifo_grant_interval: Nanos,
    /// Rate of this host's link, in Mbit/s: paces grants by age, and packets if `pacing` is on.
    pub link_mbps: u64,
    /// True if packets are sent no faster than the link carries them. Off by default: a link's rate must be known for
    /// it, and a host with few packets on the way needs none.
    pub pacing: bool,
    /// Share of `link_mbps` that pacing allows, in 1/100.
    pub max_link_usage: u32,
    /// With pacing: most time that the NIC needs for what it was given, less a packet.
    pub max_nic_backlog: Nanos,
    /// With pacing: messages shorter than this never wait for the NIC.
    pub defer_min_bytes: usize,
    /// With pacing: share of the oldest message in what is paced, in 1/1000.
    pub pacer_fifo_fraction: u32,
    /// Priority levels in use, 1 to 8.
    pub num_priorities: u8,
    /// Precedence bits for each level.
    pub priority_map: [u8; Priority::LEVELS],
    /// Unscheduled priorities of messages to this host: entry `i` is the longest message that uses level `i`.
    pub cutoffs: [u32; Priority::LEVELS],
    /// Version of `cutoffs`, not 0.
    pub cutoff_version: u16,
    /// True if `cutoffs` and `max_sched_priority` are to follow the lengths of the messages that come.
    pub auto_cutoffs: bool,
    /// Time between looks at whether they should change.
    pub cutoff_interval: Nanos,
    /// Fewest messages to judge by.
    pub cutoff_min_messages: u64,
    /// Highest level for scheduled packets.
    pub max_sched_priority: u8,
    /// Time between timer ticks, the unit of the next six.
    pub tick: Nanos,
    /// Silent ticks before the first RESEND.
    pub resend_ticks: u32,
    /// Ticks between RESENDs.
    pub resend_interval: u32,
    /// Silent ticks after which a peer is given up.
    pub timeout_ticks: u32,
    /// Ticks without grants after which a message that needs some is given up, however alive its receiver is; 0:
    /// never.
    pub stall_ticks: u32,
    /// Ticks after a whole response before its first NEED_ACK.
    pub request_ack_ticks: u32,
    /// Most ticks between NEED_ACKs, which double from `request_ack_ticks`.
    pub need_ack_max_ticks: u32,
    /// Age at which a gap in a message counts as a loss and is asked for, to begin with: it grows with the reordering
    /// observed of the peer. Also the least time before a server is asked for a response early. 0: losses are
    /// repaired by ticks alone.
    pub reorder_window: Nanos,
    /// Most that the window grows to.
    pub reorder_window_max: Nanos,
    /// Ask a server for a response that takes longer than its responses usually do, before the first tick that
    /// would: what such requests cost is bounded by the messages that the peer delivers.
    pub early_resend: bool,
    /// Time for which bytes just sent are not sent again, at least: about a round trip. It becomes the shortest one
    /// measured, if that is longer. 0: they are sent whenever they are asked for.
    pub resend_hold_off: Nanos,
    /// Servers ask for what is missing of requests by themselves. If not, they do so when their client asks for the
    /// response.
    pub server_timers: bool,
    /// Pages of 64 KiB in the receive pool; 65,535 at most.
    pub pool_pages: usize,
    /// False if the bytes of received messages are counted and thrown away, as in a simulation or a sink of load: they
    /// then need no room in the pool, and read as nothing.
    pub keep_bodies: bool,
    /// Longest message, in bytes; longer ones are neither sent nor taken. More than the 1,000,000 of the protocol only if
    /// both ends allow it and keep no bodies.
    pub longest_message: usize,
    /// How long a request is remembered after its RPC so that it runs once: at least the time after which clients
    /// give up, and twice the longest delay of a packet. A copy that comes later runs again.
    pub tombstone_time: Nanos,
    /// Most groups of 4096 ids so remembered.
    pub tombstone_chunks: usize,
    /// Bytes that servers may send unasked in response to the requests under way: further requests wait until there is
    /// room. About the buffer of the switch port to this host, less what others send to it; 0: no limit.
    pub incast_bytes: usize,
    /// Most peers known. Those that had no RPC for `tombstone_time` make room for others; while all had one, requests
    /// of new peers are dropped.
    pub max_peers: usize,
    /// Most control packets that wait to be sent when a peer asks for another.
    pub max_control: usize,
    /// Most requests that the application has not taken: more are dropped.
    pub max_unread: usize,
    /// Ticks after which a request that the application has not taken is dropped; 0: never.
    pub unread_ticks: u32,
    /// Ticks after which a request that was not answered is given up; 0: never.
    pub service_ticks: u32,
    /// How long a message waits for room before it goes before shorter ones.
    pub starve_age: Nanos,
    /// Ticks of silence of a request that is arriving after which others that wait for room get its pages; 0: never.
    pub evict_ticks: u32,
    /// Most server RPCs at once with one peer.
    pub max_peer_rpcs: usize,
    /// Most server RPCs at once.
    pub max_server_rpcs: usize,
    /// Most bytes of memory that requests on their way hold at once, 400 of them for each besides its own: further calls
    /// are refused. The same of responses: no further requests are taken.
    pub tx_budget: usize,
    /// The same while `memory` is pressed.
    pub tx_pressed: usize,
    /// The same while `memory` is full.
    pub tx_least: usize,
    /// Memory for all endpoints that have a clone of this; by default without limit.
    pub memory: MemoryBudget,
    /// Share of `tx_budget` that the messages to one peer may hold, in 1/1000.
    pub tx_peer_share: u32,
    /// Most calls of a port at once.
    pub max_outstanding: usize,
    /// Bytes of a packet for the network: IP header, Homa header and data.
    pub mtu: usize,
    /// Largest IP packet that the device takes to cut into packets itself; 0: it takes none longer than `mtu`.
    pub gso_bytes: usize,
    /// Process id shown in time traces.
    pub pid: u32,
    /// First RPC id; made even. Should be random, so that a restarted client's ids are new to its servers.
    pub first_id: u64,
    /// First client port, from which on others are assigned. Should be random, for the same reason.
    pub first_port: u16,
    /// True if each call comes from a port of its own, made from its id, so that switches which choose paths by ports
    /// spread calls over all of them. Servers that know RPCs by id alone, as those of the kernel module do, answer there.
    pub vary_ports: bool,
    /// Which of the endpoints behind one address this is; by default the only one.
    pub shard: Shard,
    /// A bug on purpose, for tests of tests.
    #[cfg(feature = "check")]
    #[doc(hidden)]
    pub planted: Option<super::planted::Planted>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            unsched_bytes: 40_000,
            announce: Announce::Never,
            max_incoming: 400_000,
            max_overcommit: 8,
            window: 0,
            grant_policy: None,
            fifo_grant_increment: 50_000,
            grant_fifo_fraction: 50,
            fifo_grant_interval: Nanos::ZERO,
            link_mbps: 25_000,
            pacing: false,
            max_link_usage: 99,
            max_nic_backlog: Nanos::from_micros(5),
            defer_min_bytes: 1000,
            pacer_fifo_fraction: 50,
            num_priorities: 8,
            priority_map: [0, 1, 2, 3, 4, 5, 6, 7],
            cutoffs: [u32::MAX, 0, 0, 0, MAX_MESSAGE_LEN as u32, 15_000, 2_800, 200],
            cutoff_version: 1,
            auto_cutoffs: false,
            cutoff_interval: Nanos::from_secs(1),
            cutoff_min_messages: 10_000,
            max_sched_priority: 3,
            tick: Nanos::from_millis(1),
            resend_ticks: 5,
            resend_interval: 5,
            timeout_ticks: 100,
            stall_ticks: 10_000,
            request_ack_ticks: 2,
            need_ack_max_ticks: 64,
            reorder_window: Nanos::from_micros(200),
            reorder_window_max: Nanos::from_millis(2),
            early_resend: true,
            resend_hold_off: Nanos::from_micros(200),
            server_timers: true,
            pool_pages: 1000,
            keep_bodies: true,
            longest_message: MAX_MESSAGE_LEN,
            tombstone_time: Nanos::from_secs(5),
            tombstone_chunks: 4096,
            incast_bytes: 0,
            max_peers: 10_000,
            max_control: 4_096,
            max_unread: 100_000,
            unread_ticks: 0,
            service_ticks: 0,
            starve_age: Nanos::from_millis(10),
            evict_ticks: 20,
            max_peer_rpcs: usize::MAX,
            max_server_rpcs: 100_000,
            tx_budget: 100_000_000,
            tx_pressed: 10_000_000,
            tx_least: 1_000_000,
            memory: MemoryBudget::default(),
            tx_peer_share: 500,
            max_outstanding: usize::MAX,
            mtu: 1500,
            gso_bytes: 0,
            pid: 0,
            first_id: 2,
            first_port: FIRST_CLIENT_PORT,
            vary_ports: false,
            shard: Shard::default(),
            #[cfg(feature = "check")]
            planted: None,
        }
    }
}

impl Config {
    /// The parameters of each of `count` endpoints that share a host: what limits the host is divided among them.
    #[must_use]
    pub fn divided(&self, count: usize) -> Self {
        let count = count.max(1);
        let pages = MAX_MESSAGE_LEN.div_ceil(PAGE_LEN);
        Self {
            max_incoming: (self.max_incoming / count).max(1),
            max_overcommit: self.max_overcommit.div_ceil(count),
            link_mbps: (self.link_mbps / count as u64).max(1),
            // Each must be able to hold a message of any length that one alone could.
            pool_pages: (self.pool_pages / count).max(pages).min(self.pool_pages),
            tombstone_chunks: self.tombstone_chunks.div_ceil(count),
            max_server_rpcs: self.max_server_rpcs.div_ceil(count),
            tx_pressed: (self.tx_pressed / count).max(self.tx_least),
            tx_budget: (self.tx_budget / count).max(4 * MAX_MESSAGE_LEN).min(self.tx_budget),
            ..self.clone()
        }
    }

    /// Most bytes that the messages to one peer may hold.
    pub(crate) fn tx_peer_limit(&self) -> usize {
        (self.tx_budget as u128 * u128::from(self.tx_peer_share.min(1000)) / 1000) as usize
    }

    /// The level of control packets: the highest in use.
    pub(crate) fn control_priority(&self) -> u8 {
        self.num_priorities.clamp(1, 8) - 1
    }

    /// The level of grants by age and of requests for messages that had no buffers.
    pub(crate) fn second_priority(&self) -> u8 {
        self.control_priority().saturating_sub(1)
    }

    /// What the network sees for level `priority`.
    pub(crate) fn mapped(&self, priority: u8) -> Priority {
        let level = priority.min(self.control_priority());
        Priority::clamped(self.priority_map[usize::from(level)])
    }

    /// Bytes granted ahead of what each of `active` messages has received; never none or more than may come, which
    /// would be waited for without end.
    pub(crate) fn grant_window(&self, active: usize) -> usize {
        let window = if self.window > 0 { self.window } else { self.max_incoming / (active + 1) };
        window.min(self.max_incoming).max(1)
    }

    /// When a tick asks for what is missing, after the last sign of it.
    pub(crate) fn first_resend(&self) -> Nanos {
        Nanos::from_nanos(self.tick.as_nanos().saturating_mul(self.resend_ticks.into()))
    }

    /// Time between two grants by age.
    pub(crate) fn fifo_interval(&self) -> Option<Nanos> {
        if self.grant_fifo_fraction > 0 && self.fifo_grant_interval > Nanos::ZERO {
            return (self.fifo_grant_increment > 0).then_some(self.fifo_grant_interval);
        }
        let fraction = u64::from(self.grant_fifo_fraction.min(500));
        let share_mbps = self.link_mbps * fraction;
        // bits / (Mbit/s * fraction/1000), in ns: bits * 1000 * 1000 / (Mbit/s * fraction)
        (share_mbps > 0 && self.fifo_grant_increment > 0)
            .then(|| Nanos::from_nanos(self.fifo_grant_increment as u64 * 8 * 1_000_000 / share_mbps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_divide_what_limits_a_host() {
        let each = Config { pool_pages: 40, ..Config::default() }.divided(4);
        assert_eq!((each.max_incoming, each.max_overcommit, each.link_mbps), (100_000, 2, 6_250));
        assert_eq!((each.pool_pages, each.max_server_rpcs), (16, 25_000), "a message of any length has room");
        assert_eq!(Config { pool_pages: 3, ..Config::default() }.divided(2).pool_pages, 3);
    }

    #[test]
    fn grants_by_age_come_every_320_microseconds_by_default() {
        assert_eq!(Config::default().fifo_interval(), Some(Nanos::from_micros(320)));
        assert_eq!(Config { grant_fifo_fraction: 0, ..Config::default() }.fifo_interval(), None);
        let set = Config { fifo_grant_interval: Nanos::from_micros(7), ..Config::default() };
        assert_eq!(set.fifo_interval(), Some(Nanos::from_micros(7)));
        assert_eq!(Config { grant_fifo_fraction: 0, ..set }.fifo_interval(), None);
    }
}
