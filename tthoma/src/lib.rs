//! tthoma
pub mod analyze;
pub mod clock;
pub mod event;
pub mod hosts;
mod out;
pub mod packets;
pub mod read;
#[cfg(test)]
mod testing;
pub mod vocabulary;
