//! What a leader does with proposals: puts commands into its log, changes voters, and tells the
//! proposer if it did not.
//!
//! What it does not know: how proposals arrive; when they are given up.
//!
//! Invariant: a proposer hears `NotTaken` only of what is not in the log and never will be.

use std::sync::Arc;

use jizoku_types::{Instant, NodeId, Span};
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::type_config::alias::CommittedLeaderIdOf;

use crate::bridge::{RaftHandle, Types};
use crate::effects::Effects;
use crate::interface::{Output, RefuseReason};
use crate::log::Command;
use crate::proposals::{AttemptKey, Proposals};
use crate::runtime::Executor;
use crate::wire::{ChangeFailure, Notice};

/// What a leader needs to answer an attempt.
pub(crate) struct Decide {
    pub(crate) me: NodeId,
    pub(crate) key: AttemptKey,
    pub(crate) proposals: Proposals,
    pub(crate) effects: Effects,
    pub(crate) executor: Arc<Executor>,
    pub(crate) pause: Span,
}

impl Decide {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.executor.now())
    }

    pub(crate) fn not_taken(&self) {
        let AttemptKey { origin, life, id, attempt } = self.key;
        self.proposals.decide_refused(self.key);
        if origin == self.me {
            self.proposals.not_taken(self.now(), id, attempt, self.pause);
        } else {
            self.effects.notify(origin, Notice::NotTaken { life, id, attempt });
        }
    }

    /// Appends a command, if this node leads in `term`. What becomes of it then shows in the log.
    pub(crate) async fn append(self, raft: RaftHandle, term: u64, bytes: Vec<u8>) {
        let AttemptKey { origin, life, id, .. } = self.key;
        let (responder, result) = ProgressResponder::complete_only();
        let leader = CommittedLeaderIdOf::<Types>::new(term);
        let write = raft.write(Command { origin, life, id, bytes });
        let sent = write.with_leader(leader).responder(responder).await;
        if sent.is_err() {
            return;
        }
        if let Ok(Err(ClientWriteError::ForwardToLeader(_))) = result.await {
            self.not_taken();
        }
    }

    pub(crate) fn voters_changed(self, result: Result<(), ChangeFailure>) {
        let AttemptKey { origin, life, id, attempt } = self.key;
        if origin == self.me {
            let when = (self.now(), self.pause);
            finish_change(&self.proposals, &self.effects, (id, attempt), result, when);
        } else {
            self.effects.notify(origin, Notice::VotersChanged { life, id, attempt, result });
        }
    }
}

/// A change of voters that was proposed here ended, or must be tried again after a pause.
pub(crate) fn finish_change(
    proposals: &Proposals,
    effects: &Effects,
    (id, attempt): (u64, u64),
    result: Result<(), ChangeFailure>,
    (now, pause): (Instant, Span),
) {
    match result {
        Ok(()) => {
            if proposals.end(id, attempt) {
                effects.output(Output::VotersChanged { id });
            }
        }
        Err(ChangeFailure::NotLeader) => proposals.not_taken(now, id, attempt, pause),
        Err(ChangeFailure::Busy) => proposals.refuse(id, attempt, RefuseReason::Busy),
        Err(ChangeFailure::Lagging) => proposals.refuse(id, attempt, RefuseReason::Lagging),
        Err(ChangeFailure::Unknown) => proposals.refuse(id, attempt, RefuseReason::Unknown),
    }
}
