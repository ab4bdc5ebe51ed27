//! What becomes of packets.

use std::net::IpAddr;

use homa_stack::Nanos;
use homa_stack::proto::Target;
use homa_stack::wire::icmp::{Cause, MAX_REFUSAL, write_error};
use homa_stack::wire::{DATA_HEADER_LEN, Kind};

use crate::net::addr;
use crate::world::{STRANGER, STRANGERS, What, World, say};

/// The longest packet, or what a device is to cut into packets.
const LONGEST: usize = 65_535;

const IP_HEADER: usize = 20;

/// Time that a host takes for a burst when it sends no more than that at once.
const BURST_TIME: Nanos = Nanos::from_micros(5);

impl World {
    /// Sends what a host has to send.
    pub fn transmit(&mut self, host: usize) {
        let mut out = std::mem::take(&mut self.out);
        out.resize(LONGEST, 0);
        self.transmit_by(host, &mut out);
        self.out = out;
    }

    fn transmit_by(&mut self, host: usize, out: &mut [u8]) {
        for _ in 0..self.plan.burst {
            let Some(sent) = self.hosts[host].core.poll_transmit(self.now, out) else { return };
            let packet = &out[..sent.len];
            let IpAddr::V4(to) = sent.to else { unreachable!("all addresses are IPv4") };
            let to = (to.to_bits() - 0x0a00_0001) as usize;
            say!(
                self,
                "{host}: {} of {} to {to}, offset {}, {} bytes",
                sent.kind.name(),
                sent.id,
                sent.offset,
                sent.len
            );
            self.tally.super_frames += u64::from(sent.segment > 0);
            let largest = if sent.segment > 0 { sent.segment + DATA_HEADER_LEN } else { sent.len };
            if largest + IP_HEADER > self.plan.narrow {
                self.too_big(host, sent.to, packet);
            } else if to < STRANGER {
                self.route(self.plan.node(host), to, packet);
            }
        }
        self.after(BURST_TIME, What::Work(host));
    }

    /// A packet does not fit the network, which says so to its sender.
    fn too_big(&mut self, host: usize, to: IpAddr, packet: &[u8]) {
        self.tally.too_big += 1;
        let (router, us) = (addr(STRANGER), addr(self.plan.node(host)));
        let (cause, mut out) = (Cause::TooBig { mtu: self.plan.narrow as u32 }, [0; MAX_REFUSAL]);
        let len = write_error(cause, router, to, us, packet, packet.len(), &mut out);
        say!(self, "{host}: that was too big");
        self.hosts[host].core.handle_icmp(self.now, router, us, &out[..len]);
    }

    /// Gives a packet its fate.
    fn route(&mut self, from: usize, to: usize, packet: &[u8]) {
        if self.rng.chance(self.plan.loss) {
            say!(self, "{from}: that was lost");
        } else {
            self.send(from, to, packet);
        }
        if self.rng.chance(self.plan.duplicate) {
            self.send(from, to, packet);
        }
        if self.rng.chance(self.plan.cut) {
            let len = self.rng.below(packet.len() as u64) as usize;
            self.send(from, to, &packet[..len]);
        }
        if self.rng.chance(self.plan.forged) {
            self.forge(packet);
        }
    }

    fn send(&mut self, from: usize, to: usize, packet: &[u8]) {
        let mut delay = 5_000 + self.rng.below(2_000);
        if self.rng.chance(self.plan.reorder) {
            delay += self.rng.below(2_000_000);
        }
        if self.rng.chance(self.plan.late) {
            delay += self.rng.below(self.plan.late_most.as_nanos());
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(packet);
        let worker = self.steer(&bytes);
        self.after(Nanos::from_nanos(delay), What::Arrive { from, to: to * self.plan.workers + worker, bytes });
    }

    /// The worker of a host that a packet comes to.
    fn steer(&mut self, bytes: &[u8]) -> usize {
        let workers = self.plan.workers;
        if workers == 1 {
            return 0;
        }
        let right = self.plan.config(0).shard.of_packet(bytes);
        match right {
            Target::One(worker) if !self.rng.chance(self.plan.astray) => worker as usize,
            _ => self.rng.below(workers as u64) as usize,
        }
    }

    /// Takes what a worker has for others of its node to them, some time later.
    pub fn hand_on(&mut self, host: usize) {
        let (workers, first) = (self.plan.workers, host - host % self.plan.workers);
        while let Some(forward) = self.hosts[host].core.poll_forward() {
            self.tally.forwarded += 1;
            for to in (first..first + workers).filter(|to| *to != host && forward.to.includes((to - first) as u32)) {
                let (delay, life) = (Nanos::from_nanos(self.rng.below(50_000)), self.hosts[to].life);
                self.after(delay, What::Forward { host: to, life, forward: forward.clone() });
            }
        }
    }

    /// A packet from a stranger to any host: one seen on the network with bits flipped, or another type, or noise.
    fn forge(&mut self, seen: &[u8]) {
        let mut packet = seen.to_vec();
        match self.rng.below(4) {
            0 => packet.iter_mut().for_each(|byte| *byte = self.rng.next() as u8),
            1 => packet[11] = Kind::ALL[self.rng.below(9) as usize].code(),
            2 => packet[11] = self.rng.next() as u8,
            _ => {}
        }
        for _ in 0..self.rng.below(4) {
            let at = self.rng.below(packet.len().min(64) as u64) as usize;
            packet[at] ^= 1 << self.rng.below(8);
        }
        let from = STRANGER + self.rng.below(STRANGERS as u64) as usize;
        let to = self.rng.below(self.plan.configs.len() as u64) as usize;
        say!(self, "{from}: forged packet of type {:#x} to {to}", packet[11]);
        self.tally.forged += 1;
        self.send(from, to, &packet);
    }
}
