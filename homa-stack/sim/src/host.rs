//! What a host adds to the network: delays, cores, batches, noise.

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
}

/// Gaps in which a host does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noise {
    /// Mean time from one to the next.
    pub every: Time,
    /// How long each lasts.
    pub lasts: Time,
}

/// Parameters of all hosts. By default they are ideal: no delays, endless cores.
#[derive(Clone, Debug, PartialEq)]
pub struct HostModel {
    /// From the transport's send to the NIC's queue.
    pub send_delay: Delay,
    /// From a packet in the NIC to the begin of a batch on an idle core (interrupt, NAPI).
    pub interrupt_delay: Delay,
    /// Cores that receive, chosen by flow; 0: the protocol takes packets as they come.
    pub receive_cores: u32,
    /// Time of a receiving core for each packet.
    pub per_packet: Time,
    /// Time of a receiving core for each batch.
    pub per_batch: Time,
    /// Most packets in a batch.
    pub batch: u32,
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
            batch: 64,
            softirq_delay: Delay::NONE,
            wakeup_delay: Delay::NONE,
            noise: Vec::new(),
            nic_limit: Time::from_micros(2),
            nic_wake: Time::from_micros(1),
        }
    }
}
