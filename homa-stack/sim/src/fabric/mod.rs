//! Links, switches and how they are joined.

mod switch;
mod topology;

pub use switch::{DropReason, PortStats, SwitchConfig, SwitchStats};
pub use topology::{Routing, Topology};
