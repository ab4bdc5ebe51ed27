//! cperf
