//! The application's interface for any number of threads and tasks, above an endpoint that one thread runs.
//!
//! [`Runner::spawn`] moves a host to a thread of its own and returns a [`Handle`], from which come
//!
//! | | for | waits |
//! | --- | --- | --- |
//! | [`Client::call`] | one call | blocking, with a time-out |
//! | [`Client::start`] | calls that are waited for later, or as futures on any executor | [`Call::wait`], `.await` |
//! | [`Client::batch`] | many calls, whose ends are taken as they come | memory to look at, blocking, tasks, a file descriptor |
//! | [`Handle::bind`] | a port's requests, each with a [`Reply`] that is used up by answering | the same |
//! | [`Handle::bind_early`] | requests that are read while they arrive, the header first | blocking |
//!
//! [`Group::spawn`] does the same for the workers of a host ([`driver::open_group`](crate::driver::open_group)), a
//! thread each, with the same clients and servers for all of them.
//!
//! Messages come as a [`Body`](crate::Body), which returns its pages to the receive pool when it is dropped. Dropping
//! anything else undoes it: a call is given up, a request without a reply too, a port is freed.
//!
//! The four operations, `call`, `recv`, `reply` and the blocking call that joins the first with its end:
//!
//! ```
//! use homa_stack::api::{Runner, RunnerConfig};
//! use homa_stack::device::memory; // `driver::Host::open` on a real network
//!
//! let (a, b) = memory::pair();
//! let client = Runner::spawn(a, RunnerConfig::default())?.client()?;
//! let server = Runner::spawn(b, RunnerConfig::default())?.bind(99)?;
//! let to = (memory::ADDRS[1], 99).into();
//!
//! let call = client.start(to, "6 * 7")?;
//! let request = server.recv()?;
//! assert_eq!(request.body, "6 * 7");
//! request.reply.send("42")?;
//! assert_eq!(call.wait()?, "42");
//!
//! let serving = std::thread::spawn(move || server.recv()?.reply.send("43"));
//! assert_eq!(client.call(to, "6 * 7 + 1")?, "43");
//! serving.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Limits
//!
//! Calls under way ([`RunnerConfig::max_calls`], the capacity of a batch) are refused beyond a limit, with an error that
//! says so ([`CallError::is_full`]). Calls that are accepted but have no room among what is being sent
//! ([`Config::tx_budget`](crate::Config::tx_budget) and its companions) wait for it, within their time. Received bytes are bounded by the receive pool: bodies that are not dropped hold
//! its pages, and messages that find no room wait at their senders.
//!
//! # Latency
//!
//! Handing over to a thread that spins or looks into memory costs a microsecond or two each way, waking one that sleeps
//! some 12 more and up to 50 on an idle core (figures: `docs/api.md`, bench `handover`).
//! Applications that need neither use [`driver::Host`](crate::driver::Host) in their own thread, without this module.

mod batch;
mod call;
mod client;
mod error;
mod group;
mod handle;
mod runner;
mod server;
mod shared;
mod stream;
mod wait;

pub use batch::{Batch, CallId, Completion};
pub use call::Call;
pub use client::Client;
pub use error::{BindError, CallError, ReplyError, Stopped};
pub use group::Group;
pub use handle::{Handle, Stats};
pub use runner::{Engine, Runner, RunnerConfig, Wake};
pub use server::{Recv, Reply, Request, Server, WakePolicy};
pub use stream::{Cut, EarlyServer, Incoming};
