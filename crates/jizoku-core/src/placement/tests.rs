//! Tables for the rules of choice, and seeded candidates for what always holds.

use alloc::format;
use alloc::string::ToString;
use alloc::vec;

use jizoku_types::spec::{
    Durability, EngineSpec, OutputMode, PartitionPolicy, Placement, SuccessionPolicy,
};
use jizoku_types::{Incarnation, ServiceName};

use super::*;
use crate::dice::Dice;

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn member(n: u8) -> Member {
    Member { node: node(n), incarnation: Incarnation(1) }
}

fn spec(copies: u8) -> ServiceSpec {
    ServiceSpec {
        name: ServiceName::new("kv").unwrap(),
        engine: EngineSpec::Exec { command: Vec::new(), env: BTreeMap::new(), user: None },
        ports: Vec::new(),
        output: OutputMode::Held,
        durable: Durability::Memory,
        copies,
        min_copies: 1,
        interval: Span::millis(20),
        partition: PartitionPolicy::Stop,
        succession: SuccessionPolicy::Stability,
        checks: Vec::new(),
        placement: Placement::default(),
        restart_wait: Span::secs(30),
        branch_limit: ByteCount(0),
    }
}

fn labels(zone: &str, rack: &str) -> BTreeMap<String, String> {
    [("zone", zone), ("rack", rack)]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

fn candidate(n: u8, zone: &str, rack: &str) -> HolderCandidate {
    HolderCandidate {
        member: member(n),
        labels: labels(zone, rack),
        witness: false,
        draining: false,
        reachable: true,
        disk_ok: true,
        free: ByteCount::gib(1),
        load: 0,
    }
}

/// Who is chosen for a service that is active on node 0 and held by `current`.
fn chosen(spec: &ServiceSpec, current: &[u8], candidates: &[HolderCandidate]) -> BTreeSet<u8> {
    let current = current.iter().map(|n| member(*n)).collect();
    let wish = Wish {
        service: ServiceId(1),
        spec,
        active: node(0),
        size: ByteCount::mib(64),
        current: &current,
    };
    choose_holders(&wish, candidates).iter().map(|member| member.node.0[0]).collect()
}

#[test]
fn copies_are_spread_over_zones_then_racks() {
    let nodes = [
        candidate(0, "a", "1"),
        candidate(1, "a", "1"),
        candidate(2, "a", "2"),
        candidate(3, "b", "1"),
        candidate(4, "b", "2"),
    ];
    let one = chosen(&spec(1), &[], &nodes);
    assert!(one.is_subset(&BTreeSet::from([3, 4])), "another zone than the active node's");
    let two = chosen(&spec(2), &[], &nodes);
    assert!(two.contains(&2), "after that, another rack: {two:?}");
    assert_eq!(chosen(&spec(4), &[], &nodes), BTreeSet::from([1, 2, 3, 4]));
    assert_eq!(chosen(&spec(0), &[], &nodes), BTreeSet::new());
}

#[test]
fn holders_stay_unless_the_spread_gets_better() {
    let mut nodes = vec![
        candidate(0, "a", ""),
        candidate(1, "b", ""),
        candidate(2, "b", ""),
        candidate(3, "b", ""),
        candidate(4, "b", ""),
    ];
    for current in [[1, 2], [3, 4], [2, 3]] {
        for one in &mut nodes {
            // Busy holders are no reason to move a copy.
            one.load = u32::from(current.contains(&one.member.node.0[0])) * 100;
        }
        assert_eq!(chosen(&spec(2), &current, &nodes), BTreeSet::from(current));
    }
    nodes.push(candidate(5, "c", ""));
    let moved = chosen(&spec(2), &[1, 2], &nodes);
    assert!(moved.contains(&5) && moved.len() == 2 && !moved.contains(&3), "{moved:?}");
}

#[test]
fn who_may_not_hold() {
    type Spoil = fn(&mut HolderCandidate);
    let spoils: [Spoil; 5] = [
        |one| one.witness = true,
        |one| one.draining = true,
        |one| one.reachable = false,
        |one| one.disk_ok = false,
        |one| one.free = ByteCount::mib(63),
    ];
    for (n, spoil) in spoils.into_iter().enumerate() {
        let mut nodes = [candidate(0, "", ""), candidate(1, "", "")];
        assert_eq!(chosen(&spec(2), &[], &nodes), BTreeSet::from([1]));
        spoil(&mut nodes[1]);
        assert_eq!(chosen(&spec(2), &[], &nodes), BTreeSet::new(), "case {n}");
    }
    let mut full = candidate(1, "", "");
    full.free = ByteCount(0);
    assert_eq!(chosen(&spec(2), &[1], &[full]), BTreeSet::from([1]), "what it has, it has");
    let nodes = [candidate(1, "", ""), candidate(2, "", ""), candidate(3, "", "")];
    let mut placed = spec(3);
    placed.placement.except.insert(node(1));
    placed.placement.only.extend([node(1), node(2)]);
    assert_eq!(chosen(&placed, &[1], &nodes), BTreeSet::from([2]));
}

#[test]
fn a_restarted_holder_is_listed_in_its_new_incarnation() {
    let mut back = candidate(2, "", "");
    back.member.incarnation = Incarnation(2);
    let nodes = [candidate(1, "", ""), back.clone(), candidate(3, "", "")];
    let current = BTreeSet::from([member(2)]);
    let spec = spec(1);
    let size = ByteCount::mib(64);
    let wish =
        Wish { service: ServiceId(1), spec: &spec, active: node(0), size, current: &current };
    assert_eq!(choose_holders(&wish, &nodes), [back.member], "much of the state is there");
}

#[test]
fn newcomers_are_the_least_loaded_and_services_spread() {
    let mut nodes: Vec<HolderCandidate> = (1..=9).map(|n| candidate(n, "", "")).collect();
    for one in &mut nodes {
        one.load = 5;
    }
    nodes[6].load = 4;
    assert_eq!(chosen(&spec(1), &[], &nodes), BTreeSet::from([7]));
    nodes[6].load = 5;
    let mut used: BTreeMap<NodeId, u32> = BTreeMap::new();
    let (spec, current) = (spec(2), BTreeSet::new());
    for n in 0..900 {
        let service = ServiceId(n);
        let size = ByteCount(0);
        let wish = Wish { service, spec: &spec, active: node(0), size, current: &current };
        for holder in choose_holders(&wish, &nodes) {
            *used.entry(holder.node).or_default() += 1;
        }
    }
    assert!(used.len() == 9 && used.values().all(|n| (150..250).contains(n)), "{used:?}");
}

#[test]
fn holders_are_stable_and_do_not_depend_on_order() {
    let mut dice = Dice::new(3);
    let mut moved = 0;
    for seed in 0..3000 {
        let count = 1 + dice.below(12) as u8;
        let mut nodes: Vec<HolderCandidate> = (0..count)
            .map(|n| {
                let zone = *dice.pick(&["", "a", "b", "c"]);
                let rack = *dice.pick(&["", "1", "2"]);
                let mut one = candidate(n, zone, rack);
                one.reachable = dice.chance(9, 10);
                one.load = dice.below(4) as u32;
                one
            })
            .collect();
        let spec = spec(dice.below(9) as u8);
        let current: Vec<u8> = (0..count).filter(|_| dice.chance(1, 3)).collect();
        let first = chosen(&spec, &current, &nodes);
        nodes.reverse();
        assert_eq!(chosen(&spec, &current, &nodes), first, "seed {seed}: order");
        nodes.iter_mut().for_each(|one| one.load = dice.below(9) as u32);
        let again: Vec<u8> = first.iter().copied().collect();
        assert_eq!(chosen(&spec, &again, &nodes), first, "seed {seed}: it moves for nothing");
        let free = nodes.iter().filter(|one| one.reachable && one.member.node != node(0)).count();
        assert_eq!(first.len(), free.min(spec.copies.into()), "seed {seed}");
        moved += u32::from(first != current.into_iter().collect());
    }
    assert!(moved > 1000, "{moved}");
}

// Voters.

fn voter(n: u8, zone: &str, alive: bool, secs: u64) -> VoterCandidate {
    let since = Span::secs(secs);
    VoterCandidate { node: node(n), labels: labels(zone, ""), alive, since, draining: false }
}

fn set(list: &[u8]) -> BTreeSet<NodeId> {
    list.iter().map(|n| node(*n)).collect()
}

/// Where repeated changes end; asserts that each is by one node.
fn settled(members: &[VoterCandidate], mut current: BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    for _ in 0..20 {
        let next = choose_voters(members, &current);
        let changed = next.symmetric_difference(&current).count();
        assert!(changed <= 1 && next.len() <= VOTERS_MAX + 1 && !next.is_empty(), "{next:?}");
        if changed == 0 {
            return current;
        }
        current = next;
    }
    panic!("it never settles: {current:?}");
}

#[test]
fn how_many_vote() {
    for (count, wanted) in [(1, 1), (2, 2), (3, 3), (4, 3), (5, 5), (6, 5), (9, 5)] {
        let members: Vec<_> = (0..count).map(|n| voter(n, "", true, 100)).collect();
        assert_eq!(settled(&members, set(&[0])).len(), wanted, "of {count}");
    }
}

#[test]
fn the_dead_are_replaced_after_ten_seconds_and_added_for_first() {
    let members = |dead: u64| {
        [
            voter(0, "", true, 100),
            voter(1, "", true, 100),
            voter(2, "", false, dead),
            voter(3, "", true, 100),
        ]
    };
    let current = set(&[0, 1, 2]);
    assert_eq!(choose_voters(&members(9), &current), current);
    let grown = choose_voters(&members(10), &current);
    assert_eq!(grown, set(&[0, 1, 2, 3]));
    assert_eq!(choose_voters(&members(11), &grown), set(&[0, 1, 3]));
    let alone = &members(100)[..3];
    assert_eq!(choose_voters(alone, &current), current, "nobody to take its place");
}

#[test]
fn voters_are_spread_over_zones_and_moved_for_it_when_all_is_well() {
    let mut members = vec![
        voter(0, "a", true, 100),
        voter(1, "a", true, 100),
        voter(2, "a", true, 100),
        voter(3, "b", true, 9),
    ];
    let current = set(&[0, 1, 2]);
    assert_eq!(settled(&members, current.clone()), current, "too young");
    members[3].since = Span::secs(10);
    let spread = settled(&members, current.clone());
    assert!(spread.contains(&node(3)) && spread.len() == 3);
    members[0] = voter(0, "a", false, 1);
    assert_eq!(settled(&members, current.clone()), current, "not while somebody is missing");
}

#[test]
fn removed_members_vote_no_more() {
    let members = [voter(0, "", true, 100), voter(1, "", true, 100), voter(2, "", true, 100)];
    assert_eq!(settled(&members, set(&[0, 7])), set(&[0, 1, 2]));
    assert_eq!(settled(&members, set(&[7])), set(&[0, 1, 2]), "never nobody");
}

#[test]
fn a_draining_node_is_the_last_choice() {
    let mut members: Vec<_> = (0..6).map(|n| voter(n, "", true, 100)).collect();
    members[1].draining = true;
    assert_eq!(settled(&members, set(&[0])), set(&[0, 2, 3, 4, 5]));
}

#[test]
fn voters_always_settle_on_the_living() {
    let mut dice = Dice::new(4);
    for seed in 0..3000 {
        let count = 1 + dice.below(9) as u8;
        let mut members: Vec<VoterCandidate> = (0..count)
            .map(|n| {
                let zone = *dice.pick(&["a", "b", "c"]);
                voter(n, zone, dice.chance(3, 4), dice.below(30))
            })
            .collect();
        let mut current: BTreeSet<NodeId> =
            (0..count + 1).filter(|_| dice.chance(1, 2)).map(node).take(VOTERS_MAX).collect();
        current.insert(node(0));
        let voters = settled(&members, current.clone());
        members.reverse();
        assert_eq!(settled(&members, current.clone()), voters, "seed {seed}: order");
        let alive = |node: &NodeId| members.iter().any(|one| one.node == *node && one.alive);
        let dead = |node: &NodeId| members.iter().any(|one| one.node == *node && one.is_dead());
        let spare = members.iter().any(|one| one.alive && !voters.contains(&one.node));
        let place = format!("seed {seed}: {members:?} {current:?} -> {voters:?}");
        assert!(!spare || !voters.iter().any(dead), "{place}");
        assert!(!spare || voters.len() >= voters_wanted(members.len()), "{place}");
        let living = members.iter().filter(|one| one.alive).count();
        if living >= voters_wanted(members.len()) && !members.iter().any(|one| !one.alive) {
            assert!(voters.iter().all(alive), "{place}");
        }
    }
}
