//! Nodes driven through their prompt, as an orchestrator drives them, over TCP on the loopback interface.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Node, Scratch, eventually, free_ports};
use serde_json::Value;

fn experiment(file: &std::path::Path, name: &str) -> Value {
    let json: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(json["version"], 1);
    let all = json["experiments"].as_array().unwrap().clone();
    all.into_iter().find(|e| e["name"] == name).unwrap_or_else(|| panic!("no experiment {name} in {json}"))
}

fn count(experiment: &Value, key: &str) -> u64 {
    experiment[key].as_u64().unwrap_or_else(|| panic!("{key} of {experiment}"))
}

/// The counters of an experiment on a client, once they fulfil `condition`.
fn wait_for(client: &mut Node, dir: &Scratch, name: &str, condition: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("the condition on {name}"), || {
        client.ok(&format!("stats {}", dir.show("c.json")));
        Some(experiment(&dir.path("c.json"), name)).filter(&condition)
    })
}

fn has_settled(experiment: &Value) -> bool {
    count(experiment, "outstanding") == 0
}

/// Length and time of a sample line; its columns are those of the original's `%8d %12.2f`.
fn sample(line: &str) -> (u32, f64) {
    assert_eq!(line.len(), 21, "{line:?}");
    assert_eq!((&line[8..9], &line[18..19]), (" ", "."), "{line:?}");
    (line[..8].trim().parse().unwrap(), line[9..].trim().parse().unwrap())
}

/// Checks that a log line is `SSSSSSSSSS.NNNNNNNNN text` and returns the text.
fn log_text(line: &str) -> &str {
    let (stamp, text) = line.split_at(21);
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    assert!(digits(&stamp[..10]) && &stamp[10..11] == "." && digits(&stamp[11..20]) && &stamp[20..] == " ", "{line:?}");
    text
}

/// Three requests in one packet, then two that wait for their answers.
#[test]
fn requests_that_came_together_are_one_look() {
    let dir = Scratch::new("looks");
    let port = free_ports(1);
    let mut server = Node::start();
    server.ok(&format!("log --file {}", dir.show("s.log")));
    server.ok(&format!("server --protocol tcp --first-port {port} --exp e"));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // The length, and as much else as there must be.
    let request = [&20_u32.to_le_bytes()[..], &[0; 16]].concat();
    for together in [3, 1, 1] {
        let requests = request.repeat(together);
        stream.write_all(&requests).unwrap();
        stream.read_exact(&mut vec![0; requests.len()]).unwrap();
    }
    server.ok(&format!("stats {}", dir.show("s.json")));
    let s = experiment(&dir.path("s.json"), "e");
    assert_eq!((count(&s, "completed"), count(&s, "looks")), (5, 3), "{s}");
}

#[test]
fn two_nodes_measure_tcp_and_write_the_original_formats() {
    let dir = Scratch::new("tcp");
    let port = free_ports(1);
    let (mut server, mut client) = (Node::start(), Node::start());
    server.ok(&format!("log --file {}", dir.show("s.log")));
    server.ok(&format!("server --protocol tcp --first-port {port} --exp tcp_w2"));
    client.ok(&format!("log --file {} --level normal", dir.show("c.log")));
    client.ok("hosts 0=127.0.0.1 1=127.0.0.1");
    client.ok(&format!(
        "client --protocol tcp --id 0 --servers 0,1 --first-port {port} --workload w2 --gbps 0.02 --client-max 40 --seed 5"
    ));
    for log in ["c.log", "s.log"] {
        eventually("a line of statistics", || dir.read(log).contains(" Kops/sec").then_some(()));
    }
    client.ok("stop senders");
    let c = wait_for(&mut client, &dir, "tcp_w2", has_settled);
    client.ok(&format!("dump_times {} tcp_w2", dir.show("x.rtts")));
    server.ok(&format!("stats {}", dir.show("s.json")));
    client.ok("stop clients");
    server.ok("stop servers");
    assert_eq!(client.exit(), 0);
    assert_eq!(server.end_of_input(), 0);

    let s = experiment(&dir.path("s.json"), "tcp_w2");
    let completed = count(&c, "completed");
    assert!(completed > 1000, "{c}");
    assert_eq!((count(&c, "issued"), count(&c, "outstanding"), count(&c, "errors")), (completed, 0, 0));
    assert_eq!(count(&c, "lost_samples"), 0);
    assert_eq!(count(&s, "completed"), completed);
    assert_eq!(count(&s, "request_bytes"), count(&c, "request_bytes"));
    assert_eq!(count(&s, "response_bytes"), count(&c, "response_bytes"));

    let (service, due) = (dir.read("x.rtts"), dir.read("x.rtts.due"));
    let (head, lines): (Vec<_>, Vec<_>) = service.lines().partition(|l| l.starts_with('#'));
    assert!(head[0].starts_with("# Round-trip times measured by cp_node at 2"), "{}", head[0]);
    assert!(head[0].ends_with(" for experiment tcp_w2"), "{}", head[0]);
    assert_eq!(
        head[1..],
        [
            "# --protocol tcp, --workload w2, --gpbs 0.0 --threads 1,",
            "# --server-nodes 1 --server-ports 1, --client-max 40",
            "# Length   RTT (usec)"
        ]
    );
    let due: Vec<_> = due.lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!((lines.len() as u64, due.len()), (completed, lines.len()));
    for (service, due) in lines.iter().zip(&due) {
        let ((len, rtt), (due_len, due_rtt)) = (sample(service), sample(due));
        assert_eq!(len, due_len);
        assert!(rtt > 0.0 && due_rtt >= rtt, "{service} against {due}");
    }
    let bytes: u64 = lines.iter().map(|l| u64::from(sample(l).0)).sum();
    assert_eq!(bytes, count(&c, "response_bytes"));

    let log = dir.read("c.log");
    let texts: Vec<_> = log.lines().map(log_text).collect();
    assert_eq!(texts[0], "Log level is now normal");
    assert_eq!(texts[1], "Command: hosts 0=127.0.0.1 1=127.0.0.1");
    assert!(texts.contains(&"Average message length 0.4 KB, rate 5.67 K/sec, expected BW 0.0 Gbps"), "{log}");
    assert!(texts.iter().any(|t| t.starts_with("tcp_w2 clients: ") && t.contains(" RTT (us) P50 ")), "{log}");
    assert_eq!(*texts.last().unwrap(), "cp_node exiting (exit command)");
    let log = dir.read("s.log");
    let texts: Vec<_> = log.lines().map(log_text).collect();
    assert!(texts.iter().any(|t| t.starts_with("tcp_w2 servers: ")), "{log}");
    assert!(texts.iter().any(|t| t.starts_with("RPCs per tcp_w2 server thread: ")), "{log}");
    assert_eq!(*texts.last().unwrap(), "cp_node exiting (EOF on stdin)");
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn all_tcp_variants_complete_every_rpc() {
    let dir = Scratch::new("variants");
    for (variant, client_options, server_options) in [
        ("spin", "--tcp-wait spin --workload 5000", "--tcp-wait spin"),
        ("threads", "--ports 3 --port-receivers 2 --server-ports 2 --workload w4", "--ports 2 --port-threads 2"),
        ("congestion control", "--tcp-cc reno --workload 2000", "--tcp-cc reno"),
        ("one-way", "--one-way --workload 20000", ""),
        ("long", "--no-trunc --workload 3000000", ""),
        ("closed", "--gbps 0 --workload w3", ""),
        ("pinned", "--poll-usecs 0 --workload 12", "--pin 0"),
    ] {
        let port = free_ports(2);
        let (mut server, mut client) = (Node::start(), Node::start());
        server.ok(&format!("log --file {}", dir.show("s.log")));
        server.ok(&format!("server --protocol tcp --first-port {port} {server_options}"));
        client.ok(&format!("log --file {}", dir.show("c.log")));
        client.ok("hosts 1=127.0.0.1");
        client.ok(&format!(
            "client --protocol tcp --first-port {port} --gbps 0.2 --client-max 6 --seed 1 --exp e {client_options}"
        ));
        wait_for(&mut client, &dir, "e", |e| count(e, "completed") >= 20);
        client.ok("stop senders");
        let e = wait_for(&mut client, &dir, "e", has_settled);
        client.ok(&format!("dump_times {}", dir.show("x.rtts")));
        client.ok("stop clients");
        server.ok("stop servers");
        let completed = count(&e, "completed");
        assert_eq!((count(&e, "issued"), count(&e, "errors")), (completed, 0), "{variant}: {e}");
        let lines = dir.read("x.rtts");
        assert_eq!(lines.lines().filter(|l| !l.starts_with('#')).count() as u64, completed, "{variant}");
        assert!(!dir.read("c.log").contains("ERROR"), "{variant}: {}", dir.read("c.log"));
    }
}

#[test]
fn the_same_seed_sends_the_same_requests() {
    let dir = Scratch::new("seed");
    let lengths = |seed: u32| {
        let port = free_ports(1);
        let (mut server, mut client) = (Node::start(), Node::start());
        server.ok(&format!("log --file {}", dir.show("s.log")));
        client.ok(&format!("log --file {}", dir.show("c.log")));
        server.ok(&format!("server --protocol tcp --first-port {port}"));
        client
            .ok(&format!("client --protocol tcp --hosts 1=127.0.0.1 --first-port {port} --workload w3 --seed {seed}"));
        wait_for(&mut client, &dir, "tcp_w3", |e| count(e, "completed") >= 20);
        client.ok("stop senders");
        client.ok(&format!("dump_times {}", dir.show("x.rtts")));
        let text = dir.read("x.rtts");
        let lines = text.lines().filter(|l| !l.starts_with('#'));
        // One request at a time: responses come in the order of the requests.
        lines.take(20).map(|l| sample(l).0).collect::<Vec<_>>()
    };
    let first = lengths(1);
    assert_eq!(first.len(), 20);
    assert_eq!(first, lengths(1));
    assert_ne!(first, lengths(2));
}

#[test]
fn a_server_that_dies_costs_its_rpcs_but_not_the_window() {
    let dir = Scratch::new("dies");
    let (port, other) = (free_ports(2), free_ports(2));
    let (mut doomed, mut healthy, mut client) = (Node::start(), Node::start(), Node::start());
    doomed.ok(&format!("log --file {}", dir.show("d.log")));
    healthy.ok(&format!("log --file {}", dir.show("h.log")));
    client.ok(&format!("log --file {}", dir.show("c.log")));
    doomed.ok(&format!("server --protocol tcp --first-port {port}"));
    healthy.ok(&format!("server --protocol tcp --first-port {other}"));
    client.ok("hosts 1=127.0.0.1");
    client.ok(&format!(
        "client --protocol tcp --first-port {port} --exp a --workload 100 --client-max 4 --port-receivers 2"
    ));
    client.ok(&format!("client --protocol tcp --first-port {other} --exp b --workload 100 --client-max 4"));
    wait_for(&mut client, &dir, "a", |e| count(e, "completed") > 0);
    doomed.kill();
    eventually("the error", || dir.read("c.log").contains("ERROR: TCP connection to node1").then_some(()));
    let a = wait_for(&mut client, &dir, "a", has_settled);
    assert_eq!(count(&a, "issued"), count(&a, "completed") + count(&a, "errors"), "{a}");
    let before = count(&experiment(&dir.path("c.json"), "b"), "completed");
    // The other experiment goes on.
    wait_for(&mut client, &dir, "b", |e| count(e, "completed") > before);
    client.ok("stop clients");
    assert_eq!(client.exit(), 0);
    let log = dir.read("c.log");
    assert!(log.contains("cp_node exiting"), "{log}");
}

#[test]
fn mistakes_are_told_before_the_next_prompt_and_change_nothing() {
    let dir = Scratch::new("mistakes");
    let mut node = Node::start();
    assert!(node.run("frobnicate now").contains("frobnicate"));
    assert!(node.run("client --workload w9").contains("unknown workload `w9`"));
    assert!(node.run("client --protocol tcp").contains("node1"), "no address is known");
    assert!(node.run("dump_times /dev/null").contains("no client"));
    assert!(node.run("stats /no/such/dir/x.json").contains("/no/such/dir/x.json"));
    assert!(node.run("log --file /no/such/dir/x.log").contains("/no/such/dir/x.log"));
    assert!(node.run("probe client --transport udp-spin --peer 127.0.0.1").contains("cp-node probe"));
    assert_eq!(node.run("info w1 1500"), "Workload w1: mean 192.8 bytes, overhead 0.587\n");
    assert_eq!(node.run("  \t "), "");
    node.ok(&format!("stats {}", dir.show("s.json")));
    assert_eq!(dir.read("s.json"), "{\"version\":1,\"experiments\":[]}\n");
    assert_eq!(node.exit(), 0);
}

#[test]
fn data_of_web_clients_closes_the_connection() {
    let dir = Scratch::new("http");
    let port = free_ports(1);
    let mut server = Node::start();
    server.ok(&format!("log --file {}", dir.show("s.log")));
    server.ok(&format!("server --protocol tcp --first-port {port}"));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    // Closed with unread data: the end may come as a reset.
    assert!(matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_)));
    assert_eq!(server.exit(), 0);
    assert!(dir.read("s.log").contains("begins like an HTTP request"), "{}", dir.read("s.log"));
}
