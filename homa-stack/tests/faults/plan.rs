//! What a run is to be: hosts, calls and faults, all from its seed.

use homa_stack::policy::InformedConfig;
use homa_stack::proto::{Announce, Marks, MemoryBudget, Planted, Shard};
use homa_stack::{Config, Nanos};

use crate::net::Rng;

/// A request to be sent.
pub struct Call {
    pub at: Nanos,
    pub from: usize,
    pub to: usize,
    pub len: usize,
    pub response_len: usize,
    /// Time that the server takes for it.
    pub service: Nanos,
    /// True if the server gives it up without an answer.
    pub discard: bool,
    /// True if the client asks for the end by the call's id.
    pub private: bool,
    /// When the client gives it up, after the call.
    pub abort: Option<Nanos>,
}

/// A run. Chances are for each packet.
pub struct Plan {
    pub seed: u64,
    pub configs: Vec<Config>,
    /// Endpoints that share each host's address and RPCs.
    pub workers: usize,
    /// Chance that a packet comes to any of them, not to the one that it is for.
    pub astray: f64,
    pub calls: Vec<Call>,
    pub loss: f64,
    pub duplicate: f64,
    /// Chance of a delay of up to 2 ms.
    pub reorder: f64,
    /// Chance of a delay of up to `late_most`.
    pub late: f64,
    pub late_most: Nanos,
    /// Chance of an additional copy, cut off.
    pub cut: f64,
    /// Chance of an additional packet from a host that is none of ours.
    pub forged: f64,
    /// Largest packet that the network carries, which it says by ICMP of others.
    pub narrow: usize,
    /// Hosts that begin anew, and when.
    pub restarts: Vec<(Nanos, usize)>,
    /// Hosts that do nothing for some time: packets wait, time jumps.
    pub stalls: Vec<(Nanos, usize, Nanos)>,
    /// How long applications keep messages at most.
    pub hold: Nanos,
    /// Packets that a host sends at a time.
    pub burst: usize,
}

impl Plan {
    /// True if applications look at messages while they arrive.
    pub fn reads_early(&self) -> bool {
        self.seed.is_multiple_of(2)
    }

    /// True if ends of RPCs wait until there is nothing to send, or longer.
    pub fn puts_off(&self) -> bool {
        self.seed % 5 < 2
    }

    /// True if servers answer only what has room.
    pub fn keeps_answers_back(&self) -> bool {
        self.seed.is_multiple_of(3)
    }

    pub fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut rng = Rng::new(seed);
        let rng = &mut rng;
        (0..4).for_each(|_| _ = rng.next());
        let most = if rng.chance(0.8) { 2 } else { 5 };
        let hosts = 2 + rng.below(most) as usize;
        // Some runs are without faults, most with a few kinds of them.
        let faults = rng.chance(0.95);
        let some = |rng: &mut Rng, share: f64, most: f64| {
            let value = rng.below(1_000_000) as f64 / 1e6;
            if faults && rng.chance(share) { most * value * value } else { 0.0 }
        };
        let mut plan = Self {
            seed,
            configs: Vec::new(),
            workers: 1,
            astray: 0.0,
            calls: Vec::new(),
            loss: some(rng, 0.6, 0.3),
            duplicate: some(rng, 0.5, 0.3),
            reorder: some(rng, 0.6, 0.5),
            late: some(rng, 0.3, 0.1),
            late_most: Nanos::from_millis([3, 30, 200, 1000, 5000][rng.below(5) as usize]),
            cut: some(rng, 0.3, 0.2),
            forged: some(rng, 0.3, 0.3),
            narrow: usize::MAX,
            restarts: Vec::new(),
            stalls: Vec::new(),
            hold: Nanos::ZERO,
            burst: if rng.chance(0.2) { 1 + rng.below(8) as usize } else { usize::MAX },
        };
        if rng.chance(0.2) {
            plan.hold = Nanos::from_millis([1, 20, 400][rng.below(3) as usize]);
        }
        if faults && rng.chance(0.15) {
            plan.narrow = 576 + rng.below(3_000) as usize;
        }
        plan.add_calls(rng, hosts);
        let end = plan.calls.iter().map(|c| c.at.as_nanos()).max().unwrap_or(0) + 10_000_000;
        for _ in 0..3 {
            if faults && rng.chance(0.07) {
                plan.restarts.push((Nanos::from_nanos(rng.below(end)), rng.below(hosts as u64) as usize));
            }
            if faults && rng.chance(0.1) {
                let most = [2_000_000, 100_000_000, 1_000_000_000][rng.below(3) as usize];
                let (at, span) = (Nanos::from_nanos(rng.below(end)), Nanos::from_nanos(rng.below(most)));
                plan.stalls.push((at, rng.below(hosts as u64) as usize, span));
            }
        }
        plan.add_configs(rng, hosts, planted);
        let split = &mut Rng::new(seed ^ 0x7090);
        if split.chance(0.25) {
            plan.workers = 2 + split.below(2) as usize;
            plan.astray = if split.chance(0.5) { split.below(500) as f64 / 1e3 } else { 0.0 };
        }
        // What came later draws for itself, so that seeds keep their meaning.
        let late = &mut Rng::new(seed ^ 0x1a7e);
        for config in &mut plan.configs {
            config.vary_ports = late.chance(0.2);
            if late.chance(0.2) {
                // For the workers of the host together.
                let most = [400_000, 1_500_000, 4_000_000][late.below(3) as usize];
                let marks = Marks { low: most / 4, pressure: most / 2, most };
                config.memory = MemoryBudget::new(marks).expect("marks in order");
                config.tx_pressed = 50_000;
                config.tx_least = 1 + late.below(2_000) as usize;
            }
        }
        let granting = &mut Rng::new(seed ^ 0x9a27);
        for config in &mut plan.configs {
            if granting.chance(0.25) {
                let rtt_bytes = [3_000, 40_000, 400_000][granting.below(3) as usize];
                config.grant_policy = Some(InformedConfig::for_round_trip(rtt_bytes).policy());
            }
        }
        plan
    }

    /// True if all calls must be answered. Not if messages are kept: a response that waits for room for longer than
    /// its server's time-out is given up.
    pub fn is_benign(&self) -> bool {
        let chances = [self.loss, self.duplicate, self.reorder, self.late, self.cut, self.forged];
        let harmless = chances.iter().all(|chance| *chance == 0.0) && self.hold == Nanos::ZERO;
        let patient = |config: &Config| config.service_ticks == 0 && config.max_peer_rpcs == usize::MAX;
        let harmless = harmless && self.configs.iter().all(patient);
        harmless && self.narrow == usize::MAX && self.restarts.is_empty() && self.stalls.is_empty()
    }

    /// The node that a worker belongs to.
    pub fn node(&self, worker: usize) -> usize {
        worker / self.workers
    }

    /// The worker that makes a call.
    pub fn caller(&self, call: usize) -> usize {
        self.calls[call].from * self.workers + call % self.workers
    }

    /// The parameters of a worker.
    pub fn config(&self, worker: usize) -> Config {
        let shard = Shard::new((worker % self.workers) as u32, self.workers as u32).expect("an index below the count");
        Config { shard, ..self.configs[self.node(worker)].clone() }
    }

    fn add_calls(&mut self, rng: &mut Rng, hosts: usize) {
        let most = if rng.chance(0.9) { 6 } else { 24 };
        let calls = 1 + rng.below(most);
        let spread = [10_000, 500_000, 20_000_000][rng.below(3) as usize];
        // Many at once to one host: its grants and buffers are what counts.
        let incast = rng.chance(0.25).then(|| rng.below(hosts as u64) as usize);
        let slow = rng.chance(0.2);
        let long = rng.chance(0.15);
        let mut at = 0;
        for _ in 0..calls {
            let to = incast.unwrap_or_else(|| rng.below(hosts as u64) as usize);
            let from = (to + 1 + rng.below(hosts as u64 - 1) as usize) % hosts;
            let service = if slow { rng.below(200_000_000) } else { rng.below(100_000) };
            self.calls.push(Call {
                at: Nanos::from_nanos(at),
                from,
                to,
                len: length(rng, long),
                response_len: length(rng, long && incast.is_none()),
                service: Nanos::from_nanos(service),
                discard: rng.chance(0.02),
                private: rng.chance(0.2),
                abort: rng.chance(0.03).then(|| Nanos::from_nanos(rng.below(2_000_000))),
            });
            at += rng.below(spread);
        }
    }

    fn add_configs(&mut self, rng: &mut Rng, hosts: usize, planted: Option<Planted>) {
        let longest = self.calls.iter().map(|c| c.len.max(c.response_len)).max().unwrap_or(1);
        let fewest = longest.div_ceil(homa_stack::proto::PAGE_LEN);
        let stalled = self.stalls.iter().map(|s| s.2).max().unwrap_or_default();
        // The last packet about an RPC that its server has forgotten: from a client that has not given up yet, or
        // in answer to one that was late itself.
        let lifetime = 2 * (self.late_most.as_nanos() + stalled.as_nanos() + 5_000_000) + 2 * 100 * 4_000_000;
        let mtus = [576, 1500, 1500, 1500, 9000];
        let mtu = mtus[rng.below(mtus.len() as u64) as usize];
        for host in 0..hosts {
            let num_priorities = 1 + rng.below(8) as u8;
            let incoming = [20_000, 100_000, 400_000];
            self.configs.push(Config {
                unsched_bytes: [0, 1, 1_000, 10_000, 40_000, 40_000][rng.below(6) as usize],
                announce: [Announce::Never, Announce::Early, Announce::Scheduled][rng.below(3) as usize],
                max_incoming: incoming[rng.below(incoming.len() as u64) as usize],
                max_overcommit: 1 + rng.below(8) as usize,
                window: if rng.chance(0.3) { 10_000 } else { 0 },
                grant_fifo_fraction: if rng.chance(0.5) { 50 } else { 0 },
                link_mbps: [1_000, 25_000][rng.below(2) as usize],
                num_priorities,
                max_sched_priority: rng.below(u64::from(num_priorities)) as u8,
                tick: Nanos::from_millis(1 + rng.below(4)),
                timeout_ticks: 20 + rng.below(81) as u32,
                resend_ticks: 1 + rng.below(6) as u32,
                resend_interval: 1 + rng.below(6) as u32,
                reorder_window: Nanos::from_micros([0, 1, 50, 200, 200, 3_000][rng.below(6) as usize]),
                early_resend: rng.chance(0.7),
                resend_hold_off: Nanos::from_micros([0, 20, 200, 200, 5_000][rng.below(5) as usize]),
                server_timers: rng.chance(0.7),
                pool_pages: fewest + [0, 1, 4, 60][rng.below(4) as usize],
                incast_bytes: [0, 3_000, 60_000][rng.below(3) as usize],
                max_peers: [hosts, 10_000][rng.below(2) as usize],
                max_control: [2, 20, 4_096][rng.below(3) as usize],
                max_unread: [2, 100_000][rng.below(2) as usize],
                unread_ticks: [0, 50][rng.below(2) as usize],
                service_ticks: if rng.chance(0.1) { 60 } else { 0 },
                starve_age: Nanos::from_millis([0, 10, 1_000][rng.below(3) as usize]),
                evict_ticks: [0, 5, 20][rng.below(3) as usize],
                max_peer_rpcs: if rng.chance(0.1) { 2 } else { usize::MAX },
                tombstone_time: Nanos::from_nanos(lifetime),
                auto_cutoffs: rng.chance(0.3),
                cutoff_interval: Nanos::from_millis(1),
                cutoff_min_messages: 1,
                stall_ticks: if rng.chance(0.3) && !self.is_benign() { 30 } else { 10_000 },
                pacing: rng.chance(0.3),
                pacer_fifo_fraction: [0, 50, 500][rng.below(3) as usize],
                tx_budget: [3_000, 100_000, 100_000_000][rng.below(3) as usize],
                tx_peer_share: [200, 1000][rng.below(2) as usize],
                max_outstanding: if rng.chance(0.2) { 1 + rng.below(3) as usize } else { usize::MAX },
                mtu: if rng.chance(0.9) { mtu } else { 576 + rng.below(8425) as usize },
                gso_bytes: [0, 0, 8_000, 65_535][rng.below(4) as usize],
                first_id: first_id(host, 0),
                planted,
                ..Config::default()
            });
        }
    }
}

/// The first id of a host in its `life`th life: apart from those of all others.
pub fn first_id(host: usize, life: usize) -> u64 {
    ((host * 64 + life + 1) as u64) << 32
}

fn length(rng: &mut Rng, long: bool) -> usize {
    let most = match rng.below(if long { 20 } else { 1000 }) {
        0 => 1_000_000,
        1..=5 => 150_000,
        6..=16 => 65_600,
        17..=150 => 20_000,
        _ => 3_000,
    };
    1 + rng.below(most) as usize
}
