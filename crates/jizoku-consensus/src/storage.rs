//! openraft's log and vote: kept in memory, with every change also given out to be persisted.
//!
//! What it does not know: files. The caller answers for durability, see [`crate::record`].
//!
//! Invariants
//! - A vote counts as saved only once its record is safe; entries, likewise.
//! - What openraft reads is what it wrote, safe or not, as it expects.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex};

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, RaftLogReader};

use crate::bridge::{
    RaftEntry, RaftLogId, RaftVote, Types, entry_in, entry_out, log_id_in, log_id_out, vote_in,
    vote_out,
};
use crate::effects::{Effects, Waiter};
use crate::interface::Output;
use crate::log::Payload;
use crate::record::{Change, Recovered};
use crate::runtime::{lock, one_shot};
use crate::wire::APPEND_BYTES_MAX;

/// Vote, log and snapshot of one node, shared by its tasks.
pub(crate) type SharedState = Arc<Mutex<Recovered>>;

#[derive(Clone)]
pub(crate) struct Storage {
    pub(crate) state: SharedState,
    pub(crate) effects: Effects,
}

impl Storage {
    /// The log and votes that a node starts from.
    pub(crate) fn new(state: SharedState, effects: Effects) -> Storage {
        let storage = Storage { state, effects };
        storage.tell_members();
        storage
    }

    fn tell_members(&self) {
        let (voters, changing) = lock(&self.state).members_logged();
        self.effects.output(Output::MembersLogged { voters, changing });
    }

    /// Changes the state in memory, and gives out the record.
    fn change(&self, change: Change, waiter: Option<Waiter>) -> io::Result<()> {
        let record = crate::record::Record(change.clone());
        let may_name_members = match &change {
            Change::Append(entries) => {
                entries.iter().any(|entry| matches!(entry.payload, Payload::Members(_)))
            }
            Change::Truncate(_) | Change::Snapshot(..) => true,
            Change::Vote(_) | Change::Purge(_) => false,
        };
        // openraft asks for impossible changes only if it is broken: it then stops the node.
        lock(&self.state).replay(record).map_err(io::Error::other)?;
        if may_name_members {
            self.tell_members();
        }
        self.effects.persist(change, waiter);
        Ok(())
    }

    /// As [`Storage::change`], and waits until the record is safe.
    pub(crate) async fn change_and_wait(&self, change: Change) -> io::Result<()> {
        let (sender, receiver) = one_shot();
        self.change(change, Some(Waiter::Task(sender)))?;
        receiver.await.map_err(io::Error::other)
    }
}

impl RaftLogReader<Types> for Storage {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<RaftEntry>> {
        let state = lock(&self.state);
        Ok(state.entries.range(range).map(|(_, entry)| entry_in(entry.clone())).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        Ok(lock(&self.state).vote.map(vote_in))
    }

    /// Entries for one message: as many as fit [`APPEND_BYTES_MAX`], at least one.
    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<RaftEntry>> {
        let state = lock(&self.state);
        let mut bytes = 0;
        let fitting = state.entries.range(start..end).take_while(|(_, entry)| {
            let fits = bytes < APPEND_BYTES_MAX;
            bytes += entry.weight();
            fits
        });
        Ok(fitting.map(|(_, entry)| entry_in(entry.clone())).collect())
    }
}

impl RaftLogStorage<Types> for Storage {
    type LogReader = Storage;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let state = lock(&self.state);
        Ok(LogState {
            last_purged_log_id: state.purged.map(log_id_in),
            last_log_id: state.last().map(log_id_in),
        })
    }

    async fn get_log_reader(&mut self) -> Storage {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        self.change_and_wait(Change::Vote(vote_out(vote))).await
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + Send,
        I::IntoIter: Send,
    {
        let entries = entries.into_iter().map(entry_out).collect();
        self.change(Change::Append(entries), Some(Waiter::Log(flushed)))
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index.saturating_add(1));
        self.change(Change::Truncate(from), None)
    }

    async fn purge(&mut self, upto: RaftLogId) -> io::Result<()> {
        self.change(Change::Purge(log_id_out(&upto)), None)
    }
}
