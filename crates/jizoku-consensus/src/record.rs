//! What a node must find on its disk again: records, written one after the other, and what they
//! add up to.
//!
//! What it does not know: files, checksums, flushing. The caller writes records in the order in
//! which it gets them, and says when they are safe.
//!
//! Invariants
//! - A prefix of the records that were given out is always a state that a node may restart from.
//!   So a crash may lose the end of what was written, never something before the end.
//! - [`Recovered::records`] gives records that add up to the same state: for rewriting the file.
//!
//! Limits: [`SNAPSHOT_MAX`]. Format: [`RECORD_FORMAT`] stands before each encoded record.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use jizoku_types::NodeId;
use serde::{Deserialize, Serialize};

use crate::log::{Entry, LogId, Members, Payload, Vote, follows};

/// The number of the form in which records are encoded.
pub const RECORD_FORMAT: u8 = 1;

/// Largest snapshot, in bytes. A larger one is not taken, so the log grows; and not installed.
pub const SNAPSHOT_MAX: usize = 64 << 20;

/// Entries in one record at most, so that a record's size is bounded.
const ENTRIES_PER_RECORD: usize = 256;

/// By what number an entry that names members is known outside: its place, counted from 1.
pub(crate) fn number_of(entry: LogId) -> u64 {
    entry.index.saturating_add(1)
}

/// What a snapshot covers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotMeta {
    /// The last entry whose effect is in it.
    pub(crate) last: Option<LogId>,
    /// The members as of that entry, and the entry that said so.
    pub(crate) members_at: Option<LogId>,
    pub(crate) members: Members,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    Vote(Vote),
    Append(Vec<Entry>),
    /// Entries from this index on are void.
    Truncate(u64),
    Snapshot(SnapshotMeta, Vec<u8>),
    /// Entries up to this one are not needed any more: a snapshot covers them.
    Purge(LogId),
}

/// One thing to write to the disk. Opaque: hand it back to [`Recovered::replay`] after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record(pub(crate) Change);

impl Record {
    /// The record as bytes, for a file.
    pub fn encode(&self) -> Vec<u8> {
        let bytes = vec![RECORD_FORMAT];
        postcard::to_extend(self, bytes).expect("records are encodable")
    }

    /// Reads back what [`Record::encode`] made.
    pub fn decode(bytes: &[u8]) -> Result<Record, RecoverError> {
        match bytes.split_first() {
            Some((&RECORD_FORMAT, rest)) => match postcard::take_from_bytes(rest) {
                Ok((record, [])) => Ok(record),
                _ => Err(RecoverError::Malformed),
            },
            Some((&format, _)) => Err(RecoverError::Format(format)),
            None => Err(RecoverError::Malformed),
        }
    }
}

/// Why a node can't start from what its disk holds. The disk is as it was. A node whose records
/// are damaged joins the cluster as a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoverError {
    /// Not a record.
    Malformed,
    /// A record of a form that this build doesn't know.
    Format(u8),
    /// A record that can't come after those before it: one is missing or out of place.
    OutOfPlace,
    /// The log has entries of a term that this node never heard of.
    Refused,
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoverError::Malformed => f.write_str("not a consensus record"),
            RecoverError::Format(format) => {
                write!(f, "consensus record of format {format}; this build reads {RECORD_FORMAT}")
            }
            RecoverError::OutOfPlace => {
                f.write_str("a consensus record doesn't fit those before it: one is missing")
            }
            RecoverError::Refused => f.write_str("the consensus records contradict each other"),
        }
    }
}

impl core::error::Error for RecoverError {}

/// What records add up to: vote, log, snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) entries: BTreeMap<u64, Entry>,
    pub(crate) snapshot: Option<(SnapshotMeta, Vec<u8>)>,
}

impl Recovered {
    /// A node without a past.
    pub fn new() -> Recovered {
        Recovered::default()
    }

    /// Whether nothing was ever recorded.
    pub fn is_empty(&self) -> bool {
        *self == Recovered::default()
    }

    /// Adds a record that was read back. Records come in the order in which they were given out.
    ///
    /// On an error nothing was added; what was added before is a state to restart from only if
    /// the record is the torn last one.
    pub fn replay(&mut self, record: Record) -> Result<(), RecoverError> {
        match record.0 {
            Change::Vote(vote) => self.vote = Some(vote),
            Change::Append(entries) => {
                if !follows(self.last(), &entries) {
                    return Err(RecoverError::OutOfPlace);
                }
                self.entries.extend(entries.into_iter().map(|entry| (entry.id.index, entry)));
            }
            Change::Truncate(from) => {
                if self.purged.is_some_and(|purged| from <= purged.index) {
                    return Err(RecoverError::OutOfPlace);
                }
                self.entries.split_off(&from);
            }
            Change::Snapshot(meta, bytes) => {
                if self.snapshot_last() > meta.last {
                    return Err(RecoverError::OutOfPlace);
                }
                self.snapshot = Some((meta, bytes));
            }
            Change::Purge(upto) => {
                if self.snapshot_last().is_none_or(|last| last.index < upto.index) {
                    return Err(RecoverError::OutOfPlace);
                }
                self.entries = self.entries.split_off(&(upto.index.saturating_add(1)));
                self.purged = self.purged.max(Some(upto));
            }
        }
        Ok(())
    }

    /// The last entry of the log, or what was purged last.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.id).or(self.purged)
    }

    /// The newest entry that names one set of voters, as [`number_of`] it; 0 if there is none. And
    /// whether a newer one names two.
    pub(crate) fn members_logged(&self) -> (u64, bool) {
        let (mut changing, covered) = (false, self.snapshot_last().map_or(0, number_of));
        // Entries that a snapshot covers may be of before a gap: it knows better.
        for entry in self.entries.values().rev().take_while(|entry| number_of(entry.id) > covered) {
            match &entry.payload {
                Payload::Members(members) if members.voters.len() == 1 => {
                    return (number_of(entry.id), changing);
                }
                Payload::Members(_) => changing = true,
                _ => {}
            }
        }
        let Some((meta, _)) = &self.snapshot else { return (0, changing) };
        changing |= meta.members.voters.len() > 1;
        (meta.members_at.map_or(0, number_of), changing)
    }

    pub(crate) fn snapshot_last(&self) -> Option<LogId> {
        self.snapshot.as_ref().and_then(|(meta, _)| meta.last)
    }

    /// How many entries the log has had.
    pub(crate) fn len(&self) -> u64 {
        self.last().map_or(0, |last| last.index + 1)
    }

    /// The newest term.
    pub(crate) fn term(&self) -> u64 {
        self.vote.map_or(0, |vote| vote.term)
    }

    /// The term of the entry at `index`, if that is known: it is in the log, or was purged last.
    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        let purged = self.purged.filter(|purged| purged.index == index).map(|id| id.term);
        self.entries.get(&index).map(|entry| entry.id.term).or(purged)
    }

    /// The members by the newest entry that says so, and that entry.
    pub(crate) fn members(&self) -> (Option<LogId>, Members) {
        let covered = self.snapshot_last().map_or(0, number_of);
        for entry in self.entries.values().rev().take_while(|entry| number_of(entry.id) > covered) {
            if let Payload::Members(members) = &entry.payload {
                return (Some(entry.id), members.clone());
            }
        }
        let covered = self.snapshot.as_ref();
        covered.map_or_else(Default::default, |(meta, _)| (meta.members_at, meta.members.clone()))
    }

    /// What brings the log in line with a snapshot that reaches beyond it or contradicts it: a
    /// crash came between the two. Nothing, if all is well.
    pub(crate) fn behind_snapshot(&self) -> Vec<Change> {
        let Some(last) = self.snapshot_last() else { return Vec::new() };
        if self.purged >= Some(last) || self.term_at(last.index) == Some(last.term) {
            return Vec::new();
        }
        let rest = self.purged.map_or(0, |purged| purged.index + 1);
        let mut changes = Vec::new();
        if !self.entries.is_empty() {
            changes.push(Change::Truncate(rest));
        }
        changes.push(Change::Purge(last));
        changes
    }

    /// Records that add up to this state: what to write when the file is made anew.
    pub fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        records.extend(self.vote.map(|vote| Record(Change::Vote(vote))));
        if let Some((meta, bytes)) = &self.snapshot {
            records.push(Record(Change::Snapshot(meta.clone(), bytes.clone())));
        }
        if let Some(purged) = self.purged {
            records.push(Record(Change::Purge(purged)));
        }
        let entries: Vec<&Entry> = self.entries.values().collect();
        for some in entries.chunks(ENTRIES_PER_RECORD) {
            let some = some.iter().map(|entry| (*entry).clone()).collect();
            records.push(Record(Change::Append(some)));
        }
        records
    }

    /// Makes `me` the only voter, whatever the log says, with every entry of the log kept, and
    /// gives the records to write for it. For a cluster that lost its majority for good; the
    /// caller starts a new generation, so that nodes of the old one can't take part.
    ///
    /// Entries that were not committed yet become committed by this.
    pub fn take_over(&mut self, me: NodeId) -> Vec<Record> {
        let term = self.vote.map_or(0, |vote| vote.term).max(self.last().map_or(0, |id| id.term));
        let term = term.saturating_add(1);
        let index = self.last().map_or(0, |id| id.index.saturating_add(1));
        let alone = BTreeSet::from([me]);
        let members = Members { voters: vec![alone.clone()], all: alone };
        let entry = Entry { id: LogId { term, index }, payload: Payload::Members(members) };
        // The vote first: no log has entries of a term that its node doesn't know.
        let records = vec![
            Record(Change::Vote(Vote { term, node: me, elected: false })),
            Record(Change::Append(vec![entry])),
        ];
        for record in records.clone() {
            self.replay(record).expect("an entry after the last one fits");
        }
        records
    }
}

#[cfg(test)]
mod tests;
