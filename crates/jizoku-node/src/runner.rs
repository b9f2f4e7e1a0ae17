//! The Runner: one service's life at its active node, within one epoch.
//!
//! It begins when the catalog gave this node the epoch. It seals the holders of the epoch
//! before, takes the highest checkpoint, restores the instance (or starts it fresh), makes the
//! holders adopt that checkpoint, and from then on captures, ships, commits and releases.
//!
//! What it does not know: the catalog, other services, who should be a holder and why. The
//! [`Node`](crate::Node) tells it the holder set and hears from it who caught up or failed.
//!
//! Invariants
//! - The instance hears `Committed` only for checkpoints that every member of the set, and of
//!   the joining ones, acknowledged under this epoch, with at least `min_copies` others.
//! - One capture or shipment is in flight at a time.
//! - After `Superseded`, `stop` or the instance's end, nothing leaves any more.
//! - `free` output leaves only while the lease runs.

#[cfg(test)]
mod tests;

use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use jizoku_checkpoint::chain::Point;
use jizoku_checkpoint::collect::{self, Collector};
use jizoku_checkpoint::image::{Diff, Image};
use jizoku_checkpoint::message::{Answer, FromHolder, Line, Terms, ToHolder};
use jizoku_checkpoint::ship::{self, HolderSet, Shipper};
use jizoku_engine as engine;
use jizoku_engine::{Exit, Identity, Origin};
use jizoku_streams::{ToGateway, ToInstance};
use jizoku_types::spec::{Durability, OutputMode, ServiceSpec};
use jizoku_types::{
    BranchId, ByteCount, Channel, CheckpointId, Epoch, Event, GatewayId, Instant, Member, NodeId,
    ServiceId, Span,
};

use crate::fault::{Fault, Planted};

/// Frames for gateways that wait for the lease at most; beyond that the oldest state is stale
/// anyway and the instance is stopped.
const LEASE_WAITING_MAX: usize = 65_536;
/// Messages of gateways that are kept until the instance runs; they repeat what is dropped.
const EARLY_MAX: usize = 4_096;

/// What a Runner is made for.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// The node, in this incarnation.
    pub me: Member,
    /// Which service.
    pub service: ServiceId,
    /// What its user asked for.
    pub spec: ServiceSpec,
    /// The epoch that this node won.
    pub epoch: Epoch,
    /// Whether any checkpoint of it was ever committed.
    pub born: bool,
    /// The holder set as the catalog has it.
    pub holders: Holders,
    /// All members, who may hold something: asked too when loss is accepted.
    pub everyone: BTreeSet<Member>,
    /// An operator said to go on from whatever there is.
    pub accept_loss: bool,
    /// All reachable nodes said that no leader was known when they started.
    pub cluster_restarted: bool,
    /// The instance crashed twice from this checkpoint: reset connections with newer input.
    pub poisonous: bool,
    /// The line goes on from what the holders have of this branch.
    pub fork: Option<BranchId>,
    /// What this node's own Holder has of [`Assignment::source`]: filled in by whoever owns that.
    pub local: Vec<Point>,
}

impl Assignment {
    /// The line that the state comes from.
    pub fn source(&self) -> Line {
        Line { service: self.service, branch: self.fork.unwrap_or(self.epoch.branch) }
    }

    /// Whether output waits for a lease. A branch has one opener, who alone is ever active in it:
    /// nobody has to be kept out.
    fn needs_lease(&self) -> bool {
        self.spec.needs_lease() && self.epoch.branch == BranchId::MAIN
    }
}

/// The holder set, with the catalog's version of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// Grows with each change.
    pub version: u64,
    /// Who must acknowledge.
    pub members: BTreeSet<Member>,
    /// What else is asked of checkpoints now; none: what the Runner's [`Assignment`] says.
    pub asked: Option<Asked>,
}

/// What a service's user may ask of its checkpoints while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// How long a change may wait for a checkpoint.
    pub interval: Span,
    /// On how many other nodes a checkpoint must be before `held` output leaves.
    pub min_copies: u8,
    /// When a holder acknowledges.
    pub durable: Durability,
}

impl Asked {
    /// As the spec has it.
    pub fn of(spec: &ServiceSpec) -> Asked {
        let ServiceSpec { interval, min_copies, durable, .. } = *spec;
        Asked { interval, min_copies, durable }
    }
}

/// What a Runner is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// A holder's message.
    FromHolder {
        /// Who.
        from: NodeId,
        /// What.
        message: FromHolder,
    },
    /// A gateway's message.
    FromGateway {
        /// Who.
        gateway: GatewayId,
        /// What.
        message: ToInstance,
    },
    /// A gateway that will not come back.
    GatewayGone {
        /// Who.
        gateway: GatewayId,
    },
    /// The instance says.
    Instance(engine::Output),
    /// The catalog has this holder set now, and asks this of it.
    Holders(Holders),
    /// These nodes shall become holders: bring them up to date.
    Recruit(BTreeSet<Member>),
    /// `free` output may leave until then.
    LeaseUntil(Instant),
    /// An operator said to go on from whatever there is.
    AcceptLoss,
    /// Whether the whole cluster was restarted: see [`Assignment::cluster_restarted`].
    ClusterRestarted(bool),
    /// A way to this node is there again: what may have been lost is sent again.
    LinkBack(NodeId),
    /// No way leads to this node: its state is not waited for.
    Unreachable(NodeId),
    /// Take a last checkpoint, end the instance, and say [`Report::Quiesced`]: the service moves.
    Quiesce,
    /// End: another epoch began, or the service is stopped.
    Stop,
    /// Time has passed.
    Tick,
}

/// What a Runner wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// A message to a holder.
    ToHolder {
        /// Who.
        to: NodeId,
        /// On which channel.
        channel: Channel,
        /// What.
        message: ToHolder,
    },
    /// A message to a gateway.
    ToGateway {
        /// Who.
        gateway: GatewayId,
        /// What.
        message: ToGateway,
    },
    /// Make an instance, and pass on what it says.
    StartInstance {
        /// Who it is.
        identity: Identity,
        /// What it begins from.
        origin: Origin,
    },
    /// To the instance.
    ToInstance(engine::Input),
    /// Something for the Node.
    Report(Report),
    /// Something that happened.
    Event(Event),
}

/// What a Runner tells its Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// It went on to this phase. The end is told by [`Report::Exited`], [`Report::Quiesced`] or
    /// [`Report::Superseded`] alone.
    Phase(Phase),
    /// This node has the newest checkpoint and acknowledges from now on: add it to the set.
    CaughtUp(Member),
    /// This holder can't go on: replace it.
    HolderFailed {
        /// Who.
        member: Member,
        /// Why, for people.
        why: String,
    },
    /// A newer epoch exists.
    Superseded(Epoch),
    /// The instance ended by itself.
    Exited {
        /// Why.
        exit: Exit,
        /// From which checkpoint this epoch began.
        restored: CheckpointId,
        /// How long it ran.
        ran: Span,
    },
    /// The move may go on: everything is committed and the instance has ended.
    Quiesced,
    /// A checkpoint was committed.
    Committed(CheckpointStatus),
    /// All holders have what this epoch goes on from: nothing was captured, shipped or stopped for
    /// it. For people; nothing follows from it.
    Adopted(CheckpointStatus),
    /// A line that the program wrote.
    Printed(String),
}

/// The last checkpoint, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointStatus {
    /// Its number.
    pub id: CheckpointId,
    /// When it was committed.
    pub at: Instant,
    /// The whole state's size.
    pub size: ByteCount,
    /// What was shipped to each holder.
    pub shipped: ByteCount,
    /// How long the program stood still.
    pub pause: Span,
}

/// Where a Runner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Sealing holders and collecting state.
    Collecting,
    /// No current holder answers.
    Unreachable,
    /// The instance is being started or restored.
    Starting,
    /// Serving.
    Serving,
    /// Last checkpoint before a move.
    Quiescing,
    /// Over.
    Ended,
}

/// See the module's header.
pub struct Runner {
    assignment: Assignment,
    now: Instant,
    phase: Phase,
    collector: Option<Collector>,
    shipper: Option<Shipper>,
    /// From which checkpoint this epoch began.
    restored: CheckpointId,
    holders: Holders,
    recruits: BTreeSet<Member>,
    lease_until: Instant,
    lease_waiting: VecDeque<(GatewayId, ToGateway)>,
    /// Messages of gateways that came before the instance ran.
    early: VecDeque<(GatewayId, ToInstance)>,
    /// What the instance shall begin from, until it is started.
    origin: Option<Origin>,
    running_since: Option<Instant>,
    flow: Flow,
    last: CheckpointStatus,
    planted: Planted,
    outputs: VecDeque<Output>,
}

/// Where the way from change to commit stands.
#[derive(Debug, Default)]
struct Flow {
    /// The number of the capture that was asked for and not answered.
    capturing: Option<u64>,
    /// The last capture's number.
    captured: u64,
    /// Everything up to here was told to the instance as committed.
    released: u64,
    /// The instance changed since the last capture; since when.
    changed_since: Option<Instant>,
    output_waits: bool,
    /// How long the program stood still for the capture in flight.
    pause: Span,
    /// A last capture before the end; done when it is committed.
    quiescing: bool,
    /// The number of that last capture, once it was asked for. What comes after it never was.
    last_capture: Option<u64>,
    /// The instance was told to stop.
    stopping: bool,
    /// The instance was told what it began from is committed.
    established: bool,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Assignment { service, epoch, .. } = &self.assignment;
        let awaited: Vec<Member> = self.shipper.iter().flat_map(Shipper::awaited).collect();
        let flow = &self.flow;
        write!(f, "Runner({service} {epoch} {:?} {flow:?}, waits for {awaited:?})", self.phase)
    }
}

impl Runner {
    /// Begins the epoch: seals and collects, or starts fresh.
    pub fn new(now: Instant, assignment: Assignment) -> Runner {
        let holders = assignment.holders.clone();
        let mut runner = Runner {
            assignment,
            now,
            phase: Phase::Collecting,
            collector: None,
            shipper: None,
            restored: CheckpointId::default(),
            holders,
            recruits: BTreeSet::new(),
            lease_until: Instant::ORIGIN,
            lease_waiting: VecDeque::new(),
            early: VecDeque::new(),
            origin: None,
            running_since: None,
            flow: Flow::default(),
            last: CheckpointStatus::default(),
            planted: Planted::default(),
            outputs: VecDeque::new(),
        };
        if runner.assignment.born && runner.assignment.spec.has_state() {
            runner.collect();
        } else {
            runner.start(None);
        }
        runner.settle();
        runner
    }

    /// Plants a mistake. Right after making it.
    #[cfg(feature = "faults")]
    pub fn plant(&mut self, fault: Fault) {
        self.planted.plant(fault);
        if let Fault::Checkpoint(fault) = fault {
            if let Some(collector) = &mut self.collector {
                collector.plant(fault);
            }
            if let Some(shipper) = &mut self.shipper {
                shipper.plant(fault);
            }
        }
    }

    fn plant_in_shipper(&mut self) {
        #[cfg(feature = "faults")]
        if let (Some(Fault::Checkpoint(fault)), Some(shipper)) =
            (self.planted.get(), &mut self.shipper)
        {
            shipper.plant(fault);
        }
    }
}

impl Runner {
    /// Applies one input; then drain [`Runner::poll`].
    ///
    /// # Panics
    /// If `now` is before the last one.
    pub fn handle(&mut self, now: Instant, input: Input) {
        assert!(now >= self.now, "time runs backwards");
        self.now = now;
        if self.phase == Phase::Ended {
            return;
        }
        match input {
            Input::FromHolder { from, message } => self.holder_says(from, message),
            Input::FromGateway { gateway, message } => self.gateway_says(gateway, message),
            Input::GatewayGone { gateway } => {
                if self.running_since.is_some() {
                    self.instruct(engine::Input::GatewayGone { gateway });
                } else {
                    self.early.retain(|(from, _)| *from != gateway);
                }
            }
            Input::Instance(output) => self.instance_says(output),
            Input::Holders(holders) => {
                if let Some(asked) = holders.asked {
                    self.asked(asked);
                }
                self.holders = holders;
                self.tell_shipper();
            }
            Input::Recruit(recruits) => {
                self.recruits = recruits;
                self.tell_shipper();
            }
            Input::LeaseUntil(until) => {
                self.lease_until = until;
                self.start_if_allowed();
                self.release_waiting();
            }
            Input::AcceptLoss => {
                if let Some(collector) = &mut self.collector {
                    collector.handle(now, collect::Input::AcceptLoss);
                }
            }
            Input::ClusterRestarted(restarted) => {
                let wait = restarted.then_some(self.assignment.spec.restart_wait);
                if let Some(collector) = &mut self.collector {
                    collector.handle(now, collect::Input::WholeClusterRestarted { wait });
                }
            }
            Input::LinkBack(node) => self.link_back(node),
            Input::Unreachable(node) => {
                if let Some(collector) = &mut self.collector {
                    collector.handle(now, collect::Input::Unreachable { node });
                }
            }
            Input::Quiesce => {
                self.flow.quiescing = true;
                if self.running_since.is_none() {
                    // Nothing ran yet under this epoch: nothing is to be kept.
                    self.quiesced();
                }
            }
            Input::Stop => self.end(),
            Input::Tick => self.tick(),
        }
        self.settle();
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What was captured and sent in this epoch so far.
    pub fn shipping(&self) -> ship::Stats {
        self.shipper.as_ref().map(Shipper::stats).unwrap_or_default()
    }

    /// When to call with [`Input::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        if self.phase == Phase::Ended {
            return None;
        }
        let interval = self
            .flow
            .changed_since
            .filter(|_| {
                let idle = self.flow.capturing.is_none() && !self.in_flight();
                idle || self.planted.has(Fault::DeadlineStuck)
            })
            .map(|since| since + self.assignment.spec.interval);
        let cores = [
            self.collector.as_ref().and_then(Collector::deadline),
            self.shipper.as_ref().and_then(Shipper::deadline),
            interval,
        ];
        cores.into_iter().flatten().min()
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Its service.
    pub fn service(&self) -> ServiceId {
        self.assignment.service
    }

    /// Its epoch.
    pub fn epoch(&self) -> Epoch {
        self.assignment.epoch
    }

    fn tick(&mut self) {
        let now = self.now;
        let due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if let Some(collector) = self.collector.as_mut().filter(|core| due(core.deadline())) {
            collector.handle(now, collect::Input::Tick);
        }
        if let Some(shipper) = self.shipper.as_mut().filter(|core| due(core.deadline())) {
            shipper.handle(now, ship::Input::Tick);
        }
    }

    /// Takes what the cores say and lets the flow go on, until nothing follows.
    fn settle(&mut self) {
        while let Some(output) = self.collector.as_mut().and_then(Collector::poll) {
            self.collector_says(output);
        }
        while let Some(output) = self.shipper.as_mut().and_then(Shipper::poll) {
            self.shipper_says(output);
        }
        self.go_on();
        while let Some(output) = self.shipper.as_mut().and_then(Shipper::poll) {
            self.shipper_says(output);
        }
    }
}

/// Taking over: seal, collect, restore.
impl Runner {
    fn terms(&self) -> Terms {
        let assignment = &self.assignment;
        Terms {
            service: assignment.service,
            epoch: assignment.epoch,
            durable: assignment.spec.durable,
        }
    }

    fn collect(&mut self) {
        let assignment = &self.assignment;
        let mut set = self.holders.members.clone();
        if assignment.accept_loss {
            let known: BTreeSet<NodeId> = set.iter().map(|member| member.node).collect();
            set.extend(assignment.everyone.iter().filter(|m| !known.contains(&m.node)));
        }
        let (terms, local) = (self.terms(), assignment.local.clone());
        let mut collector = match assignment.fork {
            Some(parent) => Collector::fork(self.now, terms, parent, set, local),
            None => Collector::new(self.now, terms, set, local),
        };
        if assignment.accept_loss {
            collector.handle(self.now, collect::Input::AcceptLoss);
        } else if assignment.cluster_restarted {
            let wait = Some(assignment.spec.restart_wait);
            collector.handle(self.now, collect::Input::WholeClusterRestarted { wait });
        }
        self.assignment.local.clear();
        self.collector = Some(collector);
    }

    fn holder_says(&mut self, from: NodeId, message: FromHolder) {
        if message.service != self.assignment.service || message.epoch != self.assignment.epoch {
            return;
        }
        if let (Answer::Report(report), Some(_)) = (&message.answer, &self.collector) {
            let (service, epoch, highest) = (message.service, message.epoch, report.top);
            self.event(Event::Sealed { service, epoch, highest });
        }
        if let Some(collector) = &mut self.collector {
            collector.handle(self.now, collect::Input::Message { from, message });
        } else if let Some(shipper) = &mut self.shipper {
            shipper.handle(self.now, ship::Input::Message { from, message });
        }
    }

    fn collector_says(&mut self, output: collect::Output) {
        let service = self.assignment.service;
        match output {
            collect::Output::Send { to, channel, message } => {
                self.outputs.push_back(Output::ToHolder { to, channel, message });
            }
            collect::Output::Unreachable { .. } => self.set_phase(Phase::Unreachable),
            collect::Output::SourceLost { node, why } => {
                let what = alloc::format!("{node:?} can't help to collect {service}: {why}");
                self.event(Event::Trouble { what });
            }
            collect::Output::Collected { id, image, fetched, may_be_missing } => {
                self.collector = None;
                let epoch = self.assignment.epoch;
                self.event(Event::StateCollected { service, epoch, checkpoint: id, fetched });
                if may_be_missing {
                    self.event(Event::StateMayBeMissing { service, checkpoint: id });
                }
                self.start((id.seq > 0).then_some((id, image)));
            }
            collect::Output::Superseded { by } => self.superseded(by),
        }
    }

    /// Starts the instance, and lets the holders adopt what it starts from meanwhile.
    fn start(&mut self, state: Option<(CheckpointId, Image)>) {
        let origin = match &state {
            Some((id, image)) => Origin::Restored { image: image.clone(), seq: id.seq },
            None => Origin::Fresh,
        };
        self.restored = state.as_ref().map_or(CheckpointId::default(), |(id, _)| *id);
        self.flow.captured = self.restored.seq;
        self.flow.released = self.restored.seq;
        if self.assignment.spec.has_state() {
            self.shipper = Some(Shipper::new(self.assignment.me.node, self.terms(), state));
            self.plant_in_shipper();
            self.tell_shipper();
        }
        self.set_phase(Phase::Starting);
        self.origin = Some(origin);
        self.start_if_allowed();
    }

    /// A program whose state can't be sealed off must not even run before the lease does: its
    /// effects are not only its output.
    fn start_if_allowed(&mut self) {
        let spec = &self.assignment.spec;
        let waits = !spec.has_state() && self.assignment.needs_lease();
        if waits && self.now >= self.lease_until {
            return;
        }
        let Some(origin) = self.origin.take() else { return };
        let identity = Identity {
            service: self.assignment.service,
            epoch: self.assignment.epoch,
            held: spec.output == OutputMode::Held,
        };
        self.outputs.push_back(Output::StartInstance { identity, origin });
        if self.assignment.poisonous {
            self.instruct(engine::Input::Quarantine);
        }
    }
}

/// From change to commit.
impl Runner {
    /// Takes the next step that is due: capture, release, end of a quiesce.
    fn go_on(&mut self) {
        self.release_committed();
        if self.phase == Phase::Ended || self.running_since.is_none() {
            return;
        }
        let busy = self.flow.capturing.is_some() || self.in_flight();
        if self.flow.quiescing {
            if !busy {
                self.quiesce_step();
            }
            return;
        }
        let interval = self.assignment.spec.interval;
        let due = self.flow.changed_since.is_some_and(|since| since + interval <= self.now);
        if !busy && (due || self.flow.output_waits) {
            self.capture();
        }
    }

    fn quiesce_step(&mut self) {
        let unchanged = self.flow.changed_since.is_none();
        let taken = self.flow.last_capture.is_some();
        if !self.assignment.spec.has_state() || unchanged || taken {
            self.quiesced();
        } else {
            // One is enough, whatever clients go on to send: what the program does after it is
            // lost with the instance, and nobody is told of it.
            self.flow.last_capture = Some(self.flow.captured + 1);
            self.capture();
        }
    }

    fn capture(&mut self) {
        if !self.assignment.spec.has_state() {
            return;
        }
        let seq = self.flow.captured + 1;
        self.flow.capturing = Some(seq);
        self.flow.changed_since = None;
        self.flow.output_waits = false;
        self.instruct(engine::Input::Capture { seq });
    }

    /// Whether something captured is not yet committed, or committed on too few copies to be
    /// released.
    fn in_flight(&self) -> bool {
        let shipping = self.shipper.as_ref().is_some_and(|shipper| shipper.in_flight().is_some());
        shipping || self.flow.captured > self.flow.released
    }

    /// Tells the instance of commits, once enough others have them.
    fn release_committed(&mut self) {
        let Some(shipper) = &self.shipper else { return };
        let adopted = shipper.is_established() || self.planted.has(Fault::ReleasesUnadopted);
        if !adopted || self.running_since.is_none() {
            return;
        }
        let committed = shipper.committed();
        // `free` output doesn't wait for copies, and neither must the input that it answers.
        let held = self.assignment.spec.output == OutputMode::Held;
        let counts = held && !self.planted.has(Fault::CopiesIgnored);
        let wanted = if counts { usize::from(self.assignment.spec.min_copies) } else { 0 };
        let first = !self.flow.established;
        if (committed.seq > self.flow.released || first) && shipper.copies(committed) >= wanted {
            self.flow.established = true;
            self.flow.released = committed.seq;
            self.instruct(engine::Input::Committed { seq: committed.seq });
        }
    }

    fn captured(&mut self, seq: u64, diff: Diff, pause: Span) {
        if self.flow.capturing != Some(seq) {
            return;
        }
        self.flow.capturing = None;
        self.flow.captured = seq;
        self.flow.pause = pause;
        if let Some(shipper) = &mut self.shipper {
            shipper.handle(self.now, ship::Input::Captured { diff });
        }
        if self.planted.has(Fault::ReleasesUncommitted) && self.flow.established {
            self.flow.released = seq;
            self.instruct(engine::Input::Committed { seq });
        }
    }

    fn shipper_says(&mut self, output: ship::Output) {
        match output {
            ship::Output::Send { to, channel, message } => {
                self.outputs.push_back(Output::ToHolder { to, channel, message });
            }
            // What follows from it is looked at in `go_on`.
            ship::Output::Established { id } => {
                let size = self.shipper.as_ref().map_or(ByteCount(0), |s| s.shadow().size());
                let (at, shipped, pause) = (self.now, ByteCount(0), Span::ZERO);
                let adopted = CheckpointStatus { id, at, size, shipped, pause };
                self.report(Report::Adopted(adopted));
            }
            ship::Output::Committed { id, .. } => {
                let stats = self.shipper.as_ref().map(Shipper::stats).unwrap_or_default();
                let size = self.shipper.as_ref().map_or(ByteCount(0), |s| s.shadow().size());
                self.last = CheckpointStatus {
                    id,
                    at: self.now,
                    size,
                    shipped: stats.last_encoded,
                    pause: self.flow.pause,
                };
                self.report(Report::Committed(self.last));
            }
            ship::Output::CaughtUp { member } => self.report(Report::CaughtUp(member)),
            ship::Output::HolderFailed { member, why } => {
                let why = alloc::format!("{why}");
                self.report(Report::HolderFailed { member, why });
            }
            ship::Output::Superseded { by } => self.superseded(by),
        }
    }

    /// The user asks for something else. A collection that is under way goes on as it began.
    fn asked(&mut self, asked: Asked) {
        let Asked { interval, min_copies, durable } = asked;
        let spec = &mut self.assignment.spec;
        (spec.interval, spec.min_copies, spec.durable) = (interval, min_copies, durable);
        if let Some(shipper) = &mut self.shipper {
            shipper.handle(self.now, ship::Input::Durable(durable));
        }
    }

    fn tell_shipper(&mut self) {
        let Some(shipper) = &mut self.shipper else { return };
        let set = HolderSet {
            members: self.holders.members.clone(),
            joining: self.recruits.clone(),
            version: self.holders.version,
        };
        shipper.handle(self.now, ship::Input::SetHolders(set));
    }
}

/// The instance, its gateways, its end.
impl Runner {
    fn instance_says(&mut self, output: engine::Output) {
        match output {
            engine::Output::Running { took } => self.running(took),
            engine::Output::ToGateway { gateway, message } => self.tell_gateway(gateway, message),
            engine::Output::Changed { output_waits } => {
                self.flow.changed_since.get_or_insert(self.now);
                self.flow.output_waits |= output_waits;
            }
            engine::Output::Captured { seq, diff, pause } => self.captured(seq, diff, pause),
            engine::Output::Printed { line } => self.report(Report::Printed(line)),
            engine::Output::Exited { exit } => self.exited(exit),
        }
    }

    fn running(&mut self, took: Span) {
        let (service, epoch) = (self.assignment.service, self.assignment.epoch);
        self.running_since = Some(self.now);
        self.event(if self.restored.seq == 0 {
            Event::InstanceStarted { service, epoch }
        } else {
            Event::InstanceRestored { service, epoch, checkpoint: self.restored, took }
        });
        for (gateway, message) in core::mem::take(&mut self.early) {
            self.instruct(engine::Input::FromGateway { gateway, message });
        }
        if self.restored.seq == 0 && self.assignment.spec.has_state() {
            // A first checkpoint, so that there is something to hold.
            self.flow.changed_since = Some(self.now);
            self.flow.output_waits = true;
        }
        self.set_phase(Phase::Serving);
        if self.flow.quiescing {
            self.set_phase(Phase::Quiescing);
        }
    }

    fn gateway_says(&mut self, gateway: GatewayId, message: ToInstance) {
        if self.running_since.is_some() {
            self.instruct(engine::Input::FromGateway { gateway, message });
        } else if self.early.len() < EARLY_MAX {
            self.early.push_back((gateway, message));
        }
        // What is dropped here is repeated by the gateway.
    }

    fn tell_gateway(&mut self, gateway: GatewayId, message: ToGateway) {
        // A gap in the session: the gateway attaches anew, to the next epoch.
        if self.flow.last_capture.is_some_and(|last| message.cover() > last) {
            return;
        }
        if !self.assignment.needs_lease() {
            self.outputs.push_back(Output::ToGateway { gateway, message });
            return;
        }
        self.lease_waiting.push_back((gateway, message));
        self.release_waiting();
        if self.lease_waiting.len() > LEASE_WAITING_MAX {
            // The gateway misses messages from here on, and attaches anew.
            self.lease_waiting.pop_front();
        }
    }

    /// Lets out what the lease allows: it is looked at right before each release.
    fn release_waiting(&mut self) {
        if self.now < self.lease_until || self.planted.has(Fault::LeaseIgnored) {
            for (gateway, message) in self.lease_waiting.drain(..) {
                self.outputs.push_back(Output::ToGateway { gateway, message });
            }
        }
    }

    fn link_back(&mut self, node: NodeId) {
        if let Some(collector) = &mut self.collector {
            collector.handle(self.now, collect::Input::LinkBack { node });
        }
        if let Some(shipper) = &mut self.shipper {
            shipper.handle(self.now, ship::Input::LinkBack { node });
        }
    }

    fn exited(&mut self, exit: Exit) {
        self.phase = Phase::Ended;
        if self.flow.stopping {
            return self.report(Report::Quiesced);
        }
        let ran = self.running_since.map_or(Span::ZERO, |since| self.now.since(since));
        let restored = self.shipper.as_ref().map_or(self.restored, Shipper::committed);
        self.report(Report::Exited { exit, restored, ran });
    }

    /// Everything is committed: the instance ends, and then the Node hears of it.
    fn quiesced(&mut self) {
        if self.flow.stopping {
            return;
        }
        self.flow.stopping = true;
        if self.assignment.spec.has_state() {
            // It may go on until it hears of it: that counts no more.
            self.flow.last_capture.get_or_insert(self.flow.captured);
        }
        if self.running_since.is_some() {
            self.instruct(engine::Input::Stop);
        } else {
            self.end();
            self.report(Report::Quiesced);
        }
    }

    fn superseded(&mut self, by: Epoch) {
        self.end();
        self.report(Report::Superseded(by));
    }

    /// Nothing follows. Why is said by one report, with the end: whoever heard of the end first
    /// would go on before it knows what of.
    fn end(&mut self) {
        self.instruct(engine::Input::Stop);
        self.phase = Phase::Ended;
    }

    fn instruct(&mut self, input: engine::Input) {
        self.outputs.push_back(Output::ToInstance(input));
    }

    fn set_phase(&mut self, phase: Phase) {
        if self.phase != phase {
            self.phase = phase;
            self.report(Report::Phase(phase));
        }
    }

    fn report(&mut self, report: Report) {
        self.outputs.push_back(Output::Report(report));
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}
