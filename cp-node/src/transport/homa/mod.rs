//! Homa in user space: one thread of the process owns the host's stack and all Homa ports, clients' and servers'.
//!
//! The protocol runs inline in that thread, so a request goes from the schedule into the packet ring, and from the ring to
//! its answer, without any hand-over between threads. Other threads ask it to do things ([`Engine`]).

mod parameters;
mod unloaded;
mod worker;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use homa_stack::Nanos;
use homa_stack::driver::{DeviceKind, Framing, Host, HostConfig, Waker};

pub(crate) use self::parameters::Parameter;
use self::unloaded::Plan;
use self::worker::{Load, Worker};
use crate::arrivals::Arrivals;
use crate::cli::{ClientOptions, Common, ServerOptions};
use crate::client::ClientPort;
use crate::errors::{Missing, Usage};
use crate::log::Log;
use crate::transport::{ClientHandle, ServerCounters, ServerHandle, pin_to};
use crate::workload::Distribution;

/// Longest wait for the hardware address of a server.
const RESOLVE_LIMIT: Duration = Duration::from_secs(3);

/// Something that the worker thread does between two turns of the stack.
type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// The way to the worker thread; clones reach the same one.
#[derive(Clone)]
struct Mailbox {
    jobs: Sender<Job>,
    waker: Waker,
    /// Why the worker has ended.
    end: Arc<Mutex<Option<String>>>,
}

impl Mailbox {
    /// Has the worker run `job` and waits for the result.
    ///
    /// # Errors
    /// If the job fails or the worker has ended.
    fn ask<T: Send + 'static>(&self, job: impl FnOnce(&mut Worker) -> Result<T> + Send + 'static) -> Result<T> {
        let (reply, answer) = sync_channel(1);
        let job: Job = Box::new(move |worker| {
            // Whoever asked waits for the answer.
            let _ = reply.send(job(worker));
        });
        if self.jobs.send(job).is_ok() {
            self.waker.wake();
        }
        answer.recv().unwrap_or_else(|_| Err(anyhow!("the Homa stack of this node has stopped: {}", self.why_ended())))
    }

    fn why_ended(&self) -> String {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.clone().unwrap_or_else(|| "its thread panicked".into())
    }
}

/// The Homa stack of this node.
pub(crate) struct Engine {
    /// `None` only while it is dropped.
    mail: Option<Mailbox>,
    thread: Option<JoinHandle<()>>,
    interface: Option<String>,
    parameters: Vec<Parameter>,
    device: DeviceKind,
    hijack: bool,
}

impl Engine {
    /// Opens the stack on the interface that `options` name and starts its thread.
    ///
    /// # Errors
    /// If the interface or a privilege is missing.
    pub(crate) fn start(options: &Common, log: Log) -> Result<Self> {
        let device = options.device.unwrap_or_default();
        let mut config = HostConfig { interface: options.interface.clone(), device, ..HostConfig::default() };
        // Each client has its own limit of outstanding requests.
        (config.homa.tx_budget, config.homa.tx_peer_share) = (usize::MAX, 1000);
        if options.hijack {
            config.framing = Framing::Hijack;
        }
        config.poll = Nanos::from_micros(options.poll_usecs.into());
        config.homa.pool_pages = options.buf_bpages as usize;
        options.homa.iter().for_each(|parameter| parameter.apply(&mut config.homa));
        let end = Arc::new(Mutex::new(None));
        let (jobs, inbox) = channel();
        let (started, opened) = sync_channel(1);
        let why = Arc::clone(&end);
        let run = move || {
            let ended = run_worker(config, &log, &inbox, |waker| started.send(waker).is_ok());
            if let Err(error) = ended {
                log.line(format_args!("FATAL: the Homa stack stops: {error:#}"));
                *why.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{error:#}"));
            }
        };
        let thread = thread::Builder::new().name("homa".into()).spawn(run).context("can't start the Homa thread")?;
        let waker = opened.recv().context("the Homa thread ended at once")??;
        Ok(Self {
            mail: Some(Mailbox { jobs, waker, end }),
            thread: Some(thread),
            interface: options.interface.clone(),
            parameters: options.homa.clone(),
            device,
            hijack: options.hijack,
        })
    }

    /// # Errors
    /// If `options` want another interface, framing or device or other parameters than those in use.
    pub(crate) fn check_compatible(&self, options: &Common) -> Result<()> {
        if options.interface.is_some() && options.interface != self.interface {
            let used = self.interface.as_deref().unwrap_or("the default interface");
            bail!(Usage(format!("the Homa stack of this node runs on {used} already: --interface can't change")));
        }
        if !options.homa.is_empty() && options.homa != self.parameters {
            bail!(Usage("the Homa stack of this node runs with other parameters already: --homa can't change".into()));
        }
        if options.device.is_some_and(|device| device != self.device) {
            let used = self.device;
            bail!(Usage(format!("the Homa stack of this node runs by {used} already: --device can't change")));
        }
        if options.hijack && !self.hijack {
            bail!(Usage("the Homa stack of this node runs already: --hijack can't change, give it first".into()));
        }
        Ok(())
    }

    /// True if the stack has stopped after an error.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Why it has stopped.
    pub(crate) fn why_ended(&self) -> String {
        self.mail().why_ended()
    }

    /// Starts a Homa port for each of `ports`; in unloaded mode returns when all is measured.
    ///
    /// # Errors
    /// If a server's hardware address can't be found out, or an unloaded measurement fails.
    pub(crate) fn open_client(
        &self,
        options: &ClientOptions,
        ports: &[Arc<ClientPort>],
        loads: Vec<Arrivals>,
        lengths: &Distribution,
    ) -> Result<Box<dyn ClientHandle>> {
        let mut done = Vec::new();
        let loads: Vec<Load> = if options.unloaded > 0 {
            let plans = ports.iter().map(|_| {
                let (finished, receiver) = sync_channel(1);
                done.push(receiver);
                Load::Unloaded { plan: Plan::new(lengths, options.unloaded), finished }
            });
            plans.collect()
        } else {
            loads.into_iter().map(Load::Arrivals).collect()
        };
        let all: Vec<_> = ports.iter().cloned().zip(loads).collect();
        let client = HomaClient { mail: self.mail().clone(), ports: ports.to_vec() };
        self.mail().ask(move |worker| worker.open_clients(all))?;
        for finished in done {
            finished.recv().map_err(|_| anyhow!("the Homa stack of this node has stopped: {}", self.why_ended()))??;
        }
        Ok(Box::new(client))
    }

    /// Opens a Homa port for each of `counters`.
    ///
    /// # Errors
    /// If a port is open already; none of them is open then.
    pub(crate) fn open_server(
        &self,
        options: &ServerOptions,
        counters: &[Arc<ServerCounters>],
    ) -> Result<Box<dyn ServerHandle>> {
        let first = options.common.first_port();
        let last = first.checked_add(options.ports - 1).filter(|p| *p < 1 << 15);
        let last = last.ok_or_else(|| Usage("the last Homa server port is above 32767; lower --first-port".into()))?;
        let numbers: Vec<u16> = (first..=last).collect();
        let all: Vec<_> = numbers.iter().copied().zip(counters.iter().cloned()).collect();
        let pin = options.pin;
        self.mail().ask(move |worker| {
            pin.map_or(Ok(()), pin_to)?;
            worker.open_servers(all)
        })?;
        Ok(Box::new(HomaServer { mail: self.mail().clone(), ports: numbers }))
    }

    /// Writes the metrics text to `file`.
    pub(crate) fn metrics(&self, file: &Path) -> Result<()> {
        let text = self.mail().ask(|worker| Ok(worker.host.metrics_text()))?;
        std::fs::write(file, text).with_context(|| format!("can't write Homa metrics to {}", file.display()))
    }

    /// Stops recording the trace.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.mail().ask(|worker| {
            worker.host.freeze_trace();
            Ok(())
        })
    }

    /// Begins a new trace: of the last events, or of the first from now on.
    pub(crate) fn unfreeze(&self, until_full: bool) -> Result<()> {
        self.mail().ask(move |worker| {
            worker.host.unfreeze_trace(until_full);
            Ok(())
        })
    }

    /// Freezes the trace, writes it to `file`, and the metrics of its span, if it is whole, to `file` with `.metrics`
    /// added; then unfreezes it.
    pub(crate) fn print_trace(&self, file: &Path) -> Result<()> {
        let context = format!("can't write the time trace to {}", file.display());
        let out = File::create(file).with_context(|| context.clone())?;
        let mut beside = file.as_os_str().to_owned();
        beside.push(".metrics");
        self.mail().ask(move |worker| {
            worker.host.freeze_trace();
            let mut out = BufWriter::new(out);
            let mut written = worker.host.write_trace(&mut out).and_then(|()| out.flush());
            if let Some(text) = worker.host.trace_metrics_text() {
                written = written.and_then(|()| std::fs::write(beside, text));
            }
            worker.host.unfreeze_trace(false);
            written.context(context)
        })
    }

    /// Sets the bounds within which an RTT freezes the trace.
    pub(crate) fn set_debug(&self, values: [i64; 5]) -> Result<()> {
        self.mail().ask(move |worker| {
            worker.freeze_between = (values[0], values[1]);
            Ok(())
        })
    }

    fn mail(&self) -> &Mailbox {
        self.mail.as_ref().expect("taken only when dropped")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(Mailbox { jobs, waker, .. }) = self.mail.take() {
            // Without senders the worker ends.
            drop(jobs);
            waker.wake();
        }
        if let Some(thread) = self.thread.take() {
            // A panicked thread has told stderr.
            let _ = thread.join();
        }
    }
}

/// The life of the worker thread; `started` gets its waker, or why there is none.
fn run_worker(
    config: HostConfig,
    log: &Log,
    inbox: &Receiver<Job>,
    started: impl FnOnce(Result<Waker>) -> bool,
) -> Result<()> {
    let host = match Host::open(config) {
        Ok(host) => host,
        Err(error) => {
            started(Err(Missing(error.to_string()).into()));
            return Ok(());
        }
    };
    log.line(format_args!(
        "Homa on {} ({}, MTU {}) by {}: in this user-space stack the protocol and all ports run on one thread",
        host.interface(),
        host.addr(),
        host.mtu(),
        host.device()
    ));
    started(Ok(host.waker()));
    Worker::new(host, log.clone()).run(inbox)
}

struct HomaClient {
    mail: Mailbox,
    ports: Vec<Arc<ClientPort>>,
}

impl ClientHandle for HomaClient {
    fn stop_senders(&mut self) {
        self.ports.iter().for_each(|p| p.sending.store(false, Ordering::Release));
        // A round through the worker: after it no request is on its way out of the schedule. A worker that has ended
        // sends nothing either.
        let _ = self.mail.ask(|_| Ok(()));
    }

    fn close(&mut self) {
        let ports = std::mem::take(&mut self.ports);
        // A worker that has ended has no ports.
        let _ = self.mail.ask(move |worker| {
            worker.close_clients(&ports);
            Ok(())
        });
    }
}

struct HomaServer {
    mail: Mailbox,
    ports: Vec<u16>,
}

impl ServerHandle for HomaServer {
    fn close(&mut self) {
        let ports = std::mem::take(&mut self.ports);
        let _ = self.mail.ask(move |worker| {
            worker.close_servers(&ports);
            Ok(())
        });
    }
}
