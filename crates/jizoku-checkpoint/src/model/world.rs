//! The world of the model: nodes, a network, disks, a catalog, and what must hold.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use jizoku_types::limits::{BLOCK, PART_MAX};
use jizoku_types::spec::Durability;
use jizoku_types::{
    BranchId, CheckpointId, Epoch, Incarnation, Instant, Member, NodeId, ServiceId, Span,
};

use crate::chain::NONE;
use crate::collect::{self, Collector};
use crate::dice::Dice;
use crate::fault::Fault;
use crate::holder::{self, Holder, Token};
use crate::image::{CUT_MIN, DiffBuilder, Digest, Image, Part, Question};
use crate::message::{Answer, Ask, FromHolder, Line, Terms, ToHolder};
use crate::record::{Entry, Loaded, Record, Replay};
use crate::ship::{self, HolderSet, Shipper};

const SERVICE: ServiceId = ServiceId(1);
const LINE: Line = Line { service: SERVICE, branch: BranchId::MAIN };

/// What happened in a run, to show that something did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) captured: u64,
    pub(super) committed: u64,
    pub(super) takeovers: u64,
    pub(super) fetched: u64,
    pub(super) added: u64,
    pub(super) removed: u64,
    pub(super) restarts: u64,
    pub(super) unreachable: u64,
    pub(super) superseded: u64,
    pub(super) surveys: u64,
    pub(super) damaged: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Tally) {
        self.captured += other.captured;
        self.committed += other.committed;
        self.takeovers += other.takeovers;
        self.fetched += other.fetched;
        self.added += other.added;
        self.removed += other.removed;
        self.restarts += other.restarts;
        self.unreachable += other.unreachable;
        self.superseded += other.superseded;
        self.surveys += other.surveys;
        self.damaged += other.damaged;
    }
}

/// What must hold.
///
/// - What was committed with a copy elsewhere is not above what a later epoch goes on from.
/// - What was committed was acknowledged by every member, in the incarnation that the set names, or
///   with `durable = "disk"` in a later one.
/// - Once an epoch is established, what it dropped never comes back.
/// - A holder that reported under a seal acknowledges nothing of a lower epoch.
/// - Every image, held or collected, has the root that it had when it was captured.
/// - At the end, in a world that is good again, a service with a current member goes on, and one
///   without does not, until loss is accepted.
#[derive(Default)]
pub(super) struct Checks {
    captured: BTreeMap<CheckpointId, Digest>,
    /// The highest released checkpoint of each epoch.
    released: BTreeMap<u64, CheckpointId>,
    collected: BTreeMap<u64, CheckpointId>,
    established: BTreeMap<u64, CheckpointId>,
    /// What each incarnation has acknowledged under each epoch.
    acknowledged: BTreeMap<(u64, Member), CheckpointId>,
    /// The highest epoch that each node has reported under.
    reported: BTreeMap<usize, u64>,
    violation: Option<String>,
}

impl Checks {
    fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn root(&self, id: CheckpointId) -> Digest {
        if id == NONE { Image::empty().root() } else { self.captured[&id] }
    }

    fn committed(&mut self, durable: Durability, id: CheckpointId, set: &BTreeSet<Member>) {
        for member in set {
            let later = Member { incarnation: Incarnation(u64::MAX), ..*member };
            let last = if durable == Durability::Disk { later } else { *member };
            let mut acks = self.acknowledged.range((id.epoch, *member)..=(id.epoch, last));
            if !acks.any(|(_, acked)| *acked >= id) {
                let what = format!("{id} was committed, and {member:?} hasn't acknowledged it");
                return self.fail(what);
            }
        }
        self.released.insert(id.epoch, id);
        let later = self.collected.range(id.epoch + 1..).find(|(_, from)| **from < id);
        if let Some((epoch, from)) = later {
            self.fail(format!("{id} was committed, but epoch {epoch} goes on from {from}"));
        }
    }

    fn collected(&mut self, epoch: u64, id: CheckpointId, image: &Image) {
        // A later epoch may have released more already: then this one can do nothing any more.
        let released = self.released.range(..epoch).next_back().map_or(NONE, |(_, id)| *id);
        if id < released {
            self.fail(format!("epoch {epoch} goes on from {id}, not {released}"));
        }
        if image.root() != self.root(id) {
            self.fail(format!("epoch {epoch} collected a wrong image of {id}"));
        }
        for (earlier, base) in self.established.range(..epoch) {
            if id > *base && id.epoch < *earlier {
                let what = format!("epoch {epoch} goes on from {id}, dropped by {earlier}");
                return self.fail(what);
            }
        }
        self.collected.insert(epoch, id);
    }
}

#[derive(Clone, Debug)]
struct Catalog {
    epoch: u64,
    active: usize,
    set: BTreeSet<Member>,
    version: u64,
}

#[derive(Default)]
struct Disk {
    entries: Vec<Entry>,
    queue: VecDeque<(Token, Record)>,
    failed: bool,
}

impl Disk {
    fn load(&self) -> Loaded {
        let mut replay = Replay::new();
        for entry in &self.entries {
            replay.push(entry).expect("own records replay");
        }
        replay.finish(LINE, true)
    }
}

struct Active {
    epoch: u64,
    /// The set that the shipper was told.
    set: BTreeSet<Member>,
    shipper: Shipper,
    joining: BTreeSet<Member>,
    caught_up: BTreeSet<Member>,
    failed: BTreeSet<Member>,
}

struct Node {
    incarnation: u64,
    up: bool,
    isolated: bool,
    holder: Holder,
    disk: Disk,
    active: Option<Active>,
    taking: Option<(u64, Collector)>,
    /// How much of the catalog's log it knows.
    applied: usize,
}

enum Body {
    To(ToHolder),
    From(FromHolder),
}

struct Packet {
    from: usize,
    to: usize,
    body: Body,
}

pub(super) struct World {
    /// Whether to print what happens: `JIZOKU_TRACE=1`.
    traces: bool,
    dice: Dice,
    now: Instant,
    durable: Durability,
    fault: Option<Fault>,
    part_max: usize,
    loss: u64,
    damage: u64,
    /// In how many of a hundred cases what happens is bad.
    badness: u64,
    /// How busy the service is, how fast the catalog's news spread, how fast disks are.
    busy: u64,
    news: u64,
    disks: u64,
    nodes: Vec<Node>,
    net: BTreeMap<(Instant, u64), Packet>,
    sent: u64,
    /// The catalog after each command.
    log: Vec<Catalog>,
    checks: Checks,
    tally: Tally,
    good: bool,
}

fn node_id(node: usize) -> NodeId {
    NodeId([node as u8 + 1; 32])
}

fn node_of(id: NodeId) -> usize {
    usize::from(id.0[0]) - 1
}

impl World {
    pub(super) fn new(seed: u64, durable: Durability, fault: Option<Fault>) -> World {
        let mut dice = Dice::new(seed);
        let count = 3 + dice.below(3) as usize;
        let part_max = if dice.chance(50) { CUT_MIN + dice.below(9000) as usize } else { PART_MAX };
        let loss = if dice.chance(60) { dice.below(20) } else { 0 };
        let damage = if dice.chance(50) { 5 } else { 0 };
        let badness = 1 + dice.below(25);
        let busy = if dice.chance(30) { 10 } else { 100 };
        let news = if dice.chance(30) { 10 } else { 100 };
        let disks = if dice.chance(30) { 10 } else { 100 };
        let catalog = Catalog { epoch: 1, active: 0, set: BTreeSet::new(), version: 0 };
        let mut world = World {
            traces: std::env::var_os("JIZOKU_TRACE").is_some(),
            dice,
            now: Instant::from_nanos(1_000_000_000),
            durable,
            fault,
            part_max,
            loss,
            damage,
            badness,
            busy,
            news,
            disks,
            nodes: Vec::new(),
            net: BTreeMap::new(),
            sent: 0,
            log: alloc::vec![catalog],
            checks: Checks::default(),
            tally: Tally::default(),
            good: false,
        };
        for node in 0..count {
            let holder = world.new_holder(node, 1);
            let disk = Disk::default();
            let (active, taking) = (None, None);
            world.nodes.push(Node {
                incarnation: 1,
                up: true,
                isolated: false,
                holder,
                disk,
                active,
                taking,
                applied: 1,
            });
            world.holder_input(node, holder::Input::Loaded(Vec::new()));
        }
        world.activate(0, 1, None);
        world
    }

    fn new_holder(&self, node: usize, incarnation: u64) -> Holder {
        let incarnation = Incarnation(incarnation);
        let mut holder = Holder::new(Member { node: node_id(node), incarnation });
        if let Some(fault) = self.fault {
            holder.plant(fault);
        }
        holder
    }

    fn terms(&self, epoch: u64) -> Terms {
        Terms { service: SERVICE, epoch: Epoch::main(epoch), durable: self.durable }
    }

    fn member(&self, node: usize) -> Member {
        Member { node: node_id(node), incarnation: Incarnation(self.nodes[node].incarnation) }
    }

    fn catalog(&self) -> &Catalog {
        self.log.last().expect("never empty")
    }

    fn view(&self, node: usize) -> &Catalog {
        &self.log[self.nodes[node].applied - 1]
    }

    /// A service that has some holders and something committed.
    fn begin(&mut self) -> Result<(), String> {
        self.good = true;
        let copies = 1 + self.dice.below(self.nodes.len() as u64 - 1) as usize;
        while self.catalog().set.len() < copies {
            let node = 1 + self.dice.below(self.nodes.len() as u64 - 1) as usize;
            self.join(node);
            self.capture();
            self.run_for(Span::millis(30), |_| false)?;
            self.tend();
            self.settle_catalog();
        }
        self.good = false;
        Ok(())
    }

    fn trace(&self, what: impl FnOnce() -> String) {
        if self.traces {
            std::println!("{} {}", self.now, what());
        }
    }

    pub(super) fn run(mut self) -> Result<Tally, String> {
        let steps = 300 + self.dice.below(900);
        self.begin()?;
        for _ in 0..steps {
            let node = self.any_node();
            match self.dice.below(100) {
                0..=14 => self.act(),
                15..=29 if self.dice.chance(self.news) => self.apply(node),
                30..=49 if self.dice.chance(self.disks) => self.flush(node),
                _ => self.advance(),
            }
            if let Some(what) = self.checks.violation.take() {
                return Err(what);
            }
        }
        self.finish()?;
        Ok(self.tally)
    }

    // Time and network.

    /// Delivers the next message or fires the next timer.
    fn advance(&mut self) {
        let timer = self.next_timer();
        let packet = self.net.keys().next().map(|(at, _)| *at);
        match (packet, timer) {
            (Some(at), timer) if timer.is_none_or(|(timer, _)| at <= timer) => {
                self.now = self.now.max(at);
                let (_, packet) = self.net.pop_first().expect("there is one");
                self.deliver(packet);
            }
            (_, Some((at, node))) => {
                self.now = self.now.max(at);
                self.tick(node);
            }
            _ => self.now += Span::millis(1 + self.dice.below(20)),
        }
    }

    fn next_timer(&self) -> Option<(Instant, usize)> {
        let of = |node: &Node| {
            let active = node.active.as_ref().and_then(|active| active.shipper.deadline());
            let taking = node.taking.as_ref().and_then(|(_, collector)| collector.deadline());
            [active, taking, node.holder.deadline()].into_iter().flatten().min()
        };
        let up = self.nodes.iter().enumerate().filter(|(_, node)| node.up);
        up.filter_map(|(at, node)| Some((of(node)?, at))).min()
    }

    fn tick(&mut self, node: usize) {
        self.holder_input(node, holder::Input::Tick);
        self.ship_input(node, ship::Input::Tick);
        self.collect_input(node, collect::Input::Tick);
    }

    fn send(&mut self, from: usize, to: usize, body: Body) {
        let bad = !self.good && from != to;
        let cut = self.nodes[from].isolated || self.nodes[to].isolated;
        if from != to && cut || bad && self.dice.chance(self.loss) {
            return;
        }
        let body = if bad && self.dice.chance(self.damage) { self.spoil(body) } else { body };
        let copies = if bad && self.dice.chance(5) { 2 } else { 1 };
        for _ in 0..copies {
            let late = bad && self.dice.chance(3);
            let delay = if late { self.dice.below(2_000_000) } else { self.dice.below(3_000) };
            self.sent += 1;
            let body = match &body {
                Body::To(message) => Body::To(message.clone()),
                Body::From(message) => Body::From(message.clone()),
            };
            let at = self.now + Span::micros(delay);
            self.net.insert((at, self.sent), Packet { from, to, body });
        }
    }

    /// Damages state on its way, as a faulty memory would: the frame itself is intact.
    fn spoil(&mut self, mut body: Body) -> Body {
        let part = match &mut body {
            Body::To(ToHolder { ask: Ask::Ship(ship), .. }) => &mut ship.body,
            Body::From(FromHolder { answer: Answer::Blocks { body, .. }, .. }) => body,
            _ => return body,
        };
        let mut bytes = part.bytes().to_vec();
        let at = bytes.len() - 1 - self.dice.below(bytes.len().min(12) as u64) as usize;
        bytes[at] ^= 1 << self.dice.below(8);
        *part = Part::new(bytes);
        body
    }

    fn deliver(&mut self, Packet { from, to, body }: Packet) {
        if !self.nodes[to].up || from != to && self.nodes[to].isolated {
            return;
        }
        let encode = self.dice.chance(5);
        match body {
            Body::To(message) => {
                if encode {
                    let bytes = jizoku_types::encode(&message);
                    assert_eq!(jizoku_types::decode(&bytes).as_ref(), Ok(&message));
                }
                if let Ask::Fetch { question: Question::Outline, .. } = &message.ask {
                    self.tally.surveys += u64::from(self.nodes[from].active.is_some());
                }
                let from = node_id(from);
                self.holder_input(to, holder::Input::Message { from, message });
            }
            Body::From(message) => {
                if encode {
                    let bytes = jizoku_types::encode(&message);
                    assert_eq!(jizoku_types::decode(&bytes).as_ref(), Ok(&message));
                }
                let from = node_id(from);
                let copy = message.clone();
                self.ship_input(to, ship::Input::Message { from, message: copy });
                self.collect_input(to, collect::Input::Message { from, message });
            }
        }
    }

    // The values on the nodes.

    fn holder_input(&mut self, node: usize, input: holder::Input) {
        self.trace(|| match &input {
            holder::Input::Message { from, message } => {
                format!("{} -> holder {node}: {:?}", node_of(*from), message.ask)
            }
            holder::Input::Tick => String::new(),
            other => format!("holder {node}: {other:?}"),
        });
        let holder = &mut self.nodes[node].holder;
        holder.handle(self.now, input);
        let outputs: Vec<_> = core::iter::from_fn(|| holder.poll()).collect();
        for point in holder.points(LINE) {
            if point.root() != self.checks.root(point.id) {
                self.checks.fail(format!("node {node} holds a wrong image of {}", point.id));
            }
        }
        for output in outputs {
            match output {
                holder::Output::Send { to, message, .. } => {
                    self.check_answer(node, &message);
                    self.send(node, node_of(to), Body::From(message));
                }
                holder::Output::Store { token, record } => {
                    self.nodes[node].disk.queue.push_back((token, record));
                }
                holder::Output::Corrupt { .. } => self.tally.damaged += 1,
                holder::Output::Changed { .. } => {}
            }
        }
    }

    fn check_answer(&mut self, node: usize, message: &FromHolder) {
        let epoch = message.epoch.counter;
        let member = Member { node: node_id(node), incarnation: message.incarnation };
        if let Answer::Ack { id } = message.answer {
            let acked = self.checks.acknowledged.entry((epoch, member)).or_default();
            *acked = id.max(*acked);
        }
        let reported = self.checks.reported.entry(node).or_insert(0);
        match &message.answer {
            Answer::Report(_) => *reported = epoch.max(*reported),
            Answer::Ack { id } if epoch < *reported => {
                let what =
                    format!("node {node} acknowledged {id} under {epoch}, sealed for {reported}");
                self.checks.fail(what);
            }
            _ => {}
        }
    }

    fn ship_input(&mut self, node: usize, input: ship::Input) {
        if self.nodes[node].active.is_some() {
            self.trace(|| match &input {
                ship::Input::Message { from, message } => {
                    let FromHolder { epoch, incarnation, answer, .. } = message;
                    let from = node_of(*from);
                    format!("{from}.{} -> active {node}: {epoch} {answer:?}", incarnation.0)
                }
                ship::Input::Tick => String::new(),
                other => format!("active {node}: {other:?}"),
            });
        }
        let Some(active) = &mut self.nodes[node].active else { return };
        active.shipper.handle(self.now, input);
        let outputs: Vec<_> = core::iter::from_fn(|| active.shipper.poll()).collect();
        for output in outputs {
            self.ship_output(node, output);
        }
    }

    fn ship_output(&mut self, node: usize, output: ship::Output) {
        if !matches!(output, ship::Output::Send { .. }) {
            self.trace(|| format!("active {node} says {output:?}"));
        }
        let Some(active) = &mut self.nodes[node].active else { return };
        match output {
            ship::Output::Send { to, message, .. } => {
                self.send(node, node_of(to), Body::To(message));
            }
            ship::Output::Established { id } => {
                self.checks.established.insert(active.epoch, id);
            }
            ship::Output::Committed { id, copies } => {
                // Without a copy elsewhere nothing is released, and so nothing was promised.
                if copies > 0 {
                    self.tally.committed += 1;
                    self.checks.committed(self.durable, id, &active.set);
                }
            }
            ship::Output::CaughtUp { member } => {
                active.caught_up.insert(member);
            }
            ship::Output::HolderFailed { member, .. } => {
                active.failed.insert(member);
            }
            ship::Output::Superseded { .. } => {
                self.tally.superseded += 1;
                self.nodes[node].active = None;
            }
        }
    }

    fn collect_input(&mut self, node: usize, input: collect::Input) {
        let Some((_, collector)) = &mut self.nodes[node].taking else { return };
        collector.handle(self.now, input);
        self.collect_outputs(node);
    }

    fn collect_outputs(&mut self, node: usize) {
        let Some((epoch, collector)) = &mut self.nodes[node].taking else { return };
        let epoch = *epoch;
        let outputs: Vec<_> = core::iter::from_fn(|| collector.poll()).collect();
        for output in outputs {
            if !matches!(output, collect::Output::Send { .. }) {
                self.trace(|| format!("taker {node} of {epoch} says {output:?}"));
            }
            match output {
                collect::Output::Send { to, message, .. } => {
                    self.send(node, node_of(to), Body::To(message));
                }
                collect::Output::Collected { id, image, fetched, may_be_missing } => {
                    if !may_be_missing {
                        self.checks.collected(epoch, id, &image);
                    }
                    self.tally.takeovers += 1;
                    self.tally.fetched += u64::from(fetched.0 > 0);
                    self.nodes[node].taking = None;
                    self.activate(node, epoch, Some((id, image)));
                }
                collect::Output::Unreachable { .. } => self.tally.unreachable += 1,
                collect::Output::SourceLost { why: collect::SourceLost::Corrupt, .. } => {
                    self.tally.damaged += 1;
                }
                collect::Output::SourceLost { .. } => {}
                collect::Output::Superseded { .. } => self.nodes[node].taking = None,
            }
        }
    }

    fn activate(&mut self, node: usize, epoch: u64, restored: Option<(CheckpointId, Image)>) {
        let terms = self.terms(epoch);
        if let Some((id, image)) = &restored
            && *id != NONE
            && self.dice.chance(30)
        {
            let point = crate::chain::Point { id: *id, image: image.clone() };
            self.holder_input(node, holder::Input::Install { terms, point });
        }
        let restored = restored.filter(|(id, _)| *id != NONE);
        let mut shipper = Shipper::new(node_id(node), terms, restored).with_part_max(self.part_max);
        if let Some(fault) = self.fault {
            shipper.plant(fault);
        }
        let (joining, caught_up) = (BTreeSet::new(), BTreeSet::new());
        let failed = BTreeSet::new();
        let set = BTreeSet::new();
        self.nodes[node].active = Some(Active { epoch, set, shipper, joining, caught_up, failed });
        self.tell_holders(node);
    }

    /// Tells the shipper of a node what set the node knows of.
    fn tell_holders(&mut self, node: usize) {
        let Catalog { set: members, version, .. } = self.view(node).clone();
        let Some(active) = &mut self.nodes[node].active else { return };
        active.joining.retain(|member| !members.contains(member));
        let joining = active.joining.clone();
        active.set = members.clone();
        let set = HolderSet { members, joining, version };
        self.ship_input(node, ship::Input::SetHolders(set));
    }

    // The catalog.

    /// A command of a node; nothing happens if the node doesn't know the newest state.
    fn propose(&mut self, node: usize, change: impl FnOnce(&mut Catalog)) -> bool {
        let reaches = self.nodes[node].up && !self.nodes[node].isolated;
        if !reaches || self.nodes[node].applied != self.log.len() {
            return false;
        }
        let mut next = self.catalog().clone();
        change(&mut next);
        self.trace(|| format!("node {node} proposes {next:?}"));
        self.log.push(next);
        true
    }

    /// A node learns of the next command.
    fn apply(&mut self, node: usize) {
        let known = &self.nodes[node];
        if !known.up || known.isolated || known.applied == self.log.len() {
            return;
        }
        let before = self.view(node).clone();
        self.nodes[node].applied += 1;
        let after = self.view(node).clone();
        if after.epoch > before.epoch {
            self.nodes[node].active = None;
            self.nodes[node].taking = None;
            if after.active == node {
                self.take_over(node, after);
            }
        } else {
            self.tell_holders(node);
        }
    }

    fn take_over(&mut self, node: usize, catalog: Catalog) {
        let terms = self.terms(catalog.epoch);
        let seal = ToHolder { terms, ask: Ask::Seal };
        let input = holder::Input::Message { from: node_id(node), message: seal };
        self.holder_input(node, input);
        let local = self.nodes[node].holder.points(LINE);
        let mut collector = Collector::new(self.now, terms, catalog.set, local);
        if let Some(fault) = self.fault {
            collector.plant(fault);
        }
        self.nodes[node].taking = Some((catalog.epoch, collector));
        self.collect_outputs(node);
    }

    // What happens.

    fn act(&mut self) {
        let node = self.any_node();
        // In some worlds bad things are rare, in others they come one upon the other.
        if self.dice.below(100) < self.badness {
            return self.act_badly(node);
        }
        match self.dice.below(100) {
            0..=54 if self.dice.chance(self.busy) => self.capture(),
            55..=74 => self.tend(),
            75..=86 => self.join(node),
            87..=89 => {
                let Some(active) = self.active_node() else { return };
                let set: Vec<Member> = self.view(active).set.iter().copied().collect();
                if let Some(member) = self.dice.pick(&set).copied() {
                    self.remove(active, member);
                }
            }
            90..=93 => self.restart(node),
            94..=97 => self.heal(node),
            _ => self.link_back(node),
        }
    }

    fn act_badly(&mut self, node: usize) {
        match self.dice.below(12) {
            0..=3 => self.start_takeover(node),
            4..=5 => self.crash(node),
            6..=8 => {
                self.crash(node);
                self.restart(node);
            }
            9..=10 => self.nodes[node].isolated = true,
            _ => self.nodes[node].disk.failed |= self.dice.chance(30),
        }
    }

    fn any_node(&mut self) -> usize {
        self.dice.below(self.nodes.len() as u64) as usize
    }

    /// Some node that believes to be active; there may be several.
    fn active_node(&mut self) -> Option<usize> {
        let active: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.nodes[*node].up && self.nodes[*node].active.is_some())
            .collect();
        self.dice.pick(&active).copied()
    }

    fn few_or_many(&mut self, few: u64, many: u64) -> u64 {
        let most = if self.dice.chance(15) { many } else { few };
        self.dice.below(most)
    }

    fn capture(&mut self) {
        let Some(node) = self.active_node() else { return };
        let active = self.nodes[node].active.as_ref().expect("it is active");
        if active.shipper.in_flight().is_some() {
            return;
        }
        let (epoch, seq) = (active.epoch, active.shipper.last_seq() + 1);
        let image = active.shipper.shadow().clone();
        let mut builder = DiffBuilder::new(Some(image.clone()));
        let len = image.space("memory").map_or(0, |space| space.len());
        if len == 0 || self.dice.chance(10) {
            let blocks = 1 + self.few_or_many(10, 60);
            builder.resize("memory", blocks * BLOCK as u64 - 7);
        } else {
            builder.resize("memory", len);
        }
        let blocks = match builder.len("memory") {
            Some(len) => len.div_ceil(BLOCK as u64),
            None => 0,
        };
        for _ in 0..self.few_or_many(4, 40) {
            let index = self.dice.below(blocks) as u32;
            let bytes = self.dice.bytes(16);
            builder.block("memory", index, &bytes);
        }
        let globals = self.dice.bytes(9);
        builder.bytes("globals", &globals);
        let diff = builder.finish();
        // What the shipper will compute; it is written down first, since its holders check it.
        let mut after = image;
        after.apply_unrooted(&diff).expect("own diff");
        let id = CheckpointId { epoch, seq };
        self.checks.captured.insert(id, after.root());
        self.tally.captured += 1;
        self.ship_input(node, ship::Input::Captured { diff });
    }

    fn flush(&mut self, node: usize) {
        let memory = self.durable == Durability::Memory;
        if !self.nodes[node].up || memory && self.dice.chance(50) {
            return;
        }
        self.flush_one(node);
    }

    fn flush_one(&mut self, node: usize) {
        let disk = &mut self.nodes[node].disk;
        let Some((token, record)) = disk.queue.pop_front() else { return };
        let snapshot = matches!(record, Record::Snapshot { .. });
        // After a failure nothing is written until a snapshot says all again.
        if disk.failed && !snapshot {
            return self.holder_input(node, holder::Input::StoreFailed { token });
        }
        disk.failed = false;
        if snapshot || matches!(record, Record::Forgotten { .. }) {
            disk.entries.clear();
        }
        let mut put = |entry: &Entry| {
            disk.entries.push(entry.clone());
            Ok::<(), ()>(())
        };
        record.write(&mut put).expect("it never fails");
        self.holder_input(node, holder::Input::Stored { token });
    }

    /// The Node's part at an active node: proposes what its shipper's outputs ask for.
    fn tend(&mut self) {
        let Some(node) = self.active_node() else { return };
        let active = self.nodes[node].active.as_ref().expect("it is active");
        if active.epoch != self.view(node).epoch {
            return;
        }
        let add = active.caught_up.iter().find(|m| active.joining.contains(m)).copied();
        if let Some(member) = add {
            let added = self.propose(node, |catalog| {
                catalog.set.insert(member);
                catalog.version += 1;
            });
            self.tally.added += u64::from(added);
            return;
        }
        let failed = active.failed.clone();
        let dead = |m: &&Member| {
            let at = &self.nodes[node_of(m.node)];
            !at.up || at.isolated || failed.contains(m)
        };
        let active = self.nodes[node].active.as_ref().expect("it is active");
        if let Some(member) = active.joining.iter().find(dead).copied() {
            let active = self.nodes[node].active.as_mut().expect("it is active");
            active.joining.remove(&member);
            active.caught_up.remove(&member);
            active.failed.remove(&member);
            return self.tell_holders(node);
        }
        if let Some(dead) = self.view(node).set.iter().find(dead).copied() {
            self.remove(node, dead);
        }
    }

    /// An active node removes a holder, if another is left.
    fn remove(&mut self, active: usize, member: Member) {
        let view = self.view(active);
        let at = self.nodes[active].active.as_ref().expect("it is active");
        if at.epoch != view.epoch || view.set.len() < 2 || !view.set.contains(&member) {
            return;
        }
        let removed = self.propose(active, |catalog| {
            catalog.set.remove(&member);
            catalog.version += 1;
        });
        self.tally.removed += u64::from(removed);
    }

    /// An active node begins to make a holder of a node.
    fn join(&mut self, node: usize) {
        let Some(active) = self.active_node() else { return };
        let member = self.member(node);
        let held = self.view(active).set.contains(&member);
        if held || node == active && self.dice.chance(80) || !self.nodes[node].up {
            return;
        }
        let at = self.nodes[active].active.as_mut().expect("it is active");
        if at.joining.len() < 2 && at.joining.insert(member) {
            at.caught_up.remove(&member);
            at.failed.remove(&member);
            self.tell_holders(active);
        }
    }

    fn start_takeover(&mut self, node: usize) {
        self.propose(node, |catalog| {
            catalog.epoch += 1;
            catalog.active = node;
        });
    }

    fn crash(&mut self, node: usize) {
        let up = self.nodes.iter().filter(|node| node.up).count();
        if up <= 2 {
            return;
        }
        self.trace(|| format!("node {node} crashes"));
        let node = &mut self.nodes[node];
        node.up = false;
        node.active = None;
        node.taking = None;
        node.disk.queue.clear();
    }

    fn restart(&mut self, node: usize) {
        if self.nodes[node].up {
            return;
        }
        self.trace(|| format!("node {node} restarts"));
        self.tally.restarts += 1;
        let incarnation = self.nodes[node].incarnation + 1;
        let holder = self.new_holder(node, incarnation);
        if self.durable == Durability::Memory {
            // Its seal may be forgotten: as another incarnation it counts nowhere.
            self.checks.reported.remove(&node);
        }
        let at = &mut self.nodes[node];
        at.incarnation = incarnation;
        at.up = true;
        at.holder = holder;
        at.disk.failed = false;
        let loaded = at.disk.load();
        self.holder_input(node, holder::Input::Loaded(alloc::vec![loaded]));
    }

    fn heal(&mut self, node: usize) {
        if self.nodes[node].isolated {
            self.nodes[node].isolated = false;
            self.link_back(node);
        }
    }

    fn link_back(&mut self, node: usize) {
        for at in 0..self.nodes.len() {
            let node = node_id(node);
            self.ship_input(at, ship::Input::LinkBack { node });
            self.collect_input(at, collect::Input::LinkBack { node });
        }
    }

    // The end: the world is good again.

    fn finish(&mut self) -> Result<(), String> {
        self.good = true;
        let restart = self.dice.chance(50);
        for node in 0..self.nodes.len() {
            self.nodes[node].isolated = false;
            if restart {
                self.restart(node);
            }
        }
        let up: Vec<usize> = (0..self.nodes.len()).filter(|n| self.nodes[*n].up).collect();
        let taker = *self.dice.pick(&up).expect("two are always up");
        self.settle_catalog();
        let is_current = |m: &Member| {
            let at = &self.nodes[node_of(m.node)];
            let kept = self.durable == Durability::Disk && at.holder.keeps(LINE);
            at.up && (at.incarnation == m.incarnation.0 || kept)
        };
        let reachable = self.catalog().set.is_empty() || self.catalog().set.iter().any(is_current);
        self.start_takeover(taker);
        self.settle_catalog();
        self.run_for(Span::secs(12), |world| world.nodes[taker].active.is_some())?;
        let collected = self.nodes[taker].active.is_some();
        if collected != reachable {
            return Err(format!("current member: {reachable}; collected: {collected}"));
        }
        if !reachable {
            self.collect_input(taker, collect::Input::AcceptLoss);
            self.run_for(Span::secs(12), |world| world.nodes[taker].active.is_some())?;
            if self.nodes[taker].active.is_none() {
                return Err("loss was accepted, and yet nothing was collected".into());
            }
        }
        self.serve_again(taker)
    }

    fn settle_catalog(&mut self) {
        for node in 0..self.nodes.len() {
            for _ in 0..self.log.len() {
                self.apply(node);
            }
        }
    }

    /// A new holder is added, the dead are removed, and a checkpoint is committed.
    fn serve_again(&mut self, taker: usize) -> Result<(), String> {
        let other = (0..self.nodes.len()).find(|n| *n != taker && self.nodes[*n].up);
        let member = self.member(other.expect("two are always up"));
        let deadline = self.now + Span::secs(60);
        while self.now < deadline {
            let held = self.catalog().set.contains(&member);
            let at = self.nodes[taker].active.as_mut().ok_or("it was superseded by nobody")?;
            if !held && at.joining.insert(member) {
                self.tell_holders(taker);
            }
            self.run_for(Span::millis(50), |_| false)?;
            self.tend();
            self.settle_catalog();
            let at = self.nodes[taker].active.as_mut().ok_or("it was superseded by nobody")?;
            if at.shipper.committed().epoch == at.epoch && at.shipper.copies(NONE) > 0 {
                return Ok(());
            }
            self.capture();
        }
        Err("no commit in a good world".into())
    }

    fn run_for(&mut self, span: Span, done: impl Fn(&World) -> bool) -> Result<(), String> {
        let end = self.now + span;
        while self.now < end && !done(self) {
            for node in 0..self.nodes.len() {
                while self.nodes[node].up && !self.nodes[node].disk.queue.is_empty() {
                    self.flush_one(node);
                }
            }
            self.advance();
            if let Some(what) = self.checks.violation.take() {
                return Err(what);
            }
        }
        Ok(())
    }
}
