//! `cp-node agent`: runs a node for an orchestrator at the other end of standard input and output, usually over SSH.
//!
//! ```text
//! orchestrator == frames ([wire]) over SSH == agent -- pipes -- cp-node, by its prompt protocol
//! ```
//!
//! The agent adds what a prompt can't: heartbeats, the node's end, files with checksums, and what a doctor looks at. It
//! ends with its channel, and when it has heard nothing for too long; the node never outlives it.

mod child;
pub mod facts;
mod files;
mod link;
mod reach;
pub mod settings;
pub mod wire;

use std::io::{self, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use self::child::Child;
use self::wire::{Kind, News, Order};
use crate::clock;

/// Time between heartbeats.
const BEAT: Duration = Duration::from_secs(1);
/// Environment variable with the name of a file: seconds to add to every reading of the clock from when it exists, to see
/// what a clock does that is set while a node runs.
const CLOCK_STEP: &str = "CP_NODE_CLOCK_STEP";
/// Until the orchestrator says otherwise.
const SILENCE: Duration = Duration::from_secs(60);

/// Standard output, shared by threads; each writes whole frames.
#[derive(Clone)]
struct Out(Arc<Mutex<io::Stdout>>);

impl Out {
    fn bytes(&self, kind: Kind, id: u32, bytes: &[u8]) {
        let mut stdout = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // When nobody listens any more, standard input ends too, and the agent with it.
        let _ = wire::write(&mut *stdout, kind, id, bytes);
    }

    fn news(&self, id: u32, news: &News) {
        self.bytes(Kind::Message, id, &serde_json::to_vec(news).expect("strings and numbers only"));
    }

    /// The answer to an order.
    fn answer(&self, id: u32, result: io::Result<News>) {
        self.news(id, &result.unwrap_or_else(|err| News::Failed { text: err.to_string() }));
    }
}

/// What heartbeats and the watchdog look at.
struct Watched {
    begun: Instant,
    /// When something was heard last, ms since `begun`.
    heard_ms: AtomicU64,
    /// How long silence may last, ms.
    silence_ms: AtomicU64,
    /// Interface and directory.
    places: Mutex<Option<(String, String)>>,
    /// Added to the clock's reading.
    clock_offset_s: f64,
    /// [`CLOCK_STEP`].
    clock_step: Option<PathBuf>,
}

impl Watched {
    fn heard(&self) {
        self.heard_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_silent(&self) -> bool {
        let silence = self.now_ms().saturating_sub(self.heard_ms.load(Ordering::Relaxed));
        silence > self.silence_ms.load(Ordering::Relaxed)
    }

    fn clock_s(&self) -> f64 {
        let step = self.clock_step.as_ref().and_then(|path| facts::word(&path.to_string_lossy())?.parse().ok());
        clock::wall().as_secs_f64() + self.clock_offset_s + step.unwrap_or(0.0)
    }

    fn beat(&self) -> News {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (interface, dir) = places.unzip();
        News::Beat {
            clock_s: self.clock_s(),
            free_bytes: dir.and_then(|dir| facts::free_bytes(&dir)),
            carrier: interface.and_then(|interface| facts::carrier(&interface)),
        }
    }
}

/// Serves the orchestrator until it ends. `clock_offset_s`: added to every reading of the clock that is reported, to
/// see what a clock that is off does.
pub(crate) fn run(clock_offset_s: f64) -> ExitCode {
    let out = Out(Arc::new(Mutex::new(io::stdout())));
    let watched = Arc::new(Watched {
        begun: Instant::now(),
        heard_ms: AtomicU64::new(0),
        silence_ms: AtomicU64::new(u64::try_from(SILENCE.as_millis()).unwrap_or(u64::MAX)),
        places: Mutex::new(None),
        clock_offset_s,
        clock_step: std::env::var_os(CLOCK_STEP).map(PathBuf::from),
    });
    let greeting = io::stdout().lock().write_all(wire::GREETING);
    if let Err(err) = greeting.and_then(|()| background(&watched, &out)) {
        eprintln!("cp-node agent: {err}");
        return ExitCode::FAILURE;
    }
    let served = Agent { out, watched, child: None }.serve(&mut BufReader::new(io::stdin().lock()));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("cp-node agent: {err}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the threads for heartbeats and for the end by silence. The latter never writes: writing is what hangs when a
/// link is lost.
fn background(watched: &Arc<Watched>, out: &Out) -> io::Result<()> {
    let (beating, out) = (Arc::clone(watched), out.clone());
    thread::Builder::new().name("beat".into()).spawn(move || {
        loop {
            thread::sleep(BEAT);
            out.news(0, &beating.beat());
        }
    })?;
    let watched = Arc::clone(watched);
    thread::Builder::new().name("watchdog".into()).spawn(move || {
        while !watched.is_silent() {
            thread::sleep(Duration::from_millis(200));
        }
        // The kernel kills the node with us.
        std::process::exit(1);
    })?;
    Ok(())
}

struct Agent {
    out: Out,
    watched: Arc<Watched>,
    child: Option<Child>,
}

impl Agent {
    /// Until the end of input, which is that of the channel.
    fn serve(&mut self, from: &mut impl Read) -> io::Result<()> {
        while let Some(frame) = wire::read(from)? {
            self.watched.heard();
            match frame.kind {
                Kind::Stdio => self.child.iter_mut().for_each(|child| child.input(&frame.body)),
                Kind::Message => match frame.message()? {
                    Order::End => break,
                    order => self.obey(frame.id, order),
                },
                Kind::Stderr | Kind::File => {}
            }
        }
        if let Some(child) = self.child.take() {
            child.kill();
        }
        Ok(())
    }

    fn obey(&mut self, id: u32, order: Order) {
        match order {
            Order::Hello { version, silence_s } => self.hello(id, version, silence_s),
            Order::Ping | Order::End => {}
            Order::Watch { interface, dir } => {
                *self.watched.places.lock().unwrap_or_else(PoisonError::into_inner) = Some((interface, dir));
                self.out.news(id, &News::Done);
            }
            Order::Start { args, dir, core } => self.start(id, args, &dir, core),
            Order::Kill => {
                let gone = self.child.take().is_none_or(Child::kill);
                let result = if gone { Ok(News::Done) } else { Err(io::Error::other("the node can't be killed")) };
                self.out.answer(id, result);
            }
            Order::MakeDir { path } => self.out.answer(id, files::make_dir(&path).map(|()| News::Done)),
            Order::RemoveDir { path } => self.out.answer(id, files::remove_dir(&path).map(|()| News::Done)),
            Order::List { path } => self.out.answer(id, files::list(&path).map(|files| News::Files { files })),
            // What takes its time has a thread of its own, so that pings are heard.
            Order::Get { path } => {
                self.aside(id, move |out| files::read(&path, |piece| out.bytes(Kind::File, id, piece)));
            }
            Order::Hash { path } => self.aside(id, move |_| files::read(&path, |_| {})),
            Order::Facts { interface, address, dir } => {
                let clock_s = self.watched.clock_s();
                let answer =
                    move |_: &Out| Ok(News::Facts(Box::new(facts::gather(&interface, &address, &dir, clock_s))));
                self.aside(id, answer);
            }
            Order::Echo { address } => self.out.answer(id, reach::echo(&address).map(|port| News::Echo { port })),
            Order::Reach { from, to, packet_bytes } => {
                self.aside(id, move |_| {
                    let round_trips = reach::reach(&from, &to, packet_bytes)?;
                    Ok(News::Reached { round_trips })
                });
            }
            Order::Change { record, interface, wishes, dry_run } => {
                self.aside(id, move |_| {
                    let (places, record) = (settings::Places::default(), Path::new(&record));
                    let changes = settings::change(&places, record, &interface, &wishes, dry_run)?;
                    Ok(News::Changed { changes })
                });
            }
            Order::Restore { record, dry_run } => {
                let done = move |_: &Out| settings::restore(Path::new(&record), dry_run);
                self.aside(id, move |out| Ok(News::Changed { changes: done(out)? }));
            }
            Order::Latency { count } => {
                self.aside(id, move |_| Ok(News::Latency { medians: reach::latency_of_cores(count) }));
            }
        }
    }

    fn hello(&self, id: u32, version: u32, silence_s: f64) {
        // A nonsense limit must not end the agent at once, nor let it live for ever.
        let silence_ms = (silence_s.clamp(1.0, 3600.0) * 1e3) as u64;
        self.watched.silence_ms.store(silence_ms, Ordering::Relaxed);
        if version != wire::VERSION {
            let text = format!("this agent speaks protocol version {}, not {version}", wire::VERSION);
            return self.out.news(id, &News::Failed { text });
        }
        self.out.news(
            id,
            &News::Hello {
                version: wire::VERSION,
                tool: concat!("cp-node ", env!("CARGO_PKG_VERSION")).to_owned(),
                host: facts::word("/proc/sys/kernel/hostname").unwrap_or_default(),
                kernel: facts::word("/proc/sys/kernel/osrelease").unwrap_or_default(),
                pid: std::process::id(),
                clock_s: self.watched.clock_s(),
            },
        );
    }

    fn start(&mut self, id: u32, args: Vec<String>, dir: &str, core: Option<usize>) {
        if let Some(child) = self.child.take() {
            child.kill();
        }
        let started = Child::start(args, dir, core, &self.out).map(|child| {
            let pid = child.pid;
            self.child = Some(child);
            News::Started { pid }
        });
        self.out.answer(id, started);
    }

    /// Does `work` in a thread, and answers with what comes of it.
    fn aside(&self, id: u32, work: impl FnOnce(&Out) -> io::Result<News> + Send + 'static) {
        let out = self.out.clone();
        let spawned = thread::Builder::new().name("order".into()).spawn(move || {
            let result = work(&out);
            out.answer(id, result);
        });
        if let Err(err) = spawned {
            self.out.answer(id, Err(err));
        }
    }
}
