//! The texts of all events, one template each.
//!
//! A template is the printf form with each number named by the field of [`Record`](crate::event::Record) it goes to:
//! `{id}`, `{offset}`, `{a}`, `{b}`, `{c}` are decimal, `{peer}` is hexadecimal, and so is `{a:x}`. Further pieces:
//!
//! | piece | matches |
//! | --- | --- |
//! | `{_}` | a number that is not kept |
//! | `{word}` | everything up to the next space |
//! | `{..}` | everything up to the text that follows |
//! | `{,}` | a comma or nothing |
//! | `{?}` | nothing; from here on the template may fail, and later fields are then absent |
//! | `{a=1}` | nothing; sets the field |
//! | `{b:via}`, `{b:lock}` | a word of a list, as its place in the list |
//!
//! Templates are anchored at the start only, as the originals' patterns are. All generations of the texts are here
//! together (2024, 2026, and those between), and each line is matched by its own: there is no mode.

use crate::event::Kind::{self, *};

/// Words for `{b:via}`, counted from 1.
pub(crate) const VIA: &[&str] = &["handoff", "ready_rpcs", "null"];
/// Words for `{b:lock}`, counted from 1.
pub(crate) const LOCKS: &[&str] = &["grant", "grantable", "rpc", "socket", "peer", "throttle", "bpage", "bucket"];

/// Template of each text, more special ones before more general ones of the same beginning.
pub const TEMPLATES: &[(Kind, &str)] = &[
    // Reception.
    (GroData, "homa_gro_receive got packet from {peer} id {id}, offset {offset}{?}, priority {a}"),
    (GroGrant, "homa_gro_receive got grant from {peer} id {id}, offset {offset}{?}, priority {a}"),
    (GroControl, "homa_gro_receive got packet from {peer} id {id}, type {a:x}"),
    (RingWait, "afx ring wait {a} ns for id {id}, offset {offset}"),
    (RingWait, "afp ring wait {a} ns for id {id}, offset {offset}"),
    (GroHandoff, "homa_gro_{word} chose core {a}{?} for id {id}{,} offset {offset}"),
    (SoftirqStart, "homa_softirq starting"),
    (SoftirqStart, "homa_softirq: first packet{?} from {peer}:{_}, id {id}, type {a}"),
    (SoftirqData, "incoming data packet, id {id}, peer {peer}, offset {offset}/{a}"),
    (SoftirqData, "incoming data packet, id {id}, {..}offset {offset}/{a}"),
    (SoftirqGrant, "processing grant for id {id}, offset {offset}{?}, priority {a}, increment {b}"),
    (Unsched, "Incoming message for id {id} has {a} unscheduled"),
    // Transmission.
    (IpXmit, "calling ip_queue_xmit: wire_bytes {a}, peer {peer}, id {id}, offset {offset}"),
    (IpXmit, "calling ip6_xmit: wire_bytes {a}, peer {peer}, id {id}, offset {offset}"),
    (IpXmit, "calling ip{..}_xmit: {..} id {id}, offset {offset}"),
    (SendData, "Finished queueing packet: rpc id {id}, offset {offset}, len {a}{?}, qid {b}"),
    (XmitStopped, "homa_xmit_data stopping at offset {offset} for id {id}{?}: granted is {a}"),
    (SendGrant, "sending grant for id {id}, offset {offset}, priority {a}{?}, increment {b}"),
    (QdiscQueueData, "__dev_xmit_skb queueing homa data packet for id {id}, offset {offset}, qid {a}"),
    (QdiscDefer, "homa_qdisc_enqueue deferring homa data packet for id {id}, offset {offset}"),
    (QdiscXmit, "homa_qdisc_pacer queuing homa data packet for id {id}, offset {offset}"),
    (PacerXmit, "pacer calling homa_xmit_data for rpc id {id}, port {a}, offset {offset}, bytes_left {b}"),
    (NicData, "sent homa data packet via {word} to {peer}, id {id}, offset {offset}{?}, queue {a:x}"),
    (NicData, "mlx sent homa data packet to {peer}, id {id}, offset {offset}{?}, queue {a:x}"),
    (NicData, "ice sent homa data packet to {peer}, id {id}, offset {offset}{?}, queue {a:x}"),
    (NicGrant, "sent homa grant via {word} to {peer}, id {id}, offset {offset}{?}, queue {a:x}"),
    (NicGrant, "mlx sent homa grant to {peer}, id {id}, offset {offset}{?}, queue {a:x}"),
    (NicGrant, "ice sent homa grant to {peer}, id {id}, offset {offset}{?}, queue {a:x}"),
    (FreeTxSkb, "freeing tx skb for homa data, id {id}, offset {offset}{?}, qid {a}, msg_length {b}"),
    (FreeTxSkb, "napi freeing tx skb for homa data, id {id}, offset {offset}{?}, qid {a}, msg_length {b}"),
    (FreeTxSkb, "mlx freeing tx skb for homa data, id {id}, offset {offset}{?}, qid {a}, msg_length {b}"),
    (FreeTxSkb, "ice freeing tx skb for homa data, id {id}, offset {offset}{?}, qid {a}, msg_length {b}"),
    (FreeGrant, "freeing tx skb for homa grant, id {id}, offset {offset}{?}, qid {a}"),
    (FreeGrant, "napi freeing tx skb for homa grant, id {id}, offset {offset}{?}, qid {a}"),
    (FreeGrant, "mlx freeing tx skb for homa grant, id {id}, offset {offset}{?}, qid {a}"),
    (FreeGrant, "ice freeing tx skb for homa grant, id {id}, offset {offset}{?}, qid {a}"),
    // Applications.
    (SendmsgRequest, "homa_sendmsg request, target {peer}:{b}, id {id}, length {a}"),
    (SendmsgRequest, "homa_sendmsg request, target {peer}:{..} id {id}, length {a}"),
    (SendmsgResponse, "homa_sendmsg response, id {id}, port {b}, {..}length {a}"),
    (SendmsgResponse, "homa_sendmsg response, id {id}, {..}length {a}"),
    (SendmsgDone, "homa_sendmsg finished, id {id}"),
    (RecvmsgStart, "homa_recvmsg starting, port {a}, pid {b}"),
    (RecvmsgDone, "homa_recvmsg returning status {a}, id {id}"),
    (RecvmsgDone, "homa_recvmsg returning id {id}, length {a}"),
    (CopyInStart, "starting copy from user space{?} for id {id}, length {a}, unscheduled {b}"),
    (CopyInDone, "finished copy from user space for id {id}, length {a}"),
    (CopyOutStart, "starting copy to user space for id {id}"),
    (CopyOutDone, "copied out bytes {offset}-{a} for id {id}"),
    (CopyOutDone, "finished copying {b} bytes for id {id}, {..}last offset {a}"),
    (FreeSkbs, "finished freeing {a} skbs{?} for id {id}"),
    // Hand-offs to threads.
    (RpcHandoff, "homa_rpc_handoff handing off id {id}{?} for port {a}"),
    (RpcQueued, "homa_rpc_handoff queued id {id}{?} for port {a}"),
    (RpcQueued, "homa_rpc_handoff finished queuing id {id}{?} for port {a}"),
    (WaitFoundRpc, "homa_wait_{word} found rpc id {id}, pid {c}, port {_} via {b:via}, blocked {a}"),
    (WaitFoundRpc, "homa_wait_{word} found rpc id {id}{..} via {b:via}, blocked {a}"),
    (WaitFoundRpc, "homa_wait_for_message found rpc id {id}{?}, pid {c}"),
    (PollSuccess, "received RPC handoff while polling, id {id}"),
    (ReapSuccess, "received RPC handoff while reaping, id {id}"),
    // Loss, retransmission, end of RPCs.
    (ResendTx, "Sending RESEND for id {id}, peer {peer}, offset {offset}, length {a}"),
    (ResendTx, "Sent RESEND for client RPC id {id}, server {peer}:{_}, offset {offset}"),
    (ResendTx, "Sent RESEND for client RPC id {id}, {..} offset {offset}"),
    (ResendTx, "Sent RESEND for server RPC id {id}, client {peer}:{_} offset {offset}"),
    (ResendUnknown, "resend request for unknown id {id}, peer {peer}:{_}, offset {offset}"),
    (ResendRx, "resend request for id {id}, offset {offset}, length {a}{?}, prio {b}"),
    (Retransmit, "retransmitting offset {offset}, length {a}, id {id}"),
    (BusyTx, "sending BUSY from resend, id {id}, state {a}"),
    (BusyTx, "sending BUSY from resend, id {id}, offset {offset}"),
    (BusyTx, "sending BUSY from resend, id {id},"),
    (BusyRx, "received BUSY for id {id}, peer {peer}"),
    (UnknownTx, "sending unknown to {peer}:{_} for id {id}"),
    (UnknownRx, "Received unknown for id {id}, peer {peer}"),
    (UnknownRx, "Discarding unknown for RPC id {id}"),
    (Restart, "Restarting id {id} to server {peer}:{_}, lost {a} bytes"),
    (DiscardUnknown, "Discarding packet for unknown RPC, id {id},{?} type {a}, peer {peer}"),
    (DiscardPort, "Discarding packet(s) for unknown port {a}, id {id}, type {b}"),
    (DiscardPort, "Discarding packet for unknown port {a}, id {id}, type {b}"),
    (DiscardNoBuffers, "Dropping packet because no buffer space available: id {id}, offset {offset}, length {a}"),
    (RejectData, "homa_add_packet rejecting packet for id {id}, offset {offset}, length {a}, retransmit {b}"),
    (RejectData, "homa_add_packet discarding packet for id {id}{?}, offset {offset}, length {a}, retransmit {b}"),
    (GapCreated, "Created new gap for id {id}: start {offset}, end {a}"),
    (GapChanged, "Increasing start for gap for id {id}"),
    (GapChanged, "Decreasing end for gap for id {id}"),
    (GapChanged, "Splitting gap for id {id}"),
    (PacketAnomaly, "Packet overlaps gap start:"),
    (PacketAnomaly, "Packet overlaps gap end:"),
    (PacketAnomaly, "Packet extended past message end;"),
    (NeedAckTx, "Sent NEED_ACK for RPC id {id} to peer {peer}, port {a}, ticks {b}"),
    (NeedAckRx, "Received NEED_ACK for id {id}"),
    (NeedAckRx, "NEED_ACK arrived for id {id} before message received"),
    (NeedAckReply, "Responded to NEED_ACK for id {id}, peer {peer} with {a} other acks"),
    (AckRx, "ACK received for id {id}, peer {peer}, with {a} other acks"),
    (RpcAcked, "homa_rpc_acked freeing id {id}"),
    (RpcAcked, "homa_ack_pkt freeing rpc id {id}"),
    (RpcEnd, "homa_rpc_end invoked for id {id}{?}, port {a}"),
    (RpcEnd, "homa_rpc_free invoked for id {id}"),
    (Abort, "aborting client RPC: peer {peer}, id {id}, error {a}"),
    (Abort, "aborting server RPC: peer {peer}, id {id}, error {a}"),
    (TimedOut, "RPC id {id}, peer {peer}, aborted because of timeout, state {a}"),
    // Locks and grants.
    (LockWait, "beginning wait for {b:lock} lock{a=0}{?}, id {id}"),
    (LockWait, "ending wait for {b:lock} lock{a=1}{?}, id {id}"),
    (LockYield, "softirq released lock for id {id}, flags {a:x}"),
    (GrantCheckStart, "homa_grant_check_rpc starting for id {id}{?}, granted {a}, remaining {b}, length {c}"),
    (GrantCheckUnlock, "homa_grant_check_rpc released grant lock (id {id})"),
    (GrantCheckDone, "homa_grant_check_rpc finished with id {id}{?}, total_incoming {a}"),
    (GrantCheckRecalc, "homa_grant_check_rpc acquiring grant lock to fix order (id {id})"),
    (GrantCheckNeedy, "homa_grant_check_rpc acquiring grant lock, needy_rank {a}, id {id}, num_active {b}"),
    (GrantRecalc, "homa_grant_recalc starting"),
    // State dump and snapshots.
    (RpcIncoming, "Incoming RPC id {id}, peer {peer}, {a}/{b} bytes"),
    (RpcIncoming2, "RPC id {id} has incoming {a}, granted {b}"),
    (RpcIncoming3, "RPC id {id}: length {a}, remaining {b}, active_ix {c}"),
    (RpcIncoming3, "RPC id {id}: length {a}, remaining {b}, rank {c}"),
    (BpagesAlloced, "RPC id {id} has {a} bpages allocated"),
    (RpcOutgoing, "Outgoing RPC id {id}, peer {peer}, {a}/{b} bytes"),
    (SnapshotClock, "rpc snapshot usecs {a}"),
    (
        SnapshotClientRequest,
        "rpc snapshot client requests started {offset}, kbytes_started {a}, kbytes_done {b}, done {c}",
    ),
    (
        SnapshotClientResponse,
        "rpc snapshot client responses started {offset}, kbytes_started {a}, kbytes_done {b}, done {c}",
    ),
    (
        SnapshotServerRequest,
        "rpc snapshot server requests started {offset}, kbytes_started {a}, kbytes_done {b}, done {c}",
    ),
    (
        SnapshotServerResponse,
        "rpc snapshot server responses started {offset}, kbytes_started {a}, kbytes_done {b}, done {c}",
    ),
    // TCP.
    (TcpSendmsg2, "tcp_sendmsg new message slot is {a}, response {b}"),
    (TcpSendmsg, "tcp_sendmsg invoked for message from {a:x} to {b:x}, length {offset}, starting sequence {c}"),
    (TcpXmit, "Transmitting TCP packet from {a:x} to {b:x}, data bytes {offset}, seq/ack {c}"),
    (TcpQdisc, "homa_qdisc_pacer requeued TCP packet from {a:x} to {b:x}, data bytes {offset}, seq/ack {c}"),
    (TcpNic, "sent TCP packet via {word} from {a:x} to {b:x}, data bytes {offset}, seq/ack {c}"),
    (TcpFree2, "freeing TCP skb for qid {a}"),
    (TcpFree, "freeing TCP skb from {a:x} to {b:x}, data bytes {offset}, seq/ack {c}"),
    (TcpGro, "tcp_gro_receive got packet from {a:x} to {b:x}, data bytes {offset}, seq/ack {c}"),
    (TcpSoftirq, "softirq got TCP packet from {a:x} to {b:x}, data bytes {offset}, seq/ack {c}"),
    (TcpRecvmsg, "tcp_recvmsg returning message from {a:x} to {b:x}, length {offset}, ending sequence {c}"),
    // Queues, freezing, the rest of the kernel.
    (TxqStop, "netdev_tx_sent_queue stopped queue {a:x}: limit {b}, queued {c}"),
    (TxqRestart, "netdev_tx_completed_queue restarted queue {a:x}"),
    (FreezeTx, "Sending freeze to {peer}"),
    (FreezeRx, "Freezing because of request on port {a} from {peer}:{b},{?} id {id}"),
    (FreezeNote, "Freezing "),
    (FreezeNote, "freezing because "),
    (FreezeNote, "Finished freezing cluster"),
    (FreezeNote, "Calling homa_rpc_log_active because of action"),
    (FreezeNote, "homa_freeze calling homa_rpc_log_active"),
    (Frozen, "timetrace frozen"),
    (Unfrozen, "tt_unfreeze reset timetraces"),
    (Unfrozen, "tt_proc_release unfroze timetraces"),
    (TaskSwitch, "finish_task_switch, old pid {a}, new pid {b}"),
    (EnqueueBacklog, "enqueue_to_backlog{?}{..}cpu {a}"),
    (NetRx, "Starting net_rx_action"),
    (PollRx, "mlx5e_poll_rx_cq starting"),
    (Irq, "common_interrupt starting"),
    (Irq, "Entering IRQ"),
    (Ipi, "flush_smp_call_function_queue starting"),
    (DropPacket, "homa_drop_packet set accept_count {a}, drop_count {b:x}"),
    (LongRtt, "Long RTT: kcycles {a}, id {id}, peer {peer}, length {b}"),
    (Timer, "homa_timer found "),
    // What `tthoma record` writes.
    (KernelRaise, "kernel softirq {a} raised"),
    (KernelBegin, "kernel softirq {a} begins"),
    (KernelEnd, "kernel softirq {a} ends"),
    (KernelPoll, "kernel napi {a} polled, work {b}, budget {c}"),
    (KernelBacklog, "kernel backlog gets skb {a}, length {b}"),
    (KernelGro, "kernel gro gets skb {a}, length {b}"),
    (KernelGroDone, "kernel gro done with skb {a}, result {b}"),
    (KernelReceive, "kernel receives skb {a}, length {b}"),
    (KernelXmit, "kernel sends length {a}, queue {b}"),
    (KernelWake, "kernel wakes pid {a} for core {b}, priority {c}"),
    (KernelLost, "kernel trace lost {a} events before this"),
    (KernelLost, "kernel trace lost events before this"),
    (Header, "First event has timestamp "),
];
