//! Holder sets of the services that are active here: who should hold, who is brought up to date,
//! and which set to propose.
//!
//! Invariants
//! - Nobody is removed before this node has the state itself: until then the members are the only
//!   ones who have it.
//! - Whoever is added has the newest checkpoint and acknowledges all further ones.
//! - Whoever a proposal names acknowledges until its fate is known, even if nobody wants it any
//!   more: otherwise the set could come to have a member that lacks what was committed meanwhile.
//! - A proposal whose fate nobody knows is followed by another one, be it of the same set: under
//!   that one's version the first can't take place any more. So whoever it named, and has died
//!   since, is not waited for without end. While the line goes on from a branch the same set is
//!   not said again for that: it would say that all of it has gone on.
//! - This node leaves the set as soon as another member is there.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use jizoku_core::catalog::Command;
use jizoku_core::placement::{self, HolderCandidate, Wish};
use jizoku_types::{BranchId, ByteCount, Event, Member, ServiceId};

use super::assign::{Local, Next, Promised};
use super::requests::Purpose;
use super::{Node, Order, Output};
use crate::fault::Fault;
use crate::runner::{Asked, Holders, Phase};

/// Who should hold, and from what that was told: as long as all of this is the same, so is the
/// answer. Duties ask often, and things change seldom.
#[derive(Debug)]
pub(super) struct Wished {
    basis: Basis,
    wanted: BTreeSet<Member>,
}

#[derive(PartialEq, Eq, Debug)]
struct Basis {
    catalog: u64,
    link_states: u64,
    disks: u64,
    /// None: there is room for it on all disks, so that its size is of no account.
    size: Option<ByteCount>,
    current: BTreeSet<Member>,
    failed: BTreeSet<Member>,
}

impl Node {
    /// Recruits holders and proposes sets for each service that is active here.
    pub(super) fn set_duties(&mut self) {
        let services: Vec<ServiceId> = self.local.keys().copied().collect();
        for service in services {
            self.recruit(service);
            self.propose_set(service);
        }
    }

    /// The holder set of the line that is served here, and what the spec asks of it: the catalog's,
    /// or that of a branch, which its opener keeps.
    pub(super) fn holders_of(&self, service: ServiceId) -> Option<Holders> {
        let record = self.catalog.service(service);
        let asked = record.map(|record| Asked::of(&record.spec));
        if let Some(own) = self.branches.own(service) {
            return Some(Holders { asked, ..own.holders.clone() });
        }
        let (version, members) = record.map(|it| (it.holders_version, it.holders.clone()))?;
        Some(Holders { version, members, asked })
    }

    fn recruit(&mut self, service: ServiceId) {
        let Some(record) = self.catalog.service(service) else { return };
        if !record.spec.has_state() {
            return;
        }
        let Some(holders) = self.holders_of(service) else { return };
        let mut wanted = self.wanted_holders(service);
        if self.is_leaving(service) {
            // What runs here is the newest state, and the branch shall go on from it.
            wanted.insert(self.me());
        }
        let now = self.now;
        let Some(local) = self.local.get_mut(&service) else { return };
        if local.promised.version != holders.version {
            local.promised = Promised { version: holders.version, ..Promised::default() };
        }
        wanted.extend(&local.promised.members);
        let recruits: BTreeSet<Member> = wanted.difference(&holders.members).copied().collect();
        local.failed.retain(|_, until| *until > now);
        if local.phase < Phase::Starting || local.phase == Phase::Ended {
            return;
        }
        local.caught_up.retain(|member| recruits.contains(member));
        if local.recruits != recruits {
            local.recruits = recruits.clone();
            let epoch = local.epoch;
            self.order(service, epoch, Order::Recruit(recruits));
        }
    }

    /// A proposal of a set was not taken, or nobody knows.
    pub(super) fn set_refused(&mut self, service: ServiceId, unknown: bool) {
        let Some(local) = self.local.get_mut(&service) else { return };
        local.promised.unsure |= unknown;
        if !local.promised.unsure {
            local.promised.members.clear();
        }
    }

    /// Who should hold: by placement, and the target of a move.
    fn wanted_holders(&mut self, service: ServiceId) -> BTreeSet<Member> {
        let mut wanted = self.placed_holders(service);
        if let Some(Next::Move { to, .. }) = self.local.get(&service).and_then(|local| local.next) {
            wanted.extend(self.successor(service, to, true));
        }
        wanted
    }

    /// Who should hold by placement, chosen anew only when something changed.
    fn placed_holders(&mut self, service: ServiceId) -> BTreeSet<Member> {
        let current = self.holders_of(service).unwrap_or_default().members;
        let Some(local) = self.local.get(&service) else { return BTreeSet::new() };
        let size = local.last.size;
        let basis = Basis {
            catalog: self.catalog_version,
            link_states: self.reach.version(),
            disks: self.facts.disks(),
            size: Some(size).filter(|size| *size > self.facts.least_disk()),
            current,
            failed: local.failed.keys().copied().collect(),
        };
        if let Some(wished) = local.wished.as_ref().filter(|wished| wished.basis == basis) {
            debug_assert_eq!(wished.wanted, self.choose_holders(service, &basis));
            return wished.wanted.clone();
        }
        let wanted = self.choose_holders(service, &basis);
        if let Some(local) = self.local.get_mut(&service) {
            local.wished = Some(Wished { basis, wanted: wanted.clone() });
        }
        wanted
    }

    fn choose_holders(&self, service: ServiceId, basis: &Basis) -> BTreeSet<Member> {
        let Some(record) = self.catalog.service(service) else { return BTreeSet::new() };
        let wish = Wish {
            service,
            spec: &record.spec,
            active: self.me().node,
            size: self.local.get(&service).map_or(ByteCount(0), |local| local.last.size),
            current: &basis.current,
        };
        let candidates = self.holder_candidates(service, &basis.failed);
        placement::choose_holders(&wish, &candidates).into_iter().collect()
    }

    fn holder_candidates(
        &self,
        service: ServiceId,
        failed: &BTreeSet<Member>,
    ) -> Vec<HolderCandidate> {
        let branch = self.branches.own(service).is_some();
        let candidate = |mut member: Member| {
            // On a side without a leader the catalog doesn't hear of restarts.
            if let Some(met) = self.reach.incarnation(member.node).filter(|_| branch) {
                member.incarnation = met;
            }
            let known = self.catalog.member(&member.node)?;
            let told = self.facts.load_of(member.node, self.me().node, self.now);
            let failed = failed.contains(&member);
            let load = self.catalog.held_on(member.node).count();
            Some(HolderCandidate {
                member,
                labels: known.labels.clone(),
                witness: known.witness,
                draining: known.draining,
                reachable: self.reach.reaches(member.node) && !failed,
                disk_ok: told.is_none_or(|(_, load)| load.disk_ok),
                free: told.map_or(ByteCount(u64::MAX), |(_, load)| load.disk_free),
                load: u32::try_from(load).unwrap_or(u32::MAX),
            })
        };
        self.catalog.current_members().filter_map(candidate).collect()
    }

    fn propose_set(&mut self, service: ServiceId) {
        let Some(local) = self.local.get(&service) else { return };
        let busy = self.is_under_way(&Purpose::SetHolders(service));
        if busy || local.phase < Phase::Starting || local.phase == Phase::Ended {
            return;
        }
        let me = self.me();
        let Some(now) = self.holders_of(service) else { return };
        let wanted = self.wanted_holders(service);
        let Some(record) = self.catalog.service(service) else { return };
        let Some(local) = self.local.get(&service) else { return };
        let holders = self.next_set(local, wanted, &now.members);
        let may_be_empty = record.spec.min_copies == 0 || !record.born;
        // What was committed under this epoch, all of the set has in this line.
        let went_on = record.fork.is_some() && local.last.id.epoch == record.epoch.counter;
        // The same set said again ends the fork: not before all of it has gone on.
        let settles = local.promised.unsure && record.fork.is_none();
        let same = holders == now.members && !went_on && !settles;
        if same || (holders.is_empty() && !may_be_empty) {
            return;
        }
        let unprotected = holders.iter().all(|member| *member == me);
        if local.epoch.branch != BranchId::MAIN {
            if unprotected {
                self.event(Event::Unprotected { service });
            }
            return self.branches.set_holders(service, holders);
        }
        if self.planted.has(Fault::SetToldEarly) {
            let (epoch, version) = (record.epoch, record.holders_version + 1);
            let told = Holders { version, members: holders.clone(), asked: None };
            self.outputs.push_back(Output::Runner { service, epoch, order: Order::Holders(told) });
        }
        let added: Vec<Member> = holders.difference(&now.members).copied().collect();
        let command = Command::SetHolders {
            service,
            epoch: record.epoch,
            expect_version: record.holders_version,
            born: record.born || !holders.is_empty(),
            holders,
            joining: BTreeSet::new(),
        };
        if unprotected {
            self.event(Event::Unprotected { service });
        }
        if let Some(local) = self.local.get_mut(&service) {
            // The version is the one that `recruit` has just looked at.
            local.promised.members.extend(added);
        }
        self.propose(Purpose::SetHolders(service), &command);
    }

    /// Members that are still there, and recruits that have caught up; more than are wanted only
    /// while some of the wanted ones aren't there yet.
    fn next_set(
        &self,
        local: &Local,
        wanted: BTreeSet<Member>,
        now: &BTreeSet<Member>,
    ) -> BTreeSet<Member> {
        let me = self.me();
        let branch = local.epoch.branch != BranchId::MAIN;
        let there = |member: &Member| {
            let current =
                if branch { self.is_there(member) } else { self.catalog.is_current(member) };
            current && self.reach.reaches(member.node) && !local.failed.contains_key(member)
        };
        let hasty = self.planted.has(Fault::AddsUnready);
        let ready = if hasty { &local.recruits } else { &local.caught_up };
        let mut set: BTreeSet<Member> =
            now.iter().chain(ready).filter(|m| there(m)).copied().collect();
        if set.iter().any(|member| *member != me) {
            set.remove(&me);
        } else if now.contains(&me) {
            set.insert(me);
        }
        if wanted.is_subset(&set) && !wanted.is_empty() {
            set = wanted;
        }
        set
    }
}
