//! What must hold once all faults are over and some time has passed.

use super::{Model, controller, is_active, is_ready, is_terminating, number, text, uid};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A sentence about a state of rest.
pub type Sentence = fn(&Model) -> Result<(), String>;

macro_rules! sentences {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as Sentence)),*] };
}

/// All that is asked at the end, in the order in which it makes sense to be told.
pub const LIVENESS: &[(&str, Sentence)] = sentences![
    all_nodes_are_ready,
    nothing_stays_half_deleted,
    an_owners_deletion_leaves_no_orphan,
    replica_sets_have_what_they_want,
    deployments_have_what_they_want,
    statuses_agree,
    every_pod_runs_and_is_ready,
    what_runs_is_what_is_wanted,
    services_name_exactly_the_ready_pods,
];

fn name(object: &Value) -> String {
    format!("{}/{}", text(object, "/metadata/namespace"), text(object, "/metadata/name"))
}

fn all_nodes_are_ready(model: &Model) -> Result<(), String> {
    for node in model.list("nodes") {
        let taints = node.pointer("/spec/taints").and_then(Value::as_array).map_or(0, Vec::len);
        if !is_ready(node) || taints > 0 {
            return Err(format!("node {} is ready: {}, taints {}", name(node), is_ready(node), node["spec"]["taints"]));
        }
    }
    Ok(())
}

fn nothing_stays_half_deleted(model: &Model) -> Result<(), String> {
    match model.all().find(|(_, object)| is_terminating(object)) {
        Some((key, object)) => {
            let finalizers = &object["metadata"]["finalizers"];
            Err(format!("{} {} is marked for deletion and stays; finalizers {finalizers}", key.resource, name(object)))
        }
        None => Ok(()),
    }
}

/// Whoever names an owner has one.
fn an_owners_deletion_leaves_no_orphan(model: &Model) -> Result<(), String> {
    let uids: BTreeSet<&str> = model.all().map(|(_, object)| uid(object)).collect();
    for (key, object) in model.all() {
        let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        for owner in owners.into_iter().flatten() {
            if !uids.contains(owner["uid"].as_str().unwrap_or_default()) {
                return Err(format!(
                    "{} {} is left of {} {}",
                    key.resource,
                    name(object),
                    owner["kind"],
                    owner["name"]
                ));
            }
        }
    }
    Ok(())
}

fn pods_of<'a>(model: &'a Model, owner: &'a str) -> impl Iterator<Item = &'a std::sync::Arc<Value>> {
    model.list("pods").filter(move |pod| controller(pod) == Some(owner) && is_active(pod))
}

fn replica_sets_have_what_they_want(model: &Model) -> Result<(), String> {
    for set in model.list("replicasets.apps") {
        let (wants, has) = (number(set, "/spec/replicas"), pods_of(model, uid(set)).count() as i64);
        if wants != has {
            return Err(format!("replica set {} wants {wants} pods and has {has}", name(set)));
        }
    }
    Ok(())
}

fn deployments_have_what_they_want(model: &Model) -> Result<(), String> {
    for deployment in model.list("deployments.apps") {
        let wants = number(deployment, "/spec/replicas");
        let sets = model.list("replicasets.apps").filter(|set| controller(set) == Some(uid(deployment)));
        let have: Vec<i64> = sets.map(|set| number(set, "/spec/replicas")).filter(|n| *n > 0).collect();
        let one = if wants == 0 { have.is_empty() } else { have == [wants] };
        if !one {
            return Err(format!("deployment {} wants {wants}, its replica sets {have:?}", name(deployment)));
        }
    }
    Ok(())
}

/// What statuses say is what is.
fn statuses_agree(model: &Model) -> Result<(), String> {
    let said = |object: &Value, fields: &[&str], wants: i64| -> Result<(), String> {
        for field in fields {
            let says = number(object, &format!("/status/{field}"));
            if says != wants {
                return Err(format!("{} says {field} {says}, it is {wants}", name(object)));
            }
        }
        let (seen, generation) = (number(object, "/status/observedGeneration"), number(object, "/metadata/generation"));
        match seen == generation {
            true => Ok(()),
            false => Err(format!("{} has seen generation {seen} of {generation}", name(object))),
        }
    };
    for set in model.list("replicasets.apps") {
        let fields = ["replicas", "readyReplicas", "availableReplicas", "fullyLabeledReplicas"];
        said(set, &fields, number(set, "/spec/replicas"))?;
    }
    for deployment in model.list("deployments.apps") {
        let fields = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"];
        said(deployment, &fields, number(deployment, "/spec/replicas"))?;
        said(deployment, &["unavailableReplicas"], 0)?;
    }
    Ok(())
}

fn every_pod_runs_and_is_ready(model: &Model) -> Result<(), String> {
    for pod in model.list("pods").filter(|pod| is_active(pod)) {
        if text(pod, "/status/phase") != "Running" || !is_ready(pod) || text(pod, "/spec/nodeName").is_empty() {
            return Err(format!("pod {} on {:?}: {}", name(pod), text(pod, "/spec/nodeName"), pod["status"]));
        }
    }
    Ok(())
}

/// Every container of every pod runs, where its pod is, and nothing else does.
fn what_runs_is_what_is_wanted(model: &Model) -> Result<(), String> {
    let mut running: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for (node, pod, container) in model.containers() {
        running.entry((node, pod)).or_default().insert(container);
    }
    for pod in model.list("pods").filter(|pod| is_active(pod)) {
        let here = running.remove(&(text(pod, "/spec/nodeName"), uid(pod))).unwrap_or_default();
        let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
        let mut wanted: BTreeSet<&str> = containers.into_iter().flatten().filter_map(|c| c["name"].as_str()).collect();
        wanted.insert("");
        if here != wanted {
            return Err(format!("of pod {} {here:?} run, {wanted:?} are wanted", name(pod)));
        }
    }
    match running.into_iter().next() {
        Some(((node, pod), containers)) => Err(format!("{containers:?} of pod {pod} run on {node}; nobody wants them")),
        None => Ok(()),
    }
}

fn selects(selector: &Value, pod: &Value) -> bool {
    let wanted = selector.as_object();
    wanted.is_some_and(|s| !s.is_empty() && s.iter().all(|(label, value)| pod["metadata"]["labels"][label] == *value))
}

fn services_name_exactly_the_ready_pods(model: &Model) -> Result<(), String> {
    for service in model.list("services").filter(|s| s["spec"]["selector"].is_object()) {
        let namespace = text(service, "/metadata/namespace");
        let here = |object: &&std::sync::Arc<Value>| text(object, "/metadata/namespace") == namespace;
        let pods = model.list("pods").filter(here).filter(|pod| selects(&service["spec"]["selector"], pod));
        let ready: BTreeSet<&str> =
            pods.filter(|p| is_active(p) && is_ready(p)).map(|p| text(p, "/metadata/name")).collect();
        let of_service = |slice: &&std::sync::Arc<Value>| {
            slice["metadata"]["labels"]["kubernetes.io/service-name"] == service["metadata"]["name"]
        };
        let slices = model.list("endpointslices.discovery.k8s.io").filter(here).filter(of_service);
        let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        let endpoints = endpoints.filter(|e| e["conditions"]["ready"] == true);
        let named: BTreeSet<&str> = endpoints.map(|e| text(e, "/targetRef/name")).collect();
        if named != ready {
            return Err(format!("slices of service {} name {named:?}, ready are {ready:?}", name(service)));
        }
        let old = model.named("endpoints", namespace, text(service, "/metadata/name"));
        let subsets = old.as_ref().and_then(|o| o.pointer("/subsets")).and_then(Value::as_array);
        let addresses = subsets.into_iter().flatten().flat_map(|s| s["addresses"].as_array().into_iter().flatten());
        let named: BTreeSet<&str> = addresses.map(|a| text(a, "/targetRef/name")).collect();
        if named != ready {
            return Err(format!("Endpoints of service {} name {named:?}, ready are {ready:?}", name(service)));
        }
    }
    Ok(())
}

/// The first sentence that doesn't hold.
pub fn unfinished(model: &Model) -> Option<(&'static str, String)> {
    LIVENESS.iter().find_map(|(name, holds)| holds(model).err().map(|why| (*name, why)))
}
