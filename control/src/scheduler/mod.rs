//! The scheduler: where each waiting pod is to run, or the reasons why nowhere.
//!
//! It is a pure function of the log. [`Scheduler`] keeps beside the view what it needs to judge quickly (what nodes have
//! left, how many pods of which sort are in which domain) and takes each change in once; a batch of decisions is made over
//! that one picture, each assignment taken off what the next one sees, and all of it given back at the end: what was really
//! bound comes back as changes. So a thousand pods cost one look at the cluster, equal input and seed give equal output,
//! and nothing that wasn't committed is ever believed. A binding holds only if the pod is still unbound when it is written.
//!
//! - [`queue`]: who waits, in which order. [`profile`]: how a scheduler weighs.
//! - [`state`]: nodes, [`topology`] and [`counts`], kept up. [`class`]: pods that ask for the same, judged once.
//! - [`filter`], [`score`], [`preempt`]: Kubernetes's rules. [`reasons`], [`explain`]: their words.
//! - [`batch`]: decisions, one after the other; [`decision`]: what they are, [`actions`]: what is to be done.
//!
//! Rejected: assuming bindings in flight, as Kubernetes does. One batch is in flight at a time and the next waits for its
//! revision, so there is nothing to assume, and nothing to forget when a binding fails.

mod actions;
mod batch;
mod class;
mod counts;
mod decision;
mod explain;
mod filter;
mod nodes;
mod preempt;
mod profile;
mod queue;
mod reasons;
mod score;
mod state;
mod target;
#[cfg(test)]
mod tests;
mod topology;

pub use actions::{actions, in_order};
pub use decision::{Batch, Decision, Need, Verdict};
pub use explain::{Explanation, Explanations, NodeScore, Why};
pub use preempt::Preemption;
pub use profile::{DEFAULT, PARTS, Part, Profile, Profiles, Strategy};
pub use queue::is_told;

use crate::projection::{Namespace, Node, Pod, ReplicaSet, Service};
use crate::view::{Applied, Item, Record, View};
use batch::Work;
use class::Class;
use longshore_api::selector::{LabelSelector, Requirement};
use queue::{Queue, profile_of, waits};
use state::State;
use std::collections::{BTreeMap, HashMap};

/// The name with which it signs events.
pub const NAME: &str = "default-scheduler";
/// The account it writes as.
pub const ACCOUNT: &str = "kube-scheduler";

/// The scheduler's picture of a cluster.
#[derive(Debug)]
pub struct Scheduler {
    profiles: Vec<Profile>,
    state: State,
    queue: Queue,
    classes: Vec<Class>,
    class_ids: HashMap<u64, Vec<usize>>,
    /// Selectors of Services, by namespace and name; of owners, by uid.
    services: HashMap<String, BTreeMap<String, BTreeMap<String, String>>>,
    owners: HashMap<String, LabelSelector>,
    /// How far the pods that were told to wait have had their turn.
    cursor: Option<queue::Place>,
    work: Work,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self::new(Profiles::default())
    }
}

impl Scheduler {
    fn new(profiles: Profiles) -> Self {
        Self {
            profiles: profiles.0,
            state: State::default(),
            queue: Queue::default(),
            classes: Vec::new(),
            class_ids: HashMap::new(),
            services: HashMap::new(),
            owners: HashMap::new(),
            cursor: None,
            work: Work::default(),
        }
    }

    /// From everything there is.
    pub fn of(view: &View) -> Self {
        let mut new = Self::new(view.settings.profiles.clone());
        for namespace in view.list::<Namespace>() {
            new.state.namespaces.insert(namespace.meta.name.clone(), namespace.meta.labels.clone());
        }
        view.list::<Service>().for_each(|service| new.service(None, Some(&service)));
        view.list::<ReplicaSet>().for_each(|set| new.owner(None, Some(&set)));
        for node in view.list::<Node>().filter(|n| !n.meta.is_terminating()) {
            new.state.put_node(node);
        }
        view.list::<Pod>().for_each(|pod| {
            new.pod(None, Some(&pod));
        });
        new
    }

    /// How many pods wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Takes a change in; `view` has it already.
    pub fn apply(&mut self, view: &View, applied: &Applied) -> Need {
        fn side<K: crate::view::Kind>(record: &Option<Record>) -> Option<Item<K>> {
            record.as_ref().and_then(Record::get::<K>)
        }
        let (before, after) = (&applied.before, &applied.after);
        match applied.key.resource.as_ref() {
            "pods" => self.pod(side(before).as_ref(), side(after).as_ref()),
            "nodes" => self.node(&applied.key.name, side(after)),
            "namespaces" => {
                let labels = |r: &Option<Record>| r.as_ref().map(|r| r.meta().labels.clone());
                let (name, new) = (&applied.key.name, labels(after));
                if labels(before) == new {
                    return Need::Nothing;
                }
                match new {
                    Some(labels) => drop(self.state.namespaces.insert(name.clone(), labels)),
                    None => drop(self.state.namespaces.remove(name)),
                }
                if self.state.counts.asks_namespaces && self.state.counts.has_namespace(name) {
                    self.begin_anew(view);
                    return self.soon();
                }
                Need::Nothing
            }
            "services" => {
                self.service(side(before).as_ref(), side(after).as_ref());
                Need::Nothing
            }
            "replicasets.apps" => {
                self.owner(side(before).as_ref(), side(after).as_ref());
                Need::Nothing
            }
            _ => Need::Nothing,
        }
    }

    fn begin_anew(&mut self, view: &View) {
        let cursor = self.cursor.take();
        *self = Self { cursor, ..Self::of(view) };
    }

    fn soon(&self) -> Need {
        if self.queue.is_empty() { Need::Nothing } else { Need::Soon }
    }

    fn pod(&mut self, before: Option<&Item<Pod>>, after: Option<&Item<Pod>>) -> Need {
        let runs = |p: &&Item<Pod>| !p.node_name.is_empty() && !p.is_finished();
        let queued = |p: &&Item<Pod>| waits(p) && self.profiles.iter().any(|f| f.name == profile_of(p));
        let nominated = |p: &&Item<Pod>| waits(p) && !p.nominated_node.is_empty();
        let (ran, runs_now) = (before.filter(runs), after.filter(runs));
        let (waited, waits_now) = (before.filter(queued), after.filter(queued));
        let (was_nominated, is_nominated) = (before.filter(nominated), after.filter(nominated));
        if let Some(pod) = was_nominated {
            let _ = self.state.withdraw(&pod.nominated_node, pod);
        }
        if let Some(pod) = is_nominated {
            self.state.nominate(&pod.nominated_node, pod);
        }
        if let Some(pod) = waited {
            self.queue.remove(pod);
        }
        if let Some(pod) = waits_now {
            self.queue.insert(pod);
        }
        let mut need = match (waited, waits_now) {
            (None, Some(_)) => Need::Now,
            (Some(before), Some(after)) if !before.is_like(after) => Need::Now,
            _ => Need::Nothing,
        };
        match (ran, runs_now) {
            (Some(before), Some(after)) if same_place(before, after) => self.state.replace_pod(after),
            (None, None) => {}
            (before, after) => {
                if let Some(pod) = before {
                    self.state.remove_pod(pod);
                }
                if let Some(pod) = after {
                    self.state.put_pod(pod);
                }
                let went = before.is_some() && (after.is_none() || self.queue.has_sociable());
                let came = after.is_some() && self.queue.has_sociable();
                if went || came {
                    need = need.max(self.soon());
                }
            }
        }
        if was_nominated.is_some() && is_nominated.is_none() {
            need = need.max(self.soon());
        }
        need
    }

    fn node(&mut self, name: &str, after: Option<Item<Node>>) -> Need {
        match after.filter(|n| !n.meta.is_terminating()) {
            Some(node) => match self.state.put_node(node) {
                None => Need::Nothing,
                Some(slot) => {
                    self.classes.iter_mut().for_each(|class| class.judge(slot, &self.state));
                    self.soon()
                }
            },
            None if self.state.remove_node(name).is_some() => self.soon(),
            None => Need::Nothing,
        }
    }

    fn service(&mut self, before: Option<&Item<Service>>, after: Option<&Item<Service>>) {
        let selector = |s: Option<&Item<Service>>| s.and_then(|s| s.selector.clone());
        if selector(before) == selector(after) {
            return;
        }
        let Some(any) = after.or(before) else { return };
        let (namespace, name) = (any.meta.namespace.clone(), any.meta.name.clone());
        let all = self.services.entry(namespace.clone()).or_default();
        match selector(after) {
            Some(selector) => drop(all.insert(name, selector)),
            None => drop(all.remove(&name)),
        }
        self.forget_classes(|class| class.meta.namespace == namespace);
    }

    fn owner(&mut self, before: Option<&Item<ReplicaSet>>, after: Option<&Item<ReplicaSet>>) {
        if before.is_some() && after.is_some() {
            return;
        }
        let Some(any) = after.or(before) else { return };
        let uid = any.meta.uid.clone();
        match after {
            Some(set) => drop(self.owners.insert(uid.clone(), set.selector.clone())),
            None => drop(self.owners.remove(&uid)),
        }
        self.forget_classes(|class| class.meta.controller().is_some_and(|o| o.uid == uid));
    }

    /// Classes are made anew when a pod asks for them.
    fn forget_classes(&mut self, which: impl Fn(&Pod) -> bool) {
        let before = self.classes.len();
        self.classes.retain(|c| !which(&c.pod));
        if self.classes.len() != before {
            self.index_classes();
        }
    }

    fn index_classes(&mut self) {
        self.class_ids.clear();
        for (i, class) in self.classes.iter().enumerate() {
            self.class_ids.entry(class.pod.shape).or_default().push(i);
        }
    }

    fn class(&mut self, pod: &Item<Pod>) -> usize {
        let known =
            self.class_ids.get(&pod.shape).and_then(|ids| ids.iter().find(|i| self.classes[**i].pod.is_like(pod)));
        if let Some(id) = known {
            return *id;
        }
        let wanted = profile_of(pod);
        let at = self.profiles.iter().position(|p| p.name == wanted).unwrap_or_default();
        let selector = self.default_selector(pod);
        let class = Class::of(&pod.object, (at, &self.profiles[at]), selector.as_ref(), &mut self.state);
        self.class_ids.entry(pod.shape).or_default().push(self.classes.len());
        self.classes.push(class);
        self.classes.len() - 1
    }

    /// Whom a pod is spread from when it doesn't say: pods behind the same Services and of the same owner.
    fn default_selector(&self, pod: &Pod) -> Option<LabelSelector> {
        let labels = &pod.meta.labels;
        let services = self.services.get(&pod.meta.namespace).into_iter().flat_map(|all| all.values());
        let behind = services.filter(|s| s.iter().all(|(k, v)| labels.get(k) == Some(v)));
        let merged: BTreeMap<&String, &String> = behind.flatten().collect();
        let mut all: Vec<Requirement> =
            merged.into_iter().map(|(k, v)| Requirement::In(k.clone(), vec![v.clone()])).collect();
        let owner = pod.meta.controller().and_then(|o| self.owners.get(&o.uid));
        all.extend(owner.into_iter().flat_map(|s| s.0.iter().cloned()));
        (!all.is_empty()).then_some(LabelSelector(all))
    }
}

/// Whether nothing changed about a running pod that others are judged by.
fn same_place(before: &Item<Pod>, after: &Item<Pod>) -> bool {
    before.node_name == after.node_name
        && before.meta.is_terminating() == after.meta.is_terminating()
        && before.is_like(after)
}

/// Pods that wait, in the order in which they are looked at.
pub fn pending(view: &View) -> Vec<Item<Pod>> {
    let mut queue = Queue::default();
    let ours = |p: &Item<Pod>| waits(p) && view.settings.profiles.0.iter().any(|f| f.name == profile_of(p));
    view.unbound_pods().filter(ours).for_each(|pod| queue.insert(&pod));
    queue.iter().map(|(_, pod)| pod.clone()).collect()
}

/// Assigns `pods` in their order, over a fresh look at the cluster.
pub fn schedule(view: &View, pods: &[Item<Pod>], seed: u64) -> Vec<Decision> {
    if pods.is_empty() { Vec::new() } else { Scheduler::of(view).decide_all(pods, seed) }
}
