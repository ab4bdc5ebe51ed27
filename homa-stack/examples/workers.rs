//! A host of several workers by the application's interface. Answers every request with its own bytes, by `WORKERS`
//! threads: `workers serve WORKERS [INTERFACE]`; or calls such a server and says how the calls were spread:
//! `workers call WORKERS SERVER_ADDRESS [LENGTH [COUNT [OUTSTANDING]]]`.

use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use homa_stack::api::{Group, RunnerConfig};
use homa_stack::driver::{HostConfig, open_group};

const PORT: u16 = 4000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (what, workers) = (args.next().unwrap_or_default(), args.next().ok_or("expected `serve` or `call`, workers")?);
    let workers: usize = workers.parse()?;
    match what.as_str() {
        "serve" => serve(workers, args.next()),
        "call" => call(workers, args.collect()),
        other => Err(format!("expected `serve` or `call`, found `{other}`").into()),
    }
}

fn serve(workers: usize, interface: Option<String>) -> Result<(), Box<dyn std::error::Error>> {
    let hosts = open_group(&HostConfig { interface, ..HostConfig::default() }, workers)?;
    println!("echoing at {}:{PORT} by {workers} workers", hosts[0].addr());
    let group = Group::spawn(hosts, &RunnerConfig::default())?;
    let server = group.bind(PORT)?;
    // One thread answers for all workers; clones of `server` would let several do so.
    while let Ok(request) = server.recv() {
        request.reply.send(request.body)?;
    }
    Ok(group.shutdown()?)
}

fn call(workers: usize, args: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
    let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |text| text.parse::<usize>());
    let server: IpAddr = args.first().ok_or("expected the server's address")?.parse()?;
    let (length, count, outstanding) = (number(1, 100)?, number(2, 10_000)?, number(3, 16)?);
    let mut hosts = open_group(&HostConfig::default(), workers)?;
    for host in &mut hosts {
        host.resolve(server, Duration::from_secs(1))?;
    }
    let group = Group::spawn(hosts, &RunnerConfig::default())?;
    let (message, to) = (Bytes::from(vec![7; length]), SocketAddr::new(server, PORT));
    let mut batch = group.client()?.batch(outstanding);
    let begin = Instant::now();
    let mut made = 0;
    while made < count || batch.open() > 0 {
        let room = (outstanding - batch.open()).min(count - made);
        made += batch.submit_all((0..room as u64).map(|cookie| (to, message.clone().into(), cookie)))?;
        if let Some(end) = batch.next() {
            end.result?;
        }
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    println!("{count} round trips of {length} bytes, {outstanding} at a time, {rate:.0} a second");
    for (index, worker) in group.workers().iter().enumerate() {
        println!("worker {index}: {} responses", worker.with(|core| core.metrics.responses_received)?);
    }
    Ok(group.shutdown()?)
}
