//! How a node is, in one sentence. Silence is never health.

use crate::kube::{Node, condition};
use crate::state::{Action, Sentence, State};
use crate::time;
use crate::words::{Word, t};
use longshore_api::edge;

/// Since when a node is silent, where it is: its Ready condition is unknown.
pub fn silent_since(node: &Node) -> Option<&str> {
    let ready = condition(&node.status.conditions, "Ready").filter(|c| c.status == "Unknown")?;
    let heard = [&ready.last_heartbeat_time, &ready.last_transition_time];
    Some(heard.into_iter().find(|time| !time.is_empty()).map_or("", String::as_str))
}

/// The ports at which it serves its cluster's domains, if it does.
pub fn served_at(node: &Node) -> Option<String> {
    edge::is_marked(&node.metadata.labels).then(|| {
        let ports = edge::ports(&node.metadata.annotations);
        let ports = [ports.http, ports.https].into_iter().filter(|port| *port > 0).map(|port| port.to_string());
        ports.collect::<Vec<_>>().join(", ")
    })
}

pub fn sentence(node: &Node, pods: Option<usize>, now: i64) -> Sentence {
    let Some(ready) = condition(&node.status.conditions, "Ready") else {
        let ago = time::ago_text(&node.metadata.creation_timestamp, now);
        return Sentence::new(State::Progressing, Word::NodeJoining.with(&[("ago", &ago)]));
    };
    if let Some(since) = silent_since(node) {
        let text = Word::NodeSilent.with(&[("ago", &time::ago_text(since, now))]);
        return Sentence::new(State::Unknown, text).evidence(&ready.message).next(Word::NextCheckAgent, None);
    }
    if ready.status != "True" {
        return Sentence::new(State::Failing, t(Word::NodeNotReady))
            .evidence(&ready.message)
            .next(Word::NextCheckDocker, None);
    }
    for (name, word) in [
        ("DiskPressure", Word::NodeDisk),
        ("MemoryPressure", Word::NodeMemory),
        ("PIDPressure", Word::NodeProcesses),
        ("NetworkUnavailable", Word::NodeNetwork),
    ] {
        if let Some(pressure) = condition(&node.status.conditions, name).filter(|c| c.status == "True") {
            return Sentence::new(State::Degraded, t(word)).evidence(&pressure.message);
        }
    }
    let span = time::parse(&ready.last_transition_time)
        .map_or_else(|| t(Word::Unknown).into(), |since| time::span(now - since));
    if node.spec.unschedulable {
        return Sentence::new(State::Idle, Word::NodeCordoned.with(&[("span", &span)]))
            .next(Word::NextUncordon, Some(Action::Uncordon));
    }
    let text = match pods {
        Some(pods) => {
            Word::NodeReadyWithPods.with(&[("span", &span), ("pods", &crate::words::plural(Word::Pods, pods as i64))])
        }
        None => Word::NodeReady.with(&[("span", &span)]),
    };
    Sentence::new(State::Good, text)
}

/// A check on the page that adds nodes: what it is about, and whether it holds (`None`: not known yet).
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    pub name: Word,
    pub holds: Option<bool>,
    pub shown: String,
}

/// What a new node is watched for until it can take pods.
pub fn checks(node: &Node) -> Vec<Check> {
    let address = node.status.addresses.iter().find(|a| a.r#type == "InternalIP").map(|a| a.address.clone());
    let docker = &node.status.node_info.container_runtime_version;
    let holds = |name: &str, good: &str| {
        condition(&node.status.conditions, name).and_then(|c| (c.status != "Unknown").then(|| c.status == good))
    };
    let message = |name: &str| condition(&node.status.conditions, name).map(|c| c.message.clone()).unwrap_or_default();
    vec![
        Check {
            name: Word::CheckConnected,
            holds: Some(silent_since(node).is_none()),
            shown: node.status.node_info.kubelet_version.clone(),
        },
        Check {
            name: Word::CheckAddress,
            holds: address.is_some().then_some(true),
            shown: address.unwrap_or_default(),
        },
        Check { name: Word::CheckRuntime, holds: (!docker.is_empty()).then_some(true), shown: docker.clone() },
        Check {
            name: Word::CheckRange,
            holds: (!node.spec.pod_cidr.is_empty()).then_some(true),
            shown: node.spec.pod_cidr.clone(),
        },
        Check { name: Word::CheckDisk, holds: holds("DiskPressure", "False"), shown: String::new() },
        Check { name: Word::CheckReady, holds: holds("Ready", "True"), shown: message("Ready") },
    ]
}

/// `node-role.kubernetes.io/…` labels as kubectl prints them.
pub fn roles(node: &Node) -> Vec<&str> {
    node.metadata.labels.keys().filter_map(|k| k.strip_prefix("node-role.kubernetes.io/")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Read;
    use serde_json::{Value, json};

    const NOW: i64 = 1_767_225_600_000; // 2026-01-01T00:00:00Z

    fn node(spec: Value, conditions: Value) -> Node {
        Read::read(&json!({"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": conditions}}))
    }

    #[test]
    fn silence_is_unknown_since_the_last_heartbeat() {
        let silent = json!([{"type": "Ready", "status": "Unknown", "lastHeartbeatTime": "2025-12-31T23:57:00Z", "lastTransitionTime": "2025-12-31T23:58:00Z"}]);
        let sentence = sentence(&node(json!({}), silent), None, NOW);
        assert_eq!(sentence.state, State::Unknown);
        assert!(sentence.text.contains("3 minutes ago"), "{}", sentence.text);
    }

    #[test]
    fn ready_cordoned_pressed_and_joining_differ() {
        let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2025-12-31T22:00:00Z"}]);
        let state = |spec: Value, conditions: Value| sentence(&node(spec, conditions), Some(3), NOW).state;
        assert_eq!(state(json!({}), ready.clone()), State::Good);
        assert_eq!(state(json!({"unschedulable": true}), ready.clone()), State::Idle);
        assert_eq!(state(json!({}), json!([ready[0], {"type": "DiskPressure", "status": "True"}])), State::Degraded);
        assert_eq!(state(json!({}), json!([])), State::Progressing);
        assert_eq!(state(json!({}), json!([{"type": "Ready", "status": "False"}])), State::Failing);
    }

    #[test]
    fn checks_turn_from_unknown_to_true() {
        let fresh = checks(&node(json!({}), json!([])));
        assert!(fresh.iter().skip(1).all(|c| c.holds.is_none()));
        let ready = checks(&node(json!({"podCIDR": "10.1.0.0/24"}), json!([{"type": "Ready", "status": "True"}])));
        assert_eq!(ready.last().unwrap().holds, Some(true));
        assert_eq!(ready[3].holds, Some(true));
    }

    #[test]
    fn an_edge_serves_at_its_ports() {
        let node = |labels: serde_json::Value, annotations: serde_json::Value| -> Node {
            Read::read(&json!({"metadata": {"name": "n", "labels": labels, "annotations": annotations}}))
        };
        let marked = json!({"longshore.dev/edge": "true"});
        assert_eq!(served_at(&node(json!({}), json!({}))), None);
        assert_eq!(served_at(&node(marked.clone(), json!({}))).as_deref(), Some("80, 443"));
        let own = json!({"longshore.dev/edge-http-port": "0", "longshore.dev/edge-https-port": "8443"});
        assert_eq!(served_at(&node(marked, own)).as_deref(), Some("8443"));
    }
}
