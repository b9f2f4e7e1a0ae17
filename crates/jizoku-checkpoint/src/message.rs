//! What travels between the active node of a service, its holders, and who collects its state.
//!
//! What it does not know: how it travels; what anybody does about it.
//!
//! Invariants
//! - Every message names its service and the epoch that its sender acts under; an answer repeats
//!   the epoch it was asked under.
//! - Every answer names the incarnation that gives it.
//! - Everything can be lost, doubled or late: transfers and questions are numbered by their sender,
//!   and answers repeat the number.
//!
//! Limits: a message fits a frame: parts are at most `PART_MAX`, questions bounded by
//! [`NODES_PER_QUESTION`](crate::image::NODES_PER_QUESTION) and
//! [`BLOCKS_PER_QUESTION`](crate::image::BLOCKS_PER_QUESTION).

use alloc::vec::Vec;
use core::fmt;

use jizoku_types::spec::Durability;
use jizoku_types::{BranchId, ByteCount, CheckpointId, Epoch, Incarnation, ServiceId};
use serde::{Deserialize, Serialize};

use crate::image::{Digest, FANOUT, Part, Question, SpaceOutline};

/// One service in one branch: what a holder keeps apart from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Line {
    /// Which service.
    pub service: ServiceId,
    /// In which branch.
    pub branch: BranchId,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.service, self.branch)
    }
}

/// Under what a service's checkpoints are shipped or collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Which service.
    pub service: ServiceId,
    /// The epoch that the sender acts under.
    pub epoch: Epoch,
    /// When a holder acknowledges.
    pub durable: Durability,
}

impl Terms {
    /// The line that these terms are about.
    pub fn line(&self) -> Line {
        Line { service: self.service, branch: self.epoch.branch }
    }
}

/// To a holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToHolder {
    /// Of which service, under which epoch.
    pub terms: Terms,
    /// What is wanted.
    pub ask: Ask,
}

/// What is wanted of a holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Keep this part of a checkpoint. Answered by [`Answer::Ack`] once the checkpoint is complete,
    /// or by [`Answer::Refuse`].
    Ship(Ship),
    /// This checkpoint is committed. Not answered.
    Commit {
        /// Which.
        id: CheckpointId,
    },
    /// A takeover goes on from this checkpoint: drop what is above. Answered by [`Answer::Ack`] or
    /// [`Answer::Refuse`].
    Adopt {
        /// The sender's number for it.
        transfer: u64,
        /// Which; none: the service starts without state.
        id: CheckpointId,
        /// Its root.
        root: Digest,
        /// Whether the holder is only being added: then what it has committed binds nobody.
        joins: bool,
    },
    /// Refuse everything below this epoch from now on. Answered by [`Answer::Report`] or
    /// [`Answer::Refuse`].
    Seal,
    /// Tell something of the image of this checkpoint.
    Fetch {
        /// The sender's number for it.
        ticket: u64,
        /// Of which checkpoint.
        id: CheckpointId,
        /// What.
        question: Question,
    },
    /// As [`Ask::Seal`], for a line that goes on from what another branch has: if what is held of
    /// that is newer, it is held of this line too. Refused if nothing of that branch is held.
    Fork {
        /// The branch that the line goes on from.
        parent: BranchId,
    },
}

/// A part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ship {
    /// The sender's number for all parts of it together; grows.
    pub transfer: u64,
    /// The checkpoint.
    pub id: CheckpointId,
    /// What it is based on; none: it is a whole image, and replaces what the holder has.
    pub base: CheckpointId,
    /// The root that the state has after it.
    pub root: Digest,
    /// The highest checkpoint that is committed.
    pub committed: CheckpointId,
    /// This part's number, from 0.
    pub part: u32,
    /// How many parts there are.
    pub parts: u32,
    /// Whether this part's arrival shall be told: long transfers are paced by it.
    pub tell: bool,
    /// The part.
    pub body: Part,
}

/// From a holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromHolder {
    /// Of which service.
    pub service: ServiceId,
    /// The epoch that was asked under.
    pub epoch: Epoch,
    /// Who answers: the incarnation of the sending node.
    pub incarnation: Incarnation,
    /// The answer.
    pub answer: Answer,
}

/// What a holder answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It has this checkpoint complete, as durable as it was asked to be, and has seen the epoch.
    Ack {
        /// Which.
        id: CheckpointId,
    },
    /// A part arrived that isn't the last.
    Received {
        /// Of which transfer.
        transfer: u64,
        /// Which.
        part: u32,
        /// How many parts of it are here.
        have: u32,
    },
    /// It did not do what it was asked to, and nothing changed.
    Refuse {
        /// The number of the transfer or the question; 0 for a seal.
        number: u64,
        /// Why.
        why: Why,
    },
    /// Sealed; this is what it has.
    Report(Report),
    /// The spaces of the image.
    Outline {
        /// The question's number.
        ticket: u64,
        /// In the order of their names.
        spaces: Vec<SpaceOutline>,
    },
    /// The digests below the nodes that were asked for, in that order.
    Nodes {
        /// The question's number.
        ticket: u64,
        /// One for each index.
        nodes: Vec<[Digest; FANOUT]>,
    },
    /// The blocks that were asked for, as the writes of a diff to their space.
    Blocks {
        /// The question's number.
        ticket: u64,
        /// The diff.
        body: Part,
    },
}

/// Why a holder refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// It knows of a higher epoch: the sender is no longer the active node.
    Superseded {
        /// Which.
        by: Epoch,
    },
    /// It doesn't have what the checkpoint is based on, or what it shall adopt.
    BaseMissing {
        /// The highest that it has, or none.
        have: CheckpointId,
        /// The root of that.
        root: Digest,
    },
    /// It has something committed above what it shall adopt.
    Ahead {
        /// What.
        committed: CheckpointId,
    },
    /// It has no room for more.
    NoRoom,
    /// The parts are damaged, or the result doesn't have the root it should have.
    Corrupt,
    /// Its disk failed, and it must not acknowledge without.
    NotStored,
    /// It doesn't have that checkpoint.
    Gone,
    /// The message makes no sense.
    Malformed,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Superseded { by } => write!(f, "epoch {by} has begun"),
            Why::BaseMissing { have, .. } => write!(f, "lacks the base; has {have}"),
            Why::Ahead { committed } => write!(f, "has committed {committed}"),
            Why::NoRoom => f.write_str("has no room"),
            Why::Corrupt => f.write_str("got a damaged checkpoint, or has one"),
            Why::NotStored => f.write_str("could not write to its disk"),
            Why::Gone => f.write_str("no longer has that checkpoint"),
            Why::Malformed => f.write_str("got a message that makes no sense"),
        }
    }
}

/// What a sealed holder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The highest complete checkpoint, or none.
    pub top: CheckpointId,
    /// Its root.
    pub root: Digest,
    /// Its size.
    pub size: ByteCount,
    /// The highest that it knows to be committed, or none.
    pub committed: CheckpointId,
    /// Whether this copy outlived a restart of its agent as a whole: read back from disk, verified,
    /// and never acknowledged before it was flushed. With `durable = "disk"` the holder is still a
    /// member then, although its incarnation is another.
    pub kept: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn terms() -> Terms {
        Terms { service: ServiceId(7), epoch: Epoch::main(3), durable: Durability::Disk }
    }

    fn to(ask: Ask) -> ToHolder {
        ToHolder { terms: terms(), ask }
    }

    fn from(answer: Answer) -> FromHolder {
        let incarnation = Incarnation(9);
        FromHolder { service: ServiceId(7), epoch: Epoch::main(3), incarnation, answer }
    }

    #[test]
    fn encodings_are_golden() {
        let id = CheckpointId { epoch: 3, seq: 300 };
        let base = CheckpointId { epoch: 2, seq: 299 };
        let (root, body) = (Digest([0xaa; 32]), Part::new(vec![1, 2, 3]));
        let (part, parts, tell) = (1, 2, true);
        let ship = Ship { transfer: 5, id, base, root, committed: base, part, parts, tell, body };
        let aa = "aa".repeat(32);
        let head = format!("07{}0301", "00".repeat(16));
        for (message, expected) in [
            (to(Ask::Ship(ship)), format!("000503ac0202ab02{aa}02ab0201020103010203")),
            (to(Ask::Commit { id }), "0103ac02".into()),
            (to(Ask::Adopt { transfer: 6, id, root, joins: true }), format!("020603ac02{aa}01")),
            (to(Ask::Seal), "03".into()),
            (to(Ask::Fetch { ticket: 8, id, question: Question::Outline }), "040803ac0200".into()),
            (to(Ask::Fork { parent: BranchId([1; 16]) }), format!("05{}", "01".repeat(16))),
        ] {
            let bytes = jizoku_types::encode(&message);
            assert_eq!(hex(&bytes), format!("{head}{expected}"));
            assert_eq!(jizoku_types::decode(&bytes), Ok(message));
        }
    }

    #[test]
    fn answers_are_golden() {
        let id = CheckpointId { epoch: 3, seq: 300 };
        let head = format!("07{}0309", "00".repeat(16));
        let report = Report {
            top: id,
            root: Digest([0xbb; 32]),
            size: ByteCount(4096),
            committed: CheckpointId::default(),
            kept: true,
        };
        let superseded = Why::Superseded { by: Epoch::main(4) };
        for (message, expected) in [
            (from(Answer::Ack { id }), String::from("0003ac02")),
            (from(Answer::Received { transfer: 5, part: 1, have: 2 }), "01050102".into()),
            (
                from(Answer::Refuse { number: 5, why: superseded }),
                format!("020500{}04", "00".repeat(16)),
            ),
            (from(Answer::Refuse { number: 5, why: Why::Gone }), "020506".into()),
            (from(Answer::Report(report)), format!("0303ac02{}8020000001", "bb".repeat(32))),
            (from(Answer::Blocks { ticket: 1, body: Part::new(vec![4]) }), "06010104".into()),
        ] {
            let bytes = jizoku_types::encode(&message);
            assert_eq!(hex(&bytes), format!("{head}{expected}"));
            assert_eq!(jizoku_types::decode(&bytes), Ok(message));
        }
    }
}
