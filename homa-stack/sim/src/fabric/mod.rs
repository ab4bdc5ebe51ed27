//! Links, switches and how they are joined.

mod link;
mod switch;
mod topology;

pub(crate) use link::Link;
pub use switch::{DropReason, PortStats, SwitchConfig, SwitchStats};
pub(crate) use switch::{Fabric, Hop, mix};
pub use topology::{Routing, Topology};
