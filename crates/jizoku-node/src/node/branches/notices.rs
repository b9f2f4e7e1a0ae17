//! What openers tell of their branches, and what others do and forget by it.
//!
//! Invariant: nobody forgets the state of a branch that goes on.

use alloc::vec::Vec;

use jizoku_core::branch::{self, Notice};
use jizoku_core::catalog::{Change, ServiceRecord};
use jizoku_types::{BranchId, Epoch, Event, Member, NodeId, ServiceId};

use super::super::{Node, Output};
use super::Branches;
use crate::runner::CheckpointStatus;
use crate::wire::ControlMessage;

impl Node {
    /// The first checkpoint of a branch is committed: what it comes from isn't needed any more.
    pub(in crate::node) fn branch_committed(
        &mut self,
        service: ServiceId,
        epoch: Epoch,
        status: &CheckpointStatus,
    ) {
        self.branches.committed(service, epoch, status);
        let own = self.branches.own.get(&service);
        let Some(own) = own.filter(|own| own.epoch == epoch && own.committed == 1) else { return };
        self.dirty = true;
        self.forget_ancestors(service, self.me(), own.ancestors.clone());
    }

    /// A branch that comes from these has all that they had when it left them. Another opener's may
    /// have become the main line on a side that isn't seen from here: it is kept until that is
    /// known.
    /// `by`: who opened it.
    fn forget_ancestors(&mut self, service: ServiceId, by: Member, ancestors: Vec<BranchId>) {
        for branch in ancestors {
            self.branches.ended.remove(&(service, branch));
            let mine = self.branches.own.get(&service).map(|own| own.epoch.branch) == Some(branch);
            if mine {
                continue;
            }
            let mut heard = self.branches.table.of(service);
            let its_own = heard.any(|one| one.branch() == branch && one.opener == by);
            if self.branches.table.lives(self.now, service, branch) || !its_own {
                self.branches.gone_on_from.entry((service, branch)).or_insert(self.now);
            } else {
                self.outputs.push_back(Output::ForgetBranch { service, branch });
            }
        }
    }

    /// Forgets what was gone on from and has been silent since, once it is known not to be what
    /// the main line goes on from. What spoke since goes on by itself, and is contested, listed or
    /// forgotten like any other branch.
    pub(super) fn ancestor_duty(&mut self) {
        let known = self.leader.is_some() && !self.branches.is_meeting(self.now);
        let (now, catalog, mut silent) = (self.now, &self.catalog, Vec::new());
        let Branches { gone_on_from, table, .. } = &mut self.branches;
        gone_on_from.retain(|(service, branch), since| {
            let spoke = table.heard_at(*service, *branch).is_some_and(|at| at > *since);
            let is_fork = |record: &ServiceRecord| record.fork == Some(*branch);
            let needed = !known || catalog.service(*service).is_some_and(is_fork);
            let over = now.since(*since) >= branch::NOTICE_KEPT && !needed;
            if over && !spoke {
                silent.push((*service, *branch));
            }
            !over && !spoke
        });
        for (service, branch) in silent {
            self.outputs.push_back(Output::ForgetBranch { service, branch });
        }
    }

    /// Once the main line has gone on from a branch, its state is held twice.
    pub(super) fn fork_duty(&mut self, service: ServiceId) {
        let fork = self.catalog.service(service).and_then(|record| record.fork);
        let before = match fork {
            Some(branch) => self.branches.forks.insert(service, branch),
            None => self.branches.forks.remove(&service),
        };
        if let Some(branch) = before.filter(|branch| Some(*branch) != fork) {
            self.outputs.push_back(Output::ForgetBranch { service, branch });
        }
    }

    pub(super) fn notice_of(&mut self, service: ServiceId, lives: bool) -> Option<Notice> {
        let opener = self.me();
        let own = self.branches.own.get(&service)?;
        self.branches.number += 1;
        Some(Notice {
            service,
            epoch: own.epoch,
            parent: own.parent,
            root: own.root,
            opener,
            holders: own.holders.members.clone(),
            checkpoints: own.inherited + own.committed,
            own_checkpoints: own.committed,
            size: own.size,
            ancestors: own.ancestors.clone(),
            lives,
            number: self.branches.number,
            fixed: own.fixed.clone(),
        })
    }

    pub(super) fn notice_duty(&mut self) {
        let urgent = core::mem::take(&mut self.branches.urgent);
        if !urgent && self.now < self.branches.next_notice {
            return;
        }
        self.branches.next_notice = self.now + branch::NOTICE_EVERY;
        let services: Vec<ServiceId> = self.branches.own.keys().copied().collect();
        for service in services {
            if let Some(notice) = self.notice_of(service, true) {
                self.tell(&notice);
            }
        }
    }

    pub(super) fn tell(&mut self, notice: &Notice) {
        let me = self.me().node;
        for to in self.reach.reachable().into_iter().filter(|to| *to != me) {
            let message = ControlMessage::Branch(notice.clone());
            self.outputs.push_back(Output::Control { to, message });
        }
    }

    pub(in crate::node) fn branch_heard(&mut self, from: NodeId, notice: Notice) {
        let (service, branch) = (notice.service, notice.branch());
        if self.catalog.service(service).is_none() {
            return;
        }
        let ancestors =
            if notice.own_checkpoints > 0 { notice.ancestors.clone() } else { Vec::new() };
        let empty = !notice.lives && notice.own_checkpoints == 0;
        let (opener, told_by_opener) = (notice.opener, from == notice.opener.node);
        let new = self.branches.table.hear(self.now, from, notice);
        self.dirty |= new;
        // What is over is so for good; its state may have been read from the disk only now.
        if !(new || empty && told_by_opener) {
            return;
        }
        // Nobody needs what is in another's state, or what nothing was added to.
        self.forget_ancestors(service, opener, ancestors);
        if empty {
            self.branches.ended.remove(&(service, branch));
            self.outputs.push_back(Output::ForgetBranch { service, branch });
        }
    }

    pub(in crate::node) fn branch_changed(&mut self, change: &Change) {
        match change {
            Change::BranchKept { service, branch } => {
                self.event(Event::BranchResolved { service: *service, kept: *branch });
            }
            Change::BranchDropped { service, branch } => {
                let (service, branch) = (*service, *branch);
                self.outputs.push_back(Output::ForgetBranch { service, branch });
            }
            Change::BranchResolved { service, .. } => {
                self.event(Event::BranchResolved { service: *service, kept: BranchId::MAIN });
            }
            _ => {}
        }
    }
}
