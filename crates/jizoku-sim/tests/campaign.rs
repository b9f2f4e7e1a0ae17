//! What CI asks of the simulator: clean seeds, and planted bugs that are found. The program that
//! people run does both; a failing seed prints the command that replays it.

use std::process::Command;

fn simulate(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_jizoku-sim")).args(args).output();
    let output = output.expect("it was built with this test");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{args:?}: {}\n{said}", output.status);
    said
}

/// Each of ten simulated minutes, with about 45 troubles.
#[test]
fn three_hundred_seeds_are_clean() {
    let said = simulate(&["--seeds", "300"]);
    assert!(said.contains("300 seeds, 0 failed"), "{said}");
}

/// Restoring that fails on one node is tried on the next, and loses nothing.
#[test]
fn machines_that_can_start_nothing_are_passed_over() {
    let said = simulate(&["--seeds", "30", "--kinds", "unable,unable,server,again,move,kill,all"]);
    assert!(said.contains("30 seeds, 0 failed"), "{said}");
}

#[test]
fn planted_bugs_are_found() {
    let said = simulate(&["--faults", "--seeds", "1", "--minutes", "5"]);
    let found =
        said.lines().filter(|line| line.starts_with("planted") && line.contains("found by"));
    assert!(found.count() >= 15, "{said}");
}
