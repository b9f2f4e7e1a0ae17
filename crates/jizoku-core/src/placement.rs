//! Placement: which nodes should hold a service's checkpoints, and which should vote.
//!
//! Pure functions of what the caller knows. They wish; the catalog and consensus decide.
//!
//! What it does not know: time (the caller says since when), how copies are made, what is agreed.
//!
//! Invariants
//! - The same input gives the same answer, whatever the order of the candidates.
//! - Stable: fed its own answer as the current one, it answers the same.
//! - Voters change by one node at a time, so that majorities of consecutive sets share a member.
//!
//! Limits: at most `HOLDERS_MAX` holders, at most `VOTERS_MAX` + 1 voters (one more only while one
//! is being replaced).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

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
/// stay do, unless another choice spreads the copies over more zones or racks.
pub fn choose_holders(wish: &Wish<'_>, candidates: &[HolderCandidate]) -> Vec<Member> {
    let _ = (wish, candidates);
    Vec::new()
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

/// The next set of voters: `current`, or a set with one node more or less.
pub fn choose_voters(members: &[VoterCandidate], current: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let _ = members;
    current.clone()
}
