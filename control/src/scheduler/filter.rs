//! Where a pod can run now: Kubernetes's filters in their order, the first that refuses speaks.
//!
//! `spec.nodeName` has no filter here: who has it set is bound already and never comes before a scheduler.

use super::class::Class;
use super::reasons::{CPU, EXTENDED, MEMORY, PODS, Refusal, STORAGE};
use super::state::State;
use crate::action::ObjectKey;
use crate::projection::{Pod, Resources};
use crate::view::Item;

/// How many of a spread constraint's pods a domain may have for one more to be taken; one for each constraint.
pub(super) type Limits = Vec<i64>;

pub(super) fn limits(state: &mut State, class: &Class, limits: &mut Limits) {
    limits.clear();
    for hard in &class.hard {
        let tally = state.counts.tally_mut(hard.tally);
        // Without any domain nothing is out of balance.
        let least = tally.least().map_or(i64::MAX / 2, i64::from);
        let least = if (tally.domains() as i64) < hard.min_domains { 0 } else { least };
        limits.push(hard.max_skew + least - i64::from(hard.own));
    }
}

/// Why the pods of a class can't run on a node now.
pub(super) fn refusal(state: &State, class: &Class, limits: &Limits, slot: u32) -> Option<Refusal> {
    let fixed = class.fixed(slot).refusal;
    if fixed.is_some() {
        return fixed;
    }
    let entry = state.nodes.get(slot)?;
    if class.pod.host_ports.iter().any(|p| entry.usage.is_taken(p)) {
        return Some(Refusal::PortsTaken);
    }
    shortage(state, class, slot).or_else(|| skew(state, class, limits, slot)).or_else(|| company(state, class, slot))
}

fn shortage(state: &State, class: &Class, slot: u32) -> Option<Refusal> {
    let entry = state.nodes.get(slot)?;
    let (has, taken, asked) = (&entry.node.allocatable, &entry.usage.requests, &class.demand.requests);
    let (mut what, mut ever) = (0, false);
    if entry.usage.pods + 1 > has.pods {
        what |= PODS;
    }
    let mut check = |bit: u64, asked: i64, has: i64, taken: i64| {
        if asked > 0 && asked > has - taken {
            what |= bit;
            ever |= asked > has;
        }
    };
    check(CPU, asked.cpu, has.cpu, taken.cpu);
    check(MEMORY, asked.memory, has.memory, taken.memory);
    check(STORAGE, asked.ephemeral_storage, has.ephemeral_storage, taken.ephemeral_storage);
    for (i, (name, amount)) in class.demand.extended.iter().enumerate() {
        let of = |r: &Resources| r.extended.get(name).copied().unwrap_or_default();
        check(1 << (EXTENDED + i as u32), *amount, of(has), of(taken));
    }
    (what != 0).then_some(Refusal::Short { what, ever })
}

fn skew(state: &State, class: &Class, limits: &Limits, slot: u32) -> Option<Refusal> {
    for (hard, limit) in class.hard.iter().zip(limits) {
        match state.count(hard.tally, slot) {
            None => return Some(Refusal::NoSpreadLabel),
            Some(count) if i64::from(count) > *limit => return Some(Refusal::Skewed),
            Some(_) => {}
        }
    }
    None
}

fn company(state: &State, class: &Class, slot: u32) -> Option<Refusal> {
    let mut alone = false;
    for tally in &class.company {
        match state.count(*tally, slot) {
            None => return Some(Refusal::NoCompany),
            Some(count) => alone |= count == 0,
        }
    }
    if alone {
        // The first of pods that want to be together has to begin somewhere.
        let nobody = class.company.iter().all(|t| state.counts.tally(*t).total() == 0);
        if !(nobody && class.own_company) {
            return Some(Refusal::NoCompany);
        }
    }
    if class.avoided.iter().any(|t| state.count(*t, slot).is_some_and(|count| count > 0)) {
        return Some(Refusal::BadCompany);
    }
    let unwelcome = class.refused_by.iter().any(|t| state.counts.sayers(*t, &state.topology, slot) > 0);
    unwelcome.then_some(Refusal::Unwelcome)
}

/// The same, heeding pods for which room was made there and which are no less important: the pod must fit with them, and,
/// since they may yet go elsewhere, without them.
pub(super) fn refusal_beside_nominated(
    state: &mut State,
    class: &Class,
    (key, priority): (&ObjectKey, i32),
    scratch: &mut Limits,
    slot: u32,
) -> Option<Refusal> {
    if state.has_nominated(slot) {
        let name = state.nodes.name(slot).to_string();
        let counts = |p: &&Item<Pod>| p.priority >= priority && *p.key != *key;
        let others: Vec<Item<Pod>> = state.nominated_on(&name).iter().filter(counts).cloned().collect();
        if !others.is_empty() {
            let groups: Vec<_> = others.iter().map(|p| state.group(&p.object)).collect();
            others.iter().zip(&groups).for_each(|(p, group)| state.try_pod(slot, *group, p, true));
            limits(state, class, scratch);
            let refused = refusal(state, class, scratch, slot);
            others.iter().zip(&groups).for_each(|(p, group)| state.try_pod(slot, *group, p, false));
            limits(state, class, scratch);
            if refused.is_some() {
                return refused;
            }
        }
    }
    limits(state, class, scratch);
    refusal(state, class, scratch, slot)
}

/// How many feasible nodes are enough to choose among: all of a hundred, then a falling share, at least a hundred and at
/// least 5 % (Kubernetes's numbers). The next pod goes on where this one stopped.
pub(super) fn enough(nodes: usize) -> usize {
    if nodes < 100 {
        return nodes;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(100)
}
