//! An HTTP endpoint with this node's Homa metrics: `/metrics` for Prometheus, `/homa_metrics` as the kernel module writes
//! them (for `cperf metrics --live`). Off by default, and on the loopback interface unless an address is given.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use scan_metrics::{prometheus, read::Snapshot};

use crate::node::Node;

/// Longest wait for a client to say what it wants, and to take it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest request.
const MOST_BYTES: usize = 8192;

/// `PORT` (of 127.0.0.1) or `ADDRESS:PORT`.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let port = text.parse().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    port.or_else(|_| text.parse())
        .map_err(|_| "expected PORT or ADDRESS:PORT, for example 9400 or 127.0.0.1:9400".into())
}

/// Answers from now on; the address that it listens at.
///
/// # Errors
/// If the address can't be had.
pub(crate) fn start(address: SocketAddr, node: Arc<Mutex<Node>>) -> Result<SocketAddr> {
    let listener = TcpListener::bind(address).with_context(|| format!("can't listen for Prometheus at {address}"))?;
    let address = listener.local_addr()?;
    let serve = move || {
        // Answering takes no privileges.
        let _ = homa_stack::driver::drop_privileges();
        for stream in listener.incoming() {
            match stream {
                // A client that goes away or talks nonsense is its own problem.
                Ok(stream) => drop(answer(stream, &node)),
                // Out of descriptors, say: others may be closed meanwhile.
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    };
    thread::Builder::new().name("prometheus".into()).spawn(serve).context("can't start the thread for Prometheus")?;
    Ok(address)
}

/// One request, one answer.
fn answer(mut stream: TcpStream, node: &Mutex<Node>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let path = path(&mut stream)?;
    let (status, kind, body) = match path.as_deref() {
        Some("/metrics") => {
            ("200 OK", "text/plain; version=0.0.4; charset=utf-8", exposition(metrics(node).as_deref()))
        }
        Some("/homa_metrics") => match metrics(node) {
            Some(text) => ("200 OK", "text/plain; charset=utf-8", text),
            None => ("503 Service Unavailable", "text/plain", "no Homa stack runs on this node yet\n".into()),
        },
        Some(_) => {
            ("404 Not Found", "text/plain", "/metrics for Prometheus, /homa_metrics for the raw counters\n".into())
        }
        None => ("400 Bad Request", "text/plain", "expected GET /metrics HTTP/1.1\n".into()),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all((head + &body).as_bytes())
}

/// Path of a GET request; `None` if it is another or too long.
fn path(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = stream.read(&mut buffer)?;
        if length == 0 || request.len() + length > MOST_BYTES {
            return Ok(None);
        }
        request.extend_from_slice(&buffer[..length]);
    }
    let text = String::from_utf8_lossy(&request);
    let mut words = text.lines().next().unwrap_or_default().split(' ');
    let get = words.next() == Some("GET");
    Ok(words.next().filter(|_| get).map(|path| path.split('?').next().unwrap_or_default().to_owned()))
}

/// The raw text, if a Homa stack runs.
fn metrics(node: &Mutex<Node>) -> Option<String> {
    node.lock().unwrap_or_else(PoisonError::into_inner).homa_metrics()
}

fn exposition(raw: Option<&str>) -> String {
    let up = format!(
        "# HELP homa_up Whether a Homa stack runs on this node\n# TYPE homa_up gauge\nhoma_up {}\n",
        u8::from(raw.is_some())
    );
    raw.map_or_else(|| up.clone(), |raw| up.clone() + &prometheus::text(&Snapshot::parse(raw)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Log;

    fn get(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn without_an_address_only_this_machine_may_ask() {
        assert_eq!(address("9400").unwrap().to_string(), "127.0.0.1:9400");
        assert_eq!(address("[::1]:9400").unwrap().to_string(), "[::1]:9400");
        assert!(address("host:9400").is_err() && address("").is_err());
    }

    #[test]
    fn requests_are_answered_before_there_is_a_stack_too() {
        let node = Arc::new(Mutex::new(Node::new(Log::stdout())));
        let address = start("127.0.0.1:0".parse().unwrap(), node).unwrap();
        let good = get(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(good.starts_with("HTTP/1.1 200 OK\r\n") && good.ends_with("\nhoma_up 0\n"), "{good}");
        let length: usize =
            good.split("Content-Length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
        assert_eq!(good.split_once("\r\n\r\n").unwrap().1.len(), length);
        for (request, status) in [
            ("GET /homa_metrics HTTP/1.1\r\n\r\n", "503"),
            ("GET /other HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "400"),
        ] {
            let answer = get(address, request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        }
    }

    #[test]
    fn counters_of_the_stack_are_in_prometheus_format() {
        let text = homa_stack::metrics::Metrics { resent_packets: 7, ..Default::default() }.to_text(5, 1_000_000, 3);
        let got = exposition(Some(&text));
        assert!(got.contains("homa_up 1\n") && got.contains("homa_resent_packets_total{core=\"3\"} 7\n"), "{got}");
    }
}
