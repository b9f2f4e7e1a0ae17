//! What a holder writes to disk, and how that is read back at the next start.
//!
//! What it does not know: files, checksums, flushes: those are the store's. It gets [`Record`]s,
//! takes them apart into [`Entry`]s of bounded size, and hands the entries to a [`Replay`] later.
//!
//! Invariants
//! - The records of one line mean something only in their order. The store writes them in that
//!   order, and a record is stored when it and all before it are flushed.
//! - A [`Record::Snapshot`] says all of a line: once it is flushed, all before it can be deleted.
//!   Until then nothing before it may be.
//! - A record counts as a whole or not at all: entries of one that breaks off are passed over.
//! - What a replay gives has been verified against the roots.

use alloc::vec::Vec;
use core::fmt;

use jizoku_types::CheckpointId;
use jizoku_types::limits::PART_MAX;
use jizoku_types::spec::Durability;
use serde::{Deserialize, Serialize};

use crate::chain::{Chain, Point};
use crate::image::{Assembler, Diff, Digest, Image, Part};
use crate::message::Line;

/// Something to be written down.
#[derive(Clone, Debug)]
pub enum Record {
    /// A checkpoint is complete.
    Checkpoint {
        /// Of which line.
        line: Line,
        /// Its description.
        head: Head,
        /// The diff, as it came.
        parts: Vec<Part>,
    },
    /// A checkpoint is committed.
    Committed {
        /// Of which line.
        line: Line,
        /// Which.
        id: CheckpointId,
    },
    /// Lower epochs are refused from now on.
    Sealed {
        /// Of which line.
        line: Line,
        /// The epoch's counter.
        counter: u64,
        /// How acknowledgements are given from now on.
        durable: Durability,
        /// If set: what was above this checkpoint is gone.
        above: Option<CheckpointId>,
    },
    /// All of a line as it is now.
    Snapshot {
        /// Of which line.
        line: Line,
        /// The epoch that is sealed.
        counter: u64,
        /// How acknowledgements are given from now on.
        durable: Durability,
        /// The checkpoints.
        chain: Chain,
    },
    /// The line is no more: delete everything of it.
    Forgotten {
        /// Which.
        line: Line,
    },
}

/// The description of a checkpoint on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Which.
    pub id: CheckpointId,
    /// What it is based on; none: a whole image.
    pub base: CheckpointId,
    /// The root that the state has after it.
    pub root: Digest,
    /// The epoch that is sealed when it is written.
    pub counter: u64,
    /// How it is acknowledged.
    pub durable: Durability,
    /// How many parts follow.
    pub parts: u32,
}

/// A piece of a record, of bounded size: what really lies on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A snapshot begins: nothing before counts, once its [`Entry::End`] is there.
    Begin {
        /// The epoch that is sealed.
        counter: u64,
        /// How acknowledgements are given.
        durable: Durability,
    },
    /// The snapshot is complete.
    End,
    /// A checkpoint; its parts follow.
    Checkpoint(Head),
    /// A part of the checkpoint before.
    Part(Part),
    /// See [`Record::Committed`].
    Committed {
        /// Which.
        id: CheckpointId,
    },
    /// See [`Record::Sealed`].
    Sealed {
        /// The epoch's counter.
        counter: u64,
        /// How acknowledgements are given.
        durable: Durability,
        /// If set: what was above this checkpoint is gone.
        above: Option<CheckpointId>,
    },
}

impl Record {
    /// Of which line it is.
    pub fn line(&self) -> Line {
        match self {
            Record::Checkpoint { line, .. }
            | Record::Committed { line, .. }
            | Record::Sealed { line, .. }
            | Record::Snapshot { line, .. }
            | Record::Forgotten { line } => *line,
        }
    }

    /// Hands its entries to `put`, in their order, and stops at its first error. An entry's
    /// encoding is at most `PART_MAX` and some bytes. A forgotten line has none.
    pub fn write<E>(&self, put: &mut dyn FnMut(&Entry) -> Result<(), E>) -> Result<(), E> {
        match self {
            Record::Checkpoint { head, parts, .. } => {
                put(&Entry::Checkpoint(*head))?;
                parts.iter().try_for_each(|part| put(&Entry::Part(part.clone())))
            }
            Record::Committed { id, .. } => put(&Entry::Committed { id: *id }),
            Record::Sealed { counter, durable, above, .. } => {
                put(&Entry::Sealed { counter: *counter, durable: *durable, above: *above })
            }
            Record::Snapshot { counter, durable, chain, .. } => {
                put(&Entry::Begin { counter: *counter, durable: *durable })?;
                write_chain(*counter, *durable, chain, put)?;
                put(&Entry::End)
            }
            Record::Forgotten { .. } => Ok(()),
        }
    }
}

fn write_chain<E>(
    counter: u64,
    durable: Durability,
    chain: &Chain,
    put: &mut dyn FnMut(&Entry) -> Result<(), E>,
) -> Result<(), E> {
    let mut before = Point::none();
    for point in chain.points() {
        let diff = Diff::between(&before.image, &point.image);
        let cuts = diff.cut(PART_MAX);
        let (id, base, root) = (point.id, before.id, point.root());
        let parts = cuts.parts();
        put(&Entry::Checkpoint(Head { id, base, root, counter, durable, parts }))?;
        for index in 0..parts {
            put(&Entry::Part(diff.encode_part(&cuts, index)))?;
        }
        before = point.clone();
    }
    match chain.ready() {
        Some(ready) => put(&Entry::Committed { id: ready.id }),
        None => Ok(()),
    }
}

/// Why an entry can't follow those before. What was replayed before it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayError {
    /// A part without a checkpoint, an end without a beginning, or something else between.
    OutOfPlace,
    /// A part is damaged, or the result doesn't have the root that was written down.
    Damaged,
    /// A checkpoint whose base isn't there.
    BaseMissing,
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReplayError::OutOfPlace => "an entry stands where none of its kind can be",
            ReplayError::Damaged => "a stored checkpoint is damaged",
            ReplayError::BaseMissing => "a stored checkpoint's base is missing",
        })
    }
}

impl core::error::Error for ReplayError {}

#[derive(Clone, Debug, Default)]
struct Lasting {
    counter: u64,
    durable: Option<Durability>,
    chain: Chain,
}

/// Reads the entries of one line back, in their order.
#[derive(Clone, Default)]
pub struct Replay {
    state: Lasting,
    /// What a snapshot has said so far; `state` holds until it ends.
    snapshot: Option<Lasting>,
    awaiting: Option<(Head, Assembler)>,
}

impl Replay {
    /// Nothing read yet.
    pub fn new() -> Replay {
        Replay::default()
    }

    /// Takes the next entry. After an error, stop reading this line and call
    /// [`finish`](Replay::finish) with `whole` = false.
    pub fn push(&mut self, entry: &Entry) -> Result<(), ReplayError> {
        if let Entry::Part(part) = entry {
            return self.part(part);
        }
        if self.awaiting.is_some() {
            return Err(ReplayError::OutOfPlace);
        }
        match entry {
            Entry::Begin { counter, durable } => {
                let (counter, durable) = (*counter, Some(*durable));
                self.snapshot = Some(Lasting { counter, durable, chain: Chain::default() });
            }
            Entry::End => {
                self.state = self.snapshot.take().ok_or(ReplayError::OutOfPlace)?;
            }
            Entry::Checkpoint(head) => {
                let assembler = Assembler::new(head.parts).ok_or(ReplayError::Damaged)?;
                self.awaiting = Some((*head, assembler));
            }
            Entry::Part(_) => unreachable!("taken above"),
            Entry::Committed { id } => {
                self.current().chain.commit(*id);
            }
            Entry::Sealed { counter, durable, above } => {
                let current = self.current();
                current.counter = current.counter.max(*counter);
                current.durable = Some(*durable);
                if let Some(id) = above {
                    current.chain.drop_above(*id);
                }
            }
        }
        Ok(())
    }

    fn current(&mut self) -> &mut Lasting {
        self.snapshot.as_mut().unwrap_or(&mut self.state)
    }

    fn part(&mut self, part: &Part) -> Result<(), ReplayError> {
        let (head, mut assembler) = self.awaiting.take().ok_or(ReplayError::OutOfPlace)?;
        assembler.add(assembler.received(), part).map_err(|_| ReplayError::Damaged)?;
        if !assembler.is_complete() {
            self.awaiting = Some((head, assembler));
            return Ok(());
        }
        let diff = assembler.finish().map_err(|_| ReplayError::Damaged)?;
        let current = self.current();
        let mut image: Image = current.chain.base(head.base).ok_or(ReplayError::BaseMissing)?;
        image.apply(&diff, head.root).map_err(|_| ReplayError::Damaged)?;
        current.chain.push(head.base, Point { id: head.id, image });
        current.counter = current.counter.max(head.counter);
        current.durable = Some(head.durable);
        Ok(())
    }

    /// What was read. `whole`: the store found no damage; an unfinished write at the very end,
    /// which nobody was told of, is none.
    pub fn finish(self, line: Line, whole: bool) -> Loaded {
        let Lasting { counter, durable, chain } = self.state;
        let durable = durable.unwrap_or(Durability::Memory);
        Loaded { line, counter, durable, chain, whole }
    }
}

/// What a holder had on disk of one line.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Which line.
    pub line: Line,
    /// The epoch that it had sealed.
    pub counter: u64,
    /// How it acknowledged last.
    pub durable: Durability,
    /// The checkpoints, verified.
    pub chain: Chain,
    /// Whether nothing was damaged.
    pub whole: bool,
}

#[cfg(test)]
mod tests;
