//! The value: inputs in, outputs out.
//!
//! What it does not know: clocks, threads, sockets, disks; what commands mean.
//!
//! Invariants
//! - Everything happens inside `handle`; between two calls nothing runs.
//! - The same inputs with the same seed give the same outputs.
//! - A node counts as having only what is safe on its disk: a vote is given, an entry confirmed
//!   and a command applied after the record of it is. So a restarted node never knows less than
//!   anybody was told.
//! - What is committed is neither dropped nor replaced; a message that asks for it is dropped and
//!   counted.
//! - After `Stopped` nothing comes out any more.
//! - Dropping the value is a crash: what was persisted is what a new value starts from.
//!
//! Lengths: the log's first `n` entries are those with indexes below `n`; "committed", "applied",
//! "matched", "flushed" are such numbers.
//!
//! Units: instants of the node's own clock. Limits: see the modules that hold them.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use jizoku_types::{Instant, NodeId, Span};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::election::{Act, Due, Election, Role};
use crate::interface::{Config, Dropped, Input, Output, RefuseReason, Status, StopReason};
use crate::log::{COMMAND_MAX, Command, Entry, LogId, MEMBERS_MAX, Members, Payload};
use crate::outbox::{Mark, Outbox};
use crate::proposals::{Arrival, Attempt, AttemptKey, Proposals, Wish};
use crate::record::{Change, Record, RecoverError, Recovered, SnapshotMeta};
use crate::wire::{Body, ChangeFailure, Notice, Refusal, open};

mod apply;
mod change;
mod follow;
mod lead;
mod snapshot;
mod vote;

use change::CATCH_UP_MAX;
use lead::Leading;
use snapshot::{Incoming, Installing};
use vote::{Campaign, Sounding};

/// A learner gets every so manieth heartbeat only: it elects nobody, and a large cluster is mostly
/// learners. It still gets entries at once.
const LEARNER_TURN: u64 = 4;

/// One node's share of the replicated log. See the crate's description.
#[derive(Debug)]
pub struct Consensus {
    config: Config,
    random: ChaCha8Rng,
    now: Instant,
    outbox: Outbox,
    /// Vote, log and snapshot, with what is not safe yet.
    state: Recovered,
    /// Safe once the newest vote is.
    vote_mark: Mark,
    /// How much of the log is safe.
    flushed: u64,
    /// How much of it will be, once each mark is safe. In order.
    flushing: VecDeque<(Mark, u64)>,
    leading: Option<Leading>,
    campaign: Option<Campaign>,
    sounding: Option<Sounding>,
    /// How much of the log is known to be as the present leader's.
    verified: u64,
    /// The newest message whose entries were not safe when they came.
    owed: Option<u64>,
    committed: u64,
    applied: u64,
    applied_id: Option<LogId>,
    /// Who takes part, by the newest entry that says so; and that entry.
    members: Members,
    members_at: Option<LogId>,
    /// The same, by the newest such entry that was applied.
    settled: Members,
    settled_at: Option<LogId>,
    incoming: Option<Incoming>,
    installing: Option<Installing>,
    /// What the snapshot that was asked for covers.
    taking: Option<SnapshotMeta>,
    /// A snapshot that is being written; then the log is cut.
    cutting: Option<Mark>,
    /// How much was applied when a snapshot was last asked for.
    taken_at: u64,
    proposals: Proposals,
    election: Election,
    /// Whose links were reset.
    gone: BTreeSet<NodeId>,
    /// When the elected leader was last heard.
    heard: Option<Instant>,
    /// What the outside was told.
    leader: Option<NodeId>,
    term: u64,
    /// The newest term that this node knew when the value was made.
    born_in: u64,
    dropped: Dropped,
    stopped: bool,
}

impl Consensus {
    /// A value that starts from what its disk has.
    ///
    /// If there is a snapshot, it is installed before anything is applied. On an error nothing was
    /// changed.
    ///
    /// # Panics
    /// If the times in `config` contradict each other.
    pub fn new(
        now: Instant,
        config: Config,
        recovered: Recovered,
    ) -> Result<Consensus, RecoverError> {
        config.check();
        if recovered.last().is_some_and(|last| last.term > recovered.term()) {
            return Err(RecoverError::Refused);
        }
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        let mut consensus = Consensus {
            outbox: Outbox::new(config.cluster, config.generation),
            proposals: Proposals::new(config.me, random.next_u64()),
            election: Election::new(&config),
            born_in: recovered.term(),
            config,
            random,
            now,
            state: recovered,
            vote_mark: Mark::default(),
            flushed: 0,
            flushing: VecDeque::new(),
            leading: None,
            campaign: None,
            sounding: None,
            verified: 0,
            owed: None,
            committed: 0,
            applied: 0,
            applied_id: None,
            members: Members::default(),
            members_at: None,
            settled: Members::default(),
            settled_at: None,
            incoming: None,
            installing: None,
            taking: None,
            cutting: None,
            taken_at: 0,
            gone: BTreeSet::new(),
            heard: None,
            leader: None,
            term: 0,
            dropped: Dropped::default(),
            stopped: false,
        };
        consensus.recover();
        consensus.settle(now);
        Ok(consensus)
    }

    /// Gives out what the disk has, as far as it is known to be committed.
    fn recover(&mut self) {
        for change in self.state.behind_snapshot() {
            self.record(change);
        }
        self.flushed = self.state.len();
        self.tell_members();
        if let Some((meta, bytes)) = self.state.snapshot.clone() {
            self.restore(meta, bytes);
        }
    }

    /// Takes one input. `now` must not go back; if it does, the latest one counts.
    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.stopped {
            return;
        }
        self.now = self.now.max(now);
        let now = self.now;
        self.take(now, input);
        self.settle(now);
    }

    /// The next output, until there is none.
    pub fn poll(&mut self) -> Option<Output> {
        self.outbox.next_output()
    }

    /// When to call `handle` with [`Input::Tick`] at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        let proposals = self.proposals.deadline(self.leader.map(|_| self.term));
        let silence = self.leader.and_then(|_| self.silence_at());
        let change = self.leading.as_ref().and_then(Leading::deadline);
        [proposals, silence, change, self.election.deadline()].into_iter().flatten().min()
    }

    /// What this node knows of itself.
    pub fn status(&self) -> Status {
        Status {
            me: self.config.me,
            leader: self.leader,
            term: self.term,
            voters: self.members.voters(),
            learners: self.members.learners(),
            last: self.state.last(),
            applied: self.applied_id,
            snapshot: self.state.snapshot_last(),
            dropped: self.dropped,
        }
    }

    fn take(&mut self, now: Instant, input: Input) {
        match input {
            Input::Message { from, bytes } => self.message(now, from, &bytes),
            Input::Propose { id, command } => self.propose(now, id, command),
            Input::Persisted { token } => {
                self.outbox.persisted(token);
                self.flushed_more();
            }
            Input::PersistFailed { .. } => self.stop(StopReason::Disk),
            Input::SnapshotTaken { index, bytes } => self.snapshot_taken(index, bytes),
            Input::ChangeVoters { id, voters, learners } => {
                let count = voters.union(&learners).count();
                if voters.is_empty() || count > MEMBERS_MAX || !voters.is_disjoint(&learners) {
                    self.proposals.refuse_new(id, RefuseReason::OutOfBounds);
                } else {
                    let deadline = now + self.config.proposal_timeout + CATCH_UP_MAX;
                    self.proposals.add(now, id, Wish::Voters { voters, learners }, deadline);
                }
            }
            Input::TransferLeader { to } => self.transfer_leader(to, true),
            Input::Bootstrap => self.bootstrap(),
            Input::PeerDown { node } => {
                self.gone.insert(node);
                let last = self.state.last();
                let acts = self.election.peer_gone(now, node, &self.members, last);
                acts.into_iter().for_each(|act| self.act(act));
            }
            Input::Tick => {}
        }
    }

    fn propose(&mut self, now: Instant, id: u64, command: Vec<u8>) {
        if command.len() > COMMAND_MAX {
            self.proposals.refuse_new(id, RefuseReason::OutOfBounds);
        } else {
            let deadline = now + self.config.proposal_timeout;
            self.proposals.add(now, id, Wish::Command(command), deadline);
        }
    }

    fn bootstrap(&mut self) {
        if self.state.is_empty() {
            let alone = BTreeSet::from([self.config.me]);
            let members = Members { voters: [alone.clone()].into(), all: alone };
            self.append_own(Payload::Members(members));
        }
    }

    fn message(&mut self, now: Instant, from: NodeId, bytes: &[u8]) {
        let body = match open(self.config.cluster, self.config.generation, bytes) {
            Ok(body) => body,
            Err(Refusal::Malformed) => {
                self.dropped.malformed += 1;
                return;
            }
            Err(Refusal::Foreign) => {
                self.dropped.foreign += 1;
                return;
            }
        };
        self.gone.remove(&from);
        self.election.peer_back(from);
        match body {
            Body::Append { term, stamp, before, entries, committed } => {
                if self.follow(now, from, term) {
                    self.append(from, (term, stamp), before, entries, committed);
                }
            }
            Body::Appended { term, stamp, matched } => {
                self.appended(now, from, (term, stamp), matched);
            }
            Body::Conflict { term, stamp, hint } => self.conflict(now, from, (term, stamp), hint),
            Body::LaterTerm { term } => self.later_term(from, term),
            Body::AskVote { term, last, pre: true, .. } => self.sounded(now, from, term, last),
            Body::AskVote { term, last, pre: false, transfer } => {
                self.asked(now, from, term, last, transfer);
            }
            Body::Voted { term, pre } => self.voted(from, term, pre),
            Body::Snapshot { term, stamp, meta, total, offset, part } => {
                if self.follow(now, from, term) {
                    self.snapshot_part(from, (term, stamp), meta, total, offset, &part);
                }
            }
            Body::SnapshotAt { term, stamp, last, next } => {
                self.snapshot_at(now, from, (term, stamp), last, next);
            }
            Body::HandOver { term } => self.handed_over(now, from, term),
            Body::Notice(notice) => self.notice(now, from, notice),
        }
    }

    fn notice(&mut self, now: Instant, from: NodeId, notice: Notice) {
        match notice {
            // In that term this node may have led in an earlier life, and taken the command: it
            // must not say that it did not. Who proposed it will see in the log.
            Notice::Propose { term, .. } if term <= self.born_in => {}
            Notice::Propose { term, life, id, attempt, command } => {
                let key = AttemptKey { origin: from, life, id, attempt };
                self.arrived(key, term, Wish::Command(command));
            }
            Notice::ChangeVoters { life, id, attempt, voters, learners } => {
                let key = AttemptKey { origin: from, life, id, attempt };
                self.arrived(key, self.term, Wish::Voters { voters, learners });
            }
            Notice::NotTaken { life, id, attempt } => {
                if life == self.proposals.life() {
                    self.proposals.not_taken(now, id, attempt, self.pause());
                }
            }
            Notice::VotersChanged { life, id, attempt, result } => {
                if life == self.proposals.life() {
                    self.voters_changed(id, attempt, result);
                }
            }
            Notice::TransferLeader { to } => self.transfer_leader(to, false),
            Notice::LeaderGone { term, last } => {
                let own = self.state.last();
                if let Some(act) = self.election.asked_gone(now, from, term, last, own) {
                    self.act(act);
                }
            }
            Notice::GoneToo { term } => {
                if let Some(act) = self.election.agreed_gone(from, term, &self.members) {
                    self.act(act);
                }
            }
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Agree { to, term } => self.outbox.notify(to, Notice::GoneToo { term }),
            Act::Elect => self.campaign(false),
        }
    }

    /// Does whatever is due until nothing is, then gives out what came of it.
    fn settle(&mut self, now: Instant) {
        self.advance(now);
        self.observe(now);
        while let Some(due) = self.election.due(now, self.random.next_u64()) {
            self.begin(now, due);
            self.observe(now);
        }
        if self.hand_out(now) {
            self.advance(now);
            self.observe(now);
        }
        self.proposals.expire(now);
        while let Some((id, reason)) = self.proposals.next_refused() {
            self.outbox.output(Output::Refused { id, leader: self.leader, reason });
        }
        self.replicate(now, false);
        self.outbox.seal_records();
    }

    fn begin(&mut self, now: Instant, due: Due) {
        match due {
            Due::Heartbeat => self.replicate(now, true),
            Due::PreVote => self.sound(),
            Due::AskGone { term } => {
                let last = self.state.last();
                for voter in self.others() {
                    self.outbox.notify(voter, Notice::LeaderGone { term, last });
                }
            }
        }
    }

    /// Every voter but this node.
    fn others(&self) -> Vec<NodeId> {
        let me = self.config.me;
        self.members.voters().into_iter().filter(|voter| *voter != me).collect()
    }

    /// Hands proposals to the leader. Gives whether there were any for this node itself.
    fn hand_out(&mut self, now: Instant) -> bool {
        let Some(leader) = self.leader else { return false };
        let patience = self.config.election_min;
        let mut own = false;
        while let Some(Attempt { id, attempt, wish }) =
            self.proposals.next(now, self.term, patience)
        {
            let life = self.proposals.life();
            if leader == self.config.me {
                own = true;
                let key = AttemptKey { origin: leader, life, id, attempt };
                self.arrived(key, self.term, wish);
                continue;
            }
            let notice = match wish {
                Wish::Command(command) => {
                    Notice::Propose { term: self.term, life, id, attempt, command }
                }
                Wish::Voters { voters, learners } => {
                    Notice::ChangeVoters { life, id, attempt, voters, learners }
                }
            };
            self.outbox.notify(leader, notice);
        }
        own
    }

    /// An attempt arrived that this node shall put into its log as the leader of `term`.
    fn arrived(&mut self, key: AttemptKey, term: u64, wish: Wish) {
        match self.proposals.arrived(key) {
            Arrival::Seen => return,
            Arrival::Refused => {
                self.not_taken(key);
                return;
            }
            Arrival::New => {}
        }
        let AttemptKey { origin, life, id, .. } = key;
        let leads = self.leading.is_some();
        match wish {
            Wish::Command(bytes) if leads && term == self.state.term() => {
                self.append_own(Payload::Command(Command { origin, life, id, bytes }));
            }
            Wish::Command(_) => self.not_taken(key),
            Wish::Voters { voters, learners } => self.change_asked(key, voters, learners),
        }
    }

    /// Tells the proposer that this attempt is not in the log, and never will be.
    fn not_taken(&mut self, key: AttemptKey) {
        let AttemptKey { origin, life, id, attempt } = key;
        self.proposals.decide_refused(key);
        if origin == self.config.me {
            self.proposals.not_taken(self.now, id, attempt, self.pause());
        } else {
            self.outbox.notify(origin, Notice::NotTaken { life, id, attempt });
        }
    }

    /// A change of voters that was proposed here ended, or must be tried again after a pause.
    fn voters_changed(&mut self, id: u64, attempt: u64, result: Result<(), ChangeFailure>) {
        let reason = match result {
            Ok(()) => {
                if self.proposals.end(id, attempt) {
                    self.outbox.output(Output::VotersChanged { id });
                }
                return;
            }
            Err(ChangeFailure::NotLeader) => {
                self.proposals.not_taken(self.now, id, attempt, self.pause());
                return;
            }
            Err(ChangeFailure::Busy) => RefuseReason::Busy,
            Err(ChangeFailure::Lagging) => RefuseReason::Lagging,
            Err(ChangeFailure::Unknown) => RefuseReason::Unknown,
        };
        self.proposals.refuse(id, attempt, reason);
    }

    /// How long to wait before a proposal that was not taken is made again.
    fn pause(&self) -> Span {
        self.config.heartbeat / 8
    }

    /// Whether this node may ask for votes. A voter that is being let go stays one until that is
    /// committed: it may be the only one with a log that can be elected.
    fn votes(&self) -> bool {
        let me = &self.config.me;
        let within = |members: &Members| members.voters.iter().any(|set| set.contains(me));
        within(&self.members) || within(&self.settled)
    }

    /// Whether this node is the only voter.
    fn alone(&self) -> bool {
        matches!(&self.members.voters[..],
            [set] if set.len() == 1 && set.contains(&self.config.me))
    }

    /// Who was elected in the newest term, as far as this node knows.
    fn elected(&self) -> Option<NodeId> {
        self.state.vote.filter(|vote| vote.elected).map(|vote| vote.node)
    }

    /// Acts on what this node became.
    fn observe(&mut self, now: Instant) {
        let silent = |heard: Instant| now.since(heard) >= self.patience(Role::Leader);
        if self.leading.is_some() && !self.alone() && self.last_heard().is_none_or(silent) {
            // Who follows it in its part of a partition must not believe in it for ever.
            self.step_down();
        }
        let role = match &self.leading {
            Some(_) => Role::Leader,
            None if self.votes() => Role::Voter,
            None => Role::Learner,
        };
        let (alone, term, elected) = (self.alone(), self.state.term(), self.elected());
        if role != self.election.role() {
            self.election.set_role(now, role, alone, self.random.next_u64());
        }
        self.election.set_leader(elected.map(|node| (node, term)));
        let leader = elected.filter(|_| {
            let heard = if role == Role::Leader && alone { Some(now) } else { self.last_heard() };
            heard.is_some_and(|heard| now.since(heard) < self.patience(role))
        });
        if (leader, term) != (self.leader, self.term) {
            (self.leader, self.term) = (leader, term);
            self.outbox.output(Output::LeaderIs { leader, term });
        }
    }

    /// When the leader was last heard; as the leader: when a majority was.
    fn last_heard(&self) -> Option<Instant> {
        self.leading.as_ref().map_or(self.heard, |leading| leading.quorum_heard)
    }

    /// How long a leader may be silent before it isn't called one any more.
    fn patience(&self, role: Role) -> Span {
        match role {
            Role::Leader | Role::Voter => self.config.election_max,
            Role::Learner => self.config.election_max.max(self.config.heartbeat * LEARNER_TURN * 3),
        }
    }

    /// When the leader will have been silent for too long.
    fn silence_at(&self) -> Option<Instant> {
        let at = self.last_heard()? + self.patience(self.election.role());
        // Alone, a node is its own majority and hears itself at any time.
        (at > self.now).then_some(at)
    }

    fn stop(&mut self, reason: StopReason) {
        self.stopped = true;
        self.outbox.clear();
        self.outbox.output(Output::Stopped { reason });
    }
}

/// The log, as everybody's who writes into it.
impl Consensus {
    /// Changes the state, and gives out the record.
    fn record(&mut self, change: Change) {
        let names_members = match &change {
            Change::Append(entries) => {
                entries.iter().any(|entry| matches!(entry.payload, Payload::Members(_)))
            }
            Change::Truncate(_) | Change::Snapshot(..) => true,
            Change::Vote(_) | Change::Purge(_) => false,
        };
        let done = self.state.replay(Record(change.clone()));
        assert!(done.is_ok(), "a change that doesn't fit the log: {change:?}");
        self.outbox.persist(change);
        if names_members {
            self.tell_members();
        }
    }

    fn tell_members(&mut self) {
        (self.members_at, self.members) = self.state.members();
        let (voters, changing) = self.state.members_logged();
        self.outbox.output(Output::MembersLogged { voters, changing });
        self.members_changed();
    }

    /// Entries from this index on are void.
    ///
    /// # Panics
    /// If that would drop what is committed.
    fn truncate(&mut self, from: u64) {
        assert!(from >= self.committed, "what is committed stays");
        self.record(Change::Truncate(from));
        self.forget_flushes(from);
    }

    /// Entries from this index on, safe or on their way, aren't those that count any more.
    fn forget_flushes(&mut self, from: u64) {
        self.flushed = self.flushed.min(from);
        self.flushing.iter_mut().for_each(|(_, upto)| *upto = from.min(*upto));
    }

    /// The log grew: it will be safe up to its end.
    fn flush_log(&mut self) {
        self.flushing.push_back((self.outbox.mark(), self.state.len()));
    }

    /// As the leader, or the first node of all.
    fn append_own(&mut self, payload: Payload) {
        let id = LogId { term: self.state.term(), index: self.state.len() };
        self.record(Change::Append([Entry { id, payload }].into()));
        self.flush_log();
    }

    /// Records became safe.
    fn flushed_more(&mut self) {
        let before = self.flushed;
        let safe = |(mark, _): &mut (Mark, u64)| self.outbox.is_safe(*mark);
        while let Some((_, upto)) = self.flushing.pop_front_if(safe) {
            self.flushed = upto;
        }
        self.vote_safe();
        if self.flushed > before {
            self.answer_what_is_owed();
        }
        self.snapshot_safe();
    }
}

#[cfg(test)]
mod tests;
