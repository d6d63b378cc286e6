//! A batch of decisions: one after the other over the same picture, each taken off what the next one sees.

use super::class::{Class, Hopeless};
use super::counts::GroupId;
use super::decision::{Batch, Decision, Verdict};
use super::explain::Why;
use super::filter::{self, Limits};
use super::reasons::{Histogram, Refusal};
use super::score::{self, Scratch};
use super::state::State;
use super::{Scheduler, preempt};
use crate::projection::Pod;
use crate::view::{Item, View};
use std::sync::Arc;

/// Nodes that may be looked at in one batch for pods that were told already to wait: a bound on how long a batch takes
/// with thousands of them. Who isn't reached has its turn in the next.
const EFFORT: usize = 2_000_000;
/// Classes remembered; beyond, those go that no pod of the last batch asked for.
const CLASSES: usize = 4096;

/// What lives for one batch, and memory that is used again.
#[derive(Debug, Default)]
pub(super) struct Work {
    batch: u64,
    seed: u64,
    /// Where in the order of nodes the next search begins.
    start: usize,
    effort: usize,
    /// What was put where, to be taken back.
    placed: Vec<(u32, GroupId, Arc<Pod>)>,
    nominated: Vec<(String, Item<Pod>)>,
    withdrawn: Vec<(String, Item<Pod>)>,
    pub found: Vec<u32>,
    pub refusals: Vec<(u32, Refusal)>,
    limits: Limits,
    scratch: Scratch,
}

impl Scheduler {
    /// Decides about those who wait, until so many decisions are news.
    pub fn schedule(&mut self, view: &View, limit: usize, seed: u64) -> Batch {
        if self.state.is_stale() {
            self.begin_anew(view);
        }
        let queue = std::mem::take(&mut self.queue);
        let mut batch = Batch::default();
        let (mut news, mut last, mut tired) = (0, None, false);
        self.begin(seed);
        for (place, pod) in queue.iter() {
            if place.told {
                if tired || self.cursor.as_ref().is_some_and(|cursor| place <= cursor) {
                    continue;
                }
                if self.work.effort > EFFORT {
                    (tired, batch.more) = (true, true);
                    continue;
                }
                last = Some(place);
            }
            if news >= limit {
                batch.more = true;
                break;
            }
            let decision = self.decide(pod);
            news += usize::from(decision.is_news());
            batch.decisions.push(decision);
        }
        self.end();
        self.cursor = if tired { last.cloned() } else { None };
        self.queue = queue;
        batch
    }

    /// Decides about these, in their order.
    pub fn decide_all(&mut self, pods: &[Item<Pod>], seed: u64) -> Vec<Decision> {
        self.begin(seed);
        let decisions = pods.iter().map(|pod| self.decide(pod)).collect();
        self.end();
        decisions
    }

    pub(super) fn begin(&mut self, seed: u64) {
        self.state.nodes.settle();
        let work = &mut self.work;
        work.batch += 1;
        (work.seed, work.effort) = (seed, 0);
        work.start = score::draw(seed, 0, 0) as usize % self.state.nodes.len().max(1);
        if self.classes.len() > CLASSES {
            let last = work.batch - 1;
            self.classes.retain(|class| class.used >= last);
            self.index_classes();
        }
        self.classes.iter_mut().for_each(|class| class.hopeless = None);
    }

    /// Takes back what was only thought.
    pub(super) fn end(&mut self) {
        for (slot, group, pod) in std::mem::take(&mut self.work.placed) {
            self.state.move_pod(slot, group, &pod, false);
        }
        for (node, pod) in std::mem::take(&mut self.work.nominated) {
            self.state.withdraw(&node, &pod);
        }
        for (node, pod) in std::mem::take(&mut self.work.withdrawn) {
            self.state.nominate(&node, &pod);
        }
    }

    pub(super) fn decide(&mut self, pod: &Item<Pod>) -> Decision {
        let id = self.class(pod);
        let Self { state, work, profiles, classes, .. } = self;
        let class = &mut classes[id];
        let profile = &profiles[class.profile];
        class.used = work.batch;
        class.refresh(state, profile);
        let decided = |verdict, why: Arc<Why>| Decision { pod: pod.clone(), verdict, why };
        let nominated = || pod.nominated_node.clone();
        if pod.nominated_node.is_empty()
            && let Some(hopeless) = &class.hopeless
            && hopeless.stamp == class.stamp(state)
        {
            let verdict = Verdict::Wait { message: hopeless.message.clone(), nominated: nominated() };
            return decided(verdict, hopeless.why.clone());
        }
        search(state, work, class, pod);
        let mut why = Why { nodes: state.nodes.len(), feasible: work.found.len(), ..Why::default() };
        let mut reasons = Histogram::default();
        count(&work.refusals).into_iter().for_each(|(refusal, n)| reasons.add(refusal, &class.demand, n));
        let lot = score::digest(&pod.meta.uid);
        let chosen = score::best(state, class, profile, &work.found, lot, work.seed, &mut work.scratch);
        if let Some((slot, best)) = chosen {
            (why.best, why.refused) = (best, reasons.by_count());
            state.move_pod(slot, class.group, pod, true);
            work.placed.push((slot, class.group, pod.object.clone()));
            if !pod.nominated_node.is_empty() {
                // It has its room now; it would count twice.
                state.withdraw(&pod.nominated_node, pod);
                work.withdrawn.push((pod.nominated_node.clone(), pod.clone()));
            }
            return decided(Verdict::Bind { node: state.nodes.name(slot).to_string() }, why.into());
        }
        if state.nodes.len() == 0 {
            let message = Arc::from("no nodes available to schedule pods");
            return decided(Verdict::Wait { message, nominated: String::new() }, why.into());
        }
        let mut message = reasons.sentence(state.nodes.len());
        why.refused = reasons.by_count();
        let why = Arc::new(why);
        match preempt::preempt(state, class, pod, &work.refusals, work.seed, &mut work.limits) {
            Ok(preemption) => {
                let before = (!pod.nominated_node.is_empty()).then(|| (pod.nominated_node.clone(), pod.clone()));
                let outranked = preemption.outranked.iter().map(|other| (preemption.node.clone(), other.clone()));
                for (node, other) in before.into_iter().chain(outranked) {
                    state.withdraw(&node, &other);
                    work.withdrawn.push((node, other));
                }
                state.nominate(&preemption.node, pod);
                work.nominated.push((preemption.node.clone(), pod.clone()));
                decided(Verdict::Preempt { message: message.into(), preemption }, why)
            }
            Err((words, void)) => {
                message.push_str(" preemption: ");
                message.push_str(&words);
                let message: Arc<str> = message.into();
                class.hopeless =
                    Some(Hopeless { stamp: class.stamp(state), message: message.clone(), why: why.clone() });
                let nominated = if void { String::new() } else { nominated() };
                decided(Verdict::Wait { message, nominated }, why)
            }
        }
    }
}

/// Looks at nodes until enough would do; into `found` and `refusals`.
pub(super) fn search(state: &mut State, work: &mut Work, class: &Class, pod: &Item<Pod>) {
    work.found.clear();
    work.refusals.clear();
    filter::limits(state, class, &mut work.limits);
    let who = (&*pod.key, pod.priority);
    // Where room was made for it, it goes, if there is room by now.
    if let Some(slot) = state.nodes.slot(&pod.nominated_node)
        && filter::refusal_beside_nominated(state, class, who, &mut work.limits, slot).is_none()
    {
        work.found.push(slot);
        return;
    }
    let (count, enough) = (state.nodes.len(), filter::enough(state.nodes.len()));
    for step in 0..count {
        let slot = state.nodes.order()[(work.start + step) % count];
        work.effort += 1;
        let refused = if state.has_nominated(slot) {
            filter::refusal_beside_nominated(state, class, who, &mut work.limits, slot)
        } else {
            filter::refusal(state, class, &work.limits, slot)
        };
        match refused {
            Some(refusal) => work.refusals.push((slot, refusal)),
            None => {
                work.found.push(slot);
                if work.found.len() >= enough {
                    work.start = (work.start + step + 1) % count;
                    break;
                }
            }
        }
    }
}

fn count(refusals: &[(u32, Refusal)]) -> Vec<(Refusal, usize)> {
    let mut all: Vec<(Refusal, usize)> = Vec::new();
    for (_, refusal) in refusals {
        match all.iter_mut().find(|(other, _)| other == refusal) {
            Some((_, n)) => *n += 1,
            None => all.push((*refusal, 1)),
        }
    }
    all
}
