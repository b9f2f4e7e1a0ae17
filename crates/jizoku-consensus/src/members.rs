//! Changing who votes, as the leader: new voters first follow as learners until they have caught
//! up, then both sets of voters agree on the change, then who is no member any more is let go.
//!
//! What it does not know: who wants the change, or why.
//!
//! Invariant: every step is an entry of the log; a leader that dies between two steps leaves a
//! membership that works, and the change can be asked for again.
//!
//! Limit: [`CATCH_UP_MAX`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jizoku_types::{NodeId, Span};
use openraft::async_runtime::{AsyncRuntime, WatchReceiver};
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, LogIdOptionExt};

use crate::bridge::RaftHandle;
use crate::runtime::Runtime;
use crate::wire::ChangeFailure;

/// How long a new voter may take to catch up.
pub(crate) const CATCH_UP_MAX: Span = Span::secs(10);

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(10);

const LOOKS_MAX: u64 = CATCH_UP_MAX.as_millis() / LOOK.as_millis() as u64;

/// A new voter has caught up when it lacks no more entries than this: they are under way to it.
const LAG_MAX: u64 = 64;

/// One change at a time, on one node. Clones share the mark.
#[derive(Clone, Default)]
pub(crate) struct Changing(Arc<AtomicBool>);

/// Takes the mark back when the change ends, however it ends.
struct Mark(Changing);

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

/// Makes these the voters and learners.
pub(crate) async fn change(
    raft: RaftHandle,
    changing: Changing,
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
) -> Result<(), ChangeFailure> {
    if changing.0.swap(true, Ordering::Relaxed) {
        return Err(ChangeFailure::Busy);
    }
    let _mark = Mark(changing);
    let wanted: BTreeSet<NodeId> = voters.union(&learners).copied().collect();
    let (sets, all) = membership(&raft);
    let new: BTreeMap<NodeId, ()> = wanted.difference(&all).map(|node| (*node, ())).collect();
    if !new.is_empty() {
        step(&raft, ChangeMembers::AddNodes(new)).await?;
    }
    if sets != [voters.clone()] {
        wait_until_caught_up(&raft, &voters).await?;
        step(&raft, ChangeMembers::ReplaceAllVoters(voters)).await?;
    }
    let extra: BTreeSet<NodeId> = membership(&raft).1.difference(&wanted).copied().collect();
    if !extra.is_empty() {
        step(&raft, ChangeMembers::RemoveNodes(extra)).await?;
    }
    Ok(())
}

/// One step; waits while the step before it, of an earlier leader or at its start, is not
/// committed yet.
async fn step(raft: &RaftHandle, change: ChangeMembers<NodeId, ()>) -> Result<(), ChangeFailure> {
    for _ in 0..LOOKS_MAX {
        match raft.change_membership(change.clone(), true).await {
            Ok(_) => return Ok(()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                return Err(ChangeFailure::NotLeader);
            }
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::InProgress(_),
            ))) => Runtime::sleep(LOOK).await,
            Err(_) => return Err(ChangeFailure::Unknown),
        }
    }
    Err(ChangeFailure::Busy)
}

/// The sets of voters, and all members, by the newest entry that says so.
fn membership(raft: &RaftHandle) -> (Vec<BTreeSet<NodeId>>, BTreeSet<NodeId>) {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    let all = membership.nodes().map(|(node, ())| *node).collect();
    (membership.get_joint_config().clone(), all)
}

async fn wait_until_caught_up(
    raft: &RaftHandle,
    voters: &BTreeSet<NodeId>,
) -> Result<(), ChangeFailure> {
    for _ in 0..LOOKS_MAX {
        let lagging = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let Some(replication) = &metrics.replication else {
                return Err(ChangeFailure::NotLeader);
            };
            let enough = metrics.last_log_index.unwrap_or(0).saturating_sub(LAG_MAX);
            let old = metrics.membership_config.membership();
            let old: BTreeSet<NodeId> = old.voter_ids().collect();
            voters.difference(&old).any(|voter| {
                let matched = replication.get(voter).copied().flatten();
                matched.is_none() || matched.next_index() <= enough
            })
        };
        if !lagging {
            return Ok(());
        }
        Runtime::sleep(LOOK).await;
    }
    Err(ChangeFailure::Lagging)
}
