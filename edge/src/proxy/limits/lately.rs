//! What is remembered of clients: so many, and those who came last.
//!
//! governor's own maps have every address that came until they are swept, so whoever has many addresses could fill our memory
//! between two sweeps.

use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;

/// The states of those who came last, in two generations: when the young one is full it becomes the old one, whose own are
/// forgotten. Who comes is young again, also if it is refused: a client isn't forgiven for coming too often.
pub struct Lately {
    half: usize,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<IpAddr, Nanos>,
    old: HashMap<IpAddr, Nanos>,
}

impl Lately {
    pub fn new(most: usize) -> Self {
        Self { half: most / 2, generations: Mutex::default() }
    }
}

impl StateStore for Lately {
    type Key = IpAddr;

    fn measure_and_replace<T, F, E>(&self, client: &IpAddr, judge: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut generations = self.generations.lock();
        let Generations { young, old } = &mut *generations;
        if let Some(state) = young.get_mut(client) {
            let (taken, next) = judge(Some(*state))?;
            *state = next;
            return Ok(taken);
        }
        let known = old.remove(client);
        let judged = judge(known);
        if let Some(state) = judged.as_ref().ok().map(|(_, next)| *next).or(known) {
            if young.len() >= self.half {
                *old = std::mem::take(young);
            }
            young.insert(*client, state);
        }
        judged.map(|(taken, _)| taken)
    }
}

impl ShrinkableKeyedStateStore<IpAddr> for Lately {
    fn retain_recent(&self, drop_below: Nanos) {
        let mut generations = self.generations.lock();
        generations.young.retain(|_, state| *state >= drop_below);
        generations.old.retain(|_, state| *state >= drop_below);
    }

    /// Leaves room for as many again, so that a steady crowd isn't moved each time.
    fn shrink_to_fit(&self) {
        let mut generations = self.generations.lock();
        let Generations { young, old } = &mut *generations;
        for map in [young, old] {
            map.shrink_to(2 * map.len());
        }
    }

    fn len(&self) -> usize {
        let generations = self.generations.lock();
        generations.young.len() + generations.old.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
