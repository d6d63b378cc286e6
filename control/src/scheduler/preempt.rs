//! Making room: who has to go so that a more important pod can run, as Kubernetes chooses.
//!
//! On each node that could be freed, all less important pods are thought away; if the pod fits then, as many of them as
//! possible are let stay after all, the most important first. Of the nodes that come out, the one whose victims are the
//! least loss is taken. Disruption budgets are not among what is weighed: there are none in this API yet.

use super::class::Class;
use super::filter::{Limits, refusal_beside_nominated};
use super::reasons::{Histogram, Refusal};
use super::score::{digest, draw};
use super::state::State;
use crate::projection::Pod;
use crate::view::Item;
use jiff::Timestamp;
use std::cmp::Reverse;

const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
/// A tenth of the nodes in question is looked at, at least so many: Kubernetes's numbers.
const LEAST_CANDIDATES: usize = 100;
const PERCENT: usize = 10;

/// Room that is to be made.
#[derive(Clone, Debug)]
pub struct Preemption {
    pub node: String,
    /// The most important first.
    pub victims: Vec<Item<Pod>>,
    /// Less important pods for which room was made there before: they have to look elsewhere.
    pub outranked: Vec<Item<Pod>>,
}

/// How little is lost with a node's victims: the less the better, field by field, as Kubernetes compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Loss {
    /// The priority of the most important victim.
    highest: i32,
    /// All victims' priorities, each counted from the lowest there can be, so that more victims are more loss.
    sum: i64,
    count: usize,
    /// Who of the most important ones has run longest; better, if that isn't long.
    longest: Reverse<Started>,
    draw: u64,
    slot: u32,
}

/// When a pod started; one that hasn't yet counts as starting now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Started {
    At(Timestamp),
    NotYet,
}

fn started(pod: &Pod) -> Started {
    pod.start_time.map_or(Started::NotYet, Started::At)
}

/// Who is let stay first: the higher priority, then the longer running; the name makes it one order for everybody.
fn importance(pod: &Item<Pod>) -> (Reverse<i32>, Started, std::sync::Arc<crate::action::ObjectKey>) {
    (Reverse(pod.priority), started(pod), pod.key.clone())
}

/// Whether a pod goes because the scheduler sent it.
fn goes_for_others(pod: &Pod) -> bool {
    pod.meta.is_terminating() && pod.preempted
}

/// Finds room for `pod`, which every node refused: `refusals` in the order in which nodes were looked at. Err says why
/// there is none, the words after `preemption: `; and whether an earlier nomination is void.
pub(super) fn preempt(
    state: &mut State,
    class: &Class,
    pod: &Item<Pod>,
    refusals: &[(u32, Refusal)],
    seed: u64,
    scratch: &mut Limits,
) -> Result<Preemption, (String, bool)> {
    if !pod.preempts {
        return Err(("not eligible due to preemptionPolicy=Never.".into(), false));
    }
    if let Some(slot) = state.nodes.slot(&pod.nominated_node) {
        let hopeless = refusals.iter().any(|(s, refusal)| *s == slot && refusal.is_final());
        let making_room = |p: &Item<Pod>| p.priority < pod.priority && goes_for_others(p);
        if !hopeless && state.pods_on(&pod.nominated_node).any(making_room) {
            return Err(("not eligible due to a terminating pod on the nominated node.".into(), false));
        }
    }
    let worth: Vec<u32> = refusals.iter().filter(|(_, refusal)| !refusal.is_final()).map(|(slot, _)| *slot).collect();
    let mut why_not = Histogram::default();
    why_not.say(NOT_HELPFUL, refusals.len() - worth.len());
    let wanted = (worth.len() * PERCENT / 100).max(LEAST_CANDIDATES);
    let first = if worth.is_empty() { 0 } else { draw(seed, digest(&pod.meta.uid), 0) as usize % worth.len() };
    let mut candidates: Vec<(Loss, Vec<Item<Pod>>)> = Vec::new();
    for slot in worth[first..].iter().chain(&worth[..first]) {
        match victims(state, class, pod, *slot, scratch) {
            Ok(victims) => {
                candidates.push((loss(state, pod, *slot, &victims, seed), victims));
                if candidates.len() >= wanted {
                    break;
                }
            }
            Err(None) => why_not.say(NO_VICTIMS, 1),
            Err(Some(refusal)) => why_not.add(refusal, &class.demand, 1),
        }
    }
    let Some((loss, victims)) = candidates.into_iter().min_by_key(|(loss, _)| *loss) else {
        return Err((why_not.sentence(state.nodes.len()), true));
    };
    let node = state.nodes.name(loss.slot).to_string();
    let outranked = state.nominated_on(&node).iter().filter(|p| p.priority < pod.priority && p.key != pod.key);
    Ok(Preemption { outranked: outranked.cloned().collect(), node, victims })
}

/// Who would have to go from a node, the most important first. Err: nobody there could, or what is in the way even then.
fn victims(
    state: &mut State,
    class: &Class,
    pod: &Item<Pod>,
    slot: u32,
    scratch: &mut Limits,
) -> Result<Vec<Item<Pod>>, Option<Refusal>> {
    let node = state.nodes.name(slot).to_string();
    let mut lesser: Vec<Item<Pod>> = state.pods_on(&node).filter(|p| p.priority < pod.priority).cloned().collect();
    if lesser.is_empty() {
        return Err(None);
    }
    lesser.sort_by_cached_key(importance);
    let groups: Vec<_> = lesser.iter().map(|p| state.group(&p.object)).collect();
    for (there, group) in lesser.iter().zip(&groups) {
        state.try_pod(slot, *group, there, false);
    }
    let who = (&*pod.key, pod.priority);
    let refused = refusal_beside_nominated(state, class, who, scratch, slot);
    let mut gone = Vec::new();
    for (there, group) in lesser.iter().zip(&groups) {
        state.try_pod(slot, *group, there, true);
        if refused.is_none() && refusal_beside_nominated(state, class, who, scratch, slot).is_some() {
            state.try_pod(slot, *group, there, false);
            gone.push((there.clone(), *group));
        }
    }
    for (there, group) in &gone {
        state.try_pod(slot, *group, there, true);
    }
    match refused {
        Some(refusal) => Err(Some(refusal)),
        None => Ok(gone.into_iter().map(|(there, _)| there).collect()),
    }
}

fn loss(state: &State, pod: &Item<Pod>, slot: u32, victims: &[Item<Pod>], seed: u64) -> Loss {
    let highest = victims.iter().map(|p| p.priority).max().unwrap_or(i32::MIN);
    let first = victims.iter().filter(|p| p.priority == highest).map(|p| started(p)).min();
    Loss {
        highest,
        sum: victims.iter().map(|p| i64::from(p.priority) - i64::from(i32::MIN)).sum(),
        count: victims.len(),
        longest: Reverse(first.unwrap_or(Started::NotYet)),
        draw: draw(seed, digest(&pod.meta.uid), state.nodes.digest(slot)),
        slot,
    }
}
