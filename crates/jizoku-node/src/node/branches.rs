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

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use jizoku_core::branch::{self, Contest, Notice, Table};
use jizoku_core::catalog::{BRANCHES_MAX, BranchRecord, Change, Command, ServiceRecord, Wanted};
use jizoku_types::spec::{Durability, PartitionPolicy};
use jizoku_types::{BranchId, ByteCount, Epoch, Event, Instant, Member, NodeId, ServiceId, Span};

use super::requests::Purpose;
use super::{Node, Output};
use crate::fault::Fault;
use crate::runner::{CheckpointStatus, Holders, Phase};
use crate::wire::ControlMessage;

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

/// From what a branch would begin.
struct Source {
    parent: Epoch,
    holders: BTreeSet<Member>,
    inherited: u64,
    size: ByteCount,
    ancestors: Vec<BranchId>,
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

    fn opening_duty(&mut self, service: ServiceId) {
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
        let lost = |notice: &Notice| record.branches.contains_key(&notice.branch());
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
    pub(super) fn is_leaving(&self, service: ServiceId) -> bool {
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
    pub(super) fn reopen(&mut self, service: ServiceId) {
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
    pub(super) fn abandon(&mut self, service: ServiceId, epoch: Epoch) {
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

    /// The own branch is over. `lost`: nobody goes on from it any more. What has nothing of its own
    /// nobody ever will: others forget it when they hear of its end.
    fn retire(&mut self, service: ServiceId, lost: bool) {
        let Some(notice) = self.notice_of(service, false) else { return };
        let Some(own) = self.branches.own.remove(&service) else { return };
        let branch = own.epoch.branch;
        if own.committed > 0 {
            let record = BranchRecord {
                parent: own.parent,
                opener: self.me().node,
                checkpoints: notice.checkpoints,
                size: own.size,
                holders: own.holders.members.iter().map(|member| member.node).collect(),
            };
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
    fn own_duty(&mut self, service: ServiceId) {
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
    fn ended_duty(&mut self) {
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
    fn over_duty(&mut self) {
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
    fn keep_duty(&mut self) {
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
    pub(super) fn branch_refused(&mut self, service: ServiceId) {
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

    /// The first checkpoint of a branch is committed: what it comes from isn't needed any more.
    pub(super) fn branch_committed(
        &mut self,
        service: ServiceId,
        epoch: Epoch,
        status: &CheckpointStatus,
    ) {
        self.branches.committed(service, epoch, status);
        let own = self.branches.own.get(&service);
        let Some(own) = own.filter(|own| own.epoch == epoch && own.committed == 1) else { return };
        self.dirty = true;
        self.forget_ancestors(service, own.ancestors.clone());
    }

    /// A branch that comes from these has all that they had when it left them.
    fn forget_ancestors(&mut self, service: ServiceId, ancestors: Vec<BranchId>) {
        for branch in ancestors {
            self.branches.ended.remove(&(service, branch));
            let mine = self.branches.own.get(&service).map(|own| own.epoch.branch) == Some(branch);
            if mine {
                continue;
            }
            if self.branches.table.lives(self.now, service, branch) {
                self.branches.gone_on_from.entry((service, branch)).or_insert(self.now);
            } else {
                self.outputs.push_back(Output::ForgetBranch { service, branch });
            }
        }
    }

    /// Forgets what was gone on from and has been silent since. What spoke since goes on by
    /// itself, and is contested, listed or forgotten like any other branch.
    fn ancestor_duty(&mut self) {
        let (now, mut silent) = (self.now, Vec::new());
        let Branches { gone_on_from, table, .. } = &mut self.branches;
        gone_on_from.retain(|(service, branch), since| {
            let spoke = table.heard_at(*service, *branch).is_some_and(|at| at > *since);
            let over = now.since(*since) >= branch::NOTICE_KEPT;
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
    fn fork_duty(&mut self, service: ServiceId) {
        let fork = self.catalog.service(service).and_then(|record| record.fork);
        let before = match fork {
            Some(branch) => self.branches.forks.insert(service, branch),
            None => self.branches.forks.remove(&service),
        };
        if let Some(branch) = before.filter(|branch| Some(*branch) != fork) {
            self.outputs.push_back(Output::ForgetBranch { service, branch });
        }
    }

    fn notice_of(&mut self, service: ServiceId, lives: bool) -> Option<Notice> {
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

    fn notice_duty(&mut self) {
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

    fn tell(&mut self, notice: &Notice) {
        let me = self.me().node;
        for to in self.reach.reachable().into_iter().filter(|to| *to != me) {
            let message = ControlMessage::Branch(notice.clone());
            self.outputs.push_back(Output::Control { to, message });
        }
    }

    pub(super) fn branch_heard(&mut self, from: NodeId, notice: Notice) {
        let (service, branch) = (notice.service, notice.branch());
        if self.catalog.service(service).is_none() {
            return;
        }
        let ancestors =
            if notice.own_checkpoints > 0 { notice.ancestors.clone() } else { Vec::new() };
        let empty = !notice.lives && notice.own_checkpoints == 0;
        let told_by_opener = from == notice.opener.node;
        let new = self.branches.table.hear(self.now, from, notice);
        self.dirty |= new;
        // What is over is so for good; its state may have been read from the disk only now.
        if !(new || empty && told_by_opener) {
            return;
        }
        // Nobody needs what is in another's state, or what nothing was added to.
        self.forget_ancestors(service, ancestors);
        if empty {
            self.branches.ended.remove(&(service, branch));
            self.outputs.push_back(Output::ForgetBranch { service, branch });
        }
    }

    pub(super) fn branch_changed(&mut self, change: &Change) {
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
