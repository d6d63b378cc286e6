//! Which conversations go on, without connections to tell: by time alone. Pure.
//!
//! As Linux's conntrack has it for UDP (`nf_conntrack_udp_timeout` and `…_timeout_stream`), and so kube-proxy: a question and its
//! answer are remembered for 30 s, for 120 s whoever speaks again after an answer. Where there are too many, the one that
//! would end first ends at once: a question that was answered, or never will be, before a conversation.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;
use tokio::time::Instant;

pub const SHORT: Duration = Duration::from_secs(30);
pub const LONG: Duration = Duration::from_secs(120);
/// Of one port. Each is a file descriptor of its pod's node.
pub const MOST: usize = 4096;

pub struct Flows<K, V> {
    known: HashMap<K, Flow<V>>,
    ends: BTreeSet<(Instant, K)>,
    most: usize,
}

struct Flow<V> {
    value: V,
    ends: Instant,
    answered: bool,
    /// The client spoke after an answer.
    lasting: bool,
}

impl<V> Flow<V> {
    fn length(&self) -> Duration {
        if self.lasting { LONG } else { SHORT }
    }
}

impl<K: Copy + Hash + Ord, V> Flows<K, V> {
    pub fn new(most: usize) -> Self {
        Self { known: HashMap::new(), ends: BTreeSet::new(), most }
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.known.get(key).map(|flow| &flow.value)
    }

    /// The client speaks.
    pub fn asked(&mut self, key: K, now: Instant) -> Option<&V> {
        self.touch(key, now, |flow| flow.lasting |= flow.answered)
    }

    /// The endpoint speaks.
    pub fn answered(&mut self, key: K, now: Instant) -> Option<&V> {
        self.touch(key, now, |flow| flow.answered = true)
    }

    fn touch(&mut self, key: K, now: Instant, noted: impl FnOnce(&mut Flow<V>)) -> Option<&V> {
        let flow = self.known.get_mut(&key)?;
        noted(flow);
        self.ends.remove(&(flow.ends, key));
        flow.ends = now + flow.length();
        self.ends.insert((flow.ends, key));
        Some(&flow.value)
    }

    /// Begins a flow, in the place of the one with this key.
    pub fn begin(&mut self, key: K, value: V, now: Instant) {
        self.end(&key);
        if self.known.len() >= self.most
            && let Some((_, first)) = self.ends.pop_first()
        {
            self.known.remove(&first);
        }
        let ends = now + SHORT;
        self.known.insert(key, Flow { value, ends, answered: false, lasting: false });
        self.ends.insert((ends, key));
    }

    fn end(&mut self, key: &K) {
        if let Some(flow) = self.known.remove(key) {
            self.ends.remove(&(flow.ends, *key));
        }
    }

    /// When the next one ends.
    pub fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(ends, _)| *ends)
    }

    /// Ends those whose time has come.
    pub fn expire(&mut self, now: Instant) {
        while let Some((_, key)) = self.ends.first().copied().filter(|(ends, _)| *ends <= now) {
            self.end(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_conversation_lasts_longer_than_a_question() {
        let start = Instant::now();
        let mut flows = Flows::new(9);
        let left = |flows: &mut Flows<u8, ()>, after: u64| {
            flows.expire(start + seconds(after));
            [1, 2].map(|key| flows.get(&key).is_some())
        };
        flows.begin(1, (), start);
        flows.begin(2, (), start);
        for key in [1, 2] {
            assert!(flows.answered(key, start + seconds(1)).is_some());
        }
        assert!(flows.asked(2, start + seconds(2)).is_some());
        assert_eq!(flows.next_end(), Some(start + seconds(31)));
        assert_eq!(left(&mut flows, 30), [true, true]);
        assert_eq!(left(&mut flows, 31), [false, true]);
        assert_eq!(left(&mut flows, 121), [false, true]);
        assert_eq!(left(&mut flows, 122), [false, false]);
        assert!(flows.asked(2, start).is_none() && flows.next_end().is_none());
    }

    #[test]
    fn without_room_what_ends_first_ends_now() {
        let start = Instant::now();
        let mut flows = Flows::new(2);
        flows.begin("talks", 1, start);
        flows.answered("talks", start);
        flows.asked("talks", start);
        for (late, key) in ["a", "b", "c"].into_iter().enumerate() {
            flows.begin(key, 2, start + seconds(40 + late as u64));
        }
        assert_eq!(["talks", "a", "b", "c"].map(|key| flows.get(&key).copied()), [Some(1), None, None, Some(2)]);
        // Beginning again takes no other's place.
        flows.begin("c", 3, start + seconds(50));
        assert_eq!(["talks", "c"].map(|key| flows.get(&key).copied()), [Some(1), Some(3)]);
        assert_eq!((flows.known.len(), flows.ends.len()), (2, 2));
    }
}
