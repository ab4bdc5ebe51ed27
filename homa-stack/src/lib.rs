//! homa-stack
