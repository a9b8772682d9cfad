//! Randomness for hash tables, so that no sender can aim at a bucket.

use std::hash::{BuildHasher, RandomState};

/// A seed that differs from process to process, from the operating system's randomness as the
/// standard library draws it for its own hash maps. Not for cryptography.
#[must_use]
pub fn random_seed() -> [u64; 4] {
    let state = RandomState::new();
    [0u8, 1, 2, 3].map(|n| state.hash_one(n))
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_differ() {
        let (a, b) = (super::random_seed(), super::random_seed());
        assert_ne!(a, b);
        assert!(a[1..].iter().all(|word| *word != a[0]));
    }
}
