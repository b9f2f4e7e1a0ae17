//! Placement: which nodes should hold a service's checkpoints, and which should vote.
//!
//! Pure functions of what the caller knows. They wish; the catalog and consensus decide.
//!
//! What it does not know: time (the caller says since when), how copies are made, what is agreed.
//!
//! Invariants
//! - The same input gives the same answer, whatever the order of the candidates.
//! - Stable: fed its own answer as the current one, it answers the same. Loads decide between
//!   newcomers and never move a copy.
//! - Voters change by one node at a time, added before another goes, so that majorities of
//!   consecutive sets share a member: leases rely on it.
//! - Voters are an odd number where there are three members or more: a fourth voter helps no
//!   death more to be survived, and lets a cluster that breaks in halves stand still on both
//!   sides. With two members both vote, so that both have the whole log.
//!
//! Limits: at most `HOLDERS_MAX` holders, at most `VOTERS_MAX` + 1 voters (one more only while one
//! is being replaced).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::OnceCell;
use core::cmp::Reverse;

use jizoku_types::limits::{HOLDERS_MAX, VOTERS_MAX};
use jizoku_types::spec::ServiceSpec;
use jizoku_types::{ByteCount, Member, NodeId, ServiceId, Span};

#[cfg(test)]
mod tests;

/// How long a voter must be dead before another takes its place.
pub const DEAD_FOR: Span = Span::secs(10);

/// What is known of a node that might hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderCandidate {
    /// Who, in its current incarnation.
    pub member: Member,
    /// Its labels; `zone` and `rack` count.
    pub labels: BTreeMap<String, String>,
    /// Runs and holds nothing.
    pub witness: bool,
    /// Shall become empty.
    pub draining: bool,
    /// Whether the active node reaches it.
    pub reachable: bool,
    /// Whether its disk takes writes.
    pub disk_ok: bool,
    /// Room for states that it doesn't hold yet.
    pub free: ByteCount,
    /// How many services' states it holds.
    pub load: u32,
}

/// Whom a service's state should be held by.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Which service.
    pub service: ServiceId,
    /// What was asked for it.
    pub spec: &'a ServiceSpec,
    /// Who is active: never counted among the copies.
    pub active: NodeId,
    /// How large the state is, or is expected to become.
    pub size: ByteCount,
    /// Who holds now.
    pub current: &'a BTreeSet<Member>,
}

/// Who should hold, best first; fewer than `spec.copies` if there are no more. Holders that may
/// stay do, unless another choice spreads the copies better over zones or racks. The active node
/// should be among the candidates, so that its own zone and rack count as used.
pub fn choose_holders(wish: &Wish<'_>, candidates: &[HolderCandidate]) -> Vec<Member> {
    let held: BTreeSet<NodeId> = wish.current.iter().map(|member| member.node).collect();
    let mut open: BTreeMap<NodeId, Open<'_>> = BTreeMap::new();
    let mut used = Spread::default();
    for one in candidates {
        let node = one.member.node;
        let holds = held.contains(&node);
        let place = Spread::place(&one.labels);
        if node == wish.active {
            used.add(place);
        } else if may_hold(wish, one, holds) {
            let load = if holds { 0 } else { one.load };
            let tie = OnceCell::new();
            open.insert(node, Open { member: one.member, place, new: !holds, load, tie });
        }
    }
    let mut chosen = Vec::new();
    while chosen.len() < usize::from(wish.spec.copies).min(HOLDERS_MAX) {
        let rank = |one: &Open<'_>| (used.of(one.place), one.new, one.load);
        let tie = |one: &Open<'_>| {
            let node = one.member.node;
            (*one.tie.get_or_init(|| tie_break(wish.service, node)), node)
        };
        let best =
            open.values().min_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| tie(a).cmp(&tie(b))));
        let Some((place, member)) = best.map(|best| (best.place, best.member)) else { break };
        open.remove(&member.node);
        used.add(place);
        chosen.push(member);
    }
    chosen
}

/// A candidate that may hold.
struct Open<'a> {
    member: Member,
    place: Place<'a>,
    /// It doesn't hold yet.
    new: bool,
    /// What it holds already; of no account if it is not new.
    load: u32,
    /// Made when it is asked for: a hash costs more than all the rest.
    tie: OnceCell<[u8; 8]>,
}

fn may_hold(wish: &Wish<'_>, one: &HolderCandidate, holds: bool) -> bool {
    let place = &wish.spec.placement;
    let node = one.member.node;
    let allowed = place.only.is_empty() || place.only.contains(&node);
    let has_room = holds || one.free >= wish.size;
    allowed
        && !place.except.contains(&node)
        && !one.witness
        && !one.draining
        && one.reachable
        && one.disk_ok
        && has_room
}

/// How often each zone, and each rack within its zone, is used. Nodes without the label count as
/// being in one place: nothing says that they don't die together.
#[derive(Default)]
struct Spread<'a> {
    zones: BTreeMap<&'a str, u32>,
    racks: BTreeMap<Place<'a>, u32>,
}

/// Zone and rack.
type Place<'a> = (&'a str, &'a str);

impl<'a> Spread<'a> {
    fn place(labels: &'a BTreeMap<String, String>) -> Place<'a> {
        let label = |name| labels.get(name).map_or("", String::as_str);
        (label("zone"), label("rack"))
    }

    fn add(&mut self, place: Place<'a>) {
        *self.zones.entry(place.0).or_default() += 1;
        *self.racks.entry(place).or_default() += 1;
    }

    /// Uses of the zone, then of the rack.
    fn of(&self, place: Place<'a>) -> (u32, u32) {
        let zone = self.zones.get(place.0).copied().unwrap_or(0);
        (zone, self.racks.get(&place).copied().unwrap_or(0))
    }

    fn most_used_zone(&self) -> u32 {
        self.zones.values().copied().max().unwrap_or(0)
    }
}

/// Spreads services evenly over nodes that are otherwise equal.
fn tie_break(service: ServiceId, node: NodeId) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"jizoku holder");
    hasher.update(&service.0.to_le_bytes());
    hasher.update(&node.0);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    first
}

/// What is known of a node that might vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoterCandidate {
    /// Who.
    pub node: NodeId,
    /// Its labels; `zone` counts.
    pub labels: BTreeMap<String, String>,
    /// Whether it can be reached now.
    pub alive: bool,
    /// For how long it has been so.
    pub since: Span,
    /// Shall become empty; it may still vote, but others are preferred.
    pub draining: bool,
}

impl VoterCandidate {
    fn is_dead(&self) -> bool {
        !self.alive && self.since >= DEAD_FOR
    }
}

/// How many should vote among so many members.
pub fn voters_wanted(members: usize) -> usize {
    match members {
        0..=2 => members,
        3 | 4 => 3,
        _ => VOTERS_MAX,
    }
}

/// The next set of voters: `current`, or a set with one node more or less. Ask again when the
/// change is made, and not sooner than a lease after it.
pub fn choose_voters(members: &[VoterCandidate], current: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let known: BTreeMap<NodeId, &VoterCandidate> =
        members.iter().map(|one| (one.node, one)).collect();
    let wanted = voters_wanted(known.len());
    let (voting, waiting): (Vec<&VoterCandidate>, Vec<&VoterCandidate>) =
        known.values().copied().partition(|one| current.contains(&one.node));
    let mut used = Spread::default();
    voting.iter().filter(|one| !one.is_dead()).for_each(|one| used.add(Spread::place(&one.labels)));
    let crowd = |one: &VoterCandidate| used.of(Spread::place(&one.labels)).0;
    let spare = waiting
        .iter()
        .filter(|one| one.alive)
        .min_by_key(|one| (crowd(one), one.draining, Reverse(one.since), one.node));
    let mut next = current.clone();
    let strangers = current.iter().find(|node| !known.contains_key(node));
    let work_without = voting.iter().any(|one| one.alive);
    if let Some(stranger) = strangers.filter(|_| work_without) {
        next.remove(stranger);
        return next;
    }
    if voting.len() > wanted {
        let worst = voting.iter().max_by_key(|one| {
            (one.is_dead(), !one.alive, crowd(one), one.draining, Reverse(one.since), one.node)
        });
        if let Some(worst) = worst {
            next.remove(&worst.node);
        }
        return next;
    }
    if let Some(spare) = spare {
        let missing = voting.len() < wanted || voting.iter().any(|one| one.is_dead());
        // Moved for a better spread only when all is well, and only if two zones get nearer.
        let calm = voting.iter().all(|one| one.alive) && spare.since >= DEAD_FOR;
        let uneven = crowd(spare) + 2 <= used.most_used_zone();
        if missing || (calm && uneven) {
            next.insert(spare.node);
        }
    }
    next
}
