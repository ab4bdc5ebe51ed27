//! Packets delivered end to end per second of one core: each through its host's protocol, a switch and the links, on the
//! echoed messages of w4 at 80 % of 25 Gbit/s.
//!
//! A run is `cluster::run`, all included: making the hosts, warming up, measuring, collecting. Grants and other control
//! packets are packets too. Wall-clock time, single thread; each number of nodes is run in turn, the best of the rounds
//! counts, all are shown. For few nodes more time is simulated, so that each run delivers about as many packets.
//!
//! `cargo bench -p homa-sim --bench cluster -- [ROUNDS [NODES...]]`

use std::ops::ControlFlow;
use std::time::Instant;

use homa_sim::Time;
use homa_sim::cluster::{ClusterSpec, StopRule, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args: Vec<u32> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let (rounds, sizes) = args.split_first().map_or((3, &[][..]), |(rounds, sizes)| (*rounds, sizes));
    let sizes = if sizes.is_empty() { &[10, 40, 160][..] } else { sizes };
    let mut best = vec![f64::INFINITY; sizes.len()];
    println!("nodes  packets  events/packet  virtual_ms  wall_s  ns/packet  Mpackets/s  in_gbps");
    for _ in 0..rounds {
        for (index, nodes) in sizes.iter().copied().enumerate() {
            let virtual_time = Time::from_micros(4_000_000 / u64::from(nodes));
            let spec = ClusterSpec {
                warmup: Time::from_micros(virtual_time.as_picos() / 10_000_000),
                stop: StopRule::After(virtual_time),
                ..ClusterSpec::rack(nodes)
            };
            let begin = Instant::now();
            let done = run(&spec, &mut |_| ControlFlow::Continue(())).expect("the specification is right");
            let wall = begin.elapsed().as_secs_f64();
            let per_packet = wall * 1e9 / done.packets as f64;
            best[index] = best[index].min(per_packet);
            println!(
                "{nodes:5} {:8} {:14.2} {:11.1} {wall:7.2} {per_packet:10.1} {:11.3} {:8.2}",
                done.packets,
                done.events as f64 / done.packets as f64,
                done.end.as_micros_f64() / 1e3,
                1e3 / per_packet,
                done.in_gbps,
            );
        }
    }
    for (nodes, per_packet) in sizes.iter().zip(&best) {
        println!(
            "best of {rounds}, {nodes} nodes: {per_packet:.1} ns a packet, {:.3} of the first",
            per_packet / best[0]
        );
    }
}
