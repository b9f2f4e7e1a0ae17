//! What becomes of a branch: sides meet, one line goes on, the state of the other is listed.
//!
//! What it does not know: when one is opened.
//!
//! Invariant: whatever committed something of its own becomes the main line, is gone on from, or
//! is listed.

use alloc::vec::Vec;

use jizoku_core::branch::{self, Contest, Notice};
use jizoku_core::catalog::{BRANCHES_MAX, BranchRecord, Command, Wanted};
use jizoku_types::{BranchId, Epoch, Event, Instant, ServiceId};

use super::super::requests::Purpose;
use super::super::{Node, Output};
use super::{MEET_FOR, OVER_MAX, RETELL_EVERY};
use crate::fault::Fault;
use crate::runner::Phase;

/// What the catalog is to list of a branch.
pub(super) fn listed(notice: &Notice) -> BranchRecord {
    BranchRecord {
        parent: notice.parent,
        opener: notice.opener.node,
        checkpoints: notice.checkpoints,
        size: notice.size,
        holders: notice.holders.iter().map(|member| member.node).collect(),
    }
}

impl Node {
    /// The own branch is over. `lost`: nobody goes on from it any more. What has nothing of its own
    /// nobody ever will: others forget it when they hear of its end.
    pub(super) fn retire(&mut self, service: ServiceId, lost: bool) {
        let Some(notice) = self.notice_of(service, false) else { return };
        let Some(own) = self.branches.own.remove(&service) else { return };
        let branch = own.epoch.branch;
        if own.committed > 0 {
            let record = listed(&notice);
            if lost {
                self.branches.lost.insert((service, branch), record);
            } else {
                self.branches.ended.insert((service, branch), (own.root, record));
            }
        } else {
            self.outputs.push_back(Output::ForgetBranch { service, branch });
            if self.branches.over.len() >= OVER_MAX {
                self.branches.over.pop_front();
            }
            self.branches.over.push_back(notice.clone());
            if lost {
                self.event(Event::BranchResolved { service, kept: branch });
            }
        }
        // Remembered as others remember it: as what the next may come from.
        let me = self.me().node;
        self.branches.table.hear(self.now, me, notice.clone());
        self.tell(&notice);
        self.dirty = true;
    }

    /// Whether the own branch goes on, now that something changed.
    pub(super) fn own_duty(&mut self, service: ServiceId) {
        let Some(record) = self.catalog.service(service) else { return };
        let Some(own) = self.branches.own.get(&service) else { return };
        let (id, root) = (own.epoch.branch, own.root);
        if record.epoch.counter != root {
            if record.fork == Some(id) {
                // It is the main line now: the same state, under another name.
                self.branches.own.remove(&service);
                self.dirty = true;
                return;
            }
            return self.give_up(service);
        }
        if record.wanted == Wanted::Stopped {
            return self.give_up(service);
        }
        let main = self.is_main_here(service, record);
        let (now, leader) = (self.now, self.leader.is_some());
        let Some(own) = self.branches.own.get_mut(&service) else { return };
        own.main_since = main.then(|| own.main_since.unwrap_or(now));
        own.leader_since = leader.then(|| own.leader_since.unwrap_or(now));
        let met = |since: Option<Instant>| since.is_some_and(|at| now.since(at) >= MEET_FOR);
        let (main_met, leader_met) = (met(own.main_since), met(own.leader_since));
        if main_met || self.contest(service) == Contest::Lost {
            return self.give_up(service);
        }
        if leader_met && !main && self.contest(service) == Contest::Won {
            self.resolve(service);
        }
    }

    /// Compares the own branch with all others that live in reach. Won, if there are none.
    fn contest(&mut self, service: ServiceId) -> Contest {
        let Some(own) = self.branches.own.get(&service) else { return Contest::Lost };
        let (id, count) = (own.epoch.branch, own.inherited + own.committed);
        let living = self.branches.table.living(self.now, service, own.root);
        let rivals: Vec<Notice> = living
            .filter(|rival| rival.branch() != id && self.reach.reaches(rival.opener.node))
            .cloned()
            .collect();
        let Some(own) = self.branches.own.get_mut(&service) else { return Contest::Lost };
        let mut result = Contest::Won;
        for rival in rivals {
            if !own.fixed.contains_key(&rival.branch()) && own.fixed.len() < branch::HEARD_MAX {
                own.fixed.insert(rival.branch(), count);
                self.branches.urgent = true;
            }
            match branch::contest(id, &own.fixed, &rival) {
                Contest::Lost => return Contest::Lost,
                // It will say so itself.
                Contest::Won | Contest::Open => result = Contest::Open,
            }
        }
        result
    }

    fn give_up(&mut self, service: ServiceId) {
        if self.planted.has(Fault::LoserGoesOn) {
            return;
        }
        self.dismiss(service);
        self.retire(service, true);
    }

    /// Makes the own branch the main line.
    fn resolve(&mut self, service: ServiceId) {
        let purpose = Purpose::Branch(service);
        let serving = self.local.get(&service).is_some_and(|one| one.phase == Phase::Serving);
        let (now, to, busy) = (self.now, self.me(), self.is_under_way(&purpose));
        let Some(own) = self.branches.own.get_mut(&service) else { return };
        if !serving || busy || own.propose_at > now {
            return;
        }
        own.propose_at = now + branch::NOTICE_EVERY;
        let command = Command::ResolveBranch {
            service,
            expect: Epoch::main(own.root),
            branch: own.epoch.branch,
            reached: own.epoch.counter,
            to,
            holders: own.holders.members.clone(),
        };
        self.propose(purpose, &command);
    }

    /// What ended and was gone on from by nobody has lost once the main line serves.
    pub(super) fn ended_duty(&mut self) {
        let met = self.leader.is_some() && !self.branches.is_meeting(self.now);
        let lost = |(service, _): &(ServiceId, BranchId), root: u64| {
            let Some(record) = self.catalog.service(*service) else { return true };
            let left_behind = record.epoch.counter != root;
            let goes_on = self.branches.own.contains_key(service)
                || self.followed(*service, record).is_some();
            left_behind || (met && !goes_on && self.is_main_here(*service, record))
        };
        let all = self.branches.ended.iter();
        let over: Vec<_> =
            all.filter(|(key, (root, _))| lost(key, *root)).map(|(key, _)| *key).collect();
        for key in over {
            if let Some((_, record)) = self.branches.ended.remove(&key) {
                self.branches.lost.insert(key, record);
            }
        }
    }

    /// Tells those who have come back of what is over.
    pub(super) fn over_duty(&mut self) {
        let branches = &mut self.branches;
        if self.now >= branches.retell_until || self.now < branches.next_retelling {
            return;
        }
        branches.next_retelling = self.now + RETELL_EVERY;
        for notice in branches.over.clone() {
            self.tell(&notice);
        }
    }

    /// Lists what lost.
    pub(super) fn keep_duty(&mut self) {
        let Some((&(service, branch), record)) = self.branches.lost.first_key_value() else {
            return;
        };
        let listed = self.catalog.branches(service);
        if listed.is_some_and(|listed| listed.contains_key(&branch)) {
            self.branches.lost.remove(&(service, branch));
            self.dirty = true;
            return;
        }
        if listed.is_some_and(|listed| listed.len() >= BRANCHES_MAX) {
            let what = alloc::format!(
                "the state of {service}'s branch {branch} is not listed: {BRANCHES_MAX} are"
            );
            self.branches.lost.remove(&(service, branch));
            return self.event(Event::Trouble { what });
        }
        let purpose = Purpose::Branch(service);
        if self.leader.is_none() || self.is_under_way(&purpose) {
            return;
        }
        let mut record = record.clone();
        record.holders.retain(|node| self.catalog.member(node).is_some());
        self.propose(purpose, &Command::KeepBranch { service, branch, record });
    }

    /// The catalog will never take what was proposed.
    pub(in crate::node) fn branch_refused(&mut self, service: ServiceId) {
        if self.branches.own.contains_key(&service) {
            return self.give_up(service);
        }
        let lost = self.branches.lost.keys().find(|(of, _)| *of == service).copied();
        if let Some((_, branch)) = lost {
            self.branches.lost.remove(&(service, branch));
            let what = alloc::format!("the state of {service}'s branch {branch} can't be listed");
            self.event(Event::Trouble { what });
        }
    }
}
