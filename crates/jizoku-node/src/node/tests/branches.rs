//! Sides without a majority: who opens, what it goes on from, and who goes on when sides meet.

use alloc::vec;
use alloc::vec::Vec;

use jizoku_types::spec::{PartitionPolicy, Placement, ServiceSpec};
use jizoku_types::{BranchId, ByteCount, Epoch, Event, Span};

use super::super::{BRANCH_AFTER, MEET_FOR};
use super::world::{World, id, nodes, spec};
use crate::runner::{Phase, Report};

fn opened(event: &Event) -> bool {
    matches!(event, Event::BranchOpened { .. })
}

fn resolved(event: &Event) -> bool {
    matches!(event, Event::BranchResolved { .. })
}

fn is_branch(epoch: Epoch) -> bool {
    epoch.branch != BranchId::MAIN
}

/// Long enough for the first candidate of a side to open a branch, not for the second.
const OPENING: Span = Span::millis(3_800);
const MEETING: Span = Span::secs(5);
const _: () = assert!(OPENING.as_nanos() > BRANCH_AFTER.as_nanos());
const _: () = assert!(MEETING.as_nanos() > MEET_FOR.as_nanos());

#[test]
fn the_side_of_the_active_node_goes_on_and_gives_way_to_the_majority() {
    let mut world = World::serving(5, spec());
    // Holders are on both sides.
    let held: Vec<u8> = world.holders(1).into_iter().collect();
    let side = nodes([1, held[0]]);
    let rest = (1..=5).filter(|n| !side.contains(n)).collect();
    world.split(&[side.clone(), rest]);
    world.run(OPENING);
    let branch = world.runs(1).expect("the old active node goes on");
    assert!(is_branch(branch) && branch.counter == 2);
    assert_eq!(world.holders(1), nodes([held[0]]), "it needs no copy of its own any more");
    assert_eq!(world.routed(held[0]), Some((1, branch)), "gateways of its side follow");
    let main = world.record().epoch;
    assert_eq!(main, Epoch::main(2), "the majority took the main line over");
    assert_eq!(world.running().len(), 2);
    assert_eq!(world.saw(1, opened), 1);

    world.commit(1, 50);
    world.meet();
    world.run(MEETING);
    let active = world.active().expect("served");
    assert_eq!(world.running(), [(active, main)], "more checkpoints don't count against it");
    assert!((1..=5).all(|n| world.routed(n) == Some((active, main))));
    let kept = world.record().branches;
    assert_eq!(kept.keys().copied().collect::<Vec<_>>(), [branch.branch]);
    let kept = &kept[&branch.branch];
    assert_eq!((kept.parent, kept.opener, kept.checkpoints), (Epoch::main(1), id(1), 50));
    assert!((1..=5).all(|n| world.saw(n, resolved) == 1));
}

#[test]
fn two_nodes_go_on_after_the_death_of_either_and_the_branch_becomes_the_main_line() {
    let mut world = World::serving(2, spec());
    world.kill(1);
    world.run(OPENING);
    let branch = world.runs(2).expect("the other goes on");
    assert!(is_branch(branch));
    let assignment = &world.up[&2].runner.as_ref().expect("it runs").assignment;
    assert_eq!((assignment.fork, assignment.born), (Some(BranchId::MAIN), true));
    world.commit(2, 3);
    world.start(1);
    world.run(MEETING);
    let record = world.record();
    assert_eq!(record.epoch, Epoch::main(3), "above the branch's own epoch");
    assert_eq!(world.running(), [(2, Epoch::main(3))]);
    let assignment = &world.up[&2].runner.as_ref().expect("it runs").assignment;
    assert_eq!(assignment.fork, Some(branch.branch), "it goes on from what the branch had");
    assert_eq!(record.fork, Some(branch.branch), "until all of a set have gone on");
    assert!(!world.up[&2].forgot.contains(&branch.branch));
    world.commit(2, 1);
    world.run(Span::secs(1));
    assert_eq!(world.record().fork, None);
    assert!((1..=2).all(|n| world.up[&n].forgot.contains(&branch.branch)));
    assert!(world.record().branches.is_empty());
}

#[test]
fn a_lost_proposal_does_not_say_that_all_have_gone_on_from_the_branch() {
    let placement = Placement { except: [id(3)].into(), ..Placement::default() };
    let mut world = World::with_witness(4, 4, ServiceSpec { placement, ..spec() });
    world.kill(3);
    world.kill(1);
    world.run(OPENING);
    let branch = world.runs(2).expect("without a majority it goes on in a branch").branch;
    world.commit(2, 3);
    world.start(3);
    world.run(MEETING);
    assert_eq!(world.running(), [(2, Epoch::main(3))]);
    assert_eq!(world.record().fork, Some(branch), "nothing was committed in this line yet");
    // A copy on node 1: the proposal is lost, nobody knows, and node 1 dies.
    world.doubt = true;
    let before = world.proposals;
    world.start(1);
    world.run(Span::millis(100));
    assert!(world.proposals > before);
    assert_eq!(world.holders(2), nodes([2]));
    world.kill(1);
    world.doubt = false;
    assert_eq!(world.holders(2), nodes([2]));
    world.run(Span::secs(2));
    assert_eq!(world.record().fork, Some(branch));
    world.commit(2, 1);
    world.run(Span::secs(1));
    assert_eq!(world.record().fork, None);
}

#[test]
fn of_two_halves_the_one_with_more_checkpoints_goes_on() {
    for (left, right) in [(9, 4), (4, 9), (5, 5), (0, 0)] {
        let mut world = World::serving(4, spec());
        let held: Vec<u8> = world.holders(1).into_iter().collect();
        let one = nodes([1, held[0]]);
        let other = (1..=4).filter(|n| !one.contains(n)).collect();
        world.split(&[one, other]);
        world.run(OPENING);
        let branches: Vec<(u8, Epoch)> = world.running();
        assert_eq!(branches.len(), 2, "each side serves");
        assert!(branches.iter().all(|(_, epoch)| is_branch(*epoch)));
        let ((a, of_a), (b, of_b)) = (branches[0], branches[1]);
        world.commit(a, left);
        world.commit(b, right);
        world.run(Span::secs(1));
        world.meet();
        world.run(MEETING);
        let lower = if of_a.branch < of_b.branch { a } else { b };
        let (winner, loser) = match left.cmp(&right) {
            core::cmp::Ordering::Greater => (a, of_b),
            core::cmp::Ordering::Less => (b, of_a),
            core::cmp::Ordering::Equal if lower == a => (a, of_b),
            core::cmp::Ordering::Equal => (b, of_a),
        };
        let record = world.record();
        assert_eq!(world.running(), [(winner, record.epoch)], "{left} {right}");
        assert_eq!(record.active.map(|active| active.node), Some(id(winner)));
        let listed: Vec<BranchId> = record.branches.keys().copied().collect();
        let something = left.min(right) > 0;
        assert_eq!(listed, if something { vec![loser.branch] } else { vec![] });
    }
}

#[test]
fn within_a_side_another_goes_on_after_the_opener_died() {
    let mut world = World::serving(5, spec());
    let held: Vec<u8> = world.holders(1).into_iter().collect();
    let side = nodes([1, held[0]]);
    world.split(&[side]);
    world.run(OPENING);
    let first = world.runs(1).expect("it goes on");
    world.commit(1, 2);
    world.run(Span::secs(2));
    world.kill(1);
    world.run(OPENING);
    let second = world.runs(held[0]).expect("its holder goes on");
    let assignment = &world.up[&held[0]].runner.as_ref().expect("it runs").assignment;
    assert_eq!(assignment.fork, Some(first.branch), "from the branch, not from the main line");
    assert_eq!(second.counter, first.counter + 1);
    world.commit(held[0], 1);
    world.run(Span::secs(6));
    let forgot = |world: &World| world.up[&held[0]].forgot.contains(&first.branch);
    assert!(!forgot(&world), "on another side it may have become the main line");
    world.meet();
    world.run(Span::secs(15));
    assert!(forgot(&world), "its state is in the next one's");
}

/// The opener meets the majority, its branch becomes the main line, and its holder is cut off
/// before it hears of that: it goes on from the branch, and must not forget it meanwhile.
#[test]
fn what_the_main_line_goes_on_from_is_kept_by_who_went_on_from_it_too() {
    let mut world = World::serving(4, spec());
    let held: Vec<u8> = world.holders(1).into_iter().filter(|n| *n != 1).collect();
    let (a, b) = (1, held[0]);
    let others: alloc::collections::BTreeSet<u8> = (2..=4).filter(|n| *n != b).collect();
    others.iter().for_each(|n| world.kill(*n));
    world.run(OPENING);
    let branch = world.runs(a).expect("half of the voters are no majority");
    world.commit(a, 3);
    world.run(Span::secs(2));
    others.iter().for_each(|n| world.start(*n));
    // Its holder is alone now, and goes on too.
    let rest = (1..=4).filter(|n| *n != b).collect();
    world.split(&[rest, nodes([b])]);
    world.run(Span::secs(6));
    assert_eq!(world.record().fork, Some(branch.branch), "nothing was committed in it yet");
    let successor = world.runs(b).expect("it goes on alone");
    assert!(is_branch(successor));
    world.commit(b, 2);
    world.run(Span::secs(20));
    assert!(!world.up[&b].forgot.contains(&branch.branch), "the main line needs it");
}

#[test]
fn a_branch_that_another_comes_from_is_kept_while_it_goes_on() {
    let mut world = World::serving(7, spec());
    let held: Vec<u8> = world.holders(1).into_iter().filter(|n| *n != 1).collect();
    let with_it = held[0];
    let apart = (2..=7).find(|n| !held.contains(n)).expect("not all hold it");
    world.split(&[nodes([1, with_it, apart])]);
    world.run(OPENING);
    let first = world.runs(1).expect("it goes on");
    assert!(is_branch(first) && world.holders(1).contains(&apart));
    world.commit(1, 2);
    world.run(Span::secs(2));
    world.split(&[nodes([1, with_it])]);
    world.run(OPENING);
    assert!(world.runs(apart).is_some_and(is_branch), "its holder goes on by itself");
    world.commit(apart, 1);
    world.commit(1, 3);
    world.run(Span::secs(2));
    world.split(&[nodes([1, with_it, apart])]);
    world.run(MEETING);
    assert_eq!((world.runs(1), world.runs(apart)), (Some(first), None), "it has more checkpoints");
    for n in [1, with_it] {
        assert!(!world.up[&n].forgot.contains(&first.branch), "{n} forgot what goes on");
    }
}

#[test]
fn an_instance_that_crashes_goes_on_in_another_branch() {
    let mut world = World::serving(2, spec());
    world.kill(1);
    world.run(OPENING);
    let first = world.runs(2).expect("it goes on");
    let exit = jizoku_engine::Exit::Crashed("a trap".into());
    let restored = Default::default();
    world.report(2, first, Report::Exited { exit, restored, ran: Span::secs(1) });
    world.run(Span::secs(1));
    let second = world.runs(2).expect("it goes on again");
    assert!(is_branch(second) && second.branch != first.branch);
    let assignment = &world.up[&2].runner.as_ref().expect("it runs").assignment;
    assert_eq!(assignment.fork, Some(BranchId::MAIN), "the first had nothing of its own");
}

#[test]
fn a_branch_whose_holders_do_not_answer_is_given_up() {
    let mut world = World::serving(2, spec());
    world.kill(1);
    world.run(OPENING);
    let epoch = world.runs(2).expect("it tries");
    world.report(2, epoch, Report::Phase(Phase::Unreachable));
    world.run(Span::secs(1));
    assert_eq!(world.running(), []);
    assert!(world.up[&2].forgot.contains(&epoch.branch), "its own holder may have begun with it");
    world.start(1);
    world.run(MEETING);
    assert!(world.active().is_some_and(|n| world.runs(n) == Some(world.record().epoch)));
}

/// A side of node 1 and a holder, with a branch that has checkpoints and is held there alone.
fn side_with_a_branch() -> (World, u8, Epoch) {
    let mut world = World::serving(5, spec());
    let held = *world.holders(1).first().expect("a holder");
    let rest = (1..=5).filter(|n| ![1, held].contains(n)).collect();
    world.split(&[nodes([1, held]), rest]);
    world.run(OPENING);
    let branch = world.runs(1).expect("it goes on");
    world.commit(1, 3);
    assert_eq!(world.holders(1), nodes([held]));
    (world, held, branch)
}

#[test]
fn nobody_goes_on_from_nothing_and_what_nobody_went_on_from_is_listed() {
    let (mut world, held, branch) = side_with_a_branch();
    world.kill(held);
    world.crash(1);
    world.run(Span::secs(2));
    assert_eq!((world.runs(1), world.saw(1, opened)), (None, 1));
    assert!(world.record().branches.is_empty());
    world.start(held);
    world.meet();
    world.run(MEETING);
    let kept = world.record().branches;
    assert_eq!(kept.keys().copied().collect::<Vec<_>>(), [branch.branch]);
    assert_eq!(kept[&branch.branch].checkpoints, 3);
}

#[test]
fn what_another_went_on_from_is_not_listed() {
    let (mut world, held, first) = side_with_a_branch();
    world.crash(1);
    world.run(Span::secs(1));
    let second = world.runs(1).expect("it goes on");
    assert_eq!(world.up[&1].runner.as_ref().expect("it runs").assignment.fork, Some(first.branch));
    world.commit(1, 1);
    world.run(Span::secs(1));
    assert!([1, held].iter().all(|n| world.up[n].forgot.contains(&first.branch)));
    world.meet();
    world.run(MEETING);
    let kept = world.record().branches;
    assert_eq!(kept.keys().copied().collect::<Vec<_>>(), [second.branch]);
    assert_eq!(kept[&second.branch].checkpoints, 4);
}

#[test]
fn who_restarts_where_nobody_leads_is_a_holder_as_it_is_now() {
    let (mut world, held, first) = side_with_a_branch();
    world.kill(held);
    world.start(held);
    world.run(Span::secs(1));
    let played = world.up[&1].runner.as_ref().expect("it runs");
    let members: Vec<u64> =
        played.holders.members.iter().map(|member| member.incarnation.0).collect();
    assert_eq!((world.holders(1), members), (nodes([held]), vec![2]));
    world.crash(1);
    world.run(Span::secs(1));
    assert!(world.runs(1).is_some_and(|second| second.branch != first.branch));
    assert_eq!(world.holders(1), nodes([held]));
}

#[test]
fn who_was_down_when_a_branch_ended_hears_of_it_later() {
    let mut world = World::serving(5, spec());
    let held = *world.holders(1).first().expect("a holder");
    let rest = (1..=5).filter(|n| ![1, held].contains(n)).collect();
    world.split(&[nodes([1, held]), rest]);
    world.run(OPENING);
    let branch = world.runs(1).expect("it goes on").branch;
    world.kill(held);
    world.run(Span::millis(100));
    world.meet();
    world.run(MEETING);
    assert!(world.up[&1].forgot.contains(&branch), "nothing was committed in it");
    world.start(held);
    world.run(Span::secs(10));
    assert!(world.up[&held].forgot.contains(&branch));
}

#[test]
fn a_branch_that_was_listed_is_gone_on_from_by_nobody() {
    let mut world = World::serving(5, spec());
    let held: Vec<u8> = world.holders(1).into_iter().collect();
    let spare = (2..=5).find(|n| !held.contains(n)).expect("two of five hold nothing");
    let side = nodes([held[0], spare]);
    let rest = (1..=5).filter(|n| !side.contains(n)).collect();
    world.split(&[side, rest]);
    world.run(OPENING);
    let first = world.runs(held[0]).expect("the side without a majority goes on").branch;
    world.commit(held[0], 3);
    world.meet();
    world.run(MEETING);
    let record = world.record();
    assert_eq!(record.epoch, Epoch::main(1), "the main line went on all the time");
    assert!(record.branches.contains_key(&first));
    world.commit(1, 3);
    world.run(Span::secs(1));
    // A side without a majority, with a holder of either line.
    let holds = *world.holders(1).iter().find(|n| **n != held[0]).expect("another holder");
    let side = nodes([held[0], holds]);
    let rest = (1..=5).filter(|n| !side.contains(n)).collect();
    world.split(&[side, rest]);
    world.run(OPENING);
    let opener = world.running().into_iter().find(|(_, epoch)| is_branch(*epoch));
    let (opener, _) = opener.expect("a branch again");
    let assignment = &world.up[&opener].runner.as_ref().expect("it runs").assignment;
    assert_eq!(assignment.fork, Some(BranchId::MAIN));
}

#[test]
fn two_sides_without_a_leader_find_each_other() {
    let mut world = World::serving(9, spec());
    let held: Vec<u8> = world.holders(1).into_iter().collect();
    let spare: Vec<u8> = (2..=9).filter(|n| !held.contains(n)).collect();
    let [one, other] = [nodes([1, held[0]]), nodes([held[1], spare[0]])];
    let third = nodes([spare[1], spare[2]]);
    world.split(&[one.clone(), other.clone(), third]);
    world.run(OPENING);
    let branches = world.running();
    assert_eq!(branches.len(), 2, "the third side holds nothing");
    world.commit(branches[0].0, 2);
    world.commit(branches[1].0, 7);
    world.run(Span::secs(1));
    world.split(&[one.union(&other).copied().collect()]);
    world.run(Span::secs(1));
    assert_eq!(world.running(), [branches[1]]);
    assert!(one.iter().chain(&other).all(|n| world.routed(*n) == Some(branches[1])));
    // The majority comes back: what goes on is the main line, what stopped is listed.
    world.meet();
    world.run(MEETING);
    assert_eq!(world.running(), [(branches[1].0, world.record().epoch)]);
    assert!(world.record().branches.contains_key(&branches[0].1.branch));
}

#[test]
fn nothing_is_opened_when_it_must_not_be() {
    let stop = jizoku_types::spec::ServiceSpec { partition: PartitionPolicy::Stop, ..spec() };
    let full = jizoku_types::spec::ServiceSpec { branch_limit: ByteCount(0), ..spec() };
    for (service, said) in [(stop, 0), (full, 1)] {
        let mut world = World::serving(2, service);
        world.kill(1);
        world.run(Span::secs(10));
        assert_eq!((world.runs(2), world.saw(2, opened)), (None, 0));
        let trouble = |event: &Event| matches!(event, Event::Trouble { .. });
        assert_eq!(world.saw(2, trouble), said);
    }
}

#[test]
fn a_cluster_that_starts_up_is_no_partition() {
    let mut world = World::serving(3, spec());
    for n in 1..=3 {
        world.kill(n);
    }
    world.start(2);
    world.run(Span::secs(20));
    assert_eq!((world.runs(2), world.saw(2, opened)), (None, 0));
}

#[test]
fn a_short_loss_of_the_majority_changes_nothing() {
    let mut world = World::serving(3, spec());
    world.split(&[nodes([1]), nodes([2]), nodes([3])]);
    world.run(BRANCH_AFTER - Span::millis(500));
    world.meet();
    world.run(MEETING);
    assert_eq!(world.running(), [(1, Epoch::main(1))]);
    assert_eq!(world.saw(1, opened), 0);
}

#[test]
fn a_branch_whose_opener_died_when_sides_met_is_listed_and_gone_on_from_by_nobody() {
    // Node 1 stays with the majority, so the main line goes on in the same epoch.
    let mut world = World::serving(5, spec());
    let held: Vec<u8> = world.holders(1).into_iter().filter(|n| *n != 1).collect();
    let other = (2..=5).find(|n| !held.contains(n)).expect("it has two copies");
    let (side, main) = (nodes([held[0], other]), world.record().epoch);
    let rest = (1..=5).filter(|n| !side.contains(n)).collect();
    world.split(&[side.clone(), rest]);
    world.run(Span::secs(6));
    let (opener, branch) =
        *world.running().iter().find(|(n, _)| side.contains(n)).expect("that side goes on");
    let witness = *side.iter().find(|n| **n != opener).expect("two are there");
    world.commit(opener, 2);
    world.run(Span::secs(2));
    world.meet();
    world.run(Span::secs(1));
    world.kill(opener);
    world.run(Span::secs(5));
    assert!(world.record().branches.is_empty(), "it may only be away");
    assert_eq!(world.record().epoch, main);

    // Cut off again, the other one goes on from what the main line told meanwhile.
    let third = (2..=5).find(|n| !side.contains(n) && world.holders(1).contains(n)).expect("held");
    world.kill(third);
    world.commit(1, 5);
    world.run(Span::secs(2));
    world.start(third);
    assert!(world.holders(1).contains(&witness), "{:?}", world.holders(1));
    let rest = (1..=5).filter(|n| *n != witness).collect();
    world.split(&[nodes([witness]), rest]);
    world.run(Span::secs(6));
    let assignment = &world.up[&witness].runner.as_ref().expect("it goes on").assignment;
    assert_eq!(assignment.fork, Some(BranchId::MAIN));
    world.meet();
    world.run(MEETING);

    world.start(opener);
    world.run(Span::secs(5));
    assert!(world.record().branches.contains_key(&branch.branch), "now it is known to be dead");
}
