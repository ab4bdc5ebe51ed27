//! Slowdowns of the SIGCOMM 2018 study: `cargo run --release -p homa-sim --example sigcomm18 -- w4 0.8 20`, the last the
//! milliseconds that count. After the milliseconds of warm-up there may be words:
//!
//! | word | |
//! | --- | --- |
//! | `all` | all bins of the published curve |
//! | `tails` | the last packets of long messages go first, as in the study's simulator |
//! | `seed=N` | other random numbers |
//! | `groups=N,...` | in addition, the mean of the P99s of messages taken N at a time, and the percentile of ours that the published P99 is |
//! | `waits` | what the slowest twentieth of messages of some lengths waited for |
//! | `order=NAME` | receivers grant by another order: `missing`, `ungranted`, `whole`, `one-per-sender` |
//! | `paced` | receivers grant no faster than what they grant would come |
//! | `balanced` | hosts send to all others in turn |
//! | `cut` | messages that have not arrived when the measured time is over do not count |
//! | `window=BYTES` | granted ahead |

use homa_sim::Time;
use homa_sim::sigcomm18::{Order, Study, Variant, run_attributed};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lengths whose waits are told, in bytes.
const OF: [(u32, u32); 3] = [(150_000, 400_000), (850_000, 1_250_000), (4_000_000, 5_000_000)];

/// What is wrong with the arguments.
fn usage(what: &str) -> ! {
    eprintln!(
        "{what}; usage: sigcomm18 WORKLOAD LOAD MILLISECONDS [WARM-UP] [all] [tails] [seed=N] [groups=N,...] [waits] \
         [order=missing|ungranted|whole|one-per-sender] [paced] [balanced] [cut] [window=BYTES]: w1 to w5, 0.5 or 0.8"
    );
    std::process::exit(2)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let given = |i: usize| args.get(i).map_or("", String::as_str);
    let number = |text: &str| text.parse::<f64>().unwrap_or_else(|_| usage(&format!("`{text}` is no number")));
    let workload = ["w1", "w2", "w3", "w4", "w5"].into_iter().find(|name| *name == given(0));
    let workload = workload.unwrap_or_else(|| usage(&format!("`{}` is no workload", given(0))));
    let (load, ms) = (number(given(1)), number(given(2)));
    let warmup = if args.len() > 3 { number(given(3)) } else { ms / 2.0 };
    let time = |ms: f64| Time::from_nanos((ms * 1e6) as u64);
    let mut study = Study { load, workload, urgent_tails: false, seed: 1, warmup: time(warmup), measure: time(ms) };
    let (mut variant, mut of, mut all, mut groups) = (Variant::default(), &OF[..0], false, Vec::new());
    for word in args.iter().skip(4) {
        match word.split_once('=').unwrap_or((word, "")) {
            ("all", "") => all = true,
            ("tails", "") => study.urgent_tails = true,
            ("seed", seed) => study.seed = number(seed) as u64,
            ("groups", sizes) => groups = sizes.split(',').map(|size| number(size) as usize).collect(),
            ("waits", "") => of = &OF,
            ("paced", "") => variant.paced = true,
            ("balanced", "") => variant.balanced = true,
            ("cut", "") => variant.cut = true,
            ("window", bytes) => variant.window = Some(number(bytes) as usize),
            ("order", "missing") => variant.order = Some(Order::Missing),
            ("order", "ungranted") => variant.order = Some(Order::Ungranted),
            ("order", "whole") => variant.order = Some(Order::Whole),
            ("order", "one-per-sender") => variant.order = Some(Order::OnePerSender),
            _ => usage(&format!("`{word}` is not known")),
        }
    }
    let begin = std::time::Instant::now();
    let out = run_attributed(&study, variant, of);
    let wall = begin.elapsed().as_secs_f64();
    let (packets, busy, unfinished) = (out.packets, out.busy, out.unfinished);
    println!("{workload} {load}: {packets} packets in {wall:.1} s, links busy {busy:.3}, {unfinished} unfinished");
    print!("   length  messages  mean published        P50 published        P99 published     ");
    println!("{}", groups.iter().map(|size| format!("   of groups of {size:<8}")).collect::<String>());
    let (mut below, mut decile) = (0.0, 1);
    for bin in &out.bins {
        let published = &bin.published;
        below += published.fraction;
        let closes = below >= f64::from(decile) / 10.0 - 1e-4;
        decile += i32::from(closes);
        if !closes && !all {
            continue;
        }
        let off = |found: f64, published: f64| 100.0 * (found / published - 1.0);
        print!("{:9} {:7}", published.len, bin.pooled);
        let pairs = [(bin.mean, published.mean), (bin.p50, published.p50), (bin.p99, published.p99)];
        let pairs = pairs.into_iter().chain(groups.iter().map(|size| (bin.p99_of_groups(*size), published.p99)));
        for (found, published) in pairs {
            print!("  {found:6.2} {published:6.2} {:+4.0} %", off(found, published));
        }
        if !groups.is_empty() {
            let below = bin.slowdowns.iter().filter(|found| f64::from(**found) <= published.p99).count();
            print!("  P{:.1}", 100.0 * below as f64 / bin.pooled.max(1) as f64);
        }
        println!();
    }
    for found in &out.waits {
        let [sender, receiver, both, neither] = found.shares.map(|share| 100.0 * share);
        println!(
            "{} to {} bytes, slowest {} of {}: {:.0} us too long; with others busy: sender's link {:.0} us, \
             receiver's {:.0} us; cause: sender {sender:.0} %, receiver {receiver:.0} %, each {both:.0} %, \
             neither {neither:.0} %",
            found.lens.0,
            found.lens.1,
            found.messages.1,
            found.messages.0,
            found.excess_us,
            found.sender_us,
            found.receiver_us,
        );
    }
}
