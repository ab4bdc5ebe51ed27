//! What slow messages waited for: their sender's link or their receiver's, busy with others.

use homa_stack::metrics::Metrics;

use super::{DATA, FRAMING, MTU};
use crate::time::Time;

/// Time between two looks at the hosts' counters.
pub(super) const LOOK: Time = Time::from_micros(5);

/// Data bytes that each host has sent and received, look by look.
#[derive(Debug, Default)]
pub(super) struct Looks {
    hosts: usize,
    sent: Vec<u32>,
    received: Vec<u32>,
}

impl Looks {
    pub(super) fn add<'a>(&mut self, counters: impl Iterator<Item = &'a Metrics>) {
        let before = self.sent.len();
        for metrics in counters {
            self.sent.push(metrics.client_request_bytes_done as u32);
            self.received.push(metrics.rx_copied_bytes as u32);
        }
        self.hosts = self.sent.len() - before;
    }

    fn between(&self, of: &[u32], host: u32, begin: Time, end: Time) -> f64 {
        let at = |time: Time| {
            let look = (time.as_picos() / LOOK.as_picos()) as usize;
            of.get(look * self.hosts + host as usize).or(of.last()).map_or(0, |bytes| *bytes)
        };
        f64::from(at(end).wrapping_sub(at(begin)))
    }
}

/// A message that has arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) len: u32,
    pub(super) begun: Time,
    pub(super) ended: Time,
    pub(super) ideal: Time,
}

/// What messages of a range of lengths waited for, the slowest twentieth of them; means in us.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Waits {
    /// Least and largest length.
    pub lens: (u32, u32),
    /// Messages of these lengths, and how many the slowest twentieth are.
    pub messages: (usize, usize),
    /// Time beyond that in an empty network.
    pub excess_us: f64,
    /// In that time: link of the sender busy with other messages.
    pub sender_us: f64,
    /// Link of the receiver busy with other messages.
    pub receiver_us: f64,
    /// Share of these messages for which the sender's link alone explains more than half of the excess, the receiver's
    /// alone, both each, neither.
    pub shares: [f64; 4],
}

pub(super) fn waits(looks: &Looks, all: &[Arrived], lens: (u32, u32)) -> Waits {
    let slowdown = |m: &Arrived| (m.ended - m.begun).as_picos() as f64 / m.ideal.as_picos() as f64;
    let mut of: Vec<&Arrived> = all.iter().filter(|m| (lens.0..=lens.1).contains(&m.len)).collect();
    of.sort_by(|a, b| slowdown(b).total_cmp(&slowdown(a)));
    let slow = &of[..of.len().div_ceil(20)];
    // A byte of data with its share of headers, at 10 Gbit/s.
    let us_a_byte = (MTU + FRAMING) as f64 / DATA as f64 * 8e-4;
    let mut sums = [0.0; 3];
    let mut kinds = [0; 4];
    for message in slow {
        let Arrived { from, to, len, begun, ended, ideal } = **message;
        let busy = |bytes: f64| (bytes - f64::from(len)).max(0.0) * us_a_byte;
        let excess = (ended - begun).as_micros_f64() - ideal.as_micros_f64();
        let sender = busy(looks.between(&looks.sent, from, begun, ended));
        let receiver = busy(looks.between(&looks.received, to, begun, ended));
        for (sum, value) in sums.iter_mut().zip([excess, sender, receiver]) {
            *sum += value / slow.len() as f64;
        }
        kinds[match (sender > excess / 2.0, receiver > excess / 2.0) {
            (true, false) => 0,
            (false, true) => 1,
            (true, true) => 2,
            (false, false) => 3,
        }] += 1;
    }
    let shares = kinds.map(|count| f64::from(count) / slow.len().max(1) as f64);
    let [excess_us, sender_us, receiver_us] = sums;
    Waits { lens, messages: (of.len(), slow.len()), excess_us, sender_us, receiver_us, shares }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_message_waited_for_its_senders_link() {
        let mut looks = Looks::default();
        for look in 0..100_u64 {
            // Host 0 sends all the time, host 1 receives half of it.
            let metrics = |sent, received| {
                let mut metrics = Metrics::default();
                (metrics.client_request_bytes_done, metrics.rx_copied_bytes) = (sent, received);
                metrics
            };
            looks.add([metrics(look * 6_000, 0), metrics(0, look * 600)].iter());
        }
        let message = |ended| Arrived {
            from: 0,
            to: 1,
            len: 6_000,
            begun: Time::ZERO,
            ended: Time::from_micros(ended),
            ideal: Time::from_micros(10),
        };
        let found = waits(&looks, &[message(10), message(100)], (1, 10_000));
        assert_eq!((found.messages, found.shares), ((2, 1), [1.0, 0.0, 0.0, 0.0]));
        assert_eq!(found.excess_us, 90.0);
        // 120,000 bytes less its own.
        assert!((found.sender_us - 114_000.0 * 8e-4 * 1538.0 / 1442.0).abs() < 1e-6, "{}", found.sender_us);
        assert!(found.receiver_us < 10.0);
    }
}
