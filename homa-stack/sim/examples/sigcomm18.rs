//! Slowdowns of the SIGCOMM 2018 study: `cargo run --release -p homa-sim --example sigcomm18 -- w4 0.8 20`, the last the
//! milliseconds that count. After the milliseconds of warm-up, `all` prints all bins of the published curve, `tails` has the
//! last packets of long messages go first as in the study's simulator.

use homa_sim::Time;
use homa_sim::sigcomm18::{Study, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is wrong with the arguments.
fn usage(what: &str) -> ! {
    eprintln!("{what}; usage: sigcomm18 WORKLOAD LOAD MILLISECONDS [WARM-UP] [all] [tails]: w1 to w5, 0.5 or 0.8");
    std::process::exit(2)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let given = |i: usize| args.get(i).map_or("", String::as_str);
    let number = |i: usize| given(i).parse::<f64>().unwrap_or_else(|_| usage(&format!("`{}` is no number", given(i))));
    let workload = ["w1", "w2", "w3", "w4", "w5"].into_iter().find(|name| *name == given(0));
    let workload = workload.unwrap_or_else(|| usage(&format!("`{}` is no workload", given(0))));
    let (load, ms) = (number(1), number(2));
    let warmup = if args.len() > 3 { number(3) } else { ms / 2.0 };
    let time = |ms: f64| Time::from_nanos((ms * 1e6) as u64);
    let has = |word: &str| args.iter().skip(4).any(|arg| arg == word);
    let begin = std::time::Instant::now();
    let out =
        run(&Study { load, workload, urgent_tails: has("tails"), seed: 1, warmup: time(warmup), measure: time(ms) });
    let wall = begin.elapsed().as_secs_f64();
    let (packets, busy, unfinished) = (out.packets, out.busy, out.unfinished);
    println!("{workload} {load}: {packets} packets in {wall:.1} s, links busy {busy:.3}, {unfinished} unfinished");
    println!("   length  messages   P50 published        P99 published");
    let (mut below, mut decile) = (0.0, 1);
    for bin in &out.bins {
        let published = &bin.published;
        below += published.fraction;
        let closes = below >= f64::from(decile) / 10.0 - 1e-4;
        decile += i32::from(closes);
        if closes || has("all") {
            let off = |found: f64, published: f64| 100.0 * (found / published - 1.0);
            println!(
                "{:9} {:7} {:6.2} {:6.2} {:+5.0} %  {:6.2} {:6.2} {:+5.0} %",
                published.len,
                bin.pooled,
                bin.p50,
                published.p50,
                off(bin.p50, published.p50),
                bin.p99,
                published.p99,
                off(bin.p99, published.p99)
            );
        }
    }
}
