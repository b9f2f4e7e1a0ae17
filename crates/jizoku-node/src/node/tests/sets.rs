//! Holder sets: who is waited for, and for how long.

use alloc::boxed::Box;

use jizoku_core::catalog::Command;
use jizoku_types::Span;
use jizoku_types::spec::{PartitionPolicy, ServiceSpec};

use super::world::{World, nodes, spec};
use crate::runner::Asked;

#[test]
fn who_was_named_by_a_lost_proposal_and_died_is_not_waited_for() {
    let two = ServiceSpec { partition: PartitionPolicy::Stop, ..spec() };
    let mut world = World::serving(4, two.clone());
    assert_eq!(world.holders(1), nodes([2, 3]));
    // One copy more, on node 4: the proposal is lost, and nobody knows.
    let spec = Box::new(ServiceSpec { copies: 3, ..two });
    let expect = Some(world.record().version);
    world.doubt = true;
    world.request(1, Command::ApplyService { spec, expect });
    assert_eq!(world.holders(1), nodes([2, 3]));
    let waits = |world: &World| !world.up[&1].runner.as_ref().expect("it runs").recruits.is_empty();
    assert!(waits(&world), "it may yet become a member");
    world.kill(4);
    world.doubt = false;
    world.run(Span::secs(2));
    assert_eq!(world.holders(1), nodes([2, 3]));
    assert!(!waits(&world), "no commit would come about any more");
    let settled = world.proposals;
    world.run(Span::secs(5));
    assert_eq!(world.proposals, settled, "once is enough");
}

#[test]
fn what_is_asked_of_checkpoints_reaches_who_runs() {
    let before = ServiceSpec { partition: PartitionPolicy::Stop, ..spec() };
    let mut world = World::serving(3, before.clone());
    let epoch = world.record().epoch;
    let after = ServiceSpec { min_copies: 2, interval: Span::millis(7), ..before };
    let expect = Some(world.record().version);
    world.request(1, Command::ApplyService { spec: Box::new(after.clone()), expect });
    world.run(Span::millis(100));
    assert_eq!(world.runs(1), Some(epoch), "the same instance goes on");
    let played = world.up[&1].runner.as_ref().expect("it runs");
    assert_eq!(played.holders.asked, Some(Asked::of(&after)));
}
