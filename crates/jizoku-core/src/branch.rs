//! Branches: what a side without a majority tells about the line it goes on with, and which of two
//! goes on when they meet.
//!
//! A branch has one opener and one reign: whoever goes on with it elsewhere opens another that
//! comes from it. So nobody but its opener ever speaks for it, and no vote is needed for that.
//!
//! What it does not know: the catalog, holders, who can be reached, why a branch is opened.
//!
//! Invariants
//! - An id is never given out twice: it is made of the parent's epoch, the opener's incarnation,
//!   and the opener's counter.
//! - Of two branches that meet, both openers find the same to go on, although both count on: each
//!   fixes its count when it first hears of the other, and only fixed counts are compared.
//! - A notice replaces an older one of its branch, never a newer one.
//!
//! Limits: [`HEARD_MAX`] branches of one service; the one heard of longest ago is forgotten.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use jizoku_types::{BranchId, ByteCount, Epoch, Instant, Member, NodeId, ServiceId, Span};
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// How often an opener repeats its notice to all whom it can reach.
pub const NOTICE_EVERY: Span = Span::secs(1);
/// A branch of which nothing was heard for this long doesn't live any more.
pub const NOTICE_KEPT: Span = Span::secs(5);
/// Branches of one service that a node remembers.
pub const HEARD_MAX: usize = 16;
/// Ancestors that a notice names: those that are older are named by earlier notices.
pub const ANCESTORS_MAX: usize = 16;

/// What an opener says of its branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Of which service.
    pub service: ServiceId,
    /// The branch, and its one reign: the parent's counter and one.
    pub epoch: Epoch,
    /// The epoch that it left: of the main line, or of another branch.
    pub parent: Epoch,
    /// The counter of the main line's epoch that its oldest ancestor left.
    pub root: u64,
    /// Who opened it, and is active in it.
    pub opener: Member,
    /// Who has every committed checkpoint of it.
    pub holders: BTreeSet<Member>,
    /// Committed checkpoints since the main line was left.
    pub checkpoints: u64,
    /// Committed checkpoints of this branch alone.
    pub own_checkpoints: u64,
    /// The size of its state.
    pub size: ByteCount,
    /// The branches that it comes from, newest first. Their state is in its own.
    pub ancestors: Vec<BranchId>,
    /// Whether it goes on. If not, it is over for good.
    pub lives: bool,
    /// Grows with each notice of this branch.
    pub number: u64,
    /// Other branches of this opener's knowledge, each with the count of checkpoints that this
    /// one is compared by with it.
    pub fixed: BTreeMap<BranchId, u64>,
}

impl Notice {
    /// Which branch.
    pub fn branch(&self) -> BranchId {
        self.epoch.branch
    }
}

/// The id of the branch that `opener` opens from `parent`, as the `counter`-th of this agent run.
pub fn id(service: ServiceId, parent: Epoch, opener: Member, counter: u64) -> BranchId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"jizoku branch");
    hasher.update(&service.0.to_le_bytes());
    hasher.update(&parent.branch.0);
    hasher.update(&parent.counter.to_le_bytes());
    hasher.update(&opener.node.0);
    hasher.update(&opener.incarnation.0.to_le_bytes());
    hasher.update(&counter.to_le_bytes());
    let mut first = [0; 16];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    BranchId(first)
}

/// Whether `one` goes on rather than `other`: more checkpoints, else the lower id.
pub fn goes_on(one: (u64, BranchId), other: (u64, BranchId)) -> bool {
    (other.0, one.1) < (one.0, other.1)
}

/// What came of two branches that met, for the opener of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contest {
    /// The other opener has not fixed its count yet.
    Open,
    /// The own branch goes on.
    Won,
    /// The other does.
    Lost,
}

/// Compares the own branch with one that was heard of. `fixed` are the own counts.
pub fn contest(own: BranchId, fixed: &BTreeMap<BranchId, u64>, rival: &Notice) -> Contest {
    let (Some(mine), Some(theirs)) = (fixed.get(&rival.branch()), rival.fixed.get(&own)) else {
        return Contest::Open;
    };
    if goes_on((*mine, own), (*theirs, rival.branch())) { Contest::Won } else { Contest::Lost }
}

#[derive(Debug)]
struct Heard {
    notice: Notice,
    at: Instant,
}

/// The branches that a node has heard of.
#[derive(Debug, Default)]
pub struct Table {
    heard: BTreeMap<ServiceId, BTreeMap<BranchId, Heard>>,
}

impl Table {
    /// Nothing heard.
    pub fn new() -> Table {
        Table::default()
    }

    /// Takes a notice. False if it says nothing new, or doesn't come from its opener.
    pub fn hear(&mut self, now: Instant, from: NodeId, notice: Notice) -> bool {
        let branch = notice.branch();
        let sane = branch != BranchId::MAIN && notice.ancestors.len() <= ANCESTORS_MAX;
        if notice.opener.node != from || !sane {
            return false;
        }
        let of_service = self.heard.entry(notice.service).or_default();
        if let Some(known) = of_service.get_mut(&branch) {
            if known.notice.number >= notice.number {
                return false;
            }
            known.at = now;
            let repeated = Notice { number: notice.number, ..known.notice.clone() } == notice;
            known.notice = notice;
            return !repeated;
        }
        if of_service.len() >= HEARD_MAX {
            let oldest = of_service.iter().min_by_key(|(_, heard)| heard.at).map(|(id, _)| *id);
            oldest.and_then(|id| of_service.remove(&id));
        }
        of_service.insert(branch, Heard { notice, at: now });
        true
    }

    /// Whether this branch goes on, as far as was heard lately.
    pub fn lives(&self, now: Instant, service: ServiceId, branch: BranchId) -> bool {
        let heard = self.heard.get(&service).and_then(|of_service| of_service.get(&branch));
        heard.is_some_and(|heard| now.since(heard.at) < NOTICE_KEPT && heard.notice.lives)
    }

    /// When the opener of this branch last spoke.
    pub fn heard_at(&self, service: ServiceId, branch: BranchId) -> Option<Instant> {
        Some(self.heard.get(&service)?.get(&branch)?.at)
    }

    /// All that was heard of a service's branches, dead ones too.
    pub fn of(&self, service: ServiceId) -> impl Iterator<Item = &Notice> {
        self.heard.get(&service).into_iter().flatten().map(|(_, heard)| &heard.notice)
    }

    /// Those that go on, as far as was heard lately, and left the main line's epoch `root`.
    pub fn living(
        &self,
        now: Instant,
        service: ServiceId,
        root: u64,
    ) -> impl Iterator<Item = &Notice> {
        let heard = self.heard.get(&service).into_iter().flatten();
        heard
            .filter(move |(_, heard)| now.since(heard.at) < NOTICE_KEPT)
            .map(|(_, heard)| &heard.notice)
            .filter(move |notice| notice.lives && notice.root == root)
    }

    /// Forgets what the main line has left behind; all of a service that is gone (`None`).
    pub fn settle(&mut self, service: ServiceId, root: Option<u64>) {
        if let Some(of_service) = self.heard.get_mut(&service) {
            of_service.retain(|_, heard| root.is_some_and(|root| heard.notice.root >= root));
            if of_service.is_empty() {
                self.heard.remove(&service);
            }
        }
    }

    /// The services that something was heard of.
    pub fn services(&self) -> impl Iterator<Item = ServiceId> {
        self.heard.keys().copied()
    }
}
