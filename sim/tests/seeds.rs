//! The simulator itself: a seed is a history, and a fixed row of seeds holds.

use std::process::Command;

/// How many worlds are lived through, from seed 1 on, beside those in `regressions.txt`; none is begun after so many seconds.
const SEEDS: &str = "40";
const WITHIN_SECONDS: &str = "60";

fn simulate(arguments: &[&str]) -> (bool, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_longshore-sim")).args(arguments).output().expect("the simulator runs");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_seed_is_a_history() {
    let (_, first) = simulate(&["one", "--seed", "2"]);
    let (_, again) = simulate(&["one", "--seed", "2"]);
    let (_, other) = simulate(&["one", "--seed", "4"]);
    assert!(first.contains("history"), "{first}");
    assert_eq!(first, again);
    assert_ne!(first, other);
}

/// Says which seed broke which sentence, with the last events of its world.
#[test]
fn a_row_of_worlds_holds() {
    let known = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions.txt");
    let (held, told) =
        simulate(&["run", "--seeds", SEEDS, "--first", "1", "--within", WITHIN_SECONDS, "--also", known]);
    assert!(held, "{told}");
}
