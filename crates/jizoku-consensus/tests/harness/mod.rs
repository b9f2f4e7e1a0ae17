//! A cluster in one thread and virtual time, for tests and measurements: seeded loss, delay,
//! duplication, reordering, cuts, slow disks, crashes that lose what was not flushed.
//!
//! It checks while it runs, and panics with the seed when something is wrong:
//! - one leader in a term, whoever says so;
//! - every node applies the same command at the same index, and a snapshot is what those commands
//!   make; so what was applied once is never lost;
//! - every proposal ends at most once; a command is applied at most once; one that was given back
//!   as not taken is never applied.
#![allow(dead_code, unreachable_pub, reason = "each user of the harness needs another part of it")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jizoku_consensus::{
    Config, Consensus, Input, Output, PersistToken, Record, Recovered, RefuseReason, Status,
    StopReason,
};
use jizoku_types::{ClusterId, Generation, Instant, NodeId, Span};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

pub const CLUSTER: ClusterId = ClusterId([7; 16]);

pub fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

pub fn nodes(numbers: impl IntoIterator<Item = u8>) -> BTreeSet<NodeId> {
    numbers.into_iter().map(node).collect()
}

/// What goes wrong on the way and on the disk.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Messages lost, in thousandths.
    pub loss: u64,
    /// Messages that arrive twice, in thousandths.
    pub twice: u64,
    pub delay: (Span, Span),
    pub flush: (Span, Span),
}

impl Weather {
    pub fn fine() -> Weather {
        Weather {
            loss: 0,
            twice: 0,
            delay: (Span::micros(100), Span::micros(400)),
            flush: (Span::micros(500), Span::millis(3)),
        }
    }

    pub fn bad() -> Weather {
        Weather {
            loss: 50,
            twice: 30,
            delay: (Span::micros(100), Span::millis(15)),
            flush: (Span::micros(500), Span::millis(20)),
        }
    }
}

/// How a proposal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Applied(u64),
    Changed,
    Refused(RefuseReason),
}

#[derive(Default)]
struct Disk {
    flushed: Vec<Record>,
    writing: VecDeque<(PersistToken, Vec<Record>)>,
}

pub struct Machine {
    pub consensus: Option<Consensus>,
    disk: Disk,
    life: u64,
    /// This node's clock is ahead of the harness's by this.
    ahead: Span,
    /// Commands applied in this life or installed by a snapshot, by index.
    pub applied: BTreeMap<u64, Vec<u8>>,
    pub installed: u64,
    pub snapshots: u64,
    pub members: (BTreeSet<NodeId>, BTreeSet<NodeId>),
    pub members_number: u64,
    /// The newest entry of its log that names members.
    pub logged: u64,
    pub leader: Option<NodeId>,
    ours: BTreeMap<u64, Vec<u8>>,
    deadline: Option<Instant>,
}

enum Event {
    Deliver { from: NodeId, to: NodeId, bytes: Vec<u8> },
    Flushed { node: NodeId, life: u64 },
}

pub struct World {
    pub now: Instant,
    pub seed: u64,
    pub weather: Weather,
    /// Changes each new node's configuration.
    pub tune: fn(&mut Config),
    pub machines: BTreeMap<NodeId, Machine>,
    /// Ways that are cut, one direction each.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub ends: BTreeMap<u64, End>,
    pub history: BTreeMap<u64, Vec<u8>>,
    pub leaders: BTreeMap<u64, NodeId>,
    pub delivered: u64,
    pub handled: u64,
    pub hash: u64,
    /// The generation of nodes that start from now on.
    pub generation: u64,
    pub keep_traffic: bool,
    pub traffic: Vec<Vec<u8>>,
    broken: BTreeSet<NodeId>,
    places: BTreeMap<Vec<u8>, u64>,
    random: ChaCha8Rng,
    events: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    next_id: u64,
}

impl World {
    pub fn new(seed: u64) -> World {
        World {
            now: Instant::from_nanos(1_000_000_000),
            seed,
            weather: Weather::fine(),
            tune: |_| {},
            machines: BTreeMap::new(),
            cut: BTreeSet::new(),
            ends: BTreeMap::new(),
            history: BTreeMap::new(),
            leaders: BTreeMap::new(),
            delivered: 0,
            handled: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            generation: 1,
            keep_traffic: false,
            traffic: Vec::new(),
            broken: BTreeSet::new(),
            places: BTreeMap::new(),
            random: ChaCha8Rng::seed_from_u64(seed),
            events: BTreeMap::new(),
            sequence: 0,
            next_id: 1,
        }
    }

    /// A cluster of nodes 1 to `count`, all voters, with a leader.
    pub fn cluster(seed: u64, count: u8) -> World {
        World::cluster_with(seed, count, |_| {})
    }

    pub fn cluster_with(seed: u64, count: u8, tune: fn(&mut Config)) -> World {
        let mut world = World::new(seed);
        world.tune = tune;
        for number in 1..=count {
            world.add(node(number));
        }
        world.input(node(1), Input::Bootstrap);
        world.run_until("the first node leads", Span::secs(5), |w| w.leader().is_some());
        if count > 1 {
            let id = world.change_voters(node(1), nodes(1..=count), BTreeSet::new());
            world.run_until("all vote", Span::secs(10), |w| w.ends.contains_key(&id));
            assert_eq!(world.ends[&id], End::Changed, "seed {seed}");
        }
        world
    }

    pub fn chance(&mut self, below: u64) -> u64 {
        self.random.next_u64() % below.max(1)
    }

    fn between(&mut self, (min, max): (Span, Span)) -> Span {
        let room = (max - min).as_nanos();
        min + Span::nanos(self.chance(room))
    }

    fn note(&mut self, words: &[u64], bytes: &[u8]) {
        let mut mix = |word: u64| {
            self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(5);
        };
        words.iter().for_each(|word| mix(*word));
        bytes.iter().for_each(|byte| mix(u64::from(*byte)));
    }

    /// A node without a past.
    pub fn add(&mut self, id: NodeId) {
        let ahead = Span::millis(self.chance(100_000));
        let machine = Machine {
            consensus: None,
            disk: Disk::default(),
            life: 0,
            ahead,
            applied: BTreeMap::new(),
            installed: 0,
            snapshots: 0,
            members: Default::default(),
            members_number: 0,
            logged: 0,
            leader: None,
            ours: BTreeMap::new(),
            deadline: None,
        };
        self.machines.insert(id, machine);
        self.start(id);
    }

    pub fn is_up(&self, id: NodeId) -> bool {
        self.machines[&id].consensus.is_some()
    }

    pub fn up(&self) -> Vec<NodeId> {
        self.machines.keys().copied().filter(|id| self.is_up(*id)).collect()
    }

    /// Starts a node from what its disk has.
    pub fn start(&mut self, id: NodeId) {
        let seed = self.random.next_u64();
        let mut config = Config::new(id, CLUSTER, Generation(self.generation), seed);
        (self.tune)(&mut config);
        let now = self.now;
        let machine = self.machines.get_mut(&id).expect("a node of this world");
        assert!(machine.consensus.is_none(), "{id:?} runs already");
        let mut recovered = Recovered::new();
        for record in &machine.disk.flushed {
            let read = Record::decode(&record.encode()).expect("what was encoded");
            recovered.replay(read).expect("records in order");
        }
        let mut again = Recovered::new();
        for record in recovered.records() {
            again.replay(record).expect("a rewritten file is one to start from");
        }
        assert_eq!(recovered, again, "a rewritten file says the same");
        machine.life += 1;
        machine.applied.clear();
        machine.leader = None;
        (machine.members_number, machine.logged) = (0, 0);
        let consensus = Consensus::new(now + machine.ahead, config, recovered);
        machine.consensus = Some(consensus.expect("what was flushed is consistent"));
        self.drain(id);
    }

    /// Power off. Of what was not flushed, some at the beginning may be on the disk.
    pub fn crash(&mut self, id: NodeId) {
        let kept = self.random.next_u64();
        let machine = self.machines.get_mut(&id).expect("a node of this world");
        if machine.consensus.take().is_none() {
            return;
        }
        let pending = std::mem::take(&mut machine.disk.writing);
        let records: Vec<Record> = pending.into_iter().flat_map(|(_, records)| records).collect();
        let kept = usize::try_from(kept).unwrap_or(0) % (records.len() + 1);
        machine.disk.flushed.extend(records.into_iter().take(kept));
        machine.deadline = None;
        machine.leader = None;
        for id in std::mem::take(&mut machine.ours).into_keys() {
            self.ends.remove(&id);
        }
    }

    /// Cuts all ways between the two groups.
    pub fn cut_between(&mut self, a: &BTreeSet<NodeId>, b: &BTreeSet<NodeId>) {
        for x in a {
            for y in b {
                self.cut.insert((*x, *y));
                self.cut.insert((*y, *x));
            }
        }
    }

    pub fn isolate(&mut self, id: NodeId) {
        let others = self.machines.keys().copied().filter(|other| *other != id).collect();
        self.cut_between(&BTreeSet::from([id]), &others);
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    pub fn input(&mut self, id: NodeId, input: Input) {
        let now = self.now;
        let machine = self.machines.get_mut(&id).expect("a node of this world");
        let Some(consensus) = &mut machine.consensus else { return };
        self.handled += 1;
        consensus.handle(now + machine.ahead, input);
        self.drain(id);
    }

    /// Proposes a command of its own; gives its number.
    pub fn propose(&mut self, at: NodeId) -> u64 {
        let id = self.next_id;
        self.propose_bytes(at, format!("command {id}").into_bytes())
    }

    pub fn propose_bytes(&mut self, at: NodeId, command: Vec<u8>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let machine = self.machines.get_mut(&at).expect("a node of this world");
        machine.ours.insert(id, command.clone());
        self.input(at, Input::Propose { id, command });
        id
    }

    pub fn change_voters(
        &mut self,
        at: NodeId,
        voters: BTreeSet<NodeId>,
        learners: BTreeSet<NodeId>,
    ) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.input(at, Input::ChangeVoters { id, voters, learners });
        id
    }

    pub fn status(&self, id: NodeId) -> Status {
        self.machines[&id].consensus.as_ref().expect("a running node").status()
    }

    /// The node that calls itself leader, in the newest term if there are two.
    pub fn leader(&self) -> Option<NodeId> {
        let own = self.up().into_iter().filter(|id| self.machines[id].leader == Some(*id));
        own.max_by_key(|id| self.status(*id).term)
    }

    fn drain(&mut self, id: NodeId) {
        loop {
            let machine = self.machines.get_mut(&id).expect("a node of this world");
            let Some(consensus) = &mut machine.consensus else { return };
            match consensus.poll() {
                Some(output) => self.output(id, output),
                None => {
                    let ahead = machine.ahead;
                    machine.deadline = consensus.deadline().map(|at| at.before(ahead));
                    return;
                }
            }
        }
    }

    fn schedule(&mut self, after: Span, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + after, self.sequence), event);
    }

    fn output(&mut self, id: NodeId, output: Output) {
        let seed = self.seed;
        match output {
            Output::Send { to, bytes } => self.send(id, to, bytes),
            Output::Persist { token, records } => {
                let after = self.between(self.weather.flush);
                let machine = self.machines.get_mut(&id).expect("known");
                machine.disk.writing.push_back((token, records));
                let life = machine.life;
                self.schedule(after, Event::Flushed { node: id, life });
            }
            Output::Applied { index, id: proposed, command } => {
                self.applied(id, index, proposed, command);
            }
            Output::InstallSnapshot { index, bytes } => {
                let state: BTreeMap<u64, Vec<u8>> = decode(&bytes);
                let expected: BTreeMap<u64, Vec<u8>> =
                    self.history.range(..=index).map(|(k, v)| (*k, v.clone())).collect();
                assert_eq!(state, expected, "a snapshot holds what was applied; seed {seed}");
                let machine = self.machines.get_mut(&id).expect("known");
                machine.applied = state;
                machine.installed += 1;
            }
            Output::TakeSnapshot { index } => {
                let machine = self.machines.get_mut(&id).expect("known");
                machine.snapshots += 1;
                assert!(machine.applied.keys().next_back().is_none_or(|last| *last <= index));
                let bytes = encode(&machine.applied);
                let now = self.now;
                let consensus = machine.consensus.as_mut().expect("it just asked");
                consensus.handle(now + machine.ahead, Input::SnapshotTaken { index, bytes });
            }
            Output::VotersChanged { id: proposed } => self.end(proposed, End::Changed),
            Output::Refused { id: proposed, reason, .. } => {
                let machine = self.machines.get_mut(&id).expect("known");
                let command = machine.ours.remove(&proposed);
                if reason == RefuseReason::NotTaken
                    && let Some(command) = command
                {
                    let taken = self.places.insert(command, u64::MAX);
                    assert_eq!(taken, None, "not taken, but applied; seed {seed}");
                }
                self.end(proposed, End::Refused(reason));
            }
            Output::LeaderIs { leader, term } => {
                self.machines.get_mut(&id).expect("known").leader = leader;
                if let Some(leader) = leader {
                    let known = *self.leaders.entry(term).or_insert(leader);
                    assert_eq!(known, leader, "two leaders in term {term}; seed {seed}");
                }
            }
            Output::VotersAre { number, voters, learners } => {
                let machine = self.machines.get_mut(&id).expect("known");
                assert!(number <= machine.logged, "{id:?}: applied what it never logged");
                machine.members = (voters, learners);
                machine.members_number = number;
            }
            Output::MembersLogged { voters, .. } => {
                self.machines.get_mut(&id).expect("known").logged = voters;
            }
            Output::Stopped { reason } => {
                let expected = reason == StopReason::Disk && self.broken.contains(&id);
                assert!(expected, "{id:?} stopped: {reason:?}; seed {seed}");
                self.crash(id);
            }
        }
    }

    fn end(&mut self, proposed: u64, end: End) {
        let before = self.ends.insert(proposed, end);
        assert_eq!(before, None, "proposal {proposed} ended twice; seed {}", self.seed);
    }

    fn applied(&mut self, id: NodeId, index: u64, proposed: Option<u64>, command: Vec<u8>) {
        let seed = self.seed;
        let known = self.history.entry(index).or_insert_with(|| command.clone());
        assert_eq!(*known, command, "another command at {index} on {id:?}; seed {seed}");
        let place = *self.places.entry(command.clone()).or_insert(index);
        assert_eq!(place, index, "applied twice, or though not taken; seed {seed}");
        let machine = self.machines.get_mut(&id).expect("known");
        let last = machine.applied.keys().next_back().copied();
        assert!(last.is_none_or(|last| last < index), "indexes grow; seed {seed}");
        machine.applied.insert(index, command.clone());
        if let Some(proposed) = proposed {
            let ours = machine.ours.remove(&proposed);
            assert_eq!(ours, Some(command), "the id belongs to the command; seed {seed}");
            self.end(proposed, End::Applied(index));
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, bytes: Vec<u8>) {
        if self.chance(1000) < self.weather.loss {
            return;
        }
        if self.chance(1000) < self.weather.twice {
            let after = self.between(self.weather.delay);
            self.schedule(after, Event::Deliver { from, to, bytes: bytes.clone() });
        }
        let after = self.between(self.weather.delay);
        self.schedule(after, Event::Deliver { from, to, bytes });
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, bytes } => {
                let known = self.machines.contains_key(&to) && !self.cut.contains(&(from, to));
                if !known || !self.is_up(to) {
                    return;
                }
                self.delivered += 1;
                let words = [self.now.as_nanos(), u64::from(from.0[0]), u64::from(to.0[0])];
                self.note(&words, &bytes);
                if self.keep_traffic {
                    self.traffic.push(bytes.clone());
                }
                self.input(to, Input::Message { from, bytes });
            }
            Event::Flushed { node, life } => {
                let machine = self.machines.get_mut(&node).expect("known");
                if machine.life != life || machine.consensus.is_none() {
                    return;
                }
                // Disks write in order: what is done is the oldest.
                let (token, records) = machine.disk.writing.pop_front().expect("one for each");
                if self.broken.contains(&node) {
                    self.input(node, Input::PersistFailed { token });
                    return;
                }
                machine.disk.flushed.extend(records);
                self.note(&[self.now.as_nanos(), u64::from(node.0[0]), token.0], b"flushed");
                self.input(node, Input::Persisted { token });
            }
        }
    }

    /// One event, or one deadline. Gives false if there is none before `limit`.
    fn step(&mut self, limit: Instant) -> bool {
        let event = self.events.first_key_value().map(|(&(at, _), _)| at);
        let due = self.machines.iter().filter_map(|(id, m)| Some((m.deadline?, *id))).min();
        let deadline = due.map(|(at, _)| at);
        let Some(next) = event.into_iter().chain(deadline).min() else { return false };
        if next > limit {
            return false;
        }
        self.now = self.now.max(next);
        if event.is_some_and(|at| deadline.is_none_or(|deadline| at <= deadline)) {
            let (_, event) = self.events.pop_first().expect("just seen");
            self.happen(event);
        } else {
            let (_, id) = due.expect("no event, so a deadline");
            self.input(id, Input::Tick);
        }
        true
    }

    pub fn run(&mut self, span: Span) {
        let limit = self.now + span;
        while self.step(limit) {}
        self.now = limit;
    }

    /// Runs until `done`; panics if that takes longer than `span`. Gives how long it took.
    pub fn run_until(&mut self, what: &str, span: Span, done: impl Fn(&World) -> bool) -> Span {
        let (start, limit) = (self.now, self.now + span);
        while !done(self) {
            if !self.step(limit) {
                let status: Vec<Status> = self.up().iter().map(|id| self.status(*id)).collect();
                panic!("not within {span}: {what}; seed {}; {status:#?}", self.seed);
            }
        }
        self.now.since(start)
    }

    /// Runs until a proposal made now is applied everywhere that runs.
    pub fn make_progress(&mut self, span: Span) -> Span {
        let start = self.now;
        loop {
            let left = span - self.now.since(start);
            let at = self.leader().unwrap_or_else(|| self.up()[0]);
            let id = self.propose(at);
            self.run_until("a proposal ends", left, |w| w.ends.contains_key(&id) || !w.is_up(at));
            if let Some(End::Applied(index)) = self.ends.get(&id).copied() {
                let took = self.now.since(start);
                self.run_until("it is applied everywhere", Span::secs(20), |w| {
                    w.up().iter().all(|id| w.machines[id].applied.contains_key(&index))
                });
                return took;
            }
        }
    }

    /// As [`World::make_progress`], proposed at that node, and applied there.
    pub fn make_progress_at(&mut self, at: NodeId, span: Span) {
        let id = self.propose(at);
        self.run_until("a proposal ends", span, |w| w.ends.contains_key(&id));
        assert!(matches!(self.ends[&id], End::Applied(_)), "{:?}", self.ends[&id]);
    }

    /// From now on no record can be written there.
    pub fn break_disk(&mut self, id: NodeId) {
        self.broken.insert(id);
    }

    /// What `recover --new-generation` does on a node that is down.
    pub fn take_over(&mut self, id: NodeId) {
        let machine = self.machines.get_mut(&id).expect("a node of this world");
        let mut recovered = Recovered::new();
        for record in machine.disk.flushed.clone() {
            recovered.replay(record).expect("records in order");
        }
        machine.disk.flushed.extend(recovered.take_over(id));
        self.leaders.clear();
        self.start(id);
    }

    /// Which of these calls itself leader.
    pub fn leader_among(&self, ids: &[NodeId]) -> Option<NodeId> {
        ids.iter().copied().find(|id| self.is_up(*id) && self.machines[id].leader == Some(*id))
    }

    /// Every running node has applied all that any node ever applied.
    pub fn check_all_have_all(&self) {
        for id in self.up() {
            assert_eq!(self.machines[&id].applied, self.history, "{id:?}; seed {}", self.seed);
        }
    }
}

fn encode(state: &BTreeMap<u64, Vec<u8>>) -> Vec<u8> {
    jizoku_types::frame::encode(state)
}

fn decode(bytes: &[u8]) -> BTreeMap<u64, Vec<u8>> {
    jizoku_types::frame::decode(bytes).expect("what was encoded")
}
