//! One run of a node's agent: the same values as in the real one, with their outputs led to each
//! other in the same way.
//!
//! What it does not know: time beside what it is told, links, disks, clients. What leaves the
//! agent is an [`Effect`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use jizoku_checkpoint::holder::{self, Holder, Token};
use jizoku_checkpoint::image::Image;
use jizoku_checkpoint::message::Line;
use jizoku_checkpoint::record::Record;
use jizoku_consensus::{self as consensus, Consensus, PersistToken};
use jizoku_core::catalog::Outcome;
use jizoku_engine::fake::FakeInstance;
use jizoku_engine::{self as engine, Exit, Instance, Origin};
use jizoku_node::node::{self, Node, Order, Refusal};
use jizoku_node::runner::{self, Assignment, Holders, Phase, Report, Runner};
use jizoku_node::wire::{ControlMessage, StateMessage, StreamMessage};
use jizoku_streams::gateway::{self, GatewayEnd};
use jizoku_types::{
    BranchId, Channel, CheckpointId, ConnId, Epoch, Event, GatewayId, Instant, Member, NodeId,
    ServiceId, Span, decode, encode,
};

use crate::bug::Bug;
use crate::clients::COUNTERS;
use crate::rng::Rng;

/// What a frame carries.
#[derive(Clone, Debug)]
pub enum Body {
    /// On the channel of that name.
    Consensus(Vec<u8>),
    /// On the channel of that name.
    Control(ControlMessage),
    /// On the channel of that name.
    Stream(StreamMessage),
    /// On the channels State and Bulk.
    State(StateMessage),
}

impl Body {
    /// The body after it was encoded and decoded.
    ///
    /// # Errors
    /// If that doesn't give a body of the same encoding.
    pub fn through_the_codec(self) -> Result<Body, String> {
        fn same<T>(message: &T) -> Result<T, String>
        where
            T: serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug,
        {
            let bytes = encode(message);
            let back: T = decode(&bytes).map_err(|why| format!("{message:?}: {why}"))?;
            let equal = encode(&back) == bytes;
            equal
                .then_some(back)
                .ok_or_else(|| format!("another encoding after decoding: {message:?}"))
        }
        Ok(match self {
            Body::Consensus(bytes) => Body::Consensus(bytes),
            Body::Control(message) => Body::Control(same(&message)?),
            Body::Stream(message) => Body::Stream(same(&message)?),
            Body::State(message) => Body::State(same(&message)?),
        })
    }
}

/// What leaves an agent, or what the checkers want to know of it.
#[derive(Debug)]
pub enum Effect {
    /// A frame.
    Send {
        /// To this node.
        to: NodeId,
        /// On this channel.
        channel: Channel,
        /// With this.
        body: Body,
    },
    /// Records for the log.
    Persist {
        /// Their token.
        token: PersistToken,
        /// They.
        records: Vec<consensus::Record>,
    },
    /// A record of a held state.
    Store {
        /// Its token.
        token: Token,
        /// It.
        record: Record,
    },
    /// Something for a client's socket.
    Client {
        /// Of which service.
        service: ServiceId,
        /// The epoch that the gateway followed then.
        epoch: Epoch,
        /// What.
        output: gateway::Output,
    },
    /// The members beside this node.
    Peers(BTreeSet<NodeId>),
    /// The answer to a request.
    Answer {
        /// Its number.
        id: u64,
        /// What came of it.
        result: Result<Outcome, Refusal>,
    },
    /// A catalog command was applied.
    Applied {
        /// Its place in the log.
        index: u64,
        /// It.
        command: Vec<u8>,
    },
    /// This agent shall run an epoch.
    Assigned {
        /// Of which service.
        service: ServiceId,
        /// Which.
        epoch: Epoch,
        /// The branch that it goes on from, if that has another name.
        fork: Option<BranchId>,
    },
    /// An instance was made.
    Started {
        /// Of which service.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
        /// From which state; 0: none.
        seq: u64,
        /// The counters that clients use, as they stand there.
        values: Vec<u64>,
        /// Whether it resets connections whose input may have killed those before it.
        quarantine: bool,
    },
    /// A message went out to a gateway under a lease.
    Emitted {
        /// Of which service.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// A checkpoint was committed.
    Committed {
        /// Of which service.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
        /// Which.
        id: CheckpointId,
    },
    /// The instance's state was captured.
    Captured {
        /// Of which service.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
        /// As which checkpoint.
        seq: u64,
    },
    /// The instance was told that output up to this checkpoint may leave.
    Released {
        /// Of which service.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
        /// Which.
        seq: u64,
        /// The version of the holder set that the Runner knows.
        version: u64,
    },
    /// A gateway was given up.
    GatewayGone(GatewayId),
    /// Something happened.
    Saw(Event),
    /// Consensus has stopped; the agent ends.
    Stopped(String),
}

/// A Runner with its instance.
pub struct Running {
    /// It.
    pub runner: Runner,
    /// What it was made for.
    pub assignment: Assignment,
    /// The holder set as it was last told to the Runner.
    pub told: Holders,
    /// An operator said that it may go on from less than there was.
    pub accepts_loss: bool,
    instance: Option<FakeInstance>,
    /// The instance says nothing before this.
    ready_at: Instant,
}

/// See the module's header.
pub struct Life {
    /// The node in this incarnation.
    pub me: Member,
    /// Which of all lives of all machines this is.
    pub number: u64,
    /// The deciding half.
    pub node: Node,
    /// The log.
    pub consensus: Consensus,
    holder: Holder,
    /// No instance can be made here.
    pub unable: bool,
    /// Services that are active here.
    pub runners: BTreeMap<ServiceId, Running>,
    /// The gateway's ends.
    pub gateways: BTreeMap<ServiceId, GatewayEnd>,
    /// Next hops.
    pub routes: BTreeMap<NodeId, NodeId>,
    /// Nodes that no way leads to: a Runner that begins must not wait for them.
    down: BTreeSet<NodeId>,
    /// What the world has to do next, in this order.
    pub effects: Vec<Effect>,
    next_change: u64,
    now: Instant,
    rng: Rng,
    bug: Option<Bug>,
}

/// Numbers of changes of voters count down from here, those of proposals up from 1.
const CHANGES_FROM: u64 = u64::MAX;

/// What an agent is made of.
pub struct Parts {
    /// See [`Life::number`].
    pub number: u64,
    /// The deciding half.
    pub node: Node,
    /// The log.
    pub consensus: Consensus,
    /// The holder, which has been told what is on the disk.
    pub holder: Holder,
    /// Chance.
    pub rng: Rng,
    /// A planted bug.
    pub bug: Option<Bug>,
}

impl Life {
    /// An agent that begins at `now`.
    pub fn new(now: Instant, parts: Parts) -> Life {
        let Parts { number, node, consensus, holder, rng, bug } = parts;
        let mut life = Life {
            me: node.me(),
            number,
            node,
            consensus,
            holder,
            unable: false,
            runners: BTreeMap::new(),
            gateways: BTreeMap::new(),
            routes: BTreeMap::new(),
            down: BTreeSet::new(),
            effects: Vec::new(),
            next_change: CHANGES_FROM,
            now,
            rng,
            bug,
        };
        life.drain();
        life
    }

    /// Tells the Node something.
    pub fn tell_node(&mut self, now: Instant, input: node::Input) {
        self.now = now;
        self.node.handle(now, input);
        self.drain();
    }

    /// Tells the log something.
    pub fn tell_consensus(&mut self, now: Instant, input: consensus::Input) {
        self.now = now;
        self.consensus.handle(now, input);
        self.drain();
    }

    /// Tells the holder something.
    pub fn tell_holder(&mut self, now: Instant, input: holder::Input) {
        self.now = now;
        self.holder.handle(now, input);
        self.drain();
    }

    /// A client connects to the first port of a service.
    pub fn open(&mut self, now: Instant, service: ServiceId, port: u16) -> Option<ConnId> {
        self.now = now;
        let gateway = self.gateways.get_mut(&service)?;
        let conn = gateway.open(now, 0, ([127, 0, 0, 1], port).into()).ok();
        self.drain();
        conn
    }

    /// A client's socket has something.
    pub fn tell_gateway(&mut self, now: Instant, service: ServiceId, input: gateway::Input) {
        self.now = now;
        if let Some(gateway) = self.gateways.get_mut(&service) {
            gateway.handle(now, input);
        }
        self.drain();
    }

    /// A frame has come.
    pub fn frame(&mut self, now: Instant, from: NodeId, body: Body) {
        self.now = now;
        match body {
            Body::Consensus(bytes) => {
                self.consensus.handle(now, consensus::Input::Message { from, bytes });
            }
            Body::Control(message) => {
                self.node.handle(now, node::Input::Control { from, message });
            }
            Body::Stream(message) => self.stream(from, message),
            Body::State(message) => self.state(from, message),
        }
        self.drain();
    }

    fn stream(&mut self, from: NodeId, message: StreamMessage) {
        let now = self.now;
        match message {
            StreamMessage::ToInstance { gateway, message } if gateway.node == from => {
                let running = self.runners.get_mut(&message.service);
                let running = running.filter(|one| one.runner.epoch() == message.epoch);
                if let Some(running) = running {
                    running.runner.handle(now, runner::Input::FromGateway { gateway, message });
                }
            }
            StreamMessage::ToGateway { gateway, message } if gateway == self.me => {
                if let Some(end) = self.gateways.get_mut(&message.service) {
                    end.handle(now, gateway::Input::Message { from, message });
                }
            }
            _ => {}
        }
    }

    fn state(&mut self, from: NodeId, message: StateMessage) {
        let now = self.now;
        match message {
            StateMessage::ToHolder(message) => {
                self.holder.handle(now, holder::Input::Message { from, message });
            }
            StateMessage::FromHolder(message) => {
                if let Some(running) = self.runners.get_mut(&message.service) {
                    running.runner.handle(now, runner::Input::FromHolder { from, message });
                }
            }
            StateMessage::Module(_)
            | StateMessage::Look(_)
            | StateMessage::Log(_)
            | StateMessage::Script(_) => {}
        }
    }

    /// The lines that are held here.
    pub fn lines(&self) -> impl Iterator<Item = Line> {
        self.holder.lines()
    }

    /// The highest complete checkpoint that is held here of the main line of a service.
    pub fn holds(&self, service: ServiceId) -> CheckpointId {
        self.holds_of(Line { service, branch: BranchId::MAIN })
    }

    /// The highest complete checkpoint that is held here of a line.
    pub fn holds_of(&self, line: Line) -> CheckpointId {
        self.holder.ready_image(line).map_or(CheckpointId::default(), |(id, _)| id)
    }

    /// Gives time to whatever is due.
    pub fn wake(&mut self, now: Instant) {
        self.now = now;
        let due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if due(self.node.deadline()) {
            self.node.handle(now, node::Input::Tick);
        }
        if due(self.consensus.deadline()) {
            self.consensus.handle(now, consensus::Input::Tick);
        }
        if due(self.holder.deadline()) {
            self.holder.handle(now, holder::Input::Tick);
        }
        for running in self.runners.values_mut() {
            if due(running.runner.deadline()) {
                running.runner.handle(now, runner::Input::Tick);
            }
            if let Some(instance) = &mut running.instance
                && due(instance.deadline())
            {
                instance.handle(now, engine::Input::Tick);
            }
        }
        for gateway in self.gateways.values_mut() {
            if due(gateway.deadline()) {
                gateway.handle(now, gateway::Input::Tick);
            }
        }
        self.drain();
    }

    /// When [`Life::wake`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let values = [self.node.deadline(), self.consensus.deadline(), self.holder.deadline()];
        let runners = self.runners.values().flat_map(|running| {
            let quiet = running.ready_at > self.now && running.instance.is_some();
            let instance = running.instance.as_ref().and_then(|one| one.deadline());
            [running.runner.deadline(), quiet.then_some(running.ready_at), instance]
        });
        let gateways = self.gateways.values().map(GatewayEnd::deadline);
        values.into_iter().chain(runners).chain(gateways).flatten().min()
    }

    /// Lets all values speak until none has anything to say.
    fn drain(&mut self) {
        loop {
            let mut idle = true;
            while let Some(output) = self.node.poll() {
                idle = false;
                self.node_says(output);
            }
            while let Some(output) = self.consensus.poll() {
                idle = false;
                self.consensus_says(output);
            }
            while let Some(output) = self.holder.poll() {
                idle = false;
                self.holder_says(output);
            }
            let mut next = self.runners.keys().next().copied();
            while let Some(service) = next {
                idle &= !self.drain_runner(service);
                next = after(&self.runners, service);
            }
            let mut next = self.gateways.keys().next().copied();
            while let Some(service) = next {
                idle &= !self.drain_gateway(service);
                next = after(&self.gateways, service);
            }
            if idle {
                return;
            }
        }
    }

    fn drain_runner(&mut self, service: ServiceId) -> bool {
        let now = self.now;
        let mut spoke = false;
        loop {
            let Some(running) = self.runners.get_mut(&service) else { return spoke };
            if running.ready_at <= now
                && let Some(output) = running.instance.as_mut().and_then(|one| one.poll())
            {
                if let engine::Output::Captured { seq, .. } = &output {
                    let (epoch, seq) = (running.runner.epoch(), *seq);
                    self.effects.push(Effect::Captured { service, epoch, seq });
                }
                running.runner.handle(now, runner::Input::Instance(output));
                spoke = true;
                continue;
            }
            let Some(output) = running.runner.poll() else {
                if running.runner.phase() == Phase::Ended {
                    self.runners.remove(&service);
                }
                return spoke;
            };
            spoke = true;
            self.runner_says(service, output);
        }
    }

    fn drain_gateway(&mut self, service: ServiceId) -> bool {
        let mut spoke = false;
        while let Some(output) = self.gateways.get_mut(&service).and_then(|end| end.poll()) {
            spoke = true;
            self.gateway_says(service, output);
        }
        spoke
    }

    fn consensus_says(&mut self, output: consensus::Output) {
        let now = self.now;
        let input = match output {
            consensus::Output::Send { to, bytes } => {
                let (channel, body) = (Channel::Consensus, Body::Consensus(bytes));
                return self.effects.push(Effect::Send { to, channel, body });
            }
            consensus::Output::Persist { token, records } => {
                return self.effects.push(Effect::Persist { token, records });
            }
            consensus::Output::Applied { index, id, command } => {
                self.effects.push(Effect::Applied { index, command: command.clone() });
                node::Input::Applied { id, command }
            }
            consensus::Output::InstallSnapshot { index: _, bytes } => {
                node::Input::SnapshotRead { bytes }
            }
            consensus::Output::TakeSnapshot { index } => node::Input::TakeSnapshot { index },
            consensus::Output::Refused { id, leader: _, reason } => {
                if id >= self.next_change {
                    return;
                }
                let unknown = reason == consensus::RefuseReason::Unknown;
                node::Input::Refused { id, unknown }
            }
            consensus::Output::LeaderIs { leader, term: _ } => node::Input::LeaderIs { leader },
            consensus::Output::VotersAre { number, voters, learners } => {
                node::Input::VotersAre { number, voters, learners }
            }
            consensus::Output::MembersLogged { voters, changing } => {
                node::Input::MembersLogged { voters, changing }
            }
            consensus::Output::VotersChanged { id: _ } => return,
            consensus::Output::Stopped { reason } => {
                return self.effects.push(Effect::Stopped(format!("{reason:?}")));
            }
        };
        self.node.handle(now, input);
    }

    fn node_says(&mut self, output: node::Output) {
        let now = self.now;
        match output {
            node::Output::Propose { id, command } => {
                self.consensus.handle(now, consensus::Input::Propose { id, command });
            }
            node::Output::ChangeVoters { voters, learners } => {
                self.next_change -= 1;
                let id = self.next_change;
                let change = consensus::Input::ChangeVoters { id, voters, learners };
                self.consensus.handle(now, change);
            }
            node::Output::TransferLeader { to } => {
                self.consensus.handle(now, consensus::Input::TransferLeader { to: Some(to) });
            }
            node::Output::PeerDown { node } => {
                self.down.insert(node);
                for running in self.runners.values_mut() {
                    running.runner.handle(now, runner::Input::Unreachable(node));
                }
                self.consensus.handle(now, consensus::Input::PeerDown { node });
            }
            node::Output::Snapshot { index, bytes } => {
                self.consensus.handle(now, consensus::Input::SnapshotTaken { index, bytes });
            }
            node::Output::Control { to, message } => {
                let (channel, body) = (Channel::Control, Body::Control(message));
                self.effects.push(Effect::Send { to, channel, body });
            }
            node::Output::Peers(peers) => {
                self.effects.push(Effect::Peers(peers.keys().copied().collect()));
            }
            node::Output::Routes(routes) => self.routes = routes,
            node::Output::Activate(assignment) => self.activate(*assignment),
            node::Output::Runner { service, epoch, order } => self.order(service, epoch, order),
            node::Output::Route { service, route } => self.route(service, route),
            node::Output::GatewayGone(gateway) => {
                self.effects.push(Effect::GatewayGone(gateway));
                for running in self.runners.values_mut() {
                    running.runner.handle(now, runner::Input::GatewayGone { gateway });
                }
            }
            node::Output::LinkBack(node) => {
                self.down.remove(&node);
                for running in self.runners.values_mut() {
                    running.runner.handle(now, runner::Input::LinkBack(node));
                }
                for gateway in self.gateways.values_mut() {
                    gateway.handle(now, gateway::Input::LinkBack { node });
                }
            }
            node::Output::ForgetState(service) => self.forget(service),
            node::Output::ForgetBranch { service, branch } => {
                self.holder.handle(now, holder::Input::Forget(Line { service, branch }));
            }
            node::Output::Probe { service, epoch, check } => {
                let running = self.runners.get(&service).map(|one| one.runner.phase());
                let failure = (running != Some(Phase::Serving)).then(|| "not running".into());
                let probed = node::Input::Probed { service, epoch, check, failure };
                self.node.handle(now, probed);
            }
            node::Output::Answer { id, result } => {
                self.effects.push(Effect::Answer { id, result });
            }
            node::Output::Event(event) => self.effects.push(Effect::Saw(event)),
        }
    }

    fn forget(&mut self, service: ServiceId) {
        let lines: Vec<Line> = self.holder.lines().filter(|line| line.service == service).collect();
        for line in lines {
            self.holder.handle(self.now, holder::Input::Forget(line));
        }
    }

    fn activate(&mut self, mut assignment: Assignment) {
        let service = assignment.service;
        assignment.local = self.holder.points(assignment.source());
        let mut runner = Runner::new(self.now, assignment.clone());
        if let Some(bug) = self.bug {
            bug.plant_in_runner(&mut runner);
        }
        for node in &self.down {
            runner.handle(self.now, runner::Input::Unreachable(*node));
        }
        assignment.local.clear();
        let (epoch, fork) = (assignment.epoch, assignment.fork);
        self.effects.push(Effect::Assigned { service, epoch, fork });
        let (ready_at, told) = (self.now, assignment.holders.clone());
        let (accepts_loss, instance) = (assignment.accept_loss, None);
        let running = Running { runner, assignment, told, accepts_loss, instance, ready_at };
        self.runners.insert(service, running);
    }

    fn order(&mut self, service: ServiceId, epoch: Epoch, order: Order) {
        let running = self.runners.get_mut(&service);
        let Some(running) = running.filter(|one| one.runner.epoch() == epoch) else { return };
        let input = match order {
            Order::Holders(holders) => {
                running.told.clone_from(&holders);
                runner::Input::Holders(holders)
            }
            Order::Recruit(recruits) => runner::Input::Recruit(recruits),
            Order::LeaseUntil(until) => runner::Input::LeaseUntil(until),
            Order::ClusterRestarted(restarted) => {
                running.assignment.cluster_restarted = restarted;
                runner::Input::ClusterRestarted(restarted)
            }
            Order::AcceptLoss => {
                running.accepts_loss = true;
                runner::Input::AcceptLoss
            }
            Order::Quiesce => runner::Input::Quiesce,
            Order::Stop => runner::Input::Stop,
        };
        running.runner.handle(self.now, input);
        // What it says last comes before what a next Runner says.
        self.drain_runner(service);
    }

    fn route(&mut self, service: ServiceId, route: Option<node::Route>) {
        let (now, me) = (self.now, self.me);
        let Some(route) = route else {
            if let Some(mut gateway) = self.gateways.remove(&service) {
                let epoch = gateway.epoch().unwrap_or_default();
                gateway.handle(now, gateway::Input::Unrouted);
                while let Some(output) = gateway.poll() {
                    self.effects.push(Effect::Client { service, epoch, output });
                }
            }
            return;
        };
        let gateway = self.gateways.entry(service).or_insert_with(|| {
            let mut end = GatewayEnd::new(me, service, route.held);
            if let Some(bug) = self.bug {
                bug.plant_in_gateway(&mut end);
            }
            end
        });
        if !route.wanted {
            return gateway.handle(now, gateway::Input::Unrouted);
        }
        gateway.handle(now, gateway::Input::Held(route.held));
        // What it says until here is of the epoch that it followed.
        self.drain_gateway(service);
        let Some(gateway) = self.gateways.get_mut(&service) else { return };
        if let Some(active) = route.active {
            let (active, epoch) = (active.node, route.epoch);
            gateway.handle(now, gateway::Input::Route { active, epoch });
        }
    }

    fn holder_says(&mut self, output: holder::Output) {
        match output {
            holder::Output::Send { to, channel, message } => {
                self.send_state(to, channel, StateMessage::FromHolder(message));
            }
            holder::Output::Store { token, record } => {
                self.effects.push(Effect::Store { token, record });
            }
            holder::Output::Changed { .. } => {}
            holder::Output::Corrupt { line, what } => {
                let service = line.service;
                self.effects.push(Effect::Saw(Event::CopyCorrupt { service, what }));
            }
        }
    }

    /// What is for this node itself takes the short way.
    fn send_state(&mut self, to: NodeId, channel: Channel, message: StateMessage) {
        if to == self.me.node {
            self.state(to, message);
        } else {
            self.effects.push(Effect::Send { to, channel, body: Body::State(message) });
        }
    }

    fn send_stream(&mut self, to: NodeId, message: StreamMessage) {
        if to == self.me.node {
            self.stream(to, message);
        } else {
            let (channel, body) = (Channel::Streams, Body::Stream(message));
            self.effects.push(Effect::Send { to, channel, body });
        }
    }

    fn gateway_says(&mut self, service: ServiceId, output: gateway::Output) {
        if let gateway::Output::Send { to, message } = output {
            let gateway = self.me;
            return self.send_stream(to, StreamMessage::ToInstance { gateway, message });
        }
        if let gateway::Output::ToClient { conn, bytes } = &output {
            let wrote = gateway::Input::Wrote { conn: *conn, count: bytes.len() };
            if let Some(gateway) = self.gateways.get_mut(&service) {
                gateway.handle(self.now, wrote);
            }
        }
        let epoch = self.gateways.get(&service).and_then(GatewayEnd::epoch).unwrap_or_default();
        self.effects.push(Effect::Client { service, epoch, output });
    }

    fn runner_says(&mut self, service: ServiceId, output: runner::Output) {
        let now = self.now;
        let Some(running) = self.runners.get_mut(&service) else { return };
        let epoch = running.runner.epoch();
        match output {
            runner::Output::ToHolder { to, channel, message } => {
                self.send_state(to, channel, StateMessage::ToHolder(message));
            }
            runner::Output::ToGateway { gateway, message } => {
                if running.assignment.spec.needs_lease() {
                    self.effects.push(Effect::Emitted { service, epoch });
                }
                self.send_stream(gateway.node, StreamMessage::ToGateway { gateway, message });
            }
            runner::Output::StartInstance { .. } if self.unable => {
                let exit = Exit::CannotStart("this machine can't".into());
                let exited = runner::Input::Instance(engine::Output::Exited { exit });
                running.runner.handle(now, exited);
            }
            runner::Output::StartInstance { identity, origin } => {
                let (seq, values) = match &origin {
                    Origin::Fresh => (0, vec![0; usize::from(COUNTERS)]),
                    Origin::Restored { seq, image } => (*seq, counters_in(image)),
                };
                let quarantine = running.assignment.poisonous;
                let started = Effect::Started { service, epoch, seq, values, quarantine };
                self.effects.push(started);
                let ports = running.assignment.spec.ports.len();
                let noise = self.rng.next();
                let mut instance = FakeInstance::start(&identity, ports, origin, noise);
                if let Some(bug) = self.bug {
                    bug.plant_in_instance(&mut instance);
                }
                running.instance = Some(instance);
                running.ready_at = now + self.rng.span(Span::micros(100), Span::millis(30));
            }
            runner::Output::ToInstance(input) => {
                if let engine::Input::Committed { seq } = &input {
                    let (seq, version) = (*seq, running.told.version);
                    self.effects.push(Effect::Released { service, epoch, seq, version });
                }
                if let Some(instance) = &mut running.instance {
                    instance.handle(now, input);
                }
            }
            runner::Output::Report(report) => {
                if let Report::Committed(status) = &report {
                    self.effects.push(Effect::Committed { service, epoch, id: status.id });
                }
                self.node.handle(now, node::Input::Runner { service, epoch, report });
            }
            runner::Output::Event(event) => self.effects.push(Effect::Saw(event)),
        }
    }
}

/// The counters that clients use, in a state of the fake program.
fn counters_in(image: &Image) -> Vec<u64> {
    let memory = image.read_all("memory.0").unwrap_or_default();
    let number = |eight: &[u8]| eight.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    memory.chunks_exact(8).take(usize::from(COUNTERS)).map(number).collect()
}

/// The service after this one.
fn after<T>(of: &BTreeMap<ServiceId, T>, service: ServiceId) -> Option<ServiceId> {
    of.range((Bound::Excluded(service), Bound::Unbounded)).next().map(|(next, _)| *next)
}
