//! Bugs on purpose, so that tests can show that they would be found.

use super::config::Config;

/// What is turned off. Only the feature `check` makes it possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "check"), allow(dead_code, unreachable_pub, reason = "nothing can plant them"))]
pub enum Planted {
    /// Memory of requests: one that was seen before is run again.
    Tombstones,
    /// The look for duplicates: bytes that came before are counted as new.
    DuplicateCheck,
    /// The limit of grants to `max_incoming`.
    GrantClamp,
    /// The limit of grants to their message's length.
    LengthClamp,
    /// The look whether a packet belongs to another endpoint of the host.
    Steering,
}

impl Config {
    /// True if `what` is turned off; the compiler knows that it is not without the feature `check`.
    #[inline]
    pub(crate) fn lacks(&self, what: Planted) -> bool {
        #[cfg(feature = "check")]
        return self.planted == Some(what);
        #[cfg(not(feature = "check"))]
        {
            let _ = what;
            false
        }
    }
}
