//! What a time-trace event costs: `cargo bench -p homa-stack --bench trace`.
//!
//! Takes turns between recording and reading the clock alone, which is the floor, and prints the median of the
//! rounds with their spread.

use std::hint::black_box;
use std::time::Instant;

use homa_stack::trace::{Clock, Event, Recorder};

const ROUNDS: usize = 21;
const EVENTS: u32 = 2_000_000;

fn main() {
    let counter = homa_stack::driver::counter();
    let (mut clock, mut record, mut also) = (Vec::new(), Vec::new(), Vec::new());
    let mut recorder = Recorder::new(1 << 16, Clock::Counter(counter), 0);
    for _ in 0..ROUNDS {
        clock.push(nanos_each(|_| {
            black_box(counter());
        }));
        record.push(nanos_each(|id| {
            recorder.record(Event::SoftirqData { id: black_box(id), peer: 0x0a00_0001, offset: 1424, length: 5000 });
        }));
        also.push(nanos_each(|id| recorder.record_also(Event::SendmsgDone { id: black_box(id) })));
    }
    assert!(recorder.records().count() == 1 << 16, "the events were recorded");
    println!("{ROUNDS} rounds of {EVENTS} events, ns each       P50     min     max");
    for (what, samples) in [("clock reading alone", clock), ("event", record), ("event at the time of the last", also)]
    {
        print(what, samples);
    }
}

fn nanos_each(mut step: impl FnMut(u32)) -> f64 {
    let start = Instant::now();
    for id in 0..EVENTS {
        step(id);
    }
    start.elapsed().as_nanos() as f64 / f64::from(EVENTS)
}

fn print(what: &str, mut samples: Vec<f64>) {
    samples.sort_by(f64::total_cmp);
    let last = samples.len() - 1;
    println!("{what:40} {:7.2} {:7.2} {:7.2}", samples[last / 2], samples[0], samples[last]);
}
