//! Commands about services: specs, epochs, holder sets, branches.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use jizoku_types::limits::{HOLDERS_MAX, SERVICES_MAX};
use jizoku_types::spec::ServiceSpec;
use jizoku_types::{BranchId, Epoch, Member, ServiceId};

use super::members::next;
use super::outcome::{Change, Conflict, Rejection};
use super::record::{BranchRecord, CHECKS_MAX, SPEC_MAX, ServiceRecord, Wanted};
use super::update::{Update, update_of};
use super::{BRANCHES_MAX, Catalog, Fault, RECOVERY_JUMP, Refusal};

type Result = core::result::Result<Vec<Change>, Refusal>;

/// A holder set as a command says it.
pub(super) struct Set<'a> {
    pub(super) holders: &'a BTreeSet<Member>,
    pub(super) joining: &'a BTreeSet<Member>,
    pub(super) born: bool,
}

impl Catalog {
    pub(super) fn apply_service(&mut self, spec: &ServiceSpec, expect: Option<u64>) -> Result {
        check_spec(spec)?;
        let existing = self.service_named(&spec.name).map(|(id, record)| (id, record.version));
        let current = existing.map(|(_, version)| version);
        if current != expect {
            return Err(Conflict::SpecVersion { current }.into());
        }
        let own = existing.map(|(id, _)| id);
        for port in &spec.ports {
            if let Some(by) = self.port_owner(port.listen).filter(|owner| Some(*owner) != own) {
                let by = self.services[&by].spec.name.clone();
                return Err(Rejection::PortTaken { port: port.listen, by }.into());
            }
        }
        match own {
            None => self.add_service(spec),
            Some(service) => self.update_service(service, spec),
        }
    }

    fn add_service(&mut self, spec: &ServiceSpec) -> Result {
        if self.services.len() >= SERVICES_MAX || self.last_service == u64::MAX {
            return Err(Rejection::ServicesFull.into());
        }
        self.last_service += 1;
        let service = ServiceId(self.last_service);
        let record = ServiceRecord {
            spec: spec.clone(),
            version: 1,
            wanted: Wanted::Running,
            epoch: Epoch::main(0),
            active: None,
            holders: BTreeSet::new(),
            joining: BTreeSet::new(),
            holders_version: 0,
            born: false,
            loss_accepted: false,
            branches: BTreeMap::new(),
            fork: None,
        };
        self.services.insert(service, record);
        Ok(vec![Change::ServiceAdded { service }])
    }

    fn update_service(&mut self, service: ServiceId, spec: &ServiceSpec) -> Result {
        let record = self.record(service)?;
        let restart = match update_of(record, spec) {
            Update::Nothing => return Ok(Vec::new()),
            Update::Live => false,
            Update::Restart => true,
            Update::Refused { field, problem } => {
                let (field, problem) = (field.into(), problem.into());
                return Err(Rejection::Unchangeable { field, problem }.into());
            }
        };
        record.spec = spec.clone();
        record.version = record.version.saturating_add(1);
        Ok(vec![Change::ServiceUpdated { service, restart }])
    }

    pub(super) fn remove_service(&mut self, service: ServiceId) -> Result {
        let Some(record) = self.services.remove(&service) else {
            return Err(Rejection::NoSuchService.into());
        };
        let (name, active) = (record.spec.name, record.active);
        Ok(vec![Change::ServiceRemoved { service, name, active }])
    }

    pub(super) fn set_wanted(&mut self, service: ServiceId, wanted: Wanted) -> Result {
        let record = self.record(service)?;
        if record.wanted == wanted {
            return Ok(Vec::new());
        }
        record.wanted = wanted;
        Ok(vec![Change::WantedChanged { service, wanted }])
    }

    pub(super) fn take_over(
        &mut self,
        service: ServiceId,
        expect: Epoch,
        to: Option<Member>,
    ) -> Result {
        let careless = self.has(Fault::TakeOverWithoutCompare);
        let record = self.services.get(&service).ok_or(Rejection::NoSuchService)?;
        if record.epoch != expect && !careless {
            return Err(Conflict::Epoch { current: record.epoch }.into());
        }
        if let Some(to) = to {
            self.may_run(&record.spec, to)?;
        }
        let record = self.record(service)?;
        let from = record.active;
        record.epoch = next(record.epoch);
        record.active = to;
        // A loss is accepted for the one reign that shall use it: a later one may well find a
        // holder. With nobody active it was meant for whoever comes.
        record.loss_accepted &= from.is_none();
        let epoch = record.epoch;
        Ok(vec![Change::ActiveChanged { service, epoch, from, to }])
    }

    /// Whether `to` may be active for a service with this spec.
    pub(super) fn may_run(
        &self,
        spec: &ServiceSpec,
        to: Member,
    ) -> core::result::Result<(), Refusal> {
        let node = to.node;
        let member = self.members.get(&node).ok_or(Rejection::NoSuchMember { node })?;
        if member.incarnation != to.incarnation {
            return Err(Conflict::Incarnation { node, current: member.incarnation }.into());
        }
        if member.witness {
            return Err(Rejection::Witness { node }.into());
        }
        if member.draining {
            return Err(Rejection::Draining { node }.into());
        }
        let place = &spec.placement;
        let listed = place.only.is_empty() || place.only.contains(&node);
        let labelled = place
            .require
            .iter()
            .all(|(key, value)| member.labels.get(key).is_some_and(|own| own == value));
        if !listed || place.except.contains(&node) || !labelled {
            return Err(Rejection::Placement { node }.into());
        }
        Ok(())
    }

    pub(super) fn set_holders(
        &mut self,
        service: ServiceId,
        epoch: Epoch,
        expect_version: u64,
        set: &Set<'_>,
    ) -> Result {
        let careless = self.has(Fault::SetHoldersOfOldEpoch);
        let record = self.services.get(&service).ok_or(Rejection::NoSuchService)?;
        if record.epoch != epoch && !careless {
            return Err(Conflict::Epoch { current: record.epoch }.into());
        }
        if record.holders_version != expect_version {
            return Err(Conflict::HoldersVersion { current: record.holders_version }.into());
        }
        if record.active.is_none() {
            return Err(Rejection::NotActive.into());
        }
        self.check_set(record, set.holders, set.joining)?;
        let born = record.born || set.born;
        if born && set.holders.is_empty() && record.spec.min_copies > 0 {
            return Err(Rejection::WouldLoseState.into());
        }
        let record = self.record(service)?;
        // Said again as it is: all of it has gone on from the branch. The version grows all the
        // same: no older proposal can take place any more.
        if record.holders == *set.holders && record.joining == *set.joining {
            record.fork = None;
        }
        record.holders.clone_from(set.holders);
        record.joining.clone_from(set.joining);
        record.holders_version = record.holders_version.saturating_add(1);
        record.born = born;
        // The active node has agreed with a set on what the state is: that is the line now.
        record.loss_accepted = false;
        let version = record.holders_version;
        Ok(vec![Change::HoldersChanged { service, version }])
    }

    /// Whether every entry may stand in the set. One that stands there already may stay in its
    /// old incarnation: whether it still counts is for holders to say.
    fn check_set(
        &self,
        record: &ServiceRecord,
        holders: &BTreeSet<Member>,
        joining: &BTreeSet<Member>,
    ) -> core::result::Result<(), Refusal> {
        // The active node may be one of them, and does not count.
        if holders.len() > HOLDERS_MAX + 1 || joining.len() > HOLDERS_MAX {
            return Err(Rejection::TooManyHolders.into());
        }
        let mut seen = BTreeSet::new();
        for entry in holders.iter().chain(joining) {
            let node = entry.node;
            if !seen.insert(node) {
                return Err(Rejection::SameNodeTwice { node }.into());
            }
            let member = self.members.get(&node).ok_or(Rejection::NoSuchMember { node })?;
            if record.holders.contains(entry) || record.joining.contains(entry) {
                continue;
            }
            if member.incarnation != entry.incarnation {
                return Err(Conflict::Incarnation { node, current: member.incarnation }.into());
            }
            if member.witness {
                return Err(Rejection::Witness { node }.into());
            }
        }
        Ok(())
    }

    pub(super) fn accept_loss(&mut self, service: ServiceId, epoch: Epoch) -> Result {
        let record = self.record(service)?;
        if record.epoch != epoch {
            return Err(Conflict::Epoch { current: record.epoch }.into());
        }
        if record.loss_accepted {
            return Ok(Vec::new());
        }
        record.loss_accepted = true;
        Ok(vec![Change::LossAccepted { service, epoch }])
    }

    pub(super) fn keep_branch(
        &mut self,
        service: ServiceId,
        branch: BranchId,
        kept: &BranchRecord,
    ) -> Result {
        if branch == BranchId::MAIN {
            return Err(Rejection::NotABranch.into());
        }
        if kept.holders.is_empty() {
            return Err(Rejection::WouldLoseState.into());
        }
        let stranger = kept.holders.iter().find(|node| !self.members.contains_key(node));
        if let Some(node) = stranger.copied() {
            return Err(Rejection::NoSuchMember { node }.into());
        }
        let record = self.record(service)?;
        if record.branches.get(&branch) == Some(kept) {
            return Ok(Vec::new());
        }
        // Its state exists already, so it is listed even above the spec's `branch_limit`; that
        // limit forbids opening the next (`branch_room`).
        if !record.branches.contains_key(&branch) && record.branches.len() >= BRANCHES_MAX {
            return Err(Rejection::BranchesFull.into());
        }
        record.branches.insert(branch, kept.clone());
        Ok(vec![Change::BranchKept { service, branch }])
    }

    pub(super) fn drop_branch(&mut self, service: ServiceId, branch: BranchId) -> Result {
        match self.record(service)?.branches.remove(&branch) {
            Some(_) => Ok(vec![Change::BranchDropped { service, branch }]),
            None => Err(Rejection::NoSuchBranch.into()),
        }
    }

    pub(super) fn resolve_branch(
        &mut self,
        service: ServiceId,
        expect: Epoch,
        (branch, reached): (BranchId, u64),
        to: Member,
        holders: &BTreeSet<Member>,
    ) -> Result {
        if branch == BranchId::MAIN {
            return Err(Rejection::NotABranch.into());
        }
        let record = self.services.get(&service).ok_or(Rejection::NoSuchService)?;
        if record.epoch != expect {
            return Err(Conflict::Epoch { current: record.epoch }.into());
        }
        self.may_run(&record.spec, to)?;
        if holders.is_empty() && record.spec.min_copies > 0 {
            return Err(Rejection::WouldLoseState.into());
        }
        self.check_set(record, holders, &BTreeSet::new())?;
        let record = self.record(service)?;
        let from = record.active;
        // Above all that the branch's checkpoints are numbered by: they precede what comes now.
        let most = record.epoch.counter.saturating_add(RECOVERY_JUMP);
        record.epoch.counter = record.epoch.counter.max(reached.min(most));
        record.epoch = next(record.epoch);
        record.active = Some(to);
        record.fork = Some(branch);
        record.holders.clone_from(holders);
        record.joining.clear();
        record.holders_version = record.holders_version.saturating_add(1);
        record.born = true;
        record.loss_accepted = false;
        record.branches.remove(&branch);
        let (epoch, version) = (record.epoch, record.holders_version);
        Ok(vec![
            Change::BranchResolved { service, branch },
            Change::ActiveChanged { service, epoch, from, to: Some(to) },
            Change::HoldersChanged { service, version },
        ])
    }

    fn record(&mut self, service: ServiceId) -> core::result::Result<&mut ServiceRecord, Refusal> {
        self.services.get_mut(&service).ok_or(Rejection::NoSuchService.into())
    }
}

fn check_spec(spec: &ServiceSpec) -> core::result::Result<(), Refusal> {
    let wrong = |field: &str, problem: &str| {
        Err(Rejection::BadSpec { field: field.into(), problem: problem.into() }.into())
    };
    if let Err(error) = spec.check() {
        return wrong(error.field, error.problem);
    }
    if spec.checks.len() > CHECKS_MAX {
        return wrong("checks", &format!("at most {CHECKS_MAX}"));
    }
    if jizoku_types::encode(spec).len() > SPEC_MAX {
        return wrong(
            "service",
            &format!("too long: over {SPEC_MAX} bytes of arguments and names"),
        );
    }
    Ok(())
}
