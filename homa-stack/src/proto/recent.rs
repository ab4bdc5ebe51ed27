//! Where what packets were about of late stands in a table: a look at a few bytes that are near, in place of one at a
//! hash table that is not.

use std::cell::Cell;

/// Keys remembered.
const PLACES: usize = 64;

/// Keys of a table, each in the place that its hash has. They are hints: the table says whether one is right.
#[derive(Debug)]
pub(crate) struct Recent([Cell<u32>; PLACES]);

impl Default for Recent {
    fn default() -> Self {
        Self([const { Cell::new(u32::MAX) }; PLACES])
    }
}

impl Recent {
    /// The key that what hashes to `hash` may have.
    #[inline]
    pub(crate) fn at(&self, hash: u64) -> usize {
        self.0[place(hash)].get() as usize
    }

    /// Takes note that what hashes to `hash` has `key`.
    #[inline]
    pub(crate) fn set(&self, hash: u64, key: usize) {
        self.0[place(hash)].set(u32::try_from(key).unwrap_or(u32::MAX));
    }
}

#[inline]
fn place(hash: u64) -> usize {
    // The upper bits of a product depend on all bits of the factor (Fibonacci hashing).
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_of_a_place_is_remembered() {
        let recent = Recent::default();
        assert_eq!(recent.at(1), u32::MAX as usize);
        recent.set(1, 7);
        assert_eq!(recent.at(1), 7);
        let other = (2..).find(|&hash| place(hash) == place(1)).unwrap();
        recent.set(other, 8);
        assert_eq!((recent.at(1), recent.at(other)), (8, 8));
        recent.set(1, usize::MAX);
        assert_eq!(recent.at(1), u32::MAX as usize, "what is too large is not remembered");
    }

    #[test]
    fn neighbours_have_places_of_their_own() {
        let places: std::collections::HashSet<_> = (0..32).map(|hash| place(hash * 2)).collect();
        assert!(places.len() >= 24, "{} places for 32 ids", places.len());
    }
}
