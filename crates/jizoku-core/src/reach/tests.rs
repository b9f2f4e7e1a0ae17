//! Tables for single rules, and seeded worlds of links that come and go, compared with the truth.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use jizoku_types::limits::NODES_MAX;

use super::*;
use crate::dice::Dice;

const COST: Span = Span::micros(200);

fn node(n: usize) -> NodeId {
    NodeId([n as u8; 32])
}

fn index(node: NodeId) -> usize {
    usize::from(node.0[0])
}

/// These are members, and nobody was removed.
fn members(these: impl IntoIterator<Item = usize>) -> Input {
    let members = these.into_iter().map(node).collect();
    Input::Members { members, removed: BTreeSet::new() }
}

/// Nodes that speak over links with a queue for each direction.
struct World {
    now: Instant,
    nodes: Vec<Reach>,
    incarnations: Vec<u64>,
    /// What is on its way: by link and direction.
    queues: BTreeMap<(usize, usize), VecDeque<Message>>,
    /// Links that are up.
    links: BTreeSet<(usize, usize)>,
    /// Outputs other than `Send`, by node.
    said: Vec<Vec<Output>>,
    sent: usize,
    #[cfg_attr(not(feature = "faults"), allow(dead_code))]
    plant: Option<Fault>,
}

impl World {
    fn new(count: usize, plant: Option<Fault>) -> World {
        let mut world = World {
            now: Instant::ORIGIN,
            nodes: Vec::new(),
            incarnations: vec![1; count],
            queues: BTreeMap::new(),
            links: BTreeSet::new(),
            said: vec![Vec::new(); count],
            sent: 0,
            plant,
        };
        for n in 0..count {
            let reach = world.start(n);
            world.nodes.push(reach);
        }
        world
    }

    fn member(&self, n: usize) -> Member {
        Member { node: node(n), incarnation: Incarnation(self.incarnations[n]) }
    }

    #[cfg_attr(not(feature = "faults"), allow(unused_mut))]
    fn start(&self, n: usize) -> Reach {
        let mut reach = Reach::new(self.member(n));
        #[cfg(feature = "faults")]
        if let Some(fault) = self.plant {
            reach.plant(fault);
        }
        reach.handle(self.now, members(0..self.incarnations.len()));
        reach
    }

    fn handle(&mut self, n: usize, input: Input) {
        self.nodes[n].handle(self.now, input);
        while let Some(output) = self.nodes[n].poll() {
            match output {
                Output::Send { to, message } => {
                    assert!(jizoku_types::encode(&message).len() < 2 * BATCH_MAX);
                    self.sent += 1;
                    if let Some(queue) = self.queues.get_mut(&(n, index(to))) {
                        queue.push_back(message);
                    }
                }
                other => self.said[n].push(other),
            }
        }
    }

    fn up(&mut self, a: usize, b: usize) {
        self.links.insert((a.min(b), a.max(b)));
        for (one, other) in [(a, b), (b, a)] {
            self.queues.insert((one, other), VecDeque::new());
        }
        for (one, other) in [(a, b), (b, a)] {
            let incarnation = Incarnation(self.incarnations[other]);
            self.handle(one, Input::LinkUp { peer: node(other), incarnation, cost: COST });
        }
    }

    /// What is on its way is lost. The ends have yet to notice.
    fn cut(&mut self, a: usize, b: usize) {
        self.links.remove(&(a.min(b), a.max(b)));
        self.queues.remove(&(a, b));
        self.queues.remove(&(b, a));
    }

    fn down(&mut self, a: usize, b: usize) {
        self.cut(a, b);
        for (one, other) in [(a, b), (b, a)] {
            self.handle(one, Input::LinkDown { peer: node(other) });
        }
    }

    fn full(count: usize) -> World {
        let mut world = World::new(count, None);
        for a in 0..count {
            for b in 0..a {
                world.up(a, b);
            }
        }
        world.settle();
        world
    }

    /// Delivers one message of a queue, if there is one.
    fn deliver(&mut self, from: usize, to: usize) -> bool {
        let message = self.queues.get_mut(&(from, to)).and_then(VecDeque::pop_front);
        let Some(message) = message else { return false };
        self.handle(to, Input::Message { from: node(from), message });
        true
    }

    /// One hop for everything that is on its way.
    fn round(&mut self) -> bool {
        let on_way: Vec<((usize, usize), usize)> =
            self.queues.iter().map(|(way, queue)| (*way, queue.len())).collect();
        let mut any = false;
        for ((from, to), count) in on_way {
            for _ in 0..count {
                any |= self.deliver(from, to);
            }
        }
        any
    }

    /// Delivers all. No time passes.
    fn settle(&mut self) -> usize {
        let mut rounds = 0;
        while self.round() {
            rounds += 1;
            assert!(rounds < 100, "news go round for ever");
        }
        rounds
    }

    fn pass(&mut self, span: Span) {
        let end = self.now + span;
        while self.now < end {
            self.now += Span::millis(100);
            for n in 0..self.nodes.len() {
                if self.nodes[n].deadline().is_some_and(|at| at <= self.now) {
                    self.handle(n, Input::Tick);
                }
            }
            self.round();
        }
    }

    /// Hops from `from`, by the truth.
    fn truth(&self, from: usize) -> BTreeMap<usize, usize> {
        let mut hops = BTreeMap::from([(from, 0)]);
        let mut rim = VecDeque::from([from]);
        while let Some(at) = rim.pop_front() {
            for (a, b) in &self.links {
                let other = match at {
                    at if at == *a => *b,
                    at if at == *b => *a,
                    _ => continue,
                };
                let far = hops[&at] + 1;
                if !hops.contains_key(&other) && far <= 8 {
                    hops.insert(other, far);
                    rim.push_back(other);
                }
            }
        }
        hops
    }

    /// Whether everybody's routes are those of the truth, and lead there.
    fn check(&self) -> Result<(), String> {
        for n in 0..self.nodes.len() {
            let truth = self.truth(n);
            let reachable: BTreeSet<NodeId> = truth.keys().copied().map(node).collect();
            if self.nodes[n].reachable() != reachable {
                let got = self.nodes[n].reachable();
                return Err(format!("{n} reaches {got:?} instead of {reachable:?}"));
            }
            for (to, hops) in truth {
                let (mut at, mut walked) = (n, 0);
                while at != to && walked <= hops {
                    at = index(self.nodes[at].routes()[&node(to)]);
                    walked += 1;
                }
                if walked != hops {
                    return Err(format!("{n} to {to}: {walked} hops instead of {hops}"));
                }
            }
            let told: BTreeSet<NodeId> = self.nodes[n].told.keys().copied().collect();
            if told.len() + 1 != reachable.len() {
                return Err(format!("{n} was told of {told:?}"));
            }
        }
        Ok(())
    }
}

#[test]
fn a_line_of_nodes_finds_its_ways() {
    let mut world = World::new(5, None);
    for n in 0..4 {
        world.up(n, n + 1);
    }
    world.settle();
    assert_eq!(world.check(), Ok(()));
    assert_eq!(world.nodes[0].routes()[&node(4)], node(1));
    assert_eq!(world.nodes[0].distances(node(4))[&node(0)], (4, 4 * 256));
    world.down(2, 3);
    world.settle();
    assert_eq!(world.check(), Ok(()));
    assert!(world.said[0].contains(&Output::Unreachable { node: node(4) }));
}

#[test]
fn a_way_longer_than_a_frame_may_go_is_none() {
    let mut world = World::new(10, None);
    for n in 0..9 {
        world.up(n, n + 1);
    }
    world.settle();
    assert!(world.nodes[0].reaches(node(8)));
    assert!(!world.nodes[0].reaches(node(9)));
}

/// In a triangle the link from 0 to 1 breaks, and only 0 has noticed. How does 1 reach 0?
fn half_broken(plant: Option<Fault>) -> NodeId {
    let mut world = World::new(3, plant);
    for (a, b) in [(0, 1), (1, 2), (2, 0)] {
        world.up(a, b);
    }
    world.settle();
    world.cut(0, 1);
    world.handle(0, Input::LinkDown { peer: node(1) });
    assert_eq!(world.nodes[0].routes()[&node(1)], node(2), "its own end counts at once");
    world.settle();
    world.nodes[1].routes()[&node(0)]
}

#[test]
fn a_link_counts_when_both_ends_list_it() {
    assert_eq!(half_broken(None), node(2));
}

#[test]
fn a_death_is_known_after_one_flood() {
    let mut world = World::full(6);
    for far in [3, 4, 5] {
        // 3, 4 and 5 hang on 2 only: two hops are as long as a flood can take.
        for near in [0, 1] {
            world.down(near, far);
        }
    }
    world.settle();
    let neighbours = [1, 2];
    for n in neighbours {
        world.cut(0, n);
    }
    for n in neighbours {
        world.handle(n, Input::LinkDown { peer: node(0) });
    }
    world.round();
    world.round();
    for n in 1..6 {
        assert!(!world.nodes[n].reaches(node(0)), "{n} still believes in 0");
    }
}

#[test]
fn restarts_are_told_even_if_nobody_saw_the_gap() {
    let mut world = World::full(3);
    world.said.iter_mut().for_each(Vec::clear);
    world.incarnations[0] = 2;
    world.nodes[0] = world.start(0);
    world.up(0, 1);
    world.up(0, 2);
    world.settle();
    let restarted = Output::Restarted { node: world.member(0) };
    for n in [1, 2] {
        assert!(world.said[n].contains(&restarted), "{:?}", world.said[n]);
        assert_eq!(world.nodes[n].incarnation(node(0)), Some(Incarnation(2)));
    }
    assert_eq!(world.check(), Ok(()));
}

#[test]
fn who_was_restarted_finds_its_ways_before_it_is_told_of_members() {
    let mut world = World::new(3, None);
    world.up(0, 1);
    world.up(1, 2);
    world.settle();
    world.down(1, 2);
    world.settle();
    world.incarnations[2] = 2;
    world.nodes[2] = Reach::new(world.member(2));
    world.up(1, 2);
    world.settle();
    // Its catalog comes from node 0: both ways must be there.
    assert_eq!(world.nodes[0].routes().get(&node(2)), Some(&node(1)));
    assert_eq!(world.nodes[2].routes().get(&node(0)), Some(&node(1)));
    world.handle(2, members(0..3));
    world.settle();
    assert_eq!(world.check(), Ok(()));
}

#[test]
fn who_was_removed_is_neither_heard_nor_passed_on() {
    let mut world = World::full(3);
    for n in [0, 1] {
        let (members, removed) = ([node(0), node(1)].into(), [node(2)].into());
        world.handle(n, Input::Members { members, removed });
    }
    world.settle();
    assert!(!world.nodes[0].reaches(node(2)));
    assert!(!world.nodes[0].routes().contains_key(&node(2)));
    let gone = Output::Unreachable { node: node(2) };
    assert!(world.said[0].contains(&gone));
    let before = world.sent;
    let origin = Member { node: node(2), incarnation: Incarnation(1) };
    let state = LinkState { origin, number: 9, neighbours: BTreeMap::new() };
    let unknown = LinkState { origin: Member { node: node(7), ..origin }, ..state.clone() };
    let news = |state| Message::News { states: vec![state], facts: Vec::new() };
    world.handle(0, Input::Message { from: node(1), message: news(state) });
    // It is no member: nothing is believed of what it tells of others.
    world.handle(0, Input::Message { from: node(2), message: news(unknown) });
    world.settle();
    assert_eq!(world.sent, before);
    assert_eq!(world.nodes[0].states.len(), 2);
    // Somebody whose catalog is older believes in it: that doesn't bring it back.
    let have = BTreeMap::from([(node(2), Have { state: (Incarnation(1), 9), ..Have::default() })]);
    let message = Message::Digest { have, answer: false };
    world.handle(0, Input::Message { from: node(1), message });
    world.pass(Span::secs(5));
    assert_eq!(world.nodes[0].states.len(), 2);
}

/// 0 is old: it knows of 0, 1 and 2. 2 is gone, 3 came in its place. 0 has a link to 1 only.
fn old_catalog() -> World {
    let mut world = World::new(4, None);
    for n in [1, 3] {
        let (members, removed) = ([0, 1, 3].map(node).into(), [node(2)].into());
        world.handle(n, Input::Members { members, removed });
    }
    world.handle(0, members(0..3));
    world.up(1, 3);
    world.up(0, 1);
    world.settle();
    world
}

#[test]
fn a_member_that_is_not_known_yet_has_a_way() {
    let mut world = old_catalog();
    // What 3 sends comes, and the answer finds back.
    assert_eq!(world.nodes[3].routes().get(&node(0)), Some(&node(1)));
    assert_eq!(world.nodes[0].routes().get(&node(3)), Some(&node(1)));
    // Nothing else is said of it.
    world.handle(3, Input::Facts { bytes: vec![1], urgent: true });
    world.pass(Span::secs(3));
    assert!(!world.nodes[0].reaches(node(3)));
    assert_eq!(world.nodes[0].reachable(), [node(0), node(1)].into());
    assert!(!world.nodes[0].links().contains_key(&node(3)));
    assert!(!world.nodes[0].distances(node(1)).contains_key(&node(3)));
    assert!(world.nodes[0].facts(node(3)).is_none());
    let there = Output::Reachable { node: world.member(3) };
    assert!(!world.said[0].contains(&there));
    // The entry came that makes it a member.
    world.handle(0, members([0, 1, 3]));
    assert!(world.said[0].contains(&there));
    assert!(world.nodes[0].reaches(node(3)));
    world.pass(Span::secs(3));
    assert!(world.nodes[0].facts(node(3)).is_some(), "the digest tells that they are missing");
}

#[test]
fn a_member_that_is_not_known_yet_has_a_way_over_others_that_do_not_know_it() {
    let mut world = World::new(5, None);
    for n in [1, 3] {
        world.handle(n, members([0, 1, 3, 4]));
    }
    for n in [0, 4] {
        world.handle(n, members([0, 1, 4]));
    }
    world.up(1, 3);
    world.up(0, 4);
    world.up(0, 1);
    world.settle();
    assert_eq!(world.nodes[4].routes().get(&node(3)), Some(&node(0)));
    // What a broken link loses, digests mend.
    world.down(1, 3);
    world.queues.values_mut().for_each(VecDeque::clear);
    world.up(1, 3);
    world.queues.values_mut().for_each(VecDeque::clear);
    world.pass(Span::secs(10));
    assert_eq!(world.nodes[4].routes().get(&node(3)), Some(&node(0)));
    assert_eq!(world.nodes[3].routes().get(&node(4)), Some(&node(1)));
}

#[test]
fn who_never_becomes_a_member_is_forgotten() {
    let mut world = old_catalog();
    world.down(1, 3);
    world.settle();
    assert!(!world.nodes[0].routes().contains_key(&node(3)));
    let never = Output::Unreachable { node: node(3) };
    assert!(!world.said[0].contains(&never), "it never was reachable");
    world.pass(EXPIRE + Span::secs(1));
    assert!(!world.nodes[0].states.contains_key(&node(3)));
}

#[test]
fn members_take_the_room_of_others() {
    let mut world = World::new(2, None);
    world.handle(0, members([0, 1, 2]));
    world.up(0, 1);
    world.settle();
    let state = |n: usize| {
        let origin = Member { node: node(n), incarnation: Incarnation(1) };
        LinkState { origin, number: 1, neighbours: BTreeMap::new() }
    };
    let news = |states| Message::News { states, facts: Vec::new() };
    // `node` has 256 names: all but those of members.
    let others = (3..NODES_MAX).map(state).collect();
    world.handle(0, Input::Message { from: node(1), message: news(others) });
    assert_eq!(world.nodes[0].states.len(), NODES_MAX - 1);
    let mut far = state(0);
    far.origin.node = NodeId([9; 32].map(|byte: u8| byte + 1));
    far.origin.node.0[31] = 0;
    let mut further = far.clone();
    further.origin.node.0[31] = 1;
    let message = news(vec![far.clone(), further.clone()]);
    world.handle(0, Input::Message { from: node(1), message });
    assert_eq!(world.nodes[0].states.len(), NODES_MAX);
    assert!(!world.nodes[0].states.contains_key(&further.origin.node), "there was no room");
    world.handle(0, Input::Message { from: node(1), message: news(vec![state(2)]) });
    assert_eq!(world.nodes[0].states.len(), NODES_MAX);
    assert!(world.nodes[0].states.contains_key(&node(2)));
    world.handle(0, Input::Facts { bytes: vec![0], urgent: true });
    assert_eq!(world.nodes[0].offered(world.now).len(), NODES_MAX);
}

#[test]
fn in_a_full_mesh_news_cost_one_message_each() {
    let mut world = World::full(20);
    let before = world.sent;
    world.handle(0, Input::Facts { bytes: b"load 1".to_vec(), urgent: true });
    world.settle();
    assert_eq!(world.sent - before, 19);
    for n in 1..20 {
        assert_eq!(world.nodes[n].facts(node(0)).unwrap().bytes, b"load 1");
        let origin = world.member(0);
        let told = Output::FactsOf { origin, bytes: b"load 1".to_vec() };
        assert!(world.said[n].contains(&told));
    }
}

#[test]
fn facts_wait_for_their_time_unless_they_are_urgent() {
    let mut reach = Reach::new(Member { node: node(0), incarnation: Incarnation(1) });
    let at = |millis| Instant::ORIGIN + Span::millis(millis);
    let facts = |text: &str, urgent| Input::Facts { bytes: text.into(), urgent };
    let number = |reach: &Reach| reach.facts(node(0)).map_or(0, |facts| facts.number);
    reach.handle(at(0), facts("a", false));
    assert_eq!(number(&reach), 1, "the first goes at once");
    reach.handle(at(10), facts("a", true));
    assert_eq!(reach.deadline(), None, "nothing new");
    reach.handle(at(10), facts("b", false));
    reach.handle(at(100), facts("c", false));
    assert_eq!((number(&reach), reach.deadline()), (1, Some(at(500))));
    reach.handle(at(110), facts("c", true));
    assert_eq!(number(&reach), 2);
    reach.handle(at(115), facts("d", true));
    assert_eq!(reach.deadline(), Some(at(130)));
    reach.handle(at(130), Input::Tick);
    assert_eq!(reach.facts(node(0)).unwrap().bytes, b"d");
}

#[test]
fn jitter_moves_no_route() {
    let mut world = World::full(4);
    world.down(0, 3);
    world.settle();
    world.said.iter_mut().for_each(Vec::clear);
    let (mut dice, before) = (Dice::new(1), world.sent);
    for _ in 0..1000 {
        world.now += Span::millis(100);
        for peer in [1, 2] {
            let cost = Span::micros(100 + dice.below(280));
            world.handle(0, Input::Cost { peer: node(peer), cost });
        }
    }
    assert!(world.said[0].is_empty());
    world.settle();
    // Only the digests, one a second.
    assert!(world.sent - before <= 100 + 2, "{}", world.sent - before);
    assert_eq!(world.nodes[0].routes()[&node(3)], node(1), "a tie goes to the lowest");
    world.handle(0, Input::Cost { peer: node(1), cost: Span::millis(30) });
    world.settle();
    assert_eq!(world.nodes[0].routes()[&node(3)], node(2), "a real difference counts");
}

#[test]
fn big_tables_travel_in_parts() {
    let mut world = World::full(4);
    for n in 0..4 {
        world.handle(n, members(0..NODES_MAX));
    }
    world.down(0, 1);
    let far: BTreeMap<NodeId, Neighbour> = (0..NODES_MAX)
        .map(|n| (node(n), Neighbour { incarnation: Incarnation(1), cost: u32::MAX }))
        .collect();
    let states = (4..NODES_MAX).map(|n| {
        let origin = Member { node: node(n), incarnation: Incarnation(1) };
        LinkState { origin, number: 1, neighbours: far.clone() }
    });
    let message = Message::News { states: states.collect(), facts: Vec::new() };
    world.nodes[0].handle(world.now, Input::Message { from: node(3), message });
    while world.nodes[0].poll().is_some() {}
    world.down(0, 2);
    world.down(0, 3);
    let before = world.sent;
    world.up(0, 1);
    assert!(world.sent - before > 20, "`handle` checks the size of each part");
}

#[test]
fn what_is_lost_for_long_is_forgotten_by_all() {
    let mut world = World::full(4);
    for n in [0, 1, 2] {
        world.handle(n, Input::Facts { bytes: vec![1], urgent: true });
    }
    world.settle();
    for n in 1..4 {
        world.down(0, n);
    }
    world.settle();
    world.pass(Span::secs(59));
    assert!(world.nodes[1].facts(node(0)).is_some());
    world.pass(Span::secs(2));
    for n in 1..4 {
        assert!(world.nodes[n].facts(node(0)).is_none(), "{n} keeps it");
        assert!(!world.nodes[n].states.contains_key(&node(0)), "{n} keeps it");
    }
    world.pass(Span::secs(30));
    assert!(!world.nodes[2].states.contains_key(&node(0)), "it came back");
    world.up(0, 3);
    world.settle();
    assert_eq!(world.check(), Ok(()));
    assert!(world.nodes[2].facts(node(0)).is_some());
}

#[test]
fn digests_mend_what_was_lost() {
    let mut dice = Dice::new(5);
    for seed in 0..20 {
        let mut world = World::full(6);
        let (a, b) = (seed % 6, (seed + 1 + dice.below(4) as usize) % 6);
        if a != b {
            world.down(a, b);
        }
        world.handle(a, Input::Facts { bytes: vec![seed as u8], urgent: true });
        // A broken mesh that loses what it promised to carry.
        world.queues.values_mut().for_each(VecDeque::clear);
        world.pass(Span::secs(15));
        assert_eq!(world.check(), Ok(()), "seed {seed}");
        let facts = |n: usize| world.nodes[n].facts(node(a)).map(|facts| facts.bytes.clone());
        assert!((0..6).all(|n| facts(n) == Some(vec![seed as u8])), "seed {seed}");
    }
}

#[test]
fn numbers_go_on_from_what_others_believe() {
    let mut world = World::full(3);
    let origin = world.member(0);
    let state = LinkState { origin, number: 1000, neighbours: BTreeMap::new() };
    let message = Message::News { states: vec![state], facts: Vec::new() };
    world.handle(1, Input::Message { from: node(2), message });
    assert!(!world.nodes[1].reaches(node(0)));
    world.pass(Span::secs(5));
    assert_eq!(world.check(), Ok(()));
    let most = LinkState { origin, number: u64::MAX, neighbours: BTreeMap::new() };
    let message = Message::News { states: vec![most], facts: Vec::new() };
    world.handle(1, Input::Message { from: node(2), message });
    world.pass(Span::secs(5));
}

/// Links come and go, nodes restart, ends notice late; then all is delivered, without a timer.
fn run(seed: u64, plant: Option<Fault>) -> Result<usize, String> {
    let mut dice = Dice::new(seed);
    let count = 3 + dice.below(6) as usize;
    let mut world = World::new(count, plant);
    let mut unnoticed: Vec<(usize, usize)> = Vec::new();
    let mut changes = 0;
    for _ in 0..60 {
        let a = dice.below(count as u64) as usize;
        let b = (a + 1 + dice.below(count as u64 - 1) as usize) % count;
        let up = world.links.contains(&(a.min(b), a.max(b)));
        let half_open = unnoticed.iter().any(|ends| *ends == (a, b) || *ends == (b, a));
        changes += 1;
        match dice.below(8) {
            0..=3 if !up && !half_open => world.up(a, b),
            4 | 5 if up => {
                world.cut(a, b);
                world.handle(a, Input::LinkDown { peer: node(b) });
                unnoticed.push((b, a));
            }
            6 if dice.chance(1, 2) => {
                for other in (0..count).filter(|other| *other != a) {
                    if world.links.contains(&(a.min(other), a.max(other))) {
                        world.cut(a, other);
                        unnoticed.push((other, a));
                    }
                }
                unnoticed.retain(|(end, _)| *end != a);
                world.incarnations[a] += 1;
                world.nodes[a] = world.start(a);
            }
            _ => changes -= 1,
        }
        for _ in 0..dice.below(12) {
            let ways: Vec<(usize, usize)> = world.queues.keys().copied().collect();
            if !ways.is_empty() {
                let (from, to) = *dice.pick(&ways);
                world.deliver(from, to);
            }
        }
        if dice.chance(1, 2) && !unnoticed.is_empty() {
            let (end, peer) = unnoticed.remove(dice.below(unnoticed.len() as u64) as usize);
            world.handle(end, Input::LinkDown { peer: node(peer) });
        }
    }
    for (end, peer) in unnoticed {
        world.handle(end, Input::LinkDown { peer: node(peer) });
    }
    world.settle();
    world.check().map_err(|what| format!("seed {seed}: {what}"))?;
    Ok(changes)
}

#[test]
fn all_routes_are_right_once_all_is_delivered() {
    let changes: usize = (0..120).map(|seed| run(seed, None).unwrap()).sum();
    assert!(changes > 2_500, "{changes}");
}

#[cfg(feature = "faults")]
#[test]
fn planted_faults_are_caught() {
    assert!((0..20).any(|seed| run(seed, Some(Fault::KeepNews)).is_err()));
    assert_ne!(half_broken(Some(Fault::OneEndIsEnough)), half_broken(None));
}
