//! Elections: asking for votes, and giving them.
//!
//! What it does not know: when to ask (`election`).
//!
//! Invariants
//! - A node gives one vote in a term, and gives it only once its record is safe; its own too.
//! - It votes only for logs that are at least as long and new as its own.
//! - While it hears a leader, it gives no vote (dissertation 4.2.3), unless that leader handed over
//!   or is known to be gone.

use alloc::collections::BTreeSet;

use jizoku_types::{Instant, NodeId};
use rand_chacha::rand_core::Rng;

use super::Consensus;
use crate::log::{LogId, Vote};
use crate::record::Change;
use crate::wire::Body;

/// This node asks for votes in its newest term.
#[derive(Debug)]
pub(super) struct Campaign {
    granted: BTreeSet<NodeId>,
}

/// This node asks whether it would be elected in that term.
#[derive(Debug)]
pub(super) struct Sounding {
    term: u64,
    granted: BTreeSet<NodeId>,
}

impl Consensus {
    /// Gives this vote, or notes who was elected. What this node was in an earlier term ends.
    pub(super) fn set_vote(&mut self, vote: Vote) {
        let before = self.state.term();
        assert!(vote.term >= before, "terms only grow");
        if vote.term > before {
            (self.verified, self.owed, self.heard) = (0, None, None);
        }
        if vote.term > before || vote.node != self.config.me {
            self.campaign = None;
            self.step_down();
        }
        self.sounding = None;
        self.record(Change::Vote(vote));
        self.vote_mark = self.outbox.mark();
    }

    /// A later term has begun, by the word of `from`. To note it as a vote for that node is no
    /// harm: it isn't told, and who leads in that term will say so.
    pub(super) fn later_term(&mut self, from: NodeId, term: u64) {
        if term > self.state.term() {
            self.set_vote(Vote { term, node: from, elected: false });
        }
    }

    /// Asks the voters whether they would elect this node.
    pub(super) fn sound(&mut self) {
        // The disk is slow: another election would have to wait for the same disk.
        if self.campaign.is_some() && !self.outbox.is_safe(self.vote_mark) {
            return;
        }
        let term = self.state.term() + 1;
        let granted = BTreeSet::from([self.config.me]);
        if self.members.majority(&granted) {
            self.campaign(false);
            return;
        }
        self.sounding = Some(Sounding { term, granted });
        self.ask(term, true, false);
    }

    /// Holds an election. `transfer`: the leader handed over.
    pub(super) fn campaign(&mut self, transfer: bool) {
        if !self.votes() || self.leading.is_some() {
            return;
        }
        let term = self.state.term() + 1;
        self.set_vote(Vote { term, node: self.config.me, elected: false });
        self.campaign = Some(Campaign { granted: BTreeSet::new() });
        self.ask(term, false, transfer);
    }

    fn ask(&mut self, term: u64, pre: bool, transfer: bool) {
        let last = self.state.last();
        for voter in self.others() {
            self.outbox.send(voter, Body::AskVote { term, last, pre, transfer });
        }
    }

    /// Whether a leader is there that must not be disturbed.
    fn leader_lives(&self, now: Instant) -> bool {
        let lease = match &self.leading {
            Some(_) if self.alone() => return true,
            Some(_) => self.config.election_max,
            None => self.config.election_min,
        };
        let gone = self.elected().is_none_or(|leader| self.gone.contains(&leader));
        !gone && self.last_heard().is_some_and(|heard| now.since(heard) < lease)
    }

    /// Somebody asks whether it would be elected.
    pub(super) fn sounded(&mut self, now: Instant, from: NodeId, term: u64, last: Option<LogId>) {
        let own = self.state.term();
        if term <= own {
            self.outbox.send(from, Body::LaterTerm { term: own });
        } else if last >= self.state.last() && !self.leader_lives(now) {
            self.election.yield_turn(now);
            self.outbox.send(from, Body::Voted { term, pre: true });
        }
    }

    /// Somebody asks for this node's vote.
    pub(super) fn asked(
        &mut self,
        now: Instant,
        from: NodeId,
        term: u64,
        last: Option<LogId>,
        transfer: bool,
    ) {
        let own = self.state.term();
        if term < own {
            self.outbox.send(from, Body::LaterTerm { term: own });
            return;
        }
        if last < self.state.last() || (!transfer && self.leader_lives(now)) {
            return;
        }
        let vote = Vote { term, node: from, elected: false };
        if term > own {
            self.set_vote(vote);
        } else if self.state.vote != Some(vote) {
            return;
        }
        self.election.wait_anew(now, self.random.next_u64());
        self.outbox.send_once_safe(self.vote_mark, from, Body::Voted { term, pre: false });
    }

    /// `from` gives its vote, or would.
    pub(super) fn voted(&mut self, from: NodeId, term: u64, pre: bool) {
        if pre {
            let Some(sounding) = self.sounding.as_mut().filter(|asked| asked.term == term) else {
                return;
            };
            sounding.granted.insert(from);
            if self.members.majority(&sounding.granted) {
                self.campaign(false);
            }
        } else if term == self.state.term()
            && let Some(campaign) = &mut self.campaign
        {
            campaign.granted.insert(from);
            self.count_votes();
        }
    }

    /// A vote may have become safe: this node's own for itself counts now.
    pub(super) fn vote_safe(&mut self) {
        if let Some(campaign) = &mut self.campaign
            && self.outbox.is_safe(self.vote_mark)
            && campaign.granted.insert(self.config.me)
        {
            self.count_votes();
        }
    }

    fn count_votes(&mut self) {
        let won = |campaign: &Campaign| self.members.majority(&campaign.granted);
        if self.campaign.as_ref().is_some_and(won) {
            self.campaign = None;
            self.lead();
        }
    }

    /// The leader of `term` hands over to this node.
    pub(super) fn handed_over(&mut self, now: Instant, from: NodeId, term: u64) {
        if term == self.state.term() && self.elected() == Some(from) && self.votes() {
            self.election.wait_anew(now, self.random.next_u64());
            self.campaign(true);
        }
    }
}
