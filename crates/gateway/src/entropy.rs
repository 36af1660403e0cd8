//! The one place that draws randomness.

use std::sync::atomic::{AtomicU64, Ordering};

/// Random numbers that need not be secret: salts that must differ, jitter that must spread.
///
/// Seeded once by the operating system; each draw is a step of `SplitMix64` (Steele, Lea, Flood
/// 2014), so a draw costs nanoseconds and no system call. Secrets are drawn by the store.
#[derive(Debug)]
pub struct Entropy(AtomicU64);

impl Entropy {
    /// Seeded by the operating system.
    pub fn from_os() -> Result<Self, getrandom::Error> {
        Ok(Self::seeded(getrandom::u64()?))
    }

    /// Seeded by the caller: the same seed gives the same numbers.
    pub fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next number; no two of the first 2⁶⁴ are equal.
    pub fn next(&self) -> u64 {
        let step = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (step ^ (step >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to and without `bound`; 0 where `bound` is 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeded_numbers_repeat_and_do_not_collide() {
        let (one, two) = (Entropy::seeded(7), Entropy::seeded(7));
        let first: Vec<u64> = (0..1000).map(|_| one.next()).collect();
        let second: Vec<u64> = (0..1000).map(|_| two.next()).collect();
        assert_eq!(first, second);
        let distinct: std::collections::HashSet<u64> = first.into_iter().collect();
        assert_eq!(distinct.len(), 1000);
        assert_eq!(one.below(0), 0);
        assert!((0..100).all(|_| one.below(10) < 10));
    }
}
