//! Takeovers in the main line: who may propose them, and who is passed over.

use alloc::boxed::Box;
use alloc::vec::Vec;

use jizoku_core::catalog::Command;
use jizoku_types::spec::{PartitionPolicy, ServiceSpec};
use jizoku_types::{Epoch, Span};

use super::super::Input;
use super::world::{World, id, spec};

fn stop() -> ServiceSpec {
    ServiceSpec { partition: PartitionPolicy::Stop, ..spec() }
}

#[test]
fn a_death_is_followed_by_a_takeover_at_once() {
    let mut world = World::serving(3, stop());
    world.kill(1);
    world.run(Span::millis(200));
    assert_eq!(world.running(), [(2, Epoch::main(2))]);
}

#[test]
fn who_was_paused_takes_nothing_over_before_it_has_listened() {
    let mut world = World::serving(3, stop());
    // Nobody is called for a while; what comes first then says that the active node is gone.
    world.now += Span::secs(5);
    world.kill(1);
    world.run(Span::millis(800));
    assert_eq!(world.active(), Some(1));
    world.run(Span::millis(700));
    assert_eq!(world.running(), [(2, Epoch::main(2))]);
}

#[test]
fn who_is_starved_leaves_it_to_others() {
    let mut world = World::serving(3, stop());
    world.give(2, Input::Late(true));
    world.kill(1);
    world.run(Span::secs(1));
    assert_eq!(world.running(), [(3, Epoch::main(2))], "the second candidate, a little later");
    world.kill(3);
    world.start(1);
    world.run(Span::secs(2));
    assert_eq!(world.active(), Some(1));
}

#[test]
fn a_drained_node_gives_its_services_away_and_gets_none() {
    let mut world = World::serving(4, stop());
    world.request(1, Command::SetDraining { node: id(1), draining: true });
    world.run(Span::secs(2));
    let active = world.active().expect("served");
    assert!(active != 1 && world.runs(active) == Some(world.record().epoch));
    assert!(!world.holders(active).contains(&1), "it holds nothing new, and is let go");
    world.kill(active);
    world.run(Span::secs(2));
    assert!(world.active().is_some_and(|now| now != 1 && now != active));
}

#[test]
fn a_witness_neither_runs_nor_holds() {
    let mut world = World::with_witness(3, 3, stop());
    assert_eq!(world.active(), Some(1));
    assert!(!world.holders(1).contains(&3));
    world.kill(1);
    world.run(Span::secs(2));
    assert_eq!(world.running(), [(2, world.record().epoch)]);
    world.kill(2);
    world.start(1);
    world.run(Span::secs(3));
    assert_eq!(world.active(), Some(1));
}

#[test]
fn copies_are_spread_over_zones_and_follow_them() {
    let zone = |n: u8| if n <= 3 { "a" } else { "b" };
    let mut world = World::with_zones(5, zone, stop());
    let held = world.holders(1);
    assert_eq!(held.len(), 2);
    assert!(held.iter().any(|n| zone(*n) == "b"), "{held:?}");
    let (left, other): (Vec<u8>, Vec<u8>) = held.iter().partition(|n| zone(**n) == "b");
    world.kill(left[0]);
    world.run(Span::secs(3));
    let held = world.holders(1);
    assert!(held.len() == 2 && held.iter().any(|n| zone(*n) == "b"), "{held:?} {other:?}");
}

#[test]
fn a_service_that_is_stopped_and_started_goes_on_where_it_was() {
    let mut world = World::serving(3, stop());
    let service = super::world::SERVICE;
    let wanted = jizoku_core::catalog::Wanted::Stopped;
    world.request(2, Command::SetWanted { service, wanted });
    world.run(Span::secs(1));
    assert_eq!(world.running(), []);
    let wanted = jizoku_core::catalog::Wanted::Running;
    world.request(2, Command::SetWanted { service, wanted });
    world.run(Span::secs(1));
    assert_eq!(world.running(), [(1, Epoch::main(2))]);
    let assignment = &world.up[&1].runner.as_ref().expect("it runs").assignment;
    assert!(assignment.born && !assignment.poisonous);
}

#[test]
fn the_second_crash_from_one_checkpoint_is_poison_and_the_third_goes_elsewhere() {
    let mut world = World::serving(3, stop());
    for (crash, poisonous) in [(1, false), (2, true)] {
        world.crash(1);
        world.run(Span::secs(1));
        let assignment = &world.up[&1].runner.as_ref().expect("it runs again").assignment;
        assert_eq!(assignment.poisonous, poisonous, "after crash {crash}");
    }
    world.crash(1);
    world.run(Span::secs(2));
    assert_eq!(world.active(), Some(2));
    let apply = Command::ApplyService { spec: Box::new(stop()), expect: Some(1) };
    world.request(1, apply);
    assert_eq!(world.active(), Some(2), "nothing changed, nothing moves");
}
