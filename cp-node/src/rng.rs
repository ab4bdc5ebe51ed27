//! Random numbers that repeat: one independent stream for each client port.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng};

/// A stream of random numbers, the same on every platform for the same seed.
#[derive(Clone, Debug)]
pub struct Rng(Xoshiro256PlusPlus);

impl Rng {
    /// The streams of `count` ports of node `node`, from one seed.
    ///
    /// Streams of one node do not overlap (each starts 2^192 numbers after the previous one), and the same seed gives
    /// other numbers on other nodes.
    pub fn streams(seed: u64, node: Option<u8>, count: usize) -> Vec<Self> {
        let node = node.map_or(0, |n| u64::from(n) + 1);
        // An odd multiplier keeps different (seed, node) pairs different; the generator's own seeding mixes the bits.
        let mut first = Xoshiro256PlusPlus::seed_from_u64(seed ^ node.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        (0..count)
            .map(|_| {
                let stream = Self(first.clone());
                first.long_jump();
                stream
            })
            .collect()
    }

    /// A number in [0, 1) with 53 random bits.
    pub fn fraction(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number in 0..`n`, each equally likely up to a bias of `n` / 2^64; 0 for `n` = 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// A number from the exponential distribution with mean 1.
    pub fn exponential(&mut self) -> f64 {
        // 1 - u is in (0, 1], so the logarithm is finite.
        -(1.0 - self.fraction()).ln()
    }
}

/// A seed from the operating system, for runs without `--seed`.
///
/// # Errors
/// If the kernel has no random numbers.
pub fn seed_from_os() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(mut rng: Rng) -> Vec<usize> {
        (0..8).map(|_| rng.below(1 << 20)).collect()
    }

    #[test]
    fn a_seed_repeats_and_streams_differ() {
        let a: Vec<_> = Rng::streams(7, Some(1), 3).into_iter().map(head).collect();
        let b: Vec<_> = Rng::streams(7, Some(1), 3).into_iter().map(head).collect();
        assert_eq!(a, b);
        assert_ne!(a[0], a[1]);
        assert_ne!(a[1], a[2]);
        assert_ne!(a[0], head(Rng::streams(7, Some(2), 1).remove(0)), "another node");
        assert_ne!(a[0], head(Rng::streams(8, Some(1), 1).remove(0)), "another seed");
    }

    #[test]
    fn the_exponential_has_mean_one() {
        let mut rng = Rng::streams(1, None, 1).remove(0);
        let n = 200_000;
        let mean = (0..n).map(|_| rng.exponential()).sum::<f64>() / f64::from(n);
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
    }
}
