//! When a side opens a branch, from what, and who of it does.
//!
//! What it does not know: what becomes of branches when sides meet.
//!
//! Invariant: a branch begins from the newest line that is known here, and never from nothing.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use jizoku_core::branch::{self, Notice};
use jizoku_core::catalog::{ServiceRecord, Wanted};
use jizoku_types::spec::PartitionPolicy;
use jizoku_types::{BranchId, ByteCount, Epoch, Event, Member, ServiceId, Span};

use super::super::Node;
use super::{BRANCH_AFTER, BRANCH_STAGGER, LEAVE_WITHIN, Own};
use crate::runner::{Holders, Phase};

/// From what a branch would begin.
struct Source {
    parent: Epoch,
    holders: BTreeSet<Member>,
    inherited: u64,
    size: ByteCount,
    ancestors: Vec<BranchId>,
}

impl Node {
    pub(super) fn opening_duty(&mut self, service: ServiceId) {
        let Some(record) = self.catalog.service(service) else { return };
        let wanted = record.spec.partition == PartitionPolicy::Continue
            && record.wanted == Wanted::Running
            && self.is_without_majority()
            && self.may_judge();
        let served = match self.reign(service, record) {
            true => !self.is_stuck(service, record),
            false => {
                self.is_main_served(service, record) || self.followed(service, record).is_some()
            }
        };
        if !wanted || served {
            self.branches.unserved.remove(&service);
            self.branches.refused.remove(&service);
            return;
        }
        let now = self.now;
        let since = *self.branches.unserved.entry(service).or_insert(now);
        let Some(source) = self.source(service) else { return };
        let Some(place) = self.place_among_openers(service, &source) else { return };
        let due = since + BRANCH_AFTER + BRANCH_STAGGER * place;
        if now >= due && self.is_ready_to_leave(service, now.since(since)) {
            self.open(service, source);
        }
    }

    /// Whether this node is active in the main line, and has not left it.
    fn reign(&self, service: ServiceId, record: &ServiceRecord) -> bool {
        record.active == Some(self.me()) && !self.branches.has_left(service, record.epoch)
    }

    /// The newest line that this side may go on from: the last branch that was heard of, or the
    /// main line. Without any of its holders here there is none.
    fn source(&self, service: ServiceId) -> Option<Source> {
        let record = self.catalog.service(service)?;
        let root = record.epoch.counter;
        // One that ended without a checkpoint of its own has nothing that its parent lacks; one
        // that may never have begun is tried once.
        let barren = |notice: &Notice| {
            let empty = notice.own_checkpoints == 0;
            empty && (!notice.lives || self.branches.barren.contains(&notice.branch()))
        };
        // What is listed has lost: the main line went on without it, be it in the same epoch.
        let lost = |notice: &Notice| {
            let branch = notice.branch();
            record.branches.contains_key(&branch) || self.is_passed(service, branch)
        };
        let heard = self.branches.table.of(service);
        let last = heard
            .filter(|notice| notice.root == root && !barren(notice) && !lost(notice))
            .max_by_key(|notice| (notice.lives, notice.epoch.counter, notice.checkpoints));
        let source = match last {
            Some(notice) => {
                let mut ancestors = notice.ancestors.clone();
                ancestors.insert(0, notice.branch());
                ancestors.truncate(branch::ANCESTORS_MAX);
                Source {
                    parent: notice.epoch,
                    holders: notice.holders.clone(),
                    inherited: notice.checkpoints,
                    size: notice.size,
                    ancestors,
                }
            }
            None => Source {
                parent: record.epoch,
                holders: record.holders.clone(),
                inherited: 0,
                size: self.size_of(service, record),
                ancestors: Vec::new(),
            },
        };
        let mut holders = source.holders;
        if self.reign(service, record) {
            let local = self.local.get(&service);
            holders.extend(local.and_then(|local| local.caught_up.get(&self.me())));
        }
        holders.retain(|member| self.may_hold(record, member));
        let leaves = self.is_leaving(service);
        let able = !record.spec.has_state() || (record.born && (!holders.is_empty() || leaves));
        able.then_some(Source { holders, ..source })
    }

    fn size_of(&self, service: ServiceId, record: &ServiceRecord) -> ByteCount {
        if let Some(local) = self.local.get(&service) {
            return local.last.size;
        }
        let facts = record.active.and_then(|active| self.facts_of(active.node));
        let told = facts.into_iter().flat_map(|facts| facts.services);
        told.filter(|(id, _)| *id == service)
            .map(|(_, facts)| facts.size)
            .next()
            .unwrap_or_default()
    }

    /// This node's place among those of this side who may open a branch. A node that started when
    /// no leader was known has seen no partition: it may have seen the cluster start.
    fn place_among_openers(&self, service: ServiceId, source: &Source) -> Option<u64> {
        let record = self.catalog.service(service)?;
        if self.reign(service, record) {
            return Some(0);
        }
        let cold = |member: &Member| self.facts_of(member.node).is_some_and(|facts| facts.cold);
        let ranked = self.ranked_by(service, record, &source.holders);
        let mut openers = ranked.iter().filter(|member| self.is_there(member) && !cold(member));
        let place = openers.position(|member| *member == self.me())?;
        u64::try_from(place).ok()
    }

    /// Whether this node, as the active one, is about to leave the main line: then its own holder
    /// is to have what runs.
    pub(in crate::node) fn is_leaving(&self, service: ServiceId) -> bool {
        let runs = |phase: Phase| (Phase::Starting..Phase::Ended).contains(&phase);
        self.branches.unserved.contains_key(&service)
            && self
                .catalog
                .service(service)
                .is_some_and(|record| record.spec.has_state() && self.reign(service, record))
            && self.local.get(&service).is_some_and(|local| runs(local.phase))
    }

    fn is_ready_to_leave(&self, service: ServiceId, waited: Span) -> bool {
        if !self.is_leaving(service) {
            return true;
        }
        let me = self.me();
        let caught_up = self
            .local
            .get(&service)
            .is_some_and(|local| local.caught_up.contains(&me) || local.told.members.contains(&me));
        let others = self.source(service).is_some_and(|source| !source.holders.is_empty());
        caught_up || (others && waited >= BRANCH_AFTER + LEAVE_WITHIN)
    }

    fn open(&mut self, service: ServiceId, source: Source) {
        let Some(record) = self.catalog.service(service) else { return };
        let (me, root, left) = (self.me(), record.epoch, self.reign(service, record));
        let unlisted = self.branches.lost.iter().filter(|((of, _), _)| *of == service);
        let unlisted: u64 = unlisted.map(|(_, lost)| lost.size.0).sum();
        let room = self.catalog.branch_room(service).0.saturating_sub(unlisted);
        if record.spec.has_state() && (room == 0 || room < source.size.0) {
            if self.branches.refused.insert(service) {
                let what = alloc::format!(
                    "{service} stops on this side: states of branches fill its branch_limit; \
                     drop some, or raise it"
                );
                self.event(Event::Trouble { what });
            }
            return;
        }
        self.branches.opened += 1;
        let id = branch::id(service, source.parent, me, self.branches.opened);
        let epoch = Epoch { branch: id, counter: source.parent.counter + 1 };
        self.dismiss(service);
        if left {
            self.branches.left.insert(service, root);
        }
        let own = Own {
            epoch,
            parent: source.parent,
            source: source.holders.clone(),
            holders: Holders { version: 1, members: source.holders, asked: None },
            root: root.counter,
            inherited: source.inherited,
            committed: 0,
            size: source.size,
            ancestors: source.ancestors,
            fixed: BTreeMap::new(),
            main_since: None,
            leader_since: None,
            propose_at: self.now,
        };
        self.branches.own.insert(service, own);
        self.branches.unserved.remove(&service);
        self.branches.urgent = true;
        self.dirty = true;
        self.event(Event::BranchOpened { service, branch: id });
    }

    /// The instance of a branch ended: its opener goes on with another branch that comes from it.
    pub(in crate::node) fn reopen(&mut self, service: ServiceId) {
        let crashes = self.crashes.get(&service);
        if crashes.is_some_and(|crashes| crashes.retry_at > self.now) {
            return;
        }
        if crashes.is_some_and(|crashes| crashes.not_here_until > self.now) {
            let epoch = self.branches.own.get(&service).map(|own| own.epoch);
            return epoch.map_or((), |epoch| self.abandon(service, epoch));
        }
        let Some(source) = self.source_of_own(service) else {
            let epoch = self.branches.own.get(&service).map(|own| own.epoch);
            return epoch.map_or((), |epoch| self.abandon(service, epoch));
        };
        self.dismiss(service);
        self.retire(service, false);
        self.open(service, source);
    }

    /// What the successor of the own branch begins from: the own branch if it has something of its
    /// own, else what that began from. Without any holder there is nothing to begin from.
    fn source_of_own(&mut self, service: ServiceId) -> Option<Source> {
        let record = self.catalog.service(service)?;
        let there = |of: &BTreeSet<Member>| -> BTreeSet<Member> {
            of.iter().filter(|member| self.may_hold(record, member)).copied().collect()
        };
        let own = self.branches.own.get(&service)?;
        let (of_own, of_parent) = (there(&own.holders.members), there(&own.source));
        let stateless = !record.spec.has_state();
        let own = self.branches.own.get_mut(&service)?;
        if own.committed == 0 && of_parent.is_empty() && !of_own.is_empty() {
            // Those that it began from are gone: what it has is nowhere else.
            own.committed = 1;
        }
        let begun = own.committed > 0;
        let holders = if begun { of_own } else { of_parent };
        if holders.is_empty() && !stateless {
            return None;
        }
        let mut ancestors = own.ancestors.clone();
        if begun {
            ancestors.insert(0, own.epoch.branch);
            ancestors.truncate(branch::ANCESTORS_MAX);
        }
        Some(Source {
            parent: if begun { own.epoch } else { own.parent },
            holders,
            inherited: own.inherited + own.committed,
            size: own.size,
            ancestors,
        })
    }

    /// This node can't go on with its branch: others may, from what its holders have.
    pub(in crate::node) fn abandon(&mut self, service: ServiceId, epoch: Epoch) {
        if self.branches.own.get(&service).is_none_or(|own| own.epoch != epoch) {
            return;
        }
        let crashes = self.crashes.entry(service).or_default();
        crashes.not_here_until = crashes.not_here_until.max(self.now + Span::secs(60));
        if let Some(own) = self.branches.own.get(&service).filter(|own| own.committed == 0) {
            if self.branches.barren.len() >= branch::HEARD_MAX {
                self.branches.barren.pop_first();
            }
            self.branches.barren.insert(own.parent.branch);
        }
        // It has ended before its state is forgotten.
        self.dismiss(service);
        self.retire(service, false);
    }
}
