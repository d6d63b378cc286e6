//! Any interleaving of writers, readers, watchers, retention and hand-overs on a log that fails in every way: nothing that
//! was acknowledged is lost, nothing that was refused is there, every answer fits one order of all operations, each watcher
//! sees each change once and in order, and the store comes back. A failure prints the smallest case that fails.

use super::world::{Act, Case, Look, Sight, Upset, play};
use crate::store::volatile::{Fault, Script};
use proptest::collection::vec;
use proptest::prelude::*;

const KEYS: std::ops::Range<u8> = 0..3;

fn sight() -> impl Strategy<Value = Sight> {
    prop_oneof![Just(Sight::Newest), Just(Sight::Committed), Just(Sight::Remembered)]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => KEYS.prop_map(Act::Create),
        4 => (KEYS, sight()).prop_map(|(key, sight)| Act::Update(key, sight)),
        3 => (KEYS, sight()).prop_map(|(key, sight)| Act::Delete(key, sight)),
        1 => vec(KEYS, 1..5).prop_map(Act::Batch),
        1 => KEYS.prop_map(Act::Abandon),
        3 => KEYS.prop_map(Act::Get),
        1 => (1u8..3).prop_map(Act::List),
        2 => (0u8..8).prop_map(Act::Pause),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        1 => Just(Fault::Away),
        1 => Just(Fault::Full),
        1 => Just(Fault::Rejected),
        2 => Just(Fault::LostBefore),
        2 => Just(Fault::LostAfter),
        2 => Just(Fault::Straying),
        1 => Just(Fault::Taken),
        1 => Just(Fault::Overtaken),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let replays = vec(prop_oneof![4 => Just(true), 1 => Just(false)], 0..8);
    (vec(fault(), 0..16), vec(0u8..6, 0..16), vec(0u8..4, 0..6), vec(0u8..4, 0..6), replays).prop_map(
        |(flushes, delays, settlements, absences, replays)| Script {
            flushes: flushes.into(),
            delays: delays.into(),
            settlements: settlements.into(),
            absences: absences.into(),
            replays: replays.into(),
        },
    )
}

fn upset() -> impl Strategy<Value = Upset> {
    prop_oneof![
        2 => Just(Upset::HandOver),
        1 => (0u8..6).prop_map(Upset::Compact),
        4 => (0u8..12).prop_map(Upset::Pause),
    ]
}

fn look() -> impl Strategy<Value = Look> {
    (proptest::option::of(KEYS), vec(0u8..10, 0..4), 0u8..8).prop_map(|(key, pace, patience)| Look {
        key,
        pace,
        patience,
    })
}

fn case() -> impl Strategy<Value = Case> {
    (vec(vec(act(), 1..14), 1..5), vec(look(), 0..4), vec(upset(), 0..10), script())
        .prop_map(|(clients, watchers, upsets, script)| Case { clients, watchers, upsets, script })
}

/// Cases a property; `LONGSHORE_CASES` asks for more.
fn cases(usual: u32) -> ProptestConfig {
    let cases = std::env::var("LONGSHORE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    ProptestConfig { cases, failure_persistence: None, max_shrink_time: 60_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn the_store_keeps_its_promises_whatever_fails(case in case()) {
        play(case);
    }

    #[test]
    fn and_when_nothing_fails(mut case in case()) {
        case.script = Script { delays: case.script.delays, ..Script::default() };
        case.upsets.clear();
        play(case);
    }
}
