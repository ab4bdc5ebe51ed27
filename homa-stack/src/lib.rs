//! stack
pub mod metrics;
pub mod trace;
pub mod units;
pub mod wire;
pub use units::{Instant, Nanos, Priority, RpcId};
