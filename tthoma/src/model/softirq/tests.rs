use super::*;
use crate::hosts;
use crate::testing::traces;

fn queues(events: &str) -> Queues {
    let mut traces = traces(&[("n1", events)]);
    hosts::resolve(&mut traces);
    Queues::collect(&traces[0])
}

fn gro(at: f64, core: u16, offset: u32) -> String {
    format!("{at} C{core} homa_gro_receive got packet from 0xb id 11, offset {offset}, priority 1\n")
}

fn handoff(at: f64, core: u16, to: u16, offset: u32) -> String {
    format!("{at} C{core} homa_gro_gen3 chose core {to} for id 11, offset {offset}, delta 1\n")
}

fn start(at: f64, core: u16) -> String {
    format!("{at} C{core} homa_softirq starting\n")
}

fn data(at: f64, core: u16, offset: u32) -> String {
    format!("{at} C{core} incoming data packet, id 11, peer 0xb, offset {offset}/5000\n")
}

#[test]
fn phases_add_up_and_queueing_ends_with_the_invocation_before() {
    let q = queues(
        &[
            gro(1.0, 2, 0),
            gro(2.0, 2, 1000),
            handoff(3.0, 2, 3, 0),
            gro(3.5, 2, 2000),
            start(4.0, 3),
            handoff(4.5, 2, 3, 2000),
            data(5.0, 3, 0),
            data(6.0, 3, 1000),
            start(7.0, 3),
            data(7.5, 3, 2000),
        ]
        .concat(),
    );
    let phases: Vec<Phases> = q.waits.iter().filter_map(Wait::phases).collect();
    assert_eq!(
        phases,
        [
            Phases { hold: 2000, queue: 0, wake: 1000, process: 1000 },
            Phases { hold: 1000, queue: 0, wake: 1000, process: 2000 },
            Phases { hold: 1000, queue: 1500, wake: 1000, process: 500 },
        ]
    );
    assert_eq!(
        q.batches.iter().map(|b| (b.packets, b.started - b.handoff)).collect::<Vec<_>>(),
        [(2, 1000), (1, 2500)]
    );
    assert_eq!(
        q.invocations,
        [Invocation { core: 3, start: 4000, end: 6000 }, Invocation { core: 3, start: 7000, end: 7500 }]
    );
    assert_eq!(q.waits.iter().map(|w| w.bytes).collect::<Vec<_>>(), [1000, 1000, 1000]);
}

#[test]
fn what_gro_processes_itself_never_queued() {
    let q = queues(
        &[
            gro(1.0, 2, 0),
            start(1.5, 2),
            data(2.0, 2, 0),
            gro(3.0, 2, 1000),
            handoff(4.0, 2, 2, 1000),
            start(5.0, 2),
            data(6.0, 2, 1000),
        ]
        .concat(),
    );
    assert_eq!(q.waits.iter().map(|w| w.ending).collect::<Vec<_>>(), [Ending::Bypassed, Ending::Processed]);
    assert_eq!(q.batches[0].packets, 1, "what was processed is in no batch");
    assert_eq!(q.legacy, [1000], "the first in, first out has no hand-off for the first invocation");
}

#[test]
fn packets_overtaken_by_later_ones_are_presumed_dropped() {
    let mut events = [gro(1.0, 2, 0), handoff(2.0, 2, 3, 0)].concat();
    for i in 1..4 {
        let at = f64::from(i) * 100.0;
        events +=
            &[gro(at, 2, 1000 * i), handoff(at + 1.0, 2, 3, 1000 * i), start(at + 2.0, 3), data(at + 3.0, 3, 1000 * i)]
                .concat();
    }
    events += &[gro(400.0, 2, 4000), handoff(401.0, 2, 3, 4000)].concat();
    let q = queues(&events);
    // The first later packet was done at 103, the next invocation began at 202; 100 us of grace.
    assert_eq!(q.waits[0].ending, Ending::Dropped(302_000));
    assert_eq!((q.waits[4].ending, q.waits[4].core), (Ending::Open, 3));
}

#[test]
fn a_thread_that_does_everything_holds_packets_until_it_begins() {
    let q = queues(
        "1.0 C0 homa_gro_receive got packet from 0xb id 11, offset 0, priority 1\n\
         1.0 C0 afp ring wait 700 ns for id 11, offset 0\n\
         1.2 C0 homa_gro_receive got packet from 0xb id 13, offset 0, priority 1\n\
         1.5 C0 homa_softirq starting\n\
         1.6 C0 incoming data packet, id 11, peer 0xb, offset 0/100\n\
         1.7 C0 incoming data packet, id 13, peer 0xb, offset 0/100\n",
    );
    assert!(!q.hands_off);
    assert_eq!(q.waits[0].phases(), Some(Phases { hold: 500, queue: 0, wake: 0, process: 100 }));
    assert_eq!(q.waits[1].phases(), Some(Phases { hold: 300, queue: 0, wake: 0, process: 200 }));
    assert_eq!((q.waits[0].ring, q.waits[1].ring), (300, UNSEEN));
}

#[test]
fn a_stock_kernels_packets_wait_for_net_rx() {
    let q = queues(
        "1 C0 kernel softirq 3 raised\n1.5 C1 kernel backlog gets skb 1, length 1500, device veth0\n\
         2 C0 kernel softirq 3 raised\n3 C0 kernel softirq 3 begins\n4 C0 kernel receives skb 1, length 1500, device veth0\n\
         4.5 C1 kernel backlog gets skb 2, length 60, device veth0\n5 C0 kernel softirq 3 ends\n\
         6 C0 kernel softirq 3 begins\n6.5 C0 kernel receives skb 2, length 60, device veth0\n\
         7 C0 kernel receives skb 3, length 70, device veth0\n8 C0 kernel softirq 3 ends\n\
         9 C0 kernel gro gets skb 4, length 60, device veth0\n9.1 C0 kernel gro done with skb 4, result 0\n\
         9.2 C0 kernel backlog gets skb 5, length 60, device veth0\n10 C0 kernel trace lost 7 events before this\n",
    );
    assert_eq!(q.waits.len(), 4, "skb 3 never queued");
    assert_eq!(q.waits[0].phases(), Some(Phases { hold: 0, queue: 0, wake: 1500, process: 1000 }));
    assert_eq!(q.waits[1].phases(), Some(Phases { hold: 0, queue: 500, wake: 1000, process: 500 }));
    assert_eq!([q.waits[2].ending, q.waits[3].ending], [Ending::Unknown; 2], "merged; and nobody knows");
    let raised: Vec<i64> = q.kernel_runs.iter().map(|r| r.raised).collect();
    assert_eq!((raised, q.kernel_runs[0].end, q.lost), (vec![1000, UNSEEN], 5000, 7));
}

#[test]
fn what_softirq_discards_waits_no_more() {
    let q = queues(
        "1 C2 homa_gro_receive got packet from 0xb id 10, offset 0, priority 1\n\
         2 C2 homa_gro_gen3 chose core 3 for id 10, offset 0, delta 1\n3 C3 homa_softirq starting\n\
         4 C3 Discarding packet for unknown RPC, id 10, type 16, peer 0xb:4000\n\
         5 C2 homa_gro_receive got packet from 0xb id 10, type 0x15\n",
    );
    assert_eq!((q.waits[0].softirq, q.waits[0].ending), (4000, Ending::Processed));
    assert_eq!(q.waits[1].ending, Ending::Unknown, "this type leaves no trace in SoftIRQ");
}
