//! How fast traces are read and analysed, on a generated trace of two nodes in the kernel's words.
//!
//! `cargo bench -p tthoma` prints lines, bytes and MB/s; `cargo bench -p tthoma -- LINES ROUNDS` sets the size (lines of
//! each node, default 400,000) and the number of rounds (default 5). Files are in the page cache. One file is read by one
//! thread; two files are read by two, if there are two cores.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tthoma::analyze::{self, Options};
use tthoma::read;

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let lines = numbers.first().copied().unwrap_or(400_000);
    let rounds = numbers.get(1).copied().unwrap_or(5).max(1);
    let dir = std::env::temp_dir().join(format!("tthoma-bench-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("the temporary directory is writable");
    let files = write_traces(&dir, lines);
    let bytes: u64 = files.iter().map(|f| fs::metadata(f).expect("was just written").len()).sum();
    let one = fs::metadata(&files[0]).expect("was just written").len();
    println!("{} files, {bytes} bytes, {} lines, best of {rounds} rounds", files.len(), 2 * lines);
    let read_one = best(rounds, || read::read(&files[..1]).expect("the trace is good").len());
    line("read, 1 file", one, lines, read_one);
    let read_all = best(rounds, || read::read(&files).expect("the traces are good").len());
    line("read, 2 files", bytes, 2 * lines, read_all);
    let analyse = best(rounds, || {
        let report = analyze::run(&["delay"], &files, &Options::default()).expect("the traces are good");
        assert!(report.has_results());
        report.nodes.len()
    });
    line("analyze delay, 2 files", bytes, 2 * lines, analyse);
    fs::remove_dir_all(&dir).expect("was just created");
}

/// The shortest of `rounds` runs of `work`.
fn best(rounds: usize, mut work: impl FnMut() -> usize) -> Duration {
    let mut time = || {
        let start = Instant::now();
        assert!(std::hint::black_box(work()) > 0);
        start.elapsed()
    };
    (0..rounds).map(|_| time()).min().expect("at least one round")
}

fn line(what: &str, bytes: u64, lines: usize, time: Duration) {
    let seconds = time.as_secs_f64();
    println!(
        "{what:<24} {:>8.1} ms {:>8.0} MB/s {:>7.1} ns/line",
        seconds * 1e3,
        bytes as f64 / seconds / 1e6,
        seconds * 1e9 / lines as f64
    );
}

/// Messages of 100,000 bytes from node0 to node1 in packets of 1424 bytes, with all that the kernel logs about them.
fn write_traces(dir: &Path, lines: usize) -> Vec<PathBuf> {
    const MESSAGE: usize = 100_000;
    let (mut client, mut server) = (Log::default(), Log::default());
    let mut id = 1000;
    let mut now = 0.0;
    while client.lines < lines {
        client.add(now, format_args!("homa_sendmsg request, target 0xa4d0002:4000, id {id}, length {MESSAGE}"));
        for (i, offset) in (0..MESSAGE).step_by(1424).enumerate() {
            let (at, peer, len) = (now + 1.3 * i as f64, 1 + id, 1424.min(MESSAGE - offset));
            client.add(
                at,
                format_args!(
                    "calling ip_queue_xmit: wire_bytes {}, peer 0xa4d0002, id {id}, offset {offset}",
                    len + 118
                ),
            );
            client.add(
                at + 0.4,
                format_args!("Finished queueing packet: rpc id {id}, offset {offset}, len {len}, qid 0"),
            );
            let got = at + 20.0;
            server.add(
                got,
                format_args!("homa_gro_receive got packet from 0xa4d0001 id {peer}, offset {offset}, priority 4"),
            );
            server.add(
                got + 0.2,
                format_args!("incoming data packet, id {peer}, peer 0xa4d0001, offset {offset}/{MESSAGE}"),
            );
            if i % 4 == 0 {
                server.add(
                    got + 0.3,
                    format_args!("homa_grant_check_fifo granted {len} more bytes to id {peer}, granted now {offset}"),
                );
                server.add(
                    got + 0.4,
                    format_args!("sending grant for id {peer}, offset {}, priority 0, increment 5696", offset + 40_000),
                );
                client.add(
                    at + 1.0,
                    format_args!(
                        "homa_gro_receive got grant from 0xa4d0002 id {id}, offset {}, priority 7",
                        offset + 30_000
                    ),
                );
                client.add(
                    at + 1.1,
                    format_args!(
                        "processing grant for id {id}, offset {}, priority 0, increment 5696",
                        offset + 30_000
                    ),
                );
            }
        }
        // A small response, so that clocks can be synchronised.
        let back = now + 120.0;
        server
            .add(back, format_args!("calling ip_queue_xmit: wire_bytes 218, peer 0xa4d0001, id {}, offset 0", id + 1));
        client
            .add(back + 10.0, format_args!("homa_gro_receive got packet from 0xa4d0002 id {id}, offset 0, priority 6"));
        client.add(back + 11.0, format_args!("incoming data packet, id {id}, peer 0xa4d0002, offset 0/100"));
        client.add(back + 12.0, format_args!("reaped 1 skbs, 1 rpcs; 0 skbs remain for port 32774"));
        id += 2;
        now += 140.0;
    }
    let write = |(name, log): (&str, Log)| {
        let path = dir.join(name);
        fs::write(&path, log.text).expect("the temporary directory is writable");
        path
    };
    [("node0.tt", client), ("node1.tt", server)].map(write).into()
}

#[derive(Default)]
struct Log {
    text: String,
    lines: usize,
}

impl Log {
    fn add(&mut self, time: f64, message: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{time:9.3} us (+{:8.3} us) [C07] {message}", 0.25).expect("strings grow");
        self.lines += 1;
    }
}
