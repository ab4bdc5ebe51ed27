//! What a host adds to the network: delays, cores, batches, noise.
//!
//! ```text
//! NIC --interrupt--> receiving core (by flow): batches --SoftIRQ delay--> protocol --wake-up--> application
//! application --> protocol --send delay--> NIC
//! ```
//!
//! A receiving core takes time for each batch and each packet, so that it lags behind when much comes at once. What
//! comes while it works is in the next batch, without another interrupt. Cores, SoftIRQs and the application of a host in a
//! gap of noise wait until it is over.

use std::collections::VecDeque;

use cp_node::rng::Rng;

use crate::threads::Threads;
use crate::time::Time;

/// A distribution of delays by its percentiles, linear between them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delay {
    /// Rising fractions (0 to 1) with rising delays. Below the first and above the last the delay stays; no points: no
    /// delay.
    pub points: Vec<(f64, Time)>,
}

impl Delay {
    /// None.
    pub const NONE: Self = Self { points: Vec::new() };

    /// Always `delay`.
    pub fn fixed(delay: Time) -> Self {
        Self { points: vec![(0.0, delay)] }
    }

    /// By the percentiles 10, 50, 90 and 99, in microseconds.
    pub fn percentiles(micros: [f64; 4]) -> Self {
        let points = [0.1, 0.5, 0.9, 0.99].into_iter().zip(micros.map(Time::from_micros_f64));
        Self { points: points.collect() }
    }

    /// True if there is none.
    pub fn is_none(&self) -> bool {
        self.points.iter().all(|(_, delay)| *delay == Time::ZERO)
    }

    /// The delay at the fraction `u`.
    pub fn at(&self, u: f64) -> Time {
        let after = self.points.partition_point(|(fraction, _)| *fraction <= u);
        match (after.checked_sub(1).map(|before| self.points[before]), self.points.get(after)) {
            (Some((low, least)), Some(&(high, most))) => {
                let share = (u - low) / (high - low);
                least + Time::from_picos((share * (most - least).as_picos() as f64) as u64)
            }
            (Some((_, only)), None) | (None, Some(&(_, only))) => only,
            (None, None) => Time::ZERO,
        }
    }

    /// A random delay.
    pub(crate) fn draw(&self, rng: &mut Rng) -> Time {
        match self.points.len() {
            0 => Time::ZERO,
            1 => self.points[0].1,
            _ => self.at(rng.fraction()),
        }
    }
}

/// Gaps in which a host does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noise {
    /// Mean time from one to the next; each is between half and one and a half of it.
    pub every: Time,
    /// How long each lasts.
    pub lasts: Time,
}

/// Parameters of all hosts. By default they are ideal: no delays, endless cores.
#[derive(Clone, Debug, PartialEq)]
pub struct HostModel {
    /// From the transport's send to the NIC's queue, for all that is sent at once.
    pub send_delay: Delay,
    /// From a packet in the NIC to the begin of a batch on an idle core (interrupt, NAPI).
    pub interrupt_delay: Delay,
    /// Cores that receive, chosen by flow; 0: one.
    pub receive_cores: u32,
    /// Time of a receiving core for each packet.
    pub per_packet: Time,
    /// Time of a receiving core for each batch.
    pub per_batch: Time,
    /// Time of a receiving core for each flow in a batch: packets of a flow go up together.
    pub per_flow: Time,
    /// Most packets in a batch; 0: one.
    pub batch: u32,
    /// After so many batches in a row a core leaves the rest to a thread (Linux: 10, then ksoftirqd); 0: it never does.
    pub rounds: u32,
    /// How long that thread waits for its turn on the core.
    pub deferral: Delay,
    /// What messages cost the application's threads; nothing: no time.
    pub threads: Option<Threads>,
    /// From the end of a batch to the protocol.
    pub softirq_delay: Delay,
    /// From the protocol's event to the application.
    pub wakeup_delay: Delay,
    /// Gaps in which the host stands still.
    pub noise: Vec<Noise>,
    /// Most time that the NIC's queue may need with which more is taken.
    pub nic_limit: Time,
    /// Once that was reached, more is taken when what is left needs this time: above 0 several packets are chosen at a
    /// time, by SRPT, some 100 ns before they must be.
    pub nic_wake: Time,
}

impl Default for HostModel {
    fn default() -> Self {
        Self {
            send_delay: Delay::NONE,
            interrupt_delay: Delay::NONE,
            receive_cores: 0,
            per_packet: Time::ZERO,
            per_batch: Time::ZERO,
            per_flow: Time::ZERO,
            batch: 64,
            rounds: 0,
            deferral: Delay::NONE,
            threads: None,
            softirq_delay: Delay::NONE,
            wakeup_delay: Delay::NONE,
            noise: Vec::new(),
            nic_limit: Time::from_micros(2),
            nic_wake: Time::from_micros(1),
        }
    }
}

impl HostModel {
    /// Hosts like those of the published clusters (xl170): percentiles of send, SoftIRQ and wake-up delays and the gaps
    /// of system management as they were measured there; the interrupt's delay and the cores' times are chosen so that a
    /// 100-byte RPC takes some 15 us without load.
    pub fn xl170() -> Self {
        let gap =
            |every_ms, lasts_us| Noise { every: Time::from_millis(every_ms), lasts: Time::from_micros_f64(lasts_us) };
        Self {
            send_delay: Delay::percentiles([0.6, 0.7, 1.0, 1.4]),
            interrupt_delay: Delay::fixed(Time::from_nanos(2_500)),
            receive_cores: 4,
            per_packet: Time::from_nanos(300),
            per_batch: Time::from_nanos(500),
            batch: 64,
            softirq_delay: Delay::percentiles([0.1, 0.8, 4.8, 17.5]),
            wakeup_delay: Delay::percentiles([2.0, 2.2, 2.5, 17.7]),
            noise: vec![gap(4, 2.5), gap(10, 17.0), gap(250, 170.0)],
            ..Self::default()
        }
    }

    /// [`Self::xl170`] with the times of kernel sockets. A message costs threads 3 us to take and 3 us to send: of the 8 us by
    /// which a round trip over TCP was longer there than one over Homa (23.3 and 15.1 to 15.9 us) each of four calls has 2,
    /// and 1 us is what Homa's have, of which 0.3 us enter and leave the kernel. A segment costs its core 1.6 us
    /// (3.2 us a round trip in IP, driver and NAPI). What a core does not get done in 10 rounds, a thread does, which waits
    /// for its turn: up to 4 ms, the kernel's tick and the least that another thread runs. Threads are those of the
    /// published comparisons: one for each port.
    pub fn xl170_sockets() -> Self {
        let us = |us| Time::from_micros_f64(us);
        Self {
            per_flow: us(1.6),
            rounds: 10,
            deferral: Delay { points: vec![(0.0, Time::ZERO), (1.0, Time::from_millis(4))] },
            threads: Some(Threads { per_port: 1, receive: us(3.0), answer: us(3.0) }),
            ..Self::xl170()
        }
    }

    /// [`Self::xl170`] with the times of Homa's calls, 1 us each, and three threads for each port, as published. Its
    /// cores pass packets on to others that are idle, so that none is left to a thread.
    pub fn xl170_homa() -> Self {
        let us = Time::from_micros(1);
        Self { threads: Some(Threads { per_port: 3, receive: us, answer: us }), ..Self::xl170() }
    }

    /// True if packets go to the protocol as they come.
    pub(crate) fn receives_at_once(&self) -> bool {
        self.interrupt_delay.is_none()
            && self.softirq_delay.is_none()
            && self.per_packet == Time::ZERO
            && self.per_batch == Time::ZERO
            && self.per_flow == Time::ZERO
            && self.rounds == 0
            && self.noise.is_empty()
    }

    /// Cores that receive.
    pub(crate) fn cores(&self) -> u32 {
        self.receive_cores.max(1)
    }
}

/// A receiving core.
#[derive(Debug, Default)]
pub(crate) struct Core {
    /// Packets that it has not looked at, with their flows.
    ring: VecDeque<(u32, u64)>,
    /// Batches since it was idle.
    rounds: u32,
    /// Flows of the batch that it is at.
    flows: Vec<u64>,
    /// Packets that it has, with the times when it did; batches for the protocol.
    seen: VecDeque<(u32, Time)>,
    batches: VecDeque<usize>,
    /// True if it works or will.
    pub(crate) awake: bool,
    free_at: Time,
    handed: Time,
}

impl Core {
    /// A packet has come: when the core begins with it, unless it is awake.
    pub(crate) fn arrive(&mut self, now: Time, packet: (u32, u64), model: &HostModel, rng: &mut Rng) -> Option<Time> {
        self.ring.push_back(packet);
        if std::mem::replace(&mut self.awake, true) {
            return None;
        }
        // While it was busy with the last batch no interrupt was needed.
        let begin = if now < self.free_at { self.free_at } else { now + model.interrupt_delay.draw(rng) };
        Some(begin)
    }

    /// Works through a batch: when the protocol gets it, and when the core goes on with what has come, if anything has.
    pub(crate) fn work(&mut self, now: Time, model: &HostModel, rng: &mut Rng) -> (Time, Option<Time>) {
        let count = self.ring.len().min(model.batch.max(1) as usize);
        let mut at = now + model.per_batch;
        self.flows.clear();
        for (packet, flow) in self.ring.drain(..count) {
            self.seen.push_back((packet, at));
            at += model.per_packet;
            if model.per_flow > Time::ZERO && !self.flows.contains(&flow) {
                self.flows.push(flow);
                at += model.per_flow;
            }
        }
        self.batches.push_back(count);
        self.free_at = at;
        self.handed = self.handed.max(at + model.softirq_delay.draw(rng));
        self.awake = !self.ring.is_empty();
        self.rounds = if self.awake { self.rounds + 1 } else { 0 };
        let mut again = at;
        if model.rounds > 0 && self.rounds >= model.rounds {
            self.rounds = 0;
            again += model.deferral.draw(rng);
        }
        (self.handed, self.awake.then_some(again))
    }

    /// The packets of the batch that the protocol gets now, with the times when the core saw them.
    pub(crate) fn hand_over(&mut self) -> impl Iterator<Item = (u32, Time)> + '_ {
        let count = self.batches.pop_front().unwrap_or(0);
        self.seen.drain(..count)
    }
}

/// The gaps of one host.
#[derive(Debug)]
pub(crate) struct Gaps {
    /// Of each kind of noise: begin and end of the next gap, or of the present one.
    next: Vec<(Time, Time)>,
    rng: Rng,
}

impl Gaps {
    pub(crate) fn new(model: &HostModel, rng: Rng) -> Self {
        let mut gaps = Self { next: vec![(Time::ZERO, Time::ZERO); model.noise.len()], rng };
        for (index, noise) in model.noise.iter().enumerate() {
            // Hosts are not in step.
            let first = Time::from_picos((gaps.rng.fraction() * noise.every.as_picos() as f64) as u64);
            gaps.next[index] = (first, first + noise.lasts);
        }
        gaps
    }

    /// When the gap ends that the host is in at `now`, if it is. Asked in the order of time.
    pub(crate) fn end(&mut self, now: Time, model: &HostModel) -> Option<Time> {
        let mut end = None;
        for (noise, (begin, over)) in model.noise.iter().zip(&mut self.next) {
            while *over <= now {
                let span = (self.rng.fraction() + 0.5) * noise.every.as_picos() as f64;
                *begin += Time::from_picos(span.max(1.0) as u64);
                *over = *begin + noise.lasts;
            }
            if *begin <= now {
                end = end.max(Some(*over));
            }
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rng() -> Rng {
        Rng::streams(3, None, 1).remove(0)
    }

    #[test]
    fn delays_are_linear_between_percentiles() {
        let delay = Delay::percentiles([1.0, 2.0, 4.0, 10.0]);
        for (u, micros) in [(0.0, 1.0), (0.1, 1.0), (0.3, 1.5), (0.5, 2.0), (0.7, 3.0), (0.99, 10.0), (1.0, 10.0)] {
            assert!((delay.at(u).as_micros_f64() - micros).abs() < 1e-3, "{u}: {}", delay.at(u));
        }
        assert_eq!(Delay::NONE.at(0.5), Time::ZERO);
        assert_eq!(Delay::fixed(Time::from_micros(3)).draw(&mut rng()), Time::from_micros(3));
        let mean = (0..10_000).map(|_| delay.draw(&mut rng()).as_micros_f64()).sum::<f64>() / 1e4;
        assert!(mean > 0.9, "{mean}");
    }

    #[test]
    fn a_core_serves_batches_one_after_the_other() {
        let us = Time::from_micros;
        let model = HostModel {
            interrupt_delay: Delay::fixed(us(2)),
            per_batch: us(1),
            per_packet: us(3),
            batch: 2,
            softirq_delay: Delay::fixed(us(5)),
            ..HostModel::default()
        };
        let (mut core, mut rng) = (Core::default(), rng());
        assert_eq!(core.arrive(us(10), (0, 0), &model, &mut rng), Some(us(12)), "an interrupt");
        assert!((1..4).all(|packet| core.arrive(us(11), (packet, 0), &model, &mut rng).is_none()), "it is on its way");
        // 1 us for the batch, 3 us each: the second batch begins when the first is done.
        assert_eq!(core.work(us(12), &model, &mut rng), (us(24), Some(us(19))));
        assert_eq!(core.work(us(19), &model, &mut rng), (us(31), None));
        assert_eq!(core.hand_over().collect::<Vec<_>>(), [(0, us(13)), (1, us(16))]);
        assert_eq!(core.hand_over().collect::<Vec<_>>(), [(2, us(20)), (3, us(23))]);
        assert_eq!(core.arrive(us(25), (4, 0), &model, &mut rng), Some(us(26)), "it works until 26");
        core.work(us(26), &model, &mut rng);
        assert_eq!(core.arrive(us(40), (5, 0), &model, &mut rng), Some(us(42)), "it was idle");
    }

    #[test]
    fn a_flow_costs_once_a_batch_and_the_rest_after_some_rounds_is_left_to_a_thread() {
        let us = Time::from_micros;
        let model = HostModel {
            per_flow: us(10),
            batch: 3,
            rounds: 2,
            deferral: Delay::fixed(us(1_000)),
            ..HostModel::default()
        };
        let (mut core, mut rng) = (Core::default(), rng());
        let flows = [7, 8, 7, 7, 7, 7, 9, 9];
        for (packet, flow) in flows.into_iter().enumerate() {
            core.arrive(us(0), (packet as u32, flow), &model, &mut rng);
        }
        assert_eq!(core.work(us(0), &model, &mut rng), (us(20), Some(us(20))), "two flows");
        assert_eq!(core.work(us(20), &model, &mut rng), (us(30), Some(us(1_030))), "one; then a thread's turn");
        assert_eq!(core.work(us(1_030), &model, &mut rng), (us(1_040), None));
        core.arrive(us(1_050), (9, 9), &model, &mut rng);
        assert_eq!(core.work(us(1_050), &model, &mut rng), (us(1_060), None), "idle again: rounds begin anew");
    }

    #[test]
    fn gaps_come_as_often_and_last_as_long_as_they_should() {
        let noise = Noise { every: Time::from_micros(100), lasts: Time::from_micros(7) };
        let model = HostModel { noise: vec![noise], ..HostModel::default() };
        let mut gaps = Gaps::new(&model, rng());
        let within = (0..1_000_000).filter(|n| gaps.end(Time::from_nanos(*n * 100), &model).is_some()).count();
        assert!((65_000..75_000).contains(&within), "{within} of 1,000,000 points of time, 7 % are expected");
    }
}
