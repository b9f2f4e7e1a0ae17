//! Passing news on, full tables to new neighbours, and digests.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use jizoku_types::limits::NODES_MAX;
use jizoku_types::{Incarnation, Instant, NodeId};

use super::{BATCH_MAX, FACTS_MAX, Facts, Fault, Have, LinkState, Message, Output, PASS_ON, Reach};

/// About how many bytes one neighbour takes in a link state.
const NEIGHBOUR_BYTES: usize = 48;

/// States and facts on their way to one neighbour, cut into messages.
#[derive(Default)]
struct Batch {
    states: Vec<LinkState>,
    facts: Vec<Facts>,
    bytes: usize,
}

impl Reach {
    /// A neighbour's news: keep what is newer, and pass it on.
    pub(super) fn news(
        &mut self,
        now: Instant,
        from: NodeId,
        states: Vec<LinkState>,
        facts: Vec<Facts>,
    ) {
        let mut new_states = Vec::new();
        for state in states {
            if self.is_news(&state) {
                let node = state.origin.node;
                self.make_room(&node);
                self.states.insert(node, state);
                self.version += 1;
                new_states.push(node);
            }
        }
        let mut new_facts = Vec::new();
        for one in facts {
            let origin = one.origin;
            let newest =
                self.facts.get(&origin.node).map(|had| (had.origin.incarnation, had.number));
            let crowded = self.facts.len() >= NODES_MAX && !self.facts.contains_key(&origin.node);
            let stranger = !self.is_member(&origin.node) || origin.node == self.me.node || crowded;
            if stranger
                || one.bytes.len() > FACTS_MAX
                || Some((origin.incarnation, one.number)) <= newest
            {
                continue;
            }
            self.output.push_back(Output::FactsOf { origin, bytes: one.bytes.clone() });
            self.facts.insert(origin.node, one);
            new_facts.push(origin.node);
        }
        if new_states.is_empty() && new_facts.is_empty() {
            return;
        }
        if !self.has(Fault::KeepNews) {
            self.flood(Some(from), &new_states, &new_facts);
        }
        // Facts move no route.
        if new_states.is_empty() {
            self.note_lost(now, new_facts);
        } else {
            self.recompute(now);
        }
    }

    fn is_news(&self, state: &LinkState) -> bool {
        let origin = state.origin;
        let newest = self.states.get(&origin.node).map(|had| (had.origin.incarnation, had.number));
        self.may_be_member(&origin.node)
            && origin.node != self.me.node
            && (newest.is_some() || self.has_room(&origin.node))
            && state.neighbours.len() <= NODES_MAX
            && Some((origin.incarnation, state.number)) > newest
    }

    /// Whether a state of this origin, of which there is none yet, has room. Members take that of
    /// others.
    fn has_room(&self, origin: &NodeId) -> bool {
        self.states.len() < NODES_MAX
            || self.is_member(origin) && self.states.keys().any(|node| !self.is_member(node))
    }

    /// Forgets somebody who is no member, if a new origin needs the place.
    fn make_room(&mut self, origin: &NodeId) {
        if self.states.len() >= NODES_MAX && !self.states.contains_key(origin) {
            let other = self.states.keys().find(|node| !self.is_member(node)).copied();
            if let Some(other) = other {
                self.states.remove(&other);
                self.lost.remove(&other);
            }
        }
    }

    /// Sends the states and facts of these origins to all neighbours that don't get them
    /// otherwise: not back to where they came from, and not to whom the origin itself has a link.
    pub(super) fn flood(&mut self, from: Option<NodeId>, states: &[NodeId], facts: &[NodeId]) {
        let peers: Vec<NodeId> =
            self.links.keys().filter(|peer| self.is_member(peer)).copied().collect();
        for peer in peers {
            if Some(peer) == from {
                continue;
            }
            let lacks = |origin: &&NodeId| {
                **origin == self.me.node || (**origin != peer && self.edge(origin, &peer).is_none())
            };
            let states: Vec<NodeId> = states.iter().filter(lacks).copied().collect();
            let facts: Vec<NodeId> = facts.iter().filter(lacks).copied().collect();
            self.send_news(peer, &states, &facts);
        }
    }

    /// Sends everything to a new neighbour.
    pub(super) fn send_table(&mut self, now: Instant, peer: NodeId) {
        let origins: Vec<NodeId> =
            self.offered(now).into_keys().filter(|origin| *origin != peer).collect();
        self.send_news(peer, &origins, &origins);
    }

    fn send_news(&mut self, to: NodeId, states: &[NodeId], facts: &[NodeId]) {
        let mut batch = Batch::default();
        for state in states.iter().filter_map(|origin| self.states.get(origin)) {
            batch.bytes += NEIGHBOUR_BYTES * (1 + state.neighbours.len());
            batch.states.push(state.clone());
            batch.send_if_full(to, &mut self.output);
        }
        for one in facts.iter().filter_map(|origin| self.facts.get(origin)) {
            batch.bytes += NEIGHBOUR_BYTES + one.bytes.len();
            batch.facts.push(one.clone());
            batch.send_if_full(to, &mut self.output);
        }
        batch.send(to, &mut self.output);
    }

    /// What this node has that is worth passing on. What was lost for long is not offered, so
    /// that it dies out and isn't handed to and fro for ever. Never more than `NODES_MAX`: members
    /// first.
    pub(super) fn offered(&self, now: Instant) -> BTreeMap<NodeId, Have> {
        let fresh = |node: &NodeId| self.lost.get(node).is_none_or(|at| now.since(*at) < PASS_ON);
        let mut have: BTreeMap<NodeId, Have> = BTreeMap::new();
        for (node, facts) in self.facts.iter().filter(|(node, _)| fresh(node)) {
            have.entry(*node).or_default().facts = (facts.origin.incarnation, facts.number);
        }
        for members in [true, false] {
            let rank = |node: &NodeId| self.is_member(node) == members && fresh(node);
            for (node, state) in self.states.iter().filter(|(node, _)| rank(node)) {
                if have.len() < NODES_MAX || have.contains_key(node) {
                    let state = (state.origin.incarnation, state.number);
                    have.entry(*node).or_default().state = state;
                }
            }
        }
        have
    }

    pub(super) fn send_digest(&mut self, now: Instant, to: NodeId, answer: bool) {
        let message = Message::Digest { have: self.offered(now), answer };
        self.output.push_back(Output::Send { to, message });
    }

    /// To the neighbour after the one whose turn was last.
    pub(super) fn send_digest_in_turn(&mut self, now: Instant) {
        let after = |peer: &&NodeId| self.digest_last.is_none_or(|last| **peer > last);
        let members = || self.links.keys().filter(|peer| self.is_member(peer));
        let next = members().find(after).or_else(|| members().next()).copied();
        self.digest_last = next;
        if let Some(peer) = next {
            self.send_digest(now, peer, false);
        }
    }

    /// A neighbour says what it has: send what it lacks; if this node lacks something, say so.
    pub(super) fn digest(
        &mut self,
        now: Instant,
        from: NodeId,
        have: &BTreeMap<NodeId, Have>,
        answer: bool,
    ) {
        if have.len() > NODES_MAX {
            return;
        }
        self.outgrow(now, have);
        let own = self.offered(now);
        let none = Have::default();
        let theirs = |origin: &NodeId| have.get(origin).unwrap_or(&none);
        let states: Vec<NodeId> = own
            .iter()
            .filter(|(origin, mine)| mine.state > theirs(origin).state)
            .map(|(origin, _)| *origin)
            .collect();
        let facts: Vec<NodeId> = own
            .iter()
            .filter(|(origin, mine)| mine.facts > theirs(origin).facts)
            .map(|(origin, _)| *origin)
            .collect();
        self.send_news(from, &states, &facts);
        let lacks = have.iter().any(|(origin, theirs)| {
            let mine = own.get(origin).unwrap_or(&none);
            let room = mine.state != none.state || self.has_room(origin);
            let state = self.may_be_member(origin) && room && theirs.state > mine.state;
            let facts = self.is_member(origin) && theirs.facts > mine.facts;
            *origin != self.me.node && (state || facts)
        });
        if lacks && !answer {
            self.send_digest(now, from, true);
        }
    }

    /// If others have newer states of this very run than this node itself, its numbers go on from
    /// theirs: nothing it says may be older than what is believed.
    fn outgrow(&mut self, now: Instant, have: &BTreeMap<NodeId, Have>) {
        let me = self.me;
        let Some(theirs) = have.get(&me.node) else { return };
        let ahead = |(incarnation, number): (Incarnation, u64), own: u64| {
            (incarnation == me.incarnation && number > own && number < u64::MAX).then_some(number)
        };
        let Some(own) = self.states.get_mut(&me.node) else { return };
        if let Some(number) = ahead(theirs.state, own.number) {
            own.number = number + 1;
            self.flood(None, &[me.node], &[]);
            self.recompute(now);
        }
        if let Some(own) = self.facts.get_mut(&me.node)
            && let Some(number) = ahead(theirs.facts, own.number)
        {
            own.number = number + 1;
            self.flood(None, &[], &[me.node]);
        }
    }
}

impl Batch {
    fn send_if_full(&mut self, to: NodeId, output: &mut alloc::collections::VecDeque<Output>) {
        if self.bytes >= BATCH_MAX {
            core::mem::take(self).send(to, output);
        }
    }

    fn send(self, to: NodeId, output: &mut alloc::collections::VecDeque<Output>) {
        if !self.states.is_empty() || !self.facts.is_empty() {
            let message = Message::News { states: self.states, facts: self.facts };
            output.push_back(Output::Send { to, message });
        }
    }
}
