//! Takeovers in the main line: who may propose them, and who is passed over.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use jizoku_core::catalog::Command;
use jizoku_types::spec::{OutputMode, PartitionPolicy, ServiceSpec, SuccessionPolicy};
use jizoku_types::{Epoch, Event, Span};

use super::super::{Input, Request};
use super::world::{World, id, nodes, spec};

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
fn what_crashes_on_a_drained_node_goes_on_elsewhere() {
    let mut world = World::serving(5, stop());
    // It crashes, and is drained before it is started again; whoever else holds it is gone.
    let holders: Vec<u8> = world.holders(1).into_iter().filter(|n| *n != 1).collect();
    holders.iter().for_each(|n| world.kill(*n));
    let before = world.proposals;
    world.crash(1);
    world.request(1, Command::SetDraining { node: id(1), draining: true });
    world.run(Span::secs(10));
    let active = world.active().expect("somebody");
    assert!(active != 1 && world.runs(active) == Some(world.record().epoch));
    assert!(world.proposals - before < 50, "{} proposals", world.proposals - before);
}

#[test]
fn nobody_who_may_run_it_is_waited_for_in_peace() {
    let mut world = World::serving(3, stop());
    let before = world.proposals;
    world.crash(1);
    for n in 1..=3 {
        world.request(1, Command::SetDraining { node: id(n), draining: true });
    }
    world.run(Span::secs(10));
    assert!(world.proposals - before < 50, "{} proposals", world.proposals - before);
    assert_eq!(world.running(), []);
    world.request(1, Command::SetDraining { node: id(3), draining: false });
    world.run(Span::secs(10));
    assert_eq!(world.running(), [(3, world.record().epoch)]);
}

#[test]
fn a_held_service_is_taken_from_its_node_and_another_one_is_quiesced_first() {
    let free = ServiceSpec { output: OutputMode::Free, ..stop() };
    for (spec, quiesced) in [(stop(), 0), (free, 1)] {
        let mut world = World::serving(3, spec);
        let (service, to) = (super::world::SERVICE, Some(id(2)));
        world.give(1, Input::Request { id: 1, request: Request::Move { service, to } });
        world.run(Span::secs(1));
        assert_eq!(world.running(), [(2, Epoch::main(2))]);
        assert_eq!(world.quiesced, quiesced);
        assert_eq!(world.saw(1, |event| matches!(event, Event::InstanceFenced { .. })), 0);
    }
}

#[test]
fn a_move_waits_for_who_has_yet_to_compile_the_program() {
    let mut world = World::serving(3, stop());
    world.give(2, Input::Compiled(BTreeSet::new()));
    world.run(Span::secs(1));
    let (service, to) = (super::world::SERVICE, Some(id(2)));
    world.give(1, Input::Request { id: 1, request: Request::Move { service, to } });
    world.run(Span::secs(1));
    assert_eq!(world.running(), [(1, Epoch::main(1))], "nobody would answer meanwhile");
    world.give(2, Input::Compiled([[7; 32]].into()));
    world.run(Span::secs(1));
    assert_eq!(world.running(), [(2, Epoch::main(2))]);
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

#[test]
fn of_two_holders_the_one_that_has_compiled_the_program_goes_on() {
    let module = BTreeSet::from([[7; 32]]);
    for (quick, slow) in [(2, 3), (3, 2)] {
        let first = SuccessionPolicy::Priority(alloc::vec![id(1)]);
        let mut world = World::serving(3, ServiceSpec { succession: first, ..stop() });
        assert_eq!(world.holders(1).len(), 2, "both hold it");
        world.give(quick, Input::Compiled(module.clone()));
        world.give(slow, Input::Compiled(BTreeSet::new()));
        // It is told at once.
        world.run(Span::millis(20));
        for n in 1..=3 {
            let view = world.up[&n].node.view();
            let unprepared = |one: &u8| {
                let node = view.nodes.iter().find(|node| node.node == id(*one)).expect("a member");
                let facts = node.facts.as_ref().expect("it was heard");
                facts.unprepared.contains(&super::world::SERVICE)
            };
            let waiting: Vec<u8> = (1..=3).filter(unprepared).collect();
            assert_eq!(waiting, [slow], "as {n} sees it");
        }
        world.kill(1);
        world.run(Span::millis(200));
        assert_eq!(world.running(), [(quick, Epoch::main(2))]);
        world.give(slow, Input::Compiled(module.clone()));
        world.kill(quick);
        world.start(1);
        world.run(Span::secs(2));
        assert!(world.active().is_some(), "who was slow is a candidate as before");
    }
}

#[test]
fn a_crash_is_told_with_the_time_of_the_next_try() {
    let mut world = World::serving(3, stop());
    let next_try = |world: &World, n: u8| {
        let view = world.up[&n].node.view();
        let facts = view.services[&super::world::SERVICE].facts.clone();
        facts.and_then(|facts| facts.next_try)
    };
    assert_eq!(next_try(&world, 1), None, "it runs");
    world.crash(1);
    assert_eq!(next_try(&world, 1), Some(Span::millis(100)));
    world.run(Span::millis(60));
    world.give(1, Input::Tick);
    assert_eq!(next_try(&world, 1), Some(Span::millis(40)));
    assert_eq!(next_try(&world, 3), Some(Span::millis(100)), "others have it as it was told");
    world.run(Span::millis(500));
    assert_eq!((world.runs(1), next_try(&world, 1)), (Some(Epoch::main(2)), None));
}

#[test]
fn what_runs_again_for_a_while_fails_no_more() {
    let mut world = World::serving(3, stop());
    let crashes = |world: &World, n: u8| {
        let view = world.up[&n].node.view();
        let facts = view.services[&super::world::SERVICE].facts.clone();
        facts.map_or(0, |facts| facts.crashes)
    };
    world.crash(1);
    world.run(Span::secs(30));
    assert_eq!((crashes(&world, 1), crashes(&world, 3)), (1, 1));
    world.run(Span::secs(32));
    assert_eq!((crashes(&world, 1), crashes(&world, 3)), (0, 0));
    // The same holds for what went on elsewhere, and came back.
    for _ in 0..3 {
        world.crash(1);
        world.run(Span::secs(1));
    }
    assert_eq!(world.active(), Some(2));
    world.run(Span::secs(200));
    world.kill(2);
    world.run(Span::secs(2));
    assert_eq!((world.active(), crashes(&world, 1)), (Some(1), 0));
}

#[test]
fn a_verdict_is_as_old_as_its_last_change() {
    let mut world = World::serving(3, stop());
    let judged_at = |world: &World| {
        let view = world.up[&1].node.view();
        let service = &view.services[&super::world::SERVICE];
        assert_eq!(service.verdict, jizoku_core::watch::Verdict::Serving);
        service.judged_at.expect("it was judged")
    };
    let since = judged_at(&world);
    assert!(since < world.now);
    world.run(Span::secs(5));
    assert_eq!(judged_at(&world), since, "nothing changed");
    let before = world.now;
    world.crash(1);
    world.run(Span::secs(5));
    assert!(judged_at(&world) > before, "a new epoch begins without a verdict");
}

#[test]
fn who_is_cut_off_asks_for_no_takeover_that_could_come_true_later() {
    let mut world = World::serving(2, ServiceSpec { min_copies: 0, ..spec() });
    // The other node is out of reach before this one knows that nobody leads.
    world.split(&[nodes([1]), nodes([2])]);
    world.run(Span::secs(1));
    let asked = |event: &Event| matches!(event, Event::TakeoverProposed { .. });
    assert_eq!(world.saw(2, asked), 0);
}

/// Whether what runs was told that the whole cluster had been down.
fn went_on_after_a_restart_of_all(world: &World) -> bool {
    let active = world.active().expect("served");
    let played = world.up[&active].runner.as_ref().expect("it runs there");
    played.assignment.cluster_restarted
}

#[test]
fn holders_that_died_after_a_restart_of_the_whole_cluster_died_by_themselves() {
    let mut world = World::serving(5, stop());
    (1..=5).for_each(|n| world.kill(n));
    (1..=5).for_each(|n| world.start(n));
    world.run(Span::secs(5));
    assert!(went_on_after_a_restart_of_all(&world));
    let active = world.active().expect("served");
    let holders = world.holders(active);
    let lives_on = (1..=5).find(|n| *n != active && !holders.contains(n)).expect("two of five");
    // It becomes no holder while the others die.
    world.split(&[(1..=5).filter(|n| *n != lives_on).collect()]);
    for n in (1..=5).filter(|n| *n != lives_on) {
        world.kill(n);
    }
    world.meet();
    world.run(Span::secs(5));
    // Those who start now never met the holders; who lives on did.
    for n in (1..=5).filter(|n| *n != lives_on) {
        world.start(n);
    }
    world.run(Span::secs(5));
    assert!(!went_on_after_a_restart_of_all(&world));
}

/// Both holders and another one die at once, while the two that live on are cut off.
#[test]
fn that_the_cluster_was_restarted_is_taken_back_when_somebody_has_lived_on() {
    let mut world = World::serving(5, stop());
    world.hasty = false;
    let held: Vec<u8> = world.holders(1).into_iter().filter(|n| *n != 1).collect();
    let other = (2..=5).find(|n| !held.contains(n)).expect("two hold it");
    let dead = [held[0], held[1], other];
    dead.iter().for_each(|n| world.kill(*n));
    let apart = (1..=5).filter(|n| !dead.contains(n)).collect();
    world.split(&[dead.into(), apart]);
    dead.iter().for_each(|n| world.start(*n));
    world.run(Span::secs(5));
    let active = world.active().expect("they are a majority");
    assert!(dead.contains(&active));
    let restarted = |world: &World| {
        let runner = world.up[&active].runner.as_ref().expect("it collects");
        runner.assignment.cluster_restarted
    };
    assert!(restarted(&world), "as far as they can see");
    world.meet();
    world.run(Span::secs(5));
    assert_eq!(world.active(), Some(active));
    assert!(!restarted(&world));
}
