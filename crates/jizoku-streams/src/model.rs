//! A random model test of both ends: gateways with clients, instances that crash and go on, and a
//! network that loses, doubles and reorders, all from one seed.
//!
//! What it checks, at each byte that a client sees:
//! - it is what the execution that the gateway follows produced, and nothing is doubled or lost;
//! - `held`: the committed state holds it, so no crash can take it back;
//! - at each takeover: a connection is reset for released output iff that isn't in the restored
//!   state, and in `held` never;
//! - the program reads exactly what the client sent, once;
//! - at the end, when nothing breaks any more: everything arrives, and nothing is kept.
//!
//! `Faults` are planted one by one, and each is found.

mod program;
mod world;

use alloc::string::String;
use alloc::vec::Vec;
use std::{env, eprintln};

use self::world::{Mode, Totals, World};
use crate::faults::Faults;

/// Seeds within which each planted bug must be found.
const FAULT_SEEDS_MAX: u64 = 500;

/// Runs one seed; an error says what broke.
fn run(seed: u64, mode: Mode, faults: Faults, totals: &mut Totals) -> Result<(), String> {
    let mut world = World::new(seed, mode, faults);
    let result = world.run();
    totals.add(&world);
    result
}

fn seeds(default: u64) -> u64 {
    env::var("JIZOKU_MODEL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn check(mode: Mode, count: u64) {
    let mut totals = Totals::default();
    for seed in 0..seeds(count) {
        if let Err(why) = run(seed, mode, Faults::NONE, &mut totals) {
            panic!("{mode:?}, seed {seed}: {why}");
        }
    }
    eprintln!("{mode:?}: {totals:?}");
    totals.assert_eventful(mode);
}

#[test]
fn held_streams_are_exactly_once() {
    check(Mode::Held, 200);
}

#[test]
fn free_streams_go_on_iff_their_history_does() {
    check(Mode::Free, 200);
}

#[test]
fn stateless_streams_are_never_fed_twice() {
    check(Mode::Stateless, 100);
}

#[test]
fn each_planted_fault_is_found() {
    let mut missed = Vec::new();
    for (name, fault) in Faults::ALL {
        match found(fault) {
            Some((seed, mode, why)) => eprintln!("{name}: {mode:?}, seed {seed}: {why}"),
            None => missed.push(name),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// The first seed that finds a planted bug, and what it says.
fn found(fault: Faults) -> Option<(u64, Mode, String)> {
    (0..FAULT_SEEDS_MAX).find_map(|seed| {
        [Mode::Held, Mode::Free].into_iter().find_map(|mode| {
            let result = run(seed, mode, fault, &mut Totals::default());
            result.err().map(|why| (seed, mode, why))
        })
    })
}
