//! Homa in user space: one thread of the process owns the host's stack and all Homa ports, clients' and servers'; or
//! several workers (`--homa-workers`) do, each with its part of the client ports and of the requests to each server port.
//!
//! The protocol runs inline in such a thread, so a request goes from the schedule into the packet ring, and from the ring to
//! its answer, without any hand-over between threads. Other threads ask it to do things ([`Engine`]).

mod several;
mod worker;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use homa_stack::Nanos;
use homa_stack::driver::{DeviceKind, Framing, Host, HostConfig, Waker, drop_privileges, open_group};
use homa_stack::trace::write_merged;

use self::worker::{Load, Worker};
use crate::arrivals::Arrivals;
use crate::cli::{ClientOptions, Common, ServerOptions};
use crate::client::ClientPort;
use crate::errors::{Missing, Usage};
use crate::log::Log;
use crate::parameters::Parameter;
use crate::transport::unloaded::Plan;
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
    /// To each worker; empty only while it is dropped.
    mails: Vec<Mailbox>,
    threads: Vec<JoinHandle<()>>,
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
        let workers = usize::from(options.homa_workers.unwrap_or(1));
        let hosts = open_group(&config, workers).map_err(|error| Missing(error.to_string()))?;
        tell(&hosts, &log);
        if !options.keep_privileges {
            // The workers are started from here on.
            drop_privileges().context("can't give up privileges; --keep-privileges leaves them")?;
        }
        let (mut mails, mut threads) = (Vec::new(), Vec::new());
        for host in hosts {
            let (mail, thread) = start_worker(host, log.clone())?;
            mails.push(mail);
            threads.push(thread);
        }
        Ok(Self {
            mails,
            threads,
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
        if let Some(wanted) = options.homa_workers.filter(|wanted| usize::from(*wanted) != self.workers()) {
            let used = self.workers();
            bail!(Usage(format!("the Homa stack of this node has {used} workers already: {wanted} are too late")));
        }
        if options.hijack && !self.hijack {
            bail!(Usage("the Homa stack of this node runs already: --hijack can't change, give it first".into()));
        }
        Ok(())
    }

    /// True if the stack has stopped after an error.
    pub(crate) fn has_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Why it has stopped.
    pub(crate) fn why_ended(&self) -> String {
        let ended = self.threads.iter().position(JoinHandle::is_finished).unwrap_or(0);
        self.mails[ended].why_ended()
    }

    /// Threads that run the protocol.
    pub(crate) fn workers(&self) -> usize {
        self.mails.len()
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
        self.set_poll(&options.common)?;
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
        let mut parts: Vec<Vec<_>> = self.mails.iter().map(|_| Vec::new()).collect();
        for (index, part) in ports.iter().cloned().zip(loads).enumerate() {
            parts[index % self.workers()].push(part);
        }
        let client = HomaClient { mails: self.mails.clone(), ports: ports.to_vec() };
        for (mail, part) in self.mails.iter().zip(parts) {
            mail.ask(move |worker| worker.open_clients(part))?;
        }
        for finished in done {
            finished.recv().map_err(|_| anyhow!("the Homa stack of this node has stopped: {}", self.why_ended()))??;
        }
        Ok(Box::new(client))
    }

    /// Opens a Homa port for each group of `counters`, which has one for each worker.
    ///
    /// # Errors
    /// If a port is open already; none of them is open then.
    pub(crate) fn open_server(
        &self,
        options: &ServerOptions,
        counters: &[Arc<ServerCounters>],
    ) -> Result<Box<dyn ServerHandle>> {
        self.set_poll(&options.common)?;
        let first = options.common.first_port();
        let last = first.checked_add(options.ports - 1).filter(|p| *p < 1 << 15);
        let last = last.ok_or_else(|| Usage("the last Homa server port is above 32767; lower --first-port".into()))?;
        let numbers: Vec<u16> = (first..=last).collect();
        for (index, mail) in self.mails.iter().enumerate() {
            let own = counters.iter().skip(index).step_by(self.workers()).cloned();
            let all: Vec<_> = numbers.iter().copied().zip(own).collect();
            let pin = options.pin.map(|core| core + index as u16);
            // All workers have the same ports open: what the first can open, the others can.
            mail.ask(move |worker| {
                pin.map_or(Ok(()), pin_to)?;
                worker.open_servers(all)
            })?;
        }
        Ok(Box::new(HomaServer { mails: self.mails.clone(), ports: numbers }))
    }

    /// The latest command decides how long the workers spin: a measurement without load may, one with more nodes than
    /// cores must not.
    fn set_poll(&self, options: &Common) -> Result<()> {
        let poll = Nanos::from_micros(options.poll_usecs.into());
        self.ask_all(move |worker| {
            worker.host.set_poll(poll);
            Ok(())
        })?;
        Ok(())
    }

    /// The metrics of all workers as text.
    pub(crate) fn metrics_text(&self) -> Result<String> {
        let texts = self.ask_all(|worker| Ok(worker.host.metrics_text()))?;
        Ok(several::metrics(&texts))
    }

    /// Writes the metrics text to `file`.
    pub(crate) fn metrics(&self, file: &Path) -> Result<()> {
        let text = self.metrics_text()?;
        std::fs::write(file, text).with_context(|| format!("can't write Homa metrics to {}", file.display()))
    }

    /// Stops recording the trace.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.ask_all(|worker| {
            worker.host.freeze_trace();
            Ok(())
        })
        .map(drop)
    }

    /// Begins a new trace: of the last events, or of the first from now on.
    pub(crate) fn unfreeze(&self, until_full: bool) -> Result<()> {
        self.ask_all(move |worker| {
            worker.host.unfreeze_trace(until_full);
            Ok(())
        })
        .map(drop)
    }

    /// Freezes the trace, writes it to `file`, and the metrics of its span, if it is whole, to `file` with `.metrics`
    /// added; then unfreezes it.
    pub(crate) fn print_trace(&self, file: &Path) -> Result<()> {
        let context = format!("can't write the time trace to {}", file.display());
        let mut out = BufWriter::new(File::create(file).with_context(|| context.clone())?);
        let mut beside = file.as_os_str().to_owned();
        beside.push(".metrics");
        self.freeze()?;
        let traces = self.ask_all(|worker| Ok((worker.host.copy_trace(), worker.host.trace_metrics_text())))?;
        let recorders: Vec<_> = traces.iter().map(|((recorder, _), _)| recorder).collect();
        let rate = traces.first().map_or(1.0, |((_, rate), _)| *rate);
        let mut written = write_merged(&recorders, &mut out, rate).and_then(|()| out.flush());
        let texts: Option<Vec<_>> = traces.iter().map(|(_, text)| text.clone()).collect();
        if let Some(texts) = texts {
            written = written.and_then(|()| std::fs::write(beside, several::metrics(&texts)));
        }
        self.unfreeze(false)?;
        written.context(context)
    }

    /// Sets the bounds within which an RTT freezes the trace.
    pub(crate) fn set_debug(&self, values: [i64; 5]) -> Result<()> {
        self.ask_all(move |worker| {
            worker.freeze_between = (values[0], values[1]);
            Ok(())
        })
        .map(drop)
    }

    /// Has each worker run `job`, one after the other; returns the results.
    fn ask_all<T: Send + 'static>(
        &self,
        job: impl Fn(&mut Worker) -> Result<T> + Clone + Send + 'static,
    ) -> Result<Vec<T>> {
        self.mails.iter().map(|mail| mail.ask(job.clone())).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for Mailbox { jobs, waker, .. } in self.mails.drain(..) {
            // Without senders the worker ends.
            drop(jobs);
            waker.wake();
        }
        for thread in self.threads.drain(..) {
            // A panicked thread has told stderr.
            let _ = thread.join();
        }
    }
}

/// Says in the log what was opened.
fn tell(hosts: &[Host], log: &Log) {
    let Some(host) = hosts.first() else { return };
    let threads = match hosts.len() {
        1 => "one thread".to_owned(),
        n => format!("{n} threads, each with its share of RPCs"),
    };
    log.line(format_args!(
        "Homa on {} ({}, MTU {}) by {}: in this user-space stack the protocol and all ports run on {threads}",
        host.interface(),
        host.addr(),
        host.mtu(),
        host.device()
    ));
}

/// Starts the thread of a worker.
fn start_worker(host: Host, log: Log) -> Result<(Mailbox, JoinHandle<()>)> {
    let end = Arc::new(Mutex::new(None));
    let (jobs, inbox) = channel();
    let (waker, why) = (host.waker(), Arc::clone(&end));
    let run = move || {
        if let Err(error) = Worker::new(host, log.clone()).run(&inbox) {
            log.line(format_args!("FATAL: the Homa stack stops: {error:#}"));
            *why.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{error:#}"));
        }
    };
    let thread = thread::Builder::new().name("homa".into()).spawn(run).context("can't start the Homa thread")?;
    Ok((Mailbox { jobs, waker, end }, thread))
}

struct HomaClient {
    mails: Vec<Mailbox>,
    ports: Vec<Arc<ClientPort>>,
}

impl ClientHandle for HomaClient {
    fn stop_senders(&mut self) {
        self.ports.iter().for_each(|p| p.sending.store(false, Ordering::Release));
        // A round through the worker: after it no request is on its way out of the schedule. A worker that has ended
        // sends nothing either.
        self.mails.iter().for_each(|mail| _ = mail.ask(|_| Ok(())));
    }

    fn close(&mut self) {
        let ports = std::mem::take(&mut self.ports);
        // A worker that has ended has no ports.
        for mail in &self.mails {
            let ports = ports.clone();
            let _ = mail.ask(move |worker| {
                worker.close_clients(&ports);
                Ok(())
            });
        }
    }
}

struct HomaServer {
    mails: Vec<Mailbox>,
    ports: Vec<u16>,
}

impl ServerHandle for HomaServer {
    fn close(&mut self) {
        let ports = std::mem::take(&mut self.ports);
        for mail in &self.mails {
            let ports = ports.clone();
            let _ = mail.ask(move |worker| {
                worker.close_servers(&ports);
                Ok(())
            });
        }
    }
}
