//! Flows: many messages with several outstanding, for bytes and messages a second.
//!
//! Copies of each byte, by us or by the kernel for us. Raw frames: sender 2 (into the frame; `send` into the kernel's
//! packet), receiver 2 (the kernel into the ring; out of it). Homa: the same, the last one being that into the message's
//! pages, where the receiver reads. TCP: 1 and 1 (the kernel's, from and to the caller's buffers); segments of one host
//! refer to the sender's pages.

mod homa;
mod ring;
mod tcp;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::ready;
use crate::cli::{Flow, FlowServer, ProbeTransport};

/// Longest time without any progress.
const STALL_LIMIT: Duration = Duration::from_secs(2);

/// Of so many looks at what was answered one reads the clock, which takes a tenth of what a short RPC does.
const CLOCK_EVERY: u32 = 16;

/// What a flow's client prints, as one line of JSON.
#[derive(Debug, PartialEq, Serialize)]
struct Summary {
    transport: &'static str,
    length: u32,
    response: u32,
    outstanding: u32,
    /// Messages answered in the interval.
    messages: u64,
    elapsed_s: f64,
    messages_per_s: f64,
    /// Request bytes, 10^9 bit/s.
    request_gbps: f64,
    errors: u64,
}

/// Counts answers after a warm-up until the time is over.
struct Meter {
    begin: Instant,
    end: Instant,
    first: Option<Instant>,
    last: Instant,
    before: u64,
    /// Answers when the clock was read last.
    seen: u64,
    answered: u64,
    errors: u64,
    /// Calls until the clock is read again.
    unread: u32,
}

impl Meter {
    fn start(millis: u32) -> Self {
        let now = Instant::now();
        let time = Duration::from_millis(millis.into());
        let begin = now + time / 10;
        Self { begin, end: begin + time, first: None, last: now, before: 0, seen: 0, answered: 0, errors: 0, unread: 0 }
    }

    /// `answered` messages have been answered since the last call; false when the time is over.
    ///
    /// # Errors
    /// If nothing was answered for [`STALL_LIMIT`].
    fn goes_on(&mut self, answered: u64) -> Result<bool> {
        self.answered += answered;
        if self.unread > 0 {
            self.unread -= 1;
            return Ok(true);
        }
        self.unread = CLOCK_EVERY - 1;
        let now = Instant::now();
        if self.answered > self.seen {
            (self.last, self.seen) = (now, self.answered);
        } else if now - self.last > STALL_LIMIT {
            bail!("nothing was answered for {} s: does the server still run?", STALL_LIMIT.as_secs());
        }
        if now >= self.begin && self.first.is_none() {
            (self.first, self.before) = (Some(now), self.answered);
        }
        Ok(now < self.end || self.answered == self.before)
    }

    fn summary(&self, options: &Flow) -> Summary {
        let elapsed_s = self.first.map_or(0.0, |first| (self.last - first).as_secs_f64());
        let messages = self.answered - self.before;
        let messages_per_s = if elapsed_s > 0.0 { messages as f64 / elapsed_s } else { 0.0 };
        let FlowServer { transport, length, response, .. } = options.common;
        Summary {
            transport: transport.name(),
            length,
            response,
            outstanding: options.outstanding,
            messages,
            elapsed_s,
            messages_per_s,
            request_gbps: messages_per_s * f64::from(length) * 8e-9,
            errors: self.errors,
        }
    }
}

pub(super) fn serve(options: &FlowServer) -> Result<()> {
    match options.transport {
        ProbeTransport::RawRing => ring::serve(options, ready),
        ProbeTransport::Homa => homa::serve(options, ready),
        ProbeTransport::TcpSpin => tcp::serve(options, ready),
        other => bail!("--transport {}: flows go by raw-ring, homa or tcp-spin", other.name()),
    }
}

pub(super) fn measure(options: &Flow) -> Result<()> {
    let to = SocketAddr::new(options.peer, options.common.port);
    let meter = match options.common.transport {
        ProbeTransport::RawRing => ring::run(options),
        ProbeTransport::Homa => homa::run(options, to),
        ProbeTransport::TcpSpin => tcp::run(options, to),
        other => bail!("--transport {}: flows go by raw-ring, homa or tcp-spin", other.name()),
    }?;
    let mut line = serde_json::to_string(&meter.summary(options))?;
    line.push('\n');
    io::stdout().write_all(line.as_bytes()).context("can't write to standard output")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command, ProbeEnd, Top};

    fn options(words: &str) -> Flow {
        match Cli::parse_from(format!("cp-node probe flow {words}").split(' ')).command {
            Some(Top::Node(Command::Probe { end: ProbeEnd::Flow(options) })) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn answers_before_the_interval_do_not_count() {
        let mut meter = Meter::start(50);
        assert!(meter.goes_on(1000).unwrap());
        let goes_on = |meter: &mut Meter, answered| {
            (1..CLOCK_EVERY).for_each(|_| assert!(meter.goes_on(0).unwrap(), "the clock is not read"));
            meter.goes_on(answered).unwrap()
        };
        std::thread::sleep(Duration::from_millis(20));
        assert!(goes_on(&mut meter, 0));
        std::thread::sleep(Duration::from_millis(60));
        assert!(!goes_on(&mut meter, 7));
        let summary = meter.summary(&options("--transport homa --peer 10.0.0.1 --length 1000"));
        assert_eq!((summary.messages, summary.transport), (7, "homa"));
        assert!((0.05..10.0).contains(&summary.elapsed_s), "{summary:?}");
        assert!((summary.request_gbps / (summary.messages_per_s * 8e-6) - 1.0).abs() < 1e-9);
    }

    /// Both ends in this process, over loopback.
    #[test]
    fn tcp_answers_every_request_by_one_connection_and_by_several() {
        for words in ["--length 100 --response 100 --outstanding 3", "--length 200000 --outstanding 2 --one-connection"]
        {
            let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            let options = options(&format!("--transport tcp-spin --peer 127.0.0.1 --port {port} --millis 50 {words}"));
            let (send, receive) = std::sync::mpsc::channel();
            let server = options.common.clone();
            std::thread::spawn(move || tcp::serve(&server, move || Ok(send.send(())?)));
            receive.recv().unwrap();
            let meter = tcp::run(&options, SocketAddr::new(options.peer, port)).unwrap();
            assert!(meter.answered > 0, "{words}");
            assert_eq!(meter.errors, 0);
        }
    }
}
