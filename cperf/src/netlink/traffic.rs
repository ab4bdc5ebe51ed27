//! Traffic control by route netlink: queueing disciplines, classes, filters, and their counters. Layouts:
//! linux/pkt_sched.h, linux/pkt_cls.h, linux/gen_stats.h.

use std::io;

use super::{CREATE, Message, Netlink, REQUEST, attributes, parts};

/// One instruction of classic BPF: code, offsets of both jumps, operand (linux/filter.h).
pub type Instruction = (u16, u8, u8, u32);

/// Handle of the queueing discipline that all packets received on an interface meet first.
pub const INGRESS: u32 = 0xffff_0000;

/// Rate of a link, with how much of it may be sent at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Bytes per second, framing included; below 2^32.
    pub bytes_per_s: u32,
    /// Bytes that may go out at once after a pause.
    pub burst_bytes: u32,
    /// Bytes that a frame takes on the wire beyond those that the kernel counts.
    pub framing_bytes: u16,
}

/// One strict level of a shaped port.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Handle of its class, below that of the port's link.
    pub class: u32,
    /// Rank among its siblings; 0 goes first.
    pub rank: u32,
    /// Bytes that may wait.
    pub limit_bytes: u32,
}

/// Counters of one queueing discipline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Index of its interface.
    pub interface: u32,
    /// Its own handle.
    pub handle: u32,
    /// Bytes that have passed.
    pub bytes: u64,
    /// Packets that have passed.
    pub packets: u32,
    /// Packets dropped.
    pub drops: u32,
    /// Bytes that wait now.
    pub backlog_bytes: u32,
}

impl Netlink {
    /// Gives `interface` one link of rate `link` that strict levels share: while a level has packets, those after it
    /// wait. Packets go to the class whose handle `classify` returns, else to the first of `levels`.
    ///
    /// By HTB. Each class has its own rate of [`TRICKLE`] bytes a second, which is what strictness is short of, and
    /// borrows the rest in the order of ranks.
    ///
    /// # Errors
    /// The kernel's answer: no such interface, no support for HTB or BPF filters, no permission.
    pub fn add_levels(
        &mut self,
        interface: u32,
        link: Rate,
        levels: &[Level],
        classify: &[Instruction],
    ) -> io::Result<()> {
        const ROOT: u32 = 1 << 16;
        const LINK: u32 = ROOT | 1;
        let mut message = Message::traffic(interface, ROOT, TC_H_ROOT, 0);
        let first = levels.first().map_or(0, |level| level.class & 0xffff);
        message.text(TCA_KIND, "htb").nest(TCA_OPTIONS, |options| {
            // struct tc_htb_glob: version, rate to quantum, default class, two that the kernel fills in.
            options.words(TCA_HTB_INIT, &[3, 10, first, 0, 0]);
        });
        self.request(RTM_NEWQDISC, CREATE, message)?;
        self.add_class(interface, ROOT, LINK, link, link, 0)?;
        for level in levels {
            let trickle = Rate { bytes_per_s: TRICKLE, ..link };
            self.add_class(interface, LINK, level.class, trickle, link, level.rank)?;
            let mut message = Message::traffic(interface, (level.class & 0xffff) << 16, level.class, 0);
            // struct tc_fifo_qopt: the limit.
            message.text(TCA_KIND, "bfifo").words(TCA_OPTIONS, &[level.limit_bytes]);
            self.request(RTM_NEWQDISC, CREATE, message)?;
        }
        self.add_filter(interface, ROOT, 1, |options| {
            options.program(classify);
        })
    }

    /// Limits what leaves by `interface` to `link`; up to `limit_bytes` wait, in order. By TBF.
    ///
    /// # Errors
    /// As [`Netlink::add_levels`].
    pub fn add_rate_limit(&mut self, interface: u32, link: Rate, limit_bytes: u32) -> io::Result<()> {
        let mut message = Message::traffic(interface, 1 << 16, TC_H_ROOT, 0);
        message.text(TCA_KIND, "tbf").nest(TCA_OPTIONS, |options| {
            // struct tc_tbf_qopt: rate, peak rate (none), limit, burst as time, the peak rate's burst.
            options.nest(TCA_TBF_PARMS, |parms| {
                parms.ratespec(link);
                parms.0.extend_from_slice(&[0; 12]);
                for word in [limit_bytes, burst_ticks(link), 0] {
                    parms.0.extend_from_slice(&word.to_ne_bytes());
                }
            });
            options.u32(TCA_TBF_BURST, link.burst_bytes);
        });
        self.request(RTM_NEWQDISC, CREATE, message).map(drop)
    }

    /// Lets filters see what arrives at `interface`; its counter of drops is that of what they drop.
    ///
    /// # Errors
    /// As [`Netlink::add_levels`].
    pub fn add_ingress(&mut self, interface: u32) -> io::Result<()> {
        let mut message = Message::traffic(interface, INGRESS, TC_H_INGRESS, 0);
        message.text(TCA_KIND, "ingress");
        self.request(RTM_NEWQDISC, CREATE, message).map(drop)
    }

    /// Has `program` decide about each arriving packet: 2 drops it, 4 takes it, `u32::MAX` passes it to the
    /// next filter.
    ///
    /// # Errors
    /// As [`Netlink::add_levels`].
    pub fn add_verdict(&mut self, interface: u32, order: u16, program: &[Instruction]) -> io::Result<()> {
        self.add_filter(interface, INGRESS, order, |options| {
            options.program(program).u32(TCA_BPF_FLAGS, 1); // TCA_BPF_FLAG_ACT_DIRECT
        })
    }

    /// Sends every packet that arrives at `interface` out by interface `to`, without the socket that sent it: it has
    /// left the host, and waits from here on at nobody's expense. If `to` is an intermediate functional block, packets
    /// come back from it to where they were taken.
    ///
    /// Makes two filters, `order` and the next.
    ///
    /// # Errors
    /// As [`Netlink::add_levels`].
    pub fn add_redirect(&mut self, interface: u32, order: u16, to: u32) -> io::Result<()> {
        const ALL: [Instruction; 1] = [(0x06, 0, 0, u32::MAX)];
        // TC_ACT_STOLEN: the packet is gone.
        const TAKE: [Instruction; 1] = [(0x06, 0, 0, 4)];
        self.add_filter(interface, INGRESS, order, |options| {
            options.program(&ALL).u32(TCA_BPF_CLASSID, INGRESS | 1);
            options.nest(TCA_BPF_ACT, |actions| {
                actions.nest(1, |action| {
                    action.text(TCA_ACT_KIND, "mirred").nest(TCA_ACT_OPTIONS, |mirred| {
                        // struct tc_mirred: index, capabilities, verdict, two counts, what to do (TCA_EGRESS_REDIR),
                        // where to. The verdict TC_ACT_UNSPEC has the kernel send a clone, which no socket owns, and
                        // go on to the next filter with the packet itself.
                        mirred.words(TCA_MIRRED_PARMS, &[0, 0, u32::MAX, 0, 0, 1, to]);
                    });
                });
            });
        })?;
        self.add_verdict(interface, order + 1, &TAKE)
    }

    /// Creates an intermediate functional block that is up: an interface with a queue and nothing behind it.
    ///
    /// # Errors
    /// As [`Netlink::add_bridge`].
    pub fn add_ifb(&mut self, name: &str, mtu: u32) -> io::Result<()> {
        let mut message = Message::link(0, true);
        message.text(super::IFLA_IFNAME, name).u32(super::IFLA_MTU, mtu);
        message.nest(super::IFLA_LINKINFO, |info| {
            info.text(super::IFLA_INFO_KIND, "ifb");
        });
        self.request(super::RTM_NEWLINK, CREATE, message).map(drop)
    }

    /// Counters of every queueing discipline in this namespace.
    ///
    /// # Errors
    /// The kernel's answer, or one that is too short.
    pub fn queues(&mut self) -> io::Result<Vec<Queue>> {
        let bodies = self.dump(RTM_GETQDISC, Message::traffic(0, 0, 0, 0))?;
        Ok(bodies.iter().filter_map(|body| queue(body)).collect())
    }

    fn add_class(
        &mut self,
        interface: u32,
        parent: u32,
        class: u32,
        rate: Rate,
        ceil: Rate,
        rank: u32,
    ) -> io::Result<()> {
        let mut message = Message::traffic(interface, class, parent, 0);
        message.text(TCA_KIND, "htb").nest(TCA_OPTIONS, |options| {
            // struct tc_htb_opt: both rates, both bursts as time, quantum, level (the kernel's), rank.
            options.nest(TCA_HTB_PARMS, |parms| {
                parms.ratespec(rate);
                parms.ratespec(ceil);
                for word in [burst_ticks(rate), burst_ticks(ceil), ceil.burst_bytes, 0, rank] {
                    parms.0.extend_from_slice(&word.to_ne_bytes());
                }
            });
        });
        self.request(RTM_NEWTCLASS, CREATE, message).map(drop)
    }

    fn add_filter(
        &mut self,
        interface: u32,
        parent: u32,
        order: u16,
        options: impl FnOnce(&mut Message),
    ) -> io::Result<()> {
        let info = u32::from(order) << 16 | u32::from(ETH_P_ALL.to_be());
        let mut message = Message::traffic(interface, 0, parent, info);
        message.text(TCA_KIND, "bpf").nest(TCA_OPTIONS, options);
        self.request(RTM_NEWTFILTER, CREATE, message).map(drop)
    }

    /// Sends a request for all objects of a kind; the bodies of the answers.
    fn dump(&mut self, kind: u16, message: Message) -> io::Result<Vec<Vec<u8>>> {
        const NLM_F_DUMP: u16 = 0x300;
        const DONE: u16 = 3;
        self.send(kind, (REQUEST & !super::ACK) | NLM_F_DUMP, &message)?;
        let mut bodies = Vec::new();
        let mut datagram = vec![0; 64 * 1024];
        loop {
            let len = self.receive(&mut datagram)?;
            for part in parts(&datagram[..len]).filter(|part| part.sequence == self.sequence) {
                match part.kind {
                    DONE => return Ok(bodies),
                    super::ANSWER => return part.status().map(|()| bodies),
                    _ => bodies.push(part.body.to_vec()),
                }
            }
        }
    }
}

/// Own rate of a level, bytes a second: HTB has no class without one. A frame in a quarter of a minute.
pub const TRICKLE: u32 = 100;

const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTCLASS: u16 = 40;
const RTM_NEWTFILTER: u16 = 44;
const TC_H_ROOT: u32 = 0xffff_ffff;
const TC_H_INGRESS: u32 = 0xffff_fff1;
const ETH_P_ALL: u16 = 3;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_STATS2: u16 = 7;
const TCA_STATS_BASIC: u16 = 1;
const TCA_STATS_QUEUE: u16 = 3;
const TCA_HTB_PARMS: u16 = 1;
const TCA_HTB_INIT: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_BURST: u16 = 6;
const TCA_BPF_ACT: u16 = 1;
const TCA_BPF_CLASSID: u16 = 3;
const TCA_BPF_OPS_LEN: u16 = 4;
const TCA_BPF_OPS: u16 = 5;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;

impl Message {
    /// Starts with struct tcmsg: family and padding, interface, own handle, parent's, information.
    fn traffic(interface: u32, handle: u32, parent: u32, info: u32) -> Self {
        let mut bytes = vec![0; 4];
        for word in [interface, handle, parent, info] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        Self(bytes)
    }

    /// An attribute of 32-bit words.
    fn words(&mut self, kind: u16, words: &[u32]) -> &mut Self {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.bytes(kind, &bytes)
    }

    /// struct tc_ratespec: cell size, link layer (Ethernet: no table is needed), framing, two unused, bytes a second.
    fn ratespec(&mut self, rate: Rate) {
        self.0.extend_from_slice(&[0, 1]);
        self.0.extend_from_slice(&rate.framing_bytes.to_ne_bytes());
        self.0.extend_from_slice(&[0; 4]);
        self.0.extend_from_slice(&rate.bytes_per_s.to_ne_bytes());
    }

    /// The attributes of a classic BPF program.
    fn program(&mut self, program: &[Instruction]) -> &mut Self {
        let len = u16::try_from(program.len()).expect("programs here have a dozen instructions");
        self.bytes(TCA_BPF_OPS_LEN, &len.to_ne_bytes());
        self.nest(TCA_BPF_OPS, |ops| {
            for &(code, jt, jf, k) in program {
                ops.0.extend_from_slice(&code.to_ne_bytes());
                ops.0.extend_from_slice(&[jt, jf]);
                ops.0.extend_from_slice(&k.to_ne_bytes());
            }
        })
    }
}

/// Time that the burst takes at the rate, in the kernel's units of 64 ns; at most what fits.
fn burst_ticks(rate: Rate) -> u32 {
    let ns = u64::from(rate.burst_bytes) * 1_000_000_000 / u64::from(rate.bytes_per_s.max(1));
    u32::try_from(ns / 64).unwrap_or(u32::MAX)
}

/// Reads one answer about a queueing discipline; nothing if it is cut.
fn queue(body: &[u8]) -> Option<Queue> {
    let word = |bytes: &[u8], at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let mut found = Queue { interface: word(body, 4)?, handle: word(body, 8)?, ..Queue::default() };
    let stats = attributes(body.get(20..)?).find(|(kind, _)| *kind == TCA_STATS2)?.1;
    for (kind, value) in attributes(stats) {
        match kind {
            // struct gnet_stats_basic: bytes (64 bits), packets.
            TCA_STATS_BASIC => {
                found.bytes = u64::from_ne_bytes(value.get(..8)?.try_into().ok()?);
                found.packets = word(value, 8)?;
            }
            // struct gnet_stats_queue: packets waiting, bytes waiting, drops, …
            TCA_STATS_QUEUE => (found.backlog_bytes, found.drops) = (word(value, 4)?, word(value, 8)?),
            _ => {}
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_are_times_in_ticks_of_64_ns() {
        let rate = Rate { bytes_per_s: 25_000_000, burst_bytes: 3200, framing_bytes: 24 };
        assert_eq!(burst_ticks(rate), 2000, "128 us");
        assert_eq!(burst_ticks(Rate { bytes_per_s: 1, ..rate }), u32::MAX);
    }

    #[test]
    fn a_program_is_counted_and_laid_out_as_the_kernel_reads_it() {
        let mut message = Message(Vec::new());
        message.program(&[(0x06, 1, 2, 0xffff_ffff)]);
        let (ops_len, ops) = (message.0[4..6].to_vec(), message.0[12..].to_vec());
        assert_eq!(ops_len, 1u16.to_ne_bytes());
        assert_eq!(ops, [6, 0, 1, 2, 0xff, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn counters_are_read_and_cut_answers_are_not() {
        let mut message = Message::traffic(7, 0x10_0000, 0x1_0010, 0);
        message.text(TCA_KIND, "bfifo").nest(TCA_STATS2, |stats| {
            let mut basic = 1500u64.to_ne_bytes().to_vec();
            basic.extend(3u32.to_ne_bytes());
            stats.bytes(TCA_STATS_BASIC, &basic).words(TCA_STATS_QUEUE, &[1, 500, 2, 0, 0]);
        });
        let want = Queue { interface: 7, handle: 0x10_0000, bytes: 1500, packets: 3, drops: 2, backlog_bytes: 500 };
        assert_eq!(queue(&message.0), Some(want));
        for cut in 0..message.0.len() {
            assert_ne!(queue(&message.0[..cut]), Some(want), "cut at {cut}");
        }
    }
}
