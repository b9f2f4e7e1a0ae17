//! From link states to ways: which links count, and the best way to everybody.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use jizoku_types::limits::HOPS_MAX;
use jizoku_types::{Incarnation, Instant, Member, NodeId};

use super::{Fault, Output, Reach};

/// The best way to a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    pub(super) hops: u8,
    pub(super) cost: u32,
    /// The first node of the way.
    pub(super) next: NodeId,
}

impl Reach {
    /// The cost of the link between two nodes, if it counts.
    pub(super) fn edge(&self, one: &NodeId, other: &NodeId) -> Option<u32> {
        let (one_state, other_state) = (self.states.get(one)?, self.states.get(other)?);
        let there = one_state.neighbours.get(other)?;
        if self.has(Fault::OneEndIsEnough) {
            return Some(there.cost);
        }
        let back = other_state.neighbours.get(one)?;
        let same_run = there.incarnation == other_state.origin.incarnation
            && back.incarnation == one_state.origin.incarnation;
        same_run.then_some(there.cost.max(back.cost))
    }

    /// The best ways from `from`: fewest hops, then lowest cost, then lowest next hop.
    pub(super) fn ways(&self, from: NodeId) -> BTreeMap<NodeId, Way> {
        let mut ways: BTreeMap<NodeId, Way> = BTreeMap::new();
        // What is as far as the last round of this loop came, each with its way.
        let mut rim = vec![(from, Way { hops: 0, cost: 0, next: from })];
        for hops in 1..=HOPS_MAX {
            let mut found: BTreeMap<NodeId, Way> = BTreeMap::new();
            for (node, way) in &rim {
                let Some(state) = self.states.get(node) else { continue };
                for other in state.neighbours.keys() {
                    if *other == from || ways.contains_key(other) {
                        continue;
                    }
                    let Some(cost) = self.edge(node, other) else { continue };
                    let next = if *node == from { *other } else { way.next };
                    let way = Way { hops, cost: way.cost.saturating_add(cost), next };
                    let best = found.entry(*other).or_insert(way);
                    *best = way.min(*best);
                }
            }
            if found.is_empty() {
                break;
            }
            ways.extend(found.iter().map(|(node, way)| (*node, *way)));
            // Everybody whose state is known is found: where all have links to all, at once.
            let others = self.states.len() - usize::from(self.states.contains_key(&from));
            if ways.len() >= others {
                break;
            }
            rim = found.into_iter().collect();
        }
        ways
    }

    /// Computes the routes anew, and says what is different. Of those that are not members nothing
    /// is said but the routes.
    pub(super) fn recompute(&mut self, now: Instant) {
        let ways = self.ways(self.me.node);
        let routes: BTreeMap<NodeId, NodeId> =
            ways.iter().map(|(node, way)| (*node, way.next)).collect();
        let there = |node: &NodeId| self.is_member(node) && routes.contains_key(node);
        let gone: Vec<NodeId> = self.told.keys().filter(|node| !there(node)).copied().collect();
        if routes != self.routes {
            self.routes = routes;
            self.output.push_back(Output::RoutesAre(self.routes.clone()));
        }
        for node in gone {
            self.told.remove(&node);
            self.output.push_back(Output::Unreachable { node });
        }
        for node in ways.into_keys() {
            if !self.is_member(&node) {
                continue;
            }
            let Some(state) = self.states.get(&node) else { continue };
            self.tell(state.origin);
        }
        let routes = &self.routes;
        self.lost.retain(|node, _| !routes.contains_key(node));
        let others: Vec<NodeId> = self.states.keys().chain(self.facts.keys()).copied().collect();
        self.note_lost(now, others);
    }

    /// Begins to count for how long those of these nodes that can't be reached have been so.
    pub(super) fn note_lost(&mut self, now: Instant, nodes: Vec<NodeId>) {
        for node in nodes {
            if node != self.me.node && !self.routes.contains_key(&node) {
                self.lost.entry(node).or_insert(now);
            }
        }
    }

    /// Says that a node can be reached in this incarnation, if that is new.
    fn tell(&mut self, node: Member) {
        let before: Option<Incarnation> = self.seen.insert(node.node, node.incarnation);
        if before.is_some_and(|before| before < node.incarnation) {
            self.output.push_back(Output::Restarted { node });
        }
        if self.told.insert(node.node, node.incarnation).is_none() {
            self.output.push_back(Output::Reachable { node });
        }
    }
}
