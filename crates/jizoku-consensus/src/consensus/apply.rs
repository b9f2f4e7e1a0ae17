//! Giving out what is committed.
//!
//! What it does not know: what commands mean.
//!
//! Invariant: commands and snapshots are given out in the order of the log, each command once in a
//! life, and only what is safe on this node's disk.

use jizoku_types::Instant;

use super::Consensus;
use crate::interface::Output;
use crate::log::{LogId, Members, Payload};
use crate::record::number_of;

impl Consensus {
    /// Commits, applies, and takes the steps that follow, until nothing follows any more.
    pub(super) fn advance(&mut self, now: Instant) {
        loop {
            self.commit();
            self.apply();
            let before = self.state.len();
            self.step_change(now);
            self.retire(now);
            if self.state.len() == before {
                break;
            }
        }
        self.take_snapshot_if_due();
    }

    fn apply(&mut self) {
        while self.installing.is_none() && self.applied < self.committed.min(self.flushed) {
            let Some(entry) = self.state.entries.get(&self.applied) else { return };
            let (id, payload) = (entry.id, entry.payload.clone());
            self.proposals.applied_term(id.term);
            match payload {
                Payload::Blank => {}
                Payload::Command(command) => {
                    let proposed = self.proposals.settle(&command);
                    self.outbox.output(Output::Applied {
                        index: id.index,
                        id: proposed,
                        command: command.bytes,
                    });
                }
                Payload::Members(members) => self.settle_members(Some(id), members),
            }
            self.applied += 1;
            self.applied_id = Some(id);
        }
    }

    /// These are the members, for certain.
    pub(super) fn settle_members(&mut self, at: Option<LogId>, members: Members) {
        // With two sets the change isn't over; the entry that ends it follows.
        if members.voters.len() == 1 {
            let (voters, learners) = (members.voters(), members.learners());
            let number = at.map_or(0, number_of);
            self.outbox.output(Output::VotersAre { number, voters, learners });
        }
        (self.settled, self.settled_at) = (members, at);
    }

    /// A leader that is no voter any more, for certain, hands over and follows.
    fn retire(&mut self, now: Instant) {
        let settled = self.settled_at == self.members_at && self.settled.voters.len() == 1;
        if self.leading.as_ref().is_some_and(|leading| leading.change.is_none())
            && settled
            && !self.votes()
        {
            // Others learn that it is committed, or they would elect by the old members.
            self.replicate(now, true);
            self.transfer_leader(None, false);
            self.step_down();
        }
    }
}
