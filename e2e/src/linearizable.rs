//! Whether a recorded history of one key is linearizable: whether all its operations can be put in one order that agrees
//! with what each answered, and in which each takes effect at one moment between its call and its answer.
//!
//! Wing and Gong's search in Lowe's just-in-time form: the history is walked in time, and with each answer every state of
//! the key in which that answer is right is kept. Histories are checked key by key: a history of many keys is linearizable
//! when that of each key is (Herlihy and Wing). A write whose outcome nobody knows may take effect at any moment after its
//! call, or never.
//!
//! Pure and without dependencies: the store's own tests use it, too.

use std::collections::{BTreeSet, HashMap, HashSet};

/// What a key holds: the number of the write that put it there (each write has its own), or nothing.
pub type State = Option<u64>;

/// An operation as its caller saw it. Times are of one clock, in any unit.
#[derive(Clone, Debug)]
pub struct Operation {
    pub called: u64,
    pub answered: u64,
    pub did: Did,
}

/// What was asked and what was answered. Writes that were surely not applied are left out of histories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// The key was read.
    Saw(State),
    /// The key was made.
    Created(u64),
    /// Its value was replaced by `to`; it was `from`, where the writer had said so.
    Updated {
        from: Option<u64>,
        to: u64,
    },
    /// It was removed; it was `from`, where the writer had said so.
    Deleted {
        from: Option<u64>,
    },
    /// Something was refused because the key is there,
    WasThere,
    /// because it isn't there,
    WasNotThere,
    /// or because it is there and isn't this any more.
    WasNot(u64),
    /// As the three above that change something, with an answer that never came.
    MayHaveCreated(u64),
    MayHaveUpdated {
        from: Option<u64>,
        to: u64,
    },
    MayHaveDeleted {
        from: Option<u64>,
    },
}

/// A request of the Kubernetes API as it was sent; updates and deletions say by their resourceVersion what was there.
#[derive(Clone, Copy, Debug)]
pub enum Sent {
    /// With what was found, where something was.
    Get(State),
    Create(u64),
    Update {
        from: Option<u64>,
        to: u64,
    },
    Delete {
        from: Option<u64>,
    },
}

/// In place of a status: there was nobody to send it to.
pub const NOT_SENT: u16 = 1;

impl Sent {
    /// What it did by the answer's status (0: none came) and reason; None where it did nothing and says nothing.
    pub fn did(self, status: u16, reason: &str) -> Option<Did> {
        Some(match (self, status, reason) {
            (Self::Get(found), 200 | 404, _) => Did::Saw(found),
            (Self::Get(_), ..) => return None,
            // Surely not applied.
            (_, NOT_SENT | 429 | 503 | 507, _) => return None,
            (Self::Create(new), 200 | 201, _) => Did::Created(new),
            (Self::Update { from, to }, 200, _) => Did::Updated { from, to },
            (Self::Delete { from }, 200, _) => Did::Deleted { from },
            (_, 409, "AlreadyExists") => Did::WasThere,
            (Self::Update { from: Some(from), .. } | Self::Delete { from: Some(from) }, 409, _) => Did::WasNot(from),
            (_, 404, _) => Did::WasNotThere,
            (Self::Create(new), ..) => Did::MayHaveCreated(new),
            (Self::Update { from, to }, ..) => Did::MayHaveUpdated { from, to },
            (Self::Delete { from }, ..) => Did::MayHaveDeleted { from },
        })
    }
}

impl Did {
    /// Whether it can take effect in one state only, which never comes again once it is left: every write has its number.
    fn is_spent_by_itself(self) -> bool {
        matches!(self, Self::MayHaveUpdated { from: Some(_), .. } | Self::MayHaveDeleted { from: Some(_) })
    }

    /// Nobody knows whether it took effect.
    pub fn is_open(self) -> bool {
        matches!(self, Self::MayHaveCreated(_) | Self::MayHaveUpdated { .. } | Self::MayHaveDeleted { .. })
    }

    /// The state after this took effect in `state`; none where it could not have answered so.
    fn after(self, state: State) -> Option<State> {
        let fits = |from: Option<u64>| state.is_some() && from.is_none_or(|from| state == Some(from));
        match self {
            Self::Saw(seen) => (seen == state).then_some(state),
            Self::Created(new) | Self::MayHaveCreated(new) => state.is_none().then_some(Some(new)),
            Self::Updated { from, to } | Self::MayHaveUpdated { from, to } => fits(from).then_some(Some(to)),
            Self::Deleted { from } | Self::MayHaveDeleted { from } => fits(from).then_some(None),
            Self::WasThere => state.is_some().then_some(state),
            Self::WasNotThere => state.is_none().then_some(state),
            Self::WasNot(value) => state.is_some_and(|s| s != value).then_some(state),
        }
    }
}

/// One way in which the history can have gone so far.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Way {
    state: State,
    /// Operations that took effect and have not been answered yet.
    early: BTreeSet<usize>,
}

/// Err says at which answer no order is left, and what the key could have held then.
pub fn check(history: &[Operation]) -> Result<(), String> {
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (number, operation) in history.iter().enumerate() {
        events.push((operation.called, false, number));
        if !operation.did.is_open() {
            events.push((operation.answered.max(operation.called), true, number));
        }
    }
    // Calls before answers of the same moment: what may have overlapped did.
    events.sort_unstable();
    let mut under_way: BTreeSet<usize> = BTreeSet::new();
    let mut ways = HashSet::from([Way { state: None, early: BTreeSet::new() }]);
    for (_, is_answer, number) in events {
        if !is_answer {
            under_way.insert(number);
            continue;
        }
        let answered = &history[number];
        let left = answer(history, &ways, &under_way, number);
        if left.is_empty() {
            let mut states: Vec<_> = ways.iter().map(|way| way.state).collect();
            states.sort_unstable();
            states.dedup();
            let mut before: Vec<_> = history.iter().filter(|o| o.called <= answered.answered).collect();
            before.sort_by_key(|o| o.called);
            let lines: Vec<_> = before.iter().map(|o| format!("{} to {}: {:?}", o.called, o.answered, o.did)).collect();
            return Err(format!(
                "not linearizable: {answered:?} fits no order; the key could have held {states:?} before it\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            ));
        }
        ways = left;
        under_way.remove(&number);
    }
    Ok(())
}

/// All ways in which operation `number` has taken effect by now.
fn answer(history: &[Operation], ways: &HashSet<Way>, under_way: &BTreeSet<usize>, number: usize) -> HashSet<Way> {
    let mut left = HashSet::new();
    let mut seen: HashSet<Way> = ways.clone();
    let mut open: Vec<Way> = ways.iter().cloned().collect();
    while let Some(mut way) = open.pop() {
        if way.early.remove(&number) {
            left.insert(way);
            continue;
        }
        for next in under_way.iter().filter(|n| !way.early.contains(n)) {
            if let Some(state) = history[*next].did.after(way.state) {
                let mut further = Way { state, early: way.early.clone() };
                // One way instead of many that differ in nothing that counts.
                if !history[*next].did.is_spent_by_itself() {
                    further.early.insert(*next);
                }
                if seen.insert(further.clone()) {
                    open.push(further);
                }
            }
        }
    }
    left
}

/// Checks the histories of many keys.
pub fn check_all<K: std::fmt::Debug + Eq + std::hash::Hash>(
    histories: &HashMap<K, Vec<Operation>>,
) -> Result<(), String> {
    histories.iter().try_for_each(|(key, history)| check(history).map_err(|why| format!("{key:?}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::Did::*;
    use super::*;

    fn history(operations: &[(u64, u64, Did)]) -> Vec<Operation> {
        operations
            .iter()
            .map(|(called, answered, did)| Operation { called: *called, answered: *answered, did: *did })
            .collect()
    }

    #[test]
    fn what_can_be_ordered_passes() {
        for good in [
            &[(0, 1, Created(1)), (2, 3, Saw(Some(1))), (4, 5, Updated { from: Some(1), to: 2 }), (6, 7, Saw(Some(2)))]
                [..],
            // A read beside a write sees either.
            &[(0, 9, Created(1)), (1, 2, Saw(None)), (3, 4, Saw(Some(1)))],
            // Two writers from one state: one is refused.
            &[(0, 1, Created(1)), (2, 5, Updated { from: Some(1), to: 2 }), (3, 4, WasNot(1))],
            // The write without an answer is seen later, or never.
            &[
                (0, 1, Created(1)),
                (2, 2, MayHaveUpdated { from: Some(1), to: 2 }),
                (3, 4, Saw(Some(1))),
                (5, 6, Saw(Some(2))),
            ],
            &[(0, 1, Created(1)), (2, 2, MayHaveDeleted { from: None }), (9, 10, Saw(Some(1)))],
            &[(0, 1, Created(1)), (2, 2, MayHaveDeleted { from: Some(1) }), (3, 4, Created(2)), (5, 6, Saw(Some(2)))],
        ] {
            check(&history(good)).unwrap();
        }
    }

    #[test]
    fn what_can_not_be_ordered_is_found() {
        for bad in [
            // An acknowledged write that is gone,
            &[(0, 1, Created(1)), (2, 3, Saw(None))][..],
            // a read that goes back,
            &[(0, 9, Created(1)), (1, 2, Saw(Some(1))), (3, 4, Saw(None))],
            // two winners from one state,
            &[(0, 1, Created(1)), (2, 5, Updated { from: Some(1), to: 2 }), (3, 4, Updated { from: Some(1), to: 3 })],
            // a refusal that rests on nothing,
            &[(0, 1, WasThere)],
            &[(0, 1, Created(1)), (2, 3, WasNot(1))],
            // a value from nowhere, and an open write that was seen and then was not.
            &[(0, 1, Created(1)), (2, 3, Saw(Some(7)))],
            &[
                (0, 1, Created(1)),
                (2, 2, MayHaveUpdated { from: Some(1), to: 2 }),
                (3, 4, Saw(Some(2))),
                (5, 6, Saw(Some(1))),
            ],
        ] {
            assert!(check(&history(bad)).is_err(), "{bad:?}");
        }
    }
}
