//! Snapshots: taking them and cutting the log, sending them in parts, and installing them.
//!
//! What it does not know: what is in them.
//!
//! Invariants
//! - A snapshot counts as taken or installed only once its record is safe.
//! - The log is cut only up to what a safe snapshot covers.
//! - One snapshot comes in at a time. A part counts only where the part before it ended.

use alloc::vec::Vec;

use jizoku_types::{Instant, NodeId, Span};

use super::Consensus;
use crate::interface::Output;
use crate::log::LogId;
use crate::outbox::Mark;
use crate::record::{Change, SNAPSHOT_MAX, SnapshotMeta};
use crate::wire::{Body, SNAPSHOT_PART};

/// A snapshot on its way to a member.
#[derive(Debug)]
pub(super) struct Sending {
    meta: SnapshotMeta,
    last: LogId,
    bytes: Vec<u8>,
    offset: usize,
    /// When the part at `offset` was sent. `None`: it is due.
    sent: Option<Instant>,
}

/// A part to send.
pub(super) struct Part<'a> {
    sending: &'a Sending,
}

impl Sending {
    /// What it covers.
    pub(super) fn last(&self) -> LogId {
        self.last
    }

    /// How much of the log it covers.
    pub(super) fn end(&self) -> u64 {
        self.last.index + 1
    }

    /// The part that is due: it is wanted, or its answer didn't come for this long.
    pub(super) fn due(&mut self, now: Instant, patience: Span) -> Option<Part<'_>> {
        if self.sent.is_some_and(|sent| now.since(sent) < patience) {
            return None;
        }
        self.sent = Some(now);
        Some(Part { sending: self })
    }
}

impl Part<'_> {
    pub(super) fn message(&self, term: u64, stamp: u64) -> Body {
        let Sending { meta, bytes, offset, .. } = self.sending;
        let end = bytes.len().min(offset + SNAPSHOT_PART);
        Body::Snapshot {
            term,
            stamp,
            meta: meta.clone(),
            total: bytes.len() as u64,
            offset: *offset as u64,
            part: bytes[*offset..end].to_vec(),
        }
    }
}

/// A snapshot on its way to this node.
#[derive(Debug)]
pub(super) struct Incoming {
    from: NodeId,
    term: u64,
    meta: SnapshotMeta,
    total: u64,
    bytes: Vec<u8>,
}

/// A snapshot that is being written, and what to answer then.
#[derive(Debug)]
pub(super) struct Installing {
    mark: Mark,
    meta: SnapshotMeta,
    bytes: Vec<u8>,
    from: NodeId,
    answer: Body,
}

/// Taking.
impl Consensus {
    pub(super) fn take_snapshot_if_due(&mut self) {
        let covered = self.state.snapshot_last().map_or(0, |last| last.index + 1);
        let since = self.applied.saturating_sub(covered.max(self.taken_at));
        let busy = self.taking.is_some() || self.cutting.is_some() || self.installing.is_some();
        let Some(last) = self.applied_id.filter(|_| since >= self.config.snapshot_every && !busy)
        else {
            return;
        };
        self.taken_at = self.applied;
        let (members_at, members) = (self.settled_at, self.settled.clone());
        self.taking = Some(SnapshotMeta { last: Some(last), members_at, members });
        self.outbox.output(Output::TakeSnapshot { index: last.index });
    }

    /// The caller's answer. One that wasn't asked for, or is too large, is dropped.
    pub(super) fn snapshot_taken(&mut self, index: u64, bytes: Vec<u8>) {
        let asked = |meta: &mut SnapshotMeta| meta.last.is_some_and(|last| last.index == index);
        let Some(meta) = self.taking.take_if(asked) else { return };
        if bytes.len() <= SNAPSHOT_MAX && meta.last > self.state.snapshot_last() {
            self.record(Change::Snapshot(meta, bytes));
            self.cutting = Some(self.outbox.mark());
        }
    }

    /// A snapshot may have become safe.
    pub(super) fn snapshot_safe(&mut self) {
        if self.cutting.take_if(|mark| self.outbox.is_safe(*mark)).is_some() {
            self.cut_log();
        }
        if let Some(done) = self.installing.take_if(|new| self.outbox.is_safe(new.mark)) {
            self.restore(done.meta, done.bytes);
            self.outbox.send(done.from, done.answer);
        }
    }

    /// Forgets what the snapshot covers, but for some that members who lag a little may need.
    fn cut_log(&mut self) {
        let Some(last) = self.state.snapshot_last() else { return };
        let kept = self.config.snapshot_every / 4;
        let Some(index) = last.index.checked_sub(kept) else { return };
        if let Some(entry) = self.state.entries.get(&index) {
            let upto = entry.id;
            self.record(Change::Purge(upto));
        }
    }
}

/// Sending.
impl Consensus {
    pub(super) fn begin_sending(&self) -> Option<Sending> {
        let (meta, bytes) = self.state.snapshot.clone()?;
        let last = meta.last?;
        Some(Sending { meta, last, bytes, offset: 0, sent: None })
    }

    /// A member says which part it wants next.
    pub(super) fn snapshot_at(
        &mut self,
        now: Instant,
        from: NodeId,
        message: (u64, u64),
        last: LogId,
        next: u64,
    ) {
        let Some(peer) = self.answered(now, from, message) else { return };
        let Some(sending) = peer.sending.as_mut().filter(|sending| sending.last == last) else {
            return;
        };
        let total = sending.bytes.len() as u64;
        if next < total {
            sending.offset = usize::try_from(next).unwrap_or(0);
            sending.sent = None;
        } else if next == total {
            let end = sending.end();
            peer.sending = None;
            peer.next = end;
            peer.has(end);
        }
    }
}

/// Installing.
impl Consensus {
    pub(super) fn snapshot_part(
        &mut self,
        from: NodeId,
        (term, stamp): (u64, u64),
        meta: SnapshotMeta,
        total: u64,
        offset: u64,
        part: &[u8],
    ) {
        let Some(last) = meta.last else { return };
        if self.installing.is_some() {
            return;
        }
        let answer = |next| Body::SnapshotAt { term, stamp, last, next };
        if self.applied > last.index {
            // Has it already: the answer to the last part was lost, or the log came first.
            self.outbox.send_once_safe(self.vote_mark, from, answer(total));
            return;
        }
        let same = |known: &Incoming| {
            (known.from, known.term, known.total) == (from, term, total) && known.meta == meta
        };
        if !self.incoming.as_ref().is_some_and(same) {
            if offset > 0 {
                self.outbox.send_once_safe(self.vote_mark, from, answer(0));
                return;
            }
            self.incoming = Some(Incoming { from, term, meta, total, bytes: Vec::new() });
        }
        let Some(known) = &mut self.incoming else { return };
        if known.bytes.len() as u64 == offset {
            known.bytes.extend_from_slice(part);
        }
        let next = known.bytes.len() as u64;
        if next < total {
            self.outbox.send_once_safe(self.vote_mark, from, answer(next));
        } else if let Some(complete) = self.incoming.take() {
            self.install(complete, answer(total));
        }
    }

    fn install(&mut self, complete: Incoming, answer: Body) {
        let Incoming { from, meta, bytes, .. } = complete;
        let Some(last) = meta.last else { return };
        // A snapshot of one's own that is being taken is older.
        self.taking = None;
        self.record(Change::Snapshot(meta.clone(), bytes.clone()));
        for change in self.state.behind_snapshot() {
            if let Change::Truncate(from) = change {
                self.forget_flushes(from);
            }
            self.record(change);
        }
        self.flush_log();
        self.verified = self.verified.max(last.index + 1);
        self.committed = self.committed.max(last.index + 1);
        let mark = self.outbox.mark();
        self.installing = Some(Installing { mark, meta, bytes, from, answer });
    }

    /// Goes on from a snapshot that is safe.
    pub(super) fn restore(&mut self, meta: SnapshotMeta, bytes: Vec<u8>) {
        let Some(last) = meta.last else { return };
        let end = last.index + 1;
        (self.applied, self.applied_id) = (end, Some(last));
        self.committed = self.committed.max(end);
        self.outbox.output(Output::InstallSnapshot { index: last.index, bytes });
        self.settle_members(meta.members_at, meta.members);
        self.proposals.skipped_to(last.term);
    }
}
