//! Tables for the policies and the times of attempts; seeded facts for what always holds.

use alloc::string::ToString;
use alloc::vec;

use jizoku_types::spec::{Durability, EngineSpec, OutputMode, PartitionPolicy, Placement};
use jizoku_types::{Incarnation, ServiceName};

use super::*;
use crate::dice::Dice;

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn spec(succession: SuccessionPolicy) -> ServiceSpec {
    ServiceSpec {
        name: ServiceName::new("kv").unwrap(),
        engine: EngineSpec::Exec { command: Vec::new(), env: BTreeMap::new(), user: None },
        ports: Vec::new(),
        output: OutputMode::Held,
        durable: Durability::Memory,
        copies: 2,
        min_copies: 1,
        interval: Span::millis(20),
        partition: PartitionPolicy::Stop,
        succession,
        checks: Vec::new(),
        placement: Placement::default(),
        restart_wait: Span::secs(30),
        branch_limit: ByteCount(0),
    }
}

/// A middling node.
fn candidate(n: u8) -> Candidate {
    Candidate {
        member: Member { node: node(n), incarnation: Incarnation(1) },
        labels: BTreeMap::new(),
        reachable: true,
        witness: false,
        draining: false,
        ready: Some(CheckpointId { epoch: 1, seq: 1000 }),
        current: true,
        prepared: true,
        uptime: Span::secs(1800),
        cpu_free: 400,
        memory_free: ByteCount::gib(3),
        distance: 512,
    }
}

fn ranked_for(spec: &ServiceSpec, epoch: u64, candidates: &[Candidate]) -> Vec<u8> {
    let failed = BTreeSet::from([node(99)]);
    let vacancy = Vacancy {
        service: ServiceId(1),
        spec,
        epoch: Epoch::main(epoch),
        needs: ByteCount::mib(64),
        failed: &failed,
    };
    rank(&vacancy, candidates).iter().map(|member| member.node.0[0]).collect()
}

fn ranked(spec: &ServiceSpec, candidates: &[Candidate]) -> Vec<u8> {
    ranked_for(spec, 1, candidates)
}

type Change = fn(&mut Candidate);

#[test]
fn stability_prefers_in_this_order() {
    let spec = spec(SuccessionPolicy::Stability);
    // Each change makes a node worse, by less than the one before it.
    let worse: [Change; 9] = [
        |one| one.memory_free = ByteCount::mib(63),
        |one| one.ready = None,
        |one| one.ready = Some(CheckpointId { epoch: 1, seq: 1000 - READY_SLACK - 1 }),
        |one| one.current = false,
        |one| one.prepared = false,
        |one| one.uptime = Span::secs(59),
        |one| one.cpu_free = 249,
        |one| one.memory_free = ByteCount::gib(1),
        |one| one.distance = 1024,
    ];
    for (n, change) in worse.into_iter().enumerate() {
        let mut bad = candidate(2);
        change(&mut bad);
        // Against a node that is worse in everything that counts less.
        let mut good = candidate(1);
        worse[n + 1..].iter().filter(|_| n >= 3).for_each(|change| change(&mut good));
        assert_eq!(ranked(&spec, &[bad, good]), [1, 2], "case {n}");
    }
}

#[test]
fn breath_does_not_change_the_order() {
    let spec = spec(SuccessionPolicy::Stability);
    let still = [candidate(1), candidate(2), candidate(3)];
    let first = ranked(&spec, &still);
    let mut dice = Dice::new(1);
    for _ in 0..200 {
        let mut breathing = still.clone();
        for one in &mut breathing {
            let seq = 1000 + dice.below(READY_SLACK);
            one.ready = Some(CheckpointId { epoch: 1, seq });
            one.uptime = one.uptime + Span::secs(dice.below(60));
            one.cpu_free += dice.below(90) as u16;
            one.memory_free = ByteCount(one.memory_free.0 + dice.below(1 << 29));
            one.distance += dice.below(400) as u32;
        }
        assert_eq!(ranked(&spec, &breathing), first);
    }
}

#[test]
fn who_is_never_ranked() {
    let mut placed = spec(SuccessionPolicy::Random);
    placed.placement.require.insert("ssd".to_string(), "yes".to_string());
    placed.placement.except.insert(node(50));
    let mut good = candidate(1);
    good.labels.insert("ssd".to_string(), "yes".to_string());
    let with = |n: u8, change: Change| {
        let mut one = good.clone();
        one.member.node = node(n);
        change(&mut one);
        one
    };
    let candidates = [
        good.clone(),
        with(2, |one| one.witness = true),
        with(3, |one| one.draining = true),
        with(4, |one| one.reachable = false),
        with(5, |one| one.labels.clear()),
        with(6, |one| *one.labels.get_mut("ssd").unwrap() = "no".to_string()),
        with(50, |_| {}),
        with(99, |_| {}),
    ];
    assert_eq!(ranked(&placed, &candidates), [1]);
    placed.placement.only.insert(node(7));
    assert!(ranked(&placed, &candidates).is_empty());
}

#[test]
fn priority_goes_first_and_the_rest_by_stability() {
    let list = vec![node(4), node(9), node(2)];
    let mut candidates = [candidate(1), candidate(2), candidate(3), candidate(4)];
    candidates[0].ready = None;
    candidates[3].ready = None;
    assert_eq!(ranked(&spec(SuccessionPolicy::Priority(list)), &candidates), [4, 2, 3, 1]);
}

#[test]
fn lots_are_drawn_anew_for_each_epoch_and_fairly() {
    let spec = spec(SuccessionPolicy::Random);
    let candidates: Vec<Candidate> = (0..5).map(candidate).collect();
    let mut wins = [0; 5];
    for epoch in 0..1000 {
        wins[usize::from(ranked_for(&spec, epoch, &candidates)[0])] += 1;
    }
    assert!(wins.iter().all(|wins| (140..260).contains(wins)), "{wins:?}");
}

#[test]
fn everybody_with_the_same_facts_says_the_same() {
    let mut dice = Dice::new(2);
    for seed in 0..2000 {
        let mut candidates: Vec<Candidate> = (0..dice.below(9) as u8)
            .map(|n| {
                let mut one = candidate(n);
                one.reachable = dice.chance(4, 5);
                one.ready =
                    dice.chance(1, 2).then(|| CheckpointId { epoch: 1, seq: dice.below(300) });
                one.current = dice.chance(1, 2);
                one.uptime = Span::secs(dice.below(100_000));
                one.cpu_free = dice.below(1001) as u16;
                one.memory_free = ByteCount(dice.below(1 << 30));
                one.distance = dice.below(5000) as u32;
                one
            })
            .collect();
        let policy = match dice.below(3) {
            0 => SuccessionPolicy::Stability,
            1 => SuccessionPolicy::Priority(vec![node(3), node(1)]),
            _ => SuccessionPolicy::Random,
        };
        let spec = spec(policy);
        let first = ranked(&spec, &candidates);
        assert_eq!(first.len(), candidates.iter().filter(|one| one.reachable).count());
        for at in (1..candidates.len()).rev() {
            candidates.swap(at, dice.below(at as u64 + 1) as usize);
        }
        assert_eq!(ranked(&spec, &candidates), first, "seed {seed}");
    }
}

// Attempts.

const SERVICE: ServiceId = ServiceId(1);

fn at(millis: u64) -> Instant {
    Instant::ORIGIN + Span::millis(millis)
}

fn vacant(counter: u64, place: usize) -> Input {
    Input::Vacant { service: SERVICE, expect: Epoch::main(counter), place }
}

/// The epochs proposed at this input.
fn proposed(attempts: &mut Attempts, millis: u64, input: Input) -> Vec<u64> {
    attempts.handle(at(millis), input);
    core::iter::from_fn(|| attempts.poll())
        .map(|Output::Propose { expect, .. }| expect.counter)
        .collect()
}

#[test]
fn the_first_proposes_at_once_the_others_later() {
    let mut attempts = Attempts::new();
    assert_eq!(proposed(&mut attempts, 0, vacant(1, 0)), [1]);
    let mut attempts = Attempts::new();
    assert!(proposed(&mut attempts, 0, vacant(1, 2)).is_empty());
    assert_eq!(attempts.deadline(), Some(at(300)));
    assert!(proposed(&mut attempts, 299, Input::Tick).is_empty());
    assert_eq!(proposed(&mut attempts, 300, Input::Tick), [1]);
    assert!(proposed(&mut attempts, 1599, vacant(1, 2)).is_empty());
    assert_eq!(proposed(&mut attempts, 1600, Input::Tick), [1], "it was lost: once more");
}

#[test]
fn changed_facts_keep_the_time_waited_and_a_new_epoch_does_not() {
    let mut attempts = Attempts::new();
    assert!(proposed(&mut attempts, 0, vacant(1, 3)).is_empty());
    assert_eq!(proposed(&mut attempts, 160, vacant(1, 1)), [1], "the two before it are gone");
    assert!(proposed(&mut attempts, 170, vacant(2, 1)).is_empty());
    assert_eq!(attempts.deadline(), Some(at(320)));
    assert!(proposed(&mut attempts, 200, Input::Settled { service: SERVICE }).is_empty());
    assert_eq!(attempts.deadline(), None);
    assert!(proposed(&mut attempts, 5000, Input::Tick).is_empty());
}

#[test]
fn attempts_are_bounded() {
    let mut attempts = Attempts::new();
    for n in 0..=SERVICES_MAX as u64 {
        let (service, expect) = (ServiceId(n), Epoch::main(1));
        attempts.handle(at(0), Input::Vacant { service, expect, place: 0 });
    }
    assert_eq!(core::iter::from_fn(|| attempts.poll()).count(), SERVICES_MAX);
    let place = usize::MAX;
    let service = ServiceId(0);
    attempts.handle(at(0), Input::Vacant { service, expect: Epoch::main(2), place });
    assert_eq!(attempts.poll(), None, "a place that never comes");
}
