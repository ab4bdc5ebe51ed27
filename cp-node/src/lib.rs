//! cp-node
