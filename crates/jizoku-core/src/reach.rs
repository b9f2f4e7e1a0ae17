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
//! - Only members' words are heard. Before this node has been told the members (it has just
//!   started, and its catalog comes over these very ways) whoever has a link, which the mesh gives
//!   to members only, and those of whom they tell, count as members.
//! - Whoever is no member here may be one elsewhere: this node's catalog may be old, and what would
//!   bring it up to date may come from a member that it doesn't know yet. So link states of such
//!   nodes, told by members, are kept, passed on and used for routes, as long as there is room
//!   beside the members; nobody is told that they can be reached, and their facts are not kept. Of
//!   a node that was removed nothing is kept or passed on.
//! - After a death, and with no other loss, everybody knows after one flood; no timer is needed.
//!   What a broken link lost is mended when a link comes up (full table), and by comparing
//!   digests with one neighbour each [`DIGEST_EVERY`].
//!
//! Units: cost is a round trip. Limits: `NODES_MAX` origins, members first, [`FACTS_MAX`] bytes of
//! facts for each, [`BATCH_MAX`] bytes a message; ways longer than `HOPS_MAX` don't count. States
//! and facts of nodes that can't be reached are forgotten after [`EXPIRE`].

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use jizoku_types::{Incarnation, Instant, Member, NodeId, Span};
use serde::{Deserialize, Serialize};

mod flood;
mod ways;

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
/// How long states of nodes that can't be reached are still passed on to new neighbours.
pub const PASS_ON: Span = Span::secs(15);
/// A link's cost is announced anew at most this often.
pub const COST_EVERY: Span = Span::secs(5);
/// The lowest cost, in microseconds: differences below are noise.
pub const COST_MIN: u32 = 256;
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
    /// Who is in the cluster now, as far as this node knows.
    Members {
        /// All members, this node included.
        members: BTreeSet<NodeId>,
        /// Who was a member once, and never will be again.
        removed: BTreeSet<NodeId>,
    },
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
    /// The next hop to each node to which a way exists, also to those that this node doesn't know
    /// as members yet.
    RoutesAre(BTreeMap<NodeId, NodeId>),
    /// A way to this member exists now.
    Reachable {
        /// Which, in which incarnation.
        node: Member,
    },
    /// No way to this node exists any more, or it is no member any more.
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

/// One-line bugs that tests switch on to prove that they would be seen. Without the feature
/// `faults` nothing can switch them on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A link counts as soon as one end lists it.
    OneEndIsEnough,
    /// News are kept and not passed on.
    KeepNews,
}

/// This node's end of a link.
#[derive(Clone, Copy, Debug)]
struct Link {
    incarnation: Incarnation,
    /// What is announced.
    cost: u32,
    announced: Instant,
}

/// The view of one node.
#[derive(Debug)]
pub struct Reach {
    me: Member,
    members: BTreeSet<NodeId>,
    removed: BTreeSet<NodeId>,
    links: BTreeMap<NodeId, Link>,
    /// Newest link state of everybody, this node included.
    states: BTreeMap<NodeId, LinkState>,
    /// Grows when `states` changes.
    version: u64,
    /// Newest facts of everybody, this node included.
    facts: BTreeMap<NodeId, Facts>,
    routes: BTreeMap<NodeId, NodeId>,
    /// Who was told to be reachable, in which incarnation.
    told: BTreeMap<NodeId, Incarnation>,
    /// The newest incarnation that was ever seen of a member.
    seen: BTreeMap<NodeId, Incarnation>,
    /// Origins of states to which no way exists, and since when.
    lost: BTreeMap<NodeId, Instant>,
    /// Own facts that wait, and until when.
    waiting: Option<(Vec<u8>, Instant)>,
    facts_sent: Option<Instant>,
    digest_at: Instant,
    /// Whom the last digest went to.
    digest_last: Option<NodeId>,
    output: VecDeque<Output>,
    #[cfg_attr(not(feature = "faults"), allow(dead_code))]
    faults: BTreeSet<Fault>,
}

impl Reach {
    /// The view of this node in this incarnation, which knows of nobody yet.
    pub fn new(me: Member) -> Reach {
        let own = LinkState { origin: me, number: 0, neighbours: BTreeMap::new() };
        Reach {
            me,
            members: BTreeSet::new(),
            removed: BTreeSet::new(),
            links: BTreeMap::new(),
            states: BTreeMap::from([(me.node, own)]),
            version: 0,
            facts: BTreeMap::new(),
            routes: BTreeMap::new(),
            told: BTreeMap::new(),
            seen: BTreeMap::new(),
            lost: BTreeMap::new(),
            waiting: None,
            facts_sent: None,
            digest_at: Instant::ORIGIN,
            digest_last: None,
            output: VecDeque::new(),
            faults: BTreeSet::new(),
        }
    }

    /// Takes one input; then drain [`Reach::poll`].
    ///
    /// # Panics
    /// If own facts are longer than [`FACTS_MAX`]: a programmer's error.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::LinkUp { peer, incarnation, cost } => {
                self.link_up(now, peer, incarnation, cost);
            }
            Input::Cost { peer, cost } => self.cost(now, peer, cost),
            Input::LinkDown { peer } => {
                if self.links.remove(&peer).is_some() {
                    self.announce(now);
                }
            }
            Input::Message { from, message } if self.is_member(&from) => match message {
                Message::News { states, facts } => self.news(now, from, states, facts),
                Message::Digest { have, answer } => self.digest(now, from, &have, answer),
            },
            Input::Message { .. } => {}
            Input::Members { members, removed } => self.set_members(now, members, removed),
            Input::Facts { bytes, urgent } => self.own_facts(now, bytes, urgent),
            Input::Tick => {}
        }
        self.run_timers(now);
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// When to call with [`Input::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        let facts = self.waiting.as_ref().map(|(_, at)| *at);
        let digest = (!self.links.is_empty()).then_some(self.digest_at);
        let expire = self.lost.values().min().map(|since| *since + EXPIRE);
        [facts, digest, expire].into_iter().flatten().min()
    }

    /// The next hop to each node to which a way exists, members or not; this node itself is not
    /// in it.
    pub fn routes(&self) -> &BTreeMap<NodeId, NodeId> {
        &self.routes
    }

    /// Whether `node` is a member to which a way exists; to this node itself there always is one.
    pub fn reaches(&self, node: NodeId) -> bool {
        node == self.me.node || self.is_member(&node) && self.routes.contains_key(&node)
    }

    /// All members that can be reached, this one included.
    pub fn reachable(&self) -> BTreeSet<NodeId> {
        let members = self.routes.keys().filter(|node| self.is_member(node));
        members.copied().chain([self.me.node]).collect()
    }

    /// The newest incarnation that was seen of a node.
    pub fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        if node == self.me.node { Some(self.me.incarnation) } else { self.seen.get(&node).copied() }
    }

    /// As long as this number stays the same, so does what [`Reach::links`] says.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The members' links to each other that count, seen from both ends.
    pub fn links(&self) -> BTreeMap<NodeId, BTreeSet<NodeId>> {
        let mut links: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
        for (node, state) in self.states.iter().filter(|(node, _)| self.is_member(node)) {
            let counts =
                |other: &&NodeId| self.is_member(other) && self.edge(node, other).is_some();
            let others = state.neighbours.keys().filter(counts);
            links.insert(*node, others.copied().collect());
        }
        links
    }

    /// Hops, and cost in microseconds, of the best way from `from` to each member, by the states
    /// known here. Every node that knows the same states says the same.
    pub fn distances(&self, from: NodeId) -> BTreeMap<NodeId, (u8, u32)> {
        let members = self.ways(from).into_iter().filter(|(node, _)| self.is_member(node));
        members.map(|(node, way)| (node, (way.hops, way.cost))).collect()
    }

    /// The newest facts of a node.
    pub fn facts(&self, node: NodeId) -> Option<&Facts> {
        self.facts.get(&node)
    }

    /// Switches a planted fault on.
    #[cfg(feature = "faults")]
    pub fn plant(&mut self, fault: Fault) {
        self.faults.insert(fault);
    }

    fn is_member(&self, node: &NodeId) -> bool {
        self.members.is_empty() || self.members.contains(node)
    }

    /// Whether link states of this origin may be kept and passed on.
    fn may_be_member(&self, node: &NodeId) -> bool {
        self.is_member(node) || !self.removed.contains(node)
    }

    fn has(&self, fault: Fault) -> bool {
        cfg!(feature = "faults") && self.faults.contains(&fault)
    }
}

/// This node's own links and facts.
impl Reach {
    fn link_up(&mut self, now: Instant, peer: NodeId, incarnation: Incarnation, cost: Span) {
        if peer == self.me.node {
            return;
        }
        if self.links.is_empty() {
            self.digest_at = now + DIGEST_EVERY;
        }
        self.links.insert(peer, Link { incarnation, cost: step_of(cost), announced: now });
        self.announce(now);
        if self.is_member(&peer) {
            self.send_table(now, peer);
        }
    }

    fn cost(&mut self, now: Instant, peer: NodeId, cost: Span) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let (old, new) = (u64::from(link.cost), cost.as_micros());
        let jitter = new <= old + old / 2 && new >= old / 3;
        if !jitter && link.cost != step_of(cost) && now.since(link.announced) >= COST_EVERY {
            (link.cost, link.announced) = (step_of(cost), now);
            self.announce(now);
        }
    }

    /// Floods this node's link state if it has changed.
    fn announce(&mut self, now: Instant) {
        let neighbours: BTreeMap<NodeId, Neighbour> = self
            .links
            .iter()
            .filter(|(peer, _)| self.is_member(peer))
            .map(|(peer, link)| {
                (*peer, Neighbour { incarnation: link.incarnation, cost: link.cost })
            })
            .collect();
        let me = self.me.node;
        let Some(own) = self.states.get_mut(&me) else { return };
        if own.neighbours != neighbours {
            own.neighbours = neighbours;
            own.number = own.number.saturating_add(1);
            self.version += 1;
            self.flood(None, &[me], &[]);
            self.recompute(now);
        }
    }

    fn own_facts(&mut self, now: Instant, bytes: Vec<u8>, urgent: bool) {
        assert!(bytes.len() <= FACTS_MAX, "own facts of {} bytes", bytes.len());
        let newest = match &self.waiting {
            Some((waiting, _)) => Some(waiting),
            None => self.facts.get(&self.me.node).map(|facts| &facts.bytes),
        };
        let unchanged = newest == Some(&bytes);
        if unchanged && (!urgent || self.waiting.is_none()) {
            return;
        }
        let gap = if urgent { FACTS_URGENT_EVERY } else { FACTS_EVERY };
        let due = self.facts_sent.map_or(now, |sent| (sent + gap).max(now));
        let earlier = self.waiting.as_ref().map_or(due, |(_, at)| due.min(*at));
        self.waiting = Some((bytes, earlier));
    }

    fn run_timers(&mut self, now: Instant) {
        if let Some((bytes, _)) = self.waiting.take_if(|(_, at)| *at <= now) {
            self.facts_sent = Some(now);
            let me = self.me;
            let number = self.facts.get(&me.node).map_or(0, |facts| facts.number);
            let number = number.saturating_add(1);
            self.facts.insert(me.node, Facts { origin: me, number, bytes });
            self.flood(None, &[], &[me.node]);
        }
        if !self.links.is_empty() && self.digest_at <= now {
            self.digest_at = now + DIGEST_EVERY;
            self.send_digest_in_turn(now);
        }
        let expired = |since: &Instant| *since + EXPIRE <= now;
        let gone: Vec<NodeId> =
            self.lost.iter().filter(|(_, since)| expired(since)).map(|(node, _)| *node).collect();
        for node in gone {
            self.lost.remove(&node);
            self.states.remove(&node);
            self.version += 1;
            self.facts.remove(&node);
        }
    }

    fn set_members(&mut self, now: Instant, members: BTreeSet<NodeId>, removed: BTreeSet<NodeId>) {
        let old = core::mem::replace(&mut self.members, members);
        self.removed = removed;
        let (me, members, removed) = (self.me.node, &self.members, &self.removed);
        let stays = |node: &NodeId| *node == me || members.contains(node);
        self.states.retain(|node, _| stays(node) || !removed.contains(node));
        self.facts.retain(|node, _| stays(node));
        self.seen.retain(|node, _| stays(node));
        let states = &self.states;
        self.lost.retain(|node, _| stays(node) || states.contains_key(node));
        self.version += 1;
        self.announce(now);
        let gained = |peer: &&NodeId| self.members.contains(peer) && !old.contains(peer);
        let new: Vec<NodeId> = self.links.keys().filter(gained).copied().collect();
        for peer in new {
            self.send_table(now, peer);
            self.send_digest(now, peer, false);
        }
        self.recompute(now);
    }
}

/// A round trip as it is announced: the next power of two of microseconds, so that links of the
/// same kind cost the same.
fn step_of(cost: Span) -> u32 {
    let micros = u32::try_from(cost.as_micros()).unwrap_or(u32::MAX).max(COST_MIN);
    micros.checked_next_power_of_two().unwrap_or(u32::MAX)
}
