//! Branches: what a side without a majority does about services with `partition = "continue"`.
//!
//! A side that has no leader, can't reach a majority of voters, and has nobody who serves, goes on
//! by itself: its first candidate opens a branch from what the holders on this side have. Every
//! branch has one opener and one epoch; who goes on after that opener's death opens the next,
//! which comes from it. When sides meet, one line goes on (see protocols.md, "Branches").
//!
//! Invariants
//! - Nothing is opened with a leader, or with a majority of voters in reach, or before a leader
//!   was ever seen: a cluster that starts up is no partition.
//! - Only the opener is ever active in a branch, and only it speaks for it.
//! - The node that was active in the main line ends that instance before it opens a branch, and
//!   never runs that epoch again.
//! - A branch that lost emits nothing any more; if it committed anything, its state is listed.
//!
//! Rooms: [`opening`] when one begins, and from what; [`ending`] what becomes of it; [`notices`]
//! what openers tell, and others do by it; [`orphans`] what becomes of those whose opener died.

mod ending;
mod notices;
mod opening;
mod orphans;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use jizoku_core::branch::{self, Notice, Table};
use jizoku_core::catalog::{BranchRecord, ServiceRecord};
use jizoku_types::spec::Durability;
use jizoku_types::{BranchId, ByteCount, Epoch, Instant, Member, NodeId, ServiceId, Span};

use super::Node;
use orphans::Orphan;

use crate::runner::{CheckpointStatus, Holders, Phase};

/// For so long nobody must serve on a side before a branch is opened there: an election, or a
/// takeover, is over by then.
pub const BRANCH_AFTER: Span = Span::secs(3);
/// How much later each next candidate opens one. Longer than a notice takes.
pub const BRANCH_STAGGER: Span = Span::secs(1);
/// The active node waits for so long until its own holder has what runs, before it goes on from
/// what the others have.
const LEAVE_WITHIN: Span = Span::secs(5);
/// Who has come back is told for so long of what is over: by then it has its catalog and its disk.
const RETELL_FOR: Span = Span::secs(60);
/// How often.
const RETELL_EVERY: Span = Span::secs(5);
/// Branches that this node tells of again; the oldest are left out.
const OVER_MAX: usize = 64;
/// Sides that meet are given so long to hear of each other's branches before one goes on.
pub const MEET_FOR: Span = Span::millis(2_500);
const _: () = assert!(MEET_FOR.as_nanos() > 2 * branch::NOTICE_EVERY.as_nanos());

/// The branch that this node opened for a service.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) epoch: Epoch,
    pub(super) parent: Epoch,
    pub(super) holders: Holders,
    /// Those that it began from: who has the parent's state.
    source: BTreeSet<Member>,
    root: u64,
    /// Checkpoints since the main line was left: those of the parents, and its own.
    inherited: u64,
    committed: u64,
    size: ByteCount,
    ancestors: Vec<BranchId>,
    fixed: BTreeMap<BranchId, u64>,
    /// Since when the main line, or a rival, was there too, or a leader.
    main_since: Option<Instant>,
    leader_since: Option<Instant>,
    /// When it may be proposed as the main line (again).
    propose_at: Instant,
}

/// All that a node knows of branches.
#[derive(Debug, Default)]
pub(super) struct Branches {
    own: BTreeMap<ServiceId, Own>,
    /// Branches that lost, until the catalog lists them.
    lost: BTreeMap<(ServiceId, BranchId), BranchRecord>,
    /// Branches of this node that ended with something of their own, from which others may go on;
    /// with the epoch of the main line that they left.
    ended: BTreeMap<(ServiceId, BranchId), (u64, BranchRecord)>,
    /// Branches that another one comes from while they seemed to go on, since when. Their state is
    /// forgotten once it is clear that they don't: a branch that goes on has more than that one.
    gone_on_from: BTreeMap<(ServiceId, BranchId), Instant>,
    /// Branches that the main line has outlived while their opener was away.
    passed: BTreeSet<(ServiceId, BranchId)>,
    /// Those of them that have yet to be listed.
    orphans: BTreeMap<(ServiceId, BranchId), Orphan>,
    table: Table,
    /// Last notices of own branches that nobody needs: who was down at the time still holds them.
    over: VecDeque<Notice>,
    retell_until: Instant,
    next_retelling: Instant,
    /// The epoch of the main line that this node left for a branch.
    left: BTreeMap<ServiceId, Epoch>,
    /// Since when nobody serves on this side.
    unserved: BTreeMap<ServiceId, Instant>,
    /// A service of which no branch was opened, and why that was said.
    refused: BTreeSet<ServiceId>,
    /// Parents from which nothing could be collected.
    barren: BTreeSet<BranchId>,
    /// Which branch became the main line and is still held under its own name.
    forks: BTreeMap<ServiceId, BranchId>,
    led_once: bool,
    /// When the last leader was lost, if none is known.
    led_until: Option<Instant>,
    meets_until: Instant,
    opened: u64,
    number: u64,
    next_notice: Instant,
    urgent: bool,
}

impl Branches {
    /// The living branch of this node.
    pub(super) fn own(&self, service: ServiceId) -> Option<&Own> {
        self.own.get(&service)
    }

    /// Whether this node left the main line in that epoch.
    pub(super) fn has_left(&self, service: ServiceId, epoch: Epoch) -> bool {
        self.left.get(&service) == Some(&epoch)
    }

    fn committed(&mut self, service: ServiceId, epoch: Epoch, status: &CheckpointStatus) {
        if let Some(own) = self.own.get_mut(&service).filter(|own| own.epoch == epoch) {
            // Others forget the ancestors' states by it.
            self.urgent |= own.committed == 0;
            own.committed += 1;
            own.size = status.size;
        }
    }

    pub(super) fn set_holders(&mut self, service: ServiceId, members: BTreeSet<Member>) {
        if let Some(own) = self.own.get_mut(&service) {
            let version = own.holders.version + 1;
            own.holders = Holders { version, members, asked: None };
            self.urgent = true;
        }
    }

    /// The leader that this node knows is another.
    pub(super) fn leader_is(&mut self, now: Instant, known: bool) {
        if !known {
            self.led_until = Some(now);
            return;
        }
        // Whoever was without a leader for so long may meet branches that live.
        let short =
            self.led_once && self.led_until.is_none_or(|until| now.since(until) < BRANCH_AFTER);
        if !short {
            self.meets_until = now + MEET_FOR;
        }
        self.led_once = true;
        self.led_until = None;
    }

    /// Whether this node may yet hear of branches that go on with what seems vacant.
    pub(super) fn is_meeting(&self, now: Instant) -> bool {
        now < self.meets_until
    }

    /// A node is there (again).
    pub(super) fn met(&mut self, now: Instant) {
        self.urgent = true;
        self.retell_until = now + RETELL_FOR;
    }
}

impl Node {
    /// Opens, contests, gives up and resolves branches, and tells of them.
    pub(super) fn branch_duties(&mut self) {
        let services: Vec<ServiceId> = self.catalog.services().keys().copied().collect();
        let heard: Vec<ServiceId> = self.branches.table.services().collect();
        for service in heard.into_iter().chain(services.iter().copied()) {
            let root = self.catalog.service(service).map(|record| record.epoch.counter);
            self.branches.table.settle(service, root);
        }
        for service in services {
            if self.branches.own.contains_key(&service) {
                self.own_duty(service);
            } else {
                self.opening_duty(service);
            }
            self.fork_duty(service);
        }
        self.ended_duty();
        self.orphan_duty();
        self.ancestor_duty();
        self.over_duty();
        self.gone_duty();
        self.keep_duty();
        self.notice_duty();
    }

    /// A service that was removed has no branches.
    fn gone_duty(&mut self) {
        let exists = |service: &ServiceId| self.catalog.service(*service).is_some();
        self.branches.own.retain(|service, _| exists(service));
        self.branches.lost.retain(|(service, _), _| exists(service));
        self.branches.ended.retain(|(service, _), _| exists(service));
        self.branches.gone_on_from.retain(|(service, _), _| exists(service));
        let Branches { passed, table, .. } = &mut self.branches;
        passed.retain(|(service, branch)| table.heard_at(*service, *branch).is_some());
        self.branches.over.retain(|notice| exists(&notice.service));
        self.branches.left.retain(|service, _| exists(service));
        self.branches.unserved.retain(|service, _| exists(service));
        self.branches.refused.retain(|service| exists(service));
        self.branches.forks.retain(|service, _| exists(service));
    }

    /// Whether this side is too small, rather than slow to elect.
    fn is_without_majority(&self) -> bool {
        let me = self.me().node;
        let here = |node: &&NodeId| **node == me || self.reach.reaches(**node);
        let near = self.voters.iter().filter(here).count();
        self.leader.is_none() && self.branches.led_once && near * 2 <= self.voters.len()
    }

    /// Whether `active` said that it left the main line in `epoch`.
    pub(super) fn has_left(&self, service: ServiceId, active: Member, epoch: Epoch) -> bool {
        if active == self.me() {
            return self.branches.has_left(service, epoch);
        }
        let mut heard = self.branches.table.of(service);
        heard.any(|notice| notice.opener == active && notice.root == epoch.counter)
    }

    /// The branch that serves here in the place of the main line: its opener and epoch.
    pub(super) fn followed(
        &self,
        service: ServiceId,
        record: &ServiceRecord,
    ) -> Option<(Member, Epoch)> {
        let root = record.epoch.counter;
        if let Some(own) = self.branches.own.get(&service).filter(|own| own.root == root) {
            return Some((self.me(), own.epoch));
        }
        if self.is_main_here(service, record) {
            return None;
        }
        let followed = self.emitted.epoch(service);
        let living = self.branches.table.living(self.now, service, root);
        let there = living.filter(|notice| self.reach.reaches(notice.opener.node));
        let best = there.max_by(|one, other| {
            // Gateways don't go to and fro between two that have yet to find out.
            let steady = |notice: &Notice| Some(notice.epoch) == followed;
            let rank = |notice: &Notice| (notice.checkpoints, notice.branch());
            steady(one).cmp(&steady(other)).then_with(|| {
                branch::goes_on(rank(one), rank(other))
                    .cmp(&branch::goes_on(rank(other), rank(one)))
            })
        });
        best.map(|notice| (notice.opener, notice.epoch))
    }

    /// This node, active in the main line, can't go on in it: nothing runs, its lease can't be
    /// renewed, or a holder that must acknowledge is out of reach and can't be removed.
    fn is_stuck(&self, service: ServiceId, record: &ServiceRecord) -> bool {
        let out_of_reach = |member: &Member| !self.may_hold(record, member);
        let runs = self
            .local
            .get(&service)
            .is_some_and(|local| !matches!(local.phase, Phase::Ended | Phase::Unreachable));
        record.spec.needs_lease() || !runs || record.holders.iter().any(out_of_reach)
    }

    /// Whether this member of a set is here and may have what it acknowledged. With
    /// `durable = "disk"` it may after a restart too; that it has, its report says.
    fn may_hold(&self, record: &ServiceRecord, member: &Member) -> bool {
        let restarted = self.reach.incarnation(member.node) > Some(member.incarnation);
        let kept = record.spec.durable == Durability::Disk && restarted;
        self.is_there(member) || (kept && self.reach.reaches(member.node))
    }

    /// Whether the main line is served, by an active node that has not been restarted: the catalog
    /// may hear of that a little later than this node.
    fn is_main_here(&self, service: ServiceId, record: &ServiceRecord) -> bool {
        self.is_main_served(service, record)
            && record.active.is_some_and(|active| self.is_there(&active))
    }

    pub(super) fn is_there(&self, member: &Member) -> bool {
        let node = member.node;
        let same = self.reach.incarnation(node) == Some(member.incarnation);
        *member == self.me() || (same && self.reach.reaches(node))
    }

    /// The branch that serves on this side, for people: its newest notice.
    pub(super) fn branch_view(&self, service: ServiceId, epoch: Epoch) -> Option<BranchView> {
        if let Some(own) = self.branches.own.get(&service).filter(|own| own.epoch == epoch) {
            return Some(BranchView {
                epoch,
                parent: own.parent,
                opener: self.me(),
                holders: own.holders.members.clone(),
                checkpoints: own.inherited + own.committed,
                size: own.size,
            });
        }
        let mut heard = self.branches.table.of(service);
        let notice = heard.find(|notice| notice.epoch == epoch)?;
        Some(BranchView {
            epoch,
            parent: notice.parent,
            opener: notice.opener,
            holders: notice.holders.clone(),
            checkpoints: notice.checkpoints,
            size: notice.size,
        })
    }
}

/// A branch that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchView {
    /// Its only epoch.
    pub epoch: Epoch,
    /// The epoch that it left.
    pub parent: Epoch,
    /// Who opened it, and is active.
    pub opener: Member,
    /// Who holds its state.
    pub holders: BTreeSet<Member>,
    /// Committed checkpoints since the main line was left.
    pub checkpoints: u64,
    /// The size of its state.
    pub size: ByteCount,
}
