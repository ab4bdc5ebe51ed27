//! What the links of a testbed are like: their rate, the switch's buffers and priorities, and random loss, made at the
//! switch's ports with the kernel's own queueing disciplines, so that they hold for every protocol alike, for those too
//! whose senders bypass the queues of their own host.

use std::io;

use anyhow::Context;
use serde::Serialize;

use crate::error::Stop;
use crate::netlink::Netlink;
use crate::netlink::traffic::{INGRESS, Instruction, Level, Rate};

/// Rates that can be asked for, 10^9 bit/s: the kernel's clocks and timers shape neither slower nor faster links well.
pub const GBPS_RANGE: std::ops::RangeInclusive<f64> = 0.001..=30.0;
/// Strict levels of a port: IP precedence has eight values.
pub const MOST_PRIORITIES: u8 = 8;
/// Ethernet header, which the kernel counts with a frame.
const ETHERNET: u32 = 14;
/// Preamble, checksum and gap: what else a frame takes of a link.
const FRAMING: u16 = 8 + 4 + 12;
/// Frames that wait for a node's link to the switch: a usual length of an interface's queue.
const UPLINK_FRAMES: u32 = 1000;
/// Time of the link that may be made up for at once when a timer of the kernel was late.
const LATE_US: u32 = 100;

/// A link between node and switch, both directions alike.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Shape {
    /// Rate, 10^9 bit/s, framing included.
    pub link_gbps: f64,
    /// Buffer of each switch port, for each of its levels.
    pub switch_buffer_bytes: u32,
    /// Strict levels of a switch port, by IP precedence, 1 to 8.
    pub priorities: u8,
}

/// All links of a testbed are alike.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Links {
    /// `None`: as fast as the machine.
    pub shape: Option<Shape>,
    /// Share of the IP packets that are lost at random where they enter the switch, 0 to 1.
    pub loss: f64,
}

/// What happened at one port of the switch since the testbed was built.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct PortCounts {
    /// Number of the port, which is that of its node.
    pub port: usize,
    /// Frames sent to the node, by level, least urgent first.
    pub sent_packets: Vec<u64>,
    /// Their bytes, all levels.
    pub sent_bytes: u64,
    /// Frames to the node that found the buffer of their level full, by level.
    pub dropped_packets: Vec<u64>,
    /// Frames from the node that found the queue of its link full.
    pub uplink_dropped_packets: u64,
    /// Packets from the node that were lost at random.
    pub lost_packets: u64,
}

impl PortCounts {
    /// What was added since `earlier`, of the same port. The kernel's counts of packets have 32 bits and wrap.
    pub fn since(&self, earlier: &Self) -> Self {
        let packets = |now: u64, then: u64| u64::from((now as u32).wrapping_sub(then as u32));
        let levels = |now: &[u64], then: &[u64]| {
            let before = |level: usize| then.get(level).copied().unwrap_or(0);
            now.iter().enumerate().map(|(level, now)| packets(*now, before(level))).collect()
        };
        Self {
            port: self.port,
            sent_packets: levels(&self.sent_packets, &earlier.sent_packets),
            sent_bytes: self.sent_bytes.saturating_sub(earlier.sent_bytes),
            dropped_packets: levels(&self.dropped_packets, &earlier.dropped_packets),
            uplink_dropped_packets: packets(self.uplink_dropped_packets, earlier.uplink_dropped_packets),
            lost_packets: packets(self.lost_packets, earlier.lost_packets),
        }
    }
}

impl Shape {
    /// Refuses what the kernel could not make.
    ///
    /// # Errors
    /// [`Stop::Usage`], naming the option.
    pub fn check(&self, mtu: u32) -> Result<(), Stop> {
        let Self { link_gbps, switch_buffer_bytes, priorities } = *self;
        let (least, most) = GBPS_RANGE.into_inner();
        let frame = mtu + ETHERNET;
        let text = if !GBPS_RANGE.contains(&link_gbps) {
            format!("--link-gbps {link_gbps}: a link here has {least} to {most} Gbps")
        } else if switch_buffer_bytes < frame {
            format!("--switch-buffer {switch_buffer_bytes}: a frame takes {frame} bytes (--mtu {mtu})")
        } else if !(1..=MOST_PRIORITIES).contains(&priorities) {
            format!("--priorities {priorities}: a port has 1 to {MOST_PRIORITIES} levels")
        } else {
            return Ok(());
        };
        Err(Stop::Usage(text))
    }

    /// The link as the kernel shapes it.
    fn rate(&self, mtu: u32) -> Rate {
        let bytes_per_s = (self.link_gbps * 1e9 / 8.0).round() as u32;
        let two_frames = 2 * (mtu + ETHERNET + u32::from(FRAMING));
        let late = u64::from(bytes_per_s) * u64::from(LATE_US) / 1_000_000;
        Rate { bytes_per_s, burst_bytes: two_frames.max(late as u32), framing_bytes: FRAMING }
    }

    /// The queue of a node's own end.
    fn uplink_limit(mtu: u32) -> u32 {
        UPLINK_FRAMES * (mtu + ETHERNET)
    }

    /// Level `k` of a port, 0 the least urgent.
    fn level(&self, k: u8) -> Level {
        Level {
            class: FIRST_CLASS + u32::from(k),
            rank: u32::from(self.priorities - 1 - k),
            limit_bytes: self.switch_buffer_bytes,
        }
    }

    /// Shapes what a node's own kernel sends, at its end of the link: queues there push back on sockets, as those of an
    /// interface of that rate would. Raw packet sockets that bypass queueing disciplines do not meet it.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn limit_node(&self, node: &mut Netlink, interface: u32, mtu: u32) -> io::Result<()> {
        node.add_rate_limit(interface, self.rate(mtu), Self::uplink_limit(mtu))
    }
}

/// Handle of the class of the least urgent level.
const FIRST_CLASS: u32 = 1 << 16 | 0x10;

impl Links {
    /// Makes the port `number` of the switch such a link's end.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn make_port(&self, switch: &mut Netlink, number: usize, mtu: u32) -> anyhow::Result<()> {
        let port = switch.index(&port_name(number)).context("looking up a port")?;
        if self.loss > 0.0 || self.shape.is_some() {
            switch.add_ingress(port).context("adding a queueing discipline for what arrives at a port (ingress)")?;
        }
        if self.loss > 0.0 {
            switch
                .add_verdict(port, 1, &loss_program(self.loss))
                .context("adding a filter that loses packets (bpf)")?;
        }
        let Some(shape) = &self.shape else { return Ok(()) };
        let levels: Vec<_> = (0..shape.priorities).map(|k| shape.level(k)).collect();
        let classify = level_program(shape.priorities);
        let shaped = switch.add_levels(port, shape.rate(mtu), &levels, &classify);
        shaped.context("shaping a port (htb, bfifo, bpf)")?;
        let name = uplink_name(number);
        switch.add_ifb(&name, mtu).context("adding an intermediate functional block (ifb)")?;
        let uplink = switch.index(&name).context("looking up an intermediate functional block")?;
        let limited = switch.add_rate_limit(uplink, shape.rate(mtu), Shape::uplink_limit(mtu));
        limited.context("shaping a node's link to the switch (tbf)")?;
        switch.add_redirect(port, 2, uplink).context("sending what arrives through the shaped link (mirred)")
    }

    /// Counters of the ports of `nodes` nodes; none if the links are not shaped and lose nothing.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(super) fn counts(&self, switch: &mut Netlink, nodes: usize) -> io::Result<Vec<PortCounts>> {
        if *self == Self::default() {
            return Ok(Vec::new());
        }
        let queues = switch.queues()?;
        let mut all = Vec::with_capacity(nodes);
        for number in 0..nodes {
            let port = switch.index(&port_name(number))?;
            let find = |interface: u32, handle: u32| {
                let found = queues.iter().find(|queue| queue.interface == interface && queue.handle == handle);
                found.copied().unwrap_or_default()
            };
            let mut counts =
                PortCounts { port: number, lost_packets: find(port, INGRESS).drops.into(), ..PortCounts::default() };
            if let Some(shape) = &self.shape {
                let uplink = switch.index(&uplink_name(number))?;
                let leaves = (0..shape.priorities).map(|k| find(port, (shape.level(k).class & 0xffff) << 16));
                for leaf in leaves {
                    counts.sent_packets.push(leaf.packets.into());
                    counts.dropped_packets.push(leaf.drops.into());
                }
                counts.sent_bytes = find(port, 1 << 16).bytes;
                counts.uplink_dropped_packets = find(uplink, 1 << 16).drops.into();
            }
            all.push(counts);
        }
        Ok(all)
    }

    /// What is modelled and what is not, for the manifest.
    pub(super) fn facts(&self, mtu: u32) -> serde_json::Value {
        let loss = serde_json::json!({
            "share": self.loss,
            "where": "IP packets that enter the switch; neither ARP nor ICMPv6 (neighbour discovery)",
        });
        let Some(shape) = &self.shape else {
            let free = "as fast as the machine; a packet of TCP is up to 64 KiB long (TSO) and lost as a whole";
            return serde_json::json!({ "shape": null, "links": free, "loss": loss });
        };
        let rate = shape.rate(mtu);
        serde_json::json!({
            "shape": shape,
            "loss": loss,
            "framing_bytes": ETHERNET + u32::from(FRAMING),
            "burst_bytes": rate.burst_bytes,
            "uplink_queue_bytes": Shape::uplink_limit(mtu),
            "modelled": [
                "switch to node: link_gbps for every protocol, header, preamble, checksum and gap of each frame counted \
                 (HTB at the switch's port)",
                "strict levels there by IP precedence p: level p * priorities / 8, the highest first; non-IP frames go \
                 first. switch_buffer_bytes may wait at each level, later frames are dropped",
                "node to switch: the same rate for every protocol, where frames enter the switch (TBF behind an \
                 intermediate functional block); uplink_queue_bytes may wait, in order, as in a network interface",
                "what a node's own kernel sends meets the same rate at the node already, so that the queue pushes back \
                 on its sockets; a user-space sender past the kernel's queues has to pace itself",
                "every frame crosses by itself: no segmentation offload (TSO) on these links",
            ],
            "not_modelled": [
                "a buffer shared between levels or ports; marking of packets (ECN); pause frames",
                "delay of cables and of the switch's forwarding, beyond what the machine takes",
                "exact spacing: timers of the kernel may be late, up to burst_bytes are then sent at once",
                "cores: nodes and switch share those of one machine",
            ],
            "levels_own_rate_bytes_per_s": crate::netlink::traffic::TRICKLE,
        })
    }
}

/// Name of the switch's port to node `number`.
pub(super) fn port_name(number: usize) -> String {
    format!("port{number}")
}

/// Name of the block that a port's arrivals go through.
fn uplink_name(number: usize) -> String {
    format!("up{number}")
}

// linux/bpf_common.h, linux/filter.h
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_WORD: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const JUMP: u16 = 0x05;
const AND: u16 = 0x54;
const SHIFT_RIGHT: u16 = 0x74;
const MULTIPLY: u16 = 0x24;
const ADD: u16 = 0x04;
const RETURN: u16 = 0x06;
const RETURN_A: u16 = 0x16;
/// `SKF_AD_OFF + SKF_AD_RANDOM`: where a random number is loaded from.
const RANDOM: u32 = 0xffff_f000 + 56;
const ETHERTYPE_AT: u32 = 12;
const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;

/// The class of a frame: by precedence, the top three bits of IPv4's type of service and of IPv6's traffic class.
fn level_program(priorities: u8) -> [Instruction; 14] {
    let top = FIRST_CLASS + u32::from(priorities) - 1;
    [
        (LOAD_HALF, 0, 0, ETHERTYPE_AT),
        (IF_EQUAL, 0, 3, IPV4),
        (LOAD_BYTE, 0, 0, 15),
        (SHIFT_RIGHT, 0, 0, 5),
        (JUMP, 0, 0, 4),
        (IF_EQUAL, 0, 7, IPV6),
        (LOAD_BYTE, 0, 0, 14), // version, and the upper half of the class
        (AND, 0, 0, 0x0f),
        (SHIFT_RIGHT, 0, 0, 1),
        (MULTIPLY, 0, 0, priorities.into()),
        (SHIFT_RIGHT, 0, 0, 3),
        (ADD, 0, 0, FIRST_CLASS),
        (RETURN_A, 0, 0, 0),
        (RETURN, 0, 0, top),
    ]
}

/// Drops the share `loss` of the IP packets, at random, but no neighbour discovery.
fn loss_program(loss: f64) -> [Instruction; 9] {
    const ICMPV6: u32 = 58;
    const PASS: u32 = u32::MAX;
    const DROP: u32 = 2; // TC_ACT_SHOT
    let bound = (loss.clamp(0.0, 1.0) * f64::from(u32::MAX)) as u32;
    [
        (LOAD_HALF, 0, 0, ETHERTYPE_AT),
        (IF_EQUAL, 3, 0, IPV4),
        (IF_EQUAL, 0, 5, IPV6),
        (LOAD_BYTE, 0, 0, 20), // next header
        (IF_EQUAL, 3, 0, ICMPV6),
        (LOAD_WORD, 0, 0, RANDOM),
        (IF_AT_LEAST, 1, 0, bound),
        (RETURN, 0, 0, DROP),
        (RETURN, 0, 0, PASS),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { link_gbps: 0.2, switch_buffer_bytes: 100_000, priorities: 8 };

    /// Runs a program as the kernel does, as far as the programs here go.
    fn run(program: &[Instruction], frame: &[u8], random: u32) -> u32 {
        let (mut a, mut at) = (0u32, 0);
        loop {
            let (code, jt, jf, k) = program[at];
            let i = k as usize;
            at += 1;
            match code {
                LOAD_WORD if k == RANDOM => a = random,
                LOAD_HALF => a = u32::from(frame[i]) << 8 | u32::from(frame[i + 1]),
                LOAD_BYTE => a = frame[i].into(),
                IF_EQUAL => at += usize::from(if a == k { jt } else { jf }),
                IF_AT_LEAST => at += usize::from(if a >= k { jt } else { jf }),
                JUMP => at += i,
                AND => a &= k,
                SHIFT_RIGHT => a >>= k,
                MULTIPLY => a *= k,
                ADD => a += k,
                RETURN => return k,
                RETURN_A => return a,
                _ => panic!("instruction {code:#x}"),
            }
        }
    }

    fn frame(ethertype: u16, precedence: u8) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        match ethertype {
            0x0800 => (frame[14], frame[15]) = (0x45, precedence << 5 | 0x1f),
            0x86dd => (frame[14], frame[15]) = (0x60 | precedence << 1 | 1, 0xff),
            _ => {}
        }
        frame
    }

    #[test]
    fn levels_follow_the_precedence_of_both_ip_versions() {
        for (priorities, want) in
            [(8, [0, 1, 2, 3, 4, 5, 6, 7]), (4, [0, 0, 1, 1, 2, 2, 3, 3]), (3, [0, 0, 0, 1, 1, 1, 2, 2]), (1, [0; 8])]
        {
            let program = level_program(priorities);
            for (precedence, level) in want.into_iter().enumerate() {
                for ethertype in [0x0800, 0x86dd] {
                    let class = run(&program, &frame(ethertype, precedence as u8), 0);
                    assert_eq!(class, FIRST_CLASS + level, "{priorities} levels, {precedence}, {ethertype:#x}");
                }
            }
            let arp = run(&program, &frame(0x0806, 0), 0);
            assert_eq!(arp, FIRST_CLASS + u32::from(priorities) - 1);
        }
    }

    #[test]
    fn loss_takes_ip_packets_below_the_bound_and_no_neighbour_discovery() {
        let program = loss_program(0.25);
        let mut discovery = frame(0x86dd, 0);
        discovery[20] = 58;
        for (random, lost) in [(0, true), ((1 << 30) - 10, true), (1 << 30, false), (u32::MAX, false)] {
            let want = if lost { 2 } else { u32::MAX };
            assert_eq!(run(&program, &frame(0x0800, 0), random), want, "{random}");
            assert_eq!(run(&program, &frame(0x86dd, 7), random), want, "{random}");
            assert_eq!(run(&program, &frame(0x0806, 0), random), u32::MAX, "ARP");
            assert_eq!(run(&program, &discovery, random), u32::MAX);
        }
    }

    #[test]
    fn impossible_links_are_usage_errors_that_name_the_option() {
        SHAPE.check(1500).unwrap();
        for (shape, part) in [
            (Shape { link_gbps: 0.0, ..SHAPE }, "--link-gbps 0"),
            (Shape { link_gbps: f64::NAN, ..SHAPE }, "--link-gbps NaN"),
            (Shape { link_gbps: 100.0, ..SHAPE }, "--link-gbps 100"),
            (Shape { switch_buffer_bytes: 1000, ..SHAPE }, "--switch-buffer 1000"),
            (Shape { priorities: 0, ..SHAPE }, "--priorities 0"),
            (Shape { priorities: 9, ..SHAPE }, "--priorities 9"),
        ] {
            let stop = shape.check(1500).unwrap_err();
            assert_eq!(stop.code(), 2);
            assert!(stop.to_string().contains(part), "{stop}");
        }
    }

    #[test]
    fn a_burst_is_two_frames_or_what_a_late_timer_has_missed() {
        assert_eq!(SHAPE.rate(1500).burst_bytes, 2 * 1538);
        assert_eq!(Shape { link_gbps: 10.0, ..SHAPE }.rate(1500).burst_bytes, 125_000);
    }

    #[test]
    fn counts_are_differences_and_wrap_with_the_kernels() {
        let then = PortCounts {
            port: 1,
            lost_packets: u64::from(u32::MAX),
            dropped_packets: vec![3, 0],
            ..Default::default()
        };
        let now =
            PortCounts { port: 1, lost_packets: 4, dropped_packets: vec![5, 1], sent_bytes: 9, ..Default::default() };
        let since = now.since(&then);
        assert_eq!((since.lost_packets, since.dropped_packets, since.sent_bytes), (5, vec![2, 1], 9));
    }
}
