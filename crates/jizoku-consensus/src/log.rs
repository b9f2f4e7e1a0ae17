//! What the log is made of: it stands on disks and wires.
//!
//! What it does not know: messages, disks, when an entry is committed.
//!
//! Invariants: an entry's index is one above the entry before it; terms never fall along the log.
//! Limits: [`COMMAND_MAX`] bytes for a command, [`MEMBERS_MAX`] members.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use jizoku_types::NodeId;
use jizoku_types::limits::NODES_MAX;
use serde::{Deserialize, Serialize};

/// Largest command, in bytes. A larger one is refused when it is proposed.
pub const COMMAND_MAX: usize = 256 << 10;

/// Most members, voters and learners together.
pub const MEMBERS_MAX: usize = NODES_MAX;

/// Which entry: the term of the leader that made it, and its place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogId {
    /// The term of the leader that made the entry.
    pub term: u64,
    /// The entry's place in the log, from 0.
    pub index: u64,
}

/// Whom a node votes for, or follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vote {
    pub(crate) term: u64,
    pub(crate) node: NodeId,
    /// Whether that node is known to have been elected in that term.
    pub(crate) elected: bool,
}

/// Who takes part. While voters change from one set to another, both sets must agree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Members {
    /// One set of voters, or, during a change, the old and the new one.
    pub(crate) voters: Vec<BTreeSet<NodeId>>,
    /// Voters and learners.
    pub(crate) all: BTreeSet<NodeId>,
}

impl Members {
    /// Every node that is a voter in one of the sets.
    pub(crate) fn voters(&self) -> BTreeSet<NodeId> {
        self.voters.iter().flatten().copied().collect()
    }

    /// Every member that is no voter.
    pub(crate) fn learners(&self) -> BTreeSet<NodeId> {
        self.all.difference(&self.voters()).copied().collect()
    }

    /// Whether `agreed` holds a majority of each set of voters.
    pub(crate) fn majority(&self, agreed: &BTreeSet<NodeId>) -> bool {
        let enough = |set: &BTreeSet<NodeId>| set.intersection(agreed).count() * 2 > set.len();
        !self.voters.is_empty() && self.voters.iter().all(enough)
    }

    /// Whether it can be a cluster's membership: bounded, and every voter is a member.
    pub(crate) fn is_sound(&self) -> bool {
        (1..=2).contains(&self.voters.len())
            && self.voters.iter().all(|set| !set.is_empty() && set.is_subset(&self.all))
            && self.all.len() <= MEMBERS_MAX
    }
}

/// A command with where it came from, so that its proposer recognises it in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command {
    /// The node that proposed it.
    pub(crate) origin: NodeId,
    /// Which life of that node's value: a number drawn when the value was made.
    pub(crate) life: u64,
    /// The proposer's number for it.
    pub(crate) id: u64,
    pub(crate) bytes: Vec<u8>,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Payload {
    /// Nothing. A new leader begins its term with one, to commit what came before.
    Blank,
    /// A command for the state machine.
    Command(Command),
    /// Who takes part from here on.
    Members(Members),
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: LogId,
    pub(crate) payload: Payload,
}

impl Entry {
    /// About how many bytes it takes on the wire.
    pub(crate) fn weight(&self) -> usize {
        let payload = match &self.payload {
            Payload::Blank => 0,
            Payload::Command(command) => 64 + command.bytes.len(),
            Payload::Members(members) => 32 * (members.all.len() + 2 * members.voters.len() + 4),
        };
        payload + 24
    }

    fn is_sound(&self) -> bool {
        match &self.payload {
            Payload::Blank => true,
            Payload::Command(command) => command.bytes.len() <= COMMAND_MAX,
            Payload::Members(members) => members.is_sound(),
        }
    }
}

/// Whether `entries` may follow `before` in a log, and each is sound.
pub(crate) fn follows(before: Option<LogId>, entries: &[Entry]) -> bool {
    let mut before = before;
    entries.iter().all(|entry| {
        let fits = match before {
            None => entry.id.index == 0,
            Some(before) => {
                before.index.checked_add(1) == Some(entry.id.index) && before.term <= entry.id.term
            }
        };
        before = Some(entry.id);
        fits && entry.is_sound()
    })
}
