//! Sentences about deployments and their replica sets.
//!
//! A controller acts on what it has seen, and what it wrote is carried out by others a moment later. So each bound is the
//! highest (or lowest) one of those that somebody may still act upon: it is raised at once, and lowered when everybody has
//! said that they have seen the lower one.

use super::{Model, Step, controller, is_active, is_terminating, number, text, uid};
use longshore_server::store::ChangeKind;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How old a status may be that a decision to scale down rests on: an action may wait for the store for 25 seconds.
const STALE: Duration = Duration::from_secs(30);

const SETS: &str = "replicasets.apps";
const DEPLOYMENTS: &str = "deployments.apps";

fn replicas(object: &Value) -> i64 {
    object["spec"]["replicas"].as_i64().unwrap_or(1)
}

/// A number or a percentage of `whole`.
fn share(value: Option<&Value>, whole: i64, up: bool) -> i64 {
    match value {
        Some(Value::Number(n)) => n.as_i64().unwrap_or_default(),
        Some(Value::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or_default();
            if up { (whole * percent + 99) / 100 } else { whole * percent / 100 }
        }
        _ => 0,
    }
}

fn rolls(deployment: &Value) -> bool {
    text(deployment, "/spec/strategy/type") != "Recreate"
}

/// By how many pods a deployment may be above its replicas, and by how many below.
fn slack(deployment: &Value) -> (i64, i64) {
    if !rolls(deployment) {
        return (0, replicas(deployment));
    }
    let wanted = replicas(deployment);
    let surge = share(deployment.pointer("/spec/strategy/rollingUpdate/maxSurge"), wanted, true);
    let unavailable = share(deployment.pointer("/spec/strategy/rollingUpdate/maxUnavailable"), wanted, false);
    match (surge, unavailable) {
        (0, 0) => (0, 1),
        both => both,
    }
}

/// How many pods each deployment and replica set may have, by uid.
#[derive(Default)]
pub struct Ceilings {
    deployments: BTreeMap<String, i64>,
    sets: BTreeMap<String, i64>,
}

fn seen(object: &Value) -> bool {
    number(object, "/status/observedGeneration") == number(object, "/metadata/generation")
}

impl Ceilings {
    /// `model` is the state after the step.
    pub fn note(&mut self, model: &Model, step: &Step) {
        let Some(after) = step.after() else { return };
        let deployment = match &*step.entry.key.resource {
            SETS => {
                let settled = seen(after) && number(after, "/status/replicas") <= replicas(after);
                let ceiling = self.sets.entry(uid(after).to_string()).or_default();
                *ceiling = if settled { replicas(after) } else { replicas(after).max(*ceiling) };
                controller(after).and_then(|owner| model.by_uid(DEPLOYMENTS, owner))
            }
            _ => model.by_uid(DEPLOYMENTS, uid(after)),
        };
        let Some(deployment) = deployment else { return };
        let bound = replicas(deployment) + slack(deployment).0;
        let sets: Vec<_> = model.list(SETS).filter(|set| controller(set) == Some(uid(deployment))).collect();
        // What is adopted is there already.
        let wanted: i64 = sets.iter().map(|set| replicas(set)).sum();
        let settled = wanted <= bound && seen(deployment);
        let ceiling = self.deployments.entry(uid(deployment).to_string()).or_default();
        *ceiling = if settled { bound } else { bound.max(*ceiling) };
        if step.entry.kind == ChangeKind::Updated && *step.entry.key.resource == *SETS && adopted(step) {
            *ceiling = wanted.max(*ceiling);
        }
    }
}

/// Whether an update gave the object a controller that it did not have.
fn adopted(step: &Step) -> bool {
    let (Some(before), Some(after)) = (&step.before, step.after()) else { return false };
    controller(after).is_some() && controller(before) != controller(after)
}

/// A pod that a replica set makes now.
fn made(step: &Step) -> Option<(&Value, &str)> {
    let made = step.entry.kind == ChangeKind::Created && *step.entry.key.resource == *"pods";
    let pod = step.after().filter(|_| made)?;
    Some((pod, controller(pod)?))
}

fn active(model: &Model, of: impl Fn(&str) -> bool) -> i64 {
    let pods = model.list("pods").filter(|pod| is_active(pod) && controller(pod).is_some_and(&of));
    i64::try_from(pods.count()).unwrap_or(i64::MAX)
}

/// What a deployment's replica sets ask for is never raised above its replicas and its surge.
///
/// Pods may be more for a moment: the set that was made smaller and the one that was made larger are looked after one by
/// one, and who makes pods may be quicker than who deletes them. So it is in Kubernetes, whose Deployments count what their
/// sets ask for, too. How many pods each set has is the next sentence.
pub fn never_asks_for_more_than_replicas_plus_surge(model: &Model, step: &Step) -> Result<(), String> {
    if *step.entry.key.resource != *SETS {
        return Ok(());
    }
    let Some(after) = step.after() else { return Ok(()) };
    let before = step.before.as_deref().map_or(0, replicas);
    let Some(deployment) = controller(after).filter(|_| replicas(after) > before) else { return Ok(()) };
    let Some(ceiling) = model.ceilings.deployments.get(deployment) else { return Ok(()) };
    let others = model.list(SETS).filter(|set| controller(set) == Some(deployment) && uid(set) != uid(after));
    let asked = others.map(|set| replicas(set)).sum::<i64>() + replicas(after);
    match asked > *ceiling {
        true => Err(format!("{} makes it {asked} pods of a deployment that may have {ceiling}", step.name())),
        false => Ok(()),
    }
}

/// No pod is made beyond what its replica set wants.
pub fn never_more_pods_than_their_replica_set_wants(model: &Model, step: &Step) -> Result<(), String> {
    let Some((_, set)) = made(step) else { return Ok(()) };
    let Some(ceiling) = model.ceilings.sets.get(set) else { return Ok(()) };
    let pods = active(model, |owner| owner == set) + 1;
    match pods > *ceiling {
        true => Err(format!("{} is pod number {pods} of a replica set that wants {ceiling}", step.name())),
        false => Ok(()),
    }
}

/// What deployments and replica sets said of late, by uid: when, replicas, available ones.
#[derive(Default)]
pub struct Past(BTreeMap<String, VecDeque<(Duration, i64, i64)>>);

impl Past {
    pub fn note(&mut self, step: &Step) {
        let Some(after) = step.after() else { return };
        let past = self.0.entry(uid(after).to_string()).or_default();
        past.push_back((step.at, replicas(after), number(after, "/status/availableReplicas")));
        // The newest of those that are too old is what was true at the beginning of the window.
        while past.len() > 1 && past[1].0 + STALE < step.at {
            past.pop_front();
        }
    }

    /// What was true at some time since `from`.
    fn of(&self, uid: &str, from: Duration) -> impl Iterator<Item = &(Duration, i64, i64)> {
        let all: Vec<_> = self.0.get(uid).into_iter().flatten().collect();
        let first = (1..all.len()).find(|next| all[*next].0 >= from).map_or(all.len(), |next| next);
        all.into_iter().skip(first.saturating_sub(1))
    }

    fn available(&self, uid: &str, from: Duration) -> i64 {
        self.of(uid, from).map(|(_, _, available)| *available).max().unwrap_or_default()
    }

    fn least_replicas(&self, uid: &str, from: Duration) -> i64 {
        self.of(uid, from).map(|(_, replicas, _)| *replicas).min().unwrap_or_default()
    }

    /// When it was last written.
    fn last(&self, uid: &str) -> Duration {
        self.0.get(uid).and_then(VecDeque::back).map_or(Duration::ZERO, |(at, ..)| *at)
    }
}

/// What a replica set was last told that its deployment wants.
fn told(set: &Value) -> &str {
    set["metadata"]["annotations"]["deployment.kubernetes.io/desired-replicas"].as_str().unwrap_or_default()
}

/// A rollout takes no available pod away where that leaves fewer than replicas less `maxUnavailable`. A deployment whose size
/// was changed is another matter: all its sets get their share of the new size (told by their annotation), whatever is
/// available of them; so it is in Kubernetes.
///
/// A set is scaled by a write that holds only for the version that was looked at. So what was known of this set is known
/// here, and what was known of the others is no older than that version.
pub fn never_fewer_available_than_allowed(model: &Model, step: &Step) -> Result<(), String> {
    let Some((before, after)) = step.update(SETS) else { return Ok(()) };
    let (old, new) = (replicas(before), replicas(after));
    let Some(deployment) = controller(after).and_then(|owner| model.by_uid(DEPLOYMENTS, owner)) else { return Ok(()) };
    if new >= old || is_terminating(deployment) || !rolls(deployment) || told(before) != told(after) {
        return Ok(());
    }
    let from = step.at.saturating_sub(STALE).max(model.past.last(uid(before)));
    let here = number(before, "/status/availableReplicas").min(old);
    let others = model.list(SETS).filter(|set| controller(set) == Some(uid(deployment)) && uid(set) != uid(before));
    // In favour of the controller: all that may have been there.
    let available = here + others.map(|set| model.past.available(uid(set), from).min(replicas(set))).sum::<i64>();
    let lost = (here - new).max(0);
    let wanted = model.past.least_replicas(uid(deployment), from);
    let least = (wanted - slack(deployment).1).max(0);
    match lost > 0 && available - lost < least {
        true => Err(format!(
            "{} goes from {old} to {new}: that leaves {} available of a deployment that must keep {least}",
            step.name(),
            available - lost
        )),
        false => Ok(()),
    }
}
