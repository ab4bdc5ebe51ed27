//! Two ends joined by memory, for benches of the protocol without any network.
#![allow(dead_code, unreachable_pub, reason = "each bench uses its part")]

use std::net::{IpAddr, Ipv4Addr};

use homa_stack::Transmit;
use homa_stack::device::{Content, Device, Rx};
use homa_stack::metrics::{DropReason, Metrics};
use homa_stack::trace::Recorder;
use homa_stack::wire::Kind;

/// Addresses of the two hosts.
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
pub const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// Packets on their way to one host, in slots that are used again.
pub struct Wire {
    slots: Vec<(usize, Vec<u8>)>,
    used: usize,
}

/// One end: receives from one wire what was put there, and sends to its own.
pub struct End {
    from: IpAddr,
    /// To receive from.
    pub inbox: Wire,
    /// What was sent: becomes the other end's inbox.
    pub outbox: Wire,
    gathers: bool,
    /// DATA packets sent.
    pub data_packets: u64,
}

impl End {
    /// An end whose peer is `from`; if it gathers, data stay where they lie and only headers are written.
    pub fn new(from: IpAddr, gathers: bool) -> Self {
        Self { from, inbox: Wire::new(), outbox: Wire::new(), gathers, data_packets: 0 }
    }
}

impl Wire {
    fn new() -> Self {
        Self { slots: vec![(0, vec![0; 1500]); 64], used: 0 }
    }
}

impl Device for End {
    fn fetch(&mut self, most: usize) -> usize {
        self.inbox.used.min(most)
    }

    fn packet(&self, i: usize) -> Result<Rx<'_>, DropReason> {
        let (len, bytes) = &self.inbox.slots[i];
        Ok(Rx { from: self.from, priority: 7, content: Content::Homa, bytes: &bytes[..*len], wait: None })
    }

    fn release(&mut self) {
        self.inbox.used = 0;
    }

    fn tx_slot(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.outbox.slots[self.outbox.used].1)
    }

    fn commit(&mut self, transmit: &Transmit, _: &mut Recorder, _: &mut Metrics) {
        self.outbox.slots[self.outbox.used].0 = transmit.len;
        self.outbox.used += 1;
        self.data_packets += u64::from(transmit.kind == Kind::Data);
    }

    fn most_copied(&self) -> usize {
        if self.gathers { 0 } else { usize::MAX }
    }

    fn commit_gathered(&mut self, transmit: &Transmit, _: [&[u8]; 2], trace: &mut Recorder, metrics: &mut Metrics) {
        self.commit(transmit, trace, metrics);
    }
}
