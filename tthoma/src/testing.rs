//! Generated traces with known answers, for tests of analyses.
//!
//! [`traces`] makes traces of short texts, event by event. A [`Scenario`] writes whole messages in the kernel's words, with
//! all their packets, grants and hand-offs; each step takes as long as [`Steps`] says, so that what an analysis must find
//! is known:
//!
//! ```
//! use tthoma::analyze::Options;
//! use tthoma::testing::{Scenario, Steps};
//!
//! let mut scenario = Scenario::new(2);
//! scenario.clock_ahead(1, 5000.0);
//! for i in 0..100 {
//!     scenario.rpc(f64::from(i) * 200.0, (0, 1), 1000 + 2 * i, (20_000, 100), &Steps::default());
//! }
//! let model = scenario.model(&Options::default());
//! assert_eq!(model.clock.offset(1).map(|ns| (ns as f64 / 1000.0).round()), Some(-5000.0));
//! ```

mod folder;
mod repeat;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::analyze::Options;
use crate::model::Model;
use crate::read::{Format, NodeTrace, parse_text};

pub use folder::Folder;
pub use repeat::Repeat;

/// How long each step of a packet's way takes, in us, and how messages are cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steps {
    /// Message bytes of a packet.
    pub mss: u32,
    /// Message bytes of a frame, which the NIC cuts into packets; a multiple of `mss`.
    pub tso: u32,
    /// Bytes that are sent without grants.
    pub unscheduled: u32,
    /// From one frame to the next at the sender.
    pub gap: f64,
    /// From IP to the NIC.
    pub xmit: f64,
    /// From the NIC to GRO of the first packet of a frame.
    pub net: f64,
    /// From one packet of a frame to the next at GRO.
    pub segment: f64,
    /// From GRO's last packet of a frame to the hand-off of the batch.
    pub hold: f64,
    /// From the hand-off to the invocation of SoftIRQ.
    pub wake: f64,
    /// From one packet to the next in SoftIRQ; the first comes this long after the invocation's begin.
    pub process: f64,
    /// From the NIC back to the driver.
    pub free: f64,
    /// From the last packet's SoftIRQ to the hand-off to a thread, and from there until the thread has it.
    pub handoff: f64,
    /// From a server thread having the request to its response.
    pub service: f64,
    /// Core of applications and of transmission.
    pub app_core: u16,
    /// Core of GRO.
    pub gro_core: u16,
    /// Core of SoftIRQ.
    pub softirq_core: u16,
    /// Level of data packets.
    pub priority: u8,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            mss: 1400,
            tso: 5600,
            unscheduled: 10_000_000,
            gap: 1.0,
            xmit: 0.5,
            net: 5.0,
            segment: 0.25,
            hold: 0.5,
            wake: 2.0,
            process: 0.25,
            free: 8.0,
            handoff: 1.0,
            service: 3.0,
            app_core: 1,
            gro_core: 2,
            softirq_core: 3,
            priority: 5,
        }
    }
}

/// Nodes with their events, in the words of the current kernel module. Nodes are `node1`, `node2`, ...; an index is the
/// node; addresses are [`Scenario::address`].
#[derive(Clone, Debug, Default)]
pub struct Scenario {
    /// Events of each node: true time in ns, core, message.
    events: Vec<Vec<(i64, u16, String)>>,
    /// How far each node's clock is ahead of the true time, in us.
    ahead: Vec<f64>,
}

impl Scenario {
    /// Nodes without events.
    pub fn new(nodes: usize) -> Self {
        Self { events: vec![Vec::new(); nodes], ahead: vec![0.0; nodes] }
    }

    /// Address of a node as traces have it: 10.0.1.N.
    pub fn address(node: usize) -> String {
        format!("0x{:x}", 0x0a00_0102 + node)
    }

    /// Sets a node's clock `us` ahead of the true time.
    pub fn clock_ahead(&mut self, node: usize, us: f64) {
        self.ahead[node] = us;
    }

    /// Adds an event at the true time `at` (us). Events may be added in any order; those of equal times stay in theirs.
    pub fn event(&mut self, node: usize, at: f64, core: u16, message: impl Into<String>) {
        self.events[node].push(((at * 1000.0).round() as i64, core, message.into()));
    }

    /// Removes all events of a node whose message `unwanted` picks; returns how many.
    pub fn remove(&mut self, node: usize, unwanted: impl Fn(&str) -> bool) -> usize {
        let before = self.events[node].len();
        self.events[node].retain(|(_, _, message)| !unwanted(message));
        before - self.events[node].len()
    }

    /// A whole RPC from `client` to `server` that starts at `at` with the even `id`, with a request and a response of
    /// `lengths` bytes. Returns when the client has the response.
    pub fn rpc(
        &mut self,
        at: f64,
        (client, server): (usize, usize),
        id: u32,
        lengths: (u32, u32),
        steps: &Steps,
    ) -> f64 {
        let got = self.message(at, (client, server), id, lengths.0, steps);
        let done = self.message(got + steps.service, (server, client), id | 1, lengths.1, steps);
        self.event(client, done, steps.app_core, format!("homa_rpc_end invoked for id {id}, port 32768"));
        self.event(server, done + steps.net, steps.softirq_core, format!("homa_rpc_acked freeing id {}", id | 1));
        done
    }

    /// One message: the call that starts it, frames, packets, grants, hand-offs, and the call that returns it. `id` is
    /// that of the RPC on the sender. Returns when the receiver's thread has it.
    pub fn message(&mut self, at: f64, (from, to): (usize, usize), id: u32, length: u32, steps: &Steps) -> f64 {
        let Steps { app_core, gro_core, softirq_core, .. } = *steps;
        let (peer, here, other) = (Self::address(to), Self::address(from), id ^ 1);
        let start = if id.is_multiple_of(2) {
            format!("homa_sendmsg request, target {peer}:4000, id {id}, length {length}")
        } else {
            format!("homa_sendmsg response, id {id}, port 4000, pid 77, length {length}")
        };
        self.event(from, at, app_core, start);
        let unscheduled = steps.unscheduled.min(length);
        let (mut now, mut granted, mut promised, mut last) = (at, unscheduled, unscheduled, at);
        // (when SoftIRQ of the sender has processed the grant, limit)
        let mut grants: Vec<(f64, u32)> = Vec::new();
        let mut offset = 0;
        while offset < length {
            let frame = steps.tso.min(length - offset);
            // Without credit the sender waits for the grant that allows the whole frame.
            while granted < offset + frame && !grants.is_empty() {
                let (arrived, limit) = grants.remove(0);
                (now, granted) = (now.max(arrived), limit);
            }
            let wire = frame + 118;
            self.event(
                from,
                now,
                app_core,
                format!("calling ip_queue_xmit: wire_bytes {wire}, peer {peer}, id {id}, offset {offset}"),
            );
            self.event(
                from,
                now,
                app_core,
                format!("Finished queueing packet: rpc id {id}, offset {offset}, len {frame}, qid 1"),
            );
            let nic = now + steps.xmit;
            self.event(
                from,
                nic,
                app_core,
                format!("sent homa data packet via ice to {peer}, id {id}, offset {offset}, queue 0x1"),
            );
            self.event(
                from,
                nic + steps.free,
                app_core,
                format!("freeing tx skb for homa data, id {id}, offset {offset}, qid 1, msg_length {length}"),
            );
            let segments: Vec<u32> = (offset..offset + frame).step_by(steps.mss as usize).collect();
            let mut gro = nic + steps.net;
            for segment in &segments {
                let priority = steps.priority;
                self.event(
                    to,
                    gro,
                    gro_core,
                    format!(
                        "homa_gro_receive got packet from {here} id {other}, offset {segment}, priority {priority}"
                    ),
                );
                gro += steps.segment;
            }
            let hand_off = gro - steps.segment + steps.hold;
            self.event(
                to,
                hand_off,
                gro_core,
                format!("homa_gro_gen3 chose core {softirq_core} for id {other}, offset {offset}, delta 1"),
            );
            let mut softirq = hand_off + steps.wake;
            self.event(to, softirq, softirq_core, "homa_softirq starting");
            if offset == 0 {
                self.event(
                    to,
                    softirq,
                    softirq_core,
                    format!("Incoming message for id {other} has {unscheduled} unscheduled bytes"),
                );
            }
            for segment in &segments {
                softirq += steps.process;
                self.event(
                    to,
                    softirq,
                    softirq_core,
                    format!("incoming data packet, id {other}, peer {here}, offset {segment}/{length}"),
                );
            }
            let limit = (offset + frame + unscheduled).min(length);
            if limit > promised {
                promised = limit;
                grants.push((self.grant(softirq, (to, from), other, (limit, steps.tso), steps), limit));
            }
            (last, offset, now) = (softirq, offset + frame, now + steps.gap);
        }
        self.event(to, last, softirq_core, format!("homa_rpc_handoff handing off id {other} for port 4000"));
        let got = last + steps.handoff;
        self.event(
            to,
            got,
            app_core,
            format!("homa_wait_shared found rpc id {other}, pid 77, port 4000 via handoff, blocked 0"),
        );
        self.event(to, got, app_core, format!("starting copy to user space for id {other}"));
        self.event(to, got, app_core, format!("copied out bytes 0-{length} for id {other}"));
        self.event(to, got, app_core, format!("homa_recvmsg returning status 0, id {other}"));
        got
    }

    /// A grant for a message, sent at `at` by its receiver, whose id of the RPC is `id`; `(limit, increment)` in bytes.
    /// Returns when the message's sender has processed it.
    pub fn grant(
        &mut self,
        at: f64,
        (from, to): (usize, usize),
        id: u32,
        (limit, increment): (u32, u32),
        steps: &Steps,
    ) -> f64 {
        let Steps { gro_core, softirq_core, priority, .. } = *steps;
        let (peer, here, other) = (Self::address(to), Self::address(from), id ^ 1);
        self.event(
            from,
            at,
            softirq_core,
            format!("sending grant for id {id}, offset {limit}, priority {priority}, increment {increment}"),
        );
        let nic = at + steps.xmit;
        self.event(
            from,
            nic,
            softirq_core,
            format!("sent homa grant via ice to {peer}, id {id}, offset {limit}, queue 0x2"),
        );
        self.event(
            from,
            nic + steps.free,
            softirq_core,
            format!("freeing tx skb for homa grant, id {id}, offset {limit}, qid 2"),
        );
        let gro = nic + steps.net;
        self.event(
            to,
            gro,
            gro_core,
            format!("homa_gro_receive got grant from {here} id {other}, offset {limit}, priority 7"),
        );
        let hand_off = gro + steps.hold;
        self.event(
            to,
            hand_off,
            gro_core,
            format!("homa_gro_gen3 chose core {softirq_core} for id {other}, offset {limit}, delta 1"),
        );
        let start = hand_off + steps.wake;
        self.event(to, start, softirq_core, "homa_softirq starting");
        let done = start + steps.process;
        self.event(
            to,
            done,
            softirq_core,
            format!("processing grant for id {other}, offset {limit}, priority {priority}, increment {increment}"),
        );
        done
    }

    /// The text of each node's trace, with its name.
    pub fn texts(&self) -> Vec<(String, String)> {
        let one = |(node, events): (usize, &Vec<(i64, u16, String)>)| {
            let mut sorted: Vec<&(i64, u16, String)> = events.iter().collect();
            sorted.sort_by_key(|(at, _, _)| *at);
            let ahead = (self.ahead[node] * 1000.0).round() as i64;
            let mut text = String::new();
            let mut before = None;
            for (at, core, message) in sorted {
                let at = at + ahead;
                let delta = at - before.replace(at).unwrap_or(at);
                line(&mut text, at, delta, *core, message);
            }
            (format!("node{}", node + 1), text)
        };
        self.events.iter().enumerate().map(one).collect()
    }

    /// The traces as they are read.
    pub fn traces(&self) -> Vec<NodeTrace> {
        let parse = |(node, text): (String, String)| {
            parse_text(Path::new(&format!("{node}.tt")), &node, Format::Plain, &mut text.as_bytes())
        };
        self.texts().into_iter().map(parse).collect()
    }

    /// What analyses see.
    pub fn model(&self, options: &Options) -> Model {
        Model::new(self.traces(), options)
    }

    /// Writes `nodeN.tt` files to `dir`, which exists; returns their paths.
    ///
    /// # Errors
    ///
    /// If a file can't be written.
    pub fn write(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let one = |(node, text): (String, String)| {
            let path = dir.join(format!("{node}.tt"));
            fs::write(&path, text).map(|()| path)
        };
        self.texts().into_iter().map(one).collect()
    }
}

/// A line of a `.tt` file; times in ns.
fn line(out: &mut String, at: i64, delta: i64, core: u16, message: &str) {
    let us = |ns: i64| ns as f64 / 1000.0;
    writeln!(out, "{:9.3} us (+{:8.3} us) [C{core:02}] {message}", us(at), us(delta)).expect("strings grow");
}

/// The text of a `.tt` file with the events of `short`: lines `TIME MESSAGE` or `TIME C<core> MESSAGE`, times in us.
///
/// # Panics
///
/// If `short` is not that.
pub fn tt(short: &str) -> String {
    let mut out = String::new();
    for short in short.lines().filter(|l| !l.trim().is_empty()) {
        let (time, mut message) = short.trim().split_once(' ').expect("TIME MESSAGE");
        let mut core = 0;
        if let Some((word, rest)) = message.split_once(' ')
            && let Some(number) = word.strip_prefix('C').and_then(|digits| digits.parse().ok())
        {
            (core, message) = (number, rest);
        }
        let time: f64 = time.parse().expect("a time");
        line(&mut out, (time * 1000.0).round() as i64, 0, core, message);
    }
    out
}

/// A trace for each (node, events), events as [`tt`] has them.
///
/// # Panics
///
/// If an event is none that [`crate::vocabulary`] knows.
pub fn traces(nodes: &[(&str, &str)]) -> Vec<NodeTrace> {
    let parse = |(node, short): &(&str, &str)| {
        let trace = parse_text(Path::new(&format!("{node}.tt")), node, Format::Plain, &mut tt(short).as_bytes());
        assert_eq!(trace.stats.problems(), [""; 0]);
        assert_eq!(trace.stats.unrecognised, 0, "{:?}", trace.stats.shapes);
        trace
    };
    nodes.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Group, Phase};

    fn scenario() -> Scenario {
        let mut scenario = Scenario::new(3);
        scenario.clock_ahead(1, -700.0);
        let long = Steps { unscheduled: 11_200, ..Steps::default() };
        for i in 0..10 {
            let at = f64::from(i) * 500.0;
            scenario.rpc(at, (0, 1), 10 + 2 * i, (100, 100), &Steps::default());
            // Equal ids of two clients with two servers.
            scenario.rpc(at + 100.0, (2, 1), 110 + 2 * i, (60_000, 1000), &long);
            scenario.rpc(at + 200.0, (0, 2), 110 + 2 * i, (100, 20_000), &Steps::default());
        }
        scenario
    }

    #[test]
    fn every_event_is_one_that_analyses_know() {
        for trace in scenario().traces() {
            assert_eq!((trace.stats.unrecognised, trace.stats.bad_lines()), (0, 0), "{:?}", trace.stats.shapes);
            assert_eq!(trace.stats.backwards.count, 0);
        }
    }

    #[test]
    fn each_step_takes_as_long_as_it_says() {
        let model = scenario().model(&Options::default());
        // One way of the clocks' witnesses is as long as the other, and so the offset is exact.
        assert_eq!(model.clock.offset(1), Some(700_000));
        let us = |group, phase| {
            let mut all: Vec<i64> = model
                .data()
                .chain(model.grants())
                .filter(|j| j.group() == group)
                .filter_map(|j| j.sample(&model.clock, phase))
                .collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        assert_eq!((us(Group::Short, Phase::Xmit), us(Group::Short, Phase::Net)), (vec![500], vec![5000]));
        assert_eq!((us(Group::Short, Phase::SoftIrq), us(Group::Short, Phase::Free)), (vec![2750], vec![8000]));
        // The first of four packets waits for the three behind it.
        assert_eq!(us(Group::Long, Phase::SoftIrq).last(), Some(&3500));
        assert_eq!((us(Group::Grants, Phase::Total), model.grants().count()), (vec![8250], 10 * 9));
        assert_eq!(model.journeys().excluded, Default::default());
    }

    #[test]
    fn events_can_be_removed() {
        let mut scenario = scenario();
        assert_eq!(scenario.remove(0, |m| m.starts_with("homa_rpc_end")), 20);
        assert_eq!(scenario.remove(0, |m| m.starts_with("homa_rpc_end")), 0);
    }
}
