//! Pacing: no more packets than the link carries, so that they queue here, where SRPT orders them, and not in the NIC.
//! Source: homa-protocol.md 4.
//!
//! Every packet is charged, control packets and short messages too: what is not counted makes the NIC's queue grow
//! unseen. Only packets with data of messages of at least `defer_min_bytes`, new or again, ever wait.
//!
//! There is no pacer thread. A packet that must wait sets a deadline ([`Endpoint::next_deadline`]), and whoever runs
//! the endpoint sends it then, so that pacing takes the time of its arithmetic and no core of its own. A thread that
//! sleeps past the deadline loses the credit beyond the burst: at 25 Gbps the burst of 5 us is 16 KB.

use std::net::IpAddr;

use super::config::Config;
use super::endpoint::Endpoint;
use super::grants::RpcKey;
use super::output::{ETHERNET_OVERHEAD, Transmit};
use crate::units::{Instant, Nanos};
use crate::wire::DATA_HEADER_LEN;

/// Credit of a byte: what a rate of 1 kbit/s earns in 8,000,000 ns. Makes all sums exact.
const BYTE: i64 = 8_000_000;

/// Credit that grows at a rate up to a burst, and is spent in bytes.
///
/// Bytes that were committed after a [`peek`](Self::peek) that allowed them, none larger than the burst, are in any
/// span of time at most `rate * span + burst`. A commit without asking leaves a debt, which is worked off first.
///
/// ```
/// use homa_stack::{Instant, Nanos, proto::CreditPacer};
///
/// // A duty cycle of 40 % on a link of 1 Gbps.
/// let mut pacer = CreditPacer::new(400_000, 1500);
/// let start = Instant::from_nanos(0);
/// assert!(pacer.peek(start, 1500));
/// pacer.commit(start, 1500);
/// assert!(!pacer.peek(start, 1500));
/// assert_eq!(pacer.ready_at(1500), start + Nanos::from_micros(30));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CreditPacer {
    rate_kbps: u64,
    burst: i64,
    /// Credit at `at`, in parts of a byte; below 0: debt.
    credit: i64,
    at: Instant,
}

impl CreditPacer {
    /// Credit for `burst` bytes at once, all there in the beginning, which grows by `rate_kbps` kbit/s (at least 1).
    pub fn new(rate_kbps: u64, burst: usize) -> Self {
        let burst = i64::try_from(burst).unwrap_or(i64::MAX).saturating_mul(BYTE);
        Self { rate_kbps: rate_kbps.max(1), burst, credit: burst, at: Instant::default() }
    }

    /// True if there is credit for `bytes` at `now`, or, if they are more than the burst, all the credit there can be.
    pub fn peek(&self, now: Instant, bytes: usize) -> bool {
        self.credit_at(now) >= self.need(bytes)
    }

    /// Spends `bytes`, there or not.
    pub fn commit(&mut self, now: Instant, bytes: usize) {
        self.credit = self.credit_at(now).saturating_sub((bytes as i64).saturating_mul(BYTE));
        self.at = self.at.max(now);
    }

    /// When [`Self::peek`] allows `bytes`, if nothing is spent until then; perhaps in the past.
    pub fn ready_at(&self, bytes: usize) -> Instant {
        let lacking = self.need(bytes).saturating_sub(self.credit).max(0) as u64;
        self.at + Nanos::from_nanos(lacking.div_ceil(self.rate_kbps))
    }

    fn need(&self, bytes: usize) -> i64 {
        (bytes as i64).saturating_mul(BYTE).min(self.burst)
    }

    fn credit_at(&self, now: Instant) -> i64 {
        let earned = self.rate_kbps.saturating_mul(now.since(self.at).as_nanos());
        self.credit.saturating_add(i64::try_from(earned).unwrap_or(i64::MAX)).min(self.burst)
    }
}

/// Whose turn it was when a packet was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The message with fewest bytes left.
    Srpt,
    /// The oldest message.
    Oldest,
}

/// What pacing adds to an endpoint.
#[derive(Debug)]
pub(crate) struct Pacing {
    nic: CreditPacer,
    /// Wire bytes of a full packet: a packet may go if the burst has room for that many.
    packet: usize,
    /// Wire bytes that may go by SRPT before it is the oldest message's turn.
    srpt_left: u64,
    /// The oldest message that can send, if it was looked for.
    oldest: Option<(RpcKey, u64)>,
    /// Whose turn the packet being written is; nothing for those that are not paced.
    turn: Option<Turn>,
    /// Since when packets wait.
    backlog: Option<Instant>,
    /// When the first of them may go.
    pub(super) wake: Option<Instant>,
}

impl Pacing {
    /// Pacing as `config` says, if it does.
    pub(crate) fn new(config: &Config) -> Option<Self> {
        let rate_kbps = config.link_mbps.saturating_mul(10 * u64::from(config.max_link_usage.clamp(1, 100)));
        let backlog = rate_kbps.saturating_mul(config.max_nic_backlog.as_nanos()) / BYTE as u64;
        let packet = config.mtu + ETHERNET_OVERHEAD;
        config.pacing.then(|| Self {
            nic: CreditPacer::new(rate_kbps, usize::try_from(backlog).unwrap_or(usize::MAX).saturating_add(packet)),
            packet,
            srpt_left: 0,
            oldest: None,
            turn: None,
            backlog: None,
            wake: None,
        })
    }

    /// A message can send again: perhaps it is the oldest.
    pub(crate) fn consider(&mut self, key: RpcKey, serial: u64) {
        if self.oldest.is_some_and(|(_, oldest)| serial < oldest) {
            self.oldest = Some((key, serial));
        }
    }
}

impl Endpoint {
    /// True if a packet with data may go: always, without pacing.
    pub(super) fn nic_has_room(&mut self, now: Instant) -> bool {
        let Some(pacing) = &mut self.pacing else { return true };
        (pacing.wake, pacing.turn) = (None, None);
        pacing.nic.peek(now, pacing.packet)
    }

    /// The message that sends next: by SRPT, or in its turn the oldest. `open` as [`Self::nic_has_room`] has it:
    /// without room only short messages go.
    pub(super) fn pick(&mut self, now: Instant, open: bool) -> Option<RpcKey> {
        let (_, head) = self.ready.first()?;
        let Some(pacing) = &mut self.pacing else { return Some(head) };
        // The length of the whole message: a long one's tail must not overtake its head.
        if self.rpcs[head].tx.as_ref().is_some_and(|tx| tx.len < self.config.defer_min_bytes) {
            return Some(head);
        }
        if !open {
            self.wait_for_nic(now);
            return None;
        }
        if pacing.srpt_left > 0 || self.config.pacer_fifo_fraction == 0 {
            pacing.turn = Some(Turn::Srpt);
            return Some(head);
        }
        pacing.turn = Some(Turn::Oldest);
        let still = |&(key, serial): &(RpcKey, u64)| self.ready.key(key).is_some_and(|turn| turn.serial == serial);
        pacing.oldest = pacing.oldest.filter(still).or_else(|| {
            let all = self.ready.iter().map(|(turn, key)| (key, turn.serial));
            all.min_by_key(|(_, serial)| *serial)
        });
        pacing.oldest.map(|(key, _)| key)
    }

    /// Packets wait until the NIC has room.
    pub(super) fn wait_for_nic(&mut self, now: Instant) {
        let Some(pacing) = &mut self.pacing else { return };
        pacing.wake = Some(pacing.nic.ready_at(pacing.packet));
        if pacing.backlog.is_none() {
            pacing.backlog = Some(now);
            self.metrics.throttle_list_adds += 1;
        }
    }

    /// Charges for a packet; without one no packet waits any more, or all that there are.
    pub(super) fn charge(&mut self, now: Instant, sent: Option<&Transmit>) {
        let Some(pacing) = &mut self.pacing else { return };
        let Some(sent) = sent else {
            if pacing.wake.is_none()
                && let Some(since) = pacing.backlog.take()
            {
                self.metrics.nic_backlog_cycles += now.since(since).as_nanos();
            }
            return;
        };
        let bytes = wire_bytes(sent);
        pacing.nic.commit(now, bytes);
        let Some(turn) = pacing.turn else { return };
        let bytes = bytes as u64;
        if pacing.backlog.is_some() {
            self.metrics.pacer_homa_packets += 1;
            self.metrics.pacer_homa_bytes += bytes;
        }
        if turn == Turn::Oldest {
            let fraction = u64::from(self.config.pacer_fifo_fraction.clamp(1, 1000));
            self.metrics.pacer_fifo_bytes += bytes;
            pacing.srpt_left = bytes * (1000 - fraction) / fraction;
        } else {
            pacing.srpt_left = pacing.srpt_left.saturating_sub(bytes);
        }
    }
}

/// Bytes that a packet takes on the link, with what IP and Ethernet add.
fn wire_bytes(sent: &Transmit) -> usize {
    let ip_header = match sent.to {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    };
    let headers = ip_header + ETHERNET_OVERHEAD;
    // What the device cuts gets headers for each packet.
    let more = if sent.segment > 0 { (sent.len - DATA_HEADER_LEN).div_ceil(sent.segment) - 1 } else { 0 };
    sent.len + headers + more * (headers + DATA_HEADER_LEN)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::proto::Payload;
    use crate::units::RpcId;
    use crate::wire::{Ends, Kind, Resend, write_bare};
    use proptest::prelude::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    proptest! {
        /// Whatever is asked for when: no span has more bytes than the rate earns in it and the burst.
        #[test]
        fn no_span_has_more_bytes_than_rate_and_burst(
            rate_kbps in 1_u64..100_000_000,
            burst in 1_usize..100_000,
            asked in proptest::collection::vec((0_u64..50_000, 0_usize..100_000), 1..60),
        ) {
            let mut pacer = CreditPacer::new(rate_kbps, burst);
            let (mut now, mut spent) = (0, Vec::new());
            for (pause, bytes) in asked {
                let bytes = bytes.min(burst);
                now += pause;
                if pacer.peek(at(now), bytes) {
                    pacer.commit(at(now), bytes);
                    spent.push((now, bytes));
                } else {
                    let ready = pacer.ready_at(bytes);
                    prop_assert!(ready > at(now) && pacer.peek(ready, bytes));
                    prop_assert!(!pacer.peek(at(ready.as_nanos() - 1), bytes), "a nanosecond before is too early");
                }
            }
            for first in 0..spent.len() {
                let mut sum = 0;
                for &(end, bytes) in &spent[first..] {
                    sum += bytes as u128;
                    let earned = u128::from(rate_kbps) * u128::from(end - spent[first].0);
                    prop_assert!(sum * BYTE as u128 <= earned + burst as u128 * BYTE as u128);
                }
            }
        }
    }

    #[test]
    fn a_duty_cycle_of_40_percent_keeps_a_link_busy_for_40_percent() {
        let mut pacer = CreditPacer::new(10_000_000, 1538);
        let (mut now, mut sent) = (at(0), 0);
        while now < at(10_000_000) {
            now = now.max(pacer.ready_at(1538));
            pacer.commit(now, 1538);
            sent += 1538;
        }
        let busy_ns = sent * 8 / 25;
        assert!((3_998_000..=4_002_000).contains(&busy_ns), "busy for {busy_ns} ns of 10 ms at 25 Gbps");
    }

    #[test]
    fn what_is_spent_without_asking_is_a_debt() {
        let mut pacer = CreditPacer::new(8_000_000, 1000);
        pacer.commit(at(0), 5_000);
        assert_eq!(pacer.ready_at(1), at(4_001), "a byte a nanosecond");
        assert_eq!(pacer.ready_at(7_000), at(5_000), "more than the burst waits for all of it");
        pacer.commit(at(3_000), 1_000);
        assert_eq!(pacer.ready_at(1_000), at(6_000));
    }

    /// What a link of 8 Gbps, a byte a nanosecond, has queued: true bytes, against which the endpoint's pacing holds.
    struct Nic {
        core: Endpoint,
        now: Instant,
        /// When all that was sent has left.
        idle: Instant,
        port: u16,
        sent: Vec<(Kind, RpcId, usize, Instant)>,
        most_queued: u64,
    }

    impl Nic {
        fn new(config: Config) -> Self {
            let mut core = Endpoint::new(Config { pacing: true, link_mbps: 8_000, max_link_usage: 100, ..config });
            let port = core.client_port().unwrap();
            Self { core, now: at(0), idle: at(0), port, sent: Vec::new(), most_queued: 0 }
        }

        fn call(&mut self, len: usize) -> RpcId {
            let to = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 2), 99));
            self.core.call(self.now, self.port, to, Payload::from(vec![1; len]), 0).unwrap()
        }

        /// Sends until nothing is left to send, at the times that the endpoint asks for.
        fn drain(&mut self, end: Instant) {
            let mut out = [0; 1500];
            while self.now < end {
                while let Some(sent) = self.core.poll_transmit(self.now, &mut out) {
                    let bytes = wire_bytes(&sent);
                    self.idle = self.idle.max(self.now) + Nanos::from_nanos(bytes as u64);
                    self.most_queued = self.most_queued.max(self.idle.since(self.now).as_nanos());
                    self.sent.push((sent.kind, sent.id, bytes, self.now));
                }
                let Some(next) = self.core.next_deadline() else { return };
                self.now = self.now.max(next);
                self.core.handle_timeout(self.now);
            }
        }
    }

    #[test]
    fn the_nic_never_has_more_than_the_limit_and_a_packet_queued_and_is_never_idle() {
        let mut nic = Nic::new(Config { unsched_bytes: 1_000_000, ..Config::default() });
        for len in [300_000, 3_000, 50_000, 20_000] {
            nic.call(len);
        }
        nic.drain(at(900_000));
        let limit = 5_000 + 1_542;
        assert!(nic.most_queued <= limit, "{} bytes queued, the limit is {limit}", nic.most_queued);
        let sum: usize = nic.sent.iter().map(|s| s.2).sum();
        assert!(sum > 373_000);
        assert_eq!(nic.idle, at(sum as u64), "the link had work from the first byte to the last");
        let m = &nic.core.metrics;
        assert_eq!(m.throttle_list_adds, 1, "one backlog");
        assert!(m.pacer_homa_packets > 250 && m.pacer_homa_bytes as usize > 365_000);
        assert!((390_000..405_000).contains(&m.nic_backlog_cycles), "{} ns", m.nic_backlog_cycles);
    }

    #[test]
    fn short_messages_and_control_packets_go_at_once_but_are_charged() {
        let mut nic = Nic::new(Config { unsched_bytes: 1_000_000, ..Config::default() });
        let long = nic.call(100_000);
        nic.drain(at(10_000));
        let before = nic.sent.len();
        let ids: Vec<_> = (0..40).map(|_| nic.call(999)).collect();
        // Questions about RPCs that we do not know: the answers are control packets.
        const ASKED: usize = 200;
        let mut bytes = [0; 64];
        for i in 0..ASKED as u64 {
            let ends = Ends { sport: 99, dport: nic.port, sender_id: 2_000_001 + 2 * i };
            let n = Resend { offset: 0, length: u32::MAX, priority: 7 }.write(ends, &mut bytes);
            nic.core.handle_packet(nic.now, Ipv4Addr::new(10, 0, 0, 2).into(), &bytes[..n]);
        }
        let start = nic.now;
        nic.drain(nic.now + Nanos::from_nanos(1));
        let now: Vec<_> = nic.sent[before..].iter().filter(|s| s.3 == start).collect();
        assert!(now[..ASKED].iter().all(|s| s.0 == Kind::RpcUnknown));
        assert!(now[ASKED..ASKED + 40].iter().map(|s| s.1).eq(ids), "all short messages, at once");
        let burst: usize = now.iter().map(|s| s.2).sum();
        nic.drain(at(900_000));
        let next = nic.sent[before..].iter().find(|s| s.1 == long && s.3 > start).expect("the long one goes on");
        assert!(next.3.since(start).as_nanos() as usize >= burst - 6_542, "it waits until they have left");
        let sum: usize = nic.sent.iter().map(|s| s.2).sum();
        assert_eq!(nic.idle.as_nanos() as usize, sum, "every byte was charged, and no more");
    }

    #[test]
    fn the_oldest_message_gets_its_share() {
        for (fraction, least, most) in [(0, 0, 0), (50, 9, 11), (200, 39, 41)] {
            let config = Config { pacer_fifo_fraction: fraction, unsched_bytes: 1_000_000, ..Config::default() };
            let mut nic = Nic::new(Config { tx_budget: usize::MAX, ..config });
            let oldest = nic.call(900_000);
            (0..40).for_each(|_| _ = nic.call(50_000));
            nic.drain(at(308_400));
            let of_oldest = nic.sent.iter().filter(|s| s.1 == oldest).count();
            assert!((least..=most).contains(&of_oldest), "{of_oldest} of {} at {fraction}/1000", nic.sent.len());
        }
    }

    /// Not so in the kernel module: homa-protocol.md 10, row 15.
    #[test]
    fn a_request_sent_anew_from_its_start_is_paced() {
        let mut nic = Nic::new(Config { unsched_bytes: 1_000_000, ..Config::default() });
        let id = nic.call(500_000);
        nic.drain(at(600_000));
        let first = nic.sent.len();
        assert_eq!(first, 352);
        let mut bytes = [0; 64];
        let n = write_bare(Kind::RpcUnknown, Ends { sport: 99, dport: nic.port, sender_id: id.get() ^ 1 }, &mut bytes);
        nic.core.handle_packet(nic.now, Ipv4Addr::new(10, 0, 0, 2).into(), &bytes[..n]);
        nic.drain(at(1_700_000));
        assert_eq!(nic.sent.iter().filter(|s| s.0 == Kind::Data).count(), 2 * first);
        assert!(nic.most_queued <= 6_542, "{} bytes queued", nic.most_queued);
    }

    #[test]
    fn without_pacing_all_goes_at_once() {
        let mut nic = Nic::new(Config::default());
        nic.core = Endpoint::new(Config { unsched_bytes: 1_000_000, ..Config::default() });
        nic.port = nic.core.client_port().unwrap();
        nic.call(500_000);
        nic.drain(at(1));
        assert_eq!(nic.sent.len(), 352);
        assert_eq!(nic.core.metrics.throttle_list_adds, 0);
    }
}
