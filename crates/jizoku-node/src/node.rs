//! The Node: the deciding half of a node, one state machine over all deciding cores.
//!
//! [`Node::handle`] applies one input, then restores the invariants below by comparing what is
//! with what should be (the *duties*), and emits the difference as effects. Effects that were
//! emitted are remembered, so that the same situation emits nothing new.
//!
//! What it does not know: how commands are replicated, how bytes travel, what a checkpoint holds.
//! The bytes of connections and states don't pass through it.
//!
//! Invariants, restored after each input
//! - A Runner runs here exactly for each service that the catalog says is active on this node in
//!   this incarnation, and in the catalog's epoch.
//! - The mesh knows the catalog's members and nobody else; the gateway knows each service's
//!   active node and epoch.
//! - A holder is removed from a set only once this node, as the active one, has the state.
//! - At most one proposal for each purpose is under way.
//! - A node that was paused or is starved takes nothing over, and opens no branch.
//!
//! Rooms: [`assign`] Runners; [`takeover`] who goes on; [`branches`] sides without a majority;
//! [`sets`] holder sets; [`quorum`] voters and the leader; [`requests`] what people asked for;
//! [`routes`] mesh and gateways; [`facts`] what nodes say of themselves; [`view`] the whole for
//! people.

mod assign;
mod branches;
mod facts;
mod quorum;
mod requests;
mod routes;
mod sets;
mod takeover;
#[cfg(test)]
mod tests;
mod view;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use jizoku_core::catalog::{Catalog, Change, Command, MemberSpec, Outcome, TicketHash};
use jizoku_core::{lease, reach, succession, watch};
use jizoku_types::event::LinkDownCause;
use jizoku_types::{
    BranchId, Epoch, Event, GatewayId, Incarnation, Instant, Member, NodeId, ServiceId, Span,
};

use crate::fault::{Fault, Planted};
use crate::runner::{Assignment, Holders, Report};
use crate::wire::ControlMessage;

pub use branches::{BRANCH_AFTER, BRANCH_STAGGER, BranchView, MEET_FOR};
pub use facts::{Load, NodeFacts, PhaseFact, ServiceFacts};
pub use requests::{Refusal, Request};
pub use routes::Route;
pub use view::{NodeView, ServiceView, View};

use assign::Local;
use requests::Purpose;

/// What a Node is made for.
#[derive(Clone, Debug)]
pub struct Config {
    /// What this node says of itself.
    pub myself: MemberSpec,
    /// Whether this agent start follows an earlier one, rather than `init` or `join`.
    pub restarted: bool,
    /// How long a lease is promised.
    pub lease: Span,
    /// Seed of this node's randomness.
    pub seed: u64,
}

/// What a Node is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// A catalog command was committed; `id` if this node proposed it.
    Applied {
        /// The proposal's number, as given in [`Output::Propose`].
        id: Option<u64>,
        /// The command as it stands in the log.
        command: Vec<u8>,
    },
    /// A proposal was not taken, or nobody knows.
    Refused {
        /// The proposal's number.
        id: u64,
        /// Whether it may still take place.
        unknown: bool,
    },
    /// The catalog jumps to this snapshot.
    SnapshotRead {
        /// As [`Output::Snapshot`] gave it out.
        bytes: Vec<u8>,
    },
    /// The log wants a snapshot of the catalog as of what was applied.
    TakeSnapshot {
        /// Up to which entry.
        index: u64,
    },
    /// The catalog has this leader.
    LeaderIs {
        /// Who; none if nobody is known.
        leader: Option<NodeId>,
    },
    /// These nodes vote, and these follow.
    VotersAre {
        /// The number of the log's entry that says so.
        number: u64,
        /// Who votes.
        voters: BTreeSet<NodeId>,
        /// Who follows without a vote.
        learners: BTreeSet<NodeId>,
    },
    /// What this node's log says of its members, committed or not, is another.
    MembersLogged {
        /// The number of the newest entry that names voters, as in [`Input::VotersAre`].
        voters: u64,
        /// Whether a change of voters is under way.
        changing: bool,
    },
    /// A direct link is up.
    LinkUp {
        /// To whom.
        peer: NodeId,
        /// In which of its incarnations.
        incarnation: Incarnation,
        /// Its round trip.
        rtt: Span,
    },
    /// A direct link is down.
    LinkDown {
        /// To whom.
        peer: NodeId,
        /// Why.
        cause: LinkDownCause,
    },
    /// A message of another Node.
    Control {
        /// Who.
        from: NodeId,
        /// What.
        message: ControlMessage,
    },
    /// A Runner says.
    Runner {
        /// Of which service.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
        /// What.
        report: Report,
    },
    /// What this machine has to spare.
    Load(Load),
    /// The modules that are compiled here, all of them; until this is said, all count as compiled.
    Compiled(BTreeSet<[u8; 32]>),
    /// A check that was asked for by [`Output::Probe`] ended.
    Probed {
        /// Of which service.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
        /// Which check.
        check: u8,
        /// What was wrong; none: it passed.
        failure: Option<String>,
    },
    /// What the gateway saw in real traffic since the last time.
    Traffic {
        /// Of which service.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
        /// Answers that came.
        answers: u32,
        /// Refused or reset connections.
        errors: u32,
        /// Requests without an answer in time.
        timeouts: u32,
    },
    /// Someone asks for something.
    Request {
        /// The asker's number for it.
        id: u64,
        /// What.
        request: Request,
    },
    /// Whether this node's own timers run late: it was paused, or is starved.
    Late(bool),
    /// Time has passed.
    Tick,
}

/// What a Node wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Replicate this command.
    Propose {
        /// This node's number for it.
        id: u64,
        /// The command.
        command: Vec<u8>,
    },
    /// Let these nodes vote and these follow. Only the leader says so.
    ChangeVoters {
        /// Who votes.
        voters: BTreeSet<NodeId>,
        /// Who follows.
        learners: BTreeSet<NodeId>,
    },
    /// Give the lead to this node.
    TransferLeader {
        /// To whom.
        to: NodeId,
    },
    /// This node is certainly not answering: don't wait for it to lead.
    PeerDown {
        /// Who.
        node: NodeId,
    },
    /// The catalog as of `index`.
    Snapshot {
        /// Up to which entry.
        index: u64,
        /// To be given back in [`Input::SnapshotRead`].
        bytes: Vec<u8>,
    },
    /// A message to another Node.
    Control {
        /// Who.
        to: NodeId,
        /// What.
        message: ControlMessage,
    },
    /// Keep links to these nodes, accept only them.
    Peers(BTreeMap<NodeId, Vec<String>>),
    /// Relay by these ways: destination, next hop.
    Routes(BTreeMap<NodeId, NodeId>),
    /// Run this service here.
    Activate(Box<Assignment>),
    /// For the Runner of this service.
    Runner {
        /// Of which service.
        service: ServiceId,
        /// In which epoch; if the Runner is in another, it is not meant.
        epoch: Epoch,
        /// What.
        order: Order,
    },
    /// Where connections to this service go.
    Route {
        /// Of which service.
        service: ServiceId,
        /// Where; none: the service is gone.
        route: Option<Route>,
    },
    /// A gateway will not come back.
    GatewayGone(GatewayId),
    /// A way to this node is there again: send again what may have been lost.
    LinkBack(NodeId),
    /// The Holder may forget this service: it was removed.
    ForgetState(ServiceId),
    /// The Holder may forget this branch of a service: its state is no longer wanted.
    ForgetBranch {
        /// Of which service.
        service: ServiceId,
        /// Which.
        branch: BranchId,
    },
    /// Run this check.
    Probe {
        /// Of which service.
        service: ServiceId,
        /// In which epoch.
        epoch: Epoch,
        /// Index into the spec's checks.
        check: u8,
    },
    /// The answer to a request.
    Answer {
        /// The asker's number.
        id: u64,
        /// What came of it.
        result: Result<Outcome, Refusal>,
    },
    /// Something happened.
    Event(Event),
}

/// What a Node orders a Runner to do. Bytes don't pass here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// The catalog has this holder set now.
    Holders(Holders),
    /// These nodes shall become holders.
    Recruit(BTreeSet<Member>),
    /// Output may leave until then.
    LeaseUntil(Instant),
    /// Go on from whatever there is.
    AcceptLoss,
    /// Whether the holders went down with the whole cluster, if this node has thought otherwise.
    ClusterRestarted(bool),
    /// Make a last checkpoint and end: the service moves or stops.
    Quiesce,
    /// End at once.
    Stop,
}

/// How often duties are looked at although nothing happened.
const DUTY_EVERY: Span = Span::millis(250);
/// A Node that is called so much later than it asked for was paused, or is starved.
const PAUSED: Span = Span::millis(250);
/// For so long after that it judges nobody: what was sent meanwhile has yet to be taken.
const JUDGE_AFTER: Span = Span::secs(1);
/// After how long without any way to it a gateway's connections are given up.
const GATEWAY_GONE_AFTER: Span = Span::secs(30);

/// See the module's header.
#[derive(Debug)]
pub struct Node {
    config: Config,
    now: Instant,
    catalog: Catalog,
    /// Grows when the catalog changes: duties that depend on nothing else wait for that.
    catalog_version: u64,
    leader: Option<NodeId>,
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    reach: reach::Reach,
    owner: lease::Owner,
    voter: lease::Voter,
    attempts: succession::Attempts,
    branches: branches::Branches,
    watch: watch::Watch,
    local: BTreeMap<ServiceId, Local>,
    crashes: BTreeMap<ServiceId, assign::Crashes>,
    /// When the watch's verdict on a service last changed.
    judged_at: BTreeMap<ServiceId, Instant>,
    purposes: BTreeMap<u64, Purpose>,
    next_proposal: u64,
    facts: facts::Own,
    quorum: quorum::Care,
    emitted: routes::Emitted,
    tickets: BTreeMap<TicketHash, Instant>,
    unreachable_since: BTreeMap<NodeId, Instant>,
    /// Something changed that duties depend on.
    dirty: bool,
    duty_at: Instant,
    /// When time is to be given next: it is asked for far more often than it changes.
    due: Instant,
    /// This node's own timers run late, as whoever owns them says.
    late: bool,
    /// Before that it judges nobody: it was paused itself.
    judges_at: Instant,
    planted: Planted,
    outputs: VecDeque<Output>,
}

impl Node {
    /// A node that has just started, with an empty catalog: the log brings it.
    pub fn new(now: Instant, config: Config) -> Node {
        let me = member(&config);
        let mut node = Node {
            now,
            catalog: Catalog::new(),
            catalog_version: 1,
            leader: None,
            voters: BTreeSet::new(),
            learners: BTreeSet::new(),
            reach: reach::Reach::new(me),
            owner: lease::Owner::new(me, config.lease),
            voter: lease::Voter::new(now),
            attempts: succession::Attempts::new(),
            branches: branches::Branches::default(),
            watch: watch::Watch::new(me.node),
            local: BTreeMap::new(),
            crashes: BTreeMap::new(),
            judged_at: BTreeMap::new(),
            purposes: BTreeMap::new(),
            next_proposal: 1,
            facts: facts::Own::new(now, config.restarted),
            quorum: quorum::Care::default(),
            emitted: routes::Emitted::default(),
            tickets: BTreeMap::new(),
            unreachable_since: BTreeMap::new(),
            dirty: true,
            duty_at: now + DUTY_EVERY,
            due: now,
            late: false,
            judges_at: now,
            planted: Planted::default(),
            outputs: VecDeque::new(),
            config,
        };
        node.due = node.next_due();
        node
    }

    /// Plants a mistake. Right after making it.
    #[cfg(feature = "faults")]
    pub fn plant(&mut self, fault: Fault) {
        self.planted.plant(fault);
        self.plant_in_catalog();
        match fault {
            Fault::Lease(fault) => {
                self.owner.plant(fault);
                self.voter.plant(fault);
            }
            Fault::Reach(fault) => self.reach.plant(fault),
            _ => {}
        }
    }

    fn plant_in_catalog(&mut self) {
        #[cfg(feature = "faults")]
        if let Some(Fault::Catalog(fault)) = self.planted.get() {
            self.catalog.plant(fault);
        }
    }

    /// Applies one input; then drain [`Node::poll`].
    ///
    /// # Panics
    /// If `now` is before the last one: the caller's clock must not run backwards.
    pub fn handle(&mut self, now: Instant, input: Input) {
        assert!(now >= self.now, "time runs backwards");
        self.now = now;
        if now > self.duty_at + PAUSED {
            self.judges_at = now + JUDGE_AFTER;
        }
        match input {
            Input::Applied { .. } if self.planted.has(Fault::LateSkips) && !self.may_judge() => {}
            Input::Applied { id, command } => self.applied(id, &command),
            Input::Refused { id, unknown } => self.refused(id, unknown),
            Input::SnapshotRead { bytes } => self.snapshot_read(&bytes),
            Input::TakeSnapshot { index } => {
                self.outputs.push_back(Output::Snapshot { index, bytes: self.catalog.encode() });
            }
            Input::LeaderIs { leader } => self.leader_is(leader),
            Input::VotersAre { number, voters, learners } => {
                self.voters_are(lease::Electorate { number, voters }, learners);
            }
            Input::MembersLogged { voters, changing } => self.members_logged(voters, changing),
            Input::LinkUp { peer, incarnation, rtt } => {
                let up = reach::Input::LinkUp { peer, incarnation, cost: rtt };
                self.reach.handle(now, up);
                self.event(Event::LinkUp { peer });
                self.outputs.push_back(Output::LinkBack(peer));
            }
            Input::LinkDown { peer, cause } => {
                self.reach.handle(now, reach::Input::LinkDown { peer });
                self.event(Event::LinkDown { peer, cause });
            }
            Input::Control { from, message } => self.control(from, message),
            Input::Runner { service, epoch, report } => self.reported(service, epoch, report),
            Input::Load(load) => self.facts.set_load(load),
            Input::Compiled(modules) => {
                self.facts.compiled = Some(modules);
                self.dirty = true;
            }
            Input::Probed { service, epoch, check, failure } => {
                let result = failure.map_or(Ok(()), Err);
                self.watch.handle(now, watch::Input::Probed { service, epoch, check, result });
            }
            Input::Traffic { service, epoch, answers, errors, timeouts } => {
                let seen = watch::Input::Traffic { service, epoch, answers, errors, timeouts };
                self.watch.handle(now, seen);
            }
            Input::Request { id, request } => self.requested(id, request),
            Input::Late(late) => {
                self.late = late;
                self.dirty = true;
                self.watch.handle(now, watch::Input::SelfLate(late));
            }
            Input::Tick => {}
        }
        self.settle();
        self.due = self.next_due();
    }

    /// The next effect.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call with [`Input::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        Some(self.due)
    }

    fn next_due(&self) -> Instant {
        let cores = [
            self.reach.deadline(),
            self.owner.deadline(),
            self.voter.deadline(),
            self.attempts.deadline(),
            self.watch.deadline(),
        ];
        cores.into_iter().flatten().fold(self.duty_at, Instant::min)
    }

    /// Whether this node may call another one dead: it is not itself late.
    fn may_judge(&self) -> bool {
        !self.late && self.now >= self.judges_at
    }

    /// This node in this incarnation.
    pub fn me(&self) -> Member {
        member(&self.config)
    }

    /// The catalog as this node knows it.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Who leads the catalog, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Gives time to the cores, takes what they say, and looks at the duties, until nothing
    /// follows any more.
    fn settle(&mut self) {
        self.tick();
        self.drain();
        if self.now >= self.duty_at {
            self.duty_at = self.now + DUTY_EVERY;
            self.dirty = true;
        }
        // Duties feed the cores, and these may find something that duties depend on.
        const ROUNDS_MAX: usize = 8;
        for _ in 0..ROUNDS_MAX {
            if !core::mem::take(&mut self.dirty) {
                return;
            }
            self.duties();
            self.drain();
        }
    }

    fn tick(&mut self) {
        let now = self.now;
        let due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if due(self.reach.deadline()) {
            self.reach.handle(now, reach::Input::Tick);
        }
        if due(self.owner.deadline()) {
            self.owner.handle(now, lease::OwnerInput::Tick);
        }
        if due(self.attempts.deadline()) {
            self.attempts.handle(now, succession::Input::Tick);
        }
        if due(self.watch.deadline()) {
            self.watch.handle(now, watch::Input::Tick);
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.reach.poll() {
            self.reach_says(output);
        }
        while let Some(output) = self.owner.poll() {
            self.owner_says(output);
        }
        while let Some(lease::VoterOutput::Send { to, message }) = self.voter.poll() {
            self.lease_send(to, message);
        }
        while let Some(succession::Output::Propose { service, expect }) = self.attempts.poll() {
            self.attempt(service, expect);
        }
        while let Some(output) = self.watch.poll() {
            self.watch_says(output);
        }
        // A node's lease messages to itself may have been answered.
        while let Some(output) = self.owner.poll() {
            self.owner_says(output);
        }
    }

    fn duties(&mut self) {
        self.branch_duties();
        self.route_duties();
        self.assign_duties();
        self.set_duties();
        self.takeover_duties();
        self.quorum_duties();
        self.fact_duties();
    }

    fn applied(&mut self, id: Option<u64>, command: &[u8]) {
        let outcome = match Command::decode(command) {
            Ok(command) => self.catalog.apply(&command),
            Err(error) => {
                // Every node reads the same log: all skip it alike.
                let what = alloc::format!("a catalog command can't be read: {error}");
                self.event(Event::Trouble { what });
                return self.answered(id, None);
            }
        };
        for change in outcome.changes() {
            self.changed(change);
        }
        self.catalog_version += 1;
        self.dirty = true;
        self.answered(id, Some(outcome));
    }

    fn changed(&mut self, change: &Change) {
        match change {
            Change::MemberAdded { node } => self.event(Event::MemberAdded { node: *node }),
            Change::MemberRemoved { node, .. } => {
                self.event(Event::MemberRemoved { node: *node });
            }
            Change::TicketIssued { ticket, ttl } => {
                self.tickets.insert(*ticket, self.now + *ttl);
            }
            Change::TicketExpired { ticket } => {
                self.tickets.remove(ticket);
            }
            Change::ServiceAdded { service } => {
                if let Some(record) = self.catalog.service(*service) {
                    let name = record.spec.name.clone();
                    self.event(Event::ServiceApplied { service: *service, name });
                }
            }
            Change::ServiceUpdated { service, restart } => self.updated(*service, *restart),
            Change::ServiceRemoved { service, .. } => {
                self.voter.handle(self.now, lease::VoterInput::Gone { service: *service });
                self.watch.handle(self.now, watch::Input::Gone { service: *service });
                self.crashes.remove(service);
                self.judged_at.remove(service);
                self.outputs.push_back(Output::ForgetState(*service));
                self.event(Event::ServiceRemoved { service: *service });
            }
            Change::ActiveChanged { service, epoch, to, .. } => {
                let known = lease::VoterInput::Known { service: *service, epoch: *epoch };
                self.voter.handle(self.now, known);
                if let Some(to) = to {
                    let (service, epoch, node) = (*service, *epoch, to.node);
                    self.event(Event::ActiveChanged { service, epoch, node });
                }
            }
            Change::HoldersChanged { service, .. } => {
                let count = self.catalog.service(*service).map_or(0, |rec| rec.holders.len());
                let holders = u8::try_from(count).unwrap_or(u8::MAX);
                self.event(Event::HoldersChanged { service: *service, holders });
            }
            Change::LossAccepted { service, epoch } => {
                self.order(*service, *epoch, Order::AcceptLoss);
            }
            other => self.branch_changed(other),
        }
    }

    fn snapshot_read(&mut self, bytes: &[u8]) {
        match Catalog::decode(bytes) {
            Ok(catalog) if self.catalog.may_become(&catalog) => {
                self.catalog = catalog;
                self.plant_in_catalog();
                self.catalog_version += 1;
                for (service, record) in self.catalog.services() {
                    let known = lease::VoterInput::Known { service: *service, epoch: record.epoch };
                    self.voter.handle(self.now, known);
                }
                for (ticket, record) in self.catalog.tickets() {
                    self.tickets.entry(*ticket).or_insert(self.now + record.ttl);
                }
                self.dirty = true;
            }
            Ok(_) => {
                let what = String::from("a snapshot of another cluster was refused");
                self.event(Event::Trouble { what });
            }
            Err(error) => {
                let what = alloc::format!("a catalog snapshot can't be read: {error}");
                self.event(Event::Trouble { what });
            }
        }
    }

    fn control(&mut self, from: NodeId, message: ControlMessage) {
        if self.catalog.cluster().is_some() && self.catalog.member(&from).is_none() {
            return;
        }
        let now = self.now;
        match message {
            ControlMessage::Reach(message) => {
                self.reach.handle(now, reach::Input::Message { from, message });
            }
            ControlMessage::Lease(message) => self.lease_heard(from, message),
            ControlMessage::Watch(message) => {
                self.watch.handle(now, watch::Input::Message { from, message });
            }
            ControlMessage::Move { service, epoch, to } => self.move_here(service, epoch, to),
            ControlMessage::Branch(notice) => self.branch_heard(from, notice),
        }
    }

    fn lease_heard(&mut self, from: NodeId, message: lease::Message) {
        match message {
            lease::Message::Answer { .. } => {
                self.owner.handle(self.now, lease::OwnerInput::Message { from, message });
            }
            lease::Message::Ask { .. } | lease::Message::Release { .. } => {
                self.voter.handle(self.now, lease::VoterInput::Message { from, message });
            }
        }
    }

    fn lease_send(&mut self, to: NodeId, message: lease::Message) {
        if to == self.me().node {
            self.lease_heard(to, message);
        } else {
            let message = ControlMessage::Lease(message);
            self.outputs.push_back(Output::Control { to, message });
        }
    }

    fn owner_says(&mut self, output: lease::OwnerOutput) {
        match output {
            lease::OwnerOutput::Send { to, message } => self.lease_send(to, message),
            lease::OwnerOutput::Until { service, epoch, until } => {
                self.order(service, epoch, Order::LeaseUntil(until));
            }
            // The Runner knows its own deadline; the catalog tells who replaced this node.
            lease::OwnerOutput::Lapsed { .. } | lease::OwnerOutput::Superseded { .. } => {}
        }
    }

    fn watch_says(&mut self, output: watch::Output) {
        match output {
            watch::Output::Probe { service, epoch, check } => {
                self.outputs.push_back(Output::Probe { service, epoch, check });
            }
            watch::Output::Send { to, message } => {
                let message = ControlMessage::Watch(message);
                self.outputs.push_back(Output::Control { to, message });
            }
            watch::Output::VerdictChanged { service, epoch, verdict } => {
                self.judged(service, epoch, &verdict);
            }
        }
    }

    fn reach_says(&mut self, output: reach::Output) {
        match output {
            reach::Output::Send { to, message } => {
                let message = ControlMessage::Reach(message);
                self.outputs.push_back(Output::Control { to, message });
            }
            reach::Output::RoutesAre(routes) => self.outputs.push_back(Output::Routes(routes)),
            reach::Output::Reachable { node } => {
                self.unreachable_since.remove(&node.node);
                self.facts.meets(node);
                self.branches.met(self.now);
                self.event(Event::NodeReachable { node: node.node });
                self.outputs.push_back(Output::LinkBack(node.node));
            }
            reach::Output::Unreachable { node } => {
                self.unreachable_since.insert(node, self.now);
                self.event(Event::NodeUnreachable { node });
                self.outputs.push_back(Output::PeerDown { node });
            }
            reach::Output::Restarted { node } => {
                self.facts.meets(node);
                self.branches.met(self.now);
                self.outputs.push_back(Output::LinkBack(node.node));
            }
            reach::Output::FactsOf { origin, bytes } => self.facts.learned(origin, &bytes),
        }
        self.dirty = true;
    }

    fn order(&mut self, service: ServiceId, epoch: Epoch, order: Order) {
        self.outputs.push_back(Output::Runner { service, epoch, order });
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}

fn member(config: &Config) -> Member {
    Member { node: config.myself.node, incarnation: config.myself.incarnation }
}
