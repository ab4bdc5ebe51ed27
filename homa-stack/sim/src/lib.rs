//! A cluster in virtual time: hosts that run homa-stack's own protocol core, or TCP, or a transport of yours, joined by
//! a packet-level model of links and switches.
//!
//! | module | holds |
//! | --- | --- |
//! | [`transport`], [`port`] | what a transport is, with a whole example |
//! | [`app`] | what an application is: one object for all hosts |
//! | [`time`], [`packet`] | picoseconds; what travels |
//! | [`fabric`] | links, switches with shared memory, topologies |
//! | [`host`] | what hosts add: delays, cores, batches, noise |
//! | [`engine`] | the loop that joins them: [`Sim`] |
//! | [`homa`] | Homa: the protocol core as shipped |
//! | [`tcp`] | TCP cubic and DCTCP |
//! | [`load`] | RPCs at random times, timed, as cp-node makes them |
//! | [`cluster`] | a whole measurement: load, run, results |
//! | [`sigcomm18`] | the published study of slowdowns |
//!
//! A run is one thread and draws all its random numbers from its seed: equal specifications give equal results, to the
//! byte.

mod alone;
pub mod app;
pub mod both;
pub mod cluster;
pub mod engine;
pub mod fabric;
pub mod homa;
pub mod host;
pub mod load;
pub mod packet;
mod packets;
pub mod port;
mod queue;
pub mod sigcomm18;
mod sys;
pub mod tcp;
pub mod threads;
pub mod time;
pub mod transport;

pub use app::{App, Cx};
pub use engine::{Ended, Sim};
pub use host::HostModel;
pub use packet::{Ecn, HostId, Packet, frame_bytes};
pub use port::Port;
pub use time::Time;
pub use transport::{Call, Event, Request, Transport};
