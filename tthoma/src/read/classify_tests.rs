//! Tests of the classifier: each printf form of the kernel, old and new, and each template.

use super::*;

/// Kind and fields as `kind id=.. offset=..`, fields only if the line had them.
fn told(message: &str) -> String {
    let Some(f) = classifier().classify(message.as_bytes()) else { return "-".into() };
    let mut text = f.kind.name().to_string();
    for (i, name) in ["id", "offset", "a", "b", "c", "peer"].iter().enumerate() {
        if f.have.has(Have(1 << i)) {
            text += &format!(" {name}={}", f.values[i] as i32);
        }
    }
    text
}

#[test]
fn current_kernel_texts_are_understood() {
    let cases = [
        (
            "homa_sendmsg request, target 0xa000103:4000, id 1000, length 100",
            "sendmsg_request id=1000 a=100 b=4000 peer=167772419",
        ),
        ("homa_sendmsg response, id 1001, port 4000, pid 77, length 200", "sendmsg_response id=1001 a=200 b=4000"),
        ("homa_sendmsg finished, id 1000", "sendmsg_done id=1000"),
        ("starting copy from user space for id 7, length 8, unscheduled 9", "copy_in_start id=7 a=8 b=9"),
        ("finished copy from user space for id 7, length 8", "copy_in_done id=7 a=8"),
        ("calling ip_queue_xmit: wire_bytes 218, peer 0x1, id 2, offset 3", "ip_xmit id=2 offset=3 a=218 peer=1"),
        ("calling ip6_xmit: wire_bytes 218, peer 0x1, id 2, offset 3", "ip_xmit id=2 offset=3 a=218 peer=1"),
        ("Finished queueing packet: rpc id 2, offset 3, len 4, qid 5", "send_data id=2 offset=3 a=4 b=5"),
        (
            "pacer calling homa_xmit_data for rpc id 2, port 3, offset 4, bytes_left 5",
            "pacer_xmit id=2 offset=4 a=3 b=5",
        ),
        ("homa_qdisc_enqueue deferring homa data packet for id 2, offset 3 on qid 4", "qdisc_defer id=2 offset=3"),
        ("homa_qdisc_pacer queuing homa data packet for id 2, offset -1", "qdisc_xmit id=2 offset=-1"),
        (
            "homa_qdisc_pacer requeued TCP packet from 0x1 to 0x2, data bytes 3, seq/ack 4294967295",
            "tcp_qdisc offset=3 a=1 b=2 c=-1",
        ),
        ("homa_gro_receive got packet from 0x1 id 2, offset 3, priority 4", "gro_data id=2 offset=3 a=4 peer=1"),
        ("homa_gro_receive got grant from 0x1 id 2, offset 3, priority 4", "gro_grant id=2 offset=3 a=4 peer=1"),
        ("homa_gro_receive got packet from 0x1 id 2, type 0x18, priority 7", "gro_ctl id=2 a=24 peer=1"),
        ("homa_gro_gen2 chose core 6 for id 2 offset 3", "gro_handoff id=2 offset=3 a=6"),
        ("homa_gro_gen2 chose core 6 for id 2 offset 3 (all cores busy)", "gro_handoff id=2 offset=3 a=6"),
        ("homa_gro_gen3 chose core 6 for id 2, offset 3, delta 91233", "gro_handoff id=2 offset=3 a=6"),
        ("homa_gro_complete chose core 6 for id 2 offset 3 with IDLE policy", "gro_handoff id=2 offset=3 a=6"),
        ("homa_gro_complete chose core 6 for id 2 offset 3 with NEXT policy", "gro_handoff id=2 offset=3 a=6"),
        ("homa_softirq starting", "softirq_start"),
        ("incoming data packet, id 2, peer 0x1, offset 3/4", "softirq_data id=2 offset=3 a=4 peer=1"),
        ("Incoming message for id 2 has 3 unscheduled bytes", "unsched id=2 a=3"),
        ("processing grant for id 2, offset 3, priority 4, increment -5", "softirq_grant id=2 offset=3 a=4 b=-5"),
        ("sending grant for id 2, offset 3, priority 4, increment 5", "send_grant id=2 offset=3 a=4 b=5"),
        ("homa_rpc_handoff handing off id 2 for port 3", "rpc_handoff id=2 a=3"),
        ("homa_rpc_handoff queued id 2 for port 3", "rpc_queued id=2 a=3"),
        ("homa_wait_shared found rpc id 2, pid 3, port 4 via ready_rpcs, blocked 0", "wait_found_rpc id=2 a=0 b=2 c=3"),
        ("homa_wait_shared found rpc id 2, pid 3, port 4 via handoff, blocked 1", "wait_found_rpc id=2 a=1 b=1 c=3"),
        ("homa_wait_private found rpc id 2, pid 3, port 4 via null, blocked 0", "wait_found_rpc id=2 a=0 b=3 c=3"),
        ("homa_recvmsg starting, port 2, pid 3", "recvmsg_start a=2 b=3"),
        ("starting copy to user space for id 2", "copy_out_start id=2"),
        ("copied out bytes 100-200 for id 2", "copy_out_done id=2 offset=100 a=200"),
        ("finished freeing 9 skbs for id 2", "free_skbs id=2 a=9"),
        ("homa_recvmsg returning status 100, id 2", "recvmsg_done id=2 a=100"),
        ("homa_rpc_end invoked for id 2, port 3", "rpc_end id=2 a=3"),
        ("Sending RESEND for id 2, peer 0x1, offset 3, length -1", "resend_tx id=2 offset=3 a=-1 peer=1"),
        ("resend request for id 2, offset 3, length 4, prio 5", "resend_rx id=2 offset=3 a=4 b=5"),
        ("resend request for id 2, offset 3, length 4", "resend_rx id=2 offset=3 a=4"),
        ("retransmitting offset 3, length 4, id 2", "retransmit id=2 offset=3 a=4"),
        ("sending BUSY from resend, id 2, state 3", "busy_tx id=2 a=3"),
        ("sending BUSY from resend, id 2, offset 3, tx_end 4", "busy_tx id=2 offset=3"),
        ("Discarding packet for unknown RPC, id 2, type 16, peer 0x1:40", "discard_unknown id=2 a=16 peer=1"),
        ("beginning wait for grant lock", "lock_wait a=0 b=1"),
        ("ending wait for peer lock", "lock_wait a=1 b=5"),
        ("beginning wait for rpc lock, id 2, (bucket 3)", "lock_wait id=2 a=0 b=3"),
        ("sent homa data packet via afp to 0x1, id 2, offset 3, queue 0x0", "nic_data id=2 offset=3 a=0 peer=1"),
        (
            "sent homa grant via ice to 0x1, id 2, offset 3, queue 0xffff888012345678",
            "nic_grant id=2 offset=3 a=305419896 peer=1",
        ),
        ("freeing tx skb for homa data, id 2, offset 3, qid 4, msg_length 5", "free_tx_skb id=2 offset=3 a=4 b=5"),
        ("freeing tx skb for homa grant, id 2, offset 3, qid 4", "free_grant id=2 offset=3 a=4"),
        ("afp ring wait 1500 ns for id 2, offset 3", "ring_wait id=2 offset=3 a=1500"),
        (
            "homa_grant_check_rpc starting for id 2, granted 3, remaining 4, length 5",
            "grant_check_start id=2 a=3 b=4 c=5",
        ),
        ("homa_grant_check_rpc finished with id 2, total_incoming 3", "grant_check_done id=2 a=3"),
        ("Sending freeze to 0xa4d0001", "freeze_tx peer=172818433"),
        ("Freezing because of request on port 0 from 0x1:32778, id 1", "freeze_rx id=1 a=0 b=32778 peer=1"),
        ("Freezing cluster because of action 7", "freeze_note"),
        ("timetrace frozen", "frozen"),
        (
            "sent TCP packet via mlx from 0x1030fa0 to 0x2030fa0, data bytes 3, seq/ack 4",
            "tcp_nic offset=3 a=16977824 b=33755040 c=4",
        ),
        ("enqueue_to_backlog queued packet on cpu 7, len 3", "enqueue_to_backlog a=7"),
        ("First event has timestamp 8213442210111 (cpu_ghz 2.400000000000000)", "header"),
    ];
    for (message, expected) in cases {
        assert_eq!(told(message), expected, "{message}");
    }
}

#[test]
fn older_kernel_texts_are_understood() {
    let cases = [
        ("Finished queueing packet: rpc id 2, offset 3, len 4, granted 5", "send_data id=2 offset=3 a=4"),
        ("homa_softirq: first packet from 0x1:40, id 2, type 16", "softirq_start id=2 a=16 peer=1"),
        ("processing grant for id 2, offset 3, priority 4, resend_all 0", "softirq_grant id=2 offset=3 a=4"),
        ("sending grant for id 2, offset 3, priority 4", "send_grant id=2 offset=3 a=4"),
        ("calling ip_queue_xmit: skb->len 218, id 2, offset 3", "ip_xmit id=2 offset=3"),
        ("homa_gro_receive got packet from 0x1 id 2, offset 3", "gro_data id=2 offset=3 peer=1"),
        ("homa_rpc_handoff handing off id 2 to pid 3 on core 4", "rpc_handoff id=2"),
        ("homa_rpc_handoff finished queuing id 2 for port 3", "rpc_queued id=2 a=3"),
        ("received RPC handoff while polling, id 2, socket 3, pid 4", "poll_success id=2"),
        ("homa_wait_for_message found rpc id 2, pid 3", "wait_found_rpc id=2 c=3"),
        ("homa_wait_shared found rpc id 2, pid 3 via handoff, blocked 1", "wait_found_rpc id=2 a=1 b=1"),
        ("homa_recvmsg returning id 2, length 3, bpage0 4", "recvmsg_done id=2 a=3"),
        ("homa_rpc_free invoked for id 2", "rpc_end id=2"),
        ("homa_rpc_end invoked for id 2", "rpc_end id=2"),
        ("Sent RESEND for client RPC id 2, server 0x1:40, offset 3", "resend_tx id=2 offset=3 peer=1"),
        ("Sent RESEND for server RPC id 3, client 0x1:40 offset 4", "resend_tx id=3 offset=4 peer=1"),
        ("ending wait for grantable lock", "lock_wait a=1 b=2"),
        ("mlx sent homa data packet to 0x1, id 2, offset 3", "nic_data id=2 offset=3 peer=1"),
        ("ice sent homa grant to 0x1, id 2, offset 3, queue 0xff", "nic_grant id=2 offset=3 a=255 peer=1"),
        ("napi freeing tx skb for homa data, id 2, offset 3", "free_tx_skb id=2 offset=3"),
        ("finished copying 100 bytes for id 2, copied 3, last offset 50", "copy_out_done id=2 a=50 b=100"),
        ("finished freeing 9 skbs", "free_skbs a=9"),
        ("RPC id 2: length 3, remaining 4, rank 5", "rpc_incoming3 id=2 a=3 b=4 c=5"),
        ("homa_sendmsg response, id 3, length 4", "sendmsg_response id=3 a=4"),
        (
            "homa_add_packet discarding packet for id 2, offset 3, length 4, retransmit 1",
            "reject_data id=2 offset=3 a=4 b=1",
        ),
        ("homa_gro_receive got packet from 0x1 id -2, offset 3, priority 4", "gro_data id=-2 offset=3 a=4 peer=1"),
    ];
    for (message, expected) in cases {
        assert_eq!(told(message), expected, "{message}");
    }
}

#[test]
fn near_misses_are_not_understood() {
    for message in
        ["", "h", "homa_softir", "homa_gro_receive got packet from", "Homa_softirq starting", "\u{e9}t\u{e9}"]
    {
        assert_eq!(told(message), "-", "{message}");
    }
}

/// Fills each template with numbers; it must come back as its own kind, whatever other templates begin alike.
#[test]
fn no_template_hides_another() {
    for (kind, template) in TEMPLATES {
        let mut text =
            template.replace("{?}", "").replace("{,}", ",").replace("{word}", "xyz").replace("{..}", "77 x, ");
        for (i, name) in ["id", "offset", "a", "b", "c", "peer"].iter().enumerate() {
            text = text.replace(&format!("{{{name}}}"), &(i + 1).to_string()).replace(&format!("{{{name}:x}}"), "0x7");
        }
        text = text.replace("{_}", "8").replace("{b:via}", "handoff").replace("{b:lock}", "grant");
        text = text.replace("{a=0}", "").replace("{a=1}", "");
        assert!(!text.contains('{'), "{text}");
        let told = classifier().classify(text.as_bytes());
        assert_eq!(told.map(|f| f.kind), Some(*kind), "`{text}` from `{template}`");
        assert_eq!(told, Pattern::of(*kind, compile(template)).run(text.as_bytes()), "`{text}`");
    }
}

/// A message and each beginning of it mean the same at the end of all text and before other lines.
#[test]
fn what_follows_a_message_does_not_matter() {
    for (_, template) in TEMPLATES {
        let text = template.replace(['{', '}'], "7").replace(":x", "").replace("..", "77 x, ");
        for end in 0..=text.len() {
            let message = &text[..end];
            let follows = format!("{message}\n{} us (+   0.000 us) [C01] {text}", &text[end..]);
            assert_eq!(told(message), told(&follows), "{follows}");
        }
    }
}
