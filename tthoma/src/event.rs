//! What a line of a trace says, as a fixed-size record.
//!
//! A [`Record`] has one meaning of `id`, `offset` and `peer` for all events; what `a`, `b` and `c` hold is said beside
//! each [`Kind`]. Texts and fields are those of timetrace.md 3.2-3.7; [`crate::vocabulary`] maps one to the other.

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// Kinds of events. The name of a kind is the one that the originals use for its pattern.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// All kinds, in the order of their numbers.
            pub const ALL: &[Kind] = &[$(Kind::$kind,)*];

            /// Name of the kind in reports.
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name,)* }
            }
        }
    };
}

kinds! {
    /// Data packet at GRO. `a`: priority.
    GroData = "gro_data",
    /// Grant at GRO; `offset` is the new limit. `a`: priority of the grant packet.
    GroGrant = "gro_grant",
    /// Packet of another type at GRO. `a`: type.
    GroControl = "gro_ctl",
    /// A packet's wait between the kernel's receive time stamp and the stack's look at its ring. `a`: ns.
    RingWait = "ring_wait",
    /// GRO closed a batch whose first packet is (`id`, `offset`). `a`: core that gets it.
    GroHandoff = "gro_handoff",
    /// An invocation of SoftIRQ processing begins.
    SoftirqStart = "softirq_start",
    /// Data packet in SoftIRQ. `a`: message length.
    SoftirqData = "softirq_data",
    /// Grant in SoftIRQ. `a`: priority, `b`: increment (signed; at most 0: stale).
    SoftirqGrant = "softirq_grant",
    /// New incoming message. `a`: unscheduled bytes.
    Unsched = "unsched",
    /// A frame is passed to IP. `a`: bytes on the wire.
    IpXmit = "ip_xmit",
    /// IP took the frame. `a`: message bytes in it, `b`: queue of the NIC.
    SendData = "send_data",
    /// Sender out of granted bytes. `a`: granted.
    XmitStopped = "xmit_stopped",
    /// A grant is sent; `offset` is the new limit. `a`: priority, `b`: increment (signed).
    SendGrant = "send_grant",
    /// The queueing discipline kept a frame instead of sending it. `a`: queue.
    QdiscQueueData = "qdisc_queue_data",
    /// homa_qdisc holds a frame back.
    QdiscDefer = "qdisc_defer",
    /// homa_qdisc lets a held frame go.
    QdiscXmit = "qdisc_xmit",
    /// The pacer is about to send. `a`: port, `b`: bytes left.
    PacerXmit = "pacer_xmit",
    /// The driver gave a data frame to the NIC. `a`: queue.
    NicData = "nic_data",
    /// The driver gave a grant to the NIC. `a`: queue.
    NicGrant = "nic_grant",
    /// The NIC gave a data frame back. `a`: queue, `b`: message length.
    FreeTxSkb = "free_tx_skb",
    /// The NIC gave a grant back. `a`: queue.
    FreeGrant = "free_grant",
    /// An application starts a request. `a`: length, `b`: server's port.
    SendmsgRequest = "sendmsg_request",
    /// An application starts a response. `a`: length, `b`: port.
    SendmsgResponse = "sendmsg_response",
    /// `sendmsg` ends.
    SendmsgDone = "sendmsg_done",
    /// An application waits for a message. `a`: port, `b`: pid.
    RecvmsgStart = "recvmsg_start",
    /// An application has its message. `a`: status; current kernels print the length there.
    RecvmsgDone = "recvmsg_done",
    /// Copying from the application begins. `a`: length, `b`: unscheduled bytes.
    CopyInStart = "copy_in_start",
    /// Copying from the application ends. `a`: length.
    CopyInDone = "copy_in_done",
    /// Copying to the application begins.
    CopyOutStart = "copy_out_start",
    /// Bytes `offset`..`a` were copied to the application.
    CopyOutDone = "copy_out_done",
    /// Receive buffers were freed. `a`: their number.
    FreeSkbs = "free_skbs",
    /// A ready RPC is given to a waiting thread. `a`: port.
    RpcHandoff = "rpc_handoff",
    /// A ready RPC is queued, as no thread waits. `a`: port.
    RpcQueued = "rpc_queued",
    /// A thread got an RPC. `a`: 1 if it slept, `b`: way (1 hand-off, 2 queue, 3 none), `c`: pid.
    WaitFoundRpc = "wait_found_rpc",
    /// 2024: the thread that gets the RPC was polling.
    PollSuccess = "poll_success",
    /// 2024: the thread that gets the RPC was reaping.
    ReapSuccess = "reap_success",
    /// RESEND sent. `a`: length (signed, -1: all).
    ResendTx = "resend_tx",
    /// RESEND received. `a`: length (signed), `b`: priority.
    ResendRx = "resend_rx",
    /// RESEND received for an RPC that does not exist.
    ResendUnknown = "resend_unknown",
    /// Bytes `offset`..`offset + a` are about to be sent again.
    Retransmit = "retransmit",
    /// BUSY sent. `a`: RPC's state, if logged.
    BusyTx = "busy_tx",
    /// BUSY received.
    BusyRx = "busy_rx",
    /// RPC_UNKNOWN sent.
    UnknownTx = "unknown_tx",
    /// RPC_UNKNOWN received.
    UnknownRx = "unknown_rx",
    /// A client sends its request anew. `a`: bytes lost.
    Restart = "restart",
    /// Packet for an RPC that does not exist. `a`: type.
    DiscardUnknown = "discard_unknown",
    /// Packet for a port that does not exist. `a`: port, `b`: type.
    DiscardPort = "discard_port",
    /// Packet dropped for lack of receive buffers. `a`: length.
    DiscardNoBuffers = "discard_no_buffers",
    /// A received packet brings nothing new. `a`: length, `b`: 1 if it says that it is a retransmission.
    RejectData = "reject_data",
    /// Bytes `offset`..`a` are missing before a packet.
    GapCreated = "gap_created",
    /// A gap shrinks or splits.
    GapChanged = "gap_changed",
    /// A packet that does not fit what was received.
    PacketAnomaly = "packet_anomaly",
    /// NEED_ACK sent. `a`: port, `b`: ticks.
    NeedAckTx = "need_ack_tx",
    /// NEED_ACK received.
    NeedAckRx = "need_ack_rx",
    /// ACK sent in answer to NEED_ACK. `a`: other RPCs acknowledged.
    NeedAckReply = "need_ack_reply",
    /// ACK received. `a`: other RPCs acknowledged.
    AckRx = "ack_rx",
    /// A server RPC is freed, as the client acknowledged it.
    RpcAcked = "rpc_acked",
    /// End of an RPC. `a`: port.
    RpcEnd = "rpc_end",
    /// An RPC failed. `a`: error (signed).
    Abort = "abort",
    /// An RPC timed out. `a`: state.
    TimedOut = "timed_out",
    /// Waiting for a lock begins (`a` 0) or ends (`a` 1). `b`: lock (1 grant, 2 grantable, 3 rpc, 4 socket, 5 peer,
    /// 6 throttle, 7 bpage, 8 bucket; 0 another).
    LockWait = "lock_wait",
    /// SoftIRQ lets a copying thread have the RPC's lock. `a`: flags.
    LockYield = "lock_yield",
    /// Grant computation begins. `a`: granted, `b`: remaining, `c`: length.
    GrantCheckStart = "grant_check_start",
    /// Grant computation releases its lock.
    GrantCheckUnlock = "grant_check_unlock",
    /// Grant computation ends. `a`: total incoming bytes.
    GrantCheckDone = "grant_check_done",
    /// Grant computation must reorder.
    GrantCheckRecalc = "grant_check_lock_recalc",
    /// Grant computation looks for others in need. `a`: rank, `b`: active RPCs.
    GrantCheckNeedy = "grant_check_lock_needy",
    /// Grants are computed anew.
    GrantRecalc = "grant_recalc_start",
    /// State dump: incoming message. `a`: received, `b`: length.
    RpcIncoming = "rpc_incoming",
    /// State dump. `a`: granted - received (signed), `b`: granted.
    RpcIncoming2 = "rpc_incoming2",
    /// State dump. `a`: length, `b`: remaining, `c`: place in the grant array (signed, -1: none).
    RpcIncoming3 = "rpc_incoming3",
    /// State dump. `a`: pages of the receive pool held.
    BpagesAlloced = "bpages_alloced",
    /// State dump: outgoing message. `a`: sent, `b`: length.
    RpcOutgoing = "rpc_outgoing",
    /// Snapshot of RPC counters. `a`: microseconds before the dump (signed).
    SnapshotClock = "snapshot_clock",
    /// Counters of a snapshot. `offset`: started, `a`: KiB started, `b`: KiB done, `c`: done.
    SnapshotClientRequest = "snapshot_client_request",
    /// As `snapshot_client_request`.
    SnapshotClientResponse = "snapshot_client_response",
    /// As `snapshot_client_request`.
    SnapshotServerRequest = "snapshot_server_request",
    /// As `snapshot_client_request`.
    SnapshotServerResponse = "snapshot_server_response",
    /// TCP message: `a`: slot, `b`: 1 for a response.
    TcpSendmsg2 = "tcp_sendmsg2",
    /// TCP message sent. `a`: source, `b`: destination, `offset`: length, `c`: first sequence number.
    TcpSendmsg = "tcp_sendmsg",
    /// TCP segment sent. `a`: source, `b`: destination, `offset`: data bytes, `c`: sequence number or acknowledgement.
    TcpXmit = "tcp_xmit",
    /// TCP segment let go by homa_qdisc; fields as `tcp_xmit`.
    TcpQdisc = "tcp_qdisc",
    /// TCP segment given to the NIC; fields as `tcp_xmit`.
    TcpNic = "tcp_nic",
    /// Queue of the next `tcp_free`. `a`: queue.
    TcpFree2 = "tcp_free2",
    /// TCP segment given back; fields as `tcp_xmit`.
    TcpFree = "tcp_free",
    /// TCP segment at GRO; fields as `tcp_xmit`.
    TcpGro = "tcp_gro",
    /// TCP segment in SoftIRQ; fields as `tcp_xmit`.
    TcpSoftirq = "tcp_softirq",
    /// TCP message received; `offset`: length, `c`: ending sequence number.
    TcpRecvmsg = "tcp_recvmsg",
    /// A transmit queue stopped. `a`: queue, `b`: limit, `c`: queued.
    TxqStop = "txq_stop",
    /// A transmit queue goes on. `a`: queue.
    TxqRestart = "txq_restart",
    /// FREEZE sent.
    FreezeTx = "freeze_tx",
    /// FREEZE received. `a`: port, `b`: peer's port.
    FreezeRx = "freeze_rx",
    /// Another note about freezing.
    FreezeNote = "freeze_note",
    /// Last record before a freeze.
    Frozen = "frozen",
    /// First record after a freeze.
    Unfrozen = "unfrozen",
    /// Thread switch. `a`: old pid, `b`: new pid.
    TaskSwitch = "task_switch",
    /// Packet queued for another core's SoftIRQ. `a`: core.
    EnqueueBacklog = "enqueue_to_backlog",
    /// Kernel's receive SoftIRQ begins.
    NetRx = "net_rx",
    /// Driver polls its receive queue.
    PollRx = "poll_rx",
    /// Interrupt.
    Irq = "irq",
    /// Interrupt between cores is served.
    Ipi = "ipi",
    /// Packets are dropped on purpose. `a`: accepted, `b`: dropped.
    DropPacket = "drop_packet",
    /// The kernel noticed a slow RPC. `a`: kcycles, `b`: length.
    LongRtt = "long_rtt",
    /// Homa's timer tick.
    Timer = "timer",
    /// An event that the user defined. `c`: its place among the definitions.
    User = "user",
    /// A stock kernel wants a SoftIRQ (`tthoma record`). `a`: vector, 2 NET_TX, 3 NET_RX.
    KernelRaise = "kernel_raise",
    /// A stock kernel's SoftIRQ begins. `a`: vector.
    KernelBegin = "kernel_begin",
    /// A stock kernel's SoftIRQ ends. `a`: vector.
    KernelEnd = "kernel_end",
    /// A stock kernel polled packets. `a`: number of the structure polled, `b`: packets taken, `c`: packets allowed.
    KernelPoll = "kernel_poll",
    /// A stock kernel queues a packet for a core's backlog. `a`: number of the packet, `b`: length.
    KernelBacklog = "kernel_backlog",
    /// A stock kernel's driver passes a packet to GRO. `a`: number of the packet, `b`: length.
    KernelGro = "kernel_gro",
    /// A stock kernel's GRO is done with a packet. `a`: number of the packet, `b`: 0, 1 part of another packet, 2 held, 3
    /// passed on, 4 taken.
    KernelGroDone = "kernel_gro_done",
    /// A stock kernel's stack receives a packet. `a`: number of the packet, `b`: length.
    KernelReceive = "kernel_receive",
    /// A stock kernel gives a packet to a device. `a`: length, `b`: queue.
    KernelXmit = "kernel_xmit",
    /// A stock kernel makes a thread ready. `a`: pid, `b`: core that is to run it, `c`: priority.
    KernelWake = "kernel_wake",
    /// Events of a stock kernel were lost. `a`: their number.
    KernelLost = "kernel_lost",
    /// Message that no analysis reads, but for its time and core.
    Note = "note",
    /// First line of a file: counter and rate of its clock.
    Header = "header",
}

impl Kind {
    /// Number of kinds.
    pub const COUNT: usize = Self::ALL.len();

    /// True if `id` is an RPC id as seen by the node that logs.
    pub const fn has_rpc(self) -> bool {
        !matches!(
            self,
            Self::FreezeRx
                | Self::SoftirqStart
                | Self::TcpSendmsg
                | Self::TcpXmit
                | Self::TcpQdisc
                | Self::TcpNic
                | Self::TcpFree
                | Self::TcpGro
                | Self::TcpSoftirq
                | Self::TcpRecvmsg
        )
    }
}

/// Some kinds of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u128);

const _: () = assert!(Kind::COUNT <= 128);

impl Kinds {
    /// None.
    pub const NONE: Self = Self(0);
    /// Every kind.
    pub const ALL: Self = Self(u128::MAX);

    /// These.
    pub const fn of(kinds: &[Kind]) -> Self {
        let (mut all, mut place) = (0, 0);
        while place < kinds.len() {
            all |= 1 << kinds[place] as u8;
            place += 1;
        }
        Self(all)
    }

    /// These and those.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True if `kind` is one of them.
    #[inline]
    pub const fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }

    /// True if there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Which fields of a [`Record`] its line had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Have(pub u8);

impl Have {
    /// `id`.
    pub const ID: Self = Self(1);
    /// `offset`.
    pub const OFFSET: Self = Self(2);
    /// `a`.
    pub const A: Self = Self(4);
    /// `b`.
    pub const B: Self = Self(8);
    /// `c`.
    pub const C: Self = Self(16);
    /// `peer`.
    pub const PEER: Self = Self(32);

    /// True if all of `fields` are there.
    pub const fn has(self, fields: Self) -> bool {
        self.0 & fields.0 == fields.0
    }
}

impl std::ops::BitOr for Have {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One recognised line. Fields that the line lacks are 0; [`Record::have`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Nanoseconds on the file's own clock, as printed; negative after a shift.
    pub time: i64,
    /// Low 32 bits of the RPC's id on the node that logs; a number printed negative is the same 32 bits.
    pub id: u32,
    /// Bytes from the start of the message (for grants: the limit).
    pub offset: u32,
    /// See [`Kind`].
    pub a: u32,
    /// See [`Kind`].
    pub b: u32,
    /// See [`Kind`].
    pub c: u32,
    /// Low 32 bits of the peer's address, host order.
    pub peer: u32,
    /// Core that logged.
    pub core: u16,
    /// Client of the RPC as an index of hosts, once [`crate::hosts`] looked for it; else [`NO_HOST`]. [`AMBIGUOUS`] if
    /// several clients of this node used the id and the line does not say which.
    pub client: u16,
    /// What happened.
    pub kind: Kind,
    /// Fields that were there.
    pub have: Have,
}

/// No host, in [`Record::client`].
pub const NO_HOST: u16 = u16::MAX;
/// One of several hosts, in [`Record::client`].
pub const AMBIGUOUS: u16 = u16::MAX - 1;

// At most 64 bytes a line are kept (timetrace.md 11); lines are 60 to 110 bytes.
const _: () = assert!(size_of::<Record>() == 40);

impl Record {
    /// RPC id, if the event concerns an RPC.
    pub fn rpc(&self) -> Option<u32> {
        (self.have.has(Have::ID) && self.kind.has_rpc()).then_some(self.id)
    }

    /// Address of the peer, if logged.
    pub fn peer(&self) -> Option<u32> {
        self.have.has(Have::PEER).then_some(self.peer)
    }
}
