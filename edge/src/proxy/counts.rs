//! How many there are of each at once: connections of an address, requests of a host.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

pub struct Counts<K>(Arc<Mutex<HashMap<K, usize>>>);

/// One of them; given back when it is dropped.
pub struct Counted<K: Hash + Eq> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Counts<K> {
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// None when there are `most` already.
    pub fn take(&self, key: K, most: usize) -> Option<Counted<K>> {
        let mut counts = self.0.lock();
        let count = counts.entry(key.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Counted { counts: self.0.clone(), key })
    }
}

impl<K: Hash + Eq> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_allowed_and_nothing_is_kept_afterwards() {
        let counts = Counts::new();
        let held: Vec<_> = (0..2).map(|_| counts.take("a", 2).unwrap()).collect();
        assert!(counts.take("a", 2).is_none());
        assert!(counts.take("b", 2).is_some());
        drop(held);
        assert!(counts.0.lock().is_empty());
    }
}
