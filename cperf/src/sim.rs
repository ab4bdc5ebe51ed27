//! The simulated testbed: what one measurement in virtual time is, as data, and running it.
//!
//! | module | holds |
//! | --- | --- |
//! | [`spec`] | [`SimSpec`](spec::SimSpec): everything that a measurement's result depends on, from options or experiment files |
//! | [`check`] | which values make sense, and the load by rule |
//! | [`cluster`] | a `SimSpec` in the simulator's terms; runs it |
//! | [`switch`] | what happened at the switches |
//! | [`model`] | what is modelled and what is not, for manifests |
//!
//! A measurement is one thread and draws all random numbers from its seed: equal specifications give equal results, to
//! the byte, whatever else the machine does.

pub mod check;
pub mod cluster;
pub mod model;
pub mod spec;
pub mod switch;
