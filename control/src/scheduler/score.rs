//! Which of the nodes that would do is best: Kubernetes's scores, weighted by the pod's profile.

use super::class::{Class, SoftSpread};
use super::explain::NodeScore;
use super::nodes::Entry;
use super::profile::{PARTS, Part, Profile, Strategy};
use super::state::State;
use super::topology::NOWHERE;
use crate::usage::likely;

/// Every part counts from 0 to this before it is weighted.
const BEST: i64 = 100;
/// How many of the best are told.
const TOLD: usize = 3;

/// Compared field by field; the draw only among equals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    points: i64,
    draw: u64,
    slot: u32,
}

/// What is used again from pod to pod.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    points: Vec<[i64; PARTS]>,
    raw: Vec<i64>,
    /// By domain, the last pod that saw it.
    seen: Vec<u64>,
    turn: u64,
}

/// The best of `found` (at least one), and the first few with what each part gave.
pub(super) fn best(
    state: &State,
    class: &Class,
    profile: &Profile,
    found: &[u32],
    pod: u64,
    seed: u64,
    scratch: &mut Scratch,
) -> Option<(u32, Vec<NodeScore>)> {
    let only = *found.first()?;
    if found.len() == 1 {
        // Kubernetes scores nothing either where there is no choice.
        let alone = NodeScore { node: state.nodes.name(only).to_string(), total: 0, parts: Vec::new() };
        return Some((only, vec![alone]));
    }
    scratch.points.clear();
    scratch.points.resize(found.len(), [0; PARTS]);
    room(state, class, profile, found, scratch);
    fixed(class, profile, found, scratch);
    let on = |part: Part| profile.weights[part as usize] != 0;
    if on(Part::Spread) && !class.soft.is_empty() {
        spread(state, class, found, scratch);
    }
    if on(Part::PodAffinity) && !(class.liked.is_empty() && class.drawn_by.is_empty()) {
        affinity(state, class, found, scratch);
    }
    let total = |points: &[i64; PARTS]| -> i64 { points.iter().zip(&profile.weights).map(|(p, w)| p * w).sum() };
    let mut top: Vec<(Score, usize)> = Vec::with_capacity(TOLD + 1);
    for (at, slot) in found.iter().enumerate() {
        let points = total(&scratch.points[at]);
        if top.len() == TOLD && points < top[TOLD - 1].0.points {
            continue;
        }
        let score = Score { points, draw: draw(seed, pod, state.nodes.digest(*slot)), slot: *slot };
        let place = top.partition_point(|(other, _)| *other > score);
        top.insert(place, (score, at));
        top.truncate(TOLD);
    }
    let told = top.iter().map(|(score, at)| {
        let parts =
            Part::ALL.iter().map(|p| (p.name(), scratch.points[*at][*p as usize] * profile.weights[*p as usize]));
        let parts = parts.zip(&profile.weights).filter(|(_, weight)| **weight != 0).map(|(part, _)| part);
        NodeScore { node: state.nodes.name(score.slot).to_string(), total: score.points, parts: parts.collect() }
    });
    let told = told.collect();
    top.first().map(|(score, _)| (score.slot, told))
}

fn room(state: &State, class: &Class, profile: &Profile, found: &[u32], scratch: &mut Scratch) {
    let (likely_cpu, likely_memory) = likely(&class.pod);
    let asked = &class.demand.requests;
    // Pods that ask for nothing would all go where nothing else is, one after the other.
    let balanced = asked.cpu > 0 || asked.memory > 0;
    for (slot, points) in found.iter().zip(&mut scratch.points) {
        let Some(Entry { node, usage, .. }) = state.nodes.get(*slot) else { continue };
        let has = &node.allocatable;
        let parts = [(has.cpu, usage.likely_cpu + likely_cpu), (has.memory, usage.likely_memory + likely_memory)];
        let known = parts.iter().filter(|(has, _)| *has > 0);
        let judged = known.clone().map(|(has, used)| share(profile.strategy, *has, *used));
        let count = known.count() as i64;
        points[Part::Room as usize] = if count == 0 { 0 } else { judged.sum::<i64>() / count };
        if balanced {
            let (cpu, memory) = (usage.requests.cpu, usage.requests.memory);
            let with = evenness([(has.cpu, cpu + asked.cpu), (has.memory, memory + asked.memory)]);
            let without = evenness([(has.cpu, cpu), (has.memory, memory)]);
            points[Part::Balance as usize] = BEST / 2 + (BEST / 2 + with - without) / 2;
        }
    }
}

fn share(strategy: Strategy, has: i64, used: i64) -> i64 {
    // Nothing here comes near the 92 petabytes from which on this would be inexact.
    let part = |amount: i64| amount.saturating_mul(BEST) / has;
    match strategy {
        Strategy::LeastAllocated if used > has => 0,
        Strategy::LeastAllocated => part(has - used),
        Strategy::MostAllocated => part(used.min(has)),
    }
}

/// How evenly CPU and memory are used: by how little their shares deviate from each other.
fn evenness(parts: [(i64, i64); 2]) -> i64 {
    let share = |(has, used): (i64, i64)| (used as f64 / has as f64).min(1.0);
    match parts {
        [(1.., _), (1.., _)] => ((1.0 - (share(parts[0]) - share(parts[1])).abs() / 2.0) * BEST as f64) as i64,
        _ => BEST,
    }
}

/// What is so whoever is there.
fn fixed(class: &Class, profile: &Profile, found: &[u32], scratch: &mut Scratch) {
    let on = |part: Part| profile.weights[part as usize] != 0;
    let most =
        |value: fn(super::class::Fixed) -> i64| found.iter().map(|s| value(class.fixed(*s))).max().unwrap_or_default();
    let (preferred, disliked) = (most(|f| f.preference), most(|f| f.distaste));
    for (slot, points) in found.iter().zip(&mut scratch.points) {
        let fixed = class.fixed(*slot);
        points[Part::NodeAffinity as usize] = if preferred == 0 { 0 } else { BEST * fixed.preference / preferred };
        points[Part::Taints as usize] = if disliked == 0 { BEST } else { BEST - BEST * fixed.distaste / disliked };
        if on(Part::Images) {
            points[Part::Images as usize] =
                class.images.points.get(*slot as usize).map_or(0, |points| i64::from(*points));
        }
    }
}

/// The fewer of its like in a node's domains the better; a domain among many weighs more than one among few.
fn spread(state: &State, class: &Class, found: &[u32], scratch: &mut Scratch) {
    let lacks = |slot: u32| class.soft_keys.iter().any(|key| state.topology.domain(*key, slot) == NOWHERE);
    let taking_part: Vec<bool> = found.iter().map(|slot| !lacks(*slot)).collect();
    let count = taking_part.iter().filter(|t| **t).count();
    let weight = |soft: &SoftSpread, scratch: &mut Scratch| -> f64 {
        let size = if soft.by_node { count } else { domains(state, soft, found, &taking_part, scratch) };
        (size as f64 + 2.0).ln()
    };
    let weights: Vec<f64> = class.soft.iter().map(|soft| weight(soft, scratch)).collect();
    scratch.raw.clear();
    for slot in found {
        let part = |(soft, weight): (&SoftSpread, &f64)| {
            if state.topology.domain(soft.key, *slot) == NOWHERE {
                return 0.0;
            }
            let there = state.count(soft.tally, *slot).unwrap_or_default();
            f64::from(there) * weight + (soft.max_skew - 1) as f64
        };
        let cost: f64 = class.soft.iter().zip(&weights).map(part).sum();
        scratch.raw.push(cost.round() as i64);
    }
    let costs = || scratch.raw.iter().zip(&taking_part).filter(|(_, t)| **t).map(|(cost, _)| *cost);
    let (least, most) = (costs().min().unwrap_or_default(), costs().max().unwrap_or_default());
    for ((cost, taking_part), points) in scratch.raw.iter().zip(&taking_part).zip(&mut scratch.points) {
        points[Part::Spread as usize] = match (taking_part, most) {
            (false, _) => 0,
            (true, 0) => BEST,
            (true, most) => BEST * (most + least - cost) / most,
        };
    }
}

/// Among how many different domains there is a choice.
fn domains(state: &State, soft: &SoftSpread, found: &[u32], taking_part: &[bool], scratch: &mut Scratch) -> usize {
    scratch.turn += 1;
    let turn = scratch.turn;
    scratch.seen.resize(scratch.seen.len().max(state.topology.domains(soft.key)), 0);
    let mut count = 0;
    for (slot, _) in found.iter().zip(taking_part).filter(|(_, t)| **t) {
        let domain = state.topology.domain(soft.key, *slot);
        if domain != NOWHERE && std::mem::replace(&mut scratch.seen[domain as usize], turn) != turn {
            count += 1;
        }
    }
    count
}

/// How many pods near a node the pod likes, and like it, less those it, or that, would rather not be with.
fn affinity(state: &State, class: &Class, found: &[u32], scratch: &mut Scratch) {
    scratch.raw.clear();
    for slot in found {
        let mine = class.liked.iter().map(|(t, w)| w * i64::from(state.count(*t, *slot).unwrap_or_default()));
        let theirs = class.drawn_by.iter().map(|(t, w)| w * i64::from(state.counts.sayers(*t, &state.topology, *slot)));
        scratch.raw.push(mine.chain(theirs).sum());
    }
    let (least, most) = (scratch.raw.iter().min().copied(), scratch.raw.iter().max().copied());
    let (Some(least), Some(most)) = (least, most) else { return };
    for (raw, points) in scratch.raw.iter().zip(&mut scratch.points) {
        points[Part::PodAffinity as usize] = if most == least { 0 } else { BEST * (raw - least) / (most - least) };
    }
}

/// A name as a number, for draws.
pub(super) fn digest(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A draw that anyone can repeat: seed, pod and node, well mixed.
pub(super) fn draw(seed: u64, pod: u64, node: u64) -> u64 {
    let mix = |x: u64| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    mix(mix(seed ^ pod.rotate_left(17)) ^ node)
}
