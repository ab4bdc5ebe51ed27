//! The state machine: told of packets, time and calls, asked for packets and news.
//!
//! It owns no socket, thread or clock and draws no randomness: the driver and the simulator run the same code.

mod abort;
mod announce;
mod bounds;
mod boxes;
#[cfg(feature = "check")]
mod check;
mod config;
mod cutoffs;
mod endpoint;
mod event;
mod frames;
#[cfg(feature = "check")]
#[doc(hidden)]
pub mod fuzz;
mod grants;
mod heap;
mod icmp;
mod incast;
mod informed;
mod input;
mod late;
mod memory;
mod output;
mod pacer;
mod payload;
mod peers;
mod planted;
pub mod policy;
mod pool;
mod ports;
mod private;
mod ranges;
mod recent;
mod recovery;
mod room;
mod rpc;
mod rx_message;
mod send_log;
mod shard;
mod starved;
mod streams;
mod timers;
mod timing;
mod tombstones;
mod tx_message;
mod waiting;
mod wheel;

pub use abort::Calls;
pub use announce::Announce;
#[cfg(feature = "check")]
#[doc(hidden)]
pub use check::Sizes;
pub use config::Config;
pub use endpoint::Endpoint;
pub(crate) use endpoint::check_length;
pub use event::{Event, Message, RpcError, SendError, ServerRpc};
pub use icmp::Refusal;
pub use memory::{BadMarks, Marks, Memory, MemoryBudget};
pub use output::Transmit;
pub use pacer::CreditPacer;
pub use payload::{MAX_HEAD, Payload};
#[cfg(feature = "check")]
#[doc(hidden)]
pub use planted::Planted;
pub use pool::{Body, BodyReader, PAGE_LEN};
pub use private::NotPrivate;
pub use room::{Limit, ReplyError};
pub use shard::{Forward, News, Shard, Target};
pub use streams::{Arriving, Progress};
