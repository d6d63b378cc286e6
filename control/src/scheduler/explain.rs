//! Why a pod was put where it is, or nowhere: what was decided, kept for people to read.

use crate::action::ObjectKey;
use jiff::Timestamp;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// How a node was judged that would have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeScore {
    pub node: String,
    pub total: i64,
    /// Kubernetes's name of each part, and its points times its weight. Empty where there was no choice.
    pub parts: Vec<(&'static str, i64)>,
}

/// How a decision came about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Why {
    /// Nodes there were.
    pub nodes: usize,
    /// Nodes that would have done, of those looked at: in a large cluster enough of them end the search.
    pub feasible: usize,
    /// How many of the nodes looked at were refused for what, the most frequent first.
    pub refused: Vec<(String, usize)>,
    /// The best few, the chosen one first.
    pub best: Vec<NodeScore>,
}

/// A decision as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub uid: String,
    pub at: Timestamp,
    /// The node; none: it waits.
    pub node: Option<String>,
    /// Why it waits, as its event says it.
    pub message: Option<Arc<str>>,
    /// Room is made for it there.
    pub nominated: Option<String>,
    /// `namespace/name` of those who have to go for it.
    pub victims: Vec<String>,
    pub profile: String,
    pub why: Arc<Why>,
}

/// The last decisions of a cluster, one for each pod; the oldest go first.
#[derive(Debug)]
pub struct Explanations {
    limit: usize,
    by_pod: HashMap<ObjectKey, (u64, Explanation)>,
    order: VecDeque<(u64, ObjectKey)>,
    next: u64,
}

impl Explanations {
    /// Remembers so many.
    pub fn new(limit: usize) -> Self {
        Self { limit, by_pod: HashMap::new(), order: VecDeque::new(), next: 0 }
    }

    pub fn put(&mut self, pod: ObjectKey, explanation: Explanation) {
        let number = self.next;
        self.next += 1;
        self.by_pod.insert(pod.clone(), (number, explanation));
        self.order.push_back((number, pod));
        // Places of what was decided anew since are void: they count until they come to the front.
        while self.by_pod.len() > self.limit || self.order.len() > 2 * self.limit {
            let Some((number, pod)) = self.order.pop_front() else { break };
            if self.by_pod.get(&pod).is_some_and(|(latest, _)| *latest == number) {
                self.by_pod.remove(&pod);
            }
        }
    }

    pub fn get(&self, pod: &ObjectKey) -> Option<&Explanation> {
        self.by_pod.get(pod).map(|(_, explanation)| explanation)
    }

    pub fn len(&self) -> usize {
        self.by_pod.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_pod.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_last_of_each_and_no_more_than_it_may() {
        let mut all = Explanations::new(3);
        let key = |i: usize| ObjectKey::new("pods", "d", format!("p{i}"));
        let said = |uid: String| Explanation {
            uid,
            at: Timestamp::UNIX_EPOCH,
            node: None,
            message: None,
            nominated: None,
            victims: Vec::new(),
            profile: String::new(),
            why: Arc::default(),
        };
        for i in 0..5 {
            all.put(key(i), said(format!("u{i}")));
        }
        assert_eq!(all.len(), 3);
        assert!(all.get(&key(1)).is_none() && all.get(&key(2)).is_some());
        for i in 0..100 {
            all.put(key(4), said(format!("again{i}")));
            assert!(all.order.len() <= 6);
        }
        assert_eq!(all.get(&key(4)).map(|e| e.uid.as_str()), Some("again99"));
    }
}
