//! Fault simulation of the protocol core: each seed is a run of its own, with hosts, calls and faults drawn from it.
//!
//! In virtual time, without randomness but the seed's: packets are lost, duplicated, reordered, late by up to 5 s, cut
//! off and forged by strangers; hosts begin anew without memory or do nothing for up to a second; applications are
//! slow, keep messages, give up. After each step the host that took it is checked (`Endpoint::check_invariants` and
//! `World::check`): sums are exact, state is bounded, no request runs twice in a life of its server, each message
//! arrives intact or its call fails. When nothing is due any more each call has ended one way and nothing is left.
//!
//! ```text
//! cargo test -p homa-stack --test faults                                     10,000 seeds
//! HOMA_FAULT_SEEDS=1000000 cargo test --release -p homa-stack --test faults  the long form
//! HOMA_FAULT_SEED=1234 cargo test -p homa-stack --test faults -- --nocapture replays a seed, with all that happens
//! ```
#![allow(unreachable_pub, reason = "a test is a crate of its own")]

mod app;
#[path = "../net/mod.rs"]
mod net;
mod network;
mod plan;
mod tally;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use homa_stack::proto::Planted;
use tally::Tally;

/// Seeds of a run without `HOMA_FAULT_SEEDS`.
const SEEDS: u64 = 10_000;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: expected a number, found `{text}`")))
}

/// Runs a seed; a panic of the core is a violation like others.
fn run(seed: u64, planted: Option<Planted>) -> Result<Tally, String> {
    catch_unwind(AssertUnwindSafe(|| world::run(seed, planted, false))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("without a text")))
    })
}

/// Runs `seeds` on all cores; what happened in all, or the first violation found.
fn run_all(seeds: u64, planted: Option<Planted>) -> Result<Tally, (u64, String)> {
    let (next, stop) = (AtomicU64::new(1), AtomicBool::new(false));
    let (sum, found) = (Mutex::new(Tally::default()), Mutex::new(None));
    let work = || {
        let mut own = Tally::default();
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > seeds {
                break;
            }
            match run(seed, planted) {
                Ok(tally) => own.add(&tally),
                Err(violation) => {
                    stop.store(true, Ordering::Relaxed);
                    found.lock().unwrap().get_or_insert((seed, violation));
                }
            }
        }
        sum.lock().unwrap().add(&own);
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| _ = scope.spawn(work));
        work();
    });
    found.into_inner().unwrap().map_or_else(|| Ok(sum.into_inner().unwrap()), Err)
}

#[test]
fn no_seed_violates_an_invariant() {
    if let Some(seed) = variable("HOMA_FAULT_SEED") {
        match world::run(seed, None, true) {
            Ok(tally) => println!("seed {seed}: {tally:#?}"),
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
        return;
    }
    let seeds = variable("HOMA_FAULT_SEEDS").unwrap_or(SEEDS);
    let tally = run_all(seeds, None).unwrap_or_else(|(seed, violation)| {
        panic!("seed {seed}: {violation}\nreplay it with HOMA_FAULT_SEED={seed} and `--nocapture`")
    });
    println!("{seeds} seeds: {tally:#?}");
    // What was not met was not tested.
    if seeds >= SEEDS {
        for (count, what) in tally.all() {
            assert!(count > 0, "none in {seeds} seeds: {what}");
        }
        assert!(tally.answered > 2 * seeds, "few of the calls were answered: {tally:#?}");
    }
}

#[test]
fn planted_bugs_are_found() {
    let bugs =
        [Planted::Tombstones, Planted::DuplicateCheck, Planted::GrantClamp, Planted::LengthClamp, Planted::Steering];
    for bug in bugs {
        match run_all(SEEDS, Some(bug)) {
            Ok(_) => panic!("{bug:?} turned off was not found in {SEEDS} seeds"),
            Err((seed, violation)) => println!("{bug:?} turned off was found by seed {seed}: {violation}"),
        }
    }
}
