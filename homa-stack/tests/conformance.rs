//! The protocol between endpoints in virtual time: what must hold whatever the network does.

mod net;

use homa_stack::proto::Announce;
use homa_stack::wire::{Kind, Packet, RESEND_ALL};
use homa_stack::{Config, Instant, Nanos, RpcError};
use net::{Net, Rng};

const LENGTHS: [usize; 7] = [1, 1424, 1425, 40_000, 40_001, 65_536, 1_000_000];

fn config(mtu: usize) -> Config {
    Config { mtu, ..Config::default() }
}

#[test]
fn messages_of_all_lengths_arrive_intact_both_ways() {
    for mtu in [1500, 9000] {
        for len in LENGTHS {
            let mut net = Net::new(2, &config(mtu));
            let id = net.call(0, 1, len);
            net.run_for(Nanos::from_secs(10));
            assert!(net.done.contains_key(&id), "{len} bytes at MTU {mtu}");
            assert_eq!(net.count(Kind::Resend), 0, "{len} bytes at MTU {mtu}: nothing was lost");
            net.assert_settled("lengths");
        }
    }
}

/// Nothing is unscheduled: each message is announced, both ways.
#[test]
fn without_unscheduled_bytes_messages_of_all_lengths_arrive() {
    for len in LENGTHS {
        let mut net = Net::new(2, &Config { unsched_bytes: 0, ..config(1500) });
        let empty = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let seen = empty.clone();
        net.fate = Box::new(move |sent| {
            if let Packet::Data(data) = sent.packet
                && data.bytes.is_empty()
            {
                seen.borrow_mut().push((
                    sent.from,
                    data.offset,
                    data.incoming,
                    data.message_len as usize,
                    sent.priority,
                ));
            }
            vec![Nanos::ZERO]
        });
        let id = net.call(0, 1, len);
        net.run_for(Nanos::from_secs(1));
        assert!(net.done.contains_key(&id), "{len} bytes");
        assert_eq!(net.count(Kind::Resend), 0, "{len} bytes: nothing was lost");
        assert_eq!(*empty.borrow(), [(0, 0, 0, len, 7), (1, 0, 0, len, 7)], "{len} bytes");
        net.assert_settled("announced");
    }
}

#[test]
fn unscheduled_bytes_need_no_grant_and_one_byte_more_does() {
    for (len, grants) in [(40_000, false), (40_001, true)] {
        let mut net = Net::new(2, &config(1500));
        net.response_len = Some(1);
        net.call(0, 1, len);
        net.run_for(Nanos::from_secs(1));
        assert_eq!(net.count(Kind::Grant) > 0, grants, "{len} bytes");
    }
}

#[test]
fn the_first_data_make_the_receiver_tell_its_cutoffs_once() {
    let mut net = Net::new(2, &config(1500));
    net.call(0, 1, 100);
    net.run_for(Nanos::from_millis(20));
    assert_eq!(net.count(Kind::Cutoffs), 2, "each end tells the other");
    net.log.clear();
    net.call(0, 1, 100);
    net.call(0, 1, 2_801);
    net.run_for(Nanos::from_millis(20));
    let priorities: Vec<u8> = net.log.iter().filter(|l| l.0 == Kind::Data && l.1 == 0).map(|l| l.3).collect();
    assert_eq!(priorities, [7, 5, 5], "by the table: up to 200 bytes level 7, up to 15,000 level 5");
    assert_eq!(net.count(Kind::Cutoffs), 2);
}

/// One DATA packet in ten is lost, so that packets of all kinds are sent.
#[test]
fn control_packets_go_at_the_highest_level() {
    let mut net = Net::new(2, &config(1500));
    let mut rng = Rng::new(4);
    let levels = std::rc::Rc::new(std::cell::RefCell::new(std::collections::BTreeMap::new()));
    let seen = levels.clone();
    net.fate = Box::new(move |sent| {
        *seen.borrow_mut().entry((format!("{:?}", sent.kind), sent.priority)).or_insert(0) += 1;
        if sent.kind == Kind::Data && rng.chance(0.1) { vec![] } else { vec![Nanos::ZERO] }
    });
    (0..20).for_each(|_| _ = net.call(0, 1, 100_000));
    net.service = Nanos::from_millis(30);
    net.run_for(Nanos::from_secs(5));
    let levels = levels.take();
    let control: Vec<_> = levels.keys().filter(|(kind, _)| kind != "Data").collect();
    for kind in ["Grant", "Resend", "Busy", "Cutoffs", "NeedAck", "Ack"] {
        assert!(control.iter().any(|(known, _)| known == kind), "no {kind} among {control:?}");
    }
    assert!(control.iter().all(|(_, level)| *level == 7), "{control:?}");
}

/// Messages of 100, 1,000 and 8,000 bytes with as many bytes of each: each length gets a level of its own, and peers
/// learn it by the version.
#[test]
fn cutoffs_follow_the_lengths_that_come_and_peers_learn_them() {
    let interval = Nanos::from_millis(20);
    let server = Config { auto_cutoffs: true, cutoff_interval: interval, cutoff_min_messages: 50, ..config(1500) };
    let mut net = Net::with(vec![config(1500), config(1500), server]);
    net.response_len = Some(8);
    let round = |net: &mut Net| {
        for (len, count) in [(100, 80), (1_000, 8), (8_000, 1)] {
            (0..count).for_each(|n| _ = net.call(n % 2, 2, len));
            net.run_for(Nanos::from_millis(10));
        }
        // Also of what comes while nothing else does.
        net.run_for(interval);
    };
    (0..3).for_each(|_| round(&mut net));
    assert_eq!(net.hosts[2].metrics.cutoff_changes, 1, "once, then they fit: {:?}", net.hosts[2].config().cutoffs);
    assert_eq!(net.hosts[2].config().cutoff_version, 2);
    assert_eq!(net.hosts[2].config().max_sched_priority, 0, "nearly all is unscheduled");
    let levels = std::rc::Rc::new(std::cell::RefCell::new(std::collections::BTreeMap::new()));
    let seen = levels.clone();
    net.fate = Box::new(move |sent| {
        if let (Packet::Data(data), 2) = (sent.packet, sent.to) {
            assert_eq!(data.cutoff_version, 2);
            seen.borrow_mut().insert(data.message_len, sent.priority);
        }
        vec![Nanos::ZERO]
    });
    round(&mut net);
    let levels: Vec<u8> = levels.borrow().values().copied().collect();
    assert_eq!(levels, [7, 6, 5]);
    net.run_for(Nanos::from_secs(20));
    net.assert_settled("cutoffs");
}

/// Each packet of an exchange of three packets a message is lost in turn, then each pair.
#[test]
fn an_rpc_completes_once_whichever_packets_are_lost() {
    complete_whatever_is_lost(&config(1500), 8);
}

/// The same with announcements and grants before the first byte.
#[test]
fn an_announced_rpc_completes_once_whichever_packets_are_lost() {
    complete_whatever_is_lost(&Config { unsched_bytes: 0, ..config(1500) }, 12);
    complete_whatever_is_lost(&Config { unsched_bytes: 2000, announce: Announce::Scheduled, ..config(1500) }, 12);
}

fn complete_whatever_is_lost(config: &Config, least: usize) {
    let mut whole = Net::new(2, config);
    whole.call(0, 1, 4000);
    whole.run_for(Nanos::from_secs(1));
    let packets = whole.packets.values().sum::<usize>();
    assert!(packets >= least, "six of data, cutoffs, end of the exchange: {:?}", whole.packets);
    for first in 0..packets {
        for second in first..packets {
            let mut net = Net::new(2, config);
            net.fate = Box::new(
                move |sent| {
                    if sent.serial == first || sent.serial == second { vec![] } else { vec![Nanos::ZERO] }
                },
            );
            let id = net.call(0, 1, 4000);
            net.run_for(Nanos::from_secs(3));
            let context = format!("packets {first} and {second} were lost");
            assert!(net.done.contains_key(&id), "{context}");
            net.assert_settled(&context);
        }
    }
}

/// Tombstones: without them the copy that arrives after the ACK would run the request again.
#[test]
fn a_request_runs_once_however_late_copies_of_its_packets_arrive() {
    for copied in 0..10 {
        for delay_ms in [0, 1, 4, 30, 120, 1000, 4900] {
            let mut net = Net::new(2, &config(1500));
            net.fate = Box::new(move |sent| {
                let late = Nanos::from_millis(delay_ms);
                if sent.serial == copied { vec![Nanos::ZERO, late] } else { vec![Nanos::ZERO] }
            });
            let id = net.call(0, 1, 4000);
            net.run_for(Nanos::from_secs(12));
            let context = format!("a copy of packet {copied} came {delay_ms} ms later");
            assert!(net.done.contains_key(&id), "{context}");
            net.assert_settled(&context);
        }
    }
}

#[test]
fn a_silent_server_is_given_up_after_100_ticks_and_19_resends() {
    let mut net = Net::new(2, &config(1500));
    net.alive[1] = false;
    let start = net.now;
    let id = net.call(0, 1, 100);
    net.run_until(start + Nanos::from_micros(98_500));
    assert!(net.failed.is_empty(), "not before 99 ticks");
    net.run_until(start + Nanos::from_micros(102_500));
    assert_eq!(net.failed[&id], RpcError::TimedOut);
    assert_eq!(net.count(Kind::Resend), 19);
    net.assert_settled("silent server");
}

#[test]
fn a_slow_server_is_asked_but_nothing_is_sent_again() {
    let mut net = Net::new(2, &config(1500));
    net.service = Nanos::from_millis(500);
    let id = net.call(0, 1, 3000);
    net.run_for(Nanos::from_secs(2));
    assert!(net.done.contains_key(&id));
    assert!(net.count(Kind::Busy) >= 5 && net.count(Kind::Busy) == net.count(Kind::Resend), "{:?}", net.packets);
    assert!(net.count(Kind::Resend) < 25, "repeated BUSYs make RESENDs rarer: {:?}", net.packets);
    assert_eq!(net.hosts[0].metrics.resent_packets, 0);
    net.assert_settled("slow server");
}

#[test]
fn a_server_forgets_a_client_that_is_gone() {
    let mut net = Net::new(2, &config(1500));
    net.service = Nanos::from_millis(1);
    net.call(0, 1, 100);
    net.run_for(Nanos::from_micros(500));
    net.alive[0] = false;
    net.run_for(Nanos::from_secs(2));
    assert_eq!(net.hosts[1].metrics.need_ack_giveups, 1);
    assert!((1..=8).contains(&net.count(Kind::NeedAck)), "{:?}", net.packets);
    net.assert_settled("client gone");
}

#[test]
fn a_client_that_goes_silent_without_traffic_is_asked_for_its_ack() {
    let mut net = Net::new(2, &config(1500));
    net.call(0, 1, 100);
    net.run_for(Nanos::from_millis(50));
    assert_eq!((net.count(Kind::NeedAck), net.count(Kind::Ack)), (1, 1));
    net.assert_settled("need ack");
}

/// Room for two messages, twenty senders: the others wait, and are woken with RESEND (0, -1) at the second-highest
/// priority.
#[test]
fn all_complete_with_a_pool_of_two_messages() {
    let server = Config { pool_pages: 4, ..config(1500) };
    let mut configs = vec![config(1500); 20];
    configs.push(server);
    let mut net = Net::with(configs);
    net.response_len = Some(10);
    net.service = Nanos::from_millis(3);
    net.hold_messages = true;
    let ids: Vec<_> = (0..20).map(|client| net.call(client, 20, 100_000)).collect();
    for _ in 0..3000 {
        net.run_for(Nanos::from_millis(2));
        net.release_held();
    }
    for id in &ids {
        assert!(net.done.contains_key(id), "{id}: {:?}", net.failed);
    }
    let wakes = net.log.iter().filter(|l| l.0 == Kind::Resend && l.1 == 20 && l.3 == 6).count();
    assert!(wakes >= 18, "{wakes} wake-ups");
    assert!(net.hosts[20].metrics.buffer_alloc_failures >= 18);
    net.assert_settled("small pool");
}

#[test]
fn many_rpcs_survive_loss_duplication_and_reordering() {
    for seed in 1..=40 {
        for loss in [0.0, 0.01, 0.1] {
            let mut rng = Rng::new(seed);
            let mut net = Net::new(4, &config(1500));
            let mut fates = Rng::new(seed + 1000);
            net.fate = Box::new(move |_| {
                let mut copies = Vec::new();
                if !fates.chance(loss) {
                    copies.push(Nanos::from_nanos(fates.below(50_000)));
                }
                if fates.chance(0.01) {
                    copies.push(Nanos::from_micros(fates.below(20_000)));
                }
                copies
            });
            let mut ids = Vec::new();
            for _ in 0..60 {
                let from = rng.below(4) as usize;
                let to = (from + 1 + rng.below(3) as usize) % 4;
                let len = match rng.below(10) {
                    0 => 1 + rng.below(300_000) as usize,
                    1..4 => 1 + rng.below(60_000) as usize,
                    _ => 1 + rng.below(3_000) as usize,
                };
                // At least eight bytes, so that the server can tell requests apart.
                ids.push(net.call(from, to, len.max(8)));
                net.run_for(Nanos::from_micros(rng.below(500)));
            }
            net.run_for(Nanos::from_secs(20));
            let context = format!("seed {seed}, loss {loss}");
            assert_eq!(net.done.len() + net.failed.len(), ids.len(), "{context}: each call ends one way");
            assert!(net.failed.is_empty(), "{context}: {:?}", net.failed);
            net.assert_settled(&context);
        }
    }
}

#[test]
fn grants_that_arrive_out_of_order_change_nothing() {
    let mut rng = Rng::new(3);
    let mut net = Net::new(2, &config(1500));
    net.fate = Box::new(move |sent| {
        let late = if sent.kind == Kind::Grant { rng.below(200_000) } else { 0 };
        vec![Nanos::from_nanos(late)]
    });
    let id = net.call(0, 1, 1_000_000);
    net.run_for(Nanos::from_secs(1));
    assert!(net.done.contains_key(&id));
    assert!(net.hosts[0].metrics.stale_grants > 0, "the test did reorder them");
    assert_eq!(net.hosts[0].metrics.resent_packets, 0);
    net.assert_settled("reordered grants");
}

#[test]
fn a_receiver_never_has_more_than_max_incoming_on_the_way() {
    let config = Config { grant_fifo_fraction: 0, ..config(1500) };
    let limit = config.max_incoming as u64;
    let mut net = Net::new(9, &config);
    net.response_len = Some(1);
    for client in 0..8 {
        net.call(client, 8, 900_000);
    }
    // What each client may send (the highest grant) less what it has sent, from the packets themselves.
    let granted = std::rc::Rc::new(std::cell::RefCell::new(([40_000_u64; 8], [0_u64; 8], 0_u64)));
    let shared = granted.clone();
    net.fate = Box::new(move |sent| {
        let mut state = shared.borrow_mut();
        match sent.packet {
            Packet::Grant(grant) if sent.from == 8 => state.0[sent.to] = state.0[sent.to].max(grant.offset.into()),
            Packet::Data(data) if sent.to == 8 => state.1[sent.from] += data.bytes.len() as u64,
            _ => {}
        }
        let ahead: u64 = (0..8).map(|i| state.0[i].saturating_sub(state.1[i])).sum();
        state.2 = state.2.max(ahead);
        vec![Nanos::ZERO]
    });
    net.run_for(Nanos::from_secs(2));
    assert_eq!(net.done.len(), 8);
    let most = granted.borrow().2;
    assert!(most <= limit && most > limit / 2, "at most {most} bytes granted and not sent, limit {limit}");
    net.assert_settled("max_incoming");
}

#[test]
fn a_restarted_client_with_other_ids_is_served_afresh() {
    let mut configs = vec![config(1500); 2];
    configs[0].first_id = 1 << 40;
    let mut net = Net::with(configs);
    net.call(0, 1, 100);
    net.run_for(Nanos::from_micros(100));
    let mut reborn = homa_stack::Endpoint::new(Config { first_id: 1 << 41, ..config(1500) });
    reborn.bind(net::PORT).unwrap();
    net.hosts[0] = reborn;
    net.hosts[0].client_port().unwrap();
    let id = net.call(0, 1, 100);
    net.run_for(Nanos::from_secs(1));
    assert!(net.done.contains_key(&id));
    net.assert_settled("restart");
}

#[test]
fn a_resend_for_nothing_received_asks_for_everything() {
    let mut net = Net::new(2, &config(1500));
    let asked = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let seen = asked.clone();
    net.fate = Box::new(move |sent| {
        if let Packet::Resend(resend) = sent.packet {
            seen.borrow_mut().push((sent.from, *resend));
        }
        if sent.serial == 0 { vec![] } else { vec![Nanos::ZERO] }
    });
    let id = net.call(0, 1, 100);
    net.run_for(Nanos::from_millis(50));
    assert!(net.done.contains_key(&id));
    let (from, resend) = asked.borrow()[0];
    assert_eq!((from, resend.offset, resend.length, resend.priority), (0, 0, RESEND_ALL, 7));
    assert_eq!(net.count(Kind::RpcUnknown), 1, "the server had never heard of it");
    assert_eq!(net.hosts[0].metrics.resend_restarts, 1);
    assert!(net.now >= Instant::from_nanos(1_000_000));
    net.assert_settled("restart after RPC_UNKNOWN");
}
