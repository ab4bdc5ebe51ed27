//! How packets wait for SoftIRQ on one node: batches of GRO, invocations of SoftIRQ, and each packet's way through them.
//!
//! A packet is known to both sides by its name (RPC, type, offset); the k-th reception at GRO belongs to the k-th processing
//! in SoftIRQ. A hand-off names the first packet of its batch; what GRO of that core received after it is in the batch, too.
//! A queue of hand-offs for each core, first in, first out, would be wrong for good after the first batch that is missing.
//! Source: timetrace.md 10 (conventions), 10.1, 10.2.
//!
//! Nodes that log no hand-offs run GRO and SoftIRQ in one thread, as `homa-stack` does: packets are collected there until the
//! invocation begins. In recordings of stock kernels (`tthoma record`) a packet waits from the backlog, or from GRO, to the
//! stack; names are numbers there, and an invocation is a run of NET_RX.

mod closing;
mod lengths;
#[cfg(test)]
mod tests;
mod walk;

use crate::packets::UNSEEN;
use crate::read::NodeTrace;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Data of Homa.
    Data,
    /// A grant.
    Grant,
    /// Another packet of Homa.
    Control,
    /// A packet of a stock kernel, of any protocol.
    Kernel,
}

/// How a packet's wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// SoftIRQ processed it.
    Processed,
    /// It was processed on the core of its GRO without a hand-off: it never queued.
    Bypassed,
    /// The trace ended first.
    Open,
    /// Others that came later were processed, and it was not: presumed dropped at this time.
    Dropped(i64),
    /// It can't be told: a control packet that leaves no trace in SoftIRQ, or one near lost events.
    Unknown,
}

/// No core.
pub const NO_CORE: u16 = u16::MAX;
/// No batch.
pub const NO_BATCH: u32 = u32::MAX;

/// One reception of a packet, times in ns on the node's clock, [`UNSEEN`] if unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// What it is.
    pub class: Class,
    /// Client of its RPC.
    pub client: u16,
    /// Id of its RPC on this node; number of a kernel's packet.
    pub id: u32,
    /// Offset of data, limit of a grant.
    pub offset: u32,
    /// Length of the message it belongs to; 0 if unknown.
    pub message_length: u32,
    /// Message bytes in it, as far as that can be told; frame bytes of a kernel's packet.
    pub bytes: u32,
    /// It reached the receive ring.
    pub ring: i64,
    /// GRO got it.
    pub gro: i64,
    /// Its batch was handed off.
    pub handoff: i64,
    /// The invocation that processed it began.
    pub started: i64,
    /// The invocation before that on the same core ended.
    pub idle: i64,
    /// SoftIRQ processed it.
    pub softirq: i64,
    /// Core of GRO.
    pub gro_core: u16,
    /// Core of SoftIRQ; where its batch was sent, if it was not processed.
    pub core: u16,
    /// Its batch, or [`NO_BATCH`].
    pub batch: u32,
    /// How it ended.
    pub ending: Ending,
    next: u32,
}

/// The phases of a packet's wait, in ns. Their sum is the time from GRO to its processing, exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// In GRO until the batch is closed.
    pub hold: i64,
    /// The target core was busy with earlier invocations.
    pub queue: i64,
    /// Interrupt between processors, leaving idle state, IP layer.
    pub wake: i64,
    /// Behind other packets of the invocation.
    pub process: i64,
}

impl Wait {
    /// Its phases; `None` if it was not processed, was not queued, or the invocation is not in the trace.
    pub fn phases(&self) -> Option<Phases> {
        let known = [self.gro, self.softirq, self.started].iter().all(|t| *t != UNSEEN);
        if self.ending != Ending::Processed || !known {
            return None;
        }
        // Without a hand-off the packet is held until the invocation begins; one that comes later is not held at all.
        let started = self.started.clamp(self.gro, self.softirq.max(self.gro));
        let handoff = if self.handoff == UNSEEN { started } else { self.handoff.min(started) };
        let queued = if self.idle == UNSEEN { handoff } else { self.idle.clamp(handoff, started) };
        Some(Phases {
            hold: handoff - self.gro,
            queue: queued - handoff,
            wake: started - queued,
            process: self.softirq - started,
        })
    }

    /// When the wait was over: processed, presumed dropped, or `end` if it was not.
    pub fn over(&self, end: i64) -> i64 {
        match self.ending {
            Ending::Dropped(at) => at,
            _ if self.softirq != UNSEEN => self.softirq,
            _ => end,
        }
    }
}

/// A batch of GRO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Core of GRO.
    pub gro_core: u16,
    /// Core that it was handed off to.
    pub core: u16,
    /// When.
    pub handoff: i64,
    /// The invocation that processed its first packet began, or [`UNSEEN`].
    pub started: i64,
    /// Packets in it, as far as they are in the trace.
    pub packets: u32,
}

/// A run of SoftIRQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Core.
    pub core: u16,
    /// Begin.
    pub start: i64,
    /// Last event of it.
    pub end: i64,
}

/// A stock kernel's SoftIRQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelRun {
    /// Core.
    pub core: u16,
    /// 2 NET_TX, 3 NET_RX.
    pub vector: u32,
    /// First raised since it ran last, or [`UNSEEN`]; it also goes on without, if it left work.
    pub raised: i64,
    /// Begin.
    pub start: i64,
    /// End, or [`UNSEEN`].
    pub end: i64,
}

/// All waits of a node.
#[derive(Clone, Debug, Default)]
pub struct Queues {
    /// Receptions, in the order of their first event.
    pub waits: Vec<Wait>,
    /// Batches that were handed off.
    pub batches: Vec<Batch>,
    /// Invocations, by core and then by time.
    pub invocations: Vec<Invocation>,
    /// A stock kernel's SoftIRQs, in the order of their begins.
    pub kernel_runs: Vec<KernelRun>,
    /// What the original's first in, first out says of hand-offs.
    pub legacy: Vec<i64>,
    /// True if the node logs hand-offs.
    pub hands_off: bool,
    /// Events that a recording lost.
    pub lost: u64,
}

impl Queues {
    /// Follows the packets of a trace.
    pub fn collect(trace: &NodeTrace) -> Self {
        let mut queues = walk::walk(trace);
        lengths::fill(&mut queues.waits);
        closing::close(&mut queues);
        queues
    }
}
