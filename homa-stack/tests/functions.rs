//! The list of public functions (`docs/functions.md`) against the sources, and tests of those functions that other
//! tests call by helpers only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use homa_stack::api::{CallError, Runner, RunnerConfig};
use homa_stack::device::memory;
use homa_stack::proto::{News, Shard, Target};
use homa_stack::trace::{Clock, Recorder};
use homa_stack::wire::Kind;
use homa_stack::wire::icmp::{MAX_REFUSAL, write_port_unreachable};
use homa_stack::{Config, Endpoint, Event, Instant, Message, Nanos, Payload, RpcError, ServerRpc};

const PORT: u16 = 99;
const CLIENT: IpAddr = memory::ADDRS[0];
const SERVER: IpAddr = memory::ADDRS[1];

/// Files below `folder` that hold Rust.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false if path.extension().is_some_and(|ext| ext == "rs") => found.push(path),
            false => {}
        }
    }
    found
}

/// The name in a line that begins a function, after qualifiers.
fn function(line: &str) -> Option<&str> {
    let mut rest = line;
    for qualifier in ["pub ", "const ", "async "] {
        rest = rest.strip_prefix(qualifier).unwrap_or(rest);
    }
    let rest = rest.strip_prefix("fn ")?;
    Some(&rest[..rest.find(['(', '<'])?])
}

/// Public functions, as `Type::name`: all of `api`, and of [`Endpoint`].
fn public_functions() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeSet::new();
    for (folder, all) in [("api", true), ("proto", false)] {
        for path in sources(&root.join(folder)) {
            let text = fs::read_to_string(path).unwrap();
            let mut own = None;
            for line in text.lines().take_while(|line| *line != "#[cfg(test)]") {
                if line.starts_with("impl") && !line.contains(" for ") {
                    let name = line.rsplit(' ').find(|word| *word != "{").unwrap();
                    own = Some(name.split('<').next().unwrap()).filter(|name| all || *name == "Endpoint");
                } else if line == "}" {
                    own = None;
                } else if let (Some(own), Some(line)) = (own, line.strip_prefix("    "))
                    && line.starts_with("pub ")
                    && let Some(name) = function(line)
                {
                    found.insert(format!("{own}::{name}"));
                }
            }
        }
    }
    found
}

/// What tests call: each with its own text and that of the functions of its file that it calls.
fn tests() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    for path in ["src", "tests"].iter().flat_map(|folder| sources(&root.join(folder))) {
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let mut bodies = Vec::new();
        for (i, line) in lines.iter().enumerate() {
            let Some(name) = function(line.trim_start()) else { continue };
            let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            let len = lines[i..].iter().position(|line| *line == end).unwrap_or(0);
            let attributes = lines[..i].iter().rev().take_while(|line| line.trim_start().starts_with("#["));
            let is_test = attributes.into_iter().any(|line| line.trim_start() == "#[test]");
            bodies.push((name, is_test, lines[i..=i + len].join("\n")));
        }
        for (name, _, body) in bodies.iter().filter(|body| body.1) {
            let helpers = bodies.iter().filter(|(helper, is_test, _)| !is_test && body.contains(&format!("{helper}(")));
            let whole = helpers.fold(body.clone(), |whole, helper| whole + &helper.2);
            found.insert((*name).to_owned(), whole);
        }
    }
    found
}

#[test]
fn each_public_function_is_listed_with_a_test_that_calls_it() {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/functions.md");
    let list = fs::read_to_string(&list).unwrap_or_else(|error| panic!("{}: {error}", list.display()));
    let mut listed = BTreeMap::new();
    for row in list.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [_, function, test, _] = cells[..] else { panic!("not `| function | test |`: {row}") };
        assert!(listed.insert(function.to_owned(), test.to_owned()).is_none(), "listed twice: {function}");
    }
    let public = public_functions();
    assert!(public.len() > 90, "the sources were not understood: {public:?}");
    let tests = tests();
    let mut faults = Vec::new();
    for name in &public {
        let Some(test) = listed.remove(name) else {
            faults.push(format!("{name} has no row: add `| `{name}` | `a test that calls it` |`"));
            continue;
        };
        let short = name.rsplit("::").next().unwrap();
        match tests.get(&test) {
            None => faults.push(format!("{name}: there is no test {test}")),
            Some(body) if ![".", "::"].iter().any(|before| body.contains(&format!("{before}{short}("))) => {
                faults.push(format!("{name}: not called by {test}"));
            }
            Some(_) => {}
        }
    }
    faults.extend(listed.keys().map(|name| format!("{name} is listed and not a public function any more")));
    assert!(faults.is_empty(), "docs/functions.md:\n{}", faults.join("\n"));
}

/// Two endpoints, of which the second serves [`PORT`], and a port of the first.
fn pair(config: &Config) -> (Endpoint, Endpoint, u16) {
    let (mut client, mut server) = (Endpoint::new(config.clone()), Endpoint::new(config.clone()));
    server.bind(PORT).unwrap();
    let port = client.client_port().unwrap();
    (client, server, port)
}

fn to() -> SocketAddr {
    SocketAddr::new(SERVER, PORT)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + (i >> 8)) as u8).collect()
}

/// Gives `receiver` all that `sender`, at `from`, has to send now; returns the length of the longest.
fn pass(now: Instant, sender: &mut Endpoint, from: IpAddr, receiver: &mut Endpoint) -> usize {
    let (mut packet, mut longest) = ([0; 9000], 0);
    while let Some(transmit) = sender.poll_transmit(now, &mut packet) {
        receiver.handle_packet(now, from, &packet[..transmit.len]);
        longest = longest.max(transmit.len);
    }
    longest
}

/// Passes packets both ways until the server has a request.
fn request(now: Instant, client: &mut Endpoint, server: &mut Endpoint) -> (ServerRpc, Message) {
    for _ in 0..1000 {
        pass(now, client, CLIENT, server);
        if let Some(event) = server.poll_event() {
            let Event::Request { rpc, msg, .. } = event else { panic!("{event:?}") };
            return (rpc, msg);
        }
        pass(now, server, SERVER, client);
    }
    panic!("no request came");
}

#[test]
fn received_messages_are_copied_and_detached() {
    let (mut client, mut server, port) = pair(&Config::default());
    let (now, sent) = (Instant::default(), bytes(100_000));
    assert!(!client.is_sending());
    client.call(now, port, to(), Payload::from(sent.clone()), 0).unwrap();
    assert!(client.is_sending());
    let (rpc, msg) = request(now, &mut client, &mut server);
    let mut part = [0; 50_000];
    assert_eq!(server.copy_out(&msg, 40_000, &mut part), 50_000);
    assert!(part == sent[40_000..90_000]);
    assert_eq!(server.copy_out(&msg, 99_999, &mut part), 1, "no more than there is");
    server.discard(rpc);
    let body = server.detach(msg);
    assert!(!server.is_quiet(), "its page is out");
    assert!(body == sent);
    drop(body);
    assert!(server.poll_event().is_none(), "the endpoint looks for pages that came back");
    assert!(server.is_quiet());
}

#[test]
fn what_has_arrived_at_the_front_grows_until_the_message_is_whole() {
    let (mut client, mut server, port) = pair(&Config::default());
    server.read_early(PORT, true);
    let (now, mut packet, mut before, mut steps) = (Instant::default(), [0; 9000], 0, 0);
    client.call(now, port, to(), Payload::from(bytes(5_000)), 0).unwrap();
    let mut message = None;
    while let Some(transmit) = client.poll_transmit(now, &mut packet) {
        server.handle_packet(now, CLIENT, &packet[..transmit.len]);
        while let Some(progress) = server.poll_progress() {
            let homa_stack::Progress::More { message: arriving, .. } = progress else { panic!("{progress:?}") };
            message = Some(arriving);
        }
        let arrived = server.arrived(message.expect("it was announced by its first packet"));
        if server.poll_event().is_some() {
            assert_eq!(arrived, 0, "whole: the event has it");
        } else {
            assert!(arrived > before, "{arrived} after {before}");
            (before, steps) = (arrived, steps + 1);
        }
    }
    assert_eq!(steps, 3, "four packets, of which the last makes it whole");
}

#[test]
fn a_port_that_stops_serving_finishes_what_has_begun() {
    let (mut client, mut server, port) = pair(&Config::default());
    let now = Instant::default();
    client.call(now, port, to(), Payload::from(bytes(1_000_000)), 0).unwrap();
    pass(now, &mut client, CLIENT, &mut server);
    server.stop_serving(PORT);
    let (rpc, msg) = request(now, &mut client, &mut server);
    assert_eq!(msg.len(), 1_000_000);
    server.release(msg);
    server.reply(now, rpc, Payload::from(&[1])).unwrap();
    pass(now, &mut server, SERVER, &mut client);
    assert!(matches!(client.poll_event(), Some(Event::Response { .. })));
    client.call(now, port, to(), Payload::from(&[2]), 7).unwrap();
    pass(now, &mut client, CLIENT, &mut server);
    assert!(server.poll_event().is_none());
    let refusal = server.poll_refusal().expect("it is refused");
    let mut icmp = [0; MAX_REFUSAL];
    let len = write_port_unreachable(SERVER, refusal.to, refusal.quote(), refusal.len, &mut icmp);
    client.handle_icmp(now, SERVER, CLIENT, &icmp[..len]);
    let failed = client.poll_event();
    assert!(matches!(failed, Some(Event::Failed { cookie: 7, error: RpcError::PortUnreachable, .. })), "{failed:?}");
    assert!(server.poll_refusal().is_none());
}

#[test]
fn packets_follow_the_interfaces_mtu() {
    let (mut client, mut server, port) = pair(&Config::default());
    let now = Instant::default();
    client.call(now, port, to(), Payload::from(bytes(300_000)), 0).unwrap();
    let header = 20;
    assert_eq!(pass(now, &mut client, CLIENT, &mut server), 1500 - header);
    client.set_mtu(now, 1200);
    pass(now, &mut server, SERVER, &mut client);
    assert_eq!(pass(now, &mut client, CLIENT, &mut server), 1200 - header, "those under way go on so");
    let (_, msg) = request(now, &mut client, &mut server);
    let mut got = vec![0; 300_000];
    server.copy_out(&msg, 0, &mut got);
    assert!(got == bytes(300_000));
}

#[test]
fn the_next_deadline_is_when_something_is_due() {
    let (mut client, server, port) = pair(&Config::default());
    let mut now = Instant::default();
    assert_eq!((client.next_deadline(), server.next_deadline()), (None, None));
    client.call(now, port, to(), Payload::from(&[1]), 7).unwrap();
    let mut packet = [0; 1500];
    for _ in 0..10_000 {
        while client.poll_transmit(now, &mut packet).is_some() {}
        let Some(deadline) = client.next_deadline() else { break };
        assert!(deadline > now, "{deadline:?} was to be done by {now:?}");
        now = deadline;
        client.handle_timeout(now);
        if let Some(event) = client.poll_event() {
            assert!(matches!(event, Event::Failed { cookie: 7, error: RpcError::TimedOut, .. }), "{event:?}");
        }
    }
    assert!(client.is_quiet() && client.next_deadline().is_none(), "given up by deadlines alone");
    assert!(now > Instant::default() + Nanos::from_millis(50));
}

#[test]
fn traces_show_arrivals_batches_and_sleep() {
    let (mut client, mut server, port) = pair(&Config::default());
    server.set_trace(Recorder::new(64, Clock::Manual, 3));
    let (now, mut packet) = (Instant::default(), [0; 1500]);
    client.call(now, port, to(), Payload::from(bytes(100)), 0).unwrap();
    let transmit = client.poll_transmit(now, &mut packet).unwrap();
    assert_eq!(transmit.kind, Kind::Data);
    server.set_slept(true);
    server.note_arrival(CLIENT, 6, Some(Nanos::from_nanos(1234)), &packet[..transmit.len]);
    server.note_batch();
    server.handle_packet(now, CLIENT, &packet[..transmit.len]);
    let Some(Event::Request { .. }) = server.poll_event() else { panic!("no request") };
    let mut text = Vec::new();
    server.trace.write_tt(&mut text, 1.0).unwrap();
    let text = String::from_utf8(text).unwrap();
    for part in ["homa_gro_receive got packet", "ring wait 1234 ns", "homa_softirq starting", "blocked 1", "[C03]"] {
        assert!(text.contains(part), "no '{part}' in {text}");
    }
    let metrics = &server.metrics;
    assert_eq!((metrics.ring_wait_nanos, metrics.ring_wait_packets, metrics.softirq_calls), (1234, 1, 1));
    assert_eq!((metrics.wait_block, metrics.wait_fast), (1, 0));
}

#[test]
fn an_end_of_traces_is_handed_on_by_endpoints_that_have_companions() {
    let mut alone = Endpoint::new(Config::default());
    alone.freeze_others();
    assert!(alone.poll_forward().is_none());
    let mut first = Endpoint::new(Config { shard: Shard::new(0, 2).unwrap(), ..Config::default() });
    let mut second = Endpoint::new(Config { shard: Shard::new(1, 2).unwrap(), ..Config::default() });
    second.set_trace(Recorder::new(64, Clock::Manual, 0));
    first.freeze_others();
    let forward = first.poll_forward().expect("for the other");
    assert!(matches!((&forward.news, forward.to), (News::Freeze, Target::All)), "{forward:?}");
    assert!(!second.trace.is_frozen());
    second.handle_forward(Instant::default(), &forward);
    assert!(second.trace.is_frozen());
}

/// Nothing to wake: the test polls.
struct Ignore;

impl Wake for Ignore {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn ends_come_to_tasks_and_streams_and_a_runner_runs_where_it_is_told() {
    let (a, b) = memory::pair();
    let config = RunnerConfig { poll: Duration::ZERO, ..RunnerConfig::default() };
    let (runner, here) = Runner::new(a, config.clone());
    let running = thread::spawn(move || runner.run());
    let there = Runner::spawn(b, config).unwrap();
    let server = there.bind(PORT).unwrap();
    let client = here.client().unwrap();
    let silent = client.call_timeout(to(), &[0], Duration::from_millis(20));
    assert!(matches!(silent, Err(CallError::Deadline { .. })), "{silent:?}");
    drop(server.recv().unwrap());
    let mut batch = client.batch(4);
    let waker = Waker::from(Arc::new(Ignore));
    let mut context = Context::from_waker(&waker);
    assert!(matches!(batch.poll_next(&mut context), Poll::Ready(None)), "no call is under way");
    batch.submit(to(), &[1], 1).unwrap();
    assert!(batch.poll_next(&mut context).is_pending());
    assert!(pin!(batch.next_async()).poll(&mut context).is_pending(), "dropped while it waits");
    server.recv().unwrap().reply.send(&[11]).unwrap();
    let end = pollster::block_on(batch.next_async()).unwrap();
    assert_eq!(end.cookie, 1);
    assert_eq!(end.result.unwrap(), vec![11]);
    assert!(pollster::block_on(batch.next_async()).is_none());
    drop((client, batch));
    here.shutdown().unwrap();
    running.join().unwrap().unwrap();
}

#[test]
fn a_request_that_is_read_early_is_waited_for_no_longer_than_told() {
    let (a, b) = memory::pair();
    let here = Runner::spawn(a, RunnerConfig::default()).unwrap();
    let there = Runner::spawn(b, RunnerConfig::default()).unwrap();
    let server = there.bind_early(PORT).unwrap();
    assert!(server.recv_timeout(Duration::from_millis(1)).unwrap().is_none());
    let call = here.client().unwrap().start(to(), bytes(70_000)).unwrap();
    let incoming = server.recv_timeout(Duration::from_secs(20)).unwrap().expect("it was sent");
    assert_eq!((incoming.len(), incoming.is_empty()), (70_000, false));
    let request = incoming.finish().unwrap();
    assert!(request.body == bytes(70_000));
    request.reply.send(&[1]).unwrap();
    assert_eq!(call.wait().unwrap(), vec![1]);
}
