//! How openraft calls other nodes: each call becomes a message with a number, and ends with the
//! answer that carries the number, or when its time is over.
//!
//! What it does not know: links; whether a message arrived.
//!
//! Invariant: an answer counts only if it comes from the node that was asked.
//!
//! Limits: [`LATE_MAX`] late heartbeats, [`PART_TRIES`] tries for a part of a snapshot.

use std::collections::{BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use jizoku_types::NodeId;
use openraft::async_runtime::{AsyncRuntime, Select2};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout as RaftTimeout,
};
use openraft::network::{RPCOption, RPCTypes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{AnyError, RaftNetworkFactory, RaftNetworkV2};

use crate::bridge::{
    RaftVote, Types, entry_out, log_id_in, log_id_out, meta_out, vote_in, vote_out,
};
use crate::effects::Effects;
use crate::runtime::{OneShotReceiver, Runtime, lock};
use crate::wire::{Body, Reply, Request, SNAPSHOT_PART};

/// Heartbeats whose answers are still welcome although the next one is out.
const LATE_MAX: usize = 8;

/// A learner gets every so manieth heartbeat only: it elects nobody, and a large cluster is mostly
/// learners. It still gets entries at once.
pub(crate) const LEARNER_TURN: u64 = 8;

/// How often a part of a snapshot is sent before the transfer is given up for now.
const PART_TRIES: u32 = 5;

/// How long calls may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallTimes {
    /// Entries and votes.
    pub(crate) call: Duration,
    /// One part of a snapshot.
    pub(crate) part: Duration,
}

/// Who votes, by the newest entry that says so.
pub(crate) type SharedVoters = Arc<Mutex<BTreeSet<NodeId>>>;

/// Makes a [`Peer`] for each node that openraft wants to call.
pub(crate) struct Peers {
    pub(crate) me: NodeId,
    pub(crate) effects: Effects,
    pub(crate) times: CallTimes,
    pub(crate) voters: SharedVoters,
}

impl Peers {
    fn peer(&self, to: NodeId, heartbeats: bool) -> Peer {
        let line = Line { me: self.me, to, effects: self.effects.clone(), times: self.times };
        let heart = || Heart { voters: self.voters.clone(), late: VecDeque::new(), beats: 0 };
        Peer { line, heart: heartbeats.then(heart) }
    }
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, to: NodeId, _node: &()) -> Peer {
        self.peer(to, false)
    }

    async fn new_heartbeat_client(&mut self, to: NodeId, _node: &()) -> Peer {
        self.peer(to, true)
    }
}

/// One node that openraft calls.
pub(crate) struct Peer {
    line: Line,
    /// If it is there for heartbeats.
    heart: Option<Heart>,
}

struct Line {
    me: NodeId,
    to: NodeId,
    effects: Effects,
    times: CallTimes,
}

/// A call under way; forgotten when dropped.
struct Pending {
    call: u64,
    answer: OneShotReceiver<Reply>,
    effects: Effects,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.effects.forget_call(self.call);
    }
}

impl Line {
    fn start(&self, request: Request) -> Pending {
        let (call, answer) = self.effects.expect_reply(self.to);
        self.effects.send(self.to, Body::Request { call, request });
        Pending { call, answer, effects: self.effects.clone() }
    }

    fn timed_out(&self, action: RPCTypes, timeout: Duration) -> RaftTimeout<Types> {
        RaftTimeout { action, id: self.me, target: self.to, timeout }
    }

    async fn call(&self, action: RPCTypes, request: Request) -> Result<Reply, RPCError<Types>> {
        let mut pending = self.start(request);
        match Runtime::timeout(self.times.call, &mut pending.answer).await {
            Ok(Ok(reply)) => Ok(reply),
            _ => Err(self.timed_out(action, self.times.call).into()),
        }
    }

    /// Sends one part until it is answered; gives what the receiver wants next.
    async fn send_part(&self, request: Request) -> Result<(RaftVote, u64), StreamingError<Types>> {
        for _ in 0..PART_TRIES {
            let mut pending = self.start(request.clone());
            match Runtime::timeout(self.times.part, &mut pending.answer).await {
                Ok(Ok(Reply::Snapshot { vote, next })) => return Ok((vote_in(vote), next)),
                Ok(Ok(_)) => return Err(nonsense().into()),
                _ => {}
            }
        }
        Err(self.timed_out(RPCTypes::InstallSnapshot, self.times.part).into())
    }

    async fn send_snapshot(
        &self,
        vote: RaftVote,
        snapshot: SnapshotOf<Types, Vec<u8>>,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let meta = meta_out(&snapshot.meta);
        let bytes = snapshot.snapshot;
        let mut offset = 0;
        loop {
            let end = bytes.len().min(offset + SNAPSHOT_PART);
            let request = Request::Snapshot {
                vote: vote_out(&vote),
                meta: meta.clone(),
                total: bytes.len() as u64,
                offset: offset as u64,
                part: bytes[offset..end].to_vec(),
            };
            let (theirs, next) = self.send_part(request).await?;
            let next = usize::try_from(next).unwrap_or(usize::MAX);
            if theirs > vote || next == bytes.len() {
                return Ok(SnapshotResponse::new(theirs));
            }
            if next > bytes.len() {
                return Err(nonsense().into());
            }
            offset = next;
        }
    }
}

/// Heartbeats to one node.
///
/// openraft waits for one heartbeat at a time and no longer than until the next one, so on a way
/// longer than that no answer would ever count. Here a late good answer to an earlier heartbeat
/// counts for the present one: it says the same, that node follows this leader.
struct Heart {
    voters: SharedVoters,
    /// Heartbeats without an answer yet, the newest last.
    late: VecDeque<Pending>,
    beats: u64,
}

impl Heart {
    /// Sends a heartbeat and waits for an answer. openraft drops this when the next one is due.
    async fn beat(&mut self, line: &Line, request: Request) -> Result<Reply, RPCError<Types>> {
        self.beats += 1;
        let votes = lock(&self.voters).contains(&line.to);
        if !votes && !self.beats.is_multiple_of(LEARNER_TURN) {
            return Err(line.timed_out(RPCTypes::AppendEntries, Duration::ZERO).into());
        }
        let newest = line.start(request);
        let number = newest.call;
        self.late.push_back(newest);
        if self.late.len() > LATE_MAX {
            self.late.pop_front();
        }
        let answer = poll_fn(|context| {
            let mut answer = Poll::Pending;
            self.late.retain_mut(|pending| match Pin::new(&mut pending.answer).poll(context) {
                Poll::Pending => true,
                Poll::Ready(Ok(reply)) => {
                    if pending.call == number || reply == Reply::Appended {
                        answer = Poll::Ready(reply);
                    }
                    false
                }
                Poll::Ready(Err(_)) => false,
            });
            answer
        });
        Ok(answer.await)
    }
}

/// An answer that doesn't fit its question.
fn nonsense() -> NetworkError<Types> {
    NetworkError::new(&AnyError::error("an answer of another kind than the question"))
}

fn vote_request(rpc: VoteRequest<Types>) -> (crate::log::Vote, Option<crate::log::LogId>, bool) {
    (vote_out(&rpc.vote), rpc.last_log_id.as_ref().map(log_id_out), rpc.leadership_transfer)
}

fn vote_response(reply: Reply) -> Result<VoteResponse<Types>, RPCError<Types>> {
    match reply {
        Reply::Vote { vote, granted, last } => {
            Ok(VoteResponse::new(vote_in(vote), last.map(log_id_in), granted))
        }
        _ => Err(nonsense().into()),
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let before = rpc.prev_log_id.as_ref().map(log_id_out);
        let request = Request::Append {
            vote: vote_out(&rpc.vote),
            before,
            entries: rpc.entries.into_iter().map(entry_out).collect(),
            committed: rpc.leader_commit.as_ref().map(log_id_out),
        };
        let reply = match &mut self.heart {
            Some(heart) => heart.beat(&self.line, request).await?,
            None => self.line.call(RPCTypes::AppendEntries, request).await?,
        };
        match reply {
            Reply::Appended => Ok(AppendEntriesResponse::Success),
            Reply::AppendedPart(last) => {
                Ok(AppendEntriesResponse::PartialSuccess(last.map(log_id_in)))
            }
            // Nothing comes before the first entry, so nothing can be missing there.
            Reply::Conflict if before.is_some() => Ok(AppendEntriesResponse::Conflict),
            Reply::LaterVote(vote) => Ok(AppendEntriesResponse::HigherVote(vote_in(vote))),
            _ => Err(nonsense().into()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let (vote, last, transfer) = vote_request(rpc);
        vote_response(self.line.call(RPCTypes::Vote, Request::Vote { vote, last, transfer }).await?)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let (vote, last, _) = vote_request(rpc);
        vote_response(self.line.call(RPCTypes::Vote, Request::PreVote { vote, last }).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: SnapshotOf<Types, Vec<u8>>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        match Runtime::select2(cancel, self.line.send_snapshot(vote, snapshot)).await {
            Select2::First(closed) => Err(closed.into()),
            Select2::Second(result) => result,
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let request = Request::Transfer {
            vote: vote_out(rpc.from_leader()),
            to: *rpc.to_node_id(),
            last: rpc.last_log_id().map(log_id_out),
        };
        match self.line.call(RPCTypes::TransferLeader, request).await? {
            Reply::Transfer { accepted: true } => Ok(Ok(())),
            Reply::Transfer { accepted: false } => Ok(Err(TransferLeaderError::LogNotFlushed {
                expected: rpc.last_log_id().copied(),
                actual: None,
            })),
            _ => Err(nonsense().into()),
        }
    }
}
