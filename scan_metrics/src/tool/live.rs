//! Counters of a running node: a file (the kernel's, or one that a node writes), or a node's HTTP endpoint.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::read::{Snapshot, load};

/// Where the kernel module shows its counters.
pub const KERNEL: &str = "/proc/net/homa_metrics";

/// Longest wait for a node's endpoint.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than the counters of 1000 cores.
const MOST_BYTES: u64 = 64 << 20;

/// From where counters are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// `HOST:PORT` of a node that was started with `--prometheus`.
    Endpoint(String),
}

impl Source {
    /// `HOST:PORT` and `http://HOST:PORT` are endpoints, all else a file.
    pub fn new(text: &str) -> Self {
        let address = text.strip_prefix("http://");
        let bare = address.unwrap_or(text).trim_end_matches('/');
        let port = bare.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if address.is_some() || (port && !Path::new(text).exists()) {
            Self::Endpoint(bare.to_owned())
        } else {
            Self::File(text.into())
        }
    }

    /// The text as it is now.
    ///
    /// # Errors
    ///
    /// If it can't be read; the error says from where.
    pub fn text(&self) -> anyhow::Result<String> {
        match self {
            Self::File(path) => {
                let mut buffer = Vec::new();
                let text = load(path, &mut buffer).map(str::to_owned);
                text.with_context(|| match path.to_str() == Some(KERNEL) {
                    true => {
                        "the kernel module is not loaded, or this is not the first network namespace; for nodes of \
                             cp-node give --live HOST:PORT of their --prometheus"
                    }
                    false => "reading counters",
                })
            }
            Self::Endpoint(address) => get(address).with_context(|| format!("asking {address} for its metrics")),
        }
    }

    /// The counters as they are now.
    ///
    /// # Errors
    ///
    /// If they can't be read, or there are none.
    pub fn read(&self) -> anyhow::Result<(String, Snapshot)> {
        let text = self.text()?;
        let snapshot = Snapshot::parse(&text);
        if snapshot.cores.is_empty() || snapshot.ticks.is_none() {
            bail!(
                "{self}: no metrics; expected lines `time_cycles N`, `core 0`, then counters `NAME VALUE DESCRIPTION`"
            );
        }
        Ok((text, snapshot))
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Endpoint(address) => address.fmt(f),
        }
    }
}

/// The raw text, which the endpoint has beside the one for Prometheus.
fn get(address: &str) -> anyhow::Result<String> {
    let to = address.to_socket_addrs()?.next().context("no such host")?;
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // In one piece: an endpoint that answers before it has read all resets the connection.
    let request = format!("GET /homa_metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(MOST_BYTES).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("its answer is no HTTP")?;
    if head.split_whitespace().nth(1) != Some("200") {
        bail!("it says {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

/// Keeps `text` in `path` for the next call, whole or not at all.
///
/// # Errors
///
/// If it can't be written.
pub fn keep(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    fs::write(&aside, text)
        .and_then(|()| fs::rename(&aside, path))
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn addresses_are_told_from_files() {
        assert_eq!(Source::new("127.0.0.1:9400"), Source::Endpoint("127.0.0.1:9400".into()));
        assert_eq!(Source::new("http://node:80/"), Source::Endpoint("node:80".into()));
        assert_eq!(Source::new("[::1]:9400"), Source::Endpoint("[::1]:9400".into()));
        assert_eq!(Source::new(KERNEL), Source::File(KERNEL.into()));
        assert_eq!(Source::new("a:b"), Source::File("a:b".into()));
    }

    /// An endpoint that answers once.
    fn serve(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut length) = ([0; 512], 0);
            while !request[..length].ends_with(b"\r\n\r\n") {
                length += stream.read(&mut request[length..]).unwrap();
            }
            assert!(request[..length].starts_with(b"GET /homa_metrics HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn an_endpoint_is_asked_and_its_refusal_is_told() {
        let good = serve("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ntime_cycles 5 c\ncpu_khz 1 r\ncore 0 c\na 1 x\n");
        let (_, snapshot) = Source::Endpoint(good).read().unwrap();
        assert_eq!((snapshot.ticks, snapshot.total("a")), (Some(5), Some(1)));
        let err = Source::Endpoint(serve("HTTP/1.1 404 Not Found\r\n\r\n")).read().unwrap_err();
        assert!(format!("{err:#}").contains("404"), "{err:#}");
    }
}
