//! How evenly RPCs come to the workers of a host: `cargo bench -p homa-stack --bench steering`.
//!
//! Requests that are under way at one time, 64 and 1024, from clients whose ids are in sequence, at random, or all of
//! one worker of a client that is split, steered to 2, 3, 4 and 8 workers: by the id, which is what the kernel and the
//! endpoints do; by a mixing hash of client and id; by a hash of addresses and ports, as NICs do. Shown is the load of
//! the busiest worker over the mean, 1 being even: mean and worst of 1000 draws. Nothing is timed: the figures are the
//! same on any machine.

use std::net::Ipv4Addr;

use homa_stack::proto::{Shard, Target};
use homa_stack::wire::{Data, Ends, OffsetForm};

const DRAWS: usize = 1000;
const PORT: u16 = 99;

/// A request's first packet, and who sent it.
struct Request {
    client: u32,
    ends: Ends,
    bytes: Vec<u8>,
}

/// Random numbers from a seed (splitmix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }
}

fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn request(client: u32, id: u64) -> Request {
    let sport = 32_768 + (client % 4) as u16;
    let ends = Ends { sport, dport: PORT, sender_id: id & !1 };
    let data = Data {
        message_len: 100,
        incoming: 100,
        ack: None,
        cutoff_version: 1,
        retransmit: false,
        offset: 0,
        form: OffsetForm::Both,
        bytes: &[],
    };
    let mut bytes = vec![0; 1500];
    data.write_header(ends, &mut bytes);
    Request { client: Ipv4Addr::new(10, 0, 0, 1).to_bits() + client, ends, bytes }
}

type Draw = fn(&mut Rng, usize) -> Vec<Request>;

/// Successive calls of one client.
fn sequential(rng: &mut Rng, n: usize) -> Vec<Request> {
    let first = rng.next();
    (0..n as u64).map(|i| request(0, first.wrapping_add(2 * i))).collect()
}

/// Successive calls of ten clients, as many of each as chance has it.
fn ten_clients(rng: &mut Rng, n: usize) -> Vec<Request> {
    let mut next: Vec<_> = (0..10).map(|_| rng.next()).collect();
    let mut one = |_| {
        let client = (rng.next() % 10) as usize;
        next[client] = next[client].wrapping_add(2);
        request(client as u32, next[client])
    };
    (0..n).map(&mut one).collect()
}

/// Ids without any order: of clients that have many calls, of which any may still be under way.
fn random(rng: &mut Rng, n: usize) -> Vec<Request> {
    (0..n).map(|_| request((rng.next() % 10) as u32, rng.next())).collect()
}

/// Successive calls of the first of two workers of a client, the other being idle.
fn half_a_client(rng: &mut Rng, n: usize) -> Vec<Request> {
    let first = rng.next() & !3;
    (0..n as u64).map(|i| request(0, first.wrapping_add(4 * i))).collect()
}

type Steer = fn(&Request, u32) -> u32;

fn by_id(request: &Request, workers: u32) -> u32 {
    let shard = Shard::new(0, workers).expect("there are workers");
    let Target::One(worker) = shard.of_packet(&request.bytes) else { panic!("data are for one") };
    worker
}

fn by_client_and_id(request: &Request, workers: u32) -> u32 {
    (mixed(request.ends.sender_id ^ mixed(request.client.into())) % u64::from(workers)) as u32
}

fn by_flow(request: &Request, workers: u32) -> u32 {
    let flow = u64::from(request.client) << 32 | u64::from(request.ends.sport) << 16 | u64::from(request.ends.dport);
    (mixed(flow) % u64::from(workers)) as u32
}

/// Mean and worst of the busiest worker's load over the mean.
fn balance(draw: Draw, n: usize, steer: Steer, workers: u32) -> (f64, f64) {
    let mut rng = Rng(7);
    let (mut sum, mut worst) = (0.0, 0.0_f64);
    for _ in 0..DRAWS {
        let mut loads = vec![0; workers as usize];
        draw(&mut rng, n).iter().for_each(|request| loads[steer(request, workers) as usize] += 1);
        let busiest = loads.iter().max().copied().unwrap_or(0);
        let ratio = f64::from(busiest) * f64::from(workers) / n as f64;
        sum += ratio;
        worst = worst.max(ratio);
    }
    (sum / DRAWS as f64, worst)
}

fn main() {
    let draws: [(&str, Draw); 4] = [
        ("a client's calls in sequence", sequential),
        ("ten clients', in sequence", ten_clients),
        ("random ids", random),
        ("of one of a client's 2 workers", half_a_client),
    ];
    let steers: [(&str, Steer); 3] =
        [("id", by_id), ("hash of client, id", by_client_and_id), ("hash of flow", by_flow)];
    println!("load of the busiest worker over the mean, of {DRAWS} draws   mean worst");
    print!("{:52}", "");
    steers.iter().for_each(|(name, _)| print!(" {name:>18}"));
    println!();
    for (what, draw) in draws {
        for n in [64, 1024] {
            for workers in [2, 3, 4, 8] {
                print!("{:52}", format!("{what}, {n} under way, {workers} workers"));
                for (_, steer) in steers {
                    let (mean, worst) = balance(draw, n, steer, workers);
                    print!(" {:>18}", format!("{mean:.2} {worst:.2}"));
                }
                println!();
            }
        }
    }
}
