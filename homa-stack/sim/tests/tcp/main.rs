//! TCP against closed forms and published behaviour.

mod net;

mod acknowledging;
mod congestion;
mod recovery;
