//! When a leader sends heartbeats, and when a voter asks for an election.
//!
//! What it does not know: messages, the log. It says what is due, and is told what happened.
//!
//! Invariants
//! - A voter asks for an election only after at least `election_min` without its leader, unless
//!   that leader is known to be gone *and* a majority of voters know it too.
//! - While it waits for such a majority's answers, the ordinary timer goes on.
//! - A voter that looks at its timer too late was paused or starved: what its leader sent may lie
//!   in its queues. It waits once more before it asks, and only once.
//!
//! Times: see [`Config`].

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use jizoku_types::{Instant, NodeId, Span};

use crate::interface::Config;
use crate::log::{LogId, Members};

/// Voters that know of a leader's death ask for an election in turns this far apart, so that they
/// don't split the votes. Longer than a round trip and a flush on a local network.
const TURN: Span = Span::millis(10);

/// What a node is, as far as timers care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Leader,
    Voter,
    Learner,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Send heartbeats.
    Heartbeat,
    /// Ask whether an election would succeed, and then hold it.
    PreVote,
    /// Ask the other voters whether the leader of this term is gone for them too.
    AskGone { term: u64 },
}

/// What to do about something that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Tell that node that the leader of this term is gone for this node too.
    Agree { to: NodeId, term: u64 },
    /// Hold an election now: a majority agrees that the leader is gone.
    Elect,
}

/// The leader of `term` is gone.
#[derive(Debug)]
struct Gone {
    leader: NodeId,
    term: u64,
    /// When this node's turn comes. `None`: it was, or somebody else's came first.
    turn: Option<Instant>,
    agreed: BTreeSet<NodeId>,
}

#[derive(Debug)]
pub(crate) struct Election {
    me: NodeId,
    heartbeat: Span,
    min: Span,
    max: Span,
    role: Role,
    /// The elected leader this node follows, and its term.
    following: Option<(NodeId, u64)>,
    heartbeat_at: Option<Instant>,
    election_at: Option<Instant>,
    /// It looked too late, and has heard nothing since.
    excused: bool,
    gone: Option<Gone>,
    /// Who asked whether the leader is gone, while it was not for this node: its term and log.
    asked: BTreeMap<NodeId, (u64, Option<LogId>)>,
}

impl Election {
    pub(crate) fn new(config: &Config) -> Election {
        Election {
            me: config.me,
            heartbeat: config.heartbeat,
            min: config.election_min,
            max: config.election_max,
            role: Role::Learner,
            following: None,
            heartbeat_at: None,
            election_at: None,
            excused: false,
            gone: None,
            asked: BTreeMap::new(),
        }
    }

    /// A span between `min` and `max`, by 64 random bits.
    fn spread(min: Span, max: Span, random: u64) -> Span {
        let room = (max - min).as_nanos().max(1);
        min + Span::nanos(random % room)
    }

    /// What the node is now. `alone`: it is the only voter.
    pub(crate) fn set_role(&mut self, now: Instant, role: Role, alone: bool, random: u64) {
        if role == self.role {
            return;
        }
        self.role = role;
        self.heartbeat_at = (role == Role::Leader).then_some(now);
        self.election_at = match role {
            Role::Voter if alone => Some(now),
            Role::Voter => Some(now + Self::spread(self.min, self.max, random)),
            Role::Leader | Role::Learner => None,
        };
        if role != Role::Voter {
            self.gone = None;
        }
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// Which leader the node follows now.
    pub(crate) fn set_leader(&mut self, following: Option<(NodeId, u64)>) {
        if following != self.following {
            self.following = following;
            self.gone = None;
            self.asked.clear();
        }
    }

    /// The leader was heard, or a vote was given: wait anew.
    pub(crate) fn wait_anew(&mut self, now: Instant, random: u64) {
        if self.role == Role::Voter {
            self.election_at = Some(now + Self::spread(self.min, self.max, random));
            self.excused = false;
        }
    }

    /// Another node is about to be elected: asking now would only split the votes.
    pub(crate) fn yield_turn(&mut self, now: Instant) {
        self.election_at = self.election_at.map(|at| at.max(now + self.min / 2));
    }

    /// What is due now, once. Called until it gives `None`.
    pub(crate) fn due(&mut self, now: Instant, random: u64) -> Option<Due> {
        if self.heartbeat_at.is_some_and(|at| at <= now) {
            self.heartbeat_at = Some(now + self.heartbeat);
            return Some(Due::Heartbeat);
        }
        if let Some(gone) = &mut self.gone
            && gone.turn.is_some_and(|at| at <= now)
        {
            gone.turn = None;
            return Some(Due::AskGone { term: gone.term });
        }
        if let Some(at) = self.election_at.filter(|at| *at <= now) {
            if now.since(at) >= self.min / 2 && !self.excused {
                self.excused = true;
                self.election_at = Some(now + Self::spread(self.min, self.max, random));
                return None;
            }
            // Sooner than the first time: nobody is there to be disturbed, and the election that
            // this may start is over by then.
            let again = Self::spread(self.min / 2, self.max / 2, random);
            self.election_at = Some(now + again);
            return Some(Due::PreVote);
        }
        None
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let turn = self.gone.as_ref().and_then(|gone| gone.turn);
        [self.heartbeat_at, self.election_at, turn].into_iter().flatten().min()
    }

    /// That node is known to be gone.
    pub(crate) fn peer_gone(
        &mut self,
        now: Instant,
        node: NodeId,
        members: &Members,
        last: Option<LogId>,
    ) -> Vec<Act> {
        let Some((leader, term)) = self.following else { return Vec::new() };
        if leader != node || node == self.me || self.role != Role::Voter || self.gone.is_some() {
            return Vec::new();
        }
        let voters = members.voters();
        let rank = voters.iter().filter(|voter| **voter != leader && **voter < self.me).count();
        let turn = Some(now + TURN * rank as u64);
        let agreed = BTreeSet::from([self.me]);
        self.gone = Some(Gone { leader, term, turn, agreed });
        let asked = core::mem::take(&mut self.asked);
        asked
            .into_iter()
            .flat_map(|(from, (term, theirs))| self.asked_gone(now, from, term, theirs, last))
            .collect()
    }

    /// That node was heard after all.
    pub(crate) fn peer_back(&mut self, node: NodeId) {
        if self.gone.as_ref().is_some_and(|gone| gone.leader == node) {
            self.gone = None;
        }
    }

    /// `from` asks whether the leader of `term` is gone; its log ends with `theirs`, ours with
    /// `last`.
    pub(crate) fn asked_gone(
        &mut self,
        now: Instant,
        from: NodeId,
        term: u64,
        theirs: Option<LogId>,
        last: Option<LogId>,
    ) -> Option<Act> {
        if self.following.is_none_or(|(_, known)| known != term) || theirs < last {
            return None;
        }
        match &mut self.gone {
            Some(gone) => {
                // It is that node's turn now. Ours comes when it had time to be elected.
                if let Some(turn) = &mut gone.turn {
                    *turn = (*turn).max(now + self.min);
                }
                Some(Act::Agree { to: from, term })
            }
            None => {
                self.asked.insert(from, (term, theirs));
                None
            }
        }
    }

    /// `from` agrees that the leader of `term` is gone.
    pub(crate) fn agreed_gone(
        &mut self,
        from: NodeId,
        term: u64,
        members: &Members,
    ) -> Option<Act> {
        let gone = self.gone.as_mut()?;
        if gone.term != term || gone.turn.is_some() || members.majority(&gone.agreed) {
            return None;
        }
        gone.agreed.insert(from);
        members.majority(&gone.agreed).then_some(Act::Elect)
    }
}

#[cfg(test)]
mod tests;
