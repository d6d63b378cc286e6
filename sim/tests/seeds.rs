//! The simulator itself: a seed is a history, and a fixed row of seeds holds.

use std::process::Command;

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
