//! A world of watchers around one service whose truth is known; and tables for single rules.

use alloc::format;
use alloc::string::ToString;
use alloc::vec;

use jizoku_types::spec::CheckKind;

use super::*;
use crate::dice::Dice;

const SERVICE: ServiceId = ServiceId(1);
const STEP: Span = Span::millis(50);

fn node(n: usize) -> NodeId {
    // Ids are random in life; the lots rely on it.
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    id[8] = n as u8;
    NodeId(id)
}

fn index(node: NodeId) -> usize {
    usize::from(node.0[8])
}

fn check(kind: CheckKind, every: u64) -> CheckSpec {
    CheckSpec { kind, every: Span::millis(every), timeout: Span::millis(500), failures: 3 }
}

fn checks() -> Vec<CheckSpec> {
    vec![check(CheckKind::Alive, 1000), check(CheckKind::Tcp { port: 0 }, 1000)]
}

/// The service is active on node 0.
struct World {
    now: Instant,
    watches: Vec<Watch>,
    links: BTreeMap<NodeId, BTreeSet<NodeId>>,
    epoch: Epoch,
    /// Whether the process lives, and whether it answers.
    lives: bool,
    answers: bool,
    /// Nodes that can't reach the service's port though it answers.
    blind: BTreeSet<usize>,
    mute: BTreeSet<usize>,
    probes: BTreeMap<usize, usize>,
    asked: BTreeMap<usize, usize>,
    verdicts: Vec<Verdict>,
}

impl World {
    fn new(count: usize, linked: impl Fn(usize, usize) -> bool) -> World {
        let mut links: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
        for a in 0..count {
            let others = (0..count).filter(|b| *b != a && linked(a.min(*b), a.max(*b)));
            links.insert(node(a), others.map(node).collect());
        }
        let mut world = World {
            now: Instant::ORIGIN + Span::secs(100),
            watches: (0..count).map(|n| Watch::new(node(n))).collect(),
            links: links.clone(),
            epoch: Epoch::main(1),
            lives: true,
            answers: true,
            blind: BTreeSet::new(),
            mute: BTreeSet::new(),
            probes: BTreeMap::new(),
            asked: BTreeMap::new(),
            verdicts: vec![Verdict::Unknown; count],
        };
        for n in 0..count {
            world.handle(n, Input::Links(links.clone()));
        }
        world.set_service(checks());
        world
    }

    fn full(count: usize) -> World {
        World::new(count, |_, _| true)
    }

    fn set_service(&mut self, checks: Vec<CheckSpec>) {
        for n in 0..self.watches.len() {
            let (epoch, active) = (self.epoch, Some(node(0)));
            let checks = checks.clone();
            self.handle(n, Input::Service { service: SERVICE, epoch, active, checks });
        }
    }

    fn handle(&mut self, n: usize, input: Input) {
        self.watches[n].handle(self.now, input);
        while let Some(output) = self.watches[n].poll() {
            match output {
                Output::Probe { service, epoch, check } => self.probe(n, service, epoch, check),
                Output::Send { to, message } => {
                    assert_eq!(
                        jizoku_types::decode(&jizoku_types::encode(&message)),
                        Ok(message.clone())
                    );
                    if matches!(message, Message::Ask { .. }) {
                        *self.asked.entry(index(to)).or_default() += 1;
                    }
                    let from = node(n);
                    self.handle(index(to), Input::Message { from, message });
                }
                Output::VerdictChanged { verdict, .. } => self.verdicts[n] = verdict,
            }
        }
    }

    fn probe(&mut self, n: usize, service: ServiceId, epoch: Epoch, check: u8) {
        *self.probes.entry(n).or_default() += 1;
        let good = match check {
            0 => self.lives,
            _ => self.lives && self.answers && !self.blind.contains(&n),
        };
        if self.mute.contains(&n) {
            return;
        }
        let result = if good { Ok(()) } else { Err(format!("check {check} failed")) };
        self.handle(n, Input::Probed { service, epoch, check, result });
    }

    fn pass(&mut self, span: Span) {
        let end = self.now + span;
        while self.now < end {
            self.now += STEP;
            for n in 0..self.watches.len() {
                if self.watches[n].deadline().is_some_and(|at| at <= self.now) {
                    self.handle(n, Input::Tick);
                }
            }
        }
    }

    fn want(&mut self, n: usize) {
        self.handle(n, Input::Want { service: SERVICE });
    }

    fn probers(&self) -> BTreeSet<usize> {
        roles::probers(SERVICE, node(0), &self.links).into_iter().map(index).collect()
    }

    fn failing(&self, n: usize) -> bool {
        matches!(self.verdicts[n], Verdict::Failing { .. })
    }
}

#[test]
fn a_few_probe_and_everybody_knows_who_wants_to() {
    let mut world = World::full(8);
    world.pass(Span::secs(5));
    let probers = world.probers();
    assert_eq!(probers.len(), PROBERS);
    let probing: BTreeSet<usize> = world.probes.keys().copied().collect();
    assert_eq!(probing, probers.iter().copied().chain([0]).collect());
    for n in 0..8 {
        let knows = n == 0 || probers.contains(&n);
        let expected = if knows { Verdict::Serving } else { Verdict::Unknown };
        assert_eq!(world.verdicts[n], expected, "{n}");
        world.want(n);
    }
    assert!(world.verdicts.iter().all(|verdict| *verdict == Verdict::Serving), "at once");
    world.pass(Span::secs(60));
    let unknown = world.verdicts.iter().filter(|verdict| **verdict == Verdict::Unknown).count();
    assert_eq!(unknown, 8 - 4, "who wants it no more forgets it");
}

#[test]
fn the_load_on_the_active_node_does_not_grow_with_the_watchers() {
    let load = |count: usize| {
        let mut world = World::full(count);
        for _ in 0..12 {
            (0..count).for_each(|n| world.want(n));
            world.pass(Span::secs(5));
        }
        assert!(world.verdicts.iter().all(|verdict| *verdict == Verdict::Serving));
        let probes: usize = world.probes.iter().filter(|(n, _)| **n != 0).map(|(_, n)| n).sum();
        (probes, world.asked[&0])
    };
    let few = load(5);
    assert_eq!(load(40), few);
    assert!(few.0 <= PROBERS * 61 && few.1 <= PROBERS * 21, "{few:?}");
}

#[test]
fn a_failure_is_seen_and_its_end_too() {
    let mut world = World::full(6);
    (0..6).for_each(|n| world.want(n));
    world.pass(Span::secs(8));
    world.answers = false;
    (0..6).for_each(|n| world.want(n));
    world.pass(Span::secs(2));
    assert!(!world.failing(0), "not yet three in a row");
    world.pass(Span::secs(6));
    assert!((0..6).all(|n| world.failing(n)), "{:?}", world.verdicts);
    let detail = "check 1 failed".to_string();
    assert_eq!(world.verdicts[0], Verdict::Failing { detail });
    world.answers = true;
    (0..6).for_each(|n| world.want(n));
    world.pass(Span::secs(6));
    assert!((0..6).all(|n| world.verdicts[n] == Verdict::Serving), "{:?}", world.verdicts);
}

#[test]
fn a_dead_process_is_known_to_all_from_the_active_node_alone() {
    let mut world = World::full(6);
    let checks = vec![check(CheckKind::Alive, 500)];
    world.set_service(checks);
    world.pass(Span::secs(6));
    assert_eq!(world.verdicts[0], Verdict::Serving);
    world.lives = false;
    (0..6).for_each(|n| world.want(n));
    world.pass(Span::secs(9));
    assert!((0..6).all(|n| world.failing(n)), "{:?}", world.verdicts);
}

#[test]
fn one_bad_link_is_not_a_failure() {
    let mut world = World::full(6);
    world.blind.extend(world.probers().into_iter().take(1));
    world.pass(Span::secs(15));
    assert_eq!(world.verdicts[0], Verdict::Serving);
    world.blind.extend(world.probers().into_iter().take(2));
    world.pass(Span::secs(15));
    assert!(world.failing(0), "but two of three are");
}

#[test]
fn a_service_has_time_to_start() {
    let mut world = World::full(4);
    world.answers = false;
    world.epoch = Epoch::main(2);
    world.set_service(checks());
    world.pass(Span::secs(4));
    assert_eq!(world.verdicts[0], Verdict::Unknown);
    world.pass(Span::secs(9));
    assert!(world.failing(0));
    world.epoch = Epoch::main(3);
    world.answers = true;
    world.set_service(checks());
    assert_eq!(world.verdicts[0], Verdict::Unknown, "a new epoch starts without a verdict");
    world.pass(Span::secs(6));
    assert_eq!(world.verdicts[0], Verdict::Serving);
}

#[test]
fn a_late_node_judges_nobody_and_tells_nothing() {
    let mut world = World::full(4);
    world.pass(Span::secs(6));
    let prober = *world.probers().first().unwrap();
    world.handle(prober, Input::SelfLate(true));
    assert_eq!(world.watches[prober].deadline(), None);
    let failed = Err("nothing was tried".to_string());
    for _ in 0..5 {
        let (epoch, result) = (world.epoch, failed.clone());
        world.handle(prober, Input::Probed { service: SERVICE, epoch, check: 1, result });
        world.handle(prober, traffic(0, 0, 100));
    }
    assert_eq!(world.verdicts[prober], Verdict::Serving, "as before");
    let own = world.watches[prober].observations(world.now, SERVICE);
    assert!(!own.contains_key(&node(prober)));
    world.handle(prober, Input::SelfLate(false));
    world.pass(Span::secs(6));
    assert_eq!(world.verdicts[prober], Verdict::Serving);
    assert!(world.watches[prober].observations(world.now, SERVICE).contains_key(&node(prober)));
}

fn traffic(answers: u32, errors: u32, timeouts: u32) -> Input {
    Input::Traffic { service: SERVICE, epoch: Epoch::main(1), answers, errors, timeouts }
}

#[test]
fn gateways_add_what_they_see() {
    let mut world = World::full(8);
    world.pass(Span::secs(6));
    let other = (1..8).find(|n| !world.probers().contains(n)).unwrap();
    world.handle(other, traffic(1, 50, 0));
    assert_eq!(world.verdicts[other], Verdict::Serving, "it sees for itself");
    for _ in 0..2 {
        world.handle(other, traffic(0, 2, 1));
        world.handle(other, traffic(0, 0, 2));
    }
    assert_eq!(world.verdicts[other], Verdict::Serving, "two bad periods, and two small ones");
    world.handle(other, traffic(0, 2, 1));
    assert!(world.failing(other));
    world.want(other);
    world.pass(Span::secs(4));
    assert_eq!(world.verdicts[other], Verdict::Serving, "the probers are more");
}

#[test]
fn news_come_over_several_nodes_around_the_active_one() {
    // A line, with the active node at its end.
    let mut world = World::new(5, |a, b| b == a + 1);
    for _ in 0..4 {
        (0..5).for_each(|n| world.want(n));
        world.pass(Span::secs(5));
    }
    assert_eq!(world.probers(), BTreeSet::from([1]));
    assert!(
        world.verdicts.iter().all(|verdict| *verdict == Verdict::Serving),
        "{:?}",
        world.verdicts
    );
    assert!(world.asked[&0] <= 8, "only its prober asks it: {:?}", world.asked);
}

#[test]
fn leaves_of_a_star_ask_the_probers_through_the_mesh() {
    let mut world = World::new(9, |a, _| a == 0);
    (0..9).for_each(|n| world.want(n));
    world.pass(Span::secs(6));
    assert!(
        world.verdicts.iter().all(|verdict| *verdict == Verdict::Serving),
        "{:?}",
        world.verdicts
    );
    let asking = world.asked[&0];
    assert!(asking <= PROBERS * 3, "only its probers ask the active node: {asking}");
}

#[test]
fn alone_the_active_node_does_all_checks() {
    let mut world = World::full(1);
    world.pass(Span::secs(6));
    assert_eq!(world.verdicts[0], Verdict::Serving);
    world.answers = false;
    world.pass(Span::secs(6));
    assert!(world.failing(0));
}

#[test]
fn a_probe_whose_result_never_comes_is_a_failure() {
    let mut world = World::full(2);
    world.pass(Span::secs(6));
    assert_eq!(world.verdicts[1], Verdict::Serving);
    world.mute.insert(1);
    world.pass(Span::secs(8));
    assert!(world.failing(1));
}

#[test]
fn passing_on_never_makes_young() {
    let mut world = World::full(3);
    world.set_service(vec![check(CheckKind::Alive, 1000)]);
    let seen = |age: u64| Observation {
        serving: true,
        inside: true,
        number: 1,
        age: Span::secs(age),
        detail: String::new(),
    };
    let mut watch = Watch::new(node(7));
    watch.handle(world.now, Input::Links(world.links.clone()));
    let (epoch, active) = (Epoch::main(1), Some(node(0)));
    let checks = vec![check(CheckKind::Alive, 1000)];
    watch.handle(world.now, Input::Service { service: SERVICE, epoch, active, checks });
    let answer = |age: u64| {
        let services = BTreeMap::from([(SERVICE, (epoch, BTreeMap::from([(node(0), seen(age))])))]);
        Input::Message { from: node(1), message: Message::Answer { services } }
    };
    watch.handle(world.now, answer(5));
    assert_eq!(watch.verdict(SERVICE), Verdict::Serving);
    let later = world.now + Span::secs(2);
    assert_eq!(watch.observations(later, SERVICE)[&node(0)].age, Span::secs(7));
    watch.handle(later, answer(0));
    assert_eq!(watch.observations(later, SERVICE)[&node(0)].age, Span::secs(0), "it started anew");
    let much_later = later + Span::secs(20);
    watch.handle(much_later, Input::Tick);
    assert_eq!(watch.verdict(SERVICE), Verdict::Unknown);
    watch.handle(much_later, answer(30));
    assert!(watch.observations(much_later, SERVICE).is_empty(), "too old to begin with");
}

#[test]
fn limits_hold() {
    let mut watch = Watch::new(node(0));
    let now = Instant::ORIGIN + Span::secs(1000);
    let service = |n| Input::Service {
        service: ServiceId(n),
        epoch: Epoch::main(1),
        active: Some(node(1)),
        checks: Vec::new(),
    };
    for n in 0..=SERVICES_MAX as u64 {
        watch.handle(now, service(n));
    }
    let mut dice = Dice::new(1);
    for n in 0..200_u64 {
        let seen = Observation {
            serving: dice.chance(1, 2),
            inside: dice.chance(1, 2),
            number: n,
            age: Span::ZERO,
            detail: "é".repeat(1000),
        };
        let seen = BTreeMap::from([(node(n as usize + 2), seen)]);
        let services = BTreeMap::from([
            (ServiceId(0), (Epoch::main(1), seen.clone())),
            (ServiceId(SERVICES_MAX as u64), (Epoch::main(1), seen)),
        ]);
        let message = Message::Answer { services };
        watch.handle(now, Input::Message { from: node(2), message });
    }
    let seen = watch.observations(now, ServiceId(0));
    assert_eq!(seen.len(), OBSERVERS_MAX);
    assert!(seen.values().all(|one| one.detail.len() == DETAIL_MAX && !one.inside));
    assert!(watch.observations(now, ServiceId(SERVICES_MAX as u64)).is_empty(), "not watched");
}

/// Whatever the links: once all is calm, everybody that wants to know says what is true, and the
/// active node was asked by its probers only.
#[test]
fn in_any_mesh_all_who_want_it_find_the_truth() {
    for seed in 0..40 {
        let mut dice = Dice::new(seed);
        let count = 3 + dice.below(8) as usize;
        let mut up = BTreeSet::new();
        for b in 1..count {
            // A tree, so that it is one mesh, and some more links.
            up.insert((dice.below(b as u64) as usize, b));
            for a in 0..b {
                if dice.chance(1, 5) {
                    up.insert((a, b));
                }
            }
        }
        let mut world = World::new(count, |a, b| up.contains(&(a, b)));
        world.answers = dice.chance(1, 2);
        for _ in 0..8 {
            (0..count).for_each(|n| world.want(n));
            world.pass(Span::secs(5));
        }
        for n in 0..count {
            assert_eq!(world.failing(n), !world.answers, "seed {seed}: {n} {:?}", world.verdicts);
            assert_ne!(world.verdicts[n], Verdict::Unknown, "seed {seed}: {n}");
        }
        assert!(world.asked.get(&0).is_none_or(|n| *n <= PROBERS * 15), "seed {seed}");
    }
}
