//! The core thread: owns the Node and its Consensus, and gives each the other's outputs.
//!
//! A thread of its own, so that no busy socket or service delays a decision. Everything comes in
//! through one mailbox, in order.
//!
//! Invariants
//! - After each input both values are drained until neither says anything.
//! - A request is answered once, or its asker learns that the agent has ended.
//! - What consensus persists is answered only when the log's writer says that it is flushed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jizoku_consensus::{self as consensus, Consensus, PersistToken, Recovered, StopReason};
use jizoku_core::catalog::Outcome;
use jizoku_node::node::{self, Node, Order, Refusal, Request, View};
use jizoku_node::runner::{self, Report};
use jizoku_node::wire::ControlMessage;
use jizoku_store::{ConsensusLog, LogDone};
use jizoku_types::{Channel, Epoch, Event, Instant, Member, NodeId, ServiceId, decode};
use tokio::sync::oneshot;

use super::holding::HolderMessage;
use super::mailbox::{Got, Mailbox};
use super::peers::{Addresses, Peers};
use super::probe::{self, Probe};
use super::running::{RunnerMessage, Starter};
use super::wiring::Wiring;

/// Inputs that are taken before the values are drained.
const BATCH_MAX: usize = 32;
/// A journal longer than this, and than [`GROWTH`] times what it needs, is written anew.
const JOURNAL_MIN: u64 = 8 << 20;
const GROWTH: u64 = 4;
/// The token of writes whose end nobody waits for. Consensus counts from 0 up.
const NOBODY: u64 = u64::MAX;

/// What comes to the core thread.
pub(crate) enum CoreMessage {
    /// A frame of consensus.
    Consensus { from: NodeId, bytes: Vec<u8> },
    /// A Node's message.
    Control { from: NodeId, message: ControlMessage },
    /// Something for the Node.
    Node(node::Input),
    /// A write of the consensus log has ended.
    Logged(LogDone),
    /// Somebody asks for something.
    Request(Request, oneshot::Sender<Result<Outcome, Refusal>>),
    /// Somebody wants to see the whole.
    View(oneshot::Sender<View>),
    /// End.
    Stop,
}

/// See the module's header.
pub(crate) struct Core {
    node: Node,
    consensus: Consensus,
    log: ConsensusLog,
    /// What the log's journal says, to write it anew.
    written: Recovered,
    wiring: Arc<Wiring>,
    starter: Starter,
    probes: Probe,
    peers: Peers,
    replies: BTreeMap<u64, oneshot::Sender<Result<Outcome, Refusal>>>,
    next_request: u64,
    /// Numbers of changes of voters, apart from those of the Node's proposals.
    next_change: u64,
    specs: Specs,
    /// Nodes that no way leads to: a Runner that begins must not wait for them.
    down: BTreeSet<NodeId>,
    stopped: Option<StopReason>,
}

/// What must be known of services to probe them.
type Specs = BTreeMap<ServiceId, jizoku_types::spec::ServiceSpec>;

/// Numbers of the changes of voters count down from here, those of proposals up from 1.
const CHANGES_FROM: u64 = u64::MAX;

impl Core {
    pub(crate) fn new(
        node: Node,
        consensus: Consensus,
        (log, written): (ConsensusLog, Recovered),
        wiring: Arc<Wiring>,
        starter: Starter,
        probes: Probe,
        peers: Peers,
    ) -> Core {
        Core {
            node,
            consensus,
            log,
            written,
            wiring,
            starter,
            probes,
            peers,
            replies: BTreeMap::new(),
            next_request: 1,
            next_change: CHANGES_FROM,
            specs: Specs::new(),
            down: BTreeSet::new(),
            stopped: None,
        }
    }

    /// Runs until told to stop. An error is the reason why consensus can't go on.
    pub(crate) fn run(mut self, mailbox: &Mailbox<CoreMessage>) -> Result<(), String> {
        self.node.handle(self.now(), node::Input::Compiled(BTreeSet::new()));
        self.drain();
        loop {
            match mailbox.wait(self.patience()) {
                Got::One(CoreMessage::Stop) | Got::Closed => return Ok(()),
                Got::One(message) => self.take(message),
                Got::Nothing => {}
            }
            for _ in 0..BATCH_MAX {
                match mailbox.take() {
                    Got::One(CoreMessage::Stop) => return Ok(()),
                    Got::One(message) => self.take(message),
                    Got::Nothing | Got::Closed => break,
                }
            }
            self.tick();
            self.drain();
            if let Some(reason) = self.stopped {
                return Err(match reason {
                    StopReason::Disk => {
                        "the consensus log can't be written; mend the disk and start again".into()
                    }
                });
            }
        }
    }

    fn now(&self) -> Instant {
        self.wiring.now()
    }

    fn patience(&self) -> Duration {
        let deadlines = [self.node.deadline(), self.consensus.deadline()];
        let next = deadlines.into_iter().flatten().min();
        let wait = next.map_or(1_000_000_000, |at| at.since(self.now()).as_nanos());
        Duration::from_nanos(wait)
    }

    fn tick(&mut self) {
        let now = self.now();
        if self.node.deadline().is_some_and(|at| at <= now) {
            self.node.handle(now, node::Input::Tick);
        }
        if self.consensus.deadline().is_some_and(|at| at <= now) {
            self.consensus.handle(now, consensus::Input::Tick);
        }
    }

    fn take(&mut self, message: CoreMessage) {
        let now = self.now();
        match message {
            CoreMessage::Consensus { from, bytes } => {
                self.consensus.handle(now, consensus::Input::Message { from, bytes });
            }
            CoreMessage::Control { from, message } => {
                self.node.handle(now, node::Input::Control { from, message });
            }
            CoreMessage::Node(input) => self.node.handle(now, input),
            CoreMessage::Logged(done) => self.logged(&done),
            CoreMessage::Request(request, reply) => {
                let id = self.next_request;
                self.next_request += 1;
                self.replies.insert(id, reply);
                self.node.handle(now, node::Input::Request { id, request });
            }
            CoreMessage::View(reply) => {
                // The asker may have gone away.
                let _ = reply.send(self.node.view());
            }
            CoreMessage::Stop => unreachable!("taken by run()"),
        }
    }

    fn logged(&mut self, done: &LogDone) {
        if done.token == NOBODY {
            return;
        }
        let token = PersistToken(done.token);
        let input = match &done.result {
            Ok(length) => {
                self.compact(length.0);
                consensus::Input::Persisted { token }
            }
            Err(error) => {
                self.wiring.event(Event::Trouble { what: error.to_string() });
                consensus::Input::PersistFailed { token }
            }
        };
        self.consensus.handle(self.now(), input);
    }

    fn compact(&mut self, length: u64) {
        if length < JOURNAL_MIN {
            return;
        }
        let records: Vec<Vec<u8>> =
            self.written.records().iter().map(consensus::Record::encode).collect();
        let needed: u64 = records.iter().map(|record| record.len() as u64).sum();
        if length > needed * GROWTH {
            // If it is refused the old journal goes on.
            let _ = self.log.rewrite(NOBODY, records);
        }
    }

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
            if idle {
                break;
            }
        }
        if let Some(peers) = self.peers.caught_up(self.node.catalog()) {
            self.tell_mesh(&peers);
        }
    }

    fn consensus_says(&mut self, output: consensus::Output) {
        let now = self.now();
        match output {
            consensus::Output::Send { to, bytes } => {
                // No way there now: consensus asks again.
                let _ = self.wiring.mesh.send(to, Channel::Consensus, bytes);
            }
            consensus::Output::Persist { token, records } => self.persist(token, records),
            consensus::Output::Applied { index: _, id, command } => {
                self.node.handle(now, node::Input::Applied { id, command });
                self.learn_specs();
            }
            consensus::Output::InstallSnapshot { index: _, bytes } => {
                self.node.handle(now, node::Input::SnapshotRead { bytes });
                self.learn_specs();
            }
            consensus::Output::TakeSnapshot { index } => {
                self.node.handle(now, node::Input::TakeSnapshot { index });
            }
            consensus::Output::Refused { id, leader: _, reason } => {
                if id < self.next_change {
                    let unknown = reason == consensus::RefuseReason::Unknown;
                    self.node.handle(now, node::Input::Refused { id, unknown });
                }
            }
            consensus::Output::LeaderIs { leader, term: _ } => {
                self.node.handle(now, node::Input::LeaderIs { leader });
            }
            consensus::Output::VotersAre { number, voters, learners } => {
                self.node.handle(now, node::Input::VotersAre { number, voters, learners });
            }
            consensus::Output::MembersLogged { voters, changing } => {
                self.node.handle(now, node::Input::MembersLogged { voters, changing });
            }
            consensus::Output::VotersChanged { id: _ } => {}
            consensus::Output::Stopped { reason } => self.stopped = Some(reason),
        }
    }

    fn persist(&mut self, token: PersistToken, records: Vec<consensus::Record>) {
        let encoded = records.iter().map(consensus::Record::encode).collect();
        let mirrored = records.into_iter().try_for_each(|record| self.written.replay(record));
        let taken = self.log.append(token.0, encoded).map_err(|error| error.to_string());
        if let Err(what) = mirrored.map_err(|error| error.to_string()).and(taken) {
            self.wiring.event(Event::Trouble { what });
            self.consensus.handle(self.now(), consensus::Input::PersistFailed { token });
        }
    }

    fn learn_specs(&mut self) {
        let services = self.node.catalog().services();
        self.specs = services.iter().map(|(id, record)| (*id, record.spec.clone())).collect();
        let core = self.wiring.core.clone();
        let told = move |modules| core.send(CoreMessage::Node(node::Input::Compiled(modules)));
        self.starter.engines().make_ready(&self.node.catalog().modules(), told);
    }

    fn node_says(&mut self, output: node::Output) {
        let now = self.now();
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
                for runner in self.wiring.runners() {
                    runner.send(RunnerMessage::Runner(runner::Input::Unreachable(node)));
                }
                self.consensus.handle(now, consensus::Input::PeerDown { node });
            }
            node::Output::Snapshot { index, bytes } => {
                self.consensus.handle(now, consensus::Input::SnapshotTaken { index, bytes });
            }
            node::Output::Control { to, message } => self.wiring.send_control(to, &message),
            node::Output::Peers(peers) => {
                let peers = self.peers.told(peers, self.node.catalog());
                self.tell_mesh(&peers);
            }
            node::Output::Routes(routes) => self.wiring.mesh.set_routes(routes),
            node::Output::Activate(assignment) => self.activate(*assignment),
            node::Output::Runner { service, epoch, order } => self.order(service, epoch, order),
            node::Output::Route { service, route } => self.route(service, route),
            node::Output::GatewayGone(gateway) => {
                for runner in self.wiring.runners() {
                    runner.send(RunnerMessage::Runner(runner::Input::GatewayGone { gateway }));
                }
            }
            node::Output::LinkBack(node) => {
                self.down.remove(&node);
                for runner in self.wiring.runners() {
                    runner.send(RunnerMessage::Runner(runner::Input::LinkBack(node)));
                }
                if let Some(gateway) = self.wiring.gateway() {
                    gateway.link_back(node);
                }
            }
            node::Output::ForgetState(service) => {
                self.wiring.holder.send(HolderMessage::Forget(service));
            }
            node::Output::ForgetBranch { service, branch } => {
                self.wiring.holder.send(HolderMessage::ForgetBranch(service, branch));
            }
            node::Output::Probe { service, epoch, check } => self.probe(service, epoch, check),
            node::Output::Answer { id, result } => {
                if let Some(reply) = self.replies.remove(&id) {
                    // The asker may have gone away.
                    let _ = reply.send(result);
                }
            }
            node::Output::Event(event) => self.wiring.event(event),
        }
    }

    fn activate(&self, assignment: runner::Assignment) {
        let service = assignment.service;
        self.starter.activate(assignment);
        if let Some(runner) = self.wiring.runner(service, None) {
            for node in &self.down {
                runner.send(RunnerMessage::Runner(runner::Input::Unreachable(*node)));
            }
        }
    }

    fn tell_mesh(&self, peers: &Addresses) {
        let me = self.wiring.me.node;
        let members: BTreeSet<NodeId> = peers.keys().copied().chain([me]).collect();
        self.wiring.mesh.set_members(members);
        let addresses = |texts: &Vec<String>| -> Vec<SocketAddr> {
            texts.iter().filter_map(|text| text.parse().ok()).collect()
        };
        let peers = peers.iter().map(|(node, texts)| (*node, addresses(texts))).collect();
        self.wiring.mesh.set_peers(peers);
    }

    fn order(&self, service: ServiceId, epoch: Epoch, order: Order) {
        let Some(sender) = self.wiring.runner(service, Some(epoch)) else { return };
        let input = match order {
            Order::Holders(holders) => runner::Input::Holders(holders),
            Order::Recruit(recruits) => runner::Input::Recruit(recruits),
            Order::LeaseUntil(until) => runner::Input::LeaseUntil(until),
            Order::AcceptLoss => runner::Input::AcceptLoss,
            Order::ClusterRestarted(restarted) => runner::Input::ClusterRestarted(restarted),
            Order::Quiesce => runner::Input::Quiesce,
            Order::Stop => runner::Input::Stop,
        };
        sender.send(RunnerMessage::Runner(input));
    }

    fn route(&self, service: ServiceId, route: Option<node::Route>) {
        let Some(gateway) = self.wiring.gateway() else { return };
        let route = route.map(|route| jizoku_gateway::Route {
            ports: route.ports.iter().map(|port| port.listen).collect(),
            held: route.held,
            active: route.active.map(|active: Member| (active.node, route.epoch)),
            wanted: route.wanted,
        });
        gateway.route(service, route);
    }

    fn probe(&self, service: ServiceId, epoch: Epoch, check: u8) {
        let Some(spec) = self.specs.get(&service) else { return };
        let Some(record) = self.node.catalog().service(service) else { return };
        if let Some(check_spec) = spec.checks.get(usize::from(check)) {
            let seen = probe::Seen {
                running: self.wiring.is_running(service, epoch),
                followed: self.wiring.follows(service, epoch),
                active: record.active.map(|active| active.node),
                stateful: spec.has_state(),
            };
            let program = (&spec.engine, &spec.ports[..]);
            self.probes.start((service, epoch, check), check_spec, program, seen);
        }
    }
}

/// What a Runner's report is on its way to the Node.
pub(crate) fn report(service: ServiceId, epoch: Epoch, report: Report) -> CoreMessage {
    CoreMessage::Node(node::Input::Runner { service, epoch, report })
}

/// A control frame, if it is one.
pub(crate) fn control(from: NodeId, bytes: &[u8]) -> Option<CoreMessage> {
    let message = decode(bytes).ok()?;
    Some(CoreMessage::Control { from, message })
}
