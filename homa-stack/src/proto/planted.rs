//! Bugs on purpose, so that tests can show that they would be found.

use super::config::Config;

/// A check that is turned off. Only the feature `check` makes it possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "check"), allow(dead_code, unreachable_pub, reason = "nothing can plant them"))]
pub enum Planted {
    /// A request that was seen before is run again.
    NoTombstones,
    /// Bytes that came before are counted as new.
    NoDuplicateCheck,
    /// Grants go beyond `max_incoming`.
    NoGrantClamp,
    /// Grants go beyond the end of their message.
    NoLengthClamp,
}

impl Config {
    /// True if `bug` is planted; the compiler knows that it is not without the feature `check`.
    #[inline]
    pub(crate) fn has(&self, bug: Planted) -> bool {
        #[cfg(feature = "check")]
        return self.planted == Some(bug);
        #[cfg(not(feature = "check"))]
        {
            let _ = bug;
            false
        }
    }
}
