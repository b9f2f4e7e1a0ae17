//! Changing who takes part, as the leader: new nodes first follow as learners until they have
//! caught up, then both sets of voters agree on the change, then who is no member any more is let
//! go.
//!
//! What it does not know: who wants the change, or why.
//!
//! Invariants
//! - Every step is an entry of the log, and the next one waits until it is committed. A leader that
//!   dies between two steps leaves members that work, and the change can be asked for again.
//! - Two sets of voters never stay: whoever leads then ends that.
//!
//! Limit: [`CATCH_UP_MAX`].

use alloc::collections::BTreeSet;

use jizoku_types::{Instant, NodeId, Span};

use super::Consensus;
use crate::log::{Members, Payload};
use crate::proposals::AttemptKey;
use crate::wire::{ChangeFailure, Notice};

/// How long a change may take, and so how long a new voter may take to catch up.
pub(super) const CATCH_UP_MAX: Span = Span::secs(10);

/// A new voter has caught up when it lacks no more entries than this: they are under way to it.
const LAG_MAX: u64 = 64;

/// A change under way.
#[derive(Debug)]
pub(super) struct Changing {
    key: AttemptKey,
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    /// It waits for new voters.
    lagging: bool,
    /// A step of it is in the log.
    begun: bool,
    pub(super) until: Instant,
}

impl Consensus {
    /// These shall be the voters and learners.
    pub(super) fn change_asked(
        &mut self,
        key: AttemptKey,
        voters: BTreeSet<NodeId>,
        learners: BTreeSet<NodeId>,
    ) {
        let until = self.now + CATCH_UP_MAX;
        let Some(leading) = &mut self.leading else {
            self.change_ended(key, Err(ChangeFailure::NotLeader));
            return;
        };
        if leading.change.is_some() {
            self.change_ended(key, Err(ChangeFailure::Busy));
            return;
        }
        let (lagging, begun) = (false, false);
        leading.change = Some(Changing { key, voters, learners, lagging, begun, until });
    }

    /// The leader stepped down. The next one is asked again, and finds what is done already.
    pub(super) fn change_abandoned(&mut self, change: Option<Changing>) {
        if let Some(change) = change {
            self.change_ended(change.key, Err(ChangeFailure::NotLeader));
        }
    }

    fn change_ended(&mut self, key: AttemptKey, result: Result<(), ChangeFailure>) {
        let AttemptKey { origin, life, id, attempt } = key;
        if origin == self.config.me {
            self.voters_changed(id, attempt, result);
        } else {
            self.outbox.notify(origin, Notice::VotersChanged { life, id, attempt, result });
        }
    }

    /// Takes the next step of the change, if the last one is committed.
    pub(super) fn step_change(&mut self, now: Instant) {
        let Some(mut leading) = self.leading.take() else { return };
        let change = leading.change.take();
        self.leading = Some(leading);
        let (ended, next) = self.next_step(now, change.as_ref());
        let begun = next.is_some();
        if let Some(members) = next {
            self.append_own(Payload::Members(members));
        }
        match (change, ended) {
            (Some(change), Some(result)) => self.change_ended(change.key, result),
            (Some(mut change), None) => {
                change.begun |= begun;
                change.lagging = !begun && self.settled_at == self.members_at;
                if let Some(leading) = &mut self.leading {
                    leading.change = Some(change);
                }
            }
            (None, _) => {}
        }
    }

    /// Whether the change is over and how, or else what to put into the log.
    fn next_step(
        &self,
        now: Instant,
        change: Option<&Changing>,
    ) -> (Option<Result<(), ChangeFailure>>, Option<Members>) {
        let over = change.filter(|change| change.until <= now).map(|change| {
            Err(match (change.lagging, change.begun) {
                (true, _) => ChangeFailure::Lagging,
                (false, true) => ChangeFailure::Unknown,
                (false, false) => ChangeFailure::Busy,
            })
        });
        let own = self.committed.checked_sub(1).and_then(|index| self.state.term_at(index));
        if own != Some(self.state.term()) || self.settled_at != self.members_at {
            return (over, None);
        }
        let Members { voters: sets, all } = &self.members;
        if let [_, new] = &sets[..] {
            return (None, Some(Members { voters: [new.clone()].into(), all: all.clone() }));
        }
        let Some(Changing { voters, learners, .. }) = change else { return (None, None) };
        let wanted: BTreeSet<NodeId> = voters.union(learners).copied().collect();
        if !wanted.is_subset(all) {
            let all = all.union(&wanted).copied().collect();
            return (None, Some(Members { voters: sets.clone(), all }));
        }
        if sets[..] != [voters.clone()] {
            if self.lag(voters) {
                return (over, None);
            }
            let mut both = sets.clone();
            both.push(voters.clone());
            return (None, Some(Members { voters: both, all: all.clone() }));
        }
        if *all != wanted {
            return (None, Some(Members { voters: sets.clone(), all: wanted }));
        }
        (Some(Ok(())), None)
    }

    /// Whether one of these, and no voter yet, has still to catch up.
    fn lag(&self, voters: &BTreeSet<NodeId>) -> bool {
        let Some(leading) = &self.leading else { return true };
        let enough = self.state.len().saturating_sub(LAG_MAX);
        let old = self.members.voters();
        voters.difference(&old).any(|voter| {
            let matched = leading.peers.get(voter).map_or(0, |peer| peer.matched);
            *voter != self.config.me && (matched == 0 || matched < enough)
        })
    }
}
