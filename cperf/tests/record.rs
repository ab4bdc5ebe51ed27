//! `tthoma record` under TCP between two namespaces, against the kernel's own counters, and what it leaves behind.
//!
//! The kernel's tracing belongs to root of the machine: without that, these tests say so and check nothing.

mod veth;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cperf::testbed::Testbed;
use cperf::testbed::netns::Netns;
use tthoma::event::Kind;
use tthoma::record::{End, Kernel, Options, Summary};
use veth::{Check, on, v4};

const CHECKS: [(&str, Check); 2] = [
    ("softirqs_and_packets_agree_with_the_kernels_counters", agreement),
    ("a_small_ring_says_what_it_lost", loss),
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

/// Records while one host streams to the other for half a second; the summary and the trace.
fn record(net: &Netns, options: &Options) -> Result<(Summary, Vec<tthoma::event::Record>), String> {
    let kernel = Kernel::open().map_err(|e| e.to_string())?;
    let path = std::env::temp_dir().join(format!("cperf-record-{}.tt", std::process::id()));
    let listener = on(net, 1, || {
        TcpListener::bind(SocketAddr::new(v4(net)[1], 5000)).map_err(|e| format!("listening: {e}"))
    })?;
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
    let traces = tthoma::read::read(&[path.clone()]).map_err(|e| e.to_string());
    fs::remove_file(path).map_err(|e| e.to_string())?;
    let trace = traces?.remove(0);
    let problems = trace.stats.problems();
    if !problems.is_empty() || trace.stats.unrecognised > 0 {
        return Err(format!("the trace is not understood: {problems:?} {:?}", trace.stats.shapes));
    }
    nothing_left()?;
    Ok((summary, trace.records.clone()))
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
    let (summary, records) = record(net, &Options::default())?;
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
    expect(backlogged > 1000 && waited + 300 > backlogged, format!("{waited} of {backlogged} packets left the backlog"))
}

fn loss(net: &Netns) -> Result<(), String> {
    // Rings of two pages overflow between two looks at them.
    let (summary, records) = record(net, &Options { ring_kb: 8, ..Options::default() })?;
    if summary.lost == 0 {
        return Err("rings of 8 KB lost nothing: the load is too small to test this".into());
    }
    let told = records.iter().filter(|r| r.kind == Kind::KernelLost).count();
    if told == 0 { Err(format!("{} events lost, and the trace does not say where", summary.lost)) } else { Ok(()) }
}
