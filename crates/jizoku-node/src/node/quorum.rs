//! Voters and the leader: who should vote, and who should not lead.
//!
//! Only the leader acts. It gives the lead away when it is active for some service and another
//! voter is active for none: then the death of one node is one event, not two.
//!
//! Invariant: two changes of voters lie `LEASE_MAX` apart, counted from when the first was agreed.
//! Electorates are numbered by the log, so all nodes name them alike, also after a restart.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use jizoku_core::catalog::Command;
use jizoku_core::lease::{self, Electorate};
use jizoku_core::placement::{self, VoterCandidate};
use jizoku_types::limits::LEASE_MAX;
use jizoku_types::{Event, Instant, Member, NodeId, Span};

use super::requests::Purpose;
use super::{GATEWAY_GONE_AFTER, Node, Output};
use crate::fault::Fault;

/// Time between two transfers of the lead, and before the first one of a new leader.
const CALM: Span = Span::secs(5);
/// Time between two changes of the voters: leases need electorates to lie `LEASE_MAX` apart.
const CHANGE_EVERY: Span = Span::millis(500);
const _: () = assert!(CHANGE_EVERY.as_nanos() > LEASE_MAX.as_nanos());

/// What the care for voters remembers.
#[derive(Debug, Default)]
pub(super) struct Care {
    /// The number of the electorate that this node last applied.
    applied: u64,
    /// The newest number in its log, and whether the log is in the middle of a change.
    logged: (u64, bool),
    next_change: Instant,
    next_transfer: Instant,
    /// For which catalog `gateways` is right, by its number.
    catalog: u64,
    /// Incarnations in which members were last seen as gateways.
    gateways: BTreeMap<NodeId, Member>,
    given_up: BTreeSet<Member>,
}

impl Node {
    pub(super) fn leader_is(&mut self, leader: Option<NodeId>) {
        if self.leader != leader {
            if self.leader.is_some() != leader.is_some() {
                self.branches.leader_is(self.now, leader.is_some());
            }
            self.leader = leader;
            self.event(Event::LeaderChanged { leader });
            self.quorum.next_change = self.now + CHANGE_EVERY;
            self.quorum.next_transfer = self.now + CALM;
            self.dirty = true;
        }
        self.facts.leader_known(self.now, leader, self.config.myself.node);
    }

    /// The members that were agreed on. An owner counts only by these: an electorate that is in
    /// its log, and never comes about, shares too little with the one that does.
    pub(super) fn voters_are(&mut self, electorate: Electorate, learners: BTreeSet<NodeId>) {
        self.quorum.applied = electorate.number;
        if self.voters != electorate.voters {
            self.quorum.next_change = self.now + CHANGE_EVERY;
        }
        self.voters.clone_from(&electorate.voters);
        self.learners = learners;
        self.owner.handle(self.now, lease::OwnerInput::Electorate(electorate));
        self.dirty = true;
    }

    /// What the log says, agreed or not. A voter goes by it: of two majorities that share a voter,
    /// that one must know of the newer before it is agreed.
    pub(super) fn members_logged(&mut self, voters: u64, changing: bool) {
        self.quorum.logged = (voters, changing);
        self.voter.handle(self.now, lease::VoterInput::Electorate { number: voters });
    }

    /// What every node does about gateways, and what the leader does about voters.
    pub(super) fn quorum_duties(&mut self) {
        self.gateway_duties();
        if self.leader != Some(self.me().node) {
            return;
        }
        self.voter_duties();
        self.transfer_duties();
        self.ticket_duties();
    }

    fn voter_duties(&mut self) {
        // A change in the log that isn't applied is of an earlier leader: it comes first, and the
        // next one keeps its distance from it.
        let settled = self.quorum.logged == (self.quorum.applied, false);
        if self.quorum.next_change > self.now || !settled {
            return;
        }
        let since = |node: &NodeId| match self.unreachable_since.get(node) {
            Some(since) => self.now.since(*since),
            None => self.facts.known_for(*node, self.now),
        };
        let candidates: Vec<VoterCandidate> = self
            .catalog
            .members()
            .iter()
            .map(|(node, record)| VoterCandidate {
                node: *node,
                labels: record.labels.clone(),
                alive: self.reach.reaches(*node),
                since: since(node),
                draining: record.draining,
            })
            .collect();
        let voters = placement::choose_voters(&candidates, &self.voters);
        let members: BTreeSet<NodeId> = self.catalog.members().keys().copied().collect();
        let learners: BTreeSet<NodeId> = members.difference(&voters).copied().collect();
        if voters != self.voters || learners != self.learners {
            self.quorum.next_change = self.now + CHANGE_EVERY;
            self.outputs.push_back(Output::ChangeVoters { voters, learners });
        }
    }

    fn transfer_duties(&mut self) {
        let me = self.me().node;
        let busy = |node: NodeId| self.catalog.active_on(node).next().is_some();
        if self.quorum.next_transfer > self.now || !busy(me) {
            return;
        }
        let mut rest = self.voters.iter().copied().filter(|node| *node != me);
        let better = rest.find(|node| self.reach.reaches(*node) && !busy(*node));
        if let Some(to) = better {
            self.quorum.next_transfer = self.now + CALM;
            self.outputs.push_back(Output::TransferLeader { to });
        }
    }

    fn ticket_duties(&mut self) {
        let over: Vec<_> =
            self.tickets.iter().filter(|(_, at)| **at <= self.now).map(|(t, _)| *t).collect();
        for ticket in over {
            let purpose = Purpose::ExpireTicket(ticket);
            if !self.is_under_way(&purpose) {
                self.propose(purpose, &Command::ExpireTicket { ticket });
            }
        }
    }

    /// Says which gateways will not come back: replaced by a newer incarnation, removed, or out
    /// of reach for too long.
    fn gateway_duties(&mut self) {
        if self.quorum.catalog != self.catalog_version {
            self.quorum.catalog = self.catalog_version;
            self.replaced_gateways();
        }
        let Care { gateways, given_up, .. } = &mut self.quorum;
        if self.unreachable_since.is_empty() && given_up.is_empty() {
            return;
        }
        let hasty = self.planted.has(Fault::GatewayGivenUpEarly);
        let patience = if hasty { Span::ZERO } else { GATEWAY_GONE_AFTER };
        for (node, gateway) in gateways.iter() {
            let away = self.unreachable_since.get(node).map(|since| self.now.since(*since));
            if away.is_some_and(|away| away >= patience) {
                if given_up.insert(*gateway) {
                    self.outputs.push_back(Output::GatewayGone(*gateway));
                }
            } else {
                given_up.remove(gateway);
            }
        }
    }

    fn replaced_gateways(&mut self) {
        let now: BTreeMap<NodeId, Member> =
            self.catalog.current_members().map(|member| (member.node, member)).collect();
        let before = core::mem::replace(&mut self.quorum.gateways, now);
        for (node, gateway) in before {
            if self.quorum.gateways.get(&node) != Some(&gateway) {
                self.quorum.given_up.remove(&gateway);
                self.outputs.push_back(Output::GatewayGone(gateway));
            }
        }
    }
}
