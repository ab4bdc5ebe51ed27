//! A node beside the original's: messages byte for byte in both directions over TCP, and its orchestrator's dialogue.
//!
//! The other side is written here from the specification, with bytes by hand and nothing of the program's own coding.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use common::{Node, Scratch, eventually, free_ports};
use serde_json::Value;

/// Length of the header in front of each message.
const HEAD: usize = 12;

/// Reads exactly so many bytes, or fails the test after 10 s.
fn read(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = vec![0; bytes];
    stream.read_exact(&mut buffer).unwrap();
    buffer
}

/// A message: its header, and filler up to `len` bytes.
fn message(head: [u8; HEAD], len: usize) -> Vec<u8> {
    let mut bytes = head.to_vec();
    bytes.resize(len, 0x5a);
    bytes
}

/// The counters of experiment `e`.
fn counters(node: &mut Node, dir: &Scratch) -> Value {
    node.ok(&format!("stats {}", dir.show("stats.json")));
    let json: Value = serde_json::from_str(&dir.read("stats.json")).unwrap();
    json["experiments"].as_array().unwrap().iter().find(|e| e["name"] == "e").unwrap().clone()
}

fn server(dir: &Scratch) -> (Node, u16) {
    let (mut node, port) = (Node::start(), free_ports(2));
    node.ok(&format!("log --file {}", dir.show("s.log")));
    node.ok(&format!("server --protocol tcp --ports 2 --first-port {port} --exp e"));
    (node, port)
}

/// Requests as a client of the original writes them, and what has to come back: the header again, its length 100 at most
/// if a short response is wanted (bit 1), marked as a response (bit 2).
#[test]
fn a_client_of_the_original_gets_its_responses_byte_for_byte() {
    let dir = Scratch::new("original-client");
    let (mut node, port) = server(&dir);
    let mut stream = TcpStream::connect(("127.0.0.1", port + 1)).unwrap();
    // Length, client port, client node, server port, server node, message id, bits; then the length of the answer.
    for (request, response, len) in [
        // 300 bytes; message id 0x1234; nothing special.
        ([44, 1, 0, 0, 2, 5, 1, 9, 0x34, 0x12, 0, 0], [44, 1, 0, 0, 2, 5, 1, 9, 0x34, 0x12, 4, 0], 300),
        // The shortest: the header alone.
        ([12, 0, 0, 0, 0, 0, 1, 255, 0, 0, 0, 0], [12, 0, 0, 0, 0, 0, 1, 255, 0, 0, 4, 0], 12),
        // 1,000,000 bytes = 0x0f4240, and a trace to freeze (bit 0).
        (
            [0x40, 0x42, 15, 0, 255, 1, 1, 2, 255, 255, 1, 0],
            [0x40, 0x42, 15, 0, 255, 1, 1, 2, 255, 255, 5, 0],
            1_000_000,
        ),
        // 65,536 bytes, of which 100 shall come back.
        ([0, 0, 1, 0, 7, 8, 1, 9, 1, 0, 2, 0], [100, 0, 0, 0, 7, 8, 1, 9, 1, 0, 6, 0], 100),
        // A short one stays as it is.
        ([50, 0, 0, 0, 7, 8, 1, 9, 2, 0, 2, 0], [50, 0, 0, 0, 7, 8, 1, 9, 2, 0, 6, 0], 50),
    ] {
        let length = i32::from_le_bytes(request[..4].try_into().unwrap()) as usize;
        let bytes = message(request, length);
        let mut writer = stream.try_clone().unwrap();
        let writing = thread::spawn(move || writer.write_all(&bytes).unwrap());
        assert_eq!(read(&mut stream, HEAD), response, "to {request:?}");
        read(&mut stream, len - HEAD);
        writing.join().unwrap();
    }

    // Two in one segment, of which the second comes in two parts: each is answered when it is whole.
    let two = [message([20, 0, 0, 0, 1, 2, 1, 4, 5, 0, 0, 0], 20), message([16, 0, 0, 0, 1, 2, 1, 4, 6, 0, 0, 0], 16)];
    let two = two.concat();
    stream.write_all(&two[..25]).unwrap();
    assert_eq!(read(&mut stream, 20)[..HEAD], [20, 0, 0, 0, 1, 2, 1, 4, 5, 0, 4, 0]);
    stream.write_all(&two[25..]).unwrap();
    assert_eq!(read(&mut stream, 16)[..HEAD], [16, 0, 0, 0, 1, 2, 1, 4, 6, 0, 4, 0]);
    stream.set_nonblocking(true).unwrap();
    assert!(stream.read(&mut [0; 1]).is_err(), "nothing else came");
    let e = counters(&mut node, &dir);
    assert_eq!((e["completed"].as_u64(), e["request_bytes"].as_u64()), (Some(7), Some(1_065_934)), "{e}");
    assert_eq!(e["response_bytes"].as_u64(), Some(300 + 12 + 1_000_000 + 100 + 50 + 20 + 16), "{e}");
}

/// Lengths that no client sends close the connection; others go on.
#[test]
fn a_client_that_speaks_something_else_is_cut_off() {
    let dir = Scratch::new("original-foreign");
    let (_node, port) = server(&dir);
    let mut good = TcpStream::connect(("127.0.0.1", port)).unwrap();
    for head in [[11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0xff; HEAD], [1, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0]] {
        let mut bad = TcpStream::connect(("127.0.0.1", port)).unwrap();
        bad.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        bad.write_all(&head).unwrap();
        assert!(matches!(bad.read(&mut [0; 16]), Ok(0) | Err(_)), "{head:?}");
    }
    good.write_all(&[12, 0, 0, 0, 0, 0, 0, 1, 9, 0, 0, 0]).unwrap();
    assert_eq!(read(&mut good, HEAD), [12, 0, 0, 0, 0, 0, 0, 1, 9, 0, 4, 0]);
}

/// A server as the original's: reads a request of `len` bytes on a connection and returns its header.
fn take_request(stream: &mut TcpStream, len: usize) -> [u8; HEAD] {
    read(stream, len)[..HEAD].try_into().unwrap()
}

/// Requests of a client, as a server of the original sees them, and that its responses end them, also those of its
/// version of 2024, which does not mark responses.
#[test]
fn a_server_of_the_original_gets_its_requests_byte_for_byte() {
    let dir = Scratch::new("original-server");
    let port = free_ports(2);
    let listeners =
        [TcpListener::bind(("127.0.0.1", port)).unwrap(), TcpListener::bind(("127.0.0.1", port + 1)).unwrap()];
    let mut node = Node::start();
    node.ok(&format!("log --file {}", dir.show("c.log")));
    node.ok("hosts 3=127.0.0.1");
    // Closed loop, one request outstanding on each of two ports; 300 = 0x012c bytes.
    node.ok(&format!(
        "client --protocol tcp --exp e --id 7 --servers 7,3 --first-port {port} --server-ports 2 --ports 2 --client-max 2 \
         --workload 300"
    ));
    // Each client port has a connection to each server port: four, of which two at a time have a request.
    let mut streams = Vec::new();
    for (index, listener) in listeners.iter().enumerate() {
        for _ in 0..2 {
            streams.push((index as u8, listener.accept().unwrap().0));
        }
    }
    let (mut seen, mut answered) = ([0; 2], 0);
    while answered < 40 {
        for (server_port, stream) in &mut streams {
            // Which connection has a request is the client's choice.
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            if !matches!(stream.peek(&mut [0; HEAD]), Ok(1..)) {
                continue;
            }
            let mut head = take_request(stream, 300);
            assert_eq!(head[..4], [0x2c, 1, 0, 0], "length");
            assert!(head[4] < 2, "client port index {}", head[4]);
            assert_eq!(head[5..8], [7, *server_port, 3], "client node, server port index, server node");
            assert_eq!(head[9], 0, "message ids are small numbers");
            assert_eq!(head[10..], [0, 0], "no bits");
            seen[usize::from(head[4])] += 1;
            // Every other response as of 2024.
            head[10] = if answered % 2 == 0 { 4 } else { 0 };
            stream.write_all(&message(head, 300)).unwrap();
            answered += 1;
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "both client ports send: {seen:?}");
    node.ok("stop senders");
    let e = eventually("all responses are counted", || {
        Some(counters(&mut node, &dir)).filter(|e| e["completed"].as_u64() == Some(answered))
    });
    assert_eq!(e["errors"].as_u64(), Some(0), "{e}");
    assert_eq!(e["response_bytes"].as_u64(), Some(300 * answered), "{e}");
    // What has been sent and not answered stays outstanding, at most one for each port.
    assert!(e["outstanding"].as_u64() <= Some(2), "{e}");
}

/// `--one-way` asks for a short response with bit 1; the sample has the length of the response.
#[test]
fn one_way_requests_ask_for_short_responses() {
    let dir = Scratch::new("original-one-way");
    let port = free_ports(1);
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let mut node = Node::start();
    node.ok(&format!("log --file {}", dir.show("c.log")));
    let client = "client --protocol tcp --exp e --hosts 1=127.0.0.1 --one-way --workload 5000";
    node.ok(&format!("{client} --first-port {port}"));
    let mut stream = listener.accept().unwrap().0;
    let mut head = take_request(&mut stream, 5000);
    // 5000 = 0x1388; without --id the client's node is 0.
    assert_eq!(head, [0x88, 0x13, 0, 0, 0, 0, 0, 1, head[8], 0, 2, 0]);
    (head[0], head[1], head[10]) = (100, 0, 6);
    stream.write_all(&message(head, 100)).unwrap();
    take_request(&mut stream, 5000); // the next one: the response has been taken
    node.ok(&format!("dump_times {}", dir.show("x.rtts")));
    let text = dir.read("x.rtts");
    let lengths: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).map(|line| line[..8].trim()).collect();
    assert_eq!(lengths, ["100"]);
}

/// What the original's orchestrator reads from a node's log between its markers: the values of lines like `EXP clients:
/// X Kops/sec, …`.
fn per_second(log: &str, experiment: &str, word: &str) -> Vec<f64> {
    let begin = format!(" Starting measurements for {experiment} experiment");
    let end = format!(" Ending measurements for {experiment} experiment");
    let between = log.lines().skip_while(|line| !line.ends_with(&begin)).take_while(|line| !line.ends_with(&end));
    let after = format!(" {experiment} {word}: ");
    between
        .filter_map(|line| line.split_once(&after)?.1.split_once(" Kops/sec, ").map(|(kops, _)| kops.parse().unwrap()))
        .collect()
}

/// One experiment, from the first prompt to the last line of the log, in the lines and the order that the original's
/// orchestrator sends them.
#[test]
fn the_originals_orchestrator_runs_an_experiment_through_the_prompt() {
    let dir = Scratch::new("original-orchestrator");
    let port = free_ports(2);
    let mut nodes = [Node::start(), Node::start()];
    for (number, node) in nodes.iter_mut().enumerate() {
        node.ok(&format!("log --file {} --level normal", dir.show(&format!("node{number}.log"))));
        // The original's nodes find each other by names; these have none.
        node.ok("hosts 0=127.0.0.1 1=127.0.0.1");
    }
    nodes[1].ok("stop servers");
    nodes[1].ok(&format!("server --ports 2 --port-threads 1 --protocol tcp --exp tcp_w2 --first-port {port} "));
    nodes[0].ok(&format!(
        "client --ports 2 --port-receivers 1 --server-ports 2 --workload w2 --servers 0,1 --gbps 0.020 --client-max 200 \
         --protocol tcp --id 0 --exp tcp_w2 --first-port {port} "
    ));
    nodes[0].ok("dump_times /dev/null tcp_w2");
    let each = |nodes: &mut [Node; 2], line: &str| nodes.iter_mut().for_each(|node| node.ok(line));
    each(&mut nodes, "log Starting measurements for tcp_w2 experiment");
    // The first line after a command has no second before it.
    eventually("two seconds in both logs", || {
        let full =
            |number: usize, word: &str| per_second(&dir.read(&format!("node{number}.log")), "tcp_w2", word).len();
        (full(0, "clients") >= 2 && full(1, "servers") >= 2).then_some(())
    });
    each(&mut nodes, "log Ending measurements for tcp_w2 experiment");
    nodes[0].ok(&format!("dump_times {} tcp_w2", dir.show("rtts")));
    nodes[0].ok("stop senders");
    nodes[0].ok("stop clients");
    nodes[1].ok("stop servers");

    // Other commands of people and scripts, and what they say.
    nodes[0].ok("debug 10 20");
    assert_eq!(nodes[0].run("info w2 1500"), "Workload w2: mean 440.8 bytes, overhead 0.282\n");
    for line in ["tt freeze", "tt freezeboth", "tt kfreeze", "tt print node.tt"] {
        assert!(nodes[0].run(line).contains("no Homa stack"), "{line}: TCP has no trace");
    }
    assert!(nodes[0].run("frobnicate").contains("frobnicate"));
    assert!(nodes[0].run("client --frob 3").contains("--frob"));
    let [client, server] = nodes;
    assert_eq!((client.exit(), server.exit()), (0, 0));

    let samples = dir.read("rtts").lines().filter(|line| !line.starts_with('#')).count();
    let (client, server) = (dir.read("node0.log"), dir.read("node1.log"));
    let (sent, answered) = (per_second(&client, "tcp_w2", "clients"), per_second(&server, "tcp_w2", "servers"));
    // 0.02 Gbps of 440.8 bytes are 5.67 K/s; a machine that is busy elsewhere is late.
    for kops in [&sent, &answered].map(|all| all.iter().sum::<f64>() / all.len() as f64) {
        assert!((1.0..12.0).contains(&kops), "{sent:?} {answered:?}");
    }
    assert!(samples > 2000, "{samples} samples");
    for (number, log) in [&client, &server].into_iter().enumerate() {
        assert!(log.contains(" Command: log Starting measurements for tcp_w2 experiment\n"), "node {number}: {log}");
        assert!(log.ends_with("cp_node exiting (exit command)\n"), "node {number}: {log}");
        assert!(!log.contains("ERROR:") && !log.contains("FATAL:"), "node {number}: {log}");
    }
    // Statistics of the log can be told apart by the words that scripts look for.
    for part in [" clients: ", " Gbps out, ", " Gbps in, RTT (us) P50 ", " P99 ", " P99.9 ", ", avg. req. length "] {
        assert!(client.contains(part), "no `{part}` in {client}");
    }
    for part in [" servers: ", "RPCs per tcp_w2 server thread: "] {
        assert!(server.contains(part), "no `{part}` in {server}");
    }
    assert!(fs::metadata(dir.path("rtts")).unwrap().len() > 0);
}
