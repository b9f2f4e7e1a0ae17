//! Branches whose opener died before it could say what became of them.
//!
//! An opener that meets the main line gives its branch up, and lists its state. One that dies
//! between the two can't, and remembers nothing when it is back. So every node that heard of the
//! branch takes note when it sees the main line served without that opener: such a branch has
//! lost, nobody goes on from it any more, and who knows that its opener is dead lists it.
//!
//! What it does not know: branches whose opener nobody here ever heard.
//!
//! Invariant: a branch is listed for its opener only once that agent run is over for certain.

use alloc::vec::Vec;

use jizoku_core::branch::Notice;
use jizoku_core::catalog::BranchRecord;
use jizoku_types::{BranchId, Member, ServiceId};

use super::super::Node;

/// What is to be listed of one when its opener is known to be dead.
#[derive(Debug)]
pub(super) struct Orphan {
    opener: Member,
    record: BranchRecord,
}

/// Orphans that a node remembers; of more it forgets the first.
const ORPHANS_MAX: usize = 64;

impl Node {
    pub(super) fn orphan_duty(&mut self) {
        if self.leader.is_some() && !self.branches.is_meeting(self.now) {
            self.pass_by();
        }
        let (mut dead, mut over) = (Vec::new(), Vec::new());
        for (key, orphan) in &self.branches.orphans {
            let (service, branch) = *key;
            let opener = orphan.opener;
            let listed = self.catalog.branches(service);
            if self.is_there(&opener) || listed.is_none_or(|all| all.contains_key(&branch)) {
                over.push(*key);
            } else if self.reach.incarnation(opener.node) > Some(opener.incarnation)
                || self.catalog.member(&opener.node).is_none()
            {
                dead.push(*key);
            }
        }
        for key in over {
            self.branches.orphans.remove(&key);
        }
        for key in dead {
            if let Some(orphan) = self.branches.orphans.remove(&key) {
                self.branches.lost.insert(key, orphan.record);
            }
        }
    }

    /// Takes note of the branches that the main line has outlived here.
    fn pass_by(&mut self) {
        let mut passed: Vec<Notice> = Vec::new();
        for service in self.branches.table.services() {
            let record = self.catalog.service(service);
            if !record.is_some_and(|record| self.is_main_here(service, record)) {
                continue;
            }
            let heard = self.branches.table.of(service);
            passed.extend(heard.filter(|notice| !self.is_there(&notice.opener)).cloned());
        }
        for notice in passed {
            let key = (notice.service, notice.branch());
            if !self.branches.passed.insert(key) || !self.has_lost_alone(&notice) {
                continue;
            }
            if self.branches.orphans.len() >= ORPHANS_MAX {
                self.branches.orphans.pop_first();
            }
            let record = super::ending::listed(&notice);
            self.branches.orphans.insert(key, Orphan { opener: notice.opener, record });
        }
    }

    /// Whether a branch has something of its own that no other line has.
    fn has_lost_alone(&self, notice: &Notice) -> bool {
        let branch = notice.branch();
        let mut others = self.branches.table.of(notice.service);
        let record = self.catalog.service(notice.service);
        notice.own_checkpoints > 0
            && !others.any(|other| other.ancestors.contains(&branch))
            && record.is_some_and(|record| record.fork != Some(branch))
    }

    /// Whether the main line has outlived this branch, as far as this node saw.
    pub(super) fn is_passed(&self, service: ServiceId, branch: BranchId) -> bool {
        self.branches.passed.contains(&(service, branch))
    }
}
