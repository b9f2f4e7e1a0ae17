//! openraft's state machine: it hands each committed command out, in order, and keeps only how
//! far it got and who the members are. The real state is the caller's.
//!
//! What it does not know: what commands mean; disks.
//!
//! Invariants
//! - Commands and snapshots are given out in the order of the log, each command once in a life.
//! - A snapshot counts as taken or installed only once its record is safe.

use std::io;
use std::sync::{Arc, Mutex};

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, RaftSnapshotBuilder, Snapshot};

use crate::bridge::{
    RaftEntry, RaftLogId, RaftSnapshotMeta, RaftStoredMembership, Types, log_id_in, log_id_out,
    members_out, meta_in, meta_out, stored_members,
};
use crate::interface::Output;
use crate::log::Members;
use crate::proposals::Proposals;
use crate::record::{Change, SNAPSHOT_MAX, SnapshotMeta, number_of};
use crate::runtime::{OneShotReceiver, OneShotSender, lock, one_shot};
use crate::storage::Storage;

type RaftSnapshot = openraft::type_config::alias::SnapshotOf<Types, Vec<u8>>;

/// How far a node applied the log, shared by its tasks.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) applied: Option<RaftLogId>,
    pub(crate) members: RaftStoredMembership,
    /// Who waits for the state at which index.
    wanted: Option<(u64, OneShotSender<Vec<u8>>)>,
}

impl Progress {
    /// The caller's answer to `TakeSnapshot`. One that nobody waits for is dropped.
    pub(crate) fn snapshot_taken(&mut self, index: u64, bytes: Vec<u8>) {
        match self.wanted.take() {
            Some((wanted, sender)) if wanted == index => {
                let _ = sender.fire(bytes);
            }
            other => self.wanted = other,
        }
    }

    /// Drops who waits. The value is stopped or about to be dropped.
    pub(crate) fn clear(&mut self) {
        self.wanted = None;
    }
}

pub(crate) struct Machine {
    storage: Storage,
    progress: Arc<Mutex<Progress>>,
    proposals: Proposals,
}

impl Machine {
    /// A machine in the state of the node's snapshot, which is given out first.
    pub(crate) fn new(
        storage: Storage,
        progress: Arc<Mutex<Progress>>,
        proposals: Proposals,
    ) -> Machine {
        let machine = Machine { storage, progress, proposals };
        let snapshot = lock(&machine.storage.state).snapshot.clone();
        if let Some((meta, bytes)) = snapshot {
            machine.restore(&meta, bytes);
        }
        machine
    }

    fn restore(&self, meta: &SnapshotMeta, bytes: Vec<u8>) {
        let Some(last) = meta.last else { return };
        {
            let mut progress = lock(&self.progress);
            progress.applied = Some(log_id_in(last));
            progress.members = stored_members(meta);
        }
        self.storage.effects.output(Output::InstallSnapshot { index: last.index, bytes });
        self.announce(meta.members_at.map_or(0, number_of), &meta.members);
        self.proposals.skipped_to(last.term);
    }

    fn announce(&self, number: u64, members: &Members) {
        // With two sets the change isn't over; the entry that ends it follows.
        if members.voters.len() == 1 {
            let (voters, learners) = (members.voters(), members.learners());
            self.storage.effects.output(Output::VotersAre { number, voters, learners });
        }
    }

    fn apply_one(&self, entry: RaftEntry) {
        let id = log_id_out(&entry.log_id);
        self.proposals.applied_term(id.term);
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(command) => {
                let proposed = self.proposals.settle(&command);
                self.storage.effects.output(Output::Applied {
                    index: id.index,
                    id: proposed,
                    command: command.bytes,
                });
            }
            EntryPayload::Membership(membership) => {
                self.announce(number_of(id), &members_out(&membership));
                let stored = RaftStoredMembership::new(Some(entry.log_id), membership);
                lock(&self.progress).members = stored;
            }
        }
        lock(&self.progress).applied = Some(entry.log_id);
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, RaftStoredMembership)> {
        let progress = lock(&self.progress);
        Ok((progress.applied, progress.members.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + Send,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            self.apply_one(entry);
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let (sender, bytes) = one_shot();
        let mut progress = lock(&self.progress);
        let meta = RaftSnapshotMeta {
            last_log_id: progress.applied,
            last_membership: progress.members.clone(),
        };
        let meta = meta_out(&meta);
        if let Some(last) = meta.last {
            progress.wanted = Some((last.index, sender));
            self.storage.effects.output(Output::TakeSnapshot { index: last.index });
        }
        Builder { storage: self.storage.clone(), meta, bytes: Some(bytes) }
    }

    async fn install_snapshot(
        &mut self,
        meta: &RaftSnapshotMeta,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        let meta = meta_out(meta);
        let change = Change::Snapshot(meta.clone(), bytes.clone());
        self.storage.change_and_wait(change).await?;
        self.restore(&meta, bytes);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        let state = lock(&self.storage.state);
        let snapshot = state.snapshot.as_ref();
        Ok(snapshot.map(|(meta, bytes)| Snapshot { meta: meta_in(meta), snapshot: bytes.clone() }))
    }
}

/// Waits for the caller's state, then keeps it as the node's snapshot.
pub(crate) struct Builder {
    storage: Storage,
    meta: SnapshotMeta,
    bytes: Option<OneShotReceiver<Vec<u8>>>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        let receiver = self.bytes.take().ok_or_else(|| io::Error::other("built twice"))?;
        let bytes = receiver.await.map_err(io::Error::other)?;
        if bytes.len() > SNAPSHOT_MAX {
            // Never done: the log is kept whole, and no further snapshot is asked for.
            std::future::pending::<()>().await;
        }
        // One that was installed meanwhile may cover more.
        let newer = lock(&self.storage.state).snapshot_last() > self.meta.last;
        if !newer {
            let change = Change::Snapshot(self.meta.clone(), bytes.clone());
            self.storage.change_and_wait(change).await?;
        }
        Ok(Snapshot { meta: meta_in(&self.meta), snapshot: bytes })
    }
}
