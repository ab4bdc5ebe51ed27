//! A host of several workers on real packets: the kernel's steering, and what workers hand on to each other.

mod veth;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cperf::sys;
use cperf::testbed::Testbed;
use cperf::testbed::netns::Netns;
use homa_stack::api::{Group, RunnerConfig};
use homa_stack::driver::{Host, HostConfig, OpenError, open_group};
use homa_stack::metrics::DropReason;
use homa_stack::wire::Kind;
use homa_stack::{Event, Nanos, Payload};
use veth::{bytes_of, call_of, message, on};

const PORT: u16 = 4000;
const LENGTHS: [usize; 6] = [8, 1424, 40_001, 100, 65_536, 500_000];
/// Calls of each worker.
const CALLS: u64 = 60;

fn main() -> ExitCode {
    veth::run(
        2,
        &[
            ("each_rpc_stays_with_one_worker_on_both_sides", |net| both_ways(net, [2, 2])),
            ("workers_hand_on_the_acknowledgements_of_a_client_of_one_thread", |net| both_ways(net, [1, 2])),
            ("three_workers_serve_two", |net| both_ways(net, [3, 2])),
            ("the_applications_interface_spreads_calls_over_workers", by_handles),
            ("a_group_of_no_workers_or_too_many_is_refused", sizes),
            ("the_use_of_the_receive_ring_is_measured", ring_use),
            ("nodes_of_two_workers_without_privileges_spread_their_rpcs", |net| in_folder(net, nodes)),
            ("a_node_that_looks_for_a_server_answers_meanwhile", |net| in_folder(net, busy_elsewhere)),
        ],
    )
}

/// What a worker has seen.
#[derive(Debug, Default)]
struct Seen {
    /// How often each call ran here.
    runs: HashMap<u64, u32>,
    /// Packets and acknowledgements handed on; CUTOFFS received.
    packets: u64,
    acks: u64,
    cutoffs: u64,
    lost: u64,
}

/// Both hosts, of so many workers, are client and server of each other.
fn both_ways(net: &Netns, workers: [usize; 2]) -> Result<(), String> {
    let total = workers[0] + workers[1];
    let (ready, busy) = (Barrier::new(total), AtomicUsize::new(total));
    let mut seen: [Vec<Seen>; 2] = Default::default();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (node, count) in workers.into_iter().enumerate() {
            let group = on(net, node, || open_group(&HostConfig::default(), count).map_err(|e| e.to_string()))?;
            let peer = net.address(1 - node);
            for (index, host) in group.into_iter().enumerate() {
                let (ready, busy) = (&ready, &busy);
                let first = ((node * 8 + index) as u64) << 32;
                threads.push((
                    node,
                    scope.spawn(move || {
                        sys::enter(net.namespace(node)).map_err(|e| format!("entering node {node}: {e}"))?;
                        work(host, peer, first, ready, busy)
                    }),
                ));
            }
        }
        for (node, thread) in threads {
            seen[node].push(thread.join().map_err(|_| "a worker panicked".to_owned())??);
        }
        Ok::<_, String>(())
    })?;
    println!(
        "    RPCs run by the workers of each host: {:?}",
        [0, 1].map(|n| seen[n].iter().map(|s| s.runs.len()).collect::<Vec<_>>())
    );
    for (node, seen) in seen.iter().enumerate() {
        check(node, seen, CALLS * workers[1 - node] as u64, workers)?;
    }
    Ok(())
}

/// What must have been seen by the workers of `node`, which were to run `calls` calls.
fn check(node: usize, seen: &[Seen], calls: u64, workers: [usize; 2]) -> Result<(), String> {
    let mut runs = HashMap::new();
    for (call, times) in seen.iter().flat_map(|s| &s.runs) {
        *runs.entry(*call).or_insert(0) += times;
    }
    if runs.len() as u64 != calls || runs.values().any(|times| *times != 1) {
        return Err(format!("node {node} ran {} of {calls} calls, some more than once: {runs:?}", runs.len()));
    }
    let sum = |count: fn(&Seen) -> u64| seen.iter().map(count).sum::<u64>();
    let share = calls / seen.len() as u64;
    if let Some(idle) = seen.iter().find(|s| (s.runs.len() as u64) < share - 1) {
        return Err(format!("node {node}: a worker ran {} calls of {calls}", idle.runs.len()));
    }
    // Nothing but what is for all is handed on: the kernel steers as the endpoints expect.
    if sum(|s| s.packets) > sum(|s| s.cutoffs) || sum(|s| s.lost) > 0 {
        return Err(format!("node {node} handed on packets that the kernel steered wrongly: {seen:?}"));
    }
    let split_alike = workers[0] == workers[1];
    let acks = sum(|s| s.acks);
    if seen.len() > 1 && (acks == 0) != split_alike {
        return Err(format!("node {node}: {acks} acknowledgements handed on, workers {workers:?}"));
    }
    Ok(())
}

/// Calls the other host and answers its calls, until all workers have their answers.
fn work(mut host: Host, peer: IpAddr, first: u64, ready: &Barrier, busy: &AtomicUsize) -> Result<Seen, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    host.core().bind(PORT).map_err(|e| text(&e))?;
    let resolved = host.resolve(peer, Duration::from_secs(2)).map_err(|e| text(&e));
    ready.wait();
    resolved?;
    let port = host.core().client_port().map_err(|e| text(&e))?;
    let mut open = HashMap::new();
    for call in first..first + CALLS {
        let len = LENGTHS[call as usize % LENGTHS.len()];
        let (now, to) = (host.now(), SocketAddr::new(peer, PORT));
        host.core().call(now, port, to, Payload::from(message(call, len)), call).map_err(|e| text(&e))?;
        open.insert(call, len);
    }
    let mut seen = Seen::default();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut is_busy = true;
    // A worker that is done goes on answering until all are.
    while busy.load(Ordering::Acquire) > 0 {
        host.turn().map_err(|e| text(&e))?;
        while let Some(event) = host.core().poll_event() {
            match event {
                Event::Request { rpc, msg, .. } => {
                    let bytes = bytes_of(&mut host, msg);
                    let call = call_of(&bytes);
                    if bytes != message(call, bytes.len()) {
                        return Err(format!("request {call} of {} bytes is damaged", bytes.len()));
                    }
                    *seen.runs.entry(call).or_default() += 1;
                    let now = host.now();
                    host.core().reply(now, rpc, Payload::from(bytes)).map_err(|e| text(&e))?;
                }
                Event::Response { cookie, msg, .. } => {
                    let bytes = bytes_of(&mut host, msg);
                    if open.remove(&cookie) != Some(bytes.len()) || bytes != message(cookie, bytes.len()) {
                        return Err(format!("response {cookie} of {} bytes is damaged or too much", bytes.len()));
                    }
                }
                Event::Failed { cookie, peer, error, .. } => return Err(format!("call {cookie} to {peer}: {error}")),
                Event::Room(_) => {}
            }
        }
        if is_busy && open.is_empty() {
            is_busy = false;
            busy.fetch_sub(1, Ordering::Release);
        }
        if Instant::now() > deadline {
            return Err(format!("{} calls unanswered after 60 s", open.len()));
        }
        let soon = host.now() + Nanos::from_millis(1);
        host.wait(Some(soon)).map_err(|e| text(&e))?;
    }
    let metrics = &host.core().metrics;
    if metrics.drops(DropReason::Malformed) + metrics.drops(DropReason::BadIp) > 0 {
        return Err(format!("malformed packets: {:?}", metrics.drops));
    }
    seen.packets = metrics.shard_packets_forwarded;
    seen.acks = metrics.shard_acks_forwarded;
    seen.lost = metrics.shard_forwards_lost;
    seen.cutoffs = metrics.packets_rcvd[Kind::Cutoffs.index()];
    Ok(seen)
}

/// Calls of one client by two workers, served by three.
fn by_handles(net: &Netns) -> Result<(), String> {
    const CALLS: u64 = 300;
    let group = |node: usize, workers: usize| {
        // Threads are of the namespace of the one that starts them.
        on(net, node, || {
            let mut hosts = open_group(&HostConfig::default(), workers).map_err(|e| e.to_string())?;
            let peer = net.address(1 - node);
            hosts.iter_mut().try_for_each(|h| h.resolve(peer, Duration::from_secs(2)).map_err(|e| e.to_string()))?;
            Group::spawn(hosts, &RunnerConfig::default()).map_err(|e| e.to_string())
        })
    };
    let (here, there) = (group(0, 2)?, group(1, 3)?);
    let server = there.bind(PORT).map_err(|e| e.to_string())?;
    let serving = std::thread::spawn(move || {
        while let Ok(request) = server.recv() {
            let _ = request.reply.send(request.body);
        }
    });
    let to = SocketAddr::new(net.address(1), PORT);
    let mut batch = here.client().map_err(|e| e.to_string())?.batch(32);
    let mut calls =
        (0..CALLS).map(|call| (to, message(call, LENGTHS[call as usize % LENGTHS.len()]).into(), call)).peekable();
    let mut ends = 0;
    while ends < CALLS {
        batch.submit_all(calls.by_ref()).map_err(|e| e.to_string())?;
        let end = batch.next().ok_or("no call is under way")?;
        let bytes = end.result.map_err(|e| e.to_string())?;
        if bytes != message(end.cookie, bytes.len()) {
            return Err(format!("response {} of {} bytes is damaged", end.cookie, bytes.len()));
        }
        ends += 1;
    }
    let received = |group: &Group, count: fn(&mut homa_stack::Endpoint) -> u64| {
        let each = group.workers().iter().map(|worker| worker.with(count).map_err(|e| e.to_string()));
        each.collect::<Result<Vec<u64>, _>>()
    };
    let requests = received(&there, |core| core.metrics.requests_received)?;
    let responses = received(&here, |core| core.metrics.responses_received)?;
    println!("    requests by worker {requests:?}, responses {responses:?}");
    there.shutdown().map_err(|e| e.to_string())?;
    serving.join().map_err(|_| "the server panicked")?;
    let even = |each: &[u64]| each.iter().all(|n| *n > CALLS / each.len() as u64 / 2);
    if even(&requests) && even(&responses) { Ok(()) } else { Err("one worker did the work of others".to_owned()) }
}

fn sizes(net: &Netns) -> Result<(), String> {
    on(net, 0, || {
        for count in [0, 257] {
            match open_group(&HostConfig::default(), count) {
                Err(error @ OpenError::Workers { .. }) if error.to_string().contains("1 to 256") => {}
                other => return Err(format!("{count} workers: {:?}", other.map(|hosts| hosts.len()))),
            }
        }
        Ok(())
    })
}

/// Packets wait for a host that does nothing; then it takes them.
fn ring_use(net: &Netns) -> Result<(), String> {
    const PACKETS: u64 = 150;
    let open = || Host::open(HostConfig::default()).map_err(|e| e.to_string());
    on(net, 1, || {
        let mut server = open()?;
        let mark = |host: &mut Host, name: &str| {
            let text = host.metrics_text();
            let line = text.lines().find(|line| line.starts_with(name)).ok_or_else(|| format!("no {name}"))?;
            line.split_whitespace().nth(1).and_then(|v| v.parse::<u64>().ok()).ok_or_else(|| line.to_owned())
        };
        on(net, 0, || {
            let mut client = open()?;
            client.resolve(net.address(1), Duration::from_secs(2)).map_err(|e| e.to_string())?;
            let port = client.core().client_port().map_err(|e| e.to_string())?;
            for call in 0..PACKETS {
                let (now, to) = (client.now(), SocketAddr::new(net.address(1), PORT));
                client
                    .core()
                    .call(now, port, to, Payload::from(message(call, 100)), call)
                    .map_err(|e| e.to_string())?;
                client.turn().map_err(|e| e.to_string())?;
            }
            Ok(())
        })?;
        while server.turn().map_err(|e| e.to_string())? {}
        let [most, held, batches] =
            ["ring_most_waiting", "ring_held_nanos", "ring_held_batches"].map(|name| mark(&mut server, name));
        let (most, held, batches) = (most?, held?, batches?);
        println!("    {most} packets waited at most; {batches} batches were held for {held} ns");
        if (PACKETS..2 * PACKETS).contains(&most) && held > 0 && batches > 0 {
            Ok(())
        } else {
            Err("not so".to_owned())
        }
    })
}

/// A `cp-node` at its prompt.
struct Node {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Node {
    /// Starts it on this thread's node.
    fn start() -> Result<Self, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cperf"));
        command.arg("cp-node").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("starting a node: {e}"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = (input, output) else { return Err("a node without pipes".into()) };
        let mut node = Self { child, input, output: BufReader::new(output) };
        node.prompt()?;
        Ok(node)
    }

    /// Waits for the prompt; any text before it is an error.
    fn prompt(&mut self) -> Result<(), String> {
        let mut text = Vec::new();
        while !text.ends_with(b"% ") {
            if self.output.read_until(b' ', &mut text).map_err(|e| e.to_string())? == 0 {
                break;
            }
        }
        match &text[..] {
            b"% " => Ok(()),
            other => Err(String::from_utf8_lossy(other).into_owned()),
        }
    }

    fn run(&mut self, command: &str) -> Result<(), String> {
        writeln!(self.input, "{command}").map_err(|e| e.to_string())?;
        self.prompt().map_err(|e| format!("{command}: {e}"))
    }

    /// Fails if any thread has a capability.
    fn check_unprivileged(&self) -> Result<(), String> {
        let tasks = format!("/proc/{}/task", self.child.id());
        for task in std::fs::read_dir(&tasks).map_err(|e| format!("{tasks}: {e}"))? {
            let path = task.map_err(|e| e.to_string())?.path().join("status");
            let status = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            for set in ["CapPrm", "CapEff"] {
                if !status.lines().any(|line| line.starts_with(set) && line.ends_with("\t0000000000000000")) {
                    return Err(format!("{set} of a thread is not empty: {status}"));
                }
            }
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It ends at the end of its input, or has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let mut file = std::fs::File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    file.read_to_string(&mut text).map_err(|e| e.to_string())?;
    Ok(text)
}

/// Runs `check` with a folder of its own.
fn in_folder(net: &Netns, check: fn(&Netns, &Path) -> Result<(), String>) -> Result<(), String> {
    let dir = std::env::temp_dir().join(format!("homa-workers-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let result = check(net, &dir);
    std::fs::remove_dir_all(&dir).map_err(|e| e.to_string())?;
    result
}

/// A node that serves is told to call a host that does not exist, for whose hardware address it waits for seconds.
fn busy_elsewhere(net: &Netns, dir: &Path) -> Result<(), String> {
    let mut server = on(net, 1, Node::start)?;
    let mut client = on(net, 0, Node::start)?;
    for (name, node) in [("server", &mut server), ("client", &mut client)] {
        node.run(&format!("log --file {}", dir.join(name).display()))?;
    }
    server.run("server --protocol homa")?;
    let addr = net.address(1);
    client.run(&format!("client --protocol homa --client-max 4 --workload 100 --hosts 1={addr}"))?;
    let IpAddr::V4(own) = addr else { return Err("a host without IPv4".into()) };
    let [a, b, c, _] = own.octets();
    let before = completed(&mut client, &dir.join("before"))?;
    match server.run(&format!("client --protocol homa --servers 9 --hosts 9={a}.{b}.{c}.99")) {
        Err(why) if why.contains("can't reach node 9") => {}
        other => return Err(format!("expected that node 9 can't be reached: {other:?}")),
    }
    let answered = completed(&mut client, &dir.join("after"))? - before;
    println!("    {answered} RPCs answered meanwhile");
    // Had the node done nothing else, those 4 under way would have ended, and 4 after them.
    if answered < 100 {
        return Err(format!("{answered} RPCs answered while their server looked for another"));
    }
    client.run("stop clients")
}

/// RPCs that this client's node has completed, none of which may have failed.
fn completed(client: &mut Node, file: &Path) -> Result<u64, String> {
    client.run(&format!("stats {}", file.display()))?;
    let stats: serde_json::Value = serde_json::from_str(&read(file)?).map_err(|e| e.to_string())?;
    let of = |name: &str| stats["experiments"][0][name].as_u64().ok_or_else(|| format!("no {name}: {stats}"));
    match (of("errors")?, of("timeouts")?) {
        (0, 0) => of("completed"),
        _ => Err(format!("RPCs failed: {stats}")),
    }
}

fn nodes(net: &Netns, dir: &Path) -> Result<(), String> {
    let mut server = on(net, 1, Node::start)?;
    let mut client = on(net, 0, Node::start)?;
    let log = |name: &str| format!("log --file {}", dir.join(name).display());
    server.run(&log("server.log"))?;
    client.run(&log("client.log"))?;
    server.run("server --protocol homa --homa-workers 2 --ports 2")?;
    let addr = net.address(1);
    client.run(&format!(
        "client --protocol homa --homa-workers 2 --ports 4 --server-ports 2 --client-max 16 --workload w2 --hosts 1={addr}"
    ))?;
    if client.run("client --protocol homa --homa-workers 3 --hosts 1=10.0.0.9").is_ok() {
        return Err("the number of workers changed".into());
    }
    std::thread::sleep(Duration::from_millis(700));
    for node in [&server, &client] {
        node.check_unprivileged()?;
    }
    for (name, node) in [("server", &mut server), ("client", &mut client)] {
        for (what, command) in [("metrics", "metrics"), ("tt", "tt print"), ("stats", "stats")] {
            let file = dir.join(format!("{name}.{what}"));
            node.run(&format!("{command} {}", file.display()))?;
        }
        let metrics = read(&dir.join(format!("{name}.metrics")))?;
        let values = |counter: &str| -> Vec<u64> {
            let of = |line: &str| line.split_whitespace().nth(1)?.parse().ok();
            metrics.lines().filter(|line| line.split(' ').next() == Some(counter)).filter_map(of).collect()
        };
        let counter = if name == "server" { "requests_received" } else { "responses_received" };
        println!("    {counter} of the {name}'s workers: {:?}", values(counter));
        if values("core") != [0, 1] || values(counter).len() != 2 || values(counter).iter().any(|n| *n < 100) {
            return Err(format!("RPCs of the {name} are not spread: {:?}", values(counter)));
        }
        let trace = read(&dir.join(format!("{name}.tt")))?;
        for core in ["[C00]", "[C01]"] {
            let events = trace.lines().filter(|line| line.contains(core)).count();
            if events < 100 {
                return Err(format!("{events} events of {core} in the {name}'s trace"));
            }
        }
        let stats = read(&dir.join(format!("{name}.stats")))?;
        if !stats.contains("\"errors\":0") || stats.contains("\"completed\":0,") {
            return Err(format!("errors, or nothing done: {stats}"));
        }
    }
    client.run("stop clients")?;
    server.run("stop servers")
}
