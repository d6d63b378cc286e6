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

/// Looks at nodes after which a batch leaves those who were told already to wait to the next one, and after twice as many
/// everybody: a bound on how long a batch takes (some tenths of a second) with thousands of pods that fit nowhere or need
/// others to go. Who was told has its turn where the last batch stopped.
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
    /// What was only thought, to be taken back from the last to the first.
    thought: Vec<Thought>,
    pub found: Vec<u32>,
    pub refusals: Vec<(u32, Refusal)>,
    limits: Limits,
    scratch: Scratch,
}

/// One change of the state that a batch made.
#[derive(Debug)]
enum Thought {
    Placed { slot: u32, group: GroupId, pod: Arc<Pod> },
    Nominated { node: String, pod: Item<Pod> },
    Withdrawn { node: String, pod: Item<Pod> },
}

impl Work {
    /// No room is kept for a pod any more, if there was.
    fn withdraw(&mut self, state: &mut State, node: &str, pod: &Item<Pod>) {
        if state.withdraw(node, pod) {
            self.thought.push(Thought::Withdrawn { node: node.to_string(), pod: pod.clone() });
        }
    }
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
                if self.effort() > EFFORT {
                    (tired, batch.more) = (true, true);
                    continue;
                }
                last = Some(place);
            }
            if news >= limit || self.effort() > 2 * EFFORT {
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

    /// What this batch has cost so far, in looks at nodes; to move a pod for a trial costs as much as several.
    fn effort(&self) -> usize {
        self.work.effort + 8 * self.state.tried
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
        self.state.tried = 0;
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
        for thought in std::mem::take(&mut self.work.thought).into_iter().rev() {
            match thought {
                Thought::Placed { slot, group, pod } => self.state.move_pod(slot, group, &pod, false),
                Thought::Nominated { node, pod } => drop(self.state.withdraw(&node, &pod)),
                Thought::Withdrawn { node, pod } => self.state.nominate(&node, &pod),
            }
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
            work.thought.push(Thought::Placed { slot, group: class.group, pod: pod.object.clone() });
            // It has its room now; it would count twice.
            work.withdraw(state, &pod.nominated_node, pod);
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
                let node = &preemption.node;
                work.withdraw(state, &pod.nominated_node, pod);
                preemption.outranked.iter().for_each(|other| work.withdraw(state, node, other));
                state.nominate(node, pod);
                work.thought.push(Thought::Nominated { node: node.clone(), pod: pod.clone() });
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
