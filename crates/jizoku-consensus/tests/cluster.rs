//! Clusters of values in virtual time: see the harness for what every one of them is checked for.

mod harness;

use std::collections::BTreeSet;

use harness::{End, Weather, World, node, nodes};
use jizoku_consensus::{COMMAND_MAX, Input, RefuseReason};
use jizoku_types::{Instant, NodeId, Span};

/// How many seeds a storm is tried with.
const STORMS: u64 = 12;

const KILLS: u64 = 40;

fn pick(world: &mut World, from: &[NodeId]) -> NodeId {
    let index = world.chance(from.len() as u64);
    from[usize::try_from(index).expect("small")]
}

#[test]
fn a_node_alone_leads_and_applies() {
    let mut world = World::cluster(1, 1);
    let took = world.make_progress(Span::secs(1));
    assert!(took < Span::millis(20), "{took}");
    assert_eq!(world.machines[&node(1)].members, (nodes([1]), BTreeSet::new()));
}

#[test]
fn any_node_may_propose() {
    let mut world = World::cluster(2, 3);
    let ids: Vec<u64> = (1..=3).map(|number| world.propose(node(number))).collect();
    world.run(Span::millis(100));
    for id in ids {
        assert!(matches!(world.ends[&id], End::Applied(_)), "{:?}", world.ends[&id]);
    }
    world.check_all_have_all();
}

/// Kills the leader at some moment; how long until a proposal made at another node is applied.
fn fail_over(seed: u64, count: u8, hint: bool) -> Span {
    let mut world = World::cluster(seed, count);
    world.run(Span::secs(1) + Span::millis(seed * 7));
    let leader = world.leader().expect("a quiet cluster has one");
    world.crash(leader);
    let start = world.now;
    if hint {
        // A reset connection is noticed within a millisecond, not everywhere at once.
        for id in world.up() {
            let after = Span::micros(world.chance(1000));
            world.run(after);
            world.input(id, Input::PeerDown { node: leader });
        }
    }
    let at = world.up()[0];
    let id = world.propose(at);
    world.run_until("the next leader commits", Span::secs(2), |w| w.ends.contains_key(&id));
    assert!(matches!(world.ends[&id], End::Applied(_)), "seed {seed}: {:?}", world.ends[&id]);
    world.now.since(start)
}

fn spread(mut spans: Vec<Span>) -> (Span, Span) {
    spans.sort();
    (spans[spans.len() / 2], spans[spans.len() - 1])
}

#[test]
fn the_next_leader_commits_soon_after_the_last_one_died() {
    for count in [3, 5] {
        let (half, worst) = spread((0..KILLS).map(|seed| fail_over(seed, count, false)).collect());
        println!("{count} nodes: half within {half}, all within {worst}");
        assert!(worst < Span::millis(800), "{half} {worst}");
        let (half, worst) = spread((0..KILLS).map(|seed| fail_over(seed, count, true)).collect());
        println!("{count} nodes, death known: half within {half}, all within {worst}");
        assert!(half < Span::millis(30), "{half} {worst}");
        assert!(worst < Span::millis(600), "{half} {worst}");
    }
}

fn storm(seed: u64, count: u8, span: Span) -> World {
    let mut world = World::cluster_with(seed, count, |config| config.snapshot_every = 64);
    world.weather = Weather::bad();
    let all: Vec<NodeId> = world.machines.keys().copied().collect();
    let end = world.now + span;
    while world.now < end {
        let pause = Span::millis(world.chance(120));
        world.run(pause);
        let at = pick(&mut world, &all);
        if world.is_up(at) {
            world.propose(at);
        }
        let victim = pick(&mut world, &all);
        let up = world.is_up(victim);
        match world.chance(42) {
            0 => world.crash(victim),
            1..4 if !up => world.start(victim),
            4 => world.isolate(victim),
            5 => {
                let half = all.iter().copied().filter(|_| world.chance(2) == 0).collect();
                let rest = all.iter().copied().filter(|id| !BTreeSet::contains(&half, id));
                let rest = rest.collect();
                world.cut_between(&half, &rest);
            }
            6 => {
                let other = pick(&mut world, &all);
                world.cut.insert((victim, other));
            }
            7..10 => world.heal(),
            // True or not: a hint must never do harm.
            10 if up => {
                let about = pick(&mut world, &all);
                world.input(victim, Input::PeerDown { node: about });
            }
            11 if up => world.input(victim, Input::TransferLeader { to: None }),
            12 if up => {
                let mut voters: BTreeSet<NodeId> =
                    all.iter().copied().filter(|_| world.chance(2) == 0).collect();
                voters.insert(victim);
                let rest = all.iter().copied().filter(|id| !voters.contains(id)).collect();
                world.change_voters(victim, voters, rest);
            }
            _ => {}
        }
    }
    world
}

fn calm_down(world: &mut World) {
    world.weather = Weather::fine();
    world.heal();
    let all: Vec<NodeId> = world.machines.keys().copied().collect();
    for id in all {
        if !world.is_up(id) {
            world.start(id);
        }
    }
    world.make_progress(Span::secs(5));
    world.run(Span::secs(1));
    world.check_all_have_all();
}

/// `JIZOKU_STORMS=200 cargo test --release -p jizoku-consensus storms` tries more seeds.
#[test]
fn storms_lose_nothing_and_pass() {
    let asked = std::env::var("JIZOKU_STORMS").ok().and_then(|count| count.parse().ok());
    let seeds = asked.unwrap_or(STORMS);
    let (mut all, mut led) = (0, 0);
    for seed in 0..seeds {
        for count in [3, 5] {
            let mut world = storm(seed, count, Span::secs(30));
            let leaders = world.leaders.len();
            calm_down(&mut world);
            let count_of = |what: fn(&End) -> bool| world.ends.values().filter(|e| what(e)).count();
            let applied = count_of(|end| matches!(end, End::Applied(_)));
            let changed = count_of(|end| matches!(end, End::Changed));
            let unknown = count_of(|end| *end == End::Refused(RefuseReason::Unknown));
            println!(
                "seed {seed}, {count} nodes: {applied} applied, {unknown} unknown, {changed} \
                 changes of voters, {leaders} leaders"
            );
            all += applied;
            led += leaders;
        }
    }
    let enough = usize::try_from(seeds).expect("few");
    assert!(all > 120 * enough && led > 6 * enough, "too little happened: {all}, {led} leaders");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 100..100 + STORMS.min(3) {
        let hashes: Vec<(u64, u64, Instant)> = (0..2)
            .map(|_| {
                let world = storm(seed, 5, Span::secs(10));
                (world.hash, world.delivered, world.now)
            })
            .collect();
        assert_eq!(hashes[0], hashes[1], "seed {seed}");
        let other = storm(seed + 50, 5, Span::secs(10));
        assert_ne!(hashes[0].0, other.hash, "another seed gives another run");
    }
}

#[test]
fn a_cut_off_follower_comes_back_without_an_election() {
    for seed in 0..4 {
        let mut world = World::cluster(seed, 3);
        let leader = world.leader().expect("quiet");
        let term = world.status(leader).term;
        let follower = world.up().into_iter().find(|id| *id != leader).expect("two others");
        // Only from the leader: the third node still sees both, and must not help the follower.
        world.cut_between(&BTreeSet::from([leader]), &BTreeSet::from([follower]));
        world.run(Span::secs(4));
        assert_eq!(world.leader(), Some(leader), "seed {seed}");
        world.isolate(follower);
        world.run(Span::secs(4));
        assert_eq!(world.status(follower).leader, None, "it hears nobody; seed {seed}");
        world.heal();
        let took = world.make_progress(Span::secs(1));
        assert!(took < Span::millis(20), "no stall after healing: {took}; seed {seed}");
        world.run(Span::secs(1));
        assert_eq!((world.leader(), world.status(leader).term), (Some(leader), term));
    }
}

#[test]
fn a_leader_without_a_majority_stops_calling_itself_one() {
    let mut world = World::cluster(3, 5);
    let leader = world.leader().expect("quiet");
    world.isolate(leader);
    let took =
        world.run_until("it steps down", Span::secs(1), |w| w.status(leader).leader.is_none());
    assert!(took <= Span::millis(700), "{took}");
    let id = world.propose(leader);
    world.run_until("another leads", Span::secs(1), |w| w.leader().is_some_and(|l| l != leader));
    world.run_until("the proposal ends", Span::secs(3), |w| w.ends.contains_key(&id));
    assert_eq!(world.ends[&id], End::Refused(RefuseReason::NotTaken));
    world.heal();
    calm_down(&mut world);
}

#[test]
fn who_is_cut_off_with_the_leader_believes_in_it_no_more() {
    for seed in 0..4 {
        let mut world = World::cluster(seed, 5);
        let leader = world.leader().expect("quiet");
        let companion = world.up().into_iter().find(|id| *id != leader).expect("four others");
        let rest = world.up().into_iter().filter(|id| ![leader, companion].contains(id)).collect();
        world.cut_between(&BTreeSet::from([leader, companion]), &rest);
        world.run(Span::secs(3));
        for id in [leader, companion] {
            assert_eq!(world.status(id).leader, None, "seed {seed}");
        }
        world.heal();
        calm_down(&mut world);
    }
}

#[test]
fn a_false_hint_that_the_leader_is_gone_changes_nothing() {
    let mut world = World::cluster(4, 5);
    let leader = world.leader().expect("quiet");
    let term = world.status(leader).term;
    let others: Vec<NodeId> = world.up().into_iter().filter(|id| *id != leader).collect();
    for id in &others[..2] {
        world.input(*id, Input::PeerDown { node: leader });
    }
    world.run(Span::secs(2));
    assert_eq!((world.leader(), world.status(leader).term), (Some(leader), term));
    // All of them are wrong at once: a new leader is elected, which costs little and is safe.
    for id in &others {
        world.input(*id, Input::PeerDown { node: leader });
    }
    world.run(Span::secs(1));
    let took = world.make_progress(Span::secs(1));
    assert!(took < Span::millis(100), "{took}");
}

#[test]
fn voters_are_added_replaced_and_removed() {
    for seed in 0..STORMS {
        let mut world = World::cluster(seed, 3);
        for number in 4..=6 {
            world.add(node(number));
        }
        let change = |world: &mut World, voters: &[u8], learners: &[u8]| {
            let (voters, learners) =
                (nodes(voters.iter().copied()), nodes(learners.iter().copied()));
            let at = node(2);
            let id = world.change_voters(at, voters.clone(), learners.clone());
            world.run_until("members change", Span::secs(15), |w| w.ends.contains_key(&id));
            assert_eq!(world.ends[&id], End::Changed, "seed {seed}");
            world.make_progress_at(at, Span::secs(2));
            assert_eq!(world.machines[&at].members, (voters, learners), "seed {seed}");
        };
        change(&mut world, &[1, 2, 3], &[4, 5, 6]);
        world.run(Span::secs(1));
        let learner = world.status(node(5));
        assert!(learner.applied.is_some() && learner.leader.is_some(), "{learner:?}");
        change(&mut world, &[1, 2, 3, 4, 5], &[6]);
        // The leader itself is replaced.
        let leader = world.leader().expect("quiet");
        let rest: Vec<u8> = (1..=6).filter(|n| node(*n) != leader && *n != 6).collect();
        if leader != node(2) {
            change(&mut world, &rest, &[6]);
            world.crash(leader);
        } else {
            change(&mut world, &[1, 2, 3, 4], &[6]);
        }
        change(&mut world, &[2, 6], &[]);
        change(&mut world, &[2], &[6]);
    }
}

#[test]
fn members_have_one_number_everywhere_and_after_a_restart() {
    for seed in 0..STORMS {
        let mut world = World::cluster(seed, 3);
        world.add(node(4));
        let id = world.change_voters(node(2), nodes([1, 2, 3, 4]), BTreeSet::new());
        world.run_until("members change", Span::secs(15), |w| w.ends.contains_key(&id));
        world.make_progress(Span::secs(2));
        world.run(Span::secs(1));
        let number = world.machines[&node(2)].members_number;
        assert!(number > 1, "seed {seed}: a change has a number of its own");
        for restarted in 1..=4 {
            world.crash(node(restarted));
            world.start(node(restarted));
            assert_eq!(world.machines[&node(restarted)].logged, number, "seed {seed}: at once");
            world.make_progress(Span::secs(3));
        }
        world.run(Span::secs(1));
        for (id, machine) in &world.machines {
            assert_eq!((machine.members_number, machine.logged), (number, number), "{id:?}");
        }
    }
}

#[test]
fn a_voter_that_is_dead_can_be_replaced_and_a_dead_one_is_not_made_a_voter() {
    let mut world = World::cluster(5, 3);
    world.add(node(4));
    let leader = world.leader().expect("quiet");
    let dead = world.up().into_iter().find(|id| *id != leader).expect("two others");
    world.crash(dead);
    let rest: BTreeSet<NodeId> = nodes(1..=3).into_iter().filter(|id| *id != dead).collect();
    let mut with_new = rest.clone();
    with_new.insert(node(4));
    let id = world.change_voters(leader, with_new.clone(), BTreeSet::new());
    world.run_until("replaced", Span::secs(5), |w| w.ends.contains_key(&id));
    assert_eq!(world.ends[&id], End::Changed);
    world.make_progress(Span::secs(1));

    let mut with_ghost = with_new;
    with_ghost.insert(node(99));
    let id = world.change_voters(leader, with_ghost, BTreeSet::new());
    world.run(Span::millis(50));
    let second = world.change_voters(leader, rest, BTreeSet::new());
    world.run_until("refused", Span::secs(1), |w| w.ends.contains_key(&second));
    assert_eq!(world.ends[&second], End::Refused(RefuseReason::Busy));
    world.run_until("given up", Span::secs(15), |w| w.ends.contains_key(&id));
    assert_eq!(world.ends[&id], End::Refused(RefuseReason::Lagging));
    world.make_progress(Span::secs(1));
}

#[test]
fn a_node_far_behind_gets_a_snapshot() {
    let mut world = World::cluster_with(6, 3, |config| config.snapshot_every = 50);
    let leader = world.leader().expect("quiet");
    let behind = world.up().into_iter().find(|id| *id != leader).expect("two others");
    world.crash(behind);
    for number in 0..400 {
        // Several parts' worth in all.
        let bytes = format!("{number} {}", "x".repeat(2000)).into_bytes();
        world.propose_bytes(leader, bytes);
        world.run(Span::millis(5));
    }
    world.start(behind);
    world.add(node(4));
    let learners = BTreeSet::from([node(4)]);
    let id = world.change_voters(leader, nodes(1..=3), learners);
    world.run_until("added", Span::secs(5), |w| w.ends.contains_key(&id));
    world.run(Span::secs(2));
    for id in [behind, node(4)] {
        assert!(world.machines[&id].installed > 0, "{id:?} got a snapshot");
    }
    world.check_all_have_all();
    let first = world.machines[&leader].snapshots;
    assert!(first > 3, "the leader's log was cut again and again: {first}");
    // What was installed survives a restart.
    world.crash(behind);
    world.start(behind);
    world.make_progress(Span::secs(1));
    world.check_all_have_all();
}

#[test]
fn the_lead_is_handed_over() {
    for seed in 0..STORMS.min(4) {
        let mut world = World::cluster(seed, 3);
        let leader = world.leader().expect("quiet");
        let next = world.up().into_iter().find(|id| *id != leader).expect("two others");
        // Asked at a node that is neither.
        let third = world.up().into_iter().find(|id| *id != leader && *id != next);
        world.input(third.expect("three"), Input::TransferLeader { to: Some(next) });
        let took = world.run_until("it leads", Span::secs(1), |w| w.leader() == Some(next));
        assert!(took < Span::millis(50), "{took}");
        world.input(next, Input::TransferLeader { to: None });
        let took = world.run_until("another leads", Span::secs(1), |w| w.leader() != Some(next));
        assert!(took < Span::millis(50), "{took}");
        world.make_progress(Span::secs(1));
    }
}

#[test]
fn a_whole_cluster_restarts() {
    let mut world = World::cluster_with(7, 5, |config| config.snapshot_every = 20);
    for _ in 0..50 {
        let at = world.up()[1];
        world.propose(at);
        world.run(Span::millis(10));
    }
    let all = world.up();
    all.iter().for_each(|id| world.crash(*id));
    world.run(Span::secs(1));
    all.iter().for_each(|id| world.start(*id));
    let took = world.make_progress(Span::secs(2));
    assert!(took < Span::secs(1), "{took}");
    world.check_all_have_all();
}

#[test]
fn a_lone_survivor_is_recovered_as_a_new_generation() {
    let mut world = World::cluster(8, 3);
    let survivor = node(2);
    let id = world.propose(survivor);
    world.run_until("applied", Span::secs(1), |w| w.ends.contains_key(&id));
    world.run(Span::millis(100));
    world.crash(node(1));
    world.crash(node(3));
    world.crash(survivor);
    let before = world.history.clone();
    world.generation = 2;
    world.take_over(survivor);
    world.make_progress(Span::secs(1));
    assert_eq!(world.machines[&survivor].members.0, nodes([2]));
    assert!(before.iter().all(|(index, command)| world.history[index] == *command));
    // The others come back as they were: nobody listens to them.
    world.generation = 1;
    world.start(node(1));
    world.start(node(3));
    world.run(Span::secs(3));
    assert_eq!(world.leader_among(&[survivor]), Some(survivor));
    let dropped = world.status(survivor).dropped;
    assert!(dropped.foreign > 0 && dropped.malformed == 0, "{dropped:?}");
}

#[test]
fn a_slow_way_between_voters_is_no_reason_to_stop() {
    let mut world = World::cluster(9, 3);
    // A round trip of 200 ms: twice a heartbeat.
    world.weather.delay = (Span::millis(98), Span::millis(100));
    world.run(Span::secs(5));
    let leader = world.leader().expect("still one");
    let term = world.status(leader).term;
    for _ in 0..20 {
        let took = world.make_progress(Span::secs(2));
        assert!(took < Span::millis(700), "{took}");
    }
    assert_eq!(world.status(world.leader().expect("one")).term, term, "no election meanwhile");
}

#[test]
fn a_node_with_a_broken_disk_stops() {
    let mut world = World::cluster(10, 3);
    let leader = world.leader().expect("quiet");
    let victim = world.up().into_iter().find(|id| *id != leader).expect("two others");
    world.break_disk(victim);
    world.propose(leader);
    world.run(Span::millis(200));
    assert!(!world.is_up(victim), "it said that it stopped");
    world.make_progress(Span::secs(1));
}

#[test]
fn what_is_out_of_bounds_is_refused() {
    let mut world = World::cluster(11, 1);
    let id = world.propose_bytes(node(1), vec![0; COMMAND_MAX + 1]);
    assert_eq!(world.ends[&id], End::Refused(RefuseReason::OutOfBounds));
    let id = world.change_voters(node(1), BTreeSet::new(), nodes([1]));
    assert_eq!(world.ends[&id], End::Refused(RefuseReason::OutOfBounds));
    let id = world.change_voters(node(1), nodes([1]), nodes([1]));
    assert_eq!(world.ends[&id], End::Refused(RefuseReason::OutOfBounds));
    let id = world.propose_bytes(node(1), vec![0; COMMAND_MAX]);
    world.run_until("applied", Span::secs(1), |w| w.ends.contains_key(&id));
    assert!(matches!(world.ends[&id], End::Applied(_)));
}

#[test]
fn noise_is_dropped_and_counted() {
    let mut world = World::cluster(12, 3);
    world.keep_traffic = true;
    world.make_progress(Span::secs(1));
    world.run(Span::secs(1));
    let traffic = std::mem::take(&mut world.traffic);
    world.keep_traffic = false;
    assert!(traffic.len() > 50);
    let leader = world.leader().expect("quiet");
    for (count, message) in traffic.iter().enumerate() {
        let mut message = message.clone();
        let spot = usize::try_from(world.chance(message.len() as u64)).expect("small");
        match count % 3 {
            0 => message[spot] ^= 1 << world.chance(8),
            1 => message.truncate(spot),
            // Whole: from the wrong node, or long out of date.
            _ => {}
        }
        let (from, to) = (node(1 + (count % 3) as u8), node(1 + (count % 2) as u8));
        if from != to {
            world.input(to, Input::Message { from, bytes: message });
        }
    }
    let dropped: u64 = world.up().iter().map(|id| world.status(*id).dropped.malformed).sum();
    assert!(dropped > 10, "{dropped}");
    assert!(world.is_up(leader));
    world.make_progress(Span::secs(5));
}
