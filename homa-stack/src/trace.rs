//! Time traces: what happened to which packet and RPC, and when, cheap enough to stay on.
//!
//! Each thread that runs a stack owns one [`Recorder`]: a ring of the last events, a clock reading and up to five
//! 32-bit arguments each. Recording reads the clock and stores 32 bytes; text is made only when the ring is written
//! out, as a `.tt` file (timetrace.md 1.3, 1.4) in the words of the kernel module's July 2026 version, so that
//! `tthoma` and the older tools read it.
//!
//! | step here | event | kernel step it stands for |
//! | --- | --- | --- |
//! | the driver finds a packet in its receive ring | [`Event::GroData`] and kin | GRO |
//! | the core begins with a batch | [`Event::SoftirqStart`] | SoftIRQ entry |
//! | the core processes a packet | [`Event::SoftirqData`] and kin | SoftIRQ |
//! | the core hands a packet to the driver | [`Event::IpXmit`], [`Event::DataQueued`] | `ip_queue_xmit` |
//! | the driver calls `send` / `send` returns | [`Event::NicData`] / [`Event::FreeData`] | doorbell / completion |
//! | the application takes a message | [`Event::WaitFound`] | `recvmsg` |
//!
//! Two spellings are this stack's own: the device's word (`afp` AF_PACKET, `afx` AF_XDP) in NIC events, and [`Event::RingWait`].

use std::fmt;
use std::io::{self, Write};

/// What happened. Ids are the local ids' low 32 bits, peers IPv4 addresses in host order (IPv6: the low word),
/// offsets and lengths bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the events of the table in `Display`, their fields its arguments")]
pub enum Event {
    SendmsgRequest { peer: u32, port: u16, id: u32, length: u32 },
    SendmsgResponse { id: u32, port: u16, pid: u32, length: u32 },
    SendmsgDone { id: u32 },
    CopyInStart { id: u32, length: u32, unscheduled: u32 },
    CopyInDone { id: u32, length: u32 },
    IpXmit { wire_bytes: u32, peer: u32, id: u32, offset: u32 },
    DataQueued { id: u32, offset: u32, length: u32, queue: u32 },
    XmitStopped { id: u32, offset: u32, granted: u32 },
    NicData { peer: u32, id: u32, offset: u32, queue: u32 },
    NicGrant { peer: u32, id: u32, offset: u32, queue: u32 },
    FreeData { id: u32, offset: u32, queue: u32, length: u32 },
    FreeGrant { id: u32, offset: u32, queue: u32 },
    GroData { peer: u32, id: u32, offset: u32, priority: u8 },
    GroGrant { peer: u32, id: u32, offset: u32, priority: u8 },
    GroControl { peer: u32, id: u32, kind: u8, priority: u8 },
    RingWait { nanos: u32, id: u32, offset: u32 },
    SoftirqStart,
    SoftirqData { id: u32, peer: u32, offset: u32, length: u32 },
    Unscheduled { id: u32, bytes: u32 },
    SoftirqGrant { id: u32, offset: u32, priority: u8, increment: i32 },
    SendGrant { id: u32, offset: u32, priority: u8, increment: i32 },
    Handoff { id: u32, port: u16 },
    HandoffQueued { id: u32, port: u16 },
    WaitFound { id: u32, pid: u32, port: u16, via: Via, blocked: bool },
    RecvmsgStart { port: u16, pid: u32 },
    RecvmsgDone { status: u32, id: u32 },
    CopyOutStart { id: u32 },
    CopyOutDone { start: u32, end: u32, id: u32 },
    FreeBuffers { count: u32, id: u32 },
    RpcEnd { id: u32, port: u16 },
    ResendTx { id: u32, peer: u32, offset: u32, length: i32 },
    ResendRx { id: u32, offset: u32, length: i32, priority: u8 },
    ResendUnknown { id: u32, peer: u32, port: u16, offset: u32 },
    Retransmit { offset: u32, length: u32, id: u32 },
    BusyState { id: u32, state: u32 },
    BusyOffset { id: u32, offset: u32, tx_end: u32 },
    BusyRx { id: u32, peer: u32 },
    UnknownRx { id: u32, peer: u32, port: u16 },
    Restart { id: u32, peer: u32, port: u16, lost: u32 },
    DiscardUnknown { id: u32, kind: u8, peer: u32, port: u16 },
    DiscardNoBuffers { id: u32, offset: u32, length: u32 },
    RejectData { id: u32, offset: u32, length: u32, retransmit: bool },
    GapCreated { id: u32, start: u32, end: u32 },
    NeedAckTx { id: u32, peer: u32, port: u16, ticks: u32 },
    NeedAckRx { id: u32 },
    NeedAckReply { id: u32, peer: u32, acks: u32 },
    AckRx { id: u32, peer: u32, acks: u32 },
    Acked { id: u32 },
    TimedOut { id: u32, peer: u32, state: u32 },
    AbortClient { peer: u32, id: u32, error: i32 },
    FreezeRx { port: u16, peer: u32, peer_port: u16, id: u32 },
    Frozen,
    Unfrozen,
}

/// How the application came by a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// It was the first message ready since the application last asked.
    Handoff,
    /// It waited behind others.
    ReadyRpcs,
}

/// Word for the AF_PACKET device in the events that the kernel's patched NIC drivers log with their own names.
const AF_PACKET: &str = "afp";

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Spelled(*self, AF_PACKET).fmt(f)
    }
}

/// An event, and the word for the device in it.
struct Spelled(Event, &'static str);

impl fmt::Display for Spelled {
    #[rustfmt::skip]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Event::*;
        let Self(event, device) = *self;
        match event {
            SendmsgRequest { peer, port, id, length } => write!(f, "homa_sendmsg request, target 0x{peer:x}:{port}, id {id}, length {length}"),
            SendmsgResponse { id, port, pid, length } => write!(f, "homa_sendmsg response, id {id}, port {port}, pid {pid}, length {length}"),
            SendmsgDone { id } => write!(f, "homa_sendmsg finished, id {id}"),
            CopyInStart { id, length, unscheduled } => write!(f, "starting copy from user space for id {id}, length {length}, unscheduled {unscheduled}"),
            CopyInDone { id, length } => write!(f, "finished copy from user space for id {id}, length {length}"),
            IpXmit { wire_bytes, peer, id, offset } => write!(f, "calling ip_queue_xmit: wire_bytes {wire_bytes}, peer 0x{peer:x}, id {id}, offset {offset}"),
            DataQueued { id, offset, length, queue } => write!(f, "Finished queueing packet: rpc id {id}, offset {offset}, len {length}, qid {queue}"),
            XmitStopped { id, offset, granted } => write!(f, "homa_xmit_data stopping at offset {offset} for id {id}: granted is {granted}"),
            NicData { peer, id, offset, queue } => write!(f, "sent homa data packet via {device} to 0x{peer:x}, id {id}, offset {offset}, queue 0x{queue:x}"),
            NicGrant { peer, id, offset, queue } => write!(f, "sent homa grant via {device} to 0x{peer:x}, id {id}, offset {offset}, queue 0x{queue:x}"),
            FreeData { id, offset, queue, length } => write!(f, "freeing tx skb for homa data, id {id}, offset {offset}, qid {queue}, msg_length {length}"),
            FreeGrant { id, offset, queue } => write!(f, "freeing tx skb for homa grant, id {id}, offset {offset}, qid {queue}"),
            GroData { peer, id, offset, priority } => write!(f, "homa_gro_receive got packet from 0x{peer:x} id {id}, offset {offset}, priority {priority}"),
            GroGrant { peer, id, offset, priority } => write!(f, "homa_gro_receive got grant from 0x{peer:x} id {id}, offset {offset}, priority {priority}"),
            GroControl { peer, id, kind, priority } => write!(f, "homa_gro_receive got packet from 0x{peer:x} id {id}, type 0x{kind:x}, priority {priority}"),
            RingWait { nanos, id, offset } => write!(f, "{device} ring wait {nanos} ns for id {id}, offset {offset}"),
            SoftirqStart => write!(f, "homa_softirq starting"),
            SoftirqData { id, peer, offset, length } => write!(f, "incoming data packet, id {id}, peer 0x{peer:x}, offset {offset}/{length}"),
            Unscheduled { id, bytes } => write!(f, "Incoming message for id {id} has {bytes} unscheduled bytes"),
            SoftirqGrant { id, offset, priority, increment } => write!(f, "processing grant for id {id}, offset {offset}, priority {priority}, increment {increment}"),
            SendGrant { id, offset, priority, increment } => write!(f, "sending grant for id {id}, offset {offset}, priority {priority}, increment {increment}"),
            Handoff { id, port } => write!(f, "homa_rpc_handoff handing off id {id} for port {port}"),
            HandoffQueued { id, port } => write!(f, "homa_rpc_handoff queued id {id} for port {port}"),
            WaitFound { id, pid, port, via, blocked } => write!(f, "homa_wait_shared found rpc id {id}, pid {pid}, port {port} via {}, blocked {}", via.word(), u8::from(blocked)),
            RecvmsgStart { port, pid } => write!(f, "homa_recvmsg starting, port {port}, pid {pid}"),
            RecvmsgDone { status, id } => write!(f, "homa_recvmsg returning status {status}, id {id}"),
            CopyOutStart { id } => write!(f, "starting copy to user space for id {id}"),
            CopyOutDone { start, end, id } => write!(f, "copied out bytes {start}-{end} for id {id}"),
            FreeBuffers { count, id } => write!(f, "finished freeing {count} skbs for id {id}"),
            RpcEnd { id, port } => write!(f, "homa_rpc_end invoked for id {id}, port {port}"),
            ResendTx { id, peer, offset, length } => write!(f, "Sending RESEND for id {id}, peer 0x{peer:x}, offset {offset}, length {length}"),
            ResendRx { id, offset, length, priority } => write!(f, "resend request for id {id}, offset {offset}, length {length}, prio {priority}"),
            ResendUnknown { id, peer, port, offset } => write!(f, "resend request for unknown id {id}, peer 0x{peer:x}:{port}, offset {offset}; responding with RPC_UNKNOWN"),
            Retransmit { offset, length, id } => write!(f, "retransmitting offset {offset}, length {length}, id {id}"),
            BusyState { id, state } => write!(f, "sending BUSY from resend, id {id}, state {state}"),
            BusyOffset { id, offset, tx_end } => write!(f, "sending BUSY from resend, id {id}, offset {offset}, tx_end {tx_end}"),
            BusyRx { id, peer } => write!(f, "received BUSY for id {id}, peer 0x{peer:x}"),
            UnknownRx { id, peer, port } => write!(f, "Received unknown for id {id}, peer {peer:x}:{port}"),
            Restart { id, peer, port, lost } => write!(f, "Restarting id {id} to server 0x{peer:x}:{port}, lost {lost} bytes"),
            DiscardUnknown { id, kind, peer, port } => write!(f, "Discarding packet for unknown RPC, id {id}, type {kind}, peer 0x{peer:x}:{port}"),
            DiscardNoBuffers { id, offset, length } => write!(f, "Dropping packet because no buffer space available: id {id}, offset {offset}, length {length}"),
            RejectData { id, offset, length, retransmit } => write!(f, "homa_add_packet rejecting packet for id {id}, offset {offset}, length {length}, retransmit {}", u8::from(retransmit)),
            GapCreated { id, start, end } => write!(f, "Created new gap for id {id}: start {start}, end {end}"),
            NeedAckTx { id, peer, port, ticks } => write!(f, "Sent NEED_ACK for RPC id {id} to peer 0x{peer:x}, port {port}, ticks {ticks}"),
            NeedAckRx { id } => write!(f, "Received NEED_ACK for id {id}"),
            NeedAckReply { id, peer, acks } => write!(f, "Responded to NEED_ACK for id {id}, peer 0x{peer:x} with {acks} other acks"),
            AckRx { id, peer, acks } => write!(f, "ACK received for id {id}, peer 0x{peer:x}, with {acks} other acks"),
            Acked { id } => write!(f, "homa_rpc_acked freeing id {id}"),
            TimedOut { id, peer, state } => write!(f, "RPC id {id}, peer 0x{peer:x}, aborted because of timeout, state {state}"),
            AbortClient { peer, id, error } => write!(f, "aborting client RPC: peer 0x{peer:x}, id {id}, error {error}"),
            FreezeRx { port, peer, peer_port, id } => write!(f, "Freezing because of request on port {port} from 0x{peer:x}:{peer_port}, id {id}"),
            Frozen => write!(f, "timetrace frozen"),
            Unfrozen => write!(f, "tt_unfreeze reset timetraces"),
        }
    }
}

impl Via {
    const fn word(self) -> &'static str {
        match self {
            Self::Handoff => "handoff",
            Self::ReadyRpcs => "ready_rpcs",
        }
    }
}

/// An event and when it happened, in ticks of the recorder's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Clock reading.
    pub ticks: u64,
    /// What happened.
    pub event: Event,
}
const _: () = assert!(size_of::<Record>() == 32);

/// Where a recorder's time comes from.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// A function that reads a counter; the driver's choice.
    Counter(fn() -> u64),
    /// The time last set with [`Recorder::set_now`]: virtual time.
    Manual,
}

/// A ring of the latest events of one thread.
#[derive(Clone, Debug)]
pub struct Recorder {
    ring: Box<[Record]>,
    /// Records ever made since the last reset; the next slot is this modulo the ring's length.
    made: usize,
    clock: Clock,
    now: u64,
    frozen: bool,
    /// Index of the core that this thread plays in the trace.
    core: u16,
    /// Word for the device.
    device: &'static str,
}

impl Recorder {
    /// A recorder of the last `entries` events (rounded up to a power of two; 0 turns recording off), labelled as
    /// core `core`.
    pub fn new(entries: usize, clock: Clock, core: u16) -> Self {
        let entries = if entries == 0 { 0 } else { entries.next_power_of_two() };
        let empty = Record { ticks: 0, event: Event::SoftirqStart };
        Self {
            ring: vec![empty; entries].into_boxed_slice(),
            made: 0,
            clock,
            now: 0,
            frozen: entries == 0,
            core,
            device: AF_PACKET,
        }
    }

    /// Records `event` now, unless frozen.
    #[inline]
    pub fn record(&mut self, event: Event) {
        if self.frozen {
            return;
        }
        let ticks = match self.clock {
            Clock::Counter(read) => read(),
            Clock::Manual => self.now,
        };
        self.push(ticks, event);
    }

    /// Records `event` at the time last told by [`Self::set_now`]: for what was found when that was read.
    #[inline]
    pub fn record_told(&mut self, event: Event) {
        if !self.frozen {
            self.push(self.now, event);
        }
    }

    /// Records `event` at the time of the event before it: for steps that follow at once, to spare a clock reading.
    #[inline]
    pub fn record_also(&mut self, event: Event) {
        if self.frozen {
            return;
        }
        let ticks = self.ring[self.made.wrapping_sub(1) & (self.ring.len() - 1)].ticks;
        self.push(ticks, event);
    }

    #[inline]
    fn push(&mut self, ticks: u64, event: Event) {
        let at = self.made & (self.ring.len() - 1);
        self.ring[at] = Record { ticks, event };
        self.made += 1;
    }

    /// Sets the word for the device in NIC events, for what is written from now on.
    pub fn set_device(&mut self, word: &'static str) {
        self.device = word;
    }

    /// Tells the time: that of all events of a [`Clock::Manual`] recorder, and of [`Self::record_told`].
    pub fn set_now(&mut self, ticks: u64) {
        self.now = ticks;
    }

    /// Stops recording, with a last event that says so; the trace then shows the past.
    pub fn freeze(&mut self) {
        self.record(Event::Frozen);
        self.frozen = true;
    }

    /// Forgets all events and records again. Without effect if recording is off or not frozen.
    pub fn unfreeze(&mut self) {
        if self.frozen && !self.ring.is_empty() {
            self.frozen = false;
            self.made = 0;
            self.record(Event::Unfrozen);
        }
    }

    /// True if recording is stopped or off.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Events that fit before older ones are overwritten.
    pub fn room(&self) -> usize {
        self.ring.len().saturating_sub(self.made)
    }

    /// Events that were overwritten by later ones.
    pub fn overwritten(&self) -> usize {
        self.made.saturating_sub(self.ring.len())
    }

    /// The recorded events, oldest first.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        let kept = self.made.min(self.ring.len());
        (self.made - kept..self.made).map(|i| &self.ring[i & (self.ring.len() - 1)])
    }

    /// Writes the events as a `.tt` file: times in microseconds since the first event.
    ///
    /// `ticks_per_ns` is the rate of the clock. Nothing is written if nothing was recorded.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_tt(&self, out: &mut dyn Write, ticks_per_ns: f64) -> io::Result<()> {
        write_merged(&[self], out, ticks_per_ns)
    }
}

/// Writes the events of several recorders, each a core of the trace, in the order of time as `.tt` text. Their clocks
/// must be the same.
///
/// # Errors
///
/// Those of `out`.
pub fn write_merged(recorders: &[&Recorder], out: &mut dyn Write, ticks_per_ns: f64) -> io::Result<()> {
    let mut all: Vec<_> = recorders.iter().map(|r| (r.records().peekable(), r.core, r.device)).collect();
    let first = all.iter_mut().filter_map(|(records, ..)| records.peek().map(|r| r.ticks)).min();
    let Some(first) = first else { return Ok(()) };
    let micros = |ticks: u64| ticks.saturating_sub(first) as f64 / (1000.0 * ticks_per_ns);
    writeln!(
        out,
        "{:9.3} us (+{:8.3} us) [C{:02}] First event has timestamp {first} (cpu_ghz {ticks_per_ns:.15})",
        0.0, 0.0, 0
    )?;
    let mut previous = 0.0;
    loop {
        let earliest =
            all.iter_mut().enumerate().filter_map(|(i, (records, ..))| Some((records.peek()?.ticks, i))).min();
        let Some((_, index)) = earliest else { return Ok(()) };
        let (records, core, device) = &mut all[index];
        let Some(Record { ticks, event }) = records.next() else { return Ok(()) };
        let time = micros(*ticks);
        writeln!(out, "{time:9.3} us (+{:8.3} us) [C{core:02}] {}", time - previous, Spelled(*event, device))?;
        previous = time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(recorder: &Recorder) -> String {
        let mut out = Vec::new();
        recorder.write_tt(&mut out, 2.0).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_trace_reads_as_the_format_says() {
        let mut r = Recorder::new(4, Clock::Manual, 5);
        r.set_now(10_000);
        r.record(Event::GroData { peer: 0x0a00_0103, id: 1001, offset: 0, priority: 5 });
        r.set_now(11_908);
        r.record(Event::SoftirqStart);
        r.set_now(12_000);
        r.freeze();
        r.record(Event::SoftirqStart);
        assert_eq!(
            text(&r),
            "    0.000 us (+   0.000 us) [C00] First event has timestamp 10000 (cpu_ghz 2.000000000000000)\n    \
             0.000 us (+   0.000 us) [C05] homa_gro_receive got packet from 0xa000103 id 1001, offset 0, priority 5\n    \
             0.954 us (+   0.954 us) [C05] homa_softirq starting\n    \
             1.000 us (+   0.046 us) [C05] timetrace frozen\n"
        );
    }

    #[test]
    fn the_ring_keeps_the_latest_events_and_counts_the_others() {
        let mut r = Recorder::new(3, Clock::Manual, 0);
        for id in 0..10 {
            r.record(Event::SendmsgDone { id });
        }
        let ids: Vec<_> = r.records().map(|r| r.event).collect();
        assert_eq!(ids, [6, 7, 8, 9].map(|id| Event::SendmsgDone { id }));
        assert_eq!(r.overwritten(), 6);
        r.freeze();
        r.unfreeze();
        assert_eq!(r.records().map(|r| r.event).collect::<Vec<_>>(), [Event::Unfrozen]);
    }

    #[test]
    fn the_device_is_named_by_its_word() {
        let mut r = Recorder::new(4, Clock::Manual, 0);
        r.record(Event::NicGrant { peer: 1, id: 2, offset: 3, queue: 0 });
        r.record(Event::RingWait { nanos: 4, id: 5, offset: 6 });
        assert!(text(&r).contains("sent homa grant via afp to 0x1, id 2,") && text(&r).contains("afp ring wait 4 ns"));
        r.set_device("afx");
        assert!(text(&r).contains("sent homa grant via afx to 0x1, id 2,") && text(&r).contains("afx ring wait 4 ns"));
    }

    #[test]
    fn a_recorder_of_no_entries_records_nothing() {
        let mut r = Recorder::new(0, Clock::Manual, 0);
        r.record(Event::SoftirqStart);
        r.unfreeze();
        r.record(Event::SoftirqStart);
        assert_eq!(text(&r), "");
    }

    #[test]
    fn traces_of_several_cores_are_merged_by_time() {
        let mut recorders = [0, 1].map(|core| {
            let mut recorder = Recorder::new(8, Clock::Manual, core);
            recorder.unfreeze();
            recorder
        });
        for ticks in [1000, 1002, 1003, 1005] {
            let recorder = &mut recorders[usize::from(ticks % 2 == 1)];
            recorder.set_now(ticks);
            recorder.record(Event::SoftirqStart);
        }
        let mut text = Vec::new();
        write_merged(&recorders.each_ref(), &mut text, 0.001).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<_> = text.lines().skip(1).map(|l| (l[..9].trim(), &l[l.find('[').unwrap()..][..5])).collect();
        assert_eq!(lines, [("0.000", "[C00]"), ("2.000", "[C00]"), ("3.000", "[C01]"), ("5.000", "[C01]")]);
    }
}
