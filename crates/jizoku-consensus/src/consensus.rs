//! The value: inputs in, outputs out, openraft's tasks between.
//!
//! What it does not know: clocks, threads, sockets, disks; what commands mean.
//!
//! Invariants
//! - Everything happens inside `handle`; between two calls nothing runs.
//! - The same inputs with the same seed give the same outputs.
//! - After `Stopped` nothing comes out any more. A panic inside openraft is caught and stops the
//!   value: the agent and its services go on.
//! - Dropping the value is a crash: what was persisted is what a new value starts from.
//!
//! Units: instants of the node's own clock. Limits: see the modules that hold them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use jizoku_types::{Instant, NodeId, Span};
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftMetrics;
use openraft::type_config::alias::WatchReceiverOf;

use crate::bridge::{Types, log_id_out, members_out, vote_out};
use crate::effects::Effects;
use crate::election::{Act, Due, Election, Role};
use crate::interface::{Config, Dropped, Input, Output, RefuseReason, Status, StopReason};
use crate::launch::{peers, start};
use crate::leading::{Decide, finish_change};
use crate::log::{COMMAND_MAX, LogId, MEMBERS_MAX, Members, Vote};
use crate::machine::{Machine, Progress};
use crate::members::{self, CATCH_UP_MAX, Changing};
use crate::network::{LEARNER_TURN, SharedVoters};
use crate::proposals::{Arrival, Attempt, AttemptKey, Proposals, Wish};
use crate::record::{RecoverError, Recovered};
use crate::runtime::{Executor, lock};
use crate::serving::{Contact, Serving, SharedContact};
use crate::storage::{SharedState, Storage};
use crate::wire::{Body, ChangeFailure, Notice, Refusal, open};

/// What the value last saw of openraft.
#[derive(Clone, Debug, PartialEq)]
struct View {
    role: Role,
    vote: Vote,
    quorum_heard: Option<Instant>,
    alone: bool,
}

/// One node's share of the replicated log. See the crate's description.
pub struct Consensus {
    config: Config,
    executor: Arc<Executor>,
    effects: Effects,
    state: SharedState,
    progress: Arc<Mutex<Progress>>,
    contact: SharedContact,
    proposals: Proposals,
    changing: Changing,
    serving: Serving,
    metrics: WatchReceiverOf<Types, RaftMetrics<Types>>,
    election: Election,
    voters: SharedVoters,
    members: Members,
    members_at: Option<LogId>,
    /// Whether this node votes by `members`.
    elects: bool,
    leader: Option<NodeId>,
    term: u64,
    /// The newest term that this node knew when the value was made.
    born_in: u64,
    dropped: Dropped,
    stopped: bool,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Drop for Consensus {
    fn drop(&mut self) {
        self.let_go();
    }
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
        let executor = Executor::new(now.as_nanos(), config.seed);
        let effects = Effects::new(config.cluster, config.generation);
        let born_in = recovered.vote.map_or(0, |vote| vote.term);
        let state: SharedState = Arc::new(Mutex::new(recovered));
        let progress: Arc<Mutex<Progress>> = Arc::default();
        let proposals = Proposals::new(config.me, executor.random());
        let contact: SharedContact = Arc::new(Mutex::new(Contact::default()));
        let storage = Storage::new(state.clone(), effects.clone());
        let machine = Machine::new(storage.clone(), progress.clone(), proposals.clone());
        let voters = SharedVoters::default();
        let peers = peers(&config, effects.clone(), voters.clone());
        let raft = start(&config, &executor, peers, storage, machine);
        let Some(raft) = raft else {
            executor.enter(|| executor.clear());
            return Err(RecoverError::Refused);
        };
        let metrics = raft.metrics();
        let serving = Serving::new(
            raft,
            effects.clone(),
            contact.clone(),
            progress.clone(),
            executor.clone(),
        );
        let mut consensus = Consensus {
            election: Election::new(&config),
            config,
            executor,
            effects,
            state,
            progress,
            contact,
            proposals,
            changing: Changing::default(),
            serving,
            metrics,
            voters,
            members: Members::default(),
            members_at: None,
            elects: false,
            leader: None,
            term: 0,
            born_in,
            dropped: Dropped::default(),
            stopped: false,
        };
        let executor = consensus.executor.clone();
        let settled = catch_unwind(AssertUnwindSafe(|| executor.enter(|| consensus.settle(now))));
        settled.map(|()| consensus).map_err(|_| RecoverError::Refused)
    }

    /// Takes one input. `now` must not go back; if it does, the latest one counts.
    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.stopped {
            return;
        }
        let now = now.max(Instant::from_nanos(self.executor.now()));
        let executor = self.executor.clone();
        let done = catch_unwind(AssertUnwindSafe(|| {
            executor.enter(|| {
                executor.advance(now.as_nanos());
                self.take(now, input);
                self.settle(now);
            });
        }));
        if done.is_err() {
            self.stop(StopReason::Broken);
        }
    }

    /// The next output, until there is none.
    pub fn poll(&mut self) -> Option<Output> {
        self.effects.next_output()
    }

    /// When to call `handle` with [`Input::Tick`] at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        let tasks = self.executor.deadline().map(Instant::from_nanos);
        let proposals = self.proposals.deadline(self.leader.map(|_| self.term));
        let silence = self.leader.and_then(|_| self.silence_at());
        [tasks, proposals, silence, self.election.deadline()].into_iter().flatten().min()
    }

    /// What this node knows of itself.
    pub fn status(&self) -> Status {
        let state = lock(&self.state);
        Status {
            me: self.config.me,
            leader: self.leader,
            term: self.term,
            voters: self.members.voters(),
            learners: self.members.learners(),
            last: state.last(),
            applied: lock(&self.progress).applied.as_ref().map(log_id_out),
            snapshot: state.snapshot_last(),
            dropped: self.dropped,
        }
    }

    fn take(&mut self, now: Instant, input: Input) {
        match input {
            Input::Message { from, bytes } => self.message(now, from, &bytes),
            Input::Propose { id, command } => self.propose(now, id, command),
            Input::Persisted { token } => self.effects.persisted(token),
            Input::PersistFailed { .. } => self.stop(StopReason::Disk),
            Input::SnapshotTaken { index, bytes } => {
                lock(&self.progress).snapshot_taken(index, bytes);
            }
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
                lock(&self.contact).gone.insert(node);
                let last = self.last();
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
        let raft = self.serving.raft.clone();
        let alone = [self.config.me].into();
        let members: std::collections::BTreeSet<NodeId> = alone;
        self.executor.spawn(async move {
            // Refused by a node that has a log, as documented.
            let _ = raft.initialize(members).await;
        });
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
        lock(&self.contact).gone.remove(&from);
        self.election.peer_back(from);
        match body {
            Body::Request { call, request } => {
                if !self.serving.serve(from, call, request) {
                    self.dropped.excess += 1;
                }
            }
            Body::Reply { call, reply } => self.effects.reply(from, call, reply),
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
                    self.proposals.not_taken(now, id, attempt, self.config.heartbeat / 8);
                }
            }
            Notice::VotersChanged { life, id, attempt, result } => {
                if life == self.proposals.life() {
                    self.voters_changed(now, id, attempt, result);
                }
            }
            Notice::TransferLeader { to } => self.transfer_leader(to, false),
            Notice::LeaderGone { term, last } => {
                let own = self.last();
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
            Act::Agree { to, term } => self.effects.notify(to, Notice::GoneToo { term }),
            Act::Elect => self.elect(false),
        }
    }

    fn elect(&self, ask_first: bool) {
        let raft = self.serving.raft.clone();
        self.executor.spawn(async move {
            // Fails only if openraft stopped, which `observe` finds.
            let _ = raft.trigger().elect(ask_first).await;
        });
    }

    fn last(&self) -> Option<LogId> {
        lock(&self.state).last()
    }

    /// Runs tasks and whatever is due until nothing is, then gives out what came of it.
    fn settle(&mut self, now: Instant) {
        if self.stopped {
            return;
        }
        self.executor.run();
        self.observe(now);
        let mut busy = true;
        while busy && !self.stopped {
            busy = self.hand_out(now);
            while let Some(due) = self.election.due(now, self.executor.random()) {
                busy = true;
                self.begin(due);
            }
            if busy {
                self.executor.run();
                self.observe(now);
            }
        }
        self.proposals.expire(now);
        while let Some((id, reason)) = self.proposals.next_refused() {
            self.effects.output(Output::Refused { id, leader: self.leader, reason });
        }
        self.effects.seal_records();
    }

    fn begin(&mut self, due: Due) {
        match due {
            Due::Heartbeat => {
                let raft = self.serving.raft.clone();
                self.executor.spawn(async move {
                    let _ = raft.trigger().heartbeat().await;
                });
            }
            Due::PreVote => self.elect(true),
            Due::AskGone { term } => {
                let last = self.last();
                for voter in self.members.voters() {
                    if voter != self.config.me {
                        self.effects.notify(voter, Notice::LeaderGone { term, last });
                    }
                }
            }
        }
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
            self.effects.notify(leader, notice);
        }
        own
    }

    /// An attempt arrived that this node shall put into its log as the leader of `term`.
    fn arrived(&mut self, key: AttemptKey, term: u64, wish: Wish) {
        let decide = Decide {
            me: self.config.me,
            key,
            proposals: self.proposals.clone(),
            effects: self.effects.clone(),
            executor: self.executor.clone(),
            pause: self.config.heartbeat / 8,
        };
        match self.proposals.arrived(key) {
            Arrival::Seen => {}
            Arrival::Refused => decide.not_taken(),
            Arrival::New => {
                let raft = self.serving.raft.clone();
                let changing = self.changing.clone();
                self.executor.spawn(async move {
                    match wish {
                        Wish::Command(bytes) => decide.append(raft, term, bytes).await,
                        Wish::Voters { voters, learners } => {
                            let result = members::change(raft, changing, voters, learners).await;
                            decide.voters_changed(result);
                        }
                    }
                });
            }
        }
    }

    fn voters_changed(
        &mut self,
        now: Instant,
        id: u64,
        attempt: u64,
        result: Result<(), ChangeFailure>,
    ) {
        let pause = self.config.heartbeat / 8;
        finish_change(&self.proposals, &self.effects, (id, attempt), result, (now, pause));
    }

    /// `ours`: asked for here, so it may be passed on to the leader.
    fn transfer_leader(&mut self, to: Option<NodeId>, ours: bool) {
        if self.leader != Some(self.config.me) {
            if ours && let Some(leader) = self.leader {
                self.effects.notify(leader, Notice::TransferLeader { to });
            }
            return;
        }
        let Some(to) = to.or_else(|| self.furthest_voter()) else { return };
        if to == self.config.me || !self.members.voters().contains(&to) {
            return;
        }
        let raft = self.serving.raft.clone();
        self.executor.spawn(async move {
            let _ = raft.trigger().transfer_leader(to).await;
        });
    }

    /// The other voter that has most of the log, as the leader knows it.
    fn furthest_voter(&self) -> Option<NodeId> {
        let metrics = self.metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let gone = lock(&self.contact);
        let others = self.members.voters().into_iter();
        others
            .filter(|voter| *voter != self.config.me && !gone.gone.contains(voter))
            .map(|voter| (replication.get(&voter).copied().flatten(), voter))
            .max()
            .map(|(_, voter)| voter)
    }

    fn view(&mut self) -> Option<View> {
        let metrics = self.metrics.borrow_watched();
        metrics.running_state.as_ref().ok()?;
        let stored = &metrics.membership_config;
        let at = stored.log_id().as_ref().map(log_id_out);
        if at != self.members_at || self.members.voters.is_empty() {
            self.members = members_out(stored.membership());
            self.members_at = at;
            let voters = self.members.voters();
            self.elects = voters.contains(&self.config.me);
            *lock(&self.voters) = voters;
        }
        // A voter that is being let go stays one until that is committed: it may be the only one
        // with a log that can be elected.
        let me = self.config.me;
        let votes = self.elects
            || metrics.committed_membership_config.membership().voter_ids().any(|id| id == me);
        let role = match metrics.state {
            ServerState::Leader => Role::Leader,
            _ if votes => Role::Voter,
            _ => Role::Learner,
        };
        let quorum_heard = metrics.last_quorum_acked.map(|at| Instant::from_nanos(at.0));
        let alone = self.members.voters.len() == 1
            && self.members.voters[0].len() == 1
            && self.members.voters[0].contains(&self.config.me);
        Some(View { role, vote: vote_out(&metrics.vote), quorum_heard, alone })
    }

    /// Looks at what openraft became in a run, and acts on it.
    fn observe(&mut self, now: Instant) {
        let Some(view) = self.view() else {
            self.stop(StopReason::Broken);
            return;
        };
        let random = self.executor.random();
        self.election.set_role(now, view.role, view.alone, random);
        let elected = view.vote.elected;
        self.election.set_leader(elected.then_some((view.vote.node, view.vote.term)));
        let (patience, yielding) = {
            let mut contact = lock(&self.contact);
            (std::mem::take(&mut contact.patience), std::mem::take(&mut contact.yielding))
        };
        if patience {
            self.election.wait_anew(now, random);
        }
        if yielding {
            self.election.yield_turn(now);
        }
        let leader = elected.then_some(view.vote.node).filter(|leader| {
            let heard = if *leader != self.config.me {
                lock(&self.contact).heard.map(Instant::from_nanos)
            } else if view.role != Role::Leader {
                None
            } else if view.alone {
                Some(now)
            } else {
                view.quorum_heard
            };
            heard.is_some_and(|heard| now.since(heard) < self.patience(view.role))
        });
        if (leader, view.vote.term) != (self.leader, self.term) {
            self.leader = leader;
            self.term = view.vote.term;
            self.effects.output(Output::LeaderIs { leader, term: self.term });
        }
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
        let heard = if self.leader == Some(self.config.me) {
            let metrics = self.metrics.borrow_watched();
            metrics.last_quorum_acked.map(|at| Instant::from_nanos(at.0))
        } else {
            lock(&self.contact).heard.map(Instant::from_nanos)
        };
        let at = heard? + self.patience(self.election.role());
        // Alone, a node is its own majority and hears itself at any time.
        (at > Instant::from_nanos(self.executor.now())).then_some(at)
    }

    fn stop(&mut self, reason: StopReason) {
        if !self.stopped {
            self.stopped = true;
            self.let_go();
            self.effects.output(Output::Stopped { reason });
        }
    }

    /// Drops all tasks, which hold parts of this value in circles.
    fn let_go(&mut self) {
        let executor = self.executor.clone();
        let dropped = catch_unwind(AssertUnwindSafe(|| {
            executor.enter(|| {
                executor.clear();
                self.effects.clear();
                lock(&self.progress).clear();
                executor.clear();
            });
        }));
        // A panic while dropping what is broken anyway changes nothing.
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::Consensus;

    #[test]
    fn a_value_may_move_to_another_thread() {
        fn movable<T: Send + 'static>() {}
        movable::<Consensus>();
    }
}
