//! Chance: every part of a world draws from dice of its own, so that one that draws once more changes nobody else's luck.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use std::time::Duration;

pub struct Dice(StdRng);

impl Dice {
    /// The dice of one part of the world of `seed`.
    pub fn new(seed: u64, part: &str) -> Self {
        let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(part).finalize();
        Self(StdRng::from_seed(digest.into()))
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, chance: u32) -> bool {
        self.0.random_range(0..100) < chance
    }

    /// Within `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    pub fn seconds(&mut self, low: u64, high: u64) -> Duration {
        self.millis(low * 1000, high * 1000)
    }

    /// One of them; `all` is not empty.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.0.random_range(0..all.len())]
    }

    /// The value of one of the pairs, as often as its number says.
    pub fn weighted<T: Copy>(&mut self, all: &[(u64, T)]) -> T {
        let mut left = self.between(1, all.iter().map(|(weight, _)| weight).sum());
        for (weight, value) in all {
            if left <= *weight {
                return *value;
            }
            left -= weight;
        }
        all[0].1
    }
}
