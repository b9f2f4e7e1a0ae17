//! What consensus values say to each other.
//!
//! What it does not know: how bytes travel; who may speak (the mesh lets members in only).
//!
//! Invariants
//! - A message names its cluster and generation; [`open`] refuses those of another one.
//! - Decoding never panics and allocates no more than the bytes at hand allow. What is decoded is
//!   checked for what Raft takes for granted (entries in order, sound members).
//!
//! Limits: a message is at most [`FRAME_BODY_MAX`] bytes; see [`APPEND_BYTES_MAX`] and
//! [`SNAPSHOT_PART`] for how the largest ones stay below it.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use jizoku_types::limits::FRAME_BODY_MAX;
use jizoku_types::{ClusterId, Generation, NodeId, frame};
use serde::{Deserialize, Serialize};

use crate::log::{COMMAND_MAX, Entry, LogId, MEMBERS_MAX, follows};
use crate::record::{SNAPSHOT_MAX, SnapshotMeta};

/// The number of the form in which messages are encoded.
pub(crate) const WIRE_FORMAT: u8 = 2;

/// Terms and places beyond these are nonsense: no cluster gets there, and sums stay in range.
const TERM_MAX: u64 = u64::MAX / 4;
const INDEX_MAX: u64 = u64::MAX / 4;

/// Bytes of entries in one message at most, unless the first entry alone is larger.
pub(crate) const APPEND_BYTES_MAX: usize = 384 << 10;

/// Bytes of a snapshot in one message.
pub(crate) const SNAPSHOT_PART: usize = 256 << 10;

const _: () = assert!(
    APPEND_BYTES_MAX + COMMAND_MAX + 4096 <= FRAME_BODY_MAX,
    "a message with entries must fit a frame: the last entry may go over the limit"
);
const _: () = assert!(SNAPSHOT_PART + 3 * 40 * MEMBERS_MAX <= FRAME_BODY_MAX, "so must a part");

#[derive(Serialize, Deserialize)]
struct Envelope {
    format: u8,
    cluster: ClusterId,
    generation: Generation,
    body: Body,
}

/// What one node says to another. Every message of Raft names its sender's term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Body {
    /// The leader of `term`: these entries follow `before`. Without entries: a heartbeat.
    Append {
        term: u64,
        /// Names the message; answers carry it. It grows, and tells the leader when it was sent.
        stamp: u64,
        before: Option<LogId>,
        entries: Vec<Entry>,
        /// How many entries are committed.
        committed: u64,
    },
    /// To the leader of `term`: so many entries are as in its log, and safe.
    Appended { term: u64, stamp: u64, matched: u64 },
    /// To the leader of `term`: there is no such entry `before`. Try after `hint` entries.
    Conflict { term: u64, stamp: u64, hint: u64 },
    /// That message's term is over: this one has begun.
    LaterTerm { term: u64 },
    /// Vote for me in `term`; my log ends with `last`.
    AskVote {
        term: u64,
        last: Option<LogId>,
        /// Only asks whether it would.
        pre: bool,
        /// The leader handed over: its lease is no reason to refuse.
        transfer: bool,
    },
    /// Yes. A refusal is silence.
    Voted { term: u64, pre: bool },
    /// The leader of `term`: a part of the snapshot that `meta` describes.
    Snapshot { term: u64, stamp: u64, meta: SnapshotMeta, total: u64, offset: u64, part: Vec<u8> },
    /// To the leader of `term`: that snapshot is wanted from this offset on; at the end of it: it
    /// is installed, and safe.
    SnapshotAt { term: u64, stamp: u64, last: LogId, next: u64 },
    /// The leader of `term` hands over: hold an election.
    HandOver { term: u64 },
    /// What is not Raft's own.
    Notice(Notice),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Notice {
    /// Append this command, if you lead in this term.
    Propose {
        term: u64,
        life: u64,
        id: u64,
        attempt: u64,
        command: Vec<u8>,
    },
    /// Not appended, and never will be from that attempt.
    NotTaken {
        life: u64,
        id: u64,
        attempt: u64,
    },
    /// Make these the voters and learners, if you lead.
    ChangeVoters {
        life: u64,
        id: u64,
        attempt: u64,
        voters: BTreeSet<NodeId>,
        learners: BTreeSet<NodeId>,
    },
    VotersChanged {
        life: u64,
        id: u64,
        attempt: u64,
        result: Result<(), ChangeFailure>,
    },
    /// Hand over the lead.
    TransferLeader {
        to: Option<NodeId>,
    },
    /// The leader of this term is gone: would you vote for me?
    LeaderGone {
        term: u64,
        last: Option<LogId>,
    },
    /// I would: my leader of this term is gone too.
    GoneToo {
        term: u64,
    },
}

/// Why voters were not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ChangeFailure {
    NotLeader,
    Busy,
    Lagging,
    Unknown,
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not a message of this format.
    Malformed,
    /// Of another cluster or generation.
    Foreign,
}

/// Encodes `body` for the cluster.
pub(crate) fn seal(cluster: ClusterId, generation: Generation, body: Body) -> Vec<u8> {
    frame::encode(&Envelope { format: WIRE_FORMAT, cluster, generation, body })
}

/// Decodes and checks a message.
pub(crate) fn open(
    cluster: ClusterId,
    generation: Generation,
    bytes: &[u8],
) -> Result<Body, Refusal> {
    if bytes.first() != Some(&WIRE_FORMAT) {
        return Err(Refusal::Malformed);
    }
    let envelope: Envelope = frame::decode(bytes).map_err(|_| Refusal::Malformed)?;
    if envelope.cluster != cluster || envelope.generation != generation {
        return Err(Refusal::Foreign);
    }
    if is_sound(&envelope.body) { Ok(envelope.body) } else { Err(Refusal::Malformed) }
}

fn is_sound(body: &Body) -> bool {
    match body {
        Body::Append { term, before, entries, .. } => {
            let within = entries.last().is_none_or(|last| last.id.term <= *term);
            let after =
                before.is_none_or(|before| before.term <= *term && before.index <= INDEX_MAX);
            *term <= TERM_MAX && within && after && follows(*before, entries)
        }
        Body::Snapshot { term, meta, total, offset, part, .. } => {
            let end = offset.checked_add(part.len() as u64);
            *term <= TERM_MAX
                && meta.last.is_some_and(|last| last.term <= *term && last.index <= INDEX_MAX)
                && meta.members.is_sound()
                && *total <= SNAPSHOT_MAX as u64
                && end.is_some_and(|end| end <= *total)
        }
        Body::AskVote { term, .. }
        | Body::Voted { term, .. }
        | Body::Appended { term, .. }
        | Body::Conflict { term, .. }
        | Body::SnapshotAt { term, .. }
        | Body::HandOver { term }
        | Body::LaterTerm { term } => *term <= TERM_MAX,
        Body::Notice(Notice::Propose { command, .. }) => command.len() <= COMMAND_MAX,
        Body::Notice(Notice::ChangeVoters { voters, learners, .. }) => {
            !voters.is_empty() && voters.len() + learners.len() <= MEMBERS_MAX
        }
        Body::Notice(_) => true,
    }
}

#[cfg(test)]
mod tests;
