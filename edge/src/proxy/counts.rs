//! How many there are of each at once: connections of an address, requests of a host.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

pub struct Counts<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Clone for Counts<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

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

/// Who is one client. Who has at least one address of IPv6 has 2⁶⁴ of them.
pub fn counted_as(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
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

    #[test]
    fn clients_of_ipv6_are_counted_by_their_network() {
        let counted = |ip: &str| counted_as(ip.parse().unwrap()).to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("192.0.2.1"), "192.0.2.1");
    }
}
