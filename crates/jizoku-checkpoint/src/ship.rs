//! At the active node of a service: sends its checkpoints to the holders, says what is committed.
//!
//! What it does not know: the catalog (it is told the holder set), the instance, `min_copies` (it
//! says how many copies there are), other services.
//!
//! How it goes, for each holder: it is asked to *adopt* what this epoch goes on from; then it
//! *follows*: each checkpoint is sent as a diff against the one before. A holder that lacks what a
//! diff is based on is *surveyed*: the trees are compared, and one diff leads it from what it has
//! to the newest state; if it has nothing, the whole image does. Then it follows.
//!
//! Invariants
//! - A checkpoint is committed when every member of the set, and every joining holder that has
//!   caught up once, has acknowledged it, in the incarnation that the set names.
//! - Nothing is committed before the first holder set is known.
//! - One checkpoint is in flight at a time, and one transfer to each holder.
//! - Acknowledgements of other epochs count for nothing.
//! - There is one `Shipper` for each epoch, ever: so what an epoch made is one line.
//!
//! Limits: [`WINDOW`] parts under way to one holder in a paced transfer; [`EAGER_PARTS_MAX`] parts
//! kept encoded. A holder that is silent for [`SILENT_MAX`] is reported once, and asked on.

mod follower;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use jizoku_types::limits::PART_MAX;
use jizoku_types::spec::Durability;
use jizoku_types::{ByteCount, Channel, CheckpointId, Epoch, Instant, Member, NodeId, Span};

use crate::chain::{NONE, Point};
use crate::fault::{Fault, Planted};
use crate::image::{CUT_MIN, Diff, Encoder, Image};
use crate::message::{Answer, Ask, FromHolder, Terms, ToHolder, Why};
use follower::{Comparison, Follower, Parcel, Role, Stage, Transfer};

/// A commit is told by a message of its own when no checkpoint follows for this long.
pub const COMMIT_QUIET: Span = Span::millis(20);
/// What isn't answered is sent again after this long, then after twice as long, and so on.
pub const RESEND_FIRST: Span = Span::millis(300);
/// Up to this.
pub const RESEND_MAX: Span = Span::secs(3);
/// A holder that owes an answer and says nothing for this long is reported.
pub const SILENT_MAX: Span = Span::secs(5);
/// Parts under way to one holder in a transfer that has more.
pub const WINDOW: usize = 8;
/// A checkpoint of at most this many parts is encoded once for all holders and kept so; one of
/// more is encoded as it is sent.
pub const EAGER_PARTS_MAX: u32 = 16;
/// How often a holder may lack the base before it is given up, or given the whole image.
const MISSING_MAX: u8 = 3;

/// The holders of a service, as the catalog and the Node have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HolderSet {
    /// The members: each has to acknowledge.
    pub members: BTreeSet<Member>,
    /// Those that are being added: each has to acknowledge from when it has caught up.
    pub joining: BTreeSet<Member>,
    /// The set's version: an older one is passed over.
    pub version: u64,
}

/// What a shipper is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// The holder set, at first and whenever it changes. Who is in neither list is dropped.
    SetHolders(HolderSet),
    /// When holders shall acknowledge from now on. What they hold already stays as it is.
    Durable(Durability),
    /// The instance's state was captured: this changed. Only while none is
    /// [in flight](Shipper::in_flight).
    Captured {
        /// Against the state before, which is [`Shipper::shadow`].
        diff: Diff,
    },
    /// A holder's answer.
    Message {
        /// From this node, possibly the own one.
        from: NodeId,
        /// What.
        message: FromHolder,
    },
    /// A link was lost and a way to this node is there again.
    LinkBack {
        /// Which node.
        node: NodeId,
    },
    /// Time passed.
    Tick,
}

/// What a shipper wants done, or has found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message.
    Send {
        /// To whom, possibly the own node.
        to: NodeId,
        /// On which channel.
        channel: Channel,
        /// What.
        message: ToHolder,
    },
    /// What this epoch goes on from is held by all members: output may be released.
    Established {
        /// Which checkpoint; none for a service that starts without state.
        id: CheckpointId,
    },
    /// A checkpoint is committed.
    Committed {
        /// Which.
        id: CheckpointId,
        /// On how many members other than this node: what `min_copies` is compared with.
        copies: usize,
    },
    /// A joining holder has all that there is. From now on it has to acknowledge.
    CaughtUp {
        /// Which.
        member: Member,
    },
    /// A holder can't do its part, and must be removed from the set for commits to go on. Said once
    /// for each reason.
    HolderFailed {
        /// Which.
        member: Member,
        /// Why.
        why: Failure,
    },
    /// A holder knows of a higher epoch: this node is no longer active. Nothing follows.
    Superseded {
        /// Which.
        by: Epoch,
    },
}

/// Why a holder can't do its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// Its agent was started anew: it is another incarnation now.
    Restarted,
    /// It is a member, and has lost what it held.
    LostState,
    /// It has something committed that this epoch doesn't go on from.
    Ahead,
    /// It has no room. It is asked on.
    NoRoom,
    /// It gets, or has, damaged state.
    Corrupt,
    /// Its disk failed. It is asked on.
    NotStored,
    /// It doesn't understand what it is sent.
    Malformed,
    /// It hasn't answered for [`SILENT_MAX`]. It is asked on.
    Silent,
}

impl Failure {
    /// Whether it is asked on, because it may recover.
    pub fn may_pass(self) -> bool {
        matches!(self, Failure::NoRoom | Failure::NotStored | Failure::Silent)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Restarted => "its agent was restarted",
            Failure::LostState => "it has lost what it held",
            Failure::Ahead => "it holds something newer that was given up",
            Failure::NoRoom => "it has no room",
            Failure::Corrupt => "it gets or has damaged state",
            Failure::NotStored => "its disk failed",
            Failure::Malformed => "it doesn't understand what it is sent",
            Failure::Silent => "it doesn't answer",
        })
    }
}

/// Counts since the shipper was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Checkpoints captured.
    pub captured: u64,
    /// Checkpoints committed.
    pub committed: u64,
    /// Content of all changed blocks of all captures.
    pub raw: ByteCount,
    /// Bytes of parts sent, to all holders together, repetitions included.
    pub sent: ByteCount,
    /// Content of the last capture's changed blocks.
    pub last_raw: ByteCount,
    /// The last capture compressed; zero if it was too large to be encoded at once.
    pub last_encoded: ByteCount,
}

struct Flight {
    parcel: Arc<Parcel>,
    base: CheckpointId,
}

/// Ships the checkpoints of one service in one epoch.
pub struct Shipper {
    me: NodeId,
    terms: Terms,
    part_max: usize,
    set_version: Option<u64>,
    followers: BTreeMap<Member, Follower>,
    /// What is committed, or what this epoch goes on from.
    settled: Point,
    /// What was captured last: above `settled` while it is in flight.
    newest: Point,
    flight: Option<Flight>,
    established: bool,
    stopped: bool,
    commit_due: Option<Instant>,
    last_number: u64,
    stats: Stats,
    encoder: Encoder,
    outputs: VecDeque<Output>,
    planted: Planted,
}

impl Shipper {
    /// A shipper on the node `me`, under `terms`, going on from `restored`; `None` for a service
    /// that starts without state. It does nothing before the first [`Input::SetHolders`].
    pub fn new(me: NodeId, terms: Terms, restored: Option<(CheckpointId, Image)>) -> Shipper {
        let settled = restored.map_or(Point::none(), |(id, image)| Point { id, image });
        Shipper {
            me,
            terms,
            part_max: PART_MAX,
            set_version: None,
            followers: BTreeMap::new(),
            newest: settled.clone(),
            settled,
            flight: None,
            established: false,
            stopped: false,
            commit_due: None,
            last_number: 0,
            stats: Stats::default(),
            encoder: Encoder::default(),
            outputs: VecDeque::new(),
            planted: Planted::default(),
        }
    }

    /// Makes parts of at most this many bytes: for links where a full part takes too long.
    ///
    /// # Panics
    /// If it is not within `CUT_MIN` and `PART_MAX`.
    pub fn with_part_max(mut self, part_max: usize) -> Shipper {
        assert!((CUT_MIN..=PART_MAX).contains(&part_max), "a part holds at least a block");
        self.part_max = part_max;
        self
    }

    /// Plants a mistake, with the feature `faults`.
    #[cfg(any(test, feature = "faults"))]
    pub fn plant(&mut self, fault: Fault) {
        self.planted.plant(fault);
    }

    /// The state that was captured last, or that it began with.
    pub fn shadow(&self) -> &Image {
        &self.newest.image
    }

    /// The highest committed checkpoint: what it began with, once that is established.
    pub fn committed(&self) -> CheckpointId {
        if self.established { self.settled.id } else { NONE }
    }

    /// Whether what it began with is held by all members.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// The checkpoint that was captured and is not yet committed.
    pub fn in_flight(&self) -> Option<CheckpointId> {
        self.flight.as_ref().map(|_| self.newest.id)
    }

    /// The number of the state that was captured last, or that it began with; 0 if there is none.
    pub fn last_seq(&self) -> u64 {
        self.newest.id.seq
    }

    /// Who has acknowledged `id` or something later, members and joining holders alike.
    pub fn acknowledged(&self, id: CheckpointId) -> impl Iterator<Item = Member> {
        let has = move |f: &Follower| f.acked.as_ref().is_some_and(|acked| acked.id >= id);
        self.followers.iter().filter(move |(_, f)| has(f)).map(|(member, _)| *member)
    }

    /// Who has yet to acknowledge the newest checkpoint before it is committed.
    pub fn awaited(&self) -> impl Iterator<Item = Member> {
        let lacks = |f: &Follower| f.acked.as_ref().is_none_or(|acked| acked.id < self.newest.id);
        let awaited = self.followers.iter().filter(move |(_, f)| self.is_required(f) && lacks(f));
        awaited.map(|(member, _)| *member)
    }

    /// On how many members other than this node `id` is: what `min_copies` is compared with.
    pub fn copies(&self, id: CheckpointId) -> usize {
        let counts = |m: &Member| m.node != self.me && self.followers[m].role == Role::Member;
        self.acknowledged(id).filter(counts).count()
    }

    /// What it has counted.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// When to call `handle` with [`Input::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        let resends = self.followers.values().filter_map(|follower| follower.resend_at);
        resends.chain(self.commit_due).min()
    }

    /// The next thing to be done.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes an input; then `poll` until `None`.
    ///
    /// # Panics
    /// If a checkpoint is captured while another is in flight, or if a diff doesn't fit the shadow.
    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.stopped {
            return;
        }
        match input {
            Input::SetHolders(set) => self.set_holders(now, set),
            Input::Durable(durable) => self.terms.durable = durable,
            Input::Captured { diff } => self.captured(now, diff),
            Input::Message { from, message } => self.message(now, from, message),
            Input::LinkBack { node } => self.link_back(now, node),
            Input::Tick => {}
        }
        self.check_timers(now);
    }

    fn set_holders(&mut self, now: Instant, set: HolderSet) {
        if self.set_version.is_some_and(|known| known > set.version) {
            return;
        }
        self.set_version = Some(set.version);
        let HolderSet { members, joining, .. } = set;
        self.followers.retain(|member, _| members.contains(member) || joining.contains(member));
        let roles = members.iter().map(|member| (*member, Role::Member));
        let joining = joining.difference(&members).map(|member| (*member, Role::Joining));
        let mut fresh = Vec::new();
        for (member, role) in roles.chain(joining) {
            let follower = self.followers.entry(member).or_insert_with(|| {
                fresh.push(member);
                Follower::new(role)
            });
            // Who was a member once stays bound to acknowledge while it is listed at all.
            follower.caught_up |= follower.role == Role::Member && !fresh.contains(&member);
            follower.role = role;
        }
        for member in fresh {
            self.adopt(now, member);
        }
        self.settle(now);
    }

    fn captured(&mut self, now: Instant, diff: Diff) {
        assert!(self.flight.is_none(), "one checkpoint is in flight at a time");
        let base = self.newest.id;
        let id = CheckpointId { epoch: self.terms.epoch.counter, seq: base.seq + 1 };
        self.newest.image.apply_unrooted(&diff).expect("a capture fits the state before it");
        self.newest.id = id;
        self.stats.captured += 1;
        self.stats.last_raw = diff.raw_bytes();
        self.stats.raw += diff.raw_bytes();
        let parcel = Parcel::eager(diff, self.part_max, EAGER_PARTS_MAX, &mut self.encoder);
        self.stats.last_encoded = parcel.encoded_bytes();
        self.flight = Some(Flight { parcel: Arc::new(parcel), base });
        self.commit_due = None;
        let members: Vec<Member> = self.followers.keys().copied().collect();
        for member in members {
            self.advance(now, member);
        }
        self.settle(now);
    }

    fn message(&mut self, now: Instant, from: NodeId, message: FromHolder) {
        let FromHolder { service, epoch, incarnation, answer } = message;
        if service != self.terms.service {
            return;
        }
        if let Answer::Refuse { why: Why::Superseded { by }, .. } = answer
            && by.supersedes(&self.terms.epoch)
        {
            self.stopped = true;
            self.followers.clear();
            self.commit_due = None;
            self.outputs.push_back(Output::Superseded { by });
            return;
        }
        if epoch != self.terms.epoch {
            return;
        }
        let same_node: Vec<Member> =
            self.followers.keys().filter(|member| member.node == from).copied().collect();
        for member in same_node {
            let exact = member.incarnation == incarnation;
            let later = incarnation > member.incarnation;
            // With `disk`, whoever acknowledges has it on disk, so a restart doesn't matter.
            let lasts =
                self.terms.durable == Durability::Disk || self.planted.has(Fault::CountsRestarted);
            if exact || (later && lasts) {
                self.answer(now, member, answer.clone());
            } else if later {
                self.fail(member, Failure::Restarted);
            }
        }
    }

    fn answer(&mut self, now: Instant, member: Member, answer: Answer) {
        let Some(follower) = self.followers.get_mut(&member) else { return };
        if matches!(follower.stage, Stage::Failed) {
            return;
        }
        follower.hear(now);
        match answer {
            Answer::Ack { id } => self.acked(now, member, id),
            Answer::Received { transfer, part, .. } => {
                let Stage::Sending(sending) = &mut follower.stage else { return };
                if sending.number != transfer {
                    return;
                }
                let (sent, spent) = (sending.flying.remove(&part), sending.is_spent());
                if let Some(sent) = sent {
                    follower.measure(now, sent);
                }
                if spent {
                    // All arrived, and yet it isn't complete: the holder has dropped some.
                    self.send_newest(now, member);
                } else {
                    self.fill_window(now, member);
                }
            }
            Answer::Refuse { number, why } if follower.awaits(number) => {
                self.refused(now, member, why);
            }
            Answer::Outline { ticket, .. } | Answer::Nodes { ticket, .. }
                if follower.awaits(ticket) =>
            {
                self.surveyed(now, member, answer);
            }
            _ => {}
        }
    }

    fn acked(&mut self, now: Instant, member: Member, id: CheckpointId) {
        let follower = self.followers.get_mut(&member).expect("it answered");
        let point = match &follower.stage {
            Stage::Sending(sending) if sending.target.id == id => sending.target.clone(),
            Stage::Adopting { point, .. } if point.id == id => point.clone(),
            _ if id == self.settled.id => self.settled.clone(),
            _ if id == self.newest.id => self.newest.clone(),
            _ => return,
        };
        if follower.acked.as_ref().is_some_and(|acked| acked.id >= id) {
            return;
        }
        follower.acked = Some(point);
        follower.recover();
        self.settle(now);
        self.advance(now, member);
    }

    fn refused(&mut self, now: Instant, member: Member, why: Why) {
        let follower = self.followers.get_mut(&member).expect("it answered");
        let joins = follower.role == Role::Joining && !follower.caught_up;
        if !matches!(why, Why::NoRoom | Why::NotStored) {
            follower.missing = follower.missing.saturating_add(1);
        }
        let patient = follower.missing < MISSING_MAX;
        match why {
            Why::BaseMissing { have, root } if have != NONE && patient => {
                let comparison = Comparison::new(have, root, self.newest.clone());
                follower.stage = Stage::Surveying(comparison.into());
                self.ask_next(now, member);
            }
            // What a joining holder has is of no use: it gets all.
            Why::BaseMissing { .. } | Why::Ahead { .. } | Why::Gone | Why::Corrupt
                if joins && follower.missing <= MISSING_MAX =>
            {
                follower.acked = Some(Point::none());
                self.send_newest(now, member);
            }
            Why::Corrupt if patient => self.send_newest(now, member),
            Why::BaseMissing { .. } | Why::Gone => self.fail(member, Failure::LostState),
            Why::Ahead { .. } => self.fail(member, Failure::Ahead),
            Why::NoRoom => self.fail(member, Failure::NoRoom),
            Why::Corrupt => self.fail(member, Failure::Corrupt),
            Why::NotStored => self.fail(member, Failure::NotStored),
            Why::Malformed => self.fail(member, Failure::Malformed),
            Why::Superseded { .. } => {}
        }
    }

    /// Takes an answer to a survey's question.
    fn surveyed(&mut self, now: Instant, member: Member, answer: Answer) {
        let follower = self.followers.get_mut(&member).expect("it answered");
        let Stage::Surveying(comparison) = &mut follower.stage else { return };
        if comparison.take(answer).is_err() {
            return self.refused(now, member, Why::Corrupt);
        }
        self.ask_next(now, member);
    }

    /// Asks the next question of a survey, or sends what it found out.
    fn ask_next(&mut self, now: Instant, member: Member) {
        let follower = self.followers.get_mut(&member).expect("it is surveyed");
        let Stage::Surveying(comparison) = &mut follower.stage else { return };
        self.last_number += 1;
        if let Some(ask) = comparison.ask(self.last_number) {
            follower.expect_answer(now);
            return self.send(member, Channel::Bulk, ask);
        }
        let (diff, base, target) = comparison.finish();
        self.send_diff(now, member, diff, base, target);
    }

    /// Asks a holder that is new here to take what is settled as the last.
    fn adopt(&mut self, now: Instant, member: Member) {
        self.last_number += 1;
        let (transfer, point) = (self.last_number, self.settled.clone());
        let (id, root) = (point.id, point.root());
        let follower = self.followers.get_mut(&member).expect("just added");
        let joins = follower.role == Role::Joining;
        follower.stage = Stage::Adopting { transfer, point, joins };
        follower.expect_answer(now);
        self.send(member, Channel::State, Ask::Adopt { transfer, id, root, joins });
    }

    /// Gives a follower that owes nothing what it lacks.
    fn advance(&mut self, now: Instant, member: Member) {
        let follower = self.followers.get_mut(&member).expect("it is followed");
        let Some(acked) = follower.acked.as_ref().map(|acked| acked.id) else { return };
        if !matches!(follower.stage, Stage::Following) {
            return;
        }
        if acked != self.newest.id {
            self.send_newest(now, member);
        } else if follower.role == Role::Joining && !follower.caught_up {
            follower.caught_up = true;
            self.outputs.push_back(Output::CaughtUp { member });
        }
    }

    /// Sends what leads from what a follower acknowledged to the newest state.
    fn send_newest(&mut self, now: Instant, member: Member) {
        let follower = &self.followers[&member];
        let base = follower.acked.clone().unwrap_or(Point::none());
        let target = self.newest.clone();
        match &self.flight {
            Some(flight) if flight.base == base.id => {
                let small = flight.parcel.parts() as usize <= WINDOW;
                let channel = if small { Channel::State } else { Channel::Bulk };
                let parcel = flight.parcel.clone();
                self.start(now, member, channel, parcel, base.id, target);
            }
            _ => {
                let diff = Diff::between(&base.image, &target.image);
                self.send_diff(now, member, diff, base.id, target);
            }
        }
    }

    fn send_diff(
        &mut self,
        now: Instant,
        member: Member,
        diff: Diff,
        base: CheckpointId,
        target: Point,
    ) {
        let parcel = Arc::new(Parcel::new(diff, self.part_max));
        self.start(now, member, Channel::Bulk, parcel, base, target);
    }

    fn start(
        &mut self,
        now: Instant,
        member: Member,
        channel: Channel,
        parcel: Arc<Parcel>,
        base: CheckpointId,
        target: Point,
    ) {
        self.last_number += 1;
        let transfer = Transfer::new(self.last_number, channel, parcel, base, target);
        let follower = self.followers.get_mut(&member).expect("it is followed");
        follower.stage = Stage::Sending(transfer.into());
        follower.expect_answer(now);
        self.fill_window(now, member);
    }

    /// Sends as many new parts as may be under way.
    fn fill_window(&mut self, now: Instant, member: Member) {
        let follower = self.followers.get_mut(&member).expect("it is followed");
        let Stage::Sending(transfer) = &mut follower.stage else { return };
        let parts = transfer.next_parts(now, WINDOW);
        if !parts.is_empty() {
            follower.expect_answer(now);
        }
        self.send_parts(member, &parts);
    }

    fn send_parts(&mut self, member: Member, parts: &[u32]) {
        let committed = self.committed();
        for part in parts {
            let follower = self.followers.get_mut(&member).expect("it is followed");
            let Stage::Sending(transfer) = &follower.stage else { return };
            let ship = transfer.ship(*part, committed);
            let channel = transfer.channel;
            follower.told = committed;
            self.stats.sent += ByteCount(ship.body.bytes().len() as u64);
            self.send(member, channel, Ask::Ship(ship));
        }
    }

    fn is_required(&self, follower: &Follower) -> bool {
        let awaited = follower.caught_up && !self.planted.has(Fault::JoiningNotAwaited);
        follower.role == Role::Member || awaited
    }

    /// Commits what can be committed.
    fn settle(&mut self, now: Instant) {
        if self.set_version.is_none() {
            return;
        }
        let skip = usize::from(self.planted.has(Fault::CommitsWithoutOne));
        let lowest = {
            let required = self.followers.values().filter(|f| self.is_required(f)).skip(skip);
            required.map(|f| f.acked.as_ref().map(|acked| acked.id)).min()
        };
        let holds = |id| lowest.is_none_or(|lowest| lowest.is_some_and(|lowest| lowest >= id));
        if !self.established && holds(self.settled.id) {
            self.established = true;
            self.commit_due = Some(now + COMMIT_QUIET);
            self.outputs.push_back(Output::Established { id: self.settled.id });
        }
        if self.flight.is_some() && self.established && holds(self.newest.id) {
            self.flight = None;
            self.settled = self.newest.clone();
            self.stats.committed += 1;
            self.commit_due = Some(now + COMMIT_QUIET);
            let (id, copies) = (self.settled.id, self.copies(self.settled.id));
            self.outputs.push_back(Output::Committed { id, copies });
        }
    }

    fn fail(&mut self, member: Member, why: Failure) {
        let follower = self.followers.get_mut(&member).expect("it is followed");
        if !why.may_pass() {
            follower.stage = Stage::Failed;
            follower.resend_at = None;
        }
        if follower.told_failures.insert(why) {
            self.outputs.push_back(Output::HolderFailed { member, why });
        }
    }

    fn link_back(&mut self, now: Instant, node: NodeId) {
        let members: Vec<Member> =
            self.followers.keys().filter(|member| member.node == node).copied().collect();
        for member in members {
            let follower = self.followers.get_mut(&member).expect("listed");
            // What was told last may have been lost with the link.
            follower.told = NONE;
            if follower.resend_at.is_some() {
                follower.expect_answer(now);
                self.resend(member);
            }
            if self.flight.is_none() && self.committed() != NONE {
                self.commit_due.get_or_insert(now + COMMIT_QUIET);
            }
        }
    }

    fn check_timers(&mut self, now: Instant) {
        if self.commit_due.is_some_and(|due| due <= now) {
            self.commit_due = None;
            self.tell_commit();
        }
        let late = |f: &Follower| f.resend_at.is_some_and(|at| at <= now);
        let members: Vec<Member> =
            self.followers.iter().filter(|(_, f)| late(f)).map(|(member, _)| *member).collect();
        for member in members {
            let follower = self.followers.get_mut(&member).expect("listed");
            follower.back_off(now);
            if follower.is_silent(now) {
                self.fail(member, Failure::Silent);
            }
            self.resend(member);
        }
    }

    fn tell_commit(&mut self) {
        let id = self.committed();
        let mut to = Vec::new();
        for (member, follower) in &mut self.followers {
            let has = follower.acked.as_ref().is_some_and(|acked| acked.id >= id);
            if has && follower.told < id && !matches!(follower.stage, Stage::Failed) {
                follower.told = id;
                to.push(*member);
            }
        }
        for member in to {
            self.send(member, Channel::State, Ask::Commit { id });
        }
    }

    /// Sends again what isn't answered.
    fn resend(&mut self, member: Member) {
        let follower = self.followers.get_mut(&member).expect("it is followed");
        match &mut follower.stage {
            Stage::Adopting { transfer, point, joins } => {
                let (transfer, joins) = (*transfer, *joins);
                let (id, root) = (point.id, point.root());
                let ask = Ask::Adopt { transfer, id, root, joins };
                self.send(member, Channel::State, ask);
            }
            Stage::Surveying(comparison) => {
                let ask = comparison.again();
                self.send(member, Channel::Bulk, ask);
            }
            Stage::Sending(transfer) => {
                let parts: Vec<u32> = transfer.flying.keys().copied().collect();
                self.send_parts(member, &parts);
            }
            Stage::Following | Stage::Failed => {}
        }
    }

    fn send(&mut self, member: Member, channel: Channel, ask: Ask) {
        let message = ToHolder { terms: self.terms, ask };
        self.outputs.push_back(Output::Send { to: member.node, channel, message });
    }
}

#[cfg(test)]
mod tests;
