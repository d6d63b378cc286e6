//! What is decided about a pod, and what calls for a look.

use super::explain::{Explanation, Why};
use super::preempt::Preemption;
use super::queue::{is_told, profile_of};
use crate::projection::{Pod, PodScheduled};
use crate::view::Item;
use jiff::Timestamp;
use std::sync::Arc;

/// What was decided about one pod.
#[derive(Clone, Debug)]
pub struct Decision {
    pub pod: Item<Pod>,
    pub verdict: Verdict,
    pub why: Arc<Why>,
}

#[derive(Clone, Debug)]
pub enum Verdict {
    Bind {
        node: String,
    },
    /// No node will do; why, in Kubernetes's words. `nominated` is where room is being made, empty where nowhere.
    Wait {
        message: Arc<str>,
        nominated: String,
    },
    /// No node will do now, but room can be made.
    Preempt {
        message: Arc<str>,
        preemption: Preemption,
    },
}

impl Decision {
    /// Whether anything is to be written about it.
    pub fn is_news(&self) -> bool {
        let known = |message: &str, nominated: &str| {
            let told = matches!(&self.pod.scheduled, PodScheduled::No { message: told, .. } if told == message);
            told && is_told(&self.pod) && self.pod.nominated_node == nominated
        };
        match &self.verdict {
            Verdict::Bind { .. } => true,
            Verdict::Wait { message, nominated } => !known(message, nominated),
            Verdict::Preempt { message, preemption } => {
                !known(message, &preemption.node) || preemption.victims.iter().any(|v| !v.meta.is_terminating())
            }
        }
    }

    pub fn explanation(&self, now: Timestamp) -> Explanation {
        let (node, message, preemption) = match &self.verdict {
            Verdict::Bind { node } => (Some(node.clone()), None, None),
            Verdict::Wait { message, .. } => (None, Some(message.clone()), None),
            Verdict::Preempt { message, preemption } => (None, Some(message.clone()), Some(preemption)),
        };
        let nominated = match &self.verdict {
            Verdict::Wait { nominated, .. } => Some(nominated.clone()).filter(|n| !n.is_empty()),
            _ => preemption.map(|p| p.node.clone()),
        };
        let name = |v: &Item<Pod>| format!("{}/{}", v.key.namespace, v.key.name);
        Explanation {
            uid: self.pod.meta.uid.clone(),
            at: now,
            node,
            message,
            nominated,
            victims: preemption.map(|p| p.victims.iter().map(name).collect()).unwrap_or_default(),
            profile: profile_of(&self.pod).to_string(),
            why: self.why.clone(),
        }
    }
}

/// What was decided in one go.
#[derive(Debug, Default)]
pub struct Batch {
    pub decisions: Vec<Decision>,
    /// Others wait who had no turn.
    pub more: bool,
}

/// Whether a change calls for a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    Nothing,
    /// There may be room for pods that wait.
    Soon,
    /// A pod waits that nobody looked at.
    Now,
}
