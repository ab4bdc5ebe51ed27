//! stack
pub mod device;
#[cfg(feature = "driver")]
pub mod driver;
pub mod metrics;
pub mod proto;
pub mod trace;
pub mod units;
pub mod wire;
pub use proto::{Config, Endpoint, Event, Message, Payload, RpcError, SendError, ServerRpc, Transmit};
pub use units::{Instant, Nanos, Priority, RpcId};
