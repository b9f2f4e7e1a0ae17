//! Link states: who can be reached, by which way, in which incarnation; and facts that travel
//! with them.
//!
//! Each node floods its own link state (its links that are up, numbered) and its facts. From all
//! states each node computes the next hop to everyone. docs/internals/protocols.md, "Liveness and
//! reachability".
//!
//! What it does not know: heartbeats, sockets, what facts mean, who should be a member.
//!
//! Invariants
//! - A link counts when both ends list each other in their current incarnations; this node's own
//!   end going down counts at once.
//! - Of one origin the highest (incarnation, number) wins; nothing older comes back.
//! - Routes have the fewest hops, then the lowest cost, then the lowest next hop: the same for
//!   the same states. Costs are announced in steps, so that a link's jitter moves no route.
//! - Strangers' states are neither kept nor passed on.
//! - After a death, and with no other loss, everybody knows after one flood; no timer is needed.
//!   What a broken link lost is mended when a link comes up (full table), and by comparing
//!   digests with one neighbour each [`DIGEST_EVERY`].
//!
//! Units: cost is a round trip. Limits: `NODES_MAX` origins, [`FACTS_MAX`] bytes of facts for
//! each, [`BATCH_MAX`] bytes a message; ways longer than `HOPS_MAX` don't count. States and facts
//! of nodes that can't be reached are forgotten after [`EXPIRE`].

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use jizoku_types::{Incarnation, Instant, Member, NodeId, Span};
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// Most bytes of one node's facts. Longer ones are refused by an assertion: they are our own.
pub const FACTS_MAX: usize = 4 << 10;
/// Own facts that are not urgent leave at most this often.
pub const FACTS_EVERY: Span = Span::millis(500);
/// Urgent ones at most this often.
pub const FACTS_URGENT_EVERY: Span = Span::millis(20);
/// How often the digest goes to one neighbour, in turn.
pub const DIGEST_EVERY: Span = Span::secs(1);
/// How long states of nodes that can't be reached are remembered.
pub const EXPIRE: Span = Span::secs(60);
/// About how many bytes of states or facts go into one message.
pub const BATCH_MAX: usize = 64 << 10;

/// One end of a link, as its node announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The incarnation of the other end.
    pub incarnation: Incarnation,
    /// Round trip in microseconds, in steps.
    pub cost: u32,
}

/// What one node says of its links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// Who says it, in which incarnation.
    pub origin: Member,
    /// Grows with each change, from 1 in each incarnation.
    pub number: u64,
    /// Its links that are up.
    pub neighbours: BTreeMap<NodeId, Neighbour>,
}

/// What one node says of itself; this module doesn't look inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Who says it, in which incarnation.
    pub origin: Member,
    /// Grows with each change, from 1 in each incarnation.
    pub number: u64,
    /// What.
    pub bytes: Vec<u8>,
}

/// What a node has of one origin: incarnation and number of its link state, and of its facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// Of the link state.
    pub state: (Incarnation, u64),
    /// Of the facts.
    pub facts: (Incarnation, u64),
}

/// What neighbours say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Link states and facts: news, or what the other lacks.
    News {
        /// Link states.
        states: Vec<LinkState>,
        /// Facts.
        facts: Vec<Facts>,
    },
    /// What the sender has. Whoever has newer answers with it.
    Digest {
        /// By origin.
        have: BTreeMap<NodeId, Have>,
        /// Whether this answers a digest, and needs no digest as an answer.
        answer: bool,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A direct link came up, or a new one took the place of an old one.
    LinkUp {
        /// To whom.
        peer: NodeId,
        /// In which incarnation.
        incarnation: Incarnation,
        /// Its round trip.
        cost: Span,
    },
    /// A direct link's round trip was measured again.
    Cost {
        /// To whom.
        peer: NodeId,
        /// Its round trip.
        cost: Span,
    },
    /// A direct link is gone.
    LinkDown {
        /// To whom.
        peer: NodeId,
    },
    /// A neighbour's word.
    Message {
        /// From whom.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// Who is a member now, this node included.
    Members(BTreeSet<NodeId>),
    /// What this node says of itself now.
    Facts {
        /// What, at most [`FACTS_MAX`] bytes.
        bytes: Vec<u8>,
        /// Don't wait for [`FACTS_EVERY`].
        urgent: bool,
    },
    /// A deadline passed.
    Tick,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send over the direct link to this neighbour.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// The next hop to each node that can be reached.
    RoutesAre(BTreeMap<NodeId, NodeId>),
    /// A way to this node exists now.
    Reachable {
        /// Which, in which incarnation.
        node: Member,
    },
    /// No way to this node exists any more.
    Unreachable {
        /// Which.
        node: NodeId,
    },
    /// A node that stayed reachable, or became so, runs in a newer incarnation than was known.
    Restarted {
        /// Which, in which incarnation.
        node: Member,
    },
    /// What a node says of itself now.
    FactsOf {
        /// Who.
        origin: Member,
        /// What.
        bytes: Vec<u8>,
    },
}

/// The view of one node.
#[derive(Debug)]
pub struct Reach {
    me: Member,
    output: VecDeque<Output>,
    routes: BTreeMap<NodeId, NodeId>,
}

impl Reach {
    /// The view of this node in this incarnation, which knows of nobody yet.
    pub fn new(me: Member) -> Reach {
        Reach { me, output: VecDeque::new(), routes: BTreeMap::new() }
    }

    /// Takes one input; then drain [`Reach::poll`].
    pub fn handle(&mut self, now: Instant, input: Input) {
        let _ = (now, input, self.me);
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// When to call with [`Input::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The next hop to each node that can be reached; this node itself is not in it.
    pub fn routes(&self) -> &BTreeMap<NodeId, NodeId> {
        &self.routes
    }

    /// Whether a way to `node` exists; to this node itself there always is one.
    pub fn reaches(&self, node: NodeId) -> bool {
        node == self.me.node || self.routes.contains_key(&node)
    }

    /// All nodes that can be reached, this one included.
    pub fn reachable(&self) -> BTreeSet<NodeId> {
        self.routes.keys().copied().chain([self.me.node]).collect()
    }

    /// The incarnation of a node in its newest link state.
    pub fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        (node == self.me.node).then_some(self.me.incarnation)
    }

    /// The links that count, seen from both ends.
    pub fn links(&self) -> BTreeMap<NodeId, BTreeSet<NodeId>> {
        BTreeMap::new()
    }

    /// Hops and cost in microseconds of the best way from `from` to everybody, by the states
    /// known here. Every node that knows the same states says the same.
    pub fn distances(&self, from: NodeId) -> BTreeMap<NodeId, (u8, u32)> {
        let _ = from;
        BTreeMap::new()
    }

    /// The newest facts of a node.
    pub fn facts(&self, node: NodeId) -> Option<&Facts> {
        let _ = node;
        None
    }
}
