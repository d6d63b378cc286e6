//! What needs somebody: the top of the home page.
//!
//! Pods are judged by what the server prints for them (a Table), not by whole objects: ten thousand of them must fit into
//! a browser. Troubles of the same kind of the same workload are one entry.

use crate::deployment::{self, Progress};
use crate::kube::{Deployment, Meta, Node, condition};
use crate::node;
use crate::state::State;
use crate::table::{Collection, Column, Key, Row, named, pod_state, ratio};
use crate::time;
use crate::words::{Word, plural, t};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub state: State,
    pub title: String,
    pub detail: String,
    pub target: Target,
}

/// Where an entry leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// As paths name it: `pods`.
    pub resource: &'static str,
    pub key: Key,
    /// Set where there are several of them: shows the list with this filter.
    pub filter: Option<String>,
}

/// How long a pod may take to start before it counts as a trouble.
const PENDING_AFTER: i64 = 60_000;

/// All troubles, worst first.
pub fn items(
    pods: &Collection<Row>,
    deployments: &Collection<Deployment>,
    nodes: &Collection<Node>,
    now: i64,
) -> Vec<Item> {
    let mut items = Vec::new();
    items.extend(nodes.items.iter().filter_map(|(key, n)| node_item(key, n, now)));
    items.extend(deployments.items.iter().filter_map(|(key, d)| deployment_item(key, d, now)));
    items.extend(pod_items(pods, now));
    items.sort_by(|a, b| b.state.cmp(&a.state).then_with(|| a.target.cmp(&b.target)));
    items
}

fn node_item(key: &Key, n: &Node, now: i64) -> Option<Item> {
    let sentence = node::sentence(n, None, now);
    (sentence.state >= State::Unknown).then(|| Item {
        state: sentence.state,
        title: Word::AttentionNode.with(&[("name", &key.name)]),
        detail: sentence.text,
        target: Target { resource: "nodes", key: key.clone(), filter: None },
    })
}

fn deployment_item(key: &Key, d: &Deployment, now: i64) -> Option<Item> {
    let stuck = condition(&d.status.conditions, "Progressing")
        .is_some_and(|c| c.status == "False" && c.reason == "ProgressDeadlineExceeded")
        && !Progress::of(d).complete();
    let refused = condition(&d.status.conditions, "ReplicaFailure").is_some_and(|c| c.status == "True");
    let sentence = deployment::sentence(d, &[], now);
    (stuck || refused).then(|| Item {
        state: sentence.state,
        title: Word::AttentionDeployment.with(&[("name", &key.name)]),
        detail: sentence.text,
        target: Target { resource: "deployments", key: key.clone(), filter: None },
    })
}

fn pod_items(pods: &Collection<Row>, now: i64) -> Vec<Item> {
    let mut groups: BTreeMap<(String, String, String), Vec<(&Key, &Arc<Row>, State)>> = BTreeMap::new();
    for (key, row) in &pods.items {
        let Some((status, state)) = trouble(row, &pods.columns, now) else { continue };
        groups.entry((key.namespace.clone(), workload(&row.metadata), status)).or_default().push((key, row, state));
    }
    let entries = groups.into_iter().map(|((namespace, workload, status), pods)| {
        let state = pods.iter().map(|(_, _, s)| *s).max().unwrap_or_default();
        let oldest = pods.iter().filter_map(|(_, r, _)| time::parse(&r.metadata.creation_timestamp)).min();
        let since = oldest.map_or_else(|| t(Word::Unknown).into(), |made| time::ago(made, now));
        let one = pods.len() == 1;
        let name = if one { pods[0].0.name.clone() } else { workload.clone() };
        let count = plural(Word::Pods, pods.len() as i64);
        let title = if one {
            Word::AttentionPod.with(&[("name", &name), ("what", &explain(&status, pods.len()))])
        } else {
            Word::AttentionPods.with(&[("count", &count), ("name", &name), ("what", &explain(&status, pods.len()))])
        };
        let detail = Word::AttentionPodDetail.with(&[("namespace", &namespace), ("status", &status), ("ago", &since)]);
        let filter = (!one).then(|| format!("{workload} {status}"));
        Item { state, title, detail, target: Target { resource: "pods", key: pods[0].0.clone(), filter } }
    });
    entries.collect()
}

/// The workloads that have pods in trouble, by namespace and name.
pub fn troubled(pods: &Collection<Row>, now: i64) -> BTreeSet<(String, String)> {
    let in_trouble = pods.items.iter().filter(|(_, row)| trouble(row, &pods.columns, now).is_some());
    in_trouble.map(|(key, row)| (key.namespace.clone(), workload(&row.metadata))).collect()
}

/// How a Deployment is, judged with its pods: one that waits for pods in trouble is not on its way.
pub fn deployment_state(d: &Deployment, troubled: &BTreeSet<(String, String)>, now: i64) -> State {
    let state = deployment::sentence(d, &[], now).state;
    let stuck = troubled.contains(&(d.metadata.namespace.clone(), d.metadata.name.clone()));
    match state {
        State::Progressing if stuck && d.status.available_replicas == 0 => State::Failing,
        State::Progressing if stuck => State::Degraded,
        state => state,
    }
}

/// A pod's status where it is a trouble, and how bad it is.
fn trouble(row: &Row, columns: &[Column], now: i64) -> Option<(String, State)> {
    let text = |name| named(row, columns, name).and_then(|v| v.as_str()).unwrap_or_default();
    let status = text("Status").to_string();
    let state = pod_state(&status, ratio(text("Ready")));
    let old = time::parse(&row.metadata.creation_timestamp).is_none_or(|made| now - made > PENDING_AFTER);
    match state {
        State::Failing | State::Unknown => Some((status, state)),
        State::Degraded if old => Some((status, state)),
        State::Progressing if old && matches!(status.as_str(), "Pending" | "ContainerCreating") => {
            Some((status, State::Degraded))
        }
        _ => None,
    }
}

fn explain(status: &str, pods: usize) -> String {
    let word = match status.strip_prefix("Init:").unwrap_or(status) {
        "CrashLoopBackOff" | "Error" => Word::WhatCrashes,
        "ImagePullBackOff" | "ErrImagePull" | "ErrImageNeverPull" | "InvalidImageName" => Word::WhatImage,
        "OOMKilled" => Word::WhatMemory,
        "Pending" => Word::WhatPending,
        "ContainerCreating" => Word::WhatStarting,
        "Running" => Word::WhatNotReady,
        "Unknown" | "NodeLost" => Word::WhatUnknown,
        "Evicted" => Word::WhatEvicted,
        _ => Word::WhatFails,
    };
    plural(word, pods as i64)
}

/// What a pod belongs to, by the names of its owners: a Deployment's ReplicaSet loses the hash that the Deployment gave it.
pub fn workload(meta: &Meta) -> String {
    let Some(owner) = meta.controller() else { return meta.name.clone() };
    let hash = meta.labels.get("pod-template-hash");
    hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')).unwrap_or(&owner.name).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: i64 = 1_767_225_600_000; // 2026-01-01T00:00:00Z

    fn pods(rows: &[(&str, &str)]) -> Collection<Row> {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, status)| {
                json!({"cells": [name, "0/1", status], "object": {"metadata": {"name": name, "namespace": "shop",
                    "creationTimestamp": "2025-12-31T23:50:00Z", "labels": {"pod-template-hash": "5f"},
                    "ownerReferences": [{"name": "web-5f", "kind": "ReplicaSet", "controller": true}]}}})
            })
            .collect();
        let mut pods = Collection::default();
        let columns: Vec<_> = ["Name", "Ready", "Status"].map(|n| json!({"name": n})).into();
        pods.page(true, true, &json!({"kind": "Table", "columnDefinitions": columns, "rows": rows}).to_string())
            .unwrap();
        pods
    }

    #[test]
    fn pods_with_the_same_trouble_are_one_entry() {
        let pods = pods(&[
            ("web-1", "CrashLoopBackOff"),
            ("web-2", "CrashLoopBackOff"),
            ("web-3", "Pending"),
            ("web-4", "Completed"),
        ]);
        let items = items(&pods, &Collection::default(), &Collection::default(), NOW);
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].state, State::Failing);
        assert!(items[0].title.contains("2 pods") && items[0].title.contains("web"), "{}", items[0].title);
        assert_eq!(items[0].target.filter.as_deref(), Some("web CrashLoopBackOff"));
        assert_eq!(items[1].target.key.name, "web-3");
    }

    #[test]
    fn a_pod_that_just_started_is_no_trouble() {
        let pods = pods(&[("web-1", "Pending")]);
        let soon_after = time::parse("2025-12-31T23:50:30Z").unwrap();
        assert!(items(&pods, &Collection::default(), &Collection::default(), soon_after).is_empty());
    }

    #[test]
    fn silent_nodes_and_stuck_rollouts_are_listed() {
        let mut nodes = Collection::<Node>::default();
        let silent = json!({"items": [{"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}]});
        nodes.page(true, true, &silent.to_string()).unwrap();
        let mut deployments = Collection::<Deployment>::default();
        let stuck = json!({"items": [{"metadata": {"name": "d"}, "spec": {"replicas": 2}, "status": {"conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]}}]});
        deployments.page(true, true, &stuck.to_string()).unwrap();
        let items = items(&Collection::default(), &deployments, &nodes, NOW);
        assert_eq!(
            items.iter().map(|i| (i.target.resource, i.state)).collect::<Vec<_>>(),
            [("deployments", State::Failing), ("nodes", State::Unknown)]
        );
    }
}
