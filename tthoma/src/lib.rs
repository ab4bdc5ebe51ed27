//! tthoma
pub mod clock;
pub mod event;
pub mod hosts;
pub mod packets;
pub mod read;
#[cfg(test)]
mod testing;
pub mod vocabulary;
