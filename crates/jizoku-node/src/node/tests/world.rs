//! The world of the tests. Time goes on in steps; messages arrive within a step.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::vec::Vec;

use jizoku_engine::Exit;
use jizoku_types::spec::{
    Durability, EngineSpec, OutputMode, PartitionPolicy, Placement, ServiceSpec, SuccessionPolicy,
};
use jizoku_types::{BranchId, ByteCount, CheckpointId, ClusterId, Generation, ServiceName, limits};

use super::super::*;
use crate::runner::{CheckpointStatus, Phase};

pub(super) const SERVICE: ServiceId = ServiceId(1);
const STEP: Span = Span::millis(20);

pub(super) fn id(n: u8) -> NodeId {
    NodeId([n; 32])
}

pub(super) fn nodes<const N: usize>(all: [u8; N]) -> BTreeSet<u8> {
    all.into()
}

/// A Runner that is played.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) assignment: Assignment,
    pub(super) holders: Holders,
    pub(super) recruits: BTreeSet<Member>,
    seq: u64,
}

pub(super) struct Machine {
    pub(super) node: Node,
    pub(super) runner: Option<Played>,
    pub(super) route: Option<Route>,
    pub(super) events: Vec<Event>,
    pub(super) forgot: BTreeSet<BranchId>,
    pub(super) answers: Vec<Result<Outcome, Refusal>>,
    applied: usize,
    leader: Option<NodeId>,
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) up: BTreeMap<u8, Machine>,
    incarnations: BTreeMap<u8, u64>,
    members: BTreeMap<u8, MemberSpec>,
    voters: BTreeSet<NodeId>,
    log: Vec<Vec<u8>>,
    /// Who can reach whom: nodes of one group.
    groups: Vec<BTreeSet<u8>>,
    flying: VecDeque<(u8, u8, ControlMessage)>,
    pub(super) proposals: u64,
    /// Proposals of holder sets are lost, and their nodes don't know whether they are.
    pub(super) doubt: bool,
    /// Whether Runners go on at once from what is on disks after a restart of all; else they wait.
    pub(super) hasty: bool,
    /// How often a Runner was told to make a last checkpoint and end.
    pub(super) quiesced: u64,
}

pub(super) fn spec() -> ServiceSpec {
    ServiceSpec {
        name: ServiceName::new("kv").expect("a name"),
        engine: EngineSpec::Wasm {
            module: [7; 32],
            args: Vec::new(),
            env: Default::default(),
            memory_max: ByteCount(1 << 20),
            files_max: ByteCount(1 << 20),
        },
        ports: Vec::new(),
        output: OutputMode::Held,
        durable: Durability::Memory,
        copies: 2,
        min_copies: 1,
        interval: Span::millis(100),
        partition: PartitionPolicy::Continue,
        succession: SuccessionPolicy::Priority((1..=9).map(id).collect()),
        checks: Vec::new(),
        placement: Placement::default(),
        restart_wait: Span::secs(30),
        branch_limit: ByteCount::mib(1),
    }
}

impl World {
    /// A cluster of `count` nodes, all of them voters, that serves this; node 1 is active.
    pub(super) fn serving(count: u8, spec: ServiceSpec) -> World {
        World::serving_in(World::new(count, &|_| {}), spec)
    }

    /// As [`World::serving`], with one node that is a witness.
    pub(super) fn with_witness(count: u8, witness: u8, spec: ServiceSpec) -> World {
        let say = move |member: &mut MemberSpec| member.witness = member.node == id(witness);
        World::serving_in(World::new(count, &say), spec)
    }

    /// As [`World::serving`], with nodes in zones.
    pub(super) fn with_zones(count: u8, zone: fn(u8) -> &'static str, spec: ServiceSpec) -> World {
        let say = move |member: &mut MemberSpec| {
            member.labels.insert("zone".into(), zone(member.node.0[0]).into());
        };
        World::serving_in(World::new(count, &say), spec)
    }

    fn serving_in(mut world: World, spec: ServiceSpec) -> World {
        world.meet();
        world.run(Span::secs(1));
        let apply = Command::ApplyService { spec: alloc::boxed::Box::new(spec), expect: None };
        world.request(1, apply);
        world.run(Span::secs(3));
        world.commit(1, 3);
        world.run(Span::secs(3));
        assert_eq!(world.active(), Some(1));
        world
    }

    /// A cluster that nobody has seen running yet: all apart.
    fn new(count: u8, say: &dyn Fn(&mut MemberSpec)) -> World {
        let member = |n: u8| {
            let mut member = MemberSpec {
                node: id(n),
                incarnation: Incarnation(1),
                name: format!("n{n}"),
                addresses: Vec::new(),
                labels: BTreeMap::new(),
                witness: false,
                features: 1,
            };
            say(&mut member);
            (n, member)
        };
        let mut world = World {
            now: Instant::ORIGIN + Span::secs(1),
            up: BTreeMap::new(),
            incarnations: (1..=count).map(|n| (n, 1)).collect(),
            members: (1..=count).map(member).collect(),
            voters: (1..=count).map(id).collect(),
            log: Vec::new(),
            groups: (1..=count).map(|n| nodes([n])).collect(),
            flying: VecDeque::new(),
            proposals: 0,
            doubt: false,
            hasty: true,
            quiesced: 0,
        };
        let cluster = ClusterId([1; 16]);
        for n in 1..=count {
            let member = world.member(n);
            let command = match n {
                1 => Command::Init { cluster, generation: Generation(1), first: member },
                _ => Command::AddMember { member },
            };
            world.log.push(command.encode());
        }
        for n in 1..=count {
            world.start(n);
        }
        world
    }

    fn member(&self, n: u8) -> MemberSpec {
        MemberSpec { incarnation: Incarnation(self.incarnations[&n]), ..self.members[&n].clone() }
    }

    /// Starts a node's agent, with what the log has.
    pub(super) fn start(&mut self, n: u8) {
        let config = Config {
            myself: self.member(n),
            restarted: self.incarnations[&n] > 1,
            lease: limits::LEASE_MAX,
            seed: u64::from(n),
        };
        let machine = Machine {
            node: Node::new(self.now, config),
            runner: None,
            route: None,
            events: Vec::new(),
            forgot: BTreeSet::new(),
            answers: Vec::new(),
            applied: 0,
            leader: None,
        };
        self.up.insert(n, machine);
        self.give(n, Input::MembersLogged { voters: 1, changing: false });
        let learners = BTreeSet::new();
        self.give(n, Input::VotersAre { number: 1, voters: self.voters.clone(), learners });
        for command in self.log.clone() {
            self.give(n, Input::Applied { id: None, command });
        }
        self.up.get_mut(&n).expect("it is up").applied = self.log.len();
        for peer in self.group(n) {
            self.link(n, peer);
        }
        self.settle();
    }

    /// Ends a node's agent; all links to it are reset.
    pub(super) fn kill(&mut self, n: u8) {
        self.up.remove(&n);
        *self.incarnations.get_mut(&n).expect("a node") += 1;
        for peer in self.group(n) {
            self.give(peer, Input::LinkDown { peer: id(n), cause: LinkDownCause::Reset });
        }
        self.settle();
    }

    pub(super) fn is_up(&self, n: u8) -> bool {
        self.up.contains_key(&n)
    }

    pub(super) fn count_up(&self) -> usize {
        self.up.len()
    }

    fn group(&self, n: u8) -> Vec<u8> {
        let group = self.groups.iter().find(|group| group.contains(&n)).expect("in a group");
        group.iter().copied().filter(|peer| *peer != n && self.up.contains_key(peer)).collect()
    }

    fn link(&mut self, a: u8, b: u8) {
        for (to, peer) in [(a, b), (b, a)] {
            let incarnation = Incarnation(self.incarnations[&peer]);
            let up = Input::LinkUp { peer: id(peer), incarnation, rtt: Span::millis(1) };
            self.give(to, up);
        }
    }

    /// Cuts the cluster into these groups; whoever is in none is alone.
    pub(super) fn split(&mut self, groups: &[BTreeSet<u8>]) {
        let before = core::mem::take(&mut self.groups);
        self.groups = groups.to_vec();
        for n in self.incarnations.keys().copied() {
            if !groups.iter().any(|group| group.contains(&n)) {
                self.groups.push(nodes([n]));
            }
        }
        let together = |groups: &[BTreeSet<u8>], a: u8, b: u8| {
            groups.iter().any(|group| group.contains(&a) && group.contains(&b))
        };
        let all: Vec<u8> = self.up.keys().copied().collect();
        for (a, b) in all.iter().flat_map(|a| all.iter().map(|b| (*a, *b))).filter(|(a, b)| a < b) {
            match (together(&before, a, b), together(&self.groups, a, b)) {
                (false, true) => self.link(a, b),
                (true, false) => {
                    for (to, peer) in [(a, b), (b, a)] {
                        let cause = LinkDownCause::Silence;
                        self.give(to, Input::LinkDown { peer: id(peer), cause });
                    }
                }
                _ => {}
            }
        }
        self.settle();
    }

    /// All reach all again.
    pub(super) fn meet(&mut self) {
        let all = self.incarnations.keys().copied().collect();
        self.split(&[all]);
    }

    pub(super) fn run(&mut self, span: Span) {
        let end = self.now + span;
        while self.now < end {
            self.now += STEP;
            let due: Vec<u8> = self
                .up
                .iter()
                .filter(|(_, machine)| machine.node.deadline().is_some_and(|at| at <= self.now))
                .map(|(n, _)| *n)
                .collect();
            for n in due {
                self.give(n, Input::Tick);
            }
            self.settle();
        }
    }

    pub(super) fn request(&mut self, n: u8, command: Command) {
        let request = Request::Command(alloc::boxed::Box::new(command));
        self.give(n, Input::Request { id: 1, request });
        self.settle();
    }

    /// The instance on this node has checkpoints committed.
    pub(super) fn commit(&mut self, n: u8, count: u64) {
        for _ in 0..count {
            let (now, machine) = (self.now, self.up.get_mut(&n).expect("it is up"));
            let played = machine.runner.as_mut().expect("something runs there");
            played.seq += 1;
            let epoch = played.assignment.epoch;
            let id = CheckpointId { epoch: epoch.counter, seq: played.seq };
            let size = ByteCount(100);
            let status = CheckpointStatus { id, at: now, size, ..Default::default() };
            self.report(n, epoch, Report::Committed(status));
        }
        self.settle();
    }

    pub(super) fn report(&mut self, n: u8, epoch: Epoch, report: Report) {
        self.give(n, Input::Runner { service: SERVICE, epoch, report });
    }

    /// The instance on this node crashes soon after it was restored.
    pub(super) fn crash(&mut self, n: u8) {
        let epoch = self.runs(n).expect("something runs there");
        self.up.get_mut(&n).expect("it is up").runner = None;
        let (exit, restored) = (Exit::Crashed("a trap".into()), CheckpointId::default());
        self.report(n, epoch, Report::Exited { exit, restored, ran: Span::secs(1) });
        self.settle();
    }

    /// Tells who leads, brings logs and messages, until all is quiet.
    fn settle(&mut self) {
        loop {
            self.lead();
            let Some((from, to, message)) = self.flying.pop_front() else { return };
            let together = self.group(to).contains(&from);
            if together && self.up.contains_key(&to) {
                self.give(to, Input::Control { from: id(from), message });
            }
        }
    }

    fn lead(&mut self) {
        for n in self.up.keys().copied().collect::<Vec<u8>>() {
            let leader = self.leader_of(n);
            if self.up[&n].leader != leader {
                self.up.get_mut(&n).expect("it is up").leader = leader;
                self.give(n, Input::LeaderIs { leader });
            }
            while leader.is_some() && self.up[&n].applied < self.log.len() {
                let machine = self.up.get_mut(&n).expect("it is up");
                let command = self.log[machine.applied].clone();
                machine.applied += 1;
                self.give(n, Input::Applied { id: None, command });
            }
        }
    }

    fn leader_of(&self, n: u8) -> Option<NodeId> {
        let mut side: Vec<u8> = self.group(n);
        side.push(n);
        let voting = side.iter().filter(|n| self.voters.contains(&id(**n)));
        (voting.count() * 2 > self.voters.len()).then(|| side.iter().min().map(|n| id(*n)))?
    }

    pub(super) fn give(&mut self, n: u8, input: Input) {
        let Some(machine) = self.up.get_mut(&n) else { return };
        machine.node.handle(self.now, input);
        while let Some(output) = self.up.get_mut(&n).and_then(|machine| machine.node.poll()) {
            self.says(n, output);
        }
    }

    fn says(&mut self, n: u8, output: Output) {
        let machine = self.up.get_mut(&n).expect("it is up");
        match output {
            Output::Propose { id, command } => self.propose(n, id, command),
            Output::Control { to, message } => self.flying.push_back((n, to.0[0], message)),
            Output::Activate(assignment) => self.activate(n, *assignment),
            Output::Runner { epoch, order, .. } => self.order(n, epoch, order),
            Output::Route { route, .. } => machine.route = route,
            Output::Event(event) => machine.events.push(event),
            Output::Answer { result, .. } => machine.answers.push(result),
            Output::Probe { service, epoch, check } => {
                self.give(n, Input::Probed { service, epoch, check, failure: None });
            }
            Output::ForgetBranch { branch, .. } => {
                machine.forgot.insert(branch);
            }
            _ => {}
        }
    }

    fn propose(&mut self, n: u8, id: u64, command: Vec<u8>) {
        self.proposals += 1;
        if self.leader_of(n).is_none() {
            return self.give(n, Input::Refused { id, unknown: false });
        }
        let set = matches!(Command::decode(&command), Ok(Command::SetHolders { .. }));
        if set && self.doubt {
            return self.give(n, Input::Refused { id, unknown: true });
        }
        while self.up[&n].applied < self.log.len() {
            let machine = self.up.get_mut(&n).expect("it is up");
            let command = self.log[machine.applied].clone();
            machine.applied += 1;
            self.give(n, Input::Applied { id: None, command });
        }
        self.log.push(command.clone());
        self.up.get_mut(&n).expect("it is up").applied += 1;
        self.give(n, Input::Applied { id: Some(id), command });
    }

    fn activate(&mut self, n: u8, assignment: Assignment) {
        let (epoch, holders) = (assignment.epoch, assignment.holders.clone());
        let seq = if assignment.born { 10 } else { 0 };
        let restarted = assignment.cluster_restarted && self.hasty;
        let finds = !assignment.born || restarted || self.is_held(n, &holders);
        let machine = self.up.get_mut(&n).expect("it is up");
        machine.runner = Some(Played { assignment, holders, recruits: BTreeSet::new(), seq });
        if !finds {
            return self.report(n, epoch, Report::Phase(Phase::Unreachable));
        }
        self.report(n, epoch, Report::Phase(Phase::Starting));
        self.report(n, epoch, Report::Phase(Phase::Serving));
    }

    /// Whether one of these has lived on, and can be reached from `n`.
    fn is_held(&self, n: u8, holders: &Holders) -> bool {
        let mut there = self.group(n);
        there.push(n);
        let lives = |member: &Member| {
            let n = member.node.0[0];
            there.contains(&n) && self.incarnations[&n] == member.incarnation.0
        };
        holders.members.iter().any(lives)
    }

    fn order(&mut self, n: u8, epoch: Epoch, order: Order) {
        let group = self.group(n);
        let runner = &mut self.up.get_mut(&n).expect("it is up").runner;
        let Some(played) = runner.as_mut().filter(|one| one.assignment.epoch == epoch) else {
            return;
        };
        match order {
            Order::Holders(holders) => played.holders = holders,
            Order::Recruit(recruits) => {
                played.recruits.clone_from(&recruits);
                for member in recruits {
                    let there = member.node == id(n) || group.contains(&member.node.0[0]);
                    if there {
                        self.report(n, epoch, Report::CaughtUp(member));
                    }
                }
            }
            Order::Stop => *runner = None,
            Order::Quiesce => {
                *runner = None;
                self.quiesced += 1;
                self.report(n, epoch, Report::Quiesced);
            }
            Order::ClusterRestarted(restarted) if !restarted || !self.hasty => {
                played.assignment.cluster_restarted = restarted;
            }
            Order::ClusterRestarted(_) => {
                played.assignment.cluster_restarted = true;
                self.report(n, epoch, Report::Phase(Phase::Starting));
                self.report(n, epoch, Report::Phase(Phase::Serving));
            }
            Order::LeaseUntil(_) | Order::AcceptLoss => {}
        }
    }

    /// The node that the catalog has as the active one, as the node with the newest log sees it.
    pub(super) fn active(&self) -> Option<u8> {
        self.record().active.map(|active| active.node.0[0])
    }

    pub(super) fn record(&self) -> jizoku_core::catalog::ServiceRecord {
        let newest = self.up.values().max_by_key(|machine| machine.applied).expect("one is up");
        newest.node.catalog().service(SERVICE).expect("it was applied").clone()
    }

    /// The epoch that runs on a node.
    pub(super) fn runs(&self, n: u8) -> Option<Epoch> {
        Some(self.up.get(&n)?.runner.as_ref()?.assignment.epoch)
    }

    /// All who run something now, and never two in one epoch.
    pub(super) fn running(&self) -> Vec<(u8, Epoch)> {
        let all: Vec<(u8, Epoch)> =
            self.up.keys().filter_map(|n| Some((*n, self.runs(*n)?))).collect();
        for (n, epoch) in &all {
            assert!(!all.iter().any(|(m, other)| n != m && epoch == other), "two in {epoch}");
        }
        all
    }

    /// Where a node's gateway sends connections.
    pub(super) fn routed(&self, n: u8) -> Option<(u8, Epoch)> {
        let route = self.up.get(&n)?.route.as_ref()?;
        route.active.map(|active| (active.node.0[0], route.epoch))
    }

    pub(super) fn holders(&self, n: u8) -> BTreeSet<u8> {
        let played = self.up[&n].runner.as_ref().expect("something runs there");
        played.holders.members.iter().map(|member| member.node.0[0]).collect()
    }

    pub(super) fn saw(&self, n: u8, what: impl Fn(&Event) -> bool) -> usize {
        self.up[&n].events.iter().filter(|event| what(event)).count()
    }
}
