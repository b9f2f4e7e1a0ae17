//! Following a leader: taking its entries, and saying what is safe.
//!
//! What it does not know: elections; snapshots.
//!
//! Invariants
//! - An entry is confirmed once it is known to be as in the leader's log, and safe here.
//! - What is committed is the same everywhere, so the leader's word on it is not checked, and can
//!   change nothing.

use alloc::vec::Vec;

use jizoku_types::{Instant, NodeId};
use rand_chacha::rand_core::Rng;

use super::Consensus;
use crate::log::{Entry, LogId, Vote, follows};
use crate::record::Change;
use crate::wire::Body;

impl Consensus {
    /// Whether `from` leads in `term`, which is the newest. If so it was heard now.
    pub(super) fn follow(&mut self, now: Instant, from: NodeId, term: u64) -> bool {
        let own = self.state.term();
        if term < own {
            self.outbox.send(from, Body::LaterTerm { term: own });
            return false;
        }
        let elected = Vote { term, node: from, elected: true };
        if term > own || self.elected().is_none() {
            // Its votes came from others.
            if from == self.config.me {
                self.dropped.malformed += 1;
                return false;
            }
            self.set_vote(elected);
        } else if self.state.vote != Some(elected) || self.leading.is_some() {
            self.dropped.malformed += 1;
            return false;
        }
        self.heard = Some(now);
        self.sounding = None;
        self.election.wait_anew(now, self.random.next_u64());
        true
    }

    /// The leader's entries, or a heartbeat.
    pub(super) fn append(
        &mut self,
        from: NodeId,
        (term, stamp): (u64, u64),
        before: Option<LogId>,
        entries: Vec<Entry>,
        committed: u64,
    ) {
        let start = before.map_or(0, |before| before.index + 1);
        if let Some(before) = before
            && start > self.committed
            && self.state.term_at(before.index) != Some(before.term)
        {
            let hint = self.common_at_most(before.index);
            self.outbox.send_once_safe(self.vote_mark, from, Body::Conflict { term, stamp, hint });
            return;
        }
        let (any, end) = (!entries.is_empty(), start + entries.len() as u64);
        if !self.store(entries) {
            self.dropped.malformed += 1;
            return;
        }
        self.verified = self.verified.max(end);
        self.committed = self.committed.max(committed.min(self.verified));
        if self.verified > self.flushed {
            self.owed = self.owed.max(Some(stamp));
            if any {
                return;
            }
        }
        let matched = self.verified.min(self.flushed);
        self.outbox.send_once_safe(self.vote_mark, from, Body::Appended { term, stamp, matched });
    }

    /// Where the leader may try next: what it has at `index` is not what this node has.
    fn common_at_most(&self, index: u64) -> u64 {
        let len = self.state.len();
        let Some(term) = self.state.term_at(index) else { return len.min(index) };
        // All of that term may be from a leader that nobody followed.
        let same = self.state.entries.range(..index).rev();
        let same = same.take_while(|(_, entry)| entry.id.term == term);
        let first = same.last().map_or(index, |(first, _)| *first);
        first.max(self.committed)
    }

    /// Puts those entries into the log that aren't there. Gives false, with nothing changed, if
    /// they don't fit.
    fn store(&mut self, mut entries: Vec<Entry>) -> bool {
        let known = |entry: &&Entry| {
            entry.id.index < self.committed
                || self.state.term_at(entry.id.index) == Some(entry.id.term)
        };
        let count = entries.iter().take_while(known).count();
        entries.drain(..count);
        let Some(first) = entries.first().map(|entry| entry.id.index) else { return true };
        let len = self.state.len();
        let before = first
            .checked_sub(1)
            .and_then(|index| self.state.term_at(index).map(|term| LogId { term, index }));
        if first > len || !follows(before, &entries) {
            return false;
        }
        if first < len {
            self.truncate(first);
        }
        self.record(Change::Append(entries));
        self.flush_log();
        true
    }

    /// Confirms what has become safe since it came.
    pub(super) fn answer_what_is_owed(&mut self) {
        let Some(stamp) = self.owed else { return };
        let Some(leader) = self.elected().filter(|leader| *leader != self.config.me) else {
            self.owed = None;
            return;
        };
        let (term, matched) = (self.state.term(), self.verified.min(self.flushed));
        if matched == self.verified {
            self.owed = None;
        }
        let answer = Body::Appended { term, stamp, matched };
        self.outbox.send_once_safe(self.vote_mark, leader, answer);
    }
}
