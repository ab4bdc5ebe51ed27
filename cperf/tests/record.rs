//! `tthoma record` under TCP between two namespaces, against the kernel's own counters, and what it leaves behind.
//!
//! The kernel's tracing belongs to root of the machine: without that, these tests say so and check nothing.

mod veth;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cperf::testbed::netns::Netns;
use tthoma::analyze::{self, Run};
use tthoma::event::Kind;
use tthoma::record::{End, Kernel, Options, Summary};
use veth::{Check, on, v4};

const CHECKS: [(&str, Check); 3] = [
    ("softirqs_and_packets_agree_with_the_kernels_counters", agreement),
    ("a_small_ring_says_what_it_lost", loss),
    ("times_of_a_recording_are_readings_of_the_stacks_clock", same_clock),
];

fn main() -> ExitCode {
    if !fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
        || !rustix::process::geteuid().is_root()
    {
        println!("not root of the machine: the kernel can't be recorded here, nothing was checked");
        return ExitCode::SUCCESS;
    }
    veth::run(2, &CHECKS)
}

/// Records while one host streams to the other for half a second; the summary, what analyses say, and the trace.
fn record(net: &Netns, options: &Options) -> Result<(Summary, Run, Vec<tthoma::event::Record>), String> {
    let kernel = Kernel::open().map_err(|e| e.to_string())?;
    let path = std::env::temp_dir().join(format!("cperf-record-{}.tt", std::process::id()));
    let listener =
        on(net, 1, || TcpListener::bind(SocketAddr::new(v4(net)[1], 5000)).map_err(|e| format!("listening: {e}")))?;
    let stop = AtomicBool::new(false);
    let summary = std::thread::scope(|scope| {
        let server = scope.spawn(|| drain(&listener));
        let client = scope.spawn(|| on(net, 0, || send(SocketAddr::new(v4(net)[1], 5000), &stop)));
        let recorded = (|| {
            let mut recording = kernel.start(options)?;
            let start = Instant::now();
            let end = recording.run(|| start.elapsed() > Duration::from_millis(500))?;
            recording.finish(end, &path)
        })();
        stop.store(true, Ordering::Relaxed);
        client.join().map_err(|_| "the sender panicked".to_string())??;
        server.join().map_err(|_| "the receiver panicked".to_string())??;
        recorded.map_err(|e| e.to_string())
    })?;
    let traces = tthoma::read::read(std::slice::from_ref(&path)).map_err(|e| e.to_string());
    let run =
        analyze::run(&["softirq-delay", "softirq-backlog"], std::slice::from_ref(&path), &analyze::Options::default());
    fs::remove_file(path).map_err(|e| e.to_string())?;
    let trace = traces?.remove(0);
    let problems = trace.stats.problems();
    if !problems.is_empty() || trace.stats.unrecognised > 0 {
        return Err(format!("the trace is not understood: {problems:?} {:?}", trace.stats.shapes));
    }
    nothing_left()?;
    Ok((summary, run.map_err(|e| e.to_string())?, trace.records.clone()))
}

fn send(to: SocketAddr, stop: &AtomicBool) -> Result<(), String> {
    let mut stream = TcpStream::connect(to).map_err(|e| format!("connecting: {e}"))?;
    let bytes = vec![7; 16_384];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&bytes).map_err(|e| format!("sending: {e}"))?;
    }
    Ok(())
}

fn drain(listener: &TcpListener) -> Result<(), String> {
    let (mut stream, _) = listener.accept().map_err(|e| format!("accepting: {e}"))?;
    let mut bytes = vec![0; 65_536];
    while stream.read(&mut bytes).map_err(|e| format!("receiving: {e}"))? > 0 {}
    Ok(())
}

/// No instance of this process is left in the kernel.
fn nothing_left() -> Result<(), String> {
    let own = format!("tthoma-{}-", std::process::id());
    let places = ["/sys/kernel/tracing/instances", "/sys/kernel/debug/tracing/instances"].map(PathBuf::from);
    let mut names = places.iter().filter_map(|p| fs::read_dir(p).ok()).flatten().flatten().map(|e| e.file_name());
    match names.find(|name| name.to_string_lossy().starts_with(&own)) {
        Some(name) => Err(format!("{} is left in the kernel", name.to_string_lossy())),
        None => Ok(()),
    }
}

fn agreement(net: &Netns) -> Result<(), String> {
    let (summary, run, records) = record(net, &Options::default())?;
    let expect = |what: bool, why: String| if what { Ok(()) } else { Err(why) };
    expect(summary.lost == 0 && summary.end == End::Done, format!("{} events lost", summary.lost))?;
    expect(summary.missing_events.is_empty(), format!("missing: {:?}", summary.missing_events))?;
    let mut packets = 0;
    for core in &summary.cores {
        expect(core.net_rx.agrees(core.counted.net_rx), format!("NET_RX: {core:?}"))?;
        expect(core.net_tx.agrees(core.counted.net_tx), format!("NET_TX: {core:?}"))?;
        expect(core.processed.agrees(core.counted.processed), format!("packets: {core:?}"))?;
        packets += core.counted.processed;
    }
    expect(packets > 1000, format!("only {packets} packets under load"))?;
    // The file has what the summary counts, and each backlogged packet is received once, later.
    let count = |kind| records.iter().filter(|r| r.kind == kind).count() as u64;
    let least: u64 = summary.cores.iter().map(|c| c.processed.least).sum();
    expect(count(Kind::KernelReceive) >= least, format!("{} received, {least} counted", count(Kind::KernelReceive)))?;
    let mut queued = BTreeMap::new();
    let mut waited = 0;
    for record in &records {
        match record.kind {
            Kind::KernelBacklog => drop(queued.insert(record.a, record.time)),
            Kind::KernelReceive => waited += u64::from(queued.remove(&record.a).is_some()),
            _ => {}
        }
    }
    let backlogged = count(Kind::KernelBacklog);
    expect(
        backlogged > 1000 && waited + 300 > backlogged,
        format!("{waited} of {backlogged} packets left the backlog"),
    )?;
    figures(&run, &records)
}

/// The analyses have a sample for each event that the kernel counted.
fn figures(run: &Run, records: &[tthoma::event::Record]) -> Result<(), String> {
    let table = |analysis: &str, name: &str| {
        run.report(analysis).and_then(|r| r.table(name)).ok_or_else(|| format!("no {name} in {}", run.to_text()))
    };
    let (kernel, phases, cores) =
        (table("softirq-delay", "kernel")?, table("softirq-delay", "phases")?, table("softirq-backlog", "cores")?);
    let node = &run.nodes[0].node;
    let count = |table: &analyze::Table, start: &[&str], key| {
        let row = table.find(start).ok_or_else(|| format!("no {start:?} in {}", table.to_text()))?;
        table.get(row, key).number().ok_or_else(|| format!("no {key} in {}", table.to_text()))
    };
    let runs =
        count(kernel, &[node, "NET_RX", "Raise"], "count")? + count(kernel, &[node, "NET_RX", "Again"], "count")?;
    let begun = records.iter().filter(|r| r.kind == Kind::KernelBegin && r.a == 3).count() as f64;
    if runs != begun || begun < 100.0 {
        return Err(format!("{runs} runs of NET_RX, {begun} begun"));
    }
    let waits = count(phases, &[node, "kernel", "Total"], "count")?;
    let queued: f64 = (0..cores.rows.len())
        .filter(|row| !matches!(&*cores.get(*row, "core").plain(), "all"))
        .filter_map(|row| cores.get(row, "pkts").number())
        .sum();
    // What still waits at the end is in a queue, but has no delay.
    if waits > queued || waits + 300.0 < queued {
        return Err(format!("{waits} packets with a delay, {queued} in queues"));
    }
    let longest = count(phases, &[node, "kernel", "Total"], "max_us")?;
    let oldest = (0..cores.rows.len()).filter_map(|row| cores.get(row, "max_age_us").number()).fold(0.0, f64::max);
    if oldest < longest { Err(format!("waited {longest} us, but the oldest was {oldest} us")) } else { Ok(()) }
}

fn loss(net: &Netns) -> Result<(), String> {
    // Rings of two pages overflow between two looks at them.
    let (summary, _, records) = record(net, &Options { ring_kb: 8, ..Options::default() })?;
    if summary.lost == 0 {
        return Err("rings of 8 KB lost nothing: the load is too small to test this".into());
    }
    let told = records.iter().filter(|r| r.kind == Kind::KernelLost).count();
    if told == 0 { Err(format!("{} events lost, and the trace does not say where", summary.lost)) } else { Ok(()) }
}

/// The kernel's events of a packet lie between two readings of the clock of time traces, before and after it was sent.
fn same_clock(net: &Netns) -> Result<(), String> {
    // Packets of lengths that nobody else sends.
    const LENGTHS: std::ops::Range<usize> = 700..760;
    let kernel = Kernel::open().map_err(|e| e.to_string())?;
    let path = std::env::temp_dir().join(format!("cperf-record-clock-{}.tt", std::process::id()));
    let read = homa_stack::driver::counter();
    let options = Options::default();
    let mut recording = kernel.start(&options).map_err(|e| e.to_string())?;
    let mut sent = Vec::new();
    on(net, 0, || {
        let socket = UdpSocket::bind(SocketAddr::new(v4(net)[0], 0)).map_err(|e| e.to_string())?;
        for length in LENGTHS {
            let before = read();
            socket.send_to(&vec![7; length], SocketAddr::new(v4(net)[1], 9)).map_err(|e| e.to_string())?;
            sent.push((length, before, read()));
        }
        Ok(())
    })?;
    // The last packets may still be on their way when the clock was read after them.
    let start = Instant::now();
    let end = recording.run(|| start.elapsed() > Duration::from_millis(50)).map_err(|e| e.to_string())?;
    recording.finish(end, &path).map_err(|e| e.to_string())?;
    let text = fs::read_to_string(&path).map_err(|e| e.to_string())?;
    fs::remove_file(&path).map_err(|e| e.to_string())?;
    let word = |after: &str| {
        let rest = &text[text.find(after)? + after.len()..];
        rest.split([' ', ')', '\n']).next()?.parse::<f64>().ok()
    };
    let (first, rate) = word("First event has timestamp ")
        .zip(word("(cpu_ghz "))
        .ok_or_else(|| format!("no clock in {}", text.lines().next().unwrap_or("an empty trace")))?;
    let mut found = 0;
    for (length, before, after) in sent {
        // IP and UDP headers.
        let event = format!("length {}, ", length + 28);
        let line = text.lines().find(|l| l.contains("kernel backlog gets") && l.contains(&event));
        let Some(us) = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok()) else { continue };
        let ticks = first + us * 1000.0 * rate;
        // Lines have 3 decimals, the rate of the counter some parts in a million over less than a second.
        let slack = 5_000.0 * rate;
        if ticks + slack < before as f64 {
            let early = (before as f64 - ticks) / rate;
            return Err(format!("{length} bytes: in the kernel {early} ns before they were sent"));
        }
        // Those that wait for the neighbour's address are late.
        found += usize::from(ticks <= after as f64 + slack);
    }
    if found < LENGTHS.len() / 2 {
        Err(format!("only {found} of {} packets have times at which they were sent", LENGTHS.len()))
    } else {
        Ok(())
    }
}
