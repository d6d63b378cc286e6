//! Why a pod is where it is, as the scheduler tells it.

use crate::read::shape;
use crate::words::{Word, plural, t};

shape!(
    /// What `…/pods/{name}/scheduling` of `longshore.dev` answers.
    Scheduling {
        node_name: String,
        nominated_node_name: String,
        victims: Vec<String>,
        nodes: i64,
        feasible_nodes: i64,
        refused: Vec<Refused>,
        best: Vec<Best>,
    }
);
shape!(Refused { reason: String, nodes: i64 });
shape!(
    /// A node that would have done; the chosen one comes first.
    Best { node: String, score: i64, parts: Vec<Part> }
);
shape!(Part { name: String, score: i64 });

impl Scheduling {
    /// How it came out.
    pub fn sentence(&self) -> String {
        let nodes = plural(Word::NodeCount, self.nodes);
        if !self.node_name.is_empty() {
            Word::WhyChosen.with(&[("feasible", &self.feasible_nodes), ("nodes", &nodes)])
        } else if !self.nominated_node_name.is_empty() {
            Word::WhyRoomMade.with(&[("node", &self.nominated_node_name), ("victims", &self.victims.join(", "))])
        } else {
            Word::WhyNowhere.with(&[("nodes", &nodes)])
        }
    }
}

impl Best {
    /// What its points are made of, those that gave any.
    pub fn parts(&self) -> String {
        let parts = self.parts.iter().filter(|p| p.score != 0);
        parts.map(|p| format!("{} {}", part(&p.name), p.score)).collect::<Vec<_>>().join(" · ")
    }
}

/// A part by the name the scheduler has for it; one that isn't known yet keeps that.
fn part(name: &str) -> &str {
    t(match name {
        "TaintToleration" => Word::PartTaints,
        "NodeAffinity" => Word::PartNodeAffinity,
        "PodTopologySpread" => Word::PartSpread,
        "InterPodAffinity" => Word::PartPodAffinity,
        "NodeResourcesFit" => Word::PartRoom,
        "NodeResourcesBalancedAllocation" => Word::PartBalance,
        "ImageLocality" => Word::Images,
        other => return other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Read;
    use serde_json::json;

    #[test]
    fn says_how_it_came_out() {
        let read = |tree| Scheduling::read(&tree).sentence();
        assert_eq!(
            read(json!({"nodeName": "a", "nodes": 5, "feasibleNodes": 3})),
            "Chosen out of 3 that would do, of 5 nodes."
        );
        assert_eq!(
            read(json!({"nominatedNodeName": "a", "victims": ["d/x", "d/y"], "nodes": 1})),
            "Room is being made on a: d/x, d/y have to go."
        );
        assert_eq!(read(json!({"nodes": 1})), "None of 1 node will do.");
    }

    #[test]
    fn parts_are_named_in_words() {
        let best = Best::read(&json!({"node": "a", "score": 350, "parts": [{"name": "TaintToleration", "score": 300},
            {"name": "ImageLocality", "score": 0}, {"name": "Something", "score": 50}]}));
        assert_eq!(best.parts(), "Taints 300 · Something 50");
    }
}
