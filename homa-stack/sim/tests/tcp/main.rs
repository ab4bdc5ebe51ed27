//! TCP against closed forms and published behaviour.

mod net;

mod acknowledging;
mod cluster;
mod congestion;
mod offload;
mod recovery;
