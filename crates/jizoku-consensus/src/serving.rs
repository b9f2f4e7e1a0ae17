//! Answers to other nodes' calls: each is given to openraft by a task of its own, and its result
//! goes back as a reply.
//!
//! What it does not know: when messages come; timers.
//!
//! Invariants
//! - Calls reach openraft in the order in which they arrived.
//! - A vote is asked of openraft as one that may set the leader's lease aside only if this node
//!   itself knows that its leader is gone, or if that leader handed its lead over.
//!
//! Limits: [`SERVING_MAX`] calls at a time; one incoming snapshot of at most
//! [`SNAPSHOT_MAX`](crate::record::SNAPSHOT_MAX) bytes, which a newer transfer replaces.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use jizoku_types::NodeId;
use openraft::Snapshot;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};

use crate::bridge::{
    RaftHandle, Types, entry_in, log_id_in, log_id_out, meta_in, vote_in, vote_out,
};
use crate::effects::Effects;
use crate::log::Vote;
use crate::machine::Progress;
use crate::record::SnapshotMeta;
use crate::runtime::{Executor, lock};
use crate::wire::{Body, Reply, Request};

/// Most calls that are being answered. More only come while the disk is slow or a peer floods.
pub(crate) const SERVING_MAX: usize = 1024;

/// What tasks found out about the leader, for the value to act on after a run.
#[derive(Default)]
pub(crate) struct Contact {
    /// When an elected leader was last heard of and followed, in nanoseconds.
    pub(crate) heard: Option<u64>,
    /// Whether a reason came up to wait anew before asking for an election.
    pub(crate) patience: bool,
    /// Whether another node that could win was about to ask for an election.
    pub(crate) yielding: bool,
    /// Nodes that are known to be gone.
    pub(crate) gone: BTreeSet<NodeId>,
    /// Calls being answered.
    pub(crate) serving: usize,
}

pub(crate) type SharedContact = Arc<Mutex<Contact>>;

struct Incoming {
    from: NodeId,
    vote: Vote,
    meta: SnapshotMeta,
    total: u64,
    bytes: Vec<u8>,
}

/// Serves calls. Clones share everything.
#[derive(Clone)]
pub(crate) struct Serving {
    pub(crate) raft: RaftHandle,
    pub(crate) effects: Effects,
    pub(crate) contact: SharedContact,
    pub(crate) progress: Arc<Mutex<Progress>>,
    pub(crate) executor: Arc<Executor>,
    incoming: Arc<Mutex<Option<Incoming>>>,
}

impl Serving {
    pub(crate) fn new(
        raft: RaftHandle,
        effects: Effects,
        contact: SharedContact,
        progress: Arc<Mutex<Progress>>,
        executor: Arc<Executor>,
    ) -> Serving {
        Serving { raft, effects, contact, progress, executor, incoming: Arc::default() }
    }

    /// Answers a call, by and by. Gives false if there are too many; the caller asks again.
    pub(crate) fn serve(&self, from: NodeId, call: u64, request: Request) -> bool {
        {
            let mut contact = lock(&self.contact);
            if contact.serving >= SERVING_MAX {
                return false;
            }
            contact.serving += 1;
        }
        let serving = self.clone();
        self.executor.spawn(async move {
            let reply = serving.answer(from, request).await;
            lock(&serving.contact).serving -= 1;
            if let Some(reply) = reply {
                serving.effects.send(from, Body::Reply { call, reply });
            }
        });
        true
    }

    async fn answer(&self, from: NodeId, request: Request) -> Option<Reply> {
        match request {
            Request::Append { vote, before, entries, committed } => {
                let request = AppendEntriesRequest {
                    vote: vote_in(vote),
                    prev_log_id: before.map(log_id_in),
                    entries: entries.into_iter().map(entry_in).collect(),
                    leader_commit: committed.map(log_id_in),
                };
                self.append(request).await
            }
            Request::Vote { vote, last, transfer } => {
                let mut request = VoteRequest::new(vote_in(vote), last.map(log_id_in));
                request.leadership_transfer = transfer || self.leader_is_gone();
                let response = self.raft.vote(request).await.ok()?;
                if response.vote_granted {
                    lock(&self.contact).patience = true;
                }
                Some(vote_reply(&response))
            }
            Request::PreVote { vote, last } => {
                let request = VoteRequest::new(vote_in(vote), last.map(log_id_in));
                let response = self.raft.pre_vote(request).await.ok()?;
                if response.vote_granted {
                    lock(&self.contact).yielding = true;
                }
                Some(vote_reply(&response))
            }
            Request::Transfer { vote, to, last } => {
                let request = TransferLeaderRequest::new(vote_in(vote), to, last.map(log_id_in));
                let result = Box::pin(self.raft.handle_transfer_leader(request)).await.ok()?;
                lock(&self.contact).patience = true;
                Some(Reply::Transfer { accepted: result.is_ok() })
            }
            Request::Snapshot { vote, meta, total, offset, part } => {
                // Boxed, so that the task of a mere heartbeat is small.
                Box::pin(self.snapshot_part(from, vote, meta, total, offset, part)).await
            }
        }
    }

    async fn append(&self, request: AppendEntriesRequest<Types>) -> Option<Reply> {
        let reply = match self.raft.append_entries(request).await.ok()? {
            AppendEntriesResponse::Success => Reply::Appended,
            AppendEntriesResponse::PartialSuccess(last) => {
                Reply::AppendedPart(last.as_ref().map(log_id_out))
            }
            AppendEntriesResponse::Conflict => Reply::Conflict,
            AppendEntriesResponse::HigherVote(vote) => {
                return Some(Reply::LaterVote(vote_out(&vote)));
            }
        };
        let mut contact = lock(&self.contact);
        contact.heard = Some(self.executor.now());
        contact.patience = true;
        Some(reply)
    }

    /// Whether the leader that this node follows is known to be gone.
    fn leader_is_gone(&self) -> bool {
        use openraft::async_runtime::WatchReceiver;
        let leader = self.raft.metrics().borrow_watched().current_leader;
        leader.is_some_and(|leader| lock(&self.contact).gone.contains(&leader))
    }

    async fn snapshot_part(
        &self,
        from: NodeId,
        vote: Vote,
        meta: SnapshotMeta,
        total: u64,
        offset: u64,
        part: Vec<u8>,
    ) -> Option<Reply> {
        if lock(&self.progress).applied.as_ref().map(log_id_out) >= meta.last {
            // Has it already: the answer to the last part was lost, or the log came first.
            return Some(Reply::Snapshot { vote, next: total });
        }
        let complete = {
            let mut incoming = lock(&self.incoming);
            let same = incoming.as_ref().is_some_and(|known| {
                known.from == from
                    && known.vote == vote
                    && known.meta == meta
                    && known.total == total
            });
            if offset == 0 && !same {
                let meta = meta.clone();
                *incoming = Some(Incoming { from, vote, meta, total, bytes: Vec::new() });
            } else if !same {
                return Some(Reply::Snapshot { vote, next: 0 });
            }
            let known = incoming.as_mut()?;
            if known.bytes.len() as u64 != offset {
                return Some(Reply::Snapshot { vote, next: known.bytes.len() as u64 });
            }
            known.bytes.extend_from_slice(&part);
            let next = known.bytes.len() as u64;
            if next < total {
                return Some(Reply::Snapshot { vote, next });
            }
            incoming.take()?
        };
        let snapshot = Snapshot { meta: meta_in(&complete.meta), snapshot: complete.bytes };
        let response = self.raft.install_full_snapshot(vote_in(vote), snapshot).await.ok()?;
        Some(Reply::Snapshot { vote: vote_out(&response.vote), next: total })
    }
}

fn vote_reply(response: &VoteResponse<Types>) -> Reply {
    Reply::Vote {
        vote: vote_out(&response.vote),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(log_id_out),
    }
}
