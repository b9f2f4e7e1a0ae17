//! Whole clusters of owners and holders, with frames that are lost and nodes that die; and
//! planted mistakes, which the checks must find.

use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec::Vec;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;
use crate::value::{Level, Trace, Value};

/// Mistakes that checks must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    None,
    /// A record counts when it was sent.
    CountsWhenSent,
    /// A holder says that it holds what came behind a gap.
    AcceptsGaps,
}

fn record(seq: u64, size: usize) -> Record {
    Record {
        time: seq,
        trace: Trace::NONE,
        host: "h".into(),
        seq,
        event: "e".into(),
        level: Level::Info,
        source: "s".into(),
        important: true,
        fields: Vec::from([("msg".to_string(), Value::Str("x".repeat(size)))]),
    }
}

struct Machine {
    copier: Copier,
    copies: Copies,
    /// Numbers by place.
    taken: Vec<u64>,
    alive: bool,
}

struct World {
    random: ChaCha8Rng,
    machines: Vec<Machine>,
    now: Instant,
    /// When it arrives, from whom, to whom in which incarnation.
    frames: Vec<(Instant, Member, Member, Message)>,
    loss: u32,
    next: u64,
    /// Numbers that count, with their owner.
    counted: BTreeMap<u64, Member>,
    /// How many ever did.
    ever: usize,
    plant: Plant,
    slowest: Span,
    since: BTreeMap<u64, Instant>,
}

fn member(at: usize, incarnation: u64) -> Member {
    Member { node: NodeId([at as u8; 32]), incarnation: Incarnation(incarnation) }
}

impl World {
    fn new(seed: u64, machines: usize, plant: Plant) -> World {
        let mut world = World {
            random: ChaCha8Rng::seed_from_u64(seed),
            machines: (0..machines).map(|at| machine(member(at, 1), plant)).collect(),
            now: Instant::from_nanos(1),
            frames: Vec::new(),
            loss: 0,
            next: 1,
            counted: BTreeMap::new(),
            ever: 0,
            plant,
            slowest: Span::ZERO,
            since: BTreeMap::new(),
        };
        world.tell();
        world
    }

    fn tell(&mut self) {
        let alive = self.machines.iter().filter(|one| one.alive);
        let members: Vec<Member> = alive.map(|one| one.copier.me).collect();
        let now = self.now;
        for one in self.machines.iter_mut().filter(|one| one.alive) {
            one.copier.reach(now, &members);
        }
        self.send();
    }

    fn send(&mut self) {
        for at in 0..self.machines.len() {
            let me = self.machines[at].copier.me;
            while let Some((to, message)) = self.machines[at].copier.poll() {
                let to = self.machines[usize::from(to.0[0])].copier.me;
                self.post(me, to, message);
            }
        }
    }

    fn post(&mut self, from: Member, to: Member, message: Message) {
        if self.random.next_u32() % 100 >= self.loss {
            let delay = Span::micros(u64::from(self.random.next_u32() % 20_000));
            self.frames.push((self.now + delay, from, to, message));
        }
    }

    fn emit(&mut self, at: usize) {
        let size = self.random.next_u32() as usize % 200;
        let one = &mut self.machines[at];
        let place = one.copier.take(self.now, record(self.next, size));
        one.taken.push(self.next);
        assert_eq!(place, one.taken.len() as u64);
        self.since.insert(self.next, self.now);
        self.next += 1;
        self.send();
    }

    /// Lets a millisecond pass.
    fn pass(&mut self) {
        self.now += Span::millis(1);
        for one in self.machines.iter_mut().filter(|one| one.alive) {
            if one.copier.deadline().is_some_and(|at| at <= self.now) {
                one.copier.tick(self.now);
            }
        }
        self.send();
        let (due, later) = self.frames.drain(..).partition(|(at, ..)| *at <= self.now);
        self.frames = later;
        for (_, from, to, message) in due {
            self.arrive(from, to, message);
        }
        self.check();
    }

    fn arrive(&mut self, from: Member, to: Member, message: Message) {
        let now = self.now;
        let one = &mut self.machines[usize::from(to.node.0[0])];
        if !one.alive || one.copier.me != to {
            return;
        }
        if matches!(message, Message::Copies { .. }) {
            if let Some(answer) = one.copies.take(from.node, message) {
                self.post(to, from, answer);
            }
        } else {
            one.copier.held(now, from.node, &message);
            self.send();
        }
    }

    /// Whether a node other than `owner` holds a record.
    fn is_held(&self, seq: u64, owner: Member) -> bool {
        self.machines.iter().filter(|one| one.alive && one.copier.me.node != owner.node).any(
            |one| {
                one.copies.find(&Filter::all(), |of| of == owner).iter().any(|(_, r)| r.seq == seq)
            },
        )
    }

    /// What counts newly is held by another node at this moment.
    fn check(&mut self) {
        for at in 0..self.machines.len() {
            let one = &self.machines[at];
            let counted = usize::try_from(one.copier.counted()).unwrap();
            let fresh: Vec<u64> = one.taken[..counted].to_vec();
            let owner = one.copier.me;
            for seq in fresh.into_iter().filter(|_| one.alive) {
                if self.counted.contains_key(&seq) {
                    continue;
                }
                assert!(self.is_held(seq, owner), "{seq} of {owner:?} counts and isn't held");
                self.slowest = self.slowest.max(self.now.since(self.since[&seq]));
                self.counted.insert(seq, owner);
                self.ever += 1;
            }
        }
    }

    fn kill(&mut self, at: usize) {
        let me = self.machines[at].copier.me;
        for (seq, owner) in self.counted.iter().filter(|(_, owner)| **owner == me) {
            assert!(self.is_held(*seq, *owner), "{seq} counted and is lost with its owner");
        }
        self.machines[at].alive = false;
        self.tell();
    }

    fn revive(&mut self, at: usize) {
        let before = self.machines[at].copier.me;
        // What its last life owned may be lost with its only copy from now on.
        self.counted.retain(|_, owner| *owner != before);
        self.machines[at] = machine(member(at, before.incarnation.0 + 1), self.plant);
        self.tell();
    }

    /// Passes time until everything counts.
    fn settle(&mut self, within: u64) {
        self.loss = 0;
        for _ in 0..within {
            let all = |one: &Machine| one.copier.counted() == one.taken.len() as u64;
            let copied = |one: &Machine| one.copier.held == one.taken.len() as u64;
            if self.machines.iter().filter(|one| one.alive).all(|one| all(one) && copied(one)) {
                return;
            }
            self.pass();
        }
        panic!("not all count after {within} ms");
    }
}

fn machine(me: Member, plant: Plant) -> Machine {
    let (mut copier, mut copies) = (Copier::new(me), Copies::new(me));
    (copier.plant, copies.plant) = (plant, plant);
    Machine { copier, copies, taken: Vec::new(), alive: true }
}

/// Records come in while frames are lost and nodes die, one at a time.
fn run(seed: u64, plant: Plant) {
    let machines = 3 + seed as usize % 3;
    let mut world = World::new(seed, machines, plant);
    for _ in 0..12 {
        world.loss = world.random.next_u32() % 40;
        for _ in 0..world.random.next_u32() % 300 {
            let at = world.random.next_u32() as usize % machines;
            for _ in 0..world.random.next_u32() % 3 {
                world.emit(at);
            }
            world.pass();
        }
        if world.random.next_u32().is_multiple_of(2) {
            world.settle(3000);
        } else {
            // The owner dies at any moment: what counts must be held even so.
            let partner_copied =
                world.machines.iter().all(|one| one.copier.held == one.copier.counted);
            if !partner_copied {
                continue;
            }
        }
        let at = world.random.next_u32() as usize % machines;
        world.kill(at);
        for _ in 0..world.random.next_u32() % 100 {
            world.pass();
        }
        world.settle(3000);
        world.revive(at);
        world.settle(3000);
    }
    assert!(world.ever > 100, "{}", world.ever);
}

#[test]
fn what_counts_outlives_its_owner() {
    for seed in 0..60 {
        run(seed, Plant::None);
    }
}

#[test]
fn planted_mistakes_are_found() {
    extern crate std;
    for plant in [Plant::CountsWhenSent, Plant::AcceptsGaps] {
        let found = (0..60).any(|seed| std::panic::catch_unwind(|| run(seed, plant)).is_err());
        assert!(found, "{plant:?} was not found");
    }
}

#[test]
fn without_loss_records_count_within_a_group_and_a_round_trip() {
    let mut world = World::new(7, 3, Plant::None);
    for n in 0..2000 {
        world.emit(n % 3);
        if n % 5 == 0 {
            world.pass();
        }
    }
    world.settle(200);
    // Delays are up to 20 ms each way; one group under way, then at most 50 ms.
    assert!(world.slowest <= Span::millis(50 + 2 * 41), "{:?}", world.slowest);
}

#[test]
fn alone_nothing_counts_and_the_backlog_is_bounded() {
    let me = member(0, 1);
    let mut copier = Copier::new(me);
    copier.reach(Instant::ORIGIN, &[me]);
    let mut taken = 0;
    while !copier.is_full() {
        copier.take(Instant::ORIGIN, record(taken, 10_000));
        taken += 1;
    }
    assert_eq!(copier.counted(), 0);
    assert_eq!(copier.deadline(), None);
    assert!(copier.poll().is_none());
    assert!(taken as usize * 10_000 <= OWN_MAX + 20_000);
    // Somebody comes: everything is copied, and then it isn't full any more.
    let other = member(1, 1);
    copier.reach(Instant::ORIGIN, &[me, other]);
    let mut copies = Copies::new(other);
    while let Some((_, message)) = copier.poll() {
        let answer = copies.take(me.node, message).unwrap();
        copier.held(Instant::ORIGIN, other.node, &answer);
    }
    assert_eq!(copier.counted(), taken);
    assert!(!copier.is_full());
    assert_eq!(copies.len() as u64, taken);
}

#[test]
fn a_holder_keeps_no_more_than_its_limit_and_no_longer_than_it_shall() {
    let mut copies = Copies::new(member(0, 1));
    for owner in 1..6 {
        for place in 1..=200_u64 {
            let records = Vec::from([record(place, 100_000)]);
            let incarnation = Incarnation(1);
            let message = Message::Copies { incarnation, floor: 1, first: place, records };
            let answer = copies.take(NodeId([owner; 32]), message);
            let expected = Message::Held { owner: incarnation, holder: incarnation, place };
            assert_eq!(answer, Some(expected));
            assert!(copies.bytes() <= HELD_MAX);
        }
    }
    assert!(copies.left_out > 0);
    copies.forget(150);
    assert!(copies.find(&Filter::all(), |_| true).iter().all(|(_, r)| r.time >= 150));
    copies.forget(u64::MAX);
    assert_eq!((copies.bytes(), copies.is_empty()), (0, true));
}

#[test]
fn messages_may_say_anything() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut number = || match random.next_u32() % 4 {
        0 => u64::MAX - u64::from(random.next_u32() % 3),
        1 => 0,
        _ => u64::from(random.next_u32() % 5),
    };
    let (me, other) = (member(0, 1), member(1, 1));
    let (mut copier, mut copies) = (Copier::new(me), Copies::new(me));
    copier.reach(Instant::ORIGIN, &[me, other]);
    for n in 0..20_000 {
        if n % 7 == 0 && !copier.is_full() {
            copier.take(Instant::from_nanos(n), record(n, 10));
        }
        let held = Message::Held {
            owner: Incarnation(number()),
            holder: Incarnation(number()),
            place: number(),
        };
        copier.held(Instant::from_nanos(n), other.node, &held);
        copier.tick(Instant::from_nanos(n));
        while copier.poll().is_some() {}
        let count = usize::try_from(number() % 3).unwrap();
        let records = (0..count as u64).map(|n| record(n, 10)).collect();
        let (floor, first) = (number(), number());
        let incarnation = Incarnation(1);
        copies.take(other.node, Message::Copies { incarnation, floor, first, records });
        copies.take(other.node, held);
    }
}
