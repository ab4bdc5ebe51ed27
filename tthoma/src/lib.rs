//! tthoma
