//! Proposals of this node that are under way, and what this node, as a leader, decided about those
//! of others.
//!
//! What it does not know: how commands get into the log; clocks.
//!
//! Invariants
//! - A proposal ends once: settled (applied under its id), or refused.
//! - It is sent to one leader, named by its term, and again only when it is certain that the
//!   earlier attempt is not in the log and never will be: that leader said so, or an entry of a
//!   later term was applied here (terms never fall along the log). So it is applied at most once.
//!   The same attempt may be sent again to the same leader, which remembers that it has it.
//! - `NotTaken` is only said of a proposal for which no attempt is open.
//!
//! Limits: [`PROPOSALS_MAX`] under way; [`DECISIONS_MAX`] remembered decisions, oldest forgotten.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use jizoku_types::{Instant, NodeId, Span};

use crate::interface::{PROPOSALS_MAX, RefuseReason};
use crate::log::Command;

/// Decisions that a leader remembers, so that an attempt that arrives twice counts once. A proposal
/// is given up after seconds; at ten thousand a second, this is for longer.
const DECISIONS_MAX: usize = 65_536;

/// What is proposed.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    Command(Vec<u8>),
    Voters { voters: BTreeSet<NodeId>, learners: BTreeSet<NodeId> },
}

/// To whom a proposal was given.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// The term of that leader.
    term: u64,
    /// When the same attempt is sent again, in case the message was lost.
    again_at: Instant,
}

#[derive(Debug)]
struct Pending {
    wish: Wish,
    /// Which leader has it now. `None`: nobody.
    sent: Option<Sent>,
    attempt: u64,
    not_before: Instant,
    deadline: Instant,
}

/// One proposal to hand to the leader now.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) id: u64,
    pub(crate) attempt: u64,
    pub(crate) wish: Wish,
}

/// One attempt of any node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AttemptKey {
    pub(crate) origin: NodeId,
    pub(crate) life: u64,
    pub(crate) id: u64,
    pub(crate) attempt: u64,
}

/// What a leader does with an attempt that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    New,
    /// It is being handled, or was taken.
    Seen,
    /// It was not taken: say so again.
    Refused,
}

#[derive(Debug)]
pub(crate) struct Proposals {
    me: NodeId,
    life: u64,
    pending: BTreeMap<u64, Pending>,
    refused: VecDeque<(u64, RefuseReason)>,
    /// Whether each attempt was refused.
    decisions: BTreeMap<AttemptKey, bool>,
    decided: VecDeque<AttemptKey>,
}

impl Proposals {
    pub(crate) fn new(me: NodeId, life: u64) -> Proposals {
        Proposals {
            me,
            life,
            pending: BTreeMap::new(),
            refused: VecDeque::new(),
            decisions: BTreeMap::new(),
            decided: VecDeque::new(),
        }
    }

    pub(crate) fn life(&self) -> u64 {
        self.life
    }

    /// Takes a proposal of this node up, to be handed out by [`Proposals::next`].
    pub(crate) fn add(&mut self, now: Instant, id: u64, wish: Wish, deadline: Instant) {
        let full = self.pending.len() >= PROPOSALS_MAX;
        if full || self.pending.contains_key(&id) {
            self.refused.push_back((id, RefuseReason::Full));
            return;
        }
        let pending = Pending { wish, sent: None, attempt: 0, not_before: now, deadline };
        self.pending.insert(id, pending);
    }

    /// The next proposal that the leader of `term` shall get, or get again after `patience`.
    pub(crate) fn next(&mut self, now: Instant, term: u64, patience: Span) -> Option<Attempt> {
        let mut open = self.pending.iter_mut();
        let (id, pending) = open.find(|(_, pending)| match pending.sent {
            None => pending.not_before <= now,
            Some(sent) => sent.term == term && sent.again_at <= now,
        })?;
        if pending.sent.is_none() {
            pending.attempt += 1;
        }
        pending.sent = Some(Sent { term, again_at: now + patience });
        Some(Attempt { id: *id, attempt: pending.attempt, wish: pending.wish.clone() })
    }

    /// The leader did not take that attempt. It is handed out again after `pause`.
    pub(crate) fn not_taken(&mut self, now: Instant, id: u64, attempt: u64, pause: Span) {
        if let Some(pending) = self.pending.get_mut(&id)
            && pending.attempt == attempt
            && pending.sent.is_some()
        {
            pending.sent = None;
            pending.not_before = now + pause;
        }
    }

    /// That attempt ended; gives whether it was the open one.
    pub(crate) fn end(&mut self, id: u64, attempt: u64) -> bool {
        let open = self.pending.get(&id).is_some_and(|pending| pending.attempt == attempt);
        if open {
            self.pending.remove(&id);
        }
        open
    }

    /// That attempt ended badly.
    pub(crate) fn refuse(&mut self, id: u64, attempt: u64, reason: RefuseReason) {
        if self.end(id, attempt) {
            self.refused.push_back((id, reason));
        }
    }

    /// A proposal was refused before it was taken up.
    pub(crate) fn refuse_new(&mut self, id: u64, reason: RefuseReason) {
        self.refused.push_back((id, reason));
    }

    /// `command` is applied: the id it was proposed under, if here, and not given up.
    pub(crate) fn settle(&mut self, command: &Command) -> Option<u64> {
        let own = command.origin == self.me && command.life == self.life;
        let settled = own && self.pending.remove(&command.id).is_some();
        settled.then_some(command.id)
    }

    /// An entry of this term was applied: what is with leaders of earlier terms is lost.
    pub(crate) fn applied_term(&mut self, term: u64) {
        for pending in self.pending.values_mut() {
            if pending.sent.is_some_and(|sent| sent.term < term) {
                pending.sent = None;
            }
        }
    }

    /// Entries up to this term were skipped by a snapshot, maybe with proposals of this node.
    pub(crate) fn skipped_to(&mut self, term: u64) {
        let Proposals { pending, refused, .. } = self;
        pending.retain(|id, pending| {
            let keep = pending.sent.is_none_or(|sent| sent.term > term);
            if !keep {
                refused.push_back((*id, RefuseReason::Unknown));
            }
            keep
        });
    }

    /// Gives up what is too old.
    pub(crate) fn expire(&mut self, now: Instant) {
        let Proposals { pending, refused, .. } = self;
        pending.retain(|id, pending| {
            if pending.deadline > now {
                return true;
            }
            let reason =
                if pending.sent.is_some() { RefuseReason::Unknown } else { RefuseReason::NotTaken };
            refused.push_back((*id, reason));
            false
        });
    }

    /// The next refusal to tell the caller.
    pub(crate) fn next_refused(&mut self) -> Option<(u64, RefuseReason)> {
        self.refused.pop_front()
    }

    /// When something is due. `term`: of the leader, if there is one to hand proposals to.
    pub(crate) fn deadline(&self, term: Option<u64>) -> Option<Instant> {
        let times = self.pending.values().map(|pending| {
            let hand_out = match pending.sent {
                None => term.map(|_| pending.not_before),
                Some(sent) => (term == Some(sent.term)).then_some(sent.again_at),
            };
            hand_out.map_or(pending.deadline, |at| at.min(pending.deadline))
        });
        times.min()
    }

    /// An attempt arrived at this node as the leader.
    pub(crate) fn arrived(&mut self, key: AttemptKey) -> Arrival {
        match self.decisions.get(&key) {
            Some(true) => Arrival::Refused,
            Some(false) => Arrival::Seen,
            None => {
                self.decisions.insert(key, false);
                self.decided.push_back(key);
                if self.decided.len() > DECISIONS_MAX
                    && let Some(oldest) = self.decided.pop_front()
                {
                    self.decisions.remove(&oldest);
                }
                Arrival::New
            }
        }
    }

    /// The attempt was not taken, and must not be if it arrives again.
    pub(crate) fn decide_refused(&mut self, key: AttemptKey) {
        if let Some(refused) = self.decisions.get_mut(&key) {
            *refused = true;
        }
    }
}

#[cfg(test)]
mod tests;
