//! A seeded model of a cluster that runs the real values against a bad world: messages are lost,
//! doubled, late and damaged; nodes crash, lose their memory, are cut off; anybody takes over at
//! any moment; the holder set changes all the time.
//!
//! What is checked stands in [`world::Checks`]. A run is a function of its seed: a failing seed is
//! a bug report. `JIZOKU_SEEDS=n` runs n seeds of each kind.

mod world;

use std::string::String;
use std::{env, format, println};

use jizoku_types::spec::Durability;

use crate::fault::Fault;
use world::{Tally, World};

fn seeds(usual: u64) -> u64 {
    env::var("JIZOKU_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// Runs one seed; the error tells what was violated.
fn run(seed: u64, durable: Durability, fault: Option<Fault>) -> Result<Tally, String> {
    World::new(seed, durable, fault).run()
}

fn run_many(durable: Durability) {
    let mut all = Tally::default();
    let count = seeds(400);
    for seed in 0..count {
        match run(seed, durable, None) {
            Ok(tally) => all.add(&tally),
            Err(what) => panic!("seed {seed}, {durable:?}: {what}"),
        }
    }
    println!("{durable:?}: {count} seeds: {all:?}");
    // A world in which nothing happens proves nothing.
    for (what, happened) in [
        ("captured", all.captured),
        ("committed", all.committed),
        ("takeovers", all.takeovers),
        ("fetching takeovers", all.fetched),
        ("holders added", all.added),
        ("holders removed", all.removed),
        ("restarts", all.restarts),
        ("unreachable services", all.unreachable / 4),
        ("superseded active nodes", all.superseded),
        ("surveys of holders that lag", all.surveys),
        ("damaged blocks found", all.damaged),
    ] {
        assert!(happened * 10 >= count, "only {happened} {what} in {count} seeds");
    }
}

#[test]
fn promises_hold_with_memory() {
    run_many(Durability::Memory);
}

#[test]
fn promises_hold_with_disk() {
    run_many(Durability::Disk);
}

/// `JIZOKU_SEED=n JIZOKU_TRACE=1 cargo test -p jizoku-checkpoint one_seed -- --nocapture`; with
/// `JIZOKU_DISK=1`, and with the feature `faults` and `JIZOKU_FAULT=TakesLowest`.
#[test]
fn one_seed() {
    let seed = env::var("JIZOKU_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let disk = env::var_os("JIZOKU_DISK").is_some();
    let durable = if disk { Durability::Disk } else { Durability::Memory };
    let fault = env::var("JIZOKU_FAULT")
        .ok()
        .and_then(|name| ALL_FAULTS.into_iter().find(|fault| format!("{fault:?}") == name));
    let result = run(seed, durable, fault);
    println!("{result:?}");
    assert!(result.is_ok(), "{result:?}");
}

#[test]
fn a_seed_is_a_run() {
    for durable in [Durability::Memory, Durability::Disk] {
        assert_eq!(run(7, durable, None), run(7, durable, None));
    }
}

/// Every mistake.
const ALL_FAULTS: [Fault; 11] = [
    Fault::TakesOldEpoch,
    Fault::FoldsUncommitted,
    Fault::AdoptKeepsLater,
    Fault::AcksBeforeFlush,
    Fault::ReportsBeforeFlush,
    Fault::CommitsWithoutOne,
    Fault::JoiningNotAwaited,
    Fault::CountsRestarted,
    Fault::TrustsRestarted,
    Fault::TakesLowest,
    Fault::SkipsVerification,
];

/// Each planted mistake is found by the same checks.
#[cfg(feature = "faults")]
#[test]
fn planted_faults_are_found() {
    let mut missed = alloc::vec::Vec::new();
    for fault in ALL_FAULTS {
        let found = (0..seeds(3000)).find_map(|seed| {
            let fails = |durable| run(seed, durable, Some(fault)).err();
            let what = fails(Durability::Memory).or_else(|| fails(Durability::Disk))?;
            Some((seed, what))
        });
        match found {
            Some((seed, what)) => println!("{fault:?}: found by seed {seed}: {what}"),
            None => missed.push(fault),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
